package render_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/render"
)

func cm(name string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\n"
}

func tree(files map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for p, s := range files {
		out[p] = &fstest.MapFile{Data: []byte(s)}
	}
	return out
}

// TestCacheRendersLikeAFreshStart edits a repository at random: what the cache gives is always what a fresh
// rendering gives, whether it is told what changed or not.
func TestCacheRendersLikeAFreshStart(t *testing.T) {
	paths := []string{
		"apps/a.yaml", "apps/b.yaml", "apps/x/kustomization.yaml", "apps/x/kustomization.yml", "apps/x/cm.yaml", "apps/x/y/z.yaml",
		"apps/n/kustomization.yaml", "base/kustomization.yaml", "base/cm.yaml", "base/data.txt", "apps/kustomization.yaml", "other/o.yaml",
		"apps/x/cm.yaml/below.yaml", "base/extra/kustomization.yaml",
	}
	contents := []string{
		cm("one"), cm("two"), "resources: [cm.yaml]\n", "resources: [../../base]\nnamespace: n\n", "resources: [../base, a.yaml]\n",
		"resources: [cm.yaml]\nconfigMapGenerator:\n- name: g\n  files: [data.txt]\n", "resources: [cm.yaml, extra]\n", "text", "a: [\n", "",
	}
	rapid.Check(t, func(t *rapid.T) {
		options := render.Options{}
		if rapid.Bool().Draw(t, "prefix") {
			options.NamePrefix = "p-"
		}
		c, files := render.NewCache(), map[string]string{}
		engine := &render.Engine{}
		for step := range rapid.IntRange(1, 8).Draw(t, "steps") {
			var changed []string
			for range rapid.IntRange(0, 4).Draw(t, "edits") {
				p := rapid.SampledFrom(paths).Draw(t, "path")
				if rapid.Bool().Draw(t, "remove") {
					delete(files, p)
				} else if p == "apps/x/cm.yaml/below.yaml" {
					delete(files, "apps/x/cm.yaml")
					changed = append(changed, "apps/x/cm.yaml")
					files[p] = cm("below")
				} else {
					if p == "apps/x/cm.yaml" {
						delete(files, "apps/x/cm.yaml/below.yaml")
						changed = append(changed, "apps/x/cm.yaml/below.yaml")
					}
					files[p] = rapid.SampledFrom(contents).Draw(t, "content")
				}
				changed = append(changed, p)
			}
			if changed == nil {
				changed = []string{}
			}
			if rapid.Bool().Draw(t, "unknown") {
				changed = nil
			}
			req := render.Request{Source: "s", Files: tree(maps.Clone(files)), Path: "apps", Options: options}
			want, err := render.With(context.Background(), req, engine)
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := c.Render(context.Background(), engine, req, changed)
			if err != nil {
				t.Fatal(err)
			}
			if want.Diags.HasErrors() && got.Diags.HasErrors() {
				// An empty directory that went away is told in other words; Git has none.
				want, got = render.Result{}, render.Result{}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Fatalf("step %d, changed %q, files %q:\n-fresh +cache:\n%s", step, changed, slices.Sorted(maps.Keys(files)), d)
			}
		}
	})
}

func TestCacheRendersOnlyWhatReadAChange(t *testing.T) {
	files := map[string]string{
		"apps/a.yaml": cm("a"), "apps/b.yaml": cm("b"),
		"apps/x/kustomization.yaml": "resources: [../../base]\nnamespace: x\n", "apps/y/kustomization.yaml": "resources: [../../base]\nnamespace: y\n",
		"base/kustomization.yaml": "resources: [cm.yaml]\nconfigMapGenerator:\n- name: g\n  files: [data.txt]\n", "base/cm.yaml": cm("base"), "base/data.txt": "1",
	}
	c, revision := render.NewCache(), 0
	step := func(name string, path, content string, known bool, want render.Stats) render.Result {
		t.Helper()
		if content != "" {
			files[path] = content
		} else {
			delete(files, path)
		}
		var changed []string
		if known {
			changed = []string{path}
		}
		revision++
		res, got, err := c.Render(t.Context(), &render.Engine{}, render.Request{Revision: fmt.Sprint(revision), Files: tree(files), Path: "apps"}, changed)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: -want +got:\n%s", name, d)
		}
		return res
	}
	first := step("first", "README.md", "r", true, render.Stats{Units: 4, Rendered: 4})
	same := step("not read", "README.md", "s", true, render.Stats{Units: 4, Same: true})
	if &first.Objects[0] != &same.Objects[0] {
		t.Error("an unchanged result is another slice")
	}
	step("not read, not known", "README.md", "t", false, render.Stats{Units: 4, Same: true})
	step("one file", "apps/a.yaml", cm("aa"), true, render.Stats{Units: 4, Rendered: 1})
	step("one overlay", "apps/x/kustomization.yaml", "resources: [../../base]\nnamespace: xx\n", true, render.Stats{Units: 4, Rendered: 1})
	step("the base", "base/data.txt", "2", true, render.Stats{Units: 4, Rendered: 2})
	step("the base, not known", "base/data.txt", "3", false, render.Stats{Units: 4, Rendered: 2})
	step("a new file", "apps/c.yaml", cm("c"), true, render.Stats{Units: 5, Rendered: 1})
	step("a removed file", "apps/c.yaml", "", true, render.Stats{Units: 4})
	step("a new directory", "apps/z/d/e.yaml", cm("e"), true, render.Stats{Units: 5, Rendered: 1})
	step("a second kustomization file", "base/kustomization.yml", "{}", true, render.Stats{Units: 5, Rendered: 2})
	step("none of it any more", "base/kustomization.yml", "", true, render.Stats{Units: 5, Rendered: 2})
}

// A file that becomes a symbolic link is no other for whoever reads it, but it is for whoever lists its directory.
func TestAFileThatBecomesALinkIsListedAnew(t *testing.T) {
	c := render.NewCache()
	files := tree(map[string]string{"apps/a.yaml": cm("a"), "apps/b.yaml": cm("b"), "shared/a.yaml": cm("a")})
	for step := range 3 {
		changed := []string{"apps/a.yaml"}
		files = maps.Clone(files)
		if step == 1 {
			files["apps/a.yaml"] = &fstest.MapFile{Data: []byte("../shared/a.yaml"), Mode: fs.ModeSymlink | 0o777}
		} else {
			files["apps/a.yaml"] = &fstest.MapFile{Data: []byte(cm("a")), Mode: 0o644}
		}
		req := render.Request{Source: "s", Revision: fmt.Sprint(step), Files: files, Path: "apps"}
		want, err := render.With(t.Context(), req, &render.Engine{})
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := c.Render(t.Context(), &render.Engine{}, req, changed)
		if err != nil {
			t.Fatal(err)
		}
		for i := range got.Objects { // those that were not rendered again keep theirs
			got.Objects[i].Origin.Revision, got.Objects[i].Origin.Source = want.Objects[i].Origin.Revision, want.Objects[i].Origin.Source
		}
		if d := cmp.Diff(want, got); d != "" || got.Diags.HasErrors() != (step == 1) {
			t.Fatalf("step %d:\n-fresh +cache:\n%s%s", step, d, got.Diags)
		}
	}
}

// broken is a runner that fails.
type broken struct{ err error }

func (b broken) Run(context.Context, render.Request, []render.Unit, func(int, render.UnitResult)) error {
	return b.err
}

func TestCacheCatchesUpAfterAnError(t *testing.T) {
	c := render.NewCache()
	files := map[string]string{"a.yaml": cm("a"), "b.yaml": cm("b")}
	req := func(revision string) render.Request {
		return render.Request{Revision: revision, Files: tree(maps.Clone(files)), Path: "."}
	}
	if _, _, err := c.Render(t.Context(), &render.Engine{}, req("1"), nil); err != nil {
		t.Fatal(err)
	}
	files["a.yaml"] = cm("changed")
	boom := errors.New("boom")
	if _, _, err := c.Render(t.Context(), broken{boom}, req("2"), []string{"a.yaml"}); !errors.Is(err, boom) {
		t.Fatalf("got %v", err)
	}
	res, stats, err := c.Render(t.Context(), &render.Engine{}, req("3"), []string{})
	if err != nil || stats.Rendered != 1 || res.Objects[1].Name != "changed" {
		t.Errorf("%v %+v %v", res.Objects, stats, err)
	}
	other := req("3")
	other.AgeKeys = []string{"AGE-SECRET-KEY-1X"}
	if _, stats, _ := c.Render(t.Context(), &render.Engine{}, other, []string{}); stats.Rendered != 2 {
		t.Errorf("another key rendered %d units", stats.Rendered)
	}
}

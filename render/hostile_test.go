package render_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/fairlead-dev/fairlead/render"
	"github.com/fairlead-dev/fairlead/render/decode"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// bomb nests aliases so that they expand to 10^9 values.
func bomb() string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\nx0: &x0 [a,a,a,a,a,a,a,a,a,a]\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&b, "x%d: &x%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*x%d,", i-1), 10), ","))
	}
	return b.String()
}

// TestHostileInput holds that every attack ends soon, with a diagnostic and without harm to what is beside it.
func TestHostileInput(t *testing.T) {
	doubling := map[string]string{"good.yaml": cm("good"), "u/kustomization.yaml": "resources: [../d00]\n"}
	for i := range 30 {
		doubling[fmt.Sprintf("d%02d/kustomization.yaml", i)] = fmt.Sprintf("resources: [../d%02d/a, ../d%02d/b]\n", i, i)
		for _, ab := range []string{"a", "b"} {
			doubling[fmt.Sprintf("d%02d/%s/kustomization.yaml", i, ab)] = fmt.Sprintf("namePrefix: %s\nresources: [../../d%02d]\n", ab, i+1)
		}
	}
	doubling["d30/kustomization.yaml"] = "resources: []\nconfigMapGenerator: [{name: x}]\n"
	for name, tt := range map[string]struct {
		files map[string]string
		want  string // a code
	}{
		"alias bomb":          {map[string]string{"bad.yaml": bomb()}, "yaml-limit"},
		"alias of itself":     {map[string]string{"bad.yaml": "a: &a [*a]\n"}, "yaml-limit"},
		"deep nesting":        {map[string]string{"bad.yaml": "a: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000)}, "yaml-limit"},
		"huge file":           {map[string]string{"bad.yaml": strings.Repeat("#", 17<<20)}, ""},
		"many values":         {map[string]string{"bad.yaml": "a: [" + strings.Repeat("0,", 1_100_000) + "0]"}, "file-too-complex"},
		"many documents":      {map[string]string{"bad.yaml": strings.Repeat("---\na: b\n", 20_000)}, ""},
		"doubling bases":      {doubling, "too-large"},
		"base contains it":    {map[string]string{"u/kustomization.yaml": "resources: [..]\n", "kustomization.yaml": "resources: [u]\n"}, ""},
		"null bytes":          {map[string]string{"bad.yaml": "a: \x00\x01\n"}, ""},
		"not text":            {map[string]string{"bad.yaml": "\xff\xfe\x00a"}, ""},
		"path with null byte": {map[string]string{"u/kustomization.yaml": "resources: [\"a\\0b\"]\n"}, "outside"},
		"function":            {map[string]string{"u/kustomization.yaml": "transformers: [t.yaml]\n", "u/t.yaml": cm("x") + "  annotations: {config.kubernetes.io/function: 'container: {image: evil}'}\n"}, ""},
		"openapi path":        {map[string]string{"u/kustomization.yaml": "openapi: {path: ../../../../etc/passwd}\n"}, "outside"},
		"crd path":            {map[string]string{"u/kustomization.yaml": "crds: [/etc/passwd]\n"}, "outside"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.files["good.yaml"] = cm("good")
			start := time.Now()
			res, err := render.Render(t.Context(), render.Request{Files: tree(tt.files), Path: "."})
			if err != nil {
				t.Fatal(err)
			}
			if !res.Diags.HasErrors() {
				t.Error("nothing is reported")
			}
			found := tt.want == ""
			for _, d := range res.Diags {
				found = found || d.Code == tt.want
				if d.Origin.Path == "" || len(d.String()) > 2000 {
					t.Errorf("diagnostic %.300q has no place or is too long", d.String())
				}
			}
			if !found {
				t.Errorf("no %s among %.2000s", tt.want, res.Diags)
			}
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("took %s", took)
			}
			good := slices.ContainsFunc(res.Objects, func(o object.Object) bool { return o.Name == "good" })
			if _, whole := tt.files["kustomization.yaml"]; !whole && !good {
				t.Error("the good file beside it is gone")
			}
		})
	}
}

func TestSymlinksAreRefused(t *testing.T) {
	files := tree(map[string]string{"good.yaml": cm("good")})
	files["link.yaml"] = &fstest.MapFile{Data: []byte("../../etc/passwd"), Mode: fs.ModeSymlink | 0o777}
	res, err := render.Render(t.Context(), render.Request{Files: files, Path: "."})
	if err != nil || len(res.Diags) != 1 || res.Diags[0].Code != "symlink" {
		t.Errorf("%v %v", res.Diags, err)
	}
}

// TestSymlinksInKustomizationsAreCalledThat holds that what is there, but cannot be followed, is not called absent.
func TestSymlinksInKustomizationsAreCalledThat(t *testing.T) {
	files := tree(map[string]string{
		"app/kustomization.yaml": "resources: [out.yaml, dangling.yaml, dir/web.yaml, absent.yaml, inside.yaml]\n",
		"app/real.yaml":          cm("real"),
	})
	for name, to := range map[string]string{
		"app/out.yaml": "/etc/passwd", "app/dangling.yaml": "nothing.yaml", "app/dir": "../../elsewhere", "app/inside.yaml": "real.yaml", "gone": "/srv",
	} {
		files[name] = &fstest.MapFile{Data: []byte(to), Mode: fs.ModeSymlink | 0o777}
	}
	const hint = " is a symbolic link that leads out of the source, to nothing or in a circle (put the file itself there)\n"
	for path, want := range map[string]string{
		"app": `app/kustomization.yaml:1: error: resources[0]: "out.yaml"` + hint +
			`app/kustomization.yaml:1: error: resources[1]: "dangling.yaml"` + hint +
			`app/kustomization.yaml:1: error: resources[2]: "dir/web.yaml"` + strings.Replace(hint, "is a", "is below a", 1) +
			`app/kustomization.yaml:1: error: resources[3]: "absent.yaml" does not exist` + "\n",
		"gone": "gone: error: the path is a symbolic link that leads out of the source, to nothing or in a circle (name the directory itself)\n",
	} {
		res, err := render.Render(t.Context(), render.Request{Files: files, Path: path})
		if err != nil {
			t.Fatal(err)
		}
		if have := res.Diags.String(); have != want {
			t.Errorf("%s: have\n%swant\n%s", path, have, want)
		}
	}
}

// TestBytesAndMarks holds that line ends, byte order marks and tabs of other systems are read.
func TestBytesAndMarks(t *testing.T) {
	text := "\xef\xbb\xbf" + strings.ReplaceAll(cm("a")+"---\n"+cm("b")+"dta: {}\n", "\n", "\r\n")
	res, err := render.Render(t.Context(), render.Request{Files: tree(map[string]string{"a.yaml": text}), Path: "."})
	if err != nil {
		t.Fatal(err)
	}
	want := "a.yaml:8: error: ConfigMap default/b: dta: is not a field of ConfigMap (did you mean data?)\n"
	if d := cmp.Diff(want, res.Diags.String()); d != "" || len(res.Objects) != 2 {
		t.Errorf("%v\n%s", res.Objects, d)
	}
}

// TestSameAsKrusty compares what is rendered with what kustomize itself makes of the golden files.
func TestSameAsKrusty(t *testing.T) {
	for _, name := range []string{"overlay", "transformers"} {
		t.Run(name, func(t *testing.T) {
			ar, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
			if err != nil {
				t.Fatal(err)
			}
			req, _ := request(t, ar)
			res, err := render.Render(t.Context(), req)
			if err != nil || res.Diags.HasErrors() {
				t.Fatal(err, res.Diags)
			}
			disk := filesys.MakeFsInMemory()
			for p, f := range req.Files.(fstest.MapFS) {
				if err := disk.WriteFile("/"+p, f.Data); err != nil {
					t.Fatal(err)
				}
			}
			m, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(disk, "/"+req.Path)
			if err != nil {
				t.Fatal(err)
			}
			want, got := map[string]string{}, map[string]string{}
			for _, r := range m.Resources() {
				j, err := r.MarshalJSON()
				if err != nil {
					t.Fatal(err)
				}
				want[r.GetKind()+" "+r.GetName()] = string(bytes.TrimSpace(j))
			}
			for _, o := range res.Objects {
				got[o.Kind+" "+o.Name] = string(o.Written)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("-krusty +fairlead:\n%s", d)
			}
		})
	}
}

// FuzzRender renders archives in the form of the golden files: nothing panics, and every finding has a place.
func FuzzRender(f *testing.F) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range archives {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(txtar.Format(ar))
	}
	engine := &render.Engine{}
	f.Fuzz(func(t *testing.T, data []byte) {
		files := fstest.MapFS{}
		for _, a := range txtar.Parse(data).Files {
			if fs.ValidPath(a.Name) {
				files[a.Name] = &fstest.MapFile{Data: a.Data}
			}
		}
		for _, p := range []string{".", "app", "prod", "apps"} {
			res, err := render.With(t.Context(), render.Request{Files: files, Path: p, Options: render.Options{Substitute: map[string]string{"region": "eu"}}}, engine)
			if err != nil {
				continue // a file that is also a directory breaks the file system itself
			}
			for _, d := range res.Diags {
				if d.Code == "broke-down" || (d.Origin.Path == "" && d.Severity == diag.Error) {
					t.Errorf("%+v", d)
				}
			}
		}
	})
}

// FuzzParseFile reads files of manifests and decodes every document of them.
func FuzzParseFile(f *testing.F) {
	f.Add([]byte(cm("a") + "---\n" + cm("b")))
	f.Add([]byte(bomb()))
	f.Add([]byte("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {spec: {containers: [{name: a, resources: {limits: {cpu: 1}}}]}}}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		lim := decode.DefaultLimits()
		file, _ := decode.ParseFile("a.yaml", data, lim)
		for _, d := range file.Docs {
			v, err := decode.Value(d.Root, lim)
			if m, ok := v.(map[string]any); ok && err == nil {
				decode.Object(m, decode.Options{})
			}
		}
	})
}

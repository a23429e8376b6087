package git

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func (r *repo) link(name, to string) {
	r.t.Helper()
	p := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Symlink(to, p); err != nil {
		r.t.Fatal(err)
	}
}

func TestSymbolicLinks(t *testing.T) {
	r := newRepo(t)
	r.link("link.yaml", "dir/a.yaml")
	r.link("dir2", "dir")
	r.link("deep/link", "../dir2/a.yaml")
	r.link("absolute", "/etc/passwd")
	r.link("above", "../../etc/passwd")
	r.link("loop1", "loop2")
	r.link("loop2", "loop1")
	r.link("nowhere", "missing")
	r.commit("links", map[string]string{"dir/a.yaml": "a"})
	s := open(t, Options{URL: r.dir})
	got := fetch(t, s, "")
	for _, name := range []string{"link.yaml", "dir2/a.yaml", "deep/link"} {
		if data, err := fs.ReadFile(got.Files, name); string(data) != "a" {
			t.Errorf("%s: %q %v", name, data, err)
		}
		if info, err := fs.Stat(got.Files, name); err != nil || !info.Mode().IsRegular() || info.Size() != 1 {
			t.Errorf("stat %s: %v %v", name, info, err)
		}
	}
	for name, want := range map[string]fs.FileMode{"link.yaml": fs.ModeSymlink, "nowhere": fs.ModeSymlink, "dir2/a.yaml": 0, "dir": fs.ModeDir} {
		if info, err := fs.Lstat(got.Files, name); err != nil || info.Mode().Type() != want {
			t.Errorf("lstat %s: %v %v", name, info, err)
		}
	}
	if to, err := fs.ReadLink(got.Files, "deep/link"); to != "../dir2/a.yaml" || err != nil {
		t.Errorf("a link to %q: %v", to, err)
	}
	if to, err := fs.ReadLink(got.Files, "dir/a.yaml"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a file is a link to %q: %v", to, err)
	}
	for name, want := range map[string]error{
		"absolute": fs.ErrInvalid, "above": fs.ErrInvalid, "loop1": fs.ErrInvalid, "nowhere": fs.ErrNotExist, "dir/../dir/a.yaml": fs.ErrInvalid,
	} {
		_, err := fs.ReadFile(got.Files, name)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	// A change of what a link points to is a change of the path that was read.
	r.commit("change", map[string]string{"dir/a.yaml": "b"})
	now := fetch(t, s, got.Revision)
	paths, known := now.Changed(got.Revision)
	for _, p := range []string{"dir/a.yaml", "link.yaml", "dir2/a.yaml", "deep/link"} {
		if !known || !slices.Contains(paths, p) {
			t.Errorf("%s is not among the changed paths %v (%v)", p, paths, known)
		}
	}
}

func TestLargeFileStorage(t *testing.T) {
	r := newRepo(t)
	r.commit("lfs", map[string]string{"big.bin": "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"})
	got := fetch(t, open(t, Options{URL: r.dir}), "")
	if _, err := fs.ReadFile(got.Files, "big.bin"); err == nil || !strings.Contains(err.Error(), "big.bin") || !strings.Contains(err.Error(), "LFS") {
		t.Errorf("a pointer is read as a file: %v", err)
	}
}

func TestIgnoreAndSparse(t *testing.T) {
	files := map[string]string{
		"app/deploy.yaml": "1", "app/logo.png": "1", "app/docs/a.md": "1", "app/docs/keep.yaml": "1", ".github/w.yaml": "1", ".gitignore": "x",
		".gitattributes": "", "README.md": "1", "other/x.yaml": "1", ".sops.yaml": "1",
	}
	with := func(more ...string) map[string]string {
		all := map[string]string{}
		for k, v := range files {
			all[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			all[more[i]] = more[i+1]
		}
		return all
	}
	for name, tt := range map[string]struct {
		files map[string]string
		o     Options
		want  string
	}{
		"defaults":         {with(), Options{}, "README.md app/deploy.yaml app/docs/a.md app/docs/keep.yaml other/x.yaml"},
		"options":          {with(), Options{Ignore: "*.md\n# remark\n\nother/\n"}, ".github/w.yaml .sops.yaml app/deploy.yaml app/docs/keep.yaml app/logo.png"},
		"only one path":    {with(), Options{Ignore: "/*\n!/app\n"}, "app/deploy.yaml app/docs/a.md app/docs/keep.yaml app/logo.png"},
		"file":             {with(".sourceignore", "docs/\n.*\n"), Options{}, "README.md app/deploy.yaml app/logo.png other/x.yaml"},
		"include again":    {with(".sourceignore", "docs/**\n!docs/keep.yaml\n!**/keep.yaml\n.*\n"), Options{Ignore: "other\nREADME.md\n*.png"}, "app/deploy.yaml app/docs/a.md app/docs/keep.yaml"},
		"nested file":      {with("app/.sourceignore", "docs/\n"), Options{Ignore: "other\n.*\n"}, "README.md app/deploy.yaml app/logo.png"},
		"options win":      {with(".sourceignore", "app\n.*\n"), Options{Ignore: "!app/**\n"}, "README.md app/deploy.yaml app/docs/a.md app/docs/keep.yaml app/logo.png other/x.yaml"},
		"sparse":           {with(), Options{Sparse: []string{"app/docs/"}}, "app/docs/a.md app/docs/keep.yaml"},
		"sparse two":       {with(), Options{Sparse: []string{"./other", "/app/docs"}}, "app/docs/a.md app/docs/keep.yaml other/x.yaml"},
		"sparse root":      {with(), Options{Sparse: []string{"."}}, "README.md app/deploy.yaml app/docs/a.md app/docs/keep.yaml other/x.yaml"},
		"crlf and comment": {with(), Options{Ignore: "#app\r\n*.png\r\n.*\r\nother/\r\nREADME.md\r\n"}, "app/deploy.yaml app/docs/a.md app/docs/keep.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t)
			r.write(map[string]string{".git/info/exclude": ""})
			r.write(tt.files)
			r.git("add", "-f", ".")
			r.git("commit", "-q", "-m", "files")
			tt.o.URL = r.dir
			got := fetch(t, open(t, tt.o), "")
			var names []string
			for name := range contents(t, got.Files) {
				names = append(names, name)
			}
			slices.Sort(names)
			if d := cmp.Diff(strings.Fields(tt.want), names); d != "" {
				t.Errorf("files (-want +got):\n%s", d)
			}
			for name := range tt.files {
				_, err := fs.Stat(got.Files, name)
				if shown := slices.Contains(names, name); shown != (err == nil) {
					t.Errorf("stat %s: %v, listed: %v", name, err, shown)
				}
			}
		})
	}
}

func TestIgnoredChangesDoNotCount(t *testing.T) {
	r := newRepo(t)
	r.commit("1", map[string]string{"a.yaml": "1", "logo.png": "1"})
	s := open(t, Options{URL: r.dir})
	before := fetch(t, s, "")
	r.commit("2", map[string]string{"logo.png": "2"})
	middle := fetch(t, s, before.Revision)
	if paths, known := middle.Changed(before.Revision); len(paths) != 0 || !known {
		t.Errorf("changed: %v %v", paths, known)
	}
	r.commit("3", map[string]string{".sourceignore": "*.md"})
	if paths, known := fetch(t, s, middle.Revision).Changed(middle.Revision); known {
		t.Errorf("changed patterns: %v is said to be all", paths)
	}
	if _, known := middle.Changed("unknown"); known {
		t.Error("changes since a revision that never was are known")
	}
}

func TestChangedKinds(t *testing.T) {
	each(t, func(t *testing.T, r *repo, o Options) {
		r.commit("1", map[string]string{"a": "1", "b": "1", "dir/x": "1", "dir/y/z": "1", "file": "1", "mode": "1", "same/s": "1"})
		s := open(t, o)
		before := fetch(t, s, "")
		os.Chmod(filepath.Join(r.dir, "mode"), 0o755)
		r.git("mv", "dir/x", "dir/moved")
		r.git("rm", "-q", "file")
		r.commit("2", map[string]string{"a": "2", "b": "-", "file/below": "1", "new/n": "1"})
		paths, known := fetch(t, s, before.Revision).Changed(before.Revision)
		want := strings.Fields("a b dir/moved dir/x file file/below mode new new/n")
		if d := cmp.Diff(want, paths); d != "" || !known {
			t.Errorf("changed (%v, -want +got):\n%s", known, d)
		}
	})
}

func TestSubmodules(t *testing.T) {
	base := t.TempDir()
	inner := newRepoAt(t, filepath.Join(base, "inner"))
	inner.commit("inner", map[string]string{"i.yaml": "inner"})
	lib := newRepoAt(t, filepath.Join(base, "lib"))
	lib.git("submodule", "add", "-q", inner.dir, "inner")
	lib.git("config", "-f", ".gitmodules", "submodule.inner.url", "../inner")
	first := lib.commit("lib 1", map[string]string{"l.yaml": "1", "docs/d.png": "x"})
	r := newRepoAt(t, filepath.Join(base, "config"))
	r.git("submodule", "add", "-q", lib.dir, "vendor/lib")
	r.git("config", "-f", ".gitmodules", "submodule.vendor/lib.url", "../lib")
	r.commit("config", map[string]string{"a.yaml": "a"})
	lib.commit("lib 2", map[string]string{"l.yaml": "2"})
	for name, url := range map[string]string{"http": serveHTTP(t, r, nil).URL, "file": r.dir} {
		t.Run(name, func(t *testing.T) {
			without := fetch(t, open(t, Options{URL: url}), "")
			if d := cmp.Diff(map[string]string{"a.yaml": "a"}, contents(t, without.Files)); d != "" {
				t.Errorf("without submodules (-want +got):\n%s", d)
			}
			if list, err := fs.ReadDir(without.Files, "vendor/lib"); err != nil || len(list) != 0 {
				t.Errorf("a submodule that is not read: %v %v, want an empty directory", list, err)
			}
			s := open(t, Options{URL: url, Submodules: true})
			with := fetch(t, s, "")
			want := map[string]string{"a.yaml": "a", "vendor/lib/l.yaml": "1", "vendor/lib/inner/i.yaml": "inner"}
			if d := cmp.Diff(want, contents(t, with.Files)); d != "" {
				t.Errorf("with submodules (-want +got):\n%s", d)
			}
			sub := &repo{t: t, dir: filepath.Join(r.dir, "vendor/lib"), tick: 1000}
			sub.git("fetch", "-q", lib.dir, "main")
			sub.git("checkout", "-q", "FETCH_HEAD")
			r.commit("newer lib", nil)
			now := fetch(t, s, with.Revision)
			want["vendor/lib/l.yaml"] = "2"
			if d := cmp.Diff(want, contents(t, now.Files)); d != "" {
				t.Errorf("after the submodule moved (-want +got):\n%s", d)
			}
			paths, known := now.Changed(with.Revision)
			if d := cmp.Diff([]string{"vendor/lib/l.yaml"}, paths); d != "" || !known {
				t.Errorf("changed (%v, -want +got):\n%s", known, d)
			}
			sub.git("checkout", "-q", first)
			r.commit("older lib", nil)
		})
	}
	t.Run("path of this machine", func(t *testing.T) {
		r.git("config", "-f", ".gitmodules", "submodule.vendor/lib.url", lib.dir)
		r.commit("hostile", nil)
		_, err := open(t, Options{URL: serveHTTP(t, r, nil).URL, Submodules: true}).Fetch(t.Context(), "")
		if err == nil || !strings.Contains(err.Error(), "path of this machine") {
			t.Errorf("a remote repository reads this machine: %v", err)
		}
	})
}

package git

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/sources"
)

// each runs a test against every way of reading a repository.
func each(t *testing.T, test func(t *testing.T, r *repo, o Options)) {
	t.Run("http", func(t *testing.T) {
		r := newRepo(t)
		test(t, r, Options{URL: serveHTTP(t, r, nil).URL})
	})
	t.Run("http by commit", func(t *testing.T) { // as the large services have it
		r := newRepo(t)
		r.git("config", "uploadpack.allowAnySHA1InWant", "true")
		r.git("config", "uploadpack.allowFilter", "true")
		test(t, r, Options{URL: serveHTTP(t, r, nil).URL})
	})
	t.Run("file", func(t *testing.T) {
		r := newRepo(t)
		test(t, r, Options{URL: "file://" + r.dir})
	})
}

func TestFetch(t *testing.T) {
	each(t, func(t *testing.T, r *repo, o Options) {
		first := r.commit("first\n\nwith a body", map[string]string{"a.yaml": "a: 1\n", "dir/b.yaml": "b: 1\n"})
		committed, err := time.Parse(time.RFC3339, r.git("log", "-1", "--format=%cI"))
		if err != nil {
			t.Fatal(err)
		}
		s := open(t, o)
		got := fetch(t, s, "")
		got.Changed = nil
		files := got.Files
		got.Files = nil
		want := sources.Snapshot{
			Source: "config", Revision: sources.Revision(first), Ref: "refs/heads/main", Author: "Ada <ada@example.com>",
			Message: "first\n\nwith a body", Committed: committed, History: sources.First,
		}
		if d := cmp.Diff(want, got, cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })); d != "" {
			t.Errorf("snapshot (-want +got):\n%s", d)
		}
		if d := cmp.Diff(map[string]string{"a.yaml": "a: 1\n", "dir/b.yaml": "b: 1\n"}, contents(t, files)); d != "" {
			t.Errorf("files (-want +got):\n%s", d)
		}
		if err := fstest.TestFS(files, "a.yaml", "dir/b.yaml"); err != nil {
			t.Error(err)
		}
		unchanged(t, s, got.Revision)

		// Only commits count.
		r.write(map[string]string{"a.yaml": "a: dirty\n", "new.yaml": "x\n"})
		unchanged(t, s, got.Revision)

		second := r.commit("second", map[string]string{"dir/c.yaml": "c: 1\n"})
		now := fetch(t, s, got.Revision)
		if now.Revision != sources.Revision(second) || now.History != sources.FastForward {
			t.Errorf("after a push: %s %s, want %s %s", now.Revision, now.History, second, sources.FastForward)
		}
		paths, known := now.Changed(got.Revision)
		if d := cmp.Diff([]string{"a.yaml", "dir/c.yaml", "new.yaml"}, paths); d != "" || !known {
			t.Errorf("changed (%v, -want +got):\n%s", known, d)
		}
		// The earlier snapshot is what it was.
		if d := cmp.Diff(map[string]string{"a.yaml": "a: 1\n", "dir/b.yaml": "b: 1\n"}, contents(t, files)); d != "" {
			t.Errorf("files of the first snapshot (-want +got):\n%s", d)
		}
	})
}

func TestUnchangedIsOneListing(t *testing.T) {
	r := newRepo(t)
	r.commit("first", map[string]string{"a": "1"})
	server := serveHTTP(t, r, nil)
	s := open(t, Options{URL: server.URL})
	have := fetch(t, s, "").Revision
	if d := cmp.Diff([]string{"GET /config/info/refs", "POST /config/git-upload-pack"}, server.asked()); d != "" {
		t.Errorf("requests of a clone (-want +got):\n%s", d)
	}
	unchanged(t, s, have)
	if d := cmp.Diff([]string{"GET /config/info/refs"}, server.asked()); d != "" {
		t.Errorf("requests when nothing moved (-want +got):\n%s", d)
	}
	r.commit("second", map[string]string{"a": "2"})
	fetch(t, s, have)
	if d := cmp.Diff([]string{"GET /config/info/refs", "POST /config/git-upload-pack"}, server.asked()); d != "" {
		t.Errorf("requests for one commit (-want +got):\n%s", d)
	}
}

func TestReferences(t *testing.T) {
	each(t, func(t *testing.T, r *repo, base Options) {
		id := map[string]string{}
		id["1.0"] = r.commit("1.0", map[string]string{"v": "1.0"})
		r.git("tag", "v1.0.0")
		id["1.1"] = r.commit("1.1", map[string]string{"v": "1.1"})
		r.git("tag", "-a", "-m", "annotated", "v1.1.0")
		id["2.0-rc"] = r.commit("2.0-rc", map[string]string{"v": "2.0-rc"})
		r.git("tag", "v2.0.0-rc.1")
		r.git("tag", "not-a-version")
		id["feature"] = r.commit("feature", map[string]string{"v": "feature"})
		r.git("branch", "team/feature")
		r.git("update-ref", "refs/pull/7/head", "HEAD")
		id["main"] = r.commit("main", map[string]string{"v": "main"})
		r.git("branch", "both", id["1.0"])
		r.git("tag", "both", id["1.1"])
		for name, tt := range map[string]struct {
			o    Options
			want string
			ref  string
		}{
			"default":               {Options{}, "main", "refs/heads/main"},
			"HEAD":                  {Options{Revision: "HEAD"}, "main", "refs/heads/main"},
			"branch":                {Options{Branch: "team/feature"}, "feature", "refs/heads/team/feature"},
			"tag":                   {Options{Tag: "v1.0.0"}, "1.0", "refs/tags/v1.0.0"},
			"annotated tag":         {Options{Tag: "v1.1.0"}, "1.1", "refs/tags/v1.1.0"},
			"semver":                {Options{SemVer: ">=1.0.0 <2.0.0"}, "1.1", "refs/tags/v1.1.0"},
			"semver all":            {Options{SemVer: "*"}, "1.1", "refs/tags/v1.1.0"},
			"semver pre-release":    {Options{SemVer: ">=2.0.0-0"}, "2.0-rc", "refs/tags/v2.0.0-rc.1"},
			"full name":             {Options{RefName: "refs/pull/7/head"}, "feature", "refs/pull/7/head"},
			"commit at a tip":       {Options{Commit: id["main"]}, "main", ""},
			"commit inside":         {Options{Commit: id["2.0-rc"]}, "2.0-rc", ""},
			"word branch":           {Options{Revision: "team/feature"}, "feature", "refs/heads/team/feature"},
			"word tag":              {Options{Revision: "v1.1.0"}, "1.1", "refs/tags/v1.1.0"},
			"word branch first":     {Options{Revision: "both"}, "1.0", "refs/heads/both"},
			"word tags/":            {Options{Revision: "tags/both"}, "1.1", "refs/tags/both"},
			"word full":             {Options{Revision: "refs/heads/main"}, "main", "refs/heads/main"},
			"word commit":           {Options{Revision: id["1.0"]}, "1.0", ""},
			"word short at a tip":   {Options{Revision: id["main"][:9]}, "main", ""},
			"word short inside":     {Options{Revision: id["2.0-rc"][:9]}, "2.0-rc", ""},
			"word semver":           {Options{Revision: "semver:1.0.x"}, "1.0", "refs/tags/v1.0.0"},
			"commit before name":    {Options{Commit: id["1.0"], RefName: "refs/pull/7/head"}, "1.0", ""},
			"name before semver":    {Options{RefName: "refs/pull/7/head", SemVer: "*"}, "feature", "refs/pull/7/head"},
			"semver before tag":     {Options{SemVer: "*", Tag: "v1.0.0"}, "1.1", "refs/tags/v1.1.0"},
			"tag before branch":     {Options{Tag: "v1.0.0", Branch: "main"}, "1.0", "refs/tags/v1.0.0"},
			"branch before word":    {Options{Branch: "team/feature", Revision: "main"}, "feature", "refs/heads/team/feature"},
			"name of an annotation": {Options{RefName: "refs/tags/v1.1.0"}, "1.1", "refs/tags/v1.1.0"},
		} {
			t.Run(name, func(t *testing.T) {
				o := tt.o
				o.URL = base.URL
				s := open(t, o)
				got := fetch(t, s, "")
				if string(got.Revision) != id[tt.want] || got.Ref != tt.ref {
					t.Errorf("got %s at %q, want %s at %q", got.Revision, got.Ref, id[tt.want], tt.ref)
				}
				if v, err := fs.ReadFile(got.Files, "v"); string(v) != tt.want {
					t.Errorf("the file holds %q (%v), want %q", v, err, tt.want)
				}
				unchanged(t, s, got.Revision)
			})
		}
		for name, tt := range map[string]struct {
			o     Options
			class error
			words string
		}{
			"branch":       {Options{Branch: "mian"}, ErrNoReference, `no branch "mian" (it has main`},
			"tag":          {Options{Tag: "v1.0"}, ErrNoReference, `v1.0.0`},
			"semver":       {Options{SemVer: ">=3"}, ErrNoReference, "the highest version is v2.0.0-rc.1"},
			"name":         {Options{RefName: "refs/pull/8/head"}, ErrNoReference, "refs/pull/7/head"},
			"word":         {Options{Revision: "team/featur"}, ErrNoReference, "team/feature"},
			"commit":       {Options{Commit: strings.Repeat("1", 40)}, ErrNoCommit, "1111111"},
			"short commit": {Options{Revision: "1111111"}, ErrNoReference, "1111111"},
		} {
			t.Run("missing "+name, func(t *testing.T) {
				o := tt.o
				o.URL = base.URL
				refused(t, open(t, o), tt.class, tt.words)
			})
		}
	})
}

func TestHistory(t *testing.T) {
	each(t, func(t *testing.T, r *repo, o Options) {
		var ids []string
		for range 6 {
			ids = append(ids, r.commit("more", nil))
		}
		s := open(t, o)
		have := fetch(t, s, "").Revision
		move := func(name string, want sources.History) {
			t.Helper()
			got := fetch(t, s, have)
			if got.History != want {
				t.Errorf("%s: %s, want %s", name, got.History, want)
			}
			have = got.Revision
		}
		r.commit("next", nil)
		move("one commit", sources.FastForward)
		for range 5 {
			r.commit("several", map[string]string{"f": r.git("rev-parse", "HEAD")})
		}
		move("several commits", sources.FastForward)
		r.git("reset", "-q", "--hard", "HEAD~2")
		move("set back", sources.Rewound)
		r.git("commit", "-q", "--amend", "--allow-empty", "-m", "other")
		move("amended", sources.Rewritten)
		r.git("reset", "-q", "--hard", ids[2])
		r.commit("elsewhere", nil)
		r.commit("elsewhere", nil)
		move("force-pushed", sources.Rewritten)
		r.git("checkout", "-q", "--orphan", "fresh")
		r.commit("unrelated", nil)
		r.git("branch", "-M", "fresh", "main")
		move("replaced", sources.Unrelated)
		r.git("checkout", "-q", "-b", "trunk")
		r.commit("trunk", nil)
		move("default branch renamed", sources.Switched)
	})
}

func TestTags(t *testing.T) {
	each(t, func(t *testing.T, r *repo, o Options) {
		r.commit("1", nil)
		r.git("tag", "v1.0.0")
		tag, rng := o, o
		tag.Tag, rng.SemVer = "v1.0.0", "1.x"
		byTag, bySemVer := open(t, tag), open(t, rng)
		have := fetch(t, byTag, "").Revision
		fetch(t, bySemVer, "")
		r.commit("2", nil)
		unchanged(t, byTag, have)
		r.git("tag", "-f", "v1.0.0")
		if got := fetch(t, byTag, have); got.History != sources.TagMoved {
			t.Errorf("a moved tag: %s", got.History)
		}
		moved := fetch(t, bySemVer, have)
		if moved.History != sources.TagMoved {
			t.Errorf("a moved tag in a range: %s", moved.History)
		}
		r.commit("3", nil)
		r.git("tag", "v1.1.0")
		if got := fetch(t, bySemVer, moved.Revision); got.History != sources.Switched || got.Ref != "refs/tags/v1.1.0" {
			t.Errorf("a new tag in a range: %s %s", got.History, got.Ref)
		}
	})
}

func TestDeletedBranchKeepsTheLastGood(t *testing.T) {
	each(t, func(t *testing.T, r *repo, o Options) {
		r.commit("1", map[string]string{"f": "1"})
		r.git("branch", "release")
		o.Branch = "release"
		s := open(t, o)
		good := fetch(t, s, "")
		r.git("branch", "-D", "release")
		refused(t, s, ErrNoReference, `no branch "release"`)
		if d := cmp.Diff(map[string]string{"f": "1"}, contents(t, good.Files)); d != "" {
			t.Error(d)
		}
		r.git("branch", "release")
		unchanged(t, s, good.Revision)
	})
}

func TestEmptyRepository(t *testing.T) {
	each(t, func(t *testing.T, r *repo, o Options) {
		s := open(t, o)
		refused(t, s, ErrEmptyRepository, "push a first commit")
		r.commit("first", map[string]string{"f": "1"})
		fetch(t, s, "")
	})
}

func TestMissingRepository(t *testing.T) {
	each(t, func(t *testing.T, r *repo, o Options) {
		o.URL += "-missing"
		refused(t, open(t, o), ErrNotFound)
	})
	t.Run("no repository", func(t *testing.T) {
		refused(t, open(t, Options{URL: t.TempDir()}), ErrNotFound, "git init")
	})
}

func TestLocalForms(t *testing.T) {
	r := newRepo(t)
	id := r.commit("first", map[string]string{"f": "1"})
	bare := filepath.Join(t.TempDir(), "bare.git")
	r.git("clone", "-q", "--bare", r.dir, bare)
	borrowing := filepath.Join(t.TempDir(), "borrowing")
	r.git("clone", "-q", "--shared", r.dir, borrowing)
	linked := filepath.Join(t.TempDir(), "linked")
	r.git("worktree", "add", "-q", "-b", "other", linked)
	for name, url := range map[string]string{
		"work tree": r.dir, "git directory": filepath.Join(r.dir, ".git"), "bare": bare, "without .git": strings.TrimSuffix(bare, ".git"),
		"alternates": borrowing, "linked work tree": linked, "file url": "file://" + bare,
	} {
		t.Run(name, func(t *testing.T) {
			got := fetch(t, open(t, Options{URL: url}), "")
			if string(got.Revision) != id {
				t.Errorf("revision %s, want %s", got.Revision, id)
			}
			if d := cmp.Diff(map[string]string{"f": "1"}, contents(t, got.Files)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestRepackWhileReading(t *testing.T) {
	r := newRepo(t)
	files := map[string]string{}
	for _, n := range strings.Fields("a b c d e f g h") {
		files[n] = strings.Repeat(n, 40_000)
	}
	r.commit("first", files)
	r.git("gc", "-q")
	s := open(t, Options{URL: r.dir})
	got := fetch(t, s, "")
	if _, err := fs.ReadFile(got.Files, "a"); err != nil {
		t.Fatal(err)
	}
	r.commit("second", map[string]string{"a": "2"})
	r.git("repack", "-q", "-a", "-d", "-f")
	r.git("pack-refs", "--all", "--prune")
	if d := cmp.Diff(files, contents(t, got.Files)); d != "" {
		t.Errorf("the snapshot is not what it was")
	}
	if now := fetch(t, s, got.Revision); now.History != sources.FastForward {
		t.Errorf("history %s", now.History)
	}
}

func TestRestart(t *testing.T) {
	r := newRepo(t)
	r.commit("first", map[string]string{"f": "1"})
	server := serveHTTP(t, r, nil)
	dir := t.TempDir()
	s := open(t, Options{URL: server.URL, Dir: dir})
	fetch(t, s, "")
	s.Close()
	server.asked()
	s = open(t, Options{URL: server.URL, Dir: dir})
	fetch(t, s, "")
	if d := cmp.Diff([]string{"GET /config/info/refs"}, server.asked()); d != "" {
		t.Errorf("requests after a restart (-want +got):\n%s", d)
	}
	// Another process with the same directory does not disturb.
	other := open(t, Options{URL: server.URL, Dir: dir})
	fetch(t, other, "")
	if dirs, _ := filepath.Glob(filepath.Join(dir, "clone-*")); len(dirs) != 2 {
		t.Errorf("there are %d clones, want one for each", len(dirs))
	}
	other.Close()
	s.Close()
	s = open(t, Options{URL: server.URL, Dir: dir})
	fetch(t, s, "")
	if dirs, _ := filepath.Glob(filepath.Join(dir, "clone-*")); len(dirs) != 1 {
		t.Errorf("there are %d clones after one process ended, want 1", len(dirs))
	}
}

func TestDamagedClone(t *testing.T) {
	pack := func(t *testing.T, dir, pattern string) string {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(dir, "clone-*", "objects", "pack", pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no %s in the clone (%v)", pattern, err)
		}
		return files[0]
	}
	edit := func(change func([]byte) []byte, pattern string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			file := pack(t, dir, pattern)
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			os.Chmod(file, 0o600)
			if err := os.WriteFile(file, change(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	flip := func(b []byte) []byte { b[len(b)/2] ^= 0x40; return b }
	cut := func(b []byte) []byte { return b[:len(b)/2] }
	in := func(name, content string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			clones, _ := filepath.Glob(filepath.Join(dir, "clone-*"))
			if err := os.WriteFile(filepath.Join(clones[0], name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, damage := range map[string]func(*testing.T, string){
		"pack flipped": edit(flip, "*.pack"), "pack cut": edit(cut, "*.pack"), "pack empty": edit(func([]byte) []byte { return nil }, "*.pack"),
		"index flipped": edit(flip, "*.idx"), "index cut": edit(cut, "*.idx"),
		"pack gone":   func(t *testing.T, dir string) { os.Remove(pack(t, dir, "*.pack")) },
		"index gone":  func(t *testing.T, dir string) { os.Remove(pack(t, dir, "*.idx")) },
		"all gone":    func(t *testing.T, dir string) { os.RemoveAll(dir) },
		"state cut":   in(stateFile, `{"URL":`),
		"other URL":   in(stateFile, `{"URL":"https://example.com/x","Whole":["1"]}`),
		"lock files":  in("shallow.lock", ""),
		"half fetch":  in("objects/pack/tmp_pack_1", "PACK"),
		"index alone": in("objects/pack/pack-1.idx", "x"),
	} {
		for when, restart := range map[string]bool{"while running": false, "after a restart": true} {
			t.Run(name+" "+when, func(t *testing.T) {
				r := newRepo(t)
				files := map[string]string{"f": strings.Repeat("some text\n", 100), "g": strings.Repeat("0123456789abcdef", 4000)}
				r.commit("first", files)
				outside := filepath.Join(t.TempDir(), "clones")
				dir := filepath.Join(outside, "one")
				if err := os.MkdirAll(filepath.Join(outside, "two"), 0o755); err != nil {
					t.Fatal(err)
				}
				o := Options{URL: serveHTTP(t, r, nil).URL, Dir: dir}
				s := open(t, o)
				have := fetch(t, s, "")
				if restart {
					s.Close()
				}
				damage(t, dir)
				if restart {
					s = open(t, o)
				} else {
					// Whoever reads gets the right content or an error.
					for n, want := range files {
						if data, err := fs.ReadFile(have.Files, n); err == nil && string(data) != want {
							t.Fatalf("%s has wrong content", n)
						}
					}
				}
				if d := cmp.Diff(files, contents(t, fetch(t, s, "").Files)); d != "" {
					t.Errorf("files after damage (-want +got):\n%s", d)
				}
				files["h"] = "new"
				r.commit("second", files)
				if d := cmp.Diff(files, contents(t, fetch(t, s, have.Revision).Files)); d != "" {
					t.Errorf("files of the next commit (-want +got):\n%s", d)
				}
				if _, err := os.Stat(filepath.Join(outside, "two")); err != nil {
					t.Error("something outside of the directory was touched")
				}
			})
		}
	}
}

func TestManyFetchesStaySmall(t *testing.T) {
	r := newRepo(t)
	r.commit("first", map[string]string{"f": "0"})
	dir := t.TempDir()
	s := open(t, Options{URL: serveHTTP(t, r, nil).URL, Dir: dir})
	before := fetch(t, s, "")
	for i := range maxPacks + 5 {
		r.commit("more", map[string]string{"f": strings.Repeat("x", i+1)})
		before = fetch(t, s, before.Revision)
		if before.History != sources.FastForward {
			t.Fatalf("fetch %d: %s", i, before.History)
		}
	}
	if packs, _ := filepath.Glob(filepath.Join(dir, "clone-*", "objects", "pack", "*.pack")); len(packs) > 2*maxPacks {
		t.Errorf("%d packs", len(packs))
	}
}

func TestContextAndTimeout(t *testing.T) {
	r := newRepo(t)
	r.commit("first", nil)
	server := serveHTTP(t, r, nil)
	ctx, cancel := context.WithCancel(t.Context())
	server.deny = func(req *http.Request) int { cancel(); <-req.Context().Done(); return 500 }
	if _, err := open(t, Options{URL: server.URL}).Fetch(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	server.deny = func(req *http.Request) int { <-req.Context().Done(); return 500 }
	_, err := open(t, Options{URL: server.URL, Timeout: 20 * time.Millisecond}).Fetch(t.Context(), "")
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("timeout: %v", err)
	}
	// A host that takes the connection and says nothing.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	key, private := newSigner(t)
	silent := &sshServer{address: l.Addr().String()}
	_, err = open(t, Options{URL: "ssh://git@" + l.Addr().String() + "/x", Timeout: 50 * time.Millisecond,
		Auth: Auth{Identity: identity(t, private, ""), KnownHosts: silent.knownHosts(key.PublicKey())}}).Fetch(t.Context(), "")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silent ssh host: %v", err)
	}
}

func TestWatch(t *testing.T) {
	r := newRepo(t)
	r.commit("first", nil)
	s := open(t, Options{URL: r.dir})
	ctx, cancel := context.WithCancel(t.Context())
	woken, ended := make(chan struct{}, 100), make(chan error, 1)
	go func() { ended <- s.Watch(ctx, func() { woken <- struct{}{} }) }()
	<-woken // the watch is set
	have := fetch(t, s, "").Revision
	want := r.commit("second", nil)
	for {
		<-woken
		got, err := s.Fetch(t.Context(), have)
		if errors.Is(err, sources.ErrUnchanged) {
			continue
		}
		if err != nil || string(got.Revision) != want {
			t.Fatalf("after a wake: %s %v, want %s", got.Revision, err, want)
		}
		break
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch: %v", err)
	}
}

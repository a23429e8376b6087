package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/sources"
)

// TestServersThatFail: whatever a server does in place of an answer is an error that says so; what was had stays
// readable, and the first fetch after it succeeds.
func TestServersThatFail(t *testing.T) {
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Error(w, "not today", code) }
	}
	page := func(contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", contentType)
			io.WriteString(w, body)
		}
	}
	const adv, result = "application/x-git-upload-pack-advertisement", "application/x-git-upload-pack-result"
	// changedBy passes a request on, and changes the answer.
	changedBy := func(next http.Handler, change func([]byte) []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			w.Header().Del("Content-Length")
			w.WriteHeader(rec.Code)
			w.Write(change(rec.Body.Bytes()))
		}
	}
	hang := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}
	cutOff := func(at int) func(http.Handler) http.HandlerFunc {
		return func(next http.Handler) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				rec := httptest.NewRecorder()
				next.ServeHTTP(rec, r)
				w.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
				w.Header().Set("Content-Length", fmt.Sprint(rec.Body.Len()))
				w.Write(rec.Body.Bytes()[:rec.Body.Len()*at/100])
				if f, ok := w.(http.Flusher); ok {
					f.Flush()
				}
				panic(http.ErrAbortHandler)
			}
		}
	}
	flip := func(from int) func(http.Handler) http.HandlerFunc {
		return func(next http.Handler) http.HandlerFunc {
			return changedBy(next, func(b []byte) []byte {
				b[len(b)*from/100] ^= 0x10
				return b
			})
		}
	}
	always := func(h http.HandlerFunc) func(http.Handler) http.HandlerFunc {
		return func(http.Handler) http.HandlerFunc { return h }
	}
	for name, tt := range map[string]struct {
		listing bool // the fault is in the listing, else in the pack
		fault   func(next http.Handler) http.HandlerFunc
		class   error // nil for any
		words   string
	}{
		"listing 500":            {true, always(status(500)), nil, ""},
		"listing 502":            {true, always(status(502)), nil, ""},
		"listing 401":            {true, always(status(401)), ErrAuthentication, "credentials"},
		"listing 403":            {true, always(status(403)), ErrAuthentication, "read access"},
		"listing 404":            {true, always(status(404)), ErrNotFound, "check the URL"},
		"listing hangs":          {true, always(hang), context.DeadlineExceeded, "no answer in time"},
		"listing cut":            {true, cutOff(50), nil, ""},
		"a page for the listing": {true, always(page("text/html", "<html>log in</html>")), nil, ""},
		"nothing for a listing":  {true, always(page(adv, "")), nil, ""},
		"garbage for a listing":  {true, always(page(adv, "zzzz not a packet line")), nil, ""},
		"huge lengths":           {true, always(page(adv, "001e# service=git-upload-pack\n0000fff0abc")), nil, ""},
		"listing of nothing":     {true, always(page(adv, "001e# service=git-upload-pack\n00000000")), nil, ""},
		"pack 500":               {false, always(status(500)), nil, ""},
		"pack hangs":             {false, always(hang), context.DeadlineExceeded, "no answer in time"},
		"pack cut at once":       {false, cutOff(1), nil, ""},
		"pack cut in half":       {false, cutOff(50), nil, ""},
		"pack cut at the end":    {false, cutOff(99), nil, ""},
		"no pack":                {false, always(page(result, "0008NAK\n")), nil, ""},
		"an empty answer":        {false, always(page(result, "")), nil, ""},
		"garbage for a pack":     {false, always(page(result, "0008NAK\n0009\x01PACK")), nil, ""},
		"flipped in the middle":  {false, flip(50), nil, ""},
		"flipped near the end":   {false, flip(95), nil, ""},
		"an error in words":      {false, always(page(result, "0018ERR upload-pack: no\n\n")), nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRepo(t)
			var faulty atomic.Bool
			server := serveHTTP(t, r, func(s *httptest.Server) {
				next := s.Config.Handler
				fault := tt.fault(next)
				s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					if faulty.Load() && (req.Method == http.MethodGet) == tt.listing {
						fault.ServeHTTP(w, req)
						return
					}
					next.ServeHTTP(w, req)
				})
				s.Start()
			})
			ada := newKey(t, "ada", 1)
			s := open(t, Options{URL: server.URL, Timeout: 2 * time.Second, Verify: listOf(ada).verify(VerifyHEAD)})
			big := strings.Repeat("some text that is compressed\n", 50)
			ada.signed(r, "first", map[string]string{"f": "1", "big": big})
			good := fetch(t, s, "")
			second := ada.signed(r, "second", map[string]string{"f": "2", "other": strings.ToUpper(big) + fmt.Sprint(rand.Uint64())})
			faulty.Store(true)
			for range 2 {
				got, err := s.Fetch(t.Context(), good.Revision)
				if err == nil || errors.Is(err, sources.ErrUnchanged) || tt.class != nil && !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.words) {
					t.Fatalf("Fetch: %s, %v; want the class %v and %q", got.Revision, err, tt.class, tt.words)
				}
				if d := cmp.Diff(map[string]string{"f": "1", "big": big}, contents(t, good.Files)); d != "" {
					t.Fatalf("what was had (-want +got):\n%s", d)
				}
			}
			faulty.Store(false)
			if now := fetch(t, s, good.Revision); string(now.Revision) != second || len(now.Signatures) != 1 {
				t.Errorf("after the fault: %s %v, want %s", now.Revision, now.Signatures, second)
			}
		})
	}
}

// TestCredentialsThatExpire (T-R8): an expired token is named as that, and the first fetch with a good one succeeds.
func TestCredentialsThatExpire(t *testing.T) {
	r := newRepo(t)
	r.commit("first", map[string]string{"f": "1"})
	server := serveHTTP(t, r, nil)
	const old, renewed = "t0ken-of-yesterday", "t0ken-of-today"
	var valid atomic.Value
	valid.Store(old)
	server.deny = func(req *http.Request) int {
		if _, password, _ := req.BasicAuth(); password != valid.Load() {
			return http.StatusUnauthorized
		}
		return 0
	}
	dir := t.TempDir()
	with := func(token string) *Source {
		return open(t, Options{URL: server.URL, Dir: dir, Auth: Auth{Username: "git", Password: token}})
	}
	s := with(old)
	good := fetch(t, s, "")
	valid.Store(renewed)
	_, err := s.Fetch(t.Context(), good.Revision)
	if !errors.Is(err, ErrAuthentication) || !strings.Contains(err.Error(), "expired") || strings.Contains(err.Error(), old) {
		t.Errorf("an expired token: %v", err)
	}
	if d := cmp.Diff(map[string]string{"f": "1"}, contents(t, good.Files)); d != "" {
		t.Error(d)
	}
	// The server takes it again, as after a mistake there.
	valid.Store(old)
	unchanged(t, s, good.Revision)
	// Or the token is another one.
	valid.Store(renewed)
	s.Close()
	s = with(renewed)
	second := r.commit("second", map[string]string{"f": "2"})
	if got := fetch(t, s, good.Revision); string(got.Revision) != second {
		t.Errorf("with the renewed token: %s", got.Revision)
	}
}

// TestCredentialsStayWithTheirHost (T-S2; go-git CVE-2026-41506): a redirect to another host gets none.
func TestCredentialsStayWithTheirHost(t *testing.T) {
	r := newRepo(t)
	r.commit("first", map[string]string{"f": "1"})
	inner := serveHTTP(t, r, nil)
	var leaked atomic.Value
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if a := req.Header.Get("Authorization"); a != "" {
			leaked.Store(a)
		}
		http.Redirect(w, req, inner.URL[:strings.LastIndexByte(inner.URL, '/')]+req.URL.RequestURI(), http.StatusFound)
	}))
	defer thief.Close()
	elsewhere := strings.Replace(thief.URL, "127.0.0.1", "localhost", 1)
	for _, code := range []int{301, 302, 307, 308} {
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, elsewhere+req.URL.RequestURI(), code)
		}))
		for name, a := range map[string]Auth{"basic": {Username: "git", Password: "s3cret-s3cret"}, "bearer": {BearerToken: "s3cret-s3cret"}} {
			s := open(t, Options{URL: front.URL + "/config", Auth: a, Timeout: 5 * time.Second})
			if _, err := s.Fetch(t.Context(), ""); err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%d %s: the error shows it: %v", code, name, err)
			}
			if got := leaked.Load(); got != nil {
				t.Errorf("%d %s: another host got %q", code, name, got)
			}
		}
		front.Close()
	}
}

// TestStaleLocksHinderNothing (T-R6; Argo CD issues 7898 and 17623): locks that a dead git left do not matter, since
// nothing is written where git writes.
func TestStaleLocksHinderNothing(t *testing.T) {
	locks := []string{"index.lock", "shallow.lock", "HEAD.lock", "config.lock", "packed-refs.lock", "refs/heads/main.lock", "objects/pack/tmp_pack_x", "objects/info/commit-graph.lock", "gc.pid"}
	each(t, func(t *testing.T, r *repo, o Options) {
		r.commit("first", map[string]string{"f": "1"})
		o.Dir = t.TempDir()
		s := open(t, o)
		have := fetch(t, s, "").Revision
		second := r.commit("second", map[string]string{"f": "2"})
		dirs, _ := filepath.Glob(filepath.Join(o.Dir, "clone-*"))
		for _, dir := range append(dirs, filepath.Join(r.dir, ".git")) {
			for _, name := range locks {
				file := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := fetch(t, s, have); string(got.Revision) != second {
			t.Errorf("while running: %s", got.Revision)
		}
		s.Close()
		if got := fetch(t, open(t, o), ""); string(got.Revision) != second {
			t.Errorf("after a restart: %s", got.Revision)
		}
	})
}

// TestDamagedRepositoryOfThisMachine (T-R6): a repository that is read in place is its owner's to mend. Whatever is
// damaged in it, what is read from it is right or an error, and after the repair it is read again.
func TestDamagedRepositoryOfThisMachine(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 3))
	for i := range points(40, 500) {
		packed := i%2 == 0
		r := newRepo(t)
		ada := newKey(t, "ada", 1)
		files := map[string]string{"f": strings.Repeat("text ", 200), "dir/g": strings.Repeat("more ", 300)}
		id := ada.signed(r, "first", files)
		r.git("tag", "v1.0.0")
		if packed {
			r.git("gc", "-q")
		}
		gitDir := filepath.Join(r.dir, ".git")
		saved := filepath.Join(t.TempDir(), "saved")
		if err := os.CopyFS(saved, os.DirFS(gitDir)); err != nil {
			t.Fatal(err)
		}
		o := Options{URL: r.dir, Verify: listOf(ada).verify(VerifyHEAD)}
		s := open(t, o)
		if i%4 < 2 {
			fetch(t, s, "")
		}
		what := damageOne(t, gitDir, random)
		got, err := s.Fetch(t.Context(), "")
		if err == nil {
			err = fs.WalkDir(got.Files, ".", func(p string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				data, err := fs.ReadFile(got.Files, p)
				if err == nil && string(data) != files[p] {
					t.Fatalf("%s: %s has wrong content", what, p)
				}
				return err
			})
			if err == nil && string(got.Revision) != id {
				t.Fatalf("%s: revision %s", what, got.Revision)
			}
		}
		if err != nil && strings.Contains(err.Error(), "panic") {
			t.Errorf("%s: %v", what, err)
		}
		if err := os.RemoveAll(gitDir); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(gitDir, os.DirFS(saved)); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(files, contents(t, fetch(t, s, "").Files)); d != "" {
			t.Errorf("%s, after the repair (-want +got):\n%s", what, d)
		}
		s.Close()
	}
}

// TestHostileObjects (T-P4, T-D2): trees whose names lead elsewhere, and objects that are malformed, show nothing
// outside of the tree, end in errors, and never in a panic.
func TestHostileObjects(t *testing.T) {
	r := newRepo(t)
	r.commit("first", map[string]string{"f": "1"})
	blob := r.hash("blob", "evil")
	raw := func(id string) string {
		h := hashOf(id)
		return string(h[:])
	}
	entryOf := func(mode, name, id string) string { return mode + " " + name + "\x00" + raw(id) }
	commit := func(tree string) {
		r.replace("tree " + tree + "\nauthor A <a@example.com> 1700000000 +0000\ncommitter A <a@example.com> 1700000000 +0000\n\nm\n")
	}
	hidden := []string{".git", ".GIT", ".Git", "..", ".", "a/b", "a\\b", "../x", "/etc/passwd", ""}
	var tree strings.Builder
	for _, name := range hidden {
		tree.WriteString(entryOf("100644", name, blob))
	}
	inner := r.hash("tree", entryOf("100644", "hooks", blob))
	tree.WriteString(entryOf("40000", ".git", inner) + entryOf("100644", "good", blob) + entryOf("100644", "good", blob))
	commit(r.hash("tree", tree.String()))
	got := fetch(t, open(t, Options{URL: r.dir}), "")
	if d := cmp.Diff(map[string]string{"good": "evil"}, dedupe(t, got.Files)); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
	for _, name := range append(hidden, ".git/hooks") {
		if data, err := fs.ReadFile(got.Files, name); err == nil {
			t.Errorf("%q can be read: %q", name, data)
		}
	}
	self := strings.Repeat("1", 40)
	for what, id := range map[string]string{
		"a tree that is cut":      r.hash("tree", "100644 a\x00abc"),
		"a tree of text":          r.hash("tree", "no tree at all"),
		"a file in place of it":   blob,
		"a tree that is not here": self,
		"a mode of nonsense":      r.hash("tree", entryOf("999999", "a", blob)),
		"a huge mode":             r.hash("tree", entryOf(strings.Repeat("7", 40), "a", blob)),
	} {
		commit(id)
		s := open(t, Options{URL: r.dir})
		if snapshot, err := s.Fetch(t.Context(), ""); err == nil {
			if got := dedupe(t, snapshot.Files); len(got) > 0 {
				t.Errorf("%s shows %v", what, got)
			}
		}
	}
	empty := "tree " + r.hash("tree", "") + "\n"
	for what, tt := range map[string]struct {
		raw  string
		good bool
	}{
		"no tree": {"author A <a@example.com> 1 +0000\n\nm\n", false}, "nothing": {"", false}, "only a tree": {empty, true},
		"a number that is none": {empty + "author A <a> 99999999999999999999 +9999\ncommitter <<>> x\n\n\xff\xfe", true},
		"a parent that is none": {empty + "parent " + self + "\nparent x\n\nm\n", true},
	} {
		r.replace(tt.raw)
		if _, err := open(t, Options{URL: r.dir}).Fetch(t.Context(), ""); (err == nil) != tt.good {
			t.Errorf("a commit with %s: %v", what, err)
		}
	}
	// Tags that point to each other for ever.
	last := r.git("rev-parse", "HEAD")
	kind := "commit"
	for range 20 {
		last, kind = r.hash("tag", "object "+last+"\ntype "+kind+"\ntag x\ntagger A <a@example.com> 1 +0000\n\nm\n"), "tag"
	}
	r.git("update-ref", "refs/tags/deep", last)
	if _, err := open(t, Options{URL: r.dir, Tag: "deep"}).Fetch(t.Context(), ""); err == nil {
		t.Error("a tag of twenty tags is followed")
	}
}

// dedupe are all files of a tree, of which some may come twice.
func dedupe(t *testing.T, files fs.FS) map[string]string {
	t.Helper()
	all := map[string]string{}
	_ = fs.WalkDir(files, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if data, err := fs.ReadFile(files, p); err == nil {
			all[p] = string(data)
		}
		return nil
	})
	return all
}

// TestReferencesThatAreNone (T-P4, T-S4; go-git CVE-2026-71557 and CVE-2025-21613): names of references that lead
// elsewhere or look like options are refused before anything is asked, and those that a server lists are only names.
func TestReferencesThatAreNone(t *testing.T) {
	for _, name := range []string{
		"--upload-pack=touch /tmp/x", "-x", "../../x", "refs/heads/../../../x", "a..b", "a\nb", "a b", "a\x00b", "/etc/passwd", "a.lock", "x/.git/y", "@{u}", "a:b",
	} {
		for _, o := range []Options{{Branch: name}, {Tag: name}, {RefName: name}, {Revision: name}} {
			o.URL, o.Dir = "https://example.com/x", t.TempDir()
			if _, err := New(o); err == nil {
				t.Errorf("%+v is taken", o)
			}
		}
	}
	r := newRepo(t)
	id := r.commit("first", map[string]string{"f": "1"})
	outside := filepath.Join(t.TempDir(), "outside")
	var evil bytes.Buffer
	line := func(s string) { fmt.Fprintf(&evil, "%04x%s", len(s)+4, s) }
	line("# service=git-upload-pack\n")
	evil.WriteString("0000")
	line(id + " HEAD\x00symref=HEAD:refs/heads/../../../" + filepath.Base(outside) + "\n")
	line(id + " refs/heads/../../../x\n")
	line(id + " --upload-pack=x\n")
	evil.WriteString("0000")
	server := serveHTTP(t, r, func(s *httptest.Server) {
		next := s.Config.Handler
		s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodGet {
				w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
				w.Write(evil.Bytes())
				return
			}
			next.ServeHTTP(w, req)
		})
		s.Start()
	})
	dir := filepath.Join(t.TempDir(), "a", "b", "clone")
	s := open(t, Options{URL: server.URL, Dir: dir})
	_, _ = s.Fetch(t.Context(), "")
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside the clone there is %v (%v)", entries, err)
	}
	if _, err := os.Stat(outside); err == nil {
		t.Error("a reference became a file")
	}
}

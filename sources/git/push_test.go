package git

import (
	"encoding/pem"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
)

// pushable calls a test with every way to push to a repository, whose branch main nobody has checked out.
func pushable(t *testing.T, test func(t *testing.T, r *repo, o Options)) {
	ready := func(t *testing.T) *repo {
		r := newRepo(t)
		r.git("config", "receive.denyCurrentBranch", "ignore")
		r.git("config", "http.receivepack", "true")
		return r
	}
	t.Run("http", func(t *testing.T) {
		r := ready(t)
		test(t, r, Options{URL: serveHTTP(t, r, nil).URL})
	})
	t.Run("ssh", func(t *testing.T) {
		r := ready(t)
		signer, key := newSigner(t)
		s := serveSSH(t, signer.PublicKey())
		block, err := ssh.MarshalPrivateKey(key, "")
		if err != nil {
			t.Fatal(err)
		}
		test(t, r, Options{URL: "ssh://git@" + s.address + r.dir, Auth: Auth{Identity: pem.EncodeToMemory(block), KnownHosts: s.knownHosts(s.hostKey)}})
	})
	t.Run("file", func(t *testing.T) {
		r := ready(t)
		test(t, r, Options{URL: "file://" + r.dir})
	})
}

func TestPush(t *testing.T) {
	pushable(t, func(t *testing.T, r *repo, o Options) {
		r.commit("older", map[string]string{"a.yaml": "a: 0\n"}) // so that the clone is shallow
		first := r.commit("first", map[string]string{"a.yaml": "a: 1\n", "dir/sub/b.yaml": "b: 1\n", "dir/c": "c", "dir-x": "sorts between"})
		s := open(t, o)
		at := fetch(t, s, "").Revision
		change := Commit{
			Branch: "main", Parent: at, Files: map[string][]byte{"a.yaml": []byte("a: 2\n"), "dir/sub/b.yaml": []byte("b: ü\n")},
			Name: "Flux Böt", Email: "flux@example.com", When: time.Date(2026, 11, 27, 6, 0, 0, 0, time.FixedZone("", 3600)), Message: "Update\n\nbody\n\n",
		}
		id, err := s.Push(t.Context(), change, true)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.git("rev-parse", "main"); got != string(id) {
			t.Errorf("main is at %s, and %s was pushed", got, id)
		}
		r.git("fsck", "--strict", "--full")
		got := r.git("log", "-1", "--format=%P|%an <%ae> %ad|%cn <%ce>|%B", "--date=raw", "main")
		if want := first + "|Flux Böt <flux@example.com> 1795755600 +0100|Flux Böt <flux@example.com>|Update\n\nbody"; strings.TrimSpace(got) != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		if got, want := r.git("diff", "--stat=80", first, "main"), "a.yaml"; !strings.Contains(got, want) || !strings.Contains(got, "dir/sub/b.yaml") || !strings.Contains(got, "2 files changed") {
			t.Errorf("changed: %s", got)
		}
		next := fetch(t, s, at)
		if d := cmp.Diff(map[string]string{"a.yaml": "a: 2\n", "dir/sub/b.yaml": "b: ü\n", "dir/c": "c", "dir-x": "sorts between"}, contents(t, next.Files)); d != "" || next.Revision != id {
			t.Errorf("(-want +got)\n%s", d)
		}

		// The branch has moved: nothing is pushed.
		moved := r.commit("somebody else", map[string]string{"z.yaml": "z: 1\n"})
		change.Parent = id
		if _, err := s.Push(t.Context(), change, true); !errors.Is(err, ErrMoved) {
			t.Errorf("pushed over what somebody else pushed: %v", err)
		}
		if got := r.git("rev-parse", "main"); got != moved {
			t.Error("main has moved")
		}

		// Another branch is made, is left when it is right already, and is replaced otherwise.
		change.Branch, change.Parent = "updates/images", fetch(t, s, id).Revision
		change.Files = map[string][]byte{"a.yaml": []byte("a: 3\n")}
		one, err := s.Push(t.Context(), change, false)
		if err != nil {
			t.Fatal(err)
		}
		change.When = change.When.Add(time.Hour)
		if again, err := s.Push(t.Context(), change, false); err != nil || again != one {
			t.Errorf("the same was pushed again: %s, %v", again, err)
		}
		change.Files["a.yaml"] = []byte("a: 4\n")
		two, err := s.Push(t.Context(), change, false)
		if err != nil || two == one || r.git("rev-parse", "updates/images") != string(two) || r.git("rev-parse", string(two)+"^") != moved {
			t.Errorf("the branch was not replaced: %s, %v", two, err)
		}

		// What cannot be is refused before anything is pushed.
		for name, bad := range map[string]func(*Commit){
			"no such file":   func(c *Commit) { c.Files = map[string][]byte{"dir/none": nil} },
			"a directory":    func(c *Commit) { c.Files = map[string][]byte{"dir": nil} },
			"an author":      func(c *Commit) { c.Name = "a\nparent b" },
			"not fetched":    func(c *Commit) { c.Parent = "0123456789012345678901234567890123456789" },
			"cannot sign":    func(c *Commit) { c.Sign = func([]byte) (string, error) { return "", errors.New("no key") } },
			"below a file":   func(c *Commit) { c.Files = map[string][]byte{"a.yaml/b": nil} },
			"both at once":   func(c *Commit) { c.Files = map[string][]byte{"dir": nil, "dir/c": nil} },
			"no branch name": func(c *Commit) { c.Branch = "a..b" },
		} {
			c := change
			c.Files = map[string][]byte{"a.yaml": []byte("a: 5\n")}
			bad(&c)
			if id, err := s.Push(t.Context(), c, false); err == nil {
				t.Errorf("%s: pushed %s", name, id)
			}
		}
	})
}

func TestPushSigned(t *testing.T) {
	r := newRepo(t)
	r.git("config", "receive.denyCurrentBranch", "ignore")
	r.commit("first", map[string]string{"a.yaml": "a: 1\n"})
	s := open(t, Options{URL: "file://" + r.dir})
	at := fetch(t, s, "").Revision
	var signed string
	id, err := s.Push(t.Context(), Commit{
		Branch: "main", Parent: at, Files: map[string][]byte{"a.yaml": []byte("a: 2\n")}, Name: "a", Email: "b", When: time.Unix(1, 0).UTC(), Message: "m",
		Sign: func(b []byte) (string, error) {
			signed = string(b)
			return "-----BEGIN PGP SIGNATURE-----\n\nabc\n-----END PGP SIGNATURE-----\n", nil
		},
	}, true)
	if err != nil {
		t.Fatal(err)
	}
	raw := r.git("cat-file", "commit", string(id)) + "\n"
	without := strings.Replace(raw, "gpgsig -----BEGIN PGP SIGNATURE-----\n \n abc\n -----END PGP SIGNATURE-----\n", "", 1)
	if without == raw || without != signed {
		t.Errorf("the commit is %q, and what was signed is %q", raw, signed)
	}
}

func TestPushThatIsRefused(t *testing.T) {
	r := newRepo(t)
	r.commit("first", map[string]string{"a.yaml": "a: 1\n"})
	web := serveHTTP(t, r, nil)
	s := open(t, Options{URL: web.URL, Auth: Auth{Username: "git", Password: "hush"}})
	at := fetch(t, s, "").Revision
	c := Commit{Branch: "main", Parent: at, Files: map[string][]byte{"a.yaml": []byte("a: 2\n")}, Name: "a", Email: "b", When: time.Unix(1, 0), Message: "m"}
	web.mu.Lock()
	web.deny = func(req *http.Request) int {
		if strings.Contains(req.URL.Path+req.URL.RawQuery, "receive-pack") {
			return http.StatusForbidden
		}
		return 0
	}
	web.mu.Unlock()
	if _, err := s.Push(t.Context(), c, true); !errors.Is(err, ErrAuthentication) || strings.Contains(err.Error(), "hush") {
		t.Errorf("%v", err)
	}
	web.mu.Lock()
	web.deny = nil
	web.mu.Unlock()
	r.git("config", "http.receivepack", "true")
	// git itself refuses a push to the branch that is checked out.
	if _, err := s.Push(t.Context(), c, true); err == nil || !strings.Contains(err.Error(), "refuses the push to main") {
		t.Errorf("%v", err)
	}
}

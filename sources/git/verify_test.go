package git

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/fairlead-dev/fairlead/sources"
)

// signer signs commits and tags without a program, with a key that the list may have.
type signer struct {
	t    testing.TB
	name string
	ssh  ssh.Signer
}

func newKey(t testing.TB, name string, seed byte) *signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return &signer{t, name, s}
}

// line is the key as allowed_signers has it.
func (s *signer) line() string {
	return s.name + " " + string(ssh.MarshalAuthorizedKey(s.ssh.PublicKey()))
}

// armor is a signature of payload.
func (s *signer) armor(payload string) string {
	s.t.Helper()
	sig, err := sshsig.Sign(strings.NewReader(payload), s.ssh, sshsig.HashSHA512, "git")
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(sshsig.Armor(sig)))
}

// commit signs the newest commit of a repository: it makes the signed one, and moves the branch to it.
func (s *signer) commit(r *repo) string {
	r.t.Helper()
	head, message, _ := strings.Cut(r.object("commit", "HEAD"), "\n\n")
	payload := head + "\n\n" + message
	return r.replace(head + "\ngpgsig " + strings.ReplaceAll(s.armor(payload), "\n", "\n ") + "\n\n" + message)
}

// tag makes a signed tag of the newest commit.
func (s *signer) tag(r *repo, name string) string {
	r.t.Helper()
	payload := fmt.Sprintf("object %s\ntype commit\ntag %s\ntagger Ada <ada@example.com> 1700000000 +0000\n\nthe tag\n", r.git("rev-parse", "HEAD"), name)
	return r.pointTag(name, payload+s.armor(payload)+"\n")
}

func (r *repo) object(kind, name string) string {
	r.t.Helper()
	cmd := exec.Command("git", "cat-file", kind, name)
	cmd.Dir = r.dir
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("git cat-file %s: %v", name, err)
	}
	return string(out)
}

// hash stores an object as it is.
func (r *repo) hash(kind, raw string) string {
	r.t.Helper()
	cmd := exec.Command("git", "hash-object", "-t", kind, "-w", "--literally", "--stdin")
	cmd.Dir, cmd.Stdin = r.dir, strings.NewReader(raw)
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("git hash-object: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// replace puts a commit in the place of the newest one.
func (r *repo) replace(raw string) string {
	r.t.Helper()
	id := r.hash("commit", raw)
	// git itself does not take every object for a commit.
	file := filepath.Join(r.dir, ".git", r.git("symbolic-ref", "HEAD"))
	if err := os.WriteFile(file, []byte(id+"\n"), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return id
}

func (r *repo) pointTag(name, raw string) string {
	r.t.Helper()
	id := r.hash("tag", raw)
	r.git("update-ref", "refs/tags/"+name, id)
	return id
}

// signed commits files and signs the commit.
func (s *signer) signed(r *repo, message string, files map[string]string) string {
	r.t.Helper()
	r.commit(message, files)
	return s.commit(r)
}

// keyring is a list of keys that can be changed.
type keyring struct {
	mu    sync.Mutex
	files map[string][]byte
	err   error
}

func listOf(keys ...*signer) *keyring {
	k := &keyring{}
	k.set(keys...)
	return k
}

func (k *keyring) set(keys ...*signer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var b strings.Builder
	for _, s := range keys {
		b.WriteString(s.line())
	}
	k.files, k.err = map[string][]byte{"allowed_signers": []byte(b.String())}, nil
}

func (k *keyring) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
}

func (k *keyring) read() (map[string][]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.files, k.err
}

func (k *keyring) verify(mode Mode) *Verify {
	return &Verify{Mode: mode, Keys: k.read, From: "Secret default/signers"}
}

// declined fetches, expects a refusal, and returns it with the snapshot beside it.
func declined(t testing.TB, s *Source, have sources.Revision, commit, reason string, words ...string) sources.Snapshot {
	t.Helper()
	snapshot, err := s.Fetch(t.Context(), have)
	var refusal *sources.Refusal
	if !errors.As(err, &refusal) || !errors.Is(err, ErrNotVerified) {
		t.Fatalf("Fetch: %v, want a refusal", err)
	}
	if string(refusal.Revision) != commit || refusal.Reason != reason {
		t.Errorf("refused %s for %s (%v), want %s for %s", refusal.Revision, refusal.Reason, err, commit, reason)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error %q does not say %q", err, w)
		}
	}
	return snapshot
}

// TestUnsignedAndForeignCommitsAreNotUsed: the last good revision stays, and a good one is taken at once.
func TestUnsignedAndForeignCommitsAreNotUsed(t *testing.T) {
	each(t, func(t *testing.T, r *repo, o Options) {
		ada, eve := newKey(t, "ada@example.com", 1), newKey(t, "eve@example.com", 2)
		o.Verify, o.Dir = listOf(ada).verify(VerifyHEAD), t.TempDir()
		s := open(t, o)
		unsigned := r.commit("unsigned", map[string]string{"f": "0"})
		if got := declined(t, s, "", unsigned, "Unsigned", unsigned[:12], `"unsigned" by Ada`, "not signed", "git commit -S", "Secret default/signers"); got.Revision != "" {
			t.Errorf("a snapshot of %s comes with it, and nothing was good before", got.Revision)
		}
		first := ada.signed(r, "first", map[string]string{"f": "1"})
		good := fetch(t, s, "")
		want := []sources.Signature{{Object: "commit", Format: "SSH", Key: ssh.FingerprintSHA256(ada.ssh.PublicKey()), Name: "ada@example.com"}}
		if d := cmp.Diff(want, good.Signatures); string(good.Revision) != first || d != "" {
			t.Errorf("revision %s, signatures (-want +got):\n%s", good.Revision, d)
		}
		unchanged(t, s, good.Revision)

		foreign := eve.signed(r, "foreign", map[string]string{"f": "evil"})
		declined(t, s, good.Revision, foreign, "UnknownKey", ssh.FingerprintSHA256(eve.ssh.PublicKey()), "not among those that may sign")
		r.git("reset", "-q", "--hard", first)
		unchanged(t, s, good.Revision)

		// What was refused is an ancestor of what is good: whoever signs a commit vouches for its tree.
		r.commit("in between", map[string]string{"f": "2"})
		second := ada.signed(r, "second", map[string]string{"g": "2"})
		if now := fetch(t, s, good.Revision); string(now.Revision) != second || now.History != sources.FastForward {
			t.Errorf("%s %s, want %s", now.Revision, now.History, second)
		}
		if d := cmp.Diff(map[string]string{"f": "1"}, contents(t, good.Files)); d != "" {
			t.Error(d)
		}
	})
}

// TestTheLastGoodRevisionOutlivesTheProcess: after a restart with a refused commit at the tip, what was good before is
// given again, and only if it still is.
func TestTheLastGoodRevisionOutlivesTheProcess(t *testing.T) {
	each(t, func(t *testing.T, r *repo, o Options) {
		ada, eve := newKey(t, "ada", 1), newKey(t, "eve", 2)
		list := listOf(ada)
		o.Verify, o.Dir = list.verify(VerifyHEAD), t.TempDir()
		s := open(t, o)
		first := ada.signed(r, "first", map[string]string{"f": "1"})
		fetch(t, s, "")
		s.Close()
		bad := eve.signed(r, "bad", map[string]string{"f": "evil"})
		s = open(t, o)
		got := declined(t, s, "", bad, "UnknownKey")
		if string(got.Revision) != first || len(got.Signatures) != 1 {
			t.Fatalf("beside the refusal comes %q, want %s", got.Revision, first)
		}
		if d := cmp.Diff(map[string]string{"f": "1"}, contents(t, got.Files)); d != "" {
			t.Error(d)
		}
		declined(t, s, got.Revision, bad, "UnknownKey")
		s.Close()

		// The note is trusted in nothing: one that names the bad commit is worth nothing.
		note := filepath.Join(o.Dir, goodFile)
		data, err := os.ReadFile(note)
		if err != nil {
			t.Fatal(err)
		}
		for what, forged := range map[string][]byte{
			"the bad commit": bytes.ReplaceAll(data, []byte(first), []byte(bad)), "half": data[:len(data)/2], "nothing": nil,
			"another URL": bytes.Replace(data, []byte(`"URL":"`), []byte(`"URL":"x`), 1),
		} {
			if err := os.WriteFile(note, forged, 0o600); err != nil {
				t.Fatal(err)
			}
			s = open(t, o)
			if got := declined(t, s, "", bad, "UnknownKey"); got.Revision != "" {
				t.Errorf("a note of %s gives %s", what, got.Revision)
			}
			s.Close()
		}
		// And when its key is taken off the list, what was good is not any more.
		if err := os.WriteFile(note, data, 0o600); err != nil {
			t.Fatal(err)
		}
		list.set(newKey(t, "somebody", 3))
		s = open(t, o)
		if got := declined(t, s, "", bad, "UnknownKey"); got.Revision != "" {
			t.Errorf("a key that is off the list vouches for %s", got.Revision)
		}
		list.set(eve)
		if got := fetch(t, s, ""); string(got.Revision) != bad {
			t.Errorf("revision %s, want %s", got.Revision, bad)
		}
	})
}

func TestAChangedListJudgesAgain(t *testing.T) {
	each(t, func(t *testing.T, r *repo, o Options) {
		ada, eve := newKey(t, "ada", 1), newKey(t, "eve", 2)
		list := listOf(ada)
		o.Verify = list.verify(VerifyHEAD)
		s := open(t, o)
		first := ada.signed(r, "first", map[string]string{"f": "1"})
		have := fetch(t, s, "").Revision
		list.set(eve)
		declined(t, s, have, first, "UnknownKey")
		list.set(eve, ada)
		unchanged(t, s, have)
		list.fail(errors.New("there is no Secret default/signers"))
		declined(t, s, have, first, "KeysUnreadable", "there is no Secret default/signers")
		list.set()
		declined(t, s, have, first, "KeysUnreadable", "there is no public key")
		list.set(ada)
		unchanged(t, s, have)
	})
}

func TestModes(t *testing.T) {
	each(t, func(t *testing.T, r *repo, o Options) {
		ada, eve := newKey(t, "ada", 1), newKey(t, "eve", 2)
		list := listOf(ada)
		source := func(mode Mode, tag string) *Source {
			o := o
			o.Verify, o.Tag, o.Dir = list.verify(mode), tag, ""
			return open(t, o)
		}
		id := map[string]string{}
		id["both"] = ada.signed(r, "both", map[string]string{"f": "both"})
		ada.tag(r, "both")
		id["only-tag"] = r.commit("only the tag", map[string]string{"f": "tag"})
		ada.tag(r, "only-tag")
		id["only-commit"] = ada.signed(r, "only the commit", map[string]string{"f": "commit"})
		r.git("tag", "-a", "-m", "unsigned", "only-commit")
		id["light"] = ada.signed(r, "a lightweight tag", map[string]string{"f": "light"})
		r.git("tag", "light")
		id["foreign"] = ada.signed(r, "signed, with a foreign tag", map[string]string{"f": "foreign"})
		eve.tag(r, "foreign")
		id["nested"] = ada.signed(r, "a tag of a tag", map[string]string{"f": "nested"})
		inner := ada.tag(r, "inner")
		r.pointTag("nested", strings.Replace(strings.Replace(r.object("tag", inner), "type commit", "type tag", 1), "object "+id["nested"], "object "+inner, 1))
		for _, tt := range []struct {
			mode Mode
			tag  string
			want string // empty for good
		}{
			{VerifyHEAD, "both", ""}, {VerifyTag, "both", ""}, {VerifyTagAndHEAD, "both", ""},
			{VerifyHEAD, "only-tag", "Unsigned"}, {VerifyTag, "only-tag", ""}, {VerifyTagAndHEAD, "only-tag", "Unsigned"},
			{VerifyHEAD, "only-commit", ""}, {VerifyTag, "only-commit", "Unsigned"}, {VerifyTagAndHEAD, "only-commit", "Unsigned"},
			{VerifyHEAD, "light", ""}, {VerifyTag, "light", "Unsigned"}, {VerifyTagAndHEAD, "light", "Unsigned"},
			{VerifyHEAD, "foreign", ""}, {VerifyTag, "foreign", "UnknownKey"}, {VerifyTagAndHEAD, "foreign", "UnknownKey"},
			{VerifyHEAD, "nested", ""}, {VerifyTag, "nested", "Ambiguous"},
			{VerifyTag, "", "Unsupported"}, // a branch
		} {
			commit := id[tt.tag]
			if tt.tag == "" {
				commit = id["nested"]
			}
			s := source(tt.mode, tt.tag)
			if tt.want != "" {
				declined(t, s, "", commit, tt.want)
				continue
			}
			got := fetch(t, s, "")
			objects := ""
			for _, by := range got.Signatures {
				objects += by.Object + " "
			}
			want := map[Mode]string{VerifyHEAD: "commit ", VerifyTag: "tag " + tt.tag + " ", VerifyTagAndHEAD: "tag " + tt.tag + " commit "}[tt.mode]
			if string(got.Revision) != commit || objects != want {
				t.Errorf("%s of %q: %s with signatures of %s, want %s with %s", tt.mode, tt.tag, got.Revision, objects, commit, want)
			}
		}

		if _, err := New(Options{URL: o.URL, Dir: t.TempDir(), Verify: list.verify("Head")}); err == nil {
			t.Error("a mode that nobody knows is taken")
		}
		// A tag that is moved to where another signed tag points is not that tag.
		s := source(VerifyTag, "both")
		have := fetch(t, s, "").Revision
		r.git("update-ref", "refs/tags/both", r.git("rev-parse", "refs/tags/only-tag"))
		declined(t, s, have, id["only-tag"], "Invalid", `called "only-tag"`)
		// One for the same commit that is not signed is noticed too.
		r.git("tag", "-f", "-a", "-m", "unsigned", "both", id["both"])
		declined(t, s, have, id["both"], "Unsigned")
		r.git("update-ref", "-d", "refs/tags/both")
		refused(t, s, ErrNoReference)
		r.git("checkout", "-q", "--detach", id["both"])
		ada.tag(r, "both")
		unchanged(t, s, have)
	})
}

// TestHistoryIsNoWayAroundSignatures (T-R5): whatever becomes of a branch, what is at its tip is judged.
func TestHistoryIsNoWayAroundSignatures(t *testing.T) {
	each(t, func(t *testing.T, r *repo, o Options) {
		ada := newKey(t, "ada", 1)
		o.Verify, o.Branch = listOf(ada).verify(VerifyHEAD), "main"
		s := open(t, o)
		first := ada.signed(r, "first", map[string]string{"f": "1"})
		ada.signed(r, "second", map[string]string{"f": "2"})
		have := fetch(t, s, "").Revision
		accept := func(what string, want sources.History) {
			t.Helper()
			got := fetch(t, s, have)
			if got.History != want {
				t.Errorf("%s: %s, want %s", what, got.History, want)
			}
			have = got.Revision
		}
		r.git("reset", "-q", "--hard", first)
		accept("set back to a signed commit", sources.Rewound)
		forced := r.commit("force-pushed", map[string]string{"f": "evil"})
		declined(t, s, have, forced, "Unsigned")
		ada.commit(r)
		accept("signed after the push", sources.FastForward)
		r.git("checkout", "-q", "--orphan", "fresh")
		unrelated := r.commit("unrelated", map[string]string{"f": "evil"})
		r.git("branch", "-M", "fresh", "main")
		declined(t, s, have, unrelated, "Unsigned")
		ada.commit(r)
		accept("an unrelated history that is signed", sources.Unrelated)
		tip := r.git("rev-parse", "main")
		r.git("checkout", "-q", "--detach")
		r.git("branch", "-D", "main")
		if _, err := s.Fetch(t.Context(), have); !errors.Is(err, ErrNoReference) {
			t.Errorf("a branch that is deleted: %v", err)
		}
		r.git("branch", "main", tip)
		unchanged(t, s, have)
	})
}

// TestACommitIsReadAsGitReadsIt (T-P4; go-git CVE-2026-45022): of two trees the first counts, as for everybody who
// looks at the commit with git.
func TestACommitIsReadAsGitReadsIt(t *testing.T) {
	r := newRepo(t)
	r.commit("evil", map[string]string{"f": "evil"})
	evil := r.git("rev-parse", "HEAD^{tree}")
	r.commit("good", map[string]string{"f": "good"})
	raw := r.object("commit", "HEAD")
	first, rest, _ := strings.Cut(raw, "\n")
	for what, twice := range map[string]string{
		"behind the first": first + "\ntree " + evil + "\n" + rest,
		"at the end":       strings.Replace(raw, "\n\n", "\ntree "+evil+"\n\n", 1),
		"in a signature":   strings.Replace(raw, "\n\n", "\ngpgsig x\ntree "+evil+"\n\n", 1),
	} {
		id := r.replace(twice)
		got := fetch(t, open(t, Options{URL: r.dir}), "")
		if d := cmp.Diff(map[string]string{"f": "good"}, contents(t, got.Files)); d != "" || string(got.Revision) != id {
			t.Errorf("a second tree %s: -want +got\n%s", what, d)
		}
		if shown := r.git("show", "HEAD:f"); shown != "good" {
			t.Errorf("git shows %q", shown)
		}
	}
}

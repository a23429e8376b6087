package signature

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "make the kept fixtures anew, with the real git, gpg and ssh-keygen")

// workshop is a repository with real keys, signed by the real programs.
type workshop struct {
	t     testing.TB
	repo  string
	gnupg string
}

func newWorkshop(t testing.TB) *workshop {
	t.Helper()
	for _, program := range []string{"git", "gpg", "gpgconf", "ssh-keygen"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	gnupg, err := os.MkdirTemp("", "gpg") // short, since sockets are in it
	if err != nil {
		t.Fatal(err)
	}
	w := &workshop{t: t, repo: t.TempDir(), gnupg: gnupg}
	t.Cleanup(func() {
		w.run(nil, "gpgconf", "--kill", "all")
		os.RemoveAll(gnupg)
	})
	w.git("init", "-q", "-b", "main")
	return w
}

// try runs a program in the repository.
func (w *workshop) try(stdin []byte, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = w.repo
	cmd.Env = append(os.Environ(), "GNUPGHOME="+w.gnupg, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.com", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.com",
		"GIT_AUTHOR_DATE=1700000000 +0100", "GIT_COMMITTER_DATE=1700000000 +0100", "TZ=UTC", "LC_ALL=C")
	cmd.Stdin = strings.NewReader(string(stdin))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	return string(out) + stderr.String(), err
}

func (w *workshop) run(stdin []byte, name string, args ...string) string {
	w.t.Helper()
	out, err := w.try(stdin, name, args...)
	if err != nil {
		w.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func (w *workshop) git(args ...string) string {
	w.t.Helper()
	return strings.TrimSpace(w.run(nil, "git", args...))
}

// openPGP makes a key and returns its fingerprint. past is a time for gpg to believe in, or empty.
func (w *workshop) openPGP(name, algorithm, expires, past string) string {
	w.t.Helper()
	args := []string{"--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""}
	if past != "" {
		args = append(args, "--faked-system-time", past)
	}
	w.run(nil, "gpg", append(args, "--quick-gen-key", name, algorithm, "sign", expires)...)
	for line := range strings.Lines(w.run(nil, "gpg", "--batch", "--with-colons", "--list-keys", name)) {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			return f[9]
		}
	}
	w.t.Fatalf("gpg made no key for %s", name)
	return ""
}

func (w *workshop) export(fingerprint string) string {
	w.t.Helper()
	return w.run(nil, "gpg", "--batch", "--armor", "--export", fingerprint)
}

// ssh makes a key and returns the file of its private part and the line of its public one.
func (w *workshop) ssh(comment string, args ...string) (file, public string) {
	w.t.Helper()
	file = filepath.Join(w.gnupg, "ssh-"+strings.Map(func(r rune) rune {
		if r == '@' || r == ' ' {
			return '-'
		}
		return r
	}, comment))
	w.run(nil, "ssh-keygen", append([]string{"-q", "-N", "", "-C", comment, "-f", file}, args...)...)
	data, err := os.ReadFile(file + ".pub")
	if err != nil {
		w.t.Fatal(err)
	}
	return file, strings.TrimSpace(string(data))
}

// object is the raw content of an object.
func (w *workshop) object(kind, name string) []byte {
	w.t.Helper()
	out, err := func() ([]byte, error) {
		cmd := exec.Command("git", "cat-file", kind, name)
		cmd.Dir = w.repo
		return cmd.Output()
	}()
	if err != nil {
		w.t.Fatalf("git cat-file %s %s: %v", kind, name, err)
	}
	return out
}

// signWithOpenPGP returns a commit and a tag of it. program is what git runs as gpg.
func (w *workshop) signWithOpenPGP(key, program, tag string) (commit, tagged []byte) {
	w.t.Helper()
	config := []string{"-c", "gpg.format=openpgp", "-c", "gpg.program=" + program, "-c", "user.signingkey=" + key}
	return w.sign(config, tag)
}

func (w *workshop) signWithSSH(file, tag string) (commit, tagged []byte) {
	w.t.Helper()
	return w.sign([]string{"-c", "gpg.format=ssh", "-c", "user.signingkey=" + file}, tag)
}

func (w *workshop) sign(config []string, tag string) (commit, tagged []byte) {
	w.t.Helper()
	w.git(append(config, "commit", "-q", "-S", "--allow-empty", "-m", "signed for "+tag+"\n\nwith a body")...)
	w.git(append(config, "tag", "-s", "-m", "the tag "+tag, tag)...)
	return w.object("commit", "HEAD"), w.object("tag", tag)
}

// wrapped writes a program that is gpg with more arguments.
func (w *workshop) wrapped(name string, args ...string) string {
	w.t.Helper()
	file := filepath.Join(w.gnupg, name)
	script := "#!/bin/sh\nexec gpg " + strings.Join(args, " ") + " \"$@\"\n"
	if err := os.WriteFile(file, []byte(script), 0o755); err != nil {
		w.t.Fatal(err)
	}
	return file
}

// fixtures are what the real programs make: keys, and commits and tags that are signed with them.
func (w *workshop) fixtures() *txtar.Archive {
	w.t.Helper()
	a := &txtar.Archive{Comment: []byte("Made by git, gpg and ssh-keygen: go test ./sources/git/signature -run TestFixtures -update\n")}
	add := func(name, data string) { a.Files = append(a.Files, txtar.File{Name: name, Data: []byte(data)}) }
	both := func(name string, commit, tag []byte) {
		add(name+".commit", string(commit))
		add(name+".tag", string(tag))
	}

	ada := w.openPGP("Ada Lovelace <ada@example.com>", "ed25519", "never", "20230101T000000")
	add("ada.asc", w.export(ada))
	c, t := w.signWithOpenPGP(ada+"!", "gpg", "ada")
	both("ada", c, t)
	subkey := w.openPGP("Sub Key <sub@example.com>", "ed25519", "never", "20230101T000000")
	w.run(nil, "gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", "", "--faked-system-time", "20230102T000000", "--quick-add-key", subkey, "ed25519", "sign", "never")
	add("subkey.asc", w.export(subkey))
	c, t = w.signWithOpenPGP(subkey, "gpg", "subkey")
	both("subkey", c, t)
	rsa := w.openPGP("Ron Rivest <ron@example.com>", "rsa3072", "never", "20230101T000000")
	add("rsa.asc", w.export(rsa))
	c, t = w.signWithOpenPGP(rsa, "gpg", "rsa")
	both("rsa", c, t)
	c, t = w.signWithOpenPGP(rsa, w.wrapped("sha1", "--digest-algo", "SHA1"), "sha1")
	both("sha1", c, t)
	weak := w.openPGP("Short Key <short@example.com>", "rsa1024", "never", "20230101T000000")
	add("weak.asc", w.export(weak))
	c, t = w.signWithOpenPGP(weak, "gpg", "weak")
	both("weak", c, t)
	old := w.openPGP("Old Key <old@example.com>", "ed25519", "2d", "20200101T000000")
	add("expired.asc", w.export(old))
	c, t = w.signWithOpenPGP(old, w.wrapped("past", "--faked-system-time", "20200101T120000"), "expired")
	both("expired", c, t)
	lost := w.openPGP("Lost Key <lost@example.com>", "ed25519", "never", "20230101T000000")
	c, t = w.signWithOpenPGP(lost, "gpg", "revoked")
	add("revoked-before.asc", w.export(lost))
	certificate, err := os.ReadFile(filepath.Join(w.gnupg, "openpgp-revocs.d", lost+".rev"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.run([]byte(strings.Replace(string(certificate), ":-----BEGIN", "-----BEGIN", 1)), "gpg", "--batch", "--import")
	add("revoked.asc", w.export(lost))
	both("revoked", c, t)

	for _, k := range []struct {
		name string
		args []string
	}{{"ed25519", []string{"-t", "ed25519"}}, {"ecdsa", []string{"-t", "ecdsa", "-b", "384"}}, {"ssh-rsa", []string{"-t", "rsa", "-b", "3072"}}} {
		file, public := w.ssh(k.name+"@example.com", k.args...)
		add(k.name+".pub", public+"\n")
		c, t = w.signWithSSH(file, k.name)
		both(k.name, c, t)
	}
	return a
}

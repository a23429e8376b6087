package signature

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hiddeco/sshsig"
	"github.com/rogpeppe/go-internal/txtar"
	"golang.org/x/crypto/ssh"
)

// now is when the kept fixtures are judged: after all of them were made.
var now = time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC)

const fixtureFile = "testdata/signed.txtar"

// fixtures are the kept objects and keys, by name.
func fixtures(t testing.TB) map[string][]byte {
	t.Helper()
	a, err := txtar.ParseFile(fixtureFile)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, f := range a.Files {
		files[f.Name] = f.Data
	}
	return files
}

func parse(t testing.TB, files map[string][]byte) *Keys {
	t.Helper()
	k, other, err := Parse(files)
	if err != nil || len(other) > 0 {
		t.Fatalf("Parse: %v, no keys in %v", err, other)
	}
	return k
}

// only are keys of one file.
func only(t testing.TB, files map[string][]byte, name string) *Keys {
	t.Helper()
	return parse(t, map[string][]byte{name: files[name]})
}

func reason(err error) Reason {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	return ""
}

// object returns the commit that a tag is for.
func object(tag []byte) string { return string(tag[len("object ") : len("object ")+40]) }

func TestFixtures(t *testing.T) {
	if *update {
		if err := os.WriteFile(fixtureFile, txtar.Format(newWorkshop(t).fixtures()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files := fixtures(t)
	all := map[string][]byte{}
	for name, data := range files {
		if (strings.HasSuffix(name, ".asc") || strings.HasSuffix(name, ".pub")) && name != "revoked-before.asc" {
			all[name] = data
		}
	}
	everyone := parse(t, all)
	stranger := only(t, files, "ada.asc")
	for _, tt := range []struct {
		name   string
		format Format
		who    string
		reason Reason // empty for good
	}{
		{"ada", OpenPGP, "Ada Lovelace <ada@example.com>", ""},
		{"subkey", OpenPGP, "Sub Key <sub@example.com>", ""},
		{"rsa", OpenPGP, "Ron Rivest <ron@example.com>", ""},
		{"sha1", "", "", Weak},
		{"weak", "", "", Weak},
		{"expired", "", "", Expired},
		{"revoked", "", "", Revoked},
		{"ed25519", SSH, "ed25519@example.com", ""},
		{"ecdsa", SSH, "ecdsa@example.com", ""},
		{"ssh-rsa", SSH, "ssh-rsa@example.com", ""},
	} {
		for _, kind := range []string{"commit", "tag"} {
			t.Run(tt.name+" "+kind, func(t *testing.T) {
				raw := files[tt.name+"."+kind]
				judge := func(k *Keys) (Signer, error) {
					if kind == "tag" {
						return k.Tag(raw, tt.name, object(raw), now)
					}
					return k.Commit(raw, now)
				}
				by, err := judge(everyone)
				if reason(err) != tt.reason || by.Format != tt.format || by.Name != tt.who || (by.Key == "") != (err != nil) {
					t.Errorf("by %v, %v (%s); want by %q, %q", by, err, reason(err), tt.who, tt.reason)
				}
				if tt.name != "ada" {
					if by, err := judge(stranger); reason(err) != UnknownKey {
						t.Errorf("with the key of somebody else: by %v, %v", by, err)
					}
				}
			})
		}
	}
	t.Run("revoked later", func(t *testing.T) {
		if _, err := only(t, files, "revoked-before.asc").Commit(files["revoked.commit"], now); err != nil {
			t.Errorf("before the key was revoked: %v", err)
		}
	})
	t.Run("before the signature was made", func(t *testing.T) {
		if _, err := everyone.Commit(files["ada.commit"], time.Date(2023, 6, 1, 0, 0, 0, 0, time.UTC)); reason(err) != Expired {
			t.Errorf("a signature from the future: %v", err)
		}
	})
}

// flipped changes one byte that matters to nothing but the signature.
func flipped(raw []byte, what string) []byte {
	return bytes.Replace(raw, []byte(what), []byte(strings.ToUpper(what)), 1)
}

// insertBefore puts text in front of the first line that begins with what.
func insertBefore(raw []byte, what, text string) []byte {
	at := bytes.Index(raw, []byte("\n"+what)) + 1
	return slices.Concat(raw[:at], []byte(text), raw[at:])
}

// signatureHeader is the header gpgsig of a commit, with its lines.
func signatureHeader(raw []byte) string {
	return regexp.MustCompile(`(?m)^gpgsig .*\n( .*\n)*`).FindString(string(raw))
}

// mutants are objects that the one signature in them was not made for, or that can be read in two ways. T-P4:
// gitsign CVE-2026-44309 and go-git CVE-2026-45022 verified a commit that was encoded anew, and not what Git stores.
func mutants(commit []byte) map[string][]byte {
	header := signatureHeader(commit)
	evil := "tree 1111111111111111111111111111111111111111\n"
	m := map[string][]byte{
		"another message":             flipped(commit, "signed"),
		"another author":              flipped(commit, "author Ada"),
		"another tree":                slices.Concat([]byte(evil), commit[len(evil):]),
		"a second tree":               slices.Concat(commit[:len(evil)], []byte(evil), commit[len(evil):]),
		"a second tree first":         slices.Concat([]byte(evil), commit),
		"a second tree at the end":    insertBefore(commit, "gpgsig", evil),
		"a tree behind the signature": bytes.Replace(commit, []byte(header), []byte(header+evil), 1),
		"a second author":             insertBefore(commit, "committer", "author Eve <eve@example.com> 1700000000 +0000\n"),
		"a second committer":          insertBefore(commit, "gpgsig", "committer Eve <eve@example.com> 1700000000 +0000\n"),
		"a late parent":               insertBefore(commit, "gpgsig", "parent 1111111111111111111111111111111111111111\n"),
		"two signatures":              insertBefore(commit, "gpgsig", header),
		"two signatures, one empty":   insertBefore(commit, "gpgsig", "gpgsig \n"),
		"a signature of SHA-256":      insertBefore(commit, "gpgsig", strings.Replace(header, "gpgsig", "gpgsig-sha256", 1)),
		"another header of the kind":  insertBefore(commit, "gpgsig", "gpgsigx anything\n"),
		"in capitals":                 bytes.Replace(commit, []byte("gpgsig "), []byte("GPGSIG "), 1),
		"one more header":             insertBefore(commit, "gpgsig", "change-id abcdef\n"),
		"an encoding":                 insertBefore(commit, "gpgsig", "encoding ISO-8859-1\n"),
		"carriage returns":            bytes.ReplaceAll(commit, []byte("\n"), []byte("\r\n")),
		"one carriage return":         bytes.Replace(commit, []byte("\ncommitter"), []byte("\r\ncommitter"), 1),
		"a line of a carriage return": insertBefore(commit, "gpgsig", "\r\n"+evil),
		"a carriage return in it":     bytes.Replace(commit, []byte("SIGNATURE-----\n"), []byte("SIGNATURE-----\r\n"), 1),
		"a zero byte":                 append(bytes.Clone(commit), 0),
		"a zero byte in a header":     bytes.Replace(commit, []byte("author Ada"), []byte("author A\x00a"), 1),
		"bytes at the end":            append(bytes.Clone(commit), "more\n"...),
		"an empty line at the end":    append(bytes.Clone(commit), '\n'),
		"text behind the armor":       bytes.Replace(commit, []byte(" -----END"), []byte(" -----END PGP SIGNATURE-----\n more\n -----END"), 1),
		"text before the armor":       bytes.Replace(commit, []byte("gpgsig "), []byte("gpgsig more\n "), 1),
		"no end":                      bytes.Replace(commit, []byte(" -----END"), []byte(" ----END"), 1),
		"a message is no signature":   bytes.ReplaceAll(bytes.ReplaceAll(commit, []byte("PGP SIGNATURE"), []byte("PGP MESSAGE")), []byte("SSH SIGNATURE"), []byte("PGP MESSAGE")),
		"X.509":                       bytes.ReplaceAll(bytes.ReplaceAll(commit, []byte("PGP SIGNATURE"), []byte("SIGNED MESSAGE")), []byte("SSH SIGNATURE"), []byte("SIGNED MESSAGE")),
		"no signature":                bytes.Replace(commit, []byte(header), nil, 1),
		"signature in the message":    append(bytes.Replace(commit, []byte(header), nil, 1), header...),
		"no message":                  bytes.TrimSuffix(commit[:bytes.Index(commit, []byte("\n\n"))+1], []byte("\n\n")),
		"nothing":                     {},
		"a continuation first":        append([]byte(" x\n"), commit...),
		"a tree over two lines":       bytes.Replace(commit, []byte("\nauthor"), []byte("\n x\nauthor"), 1),
	}
	for _, at := range []int{3, 6, 9} { // somewhere in the armor
		lines := strings.Split(header, "\n")
		if at < len(lines)-3 && len(lines[at]) > 12 {
			bad := slices.Clone(lines)
			c := byte('A')
			if bad[at][8] == c {
				c = 'B'
			}
			bad[at] = bad[at][:8] + string(c) + bad[at][9:]
			m[fmt.Sprintf("armor damaged in line %d", at)] = bytes.Replace(commit, []byte(header), []byte(strings.Join(bad, "\n")), 1)
		}
	}
	return m
}

// harmless change what nobody signs and what changes nothing.
func harmless(commit []byte) map[string][]byte {
	return map[string][]byte{
		"as it is": commit,
		// GitHub ends signatures with an empty line.
		"an empty line after the armor": bytes.Replace(commit, []byte("SIGNATURE-----\n\n"), []byte("SIGNATURE-----\n \n\n"), 1),
	}
}

func TestMutants(t *testing.T) {
	files := fixtures(t)
	for name, key := range map[string]string{"ada": "ada.asc", "ed25519": "ed25519.pub", "rsa": "rsa.asc"} {
		keys := only(t, files, key)
		for what, raw := range mutants(files[name+".commit"]) {
			if by, err := keys.Commit(raw, now); err == nil {
				t.Errorf("%s, %s: accepted as by %v:\n%s", name, what, by, raw)
			} else if reason(err) == "" {
				t.Errorf("%s, %s: the error is no refusal: %v", name, what, err)
			}
		}
		for what, raw := range harmless(files[name+".commit"]) {
			if _, err := keys.Commit(raw, now); err != nil {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
	}
}

// TestTagsAreForTheirNameAndCommit: a reference can be moved to any object that was ever signed.
func TestTagsAreForTheirNameAndCommit(t *testing.T) {
	files := fixtures(t)
	for name, key := range map[string]string{"ada": "ada.asc", "ed25519": "ed25519.pub"} {
		keys, raw := only(t, files, key), files[name+".tag"]
		commit := object(raw)
		for what, tt := range map[string]struct {
			raw       []byte
			ref, id   string
			want      Reason
			wantWords string
		}{
			"good":                {raw, name, commit, "", ""},
			"another name":        {raw, "v2.0.0", commit, Invalid, "v2.0.0"},
			"another commit":      {raw, name, strings.Repeat("1", 40), Invalid, commit},
			"name changed":        {bytes.Replace(raw, []byte("\ntag "+name), []byte("\ntag v9"), 1), "v9", commit, Invalid, "not one by"},
			"commit changed":      {bytes.Replace(raw, []byte(commit), []byte(strings.Repeat("1", 40)), 1), name, strings.Repeat("1", 40), Invalid, "not one by"},
			"of a tree":           {bytes.Replace(raw, []byte("type commit"), []byte("type tree"), 1), name, commit, Ambiguous, "tree"},
			"two objects":         {append([]byte("object "+strings.Repeat("1", 40)+"\n"), raw...), name, commit, Ambiguous, "type"},
			"two signatures":      {append(bytes.Clone(raw), raw[bytes.Index(raw, []byte("-----BEGIN")):]...), name, commit, Ambiguous, "several"},
			"bytes at the end":    {append(bytes.Clone(raw), "more\n"...), name, commit, Ambiguous, "follows"},
			"a header":            {bytes.Replace(raw, []byte("\ntagger"), []byte("\ngpgsig x\ntagger"), 1), name, commit, Ambiguous, "tagger"},
			"a signature header":  {bytes.Replace(raw, []byte("\n\nthe tag"), []byte("\ngpgsig-sha256 x\n\nthe tag"), 1), name, commit, Ambiguous, "gpgsig-sha256"},
			"another message":     {flipped(raw, "the tag"), name, commit, Invalid, "not one by"},
			"carriage returns":    {bytes.ReplaceAll(raw, []byte("\n"), []byte("\r\n")), name, commit, Ambiguous, "carriage"},
			"no signature":        {raw[:bytes.Index(raw, []byte("-----BEGIN"))], name, commit, Unsigned, "git tag -s"},
			"a commit is no tag":  {files[name+".commit"], name, commit, Ambiguous, "object"},
			"a signed message":    {bytes.Replace(bytes.Replace(raw, []byte("BEGIN PGP SIGNATURE"), []byte("BEGIN PGP MESSAGE"), 1), []byte("BEGIN SSH SIGNATURE"), []byte("BEGIN PGP MESSAGE"), 1), name, commit, Ambiguous, "does not begin"},
			"capital commit name": {bytes.Replace(raw, []byte(commit), []byte(strings.ToUpper(commit)), 1), name, strings.ToUpper(commit), Ambiguous, "object"},
		} {
			if _, err := keys.Tag(tt.raw, tt.ref, tt.id, now); reason(err) != tt.want || err != nil && !strings.Contains(err.Error(), tt.wantWords) {
				t.Errorf("%s, %s: %v (%s), want %s with %q", name, what, err, reason(err), tt.want, tt.wantWords)
			}
		}
	}
}

// TestWhatIsAcceptedGitAcceptsToo gives every mutant to the real git.
func TestWhatIsAcceptedGitAcceptsToo(t *testing.T) {
	w := newWorkshop(t)
	files := fixtures(t)
	w.run(files["ada.asc"], "gpg", "--batch", "--import")
	allowed := filepath.Join(w.repo, ".git", "allowed_signers")
	if err := os.WriteFile(allowed, append([]byte("ada "), files["ed25519.pub"]...), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]string{"ada": "ada.asc", "ed25519": "ed25519.pub"} {
		keys := only(t, files, key)
		all := mutants(files[name+".commit"])
		maps.Copy(all, harmless(files[name+".commit"]))
		for what, raw := range all {
			id, err := w.try(raw, "git", "hash-object", "-t", "commit", "-w", "--literally", "--stdin")
			if err != nil {
				t.Fatalf("git hash-object: %v %s", err, id)
			}
			said, failed := w.try(nil, "git", "-c", "gpg.ssh.allowedSignersFile="+allowed, "verify-commit", strings.TrimSpace(id))
			_, err = keys.Commit(raw, time.Now())
			if err == nil && failed != nil {
				t.Errorf("%s, %s: accepted, and git does not:\n%s", name, what, said)
			}
			if what == "as it is" && (err != nil || failed != nil) {
				t.Errorf("%s as it is: %v; git: %v %s", name, err, failed, said)
			}
		}
	}
}

// TestRealPrograms signs with git, gpg and ssh-keygen as they are here, and judges.
func TestRealPrograms(t *testing.T) {
	w := newWorkshop(t)
	pgp := w.openPGP("Grace Hopper <grace@example.com>", "ed25519", "1y", "")
	commit, tag := w.signWithOpenPGP(pgp, "gpg", "v1.0.0")
	file, public := w.ssh("grace@laptop", "-t", "ed25519")
	sshCommit, sshTag := w.signWithSSH(file, "v2.0.0")
	keys := parse(t, map[string][]byte{
		"grace.asc": []byte(w.export(pgp)), "allowed_signers": []byte("grace@example.com namespaces=\"git\" " + public + "\n"),
	})
	for what, judge := range map[string]func() (Signer, error){
		"OpenPGP commit": func() (Signer, error) { return keys.Commit(commit, time.Now()) },
		"OpenPGP tag":    func() (Signer, error) { return keys.Tag(tag, "v1.0.0", object(tag), time.Now()) },
		"SSH commit":     func() (Signer, error) { return keys.Commit(sshCommit, time.Now()) },
		"SSH tag":        func() (Signer, error) { return keys.Tag(sshTag, "v2.0.0", object(sshTag), time.Now()) },
	} {
		by, err := judge()
		if err != nil || !strings.Contains(by.Name, "grace@example.com") {
			t.Errorf("%s: by %v, %v", what, by, err)
		}
		if by.Format == OpenPGP && by.Key != pgp {
			t.Errorf("%s: key %s, want %s", what, by.Key, pgp)
		}
	}
}

func ed25519Key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

// newSSH makes a key without a program.
func newSSH(t testing.TB, seed byte) (ssh.Signer, string) {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(ed25519Key(seed))
	if err != nil {
		t.Fatal(err)
	}
	return signer, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
}

// sshCommit is a commit that was made at a time and signed for a namespace.
func sshCommit(t testing.TB, by ssh.Signer, at time.Time, space string) []byte {
	t.Helper()
	head := fmt.Sprintf("tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor A <a@example.com> %d +0000\ncommitter A <a@example.com> %d +0000\n", at.Unix(), at.Unix())
	message := "\nmessage\n"
	sig, err := sshsig.Sign(strings.NewReader(head+message), by, sshsig.HashSHA512, space)
	if err != nil {
		t.Fatal(err)
	}
	armor := strings.ReplaceAll(strings.TrimSpace(string(sshsig.Armor(sig))), "\n", "\n ")
	return []byte(head + "gpgsig " + armor + "\n" + message)
}

func TestAllowedSigners(t *testing.T) {
	signer, public := newSSH(t, 1)
	_, other := newSSH(t, 2)
	made := time.Date(2024, 6, 15, 12, 0, 0, 0, time.UTC)
	commit := sshCommit(t, signer, made, "git")
	for _, tt := range []struct {
		name, list string
		want       Reason
		who        string
	}{
		{"authorized_keys", public + " ada@laptop", "", "ada@laptop"},
		{"a principal", "ada@example.com " + public, "", "ada@example.com"},
		{"several", "ada@example.com,ada@example.org " + public + " a comment", "", "ada@example.com,ada@example.org"},
		{"in quotes", `"ada@example.com" ` + public, "", "ada@example.com"},
		{"for git", `ada namespaces="git" ` + public, "", "ada"},
		{"for several", `ada namespaces="file,git" ` + public, "", "ada"},
		{"a pattern", `ada namespaces="g*" ` + public, "", "ada"},
		{"for files", `ada namespaces="file" ` + public, UnknownKey, ""},
		{"not for git", `ada namespaces="*,!git" ` + public, UnknownKey, ""},
		{"valid", `ada valid-after="20240101Z",valid-before="20250101Z" ` + public, "", "ada"},
		{"not yet", `ada valid-after="20240616Z" ` + public, Expired, ""},
		{"no more", `ada valid-before="202406151159Z" ` + public, Expired, ""},
		{"to the second", `ada valid-after="20240615120000Z",valid-before="20240615120001Z" ` + public, "", "ada"},
		{"everything", `ada namespaces="git",valid-after=20240101Z ` + public, "", "ada"},
		{"the second line", `old valid-before="20230101Z" ` + public + "\nada valid-after=20230101Z " + public, "", "ada"},
		{"somebody else", "eve " + other, UnknownKey, ""},
		{"with comments", "# who\n\n  \nada " + public + "\r\n", "", "ada"},
	} {
		keys, _, err := Parse(map[string][]byte{"list": []byte(tt.list)})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		by, err := keys.Commit(commit, now)
		if reason(err) != tt.want || by.Name != tt.who {
			t.Errorf("%s: by %v, %v; want %q, %q", tt.name, by, err, tt.who, tt.want)
		}
	}
	keys := parse(t, map[string][]byte{"list": []byte(public)})
	if _, err := keys.Commit(sshCommit(t, signer, made, "file"), now); reason(err) != Invalid || !strings.Contains(err.Error(), "file") {
		t.Errorf("signed for files: %v", err)
	}
}

func TestParse(t *testing.T) {
	files := fixtures(t)
	_, public := newSSH(t, 1)
	for _, tt := range []struct {
		name  string
		files map[string]string
		words string // of the error
		other []string
	}{
		{"nothing", nil, "no public key", nil},
		{"no keys", map[string]string{"README": "who may sign"}, "no public key", nil},
		{"beside others", map[string]string{"README": "who may sign", "a.pub": public}, "", []string{"README"}},
		{"two in one file", map[string]string{"all.asc": string(files["ada.asc"]) + string(files["rsa.asc"])}, "", nil},
		{"text around", map[string]string{"all.asc": "the key of Ada:\r\n" + strings.ReplaceAll(string(files["ada.asc"]), "\n", "\r\n")}, "", nil},
		{"a private key", map[string]string{"a": "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nx\n-----END PGP PRIVATE KEY BLOCK-----\n"}, "a: holds a private key", nil},
		{"a private SSH key", map[string]string{"a": "-----BEGIN OPENSSH PRIVATE KEY-----\n"}, "a: holds a private key", nil},
		{"a certificate", map[string]string{"a": "-----BEGIN CERTIFICATE-----\n"}, `holds a "CERTIFICATE"`, nil},
		{"half a key", map[string]string{"a.asc": string(files["ada.asc"][:200])}, "has no end", nil},
		{"damaged", map[string]string{"a.asc": strings.Replace(string(files["ada.asc"]), "\n\n", "\n\nAAAA", 1)}, "cannot be read", nil},
		{"no SSH key", map[string]string{"a": "ada ssh-ed25519"}, "a:1: is no SSH key", nil},
		{"another type", map[string]string{"a": strings.Replace(public, "ssh-ed25519", "ssh-rsa", 1)}, "a:1: the SSH key cannot be read", nil},
		{"half an SSH key", map[string]string{"a": "\n" + public[:40]}, "a:2: the SSH key cannot be read", nil},
		{"an option", map[string]string{"a": `ada verify-required ` + public}, `a:1: the option "verify-required" is not known`, nil},
		{"options of authorized_keys", map[string]string{"a": `ada command="x" ` + public}, `the option "command"`, nil},
		{"an authority", map[string]string{"a": `*@example.com cert-authority ` + public}, "certificates are not checked", nil},
		{"no time", map[string]string{"a": `ada valid-after=tomorrow ` + public}, `"tomorrow" is not a time`, nil},
		{"an open quote", map[string]string{"a": `ada namespaces="git ` + public}, "a quote is not closed", nil},
	} {
		in := map[string][]byte{}
		for name, data := range tt.files {
			in[name] = []byte(data)
		}
		_, other, err := Parse(in)
		if (err == nil) != (tt.words == "") || err != nil && !strings.Contains(err.Error(), tt.words) || !slices.Equal(other, tt.other) {
			t.Errorf("%s: %v, no keys in %v; want %q and %v", tt.name, err, other, tt.words, tt.other)
		}
	}
	one, two := parse(t, map[string][]byte{"a": []byte(public)}), parse(t, map[string][]byte{"a": []byte(public + "\n# more")})
	if one.Digest() == two.Digest() {
		t.Error("another list has the same digest")
	}
}

// FuzzCommit holds that nothing panics, and that what is accepted is the signed commit: taken apart, its bytes are the
// payload and the signature and nothing else.
func FuzzCommit(f *testing.F) {
	files := fixtures(f)
	keys := parse(f, map[string][]byte{"ada": files["ada.asc"], "ed25519": files["ed25519.pub"]})
	good := map[string]bool{}
	for _, name := range []string{"ada", "ed25519"} {
		o, err := splitCommit(files[name+".commit"])
		if err != nil {
			f.Fatal(err)
		}
		good[string(o.payload)] = true
		f.Add(files[name+".commit"])
		for _, raw := range mutants(files[name+".commit"]) {
			f.Add(raw)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := keys.Commit(raw, now); err != nil {
			if reason(err) == "" {
				t.Errorf("no refusal: %v", err)
			}
			return
		}
		o, err := splitCommit(raw)
		if err != nil || !good[string(o.payload)] {
			t.Errorf("accepted, and nobody signed it:\n%q", raw)
		}
	})
}

// FuzzParse holds that no list of keys is too strange to be read or refused.
func FuzzParse(f *testing.F) {
	files := fixtures(f)
	_, public := newSSH(f, 1)
	f.Add(files["ada.asc"])
	f.Add([]byte("ada namespaces=\"git\",valid-after=20240101 " + public))
	f.Fuzz(func(t *testing.T, data []byte) {
		if k, _, err := Parse(map[string][]byte{"keys": data}); err == nil {
			_, _ = k.Commit(files["ada.commit"], now)
		}
	})
}

package git

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing/protocol/packp"

	"github.com/fairlead-dev/fairlead/sources/git/gittest"
)

// packOf is a pack with a commit, a tree, files, and a delta.
func packOf(f *testing.F) []byte {
	r := gittest.New()
	r.Commit(r.Files(map[string]string{"app/cm.yaml": "a: b\n", "x": strings.Repeat("long ", 100)}))
	var b bytes.Buffer
	if err := r.Pack(&b); err != nil {
		f.Fatal(err)
	}
	return b.Bytes()
}

// deltas is a pack with a delta of each kind.
func deltas(f *testing.F) []byte {
	var b bytes.Buffer
	p := gittest.NewPacker(&b, 2)
	p.Object(gittest.Blob, nil, []byte("base"))
	p.Object(gittest.OfsDelta, gittest.OfsBase(p.Offset()-12), append(gittest.Uvarint(4), append(gittest.Uvarint(5), 0x90, 4, 1, '!')...))
	if err := p.Close(); err != nil {
		f.Fatal(err)
	}
	return b.Bytes()
}

// FuzzPack stores arbitrary packs: nothing panics, what is stored is whole, and of what is refused nothing is left.
func FuzzPack(f *testing.F) {
	f.Add(packOf(f))
	f.Add(deltas(f))
	f.Add([]byte("PACK\x00\x00\x00\x02\xff\xff\xff\xff"))
	f.Add([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x01\xbf\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		// The checksum at the end would keep the fuzzer out of everything behind it, and is not checked here.
		if _, err := checkPack(bufio.NewReader(bytes.NewReader(data))); err != nil {
			return
		}
		dir := t.TempDir()
		err := storePack(context.Background(), dir, bytes.NewReader(data))
		left, e := os.ReadDir(dir)
		if e != nil {
			t.Fatal(e)
		}
		for _, entry := range left {
			if err != nil || !strings.HasPrefix(entry.Name(), "pack-") {
				t.Errorf("%s is left (%v)", entry.Name(), err)
			}
		}
		if err == nil && len(left) != 2 && len(left) != 0 {
			t.Errorf("%d files are left", len(left))
		}
	})
}

// FuzzCommit reads arbitrary commits: nothing panics, and what is kept of them is text and bounded.
func FuzzCommit(f *testing.F) {
	f.Add([]byte("tree 1111111111111111111111111111111111111111\nparent x\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 99999999999999 -9999\n\nmessage\n"))
	f.Add([]byte("author >\ncommitter <\n\n\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseCommit(data)
		if err == nil && c.tree.IsZero() {
			t.Error("no tree")
		}
		for _, s := range []string{c.author, c.message} {
			if len(s) > maxMessage+8 || strings.ToValidUTF8(s, "") != s {
				t.Errorf("%d bytes, or no text", len(s))
			}
		}
	})
}

// FuzzListing reads arbitrary lists of references as a server sends them, and follows arbitrary references in them.
func FuzzListing(f *testing.F) {
	r := gittest.New()
	r.Commit(r.Files(map[string]string{"a": "b"}))
	r.Refs["refs/tags/v1.0.0"] = r.Refs["refs/heads/main"]
	var b strings.Builder
	r.Advertise(&b)
	list := strings.TrimPrefix(b.String(), gittest.Line("# service=git-upload-pack\n")+"0000")
	f.Add(list, "main")
	f.Add(list, "semver:>=1")
	f.Add(strings.ReplaceAll(list, "HEAD", "refs/../x"), "HEAD")
	f.Add("0000", "")
	f.Fuzz(func(t *testing.T, text, word string) {
		adv := packp.NewAdvRefs()
		if adv.Decode(strings.NewReader(text)) != nil {
			return
		}
		l := read(adv, nil)
		l.tips()
		o := Options{Revision: word}
		if checkOptions(o) != nil {
			return
		}
		sel, err := resolve(wanted(o), l)
		if err == nil && sel.ref != "" && l.refs[sel.ref] != sel.object {
			t.Errorf("%q selects %+v", word, sel)
		}
		if err != nil && len(err.Error()) > 5000+len(text)+len(word)*4 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	})
}

// FuzzIgnore holds paths against arbitrary patterns: nothing panics, and the same answer comes twice.
func FuzzIgnore(f *testing.F) {
	for _, p := range []string{"*.yaml\n!a.yaml\n", "/app/**\n", "**/\n", "[a-\n", "\\\n!\n", "a/**/b\n!**\n", "\xff\n"} {
		f.Add(p, "app/a.yaml")
	}
	f.Fuzz(func(t *testing.T, patterns, name string) {
		if len(name) > 300 || strings.Count(name, "/") > 20 || len(patterns) > 2000 {
			return
		}
		i, err := newIgnore(patterns, func(string) ([]byte, error) { return []byte(patterns), nil })
		if err != nil {
			return
		}
		below := func(string) ([]entry, error) { return []entry{{name: "x"}, {name: "d", mode: modeTree}}, nil }
		for _, isDir := range []bool{false, true} {
			a, err := i.shows(name, isDir, below)
			b, _ := i.shows(name, isDir, below)
			if err != nil || a != b {
				t.Errorf("%v, %v, %v", a, b, err)
			}
		}
	})
}

// FuzzJoin resolves arbitrary URLs of submodules: none leads above the root, and none from a server to this machine
// without being told apart.
func FuzzJoin(f *testing.F) {
	for _, s := range []string{"../lib", "./x", "../../..", "file:///etc", "/etc", "ssh://a@b/c", "-x:y", "https://u:p@h/p", "..//..//x"} {
		f.Add("https://example.com/team/config.git", s)
	}
	f.Fuzz(func(t *testing.T, base, rel string) {
		at, err := parseLocation(base)
		if err != nil {
			return
		}
		where, err := at.join(rel)
		if err != nil {
			return
		}
		if strings.HasPrefix(rel, ".") && (where.scheme != at.scheme || where.host != at.host) && (strings.HasPrefix(rel, "./") || strings.HasPrefix(rel, "../")) {
			t.Errorf("%q at %q is %+v", rel, base, where)
		}
		if strings.HasPrefix(where.host, "-") {
			t.Errorf("%q at %q has the host %q", rel, base, where.host)
		}
		if _, err := parseLocation(where.url()); err != nil && where.scheme != "ssh" {
			t.Errorf("%q at %q is %q, which cannot be read: %v", rel, base, where.url(), err)
		}
	})
}

// Package gittest makes Git repositories object by object, also such as git itself would never make, and serves
// them over HTTP without running a program. It is for tests of what hostile repositories and servers do.
package gittest

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The types of objects, as packs number them.
const (
	Commit   = 1
	Tree     = 2
	Blob     = 3
	Tag      = 4
	OfsDelta = 6
	RefDelta = 7
)

// The modes of entries.
const (
	ModeFile   = "100644"
	ModeDir    = "40000"
	ModeLink   = "120000"
	ModeModule = "160000"
)

// ID is the name of an object in hexadecimal.
type ID string

// Entry is one line of a tree.
type Entry struct {
	Mode, Name string
	ID         ID
}

type object struct {
	kind int
	data []byte
}

// Repository is a set of objects and references.
type Repository struct {
	// Refs are the references by full name; the branch main is the default one.
	Refs map[string]ID
	// Head is what HEAD points to.
	Head    string
	objects map[ID]object
	order   []ID
}

// New returns an empty repository.
func New() *Repository {
	return &Repository{Refs: map[string]ID{}, Head: "refs/heads/main", objects: map[ID]object{}}
}

// Add adds an object as it is and returns its name.
func (r *Repository) Add(kind int, data []byte) ID {
	h := sha1.New()
	fmt.Fprintf(h, "%s %d\x00", nameOf(kind), len(data))
	h.Write(data)
	id := ID(hex.EncodeToString(h.Sum(nil)))
	if _, have := r.objects[id]; !have {
		r.objects[id] = object{kind, data}
		r.order = append(r.order, id)
	}
	return id
}

func nameOf(kind int) string {
	return map[int]string{Commit: "commit", Tree: "tree", Blob: "blob", Tag: "tag"}[kind]
}

// Remove takes an object away; what refers to it stays.
func (r *Repository) Remove(id ID) {
	delete(r.objects, id)
	r.order = slices.DeleteFunc(r.order, func(o ID) bool { return o == id })
}

// File adds a blob.
func (r *Repository) File(content string) ID { return r.Add(Blob, []byte(content)) }

// List adds a tree with exactly these entries in this order.
func (r *Repository) List(entries ...Entry) ID {
	var b bytes.Buffer
	for _, e := range entries {
		id, err := hex.DecodeString(string(e.ID))
		if err != nil || len(id) != 20 {
			panic("gittest: " + e.Name + " has no object")
		}
		b.WriteString(e.Mode + " " + e.Name + "\x00")
		b.Write(id)
	}
	return r.Add(Tree, b.Bytes())
}

// Dir adds a tree as git would: sorted.
func (r *Repository) Dir(entries ...Entry) ID {
	key := func(e Entry) string {
		if e.Mode == ModeDir {
			return e.Name + "/"
		}
		return e.Name
	}
	sorted := slices.Clone(entries)
	slices.SortFunc(sorted, func(a, b Entry) int { return strings.Compare(key(a), key(b)) })
	return r.List(sorted...)
}

// Files adds a tree of files by path. A name that ends with " -> TARGET" is a symbolic link, whatever its content.
func (r *Repository) Files(files map[string]string) ID {
	var entries []Entry
	below := map[string]map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		link, target, isLink := strings.Cut(name, " -> ")
		if dir, rest, ok := strings.Cut(link, "/"); ok {
			if below[dir] == nil {
				below[dir] = map[string]string{}
			}
			if isLink {
				rest += " -> " + target
			}
			below[dir][rest] = files[name]
			continue
		}
		if isLink {
			entries = append(entries, Entry{ModeLink, link, r.File(target)})
		} else {
			entries = append(entries, Entry{ModeFile, name, r.File(files[name])})
		}
	}
	for dir, files := range below {
		entries = append(entries, Entry{ModeDir, dir, r.Files(files)})
	}
	return r.Dir(entries...)
}

// Commit adds a commit of a tree and makes it the branch main.
func (r *Repository) Commit(tree ID, parents ...ID) ID {
	var b strings.Builder
	fmt.Fprintf(&b, "tree %s\n", tree)
	for _, p := range parents {
		fmt.Fprintf(&b, "parent %s\n", p)
	}
	b.WriteString("author Ada <ada@example.com> 1700000000 +0000\ncommitter Ada <ada@example.com> 1700000000 +0000\n\ncrafted\n")
	return r.Follow(r.Add(Commit, []byte(b.String())))
}

// Follow makes an object the branch main.
func (r *Repository) Follow(id ID) ID {
	r.Refs[r.Head] = id
	return id
}

// Pack writes all objects, whole.
func (r *Repository) Pack(w io.Writer) error {
	p := NewPacker(w, uint32(len(r.order)))
	for _, id := range r.order {
		p.Object(r.objects[id].kind, nil, r.objects[id].data)
	}
	return p.Close()
}

// Packer writes a pack object by object; nothing is checked.
type Packer struct {
	w      io.Writer
	sum    interface{ Sum([]byte) []byte }
	offset int64
	z      *zlib.Writer
	err    error
}

// NewPacker begins a pack that says that it has count objects.
func NewPacker(w io.Writer, count uint32) *Packer {
	sum := sha1.New()
	p := &Packer{w: io.MultiWriter(w, sum), sum: sum}
	head := binary.BigEndian.AppendUint32([]byte("PACK"), 2)
	p.Raw(binary.BigEndian.AppendUint32(head, count))
	return p
}

// Raw writes bytes as they are.
func (p *Packer) Raw(b []byte) {
	n, err := p.w.Write(b)
	p.offset += int64(n)
	if p.err == nil {
		p.err = err
	}
}

// Offset is where the next object begins.
func (p *Packer) Offset() int64 { return p.offset }

// Object writes an object; base stands before the data of a delta.
func (p *Packer) Object(kind int, base, data []byte) {
	p.Head(kind, uint64(len(data)))
	p.Raw(base)
	p.Deflate(bytes.NewReader(data))
}

// Head writes the type of an object and a size.
func (p *Packer) Head(kind int, size uint64) {
	c := byte(kind<<4) | byte(size&15)
	size >>= 4
	var b []byte
	for size > 0 {
		b = append(b, c|0x80)
		c = byte(size & 0x7f)
		size >>= 7
	}
	p.Raw(append(b, c))
}

// Deflate writes what r has, compressed.
func (p *Packer) Deflate(r io.Reader) {
	var b bytes.Buffer
	if p.z == nil {
		p.z = zlib.NewWriter(&b)
	} else {
		p.z.Reset(&b)
	}
	if _, err := io.Copy(p.z, r); err != nil && p.err == nil {
		p.err = err
	}
	p.z.Close()
	p.Raw(b.Bytes())
}

// Close writes the checksum.
func (p *Packer) Close() error {
	p.Raw(p.sum.Sum(nil))
	return p.err
}

// OfsBase is how a delta names a base that begins so many bytes before it.
func OfsBase(back int64) []byte {
	b := []byte{byte(back & 0x7f)}
	for back >>= 7; back > 0; back >>= 7 {
		back--
		b = append([]byte{byte(back&0x7f) | 0x80}, b...)
	}
	return b
}

// Uvarint is a size as deltas have it.
func Uvarint(n uint64) []byte { return binary.AppendUvarint(nil, n) }

// Zeros are n zero bytes.
func Zeros(n int64) io.Reader { return io.LimitReader(zeros{}, n) }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Write makes the bare repository dir of it, with loose objects.
func (r *Repository) Write(dir string) error {
	put := func(name string, data []byte) error {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		return os.WriteFile(p, data, 0o644)
	}
	if err := put("HEAD", []byte("ref: "+r.Head+"\n")); err != nil {
		return err
	}
	for name, id := range r.Refs {
		if err := put(name, []byte(id+"\n")); err != nil {
			return err
		}
	}
	for id, o := range r.objects {
		var b bytes.Buffer
		z := zlib.NewWriter(&b)
		fmt.Fprintf(z, "%s %d\x00", nameOf(o.kind), len(o.data))
		if _, err := z.Write(o.data); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		if err := put(filepath.Join("objects", string(id[:2]), string(id[2:])), b.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

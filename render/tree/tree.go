// Package tree is the jail that rendering reads through: a view of one snapshot that records what was read
// and what was looked for and absent, holds files that exist in memory only, and bounds what is read.
//
// Paths are those of io/fs: relative to the snapshot's root, with forward slashes. There is no path that
// leads out of it.
package tree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"
)

// Limits bound what may be read through one Tree.
type Limits struct {
	FileBytes  int64 // of one file
	TotalBytes int64 // of all different files together
	Files      int   // different files and directories
}

// DefaultLimits are far above what one unit of real manifests needs.
func DefaultLimits() Limits {
	return Limits{FileBytes: 16 << 20, TotalBytes: 64 << 20, Files: 20_000}
}

// LimitError says which limit reading ran into.
type LimitError struct{ Path, Reason string }

func (e *LimitError) Error() string { return e.Path + ": " + e.Reason }

// Kind is what a path is.
type Kind int

// The kinds of paths.
const (
	Absent Kind = iota
	File
	Dir
)

// Tree is a recording view of a file system. It is not safe for concurrent use.
type Tree struct {
	fsys    fs.FS
	lim     Limits
	open    func(path string, data []byte) ([]byte, error)
	reads   map[string]bool
	kinds   map[string]Kind
	files   map[string][]byte
	overlay map[string][]byte
	hidden  map[string]bool
	total   int64
	broken  error // the first failure that is not about what the repository holds
}

// New returns a view of fsys. open, if not nil, turns a file's content into what readers see (it decrypts).
func New(fsys fs.FS, lim Limits, open func(path string, data []byte) ([]byte, error)) *Tree {
	return &Tree{
		fsys: fsys, lim: lim, open: open, reads: map[string]bool{}, kinds: map[string]Kind{}, files: map[string][]byte{},
		overlay: map[string][]byte{}, hidden: map[string]bool{},
	}
}

// Overlay makes a file that exists in memory only, over one that the snapshot may have.
func (t *Tree) Overlay(name string, data []byte) { t.overlay[name] = data }

// Hide makes a file absent without looking for it.
func (t *Tree) Hide(name string) { t.hidden[name] = true }

// Reads returns, sorted, the files that were read, the directories that were listed and the paths that were
// looked for and are absent.
func (t *Tree) Reads() []string { return slices.Sorted(maps.Keys(t.reads)) }

// Err returns the first failure of the file system itself, as opposed to a path being absent.
func (t *Tree) Err() error { return t.broken }

func (t *Tree) fail(err error) error {
	var limit *LimitError
	if t.broken == nil && !errors.Is(err, fs.ErrNotExist) && !errors.As(err, &limit) {
		t.broken = err
	}
	return err
}

// Kind says what a path is. A file or a path that does not exist counts as read; a directory does not, since
// what matters of it is read by itself.
func (t *Tree) Kind(name string) Kind {
	if _, ok := t.overlay[name]; ok {
		return File
	}
	if t.hidden[name] || !fs.ValidPath(name) {
		return Absent
	}
	if k, ok := t.kinds[name]; ok {
		return k
	}
	k := Absent
	info, err := fs.Stat(t.fsys, name)
	switch {
	case err != nil:
		// A path below a file, too long, or a link that leaves the tree is absent as well; whoever needs it says
		// so. Anything else is damage, and must never look as if nothing were there.
		if !absent(err) {
			_ = t.fail(err) // kept until Err is asked for
		}
		t.reads[name] = true
	case info.IsDir():
		k = Dir
	case info.Mode().IsRegular():
		k = File
		t.reads[name] = true
	default:
		t.reads[name] = true
	}
	t.kinds[name] = k
	return k
}

// Link returns the symbolic link that keeps an absent path from being found: the path itself or one above it; "" when
// there is none. The directory that was looked at counts as read.
func (t *Tree) Link(name string) string {
	if t.hidden[name] || !fs.ValidPath(name) {
		return ""
	}
	for at := name; at != "."; at = path.Dir(at) {
		dir := path.Dir(at)
		if t.Kind(dir) != Dir {
			continue
		}
		entries, err := t.ReadDir(dir)
		if err != nil {
			return ""
		}
		i := slices.IndexFunc(entries, func(e fs.DirEntry) bool { return e.Name() == path.Base(at) })
		if i >= 0 && entries[i].Type()&fs.ModeSymlink != 0 {
			return at
		}
		return ""
	}
	return ""
}

// absent reports whether an error says that there is nothing of a name.
func absent(err error) bool {
	for _, e := range []error{fs.ErrNotExist, fs.ErrInvalid, syscall.ENOTDIR, syscall.ENAMETOOLONG, syscall.ELOOP} {
		if errors.Is(err, e) {
			return !errors.Is(err, ErrDisconnected)
		}
	}
	return false
}

// ReadFile returns a file's content. The result must not be modified.
func (t *Tree) ReadFile(name string) ([]byte, error) {
	if data, ok := t.overlay[name]; ok {
		return data, nil
	}
	if !fs.ValidPath(name) || t.hidden[name] {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if data, ok := t.files[name]; ok {
		return data, nil
	}
	switch t.Kind(name) {
	case Dir:
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	case Absent:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case File:
	}
	if len(t.reads) >= t.lim.Files {
		return nil, &LimitError{name, fmt.Sprintf("more than %d files are read", t.lim.Files)}
	}
	t.reads[name] = true
	data, err := readLimited(t.fsys, name, t.lim.FileBytes)
	if err != nil {
		return nil, t.fail(err)
	}
	t.total += int64(len(data))
	if t.total > t.lim.TotalBytes {
		return nil, &LimitError{name, fmt.Sprintf("more than %d bytes are read", t.lim.TotalBytes)}
	}
	if t.open != nil {
		if data, err = t.open(name, data); err != nil {
			return nil, err
		}
	}
	t.files[name] = data
	return data, nil
}

func readLimited(fsys fs.FS, name string, most int64) ([]byte, error) {
	if r, ok := fsys.(fs.ReadFileFS); ok {
		if info, err := fs.Stat(fsys, name); err == nil && info.Size() > most {
			return nil, &LimitError{name, fmt.Sprintf("the file has %d bytes, the limit is %d", info.Size(), most)}
		}
		return r.ReadFile(name)
	}
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		return nil, &LimitError{name, fmt.Sprintf("the file has more than %d bytes", most)}
	}
	return data, err
}

// ReadDir lists a directory, sorted by name. The listing counts as read.
func (t *Tree) ReadDir(name string) ([]fs.DirEntry, error) {
	if len(t.reads) >= t.lim.Files {
		return nil, &LimitError{name, fmt.Sprintf("more than %d files are read", t.lim.Files)}
	}
	t.reads[name] = true
	list, err := fs.ReadDir(t.fsys, name)
	if err != nil {
		return nil, t.fail(err)
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, nil
}

// Join returns the path that rel means in dir, and false when it leads out of the tree or cannot be a path.
func Join(dir, rel string) (string, bool) {
	if rel == "" || strings.ContainsAny(rel, "\x00\\") || len(rel) > 1024 || path.IsAbs(rel) {
		return "", false
	}
	p := path.Join(dir, rel)
	if p == ".." || strings.HasPrefix(p, "../") || !fs.ValidPath(p) {
		return "", false
	}
	return p, true
}

// ErrDisconnected is what a file system's errors wrap when the snapshot can no longer be asked.
var ErrDisconnected = errors.New("the snapshot cannot be read")

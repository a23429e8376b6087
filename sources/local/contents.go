package local

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/sources"
	"github.com/fairlead-dev/fairlead/sources/opened"
)

// contents is a directory as it was at one moment. It is never changed: the next one shares with it what stayed.
type contents struct {
	revision sources.Revision
	info     fs.FileInfo // of the directory itself
	root     *directory
}

// directory is one directory with all below it.
type directory struct {
	entries []entry // sorted by name
	// sum follows from every path, mode and content below, and from nothing else.
	sum   sum
	files int
	bytes int64
	links int
}

// entry is what a directory has under a name: a file, or a directory where that is nil.
type entry struct {
	name string
	file *file
	dir  *directory
}

// newDirectory sums entries up, which are in order.
func newDirectory(entries []entry) *directory {
	d := &directory{entries: entries}
	h := sha256.New()
	for _, e := range entries {
		if e.file == nil {
			fmt.Fprintf(h, "d %q %x\n", e.name, e.dir.sum)
			d.files, d.bytes, d.links = d.files+e.dir.files, d.bytes+e.dir.bytes, d.links+e.dir.links
			continue
		}
		fmt.Fprintf(h, "%o %q %x\n", uint32(e.file.mode), e.name, e.file.sum)
		d.files, d.bytes = d.files+1, d.bytes+int64(len(e.file.data))
		if e.link() {
			d.links++
		}
	}
	h.Sum(d.sum[:0])
	return d
}

func (e entry) link() bool { return e.file != nil && e.file.mode&fs.ModeSymlink != 0 }

// get returns what is under a name; the zero entry when nothing is, or the directory is nil.
func (d *directory) get(name string) (entry, bool) {
	if d == nil {
		return entry{}, false
	}
	i, ok := slices.BinarySearchFunc(d.entries, name, func(e entry, name string) int { return strings.Compare(e.name, name) })
	if !ok {
		return entry{}, false
	}
	return d.entries[i], true
}

// differences adds to paths what differs between two directories, and what is below a directory that only one has.
// Either may be nil.
func differences(paths []string, prefix string, a, b *directory) []string {
	if a != nil && b != nil && a.sum == b.sum {
		return paths
	}
	var was, is []entry
	if a != nil {
		was = a.entries
	}
	if b != nil {
		is = b.entries
	}
	for len(was)+len(is) > 0 {
		var old, now entry
		if len(is) == 0 || len(was) > 0 && was[0].name <= is[0].name {
			old = was[0]
		}
		if len(was) == 0 || len(is) > 0 && is[0].name <= was[0].name {
			now = is[0]
		}
		name := old.name
		if old.name != "" {
			was = was[1:]
		}
		if now.name != "" {
			is, name = is[1:], now.name
		}
		if !old.same(now) {
			paths = append(paths, prefix+name)
		}
		if old.dir != nil || now.dir != nil {
			paths = differences(paths, prefix+name+"/", old.dir, now.dir)
		}
	}
	return paths
}

// same reports whether two entries are the same file, or directories both.
func (e entry) same(o entry) bool {
	if e.file == nil || o.file == nil {
		return e.file == nil && o.file == nil && (e.dir != nil) == (o.dir != nil)
	}
	return e.file.mode == o.file.mode && e.file.sum == o.file.sum
}

var (
	_ fs.ReadDirFS  = (*contents)(nil)
	_ fs.ReadFileFS = (*contents)(nil)
	_ fs.StatFS     = (*contents)(nil)
	_ fs.ReadLinkFS = (*contents)(nil)
)

const maxLinks = 40

// find returns what is at a path. Links in the middle are followed; one at the end only when follow is set.
func (c *contents) find(op, name string, follow bool) (entry, error) {
	fail := func(err error) (entry, error) { return entry{}, &fs.PathError{Op: op, Path: name, Err: err} }
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	at := name
walk:
	for range maxLinks {
		here := entry{name: ".", dir: c.root}
		if at == "." {
			return here, nil
		}
		parts := strings.Split(at, "/")
		for i, part := range parts {
			next, ok := here.dir.get(part)
			if !ok {
				return fail(fs.ErrNotExist)
			}
			if next.link() && (follow || i < len(parts)-1) {
				to := string(next.file.data)
				if path.IsAbs(to) {
					return fail(errOutside)
				}
				at = path.Join(append([]string{path.Join(parts[:i]...), to}, parts[i+1:]...)...)
				if !fs.ValidPath(at) || at == ".." || strings.HasPrefix(at, "../") {
					return fail(errOutside)
				}
				continue walk
			}
			here = next
		}
		return here, nil
	}
	return fail(fmt.Errorf("%w: too many symbolic links, or a loop of them", fs.ErrInvalid))
}

var errOutside = fmt.Errorf("%w: the symbolic link leads out of the directory", fs.ErrInvalid)

// Open opens a file or a directory.
func (c *contents) Open(name string) (fs.File, error) {
	e, err := c.find("open", name, true)
	if err != nil {
		return nil, err
	}
	info := fileInfo{path.Base(name), e.file}
	if e.file == nil {
		return opened.Dir(info, e.dir.list()), nil
	}
	return opened.File(info, e.file.data), nil
}

// ReadFile returns a file's content.
func (c *contents) ReadFile(name string) ([]byte, error) {
	e, err := c.find("read", name, true)
	if err != nil {
		return nil, err
	}
	if e.file == nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	}
	return slices.Clone(e.file.data), nil
}

// Stat describes what is at a path, links followed.
func (c *contents) Stat(name string) (fs.FileInfo, error) {
	e, err := c.find("stat", name, true)
	if err != nil {
		return nil, err
	}
	return fileInfo{path.Base(name), e.file}, nil
}

// Lstat describes what is at a path, which is not followed when it is a link.
func (c *contents) Lstat(name string) (fs.FileInfo, error) {
	e, err := c.find("lstat", name, false)
	if err != nil {
		return nil, err
	}
	return fileInfo{path.Base(name), e.file}, nil
}

// ReadLink returns what a link says.
func (c *contents) ReadLink(name string) (string, error) {
	e, err := c.find("readlink", name, false)
	if err != nil {
		return "", err
	}
	if !e.link() {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return string(e.file.data), nil
}

// ReadDir lists a directory, sorted by name. Links appear as links.
func (c *contents) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := c.find("readdir", name, true)
	if err != nil {
		return nil, err
	}
	if e.file != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("is not a directory")}
	}
	return e.dir.list(), nil
}

func (d *directory) list() []fs.DirEntry {
	list := make([]fs.DirEntry, 0, len(d.entries))
	for _, e := range d.entries {
		list = append(list, fs.FileInfoToDirEntry(fileInfo{e.name, e.file}))
	}
	return list
}

type fileInfo struct {
	name string
	file *file // nil for a directory
}

func (i fileInfo) Name() string { return i.name }
func (i fileInfo) IsDir() bool  { return i.file == nil }
func (i fileInfo) Sys() any     { return nil }

// Size is the number of bytes of a file.
func (i fileInfo) Size() int64 {
	if i.file == nil {
		return 0
	}
	return int64(len(i.file.data))
}

// Mode is the kind of file, and whether it may be executed.
func (i fileInfo) Mode() fs.FileMode {
	if i.file == nil {
		return fs.ModeDir | 0o755
	}
	return i.file.mode
}

// ModTime is when the file was changed; zero for a directory.
func (i fileInfo) ModTime() time.Time {
	if i.file == nil {
		return time.Time{}
	}
	return time.Unix(0, i.file.stat.mtime)
}

package local

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/sources"
)

// contents is a directory as it was at one moment. It is never changed.
type contents struct {
	revision sources.Revision
	files    map[string]*file
	dirs     map[string][]string // the names in a directory, sorted
	links    int
	scanned  time.Time
}

var (
	_ fs.ReadDirFS  = (*contents)(nil)
	_ fs.ReadFileFS = (*contents)(nil)
	_ fs.StatFS     = (*contents)(nil)
)

func join(dir, base string) string {
	if dir == "." {
		return base
	}
	return dir + "/" + base
}

func (c *contents) add(name string) {
	dir := path.Dir(name)
	c.dirs[dir] = append(c.dirs[dir], path.Base(name))
}

func (c *contents) file(name string) *file {
	if c == nil {
		return nil
	}
	return c.files[name]
}

// digests are the digests of all paths, directories included.
func (c *contents) digests() *digests {
	d := &digests{revision: c.revision, files: make(map[string]sum, len(c.files)+len(c.dirs))}
	for name, f := range c.files {
		s := f.sum
		if f.mode != 0o644 {
			s = sha256.Sum256(fmt.Appendf(f.sum[:len(f.sum):len(f.sum)], "%o", uint32(f.mode)))
		}
		d.files[name] = s
	}
	for name := range c.dirs {
		if name != "." {
			d.files[name] = sum{}
		}
	}
	return d
}

const maxLinks = 40

// find follows links and returns the path that name means; the file is nil for a directory.
func (c *contents) find(op, name string) (string, *file, error) {
	fail := func(err error) (string, *file, error) {
		return "", nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	at := name
walk:
	for range maxLinks {
		if _, ok := c.dirs[at]; ok {
			return at, nil, nil
		}
		if f, ok := c.files[at]; ok && f.mode.IsRegular() {
			return at, f, nil
		}
		if c.links == 0 {
			return fail(fs.ErrNotExist)
		}
		parts := strings.Split(at, "/")
		for i := range parts {
			p := strings.Join(parts[:i+1], "/")
			f := c.files[p]
			if f == nil || f.mode&fs.ModeSymlink == 0 {
				continue
			}
			to := string(f.data)
			if path.IsAbs(to) {
				return fail(errOutside)
			}
			at = path.Join(append([]string{path.Dir(p), to}, parts[i+1:]...)...)
			if !fs.ValidPath(at) || at == ".." || strings.HasPrefix(at, "../") {
				return fail(errOutside)
			}
			continue walk
		}
		return fail(fs.ErrNotExist)
	}
	return fail(fmt.Errorf("%w: too many symbolic links, or a loop of them", fs.ErrInvalid))
}

var errOutside = fmt.Errorf("%w: the symbolic link leads out of the directory", fs.ErrInvalid)

// Open opens a file or a directory.
func (c *contents) Open(name string) (fs.File, error) {
	at, f, err := c.find("open", name)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return &openDir{info: c.info(name, nil), list: c.list(at)}, nil
	}
	return &openFile{info: c.info(name, f), Reader: bytes.NewReader(f.data)}, nil
}

// ReadFile returns a file's content.
func (c *contents) ReadFile(name string) ([]byte, error) {
	_, f, err := c.find("read", name)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	}
	return slices.Clone(f.data), nil
}

// Stat describes what is at a path, links followed.
func (c *contents) Stat(name string) (fs.FileInfo, error) {
	_, f, err := c.find("stat", name)
	if err != nil {
		return nil, err
	}
	return c.info(name, f), nil
}

// ReadDir lists a directory, sorted by name. Links appear as links.
func (c *contents) ReadDir(name string) ([]fs.DirEntry, error) {
	at, f, err := c.find("readdir", name)
	if err != nil {
		return nil, err
	}
	if f != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("is not a directory")}
	}
	return c.list(at), nil
}

func (c *contents) list(dir string) []fs.DirEntry {
	list := make([]fs.DirEntry, 0, len(c.dirs[dir]))
	for _, base := range c.dirs[dir] {
		at := join(dir, base)
		list = append(list, fs.FileInfoToDirEntry(c.info(at, c.files[at])))
	}
	return list
}

func (c *contents) info(name string, f *file) fileInfo {
	return fileInfo{name: path.Base(name), file: f}
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

type openFile struct {
	info fileInfo
	*bytes.Reader
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *openFile) Close() error               { return nil }

type openDir struct {
	info fileInfo
	list []fs.DirEntry
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *openDir) Close() error               { return nil }
func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.name, Err: errors.New("is a directory")}
}

// ReadDir returns the next n entries, or all when n is not positive.
func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		list := d.list
		d.list = nil
		return list, nil
	}
	if len(d.list) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.list))
	list := d.list[:n:n]
	d.list = d.list[n:]
	return list, nil
}

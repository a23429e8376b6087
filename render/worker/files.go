package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/render/tree"
)

// What is sent unasked with a listing: small files of the kinds that renderings read.
const (
	prefetchFile  = 32 << 10
	prefetchTotal = 256 << 10
)

// The kinds of answers.
const (
	answerOK = iota
	answerAbsent
	answerTooLarge
	answerError // the file system failed
)

// The kinds of entries in a listing.
const (
	entryFile = iota
	entryDir
	entryLink // what it leads to is asked one by one
)

// served is the parent's side: it answers what a child asks of a snapshot.
type served struct {
	files fs.FS
	// dirs are the directories that this child has listings of.
	dirs map[string]bool
}

// list appends a directory's listing, and the content of its small files, to m.
func (s *served) list(m *message, dir string) {
	s.dirs[dir] = true
	m.text(dir)
	list, err := fs.ReadDir(s.files, dir)
	if err != nil || !fs.ValidPath(dir) {
		s.failed(m, err)
		return
	}
	m.int(answerOK)
	m.int(len(list))
	left := int64(prefetchTotal)
	for _, e := range list {
		m.text(e.Name())
		switch {
		case e.IsDir():
			m.int(entryDir)
		case !e.Type().IsRegular():
			m.int(entryLink)
		default:
			m.int(entryFile)
			data, ok := s.prefetch(dir, e, left)
			if !ok {
				m.int(0)
				continue
			}
			left -= int64(len(data))
			m.int(1)
			m.bytes(data)
		}
	}
}

func (s *served) prefetch(dir string, e fs.DirEntry, left int64) ([]byte, bool) {
	switch path.Ext(e.Name()) {
	case ".yaml", ".yml", ".json", ".env", ".properties", ".conf", ".toml", "":
	default:
		return nil, false
	}
	if left <= 0 {
		return nil, false
	}
	info, err := e.Info()
	if err != nil || info.Size() > min(prefetchFile, left) {
		return nil, false
	}
	data, err := fs.ReadFile(s.files, path.Join(dir, e.Name()))
	return data, err == nil && int64(len(data)) <= left
}

// read appends a file's content to m.
func (s *served) read(m *message, name string) {
	most := tree.DefaultLimits().FileBytes
	info, err := fs.Stat(s.files, name)
	switch {
	case err != nil:
		s.failed(m, err)
		return
	case info.Size() > most:
		m.int(answerTooLarge)
		m.text(fmt.Sprintf("the file has %d bytes, the limit is %d", info.Size(), most))
		return
	}
	data, err := fs.ReadFile(s.files, name)
	if err != nil {
		s.failed(m, err)
		return
	}
	m.int(answerOK)
	m.bytes(data)
}

func (s *served) stat(m *message, name string) {
	info, err := fs.Stat(s.files, name)
	if err != nil {
		s.failed(m, err)
		return
	}
	m.int(answerOK)
	switch {
	case info.IsDir():
		m.int(entryDir)
	case info.Mode().IsRegular():
		m.int(entryFile)
	default:
		m.int(entryLink)
	}
}

func (s *served) failed(m *message, err error) {
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		m.int(answerAbsent)
		return
	}
	m.int(answerError)
	m.text(err.Error())
}

// remote is the child's side: the snapshot as a file system, over a connection. It remembers what it was told.
type remote struct {
	c     *conn
	dirs  map[string]*remoteDir
	files map[string][]byte
	stats map[string]entryInfo
}

type remoteDir struct {
	err     error
	list    []fs.DirEntry
	entries map[string]entryInfo
}

var (
	_ fs.StatFS     = (*remote)(nil)
	_ fs.ReadDirFS  = (*remote)(nil)
	_ fs.ReadFileFS = (*remote)(nil)
)

func newRemote(c *conn) *remote {
	return &remote{c: c, dirs: map[string]*remoteDir{}, files: map[string][]byte{}, stats: map[string]entryInfo{}}
}

// ask sends a request and returns the answer.
func (r *remote) ask(kind byte, name string) (*fields, error) {
	m := newMessage(kind)
	m.text(name)
	if err := r.c.send(m); err != nil {
		return nil, fmt.Errorf("%w: %w", tree.ErrDisconnected, err)
	}
	got, f, err := r.c.receive()
	if err == nil && got != kind {
		err = errProtocol
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tree.ErrDisconnected, err)
	}
	return f, nil
}

// answer turns the head of an answer into an error.
func answer(op, name string, f *fields) error {
	switch f.int() {
	case answerOK:
		return f.err
	case answerAbsent:
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	case answerTooLarge:
		return &tree.LimitError{Path: name, Reason: f.text()}
	}
	return &fs.PathError{Op: op, Path: name, Err: errors.New(f.text())}
}

// learn takes a listing over.
func (r *remote) learn(f *fields) *remoteDir {
	dir := f.text()
	d := &remoteDir{entries: map[string]entryInfo{}}
	r.dirs[dir] = d
	if d.err = answer("open", dir, f); d.err != nil {
		return d
	}
	for range f.count() {
		e := entryInfo{name: f.text(), kind: f.int()}
		if e.kind == entryFile && f.int() == 1 {
			r.files[path.Join(dir, e.name)] = f.bytes()
		}
		d.entries[e.name] = e
		d.list = append(d.list, e)
	}
	if d.err = f.err; d.err != nil {
		d.err = fmt.Errorf("%w: %w", tree.ErrDisconnected, d.err)
	}
	slices.SortFunc(d.list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return d
}

func (r *remote) dir(name string) *remoteDir {
	if d, ok := r.dirs[name]; ok {
		return d
	}
	f, err := r.ask(msgList, name)
	if err != nil {
		return &remoteDir{err: err}
	}
	return r.learn(f)
}

// Open is not used by renderings; it exists to be an fs.FS.
func (r *remote) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: errors.ErrUnsupported}
}

// Stat returns what a path is. Sizes are not known.
func (r *remote) Stat(name string) (fs.FileInfo, error) {
	absent := &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	if !fs.ValidPath(name) {
		return nil, absent
	}
	if name == "." {
		return entryInfo{name: ".", kind: entryDir}, nil
	}
	if d, ok := r.dirs[name]; ok && d.err == nil {
		return entryInfo{name: path.Base(name), kind: entryDir}, nil
	}
	// A directory that does not exist has nothing in it: the topmost one that is absent answers for all below.
	if up := path.Dir(name); up != "." && r.dirs[up] == nil {
		if info, err := r.Stat(up); err != nil {
			return nil, err
		} else if !info.IsDir() {
			return nil, absent
		}
	}
	d := r.dir(path.Dir(name))
	if errors.Is(d.err, tree.ErrDisconnected) {
		return nil, d.err
	}
	e, ok := d.entries[path.Base(name)]
	switch {
	case !ok:
		return nil, absent
	case e.kind != entryLink:
		return e, nil
	}
	if e, ok := r.stats[name]; ok {
		return e, nil
	}
	f, err := r.ask(msgStat, name)
	if err != nil {
		return nil, err
	}
	if err := answer("stat", name, f); err != nil {
		return nil, err
	}
	e.kind = f.int()
	r.stats[name] = e
	return e, f.err
}

func (r *remote) ReadDir(name string) ([]fs.DirEntry, error) {
	d := r.dir(name)
	return slices.Clone(d.list), d.err
}

func (r *remote) ReadFile(name string) ([]byte, error) {
	if data, ok := r.files[name]; ok {
		return data, nil
	}
	f, err := r.ask(msgRead, name)
	if err != nil {
		return nil, err
	}
	if err := answer("open", name, f); err != nil {
		return nil, err
	}
	data := f.bytes()
	r.files[name] = data
	return data, f.err
}

// entryInfo is what is known of a path without reading it.
type entryInfo struct {
	name string
	kind int
}

func (e entryInfo) Name() string               { return e.name }
func (e entryInfo) IsDir() bool                { return e.kind == entryDir }
func (e entryInfo) Type() fs.FileMode          { return e.Mode().Type() }
func (e entryInfo) Info() (fs.FileInfo, error) { return e, nil }
func (e entryInfo) Size() int64                { return 0 }
func (e entryInfo) ModTime() time.Time         { return time.Time{} }
func (e entryInfo) Sys() any                   { return nil }
func (e entryInfo) Mode() fs.FileMode {
	switch e.kind {
	case entryDir:
		return fs.ModeDir | 0o755
	case entryLink:
		return fs.ModeSymlink | 0o777
	}
	return 0o644
}

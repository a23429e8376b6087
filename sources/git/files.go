package git

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/fairlead-dev/fairlead/sources/opened"
)

// tree is a commit's files as an fs.FS. Trees are looked up and files read when they are asked for. Symbolic
// links are followed inside the tree and refused with fs.ErrInvalid when they lead out of it.
type tree struct {
	objects   *store
	commit    plumbing.Hash
	root      plumbing.Hash
	committed time.Time
	ignore    *ignore
	sparse    []string
	links     *links
	modules   map[string]*tree // by path; nil when submodules are not read
}

var (
	_ fs.ReadDirFS  = (*tree)(nil)
	_ fs.ReadFileFS = (*tree)(nil)
	_ fs.StatFS     = (*tree)(nil)
	_ fs.ReadLinkFS = (*tree)(nil)
)

// links are the symbolic links that were followed, so that a change of what they point to counts as a change
// of the path that was read.
type links struct {
	mu sync.Mutex
	to map[string]string // the link's path and the path that it means
}

func newLinks() *links { return &links{to: map[string]string{}} }

func (l *links) followed(from, to string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to[from] = to
}

// node is a path that was found.
type node struct {
	entry
	path string // the path after following links, within t
	t    *tree
}

const (
	maxLinks = 40
	maxDeep  = 256 // directories in each other; every lookup begins at the root
)

var errOutside = fmt.Errorf("%w: the symbolic link leads out of the tree", fs.ErrInvalid)

// find looks name up. Links in the middle are followed; one at the end only when follow is set.
func (t *tree) find(op, name string, follow bool) (node, error) {
	fail := func(err error) (node, error) { return node{}, &fs.PathError{Op: op, Path: name, Err: err} }
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	at, hops := name, 0
walk:
	for {
		here := node{entry: entry{name: ".", mode: modeTree, hash: t.root}, path: ".", t: t}
		if at == "." {
			return here, nil
		}
		parts := strings.Split(at, "/")
		if len(parts) > maxDeep {
			return fail(fmt.Errorf("%w: directories are nested more than %d deep", fs.ErrInvalid, maxDeep))
		}
		for i, part := range parts {
			if here.mode&modeType != modeTree {
				return fail(fs.ErrNotExist)
			}
			list, err := here.t.objects.tree(here.hash)
			if err != nil {
				return fail(err)
			}
			e, ok := lookup(list, part)
			if !ok {
				return fail(fs.ErrNotExist)
			}
			p := strings.Join(parts[:i+1], "/")
			if visible, err := t.visible(p, e, here.t); err != nil {
				return fail(err)
			} else if !visible {
				return fail(fs.ErrNotExist)
			}
			last := i == len(parts)-1
			if e.mode&modeType == modeLink && (!last || follow) {
				if hops++; hops > maxLinks {
					return fail(fmt.Errorf("%w: too many symbolic links, or a loop of them", fs.ErrInvalid))
				}
				to, err := here.t.target(p, e.hash)
				if err != nil {
					return fail(err)
				}
				t.links.followed(p, to)
				at = path.Join(append([]string{to}, parts[i+1:]...)...)
				continue walk
			}
			sub := here.t
			if e.mode&modeType == modeModule {
				e.mode, sub, e.hash = modeTree, t.module(p), plumbing.ZeroHash
				if sub == nil {
					// An empty directory: nothing is below it.
					if !last {
						return fail(fs.ErrNotExist)
					}
					sub = t
				} else {
					e.hash = sub.root
				}
			}
			here = node{entry: e, path: p, t: sub}
		}
		here.name = path.Base(name)
		return here, nil
	}
}

// module returns what is mounted at a path of this tree, of modules in modules too.
func (t *tree) module(p string) *tree {
	if m := t.modules[p]; m != nil {
		return m
	}
	for at, m := range t.modules {
		if rest, ok := strings.CutPrefix(p, at+"/"); ok {
			return m.module(rest)
		}
	}
	return nil
}

// target returns the path that a link means.
func (t *tree) target(p string, h plumbing.Hash) (string, error) {
	data, err := t.objects.blob(h)
	if err != nil {
		return "", err
	}
	to := string(data)
	if to == "" || len(to) > 4096 || path.IsAbs(to) || strings.ContainsAny(to, "\x00\\") {
		return "", errOutside
	}
	to = path.Join(path.Dir(p), to)
	if to == ".." || strings.HasPrefix(to, "../") || !fs.ValidPath(to) {
		return "", errOutside
	}
	return to, nil
}

func lookup(list []entry, name string) (entry, bool) {
	i, ok := slices.BinarySearchFunc(list, name, func(e entry, name string) int { return strings.Compare(e.name, name) })
	if !ok {
		return entry{}, false
	}
	return list[i], true
}

// visible reports whether an entry of the tree is shown: neither ignored nor outside of the sparse directories.
func (t *tree) visible(p string, e entry, in *tree) (bool, error) {
	isDir := e.mode&modeType == modeTree || e.mode&modeType == modeModule
	if !t.inSparse(p, isDir) {
		return false, nil
	}
	return t.ignore.shows(p, isDir, func(dir string) ([]entry, error) {
		if e.mode&modeType == modeModule {
			return nil, nil
		}
		return t.entriesBelow(in, p, e.hash, dir)
	})
}

// entriesBelow lists dir, which is top (with the tree hash) or below it.
func (t *tree) entriesBelow(in *tree, top string, hash plumbing.Hash, dir string) ([]entry, error) {
	list, err := in.objects.tree(hash)
	if err != nil || dir == top {
		return list, err
	}
	for part := range strings.SplitSeq(strings.TrimPrefix(dir, top+"/"), "/") {
		e, ok := lookup(list, part)
		if !ok || e.mode&modeType != modeTree {
			return nil, nil
		}
		if list, err = in.objects.tree(e.hash); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (t *tree) inSparse(p string, isDir bool) bool {
	if len(t.sparse) == 0 {
		return true
	}
	for _, s := range t.sparse {
		if p == s || s == "." || strings.HasPrefix(p, s+"/") || isDir && strings.HasPrefix(s, p+"/") {
			return true
		}
	}
	return false
}

// Open opens a file or a directory.
func (t *tree) Open(name string) (fs.File, error) {
	n, err := t.find("open", name, true)
	if err != nil {
		return nil, err
	}
	if n.mode&modeType == modeTree {
		list, err := t.ReadDir(name)
		if err != nil {
			return nil, err
		}
		return opened.Dir(t.info(n), list), nil
	}
	data, err := t.content("open", name, n)
	if err != nil {
		return nil, err
	}
	return opened.File(t.info(n), data), nil
}

// ReadFile returns a file's content. A pointer of Git LFS is an error.
func (t *tree) ReadFile(name string) ([]byte, error) {
	n, err := t.find("open", name, true)
	if err != nil {
		return nil, err
	}
	if n.mode&modeType == modeTree {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	}
	return t.content("read", name, n)
}

var lfsPrefix = []byte("version https://git-lfs.github.com/spec/")

var errLFS = errors.New("the file is kept in Git LFS, which is not read: store it in Git itself")

func (t *tree) content(op, name string, n node) ([]byte, error) {
	data, err := n.t.objects.blob(n.hash)
	if err == nil && len(data) < 1024 && bytes.HasPrefix(data, lfsPrefix) {
		err = errLFS
	}
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return data, nil
}

// Stat describes what is at a path, links followed.
func (t *tree) Stat(name string) (fs.FileInfo, error) {
	n, err := t.find("stat", name, true)
	if err != nil {
		return nil, err
	}
	return t.info(n), nil
}

// Lstat describes what is at a path, which is not followed when it is a link.
func (t *tree) Lstat(name string) (fs.FileInfo, error) {
	n, err := t.find("lstat", name, false)
	if err != nil {
		return nil, err
	}
	return t.info(n), nil
}

// ReadLink returns what a link says.
func (t *tree) ReadLink(name string) (string, error) {
	n, err := t.find("readlink", name, false)
	if err != nil {
		return "", err
	}
	if n.mode&modeType != modeLink {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	to, err := n.t.objects.blob(n.hash)
	return string(to), err
}

// ReadDir lists a directory, sorted by name. Links appear as links.
func (t *tree) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := t.find("readdir", name, true)
	if err != nil {
		return nil, err
	}
	if n.mode&modeType != modeTree {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("is not a directory")}
	}
	if n.hash.IsZero() { // a submodule that is not read
		return nil, nil
	}
	list, err := n.t.objects.tree(n.hash)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	shown := make([]fs.DirEntry, 0, len(list))
	for _, e := range list {
		p := e.name
		if n.path != "." {
			p = n.path + "/" + e.name
		}
		ok, err := t.visible(p, e, n.t)
		if err != nil {
			return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
		}
		if ok {
			shown = append(shown, fs.FileInfoToDirEntry(t.info(node{entry: e, path: p, t: n.t})))
		}
	}
	return shown, nil
}

func (t *tree) info(n node) fileInfo {
	return fileInfo{entry: n.entry, objects: n.t.objects, committed: t.committed}
}

// fileInfo reads the size only when it is asked for.
type fileInfo struct {
	entry
	objects   *store
	committed time.Time
}

func (i fileInfo) Name() string       { return i.name }
func (i fileInfo) ModTime() time.Time { return i.committed }
func (i fileInfo) IsDir() bool        { return i.Mode().IsDir() }
func (i fileInfo) Sys() any           { return nil }

// Size is the number of bytes of a file.
func (i fileInfo) Size() int64 {
	if i.IsDir() {
		return 0
	}
	return i.objects.size(i.hash)
}

// Mode is what Git keeps of a mode.
func (i fileInfo) Mode() fs.FileMode {
	switch i.mode & modeType {
	case modeTree, modeModule:
		return fs.ModeDir | 0o755
	case modeLink:
		return fs.ModeSymlink | 0o777
	}
	if i.mode&0o111 != 0 {
		return 0o755
	}
	return 0o644
}

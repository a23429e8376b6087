package render

import (
	"crypto/sha256"
	"errors"
	"io/fs"
	"path"
	"sync"
)

// digest identifies what a path was when it was read. The zero digest is a path that does not exist.
type digest [16]byte

var (
	// unread are paths of which only the kind was asked.
	unreadFile = digest{1}
	unreadDir  = digest{2}
	// below is a path that does not exist because what it is in is a file.
	below = digest{3}
)

// absent is the digest of a path that does not exist.
func absent(fsys fs.FS, name string) digest {
	if info, err := fs.Stat(fsys, path.Dir(name)); err == nil && !info.IsDir() {
		return below
	}
	return digest{}
}

// recorder is a file system that takes the digests of what is read through it.
type recorder struct {
	fsys fs.FS
	mu   sync.Mutex
	seen map[string]digest
}

var (
	_ fs.StatFS     = (*recorder)(nil)
	_ fs.ReadDirFS  = (*recorder)(nil)
	_ fs.ReadFileFS = (*recorder)(nil)
)

func newRecorder(fsys fs.FS) *recorder { return &recorder{fsys: fsys, seen: map[string]digest{}} }

func (r *recorder) digest(p string) (digest, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, ok := r.seen[p]
	return d, ok
}

func (r *recorder) set(p string, d digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if was, ok := r.seen[p]; !ok || was == unreadFile || was == unreadDir || was == (digest{}) || was == below {
		r.seen[p] = d
	}
}

// Open is not used by renderings; it exists to be an fs.FS.
func (r *recorder) Open(name string) (fs.File, error) { return r.fsys.Open(name) }

func (r *recorder) Stat(name string) (fs.FileInfo, error) {
	info, err := fs.Stat(r.fsys, name)
	if r.known(name) {
		return info, err
	}
	switch {
	case err != nil:
		r.set(name, absent(r.fsys, name))
	case info.IsDir():
		r.set(name, unreadDir)
	default:
		r.set(name, unreadFile)
	}
	return info, err
}

func (r *recorder) known(name string) bool {
	_, ok := r.digest(name)
	return ok
}

func (r *recorder) ReadFile(name string) ([]byte, error) {
	data, err := fs.ReadFile(r.fsys, name)
	if err == nil {
		r.set(name, fileDigest(data))
	} else if errors.Is(err, fs.ErrNotExist) {
		r.set(name, digest{})
	}
	return data, err
}

func (r *recorder) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := fs.ReadDir(r.fsys, name)
	if err == nil {
		r.set(name, dirDigest(list))
	} else if errors.Is(err, fs.ErrNotExist) {
		r.set(name, digest{})
	}
	return list, err
}

func fileDigest(data []byte) digest {
	sum := sha256.Sum256(data)
	d := digest(sum[:16])
	d[0] |= 0x80
	return d
}

func dirDigest(list []fs.DirEntry) digest {
	h := sha256.New()
	for _, e := range list {
		h.Write([]byte(e.Name()))
		h.Write([]byte{0, byte(e.Type() >> 24), byte(e.Type() >> 16)})
	}
	d := digest(h.Sum(nil)[:16])
	d[0] |= 0x80
	return d
}

// measure returns the digest that a path has now, in the way in which the digest was was taken.
func measure(fsys fs.FS, p string, was digest) digest {
	info, err := fs.Stat(fsys, p)
	switch {
	case err != nil:
		return absent(fsys, p)
	case was == unreadFile && !info.IsDir():
		return unreadFile
	case info.IsDir():
		if was == unreadDir {
			return unreadDir
		}
		list, err := fs.ReadDir(fsys, p)
		if err != nil {
			return digest{}
		}
		return dirDigest(list)
	}
	data, err := fs.ReadFile(fsys, p)
	if err != nil {
		return digest{}
	}
	return fileDigest(data)
}

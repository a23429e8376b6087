package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-dev/fairlead/sources"
)

type sum [sha256.Size]byte

// file is one file or link as it was read.
type file struct {
	mode fs.FileMode // regular with permissions, or fs.ModeSymlink
	data []byte      // the target of a link
	sum  sum
	stat stat
	read time.Time // before stat was asked
}

// stat tells whether a file is still the one that was read.
type stat struct {
	size         int64
	mtime, ctime int64
	inode, dev   uint64
	mode         fs.FileMode
}

// racy is how long a file must have been left alone for its times to prove that it is the same: clocks of file
// systems may have steps of two seconds.
const racy = 2 * time.Second

func statOf(info fs.FileInfo) stat {
	s := stat{size: info.Size(), mtime: info.ModTime().UnixNano(), mode: info.Mode()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.ctime, s.inode, s.dev = sys.Ctim.Nano(), sys.Ino, uint64(sys.Dev)
	}
	return s
}

// settled reports whether the file was last changed well before a moment.
func (s stat) settled(at time.Time) bool {
	return max(s.mtime, s.ctime) < at.Add(-racy).UnixNano()
}

// dirt says which directories may no longer be what they were seen to be; a nil one says that none is. all is the
// directory with everything below it, here what it lists and the files in it.
type dirt struct {
	here, all bool
	below     map[string]*dirt
}

// everything is the dirt of a directory of which nothing is known.
func everything() *dirt { return &dirt{all: true} }

// of returns the dirt of a directory in this one.
func (d *dirt) of(name string) *dirt {
	if d == nil || d.all {
		return d
	}
	return d.below[name]
}

// at returns the dirt of the directory at a path, to be added to.
func (d *dirt) at(path string) *dirt {
	if path == "." {
		return d
	}
	for part := range strings.SplitSeq(path, "/") {
		next := d.below[part]
		if next == nil {
			next = &dirt{}
			if d.below == nil {
				d.below = map[string]*dirt{}
			}
			d.below[part] = next
		}
		d = next
	}
	return d
}

// scanner reads a directory.
type scanner struct {
	ctx   context.Context
	now   time.Time
	files int   // that were looked at
	bytes int64 // that were read
}

// scan reads a directory. Of what is not dirty it takes over what last has, and it does not read files again that are as
// they were in last.
func scan(ctx context.Context, dir string, last *contents, d *dirt, now time.Time) (*contents, error) {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, describe(err)
	}
	info, err := os.Stat(root)
	if err != nil {
		return nil, describe(err)
	}
	if !info.IsDir() {
		return nil, errors.New("is not a directory")
	}
	var was *directory
	if last != nil {
		was = last.root
	}
	if last == nil || !os.SameFile(last.info, info) {
		d = everything() // a link to the directory may be to another one now
	}
	s := scanner{ctx: ctx, now: now}
	c := &contents{info: info}
	if c.root, err = s.directory(root, ".", was, d); err != nil {
		return nil, describe(err)
	}
	switch {
	case c.root.bytes > MaxBytes:
		return nil, errTooLarge
	case c.root.files > MaxFiles:
		return nil, errTooMany
	}
	c.revision = sources.Revision(hex.EncodeToString(c.root.sum[:]))
	return c, nil
}

// has reports whether all that is dirty are directories that were seen.
func (d *directory) has(below map[string]*dirt) bool {
	for base := range below {
		if e, ok := d.get(base); !ok || e.dir == nil {
			return false
		}
	}
	return true
}

// directory reads the directory at a path, which is name in the source.
func (s *scanner) directory(at, name string, was *directory, d *dirt) (*directory, error) {
	if was != nil && d == nil {
		return was, nil
	}
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	var entries []entry
	add := func(e entry, err error) error {
		if err == nil {
			entries = append(entries, e)
		} else if errors.Is(err, fs.ErrNotExist) {
			return nil // removed while the directory was being read
		}
		return err
	}
	below := func(base string, was *directory) error {
		sub, err := s.directory(filepath.Join(at, base), path.Join(name, base), was, d.of(base))
		return add(entry{name: base, dir: sub}, err)
	}
	if was != nil && !d.here && !d.all && was.has(d.below) {
		entries = make([]entry, 0, len(was.entries))
		for _, e := range was.entries {
			if e.file != nil {
				entries = append(entries, e)
			} else if err := below(e.name, e.dir); err != nil {
				return nil, err
			}
		}
		return newDirectory(entries), nil
	}
	list, err := os.ReadDir(at)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		base := e.Name()
		if base == ".git" || !fs.ValidPath(base) || strings.ContainsRune(base, '\\') {
			continue
		}
		had, _ := was.get(base)
		switch {
		case e.IsDir():
			if err := below(base, had.dir); err != nil {
				return nil, err
			}
		case e.Type().IsRegular() || e.Type() == fs.ModeSymlink: // no sockets, devices and pipes
			if s.files++; s.files > MaxFiles {
				return nil, errTooMany
			}
			f, err := readFile(filepath.Join(at, base), had.file, s.now, MaxBytes-s.bytes)
			if err := add(entry{name: base, file: f}, err); err != nil {
				return nil, fmt.Errorf("%s: %w", path.Join(name, base), err)
			}
			if f != nil && f != had.file {
				s.bytes += int64(len(f.data))
			}
		}
	}
	return newDirectory(entries), nil
}

func describe(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: check the path", fs.ErrNotExist)
	}
	return err
}

var errTooLarge = fmt.Errorf("the files have more than %d MiB together: give a smaller directory, or keep large files elsewhere", MaxBytes>>20)

var errTooMany = fmt.Errorf("there are more than %d files: give a smaller directory", MaxFiles)

// readFile reads one file, or takes it from before. A file that changes while it is read is read again.
func readFile(at string, was *file, now time.Time, room int64) (*file, error) {
	var f *file
	for range 3 {
		info, err := os.Lstat(at)
		if err != nil {
			return nil, err
		}
		st := statOf(info)
		if was != nil && was.stat == st && st.settled(was.read) {
			return was, nil
		}
		if info.Mode().IsRegular() && info.Size() > room {
			return nil, errTooLarge
		}
		f = &file{stat: st, read: now}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(at)
			if err != nil {
				return nil, err
			}
			f.mode, f.data = fs.ModeSymlink|0o777, []byte(to)
		case info.Mode().IsRegular():
			f.mode = 0o644
			if info.Mode()&0o111 != 0 {
				f.mode = 0o755
			}
			if f.data, err = readAll(at, room); err != nil {
				return nil, err
			}
		default:
			return nil, fs.ErrNotExist // it was replaced by something that is not read
		}
		f.sum = sha256.Sum256(f.data)
		if was != nil && was.sum == f.sum && was.mode == f.mode {
			f.data = was.data // one copy for all snapshots
		}
		if after, err := os.Lstat(at); err == nil && statOf(after) == st {
			break
		}
	}
	return f, nil
}

func readAll(at string, room int64) ([]byte, error) {
	// A pipe that took the file's place must not block.
	f, err := os.OpenFile(at, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, room+1))
	if err == nil && int64(len(data)) > room {
		err = errTooLarge
	}
	return data, err
}

// fingerprint is cheap: it looks at what stat says only.
func fingerprint(dir string) uint64 {
	h := fnv.New64a()
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return 0
	}
	_ = filepath.WalkDir(root, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if d.Name() == ".git" && at != root {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if info, err := d.Info(); err == nil {
			fmt.Fprintf(h, "%q %v\n", at, statOf(info))
		}
		return nil
	})
	return h.Sum64()
}

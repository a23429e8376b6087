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
	"path/filepath"
	"slices"
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

// scan reads a directory. Files that are as they were in last are not read again.
func scan(ctx context.Context, dir string, last *contents, now time.Time) (*contents, error) {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, describe(err)
	}
	c := &contents{files: map[string]*file{}, dirs: map[string][]string{".": nil}, scanned: now}
	total := int64(0)
	err = filepath.WalkDir(root, func(at string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if at == root {
			if err == nil && !d.IsDir() {
				err = errors.New("is not a directory")
			}
			return err
		}
		rel, relErr := filepath.Rel(root, at)
		if relErr != nil {
			return relErr
		}
		name := filepath.ToSlash(rel)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // removed while the directory was being read
			}
			return err
		}
		if d.Name() == ".git" {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !fs.ValidPath(name) || strings.ContainsRune(name, '\\') {
			return nil
		}
		switch {
		case d.IsDir():
			c.dirs[name] = nil
			c.add(name)
			return nil
		case !d.Type().IsRegular() && d.Type() != fs.ModeSymlink:
			return nil // sockets, devices and pipes
		}
		f, err := readFile(at, last.file(name), last, MaxBytes-total)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		total += int64(len(f.data))
		if len(c.files) >= MaxFiles {
			return fmt.Errorf("there are more than %d files: give a smaller directory", MaxFiles)
		}
		if f.mode&fs.ModeSymlink != 0 {
			c.links++
		}
		c.files[name] = f
		c.add(name)
		return nil
	})
	if err != nil {
		return nil, describe(err)
	}
	for _, list := range c.dirs {
		slices.Sort(list)
	}
	c.revision = c.digest()
	return c, nil
}

func describe(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: check the path", fs.ErrNotExist)
	}
	return err
}

var errTooLarge = fmt.Errorf("the files have more than %d MiB together: give a smaller directory, or keep large files elsewhere", MaxBytes>>20)

// readFile reads one file, or takes it from before. A file that changes while it is read is read again.
func readFile(at string, was *file, last *contents, room int64) (*file, error) {
	var f *file
	for range 3 {
		info, err := os.Lstat(at)
		if err != nil {
			return nil, err
		}
		st := statOf(info)
		if was != nil && was.stat == st && st.settled(last.scanned) {
			if int64(len(was.data)) > room {
				return nil, errTooLarge
			}
			return was, nil
		}
		if info.Mode().IsRegular() && info.Size() > room {
			return nil, errTooLarge
		}
		f = &file{stat: st}
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

// digest is the revision: of every path its kind, mode and content, and nothing else.
func (c *contents) digest() sources.Revision {
	h := sha256.New()
	var walk func(dir string)
	walk = func(dir string) {
		for _, base := range c.dirs[dir] {
			name := join(dir, base)
			f := c.files[name]
			if f == nil {
				fmt.Fprintf(h, "d %q\n", name)
				walk(name)
				continue
			}
			fmt.Fprintf(h, "%o %q %x\n", uint32(f.mode), name, f.sum)
		}
	}
	walk(".")
	return sources.Revision(hex.EncodeToString(h.Sum(nil)))
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

package volumes

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// removePod removes the directory name in parent. What is mounted in it, which can be a directory
// of the host, is unmounted first and never entered.
func removePod(parent, name string) error {
	d, err := os.Open(parent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	err = removeTree(d, name)
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EBUSY) {
		if err := unmountBelow(filepath.Join(parent, name)); err != nil {
			return err
		}
		err = removeTree(d, name)
	}
	return err
}

// maxDepth bounds the descriptors that removing takes, however deep a pod made its directories.
const maxDepth = 128

// removeTree removes what name is in d, with everything below it. It fails with EXDEV or EBUSY at a
// mount point.
func removeTree(d *os.File, name string) error {
	err := unix.Unlinkat(int(d.Fd()), name, 0)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case !errors.Is(err, unix.EISDIR):
		return &fs.PathError{Op: "remove", Path: filepath.Join(d.Name(), name), Err: err}
	}
	top, err := openDirIn(d, name)
	if err != nil {
		return err
	}
	r := remover{top: top}
	err = r.empty(top, 0)
	top.Close()
	if err != nil {
		return err
	}
	return rmdir(d, name)
}

type remover struct {
	top   *os.File
	moved int
}

// empty removes everything in d, pass by pass, until nothing is left.
func (r *remover) empty(d *os.File, depth int) error {
	for {
		if _, err := d.Seek(0, io.SeekStart); err != nil {
			return err
		}
		names, err := d.Readdirnames(1024)
		if len(names) == 0 {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		}
		for _, name := range names {
			if err := r.remove(d, name, depth); err != nil {
				return err
			}
		}
	}
}

func (r *remover) remove(d *os.File, name string, depth int) error {
	err := unix.Unlinkat(int(d.Fd()), name, 0)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case !errors.Is(err, unix.EISDIR):
		return &fs.PathError{Op: "remove", Path: filepath.Join(d.Name(), name), Err: err}
	}
	if depth >= maxDepth {
		// It is dealt with in a later pass over the top.
		r.moved++
		err := unix.Renameat2(int(d.Fd()), name, int(r.top.Fd()), fmt.Sprintf("..deep-%d", r.moved), unix.RENAME_NOREPLACE)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return &fs.PathError{Op: "move", Path: filepath.Join(d.Name(), name), Err: err}
		}
		return nil
	}
	sub, err := openDirIn(d, name)
	if err != nil {
		return err
	}
	err = r.empty(sub, depth+1)
	sub.Close()
	if err != nil {
		return err
	}
	return rmdir(d, name)
}

func rmdir(d *os.File, name string) error {
	if err := unix.Unlinkat(int(d.Fd()), name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "remove", Path: filepath.Join(d.Name(), name), Err: err}
	}
	return nil
}

// unmountBelow takes away all mounts at and below dir, the last one first.
func unmountBelow(dir string) error {
	points, err := mountPoints()
	if err != nil {
		return err
	}
	for _, p := range slices.Backward(points) {
		if p == dir || strings.HasPrefix(p, dir+"/") {
			if err := unmount(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// mountPoints are all mount points of this mount namespace, in the order in which they were mounted.
func mountPoints() ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var points []string
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if fields := strings.Fields(s.Text()); len(fields) > 4 {
			points = append(points, unescape(fields[4]))
		}
	}
	return points, s.Err()
}

// unescape resolves the octal escapes of mountinfo.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

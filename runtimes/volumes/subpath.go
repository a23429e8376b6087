package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// checkSubPath holds Kubernetes' rule: relative and without "..".
func checkSubPath(p string) error {
	if path.IsAbs(p) || slices.Contains(strings.Split(p, "/"), "..") || strings.ContainsRune(p, 0) {
		return fmt.Errorf("the subPath %q must be relative and must not contain \"..\": %w", p, runtimes.ErrInvalid)
	}
	return nil
}

// openSubPath opens what is at a path below root, as if root were the root of everything: neither a
// symlink nor a race with the pod, which can change the volume at any time, leads out of it. With
// create, missing directories are made with the mode of the root.
//
// The descriptor is the only thing that is safe to use: the same path looked up again may lead elsewhere.
func openSubPath(root, sub string, create bool) (*os.File, error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: root, Err: err}
	}
	dir := os.NewFile(uintptr(fd), root)
	defer dir.Close()
	sub = path.Clean(sub)
	f, err := openInRoot(dir, sub)
	if err == nil || !create || !errors.Is(err, unix.ENOENT) {
		return f, err
	}
	info, err := dir.Stat()
	if err != nil {
		return nil, err
	}
	parts := strings.Split(sub, "/")
	parent, err := openInRoot(dir, ".")
	if err != nil {
		return nil, err
	}
	for i, part := range parts {
		next, err := openInRoot(dir, path.Join(parts[:i+1]...))
		if errors.Is(err, unix.ENOENT) {
			if err = mkdirIn(parent, part, info.Mode()); err == nil {
				next, err = openInRoot(dir, path.Join(parts[:i+1]...))
			}
		}
		parent.Close()
		if err != nil {
			return nil, err
		}
		parent = next
	}
	return parent, nil
}

// openInRoot opens a path as O_PATH, held within root by the kernel.
func openInRoot(root *os.File, name string) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	var err error
	for range 64 { // EAGAIN: something was renamed while the kernel looked
		var fd int
		if fd, err = unix.Openat2(int(root.Fd()), name, &how); err == nil {
			return os.NewFile(uintptr(fd), filepath.Join(root.Name(), name)), nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return nil, &fs.PathError{Op: "open", Path: filepath.Join(root.Name(), name), Err: err}
}

// mkdirIn makes a directory in a directory that is open, and nowhere else.
func mkdirIn(parent *os.File, name string, mode fs.FileMode) error {
	err := unix.Mkdirat(int(parent.Fd()), name, uint32(mode.Perm()))
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "mkdir", Path: filepath.Join(parent.Name(), name), Err: err}
	}
	d, err := openDirIn(parent, name)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Chmod(mode & (fs.ModePerm | fs.ModeSetgid)); err != nil { // mkdir heeds the umask
		return err
	}
	return nil
}

// openDirIn opens a directory directly below d: no symlink, and nothing that is mounted there.
func openDirIn(d *os.File, name string) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	var err error
	for range 64 {
		var fd int
		if fd, err = unix.Openat2(int(d.Fd()), name, &how); err == nil {
			return os.NewFile(uintptr(fd), filepath.Join(d.Name(), name)), nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return nil, &fs.PathError{Op: "open", Path: filepath.Join(d.Name(), name), Err: err}
}

// bind mounts what f is onto target, a path of ours, so that the engine is given a path that nobody
// else can change. What was mounted there before is taken away; containers that have it keep it.
func bind(f *os.File, target string) error {
	if err := unmount(target); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return err
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if info.IsDir() {
		err = os.Mkdir(target, 0o700)
	} else {
		err = os.WriteFile(target, nil, 0o600)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), target, "", unix.MS_BIND, ""); err != nil {
		return &fs.PathError{Op: "bind mount", Path: target, Err: err}
	}
	return nil
}

// unmount takes away everything that is mounted on a path; nothing there is not an error.
func unmount(target string) error {
	for {
		err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil // not a mount
		}
		if err != nil {
			return &fs.PathError{Op: "unmount", Path: target, Err: err}
		}
	}
}

package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// fileID tells files apart whatever path leads to them.
type fileID struct{ dev, ino uint64 }

func identify(name string) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return fileID{}, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return fileID{st.Dev, st.Ino}, nil
}

// hostPath checks a hostPath as its type demands, creates what is to be created, and returns the
// path without symlinks. A path in fairlead's own directories is refused, whatever links lead
// there. Its parents are not: whoever may mount / may do everything on the node, which is for
// policies to judge.
func (v *Volumes) hostPath(h *corev1.HostPathVolumeSource) (string, error) {
	if !filepath.IsAbs(h.Path) || strings.ContainsRune(h.Path, 0) {
		return "", fmt.Errorf("hostPath %q is not an absolute path: %w", h.Path, runtimes.ErrInvalid)
	}
	kind := corev1.HostPathUnset
	if h.Type != nil {
		kind = *h.Type
	}
	real, exists, err := resolve(filepath.Clean(h.Path))
	if err != nil {
		return "", fmt.Errorf("hostPath %s: %w", h.Path, err)
	}
	if err := v.checkProtected(real); err != nil {
		return "", fmt.Errorf("hostPath %s: %w", h.Path, err)
	}
	if !exists {
		if err := create(real, kind); err != nil {
			return "", fmt.Errorf("hostPath %s: %w", h.Path, err)
		}
	}
	info, err := os.Lstat(real)
	if err != nil {
		return "", fmt.Errorf("hostPath %s: %w", h.Path, err)
	}
	if want, ok := fits(info.Mode(), kind); !ok {
		return "", fmt.Errorf("hostPath %s is not %s, which its type %s demands: %w", h.Path, want, kind, runtimes.ErrInvalid)
	}
	return real, nil
}

// resolve follows all symlinks of a path of which the last elements may not exist.
func resolve(name string) (real string, exists bool, err error) {
	real, err = filepath.EvalSymlinks(name)
	if err == nil {
		return real, true, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", false, err
	}
	if _, err := os.Lstat(name); err == nil {
		return "", false, fmt.Errorf("it is a symlink to something that does not exist: %w", runtimes.ErrInvalid)
	}
	parent, _, err := resolve(filepath.Dir(name))
	if err != nil {
		return "", false, err
	}
	return filepath.Join(parent, filepath.Base(name)), false, nil
}

// checkProtected refuses a path at or below one of fairlead's own directories. It compares files,
// not names, so that a bind mount is no way around it.
func (v *Volumes) checkProtected(real string) error {
	for p := real; ; p = filepath.Dir(p) {
		id, err := identify(p)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil {
			for _, own := range v.protected {
				if id == own {
					return fmt.Errorf("it is in a directory that fairlead keeps for itself (%s): choose another path: %w", p, runtimes.ErrInvalid)
				}
			}
		}
		if p == "/" || p == "." {
			return nil
		}
	}
}

// create makes what is missing. Without a type a directory is made, as container engines do.
func create(name string, kind corev1.HostPathType) error {
	switch kind {
	case corev1.HostPathUnset, corev1.HostPathDirectoryOrCreate:
		return os.MkdirAll(name, 0o755)
	case corev1.HostPathFileOrCreate:
		f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the directory %s does not exist, and type FileOrCreate does not create it: %w", filepath.Dir(name), runtimes.ErrInvalid)
		}
		if err != nil {
			return err
		}
		return f.Close()
	}
	return fmt.Errorf("it does not exist, and type %s does not create it: %w", kind, runtimes.ErrInvalid)
}

func fits(mode fs.FileMode, kind corev1.HostPathType) (want string, ok bool) {
	switch kind {
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		return "a directory", mode.IsDir()
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		return "a file", mode.IsRegular()
	case corev1.HostPathSocket:
		return "a socket", mode.Type() == fs.ModeSocket
	case corev1.HostPathCharDev:
		return "a character device", mode.Type() == fs.ModeDevice|fs.ModeCharDevice
	case corev1.HostPathBlockDev:
		return "a block device", mode.Type() == fs.ModeDevice
	case corev1.HostPathUnset:
		return "", true
	}
	return "of a known type", false
}

package volumes

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/fairlead-dev/fairlead/plan"
)

// What a pod's fsGroup may do: read content that fairlead writes, read and write an emptyDir.
const (
	readOnlyBits  fs.FileMode = 0o440
	readWriteBits fs.FileMode = 0o660
	enterBits     fs.FileMode = 0o110
)

// fsGroup returns the group that owns the pod's volumes; nil for root's. fsGroupChangePolicy makes no
// difference here: every volume that has an owner is made for its pod, with the right one.
func fsGroup(pod *plan.Pod) *int64 {
	if sc := pod.Spec.SecurityContext; sc != nil {
		return sc.FSGroup
	}
	return nil
}

// owned returns the mode and group of something that belongs to group; -1 leaves the group alone.
func owned(mode fs.FileMode, group *int64, bits fs.FileMode, dir bool) (fs.FileMode, int) {
	if group == nil {
		return mode, -1
	}
	mode |= bits
	if dir {
		mode |= enterBits | fs.ModeSetgid
	}
	return mode, int(*group)
}

func own(name string, mode fs.FileMode, group *int64, bits fs.FileMode, dir bool) error {
	mode, gid := owned(mode, group, bits, dir)
	if gid >= 0 {
		if err := os.Lchown(name, -1, gid); err != nil {
			return err
		}
	}
	return os.Chmod(name, mode) // after chown, which takes setgid away
}

// makeDir makes a directory with that owner, and its parents for root only. One that exists with
// the right group is left as it is.
func makeDir(dir string, mode fs.FileMode, group *int64, bits fs.FileMode) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(dir), 0o700); err == nil {
			err = os.Mkdir(dir, 0o700)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		info, err := os.Lstat(dir)
		if err != nil {
			return err
		}
		// 0700 without a group is a directory whose making was interrupted.
		if info.Mode().Perm() != 0o700 && (group == nil || groupOf(info) == int(*group)) {
			return nil
		}
	} else if err != nil {
		return err
	}
	return own(dir, mode, group, bits, true)
}

func groupOf(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Gid)
	}
	return -1
}

package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// prepareEmptyDir makes a directory that everybody in the pod may write to; with medium Memory it
// is a file system in memory, no larger than its sizeLimit.
func (v *Volumes) prepareEmptyDir(pod *plan.Pod, uid string, vol *corev1.Volume) error {
	if err := checkName(vol.Name); err != nil {
		return err
	}
	dir, _ := v.volumeDir(uid, vol)
	switch vol.EmptyDir.Medium {
	case corev1.StorageMediumDefault:
		return makeDir(dir, 0o777, fsGroup(pod), readWriteBits)
	case corev1.StorageMediumMemory:
		if err := makeDir(dir, 0o777, nil, 0); err != nil {
			return err
		}
		mounted, err := isMountPoint(dir)
		if err != nil || mounted {
			return err
		}
		data := "mode=0777"
		if size := memorySize(pod, vol.EmptyDir); size > 0 {
			data += fmt.Sprintf(",size=%d", size)
		}
		if err := mountTmpfs(dir, data); err != nil {
			return fmt.Errorf("mount a tmpfs: %w", err)
		}
		return own(dir, 0o777, fsGroup(pod), readWriteBits, true)
	}
	return fmt.Errorf("emptyDir.medium %q is not supported: use \"\" or Memory: %w", vol.EmptyDir.Medium, runtimes.ErrInvalid)
}

// memorySize is the sizeLimit, but never more than all containers of the pod may use together; 0
// when neither says anything.
func memorySize(pod *plan.Pod, e *corev1.EmptyDirVolumeSource) int64 {
	var size int64
	if e.SizeLimit != nil {
		size = e.SizeLimit.Value()
	}
	var all int64
	for _, c := range pod.Spec.Containers {
		limit, ok := c.Resources.Limits[corev1.ResourceMemory]
		if !ok || limit.IsZero() {
			return size
		}
		all += limit.Value()
	}
	if all > 0 && (size == 0 || all < size) {
		size = all
	}
	return size
}

// isMountPoint reports whether another file system is mounted on dir.
func isMountPoint(dir string) (bool, error) {
	var here, above unix.Stat_t
	if err := unix.Lstat(dir, &here); err != nil {
		return false, fmt.Errorf("stat %s: %w", dir, err)
	}
	if err := unix.Lstat(filepath.Dir(dir), &above); err != nil {
		return false, fmt.Errorf("stat %s: %w", filepath.Dir(dir), err)
	}
	return here.Dev != above.Dev, nil
}

// Usage returns the bytes that each emptyDir of the pod takes, by volume name; the caller compares
// them with sizeLimit. Files with several names count once; what the pod deletes meanwhile does not count.
func (v *Volumes) Usage(ctx context.Context, pod *plan.Pod, uid string) (map[string]int64, error) {
	if err := checkName(uid); err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for i := range pod.Spec.Volumes {
		vol := &pod.Spec.Volumes[i]
		if vol.EmptyDir == nil {
			continue
		}
		dir, _ := v.volumeDir(uid, vol)
		var (
			n   int64
			err error
		)
		if vol.EmptyDir.Medium == corev1.StorageMediumMemory {
			n, err = tmpfsUsage(dir)
		} else {
			n, err = diskUsage(ctx, dir)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("pod %s: volume %s: measure its size: %w", pod.PodKey, vol.Name, err)
		}
		out[vol.Name] = n
	}
	return out, nil
}

func tmpfsUsage(dir string) (int64, error) {
	if ok, err := isMountPoint(dir); err != nil || !ok {
		return 0, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize, nil
}

func diskUsage(ctx context.Context, dir string) (int64, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, err
	}
	d := os.NewFile(uintptr(fd), dir)
	defer d.Close()
	return treeUsage(ctx, d, map[fileID]bool{})
}

// treeUsage never leaves the tree: the pod may swap a directory for a symlink at any time.
func treeUsage(ctx context.Context, d *os.File, counted map[fileID]bool) (int64, error) {
	var total int64
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		names, err := d.Readdirnames(512)
		for _, name := range names {
			n, err := entryUsage(ctx, d, name, counted)
			if err != nil {
				return 0, err
			}
			total += n
		}
		if err != nil || len(names) == 0 {
			return total, nil // at the end, or the directory was removed
		}
	}
}

func entryUsage(ctx context.Context, d *os.File, name string, counted map[fileID]bool) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return 0, nil // it is gone
	}
	n := st.Blocks * 512
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if id := (fileID{st.Dev, st.Ino}); st.Nlink > 1 {
			if counted[id] {
				return 0, nil
			}
			counted[id] = true
		}
		return n, nil
	}
	sub, err := openDirIn(d, name)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return 0, err
	}
	if err != nil {
		return 0, nil // it is gone, or something else by now
	}
	defer sub.Close()
	below, err := treeUsage(ctx, sub, counted)
	return n + below, err
}

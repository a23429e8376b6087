package volumes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// What claims hold is below claims/NAMESPACE/NAME of the persistent directory. It is nobody's but the claim's: neither Strays
// nor Destroy touches it.

const (
	claimsDir = "claims"
	// claimsGone is where directories are that are being removed.
	claimsGone = ".removing"
)

// claimPath is where a claim's directory is.
func (v *Volumes) claimPath(dir string) (string, error) {
	namespace, name, ok := strings.Cut(dir, "/")
	if err := errors.Join(checkName(namespace), checkName(name)); err != nil || !ok {
		return "", fmt.Errorf("directory %q of a claim: %w", dir, runtimes.ErrInvalid)
	}
	return filepath.Join(v.disk, claimsDir, namespace, name), nil
}

// MakeClaim makes the directory of a claim, which everybody in its pods may write to. One that is there stays as it is.
func (v *Volumes) MakeClaim(_ context.Context, dir string) error {
	at, err := v.claimPath(dir)
	if err != nil {
		return err
	}
	return classify(makeDir(at, 0o777, nil, 0))
}

// RemoveClaim removes the directory of a claim with all that it holds; a missing one is not an error. It is moved away
// first, so that what is left when that is interrupted is never taken for the volume.
func (v *Volumes) RemoveClaim(ctx context.Context, dir string) error {
	at, err := v.claimPath(dir)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	gone := filepath.Join(v.disk, claimsDir, claimsGone)
	name := strings.ReplaceAll(dir, "/", "_")
	if err := removePod(gone, name); err != nil {
		return err
	}
	if err := os.MkdirAll(gone, 0o700); err != nil {
		return err
	}
	if err := os.Rename(at, filepath.Join(gone, name)); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	_ = os.Remove(filepath.Dir(at)) // the namespace's, when it is empty
	return removePod(gone, name)
}

// hasClaims reports whether anything of claims is left.
func (v *Volumes) hasClaims() (bool, error) {
	entries, err := os.ReadDir(filepath.Join(v.disk, claimsDir))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	for _, e := range entries {
		if e.Name() != claimsGone {
			return true, err
		}
	}
	return false, err
}

// claim finds what a claim of the pod is bound to.
func claim(pod *plan.Pod, vol *corev1.Volume) (plan.Source, error) {
	src, ok := pod.Claims[vol.PersistentVolumeClaim.ClaimName]
	if !ok {
		return src, fmt.Errorf("persistentvolumeclaim %q is not bound: %w", vol.PersistentVolumeClaim.ClaimName, runtimes.ErrMissing)
	}
	return src, nil
}

// claimSource is where a volume is on the host: a path, or the name of a volume of the engine.
func (v *Volumes) claimSource(src plan.Source) (dir, engineVolume string, err error) {
	switch {
	case src.Directory != "":
		dir, err = v.claimPath(src.Directory)
		if err == nil {
			if _, err = os.Stat(dir); err != nil {
				// It is never made anew: an empty directory in the place of the data would be taken for it.
				err = fmt.Errorf("what the claim holds is not there (%w): restore it from a backup, or make the directory to begin anew", err)
			}
		}
		return dir, "", err
	case src.Path != "":
		dir, err = v.hostPath(&corev1.HostPathVolumeSource{Path: src.Path, Type: &src.PathType})
		return dir, "", err
	case src.Volume != nil:
		return "", src.Volume.Name, nil
	}
	return "", "", fmt.Errorf("its PersistentVolume is of no known kind: %w", runtimes.ErrInvalid)
}

func (v *Volumes) prepareClaim(ctx context.Context, pod *plan.Pod, vol *corev1.Volume) error {
	src, err := claim(pod, vol)
	if err != nil {
		return err
	}
	dir, _, err := v.claimSource(src)
	if err != nil || src.Directory == "" || vol.PersistentVolumeClaim.ReadOnly {
		return err
	}
	return giveToGroup(ctx, dir, pod)
}

// giveToGroup gives everything in a claim's directory to the pod's fsGroup, as its fsGroupChangePolicy says.
func giveToGroup(ctx context.Context, dir string, pod *plan.Pod) error {
	group := fsGroup(pod)
	if group == nil {
		return nil
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	mode, gid := owned(info.Mode(), group, readWriteBits, true)
	if p := pod.Spec.SecurityContext.FSGroupChangePolicy; p != nil && *p == corev1.FSGroupChangeOnRootMismatch && groupOf(info) == gid && info.Mode()&mode == mode {
		return nil
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	d := os.NewFile(uintptr(fd), dir)
	defer d.Close()
	if err := giveTree(ctx, d, group); err != nil {
		return err
	}
	return giveOne(d, group, true) // last: then all below is done
}

// giveTree never leaves the tree: pods may swap a directory for a symlink at any time.
func giveTree(ctx context.Context, d *os.File, group *int64) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		names, err := d.Readdirnames(512)
		for _, name := range names {
			if err := giveEntry(ctx, d, name, group); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		if errors.Is(err, io.EOF) || len(names) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func giveEntry(ctx context.Context, d *os.File, name string, group *int64) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		sub, err := openDirIn(d, name)
		if err != nil {
			return err
		}
		defer sub.Close()
		if err := giveTree(ctx, sub, group); err != nil {
			return err
		}
		return giveOne(sub, group, true)
	case unix.S_IFREG:
		fd, err := unix.Openat(int(d.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), path.Join(d.Name(), name))
		defer f.Close()
		return giveOne(f, group, false)
	}
	return unix.Fchownat(int(d.Fd()), name, -1, int(*group), unix.AT_SYMLINK_NOFOLLOW)
}

func giveOne(f *os.File, group *int64, dir bool) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	mode, gid := owned(info.Mode(), group, readWriteBits, dir)
	if groupOf(info) != gid {
		if err := f.Chown(-1, gid); err != nil {
			return err
		}
	} else if info.Mode()&mode == mode {
		return nil
	}
	return f.Chmod(mode) // after chown, which takes setgid away
}

// Package volumes makes what pods mount: directories for emptyDir and for claims, checked paths of the host, and
// the content of ConfigMaps, Secrets and the downward API, which it updates atomically while pods run.
//
// Everything is below two directories of fairlead's own: a persistent one and one in memory for
// secrets. Both are only for root, and no pod gets at them through a hostPath. The engine has to
// see the mounts that are made there, so fairlead and the engine share a mount namespace.
package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// Options say where volumes are kept.
type Options struct {
	// Dir is for what outlives a restart of the machine. It is created with mode 0700.
	Dir string
	// TmpfsDir is for secrets, for example /run/fairlead. When it is not in memory, a tmpfs is mounted there.
	TmpfsDir string
	// Protected are further directories that no hostPath may show, for example that of the keys.
	Protected []string
}

// Facts answer the downward API.
type Facts interface {
	// VolumeField answers a fieldRef, for example "metadata.labels".
	VolumeField(pod *plan.Pod, path string) (string, error)
	// VolumeResource answers a resourceFieldRef.
	VolumeResource(pod *plan.Pod, ref *corev1.ResourceFieldSelector) (string, error)
}

// Volumes holds the volumes of the pods of one node. Calls for different pods may run at the same
// time, calls for one pod must not.
type Volumes struct {
	disk, memory string
	protected    []fileID
}

// New makes the directories.
func New(o Options) (*Volumes, error) {
	disk, err := privateDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("directory for volumes: %w", err)
	}
	memory, err := privateDir(o.TmpfsDir)
	if err != nil {
		return nil, fmt.Errorf("directory for secrets: %w", err)
	}
	if err := ensureTmpfs(memory); err != nil {
		return nil, fmt.Errorf("directory for secrets: %w", err)
	}
	v := &Volumes{disk: disk, memory: memory}
	for _, dir := range append([]string{disk, memory}, o.Protected...) {
		id, err := identify(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("protect %s: %w", dir, err)
		}
		v.protected = append(v.protected, id)
	}
	return v, nil
}

// View looks at the volumes that are there and makes none: only Mounted and Usage may be called.
func View(o Options) *Volumes { return &Volumes{disk: o.Dir, memory: o.TmpfsDir} }

// Destroy removes everything, the two directories too, when no pod is left: with volumes of a pod in
// them it is an error, and they stay. What claims hold stays in any case, and then the first directory does.
func (v *Volumes) Destroy() error {
	for _, root := range []string{v.disk, v.memory} {
		entries, err := os.ReadDir(filepath.Join(root, "pods"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the directory for volumes: %w", err)
		}
		if len(entries) > 0 {
			return fmt.Errorf("remove the directory for volumes: %s still holds those of %d pods", root, len(entries))
		}
	}
	claims, err := v.hasClaims()
	if err != nil {
		return fmt.Errorf("remove the directory for volumes: %w", err)
	}
	for _, root := range []string{v.disk, v.memory} {
		if claims && root == v.disk {
			root = filepath.Join(root, "pods")
		}
		if mounted, err := isMountPoint(root); err == nil && mounted {
			if err := unix.Unmount(root, 0); err != nil {
				return fmt.Errorf("unmount %s: %w", root, err)
			}
		}
		if err := os.RemoveAll(root); err != nil {
			return fmt.Errorf("remove the directory for volumes: %w", err)
		}
	}
	return nil
}

// privateDir makes a directory for root only and returns its path without symlinks.
func privateDir(dir string) (string, error) {
	if !filepath.IsAbs(dir) {
		return "", fmt.Errorf("%q is not an absolute path", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

func ensureTmpfs(dir string) error {
	if ok, err := inMemory(dir); err != nil || ok {
		return err
	}
	if err := mountTmpfs(dir, "mode=0700"); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
	}
	return nil
}

func inMemory(dir string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return false, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC, nil
}

// mountTmpfs keeps the content out of swap where the kernel can (6.4 and later).
func mountTmpfs(dir, data string) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	err := unix.Mount("tmpfs", dir, "tmpfs", flags, data+",noswap")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("tmpfs", dir, "tmpfs", flags, data)
	}
	return err
}

// Prepare makes all volumes of the pod. It may be called again: what is there stays, and content is
// brought up to date. All findings are joined into one error; a ConfigMap, Secret or key that is
// missing and not optional is runtimes.ErrMissing, and the caller tries again later.
func (v *Volumes) Prepare(ctx context.Context, pod *plan.Pod, uid string, facts Facts) error {
	if err := checkName(uid); err != nil {
		return fmt.Errorf("prepare volumes of pod %s: %w", pod.PodKey, err)
	}
	var errs []error
	for i := range pod.Spec.Volumes {
		if err := ctx.Err(); err != nil {
			return err
		}
		vol := &pod.Spec.Volumes[i]
		if err := v.prepare(ctx, pod, uid, vol, facts); err != nil {
			errs = append(errs, fmt.Errorf("pod %s: volume %s: %w", pod.PodKey, vol.Name, classify(err)))
		}
	}
	return errors.Join(errs...)
}

func (v *Volumes) prepare(ctx context.Context, pod *plan.Pod, uid string, vol *corev1.Volume, facts Facts) error {
	switch {
	case vol.EmptyDir != nil:
		return v.prepareEmptyDir(pod, uid, vol)
	case vol.HostPath != nil:
		_, err := v.hostPath(vol.HostPath)
		return err
	case vol.PersistentVolumeClaim != nil:
		return v.prepareClaim(ctx, pod, vol)
	case hasContent(vol):
		_, err := v.writeContent(pod, uid, vol, facts)
		return err
	}
	return fmt.Errorf("its kind is not supported: use emptyDir, hostPath, persistentVolumeClaim, configMap, secret, downwardAPI or projected: %w", runtimes.ErrInvalid)
}

// Update brings the content of the pod's ConfigMap, Secret, projected and downward API volumes up to
// date and returns the names of the volumes that changed. Readers see either all of the old or all
// of the new content of a volume. A volume that cannot be made keeps its content.
func (v *Volumes) Update(ctx context.Context, pod *plan.Pod, uid string, facts Facts) (changed []string, err error) {
	if err := checkName(uid); err != nil {
		return nil, fmt.Errorf("update volumes of pod %s: %w", pod.PodKey, err)
	}
	var errs []error
	for i := range pod.Spec.Volumes {
		if err := ctx.Err(); err != nil {
			return changed, err
		}
		vol := &pod.Spec.Volumes[i]
		if !hasContent(vol) {
			continue
		}
		did, err := v.writeContent(pod, uid, vol, facts)
		if err != nil {
			errs = append(errs, fmt.Errorf("pod %s: volume %s: %w", pod.PodKey, vol.Name, classify(err)))
		}
		if did {
			changed = append(changed, vol.Name)
		}
	}
	return changed, errors.Join(errs...)
}

// Remove removes everything that was made for the pod; a missing pod is not an error. Containers of
// the pod should be gone.
func (v *Volumes) Remove(ctx context.Context, uid string) error {
	if err := checkName(uid); err != nil {
		return fmt.Errorf("remove volumes of pod %s: %w", uid, err)
	}
	var errs []error
	for _, root := range []string{v.disk, v.memory} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := removePod(filepath.Join(root, "pods"), uid); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove volumes of pod %s: %w", uid, classify(err))
	}
	return nil
}

// Strays removes everything of pods that are not in keep and returns their UIDs.
func (v *Volumes) Strays(ctx context.Context, keep []string) (removed []string, err error) {
	wanted := make(map[string]bool, len(keep))
	for _, uid := range keep {
		wanted[uid] = true
	}
	seen := map[string]bool{}
	var errs []error
	for _, root := range []string{v.disk, v.memory} {
		entries, err := os.ReadDir(filepath.Join(root, "pods"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("list volumes: %w", err))
		}
		for _, e := range entries {
			uid := e.Name()
			if wanted[uid] || seen[uid] {
				continue
			}
			seen[uid] = true
			if err := v.Remove(ctx, uid); err != nil {
				errs = append(errs, err)
				continue
			}
			removed = append(removed, uid)
		}
	}
	return removed, errors.Join(errs...)
}

// podDir is where things of the pod are kept that outlive a restart of the machine.
func (v *Volumes) podDir(uid string) string { return filepath.Join(v.disk, "pods", uid) }

// volumeDir is the directory of a volume that is made by us, and contentRecord the file beside it
// that says what was written there.
func (v *Volumes) volumeDir(uid string, vol *corev1.Volume) (dir, contentRecord string) {
	root := v.disk
	if isSecret(vol) {
		root = v.memory
	}
	pod := filepath.Join(root, "pods", uid)
	return filepath.Join(pod, "volumes", vol.Name), filepath.Join(pod, "written", vol.Name+".json")
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$`)

// checkName makes sure that a name stays within its directory.
func checkName(s string) error {
	if !plainName.MatchString(s) {
		return fmt.Errorf("%q cannot be part of a path: %w", s, runtimes.ErrInvalid)
	}
	return nil
}

// classify adds the class that callers act on.
func classify(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", err, runtimes.ErrDiskFull)
	}
	return err
}

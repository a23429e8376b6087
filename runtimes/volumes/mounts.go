package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// Mounts returns what a container of the pod mounts, in the order in which it is written. Prepare
// must have succeeded. expand resolves a subPathExpr with the container's environment; it may be nil
// when there is none. A subPath is looked up now, so Mounts is called before every start of the container.
func (v *Volumes) Mounts(ctx context.Context, pod *plan.Pod, uid string, c *corev1.Container, expand func(expr string) (string, error)) ([]runtimes.Mount, error) {
	if err := errors.Join(checkName(uid), checkName(c.Name)); err != nil {
		return nil, fmt.Errorf("mounts of container %s of pod %s: %w", c.Name, pod.PodKey, err)
	}
	out := make([]runtimes.Mount, 0, len(c.VolumeMounts))
	for i := range c.VolumeMounts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		vm := &c.VolumeMounts[i]
		m, err := v.mount(pod, uid, c, i, expand)
		if err != nil {
			return nil, fmt.Errorf("pod %s: container %s: mount of volume %s at %s: %w", pod.PodKey, c.Name, vm.Name, vm.MountPath, classify(err))
		}
		out = append(out, m)
	}
	return out, nil
}

func (v *Volumes) mount(pod *plan.Pod, uid string, c *corev1.Container, i int, expand func(string) (string, error)) (runtimes.Mount, error) {
	vm := &c.VolumeMounts[i]
	at := slices.IndexFunc(pod.Spec.Volumes, func(vol corev1.Volume) bool { return vol.Name == vm.Name })
	if at < 0 {
		return runtimes.Mount{}, fmt.Errorf("the pod has no such volume: %w", runtimes.ErrInvalid)
	}
	vol := &pod.Spec.Volumes[at]
	source, engineVolume, readOnly := "", "", vm.ReadOnly || hasContent(vol)
	var err error
	if vol.PersistentVolumeClaim != nil {
		var src plan.Source
		if src, err = claim(pod, vol); err == nil {
			source, engineVolume, err = v.claimSource(src)
		}
		readOnly = readOnly || src.ReadOnly || vol.PersistentVolumeClaim.ReadOnly
	} else {
		source, err = v.source(uid, vol)
	}
	if err != nil {
		return runtimes.Mount{}, err
	}
	sub := vm.SubPath
	if vm.SubPathExpr != "" {
		if expand == nil {
			return runtimes.Mount{}, fmt.Errorf("subPathExpr %q cannot be expanded here: %w", vm.SubPathExpr, runtimes.ErrInvalid)
		}
		if sub, err = expand(vm.SubPathExpr); err != nil {
			return runtimes.Mount{}, err
		}
	}
	if engineVolume != "" && sub != "" {
		return runtimes.Mount{}, fmt.Errorf("subPath %q: a volume of the Docker engine is mounted as a whole: mount it without subPath, or use a directory (StorageClass %s): %w",
			sub, plan.DefaultClass, runtimes.ErrInvalid)
	}
	if sub != "" {
		if source, err = v.bindSubPath(uid, vol, source, sub, c.Name, i); err != nil {
			return runtimes.Mount{}, err
		}
	}
	m := runtimes.Mount{
		Source:   source,
		Volume:   engineVolume,
		Target:   filepath.Join("/", vm.MountPath),
		ReadOnly: readOnly,
	}
	if p := vm.MountPropagation; p != nil {
		switch *p {
		case corev1.MountPropagationHostToContainer:
			m.Propagation = "rslave"
		case corev1.MountPropagationBidirectional:
			m.Propagation = "rshared"
		case corev1.MountPropagationNone:
		}
	}
	return m, nil
}

// source is where a volume is on the host.
func (v *Volumes) source(uid string, vol *corev1.Volume) (string, error) {
	if vol.HostPath != nil {
		return v.hostPath(vol.HostPath)
	}
	dir, _ := v.volumeDir(uid, vol)
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("the volume was not prepared: %w", err)
	}
	return dir, nil
}

// bindSubPath finds a subPath and returns a path of ours where it is mounted.
func (v *Volumes) bindSubPath(uid string, vol *corev1.Volume, root, sub, container string, index int) (string, error) {
	if err := checkSubPath(sub); err != nil {
		return "", err
	}
	target := filepath.Join(v.podDir(uid), "subpaths", container, strconv.Itoa(index))
	f, err := openSubPath(root, sub, !hasContent(vol))
	switch {
	case errors.Is(err, unix.ENOENT) && hasContent(vol) && optional(vol):
		// Nothing is there, and that is allowed: an empty directory stands for it.
		if err := unmount(target); err != nil {
			return "", err
		}
		return target, os.MkdirAll(target, 0o755)
	case errors.Is(err, unix.ENOENT) && hasContent(vol):
		return "", fmt.Errorf("the volume has nothing at subPath %q: %w", sub, runtimes.ErrMissing)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return "", fmt.Errorf("subPath %q: %w: %w", sub, err, runtimes.ErrInvalid)
	case err != nil:
		return "", fmt.Errorf("subPath %q: %w", sub, err)
	}
	defer f.Close()
	if vol.HostPath != nil || vol.PersistentVolumeClaim != nil && !strings.HasPrefix(root, filepath.Join(v.disk, claimsDir)+"/") {
		real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
		if err != nil {
			return "", fmt.Errorf("subPath %q: %w", sub, err)
		}
		if err := v.checkProtected(real); err != nil {
			return "", fmt.Errorf("subPath %q: %w", sub, err)
		}
	}
	if err := bind(f, target); err != nil {
		return "", fmt.Errorf("subPath %q: %w", sub, err)
	}
	return target, nil
}

// optional reports whether some of the volume's content may be missing.
func optional(vol *corev1.Volume) bool {
	yes := func(b *bool) bool { return b != nil && *b }
	switch {
	case vol.ConfigMap != nil:
		return yes(vol.ConfigMap.Optional)
	case vol.Secret != nil:
		return yes(vol.Secret.Optional)
	case vol.Projected != nil:
		return slices.ContainsFunc(vol.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.ConfigMap != nil && yes(s.ConfigMap.Optional) || s.Secret != nil && yes(s.Secret.Optional)
		})
	}
	return false
}

package executor

import (
	"context"
	"errors"
	"fmt"
	"path"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/environment"
)

// containerSpec is what an attempt of a pod's container is created from. It writes the files that the
// container mounts, so it is called right before the container is created, and for one container of a
// pod at a time.
func (n *Node) containerSpec(ctx context.Context, pod *plan.Pod, uid string, c *corev1.Container, attempt int, img runtimes.Image, sandboxID, ip string) (runtimes.ContainerSpec, error) {
	fail := func(err error) (runtimes.ContainerSpec, error) { return runtimes.ContainerSpec{}, err }
	if err := errors.Join(refusedInPod(pod), refusedInContainer(pod, c)); err != nil {
		return fail(err)
	}
	id, err := identity(pod, uid, c.Name, attempt)
	if err != nil {
		return fail(err)
	}
	env, err := environment.Build(pod, c, n.facts(pod, uid, ip))
	if err != nil {
		return fail(fmt.Errorf("pod %s: %w", pod.PodKey, err))
	}
	out := runtimes.ContainerSpec{
		Identity:   id,
		Image:      img.ID,
		Command:    environment.Expand(c.Command, env),
		Args:       environment.Expand(c.Args, env),
		WorkingDir: c.WorkingDir,
		Env:        env,
		Stdin:      c.Stdin,
		StdinOnce:  c.StdinOnce,
		TTY:        c.TTY,
		SandboxID:  sandboxID,
		PIDMode:    pidMode(pod.Spec),
		HostIPC:    pod.Spec.HostIPC,
		Resources:  plan.ResourcesOf(c),
	}
	if len(c.Command) == 0 && len(c.Args) == 0 && len(img.Entrypoint) == 0 && len(img.Cmd) == 0 {
		return fail(fmt.Errorf("pod %s: container %s: no command specified, and the image %s has none: %w", pod.PodKey, c.Name, c.Image, runtimes.ErrInvalid))
	}
	if l := c.Lifecycle; l != nil && l.StopSignal != nil {
		out.StopSignal = string(*l.StopSignal)
	}
	n.mu.Lock()
	memory := n.info.MemoryBytes
	n.mu.Unlock()
	out.OOMScoreAdj = oomScoreAdj(pod.Spec, c, memory)
	if err := n.secure(&out, pod, c, img); err != nil {
		return fail(fmt.Errorf("pod %s: container %s: %w", pod.PodKey, c.Name, err))
	}
	out.Mounts, err = n.mounts(ctx, pod, uid, c, attempt, ip, env)
	if err != nil {
		return fail(err)
	}
	return out, nil
}

// pidMode says whose processes a container of the pod sees.
func pidMode(spec *corev1.PodSpec) string {
	switch {
	case spec.HostPID:
		return "host"
	case spec.ShareProcessNamespace != nil && *spec.ShareProcessNamespace:
		return "sandbox"
	}
	return ""
}

// mounts are the container's volumes, then the pod's files and the termination log. What the container
// mounts itself takes the place of such a file.
func (n *Node) mounts(ctx context.Context, pod *plan.Pod, uid string, c *corev1.Container, attempt int, ip string, env []string) ([]runtimes.Mount, error) {
	expand := func(expr string) (string, error) { return environment.ExpandPath(expr, env) }
	out, err := n.opt.Volumes.Mounts(ctx, pod, uid, c, expand)
	if err != nil {
		return nil, err
	}
	taken := map[string]bool{}
	for _, m := range out {
		taken[path.Clean(m.Target)] = true
	}
	files, _, err := n.podFiles(pod, uid, ip)
	if err != nil {
		return nil, err
	}
	readOnly := c.SecurityContext != nil && c.SecurityContext.ReadOnlyRootFilesystem != nil && *c.SecurityContext.ReadOnlyRootFilesystem
	for _, f := range files {
		if !taken[f.Target] {
			f.ReadOnly = readOnly
			out = append(out, f)
		}
	}
	if target := c.TerminationMessagePath; target != "" && !taken[path.Clean(target)] {
		log, err := n.opt.Volumes.TerminationLog(uid, c.Name, attempt)
		if err != nil {
			return nil, err
		}
		out = append(out, runtimes.Mount{Source: log, Target: path.Join("/", target)})
	}
	return out, nil
}

// refusedInContainer returns what the container asks for and cannot have.
func refusedInContainer(pod *plan.Pod, c *corev1.Container) error {
	var errs []error
	refuse := func(set bool, field, why string) {
		if set {
			errs = append(errs, fmt.Errorf("pod %s: container %s: %s is not supported: %s: %w", pod.PodKey, c.Name, field, why, runtimes.ErrInvalid))
		}
	}
	refuse(len(c.VolumeDevices) > 0, "volumeDevices", "there are no block volumes")
	refuse(len(c.Resources.Claims) > 0, "resources.claims", "there are no dynamic resources")
	for _, m := range c.VolumeMounts {
		refuse(m.RecursiveReadOnly != nil && *m.RecursiveReadOnly == corev1.RecursiveReadOnlyEnabled,
			"recursiveReadOnly: Enabled of the mount at "+m.MountPath, "the engine can make only the mount itself read-only, use IfPossible")
	}
	if sc := c.SecurityContext; sc != nil {
		refuse(sc.SELinuxOptions != nil && *sc.SELinuxOptions != corev1.SELinuxOptions{}, "securityContext.seLinuxOptions", "SELinux labels are not set")
		refuse(sc.WindowsOptions != nil && *sc.WindowsOptions != corev1.WindowsSecurityContextOptions{}, "securityContext.windowsOptions", "only Linux containers run")
	}
	return errors.Join(errs...)
}

package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/networking"
)

// sandboxOOMScoreAdj is Kubernetes': nothing of a pod works without its sandbox, which takes hardly any memory.
const sandboxOOMScoreAdj = -998

// sandboxSpec is what a pod's sandbox is created from. It makes the sandbox's image present.
func (n *Node) sandboxSpec(ctx context.Context, pod *plan.Pod, uid string, attempt int, ip string) (runtimes.ContainerSpec, error) {
	spec := pod.Spec
	if err := refusedInPod(pod); err != nil {
		return runtimes.ContainerSpec{}, err
	}
	sysctls, err := sysctls(pod)
	if err != nil {
		return runtimes.ContainerSpec{}, err
	}
	record, err := encodeRecord(pod)
	if err != nil {
		return runtimes.ContainerSpec{}, err
	}
	id, err := identity(pod, uid, runtimes.SandboxContainer, attempt)
	if err != nil {
		return runtimes.ContainerSpec{}, err
	}
	id.Spec = record
	out := runtimes.ContainerSpec{
		Identity:        id,
		Sysctls:         sysctls,
		HostIPC:         spec.HostIPC,
		CapDrop:         []string{"ALL"},
		NoNewPrivileges: true,
		ReadOnlyRoot:    true,
		OOMScoreAdj:     sandboxOOMScoreAdj,
		Resources:       plan.Resources{CPUShares: minShares},
	}
	switch ports := hostPorts(spec); {
	case spec.HostNetwork:
		out.HostNetwork = true
	case len(ports) > 0:
		if n.opt.Network == nil {
			return runtimes.ContainerSpec{}, fmt.Errorf("pod %s: hostPort %d cannot be published, because this node has no pod network: %w",
				pod.PodKey, ports[0].HostPort, runtimes.ErrInvalid)
		}
		out.Network, out.Ports = n.opt.Network.Name(), ports
	default:
		out.NoNetwork = true
	}
	if !spec.HostNetwork {
		if out.Hostname, err = networking.KernelHostname(pod, n.opt.DNS.ClusterDomain); err != nil {
			return runtimes.ContainerSpec{}, fmt.Errorf("%w: %w", err, runtimes.ErrInvalid)
		}
		out.IP = ip
	}
	if spec.HostPID {
		out.PIDMode = "host"
	}
	if out.Image, err = n.opt.Engine.SandboxImage(ctx); err != nil {
		return runtimes.ContainerSpec{}, fmt.Errorf("sandbox image: %w", err)
	}
	return out, nil
}

// identity is that of a pod's container. The record and the address are the sandbox's only.
func identity(pod *plan.Pod, uid, container string, attempt int) (runtimes.Identity, error) {
	owner, err := json.Marshal(pod.Owner)
	if err != nil {
		return runtimes.Identity{}, fmt.Errorf("pod %s: owner: %w", pod.PodKey, err)
	}
	return runtimes.Identity{
		Application: pod.Application, Pod: pod.PodKey, UID: uid, Container: container, Attempt: attempt,
		Owner: string(owner), Template: pod.Template,
	}, nil
}

// hostPorts are the ports that the pod's containers publish on the host, in the spec's order. Init
// containers that do not stay publish none.
func hostPorts(spec *corev1.PodSpec) []runtimes.PortBinding {
	var out []runtimes.PortBinding
	add := func(c *corev1.Container) {
		for _, p := range c.Ports {
			b := runtimes.PortBinding{
				HostIP: p.HostIP, HostPort: int(p.HostPort), ContainerPort: int(p.ContainerPort), Protocol: strings.ToLower(string(p.Protocol)),
			}
			if b.Protocol == "" {
				b.Protocol = "tcp"
			}
			if b.HostPort > 0 && !slices.Contains(out, b) {
				out = append(out, b)
			}
		}
	}
	for i := range spec.InitContainers {
		if isSidecar(&spec.InitContainers[i]) {
			add(&spec.InitContainers[i])
		}
	}
	for i := range spec.Containers {
		add(&spec.Containers[i])
	}
	return out
}

// isSidecar reports whether an init container stays.
func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// safeSysctls are Kubernetes' safe ones: they belong to a namespace of the pod's and reach no other pod.
var safeSysctls = []string{
	"kernel.shm_rmid_forced",
	"net.ipv4.ip_local_port_range",
	"net.ipv4.ip_local_reserved_ports",
	"net.ipv4.ip_unprivileged_port_start",
	"net.ipv4.ping_group_range",
	"net.ipv4.tcp_fin_timeout",
	"net.ipv4.tcp_keepalive_intvl",
	"net.ipv4.tcp_keepalive_probes",
	"net.ipv4.tcp_keepalive_time",
	"net.ipv4.tcp_notsent_lowat",
	"net.ipv4.tcp_rmem",
	"net.ipv4.tcp_slow_start_after_idle",
	"net.ipv4.tcp_syncookies",
	"net.ipv4.tcp_wmem",
}

// sysctls returns what the pod sets, by names with dots. All that is refused is in the error.
func sysctls(pod *plan.Pod) (map[string]string, error) {
	sc := pod.Spec.SecurityContext
	if sc == nil || len(sc.Sysctls) == 0 {
		return nil, nil
	}
	out := map[string]string{}
	var errs []error
	refuse := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("pod %s: forbidden sysctl: %s: %w", pod.PodKey, fmt.Sprintf(format, args...), runtimes.ErrInvalid))
	}
	for _, s := range sc.Sysctls {
		name := dotted(s.Name)
		switch {
		case !slices.Contains(safeSysctls, name):
			refuse("%q not allowlisted: it can reach beyond the pod", name)
		case strings.HasPrefix(name, "net.") && pod.Spec.HostNetwork:
			refuse("%q not allowed with host net enabled", name)
		case strings.HasPrefix(name, "kernel.") && pod.Spec.HostIPC:
			refuse("%q not allowed with host ipc enabled", name)
		default:
			out[name] = s.Value
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, &problem{Reason: reasonSysctlForbidden, Err: err}
	}
	return out, nil
}

// dotted returns a sysctl's name with dots. Of names with slashes the first separator says which is meant.
func dotted(name string) string {
	i := strings.IndexAny(name, "./")
	if i < 0 || name[i] == '.' {
		return name
	}
	return strings.NewReplacer("/", ".", ".", "/").Replace(name)
}

// refusedInPod returns what the pod asks for and cannot have. Manifests are told so when they are read;
// what came another way is refused here, not left out in silence.
func refusedInPod(pod *plan.Pod) error {
	var errs []error
	refuse := func(set bool, field, why string) {
		if set {
			errs = append(errs, fmt.Errorf("pod %s: spec.%s is not supported: %s: %w", pod.PodKey, field, why, runtimes.ErrInvalid))
		}
	}
	s := pod.Spec
	refuse(s.HostUsers != nil && !*s.HostUsers, "hostUsers", "user namespaces are not set up")
	refuse(s.RuntimeClassName != nil && *s.RuntimeClassName != "", "runtimeClassName", "the engine's default runtime runs every container")
	refuse(s.Resources != nil && (len(s.Resources.Limits) > 0 || len(s.Resources.Requests) > 0), "resources", "limits for a pod as a whole are not enforced")
	refuse(len(s.ResourceClaims) > 0, "resourceClaims", "there are no dynamic resources")
	if sc := s.SecurityContext; sc != nil {
		refuse(sc.SELinuxOptions != nil && *sc.SELinuxOptions != corev1.SELinuxOptions{}, "securityContext.seLinuxOptions", "SELinux labels are not set")
		refuse(sc.WindowsOptions != nil && *sc.WindowsOptions != corev1.WindowsSecurityContextOptions{}, "securityContext.windowsOptions", "only Linux containers run")
	}
	return errors.Join(errs...)
}

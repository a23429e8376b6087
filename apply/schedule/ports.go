package schedule

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// hostPort is a port of the node that a pod asks for. An empty address means all of them.
type hostPort struct {
	port     int32
	protocol corev1.Protocol
	address  string
}

func (p hostPort) String() string { return fmt.Sprintf("%d/%s", p.port, p.protocol) }

// clashes reports whether two pods cannot both have their port.
func (p hostPort) clashes(o hostPort) bool {
	return p.port == o.port && p.protocol == o.protocol && (p.address == o.address || p.address == "" || o.address == "")
}

// hostPorts are the ports of the node that a pod asks for.
func hostPorts(spec *corev1.PodSpec) []hostPort {
	var out []hostPort
	add := func(c *corev1.Container) {
		for _, p := range c.Ports {
			port := p.HostPort
			if spec.HostNetwork {
				port = p.ContainerPort
			}
			if port == 0 {
				continue
			}
			h := hostPort{port, cmp.Or(p.Protocol, corev1.ProtocolTCP), p.HostIP}
			if h.address == "0.0.0.0" || h.address == "::" {
				h.address = ""
			}
			if !slices.Contains(out, h) {
				out = append(out, h)
			}
		}
	}
	for i := range spec.Containers {
		add(&spec.Containers[i])
	}
	for i := range spec.InitContainers {
		if c := &spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	return out
}

func (n *node) usePorts(ports []hostPort, by int32) {
	for _, p := range ports {
		i := slices.IndexFunc(n.ports, func(u usedPort) bool { return u.hostPort == p })
		if i < 0 {
			n.ports, i = append(n.ports, usedPort{hostPort: p}), len(n.ports)
		}
		if n.ports[i].pods += by; n.ports[i].pods == 0 {
			n.ports = slices.Delete(n.ports, i, i+1)
		}
	}
}

// taken is the first of the ports that another pod has on the node.
func (n *node) taken(ports []hostPort) (hostPort, bool) {
	for _, p := range ports {
		for _, u := range n.ports {
			if p.clashes(u.hostPort) {
				return p, true
			}
		}
	}
	return hostPort{}, false
}

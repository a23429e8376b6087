package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-dev/fairlead/render/object"
)

// Selects reports whether the Service's selector selects a pod with those labels in that namespace. A Service without
// a selector, or of type ExternalName, selects nothing.
func (s *Service) Selects(namespace string, labels map[string]string) bool {
	if namespace != s.Namespace || !s.HasSelector() {
		return false
	}
	for k, v := range s.Spec.Selector {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// HasSelector reports whether the Service's endpoints are pods that it selects.
func (s *Service) HasSelector() bool {
	return len(s.Spec.Selector) > 0 && s.Spec.Type != corev1.ServiceTypeExternalName
}

// MakeRoute returns the Service with its endpoints, as Kubernetes' EndpointSlice controller decides them: those of pods
// that the selector selects, which may be any pods of the node, and those that were written by hand, of which only
// those of this Service count. It depends neither on the order of pods nor on that of written.
func MakeRoute(s *Service, pods []*ObservedPod, written []*EndpointSlice, node NodeID) *Route {
	r := &Route{Service: s}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		r.Ports = append(r.Ports, RoutePort{
			Name: p.Name, Protocol: protocol(p.Protocol), Port: p.Port, NodePort: p.NodePort, AppProtocol: deref(p.AppProtocol),
		})
	}
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return r
	}
	for _, p := range pods {
		if s.Selects(p.Namespace, p.Labels) {
			r.addPod(p, node)
		}
	}
	r.addWritten(written)
	slices.SortFunc(r.Endpoints, compareEndpoints)
	slices.SortFunc(r.Missing, func(a, b MissingEndpoint) int {
		return cmp.Or(compareKeys(a.Pod, b.Pod), strings.Compare(a.Reason, b.Reason))
	})
	return r
}

func compareEndpoints(a, b Endpoint) int {
	return cmp.Or(a.Address.Compare(b.Address), compareKeys(a.Pod, b.Pod), strings.Compare(a.UID, b.UID),
		object.Compare(a.Written, b.Written), slices.Compare(a.Ports, b.Ports))
}

func compareKeys(a, b PodKey) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// addPod adds a pod that is selected, or why it is missing, or both.
func (r *Route) addPod(p *ObservedPod, node NodeID) {
	missing := func(format string, args ...any) {
		r.Missing = append(r.Missing, MissingEndpoint{Pod: p.PodKey, Reason: fmt.Sprintf(format, args...)})
	}
	switch p.Phase {
	case corev1.PodSucceeded:
		missing("it has succeeded%s", because(p))
		return
	case corev1.PodFailed:
		missing("it has failed%s", because(p))
		return
	case corev1.PodPending, corev1.PodRunning, corev1.PodUnknown:
	}
	address, err := netip.ParseAddr(p.IP)
	if err != nil {
		missing("it has no address yet%s", because(p))
		return
	}
	serving := p.serving()
	e := Endpoint{
		Address: address, Pod: p.PodKey, UID: p.UID, Node: node, Terminating: p.Terminating, Serving: serving,
		Ready:  r.Spec.PublishNotReadyAddresses || serving && !p.Terminating,
		Weight: weight(p.Annotations), Ports: make([]int32, len(r.Ports)),
	}
	if p.Spec != nil && p.Spec.Hostname != "" && p.Spec.Subdomain == r.Name {
		e.Hostname = p.Spec.Hostname
	}
	var lacks []string
	for i := range r.Spec.Ports {
		if e.Ports[i] = targetPort(p.Spec, &r.Spec.Ports[i]); e.Ports[i] == 0 {
			lacks = append(lacks, fmt.Sprintf("%q (%s)", r.Spec.Ports[i].TargetPort.String(), r.Ports[i].Protocol))
		}
	}
	r.Endpoints = append(r.Endpoints, e)
	switch {
	case p.Terminating: // which the endpoint says
	case !e.Ready:
		missing("not ready%s", because(p))
	case len(lacks) > 0:
		missing("no container has a port named %s", strings.Join(lacks, ", "))
	}
}

// because is what is known of why a pod is not ready: ": message (reason)", or nothing.
func because(p *ObservedPod) string {
	switch {
	case p.Message == "" && p.Reason == "":
		return ""
	case p.Message == "":
		return ": " + p.Reason
	case p.Reason == "":
		return ": " + p.Message
	}
	return ": " + p.Reason + ": " + p.Message
}

// serving reports whether all of the pod's containers are ready, even when it terminates.
func (p *ObservedPod) serving() bool {
	if !p.Terminating || p.Spec == nil {
		return p.Ready
	}
	ready := map[string]bool{}
	for i := range p.Containers {
		ready[p.Containers[i].Name] = p.Containers[i].Ready
	}
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; isSidecar(c) && !ready[c.Name] {
			return false
		}
	}
	for i := range p.Spec.Containers {
		if !ready[p.Spec.Containers[i].Name] {
			return false
		}
	}
	return len(p.Spec.Containers) > 0
}

func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// targetPort returns the port of a pod that a port of a Service leads to; 0 when the pod does not have it.
func targetPort(spec *corev1.PodSpec, p *corev1.ServicePort) int32 {
	if p.TargetPort.Type == intstr.Int {
		if p.TargetPort.IntVal == 0 {
			return p.Port
		}
		return p.TargetPort.IntVal
	}
	if spec == nil {
		return 0
	}
	find := func(c *corev1.Container) int32 {
		for i := range c.Ports {
			if have := &c.Ports[i]; have.Name == p.TargetPort.StrVal && protocol(have.Protocol) == protocol(p.Protocol) {
				return have.ContainerPort
			}
		}
		return 0
	}
	for i := range spec.Containers {
		if n := find(&spec.Containers[i]); n != 0 {
			return n
		}
	}
	for i := range spec.InitContainers {
		if c := &spec.InitContainers[i]; isSidecar(c) {
			if n := find(c); n != 0 {
				return n
			}
		}
	}
	return 0
}

// weight returns what WeightAnnotation says; 1 for anything that is not a whole number from 1 to 100.
func weight(annotations map[string]string) int {
	n, err := strconv.Atoi(annotations[WeightAnnotation])
	if err != nil || n < 1 || n > 100 {
		return 1
	}
	return n
}

// addWritten adds what was written by hand. What two objects say alike counts once.
func (r *Route) addWritten(written []*EndpointSlice) {
	written = slices.Clone(written)
	slices.SortFunc(written, func(a, b *EndpointSlice) int { return object.Compare(a.Ref, b.Ref) })
	type target struct {
		address netip.Addr
		port    int // the index; -1 stands for a Service without ports
		number  int32
	}
	seen := map[target]bool{}
	for i := range r.Endpoints {
		seen[target{r.Endpoints[i].Address, -1, 0}] = true
		for j, n := range r.Endpoints[i].Ports {
			seen[target{r.Endpoints[i].Address, j, n}] = true
		}
	}
	for _, w := range written {
		if w.Service != r.Ref || w.Kind == "Endpoints" && r.HasSelector() {
			continue // Endpoints of a Service with a selector are the controller's in Kubernetes: what is written there is lost
		}
		for _, slice := range w.Value {
			for i := range slice.Endpoints {
				e, ok := r.writtenEndpoint(slice, &slice.Endpoints[i])
				if !ok {
					continue
				}
				e.Written = w.Ref
				fresh := len(e.Ports) == 0 && !seen[target{e.Address, -1, 0}]
				seen[target{e.Address, -1, 0}] = true
				for j, n := range e.Ports {
					switch t := (target{e.Address, j, n}); {
					case n == 0:
					case seen[t]:
						e.Ports[j] = 0
					default:
						seen[t], fresh = true, true
					}
				}
				if fresh {
					r.Endpoints = append(r.Endpoints, e)
				}
			}
		}
	}
}

// writtenEndpoint reads one endpoint. Only its first address counts, as in Kubernetes, and names are no addresses.
func (r *Route) writtenEndpoint(slice *discoveryv1.EndpointSlice, from *discoveryv1.Endpoint) (Endpoint, bool) {
	if len(from.Addresses) == 0 {
		return Endpoint{}, false
	}
	address, err := netip.ParseAddr(from.Addresses[0])
	if err != nil || !r.family(address) {
		return Endpoint{}, false
	}
	c := &from.Conditions
	ready := c.Ready == nil || *c.Ready
	e := Endpoint{
		Address: address, Node: NodeID(deref(from.NodeName)), Hostname: deref(from.Hostname), Weight: 1,
		Ready: ready, Serving: ready, Terminating: c.Terminating != nil && *c.Terminating, Ports: make([]int32, len(r.Ports)),
	}
	if c.Serving != nil {
		e.Serving = *c.Serving
	}
	if t := from.TargetRef; t != nil && t.Kind == "Pod" {
		e.Pod, e.UID = PodKey{Namespace: cmp.Or(t.Namespace, r.Namespace), Name: t.Name}, string(t.UID)
	}
	for i, p := range r.Ports {
		for j := range slice.Ports {
			have := &slice.Ports[j]
			if have.Port != nil && deref(have.Name) == p.Name && protocol(deref(have.Protocol)) == p.Protocol {
				e.Ports[i] = *have.Port
			}
		}
	}
	return e, true
}

// family reports whether the Service has addresses of that family. One that does not say has IPv4.
func (r *Route) family(a netip.Addr) bool {
	want := corev1.IPv4Protocol
	if !a.Unmap().Is4() {
		want = corev1.IPv6Protocol
	}
	if len(r.Spec.IPFamilies) == 0 {
		return want == corev1.IPv4Protocol
	}
	return slices.Contains(r.Spec.IPFamilies, want)
}

// Same reports whether both say the same of the very same Service.
func (r *Route) Same(o *Route) bool {
	return r.Service == o.Service && slices.Equal(r.Ports, o.Ports) && slices.Equal(r.Missing, o.Missing) &&
		slices.EqualFunc(r.Endpoints, o.Endpoints, equalEndpoints)
}

func equalEndpoints(a, b Endpoint) bool {
	return a.Address == b.Address && a.Pod == b.Pod && a.UID == b.UID && a.Node == b.Node && a.Hostname == b.Hostname &&
		a.Ready == b.Ready && a.Serving == b.Serving && a.Terminating == b.Terminating && a.Weight == b.Weight &&
		a.Written == b.Written && slices.Equal(a.Ports, b.Ports)
}

func protocol(p corev1.Protocol) corev1.Protocol { return cmp.Or(p, corev1.ProtocolTCP) }

// deref returns what p points to, or the zero value.
func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

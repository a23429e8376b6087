package plan

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairlead-dev/fairlead/render/object"
)

// Annotations of Services and pods that say how a Service's connections are spread.
const (
	// BalancingAnnotation of a Service is one of the Balancing values. Without it the Service has Random.
	BalancingAnnotation = "fairlead.dev/balancing"
	// WeightAnnotation of a pod is its share of new connections, 1 to 100. Without it a pod has 1.
	WeightAnnotation = "fairlead.dev/weight"
)

// Balancing is how the new connections of a Service are spread over its endpoints.
type Balancing string

// The ways of balancing. All but LeastConnections are done by the kernel, in which a connection stays where it is
// whatever happens to the daemon; LeastConnections is done by a proxy in the daemon.
const (
	// Random chooses by weight and chance: the default.
	Random Balancing = "random"
	// RoundRobin goes through the endpoints one after the other.
	RoundRobin Balancing = "round-robin"
	// SourceHash sends a client address to the same endpoint as long as the endpoints stay.
	SourceHash Balancing = "source-hash"
	// LeastConnections chooses the endpoint with the fewest open connections for its weight; TCP only.
	LeastConnections Balancing = "least-connections"
)

// Service is a Service as nodes serve it: what was written, with every address that was given to it.
// It is immutable and shared: never modify what it points to.
type Service struct {
	object.Ref
	Application string
	// SourceRevision is the commit that it was planned from; informative.
	SourceRevision string
	Labels         map[string]string
	Annotations    map[string]string
	// Spec has Kubernetes' defaults, and ClusterIP, ClusterIPs, NodePort and HealthCheckNodePort filled in.
	Spec *corev1.ServiceSpec
	// LoadBalancerIPs are the addresses of a Service of type LoadBalancer.
	LoadBalancerIPs []netip.Addr
	Balancing       Balancing
	// Hash identifies all of the above but SourceRevision.
	Hash string
}

// Headless reports whether the Service has names but no address.
func (s *Service) Headless() bool { return s.Spec.ClusterIP == corev1.ClusterIPNone }

// EndpointSlice is a hand-written EndpointSlice, or one subset of a hand-written Endpoints object, as nodes use it.
// It is immutable and shared.
type EndpointSlice struct {
	// Ref is the object that was written, an EndpointSlice or an Endpoints.
	object.Ref
	Application string
	// Service is the Service that it belongs to.
	Service object.Ref
	// Value is the slice; for an Endpoints object, what it means as one or several slices.
	Value []*discoveryv1.EndpointSlice
	// Hash identifies all of the above.
	Hash string
}

// ServiceRanges are where addresses of Services come from.
type ServiceRanges struct {
	// ClusterIPs is the subnet of cluster addresses, IPv4 from /12 to /28.
	ClusterIPs netip.Prefix
	// NodePorts are the first and the last port for type NodePort and LoadBalancer.
	NodePorts [2]int32
	// LoadBalancers are the ranges for type LoadBalancer, lowest first. Without any, such Services get HostIPs.
	LoadBalancers []AddressRange
	// HostIPs are the node's own addresses.
	HostIPs []netip.Addr
	// Pods is the subnet of pods' addresses: nothing of it is given to a Service.
	Pods netip.Prefix
}

// AddressRange is a range of addresses, both ends included.
type AddressRange struct{ First, Last netip.Addr }

// Contains reports whether the address is in the range.
func (r AddressRange) Contains(a netip.Addr) bool {
	return r.First.BitLen() == a.BitLen() && r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

// shown lists the addresses in words: "cluster address 10.80.3.7, node port 30080 for http".
func (s *Service) shown() string {
	if s == nil || s.Spec == nil {
		return ""
	}
	return strings.Join(s.addressWords(), ", ")
}

// addressWords are the addresses of the Service, each in words.
func (s *Service) addressWords() []string {
	var out []string
	switch {
	case s.Spec.Type == corev1.ServiceTypeExternalName:
		out = append(out, "name "+s.Spec.ExternalName)
	case s.Headless():
		out = append(out, "no cluster address")
	case s.Spec.ClusterIP != "":
		out = append(out, "cluster address "+s.Spec.ClusterIP)
	}
	for i := range s.Spec.Ports {
		if p := &s.Spec.Ports[i]; p.NodePort != 0 {
			out = append(out, fmt.Sprintf("node port %d for %s", p.NodePort, portTitle(p)))
		}
	}
	if s.Spec.HealthCheckNodePort != 0 {
		out = append(out, fmt.Sprintf("health checks on port %d", s.Spec.HealthCheckNodePort))
	}
	if s.Spec.Type != corev1.ServiceTypeExternalName {
		out = append(out, s.elsewhere()...)
	}
	return out
}

// elsewhere are the addresses that are not the cluster's, each in words, or the name that the Service stands for.
func (s *Service) elsewhere() []string {
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return []string{"name " + s.Spec.ExternalName}
	}
	var out []string
	for _, a := range s.LoadBalancerIPs {
		out = append(out, "load balancer address "+a.String())
	}
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer && len(s.LoadBalancerIPs) == 0 {
		out = append(out, "no load balancer address")
	}
	for _, a := range s.Spec.ExternalIPs {
		out = append(out, "external address "+a)
	}
	return out
}

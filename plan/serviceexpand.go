package plan

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/render/object"
)

// DesiredService is a Service that an application wants.
type DesiredService struct {
	object.Object
	// Service is what nodes are to serve, but for the addresses that are given to it: Hash is then that of
	// what was written alone. Never modify it.
	Service *Service
	// Selects are the application's workloads whose pods the selector selects, in the order of Objects.
	Selects []object.Ref
}

// DesiredEndpoints are hand-written endpoints that an application wants: an EndpointSlice or an Endpoints.
type DesiredEndpoints struct {
	object.Object
	Endpoints *EndpointSlice
}

// serviceOf returns what nodes are to serve of a Service; false for other objects.
func serviceOf(app Application, o object.Object) (*Service, bool) {
	v, ok := o.Value.(*corev1.Service)
	if !ok || v == nil {
		return nil, false
	}
	s := &Service{
		Ref: o.Ref, Application: app.Name, SourceRevision: app.Revision, Labels: v.Labels, Annotations: v.Annotations, Spec: &v.Spec,
		Balancing: Balancing(v.Annotations[BalancingAnnotation]), Hash: writtenHash(app, o),
	}
	if s.Balancing == "" {
		s.Balancing = Random
	}
	return s, true
}

// writtenHash identifies what was written in an object of an application. Defaults are not in it, so a newer
// version with others sets nothing anew.
func writtenHash(app Application, o object.Object) string {
	return object.HashBytes([]byte(app.Name + "\x00" + o.Ref.String() + "\x00" + o.Hash))
}

// endpointsOf returns what nodes are to use of hand-written endpoints; false for other objects.
func endpointsOf(app Application, o object.Object) (*EndpointSlice, bool) {
	e := &EndpointSlice{Ref: o.Ref, Application: app.Name, Hash: writtenHash(app, o)}
	e.Service = object.Ref{Kind: "Service", Namespace: o.Namespace, Name: o.Name}
	switch v := o.Value.(type) {
	case *discoveryv1.EndpointSlice:
		if v == nil {
			return nil, false
		}
		e.Service.Name = v.Labels[discoveryv1.LabelServiceName]
		e.Value = []*discoveryv1.EndpointSlice{v}
	case *corev1.Endpoints: //nolint:staticcheck // it is deprecated, and people have it
		if v == nil {
			return nil, false
		}
		for i := range v.Subsets {
			e.Value = append(e.Value, sliceOf(v, &v.Subsets[i], i))
		}
	default:
		return nil, false
	}
	return e, true
}

// sliceOf returns a subset of an Endpoints object as an EndpointSlice.
func sliceOf(of *corev1.Endpoints, sub *corev1.EndpointSubset, i int) *discoveryv1.EndpointSlice { //nolint:staticcheck // as above
	s := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: of.Namespace, Name: fmt.Sprintf("%s-%d", of.Name, i), Labels: map[string]string{discoveryv1.LabelServiceName: of.Name},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, list := range [...]struct {
		ready     bool
		addresses []corev1.EndpointAddress
	}{{true, sub.Addresses}, {false, sub.NotReadyAddresses}} {
		for _, a := range list.addresses {
			ready := list.ready
			e := discoveryv1.Endpoint{
				Addresses: []string{a.IP}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}, NodeName: a.NodeName, TargetRef: a.TargetRef,
			}
			if a.Hostname != "" {
				e.Hostname = &a.Hostname
			}
			s.Endpoints = append(s.Endpoints, e)
		}
	}
	for _, p := range sub.Ports {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &p.Name, Protocol: &p.Protocol, Port: &p.Port, AppProtocol: p.AppProtocol})
	}
	return s
}

// needsClusterIP reports whether a Service of the spec has a cluster address.
func needsClusterIP(s *corev1.ServiceSpec) bool {
	return s.Type != corev1.ServiceTypeExternalName && s.ClusterIP != corev1.ClusterIPNone
}

// needsNodePorts reports whether the ports of the spec have node ports.
func needsNodePorts(s *corev1.ServiceSpec) bool {
	return s.Type == corev1.ServiceTypeNodePort ||
		s.Type == corev1.ServiceTypeLoadBalancer && (s.AllocateLoadBalancerNodePorts == nil || *s.AllocateLoadBalancerNodePorts)
}

// needsHealthPort reports whether a Service of the spec has a port that tells load balancers whether to send here.
func needsHealthPort(s *corev1.ServiceSpec) bool {
	return s.Type == corev1.ServiceTypeLoadBalancer && s.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// addresses are what is given to a Service.
type addresses struct {
	cluster netip.Addr // not valid for none
	// nodePorts has one entry for each of the spec's ports, 0 for none.
	nodePorts     []int32
	health        int32
	loadBalancers []netip.Addr
}

// addressesOf returns what was given to a Service that is served.
func addressesOf(s *Service) addresses {
	a := addresses{health: s.Spec.HealthCheckNodePort, loadBalancers: s.LoadBalancerIPs, nodePorts: make([]int32, len(s.Spec.Ports))}
	if needsClusterIP(s.Spec) {
		a.cluster = address(s.Spec.ClusterIP)
	}
	for i := range s.Spec.Ports {
		a.nodePorts[i] = s.Spec.Ports[i].NodePort
	}
	return a
}

// address parses an IPv4 address; what is none is not valid.
func address(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return netip.Addr{}
	}
	return a
}

// with returns the Service with addresses, in memory of its own where they are.
func (s *Service) with(a addresses) *Service {
	out, spec := *s, *s.Spec
	out.Spec = &spec
	out.LoadBalancerIPs = a.loadBalancers
	spec.Ports = slices.Clone(spec.Ports)
	for i := range spec.Ports {
		spec.Ports[i].NodePort = a.nodePorts[i]
	}
	spec.HealthCheckNodePort = a.health
	switch {
	case a.cluster.IsValid():
		spec.ClusterIP = a.cluster.String()
		spec.ClusterIPs = []string{spec.ClusterIP}
	case spec.ClusterIP == corev1.ClusterIPNone:
		spec.ClusterIPs = []string{corev1.ClusterIPNone}
	}
	if spec.Type != corev1.ServiceTypeExternalName {
		spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
		if spec.IPFamilyPolicy == nil {
			single := corev1.IPFamilyPolicySingleStack
			spec.IPFamilyPolicy = &single
		}
	}
	out.Hash = s.Hash + "-" + object.HashBytes(fmt.Append(nil, a.cluster, a.nodePorts, a.health, a.loadBalancers))[:16]
	return &out
}

// writtenAs reports whether a Service that is served was made from what was written with that hash.
func (s *Service) writtenAs(hash string) bool {
	return len(s.Hash) > len(hash) && s.Hash[:len(hash)] == hash && s.Hash[len(hash)] == '-'
}

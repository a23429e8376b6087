package plan

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairlead-dev/fairlead/render/object"
)

const (
	// SliceController is the endpointslice.kubernetes.io/managed-by of slices that stand for selected pods.
	SliceController = "endpointslice-controller.k8s.io"
	// endpointsPerSlice is how many endpoints Kubernetes' controller puts into a slice.
	endpointsPerSlice = 100
)

// EndpointSlices shows the endpoints that the selector selects as Kubernetes' EndpointSlice controller does: at most 100
// in a slice, all of a slice with the same ports, in a stable order under stable names. Without any endpoint it is one
// empty slice, without a selector none. Hand-written endpoints are not among them: their objects say them. uid is the
// Service's, as its owner reference shows it. The result shares nothing with the Route.
func (r *Route) EndpointSlices(uid string) []*discoveryv1.EndpointSlice {
	if !r.HasSelector() {
		return nil
	}
	type group struct {
		ports []int32
		of    []*Endpoint
	}
	var groups []*group
	byPorts := map[string]*group{}
	for i := range r.Endpoints {
		e := &r.Endpoints[i]
		if !e.Written.IsZero() {
			continue
		}
		key := fmt.Sprint(e.Ports, e.Address.Is4())
		g := byPorts[key]
		if g == nil {
			g = &group{ports: e.Ports}
			byPorts[key] = g
			groups = append(groups, g)
		}
		g.of = append(g.of, e)
	}
	var out []*discoveryv1.EndpointSlice
	for _, g := range groups {
		for part := range slices.Chunk(g.of, endpointsPerSlice) {
			s := r.slice(uid, g.ports, len(out))
			if !part[0].Address.Is4() {
				s.AddressType = discoveryv1.AddressTypeIPv6
			}
			for _, e := range part {
				s.Endpoints = append(s.Endpoints, e.discovery())
			}
			out = append(out, s)
		}
	}
	if out == nil {
		return []*discoveryv1.EndpointSlice{r.slice(uid, nil, 0)}
	}
	return out
}

// slice is a slice without endpoints; number tells apart those of one Service.
func (r *Route) slice(uid string, ports []int32, number int) *discoveryv1.EndpointSlice {
	labels := map[string]string{}
	for k, v := range r.Labels {
		labels[k] = v
	}
	delete(labels, corev1.IsHeadlessService)
	if r.Headless() {
		labels[corev1.IsHeadlessService] = ""
	}
	labels[discoveryv1.LabelServiceName] = r.Name
	labels[discoveryv1.LabelManagedBy] = SliceController
	suffix := object.HashBytes(fmt.Appendf(nil, "%s %d", r.Ref, number))[:8]
	s := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: discoveryv1.SchemeGroupVersion.String(), Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{
			Name: r.Name + "-" + suffix, GenerateName: r.Name + "-", Namespace: r.Namespace, Labels: labels,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "v1", Kind: "Service", Name: r.Name, UID: types.UID(uid), Controller: new(true), BlockOwnerDeletion: new(true),
			}},
		},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{},
	}
	for i, n := range ports {
		if n == 0 {
			continue
		}
		p := discoveryv1.EndpointPort{Name: new(r.Ports[i].Name), Protocol: new(r.Ports[i].Protocol), Port: new(n)}
		if a := r.Ports[i].AppProtocol; a != "" {
			p.AppProtocol = new(a)
		}
		s.Ports = append(s.Ports, p)
	}
	return s
}

func (e *Endpoint) discovery() discoveryv1.Endpoint {
	out := discoveryv1.Endpoint{
		Addresses:  []string{e.Address.String()},
		Conditions: discoveryv1.EndpointConditions{Ready: new(e.Ready), Serving: new(e.Serving), Terminating: new(e.Terminating)},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: e.Pod.Namespace, Name: e.Pod.Name, UID: types.UID(e.UID)},
	}
	if e.Hostname != "" {
		out.Hostname = new(e.Hostname)
	}
	if e.Node != "" {
		out.NodeName = new(string(e.Node))
	}
	return out
}

package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
	"github.com/fairlead-dev/fairlead/render/object"
)

// serviceTable has kubectl's columns, and how many endpoints are ready.
func serviceTable(services []api.Service, wide bool, now time.Time) table {
	t := table{head: []string{"NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "ENDPOINTS", "AGE"}}
	if wide {
		t.head = append(t.head, "SELECTOR", "BALANCING", "APPLICATION")
	}
	for _, s := range services {
		ready, all := s.Endpoints()
		endpoints := ratio(ready, all)
		if s.Spec.Type == corev1.ServiceTypeExternalName {
			endpoints = "<none>"
		}
		cells := []string{s.Name, string(s.Spec.Type), orNone(s.Spec.ClusterIP), externalAddress(s), orNone(servicePorts(s)), endpoints, age(now, s.Created)}
		if wide {
			cells = append(cells, orNone(metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: s.Spec.Selector})),
				orNone(string(s.Balancing)), orNone(s.Application))
		}
		t.rows = append(t.rows, row{s.Ref, cells})
		t.items = append(t.items, kubeService(s))
	}
	return t
}

// externalAddress is what kubectl shows as EXTERNAL-IP.
func externalAddress(s api.Service) string {
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return s.Spec.ExternalName
	}
	addresses := append(slices.Clone(s.LoadBalancer), s.Spec.ExternalIPs...)
	if len(addresses) == 0 && s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		return "<pending>"
	}
	return orNone(strings.Join(addresses, ","))
}

// servicePorts is for example 80:30080/TCP,53/UDP.
func servicePorts(s api.Service) string {
	var out []string
	for _, p := range s.Spec.Ports {
		word := strconv.Itoa(int(p.Port))
		if p.NodePort != 0 {
			word += ":" + strconv.Itoa(int(p.NodePort))
		}
		out = append(out, word+"/"+string(p.Protocol))
	}
	return strings.Join(out, ",")
}

// maxShown is how many endpoints a cell shows.
const maxShown = 3

// endpointsTable shows the ready addresses of Services.
func endpointsTable(services []api.Service, now time.Time) table {
	t := table{head: []string{"NAME", "ENDPOINTS", "AGE"}}
	for _, s := range services {
		if s.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		var addresses []string
		e := kubeEndpoints(s)
		for _, subset := range e.Subsets {
			for _, a := range subset.Addresses {
				if len(subset.Ports) == 0 {
					addresses = append(addresses, a.IP)
				}
				for _, p := range subset.Ports {
					addresses = append(addresses, fmt.Sprintf("%s:%d", a.IP, p.Port))
				}
			}
		}
		t.rows = append(t.rows, row{object.Ref{Kind: "Endpoints", Namespace: s.Namespace, Name: s.Name}, []string{s.Name, someOf(addresses), age(now, s.Created)}})
		t.items = append(t.items, e)
	}
	return t
}

func someOf(list []string) string {
	if n := len(list) - maxShown; n > 0 {
		return strings.Join(list[:maxShown], ",") + fmt.Sprintf(" + %d more...", n)
	}
	return orNone(strings.Join(list, ","))
}

// sliceTable shows the EndpointSlices of Services, all or those with a name.
func sliceTable(services []api.Service, names []string, now time.Time) table {
	t := table{head: []string{"NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"}}
	for _, s := range services {
		for _, slice := range s.Slices {
			if len(names) > 0 && !slices.Contains(names, slice.Name) {
				continue
			}
			var ports, addresses []string
			for _, p := range slice.Ports {
				if p.Port != nil {
					ports = append(ports, strconv.Itoa(int(*p.Port)))
				}
			}
			for _, e := range slice.Endpoints {
				addresses = append(addresses, e.Addresses...)
			}
			t.rows = append(t.rows, row{
				object.Ref{Group: discoveryv1.GroupName, Kind: "EndpointSlice", Namespace: s.Namespace, Name: slice.Name},
				[]string{slice.Name, string(slice.AddressType), orNone(strings.Join(ports, ",")), someOf(addresses), age(now, s.Created)},
			})
			t.items = append(t.items, slice)
		}
	}
	return t
}

// kubeService is a Service in Kubernetes' form, with its addresses.
func kubeService(s api.Service) corev1.Service {
	out := corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{
			Name: s.Name, Namespace: s.Namespace, Labels: s.Labels, Annotations: s.Annotations, CreationTimestamp: metav1.NewTime(s.Created),
		},
		Spec: s.Spec,
	}
	for _, a := range s.LoadBalancer {
		out.Status.LoadBalancer.Ingress = append(out.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a})
	}
	return out
}

// kubeEndpoints are the endpoints of a Service in the form that came before EndpointSlices.
//
//nolint:staticcheck // it is deprecated, and kubectl's users still ask for it
func kubeEndpoints(s api.Service) corev1.Endpoints {
	out := corev1.Endpoints{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Endpoints"},
		ObjectMeta: metav1.ObjectMeta{Name: s.Name, Namespace: s.Namespace, Labels: s.Labels, CreationTimestamp: metav1.NewTime(s.Created)},
	}
	for _, slice := range s.Slices {
		var subset corev1.EndpointSubset
		for _, p := range slice.Ports {
			port := corev1.EndpointPort{AppProtocol: p.AppProtocol}
			if p.Name != nil {
				port.Name = *p.Name
			}
			if p.Protocol != nil {
				port.Protocol = *p.Protocol
			}
			if p.Port != nil {
				port.Port = *p.Port
			}
			subset.Ports = append(subset.Ports, port)
		}
		for _, e := range slice.Endpoints {
			for _, ip := range e.Addresses {
				a := corev1.EndpointAddress{IP: ip, NodeName: e.NodeName, TargetRef: e.TargetRef}
				if e.Hostname != nil {
					a.Hostname = *e.Hostname
				}
				if e.Conditions.Ready == nil || *e.Conditions.Ready {
					subset.Addresses = append(subset.Addresses, a)
				} else {
					subset.NotReadyAddresses = append(subset.NotReadyAddresses, a)
				}
			}
		}
		out.Subsets = append(out.Subsets, subset)
	}
	return out
}

func (d describer) service(s api.Service) {
	d.field("Name", s.Name)
	d.field("Namespace", s.Namespace)
	d.field("Application", s.Application)
	d.field("Written in", s.Origin.String())
	d.when("Applied first", s.Created)
	d.lines("Labels", keyValues(s.Labels))
	d.lines("Annotations", keyValues(s.Annotations))
	d.field("Type", string(s.Spec.Type))
	if len(s.Spec.Selector) > 0 {
		d.lines("Selector", keyValues(s.Spec.Selector))
	} else if s.Spec.Type != corev1.ServiceTypeExternalName {
		d.raw("Selector", "none: its endpoints are written by hand")
	}
	d.field("External name", s.Spec.ExternalName)
	d.lines("Names", s.Names)
	d.lines("Reached by", s.Reaches())
	for _, p := range s.Spec.Ports {
		target := p.TargetPort.String()
		name := ""
		if p.Name != "" {
			name = p.Name + " "
		}
		d.field("Port", fmt.Sprintf("%s%d/%s → %s", name, p.Port, p.Protocol, cmp.Or(target, strconv.Itoa(int(p.Port)))))
	}
	if s.Spec.Type != corev1.ServiceTypeExternalName && s.Spec.ClusterIP != corev1.ClusterIPNone {
		d.field("Balancing", string(s.Balancing))
	}
	d.affinity(s.Spec)
	if p := s.Spec.InternalTrafficPolicy; p != nil && *p != corev1.ServiceInternalTrafficPolicyCluster {
		d.field("From inside", string(*p))
	}
	if p := s.Spec.ExternalTrafficPolicy; p != "" && p != corev1.ServiceExternalTrafficPolicyCluster {
		d.field("From outside", string(p))
	}
	if s.Spec.PublishNotReadyAddresses {
		d.field("Not ready", "published too")
	}
	d.endpoints(s)
	t := table{head: []string{"SERVED BY", "SET", "TOOK", "STATE"}}
	for _, r := range s.Registries {
		t.rows = append(t.rows, row{cells: registryCells(r, d.now)})
	}
	d.table("Served", t)
}

func (d describer) affinity(spec corev1.ServiceSpec) {
	if spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return
	}
	word := "client address"
	if c := spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		word += ", for " + (time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second).String()
	}
	d.field("Affinity", word)
}

// endpoints shows where connections go, and which pods are left out and why.
func (d describer) endpoints(s api.Service) {
	t := table{head: []string{"ADDRESS", "PORTS", "POD", "STATE", "WEIGHT"}}
	for _, slice := range s.Slices {
		var ports []string
		for _, p := range slice.Ports {
			if p.Port != nil {
				ports = append(ports, strconv.Itoa(int(*p.Port)))
			}
		}
		for _, e := range slice.Endpoints {
			pod := ""
			if e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
				pod = e.TargetRef.Name
			}
			for _, a := range e.Addresses {
				t.rows = append(t.rows, row{cells: []string{a, orNone(strings.Join(ports, ",")), orNone(pod), endpointState(e.Conditions), strconv.Itoa(max(1, s.Weights[a]))}})
			}
		}
	}
	d.table("Endpoints", t)
	if len(t.rows) == 0 && s.Spec.Type != corev1.ServiceTypeExternalName {
		d.raw("Endpoints", "none: who connects is refused")
	}
	if len(s.Missing) > 0 {
		d.title("Selected, but no endpoint")
		for _, m := range s.Missing {
			fmt.Fprintf(d.w, "  %s: %s\n", planview.Clean(m.Pod.Name), planview.Clean(m.Reason))
		}
	}
}

func endpointState(c discoveryv1.EndpointConditions) string {
	is := func(b *bool, otherwise bool) bool {
		if b == nil {
			return otherwise
		}
		return *b
	}
	switch {
	case is(c.Terminating, false) && is(c.Serving, false):
		return "terminating, still serves"
	case is(c.Terminating, false):
		return "terminating"
	case is(c.Ready, true):
		return "ready"
	}
	return "not ready"
}

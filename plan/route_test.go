package plan_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// routed is a Service that selects app=web, with two ports.
func routed(change ...func(*plan.Service)) *plan.Service {
	s := &plan.Service{
		Ref: object.Ref{Kind: "Service", Namespace: "shop", Name: "web"}, Labels: map[string]string{"team": "a"},
		Spec: &corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, Selector: map[string]string{"app": "web"},
			Ports: []corev1.ServicePort{
				{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromString("http"), NodePort: 30080, AppProtocol: new("h2c")},
				{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53, TargetPort: intstr.FromInt32(5353)},
			},
		},
	}
	for _, f := range change {
		f(s)
	}
	return s
}

// routedPod is a ready pod that routed selects.
func routedPod(name, ip string, change ...func(*plan.ObservedPod)) *plan.ObservedPod {
	p := &plan.ObservedPod{
		PodKey: plan.PodKey{Namespace: "shop", Name: name}, UID: "u-" + name, Labels: map[string]string{"app": "web", "more": "x"},
		Phase: corev1.PodRunning, Ready: true, IP: ip,
		Spec: &corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{
			{Name: "http", ContainerPort: 9999, Protocol: corev1.ProtocolUDP}, {Name: "http", ContainerPort: 8080},
		}}}},
		Containers: []plan.ObservedContainer{{Name: "c", State: plan.Running, Ready: true}},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

// routeText is a Route in lines: its endpoints, then what is missing.
func routeText(r *plan.Route) string {
	var b strings.Builder
	for _, e := range r.Endpoints {
		fmt.Fprintf(&b, "%s %s", e.Address, e.Pod.Name)
		if e.Node != "" {
			b.WriteString(" on " + string(e.Node))
		}
		if e.Hostname != "" {
			b.WriteString(" named " + e.Hostname)
		}
		fmt.Fprintf(&b, " %v", e.Ports)
		if e.Ready {
			b.WriteString(" ready")
		}
		if e.Serving {
			b.WriteString(" serving")
		}
		if e.Terminating {
			b.WriteString(" terminating")
		}
		if e.Weight != 1 {
			fmt.Fprintf(&b, " weight %d", e.Weight)
		}
		if !e.Written.IsZero() {
			b.WriteString(" from " + e.Written.Name)
		}
		b.WriteString("\n")
	}
	for _, m := range r.Missing {
		fmt.Fprintf(&b, "%s: %s\n", m.Pod.Name, m.Reason)
	}
	return b.String()
}

func TestMakeRoute(t *testing.T) {
	sidecar := corev1.ContainerRestartPolicyAlways
	slice := func(name string, change ...func(*discoveryv1.EndpointSlice)) *plan.EndpointSlice {
		v := &discoveryv1.EndpointSlice{
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(81))}},
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}}},
		}
		for _, f := range change {
			f(v)
		}
		return &plan.EndpointSlice{
			Ref: object.Ref{Group: "discovery.k8s.io", Kind: "EndpointSlice", Namespace: "shop", Name: name}, Service: routed().Ref, Value: []*discoveryv1.EndpointSlice{v},
		}
	}
	bare := func(s *plan.Service) { s.Spec.Selector = nil }
	for _, tt := range []struct {
		name    string
		service *plan.Service
		pods    []*plan.ObservedPod
		written []*plan.EndpointSlice
		want    string
	}{
		{"a ready pod", routed(), []*plan.ObservedPod{routedPod("a", "10.0.0.2")}, nil,
			"10.0.0.2 a on n [8080 5353] ready serving\n"},
		{"sorted by address", routed(), []*plan.ObservedPod{routedPod("a", "10.0.0.10"), routedPod("b", "10.0.0.9")}, nil,
			"10.0.0.9 b on n [8080 5353] ready serving\n10.0.0.10 a on n [8080 5353] ready serving\n"},
		{"other labels and namespaces", routed(), []*plan.ObservedPod{
			routedPod("a", "10.0.0.2", func(p *plan.ObservedPod) { p.Labels = map[string]string{"app": "db"} }),
			routedPod("b", "10.0.0.3", func(p *plan.ObservedPod) { p.Namespace = "other" }),
			routedPod("c", "10.0.0.4", func(p *plan.ObservedPod) { p.Labels = nil }),
		}, nil, ""},
		{"a selector of two labels", routed(func(s *plan.Service) { s.Spec.Selector = map[string]string{"app": "web", "v": ""} }), []*plan.ObservedPod{
			routedPod("a", "10.0.0.2"), routedPod("b", "10.0.0.3", func(p *plan.ObservedPod) { p.Labels = map[string]string{"app": "web", "v": ""} }),
		}, nil, "10.0.0.3 b on n [8080 5353] ready serving\n"},
		{"not ready", routed(), []*plan.ObservedPod{
			routedPod("a", "10.0.0.2", func(p *plan.ObservedPod) { p.Ready, p.Message = false, "container c: Readiness probe failed: HTTP 503" }),
			routedPod("b", "10.0.0.3", func(p *plan.ObservedPod) { p.Ready, p.Reason = false, "ImagePullBackOff" }),
			routedPod("c", "10.0.0.4", func(p *plan.ObservedPod) {
				p.Ready, p.Reason, p.Message = false, "CrashLoopBackOff", "container c: back-off"
			}),
			routedPod("d", "10.0.0.5", func(p *plan.ObservedPod) { p.Ready = false }),
		}, nil, `10.0.0.2 a on n [8080 5353]
10.0.0.3 b on n [8080 5353]
10.0.0.4 c on n [8080 5353]
10.0.0.5 d on n [8080 5353]
a: not ready: container c: Readiness probe failed: HTTP 503
b: not ready: ImagePullBackOff
c: not ready: CrashLoopBackOff: container c: back-off
d: not ready
`},
		{"publishNotReadyAddresses", routed(func(s *plan.Service) { s.Spec.PublishNotReadyAddresses = true }), []*plan.ObservedPod{
			routedPod("a", "10.0.0.2", func(p *plan.ObservedPod) { p.Ready = false }),
			routedPod("b", "10.0.0.3", func(p *plan.ObservedPod) { p.Ready, p.Terminating = false, true }),
		}, nil, "10.0.0.2 a on n [8080 5353] ready\n10.0.0.3 b on n [8080 5353] ready serving terminating\n"},
		{"terminating", routed(), []*plan.ObservedPod{
			routedPod("a", "10.0.0.2", func(p *plan.ObservedPod) { p.Ready, p.Terminating = false, true }),
			routedPod("b", "10.0.0.3", func(p *plan.ObservedPod) { p.Ready, p.Terminating, p.Containers[0].Ready = false, true, false }),
			routedPod("c", "10.0.0.4", func(p *plan.ObservedPod) {
				p.Ready, p.Terminating = false, true
				p.Spec.InitContainers = []corev1.Container{{Name: "side", RestartPolicy: &sidecar}}
				p.Containers = append(p.Containers, plan.ObservedContainer{Name: "side", Init: true})
			}),
			routedPod("d", "10.0.0.5", func(p *plan.ObservedPod) {
				p.Ready, p.Terminating = false, true
				p.Spec.InitContainers = []corev1.Container{{Name: "init"}}
				p.Containers = append(p.Containers, plan.ObservedContainer{Name: "init", Init: true})
			}),
		}, nil, `10.0.0.2 a on n [8080 5353] serving terminating
10.0.0.3 b on n [8080 5353] terminating
10.0.0.4 c on n [8080 5353] terminating
10.0.0.5 d on n [8080 5353] serving terminating
`},
		{"ended, or without an address", routed(), []*plan.ObservedPod{
			routedPod("a", "10.0.0.2", func(p *plan.ObservedPod) { p.Phase, p.Ready = corev1.PodSucceeded, false }),
			routedPod("b", "10.0.0.3", func(p *plan.ObservedPod) { p.Phase, p.Ready, p.Reason = corev1.PodFailed, false, "Evicted" }),
			routedPod("c", "", func(p *plan.ObservedPod) { p.Phase, p.Ready = corev1.PodPending, false }),
		}, nil, "a: it has succeeded\nb: it has failed: Evicted\nc: it has no address yet\n"},
		{"named ports", routed(), []*plan.ObservedPod{
			routedPod("a", "10.0.0.2", func(p *plan.ObservedPod) { p.Spec.Containers[0].Ports = nil }),
			routedPod("b", "10.0.0.3", func(p *plan.ObservedPod) {
				p.Spec.InitContainers = []corev1.Container{{Name: "init", Ports: p.Spec.Containers[0].Ports}}
				p.Spec.Containers[0].Ports = nil
			}),
			routedPod("c", "10.0.0.4", func(p *plan.ObservedPod) {
				p.Spec.InitContainers = []corev1.Container{{Name: "side", RestartPolicy: &sidecar, Ports: p.Spec.Containers[0].Ports}}
				p.Spec.Containers[0].Ports = nil
			}),
		}, nil, `10.0.0.2 a on n [0 5353] ready serving
10.0.0.3 b on n [0 5353] ready serving
10.0.0.4 c on n [8080 5353] ready serving
a: no container has a port named "http" (TCP)
b: no container has a port named "http" (TCP)
`},
		{"names", routed(), []*plan.ObservedPod{
			routedPod("a", "10.0.0.2", func(p *plan.ObservedPod) { p.Spec.Hostname, p.Spec.Subdomain = "web-0", "web" }),
			routedPod("b", "10.0.0.3", func(p *plan.ObservedPod) { p.Spec.Hostname, p.Spec.Subdomain = "web-1", "other" }),
			routedPod("c", "10.0.0.4", func(p *plan.ObservedPod) { p.Spec.Subdomain = "web" }),
		}, nil, "10.0.0.2 a on n named web-0 [8080 5353] ready serving\n10.0.0.3 b on n [8080 5353] ready serving\n10.0.0.4 c on n [8080 5353] ready serving\n"},
		{"weights", routed(), []*plan.ObservedPod{
			routedPod("a", "10.0.0.2", annotated("100")), routedPod("b", "10.0.0.3", annotated("0")), routedPod("c", "10.0.0.4", annotated("101")),
			routedPod("d", "10.0.0.5", annotated("1.5")), routedPod("e", "10.0.0.6", annotated("7")),
		}, nil, `10.0.0.2 a on n [8080 5353] ready serving weight 100
10.0.0.3 b on n [8080 5353] ready serving
10.0.0.4 c on n [8080 5353] ready serving
10.0.0.5 d on n [8080 5353] ready serving
10.0.0.6 e on n [8080 5353] ready serving weight 7
`},
		{"ExternalName", routed(func(s *plan.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }), []*plan.ObservedPod{routedPod("a", "10.0.0.2")},
			[]*plan.EndpointSlice{slice("s")}, ""},
		{"headless without ports", routed(func(s *plan.Service) { s.Spec.ClusterIP, s.Spec.Ports = corev1.ClusterIPNone, nil }),
			[]*plan.ObservedPod{routedPod("a", "10.0.0.2")}, nil, "10.0.0.2 a on n [] ready serving\n"},
		{"no selector and nothing written", routed(bare), []*plan.ObservedPod{routedPod("a", "10.0.0.2")}, nil, ""},
		{"an empty selector", routed(func(s *plan.Service) { s.Spec.Selector = map[string]string{} }), []*plan.ObservedPod{routedPod("a", "10.0.0.2")}, nil, ""},
		{"written by hand", routed(bare), nil, []*plan.EndpointSlice{slice("s", func(s *discoveryv1.EndpointSlice) {
			s.Endpoints = []discoveryv1.Endpoint{
				{Addresses: []string{"192.0.2.1", "192.0.2.2"}, NodeName: new("far"), Hostname: new("h")},
				{Addresses: []string{"192.0.2.3"}, Conditions: discoveryv1.EndpointConditions{Ready: new(false)}},
				{Addresses: []string{"192.0.2.4"}, Conditions: discoveryv1.EndpointConditions{Ready: new(false), Serving: new(true), Terminating: new(true)}},
				{Addresses: []string{"192.0.2.5"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "p", UID: types.UID("u")}},
				{Addresses: []string{"fd00::1"}},
				{Addresses: []string{"example.com"}},
				{},
			}
		})}, `192.0.2.1  on far named h [81 0] ready serving from s
192.0.2.3  [81 0] from s
192.0.2.4  [81 0] serving terminating from s
192.0.2.5 p [81 0] ready serving from s
`},
		{"written by hand beside a selector", routed(), []*plan.ObservedPod{routedPod("a", "10.0.0.2")}, []*plan.EndpointSlice{slice("s")},
			"10.0.0.2 a on n [8080 5353] ready serving\n192.0.2.1  [81 0] ready serving from s\n"},
		{"written twice counts once", routed(bare), nil, []*plan.EndpointSlice{slice("b"), slice("a"), slice("c", func(s *discoveryv1.EndpointSlice) {
			s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: new("dns"), Protocol: new(corev1.ProtocolUDP), Port: new(int32(53))})
		})}, "192.0.2.1  [81 0] ready serving from a\n192.0.2.1  [0 53] ready serving from c\n"},
		{"ports of another name or protocol", routed(bare), nil, []*plan.EndpointSlice{slice("s", func(s *discoveryv1.EndpointSlice) {
			s.Ports = []discoveryv1.EndpointPort{{Port: new(int32(1))}, {Name: new("http"), Protocol: new(corev1.ProtocolUDP), Port: new(int32(1))}, {Name: new("dns"), Protocol: new(corev1.ProtocolUDP)}}
		})}, ""},
		{"of another Service", routed(bare, func(s *plan.Service) { s.Name = "other" }), nil, []*plan.EndpointSlice{slice("s")}, ""},
		{"Endpoints beside a selector", routed(), nil, []*plan.EndpointSlice{endpointsObject(slice("e"))}, ""},
		{"Endpoints", routed(bare), nil, []*plan.EndpointSlice{endpointsObject(slice("e"))}, "192.0.2.1  [81 0] ready serving from e\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := plan.MakeRoute(tt.service, tt.pods, tt.written, "n")
			if diff := cmp.Diff(tt.want, routeText(r)); diff != "" {
				t.Error(diff)
			}
			if r.Service != tt.service || len(r.Ports) != len(tt.service.Spec.Ports) {
				t.Errorf("of another Service, or with %d ports", len(r.Ports))
			}
		})
	}
	want := []plan.RoutePort{{Name: "http", Protocol: "TCP", Port: 80, NodePort: 30080, AppProtocol: "h2c"}, {Name: "dns", Protocol: "UDP", Port: 53}}
	if diff := cmp.Diff(want, plan.MakeRoute(routed(), nil, nil, "n").Ports); diff != "" {
		t.Error(diff)
	}
}

func annotated(weight string) func(*plan.ObservedPod) {
	return func(p *plan.ObservedPod) { p.Annotations = map[string]string{plan.WeightAnnotation: weight} }
}

func endpointsObject(s *plan.EndpointSlice) *plan.EndpointSlice {
	s.Ref.Group, s.Kind = "", "Endpoints"
	return s
}

// drawRoute draws a Service and pods that may be its endpoints.
func drawRoute(t *rapid.T) (*plan.Service, []*plan.ObservedPod) {
	s := routed(func(s *plan.Service) {
		s.Spec.PublishNotReadyAddresses = rapid.Bool().Draw(t, "publish")
		s.Spec.Ports = s.Spec.Ports[:rapid.IntRange(0, 2).Draw(t, "ports")]
	})
	var pods []*plan.ObservedPod
	for i := range rapid.IntRange(0, 250).Draw(t, "pods") {
		pods = append(pods, routedPod(fmt.Sprintf("p%d", i), fmt.Sprintf("10.0.%d.%d", i/200, i%200+1), func(p *plan.ObservedPod) {
			p.Ready, p.Terminating = rapid.Bool().Draw(t, "ready"), rapid.Bool().Draw(t, "terminating")
			p.Ready = p.Ready && !p.Terminating
			p.Phase = rapid.SampledFrom([]corev1.PodPhase{"Pending", "Running", "Running", "Succeeded", "Failed", "Unknown"}).Draw(t, "phase")
			if rapid.IntRange(0, 4).Draw(t, "unnamed") == 0 {
				p.Spec.Containers[0].Ports = nil
			}
			if rapid.IntRange(0, 4).Draw(t, "other") == 0 {
				p.Labels = map[string]string{"app": "other"}
			}
		}))
	}
	return s, pods
}

func TestRoutesDoNotDependOnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, pods := drawRoute(t)
		a := plan.MakeRoute(s, pods, nil, "n")
		b := plan.MakeRoute(s, rapid.Permutation(pods).Draw(t, "order"), nil, "n")
		if !a.Same(b) || routeText(a) != routeText(b) {
			t.Fatalf("%s\n%s", routeText(a), routeText(b))
		}
		selected := 0
		for _, p := range pods {
			if s.Selects(p.Namespace, p.Labels) {
				selected++
			}
		}
		// Every pod that is selected is an endpoint that is ready on all ports, or missing with a reason, or both.
		seen := map[plan.PodKey]bool{}
		for _, e := range a.Endpoints {
			seen[e.Pod] = true
			if e.Ready && !e.Serving && !s.Spec.PublishNotReadyAddresses || e.Weight < 1 || len(e.Ports) != len(a.Ports) {
				t.Fatalf("%+v", e)
			}
		}
		why := map[plan.PodKey]bool{}
		for _, m := range a.Missing {
			seen[m.Pod], why[m.Pod] = true, m.Reason != ""
		}
		for _, e := range a.Endpoints {
			if (!e.Ready || slices.Contains(e.Ports, 0)) && !e.Terminating && !why[e.Pod] {
				t.Fatalf("%+v is not said to be missing", e)
			}
		}
		if len(seen) != selected {
			t.Fatalf("%d pods are selected, %d are told of", selected, len(seen))
		}
		// Leaving out or turning one pod changes the Route of no other.
		if len(pods) > 0 {
			i := rapid.IntRange(0, len(pods)-1).Draw(t, "turned")
			turned := slices.Delete(slices.Clone(pods), i, i+1)
			without := func(r *plan.Route) string {
				var out []string
				for line := range strings.Lines(routeText(r)) {
					if f := strings.Fields(line); f[0] != pods[i].Name+":" && f[1] != pods[i].Name {
						out = append(out, line)
					}
				}
				return strings.Join(out, "")
			}
			if x, y := without(a), without(plan.MakeRoute(s, turned, nil, "n")); x != y {
				t.Fatalf("%s\n%s", x, y)
			}
		}
	})
}

func TestEndpointSlices(t *testing.T) {
	s := routed(func(s *plan.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone })
	pod := routedPod("a", "10.0.0.2", func(p *plan.ObservedPod) {
		p.Ready, p.Terminating, p.Spec.Hostname, p.Spec.Subdomain = false, true, "web-0", "web"
	})
	got := plan.MakeRoute(s, []*plan.ObservedPod{pod}, nil, "n").EndpointSlices("uid-1")
	if len(got) != 1 {
		t.Fatalf("%d slices", len(got))
	}
	v := got[0]
	if !strings.HasPrefix(v.Name, "web-") || v.Namespace != "shop" || v.AddressType != "IPv4" || v.OwnerReferences[0].UID != "uid-1" || v.OwnerReferences[0].Name != "web" {
		t.Errorf("%+v", v.ObjectMeta)
	}
	if diff := cmp.Diff(map[string]string{
		"team": "a", "kubernetes.io/service-name": "web", "service.kubernetes.io/headless": "",
		"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
	}, v.Labels); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]discoveryv1.EndpointPort{
		{Name: new("http"), Protocol: new(corev1.ProtocolTCP), Port: new(int32(8080)), AppProtocol: new("h2c")},
		{Name: new("dns"), Protocol: new(corev1.ProtocolUDP), Port: new(int32(5353))},
	}, v.Ports); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]discoveryv1.Endpoint{{
		Addresses: []string{"10.0.0.2"}, Hostname: new("web-0"), NodeName: new("n"),
		Conditions: discoveryv1.EndpointConditions{Ready: new(false), Serving: new(true), Terminating: new(true)},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: "a", UID: "u-a"},
	}}, v.Endpoints); diff != "" {
		t.Error(diff)
	}
	if empty := plan.MakeRoute(s, nil, nil, "n").EndpointSlices(""); len(empty) != 1 || len(empty[0].Endpoints) != 0 || empty[0].Ports != nil {
		t.Errorf("without endpoints: %v", empty)
	}
	if none := plan.MakeRoute(routed(func(s *plan.Service) { s.Spec.Selector = nil }), nil, nil, "n").EndpointSlices(""); none != nil {
		t.Errorf("without a selector: %v", none)
	}
}

// TestEndpointSlicesSayTheRoute: read back as hand-written ones they give the same endpoints.
func TestEndpointSlicesSayTheRoute(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, pods := drawRoute(t)
		r := plan.MakeRoute(s, pods, nil, "n")
		names := map[string]bool{}
		var all []string
		for _, v := range r.EndpointSlices("u") {
			if len(v.Endpoints) > 100 || names[v.Name] {
				t.Fatalf("slice %s has %d endpoints, or is not the only one of that name", v.Name, len(v.Endpoints))
			}
			names[v.Name] = true
			for _, e := range v.Endpoints {
				ports := make([]int32, len(r.Ports))
				for i, p := range r.Ports {
					for _, have := range v.Ports {
						if *have.Name == p.Name && *have.Protocol == p.Protocol {
							ports[i] = *have.Port
						}
					}
				}
				all = append(all, fmt.Sprint(e.Addresses[0], e.TargetRef.Name, e.TargetRef.UID, *e.NodeName, *e.Conditions.Ready, *e.Conditions.Serving, *e.Conditions.Terminating, ports))
			}
		}
		var want []string
		for _, e := range r.Endpoints {
			want = append(want, fmt.Sprint(e.Address, e.Pod.Name, e.UID, e.Node, e.Ready, e.Serving, e.Terminating, e.Ports))
		}
		slices.Sort(all)
		slices.Sort(want)
		if diff := cmp.Diff(want, all); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestBackends(t *testing.T) {
	e := func(ready, serving, terminating bool, node plan.NodeID, port int32) plan.Endpoint {
		return plan.Endpoint{Address: netip.MustParseAddr("10.0.0.1"), Ready: ready, Serving: serving, Terminating: terminating, Node: node, Ports: []int32{port}}
	}
	ready, unready, draining, dead := e(true, true, false, "a", 1), e(false, false, false, "a", 1), e(false, true, true, "a", 1), e(false, false, true, "a", 1)
	for name, tt := range map[string]struct {
		of   []plan.Endpoint
		on   plan.NodeID
		want []int
	}{
		"ready ones":                     {[]plan.Endpoint{unready, ready, draining, ready}, "", []int{1, 3}},
		"draining when none is ready":    {[]plan.Endpoint{unready, draining, dead}, "", []int{1}},
		"none":                           {[]plan.Endpoint{unready, dead}, "", nil},
		"without that port":              {[]plan.Endpoint{e(true, true, false, "a", 0), draining}, "", []int{1}},
		"of one node":                    {[]plan.Endpoint{e(true, true, false, "b", 1), ready}, "a", []int{1}},
		"of one node where none is here": {[]plan.Endpoint{e(true, true, false, "b", 1)}, "a", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, (&plan.Route{Endpoints: tt.of}).Backends(0, tt.on)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

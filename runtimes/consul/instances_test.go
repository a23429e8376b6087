package consul

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

func namer(t interface{ Fatal(...any) }, change ...func(*Options)) *naming {
	o := Options{Installation: "test"}
	for _, f := range change {
		f(&o)
	}
	o, sel, err := o.complete()
	if err != nil {
		t.Fatal(err)
	}
	return newNaming(o, sel)
}

// TestNamesOfServices shows every rule of naming.
func TestNamesOfServices(t *testing.T) {
	long := strings.Repeat("a", 63)
	routes := plan.Routes{
		svc("a/b-c"), svc("default/consul"), svc("default/dns"), svc("default/" + long), svc("default/picked"), svc("default/same"),
		svc("default/twice"), svc("default/web"), svc("default/web-shop"), svc("default/wrong"), svc("shop/web"),
	}
	annotated := func(name, value string) func(*plan.Route) {
		return func(r *plan.Route) { r.Annotations = map[string]string{name: value} }
	}
	routes[2] = with(routes[2], func(r *plan.Route) {
		r.Ports = []plan.RoutePort{{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53}, {Name: "dns-tcp", Protocol: corev1.ProtocolTCP, Port: 53}, {Protocol: corev1.ProtocolTCP, Port: 99}}
	})
	routes[4] = with(routes[4], annotated(NameAnnotation, "shared"))
	routes[5] = with(routes[5], annotated(NameAnnotation, "shared"))
	routes[6] = with(routes[6], annotated(NameAnnotation, "web"))
	routes[9] = with(routes[9], annotated(NameAnnotation, "Not.A.Label"))
	got := map[string]string{}
	problems := 0
	for ref, n := range namer(t).assign(routes) {
		got[ref.Namespace+"/"+ref.Name] = strings.Join(n.ports, " ")
		if n.problem != "" {
			problems++
		}
	}
	want := map[string]string{
		"a/b-c":           "b-c-a",
		"default/consul":  "consul-d5be425a", // Consul's servers have that name
		"default/dns":     "dns-dns dns-dns-tcp dns-99",
		"default/" + long: long,
		"default/picked":  "shared", "default/same": "shared",
		"default/twice":    "web",
		"default/web":      "web-f1427d51", // another one chose web
		"default/web-shop": "web-shop",
		"default/wrong":    "wrong",
		"shop/web":         "web-shop-b2e56c39", // default/web-shop has web-shop
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if problems != 1 {
		t.Errorf("%d problems, not the one of default/wrong", problems)
	}
}

func TestSelection(t *testing.T) {
	labelled := with(svc("shop/web"), func(r *plan.Route) { r.Labels = map[string]string{"tier": "front"} })
	for _, test := range []struct {
		name       string
		selection  Selection
		annotation string
		want       bool
	}{
		{"default", Selection{}, "", true},
		{"annotated false", Selection{}, "false", false},
		{"only annotated, without", Selection{Annotated: true}, "", false},
		{"only annotated, with", Selection{Annotated: true}, "true", true},
		{"namespace", Selection{Namespaces: []string{"a", "shop"}}, "", true},
		{"other namespace", Selection{Namespaces: []string{"a"}}, "true", false},
		{"selector", Selection{Selector: "tier in (front,back)"}, "", true},
		{"other selector", Selection{Selector: "tier!=front"}, "true", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := labelled
			if test.annotation != "" {
				r = with(r, func(r *plan.Route) { r.Annotations = map[string]string{RegisterAnnotation: test.annotation} })
			}
			if got := namer(t, func(o *Options) { o.Register = test.selection }).wants(r.Service); got != test.want {
				t.Errorf("wants %t", got)
			}
		})
	}
	external := with(labelled, func(r *plan.Route) { r.Spec = &corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName} })
	if namer(t).wants(external.Service) {
		t.Error("a Service of type ExternalName has no endpoints to register")
	}
}

// TestNodes holds that each node registers its own endpoints, and those that are on none.
func TestNodes(t *testing.T) {
	r := svc("default/web", "10.1.0.1", "10.1.0.2", "10.1.0.3")
	r.Endpoints[0].Node, r.Endpoints[1].Node = "one", "two"
	n := namer(t, func(o *Options) { o.Node = "one" })
	var got []string
	for _, i := range n.instances(r, n.assign(plan.Routes{r})[r.Ref]) {
		got = append(got, i.Address+" "+i.Meta[metaNode])
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"10.1.0.1 one", "10.1.0.3 "}, got); diff != "" {
		t.Error(diff)
	}
}

// TestNamingProperties holds for any Services: names are DNS labels, no two Services share one, and IDs are as many as
// instances and do not depend on the order of endpoints.
func TestNamingProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z]([a-b-]{0,3}[a-b])?|[a-z][a-z-]{55,61}[a-z]`)
		n := namer(t, func(o *Options) { o.ClusterAddresses, o.NodePorts = true, rapid.Bool().Draw(t, "node ports") })
		seen := map[object.Ref]bool{}
		var routes plan.Routes
		for range rapid.IntRange(1, 12).Draw(t, "services") {
			ns := rapid.SampledFrom([]string{"default", "a", "b", "a-b", "cluster"}).Draw(t, "namespace")
			r := svc(ns+"/"+name.Draw(t, "name"), "10.1.0.1", "10.1.0.2", "10.1.0.3")
			if seen[r.Ref] {
				continue
			}
			seen[r.Ref] = true
			ports := rapid.IntRange(1, 3).Draw(t, "ports")
			r.Ports = nil
			for i := range ports {
				r.Ports = append(r.Ports, plan.RoutePort{Name: fmt.Sprintf("p%d", i), Protocol: corev1.ProtocolTCP, Port: int32(80 + i), NodePort: int32(30000 + i)})
			}
			for i := range r.Endpoints {
				r.Endpoints[i].Ports = make([]int32, ports)
				for p := range ports {
					r.Endpoints[i].Ports[p] = int32(8000 + p)
				}
			}
			routes = append(routes, r)
		}
		assigned := n.assign(routes)
		shuffled := slices.Clone(routes)
		slices.Reverse(shuffled)
		if diff := cmp.Diff(assigned, n.assign(shuffled), cmp.AllowUnexported(names{})); diff != "" {
			t.Fatalf("names depend on the order: %s", diff)
		}
		owner, ids := map[string]string{}, map[string]bool{}
		for _, r := range routes {
			all := n.instances(r, assigned[r.Ref])
			back := with(r, func(r *plan.Route) { slices.Reverse(r.Endpoints) })
			if !slices.EqualFunc(all, n.instances(back, assigned[r.Ref]), func(a, b *instance) bool { return cmp.Equal(a, b) }) {
				t.Fatal("instances depend on the order of endpoints")
			}
			if len(all) < 3*len(r.Ports) {
				t.Fatalf("%d instances of %d ports", len(all), len(r.Ports))
			}
			for _, i := range all {
				if ids[i.ID] {
					t.Fatalf("ID %s twice", i.ID)
				}
				ids[i.ID] = true
				if !label.MatchString(i.Name) || len(i.Name) > maxLabel {
					t.Fatalf("%q is no DNS label", i.Name)
				}
				who := r.Ref.String() + i.Meta[metaPort] + i.Meta[metaKind]
				if was, ok := owner[i.Name]; ok && was != who {
					t.Fatalf("%s is the name of %s and of %s", i.Name, was, who)
				}
				owner[i.Name] = who
			}
		}
	})
}

func TestOptionsThatAreWrong(t *testing.T) {
	for want, change := range map[string]func(*Options){
		"installation":    func(o *Options) { o.Installation = "a/b" },
		"prefix":          func(o *Options) { o.Prefix = "A." },
		"ttl":             func(o *Options) { o.TTL = 1 },
		"deregisterAfter": func(o *Options) { o.DeregisterAfter = 1 },
		"compare":         func(o *Options) { o.Compare = 1 },
		"timeout":         func(o *Options) { o.Timeout = 1 },
		"parallel":        func(o *Options) { o.Parallel = -1 },
		"certFile":        func(o *Options) { o.CertFile = "x" },
		"tokenFile":       func(o *Options) { o.Token, o.TokenFile = "x", "y" },
		"selector":        func(o *Options) { o.Register.Selector = "a in" },
		"tag":             func(o *Options) { o.Tags = []string{""} },
	} {
		o := Options{Installation: "test"}
		change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

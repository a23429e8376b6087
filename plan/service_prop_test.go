package plan_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/plan/simulate"
	"github.com/fairlead-dev/fairlead/render/object"
)

// smallRanges are so small that Services of one plan come into each other's way.
func smallRanges() plan.Options {
	o := options
	o.Services = plantest.Ranges()
	o.Services.ClusterIPs = netip.MustParsePrefix("10.80.0.0/28")
	o.Services.NodePorts = [2]int32{30000, 30007}
	return o
}

// drawService draws a Service of any type, with or without addresses that are written, also wrong ones.
func drawService(t *rapid.T, name string) object.Object {
	s := &corev1.Service{TypeMeta: v1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: v1.ObjectMeta{Namespace: "shop", Name: name}}
	s.Spec.Type = rapid.SampledFrom([]corev1.ServiceType{corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer}).Draw(t, name+" type")
	if rapid.IntRange(0, 3).Draw(t, name+" written") == 0 {
		s.Spec.ClusterIP = fmt.Sprintf("10.80.0.%d", rapid.IntRange(0, 17).Draw(t, name+" address"))
	}
	for i := range rapid.IntRange(1, 2).Draw(t, name+" ports") {
		p := corev1.ServicePort{Name: fmt.Sprintf("p%d", i), Protocol: corev1.ProtocolTCP, Port: int32(80 + rapid.IntRange(0, 2).Draw(t, name+" port") + 10*i)}
		if s.Spec.Type != corev1.ServiceTypeClusterIP && rapid.IntRange(0, 3).Draw(t, name+" node port written") == 0 {
			p.NodePort = int32(rapid.IntRange(29999, 30008).Draw(t, name+" node port"))
		}
		s.Spec.Ports = append(s.Spec.Ports, p)
	}
	o := plantest.Object(object.Ref{Kind: "Service", Namespace: "shop", Name: name}, "v1", s)
	o.Value = s
	return o
}

func drawServices(t *rapid.T) []object.Object {
	var objs []object.Object
	for i := range rapid.IntRange(1, 9).Draw(t, "services") {
		objs = append(objs, drawService(t, fmt.Sprintf("s%d", i)))
	}
	return objs
}

func emptyNode() plan.Observed {
	return plan.Observed{Now: plantest.Now, Nodes: []plan.NodeState{{Node: plantest.Node}}}
}

// served are what the node serves, by name.
func served(o plan.Observed) map[string]*plan.Service {
	out := map[string]*plan.Service{}
	for _, s := range o.Nodes[0].Services {
		out[s.Name] = s
	}
	return out
}

// unique fails when two Services have one address or port.
func unique(t *rapid.T, o plan.Observed) {
	has := map[string]string{}
	take := func(what, who string) {
		if other, taken := has[what]; taken {
			t.Fatalf("%s belongs to %s and to %s", what, other, who)
		}
		has[what] = who
	}
	for _, s := range o.Nodes[0].Services {
		take(s.Spec.ClusterIP, s.Name)
		for i := range s.Spec.Ports {
			p := &s.Spec.Ports[i]
			if p.NodePort != 0 {
				take(fmt.Sprint("port ", p.NodePort, p.Protocol), s.Name)
			}
			for _, a := range s.LoadBalancerIPs {
				take(fmt.Sprint(a, p.Port, p.Protocol), s.Name)
			}
		}
	}
}

func TestAddressesOfServicesAreUniqueAndASecondPlanIsEmpty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		opt := smallRanges()
		d, _ := plan.Expand(shop, drawServices(t), true)
		p := plan.Compute(d, emptyNode(), opt)
		after := simulate.Plan(d, emptyNode(), p, opt.DigestKey)
		unique(t, after)
		if again := plan.Compute(d, after, opt); !again.Empty() {
			t.Fatalf("the second plan is not empty:\n%s", plantest.Text(again, plantest.Now))
		}
		for _, s := range served(after) {
			if a := netip.MustParseAddr(s.Spec.ClusterIP); !opt.Services.ClusterIPs.Contains(a) || a == opt.Services.ClusterIPs.Addr() {
				t.Fatalf("%s has %s", s.Name, a)
			}
		}
	})
}

func TestAddressesOfServicesDoNotDependOnTheOrderOfObjects(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		opt := smallRanges()
		objs := drawServices(t)
		d, _ := plan.Expand(shop, objs, true)
		other, _ := plan.Expand(shop, rapid.Permutation(objs).Draw(t, "order"), true)
		if diff := cmp.Diff(plantest.Text(plan.Compute(d, emptyNode(), opt), plantest.Now), plantest.Text(plan.Compute(other, emptyNode(), opt), plantest.Now)); diff != "" {
			t.Fatalf("another order gives another plan:\n%s", diff)
		}
	})
}

func TestAddressesOfServicesStayWhenOthersComeAndGo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		opt := smallRanges()
		objs := drawServices(t)
		d, _ := plan.Expand(shop, objs, true)
		observed := simulate.Plan(d, emptyNode(), plan.Compute(d, emptyNode(), opt), opt.DigestKey)
		before := served(observed)
		next := slices.DeleteFunc(slices.Clone(objs), func(o object.Object) bool { return rapid.IntRange(0, 2).Draw(t, "gone "+o.Name) == 0 })
		for i := range rapid.IntRange(0, 4).Draw(t, "new") {
			next = append(next, drawService(t, fmt.Sprintf("a%d", i)))
		}
		d, _ = plan.Expand(shop, next, true)
		observed = simulate.Plan(d, observed, plan.Compute(d, observed, opt), opt.DigestKey)
		unique(t, observed)
		after := served(observed)
		for _, o := range next {
			if was, now := before[o.Name], after[o.Name]; was != nil && (now == nil || was.Hash != now.Hash) {
				t.Fatalf("%s was %v and is %v", o.Name, was, now)
			}
		}
	})
}

func TestFindingsOfServicesHaveTheLineOfTheField(t *testing.T) {
	s := &corev1.Service{TypeMeta: v1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: v1.ObjectMeta{Namespace: "shop", Name: "web"}}
	s.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, ClusterIP: "10.99.0.1", Ports: []corev1.ServicePort{{Port: 80, NodePort: 80, Protocol: corev1.ProtocolTCP}}}
	o := plantest.Object(object.Ref{Kind: "Service", Namespace: "shop", Name: "web"}, "v1", s)
	o.Value = s
	o.Places = []object.Place{{Field: "spec.clusterIP", Path: "patch.yaml", Line: 7}, {Field: "spec.ports[0].nodePort", Path: "all.yaml", Line: 12}}
	d, _ := plan.Expand(shop, []object.Object{o}, true)
	var at []string
	for _, f := range plan.Compute(d, emptyNode(), smallRanges()).Diags {
		at = append(at, f.Origin.String()+" "+f.Field)
	}
	if diff := cmp.Diff([]string{"patch.yaml:7 spec.clusterIP", "all.yaml:12 spec.ports[80/TCP].nodePort"}, at); diff != "" {
		t.Errorf("places (-want +got):\n%s", diff)
	}
}

package plan_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/plan/simulate"
	"github.com/fairlead-dev/fairlead/render/object"
)

// aService returns a Service in the namespace shop.
func aService(name string) object.Object {
	s := &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}},
	}
	o := plantest.Object(object.Ref{Kind: "Service", Namespace: "shop", Name: name}, "v1", s)
	o.Value = s
	return o
}

// TestMovesDestroyNothing has one application with random objects that all run, and moves some of them to another one.
// Whoever is reconciled first, and wherever the plan of the new owner breaks off: no pod is made or ended, no address is
// changed, and at the end both have nothing left to do.
func TestMovesDestroyNothing(t *testing.T) {
	opt := plan.Options{Node: plantest.Node, DigestKey: []byte("key"), Services: plantest.Ranges()}
	from, to := plan.Application{Name: "from", Prune: true, AllowEmpty: true}, plan.Application{Name: "to", Prune: true, AllowEmpty: true}
	rapid.Check(t, func(t *rapid.T) {
		var objs []object.Object
		for i := range rapid.IntRange(1, 3).Draw(t, "workloads") {
			name := fmt.Sprintf("web-%d", i)
			objs = append(objs, plantest.Deployments(name).Draw(t, name), plantest.ConfigMap(name, "1"), aService(name))
		}
		before, _ := plan.Expand(from, objs, true)
		world := plan.Observed{Now: plantest.Now, Nodes: []plan.NodeState{{Node: plantest.Node}}}
		world = simulate.Plan(before, world, plan.Compute(before, world, opt), opt.DigestKey)
		started := world.Nodes[0]

		arrivals, departures := map[object.Ref]plan.Arrival{}, map[object.Ref]plan.Departure{}
		var stay, move []object.Object
		for _, o := range objs {
			if !rapid.Bool().Draw(t, o.Kind+" "+o.Name+" moves") {
				stay = append(stay, o)
				continue
			}
			move = append(move, o)
			i := slices.IndexFunc(world.Applied, func(a plan.Applied) bool { return a.Ref == o.Ref })
			arrivals[o.Ref] = plan.Arrival{From: "from", Applied: &world.Applied[i]}
			departures[o.Ref] = plan.Departure{To: "to"}
		}
		old, _ := plan.Expand(from, stay, true)
		now, _ := plan.Expand(to, move, true)
		theirs := world
		theirs.Departures = departures
		mine := world
		mine.Applied, mine.Arrivals = nil, arrivals

		oldFirst := rapid.Bool().Draw(t, "the old owner is first")
		look := func() {
			p := plan.Compute(old, theirs, opt)
			if !p.Empty() {
				t.Fatalf("the old owner is not done:\n%s", plantest.Text(p, plantest.Now))
			}
		}
		if oldFirst {
			look()
		}
		p := plan.Compute(now, mine, opt)
		for _, s := range p.Steps {
			switch s.Op {
			case plan.OpMovePod, plan.OpSetService:
			default:
				t.Fatalf("the new owner does more than to take over: %s\n%s", s, plantest.Text(p, plantest.Now))
			}
		}
		if add, _, destroy := p.Counts(); add+destroy > 0 {
			t.Fatalf("%d to add, %d to destroy", add, destroy)
		}
		// It breaks off: what was moved by then is written down, and the rest follows.
		w := simulate.NewWorld(mine)
		for _, s := range p.Steps[:rapid.IntRange(0, len(p.Steps)).Draw(t, "steps")] {
			w.Do(s)
		}
		mine = w.Observed()
		mine.Applied, mine.Arrivals = simulate.Record(now, nil, p, opt.DigestKey), nil
		theirs.Nodes = mine.Nodes
		look()
		mine = simulate.Plan(now, mine, plan.Compute(now, mine, opt), opt.DigestKey)
		if p := plan.Compute(now, mine, opt); !p.Empty() {
			t.Fatalf("the new owner is not done:\n%s", plantest.Text(p, plantest.Now))
		}
		// The old owner has forgotten what moved.
		theirs.Nodes, theirs.Departures = mine.Nodes, nil
		theirs.Applied = slices.DeleteFunc(slices.Clone(theirs.Applied), func(a plan.Applied) bool { _, moved := departures[a.Ref]; return moved })
		look()

		uids := func(n plan.NodeState) (out []string) {
			for _, p := range n.Pods {
				out = append(out, p.UID)
			}
			return out
		}
		if d := cmp.Diff(uids(started), uids(mine.Nodes[0])); d != "" {
			t.Fatalf("pods before and after (-before +after):\n%s", d)
		}
		for i, s := range mine.Nodes[0].Services {
			was := started.Services[i]
			if s.Spec.ClusterIP != was.Spec.ClusterIP || s.Spec.Ports[0].NodePort != was.Spec.Ports[0].NodePort {
				t.Fatalf("%s had %s and port %d, and has %s and port %d", s.Ref, was.Spec.ClusterIP, was.Spec.Ports[0].NodePort, s.Spec.ClusterIP, s.Spec.Ports[0].NodePort)
			}
		}
	})
}

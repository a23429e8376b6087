package plan_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/plan/simulate"
	"github.com/fairlead-dev/fairlead/render/object"
)

var (
	shop    = plan.Application{Name: "shop", Prune: true}
	options = plan.Options{Node: plantest.Node, DigestKey: []byte("key")}
)

// drawn is an input of Compute with one Deployment, and more.
type drawn struct {
	desired  plan.Desired
	observed plan.Observed
	spec     appsv1.DeploymentSpec
}

func draw(t *rapid.T) drawn {
	web := plantest.Deployments("web").Draw(t, "web")
	objs := []object.Object{web, plantest.ConfigMap("a", "1"), plantest.ConfigMap("b", "1")}
	d, _ := plan.Expand(shop, objs, true)
	i := slices.IndexFunc(d.Workloads, func(w plan.Workload) bool { return w.Ref == web.Ref })
	pods := plantest.Pods(&d.Workloads[i]).Draw(t, "pods")
	var applied []plan.Applied
	if rapid.Bool().Draw(t, "applied") {
		for _, o := range d.Objects {
			applied = append(applied, plan.RedactApplied(o, options.DigestKey))
		}
	}
	return drawn{
		desired: d, spec: web.Value.(*appsv1.Deployment).Spec,
		observed: plan.Observed{Now: plantest.Now, Applied: applied, Nodes: []plan.NodeState{
			{Node: plantest.Node, Pods: pods},
			{Node: "n2", Stale: true, Pods: []plan.ObservedPod{}},
		}[:rapid.IntRange(1, 2).Draw(t, "nodes")]},
	}
}

func TestShuffledInputGivesTheSamePlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		want := plan.Compute(in.desired, in.observed, options)
		objs := rapid.Permutation(in.desired.Objects).Draw(t, "objects")
		d, _ := plan.Expand(shop, objs, true)
		o := in.observed
		o.Nodes = rapid.Permutation(o.Nodes).Draw(t, "order of nodes")
		for i := range o.Nodes {
			o.Nodes[i].Pods = rapid.Permutation(o.Nodes[i].Pods).Draw(t, "order of pods")
		}
		o.Applied = rapid.Permutation(o.Applied).Draw(t, "order of applied")
		got := plan.Compute(d, o, options)
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b *plan.Pod) bool { return a.PodKey == b.PodKey && a.Template == b.Template })); diff != "" {
			t.Fatalf("the plan of shuffled input (-sorted +shuffled):\n%s", diff)
		}
	})
}

// TestPlansEnd holds that what a plan does is enough: when all of it is done, nothing is left, unless
// pods were stopping (what waits for them comes in a second plan) or something has to wait for a time to come.
func TestPlansEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		first := plan.Compute(in.desired, in.observed, options)
		after := simulate.Plan(in.desired, in.observed, first, options.DigestKey)
		second := plan.Compute(in.desired, after, options)
		if slices.ContainsFunc(in.observed.Nodes[0].Pods, func(p plan.ObservedPod) bool { return p.Terminating }) {
			after = simulate.Plan(in.desired, after, second, options.DigestKey)
			second = plan.Compute(in.desired, after, options)
		}
		if !second.Empty() && second.Wake.IsZero() {
			t.Fatalf("first:\n%s\nsecond:\n%s", first, plantest.Text(second, plantest.Now))
		}
		if len(after.Applied) != 3 {
			t.Fatalf("inventory of %d objects", len(after.Applied))
		}
	})
}

// TestEveryPrefixServes takes the steps in any order that they allow, and looks at every moment.
func TestEveryPrefixServes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		if in.spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || in.spec.Paused {
			t.Skip("stops first, or not at all")
		}
		want := int(*in.spec.Replicas)
		surge, _ := intstr.GetScaledValueFromIntOrPercent(in.spec.Strategy.RollingUpdate.MaxSurge, want, true)
		unavailable, _ := intstr.GetScaledValueFromIntOrPercent(in.spec.Strategy.RollingUpdate.MaxUnavailable, want, false)
		if surge == 0 && unavailable == 0 {
			unavailable = 1
		}
		minReady := time.Duration(in.spec.MinReadySeconds) * time.Second
		count := func(o plan.Observed) (total, available int) {
			for _, p := range o.Nodes[slices.IndexFunc(o.Nodes, func(n plan.NodeState) bool { return n.Node == plantest.Node })].Pods {
				if p.Terminating || p.Phase == corev1.PodFailed {
					continue
				}
				total++
				if p.Ready && !p.ReadySince.Add(minReady).After(o.Now) {
					available++
				}
			}
			return total, available
		}
		p := plan.Compute(in.desired, in.observed, options)
		w := simulate.NewWorld(in.observed)
		total, available := count(in.observed)
		most, least := max(total, want+surge), min(available, max(0, want-unavailable))
		done := map[plan.StepID]bool{}
		for len(done) < len(p.Steps) {
			var next []plan.Step
			for _, s := range p.Steps {
				if !done[s.ID] && !slices.ContainsFunc(s.After, func(id plan.StepID) bool { return !done[id] }) {
					next = append(next, s)
				}
			}
			if len(next) == 0 {
				t.Fatalf("steps wait for each other:\n%s", p)
			}
			s := rapid.SampledFrom(next).Draw(t, "step")
			done[s.ID] = true
			if args, ok := s.Args.(plan.CreatePod); ok {
				w.Create(s.Node, args.Pod, false)
			} else {
				w.Do(s)
			}
			if total, available := count(w.Observed()); total > most || available < least {
				t.Fatalf("after step %s: %d pods (at most %d), %d available (at least %d)\n%s", s, total, most, available, least, p)
			}
		}
	})
}

func TestForeignAndStaleAreNotTouched(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		stale := rapid.Bool().Draw(t, "stale")
		in.observed.Nodes[0].Stale = stale
		claimed := rapid.Bool().Draw(t, "claimed")
		if claimed {
			in.observed.Claims = map[object.Ref]string{in.desired.Workloads[0].Ref: "other"}
		}
		p := plan.Compute(in.desired, in.observed, options)
		moves := map[object.Ref]plan.StepID{}
		for _, s := range p.Steps {
			if s.Node != plantest.Node || stale {
				t.Fatalf("step on %s, which does not answer: %s", s.Node, s)
			}
			if s.Op == plan.OpMovePod {
				moves[s.Target] = s.ID
			}
			for _, pod := range in.observed.Nodes[0].Pods {
				if pod.Application == shop.Name || s.Target != pod.Ref() {
					continue
				}
				if claimed {
					t.Fatalf("step on a pod of application %s: %s", pod.Application, s)
				}
				if id := moves[s.Target]; id == 0 || s.ID != id && !slices.Contains(s.After, id) && s.Op != plan.OpWaitReady {
					t.Fatalf("step on a pod that was not taken over from application %s: %s", pod.Application, s)
				}
			}
		}
	})
}

func TestIncompleteDoesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		in.desired.Complete = false
		if p := plan.Compute(in.desired, in.observed, options); !p.Empty() {
			t.Fatalf("from an incomplete render:\n%s", plantest.Text(p, plantest.Now))
		}
	})
}

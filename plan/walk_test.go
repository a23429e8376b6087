package plan_test

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/simulate"
)

// TestWalkIsNotOvertakenByItself holds that what is planned in the middle of a walk is part of what the
// walk is about to do: otherwise every step would cut it short.
func TestWalkIsNotOvertakenByItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		if in.spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || in.spec.Paused {
			t.Skip("covered by the order of its steps")
		}
		p := plan.Compute(in.desired, in.observed, options)
		if p.Status[0].Health == "Degraded" {
			t.Skip("a rollout that has stopped goes on when a pod is created, in another walk")
		}
		wanted := map[string]bool{}
		name := func(s plan.Step) string { return string(s.Op) + " " + s.Target.String() }
		for _, s := range p.Steps {
			wanted[name(s)] = true
		}
		applied := simulate.Record(in.desired, in.observed.Applied, p, options.DigestKey)
		w := simulate.NewWorld(in.observed)
		done := map[plan.StepID]bool{}
		for len(done) < len(p.Steps) {
			var next []plan.Step
			for _, s := range p.Steps {
				if !done[s.ID] && !slices.ContainsFunc(s.After, func(id plan.StepID) bool { return !done[id] }) {
					next = append(next, s)
				}
			}
			s := rapid.SampledFrom(next).Draw(t, "step")
			done[s.ID] = true
			if args, ok := s.Args.(plan.CreatePod); ok {
				w.Create(s.Node, args.Pod, false)
			} else {
				w.Do(s)
			}
			o := w.Observed()
			o.Applied = applied
			again := plan.Compute(in.desired, o, options)
			for _, n := range again.Steps {
				if n.Op != plan.OpWaitReady && n.Op != plan.OpPullImage && !wanted[name(n)] {
					t.Fatalf("after %s, %s is planned, which is not in\n%s", s, n, p)
				}
			}
		}
	})
}

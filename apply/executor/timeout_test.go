package executor

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes/fake"
)

// TestStepsThatAreCutShortHoldNothing begins one step of every kind that can wait, and ends all of them by a timeout, as
// that of a walk does. What they waited for or held is free then: the next steps on the same things go through. The bubble
// holds that no goroutine is left.
func TestStepsThatAreCutShortHoldNothing(t *testing.T) {
	inServices(t, []time.Duration{time.Minute}, func(w *world, r []*recorder) {
		w.engine.AddImage("deaf", fake.Image{Present: true, Process: fake.Process{IgnoreTERM: true}})
		w.engine.AddImage("stuck", fake.Image{Pull: fake.Pull{Takes: time.Hour}})
		w.must(plan.SetService{Service: service("a")})
		goes := labelled("goes", "a")
		goes.Spec.Containers[0].Image = "deaf"
		w.must(plan.CreatePod{Pod: goes})
		w.must(plan.WaitReady{Pod: key("goes")})
		w.prober.set("web", true)
		r[0].change(func() { r[0].slow = time.Hour }) // the gate of the Service holds the pod that goes

		never := labelled("never", "a", probed())
		w.must(plan.CreatePod{Pod: never})
		uid := w.observe("goes").UID
		// Not the test's own context, which ends outside of the bubble.
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		steps := map[string]plan.Args{
			"a pod that is never ready":        plan.WaitReady{Pod: key("never")},
			"an image that does not come":      plan.PullImage{Image: "stuck"},
			"a pod that waits at a gate":       plan.DeletePod{Pod: key("goes"), UID: uid},
			"a pod whose name is not free yet": plan.CreatePod{Pod: labelled("goes", "b")},
		}
		ended := make(chan string, len(steps))
		began := time.Now()
		for _, name := range slices.Sorted(maps.Keys(steps)) { // the pod goes before its name is waited for
			go func() {
				err := w.node.Do(ctx, plan.Step{ID: 1, Args: steps[name]})
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: %v", name, err)
				}
				ended <- name
			}()
			synctest.Wait()
		}
		for range steps {
			if name := <-ended; time.Since(began) != 10*time.Second {
				t.Errorf("%s was given up after %s", name, time.Since(began))
			}
		}
		// The next commit goes on with all of it, after the gate of the registry that still hangs at the latest.
		w.prober.set("web", false)
		r[0].change(func() { r[0].slow = 0 })
		began = time.Now()
		w.must(plan.SetService{Service: service("a", at("10.80.0.9"))})
		w.must(plan.WaitReady{Pod: key("never")})
		w.engine.AddImage("stuck", fake.Image{Pull: fake.Pull{}})
		w.must(plan.CreatePod{Pod: labelled("other", "a")})
		if took := time.Since(began); took > time.Minute+5*time.Second {
			t.Errorf("what came next took %s", took)
		}
		w.must(plan.DeletePod{Pod: key("never"), UID: w.observe("never").UID})
		// What was to be deleted goes, by its node alone, and its name is free.
		w.must(plan.DeletePod{Pod: key("goes"), UID: uid})
		w.must(plan.CreatePod{Pod: labelled("goes", "b")})
	})
}

package apply

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// fakeNode takes every step in the time that the test says.
type fakeNode struct {
	takes func(plan.Step) (time.Duration, error)

	mu      sync.Mutex
	began   map[plan.StepID]time.Time
	ended   map[plan.StepID]time.Time
	acting  int
	highest int
}

func newFake(takes func(plan.Step) (time.Duration, error)) *fakeNode {
	return &fakeNode{takes: takes, began: map[plan.StepID]time.Time{}, ended: map[plan.StepID]time.Time{}}
}

func (f *fakeNode) Describe(context.Context) (plan.Node, error)     { return plan.Node{}, nil }
func (f *fakeNode) Observe(context.Context) (plan.NodeState, error) { return plan.NodeState{}, nil }
func (f *fakeNode) Watch(ctx context.Context, _ func()) error       { <-ctx.Done(); return nil }

func (f *fakeNode) Do(ctx context.Context, s plan.Step) error {
	f.mu.Lock()
	f.began[s.ID] = time.Now()
	if acts(s.Op) {
		f.acting++
		f.highest = max(f.highest, f.acting)
	}
	f.mu.Unlock()
	took, err := f.takes(s)
	if s.Op == plan.OpWaitReady {
		select {
		case <-time.After(took):
		case <-ctx.Done():
			err = ctx.Err()
		}
	} else {
		time.Sleep(took) // a call to the engine that is in flight is finished
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended[s.ID] = time.Now()
	if acts(s.Op) {
		f.acting--
	}
	return err
}

// recorder keeps the order of what it is told; it is not safe for concurrent use on purpose.
type recorder struct{ lines []string }

func (r *recorder) Started(s plan.Step) { r.lines = append(r.lines, fmt.Sprintf("started %d", s.ID)) }
func (r *recorder) Done(s plan.Step, err error, took time.Duration) {
	r.lines = append(r.lines, fmt.Sprintf("done %d %v %v", s.ID, took, err))
}

func pod(name string) object.Ref { return object.Ref{Kind: "Pod", Namespace: "ns", Name: name} }

func steps(ss ...plan.Step) plan.Plan {
	for i := range ss {
		ss[i].Node, ss[i].Target = "a", pod(fmt.Sprint(ss[i].ID))
	}
	return plan.Plan{Steps: ss}
}

func ids(ss []plan.Step) []plan.StepID {
	var out []plan.StepID
	for _, s := range ss {
		out = append(out, s.ID)
	}
	return out
}

func failures(fs []Failure) []string {
	var out []string
	for _, f := range fs {
		out = append(out, fmt.Sprintf("%d: %v", f.Step.ID, f.Err))
	}
	return out
}

func TestFailureSkipsOnlyDependants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		node := newFake(func(s plan.Step) (time.Duration, error) {
			if s.ID == 1 {
				return time.Second, broken
			}
			return 2 * time.Second, nil
		})
		rec := &recorder{}
		r := Run(t.Context(), steps(
			plan.Step{ID: 1, Op: plan.OpCreatePod},
			plan.Step{ID: 2, Op: plan.OpWaitReady, After: []plan.StepID{1}},
			plan.Step{ID: 3, Op: plan.OpDeletePod, After: []plan.StepID{2, 4}},
			plan.Step{ID: 4, Op: plan.OpCreatePod},
			plan.Step{ID: 5, Op: plan.OpWaitReady, After: []plan.StepID{4}},
		), map[plan.NodeID]Executor{"a": node}, rec)
		if diff := cmp.Diff([]plan.StepID{4, 5}, ids(r.Done)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"1: broken"}, failures(r.Failed)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{
			"2: step 1 (create-pod Pod ns/1) did not succeed",
			"3: step 2 (wait-ready Pod ns/2) did not succeed",
		}, failures(r.Skipped)); diff != "" {
			t.Error(diff)
		}
		if err := r.Err(); !errors.Is(err, broken) || err.Error() != "create-pod Pod ns/1: broken" {
			t.Errorf("Err() = %v", err)
		}
		if diff := cmp.Diff([]string{
			"started 1", "started 4", "done 1 1s broken", "done 4 2s <nil>", "started 5", "done 5 2s <nil>",
		}, rec.lines); diff != "" {
			t.Error(diff)
		}
	})
}

func TestSlotsBoundActingStepsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newFake(func(plan.Step) (time.Duration, error) { return time.Second, nil })
		var ss []plan.Step
		for i := range 12 {
			op := plan.OpCreatePod
			if i < 6 {
				op = plan.OpWaitReady
			}
			ss = append(ss, plan.Step{ID: plan.StepID(i + 1), Op: op})
		}
		begin := time.Now()
		r := Walker{Slots: 2}.Run(t.Context(), steps(ss...), map[plan.NodeID]Executor{"a": node}, nil)
		if len(r.Done) != 12 {
			t.Errorf("done: %v", ids(r.Done))
		}
		if node.highest != 2 {
			t.Errorf("%d acting steps at a time, want 2", node.highest)
		}
		if took := time.Since(begin); took != 3*time.Second {
			t.Errorf("took %v, want 3s: six acting steps, two at a time, and waits beside them", took)
		}
	})
}

func TestCancelEndsWaitsAndStartsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newFake(func(s plan.Step) (time.Duration, error) {
			if s.Op == plan.OpWaitReady {
				return time.Hour, nil
			}
			return 5 * time.Second, nil
		})
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(7*time.Second, func() { cancel(errors.New("a newer plan")) })
		begin := time.Now()
		r := Walker{Slots: 1}.Run(ctx, steps(
			plan.Step{ID: 1, Op: plan.OpWaitReady},
			plan.Step{ID: 2, Op: plan.OpCreatePod},
			plan.Step{ID: 3, Op: plan.OpCreatePod},
			plan.Step{ID: 4, Op: plan.OpCreatePod},
			plan.Step{ID: 5, Op: plan.OpDeletePod, After: []plan.StepID{1}},
		), map[plan.NodeID]Executor{"a": node}, nil)
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("took %v, want 10s: the call in flight is finished", took)
		}
		if diff := cmp.Diff([]plan.StepID{2, 3}, ids(r.Done)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{
			"1: interrupted: a newer plan",
			"4: not started: a newer plan",
			"5: step 1 (wait-ready Pod ns/1) did not succeed",
		}, failures(r.Skipped)); diff != "" {
			t.Error(diff)
		}
		if err := r.Err(); err != nil {
			t.Errorf("Err() = %v", err)
		}
	})
}

func TestWhatCannotStartIsSaid(t *testing.T) {
	p := steps(
		plan.Step{ID: 1, Op: plan.OpWaitReady, After: []plan.StepID{7}},
		plan.Step{ID: 2, Op: plan.OpWaitReady, After: []plan.StepID{3}},
		plan.Step{ID: 3, Op: plan.OpWaitReady, After: []plan.StepID{2}},
		plan.Step{ID: 4, Op: plan.OpCreatePod},
		plan.Step{ID: 5, Op: plan.OpWaitReady, After: []plan.StepID{1}},
	)
	p.Steps[3].Node = "elsewhere"
	r := Run(t.Context(), p, map[plan.NodeID]Executor{"a": newFake(nil)}, nil)
	if diff := cmp.Diff([]string{`4: there is no node "elsewhere" here`}, failures(r.Failed)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{
		"1: it comes after step 7, which is not in the plan",
		"2: never started: the steps before it wait for each other",
		"3: never started: the steps before it wait for each other",
		"5: step 1 (wait-ready Pod ns/1) did not succeed",
	}, failures(r.Skipped)); diff != "" {
		t.Error(diff)
	}
}

// TestWalkHoldsOrder runs random graphs with failures and cancellation: no step starts before all
// that it comes after has ended with success, every step is in exactly one list, the bound holds,
// and no goroutine is left (synctest would not return).
func TestWalkHoldsOrder(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			ops := []plan.Op{plan.OpPullImage, plan.OpCreatePod, plan.OpWaitReady, plan.OpUpdatePod, plan.OpDeletePod}
			var ss []plan.Step
			takes := map[plan.StepID]time.Duration{}
			breaks := map[plan.StepID]bool{}
			for i := range 1 + rnd.IntN(40) {
				s := plan.Step{ID: plan.StepID(i + 1), Op: ops[rnd.IntN(len(ops))]}
				for j := range i {
					if rnd.IntN(5) == 0 {
						s.After = append(s.After, plan.StepID(j+1))
					}
				}
				takes[s.ID] = time.Duration(rnd.IntN(5)) * time.Second
				breaks[s.ID] = rnd.IntN(12) == 0
				ss = append(ss, s)
			}
			node := newFake(func(s plan.Step) (time.Duration, error) {
				if breaks[s.ID] {
					return takes[s.ID], errors.New("broken")
				}
				return takes[s.ID], nil
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if rnd.IntN(3) == 0 {
				time.AfterFunc(time.Duration(rnd.IntN(20))*time.Second, cancel)
			}
			p := steps(ss...)
			r := Walker{Slots: 3}.Run(ctx, p, map[plan.NodeID]Executor{"a": node}, &recorder{})
			if node.highest > 3 {
				t.Errorf("seed %d: %d acting at a time", seed, node.highest)
			}
			done := ids(r.Done)
			for _, s := range p.Steps {
				began, started := node.began[s.ID]
				for _, before := range s.After {
					if started && (!slices.Contains(done, before) || node.ended[before].After(began)) {
						t.Errorf("seed %d: step %d began before step %d succeeded", seed, s.ID, before)
					}
				}
			}
			all := slices.Clone(done)
			for _, f := range append(slices.Clone(r.Failed), r.Skipped...) {
				all = append(all, f.Step.ID)
			}
			slices.Sort(all)
			if want := ids(p.Steps); !slices.Equal(all, want) {
				t.Errorf("seed %d: reported %v, want %v", seed, all, want)
			}
		})
	}
}

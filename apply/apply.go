// Package apply carries a plan out. Run walks the graph of its steps and hands each to the executor
// of its node; it decides nothing. A step that fails ends in the report: whoever asked observes and
// computes again.
package apply

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
)

// Executor acts on one node. Every method may be called again after a failure, and from several
// goroutines at once.
type Executor interface {
	// Describe says what the node is.
	Describe(ctx context.Context) (plan.Node, error)
	// Observe returns what the node runs. The state is shared and never changes: do not modify it.
	// When the engine does not answer, the state is what was last known and Stale is true.
	Observe(ctx context.Context) (plan.NodeState, error)
	// Do takes a step and returns when it is done. A step that is done already succeeds. When ctx ends
	// Do returns soon with its error; calls to the engine that are in flight then are finished under
	// a context of the executor's own, so that their outcome is known.
	Do(ctx context.Context, s plan.Step) error
	// Watch calls wake, from one goroutine, soon after every change of what Observe returns, until ctx
	// ends. Changes that come together are one call.
	Watch(ctx context.Context, wake func()) error
}

// Slots is an Executor that says how many acting steps it takes at a time.
type Slots interface {
	// Slots is at least 1.
	Slots() int
}

// Reporter is told of progress. Its methods are called one at a time, from the goroutine of Run.
type Reporter interface {
	Started(s plan.Step)
	// Done is called for every step that was started; err says why it failed.
	Done(s plan.Step, err error, took time.Duration)
}

// Failure is a step that did not succeed.
type Failure struct {
	Step plan.Step
	Err  error
}

// Report says what became of every step; each is in exactly one list. Lists are sorted by StepID.
type Report struct {
	Done   []plan.Step
	Failed []Failure
	// Skipped were not started because a step before them failed, or were not started or not waited for
	// to the end because the context ended.
	Skipped []Failure
}

// Err names the first step that failed and why; nil when none did. Skipped steps are not failures.
func (r Report) Err() error {
	if len(r.Failed) == 0 {
		return nil
	}
	f := r.Failed[0]
	err := fmt.Errorf("%s %s: %w", f.Step.Op, f.Step.Target, f.Err)
	if n := len(r.Failed) - 1; n > 0 {
		return fmt.Errorf("%w (and %d more failed)", err, n)
	}
	return err
}

// Run takes the steps of p and returns when none is under way any more. A step starts when all steps
// that it comes after have succeeded. A failure skips what depends on it and nothing else. When ctx
// ends nothing new is started and waits end at once. to may be nil.
func Run(ctx context.Context, p plan.Plan, on map[plan.NodeID]Executor, to Reporter) Report {
	return Walker{}.Run(ctx, p, on, to)
}

// Walker is Run with settings.
type Walker struct {
	// Slots bounds the acting steps on one node at a time. 0 leaves it to the executor, or, when that
	// does not say, to the number of processors here, doubled.
	Slots int
}

func (w Walker) slots(e Executor) int {
	if w.Slots > 0 {
		return w.Slots
	}
	if s, ok := e.(Slots); ok {
		return max(1, s.Slots())
	}
	return 2 * runtime.NumCPU()
}

// Run is the package's Run.
func (w Walker) Run(ctx context.Context, p plan.Plan, on map[plan.NodeID]Executor, to Reporter) Report {
	r := newWalk(w, p, on, to).run(ctx)
	byID := func(a, b Failure) int { return int(a.Step.ID - b.Step.ID) }
	slices.SortFunc(r.Done, func(a, b plan.Step) int { return int(a.ID - b.ID) })
	slices.SortFunc(r.Failed, byID)
	slices.SortFunc(r.Skipped, byID)
	return r
}

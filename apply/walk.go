package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
)

// walk is the state of one Run. Only the goroutine of run touches it; the goroutines of steps send
// their outcome and end.
type walk struct {
	walker Walker
	on     map[plan.NodeID]Executor
	to     Reporter

	steps    map[plan.StepID]*step
	order    []*step // in the plan's order
	nodes    map[plan.NodeID]*node
	outcomes chan outcome
	running  int
	report   Report
}

type step struct {
	plan.Step
	node *node
	// missing counts the steps before this one that have not succeeded yet; next are those after it.
	missing int
	next    []*step
	settled bool // done, failed, skipped or under way
}

// node is where steps run. Steps that are ready to act wait in queue for a slot, in the plan's order.
type node struct {
	executor Executor
	free     int
	queue    []*step
}

type outcome struct {
	step *step
	err  error
	took time.Duration
}

func newWalk(w Walker, p plan.Plan, on map[plan.NodeID]Executor, to Reporter) *walk {
	k := &walk{
		walker: w, on: on, to: to,
		steps:    make(map[plan.StepID]*step, len(p.Steps)),
		nodes:    make(map[plan.NodeID]*node, len(on)),
		outcomes: make(chan outcome),
	}
	for id, e := range on {
		k.nodes[id] = &node{executor: e, free: w.slots(e)}
	}
	for _, s := range p.Steps {
		st := &step{Step: s, node: k.nodes[s.Node]}
		k.steps[s.ID] = st
		k.order = append(k.order, st)
	}
	return k
}

func (k *walk) run(ctx context.Context) Report {
	for _, s := range k.order {
		for _, id := range s.After {
			before, ok := k.steps[id]
			if !ok {
				k.skip(s, fmt.Errorf("it comes after step %d, which is not in the plan", id))
				continue
			}
			s.missing++
			before.next = append(before.next, s)
		}
	}
	for _, s := range k.order {
		if s.settled {
			k.skipAfter(s)
		}
	}
	for _, s := range k.order {
		if s.missing == 0 {
			k.ready(ctx, s)
		}
	}
	for k.running > 0 {
		o := <-k.outcomes
		k.running--
		k.settle(ctx, o)
	}
	for _, s := range k.order {
		k.skip(s, notStarted(ctx))
	}
	return k.report
}

func notStarted(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("not started: %w", err)
	}
	return errors.New("never started: the steps before it wait for each other")
}

// ready starts a step that nothing is missing for, or queues it where its node has no slot free.
func (k *walk) ready(ctx context.Context, s *step) {
	if s.settled || ctx.Err() != nil {
		return
	}
	if s.node == nil {
		s.settled = true
		k.fail(s, fmt.Errorf("there is no node %q here", s.Node))
		return
	}
	if !acts(s.Op) {
		k.start(ctx, s)
		return
	}
	s.node.queue = append(s.node.queue, s)
	k.fill(ctx, s.node)
}

// fill gives the node's free slots to the steps that came first.
func (k *walk) fill(ctx context.Context, n *node) {
	for n.free > 0 && len(n.queue) > 0 && ctx.Err() == nil {
		s := n.queue[0]
		n.queue = n.queue[1:]
		n.free--
		k.start(ctx, s)
	}
}

// acts reports whether the step keeps the engine busy. A pull waits for a registry and a deletion
// for the grace period of a pod: such steps take no slot.
func acts(op plan.Op) bool {
	switch op {
	case plan.OpCreatePod, plan.OpUpdatePod, plan.OpSetService, plan.OpDeleteService, plan.OpSetEndpoints, plan.OpDeleteEndpoints,
		plan.OpSetStorage, plan.OpDeleteStorage:
		return true
	case plan.OpPullImage, plan.OpWaitReady, plan.OpDeletePod, plan.OpWaitHealthy:
		return false
	}
	return true
}

func (k *walk) start(ctx context.Context, s *step) {
	s.settled = true
	k.running++
	if k.to != nil {
		k.to.Started(s.Step)
	}
	begin := time.Now()
	// The goroutine ends by sending its outcome, and run receives one for each.
	go func() {
		err := s.node.executor.Do(ctx, s.Step)
		k.outcomes <- outcome{step: s, err: err, took: time.Since(begin)}
	}()
}

func (k *walk) settle(ctx context.Context, o outcome) {
	s := o.step
	if k.to != nil {
		k.to.Done(s.Step, o.err, o.took)
	}
	if acts(s.Op) {
		s.node.free++
	}
	switch {
	case o.err == nil:
		k.report.Done = append(k.report.Done, s.Step)
		for _, n := range s.next {
			n.missing--
			if n.missing == 0 {
				k.ready(ctx, n)
			}
		}
	case ctx.Err() != nil && errors.Is(o.err, ctx.Err()):
		k.report.Skipped = append(k.report.Skipped, Failure{s.Step, fmt.Errorf("interrupted: %w", context.Cause(ctx))})
		k.skipAfter(s)
	default:
		k.fail(s, o.err)
	}
	k.fill(ctx, s.node)
}

func (k *walk) fail(s *step, err error) {
	k.report.Failed = append(k.report.Failed, Failure{s.Step, err})
	k.skipAfter(s)
}

// skipAfter skips what depends on s.
func (k *walk) skipAfter(s *step) {
	for _, n := range s.next {
		if k.skip(n, fmt.Errorf("step %d (%s %s) did not succeed", s.ID, s.Op, s.Target)) {
			k.skipAfter(n)
		}
	}
}

// skip settles a step that was not started; false when it is settled already.
func (k *walk) skip(s *step, err error) bool {
	if s.settled {
		return false
	}
	s.settled = true
	k.report.Skipped = append(k.report.Skipped, Failure{s.Step, err})
	return true
}

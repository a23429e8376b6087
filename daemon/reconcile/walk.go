package reconcile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/fairlead-dev/fairlead/plan"
)

// walk carries p out. It is cut short when the application is poked meanwhile and a plan made from the
// newest snapshot and observation is about something else.
func (a *Application) walk(ctx context.Context, c Config, p plan.Plan) Report {
	walkCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	if c.Timeout > 0 {
		walkCtx, cancel = context.WithTimeout(walkCtx, c.Timeout)
		defer cancel()
	}
	done := make(chan Report, 1)
	var walking sync.WaitGroup
	defer walking.Wait()
	walking.Go(func() { done <- a.world.Walk(walkCtx, p) })
	wanted := targets(p)
	for {
		select {
		case r := <-done:
			if ctx.Err() == nil && errors.Is(walkCtx.Err(), context.DeadlineExceeded) {
				r.Superseded = false
				if r.Err == nil {
					r.Err = fmt.Errorf("not done within %s: %s", c.Timeout, pending(p))
				}
			}
			return r
		case <-ctx.Done():
			cancel()
			return <-done
		case <-a.kick:
			newest := a.configured()
			if a.overtaken(ctx, newest, wanted) {
				cancel()
				r := <-done
				r.Superseded = true
				a.Poke()
				return r
			}
		}
	}
}

// overtaken reports whether something else is to be done than a walk towards wanted is about to do.
func (a *Application) overtaken(ctx context.Context, c Config, wanted map[target]bool) bool {
	if c.Suspend {
		return true
	}
	before := a.inForce()
	a.render(ctx, c)
	// What is wrong with a newer revision is said after the walk; what was good is carried on with.
	now := a.inForce()
	p, _ := a.compute(ctx, c, now.desired)
	next := targets(p)
	if now.revision == before.revision && bytes.Equal(now.options, before.options) {
		return !subset(next, wanted)
	}
	p, _ = a.compute(ctx, c, before.desired)
	rest := targets(p)
	return !subset(next, rest) || !subset(rest, next)
}

// target is what a step changes; waits change nothing.
type target struct {
	op       plan.Op
	node     plan.NodeID
	pod      plan.PodKey
	template string
}

func targets(p plan.Plan) map[target]bool {
	out := make(map[target]bool, len(p.Steps))
	for _, s := range p.Steps {
		switch args := s.Args.(type) {
		case plan.CreatePod:
			out[target{s.Op, s.Node, args.Pod.PodKey, args.Pod.Template}] = true
		case plan.UpdatePod:
			out[target{s.Op, s.Node, args.Pod.PodKey, strings.Join(args.Changes, ",")}] = true
		case plan.DeletePod:
			out[target{s.Op, s.Node, args.Pod, args.UID}] = true
		case plan.WaitReady, plan.PullImage:
		}
	}
	return out
}

func subset(part, whole map[target]bool) bool {
	for t := range part {
		if !whole[t] {
			return false
		}
	}
	return true
}

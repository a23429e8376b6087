package reconcile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
)

// looking is the part of the time that a walk may spend on looking whether it is overtaken, as a divisor: pods change
// all the time while it makes them, and a look costs what all objects cost.
const looking = 10

// walk carries p out. It is cut short when the application is poked meanwhile and is overtaken: a plan made from
// the newest snapshot and observation is about something else.
func (a *Application) walk(ctx context.Context, p plan.Plan, overtaken func(context.Context, Config, map[target]bool) bool) Report {
	if len(p.Steps) == 0 {
		return a.world.Walk(ctx, p) // nothing that could be cut short
	}
	c := a.configured()
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
	poked, rested := (<-chan struct{})(a.kick), (<-chan time.Time)(nil)
	ended := func(r Report) Report {
		if ctx.Err() == nil && errors.Is(walkCtx.Err(), context.DeadlineExceeded) {
			r.Superseded, r.Late = false, true
			if r.Err == nil {
				r.Err = fmt.Errorf("not done within %s: %s", c.Timeout, pending(p))
			}
		}
		return r
	}
	for {
		select {
		case r := <-done: // a walk that is over is not overtaken any more
			return ended(r)
		default:
		}
		select {
		case r := <-done:
			return ended(r)
		case <-ctx.Done():
			cancel()
			return <-done
		case <-rested:
			poked, rested = a.kick, nil
		case <-poked:
			start := time.Now()
			if overtaken(ctx, a.configured(), wanted) {
				cancel()
				r := <-done
				r.Superseded = true
				a.Poke()
				return r
			}
			poked, rested = nil, time.After((looking-1)*time.Since(start))
		}
	}
}

// overtaken reports whether something else is to be done than a walk towards wanted is about to do.
func (a *Application) overtaken(ctx context.Context, c Config, wanted map[target]bool) bool {
	if c.Suspend {
		return true
	}
	before := a.aim
	a.render(ctx, c)
	// What is wrong with a newer revision is said after the walk; what was good is carried on with.
	now := a.aims(ctx, c)
	p, _ := a.compute(ctx, c, now.desired)
	next := targets(p.Open())
	if now.revision == before.revision && bytes.Equal(now.options, before.options) {
		return !subset(next, wanted)
	}
	p, _ = a.compute(ctx, c, before.desired)
	rest := targets(p.Open())
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
		case plan.MovePod:
			out[target{s.Op, s.Node, args.Pod, args.UID}] = true
		case plan.SetService:
			out[target{s.Op, s.Node, keyOf(s), args.Service.Hash}] = true
		case plan.SetEndpoints:
			out[target{s.Op, s.Node, keyOf(s), s.Target.Kind + args.Endpoints.Hash}] = true
		case plan.SetStorage:
			out[target{s.Op, s.Node, keyOf(s), s.Target.Kind + args.Storage.String()}] = true
		case plan.DeleteService, plan.DeleteEndpoints, plan.DeleteStorage:
			out[target{s.Op, s.Node, keyOf(s), s.Target.Kind}] = true
		case plan.WaitReady, plan.PullImage, plan.WaitHealthy:
		}
	}
	return out
}

// keyOf is the name of what is not a pod.
func keyOf(s plan.Step) plan.PodKey {
	return plan.PodKey{Namespace: s.Target.Namespace, Name: s.Target.Name}
}

func subset(part, whole map[target]bool) bool {
	for t := range part {
		if !whole[t] {
			return false
		}
	}
	return true
}

package consul

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Pauses between two tries of what failed in the background.
const (
	firstPause = time.Second
	lastPause  = 15 * time.Second
)

// Run keeps the agent true to what was last set until ctx is done: it passes the checks and repairs what the agent lost
// or got besides. It changes nothing before the first Set.
func (r *Registry) Run(ctx context.Context) error {
	r.setRunning(true)
	defer r.setRunning(false)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.heal(ctx) })
	g.Go(func() error { return r.keepPassing(ctx) })
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (r *Registry) setRunning(running bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = running
}

// heal compares with the agent from time to time, when woken, and after failures with growing pauses.
func (r *Registry) heal(ctx context.Context) error {
	failures := 0
	timer := time.NewTimer(r.opt.Compare)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-r.kick:
		}
		pause := r.opt.Compare
		if err := r.repair(ctx); err != nil {
			pause = min(firstPause<<min(failures, 10), lastPause)
			failures++
		} else {
			failures = 0
		}
		// Whatever wakes, there is some time between two comparisons.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(firstPause / 2):
		}
		timer.Reset(pause)
	}
}

// repair compares, and brings the agent to what is wanted. It makes way for Set.
func (r *Registry) repair(ctx context.Context) error {
	r.mu.Lock()
	idle := !r.set || r.closed
	r.mu.Unlock()
	if idle {
		return nil
	}
	if err := r.compare(ctx); err != nil {
		return r.condition(syncing, err)
	}
	if err := r.acquire(ctx); err != nil {
		return err
	}
	defer r.release()
	start := time.Now()
	yielded := false
	_, err := r.flush(ctx, func() bool {
		yielded = yielded || r.waiting.Load() > 0
		return yielded
	})
	if err := r.condition(syncing, err); err != nil {
		return err
	}
	if yielded {
		r.wake()
	} else {
		r.stats.synced(start)
	}
	return nil
}

// refresh is the time between two passes of a check: half its TTL, so that the other half is left for an agent that is slow
// or restarts.
func (r *Registry) refresh() time.Duration { return r.opt.TTL / 2 }

// letPass waits while checks are overdue, for at most the timeout: what is registered must not expire because much else
// is being registered.
func (r *Registry) letPass(ctx context.Context) {
	for deadline := time.Now().Add(r.opt.Timeout); time.Now().Before(deadline) && r.overdue(time.Now()); {
		select {
		case <-ctx.Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// overdue reports whether checks that Run passes are late by a tenth of their TTL.
func (r *Registry) overdue(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.running {
		return false
	}
	late := now.Add(-r.opt.TTL / 10)
	for id, h := range r.have {
		if r.want[id] != nil && !h.unsure && !h.failed && h.due.Before(late) {
			return true
		}
	}
	return false
}

// firstPass is when the check of a new instance is passed first: spread, so that what was registered at once is not
// passed at once for ever.
func firstPass(id string, ttl time.Duration) time.Duration {
	h := fnv.New32a()
	h.Write([]byte(id))
	half := ttl / 2
	return half/4 + time.Duration(h.Sum32()%1000)*(half*3/4)/1000
}

// probe is the longest time without a passed check, as long as there is one: so an agent that lost everything is found
// out soon, however few there are.
const probe = 2 * time.Second

// keepPassing passes the checks that are due, a batch at a time. It waits for nothing else, so that what takes long
// elsewhere lets no check expire.
func (r *Registry) keepPassing(ctx context.Context) error {
	ticker := time.NewTicker(max(r.opt.TTL/100, 100*time.Millisecond))
	defer ticker.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		if due := r.due(time.Now(), time.Since(last) >= probe); len(due) > 0 {
			r.pass(ctx, due)
			last = time.Now()
		}
	}
}

// check is the check of a registered instance.
type check struct {
	of       *held
	id, name string
}

// due returns the registered instances whose checks are due, the longest due first; with any, if none is, the next one.
func (r *Registry) due(now time.Time, anyway bool) []check {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	var all []check
	var next *held
	for id, h := range r.have {
		switch {
		case r.want[id] == nil, h.unsure, r.busy[id]:
		case !now.Before(h.due):
			all = append(all, check{h, id, h.Name})
		case next == nil || cmp.Or(h.due.Compare(next.due), cmp.Compare(id, next.ID)) < 0:
			next = h
		}
	}
	if len(all) == 0 && anyway && next != nil {
		return []check{{next, next.ID, next.Name}}
	}
	slices.SortFunc(all, func(a, b check) int { return cmp.Or(a.of.due.Compare(b.of.due), cmp.Compare(a.id, b.id)) })
	return all
}

// pass passes the checks of instances.
func (r *Registry) pass(ctx context.Context, due []check) {
	b := batch{denied: map[string]bool{}}
	var lost atomic.Bool
	var g errgroup.Group
	g.SetLimit(min(4, r.opt.Parallel))
	for _, c := range due {
		if b.over() || ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if b.over() || b.deniedName(c.name) {
				return nil
			}
			err := r.agent.pass(ctx, c.id)
			switch {
			case err == nil:
				b.add(c.name, nil)
				r.stats.passes.Add(1)
			case errors.Is(err, errUnknown):
				lost.Store(true)
			case ctx.Err() == nil:
				b.add(c.name, err)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			h := c.of
			if h.failed = err != nil; h.failed {
				h.due = time.Now().Add(min(r.refresh()/4, 5*time.Second))
			} else {
				h.due = time.Now().Add(r.refresh())
			}
			return nil
		})
	}
	_ = g.Wait()
	if lost.Load() {
		r.wake()
	}
	if b.err != nil {
		_ = r.condition(passing, b.err)
		return
	}
	if !b.allowed {
		return
	}
	if r.stats.failing() {
		r.wake() // it answers again: what did not reach it can now
	}
	r.mu.Lock()
	failed := false
	for id, h := range r.have {
		failed = failed || h.failed && r.want[id] != nil
	}
	r.mu.Unlock()
	if !failed {
		_ = r.condition(passing, nil)
	}
}

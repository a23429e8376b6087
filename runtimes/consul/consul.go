// Package consul registers a node's Services in Consul, through the node's own agent: one instance for each ready
// endpoint of each port, with a check that fairlead keeps passing and that goes critical by itself when fairlead is gone.
//
// A Registry is set to what is wanted (Set) and keeps the agent true to it (Run): it passes the checks, compares with what
// the agent has from time to time and whenever the agent turns out to know less than was registered, and repairs the
// difference. What others registered is never touched. No other package imports Consul's client.
package consul

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Registry keeps the Services of a node registered with its Consul agent. Make it with New; it is safe for concurrent use.
type Registry struct {
	opt    Options
	naming *naming
	agent  *agent
	// work is held by who brings the agent to what is wanted.
	work chan struct{}
	// waiting counts Sets that wait for work: what runs in the background makes way.
	waiting atomic.Int32
	// kick wakes the comparison.
	kick chan struct{}

	mu     sync.Mutex
	closed bool
	// running: Run is under way, so checks are passed.
	running bool
	// set: Set was called, so want is known. compared: the agent was compared with it once.
	set, compared bool
	routes        map[object.Ref]*served
	want          map[string]*instance
	// have is what the agent is known to have of ours.
	have map[string]*held
	// dirty are the IDs of which want and have differ, or may.
	dirty map[string]struct{}
	// foreign are IDs of ours that something else has, as of the last comparison.
	foreign map[string]bool
	// changed says at which tick an ID was last worked on, since the comparison that is under way began; busy are those
	// that are worked on now.
	tick    uint64
	changed map[string]uint64
	busy    map[string]bool
	// again holds back IDs that do not stay as they were registered.
	again map[string]*hold

	stats counters
}

// served is a route as it was last planned.
type served struct {
	route     *plan.Route
	names     names
	instances []*instance
}

// held is an instance that the agent has.
type held struct {
	*instance
	// unsure: whether the agent has it is not known, because it did not answer.
	unsure bool
	// failed: its check was not passed when it was due.
	failed bool
	// due is when its check is to be passed next.
	due time.Time
}

// hold keeps an ID that something changes behind our back from being registered again and again.
type hold struct {
	times int
	until time.Time
}

// New returns a Registry. Nothing is asked of the agent before Set.
func New(o Options) (*Registry, error) {
	o, selector, err := o.complete()
	if err != nil {
		return nil, err
	}
	r := &Registry{
		opt: o, naming: newNaming(o, selector), work: make(chan struct{}, 1), kick: make(chan struct{}, 1),
	}
	r.forget()
	r.agent = &agent{opt: o, observe: r.stats.call}
	return r, nil
}

// Name returns "consul".
func (r *Registry) Name() string { return "consul" }

// Set makes exactly what is wanted of the routes be registered, and returns when the agent has accepted all of it. As
// long as the agent reaches Consul's servers it is in the catalog then; otherwise the agent passes it on later. An error says what was not
// accepted; Run tries that again by itself too. Set blocks for at most some of Options.Timeout with an agent that does not
// answer, and only reads routes.
func (r *Registry) Set(ctx context.Context, routes plan.Routes) error {
	start := time.Now()
	if err := r.plan(routes); err != nil {
		return err
	}
	r.waiting.Add(1)
	err := r.acquire(ctx)
	r.waiting.Add(-1)
	if err != nil {
		return err
	}
	defer r.release()
	r.mu.Lock()
	compared := r.compared
	r.mu.Unlock()
	if !compared {
		if err := r.compare(ctx); err != nil {
			r.wake()
			return r.condition(syncing, err)
		}
	}
	calls, err := r.flush(ctx, func() bool { return false })
	if err != nil {
		r.wake()
		return r.condition(syncing, err)
	}
	if calls > 0 || !compared {
		_ = r.condition(syncing, nil)
	}
	r.stats.synced(start)
	return nil
}

func (r *Registry) acquire(ctx context.Context) error {
	select {
	case r.work <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for what is under way with the Consul agent: %w", ctx.Err())
	}
}

func (r *Registry) release() { <-r.work }

var errClosed = errors.New("consul: closed")

// plan takes over what the routes want, and marks what changed.
func (r *Registry) plan(routes plan.Routes) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errClosed
	}
	r.set = true
	// Names depend on all Services, endpoints only on their own.
	renamed := len(routes) != len(r.routes)
	for _, route := range routes {
		if s := r.routes[route.Ref]; s == nil || s.route.Service != route.Service && !sameService(s.route, route) {
			renamed = true
			break
		}
	}
	var assigned map[object.Ref]names
	if renamed {
		assigned = r.naming.assign(routes)
		var problems []string
		for _, route := range routes {
			if p := assigned[route.Ref].problem; p != "" {
				problems = append(problems, p)
			}
		}
		r.stats.problems(problems)
	}
	present := make(map[object.Ref]bool, len(routes))
	for _, route := range routes {
		present[route.Ref] = true
		s := r.routes[route.Ref]
		if s != nil && s.route == route && (!renamed || s.names.equal(assigned[route.Ref])) {
			continue
		}
		next := &served{route: route}
		if renamed {
			next.names = assigned[route.Ref]
		} else {
			next.names = s.names
		}
		if next.names.ports != nil {
			next.instances = r.naming.instances(route, next.names)
		}
		r.replace(s, next)
		r.routes[route.Ref] = next
	}
	if len(present) != len(r.routes) {
		for ref, s := range r.routes {
			if !present[ref] {
				r.replace(s, &served{})
				delete(r.routes, ref)
			}
		}
	}
	return nil
}

// sameService reports whether two routes have the same Service in all that names depend on.
func sameService(a, b *plan.Route) bool {
	return a.Service.Hash != "" && a.Service.Hash == b.Service.Hash
}

// replace makes want hold the new instances instead of the old ones, and marks those that differ.
func (r *Registry) replace(old, next *served) {
	keep := make(map[string]bool, len(next.instances))
	for _, i := range next.instances {
		keep[i.ID] = true
		if was := r.want[i.ID]; was != nil && was.same(i) {
			continue
		}
		r.want[i.ID] = i
		r.dirty[i.ID] = struct{}{}
	}
	if old == nil {
		return
	}
	for _, i := range old.instances {
		if !keep[i.ID] {
			delete(r.want, i.ID)
			delete(r.again, i.ID)
			r.dirty[i.ID] = struct{}{}
		}
	}
}

// maxDenied is how many names may be denied, none allowed, before a token is taken for one that allows nothing.
const maxDenied = 16

// chunkSize is how many changes are made before looking whether checks are overdue. An agent passes each registration on to
// the servers before it answers, and passes no check meanwhile; what both do grows with what the node has registered.
const chunkSize = 32

// flush brings the agent to what is wanted for every ID that is marked, those that are to go first. It stops early when
// the agent does not answer or the token allows nothing, or when yield says so. What was not done stays marked. It returns how
// many calls it made.
func (r *Registry) flush(ctx context.Context, yield func() bool) (int, error) {
	var gone, come []string
	now := time.Now()
	r.mu.Lock()
	for id := range r.dirty {
		switch h := r.again[id]; {
		case r.want[id] == nil:
			gone = append(gone, id)
		case h == nil || !now.Before(h.until):
			come = append(come, id)
		}
	}
	r.mu.Unlock()
	slices.Sort(gone)
	slices.Sort(come)
	var b batch
	b.denied = map[string]bool{}
	first := true
	for chunk := range slices.Chunk(append(gone, come...), chunkSize) {
		if !first {
			r.letPass(ctx)
		}
		first = false
		if ctx.Err() != nil || b.over() || yield() {
			break
		}
		var g errgroup.Group
		g.SetLimit(r.opt.Parallel)
		for _, id := range chunk {
			g.Go(func() error {
				if ctx.Err() == nil && !b.over() {
					r.bring(ctx, id, &b)
				}
				return nil
			})
		}
		_ = g.Wait()
	}
	if b.err == nil && ctx.Err() != nil {
		return b.calls, ctx.Err()
	}
	return b.calls, b.err
}

// batch is what was met while many calls were made.
type batch struct {
	mu      sync.Mutex
	err     error
	calls   int
	stop    bool
	allowed bool
	denied  map[string]bool
}

func (b *batch) over() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stop
}

// deniedName reports whether a name was denied already.
func (b *batch) deniedName(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.denied[name]
}

// add notes the outcome of a call for a name. The first error is kept, but the agent's absence wins.
func (b *batch) add(name string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	if err == nil {
		b.allowed = true
		return
	}
	unavailable := errors.Is(err, errUnavailable)
	if b.err == nil || unavailable && !errors.Is(b.err, errUnavailable) {
		b.err = err
	}
	if errors.Is(err, errDenied) {
		b.denied[name] = true
	}
	b.stop = b.stop || unavailable || len(b.denied) >= maxDenied && !b.allowed
}

// bring makes the agent have, or be without, one ID.
func (r *Registry) bring(ctx context.Context, id string, b *batch) {
	r.mu.Lock()
	want, has := r.want[id], r.have[id]
	switch {
	case r.busy[id]:
		r.mu.Unlock()
		return
	case want == nil && has == nil, want != nil && has != nil && !has.unsure && has.same(want):
		delete(r.dirty, id)
		r.mu.Unlock()
		return
	case want != nil && r.foreign[id]:
		r.mu.Unlock()
		b.add(want.Name, fmt.Errorf("register %s: %w: something that is not ours has that ID", id, errConflict))
		return
	}
	name := ""
	if want != nil {
		name = want.Name
	} else {
		name = has.Name
	}
	if b.deniedName(name) {
		r.mu.Unlock()
		return
	}
	r.busy[id] = true
	r.mu.Unlock()

	var err error
	if want != nil {
		err = r.agent.register(ctx, want)
	} else {
		err = r.agent.deregister(ctx, id)
	}
	if err == nil || ctx.Err() == nil {
		b.add(name, err)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, id)
	r.tick++
	r.changed[id] = r.tick
	if err != nil {
		if want != nil && !errors.Is(err, errDenied) && !errors.Is(err, errRefused) {
			r.have[id] = &held{instance: want, unsure: true}
		}
		return
	}
	if want != nil {
		r.have[id] = &held{instance: want, due: time.Now().Add(firstPass(id, r.opt.TTL))}
		r.stats.registrations.Add(1)
	} else {
		delete(r.have, id)
		r.stats.deregistrations.Add(1)
	}
	if r.want[id] == want {
		delete(r.dirty, id)
	}
}

var errConflict = errors.New("conflict")

// compare asks the agent what it has, and marks what is not as wanted. It changes nothing there. It runs beside changes:
// what is worked on while the agent answers is left for the next comparison.
func (r *Registry) compare(ctx context.Context) error {
	r.mu.Lock()
	if !r.set {
		r.mu.Unlock()
		return nil
	}
	began := r.tick
	busy := make(map[string]bool, len(r.busy))
	for id := range r.busy {
		busy[id] = true
	}
	r.mu.Unlock()

	list, err := r.agent.list(ctx)
	if err != nil {
		return err
	}
	if lost := r.lost(list, began, busy); lost != "" {
		// The list is believed only when the check is gone as well: a re-registration of everything is not done lightly.
		if err := r.agent.pass(ctx, lost); err == nil {
			return fmt.Errorf("list services: %w: the agent says that it is without %s, and passes its check", errUnavailable, lost)
		}
	}

	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	steady := func(id string) bool { return !busy[id] && !r.busy[id] && r.changed[id] <= began }
	r.foreign = map[string]bool{}
	for id, f := range list {
		if !r.naming.ours(id, f.Meta) {
			if r.want[id] != nil {
				r.foreign[id] = true
				delete(r.have, id)
				r.dirty[id] = struct{}{}
			}
			continue
		}
		if !steady(id) {
			continue
		}
		want, has := r.want[id], r.have[id]
		switch {
		case want == nil:
			r.have[id] = &held{instance: &f.instance}
			r.dirty[id] = struct{}{}
		case f.checked && f.same(want):
			if has == nil || has.unsure {
				r.have[id] = &held{instance: want, due: now}
			} else if has.instance = want; f.critical {
				has.due = now
			}
			delete(r.dirty, id)
			if h := r.again[id]; h != nil && now.Sub(h.until) > r.opt.Compare*2 {
				delete(r.again, id)
			}
		default:
			r.differs(id, has, now)
		}
	}
	for id := range r.have {
		if list[id] == nil && steady(id) {
			delete(r.have, id)
			if r.want[id] == nil {
				delete(r.dirty, id)
			} else {
				r.dirty[id] = struct{}{}
			}
		}
	}
	r.compared = true
	r.changed = map[string]uint64{}
	for id := range r.busy {
		r.changed[id] = r.tick + 1
	}
	r.stats.compared(now)
	return nil
}

// lost returns the first instance, by ID, that was registered and that the list is without, or "".
func (r *Registry) lost(list map[string]*found, began uint64, busy map[string]bool) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := ""
	for id, has := range r.have {
		if list[id] == nil && r.want[id] != nil && !has.unsure && !busy[id] && !r.busy[id] && r.changed[id] <= began && (first == "" || id < first) {
			first = id
		}
	}
	return first
}

// differs marks an ID that the agent has otherwise than it is wanted. One that comes out different again and again is registered
// more and more seldom.
func (r *Registry) differs(id string, has *held, now time.Time) {
	delete(r.have, id)
	r.dirty[id] = struct{}{}
	if has == nil {
		return
	}
	h := r.again[id]
	if h == nil {
		h = &hold{}
		r.again[id] = h
	}
	if h.times++; h.times > 3 {
		h.until = now.Add(min(r.opt.Compare<<min(h.times-3, 10), 10*time.Minute))
	} else {
		h.until = now
	}
}

// wake makes Run compare soon.
func (r *Registry) wake() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// Close makes Set fail from now on and lets go of connections. What is registered stays, and goes critical by itself
// when its TTL has passed. End Run first.
func (r *Registry) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.agent.shut()
}

// forget makes it as it was before the first Set. The caller holds r.mu.
func (r *Registry) forget() {
	r.set, r.compared = false, false
	r.routes, r.want, r.have = map[object.Ref]*served{}, map[string]*instance{}, map[string]*held{}
	r.dirty, r.foreign, r.changed, r.busy = map[string]struct{}{}, map[string]bool{}, map[string]uint64{}, map[string]bool{}
	r.again = map[string]*hold{}
}

// Destroy deregisters everything that this installation registered with the agent. It may be called again. The next Set
// registers anew.
func (r *Registry) Destroy(ctx context.Context) error {
	if err := r.acquire(ctx); err != nil {
		return err
	}
	defer r.release()
	defer r.agent.shut()
	r.mu.Lock()
	r.forget()
	r.mu.Unlock()
	list, err := r.agent.list(ctx)
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(r.opt.Parallel)
	var mu sync.Mutex
	var errs []error
	for id, f := range list {
		if !r.naming.ours(id, f.Meta) {
			continue
		}
		g.Go(func() error {
			if err := r.agent.deregister(ctx, id); err != nil {
				mu.Lock()
				defer mu.Unlock()
				if len(errs) < 5 {
					errs = append(errs, err)
				}
			}
			return nil
		})
	}
	_ = g.Wait()
	return errors.Join(errs...)
}

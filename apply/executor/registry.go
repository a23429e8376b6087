package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Registry is something that serves the node's Services: the routes in the kernel, the name server, the proxy, Consul.
type Registry interface {
	// Name is one word for logs, metrics and events: routes, names, proxy, consul.
	Name() string
	// Set makes exactly routes be served, and returns when they are in force. The node calls it with everything each
	// time anything changes, one call at a time and never with an older state after a newer one; the registry finds
	// what changed by comparing pointers. After an error the node calls it again, with back-off. An error that concerns
	// one Service only is a ServiceError in the tree of what Set returns.
	Set(ctx context.Context, routes plan.Routes) error
}

// Registered is a Registry of a Node.
type Registered struct {
	Registry
	// Gate is how long a pod that is to stop waits at most for this registry to be without it. 0 does not wait.
	Gate time.Duration
}

// ServiceError is an error of a Registry that concerns one Service: the event is about that one.
type ServiceError interface {
	error
	// Service names it.
	Service() object.Ref
}

// RegistryStatus is how a registry does.
type RegistryStatus struct {
	Name string
	Gate time.Duration
	// Current is true when the registry serves the newest routes.
	Current bool
	// Sets counts the calls of Set, Failures those of them that failed.
	Sets, Failures uint64
	// Last is when Set last succeeded, and Took how long the last call took.
	Last time.Time
	Took time.Duration
	// Error is why the last call failed, empty when it succeeded. Since is when the registry began to fail or, without
	// an error, when it last began to succeed; zero before the first call.
	Error string
	Since time.Time
}

// setTimeout bounds one call of Set.
const setTimeout = callTimeout

// eventsPerSet bounds the Services that get an event when Set fails without naming one.
const eventsPerSet = 10

// registry is a Registered with what is known of it. Its status and counts are guarded by serving.mu.
type registry struct {
	Registered
	bell chan struct{}

	set     plan.Routes // of the last success; only for its goroutine
	ever    bool        // there was one
	version uint64      // of set
	done    uint64      // the last change that is in force
	tried   uint64      // the last change that was in a call of Set
	status  RegistryStatus
}

func newRegistry(r Registered) *registry {
	return &registry{
		Registered: r, bell: make(chan struct{}, 1), status: RegistryStatus{Name: r.Name(), Gate: r.Gate},
	}
}

func (r *registry) ring() {
	select {
	case r.bell <- struct{}{}:
	default:
	}
}

// Registries returns how each registry does, in the order of Options.Registries.
func (n *Node) Registries() []RegistryStatus {
	s := n.serving
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []RegistryStatus
	for _, r := range s.registries {
		st := r.status
		st.Current = st.Error == "" && !st.Last.IsZero() && r.done == s.changes
		out = append(out, st)
	}
	return out
}

// keep sets one registry to the routes of the node each time they change, from when the pods were adopted until the
// node is closed.
func (n *Node) keep(r *registry) {
	select {
	case <-n.serving.begun:
		time.Sleep(n.opt.Gather)
	case <-n.ctx.Done():
		return
	}
	var back retry
	for n.ctx.Err() == nil {
		select {
		case <-r.bell:
		default:
		}
		err := n.setOnce(r)
		if n.ctx.Err() != nil {
			return
		}
		if err == nil {
			back.succeeded()
			select {
			case <-r.bell:
				time.Sleep(n.opt.Gather)
			case <-n.ctx.Done():
			}
			continue
		}
		n.retryRest(r, back.failed())
	}
}

// retryRest waits after a failure. What changes meanwhile is tried earlier, but not at once.
func (n *Node) retryRest(r *registry, wait time.Duration) {
	least, full := time.NewTimer(min(retryFirst, wait)), time.NewTimer(wait)
	defer least.Stop()
	defer full.Stop()
	select {
	case <-least.C:
	case <-n.ctx.Done():
		return
	}
	select {
	case <-full.C:
	case <-r.bell:
	case <-n.ctx.Done():
	}
}

// setOnce sets the registry to what is served now, unless it is.
func (n *Node) setOnce(r *registry) error {
	s := n.serving
	routes, version, changes := s.snapshot()
	s.mu.Lock()
	same := r.ever && r.version == version && r.status.Error == ""
	if !same {
		r.tried = changes
	}
	s.mu.Unlock()
	if same {
		s.finish(func() { r.done = changes })
		return nil
	}
	ctx, cancel := context.WithTimeout(n.ctx, setTimeout)
	began := time.Now()
	err := r.Set(ctx, routes)
	cancel()
	if n.ctx.Err() != nil {
		return err
	}
	now := time.Now()
	before := r.status.Error // only this goroutine writes it
	s.finish(func() {
		st := &r.status
		st.Sets++
		st.Took = now.Sub(began)
		if err == nil {
			if st.Error != "" || st.Since.IsZero() {
				st.Since = now
			}
			st.Error, st.Last = "", now
			r.done, r.version, r.ever = changes, version, true
			return
		}
		st.Failures++
		if st.Error == "" {
			st.Since = now
		}
		st.Error = err.Error()
	})
	if err != nil && err.Error() != before {
		n.complain(r, routes, err)
	}
	if err == nil {
		r.set = routes
	}
	if (err == nil) != (before == "") || err != nil && err.Error() != before {
		n.mu.Lock()
		n.wakeWatchers()
		n.mu.Unlock()
	}
	return err
}

// finish notes what became of a call, and wakes who waits for it.
func (s *serving) finish(note func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	note()
	close(s.progress)
	s.progress = make(chan struct{})
	for _, uid := range sortedUIDs(s.leaving) {
		s.leaving[uid].tell(func() {})
	}
}

// complain tells of a failure: to the node, and to the Services that it concerns.
func (n *Node) complain(r *registry, routes plan.Routes, err error) {
	n.opt.OnTrouble(fmt.Errorf("serve Services with %s: %w", r.Name(), err))
	told := map[object.Ref]bool{}
	tell := func(s *plan.Service, err error) {
		if told[s.Ref] {
			return
		}
		told[s.Ref] = true
		n.opt.OnEvent(Event{
			Time: time.Now(), Warning: true, Application: s.Application, Service: s.Ref, Reason: "FailedToServe",
			Message: fmt.Sprintf("%s: %v; trying again", r.Name(), err),
		})
	}
	for _, of := range serviceErrors(err) {
		if i, ok := slices.BinarySearchFunc(routes, of.Service(), func(x *plan.Route, ref object.Ref) int { return object.Compare(x.Ref, ref) }); ok {
			tell(routes[i].Service, of)
		}
	}
	if len(told) > 0 {
		return
	}
	had := map[*plan.Route]bool{}
	for _, x := range r.set {
		had[x] = true
	}
	for _, x := range routes {
		if !had[x] && len(told) < eventsPerSet {
			tell(x.Service, err)
		}
	}
}

// serviceErrors are all errors in the tree that concern one Service.
func serviceErrors(err error) []ServiceError {
	switch e := err.(type) { //nolint:errorlint // each error of the tree is looked at itself
	case nil:
		return nil
	case ServiceError:
		return []ServiceError{e}
	case interface{ Unwrap() []error }:
		var out []ServiceError
		for _, e := range e.Unwrap() {
			out = append(out, serviceErrors(e)...)
		}
		return out
	}
	return serviceErrors(errors.Unwrap(err))
}

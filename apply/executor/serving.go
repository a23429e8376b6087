package executor

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// serving is what the node serves: its Services with their endpoints. It is told of every change of a pod and of a
// Service, and knows at once which Services that concerns; their Routes are made when somebody asks for them, so that
// changes that come together are worked on once.
//
// Its lock is taken last: nothing else is locked or called while it is held.
type serving struct {
	node  plan.NodeID
	files serviceFiles
	begun chan struct{} // closed when the pods were adopted: before that registries are set to nothing

	mu         sync.Mutex
	entries    map[object.Ref]*entry
	written    map[object.Ref]*plan.EndpointSlice
	claims     map[claim]object.Ref
	busy       map[object.Ref]chan struct{} // what is being written to a file; closed when that is done
	bySelector map[pair]map[*entry]struct{}
	members    map[string]*member            // by UID
	byLabel    map[pair]map[*member]struct{} // those that have a label
	dirty      map[*entry]struct{}           // whose Route has to be made again
	reorder    bool                          // sorted and routes are to be made again
	sorted     []*entry
	routes     plan.Routes
	version    uint64 // counts the changes of routes
	changes    uint64 // counts everything that may change routes
	registries []*registry
	progress   chan struct{}   // closed and replaced when a registry was set
	leaving    map[string]*pod // those that wait to be out of the routes, by UID
}

// entry is one Service.
type entry struct {
	service *plan.Service
	members map[*member]struct{}
	written map[object.Ref]*plan.EndpointSlice
	route   *plan.Route
}

// pair is a label in a namespace.
type pair struct{ namespace, key, value string }

// member is one pod of the node.
type member struct {
	seen *plan.ObservedPod
	of   map[*entry]struct{}
	// offered: a Service has it as a ready endpoint. turned is the change with which that last changed, 0 for never,
	// entered the last change before which no registry had it, and at when it last changed.
	offered         bool
	turned, entered uint64
	at              time.Time
}

func newServing(node plan.NodeID, files serviceFiles, registries []Registered) *serving {
	s := &serving{
		node: node, files: files, begun: make(chan struct{}), progress: make(chan struct{}),
		entries: map[object.Ref]*entry{}, written: map[object.Ref]*plan.EndpointSlice{}, claims: map[claim]object.Ref{},
		busy: map[object.Ref]chan struct{}{}, bySelector: map[pair]map[*entry]struct{}{}, members: map[string]*member{},
		byLabel: map[pair]map[*member]struct{}{}, dirty: map[*entry]struct{}{}, leaving: map[string]*pod{}, routes: plan.Routes{},
	}
	for _, r := range registries {
		s.registries = append(s.registries, newRegistry(r))
	}
	return s
}

// selector returns one pair of labels that every pod has which the Service selects.
func selector(s *plan.Service) (pair, bool) {
	if !s.HasSelector() {
		return pair{}, false
	}
	key := slices.Min(slices.Collect(maps.Keys(s.Spec.Selector)))
	return pair{s.Namespace, key, s.Spec.Selector[key]}, true
}

// put makes a Service what is served. Called with mu held.
func (s *serving) put(v *plan.Service) {
	e := s.entries[v.Ref]
	if e == nil {
		e = &entry{members: map[*member]struct{}{}, written: map[object.Ref]*plan.EndpointSlice{}}
		for ref, w := range s.written {
			if w.Service == v.Ref {
				e.written[ref] = w
			}
		}
		s.entries[v.Ref] = e
		s.reorder = true
	} else {
		s.changed(e) // what leaves it leaves with a change, which no registry has yet
		s.unselect(e)
	}
	e.service = v
	if at, ok := selector(v); ok {
		add(s.bySelector, at, e)
		for m := range s.byLabel[at] {
			if v.Selects(m.seen.Namespace, m.seen.Labels) {
				e.members[m], m.of[e] = struct{}{}, struct{}{}
			}
		}
	}
	s.changed(e)
	for m := range e.members {
		s.offer(m)
	}
}

// drop ends a Service. Called with mu held.
func (s *serving) drop(ref object.Ref) {
	e := s.entries[ref]
	if e == nil {
		return
	}
	delete(s.entries, ref)
	delete(s.dirty, e)
	s.reorder = true
	s.changed(nil)
	s.unselect(e)
}

// unselect lets go of the pods of a Service.
func (s *serving) unselect(e *entry) {
	if at, ok := selector(e.service); ok {
		remove(s.bySelector, at, e)
	}
	for m := range e.members {
		delete(m.of, e)
		delete(e.members, m)
		s.offer(m)
	}
}

// putWritten and dropWritten change hand-written endpoints. Called with mu held.
func (s *serving) putWritten(w *plan.EndpointSlice) {
	s.dropWritten(w.Ref)
	s.written[w.Ref] = w
	if e := s.entries[w.Service]; e != nil {
		e.written[w.Ref] = w
		s.changed(e)
	}
}

func (s *serving) dropWritten(ref object.Ref) {
	last := s.written[ref]
	if last == nil {
		return
	}
	delete(s.written, ref)
	if e := s.entries[last.Service]; e != nil {
		delete(e.written, ref)
		s.changed(e)
	}
}

// podSeen takes how a pod is now; the pod is shared and never changes. adopted says that the pod was there before this
// process, so that the registries may have it from the one before.
func (s *serving) podSeen(o *plan.ObservedPod, adopted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.members[o.UID]
	isNew := m == nil
	if isNew {
		m = &member{of: map[*entry]struct{}{}, at: time.Now()}
		s.members[o.UID] = m
	}
	last := m.seen
	m.seen = o
	if isNew || !maps.Equal(last.Labels, o.Labels) {
		s.relabel(m, last)
	}
	for e := range m.of {
		s.changed(e)
	}
	if isNew && adopted {
		m.offered = len(m.of) > 0 && offerable(o)
		m.turned = max(s.changes, 1) // entered stays 0: the registries may have had it before they are tried here
		return
	}
	s.offer(m)
}

// relabel finds the Services that select a pod whose labels changed.
func (s *serving) relabel(m *member, last *plan.ObservedPod) {
	if last != nil {
		for k, v := range last.Labels {
			remove(s.byLabel, pair{last.Namespace, k, v}, m)
		}
	}
	for e := range m.of {
		if !e.service.Selects(m.seen.Namespace, m.seen.Labels) {
			delete(m.of, e)
			delete(e.members, m)
			s.changed(e)
		}
	}
	for k, v := range m.seen.Labels {
		at := pair{m.seen.Namespace, k, v}
		add(s.byLabel, at, m)
		for e := range s.bySelector[at] {
			if e.service.Selects(m.seen.Namespace, m.seen.Labels) {
				m.of[e], e.members[m] = struct{}{}, struct{}{}
			}
		}
	}
}

// podGone takes that a pod is gone.
func (s *serving) podGone(uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.members[uid]
	if m == nil {
		return
	}
	delete(s.members, uid)
	delete(s.leaving, uid)
	for k, v := range m.seen.Labels {
		remove(s.byLabel, pair{m.seen.Namespace, k, v}, m)
	}
	for e := range m.of {
		delete(e.members, m)
		s.changed(e)
	}
}

// offerable reports whether Services that select the pod have it as a ready endpoint.
func offerable(o *plan.ObservedPod) bool { return o.Ready && !o.Terminating && o.IP != "" }

// offer notes whether a pod is now a ready endpoint. One that a Service publishes though it is not ready does not count:
// it never leaves.
func (s *serving) offer(m *member) {
	now := len(m.of) > 0 && offerable(m.seen)
	if now == m.offered {
		return
	}
	// One that comes back before every registry was without it is still there, and has not entered anew.
	if now && (m.turned == 0 || s.allWithout(m)) {
		m.entered = s.changes
	}
	m.offered, m.turned, m.at = now, s.changes, time.Now()
}

// allWithout reports whether the last time that a pod ceased to be a ready endpoint is in force in every registry.
func (s *serving) allWithout(m *member) bool {
	return !slices.ContainsFunc(s.registries, func(r *registry) bool { return r.done < m.turned })
}

// changed notes that the Route of e has to be made again and tells the registries.
func (s *serving) changed(e *entry) {
	s.changes++
	if e != nil {
		s.dirty[e] = struct{}{}
	}
	for _, r := range s.registries {
		r.ring()
	}
}

// snapshot returns the Routes of now, which version of them it is, and the last change that is in them.
func (s *serving) snapshot() (routes plan.Routes, version, changes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	differs := s.reorder
	if s.reorder {
		s.sorted = slices.SortedFunc(maps.Values(s.entries), func(a, b *entry) int { return object.Compare(a.service.Ref, b.service.Ref) })
		s.reorder = false
	}
	for e := range s.dirty {
		pods := make([]*plan.ObservedPod, 0, len(e.members))
		for m := range e.members {
			pods = append(pods, m.seen)
		}
		r := plan.MakeRoute(e.service, pods, slices.Collect(maps.Values(e.written)), s.node)
		if e.route == nil || !e.route.Same(r) {
			e.route, differs = r, true
		}
	}
	clear(s.dirty)
	if differs {
		s.routes = make(plan.Routes, len(s.sorted)) // the last ones are shared
		for i, e := range s.sorted {
			s.routes[i] = e.route
		}
		s.version++
	}
	return s.routes, s.version, s.changes
}

// lists returns the Services and the hand-written endpoints, sorted.
func (s *serving) lists() (services []*plan.Service, endpoints []*plan.EndpointSlice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		services = append(services, e.service)
	}
	for _, w := range s.written {
		endpoints = append(endpoints, w)
	}
	slices.SortFunc(services, func(a, b *plan.Service) int { return object.Compare(a.Ref, b.Ref) })
	slices.SortFunc(endpoints, func(a, b *plan.EndpointSlice) int { return object.Compare(a.Ref, b.Ref) })
	return services, endpoints
}

// inNamespace returns the Services of a namespace, sorted by name.
func (s *serving) inNamespace(namespace string) []*plan.Service {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*plan.Service
	for ref, e := range s.entries {
		if ref.Namespace == namespace {
			out = append(out, e.service)
		}
	}
	slices.SortFunc(out, func(a, b *plan.Service) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Routes returns the node's Services with their endpoints as they are now. They are shared: do not modify them.
func (n *Node) Routes() plan.Routes {
	routes, _, _ := n.serving.snapshot()
	return routes
}

func add[K, V comparable](m map[K]map[V]struct{}, k K, v V) {
	if m[k] == nil {
		m[k] = map[V]struct{}{}
	}
	m[k][v] = struct{}{}
}

func remove[K, V comparable](m map[K]map[V]struct{}, k K, v V) {
	delete(m[k], v)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}

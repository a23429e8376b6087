package reconcile

import (
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// memo is the last plan of an application and what it was computed from. Where all of that is the very same,
// and no moment has come that the plan waits for, computing it again would give the same plan.
type memo struct {
	desired  plan.Desired
	refs     []object.Ref    // of named
	named    []object.Object // the objects that were asked about last
	observed plan.Observed
	plan     plan.Plan
	known    bool
	// leftovers are those of the last plan: others are asked about them before the next one is made.
	leftovers []object.Ref
}

// refsOf returns the names of what is desired. What is incomplete is not applied, so it claims nothing.
func (m *memo) refsOf(d plan.Desired) []object.Ref {
	if !d.Complete {
		return nil
	}
	if m.refs == nil || !sameSlice(m.named, d.Objects) {
		m.named = d.Objects
		m.refs = make([]object.Ref, len(d.Objects))
		for i := range d.Objects {
			m.refs[i] = d.Objects[i].Ref
		}
	}
	return m.refs
}

// valid reports whether the last plan is what Compute would return. Steps carry deadlines that follow from the
// time, so a plan that has any is always computed anew.
func (m *memo) valid(d plan.Desired, o plan.Observed) bool {
	was := &m.plan
	return m.known && was.Empty() && len(was.Finished) == 0 && was.Sync == nil && m.observed.Sync == o.Sync && m.observed.Retry == o.Retry && (was.Wake.IsZero() || o.Now.Before(was.Wake)) && !o.Now.Before(m.observed.Now) &&
		(sameDesired(m.desired, d) || sameButForRevision(m.desired, d)) && sameSlice(m.observed.Applied, o.Applied) &&
		slices.EqualFunc(m.observed.Nodes, o.Nodes, sameNode) && maps.Equal(m.observed.Claims, o.Claims) &&
		len(o.Arrivals) == 0 && len(m.observed.Arrivals) == 0 && maps.Equal(m.observed.Departures, o.Departures) && m.observed.Unsettled == o.Unsettled &&
		maps.Equal(m.observed.Suspended, o.Suspended)
}

// compute is plan.Compute, and how long it took; 0 when the last plan holds.
func (m *memo) compute(d plan.Desired, o plan.Observed, opt plan.Options) (plan.Plan, time.Duration) {
	if m.valid(d, o) {
		m.plan.Application.Revision = d.Application.Revision
		return m.plan, 0
	}
	p := plan.Compute(d, o, opt)
	took := time.Since(o.Now)
	*m = memo{desired: d, refs: m.refs, named: m.named, observed: o, plan: p, known: true, leftovers: p.Leftovers}
	return p, took
}

func sameDesired(a, b plan.Desired) bool {
	return a.Complete == b.Complete && sameSlice(a.Objects, b.Objects) && sameSlice(a.Workloads, b.Workloads) &&
		sameSlice(a.Configs, b.Configs) && reflect.DeepEqual(a.Application, b.Application)
}

// sameButForRevision reports whether another revision of the source says the same. Where there are hooks, that is another
// sync. Workloads and Services differ then by the revision that they are noted with; they follow from the rest.
func sameButForRevision(a, b plan.Desired) bool {
	for _, o := range b.Orders {
		if o.Hook != 0 {
			return false
		}
	}
	x, y := a.Application, b.Application
	x.Revision, y.Revision = "", ""
	return a.Complete && b.Complete && sameSlice(a.Objects, b.Objects) && sameSlice(a.Configs, b.Configs) && reflect.DeepEqual(x, y)
}

// sameNode reports whether a node was not seen to change: whoever observes it returns the same pods until then.
func sameNode(a, b plan.NodeState) bool {
	same := sameSlice(a.Pods, b.Pods)
	a.Pods, b.Pods = nil, nil
	return same && reflect.DeepEqual(a, b)
}

// sameSlice reports whether two slices are the same elements in the same memory. What is shared is never modified.
func sameSlice[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

package plan

import (
	"slices"

	"github.com/fairlead-dev/fairlead/render/object"
)

// Who owns what.
//
// An object belongs to the application that claims it (Observed.Claims), and what runs or is served for an object belongs
// to whom the object belongs to, whatever name it was made under. So an object that moves from one application to
// another takes its pods and addresses along: its new application has them change their application, which restarts
// nothing, and its old one leaves them alone.

// Arrival is an object that is desired and that another application has and does not want any more.
type Arrival struct {
	// From is the other application.
	From string
	// Applied is the object as that application's inventory has it; nil when that is not known.
	Applied *Applied
}

// Departure is an object that the application has and does not want, and that another one wants.
type Departure struct {
	// To is the other application.
	To string
	// Done is true when the other application has taken it over: it is in its inventory.
	Done bool
}

// Move is an object that goes from one application to another. Nothing of it is destroyed.
type Move struct {
	Ref  object.Ref `json:"ref"`
	From string     `json:"from"`
	To   string     `json:"to"`
}

// withArrivals returns an inventory in which what arrives is as its old application had applied it.
func withArrivals(applied []Applied, arrivals map[object.Ref]Arrival) []Applied {
	if len(arrivals) == 0 {
		return applied
	}
	out := slices.DeleteFunc(slices.Clone(applied), func(a Applied) bool { return arrivals[a.Ref].Applied != nil })
	for _, r := range sortedRefs(arrivals) {
		if a := arrivals[r].Applied; a != nil {
			out = append(out, *a)
		}
	}
	return out
}

// elsewhere reports whether an object is another application's.
func (b *builder) elsewhere(r object.Ref) bool {
	if len(b.claims) > 0 {
		if owner := b.claims[r]; owner != "" && owner != b.desired.Application.Name {
			return true
		}
	}
	_, leaves := b.departures[r]
	return leaves
}

// owns reports whether a pod is this application's. namespaces are those of the desired workloads.
func (b *builder) owns(p *ObservedPod, namespaces []string) bool {
	switch {
	case p.Application == b.desired.Application.Name:
		return !b.elsewhere(p.Owner)
	case !b.desired.Complete || !slices.Contains(namespaces, p.Namespace):
		return false
	}
	return b.desiredWorkload(p.Owner) != nil && !b.elsewhere(p.Owner)
}

// mine reports whether what a node serves or uses under a name, for an application, is this application's.
func (b *builder) mine(r object.Ref, application string) bool {
	if b.elsewhere(r) {
		return false
	}
	return application == b.desired.Application.Name || b.desired.Complete && b.desiredHas(r)
}

// arrive says where an object comes from that is taken over.
func (b *builder) arrive(o *object.Object, from string) {
	c := b.change(o.Ref)
	c.From, c.Origin = from, o.Origin
	cause := "moves from application " + from
	if c.Action == ActionNone {
		c.Action, c.Cause = ActionMove, cause
		return
	}
	c.Cause = cause + "; " + c.Cause
}

// movePods has pods of this application that were made under another one become its own. Whatever else is to be done
// to them comes after it.
func (b *builder) movePods() {
	if !b.desired.Complete {
		return
	}
	to := b.desired.Application.Name
	for i := range b.all {
		p := &b.all[i]
		if !p.ours || p.Application == to || p.Terminating || p.stale || b.verdicts[p.Owner] == left {
			continue
		}
		cause := "it moves from application " + p.Application
		p.moves = b.step(Step{Op: OpMovePod, Node: p.node, Target: p.Ref(), Cause: cause,
			Args: MovePod{Pod: p.PodKey, UID: p.UID, From: p.Application, To: to}}, nil)
		b.podChange(p.Owner, PodChange{Pod: p.PodKey, Action: ActionMove, Node: p.node, Cause: cause})
	}
}

// afterMove adds the step that makes a pod this application's own to those that come before another one.
func afterMove(op *pod, after []StepID) []StepID {
	if op.moves == 0 {
		return after
	}
	return append(slices.Clip(after), op.moves)
}

// showMoves lists what comes and goes.
func (b *builder) showMoves() {
	name := b.desired.Application.Name
	for _, r := range sortedRefs(b.arrivals) {
		if b.desiredHas(r) && b.verdicts[r] != left {
			b.plan.Moves = append(b.plan.Moves, Move{Ref: r, From: b.arrivals[r].From, To: name})
		}
	}
	for _, r := range sortedRefs(b.departures) {
		if !b.desiredHas(r) {
			b.plan.Moves = append(b.plan.Moves, Move{Ref: r, From: name, To: b.departures[r].To})
		}
	}
	slices.SortStableFunc(b.plan.Moves, func(x, y Move) int { return object.Compare(x.Ref, y.Ref) })
}

// leftovers are what the application has and does not want: objects of its inventory, owners of its pods, and what nodes
// serve for it.
func (b *builder) leftovers(applied []Applied) []object.Ref {
	name := b.desired.Application.Name
	var out []object.Ref
	next := 0
	for i := range applied {
		for next < len(b.desired.Objects) && object.Compare(b.desired.Objects[next].Ref, applied[i].Ref) < 0 {
			next++
		}
		if next == len(b.desired.Objects) || b.desired.Objects[next].Ref != applied[i].Ref {
			out = append(out, applied[i].Ref)
		}
	}
	out = append(out, b.orphans()...)
	for i := range b.all {
		if p := &b.all[i]; !p.ours && p.Application == name && !b.desiredHas(p.Owner) {
			out = append(out, p.Owner)
		}
	}
	for _, id := range b.services.order {
		for _, s := range b.services.served[id] {
			if s.Application == name && !b.desiredHas(s.Ref) {
				out = append(out, s.Ref)
			}
		}
		for _, e := range b.services.endpoints[id] {
			if e.Application == name && !b.desiredHas(e.Ref) {
				out = append(out, e.Ref)
			}
		}
	}
	for _, r := range sortedRefs(b.storage.on) {
		if x := b.storage.on[r]; x.Application == name && x.Owner == (object.Ref{}) && !b.desiredHas(r) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, object.Compare)
	return slices.Compact(out)
}

package reconcile

import (
	"time"

	"github.com/fairlead-dev/fairlead/daemon/store"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

func objectName(o *object.Object) object.Ref { return o.Ref }

func appliedName(a *plan.Applied) object.Ref { return a.Ref }

// recordIntent puts what is about to be applied into the inventory, before anything is changed.
func (a *Application) recordIntent(p plan.Plan, desired plan.Desired) error {
	if len(p.Changes) == 0 && p.Sync == nil {
		return nil
	}
	var c store.Change
	for _, ch := range p.Changes {
		at, wanted := object.Find(desired.Objects, objectName, ch.Ref)
		if !wanted || ch.Action == plan.ActionDelete || ch.Action == plan.ActionNone {
			continue
		}
		applied := plan.RedactApplied(desired.Objects[at], a.options.DigestKey)
		applied.Created, applied.Run = time.Now().UTC(), ch.Hook
		if was := a.before(ch); was != nil {
			applied.Moved = was.Moved
			if ch.Action == plan.ActionUpdate || ch.Action == plan.ActionMove {
				applied = applied.Keep(*was, desired.Application.Ignore)
				applied.Created = was.Created
				applied.Finished, applied.Succeeded, applied.FinishReason, applied.FinishMessage = was.Finished, was.Succeeded, was.FinishReason, was.FinishMessage
			}
		}
		if ch.From != "" {
			applied.Moved++
		}
		c.Applied = append(c.Applied, applied)
	}
	return a.save(a.withSync(p), c)
}

// before returns what was applied of an object that changes: by the application that it comes from, or by this one; nil
// when nothing is known of that.
func (a *Application) before(ch plan.Change) *plan.Applied {
	if arrival := a.last.observed.Arrivals[ch.Ref]; ch.From != "" && arrival.Applied != nil {
		return arrival.Applied
	}
	if i, known := object.Find(a.record.Inventory, appliedName, ch.Ref); known {
		return &a.record.Inventory[i]
	}
	return nil
}

// takeOver makes what comes from other applications this one's, and reports whether they still let it go.
func (a *Application) takeOver(c Config, p plan.Plan) bool {
	var refs []object.Ref
	from := map[object.Ref]string{}
	for _, ch := range p.Changes {
		if ch.From != "" {
			refs = append(refs, ch.Ref)
			from[ch.Ref] = ch.From
		}
	}
	if len(refs) == 0 {
		return true
	}
	if !a.world.Claims().Take(c.Name, refs) {
		return false
	}
	a.world.Moved(c.Name, from)
	return true
}

// recordedMoves is what is to be written down of what goes to other applications: what they have taken over is forgotten,
// and of the rest it is remembered where it goes, so that it is not deleted after a crash because its new owner cannot
// be looked at.
func (a *Application) recordedMoves() store.Change {
	var c store.Change
	for i := range a.record.Inventory {
		have := &a.record.Inventory[i]
		d := a.last.observed.Departures[have.Ref]
		switch {
		case d.Done:
			c.Gone = append(c.Gone, have.Ref)
		case d.To != have.MovesTo:
			noted := *have
			noted.MovesTo = d.To
			c.Applied = append(c.Applied, noted)
		}
	}
	return c
}

// withSync is the record with what a plan says of the sync.
func (a *Application) withSync(p plan.Plan) store.Record {
	r := a.record
	if p.Sync != nil {
		r.Sync, a.retrySync = p.Sync, false
	}
	return r
}

// mostEnds bounds how many ends follow from one another: that of a hook, and then that of the sync.
const mostEnds = 8

// ends reports whether a plan found that something has ended.
func ends(p plan.Plan) bool {
	return len(p.Finished) > 0 || p.Sync != nil && !p.Sync.Ended.IsZero()
}

// recordFinished remembers how Jobs, hooks and the sync ended.
func (a *Application) recordFinished(p plan.Plan) error {
	var c store.Change
	for _, f := range p.Finished {
		if i, known := object.Find(a.record.Inventory, appliedName, f.Ref); known {
			job := a.record.Inventory[i]
			job.Finished, job.Succeeded, job.FinishReason, job.FinishMessage = f.At, f.Succeeded, f.Reason, f.Message
			c.Applied = append(c.Applied, job)
		}
	}
	r := a.record
	if p.Sync != nil && !p.Sync.Ended.IsZero() {
		r, c.Durable = a.withSync(p), true
	}
	return a.save(r, c)
}

// recordOutcome forgets what was deleted, after a walk whose every step succeeded, and with all of the plan the approvals
// for it.
func (a *Application) recordOutcome(p plan.Plan, r Report, all bool) error {
	if r.Superseded {
		return nil
	}
	var c store.Change
	for _, ch := range p.Changes {
		if ch.Action == plan.ActionDelete {
			c.Gone = append(c.Gone, ch.Ref)
		}
	}
	if len(c.Gone) == 0 {
		return nil
	}
	if err := a.save(a.record, c); err != nil || !all {
		return err
	}
	return a.store.ForgetApprovals(a.record.Application)
}

// succeed records that what is aimed at is good, once, and returns it as it is then.
func (a *Application) succeed(c Config, to aim) (aim, error) {
	if c.Removed {
		return to, nil
	}
	if to.back {
		err := a.wentBack()
		to.failed, to.held = a.record.Failed, false
		return to, err
	}
	a.proven, to.failed, to.held = to.rendered, nil, false
	if r := a.record; r.Revision == string(to.revision) && r.Content == to.content && r.Attempt == nil && r.Failed == nil {
		return to, nil
	}
	r := a.record
	if r.Revision != string(to.revision) || r.Content != to.content {
		r.AppliedAt = time.Now().UTC()
		// What was approved is done: to come to the same another time is another question.
		if err := a.store.ForgetApprovals(c.Name); err != nil {
			return to, err
		}
	}
	r.Revision, r.Content, r.Attempt, r.Failed = string(to.revision), to.content, nil, nil
	return to, a.save(r, store.Change{})
}

// save makes r, with a change of its inventory, the record.
func (a *Application) save(r store.Record, change store.Change) error {
	c := a.configured()
	r.Application, r.DeclaredBy, r.Orphan = c.Name, c.DeclaredBy, c.Orphan
	r, err := a.store.Update(r, change)
	if err == nil {
		a.record = r
		a.world.Claims().Recorded(c.Name, r.Inventory)
	}
	return err
}

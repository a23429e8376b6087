package reconcile

import (
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// recordIntent puts what is about to be applied into the inventory, before anything is changed.
func (a *Application) recordIntent(p plan.Plan, desired plan.Desired) error {
	if len(p.Changes) == 0 {
		return nil
	}
	byRef := make(map[object.Ref]int, len(a.record.Inventory))
	inventory := slices.Clone(a.record.Inventory)
	for i, o := range inventory {
		byRef[o.Ref] = i
	}
	objects := make(map[object.Ref]object.Object, len(desired.Objects))
	for _, o := range desired.Objects {
		objects[o.Ref] = o
	}
	for _, ch := range p.Changes {
		o, wanted := objects[ch.Ref]
		if !wanted || ch.Action == plan.ActionDelete || ch.Action == plan.ActionNone {
			continue
		}
		applied := plan.RedactApplied(o, a.options.DigestKey)
		if i, known := byRef[ch.Ref]; known {
			if ch.Action == plan.ActionUpdate {
				was := inventory[i]
				applied = applied.Keep(was, desired.Application.Ignore)
				applied.Finished, applied.Succeeded, applied.FinishReason = was.Finished, was.Succeeded, was.FinishReason
			}
			inventory[i] = applied
		} else {
			inventory = append(inventory, applied)
		}
	}
	return a.save(inventory)
}

// recordFinished remembers how Jobs ended.
func (a *Application) recordFinished(finished []plan.Finish) error {
	inventory := slices.Clone(a.record.Inventory)
	for _, f := range finished {
		for i := range inventory {
			if o := &inventory[i]; o.Ref == f.Ref {
				o.Finished, o.Succeeded, o.FinishReason = f.At, f.Succeeded, f.Reason
			}
		}
	}
	return a.save(inventory)
}

// recordOutcome forgets what was deleted, after a walk whose every step succeeded.
func (a *Application) recordOutcome(p plan.Plan, r Report) error {
	if r.Superseded {
		return nil
	}
	gone := map[object.Ref]bool{}
	for _, ch := range p.Changes {
		if ch.Action == plan.ActionDelete {
			gone[ch.Ref] = true
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return a.save(slices.DeleteFunc(slices.Clone(a.record.Inventory), func(o plan.Applied) bool { return gone[o.Ref] }))
}

func (a *Application) save(inventory []plan.Applied) error {
	slices.SortFunc(inventory, func(x, y plan.Applied) int { return object.Compare(x.Ref, y.Ref) })
	c := a.configured()
	r := a.record
	r.Application, r.DeclaredBy, r.Orphan, r.Inventory = c.Name, c.DeclaredBy, c.Orphan, inventory
	if err := a.store.Save(r); err != nil {
		return err
	}
	a.record = r
	return nil
}

// succeed records that the rendered revision is applied, once.
func (a *Application) succeed(c Config) error {
	if a.record.Revision == string(a.rendered.revision) || c.Removed {
		return nil
	}
	r := a.record
	r.Application, r.Revision, r.AppliedAt = c.Name, string(a.rendered.revision), time.Now().UTC()
	if err := a.store.Save(r); err != nil {
		return err
	}
	a.record = r
	return nil
}

package daemon

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/simulate"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// comparison is what a change of sources does, whatever runs.
type comparison struct {
	before, after *evaluation
	// plans are those of the applications that differ, sorted by name.
	plans []api.ApplicationPlan
}

// compare plans what a change of sources does to every application that it touches: from what would run if base had been
// applied to what head says. What really runs is not looked at, so the result follows from Git alone. A stranger's head gets no keys and no Secrets. The caller holds s.planMu.
func (s *System) compare(ctx context.Context, base, head placing, stranger bool, only []string) (*comparison, error) {
	before, err := s.evaluate(ctx, base, stranger, nil)
	if err != nil {
		return nil, err
	}
	after, err := s.evaluate(ctx, head, stranger, before)
	if err != nil {
		return nil, err
	}
	c := &comparison{before: before, after: after, plans: []api.ApplicationPlan{}}
	names := slices.Collect(maps.Keys(before.wants))
	for name := range after.wants {
		if before.wants[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range only {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("%w: application %s is declared neither before nor after", api.ErrNotFound, name)
		}
	}
	had := before.owners(nil)
	owners := &ownership{before: before, had: had, has: after.owners(had), worlds: map[string]plan.Observed{}}
	for _, name := range names {
		if len(only) > 0 && !slices.Contains(only, name) {
			continue
		}
		if p, differs := s.difference(before.wants[name], after.wants[name], owners); differs {
			c.plans = append(c.plans, p)
		}
	}
	c.judge()
	return c, nil
}

// difference plans one application, of which before or after may be nil. It reports whether there is anything to say.
func (s *System) difference(before, after *wanted, owners *ownership) (api.ApplicationPlan, bool) {
	if before != nil && after != nil && after.same {
		return api.ApplicationPlan{}, false
	}
	there := after
	if there == nil {
		there = before
	}
	p := api.ApplicationPlan{Name: there.decl.Name, Source: s.locationOf(there.decl.Source), Path: there.config.Path}
	observed := plan.Observed{Now: there.snapshot.Committed, Nodes: []plan.NodeState{{Node: s.planning.Node, Storage: owners.volumes(p.Name)}}}
	if before != nil {
		p.From = revisionFrom(before.snapshot)
		observed = s.before(owners, p.Name, observed)
	}
	desired := plan.Desired{Complete: true}
	if after == nil {
		desired.Application = reconcile.Removed(before.config)
	} else {
		p.To, p.Wants = revisionFrom(after.snapshot), s.wanted(after.desired)
		desired = after.desired
		if after.problem != "" {
			p.Error = &api.Error{Code: api.CodeFailed, Message: after.problem}
			return p, before == nil || before.problem != after.problem
		}
	}
	observed.Claims = claimedByOthers(owners.has, p.Name, desired.Objects)
	s.moves(owners, p.Name, desired.Objects, &observed)
	p.Plan = plan.Compute(desired, observed, s.planning)
	p.Plan.Blocked = compared(p.Plan.Blocked, p.Plan.Diags)
	if after != nil {
		p.Plan.Diags = slices.Concat(after.diags, p.Plan.Diags)
	}
	wasBroken := before != nil && (before.problem != "" || before.diags.HasErrors())
	return p, !p.Plan.Empty() || len(p.Plan.Changes) > 0 || len(p.Plan.Moves) > 0 || p.Plan.Blocked != nil || p.Plan.Diags.HasErrors() || wasBroken || before == nil || after == nil
}

// compared is what waits for an approval where only what is in Git was compared: then it is known by that alone.
func compared(b *plan.Blocked, diags diag.List) *plan.Blocked {
	if b == nil {
		return nil
	}
	out := *b
	out.Digest = b.Content
	for i := range diags {
		if diags[i].Code == plan.BlockedCode {
			diags[i].Hint = "it waits after the merge, unless it was approved on the pull request before"
		}
	}
	return &out
}

// wanted identifies what is desired; empty for nothing.
func (s *System) wanted(d plan.Desired) string {
	if len(d.Objects) == 0 {
		return ""
	}
	return plan.Wanted(d, s.planning.DigestKey)
}

// maxRounds is how many plans it may take until a simulated world is at rest: Jobs and what waits for them.
const maxRounds = 10

// converged is the world in which d was applied and nothing is left to do.
func (s *System) converged(d plan.Desired, o plan.Observed) plan.Observed {
	for range maxRounds {
		p := plan.Compute(d, o, s.planning)
		if p.Empty() && len(p.Changes) == 0 {
			break
		}
		o = simulate.Plan(d, o, p, s.planning.DigestKey)
	}
	return o
}

// ownership says which application has each object before and after a change: after it the one that had it before, if it
// still wants it, then the first by name. worlds are what would run of an application before the change.
type ownership struct {
	before   *evaluation
	had, has map[object.Ref]string
	worlds   map[string]plan.Observed
}

// volumes are the classes and volumes that other applications want, which claims of this one may be bound to.
func (o *ownership) volumes(application string) []*plan.Storage {
	var out []*plan.Storage
	for _, name := range slices.Sorted(maps.Keys(o.before.wants)) {
		if name != application {
			out = append(out, plan.Volumes(o.before.wants[name].desired)...)
		}
	}
	return out
}

// before returns the world in which what was wanted of an application before the change was applied.
func (s *System) before(o *ownership, application string, empty plan.Observed) plan.Observed {
	world, known := o.worlds[application]
	if !known {
		world = s.converged(o.before.wants[application].desired, empty)
		o.worlds[application] = world
	}
	world.Now = empty.Now
	return world
}

// moves adds to what is observed of an application what it takes over from others, and what others take over from it.
func (s *System) moves(o *ownership, application string, desired []object.Object, observed *plan.Observed) {
	observed.Arrivals, observed.Departures = map[object.Ref]plan.Arrival{}, map[object.Ref]plan.Departure{}
	node := observed.Nodes[0]
	for i := range desired {
		r := desired[i].Ref
		from := o.had[r]
		if from == "" || from == application || o.has[r] != application {
			continue
		}
		theirs := s.before(o, from, plan.Observed{Now: observed.Now, Nodes: []plan.NodeState{{Node: node.Node}}})
		arrival := plan.Arrival{From: from}
		for _, a := range theirs.Applied {
			if a.Ref == r {
				arrival.Applied = &a
			}
		}
		observed.Arrivals[r] = arrival
		for _, p := range theirs.Nodes[0].Pods {
			if p.Owner == r {
				node.Pods = append(slices.Clip(node.Pods), p)
			}
		}
		for _, v := range theirs.Nodes[0].Services {
			if v.Ref == r {
				node.Services = append(slices.Clip(node.Services), v)
			}
		}
		for _, v := range theirs.Nodes[0].Storage {
			if v.Ref == r || v.Owner == r {
				node.Storage = plan.WithStorage(node.Storage, v)
			}
		}
		for _, v := range theirs.Nodes[0].Endpoints {
			if v.Ref == r {
				node.Endpoints = append(slices.Clip(node.Endpoints), v)
			}
		}
	}
	for _, a := range observed.Applied {
		if to := o.has[a.Ref]; to != "" && to != application {
			observed.Departures[a.Ref] = plan.Departure{To: to}
		}
	}
	observed.Nodes = []plan.NodeState{node}
}

// owners returns the owner of everything that is wanted; those of had keep what they still want.
func (e *evaluation) owners(had map[object.Ref]string) map[object.Ref]string {
	out := map[object.Ref]string{}
	names := slices.Sorted(maps.Keys(e.wants))
	for _, kept := range []bool{true, false} {
		for _, name := range names {
			for _, o := range e.wants[name].desired.Objects {
				if _, taken := out[o.Ref]; !taken && (!kept || had[o.Ref] == name) {
					out[o.Ref] = name
				}
			}
		}
	}
	return out
}

// claimedByOthers returns those of objects that other applications own.
func claimedByOthers(owners map[object.Ref]string, application string, objects []object.Object) map[object.Ref]string {
	var out map[object.Ref]string
	for _, o := range objects {
		if owner := owners[o.Ref]; owner != "" && owner != application {
			if out == nil {
				out = map[object.Ref]string{}
			}
			out[o.Ref] = owner
		}
	}
	return out
}

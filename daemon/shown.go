package daemon

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render"
	"github.com/fairlead-dev/fairlead/render/object"
)

// shown returns the state of every application, sorted by name. Where no worker looks at them, they are
// looked at once now; those that are only recorded, because nobody declares them here, are shown as what
// was applied.
func (s *System) shown(ctx context.Context) ([]reconcile.Status, error) {
	if s.isApplying() {
		return s.statuses(), nil
	}
	s.planMu.Lock()
	defer s.planMu.Unlock()
	if !s.hasLooked {
		if err := s.fetchAll(ctx, nil); err != nil {
			return nil, err
		}
		if _, err := s.lookAll(ctx, nil, nil); err != nil {
			return nil, err
		}
		s.hasLooked = true
	}
	s.mu.Lock()
	all := maps.Clone(s.looked)
	s.mu.Unlock()
	names, err := s.store.Applications()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if _, declared := all[name]; declared {
			continue
		}
		st, err := s.recorded(ctx, name)
		if err != nil {
			return nil, err
		}
		all[name] = st
	}
	return slices.SortedFunc(maps.Values(all), func(a, b reconcile.Status) int {
		return strings.Compare(a.Config.Name, b.Config.Name)
	}), nil
}

// recorded is an application as its inventory has it.
func (s *System) recorded(ctx context.Context, name string) (reconcile.Status, error) {
	r, err := s.store.Load(name)
	if err != nil {
		return reconcile.Status{}, err
	}
	st := reconcile.Status{
		Applied: r.Revision, AppliedAt: r.AppliedAt, Inventory: r.Inventory,
		Health: reconcile.Suspended, Reason: "NotDeclared", Detail: "it is not declared here; what was applied runs on",
	}
	st.Config.Name, st.Config.DeclaredBy = name, r.DeclaredBy
	var objects []object.Object
	for _, o := range r.Inventory {
		obj, err := render.Restore(o.APIVersion, o.Ref, o.Written)
		if err != nil {
			continue // a Secret whose values are only digests; it is counted in the inventory
		}
		objects = append(objects, obj)
	}
	st.Desired, _ = plan.Expand(plan.Application{Name: name}, objects, true)
	st.Plan.Status = plan.Compute(st.Desired, plan.Observed{
		Now: time.Now(), Nodes: []plan.NodeState{s.observe(ctx)}, Applied: r.Inventory,
	}, s.planning).Status
	return st, nil
}

package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/applications"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/sources"
)

// Plan fetches, renders, observes and computes, and changes nothing.
func (s *System) Plan(ctx context.Context, r api.PlanRequest, on func(api.Event)) (api.PlanResult, error) {
	s.planMu.Lock()
	defer s.planMu.Unlock()
	result := api.PlanResult{Format: api.PlanFormat, Version: s.version, Created: time.Now().UTC(), Applications: []api.ApplicationPlan{}}
	if err := s.fetchAll(ctx, on); err != nil {
		return result, err
	}
	at := map[string]reconcile.SourceStatus{}
	if r.Ref != "" {
		var err error
		if at, err = s.fetchRef(ctx, r.Ref); err != nil {
			return result, err
		}
	}
	if r.Against != "" {
		base, err := s.fetchRef(ctx, r.Against)
		if err != nil {
			return result, err
		}
		result.Compared = true
		c, err := s.compare(ctx, s.atRef(base, r.Against), s.atRef(at, r.Ref), false, r.Applications)
		if err == nil {
			result.Applications = c.plans
		}
		return result, err
	}
	looked, err := s.lookAll(ctx, at, on)
	if err != nil {
		return result, err
	}
	if err := known(looked, r.Applications); err != nil {
		return result, err
	}
	for _, name := range slices.Sorted(maps.Keys(looked)) {
		if len(r.Applications) == 0 || slices.Contains(r.Applications, name) {
			result.Applications = append(result.Applications, s.planned(looked[name], at))
		}
	}
	s.showRegistered(result.Applications)
	return result, nil
}

// lookAll looks at every application, those too that are declared by what is looked at. What one
// application refers to in another is there when it is looked at the second time.
func (s *System) lookAll(ctx context.Context, at map[string]reconcile.SourceStatus, on func(api.Event)) (map[string]reconcile.Status, error) {
	looked := map[string]reconcile.Status{}
	again := map[string]bool{}
	for {
		var next []*applicationEntry
		s.mu.Lock()
		for name, e := range s.applications {
			if _, done := looked[name]; (!done || again[name]) && !e.removed {
				next = append(next, e)
			}
		}
		s.mu.Unlock()
		if len(next) == 0 {
			err := s.lookAtMoves(ctx, looked, at)
			s.judgeLooked(looked)
			return looked, err
		}
		if err := s.fetchDeclared(ctx, on); err != nil {
			return nil, err
		}
		slices.SortFunc(next, func(a, b *applicationEntry) int { return strings.Compare(a.decl.Name, b.decl.Name) })
		for _, e := range next {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			name := e.decl.Name
			if on != nil {
				on(api.Event{Time: time.Now(), Type: api.Normal, Reason: "Planning", Application: name, Message: "planning " + name})
			}
			st := s.look(ctx, e, at, nil)
			_, before := looked[name]
			again[name] = !before && slices.ContainsFunc(st.Diags, func(d diag.Diagnostic) bool { return d.Code == "unknown-reference" })
			looked[name] = st
			s.mu.Lock()
			s.looked[name] = st
			s.mu.Unlock()
		}
	}
}

// lookAtMoves plans again what moves between applications, or is wanted by several, now that it is known what all of them
// want at these revisions.
func (s *System) lookAtMoves(ctx context.Context, looked map[string]reconcile.Status, at map[string]reconcile.SourceStatus) error {
	claims := s.claims.Snapshot()
	wanted := map[string][]object.Ref{}
	for name, st := range looked {
		if st.Desired.Complete && !st.Config.Removed {
			wanted[name] = st.Wants()
			claims.Wants(name, wanted[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(looked)) {
		st := looked[name]
		standing := claims.Standing(name, wanted[name], false)
		if len(standing.Others) == 0 && len(standing.Arrivals) == 0 && len(claims.Departures(name, st.Plan.Leftovers, (*world)(s).IsDeclared)) == 0 &&
			len(st.Plan.Moves) == 0 && !slices.ContainsFunc(st.Plan.Diags, func(d diag.Diagnostic) bool { return d.Code == "owned-elsewhere" }) {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.mu.Lock()
		e := s.applications[name]
		s.mu.Unlock()
		if e == nil {
			continue
		}
		looked[name] = s.look(ctx, e, at, claims)
		s.mu.Lock()
		s.looked[name] = looked[name]
		s.mu.Unlock()
	}
	return nil
}

func known(looked map[string]reconcile.Status, names []string) error {
	for _, n := range names {
		if _, ok := looked[n]; !ok {
			return fmt.Errorf("%w: application %s; there are: %s", api.ErrNotFound, n, strings.Join(slices.Sorted(maps.Keys(looked)), ", "))
		}
	}
	return nil
}

// planned returns an application's plan as the read model has it.
func (s *System) planned(st reconcile.Status, at map[string]reconcile.SourceStatus) api.ApplicationPlan {
	src, _ := s.source(st.Config.Source)
	if other, ok := at[st.Config.Source]; ok {
		src = other
	}
	p := api.ApplicationPlan{
		Name: st.Config.Name, Source: s.locationOf(st.Config.Source), Path: st.Config.Path,
		From: revisionOf(st.Applied, src.Snapshot), To: revisionOf(string(st.Revision), src.Snapshot), Plan: st.Plan,
	}
	s.mu.Lock()
	if e := s.applications[p.Name]; e != nil {
		p.Declaration = e.decl.Ref
	}
	s.mu.Unlock()
	if st.Config.Suspend && !st.Config.Frozen {
		p.Suspension = &st.Config.Suspension
	}
	p.Plan.Diags = st.Diags
	var refusal *sources.Refusal
	if errors.As(src.Err, &refusal) && src.Snapshot.Revision != "" {
		p.Plan.Diags = append(slices.Clip(p.Plan.Diags), diag.Diagnostic{
			Severity: diag.Error, Code: "revision-refused", Message: refusal.Text,
			Hint: "what is planned is revision " + src.Snapshot.Revision.Short() + ", the last one that was not refused",
		})
	}
	if p.Failure = failureFrom(st, src.Snapshot); st.Back {
		p.To = revisionOf(st.Applied, src.Snapshot)
	}
	if st.Health == reconcile.Failed && !st.Diags.HasErrors() && st.Failure == nil {
		p.Error = &api.Error{Code: api.CodeFailed, Message: st.Reason + ": " + st.Detail}
	}
	return p
}

// fetchAll fetches every source. What fails is in the source's status.
func (s *System) fetchAll(ctx context.Context, on func(api.Event)) error {
	return s.fetchThose(ctx, on, func(reconcile.SourceStatus) bool { return true })
}

// fetchDeclared fetches the sources that were declared by what was looked at, and not fetched before.
func (s *System) fetchDeclared(ctx context.Context, on func(api.Event)) error {
	return s.fetchThose(ctx, on, func(st reconcile.SourceStatus) bool { return st.Snapshot.Revision == "" && st.Err == nil })
}

func (s *System) fetchThose(ctx context.Context, on func(api.Event), wanted func(reconcile.SourceStatus) bool) error {
	s.mu.Lock()
	entries := slices.Collect(maps.Values(s.sources))
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, e := range entries {
		if e.worker == nil || !wanted(e.worker.Status()) {
			continue
		}
		if on != nil {
			on(api.Event{Time: time.Now(), Type: api.Normal, Reason: "Fetching", Source: e.decl.Name, Message: "fetching " + location(e.decl)})
		}
		wg.Go(func() { _ = e.worker.Fetch(ctx) }) // the status keeps the error
	}
	wg.Wait()
	return ctx.Err()
}

// fetchRef fetches another reference of every source.
func (s *System) fetchRef(ctx context.Context, ref string) (map[string]reconcile.SourceStatus, error) {
	s.mu.Lock()
	entries := maps.Clone(s.sources)
	s.mu.Unlock()
	out := map[string]reconcile.SourceStatus{}
	var failed []error
	for name, e := range entries {
		source, err := s.openSourceAt(e.decl, ref)
		if errors.Is(err, errNoReferences) {
			continue
		}
		st := reconcile.SourceStatus{Name: name, Err: err}
		if err == nil {
			st.Snapshot, st.Err = source.Fetch(ctx, "")
			// What was read lazily is read before the source is closed at the end of the plan.
			s.closers = append(s.closers, source.Close)
		}
		if st.Err != nil {
			failed = append(failed, fmt.Errorf("source %s at %s: %w", name, ref, st.Err))
			continue
		}
		out[name] = st
	}
	if len(out) == 0 {
		if len(failed) == 0 {
			return nil, fmt.Errorf("%w: no source has references: a directory is read as it is", api.ErrInvalid)
		}
		return nil, errors.Join(failed...)
	}
	return out, nil
}

// atRef places every repository at a reference: those that were fetched there, and those that are declared only by what is read.
// Directories, and with an empty reference all sources, are where they are followed.
func (s *System) atRef(fetched map[string]reconcile.SourceStatus, ref string) placing {
	return func(ctx context.Context, decl applications.Source) (reconcile.SourceStatus, bool, error) {
		if st, ok := fetched[decl.Name]; ok {
			return st, true, nil
		}
		if ref == "" || decl.Kind == applications.Local {
			return reconcile.SourceStatus{}, false, nil
		}
		st := s.fetchOnce(ctx, decl, func(d applications.Source) (sources.Source, error) { return s.openSourceAt(d, ref) })
		return st, true, nil
	}
}

// look plans one application beside its worker.
func (s *System) look(ctx context.Context, e *applicationEntry, at map[string]reconcile.SourceStatus, claims *reconcile.Claims) reconcile.Status {
	s.mu.Lock()
	c := s.config(*e)
	if e.planCache == nil {
		e.planCache = render.NewCache()
	}
	s.mu.Unlock()
	st := reconcile.NewApplication(c, &onlooker{world: (*world)(s), at: at, cache: e.planCache, claims: claims}, s.store, s.planning).Look(ctx)
	s.recorder.PlanDone(c.Name, st.Planned)
	return st
}

// onlooker is a world in which nothing can be changed.
type onlooker struct {
	*world
	at    map[string]reconcile.SourceStatus
	cache *render.Cache
	// claims are those of this look; nil for those of the workers.
	claims *reconcile.Claims
}

// Source prefers the sources at another reference.
func (o *onlooker) Source(name string) (reconcile.SourceStatus, bool) {
	if st, ok := o.at[name]; ok {
		return st, true
	}
	return o.world.Source(name)
}

// Render renders with a cache of its own.
func (o *onlooker) Render(ctx context.Context, application string, r render.Request, changed []string) (render.Result, error) {
	return o.system().render(ctx, o.cache, application, r, changed)
}

// Declared takes declarations over only where no worker does.
func (o *onlooker) Declared(application string, objects []object.Object) diag.List {
	s := o.system()
	if s.isApplying() || len(o.at) > 0 {
		_, found := s.declarations(objects)
		return found
	}
	return o.world.Declared(application, objects)
}

// Claims are those that would be, where all applications are looked at.
func (o *onlooker) Claims() *reconcile.Claims {
	if o.claims != nil {
		return o.claims
	}
	return o.world.Claims()
}

// Unsettled waits for nobody: what is only shown deletes nothing.
func (o *onlooker) Unsettled(string) string { return "" }

// Settled tells nobody.
func (o *onlooker) Settled(string) {}

// Moved tells nobody.
func (o *onlooker) Moved(string, map[object.Ref]string) {}

// Walk refuses.
func (o *onlooker) Walk(context.Context, plan.Plan) reconcile.Report {
	return reconcile.Report{Err: errors.New("a plan that is only shown is not carried out")}
}

// Changed tells nobody.
func (o *onlooker) Changed(reconcile.Status) {}

package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/apply"
	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/applications"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/daemon/store"
	"github.com/fairlead-dev/fairlead/daemon/telemetry"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/policies/network"
	"github.com/fairlead-dev/fairlead/render"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/sources"
)

// world is the System as the workers of applications see it.
type world System

var _ reconcile.World = (*world)(nil)

func (w *world) system() *System { return (*System)(w) }

// Source returns what is known of a source.
func (w *world) Source(name string) (reconcile.SourceStatus, bool) { return w.system().source(name) }

// locationOf says where a source is; its name where that is not known.
func (s *System) locationOf(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.sources[name]; ok {
		return location(e.decl)
	}
	return name
}

func (s *System) source(name string) (reconcile.SourceStatus, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.sources[name]
	if !ok {
		return reconcile.SourceStatus{}, false
	}
	if e.worker == nil {
		return reconcile.SourceStatus{Name: name, Err: fmt.Errorf("%s", e.problem)}, true
	}
	st := e.worker.Status()
	if e.problem != "" {
		st.Err = errors.New(e.problem)
	}
	return st, true
}

// Options adds substitutions and decryption keys.
func (w *world) Options(c reconcile.Config) (render.Options, diag.List) {
	s := w.system()
	s.mu.Lock()
	e, ok := s.applications[c.Name]
	var decl applications.Application
	if ok {
		decl = e.decl
	}
	s.mu.Unlock()
	o := c.Render
	if !ok {
		return o, nil
	}
	return s.complete(decl, o, s.lookup)
}

// complete adds to the options what an application refers to.
func (s *System) complete(decl applications.Application, o render.Options, lookup applications.Lookup) (render.Options, diag.List) {
	found := decl.Findings
	if len(decl.SubstituteFrom) > 0 || decl.Render.Substitute != nil {
		values, secret, more := applications.ResolveSubstitutions(decl, lookup)
		o.Substitute, o.FromSecrets, found = values, secret, append(found[:len(found):len(found)], more...)
	}
	if decl.Decrypt {
		keys, more := applications.ResolveDecryption(decl, lookup)
		o.AgeKeys, found = append(keys, s.ageKeys...), append(found[:len(found):len(found)], more...)
	}
	return o, found
}

// Render renders with the application's cache.
func (w *world) Render(ctx context.Context, application string, r render.Request, changed []string) (render.Result, error) {
	s := w.system()
	s.mu.Lock()
	e := s.applications[application]
	s.mu.Unlock()
	if e == nil {
		return render.Result{}, fmt.Errorf("application %s is gone", application)
	}
	return s.render(ctx, e.cache, application, r, changed)
}

func (s *System) render(ctx context.Context, cache *render.Cache, application string, r render.Request, changed []string) (render.Result, error) {
	start := time.Now()
	result, _, err := cache.Render(ctx, s.renderer, r, changed)
	outcome := telemetry.Success
	if err != nil || result.Diags.HasErrors() {
		outcome = telemetry.Failure
	}
	s.recorder.RenderDone(application, outcome, time.Since(start))
	return result, err
}

// Declared takes over what an application declares.
func (w *world) Declared(application string, objects []object.Object) diag.List {
	s := w.system()
	s.mu.Lock()
	identity := ""
	if e := s.applications[application]; e != nil {
		identity = e.identity
	}
	s.mu.Unlock()
	may, forbidden := s.mayDeclare(identity, objects)
	d, found := s.declarations(may)
	d.Incomplete = d.Incomplete || len(forbidden) > 0
	found = slices.Concat(forbidden, found, network.Check(objects, s.policing.seen()))
	beside := configsBeside(objects)
	s.mu.Lock()
	s.beside[application] = beside
	_, declared := s.declared[application]
	if e := s.applications[application]; e != nil && (!e.decl.Prune || (len(objects) == 0 && !e.decl.AllowEmpty)) {
		d.Incomplete = true // what is gone may not be deleted, so it stays declared
	}
	down := s.down[application]
	s.mu.Unlock()
	if down {
		return found // what it declares was removed with it
	}
	if !declared && len(d.Applications) == 0 && len(d.Sources) == 0 && d.Images.Empty() {
		return found
	}
	return append(found, s.declare(application, d)...)
}

// Claims implements reconcile.World.
func (w *world) Claims() *reconcile.Claims { return w.system().claims }

// Unsettled says which application has not said yet what it wants.
func (w *world) Unsettled(application string) string {
	s := w.system()
	s.mu.Lock()
	names := slices.Sorted(maps.Keys(s.applications))
	entries := maps.Clone(s.applications)
	s.awaiting[application] = true
	s.mu.Unlock()
	for _, name := range names {
		e := entries[name]
		if name == application || e.unstarted {
			continue
		}
		src, known := s.source(e.worker.Status().Config.Source)
		if why := e.worker.Unsettled(src, known); why != "" {
			return why
		}
	}
	return ""
}

// IsDeclared implements reconcile.World.
func (w *world) IsDeclared(application string) bool {
	s := w.system()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applications[application] != nil
}

// Settled wakes the applications that wait until others have said what they want.
func (w *world) Settled(string) { w.system().wakeAwaiting() }

func (s *System) wakeAwaiting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.awaiting {
		if e := s.applications[name]; e != nil {
			e.worker.Poke()
		}
	}
	clear(s.awaiting)
}

// Moved tells of objects that move to an application.
func (w *world) Moved(application string, from map[object.Ref]string) {
	s := w.system()
	for _, r := range slices.SortedFunc(maps.Keys(from), object.Compare) {
		message := fmt.Sprintf("%s moves from application %s to application %s", r, from[r], application)
		s.keep(api.Event{Type: api.Normal, Reason: "Moved", Application: application, Ref: r, Message: message})
		s.log.Info().Str("application", application).Str("ref", r.String()).Str("from", from[r]).Msg(message)
	}
}

// wakeClaimant wakes an application to whose claims something changed. One that nobody declares any more has no worker:
// what others have taken over leaves its record here.
func (s *System) wakeClaimant(name string) {
	s.mu.Lock()
	e, applying := s.applications[name], s.applying
	s.mu.Unlock()
	switch {
	case e != nil:
		e.worker.Poke()
	case applying:
		if err := s.handOver(name); err != nil {
			s.log.Warn().Err(err).Str("application", name).Msg("what moved to other applications stays in its record, too")
		}
	}
}

// handOver takes out of the record of an application that is not declared what others have taken over.
func (s *System) handOver(name string) error {
	s.handing.Lock()
	defer s.handing.Unlock()
	r, err := s.store.Load(name)
	if err != nil {
		return err
	}
	refs := make([]object.Ref, len(r.Inventory))
	for i := range r.Inventory {
		refs[i] = r.Inventory[i].Ref
	}
	var gone []object.Ref
	for ref, d := range s.claims.Departures(name, refs, (*world)(s).IsDeclared) {
		if d.Done {
			gone = append(gone, ref)
		}
	}
	switch len(gone) {
	case 0:
		return nil
	case len(refs):
		if err := s.store.Delete(name); err != nil {
			return err
		}
		s.claims.Forget(name)
		s.keep(api.Event{Type: api.Normal, Reason: "ApplicationRemoved", Application: name, Message: "everything of application " + name + " has moved to others"})
		return nil
	}
	slices.SortFunc(gone, object.Compare)
	if r, err = s.store.Update(r, store.Change{Gone: gone}); err != nil {
		return err
	}
	s.claims.Recorded(name, r.Inventory)
	return nil
}

// Snapshot returns an earlier revision of a source.
func (w *world) Snapshot(ctx context.Context, name string, rev sources.Revision) (sources.Snapshot, error) {
	s := w.system()
	s.mu.Lock()
	e, ok := s.sources[name]
	s.mu.Unlock()
	if !ok || e.worker == nil {
		return sources.Snapshot{}, fmt.Errorf("source %s cannot be read", name)
	}
	return e.worker.Snapshot(ctx, rev)
}

// Observe reads the node. A node that cannot be read is stale: nothing is concluded from it.
func (w *world) Observe(ctx context.Context) []plan.NodeState {
	return []plan.NodeState{w.system().observe(ctx)}
}

func (s *System) observe(ctx context.Context) plan.NodeState {
	if s.node == nil {
		return plan.NodeState{Node: s.planning.Node} // validating needs no engine
	}
	state, err := s.node.Observe(ctx)
	if err != nil {
		s.log.Warn().Err(err).Str("node", string(s.planning.Node)).Msg("the node cannot be observed")
		state.Node, state.Stale = s.planning.Node, true
	}
	s.health.Set(telemetry.CheckEngine, err)
	return state
}

// Walk carries a plan out.
func (w *world) Walk(ctx context.Context, p plan.Plan) reconcile.Report {
	s := w.system()
	start := time.Now()
	add, change, destroy := p.Counts()
	s.keep(api.Event{
		Type: api.Normal, Reason: "Planned", Application: p.Application.Name, Revision: p.Application.Revision,
		Message: fmt.Sprintf("Plan: %d to add, %d to change, %d to destroy.", add, change, destroy),
		Plan:    &api.Counts{Add: add, Change: change, Destroy: destroy},
	})
	s.log.Info().Str("application", p.Application.Name).Str("revision", short(p.Application.Revision)).Int("steps", len(p.Steps)).
		Msgf("plan: %d to add, %d to change, %d to destroy", add, change, destroy)
	s.mu.Lock()
	s.stepsDone[p.Application.Name] = 0
	s.mu.Unlock()
	report := apply.Run(ctx, p, map[plan.NodeID]apply.Executor{s.planning.Node: s.node}, &reporter{system: s, plan: p})
	out := reconcile.Report{Done: len(report.Done), Failed: len(report.Failed), Skipped: len(report.Skipped), Err: report.Err()}
	result := telemetry.Success
	switch {
	case ctx.Err() != nil:
		out.Superseded, result = true, telemetry.Superseded
	case out.Err != nil:
		result = telemetry.Failure
		s.keep(api.Event{Type: api.Warning, Reason: "ApplyFailed", Application: p.Application.Name, Revision: p.Application.Revision, Message: out.Err.Error()})
		s.log.Warn().Str("application", p.Application.Name).Err(out.Err).Msg("the plan was not carried out")
	}
	s.recorder.ReconcileDone(p.Application.Name, result, time.Since(start), time.Now())
	return out
}

// Changed publishes the status of an application.
func (w *world) Changed(st reconcile.Status) {
	s := w.system()
	s.recorder.SetReady(st.Config.Name, st.Health == reconcile.Healthy && st.Applied == string(st.Revision))
	s.recorder.SetFailed(st.Config.Name, st.Failure != nil, st.Failure != nil && st.Back && !st.Failure.BackAt.IsZero())
	if st.Planned > 0 {
		s.recorder.PlanDone(st.Config.Name, st.Planned)
	}
	s.mu.Lock()
	before := s.seen[st.Config.Name]
	now := seen{health: st.Health, reason: st.Reason, detail: st.Detail, applied: st.Applied, revision: st.Revision, failure: st.Failure}
	s.seen[st.Config.Name] = now
	newDrift := newDrift(s.drift[st.Config.Name], st.Plan.Drift)
	s.drift[st.Config.Name] = st.Plan.Drift
	if before.revision != now.revision {
		s.judgeAgain()
	}
	var waiting []*applicationEntry
	for _, e := range s.applications {
		if before.revision != now.revision && (len(e.decl.SubstituteFrom) > 0 || e.decl.DecryptionSecret.Name != "") {
			waiting = append(waiting, e) // what it refers to may be another now
		}
	}
	if before != now {
		waiting = append(waiting, s.dependentsOf(st.Config.Name)...)
	}
	s.mu.Unlock()
	if s.suspensions.plans(st.Config.Name, st.Plan.Suspended) && s.node != nil {
		s.node.Recheck()
	}
	for _, d := range newDrift {
		if d.Action != "" {
			continue // its node has told of it
		}
		s.recorder.DriftFound(st.Config.Name, d.By, "change")
		s.keep(api.Event{Type: api.Warning, Reason: "Drift", Application: st.Config.Name, Revision: string(st.Revision), Ref: d.Ref, Message: d.Message})
	}
	s.countFailure(st, before)
	if before != now {
		for _, e := range waiting {
			e.worker.Poke()
		}
		s.announce(st, before)
	}
	s.reconciledOnce()
	s.events.touch()
}

// judgeAgain has the sources looked at whose keys are in a Secret, since that may be another now. The caller holds s.mu.
func (s *System) judgeAgain() {
	for _, e := range s.sources {
		if e.decl.Verify.SecretRef.Name != "" && e.worker != nil {
			e.worker.Poke()
		}
	}
}

// seen is what was last said of an application.
type seen struct {
	health                  reconcile.Health
	reason, detail, applied string
	revision                sources.Revision
	failure                 *store.Failure
}

// countFailure counts a revision that failed, and the end of a way back. What this daemon found when it started was
// counted by the one before.
func (s *System) countFailure(st reconcile.Status, before seen) {
	f, was := st.Failure, before.failure
	if f == nil || f == was || before == (seen{}) {
		return
	}
	if was == nil || !was.At.Equal(f.At) {
		s.recorder.RevisionFailed(st.Config.Name, f.Reason)
		was = &store.Failure{}
	}
	switch {
	case f.BackReason != "" && was.BackReason == "":
		s.recorder.RollbackDone(st.Config.Name, telemetry.Failure)
	case !f.BackAt.IsZero() && was.BackAt.IsZero():
		s.recorder.RollbackDone(st.Config.Name, telemetry.Success)
	}
}

// newDrift returns what is in now and was not in before.
func newDrift(before, now []plan.Drift) []plan.Drift {
	var out []plan.Drift
	for _, d := range now {
		if !slices.Contains(before, d) {
			out = append(out, d)
		}
	}
	return out
}

// keep keeps an event and counts it.
func (s *System) keep(e api.Event) {
	s.recorder.EventRecorded(string(e.Type))
	s.events.add(e)
	s.notifier.Event(e)
}

// announce turns a change of an application's state into an event and a log line.
func (s *System) announce(st reconcile.Status, before seen) {
	e := api.Event{Type: api.Normal, Application: st.Config.Name, Revision: string(st.Revision), Reason: st.Reason, Message: st.Detail}
	if st.Reason == reconcile.RollingBack && before.reason == reconcile.RollingBack {
		return // the steps say how far it is
	}
	line := s.log.Info()
	switch st.Health {
	case reconcile.Healthy:
		if st.Applied != before.applied || before.health != reconcile.Healthy {
			e.Message = "applied " + short(st.Applied) + " " + st.Message
		}
	case reconcile.Failed, reconcile.Degraded:
		e.Type = api.Warning
		line = s.log.Warn()
	case reconcile.Progressing, reconcile.Suspended:
	}
	if st.Reason == "Applying" || (st.Reason == "Waiting" && before == seen{}) {
		return // Walk says it
	}
	s.keep(e)
	line.Str("application", st.Config.Name).Str("revision", st.Revision.Short()).Str("reason", st.Reason).Msg(string(st.Health) + ": " + e.Message)
}

// reporter turns the progress of a walk into events, metrics and log lines.
type reporter struct {
	system *System
	plan   plan.Plan
	done   int
}

func (r *reporter) event(s plan.Step, state api.StepState, took time.Duration, message string) {
	e := api.Event{
		Type: api.Normal, Reason: "Step", Application: r.plan.Application.Name, Revision: r.plan.Application.Revision,
		Node: s.Node, Ref: s.Target, Message: message,
		Step: &api.StepProgress{ID: s.ID, Op: s.Op, State: state, Done: r.done, Total: len(r.plan.Steps), Duration: took},
	}
	if state == api.StepFailed {
		e.Type = api.Warning
	}
	r.system.keep(e)
}

// Started reports a step that begins.
func (r *reporter) Started(s plan.Step) {
	r.system.log.Debug().Str("application", r.plan.Application.Name).Str("step", string(s.Op)).Str("ref", s.Target.String()).Str("node", string(s.Node)).Msg(s.Cause)
}

// Done reports a step that ended.
func (r *reporter) Done(s plan.Step, err error, took time.Duration) {
	r.done++
	r.system.mu.Lock()
	r.system.stepsDone[r.plan.Application.Name] = r.done
	r.system.mu.Unlock()
	state, message, result := api.StepSucceeded, describe(s), telemetry.Success
	if err != nil {
		state, message, result = api.StepFailed, fmt.Sprintf("%s: %v", message, err), telemetry.Failure
	}
	r.system.recorder.StepDone(s.Op, result, took)
	r.event(s, state, took, message)
	line := r.system.log.Info()
	if err != nil {
		line = r.system.log.Warn()
	}
	line.Str("application", r.plan.Application.Name).Str("step", string(s.Op)).Str("ref", s.Target.String()).Str("node", string(s.Node)).
		Dur("took", took.Round(time.Millisecond)).Msg(message)
}

// describe says in words what a step does.
func describe(s plan.Step) string {
	switch args := s.Args.(type) {
	case plan.PullImage:
		return "image " + args.Image + " is present"
	case plan.CreatePod:
		return "pod " + args.Pod.String() + " created: " + s.Cause
	case plan.WaitReady:
		return "pod " + args.Pod.String() + " is ready"
	case plan.UpdatePod:
		return "pod " + args.Pod.String() + " updated in place: " + s.Cause
	case plan.DeletePod:
		return "pod " + args.Pod.String() + " deleted: " + s.Cause
	case plan.MovePod:
		return "pod " + args.Pod.String() + " runs on in application " + args.To + ": " + s.Cause
	default:
		return string(s.Op) + " " + s.Target.String()
	}
}

func short(revision string) string {
	if len(revision) > 12 {
		return revision[:12]
	}
	return revision
}

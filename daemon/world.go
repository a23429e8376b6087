package daemon

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/apply"
	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/applications"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/daemon/telemetry"
	"github.com/fairlead-dev/fairlead/plan"
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
	return e.worker.Status(), true
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
	return s.complete(decl, o)
}

func (s *System) complete(decl applications.Application, o render.Options) (render.Options, diag.List) {
	found := decl.Findings
	if len(decl.SubstituteFrom) > 0 || decl.Render.Substitute != nil {
		values, more := applications.ResolveSubstitutions(decl, s.lookup)
		o.Substitute, found = values, append(found[:len(found):len(found)], more...)
	}
	if decl.Decrypt {
		keys, more := applications.ResolveDecryption(decl, s.lookup)
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
	d, found := s.declarations(objects)
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
	if !declared && len(d.Applications) == 0 && len(d.Sources) == 0 {
		return found
	}
	return append(found, s.declare(application, d)...)
}

// Claims holds refs for the application and returns those that others hold.
func (w *world) Claims(application string, refs []object.Ref) map[object.Ref]string {
	return w.system().claims.claim(application, refs)
}

// Dependency reports whether an application is done with its newest revision.
func (w *world) Dependency(name string) (bool, string) {
	s := w.system()
	s.mu.Lock()
	e, ok := s.applications[name]
	s.mu.Unlock()
	if !ok {
		return false, fmt.Sprintf("application %s, on which it depends, is not declared", name)
	}
	st := e.worker.Status()
	src, _ := s.source(st.Config.Source)
	switch {
	case st.Health == reconcile.Healthy && !st.Walking && st.Revision == src.Snapshot.Revision && st.Applied == string(st.Revision):
		return true, ""
	case st.Detail != "":
		return false, fmt.Sprintf("waits for application %s: %s: %s", name, st.Reason, st.Detail)
	default:
		return false, fmt.Sprintf("waits for application %s: %s", name, st.Reason)
	}
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
	if !st.Config.Removed {
		s.hold(st)
	}
	s.recorder.SetReady(st.Config.Name, st.Health == reconcile.Healthy && st.Applied == string(st.Revision))
	if st.Planned > 0 && !st.Walking {
		s.recorder.PlanDone(st.Config.Name, st.Planned)
	}
	s.mu.Lock()
	before := s.seen[st.Config.Name]
	now := seen{health: st.Health, reason: st.Reason, detail: st.Detail, applied: st.Applied, revision: st.Revision}
	s.seen[st.Config.Name] = now
	newDrift := newDrift(s.drift[st.Config.Name], st.Plan.Drift)
	s.drift[st.Config.Name] = st.Plan.Drift
	var waiting []*applicationEntry
	for _, e := range s.applications {
		if before.revision != now.revision && (len(e.decl.SubstituteFrom) > 0 || e.decl.DecryptionSecret.Name != "") {
			waiting = append(waiting, e) // what it refers to may be another now
		}
		for _, d := range e.decl.DependsOn {
			if d == st.Config.Name {
				waiting = append(waiting, e)
			}
		}
	}
	s.mu.Unlock()
	s.recorder.DriftFound(st.Config.Name, len(newDrift))
	for _, d := range newDrift {
		s.keep(api.Event{Type: api.Warning, Reason: "Drift", Application: st.Config.Name, Revision: string(st.Revision), Ref: d.Ref, Message: d.Message})
	}
	if before != now {
		for _, e := range waiting {
			e.worker.Poke()
		}
		s.announce(st, before)
	}
	s.reconciledOnce()
	s.events.touch()
}

// seen is what was last said of an application.
type seen struct {
	health                  reconcile.Health
	reason, detail, applied string
	revision                sources.Revision
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
}

// announce turns a change of an application's state into an event and a log line.
func (s *System) announce(st reconcile.Status, before seen) {
	e := api.Event{Type: api.Normal, Application: st.Config.Name, Revision: string(st.Revision), Reason: st.Reason, Message: st.Detail}
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

// hold keeps the claims of an application to what it wants and what it has applied.
func (s *System) hold(st reconcile.Status) {
	if st.Plan.Application.Name == "" {
		return
	}
	s.mu.Lock()
	same := s.held[st.Config.Name] == st.Desired.Application.Revision+"/"+string(st.Plan.Basis)
	s.held[st.Config.Name] = st.Desired.Application.Revision + "/" + string(st.Plan.Basis)
	s.mu.Unlock()
	if same {
		return
	}
	wanted := st.Desired.Objects
	if !st.Desired.Complete {
		wanted = nil
	}
	if s.claims.hold(st.Config.Name, union(wanted, st.Inventory)) {
		s.wakeOthers(st.Config.Name)
	}
}

// wakeOthers wakes all applications but one, which gave up something that others may want.
func (s *System) wakeOthers(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other, e := range s.applications {
		if other != name {
			e.worker.Poke()
		}
	}
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

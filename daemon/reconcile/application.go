package reconcile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/store"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/sources"
)

// Config says how an application is reconciled.
type Config struct {
	plan.Application
	Render render.Options
	// RetryInterval is the longest pause between two tries of what failed; 0 means one minute.
	RetryInterval time.Duration
	// Timeout bounds one walk of a plan; 0 does not.
	Timeout time.Duration
	// Suspend leaves everything as it is: the plan is computed and shown, not carried out.
	Suspend bool
	// Manual carries a plan out only when asked to.
	Manual bool
	// DependsOn names applications that must be healthy at their newest revision before.
	DependsOn []string
	// DeclaredBy is the application whose objects declare this one; empty for the settings.
	DeclaredBy string
	// Removed says that the application is no longer declared: everything of it goes, then its worker ends.
	// Orphan lets what runs run on in that case, owned by nobody.
	Removed, Orphan bool
}

// World is what the worker of an application asks of its surroundings. Every method may be called
// from several workers at once.
type World interface {
	// Source returns what is known of a source; false when none of that name exists.
	Source(name string) (SourceStatus, bool)
	// Options completes the render options with what is looked up elsewhere: substitutions and
	// decryption keys. A finding that is an error keeps the application from being rendered.
	Options(c Config) (render.Options, diag.List)
	// Render renders with a cache; changed are the paths that differ from the last render, nil when unknown.
	Render(ctx context.Context, application string, r render.Request, changed []string) (render.Result, error)
	// Declared hands over the complete objects of an application, which may declare others. The
	// findings are about declarations.
	Declared(application string, objects []object.Object) diag.List
	// Claims returns those of refs that other applications own, with the owner.
	Claims(application string, refs []object.Ref) map[object.Ref]string
	// Dependency reports whether an application is healthy at its newest revision, and if not, why.
	Dependency(name string) (ready bool, why string)
	// Observe reads the nodes.
	Observe(ctx context.Context) []plan.NodeState
	// Walk carries a plan out.
	Walk(ctx context.Context, p plan.Plan) Report
	// Changed is called after every change of the status. It must not block.
	Changed(Status)
}

// Report is the outcome of a walk.
type Report struct {
	Done, Failed, Skipped int
	// Err names the first step that failed and why; nil when every step succeeded. A walk that was
	// cut short by a newer plan has neither failed nor finished: Superseded.
	Err        error
	Superseded bool
}

// Health sums up an application in one word.
type Health string

// The healths of an application.
const (
	Healthy     Health = "Healthy"
	Progressing Health = "Progressing"
	Degraded    Health = "Degraded"
	Failed      Health = "Failed"
	Suspended   Health = "Suspended"
)

// Status is what is known of an application. It is immutable.
type Status struct {
	Config Config
	// Revision is the revision that Desired was rendered from.
	Revision  sources.Revision
	Committed time.Time
	Message   string
	Desired   plan.Desired
	// Diags are all findings: of rendering, of expanding and of planning.
	Diags diag.List
	Plan  plan.Plan
	// Planned is the time that computing Plan took, observing left out; 0 when it was not computed anew.
	Planned time.Duration
	// Inventory is what was applied and not yet confirmed gone.
	Inventory []plan.Applied
	// Applied is the last revision of which everything was done, at AppliedAt.
	Applied   string
	AppliedAt time.Time
	// Walking is true while a plan is carried out.
	Walking bool
	Health  Health
	Reason  string
	Detail  string
	// Next is when the worker looks again by itself; zero when only on an event.
	Next time.Time
	// Pass counts the looks of the worker at the application.
	Pass int
	// Ended is true when a removed application is gone.
	Ended bool
}

// Application is the worker of one application.
type Application struct {
	world   World
	store   *store.Store
	options plan.Options
	kick    chan struct{}

	mu     sync.Mutex
	config Config
	status Status
	ask    bool // a manual application was asked to apply

	// Owned by Run's goroutine.
	record   store.Record
	loaded   bool
	rendered rendered
	failures int
	notUntil time.Time
	failed   error
	// walked is the text of the plan that was carried out last without a failure.
	walked string
}

// rendered remembers what the desired state was made from.
type rendered struct {
	revision sources.Revision
	options  []byte
	desired  plan.Desired
	diags    diag.List
	ok       bool
}

// NewApplication returns a worker that does nothing before Run.
func NewApplication(c Config, w World, s *store.Store, o plan.Options) *Application {
	return &Application{
		world: w, store: s, options: o, config: c, kick: make(chan struct{}, 1),
		status: Status{Config: c, Health: Progressing, Reason: "Waiting", Detail: "not looked at yet"},
	}
}

// Name returns the application's name.
func (a *Application) Name() string { return a.Status().Config.Name }

// Status returns what is known now.
func (a *Application) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status
}

// Configure replaces the configuration; it takes effect at once.
func (a *Application) Configure(c Config) {
	a.mu.Lock()
	a.config = c
	a.mu.Unlock()
	a.Poke()
}

func (a *Application) configured() Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.config
}

// Poke asks for a look at the application. It never blocks; pokes that come together are one.
func (a *Application) Poke() {
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

// Apply asks for the plan to be carried out also where the application is manual, or waits for back-off.
func (a *Application) Apply() {
	a.mu.Lock()
	a.ask = true
	a.mu.Unlock()
	a.Poke()
}

// Run reconciles until ctx ends, or until a removed application is gone.
func (a *Application) Run(ctx context.Context) error {
	for {
		next := a.pass(ctx)
		if ctx.Err() != nil || a.Status().Ended {
			return nil
		}
		var due <-chan time.Time
		if !next.IsZero() {
			due = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-due:
		case <-a.kick:
		}
	}
}

// pass looks once, carries out what is to be done, and returns when to look again.
func (a *Application) pass(ctx context.Context) time.Time {
	a.mu.Lock()
	c, asked := a.config, a.ask
	a.ask = false
	a.mu.Unlock()

	st := Status{Config: c}
	if !a.loaded {
		r, err := a.store.Load(c.Name)
		if err != nil {
			return a.finish(st, Failed, "StateDamaged", err.Error(), time.Now().Add(time.Minute))
		}
		a.record, a.loaded = r, true
	}
	st.Applied, st.AppliedAt = a.record.Revision, a.record.AppliedAt

	source, problem := a.render(ctx, c)
	if ctx.Err() != nil {
		return time.Time{}
	}
	st.Revision, st.Committed, st.Message = a.rendered.revision, source.Snapshot.Committed, firstLine(source.Snapshot.Message)
	if a.rendered.revision == "" && !c.Removed {
		return a.finish(st, Failed, problem.reason, problem.detail, time.Time{})
	}
	st.Desired = a.rendered.desired

	p, took := a.compute(ctx, c, a.rendered.desired)
	if len(p.Finished) > 0 {
		// How a Job ended is remembered before anything follows from it: its pods are the only other record.
		if err := a.recordFinished(p.Finished); err != nil {
			return a.finish(st, Failed, "StateNotWritten", err.Error(), time.Now().Add(10*time.Second))
		}
		p, took = a.compute(ctx, c, a.rendered.desired)
	}
	st.Plan, st.Planned, st.Diags = p, took, append(slices.Clone(a.rendered.diags), p.Diags...)

	switch now := time.Now(); {
	case c.Removed && (c.Orphan || p.Empty()):
		if err := a.store.Delete(c.Name); err != nil {
			return a.finish(st, Failed, "StateNotWritten", err.Error(), now.Add(10*time.Second))
		}
		st.Ended = true
		return a.finish(st, Healthy, "Removed", "everything of the application is gone", time.Time{})
	case !a.rendered.ok && !c.Removed:
		return a.finish(st, Failed, "RenderFailed", summary(a.rendered.diags), p.Wake)
	case c.Suspend:
		return a.finish(st, Suspended, "Suspended", "the application is suspended: "+pending(p), p.Wake)
	case c.Manual && !asked && !p.Empty():
		return a.finish(st, Progressing, "OutOfSync", "waiting for `fairlead apply`: "+pending(p), p.Wake)
	case !p.Empty() && now.Before(a.notUntil) && !asked:
		return a.finish(st, Degraded, "ApplyFailed", a.failed.Error(), earlier(a.notUntil, p.Wake))
	}
	for _, name := range c.DependsOn {
		if ready, why := a.world.Dependency(name); !ready && !p.Empty() && !c.Removed {
			return a.finish(st, Progressing, "DependencyNotReady", why, p.Wake)
		}
	}
	if p.Empty() {
		a.failed, a.failures, a.walked = nil, 0, ""
		health, reason, detail := rollup(p, problem)
		// A rollout that was given up leaves nothing to do, and yet the revision does not run.
		if health == Healthy || (problem.reason != "" && reason == problem.reason) {
			if err := a.succeed(c); err != nil {
				return a.finish(st, Failed, "StateNotWritten", err.Error(), time.Now().Add(10*time.Second))
			}
			st.Applied, st.AppliedAt = a.record.Revision, a.record.AppliedAt
		}
		return a.finish(st, health, reason, detail, p.Wake)
	}

	if text := p.String(); len(p.Steps) > 0 && text == a.walked && !asked {
		// Every step of it succeeded just now, and it is to be done again: somebody undoes it, or it has no effect.
		a.walked = ""
		a.failures++
		a.failed = errors.New("the plan was carried out, and the same is to be done again: " + pending(p))
		a.notUntil = time.Now().Add(backoff(a.failures, c.RetryInterval))
		return a.finish(st, Degraded, "NotConverging", a.failed.Error(), earlier(a.notUntil, p.Wake))
	}
	if err := a.recordIntent(p); err != nil {
		return a.finish(st, Failed, "StateNotWritten", err.Error()+"; nothing was changed", time.Now().Add(10*time.Second))
	}
	st.Walking = true
	a.finish(st, Progressing, "Applying", pending(p), time.Time{})
	report := a.walk(ctx, c, p)
	if ctx.Err() != nil {
		return time.Time{}
	}
	if report.Err != nil && !report.Superseded {
		a.failures++
		a.failed = report.Err
		a.notUntil = time.Now().Add(backoff(a.failures, c.RetryInterval))
	} else {
		if !report.Superseded {
			a.walked = p.String()
		}
		a.failed, a.notUntil = nil, time.Time{}
		if err := a.recordOutcome(p, report); err != nil {
			return a.finish(st, Failed, "StateNotWritten", err.Error(), time.Now().Add(10*time.Second))
		}
	}
	return time.Now() // observe and compute again
}

// Look renders, observes and computes once, and changes nothing. It must not be called beside Run.
func (a *Application) Look(ctx context.Context) Status {
	c := a.Status().Config
	st := Status{Config: c}
	r, err := a.store.Load(c.Name)
	if err != nil {
		st.Health, st.Reason, st.Detail = Failed, "StateDamaged", err.Error()
		return st
	}
	a.record = r
	st.Applied, st.AppliedAt = r.Revision, r.AppliedAt
	source, stale := a.render(ctx, c)
	st.Revision, st.Committed, st.Message = a.rendered.revision, source.Snapshot.Committed, firstLine(source.Snapshot.Message)
	if a.rendered.revision == "" && !c.Removed {
		st.Health, st.Reason, st.Detail = Failed, stale.reason, stale.detail
		return st
	}
	st.Desired = a.rendered.desired
	st.Plan, st.Planned = a.compute(ctx, c, a.rendered.desired)
	st.Diags = append(slices.Clone(a.rendered.diags), st.Plan.Diags...)
	st.Inventory = r.Inventory
	st.Health, st.Reason, st.Detail = rollup(st.Plan, stale)
	if !a.rendered.ok && !c.Removed {
		st.Health, st.Reason, st.Detail = Failed, "RenderFailed", summary(a.rendered.diags)
	}
	return st
}

type problem struct{ reason, detail string }

// render brings a.rendered to the newest snapshot and options. What it returns as problem keeps the
// last good objects in place.
func (a *Application) render(ctx context.Context, c Config) (SourceStatus, problem) {
	if c.Removed {
		a.rendered = rendered{revision: a.rendered.revision, ok: true, desired: plan.Desired{Application: removed(c), Complete: true}}
		return SourceStatus{}, problem{}
	}
	source, ok := a.world.Source(c.Source)
	switch {
	case !ok:
		return source, problem{"SourceMissing", fmt.Sprintf("source %s is not declared", c.Source)}
	case source.Snapshot.Revision == "" && source.Err != nil:
		return source, problem{"SourceFailed", fmt.Sprintf("source %s: %v", c.Source, source.Err)}
	case source.Snapshot.Revision == "":
		return source, problem{"Waiting", fmt.Sprintf("source %s was not fetched yet", c.Source)}
	}
	var stale problem
	if source.Err != nil {
		stale = problem{"SourceFailed", fmt.Sprintf("source %s: %v; what was fetched before stays in force", c.Source, source.Err)}
	}
	options, found := a.world.Options(c)
	fingerprint := optionsFingerprint(c, options)
	if a.rendered.revision == source.Snapshot.Revision && bytes.Equal(a.rendered.options, fingerprint) && !found.HasErrors() && a.rendered.ok {
		return source, stale
	}
	var changed []string
	if a.rendered.revision != "" && bytes.Equal(a.rendered.options, fingerprint) && source.Snapshot.Changed != nil {
		if paths, known := source.Snapshot.Changed(a.rendered.revision); known {
			changed = append([]string{}, paths...)
		}
	}
	var result render.Result
	if !found.HasErrors() {
		var err error
		result, err = a.world.Render(ctx, c.Name, render.Request{
			Source: c.Source, Revision: string(source.Snapshot.Revision),
			Files: source.Snapshot.Files, Path: c.Path, Options: options,
		}, changed)
		if err != nil {
			result.Diags = append(result.Diags, diag.Diagnostic{
				Severity: diag.Error, Code: "render-failed",
				Origin:  object.Origin{Source: c.Source, Revision: string(source.Snapshot.Revision), Path: c.Path},
				Message: err.Error(),
			})
		}
	}
	found = append(found, result.Diags...)
	app := c.Application
	app.Revision = string(source.Snapshot.Revision)
	complete := !found.HasErrors()
	if complete {
		found = append(found, a.world.Declared(c.Name, result.Objects)...)
	}
	desired, more := plan.Expand(app, result.Objects, complete)
	found = append(found, more...)
	desired.Complete = !found.HasErrors()
	a.rendered = rendered{revision: source.Snapshot.Revision, options: fingerprint, desired: desired, diags: found, ok: desired.Complete}
	a.notUntil = time.Time{} // what is new is tried at once
	return source, stale
}

// removed is the application without anything desired.
func removed(c Config) plan.Application {
	app := c.Application
	app.Prune, app.AllowEmpty = true, true
	return app
}

func optionsFingerprint(c Config, o render.Options) []byte {
	// Substitutions and keys are part of it; the bytes stay in this process.
	b, err := json.Marshal(struct {
		Application plan.Application
		Options     render.Options
		Keys        []string
	}{c.Application, o, o.AgeKeys})
	if err != nil {
		panic(fmt.Sprintf("options of application %s cannot be encoded: %v", c.Name, err))
	}
	return b
}

// compute observes and plans, and returns how long planning took.
func (a *Application) compute(ctx context.Context, c Config, d plan.Desired) (plan.Plan, time.Duration) {
	refs := make([]object.Ref, len(d.Objects))
	for i, o := range d.Objects {
		refs[i] = o.Ref
	}
	o := plan.Observed{
		Nodes:   a.world.Observe(ctx),
		Applied: a.record.Inventory,
		Claims:  a.world.Claims(c.Name, refs),
	}
	o.Now = time.Now()
	p := plan.Compute(d, o, a.options)
	return p, time.Since(o.Now)
}

// walk carries p out. It is cut short when the application is poked meanwhile and a plan made from the
// newest snapshot and observation is about something else.
func (a *Application) walk(ctx context.Context, c Config, p plan.Plan) Report {
	walkCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	if c.Timeout > 0 {
		walkCtx, cancel = context.WithTimeout(walkCtx, c.Timeout)
		defer cancel()
	}
	done := make(chan Report, 1)
	var walking sync.WaitGroup
	defer walking.Wait()
	walking.Go(func() { done <- a.world.Walk(walkCtx, p) })
	wanted := targets(p)
	for {
		select {
		case r := <-done:
			if ctx.Err() == nil && errors.Is(walkCtx.Err(), context.DeadlineExceeded) {
				r.Superseded = false
				if r.Err == nil {
					r.Err = fmt.Errorf("not done within %s: %s", c.Timeout, pending(p))
				}
			}
			return r
		case <-ctx.Done():
			cancel()
			return <-done
		case <-a.kick:
			newest := a.configured()
			if a.overtaken(ctx, newest, wanted) {
				cancel()
				r := <-done
				r.Superseded = true
				a.Poke()
				return r
			}
		}
	}
}

// overtaken reports whether something else is to be done than a walk towards wanted is about to do.
func (a *Application) overtaken(ctx context.Context, c Config, wanted map[target]bool) bool {
	if c.Suspend {
		return true
	}
	before := a.rendered
	a.render(ctx, c)
	if !a.rendered.ok {
		// What was good is carried on with; what is wrong now is said after the walk.
		a.rendered = before
	}
	p, _ := a.compute(ctx, c, a.rendered.desired)
	next := targets(p)
	if a.rendered.revision == before.revision && bytes.Equal(a.rendered.options, before.options) {
		return !subset(next, wanted)
	}
	p, _ = a.compute(ctx, c, before.desired)
	rest := targets(p)
	return !subset(next, rest) || !subset(rest, next)
}

// target is what a step changes; waits change nothing.
type target struct {
	op       plan.Op
	node     plan.NodeID
	pod      plan.PodKey
	template string
}

func targets(p plan.Plan) map[target]bool {
	out := make(map[target]bool, len(p.Steps))
	for _, s := range p.Steps {
		switch args := s.Args.(type) {
		case plan.CreatePod:
			out[target{s.Op, s.Node, args.Pod.PodKey, args.Pod.Template}] = true
		case plan.UpdatePod:
			out[target{s.Op, s.Node, args.Pod.PodKey, strings.Join(args.Changes, ",")}] = true
		case plan.DeletePod:
			out[target{s.Op, s.Node, args.Pod, args.UID}] = true
		case plan.WaitReady, plan.PullImage:
		}
	}
	return out
}

func subset(part, whole map[target]bool) bool {
	for t := range part {
		if !whole[t] {
			return false
		}
	}
	return true
}

// recordIntent puts what is about to be applied into the inventory, before anything is changed.
func (a *Application) recordIntent(p plan.Plan) error {
	if len(p.Changes) == 0 {
		return nil
	}
	byRef := make(map[object.Ref]int, len(a.record.Inventory))
	inventory := slices.Clone(a.record.Inventory)
	for i, o := range inventory {
		byRef[o.Ref] = i
	}
	objects := make(map[object.Ref]object.Object, len(a.rendered.desired.Objects))
	for _, o := range a.rendered.desired.Objects {
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

// finish publishes a status and returns next.
func (a *Application) finish(st Status, h Health, reason, detail string, next time.Time) time.Time {
	st.Health, st.Reason, st.Detail, st.Next = h, reason, detail, next
	st.Inventory = a.record.Inventory
	a.mu.Lock()
	st.Pass = a.status.Pass + 1
	a.status = st
	a.mu.Unlock()
	a.world.Changed(st)
	return next
}

// rollup sums up the workloads of a plan that has nothing to do.
func rollup(p plan.Plan, stale problem) (Health, string, string) {
	health, reason, detail := Healthy, "Applied", ""
	for _, w := range p.Status {
		switch Health(w.Health) {
		case Degraded:
			return Degraded, w.Reason, w.Ref.String() + ": " + w.Message
		case Progressing:
			health, reason, detail = Progressing, w.Reason, w.Ref.String()+": "+w.Message
		case Healthy, Failed, Suspended:
		}
	}
	if p.Diags.HasErrors() {
		return Failed, "PlanFailed", summary(p.Diags)
	}
	if health == Healthy && stale.reason != "" {
		return Degraded, stale.reason, stale.detail
	}
	return health, reason, detail
}

// summary says the first finding and how many there are.
func summary(l diag.List) string {
	var errs diag.List
	for _, d := range l.Sorted() {
		if d.Severity == diag.Error {
			errs = append(errs, d)
		}
	}
	switch len(errs) {
	case 0:
		return ""
	case 1:
		return errs[0].String()
	default:
		return fmt.Sprintf("%s (and %d more)", errs[0], len(errs)-1)
	}
}

func pending(p plan.Plan) string {
	add, change, destroy := p.Counts()
	return fmt.Sprintf("%d to add, %d to change, %d to destroy", add, change, destroy)
}

func earlier(a, b time.Time) time.Time {
	if b.IsZero() || (!a.IsZero() && a.Before(b)) {
		return a
	}
	return b
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

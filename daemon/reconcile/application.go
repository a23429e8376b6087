package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	// Timeout bounds one walk of a plan; 0 does not. With Wait it also bounds how long a revision may take to
	// become healthy, before it is called degraded.
	Timeout time.Duration
	Wait    bool
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
	// Why says in words why it is removed, when not because it is no longer declared.
	Why string
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
	record store.Record
	loaded bool
	// rendered is the newest snapshot's, good the last that was complete: it stays in force while the newest is not.
	rendered, good rendered
	expander       plan.Expander
	last           memo
	failures       int
	// waitsFor is the revision that is waited for to become healthy, since waitsSince.
	waitsFor   sources.Revision
	waitsSince time.Time
	notUntil   time.Time
	failed     error
	// walked is what the plan changed that was carried out last without a failure.
	walked map[target]bool
	// silent are the nodes that did not answer when they were observed last.
	silent []plan.NodeID
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

	if asked {
		a.rendered.retry = time.Time{}
	}
	source, problem := a.render(ctx, c)
	if ctx.Err() != nil {
		return time.Time{}
	}
	st.Revision, st.Committed, st.Message = a.rendered.revision, source.Snapshot.Committed, firstLine(source.Snapshot.Message)
	if a.rendered.revision == "" && !c.Removed {
		return a.finish(st, Failed, problem.reason, problem.detail, time.Time{})
	}
	desired := a.inForce().desired
	broken := !a.rendered.ok
	st.Desired = desired

	p, took := a.compute(ctx, c, desired)
	if len(p.Finished) > 0 {
		// How a Job ended is remembered before anything follows from it: its pods are the only other record.
		if err := a.recordFinished(p.Finished); err != nil {
			return a.finish(st, Failed, "StateNotWritten", err.Error(), time.Now().Add(10*time.Second))
		}
		p, took = a.compute(ctx, c, desired)
	}
	st.Plan, st.Planned, st.Diags = p, took, findings(a.rendered, p)

	// What is broken is said whatever else is done about what was good before.
	said := func(h Health, reason, detail string, next time.Time) time.Time {
		if broken {
			h, reason, detail, next = Failed, "RenderFailed", summary(a.rendered.diags), earlier(next, a.rendered.retry)
		}
		return a.finish(st, h, reason, detail, next)
	}
	switch now := time.Now(); {
	case c.Removed && (c.Orphan || (p.Empty() && len(a.silent) == 0)):
		if err := a.store.Delete(c.Name); err != nil {
			return a.finish(st, Failed, "StateNotWritten", err.Error(), now.Add(10*time.Second))
		}
		st.Ended = true
		detail := "everything of the application is gone"
		if c.Orphan {
			detail = "the application is no longer declared; what it had runs on"
		}
		return a.finish(st, Healthy, "Removed", detail, time.Time{})
	case c.Suspend:
		return said(Suspended, "Suspended", "the application is suspended: "+pending(p), p.Wake)
	case c.Manual && !asked && !p.Empty():
		return said(Progressing, "OutOfSync", "waiting for `fairlead apply`: "+pending(p), p.Wake)
	case !p.Empty() && now.Before(a.notUntil) && !asked:
		return said(Degraded, "ApplyFailed", a.failed.Error(), earlier(a.notUntil, p.Wake))
	}
	for _, name := range c.DependsOn {
		if ready, why := a.world.Dependency(name); !ready && !p.Empty() && !c.Removed {
			return said(Progressing, "DependencyNotReady", why, p.Wake)
		}
	}
	if p.Empty() {
		a.failed, a.failures, a.walked = nil, 0, nil
		health, reason, detail := rollup(p, problem)
		if len(a.silent) > 0 {
			health, reason, detail = Degraded, "NodeNotResponding", silence(a.silent)
			return said(health, reason, detail, earlier(time.Now().Add(10*time.Second), p.Wake))
		}
		// A rollout that was given up leaves nothing to do, and yet the revision does not run.
		if !broken && (health == Healthy || (problem.reason != "" && reason == problem.reason)) {
			if err := a.succeed(c); err != nil {
				return a.finish(st, Failed, "StateNotWritten", err.Error(), time.Now().Add(10*time.Second))
			}
			st.Applied, st.AppliedAt = a.record.Revision, a.record.AppliedAt
		}
		if health == Progressing && c.Wait && c.Timeout > 0 {
			late, at := a.late(st.Revision, c.Timeout)
			if late {
				return said(Degraded, "HealthCheckFailed", fmt.Sprintf("not healthy within %s: %s", c.Timeout, detail), p.Wake)
			}
			return said(health, reason, detail, earlier(at, p.Wake))
		}
		return said(health, reason, detail, p.Wake)
	}

	if again := targets(p); len(again) > 0 && maps.Equal(again, a.walked) && !asked {
		// Every step of it succeeded just now, and it is to be done again: somebody undoes it, or it has no effect.
		a.walked = nil
		a.failures++
		a.failed = errors.New("the plan was carried out, and the same is to be done again: " + pending(p))
		a.notUntil = time.Now().Add(backoff(a.failures, c.RetryInterval))
		return said(Degraded, "NotConverging", a.failed.Error(), earlier(a.notUntil, p.Wake))
	}
	if err := a.recordIntent(p, desired); err != nil {
		return a.finish(st, Failed, "StateNotWritten", err.Error()+"; nothing was changed", time.Now().Add(10*time.Second))
	}
	st.Walking = true
	said(Progressing, "Applying", pending(p), time.Time{})
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
			a.walked = targets(p)
		}
		a.failed, a.notUntil = nil, time.Time{}
		if err := a.recordOutcome(p, report); err != nil {
			return a.finish(st, Failed, "StateNotWritten", err.Error(), time.Now().Add(10*time.Second))
		}
	}
	return time.Now() // observe and compute again
}

// late reports whether a revision that is not healthy yet has had its time, and until when it has.
func (a *Application) late(revision sources.Revision, timeout time.Duration) (bool, time.Time) {
	now := time.Now()
	if a.waitsFor != revision || a.waitsSince.IsZero() {
		a.waitsFor, a.waitsSince = revision, now
	}
	until := a.waitsSince.Add(timeout)
	return !now.Before(until), until
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
	st.Diags = findings(a.rendered, st.Plan)
	st.Inventory = r.Inventory
	st.Health, st.Reason, st.Detail = rollup(st.Plan, stale)
	if len(a.silent) > 0 && st.Health != Failed {
		st.Health, st.Reason, st.Detail = Degraded, "NodeNotResponding", silence(a.silent)
	}
	if !a.rendered.ok {
		st.Health, st.Reason, st.Detail = Failed, "RenderFailed", summary(a.rendered.diags)
	}
	return st
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

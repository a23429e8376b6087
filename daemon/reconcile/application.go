package reconcile

import (
	"context"
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
	// become healthy. A revision that takes longer has failed.
	Timeout time.Duration
	Wait    bool
	// Rollback goes back to the last good revision when a newer one fails; never while Suspend or Manual is set.
	Rollback bool
	// Requested changes when the declaration asks for another try.
	Requested string
	// Suspend leaves everything as it is: the plan is computed and shown, not carried out.
	// Pods that are lost are made again as they were applied, as with Manual.
	Suspend bool
	// Frozen is to be suspended without that: lost pods stay lost.
	Frozen bool
	// Suspension says until when Suspend holds, who asked for it and why, as far as that is known.
	Suspension plan.Suspension
	// Manual carries a plan out only when asked to.
	Manual bool
	// DependsOn names applications that must be healthy at their newest revision before.
	DependsOn []string
	// DeclaredBy is the application whose objects declare this one; empty for the settings.
	DeclaredBy string
	// Identity is the user that the application acts as; empty may do everything.
	Identity string
	// Removed says that the application is no longer declared: everything of it goes, then its worker ends.
	// Orphan lets what runs run on in that case, owned by nobody.
	Removed, Orphan bool
	// Why says in words why it is removed, when not because it is no longer declared.
	Why string
}

// at returns the configuration as it is at a time: a suspension can be over.
func (c Config) at(now time.Time) Config {
	if c.Suspend && !c.Frozen && c.Suspension.Over(now) {
		c.Suspend, c.Suspension = false, plan.Suspension{}
	}
	return c
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
	// Snapshot returns an earlier revision of a source; an error that wraps sources.ErrGone is for good.
	Snapshot(ctx context.Context, source string, rev sources.Revision) (sources.Snapshot, error)
	// Dependency says how an application is that others depend on.
	Dependency(name string) Dependency
	// Claims says which application owns what.
	Claims() *Claims
	// Unsettled says why it is not known yet what all other applications want; empty when it is. Who asks is poked when
	// that may have changed.
	Unsettled(application string) string
	// Judge returns findings about a plan by rules that are not of the application: what its identity may do, and what
	// namespaces ask of pods. Of a plan with an error nothing is carried out. An application is poked when the rules have changed. The
	// list is the caller's.
	Judge(c Config, p plan.Plan, desired plan.Desired) diag.List
	// Suspended are the objects that somebody has suspended. The map is never modified.
	Suspended() map[object.Ref]plan.Suspension
	// IsDeclared reports whether there is an application of that name.
	IsDeclared(application string) bool
	// Settled says that an application has looked at a new revision, or another configuration.
	Settled(application string)
	// Moved is told of objects that the application takes over, with the application of each before that.
	Moved(application string, from map[object.Ref]string)
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
	// Late is true when it was cut short by Config.Timeout.
	Late bool
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
	ask    bool             // a manual application was asked to apply
	again  bool             // what failed is to be tried again
	looked sources.Revision // of which it was said what is wanted

	// Owned by Run's goroutine.
	record  store.Record
	loaded  bool
	looking bool // nothing is said to others
	// rendered is the newest snapshot's, good the last that was complete: it stays in force while the newest is not.
	rendered, good rendered
	// cached is the revision that was rendered last, whatever became of it: what World.Render compares with.
	cached sources.Revision
	// applied is what was carried out last, as far as this process knows: what was desired at that time.
	applied  plan.Desired
	expander plan.Expander
	last     memo
	// aim is what was aimed at last, and proven the last good revision where this process knows it, absent why it does not.
	aim    aim
	proven rendered
	absent lostGood
	// answering is since when all nodes answered, as far as this process saw.
	answering time.Time
	// forbidden is since when something of the plan is.
	forbidden time.Time
	// failures counts the walks that failed in a row, the first one at failing.
	failures int
	failing  time.Time
	notUntil time.Time
	failed   error
	// walked is what the plan changed that was carried out last without a failure.
	walked map[target]bool
	// granted is the revision of a manual application that is being applied because somebody asked, until all of it is.
	granted sources.Revision
	// retrySync has a sync that failed begun anew.
	retrySync bool
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
	a.config, a.looked = c, ""
	a.mu.Unlock()
	a.Poke()
}

func (a *Application) configured() Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.config.at(time.Now())
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

// Retry is Apply, and what failed before is tried again.
func (a *Application) Retry() {
	a.mu.Lock()
	a.ask, a.again = true, true
	a.mu.Unlock()
	a.Poke()
}

// Run reconciles until ctx ends, or until a removed application is gone.
func (a *Application) Run(ctx context.Context) error {
	for {
		select {
		case <-a.kick: // what it tells of is looked at now
		default:
		}
		next := a.guarded(ctx)
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

// settleEvery is how often an application that waits for others looks again though nobody wakes it.
const settleEvery = 10 * time.Second

// look is Look without its guard.
func (a *Application) look(ctx context.Context) Status {
	c := a.Status().Config
	st := Status{Config: c}
	r, err := a.store.Load(c.Name)
	if err != nil {
		st.Health, st.Reason, st.Detail = Failed, "StateDamaged", err.Error()
		return st
	}
	a.record, a.looking = r, true
	st.Applied, st.AppliedAt = r.Revision, r.AppliedAt
	source, stale := a.render(ctx, c)
	st.Revision, st.Committed, st.Message = a.rendered.revision, source.Snapshot.Committed, firstLine(source.Snapshot.Message)
	if a.rendered.revision == "" && !c.Removed {
		st.Health, st.Reason, st.Detail = Failed, stale.reason, stale.detail
		return st
	}
	to := a.aims(ctx, c)
	st.Desired, st.Failure, st.Back = to.desired, to.failed, to.back
	st.Plan, st.Planned = a.compute(ctx, c, to.desired)
	st.Diags = findings(a.rendered, st.Plan)
	st.Inventory = r.Inventory
	st.Health, st.Reason, st.Detail = rollup(st.Plan, stale)
	if b := st.Plan.Blocked; b != nil && st.Health != Failed {
		st.Health, st.Reason, st.Detail = Degraded, "Blocked", blocked(c.Name, b)
	}
	if len(a.silent) > 0 && st.Health != Failed {
		st.Health, st.Reason, st.Detail = Degraded, "NodeNotResponding", silence(a.silent)
	}
	st.Health, st.Reason, st.Detail = to.said(c, st.Health, st.Reason, st.Detail)
	if !a.rendered.ok {
		st.Health, st.Reason, st.Detail = Failed, "RenderFailed", summary(a.rendered.diags)
	}
	return st
}

// finish publishes a status and returns next.
func (a *Application) finish(st Status, h Health, reason, detail string, next time.Time) time.Time {
	if st.Config.Suspend {
		next = earlier(next, st.Config.Suspension.Until)
	}
	st.Health, st.Reason, st.Detail, st.Next = h, reason, detail, next
	st.Inventory = a.record.Inventory
	a.mu.Lock()
	st.Pass = a.status.Pass + 1
	a.status = st
	a.mu.Unlock()
	a.world.Changed(st)
	return next
}

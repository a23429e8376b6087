package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing/fstest"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/apply"
	"github.com/fairlead-dev/fairlead/apply/executor"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/daemon/store"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/render"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/sources"
)

const nodeID plan.NodeID = "n1"

// incarnation is one life of the daemon: everything that it has in memory.
type incarnation struct {
	w    *world
	n    int
	dir  string
	next string // the state directory as it was when this one died
	dead atomic.Bool
	once sync.Once

	ctx     context.Context
	cancel  context.CancelFunc
	work    sync.WaitGroup
	ended   chan struct{}
	store   *store.Store
	node    *executor.Node
	options plan.Options
	claims  *reconcile.Claims
	workers map[string]*reconcile.Application
	sources map[string]*reconcile.Source
	lastRun map[string]plan.Plan // for RunsOldPlan
	closed  bool

	mu    sync.Mutex
	count map[string]arrivals
}

// view is what the worker of one application sees of an incarnation.
type view struct {
	*incarnation
	application string
	alone       *reconcile.Claims // for OthersAreUnknown
}

var _ reconcile.World = view{}

// start begins an incarnation on the state directory that the last one left.
func (w *world) start() {
	i := &incarnation{
		w: w, n: len(w.all), ended: make(chan struct{}), workers: map[string]*reconcile.Application{}, sources: map[string]*reconcile.Source{},
		lastRun: map[string]plan.Plan{}, count: map[string]arrivals{},
	}
	switch {
	case w.inc == nil:
		i.dir = w.newDir()
	case w.inc.next != "":
		i.dir = w.inc.next
	default:
		i.dir = w.inc.dir
	}
	if w.has(ForgetsInventory) {
		os.RemoveAll(filepath.Join(i.dir, "applications"))
		w.mu.Lock()
		clear(w.ledger.failed) // what failed is forgotten with it
		w.mu.Unlock()
	}
	i.ctx, i.cancel = context.WithCancel(context.Background())
	var err error
	if i.store, err = store.Open(i.dir); err != nil {
		panic(err)
	}
	i.misremember()
	if w.has(SyncIsForgotten) {
		for _, a := range w.apps {
			if r, err := i.store.Load(a.name); err == nil && r.Sync != nil {
				r.Sync = nil
				_, _ = i.store.Update(r, store.Change{})
			}
		}
	}
	key, err := i.store.Key()
	if err != nil {
		panic(err)
	}
	i.options = plan.Options{Node: nodeID, DigestKey: key, Services: plantest.Ranges()}
	var registries []executor.Registered
	for _, k := range w.kernel {
		g := gateTime
		if w.has(GateIsSkipped) {
			g = 0
		}
		registries = append(registries, executor.Registered{Registry: &registry{k, i}, Gate: g})
	}
	if w.catalog != nil {
		registries = append(registries, w.catalog.register(i))
	}
	i.node, err = executor.New(executor.Options{
		ID: nodeID, Engine: &gate{Engine: w.engine, inc: i, names: map[string]string{}}, Network: &links{w.network, i}, Volumes: &mounts{w.volumes, i}, Probes: prober{w},
		StateDir: i.dir, HostIPs: []string{"192.0.2.1"}, Config: i.config, Registries: registries, Gather: executor.Gather,
		Slots: 64, // who gets one of few is for the scheduler to say
	})
	if err != nil {
		panic(err)
	}
	w.mu.Lock()
	w.inc = i
	w.all = append(w.all, i)
	w.ledger.started = time.Now()
	w.mu.Unlock()
	i.claims = reconcile.NewClaims(func(name string) {
		if worker := i.workers[name]; worker != nil {
			worker.Poke()
		}
	})
	names, err := i.store.Applications()
	if err != nil {
		panic(err)
	}
	for _, name := range names {
		r, err := i.store.Load(name)
		if err != nil {
			panic(err)
		}
		i.claims.Recorded(name, r.Inventory)
		w.mu.Lock()
		w.recorded(r)
		w.mu.Unlock()
	}
	var runs []func()
	for _, a := range w.apps {
		if !a.isEnded() {
			runs = append(runs, i.prepare(a))
		}
	}
	i.work.Go(func() { _ = i.node.Watch(i.ctx, i.poke) })
	for _, run := range runs {
		run()
	}
}

// misremember makes mistakes with what is recorded.
func (i *incarnation) misremember() {
	for _, a := range i.w.apps {
		r, err := i.store.Load(a.name)
		if err != nil || r.Failed == nil {
			continue
		}
		switch {
		case i.w.has(ForgetsFailures):
			r.Failed = nil
		case i.w.has(GoesBackToNewest):
			r.Revision, r.Content = r.Failed.Revision, r.Failed.Content
		default:
			continue
		}
		if _, err := i.store.Update(r, store.Change{Durable: true}); err != nil {
			return // the disk is full, so that this mistake cannot be made
		}
	}
}

// prepare makes the workers of an application, and returns what begins them.
func (i *incarnation) prepare(a *app) (run func()) {
	a.mu.Lock()
	c := a.config
	a.mu.Unlock()
	if i.w.has(GoesBackUnasked) {
		c.Rollback = true
	}
	worker := reconcile.NewApplication(c, view{i, a.name, reconcile.NewClaims(func(string) {})}, i.store, i.options)
	source := reconcile.NewSource(reconcile.SourceConfig{Name: a.name, Timeout: 30 * time.Second}, remote{a, i}, func(reconcile.SourceStatus) { worker.Poke() }, nil)
	i.workers[a.name], i.sources[a.name] = worker, source
	return func() {
		i.work.Go(func() { _ = source.Run(i.ctx) })
		i.work.Go(func() { _ = worker.Run(i.ctx) })
	}
}

// arrivals are how often something set out to arrive, and when it last did. What sets out at once is one: nothing tells who
// asks from each other.
type arrivals struct {
	n  int
	at time.Time
}

// arrive lets something that the daemon does reach the world a moment later, and returns how often that was done. How long
// the moment is follows from the seed, to the nanosecond: no two things arrive at once, so that their order does not depend on
// which goroutine the scheduler ran first.
func (i *incarnation) arrive(what string) int {
	now := time.Now()
	i.mu.Lock()
	c := i.count[what]
	if !c.at.Equal(now) {
		c = arrivals{c.n + 1, now}
		i.count[what] = c
	}
	i.mu.Unlock()
	time.Sleep(20*time.Microsecond + time.Duration(i.w.chance(what, i.n, c.n)%uint64(3*time.Millisecond)))
	if i.w.opt.Fine {
		i.say("      %d %s arrives, %d", i.n, what, c.n)
	}
	return c.n
}

// givenUp waits until nobody waits for something any more, or the faults end, and returns which. What was begun together is given up
// together, and seen to be one after the other.
func (i *incarnation) givenUp(ctx context.Context, what string) error {
	select {
	case <-ctx.Done():
	case <-i.w.over:
	}
	err := ctx.Err()
	if err == nil {
		err = errBroken
	}
	i.arrive("given up " + what)
	return err
}

// errBroken is what hangs comes to when the faults end.
var errBroken = errors.New("the connection breaks")

// say adds a line to the trace, unless the process is no more, or is about to be: what its goroutines come to then, all at the same
// time, matters to nobody.
func (i *incarnation) say(format string, args ...any) {
	if !i.dead.Load() && i.ctx.Err() == nil {
		i.w.say(format, args...)
	}
}

// poke is what a change on the node does.
func (i *incarnation) poke() {
	if i.w.has(WakesAreLost) {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(i.workers)) {
		if i.w.has(RetriesFailures) {
			i.workers[name].Retry()
		}
		i.workers[name].Poke()
	}
}

// die ends the process at this very moment: no call, no file of it has an effect any more.
func (i *incarnation) die(why string) {
	if i.w.has(OldDaemonLives) && i.n == 0 {
		return
	}
	i.once.Do(func() {
		i.next = i.w.snapshot(i.dir)
		i.dead.Store(true)
		i.w.mu.Lock()
		i.w.result.Crashes++
		i.w.mu.Unlock()
		i.w.say("the daemon dies %s", why)
	})
}

// bury ends the goroutines of a dead incarnation, beside what comes next.
func (i *incarnation) bury() {
	if i.closed {
		return
	}
	i.closed = true
	i.cancel()
	go func() {
		defer close(i.ended)
		_ = i.node.Close()
		i.work.Wait()
		_ = i.store.Close()
		if i.next != "" {
			_ = os.RemoveAll(i.dir) // the next one has a copy
		}
	}()
}

// revive starts the daemon again when it has died.
func (w *world) revive() {
	if w.inc.dead.Load() {
		w.inc.bury()
		w.start()
		w.say("the daemon starts, incarnation %d", w.inc.n)
		w.pause(0)
	}
}

// restart ends the daemon as a stop of its service does, and starts it again.
func (w *world) restart() {
	w.inc.bury()
	<-w.inc.ended
	w.start()
}

// config is what the node asks for a pod that it adopted.
func (i *incarnation) config(ref object.Ref) (plan.Config, bool) {
	for _, name := range slices.Sorted(maps.Keys(i.workers)) {
		if c, ok := i.workers[name].Status().Desired.Configs.Get(ref); ok {
			return c, true
		}
	}
	return plan.Config{}, false
}

// Source implements reconcile.World.
func (i *incarnation) Source(name string) (reconcile.SourceStatus, bool) {
	s, ok := i.sources[name]
	if !ok {
		return reconcile.SourceStatus{}, false
	}
	return s.Status(), true
}

// Options implements reconcile.World.
func (i *incarnation) Options(c reconcile.Config) (render.Options, diag.List) { return c.Render, nil }

// Render implements reconcile.World.
func (i *incarnation) Render(_ context.Context, application string, r render.Request, _ []string) (render.Result, error) {
	a := i.w.app(application)
	if i.w.has(EarlierIsOther) && a.isEarlier(r.Revision) {
		a.mu.Lock()
		r.Revision = string(a.order[0].id)
		a.mu.Unlock()
	}
	objects, found := a.render(r.Revision)
	return render.Result{Objects: objects, Diags: found}, nil
}

// Declared implements reconcile.World.
func (i *incarnation) Declared(string, []object.Object) diag.List { return nil }

// Claims implements reconcile.World.
func (v view) Claims() *reconcile.Claims {
	if v.w.has(OthersAreUnknown) {
		return v.alone
	}
	return v.claims
}

// Unsettled implements reconcile.World. Every look at an application asks it, so this is where looks that begin together part.
func (i *incarnation) Unsettled(application string) string {
	i.arrive("claims " + application)
	for _, name := range slices.Sorted(maps.Keys(i.workers)) {
		if name == application {
			continue
		}
		source, known := i.Source(name)
		if why := i.workers[name].Unsettled(source, known); why != "" {
			return why
		}
	}
	return ""
}

// Suspended implements reconcile.World.
func (i *incarnation) Suspended() map[object.Ref]plan.Suspension { return nil }

// Judge implements reconcile.World.
func (i *incarnation) Judge(reconcile.Config, plan.Plan, plan.Desired) diag.List { return nil }

// IsDeclared implements reconcile.World.
func (i *incarnation) IsDeclared(application string) bool { return i.workers[application] != nil }

// Settled implements reconcile.World.
func (i *incarnation) Settled(string) { i.poke() }

// Moved implements reconcile.World.
func (i *incarnation) Moved(application string, from map[object.Ref]string) {
	for _, r := range slices.SortedFunc(maps.Keys(from), object.Compare) {
		i.say("    %s moves from %s to %s", r, from[r], application)
		i.w.mu.Lock()
		delete(i.w.order.applied[from[r]], r)
		i.w.mu.Unlock()
	}
}

// Snapshot implements reconcile.World.
func (i *incarnation) Snapshot(_ context.Context, source string, rev sources.Revision) (sources.Snapshot, error) {
	if i.w.app(source).at(string(rev)) == nil {
		return sources.Snapshot{}, sources.ErrGone
	}
	return sources.Snapshot{Source: source, Revision: rev, Files: fstest.MapFS{}}, nil
}

// Observe implements reconcile.World.
func (v view) Observe(ctx context.Context) []plan.NodeState {
	i := v.incarnation
	_, _ = i.node.Observe(ctx) // at the start all wait here for the first list
	i.arrive("observe " + v.application)
	s, err := i.node.Observe(ctx)
	if err != nil {
		s.Node, s.Stale = nodeID, true
		if i.w.has(SilenceIsEmpty) {
			s = plan.NodeState{Node: nodeID}
		}
		if i.w.has(StaleIsFresh) {
			s.Stale = false
		}
	}
	if i.w.has(PodsAreOverlooked) {
		s.Pods = slices.DeleteFunc(slices.Clone(s.Pods), func(p plan.ObservedPod) bool { return i.w.chance("overlooked "+p.PodKey.String())%4 == 0 })
	}
	if i.w.has(HookFailureIsSuccess) {
		s.Pods = slices.Clone(s.Pods)
		for n := range s.Pods {
			if p := &s.Pods[n]; p.Phase == corev1.PodFailed && strings.HasPrefix(p.Owner.Name, "hook-") {
				p.Phase = corev1.PodSucceeded
			}
		}
	}
	if i.w.has(UnreadyIsReady) {
		s.Pods = slices.Clone(s.Pods)
		for n := range s.Pods {
			s.Pods[n].Ready, s.Pods[n].ReadySince = true, s.Pods[n].Created
		}
	}
	return []plan.NodeState{s}
}

// Walk implements reconcile.World.
func (i *incarnation) Walk(ctx context.Context, p plan.Plan) reconcile.Report {
	w := i.w
	if i.dead.Load() {
		<-ctx.Done()
		return reconcile.Report{Superseded: true}
	}
	if w.has(RunsOldPlan) {
		was, ok := i.lastRun[p.Application.Name]
		i.lastRun[p.Application.Name] = p
		if ok {
			p = was
		}
	}
	p = w.spoil(p)
	i.arrive("walk " + p.Application.Name)
	if i.dead.Load() {
		<-ctx.Done()
		return reconcile.Report{Superseded: true}
	}
	w.walking(i, p)
	report := apply.Run(ctx, p, map[plan.NodeID]apply.Executor{nodeID: &hands{i.node, i, p, time.Now()}}, nil)
	w.walked(i, p, report)
	out := reconcile.Report{Done: len(report.Done), Failed: len(report.Failed), Skipped: len(report.Skipped), Err: report.Err()}
	if w.has(FailuresAreSuccess) {
		out.Err = nil
	}
	if ctx.Err() != nil {
		out.Superseded = true
	}
	return out
}

// Changed implements reconcile.World.
func (i *incarnation) Changed(st reconcile.Status) {
	if !i.dead.Load() {
		i.w.shown(i, st)
		i.readiness(st)
	}
}

// hands is the node as the walker of one plan reaches it.
type hands struct {
	*executor.Node
	inc   *incarnation
	plan  plan.Plan
	began time.Time
}

// Do implements apply.Executor.
func (h *hands) Do(ctx context.Context, s plan.Step) error {
	w := h.inc.w
	if h.inc.dead.Load() {
		return dead(ctx)
	}
	h.inc.arrive("do " + h.plan.Application.Name + " " + stepName(s))
	if h.inc.dead.Load() {
		return dead(ctx)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	w.doing(h, s)
	switch a := s.Args.(type) {
	case plan.DeletePod:
		if w.has(DeleteIsSkipped) && w.chance("undeleted "+a.Pod.String())%3 == 0 {
			return nil
		}
		if w.has(WaitIsSkipped) {
			break
		}
	case plan.WaitReady:
		if w.has(WaitIsSkipped) {
			return nil
		}
	case plan.CreatePod:
		if w.has(CreateIsDoubled) {
			twin := *a.Pod
			twin.Name += "-twin"
			_ = h.Node.Do(ctx, plan.Step{ID: s.ID, Op: s.Op, Node: s.Node, Args: plan.CreatePod{Pod: &twin}})
		}
	case plan.SetService:
		if w.has(SetServiceIsSkipped) {
			return nil
		}
	case plan.DeleteService:
		if w.has(DeleteServiceIsSkipped) {
			return nil
		}
	}
	err := h.Node.Do(ctx, s)
	w.did(h, s, err)
	if err != nil {
		h.inc.arrive("failed " + h.plan.Application.Name + " " + stepName(s))
	}
	if err != nil && ctx.Err() == nil { // what was given up ends together with everything else that was
		why := strings.ReplaceAll(err.Error(), h.inc.dir, "STATE") // its name is random
		h.inc.say("    %s %s %s: %s", h.plan.Application.Name, s.Op, s.Target, why)
	}
	return err
}

// app finds an application.
func (w *world) app(name string) *app {
	for _, a := range w.apps {
		if a.name == name {
			return a
		}
	}
	panic(fmt.Sprintf("no application %s", name))
}

func (a *app) isEnded() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.config.Removed && a.w.ledger.ended[a.name]
}

// configure changes the configuration of an application, now and for later incarnations.
func (w *world) configure(a *app, change func(*reconcile.Config)) {
	a.mu.Lock()
	change(&a.config)
	c := a.config
	a.mu.Unlock()
	if worker := w.inc.workers[a.name]; worker != nil {
		if w.has(SuspendIsIgnored) {
			c.Suspend = false
		}
		worker.Configure(c)
		synctest.Wait() // one thing after the other
	}
}

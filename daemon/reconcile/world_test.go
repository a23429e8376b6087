package reconcile

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
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/apply"
	"github.com/fairlead-dev/fairlead/daemon/store"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/simulate"
	"github.com/fairlead-dev/fairlead/render"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/sources"
)

// The answers of a fake engine.
var (
	errPull = errors.New("pull access denied")
	errDown = errors.New("connection refused")
)

// fakeWorld is one source and one node on which plans are really walked.
type fakeWorld struct {
	judge func(Config, plan.Plan, plan.Desired) diag.List // nil forbids nothing
	t     *testing.T
	app   *Application
	dir   string
	// stop ends Run and waits for it.
	stop func()

	mu       sync.Mutex
	source   SourceStatus
	content  map[sources.Revision]content
	options  render.Options
	found    diag.List
	claims   *Claims // of all applications, also of such as are only there in them
	awaits   string  // why it is not known what others want
	declared map[string]bool
	// suspended are the objects that somebody has suspended
	suspended map[object.Ref]plan.Suspension
	waitsFor  map[string]Dependency // those that are not ready
	stale     bool
	pods      []plan.ObservedPod
	uids      int
	undo      bool                  // created pods are gone at once
	unready   map[string]bool       // images whose pods never become ready
	refuse    func(plan.Step) error // makes steps fail
	before    func(plan.Step)       // is called at the beginning of each step
	walks     []string              // the plans that were carried out
	steps     []string              // the steps that succeeded
	said      []string              // the statuses, without repetitions
	forgot    bool                  // the source has only its newest revision
	asked     int                   // how often it was asked for an earlier one
	rendered  []string              // the revisions that were rendered
	handed    []int                 // how many objects were handed over
	moved     []string              // what was taken over
	last      Status
}

// content is what rendering a revision returns.
type content struct {
	objects []object.Object
	diags   diag.List
	err     error
	poison  bool // rendering it panics
}

// inWorld runs a test in a bubble, with the application "shop" of the source "config".
func inWorld(t *testing.T, test func(w *fakeWorld)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &fakeWorld{
			t: t, dir: t.TempDir(), source: SourceStatus{Name: "config"}, content: map[sources.Revision]content{},
			unready: map[string]bool{}, declared: map[string]bool{}, stop: func() {},
		}
		w.claims = NewClaims(w.wake)
		defer func() { w.stop() }()
		test(w)
	})
}

func shop() Config {
	return Config{Application: plan.Application{Name: "shop", Source: "config", Path: "web", Prune: true}, RetryInterval: 16 * time.Second}
}

// start begins a worker, as a start of the daemon does.
func (w *fakeWorld) start(c Config) {
	w.t.Helper()
	s, err := store.Open(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	w.app = NewApplication(c, w, s, plan.Options{Node: "n1", DigestKey: []byte("key")})
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- w.app.Run(ctx) }()
	w.stop = func() {
		w.stop = func() {}
		cancel()
		if err := errors.Join(<-done, s.Close()); err != nil {
			w.t.Error(err)
		}
	}
	synctest.Wait()
}

// restart ends the worker and begins another.
func (w *fakeWorld) restart() {
	c := w.app.configured()
	w.stop()
	w.claims = NewClaims(w.wake)
	w.claims.Recorded("shop", w.record().Inventory)
	w.start(c)
}

// other makes an application that is only there in the claims want something, and have it when it is applied.
func (w *fakeWorld) other(name string, applied bool, objs ...object.Object) {
	w.t.Helper()
	slices.SortFunc(objs, func(a, b object.Object) int { return object.Compare(a.Ref, b.Ref) })
	var refs []object.Ref
	var inventory []plan.Applied
	for _, o := range objs {
		refs = append(refs, o.Ref)
		inventory = append(inventory, plan.RedactApplied(o, []byte("key")))
	}
	w.change(func() { w.declared[name] = true })
	w.claims.Wants(name, refs)
	if applied {
		if !w.claims.Take(name, refs) {
			w.t.Errorf("application %s cannot have what it wants", name)
		}
		w.claims.Recorded(name, inventory)
	}
	synctest.Wait()
}

// push makes a revision the newest one.
func (w *fakeWorld) push(rev sources.Revision, objs ...object.Object) {
	w.pushContent(rev, content{objects: objs})
}

func (w *fakeWorld) pushContent(rev sources.Revision, c content) {
	slices.SortFunc(c.objects, func(a, b object.Object) int { return object.Compare(a.Ref, b.Ref) })
	w.mu.Lock()
	w.content[rev] = c
	w.source.Snapshot, w.source.Err = sources.Snapshot{Revision: rev, Message: "commit " + string(rev), Changed: w.changed}, nil
	w.mu.Unlock()
	w.poke()
}

// changed is Snapshot.Changed. What a render is told of changes is since the last one, which a cache holds.
func (w *fakeWorld) changed(since sources.Revision) ([]string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.rendered); n > 0 && w.rendered[n-1] != string(since) {
		w.t.Errorf("a render is told what changed since %s, and the last one was of %s", since, w.rendered[n-1])
	}
	return nil, true
}

// change changes the world and wakes the worker.
func (w *fakeWorld) change(f func()) {
	w.mu.Lock()
	f()
	w.mu.Unlock()
	w.poke()
}

func (w *fakeWorld) poke() {
	if w.app != nil {
		w.app.Poke()
		synctest.Wait()
	}
}

func (w *fakeWorld) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// want checks the status: "Health Reason", and words that the detail has to contain.
func (w *fakeWorld) want(state string, words ...string) {
	w.t.Helper()
	st := w.app.Status()
	if got := string(st.Health) + " " + st.Reason; got != state {
		w.t.Errorf("the application is %q (%s), want %q\nbefore: %s", got, st.Detail, state, strings.Join(w.said, "\n        "))
		return
	}
	for _, word := range words {
		if !strings.Contains(st.Detail, word) {
			w.t.Errorf("%s: %q does not say %q", state, st.Detail, word)
		}
	}
}

// wantPods checks which pods run: "image" for each, sorted; " unready" is added to one that is not ready.
func (w *fakeWorld) wantPods(want ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	got := []string{}
	for _, p := range w.pods {
		s := p.Spec.Containers[0].Image
		if !p.Ready {
			s += " unready"
		}
		got = append(got, s)
	}
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" && len(want)+len(got) > 0 {
		w.t.Errorf("pods (-want +got):\n%s", d)
	}
}

// wantInventory checks the names of what is recorded on disk.
func (w *fakeWorld) wantInventory(want ...string) {
	w.t.Helper()
	r := w.record()
	var got []string
	for _, o := range r.Inventory {
		got = append(got, o.Kind+"/"+o.Name)
	}
	if d := cmp.Diff(want, got); d != "" {
		w.t.Errorf("inventory (-want +got):\n%s", d)
	}
}

func (w *fakeWorld) record() store.Record {
	w.t.Helper()
	r, err := store.View(w.dir).Load("shop")
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *fakeWorld) recordFile() string { return filepath.Join(w.dir, "applications", "shop.json") }

// quiet checks that nothing is done, written or rendered while f runs and for ten minutes after.
func (w *fakeWorld) quiet(f func()) {
	w.t.Helper()
	info, err := os.Stat(w.recordFile())
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	walks, renders := len(w.walks), len(w.rendered)
	w.mu.Unlock()
	f()
	w.after(10 * time.Minute)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.walks) != walks {
		w.t.Errorf("plans were carried out:\n%s", strings.Join(w.walks[walks:], "\n"))
	}
	if len(w.rendered) != renders {
		w.t.Errorf("rendered again: %v", w.rendered[renders:])
	}
	if now, err := os.Stat(w.recordFile()); err != nil || !os.SameFile(info, now) {
		w.t.Errorf("the record was written (%v)", err)
	}
}

// Source implements World.
func (w *fakeWorld) Source(name string) (SourceStatus, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.source, name == w.source.Name
}

// Options implements World.
func (w *fakeWorld) Options(Config) (render.Options, diag.List) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.options, w.found
}

// Render implements World.
func (w *fakeWorld) Render(_ context.Context, _ string, r render.Request, _ []string) (render.Result, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rendered = append(w.rendered, r.Revision)
	c := w.content[sources.Revision(r.Revision)]
	if c.poison {
		_ = c.objects[len(c.objects)]
	}
	return render.Result{Objects: c.objects, Diags: c.diags}, c.err
}

// Declared implements World.
func (w *fakeWorld) Declared(_ string, objects []object.Object) diag.List {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handed = append(w.handed, len(objects))
	return nil
}

// Claims implements World.
func (w *fakeWorld) Claims() *Claims { return w.claims }

// wake is told of the applications to whose claims something changes.
func (w *fakeWorld) wake(name string) {
	if w.app != nil && name == "shop" {
		w.app.Poke()
	}
}

// Unsettled implements World.
func (w *fakeWorld) Unsettled(string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.awaits
}

// Judge implements World.
func (w *fakeWorld) Judge(c Config, p plan.Plan, d plan.Desired) diag.List {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.judge == nil {
		return nil
	}
	return w.judge(c, p, d)
}

// Suspended implements World.
func (w *fakeWorld) Suspended() map[object.Ref]plan.Suspension {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.suspended
}

// IsDeclared implements World.
func (w *fakeWorld) IsDeclared(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.declared[name]
}

// Settled implements World.
func (w *fakeWorld) Settled(string) {}

// Moved implements World.
func (w *fakeWorld) Moved(application string, from map[object.Ref]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range slices.SortedFunc(maps.Keys(from), object.Compare) {
		w.moved = append(w.moved, fmt.Sprintf("%s from %s", r, from[r]))
	}
}

// Snapshot implements World.
func (w *fakeWorld) Snapshot(_ context.Context, _ string, rev sources.Revision) (sources.Snapshot, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if w.forgot {
		return sources.Snapshot{}, fmt.Errorf("%w: no branch has it", sources.ErrGone)
	}
	return sources.Snapshot{Revision: rev}, nil
}

// Dependency implements World.
func (w *fakeWorld) Dependency(name string) Dependency {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d, waits := w.waitsFor[name]; waits {
		return d
	}
	return Dependency{Ready: true}
}

// Observe implements World.
func (w *fakeWorld) Observe(context.Context) []plan.NodeState {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stale {
		return []plan.NodeState{{Node: "n1", Stale: true}}
	}
	return []plan.NodeState{{Node: "n1", Pods: slices.Clone(w.pods)}}
}

// Walk implements World with the real walker.
func (w *fakeWorld) Walk(ctx context.Context, p plan.Plan) Report {
	w.mu.Lock()
	w.walks = append(w.walks, p.String())
	w.mu.Unlock()
	r := apply.Run(ctx, p, map[plan.NodeID]apply.Executor{"n1": (*fakeNode)(w)}, nil)
	return Report{Done: len(r.Done), Failed: len(r.Failed), Skipped: len(r.Skipped), Err: r.Err(), Superseded: ctx.Err() != nil}
}

// Changed implements World.
func (w *fakeWorld) Changed(st Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	line := fmt.Sprintf("%s %s: %s", st.Health, st.Reason, st.Detail)
	if n := len(w.said); n == 0 || w.said[n-1] != line {
		w.said = append(w.said, line)
	}
	w.last = st
}

// fakeNode carries out steps on the pods of the world.
type fakeNode fakeWorld

func (n *fakeNode) Describe(context.Context) (plan.Node, error)     { return plan.Node{ID: "n1"}, nil }
func (n *fakeNode) Observe(context.Context) (plan.NodeState, error) { return plan.NodeState{}, nil }
func (n *fakeNode) Watch(ctx context.Context, _ func()) error       { <-ctx.Done(); return nil }

func (n *fakeNode) Do(ctx context.Context, s plan.Step) error {
	n.mu.Lock()
	before, refuse := n.before, n.refuse
	n.mu.Unlock()
	if before != nil {
		before(s)
	}
	if refuse != nil {
		if err := refuse(s); err != nil {
			return err
		}
	}
	if wait, ok := s.Args.(plan.WaitReady); ok {
		if err := n.wait(ctx, wait); err != nil {
			return err
		}
	} else {
		n.act(s)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.steps = append(n.steps, fmt.Sprintf("%s %s", s.Op, s.Target.Name))
	return nil
}

func (n *fakeNode) act(s plan.Step) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch args := s.Args.(type) {
	case plan.CreatePod:
		n.uids++
		p := simulate.Observe(args.Pod, fmt.Sprintf("uid-%d", n.uids))
		p.Created = time.Now()
		p.Ready = !n.unready[p.Spec.Containers[0].Image]
		if p.Ready {
			p.ReadySince = time.Now()
		}
		if !n.undo {
			n.pods = append(n.pods, p)
		}
	case plan.UpdatePod:
		for i := range n.pods {
			if n.pods[i].PodKey == args.Pod.PodKey {
				now := simulate.Observe(args.Pod, n.pods[i].UID)
				now.Created, now.Ready, now.ReadySince, now.Template = n.pods[i].Created, n.pods[i].Ready, n.pods[i].ReadySince, n.pods[i].Template
				n.pods[i] = now
			}
		}
	case plan.MovePod:
		for i := range n.pods {
			if n.pods[i].UID == args.UID {
				n.pods[i].Application = args.To
			}
		}
	case plan.DeletePod:
		n.pods = slices.DeleteFunc(n.pods, func(p plan.ObservedPod) bool { return p.PodKey == args.Pod && p.UID == args.UID })
	}
}

func (n *fakeNode) wait(ctx context.Context, w plan.WaitReady) error {
	var deadline <-chan time.Time
	if !w.Deadline.IsZero() {
		timer := time.NewTimer(time.Until(w.Deadline))
		defer timer.Stop()
		deadline = timer.C
	}
	for {
		n.mu.Lock()
		ready := slices.ContainsFunc(n.pods, func(p plan.ObservedPod) bool { return p.PodKey == w.Pod && p.Ready })
		n.mu.Unlock()
		if ready {
			return nil
		}
		look := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
			look.Stop()
			return ctx.Err()
		case <-deadline:
			look.Stop()
			return fmt.Errorf("pod %s is not ready: the progress deadline is over", w.Pod)
		case <-look.C:
		}
	}
}

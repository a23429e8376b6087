package sim

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/daemon/store"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/fake"
)

// What comes after what: waves, hooks, and applications that depend on others. In half of the worlds objects have
// waves, there are hooks, and of two applications one may depend on the other. What is held then: nothing of a wave
// changes before everything of the waves before is applied and runs; nothing changes before the PreSync hooks of that
// sync have succeeded; a hook has one pod in a sync, unless that failed; what goes, goes in the reverse order of waves; and
// nothing changes that depends on what is not ready.

const (
	waveNote   = "argocd.argoproj.io/sync-wave"
	hookNote   = "argocd.argoproj.io/hook"
	deleteNote = "argocd.argoproj.io/hook-delete-policy"
)

// The images of hooks.
const (
	goodHook  = "hook:good"
	flakyHook = "hook:flaky"
	badHook   = "hook:bad"
)

// ordered reports whether the objects of this world have an order.
func (w *world) ordered() bool { return w.chance("ordered")%2 == 0 }

// order is what is remembered of the order in which things happened. It is guarded by world.mu.
type order struct {
	applied map[string]map[object.Ref]*object.Object // what plans applied last, by application
	syncs   map[string]*plan.SyncState               // those that began last
	runs    map[hookRun]*run
	of      map[plan.PodKey]hookRun // the run that a pod of a hook was made for last
	newest  map[object.Ref]hookRun
	unready map[string]time.Time // since when applications are not ready
}

type hookRun struct {
	ref object.Ref
	plan.HookRun
}

// run is one run of a hook.
type run struct {
	began     time.Time
	pods      map[plan.PodKey]bool
	succeeded bool
}

func newOrder() order {
	return order{
		applied: map[string]map[object.Ref]*object.Object{}, syncs: map[string]*plan.SyncState{}, runs: map[hookRun]*run{}, of: map[plan.PodKey]hookRun{},
		newest: map[object.Ref]hookRun{}, unready: map[string]time.Time{},
	}
}

// addHookImages has the images that hooks run: they end by themselves.
func (w *world) addHookImages() {
	for _, ref := range []string{goodHook, flakyHook, badHook} {
		w.engine.AddImage(ref, fake.Image{Present: true, Image: runtimes.Image{ID: ref}, Run: func(spec runtimes.ContainerSpec) fake.Process {
			p := fake.Process{Exits: true, After: time.Duration(w.chance("hook "+spec.Pod.String())%40) * time.Second, Output: []string{"working"}}
			if ref == badHook || ref == flakyHook && w.chance("luck "+spec.Pod.String(), len(w.all))%2 == 0 {
				p.Code = 1
			}
			return p
		}})
	}
}

func isHookImage(ref string) bool { return strings.HasPrefix(ref, "hook:") }

// noted returns an object with more annotations.
func noted(o object.Object, notes map[string]string) object.Object {
	v := o.Value.DeepCopyObject()
	m, err := meta.Accessor(v)
	if err != nil {
		panic(err)
	}
	all := maps.Clone(m.GetAnnotations())
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, notes)
	m.SetAnnotations(all)
	again := plantest.Object(o.Ref, o.APIVersion, v)
	again.Value = v
	return again
}

// inWave gives an object a wave, in a world that has them. It seldom changes.
func (w *world) inWave(a *app, o object.Object) object.Object {
	if !w.ordered() {
		return o
	}
	n := w.chance("wave "+o.Ref.String(), len(a.order)/5)%4 - 1
	if n == 0 {
		return o
	}
	return noted(o, map[string]string{waveNote: fmt.Sprint(int(n))})
}

// hook draws a hook: a Job or a Pod.
func (w *world) hook(a *app) object.Object {
	name := fmt.Sprintf("hook-%s-%d", a.name, w.rnd.IntN(2))
	t := plantest.Template([]string{goodHook, goodHook, goodHook, flakyHook, badHook}[w.rnd.IntN(5)])
	t.Labels = map[string]string{"app": name}
	container(&t.Spec, rand.New(rand.NewPCG(w.chance("hook "+name), 0)))
	t.Spec.RestartPolicy, t.Spec.Containers = corev1.RestartPolicyNever, t.Spec.Containers[:1]
	t.Spec.Containers[0].ReadinessProbe = nil
	notes := map[string]string{
		hookNote: []string{"PreSync", "PreSync", "Sync", "PostSync", "PreSync,PostSync", "SyncFail"}[w.rnd.IntN(6)],
		waveNote: fmt.Sprint(w.rnd.IntN(2)),
	}
	if p := []string{"", "HookSucceeded", "HookFailed", "HookSucceeded,HookFailed"}[w.rnd.IntN(4)]; p != "" {
		notes[deleteNote] = p
	}
	m := metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: t.Labels, Annotations: notes}
	if w.chance("kind "+name)%3 == 0 {
		return plantest.Object(object.Ref{Kind: "Pod", Namespace: "shop", Name: name}, "v1", &corev1.Pod{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: m, Spec: t.Spec,
		})
	}
	one, limit := int32(1), int32(w.rnd.IntN(2))
	return plantest.Object(object.Ref{Group: "batch", Kind: "Job", Namespace: "shop", Name: name}, "batch/v1", &batchv1.Job{
		TypeMeta: metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"}, ObjectMeta: m,
		Spec: batchv1.JobSpec{Parallelism: &one, Completions: &one, BackoffLimit: &limit, Template: t},
	})
}

// fixHooks has every hook of the tree succeed.
func (w *world) fixHooks(a *app) {
	for _, key := range slices.Sorted(maps.Keys(a.tree)) {
		o := a.tree[key]
		if !isHook(&o) {
			continue
		}
		v := o.Value.DeepCopyObject()
		switch h := v.(type) {
		case *batchv1.Job:
			h.Spec.Template.Spec.Containers[0].Image = goodHook
		case *corev1.Pod:
			h.Spec.Containers[0].Image = goodHook
		}
		a.put(plantest.Object(o.Ref, o.APIVersion, v))
	}
}

func notesOf(o *object.Object) map[string]string {
	m, err := meta.Accessor(o.Value)
	if err != nil {
		return nil
	}
	return m.GetAnnotations()
}

func isHook(o *object.Object) bool { return notesOf(o)[hookNote] != "" }

func waveOf(o *object.Object) (n int) {
	fmt.Sscan(notesOf(o)[waveNote], &n)
	return n
}

// stripped returns objects without some annotations, for bugs.
func stripped(objects []object.Object, notes ...string) []object.Object {
	out := slices.Clone(objects)
	for i := range out {
		v, ok := out[i].Value.(runtime.Object)
		if !ok || len(notesOf(&out[i])) == 0 {
			continue
		}
		v = v.DeepCopyObject()
		m, _ := meta.Accessor(v)
		left := maps.Clone(m.GetAnnotations())
		maps.DeleteFunc(left, func(k, _ string) bool { return slices.Contains(notes, k) })
		m.SetAnnotations(left)
		o := plantest.Object(out[i].Ref, out[i].APIVersion, v)
		o.Value = v
		out[i] = o
	}
	return out
}

// Dependency implements reconcile.World.
func (i *incarnation) Dependency(name string) reconcile.Dependency {
	worker := i.workers[name]
	if worker == nil || i.w.has(DependencyIsIgnored) {
		return reconcile.Dependency{Ready: true}
	}
	src, _ := i.Source(name)
	return reconcile.DependencyOf(worker.Status(), src.Snapshot.Revision, "application "+name)
}

// readiness notes whether an application is ready, and wakes those that depend on it.
func (i *incarnation) readiness(st reconcile.Status) {
	w := i.w
	name := st.Config.Name
	w.mu.Lock()
	if st.Health == reconcile.Healthy && !st.Walking && st.Applied == string(st.Revision) {
		delete(w.order.unready, name)
	} else if w.order.unready[name].IsZero() {
		w.order.unready[name] = time.Now()
	}
	w.mu.Unlock()
	for _, other := range slices.Sorted(maps.Keys(i.workers)) {
		if other != name && slices.Contains(i.workers[other].Status().Config.DependsOn, name) {
			i.workers[other].Poke()
		}
	}
}

// look notes which hooks have succeeded, as the engine has it.
func (w *world) look() {
	all := w.containers()
	w.mu.Lock()
	defer w.mu.Unlock()
	for n := range all {
		c := &all[n]
		of, is := w.order.of[c.Pod]
		if r := w.order.runs[of]; is && r != nil && !isSandbox(c) && !c.Running && !c.FinishedAt.IsZero() && c.ExitCode == 0 && !c.Made.Before(r.began) {
			r.succeeded = true
		}
	}
}

// inOrder holds that a plan that is about to be carried out does nothing before its time, and notes what it does.
func (w *world) inOrder(a *app, rev *revision, config reconcile.Config, p plan.Plan) {
	if !w.ordered() || config.Removed || rev == nil || rev.kind != good {
		return
	}
	w.look()
	w.mu.Lock()
	var wrong []string
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	strict := w.ledger.disturbed.IsZero() // somebody who removes containers also removes what shows that a hook succeeded
	all := slices.DeleteFunc(slices.Clone(p.Changes), func(c plan.Change) bool { return c.Action == plan.ActionNone })
	// What only comes from another application is as it was, and waits for nothing.
	changes := slices.DeleteFunc(slices.Clone(all), func(c plan.Change) bool { return c.Action == plan.ActionMove })
	for _, on := range config.DependsOn {
		if since := w.order.unready[on]; !since.IsZero() && time.Since(since) > time.Minute && len(changes) > 0 {
			say("changes %s though %s, on which it depends, is not ready since %s", changes[0].Ref, on, time.Since(since))
		}
	}
	if s := p.Sync; s != nil {
		if was := w.order.syncs[a.name]; was != nil && was.ID != s.ID && was.Revision == s.Revision {
			say("begins a sync of %s again", s.Revision)
		}
		w.order.syncs[a.name] = s
	}
	if w.order.applied[a.name] == nil {
		w.order.applied[a.name] = map[object.Ref]*object.Object{}
	}
	for _, ch := range changes {
		switch o := rev.refs[ch.Ref]; {
		case ch.Action == plan.ActionDelete:
			w.goesInOrder(a, rev, ch.Ref, say)
			// A hook that is gone from Git begins anew when it is back, also where all is as it was then, and the sync with it.
			delete(w.order.newest, ch.Ref)
			maps.DeleteFunc(w.order.runs, func(h hookRun, _ *run) bool { return h.ref == ch.Ref })
		case o == nil:
		case isHook(o):
			w.beginsRun(ch.Ref, ch.Hook)
		default:
			w.comesInOrder(a, rev, o, strict, say)
		}
	}
	for _, ch := range all {
		if o := rev.refs[ch.Ref]; o != nil && ch.Action != plan.ActionDelete {
			w.order.applied[a.name][ch.Ref] = o
		}
	}
	for _, s := range p.Steps {
		if args, ok := s.Args.(plan.CreatePod); ok {
			w.runsOnce(args.Pod, strict, say)
		}
	}
	w.mu.Unlock()
	for _, s := range wrong {
		w.violate("%s %s", a.name, s)
	}
}

// recorded notes what a daemon that died before it walked had written down: the sync and the runs that its plan began,
// which nobody has seen.
func (w *world) recorded(r store.Record) {
	if !w.ordered() {
		return
	}
	if r.Sync != nil {
		w.order.syncs[r.Application] = r.Sync
	}
	for _, a := range r.Inventory {
		if a.Run != (plan.HookRun{}) {
			w.beginsRun(a.Ref, a.Run)
		}
	}
}

// beginsRun notes that a run of a hook begins.
func (w *world) beginsRun(ref object.Ref, of plan.HookRun) {
	h := hookRun{ref, of}
	w.order.newest[ref] = h
	if w.order.runs[h] == nil {
		w.order.runs[h] = &run{began: time.Now(), pods: map[plan.PodKey]bool{}}
	}
}

// runsOnce holds that a pod of a hook that is to be made is the only one of its run, but for those that failed.
func (w *world) runsOnce(p *plan.Pod, strict bool, say func(string, ...any)) {
	h, is := w.order.newest[p.Owner]
	if !is {
		return
	}
	r := w.order.runs[h]
	if strict && r.succeeded {
		say("runs hook %s again in %s of sync %s, where it succeeded", p.Owner, h.Phase, h.Sync)
	}
	for _, c := range w.containers() {
		if strict && r.pods[c.Pod] && c.Pod != p.PodKey && c.Running && !isSandbox(&c) && !c.Made.Before(r.began) {
			say("makes pod %s of hook %s while %s of the same run runs", p.PodKey, p.Owner, c.Pod)
		}
	}
	r.pods[p.PodKey], w.order.of[p.PodKey] = true, h
}

// comesInOrder holds that everything that comes before an object is there.
func (w *world) comesInOrder(a *app, rev *revision, o *object.Object, strict bool, say func(string, ...any)) {
	for i := range rev.objects {
		x := &rev.objects[i]
		phases := strings.Split(notesOf(x)[hookNote], ",")
		switch {
		case slices.Contains(phases, "PreSync"):
			h := w.order.newest[x.Ref]
			sync := w.order.syncs[a.name]
			if r := w.order.runs[h]; strict && sync != nil && (r == nil || !r.succeeded || h.Sync != sync.ID) {
				say("changes %s before hook %s has succeeded in sync %s", o.Ref, x.Ref, sync.ID)
			}
		case isHook(x) || waveOf(x) >= waveOf(o):
		default:
			if was := w.order.applied[a.name][x.Ref]; was == nil || was.Hash != x.Hash {
				say("changes %s of wave %d before %s of wave %d is applied", o.Ref, waveOf(o), x.Ref, waveOf(x))
			}
			if d, ok := x.Value.(*appsv1.Deployment); ok && strict {
				if have, want := w.up(x.Ref, d.Spec.Template.Spec.Containers[0].Image), int(*d.Spec.Replicas); have < want || d.Spec.Paused {
					say("changes %s of wave %d while %d of %d pods of %s of wave %d are available (paused %t)", o.Ref, waveOf(o), have, want, x.Ref, waveOf(x), d.Spec.Paused)
				}
			}
		}
	}
}

// up counts the pods of a workload that are available and run an image.
func (w *world) up(owner object.Ref, image string) int {
	n := 0
	for _, pod := range w.live(owner) {
		_, ok := w.available(pod)
		if ok && slices.ContainsFunc(pod, func(c fake.State) bool { return c.Container.Container == "web" && c.Image == image }) {
			n++
		}
	}
	return n
}

// goesInOrder holds that nothing of a later wave that goes too is still there. What goes to another application stays.
func (w *world) goesInOrder(a *app, rev *revision, ref object.Ref, say func(string, ...any)) {
	o := w.order.applied[a.name][ref]
	if o == nil {
		return
	}
	for _, c := range w.containers() {
		owner := ownerOf(&c)
		x := w.order.applied[a.name][owner]
		if c.Application == a.name && c.Running && rev.refs[owner] == nil && x != nil && owner != ref && waveOf(x) > waveOf(o) && !w.wantedElsewhere(a, owner) && !w.ledger.byHand[c.ID] && !w.ledger.shaken[c.UID] {
			say("deletes %s of wave %d while %s of %s of wave %d runs", ref, waveOf(o), nameOf(&c), owner, waveOf(x))
		}
	}
}

package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-dev/fairlead/apply"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/daemon/store"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/fake"
	"github.com/fairlead-dev/fairlead/sources"
)

// gateTime is how long a pod that stops waits at most for a registry to be without it.
const gateTime = 5 * time.Second

// ledger is what the daemon was told, and what else happened: what the engine is judged by. It is guarded by world.mu.
type ledger struct {
	started   time.Time                 // of the last incarnation
	foreign   map[string]fake.State     // what is not ours, as it was
	byHand    map[string]bool           // containers that somebody did something to
	shaken    map[string]bool           // UIDs of pods to whose sandbox somebody did something
	pods      map[plan.PodKey]*plan.Pod // that a plan has created
	mayGo     map[string]bool           // UIDs of pods that a plan has deleted
	leaving   map[string]time.Time      // since when a pod is being deleted
	coming    map[plan.PodKey]object.Ref
	disturbed time.Time                  // when containers last came to harm from outside
	steps     map[string]map[string]bool // of the plan that was last shown of an application
	suspended map[string]time.Time
	ended     map[string]bool
	moved     []moved
	good      map[string]string         // the revision that was last said to be applied and healthy
	failed    map[string]*store.Failure // that was last told, until another one
	asked     map[string]bool           // somebody asked for another try since
}

func newLedger() ledger {
	return ledger{
		foreign: map[string]fake.State{}, byHand: map[string]bool{}, shaken: map[string]bool{}, pods: map[plan.PodKey]*plan.Pod{}, mayGo: map[string]bool{},
		leaving: map[string]time.Time{}, coming: map[plan.PodKey]object.Ref{}, steps: map[string]map[string]bool{},
		suspended: map[string]time.Time{}, ended: map[string]bool{}, good: map[string]string{}, failed: map[string]*store.Failure{}, asked: map[string]bool{},
	}
}

// containers are ours, the oldest first.
func (w *world) containers() []fake.State {
	return slices.DeleteFunc(w.engine.Containers(), func(c fake.State) bool { return c.Foreign })
}

func nameOf(c *fake.State) string {
	return fmt.Sprintf("%s/%s#%d", c.Pod, c.Container.Container, c.Attempt)
}

func isSandbox(c *fake.State) bool { return c.Container.Container == runtimes.SandboxContainer }

// stepName says what a step does to what, in all that matters.
func stepName(s plan.Step) string {
	switch a := s.Args.(type) {
	case plan.CreatePod:
		return fmt.Sprintf("%s %s %s", s.Op, a.Pod.PodKey, a.Pod.Template)
	case plan.UpdatePod:
		return fmt.Sprintf("%s %s %v", s.Op, a.Pod.PodKey, a.Changes)
	case plan.DeletePod:
		return fmt.Sprintf("%s %s %s", s.Op, a.Pod, a.UID)
	default:
		return fmt.Sprintf("%s %s", s.Op, s.Target)
	}
}

// shown takes the status of an application as people see it.
func (w *world) shown(i *incarnation, st reconcile.Status) {
	steps := make(map[string]bool, len(st.Plan.Steps))
	for _, s := range st.Plan.Steps {
		steps[stepName(s)] = true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ledger.steps[st.Config.Name] = steps
	if st.Ended {
		w.ledger.ended[st.Config.Name] = true
	}
	w.judged(st)
}

// judged takes what is said of good and failed revisions. Called with mu held.
func (w *world) judged(st reconcile.Status) {
	name := st.Config.Name
	if st.Health == reconcile.Healthy {
		w.ledger.good[name] = st.Applied
	}
	f := st.Failure
	if f == nil {
		return
	}
	if was := w.ledger.failed[name]; was == nil || !was.At.Equal(f.At) {
		w.ledger.failed[name], w.ledger.asked[name] = f, false
		w.result.Failures++
		w.sayLocked("%s: revision %s failed: %s", name, f.Revision, f.Reason)
	}
	if st.Back && !st.Walking && st.Reason == reconcile.RolledBack && !f.BackAt.IsZero() {
		w.rolledBack(st)
	}
}

// rolledBack holds that an application that is said to be back at its last good revision is. Called with mu held.
func (w *world) rolledBack(st reconcile.Status) {
	var wrong []string
	a := w.app(st.Config.Name)
	a.mu.Lock()
	config, good := a.config, a.revs[sources.Revision(w.ledger.good[a.name])]
	a.mu.Unlock()
	switch {
	case !config.Rollback:
		wrong = append(wrong, "though it does not go back")
	case good == nil || st.Applied != string(good.id) || st.Desired.Application.Revision != string(good.id):
		wrong = append(wrong, fmt.Sprintf("to %s (applied %s), and the last good revision is %s", st.Desired.Application.Revision, st.Applied, w.ledger.good[a.name]))
	case st.Plan.Empty():
		have := map[object.Ref]string{}
		for _, o := range st.Inventory {
			have[o.Ref] = o.Hash
		}
		for ref, o := range good.refs {
			if have[ref] != o.Hash && !isHook(o) { // a hook is what ran last, if it ran at all
				wrong = append(wrong, fmt.Sprintf("to %s, and %s is not as it was there", good.id, ref))
			}
			delete(have, ref)
		}
		if config.Prune && good.kind != empty { // a tree without any object deletes nothing, whichever way it comes
			for ref := range have {
				wrong = append(wrong, fmt.Sprintf("to %s, which has no %s", good.id, ref))
			}
		}
		w.result.Rollbacks++
	}
	if len(wrong) > 0 && !w.stopped {
		what := fmt.Sprintf("%s is said to be back %s", a.name, strings.Join(wrong, "; "))
		w.result.Violations = append(w.result.Violations, what)
		w.sayLocked("VIOLATION: %s", what)
	}
}

// again says why a walk should not be: it is that of a revision that failed, and Git has not moved since. Called with mu
// held, and that of the application.
func (w *world) again(a *app, rev *revision) string {
	f := w.ledger.failed[a.name]
	if f == nil || rev == nil || w.ledger.asked[a.name] {
		return ""
	}
	was := a.revs[sources.Revision(f.Revision)]
	if was == nil || was.says() != rev.says() {
		return ""
	}
	for _, r := range a.order[slices.Index(a.order, was)+1:] {
		if r.kind == good && r.says() != was.says() {
			return ""
		}
	}
	return fmt.Sprintf("applies %s again, which failed (%s), and Git has not moved", f.Revision, f.Reason)
}

// walking judges a plan that is about to be carried out, and notes what it may do.
func (w *world) walking(i *incarnation, p plan.Plan) {
	a := w.app(p.Application.Name)
	rev := a.at(p.Application.Revision)
	a.mu.Lock()
	config := a.config
	a.mu.Unlock()
	var lines []string
	for _, s := range p.Steps {
		lines = append(lines, stepName(s))
	}
	w.say("%s walks %s: %s", a.name, p.Application.Revision, strings.Join(lines, "; "))
	gone := func(ref object.Ref) (bool, string) {
		switch {
		case config.Removed:
			return true, ""
		case rev == nil:
			return false, "from no revision that exists"
		case rev.kind != good:
			return false, "from a revision that is " + string(rev.kind)
		case rev.refs[ref] == nil && !config.Prune:
			return false, "though pruning is not allowed"
		}
		return true, ""
	}
	w.inOrder(a, rev, config, p)
	for _, ch := range p.Changes {
		if ch.Action != plan.ActionDelete {
			continue
		}
		if ok, why := gone(ch.Ref); !ok {
			w.violate("%s deletes %s %s", a.name, ch.Ref, why)
		} else if !config.Removed && rev.refs[ch.Ref] != nil {
			w.violate("%s deletes %s, which is in revision %s", a.name, ch.Ref, rev.id)
		}
	}
	owners := map[string]object.Ref{}
	for _, c := range w.containers() {
		owners[c.UID] = ownerOf(&c)
		if c.Application != a.name {
			delete(owners, c.UID)
		}
	}
	for _, s := range p.Steps {
		if args, ok := s.Args.(plan.CreatePod); ok {
			w.repeated(args.Pod, rev)
		}
	}
	w.mu.Lock()
	w.result.Walks++
	shown, since := w.ledger.steps[a.name], w.ledger.suspended[a.name]
	held := !since.IsZero() && time.Since(since) > time.Minute
	var wrong []string
	a.mu.Lock()
	again := w.again(a, rev)
	a.mu.Unlock()
	w.stays(p, func(what string) { wrong = append(wrong, what) })
	for _, s := range p.Steps {
		_, creates := s.Args.(plan.CreatePod)
		_, pulls := s.Args.(plan.PullImage)
		if again != "" && !creates && !pulls {
			wrong, again = append(wrong, again+": "+stepName(s)), ""
		}
		switch {
		case held && !creates && !pulls:
			wrong = append(wrong, "is suspended, and yet: "+stepName(s))
		case since.IsZero() && !shown[stepName(s)] && !w.madeBefore(s):
			wrong = append(wrong, "does what no plan showed: "+stepName(s))
		}
		switch args := s.Args.(type) {
		case plan.CreatePod:
			w.ledger.pods[args.Pod.PodKey] = args.Pod
		case plan.DeletePod:
			w.ledger.mayGo[args.UID] = true
		}
	}
	w.mu.Unlock()
	for _, s := range wrong {
		w.violate("%s %s", a.name, s)
	}
	for _, s := range p.Steps {
		switch args := s.Args.(type) {
		case plan.DeletePod:
			owner, ours := owners[args.UID]
			if ours {
				if ok, why := gone(owner); !ok {
					w.violate("%s deletes pod %s of %s %s", a.name, args.Pod, owner, why)
				}
			}
		case plan.DeleteService:
			if ok, why := gone(args.Service); !ok {
				w.violate("%s deletes %s %s", a.name, args.Service, why)
			}
		}
	}
}

// madeBefore reports whether a step makes a pod of a workload again as one was made before: a plan that waits for
// something shows what will be, and what is lost meanwhile comes back as it was. Called with mu held.
func (w *world) madeBefore(s plan.Step) bool {
	args, creates := s.Args.(plan.CreatePod)
	if _, pulls := s.Args.(plan.PullImage); pulls {
		return w.ordered()
	}
	if !creates || !w.ordered() {
		return false
	}
	for _, p := range w.ledger.pods {
		if p.Owner == args.Pod.Owner && p.Template == args.Pod.Template {
			return true
		}
	}
	return false
}

// repeated holds that no pod is made for a Job of which enough pods have done their work.
func (w *world) repeated(p *plan.Pod, rev *revision) {
	if rev == nil || rev.refs[p.Owner] == nil {
		return
	}
	job, ok := rev.refs[p.Owner].Value.(*batchv1.Job)
	if !ok {
		return
	}
	done := 0
	w.mu.Lock()
	for _, c := range w.containers() {
		if c.Container.Container == "task" && ownerOf(&c) == p.Owner && succeeded(&c) && !w.ledger.byHand[c.ID] && !w.ledger.mayGo[c.UID] {
			done++
		}
	}
	w.mu.Unlock()
	if done >= int(*job.Spec.Completions) {
		w.violate("pod %s of %s is made, though %d pods have done its work", p.PodKey, p.Owner, done)
	}
}

// succeeded reports whether a container did what it is for.
func succeeded(c *fake.State) bool {
	return !c.Running && !c.FinishedAt.IsZero() && c.ExitCode == 0 && c.Error == ""
}

func (w *world) walked(i *incarnation, p plan.Plan, r apply.Report) {
	what := "done"
	if err := r.Err(); err != nil {
		what, _, _ = strings.Cut(err.Error(), "\n")
	}
	i.say("%s: %d done, %d failed, %d skipped: %s", p.Application.Name, len(r.Done), len(r.Failed), len(r.Skipped), strings.ReplaceAll(what, i.dir, "STATE"))
}

func ownerOf(c *fake.State) (r object.Ref) {
	_ = json.Unmarshal([]byte(c.Owner), &r)
	return r
}

// scaled is what a Deployment may have more and less than want.
func scaled(d *appsv1.Deployment, want int) (surge, unavailable int) {
	quarter := intstr.FromString("25%")
	s, u := &quarter, &quarter
	if r := d.Spec.Strategy.RollingUpdate; r != nil {
		if r.MaxSurge != nil {
			s = r.MaxSurge
		}
		if r.MaxUnavailable != nil {
			u = r.MaxUnavailable
		}
	}
	surge, _ = intstr.GetScaledValueFromIntOrPercent(s, want, true)
	unavailable, _ = intstr.GetScaledValueFromIntOrPercent(u, want, false)
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, unavailable
}

// doing judges a step at the moment when it begins.
func (w *world) doing(h *hands, s plan.Step) {
	switch args := s.Args.(type) {
	case plan.DeletePod:
		w.leave(h, args)
	case plan.CreatePod:
		w.come(h, args.Pod)
	}
}

// live groups what runs of a workload by pod, without those that are on their way out. Called with mu held.
func (w *world) live(owner object.Ref) map[string][]fake.State {
	out := map[string][]fake.State{}
	for _, c := range w.containers() {
		if _, leaves := w.ledger.leaving[c.UID]; !leaves && ownerOf(&c) == owner {
			out[c.UID] = append(out[c.UID], c)
		}
	}
	return out
}

// available returns since when a pod is available, as the engine has it; false when it is not. One that somebody paused
// counts as it did before. Called with mu held.
func (w *world) available(pod []fake.State) (since time.Time, ok bool) {
	if len(pod) == 0 || w.ledger.pods[pod[0].Pod] == nil {
		return since, false
	}
	spec := w.ledger.pods[pod[0].Pod]
	up := map[string]bool{}
	for _, c := range pod {
		if !c.Running {
			continue
		}
		up[c.Container.Container] = true
		at := c.Began
		for n := range spec.Spec.Containers {
			if k := &spec.Spec.Containers[n]; k.Name == c.Container.Container && k.ReadinessProbe != nil {
				at = at.Add(w.startsIn(k.Image))
			}
		}
		if at.After(since) {
			since = at
		}
	}
	return since, len(up) == len(spec.Spec.Containers)+1 && !since.After(time.Now())
}

// deployment returns the Deployment that a plan brings a pod's owner to; nil when it is none, or goes.
func (w *world) wanted(h *hands, owner object.Ref) *appsv1.Deployment {
	a := w.app(h.plan.Application.Name)
	rev := a.at(h.plan.Application.Revision)
	if rev == nil || rev.refs[owner] == nil {
		return nil
	}
	d, _ := rev.refs[owner].Value.(*appsv1.Deployment)
	return d
}

// calm reports whether nothing from outside came between what the plan was made from and now. Called with mu held.
func (w *world) calm(h *hands) bool {
	return w.ledger.disturbed.IsZero() || h.began.Sub(w.ledger.disturbed) > 3*time.Minute
}

// leave holds that a pod may go: enough others are available.
func (w *world) leave(h *hands, args plan.DeletePod) {
	w.mu.Lock()
	var owner object.Ref
	for _, c := range w.containers() {
		if c.UID == args.UID {
			owner = ownerOf(&c)
		}
	}
	problem := ""
	if d := w.wanted(h, owner); d != nil && w.calm(h) {
		if least, _, ok := rolling(d); ok {
			pods := w.live(owner)
			others, goes := 0, false
			for uid, pod := range pods {
				since, up := w.available(pod)
				switch {
				case uid == args.UID:
					strict := 20*time.Second + time.Duration(d.Spec.MinReadySeconds)*time.Second
					goes = up && h.began.Sub(since) > strict
				case up:
					others++
				}
			}
			if goes && others < least {
				problem = fmt.Sprintf("pod %s of %s is deleted while %d others are available, at least %d have to be%s", args.Pod, owner, others, least, describePods(w, pods))
			}
		}
	}
	if _, ok := w.ledger.leaving[args.UID]; !ok {
		w.ledger.leaving[args.UID] = time.Now()
	}
	w.mu.Unlock()
	if problem != "" {
		w.violate("%s", problem)
	}
}

// describePods says how the pods of a workload are. Called with mu held.
func describePods(w *world, pods map[string][]fake.State) string {
	var out []string
	for _, pod := range pods {
		since, up := w.available(pod)
		s := fmt.Sprintf("\n    %s available %t", pod[0].Pod, up)
		if up {
			s += fmt.Sprintf(" for %s", time.Since(since))
		}
		for _, c := range pod {
			s += fmt.Sprintf(" %s#%d running %t", c.Container.Container, c.Attempt, c.Running)
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

// come holds that one more pod may be created.
func (w *world) come(h *hands, p *plan.Pod) {
	w.mu.Lock()
	problem := ""
	if d := w.wanted(h, p.Owner); d != nil && w.calm(h) {
		if _, most, ok := rolling(d); ok {
			keys := map[plan.PodKey]bool{}
			for _, pod := range w.live(p.Owner) {
				keys[pod[0].Pod] = true
			}
			for key, owner := range w.ledger.coming {
				if owner == p.Owner {
					keys[key] = true
				}
			}
			if !keys[p.PodKey] && len(keys)+1 > most {
				problem = fmt.Sprintf("pod %s of %s is created beside %d others, at most %d may be", p.PodKey, p.Owner, len(keys), most)
			}
		}
	}
	w.ledger.coming[p.PodKey] = p.Owner
	w.mu.Unlock()
	if problem != "" {
		w.violate("%s", problem)
	}
}

func (w *world) did(h *hands, s plan.Step, err error) {
	if args, ok := s.Args.(plan.CreatePod); ok {
		w.mu.Lock()
		delete(w.ledger.coming, args.Pod.PodKey)
		w.mu.Unlock()
	}
}

// creating judges a container that is about to be created.
func (w *world) creating(spec runtimes.ContainerSpec) {
	w.mu.Lock()
	_, known := w.ledger.pods[spec.Pod]
	w.mu.Unlock()
	if !known {
		w.violate("a container of pod %s is created, which no plan has created", spec.Pod)
	}
}

// stopping judges a signal to a container, or its removal.
func (w *world) stopping(id, signal string, remove bool) {
	w.mu.Lock()
	_, foreign := w.ledger.foreign[id]
	w.mu.Unlock()
	if foreign {
		w.violate("container %s is not ours, and gets %s (remove: %t)", id[:12], signal, remove)
		return
	}
	all := w.containers()
	at := slices.IndexFunc(all, func(c fake.State) bool { return c.ID == id })
	if at < 0 || !all[at].Running {
		return
	}
	c := all[at]
	var sandbox *fake.State
	newest, othersRun := true, ""
	for n := range all {
		o := &all[n]
		if o.UID != c.UID {
			continue
		}
		if o.Container.Container == c.Container.Container && o.Attempt > c.Attempt {
			newest = false
		}
		if isSandbox(o) && (sandbox == nil || o.Attempt > sandbox.Attempt) {
			sandbox = o
		}
		w.mu.Lock()
		if !isSandbox(o) && o.Running && !w.ledger.byHand[o.ID] {
			othersRun = nameOf(o)
		}
		w.mu.Unlock()
	}
	w.mu.Lock()
	hand, may := w.ledger.byHand[id] || w.ledger.shaken[c.UID], w.ledger.mayGo[c.UID]
	since, leaves := w.ledger.leaving[c.UID]
	spec, started, f := w.ledger.pods[c.Pod], w.ledger.started, w.faults
	w.mu.Unlock()
	switch {
	case hand, !newest:
		return
	case !may && isSandbox(&c) && othersRun == "" && spec != nil && spec.Spec.RestartPolicy != corev1.RestartPolicyAlways:
		return // a pod that has ended needs none any more
	case !may:
		if !isSandbox(&c) && (sandbox == nil || !sandbox.Running || c.Spec.SandboxID != sandbox.ID) {
			return // without its sandbox a pod is made anew
		}
		if isSandbox(&c) && othersRun == "" && spec != nil && spec.Spec.RestartPolicy != corev1.RestartPolicyAlways {
			return // the pod of a Job that has ended needs its network no more
		}
		w.violate("%s runs, and is stopped (%s, remove: %t) though no plan has deleted its pod", nameOf(&c), signal, remove)
	case isSandbox(&c):
		if remove && othersRun != "" {
			w.violate("the sandbox of %s is removed while %s runs", c.Pod, othersRun)
		}
	case sandbox == nil || !sandbox.Running || c.Spec.SandboxID != sandbox.ID:
	case remove || signal == "SIGKILL":
		grace := 30 * time.Second
		if spec != nil && spec.Spec.TerminationGracePeriodSeconds != nil {
			grace = time.Duration(*spec.Spec.TerminationGracePeriodSeconds) * time.Second
		}
		if leaves && time.Since(since) < grace-time.Millisecond {
			w.violate("%s is killed %s after its pod began to go, its grace period is %s", nameOf(&c), time.Since(since), grace)
		}
	default:
		if f.partition || time.Since(f.registryBroke) < 30*time.Second || time.Since(started) < 15*time.Second || !leaves || time.Since(since) >= gateTime {
			return
		}
		for _, k := range w.kernel {
			if to := k.has(c.UID); len(to) > 0 {
				w.violate("%s gets %s while %s still sends connections of %s to it", nameOf(&c), signal, k.name, to[0])
			}
		}
	}
}

// checkNow holds what is true at every moment; about is the call that was just made.
func (w *world) checkNow(about string) {
	w.mu.Lock()
	foreign := maps.Clone(w.ledger.foreign)
	byHand := maps.Clone(w.ledger.byHand)
	w.mu.Unlock()
	running := map[string]string{}
	for _, c := range w.engine.Containers() {
		if was, ok := foreign[c.ID]; ok {
			if c.Running != was.Running || !c.Began.Equal(was.Began) || c.Paused != was.Paused {
				w.violate("container %s, which is not ours, was touched (after %s)", c.Name, about)
			}
			delete(foreign, c.ID)
			continue
		}
		if c.Foreign || !c.Running || byHand[c.ID] {
			continue
		}
		key := c.Pod.String() + "/" + c.Container.Container
		if other, twice := running[key]; twice {
			w.violate("two containers %s run: %s and %s (after %s)", key, other, nameOf(&c)+" of "+c.UID[:8], about)
		}
		running[key] = nameOf(&c) + " of " + c.UID[:min(8, len(c.UID))]
	}
	for id := range foreign {
		w.violate("container %s, which is not ours, is gone (after %s)", foreign[id].Name, about)
	}
}

// check holds what is true when nothing moves.
func (w *world) check() { w.checkNow("an event") }

// stuck says what has not come to rest, empty when everything has.
func (w *world) stuck() string {
	for _, a := range w.apps {
		worker := w.inc.workers[a.name]
		if a.isEnded() {
			continue
		}
		st := worker.Status()
		a.mu.Lock()
		head := a.head
		a.mu.Unlock()
		if st.Config.Removed {
			return fmt.Sprintf("%s is to be removed and is not: %s %s: %s\n%s", a.name, st.Health, st.Reason, st.Detail, st.Plan)
		}
		if st.Health != reconcile.Healthy || !st.Plan.Empty() || st.Revision != head.id || st.Applied != string(head.id) {
			return fmt.Sprintf("%s is %s %s: %s; revision %s, applied %s, newest %s\n%s", a.name, st.Health, st.Reason, st.Detail, st.Revision, st.Applied, head.id, st.Plan)
		}
	}
	return ""
}

// atRest holds that what runs is exactly what is wanted.
func (w *world) atRest() {
	type have struct {
		pods   map[string][]fake.State
		images map[string]int
	}
	all := map[object.Ref]*have{}
	uids := map[string]bool{}
	for _, c := range w.containers() {
		owner := ownerOf(&c)
		if all[owner] == nil {
			all[owner] = &have{pods: map[string][]fake.State{}, images: map[string]int{}}
		}
		uids[c.UID] = true
		all[owner].pods[c.UID] = append(all[owner].pods[c.UID], c)
		if c.Running && c.Container.Container == "web" {
			all[owner].images[c.Image]++
		}
	}
	// A pod whose containers are all gone is one still when it has ended: a Job counts it. The node knows it, and keeps what is its.
	seen, err := w.inc.node.Observe(context.Background())
	if err != nil {
		w.violate("at the end the node cannot be observed: %v", err)
	}
	for n := range seen.Pods {
		p := &seen.Pods[n]
		if !uids[p.UID] && p.Finished.IsZero() {
			w.violate("at the end the node has pod %s (UID %s), of which nothing is on the engine", p.PodKey, p.UID)
		}
		uids[p.UID] = true
		if all[p.Owner] == nil {
			all[p.Owner] = &have{pods: map[string][]fake.State{}, images: map[string]int{}}
		}
		if all[p.Owner].pods[p.UID] == nil {
			all[p.Owner].pods[p.UID] = []fake.State{}
		}
	}
	services := map[object.Ref]bool{}
	for _, a := range w.apps {
		if a.isEnded() {
			continue
		}
		for ref, o := range a.head.refs {
			want, image := 0, ""
			if isHook(o) {
				delete(all, ref) // what it left is there until it runs again
				continue
			}
			switch v := o.Value.(type) {
			case *appsv1.Deployment:
				want, image = int(*v.Spec.Replicas), v.Spec.Template.Spec.Containers[0].Image
			case *corev1.Pod:
				want, image = 1, v.Spec.Containers[0].Image
			case *corev1.Service:
				services[ref] = true
				continue
			case *batchv1.Job: // that it is done is what its application waits for
				if got := all[ref]; got != nil {
					for _, pod := range got.pods {
						for _, c := range pod {
							if c.Running {
								w.violate("at the end %s of %s still runs", nameOf(&c), ref)
							}
						}
					}
				}
				delete(all, ref)
				continue
			default:
				continue
			}
			got := all[ref]
			if got == nil {
				got = &have{}
			}
			if len(got.pods) != want || got.images[image] != want {
				w.violate("at the end %s has %d pods and runs %v, wanted are %d of %s", ref, len(got.pods), got.images, want, image)
			}
			for uid, pod := range got.pods {
				w.mu.Lock()
				_, up := w.available(pod)
				w.mu.Unlock()
				if !up {
					w.violate("at the end pod %s of %s is not available", uid, ref)
				}
			}
			delete(all, ref)
		}
	}
	kept := func(ref object.Ref) bool { // pruning is not allowed
		for _, a := range w.apps {
			if a.isEnded() || a.config.Prune {
				continue
			}
			for _, r := range a.order {
				if r.kind == good && r.refs[ref] != nil {
					return true
				}
			}
		}
		return false
	}
	for ref, h := range all {
		if !kept(ref) {
			w.violate("at the end %d pods of %s are left over", len(h.pods), ref)
		}
	}
	for _, k := range w.kernel {
		k.mu.Lock()
		routes := k.routes
		k.mu.Unlock()
		seen := map[object.Ref]bool{}
		for _, r := range routes {
			seen[r.Ref] = true
			if !services[r.Ref] && !kept(r.Ref) {
				w.violate("at the end %s serves %s, which is not wanted", k.name, r.Ref)
			}
			for _, e := range r.Endpoints {
				if !uids[e.UID] {
					w.violate("at the end %s sends connections of %s to pod %s, which is gone", k.name, r.Ref, e.Pod)
				}
			}
		}
		for ref := range services {
			if !seen[ref] {
				w.violate("at the end %s does not serve %s", k.name, ref)
			}
		}
	}
	if w.catalog != nil {
		var endpoints []string
		for _, r := range w.kernel[0].routes {
			for _, e := range r.Endpoints {
				for _, port := range e.Ports {
					if e.Ready {
						endpoints = append(endpoints, fmt.Sprintf("%s:%d", e.Address, port))
					}
				}
			}
		}
		w.catalog.atRest(endpoints)
	}
	for uid := range w.network.Links() {
		if !uids[uid] {
			w.violate("at the end the link of pod %s is left over", uid)
		}
	}
	w.volumes.mu.Lock()
	defer w.volumes.mu.Unlock()
	for uid := range w.volumes.prepared {
		if !uids[uid] {
			w.violate("at the end the volumes of pod %s are left over", uid)
		}
	}
}

package plan

import (
	"fmt"
	"math"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// planDeployment keeps the wanted number of pods running and rolls a new template out.
func planDeployment(b *builder, w *Workload, d *appsv1.Deployment, pods []*pod) {
	want := b.replicas(w, d.Spec.Replicas)
	minReady := seconds(d.Spec.MinReadySeconds)
	deadline := 10 * time.Minute
	if d.Spec.ProgressDeadlineSeconds != nil {
		deadline = seconds(*d.Spec.ProgressDeadlineSeconds)
		if *d.Spec.ProgressDeadlineSeconds == math.MaxInt32 || deadline < 0 {
			deadline = 0
		}
	}
	f := b.sortFleet(w, pods)
	s := b.fleetStatus(w, want, minReady, deadline, &f)
	recreate := d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || b.verdicts[w.Ref] == forced
	b.removeEnded(&f)
	switch {
	case d.Spec.Paused:
		b.pausedDeployment(w, &f, want, minReady)
	case len(f.old) == 0:
		b.scale(w, &f, want, minReady)
	case recreate:
		b.recreate(w, &f, want, minReady, pods)
	default:
		surge, unavailable := rollingBounds(d, want)
		b.roll(w, surge, unavailable, &f, want, minReady, deadline, s.stalled)
	}
	for _, p := range f.fresh {
		b.inPlace(w, w.Pod, p)
	}
	if d.Spec.Paused {
		s.Health, s.Reason, s.Message = "Suspended", "Paused", fmt.Sprintf("the Deployment is paused; %d of %d pods are of its template", s.Updated, s.Current)
	}
	b.status(s.WorkloadStatus)
}

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }

// replicas returns how many pods are wanted: what was applied, where the application ignores the field.
func (b *builder) replicas(w *Workload, n *int32) int { return b.bound(b.wantedReplicas(w, n)) }

func (b *builder) wantedReplicas(w *Workload, n *int32) int {
	want := 1
	if n != nil {
		want = max(0, int(*n))
	}
	if len(b.desired.Application.Ignore) == 0 {
		return want
	}
	if !pointersFor(b.desired.Application.Ignore, w.Ref).child("spec").child("replicas").here() {
		return want
	}
	if have := b.appliedOf(w.Ref); have != nil {
		v, _ := parse(have.Written).(map[string]any)
		spec, _ := v["spec"].(map[string]any)
		if spec != nil && spec["replicas"] == nil {
			return 1 // the default
		}
		if n, err := jsonInt(spec["replicas"]); err == nil {
			return max(0, n)
		}
	}
	return want
}

// scale creates or deletes pods of the desired template where there are no others.
func (b *builder) scale(w *Workload, f *fleet, want int, minReady time.Duration) {
	if len(f.fresh) == want && len(f.ended) == 0 {
		return
	}
	names := b.podNames(w)
	missing := want - len(f.fresh)
	replaced := f.ended
	for i := range max(0, missing) {
		cause := fmt.Sprintf("%s wanted, %d there", podsAre(want), len(f.fresh))
		pc := PodChange{Action: ActionCreate, Cause: cause}
		if i < len(replaced) && replaced[i].gone {
			pc.Action, pc.Replaces, pc.Cause = ActionStopFirst, replaced[i].PodKey, endedCause(replaced[i])
		}
		p := w.pod(names.take())
		pc.Pod = p.PodKey
		if b.create(p, pc.Cause) != 0 {
			b.podChange(w.Ref, pc)
		}
	}
	for i := max(0, missing); i < len(replaced); i++ {
		if replaced[i].gone {
			b.podChange(w.Ref, PodChange{Pod: replaced[i].PodKey, Action: ActionDelete, Node: replaced[i].node, Cause: endedCause(replaced[i])})
		}
	}
	if lost := missing - len(replaced); lost > 0 && b.verdicts[w.Ref] == same && b.canCreate {
		b.drift(w.Ref, fmt.Sprintf("%d of %s missing", lost, podsAre(want)), "created again")
	}
	b.shrink(w, f, want, minReady)
}

// shrink deletes pods of the desired template that are more than wanted, and takes them out of f.
func (b *builder) shrink(w *Workload, f *fleet, want int, minReady time.Duration) {
	surplus := len(f.fresh) - want
	if surplus <= 0 {
		return
	}
	cause := fmt.Sprintf("%s wanted, %d there", podsAre(want), len(f.fresh))
	for _, p := range victims(f.fresh, b.now, minReady) {
		if surplus == 0 {
			break
		}
		if b.remove(p, cause) != 0 {
			b.podChange(w.Ref, PodChange{Pod: p.PodKey, Action: ActionDelete, Node: p.node, Cause: cause})
			surplus--
		}
	}
	f.fresh = slices.DeleteFunc(f.fresh, func(p *pod) bool { return p.gone })
}

// podNames gives names as Kubernetes forms them: with the template's hash for a Deployment's pods.
func (b *builder) podNames(w *Workload) *nameSet {
	base := w.Name
	if _, ok := w.Value.(*appsv1.Deployment); ok {
		base += "-" + short(w.Pod.Template)
	}
	return b.newNames(w.Namespace, base, string(b.opt.Node)+"/"+w.Kind)
}

// recreate deletes all pods of other templates and then creates those of the desired one.
func (b *builder) recreate(w *Workload, f *fleet, want int, minReady time.Duration, all []*pod) {
	cause := templateCause(f.old[0], w)
	if b.verdicts[w.Ref] == forced {
		cause = b.change(w.Ref).Cause
	}
	var deletes []StepID
	old := victims(f.old, b.now, minReady)
	for _, p := range old {
		deletes = append(deletes, b.remove(p, cause))
	}
	b.showEnded(w, f)
	b.shrink(w, f, want, minReady)
	terminating := slices.ContainsFunc(all, func(p *pod) bool { return p.Terminating && p.Template != w.Pod.Template })
	creating := max(0, want-len(f.fresh))
	if terminating {
		creating = 0 // when they are gone everything is looked at again
	}
	names := b.podNames(w)
	for i := range max(creating, len(old)) {
		if i >= creating {
			if deletes[i] != 0 {
				b.podChange(w.Ref, PodChange{Pod: old[i].PodKey, Action: ActionDelete, Node: old[i].node, Cause: cause})
			}
			continue
		}
		p := w.pod(names.take())
		id := b.create(p, cause, deletes...)
		switch {
		case id != 0 && i < len(old):
			b.podChange(w.Ref, PodChange{Pod: p.PodKey, Replaces: old[i].PodKey, Action: ActionStopFirst, Node: old[i].node, Cause: cause + "; strategy Recreate", Downtime: true})
		case id != 0:
			b.podChange(w.Ref, PodChange{Pod: p.PodKey, Action: ActionCreate, Cause: cause})
		case i < len(old) && deletes[i] != 0:
			b.podChange(w.Ref, PodChange{Pod: old[i].PodKey, Action: ActionDelete, Node: old[i].node, Cause: cause})
		}
	}
}

// roll replaces pods of other templates step by step: never more than surge beyond the wanted ones, and at most unavailable of those not available.
func (b *builder) roll(w *Workload, surge, unavailable int, f *fleet, want int, minReady, deadline time.Duration, stalled bool) {
	b.showEnded(w, f)
	b.shrink(w, f, want, minReady)
	r := &rollout{
		b: b, w: w, most: want + surge, least: max(0, want-unavailable), minReady: minReady, deadline: deadline,
		stalled: stalled, cause: templateCause(f.old[0], w), fresh: f.fresh, names: b.podNames(w),
		creating: max(0, want-len(f.fresh)),
	}
	if !b.canCreate {
		r.creating = 0
	}
	if deadline > 0 && len(f.fresh) > 0 {
		r.until = f.progress().Add(deadline)
	}
	for _, p := range f.fresh {
		if ok, from := p.available(b.now, minReady); !ok && p.active() && !p.stale {
			r.waiting = append(r.waiting, p)
			b.wakeAt(from)
		}
	}
	for _, p := range victims(f.old, b.now, minReady) {
		ok, _ := p.available(b.now, minReady)
		switch {
		case p.stale:
			r.keep++
		case ok:
			r.good = append(r.good, p)
		default:
			r.broken = append(r.broken, p)
		}
	}
	r.plan()
	r.show(w, want)
}

// progress is when the pods of the desired template last came forward: were created or became ready.
func (f *fleet) progress() time.Time {
	var last time.Time
	for _, p := range f.fresh {
		if p.Created.After(last) {
			last = p.Created
		}
		if p.Ready && p.ReadySince.After(last) {
			last = p.ReadySince
		}
	}
	return last
}

// rollingBounds resolves maxSurge and maxUnavailable as Kubernetes does: percentages of the surge are
// rounded up, those of what may be unavailable down, and both cannot be 0.
func rollingBounds(d *appsv1.Deployment, want int) (surge, unavailable int) {
	quarter := intstr.FromString("25%")
	s, u := &quarter, &quarter
	if ru := d.Spec.Strategy.RollingUpdate; ru != nil {
		if ru.MaxSurge != nil {
			s = ru.MaxSurge
		}
		if ru.MaxUnavailable != nil {
			u = ru.MaxUnavailable
		}
	}
	surge, err := intstr.GetScaledValueFromIntOrPercent(s, want, true)
	if err != nil {
		surge = 1
	}
	unavailable, err = intstr.GetScaledValueFromIntOrPercent(u, want, false)
	if err != nil {
		unavailable = 0
	}
	surge, unavailable = max(0, surge), max(0, unavailable)
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, min(unavailable, want)
}

// pausedDeployment keeps the number of pods without rolling anything out: what is missing is made like
// the pods that are there.
func (b *builder) pausedDeployment(w *Workload, f *fleet, want int, minReady time.Duration) {
	if len(f.old) == 0 {
		if len(f.fresh) > 0 || len(f.ended) > 0 { // where nothing was rolled out, nothing is begun
			b.scale(w, f, want, minReady)
		}
		return
	}
	b.showEnded(w, f)
	all := append(slices.Clone(f.old), f.fresh...)
	if surplus := len(all) - want; surplus > 0 {
		cause := fmt.Sprintf("%s wanted, %d there", podsAre(want), len(all))
		for _, p := range victims(all, b.now, minReady) {
			if surplus == 0 {
				break
			}
			if b.remove(p, cause) != 0 {
				b.podChange(w.Ref, PodChange{Pod: p.PodKey, Action: ActionDelete, Node: p.node, Cause: cause})
				surplus--
			}
		}
		return
	}
	model := f.old[0]
	if model.Spec == nil {
		return
	}
	base := w.Name + "-" + short(model.Template)
	names := b.newNames(w.Namespace, base, string(b.opt.Node)+"/"+w.Kind)
	cause := fmt.Sprintf("%s wanted, %d there; the Deployment is paused", podsAre(want), len(all))
	for range want - len(all) {
		p := b.like(w, model, names.take())
		if b.create(p, cause) != 0 {
			b.podChange(w.Ref, PodChange{Pod: p.PodKey, Action: ActionCreate, Cause: cause})
		}
	}
}

// like returns a pod that is made like an observed one.
func (b *builder) like(w *Workload, model *pod, key PodKey) *Pod {
	p := &Pod{
		PodKey: key, Application: b.desired.Application.Name, SourceRevision: b.desired.Application.Revision,
		Owner: w.Ref, Template: model.Template, Labels: model.Labels, Annotations: model.Annotations, Spec: model.Spec, Index: -1,
	}
	copied := Workload{Object: w.Object, Pod: p}
	p.Configs, _ = resolveConfigs(&copied, configUses(copied.Namespace, copied.Pod.Spec), b.desired.Configs)
	return p
}

package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// statefulSet is the planning of one StatefulSet. Of every ordinal there is at most one pod: the step that makes one comes
// after the step that removes the one before, which is done when that one is proven gone.
//
// What it does is a chain: the pods that have to be there from the lowest ordinal up, each waiting for the one before, then
// those that are too many from the highest down, then the update from the highest down. Pods that were never going to
// become ready do not hold the update up: one of an earlier template that is not available is replaced where it
// stands in the chain.
type statefulSet struct {
	b   *builder
	w   *Workload
	set *appsv1.StatefulSet

	first, want int // ordinals first to first+want-1
	minReady    time.Duration
	partition   int // pods of lower ordinals keep their template
	ordered     bool
	onDelete    bool
	// unavailable is how many pods may be unavailable while the update goes on.
	unavailable int
	stalled     bool

	at        map[int]*pod // by ordinal
	condemned []*pod       // out of range, the highest first
	foreign   []*pod       // what no ordinal is of
	waits     int          // how many waits were planned, for the deadlines
}

// ordinalLabel is the label of a pod with its ordinal.
const ordinalLabel = "apps.kubernetes.io/pod-index"

// planStatefulSet keeps the pods of a StatefulSet.
func planStatefulSet(b *builder, w *Workload, v *appsv1.StatefulSet, pods []*pod) {
	s := &statefulSet{
		b: b, w: w, set: v, minReady: seconds(v.Spec.MinReadySeconds), want: b.replicas(w, v.Spec.Replicas),
		ordered: v.Spec.PodManagementPolicy != appsv1.ParallelPodManagement, onDelete: v.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType,
		at: map[int]*pod{}, unavailable: 1,
	}
	if v.Spec.Ordinals != nil {
		s.first = int(v.Spec.Ordinals.Start)
	}
	if r := v.Spec.UpdateStrategy.RollingUpdate; r != nil && !s.onDelete {
		if r.Partition != nil {
			s.partition = int(*r.Partition)
		}
		if r.MaxUnavailable != nil {
			if n, err := intstr.GetScaledValueFromIntOrPercent(r.MaxUnavailable, s.want, true); err == nil {
				s.unavailable = max(1, n)
			}
		}
	}
	if b.verdicts[w.Ref] == forced {
		s.partition, s.onDelete = 0, false
	}
	s.sort(pods)
	s.checkService()
	if !s.claims() {
		return
	}
	s.status()
	s.plan()
	for n, p := range s.at {
		if s.inRange(n) && s.fresh(p) {
			b.inPlace(w, s.pod(n), p)
		}
	}
	s.dropClaims()
}

// checkService says that the pods have no names where their Service does not exist.
func (s *statefulSet) checkService() {
	r := object.Ref{Kind: "Service", Namespace: s.w.Namespace, Name: s.set.Spec.ServiceName}
	if r.Name == "" || s.b.desiredHas(r) || s.b.servedElsewhere(r) != nil {
		return
	}
	s.b.diag(diag.Diagnostic{
		Severity: diag.Warning, Code: "no-service", Ref: s.w.Ref, Origin: s.w.Origin, Field: "spec.serviceName",
		Message: fmt.Sprintf("there is no %s: the pods have no names below it until there is", r),
		Hint:    "add a Service with clusterIP: None that selects the pods",
	})
}

func (s *statefulSet) inRange(n int) bool { return n >= s.first && n < s.first+s.want }

// ordinalOf reads the ordinal in the name of a pod; -1 where there is none.
func ordinalOf(set, pod string) int {
	text, ok := strings.CutPrefix(pod, set+"-")
	n, err := strconv.Atoi(text)
	if !ok || err != nil || n < 0 || strconv.Itoa(n) != text {
		return -1
	}
	return n
}

func (s *statefulSet) sort(pods []*pod) {
	for _, p := range pods {
		n := ordinalOf(s.w.Name, p.Name)
		switch have := s.at[n]; {
		case n < 0:
			s.foreign = append(s.foreign, p)
		case have == nil:
			s.at[n] = p
		default: // two of one ordinal: nothing makes such, and the older one stays
			if p.Created.Before(have.Created) {
				s.at[n], p = p, have
			}
			s.foreign = append(s.foreign, p)
		}
	}
	for n, p := range s.at {
		if !s.inRange(n) {
			s.condemned = append(s.condemned, p)
		}
	}
	slices.SortFunc(s.condemned, func(x, y *pod) int {
		return cmp.Compare(ordinalOf(s.w.Name, y.Name), ordinalOf(s.w.Name, x.Name))
	})
}

// fresh reports whether a pod is of the template that is desired, or means the same.
func (s *statefulSet) fresh(p *pod) bool {
	n := ordinalOf(s.w.Name, p.Name)
	if p.Spec == nil || n < 0 {
		return p.Template == s.w.Pod.Template
	}
	want := s.pod(n)
	if p.Template == s.w.Pod.Template {
		// What its identity follows from can be changed by force only.
		return p.Spec.Subdomain == want.Spec.Subdomain && slices.Equal(claimsOf(p.Namespace, p.Spec), claimsOf(p.Namespace, want.Spec))
	}
	return equality.Semantic.DeepEqual(withoutRevision(want.Labels), withoutRevision(p.Labels)) &&
		equality.Semantic.DeepEqual(want.Annotations, p.Annotations) &&
		equality.Semantic.DeepEqual(identity(want.Spec, false), identity(p.Spec, false))
}

func withoutRevision(labels map[string]string) map[string]string {
	out := maps.Clone(labels)
	delete(out, appsv1.ControllerRevisionHashLabelKey)
	return out
}

// keeps reports whether a pod of an earlier template is left as it is.
func (s *statefulSet) keeps(n int) bool { return s.onDelete || n < s.partition }

// pod is the pod of an ordinal as it is desired.
func (s *statefulSet) pod(n int) *Pod {
	return s.identify(s.w.pod(s.key(n)), n)
}

func (s *statefulSet) key(n int) PodKey {
	return PodKey{Namespace: s.w.Namespace, Name: s.w.Name + "-" + strconv.Itoa(n)}
}

// identify gives a pod what tells it from the others: its name, its host's, and its claims.
func (s *statefulSet) identify(p *Pod, n int) *Pod {
	p.Labels = maps.Clone(p.Labels)
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels[appsv1.StatefulSetPodNameLabel] = p.Name
	p.Labels[ordinalLabel] = strconv.Itoa(n)
	p.Labels[appsv1.ControllerRevisionHashLabelKey] = s.w.Name + "-" + short(p.Template)
	spec := *p.Spec
	spec.Hostname, spec.Subdomain = p.Name, s.set.Spec.ServiceName
	spec.Volumes = slices.Clone(spec.Volumes)
	for i := range s.set.Spec.VolumeClaimTemplates {
		t := &s.set.Spec.VolumeClaimTemplates[i]
		v := corev1.Volume{Name: t.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: t.Name + "-" + p.Name},
		}}
		at := slices.IndexFunc(spec.Volumes, func(o corev1.Volume) bool { return o.Name == t.Name })
		if at >= 0 {
			spec.Volumes[at] = v
		} else {
			spec.Volumes = append(spec.Volumes, v)
		}
	}
	p.Spec = &spec
	return p
}

// next is the pod that is made for an ordinal where there is none: of the desired template, or, where pods of this ordinal keep
// theirs, like another one that has an earlier one.
func (s *statefulSet) next(n int) *Pod {
	if s.keeps(n) && !s.onDelete {
		for _, m := range slices.Sorted(maps.Keys(s.at)) {
			if o := s.at[m]; s.inRange(m) && m < s.partition && !s.fresh(o) && o.Spec != nil && !o.Terminating {
				return s.identify(s.b.like(s.w, o, s.key(n)), n)
			}
		}
	}
	return s.pod(n)
}

// claimOf is the claim of an ordinal that follows from a template.
func (s *statefulSet) claimOf(t *corev1.PersistentVolumeClaim, n int) wish {
	labels := maps.Clone(t.Labels)
	if labels == nil && s.set.Spec.Selector != nil && len(s.set.Spec.Selector.MatchLabels) > 0 {
		labels = map[string]string{}
	}
	if s.set.Spec.Selector != nil {
		maps.Copy(labels, s.set.Spec.Selector.MatchLabels)
	}
	return wish{
		ref: ClaimRef(s.w.Namespace, fmt.Sprintf("%s-%s-%d", t.Name, s.w.Name, n)), owner: s.w.Ref,
		labels: labels, annotations: t.Annotations, spec: &t.Spec,
	}
}

// claims has the node keep the claims of all pods. Where one cannot be bound nothing is done, and the status says why.
func (s *statefulSet) claims() bool {
	b := s.b
	var waits []string
	for n := s.first; n < s.first+s.want; n++ {
		for i := range s.set.Spec.VolumeClaimTemplates {
			t := &s.set.Spec.VolumeClaimTemplates[i]
			w := s.claimOf(t, n)
			if b.desiredHas(w.ref) {
				continue // one that is written is used as it is
			}
			have := b.storage.on[w.ref]
			if have != nil && have.Owner != s.w.Ref && !b.mine(w.ref, have.Application) {
				waits = append(waits, fmt.Sprintf("claim %s belongs to application %s", w.ref.Name, have.Application))
				b.storage.pending[w.ref] = pending{why: waits[len(waits)-1]}
				continue
			}
			b.wish(w)
			if p, is := b.storage.pending[w.ref]; is {
				waits = append(waits, fmt.Sprintf("claim %s is Pending: %s", w.ref.Name, p.why))
				b.claimDiag(s.w, t, w.ref, p)
				continue
			}
			if have != nil {
				b.grown(w, s.w.Origin, s.w.Ref)
			}
			cause := fmt.Sprintf("%s needs it", s.w.Ref)
			if b.put(b.storage.world[w.ref], cause) == 0 {
				continue
			}
			c, bound := b.change(w.ref), b.storage.world[w.ref].Claim
			c.Action, c.Origin, c.Cause, c.Owner = ActionUpdate, s.w.Origin, cause, s.w.Ref
			if have != nil && have.Claim.Request < bound.Request {
				c.Cause = "it grows to " + Quantity(bound.Request)
			}
			if have == nil {
				c.Action, c.Cause = ActionCreate, fmt.Sprintf("%s; bound to PersistentVolume %s, %s", cause, bound.Volume, bound.Source)
			}
		}
	}
	if len(waits) == 0 {
		return true
	}
	st := WorkloadStatus{Ref: s.w.Ref, Desired: s.want, Health: "Progressing", Reason: "ClaimNotBound", Message: waits[0] + "; no pod is started or replaced until it is bound"}
	for _, p := range s.at {
		if p.active() {
			st.Current++
			if s.fresh(p) {
				st.Updated++
			}
			if p.Ready {
				st.Ready++
				st.Available++
			}
		}
	}
	b.status(st)
	return false
}

// claimDiag says of a claim that is made from a template that it is not bound.
func (b *builder) claimDiag(w *Workload, t *corev1.PersistentVolumeClaim, claim object.Ref, p pending) {
	if slices.ContainsFunc(b.plan.Diags, func(d diag.Diagnostic) bool { return d.Ref == w.Ref && d.Code == "claim-pending" }) {
		return // one of them is enough
	}
	b.diag(diag.Diagnostic{
		Severity: diag.Warning, Code: "claim-pending", Ref: w.Ref, Origin: w.Origin, Field: "spec.volumeClaimTemplates[" + t.Name + "]",
		Message: fmt.Sprintf("claim %s is Pending, and no pod is started: %s", claim.Name, p.why), Hint: p.hint,
	})
}

// status sums up the pods.
func (s *statefulSet) status() {
	b := s.b
	var f fleet
	updated := 0
	for _, n := range slices.Sorted(maps.Keys(s.at)) {
		p := s.at[n]
		if !s.inRange(n) || p.Terminating || p.ended() && !b.replaceAt(p).After(b.now) {
			continue
		}
		fresh := s.fresh(p)
		if fresh {
			updated++
		}
		if fresh || s.keeps(n) {
			f.fresh = append(f.fresh, p)
		} else {
			f.old = append(f.old, p)
		}
	}
	st := b.fleetStatus(s.w, s.want, s.minReady, podDeadline+s.minReady, &f)
	s.stalled = st.stalled
	st.Updated = updated
	if st.Health == "Healthy" && len(s.condemned) > 0 {
		st.Health, st.Reason, st.Message = "Progressing", "ScalingDown", fmt.Sprintf("%d pods are left that are too many", len(s.condemned))
	}
	if s.keepsOld(f.fresh) && st.Health == "Healthy" {
		st.Reason = "Partitioned"
		st.Message = fmt.Sprintf("%d of %d pods have the newest template", updated, s.want)
		if s.onDelete {
			st.Reason = "OnDelete"
		}
	}
	b.status(st.WorkloadStatus)
}

func (s *statefulSet) keepsOld(pods []*pod) bool {
	return slices.ContainsFunc(pods, func(p *pod) bool { return !s.fresh(p) })
}

// link is what the next step in the chain comes after: steps, and a pod that has to be ready. That is waited for only where
// something comes after it.
type link struct {
	after []StepID
	key   PodKey
	pod   *pod // where it was observed
	wait  bool
	step  StepID
}

// resolve returns the steps that what comes after a link waits for.
func (s *statefulSet) resolve(l *link) []StepID {
	switch {
	case l == nil:
		return nil
	case !l.wait:
		return l.after
	case l.step == 0:
		// Each wait has the whole time for itself.
		s.waits++
		deadline := s.b.now.Add((podDeadline + s.minReady) * time.Duration(min(s.waits, 1000)))
		l.step = s.b.waitReady(l.key, l.pod, s.minReady, deadline, "the next one comes when it is ready", l.after...)
	}
	return []StepID{l.step}
}

// plan adds the steps.
func (s *statefulSet) plan() {
	b := s.b
	for _, p := range s.foreign {
		const cause = "it is of no ordinal of its StatefulSet"
		if !p.Terminating && b.remove(p, cause) != 0 {
			b.podChange(s.w.Ref, PodChange{Pod: p.PodKey, Action: ActionDelete, Node: p.node, Cause: cause})
		}
	}
	var chain *link
	var open []*link // of Parallel: what the update waits for
	all := true
	for n := s.first; n < s.first+s.want; n++ {
		made, goesOn := s.keep(n, chain)
		switch {
		case !goesOn && s.ordered:
			return // it is looked at again when that pod has moved
		case !goesOn:
			all = false
		case made == nil:
		case s.ordered:
			chain = made
		default:
			open = append(open, made)
		}
	}
	chain, goesOn := s.scaleDown(chain)
	if all && goesOn {
		s.update(chain, open)
	}
}

// keep has the pod of an ordinal be there. It returns what the next ones come after, nil for nothing new, and whether they
// are planned at all.
func (s *statefulSet) keep(n int, chain *link) (*link, bool) {
	b, p := s.b, s.at[n]
	key := s.key(n)
	if other := b.podAt(key); p == nil && other != nil {
		b.diag(diag.Diagnostic{
			Severity: diag.Error, Code: "owned-elsewhere", Ref: s.w.Ref, Origin: s.w.Origin,
			Message: fmt.Sprintf("a pod of the name %s runs for %s of application %s, so it is not made here", key.Name, other.Owner, other.Application),
			Hint:    "give one of the two another name",
		})
		return nil, false
	}
	switch {
	case p == nil:
		cause := fmt.Sprintf("%s wanted, %d there", podsAre(s.want), s.there())
		id := b.create(s.next(n), cause, s.resolve(chain)...)
		if id == 0 {
			return nil, false
		}
		b.podChange(s.w.Ref, PodChange{Pod: key, Action: ActionCreate, Cause: cause})
		if b.verdicts[s.w.Ref] == same && s.reached(n) {
			b.drift(s.w.Ref, "pod "+key.Name+" is missing", "created again")
		}
		return &link{after: []StepID{id}, key: key, wait: true}, true
	case p.stale || p.Terminating:
		return nil, false // its ordinal is free when it is proven gone
	case p.ended():
		if due := b.replaceAt(p); due.After(b.now) && s.fresh(p) {
			b.wakeAt(due)
			return nil, false
		}
		return s.replace(n, endedCause(p), s.resolve(chain))
	}
	ok, from := p.available(b.now, s.minReady)
	if ok {
		return nil, true
	}
	b.wakeAt(from)
	if !s.fresh(p) && !s.keeps(n) && !p.Ready {
		// It was never going to be ready, or is not any more: it does not hold up what replaces it.
		return s.replace(n, s.cause(p), s.resolve(chain))
	}
	if s.stalled {
		return nil, false // the status says why, and a fix goes on from here
	}
	var after []StepID
	if s.ordered {
		after = s.resolve(chain)
	}
	return &link{after: after, key: key, pod: p, wait: true}, true
}

// reached reports whether the set was rolled out as far as an ordinal: otherwise a pod that is not there is not missing.
func (s *statefulSet) reached(n int) bool {
	for m := range s.at {
		if m > n && s.inRange(m) {
			return true
		}
	}
	return false
}

// there is how many pods of wanted ordinals there are.
func (s *statefulSet) there() int {
	n := 0
	for m := range s.at {
		if s.inRange(m) {
			n++
		}
	}
	return n
}

// replace has a pod of an ordinal be another one: the old one goes first.
func (s *statefulSet) replace(n int, cause string, after []StepID) (*link, bool) {
	b, p := s.b, s.at[n]
	made := s.next(n)
	if p.Ready && b.canCreate {
		after = append(slices.Clip(after), b.pull(made)...) // what serves is not ended for an image that cannot be had
	}
	deleted := b.remove(p, cause, after...)
	if deleted == 0 {
		return nil, false
	}
	id := b.create(made, cause, deleted)
	if id == 0 {
		b.podChange(s.w.Ref, PodChange{Pod: p.PodKey, Action: ActionDelete, Node: p.node, Cause: cause})
		return nil, false
	}
	b.podChange(s.w.Ref, PodChange{Pod: p.PodKey, Replaces: p.PodKey, Action: ActionStopFirst, Node: p.node, Cause: cause, Downtime: p.Ready})
	return &link{after: []StepID{id}, key: p.PodKey, wait: true}, true
}

// scaleDown removes pods that are too many, the highest first.
func (s *statefulSet) scaleDown(chain *link) (*link, bool) {
	b := s.b
	cause := fmt.Sprintf("%s wanted", podsAre(s.want))
	for _, p := range s.condemned {
		if p.Terminating || p.stale {
			if s.ordered {
				return chain, false
			}
			continue
		}
		id := b.remove(p, cause, s.resolve(chain)...)
		if id == 0 {
			return chain, false
		}
		b.podChange(s.w.Ref, PodChange{Pod: p.PodKey, Action: ActionDelete, Node: p.node, Cause: cause})
		if s.ordered {
			chain = &link{after: []StepID{id}}
		}
	}
	return chain, true
}

// update replaces pods of earlier templates, the highest first, so many at a time as may be unavailable. waits are pods that
// are not available yet.
func (s *statefulSet) update(chain *link, waits []*link) {
	if s.onDelete || s.stalled {
		return
	}
	for n := s.first + s.want - 1; n >= max(s.first, s.partition); n-- {
		p := s.at[n]
		if p == nil || p.gone || s.fresh(p) {
			continue
		}
		after := slices.Clone(s.resolve(chain))
		for i := range len(waits) - s.unavailable + 1 {
			after = append(after, s.resolve(waits[i])...)
		}
		ready, goesOn := s.replace(n, s.cause(p), after)
		if !goesOn {
			return
		}
		waits = append(waits, ready)
	}
}

func (s *statefulSet) cause(p *pod) string {
	if s.b.verdicts[s.w.Ref] == forced {
		return s.b.change(s.w.Ref).Cause
	}
	return templateCause(p, s.w)
}

// dropClaims deletes the claims of ordinals that are not wanted any more, where whenScaled asks for it. Those that are needed
// by pods that are not gone yet stay until then.
func (s *statefulSet) dropClaims() {
	if r := s.set.Spec.PersistentVolumeClaimRetentionPolicy; r == nil || r.WhenScaled != appsv1.DeletePersistentVolumeClaimRetentionPolicyType {
		return
	}
	b := s.b
	for _, on := range b.storage.claimsFor(s.w.Ref) {
		n := -1
		for i := range s.set.Spec.VolumeClaimTemplates {
			if rest, ok := strings.CutPrefix(on.Name, s.set.Spec.VolumeClaimTemplates[i].Name+"-"); ok {
				n = max(n, ordinalOf(s.w.Name, rest))
			}
		}
		if n < 0 || s.inRange(n) || b.desiredHas(on.Ref) {
			continue
		}
		if p := s.at[n]; p != nil && !p.gone {
			continue
		}
		cause := fmt.Sprintf("%s wanted, and whenScaled is Delete", podsAre(s.want))
		c := b.change(on.Ref)
		c.Action, c.Cause, c.Owner = ActionDelete, cause, s.w.Ref
		b.dropStorage(on, cause)
	}
}

// claimsFor are the claims that were made for a StatefulSet, sorted.
func (s *storage) claimsFor(owner object.Ref) []*Storage {
	var out []*Storage
	for _, r := range sortedRefs(s.on) {
		if x := s.on[r]; x.Claim != nil && x.Owner == owner {
			out = append(out, x)
		}
	}
	return out
}

// deletesClaims reports whether what was applied of a StatefulSet has its claims deleted with it.
func deletesClaims(written []byte) bool {
	v, _ := parse(written).(map[string]any)
	spec, _ := v["spec"].(map[string]any)
	policy, _ := spec["persistentVolumeClaimRetentionPolicy"].(map[string]any)
	return policy["whenDeleted"] == string(appsv1.DeletePersistentVolumeClaimRetentionPolicyType)
}

func isStatefulSet(r object.Ref) bool { return r.Group == "apps" && r.Kind == "StatefulSet" }

// dropClaimsOf deletes the claims of a StatefulSet that is gone from the source, where whenDeleted asks for it.
func (b *builder) dropClaimsOf(a *Applied) {
	if !isStatefulSet(a.Ref) {
		return
	}
	if !deletesClaims(a.Written) {
		var names []string
		for _, on := range b.storage.claimsFor(a.Ref) {
			names = append(names, on.Name)
		}
		if len(names) > 0 {
			b.diag(diag.Diagnostic{
				Severity: diag.Info, Code: "claims-kept", Ref: a.Ref,
				Message: fmt.Sprintf("it goes, and its claims are kept with what they hold: %s", strings.Join(names, ", ")),
				Hint:    "a StatefulSet of its name takes them again; to delete one, write it into the source as a PersistentVolumeClaim, and then remove it",
			})
		}
		return
	}
	for _, on := range b.storage.claimsFor(a.Ref) {
		if !b.desiredHas(on.Ref) && b.mine(on.Ref, on.Application) {
			cause := fmt.Sprintf("%s is %s, and whenDeleted is Delete", a.Ref, b.changes[a.Ref].Cause)
			c := b.change(on.Ref)
			c.Action, c.Cause, c.Owner = ActionDelete, cause, a.Ref
			b.dropStorage(on, cause)
		}
	}
}

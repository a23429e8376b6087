package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// storage is what the planner knows of classes, volumes and claims.
type storage struct {
	// on is what the node keeps, world what it will keep once this plan is carried out: what is desired is in it.
	on, world map[object.Ref]*Storage
	// taken says which claim has a PersistentVolume.
	taken map[string]object.Ref
	// volumes are the PersistentVolumes of world, sorted, and standard is the name of the class for claims that name none.
	volumes  []*Storage
	standard string
	// wishes are the claims that are written, and pending says of claims why they are not bound.
	wishes  map[object.Ref]wish
	pending map[object.Ref]pending
	// set are the steps that write something down, gone those that delete it.
	set, gone map[object.Ref]StepID
	// users are the pods of this plan that use a claim that only one pod may use.
	users map[object.Ref][]PodKey
}

// indexStorage sorts what the node keeps.
func (b *builder) indexStorage() {
	s := &b.storage
	s.on, s.world, s.taken = map[object.Ref]*Storage{}, map[object.Ref]*Storage{}, map[string]object.Ref{}
	s.wishes, s.pending = map[object.Ref]wish{}, map[object.Ref]pending{}
	s.set, s.gone, s.users = map[object.Ref]StepID{}, map[object.Ref]StepID{}, map[object.Ref][]PodKey{}
	if home := b.nodes[b.opt.Node]; home != nil {
		for _, x := range home.Storage {
			if x != nil && x.Whole() {
				s.on[x.Ref] = x
			}
		}
	}
	maps.Copy(s.world, s.on)
	for _, r := range sortedRefs(s.on) {
		if c := s.on[r].Claim; c != nil {
			s.taken[c.Volume] = r
		}
	}
}

// placeStorage decides what is bound to what.
func (b *builder) placeStorage() {
	s := &b.storage
	for i := range b.desired.Objects {
		o := &b.desired.Objects[i]
		if !b.wantsStorage(o) {
			continue
		}
		if want, ok := storageOf(b.desired.Application.Name, o); ok {
			have := s.on[o.Ref]
			want.Created = b.now
			if have != nil {
				want.Created = have.Created
			}
			if want.Volume != nil && have != nil && have.Volume != nil {
				want.Volume.Released = have.Volume.Released
				if have.Volume.Provisioned { // it says where the data is, whatever is written
					v := *want.Volume
					v.Source, v.Provisioned, v.Class = have.Volume.Source, true, have.Volume.Class
					want.Volume = &v
				}
			}
			s.world[o.Ref] = want
		}
	}
	s.standard = DefaultClass
	for _, r := range slices.Backward(sortedRefs(s.world)) {
		switch x := s.world[r]; {
		case x.Volume != nil:
			s.volumes = append(s.volumes, x)
		case x.Class != nil && x.Class.Default:
			s.standard = r.Name // the first by name in the end
		}
	}
	slices.Reverse(s.volumes)
	for i := range b.desired.Objects { // when all volumes are known
		o := &b.desired.Objects[i]
		if v, ok := o.Value.(*corev1.PersistentVolumeClaim); ok && v != nil && b.wantsStorage(o) {
			w := wish{ref: o.Ref, labels: v.Labels, annotations: v.Annotations, spec: &v.Spec}
			s.wishes[o.Ref] = w
			b.wish(w)
		}
	}
}

// wantsStorage reports whether an object of storage is to be as it is desired.
func (b *builder) wantsStorage(o *object.Object) bool {
	return isStorage(o.Ref) && b.verdicts[o.Ref] != left && !b.orderOf(o.Ref).Skip
}

// wish binds a claim, or notes why it cannot be bound.
func (b *builder) wish(w wish) {
	s := &b.storage
	got, why := b.bind(w)
	if got == nil {
		s.pending[w.ref] = why
		return
	}
	s.world[w.ref] = got
	s.taken[got.Claim.Volume] = w.ref
}

// setStorage writes down the classes, volumes and claims of the current stage.
func (b *builder) setStorage() {
	s := &b.storage
	if len(s.world) == 0 && len(s.pending) == 0 {
		return
	}
	order := func(r object.Ref) int {
		return slices.Index([]string{"StorageClass", "PersistentVolume", "PersistentVolumeClaim"}, r.Kind)
	}
	var refs []object.Ref
	for i := range b.desired.Objects {
		if r := b.desired.Objects[i].Ref; isStorage(r) && b.in(r) {
			refs = append(refs, r)
		}
	}
	slices.SortStableFunc(refs, func(x, y object.Ref) int { return cmp.Compare(order(x), order(y)) })
	for _, r := range refs {
		b.under(b.waits(r), func() { b.setOne(r) })
	}
	for _, r := range refs {
		if r.Kind == "PersistentVolumeClaim" {
			b.status(b.claimStatus(r))
			if b.waits(r) {
				b.showWaiting(len(b.plan.Status) - 1)
			}
		}
	}
}

// setOne writes down one object, when the node has it otherwise.
func (b *builder) setOne(r object.Ref) {
	s := &b.storage
	want, have := s.world[r], s.on[r]
	if p, waits := s.pending[r]; waits && b.verdicts[r] != left {
		o := b.desiredObject(r)
		b.diag(diag.Diagnostic{
			Severity: diag.Warning, Code: "claim-pending", Ref: r, Origin: o.Origin, Field: "spec",
			Message: "the claim is Pending, and pods that use it do not start: " + p.why, Hint: p.hint,
		})
		return
	}
	if want == nil || want == have || b.verdicts[r] == left {
		return
	}
	b.checkGrown(r)
	if have != nil && !b.mine(r, have.Application) && have.Application != "" {
		b.diag(diag.Diagnostic{
			Severity: diag.Error, Code: "owned-elsewhere", Ref: r, Origin: b.desiredObject(r).Origin,
			Message: fmt.Sprintf("application %s has one of this name, so application %s leaves it alone", have.Application, b.desired.Application.Name),
			Hint:    "give it another name, or remove it from one of the two",
		})
		delete(b.changes, r)
		return
	}
	b.put(want, "")
}

// put adds the step that writes something down, when the node has it otherwise.
func (b *builder) put(want *Storage, cause string, after ...StepID) StepID {
	s := &b.storage
	have := s.on[want.Ref]
	if have != nil && sameStorage(want, have) {
		return 0
	}
	if !b.canCreate {
		return 0
	}
	switch c := b.changes[want.Ref]; {
	case cause != "":
	case c != nil:
		if c.Action == ActionCreate && have != nil {
			c.Action, c.Cause = ActionUpdate, "taken over: it is not in the inventory, but the node keeps it"
		}
		cause = c.Cause
	case have == nil:
		cause = "the node does not keep it"
		if want.Claim != nil && b.verdicts[want.Ref] == same {
			cause = "it can be bound now"
		}
		b.change(want.Ref).Cause = cause
		b.changes[want.Ref].Action = ActionUpdate
		b.plan.Unchanged--
	default:
		cause = "the node keeps it otherwise"
		b.change(want.Ref).Cause = cause
		b.changes[want.Ref].Action = ActionUpdate
		b.plan.Unchanged--
	}
	if c := b.changes[want.Ref]; c != nil && want.Claim != nil && have == nil {
		cause = c.Cause
		c.Cause += fmt.Sprintf("; bound to PersistentVolume %s, %s", want.Claim.Volume, want.Claim.Source)
	}
	if want.Claim != nil {
		if id := s.set[VolumeRef(want.Claim.Volume)]; id != 0 {
			after = append(after, id)
		}
	}
	id := b.step(Step{Op: OpSetStorage, Node: b.opt.Node, Target: want.Ref, Cause: cause, Args: SetStorage{Storage: want}}, after)
	if id != 0 {
		s.set[want.Ref] = id
	}
	return id
}

// checkGrown says of a claim that it cannot grow, or shrink.
func (b *builder) checkGrown(r object.Ref) {
	w, is := b.storage.wishes[r]
	have := b.storage.on[r]
	if !is || have == nil || have.Claim == nil {
		return
	}
	b.grown(w, b.desiredObject(r).Origin, r)
}

// grown reports what of a claim's size cannot be had. about is the object whose line is at fault.
func (b *builder) grown(w wish, origin object.Origin, about object.Ref) {
	c := b.storage.world[w.ref].Claim
	q := w.spec.Resources.Requests[corev1.ResourceStorage]
	n := q.Value()
	d := diag.Diagnostic{Severity: diag.Warning, Code: "claim-size", Ref: about, Origin: origin, Field: "spec.resources.requests.storage"}
	switch {
	case n > c.Request && !c.Provisioned:
		d.Message = fmt.Sprintf("claim %s stays at %s: PersistentVolume %s has %s", key(w.ref), Quantity(c.Request), c.Volume, Quantity(c.Capacity))
		d.Hint = "write what the volume really has into its capacity"
	case n > c.Request:
		d.Message = fmt.Sprintf("claim %s stays at %s: StorageClass %s does not allow its claims to grow", key(w.ref), Quantity(c.Request), c.Class)
		d.Hint = "write allowVolumeExpansion: true into the StorageClass"
	case n < c.Request:
		d.Message = fmt.Sprintf("claim %s stays at %s: claims never shrink", key(w.ref), Quantity(c.Request))
		d.Hint = "write the size that it has"
	default:
		return
	}
	b.diag(d)
}

func (b *builder) desiredObject(r object.Ref) object.Object {
	i, ok := slices.BinarySearchFunc(b.desired.Objects, r, func(o object.Object, r object.Ref) int { return object.Compare(o.Ref, r) })
	if !ok {
		return object.Object{Ref: r}
	}
	return b.desired.Objects[i]
}

// claimStatus sums up a claim that is written.
func (b *builder) claimStatus(r object.Ref) WorkloadStatus {
	s := WorkloadStatus{Ref: r, Desired: 1, Health: "Progressing", Reason: "Pending"}
	p, waits := b.storage.pending[r]
	have := b.storage.on[r]
	switch {
	case b.isHeld(r):
		s.Health, s.Reason, s.Message = "Suspended", "Suspended", "it is suspended "+b.holding[r].Suspension.String()
	case b.verdicts[r] == left:
		s.Health, s.Reason, s.Message = "Degraded", "NotApplied", "what is in the source is not applied"
	case waits:
		s.Message = p.why
	case have != nil:
		s.Current, s.Updated, s.Ready, s.Available = 1, 1, 1, 1
		s.Health, s.Reason = "Healthy", "Bound"
	case !b.canCreate:
		s.Message = fmt.Sprintf("node %s does not answer", b.opt.Node)
	default:
		s.Message = "it is not bound yet"
	}
	return s
}

// claimWait says why a pod with these claims cannot start: one of them is not bound and will not be by this plan; empty
// when it can.
func (b *builder) claimWait(namespace string, spec *corev1.PodSpec) string {
	s := &b.storage
	for _, r := range claimsOf(namespace, spec) {
		if s.gone[r] != 0 {
			return fmt.Sprintf("claim %s is deleted", r.Name)
		}
		if p, waits := s.pending[r]; waits {
			return fmt.Sprintf("claim %s is Pending: %s", r.Name, p.why)
		}
		if x := s.world[r]; x == nil || x.Claim == nil {
			return fmt.Sprintf("PersistentVolumeClaim %s does not exist", r.Name)
		}
	}
	return ""
}

// oncePod is the access mode with which only one pod may use a claim.
const oncePod = string(corev1.ReadWriteOncePod)

// afterClaims are the steps that a pod comes after because of its claims; false when it cannot be created now, because a
// claim is not bound, or another pod has one that only one pod may use.
func (b *builder) afterClaims(p *Pod) (after []StepID, ok bool) {
	s := &b.storage
	for _, r := range claimsOf(p.Namespace, p.Spec) {
		x := s.world[r]
		if x == nil || x.Claim == nil || s.gone[r] != 0 {
			return nil, false
		}
		if id := s.set[r]; id != 0 && (b.gate != 0 || !b.behind[id]) {
			after = append(after, id)
		}
		if !slices.Contains(x.Claim.Modes, oncePod) {
			continue
		}
		if other := slices.IndexFunc(s.users[r], func(k PodKey) bool { return k != p.PodKey }); other >= 0 {
			b.onlyOne(p, r, s.users[r][other])
			return nil, false
		}
		for i := range b.all {
			u := &b.all[i]
			if u.PodKey == p.PodKey && u.gone || u.Namespace != p.Namespace || u.ended() && !u.Terminating || !UsesClaim(u.Namespace, u.Spec, r) {
				continue
			}
			if !u.gone {
				b.onlyOne(p, r, u.PodKey)
				return nil, false
			}
			after = append(after, u.removal)
		}
	}
	return after, true
}

// onlyOne says that a pod waits for another one that has its claim for itself.
func (b *builder) onlyOne(p *Pod, claim object.Ref, other PodKey) {
	w := b.desiredObject(p.Owner)
	message := fmt.Sprintf("a pod waits: claim %s has the access mode ReadWriteOncePod, and pod %s uses it", claim.Name, other.Name)
	if slices.ContainsFunc(b.plan.Diags, func(d diag.Diagnostic) bool { return d.Ref == p.Owner && d.Code == "claim-in-use" }) {
		return
	}
	b.diag(diag.Diagnostic{
		Severity: diag.Warning, Code: "claim-in-use", Ref: p.Owner, Origin: w.Origin, Message: message,
		Hint: "have one replica, and let a Deployment use the strategy Recreate",
	})
}

// uses notes that a pod of this plan uses its claims.
func (b *builder) uses(p *Pod) {
	for _, r := range claimsOf(p.Namespace, p.Spec) {
		b.storage.users[r] = append(b.storage.users[r], p.PodKey)
	}
}

// waitForClaims leaves a workload as it is because its pods could not start. It reports whether it does.
func (b *builder) waitForClaims(w *Workload, pods []*pod) bool {
	if len(w.Pod.Spec.Volumes) == 0 || replicasOf(w.Value) == 0 {
		return false
	}
	switch a := b.appliedOf(w.Ref); {
	case w.Kind == "Job" && (len(pods) > 0 || a != nil && !a.Finished.IsZero()),
		w.Kind == "Pod" && slices.ContainsFunc(pods, (*pod).ended):
		return false // what has run needs it no more, and what runs has it
	}
	why := b.claimWait(w.Namespace, w.Pod.Spec)
	if why == "" {
		return false
	}
	s := WorkloadStatus{Ref: w.Ref, Desired: int(replicasOf(w.Value)), Health: "Progressing", Reason: "ClaimNotBound", Message: why + "; no pod is started or replaced until it is bound"}
	for _, p := range pods {
		if !p.active() {
			continue
		}
		s.Current++
		if p.Template == w.Pod.Template {
			s.Updated++
		}
		if p.Ready {
			s.Ready++
			s.Available++
		}
	}
	if strings.HasSuffix(why, "does not exist") {
		b.diag(diag.Diagnostic{
			Severity: diag.Warning, Code: "missing-claim", Ref: w.Ref, Origin: w.Origin, Field: specPath(w) + "volumes",
			Message: why + ": its pods wait until it does", Hint: "add it to the source",
		})
	}
	b.status(s)
	return true
}

// pruneStorage deletes what the node keeps of objects of the current stage that are gone from the source. What is in use
// stays until nobody uses it any more.
func (b *builder) pruneStorage() {
	s := &b.storage
	var refs []object.Ref
	for _, r := range sortedRefs(s.on) {
		c := b.changes[r]
		if c == nil || c.Action != ActionDelete || !b.in(r) || b.desiredHas(r) || s.gone[r] != 0 {
			continue
		}
		refs = append(refs, r)
	}
	// A claim goes before the volume that it is bound to.
	slices.SortStableFunc(refs, func(x, y object.Ref) int { return -strings.Compare(x.Kind, y.Kind) })
	for _, r := range refs {
		on := s.on[r]
		if !b.mine(r, on.Application) && on.Application != "" {
			continue
		}
		b.under(true, func() { b.dropStorage(on, r.String()+" is "+b.changes[r].Cause) })
	}
}

// dropStorage deletes what the node keeps of one object, or says why it cannot yet.
func (b *builder) dropStorage(on *Storage, cause string) StepID {
	s := &b.storage
	r := on.Ref
	if on.Volume != nil {
		if claim := s.taken[r.Name]; claim != (object.Ref{}) && s.gone[claim] == 0 {
			b.inUse(r, fmt.Sprintf("claim %s is bound to it", key(claim)))
			return 0
		}
	}
	var after []StepID
	if on.Claim != nil {
		for i := range b.all {
			p := &b.all[i]
			if p.Namespace != r.Namespace || !UsesClaim(p.Namespace, p.Spec, r) {
				continue
			}
			if !p.gone && p.Terminating {
				b.remove(p, "what it uses goes after it: "+r.String())
			}
			if !p.gone {
				b.inUse(r, fmt.Sprintf("pod %s uses it", p.Name))
				return 0
			}
			after = append(after, p.removal)
		}
		if users := s.users[r]; len(users) > 0 {
			b.inUse(r, fmt.Sprintf("pod %s uses it", users[0].Name))
			return 0
		}
	}
	if id := s.gone[s.taken[r.Name]]; on.Volume != nil && id != 0 {
		after = append(after, id)
	}
	home := b.nodes[b.opt.Node]
	if home == nil || home.Stale {
		return 0
	}
	id := b.step(Step{Op: OpDeleteStorage, Node: b.opt.Node, Target: r, Cause: cause,
		Args: DeleteStorage{Storage: r, Application: on.Application, Keep: on.Claim != nil && on.Claim.Reclaim == Retain}}, after)
	if id != 0 {
		s.gone[r] = id
		if c := b.changes[r]; c != nil && on.Claim != nil {
			switch {
			case on.Claim.Reclaim == Retain && on.Claim.Provisioned:
				c.Cause += "; what it holds is kept as PersistentVolume " + on.Claim.Volume
			case on.Claim.Reclaim == Retain:
				c.Cause += fmt.Sprintf("; what it holds stays in PersistentVolume %s", on.Claim.Volume)
			default:
				c.Cause += "; what it holds is deleted: " + on.Claim.Source.String()
			}
		}
	}
	return id
}

// inUse keeps an object of storage that is gone from the source and used.
func (b *builder) inUse(r object.Ref, why string) {
	delete(b.changes, r)
	b.diag(diag.Diagnostic{
		Severity: diag.Info, Code: "in-use", Ref: r,
		Message: "it is gone from the source and kept as long as it is used: " + why, Hint: "remove what uses it too",
	})
}

// storageBasis adds what the node keeps to what identifies the observed state.
func (b *builder) storageBasis(put func(...string)) {
	for _, r := range sortedRefs(b.storage.on) {
		x := b.storage.on[r]
		switch {
		case x.Claim != nil:
			put("claimed", r.Namespace, r.Name, x.Application, x.Claim.Volume, fmt.Sprint(x.Claim.Request))
		case x.Volume != nil:
			put("volume", r.Name, x.Application, x.Volume.Released.String(), fmt.Sprint(x.Volume.Capacity))
		case x.Class != nil:
			put("class", r.Name, x.Application)
		}
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// fixedOfStorage returns a field of a claim or a volume that cannot be changed because a claim is bound, and what to do.
// Nothing of this is ever replaced by force: the data would be lost.
func (b *builder) fixedOfStorage(o *object.Object, fields []FieldChange) (what, hint string) {
	if !isVolume(o.Ref) {
		return "", ""
	}
	home := b.nodes[b.opt.Node]
	if home == nil {
		return "", ""
	}
	at := slices.IndexFunc(home.Storage, func(x *Storage) bool {
		return x != nil && x.Claim != nil && (x.Ref == o.Ref || x.Claim.Volume == o.Name && o.Kind == "PersistentVolume")
	})
	if at < 0 {
		return "", "" // nothing is bound yet
	}
	bound := home.Storage[at].Claim
	for _, f := range fields {
		switch {
		case o.Kind == "PersistentVolume" && below(f.Path, "spec.hostPath", "spec.local", "spec.nfs", "spec.volumeMode"):
			return f.Path, "make a PersistentVolume of another name, and a claim that names it"
		case o.Kind != "PersistentVolumeClaim" || !below(f.Path, "spec") || below(f.Path, "spec.resources"):
		case f.Path == "spec.volumeName" && f.New == `"`+bound.Volume+`"`:
		case f.Path == "spec.storageClassName" && f.New == `"`+bound.Class+`"`:
		default:
			return f.Path, "make a claim of another name, and copy what this one holds"
		}
	}
	return "", ""
}

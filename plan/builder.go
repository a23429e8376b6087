package plan

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// builder collects one plan. Compute makes it, has it index what was observed, and calls the planner of
// every workload's family:
//
//	func planJob(b *builder, w *Workload, pods []*pod)
//
// A planner gets the workload and all observed pods that it owns (of this application, terminating ones
// included, sorted by key). It reads b.now, b.desired and b.appliedOf, and puts out what is to happen
// through the methods below. Every step method returns the ID of its step, to be named in After of a later
// step. A method that would touch a node that does not answer does nothing and returns 0; 0 in After
// means that the step can never be taken, so what comes after it is left out too. A planner calls status
// exactly once, and wakeAt for every moment at which it would decide something else without anything happening.
type builder struct {
	desired Desired
	opt     Options
	now     time.Time
	since   time.Time // as in Observed

	nodes     map[NodeID]*NodeState
	canCreate bool // the node that pods run on answers
	anyStale  bool // some node does not answer

	all       []pod
	byKey     map[PodKey]*pod       // made when first asked for, see podAt
	byOwner   map[object.Ref][]*pod // only pods of this application
	inventory []Applied             // sorted, with what arrives as its old application had it

	// As in Observed.
	claims     map[object.Ref]string
	arrivals   map[object.Ref]Arrival
	departures map[object.Ref]Departure
	unsettled  string
	suspended  map[object.Ref]Suspension
	// holding are the suspensions that this plan respects.
	holding map[object.Ref]SuspendedObject

	// verdicts hold what is not same.
	verdicts map[object.Ref]verdict
	// held reports whether the deletion of what is gone waits for an approval; nil when nothing does.
	held func(object.Ref) bool

	steps   []Step
	pulls   map[pullKey]StepID
	changes map[object.Ref]*Change
	names   map[PodKey]bool // names given to pods of this plan
	wanted  int             // pods of the Deployments and ReplicaSets that were planned
	plan    Plan

	services services
	storage  storage
	staging  staging
	// recordedSync is the sync as it was observed.
	recordedSync *SyncState
	// gate is a step that every other one comes after; 0 for none. behind are the steps that come after such a one.
	gate   StepID
	behind map[StepID]bool
}

// pod is an observed pod and where it is.
type pod struct {
	*ObservedPod
	node  NodeID
	stale bool
	// ours: it is this application's, also where it was made under another one.
	ours bool
	// moves is the step that makes it one of this application; 0 when it is already.
	moves StepID
	// gone is set once this plan deletes the pod, by the step removal.
	gone    bool
	removal StepID
}

// active reports whether the pod runs or is going to: it has not ended and was not told to stop.
func (p *pod) active() bool {
	return !p.Terminating && !p.ended()
}

// ended reports whether all containers of the pod ended for good.
func (p *pod) ended() bool { return p.Phase == "Succeeded" || p.Phase == "Failed" }

// available reports whether the pod is ready for at least minReady. Where it is ready but not long enough,
// from is when it will be.
func (p *pod) available(now time.Time, minReady time.Duration) (ok bool, from time.Time) {
	if !p.Ready || !p.active() {
		return false, time.Time{}
	}
	from = p.ReadySince.Add(minReady)
	if minReady <= 0 || !from.After(now) {
		return true, time.Time{}
	}
	return false, from
}

type pullKey struct {
	node   NodeID
	image  string
	always bool
	gate   StepID
}

func newBuilder(d Desired, o Observed, opt Options) *builder {
	b := &builder{
		desired: d, opt: opt, now: o.Now, since: o.Since,
		nodes: make(map[NodeID]*NodeState, len(o.Nodes)),
		pulls: map[pullKey]StepID{}, changes: map[object.Ref]*Change{}, names: map[PodKey]bool{},
		verdicts: map[object.Ref]verdict{}, behind: map[StepID]bool{}, recordedSync: o.Sync,
		claims: o.Claims, arrivals: o.Arrivals, departures: o.Departures, unsettled: o.Unsettled, suspended: o.Suspended,
		plan: Plan{Application: d.Application},
	}
	n := 0
	for i := range o.Nodes {
		n += len(o.Nodes[i].Pods)
	}
	b.byOwner = make(map[object.Ref][]*pod, len(d.Workloads))
	pods := make([]pod, 0, n)
	nodes := sortedBy(o.Nodes, func(x, y *NodeState) int { return cmp.Compare(x.Node, y.Node) })
	for i := range nodes {
		node := &nodes[i]
		b.nodes[node.Node] = node
		b.anyStale = b.anyStale || node.Stale
		observed := sortedBy(node.Pods, comparePods)
		for j := range observed {
			pods = append(pods, pod{ObservedPod: &observed[j], node: node.Node, stale: node.Stale})
		}
	}
	var namespaces []string
	for i := range d.Workloads {
		if ns := d.Workloads[i].Namespace; !slices.Contains(namespaces, ns) {
			namespaces = append(namespaces, ns)
		}
	}
	for i := range pods {
		p := &pods[i]
		if p.ours = b.owns(p.ObservedPod, namespaces); p.ours {
			b.byOwner[p.Owner] = append(b.byOwner[p.Owner], p)
		}
	}
	b.all = pods
	home := b.nodes[opt.Node]
	b.canCreate = home != nil && !home.Stale
	b.inventory = sortedBy(withArrivals(o.Applied, o.Arrivals), compareApplied)
	b.indexServices()
	b.indexStorage()
	return b
}

// podAt returns the pod of that name, of whatever application; this application's where there are two.
func (b *builder) podAt(key PodKey) *pod {
	if b.byKey == nil {
		b.byKey = make(map[PodKey]*pod, len(b.all))
		for i := range b.all {
			p := &b.all[i]
			if have := b.byKey[p.PodKey]; have == nil || !have.ours {
				b.byKey[p.PodKey] = p
			}
		}
	}
	return b.byKey[key]
}

// sortedBy returns s when it is sorted and a sorted copy otherwise.
func sortedBy[T any](s []T, compare func(a, b *T) int) []T {
	for i := 1; i < len(s); i++ {
		if compare(&s[i-1], &s[i]) > 0 {
			s = slices.Clone(s)
			slices.SortStableFunc(s, func(a, b T) int { return compare(&a, &b) })
			break
		}
	}
	return s
}

func compareApplied(a, b *Applied) int {
	if c := object.Compare(a.Ref, b.Ref); c != 0 {
		return c
	}
	return cmp.Compare(a.Hash, b.Hash)
}

func comparePods(a, b *ObservedPod) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
}

// appliedOf returns the object's entry in the inventory, or nil.
func (b *builder) appliedOf(r object.Ref) *Applied {
	i, ok := slices.BinarySearchFunc(b.inventory, r, func(a Applied, r object.Ref) int { return object.Compare(a.Ref, r) })
	if !ok {
		return nil
	}
	return &b.inventory[i]
}

// step adds a step after others and returns its ID, or 0 when it cannot be taken.
func (b *builder) step(s Step, after []StepID) StepID {
	behind := b.gate != 0
	for _, id := range after {
		if id == 0 {
			return 0
		}
		if !slices.Contains(s.After, id) {
			s.After = append(s.After, id)
		}
		behind = behind || b.behind[id]
	}
	if b.gate != 0 && !slices.Contains(s.After, b.gate) {
		s.After = append(s.After, b.gate)
	}
	slices.Sort(s.After)
	s.ID = StepID(len(b.steps) + 1)
	if behind {
		b.behind[s.ID] = true
	}
	b.steps = append(b.steps, s)
	return s.ID
}

// create pulls the pod's images and creates it on the node that pods run on. A pod that follows nothing is
// created at once: its node pulls what it needs, and shows in the pod's status why that does not succeed. One
// that takes the place of others waits, so that those are not ended for an image that cannot be had.
func (b *builder) create(p *Pod, cause string, after ...StepID) StepID {
	if !b.canCreate || slices.Contains(after, 0) {
		return 0
	}
	claims, ok := b.afterClaims(p)
	if !ok {
		return 0
	}
	b.uses(p)
	b.names[p.PodKey] = true
	pulls := b.pull(p)
	if len(after) == 0 {
		pulls = nil
	}
	after = append(slices.Clip(after), claims...)
	// Its environment and the names that it asks for come from Services.
	for _, id := range b.services.first[p.Namespace] {
		if b.gate != 0 || !b.behind[id] { // what waits for no stage does not wait for a Service that does
			pulls = append(pulls, id)
		}
	}
	return b.step(Step{Op: OpCreatePod, Node: b.opt.Node, Target: p.Ref(), Cause: cause, Args: CreatePod{Pod: p}}, append(pulls, after...))
}

// waitReady waits until a pod on the node that pods run on, or op where that is set, is ready.
func (b *builder) waitReady(key PodKey, op *pod, minReady time.Duration, deadline time.Time, cause string, after ...StepID) StepID {
	node := b.opt.Node
	if op != nil {
		node = op.node
		if op.stale {
			return 0
		}
	}
	return b.step(Step{Op: OpWaitReady, Node: node, Target: key.Ref(), Cause: cause,
		Args: WaitReady{Pod: key, MinReady: minReady, Deadline: deadline}}, after)
}

// update changes a running pod in place to what p says.
func (b *builder) update(op *pod, p *Pod, changes []string, cause string, after ...StepID) StepID {
	if op.stale || op.Terminating {
		return 0
	}
	return b.step(Step{Op: OpUpdatePod, Node: op.node, Target: p.Ref(), Cause: cause, Args: UpdatePod{Pod: p, Changes: changes}}, afterMove(op, after))
}

// remove stops and removes an observed pod of this application.
func (b *builder) remove(op *pod, cause string, after ...StepID) StepID {
	if op.stale || op.gone || !op.ours {
		return 0
	}
	id := b.step(Step{Op: OpDeletePod, Node: op.node, Target: op.Ref(), Cause: cause,
		Args: DeletePod{Pod: op.PodKey, UID: op.UID, Application: b.desired.Application.Name}}, afterMove(op, after))
	op.gone, op.removal = id != 0, id
	return id
}

// podChange shows what happens to a pod of the object w; it adds no step.
func (b *builder) podChange(w object.Ref, c PodChange) {
	if c.Node == "" {
		c.Node = b.opt.Node
	}
	ch := b.change(w)
	ch.Pods = append(ch.Pods, c)
}

// change returns the object's entry in the plan, which says that nothing happens to it until set otherwise.
func (b *builder) change(r object.Ref) *Change {
	c := b.changes[r]
	if c == nil {
		c = &Change{Ref: r, Action: ActionNone}
		b.changes[r] = c
	}
	return c
}

// drift reports that what runs is not what was applied.
func (b *builder) drift(r object.Ref, message, healed string) {
	b.drifted(Drift{Ref: r, Message: message, Healed: healed})
}

// drifted is drift where more is known.
func (b *builder) drifted(d Drift) {
	if d.By == "" {
		d.By = ByUnknown
	}
	b.plan.Drift = append(b.plan.Drift, d)
}

func (b *builder) status(s WorkloadStatus) { b.plan.Status = append(b.plan.Status, s) }

func (b *builder) diag(d diag.Diagnostic) { b.plan.Diags = append(b.plan.Diags, d) }

// wakeAt has the plan computed again at t, when that is to come.
func (b *builder) wakeAt(t time.Time) {
	if t.After(b.now) && (b.plan.Wake.IsZero() || t.Before(b.plan.Wake)) {
		b.plan.Wake = t
	}
}

// maxBase is the longest part of a pod's name before the suffix, as in Kubernetes, so that the name is a host name.
const maxBase = 58

// nameSet gives out the names of one workload's new pods: base, a hyphen and five characters that follow
// from the seed and the first number whose name is not in use.
type nameSet struct {
	b               *builder
	namespace, base string
	seed            string
	next            int
}

func (b *builder) newNames(namespace, base, seed string) *nameSet {
	if len(base) > maxBase-1 {
		base = base[:maxBase-1]
	}
	return &nameSet{b: b, namespace: namespace, base: base, seed: seed}
}

// take returns a name that no pod has.
func (n *nameSet) take() PodKey {
	for {
		key := PodKey{Namespace: n.namespace, Name: n.base + "-" + suffix(n.seed+"/"+n.base+"/"+strconv.Itoa(n.next))}
		n.next++
		if n.b.podAt(key) == nil && !n.b.names[key] {
			n.b.names[key] = true
			return key
		}
	}
}

// suffix returns five characters of Kubernetes' alphabet for generated names, which has no vowels.
func suffix(of string) string {
	const alphabet = "bcdfghjklmnpqrstvwxz2456789"
	var h uint64 = 14695981039346656037 // FNV-1a
	for i := range len(of) {
		h = (h ^ uint64(of[i])) * 1099511628211
	}
	h ^= h >> 29
	var out [5]byte
	for i := range out {
		out[i] = alphabet[h%uint64(len(alphabet))]
		h /= uint64(len(alphabet))
	}
	return string(out[:])
}

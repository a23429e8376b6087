// Package schedule decides on which node a pod runs.
//
// A Board holds the nodes and what is on them. Place looks for the best node for one pod and puts it there; the Decision
// says where, or why nowhere, in words. Everything is a function of values: the same nodes and the same pods in the same
// order always give the same places, and among equal nodes the one with the lower name wins.
//
//	pod ──▶ class (what pods of one template have in common)
//	          │  filters that look at the node alone: labels, taints, names   computed once a class
//	          │  filters that look at what is on it: resources, ports          kept up to date from the log of changes
//	          │  filters that look at other nodes too: spread, pod affinity    counted a topology domain
//	          ▼
//	        scores ──▶ the best node
//
// Pods of one template are the same to every filter and scorer, so what was computed for one holds for the next. A class
// keeps the score of every node, and reads from the Board's log which nodes have changed since it was asked last. A
// class that other nodes do not matter to keeps its nodes in heaps too, one a zone. So the cost of a place grows with
// what has changed, and no node is ever left out: the answer is that of a scan of all nodes.
//
// Matching of labels, taints and affinity, and the sum of a pod's requests, are Kubernetes' own code.
package schedule

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
)

// Profile is what makes one node better than another.
type Profile string

// The profiles.
const (
	// Balanced fills nodes evenly, and keeps the pods of one workload apart.
	Balanced Profile = "balanced"
	// Packed fills one node before the next.
	Packed Profile = "packed"
)

// Node is a machine that pods can be placed on.
type Node struct {
	ID     plan.NodeID
	Labels map[string]string
	Taints []corev1.Taint
	// Unschedulable is true for a node that is cordoned.
	Unschedulable bool
	// Allocatable is what pods may request in all. A resource that is missing is one that the node does not have; without
	// "pods" their number is not limited.
	Allocatable corev1.ResourceList
	// Images are the images that the node has, by every name they have, with their size in bytes.
	Images map[string]int64
}

// Budget is a PodDisruptionBudget: of the pods that it selects, Allowed may be evicted.
type Budget struct {
	Namespace string
	Selects   func(labels map[string]string) bool
	Allowed   int
}

// Options are what a Board needs to know beside nodes and pods.
type Options struct {
	// Profile is Balanced when it is empty.
	Profile Profile
	// Namespaces are the labels of namespaces, for terms of pod affinity that select by them.
	Namespaces map[string]map[string]string
	// Budgets are what preemption respects as long as there is another way.
	Budgets []Budget
}

// Decision is what became of one pod.
type Decision struct {
	Pod plan.PodKey
	// Node is where it was placed; empty when nowhere.
	Node plan.NodeID
	// Score is the node's, from 0 to 1000 for each scorer, by weight; it says something only beside scores of the same pod.
	Score int
	// Nodes is the number of nodes there are. Why says for which reason how many of them do not fit; only for a pod that
	// was not placed. The numbers add up to Nodes, unless the pod waits for its scheduling gates.
	Nodes int
	Why   []Reason
	// Evicts are the pods of lower priority that have to go first, sorted; they are on the Board no more.
	Evicts []plan.PodKey
}

// Board is the nodes and what is on them. It is not safe for concurrent use.
type Board struct {
	opt       Options
	nodes     []node // sorted by ID
	index     map[plan.NodeID]int32
	resources resources
	topology  map[string]*topology // by label key
	zones     *topology

	classes  map[classKey]*class
	order    []*class // in the order in which they came
	owners   map[ownerKey]*owner
	counters map[string]*counter
	held     []*class // classes with a table of scores, the one that was used last at the end

	pods  []placed
	free  []int32 // of pods
	byKey map[plan.PodKey]int32

	log     []int32 // nodes in the order of their changes
	logBase int     // number of changes before log[0]
}

// placed is a pod that is on a node.
type placed struct {
	key      plan.PodKey
	class    *class
	node     int32
	priority int32
	leaving  bool
}

// New makes a Board of nodes without pods. Nodes with the name of another are left out.
func New(nodes []Node, opt Options) *Board {
	if opt.Profile == "" {
		opt.Profile = Balanced
	}
	sorted := slices.Clone(nodes)
	slices.SortStableFunc(sorted, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	sorted = slices.CompactFunc(sorted, func(a, b Node) bool { return a.ID == b.ID })
	b := &Board{
		opt: opt, index: make(map[plan.NodeID]int32, len(sorted)),
		topology: map[string]*topology{}, classes: map[classKey]*class{}, owners: map[ownerKey]*owner{}, counters: map[string]*counter{},
		byKey: map[plan.PodKey]int32{},
	}
	for i, n := range sorted {
		b.index[n.ID] = int32(i)
		b.nodes = append(b.nodes, newNode(n))
	}
	b.resources = newResources(sorted)
	b.zones = b.topologyOf(corev1.LabelTopologyZone)
	return b
}

// Add puts a pod on a node where it is already, whether it fits there or not; it reports false when there is no such
// node, or the pod is on the Board. A pod that is leaving takes room, and counts for nothing else.
func (b *Board) Add(on plan.NodeID, p *plan.Pod, leaving bool) bool {
	i, known := b.index[on]
	if !known {
		return false
	}
	if _, there := b.byKey[p.PodKey]; there {
		return false
	}
	b.put(p.PodKey, b.classOf(p), i, leaving)
	return true
}

// Remove takes a pod away; it reports false when it is not on the Board.
func (b *Board) Remove(key plan.PodKey) bool {
	at, there := b.byKey[key]
	if there {
		b.take(at)
	}
	return there
}

// On returns where a pod is; empty when it is not on the Board.
func (b *Board) On(key plan.PodKey) plan.NodeID {
	if at, there := b.byKey[key]; there {
		return b.nodes[b.pods[at].node].id
	}
	return ""
}

// Place puts a pod on the best node, if it fits anywhere. A pod that is on the Board stays where it is.
func (b *Board) Place(p *plan.Pod) Decision {
	d := Decision{Pod: p.PodKey, Nodes: len(b.nodes)}
	if at, there := b.byKey[p.PodKey]; there {
		d.Node = b.nodes[b.pods[at].node].id
		return d
	}
	if d.Why = gated(p.Spec); d.Why != nil {
		return d
	}
	c := b.classOf(p)
	i, score := b.best(c)
	if i < 0 {
		i, d.Evicts = b.preempt(c)
		if i < 0 {
			d.Why = b.why(c)
			return d
		}
		score = b.scoreOn(c, i)
	}
	d.Node, d.Score = b.nodes[i].id, int(score)
	b.put(p.PodKey, c, i, false)
	return d
}

// PlaceAll places pods, those of higher priority first and otherwise by name, and returns the decisions in the order of
// the pods. Pods that were evicted on the way are in the Evicts of the others; they are not placed again.
func (b *Board) PlaceAll(pods []*plan.Pod) []Decision {
	order := make([]int, len(pods))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(x, y int) int {
		p, q := pods[x], pods[y]
		return cmp.Or(cmp.Compare(priority(q.Spec), priority(p.Spec)), cmp.Compare(p.Namespace, q.Namespace), cmp.Compare(p.Name, q.Name))
	})
	out := make([]Decision, len(pods))
	for _, i := range order {
		out[i] = b.Place(pods[i])
	}
	return out
}

// put writes down that a pod is on a node.
func (b *Board) put(key plan.PodKey, c *class, node int32, leaving bool) {
	p := placed{key: key, class: c, node: node, priority: c.priority, leaving: leaving}
	at := int32(len(b.pods))
	if n := len(b.free); n > 0 {
		at, b.free = b.free[n-1], b.free[:n-1]
		b.pods[at] = p
	} else {
		b.pods = append(b.pods, p)
	}
	b.byKey[key] = at
	b.nodes[node].pods = append(b.nodes[node].pods, at)
	b.count(c, node, 1, leaving)
}

// take is the reverse of put.
func (b *Board) take(at int32) {
	p := b.pods[at]
	delete(b.byKey, p.key)
	n := &b.nodes[p.node]
	i := slices.Index(n.pods, at)
	n.pods[i] = n.pods[len(n.pods)-1]
	n.pods = n.pods[:len(n.pods)-1]
	b.pods[at] = placed{}
	b.free = append(b.free, at)
	b.count(p.class, p.node, -1, p.leaving)
}

// count changes by one all that depends on which pods are where.
func (b *Board) count(c *class, node, by int32, leaving bool) {
	b.resources.use(node, &c.request, int64(by))
	b.nodes[node].usePorts(c.ports, by)
	if !leaving {
		c.on[node] += by
		if c.on[node] == 0 {
			delete(c.on, node)
		}
		c.owner.use(node, b.zones.domain[node], by)
		for _, k := range c.counted {
			k.use(node, by)
		}
	}
	b.log = append(b.log, node)
	if len(b.log) > 4*len(b.nodes)+1024 {
		half := len(b.log) / 2
		b.logBase += half
		b.log = append(b.log[:0], b.log[half:]...)
	}
}

func priority(spec *corev1.PodSpec) int32 {
	if spec.Priority == nil {
		return 0
	}
	return *spec.Priority
}

package schedule

import (
	"encoding/json"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// mostHeld is how many classes keep their scores of all nodes between two places.
const mostHeld = 512

// never is the score of a node that does not fit.
const never = -1

// classKey is what pods of one class have in common.
type classKey struct {
	ownerKey
	text string // labels and what of the spec matters here, as JSON
}

type ownerKey struct {
	namespace string
	owner     object.Ref
}

// class is all pods that are the same to every filter and scorer.
type class struct {
	ownerKey
	labels   labels.Set
	spec     *corev1.PodSpec
	priority int32
	request  request
	ports    []hostPort
	owner    *owner
	on       map[int32]int32 // how many of its pods are on which node; those that leave are left out

	static  []int32    // the score of each node that follows from the node alone; never
	counted []*counter // what counts its pods

	spread    []*spread       // DoNotSchedule
	soft      []*spread       // ScheduleAnyway
	affinity  []*counter      // required: each must count something where the pod goes
	first     bool            // affinity is met by the pod itself when nothing else is there
	apart     []*counter      // required: none may count anything where the pod goes
	against   []*counter      // the same, asked by pods that are there
	preferred []preferredTerm // of affinity and anti-affinity to pods
	ownTerms  []*term         // its required terms of anti-affinity
	seen      int             // changes of the Board that are in what follows
	score     []int32         // of each node by itself; nil when it is not held
	heaps     [][]int32       // nodes that fit, by zone, the best first; nil while other nodes matter
	pos       []int32         // of each node in its heap; -1
	lastSpec  *corev1.PodSpec
}

// owner is a workload, whose pods are better kept apart.
type owner struct {
	on    map[int32]int32
	zones []int32
}

func (o *owner) use(node, zone, by int32) {
	o.on[node] += by
	if o.on[node] == 0 {
		delete(o.on, node)
	}
	if zone >= 0 {
		o.zones[zone] += by
	}
}

// classOf returns the class of a pod. Specs are not changed by who gives them, so that a pod with the spec of another
// and its labels is known at once.
func (b *Board) classOf(p *plan.Pod) *class {
	who := ownerKey{p.Namespace, p.Owner}
	if n := len(b.held); n > 0 {
		if c := b.held[n-1]; c.lastSpec == p.Spec && c.ownerKey == who && maps.Equal(c.labels, p.Labels) {
			return c
		}
	}
	key := classKey{who, signature(p)}
	if c := b.classes[key]; c != nil {
		c.lastSpec = p.Spec
		return c
	}
	c := &class{
		ownerKey: who, labels: maps.Clone(p.Labels), spec: p.Spec, lastSpec: p.Spec, priority: priority(p.Spec),
		request: b.requestOf(p.Spec), ports: hostPorts(p.Spec), owner: b.owners[who], on: map[int32]int32{},
	}
	if c.owner == nil {
		c.owner = &owner{on: map[int32]int32{}, zones: make([]int32, len(b.zones.names))}
		b.owners[who] = c.owner
	}
	b.classes[key] = c
	b.order = append(b.order, c)
	b.lookAtNodes(c)
	c.ownTerms = c.antiTerms() // counters of other classes ask for them
	for _, k := range b.sortedCounters() {
		if k.matches(c) {
			c.counted = append(c.counted, k)
		}
		if k.term != nil && k.ofOwners && k.term.selects(b, c) {
			c.against = append(c.against, k)
		}
	}
	b.compileAffinity(c)
	b.compileSpread(c)
	return c
}

// signature is all of a pod that matters here, in text.
func signature(p *plan.Pod) string {
	s := p.Spec
	type container struct {
		Resources corev1.ResourceRequirements
		Ports     []corev1.ContainerPort
		Restart   *corev1.ContainerRestartPolicy
		Image     string
	}
	brief := func(list []corev1.Container) []container {
		out := make([]container, len(list))
		for i, c := range list {
			out[i] = container{c.Resources, c.Ports, c.RestartPolicy, c.Image}
		}
		return out
	}
	text, err := json.Marshal(struct {
		Labels           map[string]string
		Init, Containers []container
		Resources        *corev1.ResourceRequirements
		Overhead         corev1.ResourceList
		NodeName         string
		NodeSelector     map[string]string
		Affinity         *corev1.Affinity
		Tolerations      []corev1.Toleration
		Spread           []corev1.TopologySpreadConstraint
		HostNetwork      bool
		Priority         *int32
		Preemption       *corev1.PreemptionPolicy
	}{
		p.Labels, brief(s.InitContainers), brief(s.Containers), s.Resources, s.Overhead, s.NodeName, s.NodeSelector, s.Affinity,
		s.Tolerations, s.TopologySpreadConstraints, s.HostNetwork, s.Priority, s.PreemptionPolicy,
	})
	if err != nil {
		return p.String() // no API type fails to encode; a class of its own is always right
	}
	return string(text)
}

// constrained reports whether what is on other nodes matters to where a pod of the class goes.
func (c *class) constrained() bool {
	return len(c.spread)+len(c.soft)+len(c.affinity)+len(c.apart)+len(c.against)+len(c.preferred) > 0
}

// refresh brings the class's scores up to date.
func (b *Board) refresh(c *class) {
	at := b.logBase + len(b.log)
	b.hold(c)
	switch {
	case c.score == nil, c.seen < b.logBase, at-c.seen > len(b.nodes):
		if c.score == nil {
			c.score = make([]int32, len(b.nodes))
		}
		for i := range c.score {
			c.score[i] = b.nodeScore(c, int32(i))
		}
		c.heaps = nil
	default:
		for _, i := range b.log[c.seen-b.logBase:] {
			if s := b.nodeScore(c, i); s != c.score[i] {
				c.score[i] = s
				if c.heaps != nil {
					c.fix(b.zone(i), i)
				}
			}
		}
	}
	c.seen = at
	if c.constrained() {
		c.heaps = nil
	} else if c.heaps == nil {
		c.fill(b)
	}
}

// hold notes that the class was used last, and has those forget their scores that were not used for longest.
func (b *Board) hold(c *class) {
	if n := len(b.held); n > 0 && b.held[n-1] == c {
		return
	}
	if i := slices.Index(b.held, c); i >= 0 {
		b.held = slices.Delete(b.held, i, i+1)
	}
	b.held = append(b.held, c)
	if len(b.held) > mostHeld {
		old := b.held[0]
		old.score, old.heaps, old.pos = nil, nil, nil
		b.held = slices.Delete(b.held, 0, 1)
	}
}

// zone is the heap that a node is in.
func (b *Board) zone(i int32) int32 {
	if z := b.zones.domain[i]; z >= 0 {
		return z
	}
	return int32(len(b.zones.names))
}

// before reports whether node i is better than node j.
func (c *class) before(i, j int32) bool {
	if c.score[i] != c.score[j] {
		return c.score[i] > c.score[j]
	}
	return i < j
}

// fill makes the heaps anew.
func (c *class) fill(b *Board) {
	c.heaps = make([][]int32, len(b.zones.names)+1)
	if c.pos == nil {
		c.pos = make([]int32, len(c.score))
	}
	for i := range c.score {
		c.pos[i] = -1
		if c.score[i] != never {
			z := b.zone(int32(i))
			c.pos[i] = int32(len(c.heaps[z]))
			c.heaps[z] = append(c.heaps[z], int32(i))
		}
	}
	for z, h := range c.heaps {
		for at := len(h)/2 - 1; at >= 0; at-- {
			c.down(z, at)
		}
	}
}

// fix puts a node whose score has changed to its place in the heap, into it, or out of it.
func (c *class) fix(zone, i int32) {
	z, at := int(zone), int(c.pos[i])
	switch {
	case c.score[i] == never && at < 0:
	case c.score[i] == never:
		h := c.heaps[z]
		last := len(h) - 1
		c.swap(z, at, last)
		c.heaps[z], c.pos[i] = h[:last], -1
		if at < last && !c.up(z, at) {
			c.down(z, at)
		}
	case at < 0:
		c.pos[i] = int32(len(c.heaps[z]))
		c.heaps[z] = append(c.heaps[z], i)
		c.up(z, int(c.pos[i]))
	default:
		if !c.up(z, at) {
			c.down(z, at)
		}
	}
}

func (c *class) swap(z, x, y int) {
	h := c.heaps[z]
	h[x], h[y] = h[y], h[x]
	c.pos[h[x]], c.pos[h[y]] = int32(x), int32(y)
}

func (c *class) up(z, at int) (moved bool) {
	for h := c.heaps[z]; at > 0; moved = true {
		parent := (at - 1) / 2
		if !c.before(h[at], h[parent]) {
			break
		}
		c.swap(z, at, parent)
		at = parent
	}
	return moved
}

func (c *class) down(z, at int) {
	for h := c.heaps[z]; ; {
		child := 2*at + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && c.before(h[child+1], h[child]) {
			child++
		}
		if !c.before(h[child], h[at]) {
			return
		}
		c.swap(z, at, child)
		at = child
	}
}

// best is the best node for a pod of the class, and its score; -1 when none fits.
func (b *Board) best(c *class) (at, score int32) {
	if len(b.nodes) == 0 {
		return -1, 0
	}
	b.refresh(c)
	if c.constrained() {
		return b.scan(c)
	}
	at = -1
	for z, h := range c.heaps {
		if len(h) == 0 {
			continue
		}
		s := c.score[h[0]] + b.zoneScore(c, int32(z))
		if at < 0 || s > score || s == score && h[0] < at {
			at, score = h[0], s
		}
	}
	return at, score
}

// scan looks at every node for a class that other nodes matter to.
func (b *Board) scan(c *class) (at, score int32) {
	at = -1
	bars, near := b.bars(c), len(c.affinity) > 0
	zones := make([]int32, len(b.zones.names)+1)
	for z := range zones {
		zones[z] = b.zoneScore(c, int32(z))
	}
	weigh := b.weigher(c)
next:
	for n, s := range c.score {
		if s == never {
			continue
		}
		for k := range bars {
			if bar := &bars[k]; bar.stops(n) {
				continue next
			}
		}
		i := int32(n)
		if near && !c.near(i) {
			continue
		}
		if s += zones[b.zone(i)]; weigh != nil {
			s += weigh(i)
		}
		if at < 0 || s > score {
			at, score = i, s
		}
	}
	return at, score
}

// bar keeps a class from domains where too many pods are counted.
type bar struct {
	domain, count []int32
	most          int32
	labelled      bool // a node without the label does not do either
}

func (b *bar) stops(node int) bool {
	d := b.domain[node]
	if d < 0 {
		return b.labelled
	}
	return b.count[d] > b.most
}

// bars are all that keeps a class from nodes for what is on others, but for its affinity, as things are now.
func (b *Board) bars(c *class) []bar {
	out := make([]bar, 0, len(c.against)+len(c.apart)+len(c.spread)+1)
	for _, list := range [...][]*counter{c.against, c.apart} {
		for _, k := range list {
			if k.total > 0 {
				out = append(out, bar{k.topology.domain, k.count, 0, false})
			}
		}
	}
	for _, s := range c.spread {
		out = append(out, bar{s.counted.topology.domain, s.counted.count, s.maxSkew - s.self + s.least(), true})
	}
	return out
}

// scoreOn is the score of a node that fits.
func (b *Board) scoreOn(c *class, i int32) int32 {
	b.refresh(c)
	s := c.score[i] + b.zoneScore(c, b.zone(i))
	if weigh := b.weigher(c); weigh != nil {
		s += weigh(i)
	}
	return s
}

// fits reports whether a pod of the class fits on a node, as things are now.
func (b *Board) fits(c *class, i int32) bool {
	return b.nodeScore(c, i) != never && b.allows(c, i)
}

// allows reports whether what is on other nodes lets a pod of the class go to a node.
func (b *Board) allows(c *class, i int32) bool {
	for _, bar := range b.bars(c) {
		if bar.stops(int(i)) {
			return false
		}
	}
	return len(c.affinity) == 0 || c.near(i)
}

package schedule

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	helpers "k8s.io/component-helpers/resource"
	scheduling "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/plan"
)

// oracle says whether a pod fits on a node, by looking at every pod and every node, with nothing kept in between. It is
// written from Kubernetes' documentation of each rule, and shares no code with the Board.
type oracle struct {
	nodes []Node
	on    map[plan.PodKey]plan.NodeID
	pods  map[plan.PodKey]*plan.Pod
}

func (o *oracle) node(id plan.NodeID) *Node {
	return &o.nodes[slices.IndexFunc(o.nodes, func(n Node) bool { return n.ID == id })]
}

func (o *oracle) fits(p *plan.Pod, n *Node) bool {
	return o.nodeFits(p, n) && o.roomFor(p, n) && o.portsFree(p, n) && o.affinityHolds(p, n) && o.spreadHolds(p, n)
}

func apiNode(n *Node) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: string(n.ID), Labels: n.Labels}}
}

func affine(p *plan.Pod, n *Node) bool {
	ok, err := nodeaffinity.GetRequiredNodeAffinity(&corev1.Pod{Spec: *p.Spec}).Match(apiNode(n))
	return ok && err == nil
}

func (o *oracle) nodeFits(p *plan.Pod, n *Node) bool {
	taints := n.Taints
	if n.Unschedulable {
		taints = append(slices.Clone(taints), corev1.Taint{Key: "node.kubernetes.io/unschedulable", Effect: corev1.TaintEffectNoSchedule})
	}
	_, kept := scheduling.FindMatchingUntoleratedTaint(klog.Logger{}, taints, p.Spec.Tolerations, func(t *corev1.Taint) bool { return t.Effect != corev1.TaintEffectPreferNoSchedule }, false)
	return !kept && affine(p, n)
}

func (o *oracle) roomFor(p *plan.Pod, n *Node) bool {
	sum := helpers.PodRequests(&corev1.Pod{Spec: *p.Spec}, helpers.PodResourcesOptions{})
	asks := map[corev1.ResourceName]bool{}
	for name, q := range sum {
		asks[name] = !q.IsZero()
	}
	count := int64(1)
	for key, other := range o.pods {
		if o.on[key] == n.ID {
			count++
			for name, q := range helpers.PodRequests(&corev1.Pod{Spec: *other.Spec}, helpers.PodResourcesOptions{}) {
				total := sum[name]
				total.Add(q)
				sum[name] = total
			}
		}
	}
	for name, q := range sum {
		if has := n.Allocatable[name]; asks[name] && q.Cmp(has) > 0 {
			return false
		}
	}
	most, limited := n.Allocatable[corev1.ResourcePods]
	return !limited || count <= most.Value()
}

func (o *oracle) portsFree(p *plan.Pod, n *Node) bool {
	for key, other := range o.pods {
		if o.on[key] != n.ID {
			continue
		}
		for _, x := range p.Spec.Containers[0].Ports {
			for _, y := range other.Spec.Containers[0].Ports {
				if x.HostPort != 0 && x.HostPort == y.HostPort && x.Protocol == y.Protocol && (x.HostIP == y.HostIP || x.HostIP == "" || y.HostIP == "") {
					return false
				}
			}
		}
	}
	return true
}

func selected(p, by *plan.Pod, t *corev1.PodAffinityTerm) bool {
	s, err := metav1.LabelSelectorAsSelector(t.LabelSelector)
	return err == nil && p.Namespace == by.Namespace && s.Matches(labels.Set(p.Labels))
}

func oracleAntiTerms(p *plan.Pod) []corev1.PodAffinityTerm {
	if p.Spec.Affinity == nil || p.Spec.Affinity.PodAntiAffinity == nil {
		return nil
	}
	return p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
}

func affinityTerms(p *plan.Pod) []corev1.PodAffinityTerm {
	if p.Spec.Affinity == nil || p.Spec.Affinity.PodAffinity == nil {
		return nil
	}
	return p.Spec.Affinity.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution
}

func together(a, b *Node, key string) bool {
	x, hasX := a.Labels[key]
	y, hasY := b.Labels[key]
	return hasX && hasY && x == y
}

func (o *oracle) affinityHolds(p *plan.Pod, n *Node) bool {
	for key, other := range o.pods {
		at := o.node(o.on[key])
		for _, t := range oracleAntiTerms(p) {
			if selected(other, p, &t) && together(n, at, t.TopologyKey) {
				return false
			}
		}
		for _, t := range oracleAntiTerms(other) {
			if selected(p, other, &t) && together(n, at, t.TopologyKey) {
				return false
			}
		}
	}
	terms := affinityTerms(p)
	if len(terms) == 0 {
		return true
	}
	every := func(other *plan.Pod) bool {
		return !slices.ContainsFunc(terms, func(t corev1.PodAffinityTerm) bool { return !selected(other, p, &t) })
	}
	met, anywhere := true, false
	for _, t := range terms {
		if _, has := n.Labels[t.TopologyKey]; !has {
			return false
		}
		here := false
		for key, other := range o.pods {
			at := o.node(o.on[key])
			if _, has := at.Labels[t.TopologyKey]; has && every(other) {
				anywhere = true
				here = here || together(n, at, t.TopologyKey)
			}
		}
		met = met && here
	}
	return met || !anywhere && every(p)
}

func (o *oracle) spreadHolds(p *plan.Pod, n *Node) bool {
	var hard []corev1.TopologySpreadConstraint
	for _, c := range p.Spec.TopologySpreadConstraints {
		if c.WhenUnsatisfiable == corev1.DoNotSchedule {
			hard = append(hard, c)
		}
	}
	whole := func(n *Node) bool {
		return !slices.ContainsFunc(hard, func(c corev1.TopologySpreadConstraint) bool { _, has := n.Labels[c.TopologyKey]; return !has })
	}
	for _, c := range hard {
		s, err := metav1.LabelSelectorAsSelector(c.LabelSelector)
		if err != nil || !whole(n) {
			return false
		}
		count := map[string]int32{}
		for i := range o.nodes {
			at := &o.nodes[i]
			if !whole(at) || !affine(p, at) {
				continue
			}
			count[at.Labels[c.TopologyKey]] += 0
			for key, other := range o.pods {
				if o.on[key] == at.ID && other.Namespace == p.Namespace && s.Matches(labels.Set(other.Labels)) {
					count[at.Labels[c.TopologyKey]]++
				}
			}
		}
		least := int32(1 << 30)
		for _, k := range count {
			least = min(least, k)
		}
		if c.MinDomains != nil && int32(len(count)) < *c.MinDomains {
			least = 0
		}
		self := int32(0)
		if s.Matches(labels.Set(p.Labels)) {
			self = 1
		}
		if count[n.Labels[c.TopologyKey]]+self-least > c.MaxSkew {
			return false
		}
	}
	return true
}

// drawNodes makes a few nodes of a small world, so that everything meets.
func drawNodes(t *rapid.T) []Node {
	nodes := make([]Node, rapid.IntRange(1, 7).Draw(t, "nodes"))
	for i := range nodes {
		words := fmt.Sprintf("cpu=%d memory=%dGi", rapid.IntRange(1, 6).Draw(t, "cpu"), rapid.IntRange(1, 8).Draw(t, "memory"))
		for _, w := range []string{zone + "x", zone + "y", "label:disk=ssd", "taint:gpu:NoSchedule", "taint:old:PreferNoSchedule", "cordoned", "pods=3", "example.com/gpu=1", "image:web=400"} {
			if rapid.IntRange(0, 3).Draw(t, w) == 0 {
				words += " " + w
			}
		}
		nodes[i] = aNode(fmt.Sprintf("n%d", i), words)
	}
	return nodes
}

// drawPod makes a pod of one of a few workloads; what it asks for follows from the workload.
func drawPod(t *rapid.T, tb testing.TB, workloads map[string]*plan.Pod, name string) *plan.Pod {
	owner := rapid.SampledFrom([]string{"web", "db", "cache", "job"}).Draw(t, "owner")
	p := workloads[owner]
	if p == nil || rapid.IntRange(0, 4).Draw(t, "another revision") == 0 {
		spec := "{"
		add := func(text string) {
			if rapid.IntRange(0, 4).Draw(t, text) == 0 {
				spec += text + ", "
			}
		}
		add("nodeSelector: {disk: ssd}")
		add("tolerations: [{key: gpu, operator: Exists}]")
		add("containers: [{name: m, image: web, ports: [{containerPort: 80, hostPort: 80, protocol: TCP}]}]")
		other := rapid.SampledFrom([]string{"web", "db", "cache", owner}).Draw(t, "other")
		key := rapid.SampledFrom([]string{corev1.LabelHostname, corev1.LabelTopologyZone}).Draw(t, "key")
		switch rapid.IntRange(0, 6).Draw(t, "constraint") {
		case 0:
			spec += antiAffinity(other, key) + ", "
		case 1:
			spec += affinity(other, key) + ", "
		case 2:
			spec += spreadOver(key, rapid.IntRange(1, 2).Draw(t, "skew"), "DoNotSchedule", other) + ", "
		case 3:
			spec += spreadOver(key, 1, "ScheduleAnyway", owner) + ", "
		case 4:
			spec += "affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 10, podAffinityTerm: {topologyKey: " + key + ", labelSelector: {matchLabels: {app: " + other + "}}}}]}}, "
		}
		add("priority: 0")
		p = aPod(tb, "", owner, fmt.Sprintf("%dm", rapid.SampledFrom([]int{0, 250, 1000}).Draw(t, "m")), fmt.Sprintf("%dMi", rapid.SampledFrom([]int{0, 500, 1500}).Draw(t, "Mi")), spec+"}")
		workloads[owner] = p
	}
	q := *p
	q.Name = name
	return &q
}

// TestBoardAgainstOracle goes through random changes, and holds after each place that the node fits by the rules, that
// no node fits when none was found, and that a Board made anew from what is there would have chosen the same.
func TestBoardAgainstOracle(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		nodes := drawNodes(rt)
		opt := Options{Profile: rapid.SampledFrom([]Profile{Balanced, Packed}).Draw(rt, "profile")}
		b := New(nodes, opt)
		o := &oracle{nodes: nodes, on: map[plan.PodKey]plan.NodeID{}, pods: map[plan.PodKey]*plan.Pod{}}
		workloads := map[string]*plan.Pod{}
		var there []plan.PodKey
		for step := range rapid.IntRange(1, 40).Draw(rt, "steps") {
			if len(there) > 0 && rapid.IntRange(0, 3).Draw(rt, "remove") == 0 {
				i := rapid.IntRange(0, len(there)-1).Draw(rt, "which")
				b.Remove(there[i])
				delete(o.on, there[i])
				delete(o.pods, there[i])
				there = slices.Delete(there, i, i+1)
				continue
			}
			p := drawPod(rt, t, workloads, fmt.Sprintf("p%d", step))
			fresh := New(nodes, opt)
			for key, q := range o.pods {
				fresh.Add(o.on[key], q, false)
			}
			want, got := fresh.Place(p), b.Place(p)
			if got.String() != want.String() || got.Score != want.Score {
				rt.Fatalf("step %d: %s is placed %s (%d), and by a Board made anew %s (%d)", step, p.Name, got, got.Score, want, want.Score)
			}
			if got.Node == "" {
				sum := 0
				for _, r := range got.Why {
					sum += r.Nodes
				}
				if sum != len(nodes) {
					rt.Fatalf("step %d: %s accounts for %d of %d nodes", step, got, sum, len(nodes))
				}
				for i := range nodes {
					if o.fits(p, &nodes[i]) {
						rt.Fatalf("step %d: %s fits on %s: %s", step, p.Name, nodes[i].ID, got)
					}
				}
				continue
			}
			if !o.fits(p, o.node(got.Node)) {
				rt.Fatalf("step %d: %s does not fit on %s", step, p.Name, got.Node)
			}
			o.on[p.PodKey], o.pods[p.PodKey] = got.Node, p
			there = append(there, p.PodKey)
		}
	})
}

// TestPreemptionAgainstOracle holds that after an eviction the pod fits, that nothing of the same or a higher priority
// went, and that none of the evicted could have stayed.
func TestPreemptionAgainstOracle(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		nodes := drawNodes(rt)
		b := New(nodes, Options{})
		o := &oracle{nodes: nodes, on: map[plan.PodKey]plan.NodeID{}, pods: map[plan.PodKey]*plan.Pod{}}
		workloads := map[string]*plan.Pod{}
		for step := range rapid.IntRange(1, 25).Draw(rt, "steps") {
			p := drawPod(rt, t, workloads, fmt.Sprintf("p%d", step))
			spec := *p.Spec
			level := rapid.Int32Range(0, 3).Draw(rt, "priority")
			spec.Priority, p.Spec = &level, &spec
			got := b.Place(p)
			gone := map[plan.PodKey]*plan.Pod{}
			for _, key := range got.Evicts {
				victim := o.pods[key]
				if *victim.Spec.Priority >= level {
					rt.Fatalf("%s of priority %d evicts %s of %d", p.Name, level, key, *victim.Spec.Priority)
				}
				if b.On(key) != "" || o.on[key] != got.Node {
					rt.Fatalf("%s is evicted from %s for a place on %s", key, o.on[key], got.Node)
				}
				gone[key] = victim
				delete(o.pods, key)
				delete(o.on, key)
			}
			if got.Node == "" {
				continue
			}
			if !o.fits(p, o.node(got.Node)) {
				rt.Fatalf("%s does not fit on %s in place of %v", p.Name, got.Node, got.Evicts)
			}
			for key, victim := range gone {
				o.pods[key], o.on[key] = victim, got.Node
				if o.fits(p, o.node(got.Node)) {
					rt.Fatalf("%s could have stayed on %s", key, got.Node)
				}
				delete(o.pods, key)
				delete(o.on, key)
			}
			o.on[p.PodKey], o.pods[p.PodKey] = got.Node, p
		}
	})
}

package schedule

import (
	"fmt"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// spread is one constraint on how evenly pods are spread over the domains of a topology.
type spread struct {
	counted    *counter
	maxSkew    int32
	minDomains int32
	domains    int32  // that exist, of nodes that count
	self       int32  // 1 when the pod itself counts
	weight     int64  // of a constraint that is only a wish, in thousandths
	everywhere []bool // nodes that have all labels of the constraints of their kind
}

// compileSpread sets up the counting that a class's constraints need.
func (b *Board) compileSpread(c *class) {
	for _, kind := range [...]corev1.UnsatisfiableConstraintAction{corev1.DoNotSchedule, corev1.ScheduleAnyway} {
		var list []corev1.TopologySpreadConstraint
		for _, s := range c.spec.TopologySpreadConstraints {
			if s.WhenUnsatisfiable == kind {
				list = append(list, s)
			}
		}
		everywhere := make([]bool, len(b.nodes))
		for i := range b.nodes {
			everywhere[i] = !slices.ContainsFunc(list, func(s corev1.TopologySpreadConstraint) bool { return b.topologyOf(s.TopologyKey).domain[i] < 0 })
		}
		for i := range list {
			s := b.newSpread(c, &list[i], fmt.Sprintf("spread %d %s %d", len(b.order), kind, i), everywhere)
			if kind == corev1.DoNotSchedule {
				c.spread = append(c.spread, s)
			} else {
				c.soft = append(c.soft, s)
			}
		}
	}
}

// newSpread makes a constraint of a class. Its counter is its own, since which nodes count depends on the class.
func (b *Board) newSpread(c *class, from *corev1.TopologySpreadConstraint, key string, everywhere []bool) *spread {
	selector := selectorWith(from.LabelSelector, c.labels, from.MatchLabelKeys, nil)
	topology := b.topologyOf(from.TopologyKey)
	s := &spread{maxSkew: from.MaxSkew, minDomains: 1, everywhere: everywhere}
	if from.MinDomains != nil {
		s.minDomains = *from.MinDomains
	}
	if selector.Matches(c.labels) {
		s.self = 1
	}
	eligible := b.eligible(c, from, everywhere)
	exists := make([]bool, len(topology.names))
	for i, counts := range eligible {
		if d := topology.domain[i]; counts && d >= 0 && !exists[d] {
			exists[d] = true
			s.domains++
		}
	}
	namespace := c.namespace
	s.counted = &counter{
		key: key, topology: topology, eligible: eligible, least: &least{},
		matches: func(o *class) bool { return o.namespace == namespace && selector.Matches(o.labels) },
	}
	for _, there := range exists {
		if there {
			s.counted.least.add(0)
		}
	}
	b.addCounter(s.counted)
	size := int64(s.domains)
	if from.TopologyKey == corev1.LabelHostname {
		size = int64(len(b.nodes))
	}
	s.weight = int64(1000 * math.Log(float64(size+2)))
	return s
}

// eligible says which nodes count for a constraint.
func (b *Board) eligible(c *class, from *corev1.TopologySpreadConstraint, everywhere []bool) []bool {
	out := slices.Clone(everywhere)
	honour := func(p *corev1.NodeInclusionPolicy, otherwise bool) bool {
		if p == nil {
			return otherwise
		}
		return *p == corev1.NodeInclusionPolicyHonor
	}
	if honour(from.NodeAffinityPolicy, true) {
		if required := b.requiredAffinity(c); required != nil {
			for i := range b.nodes {
				ok, err := required.Match(b.nodes[i].api)
				out[i] = out[i] && ok && err == nil
			}
		}
	}
	if honour(from.NodeTaintsPolicy, false) {
		for i := range b.nodes {
			out[i] = out[i] && !slices.ContainsFunc(b.nodes[i].taints, func(t corev1.Taint) bool { return !tolerated(c.spec.Tolerations, &t) })
		}
	}
	return out
}

// least is the smallest number of pods in a domain; 0 while there are fewer domains than wanted.
func (s *spread) least() int32 {
	if s.domains < s.minDomains {
		return 0
	}
	return s.counted.least.now
}

// allows reports whether one more pod on a node keeps the constraint. A node without the label never does; one without
// the label of another constraint is kept away by that one.
func (s *spread) allows(i int32) bool {
	return s.counted.topology.domain[i] >= 0 && s.counted.at(i)+s.self-s.least() <= s.maxSkew
}

// crowd is how many pods are where a node is, over all constraints that are wishes; a node without the labels does not count.
func (c *class) crowd(i int32) (in int64, counts bool) {
	for _, s := range c.soft {
		if !s.everywhere[i] {
			return 0, false
		}
		in += int64(s.counted.at(i))*s.weight + 1000*int64(s.maxSkew-1)
	}
	return in, len(c.soft) > 0
}

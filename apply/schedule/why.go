package schedule

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Reason says why some nodes do not fit.
type Reason struct {
	Nodes int
	Text  string
}

// String is a line for people: "0/5 nodes fit: 3 insufficient memory (512Mi wanted, at most 300Mi free), 2 taint gpu".
func (d Decision) String() string {
	switch {
	case d.Node != "" && len(d.Evicts) > 0:
		keys := make([]string, len(d.Evicts))
		for i, k := range d.Evicts {
			keys[i] = k.String()
		}
		return fmt.Sprintf("%s, in place of %s", d.Node, strings.Join(keys, ", "))
	case d.Node != "":
		return string(d.Node)
	case len(d.Why) == 1 && d.Why[0].Nodes == 0:
		return d.Why[0].Text
	case d.Nodes == 0:
		return "there are no nodes"
	}
	parts := make([]string, len(d.Why))
	for i, r := range d.Why {
		parts[i] = fmt.Sprintf("%d %s", r.Nodes, r.Text)
	}
	return fmt.Sprintf("0/%d nodes fit: %s", d.Nodes, strings.Join(parts, ", "))
}

// gated says that a pod waits for somebody to take its gates away.
func gated(spec *corev1.PodSpec) []Reason {
	if len(spec.SchedulingGates) == 0 {
		return nil
	}
	names := make([]string, len(spec.SchedulingGates))
	for i, g := range spec.SchedulingGates {
		names[i] = g.Name
	}
	return []Reason{{Text: "waits for its scheduling gates: " + strings.Join(names, ", ")}}
}

// why says for each node the first reason for which a class does not fit there, and how many nodes have which.
func (b *Board) why(c *class) []Reason {
	type lack struct{ want, free int64 }
	count := map[string]int{}
	lacks := map[int]lack{}
	lacking := map[int]int{}
	required := b.requiredAffinity(c)
	for n := range b.nodes {
		i := int32(n)
		if text := b.refusal(c, &b.nodes[i], required); text != "" {
			count[text]++
			continue
		}
		if p, taken := b.nodes[i].taken(c.ports); taken {
			count["host port "+p.String()+" taken"]++
			continue
		}
		if k, want, free := b.resources.lacking(i, &c.request); k >= 0 {
			lacking[k]++
			l := lacks[k]
			lacks[k] = lack{want, max(l.free, free)}
			continue
		}
		count[b.keptAway(c, i)]++
	}
	var out []Reason
	for text, n := range count {
		out = append(out, Reason{n, text})
	}
	for k, n := range lacking {
		out = append(out, Reason{n, b.insufficient(k, lacks[k].want, lacks[k].free)})
	}
	slices.SortFunc(out, func(x, y Reason) int { return cmp.Or(cmp.Compare(y.Nodes, x.Nodes), cmp.Compare(x.Text, y.Text)) })
	return out
}

func (b *Board) insufficient(k int, want, free int64) string {
	name := b.resources.names[k]
	if k == pods {
		return "full: no more pods allowed"
	}
	if slices.Max(b.resources.has[k]) == 0 {
		return fmt.Sprintf("without %s (%s wanted)", name, text(name, want))
	}
	return fmt.Sprintf("insufficient %s (%s wanted, at most %s free)", name, text(name, want), text(name, free))
}

// keptAway says which pods or which constraint keeps a class from a node that would do otherwise.
func (b *Board) keptAway(c *class, i int32) string {
	for _, k := range c.against {
		if k.at(i) > 0 {
			return "anti-affinity of pods that are there"
		}
	}
	for _, k := range c.apart {
		if k.at(i) > 0 {
			return "pods there that anti-affinity does not want"
		}
	}
	if len(c.affinity) > 0 && !c.near(i) {
		return "no pods there that affinity wants"
	}
	for _, s := range c.spread {
		switch {
		case s.allows(i):
		case s.counted.topology.domain[i] < 0:
			return "without the label " + s.counted.topology.key + " that spread asks for"
		default:
			return fmt.Sprintf("would be uneven over %s (skew at most %d)", s.counted.topology.key, s.maxSkew)
		}
	}
	return "taken by pods that wait to be placed"
}

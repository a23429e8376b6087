package schedule

import (
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// term is one term of affinity or anti-affinity to pods.
type term struct {
	text         string
	topologyKey  string
	pods         labels.Selector
	namespaces   []string
	byNamespaces labels.Selector // nil selects none
}

// selects reports whether the pods of a class are among those that a term is about.
func (t *term) selects(b *Board, c *class) bool {
	return (slices.Contains(t.namespaces, c.namespace) || t.byNamespaces != nil && t.byNamespaces.Matches(labels.Set(b.opt.Namespaces[c.namespace]))) &&
		t.pods.Matches(c.labels)
}

// preferredTerm is a term with its weight; less than 0 for anti-affinity.
type preferredTerm struct {
	counted *counter
	weight  int64
}

// newTerm reads a term of a class. What cannot be read selects nothing; validation has said so.
func newTerm(c *class, from *corev1.PodAffinityTerm) *term {
	t := &term{topologyKey: from.TopologyKey, namespaces: slices.Clone(from.Namespaces), pods: selectorWith(from.LabelSelector, c.labels, from.MatchLabelKeys, from.MismatchLabelKeys)}
	if len(t.namespaces) == 0 && from.NamespaceSelector == nil {
		t.namespaces = []string{c.namespace}
	}
	slices.Sort(t.namespaces)
	by := ""
	if from.NamespaceSelector != nil {
		if s, err := metav1.LabelSelectorAsSelector(from.NamespaceSelector); err == nil {
			t.byNamespaces, by = s, "by "+s.String()
		}
	}
	text, err := json.Marshal([]any{t.topologyKey, t.namespaces, by, t.pods.String(), t.pods.Empty()})
	if err != nil {
		panic(err) // strings and a truth value are always encoded
	}
	t.text = string(text)
	return t
}

// selectorWith is a selector that also asks for the same values of some labels as a pod has, and for other values of
// others. Without a selector it selects nothing.
func selectorWith(from *metav1.LabelSelector, own labels.Set, same, different []string) labels.Selector {
	s, err := metav1.LabelSelectorAsSelector(from)
	if err != nil || from == nil {
		return labels.Nothing()
	}
	requirements, selectable := s.Requirements()
	if !selectable {
		return labels.Nothing()
	}
	out := labels.NewSelector().Add(requirements...)
	add := func(keys []string, operator metav1.LabelSelectorOperator) {
		for _, key := range keys {
			if value, has := own[key]; has {
				more, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: key, Operator: operator, Values: []string{value}}}})
				if err == nil {
					r, _ := more.Requirements()
					out = out.Add(r...)
				}
			}
		}
	}
	add(same, metav1.LabelSelectorOpIn)
	add(different, metav1.LabelSelectorOpNotIn)
	return out
}

// antiTerms are the terms that no pod may meet where a pod of the class is.
func (c *class) antiTerms() []*term {
	if c.spec.Affinity == nil || c.spec.Affinity.PodAntiAffinity == nil {
		return nil
	}
	required := c.spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	out := make([]*term, len(required))
	for i := range required {
		out[i] = newTerm(c, &required[i])
	}
	return out
}

// compileAffinity sets up the counting that a class's affinity and anti-affinity to pods needs.
func (b *Board) compileAffinity(c *class) {
	a := c.spec.Affinity
	if a == nil {
		return
	}
	counting := func(t *term) *counter {
		return b.addCounter(&counter{key: "pods " + t.text, term: t, topology: b.topologyOf(t.topologyKey), matches: func(o *class) bool { return t.selects(b, o) }})
	}
	if a.PodAntiAffinity != nil {
		for _, t := range c.ownTerms {
			c.apart = append(c.apart, counting(t))
			b.addCounter(&counter{
				key: "owners " + t.text, term: t, ofOwners: true, topology: b.topologyOf(t.topologyKey),
				matches: func(o *class) bool {
					return slices.ContainsFunc(o.ownTerms, func(own *term) bool { return own.text == t.text })
				},
			})
		}
		for _, w := range a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
			c.preferred = append(c.preferred, preferredTerm{counting(newTerm(c, &w.PodAffinityTerm)), -int64(w.Weight)})
		}
	}
	if a.PodAffinity == nil {
		return
	}
	for _, w := range a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
		c.preferred = append(c.preferred, preferredTerm{counting(newTerm(c, &w.PodAffinityTerm)), int64(w.Weight)})
	}
	// A pod counts for affinity when every term selects it, as in Kubernetes.
	var terms []*term
	all := ""
	for i := range a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
		t := newTerm(c, &a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution[i])
		terms = append(terms, t)
		all += t.text
	}
	every := func(o *class) bool {
		return !slices.ContainsFunc(terms, func(t *term) bool { return !t.selects(b, o) })
	}
	for _, t := range terms {
		c.affinity = append(c.affinity, b.addCounter(&counter{key: "every " + t.topologyKey + " " + all, term: t, topology: b.topologyOf(t.topologyKey), matches: every}))
	}
	c.first = len(terms) > 0 && every(c)
}

// near reports whether a node is where the pods are that a class wants to be near to. The first of pods that want to be
// near to each other goes anywhere.
func (c *class) near(i int32) bool {
	there, somewhere := true, false
	for _, k := range c.affinity {
		if k.topology.domain[i] < 0 {
			return false
		}
		there = there && k.at(i) > 0
		somewhere = somewhere || k.total > 0
	}
	return there || !somewhere && c.first
}

// liking is by how much a class would rather have its pods on a node, or not, for the pods that are there.
func (c *class) liking(i int32) int64 {
	n := int64(0)
	for _, p := range c.preferred {
		n += p.weight * int64(p.counted.at(i))
	}
	return n
}

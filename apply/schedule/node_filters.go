package schedule

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// lookAtNodes computes what follows from each node by itself: whether the pods of a class may go there, and the part of
// the score that never changes.
func (b *Board) lookAtNodes(c *class) {
	c.static = make([]int32, len(b.nodes))
	required := b.requiredAffinity(c)
	preferred := preferredAffinity(c.spec)
	for i := range b.nodes {
		n := &b.nodes[i]
		if b.refusal(c, n, required) != "" {
			c.static[i] = never
			continue
		}
		c.static[i] = weightTaints*n.unwanted(c.spec.Tolerations) + weightAffinity*preferred.score(n.api) + weightImages*n.imageScore(c.spec)
	}
}

func (b *Board) requiredAffinity(c *class) *nodeaffinity.RequiredNodeAffinity {
	if len(c.spec.NodeSelector) == 0 && (c.spec.Affinity == nil || c.spec.Affinity.NodeAffinity == nil) {
		return nil
	}
	required := nodeaffinity.GetRequiredNodeAffinity(&corev1.Pod{Spec: *c.spec})
	return &required
}

// refusal says why a node by itself does not do for a class; empty when it does.
func (b *Board) refusal(c *class, n *node, required *nodeaffinity.RequiredNodeAffinity) string {
	named := c.spec.NodeName != ""
	if named && c.spec.NodeName != string(n.id) {
		return "named another node"
	}
	if required != nil {
		if ok, err := required.Match(n.api); err != nil {
			return "node affinity that cannot be read: " + err.Error()
		} else if !ok {
			return "labels that nodeSelector or node affinity do not want"
		}
	}
	for i := range n.taints {
		t := &n.taints[i]
		if named && t.Effect != corev1.TaintEffectNoExecute || tolerated(c.spec.Tolerations, t) {
			continue
		}
		if t.Key == corev1.TaintNodeUnschedulable {
			return "cordoned"
		}
		return "taint " + taintText(t)
	}
	return ""
}

func tolerated(tolerations []corev1.Toleration, t *corev1.Taint) bool {
	return slices.ContainsFunc(tolerations, func(o corev1.Toleration) bool { return o.ToleratesTaint(klog.Logger{}, t, false) })
}

func taintText(t *corev1.Taint) string {
	if t.Value == "" {
		return t.Key
	}
	return t.Key + "=" + t.Value
}

// unwanted is how little a node's PreferNoSchedule taints speak against it, from 0 to 1000.
func (n *node) unwanted(tolerations []corev1.Toleration) int32 {
	against := int32(0)
	for i := range n.prefer {
		if !tolerated(tolerations, &n.prefer[i]) {
			against++
		}
	}
	return 1000 / (1 + against)
}

// preference is the preferred node affinity of a pod.
type preference struct {
	terms *nodeaffinity.PreferredSchedulingTerms
	most  int64
}

func preferredAffinity(spec *corev1.PodSpec) preference {
	if spec.Affinity == nil || spec.Affinity.NodeAffinity == nil {
		return preference{}
	}
	list := spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution
	terms, err := nodeaffinity.NewPreferredSchedulingTerms(list)
	if err != nil {
		return preference{} // a preference that cannot be read is none; validation has said so
	}
	p := preference{terms: terms}
	for _, t := range list {
		p.most += int64(t.Weight)
	}
	return p
}

// score is which part of the weights a node meets, from 0 to 1000.
func (p preference) score(n *corev1.Node) int32 {
	if p.most == 0 {
		return 0
	}
	return int32(p.terms.Score(n) * 1000 / p.most)
}

// An image counts from the first of these sizes, and fully from the second, for each container; as in Kubernetes.
const (
	smallImage = 23 << 20
	largeImage = 1000 << 20
)

// imageScore is how much of a pod's images the node has, from 0 to 1000.
func (n *node) imageScore(spec *corev1.PodSpec) int32 {
	if len(n.images) == 0 {
		return 0
	}
	var sum int64
	count := int64(0)
	for _, list := range [...][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			sum += n.images[list[i].Image]
			count++
		}
	}
	most := largeImage * max(count, 1)
	sum = min(max(sum, smallImage), most)
	return int32(1000 * (sum - smallImage) / (most - smallImage))
}

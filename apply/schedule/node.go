package schedule

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/plan"
)

// node is a Node in the form in which it is asked about.
type node struct {
	id plan.NodeID
	// api is the node as Kubernetes' helpers want it: name, labels, taints.
	api    *corev1.Node
	taints []corev1.Taint // without PreferNoSchedule
	prefer []corev1.Taint // PreferNoSchedule
	images map[string]int64
	ports  []usedPort
	pods   []int32 // in Board.pods
}

// usedPort is a port of the node that pods have.
type usedPort struct {
	hostPort
	pods int32
}

func newNode(n Node) node {
	out := node{id: n.ID, images: n.Images}
	taints := n.Taints
	if n.Unschedulable && !slices.ContainsFunc(taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeUnschedulable }) {
		taints = append(slices.Clone(taints), corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}
	for _, t := range taints {
		if t.Effect == corev1.TaintEffectPreferNoSchedule {
			out.prefer = append(out.prefer, t)
		} else {
			out.taints = append(out.taints, t)
		}
	}
	out.api = &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: string(n.ID), Labels: n.Labels},
		Spec:       corev1.NodeSpec{Taints: taints, Unschedulable: n.Unschedulable},
	}
	return out
}

// topology is how the values of one label divide the nodes.
type topology struct {
	key    string
	domain []int32 // of every node; -1 without the label
	names  []string
}

// topologyOf returns how a label divides the nodes.
func (b *Board) topologyOf(key string) *topology {
	if t := b.topology[key]; t != nil {
		return t
	}
	t := &topology{key: key, domain: make([]int32, len(b.nodes))}
	ids := map[string]int32{}
	for i := range b.nodes {
		value, has := b.nodes[i].api.Labels[key]
		if !has {
			t.domain[i] = -1
			continue
		}
		id, known := ids[value]
		if !known {
			id = int32(len(t.names))
			ids[value] = id
			t.names = append(t.names, value)
		}
		t.domain[i] = id
	}
	b.topology[key] = t
	return t
}

package schedule

import (
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helpers "k8s.io/component-helpers/resource"
)

// The resources that every Board has, by their place in its columns. Processors are counted in thousandths.
const (
	cpu = iota
	memory
	ephemeral
	pods
	firstExtended
)

// What a pod that requests nothing counts for when nodes are compared; as in Kubernetes.
const (
	assumedCPU    = 100
	assumedMemory = 200 << 20
)

// resources are the columns of what the nodes have and what is left of it.
type resources struct {
	names []corev1.ResourceName
	has   [][]int64 // by resource, then by node
	free  [][]int64
	// lookCPU and lookMemory are what seems to be used when nodes are compared: pods that request nothing count too.
	lookCPU, lookMemory []int64
}

// request is what one pod takes.
type request struct {
	want []quantity
	// lookCPU and lookMemory are what it counts for when nodes are compared.
	lookCPU, lookMemory int64
}

type quantity struct {
	resource int
	amount   int64
}

func newResources(nodes []Node) resources {
	r := resources{names: []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, corev1.ResourcePods}}
	extended := map[corev1.ResourceName]bool{}
	for _, n := range nodes {
		for name := range n.Allocatable {
			if !slices.Contains(r.names[:firstExtended], name) {
				extended[name] = true
			}
		}
	}
	first := len(r.names)
	for name := range extended {
		r.names = append(r.names, name)
	}
	slices.Sort(r.names[first:])
	for k, name := range r.names {
		has := make([]int64, len(nodes))
		for i, n := range nodes {
			q, known := n.Allocatable[name]
			has[i] = amount(name, q)
			if k == pods && !known {
				has[i] = math.MaxInt32
			}
		}
		r.has = append(r.has, has)
		r.free = append(r.free, slices.Clone(has))
	}
	r.lookCPU, r.lookMemory = make([]int64, len(nodes)), make([]int64, len(nodes))
	return r
}

// amount is a quantity as a whole number, rounded up; processors in thousandths.
func amount(name corev1.ResourceName, q resource.Quantity) int64 {
	if name == corev1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

// text is the reverse of amount.
func text(name corev1.ResourceName, amount int64) string {
	switch name {
	case corev1.ResourceCPU:
		return resource.NewMilliQuantity(amount, resource.DecimalSI).String()
	case corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
		return resource.NewQuantity(amount, resource.BinarySI).String()
	default:
		return resource.NewQuantity(amount, resource.DecimalSI).String()
	}
}

// requestOf sums what a pod requests. A resource that no node has gets a column of its own, with nothing in it.
func (b *Board) requestOf(spec *corev1.PodSpec) request {
	r := &b.resources
	list := helpers.PodRequests(&corev1.Pod{Spec: *spec}, helpers.PodResourcesOptions{})
	out := request{want: []quantity{{pods, 1}}, lookCPU: assumedCPU, lookMemory: assumedMemory}
	names := make([]corev1.ResourceName, 0, len(list))
	for name := range list {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		n := amount(name, list[name])
		if n <= 0 {
			continue
		}
		switch name {
		case corev1.ResourceCPU:
			out.lookCPU = n
		case corev1.ResourceMemory:
			out.lookMemory = n
		}
		k := slices.Index(r.names, name)
		if k < 0 {
			k = len(r.names)
			r.names = append(r.names, name)
			r.has = append(r.has, make([]int64, len(b.nodes)))
			r.free = append(r.free, make([]int64, len(b.nodes)))
		}
		out.want = append(out.want, quantity{k, n})
	}
	slices.SortFunc(out.want, func(a, b quantity) int { return a.resource - b.resource })
	return out
}

func (r *resources) use(node int32, q *request, by int64) {
	for _, w := range q.want {
		r.free[w.resource][node] -= by * w.amount
	}
	r.lookCPU[node] += by * q.lookCPU
	r.lookMemory[node] += by * q.lookMemory
}

func (r *resources) fits(node int32, q *request) bool {
	for _, w := range q.want {
		if r.free[w.resource][node] < w.amount {
			return false
		}
	}
	return true
}

// lacking is the first resource that a node has not enough of; -1 when there is none.
func (r *resources) lacking(node int32, q *request) (at int, want, free int64) {
	for _, w := range q.want {
		if have := r.free[w.resource][node]; have < w.amount {
			return w.resource, w.amount, max(have, 0)
		}
	}
	return -1, 0, 0
}

// shares are how much of processor and memory would be used with the pod there, in thousandths, at most 1000.
func (r *resources) shares(node int32, q *request) (ofCPU, ofMemory int64) {
	return share(r.lookCPU[node]+q.lookCPU, r.has[cpu][node]), share(r.lookMemory[node]+q.lookMemory, r.has[memory][node])
}

func share(used, has int64) int64 {
	if has <= 0 || used >= has {
		return 1000
	}
	if used > math.MaxInt64/1000 {
		return used / (has / 1000)
	}
	return used * 1000 / has
}

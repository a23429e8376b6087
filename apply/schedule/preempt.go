package schedule

import (
	"cmp"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
)

// preempt looks for the node where the least has to go for a pod of the class to fit, and takes it away there. Like
// Kubernetes it looks, in this order, for the fewest evictions against a disruption budget, the lowest highest priority,
// the smallest sum of priorities, and the fewest pods; then the lower name wins. It returns -1 when nothing helps.
func (b *Board) preempt(c *class) (int32, []plan.PodKey) {
	if c.spec.PreemptionPolicy != nil && *c.spec.PreemptionPolicy == corev1.PreemptNever {
		return -1, nil
	}
	if !b.above(c.priority) {
		return -1, nil
	}
	best := victims{node: -1}
	for i := range b.nodes {
		if c.static[i] == never {
			continue
		}
		if v := b.victims(c, int32(i)); v.node >= 0 && (best.node < 0 || v.compare(best) < 0) {
			best = v
		}
	}
	if best.node < 0 {
		return -1, nil
	}
	var keys []plan.PodKey
	for _, p := range best.pods {
		keys = append(keys, p.key)
		b.Remove(p.key)
	}
	slices.SortFunc(keys, func(x, y plan.PodKey) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	return best.node, keys
}

// above reports whether a priority is higher than that of any pod that is there.
func (b *Board) above(priority int32) bool {
	for _, c := range b.order {
		if c.priority < priority && len(c.on) > 0 {
			return true
		}
	}
	return false
}

// victims are the pods of a node that would have to go.
type victims struct {
	node     int32 // -1 for a node where nothing helps
	pods     []placed
	against  int // of them against a budget
	highest  int32
	priority int64 // sum
}

func (v victims) compare(o victims) int {
	return cmp.Or(cmp.Compare(v.against, o.against), cmp.Compare(v.highest, o.highest), cmp.Compare(v.priority, o.priority), cmp.Compare(len(v.pods), len(o.pods)))
}

// victims finds which pods of a node have to go for a class: all of lower priority are taken away, and as many as can
// stay are put back, those first whose budget is used up, and those of higher priority. The Board is afterwards as it was.
func (b *Board) victims(c *class, i int32) victims {
	var lower []placed
	for _, at := range b.nodes[i].pods {
		if p := b.pods[at]; p.priority < c.priority && !p.leaving {
			lower = append(lower, p)
		}
	}
	if len(lower) == 0 {
		return victims{node: -1}
	}
	slices.SortFunc(lower, func(x, y placed) int {
		return cmp.Or(cmp.Compare(y.priority, x.priority), cmp.Compare(x.key.Namespace, y.key.Namespace), cmp.Compare(x.key.Name, y.key.Name))
	})
	protected := b.protected(lower)
	slices.SortStableFunc(lower, func(x, y placed) int { return cmp.Compare(btoi(protected[y.key]), btoi(protected[x.key])) })
	for _, p := range lower {
		b.Remove(p.key)
	}
	v := victims{node: i, highest: math.MinInt32}
	if !b.fits(c, i) {
		v.node = -1
	}
	for _, p := range lower {
		b.put(p.key, p.class, p.node, false)
		if v.node >= 0 && !b.fits(c, i) {
			b.Remove(p.key)
			v.pods = append(v.pods, p)
			v.against += btoi(protected[p.key])
			v.highest = max(v.highest, p.priority)
			v.priority += int64(p.priority) + math.MaxInt32 + 1 // so that more pods never weigh less
		}
	}
	for _, p := range v.pods {
		b.put(p.key, p.class, p.node, false)
	}
	return v
}

// protected are the pods that a budget keeps: those beyond as many as each budget allows.
func (b *Board) protected(list []placed) map[plan.PodKey]bool {
	out := map[plan.PodKey]bool{}
	for _, budget := range b.opt.Budgets {
		left := budget.Allowed
		for _, p := range list {
			if p.key.Namespace != budget.Namespace || !budget.Selects(p.class.labels) {
				continue
			}
			if left--; left < 0 {
				out[p.key] = true
			}
		}
	}
	return out
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

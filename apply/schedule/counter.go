package schedule

import (
	"cmp"
	"slices"
)

// counter counts pods in each domain of a topology.
type counter struct {
	key string
	// term is what it is about, ofOwners whether it counts the pods that ask for the term, and not those that the term selects.
	term     *term
	ofOwners bool
	topology *topology
	matches  func(*class) bool
	// eligible nodes count; nil is all of them.
	eligible []bool
	count    []int32
	total    int32
	// least keeps the smallest count of the domains that exist, for what asks for it.
	least *least
}

func (k *counter) use(node, by int32) {
	d := k.topology.domain[node]
	if d < 0 || k.eligible != nil && !k.eligible[node] {
		return
	}
	if k.least != nil {
		k.least.move(k.count[d], k.count[d]+by)
	}
	k.count[d] += by
	k.total += by
}

// at is how many pods are counted where a node is; 0 for a node without the label.
func (k *counter) at(node int32) int32 {
	if d := k.topology.domain[node]; d >= 0 {
		return k.count[d]
	}
	return 0
}

// addCounter makes a counter that counts what is there already, or returns the one that counts the same.
func (b *Board) addCounter(k *counter) *counter {
	if same := b.counters[k.key]; same != nil {
		return same
	}
	b.counters[k.key] = k
	k.count = make([]int32, len(k.topology.names))
	for _, c := range b.order {
		if k.matches(c) {
			c.counted = append(c.counted, k)
			for node, n := range c.on {
				k.use(node, n)
			}
		}
		if k.ofOwners && k.term.selects(b, c) {
			c.against = append(c.against, k)
		}
	}
	return k
}

func (b *Board) sortedCounters() []*counter {
	out := make([]*counter, 0, len(b.counters))
	for _, k := range b.counters {
		out = append(out, k)
	}
	slices.SortFunc(out, func(x, y *counter) int { return cmp.Compare(x.key, y.key) })
	return out
}

// least is the smallest of many counts that change by little: how many domains have which count.
type least struct {
	domains []int32 // by count
	now     int32
}

func (l *least) grow(n int32) {
	for int(n) >= len(l.domains) {
		l.domains = append(l.domains, 0)
	}
}

func (l *least) add(n int32) {
	l.grow(n)
	if l.domains[n]++; n < l.now || l.domains[l.now] == 0 {
		l.now = n
	}
}

func (l *least) move(from, to int32) {
	l.grow(max(from, to))
	l.domains[from]--
	l.domains[to]++
	if to < l.now {
		l.now = to
	}
	for int(l.now) < len(l.domains)-1 && l.domains[l.now] == 0 {
		l.now++
	}
}

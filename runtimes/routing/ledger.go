package routing

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// change is the difference between two states of the table: what is removed goes before what is added, and classes
// exist before something leads to them and until nothing does.
type change struct {
	addClasses, removeClasses []numbered
	remove, add               []element
	// moved says that a frontend may have changed hands since clients were remembered for it.
	moved bool
	// flows are the UDP frontends of Services that changed, as they are now.
	flows []frontend
}

func (c *change) empty() bool {
	return len(c.add)+len(c.remove)+len(c.addClasses)+len(c.removeClasses) == 0
}

// change computes what leads from what the kernel has to the routes, and remembers them as what it has.
func (r *Routes) change(routes plan.Routes) *change {
	c := &change{}
	before, after := r.have, routes
	for len(before) > 0 || len(after) > 0 {
		switch order := compareHeads(before, after); {
		case order < 0:
			r.exchange(c, r.units[before[0].Ref], nil)
			delete(r.units, before[0].Ref)
			before = before[1:]
		case order > 0:
			u := r.compile(after[0])
			r.exchange(c, nil, u)
			r.units[after[0].Ref] = u
			after = after[1:]
		default:
			old := r.units[after[0].Ref]
			if before[0] != after[0] || !slices.Equal(old.proxies, r.proxied(after[0])) {
				u := r.compile(after[0])
				r.exchange(c, old, u)
				r.units[after[0].Ref] = u
			}
			before, after = before[1:], after[1:]
		}
	}
	r.have = routes
	r.ledger.settle(c)
	c.addClasses, c.removeClasses = r.classes.settle()
	r.targets.settle()
	return c
}

func compareHeads(before, after plan.Routes) int {
	switch {
	case len(before) == 0:
		return 1
	case len(after) == 0:
		return -1
	}
	return object.Compare(before[0].Ref, after[0].Ref)
}

// exchange replaces one unit by another; either may be nil.
func (r *Routes) exchange(c *change, old, new *unit) {
	var none unit
	if old == nil {
		old = &none
	}
	if new == nil {
		new = &none
		for _, f := range old.flows {
			c.flows = append(c.flows, frontend{address: f.address, port: f.port})
		}
	}
	c.flows = append(c.flows, new.flows...)
	switch {
	case old.owner != nil:
		new.owner = old.owner
	default:
		new.owner = &owner{new.route.Ref}
	}
	who := new.owner
	differ(old.own, new.own, func(e element) { c.remove = append(c.remove, e) }, func(e element) { c.add = append(c.add, e) })
	r.ledger.own += len(new.own) - len(old.own)
	r.ledger.endpoints += new.endpoints - old.endpoints
	differ(old.shared, new.shared,
		func(e element) { r.ledger.release(who, e) },
		func(e element) { r.ledger.claim(who, e) })
	for _, a := range old.addresses {
		r.ledger.addresses[a]--
		if r.ledger.addresses[a] == 0 {
			delete(r.ledger.addresses, a)
		}
	}
	for _, a := range new.addresses {
		r.ledger.addresses[a]++
	}
	for _, cl := range old.classes {
		r.classes.drop(cl)
	}
	for _, k := range old.targets {
		r.targets.drop(k)
	}
}

// ledger knows who has the elements that several Services can claim: an address and port is the first Service's in
// order, the others wait for it.
type ledger struct {
	shared map[elementKey]claims
	// touched are the keys that changed since the last settling, with what the kernel has.
	touched map[elementKey]entry
	// own counts the elements that only one Service can have, endpoints what Stats says.
	own, endpoints int
	// addresses counts the uses of addresses that the bridge has to have.
	addresses map[netip.Addr]int
}

// owner is a Service that claims elements; it stays the same through all versions of its Route.
type owner struct{ ref object.Ref }

// entry is what the table has for a key; who is nil when it has nothing.
type entry struct {
	who  *owner
	val  [12]byte
	last [4]byte
}

// claims are all that want one key. The first has it.
type claims struct {
	entry
	more []entry
}

func newLedger() ledger {
	return ledger{shared: make(map[elementKey]claims), touched: make(map[elementKey]entry), addresses: make(map[netip.Addr]int)}
}

// size is the number of elements in the kernel.
func (l *ledger) size() int { return len(l.shared) + l.own }

func (l *ledger) touch(k elementKey) {
	if _, ok := l.touched[k]; !ok {
		l.touched[k] = l.shared[k].entry
	}
}

func (l *ledger) claim(who *owner, e element) {
	l.touch(e.elementKey)
	have, mine := l.shared[e.elementKey], entry{who, e.val, e.last}
	switch {
	case have.who == nil:
		have.entry = mine
	case object.Compare(who.ref, have.who.ref) < 0:
		have.more = append([]entry{have.entry}, have.more...)
		have.entry = mine
	default:
		at, _ := slices.BinarySearchFunc(have.more, mine, func(a, b entry) int { return object.Compare(a.who.ref, b.who.ref) })
		have.more = slices.Insert(slices.Clip(have.more), at, mine)
	}
	l.shared[e.elementKey] = have
}

func (l *ledger) release(who *owner, e element) {
	l.touch(e.elementKey)
	have := l.shared[e.elementKey]
	switch {
	case have.who != who:
		have.more = slices.DeleteFunc(slices.Clone(have.more), func(m entry) bool { return m.who == who })
	case len(have.more) > 0:
		have = claims{have.more[0], have.more[1:]}
	default:
		delete(l.shared, e.elementKey)
		return
	}
	l.shared[e.elementKey] = have
}

// settle adds what became of the touched keys to a change.
func (l *ledger) settle(c *change) {
	for k, was := range l.touched {
		is := l.shared[k].entry
		if k.set <= outsidePorts && is.who != was.who && is.who != nil {
			c.moved = true
		}
		if was.who != nil && is.who != nil && was.val == is.val && was.last == is.last {
			continue
		}
		if was.who != nil {
			c.remove = append(c.remove, element{k, was.val, was.last})
		}
		if is.who != nil {
			c.add = append(c.add, element{k, is.val, is.last})
		}
	}
	clear(l.touched)
	slices.SortFunc(c.remove, compareElements)
	slices.SortFunc(c.add, compareElements)
}

func compareElements(a, b element) int {
	return cmp.Or(cmp.Compare(a.set, b.set), bytes.Compare(a.key[:], b.key[:]))
}

// differ walks two sorted lists and says what is only in the first and only in the second. An element with another
// value is in both.
func differ(old, new []element, removed, added func(element)) {
	for len(old) > 0 && len(new) > 0 {
		switch {
		case old[0] == new[0]:
			old, new = old[1:], new[1:]
		case old[0].elementKey == new[0].elementKey:
			removed(old[0])
			added(new[0])
			old, new = old[1:], new[1:]
		case compareElements(old[0], new[0]) < 0:
			removed(old[0])
			old = old[1:]
		default:
			added(new[0])
			new = new[1:]
		}
	}
	for _, e := range old {
		removed(e)
	}
	for _, e := range new {
		added(e)
	}
}

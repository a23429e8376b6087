package routing

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
)

// class is a chain that chooses one of so many slots. All frontends of the same class share it, but those of round
// robin, which each need a counter.
type class struct {
	// from is the map that leads to it.
	from      set
	balancing plan.Balancing
	slots     int
	// affinity is in seconds; 0 for none.
	affinity uint32
	// frontend is the one of round robin.
	frontend [16]byte
}

// dropClass is the number of the class that drops.
const dropClass = 1

// chain is the name of the class's chain.
func (c class) chain() string {
	name := fmt.Sprintf("%s-%s-%d", c.from.name(), c.balancing, c.slots)
	if c.affinity > 0 {
		name += fmt.Sprintf("-for-%d", c.affinity)
	}
	if c.balancing == plan.RoundRobin {
		name += fmt.Sprintf("-%x", c.frontend[:layouts[c.from].KeyType.Bytes])
	}
	return name
}

type numbered struct {
	class
	number uint32
}

// classes gives numbers to classes and counts their uses.
type classes struct {
	of   map[class]*classUse
	next uint32
	// changed are the classes whose use changed since the last settling.
	changed map[class]bool
}

type classUse struct {
	number uint32
	uses   int
	exists bool // in the kernel
}

func newClasses() classes {
	return classes{of: make(map[class]*classUse), next: dropClass + 1, changed: make(map[class]bool)}
}

// number returns the number of a class and counts one use.
func (c *classes) number(k class) uint32 {
	use := c.of[k]
	if use == nil {
		use = &classUse{number: c.next}
		c.next++
		c.of[k] = use
	}
	use.uses++
	c.changed[k] = true
	return use.number
}

func (c *classes) drop(k class) {
	c.of[k].uses--
	c.changed[k] = true
}

// settle returns the classes that are new and those that nothing uses any more.
func (c *classes) settle() (add, remove []numbered) {
	for k := range c.changed {
		switch use := c.of[k]; {
		case use.uses > 0 && !use.exists:
			use.exists = true
			add = append(add, numbered{k, use.number})
		case use.uses == 0:
			if use.exists {
				remove = append(remove, numbered{k, use.number})
			}
			delete(c.of, k)
		}
	}
	clear(c.changed)
	byNumber := func(a, b numbered) int { return cmp.Compare(a.number, b.number) }
	slices.SortFunc(add, byNumber)
	slices.SortFunc(remove, byNumber)
	return add, remove
}

// numbers gives numbers to the endpoints that clients can stay with. They follow from what is numbered, so that after a
// restart a client is found at the endpoint that it had. Where two names meet, the later one takes the next number.
type numbers struct {
	of      map[targetKey]*targetUse
	who     map[uint32]targetKey
	changed map[targetKey]bool
}

type targetUse struct {
	number uint32
	uses   int
	// ended is when the last use ended. The number rests until no client can be left that remembers it.
	ended time.Time
}

// restOfNumber is the longest time of session affinity.
const restOfNumber = 24*time.Hour + time.Minute

func newNumbers() numbers {
	return numbers{of: make(map[targetKey]*targetUse), who: make(map[uint32]targetKey), changed: make(map[targetKey]bool)}
}

// number returns the number of a target and counts one use.
func (n *numbers) number(k targetKey) uint32 {
	use := n.of[k]
	if use == nil {
		h := fnv.New64a()
		fmt.Fprintf(h, "%s/%s/%d/%s/%s", k.service.Namespace, k.service.Name, k.port, k.protocol, k.at)
		number := uint32(mix(h.Sum64()))
		for n.taken(number) {
			number++
		}
		use = &targetUse{number: number}
		n.of[k], n.who[number] = use, k
	}
	use.uses++
	return use.number
}

// taken reports whether a number is another target's, or 0, which is none. A rest that is over ends here.
func (n *numbers) taken(number uint32) bool {
	if number == 0 {
		return true
	}
	k, ok := n.who[number]
	if !ok {
		return false
	}
	if use := n.of[k]; use.uses > 0 || time.Since(use.ended) < restOfNumber {
		return true
	}
	delete(n.of, k)
	delete(n.who, number)
	return false
}

func (n *numbers) drop(k targetKey) {
	n.of[k].uses--
	n.changed[k] = true
}

// settle begins the rest of numbers that are not used any more, and ends that of as many others.
func (n *numbers) settle() {
	for k := range n.changed {
		if use := n.of[k]; use != nil && use.uses == 0 {
			use.ended = time.Now()
		}
	}
	looked := 0
	for k, use := range n.of {
		if looked++; looked > 2*len(n.changed) {
			break
		}
		if use.uses == 0 && time.Since(use.ended) >= restOfNumber {
			delete(n.of, k)
			delete(n.who, use.number)
		}
	}
	clear(n.changed)
}

package reconcile

import (
	"maps"
	"slices"
	"sync"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Claims says which application owns an object, for all applications of a daemon.
//
// The first application that has an object keeps it for as long as it wants it, so two that want the same one never take
// it from each other. One that has it and does not want it any more keeps it until another one wants it and takes it
// over; only what nobody else wants is deleted. Who takes over writes that down first, and then the old owner forgets the
// object: at every moment at least one inventory has it, and after a crash in between, Applied.Moved tells the new from
// the old.
type Claims struct {
	mu       sync.Mutex
	owner    map[object.Ref]string
	apps     map[string]*claimant
	wanted   map[object.Ref]int // by how many applications
	recorded map[object.Ref]int // in how many inventories
	wake     func(application string)
	noted    func(application string, inventory []plan.Applied)
	// moves counts what changed, and answers are what applications were told last.
	moves   int
	answers map[string]told
}

// claimant is what is known of one application.
type claimant struct {
	wants     []object.Ref // sorted
	known     bool         // wants is what it wants; otherwise it may want anything
	inventory []plan.Applied
}

// told is what Standing has returned for refs, which holds until something moves.
type told struct {
	refs     []object.Ref
	standing Standing
	moves    int
}

// Standing is how an application stands to what it wants.
type Standing struct {
	// Others are objects that other applications own and want, with the owner.
	Others map[object.Ref]string
	// Arrivals are objects that other applications have and do not want any more.
	Arrivals map[object.Ref]plan.Arrival
}

// NewClaims returns claims of nobody. wake is called, with no lock of a caller's needed, for every application to which
// something changes that it was told; it must not block and not call back.
func NewClaims(wake func(application string)) *Claims {
	return &Claims{
		owner: map[object.Ref]string{}, apps: map[string]*claimant{}, wanted: map[object.Ref]int{}, recorded: map[object.Ref]int{},
		answers: map[string]told{}, wake: wake,
	}
}

// Note has f called with every inventory that is recorded from now on, those of one application in their order. It is set before
// anything is recorded, and must not call back.
func (c *Claims) Note(f func(application string, inventory []plan.Applied)) { c.noted = f }

func (c *Claims) app(name string) *claimant {
	a := c.apps[name]
	if a == nil {
		a = &claimant{}
		c.apps[name] = a
	}
	return a
}

// has reports whether the application's inventory has an object.
func (a *claimant) has(r object.Ref) bool {
	_, has := object.Find(a.inventory, appliedName, r)
	return has
}

// wishes reports whether the application is known to want an object.
func (a *claimant) wishes(r object.Ref) bool {
	_, wants := slices.BinarySearchFunc(a.wants, r, object.Compare)
	return wants
}

// letsGo reports whether an application has an object and is known not to want it. One of which nothing is known may
// want everything that it has.
func (c *Claims) letsGo(name string, r object.Ref) bool {
	a := c.apps[name]
	return a != nil && a.known && !a.wishes(r)
}

// Wants says what an application wants; refs are sorted, and never modified afterwards.
func (c *Claims) Wants(application string, refs []object.Ref) {
	c.mu.Lock()
	a := c.app(application)
	if a.known && (sameSlice(a.wants, refs) || slices.Equal(a.wants, refs)) {
		c.mu.Unlock()
		return
	}
	before := a.wants
	unknown := !a.known
	a.wants, a.known = refs, true
	woken := map[string]bool{}
	each(before, refs, func(r object.Ref) { // not wanted any more
		if c.wanted[r]--; c.wanted[r] <= 0 {
			delete(c.wanted, r)
		}
		c.release(application, a, r)
		if c.wanted[r] > 0 {
			c.wakeWanting(r, application, woken)
		}
		if owner := c.owner[r]; owner != "" && owner != application {
			woken[owner] = true
		}
	})
	each(refs, before, func(r object.Ref) {
		c.wanted[r]++
		if owner := c.owner[r]; owner != "" && owner != application {
			woken[owner] = true
		}
	})
	if unknown {
		// Until now it might have wanted everything that it has.
		for i := range a.inventory {
			if r := a.inventory[i].Ref; c.wanted[r] > 0 && !a.wishes(r) {
				c.wakeWanting(r, application, woken)
			}
		}
	}
	c.moves++
	c.mu.Unlock()
	c.wakeAll(woken)
}

// Recorded says what the inventory of an application has, as it is written down; it is sorted, and never modified afterwards.
func (c *Claims) Recorded(application string, inventory []plan.Applied) {
	c.mu.Lock()
	a := c.app(application)
	if sameSlice(a.inventory, inventory) {
		c.mu.Unlock()
		return
	}
	before := a.inventory
	a.inventory = inventory
	woken := map[string]bool{}
	lacking(before, inventory, func(r object.Ref) {
		c.moves++
		if c.recorded[r]--; c.recorded[r] <= 0 {
			delete(c.recorded, r)
		}
		c.release(application, a, r)
		if c.owner[r] == "" && c.wanted[r] > 0 {
			c.wakeWanting(r, application, woken)
		}
	})
	lacking(inventory, before, func(r object.Ref) {
		c.moves++
		c.recorded[r]++
		switch owner := c.owner[r]; {
		case owner == "" || owner != application && c.newer(application, owner, r):
			c.owner[r] = application
		}
		if c.recorded[r] > 1 {
			for name, other := range c.apps {
				if name != application && other.has(r) {
					woken[name] = true
				}
			}
		}
	})
	c.mu.Unlock()
	if c.noted != nil {
		c.noted(application, inventory)
	}
	c.wakeAll(woken)
}

// newer reports whether of two inventories that have an object, that of a is its owner's.
func (c *Claims) newer(a, b string, r object.Ref) bool {
	of := func(name string) int {
		app := c.app(name)
		if at, has := object.Find(app.inventory, appliedName, r); has {
			return app.inventory[at].Moved
		}
		return -1
	}
	return of(a) > of(b) && of(b) >= 0
}

// release gives up an object that an application neither wants nor has.
func (c *Claims) release(application string, a *claimant, r object.Ref) {
	if c.owner[r] == application && !a.wishes(r) && !a.has(r) {
		delete(c.owner, r)
	}
}

func (c *Claims) wakeWanting(r object.Ref, but string, woken map[string]bool) {
	for name, a := range c.apps {
		if name != but && a.wishes(r) {
			woken[name] = true
		}
	}
}

func (c *Claims) wakeAll(names map[string]bool) {
	for _, name := range slices.Sorted(maps.Keys(names)) {
		c.wake(name)
	}
}

// each calls f for all of a sorted list that another one lacks.
func each(list, but []object.Ref, f func(object.Ref)) {
	for _, r := range list {
		for len(but) > 0 && object.Compare(but[0], r) < 0 {
			but = but[1:]
		}
		if len(but) == 0 || but[0] != r {
			f(r)
		}
	}
}

// lacking calls f for all of an inventory that another one lacks.
func lacking(list, but []plan.Applied, f func(object.Ref)) {
	for i := range list {
		r := list[i].Ref
		for len(but) > 0 && object.Compare(but[0].Ref, r) < 0 {
			but = but[1:]
		}
		if len(but) == 0 || but[0].Ref != r {
			f(r)
		}
	}
}

// Forget drops an application that is gone, with everything of it.
func (c *Claims) Forget(application string) {
	c.Wants(application, nil)
	c.Recorded(application, nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.apps, application)
	delete(c.answers, application)
}

// Standing says how an application stands to objects that it wants. With hold, what nobody has is the application's from
// then on. What is asked again is answered without a look at each, as long as nothing has changed. Neither refs nor what
// is returned may be modified afterwards.
func (c *Claims) Standing(application string, refs []object.Ref, hold bool) Standing {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last, asked := c.answers[application]; asked && hold && last.moves == c.moves && slices.Equal(last.refs, refs) {
		return last.standing
	}
	var s Standing
	for _, r := range refs {
		switch owner := c.owner[r]; {
		case owner == application:
		case owner == "":
			if hold {
				c.owner[r] = application
				c.moves++
			}
		case c.letsGo(owner, r):
			if s.Arrivals == nil {
				s.Arrivals = map[object.Ref]plan.Arrival{}
			}
			arrival := plan.Arrival{From: owner}
			if at, has := object.Find(c.apps[owner].inventory, appliedName, r); has {
				applied := c.apps[owner].inventory[at]
				arrival.Applied = &applied
			}
			s.Arrivals[r] = arrival
		default:
			if s.Others == nil {
				s.Others = map[object.Ref]string{}
			}
			s.Others[r] = owner
		}
	}
	if hold && len(s.Arrivals) == 0 { // what arrives may be applied again by its old owner
		c.answers[application] = told{refs, s, c.moves}
	}
	return s
}

// Take makes objects an application's that their owners do not want any more. It takes all of them, or none when
// somebody wants one again.
func (c *Claims) Take(application string, refs []object.Ref) bool {
	c.mu.Lock()
	for _, r := range refs {
		if owner := c.owner[r]; owner != "" && owner != application && !c.letsGo(owner, r) {
			c.mu.Unlock()
			return false
		}
	}
	woken := map[string]bool{}
	for _, r := range refs {
		if owner := c.owner[r]; owner != "" && owner != application {
			woken[owner] = true
		}
		c.owner[r] = application
	}
	c.moves++
	c.mu.Unlock()
	c.wakeAll(woken)
	return true
}

// Departures says who wants, or has taken over, what an application has and does not want. What was to move to an
// application of which nothing is known yet, and that is declared, still is.
func (c *Claims) Departures(application string, refs []object.Ref, declared func(string) bool) map[object.Ref]plan.Departure {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out map[object.Ref]plan.Departure
	for _, r := range refs {
		d := plan.Departure{To: c.owner[r]}
		if d.To == application || d.To == "" {
			d.To = ""
			for name, a := range c.apps {
				if name != application && a.wishes(r) && (d.To == "" || name < d.To) {
					d.To = name
				}
			}
		} else {
			d.Done = c.app(d.To).has(r)
		}
		if at, has := object.Find(c.app(application).inventory, appliedName, r); has && d.To == "" {
			to := c.apps[application].inventory[at].MovesTo
			if a := c.apps[to]; to != "" && (a == nil || !a.known) && declared(to) {
				d.To = to
			}
		}
		if d.To == "" {
			continue
		}
		if out == nil {
			out = map[object.Ref]plan.Departure{}
		}
		out[r] = d
	}
	return out
}

// Doubles returns which other applications' inventories have something of an application's as well, and what.
func (c *Claims) Doubles(application string) map[string][]object.Ref {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out map[string][]object.Ref
	inventory := c.app(application).inventory
	for i := range inventory {
		r := inventory[i].Ref
		if c.recorded[r] < 2 || c.owner[r] != application {
			continue
		}
		for name, a := range c.apps {
			if name != application && a.has(r) {
				if out == nil {
					out = map[string][]object.Ref{}
				}
				out[name] = append(out[name], r)
			}
		}
	}
	return out
}

// Owner returns the application that owns an object; empty when none does.
func (c *Claims) Owner(r object.Ref) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.owner[r]
}

// Snapshot returns a copy that nobody is woken by, for plans that are only shown.
func (c *Claims) Snapshot() *Claims {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := NewClaims(func(string) {})
	s.owner, s.wanted, s.recorded = maps.Clone(c.owner), maps.Clone(c.wanted), maps.Clone(c.recorded)
	for name, a := range c.apps {
		copied := *a
		s.apps[name] = &copied
	}
	return s
}

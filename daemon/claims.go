package daemon

import (
	"slices"
	"sync"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// claims says which application owns an object. The first one that wants it keeps it until it gives it
// up, so two applications that claim one object never take it from each other.
type claims struct {
	mu    sync.Mutex
	owner map[object.Ref]string
	held  map[string][]object.Ref
}

func newClaims() *claims {
	return &claims{owner: map[object.Ref]string{}, held: map[string][]object.Ref{}}
}

// hold replaces what application holds by refs, as far as nobody else holds it, and reports whether it
// let anything go. It is cheap when refs are in order and nothing changes.
func (c *claims) hold(application string, refs []object.Ref) (letGo bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.held[application]
	if slices.Equal(before, refs) {
		return false
	}
	for _, r := range before {
		if c.owner[r] == application {
			delete(c.owner, r)
		}
	}
	c.held[application] = nil
	c.take(application, refs)
	for _, r := range before {
		if c.owner[r] != application {
			return true
		}
	}
	return false
}

// union returns the refs of what is desired and of what was applied, in order; both are.
func union(desired []object.Object, applied []plan.Applied) []object.Ref {
	refs := make([]object.Ref, 0, max(len(desired), len(applied)))
	for len(desired)+len(applied) > 0 {
		switch {
		case len(applied) == 0:
			refs, desired = append(refs, desired[0].Ref), desired[1:]
		case len(desired) == 0:
			refs, applied = append(refs, applied[0].Ref), applied[1:]
		default:
			order := object.Compare(desired[0].Ref, applied[0].Ref)
			if order <= 0 {
				refs, desired = append(refs, desired[0].Ref), desired[1:]
			}
			if order == 0 {
				applied = applied[1:]
			} else if order > 0 {
				refs, applied = append(refs, applied[0].Ref), applied[1:]
			}
		}
	}
	return refs
}

// take adds those of refs that nobody holds to what application holds, and returns the others with their owner.
func (c *claims) take(application string, refs []object.Ref) map[object.Ref]string {
	var others map[object.Ref]string
	for _, r := range refs {
		switch owner := c.owner[r]; owner {
		case application:
		case "":
			c.owner[r] = application
			c.held[application] = append(c.held[application], r)
		default:
			if others == nil {
				others = map[object.Ref]string{}
			}
			others[r] = owner
		}
	}
	return others
}

// claim is take for callers from outside.
func (c *claims) claim(application string, refs []object.Ref) map[object.Ref]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.take(application, refs)
}

// others returns those of refs that somebody else holds, and takes nothing.
func (c *claims) others(application string, refs []object.Ref) map[object.Ref]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out map[object.Ref]string
	for _, r := range refs {
		if owner := c.owner[r]; owner != "" && owner != application {
			if out == nil {
				out = map[object.Ref]string{}
			}
			out[r] = owner
		}
	}
	return out
}

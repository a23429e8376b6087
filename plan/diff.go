package plan

import (
	"maps"
	"slices"
	"strconv"

	"github.com/fairlead-dev/fairlead/render/object"
)

// sensitive stands for the values of Secrets, as JSON.
const sensitive = `"(sensitive)"`

// differ compares what was applied of one object with what is written now.
type differ struct {
	// DigestKey is the one that the inventory was redacted with.
	DigestKey []byte
	// Ignore are the application's rules; those that match the object count.
	Ignore []IgnoreRule
	// Replaces says of a field whether its change forces a replacement. The path has no names of list
	// elements: spec.template.spec.containers.image. Nil means that no field does.
	Replaces func(path string) bool
}

// diff returns the fields that change from old to new, in the order of the manifest with keys sorted,
// and how many stay. Elements of lists are addressed by the key that Kubernetes merges them by. What
// is written differently and means the same (1000m and 1, null and absent) is no change. A zero old
// has every field of new changed.
func (d differ) diff(old Applied, new object.Object) (changed []FieldChange, unchanged int) {
	c := comparison{secret: isSecret(new.Ref), replaces: d.Replaces}
	rules := pointersFor(d.Ignore, new.Ref)
	c.values(path{}, withoutNulls(parse(redact(new.Ref, old.Written, nil, d.DigestKey))),
		withoutNulls(parse(redact(new.Ref, new.Written, new.Hidden, d.DigestKey))), rules, rules)
	return c.changed, c.unchanged
}

// comparison is the state of one diff.
type comparison struct {
	secret    bool
	replaces  func(string) bool
	changed   []FieldChange
	unchanged int
}

// values compares two values at p; nil is absent. oldSkip and newSkip are what is ignored below, since
// the indices of an element can differ.
func (c *comparison) values(p path, old, new any, oldSkip, newSkip pointers) {
	if oldSkip.here() || newSkip.here() {
		return
	}
	switch o := old.(type) {
	case map[string]any:
		switch n := new.(type) {
		case map[string]any:
			c.maps(p, o, n, oldSkip, newSkip)
			return
		case nil:
			if len(o) > 0 {
				c.maps(p, o, nil, oldSkip, newSkip)
				return
			}
		}
	case []any:
		switch n := new.(type) {
		case []any:
			c.lists(p, o, n, oldSkip, newSkip)
			return
		case nil:
			if elementsOf(p.last(), o, nil) != nil {
				c.lists(p, o, nil, oldSkip, newSkip)
				return
			}
		}
	case nil:
		switch n := new.(type) {
		case map[string]any:
			if len(n) > 0 {
				c.maps(p, nil, n, oldSkip, newSkip)
				return
			}
		case []any:
			if elementsOf(p.last(), nil, n) != nil {
				c.lists(p, nil, n, oldSkip, newSkip)
				return
			}
		case nil:
			return
		}
	}
	c.leaf(p, old, new)
}

// leaf compares two values as a whole.
func (c *comparison) leaf(p path, old, new any) {
	before, after := string(encode(old)), string(encode(new))
	if old == nil {
		before = ""
	}
	if new == nil {
		after = ""
	}
	if before == after || old != nil && new != nil && sameMeaning(p, old, new) {
		c.unchanged++
		return
	}
	if c.secret && p.top("data") || isDigest(before) || isDigest(after) {
		if before != "" {
			before = sensitive
		}
		if after != "" {
			after = sensitive
		}
	}
	c.add(p, before, after)
}

func (c *comparison) add(p path, old, new string) {
	c.changed = append(c.changed, FieldChange{
		Path: p.shown, Old: old, New: new, Replaces: c.replaces != nil && c.replaces(p.schema()),
	})
}

func (c *comparison) maps(p path, old, new map[string]any, oldSkip, newSkip pointers) {
	keys := slices.Collect(maps.Keys(new))
	for k := range old {
		if _, both := new[k]; !both {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		c.values(p.key(k), old[k], new[k], oldSkip.child(k), newSkip.child(k))
	}
}

// lists compares by name where elements have one, as sets where order means nothing, and by position else.
func (c *comparison) lists(p path, old, new []any, oldSkip, newSkip pointers) {
	if len(old) == 0 && len(new) == 0 {
		c.unchanged++
		return
	}
	e := elementsOf(p.last(), old, new)
	if e == nil {
		c.positions(p, old, new, oldSkip, newSkip)
		return
	}
	var before, after []string // names that are in both, in the order of each
	for i, name := range e.new {
		j, both := e.oldAt[name]
		if !both {
			c.values(p.element(name), nil, new[i], nil, newSkip.child(strconv.Itoa(i)))
			continue
		}
		after = append(after, name)
		c.values(p.element(name), old[j], new[i], oldSkip.child(strconv.Itoa(j)), newSkip.child(strconv.Itoa(i)))
	}
	for j, name := range e.old {
		if _, both := e.newAt[name]; both {
			before = append(before, name)
			continue
		}
		c.values(p.element(name), old[j], nil, oldSkip.child(strconv.Itoa(j)), nil)
	}
	if !slices.Equal(before, after) {
		// The names alone: their order is what changes.
		c.add(p, string(encode(e.old)), string(encode(e.new)))
	}
}

// positions compares element by element where the lengths are equal, and otherwise as a whole: an
// element put in front would else show all of them as changed.
func (c *comparison) positions(p path, old, new []any, oldSkip, newSkip pointers) {
	if len(old) != len(new) {
		c.leaf(p, old, new)
		return
	}
	for i := range new {
		at := strconv.Itoa(i)
		c.values(p.element(at), old[i], new[i], oldSkip.child(at), newSkip.child(at))
	}
}

// withoutNulls removes null fields in place: Kubernetes takes them for absent ones.
func withoutNulls(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if e == nil {
				delete(v, k)
				continue
			}
			v[k] = withoutNulls(e)
		}
	case []any:
		for i := range v {
			v[i] = withoutNulls(v[i])
		}
	}
	return v
}

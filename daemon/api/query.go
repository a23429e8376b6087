package api

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairlead-dev/fairlead/render/object"
)

// Matcher is a Query whose selector was parsed.
type Matcher struct {
	q        Query
	selector labels.Selector
}

// Matcher parses the selector; a bad one is ErrInvalid.
func (q Query) Matcher() (Matcher, error) {
	sel, err := labels.Parse(q.Selector)
	if err != nil {
		return Matcher{}, fmt.Errorf("%w: label selector %q: %w", ErrInvalid, q.Selector, err)
	}
	return Matcher{q: q, selector: sel}, nil
}

// Object reports whether o is selected.
func (m Matcher) Object(o Object) bool {
	return (len(m.q.Kinds) == 0 || slices.Contains(m.q.Kinds, o.Kind)) && m.match(o.Ref, o.Labels, o.Application)
}

// Pod reports whether p is selected.
func (m Matcher) Pod(p Pod) bool {
	return m.match(p.Ref(), p.Labels, p.Application) && (m.q.Owner.IsZero() || p.Owner == m.q.Owner)
}

func (m Matcher) match(r object.Ref, l map[string]string, application string) bool {
	return (m.q.Namespace == "" || r.Namespace == "" || r.Namespace == m.q.Namespace) &&
		(len(m.q.Names) == 0 || slices.Contains(m.q.Names, r.Name)) &&
		(m.q.Application == "" || m.q.Application == application) &&
		m.selector.Matches(labels.Set(l))
}

// Match reports whether e is selected by everything but Tail and Follow.
func (q EventQuery) Match(e Event) bool {
	return (q.Since.IsZero() || !e.Time.Before(q.Since)) &&
		(q.After == 0 || e.Seq > q.After) &&
		(q.Application == "" || q.Application == e.Application) &&
		(q.Namespace == "" || e.Ref.Namespace == "" || q.Namespace == e.Ref.Namespace) &&
		(q.Ref.IsZero() || q.Ref == e.Ref)
}

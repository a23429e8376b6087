package plan

import (
	"slices"

	"github.com/fairlead-dev/fairlead/render/object"
)

// selection finds what a selector selects without looking at everything. The zero value selects from nothing.
type selection struct {
	all []selectable
	by  map[selectKey][]int // indexes of all
}

type selectable struct {
	labels map[string]string
	ref    object.Ref
}

// selectKey is one label in a namespace.
type selectKey struct{ namespace, label, value string }

// add makes the pods of ref selectable by their labels.
func (s *selection) add(namespace string, labels map[string]string, ref object.Ref) {
	if s.by == nil {
		s.by = map[selectKey][]int{}
	}
	for k, v := range labels {
		key := selectKey{namespace, k, v}
		s.by[key] = append(s.by[key], len(s.all))
	}
	s.all = append(s.all, selectable{labels, ref})
}

// selectedBy returns what a Service selects, each once, in the order in which it was added.
func (s *selection) selectedBy(svc *Service) []object.Ref {
	if !svc.HasSelector() {
		return nil
	}
	var few []int
	first := true
	for k, v := range svc.Spec.Selector {
		if with := s.by[selectKey{svc.Namespace, k, v}]; first || len(with) < len(few) {
			few, first = with, false
		}
	}
	var out []object.Ref
	for _, i := range few {
		if c := &s.all[i]; svc.Selects(svc.Namespace, c.labels) && !slices.Contains(out, c.ref) {
			out = append(out, c.ref)
		}
	}
	return out
}

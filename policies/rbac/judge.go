package rbac

import (
	"cmp"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Code is that of the findings of Judge.
const Code = "forbidden"

// Judge returns a finding for everything that a plan does to an object and that whoever the application acts as may not do. What
// becomes of pods because of an object, or to bring them back, is not asked for: nobody but the object's writer wants it.
// desired is what the plan was computed from.
func (r *Rules) Judge(id Identity, p plan.Plan, desired plan.Desired) diag.List {
	var found diag.List
	after := r.with(desired.Objects)
	for i := range p.Changes {
		c := &p.Changes[i]
		if c.Owner != (object.Ref{}) {
			continue // whoever may write the StatefulSet may have its claims, as in Kubernetes
		}
		for _, verbs := range verbsOf(c.Action) {
			if d, ok := r.may(id, c.Ref, c.Origin, verbs); !ok {
				found = append(found, d)
			}
		}
		at, ok := object.Find(desired.Objects, nameOf, c.Ref)
		if !ok || c.Action == plan.ActionDelete || c.Action == plan.ActionNone {
			continue
		}
		if err := r.Grants(id, &desired.Objects[at], after); err != nil {
			found = append(found, diag.Diagnostic{
				Severity: diag.Error, Code: Code, Ref: c.Ref, Origin: c.Origin,
				Message: fmt.Sprintf("%s may not write this: %v", id.User, err),
				Hint:    "have somebody write it who has these rights, or give them to the identity first",
			})
		}
	}
	return found
}

// JudgeOne reports whether somebody may do something to an object, with a finding when not.
func (r *Rules) JudgeOne(id Identity, o object.Object, verb string) (diag.Diagnostic, bool) {
	return r.may(id, o.Ref, o.Origin, []string{verb})
}

// may reports whether one of several verbs is allowed, with a finding when none is.
func (r *Rules) may(id Identity, ref object.Ref, at object.Origin, verbs []string) (diag.Diagnostic, bool) {
	for _, verb := range verbs {
		if _, ok := r.Allows(id, RequestFor(ref, verb)); ok {
			return diag.Diagnostic{}, true
		}
	}
	q := RequestFor(ref, verbs[0])
	return diag.Diagnostic{
		Severity: diag.Error, Code: Code, Ref: ref, Origin: at,
		Message: fmt.Sprintf("%s may not %s", id.User, q.in()), Hint: hint(q, verbs),
	}, false
}

func nameOf(o *object.Object) object.Ref { return o.Ref }

// verbsOf returns the verbs that an action needs; of each list one is enough.
func verbsOf(a plan.Action) [][]string {
	switch a {
	case plan.ActionCreate:
		return [][]string{{"create"}}
	case plan.ActionUpdate, plan.ActionMove:
		return [][]string{{"update", "patch"}}
	case plan.ActionStartFirst, plan.ActionStopFirst:
		return [][]string{{"delete"}, {"create"}}
	case plan.ActionDelete:
		return [][]string{{"delete"}}
	case plan.ActionNone:
	}
	return nil
}

// RequestFor is the request to do something to an object.
func RequestFor(ref object.Ref, verb string) Request {
	q := Request{Verb: verb, Group: ref.Group, Resource: ResourceOf(ref.Group, ref.Kind), Namespace: ref.Namespace, Name: ref.Name}
	switch {
	case verb == "create":
		q.Name = "" // Kubernetes does not know the name either when something is created
	case ref.Kind == "Namespace" && ref.Group == "":
		q.Namespace = ref.Name // as Kubernetes asks: a RoleBinding in it may allow it
	}
	return q
}

// ResourceOf is the resource of a kind: its plural, as rules name it.
func ResourceOf(group, kind string) string {
	if group == "" && kind == "Endpoints" {
		return "endpoints"
	}
	plural, _ := meta.UnsafeGuessKindToResource(schema.GroupVersionKind{Group: group, Kind: kind})
	return plural.Resource
}

// in says where something is done: in which namespace, or in none.
func (q Request) in() string {
	if q.Namespace == "" {
		return q.String() + ", which are in no namespace"
	}
	return q.String()
}

// hint says what would allow it.
func hint(q Request, verbs []string) string {
	group := `""`
	if q.Group != "" {
		group = q.Group
	}
	rule := fmt.Sprintf("{apiGroups: [%s], resources: [%s], verbs: [%s]}", group, q.Resource, strings.Join(verbs[:1], ", "))
	if q.Namespace == "" {
		return "it needs a ClusterRoleBinding to a ClusterRole with the rule " + rule
	}
	return fmt.Sprintf("it needs a RoleBinding in %s to a role with the rule %s", cmp.Or(q.Namespace, "its namespace"), rule)
}

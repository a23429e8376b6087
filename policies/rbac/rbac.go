// Package rbac judges requests by Role, ClusterRole, RoleBinding and ClusterRoleBinding objects, with Kubernetes' semantics.
//
// It is pure. Rules are made from objects once and never change; what may be done follows from them and the request alone.
package rbac

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	rbachelpers "k8s.io/kubernetes/pkg/apis/rbac/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Group is the API group of the objects.
const Group = rbacv1.GroupName

// Identity is who asks.
type Identity struct {
	User   string
	Groups []string
}

// Masters is the group whose members may do everything, whatever the objects say.
const Masters = "system:masters"

// ServiceAccount is the identity of a service account, with the groups that Kubernetes gives it.
func ServiceAccount(namespace, name string) Identity {
	return Identity{
		User:   "system:serviceaccount:" + namespace + ":" + name,
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
	}
}

// ParseUser is the identity of a user by name. A name of the form system:serviceaccount:NAMESPACE:NAME is a service account, and
// has its groups besides those that are given.
func ParseUser(user string, groups ...string) Identity {
	id := Identity{User: user, Groups: []string{"system:authenticated"}}
	if rest, ok := strings.CutPrefix(user, "system:serviceaccount:"); ok {
		if namespace, name, ok := strings.Cut(rest, ":"); ok {
			id = ServiceAccount(namespace, name)
		}
	}
	id.Groups = append(id.Groups, groups...)
	return id
}

// ParseAccount is the identity of a service account that is written NAMESPACE/NAME.
func ParseAccount(account string) (Identity, error) {
	namespace, name, ok := strings.Cut(account, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
		return Identity{}, fmt.Errorf("%q is no service account: write NAMESPACE/NAME", account)
	}
	return ServiceAccount(namespace, name), nil
}

// Request is what somebody wants to do. Namespace is empty for what has none, and for all namespaces; Path is set instead of the
// other fields for what is no resource.
type Request struct {
	Verb        string
	Group       string
	Resource    string
	Subresource string
	Namespace   string
	Name        string
	Path        string
}

// String returns for example `update deployments.apps "web" in payments`.
func (q Request) String() string {
	if q.Path != "" {
		return q.Verb + " " + q.Path
	}
	s := q.Verb + " " + q.resource()
	if q.Group != "" {
		s = q.Verb + " " + q.Resource + "." + q.Group
		if q.Subresource != "" {
			s += "/" + q.Subresource
		}
	}
	if q.Name != "" {
		s += fmt.Sprintf(" %q", q.Name)
	}
	if q.Namespace != "" {
		s += " in " + q.Namespace
	}
	return s
}

func (q Request) resource() string {
	if q.Subresource == "" {
		return q.Resource
	}
	return q.Resource + "/" + q.Subresource
}

// matches reports whether a rule allows the request.
func (q Request) matches(rule *rbacv1.PolicyRule) bool {
	if !rbachelpers.VerbMatches(rule, q.Verb) {
		return false
	}
	if q.Path != "" {
		return rbachelpers.NonResourceURLMatches(rule, q.Path)
	}
	return rbachelpers.APIGroupMatches(rule, q.Group) &&
		rbachelpers.ResourceMatches(rule, q.resource(), q.Subresource) &&
		rbachelpers.ResourceNameMatches(rule, q.Name)
}

// Rules are the objects, ready to be asked. They are immutable.
type Rules struct {
	objects         map[object.Ref]object.Object
	roles           map[string][]rbacv1.PolicyRule // by namespace/name
	clusterRoles    map[string][]rbacv1.PolicyRule // by name
	bindings        map[string][]binding           // by namespace
	clusterBindings []binding
}

// binding gives a role to subjects.
type binding struct {
	ref      object.Ref
	role     rbacv1.RoleRef
	subjects []rbacv1.Subject
}

// IsRule reports whether objects of a kind are rules.
func IsRule(ref object.Ref) bool {
	return ref.Group == Group && (ref.Kind == "Role" || ref.Kind == "ClusterRole" || ref.Kind == "RoleBinding" || ref.Kind == "ClusterRoleBinding")
}

// Applied returns the rules in an inventory, as they were applied.
func Applied(inventory []plan.Applied) []object.Object {
	var out []object.Object
	for i := range inventory {
		a := &inventory[i]
		if !IsRule(a.Ref) {
			continue
		}
		value := map[string]runtime.Object{
			"Role": &rbacv1.Role{}, "ClusterRole": &rbacv1.ClusterRole{}, "RoleBinding": &rbacv1.RoleBinding{}, "ClusterRoleBinding": &rbacv1.ClusterRoleBinding{},
		}[a.Kind]
		if json.Unmarshal(a.Written, value) != nil {
			continue // it gives no rights
		}
		out = append(out, object.Object{Ref: a.Ref, Hash: a.Hash, Value: value})
	}
	return out
}

// New makes rules of objects; those of other kinds are passed over. Of two objects with one name the first counts.
// The roles that every Kubernetes has by default (cluster-admin, admin, edit, view) are there where no object has their name.
func New(objects []object.Object) *Rules {
	r := &Rules{objects: map[object.Ref]object.Object{}, roles: map[string][]rbacv1.PolicyRule{}, clusterRoles: map[string][]rbacv1.PolicyRule{}, bindings: map[string][]binding{}}
	var cluster []*rbacv1.ClusterRole
	for i := range objects {
		o := &objects[i]
		if _, seen := r.objects[o.Ref]; seen || !IsRule(o.Ref) {
			continue
		}
		r.objects[o.Ref] = *o
		switch v := o.Value.(type) {
		case *rbacv1.Role:
			r.roles[o.Namespace+"/"+o.Name] = v.Rules
		case *rbacv1.ClusterRole:
			cluster = append(cluster, v)
		case *rbacv1.RoleBinding:
			r.bindings[o.Namespace] = append(r.bindings[o.Namespace], binding{ref: o.Ref, role: v.RoleRef, subjects: v.Subjects})
		case *rbacv1.ClusterRoleBinding:
			r.clusterBindings = append(r.clusterBindings, binding{ref: o.Ref, role: v.RoleRef, subjects: v.Subjects})
		}
	}
	for _, role := range defaultRoles() {
		if _, written := r.objects[object.Ref{Group: Group, Kind: "ClusterRole", Name: role.Name}]; !written {
			cluster = append(cluster, role)
		}
	}
	slices.SortFunc(cluster, func(a, b *rbacv1.ClusterRole) int { return cmp.Compare(a.Name, b.Name) })
	for _, role := range cluster {
		r.clusterRoles[role.Name] = role.Rules
	}
	for _, role := range cluster {
		if role.AggregationRule != nil {
			r.clusterRoles[role.Name] = aggregated(role, cluster)
		}
	}
	byRef := func(a, b binding) int { return object.Compare(a.ref, b.ref) }
	for _, b := range r.bindings {
		slices.SortFunc(b, byRef)
	}
	slices.SortFunc(r.clusterBindings, byRef)
	return r
}

// with returns the rules as they are when objects are written.
func (r *Rules) with(objects []object.Object) *Rules {
	var all []object.Object
	for _, o := range objects {
		if IsRule(o.Ref) {
			all = append(all, o)
		}
	}
	if len(all) == 0 {
		return r
	}
	for _, o := range r.objects {
		all = append(all, o) // those that are written have the same name and come before
	}
	return New(all)
}

// aggregated are the rules of a ClusterRole that others add to by their labels. Its own rules do not count, as in Kubernetes; an
// aggregate takes up other aggregates with what those take up.
func aggregated(role *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	taken := map[string]bool{role.Name: true}
	var take func(*rbacv1.ClusterRole)
	take = func(into *rbacv1.ClusterRole) {
		for i := range into.AggregationRule.ClusterRoleSelectors {
			selector, err := metav1.LabelSelectorAsSelector(&into.AggregationRule.ClusterRoleSelectors[i])
			if err != nil {
				continue // validation has refused it
			}
			for _, other := range all {
				if taken[other.Name] || !selector.Matches(labels.Set(other.Labels)) {
					continue
				}
				taken[other.Name] = true
				if other.AggregationRule != nil {
					take(other)
					continue
				}
				out = append(out, other.Rules...)
			}
		}
	}
	take(role)
	return out
}

// Grant is the binding that allows something, and the role that it gives.
type Grant struct {
	Binding object.Ref
	Role    rbacv1.RoleRef
}

// String returns for example `RoleBinding payments/deployers of Role deployer`.
func (g Grant) String() string {
	if g.Binding == (object.Ref{}) {
		return "membership in " + Masters
	}
	return fmt.Sprintf("%s of %s %s", g.Binding, g.Role.Kind, g.Role.Name)
}

// Allows reports whether somebody may do something, and what allows it.
func (r *Rules) Allows(id Identity, q Request) (by Grant, ok bool) {
	if slices.Contains(id.Groups, Masters) {
		return Grant{}, true
	}
	r.visit(id, q.Namespace, func(b *binding, rule *rbacv1.PolicyRule) bool {
		if ok = q.matches(rule); ok {
			by = Grant{Binding: b.ref, Role: b.role}
		}
		return !ok
	})
	return by, ok
}

// visit goes through all rules that somebody has in a namespace, until f returns false.
func (r *Rules) visit(id Identity, namespace string, f func(*binding, *rbacv1.PolicyRule) bool) {
	all := r.clusterBindings
	for _, namespaced := range []bool{false, true} {
		if namespaced {
			if namespace == "" {
				return
			}
			all = r.bindings[namespace]
		}
		for i := range all {
			b := &all[i]
			if !slices.ContainsFunc(b.subjects, func(s rbacv1.Subject) bool { return id.is(s, b.ref.Namespace) }) {
				continue
			}
			rules := r.role(b.role, b.ref.Namespace)
			for j := range rules {
				if !f(b, &rules[j]) {
					return
				}
			}
		}
	}
}

// role returns the rules that a binding in a namespace refers to; those of a role that is not there are none.
func (r *Rules) role(ref rbacv1.RoleRef, namespace string) []rbacv1.PolicyRule {
	switch ref.Kind {
	case "ClusterRole":
		return r.clusterRoles[ref.Name]
	case "Role":
		return r.roles[namespace+"/"+ref.Name]
	}
	return nil
}

// is reports whether somebody is the subject of a binding in a namespace.
func (id Identity) is(s rbacv1.Subject, namespace string) bool {
	switch s.Kind {
	case rbacv1.UserKind:
		return id.User == s.Name
	case rbacv1.GroupKind:
		return slices.Contains(id.Groups, s.Name)
	case rbacv1.ServiceAccountKind:
		in := cmp.Or(s.Namespace, namespace)
		return in != "" && id.User == "system:serviceaccount:"+in+":"+s.Name
	}
	return false
}

// Holder is who may do something, by a binding.
type Holder struct {
	Subject rbacv1.Subject
	By      Grant
}

// Who returns everybody who may do something, in the order of the bindings: those of all namespaces first.
func (r *Rules) Who(q Request) []Holder {
	var out []Holder
	for _, b := range slices.Concat(r.clusterBindings, r.bindings[q.Namespace]) {
		rules := r.role(b.role, b.ref.Namespace)
		if !slices.ContainsFunc(rules, func(rule rbacv1.PolicyRule) bool { return q.matches(&rule) }) {
			continue
		}
		for _, s := range b.subjects {
			if s.Kind == rbacv1.ServiceAccountKind && s.Namespace == "" {
				s.Namespace = b.ref.Namespace
			}
			out = append(out, Holder{Subject: s, By: Grant{Binding: b.ref, Role: b.role}})
		}
	}
	return out
}

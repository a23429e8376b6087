package rbac

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/component-helpers/auth/rbac/validation"
	rbachelpers "k8s.io/kubernetes/pkg/apis/rbac/v1"

	"github.com/fairlead-dev/fairlead/render/object"
)

// everything is what an aggregated role may come to allow.
var everything = []rbacv1.PolicyRule{
	{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}},
	{NonResourceURLs: []string{"*"}, Verbs: []string{"*"}},
}

// Grants returns an error unless somebody may write an object that gives rights: only who has them, or may escalate the role or
// bind it. after are the rules as they are when the object is written, in which a binding finds its role. Objects of other kinds
// give no rights, and neither do those that stay as they are in r.
func (r *Rules) Grants(id Identity, o *object.Object, after *Rules) error {
	if slices.Contains(id.Groups, Masters) || o.Group != Group {
		return nil
	}
	before := r.objects[o.Ref]
	switch v := o.Value.(type) {
	case *rbacv1.Role:
		if was, ok := valueOf[*rbacv1.Role](before); ok && reflect.DeepEqual(was.Rules, v.Rules) {
			return nil
		}
		return r.writes(id, "roles", o.Namespace, v.Name, v.Rules)
	case *rbacv1.ClusterRole:
		was, ok := valueOf[*rbacv1.ClusterRole](before)
		if ok && reflect.DeepEqual(was.Rules, v.Rules) && reflect.DeepEqual(was.AggregationRule, v.AggregationRule) {
			return nil
		}
		rules := v.Rules
		if v.AggregationRule != nil {
			rules = everything
		}
		return r.writes(id, "clusterroles", "", v.Name, rules)
	case *rbacv1.RoleBinding:
		if was, ok := valueOf[*rbacv1.RoleBinding](before); ok && reflect.DeepEqual(was.Subjects, v.Subjects) && was.RoleRef == v.RoleRef {
			return nil
		}
		return r.binds(id, o.Namespace, v.RoleRef, after)
	case *rbacv1.ClusterRoleBinding:
		if was, ok := valueOf[*rbacv1.ClusterRoleBinding](before); ok && reflect.DeepEqual(was.Subjects, v.Subjects) && was.RoleRef == v.RoleRef {
			return nil
		}
		return r.binds(id, "", v.RoleRef, after)
	}
	return nil
}

func valueOf[T any](o object.Object) (T, bool) {
	v, ok := o.Value.(T)
	return v, ok
}

// writes returns an error unless somebody may write a role with these rules.
func (r *Rules) writes(id Identity, resource, namespace, name string, rules []rbacv1.PolicyRule) error {
	if _, ok := r.Allows(id, Request{Verb: "escalate", Group: Group, Resource: resource, Namespace: namespace, Name: name}); ok {
		return nil
	}
	return r.covers(id, namespace, rules, "the verb escalate on "+resource)
}

// binds returns an error unless somebody may bind a role in a namespace; empty is all of them.
func (r *Rules) binds(id Identity, namespace string, ref rbacv1.RoleRef, after *Rules) error {
	resource := "roles"
	if ref.Kind == "ClusterRole" {
		resource = "clusterroles"
	}
	if _, ok := r.Allows(id, Request{Verb: "bind", Group: Group, Resource: resource, Namespace: namespace, Name: ref.Name}); ok {
		return nil
	}
	if !after.has(ref, namespace) {
		return fmt.Errorf("there is no %s %s, and only who may bind it may refer to it before there is one", ref.Kind, ref.Name)
	}
	return r.covers(id, namespace, after.role(ref, namespace), "the verb bind on "+resource)
}

func (r *Rules) has(ref rbacv1.RoleRef, namespace string) bool {
	if ref.Kind == "ClusterRole" {
		_, ok := r.clusterRoles[ref.Name]
		return ok
	}
	_, ok := r.roles[namespace+"/"+ref.Name]
	return ok
}

// covers returns an error naming the rules that somebody has not got.
func (r *Rules) covers(id Identity, namespace string, rules []rbacv1.PolicyRule, or string) error {
	var own []rbacv1.PolicyRule
	r.visit(id, namespace, func(_ *binding, rule *rbacv1.PolicyRule) bool {
		own = append(own, *rule)
		return true
	})
	ok, missing := validation.Covers(own, rules)
	if ok {
		return nil
	}
	var words []string
	for _, rule := range missing {
		if w := wordsOf(rule); !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	slices.Sort(words)
	const most = 5
	if len(words) > most {
		words = append(words[:most], fmt.Sprintf("%d more", len(words)-most))
	}
	return fmt.Errorf("it would give rights that its own identity has not got: %s (only who has them, or %s, may give them)", strings.Join(words, "; "), or)
}

// wordsOf says what a rule allows, for example `create,update deployments.apps`.
func wordsOf(r rbacv1.PolicyRule) string {
	if len(r.NonResourceURLs) > 0 {
		return strings.Join(r.Verbs, ",") + " the paths " + strings.Join(r.NonResourceURLs, ",")
	}
	if len(r.APIGroups) > 1 {
		return rbachelpers.CompactString(r)
	}
	group := ""
	if len(r.APIGroups) == 1 && r.APIGroups[0] != "" {
		group = "." + r.APIGroups[0]
	}
	s := strings.Join(r.Verbs, ",") + " " + strings.Join(r.Resources, group+",") + group
	if len(r.ResourceNames) > 0 {
		s += " named " + strings.Join(r.ResourceNames, ",")
	}
	return s
}

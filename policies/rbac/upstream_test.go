package rbac

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/component-helpers/auth/rbac/validation"
	upstream "k8s.io/kubernetes/pkg/registry/rbac/validation"

	"github.com/fairlead-dev/fairlead/render/object"
)

var cases = flag.Int("cases", 100_000, "how many random requests are held against Kubernetes' own code")

// world is a random set of rules, as ours and as Kubernetes'.
type world struct {
	ours     *Rules
	upstream upstream.AuthorizationRuleResolver
	bindings []object.Object
	roles    []object.Object
}

var (
	someNamespaces = []string{"a", "b", "c"}
	someNames      = []string{"one", "two", "three"}
	someVerbs      = []string{"get", "create", "delete", "*", "bind", "escalate"}
	someGroups     = []string{"", "apps", "*", Group}
	someResources  = []string{"pods", "deployments", "pods/log", "*", "*/log", "*/scale", "roles", "clusterroles"}
	somePaths      = []string{"/metrics", "/api/*", "*", "/api"}
)

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func some[T any](r *rand.Rand, from []T) []T {
	out := []T{pick(r, from)}
	for r.IntN(3) == 0 {
		out = append(out, pick(r, from))
	}
	return out
}

func randomRules(r *rand.Rand, paths bool) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	for range r.IntN(3) {
		rule := rbacv1.PolicyRule{Verbs: some(r, someVerbs)}
		if paths && r.IntN(4) == 0 {
			rule.NonResourceURLs = some(r, somePaths)
		} else {
			rule.APIGroups, rule.Resources = some(r, someGroups), some(r, someResources)
			if r.IntN(3) == 0 {
				rule.ResourceNames = some(r, someNames)
			}
		}
		out = append(out, rule)
	}
	return out
}

func randomWorld(r *rand.Rand) world {
	var w world
	var roles []*rbacv1.Role
	var clusterRoles []*rbacv1.ClusterRole
	var roleBindings []*rbacv1.RoleBinding
	var clusterBindings []*rbacv1.ClusterRoleBinding
	var all []object.Object
	add := func(kind string, m metav1.ObjectMeta, v runtime.Object) object.Object {
		o := object.Object{Ref: object.Ref{Group: Group, Kind: kind, Namespace: m.Namespace, Name: m.Name}, Value: v}
		all = append(all, o)
		return o
	}
	for _, ns := range someNamespaces {
		for _, name := range someNames {
			if r.IntN(3) > 0 {
				v := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Rules: randomRules(r, false)}
				roles = append(roles, v)
				w.roles = append(w.roles, add("Role", v.ObjectMeta, v))
			}
		}
	}
	for _, name := range someNames {
		if r.IntN(3) > 0 {
			v := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: randomRules(r, true)}
			clusterRoles = append(clusterRoles, v)
			w.roles = append(w.roles, add("ClusterRole", v.ObjectMeta, v))
		}
	}
	for _, role := range defaultRoles() {
		if role.AggregationRule == nil {
			clusterRoles = append(clusterRoles, role)
		}
	}
	subjects := func(namespaced bool) []rbacv1.Subject {
		var out []rbacv1.Subject
		for range 1 + r.IntN(2) {
			s := rbacv1.Subject{Kind: pick(r, []string{"User", "Group", "ServiceAccount"}), Name: pick(r, someNames)}
			if s.Kind == "ServiceAccount" && (!namespaced || r.IntN(2) == 0) {
				s.Namespace = pick(r, append([]string{""}, someNamespaces...))
			}
			out = append(out, s)
		}
		return out
	}
	for i := range 2 + r.IntN(5) {
		v := &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: pick(r, someNamespaces), Name: fmt.Sprint("b", i)},
			RoleRef:    rbacv1.RoleRef{APIGroup: Group, Kind: pick(r, []string{"Role", "ClusterRole"}), Name: pick(r, someNames)}, Subjects: subjects(true),
		}
		roleBindings = append(roleBindings, v)
		w.bindings = append(w.bindings, add("RoleBinding", v.ObjectMeta, v))
	}
	for i := range r.IntN(3) {
		v := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("c", i)},
			RoleRef:    rbacv1.RoleRef{APIGroup: Group, Kind: "ClusterRole", Name: pick(r, append([]string{"cluster-admin"}, someNames...))}, Subjects: subjects(false),
		}
		clusterBindings = append(clusterBindings, v)
		w.bindings = append(w.bindings, add("ClusterRoleBinding", v.ObjectMeta, v))
	}
	w.ours = New(all)
	w.upstream, _ = upstream.NewTestRuleResolver(roles, roleBindings, clusterRoles, clusterBindings)
	return w
}

func randomIdentity(r *rand.Rand) Identity {
	if r.IntN(2) == 0 {
		return ServiceAccount(pick(r, someNamespaces), pick(r, someNames))
	}
	return ParseUser(pick(r, someNames), some(r, someNames)...)
}

func (id Identity) upstream() user.Info { return &user.DefaultInfo{Name: id.User, Groups: id.Groups} }

// TestAgainstKubernetes holds random requests and grants against Kubernetes' resolver of rules and its notion of what covers what.
func TestAgainstKubernetes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var allowed, granted, refused int
	const perWorld = 50
	for range *cases / perWorld {
		w := randomWorld(r)
		for range perWorld {
			id := randomIdentity(r)
			q := Request{
				Verb: pick(r, []string{"get", "create", "delete", "bind"}), Group: pick(r, []string{"", "apps", Group}),
				Resource: pick(r, []string{"pods", "deployments", "roles"}), Namespace: pick(r, append([]string{""}, someNamespaces...)), Name: pick(r, append([]string{""}, someNames...)),
			}
			one := rbacv1.PolicyRule{Verbs: []string{q.Verb}}
			switch r.IntN(6) {
			case 0:
				q = Request{Verb: q.Verb, Path: pick(r, []string{"/metrics", "/api/v1", "/api", "/other"})}
				one.NonResourceURLs = []string{q.Path}
			case 1:
				q.Subresource = pick(r, []string{"log", "scale"})
				fallthrough
			default:
				one.APIGroups, one.Resources = []string{q.Group}, []string{q.resource()}
				if q.Name != "" {
					one.ResourceNames = []string{q.Name}
				}
			}
			rules, _ := w.upstream.RulesFor(context.Background(), id.upstream(), q.Namespace) // a role that is not there is an error beside the rules
			want, _ := validation.Covers(rules, []rbacv1.PolicyRule{one})
			by, got := w.ours.Allows(id, q)
			if got != want {
				t.Fatalf("%s %v: %s is allowed: %t by %s, by Kubernetes' code: %t", id.User, id.Groups, q, got, by, want)
			}
			if got {
				allowed++
			}
			// Whoever may not bind or escalate may grant exactly what Kubernetes lets them.
			o := pick(r, w.roles)
			var rulesOf []rbacv1.PolicyRule
			switch v := o.Value.(type) {
			case *rbacv1.Role:
				rulesOf = v.Rules
			case *rbacv1.ClusterRole:
				rulesOf = v.Rules
			}
			resource := map[string]string{"Role": "roles", "ClusterRole": "clusterroles"}[o.Kind]
			ctx := genericapirequest.WithUser(genericapirequest.WithNamespace(context.Background(), o.Namespace), id.upstream())
			_, escalates := w.ours.Allows(id, Request{Verb: "escalate", Group: Group, Resource: resource, Namespace: o.Namespace, Name: o.Name})
			mayWrite := escalates || upstream.ConfirmNoEscalation(ctx, w.upstream, rulesOf) == nil
			fresh := *w.ours
			fresh.objects = nil // as if it were new
			if err := fresh.Grants(id, &o, w.ours); (err == nil) != mayWrite {
				t.Fatalf("%s %v writes %s: %v, by Kubernetes' code it may: %t", id.User, id.Groups, o.Ref, err, mayWrite)
			} else if err == nil {
				granted++
			} else {
				refused++
			}
		}
	}
	t.Logf("%d requests, %d of them allowed; %d roles may be written, %d not", *cases, allowed, granted, refused)
	if allowed < *cases/50 || granted < *cases/100 || refused < *cases/10 {
		t.Errorf("the cases are one-sided: %d allowed, %d granted, %d refused", allowed, granted, refused)
	}
}

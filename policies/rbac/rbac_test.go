package rbac

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// objects reads rules as they are written.
func objects(t *testing.T, text string) []object.Object {
	t.Helper()
	var out []object.Object
	for _, doc := range strings.Split(text, "\n---\n") {
		var meta struct {
			Kind     string
			Metadata metav1.ObjectMeta
		}
		if err := yaml.Unmarshal([]byte(doc), &meta); err != nil {
			t.Fatal(err)
		}
		values := map[string]runtime.Object{
			"Role": &rbacv1.Role{}, "ClusterRole": &rbacv1.ClusterRole{}, "RoleBinding": &rbacv1.RoleBinding{}, "ClusterRoleBinding": &rbacv1.ClusterRoleBinding{},
		}
		value, known := values[meta.Kind]
		o := object.Object{Ref: object.Ref{Kind: meta.Kind, Namespace: meta.Metadata.Namespace, Name: meta.Metadata.Name}}
		if known {
			if err := yaml.UnmarshalStrict([]byte(doc), value); err != nil {
				t.Fatalf("%v in\n%s", err, doc)
			}
			o.Group, o.Value = Group, value
		}
		out = append(out, o)
	}
	return out
}

const tenant = `
kind: Role
metadata: {name: deployer, namespace: payments}
rules:
- {apiGroups: [apps], resources: [deployments], verbs: [get, create, patch]}
- {apiGroups: [""], resources: [configmaps], resourceNames: [settings], verbs: [update, delete]}
- {apiGroups: [""], resources: [pods/log, "*/status"], verbs: [get]}
---
kind: RoleBinding
metadata: {name: deployers, namespace: payments}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: deployer}
subjects:
- {kind: ServiceAccount, name: robot}
- {kind: User, apiGroup: rbac.authorization.k8s.io, name: jane}
- {kind: Group, apiGroup: rbac.authorization.k8s.io, name: ops}
---
kind: ClusterRole
metadata: {name: metrics}
rules:
- {nonResourceURLs: [/metrics, "/api/*"], verbs: [get]}
- {apiGroups: [""], resources: [nodes], verbs: ["*"]}
---
kind: ClusterRoleBinding
metadata: {name: metrics}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: metrics}
subjects:
- {kind: Group, apiGroup: rbac.authorization.k8s.io, name: ops}
- {kind: ServiceAccount, name: scraper, namespace: monitoring}
---
kind: RoleBinding
metadata: {name: nobody, namespace: payments}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: gone}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: joe}]
---
kind: RoleBinding
metadata: {name: editors, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{kind: ServiceAccount, name: robot, namespace: shop}]`

func TestAllows(t *testing.T) {
	rules := New(objects(t, tenant))
	robot, jane, ops := ServiceAccount("payments", "robot"), ParseUser("jane"), ParseUser("otto", "ops")
	deployments := func(verb, namespace string) Request {
		return Request{Verb: verb, Group: "apps", Resource: "deployments", Namespace: namespace, Name: "web"}
	}
	settings := func(verb, name string) Request {
		return Request{Verb: verb, Resource: "configmaps", Namespace: "payments", Name: name}
	}
	for _, c := range []struct {
		name string
		id   Identity
		q    Request
		by   string // empty when it is not allowed
	}{
		{"a service account of the binding's namespace", robot, deployments("create", "payments"), "RoleBinding payments/deployers of Role deployer"},
		{"the same written as a user", ParseUser("system:serviceaccount:payments:robot"), deployments("create", "payments"), "RoleBinding payments/deployers of Role deployer"},
		{"a service account of the same name elsewhere", ServiceAccount("shop", "robot"), deployments("create", "payments"), ""},
		{"a user", jane, deployments("patch", "payments"), "RoleBinding payments/deployers of Role deployer"},
		{"a group", ops, deployments("patch", "payments"), "RoleBinding payments/deployers of Role deployer"},
		{"a verb that is not given", robot, deployments("delete", "payments"), ""},
		{"another namespace", robot, deployments("create", "shop"), ""},
		{"no namespace", robot, deployments("create", ""), ""},
		{"another group", robot, Request{Verb: "create", Group: "extensions", Resource: "deployments", Namespace: "payments"}, ""},
		{"a name that is given", robot, settings("update", "settings"), "RoleBinding payments/deployers of Role deployer"},
		{"a name that is not", robot, settings("update", "other"), ""},
		{"no name where names are given", robot, settings("delete", ""), ""},
		{"a subresource", robot, Request{Verb: "get", Resource: "pods", Subresource: "log", Namespace: "payments"}, "RoleBinding payments/deployers of Role deployer"},
		{"its resource", robot, Request{Verb: "get", Resource: "pods", Namespace: "payments"}, ""},
		{"a subresource of everything", robot, Request{Verb: "get", Resource: "services", Subresource: "status", Namespace: "payments"}, "RoleBinding payments/deployers of Role deployer"},
		{"a path", ops, Request{Verb: "get", Path: "/metrics"}, "ClusterRoleBinding metrics of ClusterRole metrics"},
		{"a path below", ops, Request{Verb: "get", Path: "/api/v1/pods"}, "ClusterRoleBinding metrics of ClusterRole metrics"},
		{"a path that begins alike", ops, Request{Verb: "get", Path: "/metrics/more"}, ""},
		{"a service account of all namespaces", ServiceAccount("monitoring", "scraper"), Request{Verb: "delete", Resource: "nodes", Name: "a"}, "ClusterRoleBinding metrics of ClusterRole metrics"},
		{"a role that is not there", ParseUser("joe"), deployments("get", "payments"), ""},
		{"a default role", ServiceAccount("shop", "robot"), Request{Verb: "create", Resource: "services", Namespace: "shop"}, "RoleBinding shop/editors of ClusterRole edit"},
		{"what a default role takes up from the one below", ServiceAccount("shop", "robot"), Request{Verb: "list", Group: "batch", Resource: "jobs", Namespace: "shop"}, "RoleBinding shop/editors of ClusterRole edit"},
		{"what only the one above has", ServiceAccount("shop", "robot"), Request{Verb: "create", Group: Group, Resource: "rolebindings", Namespace: "shop"}, ""},
		{"masters", ParseUser("root", Masters), Request{Verb: "anything", Resource: "whatever"}, "membership in system:masters"},
		{"nobody", ParseUser("stranger"), deployments("get", "payments"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			if by, ok := rules.Allows(c.id, c.q); ok {
				got = by.String()
			}
			if got != c.by {
				t.Errorf("%s may %s by %q, want %q", c.id.User, c.q, got, c.by)
			}
		})
	}
}

func TestAggregatedRolesTakeUpWhatTheirLabelsSay(t *testing.T) {
	rules := New(objects(t, `
kind: ClusterRole
metadata: {name: queues, labels: {rbac.authorization.k8s.io/aggregate-to-view: "true"}}
rules: [{apiGroups: [example.org], resources: [queues], verbs: [get]}]
---
kind: RoleBinding
metadata: {name: all, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: admin}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: jane}]
---
kind: ClusterRole
metadata: {name: one, labels: {of: ring}}
aggregationRule: {clusterRoleSelectors: [{matchLabels: {of: ring}}]}
rules: [{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}]
---
kind: ClusterRole
metadata: {name: two, labels: {of: ring}}
aggregationRule: {clusterRoleSelectors: [{matchLabels: {of: ring}}]}
rules: []
---
kind: RoleBinding
metadata: {name: ring, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: one}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: joe}]`))
	if _, ok := rules.Allows(ParseUser("jane"), Request{Verb: "get", Group: "example.org", Resource: "queues", Namespace: "shop"}); !ok {
		t.Error("admin has not what was added to view")
	}
	if by, ok := rules.Allows(ParseUser("joe"), Request{Verb: "get", Resource: "secrets", Namespace: "shop"}); ok {
		t.Errorf("an aggregate's own rules count: %s", by)
	}
}

func TestWho(t *testing.T) {
	var got []string
	for _, h := range New(objects(t, tenant)).Who(Request{Verb: "create", Group: "apps", Resource: "deployments", Namespace: "payments"}) {
		got = append(got, strings.TrimSpace(h.Subject.Kind+" "+h.Subject.Namespace+" "+h.Subject.Name)+" by "+h.By.String())
	}
	want := []string{
		"ServiceAccount payments robot by RoleBinding payments/deployers of Role deployer",
		"User  jane by RoleBinding payments/deployers of Role deployer",
		"Group  ops by RoleBinding payments/deployers of Role deployer",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestJudge(t *testing.T) {
	const grants = `
kind: Role
metadata: {name: own, namespace: payments}
rules:
- {apiGroups: [rbac.authorization.k8s.io], resources: [roles, rolebindings], verbs: [create, update, delete]}
- {apiGroups: [apps], resources: [deployments], verbs: [create, get]}
---
kind: RoleBinding
metadata: {name: own, namespace: payments}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: own}
subjects: [{kind: ServiceAccount, name: robot}]`
	robot := ServiceAccount("payments", "robot")
	web := object.Ref{Group: "apps", Kind: "Deployment", Namespace: "payments", Name: "web"}
	for _, c := range []struct {
		name    string
		desired string
		changes []plan.Change
		want    []string
	}{
		{name: "nothing is changed", changes: []plan.Change{{Ref: web, Action: plan.ActionNone, Pods: []plan.PodChange{{Action: plan.ActionCreate}}}}},
		{name: "what is allowed", changes: []plan.Change{{Ref: web, Action: plan.ActionCreate}}},
		{name: "an update", changes: []plan.Change{{Ref: web, Action: plan.ActionUpdate, Origin: object.Origin{Path: "base/web.yaml", Line: 3}}}, want: []string{
			"base/web.yaml:3: error: Deployment payments/web: system:serviceaccount:payments:robot may not update deployments.apps \"web\" in payments" +
				" (it needs a RoleBinding in payments to a role with the rule {apiGroups: [apps], resources: [deployments], verbs: [update]})",
		}},
		{name: "a replacement needs the deletion", changes: []plan.Change{{Ref: web, Action: plan.ActionStopFirst}}, want: []string{
			"error: Deployment payments/web: system:serviceaccount:payments:robot may not delete deployments.apps \"web\" in payments" +
				" (it needs a RoleBinding in payments to a role with the rule {apiGroups: [apps], resources: [deployments], verbs: [delete]})",
		}},
		{name: "another namespace", changes: []plan.Change{{Ref: object.Ref{Kind: "Secret", Namespace: "shop", Name: "key"}, Action: plan.ActionDelete}}, want: []string{
			"error: Secret shop/key: system:serviceaccount:payments:robot may not delete secrets \"key\" in shop" +
				" (it needs a RoleBinding in shop to a role with the rule {apiGroups: [\"\"], resources: [secrets], verbs: [delete]})",
		}},
		{name: "a namespace", changes: []plan.Change{{Ref: object.Ref{Kind: "Namespace", Name: "new"}, Action: plan.ActionCreate}}, want: []string{
			"error: Namespace new: system:serviceaccount:payments:robot may not create namespaces, which are in no namespace" +
				" (it needs a ClusterRoleBinding to a ClusterRole with the rule {apiGroups: [\"\"], resources: [namespaces], verbs: [create]})",
		}},
		{
			name: "a role with rights of its own, and its binding in the same plan",
			desired: `
kind: Role
metadata: {name: reader, namespace: payments}
rules: [{apiGroups: [apps], resources: [deployments], verbs: [get]}]
---
kind: RoleBinding
metadata: {name: readers, namespace: payments}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: jane}]`,
		},
		{
			name: "a role with more",
			desired: `
kind: Role
metadata: {name: thief, namespace: payments}
rules: [{apiGroups: [""], resources: [secrets], verbs: [get, list]}]`,
			want: []string{
				"error: Role payments/thief: system:serviceaccount:payments:robot may not write this: it would give rights that its own identity has not got: " +
					"get secrets; list secrets (only who has them, or the verb escalate on roles, may give them) (have somebody write it who has these rights, or give them to the identity first)",
			},
		},
		{
			name: "a binding to cluster-admin",
			desired: `
kind: RoleBinding
metadata: {name: all, namespace: payments}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: robot}]`,
			want: []string{
				"error: RoleBinding payments/all: system:serviceaccount:payments:robot may not write this: it would give rights that its own identity has not got: " +
					"* *.*; * the paths * (only who has them, or the verb bind on clusterroles, may give them) (have somebody write it who has these rights, or give them to the identity first)",
			},
		},
		{
			name: "a binding to what is not there",
			desired: `
kind: RoleBinding
metadata: {name: later, namespace: payments}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: later}
subjects: [{kind: ServiceAccount, name: robot}]`,
			want: []string{
				"error: RoleBinding payments/later: system:serviceaccount:payments:robot may not write this: there is no Role later, and only who may bind it may refer to it before there is one" +
					" (have somebody write it who has these rights, or give them to the identity first)",
			},
		},
		{
			name: "more rights for itself, in the role that gives it the right to write roles",
			desired: `
kind: Role
metadata: {name: own, namespace: payments}
rules: [{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}]`,
			want: []string{
				"error: Role payments/own: system:serviceaccount:payments:robot may not write this: it would give rights that its own identity has not got: " +
					"* *.* (only who has them, or the verb escalate on roles, may give them) (have somebody write it who has these rights, or give them to the identity first)",
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			rules := New(objects(t, grants))
			desired := plan.Desired{}
			if c.desired != "" {
				desired.Objects = objects(t, c.desired)
				for _, o := range desired.Objects {
					action := plan.ActionCreate
					if _, there := rules.objects[o.Ref]; there {
						action = plan.ActionUpdate
					}
					c.changes = append(c.changes, plan.Change{Ref: o.Ref, Action: action})
				}
			}
			var got []string
			for _, d := range rules.Judge(robot, plan.Plan{Changes: c.changes}, desired) {
				got = append(got, d.String())
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestClaimsOfAStatefulSetNeedNoRightOfTheirOwn(t *testing.T) {
	set := object.Ref{Group: "apps", Kind: "StatefulSet", Namespace: "payments", Name: "db"}
	claim := plan.Change{Ref: plan.ClaimRef("payments", "data-db-0"), Action: plan.ActionCreate, Owner: set}
	id := Identity{User: "nobody"}
	if found := new(Rules).Judge(id, plan.Plan{Changes: []plan.Change{claim}}, plan.Desired{}); len(found) > 0 {
		t.Errorf("a claim of a StatefulSet: %v", found)
	}
	claim.Owner = object.Ref{}
	if found := new(Rules).Judge(id, plan.Plan{Changes: []plan.Change{claim}}, plan.Desired{}); len(found) != 1 {
		t.Errorf("a claim of its own: %v", found)
	}
}

package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// aggregateTo is the label by which a ClusterRole adds to one of the default roles.
const aggregateTo = "rbac.authorization.k8s.io/aggregate-to-"

var (
	reads  = []string{"get", "list", "watch"}
	writes = []string{"create", "delete", "deletecollection", "patch", "update"}
)

// defaultRoles are the ClusterRoles that are there without being written: cluster-admin may do everything, and admin, edit and
// view are for bindings in a namespace. They name the kinds that Kubernetes' own name, as far as they mean something here.
func defaultRoles() []*rbacv1.ClusterRole {
	rule := func(verbs []string, group string, resources ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{Verbs: verbs, APIGroups: []string{group}, Resources: resources}
	}
	run := func(verbs []string) []rbacv1.PolicyRule {
		return []rbacv1.PolicyRule{
			rule(verbs, "", "configmaps", "endpoints", "persistentvolumeclaims", "pods", "replicationcontrollers", "serviceaccounts", "services"),
			rule(verbs, "apps", "daemonsets", "deployments", "replicasets", "statefulsets"),
			rule(verbs, "batch", "cronjobs", "jobs"),
			rule(verbs, "autoscaling", "horizontalpodautoscalers"),
			rule(verbs, "networking.k8s.io", "ingresses", "networkpolicies"),
			rule(verbs, "policy", "poddisruptionbudgets"),
		}
	}
	view := append(run(reads),
		rule(reads, "", "events", "limitranges", "namespaces", "pods/log", "pods/status", "resourcequotas"),
		rule(reads, "discovery.k8s.io", "endpointslices"),
	)
	edit := append(run(writes),
		rule(append(append([]string{}, reads...), writes...), "", "secrets"),
		rule([]string{"create", "get"}, "", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"),
		rule([]string{"create"}, "", "pods/eviction"),
		rule([]string{"impersonate"}, "", "serviceaccounts"),
		rule(append([]string{"get"}, writes...), "apps", "deployments/scale", "replicasets/scale", "statefulsets/scale"),
	)
	admin := []rbacv1.PolicyRule{rule(append(append([]string{}, reads...), writes...), Group, "rolebindings", "roles")}

	role := func(name string, rules []rbacv1.PolicyRule, to string) *rbacv1.ClusterRole {
		r := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
		if to != "" {
			r.Labels = map[string]string{aggregateTo + to: "true"}
		}
		return r
	}
	aggregate := func(name string, from string, to string) *rbacv1.ClusterRole {
		r := role(name, nil, to)
		r.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{aggregateTo + from: "true"}}}}
		return r
	}
	return []*rbacv1.ClusterRole{
		role("cluster-admin", everything, ""),
		aggregate("admin", "admin", ""),
		aggregate("edit", "edit", "admin"),
		aggregate("view", "view", "edit"),
		role("system:aggregate-to-admin", admin, "admin"),
		role("system:aggregate-to-edit", edit, "edit"),
		role("system:aggregate-to-view", view, "view"),
	}
}

package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/render/object"
)

// resource is a kind as commands name it.
type resource struct {
	group, kind string
	plural      string
	short       []string
	// scoped kinds have a namespace.
	scoped bool
}

// ref names a thing of the kind.
func (r resource) ref(namespace, name string) object.Ref {
	if !r.scoped {
		namespace = ""
	}
	return object.Ref{Group: r.group, Kind: r.kind, Namespace: namespace, Name: name}
}

// full is the name of -o name, for example deployment.apps/web.
func (r resource) full(name string) string {
	s := strings.ToLower(r.kind)
	if r.group != "" {
		s += "." + r.group
	}
	return s + "/" + name
}

// resources are all kinds that can be shown, in the order in which `get all` shows those that run pods.
func resources() []resource {
	return []resource{
		{"", "Pod", "pods", []string{"po"}, true},
		{"apps", "Deployment", "deployments", []string{"deploy"}, true},
		{"apps", "ReplicaSet", "replicasets", []string{"rs"}, true},
		{"apps", "StatefulSet", "statefulsets", []string{"sts"}, true},
		{"apps", "DaemonSet", "daemonsets", []string{"ds"}, true},
		{"batch", "Job", "jobs", nil, true},
		{"", "Service", "services", []string{"svc"}, true},
		{"", "Endpoints", "endpoints", []string{"ep"}, true},
		{"discovery.k8s.io", "EndpointSlice", "endpointslices", nil, true},
		{"", "PersistentVolumeClaim", "persistentvolumeclaims", []string{"pvc"}, true},
		{"", "PersistentVolume", "persistentvolumes", []string{"pv"}, false},
		{"storage.k8s.io", "StorageClass", "storageclasses", []string{"sc"}, false},
		{"", "ConfigMap", "configmaps", []string{"cm"}, true},
		{"", "Secret", "secrets", nil, true},
		{"", "ServiceAccount", "serviceaccounts", []string{"sa"}, true},
		{"networking.k8s.io", "NetworkPolicy", "networkpolicies", []string{"netpol"}, true},
		{"rbac.authorization.k8s.io", "Role", "roles", nil, true},
		{"rbac.authorization.k8s.io", "RoleBinding", "rolebindings", nil, true},
		{"rbac.authorization.k8s.io", "ClusterRole", "clusterroles", nil, false},
		{"rbac.authorization.k8s.io", "ClusterRoleBinding", "clusterrolebindings", nil, false},
		{"", "Namespace", "namespaces", []string{"ns"}, false},
		{api.Group, "Application", "applications", []string{"app", "apps"}, false},
		{api.Group, "Source", "sources", []string{"src"}, false},
		{api.Group, "Node", "nodes", []string{"no"}, false},
		{"image.toolkit.fluxcd.io", "ImagePolicy", "imagepolicies", []string{"images"}, true},
		{"image.toolkit.fluxcd.io", "ImageUpdateAutomation", "imageupdateautomations", []string{"imageautomations"}, true},
		{"", "Event", "events", []string{"ev"}, true},
	}
}

// all is what `get all` shows.
func all() []string {
	return []string{"pods", "services", "deployments", "replicasets", "statefulsets", "daemonsets", "jobs"}
}

func findResource(name string) (resource, error) {
	rs := resources()
	lower := strings.ToLower(name)
	// "deployment.apps" and "deployments.apps" are written by -o name and by kubectl's users.
	word, group, _ := strings.Cut(lower, ".")
	var known []string
	for _, r := range rs {
		if (word == r.plural || word == strings.ToLower(r.kind) || slices.Contains(r.short, word)) && (group == "" || group == r.group) {
			return r, nil
		}
		known = append(known, r.plural)
	}
	hint := didYouMean(lower, append(known, "all"))
	if hint == "" {
		hint = "; use " + strings.Join(known, ", ") + " or all"
	}
	return resource{}, fmt.Errorf("unknown kind %q%s", name, hint)
}

// wanted is one kind to be shown, with names or all of it.
type wanted struct {
	resource
	names []string
}

// parseWanted reads the arguments of get: KIND[,KIND…] [NAME…], or KIND/NAME….
func parseWanted(args []string) ([]wanted, error) {
	var out []wanted
	if strings.Contains(args[0], "/") {
		for _, arg := range args {
			r, name, err := parseKindName(arg)
			if err != nil {
				return nil, err
			}
			i := slices.IndexFunc(out, func(w wanted) bool { return w.kind == r.kind })
			if i < 0 {
				out = append(out, wanted{resource: r})
				i = len(out) - 1
			}
			out[i].names = append(out[i].names, name)
		}
		return out, nil
	}
	var words []string
	for _, word := range strings.Split(args[0], ",") {
		if word == "all" {
			words = append(words, all()...)
		} else {
			words = append(words, word)
		}
	}
	for _, word := range words {
		r, err := findResource(word)
		if err != nil {
			return nil, err
		}
		for _, name := range args[1:] {
			if strings.Contains(name, "/") && !r.slashed() {
				return nil, fmt.Errorf("%q: write either KIND NAME… or KIND/NAME…, not both", name)
			}
		}
		if !slices.ContainsFunc(out, func(w wanted) bool { return w.kind == r.kind }) {
			out = append(out, wanted{resource: r, names: args[1:]})
		}
	}
	return out, nil
}

// parseKindName reads KIND/NAME.
func parseKindName(arg string) (resource, string, error) {
	word, name, ok := strings.Cut(arg, "/")
	r, err := findResource(word)
	if !ok || name == "" || strings.Contains(name, "/") && (err != nil || !r.slashed()) {
		return resource{}, "", fmt.Errorf("%q: write KIND/NAME", arg)
	}
	return r, name, err
}

// slashed reports whether names of the kind may have a slash: those of what an object declares are NAMESPACE/NAME.
func (r resource) slashed() bool { return r.group == api.Group && r.kind != "Node" }

package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/render/object"
)

// refs returns everything of a kind in a namespace (all when empty), or only what is called name.
func refs(ctx context.Context, b api.Backend, r resource, namespace, name string) ([]object.Ref, error) {
	var out []object.Ref
	add := func(ns, n string) {
		if name == "" || n == name {
			out = append(out, r.ref(ns, n))
		}
	}
	q := api.Query{Namespace: namespace}
	if name != "" {
		q.Names = []string{name}
	}
	switch r.kind {
	case "Pod":
		pods, err := b.Pods(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, p := range pods {
			add(p.Namespace, p.Name)
		}
	case "Service", "Endpoints":
		services, err := b.Services(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, s := range services {
			add(s.Namespace, s.Name)
		}
	case "EndpointSlice":
		q.Names = nil
		services, err := b.Services(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, s := range services {
			for _, slice := range s.Slices {
				add(s.Namespace, slice.Name)
			}
		}
	case "Application":
		apps, err := b.Applications(ctx)
		if err != nil {
			return nil, err
		}
		for _, app := range apps {
			add("", app.Name)
		}
	case "Source":
		srcs, err := b.Sources(ctx)
		if err != nil {
			return nil, err
		}
		for _, s := range srcs {
			add("", s.Name)
		}
	case "Node":
		st, err := b.Status(ctx)
		if err != nil {
			return nil, err
		}
		for _, n := range st.Nodes {
			add("", string(n.Name))
		}
	case "Event":
	default:
		q.Kinds = []string{r.kind}
		objs, err := b.Objects(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, o := range objs {
			add(o.Namespace, o.Name)
		}
	}
	return out, nil
}

// find returns the one thing of a kind that has a name.
func (a *app) find(ctx context.Context, b api.Backend, r resource, name string) (object.Ref, error) {
	found, err := refs(ctx, b, r, a.inNamespace(), name)
	switch {
	case err != nil:
		return object.Ref{}, err
	case len(found) == 0:
		return object.Ref{}, a.notFound(ctx, b, r, name)
	case len(found) > 1:
		var in []string
		for _, ref := range found {
			in = append(in, ref.Namespace)
		}
		return object.Ref{}, fmt.Errorf("several namespaces have a %s %q: %s; choose one with --namespace", strings.ToLower(r.kind), name, strings.Join(in, ", "))
	}
	return found[0], nil
}

// notFound says that there is no such thing, and which was probably meant.
func (a *app) notFound(ctx context.Context, b api.Backend, r resource, name string) error {
	ns := ""
	if r.scoped {
		ns = a.inNamespace()
	}
	where := ""
	if ns != "" {
		where = fmt.Sprintf(" in the namespace %q", ns)
	}
	hint := fmt.Sprintf("; `fairlead get %s` lists them", r.plural)
	if known, err := refs(ctx, b, r, ns, ""); err == nil {
		if near := didYouMean(name, names(known)); near != "" {
			hint = near
		} else if len(known) == 0 {
			hint = ", nor any other"
		}
	}
	if ns != "" {
		if elsewhere, err := refs(ctx, b, r, "", name); err == nil && len(elsewhere) > 0 {
			hint = fmt.Sprintf("; there is one in the namespace %q", elsewhere[0].Namespace)
		}
	}
	return notFoundError(fmt.Sprintf("there is no %s %q%s%s", strings.ToLower(r.kind), name, where, hint))
}

// notFoundError is an api.ErrNotFound in a sentence of its own.
type notFoundError string

func (e notFoundError) Error() string { return string(e) }

// Unwrap returns the class.
func (notFoundError) Unwrap() error { return api.ErrNotFound }

func names(refs []object.Ref) []string {
	var out []string
	for _, r := range refs {
		if !slices.Contains(out, r.Name) {
			out = append(out, r.Name)
		}
	}
	return out
}

// podsOf returns the pods that an argument names: NAME or pod/NAME is one, KIND/NAME of a workload all of its.
func (a *app) podsOf(ctx context.Context, b api.Backend, arg string) ([]api.Pod, error) {
	word, name, slash := strings.Cut(arg, "/")
	if !slash {
		word, name = "pod", arg
	}
	r, name, err := parseKindName(word + "/" + name)
	if err != nil {
		return nil, err
	}
	switch r.kind {
	case "Pod", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job":
	default:
		return nil, fmt.Errorf("a %s has no pods of its own; use a pod, a deployment, a replicaset, a statefulset, a daemonset or a job", strings.ToLower(r.kind))
	}
	ref, err := a.find(ctx, b, r, name)
	if err != nil {
		return nil, err
	}
	q := api.Query{Namespace: ref.Namespace, Owner: ref}
	if r.kind == "Pod" {
		q = api.Query{Namespace: ref.Namespace, Names: []string{name}}
	}
	pods, err := b.Pods(ctx, q)
	if err == nil && len(pods) == 0 {
		return nil, fmt.Errorf("%s has no pods now", ref)
	}
	return pods, err
}

// containerOf returns the container that is meant when want may be empty: the only one, or the first.
func containerOf(p api.Pod, want string) (string, error) {
	var all, main []string
	for _, c := range p.Containers {
		all = append(all, c.Name)
		if !c.Init {
			main = append(main, c.Name)
		}
	}
	switch {
	case want != "" && slices.Contains(all, want):
		return want, nil
	case want != "":
		return "", fmt.Errorf("pod %s has no container %q; it has %s", p.PodKey, want, strings.Join(all, ", "))
	case len(main) == 0:
		return "", fmt.Errorf("pod %s has no container yet", p.PodKey)
	default:
		return main[0], nil
	}
}

package daemon

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/applications"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
)

var _ api.Backend = (*System)(nil)

// Status describes the daemon.
func (s *System) Status(ctx context.Context) (api.Status, error) {
	apps, err := s.Applications(ctx)
	if err != nil {
		return api.Status{}, err
	}
	srcs, err := s.Sources(ctx)
	if err != nil {
		return api.Status{}, err
	}
	ready, reasons := s.health.Ready()
	st := api.Status{
		Version: s.version, Started: s.started, PID: os.Getpid(), Installation: s.settings.Installation, StateDir: s.settings.StateDir,
		Ready: ready, Reasons: reasons, Sources: srcs, Hooks: s.hooksFrom(), Notifications: s.notificationsFrom(),
	}
	node := api.Node{Name: s.planning.Node, Reachable: true}
	info, err := s.machine.engine.Info(ctx)
	if err != nil {
		node.Reachable, node.Message = false, err.Error()
	} else {
		node.EngineVersion, node.APIVersion, node.CPUs, node.MemoryBytes, node.CgroupV2 = info.Version, info.APIVersion, info.CPUs, info.MemoryBytes, info.CgroupV2
	}
	seen := s.observe(ctx)
	node.Services, node.Registries = len(seen.Services), s.registries()
	for _, p := range seen.Pods {
		node.Pods++
		if p.Ready {
			node.PodsReady++
		}
	}
	st.Nodes = []api.Node{node}
	for _, a := range apps {
		st.Applications = append(st.Applications, api.ApplicationSummary{Name: a.Name, Revision: a.Revision.Short, Health: a.Health, Message: a.Message})
	}
	return st, nil
}

// statuses returns the state of every application, sorted by name, with who declares it.
func (s *System) statuses() []reconcile.Status {
	s.mu.Lock()
	entries := slices.Collect(maps.Values(s.applications))
	s.mu.Unlock()
	out := make([]reconcile.Status, 0, len(entries))
	for _, e := range entries {
		out = append(out, e.worker.Status())
	}
	slices.SortFunc(out, func(a, b reconcile.Status) int { return strings.Compare(a.Config.Name, b.Config.Name) })
	return out
}

// Applications returns all applications.
func (s *System) Applications(ctx context.Context) ([]api.Application, error) {
	pods := map[string][]api.Pod{}
	node := s.observe(ctx)
	for _, p := range node.Pods {
		pods[p.Application] = append(pods[p.Application], api.PodFrom(node.Node, p))
	}
	out := []api.Application{}
	shown, err := s.shown(ctx)
	if err != nil {
		return nil, err
	}
	for _, st := range shown {
		src, _ := s.source(st.Config.Source)
		a := applicationFrom(st, src, pods[st.Config.Name], st.Config.DeclaredBy)
		if st.Walking {
			s.mu.Lock()
			a.StepsDone = s.stepsDone[a.Name]
			s.mu.Unlock()
		}
		out = append(out, a)
	}
	return out, nil
}

// Sources returns all sources.
func (s *System) Sources(ctx context.Context) ([]api.Source, error) {
	if _, err := s.shown(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	names := slices.Sorted(maps.Keys(s.sources))
	entries := maps.Clone(s.sources)
	s.mu.Unlock()
	out := []api.Source{}
	for _, name := range names {
		e := entries[name]
		st, _ := s.source(name)
		src := api.Source{
			Name: name, Type: string(e.decl.Kind), Location: location(e.decl), Ref: reference(e.decl), Revision: revisionFrom(st.Snapshot),
			Fetched: st.Fetched, Ready: st.Err == nil && st.Snapshot.Revision != "", Suspended: e.decl.Suspend,
			Interval: e.decl.Interval, NextFetch: st.Next, Message: historyNote(st.Snapshot.History), LastDelivery: s.lastDelivery(name),
		}
		if st.Err != nil {
			src.Message = st.Err.Error()
		}
		if c, ok := verified(st); ok {
			src.Conditions = append(src.Conditions, c)
		}
		out = append(out, src)
	}
	return out, nil
}

// location is where a source comes from, without credentials.
func location(d applications.Source) string {
	if d.Kind == applications.Local {
		return d.Dir
	}
	return applications.ShownURL(d.Repository.URL)
}

// reference says in words what of a repository is followed.
func reference(d applications.Source) string {
	r := d.Repository
	switch {
	case d.Kind == applications.Local:
		return ""
	case r.Commit != "":
		return "commit " + r.Commit
	case r.RefName != "":
		return r.RefName
	case r.SemVer != "":
		return "semver " + r.SemVer
	case r.Tag != "":
		return "tag " + r.Tag
	case r.Branch != "":
		return "branch " + r.Branch
	case r.Revision != "":
		return r.Revision
	default:
		return "HEAD"
	}
}

// Objects returns the objects that match q.
func (s *System) Objects(ctx context.Context, q api.Query) ([]api.Object, error) {
	m, err := q.Matcher()
	if err != nil {
		return nil, err
	}
	out := []api.Object{}
	shown, err := s.shown(ctx)
	if err != nil {
		return nil, err
	}
	kept := keptStorage(s.observe(ctx).Storage, q.Kinds)
	for _, st := range shown {
		applied := make(map[object.Ref]plan.Applied, len(st.Inventory))
		for _, o := range st.Inventory {
			applied[o.Ref] = o
		}
		for _, o := range st.Desired.Objects {
			if len(q.Kinds) > 0 && !slices.Contains(q.Kinds, o.Kind) {
				continue
			}
			shown := objectFrom(o, st.Config.Name, st.Plan.Status, applied[o.Ref])
			if i := slices.IndexFunc(st.Plan.Suspended, func(s plan.SuspendedObject) bool { return s.Ref == o.Ref }); i >= 0 {
				shown.Suspension = &st.Plan.Suspended[i].Suspension
			}
			kept.describe(&shown)
			if m.Object(shown) {
				out = append(out, shown)
			}
		}
	}
	for _, o := range kept.others() {
		if m.Object(o) {
			out = append(out, o)
		}
	}
	slices.SortStableFunc(out, func(a, b api.Object) int { return object.Compare(a.Ref, b.Ref) })
	return out, nil
}

// Pods returns the pods that match q.
func (s *System) Pods(ctx context.Context, q api.Query) ([]api.Pod, error) {
	m, err := q.Matcher()
	if err != nil {
		return nil, err
	}
	node := s.observe(ctx)
	out := []api.Pod{}
	for _, p := range node.Pods {
		if shown := api.PodFrom(node.Node, p); m.Pod(shown) {
			out = append(out, shown)
		}
	}
	return out, nil
}

// Describe returns everything that is known of one thing.
func (s *System) Describe(ctx context.Context, ref object.Ref) (api.Description, error) {
	d := api.Description{Ref: ref}
	events := api.EventQuery{Ref: ref, Tail: 20}
	switch ref.Kind {
	case "Application":
		apps, err := s.Applications(ctx)
		if err != nil {
			return d, err
		}
		i := slices.IndexFunc(apps, func(a api.Application) bool { return a.Name == ref.Name })
		if i < 0 {
			return d, fmt.Errorf("%w: application %s", api.ErrNotFound, ref.Name)
		}
		d.Application, d.Drift = &apps[i], apps[i].Drift
		events = api.EventQuery{Application: ref.Name, Tail: 20}
		if d.Objects, err = s.Objects(ctx, api.Query{Application: ref.Name}); err != nil {
			return d, err
		}
		if d.Pods, err = s.Pods(ctx, api.Query{Application: ref.Name}); err != nil {
			return d, err
		}
	case "Source":
		srcs, err := s.Sources(ctx)
		if err != nil {
			return d, err
		}
		i := slices.IndexFunc(srcs, func(a api.Source) bool { return a.Name == ref.Name })
		if i < 0 {
			return d, fmt.Errorf("%w: source %s", api.ErrNotFound, ref.Name)
		}
		d.Source = &srcs[i]
		all, _, _ := s.events.list(api.EventQuery{})
		for _, e := range all {
			if e.Source == ref.Name {
				d.Events = append(d.Events, e)
			}
		}
		return d, nil
	case "Service":
		services, err := s.Services(ctx, api.Query{Namespace: ref.Namespace, Names: []string{ref.Name}})
		if err != nil {
			return d, err
		}
		if len(services) == 0 {
			return d, fmt.Errorf("%w: %s", api.ErrNotFound, ref)
		}
		d.Service, events.Ref = &services[0], services[0].Ref
		if d.Drift, err = s.driftOf(ctx, d.Service.Ref); err != nil {
			return d, err
		}
	default:
		objects, err := s.Objects(ctx, api.Query{Kinds: []string{ref.Kind}, Namespace: ref.Namespace, Names: []string{ref.Name}})
		if err != nil {
			return d, err
		}
		pods, err := s.Pods(ctx, api.Query{Namespace: ref.Namespace})
		if err != nil {
			return d, err
		}
		if len(objects) > 0 {
			d.Object, d.Ref = &objects[0], objects[0].Ref
		}
		for i, p := range pods {
			switch {
			case ref.Kind == "Pod" && p.PodKey.Namespace == ref.Namespace && p.PodKey.Name == ref.Name:
				d.Pod, d.Object, d.Ref = &pods[i], nil, p.PodKey.Ref()
			case d.Object != nil && p.Owner == d.Object.Ref:
				d.Pods = append(d.Pods, p)
			}
		}
		if d.Object == nil && d.Pod == nil {
			return d, fmt.Errorf("%w: %s", api.ErrNotFound, ref)
		}
		if d.Drift, err = s.driftOf(ctx, d.Ref); err != nil {
			return d, err
		}
		events.Ref = d.Ref
	}
	d.Events, _, _ = s.events.list(events)
	return d, nil
}

// driftOf returns what of an object is not as it was applied.
func (s *System) driftOf(ctx context.Context, ref object.Ref) ([]plan.Drift, error) {
	shown, err := s.shown(ctx)
	if err != nil {
		return nil, err
	}
	var out []plan.Drift
	for _, st := range shown {
		for _, drift := range st.Plan.Drift {
			if drift.Ref == ref {
				out = append(out, drift)
			}
		}
	}
	return out, nil
}

// Events calls on for what matches q.
func (s *System) Events(ctx context.Context, q api.EventQuery, on func(api.Event) error) error {
	return s.events.follow(ctx, q, on)
}

// Watch calls changed after every change.
func (s *System) Watch(ctx context.Context, changed func()) error {
	return s.events.watch(ctx, changed)
}

// container finds a container of a pod on the engine. The newest attempt is meant, or with previous
// the one before.
func (s *System) container(ctx context.Context, pod plan.PodKey, name string, previous bool) (runtimes.Container, error) {
	all, err := s.machine.engine.List(ctx)
	if err != nil {
		return runtimes.Container{}, fmt.Errorf("%w: %w", api.ErrUnavailable, err)
	}
	var found []runtimes.Container
	names := map[string]bool{}
	for _, c := range all {
		if c.Pod == pod && c.Container != runtimes.SandboxContainer {
			names[c.Container] = true
			if name == "" || c.Container == name {
				found = append(found, c)
			}
		}
	}
	if len(names) == 0 {
		return runtimes.Container{}, fmt.Errorf("%w: pod %s has no container", api.ErrNotFound, pod)
	}
	if name == "" {
		if name = s.onlyContainer(ctx, pod); name == "" && len(names) > 1 {
			return runtimes.Container{}, fmt.Errorf("%w: pod %s has several containers, choose one with -c: %s", api.ErrInvalid, pod, strings.Join(slices.Sorted(maps.Keys(names)), ", "))
		}
		if name != "" {
			found = slices.DeleteFunc(found, func(c runtimes.Container) bool { return c.Container != name })
		}
	}
	slices.SortFunc(found, func(a, b runtimes.Container) int { return b.Attempt - a.Attempt })
	i := 0
	if previous {
		i = 1
	}
	switch {
	case len(found) == 0:
		return runtimes.Container{}, fmt.Errorf("%w: pod %s has no container %s; it has %s", api.ErrNotFound, pod, name, strings.Join(slices.Sorted(maps.Keys(names)), ", "))
	case len(found) <= i:
		return runtimes.Container{}, fmt.Errorf("%w: container %s of pod %s was not restarted, so it has no previous log", api.ErrNotFound, found[0].Container, pod)
	}
	return found[i], nil
}

// onlyContainer returns the name of a pod's container when it has one besides init containers.
func (s *System) onlyContainer(ctx context.Context, key plan.PodKey) string {
	for _, p := range s.observe(ctx).Pods {
		if p.PodKey != key {
			continue
		}
		var names []string
		for _, c := range p.Containers {
			if !c.Init {
				names = append(names, c.Name)
			}
		}
		if len(names) == 1 {
			return names[0]
		}
	}
	return ""
}

// Logs copies the log of a container.
func (s *System) Logs(ctx context.Context, r api.LogRequest, stdout, stderr io.Writer) error {
	c, err := s.container(ctx, r.Pod, r.Container, r.Previous)
	if err != nil {
		return err
	}
	return s.machine.engine.Logs(ctx, c.ID, runtimes.LogOptions{Follow: r.Follow, Tail: r.Tail, Since: r.Since, Timestamps: r.Timestamps}, stdout, stderr)
}

// Exec runs a command in a container.
func (s *System) Exec(ctx context.Context, r api.ExecRequest, st api.Streams) (int, error) {
	c, err := s.container(ctx, r.Pod, r.Container, false)
	if err != nil {
		return 0, err
	}
	if !c.Running {
		return 0, fmt.Errorf("%w: container %s of pod %s does not run", api.ErrConflict, c.Container, r.Pod)
	}
	o := runtimes.ExecOptions{Stdout: st.Stdout, Stderr: st.Stderr, TTY: r.TTY, Resize: st.Resize}
	if r.Stdin {
		o.Stdin = st.Stdin
	}
	return s.machine.engine.Attach(ctx, c.ID, r.Command, o)
}

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
)

func (a *app) getCmd() *cobra.Command {
	var watch, noHead bool
	c := &cobra.Command{
		Use:   "get KIND[,KIND…] [NAME…] | KIND/NAME…",
		Short: "List pods, objects, applications, sources and events",
		Long: `List what runs and what is known, in kubectl's form.

Kinds: ` + kindHelp() + `;
and all, which is pods, services, deployments, replicasets, statefulsets, daemonsets and jobs.

-o json and -o yaml give objects and pods in Kubernetes' form; the values of Secrets are in none of them.`,
		Example: `  fairlead get pods -n shop -l app=web -o wide
  fairlead get deploy,jobs
  fairlead get cm/web-config -o yaml
  fairlead get pods --watch`,
		Args: func(c *cobra.Command, got []string) error {
			if len(got) == 0 {
				return fmt.Errorf("get needs a kind: %s or all", strings.Join(plurals(), ", "))
			}
			return nil
		},
		ValidArgsFunction: a.completeKindName,
		RunE: func(c *cobra.Command, args []string) error {
			want, err := parseWanted(args)
			if err != nil {
				return err
			}
			if a.selector != "" && slices.ContainsFunc(want, func(w wanted) bool { return len(w.names) > 0 }) {
				return errors.New("--selector cannot be used together with names")
			}
			return a.with(c.Context(), Look, func(b api.Backend) error {
				if watch {
					return a.watch(c.Context(), b, want, noHead)
				}
				return a.get(c.Context(), b, want, noHead)
			})
		},
	}
	a.namespaced(c)
	c.Flags().StringVarP(&a.selector, "selector", "l", "", "label selector, for example app=web,tier!=test")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "after listing, show what changes")
	c.Flags().BoolVar(&noHead, "no-headers", false, "leave out the column heads")
	a.formats(c, "wide", "json", "yaml", "name")
	return c
}

func plurals() []string {
	var out []string
	for _, r := range resources() {
		out = append(out, r.plural)
	}
	return out
}

func kindHelp() string {
	var out []string
	for _, r := range resources() {
		s := r.plural
		if len(r.short) > 0 {
			s += " (" + strings.Join(r.short, ", ") + ")"
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

// tables asks for everything that is wanted. Names that are not there are in the second result.
func (a *app) tables(ctx context.Context, b api.Backend, want []wanted) (out []table, missing []error, err error) {
	now := a.Now()
	wide := a.output == "wide"
	for _, w := range want {
		q := api.Query{Kinds: []string{w.kind}, Namespace: a.inNamespace(), Names: w.names, Selector: a.selector}
		if w.kind == "Namespace" || w.kind == "PersistentVolume" || w.kind == "StorageClass" {
			q.Namespace = ""
		}
		var t table
		switch w.kind {
		case "Pod":
			q.Kinds = nil
			pods, err := b.Pods(ctx, q)
			if err != nil {
				return nil, nil, err
			}
			t = podTable(pods, wide, now)
		case "Service", "Endpoints", "EndpointSlice":
			q.Kinds = nil
			if w.kind == "EndpointSlice" {
				q.Names = nil // a slice is not called as its Service is
			}
			services, err := b.Services(ctx, q)
			if err != nil {
				return nil, nil, err
			}
			switch w.kind {
			case "Service":
				t = serviceTable(services, wide, now)
			case "Endpoints":
				t = endpointsTable(services, now)
			default:
				t = sliceTable(services, w.names, now)
			}
		case "Application":
			apps, err := b.Applications(ctx)
			if err != nil {
				return nil, nil, err
			}
			t = applicationTable(named(apps, w.names, func(a api.Application) string { return a.Name }), wide, now)
		case "Source":
			srcs, err := b.Sources(ctx)
			if err != nil {
				return nil, nil, err
			}
			t = sourceTable(named(srcs, w.names, func(s api.Source) string { return s.Name }), wide, now)
		case "Node":
			st, err := b.Status(ctx)
			if err != nil {
				return nil, nil, err
			}
			t = nodeTable(named(st.Nodes, w.names, func(n api.Node) string { return string(n.Name) }))
		case "ImagePolicy", "ImageUpdateAutomation":
			all, err := b.Images(ctx)
			if err != nil {
				return nil, nil, err
			}
			if w.kind == "ImagePolicy" {
				t = imagePolicyTable(inNamespace(named(all.Policies, w.names, func(p api.ImagePolicy) string { return p.Name }), q.Namespace, func(p api.ImagePolicy) string { return p.Namespace }), now)
			} else {
				t = imageAutomationTable(inNamespace(named(all.Automations, w.names, func(x api.ImageAutomation) string { return x.Name }), q.Namespace, func(x api.ImageAutomation) string { return x.Namespace }), now)
			}
		case "Event":
			if len(w.names) > 0 {
				return nil, nil, errors.New("events have no names; `fairlead describe KIND NAME` shows those of one thing")
			}
			var events []api.Event
			err := b.Events(ctx, api.EventQuery{Namespace: q.Namespace}, func(e api.Event) error { events = append(events, e); return nil })
			if err != nil {
				return nil, nil, err
			}
			t = eventTable(events, wide, now)
		default:
			objs, err := b.Objects(ctx, q)
			if err != nil {
				return nil, nil, err
			}
			t = objectTable(w.resource, objs, wide, now)
		}
		t.resource = w.resource
		for _, n := range w.names {
			if !slices.ContainsFunc(t.rows, func(r row) bool { return r.ref.Name == n }) {
				missing = append(missing, a.notFound(ctx, b, w.resource, n))
			}
		}
		out = append(out, t)
	}
	return out, missing, nil
}

func named[T any](items []T, names []string, name func(T) string) []T {
	if len(names) == 0 {
		return items
	}
	return slices.DeleteFunc(slices.Clone(items), func(t T) bool { return !slices.Contains(names, name(t)) })
}

func (a *app) get(ctx context.Context, b api.Backend, want []wanted, noHead bool) error {
	tables, missing, err := a.tables(ctx, b, want)
	if err != nil {
		return err
	}
	if err := a.printTables(tables, noHead, one(want) && len(missing) == 0); err != nil {
		return err
	}
	if len(missing) > 0 {
		return errors.Join(missing...)
	}
	return nil
}

// one reports whether exactly one thing was asked for by name.
func one(want []wanted) bool { return len(want) == 1 && len(want[0].names) == 1 }

func (a *app) printTables(tables []table, noHead, single bool) error {
	var items []any
	full := slices.DeleteFunc(slices.Clone(tables), func(t table) bool { return len(t.rows) == 0 })
	for _, t := range full {
		items = append(items, t.items...)
	}
	switch a.output {
	case "name":
		for _, t := range full {
			for _, r := range t.rows {
				if t.kind == "Event" {
					return errors.New("events have no names: -o name cannot be used with them")
				}
				fmt.Fprintln(a.Stdout, planview.Clean(t.full(r.ref.Name)))
			}
		}
		return nil
	case "json", "yaml":
		var v any = list(items)
		if single && len(items) == 1 {
			v = items[0]
		}
		if a.output == "json" {
			return writeJSON(a.Stdout, v)
		}
		return writeYAML(a.Stdout, v)
	}
	if len(full) == 0 {
		what := "No resources found"
		if ns := a.inNamespace(); ns != "" {
			what += " in " + ns + " namespace"
		}
		fmt.Fprintln(a.Stderr, what+".")
		return nil
	}
	return writeTables(a.Stdout, full, a.layout(tables, noHead))
}

func (a *app) layout(tables []table, noHead bool) layout {
	return layout{namespaces: a.inNamespace() == "", prefix: len(tables) > 1, noHead: noHead}
}

// watch shows what is there, and then every row that changed, as long as the context lives.
func (a *app) watch(ctx context.Context, b api.Backend, want []wanted, noHead bool) error {
	switch {
	case a.output != "" && a.output != "wide":
		return fmt.Errorf("--watch shows tables: it cannot be used with -o %s", a.output)
	case len(want) != 1:
		return errors.New("--watch takes one kind")
	case want[0].kind == "Event":
		return errors.New("use `fairlead events --watch`")
	}
	shown := map[string]string{}
	var widths []int
	err := follow(ctx, b, func(ctx context.Context) error {
		tables, _, err := a.tables(ctx, b, want)
		if err != nil {
			return err
		}
		t, l := tables[0], a.layout(tables, noHead)
		var lines [][]string
		now := map[string]string{}
		for _, r := range t.rows {
			key := r.ref.String()
			cells := strings.Split(t.line(r, l), "\t")
			// Time passing is no change.
			now[key] = strings.Join(withoutAge(t, cells, l), "\t")
			if shown[key] != now[key] {
				lines = append(lines, cells)
			}
		}
		for key := range shown {
			if _, ok := now[key]; !ok {
				lines = append(lines, gone(t, l, key))
			}
		}
		slices.SortStableFunc(lines, func(a, b []string) int { return slices.Compare(a[:min(2, len(a))], b[:min(2, len(b))]) })
		if widths == nil && len(lines) > 0 && !l.noHead {
			head := t.head
			if l.namespaces && t.scoped {
				head = append([]string{"NAMESPACE"}, head...)
			}
			lines = append([][]string{head}, lines...)
		}
		shown = now
		widths = a.printAligned(lines, widths)
		return nil
	})
	if contextDone(ctx, err) {
		return nil
	}
	return err
}

// withoutAge drops the cells that change by themselves.
func withoutAge(t table, cells []string, l layout) []string {
	out := slices.Clone(cells)
	shift := len(cells) - len(t.head)
	for i, h := range t.head {
		switch h {
		case "AGE", "APPLIED", "FETCHED", "DURATION":
			out[i+shift] = ""
		case "RESTARTS":
			out[i+shift], _, _ = strings.Cut(out[i+shift], " ")
		}
	}
	return out
}

// gone is the row of something that is no longer there.
func gone(t table, l layout, key string) []string {
	name := key[strings.Index(key, " ")+1:]
	ns := ""
	if t.scoped {
		ns, name, _ = strings.Cut(name, "/")
	}
	cells := []string{name, "(gone)"}
	if l.namespaces && t.scoped {
		cells = append([]string{ns}, cells...)
	}
	return cells
}

// printAligned prints rows below rows that were printed before: columns only ever become wider.
func (a *app) printAligned(lines [][]string, widths []int) []int {
	for _, cells := range lines {
		for i, c := range cells {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len([]rune(c)))
		}
	}
	for _, cells := range lines {
		var b strings.Builder
		for i, c := range cells {
			b.WriteString(c)
			if i < len(cells)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-len([]rune(c))+3))
			}
		}
		fmt.Fprintln(a.Stdout, b.String())
	}
	return widths
}

// follow calls f at first and after every change, never twice at a time, until ctx ends or f fails.
func follow(ctx context.Context, b api.Backend, f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed := make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() {
		done <- b.Watch(ctx, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	}()
	for {
		select {
		case <-changed:
			if err := f(ctx); err != nil {
				cancel()
				return errors.Join(err, <-done)
			}
		case err := <-done:
			return cmp.Or(err, ctx.Err())
		}
	}
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
)

func (a *app) eventsCmd() *cobra.Command {
	var watch, noHead bool
	var application, of string
	var types []string
	var since time.Duration
	var tail int
	c := &cobra.Command{
		Use:   "events",
		Short: "Show what happened, and with --watch what happens",
		Long: `Show the events that are kept, oldest first: fetches, plans, steps, restarts, failures.

With --watch and -o json every event is one line of JSON.`,
		Example: `  fairlead events --watch
  fairlead events --application shop --types Warning --since 1h
  fairlead events --for deploy/web -n shop`,
		Args: args(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			for _, t := range types {
				if t != string(api.Normal) && t != string(api.Warning) {
					return fmt.Errorf("unknown type of event %q; use Normal or Warning", t)
				}
			}
			if watch && a.output == "yaml" {
				return errors.New("--watch cannot be used with -o yaml; use -o json")
			}
			q := api.EventQuery{Application: application, Namespace: a.inNamespace(), Follow: watch}
			if len(types) == 0 {
				q.Tail = tail
			}
			if since > 0 {
				q.Since = a.Now().Add(-since)
			}
			return a.with(c.Context(), Look, func(b api.Backend) error {
				if of != "" {
					r, name, err := parseKindName(of)
					if err != nil {
						return err
					}
					switch ref, err := a.find(c.Context(), b, r, name); {
					case err != nil:
						return err
					case r.kind == "Application":
						q.Application = name
					default:
						q.Ref = ref
					}
				}
				keep := func(e api.Event) bool { return len(types) == 0 || slices.Contains(types, string(e.Type)) }
				if watch {
					return a.watchEvents(c.Context(), b, q, keep, noHead)
				}
				return a.listEvents(c.Context(), b, q, keep, tail, noHead)
			})
		},
	}
	a.namespaced(c)
	c.Flags().BoolVarP(&watch, "watch", "w", false, "go on showing what happens")
	c.Flags().StringVar(&application, "application", "", "only those of this application")
	c.Flags().StringVar(&of, "for", "", "only those of this KIND/NAME")
	c.Flags().StringSliceVar(&types, "types", nil, "only these types: Normal, Warning")
	c.Flags().DurationVar(&since, "since", 0, "only those of the last time, for example 10m")
	c.Flags().IntVar(&tail, "tail", 0, "only the last so many of those that are kept (0: all)")
	c.Flags().BoolVar(&noHead, "no-headers", false, "leave out the column heads")
	completes(c, "application", a.completeApplications)
	completes(c, "types", cobra.FixedCompletions([]string{"Normal", "Warning"}, noFiles))
	completes(c, "for", func(c *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		kind, _, slash := strings.Cut(word, "/")
		if slash {
			return a.completeSlash(c, kind)
		}
		var out []string
		for _, r := range resources() {
			out = append(out, strings.ToLower(r.kind)+"/")
		}
		return out, noFiles | cobra.ShellCompDirectiveNoSpace
	})
	a.formats(c, "wide", "json", "yaml")
	return c
}

func (a *app) listEvents(ctx context.Context, b api.Backend, q api.EventQuery, keep func(api.Event) bool, tail int, noHead bool) error {
	var events []api.Event
	err := b.Events(ctx, q, func(e api.Event) error {
		if keep(e) {
			events = append(events, e)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if tail > 0 && len(events) > tail {
		events = events[len(events)-tail:]
	}
	t := eventTable(events, a.output == "wide", a.Now())
	t.resource, err = findResource("events")
	if err != nil {
		return err
	}
	if len(events) == 0 && (a.output == "" || a.output == "wide") {
		fmt.Fprintln(a.Stderr, "No events.")
		return nil
	}
	return a.printTables([]table{t}, noHead, false)
}

func (a *app) watchEvents(ctx context.Context, b api.Backend, q api.EventQuery, keep func(api.Event) bool, noHead bool) error {
	events, err := findResource("events")
	if err != nil {
		return err
	}
	var widths []int
	err = b.Events(ctx, q, func(e api.Event) error {
		switch {
		case !keep(e):
			return nil
		case a.output == "json":
			return planview.WriteJSON(a.Stdout, e, "")
		}
		t := eventTable([]api.Event{e}, a.output == "wide", a.Now())
		t.resource = events
		l := a.layout([]table{t}, noHead)
		// Time passes while one looks on: what happened is shown with the time of day.
		t.head[0], t.rows[0].cells[0] = "TIME", e.Time.UTC().Format("15:04:05Z")
		lines := [][]string{strings.Split(t.line(t.rows[0], l), "\t")}
		if widths == nil && !noHead {
			head := t.head
			if l.namespaces {
				head = append([]string{"NAMESPACE"}, head...)
			}
			lines = append([][]string{head}, lines...)
		}
		widths = a.printAligned(lines, widths)
		return nil
	})
	if contextDone(ctx, err) {
		return nil
	}
	return err
}

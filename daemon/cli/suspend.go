package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
	"github.com/fairlead-dev/fairlead/render/object"
)

func (a *app) suspendCmd() *cobra.Command {
	var until, reason string
	c := &cobra.Command{
		Use:   "suspend APPLICATION | KIND/NAME",
		Short: "Leave an application or an object as it is",
		Long: `Leave an application or an object as it is, until a time or until it is resumed. It is remembered over restarts, and
who asked for it is told.

An application that is suspended follows Git no further: nothing is changed or deleted, and pods that get lost come
back as they were applied. An object that is suspended is neither changed, nor put right, nor deleted: what is
done to it by hand stays, until it is resumed. Where a process ends by itself it is started again all the same.

Exit codes: 0 when it is suspended, 1 on an error.`,
		Example: `  fairlead suspend shop --until 2h --reason "the database moves"
  fairlead suspend deploy/web -n shop --until 2026-12-01T06:00:00Z`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeApplications,
		RunE: func(c *cobra.Command, args []string) error {
			end, err := parseUntil(until, time.Now())
			if err != nil {
				return err
			}
			return a.with(c.Context(), Change, func(b api.Backend) error {
				application, ref, err := a.subject(c.Context(), b, args[0])
				if err != nil {
					return err
				}
				res, err := b.Suspend(c.Context(), api.SuspendRequest{Application: application, Object: ref, Until: end, Reason: reason})
				return a.printSuspension(c.Context(), b, args[0], res, err, "is suspended "+res.Suspension.String())
			})
		},
	}
	c.Flags().StringVar(&until, "until", "", "when it ends by itself: a duration from now (2h, 45m, 3d) or a time (2026-12-01T06:00:00Z)")
	c.Flags().StringVar(&reason, "reason", "", "why, for others to read")
	a.namespaced(c)
	a.formats(c, "text", "json", "yaml")
	return c
}

func (a *app) resumeCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "resume APPLICATION | KIND/NAME",
		Short: "Let an application or an object that is suspended go on",
		Long: `Let an application or an object go on that ` + "`fairlead suspend`" + ` has suspended. What is suspended in Git is
resumed there.

Exit codes: 0 when it goes on, 1 on an error and when no command has suspended it.`,
		Example: `  fairlead resume shop
  fairlead resume deploy/web -n shop`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeApplications,
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), Change, func(b api.Backend) error {
				application, ref, err := a.subject(c.Context(), b, args[0])
				if err != nil {
					return err
				}
				res, err := b.Resume(c.Context(), api.ResumeRequest{Application: application, Object: ref})
				return a.printSuspension(c.Context(), b, args[0], res, err, "goes on; it was suspended "+res.Suspension.String())
			})
		},
	}
	a.namespaced(c)
	a.formats(c, "text", "json", "yaml")
	return c
}

// subject finds what an argument names: an application, or an object.
func (a *app) subject(ctx context.Context, b api.Backend, arg string) (application string, ref object.Ref, err error) {
	apps, err := b.Applications(ctx)
	if err != nil {
		return "", ref, err
	}
	for _, x := range apps {
		if x.Name == arg { // it may have a slash
			return arg, ref, nil
		}
	}
	if !strings.Contains(arg, "/") {
		return arg, ref, nil
	}
	r, name, err := parseKindName(arg)
	if err != nil {
		return "", ref, err
	}
	if r.kind == "Application" {
		return name, ref, nil
	}
	ref, err = a.find(ctx, b, r, name)
	if ns := a.inNamespace(); errors.Is(err, api.ErrNotFound) && (ns != "" || !r.scoped) {
		return "", r.ref(ns, name), nil // it can be gone from the source, and there all the same
	}
	return "", ref, err
}

func (a *app) printSuspension(ctx context.Context, b api.Backend, arg string, res api.SuspendResult, err error, what string) error {
	if errors.Is(err, api.ErrNotFound) && !strings.Contains(arg, "/") {
		return a.applicationError(ctx, b, err, []string{arg})
	}
	if err != nil {
		return err
	}
	if a.output == "json" || a.output == "yaml" {
		return a.printValue(res)
	}
	subject := "Application " + res.Application
	if res.Application == "" {
		subject = res.Object.String()
	}
	fmt.Fprintf(a.Stdout, "%s %s\n", planview.Clean(subject), planview.Clean(what))
	return nil
}

// parseUntil reads an end: a duration from now, days included, or a time. Nothing is no end.
func parseUntil(text string, now time.Time) (time.Time, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	span := text
	days, rest, found := strings.Cut(text, "d")
	var whole time.Duration
	if found {
		var n int
		if _, err := fmt.Sscanf(days+" ", "%d ", &n); err == nil {
			whole, span = time.Duration(n)*24*time.Hour, rest
		}
	}
	d := time.Duration(0)
	if span != "" {
		var err error
		if d, err = time.ParseDuration(span); err != nil {
			return time.Time{}, fmt.Errorf("--until %q is neither a duration like 2h or 3d nor a time like 2026-12-01T06:00:00Z", text)
		}
	}
	if d += whole; d <= 0 {
		return time.Time{}, fmt.Errorf("--until %q is not in the future", text)
	}
	return now.Add(d).Truncate(time.Second), nil
}

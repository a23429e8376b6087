package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
)

func (a *app) reconcileCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "reconcile [APPLICATION…]",
		Short: "Make the daemon look again at once",
		Long: `Make the daemon fetch and plan the applications (all when none are named) at once, as if their interval had
passed. It does not wait; ` + "`fairlead events --watch`" + ` shows what comes of it. What ` + "`fairlead down`" + ` suspended
is reconciled again, and a revision that failed is tried again.`,
		Example: `  fairlead reconcile
  fairlead reconcile shop blog`,
		ValidArgsFunction: a.completeApplications,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.daemon(c.Context())
			if err != nil {
				return fmt.Errorf("%w; `fairlead apply` makes one pass without a daemon", err)
			}
			defer client.Close()
			if err := client.Reconcile(c.Context(), args); err != nil {
				return a.applicationError(c.Context(), client, err, args)
			}
			what := "all applications"
			if len(args) > 0 {
				what = strings.Join(args, ", ")
			}
			fmt.Fprintf(a.Stdout, "Asked the daemon to reconcile %s.\n", planview.Clean(what))
			return nil
		},
	}
}

func (a *app) downCmd() *cobra.Command {
	var yes, dry bool
	c := &cobra.Command{
		Use:   "down [APPLICATION…]",
		Short: "Remove what applications run",
		Long: `Delete everything that the applications (all when none are named) own: pods, and the objects in their
inventory. What Fairlead did not make is never touched. It first shows what goes and asks; without a
terminal it refuses, unless --yes is given. A running daemon leaves the applications suspended until
` + "`fairlead reconcile`" + `.

Exit codes: 0 when everything is gone, 1 on an error and when the answer is no.`,
		Example: `  fairlead down
  fairlead down shop --yes
  fairlead down --dry-run`,
		ValidArgsFunction: a.completeApplications,
		RunE: func(c *cobra.Command, args []string) error {
			access := Change
			if dry {
				access = Look
			}
			return a.with(c.Context(), access, func(b api.Backend) error { return a.down(c.Context(), b, args, yes, dry) })
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVar(&dry, "dry-run", false, "only show what would go")
	a.formats(c, "text", "json", "yaml")
	return c
}

func (a *app) down(ctx context.Context, b api.Backend, names []string, yes, dry bool) error {
	programs := a.output == "json" || a.output == "yaml"
	show, err := b.Down(ctx, api.DownRequest{Applications: names, DryRun: true}, nil)
	if err != nil {
		return a.applicationError(ctx, b, err, names)
	}
	removal := api.PlanResult{Applications: show.Applications}
	switch {
	case programs && dry:
		show.Applications = planview.Redacted(removal).Applications
		return a.printValue(show)
	case programs:
	case !removal.Pending() && !removal.Failed():
		fmt.Fprintln(a.Stdout, "Nothing to remove.")
		if dry || (!yes && len(show.Applications) > 0) {
			return nil
		}
		// What pods stood on goes all the same: their network, and the directories for volumes.
		_, err := b.Down(ctx, api.DownRequest{Applications: names}, nil)
		return err
	default:
		if err := planview.Removal(a.Stdout, show.Applications, planview.Options{Color: a.color(a.Stdout)}); err != nil {
			return err
		}
	}
	switch {
	case removal.Failed():
		return exitCode(1)
	case dry:
		return nil
	case yes:
	case !isTerminal(a.Stdin):
		return errors.New("nobody can be asked, since stdin is not a terminal: give --yes to remove it")
	default:
		// The question goes where the answer comes from; stdout may be for a program.
		ok, err := confirm(ctx, a.Stdin, a.Stderr)
		if err != nil {
			return err
		}
		if !ok {
			fmt.Fprintln(a.Stderr, "Nothing was removed.")
			return exitCode(1)
		}
	}
	res, err := b.Down(ctx, api.DownRequest{Applications: names}, a.progress())
	if err != nil {
		return err
	}
	res.Applications = planview.Redacted(api.PlanResult{Applications: res.Applications}).Applications
	if err := a.printOutcomes(res.Outcomes, res, "Removed"); err != nil {
		return err
	}
	if slices.ContainsFunc(res.Outcomes, func(o api.Outcome) bool { return o.Error != nil }) {
		return exitCode(1)
	}
	return nil
}

// confirm asks, and reports whether the answer is yes. The end of the input is a no. A read that is
// under way when ctx ends is left behind: a terminal's read cannot be ended.
func confirm(ctx context.Context, r io.Reader, w io.Writer) (bool, error) {
	fmt.Fprint(w, "\nRemove all of this? Type yes to go on: ")
	type answer struct {
		line string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		line, err := bufio.NewReader(io.LimitReader(r, 1024)).ReadString('\n')
		got <- answer{line, err}
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(w)
		return false, ctx.Err()
	case g := <-got:
		if g.err != nil && !errors.Is(g.err, io.EOF) {
			return false, fmt.Errorf("read the answer: %w", g.err)
		}
		if errors.Is(g.err, io.EOF) {
			fmt.Fprintln(w)
		}
		word := strings.ToLower(strings.TrimSpace(g.line))
		return word == "yes" || word == "y", nil
	}
}

// applicationError adds to ErrNotFound which application was probably meant.
func (a *app) applicationError(ctx context.Context, b api.Backend, err error, asked []string) error {
	if !errors.Is(err, api.ErrNotFound) {
		return err
	}
	apps, listErr := b.Applications(ctx)
	if listErr != nil {
		return err
	}
	var known []string
	for _, app := range apps {
		known = append(known, app.Name)
	}
	for _, name := range asked {
		if slices.Contains(known, name) {
			continue
		}
		hint := didYouMean(name, known)
		if hint == "" {
			hint = "; `fairlead get applications` lists them"
		}
		return notFoundError(fmt.Sprintf("there is no application %q%s", name, hint))
	}
	return err
}

// daemon returns the client of the daemon, or an error that says how to start one.
func (a *app) daemon(ctx context.Context) (*api.Client, error) {
	up, err := api.Listening(ctx, a.settings.Socket)
	if err != nil {
		return nil, err
	}
	if !up {
		return nil, fmt.Errorf("no daemon answers at %s: start one with `fairlead up` or `fairlead run`, or say with --socket where it is", a.settings.Socket)
	}
	return api.NewClient(a.settings.Socket), nil
}

// printValue writes v in the format that was asked for, which is json or yaml.
func (a *app) printValue(v any) error {
	if a.output == "json" {
		return writeJSON(a.Stdout, v)
	}
	return writeYAML(a.Stdout, v)
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
	"github.com/fairlead-dev/fairlead/render/diag"
)

// sourceFlags adds the flags that describe one application on the command line.
func (a *app) sourceFlags(f *pflag.FlagSet) {
	s := &a.settings
	f.StringVar(&s.Path, "path", "", "directory in the repository (default: its root)")
	f.StringVar(&s.Ref, "ref", "", "branch, tag, full ref or commit; semver:RANGE for the highest tag in a range (default: the repository's default branch)")
	f.StringVar(&s.Name, "name", "", "name of the application (default: made from the repository and the path)")
	f.StringVarP(&s.Namespace, "namespace", "n", "", "namespace of objects that name none (default \"default\")")
	f.BoolVar(&s.AllowUnsupported, "allow-unsupported", false, "leave out objects of kinds that are not run, instead of failing")
	f.StringSliceVar(&s.VerifyKeys, "verify-keys", nil, "use only what is signed with a key in this file: OpenPGP, authorized_keys or allowed_signers (may be repeated)")
	f.StringVar(&s.VerifyMode, "verify-mode", "", "what has to be signed: HEAD (the commit), Tag or TagAndHEAD (default HEAD)")
	f.StringVar(&s.Auth.Username, "username", "", "user name for https")
	f.StringVar(&s.Auth.PasswordFile, "password-file", "", "file with the password or token for https")
	f.StringVar(&s.Auth.SSHKeyFile, "ssh-key", "", "private key for ssh (default: the ssh agent's keys)")
	f.StringVar(&s.Auth.KnownHostsFile, "known-hosts", "", "known_hosts file for ssh (default: ~/.ssh/known_hosts)")
	f.StringVar(&s.Auth.CAFile, "ca-file", "", "CA certificates for https (default: the system's)")
	f.StringVar(&s.Auth.CertFile, "client-cert", "", "client certificate for https")
	f.StringVar(&s.Auth.KeyFile, "client-key", "", "key of the client certificate")
}

func (a *app) pruneFlag(f *pflag.FlagSet) {
	f.BoolVar(&a.settings.Prune, "prune", true, "delete objects that are gone from the source")
}

// locate takes the location from the arguments.
func (a *app) locate(args []string) {
	if len(args) > 0 {
		a.settings.Location = args[0]
	}
}

func (a *app) planCmd() *cobra.Command {
	var apps []string
	var out, against string
	var detailed bool
	c := &cobra.Command{
		Use:   "plan [REPO_OR_DIR]",
		Short: "Show what would be done",
		Long: `Show what would be done to make the engine run what Git says. The engine and the repository are only read.

Without REPO_OR_DIR it plans the applications of the daemon or of the settings file, and --ref plans them
at another branch, tag or commit than the one they follow.

With --against it compares two revisions of Git and does not look at what runs: the plan is of what the change
itself does, for every application that it touches, those included that only one of the two declares. The
same two commits always give the same plan.

The last line is "Plan: N to add, N to change, N to destroy." or begins with "No changes.". Objects and pods
count alike; a replaced pod counts as one added and one destroyed.

Exit codes: 0, and 1 on an error. With --detailed-exitcode: 0 nothing to do, 2 changes pending, 1 error.`,
		Example: `  fairlead plan https://git.example.org/shop.git --path overlays/prod
  fairlead plan . --out shop.plan && fairlead apply --plan shop.plan
  fairlead plan --ref feature --detailed-exitcode
  fairlead plan https://git.example.org/shop.git --ref feature --against main -o markdown`,
		Args:              args(0, 1, "at most one REPO_OR_DIR"),
		ValidArgsFunction: directories,
		RunE: func(c *cobra.Command, args []string) error {
			a.locate(args)
			req := api.PlanRequest{Applications: apps, Against: against}
			if against != "" && out != "" {
				return errors.New("--out cannot be used with --against: a plan from Git to Git says nothing of what runs, so it cannot be applied")
			}
			if a.settings.Location == "" {
				req.Ref = a.settings.Ref
			}
			var res api.PlanResult
			err := a.with(c.Context(), Look, func(b api.Backend) (err error) {
				res, err = b.Plan(c.Context(), req, nil)
				return err
			})
			if err != nil {
				return err
			}
			if err := a.printPlan(res); err != nil {
				return err
			}
			if out != "" {
				if err := savePlan(out, res, savedSource(a.settings)); err != nil {
					return err
				}
			}
			return planExit(res.Failed(), detailed && res.Pending())
		},
	}
	a.sourceFlags(c.Flags())
	a.pruneFlag(c.Flags())
	c.Flags().StringSliceVar(&apps, "application", nil, "plan only this application (may be repeated)")
	completes(c, "application", a.completeApplications)
	c.Flags().StringVar(&against, "against", "", "compare with this branch, tag or commit instead of with what runs")
	c.Flags().StringVar(&out, "out", "", "save the plan to this file, for apply --plan")
	c.Flags().BoolVar(&detailed, "detailed-exitcode", false, "exit code 0 nothing to do, 2 changes pending, 1 error")
	a.formats(c, "text", "json", "yaml", "markdown")
	return c
}

// planExit is how a command ends that shows what would be done: with 1 when that cannot be, and with 2 when told is
// true, so that a script learns that something is to be done.
func planExit(failed, told bool) error {
	switch {
	case failed:
		return exitCode(1)
	case told:
		return exitCode(2)
	}
	return nil
}

func (a *app) printPlan(res api.PlanResult) error {
	switch a.output {
	case "json":
		return planview.JSON(a.Stdout, res)
	case "yaml":
		return writeYAML(a.Stdout, planview.Redacted(res))
	case "markdown":
		return planview.Markdown(a.Stdout, res)
	}
	return planview.Text(a.Stdout, res, planview.Options{Color: a.color(a.Stdout)})
}

func (a *app) applyCmd() *cobra.Command {
	var apps []string
	var file string
	c := &cobra.Command{
		Use:   "apply [REPO_OR_DIR]",
		Short: "Make one pass and wait until it is done",
		Long: `Make one pass: fetch, plan, carry the plan out, and wait until everything is ready or has failed.

With --plan it does exactly what a saved plan says. It refuses when the commit, the contents of the
directory or the state of the engine has moved since the plan was made, and says what was expected and what
is there. The plan knows the REPO_OR_DIR and flags that it was made with; credentials are read again from
their files.`,
		Example: `  fairlead apply . --path overlays/dev
  fairlead plan . --out shop.plan && fairlead apply --plan shop.plan`,
		Args:              args(0, 1, "at most one REPO_OR_DIR"),
		ValidArgsFunction: directories,
		RunE: func(c *cobra.Command, args []string) error {
			a.locate(args)
			req := api.ApplyRequest{Applications: apps}
			if file != "" {
				if len(apps) > 0 {
					return errors.New("--application cannot be used with --plan: the plan says which applications")
				}
				saved, err := loadPlan(file)
				if err != nil {
					return err
				}
				if len(args) == 0 && saved.Source != nil {
					saved.Source.into(&a.settings)
				}
				req.Expect = saved.Expect()
				for _, e := range req.Expect {
					req.Applications = append(req.Applications, e.Application)
				}
				if len(req.Expect) == 0 {
					return fmt.Errorf("the plan %s has no application", file)
				}
			}
			var res api.ApplyResult
			err := a.with(c.Context(), Change, func(b api.Backend) (err error) {
				res, err = b.Apply(c.Context(), req, a.progress())
				return err
			})
			if err != nil {
				return err
			}
			if err := a.printOutcomes(res.Outcomes, res, "Applied"); err != nil {
				return err
			}
			if res.Failed() {
				return exitCode(1)
			}
			return nil
		},
	}
	a.sourceFlags(c.Flags())
	c.Flags().StringSliceVar(&apps, "application", nil, "apply only this application (may be repeated)")
	completes(c, "application", a.completeApplications)
	a.pruneFlag(c.Flags())
	c.Flags().StringVar(&file, "plan", "", "carry out this saved plan, or refuse")
	a.formats(c, "text", "json", "yaml")
	return c
}

// progress returns what prints the progress of a pass: to stderr when stdout is for programs.
func (a *app) progress() func(api.Event) {
	w := a.Stdout
	if a.output == "json" || a.output == "yaml" {
		w = a.Stderr
	}
	color := a.color(w)
	return func(e api.Event) {
		if e.Step != nil && e.Step.State == api.StepStarted {
			return
		}
		fmt.Fprintln(w, eventLine(e, color))
	}
}

// eventLine is an event as progress: application, how far, what.
func eventLine(e api.Event, color bool) string {
	var b strings.Builder
	if e.Application != "" {
		b.WriteString(planview.Clean(e.Application) + "  ")
	}
	if e.Step != nil && e.Step.Total > 0 {
		fmt.Fprintf(&b, "[%d/%d] ", e.Step.Done, e.Step.Total)
	}
	if !e.Ref.IsZero() && !strings.Contains(e.Message, e.Ref.Name) {
		b.WriteString(planview.Clean(e.Ref.String()) + ": ")
	}
	msg := planview.Clean(e.Message)
	if e.Type == api.Warning {
		msg = planview.Paint(color, planview.Yellow, msg)
	}
	b.WriteString(msg)
	if e.Step != nil && e.Step.Duration >= 100*time.Millisecond {
		fmt.Fprintf(&b, " (%s)", e.Step.Duration.Round(100*time.Millisecond))
	}
	return b.String()
}

// printOutcomes prints how a pass ended; the last line counts what was done.
func (a *app) printOutcomes(outcomes []api.Outcome, whole any, done string) error {
	switch a.output {
	case "json":
		return writeJSON(a.Stdout, whole)
	case "yaml":
		return writeYAML(a.Stdout, whole)
	}
	color := a.color(a.Stdout)
	var sum api.Counts
	failed := 0
	for _, o := range outcomes {
		name := planview.Paint(color, planview.Bold, planview.Clean(o.Application))
		if o.Error != nil {
			failed++
			fmt.Fprintf(a.Stdout, "%s  %s after %d of %s: %s\n", name, planview.Paint(color, planview.Red, "failed"), o.Done, plural(o.Total, "step"), hanging(o.Error.Message))
			for _, l := range o.LogTail {
				fmt.Fprintf(a.Stdout, "    | %s\n", planview.Clean(l))
			}
			continue
		}
		sum = api.Counts{Add: sum.Add + o.Counts.Add, Change: sum.Change + o.Counts.Change, Destroy: sum.Destroy + o.Counts.Destroy}
		line := name + "  " + planview.Paint(color, planview.Green, "done")
		if o.Health != "" {
			line += ", " + string(o.Health)
		}
		if o.Revision.Short != "" {
			line += " at " + planview.Clean(o.Revision.Short)
		}
		if o.Duration > 0 {
			line += fmt.Sprintf(" in %s", o.Duration.Round(10*time.Millisecond))
		}
		if o.Message != "" {
			line += ": " + planview.Clean(o.Message)
		}
		fmt.Fprintln(a.Stdout, line)
	}
	switch {
	case failed > 0:
		fmt.Fprintf(a.Stdout, "%d of %s failed.\n", failed, plural(len(outcomes), "application"))
	case sum == api.Counts{}:
		fmt.Fprintln(a.Stdout, "No changes.")
	default:
		fmt.Fprintf(a.Stdout, "%s: %d added, %d changed, %d destroyed.\n", done, sum.Add, sum.Change, sum.Destroy)
	}
	return nil
}

func (a *app) validateCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "validate [REPO_OR_DIR]",
		Short: "Check manifests without an engine",
		Long: `Fetch and render, and report everything that is wrong, each finding with file and line. No engine is needed.

Without REPO_OR_DIR it checks the applications of the settings file (--config), or else the current directory.`,
		Args:              args(0, 1, "at most one REPO_OR_DIR"),
		ValidArgsFunction: directories,
		RunE: func(c *cobra.Command, args []string) error {
			a.locate(args)
			if a.settings.Location == "" && a.settings.ConfigFile == "" {
				a.settings.Location = "."
			}
			if a.Validate == nil {
				return errors.New("this build cannot validate")
			}
			v, err := a.Validate(c.Context(), a.settings)
			if err != nil {
				return err
			}
			switch a.output {
			case "json":
				err = writeJSON(a.Stdout, v)
			case "yaml":
				err = writeYAML(a.Stdout, v)
			default:
				a.printValidation(v)
			}
			if err == nil && v.Failed() {
				err = exitCode(1)
			}
			return err
		},
	}
	a.sourceFlags(c.Flags())
	a.formats(c, "text", "json", "yaml")
	return c
}

func (a *app) printValidation(v api.Validation) {
	color := a.color(a.Stdout)
	var errs, warnings int
	for _, app := range v.Applications {
		total := 0
		var kinds []string
		for _, k := range slices.Sorted(maps.Keys(app.Kinds)) {
			total += app.Kinds[k]
			kinds = append(kinds, fmt.Sprintf("%d %s", app.Kinds[k], planview.Clean(k)))
		}
		line := planview.Paint(color, planview.Bold, planview.Clean(app.Name)) + "  " + plural(total, "object")
		if len(kinds) > 0 {
			line += " (" + strings.Join(kinds, ", ") + ")"
		}
		fmt.Fprintln(a.Stdout, line)
		if app.Error != nil {
			errs++
			fmt.Fprintf(a.Stdout, "%s %s\n", planview.Paint(color, planview.Red, "error:"), hanging(app.Error.Message))
		}
		for _, d := range app.Diags.Sorted() {
			c := planview.Dim
			switch d.Severity {
			case diag.Error:
				c = planview.Red
				errs++
			case diag.Warning:
				c = planview.Yellow
				warnings++
			case diag.Info:
			}
			// At the beginning of the line, where editors look for file and line.
			fmt.Fprintln(a.Stdout, planview.Paint(color, c, hanging(d.String())))
		}
	}
	if errs+warnings == 0 {
		fmt.Fprintln(a.Stdout, "Valid.")
		return
	}
	fmt.Fprintf(a.Stdout, "%s, %s.\n", plural(errs, "error"), plural(warnings, "warning"))
}

// hanging is text whose lines after the first are indented.
func hanging(s string) string { return strings.ReplaceAll(cleanLines(s), "\n", "\n    ") }

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func writeJSON(w io.Writer, v any) error {
	return planview.WriteJSON(w, v, "  ")
}

func writeYAML(w io.Writer, v any) error {
	b, err := yaml.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// contextDone reports whether err is only that the caller ended the command.
func contextDone(ctx context.Context, err error) bool { return err != nil && ctx.Err() != nil }

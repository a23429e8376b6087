// Package cli holds the commands of fairlead: what people and scripts type, and how answers are shown.
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
	"github.com/fairlead-dev/fairlead/daemon/settings"
	"github.com/fairlead-dev/fairlead/daemon/telemetry"
)

// Run runs one command line and returns the exit code. When ctx ends, the command ends in good order.
func Run(ctx context.Context, env Env) int {
	if env.Now == nil {
		env.Now = time.Now
	}
	if env.Getenv == nil {
		env.Getenv = os.Getenv
	}
	a := &app{Env: env}
	root := a.root()
	root.SetArgs(env.Args)
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)

	err := root.ExecuteContext(ctx)
	var exit exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		fmt.Fprintln(env.Stderr, "Interrupted.")
		return 1
	case errors.Is(err, syscall.EPIPE):
		return 1 // the reader has gone, `fairlead get pods | head` for example: nothing is wrong
	}
	fmt.Fprintf(env.Stderr, "%s %s\n", planview.Paint(a.color(env.Stderr), planview.Red, "Error:"), cleanLines(a.explain(root, err)))
	return 1
}

// cleanLines is planview.Clean for text that may have several lines.
func cleanLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = planview.Clean(l)
	}
	return strings.Join(lines, "\n")
}

// exitCode is an error that says nothing more: everything was printed.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// app is one run of the command line.
type app struct {
	Env
	noColor       bool
	settings      Settings
	namespace     string
	allNamespaces bool
	selector      string
	output        string
	level         string
	log           settings.Log // the settings file's
}

const rootLong = `Fairlead keeps Docker hosts running true to Git: it renders the Kubernetes manifests of a Git
repository or directory, shows the difference to what runs as a plan, and carries the plan out on a
Docker engine. No Kubernetes is needed.

A daemon (fairlead up, fairlead run) answers the other commands over a unix socket in its state
directory. Where none answers, they work on their own.

Without --namespace, commands look in all namespaces.

Environment: FAIRLEAD_STATE_DIR, FAIRLEAD_SOCKET, FAIRLEAD_CONFIG and FAIRLEAD_NAMESPACE are the defaults of the flags of
these names. FAIRLEAD_INSTALLATION names the installation, for several on one engine. SOPS_AGE_KEY_FILE holds age keys
that decrypt SOPS files. DOCKER_HOST and DOCKER_CONFIG are as docker has them. NO_COLOR and CI turn colours off, and CI
the live view too.

Exit codes: 0 when everything went well, 1 when anything did not, bad usage included. With
--detailed-exitcode, plan ends with 0 when nothing is to be done, 2 when changes are pending, and 1 on
an error. exec ends with the exit code of its command.`

func (a *app) root() *cobra.Command {
	c := &cobra.Command{
		Use:               "fairlead",
		Short:             "Keep Docker hosts running true to Git",
		Long:              rootLong,
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              a.noSuchCommand,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	c.SetFlagErrorFunc(flagError)
	f := c.PersistentFlags()
	f.StringVar(&a.settings.Socket, "socket", "", "unix socket of the daemon (default: fairlead.sock in the state directory)")
	f.StringVar(&a.settings.StateDir, "state-dir", "", "directory of the daemon's state (default: "+a.stateDir()+")")
	f.StringVar(&a.settings.ConfigFile, "config", a.Getenv("FAIRLEAD_CONFIG"), "settings file of the daemon")
	f.StringVar(&a.settings.Engine, "engine", "", "address of the Docker engine (default: DOCKER_HOST, or the local engine)")
	f.BoolVar(&a.noColor, "no-color", false, "no colours")
	c.PersistentPreRun = func(c *cobra.Command, _ []string) { a.defaults(c) }

	c.AddGroup(&cobra.Group{ID: "run", Title: "Reconcile:"}, &cobra.Group{ID: "see", Title: "See:"}, &cobra.Group{ID: "pods", Title: "Work with pods:"})
	group := func(id string, cmds ...*cobra.Command) {
		for _, cmd := range cmds {
			cmd.GroupID = id
			c.AddCommand(cmd)
		}
	}
	group("run", a.upCmd(), a.runCmd(), a.planCmd(), a.previewCmd(), a.applyCmd(), a.validateCmd(), a.reconcileCmd(), a.approveCmd(), a.suspendCmd(), a.resumeCmd(), a.downCmd())
	group("see", a.statusCmd(), a.getCmd(), a.describeCmd(), a.whyCmd(), a.eventsCmd(), a.authCmd(), a.notifyCmd())
	group("pods", a.logsCmd(), a.execCmd())
	c.AddCommand(a.versionCmd(), a.renderWorkerCmd())
	return c
}

// defaults sets what follows from other flags, the environment and the settings file, in that order.
// Calling it again after more flags were read is allowed.
func (a *app) defaults(c *cobra.Command) {
	s := &a.settings
	given := func(flag string) bool { f := c.Flag(flag); return f != nil && f.Changed }
	var file settings.Settings
	if s.ConfigFile != "" {
		file, _ = settings.Read(s.ConfigFile) // whoever needs the file reads it again and reports what is wrong
	}
	if !given("state-dir") {
		s.StateDir = cmp.Or(a.Getenv("FAIRLEAD_STATE_DIR"), file.StateDir, a.stateDir())
	}
	s.StateDir = absolute(s.StateDir)
	if !given("socket") {
		s.Socket = cmp.Or(a.Getenv("FAIRLEAD_SOCKET"), file.Socket, filepath.Join(s.StateDir, socketName))
	}
	s.Socket = absolute(s.Socket)
	a.log = file.Log
}

// absolute makes a path independent of the current directory; what cannot be is left as it is.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil && path != "" {
		return abs
	}
	return path
}

// backend returns the daemon's client or, where no daemon answers, a local backend. A location on the
// command line always means a local one: the daemon does not know it.
func (a *app) backend(ctx context.Context) (b api.Backend, daemon bool, closeFn func() error, err error) {
	if a.settings.Location == "" {
		up, err := api.Listening(ctx, a.settings.Socket)
		if err != nil {
			return nil, false, nil, err
		}
		if up {
			c := api.NewClient(a.settings.Socket)
			return c, true, c.Close, nil
		}
	}
	if a.Local == nil {
		return nil, false, nil, fmt.Errorf("no daemon answers at %s: start one with `fairlead up` or `fairlead run`", a.settings.Socket)
	}
	log, err := telemetry.NewLogger(a.Stderr, telemetry.LogOptions{Level: "error", Color: a.color(a.Stderr)})
	if err != nil {
		return nil, false, nil, err
	}
	b, closeFn, err = a.Local(ctx, a.settings, log)
	if err != nil {
		return nil, false, nil, err
	}
	return b, false, closeFn, nil
}

// with runs f with a backend that may do what access says, and closes it.
func (a *app) with(ctx context.Context, access Access, f func(api.Backend) error) error {
	a.settings.Access = access
	b, _, done, err := a.backend(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f(b), done())
}

// logger returns the daemon's logger, as flags and the settings file have it. It writes to stderr.
func (a *app) logger(w io.Writer) (zerolog.Logger, error) {
	for _, wrong := range (settings.Settings{Log: a.log}).WithDefaults().Check() {
		if strings.HasPrefix(wrong, "log.") {
			return zerolog.Nop(), errors.New(wrong)
		}
	}
	format := telemetry.Console
	switch cmp.Or(a.output, a.log.Format) {
	case "", "text", "console":
	case "json":
		format = telemetry.JSON
	default:
		return zerolog.Nop(), fmt.Errorf("unknown output format %q: use text or json", a.output)
	}
	return telemetry.NewLogger(w, telemetry.LogOptions{Format: format, Level: cmp.Or(a.level, a.log.Level), Color: a.color(w), Now: a.Now})
}

// color reports whether w takes colours.
func (a *app) color(w io.Writer) bool {
	return !a.noColor && a.Getenv("NO_COLOR") == "" && a.Getenv("CI") == "" && a.Getenv("TERM") != "dumb" && isTerminal(w)
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// namespaced adds -n and -A.
func (a *app) namespaced(c *cobra.Command) {
	c.Flags().StringVarP(&a.namespace, "namespace", "n", a.Getenv("FAIRLEAD_NAMESPACE"), "look only in this namespace")
	c.Flags().BoolVarP(&a.allNamespaces, "all-namespaces", "A", false, "look in all namespaces (the default, unless FAIRLEAD_NAMESPACE is set)")
	completes(c, "namespace", a.completeNamespace)
}

// inNamespace is the namespace to look in; empty for all.
func (a *app) inNamespace() string {
	if a.allNamespaces {
		return ""
	}
	return a.namespace
}

// formats adds -o with the formats that a command knows.
func (a *app) formats(c *cobra.Command, formats ...string) {
	c.Flags().StringVarP(&a.output, "output", "o", "", "output format: "+strings.Join(formats, ", "))
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that does not exist
	check := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		for _, f := range append(formats, "") {
			if a.output == f {
				return check(c, args)
			}
		}
		return fmt.Errorf("unknown output format %q: use %s", a.output, strings.Join(formats, ", "))
	}
}

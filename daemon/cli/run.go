package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
)

func (a *app) upCmd() *cobra.Command {
	var plain bool
	c := &cobra.Command{
		Use:   "up REPO_OR_DIR",
		Short: "Keep running what a repository or directory says, until stopped",
		Long: `Reconcile in the foreground until stopped: fetch, plan, apply, and again whenever the source or the engine
moves. A directory is watched, a repository is asked every --interval.

At a terminal it shows applications, pods, the progress of rollouts and the last events, and draws them anew
as they change; elsewhere, in CI and with --plain or -o it writes log lines to stderr.

Ctrl-C ends it. What runs goes on running; ` + "`fairlead down`" + ` removes it.`,
		Example: `  fairlead up . --path overlays/dev
  fairlead up https://git.example.org/shop.git --path overlays/prod --ref v1 --interval 30s
  fairlead up git@git.example.org:shop.git --ssh-key ~/.ssh/deploy -o json`,
		Args:              args(1, 1, "a REPO_OR_DIR"),
		ValidArgsFunction: directories,
		RunE: func(c *cobra.Command, args []string) error {
			a.locate(args)
			if out, ok := a.Stdout.(*os.File); ok && !plain && a.output == "" && a.liveTerminal() {
				return a.runLive(c.Context(), out)
			}
			return a.runLogged(c.Context())
		},
	}
	a.sourceFlags(c.Flags())
	c.Flags().DurationVar(&a.settings.Interval, "interval", 0, "how often a repository is asked for news (default: the settings file's, or 1m)")
	a.pruneFlag(c.Flags())
	c.Flags().BoolVar(&plain, "plain", false, "log lines instead of the live view")
	a.daemonFlags(c)
	return c
}

func (a *app) runCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon from a settings file",
		Long: `Run as a service: reconcile the applications of a settings file until stopped, and answer the other commands
on the unix socket. Log lines go to stderr; -o json makes them JSON.

Under systemd with Type=notify it tells when it is ready and what it does, and serves WatchdogSec.
SIGTERM and SIGINT end it. What runs goes on running.`,
		Example: `  fairlead run --config /etc/fairlead/fairlead.yaml -o json`,
		Args:    args(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			if a.settings.ConfigFile == "" {
				return errors.New("run needs a settings file: --config FILE, or FAIRLEAD_CONFIG; `fairlead up REPO_OR_DIR` needs none")
			}
			return a.runLogged(c.Context())
		},
	}
	a.daemonFlags(c)
	return c
}

// daemonFlags adds what up and run have in common.
func (a *app) daemonFlags(c *cobra.Command) {
	c.Flags().StringVar(&a.settings.Listen, "listen", "", "address for /healthz, /readyz and /metrics, for example 127.0.0.1:9464 (default: the settings file's, or none)")
	c.Flags().StringVar(&a.level, "log-level", "", "trace, debug, info, warn or error (default: the settings file's, or info)")
	_ = c.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]string{"trace", "debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that does not exist
	a.formats(c, "text", "json")
}

// liveTerminal reports whether stdout can show the live view.
func (a *app) liveTerminal() bool {
	return isTerminal(a.Stdout) && a.Getenv("CI") == "" && a.Getenv("TERM") != "dumb"
}

// runLogged runs a daemon that writes log lines.
func (a *app) runLogged(ctx context.Context) error {
	log, err := a.logger(a.Stderr)
	if err != nil {
		return err
	}
	sys, err := a.newSystem(ctx, log)
	if err != nil {
		return err
	}
	err = sys.Run(ctx)
	if err == nil && ctx.Err() == nil {
		return errors.New("the daemon ended by itself")
	}
	if err == nil || errors.Is(err, context.Canceled) {
		log.Info().Msg("fairlead stopped; what runs goes on running")
		return nil
	}
	return err
}

func (a *app) newSystem(ctx context.Context, log zerolog.Logger) (System, error) {
	if a.New == nil {
		return nil, errors.New("this build has no daemon")
	}
	return a.New(ctx, a.settings, log)
}

// lastLines keeps the newest lines that were written to it.
type lastLines struct {
	mu    sync.Mutex
	lines []string
}

const keptLines = 20

// Write implements io.Writer; a logger writes one line at a time.
func (l *lastLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, strings.TrimSuffix(string(p), "\n"))
	if len(l.lines) > keptLines {
		l.lines = append([]string(nil), l.lines[1:]...)
	}
	return len(p), nil
}

func (l *lastLines) writeTo(w io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		fmt.Fprintln(w, planview.Clean(line))
	}
}

func (a *app) versionCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "version",
		Short: "Show the version of this program and of the daemon",
		Args:  args(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			v := versions{Version: a.Version, Revision: a.Revision}
			if client, err := a.daemon(c.Context()); err == nil {
				defer client.Close()
				if st, err := client.Status(c.Context()); err == nil {
					v.Daemon = st.Version
				}
			}
			switch a.output {
			case "json":
				return writeJSON(a.Stdout, v)
			case "yaml":
				return writeYAML(a.Stdout, v)
			}
			line := "fairlead " + v.Version
			if v.Revision != "" {
				line += " (" + v.Revision + ")"
			}
			fmt.Fprintln(a.Stdout, line)
			switch {
			case v.Daemon == "":
			case v.Daemon != v.Version:
				fmt.Fprintf(a.Stdout, "daemon   %s: another version than this program; restart it\n", planview.Clean(v.Daemon))
			default:
				fmt.Fprintf(a.Stdout, "daemon   %s\n", planview.Clean(v.Daemon))
			}
			return nil
		},
	}
	a.formats(c, "text", "json", "yaml")
	return c
}

type versions struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	// Daemon is empty when none answers.
	Daemon string `json:"daemon,omitempty"`
}

func (a *app) renderWorkerCmd() *cobra.Command {
	return &cobra.Command{
		Use:    "render-worker",
		Short:  "Render for a daemon, over stdin and stdout",
		Hidden: true,
		Args:   args(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			if a.RenderWorker == nil {
				return errors.New("this build has no render worker")
			}
			return a.RenderWorker(c.Context(), a.Stdin, a.Stdout)
		},
	}
}

// directories completes REPO_OR_DIR.
func directories(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

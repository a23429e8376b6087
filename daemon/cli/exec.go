package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/fairlead-dev/fairlead/daemon/api"
)

func (a *app) execCmd() *cobra.Command {
	var r api.ExecRequest
	c := &cobra.Command{
		Use:   "exec POD | KIND/NAME [-it] -- COMMAND [ARGUMENT…]",
		Short: "Run a command in a container",
		Long: `Run a command in a container of a pod, or of the first ready pod of a workload.

Exit codes: that of the command; 1 when it could not be run.`,
		Example: `  fairlead exec web-5d9f-x2x4k -- cat /etc/hosts
  fairlead exec -it deploy/web -c web -- sh
  tar c site | fairlead exec -i web-5d9f-x2x4k -- tar x -C /srv`,
		Args: func(c *cobra.Command, got []string) error {
			switch dash := c.ArgsLenAtDash(); {
			case len(got) == 0 || dash == 0:
				return errors.New("exec needs a pod: fairlead exec POD -- COMMAND")
			case dash < 0 && len(got) == 1, dash == len(got):
				return errors.New("exec needs a command: fairlead exec POD -- COMMAND")
			case dash != 1:
				return fmt.Errorf("write -- between the pod and the command: fairlead exec %s -- %s", got[0], strings.Join(got[1:], " "))
			}
			return nil
		},
		ValidArgsFunction: a.completePod,
		RunE: func(c *cobra.Command, args []string) error {
			r.Command = args[1:]
			return a.with(c.Context(), Exec, func(b api.Backend) error { return a.exec(c.Context(), b, args[0], r) })
		},
	}
	a.namespaced(c)
	c.Flags().StringVarP(&r.Container, "container", "c", "", "container (default: the first that is not an init container)")
	c.Flags().BoolVarP(&r.Stdin, "stdin", "i", false, "connect stdin")
	c.Flags().BoolVarP(&r.TTY, "tty", "t", false, "give the command a terminal")
	completes(c, "container", a.completeContainer)
	return c
}

func (a *app) exec(ctx context.Context, b api.Backend, arg string, r api.ExecRequest) error {
	pods, err := a.podsOf(ctx, b, arg)
	if err != nil {
		return err
	}
	pod := pods[max(0, slices.IndexFunc(pods, func(p api.Pod) bool { return p.IsReady }))]
	r.Pod = pod.PodKey
	asked := r.Container
	if r.Container, err = containerOf(pod, asked); err != nil {
		return err
	}
	if main := mainContainers(pod); asked == "" && len(main) > 1 {
		fmt.Fprintf(a.Stderr, "Runs in container %s; -c chooses another: %s\n", r.Container, strings.Join(main, ", "))
	}
	streams := api.Streams{Stdout: a.Stdout, Stderr: a.Stderr}
	if r.Stdin {
		streams.Stdin = a.Stdin
	}
	if r.TTY {
		t, err := a.openTerminal(ctx, r.Stdin)
		if err != nil {
			return err
		}
		defer t.close()
		streams.Resize = t.sizes
	}
	code, err := b.Exec(ctx, r, streams)
	if err != nil {
		return err
	}
	if code != 0 {
		return exitCode(code)
	}
	return nil
}

func mainContainers(p api.Pod) []string {
	var out []string
	for _, c := range p.Containers {
		if !c.Init {
			out = append(out, c.Name)
		}
	}
	return out
}

// terminal is the user's terminal while a command of a container has it.
type terminal struct {
	sizes   chan [2]uint
	restore func()
	stop    func()
}

// openTerminal hands every key to the command and reports the size at first and after every change.
// The terminal is as before when ctx ends, even when the command does not end then.
func (a *app) openTerminal(ctx context.Context, raw bool) (*terminal, error) {
	t := &terminal{restore: func() {}, sizes: make(chan [2]uint, 1)}
	if raw {
		in, ok := a.Stdin.(*os.File)
		if !ok || !isTerminal(in) {
			return nil, errors.New("--tty with --stdin needs a terminal, and stdin is none: leave out -t")
		}
		before, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return nil, fmt.Errorf("set the terminal: %w", err)
		}
		t.restore = sync.OnceFunc(func() { _ = term.Restore(int(in.Fd()), before) })
	}
	undo := context.AfterFunc(ctx, t.restore)
	out, ok := a.Stdout.(*os.File)
	if !ok || !isTerminal(out) {
		t.sizes = nil
		t.stop = func() { undo() }
		return t, nil
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	done := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		for {
			if w, h, err := term.GetSize(int(out.Fd())); err == nil {
				select {
				case <-t.sizes: // only the newest size counts
				default:
				}
				t.sizes <- [2]uint{uint(w), uint(h)}
			}
			select {
			case <-changed:
			case <-done:
				return
			}
		}
	})
	t.stop = func() {
		undo()
		signal.Stop(changed)
		close(done)
		watcher.Wait()
	}
	return t, nil
}

func (t *terminal) close() {
	t.stop()
	t.restore()
}

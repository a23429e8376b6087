package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/live"
	"github.com/fairlead-dev/fairlead/daemon/telemetry"
)

const (
	// frameEvery is the least time between two frames: a terminal over a slow line keeps up with it.
	frameEvery = 100 * time.Millisecond
	// shownEvents is more than any screen has room for.
	shownEvents = 200
)

// runLive runs a daemon under the live view. Its log goes nowhere, as events say the same, but the last
// warnings are shown when it fails.
func (a *app) runLive(ctx context.Context, out *os.File) (err error) {
	kept := &lastLines{}
	log, err := telemetry.NewLogger(kept, telemetry.LogOptions{Level: "warn", Now: a.Now})
	if err != nil {
		return err
	}
	sys, err := a.newSystem(ctx, log)
	if err != nil {
		kept.writeTo(a.Stderr)
		return err
	}
	screen, err := live.Open(out)
	if err != nil {
		return err
	}
	quiet := echoOff(a.Stdin)
	restore := sync.OnceFunc(func() {
		_ = screen.Close() // a terminal that is gone needs no restoring
		quiet()
	})
	defer restore() // also when anything below panics
	// At the first signal the terminal is given back at once: a second one may kill.
	stopped := context.AfterFunc(ctx, func() {
		restore()
		fmt.Fprintln(out, "Stopping…")
	})
	defer stopped()

	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	v := &liveView{
		b: sys, now: a.Now, color: a.color(out), title: a.title(),
		size: func() (int, int, error) { return term.GetSize(int(out.Fd())) },
		draw: screen.Draw,
	}
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := sys.Run(gctx)
		if err == nil && gctx.Err() == nil {
			err = errors.New("the daemon ended by itself")
		}
		return err
	})
	group.Go(func() error { return v.run(gctx, resized) })
	err = group.Wait()
	restore()
	if err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintln(out, "Stopped. What runs goes on running; `fairlead down` removes it.")
		return nil
	}
	kept.writeTo(a.Stderr)
	return err
}

// title says in short what is reconciled.
func (a *app) title() string {
	s := a.settings.Location
	if abs, err := filepath.Abs(s); err == nil {
		if fi, err := os.Stat(abs); err == nil && fi.IsDir() {
			s = abs
		}
	}
	if p := a.settings.Path; p != "" {
		s += " " + p
	}
	if r := a.settings.Ref; r != "" {
		s += " @ " + r
	}
	return s
}

// echoOff stops the terminal from showing keys in the middle of the view, until the returned function is called.
func echoOff(r io.Reader) (undo func()) {
	f, ok := r.(*os.File)
	if !ok || !isTerminal(f) {
		return func() {}
	}
	before, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return func() {}
	}
	after := *before
	after.Lflag &^= unix.ECHO
	if unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, &after) != nil {
		return func() {}
	}
	return func() { _ = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, before) } // the terminal may be gone
}

// liveView draws a backend whenever it changes, the terminal changes its size, or a second passes.
type liveView struct {
	b     api.Backend
	now   func() time.Time
	color bool
	title string
	size  func() (width, height int, err error)
	draw  func(frame string, anew bool) error

	model live.Model
}

// run draws until ctx ends, which is not an error, or the terminal fails.
func (v *liveView) run(ctx context.Context, resized <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed := make(chan struct{}, 1)
	watched, unwatched := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(unwatched)
		watched <- v.b.Watch(ctx, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	}()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	pace := time.NewTicker(frameEvery)
	defer pace.Stop()
	for {
		anew := false
		select {
		case <-ctx.Done():
			<-unwatched
			return nil
		case err := <-watched:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch the daemon: %w", errors.Join(err, errors.New("it ended")))
		case <-changed:
			v.read(ctx)
		case <-second.C:
		case <-resized:
			anew = true
		}
		if ctx.Err() != nil {
			continue
		}
		w, h, err := v.size()
		if err != nil {
			cancel()
			<-unwatched
			return fmt.Errorf("ask the terminal for its size: %w", err)
		}
		v.model.Now = v.now()
		if err := v.draw(live.Render(v.model, w, h, v.color), anew); err != nil {
			cancel()
			<-unwatched
			return err
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
		}
	}
}

// read fills the model. What cannot be read stays as it was, with a line that says so.
func (v *liveView) read(ctx context.Context) {
	m := v.model
	m.Title, m.Problem = v.title, ""
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	if apps, err := v.b.Applications(ctx); err == nil {
		m.Applications = apps
	} else {
		note(err)
	}
	if srcs, err := v.b.Sources(ctx); err == nil {
		m.Sources = srcs
	} else {
		note(err)
	}
	if pods, err := v.b.Pods(ctx, api.Query{}); err == nil {
		m.Pods = pods
	} else {
		note(err)
	}
	var events []api.Event
	err := v.b.Events(ctx, api.EventQuery{Tail: shownEvents}, func(e api.Event) error { events = append(events, e); return nil })
	if err == nil {
		m.Events = events
	} else {
		note(err)
	}
	if len(errs) > 0 {
		m.Problem = "this may be old: " + errs[0].Error()
	}
	v.model = m
}

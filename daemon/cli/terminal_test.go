package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/api/apitest"
	"github.com/fairlead-dev/fairlead/plan"
)

// screen is the other end of a terminal: it keeps everything that was written.
type screen struct {
	master, slave *os.File

	mu      sync.Mutex
	changed chan struct{}
	text    bytes.Buffer
}

func newScreen(t *testing.T) *screen {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	s := &screen{master: master, slave: slave, changed: make(chan struct{})}
	s.size(t, 100, 30)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			s.mu.Lock()
			s.text.Write(buf[:n])
			close(s.changed)
			s.changed = make(chan struct{})
			s.mu.Unlock()
			if err != nil {
				return // the test closed it
			}
		}
	}()
	return s
}

func (s *screen) size(t *testing.T, width, height uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(s.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}); err != nil {
		t.Fatal(err)
	}
}

// wait returns what was written as soon as it has text.
func (s *screen) wait(t *testing.T, text string) string {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		s.mu.Lock()
		got, changed := s.text.String(), s.changed
		s.mu.Unlock()
		if strings.Contains(got, text) {
			return got
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%q was not written; there is %q", text, got)
		}
	}
}

func (s *screen) flags(t *testing.T) uint32 {
	t.Helper()
	tio, err := unix.IoctlGetTermios(int(s.slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return tio.Lflag & (unix.ECHO | unix.ICANON | unix.ISIG)
}

// running is a daemon that runs until it is stopped, or fails.
type running struct {
	api.Backend
	fail chan error
}

func (r running) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-r.fail:
		return err
	}
}

func (s *screen) env(args ...string) Env {
	return Env{
		Args: args, Stdin: s.slave, Stdout: s.slave, Stderr: s.slave,
		Getenv: func(k string) string {
			return map[string]string{"TERM": "xterm", "FAIRLEAD_STATE_DIR": "/nonexistent"}[k]
		},
	}
}

func TestUpAtATerminal(t *testing.T) {
	for _, tt := range []struct {
		name string
		fail bool
		want string
	}{{"stopped", false, "Stopped. What runs goes on running"}, {"failing", true, "the state directory is full"}} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScreen(t)
			before := s.flags(t)
			sys := running{apitest.New(apitest.State{Applications: []api.Application{{Name: "shop", Health: api.Healthy}}}), make(chan error, 1)}
			env := s.env("up", ".")
			env.New = func(context.Context, Settings, zerolog.Logger) (System, error) { return sys, nil }
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			code := make(chan int, 1)
			go func() { code <- Run(ctx, env) }()
			s.wait(t, "shop")
			if s.flags(t)&unix.ECHO != 0 {
				t.Error("keys are shown in the middle of the view")
			}
			if s.flags(t)&unix.ISIG == 0 {
				t.Error("Ctrl-C is no signal")
			}
			wantCode := 0
			if tt.fail {
				wantCode = 1
				sys.fail <- fmt.Errorf("the state directory is full")
			} else {
				cancel()
			}
			if c := <-code; c != wantCode {
				t.Errorf("exit code %d", c)
			}
			got := s.wait(t, tt.want)
			after := got[strings.Index(got, "shop"):]
			restored := strings.Index(after, "\x1b[?25h\x1b[?1049l")
			if restored < 0 || restored > strings.Index(after, tt.want) {
				t.Errorf("the screen was not restored before the last words: %q", after)
			}
			if strings.Count(got, "\x1b[?1049l") != 1 {
				t.Error("the screen was restored more than once")
			}
			if s.flags(t) != before {
				t.Error("the terminal is not as before")
			}
		})
	}
}

func TestUpWithoutLiveView(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		env  string
	}{{"plain", []string{"--plain"}, ""}, {"json", []string{"-o", "json"}, ""}, {"CI", nil, "CI"}, {"dumb", nil, "TERM"}} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScreen(t)
			sys := running{apitest.New(apitest.State{}), make(chan error, 1)}
			env := s.env(append([]string{"up", "."}, tt.args...)...)
			getenv := env.Getenv
			env.Getenv = func(k string) string {
				if k == tt.env {
					return "dumb"
				}
				return getenv(k)
			}
			env.New = func(_ context.Context, _ Settings, log zerolog.Logger) (System, error) {
				log.Info().Msg("it is up")
				return sys, nil
			}
			ctx, cancel := context.WithCancel(t.Context())
			code := make(chan int, 1)
			go func() { code <- Run(ctx, env) }()
			s.wait(t, "it is up")
			cancel()
			if c := <-code; c != 0 {
				t.Errorf("exit code %d", c)
			}
			if got := s.wait(t, "fairlead stopped"); strings.Contains(got, "\x1b[?1049h") {
				t.Errorf("it opened a screen: %q", got)
			}
		})
	}
}

func TestDownAsksAtATerminal(t *testing.T) {
	state := apitest.State{Down: api.DownResult{
		Applications: []api.ApplicationPlan{{Name: "shop", Plan: plan.Plan{Changes: []plan.Change{{Ref: plan.PodKey{Namespace: "shop", Name: "web"}.Ref(), Action: plan.ActionDelete}}}}},
		Outcomes:     []api.Outcome{{Application: "shop", Counts: api.Counts{Destroy: 1}}},
	}}
	for _, tt := range []struct {
		answer, want string
		code, calls  int
	}{{"yes\n", "1 destroyed", 0, 2}, {"no\n", "Nothing was removed.", 1, 1}} {
		t.Run(tt.answer, func(t *testing.T) {
			s := newScreen(t)
			b := apitest.New(state)
			env := s.env("down")
			env.Local = func(context.Context, Settings, zerolog.Logger) (api.Backend, func() error, error) {
				return b, func() error { return nil }, nil
			}
			code := make(chan int, 1)
			go func() { code <- Run(t.Context(), env) }()
			s.wait(t, "Type yes to go on")
			if _, err := io.WriteString(s.master, tt.answer); err != nil {
				t.Fatal(err)
			}
			if c := <-code; c != tt.code {
				t.Errorf("exit code %d", c)
			}
			s.wait(t, tt.want)
			if n := len(b.Calls()); n != tt.calls {
				t.Errorf("calls: %q", b.Calls())
			}
		})
	}
}

func TestExecAtATerminal(t *testing.T) {
	s := newScreen(t)
	before := s.flags(t)
	b := apitest.New(apitest.State{
		ExitCode: 7, Output: "$ ",
		Pods: []api.Pod{{PodKey: plan.PodKey{Namespace: "shop", Name: "web"}, IsReady: true, Containers: []api.Container{{Name: "c", State: plan.Running}}}},
	})
	env := s.env("exec", "-it", "web", "--", "sh")
	env.Local = func(context.Context, Settings, zerolog.Logger) (api.Backend, func() error, error) {
		return b, func() error { return nil }, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	code := make(chan int, 1)
	go func() { code <- Run(ctx, env) }()
	s.wait(t, "100x30")
	if s.flags(t) != 0 {
		t.Error("the terminal is not raw: keys do not go to the command")
	}
	// Every key goes to the command, Ctrl-C too; the fake sends them back.
	if _, err := io.WriteString(s.master, "ab\x03"); err != nil {
		t.Fatal(err)
	}
	s.wait(t, "ab\x03")
	// The fake reads until the end, which a raw terminal does not have: a signal ends it, and the terminal is given back.
	cancel()
	deadline := time.Now().Add(10 * time.Second)
	for s.flags(t) != before {
		if time.Now().After(deadline) {
			t.Fatal("the terminal is not as before")
		}
	}
}

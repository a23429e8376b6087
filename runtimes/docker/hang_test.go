package docker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// canned answers every request with what answer writes; there is no engine behind it.
func canned(t *testing.T, answer http.HandlerFunc) *Engine {
	t.Helper()
	via := newProxy(t)
	via.answer(func(w http.ResponseWriter, r *http.Request, request string) bool {
		answer(w, r)
		return true
	})
	return via.open(t, "x")
}

// hang takes requests and does not answer before its end.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// hangLater answers what comes before a request of that suffix.
func hangLater(suffix string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, suffix):
			hang(w, r)
		case strings.HasSuffix(r.URL.Path, "/_ping"):
			w.Header().Set("Api-Version", minAPI)
		case strings.HasSuffix(r.URL.Path, "/exec"):
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"Id":"e"}`) // a client that went away is none of the test
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}
}

// No call waits for ever for an engine that hangs, from the first call on and later.
func TestHangs(t *testing.T) {
	const id = "0123456789abcdef"
	addr := netip.MustParseAddr("10.250.0.1")
	for name, call := range map[string]func(context.Context, *Engine) error{
		"info":    func(ctx context.Context, e *Engine) error { _, err := e.Info(ctx); return err },
		"list":    func(ctx context.Context, e *Engine) error { _, err := e.List(ctx); return err },
		"inspect": func(ctx context.Context, e *Engine) error { _, err := e.Inspect(ctx, id); return err },
		"image":   func(ctx context.Context, e *Engine) error { _, err := e.Image(ctx, "x"); return err },
		"sandbox": func(ctx context.Context, e *Engine) error { _, err := e.SandboxImage(ctx); return err },
		"pull":    func(ctx context.Context, e *Engine) error { _, err := e.Pull(ctx, "x", nil, nil); return err },
		"create": func(ctx context.Context, e *Engine) error {
			_, err := e.Create(ctx, runtimes.ContainerSpec{Identity: identity("x"), Image: "x"})
			return err
		},
		"start":  func(ctx context.Context, e *Engine) error { return e.Start(ctx, id) },
		"kill":   func(ctx context.Context, e *Engine) error { return e.Kill(ctx, id, "SIGTERM") },
		"remove": func(ctx context.Context, e *Engine) error { return e.Remove(ctx, id) },
		"update": func(ctx context.Context, e *Engine) error { return e.Update(ctx, id, plan.Resources{}) },
		"exec":   func(ctx context.Context, e *Engine) error { _, err := e.Exec(ctx, id, []string{"x"}, 1); return err },
		"attach": func(ctx context.Context, e *Engine) error {
			_, err := e.Attach(ctx, id, []string{"x"}, runtimes.ExecOptions{})
			return err
		},
		"logs": func(ctx context.Context, e *Engine) error {
			return e.Logs(ctx, id, runtimes.LogOptions{Follow: true}, io.Discard, io.Discard)
		},
		"network": func(ctx context.Context, e *Engine) error {
			p := netip.PrefixFrom(addr, 24)
			return e.EnsureNetwork(ctx, "x", "x", p, p, addr)
		},
		"no network": func(ctx context.Context, e *Engine) error { return e.RemoveNetwork(ctx, "x") },
		"no images":  func(ctx context.Context, e *Engine) error { return e.RemoveSandboxImages(ctx) },
	} {
		for _, later := range []bool{false, true} {
			e := canned(t, hang)
			if later {
				e.checked.Store(true)
			}
			for _, v := range []string{"strange", "ours"} {
				if v == "ours" {
					e.memory.prove(id, identity("x"), ours)
				}
				// The bound is the engine's: its end says that the engine hangs.
				e.bounds = bounds{read: 20 * time.Millisecond, change: 20 * time.Millisecond}
				err := call(context.Background(), e)
				if !errors.Is(err, runtimes.ErrUnavailable) || !strings.Contains(err.Error(), "hangs") || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s of a container that is %s: got %v", name, v, err)
				}
				// The caller's comes first: its end says nothing about the engine.
				e.bounds = bounds{read: time.Hour, change: time.Hour}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				if err := call(ctx, e); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, runtimes.ErrUnavailable) {
					t.Errorf("%s of a container that is %s: got %v", name, v, err)
				}
				cancel()
			}
		}
	}
}

// A command that the engine takes and does not start is given up by either bound.
func TestExecHangs(t *testing.T) {
	const id = "0123456789abcdef"
	e := canned(t, hangLater("/start"))
	e.memory.prove(id, identity("x"), ours)
	e.bounds.read = 50 * time.Millisecond
	if _, err := e.Exec(t.Context(), id, []string{"x"}, 1); !errors.Is(err, runtimes.ErrUnavailable) {
		t.Errorf("got %v, want %v", err, runtimes.ErrUnavailable)
	}
	e.bounds.read = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := e.Exec(ctx, id, []string{"x"}, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
	}
}

// A command that is given up ends, with all that it started in its process group.
func TestExecEnds(t *testing.T) {
	p, image := newPod(t)
	sandbox := p.sandbox(nil)
	main := p.run(runtimes.ContainerSpec{Identity: identity("main"), Image: image, SandboxID: sandbox, Command: runtimetest.Program("wait")})
	ctx, cancel := context.WithCancel(p.ctx)
	first := &onWrite{do: cancel}
	_, err := p.e.Attach(ctx, main, runtimetest.Program("ignore-term", "--", "print", "ready", "--", "forever"), runtimes.ExecOptions{Stdout: first})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want %v", err, context.Canceled)
	}
	p.e.work.Wait()
	// Its end is seen a moment after the kill; every look takes longer than that.
	var r runtimes.ExecResult
	for range 50 {
		r, err = p.e.Exec(p.ctx, main, runtimetest.Program("ps"), 10000)
		p.must(err)
		if !bytes.Contains(r.Output, []byte("forever")) {
			break
		}
	}
	if bytes.Contains(r.Output, []byte("forever")) {
		t.Errorf("it goes on:\n%s", r.Output)
	}
	if c, err := p.e.Inspect(p.ctx, main); err != nil || !c.Running {
		t.Errorf("the container ended with it: %v", err)
	}
}

// onWrite calls do when something is written.
type onWrite struct{ do func() }

func (o *onWrite) Write(b []byte) (int, error) {
	o.do()
	return len(b), nil
}

// A process that is not the container's is not touched.
func TestKillIn(t *testing.T) {
	if err := killIn(strings.Repeat("0", 64), 1<<22+1); err == nil {
		t.Error("a process that is not there was killed")
	}
	for _, container := range []string{"", "/", strings.Repeat("0", 64)} {
		if err := killIn(container, os.Getpid()); err == nil {
			t.Errorf("this process is said to be in container %q", container)
		}
	}
}

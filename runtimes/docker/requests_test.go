package docker

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// newProxiedPod is newPod behind a proxy.
func newProxiedPod(t *testing.T) (p pod, image string, via *proxy) {
	t.Helper()
	image = runtimetest.Image(t)
	via = newProxy(t)
	e := via.open(t, runtimetest.Name(t))
	runtimetest.RemoveAll(t, e)
	return pod{t, t.Context(), e}, image, via
}

// The life of a container costs one request for each call.
func TestRequests(t *testing.T) {
	p, image, via := newProxiedPod(t)
	_, err := p.e.SandboxImage(p.ctx)
	p.must(err)
	via.take()
	sandbox := p.sandbox(nil)
	expect := func(what string, want ...string) {
		t.Helper()
		if d := cmp.Diff(want, via.take()); d != "" {
			t.Errorf("requests of %s (-want +got):\n%s", what, d)
		}
	}
	expect("sandbox", "POST containers/create", "POST containers/ID/start")
	id := p.run(runtimes.ContainerSpec{Identity: identity("main"), Image: image, SandboxID: sandbox, Command: runtimetest.Program("wait")})
	expect("create and start", "POST containers/create", "POST containers/ID/start")
	p.must(p.e.Kill(p.ctx, id, "SIGKILL"))
	expect("kill", "POST containers/ID/kill")
	p.must(p.e.Remove(p.ctx, id))
	expect("remove", "DELETE containers/ID")

	id = p.run(runtimes.ContainerSpec{Identity: identity("main"), Image: image, SandboxID: sandbox, Command: runtimetest.Program("wait")})
	ended := await(t, p.e, runtimes.EventDie, id)
	via.take()
	_, err = p.e.List(p.ctx)
	p.must(err)
	expect("the first list", "GET containers/json", "GET containers/ID/json", "GET containers/ID/json")
	_, err = p.e.List(p.ctx)
	p.must(err)
	expect("a list of what did not change", "GET containers/json")
	p.must(p.e.Kill(p.ctx, id, "SIGKILL"))
	<-ended
	via.take()
	all, err := p.e.List(p.ctx)
	p.must(err)
	expect("a list after a container ended", "GET containers/json", "GET containers/ID/json")
	if len(all) != 2 {
		t.Errorf("listed %+v", all)
	}
}

// Nothing that reads asks the engine to change something.
func TestReadOnlyRequests(t *testing.T) {
	p, image := newPod(t)
	sandbox := p.sandbox(nil)
	main := p.run(runtimes.ContainerSpec{Identity: identity("main"), Image: image, SandboxID: sandbox, Command: runtimetest.Program("print", "x", "--", "wait")})
	via := newProxy(t)
	e := via.open(t, p.e.opt.Installation, func(o *Options) { o.ReadOnly = true })
	var nothing netip.Prefix
	for name, call := range map[string]func() error{
		"info":    func() error { _, err := e.Info(p.ctx); return err },
		"list":    func() error { _, err := e.List(p.ctx); return err },
		"inspect": func() error { _, err := e.Inspect(p.ctx, main); return err },
		"image":   func() error { _, err := e.Image(p.ctx, image); return err },
		"sandbox": func() error { _, err := e.SandboxImage(p.ctx); return err },
		"logs":    func() error { return e.Logs(p.ctx, main, runtimes.LogOptions{Tail: -1}, io.Discard, io.Discard) },
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, call := range map[string]func() error{
		"create":  func() error { _, err := e.Create(p.ctx, runtimes.ContainerSpec{Identity: identity("x")}); return err },
		"start":   func() error { return e.Start(p.ctx, main) },
		"kill":    func() error { return e.Kill(p.ctx, main, "SIGKILL") },
		"remove":  func() error { return e.Remove(p.ctx, main) },
		"update":  func() error { return e.Update(p.ctx, main, plan.Resources{CPUShares: 2}) },
		"exec":    func() error { _, err := e.Exec(p.ctx, main, runtimetest.Program("exit", "0"), 1); return err },
		"pull":    func() error { _, err := e.Pull(p.ctx, image, nil, nil); return err },
		"network": func() error { return e.EnsureNetwork(p.ctx, runtimetest.Name(t), "x", nothing, nothing, netip.Addr{}) },
		"images":  func() error { return e.RemoveSandboxImages(p.ctx) },
	} {
		if err := call(); !errors.Is(err, errReadOnly) {
			t.Errorf("%s: got %v, want %v", name, err, errReadOnly)
		}
	}
	requests := via.take()
	if len(requests) < 6 {
		t.Errorf("the proxy saw only %q", requests)
	}
	for _, r := range requests {
		if method, _, _ := strings.Cut(r, " "); method != http.MethodGet && method != http.MethodHead {
			t.Errorf("a reader asked %q", r)
		}
	}
}

// What the engine does not tell of is noticed: an end at once, because the list has other words, and the
// rest when what was inspected is too old.
func TestDroppedEvents(t *testing.T) {
	p, image, via := newProxiedPod(t)
	silent := make(chan struct{})
	t.Cleanup(func() { close(silent) })
	via.answer(func(w http.ResponseWriter, r *http.Request, request string) bool {
		if request != "GET events" {
			return false
		}
		w.WriteHeader(http.StatusOK)
		http.NewResponseController(w).Flush()
		select {
		case <-silent:
		case <-r.Context().Done():
		}
		return true
	})
	sandbox := p.sandbox(nil)
	main := p.run(runtimes.ContainerSpec{Identity: identity("main"), Image: image, SandboxID: sandbox, Command: runtimetest.Program("forever")})
	await(t, p.e, runtimes.EventDie, main)
	list := func() runtimes.Container {
		t.Helper()
		all, err := p.e.List(p.ctx)
		p.must(err)
		for _, c := range all {
			if c.ID == main {
				return c
			}
		}
		t.Fatal("it is not listed")
		return runtimes.Container{}
	}
	kill := func(signal string) {
		t.Helper()
		waiting, errs := p.e.cli.ContainerWait(p.ctx, main, container.WaitConditionNextExit)
		// The kernel drops a signal for a first process that has no handler yet: one that has just started.
		again := time.NewTicker(200 * time.Millisecond)
		defer again.Stop()
		for ; ; <-again.C {
			if err := p.e.cli.ContainerKill(p.ctx, main, signal); err != nil && !errdefs.IsConflict(err) {
				t.Fatal(err)
			}
			select {
			case <-waiting:
				return
			case err := <-errs:
				t.Fatal(err)
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	before := list()
	via.take()
	list()
	if d := cmp.Diff([]string{"GET containers/json"}, via.take()); d != "" {
		t.Fatalf("it is not remembered (-want +got):\n%s", d)
	}
	kill("SIGKILL")
	if c := list(); c.Running || c.ExitCode != 137 {
		t.Errorf("after its end: %+v", c)
	}
	p.must(p.e.cli.ContainerStart(p.ctx, main, container.StartOptions{}))
	if c := list(); !c.Running || c.PID == before.PID {
		t.Errorf("after it was started: %+v", c)
	}
	kill("SIGABRT")
	p.must(p.e.cli.ContainerStart(p.ctx, main, container.StartOptions{}))
	kill("SIGKILL")
	if c := list(); c.ExitCode != 137 {
		t.Errorf("after its end: %+v", c)
	}
	p.must(p.e.cli.ContainerStart(p.ctx, main, container.StartOptions{}))
	list()
	_, err := p.e.cli.ContainerUpdate(p.ctx, main, container.UpdateConfig{Resources: container.Resources{CPUShares: 77}})
	p.must(err)
	p.e.memory.maxAge = time.Nanosecond
	if c := list(); c.Resources.CPUShares != 77 {
		t.Errorf("after its limits were changed and the maximum age: %+v", c)
	}
}

// The words of a list tell whether what was inspected still holds.
func TestFits(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	running := func(d time.Duration) runtimes.Container { return runtimes.Container{Running: true, StartedAt: ago(d)} }
	ended := func(code int, d time.Duration) runtimes.Container {
		return runtimes.Container{StartedAt: ago(d + time.Hour), FinishedAt: ago(d), ExitCode: code}
	}
	for _, tt := range []struct {
		name          string
		c             runtimes.Container
		state, status string
		want          bool
	}{
		{"created", runtimes.Container{}, "created", "Created", true},
		{"just started", running(0), "running", "Up Less than a second", true},
		{"seconds", running(30 * time.Second), "running", "Up 30 seconds", true},
		{"a second off", running(30 * time.Second), "running", "Up 31 seconds", true},
		{"restarted", running(30 * time.Second), "running", "Up 3 seconds", false},
		{"a minute", running(60 * time.Second), "running", "Up 59 seconds", true},
		{"hours", running(5 * time.Hour), "running", "Up 5 hours", true},
		{"restarted long ago", running(5 * time.Hour), "running", "Up 4 hours", false},
		{"days", running(72 * time.Hour), "running", "Up 3 days", true},
		{"paused", runtimes.Container{Running: true, Paused: true, StartedAt: ago(time.Hour)}, "paused", "Up About an hour (Paused)", true},
		{"paused meanwhile", running(time.Hour), "paused", "Up About an hour (Paused)", false},
		{"ended", ended(3, 2*time.Minute), "exited", "Exited (3) 2 minutes ago", true},
		{"another code", ended(3, 2*time.Minute), "exited", "Exited (4) 2 minutes ago", false},
		{"ended again", ended(3, 2*time.Minute), "exited", "Exited (3) 9 seconds ago", false},
		{"ended meanwhile", running(time.Hour), "exited", "Exited (0) 1 second ago", false},
		{"other words", running(time.Hour), "running", "running since 11:00", false},
		{"dead", runtimes.Container{Dead: true}, "dead", "Dead", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := fits(tt.c, tt.state, tt.status, now, now.Add(50*time.Millisecond)); got != tt.want {
				t.Errorf("fits: %v, want %v", got, tt.want)
			}
		})
	}
}

// The first pods of a node ask for the sandbox image together; it is imported once, so that no image
// is left behind that lost its name to the next import.
func TestSandboxImageIsMadeOnce(t *testing.T) {
	via := newProxy(t)
	var mu sync.Mutex
	imports := 0
	via.answer(func(w http.ResponseWriter, r *http.Request, request string) bool {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		switch {
		case strings.HasSuffix(r.URL.Path, "/_ping"):
			w.Header().Set("Api-Version", minAPI)
		case request == "GET version":
			_, _ = io.WriteString(w, `{"Arch":"amd64"}`) // a client that went away is none of the test
		case request == "POST images/create":
			imports++
		case imports == 0:
			w.WriteHeader(http.StatusNotFound)
		default:
			fmt.Fprintf(w, `{"Id":"image-%d"}`, imports)
		}
		return true
	})
	e := via.open(t, "x")
	ids := make([]string, 8)
	var group errgroup.Group
	for i := range ids {
		group.Go(func() (err error) {
			ids[i], err = e.SandboxImage(t.Context())
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if imports != 1 {
		t.Errorf("the image was imported %d times", imports)
	}
	for _, id := range ids {
		if id != "image-1" {
			t.Errorf("the ids are %q", ids)
			break
		}
	}
}

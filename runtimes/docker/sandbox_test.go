package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// pod makes pods on the real engine.
type pod struct {
	*testing.T
	ctx context.Context
	e   *Engine
}

func (p pod) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func identity(container string) runtimes.Identity {
	return runtimes.Identity{Pod: plan.PodKey{Namespace: "default", Name: "p"}, UID: "u", Container: container}
}

// run creates and starts a container.
func (p pod) run(s runtimes.ContainerSpec) string {
	p.Helper()
	id, err := p.e.Create(p.ctx, s)
	p.must(err)
	p.must(p.e.Start(p.ctx, id))
	return id
}

// sandbox makes the sandbox of the pod without a network.
func (p pod) sandbox(change func(*runtimes.ContainerSpec)) string {
	p.Helper()
	image, err := p.e.SandboxImage(p.ctx)
	p.must(err)
	s := runtimes.ContainerSpec{Identity: identity(runtimes.SandboxContainer), Image: image, NoNetwork: true}
	if change != nil {
		change(&s)
	}
	return p.run(s)
}

// newPod opens an engine for a pod that is removed when the test ends.
func newPod(t *testing.T) (p pod, image string) {
	t.Helper()
	image = runtimetest.Image(t)
	e := open(t, runtimetest.Name(t))
	t.Cleanup(func() { e.Close() })
	runtimetest.RemoveAll(t, e)
	return pod{t, t.Context(), e}, image
}

// The sandbox ends on SIGTERM at once, and reaps the orphans of a pod that shares its processes.
func TestSandbox(t *testing.T) {
	p, image := newPod(t)
	sandbox := p.sandbox(func(s *runtimes.ContainerSpec) { s.PIDMode = "sandbox" })
	main := p.run(runtimes.ContainerSpec{
		Identity: identity("main"), Image: image, SandboxID: sandbox, PIDMode: "sandbox", Command: runtimetest.Program("orphan", "10ms", "--", "wait"),
	})
	for range 200 { // each takes longer than the orphan lives
		z, err := p.e.Exec(p.ctx, main, runtimetest.Program("zombies"), 1000)
		p.must(err)
		if string(z.Output) == "0\n" {
			break
		}
	}
	z, err := p.e.Exec(p.ctx, main, runtimetest.Program("zombies"), 1000)
	p.must(err)
	if string(z.Output) != "0\n" {
		r, err := p.e.Exec(p.ctx, main, runtimetest.Program("ps"), 1000)
		t.Errorf("zombies are left: %s, %v\n%s", z.Output, err, r.Output)
	}
	p.must(p.e.Kill(p.ctx, main, "SIGKILL"))
	ended := await(p.T, p.e, runtimes.EventDie, sandbox)
	p.must(p.e.Kill(p.ctx, sandbox, "SIGTERM"))
	if ev := <-ended; ev.ExitCode != 0 {
		t.Errorf("the sandbox ended with %d", ev.ExitCode)
	}
}

// A sandbox image that somebody removed is made again when it is needed.
func TestSandboxImageRemoved(t *testing.T) {
	p, _ := newPod(t)
	e := p.e
	id, err := e.SandboxImage(p.ctx)
	p.must(err)
	// Others use the image; that it is gone is played with an id that no image has.
	e.mu.Lock()
	e.sandbox = "sha256:" + strings.Repeat("0", 64)
	e.mu.Unlock()
	gone, err := e.SandboxImage(p.ctx)
	p.must(err)
	spec := runtimes.ContainerSpec{Identity: identity(runtimes.SandboxContainer), Image: gone, NoNetwork: true}
	c, err := e.Inspect(p.ctx, p.run(spec))
	p.must(err)
	if c.ImageID != id {
		t.Errorf("it was made from %s, want %s", c.ImageID, id)
	}
	spec.Identity.Attempt, spec.Image = 1, "sha256:"+strings.Repeat("1", 64)
	if _, err := e.Create(p.ctx, spec); !errors.Is(err, runtimes.ErrNotFound) {
		t.Errorf("another image that is not there: got %v, want %v", err, runtimes.ErrNotFound)
	}
}

// await returns a channel that gets the first event of a kind about a container. Nothing from now on is missed.
func await(t *testing.T, e *Engine, kind runtimes.EventKind, id string) <-chan runtimes.Event {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, found, done := make(chan struct{}, 100), make(chan runtimes.Event, 1), make(chan struct{})
	go func() {
		defer close(done)
		_ = e.Events(ctx, func(ev runtimes.Event) { // until the test ends
			switch {
			case ev.Kind == runtimes.EventGap:
				ready <- struct{}{}
			case ev.Kind == kind && ev.ContainerID == id:
				select {
				case found <- ev:
				default:
				}
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	<-ready
	return found
}

// The containers of a pod with the host's IPC namespace have it too.
func TestHostIPC(t *testing.T) {
	p, image := newPod(t)
	host, err := os.Readlink("/proc/self/ns/ipc")
	p.must(err)
	sandbox := p.sandbox(func(s *runtimes.ContainerSpec) { s.HostIPC = true })
	main := p.run(runtimes.ContainerSpec{
		Identity: identity("main"), Image: image, SandboxID: sandbox, HostIPC: true, Command: runtimetest.Program("wait"),
	})
	c, err := p.e.Inspect(p.ctx, main)
	p.must(err)
	if got := namespace(p, c.PID, "ipc"); got != host {
		t.Errorf("its IPC namespace is %s, the host's %s", got, host)
	}
}

// The containers of a pod have the sandbox's namespaces, and the engine's own init process is in none.
func TestNamespaces(t *testing.T) {
	p, image := newPod(t)
	sandbox := p.sandbox(nil)
	main := p.run(runtimes.ContainerSpec{Identity: identity("main"), Image: image, SandboxID: sandbox, Command: runtimetest.Program("wait")})
	s, err := p.e.Inspect(p.ctx, sandbox)
	p.must(err)
	c, err := p.e.Inspect(p.ctx, main)
	p.must(err)
	for _, name := range []string{"ipc", "net"} {
		if namespace(p, c.PID, name) != namespace(p, s.PID, name) {
			t.Errorf("the container's namespace %s is not the sandbox's", name)
		}
	}
	if namespace(p, c.PID, "pid") == namespace(p, s.PID, "pid") {
		t.Error("the container shares the sandbox's processes")
	}
	r, err := p.e.cli.ContainerInspect(p.ctx, main)
	p.must(err)
	if r.HostConfig.Init == nil || *r.HostConfig.Init {
		t.Error("the engine may put its init process into the container")
	}
}

func namespace(p pod, pid int, name string) string {
	p.Helper()
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
	p.must(err)
	return ns
}

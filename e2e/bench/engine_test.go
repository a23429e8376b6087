package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// parallel is how many calls to the engine are under way at a time: more do not make it faster.
func parallel() int { return 2 * runtime.NumCPU() }

// engine is the real engine, as somebody who writes to its API sees it.
type engine struct{ *client.Client }

// openEngine connects to the engine at host, or to the default one.
func openEngine(b testing.TB, host string) engine {
	b.Helper()
	opts := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if host != "" {
		opts = append(opts, client.WithHost(host))
	}
	c, err := client.NewClientWithOpts(opts...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	v, err := c.ServerVersion(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	results.describe(fmt.Sprintf("engine %s (API %s)", v.Version, c.ClientVersion()))
	return engine{c}
}

// named returns the containers whose names begin with prefix.
func (e engine) named(ctx context.Context, prefix string) ([]container.Summary, error) {
	all, err := e.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("name", "^/"+prefix+"[_.]"))})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	return all, nil
}

// clean removes every container and network whose name begins with prefix.
func (e engine) clean(prefix string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	all, err := e.named(ctx, prefix)
	errs := []error{err}
	var group errgroup.Group
	group.SetLimit(parallel())
	for _, c := range all {
		group.Go(func() error { return e.remove(ctx, c.ID) })
	}
	errs = append(errs, group.Wait())
	nets, err := e.NetworkList(ctx, network.ListOptions{Filters: filters.NewArgs(filters.Arg("name", "^"+prefix))})
	errs = append(errs, err)
	for _, n := range nets {
		errs = append(errs, e.NetworkRemove(ctx, n.ID))
	}
	return errors.Join(errs...)
}

func (e engine) remove(ctx context.Context, id string) error {
	err := e.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// happening is an event of the engine about a container.
type happening struct {
	action events.Action
	id     string
	name   string
	at     time.Time // by the engine's clock, which is this machine's
}

// watch gathers what happens to the containers whose names begin with a prefix.
type watch struct {
	mu      sync.Mutex
	all     []happening
	changed chan struct{}
	err     error
}

// watch follows the engine's events about the containers of an installation until the benchmark ends.
func (e engine) watch(b *testing.B, installation string) *watch {
	b.Helper()
	return e.watchNames(b, installation+"_")
}

func (e engine) watchNames(b *testing.B, prefix string) *watch {
	b.Helper()
	w := &watch{changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	now := time.Now()
	messages, errs := e.Events(ctx, events.ListOptions{
		Since: fmt.Sprintf("%d.%09d", now.Unix(), now.Nanosecond()),
		Filters: filters.NewArgs(filters.Arg("type", string(events.ContainerEventType)), filters.Arg("event", "start"),
			filters.Arg("event", "die"), filters.Arg("event", "destroy")),
	})
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			select {
			case m := <-messages:
				if name := m.Actor.Attributes["name"]; strings.HasPrefix(name, prefix) {
					w.add(happening{m.Action, m.Actor.ID, name, time.Unix(0, m.TimeNano)}, nil)
				}
			case err := <-errs:
				w.add(happening{}, err)
				return
			}
		}
	})
	b.Cleanup(func() { cancel(); reading.Wait() })
	return w
}

func (w *watch) add(h happening, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.err = err
	} else {
		w.all = append(w.all, h)
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// reset forgets what happened.
func (w *watch) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = nil
}

// until waits until n containers that fit have had the action, and returns what happened to the last
// of them. The wait ends with an error after a while, as nothing that is measured takes so long.
func (w *watch) until(b *testing.B, n int, action events.Action, fits func(name string) bool) happening {
	b.Helper()
	deadline := time.After(3 * time.Minute)
	for {
		w.mu.Lock()
		changed, err := w.changed, w.err
		found := 0
		var last happening
		for _, h := range w.all {
			if h.action == action && fits(h.name) {
				if found++; found == n {
					last = h
				}
			}
		}
		w.mu.Unlock()
		switch {
		case err != nil:
			b.Fatalf("follow the engine's events: %v", err)
		case found >= n:
			return last
		}
		select {
		case <-changed:
		case <-deadline:
			b.Fatalf("%d containers had a %s event after 3 minutes, not %d", found, action, n)
		}
	}
}

// sandbox reports whether a container of fairlead holds the namespaces of a pod.
func sandbox(name string) bool { return strings.Contains(name, "_POD_") }

// workload is the opposite.
func workload(name string) bool { return !sandbox(name) }

// floor makes pods as fairlead does, with nothing but the calls that it takes.
type floor struct {
	engine
	prefix         string
	sandbox, image string
	args           []string
	slots          chan struct{}
	part           func(c *container.Config, h *container.HostConfig, sandbox bool) // what its pods have more; nil for nothing
}

// newFloor returns a floor whose sandboxes are of the image that fairlead uses. That image is only there
// while fairlead's pods are, so one of them has to be; it is kept under a name of our own.
func newFloor(b *testing.B, e engine, d *daemon, image string, args ...string) *floor {
	b.Helper()
	f := &floor{engine: e, prefix: runtimetest.Name(b), image: image, args: args, slots: make(chan struct{}, parallel())}
	all, err := e.named(b.Context(), d.installation)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range all {
		if sandbox(c.Names[0]) {
			f.sandbox = "fairlead-test/sandbox:" + f.prefix
			if err := e.ImageTag(b.Context(), c.ImageID, f.sandbox); err != nil {
				b.Fatal(err)
			}
			break
		}
	}
	if f.sandbox == "" {
		b.Fatal("fairlead runs no pod whose sandbox could show the image")
	}
	undo.later(b, func() error {
		for range cap(f.slots) {
			f.slots <- struct{}{} // so that nothing more is made
		}
		err := e.clean(f.prefix)
		_, rmErr := e.ImageRemove(context.Background(), f.sandbox, unnamed())
		return errors.Join(err, rmErr)
	})
	return f
}

// unnamed are the options to take an image its name, though somebody runs it.
func unnamed() image.RemoveOptions { return image.RemoveOptions{Force: true} }

// slot runs one call of those that keep the engine busy.
func (f *floor) slot(call func() error) error {
	f.slots <- struct{}{}
	defer func() { <-f.slots }()
	return call()
}

// raw is a pod of the floor.
type raw struct{ sandbox, main string }

// pod starts a pod.
func (f *floor) pod(ctx context.Context, name string) (raw, error) {
	var p raw
	for _, step := range []func(ctx context.Context, p *raw, name string) error{f.createSandbox, f.createMain, f.startSandbox, f.startMain} {
		if err := step(ctx, &p, name); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (f *floor) createSandbox(ctx context.Context, p *raw, name string) (err error) {
	if p.sandbox, err = f.make(ctx, &container.Config{Image: f.sandbox}, &container.HostConfig{NetworkMode: network.NetworkNone, IpcMode: container.IPCModeShareable}, "_POD_"+name); err != nil {
		return fmt.Errorf("create the sandbox of %s: %w", name, err)
	}
	return nil
}

func (f *floor) createMain(ctx context.Context, p *raw, name string) (err error) {
	p.main, err = f.create(ctx, p.sandbox, name)
	return err
}

func (f *floor) startSandbox(ctx context.Context, p *raw, name string) error {
	return f.start(ctx, p.sandbox, name)
}

func (f *floor) startMain(ctx context.Context, p *raw, name string) error {
	return f.start(ctx, p.main, name)
}

func (f *floor) start(ctx context.Context, id, name string) error {
	if err := f.slot(func() error { return f.ContainerStart(ctx, id, container.StartOptions{}) }); err != nil {
		return fmt.Errorf("start a container of %s: %w", name, err)
	}
	return nil
}

// create makes a container that joins a sandbox.
func (f *floor) create(ctx context.Context, sandbox, name string) (string, error) {
	id, err := f.make(ctx, &container.Config{Image: f.image, Cmd: f.args},
		&container.HostConfig{NetworkMode: container.NetworkMode("container:" + sandbox), IpcMode: container.IpcMode("container:" + sandbox)}, "_"+name)
	if err != nil {
		return "", fmt.Errorf("create the container of %s: %w", name, err)
	}
	return id, nil
}

// make makes a container in a slot.
func (f *floor) make(ctx context.Context, c *container.Config, h *container.HostConfig, name string) (id string, err error) {
	if f.part != nil {
		f.part(c, h, c.Image == f.sandbox)
	}
	err = f.slot(func() error {
		r, err := f.ContainerCreate(ctx, c, h, nil, nil, f.prefix+name)
		id = r.ID
		return err
	})
	return id, err
}

// pods starts n pods, as many at a time as the engine has slots.
func (f *floor) pods(ctx context.Context, n int, name string) ([]raw, error) {
	out := make([]raw, n)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel())
	for i := range n {
		group.Go(func() (err error) {
			out[i], err = f.pod(ctx, fmt.Sprintf("%s-%d", name, i))
			return err
		})
	}
	return out, group.Wait()
}

// podsByStep is pods, but takes each step for all pods before the next one.
func (f *floor) podsByStep(ctx context.Context, n int, name string) ([]raw, error) {
	out := make([]raw, n)
	for _, step := range []func(ctx context.Context, p *raw, name string) error{f.createSandbox, f.createMain, f.startSandbox, f.startMain} {
		group, ctx := errgroup.WithContext(ctx)
		for i := range n {
			group.Go(func() error { return step(ctx, &out[i], fmt.Sprintf("%s-%d", name, i)) })
		}
		if err := group.Wait(); err != nil {
			return out, err
		}
	}
	return out, nil
}

// drop removes pods at once.
func (f *floor) drop(ctx context.Context, pods ...raw) error {
	var group errgroup.Group
	group.SetLimit(parallel())
	for _, p := range pods {
		group.Go(func() error { return errors.Join(f.remove(ctx, p.main), f.remove(ctx, p.sandbox)) })
	}
	return group.Wait()
}

// end stops a pod in the orderly way and removes it.
func (f *floor) end(ctx context.Context, p raw) error {
	waiting, failed := f.ContainerWait(ctx, p.main, container.WaitConditionNotRunning)
	if err := f.ContainerKill(ctx, p.main, "SIGTERM"); err != nil {
		return fmt.Errorf("stop a container: %w", err)
	}
	select {
	case <-waiting:
	case err := <-failed:
		return fmt.Errorf("wait for a container's end: %w", err)
	}
	var group errgroup.Group
	for _, id := range []string{p.main, p.sandbox} {
		group.Go(func() error { return f.slot(func() error { return f.remove(ctx, id) }) })
	}
	return group.Wait()
}

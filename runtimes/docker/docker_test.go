package docker

import (
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

func open(t testing.TB, installation string) *Engine {
	t.Helper()
	key := sha256.Sum256([]byte(installation))
	e, err := New(Options{Key: key[:], Installation: installation})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestContract(t *testing.T) {
	program := runtimetest.Image(t)
	f := runtimetest.Commands(program)
	stranger := open(t, runtimetest.Name(t)).cli
	t.Cleanup(func() { stranger.Close() })
	create := func(t *testing.T, c *container.Config, h *container.HostConfig, name string) string {
		t.Helper()
		resp, err := stranger.ContainerCreate(t.Context(), c, h, nil, nil, name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := stranger.ContainerRemove(context.Background(), resp.ID, container.RemoveOptions{Force: true}); err != nil {
				t.Error(err)
			}
		})
		return resp.ID
	}
	engines := map[string]*Engine{}
	f.Foreign = func(t *testing.T, spec runtimes.ContainerSpec) string {
		var name string
		for _, e := range engines {
			if e.opt.Installation != "" {
				name = e.name(spec.Identity)
			}
		}
		return create(t, &container.Config{Image: program}, &container.HostConfig{NetworkMode: "none"}, name)
	}
	f.Tamper = func(t *testing.T, id string) string {
		r, err := stranger.ContainerInspect(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		labels := maps.Clone(r.Config.Labels)
		labels[labelPod] += "-other"
		return create(t, &container.Config{Image: program, Labels: labels}, &container.HostConfig{NetworkMode: "none"}, runtimetest.Name(t))
	}
	f.Duplicate = func(t *testing.T, id string) string {
		return create(t, commit(t, stranger, id), nil, runtimetest.Name(t))
	}
	f.Rename = func(t *testing.T, id string) {
		if err := stranger.ContainerRename(t.Context(), id, runtimetest.Name(t)); err != nil {
			t.Fatal(err)
		}
	}
	f.Exists = func(t *testing.T, id string) bool {
		_, err := stranger.ContainerInspect(t.Context(), id)
		return err == nil
	}
	f.Disconnect = func(*testing.T) {
		for _, e := range engines {
			e.dropEvents()
		}
	}
	runtimetest.Engine(t, func(t *testing.T, installation string) runtimes.Engine {
		e := open(t, installation)
		clear(engines)
		engines[installation] = e
		return e
	}, f)
}

// commit makes an image of a container, and returns what docker run makes of that.
func commit(t *testing.T, cli *client.Client, id string) *container.Config {
	t.Helper()
	img, err := cli.ContainerCommit(t.Context(), id, container.CommitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := cli.ImageRemove(context.Background(), img.ID, image.RemoveOptions{}); err != nil {
			t.Error(err)
		}
	})
	return &container.Config{Image: img.ID}
}

// An engine that is not there is an error that says so, and not at the time of New.
func TestUnavailable(t *testing.T) {
	e, err := New(Options{Host: "unix://" + filepath.Join(t.TempDir(), "none.sock"), Key: make([]byte, 32), Installation: "x"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if _, err := e.List(t.Context()); !errors.Is(err, runtimes.ErrUnavailable) {
		t.Errorf("got %v, want %v", err, runtimes.ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := e.Events(ctx, func(ev runtimes.Event) { t.Errorf("got %+v", ev) }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// A read-only Engine refuses everything that changes something.
func TestReadOnly(t *testing.T) {
	e, err := New(Options{Host: "unix://" + filepath.Join(t.TempDir(), "none.sock"), Key: make([]byte, 32), Installation: "x", ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"create": func() error { _, err := e.Create(ctx, runtimes.ContainerSpec{}); return err },
		"start":  func() error { return e.Start(ctx, "x") },
		"kill":   func() error { return e.Kill(ctx, "x", "SIGTERM") },
		"remove": func() error { return e.Remove(ctx, "x") },
		"update": func() error { return e.Update(ctx, "x", plan.Resources{}) },
		"exec":   func() error { _, err := e.Exec(ctx, "x", []string{"x"}, 1); return err },
		"attach": func() error { _, err := e.Attach(ctx, "x", []string{"x"}, runtimes.ExecOptions{}); return err },
		"pull":   func() error { _, err := e.Pull(ctx, "x", nil, nil); return err },
		"forget": func() error { return e.RemoveNetwork(ctx, "x") },
	} {
		if err := call(); !errors.Is(err, errReadOnly) {
			t.Errorf("%s: got %v, want %v", name, err, errReadOnly)
		}
	}
}

func TestNetwork(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the Docker engine")
	}
	name := runtimetest.Name(t)
	e, other := open(t, name), open(t, name+"x")
	defer e.Close()
	defer other.Close()
	ctx := t.Context()
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	ensure := func(e *Engine, subnet, ipRange string) error {
		return e.EnsureNetwork(ctx, name, name, p(subnet), p(ipRange), a("10.250.0.1"))
	}
	t.Cleanup(func() {
		if err := e.RemoveNetwork(context.Background(), name); err != nil {
			t.Error(err)
		}
	})
	for range 2 {
		if err := ensure(e, "10.250.0.0/24", "10.250.0.192/26"); err != nil {
			t.Fatal(err)
		}
	}
	if err := ensure(e, "10.250.0.0/25", "10.250.0.64/26"); !errors.Is(err, runtimes.ErrConflict) {
		t.Errorf("another subnet: got %v", err)
	}
	if err := ensure(other, "10.250.0.0/24", "10.250.0.192/26"); !errors.Is(err, runtimes.ErrConflict) {
		t.Errorf("another installation: got %v", err)
	}
	if err := other.EnsureNetwork(ctx, name+"x", name+"x", p("10.250.0.0/24"), p("10.250.0.192/26"), a("10.250.0.1")); !errors.Is(err, runtimes.ErrConflict) {
		t.Errorf("an overlapping subnet: got %v", err)
	}
	if err := other.RemoveNetwork(ctx, name); err != nil {
		t.Error(err)
	}
	if err := ensure(e, "10.250.0.0/24", "10.250.0.192/26"); err != nil {
		t.Errorf("another installation removed our network: %v", err)
	}
}

func TestNamesAreDistinct(t *testing.T) {
	e := open(t, "fairlead")
	defer e.Close()
	id := runtimes.Identity{Pod: plan.PodKey{Namespace: "default", Name: "web"}, UID: "u", Container: "main"}
	seen := map[string]runtimes.Identity{}
	add := func(change func(*runtimes.Identity)) {
		c := id
		change(&c)
		if other, taken := seen[e.name(c)]; taken {
			t.Errorf("%+v and %+v are both called %s", c, other, e.name(c))
		}
		seen[e.name(c)] = c
	}
	add(func(*runtimes.Identity) {})
	add(func(c *runtimes.Identity) { c.UID = "v" })
	add(func(c *runtimes.Identity) { c.Attempt = 1 })
	add(func(c *runtimes.Identity) { c.Pod = plan.PodKey{Namespace: "default_web", Name: "main"} })
	add(func(c *runtimes.Identity) { c.Pod = plan.PodKey{Namespace: "default-web", Name: "main"} })
}

func TestIdentityRoundTrip(t *testing.T) {
	e := open(t, "fairlead")
	defer e.Close()
	want := runtimes.Identity{
		Application: "a/b", Pod: plan.PodKey{Namespace: "n", Name: "p"}, UID: "u", Container: runtimes.SandboxContainer,
		Attempt: 2, Owner: `{"kind":"Pod"}`, Template: "t", Spec: "{}", IP: "10.0.0.2",
	}
	made := origin{Image: "sha256:1", Made: "2026-01-02T03:04:05Z"}
	l := e.labels(want, made)
	got, ours := e.identity(l, made.Image)
	if diff := cmp.Diff(want, got); !ours || diff != "" {
		t.Errorf("ours: %v (-want +got)\n%s", ours, diff)
	}
	for k := range l {
		forged := maps.Clone(l)
		forged[k] += "1"
		if _, ours := e.identity(forged, made.Image); ours {
			t.Errorf("a changed %s is believed", k)
		}
	}
	if _, ours := e.identity(l, "sha256:2"); ours {
		t.Error("another image is believed")
	}
}

package docker

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// Of a container and its copies one is ours, however faithful they are, and for everybody alike.
func TestCopies(t *testing.T) {
	p, image := newPod(t)
	sandbox := p.sandbox(nil)
	main := p.run(runtimes.ContainerSpec{Identity: identity("main"), Image: image, SandboxID: sandbox, Command: runtimetest.Program("wait")})
	original, err := p.e.cli.ContainerInspect(p.ctx, main)
	p.must(err)
	// copied makes a container as the original was made, but for what change does to it.
	copied := func(name string, change func(*container.Config, *container.HostConfig)) string {
		t.Helper()
		c, h := *original.Config, *original.HostConfig
		c.Hostname = "" // the engine filled it in, and refuses it with a network that is joined
		change(&c, &h)
		resp, err := p.e.cli.ContainerCreate(p.ctx, &c, &h, nil, nil, name)
		p.must(err)
		t.Cleanup(func() {
			if err := p.e.cli.ContainerRemove(context.Background(), resp.ID, container.RemoveOptions{Force: true}); err != nil {
				t.Error(err)
			}
		})
		return resp.ID
	}
	key := p.e.opt.Installation
	fresh := func() *Engine {
		e := open(t, key)
		t.Cleanup(func() { e.Close() })
		return e
	}
	// owns reports whether an engine takes a container for ours, in a list and by itself alike.
	owns := func(e *Engine, id string) bool {
		t.Helper()
		_, inspected := e.Inspect(p.ctx, id)
		all, err := e.List(p.ctx)
		p.must(err)
		listed := false
		for _, c := range all {
			listed = listed || c.ID == id
		}
		if inspected != nil && !errors.Is(inspected, runtimes.ErrNotFound) {
			t.Error(inspected)
		}
		if (inspected == nil) != listed {
			t.Errorf("inspected: %v, listed: %v", inspected, listed)
		}
		return listed
	}
	check := func(what, id string, want bool) {
		t.Helper()
		for _, e := range []*Engine{p.e, fresh()} {
			if got := owns(e, id); got != want {
				t.Errorf("%s is ours: %v, want %v", what, got, want)
			}
		}
	}
	check("the original", main, true)
	alone := copied(runtimetest.Name(t), func(_ *container.Config, h *container.HostConfig) { h.NetworkMode, h.IpcMode = "none", "private" })
	check("a copy that joins nothing", alone, false)
	faithful := copied(runtimetest.Name(t), func(*container.Config, *container.HostConfig) {})
	check("a faithful copy", faithful, false)
	check("the original beside its copies", main, true)
	another := copied(runtimetest.Name(t), func(c *container.Config, _ *container.HostConfig) {
		c.Labels = maps.Clone(c.Labels)
		c.Labels[labelAttempt] = "1"
	})
	check("a copy that claims another attempt", another, false)

	named := p.e.name(identity("main"))
	p.must(p.e.Remove(p.ctx, main))
	other := copied(named, func(c *container.Config, _ *container.HostConfig) {
		c.Image = p.commit(faithful) // and the name of the original
	})
	check("a copy of another image with the original's name", other, false)
	_, err = p.e.Create(p.ctx, runtimes.ContainerSpec{Identity: identity("main"), Image: image, SandboxID: sandbox})
	if !errors.Is(err, runtimes.ErrConflict) {
		t.Errorf("create beside it: got %v, want %v", err, runtimes.ErrConflict)
	}
}

// commit makes an image of a container, for the time of the test.
func (p pod) commit(id string) string {
	p.Helper()
	return commit(p.T, p.e.cli, id).Image
}

// A list tells a copy that is younger than its labels say from a container that was renamed.
func TestOldCopies(t *testing.T) {
	e := open(t, "fairlead")
	defer e.Close()
	made := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	id := identity("main")
	labels := e.labels(id, origin{Image: "sha256:1", Sandbox: "s", Made: made.Format(time.RFC3339)})
	summary := func(cid, name string, created time.Time) container.Summary {
		c := container.Summary{ID: cid, Names: []string{"/" + name}, Image: "sha256:1", Labels: labels, Created: created.Unix()}
		c.HostConfig.NetworkMode = "container:s"
		return c
	}
	for _, tt := range []struct {
		name string
		all  []container.Summary
		want string
	}{
		{"ours", []container.Summary{summary("a", e.name(id), made)}, "a"},
		{"on an engine with another clock", []container.Summary{summary("a", e.name(id), made.Add(48*time.Hour))}, "a"},
		{"renamed", []container.Summary{summary("a", "x", made.Add(2*time.Second))}, "a"},
		{"renamed and copied", []container.Summary{summary("a", "x", made.Add(60*time.Second)), summary("b", "y", made)}, "b"},
		{"copied", []container.Summary{summary("a", "x", made), summary("b", e.name(id), made.Add(time.Second))}, "b"},
		{"copied later, original gone", []container.Summary{summary("a", "x", made.Add(6*time.Minute))}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e.memory.init()
			got, err := e.mine(t.Context(), tt.all)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]runtimes.Identity{}
			if tt.want != "" {
				want[tt.want] = id
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("ours (-want +got):\n%s", d)
			}
		})
	}
}

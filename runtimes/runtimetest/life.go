package runtimetest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

func testInfo(h *harness) {
	info, err := h.engine.Info(h.ctx)
	h.ok(err)
	if info.Version == "" || info.APIVersion == "" || info.CPUs <= 0 || info.MemoryBytes <= 0 {
		h.Fatalf("incomplete: %+v", info)
	}
}

func testImages(h *harness) {
	_, err := h.engine.Image(h.ctx, "fairlead-test/no-such-image:"+h.installation)
	h.is(err, runtimes.ErrNotFound)
	image, err := h.engine.Image(h.ctx, h.Image)
	h.ok(err)
	if image.ID == "" {
		h.Fatalf("no id: %+v", image)
	}
	byID, err := h.engine.Image(h.ctx, image.ID)
	h.ok(err)
	if d := cmp.Diff(image, byID); d != "" {
		h.Fatalf("by id differs from by reference:\n%s", d)
	}
	first, err := h.engine.SandboxImage(h.ctx)
	h.ok(err)
	second, err := h.engine.SandboxImage(h.ctx)
	h.ok(err)
	if first == "" || first != second {
		h.Fatalf("the sandbox image is %q, then %q", first, second)
	}
	sandbox, err := h.engine.Image(h.ctx, first)
	h.ok(err)
	if sandbox.ID != first {
		h.Fatalf("the sandbox image %q has the id %q", first, sandbox.ID)
	}
}

func testLife(h *harness) {
	began := time.Now().Add(-time.Second) // clocks of engines are coarse
	spec := h.sandboxSpec(h.engine)
	sandbox, err := h.engine.Create(h.ctx, spec)
	h.ok(err)
	s := h.inspect(sandbox)
	if d := cmp.Diff(spec.Identity, s.Identity); d != "" {
		h.Fatalf("identity (-asked +reported):\n%s", d)
	}
	h.ok(h.engine.Start(h.ctx, sandbox))

	main := h.spec(sandbox, h.Wait)
	main.Resources = plan.Resources{CPUMillis: 250, MemoryBytes: 64 << 20, CPUShares: 256}
	id, err := h.engine.Create(h.ctx, main)
	h.ok(err)
	image, err := h.engine.Image(h.ctx, h.Image)
	h.ok(err)
	want := runtimes.Container{Identity: main.Identity, ID: id, Image: h.Image, ImageID: image.ID, SandboxID: sandbox, Resources: main.Resources}
	same := func(state string, running bool) runtimes.Container {
		h.Helper()
		c := h.inspect(id)
		listed, ok := h.listed(h.engine, id)
		if !ok {
			h.Fatalf("%s, it is not listed", state)
		}
		if d := cmp.Diff(c, listed); d != "" {
			h.Fatalf("%s, inspected and listed differ (-inspected +listed):\n%s", state, d)
		}
		if c.Created.Before(began) || c.Running != running || running != (c.PID > 0) {
			h.Fatalf("%s: %+v", state, c)
		}
		return c
	}
	c := same("created", false)
	if !c.StartedAt.IsZero() || !c.FinishedAt.IsZero() {
		h.Fatalf("it has times before it started: %+v", c)
	}
	want.Created = c.Created
	if d := cmp.Diff(want, c); d != "" {
		h.Fatalf("created (-want +got):\n%s", d)
	}

	w := h.watch(h.engine)
	h.ok(h.engine.Start(h.ctx, id))
	c = same("started", true)
	if c.StartedAt.Before(c.Created) || !c.FinishedAt.IsZero() {
		h.Fatalf("times after the start: %+v", c)
	}
	want.Running, want.PID, want.StartedAt = true, c.PID, c.StartedAt
	if d := cmp.Diff(want, c); d != "" {
		h.Fatalf("started (-want +got):\n%s", d)
	}

	h.ok(h.engine.Kill(h.ctx, id, "SIGTERM"))
	w.await(runtimes.EventDie, id)
	c = same("ended", false)
	if c.FinishedAt.Before(c.StartedAt) {
		h.Fatalf("it finished before it started: %+v", c)
	}
	// The signal may come before the program is ready for it, so the exit code is the program's own affair.
	want.Running, want.PID, want.FinishedAt, want.ExitCode = false, 0, c.FinishedAt, c.ExitCode
	if d := cmp.Diff(want, c); d != "" {
		h.Fatalf("ended (-want +got):\n%s", d)
	}

	h.ok(h.engine.Remove(h.ctx, id))
	if _, ok := h.listed(h.engine, id); ok {
		h.Fatal("it is listed after Remove")
	}
	_, err = h.engine.Inspect(h.ctx, id)
	h.is(err, runtimes.ErrNotFound)
	if _, ok := h.listed(h.engine, sandbox); !ok {
		h.Fatal("the sandbox went with its container")
	}
}

func testCreateAgain(h *harness) {
	spec := h.spec(h.sandbox(h.engine), h.Wait)
	first, err := h.engine.Create(h.ctx, spec)
	h.ok(err)
	again, err := h.engine.Create(h.ctx, spec)
	h.ok(err)
	if first != again {
		h.Fatalf("the second Create made %s beside %s", again, first)
	}
	other := h.openEngine(h.installation)
	again, err = other.Create(h.ctx, spec)
	h.ok(err)
	if first != again {
		h.Fatalf("another process made %s beside %s", again, first)
	}
	spec.Attempt = 1
	next, err := h.engine.Create(h.ctx, spec)
	h.ok(err)
	if next == first {
		h.Fatal("the second attempt is the first container")
	}
	spec.UID = "0c1e5a9e-6f5e-4b53-9a44-1d8bd1d1a002"
	recreated, err := h.engine.Create(h.ctx, spec)
	h.ok(err)
	if recreated == next {
		h.Fatal("the container of another pod of the name is the first's")
	}
	all, err := h.engine.List(h.ctx)
	h.ok(err)
	if len(all) != 4 { // with the sandbox
		h.Fatalf("%d containers are listed, want 4", len(all))
	}
}

func testCreateInvalid(h *harness) {
	sandbox := h.sandbox(h.engine)
	spec := h.spec(sandbox, h.Wait)
	spec.Image = "fairlead-test/no-such-image:" + h.installation
	_, err := h.engine.Create(h.ctx, spec)
	h.is(err, runtimes.ErrNotFound)
	spec = h.spec(sandbox, h.Wait)
	spec.Mounts = []runtimes.Mount{{Source: "/no/such/path/" + h.installation, Target: "/data"}}
	id, err := h.engine.Create(h.ctx, spec)
	if err == nil {
		err = h.engine.Start(h.ctx, id)
	}
	h.is(err, runtimes.ErrInvalid)
}

func testStartAgain(h *harness) {
	id := h.run(h.Wait)
	before := h.inspect(id)
	h.ok(h.engine.Start(h.ctx, id))
	if d := cmp.Diff(before, h.inspect(id)); d != "" {
		h.Fatalf("starting a running container changed it:\n%s", d)
	}
	h.ok(h.engine.Remove(h.ctx, id))
	h.is(h.engine.Start(h.ctx, id), runtimes.ErrNotFound)
}

func testStartInvalid(h *harness) {
	id := h.create([]string{"/no/such/program"})
	h.is(h.engine.Start(h.ctx, id), runtimes.ErrInvalid)
	c := h.inspect(id)
	if c.Running || c.Error == "" || !c.StartedAt.IsZero() {
		h.Fatalf("after a start that failed: %+v", c)
	}
}

func testExitCodes(h *harness) {
	sandbox := h.sandbox(h.engine)
	w := h.watch(h.engine)
	for i, code := range []int{0, 3, 255} {
		spec := h.spec(sandbox, h.Exit(code))
		spec.Attempt = i
		id, err := h.engine.Create(h.ctx, spec)
		h.ok(err)
		h.ok(h.engine.Start(h.ctx, id))
		if ev := w.await(runtimes.EventDie, id); ev.ExitCode != code {
			h.Errorf("the event says exit code %d, want %d", ev.ExitCode, code)
		}
		if c := h.inspect(id); c.ExitCode != code || c.Running || c.OOM {
			h.Errorf("want exit code %d: %+v", code, c)
		}
		if c, _ := h.listed(h.engine, id); c.ExitCode != code {
			h.Errorf("listed with exit code %d, want %d", c.ExitCode, code)
		}
	}
}

func testKill(h *harness) {
	id := h.create(h.Stubborn)
	w := h.watch(h.engine)
	h.ok(h.engine.Kill(h.ctx, id, "SIGTERM")) // not started
	h.ok(h.engine.Start(h.ctx, id))
	h.awaitOutput(id, "ready")
	h.ok(h.engine.Kill(h.ctx, id, "SIGTERM"))
	if c := h.inspect(id); !c.Running {
		h.Fatalf("it ignores SIGTERM but ended: %+v", c)
	}
	h.ok(h.engine.Kill(h.ctx, id, "SIGKILL"))
	if ev := w.await(runtimes.EventDie, id); ev.ExitCode != 137 {
		h.Errorf("the exit code is %d, want 137", ev.ExitCode)
	}
	h.ok(h.engine.Kill(h.ctx, id, "SIGKILL")) // ended
	h.ok(h.engine.Remove(h.ctx, id))
	h.ok(h.engine.Kill(h.ctx, id, "SIGKILL")) // gone
}

func testRemove(h *harness) {
	id := h.run(h.Stubborn)
	w := h.watch(h.engine)
	h.ok(h.engine.Remove(h.ctx, id))
	w.await(runtimes.EventRemove, id)
	if h.Exists(h.T, id) {
		h.Fatal("a running container is there after Remove")
	}
	h.ok(h.engine.Remove(h.ctx, id))
}

func testUpdate(h *harness) {
	id := h.run(h.Wait, func(s *runtimes.ContainerSpec) {
		s.Resources = plan.Resources{CPUMillis: 100, MemoryBytes: 64 << 20, CPUShares: 102}
	})
	before := h.inspect(id)
	for _, r := range []plan.Resources{
		{CPUMillis: 500, MemoryBytes: 256 << 20, CPUShares: 512},
		{CPUMillis: 150, MemoryBytes: 48 << 20, CPUShares: 2},
		{CPUMillis: 5, MemoryBytes: 48 << 20, CPUShares: 2}, // less than fits into the usual period
		{CPUShares: 1024},
		{CPUMillis: 1500, MemoryBytes: 128 << 20},
		{},
	} {
		h.ok(h.engine.Update(h.ctx, id, r))
		want := before
		want.Resources = r
		if d := cmp.Diff(want, h.inspect(id)); d != "" {
			h.Errorf("inspected after the update to %+v (-want +got):\n%s", r, d)
		}
		listed, _ := h.listed(h.engine, id)
		if d := cmp.Diff(want, listed); d != "" {
			h.Errorf("listed after the update to %+v (-want +got):\n%s", r, d)
		}
	}
	h.ok(h.engine.Remove(h.ctx, id))
	h.is(h.engine.Update(h.ctx, id, plan.Resources{CPUMillis: 100}), runtimes.ErrNotFound)
}

func testEnvironment(h *harness) {
	cmd := h.Env("GREETING")
	id := h.finish(cmd[:1], func(s *runtimes.ContainerSpec) {
		s.Args = cmd[1:]
		s.Env = []string{"OTHER=1", "GREETING=a value = with \"signs\" $HOME"}
	})
	if stdout, _ := h.logs(id, runtimes.LogOptions{Tail: -1}); stdout != "a value = with \"signs\" $HOME\n" {
		h.Fatalf("the container printed %q", stdout)
	}
}

func testForeignName(h *harness) {
	spec := h.spec(h.sandbox(h.engine), h.Wait)
	foreign := h.Foreign(h.T, spec)
	_, err := h.engine.Create(h.ctx, spec)
	h.is(err, runtimes.ErrConflict)
	h.untouchable(h.engine, foreign)
}

// untouchable holds that an engine neither sees nor touches a container.
func (h *harness) untouchable(e runtimes.Engine, id string) {
	h.Helper()
	if c, ok := h.listed(e, id); ok {
		h.Errorf("a container that is not ours is listed: %+v", c)
	}
	_, err := e.Inspect(h.ctx, id)
	h.is(err, runtimes.ErrNotFound)
	h.is(e.Start(h.ctx, id), runtimes.ErrNotFound)
	h.is(e.Update(h.ctx, id, plan.Resources{CPUShares: 2}), runtimes.ErrNotFound)
	_, err = e.Exec(h.ctx, id, h.Exit(0), 0)
	h.is(err, runtimes.ErrNotFound)
	for _, err := range []error{e.Kill(h.ctx, id, "SIGKILL"), e.Remove(h.ctx, id)} {
		if err != nil && !errors.Is(err, runtimes.ErrNotFound) {
			h.Errorf("error is %v, want none or one that is %q", err, runtimes.ErrNotFound)
		}
	}
	if !h.Exists(h.T, id) {
		h.Error("a container that is not ours was removed")
	}
}

func testTampered(h *harness) {
	id := h.create(h.Wait)
	copied := h.Tamper(h.T, id)
	h.untouchable(h.engine, copied)
	if _, ok := h.listed(h.engine, id); !ok {
		h.Error("the container itself is not listed any more")
	}
	fresh := h.openEngine(h.installation)
	h.untouchable(fresh, copied)
}

func testCopied(h *harness) {
	id := h.create(h.Wait)
	w := h.watch(h.engine)
	copied := h.Duplicate(h.T, id)
	h.untouchable(h.engine, copied)
	if _, ok := h.listed(h.engine, id); !ok {
		h.Error("the container itself is not listed any more")
	}
	fresh := h.openEngine(h.installation)
	h.untouchable(fresh, copied)
	h.ok(h.engine.Start(h.ctx, id))
	h.ok(h.engine.Remove(h.ctx, id))
	w.await(runtimes.EventRemove, id)
	h.untouchable(h.engine, copied) // though nothing else has the identity
	for _, ev := range w.all() {
		if ev.ContainerID == copied {
			h.Errorf("an event of the copy: %+v", ev)
		}
	}
}

// A container that somebody renamed is ours, for who knew it before and for who comes later.
func testRenamed(h *harness) {
	id := h.run(h.Wait)
	before := h.inspect(id)
	w := h.watch(h.engine)
	h.Rename(h.T, id)
	w.await(runtimes.EventRename, id)
	for _, e := range []runtimes.Engine{h.engine, h.openEngine(h.installation)} {
		listed, ok := h.listed(e, id)
		if !ok {
			h.Fatal("it is not listed any more")
		}
		if d := cmp.Diff(before, listed); d != "" {
			h.Fatalf("renaming changed it:\n%s", d)
		}
	}
	fresh := h.openEngine(h.installation)
	h.ok(fresh.Kill(h.ctx, id, "SIGKILL"))
	w.await(runtimes.EventDie, id)
	h.ok(fresh.Remove(h.ctx, id))
	w.await(runtimes.EventRemove, id)
	if h.Exists(h.T, id) {
		h.Error("it is there after Remove")
	}
}

func testInstallations(h *harness) {
	id := h.run(h.Wait)
	other := h.openEngine(Name(h.T))
	w := h.watch(other)
	h.untouchable(other, id)
	all, err := other.List(h.ctx)
	h.ok(err)
	if len(all) != 0 {
		h.Fatalf("another installation lists %+v", all)
	}
	theirs, err := other.Create(h.ctx, h.sandboxSpec(other)) // the same identity
	h.ok(err)
	h.ok(other.Start(h.ctx, theirs))
	h.ok(h.engine.Remove(h.ctx, id))
	h.ok(other.Remove(h.ctx, theirs))
	w.await(runtimes.EventRemove, theirs)
	if i := slices.IndexFunc(w.all(), func(ev runtimes.Event) bool { return ev.ContainerID != "" && ev.ContainerID != theirs }); i >= 0 {
		h.Errorf("another installation got %+v", w.all()[i])
	}
}

func testCanceled(h *harness) {
	id := h.run(h.Wait)
	spec := h.spec(id, h.Wait)
	ctx, cancel := context.WithCancel(h.ctx)
	cancel()
	calls := map[string]func() error{
		"List":    func() error { _, err := h.engine.List(ctx); return err },
		"Inspect": func() error { _, err := h.engine.Inspect(ctx, id); return err },
		"Create":  func() error { _, err := h.engine.Create(ctx, spec); return err },
		"Start":   func() error { return h.engine.Start(ctx, id) },
		"Kill":    func() error { return h.engine.Kill(ctx, id, "SIGKILL") },
		"Remove":  func() error { return h.engine.Remove(ctx, id) },
		"Exec":    func() error { _, err := h.engine.Exec(ctx, id, h.Exit(0), 0); return err },
		"Events":  func() error { return h.engine.Events(ctx, func(runtimes.Event) {}) },
	}
	for name, call := range calls {
		h.Run(name, func(t *testing.T) {
			if err := call(); !errors.Is(err, context.Canceled) {
				t.Errorf("error is %v, want %v", err, context.Canceled)
			}
		})
	}
	if c := h.inspect(id); !c.Running {
		h.Error("calls with a canceled context changed the container")
	}
}

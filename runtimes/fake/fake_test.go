package fake_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/fake"
)

func identity(container string) runtimes.Identity {
	return runtimes.Identity{Application: "shop", Pod: plan.PodKey{Namespace: "default", Name: "web-0"}, UID: "u1", Container: container}
}

// create creates and starts a container of an image and returns its id.
func create(t *testing.T, e *fake.Engine, spec runtimes.ContainerSpec) string {
	t.Helper()
	id, err := e.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestProcesses(t *testing.T) {
	type end struct {
		after time.Duration
		code  int
		oom   bool
	}
	for _, tt := range []struct {
		name    string
		process fake.Process
		signals []string // one second after the start, a second apart
		want    *end     // nil: still runs a minute later
	}{
		{"runs until TERM", fake.Process{}, nil, nil},
		{"stops at TERM", fake.Process{StopCode: 3}, []string{"SIGTERM"}, &end{time.Second, 3, false}},
		{"takes time to stop", fake.Process{StopTakes: 5 * time.Second}, []string{"SIGTERM", "TERM"}, &end{6 * time.Second, 0, false}},
		{"killed while stopping", fake.Process{StopTakes: 5 * time.Second}, []string{"SIGTERM", "SIGKILL"}, &end{2 * time.Second, 137, false}},
		{"ignores TERM", fake.Process{IgnoreTERM: true}, []string{"SIGTERM", "SIGINT"}, nil},
		{"ignores TERM, not KILL", fake.Process{IgnoreTERM: true}, []string{"SIGKILL"}, &end{time.Second, 137, false}},
		{"another signal", fake.Process{}, []string{"SIGUSR1"}, nil},
		{"exits at once", fake.Process{Exits: true, Code: 7}, nil, &end{0, 7, false}},
		{"exits later", fake.Process{Exits: true, After: 10 * time.Second}, nil, &end{10 * time.Second, 0, false}},
		{"out of memory", fake.Process{Exits: true, After: time.Second, OOM: true}, nil, &end{time.Second, 137, true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := fake.New()
				defer e.Close()
				e.AddImage("app", fake.Image{Present: true, Process: tt.process})
				id := create(t, e, runtimes.ContainerSpec{Identity: identity("app"), Image: "app"})
				began := time.Now()
				for _, s := range tt.signals {
					time.Sleep(time.Second)
					if err := e.Kill(t.Context(), id, s); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				c, err := e.Inspect(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				switch {
				case tt.want == nil && !c.Running:
					t.Errorf("it ended after %v", c.FinishedAt.Sub(began))
				case tt.want != nil && c.Running:
					t.Error("it still runs")
				case tt.want != nil:
					if got := (end{c.FinishedAt.Sub(began), c.ExitCode, c.OOM}); got != *tt.want {
						t.Errorf("ended with %+v, want %+v", got, *tt.want)
					}
				}
			})
		})
	}
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fake.New()
		e.AddImage("app", fake.Image{Present: true})
		var got []string
		done := make(chan error, 1)
		go func() {
			done <- e.Events(t.Context(), func(ev runtimes.Event) {
				got = append(got, string(ev.Kind)+" "+ev.Identity.Container)
			})
		}()
		synctest.Wait()
		id := create(t, e, runtimes.ContainerSpec{Identity: identity("app"), Image: "app"})
		synctest.Wait()
		e.DropEvents(true)
		e.Hand().Pause(id)
		e.DropEvents(false)
		e.Hand().Unpause(id)
		synctest.Wait()
		e.Down()
		e.Hand().Exit(id, 1)
		synctest.Wait()
		e.Up()
		synctest.Wait()
		e.Hand().Remove(id)
		e.AddForeign("other")
		synctest.Wait()
		e.Disconnect()
		e.Close()
		if err := <-done; !errors.Is(err, runtimes.ErrUnavailable) {
			t.Errorf("Events returned %v", err)
		}
		want := []string{"gap ", "start app", "unpause app", "gap ", "remove app", "gap "}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fake.New()
		defer e.Close()
		e.AddImage("app", fake.Image{Present: true})
		spec := runtimes.ContainerSpec{Identity: identity("app"), Image: "app"}

		// The second creation takes effect and fails all the same.
		e.Break(fake.Fault{Kind: fake.CallCreate, Nth: 2, After: true})
		first, err := e.Create(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		spec.Attempt = 1
		if _, err := e.Create(t.Context(), spec); !errors.Is(err, runtimes.ErrUnavailable) {
			t.Errorf("create: %v", err)
		}
		second, err := e.Create(t.Context(), spec)
		if err != nil || second == first || len(e.Containers()) != 2 {
			t.Errorf("created %s then %s (%v), have %d", first, second, err, len(e.Containers()))
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		mend := e.Break(fake.Fault{Kind: fake.CallStart, Hang: true})
		began := time.Now()
		if err := e.Start(ctx, first); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, runtimes.ErrUnavailable) || time.Since(began) != time.Minute {
			t.Errorf("start returned after %v: %v", time.Since(began), err)
		}
		mend()
		if err := e.Start(t.Context(), first); err != nil {
			t.Error(err)
		}

		e.Down()
		if _, err := e.List(t.Context()); !errors.Is(err, runtimes.ErrUnavailable) {
			t.Errorf("list: %v", err)
		}
		e.Up()
		if list, err := e.List(t.Context()); err != nil || len(list) != 2 {
			t.Errorf("list: %d, %v", len(list), err)
		}

		var calls []string
		for _, c := range e.Mutations() {
			calls = append(calls, c.String())
		}
		want := []string{
			"create default/web-0/app#0", "create default/web-0/app#1", "create default/web-0/app#1",
			"start default/web-0/app#0", "start default/web-0/app#0",
		}
		if d := cmp.Diff(want, calls); d != "" {
			t.Error(d)
		}
	})
}

func TestPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fake.New()
		defer e.Close()
		secret := &runtimes.Auth{Username: "u", Password: "p"}
		e.AddImage("slow", fake.Image{Pull: fake.Pull{Takes: time.Minute, Progress: []string{"layer"}}})
		e.AddImage("private", fake.Image{Pull: fake.Pull{Auth: secret}})
		if _, err := e.Image(t.Context(), "slow"); !errors.Is(err, runtimes.ErrNotFound) {
			t.Errorf("before the pull: %v", err)
		}
		began := time.Now()
		var lines []string
		img, err := e.Pull(t.Context(), "slow", nil, func(s string) { lines = append(lines, s) })
		if err != nil || img.ID == "" || time.Since(began) != time.Minute || !cmp.Equal(lines, []string{"layer"}) {
			t.Errorf("pull: %v %v after %v, %q", img, err, time.Since(began), lines)
		}
		if _, err := e.Image(t.Context(), "slow"); err != nil {
			t.Errorf("after the pull: %v", err)
		}
		if _, err := e.Pull(t.Context(), "private", nil, nil); !errors.Is(err, runtimes.ErrDenied) {
			t.Errorf("without credentials: %v", err)
		}
		if _, err := e.Pull(t.Context(), "private", secret, nil); err != nil {
			t.Errorf("with credentials: %v", err)
		}
		if _, err := e.Pull(t.Context(), "nothing", nil, nil); !errors.Is(err, runtimes.ErrNotFound) {
			t.Errorf("what does not exist: %v", err)
		}
	})
}

func TestForeignContainers(t *testing.T) {
	e := fake.New()
	defer e.Close()
	e.AddImage("app", fake.Image{Present: true})
	spec := runtimes.ContainerSpec{Identity: identity("app"), Image: "app"}
	foreign := e.AddForeign(e.Name(spec.Identity))
	if _, err := e.Create(t.Context(), spec); !errors.Is(err, runtimes.ErrConflict) {
		t.Errorf("create: %v", err)
	}
	if list, err := e.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("list: %v, %v", list, err)
	}
	if err := e.Kill(t.Context(), foreign, "SIGKILL"); err != nil || !e.Containers()[0].Running {
		t.Errorf("kill touched a foreign container: %v", err)
	}
	if err := e.Remove(t.Context(), foreign); err != nil || len(e.Containers()) != 1 || !e.Containers()[0].Running {
		t.Errorf("remove touched a foreign container: %v", err)
	}
}

func TestSandbox(t *testing.T) {
	e := fake.New()
	defer e.Close()
	e.AddImage("app", fake.Image{Present: true})
	img, err := e.SandboxImage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sandbox, err := e.Create(t.Context(), runtimes.ContainerSpec{Identity: identity(runtimes.SandboxContainer), Image: img})
	if err != nil {
		t.Fatal(err)
	}
	app, err := e.Create(t.Context(), runtimes.ContainerSpec{Identity: identity("app"), Image: "app", SandboxID: sandbox, PIDMode: "sandbox"})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context(), app); !errors.Is(err, runtimes.ErrConflict) {
		t.Errorf("started without its sandbox: %v", err)
	}
	for _, id := range []string{sandbox, app} {
		if err := e.Start(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	e.Hand().Kill(sandbox, "SIGKILL")
	if c, _ := e.Inspect(t.Context(), app); c.Running {
		t.Error("a process outlived its PID namespace")
	}
}

func TestLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fake.New()
		defer e.Close()
		e.AddImage("app", fake.Image{Present: true, Process: fake.Process{Exits: true, After: time.Minute, Output: []string{"one", "two"}}})
		id := create(t, e, runtimes.ContainerSpec{Identity: identity("app"), Image: "app"})
		var out bytes.Buffer
		done := make(chan error, 1)
		go func() {
			done <- e.Logs(t.Context(), id, runtimes.LogOptions{Follow: true, Tail: 1}, &out, nil)
		}()
		synctest.Wait()
		e.Print(id, "three")
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got := out.String(); got != "two\nthree\n" {
			t.Errorf("log %q", got)
		}
	})
}

func TestNetwork(t *testing.T) {
	e := fake.New()
	defer e.Close()
	e.AddImage("app", fake.Image{Present: true})
	n := fake.NewNetwork(e)
	ip, err := n.Allocate([]netip.Addr{netip.MustParseAddr("10.99.0.2")})
	if err != nil || ip.String() != "10.99.0.3" {
		t.Fatalf("allocated %v, %v", ip, err)
	}
	id := create(t, e, runtimes.ContainerSpec{Identity: identity("app"), Image: "app"})
	c, _ := e.Inspect(t.Context(), id)
	if err := n.Attach(t.Context(), c.PID, "u1", ip); err != nil {
		t.Fatal(err)
	}
	if err := n.Attach(t.Context(), c.PID, "u2", ip); !errors.Is(err, runtimes.ErrConflict) {
		t.Errorf("one address twice: %v", err)
	}
	e.Hand().Exit(id, 0)
	if err := n.Attach(t.Context(), c.PID, "u1", ip); !errors.Is(err, runtimes.ErrNotFound) {
		t.Errorf("attached a process that does not run: %v", err)
	}
	if removed, err := n.Strays(t.Context(), nil); err != nil || !cmp.Equal(removed, []string{"u1"}) {
		t.Errorf("strays: %v, %v", removed, err)
	}
}

// TestHand holds that what somebody does by hand is seen as an engine shows it.
func TestHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fake.New()
		defer e.Close()
		e.AddImage("app", fake.Image{Present: true})
		spec := runtimes.ContainerSpec{Identity: identity("app"), Image: "app"}
		id := create(t, e, spec)
		h := e.Hand()
		h.Pause(id)
		if _, err := e.Exec(t.Context(), id, []string{"x"}, 10); !errors.Is(err, runtimes.ErrConflict) {
			t.Errorf("a command in a paused container: %v", err)
		}
		if err := e.Kill(t.Context(), id, "SIGKILL"); err != nil {
			t.Fatal(err)
		}
		if c, _ := e.Inspect(t.Context(), id); c.Running || c.Paused {
			t.Errorf("a paused container outlived SIGKILL: %+v", c)
		}
		h.Start(id)
		h.Update(id, plan.Resources{CPUMillis: 7})
		h.Rename(id, "mine")
		s, ok := e.Find(spec.Pod, "app")
		if !ok || !s.Running || s.Name != "mine" || s.Resources.CPUMillis != 7 {
			t.Errorf("found %+v", s)
		}
		if second, err := e.Create(t.Context(), spec); err != nil || second == id {
			t.Errorf("the name is free, but creating gave %s, %v", second, err)
		}
		h.Dead(id)
		if err := e.Start(t.Context(), id); !errors.Is(err, runtimes.ErrConflict) {
			t.Errorf("started a dead container: %v", err)
		}
		e.Crash()
		e.Up()
		if list, err := e.List(t.Context()); err != nil || len(list) != 2 || list[0].Running || list[1].Running {
			t.Errorf("after the crash: %+v, %v", list, err)
		}
		if h.Remove("absent") {
			t.Error("removed what does not exist")
		}
	})
}

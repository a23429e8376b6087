package docker

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/fake"
	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

var torture = flag.Bool("torture", false, "run the long form: many and long random sequences of operations on the engine and its model")

// TestModel holds that the engine in memory, on which everything is simulated, does what the real one does: after every operation
// of a random sequence both have answered alike, have the same containers in the same state, and have told of the same events.
func TestModel(t *testing.T) {
	image := runtimetest.Image(t)
	checks, steps := "3", 12
	if *torture {
		checks, steps = "60", 40
	}
	for name, value := range map[string]string{"rapid.checks": checks, "rapid.nofailfile": "true"} {
		f := flag.Lookup(name)
		was := f.Value.String()
		if err := f.Value.Set(value); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Value.Set(was) }) // it was the value
	}
	rapid.Check(t, func(rt *rapid.T) {
		p := newPair(t, rt, image)
		defer p.close()
		for range steps {
			p.step()
		}
	})
}

// The programs of containers: what they are in the image, and what the model is told of them.
var modelPrograms = []struct {
	stays   bool // until a signal ends it; it prints that it is ready for one
	command []string
	process fake.Process
}{
	{true, runtimetest.Program("print", "ready", "--", "forever"), fake.Process{StopCode: 143}},
	{true, runtimetest.Program("ignore-term", "--", "print", "ready", "--", "forever"), fake.Process{IgnoreTERM: true}},
	{false, runtimetest.Program("exit", "0"), fake.Process{Exits: true}},
	{false, runtimetest.Program("exit", "3"), fake.Process{Exits: true, Code: 3}},
	{false, []string{"/no/such/program"}, fake.Process{StartError: "no such file or directory"}},
}

// side is one of the two engines.
type side struct {
	runtimes.Engine
	ids           map[string]string // of what was created, by slot
	stop          context.CancelFunc
	ended         chan error
	pause, resume func(id string)

	mu     sync.Mutex
	events map[string][]string // by slot
}

// pair is the real engine and its model.
type pair struct {
	t           *rapid.T
	ctx         context.Context
	image       string
	real, model *side
	slots       []runtimes.Identity
	program     map[string]int // of a container
	last        string
}

// patience is how long the real engine may take to come to what the model is in at once.
const patience = 2 * time.Minute

func newPair(t *testing.T, rt *rapid.T, image string) *pair {
	p := &pair{t: rt, image: image, program: map[string]int{}}
	installation := runtimetest.Name(t)
	e := open(t, installation)
	model := fake.New()
	model.AddImage(image, fake.Image{Present: true, Run: func(s runtimes.ContainerSpec) fake.Process {
		for _, x := range modelPrograms {
			if slices.Equal(x.command, s.Command) {
				return x.process
			}
		}
		panic("no such program")
	}})
	var cancel context.CancelFunc
	p.ctx, cancel = context.WithTimeout(context.Background(), 30*time.Minute)
	rt.Cleanup(cancel)
	p.real = &side{Engine: e, pause: func(id string) { _ = e.cli.ContainerPause(p.ctx, id) }, resume: func(id string) { _ = e.cli.ContainerUnpause(p.ctx, id) }}
	p.model = &side{Engine: model, pause: func(id string) { model.Hand().Pause(id) }, resume: func(id string) { model.Hand().Unpause(id) }}
	for _, c := range []struct {
		name    string
		attempt int
	}{{runtimes.SandboxContainer, 0}, {runtimes.SandboxContainer, 1}, {"main", 0}, {"main", 1}, {"side", 0}} {
		p.slots = append(p.slots, runtimes.Identity{
			Application: "app", Pod: plan.PodKey{Namespace: "default", Name: "pod"}, UID: "0c1e5a9e-6f5e-4b53-9a44-1d8bd1d1a001", Container: c.name, Attempt: c.attempt,
		})
	}
	for _, s := range []*side{p.real, p.model} {
		s.ids, s.events, s.ended = map[string]string{}, map[string][]string{}, make(chan error, 1)
		var ctx context.Context
		ctx, s.stop = context.WithCancel(p.ctx)
		follows := make(chan struct{})
		began := sync.OnceFunc(func() { close(follows) })
		go func() {
			s.ended <- s.Events(ctx, func(e runtimes.Event) {
				if e.Kind == runtimes.EventGap {
					began()
					return
				}
				what := string(e.Kind)
				switch e.Kind {
				case runtimes.EventKill:
					what += " " + e.Signal
				case runtimes.EventDie:
					what += fmt.Sprint(" ", e.ExitCode)
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				at := slotName(e.Identity)
				s.events[at] = append(s.events[at], what)
			})
		}()
		select {
		case <-follows:
		case <-p.ctx.Done():
			rt.Fatal("the engine's events do not begin")
		}
	}
	return p
}

// close removes everything, also when the sequence failed.
func (p *pair) close() {
	for _, s := range []*side{p.real, p.model} {
		all, err := s.List(p.ctx)
		if err != nil {
			p.t.Error(err)
		}
		for _, c := range all {
			if err := s.Remove(p.ctx, c.ID); err != nil {
				p.t.Error(err)
			}
		}
		s.stop()
		if err := <-s.ended; !errors.Is(err, context.Canceled) {
			p.t.Errorf("the events end with %v", err)
		}
		if err := s.Close(); err != nil {
			p.t.Error(err)
		}
	}
}

func slotName(id runtimes.Identity) string { return fmt.Sprintf("%s#%d", id.Container, id.Attempt) }

// class is what callers act on of an error.
func class(err error) string {
	if err == nil {
		return "none"
	}
	for _, c := range classes {
		if errors.Is(err, c) {
			return c.Error()
		}
	}
	return "another"
}

// both does the same on both engines, and holds that they answer alike.
func (p *pair) both(do func(*side) error) (done bool) {
	real, model := do(p.real), do(p.model)
	if class(real) != class(model) {
		p.t.Fatalf("%s: the engine answers %v, and its model %v", p.last, real, model)
	}
	return model == nil
}

// step does one operation.
func (p *pair) step() {
	slot := rapid.SampledFrom(p.slots).Draw(p.t, "container")
	name := slotName(slot)
	sandbox := slot.Container == runtimes.SandboxContainer
	made := p.real.ids[name] != ""
	var can []string
	switch {
	case made:
		can = []string{"start", "start", "start", "TERM", "KILL", "remove", "update", "inspect", "pause", "unpause", "create"}
	case sandbox || p.real.ids["POD#0"] != "" || p.real.ids["POD#1"] != "":
		can = []string{"create"}
	default:
		return // a container needs a sandbox
	}
	op := rapid.SampledFrom(can).Draw(p.t, "operation")
	p.last = op + " " + name
	p.t.Log(p.last)
	switch op {
	case "create":
		p.create(slot)
	case "start":
		if p.both(func(s *side) error { return s.Start(p.ctx, s.ids[name]) }) {
			p.started(name)
		}
	case "TERM", "KILL":
		p.both(func(s *side) error { return s.Kill(p.ctx, s.ids[name], "SIG"+op) })
	case "remove":
		p.both(func(s *side) error { return s.Remove(p.ctx, s.ids[name]) })
	case "update":
		r := rapid.SampledFrom([]plan.Resources{{CPUMillis: 250}, {CPUShares: 512}, {MemoryBytes: 128 << 20}, {CPUMillis: 100, MemoryBytes: 64 << 20, CPUShares: 102}, {}}).Draw(p.t, "limits")
		p.both(func(s *side) error { return s.Update(p.ctx, s.ids[name], r) })
	case "inspect":
		p.both(func(s *side) error { _, err := s.Inspect(p.ctx, s.ids[name]); return err })
	case "pause":
		p.real.pause(p.real.ids[name])
		p.model.pause(p.model.ids[name])
	case "unpause":
		p.real.resume(p.real.ids[name])
		p.model.resume(p.model.ids[name])
	}
	p.same()
}

func (p *pair) create(slot runtimes.Identity) {
	name, join, program := slotName(slot), "", 0
	if slot.Container != runtimes.SandboxContainer {
		var there []string
		for _, s := range []string{"POD#0", "POD#1"} {
			if p.real.ids[s] != "" {
				there = append(there, s)
			}
		}
		join = rapid.SampledFrom(there).Draw(p.t, "sandbox")
		if was, again := p.program[name]; again {
			program = was
		} else {
			program = rapid.IntRange(0, len(modelPrograms)-1).Draw(p.t, "program")
			p.program[name] = program
		}
	}
	p.both(func(s *side) error {
		spec := runtimes.ContainerSpec{Identity: slot, Image: p.image, Command: modelPrograms[program].command, SandboxID: s.ids[join]}
		if join == "" {
			image, err := s.SandboxImage(p.ctx)
			if err != nil {
				return err
			}
			spec.Image, spec.Command, spec.HostNetwork = image, nil, true
		}
		id, err := s.Create(p.ctx, spec)
		if err == nil {
			s.ids[name] = id
		}
		return err
	})
}

// started waits until a program that stays says that it is ready for signals: before, they do what they do to any program.
func (p *pair) started(name string) {
	if strings.HasPrefix(name, runtimes.SandboxContainer) || !modelPrograms[p.program[name]].stays {
		return
	}
	p.model.mu.Lock()
	times := 0
	for _, e := range p.model.events[name] {
		if e == "start" {
			times++
		}
		if e == "remove" {
			times = 0
		}
	}
	p.model.mu.Unlock()
	p.await("its program is not ready", func() string {
		var out bytes.Buffer
		if err := p.real.Logs(p.ctx, p.real.ids[name], runtimes.LogOptions{Tail: -1}, &out, io.Discard); err != nil {
			return err.Error()
		}
		if n := strings.Count(out.String(), "ready\n"); n < times {
			return fmt.Sprintf("%d times of %d", n, times)
		}
		return ""
	})
}

// condition is a container as both engines have to have it.
type condition struct {
	Running, Paused, OOM     bool
	Started, Finished, Error bool
	ExitCode                 int
	Joins                    string
	Resources                plan.Resources
}

func (p *pair) state(s *side) map[string]condition {
	all, err := s.List(p.ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	out := map[string]condition{}
	for _, c := range all {
		joins := ""
		for name, id := range s.ids {
			if c.SandboxID == id {
				joins = name
			}
		}
		out[slotName(c.Identity)] = condition{
			Running: c.Running, Paused: c.Paused, OOM: c.OOM, Started: !c.StartedAt.IsZero(), Finished: !c.FinishedAt.IsZero(), Error: c.Error != "",
			ExitCode: c.ExitCode, Joins: joins, Resources: c.Resources,
		}
		one, err := s.Inspect(p.ctx, c.ID)
		if err != nil && !errors.Is(err, runtimes.ErrNotFound) {
			p.t.Fatal(err)
		}
		if err == nil && one.Running == c.Running && !cmp.Equal(one, c) {
			p.t.Fatalf("%s: listed and inspected differ:\n%s", p.last, cmp.Diff(c, one))
		}
	}
	return out
}

// same waits until the real engine is in the state of its model, and has told of what it has told.
func (p *pair) same() {
	p.await("the engine and its model differ (-model +engine)", func() string {
		return cmp.Diff(p.state(p.model), p.state(p.real)) + cmp.Diff(p.told(p.model), p.told(p.real))
	})
}

func (p *pair) told(s *side) map[string][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string][]string{}
	for name, events := range s.events {
		out[name] = slices.Clone(events)
	}
	return out
}

// await asks again and again until nothing is wrong.
func (p *pair) await(what string, wrong func() string) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; {
		why := wrong()
		if why == "" {
			return
		}
		select {
		case <-tick.C:
		case <-p.ctx.Done():
			p.t.Fatal(p.ctx.Err())
		}
		if time.Now().After(end) {
			p.t.Fatalf("after %s, %s:\n%s", p.last, what, why)
		}
	}
}

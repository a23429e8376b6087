// Package runtimetest holds what tests of pods need: a contract suite that every runtimes.Engine
// passes, and a test program with an image of it.
package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// Fixture is what the suite needs besides the engine. Every command is a whole command line that
// overrides the image's.
type Fixture struct {
	// Image is the reference of an image that the commands are in.
	Image string
	// Exit ends at once with a code.
	Exit func(code int) []string
	// Wait runs until SIGTERM and ends with 0.
	Wait []string
	// Stubborn ignores SIGTERM.
	Stubborn []string
	// Print writes a line to each stream and ends with 0.
	Print func(stdout, stderr string) []string
	// PrintAndWait does the same and runs until SIGTERM.
	PrintAndWait func(stdout, stderr string) []string
	// Env prints the value of an environment variable and ends with 0.
	Env func(name string) []string
	// Copy copies stdin to stdout until stdin ends, and ends with 0.
	Copy []string

	// Foreign makes a container that has the name that Create would give to the spec's, but is nobody's. It
	// returns the container's id.
	Foreign func(t *testing.T, spec runtimes.ContainerSpec) string
	// Tamper makes a copy of a container of ours with all its labels, one of them changed so that the copy
	// claims to be of another pod. It returns the copy's id.
	Tamper func(t *testing.T, id string) string
	// Duplicate makes a copy of a container of ours with all its labels as they are, as committing and running it
	// does. It returns the copy's id.
	Duplicate func(t *testing.T, id string) string
	// Rename gives a container another name.
	Rename func(t *testing.T, id string)
	// Exists says whether any container, ours or not, has the id.
	Exists func(t *testing.T, id string) bool
	// Disconnect breaks the connections of the events that flow. It may be nil.
	Disconnect func(t *testing.T)
}

// Commands returns a Fixture of an image of the test program, without the functions below Copy.
func Commands(image string) Fixture {
	return Fixture{
		Image:    image,
		Exit:     func(code int) []string { return Program("exit", fmt.Sprint(code)) },
		Wait:     Program("wait"),
		Stubborn: Program("ignore-term", "--", "print", "ready", "--", "forever"),
		Print:    func(o, e string) []string { return Program("print", o, "--", "warn", e) },
		PrintAndWait: func(o, e string) []string {
			return Program("print", o, "--", "warn", e, "--", "wait")
		},
		Env:  func(name string) []string { return Program("env", name) },
		Copy: Program("copy"),
	}
}

// Opener opens the engine of an installation. All that one Opener returns share the machine below; equal
// installations share the key too. The suite closes what it opened.
type Opener func(t *testing.T, installation string) runtimes.Engine

// Engine tests the contract of runtimes.Engine. Every subtest uses installations of its own and leaves no
// container behind.
func Engine(t *testing.T, open Opener, f Fixture) {
	tests := []struct {
		name string
		run  func(*harness)
	}{
		{"info", testInfo},
		{"images", testImages},
		{"life", testLife},
		{"create again", testCreateAgain},
		{"create what cannot be", testCreateInvalid},
		{"start again", testStartAgain},
		{"start what cannot run", testStartInvalid},
		{"exit codes", testExitCodes},
		{"kill", testKill},
		{"remove", testRemove},
		{"update", testUpdate},
		{"environment and arguments", testEnvironment},
		{"foreign name", testForeignName},
		{"tampered labels", testTampered},
		{"copied", testCopied},
		{"renamed", testRenamed},
		{"installations", testInstallations},
		{"canceled", testCanceled},
		{"events", testEvents},
		{"events after a gap", testEventsGap},
		{"exec", testExec},
		{"exec is given up", testExecGivenUp},
		{"attach", testAttach},
		{"attach with a terminal", testAttachTTY},
		{"logs", testLogs},
		{"logs of a terminal", testLogsTTY},
		{"logs followed", testLogsFollow},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			t.Cleanup(cancel)
			h := &harness{T: t, Fixture: f, ctx: ctx, open: open, installation: Name(t)}
			h.engine = h.openEngine(h.installation)
			tt.run(h)
		})
	}
}

// harness is one subtest.
type harness struct {
	*testing.T
	Fixture
	ctx          context.Context
	open         Opener
	installation string
	engine       runtimes.Engine
}

func (h *harness) openEngine(installation string) runtimes.Engine {
	h.Helper()
	e := h.open(h.T, installation)
	h.Cleanup(func() {
		if err := e.Close(); err != nil {
			h.Error(err)
		}
	})
	RemoveAll(h.T, e)
	return e
}

func (h *harness) ok(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *harness) is(err, class error) {
	h.Helper()
	if !errors.Is(err, class) {
		h.Fatalf("error is %v, want one that is %q", err, class)
	}
}

// identity is that of a container in the pod "default/pod".
func identity(container string, attempt int) runtimes.Identity {
	id := runtimes.Identity{
		Application: "app", Pod: plan.PodKey{Namespace: "default", Name: "pod"}, UID: "0c1e5a9e-6f5e-4b53-9a44-1d8bd1d1a001",
		Container: container, Attempt: attempt, Owner: `{"Kind":"Pod","Namespace":"default","Name":"pod"}`, Template: "template-1",
	}
	if container == runtimes.SandboxContainer {
		id.Spec, id.IP = `{"some":"record"}`, "10.1.2.3"
	}
	return id
}

// sandboxSpec is the sandbox of the pod. It uses the host's network because that is the cheapest.
func (h *harness) sandboxSpec(e runtimes.Engine) runtimes.ContainerSpec {
	h.Helper()
	image, err := e.SandboxImage(h.ctx)
	h.ok(err)
	return runtimes.ContainerSpec{Identity: identity(runtimes.SandboxContainer, 0), Image: image, HostNetwork: true}
}

// sandbox makes and starts the sandbox of the pod.
func (h *harness) sandbox(e runtimes.Engine) string {
	h.Helper()
	id, err := e.Create(h.ctx, h.sandboxSpec(e))
	h.ok(err)
	h.ok(e.Start(h.ctx, id))
	return id
}

// spec is a container of the pod that runs a command.
func (h *harness) spec(sandbox string, cmd []string) runtimes.ContainerSpec {
	return runtimes.ContainerSpec{Identity: identity("main", 0), Image: h.Image, Command: cmd, SandboxID: sandbox}
}

// create makes a container in a sandbox of its own.
func (h *harness) create(cmd []string, change ...func(*runtimes.ContainerSpec)) string {
	h.Helper()
	spec := h.spec(h.sandbox(h.engine), cmd)
	for _, c := range change {
		c(&spec)
	}
	id, err := h.engine.Create(h.ctx, spec)
	h.ok(err)
	return id
}

// run makes and starts a container in a sandbox of its own.
func (h *harness) run(cmd []string, change ...func(*runtimes.ContainerSpec)) string {
	h.Helper()
	id := h.create(cmd, change...)
	h.ok(h.engine.Start(h.ctx, id))
	return id
}

// finish runs a container to its end.
func (h *harness) finish(cmd []string, change ...func(*runtimes.ContainerSpec)) string {
	h.Helper()
	id := h.create(cmd, change...)
	w := h.watch(h.engine)
	h.ok(h.engine.Start(h.ctx, id))
	w.await(runtimes.EventDie, id)
	return id
}

func (h *harness) inspect(id string) runtimes.Container {
	h.Helper()
	c, err := h.engine.Inspect(h.ctx, id)
	h.ok(err)
	return c
}

// listed returns a container as List has it.
func (h *harness) listed(e runtimes.Engine, id string) (runtimes.Container, bool) {
	h.Helper()
	all, err := e.List(h.ctx)
	h.ok(err)
	for _, c := range all {
		if c.ID == id {
			return c, true
		}
	}
	return runtimes.Container{}, false
}

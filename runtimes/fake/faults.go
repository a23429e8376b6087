package fake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// CallKind names a method of the engine.
type CallKind string

// The kinds of calls.
const (
	CallInfo         CallKind = "info"
	CallList         CallKind = "list"
	CallInspect      CallKind = "inspect"
	CallImage        CallKind = "image"
	CallPull         CallKind = "pull"
	CallSandboxImage CallKind = "sandbox-image"
	CallCreate       CallKind = "create"
	CallStart        CallKind = "start"
	CallKill         CallKind = "kill"
	CallRemove       CallKind = "remove"
	CallUpdate       CallKind = "update"
	CallExec         CallKind = "exec"
	CallAttach       CallKind = "attach"
	CallLogs         CallKind = "logs"
	CallEvents       CallKind = "events"
)

// Mutates reports whether calls of the kind can change what the engine holds. Commands in containers
// change nothing of the engine's.
func (k CallKind) Mutates() bool {
	switch k {
	case CallPull, CallSandboxImage, CallCreate, CallStart, CallKill, CallRemove, CallUpdate:
		return true
	case CallInfo, CallList, CallInspect, CallImage, CallExec, CallAttach, CallLogs, CallEvents:
	}
	return false
}

// Call is one call of the engine.
type Call struct {
	Kind CallKind
	// Target is the name of the container, or the reference of the image.
	Target string
	// Identity is the container's, where the call is about one of ours.
	Identity runtimes.Identity
	// Spec is what Create was given, the others what the calls of their kinds were given.
	Spec      *runtimes.ContainerSpec
	Signal    string
	Command   []string
	Resources plan.Resources
	Auth      *runtimes.Auth
}

// String returns the kind, the container as "namespace/pod/container#attempt" or the target, and the signal.
func (c Call) String() string {
	s := string(c.Kind)
	switch {
	case c.Identity.UID != "":
		s += fmt.Sprintf(" %s/%s#%d", c.Identity.Pod, c.Identity.Container, c.Identity.Attempt)
	case c.Target != "":
		s += " " + c.Target
	}
	if c.Signal != "" {
		s += " " + c.Signal
	}
	return s
}

// Fault is what goes wrong with calls.
type Fault struct {
	// Kind and Match select calls; the zero values select all.
	Kind  CallKind
	Match func(Call) bool
	// Nth is the only selected call that is hit, counted from 1; 0 hits all.
	Nth int
	// Delay passes before the call does anything.
	Delay time.Duration
	// Hang keeps the call until its context ends; the error is then runtimes.ErrUnavailable and the context's.
	Hang bool
	// Err fails the call. Without Err, Delay and Hang it is runtimes.ErrUnavailable.
	Err error
	// After lets the call take effect before it fails or hangs: its outcome is unknown to the caller.
	After bool
}

type fault struct {
	Fault
	seen int
}

// Break adds a fault and returns how to mend it. Of several that hit a call the oldest counts.
func (e *Engine) Break(f Fault) (mend func()) {
	if f.Err == nil && f.Delay == 0 && !f.Hang {
		f.Err = runtimes.ErrUnavailable
	}
	added := &fault{Fault: f}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults = append(e.faults, added)
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.faults = slices.DeleteFunc(e.faults, func(o *fault) bool { return o == added })
	}
}

// Mend removes all faults and brings the engine up.
func (e *Engine) Mend() {
	e.mu.Lock()
	e.faults = nil
	e.dropEvents = false
	e.mu.Unlock()
	e.Up()
}

// Calls returns all calls in the order in which they were made.
func (e *Engine) Calls() []Call {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.calls)
}

// Mutations returns the calls that can change what the engine holds.
func (e *Engine) Mutations() []Call {
	return slices.DeleteFunc(e.Calls(), func(c Call) bool { return !c.Kind.Mutates() })
}

// ForgetCalls empties the list of calls.
func (e *Engine) ForgetCalls() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls = nil
}

// call makes a call that takes no time: effect runs with the lock.
func (e *Engine) call(ctx context.Context, c Call, effect func() error) error {
	return e.callSlow(ctx, c, func() error { return nil }, func() error { return nil }, effect)
}

// callSlow makes a call: check and effect run with the lock, between runs without it.
func (e *Engine) callSlow(ctx context.Context, c Call, check, between, effect func() error) error {
	f := e.begin(&c)
	if err := wait(ctx, f.Delay); err != nil {
		return err
	}
	fail := func() error {
		if f.Hang {
			<-ctx.Done()
			return fmt.Errorf("%s: %w: %w", c.Kind, runtimes.ErrUnavailable, ctx.Err())
		}
		if f.Err != nil {
			return fmt.Errorf("%s: %w", c.Kind, f.Err)
		}
		return nil
	}
	if !f.After {
		if err := fail(); err != nil {
			return err
		}
	}
	if err := e.locked(ctx, check); err != nil {
		return fmt.Errorf("%s: %w", c.Kind, err)
	}
	if err := between(); err != nil {
		return fmt.Errorf("%s: %w", c.Kind, err)
	}
	if err := e.locked(ctx, effect); err != nil {
		return fmt.Errorf("%s: %w", c.Kind, err)
	}
	if f.After {
		return fail()
	}
	return nil
}

func (e *Engine) locked(ctx context.Context, do func() error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if e.down || e.closed {
		return fmt.Errorf("cannot connect to the fake engine: %w", runtimes.ErrUnavailable)
	}
	return do()
}

// begin writes the call down and finds out what goes wrong with it.
func (e *Engine) begin(c *Call) Fault {
	e.mu.Lock()
	defer e.mu.Unlock()
	if o := e.containers[c.Target]; o != nil {
		c.Target, c.Identity = o.name, o.Identity
	}
	e.calls = append(e.calls, *c)
	var hit *fault
	for _, f := range e.faults {
		if f.Kind != "" && f.Kind != c.Kind || f.Match != nil && !f.Match(*c) {
			continue
		}
		f.seen++
		if hit == nil && (f.Nth == 0 || f.Nth == f.seen) {
			hit = f
		}
	}
	if hit == nil {
		return Fault{}
	}
	return hit.Fault
}

// wait lets d pass, or less when ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return errors.Join(runtimes.ErrUnavailable, ctx.Err())
	}
}

// Down makes the engine answer nothing. Its containers run on, and events of that time are lost.
func (e *Engine) Down() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = true
	for s := range e.subs {
		s.lost = true
	}
	e.change()
}

// SetClock makes the engine's clock be ahead of this process's, or behind where that is negative. What was written down
// before stays as it was.
func (e *Engine) SetClock(ahead time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ahead = ahead
}

// Crash takes the engine down and kills all containers, as an engine without live restore does.
func (e *Engine) Crash() {
	e.Down()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.order {
		if c.Running {
			e.exit(c, 137)
		}
	}
}

// Up makes the engine answer again.
func (e *Engine) Up() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = false
	e.change()
}

package fake

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// Process is what the process of a container does. The zero value runs until it is told to stop
// and then exits with 0 at once.
type Process struct {
	// Exits ends the process by itself, After its start, with exit code Code.
	Exits bool
	After time.Duration
	Code  int
	// OOM makes the end by itself the kernel's out-of-memory killer's work; Code is then 137.
	OOM bool
	// IgnoreTERM ignores every signal but SIGKILL.
	IgnoreTERM bool
	// StopTakes passes between the signal to stop and the exit, with exit code StopCode.
	StopTakes time.Duration
	StopCode  int
	// StartError makes starting fail with runtimes.ErrInvalid, as a command that does not exist does.
	StartError string
	// Output is written at the start, a line each.
	Output []string
	// Errors is written to stderr at the start, a line each.
	Errors []string
	// OnStart is called when the process starts, for example to write a termination log into a mount. It
	// must not call the engine.
	OnStart func(runtimes.ContainerSpec)
	// Exec answers commands that are run in the container; nil answers all with exit code 0.
	Exec func(ctx context.Context, cmd []string) (runtimes.ExecResult, error)
}

// start runs a container's process. The caller holds the lock.
func (e *Engine) start(c *container) error {
	if c.Running {
		return nil
	}
	if c.Dead {
		return fmt.Errorf("container %s is marked for removal: %w", c.name, runtimes.ErrConflict)
	}
	if id := c.spec.SandboxID; id != "" {
		sandbox := e.containers[id]
		if sandbox == nil {
			return fmt.Errorf("no such container %s to join: %w", id, runtimes.ErrNotFound)
		}
		if !sandbox.Running {
			return fmt.Errorf("cannot join container %s, which is not running: %w", sandbox.name, runtimes.ErrConflict)
		}
	}
	if msg := c.process.StartError; msg != "" {
		c.Error, c.ExitCode = msg, 127
		return fmt.Errorf("start %s: %s: %w", c.name, msg, runtimes.ErrInvalid)
	}
	e.pids++
	c.Running, c.PID, c.StartedAt = true, e.pids, time.Now()
	c.FinishedAt, c.ExitCode, c.OOM, c.Error = time.Time{}, 0, false, ""
	p := c.process
	if p.OnStart != nil {
		p.OnStart(c.spec)
	}
	for _, s := range p.Output {
		c.print(s, false)
	}
	for _, s := range p.Errors {
		c.print(s, true)
	}
	e.emit(c, runtimes.EventStart)
	if p.Exits {
		code := p.Code
		if p.OOM {
			code = 137
		}
		e.after(&c.timer, p.After, c, func() {
			if p.OOM {
				c.OOM = true
				e.emit(c, runtimes.EventOOM)
			}
			e.exit(c, code)
		})
	}
	return nil
}

// after runs end, with the lock, when c still runs the same process d later.
func (e *Engine) after(timer **time.Timer, d time.Duration, c *container, end func()) {
	pid := c.PID
	*timer = time.AfterFunc(d, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if !e.closed && c.Running && c.PID == pid {
			end()
		}
	})
}

func (c *container) stopTimers() {
	for _, t := range []*time.Timer{c.timer, c.stop} {
		if t != nil {
			t.Stop()
		}
	}
	c.timer, c.stop = nil, nil
}

// exit ends a process that runs. The caller holds the lock.
func (e *Engine) exit(c *container, code int) {
	c.stopTimers()
	c.Running, c.Paused, c.PID, c.ExitCode, c.FinishedAt = false, false, 0, code, time.Now()
	e.emit(c, runtimes.EventDie)
	for _, o := range e.sorted() {
		// Without its first process a PID namespace ends.
		if o.spec.SandboxID == c.ID && o.spec.PIDMode == "sandbox" && o.Running {
			e.exit(o, 137)
		}
	}
}

// signal does what a signal does to a process; without one it does nothing. The caller holds the lock.
func (e *Engine) signal(c *container, signal string) {
	if !c.Running {
		return
	}
	switch s := "SIG" + strings.TrimPrefix(strings.ToUpper(signal), "SIG"); s {
	case "SIGKILL", "SIG9":
		if c.Paused {
			c.Paused = false
			e.emit(c, runtimes.EventUnpause)
		}
		e.exit(c, 137)
	case "SIGTERM", "SIGINT", "SIGQUIT", c.spec.StopSignal:
		if c.process.IgnoreTERM || c.stop != nil {
			return
		}
		if c.Paused { // what a paused process is sent it gets when it goes on, and the engine lets it
			c.Paused = false
			e.emit(c, runtimes.EventUnpause)
		}
		if c.process.StopTakes == 0 {
			e.exit(c, c.process.StopCode)
			return
		}
		e.after(&c.stop, c.process.StopTakes, c, func() { e.exit(c, c.process.StopCode) })
	}
}

// remove kills and forgets a container. The caller holds the lock.
func (e *Engine) remove(c *container) {
	if c.Running {
		e.exit(c, 137)
	}
	c.stopTimers()
	delete(e.containers, c.ID)
	e.emit(c, runtimes.EventRemove)
}

// Exec implements runtimes.Engine.
func (e *Engine) Exec(ctx context.Context, id string, cmd []string, limit int) (runtimes.ExecResult, error) {
	r, err := e.exec(ctx, Call{Kind: CallExec, Target: id, Command: cmd})
	if len(r.Output) > limit {
		r.Output = r.Output[:limit]
	}
	return r, err
}

// Attach implements runtimes.Engine. The output of the command goes to opt.Stdout.
func (e *Engine) Attach(ctx context.Context, id string, cmd []string, opt runtimes.ExecOptions) (int, error) {
	r, err := e.exec(ctx, Call{Kind: CallAttach, Target: id, Command: cmd})
	if err != nil {
		return 0, err
	}
	if opt.Stdout != nil && len(r.Output) > 0 {
		if _, err := opt.Stdout.Write(r.Output); err != nil {
			return 0, fmt.Errorf("copy the output: %w", err)
		}
	}
	return r.ExitCode, nil
}

func (e *Engine) exec(ctx context.Context, call Call) (runtimes.ExecResult, error) {
	var run func(context.Context, []string) (runtimes.ExecResult, error)
	err := e.call(ctx, call, func() error {
		c, err := e.ours(call.Target)
		if err != nil {
			return err
		}
		if !c.Running || c.Paused {
			return fmt.Errorf("container %s is not running: %w", c.name, runtimes.ErrConflict)
		}
		run = c.process.Exec
		return nil
	})
	if err != nil || run == nil {
		return runtimes.ExecResult{}, err
	}
	return run(ctx, call.Command)
}

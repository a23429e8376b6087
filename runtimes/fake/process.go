package fake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
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
	// Exec runs a command in the container and returns its exit code; nil answers all with 0. ctx ends
	// when the caller gives up or the container ends. runtimes.ErrInvalid says that the command cannot be started.
	Exec func(ctx context.Context, cmd Command) (exitCode int, err error)
}

// Command is a command that is run in a container. Its streams are never nil.
type Command struct {
	Args           []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	TTY            bool
}

// start runs a container's process. The caller holds the lock.
func (m *machine) start(c *container) error {
	if c.Running {
		return nil
	}
	if c.Dead {
		return fmt.Errorf("container %s is marked for removal: %w", c.name, runtimes.ErrConflict)
	}
	if id := c.spec.SandboxID; id != "" {
		sandbox := m.containers[id]
		if sandbox == nil || !sandbox.Running {
			c.Error, c.ExitCode = "cannot join the container "+id, 128
		}
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
	m.pids++
	c.Running, c.PID, c.StartedAt = true, m.pids, m.now()
	c.began = time.Now()
	c.ExitCode, c.OOM, c.Error = 0, false, "" // when it last ended stays, as Docker has it
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
	m.emit(c, runtimes.EventStart)
	if p.Exits {
		code := p.Code
		if p.OOM {
			code = 137
		}
		m.after(&c.timer, p.After, c, func() {
			if p.OOM {
				c.OOM = true
				m.emit(c, runtimes.EventOOM)
			}
			m.exit(c, code)
		})
	}
	return nil
}

// after runs end, with the lock, when c still runs the same process d later.
func (m *machine) after(timer **time.Timer, d time.Duration, c *container, end func()) {
	pid := c.PID
	*timer = time.AfterFunc(d, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if c.Running && c.PID == pid {
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
func (m *machine) exit(c *container, code int) {
	c.stopTimers()
	c.Running, c.Paused, c.PID, c.ExitCode, c.FinishedAt = false, false, 0, code, m.now()
	m.emit(c, runtimes.EventDie)
	for _, cancel := range c.execs {
		cancel()
	}
	c.execs = nil
	for _, o := range m.order {
		// Without its first process a PID namespace ends.
		if o.spec.SandboxID == c.ID && o.spec.PIDMode == "sandbox" && o.Running {
			m.exit(o, 137)
		}
	}
}

// signal does what a signal does to a process; without one it does nothing. The caller holds the lock.
func (m *machine) signal(c *container, signal string) {
	if !c.Running {
		return
	}
	s := "SIG" + strings.TrimPrefix(strings.ToUpper(signal), "SIG")
	m.emitSignal(c, runtimes.EventKill, s)
	switch s {
	case "SIGKILL", "SIG9":
		if c.Paused {
			c.Paused = false
			m.emit(c, runtimes.EventUnpause)
		}
		m.exit(c, 137)
	case "SIGTERM", "SIGINT", "SIGQUIT", c.spec.StopSignal:
		if c.process.IgnoreTERM || c.stop != nil {
			return
		}
		if c.Paused { // what a paused process is sent it gets when it goes on, and the engine lets it
			c.Paused = false
			m.emit(c, runtimes.EventUnpause)
		}
		if c.process.StopTakes == 0 {
			m.exit(c, c.process.StopCode)
			return
		}
		m.after(&c.stop, c.process.StopTakes, c, func() { m.exit(c, c.process.StopCode) })
	}
}

// remove kills and forgets a container. The caller holds the lock.
func (m *machine) remove(c *container) {
	if c.Running {
		m.emitSignal(c, runtimes.EventKill, "SIGKILL")
		m.exit(c, 137)
	}
	c.stopTimers()
	delete(m.containers, c.ID)
	delete(m.names, c.name)
	m.order = slices.DeleteFunc(m.order, func(o *container) bool { return o == c })
	m.emit(c, runtimes.EventRemove)
}

// Exec implements runtimes.Engine.
func (e *Engine) Exec(ctx context.Context, id string, cmd []string, limit int) (runtimes.ExecResult, error) {
	out := &cut{limit: limit}
	code, err := e.exec(ctx, Call{Kind: CallExec, Target: id, Command: cmd}, runtimes.ExecOptions{Stdout: out, Stderr: out})
	if errors.Is(err, runtimes.ErrInvalid) {
		_, _ = out.Write([]byte(err.Error()))
		code, err = 127, nil
	}
	if err != nil {
		return runtimes.ExecResult{}, err
	}
	return runtimes.ExecResult{ExitCode: code, Output: out.data}, nil
}

// cut keeps the first bytes that are written to it.
type cut struct {
	data  []byte
	limit int
}

func (c *cut) Write(p []byte) (int, error) {
	c.data = append(c.data, p[:min(len(p), c.limit-len(c.data))]...)
	return len(p), nil
}

// Attach implements runtimes.Engine. A terminal's lines end with "\r\n", and all go to Stdout.
func (e *Engine) Attach(ctx context.Context, id string, cmd []string, opt runtimes.ExecOptions) (int, error) {
	return e.exec(ctx, Call{Kind: CallAttach, Target: id, Command: cmd}, opt)
}

func (e *Engine) exec(ctx context.Context, call Call, opt runtimes.ExecOptions) (int, error) {
	var run func(context.Context, Command) (int, error)
	inside, cancel := context.WithCancel(ctx)
	defer cancel()
	err := e.call(ctx, call, func() error {
		c, err := e.ours(call.Target)
		if err != nil {
			return err
		}
		if !c.Running || c.Paused {
			return fmt.Errorf("container %s is not running: %w", c.name, runtimes.ErrConflict)
		}
		if c.execs == nil {
			c.execs = map[int]context.CancelFunc{}
		}
		c.execs[len(c.execs)] = cancel
		run = c.process.Exec
		return nil
	})
	if err != nil || run == nil {
		return 0, err
	}
	cmd := Command{Args: call.Command, Stdin: opt.Stdin, Stdout: opt.Stdout, Stderr: opt.Stderr, TTY: opt.TTY}
	if cmd.Stdin == nil {
		cmd.Stdin = strings.NewReader("")
	}
	if cmd.Stdout == nil {
		cmd.Stdout = io.Discard
	}
	if cmd.TTY {
		cmd.Stdout = terminal{cmd.Stdout}
		cmd.Stderr = cmd.Stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = io.Discard
	}
	code, err := run(inside, cmd)
	switch {
	case ctx.Err() != nil:
		return 0, fmt.Errorf("%s: %w", call.Kind, ctx.Err())
	case inside.Err() != nil: // the container ended, and the command with it
		return 137, nil
	}
	return code, err
}

// terminal ends lines as terminals do.
type terminal struct{ w io.Writer }

func (t terminal) Write(p []byte) (int, error) {
	if _, err := t.w.Write(bytes.ReplaceAll(p, []byte("\n"), []byte("\r\n"))); err != nil {
		return 0, err
	}
	return len(p), nil
}

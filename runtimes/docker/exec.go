package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// The exit codes of a shell for a program that cannot be run.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// Exec runs a command and waits for it.
func (e *Engine) Exec(ctx context.Context, id string, cmd []string, limit int) (runtimes.ExecResult, error) {
	out := &capped{limit: limit}
	code, err := e.run(ctx, id, cmd, runtimes.ExecOptions{Stdout: out, Stderr: out})
	if err != nil {
		return runtimes.ExecResult{}, err
	}
	if code == exitNotExecutable || code == exitNotFound {
		_, _ = out.Write([]byte(fmt.Sprintf("cannot run %q", cmd[0])))
	}
	return runtimes.ExecResult{ExitCode: code, Output: out.b.Bytes()}, nil
}

// capped keeps the first bytes that are written to it.
type capped struct {
	b     bytes.Buffer
	limit int
}

func (c *capped) Write(p []byte) (int, error) {
	if room := c.limit - c.b.Len(); room > 0 {
		c.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// Attach runs a command with the caller's streams.
func (e *Engine) Attach(ctx context.Context, id string, cmd []string, opt runtimes.ExecOptions) (int, error) {
	return e.run(ctx, id, cmd, opt)
}

func (e *Engine) run(ctx context.Context, id string, cmd []string, opt runtimes.ExecOptions) (int, error) {
	if err := e.owned(ctx, id); err != nil {
		return 0, err
	}
	doing := "run a command in container " + short(id)
	created, err := e.cli.ContainerExecCreate(ctx, id, container.ExecOptions{
		Cmd: cmd, Tty: opt.TTY, AttachStdin: opt.Stdin != nil, AttachStdout: true, AttachStderr: !opt.TTY,
	})
	if err != nil {
		return 0, e.wrap(ctx, doing, err)
	}
	stream, err := e.cli.ContainerExecAttach(ctx, created.ID, container.ExecAttachOptions{Tty: opt.TTY})
	if err != nil {
		return 0, e.wrap(ctx, doing, err)
	}
	defer stream.Close()
	// What waits for the connection ends with the context.
	defer context.AfterFunc(ctx, stream.Close)()
	var helpers sync.WaitGroup
	ended := make(chan struct{})
	defer helpers.Wait()
	defer close(ended)
	if opt.Resize != nil {
		helpers.Go(func() { e.resize(ctx, created.ID, opt.Resize, ended) })
	}
	if opt.Stdin != nil {
		// Reading from the caller may block for ever, so nobody waits for it.
		go func() {
			_, _ = io.Copy(stream.Conn, opt.Stdin) // the command may end without reading everything
			_ = stream.CloseWrite()
		}()
	}
	if err := output(stream, opt); err != nil || ctx.Err() != nil {
		return 0, e.wrap(ctx, doing, errors.Join(err, ctx.Err()))
	}
	return e.exitCode(ctx, doing, created.ID)
}

// exitCode waits until the engine knows that the command has ended: its output ends a moment earlier.
func (e *Engine) exitCode(ctx context.Context, doing, exec string) (int, error) {
	for {
		r, err := e.cli.ContainerExecInspect(ctx, exec)
		if err != nil {
			return 0, e.wrap(ctx, doing, err)
		}
		if !r.Running {
			return r.ExitCode, nil
		}
		select {
		case <-ctx.Done():
			return 0, e.wrap(ctx, doing, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func output(stream types.HijackedResponse, opt runtimes.ExecOptions) error {
	stdout, stderr := opt.Stdout, opt.Stderr
	if stdout == nil {
		stdout = io.Discard
	}
	if stderr == nil {
		stderr = io.Discard
	}
	var err error
	if opt.TTY {
		_, err = io.Copy(stdout, stream.Reader)
	} else {
		_, err = stdcopy.StdCopy(stdout, stderr, stream.Reader)
	}
	return err
}

// resize passes sizes on. The first may come before the command runs, so it is tried again for a while.
func (e *Engine) resize(ctx context.Context, exec string, sizes <-chan [2]uint, ended <-chan struct{}) {
	for {
		select {
		case size, more := <-sizes:
			if !more {
				return
			}
			for range 10 {
				if e.cli.ContainerExecResize(ctx, exec, container.ResizeOptions{Width: size[0], Height: size[1]}) == nil {
					break
				}
				select {
				case <-ended:
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
		case <-ended:
			return
		case <-ctx.Done():
			return
		}
	}
}

// Logs copies a container's log.
func (e *Engine) Logs(ctx context.Context, id string, opt runtimes.LogOptions, stdout, stderr io.Writer) error {
	doing := "read the log of container " + short(id)
	info, err := e.cli.ContainerInspect(ctx, id)
	if err != nil {
		return e.wrap(ctx, doing, err)
	}
	if _, ours := e.identity(info.Config.Labels); !ours {
		return fmt.Errorf("%s: %w: it is not ours", doing, runtimes.ErrNotFound)
	}
	o := container.LogsOptions{ShowStdout: true, ShowStderr: true, Follow: opt.Follow, Timestamps: opt.Timestamps, Tail: "all"}
	if opt.Tail >= 0 {
		o.Tail = strconv.Itoa(opt.Tail)
	}
	if !opt.Since.IsZero() {
		o.Since = strings.TrimSpace(fmt.Sprintf("%d.%09d", opt.Since.Unix(), opt.Since.Nanosecond()))
	}
	stream, err := e.cli.ContainerLogs(ctx, id, o)
	if err != nil {
		return e.wrap(ctx, doing, err)
	}
	defer stream.Close()
	if info.Config.Tty {
		_, err = io.Copy(stdout, stream)
	} else {
		_, err = stdcopy.StdCopy(stdout, stderr, stream)
	}
	if err != nil && opt.Follow && ctx.Err() != nil {
		return ctx.Err()
	}
	return e.wrap(ctx, doing, err)
}

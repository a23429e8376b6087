package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs/pkg/errhttp"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
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
	end, err := e.run(ctx, id, cmd, runtimes.ExecOptions{Stdout: out, Stderr: out}, nil)
	if err != nil {
		return runtimes.ExecResult{}, err
	}
	if end.ExitCode == exitNotExecutable || end.ExitCode == exitNotFound {
		_, _ = fmt.Fprintf(out, "cannot run %q", cmd[0])
	}
	return runtimes.ExecResult{ExitCode: end.ExitCode, Output: out.b.Bytes()}, nil
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
	var out *attached
	end, err := e.run(ctx, id, cmd, opt, func(exec string, stdout io.Writer) io.Writer {
		out = &attached{stdout: stdout, runs: func() (bool, error) { return e.runs(ctx, exec) }}
		return out
	})
	if err != nil {
		return 0, err
	}
	if why := strings.TrimSpace(out.why.b.String()); why != "" {
		return 0, fmt.Errorf("run a command in container %s: cannot run %q: %s: %w", short(id), cmd[0], why, runtimes.ErrInvalid)
	}
	return end.ExitCode, nil
}

// attached passes a command's stdout on. When a command cannot be started the engine writes the reason there, which
// is kept instead.
type attached struct {
	stdout io.Writer
	runs   func() (bool, error) // asked once, when the first output is there
	asked  bool
	failed bool
	why    capped
}

func (a *attached) Write(p []byte) (int, error) {
	if !a.asked {
		runs, err := a.runs()
		if err != nil {
			return 0, err
		}
		a.asked, a.failed, a.why.limit = true, !runs, 4096
	}
	if a.failed {
		return a.why.Write(p)
	}
	return a.stdout.Write(p)
}

// runs waits until a command, of which there is output, runs or has run, or could not be started. The engine gives
// it a process id in the first case only, a moment after its start.
func (e *Engine) runs(ctx context.Context, exec string) (bool, error) {
	for {
		r, err := e.inspectExec(ctx, exec)
		if err != nil || r.Pid != 0 || !r.Running {
			return r.Pid != 0, err
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// run runs a command; through, unless it is nil, is what its stdout goes through.
func (e *Engine) run(ctx context.Context, id string, cmd []string, opt runtimes.ExecOptions, through func(exec string, stdout io.Writer) io.Writer) (_ container.ExecInspect, err error) {
	var none container.ExecInspect
	if err := e.owned(ctx, id); err != nil {
		return none, err
	}
	doing := "run a command in container " + short(id)
	exec, err := e.makeExec(ctx, id, cmd, opt)
	if err != nil {
		return none, fmt.Errorf("%s: %w", doing, err)
	}
	defer func() {
		if err != nil {
			e.work.Go(func() { e.endExec(context.WithoutCancel(ctx), id, exec) })
		}
	}()
	stream, err := e.startExec(ctx, exec, opt.TTY)
	if err != nil {
		return none, e.wrap(ctx, doing, err)
	}
	defer stream.Close()
	// What waits for the connection ends with the context.
	defer context.AfterFunc(ctx, func() { stream.Close() })()
	var helpers sync.WaitGroup
	ended := make(chan struct{})
	defer helpers.Wait()
	defer close(ended)
	if opt.Resize != nil {
		helpers.Go(func() { e.resize(ctx, exec, opt.Resize, ended) })
	}
	if opt.Stdin != nil {
		// Reading from the caller may block for ever, so nobody waits for it.
		go func() {
			_, _ = io.Copy(stream, opt.Stdin) // the command may end without reading everything
			if w, ok := stream.(interface{ CloseWrite() error }); ok {
				_ = w.CloseWrite() // it may have ended
			}
		}()
	}
	if opt.Stdout == nil {
		opt.Stdout = io.Discard
	}
	if through != nil {
		opt.Stdout = through(exec, opt.Stdout)
	}
	if err := output(stream, opt); err != nil || ctx.Err() != nil {
		return none, e.wrap(ctx, doing, errors.Join(err, ctx.Err()))
	}
	return e.end(ctx, doing, exec)
}

// makeExec prepares a command and returns the engine's id for it.
func (e *Engine) makeExec(ctx context.Context, id string, cmd []string, opt runtimes.ExecOptions) (string, error) {
	ctx, done, err := e.begin(ctx, e.bounds.read)
	defer done()
	if err != nil {
		return "", e.wrap(ctx, "prepare it", err)
	}
	created, err := e.cli.ContainerExecCreate(ctx, id, container.ExecOptions{
		Cmd: cmd, Tty: opt.TTY, AttachStdin: opt.Stdin != nil, AttachStdout: true, AttachStderr: !opt.TTY,
	})
	return created.ID, e.wrap(ctx, "prepare it", err)
}

// startExec starts a command and returns its streams. The client's own way to do this does not heed the
// context while it waits for the engine.
func (e *Engine) startExec(ctx context.Context, exec string, tty bool) (io.ReadWriteCloser, error) {
	body, err := json.Marshal(container.ExecStartOptions{Tty: tty})
	if err != nil {
		return nil, err
	}
	host, err := client.ParseHostURL(e.cli.DaemonHost())
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "http", Host: client.DummyHost, Path: path.Join(host.Path, "/v"+e.cli.ClientVersion(), "exec", exec, "start")}
	if host.Scheme == "tcp" || host.Scheme == "http" || host.Scheme == "https" {
		u.Host = host.Host
		if e.transport.TLSClientConfig != nil {
			u.Scheme = "https"
		}
	} else {
		u.Path = path.Join("/v"+e.cli.ClientVersion(), "exec", exec, "start")
	}
	var resp *http.Response
	// The answer comes when the command runs. The context of the request has no effect after that.
	stop, err := e.answered(ctx, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "tcp")
		resp, err = e.transport.RoundTrip(req) //nolint:bodyclose // it holds the streams of the command, which the caller closes
		return err
	})
	if err != nil {
		stop()
		if resp != nil { // it came at the moment when the wait for it ended
			resp.Body.Close()
		}
		return nil, err
	}
	if stream, ok := resp.Body.(io.ReadWriteCloser); ok && resp.StatusCode == http.StatusSwitchingProtocols {
		return streams{stream, stop}, nil
	}
	defer stop()
	defer resp.Body.Close()
	var answer struct{ Message string }
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer); err != nil || answer.Message == "" {
		answer.Message = "the engine answered " + resp.Status
	}
	return nil, fmt.Errorf("%s: %w", answer.Message, errhttp.ToNative(resp.StatusCode))
}

// streams are those of a command, until they are closed.
type streams struct {
	io.ReadWriteCloser
	stop func()
}

// Close ends them.
func (s streams) Close() error {
	defer s.stop()
	return s.ReadWriteCloser.Close()
}

// CloseWrite tells the command that its stdin has ended.
func (s streams) CloseWrite() error {
	w, ok := s.ReadWriteCloser.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return w.CloseWrite()
}

// end waits until the engine knows that the command has ended: its output ends a moment earlier.
func (e *Engine) end(ctx context.Context, doing, exec string) (container.ExecInspect, error) {
	for {
		r, err := e.inspectExec(ctx, exec)
		if err != nil {
			return r, fmt.Errorf("%s: %w", doing, err)
		}
		if !r.Running {
			return r, nil
		}
		select {
		case <-ctx.Done():
			return r, e.wrap(ctx, doing, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (e *Engine) inspectExec(ctx context.Context, exec string) (container.ExecInspect, error) {
	ctx, done, err := e.begin(ctx, e.bounds.read)
	defer done()
	if err != nil {
		return container.ExecInspect{}, e.wrap(ctx, "ask for its end", err)
	}
	r, err := e.cli.ContainerExecInspect(ctx, exec)
	return r, e.wrap(ctx, "ask for its end", err)
}

func output(stream io.Reader, opt runtimes.ExecOptions) error {
	stdout, stderr := opt.Stdout, opt.Stderr
	if stderr == nil {
		stderr = io.Discard
	}
	var err error
	if opt.TTY {
		_, err = io.Copy(stdout, stream)
	} else {
		_, err = stdcopy.StdCopy(stdout, stderr, stream)
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

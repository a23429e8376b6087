package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/fairlead-dev/fairlead/render/object"
)

// Client is the Backend of a daemon that listens on a unix socket.
type Client struct {
	path string
	http *http.Client
}

var _ Backend = (*Client)(nil)

// NewClient returns the client of the daemon at the socket path. It does not connect yet.
func NewClient(path string) *Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		},
		DisableCompression: true,
	}}}
}

// Listening reports whether a daemon answers at the socket: false without an error when nobody
// listens there, and an error when one does but may not be talked to.
func Listening(ctx context.Context, path string) (bool, error) {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		conn.Close()
		return true, nil
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return false, nil
	case errors.Is(err, os.ErrPermission):
		return false, fmt.Errorf("the daemon's socket %s belongs to another user: run the command as that user, or choose another --socket: %w", path, err)
	default:
		return false, fmt.Errorf("connect to the socket %s: %w", path, err)
	}
}

// Close drops idle connections.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// do sends a request and returns the answer to a successful one.
func (c *Client) do(ctx context.Context, method, path string, body any, header http.Header) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://fairlead/v1/"+path, r)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, c.gone(err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	var l line
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&l); err != nil || l.Error == nil {
		return nil, fmt.Errorf("the daemon at %s answered %s to %s", c.path, resp.Status, path)
	}
	return nil, l.Error
}

// gone is the error for a daemon that does not answer, or went away in the middle of an answer.
func (c *Client) gone(err error) error {
	return fmt.Errorf("%w: the daemon at %s does not answer; see its log, or start it with `fairlead run`: %w", ErrUnavailable, c.path, err)
}

func get[R any](ctx context.Context, c *Client, method, path string, body any) (R, error) {
	var out R
	resp, err := c.do(ctx, method, path, body, nil)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		return out, c.gone(fmt.Errorf("read the answer to %s: %w", path, err))
	}
	return out, nil
}

// lines calls on for every line up to the last, and returns the last. An answer that ends without
// one is an error: the daemon went away.
func (c *Client) lines(ctx context.Context, path string, body any, on func(line) error) (line, error) {
	resp, err := c.do(ctx, http.MethodPost, path, body, nil)
	if err != nil {
		return line{}, err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(bufio.NewReader(resp.Body))
	for {
		var l line
		if err := dec.Decode(&l); err != nil {
			if ctx.Err() != nil {
				return line{}, ctx.Err()
			}
			return line{}, c.gone(err)
		}
		switch {
		case l.Error != nil:
			return line{}, l.Error
		case l.Result != nil, l.End:
			return l, nil
		}
		if err := on(l); err != nil {
			return line{}, err
		}
	}
}

func withProgress[R any](ctx context.Context, c *Client, path string, body any, on func(Event)) (R, error) {
	var out R
	l, err := c.lines(ctx, path, body, func(l line) error {
		if on != nil && l.Event != nil {
			on(*l.Event)
		}
		return nil
	})
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(l.Result, &out); err != nil {
		return out, fmt.Errorf("read the answer to %s: %w", path, err)
	}
	return out, nil
}

// Status implements Backend.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, http.MethodGet, "status", nil)
}

// Applications implements Backend.
func (c *Client) Applications(ctx context.Context) ([]Application, error) {
	return get[[]Application](ctx, c, http.MethodGet, "applications", nil)
}

// Sources implements Backend.
func (c *Client) Sources(ctx context.Context) ([]Source, error) {
	return get[[]Source](ctx, c, http.MethodGet, "sources", nil)
}

// Objects implements Backend.
func (c *Client) Objects(ctx context.Context, q Query) ([]Object, error) {
	return get[[]Object](ctx, c, http.MethodPost, "objects", q)
}

// Pods implements Backend.
func (c *Client) Pods(ctx context.Context, q Query) ([]Pod, error) {
	return get[[]Pod](ctx, c, http.MethodPost, "pods", q)
}

// Services implements Backend.
func (c *Client) Services(ctx context.Context, q Query) ([]Service, error) {
	return get[[]Service](ctx, c, http.MethodPost, "services", q)
}

// Describe implements Backend.
func (c *Client) Describe(ctx context.Context, ref object.Ref) (Description, error) {
	return get[Description](ctx, c, http.MethodPost, "describe", ref)
}

// Reconcile implements Backend.
func (c *Client) Reconcile(ctx context.Context, applications []string) error {
	_, err := get[struct{}](ctx, c, http.MethodPost, "reconcile", reconcileRequest{applications})
	return err
}

// Access implements Backend.
func (c *Client) Access(ctx context.Context, r AccessRequest) (AccessAnswer, error) {
	return get[AccessAnswer](ctx, c, http.MethodPost, "access", r)
}

// Suspend implements Backend.
func (c *Client) Suspend(ctx context.Context, r SuspendRequest) (SuspendResult, error) {
	return get[SuspendResult](ctx, c, http.MethodPost, "suspend", r)
}

// Resume implements Backend.
func (c *Client) Resume(ctx context.Context, r ResumeRequest) (SuspendResult, error) {
	return get[SuspendResult](ctx, c, http.MethodPost, "resume", r)
}

// Approve implements Backend.
func (c *Client) Approve(ctx context.Context, r ApproveRequest) (ApproveResult, error) {
	return get[ApproveResult](ctx, c, http.MethodPost, "approve", r)
}

// Images implements Backend.
func (c *Client) Images(ctx context.Context) (Images, error) {
	return get[Images](ctx, c, http.MethodGet, "images", nil)
}

// TestNotification implements Backend.
func (c *Client) TestNotification(ctx context.Context, r NotificationTest) (NotificationTest, error) {
	return get[NotificationTest](ctx, c, http.MethodPost, "notifications/test", r)
}

// Plan implements Backend.
func (c *Client) Plan(ctx context.Context, r PlanRequest, on func(Event)) (PlanResult, error) {
	return withProgress[PlanResult](ctx, c, "plan", r, on)
}

// Preview implements Backend.
func (c *Client) Preview(ctx context.Context, r PreviewRequest) (Preview, error) {
	return get[Preview](ctx, c, http.MethodPost, "preview", r)
}

// Apply implements Backend.
func (c *Client) Apply(ctx context.Context, r ApplyRequest, on func(Event)) (ApplyResult, error) {
	return withProgress[ApplyResult](ctx, c, "apply", r, on)
}

// Down implements Backend.
func (c *Client) Down(ctx context.Context, r DownRequest, on func(Event)) (DownResult, error) {
	return withProgress[DownResult](ctx, c, "down", r, on)
}

// Events implements Backend.
func (c *Client) Events(ctx context.Context, q EventQuery, on func(Event) error) error {
	_, err := c.lines(ctx, "events", q, func(l line) error {
		if l.Event == nil {
			return nil
		}
		return on(*l.Event)
	})
	return unlessDone(ctx, err)
}

// Watch implements Backend.
func (c *Client) Watch(ctx context.Context, changed func()) error {
	_, err := c.lines(ctx, "watch", nil, func(line) error { changed(); return nil })
	return unlessDone(ctx, err)
}

// unlessDone drops the error of a stream that the caller ended.
func unlessDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Logs implements Backend.
func (c *Client) Logs(ctx context.Context, r LogRequest, stdout, stderr io.Writer) error {
	resp, err := c.do(ctx, http.MethodPost, "logs", r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	e, err := c.output(ctx, resp.Body, stdout, stderr)
	if err == nil && e.Error != nil {
		return e.Error
	}
	return err
}

// output copies frames until the last, which it returns.
func (c *Client) output(ctx context.Context, r io.Reader, stdout, stderr io.Writer) (end, error) {
	br := bufio.NewReader(r)
	for {
		kind, p, err := readFrame(br)
		if err != nil {
			if ctx.Err() != nil {
				return end{}, ctx.Err()
			}
			return end{}, c.gone(err)
		}
		switch kind {
		case frameStdout:
			_, err = stdout.Write(p)
		case frameStderr:
			_, err = stderr.Write(p)
		case frameEnd:
			var e end
			if err := json.Unmarshal(p, &e); err != nil {
				return end{}, fmt.Errorf("read the end of the output: %w", err)
			}
			return e, nil
		}
		if err != nil {
			return end{}, fmt.Errorf("write the output: %w", err)
		}
	}
}

// Exec implements Backend. A read of s.Stdin that is under way when the command ends is left behind:
// a terminal's read cannot be ended.
func (c *Client) Exec(ctx context.Context, r ExecRequest, s Streams) (int, error) {
	resp, err := c.do(ctx, http.MethodPost, "exec", r, http.Header{"Connection": {"Upgrade"}, "Upgrade": {upgradeName}})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || resp.StatusCode != http.StatusSwitchingProtocols {
		return 0, fmt.Errorf("the daemon at %s answered %s to exec", c.path, resp.Status)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	fw := &frameWriter{w: conn}
	if r.Stdin && s.Stdin != nil {
		go func() {
			if _, err := io.Copy(fw.stream(frameStdin), s.Stdin); err == nil {
				_ = fw.frame(frameStdinEOF, nil)
			}
		}()
	}
	if r.TTY && s.Resize != nil {
		var resizer sync.WaitGroup
		defer resizer.Wait()
		defer cancel()
		resizer.Go(func() {
			for {
				select {
				case size, ok := <-s.Resize:
					if !ok || fw.frame(frameResize, resizePayload(size)) != nil {
						return
					}
				case <-ctx.Done():
					return
				}
			}
		})
	}
	e, err := c.output(ctx, conn, s.Stdout, s.Stderr)
	if err == nil && e.Error != nil {
		err = e.Error
	}
	return e.ExitCode, err
}

package api_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/api/apitest"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

var (
	now   = time.Date(2026, 3, 1, 12, 0, 0, 123, time.UTC)
	web   = object.Ref{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "web"}
	pod   = plan.PodKey{Namespace: "shop", Name: "web-1"}
	state = apitest.State{
		Status:       api.Status{Version: "v1", Started: now, PID: 4, Ready: true, Nodes: []api.Node{{Name: "n1", Reachable: true}}, Notifications: []api.NotificationChannel{{Name: "ops", Kind: "slack", Sent: 2}}},
		Applications: []api.Application{{Name: "shop", Health: api.Healthy, Revision: api.Revision{ID: "abc", Short: "a", Committed: now}, Interval: time.Minute, Pending: &api.Counts{Add: 1}, Diagnostics: diag.List{{Severity: diag.Warning, Code: "c", Message: "m"}}}},
		Sources:      []api.Source{{Name: "src", Type: "git", Location: "https://example.org/r", Ready: true}},
		Objects:      []api.Object{{Ref: web, APIVersion: "apps/v1", Application: "shop", Status: &plan.WorkloadStatus{Ref: web, Desired: 2}, Manifest: []byte(`{"kind":"Deployment"}`), Labels: map[string]string{"app": "web"}}},
		Pods:         []api.Pod{{PodKey: pod, Application: "shop", Owner: web, Status: "Running", Ready: 1, Total: 1, Containers: []api.Container{{Name: "web", State: plan.Running}}, Created: now, Labels: map[string]string{"app": "web"}}},
		Events:       []api.Event{{Seq: 1, Time: now, Type: api.Normal, Reason: "Planned", Message: "m", Ref: web, Plan: &api.Counts{Add: 2}}},
		Plan: api.PlanResult{Format: api.PlanFormat, Created: now, Applications: []api.ApplicationPlan{
			{Name: "shop", To: api.Revision{ID: "abc"}, Plan: plan.Plan{
				Basis: "b1", Changes: []plan.Change{{Ref: web, Action: plan.ActionCreate, Cause: "new"}},
				Steps: []plan.Step{{ID: 1, Op: plan.OpCreatePod, Target: pod.Ref(), Cause: "new"}},
			}},
			{Name: "bad", Error: &api.Error{Code: api.CodeUnavailable, Message: "no answer"}},
		}},
		Apply:    api.ApplyResult{Outcomes: []api.Outcome{{Application: "shop", Done: 1, Total: 1, Health: api.Healthy, Duration: time.Second}}},
		Down:     api.DownResult{Applications: []api.ApplicationPlan{{Name: "shop"}}, Outcomes: []api.Outcome{{Application: "shop"}}},
		Progress: []api.Event{{Time: now, Type: api.Normal, Reason: "Step", Step: &api.StepProgress{ID: 1, Op: plan.OpCreatePod, State: api.StepStarted, Total: 1}}},
		Logs:     map[string]string{"shop/web-1/web": "one\nstderr: two\nthree\n", "shop/web-1/web!": "before\n"},
		ExitCode: 3,
		Output:   "hello\n",
	}
)

// serve starts a server over a real socket and returns its client.
func serve(t *testing.T, b api.Backend) *api.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := api.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- api.Serve(ctx, l, b) }()
	c := api.NewClient(path)
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		c.Close()
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	return c
}

// calls asks for everything; what one asks returns both what was answered and what was reported.
var calls = map[string]func(ctx context.Context, b api.Backend) (any, error){
	"Status":       func(ctx context.Context, b api.Backend) (any, error) { return b.Status(ctx) },
	"Applications": func(ctx context.Context, b api.Backend) (any, error) { return b.Applications(ctx) },
	"Sources":      func(ctx context.Context, b api.Backend) (any, error) { return b.Sources(ctx) },
	"Objects": func(ctx context.Context, b api.Backend) (any, error) {
		return b.Objects(ctx, api.Query{Kinds: []string{"Deployment"}, Selector: "app=web"})
	},
	"Pods": func(ctx context.Context, b api.Backend) (any, error) {
		return b.Pods(ctx, api.Query{Namespace: "shop"})
	},
	"Describe": func(ctx context.Context, b api.Backend) (any, error) { return b.Describe(ctx, web) },
	"Reconcile": func(ctx context.Context, b api.Backend) (any, error) {
		return nil, b.Reconcile(ctx, []string{"shop"})
	},
	"Events": func(ctx context.Context, b api.Backend) (any, error) {
		var got []api.Event
		err := b.Events(ctx, api.EventQuery{Application: ""}, func(e api.Event) error { got = append(got, e); return nil })
		return got, err
	},
	"Logs": func(ctx context.Context, b api.Backend) (any, error) {
		var out, errOut bytes.Buffer
		err := b.Logs(ctx, api.LogRequest{Pod: pod, Container: "web", Tail: 2}, &out, &errOut)
		return []string{out.String(), errOut.String()}, err
	},
	"Exec": func(ctx context.Context, b api.Backend) (any, error) {
		var out bytes.Buffer
		code, err := b.Exec(ctx, api.ExecRequest{Pod: pod, Command: []string{"cat"}, Stdin: true}, api.Streams{Stdin: strings.NewReader("in\n"), Stdout: &out, Stderr: io.Discard})
		return []any{out.String(), code}, err
	},
	"Plan": func(ctx context.Context, b api.Backend) (any, error) {
		var on events
		res, err := b.Plan(ctx, api.PlanRequest{Ref: "main"}, on.add)
		return []any{res, on}, err
	},
	"Apply": func(ctx context.Context, b api.Backend) (any, error) {
		var on events
		res, err := b.Apply(ctx, api.ApplyRequest{Expect: state.Plan.Expect()}, on.add)
		return []any{res, on}, err
	},
	"Approve": func(ctx context.Context, b api.Backend) (any, error) {
		return b.Approve(ctx, api.ApproveRequest{Application: "shop", Digest: state.Approve.Approved.Digest})
	},
	"Images": func(ctx context.Context, b api.Backend) (any, error) { return b.Images(ctx) },
	"TestNotification": func(ctx context.Context, b api.Backend) (any, error) {
		return b.TestNotification(ctx, api.NotificationTest{Channel: "ops"})
	},
	"Down": func(ctx context.Context, b api.Backend) (any, error) {
		var on events
		res, err := b.Down(ctx, api.DownRequest{DryRun: true}, on.add)
		return []any{res, on}, err
	},
}

type events []api.Event

func (e *events) add(ev api.Event) { *e = append(*e, ev) }

func TestRoundTrip(t *testing.T) {
	direct, behind := apitest.New(state), apitest.New(state)
	c := serve(t, behind)
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			want, err := call(t.Context(), direct)
			if err != nil {
				t.Fatal(err)
			}
			got, err := call(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("over the socket (-direct +socket):\n%s", d)
			}
			wantCalls, gotCalls := direct.Calls(), behind.Calls()
			if d := cmp.Diff(wantCalls[len(wantCalls)-1], gotCalls[len(gotCalls)-1]); d != "" {
				t.Errorf("request (-direct +socket):\n%s", d)
			}
		})
	}
}

func TestErrorsCrossTheSocket(t *testing.T) {
	s := state
	s.Errors = map[string]*api.Error{}
	for name := range calls {
		s.Errors[name] = api.ErrorFrom(errors.Join(errors.New(name+" went wrong"), api.ErrConflict))
	}
	c := serve(t, apitest.New(s))
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			_, err := call(t.Context(), c)
			if !errors.Is(err, api.ErrConflict) || !strings.Contains(err.Error(), name+" went wrong") {
				t.Errorf("error = %v", err)
			}
		})
	}
}

func TestErrorClasses(t *testing.T) {
	for name, class := range map[string]error{
		"not found": api.ErrNotFound, "invalid": api.ErrInvalid, "moved": api.ErrMoved, "conflict": api.ErrConflict,
		"unavailable": api.ErrUnavailable, "unsupported": api.ErrUnsupported, "canceled": context.Canceled,
	} {
		t.Run(name, func(t *testing.T) {
			e := api.ErrorFrom(errors.Join(errors.New("x"), class))
			if !errors.Is(e, class) {
				t.Errorf("%+v is not %v", e, class)
			}
		})
	}
	if e := api.ErrorFrom(errors.New("x")); e.Code != api.CodeFailed || errors.Unwrap(e) != nil {
		t.Errorf("plain error became %+v", e)
	}
	if api.ErrorFrom(nil) != nil {
		t.Error("nil became an error")
	}
}

func TestBadSelectorIsInvalid(t *testing.T) {
	c := serve(t, apitest.New(state))
	if _, err := c.Pods(t.Context(), api.Query{Selector: "a in ("}); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("error = %v", err)
	}
}

func TestFollowedEventsEndWithTheContext(t *testing.T) {
	b := apitest.New(state)
	c := serve(t, b)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan api.Event)
	done := make(chan error, 1)
	go func() {
		done <- c.Events(ctx, api.EventQuery{Follow: true}, func(e api.Event) error { got <- e; return nil })
	}()
	if e := <-got; e.Seq != 1 {
		t.Errorf("first event = %+v", e)
	}
	b.Update(func(s *apitest.State) { s.Events = append(s.Events, api.Event{Seq: 2, Time: now, Reason: "Later"}) })
	if e := <-got; e.Reason != "Later" {
		t.Errorf("second event = %+v", e)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Events = %v after its context ended", err)
	}
}

func TestEventsEndWithTheReadersError(t *testing.T) {
	c := serve(t, apitest.New(state))
	stop := errors.New("enough")
	if err := c.Events(t.Context(), api.EventQuery{Follow: true}, func(api.Event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Events = %v", err)
	}
}

func TestWatch(t *testing.T) {
	b := apitest.New(state)
	c := serve(t, b)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan bool)
	done := make(chan error, 1)
	go func() { done <- c.Watch(ctx, func() { got <- true }) }()
	<-got
	b.Update(func(*apitest.State) {})
	<-got
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Watch = %v", err)
	}
}

// blocked is a Backend whose Apply tells when it began and when its context ended.
type blocked struct {
	api.Backend
	began, ended chan struct{}
}

func (b blocked) Apply(ctx context.Context, _ api.ApplyRequest, on func(api.Event)) (api.ApplyResult, error) {
	on(api.Event{Reason: "Began"})
	close(b.began)
	<-ctx.Done()
	close(b.ended)
	return api.ApplyResult{}, ctx.Err()
}

func TestCancelledRequestEndsInTheDaemon(t *testing.T) {
	b := blocked{apitest.New(state), make(chan struct{}), make(chan struct{})}
	c := serve(t, b)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := c.Apply(ctx, api.ApplyRequest{}, nil)
		done <- err
	}()
	<-b.began
	cancel()
	<-b.ended
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Apply = %v", err)
	}
}

func TestExecEndsWhenTheClientGoes(t *testing.T) {
	s := state
	s.Block = []string{"Exec"}
	c := serve(t, apitest.New(s))
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(ctx, api.ExecRequest{Pod: pod, Command: []string{"sleep"}}, api.Streams{Stdout: w, Stderr: io.Discard})
		done <- err
	}()
	buf := make([]byte, 6)
	if _, err := io.ReadFull(r, buf); err != nil || string(buf) != "hello\n" {
		t.Fatalf("output = %q, %v", buf, err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Exec = %v", err)
	}
	// The cleanup of serve waits for the command: it hangs if the daemon did not notice.
}

func TestExecTerminalSize(t *testing.T) {
	c := serve(t, apitest.New(state))
	resize := make(chan [2]uint, 1)
	resize <- [2]uint{120, 40}
	var out bytes.Buffer
	code, err := c.Exec(t.Context(), api.ExecRequest{Pod: pod, Command: []string{"sh"}, TTY: true}, api.Streams{Stdout: &out, Stderr: io.Discard, Resize: resize})
	if err != nil || code != 3 || out.String() != "hello\n120x40\n" {
		t.Errorf("Exec = %d, %v, output %q", code, err, out.String())
	}
}

func TestDaemonGoesAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := api.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		// A daemon that is killed in the middle of a stream.
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"+`{"event":{"reason":"Began"}}`+"\n")
		conn.Close()
	}()
	c := api.NewClient(path)
	_, err = c.Apply(t.Context(), api.ApplyRequest{}, nil)
	if !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("Apply = %v", err)
	}
	l.Close()
	<-served
	if _, err := c.Status(t.Context()); !errors.Is(err, api.ErrUnavailable) || !strings.Contains(err.Error(), path) {
		t.Errorf("Status = %v", err)
	}
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "run", "s")
	l, err := api.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode().Type() != os.ModeSocket || fi.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", fi.Mode(), err)
	}
	if up, err := api.Listening(t.Context(), path); err != nil || !up {
		t.Errorf("Listening = %v, %v", up, err)
	}
	if _, err := api.Listen(t.Context(), path); !errors.Is(err, api.ErrConflict) {
		t.Errorf("second Listen = %v", err)
	}
	l.Close()
	if up, err := api.Listening(t.Context(), path); err != nil || up {
		t.Errorf("Listening = %v, %v after Close", up, err)
	}

	// What a killed daemon leaves is replaced.
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()
	if up, err := api.Listening(t.Context(), path); err != nil || up {
		t.Errorf("Listening = %v, %v at a dead socket", up, err)
	}
	l, err = api.Listen(t.Context(), path)
	if err != nil {
		t.Fatalf("Listen over a dead socket: %v", err)
	}
	l.Close()

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Listen(t.Context(), file); !errors.Is(err, api.ErrConflict) {
		t.Errorf("Listen over a file = %v", err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "x" {
		t.Errorf("the file became %q, %v", b, err)
	}
	if _, err := api.Listen(t.Context(), filepath.Join(dir, strings.Repeat("x", 120))); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("Listen at a long path = %v", err)
	}
}

func TestFollowedLogsEndWhenTheClientGoes(t *testing.T) {
	s := state
	s.Block = []string{"Logs"}
	c := serve(t, apitest.New(s))
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- c.Logs(ctx, api.LogRequest{Pod: pod, Container: "web", Tail: 1, Follow: true}, w, w)
	}()
	buf := make([]byte, 6)
	if _, err := io.ReadFull(r, buf); err != nil || string(buf) != "three\n" {
		t.Fatalf("log = %q, %v", buf, err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Logs = %v", err)
	}
	// The cleanup of serve waits for the request: it hangs if the daemon did not notice.
}

func TestExecPassesMuchInput(t *testing.T) {
	c := serve(t, apitest.New(state))
	in := bytes.Repeat([]byte("0123456789abcde\n"), 512<<10) // 8 MiB, more than any buffer
	var out bytes.Buffer
	code, err := c.Exec(t.Context(), api.ExecRequest{Pod: pod, Command: []string{"cat"}, Stdin: true}, api.Streams{Stdin: bytes.NewReader(in), Stdout: &out, Stderr: io.Discard})
	if err != nil || code != 3 {
		t.Fatalf("Exec = %d, %v", code, err)
	}
	if want := append([]byte("hello\n"), in...); !bytes.Equal(out.Bytes(), want) {
		t.Errorf("%d bytes came back, not %d", out.Len(), len(want))
	}
}

func TestLargeAnswers(t *testing.T) {
	s := state
	s.Objects, s.Events = nil, nil
	big := []byte(`{"kind":"ConfigMap","data":{"x":"` + strings.Repeat("y", 200) + `"}}`)
	for i := range 50_000 {
		name := "c" + strconv.Itoa(i)
		s.Objects = append(s.Objects, api.Object{Ref: object.Ref{Kind: "ConfigMap", Namespace: "shop", Name: name}, Manifest: big})
		s.Events = append(s.Events, api.Event{Seq: uint64(i + 1), Time: now, Reason: "R", Message: name})
	}
	s.Plan.Applications[0].Plan.Changes[0].Fields = []plan.FieldChange{{Path: "data[x]", New: `"` + strings.Repeat("z", 4<<20) + `"`}}
	c := serve(t, apitest.New(s))
	objs, err := c.Objects(t.Context(), api.Query{})
	if err != nil || len(objs) != len(s.Objects) || objs[49_999].Name != "c49999" {
		t.Errorf("%d objects, %v", len(objs), err)
	}
	n := 0
	if err := c.Events(t.Context(), api.EventQuery{}, func(api.Event) error { n++; return nil }); err != nil || n != len(s.Events) {
		t.Errorf("%d events, %v", n, err)
	}
	p, err := c.Plan(t.Context(), api.PlanRequest{}, nil)
	if err != nil || len(p.Applications[0].Plan.Changes[0].Fields[0].New) != 4<<20+2 {
		t.Errorf("plan: %v", err)
	}
}

func TestOnlyTheOwnerAndRootMayTalk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	dir, err := os.MkdirTemp("", "fairlead-api-") // t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := api.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	connect := func(uid uintptr) (int, error) {
		type result struct {
			fd  int
			err error
		}
		done := make(chan result)
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with its user
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				// This changes the user of this thread only.
				if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
					err = errno
				} else {
					err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
				}
			}
			done <- result{fd, err}
		}()
		r := <-done
		return r.fd, r.err
	}
	if fd, err := connect(65534); !errors.Is(err, unix.EACCES) {
		t.Errorf("another user connects: %v", err)
	} else {
		unix.Close(fd)
	}
	// Even with a mode that lets everybody in.
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		conn, err := l.Accept() // goes on to the one who may
		if err == nil {
			_, err = io.WriteString(conn, "hi")
			conn.Close()
		}
		served <- err
	}()
	read := func(fd int) string {
		defer unix.Close(fd)
		buf := make([]byte, 8)
		n, err := unix.Read(fd, buf)
		if err != nil {
			return err.Error()
		}
		return string(buf[:n])
	}
	fd, err := connect(65534)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(fd); got != "" {
		t.Fatalf("another user got %q", got)
	}
	if fd, err = connect(0); err != nil {
		t.Fatal(err)
	}
	if got := read(fd); got != "hi" {
		t.Errorf("root got %q", got)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

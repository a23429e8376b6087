package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// logs returns a container's log.
func (h *harness) logs(id string, o runtimes.LogOptions) (stdout, stderr string) {
	h.Helper()
	var out, errs bytes.Buffer
	h.ok(h.engine.Logs(h.ctx, id, o, &out, &errs))
	return out.String(), errs.String()
}

// awaitOutput follows a running container's log until stdout contains a text.
func (h *harness) awaitOutput(id, text string) {
	h.Helper()
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	found := &finder{text: text, found: cancel}
	err := h.engine.Logs(ctx, id, runtimes.LogOptions{Follow: true, Tail: -1}, found, io.Discard)
	if !found.ok() {
		h.Fatalf("the container ended without printing %q: %v; it printed %q", text, err, found.b.String())
	}
}

// finder calls found when what is written contains a text.
type finder struct {
	text  string
	found func()
	mu    sync.Mutex
	b     bytes.Buffer
}

func (f *finder) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.b.Write(p)
	if strings.Contains(f.b.String(), f.text) {
		f.found()
	}
	return len(p), nil
}

func (f *finder) ok() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Contains(f.b.String(), f.text)
}

func testExec(h *harness) {
	id := h.run(h.Wait)
	for _, code := range []int{0, 7} {
		r, err := h.engine.Exec(h.ctx, id, h.Exit(code), 100)
		h.ok(err)
		if d := cmp.Diff(runtimes.ExecResult{ExitCode: code}, r, cmpopts.EquateEmpty()); d != "" {
			h.Errorf("exit %d (-want +got):\n%s", code, d)
		}
	}
	r, err := h.engine.Exec(h.ctx, id, h.Print("from stdout", "from stderr"), 100)
	h.ok(err)
	if s := string(r.Output); r.ExitCode != 0 || !strings.Contains(s, "from stdout\n") || !strings.Contains(s, "from stderr\n") {
		h.Errorf("got %+v", r)
	}
	long := strings.Repeat("x", 5000)
	r, err = h.engine.Exec(h.ctx, id, h.Print(long, ""), 1000)
	h.ok(err)
	if r.ExitCode != 0 || len(r.Output) != 1000 {
		h.Errorf("cut at 1000, got exit code %d and %d bytes", r.ExitCode, len(r.Output))
	}
	r, err = h.engine.Exec(h.ctx, id, []string{"/no/such/program"}, 1000)
	h.ok(err)
	if r.ExitCode != 126 && r.ExitCode != 127 || len(r.Output) == 0 {
		h.Errorf("a program that is not there ended with %d and the output %q, want 126 or 127 and why", r.ExitCode, r.Output)
	}
	w := h.watch(h.engine)
	h.ok(h.engine.Kill(h.ctx, id, "SIGKILL"))
	w.await(runtimes.EventDie, id)
	_, err = h.engine.Exec(h.ctx, id, h.Exit(0), 100)
	h.is(err, runtimes.ErrConflict)
	h.ok(h.engine.Remove(h.ctx, id))
	_, err = h.engine.Exec(h.ctx, id, h.Exit(0), 100)
	h.is(err, runtimes.ErrNotFound)
}

func testExecGivenUp(h *harness) {
	id := h.run(h.Wait)
	ctx, cancel := context.WithTimeout(h.ctx, 300*time.Millisecond)
	defer cancel()
	_, err := h.engine.Exec(ctx, id, h.Wait, 100)
	if !errors.Is(err, context.DeadlineExceeded) {
		h.Fatalf("error is %v, want %v", err, context.DeadlineExceeded)
	}
	if h.ctx.Err() != nil {
		h.Fatal("it was not given up")
	}
}

func testAttach(h *harness) {
	id := h.run(h.Wait)
	var out, errs bytes.Buffer
	code, err := h.engine.Attach(h.ctx, id, h.Print("to stdout", "to stderr"), runtimes.ExecOptions{Stdout: &out, Stderr: &errs})
	h.ok(err)
	if code != 0 || out.String() != "to stdout\n" || errs.String() != "to stderr\n" {
		h.Errorf("got exit code %d, stdout %q, stderr %q", code, out.String(), errs.String())
	}
	code, err = h.engine.Attach(h.ctx, id, h.Exit(42), runtimes.ExecOptions{})
	h.ok(err)
	if code != 42 {
		h.Errorf("got exit code %d, want 42", code)
	}
	// More than fits into any buffer on the way, so that both directions have to flow at once.
	text := strings.Repeat("a line that is copied\n", 20000)
	out.Reset()
	code, err = h.engine.Attach(h.ctx, id, h.Copy, runtimes.ExecOptions{Stdin: strings.NewReader(text), Stdout: &out, Stderr: io.Discard})
	h.ok(err)
	if code != 0 || out.String() != text {
		h.Errorf("copied %d bytes into %d, exit code %d", len(text), out.Len(), code)
	}
	// A command that does not read its stdin ends although nobody closes it.
	blocked, unblock := io.Pipe()
	defer unblock.Close()
	code, err = h.engine.Attach(h.ctx, id, h.Exit(5), runtimes.ExecOptions{Stdin: blocked, Stdout: io.Discard, Stderr: io.Discard})
	h.ok(err)
	if code != 5 {
		h.Errorf("got exit code %d, want 5", code)
	}
	// What cannot be started is no command that ended with a code of its own.
	for _, tty := range []bool{false, true} {
		out.Reset()
		errs.Reset()
		_, err = h.engine.Attach(h.ctx, id, []string{"/no/such/program"}, runtimes.ExecOptions{Stdout: &out, Stderr: &errs, TTY: tty})
		h.is(err, runtimes.ErrInvalid)
		if err != nil && !strings.Contains(err.Error(), "no such file") || out.String()+errs.String() != "" {
			h.Errorf("a program that is not there, terminal %t: error %v, stdout %q, stderr %q", tty, err, out.String(), errs.String())
		}
	}
	for _, code := range []int{126, 127} {
		got, err := h.engine.Attach(h.ctx, id, h.Exit(code), runtimes.ExecOptions{})
		h.ok(err)
		if got != code {
			h.Errorf("got exit code %d, want %d", got, code)
		}
	}
	_, err = h.engine.Attach(h.ctx, strings.Repeat("0", 64), h.Exit(0), runtimes.ExecOptions{})
	h.is(err, runtimes.ErrNotFound)
}

func testAttachTTY(h *harness) {
	id := h.run(h.Wait)
	resize := make(chan [2]uint, 1)
	resize <- [2]uint{100, 40}
	var out bytes.Buffer
	code, err := h.engine.Attach(h.ctx, id, h.Print("one", "two"), runtimes.ExecOptions{Stdout: &out, TTY: true, Resize: resize})
	h.ok(err)
	if code != 0 || out.String() != "one\r\ntwo\r\n" {
		h.Errorf("got exit code %d and %q", code, out.String())
	}
}

func testLogs(h *harness) {
	id := h.finish(h.Print("first\nsecond\nthird", "wrong"))
	o, e := h.logs(id, runtimes.LogOptions{Tail: -1})
	if o != "first\nsecond\nthird\n" || e != "wrong\n" {
		h.Errorf("got stdout %q, stderr %q", o, e)
	}
	o, e = h.logs(id, runtimes.LogOptions{Tail: 0})
	if o+e != "" {
		h.Errorf("the last 0 lines are %q", o+e)
	}
	o, e = h.logs(id, runtimes.LogOptions{Tail: 2})
	if strings.Count(o+e, "\n") != 2 {
		h.Errorf("the last 2 lines are %q", o+e)
	}
	o, _ = h.logs(id, runtimes.LogOptions{Tail: -1, Timestamps: true})
	for line := range strings.Lines(o) {
		when, _, _ := strings.Cut(line, " ")
		if _, err := time.Parse(time.RFC3339Nano, when); err != nil {
			h.Errorf("line %q: %v", line, err)
		}
	}
	o, e = h.logs(id, runtimes.LogOptions{Tail: -1, Since: time.Now().Add(time.Hour)})
	if o+e != "" {
		h.Errorf("since in an hour: %q", o+e)
	}
	o, _ = h.logs(id, runtimes.LogOptions{Tail: -1, Since: time.Now().Add(-time.Hour)})
	if o != "first\nsecond\nthird\n" {
		h.Errorf("since an hour ago: %q", o)
	}
	h.ok(h.engine.Remove(h.ctx, id))
	h.is(h.engine.Logs(h.ctx, id, runtimes.LogOptions{Tail: -1}, io.Discard, io.Discard), runtimes.ErrNotFound)
}

func testLogsTTY(h *harness) {
	id := h.finish(h.Print("one", "two"), func(s *runtimes.ContainerSpec) { s.TTY = true })
	if o, e := h.logs(id, runtimes.LogOptions{Tail: -1}); o != "one\r\ntwo\r\n" || e != "" {
		h.Errorf("got stdout %q, stderr %q", o, e)
	}
}

func testLogsFollow(h *harness) {
	id := h.run(h.PrintAndWait("hello", "there"))
	h.awaitOutput(id, "hello\n")
	h.ok(h.engine.Kill(h.ctx, id, "SIGTERM"))
	// Following ends with the container.
	o, e := h.logs(id, runtimes.LogOptions{Tail: -1, Follow: true})
	if o != "hello\n" || e != "there\n" {
		h.Errorf("got stdout %q, stderr %q", o, e)
	}
}

func testEvents(h *harness) {
	sandbox := h.sandbox(h.engine)
	w := h.watch(h.engine)
	spec := h.spec(sandbox, h.Exit(3))
	id, err := h.engine.Create(h.ctx, spec)
	h.ok(err)
	h.ok(h.engine.Start(h.ctx, id))
	w.await(runtimes.EventDie, id)
	h.ok(h.engine.Remove(h.ctx, id))
	w.await(runtimes.EventRemove, id)
	if first := w.all()[0]; first.Kind != runtimes.EventGap {
		h.Errorf("the first event is %+v, want a gap", first)
	}
	var got []string
	for _, ev := range w.all() {
		if ev.Kind == runtimes.EventGap {
			continue
		}
		got = append(got, fmt.Sprintf("%s %s attempt %d exit code %d", ev.Kind, ev.Identity.Container, ev.Identity.Attempt, ev.ExitCode))
		if ev.ContainerID != id || ev.Identity.Pod != spec.Pod || ev.Identity.UID != spec.UID || ev.Time.IsZero() {
			h.Errorf("incomplete: %+v", ev)
		}
	}
	want := []string{"start main attempt 0 exit code 0", "die main attempt 0 exit code 3", "remove main attempt 0 exit code 0"}
	if d := cmp.Diff(want, got); d != "" {
		h.Errorf("events (-want +got):\n%s", d)
	}
}

func testEventsGap(h *harness) {
	if h.Disconnect == nil {
		h.Skip("the fixture cannot break connections")
	}
	sandbox := h.sandbox(h.engine)
	w := h.watch(h.engine)
	h.Disconnect(h.T)
	w.await(runtimes.EventGap, "")
	id, err := h.engine.Create(h.ctx, h.spec(sandbox, h.Exit(0)))
	h.ok(err)
	h.ok(h.engine.Start(h.ctx, id))
	w.await(runtimes.EventDie, id)
}

package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/httpserve"
)

const (
	// writeTimeout is how long a reader may stall before its request is given up, so that a stopped
	// terminal never holds up the daemon.
	writeTimeout = 10 * time.Second
	// closeTimeout is how long Serve waits for requests to notice that it ends.
	closeTimeout = 3 * time.Second
	// aliveEvery is how often exec looks whether its client is still there. Reading shows it at once, but
	// the reader stands still while the command does not take its input.
	aliveEvery  = 2 * time.Second
	maxBody     = 32 << 20
	upgradeName = "fairlead-exec/1"
	typeNDJSON  = "application/x-ndjson"
	typeFrames  = "application/vnd.fairlead.frames"
)

// line is one line of a stream: exactly one field is set, and a line with Result, Error or End is the last.
type line struct {
	Event   *Event          `json:"event,omitempty"`
	Changed bool            `json:"changed,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *Error          `json:"error,omitempty"`
	End     bool            `json:"end,omitempty"`
}

// Serve answers requests on l until ctx ends; then every request's context ends too, and Serve
// returns when they are over. It closes l.
func Serve(ctx context.Context, l net.Listener, b Backend) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &server{b: b, aliveEvery: aliveEvery}
	srv := &http.Server{
		Handler:           s.handler(),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withPeer,
		ReadHeaderTimeout: 10 * time.Second,
	}
	err := httpserve.Until(ctx, srv, l, closeTimeout)
	cancel() // what goes on after an error of the listener
	s.upgraded.Wait()
	return err
}

type server struct {
	b          Backend
	aliveEvery time.Duration
	upgraded   sync.WaitGroup // exec connections, which http.Server does not wait for
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	b := s.b
	mux.Handle("GET /v1/status", call(func(ctx context.Context, _ struct{}) (Status, error) { return b.Status(ctx) }))
	mux.Handle("GET /v1/applications", call(func(ctx context.Context, _ struct{}) ([]Application, error) { return b.Applications(ctx) }))
	mux.Handle("GET /v1/sources", call(func(ctx context.Context, _ struct{}) ([]Source, error) { return b.Sources(ctx) }))
	mux.Handle("GET /v1/images", call(func(ctx context.Context, _ struct{}) (Images, error) { return b.Images(ctx) }))
	mux.Handle("POST /v1/objects", call(b.Objects))
	mux.Handle("POST /v1/pods", call(b.Pods))
	mux.Handle("POST /v1/services", call(b.Services))
	mux.Handle("POST /v1/describe", call(b.Describe))
	mux.Handle("POST /v1/reconcile", call(func(ctx context.Context, r reconcileRequest) (struct{}, error) {
		return struct{}{}, b.Reconcile(ctx, r.Applications)
	}))
	mux.Handle("POST /v1/approve", call(b.Approve))
	mux.Handle("POST /v1/access", call(b.Access))
	mux.Handle("POST /v1/suspend", call(b.Suspend))
	mux.Handle("POST /v1/resume", call(b.Resume))
	mux.Handle("POST /v1/notifications/test", call(b.TestNotification))
	mux.Handle("POST /v1/plan", progress(b.Plan))
	mux.Handle("POST /v1/preview", call(b.Preview))
	mux.Handle("POST /v1/apply", progress(b.Apply))
	mux.Handle("POST /v1/down", progress(b.Down))
	mux.Handle("POST /v1/events", stream(func(ctx context.Context, q EventQuery, send func(line) error) error {
		return b.Events(ctx, q, func(e Event) error { return send(line{Event: &e}) })
	}))
	mux.Handle("POST /v1/watch", stream(func(ctx context.Context, _ struct{}, send func(line) error) error {
		return b.Watch(ctx, func() { _ = send(line{Changed: true}) })
	}))
	mux.HandleFunc("POST /v1/logs", s.logs)
	mux.HandleFunc("POST /v1/exec", s.exec)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, &Error{Code: CodeNotFound, Message: "this fairlead does not know " + r.Method + " " + r.URL.Path + "; the command and the daemon may be of different versions"})
	})
	return mux
}

type reconcileRequest struct {
	Applications []string `json:"applications,omitempty"`
}

// request reads the body. A field that this version does not know is an error, since leaving it out
// could do more than was asked for.
func request[Q any](w http.ResponseWriter, r *http.Request) (q Q, ok bool) {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil && !errors.Is(err, io.EOF) {
		writeError(w, &Error{Code: CodeInvalid, Message: "read the request: " + err.Error()})
		return q, false
	}
	return q, true
}

func writeError(w http.ResponseWriter, e *Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.status())
	_ = json.NewEncoder(w).Encode(line{Error: e})
}

// call answers with one JSON value.
func call[Q, R any](f func(context.Context, Q) (R, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, ok := request[Q](w, r)
		if !ok {
			return
		}
		res, err := f(r.Context(), q)
		if err != nil {
			writeError(w, ErrorFrom(err))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(res)
	}
}

// stream answers with lines and a last line that says how it ended. When the client goes away or
// stalls, the context of f ends.
func stream[Q any](f func(ctx context.Context, q Q, send func(line) error) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, ok := request[Q](w, r)
		if !ok {
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		w.Header().Set("Content-Type", typeNDJSON)
		out := &flusher{w: w, rc: http.NewResponseController(w)}
		defer out.done()
		var mu sync.Mutex
		enc := json.NewEncoder(out)
		send := func(l line) error {
			mu.Lock()
			defer mu.Unlock()
			err := enc.Encode(l)
			if err == nil {
				err = out.flush()
			}
			if err != nil {
				cancel()
			}
			return err
		}
		// The headers go out at once: the client waits for them before it waits for the first line.
		if out.flush() != nil {
			return
		}
		last := line{End: true}
		if err := f(ctx, q, send); err != nil {
			last = line{Error: ErrorFrom(err)}
		}
		_ = send(last)
	}
}

// progress answers with events and a last line that holds the result or the error.
func progress[Q, R any](f func(context.Context, Q, func(Event)) (R, error)) http.HandlerFunc {
	return stream(func(ctx context.Context, q Q, send func(line) error) error {
		res, err := f(ctx, q, func(e Event) { _ = send(line{Event: &e}) })
		if err != nil {
			return err
		}
		b, err := json.Marshal(res)
		if err != nil {
			return err
		}
		return send(line{Result: b})
	})
}

// flusher puts a deadline on every write.
type flusher struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func (f *flusher) Write(p []byte) (int, error) {
	if err := f.rc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return f.w.Write(p)
}

func (f *flusher) flush() error { return f.rc.Flush() }

// done flushes and takes the deadline off again: the connection serves other requests.
func (f *flusher) done() {
	_ = f.rc.Flush()
	_ = f.rc.SetWriteDeadline(time.Time{})
}

func (s *server) logs(w http.ResponseWriter, r *http.Request) {
	q, ok := request[LogRequest](w, r)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", typeFrames)
	out := &flusher{w: w, rc: http.NewResponseController(w)}
	defer out.done()
	if out.flush() != nil {
		return
	}
	fw := &frameWriter{w: out, flush: out.flush}
	err := s.b.Logs(r.Context(), q, fw.stream(frameStdout), fw.stream(frameStderr))
	fw.end(end{Error: ErrorFrom(err)})
}

func (f *frameWriter) end(e end) {
	b, _ := json.Marshal(e) // strings and numbers only
	_ = f.frame(frameEnd, b)
}

// exec turns the connection into frames in both directions.
func (s *server) exec(w http.ResponseWriter, r *http.Request) {
	q, ok := request[ExecRequest](w, r)
	if !ok {
		return
	}
	if r.Header.Get("Upgrade") != upgradeName {
		writeError(w, &Error{Code: CodeInvalid, Message: "exec needs the header Upgrade: " + upgradeName})
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	s.upgraded.Add(1)
	defer s.upgraded.Done()
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", upgradeName)
	w.WriteHeader(http.StatusSwitchingProtocols)
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	// Closing the connection ends the reader below, also when the daemon stops.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	stdinR, stdinW := io.Pipe()
	resize := make(chan [2]uint, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(resize)
		err := readInput(ctx, buf, stdinW, resize)
		stdinW.CloseWithError(err)
		cancel() // the client is gone
	}()
	fw := &frameWriter{w: conn}
	alive := make(chan struct{})
	go func() {
		defer close(alive)
		tick := time.NewTicker(s.aliveEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if fw.frame(frameAlive, nil) != nil {
				cancel()
				stdinR.Close()
				return
			}
		}
	}()
	streams := Streams{Stdin: stdinR, Stdout: fw.stream(frameStdout), Stderr: fw.stream(frameStderr)}
	if !q.Stdin {
		streams.Stdin = nil
	}
	if q.TTY {
		streams.Resize = resize
	}
	code, err := s.b.Exec(ctx, q, streams)
	fw.end(end{ExitCode: code, Error: ErrorFrom(err)})
	stdinR.Close() // the reader may wait in a write to a command that is over
	conn.Close()
	<-read // its end ends the other one too
	<-alive
}

// readInput hands on what the client sends until the connection ends.
func readInput(ctx context.Context, r io.Reader, stdin *io.PipeWriter, resize chan [2]uint) error {
	for {
		kind, p, err := readFrame(r)
		if err != nil {
			return err
		}
		switch kind {
		case frameStdin:
			// A command that no longer reads does not end the connection.
			_, _ = stdin.Write(p)
		case frameStdinEOF:
			stdin.Close()
		case frameResize:
			if len(p) != 8 {
				continue
			}
			size := parseResize(p)
			select {
			case <-resize: // only the newest size counts
			default:
			}
			select {
			case resize <- size:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

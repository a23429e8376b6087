// Package engineproxy stands between a program and a real Docker engine, for tests: it counts the calls, and does to
// each what a test's script says. It ends the program before, during or after a call, and fails, drops, delays or
// doubles an answer.
//
// Connections that are taken over (exec, attach) and streams (events, logs, pulls) pass through as they come.
package engineproxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Call is one request to the engine.
type Call struct {
	// Number counts the calls that change something, from 1; it is 0 for all others.
	Number int
	// Kind is the method and the path, with ID in the place of what differs from run to run: "POST containers/ID/start".
	Kind string
	// Path is the path and the query as they were asked for.
	Path string
}

// String is the number and the kind.
func (c Call) String() string { return fmt.Sprintf("call %d (%s)", c.Number, c.Kind) }

// Mutates reports whether calls of the kind change what the engine holds. Commands in containers do not count.
func (c Call) Mutates() bool {
	method, path, _ := strings.Cut(c.Kind, " ")
	return method != http.MethodGet && method != http.MethodHead && !strings.Contains(path, "exec")
}

// Archive reports whether a call is one of the archive API, which copies files into containers or out of them.
func (c Call) Archive() bool {
	path, _, _ := strings.Cut(c.Path, "?")
	return strings.HasSuffix(path, "/archive") || strings.HasSuffix(path, "/copy") || strings.HasSuffix(path, "/export")
}

// Moment is when the program is ended.
type Moment string

// The moments.
const (
	Never  Moment = ""
	Before Moment = "before" // the engine does not hear of the call
	During Moment = "during" // the engine has the call and has not answered
	After  Moment = "after"  // the engine has answered and the program has not heard it
)

// Answer is what becomes of the engine's answer.
type Answer string

// The answers.
const (
	Pass      Answer = ""
	Drop      Answer = "dropped"   // the connection is closed instead; the engine did as it was asked
	Refuse    Answer = "refused"   // the connection is closed, and the engine hears nothing
	Late      Answer = "delayed"   // it comes Delay later
	Twice     Answer = "doubled"   // the engine is asked twice, and the second answer is passed; of an event, each line comes twice
	Error     Answer = "error"     // 500, and the engine hears nothing
	Lie       Answer = "lie"       // 500, though the engine did as it was asked
	Conflict  Answer = "conflict"  // 409, and the engine hears nothing
	Truncated Answer = "truncated" // its first half, then the connection is closed
)

// Fault is what happens to a call.
type Fault struct {
	Kill   Moment
	Answer Answer
	Delay  time.Duration
}

// Proxy is a unix socket that passes to an engine.
type Proxy struct {
	path    string
	forward *httputil.ReverseProxy
	engine  *http.Transport
	server  *http.Server
	served  chan error
	stop    context.CancelFunc

	mu     sync.Mutex
	number int
	calls  []Call
	script func(Call) Fault
	kill   func()
}

// New listens at a path, for the engine at another.
func New(path, engine string) (*Proxy, error) {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("stand before the engine: %w", err)
	}
	p := &Proxy{path: path, served: make(chan error, 1)}
	p.engine = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", engine)
		},
		MaxIdleConnsPerHost: 32, DisableCompression: true,
	}
	p.forward = &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "engine" },
		FlushInterval: -1, Transport: p.engine,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	p.server = &http.Server{BaseContext: func(net.Listener) context.Context { return ctx }, Handler: http.HandlerFunc(p.serve)}
	go func() { p.served <- p.server.Serve(listener) }()
	return p, nil
}

// Host is the address for DOCKER_HOST.
func (p *Proxy) Host() string { return "unix://" + p.path }

// Close ends all connections.
func (p *Proxy) Close() error {
	p.stop()
	err := p.server.Close()
	if e := <-p.served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	p.engine.CloseIdleConnections()
	if e := os.Remove(p.path); e != nil && !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

// Begin counts from 1 again. script says what happens to each call; it is asked once for each and may be nil. kill ends
// the program, and returns when it has ended.
func (p *Proxy) Begin(script func(Call) Fault, kill func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.number, p.calls, p.script, p.kill = 0, nil, script, kill
}

// Calls returns the calls since Begin, in the order in which they came.
func (p *Proxy) Calls() []Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Call(nil), p.calls...)
}

// anyID is what differs from run to run in a path.
var anyID = regexp.MustCompile(`[0-9a-f]{64}|sha256:[0-9a-f]+|fltg?[0-9a-f]{10}[a-z0-9_.-]*`)

func (p *Proxy) take(r *http.Request) (Call, Fault, func()) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	if version, rest, ok := strings.Cut(path, "/"); ok && strings.HasPrefix(version, "v1.") {
		path = rest
	}
	c := Call{Kind: r.Method + " " + anyID.ReplaceAllString(path, "ID"), Path: r.URL.RequestURI()}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.Mutates() {
		p.number++
		c.Number = p.number
	}
	p.calls = append(p.calls, c)
	if p.script == nil {
		return c, Fault{}, p.kill
	}
	return c, p.script(c), p.kill
}

// streams reports whether an answer goes on and on, or the connection is taken over.
func streams(r *http.Request, c Call) bool {
	return r.Header.Get("Upgrade") != "" || strings.HasSuffix(c.Kind, " events") || strings.HasSuffix(c.Kind, "/logs") ||
		strings.HasSuffix(c.Kind, "/wait") || c.Kind == "POST images/create"
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	c, f, kill := p.take(r)
	switch {
	case f.Kill == Before:
		kill()
		panic(http.ErrAbortHandler)
	case f.Answer == Refuse:
		panic(http.ErrAbortHandler)
	case f.Answer == Error, f.Answer == Conflict:
		refuse(w, f.Answer)
		return
	case f == Fault{}:
		p.forward.ServeHTTP(w, r)
	case strings.HasSuffix(c.Kind, " events"):
		p.events(w, r, f)
	case streams(r, c) && f.Answer == Drop:
		panic(http.ErrAbortHandler)
	case streams(r, c) && f.Kill == Never:
		p.forward.ServeHTTP(w, r)
	default:
		p.answer(w, r, c, f, kill)
	}
}

// refuse answers in the engine's place.
func refuse(w http.ResponseWriter, a Answer) {
	code := http.StatusInternalServerError
	if a == Conflict {
		code = http.StatusConflict
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, `{"message":"the test says so"}`) // a program that went away is none of the test
}

// answer is an answer of the engine as a whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// ask passes a request to the engine. sent, if not nil, is called when the engine has all of it.
func (p *Proxy) ask(r *http.Request, body []byte, sent func()) (*answer, error) {
	ctx := r.Context()
	if sent != nil {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { sent() }})
	}
	out := r.Clone(ctx)
	out.RequestURI, out.URL.Scheme, out.URL.Host = "", "http", "engine"
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	resp, err := p.engine.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	a := &answer{status: resp.StatusCode, header: resp.Header}
	a.body, err = io.ReadAll(resp.Body)
	return a, err
}

// answer passes a call whose answer has an end, and does to it what the fault says.
func (p *Proxy) answer(w http.ResponseWriter, r *http.Request, c Call, f Fault, kill func()) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	var sent func()
	if f.Kill == During {
		sent = sync.OnceFunc(kill)
	}
	a, err := p.ask(r, body, sent)
	if err == nil && f.Answer == Twice {
		a, err = p.ask(r, body, nil)
	}
	if err != nil || f.Kill == During {
		panic(http.ErrAbortHandler)
	}
	switch {
	case f.Kill == After:
		kill()
		panic(http.ErrAbortHandler)
	case f.Answer == Drop:
		panic(http.ErrAbortHandler)
	case f.Answer == Lie:
		refuse(w, Error)
		return
	case f.Answer == Late:
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
		}
	case f.Answer == Truncated:
		a.header.Set("Content-Length", fmt.Sprint(len(a.body)))
		a.body = a.body[:len(a.body)/2]
		a.write(w)
		panic(http.ErrAbortHandler)
	}
	a.write(w)
}

func (a *answer) write(w http.ResponseWriter) {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // a program that went away is none of the test
}

// events passes the engine's events line by line: dropped, each line is lost; doubled, each comes twice; delayed, each
// comes later; truncated, the stream ends after the first.
func (p *Proxy) events(w http.ResponseWriter, r *http.Request, f Fault) {
	out := r.Clone(r.Context())
	out.RequestURI, out.URL.Scheme, out.URL.Host = "", "http", "engine"
	resp, err := p.engine.RoundTrip(out)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	flush := http.NewResponseController(w).Flush
	_ = flush()
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		copies := 1
		switch f.Answer {
		case Drop:
			copies = 0
		case Twice:
			copies = 2
		case Late:
			select {
			case <-time.After(f.Delay):
			case <-r.Context().Done():
			}
		case Truncated:
			_, _ = w.Write(line[:len(line)/2])
			panic(http.ErrAbortHandler)
		case Pass, Refuse, Error, Lie, Conflict:
		}
		for range copies {
			_, _ = w.Write(line)
		}
		_ = flush()
	}
}

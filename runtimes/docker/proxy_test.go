package docker

import (
	"context"
	"crypto/sha256"
	"net"
	"net/http"
	"net/http/httputil"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker/client"
)

// proxy stands before the real engine: it notes every request, and may answer in the engine's place.
type proxy struct {
	host string

	mu       sync.Mutex
	requests []string
	// instead answers a request itself and returns true; the request is "METHOD path" as it is noted.
	instead func(w http.ResponseWriter, r *http.Request, request string) bool
}

// anyID is what differs from run to run in a request.
var anyID = regexp.MustCompile(`[0-9a-f]{64}|fltg?[0-9a-f]{10}[a-z0-9_.-]*`)

// newProxy starts a proxy, for the time of the test.
func newProxy(t testing.TB) *proxy {
	t.Helper()
	p := &proxy{host: "unix://" + filepath.Join(t.TempDir(), "s")}
	listener, err := net.Listen("unix", strings.TrimPrefix(p.host, "unix://"))
	if err != nil {
		t.Fatal(err)
	}
	engine, err := client.NewClientWithOpts(client.FromEnv)
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return engine.Dialer()(ctx) }, MaxIdleConnsPerHost: 32,
	}
	forward := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "engine" },
		FlushInterval: -1, Transport: transport,
	}
	ctx, cancel := context.WithCancel(context.Background())
	server := &http.Server{
		BaseContext: func(net.Listener) context.Context { return ctx },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, path, _ := strings.Cut(r.URL.Path, "/v1.41/")
			request := r.Method + " " + anyID.ReplaceAllString(path, "ID")
			if path == "" {
				request = r.Method + " " + r.URL.Path
			}
			p.mu.Lock()
			p.requests = append(p.requests, request)
			instead := p.instead
			p.mu.Unlock()
			if instead == nil || !instead(w, r, request) {
				forward.ServeHTTP(w, r)
			}
		}),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		cancel()
		server.Close()
		<-served
		transport.CloseIdleConnections()
	})
	return p
}

// take returns the requests since the last call.
func (p *proxy) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.requests
	p.requests = nil
	return slices.Clone(out)
}

func (p *proxy) answer(instead func(w http.ResponseWriter, r *http.Request, request string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.instead = instead
}

// open opens the engine behind the proxy as an installation.
func (p *proxy) open(t testing.TB, installation string, change ...func(*Options)) *Engine {
	t.Helper()
	key := sha256.Sum256([]byte(installation))
	o := Options{Host: p.host, Key: key[:], Installation: installation}
	for _, c := range change {
		c(&o)
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

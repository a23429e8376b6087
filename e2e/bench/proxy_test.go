package bench

import (
	"context"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/client"
)

// proxy stands between fairlead and the engine and writes down every request.
type proxy struct {
	// host is its address, in the form of DOCKER_HOST.
	host string

	mu   sync.Mutex
	seen []request
}

// request is one request to the engine. Streams, such as events, last until somebody ends them.
type request struct {
	method, path string // without the version, and with ids replaced
	query        string
	began        time.Time
	took         time.Duration
}

// String is what kind of request it is.
func (r request) String() string { return r.method + " " + r.path }

var (
	versionInPath = regexp.MustCompile(`^/v1\.\d+`)
	nameInPath    = regexp.MustCompile(`^/(containers|images|networks|exec|volumes)/(.+?)(/(json|start|stop|kill|wait|update|logs|exec|attach|resize|tag|rename|pause|unpause))?$`)
)

// kind makes requests for the same thing equal.
func kind(path string) string {
	path = versionInPath.ReplaceAllString(path, "")
	m := nameInPath.FindStringSubmatch(path)
	if m == nil || m[2] == "json" || m[2] == "create" || m[2] == "prune" {
		return path
	}
	return "/" + m[1] + "/ID" + m[3]
}

// newProxy serves on a socket until the benchmark ends.
func newProxy(b testing.TB) *proxy {
	b.Helper()
	target := os.Getenv("DOCKER_HOST")
	if target == "" {
		target = client.DefaultDockerHost
	}
	u, err := url.Parse(target)
	if err != nil || u.Scheme != "unix" {
		b.Skipf("requests can be counted only on a unix socket, and the engine is at %s", target)
	}
	dir, err := os.MkdirTemp("", "fairlead-bench-") // a socket's path must be short
	if err != nil {
		b.Fatal(err)
	}
	socket := filepath.Join(dir, "engine.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		b.Fatal(err)
	}
	p := &proxy{host: "unix://" + socket}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", u.Path)
		},
		MaxIdleConns: 64, MaxIdleConnsPerHost: 64, DisableCompression: true,
	}
	forward := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "docker" },
		Transport: transport, FlushInterval: -1,
		ErrorLog: log.New(io.Discard, "", 0), // whoever asked is told
	}
	ctx, cancel := context.WithCancel(context.Background())
	server := &http.Server{
		BaseContext: func(net.Listener) context.Context { return ctx },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			i := p.begin(request{method: r.Method, path: kind(r.URL.Path), query: r.URL.RawQuery, began: time.Now()})
			defer p.end(i)
			forward.ServeHTTP(w, r)
		}),
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) }) // ends when it is closed
	b.Cleanup(func() {
		cancel()
		server.Close()
		serving.Wait()
		transport.CloseIdleConnections()
		os.RemoveAll(dir)
	})
	return p
}

func (p *proxy) begin(r request) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = append(p.seen, r)
	return len(p.seen) - 1
}

func (p *proxy) end(i int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i < len(p.seen) {
		p.seen[i].took = time.Since(p.seen[i].began)
	}
}

// since returns the requests that began at or after a time.
func (p *proxy) since(at time.Time) []request {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []request
	for _, r := range p.seen {
		if !r.began.Before(at) {
			out = append(out, r)
		}
	}
	return out
}

// first waits for the first request that fits and began at or after a time.
func (p *proxy) first(b *testing.B, at time.Time, fits func(request) bool) request {
	b.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if all := p.since(at); slices.ContainsFunc(all, fits) {
			return all[slices.IndexFunc(all, fits)]
		}
	}
	b.Fatal("a request to the engine was expected and did not come within a minute")
	return request{}
}

// table counts requests by kind, with the median of the time that each took.
func table(all []request) string {
	took := map[string]series{}
	for _, r := range all {
		took[r.String()] = append(took[r.String()], r.took)
	}
	var lines []string
	for _, kind := range slices.Sorted(maps.Keys(took)) {
		lines = append(lines, fmt.Sprintf("    %4d × %-36s median %7.1f ms", len(took[kind]), kind, millis(took[kind].median())))
	}
	return strings.Join(lines, "\n")
}

func TestKind(t *testing.T) {
	for path, want := range map[string]string{
		"/v1.41/containers/json":                     "/containers/json",
		"/containers/create":                         "/containers/create",
		"/v1.41/containers/0a1b/json":                "/containers/ID/json",
		"/v1.41/containers/0a1b":                     "/containers/ID",
		"/v1.41/images/fairlead-test/program:1/json": "/images/ID/json",
		"/v1.41/networks/x":                          "/networks/ID",
		"/_ping":                                     "/_ping",
		"/v1.41/events":                              "/events",
	} {
		if got := kind(path); got != want {
			t.Errorf("kind(%q) = %q, want %q", path, got, want)
		}
	}
}

package probes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
)

// attempt makes one probe; PORT in its text stands for the port.
func attempt(t *testing.T, r *Runner, probe string, port int) (Outcome, error) {
	t.Helper()
	text := strings.ReplaceAll(probe, "PORT", strconv.Itoa(port))
	c := container(t, fmt.Sprintf("{ports: [{name: web, containerPort: %d}], livenessProbe: %s}", port, text))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	return r.Probe(ctx, c.LivenessProbe, c, Target{IP: "127.0.0.1", ContainerID: "id"})
}

func portOf(t *testing.T, addr net.Addr) int {
	t.Helper()
	return addr.(*net.TCPAddr).Port
}

// closedPort is a port that nobody listens on.
func closedPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return portOf(t, l.Addr())
}

func TestHTTP(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.PathValue("code"))
		w.WriteHeader(code)
		fmt.Fprint(w, "the answer")
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) {
		for name, want := range map[string]string{"X-Test": "a", "User-Agent": "fairlead-probe", "Accept": "*/*"} {
			if got := r.Header.Get(name); got != want {
				http.Error(w, fmt.Sprintf("%s is %q", name, got), http.StatusBadRequest)
			}
		}
	})
	mux.HandleFunc("/host", func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "shop.example.com" || r.Header.Get("User-Agent") != "mine" || r.Header["Accept"] != nil {
			http.Error(w, fmt.Sprint(r.Host, r.Header), http.StatusBadRequest)
		}
	})
	mux.HandleFunc("/query", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "a=b" {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/here", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/status/200", http.StatusFound) })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/status/500", http.StatusFound) })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusFound)
	})
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, strings.Repeat("x", 1<<20))
	})
	plain := httptest.NewServer(mux)
	defer plain.Close()
	secure := httptest.NewTLSServer(mux)
	defer secure.Close()
	r := NewRunner(nil)
	for _, tt := range []struct {
		name, probe string
		secure      bool
		ok          bool
		message     string // part of it
		err         string
	}{
		{name: "200", probe: `{httpGet: {path: /status/200, port: PORT}}`, ok: true},
		{name: "without a slash", probe: `{httpGet: {path: status/204, port: PORT}}`, ok: true},
		{name: "named port", probe: `{httpGet: {path: /status/200, port: web}}`, ok: true},
		{name: "port as text", probe: `{httpGet: {path: /status/200, port: "PORT"}}`, ok: true},
		{name: "unknown port", probe: `{httpGet: {path: /, port: absent}}`, err: `container app has no port named "absent"`},
		{name: "no port", probe: `{httpGet: {path: /, port: 0}}`, err: "0 is not a port"},
		{name: "host", probe: `{httpGet: {host: localhost, path: /status/200, port: PORT}}`, ok: true},
		{name: "399", probe: `{httpGet: {path: /status/399, port: PORT}}`, ok: true, message: "status 399, which counts as success"},
		{name: "400", probe: `{httpGet: {path: /status/400, port: PORT}}`, message: "answered with status 400: the answer"},
		{name: "503", probe: `{httpGet: {path: /status/503, port: PORT}}`, message: "answered with status 503: the answer"},
		{name: "headers", probe: `{httpGet: {path: /headers, port: PORT, httpHeaders: [{name: x-test, value: a}]}}`, ok: true},
		{name: "headers replaced", probe: `{httpGet: {path: /host, port: PORT, httpHeaders: [{name: host, value: shop.example.com}, {name: User-Agent, value: mine}, {name: Accept, value: ""}]}}`, ok: true},
		{name: "query", probe: `{httpGet: {path: "/query?a=b", port: PORT}}`, ok: true},
		{name: "timeout", probe: `{httpGet: {path: /slow, port: PORT}}`, message: "timed out"},
		{name: "redirect", probe: `{httpGet: {path: /here, port: PORT}}`, ok: true},
		{name: "redirect to a failure", probe: `{httpGet: {path: /broken, port: PORT}}`, message: "status 500"},
		{name: "redirect in circles", probe: `{httpGet: {path: /loop, port: PORT}}`, message: "10 redirects"},
		{name: "redirect to another host", probe: `{httpGet: {path: /away, port: PORT}}`, ok: true, message: "elsewhere.invalid"},
		{name: "https", probe: `{httpGet: {path: /status/200, port: PORT, scheme: HTTPS}}`, secure: true, ok: true},
		{name: "http to https", probe: `{httpGet: {path: /status/200, port: PORT}}`, secure: true, message: "status 400"},
		{name: "https to http", probe: `{httpGet: {path: /status/200, port: PORT, scheme: HTTPS}}`, message: "http"},
		{name: "a large answer", probe: `{httpGet: {path: /large, port: PORT}}`, message: "…"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := plain
			if tt.secure {
				server = secure
			}
			out, err := attempt(t, r, tt.probe, portOf(t, server.Listener.Addr()))
			check(t, out, err, tt.ok, tt.message, tt.err)
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		out, err := attempt(t, r, `{httpGet: {path: /, port: PORT}}`, closedPort(t))
		check(t, out, err, false, "connection refused", "")
	})
}

func check(t *testing.T, out Outcome, err error, ok bool, message, wrong string) {
	t.Helper()
	switch {
	case wrong != "":
		if err == nil || !strings.Contains(err.Error(), wrong) {
			t.Errorf("error %v, want %q", err, wrong)
		}
	case err != nil:
		t.Error(err)
	case out.Success != ok || !strings.Contains(out.Message, message) || message == "" && out.Message != "":
		t.Errorf("got %+v, want %v with %q", out, ok, message)
	case len(out.Message) > 2*maxMessage:
		t.Errorf("the message has %d bytes", len(out.Message))
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := NewRunner(nil)
	out, err := attempt(t, r, `{tcpSocket: {port: web}}`, portOf(t, l.Addr()))
	check(t, out, err, true, "", "")
	out, err = attempt(t, r, `{tcpSocket: {port: PORT}}`, closedPort(t))
	check(t, out, err, false, "connection refused", "")
	out, err = attempt(t, r, `{tcpSocket: {port: absent}}`, 1)
	check(t, out, err, false, "", "no port named")
}

func TestExec(t *testing.T) {
	r := NewRunner(func(ctx context.Context, target Target, cmd []string) (int, []byte, error) {
		if target.ContainerID != "id" {
			t.Errorf("ran in container %q", target.ContainerID)
		}
		switch cmd[0] {
		case "fail":
			return 3, []byte(" why \n"), nil
		case "hang":
			<-ctx.Done()
			return 0, nil, ctx.Err()
		case "broken":
			return 0, nil, errors.New("the engine does not answer")
		}
		return 0, []byte("fine"), nil
	})
	for _, tt := range []struct {
		cmd          string
		ok           bool
		message, err string
	}{
		{"ok", true, "", ""},
		{"fail", false, `exited with code 3: why`, ""},
		{"hang", false, "timed out", ""},
		{"broken", false, "", "the engine does not answer"},
	} {
		out, err := attempt(t, r, "{exec: {command: ["+tt.cmd+"]}}", 1)
		check(t, out, err, tt.ok, tt.message, tt.err)
	}
}

func TestGRPC(t *testing.T) {
	serve := func(register func(*grpc.Server)) int {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer()
		register(s)
		done := make(chan error, 1)
		go func() { done <- s.Serve(l) }()
		t.Cleanup(func() {
			s.Stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		return portOf(t, l.Addr())
	}
	h := health.NewServer()
	h.SetServingStatus("good", healthpb.HealthCheckResponse_SERVING)
	h.SetServingStatus("bad", healthpb.HealthCheckResponse_NOT_SERVING)
	port := serve(func(s *grpc.Server) { healthpb.RegisterHealthServer(s, h) })
	without := serve(func(*grpc.Server) {})
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	r := NewRunner(nil)
	for _, tt := range []struct {
		name, probe string
		port        int
		ok          bool
		message     string
	}{
		{"server", `{grpc: {port: PORT}}`, port, true, ""},
		{"service", `{grpc: {port: PORT, service: good}}`, port, true, ""},
		{"not serving", `{grpc: {port: PORT, service: bad}}`, port, false, "NOT_SERVING"},
		{"unknown service", `{grpc: {port: PORT, service: absent}}`, port, false, `does not know the gRPC service "absent"`},
		{"no health service", `{grpc: {port: PORT}}`, without, false, "does not implement"},
		{"nobody there", `{grpc: {port: PORT}}`, closedPort(t), false, "connection refused"},
		{"silence", `{grpc: {port: PORT}}`, portOf(t, silent.Addr()), false, "timed out"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := attempt(t, r, tt.probe, tt.port)
			check(t, out, err, tt.ok, tt.message, "")
		})
	}
}

func TestHook(t *testing.T) {
	r := NewRunner(func(_ context.Context, _ Target, cmd []string) (int, []byte, error) {
		if cmd[0] == "fail" {
			return 1, []byte("why"), nil
		}
		return 0, nil, nil
	})
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	port := portOf(t, server.Listener.Addr())
	for _, tt := range []struct{ name, hook, err string }{
		{"command", `{exec: {command: [ok]}}`, ""},
		{"command that fails", `{exec: {command: [fail]}}`, "exited with code 1: why"},
		{"request that fails", fmt.Sprintf(`{httpGet: {path: /, port: %d}}`, port), "status 404"},
		{"sleep", `{sleep: {seconds: 0}}`, ""},
		{"tcp does nothing", `{tcpSocket: {port: 1}}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := container(t, "lifecycle: {preStop: "+tt.hook+"}")
			err := r.Hook(t.Context(), c.Lifecycle.PreStop, c, Target{IP: "127.0.0.1"})
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	sleep := &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 3600}}
	if err := r.Hook(ctx, sleep, &corev1.Container{}, Target{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a sleep that is given up: %v", err)
	}
}

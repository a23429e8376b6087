package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// What the engine answers has the class that callers act on.
func TestClasses(t *testing.T) {
	const id = "0123456789abcdef"
	list := func(e *Engine) error { _, err := e.List(t.Context()); return err }
	start := func(e *Engine) error { return e.Start(t.Context(), id) }
	pull := func(e *Engine) error { _, err := e.Pull(t.Context(), "x", nil, nil); return err }
	message := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"message":%q}`, text)
		}
	}
	stream := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, "{\"status\":\"Pulling\"}\n{\"error\":%q}\n", text)
		}
	}
	for _, tt := range []struct {
		name   string
		call   func(*Engine) error
		answer http.HandlerFunc
		want   error
		says   string
	}{
		{"body cut", list, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `[{"Id":"x"`) // the rest never comes
		}, runtimes.ErrUnavailable, ""},
		{"connection closed", list, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, runtimes.ErrUnavailable, ""},
		{"connection reset", list, func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[") // it is cut on purpose
			c.Close()
		}, runtimes.ErrUnavailable, ""},
		{"port of a container", start, message(500, "driver failed programming external connectivity on endpoint x (0): Bind for 0.0.0.0:8080 failed: port is already allocated"),
			runtimes.ErrConflict, "host port 0.0.0.0:8080 is taken"},
		{"port of a program", start, message(500, "driver failed programming external connectivity on endpoint x (0): Error starting userland proxy: listen tcp4 127.0.0.1:53: bind: address already in use"),
			runtimes.ErrConflict, "host port 127.0.0.1:53 is taken"},
		{"port of another engine version", start, message(500, "failed to set up container networking: driver failed programming external connectivity on endpoint x (0): failed to bind host port for 0.0.0.0:8080:172.17.0.2:80/tcp: address already in use"),
			runtimes.ErrConflict, "host port 0.0.0.0:8080"},
		{"cannot be run", start, message(400, "OCI runtime create failed: exec: \"/x\": no such file or directory"), runtimes.ErrInvalid, ""},
		{"disk full", start, message(500, "OCI runtime create failed: mkdir /x: no space left on device"), runtimes.ErrDiskFull, ""},
		{"plugin denies", start, message(403, "authorization denied by plugin x"), runtimes.ErrInvalid, ""},
		{"manifest unknown", pull, stream("manifest unknown: manifest unknown"), runtimes.ErrNotFound, ""},
		{"manifest not found", pull, stream("manifest for x:1 not found: manifest unknown"), runtimes.ErrNotFound, ""},
		{"manifest not found at once", pull, message(404, "manifest for x:1 not found: manifest unknown: manifest unknown"), runtimes.ErrNotFound, ""},
		{"denied", pull, message(404, "pull access denied for x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"),
			runtimes.ErrDenied, ""},
		{"forbidden", pull, message(403, "nope"), runtimes.ErrDenied, ""},
		{"unauthorized", pull, stream("unauthorized: authentication required"), runtimes.ErrDenied, ""},
		{"disk full while pulling", pull, stream("write /x: no space left on device"), runtimes.ErrDiskFull, ""},
		{"stream cut", pull, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"status":`) }, runtimes.ErrUnavailable, ""},
		{"registry away", pull, message(500, `Get "https://x/v2/": dial tcp: lookup x on 10.0.0.1:53: no such host`), nil, "no such host"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := canned(t, func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/_ping") {
					w.Header().Set("Api-Version", minAPI)
					return
				}
				tt.answer(w, r)
			})
			e.memory.prove(id, identity("x"), ours)
			err := tt.call(e)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("got %v, want an error that says %q", err, tt.says)
			}
			for _, class := range classes {
				if errors.Is(err, class) != (class == tt.want) {
					t.Errorf("%v\nis %q: %v, want %q", err, class, errors.Is(err, class), tt.want)
				}
			}
		})
	}
}

// An engine that is too old is refused with what to do.
func TestOldEngine(t *testing.T) {
	e := canned(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.40")
		if !strings.HasSuffix(r.URL.Path, "/_ping") {
			t.Errorf("it was asked %s", r.URL.Path)
		}
	})
	_, err := e.List(t.Context())
	if !errors.Is(err, runtimes.ErrInvalid) || !strings.Contains(err.Error(), "1.40") || !strings.Contains(err.Error(), "20.10") {
		t.Errorf("got %v", err)
	}
}

func TestNew(t *testing.T) {
	for name, good := range map[string]bool{
		"fairlead": true, "a": true, "A1_b.c-d": true, strings.Repeat("x", 63): true,
		"": false, "-a": false, ".a": false, "a b": false, "a/b": false, "ä": false, "a\n": false, strings.Repeat("x", 64): false,
	} {
		e, err := New(Options{Key: make([]byte, 32), Installation: name})
		if (err == nil) != good {
			t.Errorf("installation %q: %v", name, err)
		}
		if err == nil {
			e.Close()
		}
	}
	if _, err := New(Options{Key: make([]byte, 16), Installation: "x"}); err == nil {
		t.Error("a short key is taken")
	}
}

// A host port that is taken, and a network that is used, are conflicts on the real engine too.
func TestTaken(t *testing.T) {
	p, _ := newPod(t)
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	p.must(err)
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	name := p.e.opt.Installation
	subnet := netip.MustParsePrefix("10.250.7.0/24")
	p.must(p.e.EnsureNetwork(p.ctx, name, name, subnet, netip.MustParsePrefix("10.250.7.192/26"), netip.MustParseAddr("10.250.7.1")))
	t.Cleanup(func() {
		ctx := context.Background()
		for _, who := range []string{runtimes.SandboxContainer, "other"} {
			if err := p.e.cli.ContainerRemove(ctx, p.e.name(identity(who)), container.RemoveOptions{Force: true}); err != nil && !errdefs.IsNotFound(err) {
				t.Error(err)
			}
		}
		if err := p.e.RemoveNetwork(ctx, name); err != nil {
			t.Error(err)
		}
	})
	image, err := p.e.SandboxImage(p.ctx)
	p.must(err)
	create := func(who string, hostPort int) string {
		t.Helper()
		id, err := p.e.Create(p.ctx, runtimes.ContainerSpec{
			Identity: identity(who), Image: image, Network: name,
			Ports: []runtimes.PortBinding{{HostIP: "127.0.0.1", HostPort: hostPort, ContainerPort: 80, Protocol: "tcp"}},
		})
		p.must(err)
		return id
	}
	id := create(runtimes.SandboxContainer, port)
	err = p.e.Start(p.ctx, id)
	if want := fmt.Sprintf("host port 127.0.0.1:%d is taken", port); !errors.Is(err, runtimes.ErrConflict) || !strings.Contains(err.Error(), want) {
		t.Errorf("a port of a program: got %v, want one that says %q", err, want)
	}
	p.must(listener.Close())
	p.must(p.e.Start(p.ctx, id))
	err = p.e.Start(p.ctx, create("other", port))
	if want := fmt.Sprintf("host port 127.0.0.1:%d is taken", port); !errors.Is(err, runtimes.ErrConflict) || !strings.Contains(err.Error(), want) {
		t.Errorf("a port of a container: got %v, want one that says %q", err, want)
	}
	if err := p.e.RemoveNetwork(p.ctx, name); !errors.Is(err, runtimes.ErrConflict) {
		t.Errorf("a network that is used: got %v, want %v", err, runtimes.ErrConflict)
	}
	n, err := p.e.cli.NetworkInspect(p.ctx, name, network.InspectOptions{})
	p.must(err)
	if len(n.Containers) == 0 {
		t.Error("the network has no containers")
	}
}

package consul

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
)

// liar is an agent that accepts everything, remembers nothing, and answers what it is told to.
type liar struct {
	mu       sync.Mutex
	services func(w http.ResponseWriter)
	pass     int
	counts   map[string]int
	token    string
}

func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = io.Copy(io.Discard, r.Body)
	l.token = r.Header.Get("X-Consul-Token")
	switch {
	case strings.HasSuffix(r.URL.Path, "/agent/services"):
		l.counts["services"]++
		l.services(w)
	case strings.HasSuffix(r.URL.Path, "/agent/checks"):
		l.counts["checks"]++
		fmt.Fprint(w, `{"x":null}`)
	case strings.Contains(r.URL.Path, "/check/update/"):
		l.counts["pass"]++
		w.WriteHeader(l.pass)
	case strings.HasSuffix(r.URL.Path, "/service/register"):
		l.counts["register"]++
	default:
		l.counts["deregister"]++
	}
}

func (l *liar) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[what]
}

func (l *liar) say(f func(w http.ResponseWriter), pass int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.services, l.pass = f, pass
}

func text(s string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { fmt.Fprint(w, s) }
}

// TestLyingAgent holds that garbage is no news of the agent, and moves nothing.
func TestLyingAgent(t *testing.T) {
	t.Parallel()
	l := &liar{counts: map[string]int{}, services: text("{}"), pass: 200}
	server := httptest.NewServer(l)
	defer server.Close()
	r, err := New(Options{Installation: "test", Settings: Settings{Address: server.URL, TTL: 10 * time.Second, Compare: time.Second, Timeout: time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	set(t, r, svc("default/web", "10.1.0.1", "10.1.0.2"), svc("default/db", "10.1.0.3"))
	if n := l.count("register"); n != 3 {
		t.Fatalf("%d registrations", n)
	}
	for name, answer := range map[string]func(http.ResponseWriter){
		"empty list, but checks pass": text("{}"),
		"null":                        text("null"),
		"nothing":                     text(""),
		"a page":                      text("<html>welcome</html>"),
		"a list":                      text("[]"),
		"services of null":            text(`{"fairlead-test-x":null}`),
		"half an answer":              text(`{"fairlead-test-x":{"ID":"fair`),
		"of other types":              text(`{"fairlead-test-x":{"Port":"http","Tags":7}}`),
		"no such page":                func(w http.ResponseWriter) { w.WriteHeader(404) },
		"an error":                    func(w http.ResponseWriter) { w.WriteHeader(500) },
		"too many requests":           func(w http.ResponseWriter) { w.WriteHeader(429) },
		"a redirect to itself":        func(w http.ResponseWriter) { w.Header().Set("Location", "/v1/agent/services"); w.WriteHeader(302) },
		"the connection":              func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			l.say(answer, 200)
			if err := r.repair(t.Context()); err == nil {
				t.Error("believed")
			}
			if c := r.Stats().Condition; c.Code != Unavailable || c.Message == "" {
				t.Errorf("condition %+v", c)
			}
			if n, m := l.count("register"), l.count("deregister"); n != 3 || m != 0 {
				t.Errorf("%d registrations, %d deregistrations", n, m)
			}
		})
	}
	t.Run("others' services with our prefix or our meta only", func(t *testing.T) {
		l.say(text(`{"fairlead-test-x":{"ID":"fairlead-test-x","Service":"x"},"y":{"ID":"y","Meta":{"external-source":"fairlead","fairlead-installation":"test"}}}`), 200)
		_ = r.repair(t.Context())
		if n := l.count("deregister"); n != 0 {
			t.Errorf("%d deregistrations of what is not ours", n)
		}
	})
	t.Run("empty list, and checks that are unknown", func(t *testing.T) {
		l.say(text("{}"), 404)
		if err := r.repair(t.Context()); err != nil {
			t.Error(err)
		}
		if n := l.count("register"); n != 6 {
			t.Errorf("%d registrations after everything was lost, not 6", n)
		}
	})
	t.Run("other contents each time", func(t *testing.T) {
		// It claims to have something else than what was registered, whatever is done: that is not fought over without end.
		before := l.count("register")
		var b strings.Builder
		r.mu.Lock()
		for id, i := range r.want {
			fmt.Fprintf(&b, `,%q:{"ID":%q,"Service":%q,"Address":"192.0.2.1","Meta":{"external-source":"fairlead","fairlead-installation":"test"}}`, id, id, i.Name)
		}
		r.mu.Unlock()
		l.say(text("{"+b.String()[1:]+"}"), 200)
		for range 20 {
			if err := r.repair(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := l.count("register") - before; n != 4*3 && n != 3*3 {
			t.Errorf("%d registrations of three instances in twenty comparisons", n)
		}
	})
}

// TestRefused holds that one instance that the agent does not take holds up no other.
func TestRefused(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var registered int
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case strings.Contains(string(body), "10.1.0.2"):
			w.WriteHeader(400)
		case strings.HasSuffix(r.URL.Path, "register"):
			registered++
		default:
			fmt.Fprint(w, "{}")
		}
	}))
	defer server.Close()
	r, err := New(Options{Installation: "test", Settings: Settings{Address: server.URL}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Set(t.Context(), plan.Routes{svc("default/web", "10.1.0.1", "10.1.0.2", "10.1.0.3")}); !errors.Is(err, errRefused) {
		t.Errorf("Set: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if c := r.Stats().Condition; registered != 2 || c.Code != Refused {
		t.Errorf("%d registered, condition %+v", registered, c)
	}
}

// TestTLS holds that the certificate is proved, under the name that is set.
func TestTLS(t *testing.T) {
	t.Parallel()
	l := &liar{counts: map[string]int{}, services: text("{}"), pass: 200}
	server := httptest.NewUnstartedServer(l)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = nil
	server.StartTLS()
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, ca, server string
		ok               bool
	}{
		{"trusted", ca, "", true},
		{"under its other name", ca, "example.com", true},
		{"under a name that it does not have", ca, "consul.invalid", false},
		{"of nobody who is trusted", "", "", false},
		{"with a file that is not there", ca + "x", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := New(Options{Installation: "test", Settings: Settings{Address: server.URL, CAFile: test.ca, ServerName: test.server, Token: "secret-token"}})
			if err != nil {
				t.Fatal(err)
			}
			err = r.Set(t.Context(), plan.Routes{svc("default/web", "10.1.0.1")})
			if (err == nil) != test.ok {
				t.Errorf("Set: %v", err)
			}
			if test.ok && l.token != "secret-token" {
				t.Errorf("token %q", l.token)
			}
			if err != nil && strings.Contains(err.Error()+r.Stats().Condition.Message, "secret-token") {
				t.Error("the token is in the error")
			}
		})
	}
}

package telemetry

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fairlead-dev/fairlead/daemon/httpserve"
)

// Check is one thing that must hold for the daemon to be ready.
type Check struct {
	// Code is a stable kebab-case word, Title what it is for people.
	Code, Title string
	// Pending is the reason for not being ready until Set is called first.
	Pending string
}

// The checks of the daemon.
var (
	CheckReconciled = Check{"first-reconcile", "every application was reconciled once", "the first reconciliation is under way"}
	CheckEngine     = Check{"engine", "the Docker engine answers", "the Docker engine was not asked yet"}
)

// Health knows whether the daemon is ready. Every method may be called from any goroutine.
type Health struct {
	checks []Check
	mu     sync.Mutex
	why    map[string]string // code to reason; empty when the check holds
}

// NewHealth returns a Health none of whose checks holds yet.
func NewHealth(checks ...Check) *Health {
	h := &Health{checks: checks, why: map[string]string{}}
	for _, c := range checks {
		h.why[c.Code] = c.Pending
	}
	return h
}

// Set says that a check holds (nil) or why it does not.
func (h *Health) Set(c Check, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.why[c.Code] = ""
	if err != nil {
		h.why[c.Code] = err.Error()
	}
}

// Ready reports whether every check holds, and the reasons of those that do not.
func (h *Health) Ready() (ready bool, reasons []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.checks {
		if w := h.why[c.Code]; w != "" {
			reasons = append(reasons, c.Code+": "+w)
		}
	}
	return len(reasons) == 0, reasons
}

// readyz writes one line a check, as Kubernetes' own endpoint does.
func (h *Health) readyz(w http.ResponseWriter, _ *http.Request) {
	h.mu.Lock()
	var b strings.Builder
	ready := true
	for _, c := range h.checks {
		if why := h.why[c.Code]; why != "" {
			ready = false
			fmt.Fprintf(&b, "[-]%s: %s\n", c.Code, why)
		} else {
			fmt.Fprintf(&b, "[+]%s: %s\n", c.Code, c.Title)
		}
	}
	h.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if ready {
		b.WriteString("ready\n")
	} else {
		w.WriteHeader(http.StatusServiceUnavailable)
		b.WriteString("not ready\n")
	}
	_, _ = w.Write([]byte(b.String()))
}

// Handler serves /healthz (200 while alive returns nil), /readyz and /metrics. A nil alive is always alive.
func Handler(r *Recorder, h *Health, alive func() error) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		if alive != nil {
			if err := alive(); err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				fmt.Fprintf(w, "not alive: %v\n", err)
				return
			}
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", h.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(r.Gatherer(), promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	return mux
}

// Serve answers on l with h until ctx ends. It closes l.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	return httpserve.Until(ctx, &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute}, l, time.Second)
}

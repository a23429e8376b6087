// Command app is the example's web server: one page that says which version it is and what it was configured with.
package main

import (
	"context"
	"errors"
	"fmt"
	"html"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// version is set when the image is built.
var version = "dev"

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", page)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	var leaving atomic.Bool
	server := &http.Server{Addr: ":8080", ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if leaving.Load() {
			w.Header().Set("Connection", "close") // the next request goes to another pod
		}
		mux.ServeHTTP(w, r)
	})}
	served := make(chan error, 1)
	go func() { served <- server.ListenAndServe() }()
	log.Printf("version %s listens on %s", version, server.Addr)
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	// No new connection comes here any more; those that are open get their answers, and are told to go elsewhere.
	leaving.Store(true)
	time.Sleep(time.Second)
	closing, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(closing); err != nil {
		return fmt.Errorf("shut down: %w", err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func page(w http.ResponseWriter, _ *http.Request) {
	greeting := os.Getenv("GREETING")
	// A mounted file follows the ConfigMap without a restart.
	if b, err := os.ReadFile("/etc/web/motto"); err == nil {
		greeting += " " + strings.TrimSpace(string(b))
	}
	host, _ := os.Hostname()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, "<!doctype html><title>web %s</title><h1>%s</h1><p>version %s, pod %s</p>\n",
		html.EscapeString(version), html.EscapeString(greeting), html.EscapeString(version), html.EscapeString(host))
}

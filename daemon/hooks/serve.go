package hooks

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/fairlead-dev/fairlead/daemon/httpserve"
)

const (
	// maxConnections are served at a time. Others wait: each costs memory, and forges do not need many.
	maxConnections = 256
	// Who is slow loses the connection. Forges wait for ten seconds and less.
	headerTimeout = 5 * time.Second
	readTimeout   = 6 * time.Second
	writeTimeout  = 10 * time.Second
	idleTimeout   = 10 * time.Second
	maxHeader     = 32 << 10
)

// Serve answers on l until ctx ends, and then waits for what is under way. It closes l. A certificate makes it HTTPS.
func (s *Server) Serve(ctx context.Context, l net.Listener, certificate *Certificate) error {
	srv := &http.Server{
		Handler: s, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: quiet(),
		// One request at a time on a connection: what a connection may cost is then known.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	l = netutil.LimitListener(l, maxConnections)
	if certificate != nil {
		l = tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate.get, NextProtos: []string{"http/1.1"}})
	}
	return httpserve.Until(ctx, srv, l, time.Second)
}

// Certificate is one in files, which are read again when they change.
type Certificate struct {
	certFile, keyFile string

	mu       sync.Mutex
	loaded   *tls.Certificate
	modified [2]time.Time
}

// OpenCertificate reads a certificate and its key, PEM.
func OpenCertificate(certFile, keyFile string) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile}
	_, err := c.get(nil)
	return c, err
}

func (c *Certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var modified [2]time.Time
	for i, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err == nil {
			modified[i] = info.ModTime()
		} else if c.loaded == nil {
			return nil, fmt.Errorf("read the certificate of the hooks: %w", err)
		}
	}
	if c.loaded != nil && modified == c.modified {
		return c.loaded, nil
	}
	loaded, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	switch {
	case err == nil:
		c.loaded, c.modified = &loaded, modified
	case c.loaded == nil:
		return nil, fmt.Errorf("read the certificate of the hooks: %w", err)
	}
	return c.loaded, nil // while a new one is being written, the one before is good
}

// quiet drops what net/http would write: strangers choose how often.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

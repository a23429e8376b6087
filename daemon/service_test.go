package daemon

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// TestAnEndThatWasAskedForSucceeds although something could not be released: then systemd would call a daemon that
// was stopped a failed one. One that ends by itself says everything.
func TestAnEndThatWasAskedForSucceeds(t *testing.T) {
	errHeld := errors.New("another program holds the firewall")
	begin := func(t *testing.T, socket string) (*host, Service) {
		h := newHost(t)
		h.set.Socket = socket
		s, err := New(Options{
			Settings: h.set.WithDefaults(), Mode: Run, Version: "test", Log: zerolog.New(h),
			openMachine: func(s *System, _ []byte) (machine, error) {
				s.closers = append(s.closers, func() error { return errHeld })
				return machine{engine: h.engine, network: h.network, volumes: h.volumes}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		return h, Service{s}
	}
	t.Run("asked", func(t *testing.T) {
		h, s := begin(t, filepath.Join(t.TempDir(), "socket"))
		ctx, stop := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, stop)
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
		if log := h.log.String(); !strings.Contains(log, errHeld.Error()) {
			t.Errorf("the log does not say what could not be released:\n%s", log)
		}
	})
	t.Run("by itself", func(t *testing.T) {
		_, s := begin(t, filepath.Join(t.TempDir(), strings.Repeat("too-long-for-a-socket", 8)))
		if err := s.Run(t.Context()); !errors.Is(err, errHeld) || !strings.Contains(err.Error(), "socket") {
			t.Errorf("Run: %v", err)
		}
	})
}

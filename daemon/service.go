package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/daemon/telemetry"
)

// Service is a System that answers on its socket and, where the settings name an address, serves health
// and metrics.
type Service struct{ *System }

// Run reconciles and answers until ctx ends, then releases everything. What runs on the engine goes on
// running. systemd is told when the daemon is ready. What cannot be released at an end that was asked for is only
// logged: the end of the process releases it, and the next one puts right what is left.
func (s Service) Run(ctx context.Context) (err error) {
	asked := ctx
	defer func() {
		switch e := s.Close(); {
		case e != nil && err == nil && asked.Err() != nil:
			s.log.Warn().Err(e).Msg("not everything was released at the end")
		default:
			err = errors.Join(err, e)
		}
	}()
	socket, err := api.Listen(ctx, s.settings.Socket)
	if err != nil {
		return err
	}
	defer socket.Close()
	group, ctx := errgroup.WithContext(ctx)
	if s.settings.Listen != "" {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.settings.Listen)
		if err != nil {
			return fmt.Errorf("listen for health and metrics: %w (choose another address with --listen, or listen in the settings)", err)
		}
		s.log.Info().Str("address", l.Addr().String()).Msg("serving /healthz, /readyz and /metrics")
		group.Go(func() error {
			return telemetry.Serve(ctx, l, telemetry.Handler(s.recorder, s.health, s.alive))
		})
	}
	if s.hooks != nil {
		serve, err := s.serveHooks(ctx)
		if err != nil {
			return err
		}
		group.Go(serve)
	}
	group.Go(func() error { return s.System.Run(ctx) })
	group.Go(func() error { return api.Serve(ctx, socket, s.System) })
	group.Go(func() error { return s.tellSystemd(ctx) })
	s.log.Info().Str("version", s.version).Str("installation", s.settings.Installation).Str("stateDir", s.settings.StateDir).Msg("fairlead is up")
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// alive reports whether the daemon still works. It takes the lock that all workers need: when that hangs,
// whoever asks does not get an answer in time, which says the same.
func (s *System) alive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return nil
}

// tellSystemd tells systemd that the daemon is up, keeps its status line, and feeds its watchdog.
func (s *System) tellSystemd(ctx context.Context) error {
	var n telemetry.Notifier
	if err := n.Ready("starting"); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.Watchdog(ctx, s.alive) })
	last := ""
	err := s.events.watch(ctx, func() {
		if line := s.statusLine(); line != last && n.Status(line) == nil {
			last = line
		}
	})
	return errors.Join(err, group.Wait(), n.Stopping())
}

// statusLine sums the applications up.
func (s *System) statusLine() string {
	good, all := 0, s.statuses()
	for _, st := range all {
		if st.Health == reconcile.Healthy {
			good++
		}
	}
	return fmt.Sprintf("%d of %d applications healthy", good, len(all))
}

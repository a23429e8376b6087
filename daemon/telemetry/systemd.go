package telemetry

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Notifier tells systemd about the daemon. Outside of a unit with Type=notify it does nothing.
type Notifier struct{}

// Ready tells that the daemon is up, with a line for `systemctl status`.
func (Notifier) Ready(status string) error {
	return notifySystemd(daemon.SdNotifyReady + "\nSTATUS=" + status)
}

// Status replaces the line for `systemctl status`.
func (Notifier) Status(status string) error { return notifySystemd("STATUS=" + status) }

// Stopping tells that the daemon is about to end.
func (Notifier) Stopping() error { return notifySystemd(daemon.SdNotifyStopping) }

// Watchdog tells systemd twice in every WatchdogSec that the daemon is alive, unless alive returns an
// error, until ctx ends. Without WatchdogSec it returns at once.
func (Notifier) Watchdog(ctx context.Context, alive func() error) error {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("read systemd's watchdog settings: %w", err)
	}
	if interval == 0 {
		return nil
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		if alive == nil || alive() == nil {
			if err := notifySystemd(daemon.SdNotifyWatchdog); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func notifySystemd(state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/notify"
)

// openNotifier makes what tells people of events. A channel that cannot be used, or a memory that cannot be read, is
// told in the log and stops nothing.
func (s *System) openNotifier() {
	channels, err := s.settings.Notifications.Open("fairlead/" + s.version)
	if err != nil {
		s.log.Warn().Err(err).Msg("not every channel for notifications can be used")
	}
	if len(channels) == 0 {
		return
	}
	o := notify.Options{
		Channels: channels, Host: s.settings.Notifications.HostName(), Installation: s.settings.Installation, Log: s.log,
		Labels: func(application string) map[string]string {
			labels, _ := s.labels.Load(application)
			out, _ := labels.(map[string]string)
			return out
		},
	}
	if s.mode == Run {
		if err := s.store.Notified(&o.Said); err != nil {
			s.log.Warn().Err(err).Msg("what was said before may be said again")
		}
		o.Save = func(all map[string]notify.Memory) error { return s.store.SetNotified(all) }
	}
	s.notifier = notify.New(o)
	if s.mode == Run {
		s.recorder.CountNotifications(s.notifier.Stats)
	}
}

// TestNotification implements api.Backend.
func (s *System) TestNotification(ctx context.Context, r api.NotificationTest) (api.NotificationTest, error) {
	err := notify.ErrUnknown
	if s.notifier != nil {
		err = s.notifier.Test(ctx, r.Channel)
	}
	if errors.Is(err, notify.ErrUnknown) {
		var names []string
		for _, c := range s.notifier.Stats() {
			names = append(names, c.Channel)
		}
		if len(names) == 0 {
			return r, fmt.Errorf("%w: the settings have no channel that can be used: see notifications.channels, and the daemon's log", api.ErrNotFound)
		}
		return r, fmt.Errorf("%w: there is no channel %s; there are: %s", api.ErrNotFound, r.Channel, strings.Join(names, ", "))
	}
	if err != nil {
		return r, fmt.Errorf("%w: %w", api.ErrUnavailable, err)
	}
	for _, c := range s.settings.Notifications.Channels {
		if c.Name == r.Channel {
			r.Kind = c.Kind
		}
	}
	return r, nil
}

// notificationsFrom returns the channels as the read model has them.
func (s *System) notificationsFrom() []api.NotificationChannel {
	var out []api.NotificationChannel
	for _, c := range s.notifier.Stats() {
		out = append(out, api.NotificationChannel{
			Name: c.Channel, Kind: c.Kind, Sent: c.Sent, Failed: c.Failed, Waiting: c.Waiting, LastSent: c.LastSent, Error: c.Error, Since: c.Since,
		})
	}
	return out
}

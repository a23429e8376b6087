package daemon

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/notify"
	"github.com/fairlead-dev/fairlead/daemon/settings"
)

// inboxServer keeps the messages that a webhook gets.
type inboxServer struct {
	*httptest.Server
	mu   sync.Mutex
	got  []notify.Message
	down bool
}

func newInboxServer(t *testing.T) *inboxServer {
	s := &inboxServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		var m notify.Message
		if err == nil {
			err = json.Unmarshal(b, &m)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case err != nil || r.URL.Path != "/in/hush":
			w.WriteHeader(http.StatusBadRequest)
		case s.down:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			s.got = append(s.got, m)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// items are the things said, "subject reason" each.
func (s *inboxServer) items() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, m := range s.got {
		for _, i := range m.Items {
			line := i.Subject + " " + i.Reason
			if i.Recovered {
				line += " recovered"
			}
			out = append(out, line)
		}
	}
	return out
}

// logged reports whether the log has a text.
func (h *host) logged(text string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Contains(h.log.String(), text)
}

// TestNotifications breaks an application twice over a restart, and repairs it: each is told once. The service's
// trouble is nobody else's.
func TestNotifications(t *testing.T) {
	h := newHost(t)
	in := newInboxServer(t)
	h.file("url", in.URL+"/in/hush\n")
	h.declare("shop")
	h.declare("quiet")
	h.set.Applications[0].Labels = map[string]string{"team": "shop"}
	h.set.Notifications = settings.Notifications{Host: "web1", Channels: []settings.NotificationChannel{{
		Name: "ops", Kind: "webhook", URLFile: filepath.Join(h.dir, "url"), Group: settings.Duration(50 * time.Millisecond), Limit: 3600,
		Events: []settings.NotificationRule{{Labels: "team=shop"}},
	}}}
	if found := h.set.WithDefaults().Check(); len(found) > 0 {
		t.Fatal(found)
	}
	broken := "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replica: 2}\n"
	h.file("shop/web.yaml", broken)
	h.file("quiet/web.yaml", strings.ReplaceAll(broken, "name: web", "name: other"))
	s := h.open(Run)
	h.state(s, "shop", "Failed RenderFailed")
	h.state(s, "quiet", "Failed RenderFailed")
	told := func(want ...string) {
		t.Helper()
		h.eventually(s, strings.Join(want, ", ")+" is told", func() bool { return slices.Equal(in.items(), want) })
	}
	told("application shop RenderFailed")
	h.stop(s)
	s = h.open(Run)
	h.state(s, "shop", "Failed RenderFailed")
	h.file("shop/web.yaml", deployment("web", "web:1", 1))
	told("application shop RenderFailed", "application shop Applied recovered")
	// A service that is down holds nothing up, and what failed meanwhile is told when it is back.
	in.mu.Lock()
	in.down = true
	in.mu.Unlock()
	h.file("shop/web.yaml", broken)
	h.state(s, "shop", "Failed RenderFailed")
	h.eventually(s, "a try has failed", func() bool { return s.notificationsFrom()[0].Error != "" })
	if c := s.notificationsFrom()[0]; strings.Contains(c.Error, "hush") || !strings.Contains(c.Error, "503") {
		t.Errorf("the channel says %q", c.Error)
	}
	h.file("shop/web.yaml", deployment("web", "web:2", 1))
	h.state(s, "shop", "Healthy Applied")
	h.runs("web:2")
	in.mu.Lock()
	in.down = false
	in.mu.Unlock()
	told("application shop RenderFailed", "application shop Applied recovered", "application shop RenderFailed", "application shop Applied recovered")
	if h.logged("hush") {
		t.Error("the log has the secret")
	}
	if _, err := s.TestNotification(t.Context(), api.NotificationTest{Channel: "dev"}); !errors.Is(err, api.ErrNotFound) || !strings.Contains(err.Error(), "there are: ops") {
		t.Errorf("a channel that there is not: %v", err)
	}
	if got, err := s.TestNotification(t.Context(), api.NotificationTest{Channel: "ops"}); err != nil || got.Kind != "webhook" {
		t.Errorf("%+v %v", got, err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if m := in.got[len(in.got)-1]; !m.Test || m.Title != "fairlead on web1: test" {
		t.Errorf("%+v", m)
	}
}

// A channel that cannot be used is told in the log, and stops neither the daemon nor the others.
func TestAChannelThatCannotBeUsed(t *testing.T) {
	h := newHost(t)
	in := newInboxServer(t)
	h.declare("shop")
	h.file("shop/web.yaml", deployment("web", "web:1", 1))
	h.set.Notifications.Channels = []settings.NotificationChannel{
		{Name: "broken", Kind: "webhook", URL: in.URL, TemplateFile: filepath.Join(h.dir, "none")},
		{Name: "good", Kind: "webhook", URL: in.URL + "/in/hush"},
	}
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	if !h.logged("notifications.channels[0]: read the template") {
		t.Error("the log does not say what is wrong")
	}
	if _, err := s.TestNotification(t.Context(), api.NotificationTest{Channel: "good"}); err != nil {
		t.Error(err)
	}
}

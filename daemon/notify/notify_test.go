package notify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/render/object"
)

// service keeps what it is sent, and fails on command.
type service struct {
	mu     sync.Mutex
	got    []Message
	tries  int
	fail   func(try int) error
	joined []string // the texts, for comparing
}

func (s *service) Send(ctx context.Context, m Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.tries++
	if s.fail != nil {
		if err := s.fail(s.tries); err != nil {
			return err
		}
	}
	s.got = append(s.got, m)
	s.joined = append(s.joined, m.Title+"\n"+m.Text)
	return nil
}

// told returns what arrived since the last call.
func (s *service) told() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.joined
	s.joined = nil
	return out
}

func warning(app, reason, message string) api.Event {
	return api.Event{Type: api.Warning, Application: app, Reason: reason, Message: message}
}

func well(app string) api.Event {
	return api.Event{Type: api.Normal, Application: app, Reason: "Applied", Message: "applied 1234567 fix"}
}

// running starts a Notifier in a bubble; it stops at the end of the test.
func running(t *testing.T, o Options) *Notifier {
	t.Helper()
	o.Host, o.Installation, o.Log = "web1", "fairlead", zerolog.Nop()
	n := New(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = n.Run(ctx) // it returns nil
	}()
	t.Cleanup(func() { cancel(); <-done })
	return n
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("told (-want +got)\n%s", d)
	}
}

func TestABurstIsOneMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{}
		n := running(t, Options{Channels: []Channel{{Name: "ops", Sender: s}}})
		n.Event(warning("shop", "RenderFailed", "web.yaml:4: unknown field"))
		n.Event(well("blog")) // was never ill, and nobody asked for it
		time.Sleep(5 * time.Second)
		n.Event(warning("db", "ApplyFailed", "disk full\nno space left"))
		n.Event(api.Event{Type: api.Warning, Application: "shop", Reason: "BackOff", Message: "exited with 1", Ref: object.Ref{Kind: "Pod", Namespace: "shop", Name: "web-1"}, Revision: "0123456789abcdef"})
		for range 3 {
			n.Event(warning("db", "ApplyFailed", "disk full\nno space left"))
		}
		n.Event(api.Event{Type: api.Warning, Source: "config", Reason: "FetchFailed", Message: "no route"})
		time.Sleep(9 * time.Second)
		want(t, s.told())
		time.Sleep(2 * time.Second)
		want(t, s.told(), `fairlead on web1: trouble with shop, db, source config
application shop
  RenderFailed: web.yaml:4: unknown field
  BackOff Pod shop/web-1: exited with 1

application db
  ApplyFailed: disk full
  no space left (4 times)

source config
  FetchFailed: no route
`)
	})
}

func TestTheSameIsSaidOnceUntilItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{}
		var saved map[string]Memory
		o := Options{Channels: []Channel{{Name: "ops", Sender: s, Group: time.Second}}, Save: func(m map[string]Memory) error { saved = m; return nil }}
		n := running(t, o)
		say := func(e api.Event) []string {
			n.Event(e)
			time.Sleep(2 * time.Second)
			return s.told()
		}
		const head = "fairlead on web1: "
		want(t, say(warning("shop", "ApplyFailed", "no image")), head+"shop ApplyFailed\napplication shop\n  ApplyFailed: no image\n")
		for range 3 {
			want(t, say(warning("shop", "ApplyFailed", "no image")))
		}
		want(t, say(warning("shop", "RevisionFailed", "no image")), head+"shop RevisionFailed\napplication shop\n  RevisionFailed: no image\n")
		want(t, say(warning("shop", "ApplyFailed", "no image"))) // both are known
		want(t, say(warning("shop", "ApplyFailed", "no disk")), head+"shop ApplyFailed\napplication shop\n  ApplyFailed: no disk\n")
		// After a restart it is known, too.
		o.Said = maps.Clone(saved)
		n = running(t, o)
		want(t, say(warning("shop", "ApplyFailed", "no disk")))
		want(t, say(warning("blog", "ApplyFailed", "no disk")), head+"blog ApplyFailed\napplication blog\n  ApplyFailed: no disk\n")
		// That all is well is said to whom it was said that it was not, once, and what comes again then is new.
		want(t, say(well("shop")), head+"well again: shop\napplication shop\n  well again: applied 1234567 fix\n")
		want(t, say(well("shop")))
		want(t, say(warning("shop", "ApplyFailed", "no disk")), head+"shop ApplyFailed\napplication shop\n  ApplyFailed: no disk\n")
		want(t, say(warning("blog", "ApplyFailed", "no disk")))
	})
}

func TestWhatGetsWellMeanwhileIsNewWhenItComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{}
		n := running(t, Options{Channels: []Channel{{Name: "ops", Sender: s}}})
		n.Event(warning("shop", "ApplyFailed", "no image"))
		n.Event(well("shop"))
		time.Sleep(time.Minute)
		want(t, s.told(), "fairlead on web1: trouble with shop; well again: shop\napplication shop\n  ApplyFailed: no image\n  well again: applied 1234567 fix\n")
		n.Event(warning("shop", "ApplyFailed", "no image"))
		time.Sleep(time.Minute)
		want(t, s.told(), "fairlead on web1: shop ApplyFailed\napplication shop\n  ApplyFailed: no image\n")
	})
}

func TestRepeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{}
		n := running(t, Options{Channels: []Channel{{Name: "ops", Sender: s, Group: time.Second, Repeat: time.Hour}}})
		for range 3 * 60 { // the loop tries every minute
			n.Event(warning("shop", "ApplyFailed", "no image"))
			time.Sleep(time.Minute)
		}
		if got := len(s.told()); got != 3 {
			t.Errorf("said %d times in three hours", got)
		}
	})
}

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{}
		n := running(t, Options{Channels: []Channel{{Name: "ops", Sender: s, Group: time.Second, Limit: 4}}})
		start := time.Now()
		var at []time.Duration
		s.fail = func(int) error { at = append(at, time.Since(start).Round(time.Minute)); return nil }
		for i := range 90 {
			n.Event(warning("shop", "ApplyFailed", fmt.Sprintf("failure %d", i)))
			time.Sleep(time.Minute)
		}
		if d := cmp.Diff([]time.Duration{0, time.Minute, 2 * time.Minute, 3 * time.Minute, time.Hour, 61 * time.Minute, 62 * time.Minute, 63 * time.Minute}, at); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
		// What waited is said as it is by then.
		if got := s.told()[4]; !strings.Contains(got, "failure 59 (56 times)") && !strings.Contains(got, "failure 60 (57 times)") {
			t.Errorf("got %s", got)
		}
	})
}

func TestTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{fail: func(try int) error {
			switch {
			case try == 1:
				return &Temporary{Err: errors.New("busy"), After: 10 * time.Minute}
			case try < 5:
				return &Temporary{Err: errors.New("down")}
			}
			return nil
		}}
		n := running(t, Options{Channels: []Channel{{Name: "ops", Sender: s, Group: time.Second}}})
		n.Event(warning("shop", "ApplyFailed", "no image"))
		time.Sleep(9 * time.Minute)
		if got := n.Stats()[0]; s.tries != 1 || got.Error != "busy" || got.Retries != 1 {
			t.Errorf("%d tries, %+v", s.tries, got)
		}
		n.Event(warning("blog", "ApplyFailed", "no disk")) // does not wait for this call
		time.Sleep(5 * time.Minute)
		if got := s.told(); len(got) != 2 || !strings.Contains(got[0], "shop") || !strings.Contains(got[1], "blog") {
			t.Errorf("told %q", got)
		}
		if got := n.Stats()[0]; s.tries != 6 || got.Error != "" || got.Sent != 2 || got.Failed != 0 || got.Retries != 4 {
			t.Errorf("%d tries, %+v", s.tries, got)
		}
	})
}

func TestGivesUp(t *testing.T) {
	for name, tt := range map[string]struct {
		err     error
		least   time.Duration
		longest time.Duration
	}{
		"refused":        {errors.New("no such webhook"), 0, time.Second},
		"down for hours": {&Temporary{Err: errors.New("down")}, time.Hour, time.Hour + 10*time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broken := true
				s := &service{}
				s.fail = func(int) error {
					if broken {
						return tt.err
					}
					return nil
				}
				n := running(t, Options{Channels: []Channel{{Name: "ops", Sender: s, Group: time.Second}}})
				n.Event(warning("shop", "ApplyFailed", "no image"))
				start := time.Now()
				for n.Stats()[0].Failed == 0 {
					time.Sleep(time.Second)
				}
				if took := time.Since(start); took < tt.least || took > tt.longest+2*time.Second {
					t.Errorf("gave up after %s", took)
				}
				if s.tries > 40 {
					t.Errorf("%d tries", s.tries)
				}
				// Nobody has heard it, so it is said when it comes again.
				broken = false
				n.Event(warning("shop", "ApplyFailed", "no image"))
				time.Sleep(2 * time.Second)
				if got := s.told(); len(got) != 1 {
					t.Errorf("told %q", got)
				}
			})
		})
	}
}

// Whatever a service does, taking an event returns, and what is kept is bounded.
func TestAServiceThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := running(t, Options{Channels: []Channel{{Name: "ops", Sender: hanging{}, Group: time.Second}}})
		for i := range 10_000 {
			n.Event(warning(fmt.Sprintf("app-%d", i), "ApplyFailed", "no image"))
		}
		time.Sleep(time.Minute)
		for i := range 10_000 {
			n.Event(warning(fmt.Sprintf("more-%d", i), "ApplyFailed", "no image"))
		}
		if got := n.Stats()[0]; got.Waiting != maxWaiting || got.Dropped != 20_000-2*maxWaiting {
			t.Errorf("%+v", got)
		}
	})
}

type hanging struct{}

func (hanging) Send(ctx context.Context, _ Message) error {
	<-ctx.Done()
	return &Temporary{Err: ctx.Err()}
}

func TestManyAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{}
		n := running(t, Options{Channels: []Channel{{Name: "ops", Sender: s}}})
		for i := range maxWaiting + 7 {
			n.Event(warning(fmt.Sprintf("app-%03d", i), "ApplyFailed", "no image"))
		}
		time.Sleep(time.Minute)
		got := s.told()
		if len(got) != 1 || !strings.HasPrefix(got[0], "fairlead on web1: trouble with app-000, app-001, app-002 and 197 more\n") || !strings.HasSuffix(got[0], "and 7 events more: see `fairlead events`\n") {
			t.Errorf("told %.300q", got)
		}
	})
}

func TestTheEndTellsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{}
		n := New(Options{Host: "web1", Channels: []Channel{{Name: "ops", Sender: s}, {Name: "hangs", Sender: hanging{}}}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = n.Run(ctx) }()
		n.Event(warning("shop", "ApplyFailed", "no image"))
		synctest.Wait()
		cancel()
		start := time.Now()
		<-done
		if got := s.told(); len(got) != 1 || time.Since(start) > lastTry {
			t.Errorf("told %q after %s", got, time.Since(start))
		}
	})
}

func TestRules(t *testing.T) {
	rule := func(r Rule, selector string) Rule {
		t.Helper()
		out, err := NewRule(r, selector)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	labels := func(app string) map[string]string { return map[string]string{"team": strings.TrimSuffix(app, "-app")} }
	for name, tt := range map[string]struct {
		events, exclude []Rule
		event           api.Event
		want            bool
	}{
		"a warning":                    {event: warning("shop-app", "X", ""), want: true},
		"something normal":             {event: well("shop-app")},
		"a step":                       {event: api.Event{Type: api.Warning, Application: "shop-app", Step: &api.StepProgress{}}},
		"a reason":                     {events: []Rule{rule(Rule{Reasons: []string{"Other", "Roll*"}}, "")}, event: api.Event{Type: api.Normal, Reason: "RolledBack"}, want: true},
		"another reason":               {events: []Rule{rule(Rule{Reasons: []string{"Roll*"}}, "")}, event: warning("shop-app", "Drift", "")},
		"a pattern is whole":           {events: []Rule{rule(Rule{Reasons: []string{"Roll"}}, "")}, event: warning("shop-app", "RolledBack", "")},
		"a dot is a dot":               {events: []Rule{rule(Rule{Applications: []string{"shop.app"}}, "")}, event: warning("shop-app", "Drift", "")},
		"an application in a slash":    {events: []Rule{rule(Rule{Applications: []string{"*/shop"}}, "")}, event: warning("flux-system/shop", "Drift", ""), want: true},
		"an application, not a source": {events: []Rule{rule(Rule{Applications: []string{"shop"}}, "")}, event: api.Event{Type: api.Warning, Source: "shop"}},
		"a source":                     {events: []Rule{rule(Rule{Sources: []string{"sh*p"}}, "")}, event: api.Event{Type: api.Warning, Source: "shop"}, want: true},
		"a label":                      {events: []Rule{rule(Rule{}, "team in (shop, blog)")}, event: warning("shop-app", "X", ""), want: true},
		"another label":                {events: []Rule{rule(Rule{}, "team=blog")}, event: warning("shop-app", "X", "")},
		"a label of no application":    {events: []Rule{rule(Rule{}, "team!=blog")}, event: api.Event{Type: api.Warning, Source: "shop"}},
		"severity":                     {events: []Rule{rule(Rule{Severity: api.Warning}, "")}, event: well("shop-app")},
		"excluded":                     {exclude: []Rule{rule(Rule{Reasons: []string{"Drift"}}, "")}, event: warning("shop-app", "Drift", "")},
		"excluded from what is asked": {
			events: []Rule{rule(Rule{Applications: []string{"*"}}, "")}, exclude: []Rule{rule(Rule{Applications: []string{"test-*"}}, "")}, event: warning("test-1", "Drift", ""),
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := New(Options{Channels: []Channel{{Name: "ops", Sender: hanging{}, Events: tt.events, Exclude: tt.exclude}}, Labels: labels})
			n.Event(tt.event)
			if got := n.Stats()[0].Queued == 1; got != tt.want {
				t.Errorf("told: %v", got)
			}
		})
	}
	if _, err := NewRule(Rule{}, "team in"); err == nil {
		t.Error("half a selector is taken")
	}
}

// What strangers write into a repository comes out as a text: no control characters, no change of direction.
func TestHostileText(t *testing.T) {
	i := itemOf(warning("shop\x1b[31m", "X\x00", "a\u202eb\tc\r\n\xff"+strings.Repeat("é", 5000)), time.Now())
	if i.Application != "shop[31m" || i.Reason != "X" || !strings.HasPrefix(i.Message, "ab c \n\uFFFDé") || len(i.Message) > 4000 || !strings.HasSuffix(i.Message, "é…") {
		t.Errorf("%.60q %d", i.Message, len(i.Message))
	}
}

func TestMemoryIsBounded(t *testing.T) {
	now := time.Now()
	b := inbox{group: 0, limit: 1 << 30}
	for i := range 3 * maxSaid {
		b.add(warning(fmt.Sprintf("app-%d", i), "X", "x"), true, now.Add(time.Duration(i)*time.Second))
		b.take(now.Add(time.Duration(i)*time.Second), true)
	}
	if _, ok := b.said[fmt.Sprintf("application app-%d\x00\x00X", 3*maxSaid-1)]; len(b.said) > maxSaid || !ok {
		t.Errorf("%d are remembered, the newest %v", len(b.said), ok)
	}
}

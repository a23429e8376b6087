// Package notify tells people what happens: it turns the daemon's events into messages for chats, mailboxes and whatever
// takes a request. Much at a time is one message, the same is said once, and what cannot be delivered is nobody's reason to
// wait: taking an event never blocks and never fails.
package notify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/fairlead-dev/fairlead/daemon/api"
)

const (
	firstPause   = time.Second     // before the second try of a message; it doubles
	longestPause = 5 * time.Minute // between two tries
	patience     = time.Hour       // that a message is tried
	tryTimeout   = 30 * time.Second
	lastTry      = 2 * time.Second // that what waits has when the daemon ends
)

// Sender delivers messages to one place.
type Sender interface {
	// Send delivers a message and waits until it is taken. A message that is sent again has the same ID. What is worth
	// another try is an error that wraps Temporary.
	Send(ctx context.Context, m Message) error
}

// Temporary is an error that may be gone at another try.
type Temporary struct {
	Err error
	// After is how long the service asks to be left alone; 0 when it does not say.
	After time.Duration
}

// Error implements error.
func (t *Temporary) Error() string { return t.Err.Error() }

// Unwrap returns Err.
func (t *Temporary) Unwrap() error { return t.Err }

// Channel is one place that is told.
type Channel struct {
	Name string
	// Kind is that of the service, for people.
	Kind   string
	Sender Sender
	// Events say what is told: what one of them matches. Without any it is every warning. Exclude takes away from that.
	Events, Exclude []Rule
	// Group is how long further events are waited for after the first. Default 15 s.
	Group time.Duration
	// Repeat is after what time something that is still so is said again; 0 for never.
	Repeat time.Duration
	// Limit is how many messages are sent in any hour at most; what comes meanwhile is in the next one. Default 60.
	Limit int
}

// Options are what a Notifier is made from.
type Options struct {
	Channels []Channel
	// Host and Installation say in messages where they come from.
	Host, Installation string
	// Labels returns the labels of an application.
	Labels func(application string) map[string]string
	// Said is what was said before this start, and Save keeps what was said, by channel.
	Said map[string]Memory
	Save func(map[string]Memory) error
	Log  zerolog.Logger
}

// ErrUnknown: there is no channel of that name.
var ErrUnknown = errors.New("no such channel")

// Notifier takes events and sends messages.
type Notifier struct {
	options  Options
	channels []*channel
	saving   sync.Mutex
}

// channel is one Channel at work.
type channel struct {
	Channel
	wake chan struct{}

	mu    sync.Mutex
	inbox inbox
	stats Stats
}

// Stats are what became of one channel's events and messages since the start.
type Stats struct {
	Channel, Kind string
	// Queued, Repeated, Excluded and Dropped count events: that were told, that were said before, that no rule wants, and
	// that were too many to be told one by one.
	Queued, Repeated, Excluded, Dropped uint64
	// Sent and Failed count messages, Retries what was tried again.
	Sent, Failed, Retries uint64
	// Waiting is the number of events that wait for the next message.
	Waiting int
	// LastSent is when a message was delivered last, Error why the last try failed; empty after one that did not.
	LastSent time.Time
	Error    string
	Since    time.Time // of Error
}

// New returns a Notifier. Events are taken from now on, and messages sent while Run runs.
func New(o Options) *Notifier {
	n := &Notifier{options: o}
	for _, c := range o.Channels {
		c.Group, c.Limit = cmp.Or(c.Group, 15*time.Second), cmp.Or(c.Limit, 60)
		n.channels = append(n.channels, &channel{
			Channel: c, wake: make(chan struct{}, 1), stats: Stats{Channel: c.Name, Kind: c.Kind},
			inbox: inbox{group: c.Group, repeat: c.Repeat, limit: c.Limit, said: maps.Clone(o.Said[c.Name])},
		})
	}
	return n
}

// Event takes an event. It returns at once. A nil Notifier tells nobody.
func (n *Notifier) Event(e api.Event) {
	if n == nil || e.Step != nil { // the progress of a plan is for those who watch
		return
	}
	var labels map[string]string
	if n.options.Labels != nil && e.Application != "" {
		labels = n.options.Labels(e.Application)
	}
	now := time.Now()
	for _, c := range n.channels {
		c.mu.Lock()
		switch c.inbox.add(e, c.wants(e, labels), now) {
		case excluded:
			c.stats.Excluded++
		case repeated:
			c.stats.Repeated++
		case overflowed:
			c.stats.Dropped++
		case queued:
			c.stats.Queued++
		}
		c.mu.Unlock()
		c.poke()
	}
}

func (c *channel) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// wants reports whether the rules of a channel want an event.
func (c *channel) wants(e api.Event, labels map[string]string) bool {
	matches := func(r Rule) bool { return r.matches(e, labels) }
	if len(c.Events) == 0 {
		return e.Type == api.Warning && !slices.ContainsFunc(c.Exclude, matches)
	}
	return slices.ContainsFunc(c.Events, matches) && !slices.ContainsFunc(c.Exclude, matches)
}

// Run sends messages until ctx ends; what waits then is tried once more.
func (n *Notifier) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	for _, c := range n.channels {
		workers.Go(func() { n.work(ctx, c) })
	}
	workers.Wait()
	return nil
}

func (n *Notifier) work(ctx context.Context, c *channel) {
	for {
		c.mu.Lock()
		batch, ok, due := c.inbox.take(time.Now(), false)
		c.mu.Unlock()
		if ok {
			n.deliver(ctx, c, batch)
			continue
		}
		var timer <-chan time.Time
		if !due.IsZero() {
			timer = time.After(time.Until(due))
		}
		select {
		case <-ctx.Done():
			c.mu.Lock()
			batch, ok, _ := c.inbox.take(time.Now(), true)
			c.mu.Unlock()
			if ok {
				last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTry)
				defer cancel()
				n.end(c, batch, c.Sender.Send(last, n.message(batch)))
			}
			return
		case <-c.wake:
		case <-timer:
		}
	}
}

// deliver sends a batch, and tries again what may go better.
func (n *Notifier) deliver(ctx context.Context, c *channel, b batch) {
	m, began, pause := n.message(b), time.Now(), firstPause
	for {
		try, cancel := context.WithTimeout(ctx, tryTimeout)
		err := c.Sender.Send(try, m)
		cancel()
		var t *Temporary
		if err == nil || !errors.As(err, &t) || ctx.Err() != nil || time.Since(began) >= patience {
			n.end(c, b, err)
			return
		}
		wait := min(max(pause/2+rand.N(pause), t.After), patience)
		pause = min(2*pause, longestPause)
		c.mu.Lock()
		c.stats.Retries++
		first := c.stats.Error == ""
		c.failed(err)
		c.mu.Unlock()
		if first {
			n.options.Log.Warn().Str("channel", c.Name).Err(err).Msg("a notification was not delivered; it is tried again")
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// failed notes why a try failed; c.mu is held.
func (c *channel) failed(err error) {
	if c.stats.Error == "" {
		c.stats.Since = time.Now()
	}
	c.stats.Error = err.Error()
}

// end is what follows from how a batch ended.
func (n *Notifier) end(c *channel, b batch, err error) {
	c.mu.Lock()
	if err != nil {
		c.stats.Failed++
		c.inbox.unsay(b) // nobody has heard it, so it is said when it comes again
		c.failed(err)
	} else {
		c.stats.Sent++
		c.stats.LastSent, c.stats.Error, c.stats.Since = time.Now(), "", time.Time{}
	}
	c.mu.Unlock()
	if err != nil {
		n.options.Log.Warn().Str("channel", c.Name).Err(err).Int("events", len(b.items)).Msg("a notification is given up")
		return
	}
	n.options.Log.Debug().Str("channel", c.Name).Int("events", len(b.items)).Msg("notified")
	n.save()
}

func (n *Notifier) save() {
	if n.options.Save == nil {
		return
	}
	n.saving.Lock()
	defer n.saving.Unlock()
	all := map[string]Memory{}
	for _, c := range n.channels {
		c.mu.Lock()
		all[c.Name] = maps.Clone(c.inbox.said)
		c.mu.Unlock()
	}
	if err := n.options.Save(all); err != nil {
		n.options.Log.Warn().Err(err).Msg("what was said cannot be kept: after a restart it may be said again")
	}
}

// Test sends a message to a channel that says that it works. ErrUnknown when there is none.
func (n *Notifier) Test(ctx context.Context, name string) error {
	for _, c := range n.channels {
		if c.Name != name {
			continue
		}
		now := time.Now()
		err := c.Sender.Send(ctx, Message{
			ID: id(), Time: now, Title: n.from() + ": test", Severity: api.Normal, Host: n.options.Host, Installation: n.options.Installation, Test: true,
			Items: []Item{{Subject: "channel " + name, Severity: api.Normal, Reason: "Test", Message: "This channel works. Nothing happened.", Time: now, Count: 1}},
		})
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil {
			c.failed(err)
			return fmt.Errorf("send to channel %s: %w", name, err)
		}
		c.stats.LastSent, c.stats.Error, c.stats.Since = time.Now(), "", time.Time{}
		return nil
	}
	return ErrUnknown
}

// Stats returns what became of every channel's events and messages.
func (n *Notifier) Stats() []Stats {
	if n == nil {
		return nil
	}
	var out []Stats
	for _, c := range n.channels {
		c.mu.Lock()
		s := c.stats
		s.Waiting = len(c.inbox.waiting)
		c.mu.Unlock()
		out = append(out, s)
	}
	return out
}

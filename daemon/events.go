package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/api"
)

// events keeps the newest events, and tells everyone who follows them or waits for any change.
type events struct {
	keep int

	mu   sync.Mutex
	seq  uint64
	ring []api.Event
	// changed is closed and replaced with every event and every other change.
	changed chan struct{}
}

func newEvents(keep int) *events {
	if keep <= 0 {
		keep = 1000
	}
	return &events{keep: keep, changed: make(chan struct{})}
}

// add keeps e. An event that equals a kept one of the last ten minutes but for its time is counted there.
func (l *events) add(e api.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	e.Seq, e.Count = l.seq, 1
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	for i := len(l.ring) - 1; i >= max(0, len(l.ring)-100); i-- {
		k := l.ring[i]
		if k.Reason == e.Reason && k.Message == e.Message && k.Ref == e.Ref && k.Application == e.Application &&
			k.Revision == e.Revision && k.Step == nil && e.Step == nil && e.Time.Sub(k.Time) < 10*time.Minute {
			e.Count = k.Count + 1
			l.ring = append(l.ring[:i:i], l.ring[i+1:]...)
			break
		}
	}
	if len(l.ring) >= l.keep {
		l.ring = append([]api.Event(nil), l.ring[len(l.ring)-l.keep+1:]...)
	}
	l.ring = append(l.ring, e)
	l.wake()
}

// touch tells those who watch that something changed that is not an event.
func (l *events) touch() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wake()
}

func (l *events) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// list returns the kept events that match q, oldest first, the highest number so far, and a channel
// that is closed at the next change.
func (l *events) list(q api.EventQuery) ([]api.Event, uint64, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []api.Event
	for _, e := range l.ring {
		if q.Match(e) {
			out = append(out, e)
		}
	}
	if q.Tail > 0 && len(out) > q.Tail {
		out = out[len(out)-q.Tail:]
	}
	return out, l.seq, l.changed
}

// follow calls on for what matches q, until ctx ends or on fails.
func (l *events) follow(ctx context.Context, q api.EventQuery, on func(api.Event) error) error {
	for {
		found, seq, changed := l.list(q)
		for _, e := range found {
			if err := on(e); err != nil {
				return err
			}
		}
		if !q.Follow {
			return nil
		}
		q.After, q.Tail = seq, 0
		if seq == 0 {
			q.Since = time.Time{}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// watch calls changed at first and after every change until ctx ends.
func (l *events) watch(ctx context.Context, changed func()) error {
	for {
		_, _, next := l.list(api.EventQuery{Tail: 1})
		changed()
		select {
		case <-ctx.Done():
			return nil
		case <-next:
		}
		// What changes together is told once.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

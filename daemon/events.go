package daemon

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/api"
)

// events keeps the newest events, and tells everyone who follows them or waits for any change.
type events struct {
	keep int

	mu  sync.Mutex
	seq uint64
	all []api.Event // the newest keep of them, and up to as many before
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
	kept := l.kept()
	for i := len(kept) - 1; i >= max(0, len(kept)-100); i-- {
		k := &kept[i]
		if k.Reason == e.Reason && k.Message == e.Message && k.Ref == e.Ref && k.Application == e.Application &&
			k.Revision == e.Revision && k.Step == nil && e.Step == nil && e.Time.Sub(k.Time) < 10*time.Minute {
			e.Count = k.Count + 1
			l.all = slices.Delete(l.all, len(l.all)-len(kept)+i, len(l.all)-len(kept)+i+1)
			break
		}
	}
	if len(l.all) >= 2*l.keep {
		l.all = slices.Delete(l.all, 0, len(l.all)-l.keep) // now and then, so that an event costs what it is
	}
	l.all = append(l.all, e)
	l.wake()
}

// kept are the events that are to be had.
func (l *events) kept() []api.Event { return l.all[max(0, len(l.all)-l.keep):] }

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
	for _, e := range slices.Backward(l.kept()) {
		if q.Tail > 0 && len(out) == q.Tail || e.Seq <= q.After {
			break
		}
		if q.Match(e) {
			out = append(out, e)
		}
	}
	slices.Reverse(out)
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

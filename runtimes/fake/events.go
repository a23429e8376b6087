package fake

import (
	"context"
	"fmt"

	"github.com/fairlead-dev/fairlead/runtimes"
)

type subscriber struct {
	installation string
	queue        []runtimes.Event
	// lost is true when the connection broke: a gap comes first when it is there again.
	lost bool
}

// Events implements runtimes.Engine. It returns when ctx ends or the engine is closed.
func (e *Engine) Events(ctx context.Context, on func(runtimes.Event)) error {
	c := Call{Kind: CallEvents}
	f := e.begin(&c)
	if err := wait(ctx, f.Delay); err != nil {
		return err
	}
	if f.Hang {
		<-ctx.Done()
		return ctx.Err()
	}
	s := &subscriber{installation: e.installation, lost: true}
	e.mu.Lock()
	e.subs[s] = struct{}{}
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.subs, s)
	}()
	for {
		e.mu.Lock()
		closed, changed := e.closed, e.changed
		var batch []runtimes.Event
		if !e.down {
			if s.lost {
				batch = append(batch, runtimes.Event{Kind: runtimes.EventGap, Time: e.now()})
				s.lost = false
			}
			batch = append(batch, s.queue...)
			s.queue = nil
		}
		e.mu.Unlock()
		for _, ev := range batch {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			on(ev)
		}
		if closed {
			return fmt.Errorf("events: the engine is closed: %w", runtimes.ErrUnavailable)
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// DropEvents makes the engine lose all events from now on, without a gap, or stop doing so.
func (e *Engine) DropEvents(drop bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dropEvents = drop
}

// Disconnect breaks all streams of events. What was not delivered yet is lost and a gap is delivered.
func (e *Engine) Disconnect() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for s := range e.subs {
		s.queue, s.lost = nil, true
	}
	e.change()
}

// emit tells an installation what happened to one of its containers. The caller holds the lock.
func (m *machine) emit(c *container, kind runtimes.EventKind) { m.emitSignal(c, kind, "") }

// emitSignal is emit of what has a signal.
func (m *machine) emitSignal(c *container, kind runtimes.EventKind, signal string) {
	defer m.change()
	if c.owner == "" || m.dropEvents || m.down {
		return
	}
	id := c.Identity
	id.Spec = ""
	ev := runtimes.Event{Kind: kind, ContainerID: c.ID, Identity: id, Signal: signal, Time: m.now()}
	if kind == runtimes.EventDie {
		ev.ExitCode = c.ExitCode
	}
	for s := range m.subs {
		if !s.lost && s.installation == c.owner {
			s.queue = append(s.queue, ev)
		}
	}
}

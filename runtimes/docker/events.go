package docker

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// Pauses between two tries to connect.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Events calls on for every event. The engine drops events for readers that are slow, so on must not
// block, and what may have been missed is told as a gap.
func (e *Engine) Events(ctx context.Context, on func(runtimes.Event)) error {
	pause := firstPause
	for {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if e.listen(ctx, on) {
			pause = firstPause
		}
		e.watching(false)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// listen delivers events until the connection ends, and reports whether there was one.
func (e *Engine) listen(ctx context.Context, on func(runtimes.Event)) (connected bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e.mu.Lock()
	e.drop = cancel
	e.mu.Unlock()
	if _, err := e.cli.Ping(ctx); err != nil {
		return false
	}
	// The engine answers a moment before the subscription is made. Asking for what happened since now closes
	// that hole: nothing falls between a list that follows the gap and the stream.
	now := time.Now()
	messages, errs := e.cli.Events(ctx, events.ListOptions{
		Since: fmt.Sprintf("%d.%09d", now.Unix(), now.Nanosecond()),
		Filters: filters.NewArgs(
			filters.Arg("type", string(events.ContainerEventType)),
			filters.Arg("label", labelInstallation+"="+e.opt.Installation),
		),
	})
	e.watching(true)
	on(runtimes.Event{Kind: runtimes.EventGap, Time: now})
	for {
		select {
		case m := <-messages:
			if ev, ok := e.event(m); ok {
				e.forget(ev.ContainerID)
				on(ev)
			}
		case _ = <-errs:
			return true
		}
	}
}

// dropEvents ends the connection that events come over, as a network does. It is for tests.
func (e *Engine) dropEvents() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.drop != nil {
		e.drop()
	}
}

// watching says whether what was inspected may be remembered.
func (e *Engine) watching(on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.watched = on
	e.changes++
	clear(e.known)
}

var kinds = map[events.Action]runtimes.EventKind{
	events.ActionStart: runtimes.EventStart, events.ActionDie: runtimes.EventDie, events.ActionOOM: runtimes.EventOOM,
	events.ActionDestroy: runtimes.EventRemove, events.ActionUpdate: runtimes.EventUpdate, events.ActionPause: runtimes.EventPause,
	events.ActionUnPause: runtimes.EventUnpause, events.ActionRename: runtimes.EventRename,
}

// event reads a message; false when it is none of ours or says nothing new.
func (e *Engine) event(m events.Message) (runtimes.Event, bool) {
	kind, ok := kinds[m.Action]
	if !ok {
		return runtimes.Event{}, false
	}
	id, ours := e.identity(m.Actor.Attributes)
	if !ours {
		return runtimes.Event{}, false
	}
	id.Spec = ""
	ev := runtimes.Event{Kind: kind, ContainerID: m.Actor.ID, Identity: id, Time: time.Unix(0, m.TimeNano)}
	if kind == runtimes.EventDie {
		ev.ExitCode, _ = strconv.Atoi(m.Actor.Attributes["exitCode"]) // the engine always says it
	}
	return ev, true
}

package docker

import (
	"context"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"golang.org/x/sys/unix"

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
		e.memory.watching(false)
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
	if e.check(ctx) != nil || e.ping(ctx, false) != nil {
		return false
	}
	// The engine answers a moment before the subscription is made. Asking for what happened since now closes
	// that hole: nothing falls between a list that follows the gap and the stream.
	now := time.Now()
	var messages <-chan events.Message
	var errs <-chan error
	stop, err := e.answered(ctx, func(ctx context.Context) error {
		messages, errs = e.cli.Events(ctx, events.ListOptions{
			Since: fmt.Sprintf("%d.%09d", now.Unix(), now.Nanosecond()),
			Filters: filters.NewArgs(
				filters.Arg("type", string(events.ContainerEventType)),
				filters.Arg("label", labelInstallation+"="+e.opt.Installation),
			),
		})
		return nil
	})
	defer stop()
	if err != nil {
		return false
	}
	e.memory.watching(true)
	on(runtimes.Event{Kind: runtimes.EventGap, Time: now})
	for {
		select {
		case m := <-messages:
			if ev, ok := e.event(m); ok {
				on(ev)
			}
		case <-errs: //nolint:errcheck // whatever ended it, there was a connection and the next one is tried
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

var kinds = map[events.Action]runtimes.EventKind{
	events.ActionStart: runtimes.EventStart, events.ActionDie: runtimes.EventDie, events.ActionOOM: runtimes.EventOOM,
	events.ActionDestroy: runtimes.EventRemove, events.ActionUpdate: runtimes.EventUpdate, events.ActionPause: runtimes.EventPause,
	events.ActionUnPause: runtimes.EventUnpause, events.ActionRename: runtimes.EventRename,
	events.ActionKill: runtimes.EventKill,
}

// event reads a message and forgets what it makes wrong; false when it is none of ours or says nothing new.
func (e *Engine) event(m events.Message) (runtimes.Event, bool) {
	kind, ok := kinds[m.Action]
	if !ok {
		return runtimes.Event{}, false
	}
	id, v := e.memory.owner(m.Actor.ID)
	if kind != runtimes.EventKill { // what becomes of a signal is another event
		e.memory.forget(m.Actor.ID, kind == runtimes.EventRemove)
	}
	if v == unknown {
		who, genuine := e.identity(m.Actor.Attributes, m.Actor.Attributes["image"])
		switch {
		case !genuine:
		case m.Actor.Attributes["name"] == e.name(who):
			id, v = who, ours
		case kind != runtimes.EventRemove:
			// Whose it is follows from a list only.
			return runtimes.Event{Kind: runtimes.EventGap, Time: time.Unix(0, m.TimeNano)}, true
		default:
			id, v = who, ours // it is gone, whose it ever was
		}
	}
	if v != ours {
		return runtimes.Event{}, false
	}
	id.Spec = ""
	ev := runtimes.Event{Kind: kind, ContainerID: m.Actor.ID, Identity: id, Time: time.Unix(0, m.TimeNano)}
	if kind == runtimes.EventDie {
		ev.ExitCode, _ = strconv.Atoi(m.Actor.Attributes["exitCode"]) // the engine always says it
	}
	if kind == runtimes.EventKill {
		ev.Signal = signalName(m.Actor.Attributes["signal"])
	}
	return ev, true
}

// signalName is the name of a signal that the engine says by its number.
func signalName(number string) string {
	n, err := strconv.Atoi(number)
	if err != nil {
		return number
	}
	if name := unix.SignalName(syscall.Signal(n)); name != "" {
		return name
	}
	return "signal " + number
}

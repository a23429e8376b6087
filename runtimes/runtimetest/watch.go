package runtimetest

import (
	"context"
	"errors"
	"sync"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// watcher collects the events of an engine.
type watcher struct {
	h      *harness
	mu     sync.Mutex
	events []runtimes.Event
	more   chan struct{} // closed and replaced when there are more events
	seen   int           // how many await has passed
}

// watch begins to collect events; it returns after the first EventGap, so that everything from now
// on is seen. It ends with the test.
func (h *harness) watch(e runtimes.Engine) *watcher {
	h.Helper()
	w := &watcher{h: h, more: make(chan struct{})}
	ctx, cancel := context.WithCancel(h.ctx)
	done := make(chan error, 1)
	go func() { done <- e.Events(ctx, w.add) }()
	h.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) && err != nil {
			h.Errorf("Events returned %v after its context was canceled", err)
		}
	})
	w.await(runtimes.EventGap, "")
	return w
}

func (w *watcher) add(ev runtimes.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, ev)
	close(w.more)
	w.more = make(chan struct{})
}

// await returns the next event of a kind about a container, and passes all before it.
func (w *watcher) await(kind runtimes.EventKind, id string) runtimes.Event {
	w.h.Helper()
	for {
		w.mu.Lock()
		more := w.more
		for ; w.seen < len(w.events); w.seen++ {
			if ev := w.events[w.seen]; ev.Kind == kind && ev.ContainerID == id {
				w.seen++
				w.mu.Unlock()
				return ev
			}
		}
		w.mu.Unlock()
		select {
		case <-more:
		case <-w.h.ctx.Done():
			w.h.Fatalf("no event %s of container %q came; those that came: %+v", kind, id, w.all())
		}
	}
}

// all returns the events so far.
func (w *watcher) all() []runtimes.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]runtimes.Event(nil), w.events...)
}

package executor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/probes"

	corev1 "k8s.io/api/core/v1"
)

const (
	// listTimeout is how long the engine may take to list: an engine that takes longer hangs.
	listTimeout = 30 * time.Second
	// listEvery is how often everything is listed though nothing seems to be missed. It finds an engine
	// that hangs, events that were lost in silence, and a network that was taken away.
	listEvery = 2 * time.Minute
	// beatEvery is how often the engine is asked whether it is there. One that does not say so within beatTimeout is
	// suspected, and asked for everything.
	beatEvery   = 5 * time.Second
	beatTimeout = 2 * time.Second
	// silence is how long an engine may leave every question without an answer before it counts as one that does not
	// answer. A slow engine, which takes longer to list but answers something, does not.
	silence = 10 * time.Second
	// heedAfter is how long a list may take before the engine is asked for something else beside it.
	heedAfter = time.Second
	// listRetryMax bounds the back-off while the engine does not answer.
	listRetryMax = 15 * time.Second
)

// spawn runs f in a goroutine that Close waits for; false when the node is closed.
func (n *Node) spawn(f func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.wg.Go(f)
	return true
}

// follow passes the engine's events on until the node is closed.
func (n *Node) follow() {
	for n.ctx.Err() == nil {
		err := n.opt.Engine.Events(n.ctx, n.onEvent)
		if n.ctx.Err() != nil {
			return
		}
		if err != nil {
			n.opt.OnTrouble(fmt.Errorf("follow the engine's events: %w", err))
		}
		n.askList()
		select {
		case <-n.ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (n *Node) onEvent(e runtimes.Event) {
	if e.Kind == runtimes.EventGap {
		n.mu.Lock()
		n.gap = true
		n.mu.Unlock()
		n.askList()
		return
	}
	n.mu.Lock()
	p := n.pods[e.Identity.UID]
	n.mu.Unlock()
	if p != nil {
		p.tell(func() { p.engineEvent(e) })
	} else if e.Kind == runtimes.EventStart {
		n.askList() // a pod of ours that this node did not know
	}
}

func (n *Node) askList() {
	select {
	case n.relist <- struct{}{}:
	default:
	}
}

// suspect asks for a list when an error says that the engine does not answer.
func (n *Node) suspect(err error) {
	if errors.Is(err, runtimes.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		n.askList()
	}
}

// lists lists the engine's containers at first, after every gap in the events, and now and then.
func (n *Node) lists() {
	wait := time.Duration(0)
	failures := 0
	for {
		asked := n.rest(wait)
		if n.ctx.Err() != nil {
			n.sync()
			return
		}
		err := n.list(asked)
		wait, failures = listEvery, 0
		if err != nil {
			failures++
			wait = min(retryFirst<<min(failures-1, 8), listRetryMax)
		} else if n.orphaned() {
			wait = orphanAge
		}
		n.sync()
	}
}

// rest waits until it is time to list again: after a while, when somebody asks, or when the engine
// turns out to be away. It returns since when a question to the engine has had no answer.
func (n *Node) rest(wait time.Duration) (asked time.Time) {
	until := time.Now().Add(wait)
	for {
		left := time.Until(until)
		if left <= 0 {
			return time.Now()
		}
		timer := time.NewTimer(min(left, beatEvery))
		select {
		case <-n.ctx.Done():
			timer.Stop()
			return time.Now()
		case <-n.relist:
			timer.Stop()
			return time.Now()
		case <-timer.C:
		}
		if asked = time.Now(); asked.Before(until) && !n.beats() {
			return asked
		}
	}
}

// beats reports whether the engine is there.
func (n *Node) beats() bool {
	ctx, cancel := context.WithTimeout(n.ctx, beatTimeout)
	defer cancel()
	_, err := n.opt.Engine.Info(ctx)
	return err == nil
}

// heed tells of an engine that leaves a list, and what it is asked beside it, without an answer. ctx ends when the
// list has one.
func (n *Node) heed(ctx context.Context, asked time.Time) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(heedAfter):
	}
	bounded, cancel := context.WithDeadline(ctx, asked.Add(silence))
	defer cancel()
	_, err := n.opt.Engine.Info(bounded)
	// An engine that refuses refuses to list, too.
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		n.turn(fmt.Errorf("no answer to anything within %v: %w", silence, err))
	}
}

// list looks at the whole engine once, of which an answer is awaited since asked.
func (n *Node) list(asked time.Time) error {
	ctx, cancel := context.WithTimeout(n.ctx, listTimeout)
	defer cancel()
	n.mu.Lock()
	gap := n.gap
	n.gap = false
	n.mu.Unlock()
	began := time.Now()
	heeding, stop := context.WithCancel(ctx)
	var heed sync.WaitGroup
	heed.Go(func() { n.heed(heeding, asked) })
	err := n.look(ctx, began, gap)
	stop()
	heed.Wait()
	if n.ctx.Err() != nil {
		return err
	}
	if err != nil && gap {
		n.mu.Lock()
		n.gap = true
		n.mu.Unlock()
	}
	n.turn(err)
	return err
}

// turn keeps whether the engine answers, and why not, and tells of a change.
func (n *Node) turn(err error) {
	n.mu.Lock()
	turned := n.stale != (err != nil)
	if err != nil && !n.stale {
		n.away = time.Now()
	}
	n.stale, n.staleErr = err != nil, err
	pods := make([]*pod, 0, len(n.pods))
	for _, uid := range sortedUIDs(n.pods) {
		pods = append(pods, n.pods[uid])
	}
	if turned {
		n.state = nil
		n.wakeWatchers()
	}
	n.mu.Unlock()
	if turned {
		if err != nil {
			n.opt.OnTrouble(fmt.Errorf("the engine does not answer: %w", err))
		}
		for _, p := range pods {
			p.tell(func() {}) // what waited goes on
		}
	}
	if err != nil {
		n.sync() // who waits for the first look is told
	}
}

func (n *Node) look(ctx context.Context, began time.Time, gap bool) error {
	if gap || n.Info().Name == "" && n.Info().Version == "" {
		info, err := n.opt.Engine.Info(ctx)
		if err != nil {
			return fmt.Errorf("ask the engine what it is: %w", err)
		}
		n.setInfo(info)
	}
	found, err := n.opt.Engine.List(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	if err := n.keepNetwork(ctx); err != nil {
		n.opt.OnTrouble(err)
	}
	n.adopt(ctx, began, found, gap)
	return nil
}

// Info returns what the engine last said of itself.
func (n *Node) Info() runtimes.EngineInfo {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.info
}

func (n *Node) setInfo(info runtimes.EngineInfo) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.info = info
	if slots := 2 * info.CPUs; n.opt.Slots <= 0 && slots > 0 && slots != cap(n.slots) {
		n.slots = make(chan struct{}, slots)
	}
	n.state = nil
}

func (n *Node) isStale() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stale
}

// watchedProber makes attempts unless they could say nothing: a container that somebody paused is not
// unhealthy, and neither is one whose engine does not answer.
type watchedProber struct{ n *Node }

func (w watchedProber) Probe(ctx context.Context, p *corev1.Probe, c *corev1.Container, t probes.Target) (probes.Outcome, error) {
	if w.n.isPaused(t.ContainerID) {
		return probes.Outcome{}, errors.New("the container is paused")
	}
	out, err := w.n.prober.Probe(ctx, p, c, t)
	if err == nil && !out.Success && w.n.isPaused(t.ContainerID) {
		return probes.Outcome{}, errors.New("the container is paused")
	}
	return out, err
}

func (n *Node) isPaused(id string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.paused[id]
}

func (n *Node) setPaused(id string, paused bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if paused {
		n.paused[id] = true
	} else {
		delete(n.paused, id)
	}
}

func (n *Node) onVerdict(r probes.Result) {
	n.mu.Lock()
	p := n.pods[r.UID]
	n.mu.Unlock()
	if p != nil {
		p.tell(func() { p.onVerdict(r) })
	}
}

// find returns the pod of that name; one that is not on its way out when there are several.
func (n *Node) find(key plan.PodKey) *pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.findLocked(key)
}

func (n *Node) findLocked(key plan.PodKey) *pod {
	var found *pod
	for _, p := range n.pods {
		if p.key == key && (found == nil || found.seen.Terminating) {
			found = p
		}
	}
	return found
}

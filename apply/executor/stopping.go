package executor

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// beginStop makes a container stop by the deadline.
func (p *pod) beginStop(c *container, deadline time.Time) {
	if c.stop != nil {
		c.stop.deadline = deadline
		return
	}
	c.stop = &stopping{deadline: deadline}
	p.normal(c.spec.Name, "Killing", "Stopping container %s", c.spec.Name)
	p.node.probes.Remove(p.uid, c.spec.Name)
	c.probing = false
}

// runPreStop runs the hook, at most until the container's deadline.
func (p *pod) runPreStop(c *container) {
	st := c.stop
	st.preStop = hookRunning
	spec, target := c.spec, p.target(c)
	ctx, cancel := context.WithDeadline(p.node.ctx, st.deadline)
	p.begin(func() func() {
		defer cancel()
		err := p.node.prober.Hook(ctx, spec.Lifecycle.PreStop, spec, target)
		return func() {
			st.preStop = hookDone
			if err != nil && c.stop == st {
				p.warning(spec.Name, "FailedPreStopHook", "PreStopHook failed: %v", err)
			}
		}
	})
}

// sendTerm asks the container to stop. What the hook used up of the grace period is gone, but for a little.
func (p *pod) sendTerm(c *container) {
	st := c.stop
	st.termed, st.busy = true, true
	if least := time.Now().Add(minAfterPreStop); st.preStop != hookPending && st.deadline.Before(least) {
		st.deadline = least
	}
	id, signal, image := c.id, c.signal, c.imageID
	p.begin(func() func() {
		ctx, cancel := p.node.call()
		defer cancel()
		if signal == "" {
			signal = p.node.stopSignal(ctx, image)
		}
		err := p.node.opt.Engine.Kill(ctx, id, signal)
		return func() {
			st.busy = false
			if c.id == id {
				c.signal = signal
			}
			if failedKill(err) {
				p.node.suspect(err)
				st.termed, st.retryAt = false, time.Now().Add(time.Second)
			}
		}
	})
}

// stopSignal is the signal that an image wants to be stopped with.
func (n *Node) stopSignal(ctx context.Context, image string) string {
	if image != "" {
		if img, err := n.opt.Engine.Image(ctx, image); err == nil && img.StopSignal != "" {
			return img.StopSignal
		}
	}
	return "SIGTERM"
}

func (p *pod) sendKill(c *container) {
	st := c.stop
	st.busy, st.killed = true, time.Now()
	id := c.id
	p.begin(func() func() {
		ctx, cancel := p.node.call()
		defer cancel()
		err := p.node.opt.Engine.Kill(ctx, id, "SIGKILL")
		return func() {
			st.busy = false
			if failedKill(err) {
				p.node.suspect(err)
				st.killed, st.retryAt = time.Time{}, time.Now().Add(time.Second)
			}
		}
	})
}

// failedKill reports whether a signal has to be sent again. A container that is gone needs none, and
// the engine's events say so.
func failedKill(err error) bool { return err != nil && !errors.Is(err, runtimes.ErrNotFound) }

// removeOld removes a container of an earlier attempt.
func (p *pod) removeOld(i *instance) {
	i.busy = true
	p.begin(func() func() {
		err := p.node.remove(i.id)
		return func() {
			i.busy = false
			if err != nil {
				p.node.suspect(err)
				i.retryAt = time.Now().Add(10 * time.Second)
				return
			}
			p.forget(i)
		}
	})
}

func (n *Node) remove(id string) error {
	ctx, cancel := n.call()
	defer cancel()
	release, err := n.slot(ctx)
	if err != nil {
		return err
	}
	defer release()
	n.reapOrphan(id)
	err = n.opt.Engine.Remove(ctx, id)
	if errors.Is(err, runtimes.ErrNotFound) {
		return nil
	}
	return err
}

// forget drops a container that was removed from those that are to go.
func (p *pod) forget(gone *instance) {
	p.old = slices.DeleteFunc(p.old, func(i *instance) bool { return i == gone })
}

package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/probes"
)

// create makes the next attempt of a container: image, mounts and environment first.
func (p *pod) create(c *container) {
	c.working = true
	if c.id != "" {
		last := c.instance
		if c.previous != nil {
			p.old = append(p.old, c.previous)
		}
		c.previous = &last
	}
	if c.next > 0 && !c.byHand && !c.ended.IsZero() {
		c.crash = c.crash.restarted(c.ended)
	}
	c.byHand = false
	attempt, sandbox, ip, before := c.next, p.sandbox.id, p.address(), c.id
	known, spec := p.state.pod, c.spec
	p.begin(func() func() {
		pod, err := p.node.withConfigs(known)
		if err != nil {
			return func() { p.createFailed(c, asProblem(err, reasonConfigError)) }
		}
		forgotten := p.node.reapOrphan(before) // it would hold the ports of what comes now
		img, err := p.node.images.ensure(p.work, pod, spec)
		if err != nil {
			return func() { p.createFailed(c, asProblem(err, reasonErrImagePull)) }
		}
		p.files.Lock()
		body, err := p.node.containerSpec(p.work, pod, p.uid, spec, attempt, img, sandbox, ip)
		p.files.Unlock()
		if err != nil {
			return func() {
				p.volumes.done = false // somebody may have removed them
				p.createFailed(c, asProblem(err, reasonConfigError))
			}
		}
		id, err := p.node.createContainer(body)
		if err != nil {
			if errors.Is(err, runtimes.ErrNotFound) {
				p.node.images.forget(spec.Image)
			}
			return func() {
				p.unsure = p.unsure || unanswered(err)
				if errors.Is(err, runtimes.ErrConflict) {
					c.next++ // somebody else has the name
				}
				p.createFailed(c, asProblem(fmt.Errorf("create container: %w", err), reasonCreateError))
			}
		}
		return func() {
			now := time.Now()
			c.working = false
			c.instance = instance{id: id, attempt: attempt, status: created, sandbox: sandbox, touched: now}
			c.next = attempt + 1
			c.reset()
			c.image, c.imageID, c.signal = spec.Image, img.ID, body.StopSignal
			if c.signal == "" {
				c.signal = cmp.Or(img.StopSignal, "SIGTERM")
			}
			c.resources = body.Resources
			if sandbox != p.sandbox.id {
				// It joined a sandbox that is gone meanwhile: it never runs.
				lost := c.instance
				p.old = append(p.old, &lost)
				c.instance = instance{status: absent}
				return
			}
			if forgotten {
				p.warning(spec.Name, "ForgottenByEngine", "The engine had forgotten that container %.12s of %s runs: its processes were ended", before, spec.Name)
			}
			p.normal(spec.Name, "Created", "Created container %s", spec.Name)
		}
	})
}

func (n *Node) createContainer(spec runtimes.ContainerSpec) (string, error) {
	ctx, cancel := n.call()
	defer cancel()
	release, err := n.slot(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	spec.OOMScoreAdj = max(spec.OOMScoreAdj, n.lowestOOM)
	return n.opt.Engine.Create(ctx, spec)
}

func (p *pod) createFailed(c *container, why *problem) {
	c.working = false
	p.failed(c, why)
}

// failed notes why a container waits, and when it is tried again.
func (p *pod) failed(c *container, why *problem) {
	p.node.suspect(why)
	c.wait = time.Now().Add(c.retry.failed())
	if !why.RetryAt.IsZero() {
		c.wait = why.RetryAt
	}
	if why.Reason == "" || errors.Is(why, context.Canceled) {
		return // the engine did not answer, or the pod goes: nothing is wrong with the container
	}
	if c.problem == nil || c.problem.Reason != why.Reason || c.problem.Error() != why.Error() {
		reason := "Failed"
		switch why.Reason {
		case reasonImagePullBackOff:
			reason = "BackOff"
		case reasonInvalidImageName:
			reason = "InspectFailed"
		}
		p.warning(c.spec.Name, reason, "Error: %s: %v", why.Reason, why.Err)
	}
	c.problem = why
}

// reset forgets what was known of the attempt before.
func (c *container) reset() {
	c.postStart, c.begun, c.ready, c.probing, c.unready, c.stop = hookPending, false, false, false, "", nil
}

// start starts a created container.
func (p *pod) start(c *container) {
	c.working = true
	id := c.id
	nonRoot := mustNotBeRoot(p.state.pod.Spec, c.spec)
	p.begin(func() func() {
		pid, err := p.node.startContainer(id, nonRoot)
		return func() {
			c.working = false
			if c.id != id {
				return
			}
			now := time.Now()
			c.touched = now
			var bad *problem
			switch {
			case err == nil:
				p.hasStarted(c, now, pid)
			case errors.Is(err, runtimes.ErrNotFound):
				p.wasRemoved(c, now)
			case errors.Is(err, runtimes.ErrUnavailable):
				p.failed(c, asProblem(err, ""))
			case errors.As(err, &bad):
				// It ran as root though it must not, and was killed: its end is no crash.
				p.failed(c, bad)
				c.status, c.ended, c.code = exited, now, 137
				c.byHand = true
			default:
				p.failed(c, asProblem(fmt.Errorf("start container: %w", err), reasonRunError))
				p.hasDied(c, 128, now, true)
			}
		}
	})
}

func (n *Node) startContainer(id string, nonRoot bool) (pid int, err error) {
	ctx, cancel := n.call()
	defer cancel()
	release, err := n.slot(ctx)
	if err != nil {
		return 0, err
	}
	err = n.opt.Engine.Start(ctx, id)
	release()
	if err != nil && !errors.Is(err, runtimes.ErrNotFound) && !errors.Is(err, runtimes.ErrUnavailable) {
		// The engine may have started it all the same, when something behind it took too long.
		if c, e := n.opt.Engine.Inspect(ctx, id); errors.Is(e, runtimes.ErrUnavailable) {
			return 0, e
		} else if e == nil && !c.StartedAt.IsZero() {
			err = nil
		} else if e == nil && n.reapOrphan(id) {
			err = n.opt.Engine.Start(ctx, id)
		}
	}
	if err != nil || !nonRoot {
		return 0, err
	}
	c, err := n.opt.Engine.Inspect(ctx, id)
	if err != nil || !c.Running {
		return 0, err // what has ended already does no harm any more
	}
	if err := provenNonRoot(c.PID); err != nil {
		if e := n.opt.Engine.Kill(ctx, id, "SIGKILL"); e != nil {
			return 0, e
		}
		return 0, err
	}
	return c.PID, nil
}

// hasStarted takes note that a container runs.
func (p *pod) hasStarted(c *container, at time.Time, pid int) {
	if pid > 0 {
		c.pid = pid
	}
	if c.status == running || c.status == exited {
		return // known already, or over already
	}
	if at = past(at); at.IsZero() {
		at = time.Now()
	}
	c.status, c.started, c.ended = running, at, time.Time{}
	c.problem = nil
	c.retry.succeeded()
	if c.spec.Lifecycle == nil || c.spec.Lifecycle.PostStart == nil {
		p.afterPostStart(c)
	}
	p.normal(c.spec.Name, "Started", "Started container %s", c.spec.Name)
}

// runPostStart runs the hook; the container counts as started only afterwards.
func (p *pod) runPostStart(c *container) {
	c.postStart = hookRunning
	id, spec, target := c.id, c.spec, p.target(c)
	p.begin(func() func() {
		err := p.node.prober.Hook(p.work, spec.Lifecycle.PostStart, spec, target)
		return func() {
			if c.id != id || c.status != running || c.postStart != hookRunning {
				return
			}
			if err == nil || p.work.Err() != nil {
				p.afterPostStart(c)
				return
			}
			c.postStart = hookDone
			p.warning(spec.Name, "FailedPostStartHook", "PostStartHook failed: %v", err)
			c.unready = "postStart hook failed: " + err.Error()
			if c.stop == nil {
				c.stop = &stopping{deadline: time.Now().Add(p.grace())}
			}
		}
	})
}

func (p *pod) afterPostStart(c *container) {
	c.postStart = hookDone
	c.begun = c.begun || c.spec.StartupProbe == nil
	if c.spec.ReadinessProbe == nil {
		c.ready = c.begun
	}
	p.watch(c)
}

// watch makes the probes of a running container run.
func (p *pod) watch(c *container) {
	s := c.spec
	if c.probing || p.node.opt.ReadOnly || p.deletion != nil || s.StartupProbe == nil && s.ReadinessProbe == nil && s.LivenessProbe == nil {
		return
	}
	c.probing = true
	if c.begun && s.StartupProbe != nil {
		// It has started before the daemon did: it does not have to again.
		without := *s
		without.StartupProbe = nil
		s = &without
	}
	p.node.probes.Set(p.target(c), s)
}

func (p *pod) target(c *container) probes.Target {
	ip := p.address()
	if p.state.pod.Spec.HostNetwork {
		ip = "127.0.0.1"
		if len(p.node.opt.HostIPs) > 0 {
			ip = p.node.opt.HostIPs[0]
		}
	}
	return probes.Target{UID: p.uid, Container: c.spec.Name, Attempt: c.attempt, ContainerID: c.id, IP: ip, Started: c.started}
}

// hasDied takes note that a container ended, and decides when it may be started again.
func (p *pod) hasDied(c *container, code int, at time.Time, startFailed bool) {
	if c.status == exited {
		return
	}
	if at = past(at); at.IsZero() {
		at = time.Now()
	}
	c.status, c.code, c.ended, c.pid, c.paused = exited, code, at, 0, false
	c.stop, c.ready, c.begun, c.probing = nil, false, false, false
	p.node.setPaused(c.id, false)
	p.node.probes.Remove(p.uid, c.spec.Name)
	c.last = termination{Reason: exitReason(code, c.oom), ExitCode: code, OOM: c.oom, Finished: at}
	if startFailed {
		c.last.Reason = reasonStartError
		if c.problem != nil {
			c.last.Message = c.problem.Error()
		}
	}
	if p.deletion != nil {
		return
	}
	p.settle(c, startFailed)
	if !p.restarts(c, code) || p.ending != nil || p.finished != nil {
		return
	}
	c.wait = c.crash.until(at)
	if c.wait.After(time.Now()) {
		p.warning(c.spec.Name, "BackOff", "Back-off restarting failed container %s in pod %s", c.spec.Name, p.key)
	}
}

func exitReason(code int, oom bool) string {
	switch {
	case oom:
		return reasonOOMKilled
	case code == 0:
		return reasonCompleted
	}
	return reasonError
}

// removedByHand is how soon after its end a container has to vanish for its end to be part of its removal.
const removedByHand = 5 * time.Second

// wasRemoved takes note that a container is gone, though the node did not remove it.
func (p *pod) wasRemoved(c *container, now time.Time) {
	if c.id == "" {
		return
	}
	c.id = ""
	if c.status == exited {
		if now.Sub(c.ended) < removedByHand {
			c.wait, c.byHand = time.Time{}, true
		}
		return
	}
	ran := c.status == running
	c.ended = now
	c.status, c.code, c.pid = exited, 137, 0
	c.stop, c.ready, c.begun, c.probing = nil, false, false, false
	c.wait, c.byHand = time.Time{}, true
	p.node.probes.Remove(p.uid, c.spec.Name)
	if !ran {
		c.status = absent // it never ran: that is no end
		return
	}
	c.last = termination{
		Reason: reasonStatusUnknown, ExitCode: 137, Finished: now,
		Message: "The container could not be located when the pod was looked at",
	}
}

package executor

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// verb is what is to be done to a pod next.
type verb string

const (
	doPrepare       verb = "prepare volumes"
	doUpdate        verb = "update in place"
	doMeasure       verb = "measure volumes"
	doCreateSandbox verb = "create sandbox"
	doStartSandbox  verb = "start sandbox"
	doStopSandbox   verb = "stop sandbox"
	doNewSandbox    verb = "replace sandbox"
	doCreate        verb = "create container"
	doStart         verb = "start container"
	doPostStart     verb = "run postStart"
	doStop          verb = "begin to stop container"
	doPreStop       verb = "run preStop"
	doTerm          verb = "send stop signal"
	doKill          verb = "send SIGKILL"
	doRemove        verb = "remove container"
	doLeft          verb = "begin the grace period"
	doEnd           verb = "end pod"
	doFinish        verb = "finish pod"
	doDelete        verb = "delete pod"
)

// action is one thing to do. Doing it changes the state at once, so that it is not decided again.
type action struct {
	do       verb
	c        *container
	old      *instance
	deadline time.Time
	ending   ending
}

// decision is what is to be done now, and when to decide again though nothing happened.
type decision struct {
	actions []action
	wake    time.Time // zero for never
}

const (
	// minAfterPreStop is what a container gets to stop though its preStop hook took all of its grace period.
	minAfterPreStop = 2 * time.Second
	// killAgain is how long a killed container may live on before it is killed again.
	killAgain = 10 * time.Second
	// measureEvery is how often volumes with a sizeLimit are measured.
	measureEvery = 30 * time.Second
)

// decide compares what is with what has to be. It changes nothing and knows no clock.
func decide(s *state, now time.Time) decision {
	d := &decider{s: s, now: now}
	d.decide()
	return decision{actions: d.actions, wake: d.wake}
}

type decider struct {
	s       *state
	now     time.Time
	actions []action
	wake    time.Time
}

func (d *decider) add(a action) { d.actions = append(d.actions, a) }

// due reports whether at has come; otherwise it is decided again then.
func (d *decider) due(at time.Time) bool {
	if !d.now.Before(at) {
		return true
	}
	if d.wake.IsZero() || at.Before(d.wake) {
		d.wake = at
	}
	return false
}

func (d *decider) decide() {
	s := d.s
	if s.deletion != nil {
		d.delete()
		return
	}
	if s.broken != "" {
		return
	}
	d.sweep()
	switch {
	case s.finished != nil:
		d.stopAll(d.now) // what somebody started again
		if s.sandbox.status == running && !s.sandbox.busy && d.due(s.sandbox.notBefore) {
			d.add(action{do: doStopSandbox})
		}
		return
	case s.ending != nil:
		if d.left() && d.stopAll(s.ending.deadline) && d.quiet() {
			d.add(action{do: doFinish})
		}
		return
	}
	if at, ok := s.activeDeadline(); ok && d.due(at) {
		d.add(action{do: doEnd, ending: ending{
			phase: corev1.PodFailed, reason: reasonDeadlineExceeded, deadline: d.now.Add(s.grace()),
			message: "Pod was active on the node longer than the specified deadline",
		}})
		return
	}
	if e, ok := s.outcome(); ok {
		e.deadline = d.now.Add(s.grace())
		d.add(action{do: doEnd, ending: e})
		return
	}
	if s.sandbox.status == exited {
		if s.held && s.sandbox.cause.left() {
			return
		}
		// Without its namespaces the pod is made anew, as in Kubernetes.
		if d.stopAll(d.now.Add(s.grace())) && d.quiet() && d.due(s.sandbox.notBefore) {
			d.add(action{do: doNewSandbox})
		}
		return
	}
	d.prepare()
	for _, c := range d.wanted() {
		d.run(c)
	}
}

// quiet reports whether no call is under way whose outcome matters.
func (d *decider) quiet() bool {
	s := d.s
	return !s.sandbox.busy && !s.volumes.busy && !s.update.busy && !s.measuring &&
		!slices.ContainsFunc(s.containers, func(c *container) bool { return c.working })
}

// prepare makes what containers need: volumes and the sandbox, side by side.
func (d *decider) prepare() {
	s := d.s
	if !s.volumes.done && !s.volumes.busy && !s.measuring && d.due(s.volumes.notBefore) {
		d.add(action{do: doPrepare})
	}
	if s.volumes.done && !s.update.done && !s.update.busy && !s.measuring && d.due(s.update.notBefore) {
		d.add(action{do: doUpdate})
	}
	if limited(s.pod.Spec) && s.volumes.done && !s.update.busy && !s.measuring && d.due(s.measureAt) {
		d.add(action{do: doMeasure})
	}
	switch {
	case s.sandbox.busy:
	case s.sandbox.status == absent:
		if d.due(s.sandbox.notBefore) {
			d.add(action{do: doCreateSandbox})
		}
	case !s.sandbox.up():
		if d.due(s.sandbox.notBefore) {
			d.add(action{do: doStartSandbox})
		}
	}
}

// wanted are the containers that may run now: init containers one after the other, each sidecar
// when it has started, then the others.
func (d *decider) wanted() []*container {
	s := d.s
	initialized := s.initialized()
	var out []*container
	for _, c := range s.containers {
		switch c.kind {
		case initial:
			if initialized || c.status == exited && c.code == 0 && s.current(&c.instance) {
				continue
			}
			return append(out, c)
		case sidecar:
			out = append(out, c)
			if !initialized && !(c.status == running && c.postStart == hookDone && c.begun) {
				return out
			}
		case regular:
			out = append(out, c)
		}
	}
	return out
}

// run brings a container closer to running.
func (d *decider) run(c *container) {
	s := d.s
	switch {
	case c.working:
	case c.status == running:
		switch {
		case c.stop != nil:
			d.progress(c)
		case c.postStart == hookPending && !c.paused:
			d.add(action{do: doPostStart, c: c})
		}
	case c.status == created && s.current(&c.instance):
		if s.sandbox.up() && d.due(c.wait) {
			d.add(action{do: doStart, c: c})
		}
	case c.status == exited && !s.restarts(c, c.code):
	case c.status == exited && s.held && c.cause.left():
	default:
		if (s.sandbox.status == created || s.sandbox.status == running) && s.volumes.done && d.due(c.wait) {
			d.add(action{do: doCreate, c: c})
		}
	}
}

// stopAll stops every container: sidecars after the others, the last one first. It reports whether
// all have stopped.
func (d *decider) stopAll(deadline time.Time) bool {
	s := d.s
	stopped := true
	late := !d.now.Before(deadline)
	for _, c := range s.containers {
		if c.kind != sidecar && alive(c) {
			stopped = false
			d.halt(c, deadline)
		}
	}
	if !stopped && !late {
		d.due(deadline)
		return false
	}
	for _, c := range slices.Backward(s.containers) {
		if c.kind == sidecar && alive(c) {
			stopped = false
			d.halt(c, deadline)
			if !late {
				d.due(deadline)
				return false
			}
		}
	}
	return stopped
}

func alive(c *container) bool { return c.status == running || c.working }

// halt stops one container that runs.
func (d *decider) halt(c *container, deadline time.Time) {
	switch {
	case c.status != running: // the call that is under way says when it does
	case c.stop == nil, deadline.Before(c.stop.deadline) && c.stop.preStop == hookPending && !c.stop.termed:
		d.add(action{do: doStop, c: c, deadline: deadline})
	default:
		d.progress(c)
	}
}

// progress takes the next step of stopping a container: preStop, the stop signal, SIGKILL.
func (d *decider) progress(c *container) {
	st := c.stop
	hasHook := c.spec.Lifecycle != nil && c.spec.Lifecycle.PreStop != nil
	switch {
	case st.busy, !d.due(st.retryAt):
	case hasHook && st.preStop == hookPending && !st.termed && d.now.Before(st.deadline):
		d.add(action{do: doPreStop, c: c})
	case st.preStop == hookRunning && !d.due(st.deadline):
	case !st.termed && (d.now.Before(st.deadline) || st.preStop != hookPending):
		d.add(action{do: doTerm, c: c})
	case !d.due(st.deadline):
	case st.killed.IsZero() || d.due(st.killed.Add(killAgain)):
		d.add(action{do: doKill, c: c})
	}
}

// sweep removes containers of earlier attempts.
func (d *decider) sweep() {
	for _, i := range d.s.old {
		if !i.busy && d.due(i.retryAt) {
			d.add(action{do: doRemove, old: i})
		}
	}
}

// left reports whether containers may be stopped: the pod is out of the routes, or has waited long enough.
func (d *decider) left() bool {
	l := d.s.leaving
	switch {
	case l == nil:
		return true
	case d.due(l.until):
		d.add(action{do: doLeft})
	}
	return false
}

func (d *decider) delete() {
	s := d.s
	if !d.left() || !d.stopAll(s.deletion.deadline) || !d.quiet() || s.deletion.busy || s.deletion.gone {
		return
	}
	if d.due(s.deletion.retryAt) {
		d.add(action{do: doDelete})
	}
}

// initialized reports whether the init containers have done their work in the present sandbox: then
// they are not run again, even when they were removed.
func (s *state) initialized() bool {
	for _, c := range s.containers {
		if c.kind == regular && c.status != absent && s.current(&c.instance) {
			return true
		}
	}
	return false
}

// activeDeadline is when the pod has to have ended.
func (s *state) activeDeadline() (time.Time, bool) {
	if a := s.pod.Spec.ActiveDeadlineSeconds; a != nil {
		return s.created.Add(time.Duration(*a) * time.Second), true
	}
	return time.Time{}, false
}

// outcome returns how the pod ended, when all of its containers have ended for good.
func (s *state) outcome() (ending, bool) {
	e := ending{phase: corev1.PodSucceeded}
	for _, c := range s.containers {
		switch {
		case c.working:
			return ending{}, false
		case c.kind == initial && c.status == exited && c.code != 0 && !s.restarts(c, c.code):
			return ending{phase: corev1.PodFailed}, true
		case c.kind != regular:
		case c.status != exited || s.restarts(c, c.code):
			return ending{}, false
		case c.code != 0:
			e.phase = corev1.PodFailed
		}
	}
	return e, true
}

// limited reports whether a volume has a size that fairlead has to watch; a volume in memory is
// limited by its file system.
func limited(spec *corev1.PodSpec) bool {
	return slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool {
		return v.EmptyDir != nil && v.EmptyDir.SizeLimit != nil && !v.EmptyDir.SizeLimit.IsZero() && v.EmptyDir.Medium != corev1.StorageMediumMemory
	})
}

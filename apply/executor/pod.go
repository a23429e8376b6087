package executor

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/probes"
)

// pod is the worker of one pod. Everything that happens to the pod is a message to it; after each
// message it decides what is to be done and does it. Calls run beside it and report by message.
type pod struct {
	node *Node
	uid  string
	key  plan.PodKey
	// reserved is the pod's address, which no other pod may get.
	reserved netip.Addr

	// work ends when the pod is to be deleted, or the node is closed: waiting ends with it, calls that
	// change the engine do not.
	work       context.Context
	cancelWork context.CancelFunc

	mu    sync.Mutex
	queue []func()
	bell  chan struct{}

	// files is held while volumes and files of the pod are worked on.
	files sync.Mutex

	state    // only for the worker
	saved    savedState
	recorded *plan.Pod // whose record is saved
	timer    *time.Timer
	// wasReady and wasSeen are of the last look.
	wasReady, wasSeen bool
	done              chan struct{} // closed when the worker ends

	// Guarded by node.mu.
	seen    *view
	updates int           // counts the in-place updates that were asked for
	changed chan struct{} // closed when seen is replaced
}

// view is what others see of a pod. It never changes.
type view struct {
	plan.ObservedPod
	// spec is the pod as it is wanted; taken is true when CreatePod has done its part; updated is why the
	// last in-place update did not work, and pending whether there is one under way.
	spec    *plan.Pod
	taken   bool
	pending bool
	updated error
	// updates is the number of the last in-place update that was taken up.
	updates int
	gone    bool
}

func (n *Node) newPod(s state) *pod {
	p := &pod{
		node: n, uid: s.uid, key: s.pod.PodKey, reserved: s.ip, state: s,
		bell: make(chan struct{}, 1), done: make(chan struct{}), changed: make(chan struct{}),
	}
	p.work, p.cancelWork = context.WithCancel(n.ctx)
	return p
}

// tell sends a message. It never blocks.
func (p *pod) tell(f func()) {
	p.mu.Lock()
	p.queue = append(p.queue, f)
	p.mu.Unlock()
	select {
	case p.bell <- struct{}{}:
	default:
	}
}

func (p *pod) run() {
	defer close(p.done)
	defer p.cancelWork()
	p.timer = time.NewTimer(time.Hour)
	defer p.timer.Stop()
	p.advance()
	for {
		select {
		case <-p.node.ctx.Done():
		case <-p.bell:
		case <-p.timer.C:
		}
		if p.node.ctx.Err() != nil {
			return
		}
		p.mu.Lock()
		messages := p.queue
		p.queue = nil
		p.mu.Unlock()
		for _, f := range messages {
			f()
		}
		p.advance()
		if p.deletion != nil && p.deletion.gone {
			return
		}
	}
}

// advance does everything that is due, keeps what has to outlive the daemon, and shows what changed.
func (p *pod) advance() {
	if !p.node.opt.ReadOnly && !p.node.isStale() {
		p.timer.Stop()
		p.held = p.node.opt.Suspended(p.state.pod.Owner)
		for p.node.ctx.Err() == nil {
			if l := p.leaving; l != nil {
				l.until = p.node.serving.hold(p.uid, l.since, time.Now())
			}
			d := decide(&p.state, time.Now())
			for _, a := range d.actions {
				p.act(a)
			}
			if len(d.actions) == 0 {
				if !d.wake.IsZero() {
					p.timer.Reset(max(0, time.Until(d.wake)))
				}
				break
			}
		}
	}
	p.publish()
	p.save()
}

// begin runs f beside the worker; what f returns is a message.
func (p *pod) begin(f func() func()) {
	started := p.node.spawn(func() { p.tell(f()) })
	_ = started // a node that is closed takes nothing up any more, and neither does the worker
}

func (p *pod) act(a action) {
	switch a.do {
	case doPrepare:
		p.prepareVolumes()
	case doUpdate:
		p.updateInPlace()
	case doMeasure:
		p.measureVolumes()
	case doCreateSandbox:
		p.createSandbox()
	case doStartSandbox:
		p.startSandbox()
	case doStopSandbox:
		p.stopSandbox()
	case doNewSandbox:
		p.replaceSandbox()
	case doCreate:
		p.create(a.c)
	case doStart:
		p.start(a.c)
	case doPostStart:
		p.runPostStart(a.c)
	case doStop:
		p.beginStop(a.c, a.deadline)
	case doPreStop:
		p.runPreStop(a.c)
	case doTerm:
		p.sendTerm(a.c)
	case doKill:
		p.sendKill(a.c)
	case doRemove:
		p.removeOld(a.old)
	case doLeft:
		p.left()
	case doEnd:
		e := a.ending
		p.ending = &e
		if e.reason != "" { // otherwise nothing runs any more that serves
			p.leave()
			p.warning("", e.reason, "%s", e.message)
		}
	case doFinish:
		p.finish()
	case doDelete:
		p.removeAll()
	}
}

// finish makes the end of the pod final.
func (p *pod) finish() {
	at := time.Time{}
	for _, c := range p.containers {
		if c.kind != sidecar && c.ended.After(at) {
			at = c.ended
		}
	}
	if at.IsZero() {
		at = time.Now()
	}
	p.finished = &finished{Phase: p.ending.phase, Reason: p.ending.reason, Message: p.ending.message, At: at}
	p.node.probes.RemovePod(p.uid)
	p.cancelWork()
}

// engineEvent takes an event of the engine about one of the pod's containers.
func (p *pod) engineEvent(e runtimes.Event) {
	now := time.Now()
	if e.Identity.Container == runtimes.SandboxContainer {
		p.sandboxEvent(e, now)
		return
	}
	if e.Kind == runtimes.EventRemove {
		p.old = slices.DeleteFunc(p.old, func(i *instance) bool { return i.id == e.ContainerID })
	}
	c := p.container(e.Identity.Container)
	if c == nil {
		return
	}
	if c.previous != nil && c.previous.id == e.ContainerID {
		switch e.Kind {
		case runtimes.EventRemove:
			c.previous = nil
		case runtimes.EventStart: // by hand: only one attempt may run
			p.heard(c, e)
			p.old = append(p.old, c.previous)
			c.previous = nil
		}
		return
	}
	if c.id != e.ContainerID {
		return
	}
	c.touched = now
	switch e.Kind {
	case runtimes.EventKill:
		p.heard(c, e)
	case runtimes.EventStart:
		if c.status == exited { // somebody started it again
			c.status = created
			c.reset()
			p.heard(c, e)
		}
		p.hasStarted(c, e.Time, 0)
	case runtimes.EventDie:
		if c.status != exited && !p.stops(c) {
			p.blame(&c.cause, c.spec.Name, endedBy(c.hand, e.ExitCode, c.oom, c.started, e.Time))
		}
		p.hasDied(c, e.ExitCode, e.Time, false)
	case runtimes.EventOOM:
		c.oom = true
	case runtimes.EventRemove:
		if !p.stops(c) {
			p.blame(&c.cause, c.spec.Name, plan.Disturbance{By: plan.ByPerson, Action: "remove", What: "was removed", At: e.Time})
		}
		p.wasRemoved(c, now)
	case runtimes.EventPause:
		p.heard(c, e)
		c.paused = true
		p.node.setPaused(c.id, true)
	case runtimes.EventUnpause:
		c.paused = false
		p.node.setPaused(c.id, false)
	case runtimes.EventUpdate:
		p.heard(c, e)
		p.readLimits(c)
	case runtimes.EventRename, runtimes.EventGap: // a container is known by its id
	}
}

func (p *pod) sandboxEvent(e runtimes.Event, now time.Time) {
	s := &p.sandbox
	if e.Kind == runtimes.EventRemove {
		p.old = slices.DeleteFunc(p.old, func(i *instance) bool { return i.id == e.ContainerID })
	}
	if s.id != e.ContainerID {
		return
	}
	s.touched = now
	switch e.Kind {
	case runtimes.EventKill:
		if !p.stopsSandbox() {
			s.hand = touch{e.Signal, e.Time}
		}
	case runtimes.EventDie:
		if s.status != exited && !p.stopsSandbox() {
			p.blame(&s.cause, "", endedBy(s.hand, e.ExitCode, false, s.started, e.Time))
		}
		p.sandboxDied(e.Time)
	case runtimes.EventRemove:
		if !p.stopsSandbox() {
			p.blame(&s.cause, "", plan.Disturbance{By: plan.ByPerson, Action: "remove", What: "was removed", At: e.Time})
		}
		p.sandboxRemoved(now)
	case runtimes.EventStart:
		if s.status == created {
			s.status, s.started = running, e.Time
		}
	}
}

// onVerdict takes the verdict of a probe.
func (p *pod) onVerdict(r probes.Result) {
	c := p.container(r.Container)
	if c == nil || c.attempt != r.Attempt || c.status != running {
		return
	}
	word := map[probes.Kind]string{probes.Startup: "Startup", probes.Readiness: "Readiness", probes.Liveness: "Liveness"}[r.Kind]
	if !r.Success {
		p.warning(c.spec.Name, "Unhealthy", "%s probe failed: %s", word, r.Message)
	}
	switch r.Kind {
	case probes.Startup:
		c.begun = r.Success
		c.ready = r.Success && (c.spec.ReadinessProbe == nil || c.ready)
	case probes.Readiness:
		c.ready = r.Success
	case probes.Liveness:
	}
	c.unready = ""
	if !r.Success {
		c.unready = word + " probe failed: " + r.Message
		if r.Kind != probes.Readiness && c.stop == nil && !p.held {
			grace := p.grace()
			if r.GracePeriod != nil {
				grace = time.Duration(*r.GracePeriod) * time.Second
			}
			p.normal(c.spec.Name, "Killing", "Container %s failed %s probe, will be restarted", c.spec.Name, r.Kind)
			c.stop = &stopping{deadline: time.Now().Add(grace)}
		}
	}
}

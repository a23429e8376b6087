package executor

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// By whom something came about.
//
// The engine tells what was done to a container through it, not who asked for that. What this node does, it knows; what
// else is done through the engine is somebody's with docker, or another program's. A process that gets no signal through
// the engine ended by itself, by the kernel's hand when memory ran out, or by a signal of somebody on the machine.

const (
	// heardFor is how long a signal through the engine explains the end of a container: as long as people wait for one to stop.
	heardFor = 5 * time.Minute
	// settleCause is how long is waited before a cause is told: docker rm is a signal, an end and a removal.
	settleCause = 300 * time.Millisecond
	// engineEnds is how long before the engine was found to be away its own end may have ended containers.
	engineEnds = time.Minute
	// ownUpdate is how long after an update of this node its event may come.
	ownUpdate = 5 * time.Second
)

// cause is a disturbance of a container or a sandbox, and whether it was told.
type cause struct {
	plan.Disturbance
	told bool
}

// left reports whether it is left alone while the pod's object is suspended: what people did, and what nobody saw.
func (c *cause) left() bool { return c.By == plan.ByPerson || c.By == plan.ByUnknown }

// touch is a signal that a container got through the engine, and not from this node.
type touch struct {
	signal string
	at     time.Time
}

// stops reports whether this node is about to end a container, so that signals to it are its own.
func (p *pod) stops(c *container) bool {
	return c.stop != nil || c.working || p.deletion != nil || p.ending != nil || p.finished != nil
}

func (p *pod) stopsSandbox() bool {
	return p.sandbox.busy || p.deletion != nil || p.ending != nil || p.finished != nil
}

// endedBy says by whom a container came to its end, of which the engine told.
func endedBy(hand touch, code int, oom bool, started, at time.Time) plan.Disturbance {
	d := plan.Disturbance{By: plan.ByProcess, At: at, Action: "exit", What: fmt.Sprintf("ended by itself with exit code %d", code)}
	switch {
	case oom:
		d.By, d.Action, d.What = plan.ByKernel, "oom", "was killed by the kernel because memory ran out"
	case hand.signal != "" && !hand.at.Before(started) && at.Sub(hand.at) < heardFor:
		d.By, d.Action, d.What = plan.ByPerson, "kill", "got "+hand.signal+" through the engine"
		if hand.signal == "SIGTERM" {
			d.Action = "stop"
		}
	case code == 137:
		d.By, d.Action, d.What = plan.ByUnknown, "signal", "got SIGKILL, and not through the engine"
	}
	return d
}

// unseenEnd says by whom a container came to its end of which no event told.
func (n *Node) unseenEnd(code int, oom bool, started, ended time.Time) plan.Disturbance {
	d := plan.Disturbance{By: plan.ByUnknown, At: ended, Action: "unseen", What: fmt.Sprintf("ended with exit code %d, and nothing told of it", code)}
	n.mu.Lock()
	away := n.away
	n.mu.Unlock()
	switch boot := bootTime(); {
	case oom:
		d.By, d.Action, d.What = plan.ByKernel, "oom", "was killed by the kernel because memory ran out"
	case !boot.IsZero() && ended.Before(boot):
		d.By, d.Action, d.What = plan.ByEngine, "restart", "ended when the machine was restarted"
	case !away.IsZero() && !away.Before(started) && ended.After(away.Add(-engineEnds)):
		d.By, d.Action, d.What = plan.ByEngine, "restart", "ended when the engine stopped"
	}
	return d
}

// bootTime is when the machine was started; zero when it does not say.
func bootTime() time.Time {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}
	}
	for line := range strings.Lines(string(b)) {
		if at, ok := strings.CutPrefix(line, "btime "); ok {
			if n, err := strconv.ParseInt(strings.TrimSpace(at), 10, 64); err == nil {
				return time.Unix(n, 0)
			}
		}
	}
	return time.Time{}
}

// blame notes by whom something came about, and tells of it when nothing more follows. name is the container's; empty for
// the sandbox.
func (p *pod) blame(c *cause, name string, d plan.Disturbance) {
	*c = cause{Disturbance: d}
	if p.node.opt.ReadOnly {
		return
	}
	p.begin(func() func() {
		timer := time.NewTimer(settleCause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-p.node.ctx.Done():
		}
		return func() { p.tellCause(c, name) }
	})
}

// tellCause tells of what others did; that a process ends by itself is no news of that kind.
func (p *pod) tellCause(c *cause, name string) {
	if c.told || c.By == "" || p.deletion != nil {
		return
	}
	c.told = true
	if c.By == plan.ByProcess {
		return
	}
	what := "sandbox of the pod"
	if name != "" {
		what = "container " + name
	}
	then := "it is put right"
	if p.held && c.left() {
		then = "it is left as it is, since " + p.state.pod.Owner.String() + " is suspended"
	}
	e := Event{
		Time: c.At, Warning: true, Application: p.state.pod.Application, Pod: p.state.pod.PodKey, UID: p.uid, Container: name,
		Reason: "Drift", Message: fmt.Sprintf("%s %s (%s); %s", what, c.What, c.By.Words(), then), By: c.By, Action: c.Action,
	}
	p.node.opt.OnEvent(e)
}

// heard takes what was done to a container through the engine, as far as it is no end.
func (p *pod) heard(c *container, e runtimes.Event) {
	person := plan.Disturbance{By: plan.ByPerson, At: e.Time}
	switch e.Kind {
	case runtimes.EventKill:
		if !p.stops(c) {
			c.hand = touch{e.Signal, e.Time}
		}
		return
	case runtimes.EventPause:
		person.Action, person.What = "pause", "was paused"
	case runtimes.EventUpdate:
		if p.update.busy || e.Time.Sub(p.updatedAt) < ownUpdate {
			return
		}
		person.Action, person.What = "update", "got other limits"
	case runtimes.EventStart:
		person.Action, person.What = "start", "was started"
	default:
		return
	}
	p.blame(&c.cause, c.spec.Name, person)
}

// disturbance is what is shown of a cause; nil for none.
func (c *cause) disturbance() *plan.Disturbance {
	if c.By == "" {
		return nil
	}
	d := c.Disturbance
	return &d
}

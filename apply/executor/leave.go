package executor

import "time"

// leave takes the pod out of the routes before it is stopped. It does not wait where no registry with a gate has it.
func (p *pod) leave() {
	if p.leaving != nil {
		return
	}
	s := p.node.serving
	s.wakeLeaving(p) // before it is looked at, so that nothing is missed
	p.publish()      // from here on the routes are without it
	now := time.Now()
	if s.hold(p.uid, now, now).IsZero() {
		s.letGo(p.uid)
		return
	}
	p.leaving = &leaving{since: now}
}

// left ends the wait: grace periods count from now.
func (p *pod) left() {
	waited := time.Since(p.leaving.since)
	p.leaving = nil
	p.node.serving.letGo(p.uid)
	if p.deletion != nil {
		p.deletion.deadline = p.deletion.deadline.Add(waited)
	}
	if p.ending != nil {
		p.ending.deadline = p.ending.deadline.Add(waited)
	}
}

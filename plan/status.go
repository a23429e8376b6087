package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// podDeadline is when a pod without a deadline of its own counts as broken unless it is ready.
const podDeadline = 10 * time.Minute

// fleetStatus is a WorkloadStatus and what follows from it for the planner.
type fleetStatus struct {
	WorkloadStatus
	// stalled: the rollout has made no progress for longer than its deadline.
	stalled bool
}

// fleetStatus sums up pods as they were observed. A deadline of 0 is none.
func (b *builder) fleetStatus(w *Workload, want int, minReady, deadline time.Duration, f *fleet) fleetStatus {
	s := fleetStatus{WorkloadStatus: WorkloadStatus{
		Ref: w.Ref, Desired: want, Current: len(f.fresh) + len(f.old) - len(f.held), Updated: len(f.fresh) - len(f.held), Failed: len(f.held) + len(f.ended),
	}}
	freshAvailable := 0
	var worst *pod
	for i, list := range [...][]*pod{f.fresh, f.old} {
		for _, p := range list {
			ok, from := p.available(b.now, minReady)
			if p.Ready && p.active() {
				s.Ready++
			}
			if ok {
				s.Available++
			} else {
				b.wakeAt(from)
			}
			switch {
			case i == 0 && ok:
				freshAvailable++
			case i == 0 && (worst == nil || worse(p, worst)):
				worst = p
			}
		}
	}
	if !b.canCreate {
		s.Health, s.Reason, s.Message = "Progressing", "NodeNotResponding", fmt.Sprintf("node %s does not answer", b.opt.Node)
		return s
	}
	if freshAvailable >= want && len(f.fresh) == want && len(f.old) == 0 {
		s.Health = "Healthy"
		return s
	}
	s.Health, s.Reason = "Progressing", "RollingOut"
	s.Message = fmt.Sprintf("%d of %d updated pods are available", freshAvailable, want)
	if len(f.old) > 0 {
		s.Message += fmt.Sprintf(", %d of an earlier template are left", len(f.old))
	}
	if worst == nil {
		return s
	}
	if r := reasonOf(worst, ""); r != "" {
		s.Reason = r
		s.Message += "; pod " + worst.Name + ": " + messageOf(worst)
	}
	if deadline == 0 {
		return s
	}
	until := f.progress().Add(deadline)
	if b.now.Before(until) {
		b.wakeAt(until)
		return s
	}
	s.stalled = true
	s.Health = "Degraded"
	if len(f.old) > 0 || s.Reason == "RollingOut" {
		s.Reason = "ProgressDeadlineExceeded"
		s.Message = fmt.Sprintf("no progress for %s: %s", deadline, s.Message)
	}
	s.Message = withLog(s.Message, worst)
	return s
}

// worse reports whether a tells more than b about why a rollout does not come forward.
func worse(a, b *pod) bool {
	rank := func(p *pod) int {
		switch {
		case p.ended():
			return 3
		case len(p.LogTail) > 0:
			return 2
		case p.Reason != "":
			return 1
		default:
			return 0
		}
	}
	return rank(a) > rank(b)
}

// reasonOf is the word for why a pod is not ready: its own, or that of its first container that has one.
func reasonOf(p *pod, otherwise string) string {
	if p.Reason != "" {
		return p.Reason
	}
	for i := range p.Containers {
		if c := &p.Containers[i]; !c.Ready && c.Reason != "" && c.Reason != "Completed" {
			return c.Reason
		}
	}
	return otherwise
}

// messageOf says why a pod is not ready.
func messageOf(p *pod) string {
	if p.Message != "" {
		return p.Message
	}
	for i := range p.Containers {
		c := &p.Containers[i]
		if c.Ready || c.Reason == "" || c.Reason == "Completed" {
			continue
		}
		s := "container " + c.Name + ": " + c.Reason
		if c.Message != "" {
			s += ": " + c.Message
		}
		return s
	}
	if p.Reason != "" {
		return p.Reason
	}
	return "it is not ready"
}

// withLog adds the pod's last log lines to a message.
func withLog(message string, p *pod) string {
	if len(p.LogTail) == 0 {
		return message
	}
	return message + "\nlast log lines of pod " + p.Name + ":\n" + strings.Join(p.LogTail, "\n")
}

// leftStatus sums up a workload that is not touched.
func (b *builder) leftStatus(w *Workload, pods []*pod) {
	s := WorkloadStatus{Ref: w.Ref, Health: "Degraded", Reason: "NotApplied", Message: "what is in the source is not applied"}
	for _, p := range pods {
		if !p.active() {
			continue
		}
		s.Current++
		if p.Ready {
			s.Ready++
			s.Available++
		}
	}
	s.Desired = s.Current
	b.status(s)
}

// jsonInt returns a whole number of decoded JSON.
func jsonInt(v any) (int, error) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, errors.New("not a number")
	}
	i, err := n.Int64()
	if err != nil || i > 1<<31 || i < -(1<<31) {
		return 0, errors.New("not a whole number in range")
	}
	return int(i), nil
}

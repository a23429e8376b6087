package executor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// Do implements apply.Executor.
func (n *Node) Do(ctx context.Context, s plan.Step) error {
	if n.opt.ReadOnly {
		return errors.New("this node only looks")
	}
	if err := n.wait(ctx); err != nil {
		return err
	}
	switch a := s.Args.(type) {
	case plan.PullImage:
		err := n.images.pull(ctx, a)
		n.suspect(err)
		return err
	case plan.CreatePod:
		return n.doCreate(ctx, a.Pod)
	case plan.WaitReady:
		return n.doWait(ctx, a)
	case plan.UpdatePod:
		return n.doUpdate(ctx, a)
	case plan.DeletePod:
		return n.doDelete(ctx, a)
	case plan.MovePod:
		return n.doMove(ctx, a)
	case plan.SetService:
		return n.doSetService(ctx, a.Service)
	case plan.DeleteService:
		return n.doDeleteService(ctx, a)
	case plan.SetEndpoints:
		return n.doSetEndpoints(ctx, a.Endpoints)
	case plan.DeleteEndpoints:
		return n.doDeleteEndpoints(ctx, a)
	case plan.SetStorage:
		return n.doSetStorage(ctx, a.Storage)
	case plan.DeleteStorage:
		return n.doDeleteStorage(ctx, a)
	case plan.WaitHealthy:
		return errors.New("what waits for other objects is not a node's to carry out: observe and plan again")
	}
	return fmt.Errorf("the operation %q is not known", s.Op)
}

// answering returns an error while the engine does not answer.
func (n *Node) answering() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		return errClosed
	case n.stale:
		return fmt.Errorf("%w: %w", runtimes.ErrUnavailable, n.staleErr)
	}
	return nil
}

func (n *Node) doCreate(ctx context.Context, pod *plan.Pod) error {
	for {
		if err := n.answering(); err != nil {
			return err
		}
		p, isNew, err := n.reserve(pod)
		if err != nil {
			return err
		}
		if isNew {
			if err := n.admit(p); err != nil {
				return err
			}
		}
		v, changed := p.view()
		switch {
		case v.gone:
			continue
		case v.Terminating: // the name is free when it is gone
			if err := n.pause(ctx, changed); err != nil {
				return err
			}
			continue
		case v.Template != pod.Template || v.Application != pod.Application || v.Owner != pod.Owner:
			return fmt.Errorf("another pod %s exists, of %s %s (UID %s): delete it first", pod.PodKey, v.Owner.Kind, v.Owner, v.UID)
		}
		return p.until(ctx, func(v *view) (bool, error) {
			if v.gone || v.Terminating {
				return false, errGone
			}
			return v.taken, nil
		})
	}
}

// pause waits for a change.
func (n *Node) pause(ctx context.Context, changed <-chan struct{}) error {
	select {
	case <-changed:
	case <-ctx.Done():
	case <-n.ctx.Done():
	}
	return n.over(ctx)
}

// over returns why nothing is waited for any more, though something else may have come at the same time; nil when it goes on.
func (n *Node) over(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if n.ctx.Err() != nil {
		return errClosed
	}
	return nil
}

// until waits until the view of the pod satisfies done.
func (p *pod) until(ctx context.Context, done func(*view) (bool, error)) error {
	for {
		v, changed := p.view()
		if ok, err := done(v); ok || err != nil {
			return err
		}
		if err := p.node.pause(ctx, changed); err != nil {
			return err
		}
	}
}

// reserve returns the pod of that name, or a new one that has its UID and its address. Name and
// address are taken from then on.
func (n *Node) reserve(pod *plan.Pod) (p *pod, isNew bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.findLocked(pod.PodKey); p != nil {
		return p, false, nil
	}
	var ip netip.Addr
	if n.opt.Network != nil && !pod.Spec.HostNetwork {
		used := make([]netip.Addr, 0, len(n.pods))
		for _, p := range n.pods {
			if p.reserved.IsValid() {
				used = append(used, p.reserved)
			}
		}
		if ip, err = n.opt.Network.Allocate(used); err != nil {
			return nil, false, err
		}
	}
	p = n.newPod(newState(pod, newUID(), ip, time.Now().Round(0)))
	p.prime()
	n.pods[p.uid] = p
	n.serving.podSeen(&p.seen.ObservedPod, false)
	n.opt.Policies.PodSeen(&p.seen.ObservedPod)
	n.state = nil
	return p, true, nil
}

// admit writes the intent down and begins the pod's worker.
func (n *Node) admit(p *pod) error {
	record, err := encodeRecord(p.state.pod)
	if err == nil {
		p.saved, p.recorded = p.snapshot(record), p.state.pod
		err = n.writeState(p.saved, true)
	}
	if err == nil && !n.spawn(p.run) {
		err = errClosed
	}
	if err != nil {
		n.drop(p)
		if e := n.removeState(p.uid); e != nil {
			n.opt.OnTrouble(e)
		}
		return fmt.Errorf("take over pod %s: %w", p.key, err)
	}
	return nil
}

// newUID returns a random UUID (RFC 9562, version 4).
func newUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// doWait waits until the pod is ready, and until the registries have it: what is to go when it is ready may go then.
func (n *Node) doWait(ctx context.Context, a plan.WaitReady) error {
	p := n.find(a.Pod)
	if p == nil {
		return fmt.Errorf("wait for pod %s: it does not exist", a.Pod)
	}
	var late <-chan time.Time
	if !a.Deadline.IsZero() {
		t := time.NewTimer(time.Until(a.Deadline))
		defer t.Stop()
		late = t.C
	}
	for {
		v, changed := p.view()
		var steady <-chan time.Time
		var progress <-chan struct{}
		switch {
		case v.gone || v.Terminating:
			return fmt.Errorf("wait for pod %s: %w", a.Pod, errGone)
		case v.Phase == corev1.PodFailed:
			return notReady(a.Pod, v, "it failed")
		case v.Phase == corev1.PodSucceeded:
			return nil
		case v.Ready:
			now := time.Now()
			until := v.ReadySince.Add(a.MinReady)
			var routed time.Time
			if routed, progress = n.serving.entering(p.uid, now); routed.After(until) {
				until = routed
			}
			if routed.IsZero() && !until.After(now) {
				return nil
			}
			t := time.NewTimer(until.Sub(now))
			defer t.Stop()
			steady = t.C
		}
		select {
		case <-changed:
		case <-progress:
		case <-steady:
		case <-late:
			if ctx.Err() == nil && n.ctx.Err() == nil {
				return notReady(a.Pod, v, "it did not become ready in time")
			}
		case <-ctx.Done():
		case <-n.ctx.Done():
		}
		if err := n.over(ctx); err != nil {
			return err
		}
	}
}

// NotReadyError says why a pod did not become ready.
type NotReadyError struct {
	Pod             plan.PodKey
	What            string // what happened, in words
	Reason, Message string
	LogTail         []string
}

// Error gives everything in one text, the log lines last.
func (e *NotReadyError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "pod %s: %s", e.Pod, e.What)
	if e.Reason != "" {
		b.WriteString(": " + e.Reason)
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if len(e.LogTail) > 0 {
		b.WriteString("\nlast log lines:\n  " + strings.Join(e.LogTail, "\n  "))
	}
	return b.String()
}

func notReady(key plan.PodKey, v *view, what string) error {
	return &NotReadyError{Pod: key, What: what, Reason: v.Reason, Message: v.Message, LogTail: v.LogTail}
}

func (n *Node) doUpdate(ctx context.Context, a plan.UpdatePod) error {
	if err := n.answering(); err != nil {
		return err
	}
	p := n.find(a.Pod.PodKey)
	if p == nil {
		return fmt.Errorf("update pod %s: it does not exist", a.Pod.PodKey)
	}
	v, _ := p.view()
	if v.Application != a.Pod.Application {
		return fmt.Errorf("update pod %s: it belongs to application %s, not to %s", a.Pod.PodKey, v.Application, a.Pod.Application)
	}
	if !sameContainers(v.Spec, a.Pod.Spec) {
		return fmt.Errorf("update pod %s: its containers are others: it has to be replaced: %w", a.Pod.PodKey, runtimes.ErrInvalid)
	}
	n.mu.Lock()
	p.updates++
	number := p.updates
	n.mu.Unlock()
	p.tell(func() { p.change(a.Pod, number) })
	return p.until(ctx, func(v *view) (bool, error) {
		switch {
		case v.gone || v.Terminating:
			return false, fmt.Errorf("update pod %s: %w", a.Pod.PodKey, errGone)
		case v.updates < number:
			return false, nil
		case v.updated != nil:
			return false, fmt.Errorf("update pod %s: %w", a.Pod.PodKey, v.updated)
		}
		return !v.pending, nil
	})
}

func sameContainers(a, b *corev1.PodSpec) bool {
	names := func(s *corev1.PodSpec) string {
		var out []string
		for _, c := range s.InitContainers {
			out = append(out, c.Name)
		}
		out = append(out, "/")
		for _, c := range s.Containers {
			out = append(out, c.Name)
		}
		return strings.Join(out, " ")
	}
	return names(a) == names(b)
}

func (n *Node) doDelete(ctx context.Context, a plan.DeletePod) error {
	n.mu.Lock()
	var goes []*pod
	for _, uid := range sortedUIDs(n.pods) {
		if p := n.pods[uid]; p.key == a.Pod && (a.UID == "" || a.UID == uid) && (a.Application == "" || a.Application == p.seen.Application) {
			goes = append(goes, p)
		}
	}
	n.mu.Unlock()
	if len(goes) == 0 {
		return n.answering() // while the engine does not answer, nobody knows that it is gone
	}
	for _, p := range goes {
		p.tell(p.delete)
	}
	for _, p := range goes {
		if err := p.until(ctx, func(v *view) (bool, error) { return v.gone, nil }); err != nil {
			return err
		}
	}
	return nil
}

// doMove makes a pod one of another application. Nothing on the engine changes: the labels of its containers name the
// application that they were made for, and the node's own record of the pod says whose it is.
func (n *Node) doMove(ctx context.Context, a plan.MovePod) error {
	if err := n.answering(); err != nil {
		return err
	}
	n.mu.Lock()
	p := n.pods[a.UID]
	n.mu.Unlock()
	if p == nil || p.key != a.Pod {
		return fmt.Errorf("move pod %s to application %s: it does not exist", a.Pod, a.To)
	}
	p.tell(func() { p.move(a.From, a.To) })
	return p.until(ctx, func(v *view) (bool, error) {
		switch {
		case v.gone || v.Terminating:
			return false, fmt.Errorf("move pod %s to application %s: %w", a.Pod, a.To, errGone)
		case v.Application != a.From && v.Application != a.To:
			return false, fmt.Errorf("move pod %s from application %s to %s: it belongs to application %s", a.Pod, a.From, a.To, v.Application)
		}
		return v.Application == a.To, nil
	})
}

// move makes the pod one of another application.
func (p *pod) move(from, to string) {
	if p.state.pod.Application != from || p.deletion != nil {
		return
	}
	now := *p.state.pod
	now.Application = to
	p.respec(&now)
	p.normal("", "Moved", "Pod moves from application %s to application %s", from, to)
}

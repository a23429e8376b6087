package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// delete makes the pod stop and go. Doing it again changes nothing.
func (p *pod) delete() {
	if p.deletion != nil {
		return
	}
	p.deletion = &deletion{deadline: time.Now().Add(p.grace())}
	p.cancelWork()
	p.node.probes.RemovePod(p.uid)
	for _, c := range p.containers {
		c.probing = false
	}
	p.leave()
	p.save() // before anything is stopped
}

// removeAll removes everything that was made for the pod, when nothing of it runs any more.
func (p *pod) removeAll() {
	p.deletion.busy = true
	ids, unsure := p.ids(), p.unsure
	p.begin(func() func() {
		var err error
		if unsure {
			ids, err = p.node.idsOf(p.uid)
		}
		if err == nil {
			err = p.node.removeEverything(p.uid, ids)
		}
		return func() {
			p.deletion.busy = false
			if err != nil {
				p.node.suspect(err)
				p.deletion.retryAt = time.Now().Add(p.deletion.retry.failed())
				p.warning("", "FailedKillPod", "error killing pod: %v", err)
				return
			}
			p.deletion.gone = true
			p.node.drop(p)
		}
	})
}

// unanswered reports whether the outcome of a call is unknown.
func unanswered(err error) bool {
	return errors.Is(err, runtimes.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// idsOf asks the engine which containers a pod has. A container that stayed behind would be taken for a pod to adopt.
func (n *Node) idsOf(uid string) ([]string, error) {
	ctx, cancel := n.call()
	defer cancel()
	found, err := n.opt.Engine.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the pod's containers: %w", err)
	}
	var ids []string
	for _, c := range found {
		if c.UID == uid {
			ids = append(ids, c.ID)
		}
	}
	return ids, nil
}

// ids are the pod's containers on the engine, the sandbox last.
func (p *pod) ids() []string {
	var ids []string
	add := func(i *instance) {
		if i != nil && i.id != "" && !slices.Contains(ids, i.id) { // one that is replaced is both the newest and the previous attempt
			ids = append(ids, i.id)
		}
	}
	for _, i := range p.old {
		add(i)
	}
	for _, c := range p.containers {
		add(c.previous)
		add(&c.instance)
	}
	add(&p.sandbox.instance)
	return ids
}

func (n *Node) removeEverything(uid string, ids []string) error {
	errs := make([]error, len(ids))
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() { errs[i] = n.remove(id) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove containers: %w", err)
	}
	ctx, cancel := n.call()
	defer cancel()
	if n.opt.Network != nil {
		if err := n.opt.Network.Detach(ctx, uid); err != nil {
			return err
		}
	}
	if err := n.opt.Volumes.Remove(ctx, uid); err != nil {
		return err
	}
	return n.removeState(uid)
}

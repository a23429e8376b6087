package executor

import (
	"errors"
	"fmt"
	"sync"
	"time"
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
	p.save() // before anything is stopped
}

// removeAll removes everything that was made for the pod, when nothing of it runs any more.
func (p *pod) removeAll() {
	p.deletion.busy = true
	ids := p.ids()
	p.begin(func() func() {
		err := p.node.removeEverything(p.uid, ids)
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

// ids are the pod's containers on the engine, the sandbox last.
func (p *pod) ids() []string {
	var ids []string
	add := func(i *instance) {
		if i != nil && i.id != "" {
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

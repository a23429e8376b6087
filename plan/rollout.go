package plan

import (
	"fmt"
	"time"
)

// rollout is the graph of one rolling update: which pod may be created when, and which may go. Whatever
// order its steps are taken in, within what After allows, there are never more than most pods, and never
// fewer than least of them available, as far as that was so when it began.
//
// It is not taken in waves. Every pod that becomes ready pays for the deletion of one old pod, and every
// deletion for the creation of one new pod; the surge and what may be unavailable are what is paid out
// at the beginning.
type rollout struct {
	b *builder
	w *Workload

	most, least int
	minReady    time.Duration
	deadline    time.Duration // 0 for none
	stalled     bool          // what is not ready yet is not waited for
	cause       string

	fresh   []*pod // those that are there
	waiting []*pod // those of fresh that are not available and can become so
	broken  []*pod // old pods that are not available, in the order in which they go
	good    []*pod // old pods that are available, in the order in which they go
	keep    int    // old pods that cannot be deleted: their node does not answer
	until   time.Time

	creating int // pods to be created

	available int // pods that are available now
	free      int // pods that may be created before any goes
	// shortAll is how many pods have to become available before any old one may go, short before an available one may.
	shortAll, short int

	names   *nameSet
	created []*creation
	waits   []wait
	deletes []*deletion
}

type creation struct {
	pod  *Pod
	step StepID
	// wave is how many waits stand before it.
	wave int
}

type wait struct {
	step StepID
	wave int
}

type deletion struct {
	pod  *pod
	step StepID
	wave int
	// payer is the number of the wait that pays for it; 0 or less when nothing has to be waited for.
	payer int
}

// plan adds the steps.
func (r *rollout) plan() {
	total := len(r.fresh) + len(r.broken) + len(r.good) + r.keep
	r.available = len(r.good)
	for _, p := range r.fresh {
		if ok, _ := p.available(r.b.now, r.minReady); ok {
			r.available++
		}
	}
	for _, p := range r.broken {
		r.deletes = append(r.deletes, &deletion{pod: p})
	}
	for _, p := range r.good {
		r.deletes = append(r.deletes, &deletion{pod: p})
	}
	// spareAll is how many old pods may go while the new ones that are not available count as none,
	// spare how many available ones may.
	spareAll := len(r.broken) + r.keep + r.available - r.least
	spare := r.available - r.least
	for i := range r.deletes {
		if i < len(r.broken) {
			r.deletes[i].payer = i + 1 - spareAll
		} else {
			r.deletes[i].payer = i + 1 - len(r.broken) - spare
		}
	}
	r.shortAll, r.short, r.free = max(0, -spareAll), max(0, -spare), r.most-total
	for i := range r.creating {
		r.create(i)
	}
	for i := range r.deletes {
		r.delete(i)
	}
}

// create plans the creation number i; those before it are planned.
func (r *rollout) create(i int) *creation {
	for len(r.created) <= i {
		n := len(r.created)
		c := &creation{pod: r.w.pod(r.names.take())}
		r.created = append(r.created, c)
		var after []StepID
		if n >= r.free {
			// Paid by a deletion, after those that only bring the number of pods down to most.
			over := max(0, -r.free)
			payer := n - max(0, r.free) + over
			for j := range over {
				after = append(after, r.delete(j).step)
			}
			if payer >= len(r.deletes) {
				continue
			}
			d := r.delete(payer)
			after = append(after, d.step)
			c.wave = d.wave
		}
		c.step = r.b.create(c.pod, r.cause, after...)
	}
	return r.created[i]
}

// delete plans the deletion number i.
func (r *rollout) delete(i int) *deletion {
	d := r.deletes[i]
	if d.step != 0 || d.pod.gone {
		return d
	}
	var after []StepID
	first := r.shortAll
	if i >= len(r.broken) {
		first = r.short
	}
	if d.payer > 0 {
		// The waits up to first are a chain, so the last of them stands for all.
		if first > 0 && first != d.payer {
			w := r.wait(first, first)
			after = append(after, w.step)
			d.wave = w.wave + 1
		}
		w := r.wait(d.payer, first)
		after = append(after, w.step)
		d.wave = max(d.wave, w.wave+1)
	}
	d.step = r.b.remove(d.pod, r.cause, after...)
	return d
}

// wait plans the wait number n, counted from 1: for the pods that are there first, then for those created.
func (r *rollout) wait(n, chain int) wait {
	for len(r.waits) < n {
		r.waits = append(r.waits, wait{})
	}
	if r.waits[n-1].step != 0 || r.stalled {
		return r.waits[n-1]
	}
	var out wait
	var after []StepID
	if n > 1 && n <= chain {
		before := r.wait(n-1, chain)
		after, out.wave = append(after, before.step), before.wave
	}
	cause := "the rollout goes on when it is ready"
	switch {
	case n <= len(r.waiting):
		p := r.waiting[n-1]
		out.step = r.b.waitReady(p.PodKey, p, r.minReady, r.until, cause, after...)
	case n-len(r.waiting) <= r.creating:
		c := r.create(n - len(r.waiting) - 1)
		out.wave = max(out.wave, c.wave)
		out.step = r.b.waitReady(c.pod.PodKey, nil, r.minReady, r.deadlineOf(out.wave), cause, append(after, c.step)...)
	}
	r.waits[n-1] = out
	return out
}

// deadlineOf is when a pod of a wave must be ready at the latest: each wave has the whole deadline for itself.
func (r *rollout) deadlineOf(wave int) time.Time {
	if r.deadline <= 0 || r.deadline > 365*24*time.Hour {
		return time.Time{}
	}
	return r.b.now.Add(r.deadline * time.Duration(min(wave, 1000)+1))
}

// show adds what happens to the pods. Old pods and new ones are paired; old ones that are too many are
// deleted, new ones that are more than the old are created.
func (r *rollout) show(w *Workload, want int) {
	b := r.b
	surplus := max(0, len(r.deletes)-r.creating)
	gone := 0 // available pods that go before anything is ready
	for i, d := range r.deletes {
		if d.step == 0 {
			continue
		}
		first := d.payer <= 0
		if first && i >= len(r.broken) {
			gone++
		}
		if i < surplus {
			b.podChange(w.Ref, PodChange{Pod: d.pod.PodKey, Action: ActionDelete, Node: d.pod.node, Cause: fmt.Sprintf("%s wanted, and its template is not", podsAre(want))})
			continue
		}
		c := r.created[i-surplus]
		if c.step == 0 {
			b.podChange(w.Ref, PodChange{Pod: d.pod.PodKey, Action: ActionDelete, Node: d.pod.node, Cause: r.cause})
			continue
		}
		pc := PodChange{Pod: c.pod.PodKey, Replaces: d.pod.PodKey, Action: ActionStartFirst, Node: d.pod.node, Cause: r.cause}
		if first {
			pc.Action = ActionStopFirst
			pc.Downtime = i >= len(r.broken) && r.available-gone < want
		}
		b.podChange(w.Ref, pc)
	}
	for i, c := range r.created {
		if c.step == 0 {
			continue
		}
		if at := i + surplus; at < len(r.deletes) && r.deletes[at].step != 0 {
			continue
		}
		b.podChange(w.Ref, PodChange{Pod: c.pod.PodKey, Action: ActionCreate, Cause: r.cause})
	}
}

// podsAre returns n in words.
func podsAre(n int) string {
	if n == 1 {
		return "1 pod is"
	}
	return fmt.Sprintf("%d pods are", n)
}

package executor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// orphanAge is how long a container of ours must have been seen without its pod before it is removed.
const orphanAge = 30 * time.Second

// adopt makes the pods know what a list that was begun at began has found, and takes over the pods
// that the node does not know yet. What runs is not touched.
func (n *Node) adopt(ctx context.Context, began time.Time, found []runtimes.Container, gap bool) {
	byPod := map[string][]runtimes.Container{}
	for _, c := range found {
		byPod[c.UID] = append(byPod[c.UID], c)
	}
	n.mu.Lock()
	known := maps.Clone(n.pods)
	maps.DeleteFunc(n.dropped, func(_ string, at time.Time) bool { return at.Before(began) })
	for uid := range n.dropped {
		delete(byPod, uid) // it went while the list was on its way
	}
	first := !n.adopted
	n.mu.Unlock()
	for _, uid := range sortedUIDs(known) {
		p, list := known[uid], byPod[uid]
		p.tell(func() { p.listed(began, list, gap) })
	}
	saved := map[string]savedState{}
	unknown := slices.DeleteFunc(slices.Sorted(maps.Keys(byPod)), func(uid string) bool { return known[uid] != nil })
	if first || len(unknown) > 0 {
		saved = n.savedStates()
	}
	if first {
		for uid := range saved {
			if _, ok := byPod[uid]; !ok {
				unknown = append(unknown, uid) // it was written down, and nothing of it is on the engine yet, or any more
			}
		}
		slices.Sort(unknown)
	}
	orphans := map[string]time.Time{}
	for _, uid := range unknown {
		file, ok := saved[uid]
		s, err := n.rebuild(uid, byPod[uid], file, ok)
		if err != nil {
			n.orphan(ctx, uid, byPod[uid], began, orphans, err)
			continue
		}
		n.takeOver(s, file, byPod[uid])
	}
	n.mu.Lock()
	n.orphans = orphans
	uids := slices.Collect(maps.Keys(n.pods))
	n.adopted = true
	n.mu.Unlock()
	if first {
		close(n.serving.begun)
		n.opt.Policies.Adopted()
	}
	if first && !n.opt.ReadOnly {
		n.sweepStrays(ctx, append(uids, slices.Collect(maps.Keys(orphans))...))
	}
}

// sweepStrays removes volumes and links of pods that are gone.
func (n *Node) sweepStrays(ctx context.Context, keep []string) {
	if _, err := n.opt.Volumes.Strays(ctx, keep); err != nil {
		n.opt.OnTrouble(fmt.Errorf("remove volumes of pods that are gone: %w", err))
	}
	if n.opt.Network == nil {
		return
	}
	if _, err := n.opt.Network.Strays(ctx, keep); err != nil {
		n.opt.OnTrouble(fmt.Errorf("remove links of pods that are gone: %w", err))
	}
}

func (n *Node) orphaned() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.orphans) > 0 && !n.opt.ReadOnly
}

// orphan deals with containers whose pod nobody knows: no sandbox, no file. They are removed when they
// have been seen so for a while.
func (n *Node) orphan(ctx context.Context, uid string, list []runtimes.Container, began time.Time, orphans map[string]time.Time, why error) {
	n.mu.Lock()
	since, seen := n.orphans[uid]
	n.mu.Unlock()
	if !seen {
		since = began
		n.opt.OnTrouble(fmt.Errorf("%d containers belong to no pod that is known: %w", len(list), why))
	}
	orphans[uid] = since
	if n.opt.ReadOnly || began.Sub(since) < orphanAge {
		return
	}
	var errs []error
	for _, c := range list {
		errs = append(errs, n.remove(c.ID))
	}
	if n.opt.Network != nil {
		errs = append(errs, n.opt.Network.Detach(ctx, uid))
	}
	errs = append(errs, n.opt.Volumes.Remove(ctx, uid))
	if err := errors.Join(errs...); err != nil {
		n.opt.OnTrouble(fmt.Errorf("remove containers of a pod that is not known: %w", err))
		return
	}
	delete(orphans, uid)
}

// takeOver begins a worker for a pod that was found.
func (n *Node) takeOver(s state, file savedState, list []runtimes.Container) {
	p := n.newPod(s)
	p.saved = file
	p.prime()
	n.mu.Lock()
	if _, taken := n.pods[p.uid]; taken || n.closed {
		n.mu.Unlock()
		return
	}
	n.pods[p.uid] = p
	n.serving.podSeen(&p.seen.ObservedPod, true)
	n.opt.Policies.PodSeen(&p.seen.ObservedPod)
	n.state = nil
	for _, c := range list {
		if c.Paused {
			n.paused[c.ID] = true
		}
	}
	n.wakeWatchers()
	n.mu.Unlock()
	n.spawn(func() {
		p.resume() // before anything is done: what ended meanwhile may be replaced at once
		p.run()
	})
}

// resume goes on with a pod that was taken over: its probes, the tail of what failed.
func (p *pod) resume() {
	p.readMounted()
	if p.leaving != nil {
		p.node.serving.wakeLeaving(p)
	}
	for _, c := range p.containers {
		switch {
		case c.status == running && c.postStart == hookDone:
			p.watch(c)
		case c.status == exited && c.code != 0 && c.id != "" && !p.node.opt.ReadOnly:
			p.settle(c, false)
		}
	}
}

func (p *pod) readMounted() {
	p.files.Lock()
	defer p.files.Unlock()
	if m, err := p.node.opt.Volumes.Mounted(p.uid); err == nil {
		p.mounted = m
	}
}

// rebuild makes the state of a pod from its containers and its file.
func (n *Node) rebuild(uid string, list []runtimes.Container, file savedState, haveFile bool) (state, error) {
	slices.SortFunc(list, func(a, b runtimes.Container) int { return a.Attempt - b.Attempt })
	record := file.Record
	var box *runtimes.Container
	for i := range list {
		if list[i].Container == runtimes.SandboxContainer {
			box = &list[i]
		}
	}
	if record == "" && box != nil {
		record = box.Spec
	}
	if record == "" {
		return state{}, fmt.Errorf("pod %s has neither a sandbox nor a file", uid)
	}
	id := runtimes.Identity{UID: uid}
	if len(list) > 0 {
		id = list[0].Identity
	}
	pod, err := decodeRecord(record)
	broken := ""
	if err != nil {
		broken = "its record cannot be understood: " + err.Error()
		pod = &plan.Pod{PodKey: id.Pod, Application: id.Application, Template: id.Template, Index: -1, Spec: &corev1.PodSpec{}}
		n.opt.OnTrouble(fmt.Errorf("pod %s: %s", pod.PodKey, broken))
	}
	refs := file.Configs
	if !haveFile {
		refs = requiredRefs(pod)
	}
	pod.Configs = nil
	for _, ref := range refs {
		pod.Configs = append(pod.Configs, plan.Config{Ref: ref})
	}
	at := file.Created
	if !haveFile && box != nil {
		at = box.Created
	}
	ip := file.IP
	if ip == "" && box != nil {
		ip = box.IP
	}
	s := newState(pod, uid, parseIP(ip), at)
	s.broken = broken
	s.place(list)
	s.recall(file, haveFile)
	return s, nil
}

// place puts the engine's containers into the state: the newest attempt of each is what counts.
func (s *state) place(list []runtimes.Container) {
	for _, c := range list {
		if c.Container != runtimes.SandboxContainer {
			continue
		}
		if s.sandbox.id != "" {
			old := s.sandbox.instance
			s.old = append(s.old, &old)
		}
		s.sandbox.instance = instance{}
		s.sandbox.set(c)
		s.sandbox.next = c.Attempt + 1
	}
	for _, found := range list {
		if found.Container == runtimes.SandboxContainer {
			continue
		}
		c := s.container(found.Container)
		if c == nil {
			i := &instance{}
			i.set(found)
			s.old = append(s.old, i)
			continue
		}
		s.supersede(c)
		c.instance = instance{}
		c.set(found)
		c.next = found.Attempt + 1
		c.image, c.imageID, c.resources = found.Image, found.ImageID, found.Resources
		if c.status == exited {
			c.last = termination{Reason: exitReason(c.code, c.oom), ExitCode: c.code, OOM: c.oom, Finished: c.ended, Message: found.Error}
		}
	}
	for _, c := range s.containers {
		if c.id != "" && !s.current(&c.instance) {
			s.supersede(c)
			c.instance = instance{status: absent}
		}
		if c.previous != nil && c.previous.status == running {
			s.old, c.previous = append(s.old, c.previous), nil // by hand: only one attempt may run
		}
	}
}

// supersede keeps the newest attempt as the previous one.
func (s *state) supersede(c *container) {
	if c.id == "" {
		return
	}
	if c.previous != nil {
		s.old = append(s.old, c.previous)
	}
	last := c.instance
	c.previous = &last
}

// recall adds what the file knows.
func (s *state) recall(file savedState, haveFile bool) {
	s.sandbox.next = max(s.sandbox.next, file.Next)
	s.readySince = file.ReadySince
	if file.SandboxCause != nil {
		s.sandbox.cause = cause{*file.SandboxCause, true}
	}
	s.volumes.done = s.sandbox.status == running
	if s.sandbox.status == absent && s.sandbox.next > 0 {
		s.sandbox.status = exited // there was one
	}
	if !file.Deletion.IsZero() {
		s.deletion = &deletion{deadline: file.Deletion}
	}
	if !file.Leaving.IsZero() {
		s.leaving = &leaving{since: file.Leaving}
	}
	if e := file.Ending; e != nil {
		s.ending = &ending{phase: corev1.PodPhase(e.Phase), reason: e.Reason, message: e.Message, deadline: e.Deadline}
	}
	s.finished = file.Finished
	for _, c := range s.containers {
		f, ok := file.Containers[c.spec.Name]
		same := ok && f.Next == c.next
		c.next = max(c.next, f.Next)
		if ok {
			c.crash = f.Crash
			if c.last.Finished.IsZero() || same && c.last.Finished.Equal(f.Last.Finished) {
				c.last = f.Last
			}
			if f.Cause != nil && f.Next == c.next {
				c.cause = cause{*f.Cause, true}
			}
		}
		switch {
		case c.status == running:
			hooks := c.spec.Lifecycle != nil && c.spec.Lifecycle.PostStart != nil
			if same && f.Hooked || !hooks || !haveFile {
				c.postStart = hookDone
			}
			c.begun = c.spec.StartupProbe == nil || same && f.Begun
			c.ready = c.begun && (c.spec.ReadinessProbe == nil || same && f.Ready)
		case c.status == exited && s.restarts(c, c.code):
			c.wait = c.crash.until(c.ended)
		case c.status == absent && f.Started && f.Next > 0 && s.sandbox.status == running:
			// It ran, and was removed while nobody looked.
			c.status, c.attempt, c.code, c.ended, c.byHand = exited, f.Next-1, 137, f.Last.Finished, true
			if f.Last.Finished.IsZero() {
				c.last = termination{Reason: reasonStatusUnknown, ExitCode: 137, Finished: time.Now(),
					Message: "The container could not be located when the pod was looked at"}
				c.ended = c.last.Finished
			} else {
				c.code = f.Last.ExitCode
			}
		}
	}
}

// listed takes over what a list has found of the pod. What the worker learned after the list was
// begun is newer.
func (p *pod) listed(began time.Time, list []runtimes.Container, gap bool) {
	found := map[string]runtimes.Container{}
	for _, c := range list {
		found[c.ID] = c
	}
	now := time.Now()
	p.old = slices.DeleteFunc(p.old, func(i *instance) bool { _, ok := found[i.id]; return !ok && !i.busy })
	if s := &p.sandbox; !s.busy && s.id != "" && s.touched.Before(began) {
		c, ok := found[s.id]
		switch {
		case !ok:
			p.blame(&s.cause, "", plan.Disturbance{By: plan.ByUnknown, Action: "unseen", What: "is gone, and nothing told of it", At: now})
			p.sandboxRemoved(now)
		case !c.Running && s.status == running:
			p.blame(&s.cause, "", p.node.unseenEnd(c.ExitCode, c.OOM, s.started, c.FinishedAt))
			p.sandboxDied(c.FinishedAt)
		case c.Running:
			wired := s.wired && s.pid == c.PID
			s.set(c)
			// After a gap the network may have been taken away: attaching again does no harm.
			s.wired = wired && !gap
		}
	}
	for _, c := range p.containers {
		if last := c.previous; last != nil && last.touched.Before(began) && found[last.id].Running {
			p.old, c.previous = append(p.old, last), nil // by hand: only one attempt may run
		}
		if c.working || c.id == "" || !c.touched.Before(began) {
			continue
		}
		f, ok := found[c.id]
		if !ok {
			if c.status == running || c.status == created {
				p.blame(&c.cause, c.spec.Name, plan.Disturbance{By: plan.ByUnknown, Action: "unseen", What: "is gone, and nothing told of it", At: now})
			}
			p.wasRemoved(c, now)
			continue
		}
		c.resources = f.Resources
		if c.paused != f.Paused {
			c.paused = f.Paused
			p.node.setPaused(c.id, f.Paused)
		}
		switch {
		case f.Running && c.status == created:
			p.hasStarted(c, f.StartedAt, f.PID)
		case !f.Running && c.status == running:
			c.oom = c.oom || f.OOM
			p.blame(&c.cause, c.spec.Name, p.node.unseenEnd(f.ExitCode, c.oom, c.started, f.FinishedAt))
			p.hasDied(c, f.ExitCode, f.FinishedAt, false)
		}
	}
	p.adoptUnknown(began, list)
}

// adoptUnknown takes up containers whose creation had an unknown outcome.
func (p *pod) adoptUnknown(began time.Time, list []runtimes.Container) {
	known := map[string]bool{}
	for _, id := range p.ids() {
		known[id] = true
	}
	for _, f := range list {
		if known[f.ID] {
			continue
		}
		if f.Container == runtimes.SandboxContainer {
			if s := &p.sandbox; s.status == absent && !s.busy && s.touched.Before(began) {
				s.instance = instance{touched: began}
				s.set(f)
				s.next = max(s.next, f.Attempt+1)
			}
			continue
		}
		if c := p.container(f.Container); c != nil && c.id == "" && !c.working && f.Attempt >= c.next && c.touched.Before(began) {
			c.instance = instance{touched: began}
			c.reset()
			c.set(f)
			c.next, c.image, c.imageID, c.resources = f.Attempt+1, f.Image, f.ImageID, f.Resources
			if c.status == running {
				p.afterPostStart(c)
			}
		}
	}
}

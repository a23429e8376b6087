package executor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
)

// Describe implements apply.Executor.
func (n *Node) Describe(ctx context.Context) (plan.Node, error) {
	if err := n.wait(ctx); err != nil {
		return plan.Node{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	i := n.info
	return plan.Node{
		ID: n.opt.ID, EngineName: i.Name, EngineVersion: i.Version, APIVersion: i.APIVersion,
		CPUs: i.CPUs, MemoryBytes: i.MemoryBytes, CgroupV2: i.CgroupV2,
	}, n.staleErr
}

// Observe implements apply.Executor. While the engine does not answer, the error says why, beside
// what was last known.
func (n *Node) Observe(ctx context.Context) (plan.NodeState, error) {
	if err := n.wait(ctx); err != nil {
		return plan.NodeState{Node: n.opt.ID, Stale: true}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state == nil {
		s := &plan.NodeState{
			Node: n.opt.ID, Stale: n.stale,
			CPUMillis: int64(n.info.CPUs) * 1000, MemoryBytes: n.info.MemoryBytes,
		}
		for _, p := range n.pods {
			s.Pods = append(s.Pods, p.seen.ObservedPod)
		}
		slices.SortFunc(s.Pods, func(a, b plan.ObservedPod) int {
			if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
				return c
			}
			if c := strings.Compare(a.Name, b.Name); c != 0 {
				return c
			}
			return strings.Compare(a.UID, b.UID)
		})
		s.Services, s.Endpoints = n.serving.lists()
		s.Storage = n.storage.all()
		n.state = s
	}
	return *n.state, n.staleErr
}

// wait waits until the engine was looked at for the first time.
func (n *Node) wait(ctx context.Context) error {
	select {
	case <-n.synced:
	case <-ctx.Done():
		return ctx.Err()
	}
	if n.ctx.Err() != nil {
		return errClosed
	}
	return nil
}

// Gather is how long changes are gathered before Watch tells of them, and how long they should be for registries.
const Gather = 2 * time.Millisecond

// Watch implements apply.Executor.
func (n *Node) Watch(ctx context.Context, wake func()) error {
	changed := make(chan struct{}, 1)
	n.mu.Lock()
	n.watchers[changed] = struct{}{}
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		delete(n.watchers, changed)
		n.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.ctx.Done():
			return errClosed
		case <-changed:
		}
		time.Sleep(Gather)
		select {
		case <-changed:
		default:
		}
		wake()
	}
}

// wakeWatchers is called with mu held.
func (n *Node) wakeWatchers() {
	for w := range n.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

// prime makes the first view of a pod whose worker does not run yet.
func (p *pod) prime() { p.seen = p.look() }

// publish shows the pod as it is now, if it differs from what was shown.
func (p *pod) publish() {
	v := p.look()
	n := p.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if p.seen.gone || reflect.DeepEqual(p.seen, v) {
		return
	}
	observed := !reflect.DeepEqual(p.seen.ObservedPod, v.ObservedPod)
	if observed {
		n.serving.podSeen(&v.ObservedPod, false) // first: who sees the view finds it served
		n.opt.Policies.PodSeen(&v.ObservedPod)
	}
	p.seen = v
	close(p.changed)
	p.changed = make(chan struct{})
	if observed {
		n.state = nil
		n.wakeWatchers()
	}
}

// drop forgets a pod that is gone.
func (n *Node) drop(p *pod) {
	n.mu.Lock()
	defer n.mu.Unlock()
	last := *p.seen
	last.gone = true
	p.seen = &last
	close(p.changed)
	p.changed = make(chan struct{})
	delete(n.pods, p.uid)
	n.dropped[p.uid] = time.Now()
	n.serving.podGone(p.uid)
	n.opt.Policies.PodGone(p.uid)
	n.state = nil
	n.wakeWatchers()
}

// view returns how the pod was last seen and a channel that is closed when that changes.
func (p *pod) view() (*view, <-chan struct{}) {
	p.node.mu.Lock()
	defer p.node.mu.Unlock()
	return p.seen, p.changed
}

// look describes the pod as it is now.
func (p *pod) look() *view {
	s := &p.state
	now := time.Now()
	o := plan.ObservedPod{
		PodKey: p.key, UID: p.uid, Application: s.pod.Application, Owner: s.pod.Owner, Template: s.pod.Template,
		Index: s.pod.Index, Labels: s.pod.Labels, Annotations: s.pod.Annotations, Spec: s.pod.Spec,
		Created: s.created, Phase: s.phase(), Terminating: s.deletion != nil, IP: p.shownIP(),
		Mounted: s.mounted, LogTail: s.logTail,
	}
	if s.finished != nil {
		o.Finished = s.finished.At
	}
	initialized := s.initialized()
	ready := len(s.pod.Spec.Containers) > 0 && s.deletion == nil && s.ending == nil && s.finished == nil && s.sandbox.status == running
	for _, c := range s.containers {
		oc := s.observe(c, now, initialized)
		o.Containers = append(o.Containers, oc)
		if c.kind != initial && !oc.Ready {
			ready = false
		}
	}
	if ready && (!p.wasReady || s.readySince.IsZero()) && (s.readySince.IsZero() || p.saved.UID == "" || p.wasSeen) {
		s.readySince = now
	}
	p.wasReady, p.wasSeen = ready, true
	o.Ready, o.ReadySince = ready, s.readySince
	o.Reason, o.Message = s.reason(o.Containers)
	return &view{
		ObservedPod: o, spec: s.pod, taken: s.taken(),
		pending: !s.update.done && s.volumes.done && s.finished == nil && s.ending == nil && s.deletion == nil && s.broken == "",
		updated: s.updateErr, updates: s.updates,
	}
}

func (p *pod) shownIP() string {
	if p.state.pod.Spec.HostNetwork && len(p.node.opt.HostIPs) > 0 {
		return p.node.opt.HostIPs[0]
	}
	return p.address()
}

// phase is the pod's phase as Kubernetes defines it.
func (s *state) phase() corev1.PodPhase {
	if s.finished != nil {
		return s.finished.Phase
	}
	if s.broken != "" {
		return corev1.PodUnknown
	}
	ran := false
	for _, c := range s.containers {
		if c.kind == regular {
			if c.next == 0 || c.status == created && c.attempt == 0 {
				return corev1.PodPending
			}
			ran = ran || c.status == running || c.status == exited || c.next > 0
		}
	}
	if !ran {
		return corev1.PodPending
	}
	return corev1.PodRunning
}

// observe describes one container.
func (s *state) observe(c *container, now time.Time, initialized bool) plan.ObservedContainer {
	o := plan.ObservedContainer{
		Name: c.spec.Name, ID: c.id, Image: c.spec.Image, ImageID: c.imageID, Init: c.kind != regular,
		Restarts: max(c.next-1, 0), Resources: c.resources,
		ExitCode: c.last.ExitCode, OOM: c.last.OOM, FinishedAt: c.last.Finished,
		Paused: c.paused, Disturbed: c.cause.disturbance(),
	}
	again := c.status == exited && s.restarts(c, c.code) && s.ending == nil && s.finished == nil && s.deletion == nil
	switch {
	case c.status == running:
		o.State, o.StartedAt = plan.Running, c.started
		o.ExitCode, o.OOM, o.FinishedAt = 0, false, time.Time{}
		o.Started = c.postStart == hookDone && c.begun
		// One that is stopped in order to be restarted gets no new connections; one whose pod goes serves to its end.
		o.Ready = o.Started && c.ready && !c.paused && (c.stop == nil || s.deletion != nil)
		o.Message = c.unready
		if c.paused {
			o.Message = "the container is paused"
		}
		if c.problem != nil {
			o.Reason, o.Message = c.problem.Reason, c.problem.Error()
		}
	case again && c.problem != nil && c.last.Reason != reasonStartError:
		o.State, o.Reason, o.Message = plan.Waiting, c.problem.Reason, c.problem.Error()
	case again && c.wait.After(now):
		o.State, o.Reason = plan.Waiting, reasonCrashLoop
		o.Message = fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)",
			c.crash.Delay, c.spec.Name, s.pod.Name, s.pod.Namespace, s.uid)
		if c.last.Message != "" {
			o.Message += ": " + c.last.Message
		}
	case c.status == exited:
		o.State, o.Reason, o.Message = plan.Terminated, c.last.Reason, c.last.Message
		o.StartedAt = c.started
		o.Ready = c.kind == initial && c.code == 0
	case c.problem != nil:
		o.State, o.Reason, o.Message = plan.Waiting, c.problem.Reason, c.problem.Error()
	default:
		o.State, o.Reason = plan.Waiting, reasonCreating
		if c.kind != initial && !initialized && len(s.pod.Spec.InitContainers) > 0 || c.kind == initial && c.spec.Name != s.pod.Spec.InitContainers[0].Name {
			o.Reason = reasonInitializing
		}
	}
	return o
}

// reason says why the pod is not ready.
func (s *state) reason(list []plan.ObservedContainer) (reason, message string) {
	switch {
	case s.finished != nil:
		return s.finished.Reason, s.finished.Message
	case s.ending != nil:
		return s.ending.reason, s.ending.message
	case s.broken != "":
		return "InvalidRecord", s.broken
	case s.sandbox.problem != nil:
		return s.sandbox.problem.Reason, s.sandbox.problem.Error()
	case s.volumes.problem != nil:
		return s.volumes.problem.Reason, s.volumes.problem.Error()
	}
	for _, c := range list {
		if c.State == plan.Waiting && c.Reason != reasonCreating && c.Reason != reasonInitializing {
			return c.Reason, fmt.Sprintf("container %s: %s", c.Name, c.Message)
		}
	}
	for _, c := range list {
		if c.State == plan.Terminated && c.ExitCode != 0 && s.phase() != corev1.PodSucceeded {
			text := fmt.Sprintf("container %s ended with exit code %d", c.Name, c.ExitCode)
			if c.Message != "" {
				text += ": " + c.Message
			}
			return "", text
		}
		if c.State == plan.Running && !c.Ready && c.Message != "" {
			return "", fmt.Sprintf("container %s: %s", c.Name, c.Message)
		}
	}
	return "", ""
}

// taken reports whether the pod is past what CreatePod is about: its containers were started, or
// something stands before that which the node goes on with by itself.
func (s *state) taken() bool {
	if s.broken != "" || s.ending != nil || s.finished != nil || s.deletion != nil || s.sandbox.problem != nil || s.volumes.problem != nil {
		return true
	}
	all := true
	for _, c := range s.containers {
		ran := c.status == running || c.status == exited
		if c.problem != nil || c.kind == initial && ran {
			return true
		}
		all = all && ran
	}
	return all
}

// errGone: the pod was deleted while it was waited for.
var errGone = errors.New("the pod is gone")

func sortedUIDs(pods map[string]*pod) []string { return slices.Sorted(maps.Keys(pods)) }

package probes

import (
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// Manager runs the probes of all containers of a node. Its methods may be called from any goroutine.
type Manager struct {
	prober Prober
	on     func(Result)
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	workers map[name]*worker
}

type name struct{ uid, container string }

// NewManager returns a Manager that calls on for the first verdict of every probe and whenever a
// verdict changes; the calls for one container come one after the other. on is not called for a
// liveness probe that never failed. It must not block, nor call Set, Remove or Close.
//
// After a failed verdict a startup or liveness probe is silent: the container is to be restarted,
// and Set with the new attempt begins again.
func NewManager(p Prober, on func(Result)) *Manager {
	ctx, cancel := context.WithCancel(context.Background())
	return &Manager{prober: p, on: on, ctx: ctx, cancel: cancel, workers: map[name]*worker{}}
}

// Set makes the probes of container c run against the target. Calling it again with the same target
// and the same probes changes nothing; another attempt, id, address or probe begins anew.
func (m *Manager) Set(t Target, c *corev1.Container) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := name{t.UID, t.Container}
	if w := m.workers[key]; w != nil {
		if w.same(t, c) {
			return
		}
		w.cancel()
		delete(m.workers, key)
	}
	if m.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(m.ctx)
	w := &worker{manager: m, target: t, container: c, cancel: cancel}
	w.state = State{Started: c.StartupProbe == nil}
	w.state.Known = w.state.Started && c.ReadinessProbe == nil
	w.state.Ready = w.state.Known
	m.workers[key] = w
	if c.StartupProbe == nil && c.ReadinessProbe == nil && c.LivenessProbe == nil {
		return
	}
	m.wg.Go(func() { w.run(ctx) })
}

// Remove ends the probes of one container.
func (m *Manager) Remove(uid, container string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := name{uid, container}
	if w := m.workers[key]; w != nil {
		w.cancel()
		delete(m.workers, key)
	}
}

// RemovePod ends the probes of all containers of a pod.
func (m *Manager) RemovePod(uid string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, w := range m.workers {
		if key.uid == uid {
			w.cancel()
			delete(m.workers, key)
		}
	}
}

// Pods returns the UIDs of the pods that have probes, sorted.
func (m *Manager) Pods() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var uids []string
	for key := range m.workers {
		uids = append(uids, key.uid)
	}
	slices.Sort(uids)
	return slices.Compact(uids)
}

// State returns what is known about a container; ok is false when Set was not called for it.
func (m *Manager) State(uid, container string) (s State, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.workers[name{uid, container}]
	if w == nil {
		return State{}, false
	}
	return w.state, true
}

// Close ends all probes and waits until none runs any more.
func (m *Manager) Close() {
	m.mu.Lock()
	m.cancel()
	m.workers = map[name]*worker{}
	m.mu.Unlock()
	m.wg.Wait()
}

// worker runs the probes of one container.
type worker struct {
	manager   *Manager
	target    Target
	container *corev1.Container
	cancel    context.CancelFunc
	state     State // guarded by manager.mu
}

func (w *worker) same(t Target, c *corev1.Container) bool {
	if !w.target.Started.Equal(t.Started) {
		return false
	}
	t.Started = w.target.Started
	return w.target == t &&
		equality.Semantic.DeepEqual(w.container.StartupProbe, c.StartupProbe) &&
		equality.Semantic.DeepEqual(w.container.ReadinessProbe, c.ReadinessProbe) &&
		equality.Semantic.DeepEqual(w.container.LivenessProbe, c.LivenessProbe) &&
		slices.Equal(w.container.Ports, c.Ports)
}

// run gates: readiness and liveness begin when startup has passed.
func (w *worker) run(ctx context.Context) {
	defer w.cancel()
	if p := w.container.StartupProbe; p != nil && !w.loop(ctx, Startup, p) {
		return
	}
	var wg sync.WaitGroup
	if p := w.container.ReadinessProbe; p != nil {
		wg.Go(func() { w.loop(ctx, Readiness, p) })
	}
	if p := w.container.LivenessProbe; p != nil {
		wg.Go(func() { w.loop(ctx, Liveness, p) })
	}
	wg.Wait()
}

// loop runs one probe until ctx ends or its work is done; it reports whether it passed at the end.
func (w *worker) loop(ctx context.Context, kind Kind, p *corev1.Probe) bool {
	m := newMachine(kind, p, w.target.Started)
	if now := time.Now(); m.beat.Before(now) {
		m.beat = now // the delay is long over; beats count from here
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due := m.next()
		timer.Reset(time.Until(due))
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
		}
		attempt, cancel := context.WithTimeout(ctx, m.timeout)
		out, err := w.manager.prober.Probe(attempt, p, w.container, w.target)
		cancel()
		if ctx.Err() != nil {
			return false
		}
		changed := m.observe(due, time.Now(), err == nil, out.Success)
		if err != nil {
			out = Outcome{Message: err.Error()}
		}
		w.record(ctx, m, p, out, changed)
		switch {
		case kind == Startup && m.verdict != undecided:
			return m.verdict == passed
		case kind == Liveness && m.verdict == failed:
			return false
		}
	}
}

// record updates the state and reports a verdict that changed, unless the worker was replaced.
func (w *worker) record(ctx context.Context, m *machine, p *corev1.Probe, out Outcome, changed bool) {
	mgr := w.manager
	mgr.mu.Lock()
	defer mgr.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	s := &w.state
	switch m.kind {
	case Startup:
		s.Started = m.verdict == passed
		s.Known = m.verdict == failed || s.Started && w.container.ReadinessProbe == nil
		s.Ready = s.Started && w.container.ReadinessProbe == nil
	case Readiness:
		s.Ready = m.verdict == passed
		s.Known = m.verdict != undecided
	case Liveness:
	}
	if m.kind != Liveness {
		s.Message = ""
		if !s.Ready {
			s.Message = out.Message
		}
	}
	if changed {
		mgr.on(Result{
			UID: w.target.UID, Container: w.target.Container, Attempt: w.target.Attempt,
			Kind: m.kind, Success: m.verdict == passed, Message: out.Message,
			GracePeriod: p.TerminationGracePeriodSeconds,
		})
	}
}

package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/fake"
	"github.com/fairlead-dev/fairlead/runtimes/probes"
	"github.com/fairlead-dev/fairlead/runtimes/volumes"
)

// faults are what goes wrong with calls at the moment, in calls of a hundred.
type faults struct {
	episode                  int // changes the choice of calls that are hit
	refuse, lose, hang, slow int
	// shuffled: lists come in any order. behind is how late events may be.
	shuffled bool
	behind   time.Duration
	// registry are sets that fail. With partition none has an answer.
	registry      int
	partition     bool
	registryBroke time.Time // when that was last so
	consul        consulIs
}

func (w *world) faultsNow() faults {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.faults
}

// armed is a death of the daemon that waits for a call.
type armed struct {
	calls int  // changing calls until then
	after bool // the call takes effect
}

// gate is the engine as one incarnation of the daemon reaches it. Once that is dead nothing passes.
type gate struct {
	*fake.Engine
	inc *incarnation

	mu      sync.Mutex
	names   map[string]string // what about has said
	sandbox *answer
}

var errAnswer = fmt.Errorf("the answer is lost: %w", runtimes.ErrUnavailable)

// do lets a call through, or makes it fail. about says what the call does, to what; it never holds a random UID.
func (g *gate) do(ctx context.Context, k fake.CallKind, about string, effect func() error) error {
	w := g.inc.w
	if g.inc.dead.Load() {
		return dead(ctx)
	}
	key := string(k) + about
	n := g.inc.arrive(key)
	if g.inc.dead.Load() {
		return dead(ctx)
	}

	w.mu.Lock()
	f := w.faults
	die, after := false, false
	if k.Mutates() {
		w.result.Calls++
		if w.arm != nil {
			if w.arm.calls--; w.arm.calls <= 0 {
				die, after, w.arm = true, w.arm.after, nil
			}
		}
	}
	w.mu.Unlock()

	if die && !after {
		g.inc.die("before " + key)
		return dead(ctx)
	}
	c := int(w.chance(key, f.episode, n) % 100)
	lose, hang, late := false, false, time.Duration(0)
	switch {
	case c < f.refuse:
		return fmt.Errorf("%s: %w", key, runtimes.ErrUnavailable)
	case c < f.refuse+f.lose:
		lose = true
	case c < f.refuse+f.lose+f.hang:
		hang = true
		if w.chance("before "+key, f.episode, n)%2 == 0 {
			return fmt.Errorf("%s: %w: %w", key, runtimes.ErrUnavailable, g.inc.givenUp(ctx, key))
		}
	case c < f.refuse+f.lose+f.hang+f.slow:
		took := time.Duration(w.chance("slow "+key, f.episode, n) % uint64(5*time.Second))
		if took%2 == 0 {
			late = took // what it says is old when it arrives
			break
		}
		if !elapse(ctx, took) {
			return fmt.Errorf("%s: %w: %w", key, runtimes.ErrUnavailable, g.inc.givenUp(ctx, key))
		}
		if g.inc.dead.Load() {
			return dead(ctx)
		}
	}
	err := effect()
	if k.Mutates() {
		g.inc.say("    %s: %s", key, outcome(err, lose, hang))
	}
	if k.Mutates() && err == nil {
		w.checkNow(key)
	}
	if die {
		g.inc.die("after " + key)
		return dead(ctx)
	}
	switch {
	case lose:
		return fmt.Errorf("%s: %w", key, errAnswer)
	case hang:
		return fmt.Errorf("%s: %w: %w", key, errAnswer, g.inc.givenUp(ctx, key))
	case late > 0:
		if !elapse(ctx, late) {
			return fmt.Errorf("%s: %w: %w", key, errAnswer, g.inc.givenUp(ctx, key))
		}
		if g.inc.dead.Load() {
			return dead(ctx)
		}
	}
	return err
}

// elapse lets time pass; false when ctx ends before.
func elapse(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// outcome says in words how a call ended.
func outcome(err error, lose, hang bool) string {
	switch {
	case err != nil:
		return err.Error()
	case lose:
		return "done, and the answer is lost"
	case hang:
		return "done, and it never answers"
	}
	return "done"
}

// dead is what a call of a process that is no more comes to: nothing.
func dead(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// about names a container without its random id.
func (g *gate) about(id string) string {
	g.mu.Lock()
	name := g.names[id]
	g.mu.Unlock()
	if name != "" {
		return name
	}
	for _, c := range g.inc.w.containers() {
		if c.ID == id {
			name = " " + nameOf(&c)
			g.mu.Lock()
			g.names[id] = name
			g.mu.Unlock()
			return name
		}
	}
	return " unknown"
}

func (g *gate) Info(ctx context.Context) (out runtimes.EngineInfo, err error) {
	err = g.do(ctx, fake.CallInfo, "", func() error { out, err = g.Engine.Info(ctx); return err })
	return out, err
}

func (g *gate) List(ctx context.Context) (out []runtimes.Container, err error) {
	w := g.inc.w
	err = g.do(ctx, fake.CallList, "", func() error {
		if out, err = g.Engine.List(ctx); err != nil {
			return err
		}
		switch {
		case w.has(ForeignIsOurs):
			more, err := w.other.List(ctx)
			out = append(out, more...)
			return err
		case w.has(ListMissesSome):
			out = slices.DeleteFunc(out, func(c runtimes.Container) bool { return w.chance("missing "+c.Pod.String(), c.Attempt)%4 == 0 })
		}
		if f := w.faultsNow(); f.shuffled {
			rand.New(rand.NewPCG(w.chance("order", len(out)), 0)).Shuffle(len(out), func(x, y int) { out[x], out[y] = out[y], out[x] })
		}
		return nil
	})
	if err != nil && w.has(FailedListIsEmpty) {
		return nil, nil
	}
	return out, err
}

func (g *gate) Inspect(ctx context.Context, id string) (out runtimes.Container, err error) {
	err = g.do(ctx, fake.CallInspect, g.about(id), func() error { out, err = g.Engine.Inspect(ctx, id); return err })
	return out, err
}

func (g *gate) Image(ctx context.Context, ref string) (out runtimes.Image, err error) {
	err = g.do(ctx, fake.CallImage, " "+ref, func() error { out, err = g.Engine.Image(ctx, ref); return err })
	return out, err
}

func (g *gate) Pull(ctx context.Context, ref string, auth *runtimes.Auth, progress func(string)) (out runtimes.Image, err error) {
	err = g.do(ctx, fake.CallPull, " "+ref, func() error { out, err = g.Engine.Pull(ctx, ref, auth, progress); return err })
	return out, err
}

// SandboxImage is asked for by every pod that begins. Those that begin at once get one answer, since nothing tells them apart.
func (g *gate) SandboxImage(ctx context.Context) (string, error) {
	now := time.Now()
	g.mu.Lock()
	a := g.sandbox
	first := a == nil || !a.asked.Equal(now)
	if first {
		a = &answer{asked: now, done: make(chan struct{})}
		g.sandbox = a
	}
	g.mu.Unlock()
	if first {
		a.err = g.do(ctx, fake.CallSandboxImage, "", func() (err error) { a.id, err = g.Engine.SandboxImage(ctx); return err })
		close(a.done)
	}
	select {
	case <-a.done:
		return a.id, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// answer is one that several calls get.
type answer struct {
	asked time.Time
	done  chan struct{}
	id    string
	err   error
}

func (g *gate) Create(ctx context.Context, spec runtimes.ContainerSpec) (id string, err error) {
	w := g.inc.w
	about := fmt.Sprintf(" %s/%s#%d", spec.Pod, spec.Container, spec.Attempt)
	err = g.do(ctx, fake.CallCreate, about, func() error {
		w.creating(spec)
		if w.has(WrongImage) && spec.Image != images[0] && spec.Container == "web" {
			spec.Image = images[0]
		}
		if id, err = g.Engine.Create(ctx, spec); err != nil {
			return err
		}
		if w.has(CreatesTwice) && spec.Container != runtimes.SandboxContainer {
			again := spec
			again.Attempt += 100
			if second, err := g.Engine.Create(ctx, again); err == nil {
				_ = g.Engine.Start(ctx, second)
			}
		}
		return nil
	})
	return id, err
}

func (g *gate) Start(ctx context.Context, id string) error {
	w := g.inc.w
	return g.do(ctx, fake.CallStart, g.about(id), func() error {
		if w.has(StartIsSkipped) && w.chance("skip"+g.about(id))%5 == 0 {
			return nil
		}
		return g.Engine.Start(ctx, id)
	})
}

func (g *gate) Kill(ctx context.Context, id, signal string) error {
	w := g.inc.w
	return g.do(ctx, fake.CallKill, g.about(id)+" "+signal, func() error {
		if w.has(NoGrace) {
			signal = "SIGKILL"
		}
		w.stopping(id, signal, false)
		if w.has(KillIsSkipped) && signal == "SIGKILL" {
			return nil
		}
		if w.has(ForeignIsOurs) {
			_ = w.other.Kill(ctx, id, signal)
		}
		return g.Engine.Kill(ctx, id, signal)
	})
}

func (g *gate) Remove(ctx context.Context, id string) error {
	w := g.inc.w
	return g.do(ctx, fake.CallRemove, g.about(id), func() error {
		w.look() // what is removed says no more how it ended
		w.stopping(id, "", true)
		if w.has(RemoveIsSkipped) && w.chance("stay"+g.about(id))%3 == 0 {
			return nil
		}
		if w.has(ForeignIsOurs) {
			_ = w.other.Remove(ctx, id)
		}
		return g.Engine.Remove(ctx, id)
	})
}

func (g *gate) Update(ctx context.Context, id string, r plan.Resources) error {
	return g.do(ctx, fake.CallUpdate, g.about(id), func() error { return g.Engine.Update(ctx, id, r) })
}

func (g *gate) Exec(ctx context.Context, id string, cmd []string, limit int) (out runtimes.ExecResult, err error) {
	err = g.do(ctx, fake.CallExec, g.about(id), func() error { out, err = g.Engine.Exec(ctx, id, cmd, limit); return err })
	return out, err
}

func (g *gate) Logs(ctx context.Context, id string, opt runtimes.LogOptions, stdout, stderr io.Writer) error {
	return g.do(ctx, fake.CallLogs, g.about(id), func() error { return g.Engine.Logs(ctx, id, opt, stdout, stderr) })
}

func (g *gate) Events(ctx context.Context, on func(runtimes.Event)) error {
	if g.inc.dead.Load() {
		return dead(ctx)
	}
	return g.Engine.Events(ctx, func(e runtimes.Event) {
		w := g.inc.w
		if w.has(EventsAreLost) {
			if e.Kind != runtimes.EventGap {
				return
			}
		}
		what := "event " + string(e.Kind) + " " + e.Identity.Pod.String() + "/" + e.Identity.Container
		n := g.inc.arrive(what)
		if e.Kind != runtimes.EventGap {
			if f := w.faultsNow(); f.behind > 0 && w.chance("late "+what, f.episode, n)%4 == 0 {
				elapse(ctx, time.Duration(w.chance("behind "+what, f.episode, n)%uint64(f.behind)))
			}
		}
		if !g.inc.dead.Load() {
			on(e)
		}
	})
}

// Close lets the machine be: the next incarnation uses it.
func (g *gate) Close() error { return nil }

// links is the pods' network as one incarnation reaches it.
type links struct {
	*fake.Network
	inc *incarnation
}

func (l *links) Ensure(ctx context.Context) error {
	if l.inc.dead.Load() {
		return dead(ctx)
	}
	return l.Network.Ensure(ctx)
}

func (l *links) Allocate(used []netip.Addr) (netip.Addr, error) { return l.Network.Allocate(used) }

func (l *links) Attach(ctx context.Context, pid int, uid string, ip netip.Addr) error {
	if l.inc.dead.Load() {
		return dead(ctx)
	}
	return l.Network.Attach(ctx, pid, uid, ip)
}

func (l *links) Detach(ctx context.Context, uid string) error {
	if l.inc.dead.Load() {
		return dead(ctx)
	}
	return l.Network.Detach(ctx, uid)
}

func (l *links) Strays(ctx context.Context, keep []string) ([]string, error) {
	if l.inc.dead.Load() {
		return nil, dead(ctx)
	}
	return l.Network.Strays(ctx, keep)
}

// disk holds the volumes of pods; it outlives the daemon.
type disk struct {
	mu       sync.Mutex
	prepared map[string]map[object.Ref]string
}

// mounts are the volumes as one incarnation reaches them.
type mounts struct {
	*disk
	inc *incarnation
}

func (m *mounts) Prepare(ctx context.Context, pod *plan.Pod, uid string, _ volumes.Facts) error {
	if m.inc.dead.Load() {
		return dead(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	mounted := map[object.Ref]string{}
	for _, v := range pod.Spec.Volumes {
		for _, c := range pod.Configs {
			if v.ConfigMap != nil && c.Ref.Kind == "ConfigMap" && c.Ref.Name == v.ConfigMap.Name {
				mounted[c.Ref] = c.Digest
			}
		}
	}
	m.prepared[uid] = mounted
	return nil
}

func (m *mounts) Update(ctx context.Context, pod *plan.Pod, uid string, f volumes.Facts) ([]string, error) {
	return nil, m.Prepare(ctx, pod, uid, f)
}

func (m *mounts) Mounts(context.Context, *plan.Pod, string, *corev1.Container, func(string) (string, error)) ([]runtimes.Mount, error) {
	return nil, nil
}

func (m *mounts) Mounted(uid string) (map[object.Ref]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.prepared[uid]), nil
}

func (m *mounts) Usage(context.Context, *plan.Pod, string) (map[string]int64, error) { return nil, nil }

func (m *mounts) WriteFile(uid, name string, _ []byte) (string, error) {
	return filepath.Join("/volumes", uid, name), nil
}

func (m *mounts) TerminationLog(uid, container string, attempt int) (string, error) {
	return filepath.Join("/volumes", uid, container, fmt.Sprint(attempt)), nil
}

func (m *mounts) ReadTerminationLog(string, string, int, int64) (string, error) { return "", nil }

func (m *mounts) Remove(ctx context.Context, uid string) error {
	if m.inc.dead.Load() {
		return dead(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.prepared, uid)
	return nil
}

func (m *mounts) Strays(ctx context.Context, keep []string) ([]string, error) {
	if m.inc.dead.Load() {
		return nil, dead(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var gone []string
	for uid := range m.prepared {
		if !slices.Contains(keep, uid) {
			gone = append(gone, uid)
			delete(m.prepared, uid)
		}
	}
	return gone, nil
}

// prober answers probes: a container is ready when it has run for as long as its image takes.
type prober struct{ w *world }

func (p prober) Probe(_ context.Context, _ *corev1.Probe, c *corev1.Container, t probes.Target) (probes.Outcome, error) {
	if at, ok := p.w.engine.Get(t.ContainerID); !ok || time.Since(at.Began) < p.w.startsIn(c.Image) {
		return probes.Outcome{Message: "starting"}, nil
	}
	return probes.Outcome{Success: true}, nil
}

func (p prober) Hook(context.Context, *corev1.LifecycleHandler, *corev1.Container, probes.Target) error {
	return nil
}

// startsIn is how long an image takes from its start until it is ready.
func (w *world) startsIn(image string) time.Duration {
	return time.Duration(w.chance("starts "+image)%15) * time.Second
}

// served is what serves Services on the machine: its content outlives the daemon.
type served struct {
	name   string
	mu     sync.Mutex
	routes plan.Routes
	sets   atomic.Int64
}

// registry is a served as one incarnation reaches it.
type registry struct {
	*served
	inc *incarnation
}

func (r *registry) Name() string { return r.name }

var errRegistry = errors.New("the registry does not answer")

func (r *registry) Set(ctx context.Context, routes plan.Routes) error {
	w := r.inc.w
	r.inc.arrive("set of " + r.name)
	n := int(r.sets.Add(1))
	f := w.faultsNow()
	if !elapse(ctx, time.Duration(w.chance("set "+r.name, n)%uint64(1500*time.Millisecond))) {
		return r.inc.givenUp(ctx, "set of "+r.name)
	}
	if r.inc.dead.Load() {
		return dead(ctx)
	}
	if fails := int(w.chance("fails "+r.name, f.episode, n)%100) < f.registry; fails || f.partition {
		if f.partition {
			_ = r.inc.givenUp(ctx, "set of "+r.name) // it has failed either way
		}
		w.mu.Lock()
		w.faults.registryBroke = time.Now()
		w.mu.Unlock()
		return errRegistry
	}
	if w.has(RegistryForgets) && w.chance("forgets "+r.name, n)%3 == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.routes = routes
	w.say("    %s: set %d is in force", r.name, n)
	return nil
}

// has returns the Services that send new connections to a pod.
func (s *served) has(uid string) []object.Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []object.Ref
	for _, r := range s.routes {
		if slices.ContainsFunc(r.Endpoints, func(e plan.Endpoint) bool { return e.UID == uid && e.Ready }) {
			out = append(out, r.Ref)
		}
	}
	return out
}

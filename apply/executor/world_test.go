package executor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/fake"
	"github.com/fairlead-dev/fairlead/runtimes/probes"
	"github.com/fairlead-dev/fairlead/runtimes/volumes"
)

// world is a node on a fake engine, in a bubble of virtual time.
type world struct {
	t       *testing.T
	engine  *fake.Engine
	network *fake.Network
	volumes *memory
	prober  *prober
	dir     string
	node    *Node

	mu      sync.Mutex
	events  []Event
	trouble []error
	configs map[object.Ref]plan.Config

	registries []Registered
	gather     time.Duration
}

// inWorld runs a test in a bubble. The image "app" runs until it is told to stop.
func inWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, engine: fake.New(), volumes: newMemory(), prober: &prober{}, dir: t.TempDir(), configs: map[object.Ref]plan.Config{}}
		w.network = fake.NewNetwork(w.engine)
		w.engine.AddImage("app", fake.Image{Present: true})
		w.open()
		defer w.close()
		test(w)
	})
}

func (w *world) options() Options {
	return Options{
		ID: "a", Engine: w.engine, Network: w.network, Volumes: w.volumes, Probes: w.prober, StateDir: w.dir,
		HostIPs: []string{"192.0.2.1"}, Registries: w.registries, Gather: w.gather,
		Config: func(ref object.Ref) (plan.Config, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			c, ok := w.configs[ref]
			return c, ok
		},
		OnEvent: func(e Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e)
		},
		OnTrouble: func(err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.trouble = append(w.trouble, err)
		},
	}
}

// open begins a node, as a start of the daemon does.
func (w *world) open() {
	w.t.Helper()
	n, err := New(w.options())
	if err != nil {
		w.t.Fatal(err)
	}
	w.node = n
	synctest.Wait()
}

func (w *world) close() {
	if w.node != nil {
		if err := w.node.Close(); err != nil {
			w.t.Error(err)
		}
		w.node = nil
	}
}

func (w *world) restart() { w.close(); w.open() }

func (w *world) do(args plan.Args) error {
	return w.node.Do(w.t.Context(), plan.Step{ID: 1, Args: args})
}

func (w *world) must(args plan.Args) {
	w.t.Helper()
	if err := w.do(args); err != nil {
		w.t.Fatalf("%T: %v\nevents:\n%s\ntrouble: %v", args, err, w.story(""), w.trouble)
	}
}

// observe returns a pod as the node observes it.
func (w *world) observe(name string) plan.ObservedPod {
	w.t.Helper()
	synctest.Wait()
	s, err := w.node.Observe(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, p := range s.Pods {
		if p.Name == name {
			return p
		}
	}
	w.t.Fatalf("no pod %s in %v", name, s.Pods)
	return plan.ObservedPod{}
}

func (w *world) find(pod, container string) fake.State {
	w.t.Helper()
	synctest.Wait()
	s, ok := w.engine.Find(plan.PodKey{Namespace: "ns", Name: pod}, container)
	if !ok {
		w.t.Fatalf("the engine has no container %s of pod %s", container, pod)
	}
	return s
}

// story is what happened to a container, or to all: an event a line.
func (w *world) story(container string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for _, e := range w.events {
		if container == "" || e.Container == container {
			fmt.Fprintf(&b, "%s %s: %s\n", e.Container, e.Reason, e.Message)
		}
	}
	return b.String()
}

// mutations are the calls that changed the engine, in order.
func (w *world) mutations() []string {
	var out []string
	for _, c := range w.engine.Mutations() {
		if c.Kind != fake.CallSandboxImage {
			out = append(out, c.String())
		}
	}
	return out
}

// state sums a pod up in a line.
func line(p plan.ObservedPod) string {
	s := fmt.Sprintf("%s ready=%t", p.Phase, p.Ready)
	if p.Reason != "" {
		s += " " + p.Reason
	}
	for _, c := range p.Containers {
		s += fmt.Sprintf(" [%s %s", c.Name, c.State)
		if c.Reason != "" {
			s += " " + c.Reason
		}
		if c.Restarts > 0 {
			s += fmt.Sprintf(" restarts=%d", c.Restarts)
		}
		s += "]"
	}
	return s
}

func (w *world) expect(name, want string) {
	w.t.Helper()
	if got := line(w.observe(name)); got != want {
		w.t.Errorf("pod %s is\n  %s\nwant\n  %s\nevents:\n%s", name, got, want, w.story(""))
	}
}

// sleep lets virtual time pass.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// onePod is a pod with one container, web, of the image "app".
func onePod(name string, change ...func(*corev1.PodSpec)) *plan.Pod {
	policy, grace := corev1.PullIfNotPresent, int64(30)
	spec := &corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace,
		Containers: []corev1.Container{{Name: "web", Image: "app", ImagePullPolicy: policy}},
	}
	for _, f := range change {
		f(spec)
	}
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			list[i].ImagePullPolicy = policy
		}
	}
	key := plan.PodKey{Namespace: "ns", Name: name}
	return &plan.Pod{PodKey: key, Application: "shop", Owner: key.Ref(), Template: "t1", Spec: spec, Index: -1}
}

// web changes the container web.
func web(f func(c *corev1.Container)) func(*corev1.PodSpec) {
	return func(s *corev1.PodSpec) { f(&s.Containers[0]) }
}

// memory is Volumes without files.
type memory struct {
	mu       sync.Mutex
	prepared map[string]map[object.Ref]string
	usage    map[string]int64
	logs     map[string]string
	strays   [][]string
}

func newMemory() *memory {
	return &memory{prepared: map[string]map[object.Ref]string{}, usage: map[string]int64{}, logs: map[string]string{}}
}

func (m *memory) Prepare(_ context.Context, pod *plan.Pod, uid string, _ volumes.Facts) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	have := map[object.Ref]string{}
	for _, c := range pod.Configs {
		have[c.Ref] = c.Digest
	}
	mounted := map[object.Ref]string{}
	for _, v := range pod.Spec.Volumes {
		if v.ConfigMap == nil {
			continue
		}
		ref := object.Ref{Kind: "ConfigMap", Namespace: pod.Namespace, Name: v.ConfigMap.Name}
		if have[ref] == "" {
			return fmt.Errorf("%s does not exist: %w", ref, runtimes.ErrMissing)
		}
		mounted[ref] = have[ref]
	}
	m.prepared[uid] = mounted
	return nil
}

func (m *memory) Update(ctx context.Context, pod *plan.Pod, uid string, f volumes.Facts) ([]string, error) {
	return nil, m.Prepare(ctx, pod, uid, f)
}

func (m *memory) Mounts(context.Context, *plan.Pod, string, *corev1.Container, func(string) (string, error)) ([]runtimes.Mount, error) {
	return nil, nil
}

func (m *memory) Mounted(uid string) (map[object.Ref]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.prepared[uid]), nil
}

func (m *memory) Usage(context.Context, *plan.Pod, string) (map[string]int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.usage), nil
}

func (m *memory) WriteFile(uid, name string, _ []byte) (string, error) {
	return filepath.Join("/volumes", uid, name), nil
}

func (m *memory) TerminationLog(uid, container string, attempt int) (string, error) {
	return filepath.Join("/volumes", uid, container, fmt.Sprint(attempt)), nil
}

func (m *memory) ReadTerminationLog(_, container string, _ int, _ int64) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.logs[container], nil
}

func (m *memory) Remove(_ context.Context, uid string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.prepared, uid)
	return nil
}

func (m *memory) Strays(_ context.Context, keep []string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.strays = append(m.strays, slices.Sorted(slices.Values(keep)))
	return nil, nil
}

// prober answers probes and hooks as the test says; without a word everything succeeds at once.
type prober struct {
	mu    sync.Mutex
	sick  map[string]bool // containers whose probes fail
	hooks map[string]func(ctx context.Context) error
	ran   []string
}

func (p *prober) set(container string, sick bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sick == nil {
		p.sick = map[string]bool{}
	}
	p.sick[container] = sick
}

func (p *prober) hook(name string, f func(ctx context.Context) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hooks == nil {
		p.hooks = map[string]func(context.Context) error{}
	}
	p.hooks[name] = f
}

func (p *prober) Probe(_ context.Context, _ *corev1.Probe, _ *corev1.Container, t probes.Target) (probes.Outcome, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sick[t.Container] {
		return probes.Outcome{Message: "sick"}, nil
	}
	return probes.Outcome{Success: true}, nil
}

// Hook knows a hook by its command.
func (p *prober) Hook(ctx context.Context, h *corev1.LifecycleHandler, c *corev1.Container, _ probes.Target) error {
	name := h.Exec.Command[0]
	p.mu.Lock()
	p.ran = append(p.ran, c.Name+" "+name)
	f := p.hooks[name]
	p.mu.Unlock()
	if f != nil {
		return f(ctx)
	}
	return nil
}

// hooked is how many hooks ran.
func (p *prober) hooked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ran)
}

func execHook(name string) *corev1.LifecycleHandler {
	return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{name}}}
}

var errBroken = errors.New("broken")

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

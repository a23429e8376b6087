package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/daemon/settings"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/render/worker"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/fake"
	"github.com/fairlead-dev/fairlead/runtimes/volumes"
)

// TestMain is also the program of the render workers.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == worker.Argument {
		if err := worker.Serve(context.Background(), os.Stdin, os.Stdout, &render.Engine{Check: plan.Unsupported}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// host is a machine whose engine, network and volumes are in memory, with directories as sources.
type host struct {
	t       testing.TB
	engine  *fake.Engine
	network *fake.Network
	volumes *memory
	dir     string
	set     settings.Settings
	cleared int
	stops   map[*System]func() error
	// url is where the repository is served, for tests that need it.
	url string
	// wrap stands before the engine; nil is the engine itself.
	wrap func(runtimes.Engine) runtimes.Engine

	mu  sync.Mutex
	log bytes.Buffer
}

func newHost(t testing.TB) *host {
	h := &host{t: t, engine: fake.New(), volumes: &memory{prepared: map[string]map[object.Ref]string{}}, dir: t.TempDir(), stops: map[*System]func() error{}}
	h.network = fake.NewNetwork(h.engine)
	h.engine.AddImage("web:1", fake.Image{Present: true, Image: runtimes.Image{ID: "web:1"}})
	h.engine.AddImage("web:2", fake.Image{Present: true, Image: runtimes.Image{ID: "web:2"}})
	h.engine.AddImage("job:1", fake.Image{Present: true, Image: runtimes.Image{ID: "job:1"}, Process: fake.Process{Exits: true}})
	h.set = settings.Settings{
		StateDir: filepath.Join(h.dir, "state"), RunDir: filepath.Join(h.dir, "run"),
		Defaults: settings.Defaults{Interval: settings.Duration(time.Hour), RetryInterval: settings.Duration(2 * time.Second)},
	}
	t.Cleanup(func() { h.engine.Close() })
	return h
}

// seen is the engine as the daemon sees it.
func (h *host) seen() runtimes.Engine {
	if h.wrap != nil {
		return h.wrap(h.engine)
	}
	return h.engine
}

// Write takes log lines.
func (h *host) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.Write(b)
}

// file writes a file below the host's directory in one step.
func (h *host) file(name, content string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path+".tmp~", []byte(content), 0o600), os.Rename(path+".tmp~", path)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) remove(name string) {
	h.t.Helper()
	if err := os.RemoveAll(filepath.Join(h.dir, name)); err != nil {
		h.t.Fatal(err)
	}
}

// declare adds an application of the directory name, declared by the settings.
func (h *host) declare(name string) {
	h.set.Applications = append(h.set.Applications, settings.Application{Name: name, Location: filepath.Join(h.dir, name)})
}

// open makes a System in a mode, begun. The test ends it.
func (h *host) open(mode Mode) *System {
	h.t.Helper()
	s, err := h.try(mode)
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

func (h *host) try(mode Mode) (*System, error) {
	s, err := New(Options{
		Settings: h.set.WithDefaults(), Mode: mode, Version: "test", Log: zerolog.New(h),
		openMachine: func(*System, []byte) (machine, error) {
			return machine{
				engine: h.seen(), network: h.network, volumes: h.volumes, hostIPs: []string{"192.0.2.1"},
				clear: func(context.Context) error { h.cleared++; return nil },
			}, nil
		},
	})
	if err != nil {
		return nil, err
	}
	h.stops[s] = s.Start(h.t.Context())
	h.t.Cleanup(func() {
		h.stop(s)
		if h.t.Failed() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.t.Logf("log:\n%s", h.log.String())
		}
	})
	return s, nil
}

// stop ends a System, once.
func (h *host) stop(s *System) {
	h.t.Helper()
	stop := h.stops[s]
	delete(h.stops, s)
	if stop == nil {
		return
	}
	if err := stop(); err != nil {
		h.t.Errorf("stop: %v", err)
	}
}

// eventually waits until ok, which is looked at again after every change, and shows what is otherwise.
func (h *host) eventually(s *System, what string, ok func() bool) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
	defer cancel()
	if err := s.until(ctx, ok); err != nil {
		var b strings.Builder
		for _, st := range s.statuses() {
			fmt.Fprintf(&b, "%s: %s %s: %s\n", st.Config.Name, st.Health, st.Reason, st.Detail)
		}
		h.t.Fatalf("%s: not within 20 s; applications:\n%s", what, b.String())
	}
}

// state waits until an application is in a state: "Health Reason", with a word in its detail.
func (h *host) state(s *System, name, want string, words ...string) reconcile.Status {
	h.t.Helper()
	var st reconcile.Status
	h.eventually(s, name+" "+want, func() bool {
		for _, st = range s.statuses() {
			if st.Config.Name == name && string(st.Health)+" "+st.Reason == want {
				return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(st.Detail, w) })
			}
		}
		return false
	})
	return st
}

// images are the images of the pods' containers that run, sorted.
func (h *host) images() []string {
	out := []string{}
	for _, c := range h.engine.Containers() {
		if c.Running && !c.Foreign && c.Container.Container != runtimes.SandboxContainer {
			out = append(out, c.Image)
		}
	}
	slices.Sort(out)
	return out
}

func (h *host) runs(want ...string) {
	h.t.Helper()
	if got := h.images(); !slices.Equal(got, append([]string{}, want...)) {
		h.t.Errorf("running %q, want %q", got, want)
	}
}

// told is what was told of an application, or of all.
func told(t *testing.T, s *System, application string) []string {
	t.Helper()
	var out []string
	err := s.Events(t.Context(), api.EventQuery{Application: application}, func(e api.Event) error {
		out = append(out, e.Reason+": "+e.Message)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func deployment(name, image string, replicas int) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %s}
spec:
  replicas: %d
  selector: {matchLabels: {app: %s}}
  template:
    metadata: {labels: {app: %s}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: '%s', imagePullPolicy: IfNotPresent}]
`, name, replicas, name, name, image)
}

// memory makes volumes in memory.
type memory struct {
	mu       sync.Mutex
	prepared map[string]map[object.Ref]string
}

func (m *memory) Prepare(_ context.Context, pod *plan.Pod, uid string, _ volumes.Facts) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	mounted := map[object.Ref]string{}
	for _, v := range pod.Spec.Volumes {
		for _, c := range pod.Configs {
			if v.ConfigMap != nil && c.Ref.Kind == "ConfigMap" && c.Ref.Name == v.ConfigMap.Name ||
				v.Secret != nil && c.Ref.Kind == "Secret" && c.Ref.Name == v.Secret.SecretName {
				mounted[c.Ref] = c.Digest
			}
		}
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

func (m *memory) Usage(context.Context, *plan.Pod, string) (map[string]int64, error) { return nil, nil }

func (m *memory) WriteFile(uid, name string, _ []byte) (string, error) {
	return filepath.Join("/volumes", uid, name), nil
}

func (m *memory) TerminationLog(uid, container string, attempt int) (string, error) {
	return filepath.Join("/volumes", uid, container, fmt.Sprint(attempt)), nil
}

func (m *memory) ReadTerminationLog(string, string, int, int64) (string, error) { return "", nil }

func (m *memory) Remove(_ context.Context, uid string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.prepared, uid)
	return nil
}

func (m *memory) Strays(context.Context, []string) ([]string, error) { return nil, nil }

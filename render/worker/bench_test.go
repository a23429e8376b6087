package worker

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/fairlead-dev/fairlead/render"
)

// perOverlay is how many objects an overlay of a benchmark has.
const perOverlay = 5

// sizes are the numbers of objects; FAIRLEAD_BENCH_LARGE adds 50,000.
func sizes() []int {
	out := []int{500, 1000, 5000, 10_000}
	if os.Getenv("FAIRLEAD_BENCH_LARGE") != "" {
		out = append(out, 50_000)
	}
	return out
}

// writeRepository makes overlays of bases, one each, and returns the directory. The overlays are in apps.
func writeRepository(b *testing.B, objects int) string {
	dir := b.TempDir()
	write := func(name, format string, args ...any) {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(p, fmt.Appendf(nil, format, args...), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	for i := range objects / perOverlay {
		app := fmt.Sprintf("app%05d", i)
		base := "bases/" + app + "/"
		write(base+"kustomization.yaml", "resources:\n- deployment.yaml\n- config.yaml\n- account.yaml\n- secret.yaml\nconfigMapGenerator:\n- name: settings\n  files: [app.properties]\n")
		write(base+"app.properties", "port=8080\nname=%s\n", app)
		write(base+"config.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %[1]s\ndata:\n  greeting: hello\n  who: %[1]s\n", app)
		write(base+"account.yaml", "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: %s\n", app)
		write(base+"secret.yaml", "apiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\nstringData:\n  password: hunter2\n", app)
		write(base+"deployment.yaml", deployment, app)
		write("apps/"+app+"/kustomization.yaml", overlay, app, i)
	}
	return dir
}

const deployment = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: %[1]s
  labels: {app: %[1]s}
spec:
  replicas: 2
  selector:
    matchLabels: {app: %[1]s}
  template:
    metadata:
      labels: {app: %[1]s}
    spec:
      serviceAccountName: %[1]s
      containers:
      - name: web
        image: web
        args: [--config, /etc/web/app.properties]
        ports:
        - name: http
          containerPort: 8080
        env:
        - name: PASSWORD
          valueFrom: {secretKeyRef: {name: %[1]s, key: password}}
        envFrom:
        - configMapRef: {name: %[1]s}
        resources:
          requests: {cpu: 100m, memory: 64Mi}
          limits: {memory: 128Mi}
        readinessProbe:
          httpGet: {path: /healthz, port: http}
        volumeMounts:
        - name: settings
          mountPath: /etc/web
      volumes:
      - name: settings
        configMap: {name: settings}
`

const overlay = `namespace: prod
resources:
- ../../bases/%[1]s
images:
- name: web
  newName: registry.example.org/web
  newTag: 1.%[2]d.0
labels:
- pairs: {team: shop}
patches:
- target: {kind: Deployment}
  patch: |-
    - op: replace
      path: /spec/replicas
      value: 3
`

// floor runs krusty once per overlay, in as many processes as a pool has, and returns how long it took.
func floor(b *testing.B, dir string, objects int) time.Duration {
	start := time.Now()
	n := runtime.GOMAXPROCS(0)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			cmd := exec.Command(os.Args[0], Argument, "krusty", dir, strconv.Itoa(i), strconv.Itoa(n), strconv.Itoa(objects/perOverlay))
			cmd.Env = []string{"GOGC=200"}
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Errorf("krusty: %v\n%s", err, out)
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

// krustyChild is one process of floor.
func krustyChild(args []string) error {
	first, _ := strconv.Atoi(args[1])
	step, _ := strconv.Atoi(args[2])
	n, _ := strconv.Atoi(args[3])
	for i := first; i < n; i += step {
		m, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(args[0], "apps", fmt.Sprintf("app%05d", i)))
		if err != nil {
			return err
		}
		if _, err := m.AsYaml(); err != nil {
			return err
		}
	}
	return nil
}

func benchmarkSizes(b *testing.B, run func(b *testing.B, dir string, objects int)) {
	for _, n := range sizes() {
		b.Run(strconv.Itoa(n), func(b *testing.B) { run(b, writeRepository(b, n), n) })
	}
}

func benchmarkPool(b *testing.B) *Pool {
	p := NewPool(Options{Command: []string{os.Args[0], Argument}})
	b.Cleanup(func() { _ = p.Close() })
	return p
}

func mustRender(b *testing.B, c *render.Cache, p render.Runner, fsys fs.FS, revision string, changed []string, objects int) render.Stats {
	res, stats, err := c.Render(context.Background(), p, render.Request{Source: "s", Revision: revision, Files: fsys, Path: "apps"}, changed)
	if err != nil {
		b.Fatal(err)
	}
	if len(res.Objects) != objects || len(res.Diags) > 0 {
		b.Fatalf("%d objects of %d\n%s", len(res.Objects), objects, res.Diags)
	}
	return stats
}

// cpu is the time that processors spent on this process and those children of it that have ended.
func cpu(b *testing.B) time.Duration {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum
}

// BenchmarkCold renders everything with nothing remembered, processes not started yet. x-floor is the time as a
// multiple of what krusty takes when it is run once per overlay on the same cores, x-floor-cpu the same of the
// processors' time, which other load on the machine hardly touches.
func BenchmarkCold(b *testing.B) {
	benchmarkSizes(b, func(b *testing.B, dir string, objects int) {
		var base, ours, baseCPU, oursCPU time.Duration
		for b.Loop() {
			b.StopTimer()
			before := cpu(b)
			base += floor(b, dir, objects)
			between := cpu(b)
			p := NewPool(Options{Command: []string{os.Args[0], Argument}})
			b.StartTimer()
			start := time.Now()
			mustRender(b, render.NewCache(), p, os.DirFS(dir), "a", nil, objects)
			ours += time.Since(start)
			b.StopTimer()
			_ = p.Close()
			baseCPU += between - before
			oursCPU += cpu(b) - between
			b.StartTimer()
		}
		b.ReportMetric(float64(ours)/float64(base), "x-floor")
		b.ReportMetric(float64(oursCPU)/float64(baseCPU), "x-floor-cpu")
		b.ReportMetric(float64(base.Milliseconds())/float64(b.N), "floor-ms")
	})
}

// BenchmarkOneChanged renders after one overlay changed.
func BenchmarkOneChanged(b *testing.B) {
	benchmarkSizes(b, func(b *testing.B, dir string, objects int) {
		p, c := benchmarkPool(b), render.NewCache()
		mustRender(b, c, p, os.DirFS(dir), "a", nil, objects)
		i := 0
		for b.Loop() {
			i++
			app := fmt.Sprintf("app%05d", i%(objects/perOverlay))
			b.StopTimer()
			if err := os.WriteFile(filepath.Join(dir, "apps", app, "kustomization.yaml"), fmt.Appendf(nil, overlay, app, 100+i), 0o644); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			if s := mustRender(b, c, p, os.DirFS(dir), strconv.Itoa(i), []string{"apps/" + app + "/kustomization.yaml"}, objects); s.Rendered != 1 {
				b.Fatalf("rendered %d units", s.Rendered)
			}
		}
	})
}

// BenchmarkUnchanged renders after a commit that changed nothing that is read.
func BenchmarkUnchanged(b *testing.B) {
	benchmarkSizes(b, func(b *testing.B, dir string, objects int) {
		p, c := benchmarkPool(b), render.NewCache()
		mustRender(b, c, p, os.DirFS(dir), "a", nil, objects)
		i := 0
		for b.Loop() {
			i++
			if s := mustRender(b, c, p, os.DirFS(dir), strconv.Itoa(i), []string{"README.md", "bases/other/x.yaml"}, objects); !s.Same {
				b.Fatal("something was rendered")
			}
		}
	})
}

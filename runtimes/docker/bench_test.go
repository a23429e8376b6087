package docker

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// benched opens an engine whose containers are removed after the benchmark.
func benched(b *testing.B) (e *Engine, image string) {
	b.Helper()
	image = runtimetest.Image(b)
	e = open(b, runtimetest.Name(b))
	b.Cleanup(func() { e.Close() })
	runtimetest.RemoveAll(b, e)
	return e, image
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkList lists 100 containers that did not change, against the engine's own list in the same run.
func BenchmarkList(b *testing.B) {
	e, image := benched(b)
	ctx, cancel := context.WithCancel(b.Context())
	for i := range 100 {
		id := identity(runtimes.SandboxContainer)
		id.Pod = plan.PodKey{Namespace: "default", Name: fmt.Sprintf("p%d", i)}
		_, err := e.Create(ctx, runtimes.ContainerSpec{Identity: id, Image: image, HostNetwork: true})
		must(b, err)
	}
	ready, done := make(chan struct{}, 100), make(chan struct{})
	go func() {
		defer close(done)
		_ = e.Events(ctx, func(runtimes.Event) { ready <- struct{}{} }) // until the benchmark ends
	}()
	defer func() { cancel(); <-done }()
	<-ready
	_, err := e.List(ctx)
	must(b, err)
	var ours, floor time.Duration
	for b.Loop() {
		begin := time.Now()
		all, err := e.List(ctx)
		ours += time.Since(begin)
		must(b, err)
		if len(all) != 100 {
			b.Fatalf("%d are listed", len(all))
		}
		begin = time.Now()
		_, err = e.summaries(ctx)
		floor += time.Since(begin)
		must(b, err)
	}
	b.ReportMetric(float64(ours)/float64(floor), "ratio")
	b.ReportMetric(float64(ours.Microseconds())/float64(b.N), "µs/list")
}

// BenchmarkCreateStart creates and starts a container in a sandbox, against the bare requests for the same
// container in the same run.
func BenchmarkCreateStart(b *testing.B) {
	e, image := benched(b)
	ctx := b.Context()
	sandboxImage, err := e.SandboxImage(ctx)
	must(b, err)
	sandbox, err := e.Create(ctx, runtimes.ContainerSpec{Identity: identity(runtimes.SandboxContainer), Image: sandboxImage, NoNetwork: true})
	must(b, err)
	must(b, e.Start(ctx, sandbox))
	n := 0
	spec := func() runtimes.ContainerSpec {
		id := identity("main")
		id.Attempt, n = n, n+1
		return runtimes.ContainerSpec{Identity: id, Image: image, SandboxID: sandbox, Command: runtimetest.Program("wait")}
	}
	bare := func(s runtimes.ContainerSpec) string {
		c, h, nets, err := e.body(s, time.Now())
		must(b, err)
		resp, err := e.cli.ContainerCreate(ctx, c, h, nets, nil, e.name(s.Identity))
		must(b, err)
		must(b, e.cli.ContainerStart(ctx, resp.ID, container.StartOptions{}))
		return resp.ID
	}
	compare(b, e, func() string {
		id, err := e.Create(ctx, spec())
		must(b, err)
		must(b, e.Start(ctx, id))
		return id
	}, func() string { return bare(spec()) })
}

// BenchmarkSandboxLog starts sandboxes as they are, against ones with the log of other containers.
func BenchmarkSandboxLog(b *testing.B) {
	e, _ := benched(b)
	ctx := b.Context()
	image, err := e.SandboxImage(ctx)
	must(b, err)
	n := 0
	start := func(log container.LogConfig) string {
		id := identity(runtimes.SandboxContainer)
		id.Attempt, n = n, n+1
		c, h, nets, err := e.body(runtimes.ContainerSpec{Identity: id, Image: image, NoNetwork: true}, time.Now())
		must(b, err)
		if log.Type != "" {
			h.LogConfig = log
		}
		resp, err := e.cli.ContainerCreate(ctx, c, h, nets, nil, e.name(id))
		must(b, err)
		must(b, e.cli.ContainerStart(ctx, resp.ID, container.StartOptions{}))
		return resp.ID
	}
	compare(b, e, func() string { return start(container.LogConfig{}) }, func() string { return start(containerLog()) })
}

// compare takes the times of two ways to start a container, in turns.
func compare(b *testing.B, e *Engine, ours, floor func() string) {
	b.Helper()
	var times [2]time.Duration
	n := 0
	for b.Loop() {
		n++
		for i, start := range []func() string{ours, floor} {
			begin := time.Now()
			id := start()
			times[i] += time.Since(begin)
			must(b, e.cli.ContainerRemove(b.Context(), id, container.RemoveOptions{Force: true}))
		}
	}
	b.ReportMetric(float64(times[0])/float64(times[1]), "ratio")
	b.ReportMetric(float64(times[0].Milliseconds())/float64(n), "ms/start")
}

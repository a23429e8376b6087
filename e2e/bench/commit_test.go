package bench

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"

	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// BenchmarkCommit is M1: from the commit in the repository to the pod that it changes, one Deployment of
// many. The floor is one pod, started while the same pods run. The pods have no readiness probe, so
// they are ready when their container runs, which is when the engine says so.
func BenchmarkCommit(b *testing.B) {
	sizes := []int{20, 60}
	if large() {
		sizes = []int{20, 200}
	}
	for _, n := range sizes {
		b.Run(fmt.Sprintf("1of%d", n), func(b *testing.B) { commitOf(b, n) })
	}
}

func commitOf(b *testing.B, n int) {
	image := runtimetest.Image(b)
	e := openEngine(b, "")
	r := newRepo(b)
	args := []string{"wait"}
	name := func(i int) string { return fmt.Sprintf("app-%03d", i) }
	for i := range n {
		r.write(b, "apps/"+name(i)+".yaml", deployment(name(i), image, 1, args, environment("0")))
	}
	d := newDaemon(b, e, r, "")
	first := r.push(b, "Everything")
	d.start(b, time.Hour)
	d.settled(b, first, n)
	f := newFloor(b, e, d, image, args...)
	w := e.watch(b, d.installation)

	change := func(i int, tell func()) time.Duration {
		app := name(i * 7 % n)
		r.write(b, "apps/"+app+".yaml", deployment(app, image, 1, args, environment(fmt.Sprint(i+1, tell == nil))))
		id := r.commit(b, "Change "+app)
		w.reset()
		began := r.release(b, id)
		if tell != nil {
			tell()
		}
		new := w.until(b, 1, events.ActionStart, func(name string) bool { return workload(name) && strings.Contains(name, app) })
		w.until(b, 1, events.ActionDestroy, func(name string) bool { return sandbox(name) && strings.Contains(name, app) })
		d.settled(b, id, n)
		return new.at.Sub(began)
	}
	var told, floor series
	for i := range *commits {
		told = append(told, change(i, func() { d.poke(b) }))
		began := time.Now()
		p, err := f.pod(b.Context(), fmt.Sprint(i))
		floor = append(floor, time.Since(began))
		if err := f.drop(b.Context(), p); err != nil {
			b.Error(err)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	what := fmt.Sprintf("commit to pod, 1 of %d", n)
	results.compare(b, "M1", what, 1.5, told, floor, fmt.Sprintf("p99 %.0f ms", millis(told.quantile(0.99))))
}

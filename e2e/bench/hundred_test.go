package bench

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"

	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// BenchmarkHundred is M6 and M7, on the same hundred pods: what fairlead costs while nothing happens, and how long it
// takes to bring back what somebody removed.
func BenchmarkHundred(b *testing.B) {
	const objects = 1000
	n := *idlePods
	image := runtimetest.Image(b)
	p := newProxy(b)
	e := openEngine(b, "")
	r := newRepo(b)
	args := []string{"wait"}
	name := func(i int) string { return fmt.Sprintf("app-%03d", i) }
	for i := range n {
		r.write(b, "apps/"+name(i)+".yaml", deployment(name(i), image, 1, args, ""))
	}
	var text strings.Builder
	for i := range objects - n - 1 { // the repository has one more
		fmt.Fprintf(&text, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: config-%04d}\ndata: {key: \"%d\", more: some text that is somewhat longer}\n", i, i)
	}
	r.write(b, "apps/configs.yaml", text.String())
	d := newDaemon(b, e, r, p.host)
	began := time.Now()
	first := r.push(b, "Everything")
	d.start(b, time.Minute)
	d.settled(b, first, n)
	fmt.Printf("  requests for %d pods from nothing:\n%s\n", n, table(p.since(began)))

	b.Run("idle", func(b *testing.B) { idle(b, d, p, n, objects) })
	b.Run("repair", func(b *testing.B) {
		through := openEngine(b, p.host) // the floor takes the same way to the engine
		repair(b, through, d, p, newFloor(b, through, d, image, args...), name)
	})
}

// idle looks at the daemon while nothing changes.
func idle(b *testing.B, d *daemon, p *proxy, pods, objects int) {
	time.Sleep(*settle)
	before, err := d.process()
	if err != nil {
		b.Fatal(err)
	}
	from := time.Now()
	time.Sleep(*settle)
	after, err := d.process()
	if err != nil {
		b.Fatal(err)
	}
	window := time.Since(from)
	requests := p.since(from)
	what := fmt.Sprintf("%d pods, %d objects", pods, objects)
	results.add(b, row{Metric: "M6", Case: "memory, " + what, Value: float64(after.rss) / (1 << 20), Unit: "MB", Goal: 60,
		Note: fmt.Sprintf("%.1f MB of it anonymous, the rest is the program's file", float64(after.anon)/(1<<20))})
	results.add(b, row{Metric: "M6", Case: "processor, " + what, Value: 100 * (after.cpu - before.cpu).Seconds() / window.Seconds(), Unit: "% of a core",
		Note: "with one look at the repository each minute"})
	lists := 0
	for _, r := range requests {
		if r.path == "/containers/json" || r.path == "/containers/ID/json" {
			lists++
		}
	}
	perMinute := func(n int) float64 { return float64(n) / window.Minutes() }
	results.add(b, row{Metric: "M6", Case: "requests to the engine, " + what, Value: perMinute(len(requests)), Unit: "per minute",
		Note: fmt.Sprintf("%.1f of them list or inspect containers", perMinute(lists))})
	if len(requests) > 0 {
		fmt.Printf("  requests in %s:\n%s\n", window.Round(time.Second), table(requests))
	}
}

// repair removes and kills containers. The time runs from the engine's word that the container is gone, or has
// ended, to the start of the next one. The engine says of a container that is removed first that it has ended, and
// fairlead does not wait for the rest; that longer time is in the note.
func repair(b *testing.B, e engine, d *daemon, p *proxy, f *floor, name func(int) string) {
	w := d.engine.watch(b, d.installation)
	base, err := f.pod(b.Context(), "base")
	if err != nil {
		b.Fatal(err)
	}
	var removed, removedSinceEnd, killed, floor, noticed series
	next := 0
	once := func(what func(id string) error) (ended, started happening) {
		app := name(next % *idlePods)
		next++
		all, err := e.named(b.Context(), d.installation)
		if err != nil {
			b.Fatal(err)
		}
		id := ""
		for _, c := range all {
			if workload(c.Names[0]) && strings.Contains(c.Names[0], "_"+app+"-") && c.State == "running" {
				id = c.ID
			}
		}
		if id == "" {
			b.Fatalf("no container of %s runs", app)
		}
		w.reset()
		of := func(name string) bool { return workload(name) && strings.Contains(name, "_"+app+"-") }
		if err := what(id); err != nil {
			b.Fatal(err)
		}
		ended, started = w.until(b, 1, events.ActionDie, of), w.until(b, 1, events.ActionStart, of)
		if started.id == id {
			b.Fatal("the same container was started again")
		}
		reaction := p.first(b, ended.at, func(r request) bool { return r.path == "/containers/create" && strings.Contains(r.query, app+"-") })
		noticed = append(noticed, reaction.began.Sub(ended.at))
		return ended, started
	}
	for i := range *repairs {
		ended, started := once(func(id string) error { return e.ContainerRemove(b.Context(), id, container.RemoveOptions{Force: true}) })
		gone := w.until(b, 1, events.ActionDestroy, func(name string) bool { return name == ended.name })
		removed = append(removed, started.at.Sub(gone.at))
		removedSinceEnd = append(removedSinceEnd, started.at.Sub(ended.at))
		floor = append(floor, join(b, f, base, fmt.Sprint("r", i)))
		ended, started = once(func(id string) error { return e.ContainerKill(b.Context(), id, "KILL") })
		killed = append(killed, started.at.Sub(ended.at))
		floor = append(floor, join(b, f, base, fmt.Sprint("k", i)))
	}
	results.compare(b, "M7", "container removed by hand", 1.4, removed, floor,
		fmt.Sprintf("p99 %.0f ms; since its end, before it was gone, %.0f ms", millis(removed.quantile(0.99)), millis(removedSinceEnd.median())))
	results.compare(b, "M7", "container killed by hand", 1.4, killed, floor, fmt.Sprintf("p99 %.0f ms", millis(killed.quantile(0.99))))
	results.add(b, row{Metric: "M7", Case: "the end of a container is acted on", Value: millis(noticed.median()), Unit: "ms", Goal: 20, Samples: len(noticed),
		Note: fmt.Sprintf("from the engine's event to the request for a new container; p99 %.1f ms", millis(noticed.quantile(0.99)))})
}

// join is the floor of a repair: one container in a sandbox that is there.
func join(b *testing.B, f *floor, base raw, name string) time.Duration {
	b.Helper()
	began := time.Now()
	id, err := f.create(b.Context(), base.sandbox, name)
	if err == nil {
		err = f.ContainerStart(b.Context(), id, container.StartOptions{})
	}
	took := time.Since(began)
	if err != nil {
		b.Fatal(err)
	}
	if err := f.remove(b.Context(), id); err != nil {
		b.Fatal(err)
	}
	return took
}

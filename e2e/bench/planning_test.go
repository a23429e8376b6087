package bench

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkPlanning is the daemon's part of M4: ten thousand objects in many overlays, none of which needs a pod.
// What rendering and planning cost by themselves, and against kustomize, is in ./render/worker and ./plan.
func BenchmarkPlanning(b *testing.B) {
	const perOverlay = 5
	n := *overlays
	p := newProxy(b)
	e := openEngine(b, "")
	r := newRepo(b)
	overlay := func(i, version int) string {
		text := fmt.Sprintf("namespace: team-%d\nnamePrefix: app-%04d-\ngeneratorOptions: {disableNameSuffixHash: true}\nresources: [../../bases/app]\nconfigMapGenerator:\n", i%50, i)
		for g := range perOverlay - 2 {
			text += fmt.Sprintf("- {name: generated-%d, literals: [version=%d, app=%d]}\n", g, version, i)
		}
		return text
	}
	r.write(b, "bases/app/kustomization.yaml", "resources: [app.yaml]\n")
	r.write(b, "bases/app/app.yaml", `apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {greeting: hello, address: "http://example.org/"}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: app}
`)
	for i := range n {
		r.write(b, fmt.Sprintf("apps/app-%04d/kustomization.yaml", i), overlay(i, 0))
	}
	d := newDaemon(b, e, r, p.host)
	objects := n*perOverlay + 1
	what := fmt.Sprintf("%d objects, ", objects)
	first := r.push(b, "Everything")
	began := time.Now()
	d.start(b, time.Hour)
	d.applied(b, first, objects)
	results.add(b, row{Metric: "M4", Case: what + "start to applied", Value: time.Since(began).Seconds(), Unit: "s", Note: "with the clone, cold"})

	var changed, unchanged series
	var changeCost, idleCost time.Duration
	from := time.Now()
	for i := range *commits {
		app := i * 997 % n
		r.write(b, fmt.Sprintf("apps/app-%04d/kustomization.yaml", app), overlay(app, i+1))
		id := r.commit(b, fmt.Sprint("Change ", app))
		before := d.cpu(b)
		began := r.release(b, id)
		d.poke(b)
		d.applied(b, id, objects)
		changed = append(changed, time.Since(began))
		changeCost += d.cpu(b) - before
	}
	results.add(b, row{Metric: "M4", Case: what + "one overlay changed", Value: millis(changed.median()), Unit: "ms", Goal: 50, Samples: len(changed),
		Note: fmt.Sprintf("from the commit to applied, fetch and record included; %.0f ms of processor each", millis(changeCost)/float64(len(changed)))})
	for range *commits {
		before := d.cpu(b)
		began := time.Now()
		d.poll(b)
		unchanged = append(unchanged, time.Since(began))
		idleCost += d.cpu(b) - before
	}
	requests := p.since(from)
	lists := 0
	for _, q := range requests {
		if q.path == "/containers/json" {
			lists++
		}
	}
	results.add(b, row{Metric: "M4", Case: what + "nothing changed", Value: millis(unchanged.median()), Unit: "ms", Goal: 5, Samples: len(unchanged),
		Note: fmt.Sprintf("until the repository was found where it was; %.1f ms of processor each, a plan included", millis(idleCost)/float64(len(unchanged)))})
	results.add(b, row{Metric: "M4", Case: what + "lists asked of the engine", Value: float64(lists), Unit: "lists", Note: fmt.Sprintf("in %d looks at the repository; %d requests of any kind", 2**commits, len(requests))})
	pr, err := d.process()
	if err != nil {
		b.Fatal(err)
	}
	results.add(b, row{Metric: "M6", Case: what + "memory", Value: float64(pr.rss) / (1 << 20), Unit: "MB", Goal: 200, Note: fmt.Sprintf("%.1f MB of it anonymous", float64(pr.anon)/(1<<20))})
}

// cpu is the processor time that the daemon has used.
func (d *daemon) cpu(b *testing.B) time.Duration {
	b.Helper()
	p, err := d.process()
	if err != nil {
		b.Fatal(err)
	}
	return p.cpu
}

// applied waits until a commit of so many objects is applied.
func (d *daemon) applied(b *testing.B, commit string, objects int) {
	b.Helper()
	why := ""
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		apps, err := d.api.Applications(b.Context())
		switch {
		case err != nil:
			why = err.Error()
		case len(apps) == 1 && apps[0].Applied.ID == commit && apps[0].Ready && apps[0].Objects == objects:
			return
		case len(apps) == 1:
			why = fmt.Sprintf("%s %s %s, %d objects", apps[0].Health, apps[0].Reason, apps[0].Message, apps[0].Objects)
		}
	}
	b.Fatalf("the commit %s with %d objects was not applied: %s\n%s", commit, objects, why, d.logged())
}

// poll makes the daemon ask the repository, and waits until it has.
func (d *daemon) poll(b *testing.B) {
	b.Helper()
	fetched := func() time.Time {
		sources, err := d.api.Sources(b.Context())
		if err != nil || len(sources) != 1 {
			b.Fatalf("%d sources: %v", len(sources), err)
		}
		return sources[0].Fetched
	}
	before := fetched()
	d.poke(b)
	for deadline := time.Now().Add(time.Minute); !fetched().After(before); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("the repository was not asked within a minute\n%s", d.logged())
		}
	}
}

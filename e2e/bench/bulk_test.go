package bench

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"

	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// BenchmarkBulk is M2: pods of one container each, from nothing to running. The daemon is there, as the
// engine is; the time runs from the commit to the start of the last container.
func BenchmarkBulk(b *testing.B) {
	for _, size := range strings.Split(*bulk, ",") {
		n, err := strconv.Atoi(size)
		if err != nil || n < 1 {
			b.Fatalf("-bulk: %q is no number of pods", size)
		}
		b.Run(size, func(b *testing.B) { bulkOf(b, n) })
	}
}

func bulkOf(b *testing.B, n int) {
	image := runtimetest.Image(b)
	e := openEngine(b, "")
	r := newRepo(b)
	args := []string{"wait"}
	r.write(b, "apps/base.yaml", deployment("base", image, 1, args, ""))
	d := newDaemon(b, e, r, "")
	first := r.push(b, "One pod, so that everything is there that pods stand on")
	d.start(b, time.Hour)
	d.settled(b, first, 1)
	f := newFloor(b, e, d, image, args...)
	w := e.watch(b, d.installation)
	peers := newPeers(b, e, image, args)

	var ours, floor series
	others := make([]series, len(peers))
	var cost time.Duration
	for round := range *rounds {
		for i := range n {
			r.write(b, fmt.Sprintf("apps/bulk-%03d.yaml", i), deployment(fmt.Sprintf("bulk-%03d", i), image, 1, args, ""))
		}
		id := r.commit(b, fmt.Sprintf("%d pods, round %d", n, round))
		w.reset()
		before := d.cpu(b)
		began := r.release(b, id)
		d.poke(b)
		last := w.until(b, n, events.ActionStart, workload)
		ours = append(ours, last.at.Sub(began))
		cost += d.cpu(b) - before
		d.settled(b, id, n+1)
		r.remove(b, "apps/bulk-*.yaml")
		id = r.push(b, "None of them")
		d.poke(b)
		d.settled(b, id, 1)

		began = time.Now()
		pods, err := f.pods(b.Context(), n, fmt.Sprint(round))
		floor = append(floor, time.Since(began))
		if dropErr := f.drop(context.Background(), pods...); err != nil || dropErr != nil {
			b.Fatal(err, dropErr)
		}

		for i, p := range peers {
			took, err := p.start(b, n)
			if err != nil {
				b.Fatalf("%s: %v", p.name, err)
			}
			others[i] = append(others[i], took)
		}
	}
	results.compare(b, "M2", fmt.Sprintf("%d pods, against the floor", n), 1.05, ours, floor,
		fmt.Sprintf("%.1f ms of the daemon's processor for each pod", millis(cost)/float64(n*len(ours))))
	for i, p := range peers {
		results.compare(b, "M2", fmt.Sprintf("%d pods, against %s", n, p.name), p.goal, ours, others[i], "")
	}
}

// peer is another program that starts n containers, takes them away again, and says how long the start took.
type peer struct {
	name  string
	goal  float64
	start func(b *testing.B, n int) (time.Duration, error)
}

// newPeers returns those that can be had here.
func newPeers(b *testing.B, e engine, image string, args []string) []peer {
	b.Helper()
	var out []peer
	if p, err := newCompose(b, e, image, args); err != nil {
		results.skip("M2", "docker compose", err.Error())
	} else {
		out = append(out, p)
	}
	if p, err := newSwarm(b, e, image, args); err != nil {
		results.skip("M2", "Swarm", err.Error())
	} else {
		out = append(out, p)
	}
	return out
}

// composeCommand finds Docker Compose: the one that FAIRLEAD_BENCH_COMPOSE names, the plugin, or the program of its own.
func composeCommand(getenv func(string) string) ([]string, string, error) {
	var tried []string
	for _, cmd := range [][]string{strings.Fields(getenv("FAIRLEAD_BENCH_COMPOSE")), {"docker", "compose"}, {"docker-compose"}} {
		if len(cmd) == 0 {
			continue
		}
		out, err := exec.Command(cmd[0], append(cmd[1:], "version", "--short")...).Output()
		if err == nil {
			return cmd, "compose " + strings.TrimPrefix(strings.TrimSpace(string(out)), "v"), nil
		}
		tried = append(tried, strings.Join(cmd, " "))
	}
	return nil, "", fmt.Errorf("not installed (tried %s)", strings.Join(tried, ", "))
}

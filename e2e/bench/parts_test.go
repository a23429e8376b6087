package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"

	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// BenchmarkParts explains M2: it starts the pods of the floor with one thing more that fairlead's pods have, and
// says what that alone costs. All take turns, so that what else the machine does meets all of them.
func BenchmarkParts(b *testing.B) {
	image := runtimetest.Image(b)
	e := openEngine(b, "")
	r := newRepo(b)
	args := []string{"wait"}
	r.write(b, "apps/base.yaml", deployment("base", image, 1, args, ""))
	d := newDaemon(b, e, r, "")
	first := r.push(b, "One pod, so that the sandbox's image is there")
	d.start(b, time.Hour)
	d.settled(b, first, 1)
	f := newFloor(b, e, d, image, args...)

	parts := podParts(b)
	samples := make([]series, len(parts))
	for round := range *rounds {
		for i := range parts {
			at := (i + round) % len(parts) // nobody always follows the same one
			f.part = parts[at].set
			start := f.pods
			if parts[at].together {
				start = f.podsByStep
			}
			began := time.Now()
			pods, err := start(b.Context(), *partPods, fmt.Sprintf("%d-%d", round, at))
			samples[at] = append(samples[at], time.Since(began))
			if dropErr := f.drop(context.Background(), pods...); err != nil || dropErr != nil {
				b.Fatal(err, dropErr)
			}
		}
	}
	for i, p := range parts[1:] {
		least := float64(slices.Min(samples[i+1])) / float64(slices.Min(samples[0]))
		results.compare(b, "M2", fmt.Sprintf("%d bare pods with %s", *partPods, p.what), 0, samples[i+1], samples[0], fmt.Sprintf("%.2f between the shortest of each", least))
	}
}

// part adds something to what a pod of the floor is created from.
type part struct {
	what string
	set  func(c *container.Config, h *container.HostConfig, sandbox bool)
	// together takes the same step for all pods before the next one.
	together bool
}

// podParts are what fairlead's pods have and those of the floor have not; the first is nothing.
func podParts(b *testing.B) []part {
	b.Helper()
	dir := b.TempDir()
	var binds []mount.Mount
	for i, target := range []string{"/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/dev/termination-log"} {
		file := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(file, []byte("127.0.0.1 localhost\n"), 0o644); err != nil {
			b.Fatal(err)
		}
		binds = append(binds, mount.Mount{Type: mount.TypeBind, Source: file, Target: target,
			BindOptions: &mount.BindOptions{Propagation: mount.PropagationRPrivate}})
	}
	return []part{
		{what: "nothing more"},
		{what: "every step taken for all before the next", together: true},
		{what: "the least weight", set: func(_ *container.Config, h *container.HostConfig, _ bool) { h.CPUShares = 2 }},
		{what: fmt.Sprintf("%d mounts", len(binds)), set: func(_ *container.Config, h *container.HostConfig, sandbox bool) {
			if !sandbox {
				h.Mounts = binds
			}
		}},
		{what: "limited logs", set: func(_ *container.Config, h *container.HostConfig, sandbox bool) {
			h.LogConfig = container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "10m", "max-file": "3"}}
			if sandbox {
				h.LogConfig = container.LogConfig{Type: "none"}
			}
		}},
		{what: "no capabilities in the sandbox", set: func(_ *container.Config, h *container.HostConfig, sandbox bool) {
			if sandbox {
				h.CapDrop, h.SecurityOpt = []string{"ALL"}, []string{"no-new-privileges"}
			}
		}},
		{what: "a sandbox that cannot be written to", set: func(_ *container.Config, h *container.HostConfig, sandbox bool) {
			h.ReadonlyRootfs = sandbox
		}},
		{what: "an order for want of memory", set: func(_ *container.Config, h *container.HostConfig, sandbox bool) {
			if !sandbox { // fewer chances than 0 would take a capability that the machine may lack
				h.OomScoreAdj = 1000
			}
		}},
	}
}

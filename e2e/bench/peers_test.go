package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// newCompose returns Docker Compose, which starts services of one container each on a network of their own. Its
// time is that of `up -d`, the start of the program included, as it keeps nothing running.
func newCompose(b *testing.B, e engine, image string, args []string) (peer, error) {
	b.Helper()
	command, name, err := composeCommand(os.Getenv)
	if err != nil {
		return peer{}, err
	}
	project := runtimetest.Name(b)
	dir := b.TempDir()
	file := filepath.Join(dir, "compose.yaml")
	compose := func(args ...string) error {
		full := append(append([]string{}, command[1:]...), "-p", project, "-f", file)
		cmd := exec.Command(command[0], append(full, args...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "COMPOSE_PARALLEL_LIMIT=64", "COMPOSE_HTTP_TIMEOUT=600")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	undo.later(b, func() error { return e.clean(project) })
	// Old versions of Compose want the number of a file format; new ones ignore it.
	return peer{name: name, goal: 1.05, start: func(b *testing.B, n int) (took time.Duration, err error) {
		var text strings.Builder
		text.WriteString("version: \"3\"\nservices:\n")
		for i := range n {
			fmt.Fprintf(&text, "  bulk-%03d: {image: %q, command: [%s]}\n", i, image, strings.Join(args, ", "))
		}
		if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
			return 0, err
		}
		began := time.Now()
		if err := compose("up", "-d"); err != nil {
			return 0, errors.Join(err, e.clean(project))
		}
		took = time.Since(began)
		all, err := e.named(b.Context(), project)
		running := 0
		for _, c := range all {
			if c.State == "running" {
				running++
			}
		}
		if err == nil && running != n {
			err = fmt.Errorf("%d containers run, not %d", running, n)
		}
		return took, errors.Join(err, e.clean(project))
	}}, nil
}

// newSwarm returns Docker's own orchestrator. It changes the mode of the engine, which others may use, so it has
// to be asked for; the engine leaves the swarm at the end.
func newSwarm(b *testing.B, e engine, image string, args []string) (peer, error) {
	b.Helper()
	if os.Getenv("FAIRLEAD_BENCH_SWARM") == "" {
		return peer{}, errors.New("it changes the engine; set FAIRLEAD_BENCH_SWARM=1 to allow that")
	}
	ctx := context.Background()
	info, err := e.Info(ctx)
	if err != nil {
		return peer{}, err
	}
	if info.Swarm.LocalNodeState != swarm.LocalNodeStateInactive {
		return peer{}, errors.New("the engine is part of a swarm")
	}
	_, err = e.NetworkInspect(ctx, gatewayNetwork, network.InspectOptions{})
	hadGateway := err == nil
	if _, err := e.SwarmInit(ctx, swarm.InitRequest{ListenAddr: "127.0.0.1:2377", AdvertiseAddr: "127.0.0.1:2377"}); err != nil {
		return peer{}, fmt.Errorf("begin a swarm: %w", err)
	}
	undo.later(b, func() error {
		err := e.SwarmLeave(ctx, true)
		if !hadGateway && err == nil {
			err = e.NetworkRemove(ctx, gatewayNetwork)
		}
		if err != nil {
			return fmt.Errorf("leave the swarm: %w", err)
		}
		return nil
	})
	return peer{name: "Swarm", goal: 0.40, start: func(b *testing.B, n int) (time.Duration, error) {
		name := runtimetest.Name(b)
		w := e.watchNames(b, name+".")
		replicas := uint64(n)
		began := time.Now()
		s, err := e.ServiceCreate(ctx, swarm.ServiceSpec{
			Annotations:  swarm.Annotations{Name: name},
			TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: image, Args: args}},
			Mode:         swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &replicas}},
		}, swarm.ServiceCreateOptions{})
		if err != nil {
			return 0, err
		}
		last := w.until(b, n, events.ActionStart, func(string) bool { return true })
		if err := e.ServiceRemove(ctx, s.ID); err != nil {
			return 0, err
		}
		w.until(b, n, events.ActionDestroy, func(string) bool { return true })
		return last.at.Sub(began), nil
	}}, nil
}

// gatewayNetwork is made by an engine that begins a swarm, and stays when it leaves.
const gatewayNetwork = "docker_gwbridge"

package docker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// inspections bounds how many containers List inspects at a time.
const inspections = 4

// List returns all containers of this installation.
func (e *Engine) List(ctx context.Context) ([]runtimes.Container, error) {
	all, err := e.cli.ContainerList(ctx, container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", labelInstallation+"="+e.opt.Installation)),
	})
	if err != nil {
		return nil, e.wrap(ctx, "list containers", err)
	}
	found := make([]*runtimes.Container, len(all))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(inspections)
	present := make(map[string]bool, len(all))
	for i, c := range all {
		if _, ours := e.identity(c.Labels); !ours {
			continue
		}
		present[c.ID] = true
		if k, ok := e.remembered(c.ID, c.State); ok {
			found[i] = &k
			continue
		}
		group.Go(func() error {
			k, err := e.Inspect(ctx, c.ID)
			if errors.Is(err, runtimes.ErrNotFound) {
				return nil // removed meanwhile
			}
			if err != nil {
				return err
			}
			found[i] = &k
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	e.retain(present)
	out := make([]runtimes.Container, 0, len(found))
	for _, c := range found {
		if c != nil {
			out = append(out, *c)
		}
	}
	slices.SortFunc(out, func(a, b runtimes.Container) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// remembered returns what was inspected, while events tell of every change.
func (e *Engine) remembered(id, state string) (runtimes.Container, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, ok := e.known[id]
	return c, ok && e.watched && stateOf(c) == state
}

// stateOf is the engine's word for the state of a container that was inspected; empty for states that pass.
func stateOf(c runtimes.Container) string {
	switch {
	case c.Dead:
		return ""
	case c.Paused:
		return container.StatePaused
	case c.Running:
		return container.StateRunning
	case c.StartedAt.IsZero():
		return container.StateCreated
	default:
		return container.StateExited
	}
}

// remember keeps what was inspected unless something changed since changes was read.
func (e *Engine) remember(c runtimes.Container, changes uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.changes == changes {
		e.known[c.ID] = c
	}
}

// forget drops what changed.
func (e *Engine) forget(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.changes++
	delete(e.known, id)
}

// retain drops what is gone.
func (e *Engine) retain(present map[string]bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id := range e.known {
		if !present[id] {
			delete(e.known, id)
		}
	}
}

// Inspect describes one container.
func (e *Engine) Inspect(ctx context.Context, id string) (runtimes.Container, error) {
	e.mu.Lock()
	changes := e.changes
	e.mu.Unlock()
	r, err := e.cli.ContainerInspect(ctx, id)
	if err != nil {
		return runtimes.Container{}, e.wrap(ctx, "inspect container "+short(id), err)
	}
	who, ours := e.identity(r.Config.Labels)
	if !ours {
		return runtimes.Container{}, fmt.Errorf("inspect container %s: %w: it is not ours", short(id), runtimes.ErrNotFound)
	}
	c := runtimes.Container{
		Identity: who, ID: r.ID, Image: r.Config.Image, ImageID: r.Image, Created: when(r.Created),
		Running: r.State.Running, Paused: r.State.Paused, Dead: r.State.Dead || r.State.Status == container.StateRemoving, OOM: r.State.OOMKilled,
		StartedAt: when(r.State.StartedAt), FinishedAt: when(r.State.FinishedAt), PID: r.State.Pid,
		ExitCode: r.State.ExitCode, Error: r.State.Error,
		Resources: resources(r.HostConfig.Resources),
	}
	e.remember(c, changes)
	return c, nil
}

// when reads the engine's times; the zero one is what has not happened.
func when(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() <= 1 {
		return time.Time{}
	}
	return t
}

func short(id string) string { return id[:min(len(id), 12)] }

// owned makes sure that a container is ours before it is changed.
func (e *Engine) owned(ctx context.Context, id string) error {
	if err := e.mayChange(ctx); err != nil {
		return err
	}
	e.mu.Lock()
	_, ok := e.known[id]
	e.mu.Unlock()
	if ok {
		return nil
	}
	_, err := e.Inspect(ctx, id)
	return err
}

// Start starts a container.
func (e *Engine) Start(ctx context.Context, id string) error {
	if err := e.owned(ctx, id); err != nil {
		return err
	}
	defer e.forget(id)
	err := e.cli.ContainerStart(ctx, id, container.StartOptions{})
	if err == nil || errdefs.IsNotModified(err) {
		return nil
	}
	err = e.wrap(ctx, "start container "+short(id), err)
	// What cannot be run is a mistake of who asks; the engine says so with this text only, under several classes.
	if !errors.Is(err, runtimes.ErrUnavailable) && strings.Contains(err.Error(), "OCI runtime create failed") && !errors.Is(err, runtimes.ErrInvalid) {
		err = fmt.Errorf("%w: %w", runtimes.ErrInvalid, err)
	}
	return err
}

// Kill sends a signal.
func (e *Engine) Kill(ctx context.Context, id, signal string) error {
	switch err := e.owned(ctx, id); {
	case errors.Is(err, runtimes.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	err := e.cli.ContainerKill(ctx, id, signal)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if errdefs.IsConflict(err) {
		// It does not run, or it is in a state, such as paused, in which it gets no signals.
		if c, err := e.Inspect(ctx, id); errors.Is(err, runtimes.ErrNotFound) || err == nil && !c.Running {
			return nil
		}
	}
	return e.wrap(ctx, "signal container "+short(id), err)
}

// Remove removes a container.
func (e *Engine) Remove(ctx context.Context, id string) error {
	switch err := e.owned(ctx, id); {
	case errors.Is(err, runtimes.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	defer e.forget(id)
	for {
		err := e.cli.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
		switch {
		case err == nil, errdefs.IsNotFound(err):
			return nil
		case !errdefs.IsConflict(err):
			return e.wrap(ctx, "remove container "+short(id), err)
		}
		// Somebody else is removing it: done when it is gone.
		select {
		case <-ctx.Done():
			return e.wrap(ctx, "remove container "+short(id), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Update changes limits.
func (e *Engine) Update(ctx context.Context, id string, r plan.Resources) error {
	if err := e.owned(ctx, id); err != nil {
		return err
	}
	defer e.forget(id)
	before, err := e.Inspect(ctx, id)
	if err != nil {
		return err
	}
	u := container.UpdateConfig{Resources: limits(r)}
	// The engine takes 0 for no change, so what has no limit any more gets one that is none.
	if r.CPUMillis == 0 && before.Resources.CPUMillis != 0 {
		u.CPUPeriod, u.CPUQuota = cpuPeriod, -1
	}
	if r.CPUShares == 0 && before.Resources.CPUShares != 0 {
		u.CPUShares = defaultShares
	}
	if r.MemoryBytes == 0 && before.Resources.MemoryBytes != 0 {
		u.Memory, u.MemorySwap = noMemoryLimit, noMemoryLimit
	}
	_, err = e.cli.ContainerUpdate(ctx, id, u)
	return e.wrap(ctx, "update container "+short(id), err)
}

const (
	// defaultShares is the weight of a container from which its weight was taken: the usual one is 1024, and
	// this one beside it follows from no request, so that it is known again.
	defaultShares = 1023
	// noMemoryLimit is more than any machine has, and is known again.
	noMemoryLimit = 1 << 62
)

// resources reads the limits that are in force.
func resources(h container.Resources) plan.Resources {
	r := plan.Resources{MemoryBytes: h.Memory, CPUShares: h.CPUShares}
	if r.MemoryBytes >= noMemoryLimit {
		r.MemoryBytes = 0
	}
	if r.CPUShares == defaultShares {
		r.CPUShares = 0
	}
	switch {
	case h.CPUQuota > 0 && h.CPUPeriod > 0:
		r.CPUMillis = h.CPUQuota * 1000 / h.CPUPeriod
	case h.CPUQuota > 0:
		r.CPUMillis = h.CPUQuota * 1000 / cpuPeriod
	case h.NanoCPUs > 0:
		r.CPUMillis = h.NanoCPUs / 1_000_000
	}
	return r
}

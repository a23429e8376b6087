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

	"github.com/fairlead-dev/fairlead/runtimes"
)

// inspections bounds how many containers List inspects at a time.
const inspections = 4

// List returns all containers of this installation. What did not change since it was last inspected is not
// asked for again.
func (e *Engine) List(ctx context.Context) ([]runtimes.Container, error) {
	ctx, done, err := e.begin(ctx, e.bounds.read)
	defer done()
	if err != nil {
		return nil, e.wrap(ctx, "list containers", err)
	}
	list, from := e.memory.listing(), time.Now()
	all, err := e.summaries(ctx)
	if err != nil {
		return nil, e.wrap(ctx, "list containers", err)
	}
	to := time.Now()
	mine, err := e.mine(ctx, all)
	if err != nil {
		return nil, e.wrap(ctx, "list containers", err)
	}
	found := make([]*runtimes.Container, len(all))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(inspections)
	present := make(map[string]bool, len(all))
	for i := range all {
		c := &all[i]
		present[c.ID] = true
		who, ok := mine[c.ID]
		if !ok {
			continue
		}
		if k, ok := e.memory.recall(c, from, to); ok {
			found[i] = &k
			continue
		}
		group.Go(func() error {
			changes := e.memory.before()
			r, err := e.cli.ContainerInspect(ctx, c.ID)
			if errdefs.IsNotFound(err) {
				return nil // removed meanwhile
			}
			if err != nil {
				return e.wrap(ctx, "inspect container "+short(c.ID), err)
			}
			k := read(r, who)
			e.memory.remember(k, changes)
			found[i] = &k
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	e.memory.retain(list, present)
	out := make([]runtimes.Container, 0, len(found))
	for _, c := range found {
		if c != nil {
			out = append(out, *c)
		}
	}
	slices.SortFunc(out, func(a, b runtimes.Container) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// summaries lists what carries the installation's label, and the labels that are given as NAME=VALUE.
func (e *Engine) summaries(ctx context.Context, labels ...string) ([]container.Summary, error) {
	f := filters.NewArgs(filters.Arg("label", labelInstallation+"="+e.opt.Installation))
	for _, l := range labels {
		f.Add("label", l)
	}
	return e.cli.ContainerList(ctx, container.ListOptions{All: true, Filters: f})
}

// Inspect describes a container of ours.
func (e *Engine) Inspect(ctx context.Context, id string) (runtimes.Container, error) {
	doing := "inspect container " + short(id)
	ctx, done, err := e.begin(ctx, e.bounds.read)
	defer done()
	if err != nil {
		return runtimes.Container{}, e.wrap(ctx, doing, err)
	}
	changes := e.memory.before()
	r, who, err := e.ask(ctx, id)
	if err != nil {
		return runtimes.Container{}, e.wrap(ctx, doing, err)
	}
	c := read(r, who)
	e.memory.remember(c, changes)
	return c, nil
}

// read reads what the engine says of a container.
func read(r container.InspectResponse, who runtimes.Identity) runtimes.Container {
	return runtimes.Container{
		Identity: who, ID: r.ID, Image: r.Config.Image, ImageID: r.Image, Created: when(r.Created),
		Running: r.State.Running, Paused: r.State.Paused, Dead: r.State.Dead || r.State.Status == container.StateRemoving, OOM: r.State.OOMKilled,
		StartedAt: when(r.State.StartedAt), FinishedAt: when(r.State.FinishedAt), PID: r.State.Pid,
		ExitCode: r.State.ExitCode, Error: r.State.Error,
		Resources: resources(r.HostConfig.Resources), SandboxID: r.Config.Labels[labelSandbox],
	}
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
	switch _, v := e.memory.owner(id); v {
	case ours:
		return nil
	case copied, strange:
		return fmt.Errorf("container %s: %w: it is not ours", short(id), runtimes.ErrNotFound)
	case unknown:
	}
	_, err := e.Inspect(ctx, id)
	return err
}

// Start starts a container.
func (e *Engine) Start(ctx context.Context, id string) error {
	if err := e.owned(ctx, id); err != nil {
		return err
	}
	defer e.memory.forget(id, false)
	doing := "start container " + short(id)
	ctx, done, err := e.begin(ctx, e.bounds.change)
	defer done()
	if err != nil {
		return e.wrap(ctx, doing, err)
	}
	err = e.cli.ContainerStart(ctx, id, container.StartOptions{})
	if err == nil || errdefs.IsNotModified(err) {
		return nil
	}
	err = e.wrap(ctx, doing, err)
	// What cannot be run is a mistake of who asks; the engine says so with this text only, under several classes.
	if strings.Contains(err.Error(), "OCI runtime create failed") && !errors.Is(err, runtimes.ErrInvalid) && !errors.Is(err, runtimes.ErrDiskFull) {
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
	doing := "signal container " + short(id)
	ctx, done, err := e.begin(ctx, e.bounds.change)
	defer done()
	if err != nil {
		return e.wrap(ctx, doing, err)
	}
	err = e.cli.ContainerKill(ctx, id, signal)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if errdefs.IsConflict(err) {
		// It does not run, or it is in a state, such as paused, in which it gets no signals.
		if c, err := e.Inspect(ctx, id); errors.Is(err, runtimes.ErrNotFound) || err == nil && !c.Running {
			return nil
		}
	}
	return e.wrap(ctx, doing, err)
}

// Remove removes a container.
func (e *Engine) Remove(ctx context.Context, id string) error {
	switch err := e.owned(ctx, id); {
	case errors.Is(err, runtimes.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	doing := "remove container " + short(id)
	ctx, done, err := e.begin(ctx, e.bounds.change)
	defer done()
	if err != nil {
		return e.wrap(ctx, doing, err)
	}
	for {
		err := e.cli.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
		switch {
		case err == nil, errdefs.IsNotFound(err):
			e.memory.forget(id, true)
			return nil
		case !errdefs.IsConflict(err):
			e.memory.forget(id, false)
			return e.wrap(ctx, doing, err)
		}
		// Somebody else is removing it: done when it is gone.
		select {
		case <-ctx.Done():
			return e.wrap(ctx, doing, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

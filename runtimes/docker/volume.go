package docker

import (
	"context"
	"fmt"
	"maps"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/volume"

	"github.com/fairlead-dev/fairlead/runtimes"
)

var _ runtimes.VolumeEngine = (*Engine)(nil)

// volumeName is what the engine calls a volume of ours.
func (e *Engine) volumeName(name string) string { return e.opt.Installation + "_" + name }

// EnsureVolume makes a volume exist. One of that name that fairlead did not make, or with another driver or options, is
// ErrConflict.
func (e *Engine) EnsureVolume(ctx context.Context, name, driver string, options map[string]string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name = e.volumeName(name)
	doing := "make volume " + name
	ctx, done, err := e.begin(ctx, e.bounds.change)
	defer done()
	if err != nil {
		return e.wrap(ctx, doing, err)
	}
	v, err := e.cli.VolumeInspect(ctx, name)
	if errdefs.IsNotFound(err) {
		if err := e.mayChange(ctx); err != nil {
			return err
		}
		// One that somebody made meanwhile is returned: what comes back is what counts.
		v, err = e.cli.VolumeCreate(ctx, volume.CreateOptions{
			Name: name, Driver: driver, DriverOpts: options, Labels: map[string]string{labelInstallation: e.opt.Installation},
		})
	}
	if err != nil {
		return e.wrap(ctx, doing, err)
	}
	switch {
	case v.Labels[labelInstallation] != e.opt.Installation:
		return fmt.Errorf("volume %s: %w: fairlead did not make it; remove it, or rename the claim", name, runtimes.ErrConflict)
	case v.Driver != driver:
		return fmt.Errorf("volume %s: %w: its driver is %q instead of %q; copy what it holds, and remove it with docker volume rm", name, runtimes.ErrConflict, v.Driver, driver)
	case !maps.Equal(v.Options, options):
		return fmt.Errorf("volume %s: %w: it has other options; copy what it holds, and remove it with docker volume rm", name, runtimes.ErrConflict)
	}
	return nil
}

// RemoveVolume removes a volume of ours with all that it holds; one that is missing, or not ours, is not an error.
func (e *Engine) RemoveVolume(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name = e.volumeName(name)
	doing := "remove volume " + name
	ctx, done, err := e.begin(ctx, e.bounds.change)
	defer done()
	if err != nil {
		return e.wrap(ctx, doing, err)
	}
	v, err := e.cli.VolumeInspect(ctx, name)
	switch {
	case errdefs.IsNotFound(err):
		return nil
	case err != nil:
		return e.wrap(ctx, doing, err)
	case v.Labels[labelInstallation] != e.opt.Installation:
		return nil
	}
	if err := e.mayChange(ctx); err != nil {
		return err
	}
	if err := e.cli.VolumeRemove(ctx, name, false); err != nil && !errdefs.IsNotFound(err) {
		return e.wrap(ctx, doing, err)
	}
	return nil
}

package docker

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
)

// sandboxRepository is the name of the sandbox images.
const sandboxRepository = "fairlead/sandbox"

// labelSandboxImage marks the images of sandboxes, of this version and of others.
const labelSandboxImage = labelPrefix + "sandbox-image"

// RemoveSandboxImages removes the sandbox images that no container uses. Who needs one makes it again.
func (e *Engine) RemoveSandboxImages(ctx context.Context) error {
	if err := e.mayChange(ctx); err != nil {
		return err
	}
	e.mu.Lock()
	e.sandbox = ""
	e.mu.Unlock()
	ctx, done, err := e.begin(ctx, e.bounds.change)
	defer done()
	if err != nil {
		return e.wrap(ctx, "list the sandbox images", err)
	}
	// Two that make the image at the same time leave one without a tag, so the label tells which it is.
	all, err := e.cli.ImageList(ctx, image.ListOptions{Filters: filters.NewArgs(filters.Arg("label", labelSandboxImage+"=1"))})
	if err != nil {
		return e.wrap(ctx, "list the sandbox images", err)
	}
	for _, img := range all {
		_, err := e.cli.ImageRemove(ctx, img.ID, image.RemoveOptions{})
		if err != nil && !errdefs.IsConflict(err) && !errdefs.IsNotFound(err) {
			return e.wrap(ctx, "remove the sandbox image", err)
		}
	}
	return nil
}

package docker

import (
	"context"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
)

// sandboxRepository is the name of the sandbox images, of this version and of others.
const sandboxRepository = "fairlead/sandbox"

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
	all, err := e.cli.ImageList(ctx, image.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", sandboxRepository))})
	if err != nil {
		return e.wrap(ctx, "list the sandbox images", err)
	}
	for _, img := range all {
		for _, tag := range img.RepoTags {
			if !strings.HasPrefix(tag, sandboxRepository+":") {
				continue
			}
			_, err := e.cli.ImageRemove(ctx, tag, image.RemoveOptions{})
			if err != nil && !errdefs.IsConflict(err) && !errdefs.IsNotFound(err) {
				return e.wrap(ctx, "remove the sandbox image", err)
			}
		}
	}
	return nil
}

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"
)

// engine is the real engine, seen from outside of fairlead: what a person with docker sees and does.
type engine struct{ *client.Client }

func openEngine(t testing.TB) engine {
	t.Helper()
	c, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return engine{c}
}

// containers returns the containers of an installation, with and without valid ownership. A container is of an
// installation when its name begins with the installation's.
func (e engine) containers(ctx context.Context, installation string) ([]container.Summary, error) {
	all, err := e.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("name", "^/"+installation+"[_.]"))})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	return all, nil
}

// find returns the one container of a pod's container that runs.
func (e engine) find(ctx context.Context, installation string, parts ...string) (container.Summary, error) {
	all, err := e.containers(ctx, installation)
	if err != nil {
		return container.Summary{}, err
	}
	all = slices.DeleteFunc(all, func(c container.Summary) bool {
		return c.State != "running" || slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(c.Names[0], p) })
	})
	if len(all) != 1 {
		return container.Summary{}, fmt.Errorf("%d running containers have %q in their names, not one", len(all), parts)
	}
	return all[0], nil
}

// clean removes everything of an installation and says what there was.
func (e engine) clean(installation string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var errs []error
	all, err := e.containers(ctx, installation)
	errs = append(errs, err)
	for _, c := range all {
		errs = append(errs, e.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true}))
	}
	if len(all) > 0 {
		errs = append(errs, fmt.Errorf("%d containers of %s were left behind, %s for example", len(all), installation, all[0].Names[0]))
	}
	volumes, err := e.VolumeList(ctx, volume.ListOptions{Filters: filters.NewArgs(filters.Arg("name", "^"+installation+"_"))})
	errs = append(errs, err)
	for _, v := range volumes.Volumes {
		errs = append(errs, fmt.Errorf("the volume %s was left behind", v.Name), e.VolumeRemove(ctx, v.Name, true))
	}
	nets, err := e.NetworkList(ctx, network.ListOptions{Filters: filters.NewArgs(filters.Arg("name", "^"+installation))})
	errs = append(errs, err)
	for _, n := range nets {
		errs = append(errs, fmt.Errorf("the network %s was left behind", n.Name), e.NetworkRemove(ctx, n.ID))
	}
	return errors.Join(errs...)
}

package docker

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// bridgeOption is the engine's name for the name of a network's bridge.
const bridgeOption = "com.docker.network.bridge.name"

// EnsureNetwork makes a bridge network exist.
func (e *Engine) EnsureNetwork(ctx context.Context, name, bridge string, subnet, ipRange netip.Prefix, gateway netip.Addr) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	doing := "make network " + name
	ctx, done, err := e.begin(ctx, e.bounds.change)
	defer done()
	if err != nil {
		return e.wrap(ctx, doing, err)
	}
	for range 2 {
		found, err := e.cli.NetworkInspect(ctx, name, network.InspectOptions{})
		switch {
		case err == nil:
			return e.compare(found, name, bridge, subnet, ipRange, gateway)
		case !errdefs.IsNotFound(err):
			return e.wrap(ctx, "inspect network "+name, err)
		}
		if err := e.mayChange(ctx); err != nil {
			return err
		}
		_, err = e.cli.NetworkCreate(ctx, name, network.CreateOptions{
			Driver: "bridge",
			IPAM: &network.IPAM{Driver: "default", Config: []network.IPAMConfig{{
				Subnet: subnet.String(), IPRange: ipRange.String(), Gateway: gateway.String(),
			}}},
			Options: map[string]string{bridgeOption: bridge},
			Labels:  map[string]string{labelInstallation: e.opt.Installation},
		})
		switch {
		case err == nil:
			return nil
		case !errdefs.IsConflict(err): // somebody made it meanwhile: look again
			if errdefs.IsPermissionDenied(err) || errdefs.IsInvalidArgument(err) {
				return fmt.Errorf("%s: %w: %w (choose another network.cidr or network.bridge)", doing, runtimes.ErrConflict, err)
			}
			return e.wrap(ctx, doing, err)
		}
	}
	return fmt.Errorf("%s: %w: it comes and goes", doing, runtimes.ErrConflict)
}

// compare holds a network against what it should be.
func (e *Engine) compare(n network.Inspect, name, bridge string, subnet, ipRange netip.Prefix, gateway netip.Addr) error {
	differs := func(what, is, should string) error {
		return fmt.Errorf("network %s: %w: its %s is %q instead of %q; remove it, or choose another network.bridge", name, runtimes.ErrConflict, what, is, should)
	}
	switch {
	case n.Labels[labelInstallation] != e.opt.Installation:
		return fmt.Errorf("network %s: %w: fairlead did not make it; remove it, or choose another network.bridge", name, runtimes.ErrConflict)
	case n.Driver != "bridge":
		return differs("driver", n.Driver, "bridge")
	case n.Options[bridgeOption] != bridge:
		return differs("bridge", n.Options[bridgeOption], bridge)
	case len(n.IPAM.Config) != 1:
		return differs("number of subnets", fmt.Sprint(len(n.IPAM.Config)), "1")
	case n.IPAM.Config[0].Subnet != subnet.String():
		return differs("subnet", n.IPAM.Config[0].Subnet, subnet.String())
	case n.IPAM.Config[0].IPRange != ipRange.String():
		return differs("range of addresses", n.IPAM.Config[0].IPRange, ipRange.String())
	case n.IPAM.Config[0].Gateway != gateway.String():
		return differs("gateway", n.IPAM.Config[0].Gateway, gateway.String())
	}
	return nil
}

// RemoveNetwork removes a network that is ours.
func (e *Engine) RemoveNetwork(ctx context.Context, name string) error {
	if err := e.mayChange(ctx); err != nil {
		return err
	}
	doing := "remove network " + name
	ctx, done, err := e.begin(ctx, e.bounds.change)
	defer done()
	if err != nil {
		return e.wrap(ctx, doing, err)
	}
	n, err := e.cli.NetworkInspect(ctx, name, network.InspectOptions{})
	switch {
	case errdefs.IsNotFound(err):
		return nil
	case err != nil:
		return e.wrap(ctx, "inspect network "+name, err)
	case n.Labels[labelInstallation] != e.opt.Installation:
		return nil // another's
	}
	switch err := e.cli.NetworkRemove(ctx, n.ID); {
	case err == nil, errdefs.IsNotFound(err):
		return nil
	case errdefs.IsPermissionDenied(err):
		// The engine's class for one that has containers.
		return fmt.Errorf("%s: %w: containers are connected to it: %w", doing, runtimes.ErrConflict, err)
	default:
		return e.wrap(ctx, doing, err)
	}
}

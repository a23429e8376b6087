package docker

import (
	"context"

	"github.com/docker/docker/api/types/container"

	"github.com/fairlead-dev/fairlead/plan"
)

// Update changes limits.
func (e *Engine) Update(ctx context.Context, id string, r plan.Resources) error {
	if err := e.owned(ctx, id); err != nil {
		return err
	}
	defer e.memory.forget(id, false)
	before, err := e.Inspect(ctx, id)
	if err != nil {
		return err
	}
	ctx, done, err := e.begin(ctx, e.bounds.change)
	defer done()
	if err != nil {
		return e.wrap(ctx, "update container "+short(id), err)
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

package docker

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// Whose a container is.
//
// A container is ours when its MAC fits its labels and the image that it was made from, and when it joins the
// sandbox that its labels name. So what docker commit and docker run make of one is not ours: it has another image,
// and joins nothing. A copy that a tool makes with the same image in the same network namespace is told by
// its name: the engine gives ours, which follows from the identity, to one container only. A container of
// ours that somebody renamed stays ours, as long as it was made when its labels say and no other container
// that fits has the name or is older. What is left is a faithful copy that was made within copyWindow of the
// original, after which the original was removed: it counts as the original, renamed.

// copyWindow is how far the engine's time of creation may be from that in the labels of a container that has
// another name than ours: the bound of the call, with room for clocks that differ.
const copyWindow = 5 * time.Minute

// genuine reports whether a container's labels fit each other and what it was made from.
func (e *Engine) genuine(labels map[string]string, image string, mode container.NetworkMode) (runtimes.Identity, bool) {
	id, ok := e.identity(labels, image)
	joined, _ := strings.CutPrefix(string(mode), "container:")
	return id, ok && (labels[labelSandbox] == "" || labels[labelSandbox] == joined)
}

// same reports whether two identities are of the same container.
func same(a, b runtimes.Identity) bool {
	return a.Pod == b.Pod && a.UID == b.UID && a.Container == b.Container && a.Attempt == b.Attempt
}

// ask inspects a container that must be ours.
func (e *Engine) ask(ctx context.Context, id string) (container.InspectResponse, runtimes.Identity, error) {
	r, err := e.cli.ContainerInspect(ctx, id)
	if err != nil {
		return r, runtimes.Identity{}, err
	}
	who, v := e.memory.owner(r.ID)
	if v == unknown {
		if who, v, err = e.judge(ctx, r); err != nil {
			return r, who, err
		}
	}
	if v != ours {
		return r, who, fmt.Errorf("%w: it is not ours", runtimes.ErrNotFound)
	}
	return r, who, nil
}

// judge finds out whose an inspected container is.
func (e *Engine) judge(ctx context.Context, r container.InspectResponse) (runtimes.Identity, verdict, error) {
	who, ok := e.genuine(r.Config.Labels, r.Config.Image, r.HostConfig.NetworkMode)
	v := strange
	switch {
	case !ok:
	case strings.TrimPrefix(r.Name, "/") == e.name(who):
		v = ours
	default:
		all, err := e.summaries(ctx, labelUID+"="+who.UID, labelContainer+"="+who.Container, labelAttempt+"="+strconv.Itoa(who.Attempt))
		if err != nil {
			return who, unknown, err
		}
		if _, err := e.mine(ctx, all); err != nil {
			return who, unknown, err
		}
		_, v = e.memory.owner(r.ID)
		return who, v, nil
	}
	e.memory.prove(r.ID, who, v)
	return who, v, nil
}

// mine returns those of the listed containers that are ours, by id.
func (e *Engine) mine(ctx context.Context, all []container.Summary) (map[string]runtimes.Identity, error) {
	type claim struct {
		pod            plan.PodKey
		uid, container string
		attempt        int
	}
	best := make(map[claim]*container.Summary, len(all))
	claims := make(map[string]claim, len(all))
	identities := make(map[string]runtimes.Identity, len(all))
	for i := range all {
		c := &all[i]
		who, ok, err := e.claims(ctx, c)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		k := claim{who.Pod, who.UID, who.Container, who.Attempt}
		claims[c.ID], identities[c.ID] = k, who
		if b := best[k]; b == nil || e.better(c, b, who) {
			best[k] = c
		}
	}
	for id, k := range claims {
		v := ours
		if best[k].ID != id {
			v = copied
		}
		if _, before := e.memory.owner(id); before != v {
			e.memory.prove(id, identities[id], v)
		}
		if v != ours {
			delete(identities, id)
		}
	}
	return identities, nil
}

// claims reports whether a listed container may be ours if no other has a better claim.
func (e *Engine) claims(ctx context.Context, c *container.Summary) (runtimes.Identity, bool, error) {
	switch who, v := e.memory.owner(c.ID); v {
	case strange:
		return who, false, nil
	case ours, copied:
		return who, true, nil
	case unknown:
	}
	mode := container.NetworkMode(c.HostConfig.NetworkMode)
	who, ok := e.genuine(c.Labels, c.Image, mode)
	if !ok {
		// A list has the image's id in place of a reference that means another image by now.
		r, err := e.cli.ContainerInspect(ctx, c.ID)
		switch {
		case errdefs.IsNotFound(err):
			return who, false, nil
		case err != nil:
			return who, false, err
		}
		who, ok = e.genuine(r.Config.Labels, r.Config.Image, r.HostConfig.NetworkMode)
	}
	if ok && !e.named(c, who) {
		made, err := time.Parse(time.RFC3339, c.Labels[labelMade])
		ok = err == nil && time.Unix(c.Created, 0).Sub(made).Abs() <= copyWindow
	}
	if !ok {
		e.memory.prove(c.ID, who, strange)
	}
	return who, ok, nil
}

// named reports whether a listed container has the name of an identity.
func (e *Engine) named(c *container.Summary, who runtimes.Identity) bool {
	return slices.Contains(c.Names, "/"+e.name(who))
}

// better reports whether a has the better claim to an identity than b: by its name, else by its age.
func (e *Engine) better(a, b *container.Summary, who runtimes.Identity) bool {
	if named := e.named(a, who); named != e.named(b, who) {
		return named
	}
	if a.Created != b.Created {
		return a.Created < b.Created
	}
	return a.ID < b.ID
}

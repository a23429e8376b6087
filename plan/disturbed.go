package plan

import (
	"fmt"
	"slices"
)

// disturbed returns what others did to a container of the pod, when that is an action of the given ones; nil otherwise.
func (p *pod) disturbed(container string, actions ...string) *Disturbance {
	i := slices.IndexFunc(p.Containers, func(c ObservedContainer) bool { return c.Name == container })
	if i < 0 || p.Containers[i].Disturbed == nil || !slices.Contains(actions, p.Containers[i].Disturbed.Action) {
		return nil
	}
	return p.Containers[i].Disturbed
}

// showDisturbed shows containers that do not run, or are paused, because of what others did. Their node puts that right
// by itself, unless the workload is suspended.
func (b *builder) showDisturbed(w *Workload, pods []*pod) {
	held := b.isHeld(w.Ref)
	for _, p := range pods {
		if p.Terminating || p.gone || p.ended() || p.stale {
			continue
		}
		for i := range p.Containers {
			c := &p.Containers[i]
			d := c.Disturbed
			if d == nil || d.By == ByProcess || c.State == Running && !c.Paused {
				continue
			}
			healed := "started again by its node"
			if c.Paused || held {
				healed = ""
			}
			b.drifted(Drift{Ref: p.Ref(), Message: fmt.Sprintf("container %s %s", c.Name, d.What), Healed: healed, By: d.By, Action: d.Action})
		}
	}
}

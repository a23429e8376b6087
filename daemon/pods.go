package daemon

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"strings"

	"github.com/fairlead-dev/fairlead/daemon/telemetry"
	"github.com/fairlead-dev/fairlead/plan"
)

// nodeChanged wakes the applications whose pods changed, and counts what was restarted.
func (s *System) nodeChanged() {
	state := s.observe(context.Background())
	groups := map[telemetry.PodGroup]int{}
	for i := range state.Pods {
		p := &state.Pods[i]
		groups[telemetry.PodGroup{Application: p.Application, Phase: string(p.Phase)}]++
	}
	s.recorder.SetPods(groups)
	s.recorder.SetEngineUp(state.Node, !state.Stale)
	s.mu.Lock()
	changed := map[string]bool{}
	comparePods(s.pods, state.Pods, func(before, now *plan.ObservedPod) {
		switch {
		case now == nil:
			changed[before.Application] = true
		case before == nil || signature(before) != signature(now):
			changed[now.Application] = true
		}
		if before != nil && now != nil {
			s.recorder.ContainerRestarted(now.Application, restarts(now)-restarts(before))
		}
	})
	for name, e := range s.applications {
		if changed[name] || state.Stale || s.silent {
			e.worker.Poke()
		}
	}
	s.pods, s.silent = state.Pods, state.Stale
	s.mu.Unlock()
	s.events.touch()
}

// comparePods calls each for every pod that came, went, or was published anew; the pod before is nil for one that came, the
// one now for one that went. Both lists are in the order in which nodes observe pods. A pod that was not published
// since shares its memory with what it was, so that it costs a glance.
func comparePods(before, now []plan.ObservedPod, each func(before, now *plan.ObservedPod)) {
	for len(before)+len(now) > 0 {
		order := 0
		switch {
		case len(before) == 0:
			order = 1
		case len(now) == 0:
			order = -1
		default:
			a, b := &before[0], &now[0]
			order = cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name), strings.Compare(a.UID, b.UID))
		}
		switch {
		case order < 0:
			each(&before[0], nil)
			before = before[1:]
		case order > 0:
			each(nil, &now[0])
			now = now[1:]
		default:
			if !sameView(&before[0], &now[0]) {
				each(&before[0], &now[0])
			}
			before, now = before[1:], now[1:]
		}
	}
}

// sameView reports whether two observations of a pod are one and the same.
func sameView(a, b *plan.ObservedPod) bool {
	return len(a.Containers) > 0 && len(b.Containers) == len(a.Containers) && &a.Containers[0] == &b.Containers[0] &&
		a.Template == b.Template && a.Phase == b.Phase && a.Ready == b.Ready && a.Terminating == b.Terminating && a.Reason == b.Reason &&
		a.Finished.Equal(b.Finished) && reflect.ValueOf(a.Mounted).Pointer() == reflect.ValueOf(b.Mounted).Pointer()
}

// restarts counts the restarts of a pod's containers.
func restarts(p *plan.ObservedPod) int {
	n := 0
	for i := range p.Containers {
		n += p.Containers[i].Restarts
	}
	return n
}

// signature is everything of a pod that a plan can depend on.
func signature(p *plan.ObservedPod) string {
	var b strings.Builder
	fmt.Fprint(&b, p.Application, p.PodKey, p.UID, p.Template, p.Phase, p.Ready, p.Terminating, p.Reason, p.Finished, p.Mounted)
	for i := range p.Containers {
		c := &p.Containers[i]
		fmt.Fprint(&b, c.Name, c.ID, c.State, c.Ready, c.Restarts, c.ExitCode, c.Reason, c.Resources)
	}
	return b.String()
}

package reconcile

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// held is why a plan is not carried out.
type held struct {
	health Health
	reason string
	// still reports whether a plan that is computed later is held too.
	still func(Config, plan.Plan) bool
}

// heldByConfig holds an application that is suspended, or waits to be asked.
func heldByConfig(c Config) held {
	h := held{Progressing, "OutOfSync", func(c Config, _ plan.Plan) bool { return c.Suspend || c.Manual }}
	if c.Suspend {
		h.health, h.reason = Suspended, "Suspended"
	}
	return h
}

// heldByFailure holds an application that has failed.
func (a *Application) heldByFailure(c Config) held {
	h := held{still: func(Config, plan.Plan) bool { return true }}
	h.health, h.reason, _ = a.aim.said(c, Failed, "", "")
	return h
}

// heldByDependency holds what depends on an application that is not ready.
func (a *Application) heldByDependency(d Dependency) held {
	h := held{Progressing, "DependencyNotReady", func(c Config, _ plan.Plan) bool { return !a.dependencies(c).Ready }}
	if d.Failed {
		h.health, h.reason = Degraded, "DependencyFailed"
	}
	return h
}

// heldByApproval holds a plan of which nothing is carried out without an approval.
func heldByApproval() held {
	return held{Degraded, "Blocked", func(_ Config, p plan.Plan) bool { return p.Blocked.Whole() }}
}

// heldByRules holds a plan of which something is forbidden.
func heldByRules() held {
	return held{Failed, "Forbidden", func(Config, plan.Plan) bool { return true }}
}

// heldByStage holds what comes after something that is not healthy yet.
func heldByStage() held {
	return held{Progressing, "WaitsForStage", func(_ Config, p plan.Plan) bool { return p.Open().Empty() }}
}

// bringBack makes the lost pods of an application again that is held. p is the plan that is held. done is false when
// there is nothing to bring back.
func (a *Application) bringBack(
	ctx context.Context, c Config, st Status, p plan.Plan, h held, said func(Health, string, string, time.Time) time.Time,
) (next time.Time, done bool) {
	if c.Frozen || c.Removed || p.Empty() {
		return time.Time{}, false
	}
	lost := a.lost(p)
	if lost.Empty() {
		a.failed, a.failures, a.walked, a.notUntil = nil, 0, nil, time.Time{}
		return time.Time{}, false
	}
	health, reason := h.health, h.reason
	now := time.Now()
	if again := targets(lost); !now.Before(a.notUntil) && maps.Equal(again, a.walked) {
		a.walked = nil
		a.failures++
		a.failed = errors.New("lost pods were made again, and are lost once more: " + pending(lost))
		a.notUntil = now.Add(backoff(a.failures, c.RetryInterval))
	}
	if now.Before(a.notUntil) && a.failed != nil {
		return said(health, reason, a.failed.Error()+"; held back: "+pending(p), earlier(a.notUntil, p.Wake)), true
	}
	st.Walking = true
	a.finish(st, health, reason, "pods were lost: "+pending(lost), time.Time{})
	report := a.walk(ctx, lost, func(ctx context.Context, c Config, wanted map[target]bool) bool {
		return a.foundAgain(ctx, c, h, wanted)
	})
	if ctx.Err() != nil {
		return time.Time{}, true
	}
	switch {
	case report.Superseded:
		a.failed, a.notUntil = nil, time.Time{}
	case report.Err != nil:
		a.failures++
		a.failed = report.Err
		a.notUntil = time.Now().Add(backoff(a.failures, c.RetryInterval))
	default:
		a.walked = targets(lost)
		a.failed, a.notUntil = nil, time.Time{}
	}
	return time.Now(), true
}

// lost is the part of what is held that makes lost pods again, as they were applied. A workload that is to change
// is as it was applied only where this process applied it, and a pod is left out whose ConfigMaps and Secrets are
// to change: what they were is nowhere any more.
func (a *Application) lost(held plan.Plan) plan.Plan {
	p, changed := held, map[object.Ref]bool{}
	for _, ch := range held.Changes {
		changed[ch.Ref] = ch.Action != plan.ActionNone
	}
	if base := a.applied; base.Complete && !sameDesired(base, a.aim.desired) {
		o := a.last.observed
		o.Now = time.Now()
		p = plan.Compute(base, o, a.options)
	}
	return onlyLost(p, changed)
}

// onlyLost keeps the creation of pods of workloads of which nothing else is to be done, and what it needs.
func onlyLost(p plan.Plan, changed map[object.Ref]bool) plan.Plan {
	whole := map[object.Ref]bool{}
	for _, ch := range p.Changes {
		whole[ch.Ref] = ch.Action == plan.ActionNone && len(ch.Pods) > 0 &&
			!slices.ContainsFunc(ch.Pods, func(c plan.PodChange) bool { return c.Action != plan.ActionCreate })
	}
	made, pulled, waits := map[plan.StepID]bool{}, map[plan.StepID]bool{}, map[plan.StepID]bool{}
	owners := map[object.Ref]bool{}
	for _, s := range p.Steps {
		waits[s.ID] = s.Op == plan.OpWaitReady
		if slices.ContainsFunc(s.After, func(id plan.StepID) bool { return waits[id] }) {
			continue // a StatefulSet's pod comes when the one before is ready, and then it is looked at again
		}
		if args, ok := s.Args.(plan.CreatePod); ok && whole[args.Pod.Owner] &&
			!slices.ContainsFunc(args.Pod.Configs, func(c plan.Config) bool { return changed[c.Ref] }) {
			made[s.ID], owners[args.Pod.Owner] = true, true
			for _, before := range s.After {
				pulled[before] = true
			}
		}
	}
	out := plan.Plan{Application: p.Application, Basis: p.Basis}
	for _, s := range p.Steps {
		_, pulls := s.Args.(plan.PullImage)
		if pulled[s.ID] = pulled[s.ID] && pulls; !pulled[s.ID] && !made[s.ID] {
			continue
		}
		s.After = slices.DeleteFunc(slices.Clone(s.After), func(id plan.StepID) bool { return !pulled[id] })
		out.Steps = append(out.Steps, s)
	}
	for _, ch := range p.Changes {
		if owners[ch.Ref] {
			out.Changes = append(out.Changes, ch)
		}
	}
	return out
}

// foundAgain reports whether something else is to be done than to make the lost pods of wanted again.
func (a *Application) foundAgain(ctx context.Context, c Config, h held, wanted map[target]bool) bool {
	if c.Frozen || c.Removed {
		return true
	}
	a.mu.Lock()
	asked := a.ask
	a.mu.Unlock()
	if asked {
		return true
	}
	if a.aim.held && !c.Suspend {
		a.render(ctx, c)
		if a.aim = a.aims(ctx, c); !a.aim.held {
			return true
		}
	}
	p, _ := a.compute(ctx, c, a.aim.desired)
	return !h.still(c, p) || !subset(targets(a.lost(p)), wanted)
}

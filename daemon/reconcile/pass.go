package reconcile

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/diag"
)

// pass is one look at an application: what each of its steps found, for those after it.
type pass struct {
	*Application
	asked, again bool // somebody asked for the plan, or for another try of what failed

	c         Config
	st        Status
	stale     problem // of the source
	to        aim
	permitted bool
	broken    bool // the newest revision cannot be rendered
	p, open   plan.Plan
	forbidden diag.List // of what the plan does
}

// pass looks once, carries out what is to be done, and returns when to look again.
func (a *Application) pass(ctx context.Context) time.Time {
	a.mu.Lock()
	ps := &pass{Application: a, c: a.config.at(time.Now()), asked: a.ask, again: a.again}
	a.ask, a.again = false, false
	a.mu.Unlock()
	ps.st.Config = ps.c
	for _, step := range []func(context.Context) (next time.Time, done bool){
		ps.loads, ps.renders, ps.plans, ps.holds, ps.lets, ps.may, ps.asks, ps.depends, ps.rests, ps.starts, ps.walks,
	} {
		if next, done := step(ctx); done {
			return next
		}
	}
	return time.Now() // observe and compute again
}

// said publishes what is to be said and returns next. What is broken is said whatever else is done about what was good before.
func (ps *pass) said(h Health, reason, detail string, next time.Time) time.Time {
	h, reason, detail = ps.to.said(ps.c, h, reason, detail)
	if ps.broken {
		h, reason, detail, next = Failed, "RenderFailed", summary(ps.rendered.diags), earlier(next, ps.rendered.retry)
	}
	return ps.finish(ps.st, h, reason, detail, next)
}

// unwritten says that something could not be written down, without which nothing follows.
func (ps *pass) unwritten(err error) (time.Time, bool) {
	return ps.finish(ps.st, Failed, "StateNotWritten", err.Error(), time.Now().Add(10*time.Second)), true
}

// loads reads the record, once.
func (ps *pass) loads(context.Context) (time.Time, bool) {
	a := ps.Application
	if !a.loaded {
		r, err := a.store.Load(ps.c.Name)
		if err != nil {
			return a.finish(ps.st, Failed, "StateDamaged", err.Error(), time.Now().Add(time.Minute)), true
		}
		a.record, a.loaded = r, true
		a.world.Claims().Recorded(ps.c.Name, r.Inventory)
	}
	ps.st.Applied, ps.st.AppliedAt = a.record.Revision, a.record.AppliedAt
	return time.Time{}, false
}

// renders renders the newest revision, and chooses what is aimed at.
func (ps *pass) renders(ctx context.Context) (time.Time, bool) {
	a, c := ps.Application, ps.c
	if ps.asked {
		a.rendered.retry = time.Time{}
	}
	source, stale := a.render(ctx, c)
	if ctx.Err() != nil {
		return time.Time{}, true
	}
	ps.stale = stale
	ps.st.Revision, ps.st.Committed, ps.st.Message = a.rendered.revision, source.Snapshot.Committed, firstLine(source.Snapshot.Message)
	if a.rendered.revision == "" && !c.Removed {
		return a.finish(ps.st, Failed, stale.reason, stale.detail, time.Time{}), true
	}
	to, err := a.chooses(ctx, c, ps.asked, ps.again)
	if err != nil {
		return ps.unwritten(err)
	}
	ps.to, ps.permitted, ps.broken = to, a.permitted(c, ps.asked), !a.rendered.ok
	ps.st.Desired, ps.st.Failure, ps.st.Back = to.desired, to.failed, to.back
	return time.Time{}, false
}

// plans computes the plan, and remembers what it found to be over before anything follows from that.
func (ps *pass) plans(ctx context.Context) (time.Time, bool) {
	a, desired := ps.Application, ps.to.desired
	p, took := a.compute(ctx, ps.c, desired)
	for tries := 0; ends(p) && tries < mostEnds; tries++ {
		// How a Job or a sync ended is remembered before anything follows from it: pods are the only other record.
		if err := a.recordFinished(p); err != nil {
			return ps.unwritten(err)
		}
		p, took = a.compute(ctx, ps.c, desired)
	}
	if moves := a.recordedMoves(); len(moves.Gone)+len(moves.Applied) > 0 {
		if err := a.save(a.record, moves); err != nil {
			return ps.unwritten(err)
		}
		p, took = a.compute(ctx, ps.c, desired)
	}
	ps.p, ps.open = p, p.Open()
	ps.st.Plan, ps.st.Planned, ps.st.Diags = p, took, findings(a.rendered, p)
	if !ps.c.Removed {
		judged := a.world.Judge(ps.c, p, desired)
		ps.st.Diags = append(slices.Clip(ps.st.Diags), judged...)
		ps.forbidden = slices.DeleteFunc(judged, func(d diag.Diagnostic) bool { return d.Severity != diag.Error })
	}
	if p.Empty() {
		a.applied, a.granted, a.retrySync = desired, "", false
	}
	return time.Time{}, false
}

// holds brings back what was lost of what is not changed otherwise: it has failed, is suspended, or waits to be asked.
func (ps *pass) holds(ctx context.Context) (time.Time, bool) {
	switch {
	case ps.to.held && !ps.c.Suspend:
		return ps.hold(ctx, ps.c, ps.to, ps.st, ps.p, ps.said)
	case ps.c.Suspend || ps.c.Manual && !ps.permitted:
		return ps.bringBack(ctx, ps.c, ps.st, ps.p, heldByConfig(ps.c), ps.said)
	}
	return time.Time{}, false
}

// lets lets a removed application go, and leaves alone what is not to be changed now.
func (ps *pass) lets(context.Context) (time.Time, bool) {
	a, c, p, now := ps.Application, ps.c, ps.p, time.Now()
	switch {
	case c.Removed && (len(p.Moves) > 0 || p.Waits != "") && (c.Orphan || p.Empty() && p.Blocked == nil):
		return ps.said(Progressing, "Moving", movingAway(p), earlier(now.Add(settleEvery), p.Wake)), true
	case c.Removed && (c.Orphan || (p.Empty() && p.Blocked == nil && len(a.silent) == 0)):
		if err := a.store.Delete(c.Name); err != nil {
			return ps.unwritten(err)
		}
		ps.st.Ended = true
		detail := "everything of the application is gone"
		if c.Orphan {
			detail = "the application is no longer declared; what it had runs on"
		}
		return a.finish(ps.st, Healthy, "Removed", detail, time.Time{}), true
	case c.Suspend:
		return ps.said(Suspended, "Suspended", suspended(c)+": "+pending(p), p.Wake), true
	case c.Manual && !ps.permitted && !p.Empty():
		return ps.said(Progressing, "OutOfSync", "waiting for `fairlead apply`: "+pending(p), p.Wake), true
	case !ps.open.Empty() && now.Before(a.notUntil) && !ps.asked:
		return ps.said(Degraded, "ApplyFailed", a.failed.Error(), earlier(a.notUntil, p.Wake)), true
	}
	return time.Time{}, false
}

// rulesCome is how long rules may come after what they allow, as when one commit brings both, before it counts as a failure.
const rulesCome = 5 * time.Second

// may carries nothing out of a plan of which something is forbidden. That is no fault of the revision: it goes on when the rules allow it.
func (ps *pass) may(ctx context.Context) (time.Time, bool) {
	a, now := ps.Application, time.Now()
	if len(ps.forbidden) == 0 {
		a.forbidden = time.Time{}
		return time.Time{}, false
	}
	if a.forbidden.IsZero() {
		a.forbidden = now
	}
	if next, done := ps.bringBack(ctx, ps.c, ps.st, ps.p, heldByRules(), ps.said); done {
		return next, true
	}
	if until := a.forbidden.Add(rulesCome); now.Before(until) {
		return ps.said(Progressing, "Forbidden", summary(ps.forbidden), earlier(until, ps.p.Wake)), true
	}
	return ps.said(Failed, "Forbidden", summary(ps.forbidden), ps.p.Wake), true
}

// asks waits for an approval without which nothing of the plan is carried out.
func (ps *pass) asks(ctx context.Context) (time.Time, bool) {
	if !ps.p.Blocked.Whole() {
		return time.Time{}, false
	}
	if next, done := ps.bringBack(ctx, ps.c, ps.st, ps.p, heldByApproval(), ps.said); done {
		return next, true
	}
	return ps.said(Degraded, "Blocked", blocked(ps.c.Name, ps.p.Blocked), ps.p.Wake), true
}

// depends waits for the applications that this one depends on.
func (ps *pass) depends(ctx context.Context) (time.Time, bool) {
	d := ps.dependencies(ps.c)
	if d.Ready || ps.p.Empty() || ps.c.Removed || ps.to.back {
		return time.Time{}, false
	}
	h := ps.heldByDependency(d)
	if next, done := ps.bringBack(ctx, ps.c, ps.st, ps.p, h, ps.said); done {
		return next, true
	}
	return ps.said(h.health, h.reason, d.Why, ps.p.Wake), true
}

// rests says how what runs is, and judges what is on trial, when nothing is to be done now.
func (ps *pass) rests(ctx context.Context) (time.Time, bool) {
	if !ps.open.Empty() {
		return time.Time{}, false
	}
	a, c := ps.Application, ps.c
	if !ps.p.Empty() {
		if next, done := a.bringBack(ctx, c, ps.st, ps.p, heldByStage(), ps.said); done {
			return next, true
		}
	}
	a.failed, a.failures, a.failing, a.walked, a.notUntil = nil, 0, time.Time{}, nil, time.Time{}
	health, reason, detail := rollup(ps.p, ps.stale)
	if len(a.silent) > 0 {
		return ps.said(Degraded, "NodeNotResponding", silence(a.silent), earlier(time.Now().Add(10*time.Second), ps.p.Wake)), true
	}
	wake := ps.p.Wake
	if a.onTrial(c, ps.to) {
		a.begin(c, ps.to)
		failed, until := a.verdict(c, ps.to, ps.p)
		if failed.reason != "" {
			return a.failedNow(c, ps.to, ps.st, failed), true
		}
		wake = earlier(until, wake)
	}
	if ps.p.Blocked != nil {
		return ps.said(Degraded, "Blocked", blocked(c.Name, ps.p.Blocked), wake), true
	}
	if ps.p.Waits != "" {
		return ps.said(Progressing, "DeletionWaits", movingAway(ps.p), earlier(time.Now().Add(settleEvery), wake)), true
	}
	// A rollout that was given up leaves nothing to do, and yet the revision does not run.
	if (ps.to.back || !ps.broken) && ps.p.Empty() && (health == Healthy || (ps.stale.reason != "" && reason == ps.stale.reason)) {
		to, err := a.succeed(c, ps.to)
		if ps.to = to; err != nil {
			return ps.unwritten(err)
		}
		ps.st.Applied, ps.st.AppliedAt, ps.st.Failure = a.record.Revision, a.record.AppliedAt, to.failed
	}
	return ps.said(health, reason, detail, wake), true
}

// starts does everything that comes before the first step of the plan: what is to be applied is in the record then.
func (ps *pass) starts(context.Context) (time.Time, bool) {
	a, c := ps.Application, ps.c
	if again := targets(ps.open); len(again) > 0 && maps.Equal(again, a.walked) && !ps.asked {
		// Every step of it succeeded just now, and it is to be done again: somebody undoes it, or it has no effect.
		a.walked = nil
		a.failures++
		a.failed = errors.New("the plan was carried out, and the same is to be done again: " + pending(ps.open))
		a.notUntil = time.Now().Add(backoff(a.failures, c.RetryInterval))
		return ps.said(Degraded, "NotConverging", a.failed.Error(), earlier(a.notUntil, ps.p.Wake)), true
	}
	if !a.takeOver(c, ps.p) {
		return time.Now(), true // somebody wants it again
	}
	if a.onTrial(c, ps.to) {
		a.begin(c, ps.to)
		ps.st.Failure = a.record.Failed
	}
	if err := a.recordIntent(ps.open, ps.to.desired); err != nil {
		return a.finish(ps.st, Failed, "StateNotWritten", err.Error()+"; nothing was changed", time.Now().Add(10*time.Second)), true
	}
	ps.st.Walking = true
	ps.said(Progressing, "Applying", pending(ps.open), time.Time{})
	if len(ps.open.Changes) == len(ps.p.Changes) {
		a.applied = ps.to.desired
	}
	return time.Time{}, false
}

// walks carries the plan out.
func (ps *pass) walks(ctx context.Context) (time.Time, bool) {
	a, c := ps.Application, ps.c
	report := a.walk(ctx, ps.open, a.overtaken)
	switch {
	case ctx.Err() != nil:
		return time.Time{}, true
	case report.Err != nil && !report.Superseded:
		if a.failures++; a.failing.IsZero() {
			a.failing = time.Now()
		}
		a.failed, a.granted = report.Err, ""
		a.notUntil = time.Now().Add(backoff(a.failures, c.RetryInterval))
		if failed := a.walkFailed(ctx, c, ps.to, report); failed.reason != "" {
			return a.failedNow(c, ps.to, ps.st, failed), true
		}
	default:
		if !report.Superseded {
			a.walked = targets(ps.open)
		}
		a.failed, a.failing, a.notUntil = nil, time.Time{}, time.Time{}
		if err := a.recordOutcome(ps.open, report, len(ps.open.Changes) == len(ps.p.Changes)); err != nil {
			return ps.unwritten(err)
		}
	}
	return time.Time{}, false
}

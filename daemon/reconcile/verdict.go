package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/fairlead-dev/fairlead/daemon/store"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/sources"
)

// Reasons of an application's status that follow from a revision that failed.
const (
	RevisionFailed = "RevisionFailed"
	RollingBack    = "RollingBack"
	RolledBack     = "RolledBack"
	RollbackFailed = "RollbackFailed"
)

// patience is how long a revision whose steps fail is tried again where no timeout is declared: as long as Kubernetes
// gives a rollout to come forward.
const patience = 10 * time.Minute

// verdict judges what is on trial when nothing is left to do: why it has failed, or until when it has time. It has failed
// when a Job, a Pod or the sync of it has, when a rollout made no progress for its deadline, and when it is not healthy within the
// timeout though the declaration waits for that.
func (a *Application) verdict(c Config, to aim, p plan.Plan) (failed problem, until time.Time) {
	now, since := time.Now(), a.since()
	if p.Failed != "" {
		if slices.ContainsFunc(p.Status, func(w plan.WorkloadStatus) bool { return Health(w.Health) == Progressing && w.Reason != "SyncFailed" }) {
			return problem{}, time.Time{} // hooks for that run
		}
		return problem{"SyncFailed", p.Failed}, time.Time{}
	}
	for _, w := range p.Status {
		switch Health(w.Health) {
		case Degraded:
			if w.Reason == "NotApplied" {
				continue // a finding says why
			}
			if end := since.Add(progressDeadline(to.desired, w)); now.Before(end) {
				until = earlier(end, until)
				continue
			}
			return problem{w.Reason, w.Ref.String() + ": " + w.Message}, time.Time{}
		case Progressing:
			if !c.Wait || c.Timeout <= 0 {
				continue
			}
			if end := since.Add(c.Timeout); now.Before(end) {
				until = earlier(end, until)
				continue
			}
			return problem{"HealthCheckFailed", fmt.Sprintf("not healthy within %s: %s: %s", c.Timeout, w.Ref, w.Message) + a.lastLog(w)}, time.Time{}
		case Healthy, Failed, Suspended:
		}
	}
	return problem{}, until
}

// progressDeadline is how long a workload that is degraded may still recover from when it had its first chance. What has
// ended for good may not at all.
func progressDeadline(d plan.Desired, w plan.WorkloadStatus) time.Duration {
	if w.Ref.Kind == "Job" || w.Ref.Kind == "Pod" && w.Failed > 0 {
		return 0
	}
	if at, ok := object.Find(d.Objects, objectName, w.Ref); ok {
		if v, ok := d.Objects[at].Value.(*appsv1.Deployment); ok && v.Spec.ProgressDeadlineSeconds != nil {
			return time.Duration(*v.Spec.ProgressDeadlineSeconds) * time.Second
		}
	}
	return patience
}

// lastLog are the last log lines of a pod of a workload that is not ready.
func (a *Application) lastLog(w plan.WorkloadStatus) string {
	for _, n := range a.last.observed.Nodes {
		for i := range n.Pods {
			p := &n.Pods[i]
			if p.Owner == w.Ref && !p.Ready && !p.Terminating && len(p.LogTail) > 0 {
				return "\nlast log lines of pod " + p.Name + ":\n" + strings.Join(p.LogTail, "\n")
			}
		}
	}
	return ""
}

// walkFailed judges what is on trial after a walk that failed: why it has failed, or nothing when it is tried again. What
// is the world's fault is tried for ever, and so is everything while a node does not answer.
func (a *Application) walkFailed(ctx context.Context, c Config, to aim, r Report) (failed problem) {
	switch {
	case !a.onTrial(c, to):
		return problem{}
	case r.Late:
	case errors.Is(r.Err, runtimes.ErrUnavailable), errors.Is(r.Err, runtimes.ErrDiskFull), errors.Is(r.Err, context.DeadlineExceeded):
		return problem{}
	case time.Since(a.failing) < cmp.Or(c.Timeout, patience):
		return problem{}
	}
	p, _ := a.compute(ctx, c, to.desired)
	if len(a.silent) > 0 || p.Open().Empty() && !p.Diags.HasErrors() {
		return problem{} // what nothing is left of to do is judged by its health
	}
	detail := r.Err.Error()
	for _, w := range p.Status {
		if h := Health(w.Health); (h == Progressing || h == Degraded) && w.Message != "" && w.Reason != "NotApplied" {
			detail += ": " + w.Ref.String() + ": " + w.Message
			if h == Progressing {
				detail += a.lastLog(w)
			}
			break
		}
	}
	return problem{"ApplyFailed", detail}
}

// fail remembers that what is on trial has failed, over a restart.
func (a *Application) fail(c Config, to aim, why problem) error {
	r := a.record
	r.Attempt = nil
	if to.back {
		f := *r.Failed
		f.BackReason, f.BackMessage = why.reason, why.detail
		r.Failed = &f
	} else {
		r.Failed = &store.Failure{
			Revision: string(to.revision), Content: to.content, How: howOf(c), At: time.Now().UTC(), Reason: why.reason, Message: why.detail,
		}
	}
	a.failed, a.failures, a.failing, a.walked, a.notUntil = nil, 0, time.Time{}, nil, time.Time{}
	return a.save(r, store.Change{Durable: true})
}

// failedNow remembers that what is on trial has failed, says so, and returns at once: what follows is decided anew.
func (a *Application) failedNow(c Config, to aim, st Status, why problem) time.Time {
	if err := a.fail(c, to, why); err != nil {
		return a.finish(st, Failed, "StateNotWritten", err.Error(), time.Now().Add(10*time.Second))
	}
	st.Failure = a.record.Failed
	// Whoever waits for the end of a pass waits for the way back too.
	st.Walking = !to.back && a.goesBack(c)
	to.failed, to.held = a.record.Failed, true
	h, reason, detail := to.said(c, Failed, "", "")
	a.finish(st, h, reason, detail, time.Time{})
	return time.Now()
}

// wentBack remembers that the application is back at the last good revision.
func (a *Application) wentBack() error {
	if !a.record.Failed.BackAt.IsZero() {
		return nil
	}
	r := a.record
	f := *r.Failed
	f.BackAt, f.BackReason, f.BackMessage = time.Now().UTC(), "", ""
	r.Failed, r.Attempt = &f, nil
	return a.save(r, store.Change{Durable: true})
}

// said is what is said of an application whose newest revision has failed, where something else would be said of what is
// aimed at.
func (to aim) said(c Config, h Health, reason, detail string) (Health, string, string) {
	f := to.failed
	if f == nil || h == Suspended {
		return h, reason, detail
	}
	what := fmt.Sprintf("revision %s failed (%s)", sources.Revision(f.Revision).Short(), f.Reason)
	until := fmt.Sprintf("until Git or its declaration moves, or `fairlead reconcile %s`", c.Name)
	back := sources.Revision(f.Back).Short()
	switch {
	case to.gone != nil:
		return Failed, RollbackFailed, fmt.Sprintf("%s, and the application cannot go back: %v; what runs is left as it is %s: %s", what, to.gone, until, f.Message)
	case to.held && f.BackReason != "":
		return Failed, RollbackFailed, fmt.Sprintf("%s, and going back to %s failed as well (%s): %s; nothing is tried again %s: %s", what, back, f.BackReason, f.BackMessage, until, f.Message)
	case to.held:
		return Failed, RevisionFailed, fmt.Sprintf("%s and is not tried again %s: %s", what, until, f.Message)
	case f.BackAt.IsZero():
		if detail != "" {
			detail = ": " + detail
		}
		return Degraded, RollingBack, fmt.Sprintf("%s, so the application goes back to %s%s: %s", what, to.revision.Short(), detail, f.Message)
	case h != Healthy && detail != "":
		return Degraded, RolledBack, fmt.Sprintf("%s, so the application is back at %s %s; of that, %s: %s: %s", what, back, until, reason, detail, f.Message)
	default:
		return Degraded, RolledBack, fmt.Sprintf("%s, so the application is back at %s %s: %s", what, back, until, f.Message)
	}
}

// hold keeps what failed as it is. done is false when it came well by itself, so that it counts as good.
func (a *Application) hold(
	ctx context.Context, c Config, to aim, st Status, p plan.Plan, said func(Health, string, string, time.Time) time.Time,
) (next time.Time, done bool) {
	health, reason, detail := rollup(p, problem{})
	if p.Empty() && p.Blocked == nil && health == Healthy && len(a.silent) == 0 {
		return time.Time{}, false
	}
	if next, done := a.bringBack(ctx, c, st, p, a.heldByFailure(c), said); done {
		return next, true
	}
	return said(health, reason, detail, earlier(p.Wake, a.absent.again)), true
}

package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// A hook is a Job or Pod that runs once in each sync of its application, in the phases that it names. A sync begins when
// the application wants something else than in the last one, and ends when everything is applied and healthy, or when
// a hook or something of an earlier stage failed for good. That it has begun is recorded together with what is applied
// first, that it has ended before anything follows from it; which run of a hook its inventory entry is about is recorded
// before the run is made. So a restart in the middle of a sync goes on with it, and runs no hook twice.

// hooks is what the planner knows of the sync.
type hooks struct {
	// sync is the one that is under way, or the last one; nil where there are no hooks, or never was a sync.
	sync *SyncState
	// begins: it is not recorded yet.
	begins bool
	// runs are the runs that pods of hooks belong to; those of other runs are of earlier ones.
	runs map[object.Ref]HookRun
	// planned are the stages in which hooks were planned. A hook that runs in several phases is planned in one at a time.
	planned map[object.Ref]Stage
	// failed says why the sync fails now.
	failed string
}

// beginSync finds out which sync is under way. recorded is the newest one, nil for none; retry begins one that failed anew.
func (b *builder) beginSync(recorded *SyncState, retry bool) {
	h := &b.staging.hooks
	h.runs, h.planned = map[object.Ref]HookRun{}, map[object.Ref]Stage{}
	any, unknown := false, false
	for r, o := range b.desired.Orders {
		if o.hook(r) && !o.Skip {
			any = true
			unknown = unknown || o.Hook.first() != SyncFail && b.appliedOf(r) == nil
		}
	}
	if !any || !b.desired.Complete {
		return
	}
	desired := b.desiredDigest()
	revision := b.desired.Application.Revision
	switch {
	case recorded == nil && !unknown && len(b.changes) == 0 && len(b.gone(b.inventory)) == 0:
		return // an earlier fairlead did all of it, and knew no hooks
	case recorded != nil && recorded.Desired == desired && (recorded.Failed == "" || !retry):
		h.sync = recorded
		return
	}
	before := ""
	if recorded != nil {
		before = recorded.ID
	}
	h.begins = true
	h.sync = &SyncState{ID: object.HashBytes([]byte(before + "\x00" + desired + "\x00" + revision))[:16], Desired: desired, Revision: revision, Begun: b.now}
	b.plan.Sync = h.sync
}

// desiredDigest identifies everything that the application wants.
func (b *builder) desiredDigest() string {
	d := sha256.New()
	for i := range b.desired.Objects {
		o := &b.desired.Objects[i]
		fmt.Fprintf(d, "%s\x00%s\x00%s\x00%s\x00%s\x00", o.Group, o.Kind, o.Namespace, o.Name, appliedHash(*o, b.opt.DigestKey))
	}
	return hex.EncodeToString(d.Sum(nil)[:16])
}

// hookStages returns the stages in which a hook can run now.
func (b *builder) hookStages(o Order) []Stage {
	s := b.staging.hooks.sync
	if s == nil {
		return nil
	}
	var out []Stage
	for _, p := range phases {
		if o.Hook.Has(p) && (p == SyncFail && s.Failed != "" || p != SyncFail && s.active()) {
			out = append(out, Stage{Phase: p, Wave: o.Wave})
		}
	}
	return out
}

// planHooks plans the hooks of the current stage.
func (b *builder) planHooks() {
	h := &b.staging.hooks
	if h.sync == nil {
		return
	}
	now := b.staging.now
	for i := range b.desired.Workloads {
		w := &b.desired.Workloads[i]
		o := b.orderOf(w.Ref)
		if _, done := h.planned[w.Ref]; done || !o.hook(w.Ref) || w.Pod.Spec == nil || !slices.Contains(b.hookStages(o), now) {
			continue
		}
		b.planHook(w, o, HookRun{Sync: h.sync.ID, Phase: now.Phase})
	}
}

// planHook runs a hook, unless it has run.
func (b *builder) planHook(w *Workload, o Order, run HookRun) {
	h := &b.staging.hooks
	if b.verdicts[w.Ref] == left {
		h.planned[w.Ref] = b.staging.now
		b.leftStatus(w, b.byOwner[w.Ref])
		return
	}
	have := b.appliedOf(w.Ref)
	if have != nil && have.Run.Sync == run.Sync {
		later := slices.ContainsFunc(b.hookStages(o), func(s Stage) bool { return s.Phase > run.Phase })
		switch {
		case have.Run.Phase > run.Phase, have.Run == run && have.Succeeded && later:
			return // it has run in this phase
		case have.Run == run:
			h.planned[w.Ref] = b.staging.now
			b.continueHook(w, o, have)
			if f, ended := b.endOf(w.Ref, have); ended && !f.Succeeded && run.Phase != SyncFail {
				b.hookFailed(run.Phase, f)
			}
			return
		}
	}
	h.planned[w.Ref] = b.staging.now
	b.startHook(w, run)
}

// startHook makes a run of a hook begin.
func (b *builder) startHook(w *Workload, run HookRun) {
	b.verdicts[w.Ref] = forced
	b.staging.hooks.runs[w.Ref] = run
	c := b.change(w.Ref)
	c.Action, c.Origin, c.Hook = ActionCreate, w.Origin, run
	c.Cause = "runs as " + run.Phase.String() + " hook"
	from := len(b.plan.Status)
	if b.wait() != 0 {
		b.staging.waiting[w.Ref] = b.staging.barrier
		if b.stopRuns(w) {
			b.status(WorkloadStatus{Ref: w.Ref, Desired: 1})
			b.showWaiting(from)
			return
		}
	}
	b.under(true, func() { b.planRun(w) })
	b.showWaiting(from)
}

// stopRuns stops what still runs of a hook whose sync is over, and reports whether anything did.
func (b *builder) stopRuns(w *Workload) bool {
	found := false
	for _, p := range b.byOwner[w.Ref] {
		if p.active() {
			found = b.removeJobPod(w, p, "the sync that it ran in is over") != 0 || found
		}
	}
	return found
}

// planRun plans the pods of a hook.
func (b *builder) planRun(w *Workload) {
	switch v := w.Value.(type) {
	case *batchv1.Job:
		planJob(b, w, v, b.byOwner[w.Ref])
	case *corev1.Pod:
		b.planHookPod(w)
	}
}

// continueHook goes on with a run, and removes its pods after it where the hook asks for that.
func (b *builder) continueHook(w *Workload, o Order, have *Applied) {
	b.staging.hooks.runs[w.Ref] = have.Run
	b.planRun(w)
	if have.Finished.IsZero() {
		return
	}
	b.plan.Unchanged++
	cause := "the hook succeeded, and its delete policy is HookSucceeded"
	if !have.Succeeded {
		cause = "the hook failed, and its delete policy is HookFailed"
	}
	if have.Succeeded && !o.DeleteSucceeded || !have.Succeeded && !o.DeleteFailed {
		return
	}
	for _, p := range b.byOwner[w.Ref] {
		if !p.Terminating && !p.gone {
			b.removeJobPod(w, p, cause)
		}
	}
}

// endOf is how a run of a hook ended: as it is recorded, or as this plan has found.
func (b *builder) endOf(r object.Ref, have *Applied) (Finish, bool) {
	if !have.Finished.IsZero() {
		return Finish{Ref: r, At: have.Finished, Succeeded: have.Succeeded, Reason: have.FinishReason, Message: have.FinishMessage}, true
	}
	i := slices.IndexFunc(b.plan.Finished, func(f Finish) bool { return f.Ref == r })
	if i < 0 {
		return Finish{}, false
	}
	return b.plan.Finished[i], true
}

func (b *builder) hookFailed(in Phase, f Finish) {
	h := &b.staging.hooks
	if h.failed != "" {
		return
	}
	h.failed = fmt.Sprintf("%s hook %s failed: %s", in, f.Ref, f.Reason)
	if f.Message != "" {
		h.failed += ": " + f.Message
	}
}

// stageFailed ends the sync because something of a stage will not become healthy.
func (b *builder) stageFailed(u unsettled) {
	if h := &b.staging.hooks; h.sync.active() && h.failed == "" {
		h.failed = fmt.Sprintf("%s is not healthy: %s", u.ref, u.message)
	}
}

// planIdleHooks sums up the hooks that do not run in any stage now. What still runs of an earlier sync is stopped.
func (b *builder) planIdleHooks() {
	h := &b.staging.hooks
	for i := range b.desired.Workloads {
		w := &b.desired.Workloads[i]
		o := b.orderOf(w.Ref)
		if _, done := h.planned[w.Ref]; done || !o.hook(w.Ref) || w.Pod.Spec == nil {
			continue
		}
		if b.verdicts[w.Ref] == left {
			b.leftStatus(w, b.byOwner[w.Ref])
			continue
		}
		have := b.appliedOf(w.Ref)
		switch {
		case have == nil:
			b.plan.Unchanged++
			b.stopRuns(w)
			b.status(WorkloadStatus{Ref: w.Ref, Health: "Healthy", Reason: "HookNotDue", Message: "it runs in " + hookTimes(o)})
		case h.sync == nil || have.Run.Sync == h.sync.ID:
			b.continueHook(w, o, have)
		default:
			b.plan.Unchanged++
			b.stopRuns(w)
			b.status(WorkloadStatus{Ref: w.Ref, Health: "Healthy", Reason: "HookNotDue", Message: "it ran in an earlier sync, and runs in " + hookTimes(o)})
		}
	}
}

func hookTimes(o Order) string {
	var list []string
	for _, p := range phases {
		if o.Hook.Has(p) {
			list = append(list, p.String())
		}
	}
	return strings.Join(list, " and ")
}

// endSync ends the sync when everything of it is done, or when it failed.
func (b *builder) endSync() {
	h := &b.staging.hooks
	if !h.sync.active() {
		b.showFailed()
		return
	}
	if h.failed == "" && (len(b.staging.unsettled) > 0 || b.plan.Blocked != nil) {
		return
	}
	done := *h.sync
	done.Ended, done.Failed = b.now, h.failed
	b.plan.Sync = &done
}

// runTemplate is the Template of a hook's pod: that of another run is another.
func runTemplate(template string, run HookRun) string {
	if run == (HookRun{}) {
		return template
	}
	return object.HashBytes([]byte(template + "\x00" + run.Sync + "\x00" + run.Phase.String()))
}

// planHookPod runs a bare Pod as a hook, once.
func (b *builder) planHookPod(w *Workload) {
	key := PodKey{Namespace: w.Namespace, Name: w.Name}
	want := w.pod(key)
	want.Template = runTemplate(w.Pod.Template, b.staging.hooks.runs[w.Ref])
	op := b.podAt(key)
	if op != nil && op.Application != b.desired.Application.Name {
		b.diag(diag.Diagnostic{
			Severity: diag.Error, Code: "owned-elsewhere", Ref: w.Ref, Origin: w.Origin,
			Message: fmt.Sprintf("a pod of this name runs for application %s, so the hook does not run", op.Application),
			Hint:    "give it another name",
		})
		b.leftStatus(w, nil)
		return
	}
	have := b.appliedOf(w.Ref)
	starts := b.verdicts[w.Ref] == forced
	if !starts && have != nil && !have.Finished.IsZero() {
		b.status(finishedHook(w.Ref, have))
		return
	}
	s := WorkloadStatus{Ref: w.Ref, Desired: 1, Health: "Progressing", Reason: "Running", Message: "the hook does not run yet"}
	if !starts && op != nil && op.Template == want.Template {
		s = b.podStatus(w, op)
		if s.Health == "Healthy" && op.Phase != corev1.PodSucceeded {
			s.Health, s.Reason, s.Message = "Progressing", "Running", "the hook runs"
		}
	}
	b.status(s)
	cause := "the hook has not run"
	switch {
	case op == nil:
		if b.create(want, cause) != 0 {
			b.podChange(w.Ref, PodChange{Pod: key, Action: ActionCreate, Cause: cause})
		}
	case op.Terminating:
	case starts || op.Template != want.Template:
		old := b.remove(op, "it belongs to an earlier sync")
		if b.create(want, cause, old) != 0 {
			b.podChange(w.Ref, PodChange{Pod: key, Replaces: key, Action: ActionStopFirst, Node: op.node, Cause: cause})
		}
	case op.ended():
		f := Finish{Ref: w.Ref, At: op.Finished, Succeeded: op.Phase == corev1.PodSucceeded, Reason: "Succeeded"}
		if f.At.IsZero() {
			f.At = b.now
		}
		if !f.Succeeded {
			f.Reason, f.Message = reasonOf(op, "Failed"), finishMessage(messageOf(op), op)
		}
		b.plan.Finished = append(b.plan.Finished, f)
	}
}

func finishedHook(r object.Ref, have *Applied) WorkloadStatus {
	s := WorkloadStatus{Ref: r, Desired: 1, Health: "Healthy", Reason: have.FinishReason, Succeeded: 1}
	if !have.Succeeded {
		s.Health, s.Message, s.Succeeded, s.Failed = "Degraded", have.FinishMessage, 0, 1
	}
	return s
}

// maxFinishMessage bounds what is recorded of why something failed.
const maxFinishMessage = 2000

// finishMessage is what is recorded of a failure, with the last log lines of the pod that failed.
func finishMessage(message string, p *pod) string {
	if p != nil {
		message = withLog(message, p)
	}
	if len(message) > maxFinishMessage {
		message = strings.ToValidUTF8(message[:maxFinishMessage], "") + "…"
	}
	return message
}

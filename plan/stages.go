package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// What changes is applied stage by stage: by phase, then by wave. Before the steps of a stage there is one that waits
// until everything before it is healthy, and whatever changes in the stage comes after that one. What does not change
// waits for nothing: pods that are lost are made again whatever stage is under way.

// staging is what the planner knows of stages.
type staging struct {
	// several is false where everything is applied in one stage, and nothing waits.
	several bool
	stages  []Stage
	now     Stage
	// pruned are the stages of what is gone from the source.
	pruned map[object.Ref]Stage
	// barrier is the step that the current stage waits for; 0 before it is needed, and where nothing is waited for.
	barrier StepID
	// since and until are the steps that a barrier comes after.
	since, until int
	unsettled    []unsettled
	// waiting says for which changes which barrier stands.
	waiting map[object.Ref]StepID

	hooks hooks
}

// unsettled is something of an earlier stage that is not as it should be yet.
type unsettled struct {
	ref object.Ref
	// why says what is wrong on one line, message in full.
	why, message string
	// failed: it counts as broken. final: it will not become healthy by itself.
	failed, final bool
}

// orderOf returns the order of a desired object.
func (b *builder) orderOf(r object.Ref) Order { return b.desired.Orders[r] }

// stageOf returns the stage of what is desired and no hook, or is gone from the source.
func (b *builder) stageOf(r object.Ref) Stage {
	if s, gone := b.staging.pruned[r]; gone {
		return s
	}
	return b.orderOf(r).stage()
}

// planStages plans everything, stage by stage.
func (b *builder) planStages(sync *SyncState, retry bool) {
	st := &b.staging
	st.waiting = map[object.Ref]StepID{}
	b.beginSync(sync, retry)
	b.listStages()
	for _, s := range st.stages {
		b.begin(s)
		from := len(b.plan.Status)
		b.setStorage()
		b.setServices()
		b.planEndpoints()
		b.planWorkloads()
		b.planHooks()
		b.pruneObjects()
		if !st.several {
			b.pruneOrphans()
		}
		b.pruneServices(!st.several)
		b.pruneStorage()
		b.settle(from)
	}
	b.planIdleHooks()
	if st.several {
		b.pruneOrphans()
		b.pruneServices(true)
	}
	b.endSync()
}

// listStages finds the stages that there are. Things that are gone from the source go in the reverse order of their waves:
// what was applied last goes in the place of what was applied first.
func (b *builder) listStages() {
	st := &b.staging
	var list []Stage
	for i := range b.desired.Objects {
		r := b.desired.Objects[i].Ref
		switch o := b.orderOf(r); {
		case o.Skip:
		case o.hook(r):
			list = append(list, b.hookStages(o)...)
		default:
			list = append(list, o.stage())
		}
	}
	gone := b.gone(b.inventory)
	waves := make(map[object.Ref]Stage, len(gone))
	var all []Stage
	for _, a := range gone {
		s := Stage{Wave: orderOf(a.Written).Wave}
		waves[a.Ref], all = s, append(all, s)
	}
	all = sortedStages(all)
	if len(all) > 1 {
		for r, s := range waves {
			at, _ := slices.BinarySearchFunc(all, s, CompareStages)
			waves[r] = all[len(all)-1-at]
		}
	}
	st.pruned = waves
	st.stages = sortedStages(append(list, all...))
	if len(st.stages) == 0 {
		st.stages = []Stage{{}}
	}
	st.several = len(st.stages) > 1 || st.hooks.sync != nil
}

// begin begins a stage.
func (b *builder) begin(s Stage) {
	st := &b.staging
	if s.Phase == SyncFail && st.now.Phase != SyncFail {
		st.unsettled = nil // these come because something before them is not healthy
	}
	st.now, st.barrier, st.until = s, 0, len(b.steps)
}

// in reports whether something belongs to the stage that is planned now.
func (b *builder) in(r object.Ref) bool { return !b.staging.several || b.stageOf(r) == b.staging.now }

// waits reports whether what happens to an object has to wait for the stages before: it was changed, or something that
// its pods are made from.
func (b *builder) waits(r object.Ref) bool {
	if !b.staging.several {
		return false
	}
	v := b.verdicts[r]
	return v == changed || v == forced
}

// workloadWaits is waits for what runs pods.
func (b *builder) workloadWaits(w *Workload) bool {
	return b.waits(w.Ref) || b.staging.several && slices.ContainsFunc(w.Pod.Configs, func(c Config) bool { return b.waits(c.Ref) })
}

// closed says why nothing that changes may be applied any more; empty when it may.
func (b *builder) closed() string {
	if s := b.staging.hooks.sync; s != nil && s.Failed != "" {
		return s.Failed
	}
	return ""
}

// wait returns the step that what changes in this stage comes after; 0 when there is nothing to wait for.
func (b *builder) wait() StepID {
	st := &b.staging
	why := ""
	if st.now.Phase != SyncFail {
		why = b.closed()
	}
	if !st.several || st.barrier != 0 || len(st.unsettled) == 0 && why == "" {
		return st.barrier
	}
	refs := make([]object.Ref, len(st.unsettled))
	for i, u := range st.unsettled {
		refs[i] = u.ref
	}
	cause := fmt.Sprintf("%s begins when all before is healthy: %s", st.now, listedRefs(refs))
	if why != "" {
		cause = "the sync failed, so nothing more of this revision is applied: " + firstLineOf(why)
	}
	var after []StepID
	for i := st.since; i < st.until; i++ {
		after = append(after, b.steps[i].ID)
	}
	was := b.gate
	b.gate = 0
	st.barrier = b.step(Step{Op: OpWaitHealthy, Target: object.Ref{Kind: "Stage", Name: st.now.String()}, Cause: cause,
		Args: WaitHealthy{Stage: st.now, Objects: refs}}, after)
	b.gate = was
	st.since = int(st.barrier) - 1
	return st.barrier
}

func firstLineOf(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// listedRefs names a few objects.
func listedRefs(refs []object.Ref) string {
	const most = 3
	var names []string
	for _, r := range refs[:min(most, len(refs))] {
		names = append(names, r.String())
	}
	s := strings.Join(names, ", ")
	if n := len(refs) - most; n > 0 {
		s += fmt.Sprintf(" and %d more", n)
	}
	return s
}

// under plans what happens to something of the current stage. What waits comes after the stages before.
func (b *builder) under(waits bool, f func()) {
	was := b.gate
	b.gate = 0
	if waits {
		b.gate = b.wait()
	}
	f()
	b.gate = was
}

// planWorkloads plans the workloads of the current stage that are no hooks.
func (b *builder) planWorkloads() {
	for i := range b.desired.Workloads {
		w := &b.desired.Workloads[i]
		if w.Pod == nil || w.Pod.Spec == nil || b.orderOf(w.Ref).hook(w.Ref) || !b.in(w.Ref) {
			continue
		}
		waits := b.workloadWaits(w)
		if waits && b.wait() != 0 {
			b.staging.waiting[w.Ref] = b.staging.barrier
		}
		from := len(b.plan.Status)
		b.under(waits, func() { planWorkload(b, w, b.byOwner[w.Ref]) })
		b.showDisturbed(w, b.byOwner[w.Ref])
		if waits {
			b.showWaiting(from)
		}
	}
}

// showWaiting says of workloads whose stage has not begun what they wait for.
func (b *builder) showWaiting(from int) {
	st := &b.staging
	if st.barrier == 0 {
		return
	}
	for i := from; i < len(b.plan.Status); i++ {
		s := &b.plan.Status[i]
		s.Health, s.Reason, s.WaitsFor = "Progressing", "WaitsForStage", nil
		var first *unsettled
		for j := range st.unsettled {
			s.WaitsFor = append(s.WaitsFor, st.unsettled[j].ref)
			if u := &st.unsettled[j]; first == nil || u.failed && !first.failed {
				first = u
			}
		}
		switch {
		case b.closed() != "" && st.now.Phase != SyncFail:
			s.Reason, s.Message = "SyncFailed", firstLineOf(b.closed())
		case first != nil:
			s.Message = fmt.Sprintf("%s begins when %s is healthy: %s", st.now, first.ref, first.why)
		}
	}
}

// settle notes what of the current stage is not as it should be, so that the next one waits for it. The statuses from on
// are those of the stage.
func (b *builder) settle(from int) {
	st := &b.staging
	if !st.several {
		return
	}
	open := st.barrier == 0 && len(st.unsettled) == 0
	refs := b.stageChanges()
	for _, r := range refs {
		if c := b.changes[r]; c != nil {
			c.Stage, c.Wait = st.now, st.waiting[r]
			if b.waits(r) || b.isGone(r) {
				c.Wait = b.wait()
			}
		}
	}
	var found []unsettled
	for i := range b.plan.Status[from:] {
		s := &b.plan.Status[from+i]
		if s.Health != "Healthy" && !b.isHeld(s.Ref) {
			message := cmp.Or(s.Message, s.Reason)
			found = append(found, unsettled{ref: s.Ref, why: firstLineOf(message), message: message, failed: s.Health == "Degraded", final: s.Health == "Degraded" && b.final(s.Ref)})
		}
	}
	for _, r := range refs {
		at := slices.IndexFunc(found, func(u unsettled) bool { return u.ref == r })
		switch {
		case b.isHeld(r):
		case b.verdicts[r] == left && at < 0:
			const why = "what is in the source is not applied"
			found = append(found, unsettled{ref: r, why: why, message: why, failed: true, final: true})
		case b.verdicts[r] == left:
		case at < 0:
			found = append(found, unsettled{ref: r, why: "it is not applied yet"})
		default:
			found[at].failed, found[at].final = false, false // what is to be done to it may mend it
		}
	}
	if open && len(found) > 0 && !slices.ContainsFunc(found, func(u unsettled) bool { return !u.final }) {
		b.stageFailed(found[0])
	}
	st.unsettled = append(st.unsettled, found...)
}

// final reports whether a workload that counts as broken stays so: a Job that failed, a Pod that ended, and what was rolled out
// in this sync and was never ready. Of what was ready before it is not known.
func (b *builder) final(r object.Ref) bool {
	if b.verdicts[r] == left || r.Kind == "Job" {
		return true
	}
	s := b.staging.hooks.sync
	return slices.ContainsFunc(b.byOwner[r], func(p *pod) bool {
		return r.Kind == "Pod" && p.ended() || s != nil && !p.Terminating && p.ReadySince.IsZero() && p.Created.After(s.Begun)
	})
}

// stageChanges are the objects of the current stage to which something happens, and those that are left alone, sorted.
func (b *builder) stageChanges() []object.Ref {
	var refs []object.Ref
	for r, c := range b.changes {
		if (c.Action != ActionNone || len(c.Pods) > 0) && b.inStage(r) {
			refs = append(refs, r)
		}
	}
	for r, v := range b.verdicts {
		if v == left && b.inStage(r) {
			refs = append(refs, r)
		}
	}
	slices.SortFunc(refs, object.Compare)
	return slices.Compact(refs)
}

// inStage is in for hooks too.
func (b *builder) inStage(r object.Ref) bool {
	if b.orderOf(r).hook(r) {
		run, planned := b.staging.hooks.planned[r]
		return planned && run == b.staging.now
	}
	return b.in(r)
}

func (b *builder) isGone(r object.Ref) bool {
	_, gone := b.staging.pruned[r]
	return gone
}

// Open returns the part of the plan that can be carried out now: without what waits for something before it to be
// healthy. When that is so is found by observing, and computing again.
func (p Plan) Open() Plan {
	behind := make(map[StepID]bool)
	steps := make([]Step, 0, len(p.Steps))
	for _, s := range p.Steps {
		if s.Op == OpWaitHealthy || slices.ContainsFunc(s.After, func(id StepID) bool { return behind[id] }) {
			behind[s.ID] = true
			continue
		}
		steps = append(steps, s)
	}
	waits := func(c Change) bool { return c.Wait != 0 }
	if len(behind) == 0 && !slices.ContainsFunc(p.Changes, waits) {
		return p
	}
	p.Steps, p.Changes = steps, slices.DeleteFunc(slices.Clone(p.Changes), waits)
	return p
}

// showFailed says that the sync has failed.
func (b *builder) showFailed() {
	why := b.closed()
	if why == "" {
		return
	}
	b.plan.Failed = why
	b.diag(diag.Diagnostic{
		Severity: diag.Warning, Code: "sync-failed", Message: "the sync failed, and nothing more of it is applied: " + why,
		Hint: fmt.Sprintf("it is tried again when Git or the declaration moves, or by `fairlead reconcile %s`", b.desired.Application.Name),
	})
}

package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// planJob runs the pods of a Job until enough have succeeded or too many failed. What was decided for good
// is in the inventory (Applied.Finished) before anything is deleted: until then the pods are the only record.
func planJob(b *builder, w *Workload, job *batchv1.Job, pods []*pod) {
	k := newJobRun(b, w, job)
	old := k.sort(pods)
	var after []StepID // the deletions of an earlier run's pods
	cause := "it belongs to an earlier version of the job"
	if k.hook != (HookRun{}) {
		cause = "it belongs to an earlier run of the hook"
	}
	for _, p := range old {
		after = append(after, b.removeJobPod(w, p, cause))
	}
	have := b.appliedOf(w.Ref)
	if have != nil && !have.Finished.IsZero() && b.verdicts[w.Ref] != forced {
		k.finished(have)
		return
	}
	k.count()
	outcome := k.outcome()
	k.status(outcome)
	switch {
	case outcome.ended:
		f := Finish{Ref: w.Ref, At: outcome.at, Succeeded: outcome.succeeded, Reason: outcome.reason}
		if !f.Succeeded {
			f.Message = finishMessage(outcome.message, k.lastFailed())
		}
		b.plan.Finished = append(b.plan.Finished, f)
		// The pods that still run are stopped when this is recorded.
		b.wakeAt(b.now.Add(time.Second))
	case k.suspended():
		for _, p := range k.active {
			b.removeJobPod(w, p, "the job is suspended")
		}
	default:
		k.run(after)
	}
}

// removeJobPod deletes a pod and shows it.
func (b *builder) removeJobPod(w *Workload, p *pod, cause string) StepID {
	id := b.remove(p, cause)
	if id != 0 {
		b.podChange(w.Ref, PodChange{Pod: p.PodKey, Action: ActionDelete, Node: p.node, Cause: cause})
	}
	return id
}

// jobRun is one Job and what was observed of it.
type jobRun struct {
	b    *builder
	w    *Workload
	spec *batchv1.JobSpec
	uid  string
	hook HookRun // when the job runs as a hook

	parallelism int
	// completions is how many pods must succeed; -1 when any success ends the job.
	completions int
	indexed     bool

	pods        []*pod // of this run, terminating ones left out
	active      []*pod
	terminating int

	// succeeded and failed count pods; of an indexed job, succeeded counts indexes.
	succeeded, failed int
	ready             int
	succeededIndex    map[int]bool
	failedIndex       map[int]bool
	indexFailures     map[int]int
	// failures are the failed pods in the order in which they failed, those that are not counted included.
	failures []failure
	// failJob says which rule of the pod failure policy ends the job, and when.
	failJob   string
	failJobAt time.Time
	// start is when the first pod was made, lastSuccess when the last one succeeded.
	start, lastSuccess time.Time
}

// failure is one failed pod.
type failure struct {
	at    time.Time
	index int
}

func newJobRun(b *builder, w *Workload, job *batchv1.Job) *jobRun {
	k := &jobRun{
		b: b, w: w, spec: &job.Spec, parallelism: 1, completions: -1,
		indexed:        job.Spec.CompletionMode != nil && *job.Spec.CompletionMode == batchv1.IndexedCompletion,
		succeededIndex: map[int]bool{}, failedIndex: map[int]bool{}, indexFailures: map[int]int{},
	}
	if n := job.Spec.Parallelism; n != nil {
		k.parallelism = max(0, int(*n))
	}
	if n := job.Spec.Completions; n != nil {
		k.completions = max(0, int(*n))
	}
	if k.indexed && k.completions < 0 {
		k.completions = 1 // refused by validation
	}
	// While the object stays what was applied, so do its pods, also where a change of it is ignored. The inventory does not
	// know hidden values.
	written := w.Written
	if have := b.appliedOf(w.Ref); have != nil && b.verdicts[w.Ref] == same && len(w.Hidden) == 0 {
		written = have.Written
	}
	k.hook = b.staging.hooks.runs[w.Ref]
	k.uid = runUID(w.Ref, written, k.hook)
	return k
}

// sort takes the pods of this run and returns those of earlier ones.
func (k *jobRun) sort(pods []*pod) (old []*pod) {
	for _, p := range pods {
		switch {
		case !k.owns(p):
			if !p.Terminating {
				old = append(old, p)
			}
		case p.Terminating:
			k.terminating++
		default:
			k.pods = append(k.pods, p)
			if p.active() {
				k.active = append(k.active, p)
			}
		}
	}
	return old
}

// owns reports whether a pod belongs to this run of the job, and not to one that was replaced.
func (k *jobRun) owns(p *pod) bool {
	if k.b.verdicts[k.w.Ref] == forced {
		return false
	}
	if p.Labels[batchv1.ControllerUidLabel] == k.uid {
		return true
	}
	if k.hook != (HookRun{}) {
		return false // the same in another sync is another run
	}
	if p.Spec == nil {
		return p.Template == k.w.Pod.Template
	}
	return equality.Semantic.DeepEqual(identity(k.pod(p.PodKey, p.Index).Spec, false), identity(p.Spec, false))
}

// count sums up the pods of the run.
func (k *jobRun) count() {
	for _, p := range k.pods {
		if !p.Created.IsZero() && (k.start.IsZero() || p.Created.Before(k.start)) {
			k.start = p.Created
		}
		switch {
		case p.Phase == corev1.PodSucceeded:
			if p.Finished.After(k.lastSuccess) {
				k.lastSuccess = p.Finished
			}
			switch {
			case !k.indexed:
				k.succeeded++
			case p.Index >= 0 && p.Index < k.completions && !k.succeededIndex[p.Index]:
				k.succeededIndex[p.Index] = true
				k.succeeded++
			}
		case p.Phase == corev1.PodFailed:
			k.countFailure(p)
		case p.Ready:
			k.ready++
		}
	}
	slices.SortStableFunc(k.failures, func(x, y failure) int {
		return cmp.Or(x.at.Compare(y.at), cmp.Compare(x.index, y.index))
	})
	if limit := k.spec.BackoffLimitPerIndex; k.indexed && limit != nil {
		for i, n := range k.indexFailures {
			if n > int(*limit) {
				k.failedIndex[i] = true
			}
		}
	}
	for i := range k.succeededIndex {
		delete(k.failedIndex, i)
	}
}

func (k *jobRun) countFailure(p *pod) {
	k.failures = append(k.failures, failure{at: p.Finished, index: p.Index})
	action, why := failurePolicy(k.spec.PodFailurePolicy, p)
	if action == batchv1.PodFailurePolicyActionIgnore {
		return
	}
	k.failed++
	k.indexFailures[p.Index]++
	switch action {
	case batchv1.PodFailurePolicyActionFailJob:
		if k.failJob == "" || p.Finished.Before(k.failJobAt) {
			k.failJob, k.failJobAt = why, p.Finished
		}
	case batchv1.PodFailurePolicyActionFailIndex:
		if k.indexed {
			k.failedIndex[p.Index] = true
		}
	}
}

func (k *jobRun) suspended() bool { return k.spec.Suspend != nil && *k.spec.Suspend }

// run makes the pods that are missing and deletes those that are too many.
func (k *jobRun) run(after []StepID) {
	k.dropSurplus()
	want := k.wanted()
	if n := len(k.active) - want; n > 0 {
		for _, p := range victims(k.active, k.b.now, 0)[:n] {
			k.b.removeJobPod(k.w, p, fmt.Sprintf("the job wants %d pods at a time", want))
		}
	}
	for _, p := range k.active {
		if !p.gone {
			k.b.inPlace(k.w, k.pod(p.PodKey, p.Index), p)
		}
	}
	missing := want - len(k.active)
	if k.replacesOnlyFailed() {
		missing -= k.terminating
	}
	if missing <= 0 {
		return
	}
	if !k.indexed {
		if at := k.delay(k.failures, k.lastSuccess); at.After(k.b.now) {
			k.b.wakeAt(at)
			return
		}
		names := k.b.newNames(k.w.Namespace, k.w.Name, k.uid)
		for range min(missing, maxCreate) {
			k.create(names, -1, after)
		}
		return
	}
	k.runIndexes(min(missing, maxCreate), after)
}

// maxCreate bounds how many pods one plan creates; what is left comes with the next.
const maxCreate = 500

// runIndexes makes pods for the lowest indexes that have none.
func (k *jobRun) runIndexes(missing int, after []StepID) {
	busy := map[int]bool{}
	for _, p := range k.active {
		if !p.gone {
			busy[p.Index] = true
		}
	}
	perIndex := map[int][]failure{}
	for _, f := range k.failures {
		perIndex[f.index] = append(perIndex[f.index], f)
	}
	all := k.delay(k.failures, k.lastSuccess)
	for i := 0; i < k.completions && missing > 0; i++ {
		if busy[i] || k.succeededIndex[i] || k.failedIndex[i] {
			continue
		}
		at := all
		if k.spec.BackoffLimitPerIndex != nil {
			at = k.delay(perIndex[i], time.Time{})
		}
		if at.After(k.b.now) {
			k.b.wakeAt(at)
			continue
		}
		k.create(k.b.newNames(k.w.Namespace, indexedBase(k.w.Name, i), k.uid), i, after)
		missing--
	}
}

func (k *jobRun) create(names *nameSet, index int, after []StepID) {
	key := names.take()
	cause := fmt.Sprintf("%d of %d pods run", len(k.active), k.parallelism)
	if index >= 0 {
		cause = fmt.Sprintf("index %d has not succeeded", index)
	}
	if len(k.failures) > 0 && (index < 0 || k.indexFailures[index] > 0) {
		cause += ", and a pod failed before"
	}
	if k.b.create(k.pod(key, index), cause, after...) != 0 {
		k.b.podChange(k.w.Ref, PodChange{Pod: key, Action: ActionCreate, Cause: cause})
	}
}

// wanted is how many pods should be active now.
func (k *jobRun) wanted() int {
	if k.completions < 0 {
		if k.succeeded > 0 {
			return min(k.parallelism, len(k.active)) // those that run may end, and no other begins
		}
		return k.parallelism
	}
	return min(k.parallelism, k.completions-k.succeeded-len(k.failedIndex))
}

// dropSurplus deletes active pods of indexes that are done, out of range, or have an older pod.
func (k *jobRun) dropSurplus() {
	if !k.indexed {
		return
	}
	slices.SortStableFunc(k.active, func(x, y *pod) int {
		return cmp.Or(cmp.Compare(x.Index, y.Index), x.Created.Compare(y.Created), comparePods(x.ObservedPod, y.ObservedPod))
	})
	taken := map[int]bool{}
	kept := k.active[:0:0]
	for _, p := range k.active {
		i := p.Index
		if i < 0 || i >= k.completions || k.succeededIndex[i] || k.failedIndex[i] || taken[i] {
			if k.b.removeJobPod(k.w, p, fmt.Sprintf("index %d needs no other pod", i)) != 0 {
				continue
			}
		}
		taken[i] = true
		kept = append(kept, p)
	}
	k.active = kept
}

// replacesOnlyFailed reports whether a pod that is stopping counts until it is gone.
func (k *jobRun) replacesOnlyFailed() bool {
	if p := k.spec.PodReplacementPolicy; p != nil {
		return *p == batchv1.Failed
	}
	return k.spec.PodFailurePolicy != nil
}

// The back-off between a failure and the next pod: it doubles with every failure since the last success.
const (
	firstDelay = 10 * time.Second
	mostDelay  = 6 * time.Minute
)

// delay returns when the next pod may be made; zero for at once.
func (k *jobRun) delay(failures []failure, since time.Time) time.Time {
	n, last := 0, time.Time{}
	for _, f := range failures {
		if f.at.After(since) {
			n, last = n+1, f.at
		}
	}
	if n == 0 || last.IsZero() {
		return time.Time{}
	}
	d := mostDelay
	if n < 7 {
		d = min(mostDelay, firstDelay<<(n-1))
	}
	return last.Add(d)
}

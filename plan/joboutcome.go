package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// jobOutcome is whether a job has ended, and how.
type jobOutcome struct {
	ended, succeeded bool
	reason, message  string
	at               time.Time
}

// outcome decides whether the job has ended, in the order in which Kubernetes looks: its success
// criteria, the pod failure policy, the limits of failures, the deadline, the completions.
func (k *jobRun) outcome() jobOutcome {
	if why := k.successPolicy(); why != "" {
		return jobOutcome{ended: true, succeeded: true, reason: batchv1.JobReasonSuccessPolicy, message: why, at: k.lastEnd()}
	}
	if k.failJob != "" {
		return k.failedWith(batchv1.JobReasonPodFailurePolicy, k.failJob)
	}
	if limit := k.backoffLimit(); k.failed > limit {
		return k.failedWith(batchv1.JobReasonBackoffLimitExceeded, fmt.Sprintf("%d pods failed, and backoffLimit is %d", k.failed, limit))
	} else if n := k.restarted(); n > 0 && n >= limit {
		return k.failedWith(batchv1.JobReasonBackoffLimitExceeded, fmt.Sprintf("containers were restarted %d times, and backoffLimit is %d", n, limit))
	}
	if limit := k.spec.MaxFailedIndexes; limit != nil && len(k.failedIndex) > int(*limit) {
		return k.failedWith(batchv1.JobReasonMaxFailedIndexesExceeded, fmt.Sprintf("%d indexes failed, and maxFailedIndexes is %d", len(k.failedIndex), *limit))
	}
	if k.complete() {
		if n := len(k.failedIndex); n > 0 {
			return k.failedWith(batchv1.JobReasonFailedIndexes, fmt.Sprintf("%d of %d indexes failed", n, k.completions))
		}
		return jobOutcome{ended: true, succeeded: true, reason: batchv1.JobReasonCompletionsReached, at: k.lastEnd()}
	}
	if d := k.spec.ActiveDeadlineSeconds; d != nil && !k.start.IsZero() && !k.suspended() {
		until := k.start.Add(time.Duration(*d) * time.Second)
		if !k.b.now.Before(until) {
			o := k.failedWith(batchv1.JobReasonDeadlineExceeded, fmt.Sprintf("it ran longer than activeDeadlineSeconds, which is %d", *d))
			o.at = until
			return o
		}
		k.b.wakeAt(until)
	}
	return jobOutcome{}
}

// complete reports whether no pod is wanted any more.
func (k *jobRun) complete() bool {
	if k.completions >= 0 {
		return k.succeeded+len(k.failedIndex) >= k.completions
	}
	return k.succeeded > 0 && len(k.active) == 0
}

func (k *jobRun) failedWith(reason, message string) jobOutcome {
	return jobOutcome{ended: true, reason: reason, message: message, at: k.lastEnd()}
}

// lastEnd is when the last pod ended.
func (k *jobRun) lastEnd() time.Time {
	var last time.Time
	for _, p := range k.pods {
		if p.ended() && p.Finished.After(last) {
			last = p.Finished
		}
	}
	if last.IsZero() || last.After(k.b.now) {
		return k.b.now
	}
	return last
}

func (k *jobRun) backoffLimit() int {
	if n := k.spec.BackoffLimit; n != nil {
		return int(*n)
	}
	return 6
}

// restarted counts the restarts of containers in pods that run, for jobs whose pods restart on failure.
func (k *jobRun) restarted() int {
	if k.w.Pod.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return 0
	}
	n := 0
	for _, p := range k.active {
		n += restarts(p)
	}
	return n
}

// successPolicy says which rule of the success policy is met.
func (k *jobRun) successPolicy() string {
	if k.spec.SuccessPolicy == nil || !k.indexed {
		return ""
	}
	for i, r := range k.spec.SuccessPolicy.Rules {
		in := func(int) bool { return true }
		size := k.completions
		if r.SucceededIndexes != nil {
			set := indexRanges(*r.SucceededIndexes, k.completions)
			in = func(i int) bool {
				return slices.ContainsFunc(set, func(r [2]int) bool { return r[0] <= i && i <= r[1] })
			}
			size = 0
			for _, r := range set {
				size += r[1] - r[0] + 1
			}
		}
		have := 0
		for index := range k.succeededIndex {
			if in(index) {
				have++
			}
		}
		need := size
		if r.SucceededCount != nil {
			need = int(*r.SucceededCount)
		} else if r.SucceededIndexes == nil {
			continue
		}
		if need > 0 && have >= need {
			return fmt.Sprintf("rule %d of the success policy is met", i)
		}
	}
	return ""
}

// indexRanges reads "0,2-4" as closed ranges below n, in order and apart. What cannot be read is left out.
func indexRanges(s string, n int) [][2]int {
	var out [][2]int
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		a, err := strconv.Atoi(from)
		if err != nil || a < 0 {
			continue
		}
		b := a
		if isRange {
			if b, err = strconv.Atoi(to); err != nil {
				continue
			}
		}
		if b = min(b, n-1); b >= a {
			out = append(out, [2]int{a, b})
		}
	}
	slices.SortFunc(out, func(x, y [2]int) int { return cmp.Or(cmp.Compare(x[0], y[0]), cmp.Compare(x[1], y[1])) })
	joined := out[:0]
	for _, r := range out {
		if len(joined) > 0 && r[0] <= joined[len(joined)-1][1] {
			joined[len(joined)-1][1] = max(joined[len(joined)-1][1], r[1])
			continue
		}
		joined = append(joined, r)
	}
	return joined
}

// failurePolicy returns the action of the first rule that a failed pod matches; Count when none does.
func failurePolicy(policy *batchv1.PodFailurePolicy, p *pod) (batchv1.PodFailurePolicyAction, string) {
	if policy == nil {
		return batchv1.PodFailurePolicyActionCount, ""
	}
	for i, r := range policy.Rules {
		if r.OnExitCodes != nil {
			if c := exited(r.OnExitCodes, p); c != nil {
				return r.Action, fmt.Sprintf("container %s of pod %s ended with exit code %d, which rule %d of the pod failure policy names", c.Name, p.Name, c.ExitCode, i)
			}
		}
		for _, cond := range r.OnPodConditions {
			if cond.Type == corev1.DisruptionTarget && (cond.Status == corev1.ConditionTrue || cond.Status == "") && p.Reason == "Evicted" {
				return r.Action, fmt.Sprintf("pod %s was evicted, which rule %d of the pod failure policy names", p.Name, i)
			}
		}
	}
	return batchv1.PodFailurePolicyActionCount, ""
}

// exited returns the first container whose exit code the rule names.
func exited(r *batchv1.PodFailurePolicyOnExitCodesRequirement, p *pod) *ObservedContainer {
	for i := range p.Containers {
		c := &p.Containers[i]
		if c.State != Terminated || c.ExitCode == 0 || r.ContainerName != nil && *r.ContainerName != c.Name {
			continue
		}
		named := slices.Contains(r.Values, int32(c.ExitCode))
		if named == (r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn) {
			return c
		}
	}
	return nil
}

// finished is what is left to do for a job whose end is recorded: its pods that run are stopped, and all of
// them go when its time to live is over.
func (k *jobRun) finished(have *Applied) {
	k.count()
	o := k.outcome()
	if !o.ended || o.succeeded != have.Succeeded {
		// What is left of its pods does not tell any more.
		o = jobOutcome{ended: true, succeeded: have.Succeeded, reason: have.FinishReason}
		if !have.Succeeded {
			o.message = cmp.Or(have.FinishMessage, "the job failed")
		}
	}
	o.at = have.Finished
	if have.Succeeded && k.completions > 0 && o.reason == batchv1.JobReasonCompletionsReached {
		k.succeeded = k.completions // its pods can be gone
	}
	k.status(o)
	expired := false
	if ttl := k.spec.TTLSecondsAfterFinished; ttl != nil {
		until := have.Finished.Add(time.Duration(*ttl) * time.Second)
		expired = !k.b.now.Before(until)
		k.b.wakeAt(until)
	}
	for _, p := range k.pods {
		switch {
		case expired:
			k.b.removeJobPod(k.w, p, "the job ended, and ttlSecondsAfterFinished is over")
		case p.active():
			k.b.removeJobPod(k.w, p, "the job ended: "+o.reason)
		}
	}
}

// status reports the job as it was observed.
func (k *jobRun) status(o jobOutcome) {
	s := WorkloadStatus{
		Ref: k.w.Ref, Desired: k.completions, Current: len(k.active) + k.succeeded + k.failed, Updated: len(k.active),
		Ready: k.ready, Available: k.ready, Succeeded: k.succeeded, Failed: k.failed,
	}
	if k.completions < 0 {
		s.Desired = 1
	}
	switch {
	case o.ended && o.succeeded:
		s.Health, s.Reason, s.Message = "Healthy", o.reason, o.message
	case o.ended:
		s.Health, s.Reason, s.Message = "Degraded", o.reason, o.message
		if p := k.lastFailed(); p != nil {
			s.Message = withLog(s.Message, p)
		}
	case k.suspended():
		s.Health, s.Reason, s.Message = "Suspended", "JobSuspended", "spec.suspend is true"
	default:
		s.Health, s.Reason = "Progressing", "Running"
		s.Message = fmt.Sprintf("%d pods run, %d of %d have succeeded, %d failed", len(k.active), k.succeeded, s.Desired, k.failed)
		if p := k.lastFailed(); p != nil {
			s.Message = withLog(s.Message, p)
		}
	}
	k.b.status(s)
}

// lastFailed is the pod that failed last; nil when none did.
func (k *jobRun) lastFailed() *pod {
	var last *pod
	for _, p := range k.pods {
		if p.Phase == corev1.PodFailed && (last == nil || p.Finished.After(last.Finished)) {
			last = p
		}
	}
	return last
}

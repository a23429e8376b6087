package plan

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/fairlead-dev/fairlead/render/diag"
)

// planPod keeps a bare Pod running.
func planPod(b *builder, w *Workload, pods []*pod) {
	key := PodKey{Namespace: w.Namespace, Name: w.Name}
	want := w.pod(key)
	have := b.podAt(key)
	if have != nil && !have.ours {
		b.diag(diag.Diagnostic{
			Severity: diag.Error, Code: "owned-elsewhere", Ref: w.Ref, Origin: w.Origin,
			Message: fmt.Sprintf("a pod of this name runs for application %s, so application %s leaves it alone", have.Application, b.desired.Application.Name),
			Hint:    "give it another name, or remove it from one of the two",
		})
		b.leftStatus(w, nil)
		return
	}
	for _, p := range pods { // of this owner under another name: nothing makes such
		if p != have && !p.Terminating && b.remove(p, "it is not the pod that "+w.Ref.String()+" names") != 0 {
			b.podChange(w.Ref, PodChange{Pod: p.PodKey, Action: ActionDelete, Node: p.node, Cause: "it is not the pod that " + w.Ref.String() + " names"})
		}
	}
	b.status(b.podStatus(w, have))
	switch {
	case have == nil:
		cause := "it does not run"
		if b.create(want, cause) == 0 {
			return
		}
		b.podChange(w.Ref, PodChange{Pod: key, Action: ActionCreate, Cause: cause})
		if b.verdicts[w.Ref] == same {
			b.drift(w.Ref, "the pod is missing", "created again")
		}
	case have.Terminating:
		// Its name is free when it is gone.
	case have.Owner == w.Ref && (have.Template == want.Template || sameSpec(want, have)):
		b.inPlace(w, want, have)
	case have.Owner == w.Ref && !b.mayReplace(w, want, have):
		message := "a Pod's spec cannot be changed but for its images and resources; the pod runs on as it is"
		if name := restarting(want, have); name != "" {
			message = "resources of container " + name + " have the resizePolicy RestartContainer: their change needs a new pod, " +
				"which a Pod gets for its images only; the pod runs on as it is"
		}
		b.diag(diag.Diagnostic{
			Severity: diag.Error, Code: "immutable-field", Ref: w.Ref, Origin: w.Origin, Field: "spec",
			Message: message,
			Hint:    "use a Deployment, give the Pod another name, or let it be replaced with the annotation " + forceAnnotation + ": enabled",
		})
		delete(b.changes, w.Ref)
	default:
		cause := templateCause(have, w)
		deleted := b.remove(have, cause)
		if b.create(want, cause, deleted) != 0 {
			b.podChange(w.Ref, PodChange{Pod: key, Replaces: key, Action: ActionStopFirst, Node: have.node, Cause: cause, Downtime: true})
		} else if deleted != 0 {
			b.podChange(w.Ref, PodChange{Pod: key, Action: ActionDelete, Node: have.node, Cause: cause})
		}
	}
}

// sameSpec reports whether the pod was made from a spec that means the same as what is wanted.
func sameSpec(want *Pod, have *pod) bool {
	return have.Spec != nil && equality.Semantic.DeepEqual(identity(want.Spec, false), identity(have.Spec, false))
}

// mayReplace reports whether a running Pod may be replaced: when only images changed, or by force.
func (b *builder) mayReplace(w *Workload, want *Pod, have *pod) bool {
	if b.force(&w.Object) {
		return true
	}
	return have.Spec == nil || equality.Semantic.DeepEqual(identity(want.Spec, true), identity(have.Spec, true))
}

// restarting returns the first container whose resources cannot change without a restart, when such resources are
// all that keeps the pod from being what is wanted.
func restarting(want *Pod, have *pod) string {
	resized := func(spec *corev1.PodSpec) *corev1.PodSpec {
		s := spec.DeepCopy()
		for _, list := range [...][]corev1.Container{s.InitContainers, s.Containers} {
			for i := range list {
				list[i].ResizePolicy = nil
			}
		}
		return identity(s, true)
	}
	if have.Spec == nil || !equality.Semantic.DeepEqual(resized(want.Spec), resized(have.Spec)) {
		return ""
	}
	for _, c := range slices.Concat(want.Spec.InitContainers, want.Spec.Containers) {
		if slices.ContainsFunc(c.ResizePolicy, func(p corev1.ContainerResizePolicy) bool { return p.RestartPolicy == corev1.RestartContainer }) {
			return c.Name
		}
	}
	return ""
}

// podStatus sums up a bare Pod.
func (b *builder) podStatus(w *Workload, p *pod) WorkloadStatus {
	s := WorkloadStatus{Ref: w.Ref, Desired: 1, Health: "Progressing", Reason: "Creating", Message: "the pod does not run yet"}
	if p == nil {
		return s
	}
	if p.stale {
		s.Current, s.Reason, s.Message = 1, "NodeNotResponding", fmt.Sprintf("node %s does not answer", p.node)
		return s
	}
	if p.Terminating {
		s.Reason, s.Message = "Terminating", "the pod is stopping"
		return s
	}
	s.Current = 1
	if p.Template == w.Pod.Template {
		s.Updated = 1
	}
	switch {
	case p.Phase == corev1.PodSucceeded:
		s.Succeeded = 1
		s.Health, s.Reason, s.Message = "Healthy", "Succeeded", ""
	case p.Phase == corev1.PodFailed:
		s.Failed = 1
		s.Health, s.Reason, s.Message = "Degraded", reasonOf(p, "Failed"), withLog(messageOf(p), p)
	case p.Ready:
		s.Ready, s.Available = 1, 1
		s.Health, s.Reason, s.Message = "Healthy", "", ""
	default:
		s.Reason, s.Message = reasonOf(p, "NotReady"), messageOf(p)
		if deadline := p.Created.Add(podDeadline); b.now.Before(deadline) {
			b.wakeAt(deadline)
		} else {
			s.Health, s.Message = "Degraded", withLog(s.Message, p)
		}
	}
	return s
}

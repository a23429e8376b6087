package plan

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Workload is an object that runs pods.
type Workload struct {
	object.Object
	// Pod is what every pod of the workload is made from: it has no name but for a bare Pod, and Index -1.
	// Make one with pod; never modify it.
	Pod *Pod
}

// pod returns a pod of the workload with a name.
func (w *Workload) pod(key PodKey) *Pod {
	p := *w.Pod
	p.PodKey = key
	return &p
}

// Expand sorts an application's objects into what the planner works on. It is the only place
// that knows what a workload means.
func Expand(app Application, objs []object.Object, complete bool) (Desired, diag.List) {
	return new(Expander).Expand(app, objs, complete)
}

// withoutDuplicates keeps the first of objects with the same Ref.
func withoutDuplicates(objs []object.Object) ([]object.Object, diag.List) {
	var found diag.List
	for i := 1; i < len(objs); i++ {
		if objs[i].Ref != objs[i-1].Ref {
			continue
		}
		if found == nil {
			objs = slices.Clone(objs)
		}
		found = append(found, diag.Diagnostic{
			Severity: diag.Error, Code: "duplicate-object", Ref: objs[i].Ref, Origin: objs[i].Origin,
			Message: "the application has this object twice; it is also at " + objs[i-1].Origin.String(),
			Hint:    "remove one of them",
		})
		objs = slices.Delete(objs, i, i+1)
		i--
	}
	return objs, found
}

// workloadOf returns the workload that an object is; false for objects that run no pods.
func workloadOf(app Application, o object.Object) (Workload, bool) {
	w := Workload{Object: o}
	var meta map[string]string
	var annotations map[string]string
	var spec *corev1.PodSpec
	var at []string // where the template is written
	switch v := o.Value.(type) {
	case *corev1.Pod:
		if v == nil {
			return w, false
		}
		meta, annotations, spec = v.Labels, v.Annotations, &v.Spec
	case *appsv1.ReplicaSet:
		if v == nil {
			return w, false
		}
		meta, annotations, spec, at = v.Spec.Template.Labels, v.Spec.Template.Annotations, &v.Spec.Template.Spec, []string{"spec", "template"}
	case *appsv1.Deployment:
		if v == nil {
			return w, false
		}
		meta, annotations, spec, at = v.Spec.Template.Labels, v.Spec.Template.Annotations, &v.Spec.Template.Spec, []string{"spec", "template"}
	case *appsv1.StatefulSet:
		if v == nil {
			return w, false
		}
		meta, annotations, spec, at = v.Spec.Template.Labels, v.Spec.Template.Annotations, &v.Spec.Template.Spec, []string{"spec", "template"}
	case *appsv1.DaemonSet:
		if v == nil {
			return w, false
		}
		meta, annotations, spec, at = v.Spec.Template.Labels, v.Spec.Template.Annotations, &v.Spec.Template.Spec, []string{"spec", "template"}
	case *batchv1.Job:
		if v == nil {
			return w, false
		}
		meta, annotations, spec, at = v.Spec.Template.Labels, v.Spec.Template.Annotations, &v.Spec.Template.Spec, []string{"spec", "template"}
	default:
		return w, false
	}
	w.Pod = &Pod{
		PodKey:         PodKey{Namespace: o.Namespace},
		Application:    app.Name,
		SourceRevision: app.Revision,
		Owner:          o.Ref,
		Template:       templateHash(writtenTemplate(o.Written, at), at == nil),
		Labels:         meta,
		Annotations:    annotations,
		Spec:           spec,
		Index:          -1,
	}
	if at == nil {
		w.Pod.Name = o.Name
	}
	switch o.Value.(type) {
	case *appsv1.Deployment:
		w.Pod.Labels = with(meta, appsv1.DefaultDeploymentUniqueLabelKey, short(w.Pod.Template))
	case *appsv1.DaemonSet:
		w.Pod.Labels = with(meta, appsv1.DefaultDaemonSetUniqueLabelKey, short(w.Pod.Template))
	}
	return w, true
}

// with returns a copy of m that has one more entry.
func with(m map[string]string, key, value string) map[string]string {
	out := make(map[string]string, len(m)+1)
	for k, v := range m {
		out[k] = v
	}
	out[key] = value
	return out
}

// short is what a template's hash is shortened to in names and labels.
func short(template string) string { return template[:min(10, len(template))] }

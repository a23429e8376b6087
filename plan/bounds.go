package plan

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// maxPods is how many pods the workloads of one application may want together, Jobs left out. It is far above
// what the nodes can run, and keeps one number in a manifest from filling the memory of who plans it.
const maxPods = 10_000

// tooManyReplicas is what is wrong with a number of replicas.
func tooManyReplicas(_ path, v any) row {
	if n, ok := v.(int32); ok && n > maxPods {
		return row{support: refused, note: fmt.Sprintf("%d pods are more than one application may have", n), hint: fmt.Sprintf("the limit is %d", maxPods)}
	}
	return row{}
}

// wantedPods is how many pods a workload says that it wants; 0 for those that take some at a time.
func wantedPods(o object.Object) int {
	var n *int32
	switch v := o.Value.(type) {
	case *appsv1.Deployment:
		n = v.Spec.Replicas
	case *appsv1.ReplicaSet:
		n = v.Spec.Replicas
	case *appsv1.StatefulSet:
		n = v.Spec.Replicas
	case *appsv1.DaemonSet:
	default:
		return 0
	}
	if n == nil {
		return 1
	}
	return max(0, int(*n))
}

// tooManyPods reports the workload with which an application wants more pods than it may.
func tooManyPods(workloads []Workload) diag.List {
	total := 0
	for i := range workloads {
		w := &workloads[i]
		n := wantedPods(w.Object)
		if n > maxPods {
			continue // reported at its line
		}
		if total += n; total > maxPods {
			return diag.List{{
				Severity: diag.Error, Code: "too-many-pods", Ref: w.Ref, Origin: w.Origin, Field: "spec.replicas",
				Message: fmt.Sprintf("with its pods the application has more than %d", maxPods), Hint: "lower the replicas, or split the application",
			}}
		}
	}
	return nil
}

// bound is how many of the wanted pods are planned: all, unless the application has too many, which is an error
// elsewhere, and then nothing of the plan is carried out.
func (b *builder) bound(want int) int {
	want = max(0, min(want, maxPods-b.wanted))
	b.wanted += want
	return want
}

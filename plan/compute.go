package plan

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// Compute returns what is to be done so that what was observed becomes what is desired.
func Compute(d Desired, o Observed, opt Options) Plan {
	b := newBuilder(d, o, opt)
	for i := range d.Workloads {
		w := &d.Workloads[i]
		planWorkload(b, w, b.byOwner[w.Ref])
	}
	b.plan.Steps = b.steps
	return b.plan
}

// planWorkload calls the planner of the workload's family.
func planWorkload(b *builder, w *Workload, pods []*pod) {
	switch w.Value.(type) {
	case *corev1.Pod:
	case *appsv1.Deployment:
	case *appsv1.ReplicaSet:
	}
}

package plan

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/fairlead-dev/fairlead/render/diag"
)

// planReplicaSet keeps the wanted number of pods running. As in Kubernetes, a new template is for new
// pods only.
func planReplicaSet(b *builder, w *Workload, rs *appsv1.ReplicaSet, pods []*pod) {
	want := b.replicas(w, rs.Spec.Replicas)
	minReady := seconds(rs.Spec.MinReadySeconds)
	f := b.sortFleet(w, pods)
	s := b.fleetStatus(w, want, minReady, 0, &f)
	b.removeEnded(&f)
	if len(f.old) > 0 {
		if b.verdicts[w.Ref] == forced {
			b.recreate(w, &f, want, minReady, pods)
			b.status(s.WorkloadStatus)
			return
		}
		b.diag(diag.Diagnostic{
			Severity: diag.Info, Code: "template-for-new-pods", Ref: w.Ref, Origin: w.Origin, Field: "spec.template",
			Message: fmt.Sprintf("%d of its pods have an earlier template and keep it: a ReplicaSet uses its template for new pods only", len(f.old)),
			Hint:    "use a Deployment, or delete the pods",
		})
	}
	f.fresh = append(f.fresh, f.old...)
	f.old = nil
	b.scale(w, &f, want, minReady)
	for _, p := range f.fresh {
		if p.Template == w.Pod.Template {
			b.inPlace(w, w.Pod, p)
		}
	}
	b.status(s.WorkloadStatus)
}

package plan

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-dev/fairlead/render/diag"
)

// daemonSetDeadline is how long the update of a DaemonSet may make no progress before it has failed. Kubernetes has no such field.
const daemonSetDeadline = 10 * time.Minute

// planDaemonSet keeps one pod running on every node, which is one, and rolls a new template out.
func planDaemonSet(b *builder, w *Workload, d *appsv1.DaemonSet, pods []*pod) {
	const want = 1
	minReady := seconds(d.Spec.MinReadySeconds)
	f := b.sortFleet(w, pods)
	keeps := len(f.old) > 0 && d.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType && b.verdicts[w.Ref] != forced
	earlier := len(f.old)
	if keeps { // it is as it should be: nobody waits for another template
		f.fresh, f.old = append(f.fresh, f.old...), nil
	}
	s := b.fleetStatus(w, want, minReady, daemonSetDeadline, &f)
	b.removeEnded(&f)
	switch {
	case len(f.old) > 0 && b.verdicts[w.Ref] == forced:
		b.recreate(w, &f, want, minReady, pods)
	case keeps:
		s.Updated = max(0, s.Updated-earlier)
		b.diag(diag.Diagnostic{
			Severity: diag.Info, Code: "template-for-new-pods", Ref: w.Ref, Origin: w.Origin, Field: "spec.updateStrategy",
			Message: fmt.Sprintf("%d of its pods have an earlier template and keep it until they are deleted: its update strategy is OnDelete", earlier),
			Hint:    "delete the pods, or use RollingUpdate",
		})
		b.scale(w, &f, want, minReady)
	case len(f.old) > 0:
		surge, unavailable := daemonSetBounds(d)
		b.roll(w, surge, unavailable, &f, want, minReady, daemonSetDeadline, s.stalled)
	default:
		b.scale(w, &f, want, minReady)
	}
	for _, p := range f.fresh {
		if p.Template == w.Pod.Template {
			b.inPlace(w, w.Pod, p)
		}
	}
	b.status(s.WorkloadStatus)
}

// daemonSetBounds resolves maxSurge and maxUnavailable for one node as Kubernetes does: percentages are rounded up, and without either one pod
// may be unavailable.
func daemonSetBounds(d *appsv1.DaemonSet) (surge, unavailable int) {
	of := func(v *intstr.IntOrString) int {
		if v == nil {
			return 0
		}
		n, err := intstr.GetScaledValueFromIntOrPercent(v, 1, true)
		if err != nil {
			return 0
		}
		return min(max(0, n), 1)
	}
	if ru := d.Spec.UpdateStrategy.RollingUpdate; ru != nil {
		surge, unavailable = of(ru.MaxSurge), of(ru.MaxUnavailable)
	}
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, unavailable
}

package plan

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestDaemonSetBounds(t *testing.T) {
	of := func(v intstr.IntOrString) *intstr.IntOrString { return &v }
	for _, tt := range []struct {
		name               string
		ru                 *appsv1.RollingUpdateDaemonSet
		surge, unavailable int
	}{
		{"nothing is written", nil, 0, 1},
		{"neither is written", &appsv1.RollingUpdateDaemonSet{}, 0, 1},
		{"a small share is rounded up", &appsv1.RollingUpdateDaemonSet{MaxUnavailable: of(intstr.FromString("1%"))}, 0, 1},
		{"more than the nodes", &appsv1.RollingUpdateDaemonSet{MaxUnavailable: of(intstr.FromInt32(3))}, 0, 1},
		{"surge only", &appsv1.RollingUpdateDaemonSet{MaxSurge: of(intstr.FromString("10%")), MaxUnavailable: of(intstr.FromInt32(0))}, 1, 0},
		{"both are nothing", &appsv1.RollingUpdateDaemonSet{MaxSurge: of(intstr.FromInt32(0)), MaxUnavailable: of(intstr.FromString("0%"))}, 0, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &appsv1.DaemonSet{}
			d.Spec.UpdateStrategy.RollingUpdate = tt.ru
			if surge, unavailable := daemonSetBounds(d); surge != tt.surge || unavailable != tt.unavailable {
				t.Errorf("surge %d, unavailable %d, want %d and %d", surge, unavailable, tt.surge, tt.unavailable)
			}
		})
	}
}

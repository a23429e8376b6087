package plan_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/render/object"
)

// TestExpander holds that an Expander returns what Expand returns, whatever it was asked before, and
// leaves alone what it returned before.
func TestExpander(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	objs := map[int]object.Object{}
	var e plan.Expander
	app := shop
	for pass := range 300 {
		for range rnd.IntN(4) {
			k := rnd.IntN(12)
			name := fmt.Sprint("x", k/3)
			switch {
			case rnd.IntN(4) == 0:
				delete(objs, k)
			case k%3 == 0:
				objs[k] = plantest.ConfigMap(name, fmt.Sprint(rnd.IntN(3)))
			case k%3 == 1:
				objs[k] = plantest.Deployment(name, fmt.Sprint("web:", rnd.IntN(3)), 1, func(d *appsv1.Deployment) {
					for _, c := range []string{name, "x0"} {
						d.Spec.Template.Spec.Containers[0].EnvFrom = append(d.Spec.Template.Spec.Containers[0].EnvFrom, corev1.EnvFromSource{
							ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: c}},
						})
					}
				})
			default:
				objs[k] = plantest.ConfigMap("x0", fmt.Sprint("twice", rnd.IntN(2)))
			}
		}
		switch rnd.IntN(8) {
		case 0:
			app.Revision = fmt.Sprint(pass)
		case 1:
			app.Name = fmt.Sprint("shop", rnd.IntN(2))
		}
		var list []object.Object
		for k := range 12 {
			if o, ok := objs[k]; ok {
				list = append(list, o)
			}
		}
		want, wantDiags := plan.Expand(app, list, pass%5 > 0)
		got, gotDiags := e.Expand(app, list, pass%5 > 0)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("pass %d: got\n%+v\nwant\n%+v", pass, got, want)
		}
		if len(gotDiags)+len(wantDiags) > 0 && !reflect.DeepEqual(gotDiags, wantDiags) {
			t.Fatalf("pass %d: got findings\n%v\nwant\n%v", pass, gotDiags, wantDiags)
		}
	}
}

package plan_test

import (
	"fmt"
	"testing"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/plan/simulate"
	"github.com/fairlead-dev/fairlead/render/object"
)

// BenchmarkCompute plans for n objects: a ConfigMap, a Deployment and its two pods in turn.
func BenchmarkCompute(b *testing.B) {
	for _, n := range []int{500, 1000, 10_000, 50_000} {
		var objs []object.Object
		for i := range n / 2 {
			objs = append(objs, plantest.ConfigMap(fmt.Sprintf("config-%05d", i), "x"), plantest.Deployment(fmt.Sprintf("web-%05d", i), "web:1", 2, nil))
		}
		d, _ := plan.Expand(shop, objs, true)
		world := simulate.NewWorld(plan.Observed{Now: plantest.Now, Nodes: []plan.NodeState{{Node: plantest.Node}}})
		o := world.Observed()
		for i := range d.Workloads {
			w := d.Workloads[i]
			for j := range 2 {
				p := *w.Pod
				p.Name = fmt.Sprintf("%s-%d", w.Name, j)
				pod := simulate.Observe(&p, p.Name)
				pod.Ready, pod.ReadySince = true, plantest.Now
				o.Nodes[0].Pods = append(o.Nodes[0].Pods, pod)
			}
		}
		for _, obj := range d.Objects {
			o.Applied = append(o.Applied, plan.RedactApplied(obj, options.DigestKey))
		}
		changed := append([]object.Object(nil), objs...)
		changed[1] = plantest.Deployment("web-00000", "web:2", 2, nil)
		one, _ := plan.Expand(shop, changed, true)
		for _, c := range []struct {
			name    string
			desired plan.Desired
			steps   bool
		}{{"nothing", d, false}, {"one", one, true}} {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if p := plan.Compute(c.desired, o, options); p.Empty() == c.steps {
						b.Fatal(p.String())
					}
				}
			})
		}
		b.Run(fmt.Sprintf("expand/%d", n), func(b *testing.B) {
			for b.Loop() {
				plan.Expand(shop, objs, true)
			}
		})
		b.Run(fmt.Sprintf("expand-one/%d", n), func(b *testing.B) {
			var e plan.Expander
			e.Expand(shop, objs, true)
			for i := 0; b.Loop(); i++ {
				app := shop
				app.Revision = fmt.Sprint(i)
				e.Expand(app, [][]object.Object{objs, changed}[i%2], true)
			}
		})
	}
}

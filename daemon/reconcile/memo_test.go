package reconcile

import (
	"slices"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/render/object"
)

// TestMemo holds that the last plan is used again exactly as long as nothing it follows from is other than it was.
func TestMemo(t *testing.T) {
	app := plan.Application{Name: "shop", Revision: "a"}
	config := plantest.ConfigMap("settings", "1")
	expand := func(app plan.Application) plan.Desired {
		d, _ := plan.Expand(app, []object.Object{config}, true)
		return d
	}
	desired := expand(app)
	world := plan.Observed{
		Now:     plantest.Now,
		Nodes:   []plan.NodeState{{Node: plantest.Node, Pods: []plan.ObservedPod{{PodKey: plan.PodKey{Namespace: "other", Name: "x"}, Application: "other"}}}},
		Applied: []plan.Applied{plan.RedactApplied(config, nil)},
	}
	opt := plan.Options{Node: plantest.Node}
	for _, c := range []struct {
		name   string
		change func(d *plan.Desired, o *plan.Observed, m *memo)
		again  bool
	}{
		{"nothing", func(*plan.Desired, *plan.Observed, *memo) {}, false},
		{"time", func(_ *plan.Desired, o *plan.Observed, _ *memo) { o.Now = o.Now.Add(time.Hour) }, false},
		{"its moment", func(_ *plan.Desired, o *plan.Observed, m *memo) {
			m.plan.Wake = o.Now.Add(time.Minute)
			o.Now = o.Now.Add(time.Minute)
		}, true},
		{"before its moment", func(_ *plan.Desired, o *plan.Observed, m *memo) {
			m.plan.Wake = o.Now.Add(time.Minute)
			o.Now = o.Now.Add(time.Second)
		}, false},
		{"a clock set back", func(_ *plan.Desired, o *plan.Observed, _ *memo) { o.Now = o.Now.Add(-time.Second) }, true},
		{"revision", func(d *plan.Desired, _ *plan.Observed, _ *memo) {
			app := app
			app.Revision = "b"
			d.Application = app
		}, false},
		{"revision of what has hooks", func(d *plan.Desired, _ *plan.Observed, _ *memo) {
			app := app
			app.Revision = "b"
			d.Application, d.Orders = app, map[object.Ref]plan.Order{config.Ref: {Hook: 1}}
		}, true},
		{"revision and another setting", func(d *plan.Desired, _ *plan.Observed, _ *memo) {
			app := app
			app.Revision, app.Prune = "b", !app.Prune
			d.Application = app
		}, true},
		{"objects", func(d *plan.Desired, _ *plan.Observed, _ *memo) { d.Objects = slices.Clone(d.Objects) }, true},
		{"configs", func(d *plan.Desired, _ *plan.Observed, _ *memo) { d.Configs = expand(app).Configs }, true},
		{"completeness", func(d *plan.Desired, _ *plan.Observed, _ *memo) { d.Complete = false }, true},
		{"pods", func(_ *plan.Desired, o *plan.Observed, _ *memo) {
			o.Nodes = slices.Clone(o.Nodes)
			o.Nodes[0].Pods = slices.Clone(o.Nodes[0].Pods)
		}, true},
		{"the list of nodes", func(_ *plan.Desired, o *plan.Observed, _ *memo) { o.Nodes = slices.Clone(o.Nodes) }, false},
		{"silence", func(_ *plan.Desired, o *plan.Observed, _ *memo) {
			o.Nodes = slices.Clone(o.Nodes)
			o.Nodes[0].Stale = true
		}, true},
		{"inventory", func(_ *plan.Desired, o *plan.Observed, _ *memo) { o.Applied = slices.Clone(o.Applied) }, true},
		{"claims", func(_ *plan.Desired, o *plan.Observed, _ *memo) {
			o.Claims = map[object.Ref]string{config.Ref: "other"}
		}, true},
		{"steps", func(_ *plan.Desired, _ *plan.Observed, m *memo) { m.plan.Steps = []plan.Step{{ID: 1}} }, true},
		{"ended jobs", func(_ *plan.Desired, _ *plan.Observed, m *memo) { m.plan.Finished = []plan.Finish{{}} }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m memo
			if p, _ := m.compute(desired, world, opt); !p.Empty() {
				t.Fatalf("the first plan is not empty:\n%s", p)
			}
			d, o := desired, world
			c.change(&d, &o, &m)
			if got := !m.valid(d, o); got != c.again {
				t.Errorf("computed again: %t, want %t", got, c.again)
			}
			if p, _ := m.compute(d, o, opt); p.Application.Revision != d.Application.Revision {
				t.Errorf("the plan is of revision %q, want %q", p.Application.Revision, d.Application.Revision)
			}
		})
	}
}

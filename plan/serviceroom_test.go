package plan_test

import (
	"slices"
	"testing"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/plan/simulate"
)

// TestServicesSwapPorts holds that Services of one application can pass node ports on to each other: whoever lets go of
// one is set before whoever gets it, and only where each waits for the other one of them is ended for a moment.
func TestServicesSwapPorts(t *testing.T) {
	service := func(name, port string) string {
		return "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + ", namespace: shop}\n" +
			"spec: {type: NodePort, ports: [{port: 80, nodePort: " + port + "}]}\n---\n"
	}
	for _, c := range []struct {
		name, before, after string
		want                []plan.Op // in an order that no node refuses
	}{
		{"chain", service("a", "30001") + service("b", "30002"), service("a", "30002") + service("b", "30003"),
			[]plan.Op{plan.OpSetService, plan.OpSetService}},
		{"swap", service("a", "30001") + service("b", "30002"), service("a", "30002") + service("b", "30001"),
			[]plan.Op{plan.OpDeleteService, plan.OpSetService, plan.OpSetService}},
	} {
		t.Run(c.name, func(t *testing.T) {
			options := plan.Options{Node: plantest.Node, DigestKey: []byte("key"), Services: plantest.Ranges()}
			observed := plan.Observed{Now: plantest.Now, Nodes: []plan.NodeState{{Node: plantest.Node}}}
			desired := func(text string) plan.Desired {
				objs, err := manifests("desired", []byte(text))
				if err != nil {
					t.Fatal(err)
				}
				d, _ := plan.Expand(shop, objs, true)
				return d
			}
			was := desired(c.before)
			observed = simulate.Plan(was, observed, plan.Compute(was, observed, options), options.DigestKey)
			now := desired(c.after)
			p := plan.Compute(now, observed, options)
			var ops []plan.Op
			w := simulate.NewWorld(observed)
			for _, s := range p.Steps {
				ops = append(ops, s.Op)
				w.Do(s)
				ports := map[int32]string{}
				for _, svc := range w.Observed().Nodes[0].Services {
					port := svc.Spec.Ports[0].NodePort
					if other, taken := ports[port]; taken {
						t.Fatalf("after step %s both %s and %s have port %d\n%s", s, other, svc.Name, port, p)
					}
					ports[port] = svc.Name
				}
			}
			for _, s := range p.Steps[1:] {
				if len(s.After) == 0 {
					t.Errorf("step waits for nothing: %s", s)
				}
			}
			if !slices.Equal(ops, c.want) || p.Diags.HasErrors() {
				t.Fatalf("steps are %v, want %v\n%s%s", ops, c.want, p, p.Diags)
			}
			after := simulate.Plan(now, observed, p, options.DigestKey)
			if again := plan.Compute(now, after, options); !again.Empty() {
				t.Fatalf("a second plan is not empty:\n%s", plantest.Text(again, plantest.Now))
			}
		})
	}
}

package plan_test

import (
	"encoding/json"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/render/object"
)

// FuzzCompute holds that every input has a plan, whatever a Deployment, a Pod and a node look like.
func FuzzCompute(f *testing.F) {
	f.Add([]byte(`{"replicas":3,"strategy":{"rollingUpdate":{"maxSurge":"25%","maxUnavailable":-1}},"template":{"spec":{"containers":[{"name":"a","image":"b"}]}}}`),
		[]byte(`{"Nodes":[{"Node":"n1","Pods":[{"namespace":"shop","name":"one","Application":"shop","Owner":{"kind":"Pod","namespace":"shop","name":"one"},"Ready":true},
		{"namespace":"shop","name":"web-a","Application":"shop","Owner":{"group":"apps","kind":"Deployment","namespace":"shop","name":"web"},"Phase":"Failed"}]},{"Node":"n1","Stale":true}],
		"Applied":[{"kind":"Deployment","group":"apps","namespace":"shop","name":"web","hash":"x","written":"e30="},{"kind":"X","name":"y"},{"kind":"X","name":"y"}]}`), true)
	f.Add([]byte(`{"progressDeadlineSeconds":2147483646,"minReadySeconds":-1,"replicas":-4}`), []byte(`{}`), false)
	f.Fuzz(func(t *testing.T, spec, observed []byte, force bool) {
		var d appsv1.DeploymentSpec
		_ = json.Unmarshal(spec, &d)
		if d.Replicas != nil && *d.Replicas > 100 {
			*d.Replicas %= 100
		}
		var o plan.Observed
		_ = json.Unmarshal(observed, &o)
		pod := plantest.Object(object.Ref{Kind: "Pod", Namespace: "shop", Name: "one"}, "v1", &corev1.Pod{Spec: d.Template.Spec})
		objs := []object.Object{
			plantest.Deployment("web", "web:1", 1, func(v *appsv1.Deployment) { v.Spec = d }), pod, pod,
			{Ref: object.Ref{Kind: "Odd", Name: "odd"}},
		}
		app := shop
		app.Force = force
		desired, _ := plan.Expand(app, objs, true)
		p := plan.Compute(desired, o, options)
		seen := map[plan.StepID]bool{}
		for _, s := range p.Steps {
			for _, id := range s.After {
				if !seen[id] {
					t.Fatalf("step %d comes after step %d, which is not before it", s.ID, id)
				}
			}
			seen[s.ID] = true
		}
		if again := plan.Compute(desired, o, options); again.String() != p.String() || again.Basis != p.Basis {
			t.Fatalf("two plans:\n%s\n%s", p, again)
		}
	})
}

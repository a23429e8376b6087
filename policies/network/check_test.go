package network

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/render/object"
)

func TestLikelyMistakesAreFound(t *testing.T) {
	deployment := func(spec string) *appsv1.Deployment {
		v := &appsv1.Deployment{}
		if err := yaml.UnmarshalStrict([]byte(`{spec: {template: {metadata: {labels: {app: web}}, spec: `+spec+`}}}`), v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	web := deployment(`{containers: [{name: web, ports: [{name: http, containerPort: 80}]}]}`)
	running := []Pod{{Namespace: "shop", Name: "db", Labels: map[string]string{"app": "db"}}}
	for name, c := range map[string]struct {
		policy string
		web    *appsv1.Deployment
		want   []string
	}{
		"good":                  {`{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http}, {port: 81}]}]}`, web, nil},
		"a pod that runs":       {`{podSelector: {matchLabels: {app: db}}}`, web, nil},
		"nobody":                {`{podSelector: {matchLabels: {app: wbe}}}`, web, []string{"info: policies.yaml:7 spec.podSelector: it selects no pod of namespace shop now, so nothing follows from it"}},
		"a name nobody has":     {`{podSelector: {}, ingress: [{}, {ports: [{port: htp}]}]}`, web, []string{`warning: policies.yaml:7 spec.ingress[1].ports: no pod that it selects has a TCP port of the name "htp", so this lets nothing in`}},
		"a name of UDP":         {`{podSelector: {}, ingress: [{ports: [{port: http, protocol: UDP}]}]}`, web, []string{`warning: policies.yaml:7 spec.ingress[0].ports: no pod that it selects has a UDP port of the name "http", so this lets nothing in`}},
		"on the host's network": {`{podSelector: {matchLabels: {app: web}}}`, deployment(`{hostNetwork: true, containers: [{name: web}]}`), []string{"warning: policies.yaml:7 spec.podSelector: it means only pods on the host's network, which no policy bounds, as in Kubernetes"}},
	} {
		t.Run(name, func(t *testing.T) {
			policy := &networkingv1.NetworkPolicy{}
			if err := yaml.UnmarshalStrict([]byte(c.policy), &policy.Spec); err != nil {
				t.Fatal(err)
			}
			objects := []object.Object{
				{Ref: object.Ref{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "web"}, Value: c.web},
				{Ref: object.Ref{Group: Group, Kind: "NetworkPolicy", Namespace: "shop", Name: "p"}, Value: policy, Origin: object.Origin{Path: "policies.yaml", Line: 7}},
			}
			var got []string
			for _, d := range Check(objects, running) {
				got = append(got, string(d.Severity)+": "+d.Origin.String()+" "+d.Field+": "+d.Message)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

package daemon

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/settings"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Plans say under which names Consul will have their Services, and nothing without Consul.
func TestPlansSayWhatIsRegistered(t *testing.T) {
	ref := func(name string) object.Ref { return object.Ref{Kind: "Service", Namespace: "shop", Name: name} }
	svc := func(name, ip string) *plan.Service {
		return &plan.Service{Ref: ref(name), Spec: &corev1.ServiceSpec{ClusterIP: ip, Ports: []corev1.ServicePort{{Port: 80}}}}
	}
	plans := func() []api.ApplicationPlan {
		return []api.ApplicationPlan{{Name: "shop", Plan: plan.Plan{
			Services: []plan.ServiceChange{{Ref: ref("gone")}, {Ref: ref("web"), Addresses: []string{"cluster address 10.80.0.7"}}},
			Steps: []plan.Step{
				{Op: plan.OpSetService, Args: plan.SetService{Service: svc("web", "10.80.0.7")}},
				{Op: plan.OpDeleteService, Args: plan.DeleteService{Service: ref("gone")}},
			},
		}}}
	}
	s := &System{settings: settings.Settings{Installation: "test"}}
	without := plans()
	s.showRegistered(without)
	if d := cmp.Diff(plans(), without); d != "" {
		t.Errorf("without Consul the plans change:\n%s", d)
	}
	s.settings.Consul = &settings.Consul{}
	with, want := plans(), plans()
	s.showRegistered(with)
	want[0].Plan.Services[1].Registered = []string{"web-shop"}
	if d := cmp.Diff(want, with); d != "" {
		t.Errorf("with Consul (-want +got):\n%s", d)
	}
	after := servedAfter(plan.Routes{{Service: svc("gone", "10.80.0.9")}, {Service: svc("api", "10.80.0.8")}}, with)
	var names []string
	for _, x := range after {
		names = append(names, x.Name)
	}
	if d := cmp.Diff([]string{"api", "web"}, names); d != "" {
		t.Errorf("served in the end (-want +got):\n%s", d)
	}
}

package consul

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

func TestNamesForPlans(t *testing.T) {
	svc := func(ns, name string, annotations map[string]string, spec corev1.ServiceSpec) *plan.Service {
		return &plan.Service{Ref: object.Ref{Kind: "Service", Namespace: ns, Name: name}, Annotations: annotations, Spec: &spec}
	}
	one := corev1.ServiceSpec{ClusterIP: "10.80.0.7", Ports: []corev1.ServicePort{{Port: 80}}}
	two := corev1.ServiceSpec{ClusterIP: "10.80.0.8", Ports: []corev1.ServicePort{{Name: "http", Port: 80, NodePort: 30080}, {Port: 9090}}}
	got, err := Names(Options{Installation: "test", Settings: Settings{NodePorts: true}}, []*plan.Service{
		svc("shop", "web", nil, one), svc("default", "web-shop", nil, one), svc("shop", "api", nil, two),
		svc("shop", "named", map[string]string{NameAnnotation: "front"}, one),
		svc("shop", "silent", map[string]string{RegisterAnnotation: "false"}, one),
		svc("shop", "db", nil, corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "db.example.org"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	ref := func(ns, name string) object.Ref { return object.Ref{Kind: "Service", Namespace: ns, Name: name} }
	want := map[object.Ref][]string{
		ref("default", "web-shop"): {"web-shop"},
		ref("shop", "web"):         {"web-shop-" + hash("Service shop/web\x000")[:8]},
		ref("shop", "api"):         {"api-shop-http", "api-shop-9090", "api-shop-http-nodeport"},
		ref("shop", "named"):       {"front"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("names (-want +got):\n%s", d)
	}
	if _, err := Names(Options{Installation: "-"}, nil); err == nil {
		t.Error("options that are wrong give names")
	}
}

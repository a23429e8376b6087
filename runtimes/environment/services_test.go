package environment

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/kubelet/envvars"
	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

func service(namespace, name, ip string, ports ...corev1.ServicePort) *plan.Service {
	return &plan.Service{
		Ref:  object.Ref{Kind: "Service", Namespace: namespace, Name: name},
		Spec: &corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, Ports: ports},
	}
}

func TestServiceVariables(t *testing.T) {
	services := []*plan.Service{
		service("shop", "redis-main", "10.96.0.5",
			corev1.ServicePort{Name: "redis", Port: 6379, Protocol: corev1.ProtocolTCP}, corev1.ServicePort{Name: "raft-log", Port: 7000, Protocol: corev1.ProtocolUDP}),
		service("shop", "headless", corev1.ClusterIPNone, corev1.ServicePort{Port: 1}),
		service("other", "far", "10.96.0.6", corev1.ServicePort{Port: 1}),
	}
	facts := testFacts()
	facts.Services = services
	text := `
command: [app, $(REDIS_MAIN_SERVICE_HOST)]
envFrom: [{configMapRef: {name: settings}}]
env:
- {name: URL, value: "redis://$(REDIS_MAIN_SERVICE_HOST):$(REDIS_MAIN_SERVICE_PORT_RAFT_LOG)"}
- {name: REDIS_MAIN_SERVICE_PORT, value: mine}
`
	pod := testPod(t, text)
	got, err := Build(pod, &pod.Spec.Containers[0], facts)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"A=from config",
		"REDIS_MAIN_PORT=tcp://10.96.0.5:6379",
		"REDIS_MAIN_PORT_6379_TCP=tcp://10.96.0.5:6379",
		"REDIS_MAIN_PORT_6379_TCP_ADDR=10.96.0.5",
		"REDIS_MAIN_PORT_6379_TCP_PORT=6379",
		"REDIS_MAIN_PORT_6379_TCP_PROTO=tcp",
		"REDIS_MAIN_PORT_7000_UDP=udp://10.96.0.5:7000",
		"REDIS_MAIN_PORT_7000_UDP_ADDR=10.96.0.5",
		"REDIS_MAIN_PORT_7000_UDP_PORT=7000",
		"REDIS_MAIN_PORT_7000_UDP_PROTO=udp",
		"REDIS_MAIN_SERVICE_HOST=10.96.0.5",
		"REDIS_MAIN_SERVICE_PORT=mine",
		"REDIS_MAIN_SERVICE_PORT_RAFT_LOG=7000",
		"REDIS_MAIN_SERVICE_PORT_REDIS=6379",
		"level=debug",
		"with.dot=1",
		"URL=redis://10.96.0.5:7000",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"app", "10.96.0.5"}, Expand(pod.Spec.Containers[0].Command, got)); diff != "" {
		t.Error(diff)
	}
	pod.Spec.EnableServiceLinks = new(false)
	got, err = Build(pod, &pod.Spec.Containers[0], facts)
	if err != nil {
		t.Fatal(err)
	}
	want = []string{"A=from config", "level=debug", "with.dot=1",
		"URL=redis://$(REDIS_MAIN_SERVICE_HOST):$(REDIS_MAIN_SERVICE_PORT_RAFT_LOG)", "REDIS_MAIN_SERVICE_PORT=mine"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestServiceVariablesAreKubernetes compares with what the kubelet makes.
func TestServiceVariablesAreKubernetes(t *testing.T) {
	pod := testPod(t, "{}")
	rapid.Check(t, func(t *rapid.T) {
		var ours []*plan.Service
		var theirs []*corev1.Service
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]([a-z0-9-]{0,6}[a-z0-9])?`), 0, 4, rapid.ID[string]).Draw(t, "names")
		slices.Sort(names)
		for _, name := range names {
			var ports []corev1.ServicePort
			for range rapid.IntRange(1, 3).Draw(t, "ports") {
				ports = append(ports, corev1.ServicePort{
					Name: rapid.SampledFrom([]string{"", "http", "a-b"}).Draw(t, "port"), Port: rapid.Int32Range(1, 65535).Draw(t, "number"),
					Protocol: rapid.SampledFrom([]corev1.Protocol{"", "TCP", "UDP", "SCTP"}).Draw(t, "protocol"),
				})
			}
			s := service("shop", name, rapid.SampledFrom([]string{"", "None", "10.96.0.9", "fd00::9"}).Draw(t, "address"), ports...)
			ours = append(ours, s)
			theirs = append(theirs, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: *s.Spec})
		}
		want := map[string]string{}
		for _, v := range envvars.FromServices(theirs) {
			want[v.Name] = v.Value
		}
		if diff := cmp.Diff(want, serviceVariables(pod, ours)); diff != "" {
			t.Fatal(diff)
		}
	})
}

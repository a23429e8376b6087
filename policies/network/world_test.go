package network

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/render/object"
)

// readWorld reads a world of Kubernetes' objects; a pod's address is in its status.
func readWorld(t *testing.T, text string) World {
	t.Helper()
	w := World{Namespaces: map[string]map[string]string{}}
	read := func(doc string, to any) {
		if err := yaml.UnmarshalStrict([]byte(doc), to); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
	}
	for _, doc := range strings.Split(text, "\n---\n") {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &kind); err != nil {
			t.Fatal(err)
		}
		switch kind.Kind {
		case "Namespace":
			var v corev1.Namespace
			read(doc, &v)
			w.Namespaces[v.Name] = v.Labels
		case "Pod":
			var v corev1.Pod
			read(doc, &v)
			pod := Pod{Namespace: v.Namespace, Name: v.Name, Labels: v.Labels, Address: netip.MustParseAddr(v.Status.PodIP)}
			for _, c := range v.Spec.Containers {
				for _, p := range c.Ports {
					protocol := p.Protocol
					if protocol == "" {
						protocol = corev1.ProtocolTCP
					}
					pod.Ports = append(pod.Ports, Port{p.Name, protocol, uint16(p.ContainerPort)})
				}
			}
			w.Pods = append(w.Pods, pod)
		case "NetworkPolicy":
			var v networkingv1.NetworkPolicy
			read(doc, &v)
			w.Policies = append(w.Policies, Policy{object.Ref{Group: Group, Kind: "NetworkPolicy", Namespace: v.Namespace, Name: v.Name}, v.Spec})
		default:
			t.Fatalf("what is a %q?", kind.Kind)
		}
	}
	return w
}

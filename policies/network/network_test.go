package network

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/render/object"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestModels holds what policies mean: each file has a world, a line of equal signs, and the model.
func TestModels(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	const line = "\n======\n"
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			world, want, _ := strings.Cut(string(b), line)
			m, err := Compile(readWorld(t, world))
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(file, []byte(world+line+m.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, m.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// allowed is the specification once more, asked for one packet and word for word as the API's documentation has it: it knows
// neither ranges nor grants.
func allowed(w *World, p Packet) bool {
	if p.From == p.To {
		return true
	}
	return direction(w, p, true) && direction(w, p, false)
}

func podAt(w *World, a netip.Addr) *Pod {
	for i := range w.Pods {
		if w.Pods[i].Address == a {
			return &w.Pods[i]
		}
	}
	return nil
}

func direction(w *World, p Packet, ingress bool) bool {
	subject, other := podAt(w, p.From), p.To
	if ingress {
		subject, other = podAt(w, p.To), p.From
	}
	if subject == nil || subject.Peer {
		return true
	}
	isolated := false
	for _, policy := range w.Policies {
		if policy.Ref.Namespace != subject.Namespace || !selects(&policy.Spec.PodSelector, subject.Labels) {
			continue
		}
		affects := false
		for _, t := range policy.Spec.PolicyTypes {
			affects = affects || ingress && t == "Ingress" || !ingress && t == "Egress"
		}
		if len(policy.Spec.PolicyTypes) == 0 {
			affects = ingress || len(policy.Spec.Egress) != 0
		}
		if !affects {
			continue
		}
		isolated = true
		if ingress {
			for _, r := range policy.Spec.Ingress {
				if matchesPeers(w, policy.Ref.Namespace, r.From, other) && matchesPorts(w, r.Ports, p) {
					return true
				}
			}
			continue
		}
		for _, r := range policy.Spec.Egress {
			if matchesPeers(w, policy.Ref.Namespace, r.To, other) && matchesPorts(w, r.Ports, p) {
				return true
			}
		}
	}
	return !isolated
}

func matchesPeers(w *World, namespace string, peers []networkingv1.NetworkPolicyPeer, at netip.Addr) bool {
	if len(peers) == 0 {
		return true
	}
	pod := podAt(w, at)
	for _, p := range peers {
		if p.IPBlock != nil {
			in := netip.MustParsePrefix(p.IPBlock.CIDR).Contains(at)
			for _, e := range p.IPBlock.Except {
				in = in && !netip.MustParsePrefix(e).Contains(at)
			}
			if in {
				return true
			}
			continue
		}
		if pod == nil {
			continue
		}
		of := pod.Namespace == namespace
		if p.NamespaceSelector != nil {
			labels := map[string]string{}
			for k, v := range w.Namespaces[pod.Namespace] {
				labels[k] = v
			}
			labels["kubernetes.io/metadata.name"] = pod.Namespace
			of = selects(p.NamespaceSelector, labels)
		}
		if of && (p.PodSelector == nil || selects(p.PodSelector, pod.Labels)) {
			return true
		}
	}
	return false
}

func matchesPorts(w *World, ports []networkingv1.NetworkPolicyPort, p Packet) bool {
	if len(ports) == 0 {
		return true
	}
	for _, port := range ports {
		protocol := corev1.ProtocolTCP
		if port.Protocol != nil {
			protocol = *port.Protocol
		}
		if protocol != p.Protocol {
			continue
		}
		switch {
		case port.Port == nil:
			return true
		case port.Port.Type == intstr.String:
			if to := podAt(w, p.To); to != nil {
				for _, have := range to.Ports {
					if have.Name == port.Port.StrVal && have.Protocol == protocol && have.Number == p.Port {
						return true
					}
				}
			}
		case port.EndPort != nil:
			if int32(p.Port) >= port.Port.IntVal && int32(p.Port) <= *port.EndPort {
				return true
			}
		case int32(p.Port) == port.Port.IntVal:
			return true
		}
	}
	return false
}

// selects is what a label selector means, without Kubernetes' library.
func selects(s *metav1.LabelSelector, labels map[string]string) bool {
	for k, v := range s.MatchLabels {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	for _, e := range s.MatchExpressions {
		have, ok := labels[e.Key]
		in := ok && slices.Contains(e.Values, have)
		switch e.Operator {
		case metav1.LabelSelectorOpIn:
			if !in {
				return false
			}
		case metav1.LabelSelectorOpNotIn:
			if in {
				return false
			}
		case metav1.LabelSelectorOpExists:
			if !ok {
				return false
			}
		case metav1.LabelSelectorOpDoesNotExist:
			if ok {
				return false
			}
		}
	}
	return true
}

// everyPacket is asked for in small worlds: from and to every pod, the node's name server and three addresses elsewhere.
func everyPacket(w *World, f func(Packet)) {
	addresses := []netip.Addr{netip.MustParseAddr("10.0.0.200"), netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("255.255.255.255")}
	for _, p := range w.Pods {
		addresses = append(addresses, p.Address)
	}
	for _, from := range addresses {
		for _, to := range addresses {
			for _, protocol := range []corev1.Protocol{"TCP", "UDP", "SCTP"} {
				for _, port := range []uint16{0, 79, 80, 81, 82, 65535} {
					f(Packet{from, to, protocol, port})
				}
			}
		}
	}
}

func drawLabels(t *rapid.T) map[string]string {
	return rapid.MapOfN(rapid.SampledFrom([]string{"a", "b"}), rapid.SampledFrom([]string{"x", "y"}), 0, 2).Draw(t, "labels")
}

func drawSelector(t *rapid.T) *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	if rapid.Bool().Draw(t, "match labels") {
		s.MatchLabels = drawLabels(t)
	}
	for range rapid.IntRange(0, 1).Draw(t, "expressions") {
		e := metav1.LabelSelectorRequirement{
			Key:      rapid.SampledFrom([]string{"a", "b", NameLabel}).Draw(t, "key"),
			Operator: rapid.SampledFrom([]metav1.LabelSelectorOperator{"In", "NotIn", "Exists", "DoesNotExist"}).Draw(t, "operator"),
		}
		if e.Operator == "In" || e.Operator == "NotIn" {
			e.Values = rapid.SliceOfN(rapid.SampledFrom([]string{"x", "y", "one", "two"}), 1, 2).Draw(t, "values")
		}
		s.MatchExpressions = append(s.MatchExpressions, e)
	}
	return s
}

func drawPeers(t *rapid.T) (out []networkingv1.NetworkPolicyPeer) {
	for range rapid.IntRange(0, 2).Draw(t, "peers") {
		var p networkingv1.NetworkPolicyPeer
		switch rapid.IntRange(0, 3).Draw(t, "kind of peer") {
		case 0:
			p.PodSelector = drawSelector(t)
		case 1:
			p.NamespaceSelector = drawSelector(t)
		case 2:
			p.PodSelector, p.NamespaceSelector = drawSelector(t), drawSelector(t)
		case 3:
			block := rapid.SampledFrom([]networkingv1.IPBlock{
				{CIDR: "0.0.0.0/0"}, {CIDR: "0.0.0.0/0", Except: []string{"10.0.0.2/31", "255.255.255.255/32"}}, {CIDR: "10.0.0.0/30", Except: []string{"10.0.0.0/31", "10.0.0.1/32"}},
				{CIDR: "10.0.0.3/24"}, {CIDR: "192.0.2.0/24", Except: []string{"192.0.2.0/24"}}, {CIDR: "2001:db8::/32"},
			}).Draw(t, "block")
			p.IPBlock = &block
		}
		out = append(out, p)
	}
	return out
}

func drawPorts(t *rapid.T) (out []networkingv1.NetworkPolicyPort) {
	for range rapid.IntRange(0, 2).Draw(t, "ports") {
		var p networkingv1.NetworkPolicyPort
		if protocol := rapid.SampledFrom([]corev1.Protocol{"", "TCP", "UDP", "SCTP"}).Draw(t, "protocol"); protocol != "" {
			p.Protocol = &protocol
		}
		switch rapid.IntRange(0, 3).Draw(t, "kind of port") {
		case 1:
			p.Port = new(intstr.FromInt32(rapid.Int32Range(79, 81).Draw(t, "port")))
		case 2:
			p.Port = new(intstr.FromString(rapid.SampledFrom([]string{"web", "dns", "none"}).Draw(t, "name")))
		case 3:
			p.Port = new(intstr.FromInt32(rapid.Int32Range(79, 81).Draw(t, "first")))
			p.EndPort = new(rapid.SampledFrom([]int32{81, 82, 65535}).Draw(t, "last"))
		}
		out = append(out, p)
	}
	return out
}

func drawWorld(t *rapid.T) World {
	w := World{Namespaces: map[string]map[string]string{"one": drawLabels(t)}}
	namespace := rapid.SampledFrom([]string{"one", "two"})
	for i := range rapid.IntRange(1, 4).Draw(t, "pods") {
		p := Pod{Namespace: namespace.Draw(t, "namespace"), Name: string(rune('a' + i)), Labels: drawLabels(t), Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})}
		if rapid.Bool().Draw(t, "has a named port") {
			p.Ports = []Port{{"web", "TCP", uint16(rapid.IntRange(80, 81).Draw(t, "web"))}, {"dns", "UDP", 80}}
		}
		w.Pods = append(w.Pods, p)
	}
	if rapid.Bool().Draw(t, "name server") {
		w.Pods = append(w.Pods, Pod{Namespace: "two", Name: "dns", Labels: map[string]string{"a": "x"}, Address: netip.AddrFrom4([4]byte{10, 0, 0, 100}), Ports: []Port{{"dns", "UDP", 80}}, Peer: true})
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "policies") {
		p := Policy{Ref: object.Ref{Group: Group, Kind: "NetworkPolicy", Namespace: namespace.Draw(t, "namespace"), Name: string(rune('a' + i))}}
		p.Spec.PodSelector = *drawSelector(t)
		p.Spec.PolicyTypes = rapid.SampledFrom([][]networkingv1.PolicyType{nil, {"Ingress"}, {"Egress"}, {"Ingress", "Egress"}}).Draw(t, "types")
		for range rapid.IntRange(0, 2).Draw(t, "ingress rules") {
			p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: drawPeers(t), Ports: drawPorts(t)})
		}
		for range rapid.IntRange(0, 2).Draw(t, "egress rules") {
			p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: drawPeers(t), Ports: drawPorts(t)})
		}
		w.Policies = append(w.Policies, p)
	}
	return w
}

// TestTheModelSaysWhatTheSpecificationSays holds the compiled model against the evaluator.
func TestTheModelSaysWhatTheSpecificationSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		m, err := Compile(w)
		if err != nil {
			t.Fatal(err)
		}
		everyPacket(&w, func(p Packet) {
			if got, want := m.Allows(p), allowed(&w, p); got != want {
				t.Fatalf("%+v: the model says %v, the specification %v\n%s", p, got, want, m)
			}
		})
	})
}

// TestOrderDoesNotMatter holds that the model is the same whatever order things come in.
func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		shuffled := World{Namespaces: w.Namespaces, Policies: rapid.Permutation(w.Policies).Draw(t, "policies"), Pods: rapid.Permutation(w.Pods).Draw(t, "pods")}
		a, err := Compile(w)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Compile(shuffled)
		if err != nil {
			t.Fatal(err)
		}
		if a.String() != b.String() {
			t.Fatalf("one order gives\n%s\nanother\n%s", a, b)
		}
	})
}

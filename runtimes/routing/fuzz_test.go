package routing

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// FuzzCompile compiles arbitrary Services with arbitrary endpoints: nothing panics, every element is in one set once,
// and the same Service is the same in the kernel.
func FuzzCompile(f *testing.F) {
	f.Add([]byte(`{"clusterIP":"10.43.0.1","clusterIPs":["10.43.0.1"],"ports":[{"name":"a","port":80,"nodePort":30080,"protocol":"TCP"},{"name":"b","port":53,"protocol":"UDP"}],"externalIPs":["192.0.2.1","x"],"externalTrafficPolicy":"Local","sessionAffinity":"ClientIP"}`), []byte{1, 2, 3}, "")
	f.Add([]byte(`{"clusterIP":"None","ports":[{"port":70000}]}`), []byte{}, "round-robin")
	f.Add([]byte(`{"clusterIPs":["::1","10.43.0.2"],"loadBalancerSourceRanges":["0.0.0.0/0","10.0.0.0/8","x"],"ports":[{"port":-1,"protocol":"SCTP"},{"port":-1,"protocol":"SCTP"}],"internalTrafficPolicy":"Local"}`), []byte{0, 0, 0}, "source-hash")
	f.Fuzz(func(t *testing.T, spec, endpoints []byte, balancing string) {
		var s corev1.ServiceSpec
		if json.Unmarshal(spec, &s) != nil || len(s.Ports) > 50 || len(endpoints) > 50 {
			return
		}
		r, err := New(Options{
			Bridge: "fuzz0", Pods: netip.MustParsePrefix("10.90.0.0/16"), Gateway: netip.MustParseAddr("10.90.0.1"), Node: "here",
			Ranges: plan.ServiceRanges{ClusterIPs: netip.MustParsePrefix("10.43.0.0/16")},
		})
		if err != nil {
			t.Fatal(err)
		}
		route := &plan.Route{Service: &plan.Service{Ref: object.Ref{Kind: "Service", Namespace: "n", Name: "s"}, Spec: &s, Balancing: plan.Balancing(balancing)}}
		for _, p := range s.Ports {
			route.Ports = append(route.Ports, plan.RoutePort{Name: p.Name, Protocol: p.Protocol, Port: p.Port, NodePort: p.NodePort})
		}
		for i, b := range endpoints {
			e := plan.Endpoint{Address: netip.AddrFrom4([4]byte{10, 90, b, byte(i)}), Node: "here", Ready: b&1 == 0, Serving: b&2 == 0, Terminating: b&4 == 0, Weight: 1 + int(b)%100}
			if b == 7 {
				e.Address = netip.MustParseAddr("2001:db8::1")
			}
			for range s.Ports {
				e.Ports = append(e.Ports, int32(b)*300-1)
			}
			route.Endpoints = append(route.Endpoints, e)
		}
		u := r.compile(route)
		for _, list := range [][]element{u.shared, u.own} {
			if !slices.IsSortedFunc(list, compareElements) {
				t.Error("not in order")
			}
			for i := 1; i < len(list); i++ {
				if list[i] == list[i-1] {
					t.Errorf("twice: %+v", list[i])
				}
			}
		}
		if again := r.compile(route); !slices.Equal(again.shared, u.shared) || !slices.Equal(again.own, u.own) {
			t.Error("compiled twice it is another")
		}
	})
}

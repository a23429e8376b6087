package routing

import (
	"encoding/json"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
)

// everyKind are Services that together use all maps, sets and kinds of chains.
func everyKind(pods ...*place) []*plan.Route {
	local := corev1.ServiceInternalTrafficPolicyLocal
	var out []*plan.Route
	for i, b := range []plan.Balancing{plan.Random, plan.RoundRobin, plan.SourceHash} {
		for j, seconds := range []int32{0, 60} {
			n := byte(10 + 2*i + j)
			r := route(string(rune('a'+n-10)), netip.AddrFrom4([4]byte{10, 202, 0, n}).String(), pods...)
			r.Balancing = b
			r.Spec.Type = corev1.ServiceTypeLoadBalancer
			r.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			r.Spec.InternalTrafficPolicy = &local
			r.Spec.ExternalIPs = []string{netip.AddrFrom4([4]byte{198, 51, 100, n}).String()}
			r.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"}
			r.LoadBalancerIPs = []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 100 + n - 10})}
			r.Ports[0].NodePort = 30080 + int32(n)
			r.Endpoints[0].Node = "there"
			if seconds > 0 {
				withAffinity(r, seconds)
			}
			out = append(out, r)
		}
	}
	none := route("none", "10.202.0.30")
	none.Ports[0].NodePort = 30200
	return append(out, none, route("one", "10.202.0.31", pods[1]), withAffinity(route("one-kept", "10.202.0.32", pods[1]), 60))
}

// TestNftListsTheRuleset holds that the nft command of the machine can read what we wrote: its older versions end
// with a failed assertion on expressions that they do not expect, and with them the administrator's view of all
// tables.
func TestNftListsTheRuleset(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("no nft")
	}
	l := newLab(t)
	pods := l.servers(3)
	r := l.routes()
	l.set(r, everyKind(pods...)...)
	if _, err := pods[0].ask("10.202.0.11:80"); err != nil { // so that the kernel remembers a client
		t.Fatal(err)
	}
	table := "fairlead-" + l.bridge
	for _, args := range [][]string{{"list", "tables"}, {"list", "ruleset"}, {"-a", "list", "ruleset"}, {"list", "table", "ip", table}} {
		out, err := exec.Command("nft", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("nft %s: %v: %s", strings.Join(args, " "), err, out[max(0, len(out)-1500):])
		}
		if !strings.Contains(string(out), table) {
			t.Errorf("nft %s does not show the table: %.2000s", strings.Join(args, " "), out)
		}
		if strings.Contains(strings.Join(args, " "), "table ip") {
			for _, want := range []string{"10.202.0.10", "30090", pods[1].ip.String() + " . 8080", "masquerade", "dnat"} {
				if !strings.Contains(string(out), want) {
					t.Errorf("nft %s does not show %q", strings.Join(args, " "), want)
				}
			}
			t.Logf("%s", out)
		}
	}
	out, err := exec.Command("nft", "-j", "list", "ruleset").Output()
	if err != nil {
		t.Fatal("nft -j list ruleset:", err)
	}
	var ruleset struct{ Nftables []any }
	if err := json.Unmarshal(out, &ruleset); err != nil || len(ruleset.Nftables) < int(setCount) {
		t.Errorf("nft -j list ruleset gave %d objects, %v", len(ruleset.Nftables), err)
	}
}

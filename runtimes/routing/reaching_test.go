package routing

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
)

// bridged runs a test with and without the host's firewall seeing bridged packets.
func bridged(t *testing.T, test func(t *testing.T)) {
	const file = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	before, err := os.ReadFile(file)
	if err != nil {
		t.Run("no br_netfilter", test)
		return
	}
	t.Cleanup(func() { _ = os.WriteFile(file, before, 0) })
	for _, v := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables "+v, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(v), 0); err != nil {
				t.Fatal(err)
			}
			test(t)
		})
	}
}

func TestAPodReachesItselfThroughItsService(t *testing.T) {
	bridged(t, func(t *testing.T) {
		l := newLab(t)
		pod := l.servers(1)[0]
		r := l.routes()
		l.set(r, route("web", "10.202.0.10", pod))
		for range 5 {
			got, err := pod.ask("10.202.0.10:80")
			if err != nil {
				t.Fatal(err)
			}
			if got != "pod0 "+l.gateway.String() {
				t.Errorf("the pod heard %q, want itself, reached from the gateway", got)
			}
		}
	})
}

func TestPodsSeeEachOther(t *testing.T) {
	bridged(t, func(t *testing.T) {
		l := newLab(t)
		pods := l.servers(2)
		r := l.routes()
		l.set(r, route("web", "10.202.0.10", pods[1]))
		for _, to := range []string{"10.202.0.10:80", pods[1].ip.String() + ":8080"} {
			got, err := pods[0].ask(to)
			if err != nil {
				t.Fatal(err)
			}
			if got != "pod1 "+pods[0].ip.String() {
				t.Errorf("asked at %s: %q, want pod1, which sees the client's own address", to, got)
			}
		}
		c, err := pods[0].dial("udp", "10.202.0.10:80")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got, err := askUDP(c); err != nil || got != "pod1" {
			t.Errorf("by UDP: %q, %v", got, err)
		}
	})
}

// TestPodsReachEachOtherThroughTheHost holds what routes of Services and network policies rest on.
func TestPodsReachEachOtherThroughTheHost(t *testing.T) {
	const file = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	if before, err := os.ReadFile(file); err == nil {
		t.Cleanup(func() { _ = os.WriteFile(file, before, 0) })
		if err := os.WriteFile(file, []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
	}
	l := newLab(t)
	pods := l.servers(2)
	r := l.routes()
	l.set(r)
	for range 3 {
		c, err := pods[0].dial("tcp", pods[1].ip.String()+":8080")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, f := range flows {
			found = found || f.Forward.SrcIP.Equal(pods[0].ip.AsSlice()) && f.Forward.DstIP.Equal(pods[1].ip.AsSlice())
		}
		if !found {
			t.Error("the host did not see a connection between two pods")
		}
	}
	pods[0].do(func() {
		routes, err := netlink.RouteGet(pods[1].ip.AsSlice())
		if err != nil || len(routes) == 0 || !routes[0].Gw.Equal(l.gateway.AsSlice()) {
			t.Errorf("a pod's way to another one is %v, %v; want it through the gateway", routes, err)
		}
	})
}

func TestNodePorts(t *testing.T) {
	l := newLab(t)
	pods, client, outside := l.servers(2), l.pod("client"), l.outside()
	r := l.routes()
	web := route("web", "10.202.0.10", pods...)
	web.Ports[0].NodePort, web.Ports[1].NodePort = 30080, 30080
	web.Spec.Type = corev1.ServiceTypeNodePort
	l.set(r, web)
	for _, test := range []struct {
		name string
		from *place
		at   string
	}{
		{"outside", outside, "192.0.2.1:30080"}, {"host", nil, "192.0.2.1:30080"}, {"host at its gateway address", nil, l.gateway.String() + ":30080"},
		{"host at its loopback", nil, "127.0.0.1:30080"}, {"pod", client, "192.0.2.1:30080"}, {"pod at the gateway", client, l.gateway.String() + ":30080"},
		{"an endpoint itself", pods[0], "192.0.2.1:30080"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if seen := test.from.spread(t, 30, test.at); len(seen) != 2 {
				t.Errorf("30 connections went to %v, want both endpoints", seen)
			}
			c, err := test.from.dial("udp", test.at)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got, err := askUDP(c); err != nil || !strings.HasPrefix(got, "pod") {
				t.Errorf("by UDP: %q, %v", got, err)
			}
		})
	}
	if got, err := outside.ask("192.0.2.1:30080"); err != nil || !strings.HasSuffix(got, " 192.0.2.2") {
		t.Errorf("an endpoint heard %q, %v; want it to see the address of who is outside", got, err)
	}
	l.set(r)
	outside.refuses(t, "192.0.2.1:30080")
}

func TestExternalAddresses(t *testing.T) {
	l := newLab(t)
	pods, client, outside := l.servers(2), l.pod("client"), l.outside()
	other := route("other", "10.202.0.11", pods[0])
	r := l.routes()
	web := route("web", "10.202.0.10", pods...)
	web.Spec.Type = corev1.ServiceTypeLoadBalancer
	web.LoadBalancerIPs = []netip.Addr{netip.MustParseAddr("192.0.2.101")}
	web.Spec.ExternalIPs = []string{"198.51.100.7"}
	l.set(r, other, web)
	outside.do(func() {
		if err := netlink.RouteAdd(&netlink.Route{Dst: netlink.NewIPNet([]byte{198, 51, 100, 7}), Gw: []byte{192, 0, 2, 1}}); err != nil {
			t.Error(err)
		}
	})
	everybody := map[string]*place{"outside": outside, "host": nil, "pod": client}
	for name, from := range everybody {
		for _, at := range []string{"192.0.2.101:80", "198.51.100.7:80"} {
			if name == "host" && at[:3] == "198" {
				continue // the test's host has no route to there
			}
			if seen := from.spread(t, 30, at); len(seen) != 2 {
				t.Errorf("30 connections of %s to %s went to %v, want both endpoints", name, at, seen)
			}
		}
		from.refuses(t, "192.0.2.101:81")
	}
	// The host's own servers are not there.
	(*place)(nil).serve(t, 2222)
	outside.refuses(t, "192.0.2.101:2222")
	if _, err := outside.ask("192.0.2.1:2222"); err != nil {
		t.Error("the host's server at its own address:", err)
	}
	l.set(r, other)
	outside.do(func() {
		link, _ := netlink.LinkByName("eth0")
		neighbours, _ := netlink.NeighList(link.Attrs().Index, netlink.FAMILY_V4)
		for _, n := range neighbours {
			_ = netlink.NeighDel(&n)
		}
	})
	if got, err := outside.ask("192.0.2.101:80"); err == nil {
		t.Errorf("%q still answers at an address that is no Service's", got)
	}
}

func TestSourceRanges(t *testing.T) {
	l := newLab(t)
	pods, outside := l.servers(1), l.outside()
	addAddress(t, outside, "192.0.2.3")
	r := l.routes()
	web := route("web", "10.202.0.10", pods...)
	web.Spec.Type = corev1.ServiceTypeLoadBalancer
	web.LoadBalancerIPs = []netip.Addr{netip.MustParseAddr("192.0.2.101")}
	web.Spec.LoadBalancerSourceRanges = []string{"192.0.2.2/32", "10.9.0.0/16", "10.9.8.0/24"}
	l.set(r, web)
	outside.spread(t, 3, "192.0.2.101:80", "192.0.2.2:0")
	if got, err := outside.ask("192.0.2.101:80", "192.0.2.3:0"); err == nil {
		t.Errorf("%q answers a client outside of loadBalancerSourceRanges", got)
	}
	wider := *web
	wider.Service = &plan.Service{Ref: web.Ref, Spec: web.Spec.DeepCopy(), LoadBalancerIPs: web.LoadBalancerIPs, Balancing: plan.Random}
	wider.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"}
	l.set(r, &wider)
	outside.spread(t, 3, "192.0.2.101:80", "192.0.2.3:0")
}

func TestWithoutEndpointsConnectionsAreRefused(t *testing.T) {
	l := newLab(t)
	client, outside := l.pod("client"), l.outside()
	pods := l.servers(1)
	r := l.routes()
	empty := route("empty", "10.202.0.10")
	empty.Spec.Type = corev1.ServiceTypeLoadBalancer
	empty.Ports[0].NodePort = 30080
	empty.LoadBalancerIPs = []netip.Addr{netip.MustParseAddr("192.0.2.101")}
	l.set(r, empty, route("web", "10.202.0.11", pods...))
	for name, from := range map[string]*place{"pod": client, "host": nil} {
		t.Run(name, func(t *testing.T) {
			from.refuses(t, "10.202.0.10:80")
			from.refuses(t, "10.202.0.11:81") // no port of the Service
			from.refuses(t, "10.202.9.9:80")  // no Service
			from.refuses(t, "192.0.2.1:30080")
			from.refuses(t, "192.0.2.101:80")
			c, err := from.dial("udp", "10.202.0.10:80")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			// The host's own packet does not leave: the kernel says so to who writes it, as at once as a refusal.
			got, err := askUDP(c)
			if !errors.Is(err, unix.ECONNREFUSED) && (from != nil || !errors.Is(err, unix.EPERM)) {
				t.Errorf("by UDP: %q, %v; want it refused", got, err)
			}
		})
	}
	outside.refuses(t, "192.0.2.1:30080")
	outside.refuses(t, "192.0.2.101:80")
}

func TestLocalPolicies(t *testing.T) {
	l := newLab(t)
	pods, client, outside := l.servers(2), l.pod("client"), l.outside()
	r := l.routes()
	policy := corev1.ServiceInternalTrafficPolicyLocal
	make := func(here bool) *plan.Route {
		web := route("web", "10.202.0.10", pods...)
		web.Spec.Type = corev1.ServiceTypeNodePort
		web.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		web.Spec.InternalTrafficPolicy = &policy
		web.Ports[0].NodePort = 30080
		web.Endpoints[1].Node = "there"
		if !here {
			web.Endpoints[0].Node = "there"
		}
		return web
	}
	l.set(r, make(true))
	for name, seen := range map[string]map[string]int{
		"a pod at the cluster address": client.spread(t, 20, "10.202.0.10:80"),
		"from outside":                 outside.spread(t, 20, "192.0.2.1:30080"),
	} {
		if seen["pod0"] != 20 {
			t.Errorf("20 connections %s went to %v, want only the endpoint of this node", name, seen)
		}
	}
	if seen := client.spread(t, 30, "192.0.2.1:30080"); len(seen) != 2 {
		t.Errorf("30 connections of a pod to the node port went to %v, want all endpoints: it is not outside", seen)
	}
	l.set(r, make(false))
	outside.drops(t, "192.0.2.1:30080")
	client.drops(t, "10.202.0.10:80")
	(*place)(nil).drops(t, "10.202.0.10:80")
}

func TestPodsReachTheOutsideFromTheHostsAddress(t *testing.T) {
	l := newLab(t)
	client, outside := l.pod("client"), l.outside()
	outside.serve(t, 8080)
	r := l.routes()
	written := route("written", "10.202.0.10", outside)
	written.Ports[0].NodePort = 30080
	written.Endpoints[0].Node = ""
	l.set(r, written)
	for from, to := range map[*place]string{client: "192.0.2.2:8080", nil: "10.202.0.10:80"} {
		if got, err := from.ask(to); err != nil || got != "outside 192.0.2.1" {
			t.Errorf("asked at %s: %q, %v; want the host's address seen", to, got, err)
		}
	}
	if got, err := client.ask("10.202.0.10:80"); err != nil || got != "outside 192.0.2.1" {
		t.Errorf("a pod at a Service with an endpoint outside: %q, %v", got, err)
	}
	// Also who is outside itself, for whose answer the host is not on the way.
	if got, err := outside.ask("192.0.2.1:30080"); err != nil || got != "outside 192.0.2.1" {
		t.Errorf("from outside to an endpoint outside: %q, %v", got, err)
	}
}

// TestPodsDoNotReachTheLoopbackOfTheHost holds that loopback addresses are kept away, which the bridge accepts for the
// sake of node ports.
func TestPodsDoNotReachTheLoopbackOfTheHost(t *testing.T) {
	l := newLab(t)
	client := l.pod("client")
	(*place)(nil).serve(t, 2223)
	client.do(func() {
		// A pod that wants to: its own loopback addresses go out of its interface.
		lo, _ := netlink.LinkByName("lo")
		addrs, _ := netlink.AddrList(lo, netlink.FAMILY_V4)
		for i := range addrs {
			_ = netlink.AddrDel(lo, &addrs[i])
		}
		eth, _ := netlink.LinkByName("eth0")
		for _, f := range []string{"all", "eth0"} {
			if err := os.WriteFile("/proc/thread-self/net/../../../sys/net/ipv4/conf/"+f+"/route_localnet", []byte("1"), 0); err != nil {
				_ = os.WriteFile("/proc/sys/net/ipv4/conf/"+f+"/route_localnet", []byte("1"), 0)
			}
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Dst: netlink.NewIPNet([]byte{127, 0, 0, 1}), Gw: l.gateway.AsSlice(), Src: client.ip.AsSlice(), Flags: int(netlink.FLAG_ONLINK)}); err != nil {
			t.Error(err)
		}
	})
	r := l.routes()
	l.set(r)
	client.drops(t, "127.0.0.1:2223")
	// Without the table it would work: the test would notice.
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.kernel.destroy(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.ask("127.0.0.1:2223"); err != nil {
		t.Error("the test does not test: even without the table the host's loopback is out of reach:", err)
	}
}

// TestTheCommandListsTheTable holds that who looks at the rules with nft sees them: the command ends at once at a rule
// that its language has no words for.
func TestTheCommandListsTheTable(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("no nft command")
	}
	l := newLab(t)
	r := l.routes()
	var all []*plan.Route
	for i, b := range []plan.Balancing{plan.Random, plan.RoundRobin, plan.SourceHash} {
		for j, affinity := range []bool{false, true} {
			web := route(fmt.Sprintf("web%d%d", i, j), fmt.Sprintf("10.202.0.%d", 10+2*i+j), &place{ip: netip.MustParseAddr("10.201.0.10")}, &place{ip: netip.MustParseAddr("10.201.0.11")})
			web.Balancing, web.Ports[0].NodePort = b, int32(30000+2*i+j)
			web.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			web.Endpoints[1].Node = "there"
			web.LoadBalancerIPs = []netip.Addr{netip.MustParseAddr("192.0.2.101").Next()}
			web.Spec.LoadBalancerSourceRanges = []string{"10.0.0.0/8"}
			if affinity {
				withAffinity(web, 10)
			}
			all = append(all, web)
		}
	}
	l.set(r, append(all, route("without", "10.202.0.99"))...)
	out, err := exec.Command("nft", "list", "table", "ip", r.table).CombinedOutput()
	if err != nil {
		t.Fatalf("nft list: %v\n%s", err, out)
	}
	for _, want := range []string{"map @service-endpoints", "map @node-port-endpoints", "vmap @verdicts", "@port-affinities", "jhash ip saddr", "numgen inc", "10.201.0.10 . 8080"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("nft does not show %q", want)
		}
	}
	if t.Failed() || testing.Verbose() {
		t.Log(string(out))
	}
}

func TestFirewallOfAnEngine(t *testing.T) {
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skip("no iptables")
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("iptables", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("iptables %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	l := newLab(t)
	pods, client, outside := l.servers(1), l.pod("client"), l.outside()
	outside.serve(t, 8080)
	t.Cleanup(func() {
		run("-P", "FORWARD", "ACCEPT")
		run("-F")
		run("-X")
	})
	// What an engine has for a bridge.
	run("-P", "FORWARD", "DROP")
	run("-N", "DOCKER-USER")
	run("-A", "DOCKER-USER", "-j", "RETURN")
	run("-A", "FORWARD", "-j", "DOCKER-USER")
	run("-A", "FORWARD", "-o", l.bridge, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT")
	run("-A", "FORWARD", "-i", l.bridge, "-j", "ACCEPT")
	r := l.routes()
	web := route("web", "10.202.0.10", pods...)
	web.Ports[0].NodePort = 30080
	l.set(r, web)
	all := func(when string) {
		t.Helper()
		if _, err := outside.ask("192.0.2.1:30080"); err != nil {
			t.Errorf("%s: from outside: %v", when, err)
		}
		if _, err := client.ask("10.202.0.10:80"); err != nil {
			t.Errorf("%s: a pod: %v", when, err)
		}
		if _, err := client.ask("192.0.2.2:8080"); err != nil {
			t.Errorf("%s: a pod to the outside: %v", when, err)
		}
	}
	all("with the engine's chains")
	if got := run("-S", "FORWARD"); strings.Contains(got, "fairlead") {
		t.Errorf("a rule outside of DOCKER-USER: %s", got)
	}
	// The engine wrote its rules anew.
	run("-F", "DOCKER-USER")
	run("-A", "DOCKER-USER", "-j", "RETURN")
	waitFor(t, "the rule in DOCKER-USER", func() bool { return strings.Contains(run("-S", "DOCKER-USER"), "fairlead "+l.bridge) })
	all("after DOCKER-USER was flushed")
	run("-F")
	waitFor(t, "the rules in FORWARD", func() bool { return strings.Contains(run("-S", "FORWARD"), "fairlead "+l.bridge) })
	all("after all was flushed, and the policy stayed")
	if err := r.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := run("-S"); strings.Contains(got, "fairlead") {
		t.Errorf("a rule was left: %s", got)
	}
	// A node without Services leaves the machine as it is; one that has Services again serves them.
	l.set(r)
	if got := run("-S"); strings.Contains(got, "fairlead") {
		t.Errorf("nothing to serve, and a rule: %s", got)
	}
	l.set(r, web)
	all("after everything was removed")
}

// TestEstablishedConnectionSurvivesTheChangeOfAPodsAddress holds that pods with the subnet's length, as before, are
// changed without harm.
func TestEstablishedConnectionSurvivesTheChangeOfAPodsAddress(t *testing.T) {
	l := newLab(t)
	pods := l.servers(2)
	pods[0].do(func() {
		eth, _ := netlink.LinkByName("eth0")
		old := &netlink.Addr{IPNet: netlink.NewIPNet(pods[0].ip.AsSlice())}
		if err := netlink.AddrDel(eth, old); err != nil {
			t.Error(err)
		}
		wide, _ := netlink.ParseAddr(pods[0].ip.String() + "/16")
		if err := netlink.AddrAdd(eth, wide); err != nil {
			t.Error(err)
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: l.gateway.AsSlice()}); err != nil {
			t.Error(err)
		}
	})
	for _, adopt := range []bool{false, true} {
		c, err := pods[0].dial("tcp", pods[1].ip.String()+":8080")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		in := bufio.NewReader(c)
		if _, err := in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if adopt {
			err = l.network.Adopt(t.Context(), pods[0].tid)
		} else {
			err = l.network.Attach(t.Context(), pods[0].tid, l.bridge+"pod0", pods[0].ip)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("still there\n")); err != nil {
			t.Fatal(err)
		}
		if got, err := in.ReadString('\n'); err != nil || got != "still there\n" {
			t.Errorf("the connection after the change: %q, %v", got, err)
		}
		pods[0].do(func() {
			eth, _ := netlink.LinkByName("eth0")
			addrs, err := netlink.AddrList(eth, netlink.FAMILY_V4)
			if err != nil || len(addrs) != 1 || addrs[0].IPNet.String() != pods[0].ip.String()+"/32" {
				t.Errorf("the pod's addresses are %v, %v", addrs, err)
			}
		})
	}
}

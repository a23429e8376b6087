package routing

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/policies/network"
	"github.com/fairlead-dev/fairlead/render/object"
)

// policies makes what enforces policies, and removes it at the end.
func (l *lab) policies() *Policies {
	l.t.Helper()
	p, err := NewPolicies(PolicyOptions{Bridge: l.bridge, Gateway: l.gateway, Repaired: func(what string, err error) { l.t.Log("repaired:", what, err) }})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		if err := p.Destroy(context.Background()); err != nil {
			l.t.Error(err)
		}
	})
	return p
}

// enforce sets the policies, which are written as specs by name. Every place is a pod with its name as the label app.
func (l *lab) enforce(p *Policies, pods []*place, specs map[string]string) network.Model {
	l.t.Helper()
	w := network.World{}
	for _, pod := range pods {
		w.Pods = append(w.Pods, network.Pod{Namespace: "test", Name: pod.name, Labels: map[string]string{"app": pod.name}, Address: pod.ip})
	}
	for name, text := range specs {
		var spec networkingv1.NetworkPolicySpec
		if err := yaml.UnmarshalStrict([]byte(text), &spec); err != nil {
			l.t.Fatal(err)
		}
		w.Policies = append(w.Policies, network.Policy{Ref: object.Ref{Group: network.Group, Kind: "NetworkPolicy", Namespace: "test", Name: name}, Spec: spec})
	}
	m, err := network.Compile(w)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := p.Set(context.Background(), m); err != nil {
		l.t.Fatal(err)
	}
	return m
}

// reaches holds that a connection is answered. What a policy drops it drops always; one that is lost otherwise is begun again, from another port.
func (p *place) reaches(t testing.TB, to string) {
	t.Helper()
	var got string
	var err error
	for range 3 {
		if got, err = p.ask(to); err == nil {
			return
		}
		t.Logf("a connection to %s is lost: %q, %v", to, got, err)
	}
	t.Errorf("a connection to %s: %q, %v; want an answer", to, got, err)
}

// answersUDP reports whether a packet is answered.
func (p *place) answersUDP(t testing.TB, to string) bool {
	t.Helper()
	c, err := p.dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write([]byte("?"))
	_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	_, err = c.Read(make([]byte, 100))
	return err == nil
}

const denyAll = `{podSelector: {}, policyTypes: [Ingress, Egress]}`

func TestPoliciesOnTraffic(t *testing.T) {
	l := newLab(t)
	pods := []*place{l.pod("a"), l.pod("b"), l.pod("c")}
	a, b, c := pods[0], pods[1], pods[2]
	outside := l.outside()
	for _, p := range append(pods, outside, nil) {
		p.serve(t, 8080)
		p.serve(t, 8081)
	}
	outside.do(func() { addRoute(t, l.pods, "192.0.2.1") })
	p := l.policies()
	at := func(p *place, port int) string { return netip.AddrPortFrom(p.ip, uint16(port)).String() }
	node := netip.AddrPortFrom(l.gateway, 8080).String()

	l.enforce(p, pods, nil)
	a.reaches(t, at(b, 8080))
	if n, err := p.kernel.objects(); n != 0 || err != nil {
		t.Errorf("without a policy there are %d objects (%v), want none", n, err)
	}

	l.enforce(p, pods, map[string]string{"deny": denyAll})
	a.drops(t, at(b, 8080))
	a.drops(t, at(outside, 8080))
	a.drops(t, node)
	outside.drops(t, at(a, 8080))
	(*place)(nil).reaches(t, at(a, 8080)) // the node may always reach its pods: probes

	l.enforce(p, pods, map[string]string{"b": `
podSelector: {matchLabels: {app: b}}
ingress:
- {from: [{podSelector: {matchLabels: {app: a}}}], ports: [{port: 8080}]}
- {from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.201.0.0/16]}}], ports: [{port: 8081, endPort: 8082}, {port: 8080, protocol: UDP}]}`})
	a.reaches(t, at(b, 8080))
	a.drops(t, at(b, 8081))
	c.drops(t, at(b, 8080))
	c.reaches(t, at(a, 8080)) // nobody selects a
	b.reaches(t, at(c, 8080)) // nor is b's egress isolated
	outside.reaches(t, at(b, 8081))
	outside.drops(t, at(b, 8080))
	if !outside.answersUDP(t, at(b, 8080)) || a.answersUDP(t, at(b, 8080)) || outside.answersUDP(t, at(b, 8081)) {
		t.Error("UDP is not let in as the rules say")
	}

	l.enforce(p, pods, map[string]string{"deny": denyAll, "a": `
podSelector: {matchLabels: {app: a}}
policyTypes: [Egress]
egress:
- {to: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}}, {podSelector: {matchLabels: {app: b}}}]}`})
	a.reaches(t, at(outside, 8080))
	a.drops(t, at(b, 8080)) // b lets nobody in
	a.drops(t, node)
}

func addRoute(t testing.TB, to netip.Prefix, gateway string) {
	t.Helper()
	if err := routeAdd(to, netip.MustParseAddr(gateway)); err != nil {
		t.Error(err)
	}
}

// TestPoliciesSeePodsBehindServices holds that a policy means the pods behind a Service, not its address, and that a pod reaches itself
// through it.
func TestPoliciesSeePodsBehindServices(t *testing.T) {
	l := newLab(t)
	servers, client, other := l.servers(1), l.pod("client"), l.pod("other")
	r, p := l.routes(), l.policies()
	l.set(r, route("web", "10.202.0.10", servers...))
	pods := append(servers, client, other)
	l.enforce(p, pods, map[string]string{"deny": denyAll,
		"server": `{podSelector: {matchLabels: {app: pod0}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 8080}]}]}`,
		"client": `{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: pod0}}}]}]}`})
	client.reaches(t, "10.202.0.10:80")
	other.drops(t, "10.202.0.10:80")
	servers[0].reaches(t, "10.202.0.10:80")
}

// TestPoliciesCutConnections holds that an open connection ends with the policy that forbids it, and that no other is touched.
func TestPoliciesCutConnections(t *testing.T) {
	l := newLab(t)
	server, good, bad := l.servers(1)[0], l.pod("good"), l.pod("bad")
	pods := []*place{server, good, bad}
	p := l.policies()
	l.enforce(p, pods, map[string]string{"open": `{podSelector: {matchLabels: {app: pod0}}, ingress: [{}]}`})
	open := func(from *place) func() error {
		c, err := from.dial("tcp", netip.AddrPortFrom(server.ip, 8080).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		r := bufio.NewReader(c)
		if _, err := r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		return func() error {
			fmt.Fprintln(c, "hello")
			_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			_, err := r.ReadString('\n')
			return err
		}
	}
	saysGood, saysBad := open(good), open(bad)
	l.enforce(p, pods, map[string]string{"one": `{podSelector: {matchLabels: {app: pod0}}, ingress: [{from: [{podSelector: {matchLabels: {app: good}}}]}]}`})
	if err := saysGood(); err != nil {
		t.Error("a connection that is allowed was disturbed:", err)
	}
	if err := saysBad(); err == nil {
		t.Error("a connection that is not allowed any more lives on")
	}
}

// TestPoliciesAreRestored holds that what others flush, change or delete comes back, and that the rules outlive the process and are
// replaced without a gap.
func TestPoliciesAreRestored(t *testing.T) {
	l := newLab(t)
	pods := []*place{l.pod("a"), l.pod("b")}
	pods[1].serve(t, 8080)
	to := netip.AddrPortFrom(pods[1].ip, 8080).String()
	p := l.policies()
	l.enforce(p, pods, map[string]string{"deny": denyAll})
	closed := func() bool {
		var err error
		pods[0].do(func() {
			var c net.Conn
			if c, err = (&net.Dialer{Timeout: 200 * time.Millisecond}).Dial("tcp4", to); err == nil {
				c.Close()
			}
		})
		return err != nil
	}
	for name, harm := range map[string]func(*nftables.Conn, *nftables.Table){
		"the table is deleted":  func(c *nftables.Conn, t *nftables.Table) { c.DelTable(t) },
		"its rules are flushed": func(c *nftables.Conn, t *nftables.Table) { c.FlushTable(t) },
		"a set is emptied": func(c *nftables.Conn, t *nftables.Table) {
			c.FlushSet(&nftables.Set{Table: t, Name: "ingress"})
			c.FlushSet(&nftables.Set{Table: t, Name: "egress"})
		},
	} {
		conn, err := nftables.New()
		if err != nil {
			t.Fatal(err)
		}
		harm(conn, &nftables.Table{Name: p.table, Family: family})
		if err := conn.Flush(); err != nil {
			t.Fatal(name, err)
		}
		began := time.Now()
		waitFor(t, "the repair after "+name, closed)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: it took %s", name, took)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if !closed() {
		t.Error("without the process nothing is enforced")
	}
	next := l.policies()
	if there, err := next.Present(t.Context()); !there || err != nil {
		t.Error("what an earlier process left is not seen:", err)
	}
	stop, opened := make(chan struct{}), make(chan bool)
	go func() {
		for {
			select {
			case <-stop:
				opened <- false
				return
			default:
			}
			if !closed() {
				opened <- true
				return
			}
		}
	}()
	for i := range 40 {
		specs := map[string]string{"deny": denyAll}
		if i%2 == 0 {
			specs["more"] = `{podSelector: {matchLabels: {app: a}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]}`
		}
		l.enforce(next, pods, specs)
		time.Sleep(10 * time.Millisecond)
	}
	close(stop)
	if <-opened {
		t.Error("while policies changed, a connection came through that none of them allowed")
	}
	l.enforce(next, pods, nil)
	if closed() {
		t.Error("without policies it is not open")
	}
}

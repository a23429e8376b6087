package names

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// newRoute returns the Route of a Service with named ports.
func newRoute(name, clusterIP string, endpoints []plan.Endpoint, ports ...plan.RoutePort) *plan.Route {
	r := &plan.Route{Service: &plan.Service{
		Ref:  object.Ref{Kind: "Service", Namespace: "shop", Name: name},
		Spec: &corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: clusterIP},
	}, Ports: ports, Endpoints: endpoints}
	if clusterIP != corev1.ClusterIPNone && clusterIP != "" {
		r.Spec.ClusterIPs = []string{clusterIP}
	}
	return r
}

func external(name, target string) *plan.Route {
	r := newRoute(name, "", nil)
	r.Spec.Type, r.Spec.ExternalName = corev1.ServiceTypeExternalName, target
	return r
}

func ready(ip, hostname string, ports ...int32) plan.Endpoint {
	return plan.Endpoint{Address: netip.MustParseAddr(ip), Hostname: hostname, Ready: true, Serving: true, Weight: 1, Ports: ports}
}

func unready(e plan.Endpoint) plan.Endpoint {
	e.Ready = false
	return e
}

func tcp(name string, port int32) plan.RoutePort {
	return plan.RoutePort{Name: name, Protocol: corev1.ProtocolTCP, Port: port}
}

func udp(name string, port int32) plan.RoutePort {
	return plan.RoutePort{Name: name, Protocol: corev1.ProtocolUDP, Port: port}
}

// shop is a cluster with one Service of each sort.
func shop() plan.Routes {
	return plan.Routes{
		newRoute("db", "None", []plan.Endpoint{
			ready("10.90.0.1", "db-0", 5432, 0), ready("10.90.0.2", "db-1", 5432, 9187), ready("10.90.0.3", "", 5432, 9187), unready(ready("10.90.0.4", "db-3", 5432, 9187)),
		}, tcp("sql", 5432), tcp("metrics", 9187)),
		external("elsewhere", "www.example.org"),
		newRoute("empty", "None", []plan.Endpoint{unready(ready("10.90.0.9", "empty-0", 80))}, tcp("http", 80)),
		external("inside", "web.shop.svc.cluster.local"),
		external("loop", "loop.shop.svc.cluster.local"),
		newRoute("web", "10.80.0.10", []plan.Endpoint{ready("10.90.0.5", "", 8080, 8081), ready("10.90.0.6", "web-b", 8080, 8081)}, tcp("http", 80), udp("quic", 443)),
	}
}

// options listen on a free port of the loopback and ask nobody.
func options() Options {
	return Options{
		Listen: []Address{{AddrPort: netip.MustParseAddrPort("127.0.0.1:0")}}, ResolvConf: "/nonexistent/resolv.conf",
		Pods: []netip.Prefix{netip.MustParsePrefix("10.90.0.0/16")}, Services: []netip.Prefix{netip.MustParsePrefix("10.80.0.0/16")},
	}
}

// start returns a Server that is listening, and its address.
func start(t testing.TB, o Options, routes plan.Routes) (*Server, string) {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if routes != nil {
		if err := s.Set(context.Background(), routes); err != nil {
			t.Fatal(err)
		}
	}
	return s, listening(t, s)
}

func listening(t testing.TB, s *Server) string {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if a := s.Addresses(); len(a) > 0 {
			return a[0].String()
		}
	}
	t.Fatalf("it does not listen: %+v", s.Stats().Listening)
	return ""
}

func query(name string, qtype uint16) *dns.Msg {
	return new(dns.Msg).SetQuestion(name, qtype)
}

func ask(t testing.TB, network, server string, m *dns.Msg) *dns.Msg {
	t.Helper()
	c := &dns.Client{Net: network, Timeout: 10 * time.Second, UDPSize: dns.MaxMsgSize}
	r, _, err := c.Exchange(m, server)
	if err != nil {
		t.Fatalf("%s over %s: %v", m.Question[0].Name, network, err)
	}
	return r
}

// text is an answer in lines: the code, and the records of each section, sorted.
func text(m *dns.Msg) []string {
	out := []string{dns.RcodeToString[m.Rcode]}
	for _, s := range []struct {
		name string
		rrs  []dns.RR
	}{{"", m.Answer}, {"authority ", m.Ns}, {"extra ", m.Extra}} {
		var lines []string
		for _, rr := range s.rrs {
			if rr.Header().Rrtype == dns.TypeOPT {
				continue
			}
			if soa, ok := rr.(*dns.SOA); ok {
				soa.Serial = 1
			}
			lines = append(lines, s.name+strings.Join(strings.Fields(rr.String()), " "))
		}
		slices.Sort(lines)
		out = append(out, lines...)
	}
	return out
}

func TestClusterNames(t *testing.T) {
	_, server := start(t, options(), shop())
	soa := func(zone string) string {
		return "authority " + zone + " 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"
	}
	nothing, missing := []string{"NOERROR", soa("cluster.local.")}, []string{"NXDOMAIN", soa("cluster.local.")}
	for _, test := range []struct {
		name  string
		qtype uint16
		want  []string
	}{
		{"dns-version.cluster.local.", dns.TypeTXT, []string{"NOERROR", `dns-version.cluster.local. 5 IN TXT "1.1.0"`}},
		{"dns-version.cluster.local.", dns.TypeA, nothing},
		{"cluster.local.", dns.TypeSOA, []string{"NOERROR", strings.TrimPrefix(soa("cluster.local."), "authority ")}},
		{"cluster.local.", dns.TypeNS, []string{"NOERROR", "cluster.local. 5 IN NS ns.dns.cluster.local.", "extra ns.dns.cluster.local. 5 IN A 127.0.0.1"}},
		{"ns.dns.cluster.local.", dns.TypeA, []string{"NOERROR", "ns.dns.cluster.local. 5 IN A 127.0.0.1"}},
		{"cluster.local.", dns.TypeA, nothing},

		{"web.shop.svc.cluster.local.", dns.TypeA, []string{"NOERROR", "web.shop.svc.cluster.local. 5 IN A 10.80.0.10"}},
		{"web.shop.svc.cluster.local.", dns.TypeAAAA, nothing},
		{"web.shop.svc.cluster.local.", dns.TypeSRV, nothing},
		{"web.shop.svc.cluster.local.", dns.TypeANY, []string{"NOERROR", "web.shop.svc.cluster.local. 5 IN A 10.80.0.10"}},
		{"WeB.sHOP.Svc.clusTER.local.", dns.TypeA, []string{"NOERROR", "WeB.sHOP.Svc.clusTER.local. 5 IN A 10.80.0.10"}},
		{"_http._tcp.web.shop.svc.cluster.local.", dns.TypeSRV, []string{
			"NOERROR", "_http._tcp.web.shop.svc.cluster.local. 5 IN SRV 0 1 80 web.shop.svc.cluster.local.", "extra web.shop.svc.cluster.local. 5 IN A 10.80.0.10",
		}},
		{"_quic._udp.web.shop.svc.cluster.local.", dns.TypeSRV, []string{
			"NOERROR", "_quic._udp.web.shop.svc.cluster.local. 5 IN SRV 0 1 443 web.shop.svc.cluster.local.", "extra web.shop.svc.cluster.local. 5 IN A 10.80.0.10",
		}},
		{"_quic._tcp.web.shop.svc.cluster.local.", dns.TypeSRV, missing},
		{"_http._tcp.web.shop.svc.cluster.local.", dns.TypeA, nothing},
		{"_tcp.web.shop.svc.cluster.local.", dns.TypeSRV, nothing},
		{"_sctp.web.shop.svc.cluster.local.", dns.TypeSRV, missing},
		{"web-b.web.shop.svc.cluster.local.", dns.TypeA, []string{"NOERROR", "web-b.web.shop.svc.cluster.local. 5 IN A 10.90.0.6"}},
		{"10.0.80.10.in-addr.arpa.", dns.TypePTR, []string{"NOERROR", "10.0.80.10.in-addr.arpa. 5 IN PTR web.shop.svc.cluster.local."}},
		{"10.0.80.10.in-addr.arpa.", dns.TypeA, []string{"NOERROR", soa("80.10.in-addr.arpa.")}},

		{"db.shop.svc.cluster.local.", dns.TypeA, []string{
			"NOERROR", "db.shop.svc.cluster.local. 5 IN A 10.90.0.1", "db.shop.svc.cluster.local. 5 IN A 10.90.0.2", "db.shop.svc.cluster.local. 5 IN A 10.90.0.3",
		}},
		{"db.shop.svc.cluster.local.", dns.TypeAAAA, nothing},
		{"db-1.db.shop.svc.cluster.local.", dns.TypeA, []string{"NOERROR", "db-1.db.shop.svc.cluster.local. 5 IN A 10.90.0.2"}},
		{"10-90-0-3.db.shop.svc.cluster.local.", dns.TypeA, []string{"NOERROR", "10-90-0-3.db.shop.svc.cluster.local. 5 IN A 10.90.0.3"}},
		{"10-90-0-2.db.shop.svc.cluster.local.", dns.TypeA, missing},
		{"db-3.db.shop.svc.cluster.local.", dns.TypeA, missing},
		{"_metrics._tcp.db.shop.svc.cluster.local.", dns.TypeSRV, []string{
			"NOERROR", "_metrics._tcp.db.shop.svc.cluster.local. 5 IN SRV 0 1 9187 10-90-0-3.db.shop.svc.cluster.local.",
			"_metrics._tcp.db.shop.svc.cluster.local. 5 IN SRV 0 1 9187 db-1.db.shop.svc.cluster.local.",
			"extra 10-90-0-3.db.shop.svc.cluster.local. 5 IN A 10.90.0.3", "extra db-1.db.shop.svc.cluster.local. 5 IN A 10.90.0.2",
		}},
		{"2.0.90.10.in-addr.arpa.", dns.TypePTR, []string{"NOERROR", "2.0.90.10.in-addr.arpa. 5 IN PTR db-1.db.shop.svc.cluster.local."}},
		{"3.0.90.10.in-addr.arpa.", dns.TypePTR, []string{"NOERROR", "3.0.90.10.in-addr.arpa. 5 IN PTR 10-90-0-3.db.shop.svc.cluster.local."}},
		{"4.0.90.10.in-addr.arpa.", dns.TypePTR, []string{"NXDOMAIN", soa("90.10.in-addr.arpa.")}},
		{"2.0.90.10.in-addr.arpa.", dns.TypeTXT, []string{"NOERROR", soa("90.10.in-addr.arpa.")}},

		{"empty.shop.svc.cluster.local.", dns.TypeA, missing},
		{"_http._tcp.empty.shop.svc.cluster.local.", dns.TypeSRV, missing},

		{"elsewhere.shop.svc.cluster.local.", dns.TypeCNAME, []string{"NOERROR", "elsewhere.shop.svc.cluster.local. 5 IN CNAME www.example.org."}},
		{"elsewhere.shop.svc.cluster.local.", dns.TypeA, []string{"NOERROR", "elsewhere.shop.svc.cluster.local. 5 IN CNAME www.example.org."}}, // there is nobody to ask
		{"x.elsewhere.shop.svc.cluster.local.", dns.TypeA, missing},
		{"inside.shop.svc.cluster.local.", dns.TypeA, []string{
			"NOERROR", "inside.shop.svc.cluster.local. 5 IN CNAME web.shop.svc.cluster.local.", "web.shop.svc.cluster.local. 5 IN A 10.80.0.10",
		}},
		{"inside.shop.svc.cluster.local.", dns.TypeAAAA, []string{
			"NOERROR", "inside.shop.svc.cluster.local. 5 IN CNAME web.shop.svc.cluster.local.", soa("cluster.local."),
		}},
		{"loop.shop.svc.cluster.local.", dns.TypeA, []string{"SERVFAIL"}},

		{"10-90-7-8.anything.pod.cluster.local.", dns.TypeA, []string{"NOERROR", "10-90-7-8.anything.pod.cluster.local. 5 IN A 10.90.7.8"}},
		{"10-91-7-8.anything.pod.cluster.local.", dns.TypeA, missing},
		{"10-90-7.anything.pod.cluster.local.", dns.TypeA, missing},
		{"anything.pod.cluster.local.", dns.TypeA, nothing},
		{"pod.cluster.local.", dns.TypeA, nothing},

		{"svc.cluster.local.", dns.TypeA, nothing},
		{"shop.svc.cluster.local.", dns.TypeA, nothing},
		{"other.svc.cluster.local.", dns.TypeA, missing},
		{"nothing.shop.svc.cluster.local.", dns.TypeA, missing},
		{"a.b.c.web.shop.svc.cluster.local.", dns.TypeA, missing},
		{"nothing.cluster.local.", dns.TypeA, missing},
		{`web\.shop.svc.cluster.local.`, dns.TypeA, missing},
		{"notcluster.local.", dns.TypeA, []string{"SERVFAIL"}}, // not ours, and there is nobody to ask
	} {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(fmt.Sprintf("%s %s %s", test.name, dns.TypeToString[test.qtype], network), func(t *testing.T) {
				got := ask(t, network, server, query(test.name, test.qtype))
				if got.Question[0].Name != test.name {
					t.Errorf("asked for %s, answered for %s", test.name, got.Question[0].Name)
				}
				if diff := cmp.Diff(test.want, text(got)); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func TestUnknownUntilSet(t *testing.T) {
	s, server := start(t, options(), nil)
	if got := ask(t, "udp", server, query("web.shop.svc.cluster.local.", dns.TypeA)); got.Rcode != dns.RcodeServerFailure {
		t.Errorf("before the first Set: %v", text(got))
	}
	if err := s.Set(context.Background(), plan.Routes{}); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, "udp", server, query("web.shop.svc.cluster.local.", dns.TypeA)); got.Rcode != dns.RcodeNameError {
		t.Errorf("with no Services: %v", text(got))
	}
}

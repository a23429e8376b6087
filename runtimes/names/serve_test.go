package names

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

func many(n int) plan.Routes {
	var list []plan.Endpoint
	for i := range n {
		list = append(list, ready(fmt.Sprintf("10.90.%d.%d", i/250, i%250+1), "", 80))
	}
	return plan.Routes{newRoute("many", "None", list, tcp("http", 80))}
}

func TestTruncation(t *testing.T) {
	_, server := start(t, options(), many(300))
	for _, size := range []uint16{0, 100, 512, 1000, 1232, 4096, 65535} {
		m := query("many.shop.svc.cluster.local.", dns.TypeA)
		limit := 512
		if size > 0 {
			m.SetEdns0(size, false)
			limit = min(max(int(size), 512), udpSize)
		}
		raw, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("udp", server)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(raw); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 65536)
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got := new(dns.Msg)
		if err := got.Unpack(buf[:n]); err != nil {
			t.Fatal(err)
		}
		if n > limit || !got.Truncated || len(got.Answer) < 20 || (got.IsEdns0() != nil) != (size > 0) {
			t.Errorf("with %d: %d bytes, cut %v, %d answers, %v", size, n, got.Truncated, len(got.Answer), got.IsEdns0())
		}
	}
	if got := ask(t, "tcp", server, query("many.shop.svc.cluster.local.", dns.TypeA)); got.Truncated || len(got.Answer) != 300 {
		t.Errorf("over TCP: cut %v, %d answers", got.Truncated, len(got.Answer))
	}
}

func TestRotation(t *testing.T) {
	_, server := start(t, options(), shop())
	first := map[string]int{}
	for range 200 {
		m := ask(t, "udp", server, query("db.shop.svc.cluster.local.", dns.TypeA))
		first[m.Answer[0].(*dns.A).A.String()]++
	}
	if len(first) != 3 {
		t.Errorf("first of 200 answers: %v", first)
	}
}

func TestRefused(t *testing.T) {
	s, server := start(t, options(), shop())
	version := query("web.shop.svc.cluster.local.", dns.TypeA)
	version.SetEdns0(1232, false)
	version.IsEdns0().SetVersion(1)
	chaos := query("version.bind.", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	notify := new(dns.Msg).SetNotify("cluster.local.")
	update := new(dns.Msg).SetUpdate("cluster.local.")
	alone := query("www.example.org.", dns.TypeA)
	alone.RecursionDesired = false
	for _, test := range []struct {
		name string
		m    *dns.Msg
		want int
	}{
		{"transfer", new(dns.Msg).SetAxfr("cluster.local."), dns.RcodeRefused},
		{"EDNS version", version, dns.RcodeBadVers},
		{"class", chaos, dns.RcodeRefused},
		{"notify", notify, dns.RcodeNotImplemented},
		{"update", update, dns.RcodeNotImplemented},
		{"no recursion", alone, dns.RcodeRefused},
	} {
		if got := ask(t, "tcp", server, test.m); got.Rcode != test.want {
			t.Errorf("%s: %s", test.name, dns.RcodeToString[got.Rcode])
		}
	}
	want := []Answers{{KindRefused, "REFUSED", 3}, {KindRefused, "NOTIMP", 1}, {KindRefused, "BADVERS", 1}}
	got := s.Stats().Answers
	for _, a := range want {
		if !slices.Contains(got, a) && a.Rcode != "BADVERS" { // BADVERS and BADSIG are the same number
			t.Errorf("%+v is not among %+v", a, got)
		}
	}
}

// stream is one TCP connection on which messages are written and read.
type stream struct {
	testing.TB
	net.Conn
}

func (s stream) send(m *dns.Msg) {
	s.Helper()
	b, err := m.Pack()
	if err != nil {
		s.Fatal(err)
	}
	if _, err := s.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)); err != nil {
		s.Fatal(err)
	}
}

func (s stream) receive() *dns.Msg {
	s.Helper()
	m, err := (&dns.Conn{Conn: s.Conn}).ReadMsg()
	if err != nil {
		s.Fatal(err)
	}
	return m
}

func TestPipelining(t *testing.T) {
	release := make(chan struct{})
	answer := says(t, "x. 100 IN A 192.0.2.1")
	up := newWorld(t, func(w dns.ResponseWriter, req *dns.Msg) *dns.Msg {
		<-release
		return answer(w, req)
	})
	o := asking(up.address)
	o.Timeout = 20 * time.Second
	_, server := start(t, o, shop())
	c, err := net.Dial("tcp", server)
	if err != nil {
		t.Fatal(err)
	}
	s := stream{t, c}
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(20 * time.Second))
	const slow = 20
	for i := range slow {
		m := query(fmt.Sprintf("%d.example.org.", i), dns.TypeA)
		m.Id = uint16(i)
		s.send(m)
	}
	m := query("web.shop.svc.cluster.local.", dns.TypeA)
	m.Id = 1000
	s.send(m)
	if got := s.receive(); got.Id != 1000 || len(got.Answer) != 1 {
		t.Fatalf("a slow upstream holds up the cluster's names: %v", got)
	}
	// The client has nothing more to ask, and waits for its answers.
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	close(release)
	ids := map[uint16]bool{}
	for range slow {
		ids[s.receive().Id] = true
	}
	if len(ids) != slow {
		t.Errorf("%d of %d answers came", len(ids), slow)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection does not end: %v", err)
	}
}

func TestClients(t *testing.T) {
	o := options()
	o.Listen[0].Clients = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
	s, server := start(t, o, shop())
	from := func(ip string) error {
		d := &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(ip)}}
		c := &dns.Client{Dialer: d, Timeout: 300 * time.Millisecond}
		_, _, err := c.Exchange(query("web.shop.svc.cluster.local.", dns.TypeA), server)
		return err
	}
	if err := from("127.0.0.2"); err != nil {
		t.Error(err)
	}
	if err := from("127.0.0.3"); err == nil {
		t.Error("a stranger was answered")
	}
	if n := s.Stats().Dropped; n != 1 {
		t.Errorf("%d questions were dropped", n)
	}
}

func TestAddressThatAnotherHas(t *testing.T) {
	// Another program that would even share its address.
	config := net.ListenConfig{Control: control(true)}
	taken, err := config.ListenPacket(context.Background(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.LocalAddr().(*net.UDPAddr).AddrPort()
	type trouble struct {
		on  netip.AddrPort
		err error
	}
	told := make(chan trouble, 100)
	o := options()
	o.Listen = append(o.Listen, Address{AddrPort: address})
	o.OnTrouble = func(on netip.AddrPort, err error) { told <- trouble{on, err} }
	s, server := start(t, o, shop())
	if got := ask(t, "udp", server, query("web.shop.svc.cluster.local.", dns.TypeA)); len(got.Answer) != 1 {
		t.Errorf("%v", got)
	}
	first := <-told
	if first.on != address || !errors.Is(first.err, unix.EADDRINUSE) || !strings.Contains(first.err.Error(), "another program has the address") {
		t.Fatalf("%+v", first)
	}
	if st := s.Stats().Listening; len(st) != 2 || st[0].Err != nil || st[1].Err == nil {
		t.Errorf("%+v", st)
	}
	taken.Close()
	if second := <-told; second.on != address || second.err != nil {
		t.Fatalf("%+v", second)
	}
	for _, network := range []string{"udp", "tcp"} {
		if got := ask(t, network, address.String(), query("web.shop.svc.cluster.local.", dns.TypeA)); len(got.Answer) != 1 {
			t.Errorf("%v", got)
		}
	}
	if again, err := New(Options{Listen: []Address{{AddrPort: address}}, OnTrouble: func(_ netip.AddrPort, err error) { told <- trouble{err: err} }}); err != nil {
		t.Error(err)
	} else {
		if tr := <-told; !errors.Is(tr.err, unix.EADDRINUSE) {
			t.Errorf("two of us share an address: %v", tr.err)
		}
		again.Close()
	}
}

// TestStoppingIsNoTrouble: a server that is closed while it listens has nothing to tell.
func TestStoppingIsNoTrouble(t *testing.T) {
	o := options()
	var told []error
	o.OnTrouble = func(_ netip.AddrPort, err error) { told = append(told, err) }
	s, server := start(t, o, shop())
	ask(t, "udp", server, query("web.shop.svc.cluster.local.", dns.TypeA))
	s.Close()
	if len(told) > 0 {
		t.Errorf("told of %v", told)
	}
}

func TestBridgeComesAndGoes(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("making a bridge needs root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("there is no ip: install iproute2")
	}
	bridge := fmt.Sprintf("flnm%d", os.Getpid()%1_000_000)
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %s", args, out)
		}
	}
	made := false
	t.Cleanup(func() {
		if made {
			_ = exec.Command("ip", "link", "delete", bridge).Run()
		}
	})
	build := func() {
		ip("link", "add", bridge, "type", "bridge")
		made = true
		ip("address", "add", "198.18.77.1/24", "dev", bridge)
		ip("link", "set", bridge, "up")
	}
	o := options()
	o.Listen = []Address{{AddrPort: netip.MustParseAddrPort("198.18.77.1:0")}}
	_, server := start(t, o, shop())
	for range 2 {
		build()
		for _, network := range []string{"udp", "tcp"} {
			if got := ask(t, network, server, query("web.shop.svc.cluster.local.", dns.TypeA)); len(got.Answer) != 1 {
				t.Errorf("%v", got)
			}
		}
		ip("link", "delete", bridge)
		made = false
	}
}

// TestResolvers has Go's resolver and the C library's look names up as a pod's resolv.conf has it.
func TestResolvers(t *testing.T) {
	if os.Getenv("FAIRLEAD_NAMES_RESOLVE") != "" {
		resolveInside(t)
		return
	}
	if os.Getuid() != 0 {
		t.Skip("a resolv.conf of one's own needs root")
	}
	if out, err := exec.Command("unshare", "-m", "true").CombinedOutput(); err != nil {
		t.Skipf("a resolv.conf of one's own needs a mount namespace: %s", out)
	}
	answer := says(t, "www.example.org. 100 IN A 192.0.2.1")
	up := newWorld(t, func(w dns.ResponseWriter, req *dns.Msg) *dns.Msg {
		if req.Question[0].Name != "www.example.org." {
			return new(dns.Msg).SetRcode(req, dns.RcodeNameError)
		}
		return answer(w, req)
	})
	o := asking(up.address)
	o.Listen = []Address{{AddrPort: netip.MustParseAddrPort("127.83.19.53:53")}}
	start(t, o, append(shop(), many(100)...))
	dir := t.TempDir()
	for name, content := range map[string]string{
		"resolv.conf":   "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 127.83.19.53\noptions ndots:5\n",
		"nsswitch.conf": "hosts: dns\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	script := `mount --make-rprivate / && mount --bind "$1/resolv.conf" "$(readlink -f /etc/resolv.conf)" && mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf &&
exec "$2" -test.run '^TestResolvers$' -test.v`
	cmd := exec.Command("unshare", "-m", "sh", "-ec", script, "sh", dir, os.Args[0])
	cmd.Env = append(os.Environ(), "FAIRLEAD_NAMES_RESOLVE=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("PASS")) {
		t.Fatalf("%v\n%s", err, out)
	}
}

func resolveInside(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r := &net.Resolver{PreferGo: true}
	look := func(name string, want ...string) {
		t.Helper()
		got, err := r.LookupHost(ctx, name)
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("Go: %s: %v %v", name, got, err)
		}
		getent, err := exec.LookPath("getent")
		if err != nil {
			return
		}
		out, err := exec.Command(getent, "ahostsv4", name).CombinedOutput()
		for _, ip := range want {
			if err != nil || !bytes.Contains(out, []byte(ip+" ")) {
				t.Errorf("C library: %s: %v %s", name, err, out)
				return
			}
		}
	}
	look("web", "10.80.0.10")
	look("web.shop", "10.80.0.10")
	look("web.shop.svc", "10.80.0.10")
	look("web.shop.svc.cluster.local", "10.80.0.10")
	look("web.shop.svc.cluster.local.", "10.80.0.10")
	look("db", "10.90.0.1", "10.90.0.2", "10.90.0.3")
	look("db-1.db", "10.90.0.2")
	look("www.example.org", "192.0.2.1")
	look("inside", "10.80.0.10")
	if got, err := r.LookupHost(ctx, "many"); err != nil || len(got) != 100 { // over TCP
		t.Errorf("many: %d addresses, %v", len(got), err)
	}
	_, err := r.LookupHost(ctx, "nothing")
	if e := (*net.DNSError)(nil); !errors.As(err, &e) || e.IsTemporary && !e.IsNotFound {
		t.Errorf("nothing: %v", err)
	}
	if cname, srv, err := r.LookupSRV(ctx, "sql", "tcp", "db.shop.svc.cluster.local"); err != nil || len(srv) != 3 || srv[0].Port != 5432 {
		t.Errorf("SRV: %s %v %v", cname, srv, err)
	}
	if got, err := r.LookupAddr(ctx, "10.90.0.2"); err != nil || !slices.Contains(got, "db-1.db.shop.svc.cluster.local.") {
		t.Errorf("PTR: %v %v", got, err)
	}
	if got, err := r.LookupTXT(ctx, "dns-version.cluster.local."); err != nil || !slices.Equal(got, []string{"1.1.0"}) {
		t.Errorf("TXT: %v %v", got, err)
	}
}

func TestDig(t *testing.T) {
	dig, err := exec.LookPath("dig")
	if err != nil {
		t.Skip("there is no dig: install dnsutils (Debian) or bind-utils")
	}
	_, server := start(t, options(), append(shop(), many(300)...))
	host, port, _ := net.SplitHostPort(server)
	for _, test := range []struct{ args, want string }{
		{"web.shop.svc.cluster.local A +short", "10.80.0.10"},
		{"-x 10.80.0.10 +short", "web.shop.svc.cluster.local."},
		{"many.shop.svc.cluster.local A", "ANSWER: 300"}, // which dig asks for again over TCP
		{"nothing.shop.svc.cluster.local A", "status: NXDOMAIN"},
		{"_http._tcp.web.shop.svc.cluster.local SRV +short", "0 1 80 web.shop.svc.cluster.local."},
		{"+tcp +keepopen web.shop.svc.cluster.local A", "flags: qr aa rd ra;"},
	} {
		out, err := exec.Command(dig, append([]string{"@" + host, "-p", port}, strings.Fields(test.args)...)...).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte(test.want)) || bytes.Contains(out, []byte("Warning: Message parser")) {
			t.Errorf("dig %s: %v\n%s", test.args, err, out)
		}
	}
}

func TestSetUnderLoad(t *testing.T) {
	table := func(n int) plan.Routes {
		n %= 250
		return plan.Routes{newRoute("db", "None", []plan.Endpoint{ready(fmt.Sprintf("10.90.%d.1", n), ""), ready(fmt.Sprintf("10.90.%d.2", n), "")})}
	}
	s, server := start(t, options(), table(0))
	stop := make(chan struct{})
	var clients sync.WaitGroup
	var answers atomic.Int64
	for _, network := range []string{"udp", "tcp", "udp", "udp"} {
		clients.Go(func() {
			c, err := dns.Dial(network, server)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(30 * time.Second))
			for {
				select {
				case <-stop:
					return
				default:
				}
				m := query("db.shop.svc.cluster.local.", dns.TypeA)
				if err := c.WriteMsg(m); err != nil {
					t.Error(err)
					return
				}
				got, err := c.ReadMsg()
				// Every answer is that of one table: two addresses in 10.90.N.0, for one N.
				if err != nil || got.Id != m.Id || len(got.Answer) != 2 || got.Answer[0].(*dns.A).A[2] != got.Answer[1].(*dns.A).A[2] {
					t.Errorf("%v %v", err, got)
					return
				}
				answers.Add(1)
			}
		})
	}
	for n := 0; n < 300 || answers.Load() < 300; n++ {
		if err := s.Set(context.Background(), table(n)); err != nil {
			t.Fatal(err)
		}
		got := ask(t, "udp", server, query("db.shop.svc.cluster.local.", dns.TypeA))
		if third := got.Answer[0].(*dns.A).A[2]; int(third) != n%250 {
			t.Fatalf("after Set an answer is from before it: %d, not %d", third, n%250)
		}
		if t.Failed() {
			break
		}
	}
	close(stop)
	clients.Wait()
}

func TestFlood(t *testing.T) {
	up := newWorld(t, silent)
	o := asking(up.address)
	o.Timeout = 500 * time.Millisecond
	s, server := start(t, o, shop())
	c, err := net.Dial("udp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	junk := make([]byte, 600)
	for i := range 20000 {
		var raw []byte
		if i%2 == 0 {
			raw = junk[:rand.IntN(len(junk))]
			for j := range raw {
				raw[j] = byte(rand.Uint32())
			}
		} else if raw, err = query(fmt.Sprintf("%d.example.org.", i), dns.TypeA).Pack(); err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(raw)
		if w := s.Stats().Waiting; w > maxWaiting {
			t.Fatalf("%d questions wait", w)
		}
	}
	for _, network := range []string{"udp", "tcp"} {
		if got := ask(t, network, server, query("web.shop.svc.cluster.local.", dns.TypeA)); len(got.Answer) != 1 {
			t.Errorf("%v", got)
		}
	}
	if n := s.Stats().CacheEntries; n > 0 {
		t.Errorf("%d failures are kept", n)
	}
}

// writer keeps what a handler writes.
type writer struct {
	dns.ResponseWriter
	to      net.Addr
	written [][]byte
}

func (w *writer) RemoteAddr() net.Addr { return w.to }
func (w *writer) LocalAddr() net.Addr  { return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 53} }
func (w *writer) Write(b []byte) (int, error) {
	w.written = append(w.written, slices.Clone(b))
	return len(b), nil
}

func FuzzAnswer(f *testing.F) {
	for _, m := range []*dns.Msg{
		query("web.shop.svc.cluster.local.", dns.TypeA), query("_http._tcp.web.shop.svc.cluster.local.", dns.TypeSRV),
		query("1.0.90.10.in-addr.arpa.", dns.TypePTR), query("10-90-0-1.x.pod.cluster.local.", dns.TypeANY),
		query("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.", dns.TypePTR),
		query("loop.shop.svc.cluster.local.", dns.TypeA), query(".", dns.TypeNS), query(`a\.b.\000.cluster.local.`, dns.TypeTXT),
	} {
		m.SetEdns0(4096, true)
		raw, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	o := options()
	o.Listen = nil
	s, err := New(o)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	if err := s.Set(context.Background(), append(shop(), many(300)...)); err != nil {
		f.Fatal(err)
	}
	h := &handler{Server: s, listener: newListener(s, Address{})}
	f.Fuzz(func(t *testing.T, raw []byte) {
		req := new(dns.Msg)
		if req.Unpack(raw) != nil {
			return
		}
		w := &writer{to: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5353}}
		h.ServeDNS(w, req.Copy())
		if len(w.written) != 1 {
			t.Fatalf("%d answers", len(w.written))
		}
		if len(w.written[0]) > udpSize {
			t.Fatalf("%d bytes over UDP", len(w.written[0]))
		}
		got := new(dns.Msg)
		if err := got.Unpack(w.written[0]); err != nil {
			t.Fatal(err)
		}
		if got.Id != req.Id || !got.Response || !reflect.DeepEqual(got.Question, req.Question) && len(req.Question) > 0 {
			t.Fatalf("%v\nis no answer to\n%v", got, req)
		}
	})
}

// TestSetIsTheSameInSteps holds that a table does not depend on what was there before.
func TestSetIsTheSameInSteps(t *testing.T) {
	routes := rapid.Custom(func(t *rapid.T) plan.Routes {
		var out plan.Routes
		for _, name := range []string{"a", "b", "c"} {
			for _, ns := range []string{"x", "y"} {
				var list []plan.Endpoint
				for i := range rapid.IntRange(0, 3).Draw(t, "endpoints") {
					e := ready(fmt.Sprintf("10.90.0.%d", rapid.IntRange(1, 4).Draw(t, "address")), "", 80)
					e.Ready = rapid.Bool().Draw(t, "ready")
					if rapid.Bool().Draw(t, "named") {
						e.Hostname = fmt.Sprint("h", i)
					}
					list = append(list, e)
				}
				ip := rapid.SampledFrom([]string{"None", "10.80.0.1", "10.80.0.2", ""}).Draw(t, "ip")
				r := newRoute(name, ip, list, tcp("http", 80))
				r.Ref.Namespace = ns
				if rapid.IntRange(0, 4).Draw(t, "external") == 0 {
					r.Spec.Type, r.Spec.ExternalName = corev1.ServiceTypeExternalName, "example.org"
				}
				if rapid.Bool().Draw(t, "there") {
					out = append(out, r)
				}
			}
		}
		slices.SortFunc(out, func(a, b *plan.Route) int { return object.Compare(a.Ref, b.Ref) })
		return out
	})
	rapid.Check(t, func(t *rapid.T) {
		var stepwise *table
		var last plan.Routes
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			next := routes.Draw(t, "routes")
			for i, r := range next { // some did not change
				for _, have := range last {
					if have.Ref == r.Ref && rapid.Bool().Draw(t, "same") {
						next[i] = have
					}
				}
			}
			stepwise, last = stepwise.with(next, "cluster.local."), next
		}
		var nothing *table
		if diff := cmp.Diff(view(nothing.with(last, "cluster.local.")), view(stepwise)); diff != "" {
			t.Fatal(diff)
		}
	})
}

// view is what a table says, in an order.
func view(t *table) map[string]string {
	out := map[string]string{"namespaces": fmt.Sprint(t.namespaces)}
	for _, m := range t.services {
		for k, e := range m {
			var ports []string
			for protocol, list := range e.ports {
				for port, targets := range list {
					for _, x := range targets {
						ports = append(ports, fmt.Sprint(protocol, port, *x.addresses, x.name, x.port))
					}
				}
			}
			slices.Sort(ports)
			out[fmt.Sprint(k)] = fmt.Sprint(e.name, e.external, e.gone, e.addresses, len(e.hosts), ports)
		}
	}
	for _, m := range t.addresses {
		for ip, list := range m {
			var names []string
			for _, p := range list {
				names = append(names, p.name)
			}
			slices.Sort(names)
			out[ip.String()] = fmt.Sprint(names)
		}
	}
	return out
}

// big is a cluster of so many Services with ten endpoints each, every second one headless.
func big(n int) plan.Routes {
	var out plan.Routes
	for i := range n {
		var list []plan.Endpoint
		for j := range 10 {
			list = append(list, ready(fmt.Sprintf("10.%d.%d.%d", 100+i/250, i%250, j+1), "", 8080))
		}
		ip := fmt.Sprintf("10.80.%d.%d", i/250, i%250+1)
		if i%2 == 0 {
			ip = "None"
		}
		out = append(out, newRoute(fmt.Sprintf("service-%04d", i), ip, list, tcp("http", 80)))
	}
	return out
}

// BenchmarkSet is the time of one changed endpoint among 1,000 Services with ten endpoints each.
func BenchmarkSet(b *testing.B) {
	routes := big(1000)
	for _, bench := range []struct {
		name  string
		index int
	}{{"headless", 500}, {"cluster address", 501}} {
		b.Run(bench.name, func(b *testing.B) {
			var nothing *table
			t := nothing.with(routes, "cluster.local.")
			changed := slices.Clone(routes)
			up := *routes[bench.index]
			down := up
			down.Endpoints = slices.Clone(up.Endpoints)
			down.Endpoints[3].Ready = false
			both := [2]*plan.Route{&down, &up}
			i := 0
			for b.Loop() {
				changed[bench.index] = both[i%2]
				t = t.with(changed, "cluster.local.")
				i++
			}
		})
	}
	b.Run("all anew", func(b *testing.B) {
		for b.Loop() {
			var nothing *table
			nothing.with(routes, "cluster.local.")
		}
	})
}

package names

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// world is an upstream server.
type world struct {
	address netip.AddrPort
	asked   atomic.Int64
	answer  atomic.Pointer[func(dns.ResponseWriter, *dns.Msg) *dns.Msg]
	close   func()
}

func (w *world) set(answer func(dns.ResponseWriter, *dns.Msg) *dns.Msg) { w.answer.Store(&answer) }

// newWorld returns an upstream that answers over UDP and TCP on a port of the loopback.
func newWorld(t testing.TB, answer func(w dns.ResponseWriter, req *dns.Msg) *dns.Msg) *world {
	t.Helper()
	w := &world{}
	w.set(answer)
	handler := dns.HandlerFunc(func(rw dns.ResponseWriter, req *dns.Msg) {
		w.asked.Add(1)
		if m := (*w.answer.Load())(rw, req); m != nil {
			_ = rw.WriteMsg(m)
		}
	})
	var stop []func()
	for range 20 { // a port that is free for UDP may not be for TCP
		p, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		w.address = p.LocalAddr().(*net.UDPAddr).AddrPort()
		l, err := net.Listen("tcp", w.address.String())
		if err != nil {
			p.Close()
			continue
		}
		for _, s := range []*dns.Server{{PacketConn: p, Handler: handler}, {Listener: l, Handler: handler}} {
			started, ended := make(chan struct{}), make(chan struct{})
			s.NotifyStartedFunc = func() { close(started) }
			go func() {
				defer close(ended)
				_ = s.ActivateAndServe()
			}()
			<-started
			stop = append(stop, func() {
				_ = s.Shutdown()
				<-ended
			})
		}
		w.close = sync.OnceFunc(func() {
			for _, f := range stop {
				f()
			}
		})
		t.Cleanup(w.close)
		return w
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil
}

func records(t testing.TB, lines ...string) []dns.RR {
	t.Helper()
	var out []dns.RR
	for _, l := range lines {
		rr, err := dns.NewRR(l)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, rr)
	}
	return out
}

// says is an upstream that answers every question with these records.
func says(t testing.TB, lines ...string) func(dns.ResponseWriter, *dns.Msg) *dns.Msg {
	rrs := records(t, lines...)
	return func(_ dns.ResponseWriter, req *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(req)
		for _, rr := range rrs {
			m.Answer = append(m.Answer, dns.Copy(rr))
		}
		return m
	}
}

func code(rcode int) func(dns.ResponseWriter, *dns.Msg) *dns.Msg {
	return func(_ dns.ResponseWriter, req *dns.Msg) *dns.Msg { return new(dns.Msg).SetRcode(req, rcode) }
}

func silent(dns.ResponseWriter, *dns.Msg) *dns.Msg { return nil }

// nowhere is an address on which nobody answers and every question is refused at once.
func nowhere(t testing.TB) netip.AddrPort {
	t.Helper()
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	return p.LocalAddr().(*net.UDPAddr).AddrPort()
}

func asking(servers ...netip.AddrPort) Options {
	o := options()
	o.Upstreams = servers
	return o
}

func TestForwardedAnswersAreKept(t *testing.T) {
	up := newWorld(t, says(t, "www.example.org. 100 IN A 192.0.2.1"))
	s, server := start(t, asking(up.address), shop())
	for _, name := range []string{"www.example.org.", "WWW.Example.ORG.", "www.example.org."} {
		got := ask(t, "udp", server, query(name, dns.TypeA))
		if len(got.Answer) != 1 || got.Answer[0].Header().Name != name || !got.RecursionAvailable || got.Authoritative {
			t.Errorf("%s: %v", name, got)
		}
	}
	if n := up.asked.Load(); n != 1 {
		t.Errorf("the upstream was asked %d times", n)
	}
	if st := s.Stats(); st.CacheHits != 2 || st.CacheMisses != 1 || st.CacheEntries != 1 {
		t.Errorf("%+v", st)
	}
	// Another type, and DNSSEC, are other questions.
	ask(t, "udp", server, query("www.example.org.", dns.TypeAAAA))
	m := query("www.example.org.", dns.TypeA)
	m.SetEdns0(1232, true)
	ask(t, "udp", server, m)
	if n := up.asked.Load(); n != 3 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

func TestForwardedNothing(t *testing.T) {
	up := newWorld(t, func(_ dns.ResponseWriter, req *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(req)
		switch {
		case strings.HasPrefix(req.Question[0].Name, "missing."):
			m.Rcode = dns.RcodeNameError
		case strings.HasPrefix(req.Question[0].Name, "alone."):
			return m // says nothing, and not for how long
		}
		m.Ns = records(t, "example.org. 3600 IN SOA ns. mail. 1 2 3 4 60")
		return m
	})
	_, server := start(t, asking(up.address), shop())
	for _, test := range []struct {
		name  string
		rcode int
		asked int64
	}{{"missing.example.org.", dns.RcodeNameError, 1}, {"empty.example.org.", dns.RcodeSuccess, 1}, {"alone.example.org.", dns.RcodeSuccess, 2}} {
		before := up.asked.Load()
		for range 2 {
			got := ask(t, "udp", server, query(test.name, dns.TypeA))
			if got.Rcode != test.rcode || len(got.Answer) > 0 {
				t.Errorf("%s: %v", test.name, got)
			}
		}
		if n := up.asked.Load() - before; n != test.asked {
			t.Errorf("%s: the upstream was asked %d times, not %d", test.name, n, test.asked)
		}
	}
}

func TestCacheKeepsTime(t *testing.T) {
	answer := func(q question, lines ...string) *dns.Msg {
		m := new(dns.Msg).SetQuestion(q.name, q.qtype)
		m.Response = true
		m.Answer = records(t, lines...)
		return m
	}
	synctest.Test(t, func(t *testing.T) {
		c := newCache(2, time.Hour)
		q := question{name: "a.example.", qtype: dns.TypeA}
		c.put(q, answer(q, "a.example. 100 IN CNAME b.example.", "b.example. 10 IN A 192.0.2.1"), time.Now())
		ttls := func() (out []uint32, fresh bool) {
			m, fresh := c.get(q, time.Now())
			if m == nil {
				return nil, false
			}
			for _, rr := range m.Answer {
				out = append(out, rr.Header().Ttl)
			}
			return out, fresh
		}
		time.Sleep(4 * time.Second)
		if got, fresh := ttls(); !fresh || !slices.Equal(got, []uint32{6, 6}) {
			t.Errorf("after 4 s: %v %v", got, fresh)
		}
		time.Sleep(6 * time.Second)
		if got, fresh := ttls(); fresh || !slices.Equal(got, []uint32{30, 30}) {
			t.Errorf("too old: %v %v", got, fresh)
		}
		time.Sleep(time.Hour + time.Second)
		if got, _ := ttls(); got != nil || c.size() != 0 {
			t.Errorf("far too old: %v", got)
		}

		for i := range 3 { // what was used last stays
			q := question{name: fmt.Sprintf("%d.example.", i), qtype: dns.TypeA}
			c.put(q, answer(q, q.name+" 100 IN A 192.0.2.1"), time.Now())
			c.get(question{name: "0.example.", qtype: dns.TypeA}, time.Now())
		}
		zero, _ := c.get(question{name: "0.example.", qtype: dns.TypeA}, time.Now())
		one, _ := c.get(question{name: "1.example.", qtype: dns.TypeA}, time.Now())
		if c.size() != 2 || zero == nil || one != nil {
			t.Errorf("%d answers are kept, of 0 %v, of 1 %v", c.size(), zero != nil, one != nil)
		}
		q = question{name: "zero.example.", qtype: dns.TypeA}
		c.put(q, answer(q, "zero.example. 0 IN A 192.0.2.1"), time.Now())
		if m, _ := c.get(q, time.Now()); m != nil {
			t.Error("an answer that is not to be kept was kept")
		}
	})
}

func TestCacheBytesAreBounded(t *testing.T) {
	c := newCache(1_000_000, time.Hour)
	for i := range 5000 {
		q := question{name: fmt.Sprintf("%d.example.", i), qtype: dns.TypeTXT}
		m := new(dns.Msg).SetQuestion(q.name, q.qtype)
		m.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: q.name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 100}, Txt: slices.Repeat([]string{strings.Repeat("x", 250)}, 50)}}
		c.put(q, m, time.Now())
	}
	if c.bytes > maxCacheBytes || c.size() < 2000 || c.size() > 2700 {
		t.Errorf("%d answers with %d bytes", c.size(), c.bytes)
	}
	for c.used.Len() > 0 {
		c.remove(c.used.Front())
	}
	if c.bytes != 0 || c.size() != 0 {
		t.Errorf("%d bytes are left of nothing", c.bytes)
	}
}

func TestNextServer(t *testing.T) {
	good := newWorld(t, says(t, "www.example.org. 100 IN A 192.0.2.1"))
	for name, bad := range map[string]netip.AddrPort{
		"refused":  nowhere(t),
		"silent":   newWorld(t, silent).address,
		"servfail": newWorld(t, code(dns.RcodeServerFailure)).address,
		"denied":   newWorld(t, code(dns.RcodeRefused)).address,
	} {
		t.Run(name, func(t *testing.T) {
			o := asking(bad, good.address)
			o.Timeout = 300 * time.Millisecond
			_, server := start(t, o, shop())
			if got := ask(t, "udp", server, query("www.example.org.", dns.TypeA)); len(got.Answer) != 1 {
				t.Error(got)
			}
		})
	}
}

func TestDeadUpstreams(t *testing.T) {
	dead := newWorld(t, silent)
	o := asking(dead.address)
	o.Timeout = 200 * time.Millisecond
	s, server := start(t, o, shop())
	for i := range 20 {
		if got := ask(t, "udp", server, query(fmt.Sprintf("%d.example.org.", i), dns.TypeA)); got.Rcode != dns.RcodeServerFailure {
			t.Errorf("%v", got)
		}
		if got := ask(t, "udp", server, query("web.shop.svc.cluster.local.", dns.TypeA)); len(got.Answer) != 1 {
			t.Errorf("%v", got)
		}
	}
	// Three failures and what was tried once a second since.
	if n := dead.asked.Load(); n < failures || n > 15 {
		t.Errorf("the dead upstream was asked %d times for 20 questions", n)
	}
	if u := s.Stats().Upstreams; len(u) != 1 || !u[0].Down || u[0].Failed == 0 || u[0].Domain != "." {
		t.Errorf("%+v", u)
	}
	dead.set(says(t, "x.example.org. 100 IN A 192.0.2.1"))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if got := ask(t, "udp", server, query("x.example.org.", dns.TypeA)); len(got.Answer) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("an upstream that is back is not asked")
		}
	}
	if u := s.Stats().Upstreams; u[0].Down || u[0].Latencies.Count != 1 {
		t.Errorf("%+v", u)
	}
}

func TestStaleAnswers(t *testing.T) {
	up := newWorld(t, says(t, "www.example.org. 1 IN A 192.0.2.1"))
	o := asking(up.address)
	o.Timeout = 200 * time.Millisecond
	s, server := start(t, o, shop())
	ask(t, "udp", server, query("www.example.org.", dns.TypeA))
	for _, answer := range []func(dns.ResponseWriter, *dns.Msg) *dns.Msg{silent, code(dns.RcodeServerFailure)} {
		up.set(answer)
		time.Sleep(1100 * time.Millisecond)
		got := ask(t, "udp", server, query("www.example.org.", dns.TypeA))
		if diff := cmp.Diff([]string{"NOERROR", "www.example.org. 30 IN A 192.0.2.1"}, text(got)); diff != "" {
			t.Error(diff)
		}
	}
	if n := s.Stats().CacheStale; n != 2 {
		t.Errorf("%d answers were too old", n)
	}
	up.set(code(dns.RcodeNameError)) // that is an answer
	time.Sleep(1100 * time.Millisecond)
	if got := ask(t, "udp", server, query("www.example.org.", dns.TypeA)); got.Rcode != dns.RcodeNameError {
		t.Errorf("%v", got)
	}
}

func TestOneQuestionForMany(t *testing.T) {
	release := make(chan struct{})
	up := newWorld(t, func(_ dns.ResponseWriter, req *dns.Msg) *dns.Msg {
		<-release
		return says(t, "www.example.org. 100 IN A 192.0.2.1")(nil, req)
	})
	o := asking(up.address)
	o.Timeout = 20 * time.Second
	s, server := start(t, o, shop())
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if got := ask(t, "udp", server, query("www.example.org.", dns.TypeA)); len(got.Answer) != 1 {
				t.Errorf("%v", got)
			}
		})
	}
	for s.Stats().Waiting < 50 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	all.Wait()
	if n, st := up.asked.Load(), s.Stats(); n != 1 || st.CacheShared != 49 || st.Waiting != 0 {
		t.Errorf("the upstream was asked %d times, %+v", n, st)
	}
}

func TestLargeAnswersComeOverTCP(t *testing.T) {
	var lines []string
	for i := range 200 {
		lines = append(lines, fmt.Sprintf("big.example.org. 100 IN A 192.0.2.%d", i))
	}
	var networks sync.Map
	all := says(t, lines...)
	up := newWorld(t, func(w dns.ResponseWriter, req *dns.Msg) *dns.Msg {
		network := w.LocalAddr().Network()
		networks.Store(network, true)
		m := all(w, req)
		if network == "udp" {
			m.Truncate(512)
		}
		return m
	})
	_, server := start(t, asking(up.address), shop())
	if got := ask(t, "tcp", server, query("big.example.org.", dns.TypeA)); len(got.Answer) != 200 || got.Truncated {
		t.Errorf("%d answers, cut: %v", len(got.Answer), got.Truncated)
	}
	if _, ok := networks.Load("tcp"); !ok {
		t.Error("the upstream was not asked over TCP")
	}
	if got := ask(t, "udp", server, query("big.example.org.", dns.TypeA)); !got.Truncated || len(got.Answer) >= 200 {
		t.Errorf("%d answers, cut: %v", len(got.Answer), got.Truncated)
	}
}

func TestDomains(t *testing.T) {
	consul := newWorld(t, says(t, "web.service.consul. 0 IN A 192.0.2.7"))
	inner := newWorld(t, says(t, "a.dc1.consul. 0 IN A 192.0.2.8"))
	other := newWorld(t, code(dns.RcodeNameError))
	o := asking(other.address)
	o.Domains = map[string][]netip.AddrPort{"consul": {consul.address}, "DC1.consul.": {inner.address}}
	_, server := start(t, o, shop())
	for name, want := range map[string]*world{
		"web.service.consul.": consul, "Web.Service.CONSUL.": consul, "consul.": consul, "a.dc1.consul.": inner, "xdc1.consul.": consul,
		"notconsul.": other, "consul.example.org.": other,
	} {
		before := want.asked.Load()
		ask(t, "udp", server, query(name, dns.TypeA))
		if want.asked.Load() != before+1 {
			t.Errorf("%s was asked of another server", name)
		}
	}
	consul.close()
	if got := ask(t, "udp", server, query("web.service.consul.", dns.TypeA)); got.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v", got)
	}
}

func TestExternalNames(t *testing.T) {
	up := newWorld(t, says(t, "www.example.org. 100 IN A 192.0.2.1"))
	o := asking(up.address)
	o.Timeout = 200 * time.Millisecond
	_, server := start(t, o, shop())
	want := []string{"NOERROR", "elsewhere.shop.svc.cluster.local. 5 IN CNAME www.example.org.", "www.example.org. 100 IN A 192.0.2.1"}
	if diff := cmp.Diff(want, text(ask(t, "udp", server, query("elsewhere.shop.svc.cluster.local.", dns.TypeA)))); diff != "" {
		t.Error(diff)
	}
	up.set(code(dns.RcodeNameError))
	want = []string{"NXDOMAIN", "elsewhere.shop.svc.cluster.local. 5 IN CNAME www.example.org."}
	if diff := cmp.Diff(want, text(ask(t, "tcp", server, query("elsewhere.shop.svc.cluster.local.", dns.TypeAAAA)))); diff != "" {
		t.Error(diff)
	}
	up.set(silent)
	if got := ask(t, "udp", server, query("elsewhere.shop.svc.cluster.local.", dns.TypeMX)); got.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v", got)
	}
}

func TestForgeries(t *testing.T) {
	// An upstream's port at which, before every answer, forgeries arrive from the right address.
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	ports, ids := map[string]bool{}, map[uint16]bool{}
	done.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			req := new(dns.Msg)
			if req.Unpack(buf[:n]) != nil {
				continue
			}
			ports[from.String()], ids[req.Id] = true, true
			send := func(change func(*dns.Msg), ip string) {
				m := new(dns.Msg).SetReply(req)
				m.Question = slices.Clone(m.Question)
				m.Answer = records(t, req.Question[0].Name+" 100 IN A "+ip)
				change(m)
				b, _ := m.Pack()
				_, _ = p.WriteTo(b, from)
			}
			evil := "192.0.2.66"
			_, _ = p.WriteTo([]byte("garbage"), from)
			_, _ = p.WriteTo(append(slices.Clone(buf[:12]), 0xff, 0xff, 0xff), from)
			send(func(m *dns.Msg) { m.Id++ }, evil)
			send(func(m *dns.Msg) { m.Question[0].Name = "other.example.org." }, evil)
			send(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMX }, evil)
			send(func(m *dns.Msg) { m.Question = nil }, evil)
			send(func(m *dns.Msg) { m.Response = false }, evil)
			// The real one says things about others, which nobody asked it.
			send(func(m *dns.Msg) { m.Extra = records(t, "victim.example.org. 1000 IN A "+evil) }, "192.0.2.1")
		}
	})
	_, server := start(t, asking(p.LocalAddr().(*net.UDPAddr).AddrPort()), shop())
	for i := range 20 {
		name := fmt.Sprintf("%d.example.org.", i)
		if i == 19 {
			name = "victim.example.org."
		}
		got := ask(t, "udp", server, query(name, dns.TypeA))
		if len(got.Answer) != 1 || got.Answer[0].(*dns.A).A.String() != "192.0.2.1" {
			t.Errorf("%s: %v", name, got)
		}
	}
	p.Close()
	done.Wait()
	if len(ports) < 15 || len(ids) < 15 {
		t.Errorf("20 questions came from %d ports with %d numbers", len(ports), len(ids))
	}
}

func TestNeverAsksItself(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mine := netip.MustParseAddrPort("127.0.0.1:53")
	write("nameserver 127.0.0.1\nnameserver 127.0.0.53\nnameserver 192.0.2.53\n")
	ours := func(a netip.AddrPort) bool { return a == mine }
	if got := newHostServers(file, ours).get(); !slices.Equal(got, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}) {
		t.Errorf("%v", got)
	}
	write("nameserver 127.0.0.1\nnameserver 127.0.0.53\n")
	if got := newHostServers(file, ours).get(); !slices.Equal(got, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.53:53")}) {
		t.Errorf("%v", got)
	}
	write("nameserver 127.0.0.1\n")
	h := newHostServers(file, ours)
	if got := h.get(); len(got) > 0 {
		t.Errorf("%v", got)
	}
	write("nameserver 192.0.2.54\nnameserver ::1\n")
	h.looked = time.Time{}
	if got := h.get(); !slices.Equal(got, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.54:53"), netip.MustParseAddrPort("[::1]:53")}) {
		t.Errorf("what changed is not read: %v", got)
	}

	// A port that is only known later, and a server that is told to ask itself.
	free := nowhere(t)
	o := asking(free)
	o.Listen = []Address{{AddrPort: free}}
	s, server := start(t, o, shop())
	if !s.ours(free) || s.ours(netip.AddrPortFrom(free.Addr(), 1)) {
		t.Error("it does not know itself")
	}
	if got := ask(t, "udp", server, query("www.example.org.", dns.TypeA)); got.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v", got)
	}
	if st := s.Stats(); len(st.Upstreams) != 0 {
		t.Errorf("%+v", st.Upstreams)
	}
}

func TestALoopEnds(t *testing.T) {
	// Another server, which asks this one for everything it is asked.
	var mine atomic.Pointer[string]
	up := newWorld(t, func(_ dns.ResponseWriter, req *dns.Msg) *dns.Msg {
		m, _, err := (&dns.Client{Timeout: 5 * time.Second}).Exchange(req.Copy(), *mine.Load())
		if err != nil {
			return new(dns.Msg).SetRcode(req, dns.RcodeServerFailure)
		}
		return m
	})
	o := asking(up.address)
	o.Timeout = 300 * time.Millisecond
	_, server := start(t, o, shop())
	mine.Store(&server)
	if got := ask(t, "udp", server, query("www.example.org.", dns.TypeA)); got.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v", got)
	}
	if n := up.asked.Load(); n > 2 {
		t.Errorf("one question became %d", n)
	}
}

func TestCloseGivesUpUpstreams(t *testing.T) {
	up := newWorld(t, silent)
	o := asking(up.address)
	o.Timeout = time.Minute
	s, server := start(t, o, shop())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c := dns.Client{Timeout: 20 * time.Second}
		m, _, err := c.ExchangeContext(context.Background(), query("www.example.org.", dns.TypeA), server)
		if err == nil && m.Rcode != dns.RcodeServerFailure {
			t.Errorf("%v", m)
		}
	}()
	for up.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	<-done
}

package routing

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes/networking"
)

// The tests run in a network namespace of their own, which is the host; pods and whoever is outside are threads with a
// namespace each. Nothing of the machine is touched.
const roleVariable = "FAIRLEAD_ROUTING_TEST"

// The main thread stands for the process in /proc; no place may take it.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) == "host" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), roleVariable+"=host")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "start the tests in a network namespace:", err)
		os.Exit(1)
	}
}

// place is a network namespace with a thread in it.
type place struct {
	name string
	tid  int
	work chan func()
	done chan struct{}
	ip   netip.Addr
}

// newPlace makes a network namespace; it goes at the end of the test.
func newPlace(t testing.TB, name string) *place {
	t.Helper()
	p := &place{name: name, work: make(chan func()), done: make(chan struct{})}
	ready := make(chan error)
	go func() {
		defer close(p.done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		p.tid = unix.Gettid()
		ready <- err
		for f := range p.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(p.work); <-p.done })
	p.do(func() {
		if l, err := netlink.LinkByName("lo"); err != nil || netlink.LinkSetUp(l) != nil {
			t.Error("set lo up:", err)
		}
	})
	return p
}

// do runs f in the namespace; a nil place is the host.
func (p *place) do(f func()) {
	if p == nil {
		f()
		return
	}
	ran := make(chan struct{})
	p.work <- func() { defer close(ran); f() }
	<-ran
}

// dialer dials from the namespace.
func (p *place) dial(network, to string, from ...string) (net.Conn, error) {
	var c net.Conn
	var err error
	p.do(func() {
		d := net.Dialer{Timeout: 2 * time.Second}
		if len(from) > 0 {
			if network == "udp" {
				d.LocalAddr, err = net.ResolveUDPAddr("udp4", from[0])
			} else {
				d.LocalAddr, err = net.ResolveTCPAddr("tcp4", from[0])
			}
		}
		if err == nil {
			c, err = d.Dial(network+"4", to)
		}
	})
	return c, err
}

// ask connects and returns what the server says of itself and of us: "name client-address".
func (p *place) ask(to string, from ...string) (string, error) {
	c, err := p.dial("tcp", to, from...)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

// serve answers TCP connections with the place's name and the client's address, then echoes lines; and UDP packets
// with the name.
func (p *place) serve(t testing.TB, port int) {
	t.Helper()
	var l net.Listener
	var u net.PacketConn
	var err error
	name := "host"
	if p != nil {
		name = p.name
	}
	p.do(func() {
		if l, err = net.Listen("tcp4", fmt.Sprintf(":%d", port)); err == nil {
			u, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", port))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { l.Close(); u.Close(); all.Wait() })
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
				fmt.Fprintf(c, "%s %s\n", name, host)
				_, _ = io.Copy(c, c)
			}()
		}
	})
	all.Go(func() {
		b := make([]byte, 2048)
		for {
			_, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = u.WriteTo([]byte(name), from)
		}
	})
}

// lab is a host with a bridge.
type lab struct {
	t       testing.TB
	bridge  string
	pods    netip.Prefix
	gateway netip.Addr
	network *networking.Network
	next    int
	ranges  plan.ServiceRanges
}

type noEngine struct{}

func (noEngine) EnsureNetwork(context.Context, string, string, netip.Prefix, netip.Prefix, netip.Addr) error {
	return nil
}
func (noEngine) RemoveNetwork(context.Context, string) error { return nil }

var labs int

// newLab makes a bridge in the namespace of the tests.
func newLab(t testing.TB) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	labs++
	l := &lab{t: t, bridge: fmt.Sprintf("fltest%d", labs), pods: netip.MustParsePrefix("10.201.0.0/16"),
		ranges: plan.ServiceRanges{
			ClusterIPs: netip.MustParsePrefix("10.202.0.0/16"), NodePorts: [2]int32{30000, 32767},
			LoadBalancers: []plan.AddressRange{{First: netip.MustParseAddr("192.0.2.100"), Last: netip.MustParseAddr("192.0.2.120")}},
		}}
	l.gateway = l.pods.Addr().Next()
	// Tests use the same addresses, and the kernel drops a connection whose answers it takes for those of an earlier, translated one.
	if err := netlink.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
		t.Log("connections of earlier tests are not forgotten:", err)
	}
	for _, f := range []string{"ip_forward"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+f, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if lo, err := netlink.LinkByName("lo"); err != nil || netlink.LinkSetUp(lo) != nil {
		t.Fatal("set lo up:", err)
	}
	var err error
	l.network, err = networking.New(noEngine{}, networking.Options{Bridge: l.bridge, CIDR: l.pods})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.network.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if link, err := netlink.LinkByName(l.bridge); err == nil {
			_ = netlink.LinkDel(link)
		}
	})
	l.next = 10
	return l
}

// pod makes a pod on the bridge.
func (l *lab) pod(name string) *place {
	l.t.Helper()
	p := newPlace(l.t, name)
	p.ip = netip.AddrFrom4([4]byte{10, 201, 0, byte(l.next)})
	l.next++
	if err := l.network.Attach(context.Background(), p.tid, l.bridge+name, p.ip); err != nil {
		l.t.Fatal(err)
	}
	return p
}

// pods makes n pods with servers on port 8080.
func (l *lab) servers(n int) []*place {
	out := make([]*place, n)
	for i := range out {
		out[i] = l.pod(fmt.Sprintf("pod%d", i))
		out[i].serve(l.t, 8080)
	}
	return out
}

func (l *lab) options() Options {
	return Options{Bridge: l.bridge, Pods: l.pods, Gateway: l.gateway, Node: "here", Ranges: l.ranges, LocalhostNodePorts: true,
		Repaired: func(what string, err error) { l.t.Log("repaired:", what, err) }}
}

// routes makes the routes and removes them at the end.
func (l *lab) routes(change ...func(*Options)) *Routes {
	l.t.Helper()
	o := l.options()
	for _, f := range change {
		f(&o)
	}
	r, err := New(o)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		if err := r.Destroy(context.Background()); err != nil {
			l.t.Error(err)
		}
	})
	return r
}

func (l *lab) set(r *Routes, routes ...*plan.Route) {
	l.t.Helper()
	if err := r.Set(context.Background(), routes); err != nil {
		l.t.Fatal(err)
	}
}

// route makes a Service with one TCP and one UDP port 80 to 8080.
func route(name, ip string, pods ...*place) *plan.Route {
	r := &plan.Route{
		Service: &plan.Service{Ref: object.Ref{Kind: "Service", Namespace: "default", Name: name},
			Spec: &corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: ip}, Balancing: plan.Random},
		Ports: []plan.RoutePort{{Name: "tcp", Protocol: corev1.ProtocolTCP, Port: 80}, {Name: "udp", Protocol: corev1.ProtocolUDP, Port: 80}},
	}
	for _, p := range pods {
		r.Endpoints = append(r.Endpoints, endpoint(p))
	}
	return r
}

func endpoint(p *place) plan.Endpoint {
	return plan.Endpoint{Address: p.ip, Pod: plan.PodKey{}, Node: "here", Ports: []int32{8080, 8080}, Ready: true, Serving: true, Weight: 1}
}

// outside makes a machine outside of the host, on a network of its own with it: the host is 192.0.2.1.
func (l *lab) outside() *place {
	l.t.Helper()
	p := newPlace(l.t, "outside")
	p.ip = netip.MustParseAddr("192.0.2.2")
	ns, err := netns.GetFromPath(fmt.Sprintf("/proc/%d/ns/net", p.tid))
	if err != nil {
		l.t.Fatal(err)
	}
	defer ns.Close()
	host := "flout" + l.bridge[len("fltest"):]
	must := func(err error) {
		l.t.Helper()
		if err != nil {
			l.t.Fatal(err)
		}
	}
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: host}, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns)}))
	up := func(name, addr string) {
		link, err := netlink.LinkByName(name)
		must(err)
		a, err := netlink.ParseAddr(addr)
		must(err)
		must(netlink.AddrAdd(link, a))
		must(netlink.LinkSetUp(link))
	}
	up(host, "192.0.2.1/24")
	l.t.Cleanup(func() {
		if link, err := netlink.LinkByName(host); err == nil {
			_ = netlink.LinkDel(link)
		}
	})
	p.do(func() { up("eth0", "192.0.2.2/24") })
	return p
}

// spread asks n times and counts who answered.
func (p *place) spread(t testing.TB, n int, to string, from ...string) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for range n {
		got, err := p.ask(to, from...)
		if err != nil {
			t.Fatalf("ask %s: %v", to, err)
		}
		name, _, _ := strings.Cut(got, " ")
		seen[name]++
	}
	return seen
}

// askUDP sends a packet from a socket and returns the answer.
func askUDP(c net.Conn) (string, error) {
	if _, err := c.Write([]byte("?")); err != nil {
		return "", err
	}
	b := make([]byte, 100)
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	n, err := c.Read(b)
	return string(b[:n]), err
}

// refuses holds that a connection is refused at once.
func (p *place) refuses(t testing.TB, to string) {
	t.Helper()
	if got, err := p.ask(to); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a connection to %s: %q, %v; want it refused", to, got, err)
	}
}

// drops holds that nothing answers.
func (p *place) drops(t testing.TB, to string) {
	t.Helper()
	var c net.Conn
	var err error
	p.do(func() { c, err = (&net.Dialer{Timeout: 300 * time.Millisecond}).Dial("tcp4", to) })
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("a connection to %s: %v; want no answer", to, err)
	}
	if c != nil {
		c.Close()
	}
}

func addAddress(t testing.TB, p *place, address string) {
	t.Helper()
	p.do(func() {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			t.Error(err)
			return
		}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(address).To4(), Mask: net.CIDRMask(32, 32)}}); err != nil {
			t.Error(err)
		}
	})
}

// waitFor waits until something holds, at most as long as a repair may take on a machine that is busy.
func waitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not come", what)
		}
	}
}

// routeAdd adds a route in the namespace of the thread.
func routeAdd(to netip.Prefix, gateway netip.Addr) error {
	return netlink.RouteAdd(&netlink.Route{Dst: &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), 32)}, Gw: gateway.AsSlice()})
}

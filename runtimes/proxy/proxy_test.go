package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// server is an endpoint: it says its number to each client, and then sends back what it receives until the client has
// sent all.
func server(t *testing.T, number int) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = c.Write([]byte{byte('0' + number)})
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// refusing is an address at which nothing listens.
func refusing(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

type to struct {
	at     netip.AddrPort
	weight int
}

var web = object.Ref{Kind: "Service", Namespace: "shop", Name: "web"}

func route(ref object.Ref, ends ...to) *plan.Route {
	r := &plan.Route{
		Service: &plan.Service{Ref: ref, Application: "shop", Balancing: plan.LeastConnections, Spec: &corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.80.0.1"}},
		Ports:   []plan.RoutePort{{Protocol: corev1.ProtocolTCP, Port: 80}},
	}
	for _, e := range ends {
		r.Endpoints = append(r.Endpoints, plan.Endpoint{Address: e.at.Addr(), Ports: []int32{int32(e.at.Port())}, Ready: true, Weight: e.weight})
	}
	return r
}

func open(t *testing.T) *Proxy {
	t.Helper()
	p, err := New(Options{Address: netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func set(t *testing.T, p *Proxy, routes ...*plan.Route) {
	t.Helper()
	if err := p.Set(t.Context(), routes); err != nil {
		t.Fatal(err)
	}
}

func address(t *testing.T, p *Proxy) netip.AddrPort {
	t.Helper()
	at, ok := p.Address(web, 80, corev1.ProtocolTCP)
	if !ok {
		t.Fatal("the proxy has no address for the Service")
	}
	return at
}

func try(at netip.AddrPort) (*net.TCPConn, int, error) {
	c, err := net.Dial("tcp4", at.String())
	if err != nil {
		return nil, 0, err
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 1)
	if _, err := io.ReadFull(c, b); err != nil {
		_ = c.Close()
		return nil, 0, err
	}
	return c.(*net.TCPConn), int(b[0] - '0'), nil
}

// dial returns a connection that is open and the number of its endpoint.
func dial(t *testing.T, at netip.AddrPort) (*net.TCPConn, int) {
	t.Helper()
	c, n, err := try(at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, n
}

func spread(t *testing.T, at netip.AddrPort, n int) (count [10]int) {
	t.Helper()
	for range n {
		_, to := dial(t, at)
		count[to]++
	}
	return count
}

func TestOpenConnectionsAreEven(t *testing.T) {
	p := open(t)
	set(t, p, route(web, to{server(t, 0), 1}, to{server(t, 1), 1}, to{server(t, 2), 1}))
	if got := spread(t, address(t, p), 30); got != [10]int{10, 10, 10} {
		t.Errorf("30 open connections are spread %v", got)
	}
	if s := p.Stats(); s.Open["shop"] != 30 || s.Served != 30 || s.Listeners != 1 {
		t.Errorf("stats are %+v", s)
	}
}

func TestWeights(t *testing.T) {
	p := open(t)
	set(t, p, route(web, to{server(t, 0), 1}, to{server(t, 1), 4}))
	if got := spread(t, address(t, p), 50); got != [10]int{10, 40} {
		t.Errorf("50 open connections over weights 1 and 4 are spread %v", got)
	}
}

func TestRefusedGoesToTheNext(t *testing.T) {
	p := open(t)
	set(t, p, route(web, to{refusing(t), 1}, to{server(t, 1), 1}, to{refusing(t), 100}))
	if got := spread(t, address(t, p), 20); got != [10]int{0, 20} {
		t.Errorf("20 connections are spread %v", got)
	}
}

func TestNoneLeftIsReset(t *testing.T) {
	p := open(t)
	set(t, p, route(web, to{refusing(t), 1}))
	c, _, err := try(address(t, p))
	if c != nil || errors.Is(err, io.EOF) {
		t.Errorf("a connection without an endpoint ended with %v, not with a reset", err)
	}
	if s := p.Stats(); s.Failed != 1 {
		t.Errorf("stats are %+v", s)
	}
}

func TestDrainHalfCloseAndReturn(t *testing.T) {
	p := open(t)
	a, b := to{server(t, 0), 1}, to{server(t, 1), 1}
	set(t, p, route(web, a))
	at := address(t, p)
	stays, _ := dial(t, at)
	set(t, p, route(web, b))
	if now := address(t, p); now != at {
		t.Errorf("the listener moved from %s to %s", at, now)
	}
	if got := spread(t, at, 5); got != [10]int{0, 5} {
		t.Errorf("connections after the change are spread %v", got)
	}
	if _, err := stays.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := stays.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if back, err := io.ReadAll(stays); err != nil || string(back) != "hello" {
		t.Errorf("the drained endpoint sent %q, %v after a half-close", back, err)
	}
}

// TestAddressBeforeSet: the routes may hear of a Service first.
func TestAddressBeforeSet(t *testing.T) {
	p := open(t)
	at := address(t, p)
	done := make(chan error, 1)
	go func() {
		c, _, err := try(at)
		if c != nil {
			_ = c.Close()
		}
		done <- err
	}()
	set(t, p, route(web, to{server(t, 3), 1}))
	if now := address(t, p); now != at {
		t.Errorf("the listener moved from %s to %s", at, now)
	}
	if err := <-done; err != nil {
		t.Errorf("a connection before Set: %v", err)
	}
}

func TestRemovalAndReturn(t *testing.T) {
	p := open(t)
	r := route(web, to{server(t, 3), 1})
	set(t, p, r)
	at := address(t, p)
	set(t, p)
	if _, n := dial(t, at); n != 3 { // the kernel may still lead here
		t.Errorf("endpoint %d answered", n)
	}
	set(t, p, r)
	if address(t, p) != at {
		t.Error("a Service that comes back at once has another port")
	}
	p.mu.Lock()
	p.linger = time.Millisecond
	p.mu.Unlock()
	set(t, p)
	for p.Stats().Listeners != 0 {
		time.Sleep(time.Millisecond)
	}
	if c, err := net.Dial("tcp4", at.String()); err == nil {
		_ = c.Close()
		t.Error("the port of a removed Service still accepts")
	}
}

// TestBreakIsPassedOn: what ends with a reset does not end as if it were whole.
func TestBreakIsPassedOn(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := open(t)
	set(t, p, route(web, to{l.Addr().(*net.TCPAddr).AddrPort(), 1}))
	c, err := net.Dial("tcp4", address(t, p).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	reset(b.(*net.TCPConn))
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	var timeout net.Error
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("the client of a broken connection read %v", err)
	}
}

func TestTooMany(t *testing.T) {
	p := open(t)
	p.limit = 2
	set(t, p, route(web, to{server(t, 0), 1}))
	at := address(t, p)
	spread(t, at, 2)
	if _, _, err := try(at); err == nil {
		t.Error("a third connection was served")
	}
	if s := p.Stats(); s.Refused != 1 {
		t.Errorf("stats are %+v", s)
	}
}

func TestCloseEndsAll(t *testing.T) {
	p := open(t)
	set(t, p, route(web, to{server(t, 0), 1}))
	c, _ := dial(t, address(t, p))
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
	if _, ok := p.Address(web, 80, corev1.ProtocolTCP); ok {
		t.Error("a closed proxy gives an address")
	}
}

func TestSetUnderLoad(t *testing.T) {
	p := open(t)
	ends := []to{{server(t, 0), 1}, {server(t, 1), 2}, {server(t, 2), 3}}
	set(t, p, route(web, ends...))
	at := address(t, p)
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for i := range 50 {
				c, _, err := try(at)
				if err == nil {
					text := fmt.Sprint("request ", i)
					_, _ = c.Write([]byte(text))
					_ = c.CloseWrite()
					var back []byte
					if back, err = io.ReadAll(c); err == nil && string(back) != text {
						err = fmt.Errorf("got %q back for %q", back, text)
					}
					_ = c.Close()
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 200 {
		set(t, p, route(web, ends[i%3], ends[(i+1)%3]))
		p.Stats()
	}
	clients.Wait()
}

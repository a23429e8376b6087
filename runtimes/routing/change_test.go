package routing

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

func TestUDPFlowsFollowTheEndpoints(t *testing.T) {
	l := newLab(t)
	pods, client := l.servers(2), l.pod("client")
	r := l.routes()
	l.set(r, route("web", "10.202.0.10", pods[0]))
	for name, from := range map[string]*place{"host": nil, "pod": client} {
		l.set(r, route("web", "10.202.0.10", pods[0]))
		c, err := from.dial("udp", "10.202.0.10:80")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got, err := askUDP(c); err != nil || got != "pod0" {
			t.Fatalf("%s: %q, %v", name, got, err)
		}
		// The same socket, and so the same flow.
		l.set(r, route("web", "10.202.0.10", pods...))
		if got, err := askUDP(c); err != nil || got != "pod0" {
			t.Errorf("%s: with another endpoint the flow came to %q, %v; want it where it was", name, got, err)
		}
		l.set(r, route("web", "10.202.0.10", pods[1]))
		if got, err := askUDP(c); err != nil || got != "pod1" {
			t.Errorf("%s: without its endpoint the flow came to %q, %v; want pod1", name, got, err)
		}
		l.set(r, route("web", "10.202.0.10"))
		if got, err := askUDP(c); err == nil {
			t.Errorf("%s: without endpoints %q answered", name, got)
		}
		l.set(r, route("web", "10.202.0.10", pods[0]))
		waitFor(t, "an answer to the flow that was refused", func() bool { got, err := askUDP(c); return err == nil && got == "pod0" })
	}
}

// TestDrain holds that an endpoint that ends gets no new connections and keeps those that it has.
func TestDrain(t *testing.T) {
	l := newLab(t)
	pods, client := l.servers(2), l.pod("client")
	r := l.routes()
	l.set(r, route("web", "10.202.0.10", pods[0]))
	c, err := client.dial("tcp", "10.202.0.10:80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	echo := func(when string) {
		t.Helper()
		_ = c.SetDeadline(time.Now().Add(3 * time.Second))
		if _, err := fmt.Fprintln(c, when); err != nil {
			t.Errorf("%s: %v", when, err)
		} else if got, err := in.ReadString('\n'); err != nil || got != when+"\n" {
			t.Errorf("%s: %q, %v", when, got, err)
		}
	}
	draining := route("web", "10.202.0.10", pods...)
	draining.Endpoints[0].Ready, draining.Endpoints[0].Terminating = false, true
	l.set(r, draining)
	echo("while it drains")
	if seen := client.spread(t, 10, "10.202.0.10:80"); seen["pod1"] != 10 {
		t.Errorf("10 new connections went to %v, want none to the one that ends", seen)
	}
	l.set(r, route("web", "10.202.0.10", pods[1]))
	echo("when it is no endpoint any more")
	l.set(r)
	echo("without the Service")
	l.set(r, route("web", "10.202.0.10", pods[1]))
	removeTable(t, r.table)
	echo("after the table was removed")
	// Only those that end are left: they serve.
	ending := route("web", "10.202.0.10", pods[0])
	ending.Endpoints[0].Ready, ending.Endpoints[0].Terminating = false, true
	l.set(r, ending)
	client.spread(t, 3, "10.202.0.10:80")
}

// attempt is a connection that failed.
type attempt struct {
	begun, ended time.Time
	error
}

// load connects again and again from the host until stop, and returns how many connections there were and what failed.
func load(t testing.TB, to string) (stop func() (int, []attempt)) {
	ctx, cancel := context.WithCancel(context.Background())
	var n atomic.Int64
	var mu sync.Mutex
	var failed []attempt
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				begun := time.Now()
				c, err := (&net.Dialer{Timeout: 5 * time.Second}).Dial("tcp4", to)
				if err == nil {
					_ = c.SetDeadline(time.Now().Add(5 * time.Second))
					_, err = bufio.NewReader(c).ReadString('\n')
					c.Close()
				}
				n.Add(1)
				if err != nil {
					mu.Lock()
					failed = append(failed, attempt{begun, time.Now(), err})
					mu.Unlock()
				}
			}
		})
	}
	return func() (int, []attempt) { cancel(); all.Wait(); return int(n.Load()), failed }
}

func TestNothingFailsUnderLoad(t *testing.T) {
	l := newLab(t)
	pods := l.servers(3)
	foreignNAT(t)
	r := l.routes()
	l.set(r, route("web", "10.202.0.10", pods...))
	stop := load(t, "10.202.0.10:80")
	// The kernel does not remove a table in one step: a connection whose first packet meets it in the middle is refused,
	// at once. Everything else waits.
	type removal struct{ begun, ended time.Time }
	var removals []removal
	for i := range 10 {
		l.set(r, route("web", "10.202.0.10", pods[i%3], pods[(i+1)%3]))
		if err := r.Close(); err != nil { // a restart of the daemon
			t.Fatal(err)
		}
		r = l.routes()
		l.set(r, route("web", "10.202.0.10", pods[i%3], pods[(i+2)%3]))
		if i%3 == 0 {
			before := r.Stats().Repairs
			begun := time.Now()
			removeTable(t, r.table)
			removals = append(removals, removal{begun, time.Now()})
			waitFor(t, "a repair", func() bool { return r.Stats().Repairs > before })
		}
	}
	n, failed := stop()
	during := 0
	for _, a := range failed {
		if slices.ContainsFunc(removals, func(m removal) bool { return a.ended.After(m.begun) && a.begun.Before(m.ended) }) && errors.Is(a.error, syscall.ECONNREFUSED) {
			during++
			continue
		}
		t.Errorf("a connection failed, though the table was only away for a moment: after %s: %v", a.ended.Sub(a.begun), a.error)
	}
	if n == 0 || during > 2*4*len(removals) {
		t.Errorf("%d connections, %d refused while the table was removed", n, during)
	}
	t.Log(n, "connections,", len(failed), "failed,", during, "of them while the table was removed")
}

// TestAnErrorOfOneServiceNamesIt gives addresses to an interface that is not there.
func TestAnErrorOfOneServiceNamesIt(t *testing.T) {
	l := newLab(t)
	pods := l.servers(1)
	r := l.routes()
	web := route("web", "10.202.0.10", pods...)
	web.Spec.Type = corev1.ServiceTypeLoadBalancer
	web.LoadBalancerIPs = []netip.Addr{netip.MustParseAddr("192.0.2.101")}
	l.set(r, route("other", "10.202.0.11", pods...), web)
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	gone := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "gone", Index: 999999}}
	_, err = r.ensureAddresses(h, gone, r.balancerAddresses())
	var concerns interface {
		error
		Service() object.Ref
	}
	if !errors.As(err, &concerns) || concerns.Service() != web.Ref || !strings.Contains(err.Error(), "192.0.2.101") {
		t.Errorf("the error is %v; want one about Service web and its address", err)
	}
}

// anyRoutes generates routes in order, of few names and addresses, so that they meet.
func anyRoutes(old plan.Routes) *rapid.Generator[plan.Routes] {
	return rapid.Custom(func(t *rapid.T) plan.Routes {
		var out plan.Routes
		for i := range 5 {
			if i < len(old) && rapid.Bool().Draw(t, "same") {
				if !slices.ContainsFunc(out, func(r *plan.Route) bool { return r.Ref == old[i].Ref }) {
					out = append(out, old[i])
				}
				continue
			}
			r := route(fmt.Sprintf("s%d", rapid.IntRange(0, 7).Draw(t, "name")), fmt.Sprintf("10.202.0.%d", rapid.IntRange(1, 4).Draw(t, "ip")))
			if slices.ContainsFunc(out, func(o *plan.Route) bool { return o.Ref == r.Ref }) {
				continue
			}
			r.Balancing = rapid.SampledFrom([]plan.Balancing{plan.Random, plan.RoundRobin, plan.SourceHash}).Draw(t, "balancing")
			if rapid.Bool().Draw(t, "affinity") {
				withAffinity(r, int32(rapid.IntRange(1, 2).Draw(t, "seconds")))
			}
			if rapid.Bool().Draw(t, "outside") {
				r.Spec.Type = corev1.ServiceTypeLoadBalancer
				r.Ports[0].NodePort = int32(30000 + rapid.IntRange(0, 2).Draw(t, "nodePort"))
				r.LoadBalancerIPs = []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + rapid.IntRange(0, 2).Draw(t, "balancer"))})}
				r.Spec.LoadBalancerSourceRanges = rapid.SampledFrom([][]string{nil, {"10.0.0.0/8"}, {"10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24"}}).Draw(t, "ranges")
				if rapid.Bool().Draw(t, "local") {
					r.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
				}
			}
			for e := range rapid.IntRange(0, 3).Draw(t, "endpoints") {
				r.Endpoints = append(r.Endpoints, plan.Endpoint{
					Address: netip.AddrFrom4([4]byte{10, byte(201 + e%2*10), 1, byte(rapid.IntRange(1, 5).Draw(t, "endpoint"))}),
					Node:    rapid.SampledFrom([]plan.NodeID{"here", "there"}).Draw(t, "node"),
					Ports:   []int32{8080, 8080}, Ready: rapid.Bool().Draw(t, "ready"), Serving: true, Weight: rapid.IntRange(1, 3).Draw(t, "weight"),
				})
			}
			out = append(out, r)
		}
		slices.SortFunc(out, func(a, b *plan.Route) int { return object.Compare(a.Ref, b.Ref) })
		return out
	})
}

// meaning reads what the kernel has, with names instead of the numbers of classes, which depend on history.
func meaning(t interface{ Fatal(...any) }, r *Routes) []string {
	have, err := r.kernel.elements()
	if err != nil {
		t.Fatal(err)
	}
	names := map[[4]byte]string{[4]byte(words(dropClass)): "drop"}
	for cl, use := range r.classes.of {
		names[[4]byte(words(use.number))] = cl.chain()
	}
	var out []string
	for _, e := range have {
		if e.set <= outsidePorts {
			out = append(out, fmt.Sprintf("%s %x: %s", e.set.name(), e.key, cmp.Or(names[[4]byte(e.val[4:8])], "a class that is not there")))
			continue
		}
		out = append(out, fmt.Sprintf("%s %x-%x: %x", e.set.name(), e.key, e.last, e.val))
	}
	slices.Sort(out)
	return out
}

// TestManySetsEqualOne holds that what the kernel has follows from the routes alone, not from what was before.
func TestManySetsEqualOne(t *testing.T) {
	l := newLab(t)
	rapid.Check(t, func(rt *rapid.T) {
		make := func() *Routes {
			r, err := New(l.options())
			if err != nil {
				rt.Fatal(err)
			}
			return r
		}
		step, fresh := make(), make()
		defer step.Close()
		defer fresh.Destroy(context.Background())
		var routes plan.Routes
		for range rapid.IntRange(1, 4).Draw(rt, "sets") {
			routes = anyRoutes(routes).Draw(rt, "routes")
			if err := step.set(routes); err != nil {
				rt.Fatal(err)
			}
			if ok, err := step.intact(); err != nil || !ok {
				rt.Fatal("the kernel has something else than what was computed:", err)
			}
		}
		if use, err := step.kernel.objects(); err != nil || !step.hasObjects(use) {
			rt.Fatalf("the table has %d chains and sets, %v; want %d", use, err, step.kernel.fixed+len(step.classes.of))
		}
		before := meaning(rt, step)
		if err := fresh.set(routes); err != nil {
			rt.Fatal(err)
		}
		if diff := gocmp.Diff(meaning(rt, fresh), before); diff != "" {
			rt.Fatal("after many Sets the kernel has another table than after one (-one +many):\n", diff)
		}
	})
}

package routing

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/fairlead-dev/fairlead/plan"
)

// many are n Services with so many endpoints each, none of which exists.
func many(n, endpoints int) plan.Routes {
	out := make(plan.Routes, n)
	for i := range out {
		out[i] = route(fmt.Sprintf("s%06d", i), netip.AddrFrom4([4]byte{10, 202, byte(1 + i>>8), byte(i)}).String())
		for e := range endpoints {
			n := i*endpoints + e
			out[i].Endpoints = append(out[i].Endpoints, plan.Endpoint{
				Address: netip.AddrFrom4([4]byte{10, 201, byte(1 + n>>8%250), byte(n)}), Node: "here", Ports: []int32{8080, 8080}, Ready: true, Serving: true, Weight: 1})
		}
	}
	return out
}

// without is the routes with one Service one endpoint less.
func without(routes plan.Routes, i int) plan.Routes {
	out := append(plan.Routes(nil), routes...)
	less := *out[i]
	less.Endpoints = less.Endpoints[1:]
	out[i] = &less
	return out
}

// BenchmarkEndpoint is a Set in which one endpoint of one Service comes or goes.
func BenchmarkEndpoint(b *testing.B) {
	for _, size := range []struct{ services, endpoints int }{{100, 3}, {1000, 10}, {10000, 3}, {30000, 3}} {
		b.Run(fmt.Sprintf("%dx%d", size.services, size.endpoints), func(b *testing.B) {
			l := newLab(b)
			r := l.routes()
			all := many(size.services, size.endpoints)
			less := without(all, size.services/2)
			l.set(r, all...)
			i := 0
			for b.Loop() {
				if i++; i%2 == 1 {
					l.set(r, less...)
				} else {
					l.set(r, all...)
				}
			}
		})
	}
}

// BenchmarkReplace is the first Set of a process, and what a repair does.
func BenchmarkReplace(b *testing.B) {
	for _, size := range []struct{ services, endpoints int }{{100, 3}, {1000, 10}, {30000, 3}} {
		b.Run(fmt.Sprintf("%dx%d", size.services, size.endpoints), func(b *testing.B) {
			l := newLab(b)
			r := l.routes()
			all := many(size.services, size.endpoints)
			l.set(r, all...)
			for b.Loop() {
				if err := r.take(b.Context()); err != nil {
					b.Fatal(err)
				}
				r.replace = true
				err := r.set(all)
				r.release()
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkConnect is a new connection from the host to a pod, directly and through a Service among many.
func BenchmarkConnect(b *testing.B) {
	connect := func(to string) func(*testing.B) {
		return func(b *testing.B) {
			for b.Loop() {
				c, err := net.Dial("tcp4", to)
				if err != nil {
					b.Fatal(err)
				}
				_ = c.(*net.TCPConn).SetLinger(0) // so that ports do not run out
				c.Close()
			}
		}
	}
	l := newLab(b)
	pods := l.servers(1)
	b.Run("direct without the table", connect(pods[0].ip.String()+":8080"))
	r := l.routes()
	for _, n := range []int{100, 10000} {
		l.set(r, append(plan.Routes{route("a", "10.202.0.10", pods[0])}, many(n, 3)...)...)
		b.Run(fmt.Sprintf("direct beside %d", n), connect(pods[0].ip.String()+":8080"))
		b.Run(fmt.Sprintf("Service among %d", n), connect("10.202.0.10:80"))
	}
}

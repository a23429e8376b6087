package consul

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes/consul/consultest"
)

// BenchmarkChange measures, with many Services of 10 endpoints each registered with one agent, the time from Set with one
// changed endpoint until a watcher of Consul's catalog sees it, and reports how long the first registration took. With 1,000
// Services that takes many minutes: an agent's cost of a registration grows with what it has.
func BenchmarkChange(b *testing.B) {
	for _, services := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) { benchmarkChange(b, services, 10) })
	}
}

func benchmarkChange(b *testing.B, services, endpoints int) {
	agent := consultest.Server(b)
	c := agent.API()
	r := registry(b, agent, func(o *Options) { o.TTL, o.Compare, o.Timeout = 10*time.Minute, 30*time.Second, 30*time.Second })
	routes := make(plan.Routes, services)
	for i := range routes {
		var addresses []string
		for j := range endpoints {
			addresses = append(addresses, fmt.Sprintf("10.%d.%d.%d", 1+i/250, i%250, 1+j))
		}
		routes[i] = svc(fmt.Sprintf("default/s%04d", i), addresses...)
	}
	start := time.Now()
	for {
		err := r.Set(b.Context(), routes)
		if err == nil {
			break
		}
		b.Log(err)
	}
	accepted := time.Since(start)
	for {
		n := 0
		node, _, err := c.Catalog().NodeServiceList("server", nil)
		if err == nil && node != nil {
			n = len(node.Services)
		}
		if n >= services*endpoints {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	visible := time.Since(start)

	// The watcher follows one service, as a proxy or a load balancer does.
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	seen := make(chan int, 1000)
	go func() {
		var index uint64
		for ctx.Err() == nil {
			entries, meta, err := c.Health().Service(fmt.Sprintf("s%04d", services/2), "", true, (&api.QueryOptions{WaitIndex: index, WaitTime: time.Minute}).WithContext(ctx))
			if err != nil {
				continue
			}
			index = meta.LastIndex
			seen <- len(entries)
		}
	}()
	<-seen
	all := routes[services/2]
	one := with(all, func(r *plan.Route) { r.Endpoints = r.Endpoints[:endpoints-1] })
	var took, set []time.Duration
	for i := 0; b.Loop(); i++ {
		want, n := one, endpoints-1
		if i%2 == 1 {
			want, n = all, endpoints
		}
		changed := slices.Clone(routes)
		changed[services/2] = want
		start := time.Now()
		if err := r.Set(b.Context(), changed); err != nil {
			b.Fatal(err)
		}
		set = append(set, time.Since(start))
		for <-seen != n {
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	slices.Sort(set)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(ms(took[len(took)/2]), "p50-visible-ms")
	b.ReportMetric(ms(took[len(took)*99/100]), "p99-visible-ms")
	b.ReportMetric(ms(set[len(set)/2]), "p50-set-ms")
	b.ReportMetric(ms(set[len(set)*99/100]), "p99-set-ms")
	b.ReportMetric(accepted.Seconds(), "first-accepted-s")
	b.ReportMetric(visible.Seconds(), "first-visible-s")
	b.ReportMetric(0, "ns/op")
}

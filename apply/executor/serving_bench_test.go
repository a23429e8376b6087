package executor

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
)

// counter is a Registry that does what each has to: it looks for the Routes that changed.
type counter struct {
	last    plan.Routes
	changed int
	set     chan struct{}
}

func (c *counter) Name() string { return "counter" }

func (c *counter) Set(_ context.Context, routes plan.Routes) error {
	for i, r := range routes {
		if i >= len(c.last) || c.last[i] != r {
			c.changed++
		}
	}
	c.last = routes
	c.set <- struct{}{}
	return nil
}

// BenchmarkReadiness is one change of one pod's readiness on a node with 1,000 Services of 10 endpoints each, from the
// pod's view to the end of the registry's Set.
func BenchmarkReadiness(b *testing.B) {
	const services, endpoints = 1000, 10
	c := &counter{set: make(chan struct{})}
	n := &Node{serving: newServing("a", serviceFiles{}, []Registered{{Registry: c}})}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.opt.OnEvent, n.opt.OnTrouble = func(Event) {}, func(error) { b.Error("the registry failed") }
	s := n.serving
	var pods []*plan.ObservedPod
	for i := range services {
		app := fmt.Sprintf("s%04d", i)
		s.mu.Lock()
		s.put(service(app))
		s.mu.Unlock()
		for j := range endpoints {
			p := &plan.ObservedPod{
				PodKey: plan.PodKey{Namespace: "ns", Name: fmt.Sprintf("%s-%d", app, j)}, UID: fmt.Sprintf("%s-%d", app, j),
				Labels: map[string]string{"app": app, "tier": "web"}, Phase: corev1.PodRunning, Ready: true,
				IP: fmt.Sprintf("10.%d.%d.%d", i/250, i%250, j+1), Spec: onePod("p").Spec,
			}
			s.podSeen(p, true)
			pods = append(pods, p)
		}
	}
	close(s.begun)
	n.wg.Go(func() { n.keep(s.registries[0]) })
	<-c.set
	c.changed = 0
	i := 0
	var mark time.Duration
	for b.Loop() {
		p := *pods[i%len(pods)]
		p.Ready = !p.Ready
		pods[i%len(pods)] = &p
		began := time.Now()
		s.podSeen(&p, false)
		mark += time.Since(began)
		<-c.set
		i++
	}
	b.ReportMetric(float64(mark.Nanoseconds())/float64(i), "ns/mark")
	b.ReportMetric(float64(c.changed)/float64(i), "routes/op")
	n.cancel()
	n.wg.Wait()
}

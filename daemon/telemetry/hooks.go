package telemetry

import (
	"cmp"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-dev/fairlead/daemon/hooks"
)

// hookCollector reads the figures of hooks at each scrape.
type hookCollector struct {
	read              atomic.Pointer[func() hooks.Stats]
	deliveries, looks *prometheus.Desc
}

func newHookCollector() *hookCollector {
	return &hookCollector{
		deliveries: prometheus.NewDesc("fairlead_hook_deliveries_total", "Deliveries of Git hosting services, by the endpoint's forge and by how they ended: accepted, repeated, ignored, ping, or why they were rejected.", []string{"forge", "result"}, nil),
		looks:      prometheus.NewDesc("fairlead_hook_looks_total", "Looks at sources that deliveries asked for; those that come while one is due are one.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *hookCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.deliveries
	ch <- c.looks
}

// Collect implements prometheus.Collector.
func (c *hookCollector) Collect(ch chan<- prometheus.Metric) {
	read := c.read.Load()
	if read == nil {
		return
	}
	s := (*read)()
	for _, d := range s.Deliveries {
		ch <- prometheus.MustNewConstMetric(c.deliveries, prometheus.CounterValue, float64(d.Number), cmp.Or(string(d.Forge), "none"), string(d.Result))
	}
	ch <- prometheus.MustNewConstMetric(c.looks, prometheus.CounterValue, float64(s.Looks))
}

// CountHooks has the figures of hooks read at each scrape.
func (r *Recorder) CountHooks(read func() hooks.Stats) {
	if r != nil {
		r.hooks.read.Store(&read)
	}
}

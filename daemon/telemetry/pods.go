package telemetry

import (
	"maps"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// podGauge is a gauge whose series are replaced all at once, so that no scrape sees half of them.
type podGauge struct {
	desc   *prometheus.Desc
	mu     sync.Mutex
	counts map[PodGroup]int
}

func (g *podGauge) set(counts map[PodGroup]int) {
	merged := make(map[PodGroup]int, len(counts))
	for k, n := range counts {
		merged[PodGroup{label(k.Application), label(k.Phase)}] += n
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts = merged
}

// Describe implements prometheus.Collector.
func (g *podGauge) Describe(ch chan<- *prometheus.Desc) { ch <- g.desc }

// Collect implements prometheus.Collector.
func (g *podGauge) Collect(ch chan<- prometheus.Metric) {
	g.mu.Lock()
	counts := maps.Clone(g.counts)
	g.mu.Unlock()
	for k, n := range counts {
		ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, float64(n), k.Application, k.Phase)
	}
}

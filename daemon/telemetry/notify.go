package telemetry

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-dev/fairlead/daemon/notify"
)

// notifyCollector reads the figures of notifications at each scrape.
type notifyCollector struct {
	read                                 atomic.Pointer[func() []notify.Stats]
	events, messages, retries, last, bad *prometheus.Desc
}

func newNotifyCollector() *notifyCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("fairlead_notification_"+name, help, append([]string{"channel"}, labels...), nil)
	}
	return &notifyCollector{
		events:   desc("events_total", "Events, by what became of them for a channel: queued, repeated (said already), excluded (no rule wants them), dropped (too many to be told one by one).", "result"),
		messages: desc("messages_total", "Messages that were delivered (success) or given up (failure).", "result"),
		retries:  desc("retries_total", "Messages that were tried again."),
		last:     desc("last_success_timestamp_seconds", "When a message was delivered last, in Unix time; 0 for never."),
		bad:      desc("failing", "1 while the newest try of a channel has failed, otherwise 0."),
	}
}

// Describe implements prometheus.Collector.
func (c *notifyCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.events, c.messages, c.retries, c.last, c.bad} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *notifyCollector) Collect(ch chan<- prometheus.Metric) {
	read := c.read.Load()
	if read == nil {
		return
	}
	for _, s := range (*read)() {
		counter := func(d *prometheus.Desc, n uint64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), append([]string{s.Channel}, labels...)...)
		}
		counter(c.events, s.Queued, "queued")
		counter(c.events, s.Repeated, "repeated")
		counter(c.events, s.Excluded, "excluded")
		counter(c.events, s.Dropped, "dropped")
		counter(c.messages, s.Sent, string(Success))
		counter(c.messages, s.Failed, string(Failure))
		counter(c.retries, s.Retries)
		last := 0.0
		if !s.LastSent.IsZero() {
			last = float64(s.LastSent.UnixMilli()) / 1000
		}
		ch <- prometheus.MustNewConstMetric(c.last, prometheus.GaugeValue, last, s.Channel)
		ch <- prometheus.MustNewConstMetric(c.bad, prometheus.GaugeValue, number(s.Error != ""), s.Channel)
	}
}

// CountNotifications has the figures of notifications read at each scrape.
func (r *Recorder) CountNotifications(read func() []notify.Stats) {
	if r != nil {
		r.notifications.read.Store(&read)
	}
}

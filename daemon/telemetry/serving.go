package telemetry

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-dev/fairlead/apply/executor"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes/consul"
	"github.com/fairlead-dev/fairlead/runtimes/names"
	"github.com/fairlead-dev/fairlead/runtimes/proxy"
	"github.com/fairlead-dev/fairlead/runtimes/routing"
)

// Serving are the figures of what serves Services, as they are at one moment. A part that is not there is nil.
type Serving struct {
	Routes     plan.Routes
	Registries []executor.RegistryStatus
	Kernel     *routing.Stats
	Proxy      *proxy.Stats
	Names      *names.Stats
	Consul     *consul.Stats
}

// servingCollector reads the figures at each scrape.
type servingCollector struct {
	read  atomic.Pointer[func() Serving]
	descs []*prometheus.Desc

	services, endpoints, current, sets, took, last      *prometheus.Desc
	elements, repairs                                   *prometheus.Desc
	connections, connected                              *prometheus.Desc
	dns, dropped, cache, cacheEntries, listening, asked *prometheus.Desc
	registered, calls, registeredOK                     *prometheus.Desc
}

func newServingCollector() *servingCollector {
	c := &servingCollector{}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		d := prometheus.NewDesc(name, help, labels, nil)
		c.descs = append(c.descs, d)
		return d
	}
	c.services = desc("fairlead_services", "Services that the node serves.", "application")
	c.endpoints = desc("fairlead_service_endpoints", "Endpoints of Services: ready, terminating or notready.", "state")
	c.current = desc("fairlead_registry_current", "1 when a registry (routes, names, proxy, consul) serves the newest state of the Services, otherwise 0.", "registry")
	c.sets = desc("fairlead_registry_sets_total", "Times that a registry was brought to what is wanted.", "registry", "result")
	c.took = desc("fairlead_registry_last_set_duration_seconds", "Time that the last of them took.", "registry")
	c.last = desc("fairlead_registry_last_success_timestamp_seconds", "When the last of them succeeded, in Unix time.", "registry")
	c.elements = desc("fairlead_routes_elements", "Entries of the kernel's tables for Services.")
	c.repairs = desc("fairlead_routes_repairs_total", "Times that something was put right that others had changed in the kernel's tables.")
	c.connections = desc("fairlead_proxy_connections", "Open connections to Services that are balanced by least connections.", "application")
	c.connected = desc("fairlead_proxy_connections_total", "Connections to such Services: that got an endpoint (success), for which none could be reached (failure), or that were too many at a time (refused).", "result")
	c.dns = desc("fairlead_dns_answers_total", "Answers of the name server, by who knew them (cluster, forward, refused) and response code.", "kind", "rcode")
	c.dropped = desc("fairlead_dns_dropped_total", "Packets that the name server did not answer: from strangers, or unreadable.", "reason")
	c.cache = desc("fairlead_dns_cache_total", "Questions for other name servers, by what the cache did: hit, miss, stale or shared.", "outcome")
	c.cacheEntries = desc("fairlead_dns_cache_entries", "Answers of other name servers that are kept.")
	c.listening = desc("fairlead_dns_listening", "1 when names are served on an address, otherwise 0.", "address")
	c.asked = desc("fairlead_dns_upstream_duration_seconds", "Time that other name servers took to answer.", "domain", "server")
	c.registered = desc("fairlead_consul_instances", "Instances for Consul: wanted, registered or pending.", "state")
	c.calls = desc("fairlead_consul_changes_total", "What the agent accepted (registration, deregistration, check), and calls that failed (error).", "call")
	c.registeredOK = desc("fairlead_consul_up", "1 when the agent accepts everything, otherwise 0.")
	return c
}

// Describe implements prometheus.Collector.
func (c *servingCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *servingCollector) Collect(ch chan<- prometheus.Metric) {
	read := c.read.Load()
	if read == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	v := (*read)()
	c.collectRoutes(v.Routes, gauge)
	for _, r := range v.Registries {
		gauge(c.current, number(r.Current), r.Name)
		counter(c.sets, r.Sets-r.Failures, r.Name, string(Success))
		counter(c.sets, r.Failures, r.Name, string(Failure))
		gauge(c.took, r.Took.Seconds(), r.Name)
		if !r.Last.IsZero() {
			gauge(c.last, seconds(r.Last), r.Name)
		}
	}
	if k := v.Kernel; k != nil {
		gauge(c.elements, float64(k.Elements))
		counter(c.repairs, uint64(max(0, k.Repairs)))
	}
	if p := v.Proxy; p != nil {
		open := make(map[string]int, len(p.Open))
		for application, n := range p.Open {
			open[label(application)] += n
		}
		for application, n := range open {
			gauge(c.connections, float64(n), application)
		}
		counter(c.connected, p.Served, string(Success))
		counter(c.connected, p.Failed, string(Failure))
		counter(c.connected, p.Refused, "refused")
	}
	if n := v.Names; n != nil {
		c.collectNames(n, gauge, counter, ch)
	}
	if s := v.Consul; s != nil {
		gauge(c.registered, float64(s.Wanted), "wanted")
		gauge(c.registered, float64(s.Registered), "registered")
		gauge(c.registered, float64(s.Pending), "pending")
		counter(c.calls, s.Registrations, "registration")
		counter(c.calls, s.Deregistrations, "deregistration")
		counter(c.calls, s.Passes, "check")
		counter(c.calls, s.Errors, "error")
		gauge(c.registeredOK, number(s.Condition.Code == consul.Registered))
	}
}

func (c *servingCollector) collectRoutes(routes plan.Routes, gauge func(*prometheus.Desc, float64, ...string)) {
	services := map[string]int{}
	var ready, terminating, notReady int
	for _, r := range routes {
		services[label(r.Application)]++
		for i := range r.Endpoints {
			switch e := &r.Endpoints[i]; {
			case e.Terminating:
				terminating++
			case e.Ready:
				ready++
			default:
				notReady++
			}
		}
	}
	for application, n := range services {
		gauge(c.services, float64(n), application)
	}
	gauge(c.endpoints, float64(ready), "ready")
	gauge(c.endpoints, float64(terminating), "terminating")
	gauge(c.endpoints, float64(notReady), "notready")
}

func (c *servingCollector) collectNames(n *names.Stats, gauge func(*prometheus.Desc, float64, ...string), counter func(*prometheus.Desc, uint64, ...string), ch chan<- prometheus.Metric) {
	for _, a := range n.Answers {
		counter(c.dns, a.Count, a.Kind.String(), a.Rcode)
	}
	counter(c.dropped, n.Dropped, "stranger")
	counter(c.dropped, n.Malformed, "malformed")
	counter(c.dropped, n.Overload, "overload")
	counter(c.cache, n.CacheHits, "hit")
	counter(c.cache, n.CacheMisses, "miss")
	counter(c.cache, n.CacheStale, "stale")
	counter(c.cache, n.CacheShared, "shared")
	gauge(c.cacheEntries, float64(n.CacheEntries))
	for _, l := range n.Listening {
		gauge(c.listening, number(l.Err == nil), l.Address.String())
	}
	for _, u := range n.Upstreams {
		buckets := make(map[float64]uint64, len(u.Latencies.Buckets))
		for _, b := range u.Latencies.Buckets {
			buckets[b.UpTo.Seconds()] = b.Count
		}
		ch <- prometheus.MustNewConstHistogram(c.asked, u.Latencies.Count, u.Latencies.Sum.Seconds(), buckets, u.Domain, u.Address.String())
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// Serve has the figures of Services read at each scrape.
func (r *Recorder) Serve(read func() Serving) {
	if r != nil {
		r.serving.read.Store(&read)
	}
}

package telemetry

import (
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/fairlead-dev/fairlead/plan"
)

// Result is how something ended, as a metric's label.
type Result string

// The results.
const (
	Success Result = "success"
	Failure Result = "failure"
	// Unchanged: a fetch that found nothing new.
	Unchanged Result = "unchanged"
	// Superseded: a walk that ended because something newer was to be done.
	Superseded Result = "superseded"
)

// Recorder counts what happens, for Prometheus. A nil Recorder counts nothing. Every method may be
// called from any goroutine.
type Recorder struct {
	registry *prometheus.Registry

	fetches       *prometheus.HistogramVec
	renders       *prometheus.HistogramVec
	plans         *prometheus.HistogramVec
	steps         *prometheus.HistogramVec
	reconciles    *prometheus.HistogramVec
	lastReconcile *prometheus.GaugeVec
	ready         *prometheus.GaugeVec
	failed        *prometheus.GaugeVec
	rolledBack    *prometheus.GaugeVec
	failures      *prometheus.CounterVec
	rollbacks     *prometheus.CounterVec
	restarts      *prometheus.CounterVec
	drift         *prometheus.CounterVec
	events        *prometheus.CounterVec
	engineUp      *prometheus.GaugeVec
	pods          *podGauge
	serving       *servingCollector
	hooks         *hookCollector
	notifications *notifyCollector
}

// Duration buckets in seconds: quick ones for what happens in memory, slow ones for what waits for
// networks and containers.
var (
	quick = [...]float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	slow  = [...]float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}
)

// NewRecorder returns a Recorder with a registry of its own, which also has the Go runtime's and the
// process's metrics.
func NewRecorder(version, revision string) *Recorder {
	r := &Recorder{registry: prometheus.NewRegistry(), serving: newServingCollector(), hooks: newHookCollector(), notifications: newNotifyCollector(), pods: &podGauge{desc: prometheus.NewDesc(
		"fairlead_pods", "Pods that were observed.", []string{"application", "phase"}, nil)}}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
		r.registry.MustRegister(h)
		return h
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		r.registry.MustRegister(c)
		return c
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
		r.registry.MustRegister(g)
		return g
	}
	r.fetches = histogram("fairlead_source_fetch_duration_seconds", "Time to ask a source for its newest revision, and to fetch it when it moved.", slow[:], "source", "result")
	r.renders = histogram("fairlead_render_duration_seconds", "Time to render an application.", quick[:], "application", "result")
	r.plans = histogram("fairlead_plan_duration_seconds", "Time to compute an application's plan, observing left out.", quick[:], "application")
	r.steps = histogram("fairlead_step_duration_seconds", "Time that a step of a plan took.", slow[:], "op", "result")
	r.reconciles = histogram("fairlead_reconcile_duration_seconds", "Time of one pass over an application, from planning to the end of the walk.", slow[:], "application", "result")
	r.lastReconcile = gauge("fairlead_reconcile_last_success_timestamp_seconds", "When an application was last reconciled with success, in Unix time.", "application")
	r.ready = gauge("fairlead_application_ready", "1 when the application's newest revision is applied and healthy, otherwise 0.", "application")
	r.failed = gauge("fairlead_application_failed", "1 when the application's newest revision failed and is not tried again, otherwise 0.", "application")
	r.rolledBack = gauge("fairlead_application_rolled_back", "1 while the last good revision runs in place of one that failed, otherwise 0.", "application")
	r.failures = counter("fairlead_revision_failures_total", "Revisions that failed, by why.", "application", "reason")
	r.rollbacks = counter("fairlead_rollbacks_total", "Times that an application went back to its last good revision (success), or could not (failure).", "application", "result")
	r.restarts = counter("fairlead_container_restarts_total", "Containers that were started again after they ended.", "application")
	r.drift = counter("fairlead_drift_total", "Differences that were found between what runs and what was applied, made by somebody else, by who made them (person, engine, kernel, unknown) and what was done.", "application", "by", "action")
	r.events = counter("fairlead_events_total", "Events that were recorded.", "type")
	r.engineUp = gauge("fairlead_engine_up", "1 when the node's Docker engine answers, otherwise 0.", "node")
	build := gauge("fairlead_build_info", "1, with what this fairlead was built from as labels.", "version", "revision", "goversion")
	build.WithLabelValues(version, revision, runtime.Version()).Set(1)
	r.registry.MustRegister(r.pods, r.serving, r.hooks, r.notifications, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Gatherer returns the metrics, for a handler of one's own.
func (r *Recorder) Gatherer() prometheus.Gatherer { return r.registry }

// FetchDone counts one look at a source: Success when it moved, Unchanged, or Failure.
func (r *Recorder) FetchDone(source string, res Result, d time.Duration) {
	if r != nil {
		r.fetches.WithLabelValues(label(source), string(res)).Observe(d.Seconds())
	}
}

// RenderDone counts one render; errors among its diagnostics make it a Failure.
func (r *Recorder) RenderDone(application string, res Result, d time.Duration) {
	if r != nil {
		r.renders.WithLabelValues(label(application), string(res)).Observe(d.Seconds())
	}
}

// PlanDone counts one computed plan.
func (r *Recorder) PlanDone(application string, d time.Duration) {
	if r != nil {
		r.plans.WithLabelValues(label(application)).Observe(d.Seconds())
	}
}

// StepDone counts one step.
func (r *Recorder) StepDone(op plan.Op, res Result, d time.Duration) {
	if r != nil {
		r.steps.WithLabelValues(string(op), string(res)).Observe(d.Seconds())
	}
}

// ReconcileDone counts one pass over an application that ended at the time at.
func (r *Recorder) ReconcileDone(application string, res Result, d time.Duration, at time.Time) {
	if r == nil {
		return
	}
	r.reconciles.WithLabelValues(label(application), string(res)).Observe(d.Seconds())
	if res == Success {
		r.lastReconcile.WithLabelValues(label(application)).Set(float64(at.UnixMilli()) / 1000)
	}
}

// SetReady says whether an application is ready.
func (r *Recorder) SetReady(application string, ready bool) {
	if r != nil {
		r.ready.WithLabelValues(label(application)).Set(number(ready))
	}
}

// SetFailed says whether the newest revision of an application failed, and whether the last good one runs in its place.
func (r *Recorder) SetFailed(application string, failed, rolledBack bool) {
	if r != nil {
		r.failed.WithLabelValues(label(application)).Set(number(failed))
		r.rolledBack.WithLabelValues(label(application)).Set(number(rolledBack))
	}
}

// RevisionFailed counts a revision that failed.
func (r *Recorder) RevisionFailed(application, reason string) {
	if r != nil {
		r.failures.WithLabelValues(label(application), label(reason)).Inc()
	}
}

// RollbackDone counts the end of an application's way back to its last good revision.
func (r *Recorder) RollbackDone(application string, res Result) {
	if r != nil {
		r.rollbacks.WithLabelValues(label(application), string(res)).Inc()
	}
}

// ContainerRestarted counts n restarts.
func (r *Recorder) ContainerRestarted(application string, n int) {
	if r != nil && n > 0 {
		r.restarts.WithLabelValues(label(application)).Add(float64(n))
	}
}

// DriftFound counts a difference that was not there before, by who made it and what was done.
func (r *Recorder) DriftFound(application string, by plan.By, action string) {
	if r != nil {
		r.drift.WithLabelValues(label(application), label(string(by)), label(action)).Inc()
	}
}

// EventRecorded counts one event of a type, Normal or Warning.
func (r *Recorder) EventRecorded(eventType string) {
	if r != nil {
		r.events.WithLabelValues(label(eventType)).Inc()
	}
}

// SetEngineUp says whether a node's engine answers.
func (r *Recorder) SetEngineUp(node plan.NodeID, up bool) {
	if r != nil {
		r.engineUp.WithLabelValues(label(string(node))).Set(number(up))
	}
}

// PodGroup is what pods are counted by.
type PodGroup struct{ Application, Phase string }

// SetPods replaces all counts of pods.
func (r *Recorder) SetPods(counts map[PodGroup]int) {
	if r != nil {
		r.pods.set(counts)
	}
}

// Forget drops the metrics of an application that is gone.
func (r *Recorder) Forget(application string) {
	if r == nil {
		return
	}
	match := prometheus.Labels{"application": label(application)}
	for _, v := range []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{r.renders, r.plans, r.reconciles, r.lastReconcile, r.ready, r.failed, r.rolledBack, r.failures, r.rollbacks, r.restarts, r.drift} {
		v.DeletePartialMatch(match)
	}
}

// ForgetSource drops the metrics of a source that is gone.
func (r *Recorder) ForgetSource(source string) {
	if r != nil {
		r.fetches.DeletePartialMatch(prometheus.Labels{"source": label(source)})
	}
}

// label returns s as valid UTF-8: names come from repositories, and the library panics at others.
func label(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

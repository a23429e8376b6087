package executor

import (
	"fmt"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// BenchmarkEngineLife creates a pod of one container on the real engine, waits for it, and deletes it.
func BenchmarkEngineLife(b *testing.B) {
	r := onEngine(b)
	var created, deleted time.Duration
	n := 0
	for b.Loop() {
		n++
		name := fmt.Sprintf("p%d", n)
		begin := time.Now()
		r.must(plan.CreatePod{Pod: r.pod(name, runtimetest.Program("wait"))})
		r.must(plan.WaitReady{Pod: key(name)})
		created += time.Since(begin)
		begin = time.Now()
		r.must(plan.DeletePod{Pod: key(name)})
		deleted += time.Since(begin)
	}
	b.ReportMetric(float64(created.Milliseconds())/float64(n), "ms/create")
	b.ReportMetric(float64(deleted.Milliseconds())/float64(n), "ms/delete")
}

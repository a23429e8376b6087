package reconcile

import (
	"context"
	"fmt"
	"path"
	"runtime"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
)

// guarded is pass. What breaks down in it concerns this application only: without that, one object that some code
// does not expect would end the daemon, again after every start.
func (a *Application) guarded(ctx context.Context) (next time.Time) {
	defer func() {
		if p := recover(); p != nil {
			a.letGo()
			a.failures++
			c := a.configured()
			next = time.Now().Add(max(backoff(a.failures, c.RetryInterval), time.Second))
			next = a.finish(Status{Config: c, Applied: a.record.Revision, AppliedAt: a.record.AppliedAt}, Failed, "BrokeDown", breakdown(p), next)
		}
	}()
	return a.pass(ctx)
}

// Look renders, observes and computes once, and changes nothing. It must not be called beside Run. What breaks down
// is in the status.
func (a *Application) Look(ctx context.Context) (st Status) {
	defer func() {
		if p := recover(); p != nil {
			a.letGo()
			st = Status{Config: a.configured(), Health: Failed, Reason: "BrokeDown", Detail: breakdown(p)}
		}
	}()
	return a.look(ctx)
}

// letGo drops what is kept from one pass to the next, and may be half done.
func (a *Application) letGo() {
	a.rendered, a.expander, a.last = rendered{}, plan.Expander{}, memo{}
}

// breakdown says what broke down and where. It is called by the deferred function that recovered.
func breakdown(p any) string {
	what := "what was found"
	if err, ok := p.(runtime.Error); ok {
		what = err.Error() // other values may quote what was rendered
	}
	return fmt.Sprintf("planning it broke down (%s, at %s): nothing is changed; this is a mistake in Fairlead, please report it", what, at())
}

// at is the innermost function of this module that was running when a panic began.
func at() string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	panicked := false
	for {
		f, more := frames.Next()
		if panicked && strings.Contains(f.Function, "/fairlead/") {
			return fmt.Sprintf("%s:%d", path.Base(f.File), f.Line)
		}
		panicked = panicked || f.Function == "runtime.gopanic"
		if !more {
			return "an unknown place"
		}
	}
}

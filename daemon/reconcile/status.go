package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/sources"
)

// Health sums up an application in one word.
type Health string

// The healths of an application.
const (
	Healthy     Health = "Healthy"
	Progressing Health = "Progressing"
	Degraded    Health = "Degraded"
	Failed      Health = "Failed"
	Suspended   Health = "Suspended"
)

// Status is what is known of an application. It is immutable.
type Status struct {
	Config Config
	// Revision is the revision that Desired was rendered from.
	Revision  sources.Revision
	Committed time.Time
	Message   string
	Desired   plan.Desired
	// Diags are all findings: of rendering, of expanding and of planning.
	Diags diag.List
	Plan  plan.Plan
	// Planned is the time that computing Plan took, observing left out; 0 when it was not computed anew.
	Planned time.Duration
	// Inventory is what was applied and not yet confirmed gone.
	Inventory []plan.Applied
	// Applied is the last revision of which everything was done, at AppliedAt.
	Applied   string
	AppliedAt time.Time
	// Walking is true while a plan is carried out.
	Walking bool
	Health  Health
	Reason  string
	Detail  string
	// Next is when the worker looks again by itself; zero when only on an event.
	Next time.Time
	// Pass counts the looks of the worker at the application.
	Pass int
	// Ended is true when a removed application is gone.
	Ended bool
}

// Status returns what is known now.
func (a *Application) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status
}

// rollup sums up the workloads of a plan that has nothing to do.
func rollup(p plan.Plan, stale problem) (Health, string, string) {
	if p.Diags.HasErrors() {
		return Failed, "PlanFailed", summary(p.Diags)
	}
	health, reason, detail := Healthy, "Applied", ""
	for _, w := range p.Status {
		switch Health(w.Health) {
		case Degraded:
			return Degraded, w.Reason, w.Ref.String() + ": " + w.Message
		case Progressing:
			health, reason, detail = Progressing, w.Reason, w.Ref.String()+": "+w.Message
		case Healthy, Failed, Suspended:
		}
	}
	if health == Healthy && stale.reason != "" {
		return Degraded, stale.reason, stale.detail
	}
	return health, reason, detail
}

// silence says which nodes do not answer and what that means.
func silence(nodes []plan.NodeID) string {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = "node " + string(n)
	}
	verb := " does"
	if len(names) > 1 {
		verb = " do"
	}
	return strings.Join(names, ", ") + verb + " not answer; what runs there is left as it is"
}

// findings are all of rendering and of planning.
func findings(r rendered, p plan.Plan) diag.List {
	out := slices.Clone(r.diags)
	for _, d := range p.Diags {
		if r.ok || d.Code != "incomplete" { // what is wrong was found when rendering
			out = append(out, d)
		}
	}
	return out
}

// summary says the first finding and how many there are.
func summary(l diag.List) string {
	var errs diag.List
	for _, d := range l.Sorted() {
		if d.Severity == diag.Error {
			errs = append(errs, d)
		}
	}
	switch len(errs) {
	case 0:
		return ""
	case 1:
		return errs[0].String()
	default:
		return fmt.Sprintf("%s (and %d more)", errs[0], len(errs)-1)
	}
}

func pending(p plan.Plan) string {
	add, change, destroy := p.Counts()
	return fmt.Sprintf("%d to add, %d to change, %d to destroy", add, change, destroy)
}

func earlier(a, b time.Time) time.Time {
	if b.IsZero() || (!a.IsZero() && a.Before(b)) {
		return a
	}
	return b
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

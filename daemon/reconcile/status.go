package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/store"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
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
	// Revision is the newest revision that was rendered. Desired is from it unless Back is true.
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
	// Failure is that of Revision; nil when it has not failed. Back is true when what is desired is the last good revision,
	// which is Applied, in its place.
	Failure *store.Failure
	Back    bool
	// Applied is the last good revision: everything of it was done, and it was healthy, at AppliedAt.
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

// Wants returns the names of what the application wants. While it is suspended, or its newest revision has failed, it
// keeps what it has.
func (st *Status) Wants() []object.Ref {
	if st.Config.Suspend && !st.Config.Frozen || st.Failure != nil {
		return union(st.Desired.Objects, st.Inventory)
	}
	return union(st.Desired.Objects, nil)
}

// rollup sums up the workloads of a plan that has nothing to do.
func rollup(p plan.Plan, stale problem) (Health, string, string) {
	if p.Diags.HasErrors() {
		return Failed, "PlanFailed", summary(p.Diags)
	}
	if p.Failed != "" {
		return Degraded, "SyncFailed", p.Failed
	}
	health, reason, detail := Healthy, "Applied", ""
	for _, w := range p.Status {
		switch Health(w.Health) {
		case Degraded:
			return Degraded, w.Reason, w.Ref.String() + ": " + w.Message
		case Progressing:
			if reason == "WaitsForStage" {
				continue // the first that waits says what for
			}
			health, reason, detail = Progressing, w.Reason, w.Ref.String()+": "+w.Message
		case Healthy, Failed, Suspended:
		}
	}
	if health == Healthy && !p.Empty() && p.Open().Empty() {
		return Progressing, "WaitsForStage", pending(p)
	}
	if health == Healthy && stale.reason != "" {
		return Degraded, stale.reason, stale.detail
	}
	return health, reason, detail
}

// blocked says what waits for an approval, and how it is given.
func blocked(application string, b *plan.Blocked) string {
	return fmt.Sprintf("%s; `fairlead approve %s %s` approves it", b.What(), application, b.Digest)
}

// suspended says that an application is suspended, and what is known of that.
func suspended(c Config) string {
	if c.Suspension == (plan.Suspension{}) {
		return "the application is suspended"
	}
	return "the application is suspended " + c.Suspension.String()
}

// movingAway says what is waited for before the application lets go of what it does not want any more.
func movingAway(p plan.Plan) string {
	var parts []string
	if n := len(p.Moves); n > 0 {
		const most = 3
		var names []string
		for _, m := range p.Moves[:min(most, n)] {
			names = append(names, m.Ref.String()+" to application "+m.To)
		}
		s := "what moves was not taken over yet: " + strings.Join(names, ", ")
		if n > most {
			s += fmt.Sprintf(" and %d more", n-most)
		}
		parts = append(parts, s)
	}
	if p.Waits != "" {
		parts = append(parts, "what is gone is not deleted before it is known whether another application wants it: "+p.Waits)
	}
	return strings.Join(parts, "; ")
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

package reconcile

import (
	"testing"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/diag"
)

func TestOfWhatIsForbiddenNothingIsCarriedOut(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 2))
		w.start(shop())
		w.want("Healthy Applied")
		w.change(func() {
			w.judge = func(_ Config, p plan.Plan, d plan.Desired) diag.List {
				var found diag.List
				for _, c := range p.Changes {
					if c.Action != plan.ActionNone {
						found = append(found, diag.Diagnostic{Severity: diag.Error, Code: "forbidden", Ref: c.Ref, Origin: c.Origin, Message: "robot may not " + string(c.Action) + " this"})
					}
				}
				return found
			}
		})
		w.push("r2", deployment("web:2", 2))
		w.want("Progressing Forbidden") // the rules may be on their way
		w.after(rulesCome)
		w.want("Failed Forbidden")
		w.wantPods("web:1", "web:1")
		if st := w.app.Status(); !st.Diags.HasErrors() || len(w.walks) != 1 || w.record().Revision != "r1" {
			t.Errorf("%d plans were carried out; findings: %v", len(w.walks), st.Diags)
		}
		// What is lost comes back as it was.
		w.change(func() { w.pods = w.pods[:1] })
		w.want("Failed Forbidden")
		w.wantPods("web:1", "web:1")
		// It goes on when it is allowed, though nothing else has changed.
		w.change(func() { w.judge = nil })
		w.want("Healthy Applied")
		w.wantPods("web:2", "web:2")
	})
}

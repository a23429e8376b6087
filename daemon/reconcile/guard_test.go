package reconcile

import (
	"testing"
)

// T-D4 (Argo Workflows CVE-2026-40886, Flux CVE-2022-39272): what some code does not expect is the fault of one
// application. Nothing of it is touched, also after a restart, and it goes on with the next commit.
func TestWhatBreaksDownIsTheApplicationsFault(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 2))
		w.start(shop())
		w.want("Healthy Applied")
		w.pushContent("r2", content{poison: true})
		w.want("Failed BrokeDown", "index out of range", "world_test.go:")
		w.wantPods("web:1", "web:1")
		w.wantInventory("Deployment/web")
		w.restart()
		w.want("Failed BrokeDown")
		w.wantPods("web:1", "web:1")
		if st := w.app.Look(t.Context()); st.Reason != "BrokeDown" || !st.Plan.Empty() {
			t.Errorf("a look says %s: %s", st.Reason, st.Detail)
		}
		w.push("r3", deployment("web:3", 1))
		w.want("Healthy Applied")
		w.wantPods("web:3")
	})
}

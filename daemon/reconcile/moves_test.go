package reconcile

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/render/object"
)

// whose returns the applications of the pods that run, by UID.
func (w *fakeWorld) whose() map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]string{}
	for _, p := range w.pods {
		out[p.UID] = p.Application
	}
	return out
}

func (w *fakeWorld) wantSteps(want ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.Sort(want)
	slices.Sort(w.steps)
	if d := cmp.Diff(want, w.steps); d != "" && len(want)+len(w.steps) > 0 {
		w.t.Errorf("steps (-want +got):\n%s", d)
	}
	w.steps = nil
}

func TestWhatMovesAwayIsLeftUntilItIsTakenOver(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		settings := plantest.ConfigMap("settings", "a")
		w.push("r1", deployment("web:1", 2), settings)
		w.start(shop())
		w.want("Healthy Applied")
		w.change(func() { w.steps = nil })
		w.other("billing", false, deployment("web:1", 2))
		w.push("r2", settings)
		w.want("Healthy Applied")
		w.wantInventory("ConfigMap/settings", "Deployment/web")
		if d := cmp.Diff([]plan.Move{{Ref: web, From: "shop", To: "billing"}}, w.app.Status().Plan.Moves); d != "" {
			t.Errorf("what the plan says of it:\n%s", d)
		}
		w.quiet(func() { w.poke() })
		// A restart changes nothing, also when nothing can be known of the other application.
		w.restart()
		w.want("Healthy Applied")
		w.wantInventory("ConfigMap/settings", "Deployment/web")
		w.other("billing", true, deployment("web:1", 2))
		w.want("Healthy Applied")
		w.wantInventory("ConfigMap/settings")
		w.wantPods("web:1", "web:1")
		w.wantSteps()
		w.quiet(func() { w.poke() })
	})
}

func TestWhatWasToMoveAndIsNotWantedAnyMoreIsDeleted(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		settings := plantest.ConfigMap("settings", "a")
		w.push("r1", deployment("web:1", 1), settings)
		w.start(shop())
		w.other("billing", false, deployment("web:1", 1))
		w.push("r2", settings)
		w.wantPods("web:1")
		w.other("billing", false)
		w.want("Healthy Applied")
		w.wantPods()
		w.wantInventory("ConfigMap/settings")
	})
}

func TestWhatAnotherApplicationLetsGoIsTakenOver(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		// It runs for the other application, and is wanted here before that one lets it go.
		w.push("r1", deployment("web:1", 2))
		w.start(Config{Application: plan.Application{Name: "shop", Source: "config", Path: "web", Prune: true}})
		w.want("Healthy Applied")
		created := w.record().Inventory[0].Created
		w.stop()
		w.change(func() {
			w.steps = nil
			for i := range w.pods {
				w.pods[i].Application = "billing"
			}
		})
		before := slices.Clone(w.record().Inventory)
		w.claims = NewClaims(w.wake)
		w.app = nil
		w.dir = t.TempDir()
		w.claims.Wants("billing", []object.Ref{web})
		w.claims.Recorded("billing", before)
		w.after(time.Hour)
		w.start(shop())
		w.want("Failed PlanFailed", "Deployment shop/web", "billing")
		w.wantSteps()
		w.claims.Wants("billing", nil)
		synctest.Wait()
		w.want("Healthy Applied")
		w.wantSteps("move-pod "+w.pods[0].Name, "move-pod "+w.pods[1].Name)
		if d := cmp.Diff(map[string]string{"uid-1": "shop", "uid-2": "shop"}, w.whose()); d != "" {
			t.Errorf("the applications of the pods:\n%s", d)
		}
		got := w.record().Inventory
		if len(got) != 1 || got[0].Moved != 1 || !got[0].Created.Equal(created) {
			t.Errorf("the inventory is %+v: want the Deployment, moved once, applied first %v", got, created)
		}
		if d := cmp.Diff([]string{"Deployment shop/web from billing"}, w.moved); d != "" {
			t.Errorf("what is said of it:\n%s", d)
		}
	})
}

func TestADeletionWaitsUntilItIsKnownWhatOthersWant(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		settings := plantest.ConfigMap("settings", "a")
		w.push("r1", deployment("web:1", 1), settings)
		w.start(shop())
		w.change(func() { w.awaits = "application billing was not looked at yet" })
		w.push("r2", settings)
		w.want("Progressing DeletionWaits", "application billing was not looked at yet")
		w.after(time.Hour)
		w.wantPods("web:1")
		w.wantInventory("ConfigMap/settings", "Deployment/web")
		w.change(func() { w.awaits = "" })
		w.want("Healthy Applied")
		w.wantPods()
		w.wantInventory("ConfigMap/settings")
	})
}

// A renamed application is two: one that is not declared any more, and one that wants the same objects.
func TestARemovedApplicationWaitsForWhoTakesItOver(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 1))
		w.start(shop())
		w.change(func() { w.awaits = "application store was not looked at yet" })
		c := shop()
		c.Removed = true
		w.app.Configure(c)
		synctest.Wait()
		w.want("Progressing Moving", "application store was not looked at yet")
		w.wantPods("web:1")
		w.other("store", false, deployment("web:1", 1))
		w.change(func() { w.awaits = "" })
		w.want("Progressing Moving", "Deployment shop/web to application store")
		w.after(time.Hour)
		w.wantPods("web:1")
		w.other("store", true, deployment("web:1", 1))
		w.want("Progressing Moving")
		// The pods follow, and then nothing is left of the application.
		w.change(func() {
			for i := range w.pods {
				w.pods[i].Application = "store"
			}
		})
		w.want("Healthy Removed")
		w.wantPods("web:1")
	})
}

func TestASuspendedApplicationLetsNothingGo(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		settings := plantest.ConfigMap("settings", "a")
		w.push("r1", deployment("web:1", 1), settings)
		w.start(shop())
		c := shop()
		c.Suspend = true
		w.app.Configure(c)
		synctest.Wait()
		w.push("r2", settings)
		w.claims.Wants("billing", []object.Ref{web})
		if got := w.claims.Standing("billing", []object.Ref{web}, false); got.Others[web] != "shop" {
			t.Errorf("another application is told %+v", got)
		}
		w.app.Configure(shop())
		synctest.Wait()
		if got := w.claims.Standing("billing", []object.Ref{web}, false); got.Arrivals[web].From != "shop" {
			t.Errorf("after that, another application is told %+v", got)
		}
		w.wantPods("web:1")
	})
}

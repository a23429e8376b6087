package reconcile

import (
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

func broken(line int) diag.Diagnostic {
	return diag.Diagnostic{Severity: diag.Error, Code: "unknown-field", Ref: web, Origin: object.Origin{Path: "web.yaml", Line: line}, Field: "spec.replica", Message: "is not a field", Hint: "did you mean replicas?"}
}

func TestARenderThatFailsKeepsWhatRuns(t *testing.T) {
	for name, c := range map[string]content{
		"with nothing":         {diags: diag.List{broken(7)}},
		"with a part of it":    {objects: []object.Object{plantest.ConfigMap("settings", "b")}, diags: diag.List{broken(7)}},
		"with the wrong thing": {objects: []object.Object{deployment("web:9", 5)}, diags: diag.List{broken(7)}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *fakeWorld) {
				w.push("r1", deployment("web:1", 2), plantest.ConfigMap("settings", "a"))
				w.start(shop())
				w.pushContent("r2", c)
				w.want("Failed RenderFailed", "web.yaml:7: error: Deployment shop/web: spec.replica: is not a field (did you mean replicas?)")
				w.after(time.Hour)
				w.wantPods("web:1", "web:1")
				w.wantInventory("ConfigMap/settings", "Deployment/web")
				if r := w.record(); r.Revision != "r1" {
					t.Errorf("applied %s, want r1", r.Revision)
				}
				// A pod that is lost meanwhile is made again from what was good.
				w.change(func() { w.pods = w.pods[1:] })
				w.wantPods("web:1", "web:1")
				w.want("Failed RenderFailed", "web.yaml:7")
				if st := w.app.Status(); st.Applied != "r1" || !st.Diags.HasErrors() {
					t.Errorf("applied %s, findings %v", st.Applied, st.Diags)
				}
				// Also after a restart, when what was good is not known, nothing is deleted.
				w.restart()
				w.want("Failed RenderFailed")
				w.wantPods("web:1", "web:1")
				w.wantInventory("ConfigMap/settings", "Deployment/web")
				w.push("r3", deployment("web:3", 1))
				w.want("Healthy Applied")
				w.wantPods("web:3")
				w.wantInventory("Deployment/web")
			})
		})
	}
}

func TestARenderThatCannotBeMadeIsSaidWithItsPath(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.pushContent("r1", content{err: errors.New("the render worker ended: out of memory")})
		w.start(shop())
		w.want("Failed RenderFailed", "web: error: the render worker ended: out of memory")
	})
}

func TestASourceThatFailsDeletesNothing(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 2))
		w.start(shop())
		w.change(func() { w.source.Err = errDown })
		w.want("Degraded SourceFailed", "source config: connection refused", "stays in force")
		w.wantPods("web:1", "web:1")
		// What is lost is made again all the same.
		w.change(func() { w.pods = w.pods[1:] })
		w.wantPods("web:1", "web:1")
		w.want("Degraded SourceFailed")
		w.change(func() { w.source = SourceStatus{Name: "config", Err: errDown} })
		w.want("Degraded SourceFailed")
		// After a restart nothing is known of the source.
		w.restart()
		w.want("Failed SourceFailed", "connection refused")
		w.wantPods("web:1", "web:1")
		w.wantInventory("Deployment/web")
		w.change(func() { w.source.Name = "other" })
		w.want("Failed SourceMissing", "source config is not declared")
		w.wantPods("web:1", "web:1")
	})
}

func TestAnEmptyRenderDeletesNothingUnlessAllowed(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 2))
		w.start(shop())
		w.push("r2")
		w.after(time.Hour)
		w.wantPods("web:1", "web:1")
		w.wantInventory("Deployment/web")
		if text := w.app.Status().Diags.String(); !strings.Contains(text, "Deployment shop/web is gone from the source and kept: the source has no object at all") {
			t.Errorf("findings: %s", text)
		}
		c := shop()
		c.AllowEmpty = true
		w.app.Configure(c)
		synctest.Wait()
		w.wantPods()
		w.wantInventory()
	})
}

func TestWhatIsGoneFromTheSourceIsDeletedWhenPruning(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		c := shop()
		c.Prune = false
		w.push("r1", deployment("web:1", 1), plantest.ConfigMap("settings", "a"))
		w.start(c)
		w.push("r2", plantest.ConfigMap("settings", "a"))
		w.wantPods("web:1")
		w.wantInventory("ConfigMap/settings", "Deployment/web")
		w.app.Configure(shop())
		synctest.Wait()
		w.wantPods()
		w.wantInventory("ConfigMap/settings")
		w.want("Healthy Applied")
	})
}

func TestANodeThatDoesNotAnswerLosesNothing(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 2), plantest.ConfigMap("settings", "a"))
		w.start(shop())
		w.change(func() { w.stale = true })
		w.push("r2", plantest.ConfigMap("settings", "b"))
		w.after(10 * time.Minute)
		w.wantInventory("ConfigMap/settings", "Deployment/web")
		if len(w.walks) > 4 {
			t.Errorf("%d walks while the node does not answer", len(w.walks))
		}
		if w.app.Status().Applied == "r2" {
			t.Error("r2 counts as applied while nobody knows what runs")
		}
		w.change(func() { w.stale = false })
		w.wantPods()
		w.wantInventory("ConfigMap/settings")
		w.want("Healthy Applied")
	})
}

func TestARemovedApplicationIsPrunedAndForgotten(t *testing.T) {
	for name, prune := range map[string]bool{"pruning": true, "not pruning": false} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *fakeWorld) {
				c := shop()
				c.Prune = prune
				w.push("r1", deployment("web:1", 2))
				w.start(c)
				c.Removed = true
				w.app.Configure(c)
				synctest.Wait()
				w.wantPods()
				w.want("Healthy Removed")
				if !w.app.Status().Ended {
					t.Error("the worker goes on")
				}
				if _, err := os.Stat(w.recordFile()); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the record is still there (%v)", err)
				}
			})
		})
	}
}

func TestARemovedApplicationWithOrphanLeavesWhatRuns(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 2))
		w.start(shop())
		c := shop()
		c.Removed, c.Orphan = true, true
		w.app.Configure(c)
		synctest.Wait()
		w.wantPods("web:1", "web:1")
		w.want("Healthy Removed", "runs on")
		if _, err := os.Stat(w.recordFile()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the record is still there (%v)", err)
		}
	})
}

func TestARemovalWaitsForANodeThatDoesNotAnswer(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 2))
		w.start(shop())
		w.change(func() { w.stale = true })
		c := shop()
		c.Removed = true
		w.app.Configure(c)
		w.after(10 * time.Minute)
		if w.app.Status().Ended {
			t.Fatal("it counts as gone while nobody knows what runs")
		}
		w.wantInventory("Deployment/web")
		w.change(func() { w.stale = false })
		w.wantPods()
		if !w.app.Status().Ended {
			t.Error("the worker goes on")
		}
	})
}

func TestRemovalThatFailsIsTriedAgain(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 1))
		w.start(shop())
		w.refuse = func(s plan.Step) error { return errDown }
		c := shop()
		c.Removed = true
		w.app.Configure(c)
		w.after(5 * time.Second)
		w.want("Degraded ApplyFailed", "connection refused")
		w.wantInventory("Deployment/web")
		w.change(func() { w.refuse = nil })
		w.after(16 * time.Second)
		if !w.app.Status().Ended {
			t.Error("the worker goes on")
		}
		w.wantPods()
	})
}

package reconcile

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/render/object"
)

var web = object.Ref{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "web"}

func deployment(image string, replicas int32) object.Object {
	return plantest.Deployment("web", image, replicas, nil)
}

func TestTheFirstRevisionIsApplied(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.start(shop())
		w.want("Failed Waiting", "was not fetched yet")
		w.push("r1", deployment("web:1", 2), plantest.ConfigMap("settings", "a"))
		w.want("Healthy Applied")
		w.wantPods("web:1", "web:1")
		w.wantInventory("ConfigMap/settings", "Deployment/web")
		if r := w.record(); r.Revision != "r1" || r.AppliedAt.IsZero() {
			t.Errorf("recorded as applied: %q at %v", r.Revision, r.AppliedAt)
		}
		if st := w.app.Status(); st.Applied != "r1" || st.Message != "commit r1" || !st.Plan.Empty() {
			t.Errorf("status: applied %q, message %q, plan empty %v", st.Applied, st.Message, st.Plan.Empty())
		}
	})
}

// TestWhenAnObjectWasAppliedFirstIsRecorded holds that later changes of it do not count.
func TestWhenAnObjectWasAppliedFirstIsRecorded(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		first := time.Now()
		w.push("r1", deployment("web:1", 1))
		w.start(shop())
		w.after(time.Hour)
		second := time.Now()
		w.push("r2", deployment("web:2", 1), plantest.ConfigMap("settings", "a"))
		w.want("Healthy Applied")
		w.restart()
		want := map[string]time.Time{"web": first, "settings": second}
		for _, o := range w.record().Inventory {
			if !o.Created.Equal(want[o.Name]) {
				t.Errorf("%s was applied first at %s, want %s", o.Name, o.Created, want[o.Name])
			}
		}
	})
}

func TestNothingToDoDoesNothing(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 2))
		w.start(shop())
		w.want("Healthy Applied")
		w.quiet(func() {
			for range 5 {
				w.poke()
			}
		})
	})
}

func TestARestartTouchesNothing(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 2))
		w.start(shop())
		w.restart()
		w.want("Healthy Applied")
		if len(w.walks) != 1 {
			t.Errorf("%d plans were carried out", len(w.walks))
		}
	})
}

func TestACommitSupersedesAWalkThatWaits(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 2))
		w.start(shop())
		w.unready["web:2"] = true
		w.push("r2", deployment("web:2", 2))
		w.after(time.Minute)
		w.want("Progressing Applying")
		w.wantPods("web:1", "web:1", "web:2 unready")
		began := time.Now()
		w.push("r3", deployment("web:3", 2))
		w.want("Healthy Applied")
		if took := time.Since(began); took > 0 {
			t.Errorf("the fix took %v", took)
		}
		w.wantPods("web:3", "web:3")
	})
}

func TestACommitThatChangesNothingDoesNotInterrupt(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 2))
		w.start(shop())
		w.unready["web:2"] = true
		w.push("r2", deployment("web:2", 2))
		walks := len(w.walks)
		w.push("r3", deployment("web:2", 2))
		w.after(time.Minute)
		if len(w.walks) != walks {
			t.Errorf("the walk was interrupted:\n%s", strings.Join(w.walks, "\n"))
		}
		w.want("Progressing Applying")
		w.change(func() {
			delete(w.unready, "web:2")
			for i := range w.pods {
				w.pods[i].Ready, w.pods[i].ReadySince = true, time.Now()
			}
		})
		w.after(time.Minute)
		w.want("Healthy Applied")
		if r := w.record(); r.Revision != "r3" {
			t.Errorf("applied %s, want r3", r.Revision)
		}
	})
}

func TestWhatFailsIsTriedAgainWithBackOff(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		var tries []time.Duration
		began := time.Now()
		w.refuse = func(s plan.Step) error {
			if s.Op != plan.OpCreatePod {
				return nil
			}
			tries = append(tries, time.Since(began))
			return errPull
		}
		w.push("r1", deployment("web:1", 1))
		w.start(shop())
		w.want("Degraded ApplyFailed", "create-pod", "pull access denied")
		for range 70 {
			w.after(time.Second)
			w.poke() // what happens on the node does not make it faster
		}
		want := []time.Duration{0, 1, 3, 7, 15, 31, 47, 63}
		for i := range want {
			want[i] *= time.Second
		}
		if d := cmp.Diff(want, tries); d != "" {
			t.Error(d)
		}
		// A new revision is tried at once, and its own failures are counted from the beginning.
		tries, began = nil, time.Now()
		w.push("r2", deployment("web:2", 1))
		w.after(2 * time.Second)
		if d := cmp.Diff([]time.Duration{0, time.Second}, tries); d != "" {
			t.Error(d)
		}
		// Somebody who asks does not wait.
		tries, began = nil, time.Now()
		w.app.Apply()
		synctest.Wait()
		if len(tries) != 1 {
			t.Errorf("asked to apply: %d tries", len(tries))
		}
		w.change(func() { w.refuse = nil })
		w.after(16 * time.Second)
		w.want("Healthy Applied")
	})
}

// TestABackOffEndsWhenNothingIsLeftToDo: what failed came about without the loop, and then something else is to be
// done before the next try would have been due.
func TestABackOffEndsWhenNothingIsLeftToDo(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 1))
		w.start(shop())
		w.want("Healthy Applied")
		one := w.pods
		w.change(func() { w.refuse, w.pods = func(plan.Step) error { return errDown }, nil })
		w.after(2 * time.Second)
		w.want("Degraded ApplyFailed", "connection refused")
		w.change(func() { w.pods = one })
		w.want("Healthy Applied")
		w.change(func() { w.refuse, w.pods = nil, nil })
		w.want("Healthy Applied")
		w.wantPods("web:1")
	})
}

func TestARolloutThatIsGivenUpIsNotApplied(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 2))
		w.start(shop())
		w.unready["web:2"] = true
		seconds := int32(30)
		short := func(d *appsv1.Deployment) { d.Spec.ProgressDeadlineSeconds = &seconds }
		w.push("r2", plantest.Deployment("web", "web:2", 2, short))
		w.after(5 * time.Minute)
		w.want("Failed RevisionFailed", "ProgressDeadlineExceeded", "web")
		w.wantPods("web:1", "web:1", "web:2 unready")
		if r := w.record(); r.Revision != "r1" {
			t.Errorf("applied %s, want r1", r.Revision)
		}
		w.quiet(func() { w.poke() })
		w.push("r3", plantest.Deployment("web", "web:3", 2, short))
		w.want("Healthy Applied")
		w.wantPods("web:3", "web:3")
	})
}

func TestAWalkIsBoundedByTheTimeout(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 2))
		c := shop()
		c.Timeout = 20 * time.Second
		w.start(c)
		w.unready["web:2"] = true
		w.push("r2", deployment("web:2", 2))
		w.after(20 * time.Second)
		w.want("Failed RevisionFailed", "ApplyFailed", "not done within 20s")
		w.quiet(func() { w.poke() })
	})
}

func TestSuspendLeavesEverythingAsItIs(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 2))
		w.start(shop())
		c := shop()
		c.Suspend = true
		w.app.Configure(c)
		synctest.Wait()
		w.push("r2", deployment("web:2", 2))
		w.want("Suspended Suspended", "2 to add, 1 to change, 2 to destroy")
		w.after(time.Hour)
		w.wantPods("web:1", "web:1")
		w.app.Configure(shop())
		synctest.Wait()
		w.want("Healthy Applied")
		w.wantPods("web:2", "web:2")
	})
}

// TestLostPodsOfWhatIsHeldComeBack holds that an application that is suspended, or waits to be asked, gets back pods
// that are lost, as they were applied: Kubernetes' controllers do the same while Flux or Argo CD holds still.
func TestLostPodsOfWhatIsHeldComeBack(t *testing.T) {
	for name, hold := range map[string]func(*Config){
		"suspended": func(c *Config) { c.Suspend = true },
		"manual":    func(c *Config) { c.Manual = true },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *fakeWorld) {
				w.push("r1", deployment("web:1", 2))
				w.start(shop())
				c := shop()
				hold(&c)
				w.app.Configure(c)
				synctest.Wait()
				held := "Suspended Suspended"
				lose := func() { w.change(func() { w.pods = w.pods[1:] }) }
				if c.Manual {
					held = "Healthy Applied"
				}
				lose()
				w.want(held)
				w.wantPods("web:1", "web:1")
				if c.Manual {
					held = "Progressing OutOfSync"
				}
				// A new revision is not applied by that, even to the pod that is made.
				w.push("r2", deployment("web:2", 2), plantest.ConfigMap("settings", "a"))
				w.want(held, "to add")
				lose()
				w.want(held, "to add")
				w.wantPods("web:1", "web:1")
				w.wantInventory("Deployment/web")
				// After a restart it is not known how a workload was that has changed since; others come back.
				w.restart()
				lose()
				w.want(held, "to add")
				w.wantPods("web:1")
				w.push("r1", deployment("web:1", 2))
				w.wantPods("web:1", "web:1")
				// What is frozen stays as it is.
				c.Suspend, c.Frozen = true, true
				w.app.Configure(c)
				synctest.Wait()
				lose()
				w.want("Suspended Suspended", "1 to add")
				w.wantPods("web:1")
			})
		})
	}
}

// TestALostPodThatDoesNotComeBackIsTriedAgainLater holds that what fails is not repeated without a pause.
func TestALostPodThatDoesNotComeBackIsTriedAgainLater(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 2))
		c := shop()
		w.start(c)
		c.Suspend = true
		w.app.Configure(c)
		synctest.Wait()
		before := len(w.walks)
		w.change(func() { w.refuse, w.pods = func(plan.Step) error { return errors.New("no room") }, w.pods[1:] })
		w.want("Suspended Suspended", "no room")
		for range 30 {
			w.after(time.Second)
			w.poke()
		}
		if n := len(w.walks) - before; n < 2 || n > 10 {
			t.Errorf("%d walks in half a minute", n)
		}
		w.change(func() { w.refuse = nil })
		w.after(time.Minute)
		w.want("Suspended Suspended")
		w.wantPods("web:1", "web:1")
	})
}

func TestSuspendEndsAWalkThatWaits(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 2))
		w.start(shop())
		w.unready["web:2"] = true
		w.push("r2", deployment("web:2", 2))
		c := shop()
		c.Suspend = true
		w.app.Configure(c)
		synctest.Wait()
		w.want("Suspended Suspended")
	})
}

func TestAManualApplicationWaitsToBeAsked(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		c := shop()
		c.Manual = true
		w.push("r1", deployment("web:1", 1))
		w.start(c)
		w.after(time.Hour)
		w.want("Progressing OutOfSync", "fairlead apply", "to add")
		w.wantPods()
		w.app.Apply()
		synctest.Wait()
		w.want("Healthy Applied")
		w.push("r2", deployment("web:2", 1))
		w.want("Progressing OutOfSync")
		w.wantPods("web:1")
	})
}

func TestDependenciesAreWaitedFor(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		c := shop()
		c.DependsOn = []string{"queue", "database"}
		w.waitsFor = map[string]Dependency{"queue": {Why: "waits for application queue: Applying"}, "database": {Why: "waits for application database: RenderFailed: x.yaml:3", Failed: true}}
		w.push("r1", deployment("web:1", 1))
		w.start(c)
		w.after(time.Hour)
		w.want("Degraded DependencyFailed", "application database", "x.yaml:3")
		w.wantPods()
		w.change(func() { delete(w.waitsFor, "database") })
		w.want("Progressing DependencyNotReady", "application queue")
		w.change(func() { w.waitsFor = nil })
		w.want("Healthy Applied")
		// A dependency that breaks later stops what is new and leaves what runs.
		w.change(func() { w.waitsFor = map[string]Dependency{"database": {Why: "broken"}} })
		w.want("Healthy Applied")
		w.push("r2", deployment("web:2", 1))
		w.want("Progressing DependencyNotReady", "broken")
		w.wantPods("web:1")
		// What is lost meanwhile is made again, as it was.
		w.change(func() { w.pods = nil })
		w.after(time.Minute)
		w.want("Progressing DependencyNotReady", "broken")
		w.wantPods("web:1")
		w.change(func() { w.waitsFor = nil })
		w.want("Healthy Applied")
		w.wantPods("web:2")
	})
}

func TestAnObjectOfAnotherApplicationIsNamedAndLeft(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.other("payments", true, plantest.ConfigMap("settings", "a"))
		w.push("r1", deployment("web:1", 1), plantest.ConfigMap("settings", "a"))
		w.start(shop())
		w.want("Failed PlanFailed", "ConfigMap shop/settings", "payments")
		w.wantPods("web:1")
		w.wantInventory("Deployment/web")
		w.quiet(func() { w.poke() })
		w.claims.Forget("payments")
		synctest.Wait()
		w.want("Healthy Applied")
		w.wantInventory("ConfigMap/settings", "Deployment/web")
	})
}

func TestWhatIsUndoneAgainAndAgainIsNotRepeatedWithoutPause(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 1))
		w.start(shop())
		// Whatever is made is gone before anybody looks.
		creations := 0
		w.before = func(s plan.Step) {
			if s.Op == plan.OpCreatePod {
				creations++
			}
		}
		w.change(func() { w.undo, w.pods = true, nil })
		w.want("Degraded NotConverging", "the same is to be done again")
		for range 60 {
			w.after(time.Second)
			w.poke()
		}
		if creations > 20 {
			t.Errorf("%d creations in a minute", creations)
		}
		w.change(func() { w.undo = false })
		w.after(16 * time.Second)
		w.want("Healthy Applied")
	})
}

// TestAServiceThatIsNotKeptIsNotSetWithoutPause has a node that forgets every Service it is given.
func TestAServiceThatIsNotKeptIsNotSetWithoutPause(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		v := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Port: 80}}}}
		o := plantest.Object(object.Ref{Kind: "Service", Namespace: "shop", Name: "web"}, "v1", v)
		o.Value = v
		w.push("r1", o)
		w.start(shop())
		w.want("Degraded NotConverging", "the same is to be done again")
		w.after(time.Minute)
		if n := len(w.walks); n < 3 || n > 20 {
			t.Errorf("%d walks in a minute", n)
		}
	})
}

func TestPokesThatComeTogetherAreOneLook(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 1))
		w.start(shop())
		before := w.app.Status().Pass
		for range 1000 {
			w.app.Poke()
		}
		synctest.Wait()
		if n := w.app.Status().Pass - before; n > 2 {
			t.Errorf("%d looks", n)
		}
	})
}

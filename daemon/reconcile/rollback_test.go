package reconcile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/daemon/store"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// rolling is a shop that goes back to its last good revision when a newer one fails.
func rolling() Config {
	c := shop()
	c.Rollback = true
	return c
}

// hasty is a Deployment whose pods have half a minute to become ready.
func hasty(name, image string, replicas int32) object.Object {
	return plantest.Deployment(name, image, replicas, func(d *appsv1.Deployment) {
		seconds := int32(30)
		d.Spec.ProgressDeadlineSeconds = &seconds
	})
}

func failingJob(name string) object.Object {
	v := &batchv1.Job{}
	v.Spec.Template = plantest.Template("job:1")
	v.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	limit := int32(0)
	v.Spec.BackoffLimit = &limit
	o := plantest.Object(object.Ref{Group: "batch", Kind: "Job", Namespace: "shop", Name: name}, "batch/v1", v)
	o.Value = v
	return o
}

// runsAs checks what is recorded to be there, with the content of the ConfigMap settings.
func (w *fakeWorld) configIs(want string) {
	w.t.Helper()
	for _, o := range w.record().Inventory {
		if o.Kind == "ConfigMap" && o.Name == "settings" {
			if !strings.Contains(string(o.Written), want) {
				w.t.Errorf("the ConfigMap that was applied is %s, want %s", o.Written, want)
			}
			return
		}
	}
	w.t.Error("no ConfigMap settings was applied")
}

// TestAFailedRevisionIsNotTriedAgain holds that it is not after a restart either, and that whatever moves it makes it
// tried again.
func TestAFailedRevisionIsNotTriedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		move  func(w *fakeWorld)
		tried bool
	}{
		"nothing":                       {func(w *fakeWorld) { w.poke() }, false},
		"a commit that is not about it": {func(w *fakeWorld) { w.push("r3", hasty("web", "web:2", 2)) }, false},
		"a commit":                      {func(w *fakeWorld) { w.push("r3", hasty("web", "web:2", 2), plantest.ConfigMap("more", "a")) }, true},
		"the declaration": {func(w *fakeWorld) {
			c := w.app.configured()
			c.Timeout = time.Hour
			w.app.Configure(c)
			synctest.Wait()
		}, true},
		"somebody who applies":  {func(w *fakeWorld) { w.app.Apply(); synctest.Wait() }, true},
		"somebody who asks":     {func(w *fakeWorld) { w.app.Retry(); synctest.Wait() }, true},
		"a force-push and back": {func(w *fakeWorld) { w.push("r1", hasty("web", "web:1", 2)); w.push("r2", hasty("web", "web:2", 2)) }, true},
	} {
		for _, restarted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/restarted %t", name, restarted), func(t *testing.T) {
				inWorld(t, func(w *fakeWorld) {
					w.push("r1", hasty("web", "web:1", 2))
					w.start(shop())
					w.unready["web:2"] = true
					w.push("r2", hasty("web", "web:2", 2))
					w.after(time.Minute)
					w.want("Failed RevisionFailed", "revision r2 failed (ProgressDeadlineExceeded)", "fairlead reconcile shop")
					w.wantPods("web:1", "web:1", "web:2 unready")
					if restarted {
						w.restart()
						w.want("Failed RevisionFailed", "revision r2 failed (ProgressDeadlineExceeded)")
					}
					w.quiet(func() { w.poke() })
					before := w.record().Failed
					c.move(w)
					if tried := !cmp.Equal(before, w.record().Failed) || w.app.Status().Walking || w.app.Status().Failure == nil; tried != c.tried {
						t.Errorf("tried again: %t, want %t", tried, c.tried)
					}
				})
			})
		}
	}
}

// TestTheApplicationGoesBackAsAWhole holds that not only the Deployment that failed is as it was, over restarts.
func TestTheApplicationGoesBackAsAWhole(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprintf("restarted %t", restarted), func(t *testing.T) {
			inWorld(t, func(w *fakeWorld) {
				good := []object.Object{hasty("web", "web:1", 2), hasty("api", "api:1", 1), plantest.ConfigMap("settings", "good"), plantest.ConfigMap("old", "x")}
				w.push("r1", good...)
				w.start(rolling())
				w.want("Healthy Applied")
				w.unready["web:2"] = true
				w.push("r2", hasty("web", "web:2", 2), hasty("api", "api:2", 1), hasty("extra", "extra:1", 1), plantest.ConfigMap("settings", "bad"))
				w.after(20 * time.Second)
				w.want("Progressing Applying")
				w.wantPods("api:2", "extra:1", "web:1", "web:1", "web:2 unready")
				w.configIs("bad")
				if restarted {
					w.restart() // the rollout has its time anew
				}
				w.after(2 * time.Minute)
				back := func() {
					t.Helper()
					w.want("Degraded RolledBack", "revision r2 failed (ProgressDeadlineExceeded)", "back at r1")
					w.wantPods("api:1", "web:1", "web:1")
					w.wantInventory("ConfigMap/old", "ConfigMap/settings", "Deployment/api", "Deployment/web")
					w.configIs("good")
					if st := w.app.Status(); st.Revision != "r2" || st.Applied != "r1" || !st.Back || st.Failure == nil || st.Failure.Back != "r1" {
						t.Errorf("revision %s, applied %s, back %t, failure %+v", st.Revision, st.Applied, st.Back, st.Failure)
					}
				}
				back()
				w.quiet(func() { w.poke() })
				if restarted {
					w.restart()
					back()
					w.quiet(func() { w.poke() })
				}
				// What is lost of it is made again, and what is changed by hand put right, as ever.
				w.change(func() { w.pods = w.pods[1:] })
				back()
				// A fix goes forward at once.
				w.push("r3", hasty("web", "web:3", 2), plantest.ConfigMap("settings", "new"))
				w.want("Healthy Applied")
				w.wantPods("web:3", "web:3")
				w.configIs("new")
				if r := w.record(); r.Failed != nil || r.Attempt != nil || r.Revision != "r3" {
					t.Errorf("recorded: %+v, %+v, %s", r.Failed, r.Attempt, r.Revision)
				}
			})
		})
	}
}

func TestACommitSupersedesTheWayBack(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", hasty("web", "web:1", 1), hasty("api", "api:1", 1))
		w.start(rolling())
		w.unready["web:2"] = true
		w.push("r2", hasty("web", "web:2", 1), hasty("api", "api:2", 1))
		w.after(25 * time.Second)
		w.change(func() { w.unready["api:1"] = true })
		w.after(10 * time.Second)
		w.want("Degraded RollingBack", "revision r2 failed", "goes back to r1")
		began := time.Now()
		w.push("r3", hasty("web", "web:3", 1), hasty("api", "api:3", 1))
		w.want("Healthy Applied")
		if took := time.Since(began); took > 0 {
			t.Errorf("the fix took %v", took)
		}
		w.wantPods("api:3", "web:3")
	})
}

// TestAWayBackThatFailsStops holds that there is no second one, and none after a restart.
func TestAWayBackThatFailsStops(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", hasty("web", "web:1", 1), hasty("api", "api:1", 1))
		w.start(rolling())
		w.unready["web:2"] = true
		w.push("r2", hasty("web", "web:2", 1), hasty("api", "api:2", 1))
		w.after(25 * time.Second)
		w.change(func() { w.unready["api:1"] = true })
		w.after(2 * time.Minute)
		w.want("Failed RollbackFailed", "revision r2 failed", "going back to r1 failed as well (ProgressDeadlineExceeded)", "api")
		w.quiet(func() { w.poke() })
		w.restart()
		w.want("Failed RollbackFailed", "going back to r1 failed as well")
		w.quiet(func() { w.poke() })
		// Somebody who applies what is shown has the way back tried again.
		w.change(func() {
			delete(w.unready, "api:1")
			w.pods = nil
		})
		w.app.Apply()
		synctest.Wait()
		w.want("Degraded RolledBack", "back at r1")
		w.wantPods("api:1", "web:1")
		// And who asks for it the revision that failed.
		w.change(func() { delete(w.unready, "web:2") })
		w.app.Retry()
		synctest.Wait()
		w.want("Healthy Applied")
		w.wantPods("api:2", "web:2")
	})
}

// TestALastGoodRevisionThatIsGone holds that this is said, what runs is left alone, and nobody is asked again and again.
func TestALastGoodRevisionThatIsGone(t *testing.T) {
	for name, lose := range map[string]func(w *fakeWorld){
		"no longer in the repository": func(w *fakeWorld) { w.forgot = true },
		"other substitutions":         func(w *fakeWorld) { w.content["r1"] = content{objects: []object.Object{hasty("web", "web:9", 2)}} },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *fakeWorld) {
				w.push("r1", hasty("web", "web:1", 2))
				w.start(rolling())
				w.unready["web:2"] = true
				w.push("r2", hasty("web", "web:2", 2))
				w.after(10 * time.Second)
				w.stop()
				lose(w)
				w.start(rolling())
				w.after(time.Minute)
				w.want("Failed RollbackFailed", "revision r2 failed", "cannot go back", "what runs is left as it is")
				w.wantPods("web:1", "web:1", "web:2 unready")
				asked := w.asked
				w.quiet(func() { w.poke() })
				if w.asked != asked {
					t.Errorf("the source was asked %d times more", w.asked-asked)
				}
				w.push("r3", hasty("web", "web:3", 2))
				w.want("Healthy Applied")
			})
		})
	}
}

func TestTheFirstRevisionHasNowhereToGoBackTo(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.unready["web:1"] = true
		w.push("r1", hasty("web", "web:1", 1))
		w.start(rolling())
		w.after(time.Minute)
		w.want("Failed RevisionFailed", "revision r1 failed")
		w.quiet(func() { w.poke() })
		// What becomes healthy by itself is good after all.
		w.change(func() { w.pods[0].Ready, w.pods[0].ReadySince = true, time.Now() })
		w.want("Healthy Applied")
		if r := w.record(); r.Failed != nil || r.Revision != "r1" {
			t.Errorf("recorded: %+v, %s", r.Failed, r.Revision)
		}
	})
}

func TestWhatIsHeldIsNeverTakenBack(t *testing.T) {
	for name, hold := range map[string]func(*Config){
		"suspended": func(c *Config) { c.Suspend = true },
		"manual":    func(c *Config) { c.Manual = true },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *fakeWorld) {
				w.push("r1", hasty("web", "web:1", 1))
				w.start(rolling())
				w.unready["web:2"] = true
				w.push("r2", hasty("web", "web:2", 1))
				c := rolling()
				hold(&c)
				w.app.Configure(c)
				synctest.Wait()
				w.after(10 * time.Minute)
				w.wantPods("web:1", "web:2 unready")
				if c.Manual {
					w.app.Apply()
					synctest.Wait()
					w.after(2 * time.Minute)
					w.want("Failed RevisionFailed", "revision r2 failed")
					w.wantPods("web:1", "web:2 unready")
				}
			})
		})
	}
}

func TestWhatFailsARevision(t *testing.T) {
	for name, c := range map[string]struct {
		config func(*Config)
		do     func(w *fakeWorld)
		reason string
	}{
		"a rollout without progress": {nil, func(w *fakeWorld) { w.unready["web:2"] = true; w.push("r2", hasty("web", "web:2", 1)) }, "ProgressDeadlineExceeded"},
		"a Job": {nil, func(w *fakeWorld) {
			w.push("r2", hasty("web", "web:2", 1), failingJob("migrate"))
			w.change(func() {
				for i := range w.pods {
					if p := &w.pods[i]; p.Owner.Kind == "Job" {
						p.Phase, p.Finished, p.Ready, p.LogTail = corev1.PodFailed, time.Now(), false, []string{"no such table"}
					}
				}
			})
		}, "BackoffLimitExceeded"},
		"waiting for health": {func(c *Config) { c.Wait, c.Timeout = true, time.Minute }, func(w *fakeWorld) {
			w.push("r2", hasty("web", "web:1", 1), failingJob("migrate")) // it runs and runs
		}, "HealthCheckFailed"},
		"a walk that takes too long": {func(c *Config) { c.Timeout = 10 * time.Second }, func(w *fakeWorld) { w.unready["web:2"] = true; w.push("r2", hasty("web", "web:2", 1)) }, "ApplyFailed"},
		"a step that fails for long": {nil, func(w *fakeWorld) {
			w.refuse = func(s plan.Step) error {
				if c, ok := s.Args.(plan.CreatePod); ok && c.Pod.Spec.Containers[0].Image == "web:2" {
					return errPull
				}
				return nil
			}
			w.push("r2", hasty("web", "web:2", 1))
		}, "ApplyFailed"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *fakeWorld) {
				config := rolling()
				if c.config != nil {
					c.config(&config)
				}
				w.push("r1", hasty("web", "web:1", 1))
				w.start(config)
				w.want("Healthy Applied")
				c.do(w)
				w.after(15 * time.Minute)
				w.want("Degraded RolledBack", "revision r2 failed ("+c.reason+")", "back at r1")
				w.wantPods("web:1")
				if name == "a Job" && !strings.Contains(w.app.Status().Failure.Message, "no such table") {
					t.Errorf("the log is not told: %s", w.app.Status().Failure.Message)
				}
			})
		})
	}
}

// TestWhatIsTheWorldsFaultFailsNoRevision: the engine does not answer for an hour, in the middle of a rollout.
func TestWhatIsTheWorldsFaultFailsNoRevision(t *testing.T) {
	for name, broken := range map[string]func(w *fakeWorld){
		"it cannot be observed": func(w *fakeWorld) { w.stale = true },
		"steps fail": func(w *fakeWorld) {
			w.refuse = func(plan.Step) error { return fmt.Errorf("create: %w", runtimes.ErrUnavailable) }
		},
		"the disk is full": func(w *fakeWorld) {
			w.refuse = func(plan.Step) error { return fmt.Errorf("create: %w", runtimes.ErrDiskFull) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *fakeWorld) {
				w.push("r1", hasty("web", "web:1", 2))
				w.start(rolling())
				w.unready["web:2"] = true
				w.push("r2", hasty("web", "web:2", 2))
				w.after(10 * time.Second)
				w.change(func() { broken(w) })
				if name != "it cannot be observed" {
					// The pod that was made goes, so that there is something to be done again and again.
					w.change(func() { w.pods = w.pods[:2] })
				}
				w.after(time.Hour)
				if st := w.app.Status(); st.Failure != nil {
					t.Fatalf("it failed: %+v", st.Failure)
				}
				w.change(func() {
					w.stale, w.refuse = false, nil
					delete(w.unready, "web:2")
				})
				w.after(2 * time.Second) // pods are not ready at once either
				if st := w.app.Status(); st.Failure != nil {
					t.Fatalf("it failed: %+v", st.Failure)
				}
				w.change(func() {
					for i := range w.pods {
						w.pods[i].Ready, w.pods[i].ReadySince = true, time.Now()
					}
				})
				w.after(time.Minute)
				w.want("Healthy Applied")
				w.wantPods("web:2", "web:2")
			})
		})
	}
}

// TestDegradationOfWhatWasGoodIsNoFailure holds that a revision that was good once is never gone back from.
func TestDegradationOfWhatWasGoodIsNoFailure(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", hasty("web", "web:1", 1))
		w.start(rolling())
		w.push("r2", hasty("web", "web:2", 1))
		w.want("Healthy Applied")
		w.change(func() { w.pods[0].Ready = false })
		w.after(time.Hour)
		w.want("Degraded ProgressDeadlineExceeded")
		// The next one has its time to mend it, though the old pods have had theirs.
		w.push("r3", hasty("web", "web:2", 1), plantest.ConfigMap("settings", "a"))
		w.after(20 * time.Second)
		if st := w.app.Status(); st.Failure != nil {
			t.Fatalf("it failed: %+v", st.Failure)
		}
		w.change(func() { w.pods[0].Ready = true })
		w.want("Healthy Applied")
	})
}

// TestTheLimitOfDeletionsHoldsOnTheWayBack: what the bad revision brought is more than may go at once.
func TestTheLimitOfDeletionsHoldsOnTheWayBack(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		c := rolling()
		c.Limit = plan.PruneLimit{MaxShare: 50, MaxCount: 2}
		w.push("r1", hasty("web", "web:1", 1))
		w.start(c)
		w.unready["web:2"] = true
		w.push("r2", hasty("web", "web:2", 1), plantest.ConfigMap("a", "a"), plantest.ConfigMap("b", "b"), plantest.ConfigMap("c", "c"), plantest.ConfigMap("d", "d"))
		w.after(2 * time.Minute)
		w.want("Degraded RollingBack", "revision r2 failed", "fairlead approve shop ")
		w.wantPods("web:1")
		w.wantInventory("ConfigMap/a", "ConfigMap/b", "ConfigMap/c", "ConfigMap/d", "Deployment/web")
		if err := w.app.store.Approve("shop", store.Approval{Digest: w.app.Status().Plan.Blocked.Digest, By: "ann", At: time.Now()}); err != nil {
			t.Fatal(err)
		}
		w.poke()
		w.want("Degraded RolledBack", "back at r1")
		w.wantInventory("Deployment/web")
	})
}

// TestARecordOfTheFirstFormatIsRead holds that an upgrade goes on from the state of before, and that there is a way back
// to what that says was applied.
func TestARecordOfTheFirstFormatIsRead(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", hasty("web", "web:1", 1))
		w.start(rolling())
		w.stop()
		b, err := os.ReadFile(w.recordFile())
		if err != nil {
			t.Fatal(err)
		}
		// As it was written before there was a format.
		r := w.record()
		r.Content, r.Attempt, r.Failed = "", nil, nil
		old := fmt.Sprintf(`{"application":"shop","revision":"r1","appliedAt":%q,"inventory":[`, r.AppliedAt.Format(time.RFC3339Nano))
		_, inventory, found := strings.Cut(string(b), `"inventory":[`)
		if !found {
			t.Fatalf("no inventory in %s", b)
		}
		inventory, _, _ = strings.Cut(inventory, "]}\n")
		if err := errors.Join(os.WriteFile(w.recordFile(), []byte(old+inventory+"]}\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
		w.unready["web:2"] = true
		w.push("r2", hasty("web", "web:2", 1))
		w.start(rolling())
		w.after(2 * time.Minute)
		w.want("Degraded RolledBack", "back at r1")
		w.wantPods("web:1")
		if _, err := os.Stat(filepath.Join(w.dir, "applications", "shop.json")); err != nil {
			t.Error(err)
		}
	})
}

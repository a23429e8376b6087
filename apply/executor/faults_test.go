package executor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/fake"
)

// twoPod has an init container and two others.
func twoPod(name string) *plan.Pod {
	return onePod(name, func(s *corev1.PodSpec) {
		s.InitContainers = []corev1.Container{{Name: "init", Image: "init"}}
		s.Containers = append(s.Containers, corev1.Container{Name: "side", Image: "app"})
	})
}

// running is what runs on the engine, each once.
func (w *world) running() []string {
	var out []string
	for _, c := range w.engine.Containers() {
		if c.Running {
			out = append(out, c.Pod.Name+"/"+c.Container.Container)
		}
	}
	return sorted(out)
}

// TestEveryCallMayFail lets each changing call of a pod's life fail in every way, and in each case the
// pod comes up with every container once, and goes without a trace.
func TestEveryCallMayFail(t *testing.T) {
	ways := map[string]fake.Fault{
		"refused":         {Err: runtimes.ErrUnavailable},
		"outcome unknown": {Err: runtimes.ErrUnavailable, After: true},
		"hangs":           {Hang: true},
		"hangs, done":     {Hang: true, After: true},
	}
	kinds := []fake.CallKind{fake.CallInfo, fake.CallList, fake.CallInspect, fake.CallImage, fake.CallSandboxImage, fake.CallCreate, fake.CallStart, fake.CallKill, fake.CallRemove}
	for way, fault := range ways {
		for _, kind := range kinds {
			for nth := 1; nth <= 4; nth++ {
				t.Run(fmt.Sprintf("%s %d %s", kind, nth, way), func(t *testing.T) {
					inWorld(t, func(w *world) {
						w.engine.AddImage("init", fake.Image{Present: true, Process: fake.Process{Exits: true}})
						f := fault
						f.Kind, f.Nth = kind, nth
						w.engine.Break(f)
						w.eventually("create", plan.CreatePod{Pod: twoPod("p")})
						w.eventually("wait", plan.WaitReady{Pod: key("p"), Deadline: time.Now().Add(20 * time.Minute)})
						sleep(5 * time.Minute)
						if diff := cmp.Diff([]string{"p/POD", "p/side", "p/web"}, w.running()); diff != "" {
							t.Errorf("%s\n%s", diff, w.story(""))
						}
						for _, c := range w.observe("p").Containers {
							if c.Restarts != 0 {
								t.Errorf("%s was restarted\n%s", c.Name, w.story(""))
							}
						}
						w.eventually("delete", plan.DeletePod{Pod: key("p")})
						sleep(5 * time.Minute)
						if all := w.engine.Containers(); len(all) != 0 || len(w.node.savedStates()) != 0 {
							t.Errorf("left over: %v", all)
						}
					})
				})
			}
		}
	}
}

// eventually takes a step again until it succeeds, as the loop above does.
func (w *world) eventually(what string, args plan.Args) {
	w.t.Helper()
	var err error
	for range 20 {
		if err = w.do(args); err == nil {
			return
		}
		sleep(30 * time.Second)
	}
	w.t.Fatalf("%s: %v\n%s\ntrouble: %v", what, err, w.story(""), w.trouble)
}

// TestDaemonDiesAtEveryCall cuts the daemon off at each changing call, before or after the engine took
// it, and starts another one: the pod is finished, never doubled.
func TestDaemonDiesAtEveryCall(t *testing.T) {
	for _, after := range []bool{false, true} {
		for nth := 1; nth <= 10; nth++ {
			t.Run(fmt.Sprintf("call %d after=%t", nth, after), func(t *testing.T) {
				inWorld(t, func(w *world) {
					w.engine.AddImage("init", fake.Image{Present: true, Process: fake.Process{Exits: true}})
					count, dead := 0, false
					w.engine.Break(fake.Fault{Hang: true, After: after, Match: func(c fake.Call) bool {
						if c.Kind == fake.CallEvents || !c.Kind.Mutates() && !dead {
							return false
						}
						count++
						dead = dead || count == nth
						return dead
					}})
					go func() { _ = w.do(plan.CreatePod{Pod: twoPod("p")}) }()
					sleep(time.Second)
					w.close()
					w.engine.Mend()
					w.open()
					sleep(5 * time.Minute)
					if diff := cmp.Diff([]string{"p/POD", "p/side", "p/web"}, w.running()); diff != "" {
						t.Errorf("%s\n%s", diff, w.story(""))
					}
					w.must(plan.CreatePod{Pod: twoPod("p")})
					w.must(plan.DeletePod{Pod: key("p")})
					if all := w.engine.Containers(); len(all) != 0 {
						t.Errorf("left over: %v", all)
					}
				})
			})
		}
	}
}

// TestWhatAnEngineMadeWithoutSayingSoGoesWithItsPod deletes a pod while the engine does not answer that it has created a
// container: what it made is found and removed. A sandbox that stayed would bring the pod back.
func TestWhatAnEngineMadeWithoutSayingSoGoesWithItsPod(t *testing.T) {
	for nth, name := range []string{"sandbox", "container"} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.engine.Break(fake.Fault{Kind: fake.CallCreate, Nth: nth + 1, Hang: true, After: true})
				go func() { _ = w.do(plan.CreatePod{Pod: onePod("p")}) }()
				sleep(time.Second)
				w.must(plan.DeletePod{Pod: key("p")})
				if all := w.engine.Containers(); len(all) != 0 {
					t.Errorf("left over: %v", all)
				}
				sleep(10 * time.Minute)
				if s, err := w.node.Observe(w.t.Context()); err != nil || len(s.Pods) != 0 || len(w.running()) != 0 {
					t.Errorf("the pod is back: %v, running %v, %v", s.Pods, w.running(), err)
				}
			})
		})
	}
}

func TestEngineThatIsAwayIsStale(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(plan.CreatePod{Pod: onePod("p")})
		synctest.Wait()
		w.engine.Down()
		sleep(time.Minute)
		s, err := w.node.Observe(w.t.Context())
		if err == nil || !s.Stale || len(s.Pods) != 1 || !s.Pods[0].Ready {
			t.Errorf("away: %+v, %v", s, err)
		}
		if err := w.do(plan.DeletePod{Pod: key("other")}); err == nil {
			t.Error("a pod counts as deleted though the engine does not answer")
		}
		w.engine.Up()
		sleep(time.Minute)
		w.expect("p", "Running ready=true [web running]")
		w.restart()
		w.expect("p", "Running ready=true [web running]")
	})
}

// TestEngineThatHangsIsStale holds how soon an engine that answers nothing counts as one that does not answer, at the
// start of the daemon too, and that a slow one, which takes longer than that to list, never does.
func TestEngineThatHangsIsStale(t *testing.T) {
	t.Run("hangs", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.must(plan.CreatePod{Pod: onePod("p")})
			synctest.Wait()
			mend := w.engine.Break(fake.Fault{Hang: true})
			sleep(beatEvery + silence + time.Second)
			s, err := w.node.Observe(w.t.Context())
			if err == nil || !s.Stale || len(s.Pods) != 1 {
				t.Errorf("%+v, %v", s, err)
			}
			mend()
			sleep(time.Minute)
			w.expect("p", "Running ready=true [web running]")
			if s, err := w.node.Observe(w.t.Context()); err != nil || s.Stale {
				t.Errorf("afterwards: stale %t, %v", s.Stale, err)
			}
		})
	})
	t.Run("hangs at the start", func(t *testing.T) {
		inWorld(t, func(w *world) {
			synctest.Wait()
			w.engine.Break(fake.Fault{Hang: true})
			w.restart()
			ctx, cancel := context.WithTimeout(w.t.Context(), silence+time.Second)
			defer cancel()
			if s, err := w.node.Observe(ctx); err == nil || ctx.Err() != nil || !s.Stale {
				t.Errorf("%+v, %v", s, err)
			}
			w.engine.Mend()
		})
	})
	t.Run("slow", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.must(plan.CreatePod{Pod: onePod("p")})
			synctest.Wait()
			w.engine.Break(fake.Fault{Kind: fake.CallList, Delay: listTimeout - time.Second})
			w.engine.Break(fake.Fault{Kind: fake.CallInfo, Delay: silence - heedAfter - beatTimeout - time.Second})
			for range 600 {
				sleep(time.Second)
				if s, err := w.node.Observe(w.t.Context()); err != nil || s.Stale {
					t.Fatalf("stale %t, %v", s.Stale, err)
				}
			}
			w.engine.Mend()
		})
	})
}

func TestEngineRestarts(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(plan.CreatePod{Pod: onePod("p")})
		w.must(plan.CreatePod{Pod: onePod("q", func(s *corev1.PodSpec) { s.RestartPolicy = corev1.RestartPolicyNever })})
		sleep(time.Minute)
		w.engine.Down()
		for _, c := range w.engine.Containers() {
			w.engine.Hand().Exit(c.ID, 137)
		}
		sleep(time.Minute)
		w.engine.Up()
		sleep(time.Minute)
		w.expect("p", "Running ready=true [web running restarts=1]")
		w.expect("q", "Failed ready=false [web terminated Error]")
		if diff := cmp.Diff([]string{"p/POD", "p/web"}, w.running()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestLostEvents(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(plan.CreatePod{Pod: onePod("p")})
		w.engine.DropEvents(true)
		w.engine.Hand().Remove(w.find("p", "web").ID)
		w.engine.DropEvents(false)
		sleep(3 * time.Minute)
		w.expect("p", "Running ready=true [web running restarts=1]")
	})
}

// TestAnEarlierAttemptThatRunsIsRemoved has somebody start the container before the newest, and nobody hears of it: its
// event is lost, or the daemon is away.
func TestAnEarlierAttemptThatRunsIsRemoved(t *testing.T) {
	for name, start := range map[string]func(w *world, id string){
		"lost event": func(w *world, id string) {
			w.engine.DropEvents(true)
			w.engine.Hand().Start(id)
			w.engine.DropEvents(false)
		},
		"daemon away": func(w *world, id string) {
			w.close()
			w.engine.Hand().Start(id)
			w.open()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.must(plan.CreatePod{Pod: onePod("p")})
				first := w.find("p", "web").ID
				w.engine.Hand().Exit(first, 1)
				sleep(time.Minute)
				start(w, first)
				sleep(5 * time.Minute)
				for _, c := range w.engine.Containers() {
					if c.ID == first {
						t.Errorf("the first attempt is still there: running %t", c.Running)
					}
				}
				w.expect("p", "Running ready=true [web running restarts=1]")
			})
		})
	}
}

func TestDeletionGoesOnAfterRestart(t *testing.T) {
	inWorld(t, func(w *world) {
		w.engine.AddImage("app", fake.Image{Present: true, Process: fake.Process{IgnoreTERM: true}})
		w.must(plan.CreatePod{Pod: onePod("p")})
		go func() { _ = w.do(plan.DeletePod{Pod: key("p")}) }()
		sleep(20 * time.Second)
		if p := w.observe("p"); !p.Terminating || p.Ready {
			t.Errorf("while it is deleted: %+v", p)
		}
		w.restart()
		if p := w.observe("p"); !p.Terminating {
			t.Errorf("after the restart: %+v", p)
		}
		sleep(9 * time.Second)
		if !w.find("p", "web").Running {
			t.Error("killed before its grace period was over")
		}
		sleep(2 * time.Second)
		if all := w.engine.Containers(); len(all) != 0 {
			t.Errorf("left over: %v", all)
		}
	})
}

func TestRemovedWhileTheDaemonWasAway(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(plan.CreatePod{Pod: onePod("p")})
		w.must(plan.CreatePod{Pod: onePod("q")})
		sleep(time.Second)
		w.close()
		w.engine.Hand().Remove(w.find("p", "web").ID)
		for _, name := range []string{runtimes.SandboxContainer, "web"} {
			w.engine.Hand().Remove(w.find("q", name).ID)
		}
		w.open()
		sleep(time.Minute)
		w.expect("p", "Running ready=true [web running restarts=1]")
		w.expect("q", "Running ready=true [web running restarts=1]")
	})
}

func TestOrphansGoForeignersStay(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(plan.CreatePod{Pod: onePod("p")})
		foreign := w.engine.AddForeign("somebody")
		w.close()
		uid := w.find("p", "web").UID
		w.engine.Hand().Remove(w.find("p", runtimes.SandboxContainer).ID)
		w.node = &Node{opt: w.options()}
		if err := w.node.removeState(uid); err != nil {
			t.Fatal(err)
		}
		w.open()
		sleep(10 * time.Second)
		if !w.find("p", "web").Running {
			t.Error("an orphan was removed at once")
		}
		sleep(5 * time.Minute)
		all := w.engine.Containers()
		if len(all) != 1 || all[0].ID != foreign {
			t.Errorf("left: %v", all)
		}
	})
}

func TestReadOnlyChangesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(plan.CreatePod{Pod: onePod("p", web(func(c *corev1.Container) {
			c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{}}}
		}))})
		w.must(plan.WaitReady{Pod: key("p")})
		before := w.observe("p")
		w.close()
		w.engine.ForgetCalls()
		o := w.options()
		o.ReadOnly = true
		n, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		w.node = n
		sleep(time.Minute)
		after := w.observe("p")
		if diff := cmp.Diff(before, after); diff != "" {
			t.Error(diff)
		}
		if got := w.engine.Mutations(); len(got) != 0 {
			t.Errorf("calls %v", got)
		}
		if err := w.do(plan.DeletePod{Pod: key("p")}); err == nil {
			t.Error("it deleted a pod")
		}
	})
}

func TestDeletingManySignalsAllAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.engine.AddImage("app", fake.Image{Present: true, Process: fake.Process{StopTakes: 5 * time.Second}})
		for i := range 20 {
			w.must(plan.CreatePod{Pod: onePod(fmt.Sprintf("p%d", i))})
		}
		begin := time.Now()
		errs := make(chan error, 20)
		for i := range 20 {
			go func() { errs <- w.do(plan.DeletePod{Pod: key(fmt.Sprintf("p%d", i))}) }()
		}
		for range 20 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("took %v", took)
		}
		if slices.Contains(w.running(), "p0/web") {
			t.Error("it still runs")
		}
	})
}

func TestWatchWakes(t *testing.T) {
	inWorld(t, func(w *world) {
		wakes := make(chan struct{}, 1000)
		go func() { _ = w.node.Watch(w.t.Context(), func() { wakes <- struct{}{} }) }()
		synctest.Wait()
		w.must(plan.CreatePod{Pod: onePod("p")})
		sleep(time.Second)
		n := len(wakes)
		if n == 0 {
			t.Error("no wake for a new pod")
		}
		a, _ := w.node.Observe(w.t.Context())
		sleep(time.Hour)
		if len(wakes) != n {
			t.Errorf("%d wakes though nothing changed", len(wakes)-n)
		}
		b, _ := w.node.Observe(w.t.Context())
		if &a.Pods[0] != &b.Pods[0] {
			t.Error("the state was built again though nothing changed")
		}
	})
}

// TestChaos does things to the engine and to the daemon at random; when it is over every pod runs, every
// container once, and what is not ours is as it was.
func TestChaos(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inWorld(t, func(w *world) {
				rnd := rand.New(rand.NewPCG(seed, 7))
				w.engine.AddImage("init", fake.Image{Present: true, Process: fake.Process{Exits: true, After: time.Second}})
				foreign := w.engine.AddForeign("somebody")
				for _, name := range []string{"p", "q"} {
					w.must(plan.CreatePod{Pod: twoPod(name)})
				}
				var story []string
				for range 30 {
					sleep(time.Duration(rnd.IntN(20_000)) * time.Millisecond)
					all := slices.DeleteFunc(w.engine.Containers(), func(s fake.State) bool { return s.Foreign })
					if len(all) == 0 {
						continue
					}
					c := all[rnd.IntN(len(all))]
					hand := w.engine.Hand()
					what := []func(){
						func() { hand.Remove(c.ID) },
						func() { hand.Kill(c.ID, "SIGKILL") },
						func() { hand.Exit(c.ID, rnd.IntN(3)) },
						func() { hand.Start(c.ID) },
						func() { hand.Pause(c.ID) },
						func() { hand.Unpause(c.ID) },
						w.engine.Disconnect,
						w.restart,
						func() { w.engine.Down(); sleep(time.Minute); w.engine.Up() },
						func() { w.close(); hand.Remove(c.ID); w.open() },
						func() { w.engine.DropEvents(true); hand.Kill(c.ID, "SIGKILL"); w.engine.DropEvents(false) },
					}
					i := rnd.IntN(len(what))
					story = append(story, fmt.Sprintf("%d %s/%s#%d", i, c.Pod.Name, c.Container.Container, c.Attempt))
					what[i]()
				}
				for _, c := range w.engine.Containers() {
					w.engine.Hand().Unpause(c.ID)
				}
				sleep(30 * time.Minute)
				if diff := cmp.Diff([]string{"/", "p/POD", "p/side", "p/web", "q/POD", "q/side", "q/web"}, w.running()); diff != "" {
					t.Errorf("%s\n%v\n%s", diff, story, w.story(""))
				}
				for _, name := range []string{"p", "q"} {
					if p := w.observe(name); !p.Ready {
						t.Errorf("%s\n%v", line(p), story)
					}
					w.must(plan.DeletePod{Pod: key(name)})
				}
				sleep(time.Minute)
				if all := w.engine.Containers(); len(all) != 1 || all[0].ID != foreign || !all[0].Running {
					t.Errorf("left: %v", all)
				}
			})
		})
	}
}

// A list that took long shows a pod that was deleted meanwhile: it stays deleted.
func TestALateListBringsNoPodBack(t *testing.T) {
	inWorld(t, func(w *world) {
		pod := onePod("p")
		w.must(plan.CreatePod{Pod: pod})
		began := time.Now()
		late, err := w.engine.List(w.t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		w.must(plan.DeletePod{Pod: pod.PodKey})
		w.node.adopt(w.t.Context(), began, late, false)
		time.Sleep(5 * time.Minute)
		if all := w.engine.Containers(); len(all) > 0 {
			t.Errorf("%d containers are there of a pod that was deleted: %+v", len(all), all)
		}
		if s, err := w.node.Observe(w.t.Context()); err != nil || len(s.Pods) > 0 {
			t.Errorf("pods %+v, %v", s.Pods, err)
		}
	})
}

// The engine's clock may be another one, and may be set: what runs runs on, and what ends is started again in time.
func TestTheClockOfTheEngineIsAnother(t *testing.T) {
	for _, ahead := range []time.Duration{-time.Hour, -90 * time.Second, 90 * time.Second, time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.must(plan.CreatePod{Pod: onePod("p")})
				w.engine.SetClock(ahead)
				w.must(plan.CreatePod{Pod: onePod("q")})
				w.engine.SetClock(ahead / 2)
				time.Sleep(10 * time.Minute)
				w.restart()
				time.Sleep(10 * time.Minute)
				for _, c := range w.engine.Containers() {
					if c.Attempt != 0 || !c.Running {
						t.Errorf("%s was made again, or does not run: %+v", c.Name, c.Container)
					}
				}
				for _, pod := range []string{"p", "q"} {
					w.engine.Hand().Exit(w.find(pod, "web").ID, 1)
				}
				time.Sleep(time.Minute)
				for _, pod := range []string{"p", "q"} {
					w.expect(pod, "Running ready=true [web running restarts=1]")
				}
			})
		})
	}
}

// TestStartFailsAndStarted has the engine say that a container could not be started which it started, as it does when
// something behind it takes too long: the container runs once, whether it goes on or has ended by then.
func TestStartFailsAndStarted(t *testing.T) {
	for name, c := range map[string]struct {
		exits bool
		phase corev1.PodPhase
	}{"it runs on": {false, corev1.PodRunning}, "it ended at once": {true, corev1.PodSucceeded}} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.engine.AddImage("app", fake.Image{Present: true, Process: fake.Process{Exits: c.exits}})
				w.engine.Break(fake.Fault{Kind: fake.CallStart, Nth: 2, Err: errors.New("context deadline exceeded"), After: true}) // the first is the sandbox's
				w.eventually("create", plan.CreatePod{Pod: onePod("p", func(s *corev1.PodSpec) { s.RestartPolicy = corev1.RestartPolicyNever })})
				sleep(time.Minute)
				if p := w.observe("p"); p.Phase != c.phase || p.Containers[0].Restarts != 0 || strings.Contains(w.story(""), "Drift") {
					t.Errorf("the pod is %s\n%s", line(p), w.story(""))
				}
				starts := 0
				for _, m := range w.mutations() {
					if strings.Contains(m, "start") && strings.Contains(m, "web") {
						starts++
					}
				}
				if starts != 1 {
					t.Errorf("the container was started %d times:\n%s", starts, strings.Join(w.mutations(), "\n"))
				}
			})
		})
	}
}

package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/fake"
)

func key(name string) plan.PodKey { return plan.PodKey{Namespace: "ns", Name: name} }

func TestCreateReadyDelete(t *testing.T) {
	inWorld(t, func(w *world) {
		w.engine.ForgetCalls()
		w.must(plan.CreatePod{Pod: onePod("p")})
		w.must(plan.WaitReady{Pod: key("p")})
		w.expect("p", "Running ready=true [web running]")
		calls := w.engine.Calls()
		var got []string
		for _, c := range calls {
			got = append(got, c.String())
		}
		// Nothing beyond the floor but one inspect of the sandbox, for its process, and one look at each image.
		want := []string{
			"sandbox-image", "create ns/p/POD#0", "image app:latest", "create ns/p/web#0", "start ns/p/POD#0",
			"inspect ns/p/POD#0", "start ns/p/web#0",
		}
		if diff := cmp.Diff(sorted(want), sorted(got)); diff != "" {
			t.Error(diff)
		}
		p := w.observe("p")
		if links := w.network.Links(); links[p.UID].IP.String() != p.IP || p.IP == "" {
			t.Errorf("links %v, pod's address %q", links, p.IP)
		}
		w.must(plan.CreatePod{Pod: onePod("p")}) // once more changes nothing
		if n := len(w.engine.Calls()); n != len(calls) {
			t.Errorf("creating again made %d calls", n-len(calls))
		}

		w.must(plan.DeletePod{Pod: key("p"), UID: "another"})
		w.expect("p", "Running ready=true [web running]")
		w.engine.ForgetCalls()
		w.must(plan.DeletePod{Pod: key("p"), UID: p.UID})
		if got := w.mutations(); got[0] != "kill ns/p/web#0 SIGTERM" || len(got) != 3 {
			t.Errorf("deleting: %v", got)
		}
		if all := w.engine.Containers(); len(all) != 0 {
			t.Errorf("left over: %v", all)
		}
		if len(w.network.Links()) != 0 || len(w.volumes.prepared) != 0 || len(w.node.savedStates()) != 0 {
			t.Errorf("left over: links %v, volumes %v, files %v", w.network.Links(), w.volumes.prepared, w.node.savedStates())
		}
		w.must(plan.DeletePod{Pod: key("p"), UID: p.UID})
	})
}

func TestRestartsBackOff(t *testing.T) {
	inWorld(t, func(w *world) {
		w.engine.AddImage("app", fake.Image{Present: true, Process: fake.Process{Exits: true, After: time.Second, Code: 3, Output: []string{"one", "two"}}})
		begin := time.Now()
		w.must(plan.CreatePod{Pod: onePod("p")})
		var starts []string
		for range 200 {
			sleep(5 * time.Second)
			c := w.find("p", "web")
			s := fmt.Sprintf("#%d %v", c.Attempt, c.StartedAt.Sub(begin).Round(time.Second))
			if len(starts) == 0 || starts[len(starts)-1] != s {
				starts = append(starts, s)
			}
		}
		// At once, then 10 s, 20 s, 40 s, … after the end, at most 5 min.
		want := []string{"#1 1s", "#2 12s", "#3 33s", "#4 1m14s", "#5 2m35s", "#6 5m16s", "#7 10m17s", "#8 15m18s"}
		if diff := cmp.Diff(want, starts); diff != "" {
			t.Error(diff)
		}
		w.expect("p", "Running ready=false CrashLoopBackOff [web waiting CrashLoopBackOff restarts=8]")
		p := w.observe("p")
		if diff := cmp.Diff([]string{"one", "two"}, p.LogTail); diff != "" {
			t.Error(diff)
		}
		if all := w.engine.Containers(); len(all) != 3 {
			t.Errorf("%d containers are kept, want the sandbox and two attempts", len(all))
		}
		err := w.do(plan.WaitReady{Pod: key("p"), Deadline: time.Now().Add(time.Minute)})
		var bad *NotReadyError
		if !errors.As(err, &bad) || bad.Reason != "CrashLoopBackOff" || !strings.Contains(err.Error(), "two") {
			t.Errorf("waiting: %v", err)
		}
		w.restart()
		w.expect("p", "Running ready=false CrashLoopBackOff [web waiting CrashLoopBackOff restarts=8]")
	})
}

func TestRestartOfDaemonTouchesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(plan.CreatePod{Pod: onePod("p", web(func(c *corev1.Container) {
			c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{}}}
		}))})
		w.must(plan.WaitReady{Pod: key("p")})
		before := w.observe("p")
		sleep(time.Hour)
		w.engine.ForgetCalls()
		w.restart()
		after := w.observe("p")
		if diff := cmp.Diff(before, after); diff != "" {
			t.Error(diff)
		}
		sleep(time.Minute)
		if got := w.mutations(); len(got) != 0 {
			t.Errorf("restarting the daemon made the calls %v", got)
		}
		if diff := cmp.Diff([][]string{nil, {before.UID}}, w.volumes.strays); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(before.ReadySince, w.observe("p").ReadySince); diff != "" {
			t.Error(diff)
		}
	})
}

func TestRemovedByHandRunsAgainAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(plan.CreatePod{Pod: onePod("p")})
		for i := range 5 {
			sleep(time.Second)
			w.engine.Hand().Remove(w.find("p", "web").ID)
			synctest.Wait()
			c := w.find("p", "web")
			if !c.Running || c.Attempt != i+1 {
				t.Fatalf("after removal %d: attempt %d, running %t\n%s", i+1, c.Attempt, c.Running, w.story(""))
			}
		}
		w.expect("p", "Running ready=true [web running restarts=5]")
	})
}

func TestSandboxRemovedByHand(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(plan.CreatePod{Pod: onePod("p")})
		uid := w.observe("p").UID
		w.engine.Hand().Remove(w.find("p", runtimes.SandboxContainer).ID)
		sleep(time.Minute)
		w.expect("p", "Running ready=true [web running restarts=1]")
		if c := w.find("p", runtimes.SandboxContainer); c.Attempt != 1 || w.network.Links()[uid].PID != c.PID {
			t.Errorf("sandbox %d, links %v", c.Attempt, w.network.Links())
		}
	})
}

func TestInitContainersAndSidecars(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	inWorld(t, func(w *world) {
		w.engine.AddImage("init", fake.Image{Present: true, Process: fake.Process{Exits: true, After: time.Second}})
		w.engine.AddImage("job", fake.Image{Present: true, Process: fake.Process{Exits: true, After: 10 * time.Second}})
		w.prober.set("proxy", true)
		w.must(plan.CreatePod{Pod: onePod("p", func(s *corev1.PodSpec) {
			s.RestartPolicy = corev1.RestartPolicyNever
			s.InitContainers = []corev1.Container{
				{Name: "first", Image: "init"},
				{Name: "proxy", Image: "app", RestartPolicy: &always, StartupProbe: &corev1.Probe{
					PeriodSeconds: 1, FailureThreshold: 100, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{}},
				}},
				{Name: "log", Image: "app", RestartPolicy: &always},
			}
			s.Containers[0].Image = "job"
		})})
		w.expect("p", "Pending ready=false [first running] [proxy waiting PodInitializing] [log waiting PodInitializing] [web waiting PodInitializing]")
		sleep(2 * time.Second)
		w.expect("p", "Pending ready=false [first terminated Completed] [proxy running] [log waiting PodInitializing] [web waiting PodInitializing]")
		w.prober.set("proxy", false)
		sleep(2 * time.Second)
		w.expect("p", "Running ready=true [first terminated Completed] [proxy running] [log running] [web running]")
		w.engine.ForgetCalls()
		sleep(20 * time.Second)
		w.expect("p", "Succeeded ready=false [first terminated Completed] [proxy terminated Completed] [log terminated Completed] [web terminated Completed]")
		want := []string{"kill ns/p/log#0 SIGTERM", "kill ns/p/proxy#0 SIGTERM", "kill ns/p/POD#0 SIGKILL"}
		if diff := cmp.Diff(want, w.mutations()); diff != "" {
			t.Error(diff)
		}
		finished := w.observe("p").Finished
		w.restart()
		sleep(time.Hour)
		if p := w.observe("p"); p.Phase != corev1.PodSucceeded || !p.Finished.Equal(finished) {
			t.Errorf("after a restart: %s", line(p))
		}
		if diff := cmp.Diff(want, w.mutations()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestFailedInitContainer(t *testing.T) {
	inWorld(t, func(w *world) {
		w.engine.AddImage("init", fake.Image{Present: true, Process: fake.Process{Exits: true, Code: 2}})
		add := func(s *corev1.PodSpec) { s.InitContainers = []corev1.Container{{Name: "init", Image: "init"}} }
		w.must(plan.CreatePod{Pod: onePod("p", add, func(s *corev1.PodSpec) { s.RestartPolicy = corev1.RestartPolicyNever })})
		w.must(plan.CreatePod{Pod: onePod("q", add)})
		sleep(time.Second)
		w.expect("p", "Failed ready=false [init terminated Error] [web waiting PodInitializing]")
		w.expect("q", "Pending ready=false CrashLoopBackOff [init waiting CrashLoopBackOff restarts=1] [web waiting PodInitializing]")
	})
}

func TestProbesGateAndRestart(t *testing.T) {
	probe := &corev1.Probe{PeriodSeconds: 5, FailureThreshold: 2, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{}}}
	inWorld(t, func(w *world) {
		w.prober.set("web", true)
		w.must(plan.CreatePod{Pod: onePod("p", web(func(c *corev1.Container) { c.ReadinessProbe = probe }))})
		sleep(3 * time.Second)
		w.expect("p", "Running ready=false [web running]")
		sleep(10 * time.Second)
		if m := w.observe("p").Message; m != "container web: Readiness probe failed: sick" {
			t.Errorf("message %q", m)
		}
		w.prober.set("web", false)
		w.must(plan.WaitReady{Pod: key("p"), MinReady: time.Minute})
		if since := time.Since(w.observe("p").ReadySince); since < time.Minute {
			t.Errorf("ready for %v", since)
		}
		w.must(plan.DeletePod{Pod: key("p")})

		w.must(plan.CreatePod{Pod: onePod("p", web(func(c *corev1.Container) { c.LivenessProbe = probe }))})
		synctest.Wait()
		w.prober.set("web", true)
		sleep(11 * time.Second)
		if c := w.find("p", "web"); c.Attempt != 1 {
			t.Errorf("attempt %d\n%s", c.Attempt, w.story("web"))
		}
		w.engine.Hand().Pause(w.find("p", "web").ID)
		sleep(time.Minute)
		if c := w.find("p", "web"); c.Attempt != 1 {
			t.Errorf("a paused container was restarted\n%s", w.story("web"))
		}
		w.expect("p", "Running ready=false [web running restarts=1]")
	})
}

func TestHooks(t *testing.T) {
	lifecycle := &corev1.Lifecycle{PostStart: execHook("post"), PreStop: execHook("pre")}
	inWorld(t, func(w *world) {
		w.prober.hook("post", func(ctx context.Context) error { time.Sleep(3 * time.Second); return nil })
		w.prober.hook("pre", func(ctx context.Context) error { time.Sleep(5 * time.Second); return nil })
		w.must(plan.CreatePod{Pod: onePod("p", web(func(c *corev1.Container) { c.Lifecycle = lifecycle }))})
		w.expect("p", "Running ready=false [web running]")
		sleep(4 * time.Second)
		w.expect("p", "Running ready=true [web running]")
		begin := time.Now()
		w.must(plan.DeletePod{Pod: key("p")})
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("deleting took %v, want the hook's 5s", took)
		}

		// A hook that does not end takes the grace period, and the container gets 2 s more.
		w.prober.hook("pre", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		w.engine.AddImage("app", fake.Image{Present: true, Process: fake.Process{IgnoreTERM: true}})
		w.must(plan.CreatePod{Pod: onePod("p", web(func(c *corev1.Container) { c.Lifecycle = lifecycle }))})
		begin = time.Now()
		w.engine.ForgetCalls()
		w.must(plan.DeletePod{Pod: key("p")})
		if took := time.Since(begin); took != 32*time.Second {
			t.Errorf("deleting took %v, want 32s", took)
		}
		if diff := cmp.Diff([]string{"kill ns/p/web#0 SIGTERM", "kill ns/p/web#0 SIGKILL"}, w.mutations()[:2]); diff != "" {
			t.Error(diff)
		}

		// A failed postStart hook ends the container.
		w.engine.AddImage("app", fake.Image{Present: true})
		w.prober.hook("post", func(context.Context) error { return errBroken })
		w.must(plan.CreatePod{Pod: onePod("p", web(func(c *corev1.Container) {
			c.Lifecycle = &corev1.Lifecycle{PostStart: execHook("post")}
		}))})
		sleep(5 * time.Second)
		w.expect("p", "Running ready=false CrashLoopBackOff [web waiting CrashLoopBackOff restarts=1]")
		if !strings.Contains(w.story("web"), "PostStartHook failed: broken") {
			t.Error(w.story("web"))
		}
	})
}

func TestTerminations(t *testing.T) {
	inWorld(t, func(w *world) {
		never := func(s *corev1.PodSpec) { s.RestartPolicy = corev1.RestartPolicyNever }
		w.engine.AddImage("oom", fake.Image{Present: true, Process: fake.Process{Exits: true, OOM: true}})
		w.engine.AddImage("fails", fake.Image{Present: true, Process: fake.Process{Exits: true, Code: 1, Output: []string{"the reason"}}})
		w.engine.AddImage("cannot", fake.Image{Present: true, Process: fake.Process{StartError: "no such file"}})
		for _, image := range []string{"oom", "fails", "cannot"} {
			w.must(plan.CreatePod{Pod: onePod(image, never, web(func(c *corev1.Container) {
				c.Image, c.TerminationMessagePolicy = image, corev1.TerminationMessageFallbackToLogsOnError
			}))})
		}
		sleep(time.Second)
		w.expect("oom", "Failed ready=false [web terminated OOMKilled]")
		w.expect("fails", "Failed ready=false [web terminated Error]")
		if m := w.observe("fails").Containers[0].Message; m != "the reason" {
			t.Errorf("message %q", m)
		}
		w.expect("cannot", "Failed ready=false [web terminated StartError]")
		if m := w.observe("cannot").Containers[0].Message; !strings.Contains(m, "no such file") {
			t.Errorf("message %q", m)
		}
	})
}

func TestActiveDeadline(t *testing.T) {
	inWorld(t, func(w *world) {
		limit := int64(100)
		w.must(plan.CreatePod{Pod: onePod("p", func(s *corev1.PodSpec) { s.ActiveDeadlineSeconds = &limit })})
		sleep(60 * time.Second)
		w.restart()
		sleep(39 * time.Second)
		w.expect("p", "Running ready=true [web running]")
		sleep(2 * time.Second)
		w.expect("p", "Failed ready=false DeadlineExceeded [web terminated Completed]")
		w.restart()
		sleep(time.Hour)
		w.expect("p", "Failed ready=false DeadlineExceeded [web terminated Completed]")
	})
}

func TestEviction(t *testing.T) {
	inWorld(t, func(w *world) {
		size := resource.MustParse("1Mi")
		w.must(plan.CreatePod{Pod: onePod("p", func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &size}}}}
		})})
		sleep(2 * time.Minute)
		w.expect("p", "Running ready=true [web running]")
		w.volumes.mu.Lock()
		w.volumes.usage["tmp"] = 2 << 20
		w.volumes.mu.Unlock()
		sleep(time.Minute)
		w.expect("p", "Failed ready=false Evicted [web terminated Error]")
	})
}

// TestAForbiddenSysctlFailsThePod holds that what can never run is not tried for ever.
func TestAForbiddenSysctlFailsThePod(t *testing.T) {
	inWorld(t, func(w *world) {
		w.engine.ForgetCalls()
		w.must(plan.CreatePod{Pod: onePod("p", func(s *corev1.PodSpec) {
			s.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "kernel.msgmax", Value: "1"}}}
		})})
		w.expect("p", "Failed ready=false SysctlForbidden [web waiting ContainerCreating]")
		if err := w.do(plan.WaitReady{Pod: key("p")}); err == nil || !strings.Contains(err.Error(), "SysctlForbidden") {
			t.Errorf("waiting for it: %v", err)
		}
		events := w.story("")
		if n := strings.Count(events, "SysctlForbidden"); n != 1 || !strings.Contains(events, `forbidden sysctl: "kernel.msgmax" not allowlisted`) {
			t.Errorf("events:\n%s", events)
		}
		sleep(time.Hour)
		w.restart()
		sleep(time.Hour)
		w.expect("p", "Failed ready=false SysctlForbidden [web waiting ContainerCreating]")
		if later := w.story(""); later != events {
			t.Errorf("it was tried again:\n%s", later)
		}
		if got := w.mutations(); len(got) > 0 {
			t.Errorf("the engine was asked for %v", got)
		}
		w.must(plan.DeletePod{Pod: key("p"), UID: w.observe("p").UID})
	})
}

func TestUpdateInPlace(t *testing.T) {
	inWorld(t, func(w *world) {
		ref := object.Ref{Kind: "ConfigMap", Namespace: "ns", Name: "settings"}
		mounts := func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}}}
		}
		limit := func(s string) func(*corev1.PodSpec) {
			return web(func(c *corev1.Container) {
				c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(s)}
			})
		}
		pod := onePod("p", mounts, limit("64Mi"))
		pod.Configs = []plan.Config{{Ref: ref, Digest: "d1", Data: map[string][]byte{}}}
		w.must(plan.CreatePod{Pod: pod})
		next := onePod("p", mounts, limit("128Mi"))
		next.Configs = []plan.Config{{Ref: ref, Digest: "d2", Data: map[string][]byte{}}}
		next.Annotations = map[string]string{"a": "b"}
		w.engine.ForgetCalls()
		for range 2 {
			w.must(plan.UpdatePod{Pod: next})
		}
		check := func() {
			t.Helper()
			p := w.observe("p")
			if p.Containers[0].Resources.MemoryBytes != 128<<20 || p.Mounted[ref] != "d2" || p.Annotations["a"] != "b" || p.Containers[0].Restarts != 0 {
				t.Errorf("after the update: %+v", p)
			}
			if diff := cmp.Diff([]string{"update ns/p/web#0"}, w.mutations()); diff != "" {
				t.Error(diff)
			}
		}
		check()
		w.restart()
		check()
		// Values are not kept: what was adopted waits for them when it has to start again.
		w.engine.Hand().Remove(w.find("p", "web").ID)
		sleep(time.Second)
		w.expect("p", "Running ready=false CreateContainerConfigError [web waiting CreateContainerConfigError]")
		w.mu.Lock()
		w.configs[ref] = next.Configs[0]
		w.mu.Unlock()
		sleep(time.Minute)
		w.expect("p", "Running ready=true [web running restarts=1]")
	})
}

func TestMissingConfigMap(t *testing.T) {
	inWorld(t, func(w *world) {
		pod := onePod("p", func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}}}
		})
		w.must(plan.CreatePod{Pod: pod})
		w.expect("p", "Pending ready=false FailedMount [web waiting ContainerCreating]")
		fixed := *pod
		fixed.Configs = []plan.Config{{Ref: object.Ref{Kind: "ConfigMap", Namespace: "ns", Name: "settings"}, Digest: "d"}}
		w.must(plan.UpdatePod{Pod: &fixed})
		w.must(plan.WaitReady{Pod: key("p"), Deadline: time.Now().Add(time.Minute)})
	})
}

func TestImageThatCannotBePulled(t *testing.T) {
	inWorld(t, func(w *world) {
		w.engine.AddImage("gone", fake.Image{Pull: fake.Pull{Err: runtimes.ErrNotFound}})
		w.must(plan.CreatePod{Pod: onePod("p", web(func(c *corev1.Container) { c.Image = "gone" }))})
		w.expect("p", "Pending ready=false ErrImagePull [web waiting ErrImagePull]")
		sleep(5 * time.Second)
		w.expect("p", "Pending ready=false ImagePullBackOff [web waiting ImagePullBackOff]")
		w.engine.AddImage("gone", fake.Image{})
		w.must(plan.WaitReady{Pod: key("p"), Deadline: time.Now().Add(time.Minute)})
	})
}

func TestStartedByHand(t *testing.T) {
	inWorld(t, func(w *world) {
		w.engine.AddImage("app", fake.Image{Present: true, Run: func(s runtimes.ContainerSpec) fake.Process {
			return fake.Process{Exits: s.Attempt == 0, Code: 1}
		}})
		w.must(plan.CreatePod{Pod: onePod("p")})
		sleep(time.Second)
		first := ""
		for _, c := range w.engine.Containers() {
			if c.Container.Container == "web" && c.Attempt == 0 {
				first = c.ID
			}
		}
		w.engine.Hand().Start(first)
		sleep(time.Minute)
		w.expect("p", "Running ready=true [web running restarts=1]")
		if all := w.engine.Containers(); len(all) != 2 {
			t.Errorf("%v", all)
		}
		w.engine.AddImage("job", fake.Image{Present: true, Run: func(runtimes.ContainerSpec) fake.Process { return fake.Process{Exits: true, After: time.Hour} }})
		w.must(plan.CreatePod{Pod: onePod("j", func(s *corev1.PodSpec) { s.RestartPolicy = corev1.RestartPolicyNever }, web(func(c *corev1.Container) { c.Image = "job" }))})
		sleep(2 * time.Hour)
		w.engine.Hand().Start(w.find("j", runtimes.SandboxContainer).ID)
		w.engine.Hand().Start(w.find("j", "web").ID)
		sleep(time.Minute)
		w.expect("j", "Succeeded ready=false [web terminated Error]")
		if w.find("j", "web").Running {
			t.Error("a container of a pod that ended runs")
		}
	})
}

func TestDeletionInterruptsAPull(t *testing.T) {
	inWorld(t, func(w *world) {
		w.engine.AddImage("slow", fake.Image{Pull: fake.Pull{Takes: time.Hour}})
		go func() {
			_ = w.do(plan.CreatePod{Pod: onePod("p", web(func(c *corev1.Container) { c.Image = "slow" }))})
		}()
		sleep(time.Minute)
		begin := time.Now()
		w.must(plan.DeletePod{Pod: key("p")})
		if took := time.Since(begin); took > time.Second {
			t.Errorf("took %v", took)
		}
		if all := w.engine.Containers(); len(all) != 0 {
			t.Errorf("left over: %v", all)
		}
	})
}

func TestNetworkIsMadeAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.network.Fail("Attach", errBroken)
		ensured := w.network.Ensured()
		w.must(plan.CreatePod{Pod: onePod("p")})
		w.expect("p", "Pending ready=false FailedCreatePodSandBox [web waiting ContainerCreating]")
		if w.network.Ensured() == ensured {
			t.Error("the network was not made again")
		}
		w.network.Fail("Attach", nil)
		sleep(time.Minute)
		w.expect("p", "Running ready=true [web running]")
		// A link that was taken away comes back when events may have been missed.
		uid := w.observe("p").UID
		if err := w.network.Detach(w.t.Context(), uid); err != nil {
			t.Fatal(err)
		}
		w.engine.Disconnect()
		sleep(time.Minute)
		if _, ok := w.network.Links()[uid]; !ok {
			t.Error("the pod has no link")
		}
	})
}

// TestAClearedNetworkStaysAway holds that what was cleared away is not made by a list, but by the pod that needs it,
// before its sandbox is made: the engine joins one with ports to it.
func TestAClearedNetworkStaysAway(t *testing.T) {
	inWorld(t, func(w *world) {
		cleared := 0
		if err := w.node.Clear(t.Context(), func(context.Context) error { cleared++; return nil }); err != nil || cleared != 1 {
			t.Fatal(err, cleared)
		}
		ensured := w.network.Ensured()
		w.engine.ForgetCalls()
		w.engine.Disconnect()
		sleep(3 * listEvery)
		if len(w.engine.Calls()) == 0 {
			t.Fatal("the engine was not listed meanwhile")
		}
		host := onePod("host")
		host.Spec.HostNetwork = true
		w.must(plan.CreatePod{Pod: host})
		w.must(plan.WaitReady{Pod: key("host")})
		if n := w.network.Ensured() - ensured; n != 0 {
			t.Fatalf("the network was made %d times though no pod needs it", n)
		}
		w.network.Fail("Ensure", errBroken)
		w.must(plan.CreatePod{Pod: onePod("p")})
		synctest.Wait()
		if got := w.mutations(); slices.ContainsFunc(got, func(c string) bool { return strings.HasPrefix(c, "create ns/p/POD") }) {
			t.Errorf("a sandbox was made without the network: %v", got)
		}
		w.network.Fail("Ensure", nil)
		w.must(plan.WaitReady{Pod: key("p")})
		made := w.network.Ensured() - ensured
		if made == 0 {
			t.Error("the network was not made for the pod")
		}
		sleep(2 * listEvery)
		if w.network.Ensured()-ensured == made {
			t.Error("the network of pods is not looked after any more")
		}
	})
}

func TestNamesThatSomebodyHas(t *testing.T) {
	inWorld(t, func(w *world) {
		mend := w.engine.Break(fake.Fault{Kind: fake.CallCreate, Nth: 1, Err: runtimes.ErrConflict})
		defer mend()
		w.must(plan.CreatePod{Pod: onePod("p")})
		sleep(time.Minute)
		w.expect("p", "Running ready=true [web running]")
	})
}

func TestRestarts(t *testing.T) {
	never, onFailure := corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure
	rule := func(op corev1.ContainerRestartRuleOnExitCodesOperator, codes ...int32) []corev1.ContainerRestartRule {
		return []corev1.ContainerRestartRule{{
			Action:    corev1.ContainerRestartRuleActionRestart,
			ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: op, Values: codes},
		}}
	}
	for name, c := range map[string]struct {
		pod       corev1.RestartPolicy
		kind      kind
		container corev1.Container
		code      int
		want      bool
	}{
		"Always, success":              {pod: corev1.RestartPolicyAlways, want: true},
		"Always, init, success":        {pod: corev1.RestartPolicyAlways, kind: initial},
		"Always, init, failure":        {pod: corev1.RestartPolicyAlways, kind: initial, code: 1, want: true},
		"OnFailure, success":           {pod: corev1.RestartPolicyOnFailure},
		"OnFailure, failure":           {pod: corev1.RestartPolicyOnFailure, code: 1, want: true},
		"Never, failure":               {pod: corev1.RestartPolicyNever, code: 1},
		"Never, sidecar":               {pod: corev1.RestartPolicyNever, kind: sidecar, want: true},
		"the container's own policy":   {pod: corev1.RestartPolicyAlways, container: corev1.Container{RestartPolicy: &never}, code: 1},
		"its own, on failure":          {pod: corev1.RestartPolicyNever, container: corev1.Container{RestartPolicy: &onFailure}, code: 1, want: true},
		"a rule that holds":            {pod: corev1.RestartPolicyNever, container: corev1.Container{RestartPolicyRules: rule(corev1.ContainerRestartRuleOnExitCodesOpIn, 42)}, code: 42, want: true},
		"a rule that does not":         {pod: corev1.RestartPolicyNever, container: corev1.Container{RestartPolicyRules: rule(corev1.ContainerRestartRuleOnExitCodesOpIn, 42)}, code: 1},
		"a rule about all other codes": {pod: corev1.RestartPolicyNever, container: corev1.Container{RestartPolicyRules: rule(corev1.ContainerRestartRuleOnExitCodesOpNotIn, 42)}, code: 1, want: true},
	} {
		s := newState(onePod("p", func(s *corev1.PodSpec) { s.RestartPolicy = c.pod }), "u", parseIP(""), time.Time{})
		if got := s.restarts(&container{spec: &c.container, kind: c.kind}, c.code); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// A pod that publishes ports is wired by the engine, and brought to what the other pods have.
func TestEngineNetworkIsAdopted(t *testing.T) {
	inWorld(t, func(w *world) {
		pod := onePod("p")
		pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080, Protocol: corev1.ProtocolTCP}}
		w.must(plan.CreatePod{Pod: pod})
		w.must(plan.WaitReady{Pod: key("p")})
		if got := w.network.Adopted(); len(got) != 1 || len(w.network.Links()) != 0 {
			t.Errorf("adopted %v, links %v", got, w.network.Links())
		}
	})
}

package executor

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes/fake"
)

// asked are the kinds of changing calls about a container since ForgetCalls, and the signals.
func (w *world) asked(pod, container string) string {
	synctest.Wait()
	var out []string
	for _, c := range w.mutations() {
		if f := strings.Fields(c); strings.HasPrefix(f[1], "ns/"+pod+"/"+container+"#") {
			out = append(out, strings.Join(append(f[:1:1], f[2:]...), " "))
		}
	}
	return strings.Join(out, ", ")
}

// begin takes a step beside the test.
func (w *world) begin(args plan.Args) <-chan error {
	done := make(chan error, 1)
	ctx := w.t.Context()
	node := w.node
	go func() { done <- node.Do(ctx, plan.Step{ID: 1, Args: args}) }()
	synctest.Wait()
	return done
}

func ended(done <-chan error) bool {
	synctest.Wait()
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// TestPodsLeaveTheRoutesBeforeTheyStop has a slow registry, and a process that does not stop by itself.
func TestPodsLeaveTheRoutesBeforeTheyStop(t *testing.T) {
	inServices(t, []time.Duration{10 * time.Second, 0}, func(w *world, r []*recorder) {
		w.engine.AddImage("app", fake.Image{Present: true, Process: fake.Process{IgnoreTERM: true}})
		w.must(plan.SetService{Service: service("a")})
		w.must(plan.CreatePod{Pod: labelled("p", "a", web(func(c *corev1.Container) {
			c.Lifecycle = &corev1.Lifecycle{PreStop: execHook("pre")}
		}))})
		w.must(plan.WaitReady{Pod: key("p")})
		r[0].change(func() { r[0].slow = 3 * time.Second })
		r[1].change(func() { r[1].slow = time.Hour }) // one without a gate is not waited for
		w.engine.ForgetCalls()
		began := time.Now()
		done := w.begin(plan.DeletePod{Pod: key("p")})
		for _, x := range []struct {
			at           time.Duration
			routes, asks string
			hooks        int
		}{
			{0, "a[p]", "", 0},
			{2900 * time.Millisecond, "a[p]", "", 0},
			{3100 * time.Millisecond, "a[(p)]", "kill SIGTERM", 1},
			{32900 * time.Millisecond, "a[(p)]", "kill SIGTERM", 1},
			{33100 * time.Millisecond, "a[(p)]", "kill SIGTERM, kill SIGKILL, remove", 1},
		} {
			sleep(x.at - time.Since(began))
			if got := r[0].now(); got != x.routes {
				t.Errorf("after %v the routes are %s, want %s", x.at, got, x.routes)
			}
			if got := w.asked("p", "web"); got != x.asks {
				t.Errorf("after %v the engine was asked to %q, want %q", x.at, got, x.asks)
			}
			if got := w.prober.hooked(); got != x.hooks {
				t.Errorf("after %v %d hooks ran, want %d", x.at, got, x.hooks)
			}
			if x.at == 0 {
				if p := w.observe("p"); !p.Terminating || p.Ready {
					t.Errorf("terminating=%t ready=%t", p.Terminating, p.Ready)
				}
				if e := w.node.Routes()[0].Endpoints[0]; e.Ready || !e.Serving || !e.Terminating {
					t.Errorf("its endpoint is %+v", e)
				}
			}
		}
		sleep(10 * time.Second)
		if !ended(done) {
			t.Error("it was not deleted")
		}
	})
}

// TestAPodThatComesBackStillHasToLeave has a pod that ceases to be an endpoint and is one again at once, since its Service
// is written anew: the registry, busy or not, has had it all the time.
func TestAPodThatComesBackStillHasToLeave(t *testing.T) {
	for _, busy := range []bool{false, true} {
		inServices(t, []time.Duration{10 * time.Second}, func(w *world, r []*recorder) {
			w.engine.AddImage("app", fake.Image{Present: true, Process: fake.Process{IgnoreTERM: true}})
			w.must(plan.SetService{Service: service("a")})
			w.must(plan.CreatePod{Pod: labelled("p", "a")})
			w.must(plan.WaitReady{Pod: key("p")})
			r[0].change(func() { r[0].slow = 3 * time.Second })
			if busy {
				w.must(plan.SetService{Service: service("b")})
				synctest.Wait()
			}
			again := *service("a")
			again.Hash = "another"
			w.engine.ForgetCalls()
			go func() { // both at once: the registry may hear of them together
				_ = w.do(plan.SetService{Service: &again})
				_ = w.do(plan.DeletePod{Pod: key("p")})
			}()
			sleep(2900 * time.Millisecond)
			if got := w.asked("p", "web"); got != "" {
				t.Errorf("busy %t: the engine was asked to %q while the routes were %s", busy, got, r[0].now())
			}
			sleep(3200 * time.Millisecond)
			if got := w.asked("p", "web"); got != "kill SIGTERM" {
				t.Errorf("busy %t: the engine was asked to %q when the routes were %s", busy, got, r[0].now())
			}
		})
	}
}

func TestPodsDoNotWaitForever(t *testing.T) {
	ready := func(w *world) {
		w.must(plan.CreatePod{Pod: labelled("p", "a")})
		w.must(plan.WaitReady{Pod: key("p")})
	}
	for name, c := range map[string]struct {
		gates []time.Duration
		set   func(w *world, r []*recorder)
		waits time.Duration
	}{
		"a registry that fails": {[]time.Duration{5 * time.Second}, func(w *world, r []*recorder) {
			w.must(plan.SetService{Service: service("a")})
			ready(w)
			r[0].change(func() { r[0].err = errBroken })
		}, 5 * time.Second},
		"a registry that hangs and one that fails": {[]time.Duration{5 * time.Second, 7 * time.Second}, func(w *world, r []*recorder) {
			w.must(plan.SetService{Service: service("a")})
			ready(w)
			r[0].change(func() { r[0].slow = time.Hour })
			r[1].change(func() { r[1].err = errBroken })
		}, 7 * time.Second},
		"a pod in no Service": {[]time.Duration{time.Hour}, func(w *world, r []*recorder) {
			w.must(plan.SetService{Service: service("b")})
			synctest.Wait()
			r[0].change(func() { r[0].slow = time.Hour })
			w.must(plan.SetService{Service: service("c")})
			ready(w)
		}, 0},
		"a pod that was never ready": {[]time.Duration{time.Hour}, func(w *world, r []*recorder) {
			w.must(plan.SetService{Service: service("a")})
			w.prober.set("web", true)
			w.must(plan.CreatePod{Pod: labelled("p", "a", probed())})
			sleep(time.Minute)
			r[0].change(func() { r[0].slow = time.Hour })
		}, 0},
		"a pod that is not ready any more": {[]time.Duration{time.Hour}, func(w *world, r []*recorder) {
			w.must(plan.SetService{Service: service("a")})
			w.must(plan.CreatePod{Pod: labelled("p", "a", probed())})
			w.must(plan.WaitReady{Pod: key("p")})
			w.prober.set("web", true)
			sleep(time.Minute)
			r[0].change(func() { r[0].err = errBroken })
		}, 0},
		"a Service that publishes what is not ready": {[]time.Duration{time.Hour}, func(w *world, r []*recorder) {
			w.must(plan.SetService{Service: service("a", func(s *plan.Service) { s.Spec.PublishNotReadyAddresses = true })})
			ready(w)
		}, 0},
		"no registry": {nil, func(w *world, r []*recorder) {
			w.must(plan.SetService{Service: service("a")})
			ready(w)
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inServices(t, c.gates, func(w *world, r []*recorder) {
				c.set(w, r)
				synctest.Wait()
				w.engine.ForgetCalls()
				began := time.Now()
				done := w.begin(plan.DeletePod{Pod: key("p")})
				if c.waits > 0 {
					sleep(c.waits - time.Millisecond)
					if got := w.asked("p", "web"); got != "" {
						t.Errorf("it was asked to %s too early", got)
					}
				}
				if err := <-done; err != nil {
					t.Error(err)
				}
				if took := time.Since(began).Round(10 * time.Millisecond); took != c.waits {
					t.Errorf("it took %v, want %v", took, c.waits)
				}
			})
		})
	}
}

// TestPodsThatLeaveOutliveTheDaemon restarts the node while a pod waits to be out of the routes.
func TestPodsThatLeaveOutliveTheDaemon(t *testing.T) {
	for name, c := range map[string]struct {
		after func(r *recorder)
		waits time.Duration // from the restart on
	}{
		"the registry answers": {func(r *recorder) { r.slow = time.Second }, time.Second},
		"the registry hangs":   {func(r *recorder) { r.slow = time.Hour }, 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inServices(t, []time.Duration{20 * time.Second}, func(w *world, r []*recorder) {
				w.engine.AddImage("app", fake.Image{Present: true, Process: fake.Process{IgnoreTERM: true}})
				w.must(plan.SetService{Service: service("a")})
				w.must(plan.CreatePod{Pod: labelled("p", "a")})
				w.must(plan.WaitReady{Pod: key("p")})
				r[0].change(func() { r[0].slow = time.Hour })
				w.engine.ForgetCalls()
				done := w.begin(plan.DeletePod{Pod: key("p")})
				sleep(5 * time.Second)
				r[0].change(func() { c.after(r[0]) })
				w.restart()
				if err := <-done; !errors.Is(err, errClosed) {
					t.Error(err)
				}
				if p := w.observe("p"); !p.Terminating || p.Ready {
					t.Errorf("terminating=%t ready=%t", p.Terminating, p.Ready)
				}
				sleep(c.waits - time.Millisecond)
				if got := w.asked("p", "web"); got != "" {
					t.Errorf("it was asked to %s too early", got)
				}
				sleep(2 * time.Millisecond)
				if got := w.asked("p", "web"); got != "kill SIGTERM" {
					t.Errorf("it was asked to %q", got)
				}
				w.restart() // in the grace period: it does not begin anew
				sleep(30*time.Second - 10*time.Millisecond)
				if got := w.asked("p", "web"); !strings.HasPrefix(got, "kill SIGTERM") || strings.Contains(got, "SIGKILL") {
					t.Errorf("it was asked to %q", got)
				}
				sleep(20 * time.Millisecond)
				if got := w.asked("p", "web"); !strings.Contains(got, "SIGKILL") {
					t.Errorf("it was asked to %q", got)
				}
			})
		})
	}
}

func TestReadyMeansThatTheRoutesHaveIt(t *testing.T) {
	for name, c := range map[string]struct {
		set   func(r *recorder)
		waits time.Duration
	}{
		"a slow registry":       {func(r *recorder) { r.slow = 3 * time.Second }, 3 * time.Second},
		"a registry that fails": {func(r *recorder) { r.err = errBroken }, 10 * time.Second},
		"a registry that hangs": {func(r *recorder) { r.slow = time.Hour }, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inServices(t, []time.Duration{10 * time.Second}, func(w *world, r []*recorder) {
				w.must(plan.SetService{Service: service("a")})
				synctest.Wait()
				w.prober.set("web", true)
				w.must(plan.CreatePod{Pod: labelled("p", "a", probed())})
				done := w.begin(plan.WaitReady{Pod: key("p")})
				sleep(10 * time.Second)
				r[0].change(func() { c.set(r[0]) })
				w.prober.set("web", false)
				sleep(time.Second) // the probe sees it
				since := w.observe("p").ReadySince
				if since.IsZero() || ended(done) {
					t.Fatalf("ready since %v", since)
				}
				if err := <-done; err != nil {
					t.Error(err)
				}
				if took := time.Since(since).Round(10 * time.Millisecond); took != c.waits {
					t.Errorf("it took %v, want %v", took, c.waits)
				}
			})
		})
	}
}

// TestARolloutNeverLeavesAServiceWithoutEndpoints replaces pods one by one as a plan does, with a registry that takes
// its time, and looks at everything that the registry was set to.
func TestARolloutNeverLeavesAServiceWithoutEndpoints(t *testing.T) {
	inServices(t, []time.Duration{10 * time.Second}, func(w *world, r []*recorder) {
		w.must(plan.SetService{Service: service("a")})
		w.must(plan.CreatePod{Pod: labelled("v0", "a")})
		w.must(plan.WaitReady{Pod: key("v0")})
		r[0].change(func() { r[0].slow = 700 * time.Millisecond })
		n := r[0].count()
		for i := range 3 {
			w.must(plan.CreatePod{Pod: labelled(fmt.Sprintf("v%d", i+1), "a")})
			w.must(plan.WaitReady{Pod: key(fmt.Sprintf("v%d", i+1))})
			w.must(plan.DeletePod{Pod: key(fmt.Sprintf("v%d", i))})
		}
		sleep(10 * time.Second)
		sets := r[0].since(n)
		for _, s := range sets {
			if !strings.Contains(s, "[v") && !strings.Contains(s, " v") {
				t.Errorf("no endpoint: %s", s)
			}
		}
		if got := sets[len(sets)-1]; got != "a[v3]" {
			t.Error(got)
		}
	})
}

func TestASlowRegistryDelaysNoOther(t *testing.T) {
	inServices(t, []time.Duration{0, 0}, func(w *world, r []*recorder) {
		synctest.Wait()
		r[1].change(func() { r[1].slow = 10 * time.Second })
		n, m := r[0].count(), r[1].count()
		began := time.Now()
		for i := range 20 {
			w.must(plan.SetService{Service: service(fmt.Sprintf("s%02d", i))})
			synctest.Wait()
			if got := r[0].now(); strings.Count(got, "[]") != i+1 {
				t.Errorf("after %d Services the fast one has %s", i+1, got)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		sleep(time.Minute)
		if got := len(r[0].since(n)); got != 20 {
			t.Errorf("the fast one was set %d times, want once for each change", got)
		}
		var counts []int
		for _, s := range r[1].since(m) {
			counts = append(counts, strings.Count(s, "[]"))
		}
		// The first change at once, everything that came meanwhile together.
		if diff := cmp.Diff([]int{1, 20}, counts); diff != "" {
			t.Error(diff)
		}
	})
}

// serviceError is an error of a registry about one Service.
type serviceError struct {
	ref  object.Ref
	text string
}

func (e serviceError) Error() string       { return e.text }
func (e serviceError) Service() object.Ref { return e.ref }

func TestARegistryThatFails(t *testing.T) {
	inServices(t, []time.Duration{time.Second}, func(w *world, r []*recorder) {
		w.must(plan.SetService{Service: service("a")})
		w.must(plan.SetService{Service: service("b")})
		synctest.Wait()
		tries := r[0].tries
		r[0].change(func() {
			r[0].err = fmt.Errorf("two: %w", errors.Join(serviceError{service("b").Ref, "no port"}, errors.New("other")))
		})
		began := time.Now()
		w.must(plan.SetService{Service: service("c")})
		sleep(10 * time.Minute)
		if n := r[0].tries - tries; n < 12 || n > 20 {
			t.Errorf("it was tried %d times in 10 minutes", n)
		}
		st := w.node.Registries()[0]
		if st.Error != "two: no port\nother" || !st.Since.Equal(began) || st.Current || st.Failures != uint64(r[0].tries-tries) || st.Name != "r0" || st.Gate != time.Second {
			t.Errorf("%+v", st)
		}
		r[0].change(func() { r[0].err = errBroken })
		w.must(plan.SetService{Service: service("d")}) // a change does not wait for the end of the back-off
		sleep(time.Second)
		if got := w.node.Registries()[0].Error; got != "broken" {
			t.Error(got)
		}
		r[0].change(func() { r[0].err = nil })
		sleep(2 * time.Minute)
		if got := r[0].now(); got != "a[]b[]c[]d[]" {
			t.Error(got)
		}
		st = w.node.Registries()[0]
		if st.Error != "" || !st.Current || st.Last.IsZero() || st.Since.Before(began.Add(10*time.Minute)) {
			t.Errorf("%+v", st)
		}
		var trouble []string
		for _, err := range w.trouble {
			trouble = append(trouble, err.Error())
		}
		if diff := cmp.Diff([]string{"serve Services with r0: two: no port\nother", "serve Services with r0: broken"}, trouble); diff != "" {
			t.Error(diff)
		}
		var events []string
		for _, e := range w.events {
			if !e.Service.IsZero() {
				events = append(events, fmt.Sprintf("%s %s %s %s", e.Type(), e.Ref(), e.Reason, e.Message))
			}
		}
		want := []string{
			"Warning Service ns/b FailedToServe r0: no port; trying again",
			"Warning Service ns/c FailedToServe r0: broken; trying again",
			"Warning Service ns/d FailedToServe r0: broken; trying again",
		}
		if diff := cmp.Diff(want, events); diff != "" {
			t.Error(diff)
		}
	})
}

func TestEvictedPodsLeaveFirst(t *testing.T) {
	inServices(t, []time.Duration{10 * time.Second}, func(w *world, r []*recorder) {
		size := resource.MustParse("1Mi")
		w.must(plan.SetService{Service: service("a")})
		w.must(plan.CreatePod{Pod: labelled("p", "a", func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &size}}}}
		})})
		w.must(plan.WaitReady{Pod: key("p")})
		r[0].change(func() { r[0].slow = 4 * time.Second })
		w.volumes.mu.Lock()
		w.volumes.usage["tmp"] = 2 << 20
		w.volumes.mu.Unlock()
		w.engine.ForgetCalls()
		for w.observe("p").Reason != "Evicted" {
			sleep(time.Second)
		}
		sleep(2 * time.Second)
		if got := w.asked("p", "web"); got != "" || r[0].now() != "a[p]" {
			t.Errorf("it was asked to %q, routes %s", got, r[0].now())
		}
		sleep(3 * time.Second)
		if got := w.asked("p", "web"); !strings.HasPrefix(got, "kill") {
			t.Errorf("it was asked to %q", got)
		}
		w.expect("p", "Failed ready=false Evicted [web terminated Error]")
		if got := r[0].now(); got != "a[]" {
			sleep(5 * time.Second)
			if got = r[0].now(); got != "a[]" {
				t.Error(got)
			}
		}
	})
}

// TestALivenessRestartIsNotReady: a container that is stopped to be restarted gets no new connections.
func TestALivenessRestartIsNotReady(t *testing.T) {
	inServices(t, []time.Duration{time.Second}, func(w *world, r []*recorder) {
		w.engine.AddImage("app", fake.Image{Present: true, Process: fake.Process{IgnoreTERM: true}})
		w.must(plan.SetService{Service: service("a")})
		w.must(plan.CreatePod{Pod: labelled("p", "a", web(func(c *corev1.Container) {
			c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{}}, PeriodSeconds: 1, FailureThreshold: 1}
		}))})
		w.must(plan.WaitReady{Pod: key("p")})
		w.prober.set("web", true)
		sleep(2 * time.Second)
		w.prober.set("web", false)
		if got := r[0].now(); got != "a[(p)]" {
			t.Error(got)
		}
		sleep(time.Minute)
		if got := r[0].now(); got != "a[p]" {
			t.Error(got)
		}
	})
}

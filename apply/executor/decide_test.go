package executor

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// TestDecide shows what is decided in situations of one pod: golden, one situation a paragraph.
func TestDecide(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	always := corev1.ContainerRestartPolicyAlways
	fresh := func() *state {
		s := newState(onePod("p", func(s *corev1.PodSpec) {
			s.InitContainers = []corev1.Container{{Name: "init", Image: "i"}, {Name: "side", Image: "s", RestartPolicy: &always}}
			s.Containers = append(s.Containers, corev1.Container{Name: "two", Image: "app"})
		}), "u", parseIP("10.0.0.2"), now)
		return &s
	}
	up := func(s *state) {
		s.volumes.done = true
		s.sandbox.instance, s.sandbox.wired = instance{id: "box", status: running}, true
	}
	runs := func(s *state, names ...string) {
		for _, name := range names {
			c := s.container(name)
			c.instance = instance{id: name, status: running, started: now}
			c.next, c.postStart, c.begun, c.ready = 1, hookDone, true, true
		}
	}
	ended := func(s *state, name string, code int) {
		runs(s, name)
		c := s.container(name)
		c.status, c.code, c.ended = exited, code, now
	}
	everything := func(s *state) { up(s); ended(s, "init", 0); runs(s, "side", "web", "two") }
	situations := []struct {
		name string
		set  func(s *state)
	}{
		{"nothing is there", func(*state) {}},
		{"the sandbox is created, volumes are not ready", func(s *state) { s.sandbox.instance = instance{id: "box", status: created} }},
		{"the sandbox is created, volumes are ready", func(s *state) {
			s.volumes.done = true
			s.sandbox.instance = instance{id: "box", status: created}
		}},
		{"the init container is created", func(s *state) {
			up(s)
			s.container("init").instance = instance{id: "init", status: created}
		}},
		{"the init container runs", func(s *state) { up(s); runs(s, "init") }},
		{"the init container succeeded", func(s *state) { up(s); ended(s, "init", 0) }},
		{"the init container failed", func(s *state) { up(s); ended(s, "init", 1); s.container("init").wait = now.Add(10 * time.Second) }},
		{"the sidecar runs and has not started", func(s *state) { up(s); ended(s, "init", 0); runs(s, "side"); s.container("side").begun = false }},
		{"the sidecar has started", func(s *state) { up(s); ended(s, "init", 0); runs(s, "side") }},
		{"everything runs", everything},
		{"the network has to be checked", func(s *state) { everything(s); s.sandbox.wired = false }},
		{"a container crashed", func(s *state) { everything(s); ended(s, "web", 1) }},
		{"a container crashed and backs off", func(s *state) { everything(s); ended(s, "web", 1); s.container("web").wait = now.Add(20 * time.Second) }},
		{"the sidecar crashed", func(s *state) { everything(s); ended(s, "side", 1) }},
		{"the finished init container was removed", func(s *state) { everything(s); s.container("init").id = "" }},
		{"the sandbox died", func(s *state) { everything(s); s.sandbox.status = exited }},
		{"the sandbox died and everything was stopped", func(s *state) {
			everything(s)
			s.sandbox.status = exited
			for _, name := range []string{"side", "web", "two"} {
				ended(s, name, 137)
			}
		}},
		{"restartPolicy Never and one container failed", func(s *state) {
			s.pod.Spec.RestartPolicy = corev1.RestartPolicyNever
			everything(s)
			ended(s, "web", 1)
		}},
		{"restartPolicy Never and all have ended, one failed", func(s *state) {
			s.pod.Spec.RestartPolicy = corev1.RestartPolicyNever
			everything(s)
			ended(s, "web", 1)
			ended(s, "two", 0)
		}},
		{"it ended and its sidecar runs", func(s *state) {
			everything(s)
			ended(s, "web", 0)
			ended(s, "two", 0)
			s.ending = &ending{phase: corev1.PodSucceeded, deadline: now.Add(30 * time.Second)}
		}},
		{"the active deadline comes", func(s *state) { everything(s); s.pod.Spec.ActiveDeadlineSeconds = new(int64(60)) }},
		{"the active deadline is over", func(s *state) {
			everything(s)
			s.pod.Spec.ActiveDeadlineSeconds = new(int64(60))
			s.created = now.Add(-time.Minute)
		}},
		{"deletion begins", func(s *state) { everything(s); s.deletion = &deletion{deadline: now.Add(30 * time.Second)} }},
		{"deletion waits to be out of the routes", func(s *state) {
			everything(s)
			s.deletion = &deletion{deadline: now.Add(25 * time.Second)}
			s.leaving = &leaving{since: now.Add(-5 * time.Second), until: now.Add(2 * time.Second)}
		}},
		{"deletion is out of the routes", func(s *state) {
			everything(s)
			s.deletion = &deletion{deadline: now.Add(25 * time.Second)}
			s.leaving = &leaving{since: now.Add(-5 * time.Second)}
		}},
		{"deletion has waited long enough to be out of the routes", func(s *state) {
			everything(s)
			s.deletion = &deletion{deadline: now.Add(25 * time.Second)}
			s.leaving = &leaving{since: now.Add(-5 * time.Second), until: now}
		}},
		{"a container crashed while deletion waits to be out of the routes", func(s *state) {
			everything(s)
			ended(s, "web", 1)
			s.deletion = &deletion{deadline: now.Add(25 * time.Second)}
			s.leaving = &leaving{since: now.Add(-5 * time.Second), until: now.Add(2 * time.Second)}
		}},
		{"it was evicted and waits to be out of the routes", func(s *state) {
			everything(s)
			s.ending = &ending{phase: corev1.PodFailed, deadline: now}
			s.leaving = &leaving{since: now, until: now.Add(2 * time.Second)}
		}},
		{"it was evicted and is out of the routes", func(s *state) {
			everything(s)
			s.ending = &ending{phase: corev1.PodFailed, deadline: now}
			s.leaving = &leaving{since: now}
		}},
		{"deletion has sent the signals", func(s *state) {
			everything(s)
			s.deletion = &deletion{deadline: now.Add(30 * time.Second)}
			for _, name := range []string{"web", "two"} {
				s.container(name).stop = &stopping{deadline: s.deletion.deadline, termed: true}
			}
		}},
		{"the deletion's grace period is over", func(s *state) {
			everything(s)
			s.deletion = &deletion{deadline: now}
			for _, name := range []string{"side", "web", "two"} {
				s.container(name).stop = &stopping{deadline: now, termed: true}
			}
		}},
		{"deletion waits for a call", func(s *state) {
			up(s)
			s.deletion = &deletion{deadline: now.Add(30 * time.Second)}
			s.container("init").working = true
		}},
		{"deletion has stopped everything", func(s *state) { up(s); s.deletion = &deletion{deadline: now.Add(30 * time.Second)} }},
	}
	var b strings.Builder
	for _, sit := range situations {
		s := fresh()
		sit.set(s)
		d := decide(s, now)
		fmt.Fprintf(&b, "%s\n", sit.name)
		for _, a := range d.actions {
			fmt.Fprintf(&b, "  %s", a.do)
			if a.c != nil {
				b.WriteString(" " + a.c.spec.Name)
			}
			if a.do == doEnd {
				fmt.Fprintf(&b, ": %s %s", a.ending.phase, a.ending.reason)
			}
			b.WriteString("\n")
		}
		if !d.wake.IsZero() {
			fmt.Fprintf(&b, "  again in %v\n", d.wake.Sub(now))
		}
		if len(d.actions) == 0 && d.wake.IsZero() {
			b.WriteString("  nothing\n")
		}
	}
	const golden = "testdata/decide.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Error(diff)
	}
}

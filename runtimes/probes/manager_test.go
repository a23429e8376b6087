package probes

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// script is a Prober whose outcome depends on the time since the start and on the probe's path.
type script struct {
	began time.Time
	// at says how an attempt ends that is made then; an error is one that could not be made.
	at func(path string, since time.Duration) (ok bool, err error)
	// takes is how long every attempt takes.
	takes    time.Duration
	attempts map[string]int
}

func (s *script) Probe(ctx context.Context, p *corev1.Probe, _ *corev1.Container, _ Target) (Outcome, error) {
	since := time.Since(s.began)
	path := p.HTTPGet.Path
	s.attempts[path]++
	if s.takes > 0 {
		select {
		case <-time.After(s.takes):
		case <-ctx.Done():
			return Outcome{Message: "timed out"}, nil
		}
	}
	ok, err := s.at(path, since)
	if err != nil || ok {
		return Outcome{Success: ok}, err
	}
	return Outcome{Message: path + " failed"}, nil
}

func container(t *testing.T, text string) *corev1.Container {
	t.Helper()
	c := &corev1.Container{Name: "app"}
	if err := yaml.UnmarshalStrict([]byte(text), c); err != nil {
		t.Fatal(err)
	}
	return c
}

func from(ready time.Duration) func(string, time.Duration) (bool, error) {
	return func(_ string, since time.Duration) (bool, error) { return since >= ready, nil }
}

// between is good outside of the interval.
func failsBetween(a, b time.Duration) func(string, time.Duration) (bool, error) {
	return func(_ string, since time.Duration) (bool, error) { return since < a || since >= b, nil }
}

func TestVerdicts(t *testing.T) {
	const s = time.Second
	for _, tt := range []struct {
		name  string
		probe string
		at    func(string, time.Duration) (bool, error)
		takes time.Duration
		want  []string
		state State // after ten minutes
	}{
		{
			name: "ready at once", probe: `readinessProbe: {httpGet: {path: r, port: 1}}`, at: from(0),
			want: []string{"0s readiness true"}, state: State{Started: true, Ready: true, Known: true},
		},
		{
			name: "found soon, between the beats", probe: `readinessProbe: {httpGet: {path: r, port: 1}}`, at: from(100 * time.Millisecond),
			// After 20, 40 and 80 milliseconds, each counted from the attempt before.
			want: []string{"140ms readiness true"}, state: State{Started: true, Ready: true, Known: true},
		},
		{
			name: "never ready", probe: `readinessProbe: {httpGet: {path: r, port: 1}, periodSeconds: 5, failureThreshold: 2}`, at: from(time.Hour),
			want: []string{"5s readiness false r failed"}, state: State{Started: true, Known: true, Message: "r failed"},
		},
		{
			name: "delayed", probe: `readinessProbe: {httpGet: {path: r, port: 1}, initialDelaySeconds: 7}`, at: from(0),
			want: []string{"7s readiness true"}, state: State{Started: true, Ready: true, Known: true},
		},
		{
			name: "success threshold", probe: `readinessProbe: {httpGet: {path: r, port: 1}, periodSeconds: 2, successThreshold: 3}`, at: from(0),
			want: []string{"4s readiness true"}, state: State{Started: true, Ready: true, Known: true},
		},
		{
			name: "lost and found", probe: `readinessProbe: {httpGet: {path: r, port: 1}, periodSeconds: 10, failureThreshold: 3, successThreshold: 2}`,
			at:    failsBetween(35*s, 95*s),
			want:  []string{"10s readiness true", "1m0s readiness false r failed", "1m50s readiness true"},
			state: State{Started: true, Ready: true, Known: true},
		},
		{
			name: "too short a failure", probe: `readinessProbe: {httpGet: {path: r, port: 1}, periodSeconds: 10, failureThreshold: 3}`,
			at:   failsBetween(35*s, 55*s),
			want: []string{"0s readiness true"}, state: State{Started: true, Ready: true, Known: true},
		},
		{
			name: "alive", probe: `livenessProbe: {httpGet: {path: l, port: 1}}`, at: from(0),
			state: State{Started: true, Ready: true, Known: true},
		},
		{
			name: "dies", probe: `livenessProbe: {httpGet: {path: l, port: 1}, initialDelaySeconds: 15, periodSeconds: 10, failureThreshold: 3, terminationGracePeriodSeconds: 5}`,
			at:    failsBetween(20*s, time.Hour),
			want:  []string{"45s liveness false l failed (grace 5)"}, // and never again: a restart has to follow
			state: State{Started: true, Ready: true, Known: true},
		},
		{
			name: "times out", probe: `livenessProbe: {httpGet: {path: l, port: 1}, timeoutSeconds: 2, failureThreshold: 1}`, at: from(0), takes: 3 * s,
			want: []string{"2s liveness false timed out"}, state: State{Started: true, Ready: true, Known: true},
		},
		{
			name: "startup holds the others back",
			probe: `{startupProbe: {httpGet: {path: s, port: 1}, periodSeconds: 10, failureThreshold: 30}, ` +
				`livenessProbe: {httpGet: {path: l, port: 1}, periodSeconds: 1, failureThreshold: 1}, readinessProbe: {httpGet: {path: r, port: 1}}}`,
			at:   from(60 * s),
			want: []string{"1m0s startup true", "1m0s readiness true"}, state: State{Started: true, Ready: true, Known: true},
		},
		{
			name: "never starts", probe: `{startupProbe: {httpGet: {path: s, port: 1}, periodSeconds: 10, failureThreshold: 3}, livenessProbe: {httpGet: {path: l, port: 1}}}`,
			at:    from(time.Hour),
			want:  []string{"20s startup false s failed"},
			state: State{Known: true, Message: "s failed"},
		},
		{
			name: "what could not be tried counts for nothing", probe: `livenessProbe: {httpGet: {path: l, port: 1}, failureThreshold: 1}`,
			at:    func(string, time.Duration) (bool, error) { return false, errors.New("the engine does not answer") },
			state: State{Started: true, Ready: true, Known: true},
		},
		{
			name: "without probes", probe: `{}`,
			state: State{Started: true, Ready: true, Known: true},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var got []string
				m := NewManager(&script{began: began, at: tt.at, takes: tt.takes, attempts: map[string]int{}}, func(r Result) {
					line := fmt.Sprintf("%v %s %v", time.Since(began), r.Kind, r.Success)
					if r.Message != "" {
						line += " " + r.Message
					}
					if r.GracePeriod != nil {
						line += fmt.Sprintf(" (grace %d)", *r.GracePeriod)
					}
					got = append(got, line)
				})
				defer m.Close()
				m.Set(Target{UID: "uid", Container: "app", Started: began}, container(t, tt.probe))
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if d := cmp.Diff(tt.want, got); d != "" {
					t.Errorf("verdicts (-want +got):\n%s", d)
				}
				if state, ok := m.State("uid", "app"); !ok || state != tt.state {
					t.Errorf("state %+v %v, want %+v", state, ok, tt.state)
				}
			})
		})
	}
}

// TestAttemptsAreFew holds that looking early does not mean looking often.
func TestAttemptsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &script{began: time.Now(), at: from(time.Hour), attempts: map[string]int{}}
		m := NewManager(p, func(Result) {})
		defer m.Close()
		m.Set(Target{UID: "uid", Container: "app", Started: p.began}, container(t, `readinessProbe: {httpGet: {path: r, port: 1}, periodSeconds: 10}`))
		time.Sleep(10*time.Minute - time.Second)
		synctest.Wait()
		if n := p.attempts["r"]; n < 60 || n > 72 {
			t.Errorf("%d attempts in 60 periods", n)
		}
	})
}

func TestManagerSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &script{began: time.Now(), at: from(0), attempts: map[string]int{}}
		var got []int
		m := NewManager(p, func(r Result) { got = append(got, r.Attempt) })
		defer m.Close()
		c := container(t, `readinessProbe: {httpGet: {path: r, port: 1}}`)
		target := Target{UID: "uid", Container: "app", Started: p.began}
		for range 3 { // the same again changes nothing
			m.Set(target, c)
			synctest.Wait()
		}
		if d := cmp.Diff([]int{0}, got); d != "" {
			t.Error(d)
		}
		target.Attempt = 1 // a restart begins anew
		m.Set(target, c)
		if s, _ := m.State("uid", "app"); s.Ready {
			t.Error("a container that was restarted is ready at once")
		}
		synctest.Wait()
		if d := cmp.Diff([]int{0, 1}, got); d != "" {
			t.Error(d)
		}
		m.Set(Target{UID: "other", Container: "app", Started: p.began}, c)
		if d := cmp.Diff([]string{"other", "uid"}, m.Pods()); d != "" {
			t.Error(d)
		}
		m.Remove("uid", "app")
		m.RemovePod("other")
		synctest.Wait()
		if _, ok := m.State("uid", "app"); ok || len(m.Pods()) > 0 {
			t.Error("what was removed is still known")
		}
		before := p.attempts["r"]
		time.Sleep(time.Hour)
		if after := p.attempts["r"]; after != before {
			t.Errorf("%d attempts after the end", after-before)
		}
	})
}

// TestClose holds that an attempt that is under way ends with the manager, unheard.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &script{began: time.Now(), at: from(time.Hour), takes: time.Hour, attempts: map[string]int{}}
		m := NewManager(p, func(r Result) { t.Errorf("told of %+v", r) })
		m.Set(Target{UID: "uid", Container: "app", Started: p.began}, container(t, `livenessProbe: {httpGet: {path: l, port: 1}, timeoutSeconds: 600, failureThreshold: 1}`))
		time.Sleep(time.Second)
		m.Close()
		if time.Since(p.began) != time.Second {
			t.Errorf("it took until %v", time.Since(p.began))
		}
		m.Set(Target{UID: "uid", Container: "app"}, container(t, `livenessProbe: {httpGet: {path: l, port: 1}}`))
		if len(m.Pods()) > 0 {
			t.Error("a closed manager took up probes")
		}
	})
}

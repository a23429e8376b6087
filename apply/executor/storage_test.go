package executor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

func (m *memory) MakeClaim(_ context.Context, dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.logs["claim "+dir] == "" {
		m.logs["claim "+dir] = "made"
	}
	return nil
}

func (m *memory) RemoveClaim(_ context.Context, dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.logs, "claim "+dir)
	return nil
}

// made reports whether the directory of a claim is there.
func (m *memory) made(dir string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.logs["claim "+dir] != ""
}

// claimed is a claim of the namespace ns that is a directory.
func claimed(name string, change ...func(*plan.Claim)) *plan.Storage {
	c := &plan.Claim{Volume: "pvc-" + name, Class: "directory", Modes: []string{"ReadWriteOnce"}, Request: 1, Capacity: 1,
		Reclaim: plan.Delete, Source: plan.Source{Directory: "ns/" + name}, Provisioned: true}
	for _, f := range change {
		f(c)
	}
	return &plan.Storage{Ref: plan.ClaimRef("ns", name), Application: "shop", Claim: c}
}

// mounting has a pod use a claim.
func mounting(claim string) func(*corev1.PodSpec) {
	return func(s *corev1.PodSpec) {
		s.Volumes = append(s.Volumes, corev1.Volume{Name: claim, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
		}})
	}
}

func (w *world) kept() []*plan.Storage {
	w.t.Helper()
	s, err := w.node.Observe(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return s.Storage
}

func TestClaimsAreKeptOverARestart(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(plan.SetStorage{Storage: claimed("b")})
		w.must(plan.SetStorage{Storage: claimed("a")})
		w.must(plan.SetStorage{Storage: claimed("a")})
		want := []*plan.Storage{claimed("a"), claimed("b")}
		if d := cmp.Diff(want, w.kept()); d != "" {
			t.Errorf("kept (-want +got):\n%s", d)
		}
		w.restart()
		if d := cmp.Diff(want, w.kept()); d != "" {
			t.Errorf("kept after a restart (-want +got):\n%s", d)
		}
	})
}

func TestAPodWaitsForItsClaim(t *testing.T) {
	inWorld(t, func(w *world) {
		done := make(chan error, 1)
		go func() { done <- w.do(plan.CreatePod{Pod: onePod("db", mounting("data"))}) }()
		sleep(time.Second)
		p := w.observe("db")
		if p.Phase != corev1.PodPending || p.Reason != "FailedMount" || p.Message == "" {
			t.Errorf("the pod is %s %s: %s", p.Phase, p.Reason, p.Message)
		}
		w.must(plan.SetStorage{Storage: claimed("data")})
		sleep(time.Second)
		w.expect("db", "Running ready=true [web running]")
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestOnlyOnePodHasAClaimForItself(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(plan.SetStorage{Storage: claimed("data", func(c *plan.Claim) { c.Modes = []string{"ReadWriteOncePod"} })})
		w.must(plan.CreatePod{Pod: onePod("first", mounting("data"))})
		sleep(time.Second)
		done := make(chan error, 1)
		go func() { done <- w.do(plan.CreatePod{Pod: onePod("second", mounting("data"))}) }()
		sleep(time.Minute)
		w.expect("first", "Running ready=true [web running]")
		if p := w.observe("second"); p.Phase != corev1.PodPending || p.Reason != "FailedMount" {
			t.Errorf("the second pod is %s", line(p))
		}
		w.must(plan.DeletePod{Pod: plan.PodKey{Namespace: "ns", Name: "first"}})
		sleep(5 * time.Minute)
		w.expect("second", "Running ready=true [web running]")
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestDeletingAClaim(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(plan.SetStorage{Storage: claimed("data")})
		w.must(plan.CreatePod{Pod: onePod("db", mounting("data"))})
		del := plan.DeleteStorage{Storage: plan.ClaimRef("ns", "data"), Application: "shop"}
		if err := w.do(del); !errors.Is(err, runtimes.ErrConflict) {
			t.Errorf("deleting a claim that is used: %v", err)
		}
		w.must(plan.DeleteStorage{Storage: del.Storage, Application: "other"}) // not its own: nothing happens
		w.must(plan.DeletePod{Pod: plan.PodKey{Namespace: "ns", Name: "db"}})
		if !w.volumes.made("ns/data") {
			t.Fatal("what the claim holds is gone before its time")
		}
		w.must(del)
		w.must(del)
		if w.volumes.made("ns/data") || len(w.kept()) > 0 {
			t.Errorf("after its deletion: %v, directory %t", w.kept(), w.volumes.made("ns/data"))
		}
	})
}

func TestWhatADeletedClaimHeldIsTakenAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		c := claimed("data", func(c *plan.Claim) { c.Reclaim = plan.Retain })
		w.must(plan.SetStorage{Storage: c})
		w.must(plan.DeleteStorage{Storage: c.Ref, Application: "shop", Keep: true})
		released := c.Left(true)
		if d := cmp.Diff([]*plan.Storage{released}, w.kept()); d != "" || !w.volumes.made("ns/data") {
			t.Errorf("after its deletion (-want +got):\n%s", d)
		}
		w.restart()
		w.must(plan.SetStorage{Storage: c})
		if d := cmp.Diff([]*plan.Storage{c}, w.kept()); d != "" {
			t.Errorf("taken again (-want +got):\n%s", d)
		}
	})
}

func TestAVolumeHasOneClaim(t *testing.T) {
	inWorld(t, func(w *world) {
		share := func(c *plan.Claim) { c.Volume, c.Provisioned, c.Source = "shared", false, plan.Source{Path: "/srv"} }
		w.must(plan.SetStorage{Storage: claimed("a", share)})
		if err := w.do(plan.SetStorage{Storage: claimed("b", share)}); !errors.Is(err, runtimes.ErrConflict) {
			t.Errorf("a second claim: %v", err)
		}
	})
}

func TestWhatCannotBeReadIsNotDeleted(t *testing.T) {
	inWorld(t, func(w *world) {
		w.must(plan.SetStorage{Storage: claimed("data")})
		w.close()
		at := filepath.Join(w.dir, "storage", "persistentvolumeclaim_ns_data.json")
		if err := os.WriteFile(at, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		w.open()
		if len(w.trouble) == 0 {
			t.Error("nothing is said of a file that cannot be read")
		}
		for _, a := range []plan.Args{plan.SetStorage{Storage: claimed("data")}, plan.DeleteStorage{Storage: plan.ClaimRef("ns", "data"), Application: "shop"}} {
			if err := w.do(a); err == nil {
				t.Errorf("%T succeeds", a)
			}
		}
		if !w.volumes.made("ns/data") {
			t.Error("what the claim holds is gone")
		}
	})
}

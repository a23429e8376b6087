package reconcile

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/render/object"
)

func TestTheIntentIsRecordedBeforeAnythingIsDone(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		checked := 0
		w.before = func(plan.Step) {
			checked++
			w.wantInventory("Deployment/web")
		}
		w.push("r1", deployment("web:1", 1))
		w.start(shop())
		if checked == 0 {
			t.Error("no step was taken")
		}
	})
}

func TestNothingIsDoneWhenTheIntentCannotBeRecorded(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.start(shop())
		// A file where the directory was: writing fails, for root too.
		dir := filepath.Join(w.dir, "applications")
		if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		w.push("r1", deployment("web:1", 1))
		if w.app.Status().Reason == "StateDamaged" {
			t.Skip("the record was not loaded before")
		}
		w.want("Failed StateNotWritten", "nothing was changed", "applications")
		w.wantPods()
		if err := errors.Join(os.Remove(dir), os.Mkdir(dir, 0o700)); err != nil {
			t.Fatal(err)
		}
		w.after(10 * time.Second)
		w.want("Healthy Applied")
		w.wantPods("web:1")
	})
}

// A small file system that is full.
func TestAFullDiskChangesNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
	inWorld(t, func(w *fakeWorld) {
		if err := syscall.Mount("tmpfs", w.dir, "tmpfs", 0, "size=64k"); err != nil {
			t.Skipf("mount: %v", err)
		}
		defer func() {
			w.stop()
			if err := syscall.Unmount(w.dir, 0); err != nil {
				t.Error(err)
			}
		}()
		w.push("r1", deployment("web:1", 1))
		w.start(shop())
		full, err := os.Create(filepath.Join(w.dir, "full"))
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = full.Write(make([]byte, 4096))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		full.Close()
		// More than the last page of a file has room for.
		w.push("r2", deployment("web:2", 1), plantest.ConfigMap("settings", strings.Repeat("a", 8192)))
		w.want("Failed StateNotWritten", "no space left on device", "nothing was changed")
		w.after(time.Minute)
		w.wantPods("web:1")
		w.wantInventory("Deployment/web")
		if err := os.Remove(full.Name()); err != nil {
			t.Fatal(err)
		}
		w.after(10 * time.Second)
		w.want("Healthy Applied")
		w.wantPods("web:2")
	})
}

func TestACrashBetweenIntentAndWalkIsContinued(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 2))
		w.start(shop())
		// The first pod of r2 is made, then the process ends.
		made := 0
		w.refuse = func(s plan.Step) error {
			if s.Op == plan.OpCreatePod {
				if made++; made == 1 {
					return nil
				}
			}
			return errDown
		}
		w.push("r2", deployment("web:2", 2), plantest.ConfigMap("settings", "a"))
		w.wantInventory("ConfigMap/settings", "Deployment/web")
		w.stop()
		w.refuse = nil
		w.start(shop())
		w.want("Healthy Applied")
		w.wantPods("web:2", "web:2")
		if r := w.record(); r.Revision != "r2" {
			t.Errorf("applied %s, want r2", r.Revision)
		}
	})
}

func TestADamagedRecordStopsTheApplicationUntilItIsMended(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", deployment("web:1", 1))
		w.start(shop())
		w.stop()
		good, err := os.ReadFile(w.recordFile())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(w.recordFile(), good[:len(good)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		w.push("r2", plantest.ConfigMap("settings", "a"))
		w.start(shop())
		w.want("Failed StateDamaged", w.recordFile(), "until the file is mended or removed")
		w.after(10 * time.Minute)
		w.wantPods("web:1")
		if err := os.WriteFile(w.recordFile(), good, 0o600); err != nil {
			t.Fatal(err)
		}
		w.after(time.Minute)
		w.want("Healthy Applied")
		w.wantPods()
	})
}

func job(image string) object.Object {
	return plantestJob(&batchv1.Job{
		TypeMeta: metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "migrate"},
		Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "main", Image: image, ImagePullPolicy: corev1.PullIfNotPresent}},
		}}},
	})
}

func plantestJob(j *batchv1.Job) object.Object {
	o := plantest.Object(object.Ref{Group: "batch", Kind: "Job", Namespace: j.Namespace, Name: j.Name}, "batch/v1", j)
	o.Value = j
	return o
}

func TestAJobThatEndedIsRememberedAndNotRunAgain(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", job("migrate:1"))
		w.start(shop())
		w.wantPods("migrate:1")
		w.change(func() {
			p := &w.pods[0]
			p.Ready, p.Phase, p.Finished = false, corev1.PodSucceeded, time.Now()
			p.Containers[0].State, p.Containers[0].FinishedAt = plan.Terminated, time.Now()
		})
		w.after(time.Second)
		w.want("Healthy Applied")
		r := w.record()
		if len(r.Inventory) != 1 || r.Inventory[0].Finished.IsZero() || !r.Inventory[0].Succeeded {
			b, _ := json.Marshal(r)
			t.Fatalf("not recorded as finished: %s", b)
		}
		finished := r.Inventory[0].Finished
		walks := len(w.walks)
		// Its pods go, the daemon restarts, and a change in place leaves it finished.
		w.change(func() { w.pods = nil })
		w.restart()
		w.push("r2", job("migrate:1"), plantest.ConfigMap("settings", "a"))
		changed := job("migrate:1")
		j := changed.Value.(*batchv1.Job).DeepCopy()
		j.Labels = map[string]string{"team": "a"}
		w.push("r3", plantestJob(j), plantest.ConfigMap("settings", "a"))
		w.want("Healthy Applied")
		for _, s := range w.walks[walks:] {
			if strings.Contains(s, "create-pod") {
				t.Errorf("the Job runs again:\n%s", s)
			}
		}
		for _, o := range w.record().Inventory {
			if o.Kind == "Job" && !o.Finished.Equal(finished) {
				t.Errorf("finished %v, was %v", o.Finished, finished)
			}
		}
	})
}

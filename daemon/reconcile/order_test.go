package reconcile

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/render/object"
)

// inWave is a Deployment of one pod, called as its image is without the tag.
func inWave(image, wave string) object.Object {
	name, _, _ := strings.Cut(image, ":")
	return plantest.Deployment(name, image, 1, func(d *appsv1.Deployment) {
		d.Annotations = map[string]string{"argocd.argoproj.io/sync-wave": wave}
	})
}

// hook is a Job that runs as a hook, and may not fail.
func hook(name, phases string) object.Object {
	one, none := int32(1), int32(0)
	t := plantest.Template("hook:" + name)
	t.Spec.RestartPolicy = corev1.RestartPolicyNever
	return plantest.Object(object.Ref{Group: "batch", Kind: "Job", Namespace: "shop", Name: name}, "batch/v1", &batchv1.Job{
		TypeMeta:   metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Annotations: map[string]string{"argocd.argoproj.io/hook": phases}},
		Spec:       batchv1.JobSpec{Parallelism: &one, Completions: &one, BackoffLimit: &none, Template: t},
	})
}

// ends ends the pods of an image.
func (w *fakeWorld) ends(image string, phase corev1.PodPhase, log ...string) {
	w.t.Helper()
	w.change(func() {
		w.pods = slices.Clone(w.pods)
		found := false
		for i := range w.pods {
			if p := &w.pods[i]; p.Spec.Containers[0].Image == image && p.Phase == corev1.PodRunning {
				p.Phase, p.Ready, p.Finished, p.LogTail, found = phase, false, time.Now(), log, true
			}
		}
		if !found {
			w.t.Errorf("no pod of %s runs", image)
		}
	})
}

// made counts the pods that were made of a name.
func (w *fakeWorld) made(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, s := range w.steps {
		if strings.HasPrefix(s, "create-pod "+name+"-") {
			n++
		}
	}
	return n
}

func TestAWaveBeginsWhenTheOneBeforeIsHealthy(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.unready["db:1"] = true
		w.push("r1", inWave("db:1", "-1"), inWave("web:1", "0"))
		w.start(shop())
		w.after(time.Minute)
		w.want("Progressing WaitsForStage", "wave 0 begins when Deployment shop/db is healthy")
		w.wantPods("db:1 unready")
		w.wantInventory("Deployment/db") // what has not begun is not recorded as applied
		w.restart()
		w.wantPods("db:1 unready")
		w.change(func() { w.pods[0].Ready, w.pods[0].ReadySince, w.unready["db:1"] = true, time.Now(), false })
		w.want("Healthy Applied")
		w.wantPods("db:1", "web:1")
		w.wantInventory("Deployment/db", "Deployment/web")
		// One that breaks for good says so, and what comes after it waits.
		w.unready["db:2"] = true
		w.push("r2", inWave("db:2", "-1"), inWave("web:2", "0"))
		w.after(20 * time.Minute)
		w.want("Failed RevisionFailed", "shop/db")
		w.wantPods("db:1", "db:2 unready", "web:1")
		// A lost pod of what waits comes back as it was.
		w.change(func() {
			w.pods = slices.DeleteFunc(slices.Clone(w.pods), func(p plan.ObservedPod) bool { return p.Owner.Name == "web" })
		})
		w.after(time.Minute)
		w.wantPods("db:1", "db:2 unready", "web:1")
		w.push("r3", inWave("db:1", "-1"), inWave("web:2", "0"))
		w.want("Healthy Applied")
		w.wantPods("db:1", "web:2")
	})
}

func TestWhoAsksForAManualApplicationAsksForAllOfItsWaves(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		c := shop()
		c.Manual = true
		w.push("r1", inWave("db:1", "-1"), inWave("web:1", "0"), inWave("top:1", "1"))
		w.start(c)
		w.want("Progressing OutOfSync")
		w.app.Apply()
		synctest.Wait()
		w.want("Healthy Applied")
		w.wantPods("db:1", "top:1", "web:1")
		w.push("r2", inWave("db:2", "-1"), inWave("web:2", "0"), inWave("top:2", "1"))
		w.want("Progressing OutOfSync")
		w.wantPods("db:1", "top:1", "web:1")
	})
}

func TestAHookRunsOnceInASync(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", hook("migrate", "PreSync"), deployment("web:1", 1), hook("smoke", "PostSync"))
		w.start(shop())
		w.want("Progressing WaitsForStage", "wave 0 begins when Job shop/migrate is healthy")
		w.restart()
		w.after(time.Hour)
		w.wantPods("hook:migrate")
		w.ends("hook:migrate", corev1.PodSucceeded)
		w.wantPods("hook:migrate unready", "hook:smoke", "web:1")
		w.restart()
		w.ends("hook:smoke", corev1.PodSucceeded)
		w.want("Healthy Applied")
		w.change(func() {
			w.pods = slices.DeleteFunc(slices.Clone(w.pods), func(p plan.ObservedPod) bool { return p.Owner.Kind == "Job" })
		})
		w.restart()
		w.push("r2", hook("migrate", "PreSync"), deployment("web:1", 1), hook("smoke", "PostSync"))
		w.want("Healthy Applied")
		w.change(func() { w.pods = nil }) // drift is no sync
		w.want("Healthy Applied")
		if a, b := w.made("migrate"), w.made("smoke"); a != 1 || b != 1 {
			t.Errorf("the hooks ran %d and %d times", a, b)
		}
		w.push("r3", hook("migrate", "PreSync"), deployment("web:2", 1), hook("smoke", "PostSync"))
		w.wantPods("hook:migrate", "web:1")
		if r := w.record(); r.Sync == nil || r.Sync.Revision != "r3" || !r.Sync.Ended.IsZero() {
			t.Errorf("the sync is recorded as %+v", r.Sync)
		}
	})
}

func TestASyncThatFailedIsNotTriedAgainUnlessAskedFor(t *testing.T) {
	inWorld(t, func(w *fakeWorld) {
		w.push("r1", hook("migrate", "PreSync"), deployment("web:1", 1), hook("tell", "SyncFail"))
		w.start(shop())
		w.ends("hook:migrate", corev1.PodFailed, "no such table")
		w.want("Degraded SyncFailed", "PreSync hook Job shop/migrate failed: BackoffLimitExceeded", "no such table")
		w.wantPods("hook:migrate unready", "hook:tell")
		w.ends("hook:tell", corev1.PodSucceeded)
		w.want("Failed RevisionFailed", "SyncFailed", "PreSync hook Job shop/migrate failed: BackoffLimitExceeded", "no such table")
		w.quiet(func() { w.poke() })
		w.restart()
		w.want("Failed RevisionFailed", "no such table")
		if a, b := w.made("migrate"), w.made("tell"); a != 1 || b != 1 {
			t.Errorf("the hooks ran %d and %d times", a, b)
		}
		w.app.Apply()
		synctest.Wait()
		w.want("Progressing WaitsForStage")
		w.ends("hook:migrate", corev1.PodSucceeded)
		w.want("Healthy Applied")
		w.wantPods("hook:migrate unready", "hook:tell unready", "web:1")
		// So does another change, which stops what runs of the sync that failed.
		w.push("r2", hook("migrate", "PreSync"), deployment("web:2", 1), hook("tell", "SyncFail"))
		w.ends("hook:migrate", corev1.PodFailed)
		w.want("Degraded SyncFailed")
		w.push("r3", hook("migrate", "PreSync"), deployment("web:3", 1), hook("tell", "SyncFail"))
		w.want("Progressing WaitsForStage")
		w.wantPods("hook:migrate", "web:1")
		// And a declaration that moves.
		w.ends("hook:migrate", corev1.PodFailed)
		w.ends("hook:tell", corev1.PodSucceeded)
		w.want("Failed RevisionFailed")
		c := shop()
		c.Timeout = time.Hour
		w.app.Configure(c)
		synctest.Wait()
		w.want("Progressing WaitsForStage")
	})
}

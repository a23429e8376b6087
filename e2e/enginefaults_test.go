package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// faultManifests are two web pods, and a job. Every start of a container adds a line to a file in dir.
func faultManifests(image, dir, greeting string, replicas int) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: %[4]d
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      volumes: [{name: starts, hostPath: {path: %[2]q}}]
      containers:
        - name: web
          image: %[1]s
          imagePullPolicy: Never
          args: [append, /starts/web, "%[3]s\n", --, http, ':8080']
          env: [{name: GREETING, value: %[3]s}]
          volumeMounts: [{name: starts, mountPath: /starts}]
          readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  template:
    spec:
      restartPolicy: Never
      volumes: [{name: starts, hostPath: {path: %[2]q}}]
      containers:
        - name: once
          image: %[1]s
          imagePullPolicy: Never
          args: [append, /starts/once, "done\n"]
          volumeMounts: [{name: starts, mountPath: /starts}]
`, image, dir, greeting, replicas)
}

// starts counts the lines that containers wrote.
func starts(t *testing.T, dir, name, line string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), line+"\n")
}

// TestEngineFaults does to an engine what happens to engines, while pods run on it: nothing may be lost, and
// nothing may run twice.
func TestEngineFaults(t *testing.T) {
	e := startOwnEngine(t, 512<<20, "--live-restore")
	dir := t.TempDir()
	image := runtimetest.Image(t)
	h := runOn(t, e, faultManifests(image, dir, "hello", 2))
	h.awaitPods(2, 1)
	if n := starts(t, dir, "web", "hello"); n != 2 {
		t.Fatalf("the web containers were started %d times, not twice", n)
	}
	node := []string{"status"}

	// An engine that hangs in the middle of a rollout is reported, and the rollout goes on when it answers.
	h.write(faultManifests(image, dir, "good-day", 3))
	h.until("the rollout begins", func() error {
		b, err := os.ReadFile(filepath.Join(dir, "web"))
		if err == nil && !strings.Contains(string(b), "good-day\n") {
			err = fmt.Errorf("no new container was started: %q", b)
		}
		return err
	})
	if err := e.signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	h.await(node, "NotReady", "did not answer")
	if err := e.signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	h.awaitPods(3, 1)
	h.await(node, " Ready ")
	h.await([]string{"plan"}, "No changes.")
	if n := starts(t, dir, "web", "good-day"); n != 3 {
		t.Errorf("the new containers were started %d times, not 3 times", n)
	}

	// With live-restore containers outlive the engine: nothing is started again.
	before, err := h.pods()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.stop(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.await(node, "NotReady")
	if err := e.start("--live-restore"); err != nil {
		t.Fatal(err)
	}
	h.await(node, " Ready ")
	h.awaitPods(3, 1)
	h.await([]string{"plan"}, "No changes.")
	if n := starts(t, dir, "web", "good-day"); n != 3 {
		t.Errorf("after the engine was killed, with live-restore, the containers have been started %d times, not 3 times", n)
	}
	samePods(t, h, before)

	// Without it they end with the engine, and every pod is started again once, as the same pod.
	if err := e.stop(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.await(node, "NotReady")
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	h.await(node, " Ready ")
	h.awaitPods(3, 1)
	h.await([]string{"plan"}, "No changes.")
	if n := starts(t, dir, "web", "good-day"); n != 6 {
		t.Errorf("after the engine was killed, without live-restore, the containers have been started %d times, not 6 times", n)
	}
	samePods(t, h, before)
	if n := starts(t, dir, "once", "done"); n != 1 {
		t.Errorf("the job ran %d times", n)
	}
}

// samePods fails the test unless the pods are those that were there before.
func samePods(t *testing.T, h *ownHost, before []shownPod) {
	t.Helper()
	after, err := h.pods()
	if err != nil {
		t.Fatal(err)
	}
	uids := map[string]string{}
	for _, p := range before {
		uids[p.Metadata.Name] = p.Metadata.UID
	}
	for _, p := range after {
		if uids[p.Metadata.Name] != p.Metadata.UID {
			t.Errorf("the pod %s is another one than before", p.Metadata.Name)
		}
	}
}

// TestFullDisk fills the disk of an engine: the pods that cannot be made say so, they are tried again, and
// come when there is space.
func TestFullDisk(t *testing.T) {
	e := startOwnEngine(t, 256<<20)
	dir := t.TempDir()
	image := runtimetest.Image(t)
	h := runOn(t, e, faultManifests(image, dir, "hello", 1))
	h.awaitPods(1, 1)
	filler := filepath.Join(e.data, "filler")
	if err := fill(filler); err != nil {
		t.Fatal(err)
	}
	h.write(faultManifests(image, dir, "hello", 2))
	h.until("a pod says what is wrong", func() error {
		pods, err := h.pods()
		if err != nil {
			return err
		}
		shown := ""
		for _, p := range pods {
			out, err := h.fairlead("describe", "pod", p.Metadata.Name)
			if err == nil && strings.Contains(out, "no space left on device") {
				return nil
			}
			shown += out
		}
		return fmt.Errorf("none of %d pods does:\n%s", len(pods), shown)
	})
	h.await([]string{"events", "--types", "Warning"}, "no space left on device")
	if n := starts(t, dir, "web", "hello"); n != 1 {
		t.Errorf("on the full disk the containers have been started %d times, not once", n)
	}
	if err := h.exactlyOnce(1); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	h.awaitPods(2, 1)
	h.await([]string{"plan"}, "No changes.")
	if web, once := starts(t, dir, "web", "hello"), starts(t, dir, "once", "done"); web != 2 || once != 1 {
		t.Errorf("the web containers were started %d times and the job ran %d times, not twice and once", web, once)
	}
}

// TestFullDiskAtFirst begins with a disk that is full before anything of the installation is there: neither the
// network of the pods nor the image of their sandboxes can be made.
func TestFullDiskAtFirst(t *testing.T) {
	e := startOwnEngine(t, 256<<20)
	dir := t.TempDir()
	image := runtimetest.Image(t)
	filler := filepath.Join(e.data, "filler")
	if err := fill(filler); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(filler) }) // gone, unless the test failed
	h := runOn(t, e, faultManifests(image, dir, "hello", 1))
	h.await([]string{"get", "pods", "--no-headers"}, "0/1")
	h.await([]string{"events", "--types", "Warning"}, "FailedCreatePodSandBox")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	h.awaitPods(1, 1)
	h.await([]string{"plan"}, "No changes.")
	if web, once := starts(t, dir, "web", "hello"), starts(t, dir, "once", "done"); web != 1 || once != 1 {
		t.Errorf("the web container was started %d times and the job ran %d times, not once each", web, once)
	}
}

// fill writes a file until the disk is full.
func fill(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for len(block) > 0 {
		if _, err = f.Write(block); err != nil {
			block = block[:len(block)/2] // the last pages too
		}
	}
	if !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
		return fmt.Errorf("fill the disk: %w", err)
	}
	return nil
}

// TestOrphan has an engine come back that does not know any more that a container of its runs, as Docker 20.10 does when it dies while
// it starts one: the container is replaced, and its processes end.
func TestOrphan(t *testing.T) {
	e := startOwnEngine(t, 512<<20, "--live-restore")
	dir := t.TempDir()
	h := runOn(t, e, faultManifests(runtimetest.Image(t), dir, "hello", 1))
	h.awaitPods(1, 1)
	web, err := e.find(t.Context(), h.installation, "_web_")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.stop(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e.forgets(t, web.ID)
	if err := e.start("--live-restore"); err != nil {
		t.Fatal(err)
	}
	h.until("the container is replaced", func() error {
		if n := starts(t, dir, "web", "hello"); n < 2 {
			return fmt.Errorf("it was started %d times", n)
		}
		return nil
	})
	h.awaitPods(1, 1)
	if left := processesOf(t, web.ID); len(left) > 0 {
		t.Errorf("what the engine has forgotten still runs: %v", left)
	}
	if n := starts(t, dir, "web", "hello"); n != 2 {
		t.Errorf("it was started %d times", n) // the port was taken
	}
	h.await([]string{"events"}, "ForgottenByEngine")
	h.await([]string{"plan"}, "No changes.")
}

// forgets has an engine that does not run believe that it never started a container.
func (e *ownEngine) forgets(t *testing.T, id string) {
	t.Helper()
	file := filepath.Join(e.data, "containers", id, "config.v2.json")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(b, &config); err != nil {
		t.Fatal(err)
	}
	state, ok := config["State"].(map[string]any)
	if !ok || state["Running"] != true {
		t.Fatalf("the container's state is %v", config["State"])
	}
	const never = "0001-01-01T00:00:00Z"
	state["Running"], state["Pid"], state["StartedAt"], state["FinishedAt"] = false, 0, never, never
	if b, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// processesOf returns the processes in the cgroups of a container.
func processesOf(t *testing.T, id string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(files, func(file string) bool {
		b, err := os.ReadFile(file)
		return err != nil || !strings.Contains(string(b), id)
	})
}

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// disks are those that fairlead writes to, each a file system of its own.
var disks = []string{"state", "state/volumes", "state/sources"}

// diskManifests are two web pods with volumes that roll, a job, and a Service.
func diskManifests(image, word string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {word: %[2]s, more: "%[3]s"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      volumes: [{name: settings, configMap: {name: settings}}, {name: scratch, emptyDir: {}}]
      containers:
        - name: web
          image: %[1]s
          imagePullPolicy: Never
          args: [http, ':8080']
          env: [{name: WORD, value: %[2]s}]
          volumeMounts: [{name: settings, mountPath: /settings}, {name: scratch, mountPath: /scratch}]
---
apiVersion: v1
kind: Service
metadata: {name: web-%[2]s}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: job-%[2]s}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: job, image: %[1]s, imagePullPolicy: Never, args: [print, done]}]
`, image, word, strings.Repeat(word, 2000))
}

// diskHost is an installation whose directories are on disks that can be filled.
type diskHost struct {
	*committedHost
	image string
}

func newDiskHost(t *testing.T) *diskHost {
	t.Helper()
	e := startOwnEngine(t, 1<<30, "--storage-driver", "overlay2")
	h := &diskHost{image: runtimetest.Image(t)}
	h.committedHost = commitTo(t, e, "defaults: {interval: 500ms, retryInterval: 1s, pruneLimit: {maxShare: 100}}\n")
	for _, disk := range disks {
		dir := filepath.Join(h.dir, disk)
		if err := errors.Join(os.MkdirAll(dir, 0o700), syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size=16m")); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { h.unmount(t) })
	h.commit()
	h.upFrom("run")
	h.settle("at first")
	return h
}

// commit makes the next revision.
func (h *diskHost) commit() {
	h.t.Helper()
	h.committedHost.commit(func(word string) string { return diskManifests(h.image, word) })
}

// unmount takes the daemon and what it runs down, and the disks away: a directory that is a disk cannot be removed.
func (h *diskHost) unmount(t *testing.T) {
	err := h.endDaemon(syscall.SIGTERM)
	down := exec.Command("nsenter", "--net="+h.netns, h.program, "down", "--yes")
	down.Env, down.Dir = h.env, h.dir
	out, e := down.CombinedOutput()
	if e != nil && !strings.Contains(string(out), "device or resource busy") {
		err = errors.Join(err, fmt.Errorf("%w\n%s", e, out))
	}
	for i := len(disks) - 1; i >= 0; i-- {
		if e := syscall.Unmount(filepath.Join(h.dir, disks[i]), 0); !errors.Is(e, syscall.EINVAL) && !errors.Is(e, syscall.ENOENT) { // down has unmounted or removed it
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		t.Error(err)
	}
}

// done returns an error until the newest revision runs.
func (h *diskHost) done() error {
	out, err := h.fairlead("get", "pods", "-o", "json")
	if err == nil && !strings.Contains(out, "job-"+h.word()) {
		err = errors.New("the newest revision does not run")
	}
	if err != nil {
		return err
	}
	var list struct {
		Items []shownPod
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return err
	}
	if len(list.Items) != 3 {
		return fmt.Errorf("there are %d pods, not 3", len(list.Items))
	}
	if out, err = h.fairlead("plan"); err == nil && !strings.Contains(out, "No changes.") {
		err = fmt.Errorf("there is something to do:\n%s", out)
	}
	return err
}

// settle waits until the newest revision runs, every container of it once.
func (h *diskHost) settle(what string) {
	h.t.Helper()
	h.until(what+": the newest revision runs", func() error {
		return errors.Join(h.done(), h.exactlyOnce(2))
	})
	out, err := h.fairlead("get", "applications")
	if err != nil || !strings.Contains(out, "Healthy") {
		h.t.Errorf("%s: %v\n%s", what, err, out)
	}
}

// fillBut fills a disk but for so many blocks of 4096 bytes, and returns what makes room again.
func (h *diskHost) fillBut(disk string, blocks uint64) (empty func()) {
	h.t.Helper()
	dir := filepath.Join(h.dir, disk)
	filler := filepath.Join(dir, "filler")
	var st unix.Statfs_t
	err := unix.Statfs(dir, &st)
	if err == nil && st.Bavail > blocks {
		err = os.WriteFile(filler, make([]byte, (st.Bavail-blocks)*uint64(st.Bsize)), 0o600)
	}
	if err == nil {
		err = unix.Statfs(dir, &st)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	if st.Bavail != blocks {
		h.t.Logf("%d blocks are left on %s, not %d: the daemon wrote meanwhile", st.Bavail, disk, blocks)
	}
	return func() {
		if err := os.Remove(filler); err != nil {
			h.t.Fatal(err)
		}
	}
}

// TestFullDiskAtEveryWrite lets the space of a disk end after each number of blocks while a revision is fetched and
// carried out: it is said that there is none, nothing is lost and nothing is doubled, and when there is room again
// everything is finished.
//
// Without -torture it does so at one place of each disk.
func TestFullDiskAtEveryWrite(t *testing.T) {
	h := newDiskHost(t)
	for i, disk := range disks {
		if !*torture {
			h.squeeze(disk, uint64(i%2))
			continue
		}
		for blocks := uint64(0); h.squeeze(disk, blocks); blocks++ {
			if blocks > 1000 {
				t.Fatalf("with %d blocks on %s it is still told that there is no space", blocks, disk)
			}
		}
	}
}

// squeeze carries a revision out with so many blocks, and then with room again. It returns whether it was said that
// there was no space.
func (h *diskHost) squeeze(disk string, blocks uint64) (told bool) {
	h.t.Helper()
	what := fmt.Sprintf("%d blocks on %s", blocks, disk)
	empty := h.fillBut(disk, blocks)
	h.commit()
	h.until(what+": it is told that there is no space, or everything is done", func() error {
		pods, err := h.fairlead("get", "pods", "-o", "json")
		if err == nil && strings.Contains(h.logged(h.since)+pods, "no space left on device") {
			told = true
			return nil
		}
		return h.done()
	})
	if told {
		h.until(what+": a condition says so", func() error {
			var shown strings.Builder
			for _, args := range [][]string{{"get", "applications", "-o", "wide"}, {"get", "sources"}, {"get", "pods", "-o", "json"}, {"events", "--types", "Warning"}} {
				out, err := h.fairlead(args...)
				if err != nil {
					return err
				}
				if strings.Contains(out, "no space left on device") {
					return nil
				}
				shown.WriteString(out)
			}
			return fmt.Errorf("nothing of this does:\n%s", &shown)
		})
		time.Sleep(500 * time.Millisecond) // the daemon tries again meanwhile
		if err := h.noneTwice(); err != nil {
			h.t.Errorf("%s: %v", what, err)
		}
	}
	empty()
	h.settle(what + ", and room again")
	h.t.Logf("%s: told %v", what, told)
	return told
}

// noneTwice returns an error where a container of a pod runs twice, or fewer web pods run than the rollout allows.
func (h *diskHost) noneTwice() error {
	all, err := h.containers(h.t.Context(), h.installation)
	if err != nil {
		return err
	}
	running, web := map[string]int{}, 0
	for _, c := range all {
		if c.State != "running" {
			continue
		}
		key := c.Labels["dev.fairlead.uid"] + " " + c.Labels["dev.fairlead.container"]
		if running[key]++; running[key] > 1 {
			err = errors.Join(err, fmt.Errorf("%s runs twice", c.Names[0]))
		}
		if c.Labels["dev.fairlead.container"] == "web" {
			web++
		}
	}
	if web < 2 {
		err = errors.Join(err, fmt.Errorf("%d web containers run, not at least 2", web))
	}
	return err
}

package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/fairlead-dev/fairlead/e2e/engineproxy"
	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// safeHost is an installation whose calls to the engine are seen.
type safeHost struct {
	*ownHost
	proxy *engineproxy.Proxy
	image string
}

// derive makes an image of the test program with other files in /etc and other settings, as lines of a Dockerfile. It
// goes with its engine.
func (h *safeHost) derive(name string, files map[string]string, changes ...string) string {
	h.t.Helper()
	ctx := h.t.Context()
	var etc bytes.Buffer
	w := tar.NewWriter(&etc)
	for file, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: file, Mode: 0o644, Size: int64(len(text))}); err != nil {
			h.t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			h.t.Fatal(err)
		}
	}
	c, err := h.ContainerCreate(ctx, &container.Config{Image: h.image}, nil, nil, nil, "")
	if err == nil {
		err = errors.Join(w.Close(), h.CopyToContainer(ctx, c.ID, "/etc", &etc, container.CopyToContainerOptions{}))
	}
	ref := "fairlead-test/" + name + ":1"
	if err == nil {
		_, err = h.ContainerCommit(ctx, c.ID, container.CommitOptions{Reference: ref, Changes: changes})
	}
	if err = errors.Join(err, h.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true})); err != nil {
		h.t.Fatalf("make the image %s: %v", name, err)
	}
	return ref
}

// main finds the container main of a pod, which may not be there.
func (h *safeHost) main(pod string) (container.Summary, bool) {
	h.t.Helper()
	all, err := h.containers(h.t.Context(), h.installation)
	if err != nil {
		h.t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(c container.Summary) bool {
		return strings.HasPrefix(c.Names[0], "/"+h.installation+"_default_"+pod+"_main_")
	})
	if i < 0 {
		return container.Summary{}, false
	}
	return all[i], true
}

// ids are the user ids of the first process of a container, as the kernel has them.
func (h *safeHost) ids(id string) []string {
	h.t.Helper()
	c, err := h.ContainerInspect(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.State.Pid))
	if err != nil {
		h.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if ids, ok := strings.CutPrefix(line, "Uid:"); ok {
			return strings.Fields(ids)
		}
	}
	h.t.Fatal("the kernel says no user")
	return nil
}

// nonRoot are images by the user that they say, and what must come of them where a pod has runAsNonRoot.
var nonRoot = []struct {
	name, user, passwd string
	runAs              string // runAsUser of the pod
	refused            string // part of the reason; empty where it runs
}{
	{name: "nothing", user: "", refused: "image will run as root"},
	{name: "zero", user: "0", refused: "image will run as root"},
	{name: "zero-zero", user: "0:0", refused: "image will run as root"},
	{name: "zeros", user: "000", refused: "image will run as root"},
	{name: "plus", user: "+0", refused: "image will run as root"},
	{name: "root", user: "root", refused: "cannot verify user is non-root"},
	{name: "hexadecimal", user: "0x0", refused: "cannot verify user is non-root"},
	{name: "name-of-root", user: "app", passwd: "app:x:0:0::/:/none\n", refused: "cannot verify user is non-root"},
	{name: "name", user: "app", passwd: "app:x:1000:1000::/:/none\n", refused: "cannot verify user is non-root"},
	{name: "beyond-32-bits", user: "4294967296", refused: "invalid user id"},
	{name: "beyond-31-bits", user: "2147483648", refused: "invalid user id"},
	{name: "beyond-64-bits", user: "18446744073709551616", refused: "cannot verify user is non-root"},
	{name: "negative", user: "-1", refused: "invalid user id"},
	{name: "good", user: "1000"},
	{name: "good-with-group-0", user: "1000:0"},
	{name: "large", user: "65536000"},
	{name: "number-named-root", user: "1000", passwd: "1000:x:0:0::/:/none\n"},
	{name: "asked-number-named-root", user: "", passwd: "1000:x:0:0::/:/none\n", runAs: "1000"},
	{name: "asked-over-root", user: "root", passwd: "root:x:0:0::/:/none\n", runAs: "1000"},
}

// TestContainerSafety holds what a container cannot get by its image, on the real engine.
func TestContainerSafety(t *testing.T) {
	longFormOnly(t)
	e := startOwnEngine(t, 1<<30, "--storage-driver", "overlay2")
	h := &safeHost{ownHost: hostOn(t, e, ""), image: runtimetest.Image(t)}
	h.patience = 5 * time.Minute
	var err error
	if h.proxy, err = engineproxy.New(filepath.Join(e.dir, "proxy.sock"), strings.TrimPrefix(e.host, "unix://")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(h.endDaemon(syscall.SIGTERM), h.proxy.Close()); err != nil {
			t.Error(err)
		}
	})
	h.behind = h.proxy.Host()
	var manifests strings.Builder
	for _, c := range nonRoot {
		image := h.derive(c.name, map[string]string{"passwd": c.passwd}, "USER "+c.user)
		if c.user == "" {
			image = h.derive(c.name, map[string]string{"passwd": c.passwd})
		}
		context := "runAsNonRoot: true"
		if c.runAs != "" {
			context += ", runAsUser: " + c.runAs
		}
		fmt.Fprintf(&manifests, `apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: safe}}
spec:
  terminationGracePeriodSeconds: 2
  securityContext: {%s}
  containers: [{name: main, image: %q, imagePullPolicy: Never, args: [wait]}]
---
`, c.name, context, image)
	}
	h.write(manifests.String())
	h.up(h.app)

	t.Run("T-E2", func(t *testing.T) { h.provesNonRoot(t) })
	t.Run("T-E3", func(t *testing.T) { h.trustsNoLabels(t, manifests.String()) })
	t.Run("T-E4", func(t *testing.T) {
		for _, args := range [][]string{{"logs", "good"}, {"exec", "good", "--", runtimetest.ProgramPath, "id"}, {"describe", "pod", "good"}} {
			if out, err := h.fairlead(args...); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		}
		calls := h.proxy.Calls()
		for _, c := range calls {
			if c.Archive() {
				t.Errorf("the archive API was called: %s", c.Path)
			}
		}
		if len(calls) < 100 {
			t.Errorf("the proxy saw only %d calls", len(calls))
		}
	})
}

// provesNonRoot holds that runAsNonRoot cannot be evaded by what an image calls its user (containerd CVE-2024-40635,
// CVE-2023-25173, Moby CVE-2022-36109): a container that would be root is never made, and of the others no id of the first
// process is 0.
func (h *safeHost) provesNonRoot(t *testing.T) {
	for _, c := range nonRoot {
		h.until(c.name+" runs or is refused", func() error {
			if c.refused == "" {
				if m, ok := h.main(c.name); !ok || m.State != "running" {
					return errors.New("it does not run")
				}
				return nil
			}
			out, err := h.fairlead("describe", "pod", c.name)
			if err == nil && !strings.Contains(out, c.refused) {
				err = fmt.Errorf("no %q in:\n%s", c.refused, out)
			}
			return err
		})
		m, ok := h.main(c.name)
		if c.refused != "" && ok {
			t.Errorf("%s: a container was made: %s", c.name, m.Status)
		}
		if c.refused == "" && slices.Contains(h.ids(m.ID), "0") {
			t.Errorf("%s: the ids of its first process are %v", c.name, h.ids(m.ID))
		}
	}
}

// trustsNoLabels makes an image with the labels of a container of ours, its MAC too, and runs it as docker run does: it is
// no pod of ours, and stays when everything of ours goes (as in containerd CVE-2026-53488). A pod from that image is ours.
func (h *safeHost) trustsNoLabels(t *testing.T, manifests string) {
	ctx := t.Context()
	original, ok := h.main("good")
	if !ok {
		t.Fatal("there is nothing to forge")
	}
	var labels []string
	for k, v := range original.Labels {
		labels = append(labels, fmt.Sprintf("LABEL %s='%s'", k, v))
	}
	labels = append(labels, "LABEL dev.fairlead.ip='192.0.2.1'", "LABEL exitCode='0'")
	forged := h.derive("forged", nil, labels...)
	stranger, err := h.ContainerCreate(ctx, &container.Config{Image: forged, Cmd: []string{"wait"}}, &container.HostConfig{NetworkMode: "none"}, nil, nil, "")
	if err == nil {
		err = h.ContainerStart(ctx, stranger.ID, container.StartOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.ContainerRemove(context.Background(), stranger.ID, container.RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	})
	h.write(manifests + fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: labelled, labels: {app: safe}}
spec:
  terminationGracePeriodSeconds: 2
  containers: [{name: main, image: %[1]q, imagePullPolicy: Never, args: [wait]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: fails}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: main, image: %[1]q, imagePullPolicy: Never, args: [exit, '3']}]
`, forged))
	h.await([]string{"get", "pods", "labelled"}, "Running")
	h.until("the Job has failed, whatever the image says", func() error {
		out, err := h.fairlead("get", "pods", "--no-headers")
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, "fails-") && strings.Contains(line, "Error") {
				return nil
			}
		}
		return errors.Join(err, fmt.Errorf("no pod of it has:\n%s", out))
	})
	pods, err := h.pods()
	if err != nil {
		t.Fatal(err)
	}
	if len(pods) != len(nonRoot)+2 {
		t.Errorf("there are %d pods, not %d", len(pods), len(nonRoot)+2)
	}
	before, _ := h.main("labelled")
	if err := h.endDaemon(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.up(h.app)
	h.await([]string{"get", "pods", "labelled"}, "Running")
	h.await([]string{"status"}, "Ready")
	if again, err := h.pods(); err != nil || len(again) != len(pods) {
		t.Errorf("after a restart there are %d pods, %v", len(again), err)
	}
	if now, _ := h.main("labelled"); now.ID != before.ID || now.State != "running" {
		t.Errorf("the next daemon does not know the container of a labelled image: it is %s %s, was %s", now.ID, now.State, before.ID)
	}
	if c, err := h.ContainerInspect(ctx, stranger.ID); err != nil || !c.State.Running {
		t.Errorf("the container of others is gone or ended: %v", err)
	}
}

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/client"

	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// ownEngine is a dockerd of a test's own, with a network namespace, data and containerd of its own, which can
// be killed, stopped and filled up without anybody else noticing.
type ownEngine struct {
	engine
	dir    string // data, exec root, socket, log
	data   string // the data root
	netns  string // the file of the namespace
	host   string // for DOCKER_HOST
	cmd    *exec.Cmd
	exited chan error

	containerd *exec.Cmd // beside dockerd, as distributions run it: one that dockerd starts is killed with it
}

// startOwnEngine makes an engine that ends with the test. The data root is on a tmpfs of so many bytes, and
// DOCKER_HOST names the engine while the test runs. A test that cannot have a dockerd at all is skipped.
func startOwnEngine(t *testing.T, bytes int64, flags ...string) *ownEngine {
	t.Helper()
	for _, need := range []string{"dockerd", "containerd", "nsenter", "ip"} {
		if _, err := exec.LookPath(need); err != nil {
			t.Skipf("a second engine needs %s: %v", need, err)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("a second engine needs root")
	}
	name := runtimetest.Name(t)
	dir, err := os.MkdirTemp("", name) // short: the path of a socket has 108 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	e := &ownEngine{dir: dir, data: filepath.Join(dir, "data"), netns: "/run/netns/" + name, host: "unix://" + dir + "/d.sock"}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Mkdir(e.data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", e.data, "tmpfs", 0, fmt.Sprintf("mode=0711,size=%d", bytes)); err != nil {
		t.Skipf("a second engine needs a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(e.data, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Skipf("a second engine needs a network namespace: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	if out, err := exec.Command("nsenter", "--net="+e.netns, "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if e.Client, err = client.NewClientWithOpts(client.WithHost(e.host), client.WithAPIVersionNegotiation()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Client.Close() })
	t.Cleanup(func() {
		if err := e.end(); err != nil {
			t.Error(err)
		}
	})
	if err := e.startContainerd(); err != nil {
		t.Skipf("containerd cannot be started here: %v", err)
	}
	if err := e.start(flags...); err != nil {
		t.Skipf("dockerd cannot be started here: %v", err)
	}
	t.Setenv("DOCKER_HOST", e.host)
	return e
}

func (e *ownEngine) startContainerd() error {
	config := filepath.Join(e.dir, "containerd.toml")
	if err := os.WriteFile(config, []byte("version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n"), 0o600); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(e.dir, "containerd.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("nsenter", "--net="+e.netns, "containerd", "--config", config, "--root", filepath.Join(e.dir, "c-root"),
		"--state", filepath.Join(e.dir, "c-state"), "--address", e.containerdSocket())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	e.containerd = cmd
	return nil
}

func (e *ownEngine) containerdSocket() string { return e.dir + "/c.sock" }

// start starts dockerd and waits until it answers.
func (e *ownEngine) start(flags ...string) error {
	log, err := os.OpenFile(filepath.Join(e.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	// Not "ip netns exec": it mounts a /sys without the cgroups.
	e.cmd = exec.Command("nsenter", append([]string{
		"--net=" + e.netns, "dockerd", "--config-file", filepath.Join(e.dir, "none.json"), "--data-root", e.data,
		"--exec-root", filepath.Join(e.dir, "exec"), "--pidfile", filepath.Join(e.dir, "d.pid"), "--host", e.host,
		"--containerd", e.containerdSocket(), "--bridge", "none", "--storage-driver", "vfs",
	}, flags...)...)
	if err := os.WriteFile(filepath.Join(e.dir, "none.json"), []byte("{}"), 0o600); err != nil {
		return err
	}
	e.cmd.Stdout, e.cmd.Stderr = log, log
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := e.cmd.Start(); err != nil {
		return err
	}
	exited := make(chan error, 1)
	e.exited = exited
	cmd := e.cmd
	go func() { exited <- cmd.Wait() }()
	deadline := time.After(30 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := e.Ping(ctx)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case err := <-exited:
			exited <- err
			return fmt.Errorf("dockerd ended: %w\n%s", err, e.log())
		case <-deadline:
			return fmt.Errorf("dockerd does not answer: %w\n%s", err, e.log())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// log is the end of the engine's log.
func (e *ownEngine) log() string {
	b, _ := os.ReadFile(filepath.Join(e.dir, "log"))
	return string(b[max(0, len(b)-3000):])
}

// signal sends a signal to dockerd alone, not to its containerd.
func (e *ownEngine) signal(s syscall.Signal) error { return e.cmd.Process.Signal(s) }

// stop ends dockerd by a signal and waits for it.
func (e *ownEngine) stop(s syscall.Signal) error {
	if err := e.signal(s); err != nil {
		return err
	}
	select {
	case err := <-e.exited:
		e.exited <- err
		return nil
	case <-time.After(30 * time.Second):
		return errors.Join(errors.New("dockerd did not end within 30 s"), e.cmd.Process.Kill())
	}
}

// end ends dockerd and everything that a killed one may have left: its containerd, and shims with what runs in
// them, which are found by the path of their containerd's socket.
func (e *ownEngine) end() error {
	var errs []error
	if e.cmd != nil && e.cmd.Process != nil {
		_ = e.signal(syscall.SIGCONT) // may have ended, and may not have been stopped
		_ = e.signal(syscall.SIGTERM)
		select {
		case <-e.exited:
		case <-time.After(30 * time.Second):
			errs = append(errs, errors.New("dockerd did not end within 30 s"), e.cmd.Process.Kill())
		}
	}
	if e.containerd != nil {
		_ = e.containerd.Process.Kill() // may have ended
		_ = e.containerd.Wait()         // by that signal
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		left := processesWith(e.containerdSocket())
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			errs = append(errs, fmt.Errorf("processes %v of the engine are left", left))
			break
		}
		for _, pid := range left {
			for _, process := range append(children(pid), pid) { // what runs in a shim outlives it
				_ = syscall.Kill(process, syscall.SIGKILL) // it may have ended by now
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	// dockerd leaves mounts (network namespaces, shared memory) where it was killed.
	mounts, err := os.ReadFile("/proc/self/mounts")
	errs = append(errs, err)
	lines := strings.Split(string(mounts), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if f := strings.Fields(lines[i]); len(f) > 1 && strings.HasPrefix(f[1], e.dir+"/") && f[1] != e.data {
			errs = append(errs, syscall.Unmount(f[1], syscall.MNT_DETACH))
		}
	}
	return errors.Join(errs...)
}

// processesWith returns the processes that have a text in their command line.
func processesWith(text string) []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var out []int
	for _, file := range dirs {
		if line, err := os.ReadFile(file); err == nil && bytes.Contains(line, []byte(text)) {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
				out = append(out, pid)
			}
		}
	}
	return out
}

// children returns the processes that a process started.
func children(pid int) []int {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var out []int
	for _, file := range files {
		line, _ := os.ReadFile(file) // empty when it ended by now
		for _, word := range strings.Fields(string(line)) {
			if child, err := strconv.Atoi(word); err == nil {
				out = append(out, child)
			}
		}
	}
	return out
}

// ownHost is an installation of fairlead on an engine of its own. Its manifests are in a directory that the
// daemon watches.
type ownHost struct {
	*ownEngine
	t            *testing.T
	program      string
	installation string
	dir, app     string
	env          []string      // of commands, and of the daemon
	behind       string        // where the daemon finds the engine; empty for the engine itself
	patience     time.Duration // how long until waits; 0 for 90 s

	daemon *exec.Cmd
	ended  chan error // gets how the daemon ended
}

// runOn starts a daemon in the engine's network namespace, for the manifests in a directory.
func runOn(t *testing.T, e *ownEngine, manifests string) *ownHost {
	t.Helper()
	h := hostOn(t, e, "")
	h.write(manifests)
	h.up(h.app)
	return h
}

// hostOn makes an installation with further settings, and does not start its daemon. What it ran is taken down
// when the test ends.
func hostOn(t *testing.T, e *ownEngine, further string) *ownHost {
	t.Helper()
	dir, err := os.MkdirTemp("", "fairlead-own-")
	if err != nil {
		t.Fatal(err)
	}
	h := &ownHost{ownEngine: e, t: t, program: fairlead(t), installation: runtimetest.Name(t), dir: dir, app: filepath.Join(dir, "app")}
	config := filepath.Join(dir, "fairlead.yaml")
	settings := fmt.Sprintf("installation: %s\nstateDir: %s\nrunDir: %s\nnetwork: {cidr: %s}\n%s",
		h.installation, h.state(), filepath.Join(dir, "run"), subnet(), further)
	if err := errors.Join(os.Mkdir(h.app, 0o700), os.WriteFile(config, []byte(settings), 0o600)); err != nil {
		t.Fatal(err)
	}
	h.env = append(os.Environ(), "FAIRLEAD_CONFIG="+config, "NO_COLOR=1", "CI=")
	t.Cleanup(func() {
		_ = e.signal(syscall.SIGCONT)
		err := h.endDaemon(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("the daemon's log:\n%s\nthe engine's log:\n%s", h.daemonLog(6000), e.log())
		}
		down := exec.Command("nsenter", "--net="+e.netns, h.program, "down", "--yes")
		down.Env, down.Dir = h.env, dir
		if out, e := down.CombinedOutput(); e != nil {
			err = errors.Join(err, fmt.Errorf("fairlead down: %w\n%s", e, out))
		}
		_ = syscall.Unmount(filepath.Join(dir, "run"), syscall.MNT_DETACH) // may not be mounted
		if err = errors.Join(err, e.clean(h.installation), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return h
}

// state is the state directory.
func (h *ownHost) state() string { return filepath.Join(h.dir, "state") }

// up starts the daemon as "fairlead up" with these arguments.
func (h *ownHost) up(args ...string) {
	h.t.Helper()
	h.upFrom("up", args...)
}

// upFrom starts the daemon by a command, up or run. Its log goes on where it ended.
func (h *ownHost) upFrom(command string, args ...string) {
	h.t.Helper()
	log, err := os.OpenFile(filepath.Join(h.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close()
	daemon := exec.Command("nsenter", append([]string{"--net=" + h.netns, h.program, command}, args...)...)
	daemon.Env, daemon.Dir, daemon.Stdout, daemon.Stderr = h.env, h.dir, log, log
	if h.behind != "" {
		daemon.Env = append(slices.Clone(h.env), "DOCKER_HOST="+h.behind)
	}
	if err := daemon.Start(); err != nil {
		h.t.Fatal(err)
	}
	ended := make(chan error, 1)
	h.daemon, h.ended = daemon, ended
	go func() { ended <- daemon.Wait() }()
}

// endDaemon ends the daemon, where there is one, by a signal and waits for it. That SIGKILL ends it is no error.
func (h *ownHost) endDaemon(s syscall.Signal) error {
	if h.daemon == nil {
		return nil
	}
	d := h.daemon
	h.daemon = nil
	_ = d.Process.Signal(s) // it may have ended
	select {
	case err := <-h.ended:
		if s == syscall.SIGKILL {
			return nil
		}
		return err
	case <-time.After(30 * time.Second):
		return errors.Join(errors.New("the daemon did not end within 30 s"), d.Process.Kill(), <-h.ended)
	}
}

// logSize is how long the daemon's log is.
func (h *ownHost) logSize() int64 {
	info, err := os.Stat(filepath.Join(h.dir, "log"))
	if err != nil {
		return 0 // it has not begun
	}
	return info.Size()
}

// logged is the daemon's log from a place on.
func (h *ownHost) logged(from int64) string {
	f, err := os.Open(filepath.Join(h.dir, "log"))
	if err != nil {
		return "" // it has not begun
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, from, 1<<40))
	if err != nil {
		h.t.Error(err)
	}
	return string(text)
}

// daemonLog is the end of the daemon's log, of so many bytes at most.
func (h *ownHost) daemonLog(most int) string {
	b, _ := os.ReadFile(filepath.Join(h.dir, "log")) // it may not have begun
	return string(b[max(0, len(b)-most):])
}

func (h *ownHost) write(manifests string) {
	h.t.Helper()
	next := filepath.Join(h.dir, "next.yaml")
	if err := errors.Join(os.WriteFile(next, []byte(manifests), 0o600), os.Rename(next, filepath.Join(h.app, "app.yaml"))); err != nil {
		h.t.Fatal(err)
	}
}

// fairlead runs a command and returns what it prints.
func (h *ownHost) fairlead(args ...string) (string, error) {
	cmd := exec.Command(h.program, args...)
	var stderr bytes.Buffer
	cmd.Env, cmd.Dir, cmd.Stderr = h.env, h.dir, io.Writer(&stderr)
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("fairlead %s: %w\n%s", strings.Join(args, " "), err, &stderr)
	}
	return string(out), err
}

// await asks again and again until what a command prints contains all texts.
func (h *ownHost) await(args []string, texts ...string) {
	h.t.Helper()
	h.until(fmt.Sprintf("fairlead %v shows %q", args, texts), func() error {
		out, err := h.fairlead(args...)
		for _, text := range texts {
			if err == nil && !strings.Contains(out, text) {
				err = fmt.Errorf("no %q in:\n%s", text, out)
			}
		}
		return err
	})
}

func (h *ownHost) until(what string, ok func() error) {
	h.t.Helper()
	patience := cmp.Or(h.patience, 90*time.Second)
	deadline := time.Now().Add(patience)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("%s: not within %v: %v", what, patience, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// shownPod is what a test looks at of a pod in "get pods -o json".
type shownPod struct {
	Metadata struct{ Name, UID string }
	Status   struct {
		Phase      string
		Conditions []struct{ Type, Status, Reason, Message string }
	}
}

func (h *ownHost) pods() ([]shownPod, error) {
	out, err := h.fairlead("get", "pods", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct{ Items []shownPod }
	return list.Items, json.Unmarshal([]byte(out), &list)
}

// awaitPods waits until there are exactly so many ready pods and so many that have succeeded, and no other;
// that the engine runs every container of them exactly once; and that a node is shown as ready.
func (h *ownHost) awaitPods(ready, succeeded int) {
	h.t.Helper()
	h.until(fmt.Sprintf("%d pods ready, %d succeeded", ready, succeeded), func() error {
		pods, err := h.pods()
		if err != nil {
			return err
		}
		gotReady, gotDone := 0, 0
		for _, p := range pods {
			if p.Status.Phase == "Succeeded" {
				gotDone++
			}
			for _, c := range p.Status.Conditions {
				if c.Type == "Ready" && c.Status == "True" {
					gotReady++
				}
			}
		}
		if gotReady != ready || gotDone != succeeded || len(pods) != ready+succeeded {
			return fmt.Errorf("%d pods are ready and %d have succeeded of %d", gotReady, gotDone, len(pods))
		}
		return h.exactlyOnce(ready)
	})
}

// exactlyOnce returns an error unless the engine runs one sandbox and one container for each of so many pods.
func (h *ownHost) exactlyOnce(pods int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	all, err := h.containers(ctx, h.installation)
	if err != nil {
		return err
	}
	running, sandboxes := 0, 0
	var names []string
	for _, c := range all {
		if c.State != "running" {
			continue
		}
		names = append(names, c.Names[0])
		if strings.Contains(c.Names[0], "_POD") {
			sandboxes++
		} else {
			running++
		}
	}
	if running != pods || sandboxes != pods {
		return fmt.Errorf("%d containers and %d sandboxes run, not %d of each: %v", running, sandboxes, pods, names)
	}
	return nil
}

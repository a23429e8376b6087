package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// daemon is fairlead as it runs for its users: the real program with an installation of its own.
type daemon struct {
	engine       engine
	program      string
	installation string
	dir          string
	repo         *repo
	env          []string
	cmd          *exec.Cmd
	log          *os.File
	api          *api.Client
}

// newDaemon prepares an installation on a repository, and removes everything of it at the end. host is
// the address of the engine, empty for the default one.
func newDaemon(b *testing.B, e engine, r *repo, host string) *daemon {
	b.Helper()
	program, err := buildFairlead()
	if err != nil {
		b.Fatal(err)
	}
	d := &daemon{engine: e, program: program, installation: runtimetest.Name(b), dir: b.TempDir(), repo: r}
	run, err := os.MkdirTemp("", d.installation)
	if err != nil {
		b.Fatal(err)
	}
	config := filepath.Join(d.dir, "fairlead.yaml")
	text := fmt.Sprintf("installation: %s\nstateDir: %s\nrunDir: %s\nnetwork: {cidr: 10.%d.%d.0/23}\nservices: {cidr: 10.%d.0.0/16}\ndefaults: {pruneLimit: {maxShare: 100}}\n",
		d.installation, filepath.Join(d.dir, "state"), run, 201+rand.IntN(30), 2*rand.IntN(128), 160+rand.IntN(30))
	if host != "" {
		text += "engine: " + host + "\n"
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	d.env = append(os.Environ(), "FAIRLEAD_CONFIG="+config, "NO_COLOR=1", "CI=1")
	d.api = api.NewClient(filepath.Join(d.dir, "state", "fairlead.sock"))
	undo.later(b, func() error {
		return errors.Join(d.stop(), d.down(), e.clean(d.installation), d.api.Close(), os.RemoveAll(run), os.RemoveAll(filepath.Dir(d.dir)))
	})
	return d
}

// start runs the daemon on the repository, which it asks for news every interval.
func (d *daemon) start(b *testing.B, interval time.Duration) {
	b.Helper()
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	d.log = log
	d.cmd = exec.Command(d.program, "up", d.repo.bare, "--path", "apps", "--ref", "main", "--interval", interval.String(), "--plain")
	d.cmd.Dir, d.cmd.Env, d.cmd.Stdout, d.cmd.Stderr = d.dir, d.env, log, log
	if err := d.cmd.Start(); err != nil {
		b.Fatal(err)
	}
}

func (d *daemon) stop() error {
	if d.cmd == nil {
		return nil
	}
	cmd := d.cmd
	d.cmd = nil
	defer d.log.Close()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop the daemon: %w", err)
	}
	kill := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() }) // then Wait says so
	defer kill.Stop()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("the daemon ended with %w", err)
	}
	return nil
}

// down deletes everything that fairlead runs.
func (d *daemon) down() error {
	cmd := exec.Command(d.program, "down", "--yes")
	cmd.Dir, cmd.Env = d.dir, d.env
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fairlead down: %w\n%s", err, out)
	}
	return nil
}

// logged is the end of the daemon's log.
func (d *daemon) logged() string {
	data, err := os.ReadFile(filepath.Join(d.dir, "log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(data), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// poke tells the daemon that the repository moved, as a hook of a Git server does.
func (d *daemon) poke(b *testing.B) {
	b.Helper()
	if err := d.api.Reconcile(b.Context(), nil); err != nil {
		b.Fatalf("%v\n%s", err, d.logged())
	}
}

// settled waits until the commit is applied and healthy, with as many pods as there should be, all ready.
func (d *daemon) settled(b *testing.B, commit string, pods int) {
	b.Helper()
	why := ""
	deadline := time.Now().Add(4 * time.Minute)
	for time.Now().Before(deadline) {
		ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
		apps, err := d.api.Applications(ctx)
		cancel()
		switch {
		case err != nil:
			why = err.Error()
		case len(apps) != 1:
			why = fmt.Sprintf("%d applications", len(apps))
		default:
			a := apps[0]
			if a.Ready && a.Health == api.Healthy && a.Applied.ID == commit && a.Pods == pods && a.PodsReady == pods {
				return
			}
			why = fmt.Sprintf("%s at %s: %d of %d pods ready: %s %s", a.Health, a.Applied.ID, a.PodsReady, a.Pods, a.Reason, a.Message)
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.Fatalf("the commit %s with %d pods was not applied: %s\n%s", commit, pods, why, d.logged())
}

// process is what the kernel says of the daemon.
type process struct {
	rss, anon int64 // bytes
	cpu       time.Duration
}

func (d *daemon) process() (process, error) {
	var p process
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		return p, err
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "VmRSS", "RssAnon":
			if _, err := fmt.Sscan(value, &kib); err != nil {
				return p, fmt.Errorf("read %s: %w", name, err)
			}
			if name == "VmRSS" {
				p.rss = kib << 10
			} else {
				p.anon = kib << 10
			}
		}
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
	if err != nil {
		return p, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var user, system int64
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		return p, fmt.Errorf("read the processor time: %w", err)
	}
	p.cpu = time.Duration(user+system) * time.Second / 100 // the kernel's clock ticks are hundredths of a second for programs
	return p, nil
}

// deployments are manifests of n Deployments of one pod, or of one with n pods.
func deployment(name, image string, replicas int, args []string, more string) string {
	list, err := json.Marshal(args)
	if err != nil {
		panic(err) // strings can be encoded
	}
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[3]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
        - name: main
          image: %[2]s
          imagePullPolicy: Never
          args: %[4]s
%[5]s`, name, image, replicas, list, more)
}

// environment is one variable of a container; a change of it makes the pod anew.
func environment(value string) string {
	return fmt.Sprintf("          env: [{name: VERSION, value: %q}]\n", value)
}

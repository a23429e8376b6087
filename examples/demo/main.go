// Command demo shows the main job of fairlead on this machine, from nothing: it builds fairlead and an
// example application, makes a config repository, has it run, commits a change, shows the plan, and
// counts the requests that failed while the change was rolled out. It leaves nothing behind.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/api"
)

func main() {
	keep := flag.Bool("keep", false, "leave the application running and the daemon reconciling until Ctrl-C")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is one run.
type demo struct {
	dir      string // everything of the run
	fairlead string // the program
	repo     string // the config repository
	socket   string
	client   *api.Client
}

func run(ctx context.Context, keep bool) (err error) {
	dir, err := os.MkdirTemp("", "fairlead-demo-")
	if err != nil {
		return err
	}
	d := &demo{
		dir: dir, fairlead: filepath.Join(dir, "fairlead"), repo: filepath.Join(dir, "config"), socket: filepath.Join(dir, "fairlead.sock"),
	}
	d.client = api.NewClient(d.socket)
	defer func() {
		if e := os.RemoveAll(dir); err == nil {
			err = e
		}
	}()
	say("Building fairlead and the example application, versions 1 and 2")
	if err := d.build(ctx); err != nil {
		return err
	}
	defer d.removeImages()
	say("A config repository: a kustomize base with two overlays; production runs three pods")
	if err := d.makeRepository(ctx); err != nil {
		return err
	}
	say("fairlead up " + d.repo + " --path overlays/production --ref main")
	up := d.command(ctx, "up", d.repo, "--path", "overlays/production", "--ref", "main", "--interval", "2s")
	up.Stdout, up.Stderr = prefixed("  up | "), prefixed("  up | ")
	up.Cancel = func() error { return up.Process.Signal(syscall.SIGTERM) }
	if err := up.Start(); err != nil {
		return fmt.Errorf("start fairlead: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = up.Wait() // it is told to end
	}()
	defer func() {
		// Whatever happened, nothing stays.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		down := d.command(clean, "down", "--yes")
		down.Stdout, down.Stderr = prefixed("down | "), prefixed("down | ")
		if e := down.Run(); e != nil {
			err = errors.Join(err, fmt.Errorf("fairlead down: %w", e))
		}
		_ = up.Process.Signal(syscall.SIGTERM)
		<-ended
		say("Everything of the demo is gone again")
	}()
	if err := d.ready(ctx, 3, "1"); err != nil {
		return err
	}
	if err := d.show(ctx, "get", "pods,services", "-A", "-o", "wide"); err != nil {
		return err
	}
	url, err := d.service(ctx)
	if err != nil {
		return err
	}
	page, err := get(ctx, http.DefaultClient, url)
	if err != nil {
		return err
	}
	say("The page at the Service's address, " + url + ": " + page)

	say("A branch changes the image, the greeting and the number of pods: this is what merging it would do")
	if err := d.commitChange(ctx); err != nil {
		return err
	}
	if err := d.show(ctx, "plan", "--ref", "version-2"); err != nil {
		return err
	}
	say("It is merged, while requests go on")
	load := startLoad(ctx, url)
	if err := d.git(ctx, "merge", "-q", "version-2"); err != nil {
		return err
	}
	if err := d.ready(ctx, 4, "2"); err != nil {
		return err
	}
	sent, failed := load.stop()
	if err := d.show(ctx, "describe", "service/web", "-n", "production"); err != nil {
		return err
	}
	if page, err = get(ctx, http.DefaultClient, url); err != nil {
		return err
	}
	say("The page now: " + page)
	say(fmt.Sprintf("Requests during the rollout: %d, failed: %d", sent, len(failed)))
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d requests failed, the first: %w", len(failed), sent, failed[0])
	}
	if sent == 0 {
		return errors.New("no request was sent during the rollout")
	}
	if keep {
		say("Running until Ctrl-C; the config repository is " + d.repo)
		<-ctx.Done()
	}
	return nil
}

func say(s string) { fmt.Printf("\n== %s\n", s) }

// command is fairlead with the state of this run.
func (d *demo) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, d.fairlead, append(args, "--socket", d.socket, "--state-dir", filepath.Join(d.dir, "state"))...)
	cmd.Env = append(os.Environ(), "FAIRLEAD_INSTALLATION=fairlead-demo")
	return cmd
}

func (d *demo) show(ctx context.Context, args ...string) error {
	say("fairlead " + strings.Join(args, " "))
	cmd := d.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("fairlead %s: %w", args[0], err)
	}
	return nil
}

// output is a command of another program; what it printed is in the error.
func output(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func image(version string) string { return "fairlead-example-web:" + version }

// build builds fairlead and the images of the example.
func (d *demo) build(ctx context.Context) error {
	static := []string{"CGO_ENABLED=0"}
	if err := output(ctx, "", static, "go", "build", "-tags", "grpcnotrace", "-o", d.fairlead, "./daemon/cmd/fairlead"); err != nil {
		return err
	}
	for _, v := range []string{"1", "2"} {
		bin := filepath.Join(d.dir, "app-"+v)
		if err := output(ctx, "", static, "go", "build", "-ldflags", "-s -w -X main.version="+v, "-o", bin, "./examples/web/app"); err != nil {
			return err
		}
		if err := importImage(ctx, image(v), bin); err != nil {
			return err
		}
	}
	return nil
}

// makeRepository copies the example's manifests into a new Git repository.
func (d *demo) makeRepository(ctx context.Context) error {
	if err := os.CopyFS(d.repo, os.DirFS("examples/web/deploy")); err != nil {
		return err
	}
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "."}, {"commit", "-q", "-m", "Run version 1"}} {
		if err := d.git(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) git(ctx context.Context, args ...string) error {
	who := []string{"GIT_AUTHOR_NAME=demo", "GIT_AUTHOR_EMAIL=demo@example.com", "GIT_COMMITTER_NAME=demo", "GIT_COMMITTER_EMAIL=demo@example.com", "GIT_CONFIG_GLOBAL=/dev/null"}
	return output(ctx, d.repo, who, "git", args...)
}

// commitChange is what a user of the repository does: a commit on a branch.
func (d *demo) commitChange(ctx context.Context) error {
	if err := d.git(ctx, "switch", "-q", "-c", "version-2"); err != nil {
		return err
	}
	for file, change := range map[string][2]string{
		"overlays/production/kustomization.yaml": {"newTag: \"1\"", "newTag: \"2\""},
		"base/kustomization.yaml":                {"Hello from Fairlead.", "Hello again from Fairlead."},
	} {
		if err := replace(filepath.Join(d.repo, file), change[0], change[1]); err != nil {
			return err
		}
	}
	if err := replace(filepath.Join(d.repo, "overlays/production/kustomization.yaml"), "count: 3", "count: 4"); err != nil {
		return err
	}
	if err := d.git(ctx, "commit", "-q", "-a", "-m", "Run version 2 in four pods"); err != nil {
		return err
	}
	return d.git(ctx, "switch", "-q", "main")
}

func replace(file, from, to string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if !bytes.Contains(b, []byte(from)) {
		return fmt.Errorf("%s does not contain %q", file, from)
	}
	return os.WriteFile(file, bytes.ReplaceAll(b, []byte(from), []byte(to)), 0o644)
}

// pods returns the pods of the example.
func (d *demo) pods(ctx context.Context) ([]api.Pod, error) {
	return d.client.Pods(ctx, api.Query{Namespace: "production"})
}

// ready waits until exactly that many pods of a version are all that runs, ready.
func (d *demo) ready(ctx context.Context, count int, version string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var last []api.Pod
	for {
		pods, err := d.pods(ctx)
		if err == nil {
			last = pods
			good := 0
			for _, p := range pods {
				if p.IsReady && len(p.Containers) == 1 && p.Containers[0].Image == image(version) && p.Status == "Running" {
					good++
				}
			}
			if good == count && len(pods) == count {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			b, _ := json.MarshalIndent(last, "", "  ")
			return fmt.Errorf("%d pods of version %s are not ready after two minutes: %w\n%s", count, version, ctx.Err(), b)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// service returns the URL of the example's Service.
func (d *demo) service(ctx context.Context) (string, error) {
	services, err := d.client.Services(ctx, api.Query{Namespace: "production", Names: []string{"web"}})
	if err != nil {
		return "", err
	}
	if len(services) != 1 || services[0].Spec.ClusterIP == "" {
		return "", errors.New("the Service web has no address")
	}
	return fmt.Sprintf("http://%s/", services[0].Spec.ClusterIP), nil
}

func get(ctx context.Context, c *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return strings.TrimSpace(string(b)), err
}

// load sends requests to one URL: some workers keep their connections, others open one for each request.
type load struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	sent   atomic.Int64
	mu     sync.Mutex
	failed []error
}

func startLoad(ctx context.Context, url string) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{cancel: cancel}
	for worker := range 4 {
		l.wg.Go(func() { l.send(ctx, url, worker%2 == 0) })
	}
	return l
}

func (l *load) send(ctx context.Context, url string, keep bool) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: !keep}}
	for ctx.Err() == nil {
		_, err := get(context.WithoutCancel(ctx), client, url)
		l.sent.Add(1)
		if err != nil {
			l.fail(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = append(l.failed, err)
}

func (l *load) stop() (sent int64, failed []error) {
	l.cancel()
	l.wg.Wait()
	return l.sent.Load(), l.failed
}

// prefixed writes lines to stdout with a mark in front.
func prefixed(mark string) io.Writer { return &prefixer{mark: mark} }

type prefixer struct {
	mark string
	mu   sync.Mutex
	rest []byte
}

func (p *prefixer) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rest = append(p.rest, b...)
	for {
		i := bytes.IndexByte(p.rest, '\n')
		if i < 0 {
			return len(b), nil
		}
		fmt.Printf("%s%s\n", p.mark, p.rest[:i])
		p.rest = p.rest[i+1:]
	}
}

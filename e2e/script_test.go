package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/e2e/giteatest"
	"github.com/fairlead-dev/fairlead/runtimes/consul/consultest"
	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// TestScripts runs the scripts in testdata/scripts: the real program on the real engine with real
// repositories. Each script has an installation, a state directory and a subnet of its own.
//
// Besides the commands of testscript there are:
//
//	daemon ARG...            start "fairlead ARG..." in the background; its log is in daemon.log
//	end [KILL]               end the daemon by SIGTERM, or SIGKILL, and wait for it (stop is testscript's own, and skips the rest)
//	ready N [SELECTOR]       wait until there are exactly N pods and all of them are ready or have succeeded
//	eventually CMD ARG...    run a program again and again until it succeeds, for a minute at most
//	expand FILE...           replace ${NAME} in files by variables
//	commit DIR MESSAGE       commit everything in a work tree
//	get PATTERN URL          fail unless the page matches
//	engine kill|rm|pause|unpause PART...   do to the one running container with all PARTs in its name what a person with docker does
//	engine update MILLIS PART...   give a container another limit of CPU time; limit fails unless that is its limit
//	engine ids FILE          write the ids of the installation's containers to a file, sorted
//	engine none              fail if a container of the installation is left
//
//	systemd [PATTERN]        be systemd at $NOTIFY_SOCKET from now on; wait until the daemon told it a line that matches
//	consul begin             start a Consul server of the script's own; kill, start, wipe, stop and continue do that to it
//	gitea begin              start a Gitea of the script's own, with the repository team/config; see cmdGitea for what people do there
//	trap begin               listen at $TRAP; trap untouched fails when anybody has connected
//	backends N URL           fail unless requests, one connection each, are answered by exactly N different pods
//	refused ADDRESS          fail unless TCP connections to it are refused
//	capture NAME             keep what the last command printed in a variable
//	change DIR FILE FROM TO  replace a text in a work tree and commit; rolled DIR waits until the newest commit is applied and healthy
//	flush                    delete the kernel's table of the installation's Services
//	load start URL           send requests, through wrk too where it is installed; load stop [MOST] ends that and fails when one failed, or more than MOST
//	publish IMAGE NAME:TAG   push an image of the engine to the script's own registry, $REGISTRY
//	crash DURATION           kill the daemon after a while and start it again as it was
//
// The condition [apparmor] holds where the engine has AppArmor, and [gitea] where the real Gitea is wanted.
//
// $IMAGE is the test program of runtimes/runtimetest/program; $GIT, $GIT_CA and $GIT_PASSWORD reach a
// Git server with the repositories below $WORK, and $GIT_OVER_SSH, $SSH_KEY and $SSH_KNOWN_HOSTS one over SSH.
// $WEB1 and $WEB2 are the example application in two versions. $GATEWAY is the host's address on the pods' network.
// $LISTEN is an address that is free. $SOPS are the encrypted files and keys of render/sops/testdata.
func TestScripts(t *testing.T) {
	program := fairlead(t)
	image := runtimetest.Image(t)
	one, two := runtimetest.ImageOf(t, "examples/web/app", "1"), runtimetest.ImageOf(t, "examples/web/app", "2")
	e := openEngine(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/scripts",
		Setup: func(env *testscript.Env) error {
			return (&host{engine: e, installation: runtimetest.Name(t), t: t}).setup(t, env, program, image, "WEB1="+one, "WEB2="+two)
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "apparmor":
			case "gitea":
				return giteatest.Wanted(), nil
			default:
				return hasProgram(cond)
			}
			info, err := e.Info(context.Background())
			return slices.ContainsFunc(info.SecurityOptions, func(o string) bool { return strings.HasPrefix(o, "name=apparmor") }), err
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"systemd": cmdSystemd, "crash": cmdCrash, "load": cmdLoad, "consul": cmdConsul, "gitea": cmdGitea, "trap": cmdTrap, "backends": cmdBackends, "refused": cmdRefused,
			"capture": cmdCapture, "change": cmdChange, "rolled": cmdRolled, "flush": cmdFlush,
			"publish": cmdPublish, "daemon": cmdDaemon, "end": cmdEnd, "eventually": cmdEventually, "commit": cmdCommit, "expand": cmdExpand, "get": cmdGet, "engine": cmdEngine, "ready": cmdReady,
		},
	})
}

// host is what one script works on.
type host struct {
	engine       engine
	installation string
	daemon       *exec.Cmd
	args         []string // of the daemon
	log          *os.File
	notified     *notifySocket
	load         *load
	consul       *consultest.Agent
	gitea        *gitea
	trap         *trap
	registry     string // its address; empty before something was published
	t            *testing.T
}

type hostKey struct{}

func (h *host) setup(t *testing.T, env *testscript.Env, program, image string, more ...string) error {
	cidr, services := subnet(), subnet()
	state := filepath.Join(env.WorkDir, ".state")
	config := filepath.Join(env.WorkDir, ".fairlead.yaml")
	run, err := os.MkdirTemp("", h.installation)
	if err != nil {
		return err
	}
	settings := fmt.Sprintf("installation: %s\nstateDir: %s\nrunDir: %s\nnetwork: {cidr: %s}\nservices: {cidr: %s}\ndefaults: {interval: 1s, retryInterval: 2s}\n", h.installation, state, run, cidr, services)
	if err := os.WriteFile(config, []byte(settings), 0o600); err != nil {
		return err
	}
	git := serveGit(t, env.WorkDir)
	ca := filepath.Join(env.WorkDir, ".git-ca.pem")
	password := filepath.Join(env.WorkDir, ".git-password")
	if err := errors.Join(os.WriteFile(ca, git.CA, 0o600), os.WriteFile(password, []byte(gitPassword), 0o600)); err != nil {
		return err
	}
	overSSH := serveSSH(t, env.WorkDir)
	secret := func(name string, content []byte) string {
		file := filepath.Join(env.WorkDir, name)
		err = errors.Join(err, os.WriteFile(file, content, 0o600))
		return file
	}
	key, stranger := secret(".ssh-key", overSSH.Key), secret(".ssh-stranger", overSSH.Stranger)
	known, impostor := secret(".ssh-known-hosts", overSSH.KnownHosts), secret(".ssh-impostor", overSSH.Impostor)
	listen, e1 := freeAddress()
	sops, e2 := filepath.Abs("../render/sops/testdata")
	if err := errors.Join(err, e1, e2); err != nil {
		return err
	}
	imageName, imageTag, _ := strings.Cut(image, ":")
	for _, v := range append(more,
		"IMAGENAME="+imageName, "IMAGETAG="+imageTag, "RUN="+run, "CIDR="+cidr, "GATEWAY="+strings.Replace(cidr, ".0/24", ".1", 1),
		"CA_INLINE="+strings.ReplaceAll(string(git.CA), "\n", `\n`), // for a quoted YAML scalar
		"PATH="+filepath.Dir(program)+string(os.PathListSeparator)+os.Getenv("PATH"),
		"FAIRLEAD_CONFIG="+config, "STATE="+state, "IMAGE="+image, "INSTALLATION="+h.installation,
		"DOCKER_HOST="+os.Getenv("DOCKER_HOST"), "NO_COLOR=1", "CI=",
		"GIT="+git.URL, "GIT_CA="+ca, "GIT_PASSWORD="+password, "GIT_USER="+gitUser,
		"GIT_OVER_SSH="+overSSH.URL, "SSH_KEY="+key, "SSH_STRANGER="+stranger, "SSH_KNOWN_HOSTS="+known, "SSH_IMPOSTOR="+impostor,
		"LISTEN="+listen, "SOPS="+sops,
		"GIT_AUTHOR_NAME=Jane", "GIT_AUTHOR_EMAIL=jane@example.org", "GIT_COMMITTER_NAME=Jane", "GIT_COMMITTER_EMAIL=jane@example.org",
		"GIT_CONFIG_NOSYSTEM=1",
	) {
		key, value, _ := strings.Cut(v, "=")
		env.Setenv(key, value)
	}
	env.Values[hostKey{}] = h
	vars := env.Vars
	env.Defer(func() {
		err := h.stop(syscall.SIGTERM)
		down := exec.Command(program, "down", "--yes")
		down.Env, down.Dir = vars, env.WorkDir
		if out, e := down.CombinedOutput(); e != nil {
			err = errors.Join(err, fmt.Errorf("fairlead down: %w\n%s", e, out))
		}
		_ = syscall.Unmount(run, syscall.MNT_DETACH) // down that finds nothing to remove may have mounted a tmpfs there
		if err = errors.Join(err, h.engine.clean(h.installation), os.RemoveAll(run)); err != nil {
			t.Errorf("%s: %v", filepath.Base(env.WorkDir), err)
		}
	})
	return nil
}

func hostOf(ts *testscript.TestScript) *host { return ts.Value(hostKey{}).(*host) }

func (h *host) stop(sig syscall.Signal) error {
	if h.daemon == nil {
		return nil
	}
	d := h.daemon
	h.daemon = nil
	defer h.log.Close()
	if err := d.Process.Signal(sig); err != nil {
		return fmt.Errorf("stop the daemon: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- d.Wait() }()
	select {
	case err := <-done:
		if sig != syscall.SIGKILL && err != nil {
			return fmt.Errorf("the daemon ended with %w", err)
		}
		return nil
	case <-time.After(30 * time.Second):
		return errors.Join(errors.New("the daemon did not end within 30 s"), d.Process.Kill(), <-done)
	}
}

func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	h := hostOf(ts)
	if neg || len(args) == 0 || h.daemon != nil {
		ts.Fatalf("usage: daemon ARG..., once at a time")
	}
	log, err := os.OpenFile(ts.MkAbs("daemon.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	program, err := buildFairlead()
	ts.Check(err)
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), log, log
	for _, name := range []string{"PATH", "HOME", "FAIRLEAD_CONFIG", "DOCKER_HOST", "NO_COLOR", "NOTIFY_SOCKET", "WATCHDOG_USEC", "SOPS_AGE_KEY_FILE"} {
		if value := ts.Getenv(name); value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	ts.Check(cmd.Start())
	h.daemon, h.log, h.args = cmd, log, args
}

func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	sig := syscall.SIGTERM
	if len(args) == 1 && args[0] == "KILL" {
		sig = syscall.SIGKILL
	}
	ts.Check(hostOf(ts).stop(sig))
}

func cmdEventually(ts *testscript.TestScript, neg bool, args []string) {
	deadline := time.Now().Add(time.Minute)
	for {
		err := ts.Exec(args[0], args[1:]...)
		if (err == nil) != neg {
			return
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(ts.MkAbs("daemon.log"))
			ts.Fatalf("%s: still %v after a minute; the daemon's log:\n%s", strings.Join(args, " "), err, log)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func cmdReady(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 || len(args) > 2 {
		ts.Fatalf("usage: ready N [SELECTOR]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	get := []string{"get", "pods", "-A", "-o", "json"}
	if len(args) > 1 {
		get = append(get, "-l", args[1])
	}
	deadline := time.Now().Add(time.Minute)
	for {
		var list struct{ Items []corev1.Pod }
		err := ts.Exec("fairlead", get...)
		if err == nil {
			err = json.Unmarshal([]byte(ts.ReadFile("stdout")), &list)
		}
		good := 0
		for _, p := range list.Items {
			if p.Status.Phase == corev1.PodSucceeded || (p.DeletionTimestamp == nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
			})) {
				good++
			}
		}
		if err == nil && good == want && len(list.Items) == want {
			return
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(ts.MkAbs("daemon.log"))
			ts.Fatalf("%d of %d pods are ready, not %d (%v)\n%s", good, len(list.Items), want, err, log)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func cmdCommit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: commit DIR MESSAGE")
	}
	dir := ts.MkAbs(args[0])
	if _, err := os.Stat(filepath.Join(dir, ".git")); err != nil {
		ts.Check(ts.Exec("git", "init", "-q", "-b", "main", dir))
	}
	// With an empty index git reads every file: a file that was changed within the tick of the clock in which
	// the index was written, and kept its size, may else count as the one that was added before.
	ts.Check(ts.Exec("git", "-C", dir, "read-tree", "--empty"))
	ts.Check(ts.Exec("git", "-C", dir, "add", "-A"))
	ts.Check(ts.Exec("git", "-C", dir, "commit", "-q", "-m", args[1]))
}

func cmdExpand(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: expand FILE...")
	}
	for _, name := range args {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

func cmdGet(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: get TEXT URL")
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		body, err := page(args[1])
		if err == nil && strings.Contains(body, args[0]) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s: %v %q", args[1], err, body)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func page(url string) (string, error) {
	return pageBy(&http.Client{Timeout: 5 * time.Second}, url)
}

func pageBy(c *http.Client, url string) (string, error) {
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func cmdEngine(ts *testscript.TestScript, neg bool, args []string) {
	h := hostOf(ts)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if neg || len(args) == 0 {
		ts.Fatalf("usage: engine kill|rm|pause|update|limit|ids|none ...")
	}
	parts := args[1:]
	if len(parts) > 0 && (args[0] == "update" || args[0] == "limit") {
		parts = parts[1:]
	}
	one := func() string {
		c, err := h.engine.find(ctx, h.installation, parts...)
		ts.Check(err)
		return c.ID
	}
	switch args[0] {
	case "kill":
		ts.Check(h.engine.ContainerKill(ctx, one(), "KILL"))
	case "rm":
		ts.Check(h.engine.ContainerRemove(ctx, one(), container.RemoveOptions{Force: true}))
	case "pause":
		ts.Check(h.engine.ContainerPause(ctx, one()))
	case "update", "limit":
		millis, err := strconv.ParseInt(args[1], 10, 64)
		ts.Check(err)
		if args[0] == "update" {
			_, err = h.engine.ContainerUpdate(ctx, one(), container.UpdateConfig{Resources: container.Resources{CPUPeriod: 100_000, CPUQuota: 100 * millis}})
			ts.Check(err)
			return
		}
		c, err := h.engine.ContainerInspect(ctx, one())
		ts.Check(err)
		if got := c.HostConfig.CPUQuota * 1000 / max(1, c.HostConfig.CPUPeriod); got != millis {
			ts.Fatalf("the container may use %dm of CPU time, not %dm", got, millis)
		}
	case "ids":
		all, err := h.engine.containers(ctx, h.installation)
		ts.Check(err)
		var lines []string
		for _, c := range all {
			lines = append(lines, c.ID+" "+c.State)
		}
		slices.Sort(lines)
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	case "none":
		all, err := h.engine.containers(ctx, h.installation)
		ts.Check(err)
		if len(all) > 0 {
			ts.Fatalf("%d containers are left, %s for example", len(all), all[0].Names[0])
		}
	default:
		ts.Fatalf("engine knows no %s", args[0])
	}
}

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	imagetypes "github.com/docker/docker/api/types/image"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/tools/txtar"

	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// TestFields proves what docs/fields.md says, on the real engine: each script of testdata/fields holds the
// manifest of an application and says what must come of it. One daemon runs all of them, each from a
// directory and in a namespace of its own, which is named as the script.
//
// The file manifest.yaml of every script is there when the daemon starts. "image: program" stands for the
// test program, and ${NAME} for a variable. Besides the commands of testscript there are:
//
//	apply FILE...              put files into the application's directory, in the place of those with their names
//	log POD[:CONTAINER] FILE   wait until the log is as the file says; a line that begins with "~ " is a pattern
//	field KIND NAME PATH WANT  wait until a field of the object in JSON matches a pattern, for example
//	                           field pod web status.containerStatuses.0.restartCount 2
//	pods PATTERN               wait until a line of "fairlead get pods" matches, or none with !
//	event PATTERN              wait until an event of the namespace matches
//	get TEXT URL               wait until the page holds the text
//	switch on|off POD NAME     change a switch of a pod that runs "http :8080"
//	inspected POD FIELD VALUE  wait until a field of what the engine says of a container is so
//	described KIND/NAME WANT   wait until "fairlead describe" matches
//	cgroup POD FILE VALUE      wait until a file of the container's cgroup (version 1) holds a value
//	unreachable ADDR           wait until nobody answers at an address
//	ip POD VARIABLE            put the pod's address into a variable
//	inspect FILE POD FIELD...   write fields of what the engine says of a container, one a line
//
// FAIRLEAD_NAMESPACE is set, so that "fairlead get pods" shows the script's own. $APP is the directory of the application.
// $DIR/shared is a shared mount.
func TestFields(t *testing.T) {
	program := fairlead(t)
	image := runtimetest.Image(t)
	h := &fieldsHost{
		host: &host{engine: openEngine(t), installation: runtimetest.Name(t)},
		dir:  t.TempDir(), image: image, program: program,
	}
	h.start(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/fields",
		Setup: func(env *testscript.Env) error {
			for _, v := range h.variables(scriptName(env.WorkDir)) {
				key, value, _ := strings.Cut(v, "=")
				env.Setenv(key, value)
			}
			env.Values[fieldsKey{}] = h
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"apply": fieldsApply, "log": fieldsLog, "field": fieldsField, "event": fieldsEvent, "pods": fieldsPods,
			"get": cmdGet, "switch": fieldsSwitch, "ip": fieldsIP, "inspect": fieldsInspect, "inspected": fieldsInspected, "described": fieldsDescribed, "cgroup": fieldsCgroup, "unreachable": fieldsUnreachable, "expand": cmdExpand,
		},
	})
}

// fieldsHost is the one host of all scripts.
type fieldsHost struct {
	*host
	dir, image, program string
	config              string
	registry            *registry
}

// fieldsKey finds the host.
type fieldsKey struct{}

func fieldsHostOf(ts *testscript.TestScript) *fieldsHost { return ts.Value(fieldsKey{}).(*fieldsHost) }

// scriptName is the name of the script whose directory testscript made.
func scriptName(workDir string) string {
	return strings.TrimPrefix(filepath.Base(workDir), "script-")
}

// start writes the applications of all scripts, starts the daemon, and removes everything when the test ends.
func (h *fieldsHost) start(t *testing.T) {
	t.Helper()
	run, err := os.MkdirTemp("", h.installation)
	check(t, err)
	h.registry = serveRegistry(t)
	scripts, err := filepath.Glob("testdata/fields/*.txtar")
	check(t, err)
	settings := fmt.Sprintf("installation: %s\nstateDir: %s/state\nrunDir: %s\nnetwork: {cidr: %s}\ndefaults: {interval: 1s, retryInterval: 1s, pruneLimit: {maxShare: 100}}\npods: {seccompDir: %s/seccomp}\napplications:\n", h.installation, h.dir, run, subnet(), h.dir)
	for _, file := range scripts {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		settings += fmt.Sprintf("  - {name: %s, location: %s, namespace: %s}\n", name, h.app(name), name)
		check(t, os.MkdirAll(h.app(name), 0o755))
		archive, err := txtar.ParseFile(file)
		check(t, err)
		for _, f := range archive.Files {
			if f.Name == "manifest.yaml" {
				check(t, h.write(name, f.Name, string(f.Data)))
			}
		}
	}
	h.config = filepath.Join(h.dir, "settings.yaml")
	check(t, errors.Join(os.WriteFile(h.config, []byte(settings), 0o600), os.MkdirAll(h.dir+"/seccomp", 0o755),
		os.WriteFile(h.dir+"/seccomp/no-mkdir.json", []byte(noMkdir), 0o600)))
	shared := h.dir + "/shared"
	check(t, errors.Join(os.MkdirAll(shared, 0o755), syscall.Mount("fields", shared, "tmpfs", 0, "size=1m")))
	t.Cleanup(func() { check(t, syscall.Unmount(shared, syscall.MNT_DETACH)) })
	check(t, syscall.Mount("", shared, "", syscall.MS_SHARED, ""))
	t.Cleanup(func() {
		err := h.stop(syscall.SIGTERM)
		down := exec.Command(h.program, "down", "--yes")
		down.Env = append(os.Environ(), "FAIRLEAD_CONFIG="+h.config)
		patient := h.killPatient()
		out, e := down.CombinedOutput()
		patient()
		if e != nil {
			err = errors.Join(err, fmt.Errorf("fairlead down: %w\n%s", e, out))
		}
		if _, e := h.engine.ImageRemove(context.Background(), h.registry.image(), imagetypes.RemoveOptions{Force: true}); e != nil && !cerrdefs.IsNotFound(e) {
			err = errors.Join(err, fmt.Errorf("remove the image of the registry: %w", e))
		}
		_ = syscall.Unmount(run, syscall.MNT_DETACH) // down that finds nothing to remove may have mounted a tmpfs there
		if err = errors.Join(err, h.engine.clean(h.installation), os.RemoveAll(run)); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(h.dir, "daemon.log"))
			t.Logf("the daemon's log:\n%s", log)
		}
	})
	check(t, h.run())
}

// killPatient kills, until it is told to stop, what would make use of a grace period that is longer than a test
// should take: containers that have "patient" in their names.
func (h *fieldsHost) killPatient() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			all, _ := h.engine.containers(ctx, h.installation) // what cannot be listed is told by down
			for _, c := range all {
				if c.State == "running" && strings.Contains(c.Names[0], "patient_main") {
					_ = h.engine.ContainerKill(ctx, c.ID, "KILL") // it may have ended by itself
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}()
	return func() { cancel(); <-done }
}

// noMkdir is a seccomp profile that allows everything but making directories.
const noMkdir = `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}`

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run starts the daemon.
func (h *fieldsHost) run() error {
	log, err := os.OpenFile(filepath.Join(h.dir, "daemon.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(h.program, "run", "--config", h.config)
	cmd.Dir, cmd.Stdout, cmd.Stderr = h.dir, log, log
	h.daemon, h.log = cmd, log
	return cmd.Start()
}

func (h *fieldsHost) app(name string) string { return filepath.Join(h.dir, "apps", name) }

// variables are what scripts and manifests may use.
func (h *fieldsHost) variables(name string) []string {
	repo, tag, _ := strings.Cut(h.image, ":")
	return []string{
		"PATH=" + filepath.Dir(h.program) + string(os.PathListSeparator) + os.Getenv("PATH"),
		"FAIRLEAD_CONFIG=" + h.config, "FAIRLEAD_NAMESPACE=" + name, "APP=" + h.app(name), "IMAGE=" + h.image, "IMAGEREPO=" + repo, "IMAGETAG=" + tag,
		"DOCKER_HOST=" + os.Getenv("DOCKER_HOST"), "NO_COLOR=1", "CI=", "DIR=" + h.dir, "REGISTRY=" + h.registry.address, "DOCKERCONFIG=" + h.registry.dockerConfig(),
	}
}

var (
	variable     = regexp.MustCompile(`\$\{[A-Z]+\}`)
	programImage = regexp.MustCompile(`\bimage: program\b`)
)

// write puts a file into the directory of an application, at once.
func (h *fieldsHost) write(name, file, text string) error {
	text = programImage.ReplaceAllLiteralString(text, "image: '"+h.image+"'")
	vars := h.variables(name)
	text = variable.ReplaceAllStringFunc(text, func(v string) string {
		i := slices.IndexFunc(vars, func(s string) bool { return strings.HasPrefix(s, v[2:len(v)-1]+"=") })
		if i < 0 {
			return v
		}
		return strings.TrimPrefix(vars[i], v[2:len(v)-1]+"=")
	})
	tmp := filepath.Join(h.dir, name+".tmp")
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(h.app(name), file))
}

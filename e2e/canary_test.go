package e2e

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/docker/docker/api/types/container"

	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// sealer encrypts Secrets and ConfigMaps as SOPS does.
type sealer struct {
	t   testing.TB
	key *age.X25519Identity
}

// seal returns a manifest whose data is encrypted.
func (s sealer) seal(kind, name string, data map[string]string) string {
	s.t.Helper()
	dataKey := make([]byte, 32)
	_, _ = rand.Read(dataKey)
	block, err := aes.NewCipher(dataKey)
	if err != nil {
		s.t.Fatal(err)
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, 32)
	if err != nil {
		s.t.Fatal(err)
	}
	lock := func(text, additional string) string {
		iv := make([]byte, 32)
		_, _ = rand.Read(iv)
		out := gcm.Seal(nil, iv, []byte(text), []byte(additional))
		e := base64.StdEncoding.EncodeToString
		return fmt.Sprintf("ENC[AES256_GCM,data:%s,iv:%s,tag:%s,type:str]", e(out[:len(text)]), e(iv), e(out[len(text):]))
	}
	field := "data"
	if kind == "Secret" {
		field = "stringData"
	}
	mac := sha512.New()
	var values strings.Builder
	add := func(text string) { mac.Write([]byte(text)) }
	const changed = "2026-01-01T00:00:00Z"
	add("v1")
	add(kind)
	add(name)
	for _, k := range slices.Sorted(maps.Keys(data)) {
		add(data[k])
		fmt.Fprintf(&values, "  %s: %s\n", k, lock(data[k], field+":"+k+":"))
	}
	var enc bytes.Buffer
	a := armor.NewWriter(&enc)
	w, err := age.Encrypt(a, s.key.Recipient())
	if err == nil {
		_, err = w.Write(dataKey)
	}
	if err != nil || w.Close() != nil || a.Close() != nil {
		s.t.Fatal(err)
	}
	return fmt.Sprintf("apiVersion: v1\nkind: %s\nmetadata:\n  name: %s\n%s:\n%ssops:\n  age:\n  - recipient: %s\n    enc: |\n      %s\n  lastmodified: %q\n  mac: %s\n  encrypted_regex: ^(data|stringData)$\n  version: 3.9.0\n",
		kind, name, field, values.String(), s.key.Recipient(), strings.ReplaceAll(strings.TrimSpace(enc.String()), "\n", "\n      "), changed,
		lock(strings.ToUpper(fmt.Sprintf("%x", mac.Sum(nil))), changed))
}

// echo answers every request with an error that repeats all that it was sent, as badly written servers do.
func echo(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		text := fmt.Sprintf("no: %s %s %v", r.Method, r.URL, r.Header)
		if _, password, ok := r.BasicAuth(); ok {
			text += " " + password
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]string{"code": "DENIED", "message": text}}})
	}
}

// stage is a daemon with a secret in every place where one can be.
type stage struct {
	t            *testing.T
	c            *canaries
	program, dir string
	installation string
	run, state   string
	listen       string
	env          []string
	gitURL       string
	trace        string // of what the daemon wrote; empty without strace
}

func (s *stage) write(name, content string) {
	s.t.Helper()
	file := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) git(args ...string) {
	s.t.Helper()
	cmd := exec.Command("git", append([]string{"-C", filepath.Join(s.dir, "repo"), "-c", "user.name=x", "-c", "user.email=x@example.org"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

// command runs fairlead and returns what it printed, whether it succeeded or not.
func (s *stage) command(args ...string) []byte {
	cmd := exec.Command(s.program, args...)
	cmd.Env, cmd.Dir = s.env, s.dir
	out, _ := cmd.CombinedOutput()
	return out
}

// clean fails if a canary is in data.
func (s *stage) clean(what string, data []byte) {
	s.t.Helper()
	if found := s.c.in(data); len(found) > 0 {
		shown := data
		if len(shown) > 4_000 {
			shown = shown[:4_000]
		}
		s.t.Errorf("%s shows %s:\n%s", what, strings.Join(found, "; "), shown)
	}
}

// cleanOfPod looks at what the node remembers of a pod. That is its spec, with the variables that are written out in it: one
// that a substitution put there in clear is the pod's own, as it is in the environment of its container. Values that the pod
// refers to in a Secret are not in it.
func (s *stage) cleanOfPod(what string, data []byte) {
	s.t.Helper()
	for _, own := range []string{"variable", "changed variable"} {
		data = bytes.ReplaceAll(data, []byte(s.c.value(own)), []byte("(the pod's own)"))
	}
	s.clean(what, data)
}

// cleanFile looks at a file; those below state/pods are what the node remembers of pods.
func (s *stage) cleanFile(what, path string, data []byte) {
	s.t.Helper()
	if strings.HasPrefix(path, filepath.Join(s.state, "pods")+"/") {
		s.cleanOfPod(what, data)
		return
	}
	s.clean(what, data)
}

// prepare writes sources, declarations and settings.
func (s *stage) prepare(image string) {
	s.t.Helper()
	v := s.c.value
	key, err := age.GenerateX25519Identity()
	if err != nil {
		s.t.Fatal(err)
	}
	s.c.known("age key", key.String())
	seal := sealer{s.t, key}

	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		echo(http.StatusForbidden)(w, r)
	}))
	s.t.Cleanup(registry.Close)
	registryHost := strings.TrimPrefix(registry.URL, "http://")
	auth := func(place string) string {
		return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, registryHost, base64.StdEncoding.EncodeToString([]byte("puller:"+v(place))))
	}
	consul := httptest.NewServer(echo(http.StatusForbidden))
	s.t.Cleanup(consul.Close)

	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		s.t.Fatal(err)
	}
	backend := &cgi.Handler{
		Path:   strings.TrimSpace(string(out)) + "/git-http-backend",
		Env:    []string{"GIT_PROJECT_ROOT=" + s.dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
		Stderr: io.Discard,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != v("git password") || !strings.HasPrefix(r.URL.Path, "/repo/") {
			echo(http.StatusForbidden)(w, r)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	s.t.Cleanup(server.Close)
	s.gitURL = server.URL

	secret := func(name, data string) string {
		return "apiVersion: v1\nkind: Secret\nmetadata: {name: " + name + ", namespace: default}\n" + data + "\n---\n"
	}
	b64 := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	source := func(name, url, more string) string {
		return "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {name: " + name + ", namespace: default}\nspec: {url: '" + url + "', interval: 1s, ref: {branch: main}" + more + "}\n---\n"
	}
	app := func(name, source, more string) string {
		return "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: " + name + ", namespace: default}\nspec: {sourceRef: {kind: GitRepository, name: " + source + "}, path: ./" + name + ", interval: 1m, prune: true" + more + "}\n---\n"
	}
	s.write("config/all.yaml",
		secret("git", "stringData: {username: git, password: "+v("git password")+"}")+
			secret("wrong", "stringData: {username: git, password: "+v("wrong git password")+"}")+
			secret("age", "stringData: {host.agekey: "+key.String()+"}")+
			secret("variables", "stringData: {FROM_SECRET: "+v("variable")+"}")+
			secret("plain", "data: {d: "+b64(v("data"))+"}\nstringData: {s: "+v("stringData")+"}")+
			source("repo", server.URL+"/repo/.git", ", secretRef: {name: git}")+
			source("denied", server.URL+"/denied", ", secretRef: {name: wrong}")+
			source("in-url", strings.Replace(server.URL, "http://", "http://git:"+v("URL")+"@", 1)+"/nowhere", "")+
			app("shop", "repo", ", decryption: {provider: sops, secretRef: {name: age}}, postBuild: {substituteFrom: [{kind: Secret, name: variables}]}")+
			app("broken", "repo", ", decryption: {provider: sops, secretRef: {name: age}}")+
			app("badly", "repo", ", decryption: {provider: sops, secretRef: {name: age}}, postBuild: {substituteFrom: [{kind: Secret, name: variables}]}")+
			app("denied", "denied", "")+app("in-url", "in-url", ""))

	s.write("repo/shop/secret.yaml", seal.seal("Secret", "sealed", map[string]string{
		"env": v("env"), "file": v("volume"), "other": v("sealed"),
		"kubectl": `{"apiVersion":"v1","kind":"Secret","stringData":{"x":"` + v("copy") + `"}}`,
	}))
	s.write("repo/shop/config.yaml", seal.seal("ConfigMap", "sealed", map[string]string{"k": v("sealed ConfigMap")}))
	s.write("repo/shop/registry.yaml", seal.seal("Secret", "registry", map[string]string{".dockerconfigjson": auth("registry")}))
	s.write("repo/shop/shop.yaml", `apiVersion: v1
kind: ConfigMap
metadata: {name: variable}
data: {k: 'before ${FROM_SECRET} after'}
---
apiVersion: v1
kind: Secret
metadata:
  name: noted
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: '{"apiVersion":"v1","kind":"Secret","stringData":{"x":"${FROM_SECRET}"}}'
stringData: {x: 'y'}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: `+image+`
          imagePullPolicy: Never
          args: [wait]
          env:
            - {name: LITERAL, value: '${FROM_SECRET}'}
            - {name: FROM, valueFrom: {secretKeyRef: {name: sealed, key: env}}}
          envFrom: [{secretRef: {name: sealed}}, {configMapRef: {name: sealed}}]
          volumeMounts: [{name: v, mountPath: /v}]
      volumes: [{name: v, secret: {secretName: sealed}}]
---
apiVersion: v1
kind: Pod
metadata: {name: pulled}
spec:
  terminationGracePeriodSeconds: 1
  imagePullSecrets: [{name: registry}]
  containers: [{name: main, image: '`+registryHost+`/private/program:1', args: [wait]}]
---
apiVersion: v1
kind: Pod
metadata: {name: pulled-with-config}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: '`+registryHost+`/other/program:1', args: [wait]}]
`)
	s.write("repo/broken/kustomization.yaml", `resources: [secret.yaml]
patches:
  - target: {kind: Secret}
    patch: |
      - {op: test, path: /stringData/other, value: somethingelse}
      - {op: add, path: /stringData/other/below, value: x}
`)
	s.write("repo/broken/secret.yaml", seal.seal("Secret", "patched", map[string]string{"other": v("patched")}))
	s.write("repo/badly/secret.yaml", strings.Replace(seal.seal("Secret", "badly", map[string]string{"d": v("tampered with")}), "name: badly", "name: renamed", 1))
	s.write("repo/badly/immutable.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: immutable}\nimmutable: '${FROM_SECRET}'\n")
	s.write("repo/badly/bad.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: bad}\ndata: {d: '${FROM_SECRET}!'}\nunknown: '${FROM_SECRET}'\n")
	if out, err := exec.Command("git", "init", "-q", "-b", "main", filepath.Join(s.dir, "repo")).CombinedOutput(); err != nil {
		s.t.Fatalf("git init: %v\n%s", err, out)
	}
	s.git("add", "-A")
	s.git("commit", "-q", "-m", "first")

	s.write("consul-token", v("consul token"))
	s.write("docker.json", auth("docker config"))
	s.write("settings.yaml", fmt.Sprintf(`installation: %s
stateDir: %s
runDir: %s
listen: %s
configDir: %s
network: {cidr: '%s'}
services: {cidr: '%s'}
defaults: {interval: 1s, retryInterval: 1s}
log: {level: debug, format: json}
registry: {dockerConfig: %s}
consul: {address: '%s', tokenFile: %s, dns: none}
`, s.installation, s.state, s.run, s.listen, filepath.Join(s.dir, "config"), subnet(), subnet(), filepath.Join(s.dir, "docker.json"), consul.URL, filepath.Join(s.dir, "consul-token")))
}

// TestNoSecretIsShown (T-W5): Argo CD showed Secrets in diffs (CVE-2026-42880), in errors of patches (CVE-2025-23216) and in
// last-applied annotations (CVE-2023-40029). A value is put into every place where a secret can be, and looked for in
// everything that comes out: only the pod that is to have it has it.
func TestNoSecretIsShown(t *testing.T) {
	program := fairlead(t)
	image := runtimetest.Image(t)
	docker := openEngine(t)
	run, err := os.MkdirTemp("", "canary")
	if err != nil {
		t.Fatal(err)
	}
	listen, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	tmp := filepath.Join(dir, "tmp")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, c: &canaries{t: t}, program: program, dir: dir, installation: runtimetest.Name(t), run: run, state: filepath.Join(dir, "state"), listen: listen}
	s.env = append(os.Environ(), "FAIRLEAD_CONFIG="+filepath.Join(dir, "settings.yaml"), "TMPDIR="+tmp, "NO_COLOR=1", "HOME="+dir)
	s.prepare(image)
	t.Cleanup(func() {
		s.command("down", "--yes", "--config", filepath.Join(dir, "settings.yaml"))
		_ = syscall.Unmount(run, syscall.MNT_DETACH)
		if err := docker.clean(s.installation); err != nil {
			t.Error(err)
		}
		os.RemoveAll(run)
	})

	s.clean("plan", s.command("plan", "--config", "settings.yaml"))
	daemon, log := s.start(tmp)
	s.settle()
	s.outputs()
	s.engineShows(docker)

	// Everything changes: what a plan says of it, and what is undone by hand.
	text, err := os.ReadFile(filepath.Join(dir, "config/all.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.ReplaceAll(string(text), s.c.value("variable"), s.c.value("changed variable"))
	s.write("config/all.yaml", strings.ReplaceAll(changed, s.c.value("stringData"), s.c.value("changed stringData")))
	s.settle()
	s.clean("plan", s.command("plan"))
	s.write("repo/shop/more.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\ndata: {k: '${FROM_SECRET}'}\n")
	s.git("add", "-A")
	s.git("commit", "-q", "-m", "second")
	s.settle()
	s.outputs()
	s.files(tmp)

	// The dump of all goroutines, at the end.
	if err := daemon.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	_ = daemon.Wait()
	said, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(said, []byte("goroutine ")) {
		t.Errorf("SIGQUIT prints no goroutines:\n%s", said[max(0, len(said)-2000):])
	}
	s.clean("the daemon's log with the dump", said)
	s.files(tmp)
	s.written()
}

// write is a line of strace about bytes that go to a file.
var written = regexp.MustCompile(`(?m)(?:write|pwrite64|writev)\(\d+<((?:\\x[0-9a-f]{2})+)>(.*)$`)

// quoted is a text as strace writes it.
var quoted = regexp.MustCompile(`"((?:\\x[0-9a-f]{2})*)"`)

// written looks at every byte that went to a file, also to files that are gone: decrypted text is in memory only, and in
// the volumes of the pods that are to have it.
func (s *stage) written() {
	s.t.Helper()
	if s.trace == "" {
		return
	}
	text, err := os.ReadFile(s.trace)
	if err != nil {
		s.t.Fatal(err)
	}
	files := map[string]*bytes.Buffer{}
	for _, m := range written.FindAllSubmatch(text, -1) {
		name, err := hex.DecodeString(strings.ReplaceAll(string(m[1]), `\x`, ""))
		path := string(name)
		if err != nil || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, s.run+"/") {
			continue // a pipe or a socket, or the volume of a pod
		}
		if files[path] == nil {
			files[path] = &bytes.Buffer{}
		}
		for _, q := range quoted.FindAllSubmatch(m[2], -1) {
			plain, err := hex.DecodeString(strings.ReplaceAll(string(q[1]), `\x`, ""))
			if err != nil {
				s.t.Fatal(err)
			}
			files[path].Write(plain)
		}
	}
	if len(files) < 5 {
		s.t.Errorf("the trace shows writes to %d files only", len(files))
	}
	for path, data := range files {
		s.cleanFile("what was written to "+path, path, data.Bytes())
	}
	s.t.Logf("writes to %d files were looked at", len(files))
}

// start starts the daemon, and where strace is installed notes everything that it writes to files.
func (s *stage) start(tmp string) (*exec.Cmd, string) {
	s.t.Helper()
	log := filepath.Join(s.dir, "daemon.log")
	out, err := os.Create(log)
	if err != nil {
		s.t.Fatal(err)
	}
	line := []string{s.program, "run", "--config", "settings.yaml"}
	if _, err := exec.LookPath("strace"); err == nil {
		s.trace = filepath.Join(s.t.TempDir(), "trace")
		line = append([]string{"strace", "-D", "-f", "-y", "-qq", "-xx", "-s", "262144", "-e", "trace=write,pwrite64,writev", "-o", s.trace}, line...)
	} else {
		s.t.Log("strace is not installed: only what is left in files is looked at, not what is written to them")
	}
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, s.env, out, out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := false
	s.t.Cleanup(func() {
		if !ended && cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		out.Close()
	})
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", cmd.Process.Pid))
	for range 100 { // it says so as one of the first things
		if err != nil || regexp.MustCompile(`(?m)^Max core file size +0 +0 `).Match(limits) {
			break
		}
		time.Sleep(50 * time.Millisecond)
		limits, err = os.ReadFile(fmt.Sprintf("/proc/%d/limits", cmd.Process.Pid))
	}
	if !regexp.MustCompile(`(?m)^Max core file size +0 +0 `).Match(limits) {
		s.t.Errorf("the daemon may write a core file: %v\n%s", err, limits)
	}
	return cmd, log
}

// settle waits until the shop is what Git says, as far as it can be.
func (s *stage) settle() {
	s.t.Helper()
	deadline := time.Now().Add(time.Minute)
	var last []byte
	for time.Now().Before(deadline) {
		last = s.command("get", "pods", "-A", "-o", "json")
		apps := s.command("get", "applications")
		if bytes.Contains(last, []byte(`"web-`)) && bytes.Count(last, []byte("PullBackOff"))+bytes.Count(last, []byte("ErrImagePull")) >= 2 &&
			regexp.MustCompile(`(?m)^broken +.*Failed`).Match(apps) && regexp.MustCompile(`(?m)^denied +.*Failed`).Match(apps) {
			time.Sleep(1500 * time.Millisecond) // one more look at every source
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	s.t.Fatalf("the applications have not come to rest:\n%s\n%s", s.command("get", "applications"), last)
}

// outputs asks for everything that can be asked for.
func (s *stage) outputs() {
	s.t.Helper()
	commands := [][]string{
		{"plan"}, {"plan", "-o", "json"}, {"plan", "-o", "yaml"}, {"plan", "-o", "markdown"}, {"plan", "--out", "saved.plan"}, {"validate", "--config", "settings.yaml"},
		{"validate", "--config", "settings.yaml", "-o", "json"}, {"status"}, {"status", "-o", "json"}, {"events"}, {"events", "-o", "json"}, {"apply", "--plan", "saved.plan"},
		{"logs", "deploy/web"}, {"logs", "pulled"}, {"why", "shop"}, {"why", "broken"}, {"why", "pod/pulled"}, {"why", "denied"}, {"reconcile"}, {"down", "--dry-run"},
	}
	for _, kind := range []string{"applications", "sources", "pods", "deployments", "replicasets", "secrets", "configmaps", "services", "endpoints", "all"} {
		for _, form := range []string{"", "json", "yaml"} {
			commands = append(commands, []string{"get", kind, "-A", "-o", form})
			if form == "" {
				commands[len(commands)-1] = []string{"get", kind, "-A"}
			}
		}
	}
	for _, what := range []string{
		"application/shop", "application/broken", "application/badly", "application/denied", "application/in-url", "application/config", "source/repo", "source/denied", "source/in-url",
		"secret/sealed", "secret/noted", "secret/plain", "secret/registry", "secret/git", "secret/age", "configmap/variable", "configmap/sealed", "deployment/web", "pod/pulled", "pod/pulled-with-config",
	} {
		commands = append(commands, []string{"describe", what}, []string{"get", what, "-o", "yaml"})
	}
	asked := 0
	for _, args := range commands {
		out := s.command(args...)
		if len(out) > 0 && !bytes.HasPrefix(out, []byte("Error: unknown")) {
			asked++
		}
		s.clean("fairlead "+strings.Join(args, " "), out)
	}
	if saved, err := os.ReadFile(filepath.Join(s.dir, "saved.plan")); err == nil {
		s.clean("the saved plan", saved)
	}
	for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
		body, err := page("http://" + s.listen + path)
		if err != nil {
			s.t.Errorf("%s: %v", path, err)
		}
		s.clean(path, []byte(body))
	}
	s.t.Logf("%d of %d commands printed something", asked, len(commands))
}

// engineShows looks at what docker shows: labels of all containers, networks and volumes hold no secret, and the
// environment of the pod's own container does.
func (s *stage) engineShows(docker engine) {
	s.t.Helper()
	ctx := s.t.Context()
	all, err := docker.containers(ctx, s.installation)
	if err != nil || len(all) == 0 {
		s.t.Fatalf("%d containers, %v", len(all), err)
	}
	has := false
	for _, c := range all {
		full, err := docker.ContainerInspect(ctx, c.ID)
		if err != nil {
			s.t.Fatal(err)
		}
		environment := full.Config.Env
		if bytes.Contains([]byte(strings.Join(environment, "\n")), []byte(s.c.value("env"))) {
			has = true
		}
		full.Config.Env = nil // the one place of all this that is to hold them
		text, err := json.Marshal(full)
		if err != nil {
			s.t.Fatal(err)
		}
		s.cleanOfPod("docker inspect "+c.Names[0], text)
		s.cleanOfPod("the labels of "+c.Names[0], fmt.Appendf(nil, "%v", full.Config.Labels))
		logs, err := docker.ContainerLogs(ctx, c.ID, container.LogsOptions{ShowStdout: true, ShowStderr: true})
		if err == nil {
			data, _ := io.ReadAll(logs)
			logs.Close()
			s.clean("docker logs "+c.Names[0], data)
		}
	}
	if !has {
		s.t.Error("no container has the secret that it is to have")
	}
	volume := false
	_ = filepath.WalkDir(s.run, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			data, _ := os.ReadFile(p)
			volume = volume || bytes.Contains(data, []byte(s.c.value("volume")))
		}
		return nil
	})
	if !volume {
		s.t.Error("no volume in memory has the secret that it is to have")
	}
}

// files looks at every file that the daemon left, but for the volumes of the pods, which are in memory.
func (s *stage) files(tmp string) {
	s.t.Helper()
	n := 0
	for _, root := range []string{s.state, tmp} {
		err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil // it may be gone by now
			}
			data, err := os.ReadFile(p)
			if err != nil {
				return nil
			}
			n++
			s.cleanFile("the file "+strings.TrimPrefix(p, s.dir), p, data)
			return nil
		})
		if err != nil {
			s.t.Fatal(err)
		}
	}
	if n < 5 {
		s.t.Errorf("only %d files were looked at", n)
	}
	var stat syscall.Statfs_t
	if err := syscall.Statfs(s.run, &stat); err != nil || stat.Type != 0x01021994 {
		s.t.Errorf("the directory of the pods' Secrets is no tmpfs: type %#x, %v", stat.Type, err)
	}
}

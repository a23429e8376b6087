package daemon

import (
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/fake"
)

// imageWorld is a registry, and a repository with marked manifests, that a host follows.
type imageWorld struct {
	*host
	registry string // host:port
	bare     string
}

func newImageWorld(t *testing.T, automation string) *imageWorld {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	h := newHost(t)
	srv := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(srv.Close)
	w := &imageWorld{host: h, registry: strings.TrimPrefix(srv.URL, "http://"), bare: filepath.Join(h.dir, "config.git")}
	w.git(h.dir, "init", "-q", "--bare", "-b", "main", w.bare)
	w.push("1.0.0")
	work := filepath.Join(h.dir, "work")
	w.git(h.dir, "clone", "-q", w.bare, work)
	h.file("work/apps/web.yaml", w.manifest("1.0.0"))
	h.file("work/README.md", "no manifest: {\"$imagepolicy\": \"default:web\"}\n")
	w.git(work, "add", "-A")
	w.git(work, "commit", "-q", "-m", "first")
	w.git(work, "push", "-q", "origin", "HEAD:main")
	h.set.ConfigDir = filepath.Join(h.dir, "config")
	h.file("config/all.yaml", fmt.Sprintf(`apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: repo, namespace: default}
spec: {url: 'file://%s', interval: 1h, ref: {branch: main}}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: apps, namespace: default}
spec: {sourceRef: {kind: GitRepository, name: repo}, path: ./apps, interval: 1h, prune: true}
---
apiVersion: image.toolkit.fluxcd.io/v1
kind: ImageRepository
metadata: {name: web, namespace: default}
spec: {image: '%s/team/web', interval: 1h}
---
apiVersion: image.toolkit.fluxcd.io/v1
kind: ImagePolicy
metadata: {name: web, namespace: default, labels: {team: shop}}
spec: {imageRepositoryRef: {name: web}, policy: {semver: {range: 1.x}}}
---
%s`, w.bare, w.registry, automation))
	return w
}

func (w *imageWorld) manifest(tag string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: web}   # kept
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: %s/team/web:%s # {"$imagepolicy": "default:web"}
`, w.registry, tag)
}

func (w *imageWorld) git(dir string, args ...string) string {
	w.t.Helper()
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=Ada", "-c", "user.email=ada@example.com"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// push pushes an image with a tag, which the engine has as well.
func (w *imageWorld) push(tag string) {
	w.t.Helper()
	ref, err := name.ParseReference(w.registry + "/team/web:" + tag)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := remote.Write(ref, empty.Image); err != nil {
		w.t.Fatal(err)
	}
	w.engine.AddImage(ref.String(), fake.Image{Present: true, Image: runtimes.Image{ID: ref.String()}})
}

// policy is the only policy.
func (w *imageWorld) policy(s *System) api.ImagePolicy {
	all, err := s.Images(w.t.Context())
	if err != nil || len(all.Policies) != 1 {
		return api.ImagePolicy{}
	}
	return all.Policies[0]
}

const automation = `apiVersion: image.toolkit.fluxcd.io/v1
kind: ImageUpdateAutomation
metadata: {name: all, namespace: default}
spec:
  interval: 1h
  sourceRef: {kind: GitRepository, name: repo}
  git:
    commit:
      author: {name: Bot, email: bot@example.com}
      messageTemplate: |-
        Images of {{ .AutomationObject }} in {{ .Values.where }}
        {{ range .Changed.Changes }}
        - {{ .OldValue }} -> {{ .NewValue }}{{ end }}
      messageTemplateValues: {where: production}
    PUSH
  policySelector: {matchLabels: {team: shop}}
  update: {path: ./apps, strategy: Setters}
`

// TestImageUpdates follows a new tag from the registry into the repository and into what runs.
func TestImageUpdates(t *testing.T) {
	w := newImageWorld(t, strings.Replace(automation, "PUSH", "", 1))
	s := w.open(Run)
	w.state(s, "apps", "Healthy Applied")
	w.runs(w.registry + "/team/web:1.0.0")
	w.eventually(s, "the tag is chosen", func() bool { return w.policy(s).Latest == w.registry+"/team/web:1.0.0" })

	for _, tag := range []string{"1.2.0", "1.10.0", "2.0.0", "latest"} {
		w.push(tag)
	}
	// As a registry that knows itself by another name tells it.
	if n := s.LookAtImages([]string{"harbor.internal:8443/team/web"}); n != 1 {
		t.Errorf("%d repositories are looked at", n)
	}
	if n := s.LookAtImages([]string{"team/other", "web"}); n != 0 {
		t.Errorf("%d repositories are looked at for images that nobody follows", n)
	}
	w.eventually(s, "1.10.0 runs", func() bool { return slices.Equal(w.images(), []string{w.registry + "/team/web:1.10.0"}) })
	w.state(s, "apps", "Healthy Applied")
	if got, want := w.git(w.bare, "show", "main:apps/web.yaml"), strings.TrimSpace(w.manifest("1.10.0")); got != want {
		t.Errorf("the manifest is\n%s\nnot\n%s", got, want)
	}
	if got := w.git(w.bare, "diff", "--stat", "main^", "main"); !strings.Contains(got, "1 file changed, 1 insertion(+), 1 deletion(-)") {
		t.Errorf("changed: %s", got)
	}
	want := fmt.Sprintf("Bot <bot@example.com>|Images of default/all in production\n\n- %[1]s/team/web:1.0.0 -> %[1]s/team/web:1.10.0", w.registry)
	if got := w.git(w.bare, "log", "-1", "--format=%an <%ae>|%B", "main"); got != want {
		t.Errorf("the commit is %q", got)
	}
	if p := w.policy(s); p.Previous != w.registry+"/team/web:1.0.0" || p.Tags != 5 || p.Message != "" {
		t.Errorf("%+v", p)
	}
	all, err := s.Images(t.Context())
	if err != nil || len(all.Automations) != 1 || all.Automations[0].Revision != w.git(w.bare, "rev-parse", "main") || all.Automations[0].Message != "" || len(all.Automations[0].Pending) > 0 {
		t.Errorf("%v %+v", err, all.Automations)
	}
	// Nothing more is pushed when there is nothing more to change.
	at := w.git(w.bare, "rev-parse", "main")
	s.images.Look(func(string) bool { return true })
	s.images.SourceMoved("repo")
	w.eventually(s, "the automation ran again", func() bool {
		now, err := s.Images(t.Context())
		s.events.touch()
		return err == nil && now.Automations[0].Ran.After(all.Automations[0].Ran)
	})
	if now := w.git(w.bare, "rev-parse", "main"); now != at {
		t.Error("something was pushed for nothing")
	}
}

// TestImageUpdatesOnABranch pushes to another branch, which is replaced when more comes, and leaves main.
func TestImageUpdatesOnABranch(t *testing.T) {
	w := newImageWorld(t, strings.Replace(automation, "PUSH", "push: {branch: image-updates}", 1))
	w.push("1.1.0")
	s := w.open(Run)
	w.state(s, "apps", "Healthy Applied")
	main := w.git(w.bare, "rev-parse", "main")
	on := func(tag string) {
		t.Helper()
		w.eventually(s, tag+" is on the branch", func() bool {
			out, err := exec.Command("git", "-C", w.bare, "show", "image-updates:apps/web.yaml").Output()
			return err == nil && strings.TrimSpace(string(out)) == strings.TrimSpace(w.manifest(tag))
		})
	}
	on("1.1.0")
	w.push("1.2.0")
	s.images.Look(func(string) bool { return true })
	on("1.2.0")
	if got := w.git(w.bare, "rev-parse", "image-updates^"); got != main || w.git(w.bare, "rev-parse", "main") != main {
		t.Errorf("the branch is not one commit on main: %s", got)
	}
	w.eventually(s, "it waits", func() bool {
		all, err := s.Images(t.Context())
		s.events.touch()
		return err == nil && len(all.Automations[0].Pending) == 1 && strings.HasSuffix(all.Automations[0].Pending[0].New, ":1.2.0")
	})
	w.runs(w.registry + "/team/web:1.0.0")
}

// TestImageTrouble shows what is wrong, and what goes on all the same.
func TestImageTrouble(t *testing.T) {
	w := newImageWorld(t, strings.Replace(strings.Replace(automation, "PUSH", "", 1), "name: repo}", "name: nothing}", 1))
	s := w.open(Run)
	w.state(s, "config", "Failed RenderFailed", "there is no GitRepository nothing")
	w.eventually(s, "the rest goes on", func() bool { return slices.Equal(w.images(), []string{w.registry + "/team/web:1.0.0"}) })
}

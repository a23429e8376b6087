package daemon

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
	"github.com/fairlead-dev/fairlead/daemon/settings"
)

var updateComparisons = flag.Bool("update-comparisons", false, "rewrite the golden comparisons")

// gitRepo is a repository in the host's directory.
type gitRepo struct {
	h   *host
	dir string
}

func newGitRepo(h *host) *gitRepo {
	h.t.Helper()
	r := &gitRepo{h: h, dir: filepath.Join(h.dir, "repo")}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		h.t.Fatal(err)
	}
	r.git("init", "-q", "-b", "main")
	return r
}

func (r *gitRepo) git(args ...string) string {
	r.h.t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=Jane", "-c", "user.email=jane@example.org"}, args...)...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_DATE=2026-01-02T03:04:05Z", "GIT_COMMITTER_DATE=2026-01-02T03:04:05Z")
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.h.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// commit writes files, removes those whose content is "-", and commits.
func (r *gitRepo) commit(message string, files map[string]string) string {
	r.h.t.Helper()
	for name, content := range files {
		if content == "-" {
			r.h.remove(filepath.Join("repo", name))
			continue
		}
		r.h.file(filepath.Join("repo", name), content)
	}
	r.git("add", "-A")
	r.git("commit", "-q", "-m", message)
	return r.git("rev-parse", "HEAD")
}

const repoSource = `apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: repo, namespace: default}
spec: {url: 'URL', interval: 1h, ref: {branch: main}}
`

// overlaysRepo is a repository that declares its applications: two overlays of one base, and one by itself.
func overlaysRepo(h *host) *gitRepo {
	r := newGitRepo(h)
	url := "file://" + r.dir
	files := map[string]string{
		"cluster/source.yaml": strings.ReplaceAll(repoSource, "URL", url),
		"base/web.yaml":       deployment("web", "web:1", 2),
		"base/kustomization.yaml": "resources: [web.yaml]\n" +
			"configMapGenerator: [{name: settings, literals: [mode=plain]}]\n",
		"alone/left.yaml":  "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: left}\ndata: {a: \"1\"}\n",
		"alone/token.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: token}\nstringData: {token: before-the-change}\n",
	}
	for _, name := range []string{"staging", "production", "alone"} {
		files["cluster/"+name+".yaml"] = strings.ReplaceAll(fluxApp, "NAME", name)
		if name != "alone" {
			files[name+"/kustomization.yaml"] = "resources: [../base]\nnamespace: " + name + "\n"
		}
	}
	r.commit("Begin", files)
	h.set.Applications = append(h.set.Applications, settings.Application{Name: "cluster", Location: url, Path: "cluster", Ref: "main"})
	return r
}

// TestComparisons holds what changes of a repository do, whatever runs, in files that people can read.
func TestComparisons(t *testing.T) {
	for name, change := range map[string]func(r *gitRepo){
		"image-of-one-overlay": func(r *gitRepo) {
			r.commit("Another image in production", map[string]string{
				"production/kustomization.yaml": "resources: [../base]\nnamespace: production\nimages: [{name: web, newTag: \"2\"}]\n",
			})
		},
		"base-of-two-overlays": func(r *gitRepo) {
			r.commit("Three of them", map[string]string{"base/web.yaml": deployment("web", "web:1", 3)})
		},
		"nothing-that-anybody-reads": func(r *gitRepo) {
			r.commit("Words", map[string]string{"README.md": "words"})
		},
		"a-secret": func(r *gitRepo) {
			r.commit("Rotate", map[string]string{"alone/token.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: token}\nstringData: {token: after-the-change}\n"})
		},
		"application-added-and-removed": func(r *gitRepo) {
			r.commit("Move on", map[string]string{
				"cluster/alone.yaml": "-", "cluster/new.yaml": strings.ReplaceAll(fluxApp, "NAME", "new"), "new/web.yaml": deployment("other", "web:1", 1),
			})
		},
		"beyond-its-rights": func(r *gitRepo) {
			r.commit("A tenant", map[string]string{
				"cluster/tenant.yaml": strings.ReplaceAll(strings.ReplaceAll(fluxApp, "NAME", "tenant"), "prune: true", "prune: true, serviceAccountName: robot"),
				"cluster/rights.yaml": "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: robot, namespace: default}\n" +
					"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}\nsubjects: [{kind: ServiceAccount, name: robot}]\n",
				"tenant/web.yaml":  deployment("own", "web:1", 1),
				"tenant/more.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: more, namespace: elsewhere}\nstringData: {a: b}\n",
			})
		},
		"broken": func(r *gitRepo) {
			r.commit("Break", map[string]string{"base/web.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replica: 2}\n"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			r := overlaysRepo(h)
			r.git("checkout", "-q", "-b", "feature")
			change(r)
			s := h.open(Read)
			p, err := s.Plan(t.Context(), api.PlanRequest{Ref: "feature", Against: "main"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			var text bytes.Buffer
			if err := planview.Text(&text, p, planview.Options{}); err != nil {
				t.Fatal(err)
			}
			got := steady(text.String(), r)
			file := filepath.Join("testdata", "comparisons", name+".txt")
			if *updateComparisons {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error("the plan is another (-want +got):\n", diff)
			}
			again, err := s.Plan(t.Context(), api.PlanRequest{Ref: "feature", Against: "main"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			again.Created = p.Created
			if diff := cmp.Diff(p, again); diff != "" {
				t.Error("a second plan of the same commits is another:\n", diff)
			}
		})
	}
}

// steady replaces what is another in every run.
func steady(text string, r *gitRepo) string {
	text = strings.ReplaceAll(text, r.dir, "REPO")
	for name, ref := range map[string]string{"MAIN": "main", "FEATURE": "feature"} {
		id := r.git("rev-parse", ref)
		text = strings.ReplaceAll(strings.ReplaceAll(text, id, name), id[:12], name)
	}
	return text
}

package daemon

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/cgi"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
	"github.com/fairlead-dev/fairlead/daemon/settings"
	"github.com/fairlead-dev/fairlead/sources/forge"
)

// serve serves the repository over HTTP and returns its URL.
func (r *gitRepo) serve() string {
	r.h.t.Helper()
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		r.h.t.Skip("git is not installed")
	}
	server := httptest.NewServer(&cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + filepath.Dir(r.dir), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null"},
		// It complains of clients that go away.
		Stderr: io.Discard, Logger: log.New(io.Discard, "", 0),
	})
	r.h.t.Cleanup(server.Close)
	return server.URL + "/repo"
}

// previewed is a daemon that follows main of a repository that is served, and what to ask it.
func previewed(t *testing.T, change ...func(h *host)) (*host, *gitRepo, *System, api.PreviewRequest) {
	h := newHost(t)
	for _, f := range change {
		f(h)
	}
	r := newGitRepo(h)
	r.commit("Begin", map[string]string{
		"shop/web.yaml": deployment("web", "web:1", 2), "shop/left.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: left}\ndata: {a: \"1\"}\n",
	})
	url := r.serve()
	h.set.Applications = append(h.set.Applications, settings.Application{Name: "shop", Location: url, Path: "shop", Ref: "main"})
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	return h, r, s, api.PreviewRequest{Repository: []string{forge.Key(url)}, Base: "main", Head: "refs/heads/feature"}
}

// TestPreviewOfAMerge holds that a preview is of the merge, not of the branch: what the target got meanwhile is not undone.
func TestPreviewOfAMerge(t *testing.T) {
	h, r, s, ask := previewed(t)
	r.git("checkout", "-q", "-b", "feature")
	head := r.commit("Another image", map[string]string{"shop/web.yaml": deployment("web", "web:2", 2)})
	r.git("checkout", "-q", "main")
	r.commit("Meanwhile", map[string]string{"shop/left.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: left}\ndata: {a: \"2\"}\n"})
	h.engine.ForgetCalls()
	p, err := s.Preview(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Plan.Applications) != 1 || p.Applications != 1 || p.Head.ID != head || len(p.Conflicts) > 0 || p.Failed() {
		t.Fatalf("the preview is %+v", p)
	}
	a := p.Plan.Applications[0]
	if len(a.Plan.Changes) != 1 || a.Plan.Changes[0].Ref.Name != "web" || a.To.ID != head {
		t.Errorf("it changes %+v, to %s", a.Plan.Changes, a.To.ID)
	}
	// Nothing was carried out, and the merge brings what was previewed.
	h.runs("web:1", "web:1")
	r.git("merge", "-q", "--no-edit", "feature")
	if err := s.Reconcile(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	h.eventually(s, "the merge runs", func() bool { return slices.Equal(h.images(), []string{"web:2", "web:2"}) })
	h.state(s, "shop", "Healthy Applied")
	if got := s.Wants("shop"); got != a.Wants || got == "" {
		t.Errorf("after the merge %q is wanted, the preview said %q", got, a.Wants)
	}
	if st := s.statuses()[0]; !s.Includes(t.Context(), "shop", string(st.Revision), head) {
		t.Error("the merge does not include the commit that was merged")
	}
	if s.Includes(t.Context(), "shop", head, r.git("rev-parse", "main")) {
		t.Error("the branch includes its own merge")
	}
}

func TestPreviewOfAConflict(t *testing.T) {
	_, r, s, ask := previewed(t)
	r.git("checkout", "-q", "-b", "feature")
	r.commit("Three", map[string]string{"shop/web.yaml": deployment("web", "web:1", 3)})
	r.git("checkout", "-q", "main")
	r.commit("Four", map[string]string{"shop/web.yaml": deployment("web", "web:1", 4)})
	p, err := s.Preview(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Conflicts, []string{"shop/web.yaml"}) || !p.Failed() {
		t.Errorf("the preview is %+v", p)
	}
}

func TestPreviewOfABranchThatNobodyFollows(t *testing.T) {
	_, r, s, ask := previewed(t)
	r.git("branch", "feature")
	ask.Base = "other"
	if _, err := s.Preview(t.Context(), ask); err == nil || !strings.Contains(err.Error(), "no source follows branch other") {
		t.Errorf("the error is %v", err)
	}
	ask.Base, ask.Repository = "main", []string{"git.example.org/somebody/else"}
	if _, err := s.Preview(t.Context(), ask); err == nil {
		t.Error("another repository is previewed")
	}
}

// A head that is not there, as for a moment after a forge told of it, is an error, and not taken for a branch that nobody follows.
func TestPreviewOfAHeadThatIsNotThere(t *testing.T) {
	_, _, s, ask := previewed(t)
	ask.Head = "refs/pull/9/head"
	if _, err := s.Preview(t.Context(), ask); err == nil || errors.Is(err, api.ErrNotFound) || !strings.Contains(err.Error(), "refs/pull/9/head") {
		t.Errorf("the error is %v", err)
	}
}

// TestPreviewSaysWhatDiffersAlready holds that what runs otherwise than Git says stands apart from what the change does.
func TestPreviewSaysWhatDiffersAlready(t *testing.T) {
	h, r, s, ask := previewed(t)
	r.commit("An image that is not there", map[string]string{"shop/web.yaml": deployment("web", "web:none", 2)})
	if err := s.Reconcile(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	h.eventually(s, "that the main branch does not come up", func() bool { return !s.statuses()[0].Plan.Empty() || s.statuses()[0].Health != "Healthy" })
	r.git("checkout", "-q", "-b", "feature")
	r.commit("Three", map[string]string{"shop/left.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: left}\ndata: {a: \"3\"}\n"})
	p, err := s.Preview(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Plan.Applications) != 1 || len(p.Plan.Applications[0].Plan.Changes) != 1 {
		t.Errorf("the change does %+v", p.Plan.Applications)
	}
	ask.Stranger = true
	if p, err = s.Preview(t.Context(), ask); err != nil || len(p.Differs) > 0 || !p.Withheld {
		t.Errorf("a stranger is told %+v, %v", p.Differs, err)
	}
}

// TestAStrangerGetsNoKeys holds that what is encrypted is not planned for a change from outside, and that what runs is not looked up.
func TestAStrangerGetsNoKeys(t *testing.T) {
	h := newHost(t)
	r := newGitRepo(h)
	app := func(name, more string) string {
		return strings.ReplaceAll(fluxApp, "NAME", name) + more
	}
	url := r.serve()
	r.commit("Begin", map[string]string{
		"cluster/source.yaml": strings.ReplaceAll(repoSource, "URL", url),
		"cluster/locked.yaml": strings.Replace(app("locked", ""), "prune: true", "prune: true, decryption: {provider: sops}", 1),
		"cluster/open.yaml":   strings.Replace(app("open", ""), "prune: true", "prune: true, postBuild: {substituteFrom: [{kind: Secret, name: values}]}", 1),
		"cluster/values.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: values, namespace: default}\nstringData: {token: canary-4f1d9a7c}\n",
		"locked/config.yaml":  "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: locked}\ndata: {a: \"1\"}\n",
		"open/config.yaml":    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: open}\ndata: {a: \"1\"}\n",
	})
	h.set.Applications = append(h.set.Applications, settings.Application{Name: "cluster", Location: url, Path: "cluster", Ref: "main"})
	s := h.open(Run)
	h.state(s, "open", "Healthy Applied")
	r.git("checkout", "-q", "-b", "feature")
	r.commit("Take it", map[string]string{
		"cluster/values.yaml": "-",
		"open/config.yaml":    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: open}\ndata: {a: \"${token}\"}\n",
	})
	p, err := s.Preview(t.Context(), api.PreviewRequest{Repository: []string{forge.Key(url)}, Base: "main", Head: "refs/heads/feature", Stranger: true})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Locked, []string{"locked"}) {
		t.Errorf("locked are %v", p.Locked)
	}
	text := planview.Comment(p, planview.CommentOptions{Folds: true})
	if strings.Contains(text, "canary") || !strings.Contains(text, "open") {
		t.Error("the comment says\n", text)
	}
	if !strings.Contains(text, "there is no Secret default/values") {
		t.Error("the Secret that runs was looked up:\n", text)
	}
}

// TestAnApprovalOfAPreviewIsOneOfTheMerge holds that the preview of what waits for an approval and the plan after the merge agree in
// what identifies it, and that what is observed besides makes no difference; anything else in the commit does.
func TestAnApprovalOfAPreviewIsOneOfTheMerge(t *testing.T) {
	h, r, s, ask := previewed(t, func(h *host) { h.set.Defaults.Approval.Kinds = []string{"Secret"} })
	r.git("checkout", "-q", "-b", "feature")
	r.commit("A key", map[string]string{"shop/key.yaml": fmt.Sprintf(secretOf, 1)})
	p, err := s.Preview(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	b := p.Plan.Applications[0].Plan.Blocked
	if !b.Whole() || b.Digest != b.Content {
		t.Fatalf("what waits is %+v", b)
	}
	text := planview.Comment(p, planview.CommentOptions{Folds: true, Approvals: planview.Approvals{Here: true}})
	if !strings.Contains(text, "`shop` waits for an approval: `/fairlead approve "+b.Content+"`") || strings.Contains(text, "`fairlead approve shop") {
		t.Error(text)
	}
	if err := s.ApproveAs(t.Context(), "shop", b.Content, "jane"); err == nil {
		t.Error("what is not merged was approved")
	}
	h.lose() // something happens meanwhile
	r.git("checkout", "-q", "main")
	r.git("merge", "-q", "--no-edit", "feature")
	if err := s.Reconcile(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	st := h.state(s, "shop", "Degraded Blocked", "Secret default/key")
	if got := st.Plan.Blocked; got.Content != b.Content {
		t.Errorf("after the merge %+v waits, the preview said %+v", got, b)
	}
	if err := s.ApproveAs(t.Context(), "shop", st.Plan.Blocked.Digest, "jane"); err != nil {
		t.Fatal(err)
	}
	h.state(s, "shop", "Healthy Applied")
	if !strings.Contains(strings.Join(told(t, s, "shop"), "\n"), "PlanApproved: jane approved") {
		t.Errorf("told: %q", told(t, s, "shop"))
	}
}

// TestAStrangerReachesNoOtherSource holds that a change from outside can refer to nothing of applications that come from elsewhere, not
// even to find out what they have.
func TestAStrangerReachesNoOtherSource(t *testing.T) {
	h := newHost(t)
	r := newGitRepo(h)
	url := r.serve()
	r.commit("Begin", map[string]string{
		"cluster/source.yaml": strings.ReplaceAll(repoSource, "URL", url), "reader/config.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: \"read-${token}\"}\ndata: {a: \"${token}\"}\n",
	})
	h.declare("vault")
	h.file("vault/token.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: vault}\nstringData: {token: canary-4f1d9a7c}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: taken}\n")
	h.set.Applications = append(h.set.Applications, settings.Application{Name: "cluster", Location: url, Path: "cluster", Ref: "main"})
	s := h.open(Run)
	h.state(s, "cluster", "Healthy Applied")
	h.state(s, "vault", "Healthy Applied")
	r.git("checkout", "-q", "-b", "feature")
	r.commit("Take it", map[string]string{
		"cluster/reader.yaml": strings.Replace(strings.ReplaceAll(fluxApp, "NAME", "reader"), "prune: true", "prune: true, postBuild: {substituteFrom: [{kind: Secret, name: vault}]}", 1),
		"cluster/taken.yaml":  "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: taken, namespace: default}\n",
		"cluster/more.yaml":   strings.NewReplacer("NAME", "more", "name: repo", "name: vault").Replace(fluxApp),
	})
	ask := api.PreviewRequest{Repository: []string{forge.Key(url)}, Base: "main", Head: "refs/heads/feature", Stranger: true}
	p, err := s.Preview(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	text := planview.Comment(p, planview.CommentOptions{Folds: true})
	for _, leak := range []string{"canary", "owns it", "application vault", h.dir, url} {
		if strings.Contains(text, leak) {
			t.Errorf("the comment has %q:\n%s", leak, text)
		}
	}
	if !strings.Contains(text, "there is no Secret default/vault") {
		t.Error(text)
	}
	// Who may write to the repository is told, and the value is not shown to them either.
	ask.Stranger = false
	if p, err = s.Preview(t.Context(), ask); err != nil {
		t.Fatal(err)
	}
	text = planview.Comment(p, planview.CommentOptions{Folds: true})
	if !strings.Contains(text, "application vault owns it already") {
		t.Error(text)
	}
}

// TestAPreviewOfADeletionThatWaits holds that a change is shown of which nothing is done without an approval.
func TestAPreviewOfADeletionThatWaits(t *testing.T) {
	_, r, s, ask := previewed(t, func(h *host) { h.set.Defaults.Approval.Kinds = []string{"ConfigMap.example.org"} })
	r.git("checkout", "-q", "-b", "feature")
	r.commit("Confirmed", map[string]string{"shop/left.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: left, annotations: {fairlead.dev/prune: confirm}}\ndata: {a: \"1\"}\n"})
	r.git("checkout", "-q", "main")
	r.git("merge", "-q", "--no-edit", "feature")
	r.git("checkout", "-q", "-b", "gone")
	r.commit("Gone", map[string]string{"shop/left.yaml": "-"})
	ask.Head = "refs/heads/gone"
	p, err := s.Preview(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Plan.Applications) != 1 || p.Plan.Applications[0].Plan.Blocked == nil {
		t.Fatalf("it shows %+v", p.Plan.Applications)
	}
	text := planview.Comment(p, planview.CommentOptions{Folds: true, Approvals: planview.Approvals{Here: true}})
	if !strings.Contains(text, "### Fairlead: deletions wait for an approval") || !strings.Contains(text, "`/fairlead approve "+p.Plan.Applications[0].Plan.Blocked.Content+"`") {
		t.Error(text)
	}
}

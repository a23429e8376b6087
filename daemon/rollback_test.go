package daemon

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/fake"
)

// crashing is a Deployment whose pods end at once, and that has a second to come forward.
func crashing(h *host, name string) string {
	h.engine.AddImage("bad:1", fake.Image{Present: true, Image: runtimes.Image{ID: "bad:1"}, Process: fake.Process{Exits: true, Code: 1, Output: []string{"no database"}}})
	return strings.Replace(deployment(name, "bad:1", 1), "spec:\n", "spec:\n  progressDeadlineSeconds: 1\n", 1)
}

const configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: '%s'}\n"

func rollbackShop(h *host) {
	h.declare("shop")
	on := true
	h.set.Applications[0].RollbackOnFailure = &on
	h.file("shop/web.yaml", deployment("web", "web:1", 1))
	h.file("shop/settings.yaml", fmt.Sprintf(configMap, "good"))
}

// TestABadRevisionIsGoneBackFrom holds what is told of it in each of the ways in which people ask.
func TestABadRevisionIsGoneBackFrom(t *testing.T) {
	h := newHost(t)
	rollbackShop(h)
	s := h.open(Run)
	good := h.state(s, "shop", "Healthy Applied").Revision
	h.file("shop/settings.yaml", fmt.Sprintf(configMap, "bad"))
	h.file("shop/web.yaml", crashing(h, "web"))
	bad := h.state(s, "shop", "Degraded RolledBack", "back at "+good.Short()).Revision
	h.runs("web:1")
	apps, err := s.Applications(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f := apps[0].Failure
	if f == nil || f.Revision.ID != string(bad) || f.Back.ID != string(good) || f.BackAt.IsZero() || f.Reason == "" || apps[0].Ready || apps[0].Applied.ID != string(good) {
		t.Errorf("application %+v, failure %+v", apps[0], f)
	}
	p, err := s.Plan(t.Context(), api.PlanRequest{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a := p.Applications[0]; a.Failure == nil || a.To.ID != string(good) || p.Pending() || p.Failed() {
		t.Errorf("the plan is to %s, failure %+v, pending %t, failed %t", a.To.ID, a.Failure, p.Pending(), p.Failed())
	}
	all := strings.Join(told(t, s, "shop"), "\n")
	for _, want := range []string{"RevisionFailed: revision " + bad.Short(), "RollingBack: ", "RolledBack: "} {
		if !strings.Contains(all, want) {
			t.Errorf("no event %q in\n%s", want, all)
		}
	}
	metrics, err := s.recorder.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, m := range metrics {
		for _, x := range m.GetMetric() {
			values[m.GetName()] += x.GetGauge().GetValue() + x.GetCounter().GetValue()
		}
	}
	for _, name := range []string{"fairlead_application_failed", "fairlead_application_rolled_back", "fairlead_revision_failures_total", "fairlead_rollbacks_total"} {
		if values[name] != 1 {
			t.Errorf("%s is %v, want 1", name, values[name])
		}
	}
	// The fix goes forward.
	h.file("shop/web.yaml", deployment("web", "web:2", 1))
	h.state(s, "shop", "Healthy Applied")
	h.eventually(s, "web:2 runs alone", func() bool { return slices.Equal(h.images(), []string{"web:2"}) })
}

// TestApplyGoesBackToo holds that one pass without a daemon ends when the application is back, and counts as failed.
func TestApplyGoesBackToo(t *testing.T) {
	h := newHost(t)
	rollbackShop(h)
	s := h.open(Once)
	if r, err := s.Apply(t.Context(), api.ApplyRequest{}, nil); err != nil || r.Failed() {
		t.Fatalf("%+v, %v", r, err)
	}
	h.file("shop/web.yaml", crashing(h, "web"))
	r, err := s.Apply(t.Context(), api.ApplyRequest{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Failed() || !strings.Contains(r.Outcomes[0].Error.Message, "RolledBack: revision ") {
		t.Errorf("outcomes %+v", r.Outcomes)
	}
	h.runs("web:1")
}

// TestATimeoutHoldsNobodyUp: an application waits in vain until its timeout, on a node that takes one step at a time.
// Others are not held up by it, and its own next commit goes through.
func TestATimeoutHoldsNobodyUp(t *testing.T) {
	h := newHost(t)
	h.set.Pods.Slots = 1
	repo := filepath.Join(h.dir, "repo")
	commit := func() {
		t.Helper()
		for _, args := range [][]string{{"init", "-q", "-b", "main", repo}, {"-C", repo, "add", "-A"}, {"-C", repo, "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q", "-m", "x"}} {
			if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
				t.Fatalf("git %v: %v\n%s", args, err, out)
			}
		}
	}
	h.file("repo/slow/web.yaml", deployment("web", "web:1", 2))
	commit()
	h.declare("root")
	h.file("root/source.yaml", "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {name: repo, namespace: default}\nspec: {url: 'file://"+repo+"', interval: 1h, ref: {branch: main}}\n")
	h.file("root/slow.yaml", strings.ReplaceAll(strings.Replace(fluxApp, "prune: true", "prune: true, wait: true, timeout: 1s", 1), "NAME", "slow"))
	h.declare("shop")
	h.file("shop/web.yaml", deployment("other", "web:1", 1))
	s := h.open(Run)
	h.state(s, "slow", "Healthy Applied")
	h.state(s, "shop", "Healthy Applied")

	h.engine.AddImage("web:never", fake.Image{Pull: fake.Pull{Takes: time.Hour}})
	h.file("repo/slow/web.yaml", deployment("web", "web:never", 2))
	commit()
	if err := s.Reconcile(t.Context(), []string{"slow"}); err != nil {
		t.Fatal(err)
	}
	h.state(s, "slow", "Progressing Applying")
	h.file("shop/web.yaml", deployment("other", "web:2", 1))
	h.eventually(s, "the other goes on", func() bool { return slices.Contains(h.images(), "web:2") })
	h.state(s, "slow", "Failed RevisionFailed", "within 1s")
	h.file("repo/slow/web.yaml", deployment("web", "web:2", 2))
	commit()
	if err := s.Reconcile(t.Context(), []string{"slow"}); err != nil {
		t.Fatal(err)
	}
	h.state(s, "slow", "Healthy Applied")
	h.eventually(s, "all is new", func() bool { return slices.Equal(h.images(), []string{"web:2", "web:2", "web:2"}) })
}

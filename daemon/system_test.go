package daemon

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/fake"
)

func TestADirectoryIsReconciledAndFollowed(t *testing.T) {
	h := newHost(t)
	h.declare("shop")
	h.file("shop/web.yaml", deployment("web", "web:1", 2))
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	h.runs("web:1", "web:1")
	h.file("shop/web.yaml", deployment("web", "web:2", 1))
	h.eventually(s, "web:2 runs alone", func() bool { return slices.Equal(h.images(), []string{"web:2"}) })
	h.state(s, "shop", "Healthy Applied")
	all := strings.Join(told(t, s, "shop"), "\n")
	for _, want := range []string{"Planned: Plan: ", "Step: ", "Applied: applied "} {
		if !strings.Contains(all, want) {
			t.Errorf("no event %q in\n%s", want, all)
		}
	}
}

func TestARestartOfTheDaemonTouchesNoContainer(t *testing.T) {
	h := newHost(t)
	h.declare("shop")
	h.file("shop/web.yaml", deployment("web", "web:1", 2))
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	h.stop(s)
	h.runs("web:1", "web:1")
	h.engine.ForgetCalls()
	s = h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	h.stop(s)
	if calls := h.engine.Mutations(); len(calls) > 0 {
		t.Errorf("mutating calls: %v", calls)
	}
}

const fluxApp = `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: NAME, namespace: default}
spec: {sourceRef: {kind: GitRepository, name: repo}, path: ./NAME, interval: 1h, prune: true}
`

func TestOneBrokenApplicationStopsNoOther(t *testing.T) {
	h := newHost(t)
	h.declare("bad")
	h.declare("shop")
	h.file("bad/web.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {replica: 2}\n")
	h.file("shop/web.yaml", deployment("web", "web:1", 1))
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	h.state(s, "bad", "Failed RenderFailed", "web.yaml:4", "replica")
	h.runs("web:1")
	// What was fixed is applied.
	h.file("bad/web.yaml", deployment("x", "web:2", 1))
	h.state(s, "bad", "Healthy Applied")
	h.runs("web:1", "web:2")
}

func TestTwoApplicationsThatClaimOneObject(t *testing.T) {
	h := newHost(t)
	h.declare("a")
	h.file("a/web.yaml", deployment("web", "web:1", 1))
	h.declare("b")
	h.file("b/other.yaml", deployment("other", "web:1", 1))
	s := h.open(Run)
	h.state(s, "a", "Healthy Applied")
	h.state(s, "b", "Healthy Applied")
	h.file("b/web.yaml", deployment("web", "web:2", 3))
	h.state(s, "b", "Failed PlanFailed", "Deployment default/web", "application a")
	h.state(s, "a", "Healthy Applied")
	h.runs("web:1", "web:1")
	// After a restart the first keeps it, whichever is looked at first.
	h.stop(s)
	slices.Reverse(h.set.Applications)
	s = h.open(Run)
	h.state(s, "b", "Failed PlanFailed", "application a")
	h.state(s, "a", "Healthy Applied")
	h.runs("web:1", "web:1")
	// When it lets go, the other takes over.
	h.file("a/left.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: left}\n")
	h.remove("a/web.yaml")
	h.state(s, "b", "Healthy Applied")
	h.eventually(s, "b's pods run", func() bool {
		return slices.Equal(h.images(), []string{"web:1", "web:2", "web:2", "web:2"})
	})
	h.state(s, "a", "Healthy Applied")
}

func TestPlanOnlyReads(t *testing.T) {
	h := newHost(t)
	h.declare("shop")
	h.file("shop/web.yaml", deployment("web", "web:1", 2))
	s := h.open(Read)
	p, err := s.Plan(t.Context(), api.PlanRequest{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c := p.Counts(); c != (api.Counts{Add: 3}) {
		t.Errorf("counts %+v, failed %v", c, p.Failed())
	}
	if _, err := s.Status(t.Context()); err != nil {
		t.Error(err)
	}
	h.stop(s)
	if calls := h.engine.Mutations(); len(calls) > 0 {
		t.Errorf("mutating calls: %v", calls)
	}
	if _, err := os.Stat(h.set.StateDir); !os.IsNotExist(err) {
		t.Errorf("the state directory was made (%v)", err)
	}
}

func TestValidateNeedsNoEngine(t *testing.T) {
	h := newHost(t)
	h.engine.Down()
	h.declare("bad")
	h.declare("shop")
	h.file("bad/web.yaml", "a: [")
	h.file("shop/web.yaml", deployment("web", "web:1", 2))
	s := h.open(Validate)
	v, err := s.Validate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Applications) != 2 || !v.Applications[0].Diags.HasErrors() || v.Applications[1].Diags.HasErrors() || v.Applications[1].Kinds["Deployment"] != 1 {
		t.Errorf("%+v", v)
	}
	for _, d := range v.Applications[0].Diags {
		if d.Code == "incomplete" {
			t.Errorf("a finding beside the point: %s", d)
		}
	}
	if calls := h.engine.Calls(); len(calls) > 0 {
		t.Errorf("calls: %v", calls)
	}
}

func TestApplyMakesOnePass(t *testing.T) {
	h := newHost(t)
	h.declare("shop")
	h.file("shop/web.yaml", deployment("web", "web:1", 2))
	s := h.open(Once)
	h.runs()
	r, err := s.Apply(t.Context(), api.ApplyRequest{}, nil)
	if err != nil || r.Failed() {
		t.Fatalf("%+v, %v", r, err)
	}
	h.runs("web:1", "web:1")
	p, err := s.Plan(t.Context(), api.PlanRequest{}, nil)
	if err != nil || p.Pending() {
		t.Errorf("a second plan has something to do: %+v, %v", p.Counts(), err)
	}
}

func TestApplySaysWhatFailed(t *testing.T) {
	h := newHost(t)
	h.declare("shop")
	h.file("shop/web.yaml", deployment("web", "web:missing", 1))
	h.engine.AddImage("web:missing", fake.Image{Pull: fake.Pull{Err: runtimes.ErrDenied}})
	s := h.open(Once)
	r, err := s.Apply(t.Context(), api.ApplyRequest{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Outcomes) != 1 || r.Outcomes[0].Error == nil || !strings.Contains(r.Outcomes[0].Error.Message, "web:missing") {
		t.Errorf("outcomes %+v", r.Outcomes)
	}
}

func TestASavedPlanIsRefusedWhenSomethingMoved(t *testing.T) {
	h := newHost(t)
	h.declare("shop")
	h.file("shop/web.yaml", deployment("web", "web:1", 1))
	s := h.open(Once)
	p, err := s.Plan(t.Context(), api.PlanRequest{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	h.file("shop/web.yaml", deployment("web", "web:2", 1))
	_, err = s.Apply(t.Context(), api.ApplyRequest{Expect: p.Expect()}, nil)
	if !isMoved(err) || !strings.Contains(err.Error(), "made from contents "+short(p.Applications[0].To.ID)) || !strings.Contains(err.Error(), "application shop") {
		t.Errorf("moved commit: %v", err)
	}
	h.runs()
	if p, err = s.Plan(t.Context(), api.PlanRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Apply(t.Context(), api.ApplyRequest{Expect: p.Expect()}, nil); err != nil || r.Failed() {
		t.Fatalf("%+v, %v", r, err)
	}
	h.runs("web:2")
	// The same plan again: what is observed has moved.
	_, err = s.Apply(t.Context(), api.ApplyRequest{Expect: p.Expect()}, nil)
	if !isMoved(err) || !strings.Contains(err.Error(), "observed state "+short(string(p.Applications[0].Plan.Basis))) {
		t.Errorf("moved state: %v", err)
	}
}

func TestDownRemovesEverythingAndStays(t *testing.T) {
	h := newHost(t)
	h.declare("shop")
	h.file("shop/web.yaml", deployment("web", "web:1", 2))
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	foreign := h.engine.AddForeign("neighbour")
	show, err := s.Down(t.Context(), api.DownRequest{DryRun: true}, nil)
	if err != nil || len(show.Applications) != 1 || len(show.Applications[0].Plan.Steps) != 2 {
		t.Fatalf("%+v, %v", show, err)
	}
	if c := show.Applications[0].Plan.Changes[0].Cause; strings.Contains(c, "source") {
		t.Errorf("the cause is %q: nothing is gone from the source", c)
	}
	h.runs("web:1", "web:1")
	var said []string
	if _, err := s.Down(t.Context(), api.DownRequest{}, func(e api.Event) { said = append(said, e.Message) }); err != nil {
		t.Fatal(err)
	}
	h.runs()
	if d := cmp.Diff([]string{"application shop is gone"}, said); d != "" {
		t.Error(d)
	}
	if h.cleared != 1 {
		t.Errorf("what pods stood on was cleared %d times", h.cleared)
	}
	if !slices.ContainsFunc(h.engine.Containers(), func(c fake.State) bool { return c.ID == foreign && c.Running }) {
		t.Error("a foreign container was touched")
	}
	// It stays down though the source changes, until somebody asks.
	h.file("shop/web.yaml", deployment("web", "web:2", 1))
	h.state(s, "shop", "Suspended Suspended")
	h.runs()
	if err := s.Reconcile(t.Context(), []string{"shop"}); err != nil {
		t.Fatal(err)
	}
	h.state(s, "shop", "Healthy Applied")
	h.runs("web:2")
}

func TestDownWithoutAnythingClearsTheGround(t *testing.T) {
	h := newHost(t)
	s := h.open(Once)
	if _, err := s.Down(t.Context(), api.DownRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	if h.cleared != 1 {
		t.Errorf("cleared %d times", h.cleared)
	}
}

func TestAPodThatIsRemovedByHandIsMadeAgain(t *testing.T) {
	h := newHost(t)
	h.declare("shop")
	h.file("shop/web.yaml", deployment("web", "web:1", 1))
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	for _, c := range h.engine.Containers() {
		h.engine.Hand().Remove(c.ID)
	}
	h.eventually(s, "it runs again", func() bool { return slices.Equal(h.images(), []string{"web:1"}) })
	h.state(s, "shop", "Healthy Applied")
}

func TestAnEngineThatIsAwayIsAConditionAndLosesNothing(t *testing.T) {
	h := newHost(t)
	h.declare("shop")
	h.file("shop/web.yaml", deployment("web", "web:1", 1))
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	h.engine.Down()
	h.file("shop/web.yaml", deployment("web", "web:2", 1))
	h.eventually(s, "it is said", func() bool {
		st, err := s.Status(t.Context())
		return err == nil && !st.Nodes[0].Reachable && !st.Ready && st.Applications[0].Health != api.Healthy
	})
	h.engine.Up()
	h.state(s, "shop", "Healthy Applied")
	h.eventually(s, "the new one runs alone", func() bool { return slices.Equal(h.images(), []string{"web:2"}) })
}

func TestADirectoryThatIsMissingIsNamed(t *testing.T) {
	h := newHost(t)
	h.declare("shop")
	h.declare("gone")
	h.file("shop/web.yaml", deployment("web", "web:1", 1))
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	h.state(s, "gone", "Failed SourceFailed", filepath.Join(h.dir, "gone"))
	// And a directory that goes away later deletes nothing.
	h.remove("shop")
	h.state(s, "shop", "Degraded SourceFailed", filepath.Join(h.dir, "shop"), "stays in force")
	h.runs("web:1")
}

func isMoved(err error) bool { return errors.Is(err, api.ErrMoved) }

// declaredShop makes a repository with a pod, and an application "root" that declares the application "shop" of it.
func declaredShop(h *host) {
	h.t.Helper()
	h.declare("root")
	h.file("repo/shop/web.yaml", deployment("web", "web:1", 1))
	repo := filepath.Join(h.dir, "repo")
	for _, args := range [][]string{
		{"init", "-q", "-b", "main", repo},
		{"-C", repo, "add", "-A"},
		{"-C", repo, "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q", "-m", "first"},
	} {
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			h.t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	h.file("root/source.yaml", "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {name: repo, namespace: default}\nspec: {url: 'file://"+repo+"', interval: 1h, ref: {branch: main}}\n")
	h.file("root/shop.yaml", strings.ReplaceAll(fluxApp, "NAME", "shop"))
}

func TestWhatIsNoLongerDeclaredGoes(t *testing.T) {
	for name, whileDown := range map[string]bool{"while the daemon runs": false, "while it does not": true} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			declaredShop(h)
			s := h.open(Run)
			h.state(s, "shop", "Healthy Applied")
			h.runs("web:1")
			if whileDown {
				h.stop(s)
			}
			if err := os.Remove(filepath.Join(h.dir, "root/shop.yaml")); err != nil {
				t.Fatal(err)
			}
			if whileDown {
				s = h.open(Run)
			}
			h.eventually(s, "nothing runs", func() bool { return len(h.images()) == 0 })
			h.eventually(s, "shop is forgotten", func() bool {
				names, err := s.store.Applications()
				return err == nil && !slices.Contains(names, "shop")
			})
		})
	}
}

func TestWhatADeclarerDeclaredGoesWithIt(t *testing.T) {
	h := newHost(t)
	declaredShop(h)
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	if _, err := s.Down(t.Context(), api.DownRequest{Applications: []string{"root"}}, nil); err != nil {
		t.Fatal(err)
	}
	h.eventually(s, "nothing runs", func() bool { return len(h.images()) == 0 })
}

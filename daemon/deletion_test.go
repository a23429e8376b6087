package daemon

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/render/diag"
)

// many declares an application with ten ConfigMaps and a Deployment.
func many(h *host) {
	h.t.Helper()
	h.declare("shop")
	h.file("shop/web.yaml", deployment("web", "web:1", 1))
	for i := range 10 {
		h.file(fmt.Sprintf("shop/c%d.yaml", i), fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c%d}\ndata: {a: b}\n", i))
	}
}

func TestALargeDeletionWaitsForItsApproval(t *testing.T) {
	h := newHost(t)
	many(h)
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	first := h.state(s, "shop", "Healthy Applied").Inventory
	for i := range 8 {
		h.remove(fmt.Sprintf("shop/c%d.yaml", i))
	}
	h.file("shop/web.yaml", deployment("web", "web:2", 1))
	st := h.state(s, "shop", "Degraded Blocked", "fairlead approve shop ", "8 of 12")
	h.eventually(s, "the rest of the plan is carried out", func() bool { return strings.Join(h.images(), " ") == "web:2" })
	if st = h.state(s, "shop", "Degraded Blocked", "8 of 12"); len(st.Inventory) != len(first) {
		t.Fatalf("%d of %d objects are left", len(st.Inventory), len(first))
	}
	if out, err := s.Plan(t.Context(), api.PlanRequest{}, nil); err != nil || out.Applications[0].Plan.Blocked == nil {
		t.Fatalf("a plan does not show that an approval is needed: %v", err)
	}
	if _, err := s.Approve(t.Context(), api.ApproveRequest{Application: "shop", Digest: "0123"}); !errors.Is(err, api.ErrMoved) {
		t.Fatalf("another digest: %v", err)
	}
	if _, err := s.Approve(t.Context(), api.ApproveRequest{Application: "shp", Digest: "0123"}); !errors.Is(err, api.ErrNotFound) {
		t.Fatalf("another application: %v", err)
	}
	old := st.Plan.Blocked.Digest

	// What was seen is no longer what would go.
	h.remove("shop/c8.yaml")
	st = h.state(s, "shop", "Degraded Blocked", "9 of 12")
	if _, err := s.Approve(t.Context(), api.ApproveRequest{Application: "shop", Digest: old}); !errors.Is(err, api.ErrMoved) {
		t.Fatalf("the digest of another set: %v", err)
	}
	h.stop(s)
	s = h.open(Run)
	st = h.state(s, "shop", "Degraded Blocked", "9 of 12")
	res, err := s.Approve(t.Context(), api.ApproveRequest{Application: "shop", Digest: st.Plan.Blocked.Digest})
	if err != nil || !strings.Contains(res.By, "uid ") {
		t.Fatalf("%+v, %v", res, err)
	}
	if st = h.state(s, "shop", "Healthy Applied"); len(st.Inventory) != 2 {
		t.Fatalf("%d objects are left", len(st.Inventory))
	}
	if !strings.Contains(strings.Join(told(t, s, "shop"), "\n"), "PruneApproved: "+res.By) {
		t.Errorf("nobody is told who approved: %q", told(t, s, "shop"))
	}
	h.runs("web:2")
}

// An approval outlives a restart, also one that was given while nothing was carried out.
func TestAnApprovalIsDurable(t *testing.T) {
	h := newHost(t)
	many(h)
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	for i := range 10 {
		h.remove(fmt.Sprintf("shop/c%d.yaml", i))
	}
	digest := h.state(s, "shop", "Degraded Blocked").Plan.Blocked.Digest
	h.stop(s)
	s = h.open(Once)
	if _, err := s.Approve(t.Context(), api.ApproveRequest{Application: "shop", Digest: digest}); err != nil {
		t.Fatal(err)
	}
	h.stop(s)
	s = h.open(Run)
	if st := h.state(s, "shop", "Healthy Applied"); len(st.Inventory) != 1 {
		t.Fatalf("%d objects are left", len(st.Inventory))
	}
	if list, err := s.store.Approvals("shop"); err != nil || len(list) != 0 {
		t.Errorf("the approval is still there: %v, %v", list, err)
	}
}

func TestAnAnnotationApproves(t *testing.T) {
	h := newHost(t)
	declaredShop(h)
	for i := range 10 {
		h.file(fmt.Sprintf("repo/shop/c%d.yaml", i), fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c%d}\ndata: {a: b}\n", i))
	}
	commit(h)
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	for i := range 10 {
		h.remove(fmt.Sprintf("repo/shop/c%d.yaml", i))
	}
	commit(h)
	poll(h, s)
	digest := h.state(s, "shop", "Degraded Blocked").Plan.Blocked.Digest
	h.file("root/shop.yaml", annotated(fmt.Sprintf("fairlead.dev/approve-prune: '%s'", digest)))
	if st := h.state(s, "shop", "Healthy Applied"); len(st.Inventory) != 1 {
		t.Fatalf("%d objects are left", len(st.Inventory))
	}
}

// A limit of a declaration holds for its application.
func TestALimitOfADeclaration(t *testing.T) {
	h := newHost(t)
	declaredShop(h)
	h.file("root/shop.yaml", annotated("fairlead.dev/prune-max-share: '10', fairlead.dev/prune-max-count: '0'"))
	h.file("repo/shop/c.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n")
	commit(h)
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	h.remove("repo/shop/c.yaml")
	commit(h)
	poll(h, s)
	h.state(s, "shop", "Degraded Blocked", "ConfigMap default/c")
}

// annotated declares shop with annotations.
func annotated(notes string) string {
	return strings.Replace(strings.ReplaceAll(fluxApp, "NAME", "shop"), "namespace: default}", "namespace: default, annotations: {"+notes+"}}", 1)
}

// An application that is no longer declared is under the limit as well; down is not.
func TestARemovedDeclarationIsUnderTheLimit(t *testing.T) {
	h := newHost(t)
	declaredShop(h)
	h.file("repo/shop/web.yaml", deployment("web", "web:1", 6))
	commit(h)
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	h.remove("root/shop.yaml")
	st := h.state(s, "shop", "Degraded Blocked")
	if n := len(h.images()); n != 6 {
		t.Fatalf("%d pods run", n)
	}
	h.stop(s)
	s = h.open(Run)
	st = h.state(s, "shop", "Degraded Blocked")
	if _, err := s.Approve(t.Context(), api.ApproveRequest{Application: "shop", Digest: st.Plan.Blocked.Digest}); err != nil {
		t.Fatal(err)
	}
	h.eventually(s, "nothing runs", func() bool { return len(h.images()) == 0 })
}

func TestDownIsNotUnderTheLimit(t *testing.T) {
	h := newHost(t)
	many(h)
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	if _, err := s.Down(t.Context(), api.DownRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	h.runs()
}

// commit commits everything in the repository, or nothing when nothing changed.
func commit(h *host) {
	h.t.Helper()
	inRepo(h, "add", "-A")
	inRepo(h, "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q", "--allow-empty", "-m", "next")
}

// inRepo runs git in the repository.
func inRepo(h *host, args ...string) string {
	h.t.Helper()
	return run(h, append([]string{"git", "-C", filepath.Join(h.dir, "repo")}, args...)...)
}

// poll has every source looked at.
func poll(h *host, s *System) {
	h.t.Helper()
	if err := s.fetchAll(h.t.Context(), nil); err != nil {
		h.t.Fatal(err)
	}
}

func run(h *host, args ...string) string {
	h.t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return string(out)
}

const secretOf = "apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {v: \"%d\"}\n"

// While a change of a chosen kind waits, nothing of its commit is carried out, and what runs is looked after.
func TestAChangeOfAChosenKindWaits(t *testing.T) {
	h := newHost(t)
	h.set.Defaults.Approval.Kinds = []string{"Secret"}
	h.declare("shop")
	h.file("shop/web.yaml", deployment("web", "web:1", 1))
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")

	h.file("shop/key.yaml", fmt.Sprintf(secretOf, 1))
	h.file("shop/web.yaml", deployment("web", "web:2", 1))
	st := h.state(s, "shop", "Degraded Blocked", "nothing is carried out without an approval, since the settings ask for it for Secret: Secret default/key", "fairlead approve shop ")
	h.runs("web:1")
	h.lose()
	h.eventually(s, "the lost pod is there again", func() bool { return strings.Join(h.images(), " ") == "web:1" })
	if st = h.state(s, "shop", "Degraded Blocked"); len(st.Inventory) != 1 {
		t.Fatalf("%d objects are recorded", len(st.Inventory))
	}
	h.stop(s)
	s = h.open(Run)
	st = h.state(s, "shop", "Degraded Blocked", "Secret default/key")
	res, err := s.Approve(t.Context(), api.ApproveRequest{Application: "shop", Digest: st.Plan.Blocked.Digest})
	if err != nil || len(res.Approved.Changes) != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	h.state(s, "shop", "Healthy Applied")
	h.runs("web:2")
	if list, err := s.store.Approvals("shop"); err != nil || len(list) != 0 {
		t.Errorf("the approval is still there: %v, %v", list, err)
	}
	if !strings.Contains(strings.Join(told(t, s, "shop"), "\n"), "PlanApproved: "+res.By) {
		t.Errorf("nobody is told who approved: %q", told(t, s, "shop"))
	}

	// The way back and forth again is asked about every time.
	for _, n := range []int{2, 1} {
		h.file("shop/key.yaml", fmt.Sprintf(secretOf, n))
		st = h.state(s, "shop", "Degraded Blocked", "Secret default/key")
		if _, err := s.Approve(t.Context(), api.ApproveRequest{Application: "shop", Digest: st.Plan.Blocked.Digest}); err != nil {
			t.Fatal(err)
		}
		h.state(s, "shop", "Healthy Applied")
	}
	// So is deleting it, while the rest goes on.
	h.remove("shop/key.yaml")
	h.file("shop/web.yaml", deployment("web", "web:1", 1))
	st = h.state(s, "shop", "Degraded Blocked", "1 of ", "Secret default/key")
	h.eventually(s, "the rest is carried out", func() bool { return strings.Join(h.images(), " ") == "web:1" })
}

// lose removes all containers, as somebody may by hand.
func (h *host) lose() {
	h.t.Helper()
	for _, id := range h.ids() {
		h.engine.Hand().Remove(id)
	}
}

// A declaration can ask for more than the settings, and not for less.
func TestKindsOfADeclaration(t *testing.T) {
	h := newHost(t)
	declaredShop(h)
	h.set.Defaults.Approval.Kinds = []string{"Secret"}
	h.file("root/shop.yaml", annotated("fairlead.dev/approve-kinds: 'Deployment.apps, ConfigMap'"))
	commit(h)
	s := h.open(Run)
	h.state(s, "shop", "Degraded Blocked", "Deployment default/web")
	if got := strings.Join(h.state(s, "shop", "Degraded Blocked").Config.Approval.Kinds, " "); got != "Secret Deployment.apps ConfigMap" {
		t.Errorf("the kinds are %q", got)
	}
	h.file("root/shop.yaml", annotated("fairlead.dev/approve-kinds: 'deployments'"))
	h.eventually(s, "the finding", func() bool {
		return slices.ContainsFunc(s.statuses(), func(st reconcile.Status) bool {
			return slices.ContainsFunc(st.Diags, func(d diag.Diagnostic) bool { return strings.Contains(d.Message, `"deployments" is no kind`) })
		})
	})
}

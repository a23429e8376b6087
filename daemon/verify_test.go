package daemon

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/daemon/settings"
)

// signing is an SSH key that git signs commits of the host's repository with.
type signing struct {
	file, public string
}

func newSigning(h *host, name string) signing {
	h.t.Helper()
	for _, program := range []string{"git", "ssh-keygen"} {
		if _, err := exec.LookPath(program); err != nil {
			h.t.Skipf("%s is not installed", program)
		}
	}
	file := filepath.Join(h.t.TempDir(), name)
	run(h, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name+"@example.com", "-f", file)
	public, err := os.ReadFile(file + ".pub")
	if err != nil {
		h.t.Fatal(err)
	}
	return signing{file, strings.TrimSpace(string(public))}
}

// commit commits everything in the repository, signed; it returns the commit.
func (s signing) commit(h *host, message string) string {
	h.t.Helper()
	inRepo(h, "add", "-A")
	inRepo(h, "-c", "gpg.format=ssh", "-c", "user.signingkey="+s.file, "-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "-q", "-S", "--allow-empty", "-m", message)
	return strings.TrimSpace(run(h, "git", "-C", filepath.Join(h.dir, "repo"), "rev-parse", "HEAD"))
}

// trust writes the Secret with the keys of who may sign.
func trust(h *host, keys ...signing) {
	h.t.Helper()
	list := ""
	for _, k := range keys {
		list += "  " + filepath.Base(k.file) + ".pub: '" + k.public + "'\n"
	}
	h.file("root/signers.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: signers, namespace: default}\nstringData:\n"+list)
}

// TestOnlySignedCommitsAreApplied goes through what can happen to an application whose source asks for signatures.
func TestOnlySignedCommitsAreApplied(t *testing.T) {
	h := newHost(t)
	ada, eve := newSigning(h, "ada"), newSigning(h, "eve")
	declaredShop(h)
	trust(h, ada)
	h.file("root/source.yaml", fmt.Sprintf(repository, "file://"+filepath.Join(h.dir, "repo"), ", verify: {mode: HEAD, secretRef: {name: signers}}"))
	s := h.open(Run)
	// The first commit is not signed, and nothing was good before.
	h.state(s, "shop", "Failed RevisionRefused", "is not signed", "Secret default/signers")
	h.runs()

	good := ada.commit(h, "signed by Ada")
	_ = s.Reconcile(t.Context(), nil)
	h.state(s, "shop", "Healthy Applied")
	h.runs("web:1")
	if all := strings.Join(told(t, s, ""), "\n"); !strings.Contains(all, "commit signed by ada@example.com (SSH key SHA256:") {
		t.Errorf("no event says who signed:\n%s", all)
	}
	p, err := s.Plan(t.Context(), api.PlanRequest{Applications: []string{"shop"}}, nil)
	if err != nil || !strings.Contains(p.Applications[0].To.Signed(), "commit by ada@example.com (SSH key SHA256:") {
		t.Errorf("the plan says it is signed by %q, %v", p.Applications[0].To.Signed(), err)
	}

	// A commit of somebody else declares something, changes an image, and deletes the rest.
	h.file("repo/shop/web.yaml", deployment("web", "web:2", 1))
	h.file("repo/shop/more.yaml", strings.ReplaceAll(fluxApp, "NAME", "evil"))
	bad := eve.commit(h, "signed by Eve")
	_ = s.Reconcile(t.Context(), nil)
	refused := func(s *System) {
		t.Helper()
		h.state(s, "shop", "Degraded RevisionRefused", bad[:12], "signed by Eve", "SHA256:", "not among those that may sign", "revision "+good[:12]+" stays in force")
		h.runs("web:1")
		if slices.ContainsFunc(s.statuses(), func(st reconcile.Status) bool { return st.Config.Name == "evil" }) {
			t.Error("what was refused has declared an application")
		}
	}
	refused(s)
	apps, err := s.Applications(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range apps {
		for _, c := range a.Conditions {
			if a.Name == "shop" && c.Type == "SourceVerified" && (c.Status != "False" || c.Reason != "UnknownKey" || !strings.Contains(c.Message, bad[:12])) {
				t.Errorf("condition %+v", c)
			}
		}
	}
	if all := strings.Join(told(t, s, ""), "\n"); !strings.Contains(all, "RevisionRefused: ") || !strings.Contains(all, bad[:12]) {
		t.Errorf("no event tells of it:\n%s", all)
	}
	if p, err = s.Plan(t.Context(), api.PlanRequest{Applications: []string{"shop"}}, nil); err != nil || !p.Failed() || p.Applications[0].To.ID != good {
		t.Errorf("the plan: to %s, %v, %v", p.Applications[0].To.ID, p.Applications[0].Plan.Diags, err)
	}
	if _, err := s.Plan(t.Context(), api.PlanRequest{Ref: bad}, nil); err == nil || !strings.Contains(err.Error(), "not among those that may sign") {
		t.Errorf("a plan at the refused commit: %v", err)
	}

	// What runs is still looked after, also by the next daemon.
	lost := func(s *System) {
		t.Helper()
		for _, c := range h.engine.Containers() {
			h.engine.Hand().Remove(c.ID)
		}
		h.eventually(s, "it runs again", func() bool { return slices.Equal(h.images(), []string{"web:1"}) })
	}
	lost(s)
	h.stop(s)
	s = h.open(Run)
	refused(s)
	lost(s)

	// The list of keys counts at once, in both directions.
	h.remove("repo/shop/more.yaml")
	newest := ada.commit(h, "signed by Ada again")
	_ = s.Reconcile(t.Context(), nil)
	h.state(s, "shop", "Healthy Applied")
	h.eventually(s, "the new image runs", func() bool { return slices.Equal(h.images(), []string{"web:2"}) })
	trust(h, eve)
	h.state(s, "shop", "Degraded RevisionRefused", newest[:12], "not among those that may sign")
	h.runs("web:2")
	trust(h, eve, ada)
	h.state(s, "shop", "Healthy Applied")
	h.runs("web:2")
	// Without the Secret nothing is trusted, and what runs stays.
	h.remove("root/signers.yaml")
	h.state(s, "shop", "Degraded RevisionRefused", "there is no Secret default/signers")
	h.runs("web:2")
}

// TestSettingsAskForSignatures: keys in files, for an application without an object.
func TestSettingsAskForSignatures(t *testing.T) {
	h := newHost(t)
	ada, eve := newSigning(h, "ada"), newSigning(h, "eve")
	h.file("repo/web.yaml", deployment("web", "web:1", 1))
	run(h, "git", "init", "-q", "-b", "main", filepath.Join(h.dir, "repo"))
	eve.commit(h, "by Eve")
	list := filepath.Join(h.dir, "allowed_signers")
	h.set.Applications = []settings.Application{{
		Name: "shop", Location: "file://" + filepath.Join(h.dir, "repo"), Ref: "main", Verify: &settings.Verify{KeyFiles: []string{list}},
	}}
	s := h.open(Once)
	apply := func() api.Outcome {
		t.Helper()
		r, err := s.Apply(context.WithoutCancel(t.Context()), api.ApplyRequest{}, nil)
		if err != nil || len(r.Outcomes) != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
		return r.Outcomes[0]
	}
	if o := apply(); o.Error == nil || !strings.Contains(o.Error.Message, "allowed_signers") {
		t.Errorf("without the file: %+v", o)
	}
	h.file("allowed_signers", "ada@example.com namespaces=\"git\" "+ada.public+"\n")
	if o := apply(); o.Error == nil || !strings.Contains(o.Error.Message, "not among those that may sign") {
		t.Errorf("signed by Eve: %+v", o)
	}
	h.runs()
	ada.commit(h, "by Ada")
	if o := apply(); o.Error != nil || len(o.Revision.Signatures) != 1 {
		t.Errorf("signed by Ada: %+v %v", o, o.Error)
	}
	h.runs("web:1")
}

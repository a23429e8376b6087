package daemon

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// ids are the ids of our containers, sorted.
func (h *host) ids() []string {
	var out []string
	for _, c := range h.engine.Containers() {
		if !c.Foreign {
			out = append(out, c.ID)
		}
	}
	slices.Sort(out)
	return out
}

func (h *host) same(before []string) {
	h.t.Helper()
	if d := cmp.Diff(before, h.ids()); d != "" {
		h.t.Errorf("containers (-before +now):\n%s", d)
	}
}

const colours = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: colours}\ndata: {sky: blue}\n"

// twoOfOneRepository declares shop and billing, both of one repository.
func twoOfOneRepository(h *host) {
	h.t.Helper()
	declaredShop(h)
	h.file("repo/shop/keep.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: keep}\n")
	h.file("repo/shop/colours.yaml", colours)
	h.file("repo/billing/other.yaml", deployment("other", "web:1", 1))
	commit(h)
	h.file("root/billing.yaml", strings.ReplaceAll(fluxApp, "NAME", "billing"))
}

func inventoryOf(s *System, name string) []string {
	var out []string
	for _, st := range s.statuses() {
		if st.Config.Name == name {
			for _, o := range st.Inventory {
				out = append(out, o.Kind+"/"+o.Name)
			}
		}
	}
	return out
}

// TestAPlanShowsAMove holds that what only moves is shown as such, before any worker has begun.
func TestAPlanShowsAMove(t *testing.T) {
	h := newHost(t)
	twoOfOneRepository(h)
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	h.state(s, "billing", "Healthy Applied")
	h.stop(s)
	inRepo(h, "mv", "shop/web.yaml", "billing/web.yaml")
	inRepo(h, "mv", "shop/colours.yaml", "billing/colours.yaml")
	commit(h)
	p, err := h.open(Once).Plan(t.Context(), api.PlanRequest{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c := p.Counts(); c.Add+c.Destroy > 0 || c.Change == 0 {
		t.Errorf("%+v", c)
	}
}

func TestAnObjectMovesInOneCommit(t *testing.T) {
	h := newHost(t)
	twoOfOneRepository(h)
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	h.state(s, "billing", "Healthy Applied")
	before := h.ids()
	h.engine.ForgetCalls()
	for _, file := range []string{"web.yaml", "colours.yaml"} {
		inRepo(h, "mv", "shop/"+file, "billing/"+file)
	}
	commit(h)
	_ = s.Reconcile(t.Context(), nil)
	h.eventually(s, "billing has it", func() bool {
		return slices.Equal(inventoryOf(s, "billing"), []string{"ConfigMap/colours", "Deployment/other", "Deployment/web"}) &&
			slices.Equal(inventoryOf(s, "shop"), []string{"ConfigMap/keep"})
	})
	h.state(s, "billing", "Healthy Applied")
	h.state(s, "shop", "Healthy Applied")
	h.same(before)
	if calls := h.engine.Mutations(); len(calls) > 0 {
		t.Errorf("mutating calls: %v", calls)
	}
	h.eventually(s, "the pod is billing's", func() bool {
		st, err := s.node.Observe(t.Context())
		return err == nil && !slices.ContainsFunc(st.Pods, func(p plan.ObservedPod) bool { return p.Application != "billing" })
	})
	// It stays so after a restart.
	h.stop(s)
	s = h.open(Run)
	h.state(s, "billing", "Healthy Applied")
	h.state(s, "shop", "Healthy Applied")
	h.same(before)
}

// TestAPlanOnItsOwnShowsAMove has no daemon: both applications are looked at, and then planned again.
func TestAPlanOnItsOwnShowsAMove(t *testing.T) {
	h := newHost(t)
	twoOfOneRepository(h)
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	h.state(s, "billing", "Healthy Applied")
	h.stop(s)
	inRepo(h, "mv", "shop/web.yaml", "billing/web.yaml")
	commit(h)
	s = h.open(Read)
	p, err := s.Plan(t.Context(), api.PlanRequest{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	web := object.Ref{Group: "apps", Kind: "Deployment", Namespace: "default", Name: "web"}
	for _, a := range p.Applications {
		if a.Name == "root" {
			continue
		}
		if d := cmp.Diff([]plan.Move{{Ref: web, From: "shop", To: "billing"}}, a.Plan.Moves); d != "" {
			t.Errorf("plan of %s:\n%s", a.Name, d)
		}
	}
	if c := p.Counts(); c != (api.Counts{Change: 1}) {
		t.Errorf("%+v", c)
	}
}

func TestARenamedApplicationIsTakenOver(t *testing.T) {
	for name, whileDown := range map[string]bool{"while the daemon runs": false, "while it does not": true} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			twoOfOneRepository(h)
			s := h.open(Run)
			h.state(s, "shop", "Healthy Applied")
			h.state(s, "billing", "Healthy Applied")
			before := h.ids()
			if whileDown {
				h.stop(s)
			}
			h.file("root/shop.yaml", strings.ReplaceAll(strings.ReplaceAll(fluxApp, "name: NAME", "name: store"), "NAME", "shop"))
			if whileDown {
				s = h.open(Run)
			}
			h.state(s, "store", "Healthy Applied")
			h.eventually(s, "shop is gone", func() bool { return inventoryOf(s, "shop") == nil })
			h.same(before)
			h.eventually(s, "its record too", func() bool {
				names, err := s.store.Applications()
				return err == nil && !slices.Contains(names, "shop")
			})
			if got := inventoryOf(s, "store"); len(got) != 3 {
				t.Errorf("store has %v", got)
			}
		})
	}
}

// An application of the settings has no declarer: under another name it is another one, and what it had is nobody's.
func TestARenamedApplicationOfTheSettingsIsTakenOver(t *testing.T) {
	h := newHost(t)
	h.declare("shop")
	h.file("shop/web.yaml", deployment("web", "web:1", 2))
	h.file("shop/colours.yaml", colours)
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	before := h.ids()
	h.stop(s)
	h.set.Applications[0].Name = "store"
	s = h.open(Run)
	h.state(s, "store", "Healthy Applied")
	h.eventually(s, "nothing is recorded of shop", func() bool {
		names, err := s.store.Applications()
		return err == nil && slices.Equal(names, []string{"store"})
	})
	h.same(before)
	h.runs("web:1", "web:1")
}

// A directory is looked at by itself: who drops an object first deletes it only when nobody is known to want it.
func TestAnObjectMovesBetweenSources(t *testing.T) {
	h := newHost(t)
	for _, name := range []string{"a", "b"} {
		h.declare(name)
		h.file(name+"/keep.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: keep-"+name+"}\n")
	}
	h.file("a/web.yaml", deployment("web", "web:1", 2))
	s := h.open(Run)
	h.state(s, "a", "Healthy Applied")
	h.state(s, "b", "Healthy Applied")
	before := h.ids()
	h.file("b/web.yaml", deployment("web", "web:1", 2))
	h.state(s, "b", "Failed PlanFailed", "application a")
	h.same(before)
	h.remove("a/web.yaml")
	h.state(s, "b", "Healthy Applied")
	h.eventually(s, "a has forgotten it", func() bool { return slices.Equal(inventoryOf(s, "a"), []string{"ConfigMap/keep-a"}) })
	h.same(before)
	// Without anybody who wants it, it goes.
	h.remove("b/web.yaml")
	h.eventually(s, "nothing runs", func() bool { return len(h.images()) == 0 })
	h.state(s, "b", "Healthy Applied")
}

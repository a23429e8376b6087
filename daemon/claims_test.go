package daemon

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

func TestTheFirstClaimHoldsUntilItIsGivenUp(t *testing.T) {
	web := object.Ref{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "web"}
	settings := object.Ref{Kind: "ConfigMap", Namespace: "shop", Name: "settings"}
	c := newClaims()
	if got := c.claim("a", []object.Ref{web, settings}); got != nil {
		t.Errorf("first claim: %v", got)
	}
	for range 2 {
		if d := cmp.Diff(map[object.Ref]string{web: "a"}, c.claim("b", []object.Ref{web})); d != "" {
			t.Error(d)
		}
		if got := c.claim("a", []object.Ref{web, settings}); got != nil {
			t.Errorf("the owner lost it: %v", got)
		}
	}
	c.hold("a", []object.Ref{settings})
	if got := c.claim("b", []object.Ref{web}); got != nil {
		t.Errorf("given up, but still held: %v", got)
	}
	if d := cmp.Diff(map[object.Ref]string{web: "b"}, c.claim("a", []object.Ref{web, settings})); d != "" {
		t.Error(d)
	}
}

// TestUnion holds that claims are made of what is desired and what was applied, each once and in order.
func TestUnion(t *testing.T) {
	ref := func(name string) object.Ref { return object.Ref{Kind: "ConfigMap", Namespace: "shop", Name: name} }
	for _, c := range []struct{ desired, applied, want string }{
		{"", "", ""}, {"abc", "", "abc"}, {"", "abc", "abc"}, {"abc", "abc", "abc"}, {"ace", "bdf", "abcdef"}, {"bc", "abd", "abcd"},
	} {
		var desired []object.Object
		var applied []plan.Applied
		for _, r := range c.desired {
			desired = append(desired, object.Object{Ref: ref(string(r))})
		}
		for _, r := range c.applied {
			applied = append(applied, plan.Applied{Ref: ref(string(r))})
		}
		got := ""
		for _, r := range union(desired, applied) {
			got += r.Name
		}
		if got != c.want {
			t.Errorf("union of %q and %q is %q, want %q", c.desired, c.applied, got, c.want)
		}
	}
}

package daemon

import (
	"testing"

	"github.com/google/go-cmp/cmp"

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

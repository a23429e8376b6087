package object_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/render/object"
)

func TestRefString(t *testing.T) {
	for want, r := range map[string]object.Ref{
		"Deployment shop/web": {Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "web"},
		"Namespace shop":      {Kind: "Namespace", Name: "shop"},
	} {
		if got := r.String(); got != want {
			t.Errorf("String() = %q, want %q", got, want)
		}
	}
}

func TestCompareOrdersByNamespaceThenKindThenName(t *testing.T) {
	refs := []object.Ref{
		{Kind: "Secret", Namespace: "b", Name: "a"},
		{Kind: "Pod", Namespace: "a", Name: "z"},
		{Kind: "Namespace", Name: "z"},
		{Kind: "Pod", Namespace: "a", Name: "b"},
	}
	slices.SortFunc(refs, object.Compare)
	var got []string
	for _, r := range refs {
		got = append(got, r.String())
	}
	want := []string{"Namespace z", "Pod a/b", "Pod a/z", "Secret b/a"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestOriginString(t *testing.T) {
	for want, o := range map[string]object.Origin{
		"base/web.yaml:3":                        {Path: "base/web.yaml", Line: 3},
		"base/web.yaml":                          {Path: "base/web.yaml"},
		"k.yaml:2 (configMapGenerator settings)": {Path: "k.yaml", Line: 2, Generator: "configMapGenerator settings"},
		"":                                       {},
	} {
		if got := o.String(); got != want {
			t.Errorf("String() = %q, want %q", got, want)
		}
	}
}

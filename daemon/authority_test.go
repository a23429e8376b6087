package daemon

import (
	"testing"

	"github.com/fairlead-dev/fairlead/daemon/applications"
	"github.com/fairlead-dev/fairlead/daemon/settings"
	"github.com/fairlead-dev/fairlead/render/object"
)

func TestWhomAnApplicationActsAs(t *testing.T) {
	declared := map[string]struct {
		account, namespace, by string
	}{
		"free":         {},                              // in the settings
		"bounded":      {account: "platform/robot"},     // in the settings, too
		"child":        {namespace: "shop", by: "free"}, // says nothing, as its declarer
		"tenant":       {account: "shop/own", namespace: "shop", by: "free"},
		"of-tenant":    {namespace: "shop", by: "tenant"},
		"of-of-tenant": {namespace: "shop", by: "of-tenant"},
		"of-bounded":   {namespace: "a", by: "bounded"},
		"lost":         {namespace: "a", by: "nobody-knows"},
		"ring":         {namespace: "a", by: "ring"},
	}
	declared["broken"] = struct{ account, namespace, by string }{account: "shop/a/b", namespace: "shop", by: "free"} // which is reported, and still bounds it
	declared["of-broken"] = struct{ account, namespace, by string }{namespace: "shop", by: "broken"}
	find := func(name string) (applications.Application, string, bool) {
		d, ok := declared[name]
		a := applications.Application{ServiceAccount: d.account}
		if d.namespace != "" {
			a.Ref = object.Ref{Group: "kustomize.toolkit.fluxcd.io", Kind: "Kustomization", Namespace: d.namespace, Name: name}
		}
		return a, d.by, ok
	}
	for _, c := range []struct{ name, otherwise, want string }{
		{"free", "", ""},
		{"bounded", "", "system:serviceaccount:platform:robot"},
		{"child", "", ""},
		{"tenant", "", "system:serviceaccount:shop:own"},
		{"of-tenant", "", "system:serviceaccount:shop:own"},
		{"of-of-tenant", "", "system:serviceaccount:shop:own"},
		{"of-bounded", "", "system:serviceaccount:platform:robot"},
		{"lost", "", nobody},
		{"ring", "", nobody},
		{"broken", "", nobody},
		{"of-broken", "", nobody},
		{"free", "default", ""},
		{"child", "default", "system:serviceaccount:shop:default"},
		{"tenant", "default", "system:serviceaccount:shop:own"},
		{"of-tenant", "default", "system:serviceaccount:shop:default"},
	} {
		t.Run(c.name+" "+c.otherwise, func(t *testing.T) {
			s := &System{settings: settings.Settings{Defaults: settings.Defaults{ServiceAccount: c.otherwise}}}
			decl, by, _ := find(c.name)
			if got := s.identityOf(decl, by, find); got != c.want {
				t.Errorf("%s acts as %q, want %q", c.name, got, c.want)
			}
		})
	}
}

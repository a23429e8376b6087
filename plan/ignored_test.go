package plan

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/render/object"
)

func TestKeepIgnoredFields(t *testing.T) {
	web := object.Ref{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "web"}
	for _, c := range []struct{ name, pointer, was, now, want string }{
		{"a value", "/spec/replicas", `{"spec":{"paused":false,"replicas":1}}`, `{"spec":{"paused":true,"replicas":3}}`, `{"spec":{"paused":true,"replicas":1}}`},
		{"a value that was not written", "/spec/replicas", `{"spec":{}}`, `{"spec":{"replicas":3}}`, `{"spec":{}}`},
		{"a value that is no longer written", "/spec/replicas", `{"spec":{"replicas":3}}`, `{"spec":{}}`, `{"spec":{"replicas":3}}`},
		{"below what is new", "/spec/replicas", `{}`, `{"spec":{"replicas":3}}`, `{"spec":{"replicas":3}}`},
		{"in an element", "/spec/list/1/a", `{"spec":{"list":[{"a":1},{"a":2,"b":2}]}}`, `{"spec":{"list":[{"a":3},{"a":4,"b":5}]}}`, `{"spec":{"list":[{"a":3},{"a":2,"b":5}]}}`},
		{"in an element that is gone", "/spec/list/1/a", `{"spec":{"list":[{"a":1},{"a":2}]}}`, `{"spec":{"list":[{"a":3}]}}`, `{"spec":{"list":[{"a":3}]}}`},
		{"of another type", "/spec/replicas", `{"spec":[]}`, `{"spec":{"replicas":3}}`, `{"spec":{"replicas":3}}`},
		{"everything", "", `{"spec":{"replicas":1}}`, `{"spec":{"replicas":3}}`, `{"spec":{"replicas":1}}`},
	} {
		rules := []IgnoreRule{{Kind: "Deployment", Pointers: []string{c.pointer}}}
		got := Applied{Ref: web, Hash: "new", Written: []byte(c.now)}.Keep(Applied{Ref: web, Hash: "old", Written: []byte(c.was)}, rules)
		if diff := cmp.Diff(c.want, string(got.Written)); diff != "" || got.Hash != "new" {
			t.Errorf("%s: hash %s (-want +got):\n%s", c.name, got.Hash, diff)
		}
		other := []IgnoreRule{{Kind: "Job", Pointers: []string{c.pointer}}}
		if got := (Applied{Ref: web, Written: []byte(c.now)}).Keep(Applied{Ref: web, Written: []byte(c.was)}, other); string(got.Written) != c.now {
			t.Errorf("%s: a rule about other objects made %s", c.name, got.Written)
		}
	}
}

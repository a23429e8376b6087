package plan

import (
	"bytes"
	"testing"

	"github.com/fairlead-dev/fairlead/render/object"
)

// FuzzIgnore applies arbitrary JSON pointers: nothing panics, what is ignored makes no difference, and keeping what
// was there twice is keeping it once.
func FuzzIgnore(f *testing.F) {
	f.Add("/spec/replicas", []byte(`{"spec":{"replicas":1}}`), []byte(`{"spec":{"replicas":3}}`))
	f.Add("/spec/template/spec/containers/0/image", []byte(`{"spec":{"template":{"spec":{"containers":[{"image":"a"}]}}}}`), []byte(`{"spec":[]}`))
	f.Add("/a~1b/~0/-", []byte(`{"a/b":{"~":[1]}}`), []byte(`{"a/b":{"~":[2]}}`))
	f.Add("", []byte(`1`), []byte(`null`))
	f.Add("//", []byte(`{"":{"":1}}`), []byte(`{"":{"":2}}`))
	f.Fuzz(func(t *testing.T, pointer string, before, after []byte) {
		ref := object.Ref{Kind: "ConfigMap", Namespace: "n", Name: "x"}
		rules := []IgnoreRule{{Pointers: []string{pointer}}}
		now := Applied{Ref: ref, Written: after}
		once := now.Keep(Applied{Ref: ref, Written: before}, rules)
		twice := once.Keep(Applied{Ref: ref, Written: before}, rules)
		if !bytes.Equal(once.Written, twice.Written) {
			t.Fatalf("%q kept once:\n%s\ntwice:\n%s", pointer, once.Written, twice.Written)
		}
		changes, _ := differ{DigestKey: testKey, Ignore: rules}.diff(now, object.Object{Ref: ref, Written: once.Written})
		if len(changes) > 0 && parse(before) != nil && parse(after) != nil {
			t.Fatalf("%q: what is ignored is a change: %+v", pointer, changes)
		}
	})
}

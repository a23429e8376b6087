package object_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/render/object"
)

// TestEditIsAMapWithOrder holds Edit against what a map would hold.
func TestEditIsAMapWithOrder(t *testing.T) {
	type thing struct {
		object.Ref
		version int
	}
	name := func(x *thing) object.Ref { return x.Ref }
	rapid.Check(t, func(t *rapid.T) {
		var have []thing
		want := map[object.Ref]thing{}
		for step := range rapid.IntRange(1, 6).Draw(t, "steps") {
			var put []thing
			var gone []object.Ref
			for range rapid.IntRange(0, 6).Draw(t, "edits") {
				r := object.Ref{Kind: rapid.SampledFrom([]string{"A", "B"}).Draw(t, "kind"), Name: fmt.Sprint(rapid.IntRange(0, 6).Draw(t, "name"))}
				if rapid.Bool().Draw(t, "gone") {
					gone = append(gone, r)
				} else {
					put = append(put, thing{r, step})
				}
			}
			for _, r := range gone {
				delete(want, r)
			}
			for _, x := range put {
				want[x.Ref] = x
			}
			before := slices.Clone(have)
			after := object.Edit(have, name, put, gone)
			if d := cmp.Diff(before, have, cmp.AllowUnexported(thing{})); d != "" {
				t.Fatalf("the argument was modified:\n%s", d)
			}
			sorted := slices.SortedFunc(maps.Values(want), func(a, b thing) int { return object.Compare(a.Ref, b.Ref) })
			if !slices.Equal(after, sorted) {
				t.Fatalf("got %v, want %v", after, sorted)
			}
			for i, x := range sorted {
				if at, found := object.Find(after, name, x.Ref); at != i || !found {
					t.Fatalf("%v is found at %d, %t instead of %d", x, at, found, i)
				}
			}
			have = after
		}
	})
}

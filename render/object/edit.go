package object

import "slices"

// Edit returns sorted, whose elements are in the order of their names and have different ones, with every element
// of put in the place of the one of its name, and without those that are gone. What is both put and gone is put. The
// arguments stay as they are; what was not edited is copied without a look at it.
func Edit[T any](sorted []T, name func(*T) Ref, put []T, gone []Ref) []T {
	type edit struct {
		name Ref
		put  *T
	}
	edits := make([]edit, 0, len(put)+len(gone))
	for _, r := range gone {
		edits = append(edits, edit{name: r})
	}
	for i := range put {
		edits = append(edits, edit{name(&put[i]), &put[i]})
	}
	slices.SortStableFunc(edits, func(a, b edit) int { return Compare(a.name, b.name) })
	out := make([]T, 0, len(sorted)+len(put))
	for i, e := range edits {
		if i+1 < len(edits) && edits[i+1].name == e.name {
			continue
		}
		at, found := Find(sorted, name, e.name)
		out = append(out, sorted[:at]...)
		if e.put != nil {
			out = append(out, *e.put)
		}
		if found {
			at++
		}
		sorted = sorted[at:]
	}
	return append(out, sorted...)
}

// Find returns where the element of a name is in sorted, whose elements are in the order of their names, or where
// it would be.
func Find[T any](sorted []T, name func(*T) Ref, r Ref) (at int, found bool) {
	low, high := 0, len(sorted)
	for low < high {
		middle := int(uint(low+high) / 2)
		if Compare(name(&sorted[middle]), r) < 0 {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low, low < len(sorted) && name(&sorted[low]) == r
}

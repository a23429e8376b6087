package forge

import (
	"slices"
	"strings"
)

// Set are forges by the places below which their repositories are.
type Set struct {
	entries []setEntry // longest place first
	rules   []Rewrite
}

type setEntry struct {
	place string
	forge Forge
}

// NewSet returns an empty set. The rules say where repositories are cloned from.
func NewSet(rules []Rewrite) *Set { return &Set{rules: rules} }

// Add adds a forge at a URL; empty is the public service.
func (s *Set) Add(url string, f Forge) {
	if url == "" {
		url = public[f.Kind()]
	}
	at := place(url)
	if f.Kind() == BitbucketServer {
		at, _, _ = strings.Cut(at, "/") // keys leave out where on its host it is
	}
	s.entries = append(s.entries, setEntry{at, f})
	slices.SortStableFunc(s.entries, func(a, b setEntry) int { return len(b.place) - len(a.place) })
}

// Len is the number of forges.
func (s *Set) Len() int { return len(s.entries) }

// Find returns the forge that has a repository, and the repository's name there, from where it is cloned, or from a
// URL of a delivery. It returns false when no forge of the set has it, and for a nil set.
func (s *Set) Find(locations ...string) (Forge, string, bool) {
	if s == nil {
		return nil, "", false
	}
	for _, location := range locations {
		key := Key(location)
		if key == "" {
			continue
		}
		keys := []string{key}
		for _, r := range s.rules {
			if from, ok := (Rewrite{From: r.To, To: r.From}).Apply(key); ok {
				keys = append(keys, from)
			}
		}
		for _, e := range s.entries {
			for _, k := range keys {
				if path, ok := strings.CutPrefix(k, e.place+"/"); ok && path != "" {
					return e.forge, path, true
				}
			}
		}
	}
	return nil, "", false
}

package git

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// done ends the conversation that the listing came from.
func (l *listing) done() {
	if l != nil && l.remote != nil {
		l.remote.close()
		l.remote = nil
	}
}

// lists reports whether a reference holds h, so that every server gives it.
func (l *listing) lists(h plumbing.Hash) bool {
	for _, have := range l.refs {
		if have == h {
			return true
		}
	}
	return l.wanting(h) != h
}

// wanting returns what to ask for to get the commit h: the tag that points to it, when no reference holds it.
func (l *listing) wanting(h plumbing.Hash) plumbing.Hash {
	for _, have := range l.refs {
		if have == h {
			return h
		}
	}
	for ref, peeled := range l.peeled {
		if peeled == h {
			return l.refs[ref]
		}
	}
	return h
}

// tips are what all branches and tags hold.
func (l *listing) tips() []plumbing.Hash {
	var tips []plumbing.Hash
	for ref, h := range l.refs {
		if strings.HasPrefix(ref, "refs/heads/") || strings.HasPrefix(ref, "refs/tags/") {
			tips = append(tips, h)
		}
	}
	plumbing.HashesSort(tips)
	return slices.Compact(tips)
}

// tipOf returns the one commit that references hold and that starts with prefix; zero when there is none.
func (l *listing) tipOf(prefix string) (plumbing.Hash, error) {
	found := map[plumbing.Hash]bool{}
	for ref, h := range l.refs {
		if p, ok := l.peeled[ref]; ok {
			h = p
		}
		if strings.HasPrefix(h.String(), prefix) {
			found[h] = true
		}
	}
	return single(prefix, found)
}

func single(prefix string, found map[plumbing.Hash]bool) (plumbing.Hash, error) {
	if len(found) > 1 {
		return plumbing.ZeroHash, fmt.Errorf("%w: %q is the beginning of %d commits: write more of it", ErrNoCommit, prefix, len(found))
	}
	for h := range found {
		return h, nil
	}
	return plumbing.ZeroHash, nil
}

// abbreviated returns the one commit that starts with prefix.
func (s *store) abbreviated(prefix string) (plumbing.Hash, error) {
	found := map[plumbing.Hash]bool{}
	s.mu.Lock()
	for _, storage := range s.open {
		list, err := storage.IterEncodedObjects(plumbing.CommitObject)
		if err != nil {
			s.mu.Unlock()
			return plumbing.ZeroHash, damaged("list commits", err)
		}
		err = list.ForEach(func(o plumbing.EncodedObject) error {
			if h := o.Hash(); strings.HasPrefix(h.String(), prefix) {
				found[h] = true
			}
			return nil
		})
		if err != nil {
			s.mu.Unlock()
			return plumbing.ZeroHash, damaged("list commits", err)
		}
	}
	s.mu.Unlock()
	h, err := single(prefix, found)
	if err == nil && h.IsZero() {
		err = fmt.Errorf("%w: the repository has no branch, tag or commit %q", ErrNoReference, prefix)
	}
	return h, err
}

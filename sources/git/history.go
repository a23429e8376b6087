package git

import (
	"context"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/fairlead-dev/fairlead/sources"
)

// maxWalk bounds how many commits are looked at to find out how two are related.
const maxWalk = 20_000

// relation says how the selected commit relates to the one that was had. When the history that is needed is
// not to be had from the server, it is Rewritten: that the old commit is no longer known to be an ancestor.
func (s *Source) relation(ctx context.Context, l *listing, had plumbing.Hash, sel selection) sources.History {
	last := s.last
	if last.commit == had && (last.ref != sel.ref || last.kind != sel.kind) {
		return sources.Switched
	}
	if sel.kind == byTag || sel.kind == bySemVer && last.commit == had {
		return sources.TagMoved
	}
	if sel.kind == byCommit || sel.kind == bySemVer {
		return sources.Switched
	}
	objects := s.repo.objects()
	for round := 0; ; round++ {
		now, complete := ancestors(objects, sel.commit, had)
		if now[had] {
			return sources.FastForward
		}
		before, oldComplete := ancestors(objects, had, sel.commit)
		if before[sel.commit] {
			return sources.Rewound
		}
		for h := range before {
			if now[h] {
				return sources.Rewritten
			}
		}
		if complete && oldComplete {
			return sources.Unrelated
		}
		if complete || ctx.Err() != nil {
			break
		}
		if more, err := s.repo.deepen(ctx, l, sel.commit, round); err != nil || !more {
			if now, _ := ancestors(objects, sel.commit, had); now[had] {
				return sources.FastForward
			}
			break
		}
	}
	return sources.Rewritten
}

// ancestors returns the commits that are reachable from a commit, itself included, as far as they are here, and
// whether these are all. It stops when it meets until.
func ancestors(objects *store, from, until plumbing.Hash) (map[plumbing.Hash]bool, bool) {
	seen := map[plumbing.Hash]bool{from: true}
	complete := true
	todo := []plumbing.Hash{from}
	for len(todo) > 0 {
		h := todo[0]
		todo = todo[1:]
		if h == until {
			return seen, complete
		}
		if !objects.has(h) {
			complete = false
			continue
		}
		c, err := objects.commit(h)
		if err != nil || len(seen) > maxWalk {
			complete = false
			continue
		}
		for _, p := range c.parents {
			if !seen[p] {
				seen[p] = true
				todo = append(todo, p)
			}
		}
	}
	return seen, complete
}

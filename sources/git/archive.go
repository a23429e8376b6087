package git

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/fairlead-dev/fairlead/sources"
)

// Snapshot returns the tree at a commit, whatever the reference points to by now: from what is here, or from the remote
// where that still has it. A commit that is in neither wraps sources.ErrGone and ErrNoCommit.
func (s *Source) Snapshot(ctx context.Context, rev sources.Revision) (sources.Snapshot, error) {
	commit := hashOf(string(rev))
	if commit.IsZero() {
		return sources.Snapshot{}, fmt.Errorf("%s: %w: %q is no full commit id", s.at.shown(), sources.ErrGone, rev)
	}
	snapshot, err := s.inTurn(ctx, func(ctx context.Context) (sources.Snapshot, error) { return s.earlier(ctx, commit) })
	switch {
	case err == nil:
		return snapshot, nil
	case errors.Is(err, ErrNoCommit):
		return sources.Snapshot{}, fmt.Errorf("%w: %w", sources.ErrGone, err)
	default:
		return sources.Snapshot{}, err
	}
}

// earlier makes a snapshot of a commit.
func (s *Source) earlier(ctx context.Context, commit plumbing.Hash) (sources.Snapshot, error) {
	sel := selection{kind: byCommit, commit: commit, object: commit}
	if !s.repo.has(commit) {
		l, err := s.repo.list(ctx, nil)
		if err != nil {
			return sources.Snapshot{}, err
		}
		defer l.done()
		if err := s.repo.obtain(ctx, sel, l); err != nil {
			return sources.Snapshot{}, err
		}
	}
	objects := s.repo.objects()
	c, err := objects.commit(commit)
	if err != nil {
		return sources.Snapshot{}, err
	}
	tree, err := s.mount(ctx, objects, commit, c)
	if err != nil {
		return sources.Snapshot{}, err
	}
	return sources.Snapshot{
		Source: s.opt.Name, Revision: sources.Revision(commit.String()),
		Committed: c.committed, Author: c.author, Message: c.message, Files: tree, History: sources.First,
		Changed: func(since sources.Revision) ([]string, bool) { return changed(tree, since) },
	}, nil
}

package git

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/utils/diff"
	"github.com/sergi/go-diff/diffmatchpatch"

	"github.com/fairlead-dev/fairlead/sources"
)

// Merge is what a branch would be after another was merged into it.
type Merge struct {
	// Base is the branch now, Head what is merged into it. Result is the merged tree, as far as it can be merged; its revision
	// is Head's where Base is an ancestor of that, otherwise the id of a commit that nobody else has.
	Base, Head, Result sources.Snapshot
	// Conflicts are the files that both sides changed in ways that exclude each other, sorted. In Result they are as in Base.
	Conflicts []string
}

// maxDeepen is how often more history is asked for to find where two branches parted.
const maxDeepen = 3

// Merge merges head into base, each a branch, tag, reference or commit as in Options.Revision. It changes nothing, neither
// here nor on the server. Files are merged line by line as Git does it, but renames are not followed: a file that one side
// renamed and the other changed is a conflict.
func (s *Source) Merge(ctx context.Context, base, head string) (Merge, error) {
	if s.opt.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.opt.Timeout)
		defer cancel()
	}
	select {
	case <-ctx.Done():
		return Merge{}, s.explain(ctx, ctx.Err())
	case <-s.turn:
	}
	defer func() { s.turn <- struct{}{} }()
	m, err := s.merge(ctx, base, head)
	if err != nil {
		return Merge{}, s.explain(ctx, err)
	}
	return m, nil
}

// Contains reports whether a commit is in the history of another, or is that one. Both are whole ids. Where the history is not to be
// had far enough, it is not.
func (s *Source) Contains(ctx context.Context, revision, commit string) (bool, error) {
	from, of := hashOf(revision), hashOf(commit)
	if from.IsZero() || of.IsZero() {
		return false, nil
	}
	if from == of {
		return true, nil
	}
	select {
	case <-ctx.Done():
		return false, s.explain(ctx, ctx.Err())
	case <-s.turn:
	}
	defer func() { s.turn <- struct{}{} }()
	l, err := s.repo.list(ctx, nil)
	if err != nil {
		return false, s.explain(ctx, err)
	}
	defer l.done()
	for round := 0; round <= maxDeepen; round++ {
		seen, whole := ancestors(s.repo.objects(), from, of)
		if seen[of] || whole {
			return seen[of], nil
		}
		if more, err := s.repo.deepen(ctx, l, from, round); err != nil || !more {
			return false, nil //nolint:nilerr // not known to be
		}
	}
	return false, nil
}

func (s *Source) merge(ctx context.Context, base, head string) (Merge, error) {
	l, err := s.repo.list(ctx, nil)
	if err != nil {
		return Merge{}, err
	}
	defer l.done()
	var ids [2]plumbing.Hash
	for i, name := range []string{base, head} {
		sel, err := resolve(wanted(Options{Revision: name}), l)
		if err != nil {
			return Merge{}, err
		}
		if sel.prefix != "" {
			return Merge{}, fmt.Errorf("%w: %q is no branch and no tag; of a commit all 40 characters are needed here", ErrNoReference, name)
		}
		if !s.repo.has(sel.commit) {
			if err := s.repo.obtain(ctx, sel, l); err != nil {
				return Merge{}, err
			}
		}
		ids[i] = sel.commit
	}
	var m Merge
	if m.Base, err = s.snapshot(ctx, s.repo.objects(), ids[0]); err != nil {
		return Merge{}, err
	}
	if m.Head, err = s.snapshot(ctx, s.repo.objects(), ids[1]); err != nil {
		return Merge{}, err
	}
	parted, err := s.parted(ctx, l, ids[0], ids[1])
	if err != nil {
		return Merge{}, err
	}
	switch parted {
	case ids[0]:
		m.Result = m.Head
		return m, nil
	case ids[1]:
		m.Result = m.Base
		return m, nil
	}
	made := &merger{store: newOverlay(s.repo.objects())}
	if err := made.commits(parted, ids[0], ids[1]); err != nil {
		return Merge{}, err
	}
	m.Conflicts = made.conflicts
	slices.Sort(m.Conflicts)
	m.Result, err = s.snapshot(ctx, made.store, made.commit)
	return m, err
}

// snapshot returns a commit as a snapshot.
func (s *Source) snapshot(ctx context.Context, objects *store, id plumbing.Hash) (sources.Snapshot, error) {
	c, err := objects.commit(id)
	if err != nil {
		return sources.Snapshot{}, err
	}
	t, err := s.mount(ctx, objects, id, c)
	if err != nil {
		return sources.Snapshot{}, err
	}
	return sources.Snapshot{
		Source: s.opt.Name, Revision: sources.Revision(id.String()),
		Committed: c.committed, Author: c.author, Message: c.message, Files: t,
		Changed: func(since sources.Revision) ([]string, bool) { return changed(t, since) },
	}, nil
}

// parted returns the newest commit that two have in common.
func (s *Source) parted(ctx context.Context, l *listing, a, b plumbing.Hash) (plumbing.Hash, error) {
	for round := 0; ; round++ {
		best, whole := mergeBase(s.repo.objects(), a, b)
		switch {
		case !best.IsZero():
			return best, nil
		case whole:
			return plumbing.ZeroHash, fmt.Errorf("%w: %s and %s have no commit in common, so they cannot be merged", ErrNoCommit, short(a), short(b))
		case round == maxDeepen || ctx.Err() != nil:
			return plumbing.ZeroHash, fmt.Errorf("%w: where %s and %s parted is not among the commits that the server gives: merge the target branch into it", ErrNoCommit, short(a), short(b))
		}
		for _, h := range []plumbing.Hash{a, b} {
			if _, err := s.repo.deepen(ctx, l, h, round); err != nil {
				return plumbing.ZeroHash, err
			}
		}
	}
}

// mergeBase walks back from two commits, the newest first, until it meets one that both come from; zero when there is none
// among those that are here, and then whole says whether these are all.
func mergeBase(objects *store, a, b plumbing.Hash) (best plumbing.Hash, whole bool) {
	type step struct {
		commit
		id plumbing.Hash
	}
	from := map[plumbing.Hash]int{}
	var todo []step // sorted by time, the newest last
	whole = true
	visit := func(h plumbing.Hash, sides int) {
		if from[h]|sides == from[h] {
			return
		}
		from[h] |= sides
		if !objects.has(h) {
			whole = false
			return
		}
		c, err := objects.commit(h)
		if err != nil {
			whole = false
			return
		}
		at, _ := slices.BinarySearchFunc(todo, c.committed, func(s step, when time.Time) int { return s.committed.Compare(when) })
		todo = slices.Insert(todo, at, step{c, h})
	}
	visit(a, 1)
	visit(b, 2)
	for len(todo) > 0 && len(from) <= maxWalk {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if from[next.id] == 3 {
			return next.id, whole
		}
		for _, p := range next.parents {
			visit(p, from[next.id])
		}
	}
	return plumbing.ZeroHash, whole && len(todo) == 0
}

func short(h plumbing.Hash) string { return h.String()[:12] }

// merger makes the objects of a merged commit.
type merger struct {
	store     *store
	commit    plumbing.Hash
	conflicts []string
}

// commits merges theirs into ours, which both come from old.
func (m *merger) commits(old, ours, theirs plumbing.Hash) error {
	var trees [3]plumbing.Hash
	var at [3]commit
	for i, h := range []plumbing.Hash{old, ours, theirs} {
		c, err := m.store.commit(h)
		if err != nil {
			return err
		}
		trees[i], at[i] = c.tree, c
	}
	root, err := m.trees("", trees[0], trees[1], trees[2])
	if err != nil {
		return err
	}
	// The same two commits always give the same id.
	when := at[2].committed
	if at[1].committed.After(when) {
		when = at[1].committed
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "tree %s\nparent %s\nparent %s\n", root, ours, theirs)
	for _, role := range []string{"author", "committer"} {
		fmt.Fprintf(&text, "%s fairlead <> %d +0000\n", role, when.Unix())
	}
	fmt.Fprintf(&text, "\n%s\n", at[2].message)
	m.commit = m.store.make(plumbing.CommitObject, text.Bytes())
	return nil
}

// trees merges three directories; old may be zero.
func (m *merger) trees(prefix string, old, ours, theirs plumbing.Hash) (plumbing.Hash, error) {
	switch {
	case ours == theirs, old == theirs:
		return ours, nil
	case old == ours:
		return theirs, nil
	}
	lists := [3]map[string]entry{}
	var names []string
	for i, h := range []plumbing.Hash{old, ours, theirs} {
		lists[i] = map[string]entry{}
		if h.IsZero() {
			continue
		}
		entries, err := m.store.tree(h)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		for _, e := range entries {
			lists[i][e.name] = e
			names = append(names, e.name)
		}
	}
	slices.Sort(names)
	var out bytes.Buffer
	for _, name := range slices.Compact(names) {
		e, err := m.entry(prefix+name, lists[0][name], lists[1][name], lists[2][name])
		if err != nil {
			return plumbing.ZeroHash, err
		}
		if e.hash.IsZero() {
			continue
		}
		fmt.Fprintf(&out, "%o %s\x00", e.mode, name)
		out.Write(e.hash[:])
	}
	return m.store.make(plumbing.TreeObject, out.Bytes()), nil
}

// entry merges one name of a directory; the zero entry is one that is not there.
func (m *merger) entry(p string, old, ours, theirs entry) (entry, error) {
	same := func(a, b entry) bool { return a.hash == b.hash && a.mode == b.mode }
	switch {
	case same(ours, theirs), same(old, theirs):
		return ours, nil
	case same(old, ours):
		return theirs, nil
	}
	isTree := func(e entry) bool { return e.mode&modeType == modeTree && !e.hash.IsZero() }
	if isTree(ours) && isTree(theirs) {
		var below plumbing.Hash
		if isTree(old) {
			below = old.hash
		}
		h, err := m.trees(p+"/", below, ours.hash, theirs.hash)
		return entry{name: ours.name, mode: ours.mode, hash: h}, err
	}
	merged, ok, err := m.files(old, ours, theirs)
	if !ok {
		m.conflicts = append(m.conflicts, p)
		return ours, err
	}
	return merged, err
}

// maxMerged bounds the files that are merged line by line.
const maxMerged = 4 << 20

// files merges three versions of a file and reports whether that was possible.
func (m *merger) files(old, ours, theirs entry) (entry, bool, error) {
	isFile := func(e entry) bool { return e.mode&modeType == modeFile }
	if !isFile(old) || !isFile(ours) || !isFile(theirs) {
		return entry{}, false, nil
	}
	out := ours
	if ours.mode == old.mode {
		out.mode = theirs.mode
	}
	switch {
	case ours.hash == theirs.hash, theirs.hash == old.hash:
		return out, true, nil
	case ours.hash == old.hash:
		out.hash = theirs.hash
		return out, true, nil
	}
	var texts [3]string
	for i, e := range []entry{old, ours, theirs} {
		data, err := m.store.blob(e.hash)
		if err != nil {
			return entry{}, false, err
		}
		if len(data) > maxMerged || bytes.IndexByte(data, 0) >= 0 {
			return entry{}, false, nil
		}
		texts[i] = string(data)
	}
	text, ok := mergeLines(texts[0], texts[1], texts[2])
	if !ok {
		return entry{}, false, nil
	}
	out.hash = m.store.make(plumbing.BlobObject, []byte(text))
	return out, true, nil
}

// hunk is a change: the lines from first up to last of the old text became others.
type hunk struct {
	first, last int
	lines       []string
}

// mergeLines merges two changes of a text. It reports false where both change the same lines, or lines beside each other,
// in different ways.
func mergeLines(old, ours, theirs string) (string, bool) {
	lines := strings.SplitAfter(old, "\n")
	a, b := hunks(old, ours), hunks(old, theirs)
	var out strings.Builder
	at := 0
	take := func(h hunk) {
		for _, l := range lines[at:h.first] {
			out.WriteString(l)
		}
		for _, l := range h.lines {
			out.WriteString(l)
		}
		at = h.last
	}
	for len(a)+len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].last < b[0].first:
			take(a[0])
			a = a[1:]
		case len(a) == 0 || b[0].last < a[0].first:
			take(b[0])
			b = b[1:]
		case a[0].first == b[0].first && a[0].last == b[0].last && slices.Equal(a[0].lines, b[0].lines):
			take(a[0])
			a, b = a[1:], b[1:]
		default:
			return "", false
		}
	}
	for _, l := range lines[at:] {
		out.WriteString(l)
	}
	return out.String(), true
}

// hunks are what makes a text another one, in order.
func hunks(old, now string) []hunk {
	var out []hunk
	at := 0
	open := false
	for _, d := range diff.Do(old, now) {
		n := strings.SplitAfter(d.Text, "\n")
		if n[len(n)-1] == "" {
			n = n[:len(n)-1]
		}
		if d.Type == diffmatchpatch.DiffEqual {
			at, open = at+len(n), false
			continue
		}
		if !open {
			out, open = append(out, hunk{first: at, last: at}), true
		}
		h := &out[len(out)-1]
		if d.Type == diffmatchpatch.DiffDelete {
			at += len(n)
			h.last = at
		} else {
			h.lines = append(h.lines, n...)
		}
	}
	return out
}

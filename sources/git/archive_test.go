package git

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/sources"
)

// TestEarlierRevisions holds that a commit that was fetched once can be had again by a process that never saw it, also
// after the branch has moved on or was rewritten, as long as the repository has it.
func TestEarlierRevisions(t *testing.T) {
	each(t, func(t *testing.T, r *repo, o Options) {
		first := r.commit("first", map[string]string{"a.yaml": "a: 1\n"})
		second := r.commit("second", map[string]string{"a.yaml": "a: 2\n", "b.yaml": "b: 2\n"})
		s := open(t, o)
		have := fetch(t, s, "").Revision
		if have != sources.Revision(second) {
			t.Fatalf("fetched %s, want %s", have, second)
		}
		got, err := s.Snapshot(t.Context(), sources.Revision(first))
		if err != nil {
			t.Fatal(err)
		}
		if got.Revision != sources.Revision(first) || got.Message != "first" {
			t.Errorf("%s %q", got.Revision, got.Message)
		}
		if d := cmp.Diff(map[string]string{"a.yaml": "a: 1\n"}, contents(t, got.Files)); d != "" {
			t.Errorf("files (-want +got):\n%s", d)
		}
		// What is followed is what it was.
		unchanged(t, s, have)
		third := r.commit("third", map[string]string{"a.yaml": "a: 3\n"})
		if now := fetch(t, s, have); now.Revision != sources.Revision(third) || now.History != sources.FastForward {
			t.Errorf("%s %s", now.Revision, now.History)
		}
	})
}

// TestARevisionThatIsGone: the branch was rewritten, the repository cleaned up, and the clone is new.
func TestARevisionThatIsGone(t *testing.T) {
	each(t, func(t *testing.T, r *repo, o Options) {
		first := r.commit("first", map[string]string{"a.yaml": "a: 1\n"})
		o.Dir = filepath.Join(t.TempDir(), "kept")
		s := open(t, o)
		fetch(t, s, "")
		r.git("checkout", "-q", "--orphan", "other")
		second := r.commit("second", map[string]string{"a.yaml": "a: 2\n"})
		r.git("branch", "-q", "-D", "main")
		r.git("branch", "-q", "-m", "main")
		r.git("reflog", "expire", "--expire=now", "--all")
		r.git("gc", "-q", "--prune=now")
		if now := fetch(t, s, sources.Revision(first)); now.Revision != sources.Revision(second) {
			t.Fatalf("fetched %s", now.Revision)
		}
		if local := o.URL[:4] == "file"; !local {
			// The clone still has it.
			got, err := s.Snapshot(t.Context(), sources.Revision(first))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(map[string]string{"a.yaml": "a: 1\n"}, contents(t, got.Files)); d != "" {
				t.Errorf("files (-want +got):\n%s", d)
			}
		}
		o.Dir = filepath.Join(t.TempDir(), "new")
		fresh := open(t, o)
		have := fetch(t, fresh, "").Revision
		for range 2 {
			_, err := fresh.Snapshot(t.Context(), sources.Revision(first))
			if !errors.Is(err, sources.ErrGone) || !errors.Is(err, ErrNoCommit) {
				t.Errorf("%v, want that it is gone", err)
			}
		}
		unchanged(t, fresh, have)
		if _, err := fresh.Snapshot(t.Context(), "main"); !errors.Is(err, sources.ErrGone) {
			t.Errorf("a branch: %v", err)
		}
	})
}

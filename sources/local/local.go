// Package local reads desired state from a directory on this machine and notices its changes. A revision is a
// digest of paths, modes and contents; a snapshot holds the contents in memory, so it stays what it was while
// the directory changes.
package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/sources"
)

// Options say which directory is followed.
type Options struct {
	// Name is the name of the source, as it appears in snapshots.
	Name string
	Dir  string
	// Notice is told, in words for people, when watching works in a lesser way than it should; it may be nil.
	Notice func(string)
}

// Limits of one directory. Contents are held in memory, so that a snapshot does not change.
const (
	MaxBytes = 64 << 20
	MaxFiles = 50_000
)

// keepRevisions is how many earlier revisions Changed can compare with.
const keepRevisions = 16

// Source follows one directory. It is safe for concurrent use.
type Source struct {
	opt Options
	dir string

	mu   sync.Mutex
	last *contents
	old  []*digests // of earlier revisions, the newest last
}

// digests are what a revision is made of.
type digests struct {
	revision sources.Revision
	files    map[string]sum
}

// New returns a source. It does not read the directory yet.
func New(o Options) (*Source, error) {
	if o.Dir == "" {
		return nil, errors.New("no directory is set")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("directory %s: %w", o.Dir, err)
	}
	return &Source{opt: o, dir: dir}, nil
}

// Fetch reads what changed since the last time and returns a snapshot of the whole directory.
func (s *Source) Fetch(ctx context.Context, have sources.Revision) (sources.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := scan(ctx, s.dir, s.last, time.Now())
	if err != nil {
		return sources.Snapshot{}, fmt.Errorf("read directory %s: %w", s.dir, err)
	}
	s.last = c
	if c.revision == have {
		return sources.Snapshot{}, sources.ErrUnchanged
	}
	if n := len(s.old); n == 0 || s.old[n-1].revision != c.revision {
		s.old = append(slices.DeleteFunc(s.old, func(d *digests) bool { return d.revision == c.revision }), c.digests())
		s.old = s.old[max(0, len(s.old)-keepRevisions):]
	}
	history := sources.First
	if have != "" {
		history = sources.FastForward
	}
	return sources.Snapshot{
		Source: s.opt.Name, Revision: c.revision, Files: c, History: history,
		Changed: func(since sources.Revision) ([]string, bool) { return s.changed(since, c) },
	}, nil
}

// Close releases nothing: watching ends with its context.
func (s *Source) Close() error { return nil }

func (s *Source) changed(since sources.Revision, now *contents) ([]string, bool) {
	s.mu.Lock()
	i := slices.IndexFunc(s.old, func(d *digests) bool { return d.revision == since })
	var was *digests
	if i >= 0 {
		was = s.old[i]
	}
	s.mu.Unlock()
	if was == nil {
		return nil, false
	}
	is := now.digests()
	// What links point to cannot be told from paths, so that with them everything may have changed.
	if now.links > 0 && was.revision != is.revision {
		return nil, false
	}
	var paths []string
	for p, d := range is.files {
		if before, ok := was.files[p]; !ok || before != d {
			paths = append(paths, p)
		}
	}
	for p := range was.files {
		if _, ok := is.files[p]; !ok {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return paths, true
}

// Watch calls wake after each settled change until ctx ends. Changes count as settled 50 ms after the last one,
// and at the latest half a second after the first. Where the system has no more watches to give, the directory is
// looked through every two seconds instead, and Options.Notice is told.
func (s *Source) Watch(ctx context.Context, wake func()) error {
	err := watch(ctx, []string{s.dir}, watching{
		recursive: true, quiet: 50 * time.Millisecond, limit: 500 * time.Millisecond,
		skip: func(name string) bool { return filepath.Base(name) == ".git" },
	}, wake)
	if !exhausted(err) {
		return err
	}
	if s.opt.Notice != nil {
		s.opt.Notice(fmt.Sprintf("directory %s cannot be watched (%v) and is looked through every %v: raise fs.inotify.max_user_watches and max_user_instances",
			s.dir, err, pollInterval))
	}
	return s.poll(ctx, wake)
}

const pollInterval = 2 * time.Second

// poll compares what stat says of all files.
func (s *Source) poll(ctx context.Context, wake func()) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	was := fingerprint(s.dir)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if _, err := os.Stat(s.dir); err != nil {
			return fmt.Errorf("watch directory %s: %w", s.dir, err)
		}
		if is := fingerprint(s.dir); is != was {
			was = is
			wake()
		}
	}
}

// Package local reads desired state from a directory on this machine and notices its changes. A revision is a
// digest of paths, modes and contents; a snapshot holds the contents in memory, so it stays what it was while
// the directory changes.
package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
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

// keepRevisions is how many earlier revisions Changed can compare with and Snapshot returns. Each holds in memory what it had and the next one
// has not.
const keepRevisions = 4

// Source follows one directory. It is safe for concurrent use.
type Source struct {
	opt Options
	dir string

	mu   sync.Mutex
	last *contents
	old  []*contents // earlier revisions and the last one, the newest last

	// What the watch has told since the directory was last read; guarded by told.
	told sync.Mutex
	dirt *dirt // nil while nothing is watched, or something was missed
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
	dirty := s.dirty()
	c, err := scan(ctx, s.dir, s.last, dirty, time.Now())
	if err != nil {
		s.missed()
		return sources.Snapshot{}, fmt.Errorf("read directory %s: %w", s.dir, err)
	}
	s.last = c
	if c.revision == have {
		return sources.Snapshot{}, sources.ErrUnchanged
	}
	if n := len(s.old); n == 0 || s.old[n-1].revision != c.revision {
		s.old = append(slices.DeleteFunc(s.old, func(o *contents) bool { return o.revision == c.revision }), c)
		s.old = slices.Clone(s.old[max(0, len(s.old)-keepRevisions):])
	}
	snapshot := s.snapshot(c)
	if have != "" {
		snapshot.History = sources.FastForward
	}
	return snapshot, nil
}

// Snapshot returns the directory as it was at one of the last revisions. They are in memory, so that none is known from
// before this process.
func (s *Source) Snapshot(_ context.Context, rev sources.Revision) (sources.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.old {
		if c.revision == rev {
			return s.snapshot(c), nil
		}
	}
	return sources.Snapshot{}, fmt.Errorf("directory %s: %w: of a directory the last %d revisions are kept, for as long as the process lives", s.dir, sources.ErrGone, keepRevisions)
}

func (s *Source) snapshot(c *contents) sources.Snapshot {
	return sources.Snapshot{
		Source: s.opt.Name, Revision: c.revision, Files: c, History: sources.First,
		Changed: func(since sources.Revision) ([]string, bool) { return s.changed(since, c) },
	}
}

// Close releases nothing: watching ends with its context.
func (s *Source) Close() error { return nil }

func (s *Source) changed(since sources.Revision, now *contents) ([]string, bool) {
	s.mu.Lock()
	i := slices.IndexFunc(s.old, func(c *contents) bool { return c.revision == since })
	var was *contents
	if i >= 0 {
		was = s.old[i]
	}
	s.mu.Unlock()
	if was == nil {
		return nil, false
	}
	// What links point to cannot be told from paths, so that with them everything may have changed.
	if now.root.links > 0 && was.revision != now.revision {
		return nil, false
	}
	paths := differences(nil, "", was.root, now.root)
	slices.Sort(paths)
	return paths, true
}

// dirty takes what has to be read again. That is everything when it was not a change that made somebody look: then
// the watch is not relied on.
func (s *Source) dirty() *dirt {
	s.told.Lock()
	defer s.told.Unlock()
	d := s.dirt
	if d == nil || !d.here && d.below == nil {
		d = everything()
	}
	if s.dirt != nil {
		s.dirt = &dirt{}
	}
	return d
}

// missed says that what was told no longer says what is dirty.
func (s *Source) missed() {
	s.told.Lock()
	defer s.told.Unlock()
	if s.dirt != nil {
		s.dirt = everything()
	}
}

// touched says that something at a path of the file system is no longer what it was. Only what a file holds can be
// when replaced is false.
func (s *Source) touched(root, at string, replaced bool) {
	name, err := filepath.Rel(root, at)
	if err != nil || name == ".." || strings.HasPrefix(name, ".."+string(filepath.Separator)) {
		s.missed()
		return
	}
	name = filepath.ToSlash(name)
	s.told.Lock()
	defer s.told.Unlock()
	if s.dirt == nil {
		return
	}
	s.dirt.at(path.Dir(name)).here = true
	if replaced {
		s.dirt.at(name).all = true
	}
}

// Watch calls wake after each settled change until ctx ends. Changes count as settled 50 ms after the last one,
// and at the latest half a second after the first. Where the system has no more watches to give, the directory is
// looked through every two seconds instead, and Options.Notice is told.
func (s *Source) Watch(ctx context.Context, wake func()) error {
	err := watch(ctx, []string{s.dir}, watching{
		recursive: true, quiet: 50 * time.Millisecond, limit: 500 * time.Millisecond,
		skip:  func(name string) bool { return filepath.Base(name) == ".git" },
		began: func() { s.set(everything()) }, touched: s.touched, missed: s.missed,
	}, wake)
	s.set(nil)
	if !exhausted(err) {
		return err
	}
	if s.opt.Notice != nil {
		s.opt.Notice(fmt.Sprintf("directory %s cannot be watched (%v) and is looked through every %v: raise fs.inotify.max_user_watches and max_user_instances",
			s.dir, err, pollInterval))
	}
	return s.poll(ctx, wake)
}

func (s *Source) set(d *dirt) {
	s.told.Lock()
	defer s.told.Unlock()
	s.dirt = d
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

// Package reconcile is the loop: it wakes, fetches, renders, observes, computes a plan, has it carried
// out, records what was applied, and waits for the next reason to wake. Every source and every
// application has a worker of its own, so that one that fails never holds up another.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/sources"
)

// SourceConfig is how a source is polled.
type SourceConfig struct {
	Name string
	// Interval is the time between two looks; each is moved by up to a tenth of it, so that many
	// daemons do not ask one server at once. 0 never looks by itself.
	Interval time.Duration
	// Timeout bounds one fetch; 0 means one minute.
	Timeout time.Duration
	// Suspend keeps the last snapshot and asks for no other.
	Suspend bool
}

// SourceStatus is what is known of a source.
type SourceStatus struct {
	Name     string
	Snapshot sources.Snapshot // zero before the first fetch
	Fetched  time.Time        // when it last answered
	Err      error            // why the last fetch failed; nil when it did not
	Failures int              // fetches failed in a row
	Next     time.Time        // when it is asked again; zero when only on request
}

// ErrStopped is that a source is no longer looked at.
var ErrStopped = errors.New("the source is no longer looked at")

// Source keeps the newest snapshot of one source.
type Source struct {
	config SourceConfig
	source sources.Source
	poke   chan struct{}
	// changed is told of every new snapshot and of every fetch that failed; observed of every fetch.
	changed  func(SourceStatus)
	observed func(name string, took time.Duration, moved bool, err error)

	mu     sync.Mutex
	status SourceStatus
	// waiters are told of the end of the next fetch that starts.
	waiters []chan error
	// ended is closed when Run has returned.
	ended chan struct{}
}

// NewSource returns a source that is not looked at before Run or Fetch. changed is called from Run's
// goroutine and must not block; both functions may be nil.
func NewSource(config SourceConfig, source sources.Source, changed func(SourceStatus), observed func(string, time.Duration, bool, error)) *Source {
	if config.Timeout <= 0 {
		config.Timeout = time.Minute
	}
	return &Source{
		config: config, source: source, changed: changed, observed: observed,
		poke: make(chan struct{}, 1), ended: make(chan struct{}),
		status: SourceStatus{Name: config.Name},
	}
}

// Status returns what is known now.
func (s *Source) Status() SourceStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Poke asks Run to fetch now. It never blocks; pokes that come while a fetch is due are one.
func (s *Source) Poke() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// Fetch asks Run to fetch and waits until that is done; it returns the error of the fetch, and ErrStopped when Run
// ends before.
func (s *Source) Fetch(ctx context.Context) error {
	done := make(chan error, 1)
	s.mu.Lock()
	s.waiters = append(s.waiters, done)
	s.mu.Unlock()
	s.Poke()
	select {
	case err := <-done:
		return err
	case <-s.ended:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run fetches until ctx ends: at once, at every interval, when poked, and, for a source that watches
// itself, when it changes. After a failure it tries again sooner: after 1 s, 2 s, 4 s … up to the interval. It is
// called once.
func (s *Source) Run(ctx context.Context) error {
	defer close(s.ended)
	var watching sync.WaitGroup
	defer watching.Wait()
	if w, ok := s.source.(sources.Watcher); ok && !s.config.Suspend {
		watching.Go(func() {
			for ctx.Err() == nil {
				if err := w.Watch(ctx, s.Poke); err != nil && ctx.Err() == nil {
					sleep(ctx, time.Second)
				}
			}
		})
	}
	for ctx.Err() == nil {
		select {
		case <-s.poke: // what it asks for is done now
		default:
		}
		next := s.fetch(ctx)
		var due <-chan time.Time
		if next > 0 {
			due = time.After(next)
		}
		select {
		case <-ctx.Done():
		case <-due:
		case <-s.poke:
		}
	}
	return nil
}

// fetch looks once and returns the time until the next look; 0 for none.
func (s *Source) fetch(ctx context.Context) time.Duration {
	s.mu.Lock()
	before, waiters := s.status, s.waiters
	s.waiters = nil
	s.mu.Unlock()
	outcome := before.Err
	defer func() {
		for _, w := range waiters {
			w <- outcome
		}
	}()
	if s.config.Suspend && before.Snapshot.Revision != "" {
		return 0
	}
	fetchCtx, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	start := time.Now()
	snapshot, err := s.source.Fetch(fetchCtx, before.Snapshot.Revision)
	if ctx.Err() != nil {
		outcome = ErrStopped
		return 0
	}
	unchanged := errors.Is(err, sources.ErrUnchanged)
	if unchanged {
		err = nil
	}
	after := before
	after.Err, outcome = err, err
	next := s.config.Interval
	var refusal *sources.Refusal
	switch {
	case errors.As(err, &refusal):
		// The source answered, and asking again sooner changes nothing.
		after.Failures = 0
		after.Fetched = time.Now()
		if before.Snapshot.Revision == "" {
			after.Snapshot = snapshot
		}
	case err != nil:
		after.Failures++
		next = backoff(after.Failures, s.config.Interval)
	default:
		after.Failures = 0
		after.Fetched = time.Now()
		if !unchanged {
			after.Snapshot = snapshot
		}
	}
	if next > 0 && after.Failures == 0 {
		next += time.Duration((rand.Float64() - 0.5) / 5 * float64(next))
	}
	after.Next = time.Time{}
	if next > 0 {
		after.Next = time.Now().Add(next)
	}
	if s.observed != nil {
		s.observed(s.config.Name, time.Since(start), !unchanged, err)
	}
	s.mu.Lock()
	s.status = after
	s.mu.Unlock()
	// A revision that is refused is told of once.
	told := refusal != nil && before.Err != nil && before.Err.Error() == err.Error()
	if s.changed != nil && !told && (err != nil || !unchanged || before.Err != nil) {
		s.changed(after)
	}
	return next
}

// Snapshot returns an earlier revision, as far as the source still has it; otherwise its error wraps sources.ErrGone.
func (s *Source) Snapshot(ctx context.Context, rev sources.Revision) (sources.Snapshot, error) {
	archive, ok := s.source.(sources.Archive)
	if !ok {
		return sources.Snapshot{}, fmt.Errorf("%w: source %s keeps no earlier ones", sources.ErrGone, s.config.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	return archive.Snapshot(ctx, rev)
}

// Close releases the source.
func (s *Source) Close() error { return s.source.Close() }

// backoff returns 1 s doubled for every failure after the first, at most limit (one minute without a limit).
func backoff(failures int, limit time.Duration) time.Duration {
	if limit <= 0 {
		limit = time.Minute
	}
	d := time.Second << min(max(failures-1, 0), 10)
	return min(d, limit)
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

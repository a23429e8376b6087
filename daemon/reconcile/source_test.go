package reconcile

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/sources"
)

// scripted is a source that gives the answers it was told, one after the other; the last one stays.
type scripted struct {
	mu      sync.Mutex
	answers []answer
	at      []time.Time
}

type answer struct {
	revision sources.Revision
	err      error
}

func (s *scripted) Fetch(_ context.Context, have sources.Revision) (sources.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = append(s.at, time.Now())
	a := s.answers[0]
	if len(s.answers) > 1 {
		s.answers = s.answers[1:]
	}
	if a.err == nil && a.revision == have {
		return sources.Snapshot{}, sources.ErrUnchanged
	}
	return sources.Snapshot{Revision: a.revision}, a.err
}

func (s *scripted) Close() error { return nil }

// hung is a source that answers only when it is no longer asked.
type hung struct{}

func (hung) Fetch(ctx context.Context, _ sources.Revision) (sources.Snapshot, error) {
	<-ctx.Done()
	return sources.Snapshot{}, ctx.Err()
}

func (hung) Close() error { return nil }

// TestFetchEndsWithItsSource holds that nobody waits for a source that is no longer looked at: it may have been
// removed while a plan was made.
func TestFetchEndsWithItsSource(t *testing.T) {
	for name, source := range map[string]sources.Source{
		"in the middle of a fetch": hung{},
		"between two fetches":      &scripted{answers: []answer{{revision: "a"}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewSource(SourceConfig{Name: "shop", Timeout: time.Hour}, source, nil, nil)
				stop := run(t, s)
				synctest.Wait()
				during := make(chan error, 1)
				if _, hangs := source.(hung); hangs {
					go func() { during <- s.Fetch(context.Background()) }()
					synctest.Wait()
				} else {
					during <- ErrStopped
				}
				stop()
				for what, err := range map[string]error{"during": <-during, "after": s.Fetch(context.Background())} {
					if !errors.Is(err, ErrStopped) {
						t.Errorf("%s: %v", what, err)
					}
				}
			})
		})
	}
}

// TestFetchThatIsCutShortSaysSo holds that a fetch that ends because its source is stopped does not look like one
// that found nothing new.
func TestFetchThatIsCutShortSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSource(SourceConfig{Name: "shop", Timeout: time.Hour}, hung{}, nil, nil)
		asked := make(chan error, 1)
		go func() { asked <- s.Fetch(context.Background()) }()
		synctest.Wait()
		stop := run(t, s) // its first fetch is the one that was asked for
		synctest.Wait()
		stop()
		if err := <-asked; !errors.Is(err, ErrStopped) {
			t.Error(err)
		}
	})
}

func run(t *testing.T, s *Source) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func TestSourceKeepsTheLastGoodSnapshotAndTriesSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("connection refused")
		fake := &scripted{answers: []answer{{revision: "a"}, {err: down}, {err: down}, {err: down}, {revision: "b"}}}
		var told []string
		s := NewSource(SourceConfig{Name: "shop", Interval: time.Minute}, fake, func(st SourceStatus) {
			told = append(told, string(st.Snapshot.Revision)+errText(st.Err))
		}, nil)
		stop := run(t, s)
		time.Sleep(75 * time.Second) // 54..66 s, then 1 s, 2 s, 4 s
		synctest.Wait()
		stop()
		want := []string{"a", "a connection refused", "a connection refused", "a connection refused", "b"}
		if d := cmp.Diff(want, told); d != "" {
			t.Error(d)
		}
		var gaps []time.Duration
		for i := 2; i < len(fake.at); i++ {
			gaps = append(gaps, fake.at[i].Sub(fake.at[i-1]))
		}
		if d := cmp.Diff([]time.Duration{time.Second, 2 * time.Second, 4 * time.Second}, gaps); d != "" {
			t.Error(d)
		}
	})
}

func TestSourceTellsOnlyOfChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		s := NewSource(SourceConfig{Name: "shop", Interval: time.Minute}, &scripted{answers: []answer{{revision: "a"}}}, func(SourceStatus) { told++ }, nil)
		stop := run(t, s)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		stop()
		if told != 1 {
			t.Errorf("told %d times of one revision", told)
		}
	})
}

func TestFetchWaitsForALookThatBeginsAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := &scripted{answers: []answer{{revision: "a"}, {revision: "b"}}}
		s := NewSource(SourceConfig{Name: "shop"}, fake, nil, nil)
		stop := run(t, s)
		synctest.Wait()
		if err := s.Fetch(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := s.Status().Snapshot.Revision; got != "b" {
			t.Errorf("after Fetch the revision is %q, want b", got)
		}
		stop()
	})
}

func TestSuspendedSourceKeepsItsSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := &scripted{answers: []answer{{revision: "a"}, {revision: "b"}}}
		s := NewSource(SourceConfig{Name: "shop", Interval: time.Minute, Suspend: true}, fake, nil, nil)
		stop := run(t, s)
		time.Sleep(10 * time.Minute)
		s.Poke()
		synctest.Wait()
		stop()
		if got := s.Status().Snapshot.Revision; got != "a" {
			t.Errorf("revision %q, want a", got)
		}
	})
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return " " + err.Error()
}

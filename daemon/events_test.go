package daemon

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/daemon/api"
)

func reasons(es []api.Event) []string {
	var out []string
	for _, e := range es {
		out = append(out, e.Reason)
	}
	return out
}

func TestEventsKeepTheNewest(t *testing.T) {
	l := newEvents(3)
	for _, r := range []string{"A", "B", "C", "D"} {
		l.add(api.Event{Reason: r})
	}
	got, seq, _ := l.list(api.EventQuery{})
	if d := cmp.Diff([]string{"B", "C", "D"}, reasons(got)); d != "" || seq != 4 {
		t.Errorf("seq %d %s", seq, d)
	}
}

// What is kept is the same after any number of events, whenever the rest is let go.
func TestEventsThatAreKeptAreAlwaysTheNewest(t *testing.T) {
	l := newEvents(3)
	for i := range 20 {
		l.add(api.Event{Reason: string(rune('A' + i))})
		got, seq, _ := l.list(api.EventQuery{})
		var want []string
		for j := max(0, i-2); j <= i; j++ {
			want = append(want, string(rune('A'+j)))
		}
		if d := cmp.Diff(want, reasons(got)); d != "" || seq != uint64(i+1) || len(l.all) > 6 {
			t.Fatalf("after %d: seq %d, %d in memory\n%s", i+1, seq, len(l.all), d)
		}
		last, _, _ := l.list(api.EventQuery{Tail: 2, After: 1})
		if d := cmp.Diff(want[max(0, len(want)-2):], reasons(last)); i > 1 && d != "" {
			t.Fatalf("the last two after %d:\n%s", i+1, d)
		}
	}
}

func TestEqualEventsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newEvents(0)
		l.add(api.Event{Reason: "BackOff", Message: "m"})
		l.add(api.Event{Reason: "Pulled"})
		l.add(api.Event{Reason: "BackOff", Message: "m"})
		got, _, _ := l.list(api.EventQuery{})
		if d := cmp.Diff([]string{"Pulled", "BackOff"}, reasons(got)); d != "" || got[1].Count != 2 {
			t.Errorf("count %d %s", got[1].Count, d)
		}
		time.Sleep(11 * time.Minute)
		l.add(api.Event{Reason: "BackOff", Message: "m"})
		got, _, _ = l.list(api.EventQuery{})
		if len(got) != 3 || got[2].Count != 1 {
			t.Errorf("after eleven minutes: %+v, want a new event", got)
		}
	})
}

func TestFollowDeliversEachEventOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newEvents(0)
		l.add(api.Event{Reason: "A"})
		var got []string
		stop := errors.New("enough")
		done := make(chan error)
		go func() {
			done <- l.follow(context.Background(), api.EventQuery{Follow: true}, func(e api.Event) error {
				if got = append(got, e.Reason); len(got) == 3 {
					return stop
				}
				return nil
			})
		}()
		synctest.Wait()
		l.add(api.Event{Reason: "B"})
		l.add(api.Event{Reason: "C"})
		if err := <-done; err != stop {
			t.Fatal(err)
		}
		if d := cmp.Diff([]string{"A", "B", "C"}, got); d != "" {
			t.Error(d)
		}
	})
}

func TestWatchCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newEvents(0)
		ctx, cancel := context.WithCancel(t.Context())
		calls := 0
		done := make(chan error)
		go func() { done <- l.watch(ctx, func() { calls++ }) }()
		synctest.Wait()
		for range 100 {
			l.touch()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if calls < 2 || calls > 3 {
			t.Errorf("100 changes at once were told %d times, want the first look and one or two more", calls)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

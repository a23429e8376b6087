package bench

import (
	"slices"
	"testing"
	"time"
)

// series are the samples of one thing.
type series []time.Duration

// quantile returns the sample at q, between 0 and 1; 0 without samples.
func (s series) quantile(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + time.Duration((at-float64(i))*float64(sorted[i+1]-sorted[i]))
}

func (s series) median() time.Duration { return s.quantile(0.5) }

// spread is the interquartile range in parts of the median.
func (s series) spread() float64 {
	if s.median() == 0 {
		return 0
	}
	return float64(s.quantile(0.75)-s.quantile(0.25)) / float64(s.median())
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func TestSeries(t *testing.T) {
	s := series{40, 10, 20, 30, 50}
	if got := s.median(); got != 30 {
		t.Errorf("median = %d, want 30", got)
	}
	if got := s.quantile(1); got != 50 {
		t.Errorf("highest = %d, want 50", got)
	}
	if got := s.quantile(0.125); got != 15 {
		t.Errorf("between two samples = %d, want 15", got)
	}
	if got, want := s.spread(), 20.0/30; got != want {
		t.Errorf("spread = %v, want %v", got, want)
	}
	if got := (series{}).median(); got != 0 {
		t.Errorf("median of nothing = %d", got)
	}
}

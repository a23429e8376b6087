package probes

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// machine decides for one probe: when the next attempt is due and what its outcome changes. It
// knows no clock and no goroutine.
//
// Attempts are due at beats, one period apart, the first one after the initial delay. As long as a
// startup or readiness probe has never succeeded, extra attempts are made between the beats, first
// quickly, then ever more slowly, so that a container is found ready as soon as it is. A failed
// extra attempt counts nothing; a successful one counts and restarts the beats.
type machine struct {
	kind             Kind
	period           time.Duration
	timeout          time.Duration
	success, failure int32
	firstGap         time.Duration // to the first extra attempt; 0 for none

	beat  time.Time // the next attempt that counts
	extra time.Time // the next extra attempt; zero for none
	gap   time.Duration

	good, bad int32 // consecutive outcomes that count
	verdict   verdict
}

type verdict int

const (
	undecided verdict = iota
	passed
	failed
)

// The first gaps of extra attempts. A command in a container costs far more than a connection.
const (
	quickGap     = 20 * time.Millisecond
	quickExecGap = 100 * time.Millisecond
)

func newMachine(kind Kind, p *corev1.Probe, started time.Time) *machine {
	m := &machine{
		kind:    kind,
		period:  seconds(p.PeriodSeconds, 10),
		timeout: seconds(p.TimeoutSeconds, 1),
		success: orDefault(p.SuccessThreshold, 1),
		failure: orDefault(p.FailureThreshold, 3),
		beat:    started.Add(time.Duration(max(p.InitialDelaySeconds, 0)) * time.Second),
	}
	switch {
	case kind == Liveness:
		m.verdict = passed // alive until it is shown not to be
	case p.Exec != nil:
		m.firstGap = quickExecGap
	default:
		m.firstGap = quickGap
	}
	return m
}

// next returns when the next attempt is due.
func (m *machine) next() time.Time {
	if !m.extra.IsZero() && m.extra.Before(m.beat) {
		return m.extra
	}
	return m.beat
}

// observe takes the outcome of the attempt that was due at due and ended at now. known is false
// when the attempt could not be made. changed is true when there is a new verdict.
func (m *machine) observe(due, now time.Time, known, ok bool) (changed bool) {
	counts := !due.Before(m.beat)
	switch {
	case ok && known && !counts:
		m.extra = time.Time{}
		m.beat = now.Add(m.period)
		counts = true
	case counts:
		m.beat = m.beat.Add(m.period)
		if m.beat.Before(now) {
			m.beat = now
		}
	}
	if known && counts {
		changed = m.count(ok)
	}
	m.schedule(now, known && ok)
	return changed
}

func (m *machine) count(ok bool) (changed bool) {
	to := failed
	if ok {
		to = passed
		m.good, m.bad = m.good+1, 0
		if m.good < m.success {
			return false
		}
	} else {
		m.good, m.bad = 0, m.bad+1
		if m.bad < m.failure {
			return false
		}
	}
	changed = m.verdict != to
	m.verdict = to
	return changed
}

// schedule sets the next extra attempt.
func (m *machine) schedule(now time.Time, ok bool) {
	if ok {
		m.firstGap = 0 // the quick phase ends with the first success
	}
	if m.firstGap == 0 {
		m.extra = time.Time{}
		return
	}
	if m.gap == 0 {
		m.gap = m.firstGap
	} else {
		m.gap *= 2
	}
	m.extra = now.Add(m.gap)
	if m.gap >= m.period {
		m.firstGap, m.extra = 0, time.Time{}
	}
}

func seconds(n, def int32) time.Duration {
	return time.Duration(orDefault(n, def)) * time.Second
}

func orDefault(n, def int32) int32 {
	if n <= 0 {
		return def
	}
	return n
}

package executor

import "time"

// A pod that is to stop leaves the routes first, so that nobody is sent to it any more when it gets its signal. A pod
// that has become ready counts as ready for a rollout when the routes have it. What waits, waits for each registry with
// a Gate, at most that long.

// hold returns until when at most a pod that began to leave at since has to wait; zero when no registry with a gate can
// have it as a ready endpoint any more.
func (s *serving) hold(uid string, since, now time.Time) (until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.members[uid]
	if m == nil || m.turned == 0 {
		return time.Time{}
	}
	for _, r := range s.registries {
		end := since.Add(r.Gate)
		// A registry that was not tried since the pod entered never had it.
		if (m.offered || r.done < m.turned) && r.tried >= m.entered && now.Before(end) && end.After(until) {
			until = end
		}
	}
	return until
}

// wakeLeaving makes the worker of a pod hear of every registry that was set, until it is let go.
func (s *serving) wakeLeaving(p *pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving[p.uid] = p
}

func (s *serving) letGo(uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leaving, uid)
}

// entering returns until when at most a pod that is ready has to wait for registries with a gate to have it, zero when
// all have, and what is closed when that may have changed.
func (s *serving) entering(uid string, now time.Time) (until time.Time, progress <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.members[uid]
	if m == nil || !m.offered {
		return time.Time{}, s.progress
	}
	for _, r := range s.registries {
		if end := m.at.Add(r.Gate); r.done < m.turned && now.Before(end) && end.After(until) {
			until = end
		}
	}
	return until, s.progress
}

package docker

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-units"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// maxAge is how long what was inspected is believed: the engine can drop an event, and not everything that
// changes shows in a list.
const maxAge = 10 * time.Minute

// memory is what an Engine need not ask again. Whose a container is never changes, so that is kept until the
// container is gone; how it is, only while events tell of every change.
type memory struct {
	maxAge time.Duration

	mu      sync.Mutex
	proved  map[string]proved
	known   map[string]seen
	watched bool   // events flow, so that what changes leaves known
	changes uint64 // counts what left known, so that an inspection that was overtaken is not kept
	lists   uint64 // counts lists, so that what was made during one is not taken for gone
}

// proved is what is known of whose a container is.
type proved struct {
	verdict verdict
	id      runtimes.Identity
	list    uint64
}

// verdict says whose a container is.
type verdict int

const (
	unknown verdict = iota
	ours
	// copied: labels, image and sandbox fit, but another container has a better claim to the identity.
	copied
	strange
)

// seen is an inspection and when it was made.
type seen struct {
	runtimes.Container
	at time.Time
}

func (m *memory) init() {
	m.maxAge, m.proved, m.known = maxAge, map[string]proved{}, map[string]seen{}
}

// owner returns what is known of whose a container is.
func (m *memory) owner(id string) (runtimes.Identity, verdict) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.proved[id]
	return p.id, p.verdict
}

// prove keeps whose a container is.
func (m *memory) prove(id string, who runtimes.Identity, v verdict) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.proved[id] = proved{verdict: v, id: who, list: m.lists}
}

// listing begins a list and returns its number.
func (m *memory) listing() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lists++
	return m.lists
}

// retain drops what a list of that number does not have.
func (m *memory) retain(list uint64, present map[string]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, p := range m.proved {
		if !present[id] && p.list < list {
			delete(m.proved, id)
			delete(m.known, id)
		}
	}
}

// recall returns what was inspected if that is how the list shows the container. The list was made between
// two times.
func (m *memory) recall(c *container.Summary, from, to time.Time) (runtimes.Container, bool) {
	m.mu.Lock()
	s, ok := m.known[c.ID]
	watched := m.watched
	m.mu.Unlock()
	if !ok || !watched || to.Sub(s.at) > m.age(c.ID) || !fits(s.Container, c.State, c.Status, from, to) {
		return runtimes.Container{}, false
	}
	return s.Container, true
}

// age is how old an inspection may become: between a half and the whole of the maximum, so that not all are
// made again at the same time.
func (m *memory) age(id string) time.Duration {
	n, err := strconv.ParseUint(id[:min(2, len(id))], 16, 8)
	if err != nil {
		return m.maxAge / 2
	}
	return m.maxAge/2 + m.maxAge/2*time.Duration(n)/255
}

// before returns what remember needs to notice that an inspection was overtaken.
func (m *memory) before() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changes
}

// remember keeps what was inspected unless something changed since changes was read.
func (m *memory) remember(c runtimes.Container, changes uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changes == changes {
		m.known[c.ID] = seen{c, time.Now()}
	}
}

// forget drops how a container was, because it changed; and whose it was, when it is gone.
func (m *memory) forget(id string, gone bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes++
	delete(m.known, id)
	if gone {
		delete(m.proved, id)
	}
}

// watching says whether what was inspected may be remembered.
func (m *memory) watching(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watched = on
	m.changes++
	clear(m.known)
}

// fits reports whether a list's words for a container are those for what was inspected. They tell of a new
// exit code and of a restart, unless that is too short ago to show.
func fits(c runtimes.Container, state, status string, from, to time.Time) bool {
	if stateOf(c) != state {
		return false
	}
	switch state {
	case container.StateCreated:
		return true
	case container.StatePaused:
		status = strings.TrimSuffix(status, " (Paused)")
		fallthrough
	case container.StateRunning:
		words, ok := strings.CutPrefix(status, "Up ")
		return ok && since(c.StartedAt, words, from, to)
	case container.StateExited:
		words, ok := strings.CutPrefix(status, fmt.Sprintf("Exited (%d) ", c.ExitCode))
		words, ago := strings.CutSuffix(words, " ago")
		return ok && ago && since(c.FinishedAt, words, from, to)
	}
	return false
}

// since reports whether words are the engine's for how long ago something was, at some moment between two
// times. Its clock may differ by a second; were it by more, containers would only be inspected more often.
func since(at time.Time, words string, from, to time.Time) bool {
	const tolerance, steps = time.Second, 60
	from, to = from.Add(-tolerance), to.Add(tolerance)
	for range steps {
		if !from.Before(to) {
			break
		}
		if units.HumanDuration(from.Sub(at)) == words {
			return true
		}
		from = from.Add(time.Second)
	}
	return units.HumanDuration(to.Sub(at)) == words
}

// stateOf is the engine's word for the state of a container that was inspected; empty for states that pass.
func stateOf(c runtimes.Container) string {
	switch {
	case c.Dead:
		return ""
	case c.Paused:
		return container.StatePaused
	case c.Running:
		return container.StateRunning
	case c.StartedAt.IsZero():
		return container.StateCreated
	default:
		return container.StateExited
	}
}

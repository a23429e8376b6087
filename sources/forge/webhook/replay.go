package webhook

import (
	"sync"

	"github.com/fairlead-dev/fairlead/sources/forge"
)

// Memory knows the newest deliveries, so that one that comes twice counts once. It is safe for concurrent use.
type Memory struct {
	mu   sync.Mutex
	seen map[string]struct{}
	ring []string // in the order in which they came
	next int
}

// NewMemory returns a Memory of at most size deliveries.
func NewMemory(size int) *Memory {
	return &Memory{seen: make(map[string]struct{}, size), ring: make([]string, size)}
}

// Seen reports whether the event was had before, and remembers it. A delivery without a name is new every time. The
// name is not part of what most forges sign, so a command is also known by its comment, which is.
func (m *Memory) Seen(ev forge.Event) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := false
	if ev.Delivery != "" {
		seen = m.add(string(ev.Forge) + " " + ev.Delivery)
	}
	if c := once(ev); c != "" {
		seen = m.add(c) || seen
	}
	return seen
}

// add reports whether key is there already, and adds it in place of the oldest.
func (m *Memory) add(key string) bool {
	if _, ok := m.seen[key]; ok {
		return true
	}
	delete(m.seen, m.ring[m.next])
	m.ring[m.next] = key
	m.seen[key] = struct{}{}
	m.next = (m.next + 1) % len(m.ring)
	return false
}

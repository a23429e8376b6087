package decode

import (
	"crypto/sha256"
	"sync"

	"github.com/fairlead-dev/fairlead/render/diag"
)

// Cache remembers parsed files by path and content, since bases are shared by many overlays. The zero value
// is ready for use, from any goroutine.
type Cache struct {
	mu      sync.Mutex
	entries map[cacheKey]cached
	bytes   int
}

type cacheKey struct {
	path string
	sum  [32]byte
}

type cached struct {
	file *File
	list diag.List
}

// cacheBytes bounds the source text whose parsed form is kept. Parsed files take some twenty times as much.
const cacheBytes = 2 << 20

// Parse is ParseFile with a memory. The result is shared and must not be modified.
func (c *Cache) Parse(path string, data []byte, lim Limits) (*File, diag.List) {
	if c == nil {
		return ParseFile(path, data, lim)
	}
	key := cacheKey{path, sha256.Sum256(data)}
	c.mu.Lock()
	e, ok := c.entries[key]
	c.mu.Unlock()
	if ok {
		return e.file, append(diag.List(nil), e.list...)
	}
	f, list := ParseFile(path, data, lim)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil || c.bytes+len(data) > cacheBytes {
		c.entries, c.bytes = map[cacheKey]cached{}, 0
	}
	if len(data) <= cacheBytes {
		c.entries[key] = cached{f, list}
		c.bytes += len(data)
	}
	return f, append(diag.List(nil), list...)
}

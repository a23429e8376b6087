package names

import "hash/maphash"

// shardCount is a power of two.
const shardCount = 256

// shards is a map that is never modified: put and drop work on a copy, of which only the shards with changes are new.
// The zero value is an empty map.
type shards[K comparable, V any] [shardCount]map[K]V

// seed is one for all, so that a key stays in its shard.
var seed = maphash.MakeSeed()

func shard[K comparable](k K) int { return int(maphash.Comparable(seed, k) & (shardCount - 1)) } //nolint:gosec // below 256

func (s *shards[K, V]) get(k K) (V, bool) {
	v, ok := s[shard(k)][k]
	return v, ok
}

// change is a copy that is being changed.
type change[K comparable, V any] struct {
	shards[K, V]
	fresh [shardCount]bool
}

func (s *shards[K, V]) change() *change[K, V] { return &change[K, V]{shards: *s} }

func (c *change[K, V]) own(i int) map[K]V {
	if !c.fresh[i] {
		m := make(map[K]V, len(c.shards[i])+1)
		for k, v := range c.shards[i] {
			m[k] = v
		}
		c.shards[i], c.fresh[i] = m, true
	}
	return c.shards[i]
}

func (c *change[K, V]) put(k K, v V) { c.own(shard(k))[k] = v }

func (c *change[K, V]) drop(k K) { delete(c.own(shard(k)), k) }

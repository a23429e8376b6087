package names

import (
	"container/list"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxCacheBytes and maxMessage bound what the cache takes, whatever is asked.
	maxCacheBytes = 32 << 20
	maxMessage    = 16 << 10
	// overhead is about what a kept message takes beside its bytes.
	overhead = 400
	// maxTTL and maxNegativeTTL are how long answers are kept at most, whatever their owners say.
	maxTTL         = time.Hour
	maxNegativeTTL = 10 * time.Minute
	// staleTTL is how long clients may keep an answer that is too old, as RFC 8767 recommends.
	staleTTL = 30
)

// question is what upstreams are asked. The name is in lower case.
type question struct {
	name             string
	qtype            uint16
	dnssec, checking bool // the DO and the CD bit
}

// cache keeps upstreams' answers, those that were used last. Only whole answers to the very same question are kept:
// nothing that an answer says about other names is believed when those are asked for.
type cache struct {
	entries int
	stale   time.Duration

	mu    sync.Mutex
	bytes int
	by    map[question]*list.Element
	used  list.List // of *kept, the last used first
}

// kept is an answer.
type kept struct {
	question
	message         []byte
	stored, expires time.Time
}

func newCache(entries int, stale time.Duration) *cache {
	return &cache{entries: entries, stale: max(stale, 0), by: map[question]*list.Element{}}
}

func (c *cache) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.by)
}

// put keeps an answer for as long as it says.
func (c *cache) put(q question, m *dns.Msg, now time.Time) {
	ttl, ok := lifetime(m)
	if !ok {
		return
	}
	data, err := m.Pack()
	if err != nil || len(data) > maxMessage {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.by[q]; e != nil {
		c.remove(e)
	}
	c.by[q] = c.used.PushFront(&kept{q, data, now, now.Add(ttl)})
	c.bytes += len(data) + overhead
	for len(c.by) > c.entries || c.bytes > maxCacheBytes {
		c.remove(c.used.Back())
	}
}

// remove is called with the lock held.
func (c *cache) remove(e *list.Element) {
	k := c.used.Remove(e).(*kept)
	delete(c.by, k.question)
	c.bytes -= len(k.message) + overhead
}

// get returns a copy of the answer with what is left of its time. fresh is false for one that is too old and may be
// used when there is no other. Without any, the answer is nil.
func (c *cache) get(q question, now time.Time) (m *dns.Msg, fresh bool) {
	c.mu.Lock()
	e := c.by[q]
	if e == nil {
		c.mu.Unlock()
		return nil, false
	}
	k := e.Value.(*kept)
	if now.After(k.expires.Add(c.stale)) {
		c.remove(e)
		c.mu.Unlock()
		return nil, false
	}
	c.used.MoveToFront(e)
	c.mu.Unlock()

	m = new(dns.Msg)
	if m.Unpack(k.message) != nil {
		return nil, false
	}
	fresh = now.Before(k.expires)
	age, left := uint32(now.Sub(k.stored)/time.Second), uint32(max(k.expires.Sub(now)/time.Second, 1)) //nolint:gosec // below an hour, or unused
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			switch h := rr.Header(); {
			case h.Rrtype == dns.TypeOPT:
			case !fresh:
				h.Ttl = staleTTL
			case h.Ttl > age:
				h.Ttl = min(h.Ttl-age, left) // no longer than it would be kept here
			default:
				h.Ttl = 1
			}
		}
	}
	return m, fresh
}

// lifetime is how long an answer may be kept, as RFC 2308 has it for those that say that there is nothing.
func lifetime(m *dns.Msg) (time.Duration, bool) {
	if m.Truncated || m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return 0, false
	}
	q := m.Question[0]
	negative := m.Rcode == dns.RcodeNameError
	if !negative {
		negative = true
		for _, rr := range m.Answer {
			if t := rr.Header().Rrtype; t == q.Qtype || q.Qtype == dns.TypeANY {
				negative = false
			}
		}
	}
	ttl, limit := uint32(maxTTL/time.Second), maxTTL
	if negative {
		limit = maxNegativeTTL
		authority := false
		for _, rr := range m.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				ttl, authority = min(ttl, soa.Hdr.Ttl, soa.Minttl), true
			}
		}
		if !authority {
			return 0, false
		}
	}
	for _, rr := range m.Answer {
		ttl = min(ttl, rr.Header().Ttl)
	}
	if !negative {
		for _, section := range [][]dns.RR{m.Ns, m.Extra} {
			for _, rr := range section {
				if rr.Header().Rrtype != dns.TypeOPT {
					ttl = min(ttl, rr.Header().Ttl)
				}
			}
		}
	}
	if ttl == 0 {
		return 0, false
	}
	return min(time.Duration(ttl)*time.Second, limit), true
}

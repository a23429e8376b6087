package names

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Kind is who answered a question.
type Kind int

// The kinds of questions.
const (
	// KindCluster is about Services, pods and addresses of the cluster.
	KindCluster Kind = iota
	// KindForward is anything else.
	KindForward
	// KindRefused is what no name server of this kind answers: transfers, updates, other classes.
	KindRefused
	kinds
)

// String is one word, for a label of a metric.
func (k Kind) String() string {
	switch k {
	case KindCluster:
		return "cluster"
	case KindForward:
		return "forward"
	case KindRefused:
		return "refused"
	case kinds:
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// rcodes is how many codes are told apart; those above are counted as the last.
const rcodes = 24

// Buckets are the upper limits of the buckets of latencies.
var buckets = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second,
}

type counters struct {
	answers                               [kinds][rcodes]atomic.Uint64
	dropped, malformed, truncated         atomic.Uint64
	hits, misses, stale, shared, overload atomic.Uint64
	waiting                               atomic.Int64
}

func (c *counters) count(k Kind, rcode int) { c.answers[k][min(rcode, rcodes-1)].Add(1) }

// Answers is how many answers of one kind had one response code.
type Answers struct {
	Kind  Kind
	Rcode string // NOERROR, NXDOMAIN, SERVFAIL, …
	Count uint64
}

// Bucket is how many latencies were at most UpTo; buckets add up.
type Bucket struct {
	UpTo  time.Duration
	Count uint64
}

// Latencies is a histogram.
type Latencies struct {
	Buckets []Bucket
	Count   uint64
	Sum     time.Duration
}

// Upstream is what is known of an upstream server.
type Upstream struct {
	Domain  string // "." for the one that is asked for everything else
	Address netip.AddrPort
	// Failed is how many questions it did not answer, or not usefully.
	Failed uint64
	// Down: it did not answer lately and is asked only now and then.
	Down bool
	// Latencies are those of answers.
	Latencies Latencies
}

// Listening is the state of an address to answer on.
type Listening struct {
	Address netip.AddrPort
	Err     error // nil when it is listened on
}

// Stats are counted since the Server was made.
type Stats struct {
	Answers []Answers
	// Dropped came from a source that is not answered, Malformed could not be read, Truncated had to be cut for UDP.
	Dropped, Malformed, Truncated uint64
	// CacheHits and CacheMisses are questions for upstreams; CacheStale were answered with what was too old, because no
	// upstream answered; CacheShared were asked while the same question was under way; CacheEntries is what is kept now.
	CacheHits, CacheMisses, CacheStale, CacheShared uint64
	CacheEntries                                    int
	// Overload is how many questions failed because too many waited for upstreams.
	Overload  uint64
	Waiting   int64
	Services  int
	Listening []Listening
	Upstreams []Upstream
}

// Stats returns what was counted; it may be called at any time.
func (s *Server) Stats() Stats {
	c := &s.counters
	out := Stats{
		Dropped: c.dropped.Load(), Malformed: c.malformed.Load(), Truncated: c.truncated.Load(),
		CacheHits: c.hits.Load(), CacheMisses: c.misses.Load(), CacheStale: c.stale.Load(), CacheShared: c.shared.Load(),
		CacheEntries: s.forwarder.cache.size(), Overload: c.overload.Load(), Waiting: c.waiting.Load(),
		Upstreams: s.forwarder.stats(),
	}
	for k := range kinds {
		for r := range rcodes {
			if n := c.answers[k][r].Load(); n > 0 {
				name := dns.RcodeToString[r]
				if r == rcodes-1 || name == "" {
					name = "OTHER"
				}
				out.Answers = append(out.Answers, Answers{k, name, n})
			}
		}
	}
	if t := s.table.Load(); t != nil {
		out.Services = len(t.routes)
	}
	for _, l := range s.listeners {
		bound, err := l.state()
		if err != nil {
			bound = l.address.AddrPort
		}
		out.Listening = append(out.Listening, Listening{bound, err})
	}
	return out
}

// histogram counts latencies.
type histogram struct {
	buckets [len(buckets)]atomic.Uint64
	count   atomic.Uint64
	sum     atomic.Int64
}

func (h *histogram) observe(d time.Duration) {
	if i := slices.IndexFunc(buckets[:], func(b time.Duration) bool { return d <= b }); i >= 0 {
		h.buckets[i].Add(1)
	}
	h.count.Add(1)
	h.sum.Add(int64(d))
}

func (h *histogram) latencies() Latencies {
	out := Latencies{Count: h.count.Load(), Sum: time.Duration(h.sum.Load())}
	var total uint64
	for i, b := range buckets {
		total += h.buckets[i].Load()
		out.Buckets = append(out.Buckets, Bucket{b, total})
	}
	return out
}

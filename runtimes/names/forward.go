package names

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// patience is how long a client waits for upstreams when there is an answer that is too old, as RFC 8767 recommends.
	patience = 1800 * time.Millisecond
	// maxExchanges is how many different questions are with upstreams at a time.
	maxExchanges = 1024
)

var (
	errNoUpstream = errors.New("no name server to ask")
	errOverload   = errors.New("too many questions wait for name servers")
)

// forwarder has upstreams answer questions.
type forwarder struct {
	options  Options
	counters *counters
	cache    *cache
	groups   []*group // those of domains, the longest domain first; that for all other names last
	ctx      context.Context
	running  sync.WaitGroup

	mu    sync.Mutex
	under map[question]*exchange
}

// exchange is a question that is with upstreams. The fields below done are written before it is closed.
type exchange struct {
	done chan struct{}
	m    *dns.Msg
	err  error
}

// newForwarder returns a forwarder that gives up what is under way when ctx ends.
func newForwarder(ctx context.Context, o Options, ours func(netip.AddrPort) bool, c *counters) *forwarder {
	f := &forwarder{options: o, counters: c, cache: newCache(o.CacheSize, o.Stale), ctx: ctx, under: map[question]*exchange{}}
	for domain, servers := range o.Domains {
		f.groups = append(f.groups, newGroup(dns.CanonicalName(domain), fixed(servers), o.Timeout, ours))
	}
	slices.SortFunc(f.groups, func(a, b *group) int {
		return cmp.Or(cmp.Compare(dns.CountLabel(b.domain), dns.CountLabel(a.domain)), cmp.Compare(a.domain, b.domain))
	})
	servers := fixed(o.Upstreams)
	if len(o.Upstreams) == 0 {
		servers = newHostServers(o.ResolvConf, ours).get
	}
	if !slices.ContainsFunc(f.groups, func(g *group) bool { return g.domain == "." }) {
		f.groups = append(f.groups, newGroup(".", servers, o.Timeout, ours))
	}
	return f
}

// close waits for what is under way.
func (f *forwarder) close() { f.running.Wait() }

// group returns the upstreams for a name.
func (f *forwarder) group(name string) *group {
	for _, g := range f.groups {
		if in(name, g.domain) {
			return g
		}
	}
	return f.groups[len(f.groups)-1]
}

// serves reports whether there is anyone to ask for the name.
func (f *forwarder) serves(name string) bool { return len(f.group(name).upstreams()) > 0 }

// cached returns the answer that is kept, or nil.
func (f *forwarder) cached(q question) *dns.Msg {
	if m, fresh := f.cache.get(q, time.Now()); fresh {
		f.counters.hits.Add(1)
		return m
	}
	return nil
}

// resolve returns an answer that is the caller's. It waits for upstreams no longer than the options say. The same question of
// several callers goes out once. When upstreams fail, or take long, it returns an answer that is too old, if there is one.
func (f *forwarder) resolve(q question) (*dns.Msg, error) {
	old, fresh := f.cache.get(q, time.Now())
	if fresh {
		f.counters.hits.Add(1)
		return old, nil
	}
	f.counters.misses.Add(1)
	x, err := f.exchange(q)
	if err == nil {
		var soon <-chan time.Time
		if old != nil {
			timer := time.NewTimer(patience)
			defer timer.Stop()
			soon = timer.C
		}
		select {
		case <-x.done:
			if err = x.err; err == nil && (old == nil || x.m.Rcode == dns.RcodeSuccess || x.m.Rcode == dns.RcodeNameError) {
				return x.m.Copy(), nil
			}
		case <-soon:
		}
	}
	if old != nil {
		f.counters.stale.Add(1)
		return old, nil
	}
	return nil, err
}

// exchange begins to ask upstreams, or finds the one that is under way.
func (f *forwarder) exchange(q question) (*exchange, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if x := f.under[q]; x != nil {
		f.counters.shared.Add(1)
		return x, nil
	}
	if len(f.under) >= maxExchanges {
		f.counters.overload.Add(1)
		return nil, errOverload
	}
	if err := f.ctx.Err(); err != nil {
		return nil, err
	}
	x := &exchange{done: make(chan struct{})}
	f.under[q] = x
	f.running.Go(func() {
		ctx, cancel := context.WithTimeout(f.ctx, 3*f.options.Timeout)
		defer cancel()
		x.m, x.err = f.group(q.name).ask(ctx, q)
		if x.err == nil {
			f.cache.put(q, x.m, time.Now())
		}
		f.mu.Lock()
		delete(f.under, q)
		f.mu.Unlock()
		close(x.done)
	})
	return x, nil
}

func (f *forwarder) stats() []Upstream {
	var out []Upstream
	for _, g := range f.groups {
		for _, u := range g.all() {
			out = append(out, Upstream{
				Domain: g.domain, Address: u.address, Failed: u.failed.Load(), Down: u.down(), Latencies: u.latency.latencies(),
			})
		}
	}
	return out
}

// group are the upstreams for the names below a domain.
type group struct {
	domain  string
	servers func() []netip.AddrPort
	timeout time.Duration
	ours    func(netip.AddrPort) bool

	mu    sync.Mutex
	known map[netip.AddrPort]*upstream
}

func newGroup(domain string, servers func() []netip.AddrPort, timeout time.Duration, ours func(netip.AddrPort) bool) *group {
	return &group{domain: domain, servers: servers, timeout: timeout, ours: ours, known: map[netip.AddrPort]*upstream{}}
}

func fixed(servers []netip.AddrPort) func() []netip.AddrPort {
	return func() []netip.AddrPort { return servers }
}

// upstreams are those to ask, in order. This server itself is never among them.
func (g *group) upstreams() []*upstream {
	servers := g.servers()
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]*upstream, 0, len(servers))
	for _, a := range servers {
		if g.ours(a) {
			continue
		}
		if g.known[a] == nil {
			g.known[a] = &upstream{address: a}
		}
		out = append(out, g.known[a])
	}
	if len(g.known) > 4*len(servers)+16 { // those of networks that the machine was in once
		maps.DeleteFunc(g.known, func(a netip.AddrPort, _ *upstream) bool { return !slices.Contains(servers, a) })
	}
	return out
}

// all are those that were ever asked and those that would be, sorted.
func (g *group) all() []*upstream {
	g.upstreams()
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.SortedFunc(maps.Values(g.known), func(a, b *upstream) int { return a.address.Compare(b.address) })
}

// ask asks one upstream after the other. Those that did not answer lately are asked last, and each of them only now and
// then: so that questions fail at once while all are dead.
func (g *group) ask(ctx context.Context, q question) (*dns.Msg, error) {
	list := g.upstreams()
	if len(list) == 0 {
		return nil, errNoUpstream
	}
	slices.SortStableFunc(list, func(a, b *upstream) int {
		switch x, y := a.down(), b.down(); {
		case x == y:
			return 0
		case y:
			return -1
		}
		return 1
	})
	var useless *dns.Msg
	var errs []error
	for _, u := range list {
		if ctx.Err() != nil {
			break
		}
		if !u.admit(time.Now()) {
			errs = append(errs, fmt.Errorf("%s does not answer", u.address))
			continue
		}
		m, err := u.ask(ctx, q, g.timeout)
		switch {
		case err != nil:
			errs = append(errs, err)
		case m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError:
			return m, nil
		default: // it is there, but does not know: another one may
			useless = cmp.Or(useless, m)
		}
	}
	if useless != nil {
		return useless, nil
	}
	return nil, errors.Join(append(errs, ctx.Err())...)
}

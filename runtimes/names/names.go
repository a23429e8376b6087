// Package names is the node's name server: it answers for the cluster's Services and their endpoints as Kubernetes'
// specification of DNS-based service discovery 1.1.0 has it, and has all other names answered by upstream servers.
//
// What it knows of the cluster is an immutable table that Set replaces, of which an answer sees exactly one state. It
// listens on the addresses that it is given and on no others, and keeps on trying where that does not work.
package names

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/fairlead-dev/fairlead/plan"
)

// Address is an address to answer on, over UDP and TCP.
type Address struct {
	netip.AddrPort
	// Clients are the sources that are answered, all without any. What comes from elsewhere is dropped.
	Clients []netip.Prefix
}

// Options are the settings of a Server. The zero value of every field is its default.
type Options struct {
	// Domain is the cluster's domain. Default cluster.local.
	Domain string
	// Listen are the addresses to answer on. They need not exist yet.
	Listen []Address
	// TTL is how long answers about the cluster may be kept, in whole seconds. Default 5 s.
	TTL time.Duration
	// Pods and Services are the subnets of the cluster: nobody else is asked for the names of their addresses, and
	// a-b-c-d.NAMESPACE.pod.DOMAIN is answered for addresses in Pods only; without any, for all addresses.
	Pods, Services []netip.Prefix
	// Upstreams are asked for everything else, in this order. Without any, those of ResolvConf are, as it is at that time.
	Upstreams []netip.AddrPort
	// ResolvConf is the host's file. Default /etc/resolv.conf, and where that names only local servers that are this
	// one or systemd-resolved's stub, the file with the servers that systemd-resolved itself asks.
	ResolvConf string
	// Domains are the upstreams for names below a domain, for example consul. The longest domain counts.
	Domains map[string][]netip.AddrPort
	// Timeout is how long one upstream has for an answer. Default 1.5 s. All of them together have three times that.
	Timeout time.Duration
	// CacheSize is how many answers of upstreams are kept at most, 10000 by default; they never take more than 32 MiB.
	CacheSize int
	// Stale is how long past its time an answer may be used while no upstream answers. Default 1 h; negative for never.
	Stale time.Duration
	// Sockets is how many UDP sockets share one address. Default: one for each processor, 4 at most.
	Sockets int
	// OnTrouble is told when listening on an address does not work, and with nil when it works again. It must not block.
	OnTrouble func(on netip.AddrPort, err error)
}

// Server is a name server. Its methods may be called from any goroutine, Set from one at a time.
type Server struct {
	domain    string // with a dot at the end, in lower case
	options   Options
	table     atomic.Pointer[table] // nil before the first Set
	zone      zone
	forwarder *forwarder
	counters  counters

	listeners []*listener
	stop      context.CancelFunc
	running   sync.WaitGroup
}

// New returns a Server that listens from now on. Until the first Set what is asked about the cluster fails in the way
// that makes clients ask again.
func New(o Options) (*Server, error) {
	o.Domain = cmp.Or(o.Domain, "cluster.local")
	o.TTL = cmp.Or(o.TTL, 5*time.Second)
	o.Timeout = cmp.Or(o.Timeout, 1500*time.Millisecond)
	o.CacheSize = cmp.Or(o.CacheSize, 10000)
	o.Stale = cmp.Or(o.Stale, time.Hour)
	if _, ok := dns.IsDomainName(o.Domain); !ok {
		return nil, fmt.Errorf("the cluster domain %q is not a domain name: write it like cluster.local", o.Domain)
	}
	if o.TTL < 0 || o.TTL > 24*time.Hour {
		return nil, fmt.Errorf("names cannot be kept for %s: choose from 1s to 24h", o.TTL)
	}
	for domain, servers := range o.Domains {
		if _, ok := dns.IsDomainName(domain); !ok || len(servers) == 0 {
			return nil, fmt.Errorf("%q is not a domain with name servers: write it like consul: [127.0.0.1:8600]", domain)
		}
	}
	s := &Server{domain: dns.CanonicalName(o.Domain), options: o}
	s.zone = newZone(s.domain, o)
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	for _, a := range o.Listen {
		if !a.IsValid() {
			stop()
			return nil, errors.New("an address to serve names on is empty: write it like 127.0.0.1:53")
		}
		s.listeners = append(s.listeners, newListener(s, a))
	}
	s.forwarder = newForwarder(ctx, o, s.ours, &s.counters)
	for _, l := range s.listeners {
		s.running.Go(func() { l.run(ctx) })
	}
	return s, nil
}

// Name is names.
func (s *Server) Name() string { return "names" }

// Set makes the names of these routes be answered, and nothing else of the cluster: an answer that begins after Set has
// returned is from routes. It takes time for what changed since the last call and, little, for comparing pointers. It fails
// only when ctx has ended; that an address cannot be listened on is told to OnTrouble.
func (s *Server) Set(ctx context.Context, routes plan.Routes) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	old := s.table.Load()
	if next := old.with(routes, s.domain); next != old {
		s.table.Store(next)
	}
	return nil
}

// Addresses returns the addresses that are listened on at the moment, with the port that port 0 became.
func (s *Server) Addresses() []netip.AddrPort {
	var out []netip.AddrPort
	for _, l := range s.listeners {
		if a, err := l.state(); err == nil && a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

// ours reports whether something sent to the address would come to this Server.
func (s *Server) ours(a netip.AddrPort) bool {
	return slices.ContainsFunc(s.listeners, func(l *listener) bool {
		have := l.address.AddrPort
		if bound, _ := l.state(); bound.IsValid() {
			have = bound
		}
		return have.Port() == a.Port() && (have.Addr() == a.Addr().Unmap() || have.Addr().IsUnspecified() && isLocal(a.Addr()))
	})
}

// Close stops listening, lets what is being answered be answered, for a few seconds at most, and returns when nothing runs any more.
func (s *Server) Close() error {
	s.stop()
	s.running.Wait()
	s.forwarder.close()
	return nil
}

// in reports whether the name, in lower case, is the domain or below it. Both end with a dot.
func in(name, domain string) bool {
	if domain == "." {
		return true
	}
	return strings.HasSuffix(name, domain) && (len(name) == len(domain) || name[len(name)-len(domain)-1] == '.')
}

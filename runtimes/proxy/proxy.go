// Package proxy balances TCP connections by how many are open: the kernel chooses an endpoint without
// knowing that, so the Services that ask for least connections are led here, each port to a listener on
// the pods' gateway.
//
// proxy.go follows the routes and owns the listeners, listener.go accepts and chooses an endpoint for
// each connection, and conn.go is what the bytes go through. See docs/adr for why it is like this.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

const (
	// lingering is how long a listener stays that no route wants: the kernel's routes may be a little ahead, and ask
	// for it first, or behind, and still lead here. Its port is not given to another Service meanwhile.
	lingering = 30 * time.Second
	// closing is how long open connections may go on when the proxy is closed.
	closing = time.Second
)

// Options say where the proxy is.
type Options struct {
	// Address is where the listeners are: the host's IPv4 address on the pods' network. The machine need not have it yet.
	Address netip.Addr
	// Node is this node, for the Local traffic policies.
	Node plan.NodeID
	// Allowed reports whether a client may reach an endpoint: only those that it may are chosen from. nil allows all.
	Allowed func(client netip.Addr, endpoint netip.AddrPort) bool
	// OnTrouble is told when connections cannot be accepted. It may be nil.
	OnTrouble func(error)
}

// Stats are figures of the proxy.
type Stats struct {
	// Listeners are the ports that are listened on.
	Listeners int
	// Open are the connections that are open to an endpoint, by application. A Service without an application
	// counts for the empty one; one without open connections is there too.
	Open map[string]int
	// Served counts the connections that got an endpoint, Failed those for which none could be reached, and Refused
	// those that were too many at a time.
	Served, Failed, Refused uint64
}

// Proxy serves the Services that are balanced by least connections. It implements executor.Registry.
type Proxy struct {
	options Options
	linger  time.Duration
	limit   int

	// ctx ends with the proxy.
	ctx    context.Context
	cancel context.CancelFunc
	// running are the accepting loops and the connections.
	running sync.WaitGroup

	served, failed, refused atomic.Uint64

	mu        sync.Mutex
	have      map[object.Ref]*plan.Route
	listeners map[frontend]*listener
	pairs     map[*pair]struct{} // all open connections
	closed    bool
}

// frontend is one TCP port of a Service.
type frontend struct {
	service object.Ref
	port    int32
}

// New returns a proxy that listens nowhere yet.
func New(o Options) (*Proxy, error) {
	if !o.Address.Is4() {
		return nil, fmt.Errorf("least-connections proxy: %s cannot be its address: use an IPv4 address", o.Address)
	}
	p := &Proxy{
		options: o, linger: lingering, limit: connectionLimit(),
		have: make(map[object.Ref]*plan.Route), listeners: make(map[frontend]*listener), pairs: make(map[*pair]struct{}),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p, nil
}

// Name returns "proxy".
func (p *Proxy) Name() string { return "proxy" }

// Set makes new connections follow these routes. Open ones stay with their endpoint.
func (p *Proxy) Set(ctx context.Context, routes plan.Routes) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errors.New("set the least-connections proxy: it was closed")
	}
	var errs []error
	found := 0 // of those in have
	for _, r := range routes {
		if r.Balancing != plan.LeastConnections {
			continue
		}
		before := p.have[r.Ref]
		if before != r {
			if err := p.follow(ctx, r, before); err != nil {
				errs = append(errs, serviceError{r.Ref, err})
			} else {
				p.have[r.Ref] = r
				before = r
			}
		}
		if before != nil {
			found++
		}
	}
	if found < len(p.have) {
		p.remove(routes)
	}
	return errors.Join(errs...)
}

// remove has the Services go that are not among the routes.
func (p *Proxy) remove(routes plan.Routes) {
	wanted := make(map[object.Ref]bool)
	for _, r := range routes {
		if r.Balancing == plan.LeastConnections {
			wanted[r.Ref] = true
		}
	}
	for ref, r := range p.have {
		if !wanted[ref] {
			delete(p.have, ref)
			p.leave(r, nil)
		}
	}
}

// follow brings the listeners of a Service to its route.
func (p *Proxy) follow(ctx context.Context, r, before *plan.Route) error {
	for i, port := range r.Ports {
		if !balanced(r, port) {
			continue
		}
		l, err := p.listener(ctx, frontend{r.Ref, port.Port})
		if err != nil {
			return fmt.Errorf("listen for port %d: %w", port.Port, err)
		}
		l.wanted()
		l.set(r.Application, p.backends(r, i))
	}
	if before != nil {
		p.leave(before, r)
	}
	return nil
}

// balanced reports whether a port of a Service has an address at which connections can be taken.
func balanced(r *plan.Route, port plan.RoutePort) bool {
	return port.Protocol == corev1.ProtocolTCP && !r.Headless() && r.Spec.Type != corev1.ServiceTypeExternalName
}

// leave has the listeners go that before had and after has not.
func (p *Proxy) leave(before, after *plan.Route) {
	for _, port := range before.Ports {
		if !balanced(before, port) || after != nil && hasPort(after, port.Port) {
			continue
		}
		if l := p.listeners[frontend{before.Ref, port.Port}]; l != nil {
			p.unwanted(l)
		}
	}
}

// unwanted closes a listener when nothing has wanted it for a while.
func (p *Proxy) unwanted(l *listener) {
	l.wanted()
	var timer *time.Timer
	timer = time.AfterFunc(p.linger, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if l.expiry == timer { // else it was wanted again
			delete(p.listeners, l.frontend)
			_ = l.socket.Close()
		}
	})
	l.expiry = timer
}

func hasPort(r *plan.Route, number int32) bool {
	return slices.ContainsFunc(r.Ports, func(p plan.RoutePort) bool { return p.Port == number && balanced(r, p) })
}

// listener returns that of a frontend, and makes it if there is none.
func (p *Proxy) listener(ctx context.Context, f frontend) (*listener, error) {
	if l := p.listeners[f]; l != nil {
		return l, nil
	}
	l, err := listen(ctx, p, f)
	if err != nil {
		return nil, err
	}
	p.listeners[f] = l
	p.running.Go(l.accept)
	return l, nil
}

// backends are the endpoints of one port that get new connections, with their weights. A Local traffic policy leaves
// out those on other nodes; where that leaves none, the kernel leads only those clients here that may go elsewhere.
func (p *Proxy) backends(r *plan.Route, port int) map[netip.AddrPort]int {
	var on plan.NodeID
	internal := r.Spec.InternalTrafficPolicy
	if internal != nil && *internal == corev1.ServiceInternalTrafficPolicyLocal || r.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		on = p.options.Node
	}
	list := r.Backends(port, on)
	if len(list) == 0 {
		list = r.Backends(port, "")
	}
	out := make(map[netip.AddrPort]int, len(list))
	for _, i := range list {
		e := &r.Endpoints[i]
		out[netip.AddrPortFrom(e.Address, uint16(e.Ports[port]))] = max(e.Weight, 1)
	}
	return out
}

// Address returns where the connections of one port of a Service are taken, and false for a port that is not balanced
// here. It stays the same as long as the Service has that port. For a Service that Set has not brought yet it listens
// at once, so that it does not matter who hears of a Service first; connections wait until Set says where they go.
func (p *Proxy) Address(service object.Ref, port int32, protocol corev1.Protocol) (netip.AddrPort, bool) {
	if protocol != corev1.ProtocolTCP {
		return netip.AddrPort{}, false
	}
	at, err := p.address(frontend{service, port})
	if err != nil {
		p.trouble(fmt.Errorf("listen for %s, port %d, to balance it by least connections: %w: the kernel balances it at random until that works", service, port, err))
	}
	return at, at.IsValid()
}

// address returns where a frontend is listened on, and no valid one when it is not balanced here.
func (p *Proxy) address(f frontend) (netip.AddrPort, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.have[f.service]
	if p.closed || r != nil && (r.Headless() || r.Spec.Type == corev1.ServiceTypeExternalName) {
		return netip.AddrPort{}, nil
	}
	l, err := p.listener(p.ctx, f)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if r == nil || !hasPort(r, f.port) {
		p.unwanted(l) // from now on
	}
	return l.at, nil
}

// Stats returns the figures of now.
func (p *Proxy) Stats() Stats {
	s := Stats{Open: make(map[string]int), Served: p.served.Load(), Failed: p.failed.Load(), Refused: p.refused.Load()}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Listeners = len(p.listeners)
	for _, r := range p.have {
		s.Open[r.Application] += 0
	}
	for c := range p.pairs {
		if c.backend != nil {
			s.Open[c.application]++
		}
	}
	return s
}

// Close stops listening, and ends the connections that have not ended within a second.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	for f, l := range p.listeners {
		l.wanted()
		_ = l.socket.Close()
		delete(p.listeners, f)
	}
	p.mu.Unlock()
	p.cancel()
	ended := make(chan struct{})
	go func() {
		p.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(closing):
		p.mu.Lock()
		for c := range p.pairs {
			c.abort()
		}
		p.mu.Unlock()
		<-ended
	}
	return nil
}

func (p *Proxy) trouble(err error) {
	if p.options.OnTrouble != nil {
		p.options.OnTrouble(err)
	}
}

// admit counts a connection among the open ones, unless they are too many or the proxy was closed.
func (p *Proxy) admit(client *net.TCPConn) *pair {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.pairs) >= p.limit {
		return nil
	}
	c := &pair{}
	c.client = &conn{client}
	p.pairs[c] = struct{}{}
	return c
}

// join notes the endpoint of a connection.
func (p *Proxy) join(c *pair, backend *net.TCPConn, application string) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.application = application
	c.backend = &conn{backend}
	if c.aborted {
		reset(backend)
	}
	return c.backend
}

func (p *Proxy) forget(c *pair) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pairs, c)
}

// serviceError is an executor.ServiceError.
type serviceError struct {
	service object.Ref
	err     error
}

func (e serviceError) Error() string       { return fmt.Sprintf("%s: %s", e.service, e.err) }
func (e serviceError) Unwrap() error       { return e.err }
func (e serviceError) Service() object.Ref { return e.service }

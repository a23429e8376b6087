package proxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/inetaf/tcpproxy"
	"golang.org/x/sys/unix"
)

const (
	// dialTimeout is how long one endpoint may take to accept a connection, and how long a connection waits for the
	// first routes.
	dialTimeout = 2 * time.Second
	// avoiding is how long an endpoint that did not accept a connection is tried after all others.
	avoiding = 2 * time.Second
	// maxConnections bounds the connections of all Services at a time, whatever the process may open.
	maxConnections = 1 << 16
	// filesPerConnection are two sockets, and a pipe in each direction through which the kernel moves the bytes.
	filesPerConnection = 6
)

var (
	errNoBackend = errors.New("no endpoint is left")
	dialer       = net.Dialer{Timeout: dialTimeout}
)

// connectionLimit is how many connections may be open, so that at least half of the files of the process are left
// for everything else.
func connectionLimit() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil || l.Cur/2/filesPerConnection > maxConnections {
		return maxConnections
	}
	return int(l.Cur / 2 / filesPerConnection)
}

// listener takes the connections of one port of a Service.
type listener struct {
	proxy    *Proxy
	frontend frontend
	socket   *net.TCPListener
	at       netip.AddrPort
	// expiry is set while no route wants the listener. It belongs to Proxy.mu.
	expiry *time.Timer
	// known is closed by the first set.
	known chan struct{}

	mu          sync.Mutex
	application string
	// backends are those that get new connections, and those that have some.
	backends map[netip.AddrPort]*backend
	// told is true when set was called.
	told bool
}

// backend is an endpoint of one port.
type backend struct {
	at netip.AddrPort
	// weight is its share of new connections; 0 when it gets none.
	weight int
	// open counts its connections, those included that are being made.
	open int
	// failed is when it last did not accept one.
	failed time.Time
}

// listen opens a port of its own for a frontend. The address need not be there yet.
func listen(ctx context.Context, p *Proxy, f frontend) (*listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) }); e != nil {
			return e
		}
		return err
	}}
	config.SetMultipathTCP(false) // the kernel does not move bytes between such
	l, err := config.Listen(ctx, "tcp4", netip.AddrPortFrom(p.options.Address, 0).String())
	if err != nil {
		return nil, err
	}
	socket := l.(*net.TCPListener)
	port := socket.Addr().(*net.TCPAddr).AddrPort().Port()
	return &listener{
		proxy: p, frontend: f, socket: socket, at: netip.AddrPortFrom(p.options.Address, port),
		known: make(chan struct{}), backends: make(map[netip.AddrPort]*backend),
	}, nil
}

// wanted keeps the listener. Proxy.mu is held.
func (l *listener) wanted() {
	if l.expiry != nil {
		l.expiry.Stop()
		l.expiry = nil
	}
}

// set says which endpoints get new connections, with their weights.
func (l *listener) set(application string, to map[netip.AddrPort]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.application = application
	for at, b := range l.backends {
		if b.weight = to[at]; b.weight == 0 && b.open == 0 {
			delete(l.backends, at)
		}
	}
	for at, weight := range to {
		if l.backends[at] == nil {
			l.backends[at] = &backend{at: at, weight: weight}
		}
	}
	if !l.told {
		l.told = true
		close(l.known)
	}
}

// accept takes connections until the socket is closed.
func (l *listener) accept() {
	const firstPause, lastPause = 5 * time.Millisecond, time.Second
	pause, full := firstPause, false
	for {
		client, err := l.socket.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			if pause == firstPause {
				l.proxy.trouble(fmt.Errorf("accept connections of %s, port %d: %w: it is tried again", l.frontend.service, l.frontend.port, err))
			}
			select {
			case <-l.proxy.ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, lastPause)
			continue
		}
		pause = firstPause
		c := l.proxy.admit(client)
		if c == nil {
			l.proxy.refused.Add(1)
			reset(client)
			if !full {
				l.proxy.trouble(fmt.Errorf("accept connections of %s, port %d: %d connections are open already: further ones are refused; raise the limit of open files (LimitNOFILE), or balance in the kernel", l.frontend.service, l.frontend.port, l.proxy.limit))
			}
			full = true
			continue
		}
		full = false
		l.proxy.running.Go(func() { l.serve(c) })
	}
}

// serve leads a connection to an endpoint, and returns when both sides have ended.
func (l *listener) serve(c *pair) {
	defer l.proxy.forget(c)
	var to *backend
	proxy := tcpproxy.DialProxy{
		DialTimeout: -1, // each endpoint has its own
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			b, conn, err := l.dial(l.proxy.ctx, c.client.RemoteAddr())
			if err != nil {
				return nil, err
			}
			to = b
			l.proxy.served.Add(1)
			return l.proxy.join(c, conn, l.app()), nil
		},
		OnDialError: func(net.Conn, error) {
			l.proxy.failed.Add(1)
			reset(c.client.TCPConn)
		},
	}
	proxy.HandleConn(c.client)
	if to != nil {
		l.release(to, false)
	}
}

func (l *listener) app() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.application
}

// allows reports whether a client may reach an endpoint.
func (p *Proxy) allows(client net.Addr, endpoint netip.AddrPort) bool {
	if p.options.Allowed == nil {
		return true
	}
	from, ok := client.(*net.TCPAddr)
	return ok && p.options.Allowed(from.AddrPort().Addr().Unmap(), endpoint)
}

// dial connects to the endpoint with the fewest connections, or else to the next one.
func (l *listener) dial(ctx context.Context, client net.Addr) (*backend, *net.TCPConn, error) {
	wait := time.NewTimer(dialTimeout)
	defer wait.Stop()
	select {
	case <-l.known:
	case <-wait.C:
		return nil, nil, errNoBackend
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	tried := make(map[*backend]bool)
	for ctx.Err() == nil {
		b := l.choose(tried)
		if b == nil {
			return nil, nil, errNoBackend
		}
		tried[b] = true
		if !l.proxy.allows(client, b.at) {
			l.release(b, false)
			continue
		}
		c, err := dialer.DialContext(ctx, "tcp", b.at.String())
		if err == nil {
			return b, c.(*net.TCPConn), nil
		}
		l.release(b, true)
	}
	return nil, nil, ctx.Err()
}

// choose takes the endpoint with the fewest connections for its weight that was not tried, and counts one more on it.
// Among equals the weights are the chances. Those that have just failed come after all others.
func (l *listener) choose(tried map[*backend]bool) *backend {
	l.mu.Lock()
	defer l.mu.Unlock()
	recent := time.Now().Add(-avoiding)
	var best *backend
	weights := 0 // of all that are as good as best
	for _, b := range l.backends {
		if b.weight == 0 || tried[b] {
			continue
		}
		order := -1
		if best != nil {
			order = compare(b, best, recent)
		}
		if order < 0 {
			weights = 0
		}
		if order <= 0 {
			weights += b.weight
			if rand.IntN(weights) < b.weight {
				best = b
			}
		}
	}
	if best != nil {
		best.open++
	}
	return best
}

// compare is negative when a comes before b.
func compare(a, b *backend, recent time.Time) int {
	switch x, y := a.failed.After(recent), b.failed.After(recent); {
	case x && !y:
		return 1
	case y && !x:
		return -1
	}
	return a.open*b.weight - b.open*a.weight
}

// release takes a connection off an endpoint's count.
func (l *listener) release(b *backend, failed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b.open--
	if failed {
		b.failed = time.Now()
	}
	if b.open == 0 && b.weight == 0 {
		delete(l.backends, b.at)
	}
}

package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = 15 * time.Second
	// tcpIdle is how long a connection without questions stays open.
	tcpIdle = 10 * time.Second
	// maxConns is how many TCP connections one address has at a time; further ones are closed.
	maxConns = 512
	// closing is how long answers that are under way may take when a listener stops.
	closing = 5 * time.Second
)

var errNotYet = errors.New("not listening yet")

// listener answers on one address.
type listener struct {
	server  *Server
	address Address

	mu    sync.Mutex
	bound netip.AddrPort
	err   error
}

func newListener(s *Server, a Address) *listener {
	a.AddrPort = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	return &listener{server: s, address: a, err: errNotYet}
}

// admits reports whether a client may ask here.
func (l *listener) admits(client netip.Addr) bool {
	return len(l.address.Clients) == 0 || slices.ContainsFunc(l.address.Clients, func(p netip.Prefix) bool { return p.Contains(client) })
}

// state is the address that is listened on, or why none is.
func (l *listener) state() (netip.AddrPort, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bound, l.err
}

func (l *listener) set(bound netip.AddrPort, err error) {
	l.mu.Lock()
	changed := (err == nil) != (l.err == nil) || err != nil && err.Error() != l.err.Error()
	wanted := errors.Is(l.err, errNotYet) && err == nil || errors.Is(err, errNotYet) // it begins, or was told to stop
	l.bound, l.err = bound, err
	l.mu.Unlock()
	if on := l.server.options.OnTrouble; on != nil && changed && !wanted {
		on(l.address.AddrPort, err)
	}
}

// run listens until ctx ends, and begins again when that does not work.
func (l *listener) run(ctx context.Context) {
	pause := firstRetry
	for {
		began := time.Now()
		err := l.serve(ctx)
		if ctx.Err() != nil {
			l.set(netip.AddrPort{}, errNotYet)
			return
		}
		l.set(netip.AddrPort{}, fmt.Errorf("%w%s", err, advice(err)))
		if time.Since(began) > time.Minute {
			pause = firstRetry
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, lastRetry)
	}
}

// advice says what to do about an error.
func advice(err error) string {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return ": another program has the address: stop it there, or leave the address out of the settings; it is tried again"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return ": the machine does not have the address; it is tried again"
	case errors.Is(err, os.ErrPermission):
		return ": ports below 1024 need root or CAP_NET_BIND_SERVICE"
	}
	return ""
}

// serve opens the sockets and answers until ctx ends or one of them fails.
func (l *listener) serve(ctx context.Context) error {
	packets, stream, err := l.open(ctx)
	if err != nil {
		return err
	}
	h := &handler{Server: l.server, listener: l}
	servers := []*dns.Server{{
		Listener: newStreams(stream), Handler: h,
		ReadTimeout: tcpIdle, IdleTimeout: func() time.Duration { return tcpIdle }, MaxTCPQueries: -1,
	}}
	for _, p := range packets {
		// The deadline of reading only wakes the reader up for nothing.
		servers = append(servers, &dns.Server{PacketConn: p, Handler: h, UDPSize: udpSize, ReadTimeout: time.Hour})
	}
	for _, s := range servers {
		s.MsgInvalidFunc = func([]byte, error) { l.server.counters.malformed.Add(1) }
	}
	bound := netip.AddrPortFrom(l.address.Addr(), stream.Addr().(*net.TCPAddr).AddrPort().Port())
	l.set(bound, nil)
	g, gctx := errgroup.WithContext(ctx)
	for _, s := range servers {
		ready, ended := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(ready) }
		g.Go(func() error {
			defer close(ended)
			if err := s.ActivateAndServe(); err != nil {
				return err
			}
			return errors.New("the socket was closed")
		})
		g.Go(func() error {
			select {
			case <-ready:
			case <-ended:
				return nil
			}
			<-gctx.Done()
			end, cancel := context.WithTimeout(context.Background(), closing)
			defer cancel()
			_ = s.ShutdownContext(end) // what is left then ends with its own timeout
			return nil
		})
	}
	return g.Wait()
}

// open binds all sockets of the address. Addresses that the machine does not have yet are bound all the same, so that a
// bridge may come later, go and come back.
func (l *listener) open(ctx context.Context) (packets []*net.UDPConn, stream net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, p := range packets {
				_ = p.Close()
			}
			packets = nil
		}
	}()
	n := l.server.options.Sockets
	if n <= 0 {
		n = min(runtime.GOMAXPROCS(0), 4)
	}
	address := l.address.AddrPort
	for i := range n {
		// The first one is bound alone, so that an address which another program has is an error even when that
		// program would share it.
		config := net.ListenConfig{Control: control(i > 0)}
		c, err := config.ListenPacket(ctx, "udp", address.String())
		if err != nil {
			return packets, nil, err
		}
		packets = append(packets, c.(*net.UDPConn))
		address = netip.AddrPortFrom(address.Addr(), c.LocalAddr().(*net.UDPAddr).AddrPort().Port())
		if i == 0 {
			if err := share(c.(*net.UDPConn)); err != nil {
				return packets, nil, err
			}
		}
	}
	config := net.ListenConfig{Control: control(false), KeepAlive: -1}
	stream, err = config.Listen(ctx, "tcp", address.String())
	return packets, stream, err
}

func control(share bool) func(network, address string, c syscall.RawConn) error {
	return func(network, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) {
			if share {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}
			if network == "udp6" || network == "tcp6" {
				err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1))
			} else {
				err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1))
			}
			if network[0] == 'u' { // what comes while all are busy waits; the kernel cuts to what it allows
				err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20))
			}
		}); e != nil {
			return e
		}
		return err
	}
}

// share lets further sockets be bound to the socket's address.
func share(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) {
		inner = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}); err != nil {
		return err
	}
	return inner
}

// streams accepts connections, so many at a time.
type streams struct {
	net.Listener
	slots chan struct{}
}

func newStreams(l net.Listener) *streams {
	return &streams{Listener: l, slots: make(chan struct{}, maxConns)}
}

// Accept returns a *conn.
func (s *streams) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	select {
	case s.slots <- struct{}{}:
	default:
		_ = c.Close()
		return nil, errBusy
	}
	return &conn{Conn: c, slots: s.slots, questions: make(chan struct{}, maxPipelined)}, nil
}

// errBusy is temporary for who accepts: the next connection may be served.
var errBusy = busy{}

type busy struct{}

func (busy) Error() string   { return "too many connections" }
func (busy) Timeout() bool   { return false }
func (busy) Temporary() bool { return true }

// conn is a TCP connection on which answers are written in the order in which they are there.
type conn struct {
	net.Conn
	slots     chan struct{}
	questions chan struct{}
	under     sync.WaitGroup
	once      sync.Once
}

// connAddr is how a handler finds the connection of a question.
type connAddr struct {
	*net.TCPAddr
	conn *conn
}

// RemoteAddr returns a connAddr.
func (c *conn) RemoteAddr() net.Addr {
	a, _ := c.Conn.RemoteAddr().(*net.TCPAddr)
	return connAddr{a, c}
}

// pending does something while the next question is read already, unless too much is being done.
func (c *conn) pending(do func()) {
	c.questions <- struct{}{}
	c.under.Go(func() {
		defer func() { <-c.questions }()
		do()
	})
}

// Write writes a whole message; a client that does not read for long loses the connection.
func (c *conn) Write(b []byte) (int, error) {
	_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second))
	n, err := c.Conn.Write(b)
	if err != nil {
		_ = c.SetReadDeadline(time.Unix(1, 0)) // part of a message is no message: no more questions
	}
	return n, err
}

// Close closes the connection when what was asked on it is answered.
func (c *conn) Close() error {
	var err error
	c.once.Do(func() {
		c.under.Wait()
		err = c.Conn.Close()
		<-c.slots
	})
	return err
}

// isLocal reports whether the address is one of this machine.
func isLocal(ip netip.Addr) bool {
	if ip = ip.Unmap(); ip.IsLoopback() {
		return true
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(list, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		if !ok {
			return false
		}
		have, ok := netip.AddrFromSlice(n.IP)
		return ok && have.Unmap() == ip
	})
}

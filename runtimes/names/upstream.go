package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	// failures is after how many failures one after the other an upstream is down, retryDown how long it is left alone then.
	failures  = 3
	retryDown = time.Second
)

// upstream is one server.
type upstream struct {
	address netip.AddrPort
	failed  atomic.Uint64
	latency histogram

	mu    sync.Mutex
	row   int       // failures since the last answer
	until time.Time // when it is down: when it may be asked again
}

// down reports whether the upstream did not answer lately.
func (u *upstream) down() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.row >= failures
}

// admit reports whether to ask it. While it is down that is for one question at a time, and with pauses.
func (u *upstream) admit(now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.row < failures {
		return true
	}
	if now.Before(u.until) {
		return false
	}
	u.until = now.Add(retryDown)
	return true
}

// ended notes what came of asking.
func (u *upstream) ended(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil {
		u.row = 0
		return
	}
	u.failed.Add(1)
	if u.row++; u.row >= failures {
		u.until = time.Now().Add(retryDown)
	}
}

// ask asks over UDP and, when the answer does not fit there, over TCP.
func (u *upstream) ask(ctx context.Context, q question, timeout time.Duration) (*dns.Msg, error) {
	began := time.Now()
	m, err := u.exchange(ctx, "udp", q, true, timeout)
	if err == nil && m.Rcode == dns.RcodeFormatError { // it may be from before EDNS
		m, err = u.exchange(ctx, "udp", q, false, timeout)
	}
	if err == nil && m.Truncated {
		if whole, e := u.exchange(ctx, "tcp", q, true, timeout); e == nil {
			m = whole
		} else {
			err = e
		}
	}
	if err != nil && ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, err // given up by us, which says nothing about the server
	}
	u.ended(err)
	if err != nil {
		return nil, fmt.Errorf("ask %s for %s: %w", u.address, q.name, err)
	}
	u.latency.observe(time.Since(began))
	return m, nil
}

// exchange sends one question from a port of its own and waits for the answer to it. Whatever else arrives, with another
// number, another question or in no form at all, is as if it had not: it may be a forgery, sent before the real answer.
func (u *upstream) exchange(ctx context.Context, network string, q question, edns bool, timeout time.Duration) (*dns.Msg, error) {
	req := new(dns.Msg)
	req.Id, req.RecursionDesired, req.CheckingDisabled = dns.Id(), true, q.checking
	req.Question = []dns.Question{{Name: q.name, Qtype: q.qtype, Qclass: dns.ClassINET}}
	if edns || q.dnssec {
		req.SetEdns0(udpSize, q.dnssec)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var d net.Dialer
	raw, err := d.DialContext(ctx, network, u.address.String())
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	deadline, _ := ctx.Deadline()
	if err := raw.SetDeadline(deadline); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c := &dns.Conn{Conn: raw, UDPSize: dns.MaxMsgSize}
	if network == "udp" {
		c.UDPSize = 4096
	}
	if err := c.WriteMsg(req); err != nil {
		return nil, err
	}
	for {
		m, err := c.ReadMsg()
		var opErr net.Error
		switch {
		case err == nil && answers(m, req):
			return m, nil
		case errors.As(err, &opErr):
			return nil, err
		case network != "udp" && err != nil:
			return nil, err
		case network != "udp":
			return nil, errors.New("the answer is to another question")
		}
	}
}

// answers reports whether m is an answer to req.
func answers(m, req *dns.Msg) bool {
	return m.Id == req.Id && m.Response && m.Opcode == req.Opcode && len(m.Question) == 1 &&
		m.Question[0].Qtype == req.Question[0].Qtype && m.Question[0].Qclass == req.Question[0].Qclass &&
		strings.EqualFold(m.Question[0].Name, req.Question[0].Name)
}

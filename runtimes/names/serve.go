package names

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

const (
	// udpSize is the largest answer over UDP: what arrives unfragmented nearly everywhere.
	udpSize = 1232
	// maxWaiting is how many questions may wait for upstreams at a time; beyond, they fail at once.
	maxWaiting = 8192
	// maxPipelined is how many questions of one TCP connection may wait for upstreams at a time; beyond, no more are read.
	maxPipelined = 64
)

// handler answers what one listener receives.
type handler struct {
	*Server
	listener *listener
}

// ServeDNS answers one message.
func (h *handler) ServeDNS(w dns.ResponseWriter, req *dns.Msg) {
	var stream *conn
	var client netip.Addr
	switch a := w.RemoteAddr().(type) {
	case *net.UDPAddr:
		client = a.AddrPort().Addr().Unmap()
	case connAddr:
		stream = a.conn
		client = a.TCPAddr.AddrPort().Addr().Unmap()
	}
	if !h.listener.admits(client) {
		h.counters.dropped.Add(1)
		return
	}
	m, kind := h.direct(req, w.LocalAddr())
	if m != nil {
		h.send(w, stream, req, m, kind)
		return
	}
	// What has to wait for others holds up neither the connection's next question nor, over UDP, anybody: there each
	// question has a goroutine.
	if stream == nil {
		h.send(w, nil, req, h.indirect(req, w.LocalAddr()), kind)
		return
	}
	local := w.LocalAddr()
	stream.pending(func() { h.send(w, stream, req, h.indirect(req, local), kind) })
}

// direct answers what can be answered without waiting; else it returns nil.
func (h *handler) direct(req *dns.Msg, local net.Addr) (*dns.Msg, Kind) {
	switch {
	case req.Opcode != dns.OpcodeQuery:
		return failure(req, dns.RcodeNotImplemented), KindRefused
	case len(req.Question) != 1:
		return failure(req, dns.RcodeFormatError), KindRefused
	}
	if opt := req.IsEdns0(); opt != nil && opt.Version() != 0 {
		return failure(req, dns.RcodeBadVers), KindRefused
	}
	q := req.Question[0]
	switch {
	case q.Qtype == dns.TypeAXFR, q.Qtype == dns.TypeIXFR, q.Qclass != dns.ClassINET:
		return failure(req, dns.RcodeRefused), KindRefused
	case q.Qtype == dns.TypeOPT, q.Qtype == dns.TypeTSIG, q.Qtype == dns.TypeTKEY, q.Qtype == dns.TypeNone:
		return failure(req, dns.RcodeFormatError), KindRefused
	}
	name := dns.CanonicalName(q.Name)
	t := h.table.Load()
	if h.zone.holds(t, name) {
		if t == nil { // nothing is known yet: whoever asks shall ask again
			return failure(req, dns.RcodeServerFailure), KindCluster
		}
		f := h.zone.lookup(t, name, q.Name, q.Qtype, localIP(local))
		if f.elsewhere != "" {
			return nil, KindCluster
		}
		return h.authoritative(req, t, f), KindCluster
	}
	if !req.RecursionDesired {
		return failure(req, dns.RcodeRefused), KindRefused
	}
	if m := h.forwarder.cached(question{name, q.Qtype, dnssec(req), req.CheckingDisabled}); m != nil {
		return forwarded(req, m), KindForward
	}
	return nil, KindForward
}

// indirect answers what direct does not: names that stand for others, and those that upstreams are asked for.
func (h *handler) indirect(req *dns.Msg, local net.Addr) *dns.Msg {
	if h.counters.waiting.Add(1) > maxWaiting {
		h.counters.waiting.Add(-1)
		return failure(req, dns.RcodeServerFailure)
	}
	defer h.counters.waiting.Add(-1)
	q := req.Question[0]
	name := dns.CanonicalName(q.Name)
	t := h.table.Load()
	if !h.zone.holds(t, name) {
		m, err := h.forwarder.resolve(question{name, q.Qtype, dnssec(req), req.CheckingDisabled})
		if err != nil {
			return failure(req, dns.RcodeServerFailure)
		}
		return forwarded(req, m)
	}
	var chain []dns.RR
	asked := q.Name
	for range maxChain {
		f := h.zone.lookup(t, name, asked, q.Qtype, localIP(local))
		f.answer = append(chain, f.answer...)
		if f.elsewhere == "" {
			return h.authoritative(req, t, f)
		}
		chain = f.answer
		asked, name = f.elsewhere, dns.CanonicalName(f.elsewhere)
		if h.zone.holds(t, name) {
			continue
		}
		m := h.authoritative(req, t, found{answer: chain})
		if !req.RecursionDesired || !h.forwarder.serves(name) {
			return m // the client may follow by itself
		}
		rest, err := h.forwarder.resolve(question{name, q.Qtype, dnssec(req), req.CheckingDisabled})
		if err != nil {
			return failure(req, dns.RcodeServerFailure)
		}
		m.Authoritative = false
		m.Rcode = rest.Rcode
		m.Answer = append(m.Answer, rest.Answer...)
		m.Ns = rest.Ns
		return m
	}
	return failure(req, dns.RcodeServerFailure) // they stand for each other
}

// authoritative is the answer of the cluster's zone.
func (h *handler) authoritative(req *dns.Msg, t *table, f found) *dns.Msg {
	m := reply(req, f.rcode)
	m.Authoritative = true
	m.Answer, m.Extra = f.answer, f.extra
	if f.authority != "" {
		m.Ns = []dns.RR{h.zone.soa(t, f.authority)}
	}
	return m
}

// forwarded is an upstream's answer, which is the caller's to modify, for this client.
func forwarded(req, m *dns.Msg) *dns.Msg {
	out := reply(req, m.Rcode)
	out.AuthenticatedData = m.AuthenticatedData && (dnssec(req) || req.AuthenticatedData)
	out.Answer, out.Ns = m.Answer, m.Ns
	out.Extra = slices.DeleteFunc(m.Extra, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT })
	// Who tells answers from forgeries by the case of letters finds the name as it was asked.
	asked := req.Question[0].Name
	for _, rr := range out.Answer {
		if h := rr.Header(); len(h.Name) == len(asked) && strings.EqualFold(h.Name, asked) {
			h.Name = asked
		}
	}
	return out
}

// reply is an empty answer.
func reply(req *dns.Msg, rcode int) *dns.Msg {
	m := &dns.Msg{Question: req.Question}
	m.Id, m.Response, m.Opcode, m.Rcode = req.Id, true, req.Opcode, rcode
	m.RecursionDesired, m.CheckingDisabled, m.RecursionAvailable = req.RecursionDesired, req.CheckingDisabled, true
	return m
}

func failure(req *dns.Msg, rcode int) *dns.Msg { return reply(req, rcode) }

// dnssec reports whether the client wants the records of DNSSEC.
func dnssec(req *dns.Msg) bool {
	opt := req.IsEdns0()
	return opt != nil && opt.Do()
}

var buffers = sync.Pool{New: func() any { return new([2 + dns.MaxMsgSize]byte) }}

// send cuts the answer to what the client takes, counts it and writes it.
func (h *handler) send(w dns.ResponseWriter, stream *conn, req, m *dns.Msg, kind Kind) {
	size := dns.MaxMsgSize
	opt := req.IsEdns0()
	if stream == nil {
		size = dns.MinMsgSize
		if opt != nil {
			size = min(max(int(opt.UDPSize()), dns.MinMsgSize), udpSize)
		}
	}
	if opt != nil {
		own := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		own.SetUDPSize(udpSize)
		own.SetDo(opt.Do())
		m.Extra = append(m.Extra, own)
	}
	m.Truncate(size)
	if m.Truncated {
		h.counters.truncated.Add(1)
	}
	buf := buffers.Get().(*[2 + dns.MaxMsgSize]byte)
	defer buffers.Put(buf)
	data, err := m.PackBuffer(buf[2:])
	if err != nil { // an upstream's answer that can be read and not be written
		m = failure(req, dns.RcodeServerFailure)
		if data, err = m.PackBuffer(buf[2:]); err != nil {
			return
		}
	}
	h.counters.count(kind, m.Rcode)
	if stream == nil {
		_, _ = w.Write(data) // a client that is gone
		return
	}
	n := copy(buf[2:], data)                       // which is there already, but for very large ones
	binary.BigEndian.PutUint16(buf[:2], uint16(n)) //nolint:gosec // at most MaxMsgSize
	_, _ = stream.Write(buf[:2+n])
}

func localIP(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

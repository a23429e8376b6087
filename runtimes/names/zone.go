package names

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// schemaVersion is the version of the specification that the cluster's names follow.
const schemaVersion = "1.1.0"

// maxChain is how many names may stand for one another before the real one.
const maxChain = 8

// zone answers questions about the cluster from a table.
type zone struct {
	domain         string
	ttl            uint32
	pods, services []netip.Prefix
}

func newZone(domain string, o Options) zone {
	return zone{domain: domain, ttl: uint32(max(o.TTL/time.Second, 1)), pods: o.Pods, services: o.Services} //nolint:gosec // at most a day
}

// found is what a zone says to a question.
type found struct {
	rcode         int
	answer, extra []dns.RR
	// authority is the zone that has nothing, whose SOA record is to go along; empty when there is an answer.
	authority string
	// elsewhere is the name that the question is to be asked for instead: the name stands for it.
	elsewhere string
}

// holds reports whether only this zone can answer: the name, in lower case, is the domain, below it, or that of an address of
// the cluster.
func (z *zone) holds(t *table, name string) bool {
	if in(name, z.domain) {
		return true
	}
	if !strings.HasSuffix(name, ".arpa.") {
		return false
	}
	ip, ok := reversed(name)
	if !ok {
		return false
	}
	if t != nil {
		if _, known := t.addresses.get(ip); known {
			return true
		}
	}
	_, ours := z.subnet(ip)
	return ours
}

func (z *zone) subnet(ip netip.Addr) (netip.Prefix, bool) {
	for _, list := range [][]netip.Prefix{z.services, z.pods} {
		if i := slices.IndexFunc(list, func(p netip.Prefix) bool { return p.Contains(ip) }); i >= 0 {
			return list[i], true
		}
	}
	return netip.Prefix{}, false
}

// lookup answers for a name that the zone holds. name is in lower case, asked as it was asked; self is the address that was asked.
func (z *zone) lookup(t *table, name, asked string, qtype uint16, self netip.Addr) found {
	if !in(name, z.domain) {
		return z.reverse(t, name, asked, qtype)
	}
	labels := dns.SplitDomainName(name[:len(name)-len(z.domain)])
	n := len(labels)
	if n == 0 {
		switch qtype {
		case dns.TypeSOA:
			return found{answer: []dns.RR{z.soa(t, asked)}}
		case dns.TypeNS:
			return found{answer: []dns.RR{&dns.NS{Hdr: z.header(asked, dns.TypeNS), Ns: z.server()}}, extra: z.addresses(z.server(), selfAddresses(self), dns.TypeANY)}
		}
		return z.empty()
	}
	switch labels[n-1] {
	case "svc":
		return z.service(t, labels[:n-1], asked, qtype)
	case "pod":
		return z.pod(labels[:n-1], asked, qtype)
	case "dns-version":
		if n > 1 {
			break
		}
		if qtype == dns.TypeTXT || qtype == dns.TypeANY {
			return found{answer: []dns.RR{&dns.TXT{Hdr: z.header(asked, dns.TypeTXT), Txt: []string{schemaVersion}}}}
		}
		return z.empty()
	case "dns": // the zone's own server is ns.dns
		if n == 1 {
			return z.empty()
		}
		if n == 2 && labels[0] == "ns" {
			return z.answer(asked, selfAddresses(self), qtype)
		}
	}
	return z.missing()
}

// service answers for what is below svc: NAME.NAMESPACE, HOST.NAME.NAMESPACE, _PORT._PROTOCOL.NAME.NAMESPACE.
func (z *zone) service(t *table, labels []string, asked string, qtype uint16) found {
	n := len(labels)
	if n == 0 {
		return z.empty()
	}
	if n == 1 {
		if t.namespaces[labels[0]] > 0 {
			return z.empty()
		}
		return z.missing()
	}
	e, ok := t.services.get(service{labels[n-1], labels[n-2]})
	if !ok || e.gone {
		return z.missing()
	}
	if e.external != "" {
		if n > 2 {
			return z.missing()
		}
		f := found{answer: []dns.RR{&dns.CNAME{Hdr: z.header(asked, dns.TypeCNAME), Target: e.external}}}
		if qtype != dns.TypeCNAME && qtype != dns.TypeANY {
			f.elsewhere = e.external
		}
		return f
	}
	switch n {
	case 2:
		return z.answer(asked, &e.addresses, qtype)
	case 3:
		if e.ports[labels[0]] != nil {
			return z.empty()
		}
		if host := e.hosts[labels[0]]; host != nil {
			return z.answer(asked, host, qtype)
		}
	case 4:
		if targets := e.ports[labels[1]][labels[0]]; len(targets) > 0 {
			return z.targets(asked, targets, qtype)
		}
	}
	return z.missing()
}

// pod answers for what is below pod: A-B-C-D.NAMESPACE.
func (z *zone) pod(labels []string, asked string, qtype uint16) found {
	switch len(labels) {
	case 0, 1:
		return z.empty()
	case 2:
		ip, ok := undashed(labels[0])
		if ok && (len(z.pods) == 0 || slices.ContainsFunc(z.pods, func(p netip.Prefix) bool { return p.Contains(ip) })) {
			var a addresses
			a.add(ip)
			return z.answer(asked, &a, qtype)
		}
	}
	return z.missing()
}

// reverse answers for the name of an address.
func (z *zone) reverse(t *table, name, asked string, qtype uint16) found {
	ip, _ := reversed(name)
	subnet, ours := z.subnet(ip)
	if !ours {
		subnet = netip.PrefixFrom(ip, ip.BitLen()-8)
	}
	pointers, _ := t.addresses.get(ip)
	if len(pointers) == 0 {
		return found{rcode: dns.RcodeNameError, authority: reverseZone(subnet)}
	}
	if qtype != dns.TypePTR && qtype != dns.TypeANY {
		return found{authority: reverseZone(subnet)}
	}
	var f found
	for _, p := range pointers {
		f.answer = append(f.answer, &dns.PTR{Hdr: z.header(asked, dns.TypePTR), Ptr: p.name})
	}
	return f
}

// answer is the addresses of the type that is asked for, in random order.
func (z *zone) answer(asked string, a *addresses, qtype uint16) found {
	if rrs := z.addresses(asked, a, qtype); len(rrs) > 0 {
		rand.Shuffle(len(rrs), func(i, j int) { rrs[i], rrs[j] = rrs[j], rrs[i] })
		return found{answer: rrs}
	}
	return z.empty()
}

// addresses are records of type A, AAAA or, for ANY, both.
func (z *zone) addresses(name string, a *addresses, qtype uint16) []dns.RR {
	var out []dns.RR
	if (qtype == dns.TypeA || qtype == dns.TypeANY) && len(a.v4) > 0 {
		out = make([]dns.RR, 0, len(a.v4))
		h := z.header(name, dns.TypeA)
		for _, ip := range a.v4 {
			out = append(out, &dns.A{Hdr: h, A: ip.AsSlice()})
		}
	}
	if qtype == dns.TypeAAAA || qtype == dns.TypeANY {
		h := z.header(name, dns.TypeAAAA)
		for _, ip := range a.v6 {
			out = append(out, &dns.AAAA{Hdr: h, AAAA: ip.AsSlice()})
		}
	}
	return out
}

// targets are SRV records, with the addresses of what they name.
func (z *zone) targets(asked string, targets []*target, qtype uint16) found {
	if qtype != dns.TypeSRV && qtype != dns.TypeANY {
		return z.empty()
	}
	var f found
	added := map[string]bool{}
	for _, i := range rand.Perm(len(targets)) {
		t := targets[i]
		f.answer = append(f.answer, &dns.SRV{Hdr: z.header(asked, dns.TypeSRV), Weight: t.weight, Port: t.port, Target: t.name})
		if !added[t.name] {
			added[t.name] = true
			f.extra = append(f.extra, z.addresses(t.name, t.addresses, dns.TypeANY)...)
		}
	}
	return f
}

// empty says that the name exists and has nothing of the type.
func (z *zone) empty() found { return found{authority: z.domain} }

// missing says that the name does not exist, nor anything below it.
func (z *zone) missing() found { return found{rcode: dns.RcodeNameError, authority: z.domain} }

func (z *zone) header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: z.ttl}
}

func (z *zone) server() string { return "ns.dns." + z.domain }

// soa is the record of a zone that this server is the only one of. Its last field is how long it may be kept that
// something does not exist.
func (z *zone) soa(t *table, name string) dns.RR {
	return &dns.SOA{
		Hdr: z.header(name, dns.TypeSOA), Ns: z.server(), Mbox: "hostmaster." + z.domain,
		Serial: t.serial, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: z.ttl,
	}
}

func selfAddresses(ip netip.Addr) *addresses {
	var a addresses
	if ip.IsValid() {
		a.add(ip)
	}
	return &a
}

// undashed is the address that was written with dashes.
func undashed(label string) (netip.Addr, bool) {
	sep := ":"
	if strings.Count(label, "-") == 3 && !strings.ContainsAny(label, "abcdef") {
		sep = "."
	}
	ip, err := netip.ParseAddr(strings.ReplaceAll(label, "-", sep))
	return ip, err == nil && ip.Zone() == ""
}

// reversed is the address whose name is below in-addr.arpa or ip6.arpa; names with less than all of an address have none.
func reversed(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		var b [4]byte
		parts := strings.Split(rest, ".")
		if len(parts) != len(b) {
			return netip.Addr{}, false
		}
		for i, p := range parts {
			v, err := strconv.ParseUint(p, 10, 8)
			if err != nil || len(p) > 1 && p[0] == '0' {
				return netip.Addr{}, false
			}
			b[3-i] = byte(v)
		}
		return netip.AddrFrom4(b), true
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa.")
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		v, err := strconv.ParseUint(rest[2*i:2*i+1], 16, 4)
		if err != nil || i < 31 && rest[2*i+1] != '.' {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(v) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b), true
}

// reverseZone is the smallest whole zone that a subnet lies in.
func reverseZone(p netip.Prefix) string {
	name, err := dns.ReverseAddr(p.Masked().Addr().String())
	if err != nil {
		return "."
	}
	bits := 8
	if !p.Addr().Is4() {
		bits = 4
	}
	for range p.Addr().BitLen()/bits - p.Bits()/bits {
		_, name, _ = strings.Cut(name, ".")
	}
	return name
}

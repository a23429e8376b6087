package plan

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/render/object"
)

// claim is what only one Service can have: a whole address (no port), a node port (no address), or a port of an
// address that several share.
type claim struct {
	addr  netip.Addr
	proto corev1.Protocol
	port  int32
}

// String returns the claim as a message has it.
func (c claim) String() string {
	switch {
	case c.port == 0:
		return c.addr.String()
	case !c.addr.IsValid():
		return fmt.Sprintf("%d/%s", c.port, c.proto)
	}
	return fmt.Sprintf("%s:%d/%s", c.addr, c.port, c.proto)
}

// holder is who has a claim.
type holder struct {
	ref         object.Ref
	application string
	// port: pods of ref have it as a port of the host.
	port bool
}

// taken says in words who has a claim, for an application that wants it.
func (h holder) taken(c claim, application string) string {
	of := ""
	if h.application != application {
		of = " of application " + h.application
	}
	if h.port {
		return fmt.Sprintf("%s is a port of the host that pods of %s%s have", c, h.ref, of)
	}
	return fmt.Sprintf("%s belongs to %s%s", c, h.ref, of)
}

// ledger knows who has what.
type ledger struct {
	ranges *ServiceRanges
	held   map[claim]holder
	// at has for every address one of those that have ports of it; hosts the ports that are in use on all, or on
	// some, of the host's own addresses.
	at    map[netip.Addr]holder
	hosts map[claim]holder // without address
	// pods are the ports of the host that pods have, by port without address.
	pods map[claim][]podPort
}

type podPort struct {
	addr netip.Addr // not valid for all
	holder
}

func newLedger(r *ServiceRanges) *ledger {
	return &ledger{ranges: r, held: map[claim]holder{}, at: map[netip.Addr]holder{}, hosts: map[claim]holder{}}
}

// own reports whether an address is the host's.
func (l *ledger) own(a netip.Addr) bool { return slices.Contains(l.ranges.HostIPs, a) }

// take records who has a claim; who had it before keeps it.
func (l *ledger) take(c claim, by holder) {
	if _, taken := l.held[c]; !taken {
		l.held[c] = by
	}
	if c.addr.IsValid() && c.port != 0 {
		if _, taken := l.at[c.addr]; !taken {
			l.at[c.addr] = by
		}
		if on := (claim{proto: c.proto, port: c.port}); l.own(c.addr) {
			if _, taken := l.hosts[on]; !taken {
				l.hosts[on] = by
			}
		}
	}
}

// clash returns who else has what the claim needs.
func (l *ledger) clash(c claim, except object.Ref) (holder, bool) {
	look := func(m map[claim]holder, k claim) (holder, bool) {
		h, taken := m[k]
		return h, taken && h.ref != except
	}
	if h, is := look(l.held, c); is {
		return h, true
	}
	on := claim{proto: c.proto, port: c.port}
	switch {
	case c.port == 0:
		if h, taken := l.at[c.addr]; taken && h.ref != except {
			return h, true
		}
	case c.addr.IsValid():
		if h, is := look(l.held, claim{addr: c.addr}); is {
			return h, true
		}
		if !l.own(c.addr) {
			break
		}
		if h, is := look(l.held, on); is {
			return h, true
		}
		for _, p := range l.pods[on] {
			if !p.addr.IsValid() || p.addr == c.addr {
				return p.holder, true
			}
		}
	default:
		if h, is := look(l.hosts, on); is {
			return h, true
		}
		if p := l.pods[on]; len(p) > 0 {
			return p[0].holder, true
		}
	}
	return holder{}, false
}

// free reports whether nobody, the Service itself included, has what the claim needs.
func (l *ledger) free(c claim) bool {
	_, taken := l.clash(c, object.Ref{})
	return !taken
}

// hasPort reports whether the Service itself has a port of the host already, for something else.
func (l *ledger) hasPort(c claim, r object.Ref) bool {
	h, taken := l.held[c]
	return taken && !c.addr.IsValid() && h.ref == r
}

// pooled reports whether an address is of the ranges for load balancers.
func (r *ServiceRanges) pooled(a netip.Addr) bool {
	return slices.ContainsFunc(r.LoadBalancers, func(x AddressRange) bool { return x.Contains(a) })
}

// inside reports whether an address is of those inside: of pods or cluster addresses.
func (r *ServiceRanges) inside(a netip.Addr) bool {
	return r.Pods.IsValid() && r.Pods.Contains(a) || r.ClusterIPs.IsValid() && r.ClusterIPs.Contains(a)
}

// claimsOf returns what a Service has.
func (r *ServiceRanges) claimsOf(s *Service) []claim {
	var out []claim
	if needsClusterIP(s.Spec) {
		if a := address(s.Spec.ClusterIP); a.IsValid() {
			out = append(out, claim{addr: a})
		}
	}
	for i := range s.Spec.Ports {
		if p := &s.Spec.Ports[i]; p.NodePort != 0 {
			out = append(out, claim{proto: p.Protocol, port: p.NodePort})
		}
	}
	if p := s.Spec.HealthCheckNodePort; p != 0 {
		out = append(out, claim{proto: corev1.ProtocolTCP, port: p})
	}
	for _, a := range s.LoadBalancerIPs {
		if r.pooled(a) {
			out = append(out, claim{addr: a})
		} else {
			out = append(out, portsAt(a, s.Spec)...)
		}
	}
	for _, text := range s.Spec.ExternalIPs {
		if a := address(text); a.IsValid() {
			out = append(out, portsAt(a, s.Spec)...)
		}
	}
	return out
}

// portsAt are the ports of a spec at an address.
func portsAt(a netip.Addr, spec *corev1.ServiceSpec) []claim {
	var out []claim
	for i := range spec.Ports {
		out = append(out, claim{addr: a, proto: spec.Ports[i].Protocol, port: spec.Ports[i].Port})
	}
	return out
}

// clusterAddress says what is wrong with an address for a Service; empty when it can be given.
func (r *ServiceRanges) clusterAddress(a netip.Addr) string {
	p := r.ClusterIPs.Masked()
	switch {
	case !p.IsValid() || !p.Addr().Is4():
		return "there is no range of cluster addresses"
	case !p.Contains(a):
		return fmt.Sprintf("%s is not in the range of cluster addresses, %s", a, p)
	case a == p.Addr() || a == lastOf(p):
		return fmt.Sprintf("%s is the network or broadcast address of %s", a, p)
	case r.Pods.IsValid() && r.Pods.Contains(a):
		return fmt.Sprintf("%s is in the range of pods, %s", a, r.Pods)
	}
	return ""
}

// nodePort says what is wrong with a port of the host for a Service; empty when it can be given.
func (r *ServiceRanges) nodePort(p int32) string {
	if first, last := r.NodePorts[0], r.NodePorts[1]; p < first || p > last || p < 1 {
		return fmt.Sprintf("%d is not in the range of node ports, %d to %d", p, first, last)
	}
	return ""
}

func lastOf(p netip.Prefix) netip.Addr { return plus(p.Masked().Addr(), sizeOf(p)-1) }

// sizeOf is how many addresses an IPv4 prefix has.
func sizeOf(p netip.Prefix) uint64 { return 1 << (32 - p.Bits()) }

// plus returns the n-th IPv4 address after a.
func plus(a netip.Addr, n uint64) netip.Addr {
	b := a.As4()
	var out [4]byte
	binary.BigEndian.PutUint32(out[:], binary.BigEndian.Uint32(b[:])+uint32(n)) //nolint:gosec // n is within the range
	return netip.AddrFrom4(out)
}

// distance is how many addresses b comes after a.
func distance(a, b netip.Addr) uint64 {
	x, y := a.As4(), b.As4()
	return uint64(binary.BigEndian.Uint32(y[:]) - binary.BigEndian.Uint32(x[:]))
}

// position is where choosing begins for a name among n.
func position(name string, n uint64) uint64 {
	var h uint64 = 14695981039346656037 // FNV-1a
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	h ^= h >> 32
	h *= 0x9e3779b97f4a7c15
	h ^= h >> 29
	return h % n
}

// chooseCluster returns the address that follows from the Service's name, or the next one that is free.
func (l *ledger) chooseCluster(r object.Ref) (claim, string) {
	p := l.ranges.ClusterIPs.Masked()
	if !p.IsValid() || !p.Addr().Is4() || p.Bits() > 30 {
		return claim{}, "there is no range of cluster addresses"
	}
	n := sizeOf(p) - 2 // without network and broadcast
	at := position(r.Namespace+"/"+r.Name, n)
	for i := range n {
		a := plus(p.Addr(), 1+(at+i)%n)
		if l.ranges.Pods.IsValid() && l.ranges.Pods.Contains(a) {
			continue
		}
		if c := (claim{addr: a}); l.free(c) {
			return c, ""
		}
	}
	return claim{}, fmt.Sprintf("all %d cluster addresses of %s are taken", n, p)
}

// chooseNodePort returns the port that follows from the name, or the next one that is free.
func (l *ledger) chooseNodePort(name string, proto corev1.Protocol) (claim, string) {
	first, last := l.ranges.NodePorts[0], l.ranges.NodePorts[1]
	if first < 1 || last < first || last > 65535 {
		return claim{}, "there is no range of node ports"
	}
	n := uint64(last-first) + 1 //nolint:gosec // last is not before first
	at := position(name, n)
	for i := range n {
		c := claim{proto: proto, port: first + int32((at+i)%n)} //nolint:gosec // below 65536
		if l.free(c) {
			return c, ""
		}
	}
	return claim{}, fmt.Sprintf("all %d node ports from %d to %d are taken", n, first, last)
}

// chooseLoadBalancer returns the address of the ranges that follows from the Service's name, or the next one that is free.
func (l *ledger) chooseLoadBalancer(r object.Ref) (claim, string) {
	var n uint64
	for _, x := range l.ranges.LoadBalancers {
		n += distance(x.First, x.Last) + 1
	}
	at := position(r.Namespace+"/"+r.Name, n)
	for i := range n {
		k := (at + i) % n
		for _, x := range l.ranges.LoadBalancers {
			size := distance(x.First, x.Last) + 1
			if k >= size {
				k -= size
				continue
			}
			if c := (claim{addr: plus(x.First, k)}); !l.ranges.inside(c.addr) && l.free(c) {
				return c, ""
			}
			break
		}
	}
	return claim{}, "all " + strconv.FormatUint(n, 10) + " addresses for load balancers are taken"
}

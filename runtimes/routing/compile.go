package routing

import (
	"encoding/binary"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// element is one entry of a map or set of the table. What a set does not use is zero, so that elements compare.
type element struct {
	elementKey
	val [12]byte
	// last is the last address of the range that the key's last four bytes begin, in the set allowed.
	last [4]byte
}

type elementKey struct {
	set set
	key [16]byte
}

// unit is what one Route means in the kernel.
type unit struct {
	route *plan.Route
	owner *owner
	// shared are elements that other Services can have too: the first Service in order has them. own are those
	// whose key is a number of this Service. Both are sorted and without duplicates.
	shared, own []element
	// classes are the classes that the elements lead to, and targets the endpoints with a number, one for each use.
	classes []class
	targets []targetKey
	// addresses are the load balancer addresses that the bridge has to have.
	addresses []netip.Addr
	// proxies is what the proxy answered for each port.
	proxies []netip.AddrPort
	// flows are the UDP frontends, with who may still get their packets.
	flows     []frontend
	endpoints int
}

// targetKey is an endpoint of one port of a Service, with which clients can stay.
type targetKey struct {
	service  object.Ref
	port     int32
	protocol corev1.Protocol
	at       netip.AddrPort
}

// frontend is a UDP address and port of a Service; an invalid address means any of the host's.
type frontend struct {
	address netip.Addr
	port    uint16
	to      map[netip.AddrPort]bool
}

// compile says what a Route means. It changes nothing but the numbers that are given to classes and targets.
func (r *Routes) compile(route *plan.Route) *unit {
	u := &unit{route: route, proxies: r.proxied(route)}
	if route.Headless() || route.Spec.Type == corev1.ServiceTypeExternalName {
		return u
	}
	c := compiler{r: r, unit: u, affinity: affinity(route.Spec)}
	for i := range route.Ports {
		c.port(i)
	}
	for i := range route.Endpoints {
		c.sources(&route.Endpoints[i])
	}
	u.shared, u.own = unique(u.shared), unique(u.own)
	return u
}

// proxied asks where the proxy takes the connections of each port.
func (r *Routes) proxied(route *plan.Route) []netip.AddrPort {
	if route.Balancing != plan.LeastConnections || r.opt.Proxy == nil || !r.proxying {
		return nil
	}
	out := make([]netip.AddrPort, len(route.Ports))
	for i, p := range route.Ports {
		if at, ok := r.opt.Proxy(route.Ref, p.Port, p.Protocol); ok && p.Protocol == corev1.ProtocolTCP && at.Addr().Is4() {
			out[i] = at
		}
	}
	return out
}

// affinity returns for how many seconds a client stays with its endpoint; 0 without session affinity.
func affinity(spec *corev1.ServiceSpec) uint32 {
	if spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	if c := spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil && *c.ClientIP.TimeoutSeconds > 0 {
		return uint32(*c.ClientIP.TimeoutSeconds)
	}
	return uint32(corev1.DefaultClientIPServiceAffinitySeconds)
}

type compiler struct {
	r        *Routes
	unit     *unit
	affinity uint32
}

// port adds the elements of one port.
func (c *compiler) port(i int) {
	route, opt := c.unit.route, &c.r.opt
	p := route.Ports[i]
	proto, ok := protocols[p.Protocol]
	if !ok {
		return
	}
	everywhere := c.list(i, false)
	inside, outside := everywhere, everywhere
	if policy := route.Spec.InternalTrafficPolicy; policy != nil && *policy == corev1.ServiceInternalTrafficPolicyLocal {
		inside = c.list(i, true)
	}
	if route.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		outside = c.list(i, true)
	}
	for _, a := range clusterIPs(route.Spec) {
		c.address(a, proto, p.Port, inside, inside, everywhere)
	}
	for _, s := range route.Spec.ExternalIPs {
		if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
			c.address(a, proto, p.Port, everywhere, outside, everywhere)
		}
	}
	for _, a := range route.LoadBalancerIPs {
		if !a.Is4() {
			continue
		}
		c.address(a, proto, p.Port, everywhere, outside, everywhere)
		c.fence(a, proto, p.Port)
		if slices.ContainsFunc(opt.Ranges.LoadBalancers, func(r plan.AddressRange) bool { return r.Contains(a) }) {
			b := a.As4()
			c.share(balancerAddresses, key(b[:]), nil)
			if !slices.Contains(c.unit.addresses, a) {
				c.unit.addresses = append(c.unit.addresses, a)
			}
		}
	}
	if p.NodePort != 0 {
		k := key(word(proto), port(p.NodePort))
		c.frontend(netip.Addr{}, proto, p.NodePort, everywhere)
		c.lead(nodePorts, refusedPorts, k, everywhere, everywhere)
		if outside != everywhere {
			c.lead(outsidePorts, refusedPorts, k, outside, everywhere)
		}
	}
}

// sources says of whose connections to an endpoint the source has to change. It also holds for one that gets no new
// connections: those that it has go on.
func (c *compiler) sources(e *plan.Endpoint) {
	if !e.Address.Is4() {
		return
	}
	a := e.Address.As4()
	if c.r.opt.Pods.Contains(e.Address) {
		c.share(hairpins, key(a[:], a[:]), nil)
		return
	}
	for i, p := range c.unit.route.Ports {
		if proto, ok := protocols[p.Protocol]; ok {
			c.share(remotes, key(a[:], word(proto), port(e.Ports[i])), nil)
		}
	}
}

// address adds an address and port at which the Service is served.
func (c *compiler) address(a netip.Addr, proto byte, number int32, inside, outside, everywhere *list) {
	b := a.As4()
	k := key(b[:], word(proto), port(number))
	c.frontend(a, proto, number, everywhere)
	c.lead(services, refused, k, inside, everywhere)
	if outside != inside {
		c.lead(outsideServices, refused, k, outside, everywhere)
	}
}

// lead makes a frontend lead to a list. Without endpoints it refuses connections; where there are some that a Local
// policy rules out it drops them, as Kubernetes has it.
func (c *compiler) lead(from, refuse set, k [16]byte, to, everywhere *list) {
	switch {
	case len(to.slots) > 0:
		cl := class{from: from, slots: len(to.slots), balancing: to.balancing, affinity: to.affinity}
		if cl.balancing == plan.RoundRobin {
			cl.frontend = k
		}
		c.unit.classes = append(c.unit.classes, cl)
		c.share(from, k, words(uint32(cl.slots), c.r.classes.number(cl)))
		for slot, at := range to.slots {
			at4 := k
			copy(at4[layouts[from].KeyType.Bytes:], words(uint32(slot)))
			if to.affinity > 0 {
				n := c.target(to, at)
				c.share(from.choices(), at4, words(uint32(slot), n, n))
			} else {
				c.share(from.endpoints(), at4, target(at))
			}
		}
	case len(everywhere.slots) > 0:
		c.share(from, k, words(0, dropClass))
	default:
		c.share(refuse, k, nil)
	}
}

// fence lets only the sources through that loadBalancerSourceRanges names.
func (c *compiler) fence(a netip.Addr, proto byte, number int32) {
	ranges := c.unit.route.Spec.LoadBalancerSourceRanges
	if len(ranges) == 0 {
		return
	}
	b := a.As4()
	c.share(fenced, key(b[:], word(proto), port(number)), nil)
	var prefixes []netip.Prefix
	for _, s := range ranges {
		if p, err := netip.ParsePrefix(s); err == nil && p.Addr().Is4() {
			prefixes = append(prefixes, p.Masked())
		}
	}
	for i, p := range prefixes {
		if slices.ContainsFunc(prefixes[:i], func(q netip.Prefix) bool { return q == p }) ||
			slices.ContainsFunc(prefixes, func(q netip.Prefix) bool { return q.Bits() < p.Bits() && q.Overlaps(p) }) {
			continue // within another; the kernel refuses overlapping ranges
		}
		first, last := p.Addr().As4(), lastAddress(p)
		e := element{elementKey: elementKey{allowed, key(b[:], word(proto), port(number), first[:])}, last: last}
		c.unit.shared = append(c.unit.shared, e)
	}
}

func (c *compiler) frontend(a netip.Addr, proto byte, number int32, to *list) {
	if proto == protocols[corev1.ProtocolUDP] {
		c.unit.flows = append(c.unit.flows, frontend{a, uint16(number), to.serving})
	}
}

func (c *compiler) share(s set, k [16]byte, val []byte) {
	e := element{elementKey: elementKey{s, k}}
	copy(e.val[:], val)
	c.unit.shared = append(c.unit.shared, e)
}

// list is the endpoints of one port in the order of the slots that the kernel chooses from.
type list struct {
	port      plan.RoutePort
	slots     []netip.AddrPort
	balancing plan.Balancing
	affinity  uint32
	// serving are the endpoints that may keep their UDP flows.
	serving map[netip.AddrPort]bool
	// numbers are those of the endpoints that clients can stay with.
	numbers map[netip.AddrPort]uint32
}

// list makes the list of a port's endpoints, of this node only where local.
func (c *compiler) list(i int, local bool) *list {
	route := c.unit.route
	p := route.Ports[i]
	l := &list{port: p, balancing: route.Balancing, affinity: c.affinity, serving: make(map[netip.AddrPort]bool)}
	var on plan.NodeID
	if local {
		on = c.r.opt.Node
	}
	var targets []netip.AddrPort
	var weights []int
	for _, b := range route.Backends(i, on) {
		e := &route.Endpoints[b]
		if at := netip.AddrPortFrom(e.Address, uint16(e.Ports[i])); e.Address.Is4() && !slices.Contains(targets, at) {
			targets, weights = append(targets, at), append(weights, e.Weight)
		}
	}
	for j := range route.Endpoints {
		if e := &route.Endpoints[j]; e.Ready || e.Serving {
			l.serving[netip.AddrPortFrom(e.Address, uint16(e.Ports[i]))] = true
		}
	}
	if !local {
		c.unit.endpoints += len(targets)
	}
	switch {
	case len(targets) == 0:
	case c.unit.proxies != nil && c.unit.proxies[i].IsValid():
		l.slots, l.balancing, l.affinity = []netip.AddrPort{c.unit.proxies[i]}, plan.Random, 0
	case route.Balancing == plan.SourceHash:
		l.slots = hashSlots(targets, weights)
	default:
		l.slots = slots(targets, weights)
	}
	if len(l.slots) == 1 || l.balancing != plan.RoundRobin && l.balancing != plan.SourceHash {
		l.balancing = plan.Random // of one there is nothing to choose
	}
	return l
}

// target gives an endpoint a number, and makes the number lead to it.
func (c *compiler) target(l *list, at netip.AddrPort) uint32 {
	if n, ok := l.numbers[at]; ok {
		return n
	}
	if l.numbers == nil {
		l.numbers = make(map[netip.AddrPort]uint32)
	}
	k := targetKey{c.unit.route.Ref, l.port.Port, l.port.Protocol, at}
	n := c.r.targets.number(k)
	l.numbers[at] = n
	c.unit.targets = append(c.unit.targets, k)
	e := element{elementKey: elementKey{targets, key(words(n))}}
	copy(e.val[:], target(at))
	c.unit.own = append(c.unit.own, e)
	return n
}

func clusterIPs(spec *corev1.ServiceSpec) []netip.Addr {
	var out []netip.Addr
	for _, s := range append([]string{spec.ClusterIP}, spec.ClusterIPs...) {
		if a, err := netip.ParseAddr(s); err == nil && a.Is4() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

var protocols = map[corev1.Protocol]byte{corev1.ProtocolTCP: 6, corev1.ProtocolUDP: 17, corev1.ProtocolSCTP: 132}

// unique sorts elements by set and key and drops what is there twice.
func unique(es []element) []element {
	slices.SortStableFunc(es, compareElements)
	return slices.CompactFunc(es, func(a, b element) bool { return a.elementKey == b.elementKey })
}

// key joins the parts of a key. Each part is a multiple of four bytes, as the kernel's registers are.
func key(parts ...[]byte) (k [16]byte) {
	b := k[:0]
	for _, p := range parts {
		b = append(b, p...)
	}
	return k
}

func word(b byte) []byte { return []byte{b, 0, 0, 0} }

func port(n int32) []byte { return []byte{byte(n >> 8), byte(n), 0, 0} }

// words are numbers as the kernel's registers have them.
func words(ns ...uint32) []byte {
	var b []byte
	for _, n := range ns {
		b = binary.NativeEndian.AppendUint32(b, n)
	}
	return b
}

// target is an endpoint as the table has it.
func target(at netip.AddrPort) []byte {
	v := make([]byte, 8)
	a := at.Addr().As4()
	copy(v, a[:])
	binary.BigEndian.PutUint16(v[4:], at.Port())
	return v
}

func lastAddress(p netip.Prefix) [4]byte {
	b := p.Masked().Addr().As4()
	n := binary.BigEndian.Uint32(b[:]) | uint32(1<<(32-p.Bits())-1)
	binary.BigEndian.PutUint32(b[:], n)
	return b
}

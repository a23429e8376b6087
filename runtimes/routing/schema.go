package routing

import (
	"net"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/plan"
)

// set is one of the table's sets and maps.
type set uint8

const (
	// services leads from address, protocol and port to a class; outsideServices, looked at first for what does
	// not come from the bridge, has those frontends for which that differs. nodePorts and outsidePorts are the
	// same for protocol and port at any address of the host.
	services set = iota + 1
	outsideServices
	nodePorts
	outsidePorts
	// The endpoints of each of the four: from frontend and slot to address and port.
	serviceEndpoints
	outsideServiceEndpoints
	nodePortEndpoints
	outsidePortEndpoints
	// The same where clients stay with an endpoint: from frontend and slot to the number of a target.
	serviceChoices
	outsideServiceChoices
	nodePortChoices
	outsidePortChoices
	// targets leads from a number to address and port. An endpoint that is gone is not there, so that its clients
	// choose anew.
	targets
	// hairpins has the pods' addresses, twice each: who connects to itself.
	hairpins
	// remotes are endpoints that are not on the bridge.
	remotes
	// refused and refusedPorts are frontends without endpoints.
	refused
	refusedPorts
	// balancerAddresses are the addresses that the bridge has for Services.
	balancerAddresses
	// fenced are frontends that only the sources in allowed may use.
	fenced
	allowed
	// affinities and portAffinities lead from client and frontend to the target that the client stays with; the
	// kernel fills them.
	affinities
	portAffinities
	// verdicts leads from a class to its chain.
	verdicts
	setCount
)

// endpoints, choices and affinities are the maps that belong to one of the first four.
func (s set) endpoints() set { return s - services + serviceEndpoints }
func (s set) choices() set   { return s - services + serviceChoices }
func (s set) affinities() set {
	if s.ports() {
		return portAffinities
	}
	return affinities
}

// ports reports whether frontends of the map have no address.
func (s set) ports() bool { return s == nodePorts || s == outsidePorts }

// concat is the type of a key or value of several parts. The parts are those that the nft command knows, so that it can
// list the table.
func concat(parts ...nftables.SetDatatype) nftables.SetDatatype {
	return nftables.MustConcatSetType(parts...)
}

var (
	typeFrontend   = concat(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	typePort       = concat(nftables.TypeInetProto, nftables.TypeInetService)
	typeSlot       = concat(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeMark)
	typePortSlot   = concat(nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeMark)
	typeClient     = concat(nftables.TypeIPAddr, nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	typePortClient = concat(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	typeEndpoint   = concat(nftables.TypeIPAddr, nftables.TypeInetService)
	// Numbers that are looked up further; see lookupNumber. A class comes after its number of slots, a target after
	// itself, and a choice is a slot and then what is remembered for the client.
	typeClass  = concat(nftables.TypeMark, nftables.TypeMark)
	typeTarget = concat(nftables.TypeMark, nftables.TypeMark)
	typeChoice = concat(nftables.TypeMark, nftables.TypeMark, nftables.TypeMark)
	typeTwice  = concat(nftables.TypeIPAddr, nftables.TypeIPAddr)
	typeSource = concat(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeIPAddr)
)

// layouts are the sets as they are made.
var layouts = [setCount]nftables.Set{
	services:                mapping("services", typeFrontend, typeClass),
	outsideServices:         mapping("outside-services", typeFrontend, typeClass),
	nodePorts:               mapping("node-ports", typePort, typeClass),
	outsidePorts:            mapping("outside-ports", typePort, typeClass),
	serviceEndpoints:        mapping("service-endpoints", typeSlot, typeEndpoint),
	outsideServiceEndpoints: mapping("outside-service-endpoints", typeSlot, typeEndpoint),
	nodePortEndpoints:       mapping("node-port-endpoints", typePortSlot, typeEndpoint),
	outsidePortEndpoints:    mapping("outside-port-endpoints", typePortSlot, typeEndpoint),
	serviceChoices:          mapping("service-choices", typeSlot, typeChoice),
	outsideServiceChoices:   mapping("outside-service-choices", typeSlot, typeChoice),
	nodePortChoices:         mapping("node-port-choices", typePortSlot, typeChoice),
	outsidePortChoices:      mapping("outside-port-choices", typePortSlot, typeChoice),
	targets:                 mapping("targets", nftables.TypeMark, typeEndpoint),
	hairpins:                {Name: "hairpins", KeyType: typeTwice},
	remotes:                 {Name: "remotes", KeyType: typeFrontend},
	refused:                 {Name: "refused", KeyType: typeFrontend},
	refusedPorts:            {Name: "refused-ports", KeyType: typePort},
	balancerAddresses:       {Name: "balancer-addresses", KeyType: nftables.TypeIPAddr},
	fenced:                  {Name: "fenced", KeyType: typeFrontend},
	allowed:                 {Name: "allowed", KeyType: typeSource, Interval: true, Concatenation: true},
	affinities:              memory("affinities", typeClient),
	portAffinities:          memory("port-affinities", typePortClient),
	verdicts:                mapping("verdicts", nftables.TypeMark, nftables.TypeVerdict),
}

func mapping(name string, key, value nftables.SetDatatype) nftables.Set {
	return nftables.Set{Name: name, IsMap: true, KeyType: key, DataType: value}
}

// memory is a map that rules fill.
func memory(name string, key nftables.SetDatatype) nftables.Set {
	return nftables.Set{Name: name, IsMap: true, Dynamic: true, HasTimeout: true, Size: maxAffinities, KeyType: key, DataType: typeTarget}
}

// maxAffinities bounds how many clients the kernel remembers; those beyond are balanced as if there were no affinity.
const maxAffinities = 1 << 20

func (s set) name() string { return layouts[s].Name }

// hashSeed is any number but 0, for which the kernel would take another one each time.
const hashSeed = 0x6c656164

// protocol numbers and the like that the rules need.
const (
	icmpRedirect = 5
	statusDNAT   = 1 << 5         // of a connection whose destination was translated
	addressLocal = unix.RTN_LOCAL // of an address of this host
)

// schema writes the table with all that does not depend on the Services.
func (r *Routes) schema(t *transaction) {
	t.addTable()
	for s := services; s < setCount; s++ {
		t.addSet(s)
	}
	drop := []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	t.addChain("drop")
	t.addRule("drop", drop)
	t.addVerdict(dropClass, "drop")
	t.addChain("refuse")
	t.addRule("refuse", loadProtocol(0), equal(0, []byte{unix.IPPROTO_TCP}), []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}})
	t.addRule("refuse", []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 3}}) // port unreachable
	// A connection that began while there was no table is not translated either. It is worth another try once the kernel
	// has forgotten it, so nothing is refused before that: see refuseStrays.
	t.addChain("strays")
	t.addRule("strays", drop)

	inside, outside := r.interfaceIs(expr.MetaKeyIIFNAME, true), r.interfaceIs(expr.MetaKeyIIFNAME, false)
	toBridge, elsewhere := r.interfaceIs(expr.MetaKeyOIFNAME, true), r.interfaceIs(expr.MetaKeyOIFNAME, false)
	loopback := func(offset uint32) []expr.Any {
		return join(loadNetwork(0, offset, 1), equal(0, []byte{127}))
	}
	local := join(isLocal(), lookupNot(balancerAddresses, 0, loadDestination))
	refuse := []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: "refuse"}}
	translated := join([]expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: reg(0)},
		&expr.Bitwise{SourceRegister: reg(0), DestRegister: reg(0), Len: 4, Mask: binaryutil.NativeEndian.PutUint32(statusDNAT), Xor: make([]byte, 4)},
	}, unequal(0, make([]byte, 4)))
	masquerade := []expr.Any{&expr.Masq{}}

	// Addresses of the loopback never come from a pod. The bridge may accept them, so nothing else stops that.
	t.addBase("from-pods", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -300)
	t.addRule("from-pods", inside, loopback(16), drop)
	t.addRule("from-pods", inside, loopback(12), drop)

	t.addBase("fences", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -112)
	t.addRule("fences", isNew(), loadFrontend(0), lookup(fenced, 0), loadNetwork(3, 12, 4), lookupAbsent(allowed, 0), drop)

	t.addBase("arriving", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, -105)
	t.follow("arriving", outsideServices, outside, loadFrontend(0))
	t.follow("arriving", services, loadFrontend(0))
	t.follow("arriving", outsidePorts, outside, local, loadPort(0))
	t.follow("arriving", nodePorts, local, loadPort(0))

	t.addBase("leaving", nftables.ChainTypeNAT, nftables.ChainHookOutput, -105)
	t.follow("leaving", services, loadFrontend(0))
	if !r.opt.LocalhostNodePorts {
		t.addRule("leaving", loopback(16), []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}})
	}
	t.follow("leaving", nodePorts, local, loadPort(0))

	// The source changes only where the answer would not come back otherwise.
	t.addBase("sources", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, 95)
	t.addRule("sources", translated, loadNetwork(0, 12, 8), lookup(hairpins, 0), masquerade)
	t.addRule("sources", toBridge, loopback(12), masquerade)
	t.addRule("sources", elsewhere, r.fromPods(), masquerade)
	t.addRule("sources", elsewhere, translated, loadFrontend(0), lookup(remotes, 0), masquerade)

	// What still has the address of a Service here has no endpoint, or is for no port of the Service.
	for _, b := range []struct {
		name string
		hook *nftables.ChainHook
	}{{"input", nftables.ChainHookInput}, {"forward", nftables.ChainHookForward}, {"output", nftables.ChainHookOutput}} {
		t.addBase(b.name, nftables.ChainTypeFilter, b.hook, -5)
		if b.name == "output" {
			// Pods on one bridge reach each other through the host on purpose.
			t.addRule(b.name, toBridge, loadProtocol(0), equal(0, []byte{unix.IPPROTO_ICMP}),
				[]expr.Any{&expr.Payload{DestRegister: reg(0), Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1}},
				equal(0, []byte{icmpRedirect}), drop)
		}
		if b.name != "input" {
			t.addRule(b.name, r.toServices(), []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: "strays"}})
		}
		t.addRule(b.name, isNew(), loadFrontend(0), lookup(refused, 0), refuse)
		if b.name != "forward" {
			t.addRule(b.name, isNew(), local, loadPort(0), lookup(refusedPorts, 0), refuse)
		}
		if b.name == "input" {
			for _, p := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP} {
				t.addRule(b.name, isNew(), loadProtocol(0), equal(0, []byte{p}), loadDestination(0), lookup(balancerAddresses, 0), refuse)
			}
		}
	}
}

// refuseStrays makes what has a cluster address and leads nowhere refused, where a new table drops it.
func refuseStrays(t *transaction) {
	t.emptyChain("strays")
	t.addRule("strays", []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: "refuse"}})
}

// writeClass writes the chain of a class. Registers do not last from one rule to the next, nor can nft list a rule
// that uses a part of what a map gave.
func writeClass(t *transaction, c numbered) {
	name := c.chain()
	t.addChain(name)
	// The client is in register 0, the frontend from 1 on, then the slot.
	load, slot := loadFrontend(1), uint32(4)
	if c.from.ports() {
		load, slot = loadPort(1), 3
	}
	if c.affinity == 0 {
		t.addRule(name, load, c.choose(slot), lookupInto(c.from.endpoints(), 1, 6), translate(6))
		t.addVerdict(c.number, name)
		return
	}
	memory := c.from.affinities()
	client, find := loadNetwork(0, 12, 4), join(load, c.choose(slot), lookupNumber(c.from.choices(), 1, 5))
	goThere := join(lookupInto(targets, 6, 8), translate(8))
	// The target that the client had, while it lives. The client's time begins anew, which leaves the value as it is; one
	// whose time ended in this moment would be remembered with no target, and get another one below the next time.
	t.addNoted(name, "the mark is what @"+memory.name()+" has", client, load, lookupNumber(memory, 0, 5), lookupInto(targets, 6, 8),
		zero(10), zero(11),
		remember(memory, unix.NFT_DYNSET_OP_UPDATE, 0, 10, c.affinity), translate(8))
	// Another one, which the client has from now on.
	t.addNoted(name, "the mark is what @"+c.from.choices().name()+" has", client, load, remember(memory, dynsetDelete, 0, 0, 0), find, client,
		remember(memory, unix.NFT_DYNSET_OP_ADD, 0, 6, c.affinity), goThere)
	// There was no room to remember it.
	t.addNoted(name, "the mark is what @"+c.from.choices().name()+" has", find, goThere)
	t.addVerdict(c.number, name)
}

// choose puts the number of a slot into a register.
func (c class) choose(to uint32) []expr.Any {
	switch {
	case c.slots == 1:
		return zero(to)
	case c.balancing == plan.SourceHash:
		return join(loadNetwork(to+1, 12, 4), []expr.Any{
			&expr.Hash{SourceRegister: reg(to + 1), DestRegister: reg(to), Length: 4, Modulus: uint32(c.slots), Seed: hashSeed, Type: expr.HashTypeJenkins}})
	case c.balancing == plan.RoundRobin:
		return []expr.Any{&expr.Numgen{Register: reg(to), Modulus: uint32(c.slots), Type: unix.NFT_NG_INCREMENTAL}}
	default:
		return []expr.Any{&expr.Numgen{Register: reg(to), Modulus: uint32(c.slots), Type: unix.NFT_NG_RANDOM}}
	}
}

func zero(to uint32) []expr.Any {
	return []expr.Any{&expr.Immediate{Register: reg(to), Data: make([]byte, 4)}}
}

// dynsetDelete removes an element from within a rule; package unix does not have it.
const dynsetDelete = 2

// reg is the n-th register of four bytes.
func reg(n uint32) uint32 { return unix.NFT_REG32_00 + n }

func join(parts ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func loadNetwork(to, offset, length uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg(to), Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}}
}

func loadDestination(to uint32) []expr.Any { return loadNetwork(to, 16, 4) }

func loadProtocol(to uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(to)}}
}

// loadPort loads protocol and destination port into two registers, loadFrontend the address before them into three.
func loadPort(to uint32) []expr.Any {
	return join(loadProtocol(to), []expr.Any{
		&expr.Payload{DestRegister: reg(to + 1), Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}})
}

func loadFrontend(to uint32) []expr.Any { return join(loadDestination(to), loadPort(to+1)) }

func equal(r uint32, data []byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: reg(r), Data: data}}
}

func unequal(r uint32, data []byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpNeq, Register: reg(r), Data: data}}
}

func isNew() []expr.Any {
	return join([]expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg(0)},
		&expr.Bitwise{SourceRegister: reg(0), DestRegister: reg(0), Len: 4, Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW), Xor: make([]byte, 4)},
	}, unequal(0, make([]byte, 4)))
}

// isLocal matches packets to an address of this host.
func isLocal() []expr.Any {
	return join([]expr.Any{&expr.Fib{Register: reg(0), FlagDADDR: true, ResultADDRTYPE: true}},
		equal(0, binaryutil.NativeEndian.PutUint32(addressLocal)))
}

// interfaceIs matches packets that come from (or go to) the bridge, or those that do not.
func (r *Routes) interfaceIs(key expr.MetaKey, is bool) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, r.opt.Bridge)
	op := expr.CmpOpNeq
	if is {
		op = expr.CmpOpEq
	}
	return []expr.Any{&expr.Meta{Key: key, Register: reg(0)}, &expr.Cmp{Op: op, Register: reg(0), Data: name}}
}

// fromPods matches a source in the pods' subnet, toServices a destination among the cluster addresses.
func (r *Routes) fromPods() []expr.Any {
	a := r.opt.Pods.Addr().As4()
	return join(loadNetwork(0, 12, 4), mask(0, r.opt.Pods.Bits()), equal(0, a[:]))
}

func (r *Routes) toServices() []expr.Any {
	a := r.opt.Ranges.ClusterIPs.Addr().As4()
	return join(loadNetwork(0, 16, 4), mask(0, r.opt.Ranges.ClusterIPs.Bits()), equal(0, a[:]))
}

func mask(r uint32, bits int) []expr.Any {
	m := net.CIDRMask(bits, 32)
	return []expr.Any{&expr.Bitwise{SourceRegister: reg(r), DestRegister: reg(r), Len: 4, Mask: m, Xor: make([]byte, 4)}}
}

// lookup matches keys that are in a set, lookupAbsent those that are not.
func lookup(s set, from uint32) []expr.Any {
	return []expr.Any{&expr.Lookup{SetName: s.name(), SetID: uint32(s), SourceRegister: reg(from)}}
}

func lookupAbsent(s set, from uint32) []expr.Any {
	return []expr.Any{&expr.Lookup{SetName: s.name(), SetID: uint32(s), SourceRegister: reg(from), Invert: true}}
}

func lookupNot(s set, at uint32, load func(uint32) []expr.Any) []expr.Any {
	return join(load(at), lookupAbsent(s, at))
}

func lookupInto(s set, from, to uint32) []expr.Any {
	return []expr.Any{&expr.Lookup{SetName: s.name(), SetID: uint32(s), SourceRegister: reg(from), DestRegister: reg(to), IsDestRegSet: true}}
}

// lookupNumber looks up a number that is itself the key or value of another map, and puts it into register to+1. What is
// in register to before it makes the value longer than the number, for the sake of the nft command: it does not know
// how long the value of a map with a key of several parts is, and versions up to 1.0.6 at least end with a failed
// assertion where such a value is looked up again, whatever they were asked to list. So the register of the number has
// the packet's mark first, which the lookup overwrites: nft shows "meta mark" where the number is used, and the rule's
// comment says what it stands for.
func lookupNumber(s set, from, to uint32) []expr.Any {
	var out []expr.Any
	for n := uint32(1); n < layouts[s].DataType.Bytes/4; n++ {
		out = append(out, &expr.Meta{Key: expr.MetaKeyMARK, Register: reg(to + n)})
	}
	return join(out, lookupInto(s, from, to))
}

// follow goes to the chain of the class that a map has for the key.
func (t *transaction) follow(chain string, s set, parts ...[]expr.Any) {
	key := "ip daddr . meta l4proto . th dport"
	if s.ports() {
		key = "meta l4proto . th dport"
	}
	t.addNoted(chain, "the mark is that of "+key+" map @"+s.name(), join(parts...), lookupNumber(s, 0, 3),
		[]expr.Any{&expr.Lookup{SetName: verdicts.name(), SetID: uint32(verdicts), SourceRegister: reg(4), DestRegister: 0, IsDestRegSet: true}})
}

// remember changes what the kernel knows of a client.
func remember(s set, op, key, data, seconds uint32) []expr.Any {
	return []expr.Any{&expr.Dynset{SetName: s.name(), SetID: uint32(s), Operation: op,
		SrcRegKey: reg(key), SrcRegData: reg(data), Timeout: secondsOf(seconds)}}
}

// translate makes the packet, and with it the connection, go to the endpoint in two registers.
func translate(from uint32) []expr.Any {
	return []expr.Any{&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg(from), RegProtoMin: reg(from + 1)}}
}

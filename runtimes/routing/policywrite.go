package routing

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/policies/network"
)

// fixedPolicyObjects is how many chains and sets the table of policies has that do not depend on the policies.
const fixedPolicyObjects = 6

// policyTable writes changes of the table of policies.
type policyTable struct {
	conn  *nftables.Conn
	table *nftables.Table
	err   error
}

// The sets that are always there: pods by themselves, twice each, for connections to themselves; those that are isolated in either
// direction; and the maps from pods to their chains.
func (t *policyTable) fixed(name string) *nftables.Set {
	s := &nftables.Set{Table: t.table, Name: name, KeyType: nftables.TypeIPAddr}
	switch name {
	case "selves":
		s.KeyType = typeTwice
	case "ingress", "egress":
		s.IsMap, s.DataType = true, nftables.TypeVerdict
	}
	return s
}

func (t *policyTable) note(err error) {
	if t.err == nil {
		t.err = err
	}
}

func (t *policyTable) rule(chain, comment string, parts ...[]expr.Any) {
	r := &nftables.Rule{Table: t.table, Chain: &nftables.Chain{Table: t.table, Name: chain}, Exprs: join(parts...)}
	if comment != "" {
		r.UserData = userdata.AppendString(nil, userdata.TypeComment, comment)
	}
	t.conn.AddRule(r)
}

func in(name string, from uint32) []expr.Any {
	return []expr.Any{&expr.Lookup{SetName: name, SourceRegister: reg(from)}}
}

func ctHas(key expr.CtKey, bits uint32) []expr.Any {
	return join([]expr.Any{
		&expr.Ct{Key: key, Register: reg(0)},
		&expr.Bitwise{SourceRegister: reg(0), DestRegister: reg(0), Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
	}, unequal(0, make([]byte, 4)))
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

const (
	tcpFlags = 13 // their place in the header
	tcpSYN   = 0x02
	tcpACK   = 0x10
)

// base writes what does not depend on the policies.
func (t *policyTable) base(gateway netip.Addr) {
	for _, name := range []string{"selves", "isolated", "ingress", "egress"} {
		t.note(t.conn.AddSet(t.fixed(name), nil))
	}
	source, destination := loadNetwork(0, 12, 4), loadNetwork(0, 16, 4)
	lead := func(name string) []expr.Any {
		return []expr.Any{&expr.Lookup{SetName: name, SourceRegister: reg(0), DestRegister: 0, IsDestRegSet: true}}
	}
	known := ctHas(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
	// Without this, a connection that was cut would begin anew with the next packet of the side that may begin one.
	stray := join(loadProtocol(0), equal(0, []byte{unix.IPPROTO_TCP}),
		[]expr.Any{
			&expr.Payload{DestRegister: reg(0), Base: expr.PayloadBaseTransportHeader, Offset: tcpFlags, Len: 1},
			&expr.Bitwise{SourceRegister: reg(0), DestRegister: reg(0), Len: 1, Mask: []byte{tcpSYN | tcpACK}, Xor: []byte{0}},
		}, unequal(0, []byte{tcpSYN}))
	drop := verdict(expr.VerdictDrop)
	for _, c := range []struct {
		name string
		hook *nftables.ChainHook
	}{{"forward", nftables.ChainHookForward}, {"input", nftables.ChainHookInput}} {
		t.conn.AddChain(&nftables.Chain{Table: t.table, Name: c.name, Type: nftables.ChainTypeFilter, Hooknum: c.hook,
			Priority: nftables.ChainPriorityRef(-4)})
		t.rule(c.name, "", known, verdict(expr.VerdictAccept))
		if c.name == "forward" {
			t.rule(c.name, "a pod may always reach itself", loadNetwork(0, 12, 8), in("selves", 0), verdict(expr.VerdictAccept))
			t.rule(c.name, "", stray, destination, in("isolated", 0), drop)
		} else {
			a := gateway.As4()
			t.rule(c.name, "the proxy judges these itself", destination, equal(0, a[:]), ctHas(expr.CtKeySTATUS, statusDNAT), verdict(expr.VerdictAccept))
		}
		t.rule(c.name, "", stray, source, in("isolated", 0), drop)
		t.rule(c.name, "", source, lead("egress"))
		if c.name == "forward" {
			t.rule(c.name, "", destination, lead("ingress"))
		}
	}
}

// write brings the table from what it has to what is wanted, in one transaction, and reports whether that is a change.
func (p *Policies) write(want picture) (changed bool, err error) {
	conn, err := p.kernel.open()
	if err != nil {
		return false, err
	}
	t := &policyTable{conn: conn, table: &nftables.Table{Name: p.table, Family: family}}
	have := p.have
	if p.replace || !p.present {
		have, changed = picture{}, true
		conn.AddTable(t.table) // so that there is one to delete
		conn.DelTable(t.table)
		conn.AddTable(t.table)
		t.base(p.opt.Gateway)
	}
	for _, name := range slices.Sorted(maps.Keys(want.sets)) {
		if _, there := have.sets[name]; !there {
			changed = true
			t.peers(name, want.sets[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want.chains)) {
		if _, there := have.chains[name]; !there {
			changed = true
			t.chain(name, want.chains[name])
		}
	}
	changed = t.lead("ingress", have.in, want.in) || changed
	changed = t.lead("egress", have.out, want.out) || changed
	t.isolated(have, want)
	for _, name := range slices.Sorted(maps.Keys(have.chains)) {
		if _, wanted := want.chains[name]; !wanted {
			changed = true
			conn.DelChain(&nftables.Chain{Table: t.table, Name: name})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have.sets)) {
		if _, wanted := want.sets[name]; !wanted {
			conn.DelSet(&nftables.Set{Table: t.table, Name: name})
		}
	}
	if t.err != nil {
		p.kernel.close()
		return false, t.err
	}
	if !changed {
		return false, nil
	}
	return true, p.kernel.flush("change")
}

// peers writes a set of addresses.
func (t *policyTable) peers(name string, ranges []network.Range) {
	s := &nftables.Set{Table: t.table, Name: name, KeyType: nftables.TypeIPAddr, Interval: true}
	t.note(t.conn.AddSet(s, nil))
	var all []nftables.SetElement
	for _, r := range ranges {
		all = append(all, nftables.SetElement{Key: r.First.AsSlice()})
		if next := r.Last.Next(); next.IsValid() { // the last of all addresses needs no end
			all = append(all, nftables.SetElement{Key: next.AsSlice(), IntervalEnd: true})
		}
	}
	for part := range slices.Chunk(all, maxElements) {
		t.note(t.conn.SetAddElements(s, part))
	}
}

// chain writes what one direction of pods allows: it returns for that, and drops everything else.
func (t *policyTable) chain(name string, s *network.Side) {
	t.conn.AddChain(&nftables.Chain{Table: t.table, Name: name})
	load := loadNetwork(0, 12, 4)
	if name[:3] == "out" {
		load = loadNetwork(0, 16, 4)
	}
	allow := verdict(expr.VerdictReturn)
	for _, g := range s.Grants {
		var peers []expr.Any
		if !network.Everywhere(g.Peers) {
			peers = join(load, in(setName(g.Peers), 0))
		}
		if len(g.Ports) == 0 {
			t.rule(name, "", peers, allow)
		}
		for _, p := range g.Ports {
			match := join(loadProtocol(0), equal(0, []byte{protocols[p.Protocol]}))
			if p.First > 0 || p.Last < 65535 {
				match = join(match, []expr.Any{
					&expr.Payload{DestRegister: reg(0), Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
					&expr.Range{Op: expr.CmpOpEq, Register: reg(0), FromData: port(int32(p.First))[:2], ToData: port(int32(p.Last))[:2]}})
			}
			t.rule(name, "", match, peers, allow)
		}
	}
	t.rule(name, "", verdict(expr.VerdictDrop))
}

// lead changes which chains pods lead to.
func (t *policyTable) lead(name string, have, want map[netip.Addr]string) (changed bool) {
	s := t.fixed(name)
	element := func(a netip.Addr, chain string) nftables.SetElement {
		return nftables.SetElement{Key: a.AsSlice(), VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
	}
	var gone, come []nftables.SetElement
	for _, a := range slices.SortedFunc(maps.Keys(have), netip.Addr.Compare) {
		if want[a] != have[a] {
			gone = append(gone, element(a, have[a]))
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(want), netip.Addr.Compare) {
		if want[a] != have[a] {
			come = append(come, element(a, want[a]))
		}
	}
	t.exchange(s, gone, come)
	return len(gone)+len(come) > 0
}

// isolated changes the sets of all pods that are isolated in a direction.
func (t *policyTable) isolated(have, want picture) {
	all := func(p picture) map[netip.Addr]bool {
		out := map[netip.Addr]bool{}
		for a := range p.in {
			out[a] = true
		}
		for a := range p.out {
			out[a] = true
		}
		return out
	}
	before, after := all(have), all(want)
	for _, s := range []*nftables.Set{t.fixed("isolated"), t.fixed("selves")} {
		element := func(a netip.Addr) nftables.SetElement {
			if s.Name == "selves" {
				return nftables.SetElement{Key: slices.Concat(a.AsSlice(), a.AsSlice())}
			}
			return nftables.SetElement{Key: a.AsSlice()}
		}
		var gone, come []nftables.SetElement
		for _, a := range slices.SortedFunc(maps.Keys(before), netip.Addr.Compare) {
			if !after[a] {
				gone = append(gone, element(a))
			}
		}
		for _, a := range slices.SortedFunc(maps.Keys(after), netip.Addr.Compare) {
			if !before[a] {
				come = append(come, element(a))
			}
		}
		t.exchange(s, gone, come)
	}
}

func (t *policyTable) exchange(s *nftables.Set, gone, come []nftables.SetElement) {
	for part := range slices.Chunk(gone, maxElements) {
		t.note(t.conn.SetDeleteElements(s, part))
	}
	for part := range slices.Chunk(come, maxElements) {
		t.note(t.conn.SetAddElements(s, part))
	}
}

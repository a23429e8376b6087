package networking

import (
	"fmt"
	"net/netip"
	"slices"
)

// Allocate returns an address that is not in used: the lowest that was not handed out lately, or,
// when there is no such, the free one that was handed out the longest time ago. used must hold the
// address of every pod that exists, as its labels say; addresses of pods that are about to be
// created belong there too.
func (n *Network) Allocate(used []netip.Addr) (netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	addr, ok := choose(n.opt.CIDR, n.engine, used, n.recent)
	if !ok {
		return netip.Addr{}, fmt.Errorf("pod network %s has no free address left: all %d of %s are in use: delete pods or configure a larger subnet",
			n.opt.Bridge, capacity(n.opt.CIDR, n.engine), n.opt.CIDR)
	}
	n.recent = slices.DeleteFunc(n.recent, func(a netip.Addr) bool { return a == addr })
	n.recent = append(n.recent, addr)
	if keep := min(capacity(n.opt.CIDR, n.engine)/2, 1024); len(n.recent) > keep {
		n.recent = slices.Delete(n.recent, 0, len(n.recent)-keep)
	}
	return addr, nil
}

// choose returns the lowest address of subnet that is not the network's, the gateway's, the
// broadcast address, in engine, in used or in recent; without such, the first of recent that is not used.
func choose(subnet, engine netip.Prefix, used, recent []netip.Addr) (netip.Addr, bool) {
	taken := make(map[netip.Addr]bool, len(used)+len(recent))
	for _, a := range used {
		taken[a] = true
	}
	avoid := make(map[netip.Addr]bool, len(recent))
	for _, a := range recent {
		avoid[a] = true
	}
	last := broadcast(subnet)
	for a := subnet.Addr().Next().Next(); a.Less(last) && subnet.Contains(a); a = a.Next() {
		if engine.Contains(a) {
			break // the engine's range is the end of the subnet
		}
		if !taken[a] && !avoid[a] {
			return a, true
		}
	}
	for _, a := range recent {
		if !taken[a] && subnet.Contains(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// engineRange is the last 256 addresses of the subnet, or its last quarter when that is less.
func engineRange(subnet netip.Prefix) netip.Prefix {
	bits := max(subnet.Bits()+2, 24)
	return netip.PrefixFrom(broadcast(subnet), bits).Masked()
}

// capacity is the number of addresses that Allocate can give at the same time: all but the engine's,
// the network's and the gateway's.
func capacity(subnet, engine netip.Prefix) int {
	return 1<<(subnet.Addr().BitLen()-subnet.Bits()) - 1<<(engine.Addr().BitLen()-engine.Bits()) - 2
}

// broadcast returns the highest address of an IPv4 prefix.
func broadcast(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

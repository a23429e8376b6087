package routing

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// forgetFlows removes the UDP flows of changed Services that go to who is no endpoint any more, or to nobody because
// there was no endpoint when they began. A flow lasts as long as packets come, and the kernel does not choose anew for
// it. TCP connections end by themselves.
func (r *Routes) forgetFlows(c *change) error {
	frontends := make(map[netip.AddrPort]map[netip.AddrPort]bool)
	ports := make(map[uint16]map[netip.AddrPort]bool)
	for _, f := range c.flows {
		if f.address.IsValid() {
			frontends[netip.AddrPortFrom(f.address, f.port)] = f.to
		} else {
			ports[f.port] = f.to
		}
	}
	if len(frontends)+len(ports) == 0 {
		return nil
	}
	stale := func(flow *netlink.ConntrackFlow) bool {
		if flow.Forward.Protocol != unix.IPPROTO_UDP {
			return false
		}
		to, ok := endOf(flow.Forward.DstIP, flow.Forward.DstPort)
		if !ok {
			return false
		}
		at, ok := endOf(flow.Reverse.SrcIP, flow.Reverse.SrcPort)
		if !ok {
			return false
		}
		if live, ok := frontends[to]; ok {
			return !live[at] && (at != to || len(live) > 0)
		}
		// A node port is at any address of the host; who is the end of a flow without translation may be anybody.
		live, ok := ports[to.Port()]
		return ok && !live[at] && at != to
	}
	_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, flowFilter(stale))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("forget UDP flows to endpoints that are gone: %w", err)
	}
	return nil
}

// membarrierGlobal waits until everything that ran in the kernel at the call has passed a quiescent state; package
// unix does not have it.
const membarrierGlobal = 1 << 0

// forgetUntranslated removes what the kernel knows of connections to Services that began while there was no table. The
// kernel decides with the first packet whose connection is translated: without this, also the packets that are sent again
// would go where nobody is. Outside of the cluster addresses somebody may have answered before there was the
// Service, so only connections without an answer are meant there.
func (r *Routes) forgetUntranslated() error {
	// A packet that passed the rules before they were there becomes known to the kernel when it has left. Packets are
	// on their way within an RCU read section, so this waits for those. Where the kernel cannot, one of them may be
	// refused.
	_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0)
	lost := func(flow *netlink.ConntrackFlow) bool {
		to, ok := endOf(flow.Forward.DstIP, flow.Forward.DstPort)
		at, ok2 := endOf(flow.Reverse.SrcIP, flow.Reverse.SrcPort)
		if !ok || !ok2 || at != to || !to.Addr().Is4() {
			return false
		}
		if r.opt.Ranges.ClusterIPs.Contains(to.Addr()) {
			return true
		}
		tcp, ok := flow.ProtoInfo.(*netlink.ProtoInfoTCP)
		if !ok || tcp.State != conntrackSynSent {
			return false
		}
		a := to.Addr().As4()
		_, served := r.ledger.shared[elementKey{services, key(a[:], word(unix.IPPROTO_TCP), port(int32(to.Port())))}]
		return served
	}
	_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, flowFilter(lost))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("forget connections to Services that began without routes: %w", err)
	}
	return nil
}

// conntrackSynSent is the kernel's number of the state of a TCP connection that nobody has answered; package unix does
// not have it.
const conntrackSynSent = 1

type flowFilter func(*netlink.ConntrackFlow) bool

func (f flowFilter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool { return f(flow) }

func endOf(ip []byte, port uint16) (netip.AddrPort, bool) {
	a, ok := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port), ok
}

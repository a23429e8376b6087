package networking

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// podInterface is the name of the interface inside a pod.
const podInterface = "eth0"

// ensureBridge makes the bridge exist, be up, have the gateway's address, and hold all our links.
// The engine made it together with its network; only a bridge that somebody deleted is made here.
// The engine's firewall rules name the bridge, so they fit the new one.
func (n *Network) ensureBridge() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(n.opt.Bridge)
	if notFound(err) {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{
			Name:         n.opt.Bridge,
			MTU:          n.opt.MTU,
			HardwareAddr: hardwareAddr(n.gateway), // fixed, or the kernel would take one of its ports'
		}}
		if err := h.LinkAdd(bridge); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("create bridge %s: %w", n.opt.Bridge, err)
		}
		link, err = h.LinkByName(n.opt.Bridge)
	}
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", n.opt.Bridge, err)
	}
	if link.Type() != "bridge" {
		return fmt.Errorf("the interface %s is a %s, not a bridge: rename it or configure another name for the pod network", n.opt.Bridge, link.Type())
	}
	if err := ensureAddress(h, link, netip.PrefixFrom(n.gateway, n.opt.CIDR.Bits())); err != nil {
		return err
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		if err := h.LinkSetUp(link); err != nil {
			return fmt.Errorf("set bridge %s up: %w", n.opt.Bridge, err)
		}
	}
	ours, err := n.links(h)
	if err != nil {
		return err
	}
	for _, l := range ours {
		if err := n.plug(h, l, link.Attrs().Index); err != nil {
			return err
		}
	}
	return nil
}

// Attach gives the network namespace of process pid the pod's interface: eth0 with address ip,
// joined to the bridge, and the default route through it. When the namespace is wired already as
// it should be, nothing changes. The process must be the pod's sandbox, with a network namespace of its own.
func (n *Network) Attach(ctx context.Context, pid int, uid string, ip netip.Addr) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !n.opt.CIDR.Contains(ip) {
		return fmt.Errorf("attach pod %s: the address %s is outside of the pods' subnet %s", uid, ip, n.opt.CIDR)
	}
	if err := n.attach(pid, uid, ip); err != nil {
		return fmt.Errorf("attach pod %s with address %s: %w", uid, ip, err)
	}
	return nil
}

// wiring is what a pod is wired with: its network namespace, the netlink of both sides, and the bridge.
type wiring struct {
	ns        netns.NsHandle
	host, pod *netlink.Handle
	bridge    netlink.Link
}

// open opens the wiring of the pod whose sandbox is process pid. Close it after use.
func (n *Network) open(pid int) (w wiring, err error) {
	if w.ns, err = openNamespace(pid); err != nil {
		return w, err
	}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.host, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return w, fmt.Errorf("open netlink: %w", err)
	}
	if w.pod, err = netlink.NewHandleAt(w.ns, unix.NETLINK_ROUTE); err != nil {
		return w, fmt.Errorf("open netlink in the pod's namespace: %w", err)
	}
	if w.bridge, err = w.host.LinkByName(n.opt.Bridge); err != nil {
		return w, fmt.Errorf("find bridge %s: %w", n.opt.Bridge, err)
	}
	return w, nil
}

func (w *wiring) close() {
	for _, h := range []*netlink.Handle{w.pod, w.host} {
		if h != nil {
			h.Close()
		}
	}
	w.ns.Close()
}

func (n *Network) attach(pid int, uid string, ip netip.Addr) error {
	w, err := n.open(pid)
	if err != nil {
		return err
	}
	defer w.close()
	ns, host, pod, bridge := w.ns, w.host, w.pod, w.bridge
	name := n.Link(uid)
	inside, err := pod.LinkByName(podInterface)
	outside, hostErr := host.LinkByName(name)
	if err != nil && !notFound(err) {
		return fmt.Errorf("find %s in the pod: %w", podInterface, err)
	}
	if hostErr != nil && !notFound(hostErr) {
		return fmt.Errorf("find %s: %w", name, hostErr)
	}
	if err != nil || hostErr != nil || !paired(inside, outside) {
		// A half, or the pair of a namespace that was replaced, is of no use.
		if hostErr == nil {
			if err := deleteLink(host, outside); err != nil {
				return err
			}
		} else if err == nil {
			return fmt.Errorf("the pod has an interface %s that is not ours", podInterface)
		}
		if err := n.addPair(host, ns, name, uid, ip); err != nil {
			return err
		}
		if inside, err = pod.LinkByName(podInterface); err != nil {
			return fmt.Errorf("find %s in the pod: %w", podInterface, err)
		}
		if outside, err = host.LinkByName(name); err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
	}
	if alias := n.alias(uid); outside.Attrs().Alias != alias {
		if err := host.LinkSetAlias(outside, alias); err != nil {
			return fmt.Errorf("label the link %s: %w", name, err)
		}
	}
	if err := n.plug(host, outside, bridge.Attrs().Index); err != nil {
		return err
	}
	return n.configure(pod, inside, ip)
}

// addPair makes the veth pair, with the peer born inside the pod's namespace.
func (n *Network) addPair(host *netlink.Handle, ns netns.NsHandle, name, uid string, ip netip.Addr) error {
	pair := &netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: name, MTU: n.opt.MTU, TxQLen: -1},
		PeerName:         podInterface,
		PeerNamespace:    netlink.NsFd(ns),
		PeerMTU:          uint32(n.opt.MTU),
		PeerHardwareAddr: hardwareAddr(ip),
	}
	if err := host.LinkAdd(pair); err != nil {
		return fmt.Errorf("create the link %s: %w", name, err)
	}
	return nil
}

// plug puts the host's end on the bridge and sets it up.
func (n *Network) plug(host *netlink.Handle, l netlink.Link, bridge int) error {
	name := l.Attrs().Name
	if l.Attrs().MasterIndex != bridge {
		if err := host.LinkSetMasterByIndex(l, bridge); err != nil {
			return fmt.Errorf("put %s on bridge %s: %w", name, n.opt.Bridge, err)
		}
	}
	// A connection of a pod to a Service that it is an endpoint of comes back to it. Where bridged packets pass
	// the host's firewall, that happens on the bridge, which by itself returns nothing to where it came from.
	if err := host.LinkSetHairpin(l, true); err != nil {
		return fmt.Errorf("let %s return packets to where they came from: %w", name, err)
	}
	if l.Attrs().Flags&net.FlagUp == 0 {
		if err := host.LinkSetUp(l); err != nil {
			return fmt.Errorf("set %s up: %w", name, err)
		}
	}
	return nil
}

// configure sets the pod's end up, with its address and route.
func (n *Network) configure(pod *netlink.Handle, eth netlink.Link, ip netip.Addr) error {
	lo, err := pod.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo in the pod: %w", err)
	}
	if lo.Attrs().Flags&net.FlagUp == 0 {
		if err := pod.LinkSetUp(lo); err != nil {
			return fmt.Errorf("set lo up in the pod: %w", err)
		}
	}
	if eth.Attrs().MTU != n.opt.MTU {
		if err := pod.LinkSetMTU(eth, n.opt.MTU); err != nil {
			return fmt.Errorf("set the MTU of %s in the pod: %w", podInterface, err)
		}
	}
	return n.address(pod, eth, ip)
}

// address gives the pod's end its address, and the host as the only way to everything, to other pods too: the host
// translates the addresses of Services, and has to see the packets of both directions. An address with the subnet's
// length, as the engine and earlier versions gave it, is replaced without interrupting a connection.
func (n *Network) address(pod *netlink.Handle, eth netlink.Link, ip netip.Addr) error {
	if err := ensureAddress(pod, eth, netip.PrefixFrom(ip, ip.BitLen())); err != nil {
		return err
	}
	if eth.Attrs().Flags&net.FlagUp == 0 {
		if err := pod.LinkSetUp(eth); err != nil {
			return fmt.Errorf("set %s up in the pod: %w", podInterface, err)
		}
	}
	route := &netlink.Route{LinkIndex: eth.Attrs().Index, Gw: n.gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK)}
	if err := pod.RouteReplace(route); err != nil {
		return fmt.Errorf("set the pod's default route through %s: %w", n.gateway, err)
	}
	have, err := whole(func() ([]netlink.Addr, error) { return pod.AddrList(eth, netlink.FAMILY_V4) })
	if err != nil {
		return fmt.Errorf("list the addresses of %s: %w", eth.Attrs().Name, err)
	}
	for i := range have {
		if ones, bits := have[i].Mask.Size(); ones != bits && have[i].IP.Equal(ip.AsSlice()) {
			if err := pod.AddrDel(eth, &have[i]); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				return fmt.Errorf("remove the address %s from %s: %w", have[i].IPNet, eth.Attrs().Name, err)
			}
		}
	}
	return nil
}

// Adopt changes a pod that the engine wired to this network so that it is as one that Attach wired: its packets to
// other pods go through the host. When it is so already nothing changes. The process must be the pod's sandbox.
func (n *Network) Adopt(ctx context.Context, pid int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := n.adopt(pid); err != nil {
		return fmt.Errorf("adopt the network of process %d: %w", pid, err)
	}
	return nil
}

func (n *Network) adopt(pid int) error {
	w, err := n.open(pid)
	if err != nil {
		return err
	}
	defer w.close()
	host, pod, bridge := w.host, w.pod, w.bridge
	links, err := whole(pod.LinkList)
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, inside := range links {
		if inside.Type() != "veth" {
			continue
		}
		outside, err := host.LinkByIndex(inside.Attrs().ParentIndex)
		if err != nil || !paired(inside, outside) || outside.Attrs().MasterIndex != bridge.Attrs().Index {
			continue // of another network
		}
		have, err := whole(func() ([]netlink.Addr, error) { return pod.AddrList(inside, netlink.FAMILY_V4) })
		if err != nil {
			return fmt.Errorf("list the addresses of %s: %w", inside.Attrs().Name, err)
		}
		for _, a := range have {
			ip, ok := netip.AddrFromSlice(a.IP.To4())
			if !ok || !n.opt.CIDR.Contains(ip) {
				continue
			}
			if err := n.plug(host, outside, bridge.Attrs().Index); err != nil {
				return err
			}
			return n.address(pod, inside, ip)
		}
	}
	return fmt.Errorf("it has no interface on bridge %s with an address of %s", n.opt.Bridge, n.opt.CIDR)
}

// Detach removes a pod's link; a missing one is not an error.
func (n *Network) Detach(ctx context.Context, uid string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("detach pod %s: open netlink: %w", uid, err)
	}
	defer h.Close()
	l, err := h.LinkByName(n.Link(uid))
	if notFound(err) {
		return nil
	}
	if err == nil {
		err = deleteLink(h, l)
	}
	if err != nil {
		return fmt.Errorf("detach pod %s: %w", uid, err)
	}
	return nil
}

// Strays removes the links of pods that are not in keep and returns their names.
func (n *Network) Strays(ctx context.Context, keep []string) (removed []string, err error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("remove stray links: open netlink: %w", err)
	}
	defer h.Close()
	wanted := make(map[string]bool, len(keep))
	for _, uid := range keep {
		wanted[n.Link(uid)] = true
	}
	links, err := n.links(h)
	if err != nil {
		return nil, fmt.Errorf("remove stray links: %w", err)
	}
	var errs []error
	for _, l := range links {
		if wanted[l.Attrs().Name] {
			continue
		}
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			break
		}
		if err := deleteLink(h, l); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, l.Attrs().Name)
	}
	if err := errors.Join(errs...); err != nil {
		return removed, fmt.Errorf("remove stray links: %w", err)
	}
	return removed, nil
}

// links returns the host's ends of this network's links: both name and alias say so.
func (n *Network) links(h *netlink.Handle) ([]netlink.Link, error) {
	all, err := whole(h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var ours []netlink.Link
	for _, l := range all {
		if l.Type() == "veth" && strings.HasPrefix(l.Attrs().Name, n.linkPrefix()) && strings.HasPrefix(l.Attrs().Alias, n.alias("")) {
			ours = append(ours, l)
		}
	}
	return ours, nil
}

// paired reports whether the two links are the ends of one veth pair.
func paired(inside, outside netlink.Link) bool {
	return inside.Type() == "veth" && outside.Type() == "veth" &&
		inside.Attrs().ParentIndex == outside.Attrs().Index &&
		outside.Attrs().ParentIndex == inside.Attrs().Index
}

func ensureAddress(h *netlink.Handle, l netlink.Link, want netip.Prefix) error {
	family := netlink.FAMILY_V4
	if want.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	have, err := whole(func() ([]netlink.Addr, error) { return h.AddrList(l, family) })
	if err != nil {
		return fmt.Errorf("list the addresses of %s: %w", l.Attrs().Name, err)
	}
	ipnet := &net.IPNet{IP: want.Addr().AsSlice(), Mask: net.CIDRMask(want.Bits(), want.Addr().BitLen())}
	for _, a := range have {
		if a.IPNet.String() == ipnet.String() {
			return nil
		}
	}
	if err := h.AddrAdd(l, &netlink.Addr{IPNet: ipnet}); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add the address %s to %s: %w", want, l.Attrs().Name, err)
	}
	return nil
}

func deleteLink(h *netlink.Handle, l netlink.Link) error {
	if err := h.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) && !notFound(err) {
		return fmt.Errorf("delete the interface %s: %w", l.Attrs().Name, err)
	}
	return nil
}

// openNamespace opens the network namespace of a process and makes sure that it is not ours.
func openNamespace(pid int) (netns.NsHandle, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open the network namespace of process %d: %w", pid, err)
	}
	var theirs, own unix.Stat_t
	err = unix.Fstat(fd, &theirs)
	if err == nil {
		err = unix.Stat("/proc/self/ns/net", &own)
	}
	if err == nil && theirs.Dev == own.Dev && theirs.Ino == own.Ino {
		err = errors.New("it is the host's")
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("use the network namespace of process %d: %w", pid, err)
	}
	return netns.NsHandle(fd), nil
}

func notFound(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing)
}

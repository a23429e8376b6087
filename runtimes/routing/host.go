package routing

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// routeProtocol marks the route of the cluster addresses as ours.
const routeProtocol = 0x66

// hostState is what the bridge has for the Services.
type hostState struct {
	// addresses are those that were put on the bridge, and index is the bridge's as it was then.
	addresses []netip.Addr
	index     int
}

// ensureHost gives the bridge what the routes need: the addresses of load balancers, so that the host answers for
// them, the route of the cluster addresses, so that a host without a default route reaches them, and its settings.
func (r *Routes) ensureHost() error {
	want := r.balancerAddresses()
	if r.host.index != 0 && slices.Equal(want, r.host.addresses) {
		return nil
	}
	_, err := r.repairHost(want)
	return err
}

// balancerAddresses are the addresses that the bridge has to have.
func (r *Routes) balancerAddresses() []netip.Addr {
	want := make([]netip.Addr, 0, len(r.ledger.addresses))
	for a := range r.ledger.addresses {
		want = append(want, a)
	}
	slices.SortFunc(want, netip.Addr.Compare)
	return want
}

// repairHost makes the bridge as it should be and says what was not.
func (r *Routes) repairHost(want []netip.Addr) (changed []string, err error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	bridge, err := h.LinkByName(r.opt.Bridge)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) && r.ledger.size() == 0 {
		// Nobody needs it: a network without pods has no bridge yet, or none any more.
		r.host.index = 0
		return nil, nil
	}
	if err != nil {
		r.host.index = 0
		return nil, fmt.Errorf("find bridge %s: %w", r.opt.Bridge, err)
	}
	var errs []error
	for _, step := range []func() ([]string, error){
		func() ([]string, error) { return r.ensureSettings() },
		func() ([]string, error) { return r.ensureAddresses(h, bridge, want) },
		func() ([]string, error) { return r.ensureRoute(h, bridge) },
	} {
		did, err := step()
		changed, errs = append(changed, did...), append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		r.host.index = 0
		return changed, err
	}
	r.host = hostState{addresses: want, index: bridge.Attrs().Index}
	return changed, nil
}

// ensureAddresses puts the addresses on the bridge and takes those away that are of the ranges for load balancers and
// not wanted any more.
func (r *Routes) ensureAddresses(h *netlink.Handle, bridge netlink.Link, want []netip.Addr) (changed []string, err error) {
	have, err := whole(func() ([]netlink.Addr, error) { return h.AddrList(bridge, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list the addresses of %s: %w", r.opt.Bridge, err)
	}
	var errs []error
	var present []netip.Addr
	for i := range have {
		a, _ := netip.AddrFromSlice(have[i].IP.To4())
		ones, _ := have[i].Mask.Size()
		if ones != 32 || a == r.opt.Gateway {
			continue
		}
		switch {
		case slices.Contains(want, a):
			present = append(present, a)
		case r.balancerAddress(a):
			if err := h.AddrDel(bridge, &have[i]); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				return changed, fmt.Errorf("remove the address %s from %s: %w", a, r.opt.Bridge, err)
			}
			changed = append(changed, "address "+a.String())
		}
	}
	for _, a := range want {
		if slices.Contains(present, a) {
			continue
		}
		ip := &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)}
		if err := h.AddrAdd(bridge, &netlink.Addr{IPNet: ip}); err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, r.concerns(a, fmt.Errorf("add the address %s to %s: %w", a, r.opt.Bridge, err)))
			continue
		}
		changed = append(changed, "address "+a.String())
	}
	return changed, errors.Join(errs...)
}

// serviceError concerns one Service.
type serviceError struct {
	service object.Ref
	error
}

// Service names the Service that the error is about.
func (e *serviceError) Service() object.Ref { return e.service }

func (e *serviceError) Unwrap() error { return e.error }

// concerns makes an error about an address one about each Service that has the address.
func (r *Routes) concerns(a netip.Addr, err error) error {
	var errs []error
	for _, route := range r.have {
		if u := r.units[route.Ref]; u != nil && slices.Contains(u.addresses, a) {
			errs = append(errs, &serviceError{route.Ref, fmt.Errorf("Service %s/%s: %w", route.Ref.Namespace, route.Ref.Name, err)})
		}
	}
	if len(errs) == 0 {
		return err
	}
	return errors.Join(errs...)
}

func (r *Routes) balancerAddress(a netip.Addr) bool {
	return slices.ContainsFunc(r.opt.Ranges.LoadBalancers, func(p plan.AddressRange) bool { return p.Contains(a) })
}

// ensureRoute makes the cluster addresses go to the bridge. Packets are translated before they would leave there. One
// that is not, since somebody has just flushed the table, is lost, and sent again when the guard has written the table:
// the route leads over an address that the host need not ask for. If it asked, nobody would answer, and the connection
// would fail because its host is unreachable.
func (r *Routes) ensureRoute(h *netlink.Handle, bridge netlink.Link) (changed []string, err error) {
	did, err := r.ensureNeighbour(h, bridge)
	if err != nil {
		return nil, err
	}
	if did {
		changed = append(changed, "neighbour "+r.opt.Ranges.ClusterIPs.Addr().String())
	}
	want := r.route(bridge)
	have, err := whole(func() ([]netlink.Route, error) {
		return h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: want.Dst}, netlink.RT_FILTER_DST)
	})
	if err != nil {
		return changed, fmt.Errorf("read the route of the cluster addresses %s: %w", want.Dst, err)
	}
	for _, h := range have {
		if h.LinkIndex == want.LinkIndex && h.Protocol == routeProtocol && h.Src.Equal(want.Src) && h.Gw.Equal(want.Gw) {
			return changed, nil
		}
		if h.Protocol != routeProtocol || h.LinkIndex != want.LinkIndex {
			return changed, fmt.Errorf("the cluster addresses %s are routed elsewhere on this machine (%s): choose another range for Services", want.Dst, h)
		}
	}
	if err := h.RouteReplace(want); err != nil {
		return changed, fmt.Errorf("route the cluster addresses %s to %s: %w", want.Dst, r.opt.Bridge, err)
	}
	return append(changed, "route "+want.Dst.String()), nil
}

// ensureNeighbour tells the kernel the hardware address of who the cluster addresses are routed over: the bridge's own,
// to which a bridge delivers nothing that the host itself sends.
func (r *Routes) ensureNeighbour(h *netlink.Handle, bridge netlink.Link) (changed bool, err error) {
	want := r.neighbour(bridge)
	have, err := whole(func() ([]netlink.Neigh, error) { return h.NeighList(bridge.Attrs().Index, netlink.FAMILY_V4) })
	if err != nil {
		return false, fmt.Errorf("list the neighbours on %s: %w", r.opt.Bridge, err)
	}
	for _, n := range have {
		if n.IP.Equal(want.IP) && n.State == want.State && bytes.Equal(n.HardwareAddr, want.HardwareAddr) {
			return false, nil
		}
	}
	if err := h.NeighSet(want); err != nil {
		return false, fmt.Errorf("set the neighbour %s on %s: %w", want.IP, r.opt.Bridge, err)
	}
	return true, nil
}

func (r *Routes) neighbour(bridge netlink.Link) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: bridge.Attrs().Index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT,
		IP: r.opt.Ranges.ClusterIPs.Addr().AsSlice(), HardwareAddr: bridge.Attrs().HardwareAddr,
	}
}

func (r *Routes) route(bridge netlink.Link) *netlink.Route {
	range4 := r.opt.Ranges.ClusterIPs
	return &netlink.Route{
		LinkIndex: bridge.Attrs().Index,
		Dst:       &net.IPNet{IP: range4.Addr().AsSlice(), Mask: net.CIDRMask(range4.Bits(), 32)},
		Gw:        range4.Addr().AsSlice(),
		Flags:     int(netlink.FLAG_ONLINK),

		Src:      r.opt.Gateway.AsSlice(),
		Protocol: routeProtocol,
	}
}

// ensureSettings sets what the kernel has for the bridge: it forwards; it does not tell pods, which reach each other
// through the host on purpose, that there is a shorter way; and it takes loopback addresses where node ports are
// served on the loopback address.
func (r *Routes) ensureSettings() (changed []string, err error) {
	// Redirects are sent when the interface or all say so; other interfaces go on as they themselves say. Those that
	// the table only dropped would take the place of answers that a connection is refused, since both are few.
	bridge := r.opt.Bridge + "/"
	want := []struct{ name, value string }{
		{bridge + "forwarding", "1"}, {bridge + "send_redirects", "0"}, {"all/send_redirects", "0"}, {bridge + "route_localnet", "0"}}
	if r.opt.LocalhostNodePorts {
		want[3].value = "1"
	}
	for _, s := range want {
		did, err := setting(filepath.Join("/proc/sys/net/ipv4/conf", s.name), s.value)
		if err != nil {
			return changed, err
		}
		if did {
			changed = append(changed, "setting "+s.name)
		}
	}
	return changed, nil
}

func setting(file, value string) (changed bool, err error) {
	have, err := os.ReadFile(file)
	if err == nil && strings.TrimSpace(string(have)) == value {
		return false, nil
	}
	if err == nil {
		err = os.WriteFile(file, []byte(value), 0)
	}
	if err != nil {
		return false, fmt.Errorf("set the kernel's setting to %s: %w", value, err)
	}
	return true, nil
}

// removeHost takes the addresses and the route away again. A bridge that is gone had them with it.
func (r *Routes) removeHost() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	bridge, err := h.LinkByName(r.opt.Bridge)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", r.opt.Bridge, err)
	}
	_, err = r.ensureAddresses(h, bridge, nil)
	if e := h.RouteDel(r.route(bridge)); e != nil && !errors.Is(e, unix.ESRCH) {
		err = errors.Join(err, fmt.Errorf("remove the route of the cluster addresses: %w", e))
	}
	if e := h.NeighDel(r.neighbour(bridge)); e != nil && !errors.Is(e, unix.ENOENT) {
		err = errors.Join(err, fmt.Errorf("remove the neighbour of the cluster addresses: %w", e))
	}
	r.host = hostState{}
	_, e := setting(filepath.Join("/proc/sys/net/ipv4/conf", r.opt.Bridge, "route_localnet"), "0")
	return errors.Join(err, e)
}

// whole asks the kernel for a list again while something changed as it was being read.
func whole[T any](dump func() (T, error)) (T, error) {
	for i := 1; ; i++ {
		all, err := dump()
		if i == 20 || !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
}

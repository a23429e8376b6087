package networking

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// DefaultSubnets are the subnets that FreeSubnet is usually asked for: 10.90.0.0/16 to 10.99.0.0/16.
func DefaultSubnets() []netip.Prefix {
	var out []netip.Prefix
	for i := range 10 {
		out = append(out, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(90 + i), 0, 0}), 16))
	}
	return out
}

// FreeSubnet returns the first of candidates that overlaps with no route of this machine. A bridge of
// that name that is there already decides: its subnet stays.
func FreeSubnet(bridge string, candidates []netip.Prefix) (netip.Prefix, error) {
	return freeSubnet(bridge, candidates, func(r netlink.Route, _ netip.Prefix) bool {
		return r.Scope == netlink.SCOPE_LINK && r.Protocol == unix.RTPROT_KERNEL
	})
}

// FreeServiceSubnet does the same for the cluster addresses of Services. A route to one of candidates over the bridge of
// that name decides: it was made for them.
func FreeServiceSubnet(bridge string, candidates []netip.Prefix) (netip.Prefix, error) {
	return freeSubnet(bridge, candidates, func(r netlink.Route, p netip.Prefix) bool {
		return r.Protocol != unix.RTPROT_KERNEL && slices.Contains(candidates, p)
	})
}

// freeSubnet returns the subnet of a route over the bridge that is its own, or else the first free candidate.
func freeSubnet(bridge string, candidates []netip.Prefix, own func(netlink.Route, netip.Prefix) bool) (netip.Prefix, error) {
	routes, err := whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, unix.AF_INET) })
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("read the routes of this machine: %w", err)
	}
	index := -1
	if l, err := netlink.LinkByName(bridge); err == nil {
		index = l.Attrs().Index
	}
	var used []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		addr, ok := netip.AddrFromSlice(r.Dst.IP.To4())
		bits, _ := r.Dst.Mask.Size()
		if !ok || bits == 0 {
			continue // the default route is everywhere
		}
		p := netip.PrefixFrom(addr, bits)
		if r.LinkIndex == index && own(r, p) {
			return p, nil
		}
		used = append(used, p)
	}
	return firstFree(candidates, used)
}

func firstFree(candidates, used []netip.Prefix) (netip.Prefix, error) {
next:
	for _, c := range candidates {
		for _, u := range used {
			if c.Overlaps(u) {
				continue next
			}
		}
		return c, nil
	}
	return netip.Prefix{}, errors.New("every subnet that is tried is in use on this machine: choose one with network.cidr (pods) or services.cidr (Services) in the settings")
}

// HostAddresses returns the address of this machine that packets leave from: 127.0.0.1 without a route
// to anywhere. Nothing is sent.
func HostAddresses() []string {
	anywhere := net.IPv4(192, 0, 2, 1) // of the range for documentation
	if routes, err := netlink.RouteGet(anywhere); err == nil && len(routes) > 0 && routes[0].Src != nil {
		return []string{routes[0].Src.String()}
	}
	return []string{"127.0.0.1"}
}

// DefaultServiceSubnets are the subnets that FreeSubnet is asked for on behalf of Services: 10.80.0.0/16 to 10.89.0.0/16.
func DefaultServiceSubnets() []netip.Prefix {
	var out []netip.Prefix
	for i := range 10 {
		out = append(out, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(80 + i), 0, 0}), 16))
	}
	return out
}

// Package networking gives pods their addresses: it wires a pod's network namespace to a bridge,
// chooses addresses, and writes a pod's hosts and resolv.conf files.
//
// The bridge and its firewall and masquerading rules belong to a network of the engine, because
// the engine drops forwarded packets of bridges that it does not know. Everything else, from the
// veth pair to the routes, is made here through netlink, which takes a few milliseconds where the
// engine takes many times that. See docs/adr/0002-pod-network.md.
package networking

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
)

// NetworkMaker makes networks of the engine. A bridge network with a fixed bridge name is meant.
type NetworkMaker interface {
	// EnsureNetwork makes the network name exist with that bridge, subnet and gateway; the engine
	// hands out addresses of ipRange only. When it exists already as asked for nothing happens; when
	// something else has the name, the bridge or the subnet, that is runtimes.ErrConflict.
	EnsureNetwork(ctx context.Context, name, bridge string, subnet, ipRange netip.Prefix, gateway netip.Addr) error
	// RemoveNetwork removes the network; a missing one is not an error.
	RemoveNetwork(ctx context.Context, name string) error
}

// Options say which network pods are on.
type Options struct {
	// Bridge is the name of the bridge and of the engine's network, at most 15 bytes. It tells the
	// installations on one machine apart.
	Bridge string
	// CIDR is the pods' subnet, for example 10.88.0.0/16; IPv4, from /12 to /26. The first address is
	// the gateway's; the last part (see EngineRange) is for the engine's own use.
	CIDR netip.Prefix
	// MTU of the pods' interfaces; 0 means 1500.
	MTU int
}

// Network is the network of the pods of one node. Its methods may be called from any goroutine.
type Network struct {
	maker   NetworkMaker
	opt     Options
	gateway netip.Addr
	engine  netip.Prefix

	mu     sync.Mutex
	recent []netip.Addr // handed out lately, the latest last
}

// New checks the options; it changes nothing on the machine.
func New(maker NetworkMaker, o Options) (*Network, error) {
	if o.Bridge == "" || len(o.Bridge) > 15 || strings.ContainsAny(o.Bridge, "/: \t\n") || o.Bridge == "." || o.Bridge == ".." {
		return nil, fmt.Errorf("pod network: %q cannot be the name of a bridge: use 1 to 15 bytes without '/', ':' and spaces", o.Bridge)
	}
	if !o.CIDR.IsValid() || !o.CIDR.Addr().Is4() || o.CIDR.Bits() < 12 || o.CIDR.Bits() > 26 {
		return nil, fmt.Errorf("pod network: %s cannot be the pods' subnet: use an IPv4 prefix from /12 to /26, for example 10.88.0.0/16", o.CIDR)
	}
	if o.MTU == 0 {
		o.MTU = 1500
	}
	if o.MTU < 576 || o.MTU > 65535 {
		return nil, fmt.Errorf("pod network: an MTU of %d is not possible: use 576 to 65535", o.MTU)
	}
	o.CIDR = o.CIDR.Masked()
	return &Network{
		maker:   maker,
		opt:     o,
		gateway: o.CIDR.Addr().Next(),
		engine:  engineRange(o.CIDR),
	}, nil
}

// Name returns the name of the engine's network, which pods that publish ports join.
func (n *Network) Name() string { return n.opt.Bridge }

// Gateway returns the address of the host on the bridge.
func (n *Network) Gateway() netip.Addr { return n.gateway }

// EngineRange returns the part of the subnet from which the engine, not Allocate, gives addresses.
func (n *Network) EngineRange() netip.Prefix { return n.engine }

// Ensure makes the network exist: the engine's network, the bridge with its address, and the pods'
// links on it. It may be called at any time and repairs what is gone, for example a bridge that was
// deleted by hand.
func (n *Network) Ensure(ctx context.Context) error {
	if err := n.maker.EnsureNetwork(ctx, n.opt.Bridge, n.opt.Bridge, n.opt.CIDR, n.engine, n.gateway); err != nil {
		return fmt.Errorf("ensure pod network %s: %w", n.opt.Bridge, err)
	}
	if err := n.ensureBridge(); err != nil {
		return fmt.Errorf("ensure pod network %s: %w", n.opt.Bridge, err)
	}
	return nil
}

// Destroy removes every pod's link and the engine's network. Pods that still run lose their network.
func (n *Network) Destroy(ctx context.Context) error {
	_, err := n.Strays(ctx, nil)
	if e := n.maker.RemoveNetwork(ctx, n.opt.Bridge); e != nil {
		err = errors.Join(err, e)
	}
	if err != nil {
		return fmt.Errorf("remove pod network %s: %w", n.opt.Bridge, err)
	}
	return nil
}

// Link returns the name of the host's end of a pod's link: at most 15 bytes, the same every time.
func (n *Network) Link(uid string) string { return n.linkPrefix() + hash(uid, 8) }

// linkPrefix is shared by all links of this network and by no other.
func (n *Network) linkPrefix() string { return "fl" + hash(n.opt.Bridge, 5) }

// alias is written on the host's end, so that a link is known to be ours by more than its name.
func (n *Network) alias(uid string) string { return "fairlead " + n.opt.Bridge + " " + uid }

func hash(s string, size int) string {
	sum := sha256.Sum256([]byte(s))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:size]
}

// hardwareAddr follows from the address, so that who remembers it for an address that is used
// again is still right.
func hardwareAddr(ip netip.Addr) net.HardwareAddr {
	if ip.Is4() {
		b := ip.As4()
		return net.HardwareAddr{0x0a, 0x58, b[0], b[1], b[2], b[3]}
	}
	sum := sha256.Sum256(ip.AsSlice())
	return net.HardwareAddr{0x0a, 0x59, sum[0], sum[1], sum[2], sum[3]}
}

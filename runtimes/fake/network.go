package fake

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// Network wires pods in memory.
type Network struct {
	engine *Engine
	name   string
	subnet netip.Prefix

	mu      sync.Mutex
	ensure  int
	links   map[string]Link
	adopted []int
	fail    map[string]error
}

// Link is what connects a pod.
type Link struct {
	PID int
	IP  netip.Addr
}

// NewNetwork returns a network without links. With an engine, a process can be wired only while it
// runs there, and links go with their processes.
func NewNetwork(e *Engine) *Network {
	return &Network{
		engine: e, name: "fake0", subnet: netip.MustParsePrefix("10.99.0.0/24"),
		links: map[string]Link{}, fail: map[string]error{},
	}
}

// Fail makes calls of a method fail until it is called with nil: "Ensure", "Allocate", "Attach", "Detach" or "Strays".
func (n *Network) Fail(method string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fail[method] = err
}

// Name returns the name of the engine's network.
func (n *Network) Name() string { return n.name }

// Ensure counts its calls.
func (n *Network) Ensure(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.broken(ctx, "Ensure"); err != nil {
		return err
	}
	n.ensure++
	return nil
}

// Allocate returns the lowest address that is not in used.
func (n *Network) Allocate(used []netip.Addr) (netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.broken(context.Background(), "Allocate"); err != nil {
		return netip.Addr{}, err
	}
	for a := n.subnet.Addr().Next().Next(); n.subnet.Contains(a.Next()); a = a.Next() {
		if !slices.Contains(used, a) {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("the network %s has no free address left", n.subnet)
}

// Attach wires a process that runs.
func (n *Network) Attach(ctx context.Context, pid int, uid string, ip netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.broken(ctx, "Attach"); err != nil {
		return err
	}
	if pid == 0 || n.engine != nil && !n.engine.Running(pid) {
		return fmt.Errorf("attach pod %s: no process %d: %w", uid, pid, runtimes.ErrNotFound)
	}
	for other, l := range n.links {
		if l.IP == ip && other != uid && (n.engine == nil || n.engine.Running(l.PID)) {
			return fmt.Errorf("attach pod %s: the address %s is pod %s's: %w", uid, ip, other, runtimes.ErrConflict)
		}
	}
	n.links[uid] = Link{PID: pid, IP: ip}
	return nil
}

// Adopt changes a process that the engine wired.
func (n *Network) Adopt(ctx context.Context, pid int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.broken(ctx, "Adopt"); err != nil {
		return err
	}
	if pid == 0 || n.engine != nil && !n.engine.Running(pid) {
		return fmt.Errorf("adopt: no process %d: %w", pid, runtimes.ErrNotFound)
	}
	if !slices.Contains(n.adopted, pid) {
		n.adopted = append(n.adopted, pid)
	}
	return nil
}

// Adopted are the processes that Adopt was called for, in that order.
func (n *Network) Adopted() []int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.adopted)
}

// Detach removes a pod's link.
func (n *Network) Detach(ctx context.Context, uid string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.broken(ctx, "Detach"); err != nil {
		return err
	}
	delete(n.links, uid)
	return nil
}

// Strays removes the links of pods that are not in keep.
func (n *Network) Strays(ctx context.Context, keep []string) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.broken(ctx, "Strays"); err != nil {
		return nil, err
	}
	var removed []string
	for _, uid := range slices.Sorted(maps.Keys(n.links)) {
		if !slices.Contains(keep, uid) {
			delete(n.links, uid)
			removed = append(removed, uid)
		}
	}
	return removed, nil
}

// Links returns the links that were made and not removed, by the pod's UID.
func (n *Network) Links() map[string]Link {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.links)
}

// Ensured returns how often Ensure succeeded.
func (n *Network) Ensured() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ensure
}

func (n *Network) broken(ctx context.Context, method string) error {
	if err := n.fail[method]; err != nil {
		return fmt.Errorf("network: %s: %w", method, err)
	}
	return ctx.Err()
}

// Maker makes networks of an engine in memory.
type Maker struct {
	mu       sync.Mutex
	networks map[string]MadeNetwork
}

// MadeNetwork is a network of an engine.
type MadeNetwork struct {
	Bridge          string
	Subnet, IPRange netip.Prefix
	Gateway         netip.Addr
}

// EnsureNetwork makes a network; one that differs, or that has the bridge or overlaps, is runtimes.ErrConflict.
func (m *Maker) EnsureNetwork(ctx context.Context, name, bridge string, subnet, ipRange netip.Prefix, gateway netip.Addr) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	want := MadeNetwork{bridge, subnet, ipRange, gateway}
	for other, have := range m.networks {
		if other == name && have == want {
			return nil
		}
		if other == name || have.Bridge == bridge || have.Subnet.Overlaps(subnet) {
			return fmt.Errorf("ensure network %s: the network %s is in the way: %w", name, other, runtimes.ErrConflict)
		}
	}
	if m.networks == nil {
		m.networks = map[string]MadeNetwork{}
	}
	m.networks[name] = want
	return ctx.Err()
}

// RemoveNetwork removes a network.
func (m *Maker) RemoveNetwork(ctx context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.networks, name)
	return ctx.Err()
}

// Networks returns the networks that exist, by name.
func (m *Maker) Networks() map[string]MadeNetwork {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.networks)
}

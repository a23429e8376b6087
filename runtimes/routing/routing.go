// Package routing makes the kernel route the connections of Services: one nftables table, written
// over netlink, that sends each new connection to an endpoint. The daemon is not on the path of a
// packet: what the kernel has goes on without it.
//
// The shape of the table is fixed (schema.go). What changes are elements of data maps: a frontend
// (address, protocol and port) leads to a class, a class is a chain that all frontends with as many
// slots and the same way of balancing share, and frontend and slot lead to an endpoint. So neither the
// cost of a packet nor that of a change grows with the number of Services.
//
// compile.go says what elements a Route means, ledger.go what changes between two states,
// kernel.go carries it out as one transaction, and guard.go notices what others change. Around the
// table, host.go keeps the addresses, routes and settings of the bridge, forward.go the one rule that
// lets connections through the engine's firewall, and conntrack.go forgets UDP flows to endpoints that
// are gone. See docs/adr for why it is like this.
package routing

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Options say which network the routes are for.
type Options struct {
	// Bridge is the bridge that the pods are on. It names the table too, so that the installations on one
	// machine do not meet.
	Bridge string
	// Pods is the pods' subnet, IPv4, and Gateway the host's address on the bridge.
	Pods    netip.Prefix
	Gateway netip.Addr
	// Node is this node, for the Local traffic policies.
	Node plan.NodeID
	// Ranges are where the addresses of Services come from.
	Ranges plan.ServiceRanges
	// LocalhostNodePorts makes node ports answer on the host's loopback address too. It lets the bridge
	// accept loopback addresses, which the table then keeps away from pods.
	LocalhostNodePorts bool
	// Proxy returns where the proxy accepts the connections of one port of a Service that is balanced by
	// least connections: an address of the host that pods reach, as the gateway's. Without an answer the
	// kernel balances such a port at random. It may be nil.
	Proxy func(service object.Ref, port int32, protocol corev1.Protocol) (netip.AddrPort, bool)
	// Repaired is told when something that others had changed was put right, and when that did not work. It
	// may be nil.
	Repaired func(what string, err error)
}

// Stats are figures about the routes.
type Stats struct {
	// Routes are Services with an address, Endpoints the addresses behind them that get new connections,
	// Elements all entries of the table's maps and sets.
	Routes, Endpoints, Elements int
	// Sets is how often Set was called, LastChanges how many entries the last one added and removed, and
	// LastDuration how long it took.
	Sets         int
	LastChanges  int
	LastDuration time.Duration
	// Repairs is how often something was put right that others had changed.
	Repairs int
}

// Routes are the routes of one installation on this machine. It implements executor.Registry.
type Routes struct {
	opt   Options
	table string

	// ending is held by Set, and by what ends the watching, which itself takes the turn.
	ending sync.Mutex
	// turn is held during a call that changes the machine. It is a channel so that waiting ends with ctx.
	turn chan struct{}

	// All below belongs to who has the turn.
	have     plan.Routes
	units    map[object.Ref]*unit
	ledger   ledger
	classes  classes
	targets  numbers
	kernel   kernel
	host     hostState
	forward  forward
	replace  bool // the kernel's table is unknown: write it anew
	proxying bool // false after Close: the kernel balances what the proxy did
	closed   bool
	// destroyed: nothing is on the machine, and nothing is put there before there is something to serve.
	destroyed bool

	guard     *guard // nil before the first Set
	stopGuard context.CancelFunc
	watching  sync.WaitGroup

	mu    sync.Mutex
	stats Stats
}

// New checks the options. Nothing on the machine changes before Set.
func New(o Options) (*Routes, error) {
	switch {
	case o.Bridge == "" || len(o.Bridge) > 15 || strings.ContainsAny(o.Bridge, "/: \t\n"):
		return nil, fmt.Errorf("service routes: %q cannot be the name of a bridge", o.Bridge)
	case !o.Pods.IsValid() || !o.Pods.Addr().Is4():
		return nil, fmt.Errorf("service routes: %s cannot be the pods' subnet: use an IPv4 prefix", o.Pods)
	case !o.Pods.Contains(o.Gateway):
		return nil, fmt.Errorf("service routes: the gateway %s is not in the pods' subnet %s", o.Gateway, o.Pods)
	case !o.Ranges.ClusterIPs.IsValid() || !o.Ranges.ClusterIPs.Addr().Is4():
		return nil, fmt.Errorf("service routes: %s cannot be the range of cluster addresses: use an IPv4 prefix", o.Ranges.ClusterIPs)
	case o.Ranges.ClusterIPs.Overlaps(o.Pods):
		return nil, fmt.Errorf("service routes: the range of cluster addresses %s overlaps the pods' subnet %s", o.Ranges.ClusterIPs, o.Pods)
	}
	o.Pods, o.Ranges.ClusterIPs = o.Pods.Masked(), o.Ranges.ClusterIPs.Masked()
	r := &Routes{
		opt: o, table: "fairlead-" + o.Bridge,
		turn: make(chan struct{}, 1), replace: true, proxying: true,
	}
	r.clear()
	r.kernel.table = r.table
	return r, nil
}

// clear forgets everything that is known of the kernel's table.
func (r *Routes) clear() {
	r.have = nil
	r.units = make(map[object.Ref]*unit)
	r.ledger = newLedger()
	r.classes = newClasses()
	r.targets = newNumbers()
}

// Name returns "routes".
func (r *Routes) Name() string { return "routes" }

// Set makes exactly these routes be in force: one transaction of the kernel, in which an established connection
// stays where it is. The first call replaces the table that another process left. After an error of the kernel's table
// the next call writes everything anew. What concerns one Service only, as an address that cannot be given to the
// bridge, is an error with a method Service in the tree of what is returned; everything else is in force then.
func (r *Routes) Set(ctx context.Context, routes plan.Routes) error {
	r.ending.Lock()
	defer r.ending.Unlock()
	if err := r.take(ctx); err != nil {
		return err
	}
	defer r.release()
	if r.closed {
		return errors.New("set service routes: they were closed")
	}
	if r.destroyed && len(routes) == 0 {
		return nil
	}
	r.destroyed = false
	if err := r.set(routes); err != nil {
		return fmt.Errorf("set service routes: %w", err)
	}
	if err := r.startGuard(); err != nil {
		return fmt.Errorf("set service routes: %w", err)
	}
	return nil
}

func (r *Routes) set(routes plan.Routes) error {
	began := time.Now()
	if r.replace {
		r.clear()
	}
	c := r.change(routes)
	write := func() error {
		if r.replace {
			return r.kernel.replace(r.schema, c, r.stays)
		}
		return r.kernel.apply(c)
	}
	var err error
	if len(c.add)+len(c.remove) > loudChange {
		err = r.guard.deaf(write)
	} else {
		err = write()
	}
	if err != nil {
		r.replace = true
		return err
	}
	first := r.replace
	r.replace = false
	var errs []error
	if first { // before anything that takes longer: until then, connections that lead nowhere get no answer
		errs = append(errs, r.forgetUntranslated())
		if err := r.kernel.write(refuseStrays); err != nil {
			r.replace = true
			return errors.Join(append(errs, err)...)
		}
	}
	errs = append(errs, r.ensureHost(), r.ensureForward(first), r.forgetFlows(c), r.forgetClients(c))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Sets++
	r.stats.LastChanges, r.stats.LastDuration = len(c.add)+len(c.remove), time.Since(began)
	r.stats.Routes, r.stats.Endpoints, r.stats.Elements = len(r.units), r.ledger.endpoints, r.ledger.size()
	return nil
}

// Stats returns the figures of now.
func (r *Routes) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// Close stops watching and leaves the routes in force. The kernel takes over what the proxy balanced.
func (r *Routes) Close() error {
	r.ending.Lock()
	defer r.ending.Unlock()
	_ = r.take(context.Background())
	var err error
	if !r.closed {
		r.closed = true
		r.proxying = false
		if !r.replace {
			err = r.set(r.have)
		}
	}
	r.release()
	r.endGuard()
	r.kernel.close()
	return err
}

// Destroy removes everything that Set made, those of an earlier process included: the table, the addresses and the
// route of the bridge, and the rule in the engine's firewall. The next Set that has routes makes it anew.
func (r *Routes) Destroy(ctx context.Context) error {
	r.ending.Lock()
	defer r.ending.Unlock()
	r.endGuard()
	if err := r.take(ctx); err != nil {
		return err
	}
	defer r.release()
	err := errors.Join(r.kernel.destroy(), r.removeHost(), r.forward.remove(r.opt.Bridge))
	r.kernel.close()
	r.clear()
	r.replace, r.destroyed = true, true
	r.host, r.forward = hostState{}, forward{}
	if err != nil {
		return fmt.Errorf("remove service routes: %w", err)
	}
	return nil
}

func (r *Routes) take(ctx context.Context) error {
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Routes) release() { <-r.turn }

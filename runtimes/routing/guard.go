package routing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// How often the guard looks at what it is told nothing about: every second at what costs next to nothing (the
// addresses, route and settings of the bridge, and that the table is there), more seldom at the firewall, for which a
// program runs. Of changes of nftables, which the iptables command makes too, the kernel tells.
const (
	lookEvery     = time.Second
	firewallEvery = 30 * lookEvery
	// settleTime is how long the guard waits for further changes before it looks at the firewall.
	settleTime = 200 * time.Millisecond
	// restTime is the least time between two repairs, so that who changes the table again and again gets no
	// processor time for it.
	restTime = 100 * time.Millisecond
	// loudChange is how many elements a change has of which the guard does not want to be told.
	loudChange = 5000
)

// guard is told of changes of nftables.
type guard struct {
	conn *netlink.Conn
	own  func(port uint32) bool
	name []byte

	// told has room for one: something is to be looked at.
	told chan struct{}
	// touched: another changed our table; lost: the kernel could not tell all; foreign: another changed anything.
	touched, lost, foreign atomic.Bool
}

// newGuard begins to listen.
func newGuard(table string, own func(port uint32) bool) (*guard, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("listen to changes of nftables: %w", err)
	}
	g := &guard{conn: conn, own: own, name: []byte(table + "\x00"), told: make(chan struct{}, 1)}
	if err := errors.Join(conn.SetReadBuffer(8<<20), conn.JoinGroup(unix.NFNLGRP_NFTABLES)); err != nil {
		conn.Close()
		return nil, fmt.Errorf("listen to changes of nftables: %w", err)
	}
	return g, nil
}

// deaf does something without being told of it, and then looks whether anything was missed.
func (g *guard) deaf(do func() error) error {
	if g == nil {
		return do()
	}
	_ = g.conn.LeaveGroup(unix.NFNLGRP_NFTABLES)
	err := do()
	if e := g.conn.JoinGroup(unix.NFNLGRP_NFTABLES); e != nil {
		err = errors.Join(err, fmt.Errorf("listen to changes of nftables: %w", e))
	}
	g.lost.Store(true)
	g.tell()
	return err
}

func (g *guard) tell() {
	select {
	case g.told <- struct{}{}:
	default:
	}
}

// listen reads what the kernel tells until the connection is closed.
func (g *guard) listen() {
	for {
		messages, err := g.conn.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			g.lost.Store(true)
			g.tell()
			continue
		case err != nil:
			return
		}
		news := false
		for _, m := range messages {
			if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || g.own(m.Header.PID) {
				continue
			}
			news = true
			if g.ours(m.Data) {
				g.touched.Store(true)
			}
		}
		if news {
			g.foreign.Store(true)
			g.tell()
		}
	}
}

// ours reports whether a message is about our table. In each kind but that of a generation, whose first attribute is a
// number, the first attribute is the table's name.
func (g *guard) ours(data []byte) bool {
	const header = 4
	if len(data) < header {
		return false
	}
	attributes, err := netlink.NewAttributeDecoder(data[header:])
	if err != nil {
		return false
	}
	for attributes.Next() {
		if attributes.Type() == unix.NFTA_TABLE_NAME {
			return bytes.Equal(attributes.Bytes(), g.name)
		}
	}
	return false
}

// startGuard begins to watch after the first Set.
func (r *Routes) startGuard() error {
	if r.stopGuard != nil {
		return nil
	}
	g, err := newGuard(r.table, r.kernel.own)
	if err != nil {
		return err
	}
	r.guard = g
	ctx, stop := context.WithCancel(context.Background())
	r.stopGuard = stop
	context.AfterFunc(ctx, func() { g.conn.Close() })
	r.watching.Go(g.listen)
	r.watching.Go(func() { r.watch(ctx, g) })
	return nil
}

// endGuard stops watching and waits for it. Nobody has the turn.
func (r *Routes) endGuard() {
	if r.stopGuard == nil {
		return
	}
	r.stopGuard()
	r.watching.Wait()
	r.guard, r.stopGuard = nil, nil
}

// watch puts right what others change, until ctx ends.
func (r *Routes) watch(ctx context.Context, g *guard) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var lastFirewall time.Time
	var trouble string // told last, so that what lasts is told once
	for {
		settle := time.Duration(0)
		select {
		case <-ctx.Done():
			return
		case <-g.told:
			settle = restTime
		case <-tick.C:
		}
		if settle > 0 && !g.touched.Load() {
			settle = settleTime
		}
		if g.touched.Load() {
			settle = 0
		}
		if !sleep(ctx, settle) || r.take(ctx) != nil {
			return
		}
		var changed []string
		var errs []error
		note := func(what []string, err error) { changed, errs = append(changed, what...), append(errs, err) }
		if !r.closed {
			note(r.repairTable(g))
			note(r.repairHost(r.balancerAddresses()))
			if g.foreign.Swap(false) || time.Since(lastFirewall) > firewallEvery {
				lastFirewall = time.Now()
				note(r.forward.repair(r.opt.Bridge))
			}
		}
		r.release()
		err := errors.Join(errs...)
		switch {
		case err == nil:
			trouble = ""
		case err.Error() == trouble:
			err = nil
		default:
			trouble = err.Error()
		}
		r.tell(changed, err)
		if len(changed) > 0 && !sleep(ctx, restTime) {
			return
		}
	}
}

// tell counts repairs and tells of them.
func (r *Routes) tell(changed []string, err error) {
	if len(changed) == 0 && err == nil {
		return
	}
	if len(changed) > 0 {
		r.mu.Lock()
		r.stats.Repairs++
		r.mu.Unlock()
	}
	if r.opt.Repaired != nil {
		r.opt.Repaired(strings.Join(changed, ", "), err)
	}
}

// repairTable writes the table anew when another changed it.
func (r *Routes) repairTable(g *guard) (changed []string, err error) {
	broken := r.replace
	if g.touched.Swap(false) {
		broken = true
	}
	if !broken {
		objects, err := r.kernel.objects()
		if err != nil {
			return nil, err
		}
		broken = !r.hasObjects(objects)
	}
	if g.lost.Swap(false) && !broken {
		same, err := r.intact()
		if err != nil {
			return nil, err
		}
		broken = !same
	}
	if !broken {
		return nil, nil
	}
	routes := r.have
	r.replace = true
	if err := r.set(routes); err != nil {
		return nil, err
	}
	return []string{"table ip " + r.table}, nil
}

// hasObjects reports whether this is how many chains and sets the table should have.
func (r *Routes) hasObjects(n uint32) bool {
	want := uint32(r.kernel.fixed + len(r.classes.of))
	return n == want || bits.ReverseBytes32(n) == want // the library reads it in the wrong order
}

// intact compares the elements that the kernel has with those that it should have.
func (r *Routes) intact() (bool, error) {
	want := make(map[element]bool, r.ledger.size())
	for k, c := range r.ledger.shared {
		want[element{k, c.val, c.last}] = true
	}
	for _, u := range r.units {
		for _, e := range u.own {
			want[e] = true
		}
	}
	have, err := r.kernel.elements()
	if err != nil {
		return false, err
	}
	return len(have) == len(want) && !slices.ContainsFunc(have, func(e element) bool { return !want[e] }), nil
}

// sleep waits and reports whether ctx is still there.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

package routing

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/policies/network"
)

// PolicyOptions say which pods the network policies are for.
type PolicyOptions struct {
	// Bridge is the bridge that the pods are on. It names the table too.
	Bridge string
	// Gateway is the host's address on the bridge, where the proxy takes connections to Services.
	Gateway netip.Addr
	// Repaired is told when something that others had changed was put right, and when that did not work. It may be nil.
	Repaired func(what string, err error)
}

// Policies enforce network policies on the pods of one node, in an nftables table of their own. What the kernel has goes on without
// the daemon.
//
// Each pod that is isolated in a direction leads to a chain, which returns for what is allowed and drops everything else. Chains, and
// the sets of addresses in them, are named by a digest of what they say: replicas share one, and a change writes only what is new.
type Policies struct {
	opt   PolicyOptions
	table string

	ending sync.Mutex
	// turn is held during a call that changes the machine.
	turn chan struct{}

	// All below belongs to who has the turn.
	kernel  kernel
	have    picture
	model   network.Model
	replace bool // the kernel's table is unknown: write it anew
	present bool // there is a table
	cutDue  bool // connections that are not allowed any more may be open
	closed  bool

	guard     *guard
	stopGuard context.CancelFunc
	watching  sync.WaitGroup
}

// NewPolicies checks the options. Nothing on the machine changes before Set.
func NewPolicies(o PolicyOptions) (*Policies, error) {
	if o.Bridge == "" || len(o.Bridge) > 15 || strings.ContainsAny(o.Bridge, "/: \t\n") {
		return nil, fmt.Errorf("network policies: %q cannot be the name of a bridge", o.Bridge)
	}
	p := &Policies{opt: o, table: "fairlead-" + o.Bridge + "-policy", turn: make(chan struct{}, 1), replace: true}
	p.kernel.table = p.table
	return p, nil
}

// picture is what the table holds that follows from the policies.
type picture struct {
	// sets are the addresses, chains the sides, by their names.
	sets   map[string][]network.Range
	chains map[string]*network.Side
	// in and out lead from a pod's address to its chain.
	in, out map[netip.Addr]string
}

// draw makes the picture of a model.
func draw(m network.Model) picture {
	p := picture{sets: map[string][]network.Range{}, chains: map[string]*network.Side{}, in: map[netip.Addr]string{}, out: map[netip.Addr]string{}}
	for i := range m.Pods {
		pod := &m.Pods[i]
		if pod.Ingress != nil {
			p.in[pod.Address] = p.chain("in", pod.Ingress)
		}
		if pod.Egress != nil {
			p.out[pod.Address] = p.chain("out", pod.Egress)
		}
	}
	return p
}

func (p *picture) chain(way string, s *network.Side) string {
	var text strings.Builder
	for _, g := range s.Grants {
		set := ""
		if !network.Everywhere(g.Peers) {
			set = setName(g.Peers)
			p.sets[set] = g.Peers
		}
		fmt.Fprintln(&text, set, g.Ports)
	}
	name := way + "-" + digest(text.String())
	p.chains[name] = s
	return name
}

func setName(rs []network.Range) string { return "peers-" + digest(fmt.Sprint(rs)) }

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:]))[:16]
}

// Present reports whether the kernel has a table, of an earlier process too.
func (p *Policies) Present(ctx context.Context) (bool, error) {
	if err := p.take(ctx); err != nil {
		return false, err
	}
	defer p.release()
	n, err := p.kernel.objects()
	return n > 0, err
}

// Set makes exactly this be enforced, in one transaction of the kernel: there is no moment in which anything is open that is closed
// before and after. The first call replaces the table that another process left. Connections that were open and may not be any
// more are cut. Without a policy nothing is on the machine.
func (p *Policies) Set(ctx context.Context, m network.Model) error {
	p.ending.Lock()
	defer p.ending.Unlock()
	if err := p.take(ctx); err != nil {
		return err
	}
	defer p.release()
	if p.closed {
		return errors.New("enforce network policies: they were closed")
	}
	if err := p.set(m); err != nil {
		return fmt.Errorf("enforce network policies: %w", err)
	}
	if p.present {
		if err := p.startGuard(); err != nil {
			return fmt.Errorf("enforce network policies: %w", err)
		}
	}
	return nil
}

func (p *Policies) set(m network.Model) error {
	want := draw(m)
	if len(m.Pods) == 0 {
		n, err := uint32(1), error(nil)
		if p.replace {
			n, err = p.kernel.objects()
		}
		if err != nil {
			return err
		}
		if n > 0 && (p.replace || p.present) {
			if err := p.kernel.destroy(); err != nil {
				p.replace = true
				return err
			}
		}
		p.have, p.model, p.present, p.replace = want, m, false, false
		return nil
	}
	changed, err := p.write(want)
	if err != nil {
		p.replace = true
		return err
	}
	p.have, p.model, p.present, p.replace = want, m, true, false
	if p.cutDue = p.cutDue || changed; !p.cutDue {
		return nil
	}
	if err := p.cut(); err != nil {
		return err // the next Set tries again
	}
	p.cutDue = false
	return nil
}

// cut makes the kernel forget the connections that may not be begun any more. What comes of them later is taken for something new, and
// dropped: TCP that does not begin with SYN, from or to an isolated pod, never begins a connection.
func (p *Policies) cut() error {
	own := map[netip.Addr]bool{}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("read the addresses of this machine: %w", err)
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				own[ip.Unmap()] = true
			}
		}
	}
	forbidden := func(flow *netlink.ConntrackFlow) bool {
		from, ok := endOf(flow.Forward.SrcIP, flow.Forward.SrcPort)
		to, ok2 := endOf(flow.Reverse.SrcIP, flow.Reverse.SrcPort)
		asked, ok3 := endOf(flow.Forward.DstIP, flow.Forward.DstPort)
		if !ok || !ok2 || !ok3 || own[from.Addr()] || from.Addr().IsLoopback() {
			return false
		}
		if to.Addr() == p.opt.Gateway && asked.Addr() != to.Addr() {
			return false // it goes through the proxy
		}
		packet := network.Packet{From: from.Addr(), To: to.Addr(), Port: to.Port()}
		for name, number := range protocols {
			if number == flow.Forward.Protocol {
				packet.Protocol = name
			}
		}
		return !p.model.Allows(packet)
	}
	_, err = netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, flowFilter(forbidden))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cut connections that are not allowed any more: %w", err)
	}
	return nil
}

// Close stops watching and leaves everything in force.
func (p *Policies) Close() error {
	p.ending.Lock()
	defer p.ending.Unlock()
	_ = p.take(context.Background())
	p.closed = true
	p.release()
	p.endGuard()
	p.kernel.close()
	return nil
}

// Destroy removes everything that Set made, by an earlier process too. The next Set makes it anew.
func (p *Policies) Destroy(ctx context.Context) error {
	p.ending.Lock()
	defer p.ending.Unlock()
	p.endGuard()
	if err := p.take(ctx); err != nil {
		return err
	}
	defer p.release()
	err := p.kernel.destroy()
	p.kernel.close()
	p.have, p.model, p.present, p.replace = picture{}, network.Model{}, false, true
	if err != nil {
		return fmt.Errorf("remove network policies: %w", err)
	}
	return nil
}

func (p *Policies) take(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *Policies) release() { <-p.turn }

func (p *Policies) startGuard() error {
	if p.stopGuard != nil {
		return nil
	}
	g, err := newGuard(p.table, p.kernel.own)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	p.guard, p.stopGuard = g, stop
	context.AfterFunc(ctx, func() { g.conn.Close() })
	p.watching.Go(g.listen)
	p.watching.Go(func() { p.watch(ctx, g) })
	return nil
}

func (p *Policies) endGuard() {
	if p.stopGuard == nil {
		return
	}
	p.stopGuard()
	p.watching.Wait()
	p.guard, p.stopGuard = nil, nil
}

// watch writes the table anew when others have changed it, until ctx ends.
func (p *Policies) watch(ctx context.Context, g *guard) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	trouble := "" // told last, so that what lasts is told once
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.told:
		case <-tick.C:
		}
		if p.take(ctx) != nil {
			return
		}
		changed, err := p.repair(g)
		p.release()
		switch {
		case err == nil:
			trouble = ""
		case err.Error() == trouble:
			err = nil
		default:
			trouble = err.Error()
		}
		if (changed || err != nil) && p.opt.Repaired != nil {
			p.opt.Repaired("table ip "+p.table, err)
		}
		if changed && !sleep(ctx, restTime) {
			return
		}
	}
}

func (p *Policies) repair(g *guard) (changed bool, err error) {
	touched, lost := g.touched.Swap(false), g.lost.Swap(false)
	if p.closed || !p.present && !p.replace {
		return false, nil
	}
	if !touched && !lost && !p.replace {
		n, err := p.kernel.objects()
		if err != nil {
			return false, err
		}
		want := uint32(fixedPolicyObjects + len(p.have.sets) + len(p.have.chains))
		if n == want || bits.ReverseBytes32(n) == want { // the library reads it in the wrong order
			return false, nil
		}
	}
	p.replace = true
	return true, p.set(p.model)
}

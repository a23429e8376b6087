package settings

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead-dev/fairlead/plan"
)

// Services says where the addresses of Services come from.
type Services struct {
	// CIDR is the subnet of cluster addresses. Default: the first free one of 10.80.0.0/16 to 10.89.0.0/16.
	CIDR string `yaml:"cidr"`
	// NodePorts are the first and the last port of type NodePort, like 30000-32767, which is the default.
	NodePorts string `yaml:"nodePorts"`
	// LoadBalancers are the addresses of type LoadBalancer: single ones, ranges like 192.0.2.10-192.0.2.20, or subnets.
	// Default: the host's own.
	LoadBalancers []string `yaml:"loadBalancers"`
}

// DNS says how names are served to pods.
type DNS struct {
	// Disabled leaves pods with the host's name servers, or Network.Nameservers.
	Disabled bool `yaml:"disabled"`
	// Listen are further addresses to answer on, for the host: 127.0.0.53:5353. Pods are answered on their gateway.
	Listen []string `yaml:"listen"`
	// Domains are name servers for names below a domain: consul: [127.0.0.1:8600].
	Domains map[string][]string `yaml:"domains"`
	// TTL is how long the names of Services may be kept by who asked. Default 5s.
	TTL Duration `yaml:"ttl"`
}

const defaultNodePorts = "30000-32767"

// NodePortRange returns the first and the last port.
func (s Services) NodePortRange() (first, last int32, err error) {
	a, b, _ := strings.Cut(s.NodePorts, "-")
	from, err1 := strconv.ParseUint(strings.TrimSpace(a), 10, 16)
	to, err2 := strconv.ParseUint(strings.TrimSpace(b), 10, 16)
	if err1 != nil || err2 != nil || from == 0 || to < from {
		return 0, 0, fmt.Errorf("%q is not a range of ports: write it like %s", s.NodePorts, defaultNodePorts)
	}
	return int32(from), int32(to), nil //nolint:gosec // at most 65535
}

// LoadBalancerRanges returns the addresses of type LoadBalancer, sorted.
func (s Services) LoadBalancerRanges() ([]plan.AddressRange, error) {
	var out []plan.AddressRange
	for _, l := range s.LoadBalancers {
		r, err := addressRange(l)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b plan.AddressRange) int { return a.First.Compare(b.First) })
	for i := 1; i < len(out); i++ {
		if out[i].First.Compare(out[i-1].Last) <= 0 {
			return nil, fmt.Errorf("%s-%s and %s-%s overlap", out[i-1].First, out[i-1].Last, out[i].First, out[i].Last)
		}
	}
	return out, nil
}

func addressRange(s string) (plan.AddressRange, error) {
	wrong := fmt.Errorf("%q is no IPv4 address, range or subnet: write it like 192.0.2.10, 192.0.2.10-192.0.2.20 or 192.0.2.0/28", s)
	if p, err := netip.ParsePrefix(s); err == nil {
		if !p.Addr().Is4() || p.Bits() < 16 {
			return plan.AddressRange{}, wrong
		}
		p = p.Masked()
		last := p.Addr().As4()
		for i := p.Bits(); i < 32; i++ {
			last[i/8] |= 1 << (7 - i%8)
		}
		return plan.AddressRange{First: p.Addr(), Last: netip.AddrFrom4(last)}, nil
	}
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	first, err1 := netip.ParseAddr(strings.TrimSpace(from))
	last, err2 := netip.ParseAddr(strings.TrimSpace(to))
	if err1 != nil || err2 != nil || !first.Is4() || !last.Is4() || last.Less(first) {
		return plan.AddressRange{}, wrong
	}
	return plan.AddressRange{First: first, Last: last}, nil
}

// check adds what is wrong.
func (s Services) check(add func(key, format string, args ...any)) {
	if s.CIDR != "" {
		if p, err := netip.ParsePrefix(s.CIDR); err != nil || !p.Addr().Is4() || p.Bits() < 12 || p.Bits() > 28 {
			add("services.cidr", "%q is not an IPv4 subnet from /12 to /28: write it like 10.80.0.0/16", s.CIDR)
		}
	}
	if _, _, err := s.NodePortRange(); err != nil {
		add("services.nodePorts", "%v", err)
	}
	if _, err := s.LoadBalancerRanges(); err != nil {
		add("services.loadBalancers", "%v", err)
	}
}

// check adds what is wrong.
func (d DNS) check(add func(key, format string, args ...any)) {
	for _, l := range d.Listen {
		if _, err := netip.ParseAddrPort(l); err != nil {
			add("dns.listen", "%q is not an address with a port: write it like 127.0.0.1:53", l)
		}
	}
	for domain, servers := range d.Domains {
		if len(servers) == 0 {
			add("dns.domains", "%s has no name server", domain)
		}
		for _, s := range servers {
			if _, err := ServerAddress(s); err != nil {
				add("dns.domains", "%s: %v", domain, err)
			}
		}
	}
}

// ServerAddress returns the address of a name server; without a port that is 53.
func ServerAddress(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	if host, _, err := net.SplitHostPort(s); err == nil {
		if _, err := netip.ParseAddr(host); err == nil {
			return netip.ParseAddrPort(s)
		}
	}
	return netip.AddrPort{}, fmt.Errorf("%q is not the address of a name server: write it like 192.0.2.53 or 127.0.0.1:8600", s)
}

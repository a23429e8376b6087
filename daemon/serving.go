package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/fairlead-dev/fairlead/apply/executor"
	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/settings"
	"github.com/fairlead-dev/fairlead/daemon/store"
	"github.com/fairlead-dev/fairlead/daemon/telemetry"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes/consul"
	"github.com/fairlead-dev/fairlead/runtimes/names"
	"github.com/fairlead-dev/fairlead/runtimes/networking"
	"github.com/fairlead-dev/fairlead/runtimes/proxy"
	"github.com/fairlead-dev/fairlead/runtimes/routing"
)

// serving is what serves the Services of this machine. A part that is not there is nil.
type serving struct {
	proxy  *proxy.Proxy
	routes *routing.Routes
	names  *names.Server
	consul *consul.Registry
}

// How long a pod that stops waits at most for a registry to be without it. The kernel and the name server take
// milliseconds; Consul is another program, which may hang.
const (
	gate       = 5 * time.Second
	consulGate = 2 * time.Second
)

// registries are the parts in the order in which they are shown.
func (v serving) registries() []executor.Registered {
	var out []executor.Registered
	if v.proxy != nil {
		out = append(out, executor.Registered{Registry: v.proxy, Gate: gate})
	}
	if v.routes != nil {
		out = append(out, executor.Registered{Registry: v.routes, Gate: gate})
	}
	if v.names != nil {
		out = append(out, executor.Registered{Registry: v.names, Gate: gate})
	}
	if v.consul != nil {
		out = append(out, executor.Registered{Registry: v.consul, Gate: consulGate})
	}
	return out
}

// destroy removes what the parts left on the machine and elsewhere.
func (v serving) destroy(ctx context.Context) error {
	var errs []error
	if v.routes != nil {
		errs = append(errs, v.routes.Destroy(ctx))
	}
	if v.consul != nil {
		errs = append(errs, v.consul.Destroy(ctx))
	}
	return errors.Join(errs...)
}

// subnets are those that were chosen on this machine.
type subnets struct {
	Bridge   string       `json:"bridge"`
	CIDR     netip.Prefix `json:"cidr"`
	Services netip.Prefix `json:"services,omitzero"`
}

// subnets returns the subnets of pods and of Services. What was once chosen stays, so that addresses survive a
// restart of the machine.
func (s *System) subnets(bridge string) (pods, services netip.Prefix, err error) {
	file := filepath.Join(s.settings.StateDir, "network.json")
	var chosen subnets
	b, err := os.ReadFile(file)
	switch {
	case err == nil && json.Unmarshal(b, &chosen) == nil && chosen.Bridge == bridge:
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return pods, services, fmt.Errorf("read which subnets were chosen: %w", err)
	default:
		chosen = subnets{Bridge: bridge}
	}
	before := chosen
	if !chosen.CIDR.IsValid() && s.settings.Network.CIDR == "" {
		if chosen.CIDR, err = networking.FreeSubnet(bridge, networking.DefaultSubnets()); err != nil {
			return pods, services, err
		}
	}
	if !chosen.Services.IsValid() && s.settings.Services.CIDR == "" {
		if chosen.Services, err = networking.FreeServiceSubnet(bridge, networking.DefaultServiceSubnets()); err != nil {
			return pods, services, err
		}
	}
	if chosen != before && !s.readOnly {
		if b, err = json.Marshal(chosen); err != nil {
			return pods, services, err
		}
		if err := store.WriteFile(file, b); err != nil {
			return pods, services, err
		}
	}
	pods, services = chosen.CIDR, chosen.Services
	if c := s.settings.Network.CIDR; c != "" {
		if pods, err = netip.ParsePrefix(c); err != nil {
			return pods, services, err
		}
	}
	if c := s.settings.Services.CIDR; c != "" {
		if services, err = netip.ParsePrefix(c); err != nil {
			return pods, services, err
		}
	}
	if pods.Overlaps(services) {
		return pods, services, fmt.Errorf("the subnet of Services %s overlaps that of pods %s: choose another with services.cidr or network.cidr", services, pods)
	}
	return pods, services, nil
}

// ranges are where addresses of Services come from.
func (s *System) ranges(pods, services netip.Prefix, hostIPs []string) (plan.ServiceRanges, error) {
	r := plan.ServiceRanges{ClusterIPs: services, Pods: pods}
	var err error
	if r.NodePorts[0], r.NodePorts[1], err = s.settings.Services.NodePortRange(); err != nil {
		return r, err
	}
	if r.LoadBalancers, err = s.settings.Services.LoadBalancerRanges(); err != nil {
		return r, err
	}
	for _, ip := range hostIPs {
		if a, err := netip.ParseAddr(ip); err == nil {
			r.HostIPs = append(r.HostIPs, a)
		}
	}
	return r, nil
}

// validRanges are the ranges for plans that are never carried out: those of the settings, and the defaults.
func (s *System) validRanges() (plan.ServiceRanges, error) {
	pods, services := networking.DefaultSubnets()[0], networking.DefaultServiceSubnets()[0]
	for _, c := range []struct {
		to   *netip.Prefix
		from string
	}{{&pods, s.settings.Network.CIDR}, {&services, s.settings.Services.CIDR}} {
		if c.from == "" {
			continue
		}
		p, err := netip.ParsePrefix(c.from)
		if err != nil {
			return plan.ServiceRanges{}, err
		}
		*c.to = p
	}
	return s.ranges(pods, services, networking.HostAddresses())
}

// openServing makes what serves the Services.
func (s *System) openServing(bridge string, pods netip.Prefix, gateway netip.Addr, ranges plan.ServiceRanges) (v serving, err error) {
	v.proxy, err = proxy.New(proxy.Options{
		Address: gateway, Node: localNode, Allowed: s.policing.allows,
		OnTrouble: func(err error) { s.nodeTrouble(fmt.Errorf("balance by least connections: %w", err)) },
	})
	if err != nil {
		return v, err
	}
	s.closers = append(s.closers, v.proxy.Close) // after the routes, which lead to it until they are closed
	v.routes, err = routing.New(routing.Options{
		Bridge: bridge, Pods: pods, Gateway: gateway, Node: localNode, Ranges: ranges, LocalhostNodePorts: true,
		Proxy: v.proxy.Address, Repaired: s.routesRepaired,
	})
	if err != nil {
		return v, err
	}
	s.closers = append(s.closers, v.routes.Close)
	if !s.settings.DNS.Disabled {
		if v.names, err = s.openNames(pods, gateway, ranges); err != nil {
			return v, err
		}
		s.closers = append(s.closers, v.names.Close)
	}
	if s.settings.Consul != nil {
		o := s.settings.Consul.Options(s.settings.Installation)
		o.Node, o.HostIPs, o.Event = localNode, ranges.HostIPs, s.consulChanged
		if v.consul, err = consul.New(o); err != nil {
			return v, err
		}
		s.closers = append(s.closers, func() error { v.consul.Close(); return nil })
	}
	return v, nil
}

// openNames makes the name server of the pods, and of the host where that is asked for.
func (s *System) openNames(pods netip.Prefix, gateway netip.Addr, ranges plan.ServiceRanges) (*names.Server, error) {
	o := names.Options{
		Domain: s.settings.Network.ClusterDomain, TTL: time.Duration(s.settings.DNS.TTL),
		Pods: []netip.Prefix{pods}, Services: []netip.Prefix{ranges.ClusterIPs},
		Listen:  []names.Address{{AddrPort: netip.AddrPortFrom(gateway, 53)}},
		Domains: map[string][]netip.AddrPort{},
		OnTrouble: func(on netip.AddrPort, err error) {
			if err != nil {
				s.nodeTrouble(fmt.Errorf("serve names on %s: %w", on, err))
				return
			}
			s.log.Info().Str(telemetry.KeyNode, string(localNode)).Msgf("names are served on %s", on)
		},
	}
	for _, l := range s.settings.DNS.Listen {
		a, err := netip.ParseAddrPort(l)
		if err != nil {
			return nil, err
		}
		o.Listen = append(o.Listen, names.Address{AddrPort: a})
	}
	var err error
	if o.Upstreams, err = servers(s.settings.Network.Nameservers); err != nil {
		return nil, err
	}
	for domain, list := range s.settings.DomainServers() {
		if o.Domains[domain], err = servers(list); err != nil {
			return nil, err
		}
	}
	return names.New(o)
}

func servers(list []string) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for _, l := range list {
		a, err := settings.ServerAddress(l)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// figures are those of what serves the Services.
func (s *System) figures() telemetry.Serving {
	v := s.machine.serving
	out := telemetry.Serving{Routes: s.node.Routes(), Registries: s.node.Registries()}
	if v.routes != nil {
		k := v.routes.Stats()
		out.Kernel = &k
	}
	if v.proxy != nil {
		p := v.proxy.Stats()
		out.Proxy = &p
	}
	if v.names != nil {
		n := v.names.Stats()
		out.Names = &n
	}
	if v.consul != nil {
		c := v.consul.Stats()
		out.Consul = &c
	}
	return out
}

// routesRepaired keeps what others had changed.
func (s *System) routesRepaired(what string, err error) {
	if err != nil {
		s.nodeTrouble(fmt.Errorf("put the routes of Services right: %s: %w", what, err))
		return
	}
	s.log.Warn().Str(telemetry.KeyNode, string(localNode)).Msgf("the routes of Services were changed by others, and are right again: %s", what)
	s.keep(api.Event{Type: api.Warning, Reason: "RoutesRepaired", Node: localNode, Message: "the routes of Services were changed by others, and are right again: " + what})
}

// consulChanged keeps what changed between working and not.
func (s *System) consulChanged(c consul.Condition) {
	if c.Code == consul.Registered {
		s.log.Info().Str(telemetry.KeyNode, string(localNode)).Msg("Consul has everything that is registered")
		s.keep(api.Event{Type: api.Normal, Reason: "ConsulRegistered", Node: localNode, Message: "Consul has everything that is registered"})
		return
	}
	s.log.Warn().Str(telemetry.KeyNode, string(localNode)).Msgf("Consul: %s: %s", c.Code, c.Message)
	s.keep(api.Event{Type: api.Warning, Reason: "Consul" + string(c.Code), Node: localNode, Message: c.Message})
}

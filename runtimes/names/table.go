package names

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// table is all that is known of the cluster. It is immutable.
type table struct {
	routes     plan.Routes // what it was made from
	serial     uint32      // of the zone
	services   shards[service, *entry]
	addresses  shards[netip.Addr, []pointer]
	namespaces map[string]int // how many services each has
}

// service is a Service's namespace and name.
type service struct{ namespace, name string }

// pointer is the name of an address, and whose.
type pointer struct {
	of   *plan.Route
	name string
}

// entry is what is answered about one Service.
type entry struct {
	name     string // fully qualified
	external string // the name that the Service stands for, else empty
	// gone is a headless Service without any endpoint that is ready: its names do not exist.
	gone      bool
	addresses addresses
	hosts     map[string]*addresses           // endpoints by name
	ports     map[string]map[string][]*target // by _protocol and _port
}

// addresses are IPv4 and IPv6 addresses without duplicates.
type addresses struct{ v4, v6 []netip.Addr }

func (a *addresses) add(ip netip.Addr) {
	list := &a.v6
	if ip = ip.Unmap(); ip.Is4() {
		list = &a.v4
	}
	if !slices.Contains(*list, ip) {
		*list = append(*list, ip)
	}
}

// target is what an SRV record says.
type target struct {
	name         string
	port, weight uint16
	addresses    *addresses
}

// with returns the table of routes, or t itself when nothing changed. t may be nil.
func (t *table) with(routes plan.Routes, domain string) *table {
	if t == nil {
		t = &table{serial: uint32(time.Now().Unix())} //nolint:gosec // a serial number wraps
		if len(routes) == 0 {
			return t
		}
	}
	var services *change[service, *entry]
	var pointers *change[netip.Addr, []pointer]
	namespaces := t.namespaces
	count := func(namespace string, by int) {
		copied := make(map[string]int, len(namespaces)+1)
		for k, v := range namespaces {
			copied[k] = v
		}
		if copied[namespace] += by; copied[namespace] == 0 {
			delete(copied, namespace)
		}
		namespaces = copied
	}
	start := func() {
		if services == nil {
			services, pointers = t.services.change(), t.addresses.change()
		}
	}
	remove := func(r *plan.Route) {
		start()
		services.drop(key(r))
		for ip := range named(r, domain) {
			left, _ := pointers.get(ip)
			left = slices.DeleteFunc(slices.Clone(left), func(p pointer) bool { return p.of == r })
			if len(left) == 0 {
				pointers.drop(ip)
			} else {
				pointers.put(ip, left)
			}
		}
	}
	add := func(r *plan.Route) {
		start()
		services.put(key(r), newEntry(r, domain))
		for ip, name := range named(r, domain) {
			have, _ := pointers.get(ip)
			pointers.put(ip, append(slices.Clone(have), pointer{r, name}))
		}
	}
	// Both are sorted by Ref. What is removed goes first, so that an address can move from one Service to another.
	var added []*plan.Route
	old, next := t.routes, routes
	for len(old) > 0 || len(next) > 0 {
		switch {
		case len(old) > 0 && len(next) > 0 && old[0] == next[0]:
			old, next = old[1:], next[1:]
		case len(next) == 0 || len(old) > 0 && object.Compare(old[0].Ref, next[0].Ref) < 0:
			remove(old[0])
			count(old[0].Namespace, -1)
			old = old[1:]
		case len(old) == 0 || object.Compare(old[0].Ref, next[0].Ref) > 0:
			added = append(added, next[0])
			count(next[0].Namespace, 1)
			next = next[1:]
		default:
			remove(old[0])
			added = append(added, next[0])
			old, next = old[1:], next[1:]
		}
	}
	for _, r := range added {
		add(r)
	}
	if services == nil {
		return t
	}
	return &table{
		routes: slices.Clone(routes), serial: max(t.serial+1, 1), namespaces: namespaces,
		services: services.shards, addresses: pointers.shards,
	}
}

func key(r *plan.Route) service {
	return service{strings.ToLower(r.Namespace), strings.ToLower(r.Name)}
}

// named yields the addresses that have a name because of the Service: its cluster addresses or, of a headless one, those
// of its ready endpoints.
func named(r *plan.Route, domain string) map[netip.Addr]string {
	out := map[netip.Addr]string{}
	name := serviceName(r, domain)
	switch {
	case r.Spec.Type == corev1.ServiceTypeExternalName:
	case r.Headless():
		for i := range r.Endpoints {
			if e := &r.Endpoints[i]; e.Ready {
				out[e.Address.Unmap()] = hostname(e) + "." + name
			}
		}
	default:
		for _, ip := range clusterIPs(r) {
			out[ip] = name
		}
	}
	return out
}

func serviceName(r *plan.Route, domain string) string {
	return strings.ToLower(r.Name + "." + r.Namespace + ".svc." + domain)
}

func clusterIPs(r *plan.Route) []netip.Addr {
	var out []netip.Addr
	for _, s := range append([]string{r.Spec.ClusterIP}, r.Spec.ClusterIPs...) {
		if ip, err := netip.ParseAddr(s); err == nil && !slices.Contains(out, ip.Unmap()) {
			out = append(out, ip.Unmap())
		}
	}
	return out
}

// hostname is the endpoint's name below the Service's: the one that the pod has, else its address with dashes.
func hostname(e *plan.Endpoint) string {
	if e.Hostname != "" {
		return strings.ToLower(e.Hostname)
	}
	return dashed(e.Address)
}

func dashed(ip netip.Addr) string {
	if ip = ip.Unmap(); ip.Is4() {
		return strings.ReplaceAll(ip.String(), ".", "-")
	}
	return strings.ReplaceAll(ip.WithZone("").StringExpanded(), ":", "-")
}

func newEntry(r *plan.Route, domain string) *entry {
	e := &entry{name: serviceName(r, domain)}
	if r.Spec.Type == corev1.ServiceTypeExternalName {
		e.external = strings.TrimSuffix(r.Spec.ExternalName, ".") + "."
		return e
	}
	headless := r.Headless()
	e.hosts = map[string]*addresses{}
	for i := range r.Endpoints {
		p := &r.Endpoints[i]
		if !p.Ready {
			continue
		}
		name := hostname(p)
		if e.hosts[name] == nil {
			e.hosts[name] = &addresses{}
		}
		e.hosts[name].add(p.Address)
		if headless {
			e.addresses.add(p.Address)
		}
	}
	e.gone = headless && len(e.hosts) == 0
	if !headless {
		for _, ip := range clusterIPs(r) {
			e.addresses.add(ip)
		}
	}
	e.ports = map[string]map[string][]*target{}
	for i, p := range r.Ports {
		if p.Name == "" {
			continue
		}
		if !headless {
			e.addPort(p, &target{name: e.name, port: uint16(p.Port), weight: 1, addresses: &e.addresses}) //nolint:gosec // a port
			continue
		}
		for j := range r.Endpoints {
			end := &r.Endpoints[j]
			if !end.Ready || end.Ports[i] == 0 {
				continue
			}
			name := hostname(end)
			e.addPort(p, &target{
				name: name + "." + e.name, port: uint16(end.Ports[i]), //nolint:gosec // a port
				weight: uint16(max(end.Weight, 1)), addresses: e.hosts[name], //nolint:gosec // at most 100
			})
		}
	}
	return e
}

// addPort adds an SRV record; several endpoints of one name and port have one.
func (e *entry) addPort(p plan.RoutePort, t *target) {
	protocol, port := "_"+strings.ToLower(string(p.Protocol)), "_"+strings.ToLower(p.Name)
	if e.ports[protocol] == nil {
		e.ports[protocol] = map[string][]*target{}
	}
	for _, have := range e.ports[protocol][port] {
		if have.name == t.name && have.port == t.port {
			return
		}
	}
	e.ports[protocol][port] = append(e.ports[protocol][port], t)
}

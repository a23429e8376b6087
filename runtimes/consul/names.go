package consul

import (
	"slices"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Names returns the names in Consul that a Registry with these options gives to each of the Services, in the order of
// their ports: those of the endpoints first, then those of cluster addresses and node ports. Services that are not
// registered are not in it. A name can depend on the other Services, so all that are served belong into the list.
// It is pure and only reads the Services; the error says what is wrong with the options.
func Names(o Options, services []*plan.Service) (map[object.Ref][]string, error) {
	o, selector, err := o.complete()
	if err != nil {
		return nil, err
	}
	routes := make(plan.Routes, 0, len(services))
	for _, s := range services {
		r := &plan.Route{Service: s}
		for i := range s.Spec.Ports {
			p := &s.Spec.Ports[i]
			r.Ports = append(r.Ports, plan.RoutePort{Name: p.Name, Protocol: p.Protocol, Port: p.Port, NodePort: p.NodePort})
		}
		routes = append(routes, r)
	}
	out := map[object.Ref][]string{}
	for ref, n := range newNaming(o, selector).assign(routes) {
		for _, list := range [...][]string{n.ports, n.cluster, n.nodePort} {
			for _, name := range list {
				if name != "" && !slices.Contains(out[ref], name) {
					out[ref] = append(out[ref], name)
				}
			}
		}
	}
	return out, nil
}

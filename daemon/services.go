package daemon

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Services returns the Services that match q: those that the node serves, and those that are wanted and not served yet.
func (s *System) Services(ctx context.Context, q api.Query) ([]api.Service, error) {
	m, err := q.Matcher()
	if err != nil {
		return nil, err
	}
	shown, err := s.shown(ctx)
	if err != nil {
		return nil, err
	}
	served := s.served(ctx)
	for _, st := range shown {
		created := map[object.Ref]time.Time{}
		for _, a := range st.Inventory {
			if a.Kind == "Service" {
				created[a.Ref] = a.Created
			}
		}
		for _, o := range st.Desired.Objects {
			v, ok := o.Value.(*corev1.Service)
			if !ok {
				continue
			}
			have, is := served[o.Ref]
			if !is {
				have = api.Service{Ref: o.Ref, Application: st.Config.Name, Labels: v.Labels, Annotations: v.Annotations, Spec: v.Spec}
			}
			have.Origin, have.Created = o.Origin, created[o.Ref]
			served[o.Ref] = have
		}
	}
	out := []api.Service{}
	for _, v := range served {
		if m.Service(v) {
			out = append(out, v)
		}
	}
	slices.SortFunc(out, func(a, b api.Service) int { return object.Compare(a.Ref, b.Ref) })
	return out, nil
}

// served returns what the node serves.
func (s *System) served(ctx context.Context) map[object.Ref]api.Service {
	out := map[object.Ref]api.Service{}
	registries := s.registries()
	written := map[object.Ref][]*discoveryv1.EndpointSlice{}
	for _, e := range s.observe(ctx).Endpoints {
		written[e.Service] = append(written[e.Service], e.Value...)
	}
	for _, r := range s.node.Routes() {
		v := s.serviceFrom(r)
		v.Registries, v.Slices = registries, append(v.Slices, written[r.Ref]...)
		out[v.Ref] = v
	}
	return out
}

// registries returns how what serves the Services does.
func (s *System) registries() []api.Registry {
	var out []api.Registry
	for _, r := range s.node.Registries() {
		out = append(out, api.Registry{Name: r.Name, Set: r.Last, Took: r.Took, Error: r.Error, Since: r.Since})
	}
	return out
}

// serviceFrom returns a route as the read model has it.
func (s *System) serviceFrom(r *plan.Route) api.Service {
	out := api.Service{
		Ref: r.Ref, Application: r.Application, Labels: r.Labels, Annotations: r.Annotations, Spec: *r.Spec, Balancing: r.Balancing,
		Names:  []string{r.Name + "." + r.Namespace + ".svc." + s.settings.Network.ClusterDomain},
		Slices: r.EndpointSlices(""),
	}
	for _, a := range r.LoadBalancerIPs {
		out.LoadBalancer = append(out.LoadBalancer, a.String())
	}
	for _, e := range r.Endpoints {
		if e.Weight != 1 {
			if out.Weights == nil {
				out.Weights = map[string]int{}
			}
			out.Weights[e.Address.String()] = e.Weight
		}
	}
	for _, m := range r.Missing {
		out.Missing = append(out.Missing, api.MissingEndpoint{Pod: m.Pod, Reason: m.Reason})
	}
	return out
}

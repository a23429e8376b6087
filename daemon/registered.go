package daemon

import (
	"maps"
	"slices"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes/consul"
)

// showRegistered fills in under which names Consul will have the Services that plans speak of, when Consul is
// configured: those that follow from what is served now and what the plans change.
func (s *System) showRegistered(apps []api.ApplicationPlan) {
	if s.settings.Consul == nil {
		return
	}
	var served plan.Routes
	if s.node != nil {
		served = s.node.Routes()
	}
	opt := s.settings.Consul.Options(s.settings.Installation)
	names, err := consul.Names(opt, servedAfter(served, apps))
	if err != nil {
		return // wrong settings are refused when they are read
	}
	for i := range apps {
		p := &apps[i].Plan
		p.Services = slices.Clone(p.Services)
		for j := range p.Services {
			if c := &p.Services[j]; len(c.Addresses) > 0 { // without any it is gone
				c.Registered = names[c.Ref]
			}
		}
	}
}

// servedAfter are the Services that are served once the plans are carried out, in the order of their names.
func servedAfter(now plan.Routes, apps []api.ApplicationPlan) []*plan.Service {
	all := map[object.Ref]*plan.Service{}
	for _, r := range now {
		all[r.Ref] = r.Service
	}
	// What one plan deletes another one can set: that is done in the end.
	for _, set := range [...]bool{false, true} {
		for _, a := range apps {
			for _, step := range a.Plan.Steps {
				switch args := step.Args.(type) {
				case plan.DeleteService:
					if !set {
						delete(all, args.Service)
					}
				case plan.SetService:
					if set {
						all[args.Service.Ref] = args.Service
					}
				}
			}
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b *plan.Service) int { return object.Compare(a.Ref, b.Ref) })
}

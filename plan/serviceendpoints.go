package plan

import (
	"fmt"
	"slices"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// planEndpoints has nodes use hand-written endpoints.
func (b *builder) planEndpoints() {
	for i := range b.desired.Endpoints {
		if w := &b.desired.Endpoints[i]; b.in(w.Ref) {
			b.under(b.waits(w.Ref), func() { b.planEndpoint(w) })
		}
	}
}

func (b *builder) planEndpoint(w *DesiredEndpoints) {
	if b.verdicts[w.Ref] == left || w.Endpoints.Service.Name == "" {
		return
	}
	leave := func(d diag.Diagnostic) {
		d.Severity, d.Ref, d.Origin = diag.Error, w.Ref, w.Origin
		b.diag(d)
		delete(b.changes, w.Ref)
	}
	app, to := b.desired.Application.Name, w.Endpoints.Service
	var after []StepID
	i, own := slices.BinarySearchFunc(b.services.runs, to, func(r *serviceRun, to object.Ref) int { return object.Compare(r.w.Ref, to) })
	if own {
		r := b.services.runs[i]
		after = r.set
		if r.w.Service.HasSelector() && w.Kind == "Endpoints" {
			b.diag(diag.Diagnostic{
				Severity: diag.Warning, Code: "endpoints-not-used", Ref: w.Ref, Origin: w.Origin,
				Message: to.String() + " has a selector, so these endpoints are not used: Kubernetes writes its own over them",
				Hint:    "remove the selector from the Service, or remove the endpoints",
			})
			b.dropEndpoints(w)
			return
		}
	} else {
		other := b.servedElsewhere(to)
		if other != nil {
			leave(diag.Diagnostic{
				Code:    "owned-elsewhere",
				Message: fmt.Sprintf("%s belongs to application %s, so application %s gives it no endpoints", to, other.Application, app),
				Hint:    "write them into the application of the Service",
			})
			return
		}
		b.diag(diag.Diagnostic{
			Severity: diag.Warning, Code: "no-service", Ref: w.Ref, Origin: w.Origin,
			Message: "there is no " + to.String() + ": nothing is sent to these endpoints until there is",
			Hint:    "add the Service, or write the name of one that exists",
		})
	}
	var steps []Step
	for _, id := range b.services.order {
		on := b.endpointsAt(id, w.Ref)
		if on != nil && !b.mine(w.Ref, on.Application) {
			leave(diag.Diagnostic{
				Code:    "owned-elsewhere",
				Message: fmt.Sprintf("endpoints of this name are used for application %s, so application %s leaves them alone", on.Application, app),
				Hint:    "give them another name, or remove them from one of the two",
			})
			return
		}
		if b.nodes[id].Stale || on != nil && (on.Hash == w.Endpoints.Hash || b.sameButIgnored(&w.Object)) {
			continue
		}
		cause := "they are not used"
		if c := b.changes[w.Ref]; c != nil {
			if on != nil && c.Action == ActionCreate {
				c.Action, c.Cause = ActionUpdate, "taken over: they are not in the inventory, but they are used"
			}
			cause = c.Cause
		} else {
			if on != nil {
				cause = "what is used is not what was applied"
			}
			b.drift(w.Ref, fmt.Sprintf("%s on node %s", cause, id), "set again")
		}
		steps = append(steps, Step{Op: OpSetEndpoints, Node: id, Target: w.Ref, Cause: cause, Args: SetEndpoints{Endpoints: w.Endpoints}})
	}
	for _, s := range steps {
		id := b.step(s, after)
		b.services.first[w.Namespace] = append(b.services.first[w.Namespace], id)
	}
}

// dropEndpoints ends endpoints that are desired and have no effect.
func (b *builder) dropEndpoints(w *DesiredEndpoints) {
	for _, id := range b.services.order {
		if on := b.endpointsAt(id, w.Ref); on != nil && b.mine(w.Ref, on.Application) && !b.nodes[id].Stale {
			b.step(Step{Op: OpDeleteEndpoints, Node: id, Target: w.Ref, Cause: w.Endpoints.Service.String() + " has a selector now",
				Args: DeleteEndpoints{Endpoints: w.Ref, Application: on.Application}}, nil)
		}
	}
}

// servedElsewhere returns the Service of that name that another application has, or nil.
func (b *builder) servedElsewhere(r object.Ref) *Service {
	for _, id := range b.services.order {
		list := b.services.served[id]
		i, has := slices.BinarySearchFunc(list, r, func(s *Service, r object.Ref) int { return object.Compare(s.Ref, r) })
		if has && !b.mine(r, list[i].Application) {
			return list[i]
		}
	}
	return nil
}

// endpointsAt returns what a node uses under that name, or nil.
func (b *builder) endpointsAt(id NodeID, r object.Ref) *EndpointSlice {
	list := b.services.endpoints[id]
	i, has := slices.BinarySearchFunc(list, r, func(s *EndpointSlice, r object.Ref) int { return object.Compare(s.Ref, r) })
	if !has {
		return nil
	}
	return list[i]
}

// servicesBasis adds what the plan depends on of what nodes serve and use.
func (b *builder) servicesBasis(put func(...string)) {
	for _, id := range b.services.order {
		for _, s := range b.services.served[id] {
			if b.mine(s.Ref, s.Application) || b.services.asked {
				put("service", string(id), s.Namespace, s.Name, s.Application, s.Hash)
			}
		}
		for _, e := range b.services.endpoints[id] {
			if b.mine(e.Ref, e.Application) {
				put("endpoints", string(id), e.Kind, e.Namespace, e.Name, e.Hash)
			}
		}
	}
}

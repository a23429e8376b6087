package plan

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// serviceRun is one desired Service and what becomes of it.
type serviceRun struct {
	w *DesiredService
	// on are what the nodes serve under its name, in the order of builder.order; nil for nothing.
	on []*Service
	// have is the first of these that is the application's own, which keeps its addresses.
	have *Service
	// final is what nodes are to serve; nil when that is not decided.
	final *Service
	// left: it is not touched, and findings say why.
	left bool
	// moved says why addresses change although nothing was written.
	moved string
	// setting: set is made, or being made.
	setting bool
	set     []StepID
}

// services is what the planner knows of Services and hand-written endpoints.
type services struct {
	order     []NodeID // all nodes, sorted
	served    map[NodeID][]*Service
	endpoints map[NodeID][]*EndpointSlice
	runs      []*serviceRun
	// first are the steps that pods of a namespace come after, gone the steps that stop pods of a namespace for good.
	first, gone map[string][]StepID
	deleted     map[nodeRef]StepID
	// asked is set when addresses of other applications' Services mattered.
	asked bool
}

type nodeRef struct {
	node NodeID
	ref  object.Ref
}

// indexServices sorts what nodes serve.
func (b *builder) indexServices() {
	s := &b.services
	s.order = slices.Sorted(maps.Keys(b.nodes))
	s.served, s.endpoints = map[NodeID][]*Service{}, map[NodeID][]*EndpointSlice{}
	s.first, s.gone, s.deleted = map[string][]StepID{}, map[string][]StepID{}, map[nodeRef]StepID{}
	for _, id := range s.order {
		n := b.nodes[id]
		s.served[id] = sortedBy(whole(n.Services, func(x *Service) bool { return x == nil || x.Spec == nil }),
			func(x, y **Service) int { return object.Compare((*x).Ref, (*y).Ref) })
		s.endpoints[id] = sortedBy(whole(n.Endpoints, func(x *EndpointSlice) bool { return x == nil }),
			func(x, y **EndpointSlice) int { return object.Compare((*x).Ref, (*y).Ref) })
	}
}

// whole returns a list without what is broken.
func whole[T any](list []T, broken func(T) bool) []T {
	if !slices.ContainsFunc(list, broken) {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), broken)
}

// placeServices decides what nodes are to serve.
func (b *builder) placeServices() {
	s := &b.services
	next := make([]int, len(s.order))
	var open []*serviceRun
	for i := range b.desired.Services {
		r := &serviceRun{w: &b.desired.Services[i], on: make([]*Service, len(s.order))}
		for n, id := range s.order {
			list := s.served[id]
			for next[n] < len(list) && object.Compare(list[next[n]].Ref, r.w.Ref) < 0 {
				next[n]++
			}
			if next[n] < len(list) && list[next[n]].Ref == r.w.Ref {
				r.on[n] = list[next[n]]
			}
		}
		s.runs = append(s.runs, r)
		if b.openService(r) {
			open = append(open, r)
		}
	}
	if len(open) > 0 {
		s.asked = true
		b.place(open)
	}
}

// openService reports whether the addresses of a Service are to be found.
func (b *builder) openService(r *serviceRun) bool {
	if b.verdicts[r.w.Ref] == left {
		r.left = true
		return false
	}
	app := b.desired.Application.Name
	for _, on := range r.on {
		if on != nil && !b.mine(r.w.Ref, on.Application) {
			b.leaveService(r, diag.Diagnostic{
				Code:    "owned-elsewhere",
				Message: fmt.Sprintf("a Service of this name is served for application %s, so application %s leaves it alone", on.Application, app),
				Hint:    "give it another name, or remove it from one of the two",
			})
			return false
		}
		if on != nil && r.have == nil {
			r.have = on
		}
	}
	if r.have == nil {
		return true
	}
	r.moved = b.misplaced(r.have)
	same := r.have.writtenAs(r.w.Service.Hash) || b.sameButIgnored(&r.w.Object)
	if r.moved == "" && same {
		r.final = r.have
		return false
	}
	return true
}

// sameButIgnored reports whether an object differs from what was applied, and in nothing that counts.
func (b *builder) sameButIgnored(o *object.Object) bool {
	if _, differs := b.verdicts[o.Ref]; differs {
		return false
	}
	a := b.appliedOf(o.Ref)
	return a != nil && a.Hash != appliedHash(*o, b.opt.DigestKey)
}

// leaveService leaves a Service as it is served, for a reason.
func (b *builder) leaveService(r *serviceRun, d diag.Diagnostic) {
	r.left = true
	d.Severity, d.Ref = diag.Error, r.w.Ref
	if d.Origin == (object.Origin{}) {
		d.Origin = r.w.Origin
	}
	b.diag(d)
	if c := b.changes[r.w.Ref]; c != nil {
		delete(b.changes, r.w.Ref)
	}
}

// misplaced says why a Service cannot keep its addresses: the ranges are others. Without ranges nothing is known.
func (b *builder) misplaced(s *Service) string {
	ranges := &b.opt.Services
	a := addressesOf(s)
	if a.cluster.IsValid() && ranges.ClusterIPs.IsValid() {
		if wrong := ranges.clusterAddress(a.cluster); wrong != "" {
			return wrong
		}
	}
	if ranges.NodePorts[1] != 0 {
		for _, p := range append([]int32{a.health}, a.nodePorts...) {
			if p == 0 {
				continue
			}
			if wrong := ranges.nodePort(p); wrong != "" {
				return wrong
			}
		}
	}
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer || !ranges.ClusterIPs.IsValid() {
		return ""
	}
	if len(ranges.LoadBalancers) == 0 {
		want := ranges.HostIPs
		if s.Spec.LoadBalancerIP != "" {
			want = a.loadBalancers
		}
		for _, x := range a.loadBalancers {
			if !slices.Contains(ranges.HostIPs, x) {
				return fmt.Sprintf("%s is not an address of the host any more", x)
			}
		}
		if len(want) != len(a.loadBalancers) {
			return "the host has other addresses"
		}
		return ""
	}
	if len(a.loadBalancers) == 0 {
		return "there is a range of addresses for load balancers now"
	}
	for _, x := range a.loadBalancers {
		if !ranges.pooled(x) {
			return fmt.Sprintf("%s is not in the ranges for load balancers", x)
		}
	}
	return ""
}

// setServices has nodes serve what was decided for the current stage, and sums it up.
func (b *builder) setServices() {
	s := &b.services
	for _, r := range s.runs {
		if !b.in(r.w.Ref) {
			continue
		}
		waits := b.waits(r.w.Ref)
		b.under(waits, func() { b.setService(r) })
		b.status(b.serviceStatus(r))
		if waits {
			b.showWaiting(len(b.plan.Status) - 1)
		}
	}
	for _, r := range s.runs {
		if b.in(r.w.Ref) {
			s.first[r.w.Namespace] = append(s.first[r.w.Namespace], r.set...)
		}
	}
}

func (b *builder) setService(r *serviceRun) {
	if r.left || r.final == nil || r.setting {
		return
	}
	r.setting = true
	c := b.changes[r.w.Ref]
	v := b.verdicts[r.w.Ref]
	if c != nil && c.Action == ActionCreate && r.have != nil {
		c.Action, c.Cause = ActionUpdate, "taken over: it is not in the inventory, but it is served"
	}
	moves := movesOf(r.have, r.final)
	if c == nil && r.have != nil && r.moved != "" {
		c = b.change(r.w.Ref)
		c.Action, c.Origin, c.Cause = ActionUpdate, r.w.Origin, r.moved
		b.plan.Unchanged--
	}
	for n, id := range b.services.order {
		on := r.on[n]
		if b.nodes[id].Stale || on != nil && on.Hash == r.final.Hash {
			continue
		}
		cause := "it is not served"
		switch {
		case c != nil:
			cause = c.Cause
		case on != nil:
			cause = "what is served is not what was applied"
		}
		if v == same && c == nil {
			b.drift(r.w.Ref, cause+fmt.Sprintf(" on node %s", id), "set again")
		}
		if len(moves) > 0 {
			cause += "; " + strings.Join(moves, ", ")
		}
		after := b.makeRoom(id, r)
		if gone, is := b.services.deleted[nodeRef{id, r.w.Ref}]; is {
			after = append(after, gone)
		}
		r.set = append(r.set, b.step(Step{Op: OpSetService, Node: id, Target: r.w.Ref, Cause: cause, Args: SetService{Service: r.final}}, after))
	}
}

// movesOf says which addresses a Service that is served loses for others.
func movesOf(was, now *Service) []string {
	if was == nil || now == nil || was == now {
		return nil
	}
	var out []string
	show := func(what, old, new string) {
		if old != "" && old != new {
			if new == "" {
				new = "none"
			}
			out = append(out, what+" "+old+" → "+new)
		}
	}
	show("clusterIP", was.Spec.ClusterIP, now.Spec.ClusterIP)
	for i := range was.Spec.Ports {
		p := &was.Spec.Ports[i]
		if p.NodePort == 0 {
			continue
		}
		j := samePort(now.Spec.Ports, p)
		text := ""
		if j >= 0 && now.Spec.Ports[j].NodePort != 0 {
			text = fmt.Sprint(now.Spec.Ports[j].NodePort)
		}
		show("nodePort of "+portTitle(p), fmt.Sprint(p.NodePort), text)
	}
	show("load balancer", joined(was.LoadBalancerIPs), joined(now.LoadBalancerIPs))
	return out
}

func joined(list []netip.Addr) string {
	text := make([]string, len(list))
	for i, a := range list {
		text[i] = a.String()
	}
	return strings.Join(text, " ")
}

// portTitle names a port as people do: by its name, or by number and protocol.
func portTitle(p *corev1.ServicePort) string {
	if p.Name != "" {
		return p.Name
	}
	return fmt.Sprintf("%d/%s", p.Port, p.Protocol)
}

// samePort finds the port that is the same one in another version of a Service: by number and protocol, then by name; -1 for none.
func samePort(in []corev1.ServicePort, p *corev1.ServicePort) int {
	i := slices.IndexFunc(in, func(x corev1.ServicePort) bool { return x.Port == p.Port && x.Protocol == p.Protocol })
	if i < 0 && p.Name != "" {
		i = slices.IndexFunc(in, func(x corev1.ServicePort) bool { return x.Name == p.Name && x.Protocol == p.Protocol })
	}
	return i
}

// serviceStatus sums up a Service.
func (b *builder) serviceStatus(r *serviceRun) WorkloadStatus {
	s := WorkloadStatus{Ref: r.w.Ref, Health: "Progressing"}
	if held := b.holding[r.w.Ref]; b.isHeld(r.w.Ref) {
		s.Health, s.Reason, s.Message = "Suspended", "Suspended", "it is suspended "+held.Suspension.String()
		return s
	}
	if r.left {
		s.Health, s.Reason, s.Message = "Degraded", "NotApplied", "what is in the source is not applied"
		return s
	}
	answering := false
	for n, id := range b.services.order {
		if b.nodes[id].Stale {
			continue
		}
		answering = true
		if r.final == nil || r.on[n] == nil || r.on[n].Hash != r.final.Hash {
			s.Reason, s.Message = "NotServed", fmt.Sprintf("node %s does not serve it yet", id)
			return s
		}
	}
	switch {
	case !answering:
		s.Reason, s.Message = "NodeNotResponding", "no node answers"
	case r.final.Spec.Type == corev1.ServiceTypeLoadBalancer && len(r.final.LoadBalancerIPs) == 0:
		s.Reason, s.Message = "LoadBalancerPending", "there is no address for it: set services.loadBalancers"
	default:
		s.Health = "Healthy"
	}
	return s
}

// willGo reports whether this plan deletes what is served or used under a name, which the application does not desire.
func (b *builder) willGo(r object.Ref) bool {
	if b.desiredHas(r) {
		return false
	}
	if reason, _ := b.keepsAll(); reason != "" {
		return false
	}
	a := b.appliedOf(r)
	return (a == nil || keptBy(a) == "") && (b.held == nil || !b.held(r)) && !b.isHeld(r)
}

// makeRoom returns the steps by which other Services of this application let go of what r is to get on a node: those
// that move are set first, those that go are deleted first, and so is one that waits for r itself.
func (b *builder) makeRoom(id NodeID, r *serviceRun) []StepID {
	ranges := &b.opt.Services
	want := map[claim]bool{}
	for _, c := range ranges.claimsOf(r.final) {
		want[c] = true
	}
	if r.have != nil {
		for _, c := range ranges.claimsOf(r.have) {
			delete(want, c)
		}
	}
	if len(want) == 0 {
		return nil
	}
	var out []StepID
	for _, on := range b.services.served[id] {
		if !b.mine(on.Ref, on.Application) || on.Ref == r.w.Ref ||
			!slices.ContainsFunc(ranges.claimsOf(on), func(c claim) bool { return want[c] }) {
			continue
		}
		i, stays := slices.BinarySearchFunc(b.services.runs, on.Ref, func(r *serviceRun, to object.Ref) int { return object.Compare(r.w.Ref, to) })
		if stays && !b.services.runs[i].setting {
			other := b.services.runs[i]
			b.setService(other)
			out = append(out, other.set...)
			continue
		}
		out = append(out, b.deleteService(id, on, "its address or port goes to "+r.w.Ref.String(), nil))
	}
	return out
}

// deleteService ends a Service of this application on a node, once.
func (b *builder) deleteService(id NodeID, on *Service, cause string, after []StepID) StepID {
	key := nodeRef{id, on.Ref}
	if step, done := b.services.deleted[key]; done {
		return step
	}
	if b.nodes[id].Stale {
		return 0
	}
	step := b.step(Step{Op: OpDeleteService, Node: id, Target: on.Ref, Cause: cause,
		Args: DeleteService{Service: on.Ref, Application: on.Application}}, after)
	b.services.deleted[key] = step
	return step
}

// pruneServices deletes Services and hand-written endpoints of the application that are no longer desired: those of the
// current stage, and with orphans those that are in no inventory.
func (b *builder) pruneServices(orphans bool) {
	app := b.desired.Application.Name
	goes := func(r object.Ref) (cause string, goes bool) {
		if b.staging.several && (orphans != (b.appliedOf(r) == nil) || !orphans && !b.in(r)) {
			return "", false
		}
		return b.unwanted(r)
	}
	for _, id := range b.services.order {
		for _, on := range b.services.served[id] {
			if on.Application != app || b.elsewhere(on.Ref) {
				continue
			}
			if cause, goes := goes(on.Ref); goes {
				b.under(!orphans, func() { b.deleteService(id, on, cause, b.services.gone[on.Namespace]) })
			}
		}
		for _, on := range b.services.endpoints[id] {
			if on.Application != app || b.elsewhere(on.Ref) || b.nodes[id].Stale {
				continue
			}
			if cause, goes := goes(on.Ref); goes {
				b.under(!orphans, func() {
					b.step(Step{Op: OpDeleteEndpoints, Node: id, Target: on.Ref, Cause: cause,
						Args: DeleteEndpoints{Endpoints: on.Ref, Application: app}}, b.services.gone[on.Namespace])
				})
			}
		}
	}
}

// unwanted reports whether what a node serves or uses for the application goes, and why; what is an orphan is shown.
func (b *builder) unwanted(r object.Ref) (cause string, goes bool) {
	if b.desiredHas(r) {
		return "", false
	}
	c := b.changes[r]
	if b.appliedOf(r) != nil {
		if c == nil || c.Action != ActionDelete {
			return "", false // kept, and pruneObjects said why
		}
		return r.String() + " is " + c.Cause, true
	}
	if reason, hint := b.keepsAll(); reason != "" {
		b.kept(diag.Diagnostic{
			Ref: r, Hint: hint,
			Message: "it is served, and neither in the source nor in the inventory; it is kept: " + reason,
		})
		return "", false
	}
	if b.held != nil && b.held(r) || b.isHeld(r) {
		return "", false
	}
	c = b.change(r)
	c.Action, c.Cause = ActionDelete, "neither in the source nor in the inventory"
	return r.String() + " is " + c.Cause, true
}

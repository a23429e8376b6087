package plan

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// want is one address or port that a Service is to have.
type want struct {
	what, field string
	// place is the field as Object.At has it, when that is another form.
	place string
	// key is what is asked for, or kept; empty when any will do.
	key claim
	// fixed: it is written, or follows from what is written, so that no other one will do.
	fixed bool
	wrong string // why it cannot be had, whoever has it
	// follows: nobody wrote the address, so that the port is what to write otherwise.
	follows bool
	put     func(*addresses, claim)
	choose  func(*ledger, *addresses) (claim, string)
}

// hint says what to write in place of what cannot be given.
func (w *want) hint() string { return "write one that can be given, or remove it" }

// instead says what to write in place of what somebody else has.
func (w *want) instead() string {
	if w.follows {
		return "write another port, or set addresses for load balancers in the settings, under services.loadBalancers"
	}
	return "write another one, or remove it"
}

// maxRetries bounds how many Services that could not be placed are tried once more.
const maxRetries = 64

// place finds the addresses of Services. What they have they keep; then comes what is written; then what is
// chosen. One that cannot have what it asks for is left as it is, with all it has, so the rest is placed anew; and
// since that can make room, those that are left are tried once more, one by one.
func (b *builder) place(open []*serviceRun) {
	out := make([]bool, len(open))
	why := make([]diag.List, len(open))
	given, problems := b.placeOnce(open, out)
	for anyOf(problems) {
		for i := range problems {
			if len(problems[i]) > 0 {
				out[i], why[i] = true, problems[i]
			}
		}
		given, problems = b.placeOnce(open, out)
	}
	for again, tries := true, 0; again; {
		again = false
		for i := range open {
			if !out[i] || tries == maxRetries {
				continue
			}
			tries++
			out[i] = false
			with, wrong := b.placeOnce(open, out)
			if out[i] = anyOf(wrong); !out[i] {
				given, again = with, true
			} else if len(wrong[i]) > 0 {
				why[i] = wrong[i]
			}
		}
	}
	for i, r := range open {
		if !out[i] {
			r.final = r.w.Service.with(given[i])
			continue
		}
		for _, d := range why[i] {
			b.leaveService(r, d)
		}
	}
}

func anyOf(problems []diag.List) bool {
	return slices.ContainsFunc(problems, func(l diag.List) bool { return len(l) > 0 })
}

// placeOnce places all Services but those that are out, and says what each of them lacks.
func (b *builder) placeOnce(open []*serviceRun, out []bool) (given []addresses, problems []diag.List) {
	l := b.openLedger(open, out)
	wants := make([][]want, len(open))
	given = make([]addresses, len(open))
	done := make([][]bool, len(open))
	problems = make([]diag.List, len(open))
	for i, r := range open {
		if out[i] {
			continue
		}
		given[i].nodePorts = make([]int32, len(r.w.Service.Spec.Ports))
		wants[i] = b.wantsOf(r)
		done[i] = make([]bool, len(wants[i]))
	}
	take := func(i, j int, c claim) {
		w := &wants[i][j]
		l.take(c, holder{ref: open[i].w.Ref, application: b.desired.Application.Name})
		w.put(&given[i], c)
		done[i][j] = true
	}
	fail := func(i, j int, why, hint string) {
		done[i][j] = true
		w := &wants[i][j]
		at := w.place
		if at == "" {
			at = w.field
		}
		problems[i] = append(problems[i], diag.Diagnostic{Origin: open[i].w.At(at), Code: "service-address", Field: w.field, Message: w.what + ": " + why, Hint: hint})
	}
	for i, r := range open { // what it has
		if out[i] || r.have == nil {
			continue
		}
		had := b.opt.Services.claimsOf(r.have)
		for j, w := range wants[i] {
			if w.key == (claim{}) || w.wrong != "" || !slices.Contains(had, w.key) {
				continue
			}
			if _, taken := l.clash(w.key, r.w.Ref); !taken && !l.hasPort(w.key, r.w.Ref) {
				take(i, j, w.key)
			}
		}
	}
	for i, r := range open { // what is written
		for j, w := range wants[i] {
			if done[i][j] || !w.fixed {
				continue
			}
			if w.wrong != "" {
				fail(i, j, w.wrong, w.hint())
			} else if h, taken := l.clash(w.key, r.w.Ref); taken {
				fail(i, j, h.taken(w.key, b.desired.Application.Name), w.instead())
			} else if l.hasPort(w.key, r.w.Ref) {
				fail(i, j, fmt.Sprintf("%s is another port of this Service already", w.key), w.instead())
			} else {
				take(i, j, w.key)
			}
		}
	}
	for i := range open { // what is chosen
		for j, w := range wants[i] {
			if done[i][j] {
				continue
			}
			if c, why := w.choose(l, &given[i]); why != "" {
				fail(i, j, why, "set a larger range in the settings, under services")
			} else {
				take(i, j, c)
			}
		}
	}
	return given, problems
}

// openLedger returns who has what, but for Services whose addresses are being found and those that go.
func (b *builder) openLedger(open []*serviceRun, out []bool) *ledger {
	l := newLedger(&b.opt.Services)
	finding := make(map[object.Ref]bool, len(open))
	for i, r := range open {
		finding[r.w.Ref] = !out[i]
	}
	for _, id := range b.services.order {
		for _, s := range b.services.served[id] {
			if b.mine(s.Ref, s.Application) && (finding[s.Ref] || b.willGo(s.Ref)) {
				continue
			}
			for _, c := range l.ranges.claimsOf(s) {
				l.take(c, holder{ref: s.Ref, application: s.Application})
			}
		}
	}
	l.pods = b.podPorts()
	return l
}

// podPorts are the ports of the host that pods have or are to have.
func (b *builder) podPorts() map[claim][]podPort {
	out := map[claim][]podPort{}
	add := func(spec *corev1.PodSpec, by holder) {
		if spec == nil {
			return
		}
		for _, list := range [...][]corev1.Container{spec.InitContainers, spec.Containers} {
			for i := range list {
				for _, p := range list[i].Ports {
					port := p.HostPort
					if spec.HostNetwork {
						port = p.ContainerPort
					}
					if port == 0 {
						continue
					}
					proto := p.Protocol
					if proto == "" {
						proto = corev1.ProtocolTCP
					}
					k, at := claim{proto: proto, port: port}, podPort{holder: by}
					if a := address(p.HostIP); a.IsValid() && !a.IsUnspecified() {
						at.addr = a
					}
					if !slices.Contains(out[k], at) {
						out[k] = append(out[k], at)
					}
				}
			}
		}
	}
	for i := range b.all {
		if p := &b.all[i]; !p.ours && p.active() {
			add(p.Spec, holder{p.Ref(), p.Application, true})
		}
	}
	for i := range b.desired.Workloads {
		if w := &b.desired.Workloads[i]; w.Pod != nil {
			add(w.Pod.Spec, holder{w.Ref, b.desired.Application.Name, true})
		}
	}
	return out
}

// wantsOf lists what a Service is to have.
func (b *builder) wantsOf(r *serviceRun) []want {
	var out []want
	spec := r.w.Service.Spec
	ranges := &b.opt.Services
	var has *addresses
	if r.have != nil {
		a := addressesOf(r.have)
		has = &a
	}
	if needsClusterIP(spec) {
		w := want{what: "cluster address", field: "spec.clusterIP", put: func(a *addresses, c claim) { a.cluster = c.addr },
			choose: func(l *ledger, _ *addresses) (claim, string) { return l.chooseCluster(r.w.Ref) }}
		switch a := address(spec.ClusterIP); {
		case spec.ClusterIP != "":
			w.key, w.fixed = claim{addr: a}, true
			if w.wrong = ranges.clusterAddress(a); !a.IsValid() {
				w.wrong = spec.ClusterIP + " is not an IPv4 address"
			}
		case has != nil && has.cluster.IsValid() && b.verdicts[r.w.Ref] != forced:
			w.key = claim{addr: has.cluster}
			w.wrong = ranges.clusterAddress(has.cluster)
		}
		out = append(out, w)
	}
	for i := range spec.Ports {
		if w, any := b.nodePortWant(r, i); any {
			out = append(out, w)
		}
	}
	if needsHealthPort(spec) {
		w := want{what: "port for health checks", field: "spec.healthCheckNodePort", put: func(a *addresses, c claim) { a.health = c.port },
			choose: func(l *ledger, _ *addresses) (claim, string) {
				return l.chooseNodePort(r.w.Namespace+"/"+r.w.Name+"/health", corev1.ProtocolTCP)
			}}
		switch {
		case spec.HealthCheckNodePort != 0:
			w.key, w.fixed = claim{proto: corev1.ProtocolTCP, port: spec.HealthCheckNodePort}, true
			w.wrong = ranges.nodePort(spec.HealthCheckNodePort)
		case has != nil && has.health != 0:
			w.key = claim{proto: corev1.ProtocolTCP, port: has.health}
			w.wrong = ranges.nodePort(has.health)
		}
		out = append(out, w)
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer {
		out = append(out, b.loadBalancerWants(r, has)...)
	}
	for i, text := range spec.ExternalIPs {
		field := fmt.Sprintf("spec.externalIPs[%d]", i)
		wrong, a := "", address(text)
		switch {
		case !a.IsValid():
			wrong = text + " is not an IPv4 address"
		case ranges.ClusterIPs.IsValid() && ranges.ClusterIPs.Contains(a):
			wrong = fmt.Sprintf("%s is in the range of cluster addresses, %s", a, ranges.ClusterIPs.Masked())
		case ranges.Pods.IsValid() && ranges.Pods.Contains(a):
			wrong = fmt.Sprintf("%s is in the range of pods, %s", a, ranges.Pods)
		}
		out = append(out, sharedWants("external address", field, a, spec, wrong, func(*addresses, claim) {})...)
	}
	return out
}

// nodePortWant is the node port of one port of a Service; false when it has none.
func (b *builder) nodePortWant(r *serviceRun, i int) (want, bool) {
	spec := r.w.Service.Spec
	p := &spec.Ports[i]
	if p.NodePort == 0 && !needsNodePorts(spec) || spec.Type == corev1.ServiceTypeClusterIP || spec.Type == corev1.ServiceTypeExternalName {
		return want{}, false
	}
	ranges := &b.opt.Services
	w := want{
		what: "node port of " + portTitle(p), field: fmt.Sprintf("spec.ports[%s].nodePort", portTitle(p)), place: fmt.Sprintf("spec.ports[%d].nodePort", i),
		put: func(a *addresses, c claim) { a.nodePorts[i] = c.port },
		choose: func(l *ledger, a *addresses) (claim, string) {
			// One port of two protocols has one node port, as in Kubernetes.
			for j := range spec.Ports[:i] {
				c := claim{proto: p.Protocol, port: a.nodePorts[j]}
				if q := &spec.Ports[j]; q.Port == p.Port && c.port != 0 && l.free(c) {
					return c, ""
				}
			}
			return l.chooseNodePort(r.w.Namespace+"/"+r.w.Name+"/"+fmt.Sprint(p.Port), p.Protocol)
		},
	}
	if p.NodePort != 0 {
		w.key, w.fixed = claim{proto: p.Protocol, port: p.NodePort}, true
		w.wrong = ranges.nodePort(p.NodePort)
		return w, true
	}
	if r.have != nil {
		if j := samePort(r.have.Spec.Ports, p); j >= 0 && r.have.Spec.Ports[j].NodePort != 0 {
			w.key = claim{proto: p.Protocol, port: r.have.Spec.Ports[j].NodePort}
			w.wrong = ranges.nodePort(w.key.port)
		}
	}
	return w, true
}

// loadBalancerWants are the addresses of a Service of type LoadBalancer: one of the ranges for them, or ports of the host's own.
func (b *builder) loadBalancerWants(r *serviceRun, has *addresses) []want {
	const what, field = "address for the load balancer", "spec.loadBalancerIP"
	spec := r.w.Service.Spec
	ranges := &b.opt.Services
	add := func(a *addresses, c claim) {
		if !slices.Contains(a.loadBalancers, c.addr) {
			a.loadBalancers = append(a.loadBalancers, c.addr)
		}
	}
	asked := address(spec.LoadBalancerIP)
	if len(ranges.LoadBalancers) > 0 {
		w := want{what: what, field: field, put: add, choose: func(l *ledger, _ *addresses) (claim, string) { return l.chooseLoadBalancer(r.w.Ref) }}
		switch {
		case spec.LoadBalancerIP != "":
			w.key, w.fixed = claim{addr: asked}, true
			if !asked.IsValid() || !ranges.pooled(asked) {
				w.wrong = spec.LoadBalancerIP + " is not in the ranges for load balancers"
			} else if ranges.inside(asked) {
				w.wrong = spec.LoadBalancerIP + " is in the range of pods or of cluster addresses"
			}
		case has != nil && len(has.loadBalancers) > 0 && ranges.pooled(has.loadBalancers[0]):
			w.key = claim{addr: has.loadBalancers[0]}
		}
		return []want{w}
	}
	at, wrong := ranges.HostIPs, ""
	if spec.LoadBalancerIP != "" {
		at = []netip.Addr{asked}
		if !asked.IsValid() || !slices.Contains(ranges.HostIPs, asked) {
			wrong = spec.LoadBalancerIP + " is not an address of the host"
		}
	}
	var out []want
	for _, a := range at {
		shared := sharedWants(what, field, a, spec, wrong, add)
		for i := range shared {
			if spec.LoadBalancerIP == "" {
				shared[i].field, shared[i].follows = fmt.Sprintf("spec.ports[%s].port", portTitle(&spec.Ports[i])), true
				shared[i].place = fmt.Sprintf("spec.ports[%d].port", i)
			}
		}
		out = append(out, shared...)
	}
	return out
}

// sharedWants are the ports of a Service at an address that other Services can have other ports of. What is wrong
// with the address is said once.
func sharedWants(what, field string, a netip.Addr, spec *corev1.ServiceSpec, wrong string, put func(*addresses, claim)) []want {
	if wrong != "" {
		return []want{{what: what, field: field, key: claim{addr: a}, fixed: true, wrong: wrong, put: put}}
	}
	var out []want
	for _, c := range portsAt(a, spec) {
		out = append(out, want{what: what, field: field, key: c, fixed: true, put: put})
	}
	return out
}

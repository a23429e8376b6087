package plan

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// ServiceChange is what a plan does to the way to a Service: its addresses, and which pods are behind it. It is there
// for Services that change, and for those whose workloads change so that others are behind it.
type ServiceChange struct {
	Ref  object.Ref         `json:"ref"`
	Type corev1.ServiceType `json:"type"`
	// Addresses are what the Service has, in words, for example "cluster address 10.80.3.7" and "node port 30080 for http".
	Addresses []string `json:"addresses,omitempty"`
	// ClusterIP is its cluster address, "None" for a headless Service, and empty for one that is gone or only another name.
	ClusterIP string `json:"clusterIP,omitempty"`
	// Elsewhere are its other addresses in words: those of load balancers, external ones, or the name that it stands for.
	Elsewhere []string            `json:"elsewhere,omitempty"`
	Ports     []ServicePortChange `json:"ports,omitempty"`
	// Moves are addresses that are not what they were, for example "clusterIP 10.80.0.5 → 10.80.0.9".
	Moves []string `json:"moves,omitempty"`
	// Selects are the workloads of the application whose pods are behind it. Of these, Gains come new; Loses are
	// those whose pods are no longer.
	Selects []object.Ref `json:"selects,omitempty"`
	Gains   []object.Ref `json:"gains,omitempty"`
	Loses   []object.Ref `json:"loses,omitempty"`
	// ByHand: it has no selector, so what is behind it is written by hand.
	ByHand bool `json:"byHand,omitempty"`
	// Registered are the names under which another registry has its ports. The planner does not know them: who shows the
	// plan fills them in.
	Registered []string `json:"registered,omitempty"`
}

// ServicePortChange is one port of a Service that a plan speaks of.
type ServicePortChange struct {
	Name     string          `json:"name,omitempty"`
	Protocol corev1.Protocol `json:"protocol"`
	Port     int32           `json:"port"`
	NodePort int32           `json:"nodePort,omitempty"` // 0 for none
	// Target is the port of the pods as it is written: a number or a name. TargetPort is its number, 0 when it is a name
	// that the workloads do not have, or for which they have several numbers.
	Target     string `json:"target,omitempty"`
	TargetPort int32  `json:"targetPort,omitempty"`
}

// String returns the port in words: "http 80/TCP → web (8080)".
func (p ServicePortChange) String() string {
	s := fmt.Sprintf("%d/%s", p.Port, p.Protocol)
	if p.Name != "" {
		s = p.Name + " " + s
	}
	number := ""
	if p.TargetPort != 0 {
		number = fmt.Sprint(p.TargetPort)
	}
	switch p.Target {
	case "", fmt.Sprint(p.Port):
		return s
	case number:
		return s + " → " + number
	}
	if number == "" {
		return s + " → " + p.Target
	}
	return s + " → " + p.Target + " (" + number + ")"
}

// observedSelection is what can be selected of the pods that run; of every pod its owner.
func (b *builder) observedSelection() *selection {
	s := &selection{}
	for i := range b.all {
		if p := &b.all[i]; p.active() {
			s.add(p.Namespace, p.Labels, p.Owner)
		}
	}
	return s
}

// showServices shows what becomes of Services, and warns of those that nothing is behind.
func (b *builder) showServices() {
	var running *selection
	before := func(s *Service) []object.Ref {
		if s == nil {
			return nil
		}
		if running == nil {
			running = b.observedSelection()
		}
		return running.selectedBy(s)
	}
	moving := len(b.changes) > 0
	for _, r := range b.services.runs {
		none := r.w.Service.HasSelector() && len(r.w.Selects) == 0
		if len(r.w.Selects) > 0 {
			b.targetsNothing(r)
		}
		if !moving && !none {
			continue
		}
		had := before(r.have)
		if none && !slices.ContainsFunc(before(r.w.Service), b.staysSelected) {
			b.selectsNothing(r, had)
		}
		if moving && len(had) > 0 && len(r.w.Selects) > 0 {
			b.scaledToNothing(r, had)
		}
		if moving && !r.left && r.final != nil {
			b.showService(r, had)
		}
	}
	b.showDeleted(before)
	slices.SortFunc(b.plan.Services, func(x, y ServiceChange) int { return object.Compare(x.Ref, y.Ref) })
}

// staysSelected reports whether the pods of an owner, which are selected now, stay what they are: they are another application's.
func (b *builder) staysSelected(owner object.Ref) bool { return b.byOwner[owner] == nil }

func (b *builder) selectsNothing(r *serviceRun, had []object.Ref) {
	d := diag.Diagnostic{
		Severity: diag.Warning, Code: "selects-nothing", Ref: r.w.Ref, Origin: r.w.At("spec.selector"), Field: "spec.selector",
		Message: "it selects no pod of any workload that is known", Hint: "write labels that pods have",
	}
	if len(had) > 0 {
		d.Code, d.Message = "loses-endpoints", "it loses all endpoints: it selected the pods of "+refList(had)+", and selects none"
	}
	b.diag(d)
}

// scaledToNothing warns of a Service whose workloads are all to have no pods, when this plan makes it so.
func (b *builder) scaledToNothing(r *serviceRun, had []object.Ref) {
	changes := false
	for _, w := range r.w.Selects {
		o := b.desiredWorkload(w)
		if o == nil || replicasOf(o.Value) != 0 {
			return
		}
		if _, differs := b.verdicts[w]; differs {
			changes = true
		}
	}
	if !changes || slices.ContainsFunc(had, b.staysSelected) {
		return
	}
	b.diag(diag.Diagnostic{
		Severity: diag.Warning, Code: "loses-endpoints", Ref: r.w.Ref, Origin: r.w.At("spec.selector"), Field: "spec.selector",
		Message: "it loses all endpoints: " + refList(r.w.Selects) + " is to have no pods",
		Hint:    "give it replicas, or remove the Service",
	})
}

// desiredWorkload returns the desired workload of that name, or nil.
func (b *builder) desiredWorkload(r object.Ref) *Workload {
	i, has := slices.BinarySearchFunc(b.desired.Workloads, r, func(w Workload, r object.Ref) int { return object.Compare(w.Ref, r) })
	if !has {
		return nil
	}
	return &b.desired.Workloads[i]
}

// replicasOf is how many pods a workload is to have; 1 for those that are not scaled.
func replicasOf(o runtime.Object) int32 {
	n := (*int32)(nil)
	switch v := o.(type) {
	case *appsv1.Deployment:
		n = v.Spec.Replicas
	case *appsv1.ReplicaSet:
		n = v.Spec.Replicas
	case *appsv1.StatefulSet:
		n = v.Spec.Replicas
	}
	if n == nil {
		return 1
	}
	return *n
}

func refList(refs []object.Ref) string {
	text := make([]string, len(refs))
	for i, r := range refs {
		text[i] = r.String()
	}
	return strings.Join(text, ", ")
}

func (b *builder) showService(r *serviceRun, had []object.Ref) {
	c := ServiceChange{
		Ref: r.w.Ref, Type: r.final.Spec.Type, Addresses: r.final.addressWords(), Elsewhere: r.final.elsewhere(),
		ClusterIP: r.final.Spec.ClusterIP, ByHand: !r.final.HasSelector() && r.final.Spec.Type != corev1.ServiceTypeExternalName, Moves: movesOf(r.have, r.final), Selects: r.w.Selects,
	}
	for i := range r.final.Spec.Ports {
		c.Ports = append(c.Ports, b.portChange(&r.final.Spec.Ports[i], r.w.Selects))
	}
	_, changes := b.verdicts[r.w.Ref]
	for _, w := range r.w.Selects {
		if _, other := b.verdicts[w]; (changes || other) && !slices.Contains(had, w) {
			c.Gains = append(c.Gains, w)
		}
	}
	for _, w := range had {
		if _, other := b.verdicts[w]; (changes || other || b.changes[w] != nil) && !slices.Contains(r.w.Selects, w) && !b.staysSelected(w) {
			c.Loses = append(c.Loses, w)
		}
	}
	shown := b.changes[r.w.Ref]
	if shown == nil && len(c.Gains) == 0 && len(c.Loses) == 0 {
		return
	}
	if shown == nil && len(had) == 0 && slices.ContainsFunc(c.Gains, func(w object.Ref) bool { return b.appliedOf(w) != nil }) {
		b.diag(diag.Diagnostic{
			Severity: diag.Warning, Code: "gains-endpoints", Ref: r.w.Ref, Origin: r.w.At("spec.selector"), Field: "spec.selector",
			Message: "it had no endpoints, and now it selects the pods of " + refList(c.Gains) + ", whose labels change",
		})
	}
	b.plan.Services = append(b.plan.Services, c)
}

// portChange is a port of a Service, with the number that the workloads have for it.
func (b *builder) portChange(p *corev1.ServicePort, selects []object.Ref) ServicePortChange {
	c := ServicePortChange{Name: p.Name, Protocol: p.Protocol, Port: p.Port, NodePort: p.NodePort}
	if p.TargetPort.Type == intstr.Int {
		if c.TargetPort = p.TargetPort.IntVal; c.TargetPort == 0 {
			c.TargetPort = p.Port
		}
		c.Target = fmt.Sprint(c.TargetPort)
		return c
	}
	c.Target = p.TargetPort.StrVal
	for i, r := range selects {
		number := b.portOf(r, p)
		if i > 0 && number != c.TargetPort {
			c.TargetPort = 0
			break
		}
		c.TargetPort = number
	}
	return c
}

// portOf is the number that a workload's pods have for a port's name; 0 for none.
func (b *builder) portOf(r object.Ref, p *corev1.ServicePort) int32 {
	w := b.desiredWorkload(r)
	if w == nil || w.Pod == nil || w.Pod.Spec == nil {
		return 0
	}
	for i := range w.Pod.Spec.Containers {
		for _, q := range w.Pod.Spec.Containers[i].Ports {
			if q.Name == p.TargetPort.StrVal && (q.Protocol == p.Protocol || q.Protocol == "" && p.Protocol == corev1.ProtocolTCP) {
				return q.ContainerPort
			}
		}
	}
	return 0
}

// targetsNothing warns of ports by name that none of the selected workloads has.
func (b *builder) targetsNothing(r *serviceRun) {
	for i := range r.w.Service.Spec.Ports {
		p := &r.w.Service.Spec.Ports[i]
		if p.TargetPort.Type != intstr.String || slices.ContainsFunc(r.w.Selects, func(w object.Ref) bool { return b.portOf(w, p) != 0 }) {
			continue
		}
		b.diag(diag.Diagnostic{
			Severity: diag.Warning, Code: "no-target-port", Ref: r.w.Ref, Origin: r.w.At(fmt.Sprintf("spec.ports[%d].targetPort", i)), Field: fmt.Sprintf("spec.ports[%s].targetPort", portTitle(p)),
			Message: fmt.Sprintf("no container of %s has a %s port with the name %q, so nothing is behind it", refList(r.w.Selects), p.Protocol, p.TargetPort.StrVal),
			Hint:    "write the name or the number of a port of the pods",
		})
	}
}

// showDeleted shows the Services that end, each once.
func (b *builder) showDeleted(before func(*Service) []object.Ref) {
	for _, id := range b.services.order {
		for _, on := range b.services.served[id] {
			if _, ends := b.services.deleted[nodeRef{id, on.Ref}]; !ends || slices.ContainsFunc(b.plan.Services, func(c ServiceChange) bool { return c.Ref == on.Ref }) {
				continue
			}
			c := ServiceChange{Ref: on.Ref, Type: on.Spec.Type, Loses: before(on)}
			for _, a := range on.addressWords() {
				c.Moves = append(c.Moves, a+" → none")
			}
			b.plan.Services = append(b.plan.Services, c)
		}
	}
}

// fixedOfService names the changed fields of a Service that cannot be changed, as an API server has it. Those of
// type ExternalName have nothing to keep.
func (b *builder) fixedOfService(have *Applied, o *object.Object, fields []FieldChange) []string {
	now, ok := o.Value.(*corev1.Service)
	if !ok {
		return nil
	}
	var was corev1.Service
	if json.Unmarshal(have.Written, &was) != nil {
		return nil
	}
	external := corev1.ServiceTypeExternalName
	changes := func(field string) bool {
		return slices.ContainsFunc(fields, func(f FieldChange) bool { return below(f.Path, field) })
	}
	var fixed []string
	if was.Spec.Type != external && now.Spec.Type != external && changes("spec.clusterIP") {
		none, old := corev1.ClusterIPNone, was.Spec.ClusterIP
		if s := b.servedHere(o.Ref); s != nil && old != none {
			old = s.Spec.ClusterIP
		}
		if (old == none) != (now.Spec.ClusterIP == none) || now.Spec.ClusterIP != "" && old != "" && now.Spec.ClusterIP != old {
			fixed = append(fixed, "spec.clusterIP")
		}
	}
	if changes("spec.healthCheckNodePort") && needsHealthPort(&was.Spec) && needsHealthPort(&now.Spec) {
		if old := was.Spec.HealthCheckNodePort; old != 0 && now.Spec.HealthCheckNodePort != 0 {
			fixed = append(fixed, "spec.healthCheckNodePort")
		}
	}
	return fixed
}

// servedHere returns what a node serves under a name for this application, or nil.
func (b *builder) servedHere(r object.Ref) *Service {
	for _, id := range b.services.order {
		list := b.services.served[id]
		i, has := slices.BinarySearchFunc(list, r, func(s *Service, r object.Ref) int { return object.Compare(s.Ref, r) })
		if has && b.mine(r, list[i].Application) {
			return list[i]
		}
	}
	return nil
}

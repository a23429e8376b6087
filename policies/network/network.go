// Package network compiles NetworkPolicy objects to what a node enforces: for each pod that a policy selects, who may reach it
// and whom it may reach, as ranges of addresses and ports, with Kubernetes' semantics.
//
// It is pure, and the model is deterministic. Writing the model into the kernel is package routing's.
package network

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Group is the API group of the objects.
const Group = networkingv1.GroupName

// NameLabel is the label that every namespace has, with its name.
const NameLabel = corev1.LabelMetadataName

// Pod is a pod with an address of its own. Pods on the host's network are none: no policy selects them, and their address is the node's.
type Pod struct {
	Namespace, Name string
	Labels          map[string]string
	Address         netip.Addr
	Ports           []Port
	// Peer is true for what policies name as a peer and never select: the node's name server.
	Peer bool
}

// String returns NAMESPACE/NAME.
func (p *Pod) String() string { return p.Namespace + "/" + p.Name }

// Port is a port of a pod that has a name.
type Port struct {
	Name     string
	Protocol corev1.Protocol
	Number   uint16
}

// World is all that the model follows from.
type World struct {
	Policies []Policy
	// Namespaces has the labels of the namespaces that have an object.
	Namespaces map[string]map[string]string
	Pods       []Pod
}

// Policy is a NetworkPolicy object.
type Policy struct {
	Ref  object.Ref
	Spec networkingv1.NetworkPolicySpec
}

// Model is what is enforced. Pods that are not in it are open in both directions.
type Model struct {
	// Pods are sorted by address.
	Pods []Isolated
}

// Isolated is a pod that at least one policy selects.
type Isolated struct {
	Name    string
	Address netip.Addr
	// Ingress and Egress are nil where no policy isolates the pod in that direction.
	Ingress, Egress *Side
}

// Side is what is allowed in one direction; everything else is not.
type Side struct {
	// Policies are those that isolate the pod in this direction, by NAMESPACE/NAME.
	Policies []string
	Grants   []Grant
}

// Grant allows connections with peers to ports.
type Grant struct {
	// Peers are sorted, and neither overlap nor touch.
	Peers []Range
	// Ports are sorted likewise. None means every port of every protocol, and what has no ports.
	Ports []PortRange
}

// Range is the addresses from First to Last.
type Range struct{ First, Last netip.Addr }

func (r Range) String() string {
	switch {
	case r == everywhere:
		return "everywhere"
	case r.First == r.Last:
		return r.First.String()
	}
	return r.First.String() + "-" + r.Last.String()
}

// everywhere is all of IPv4: pods have no other addresses.
var everywhere = Range{netip.AddrFrom4([4]byte{}), netip.AddrFrom4([4]byte{255, 255, 255, 255})}

// Everywhere reports whether these ranges are all addresses.
func Everywhere(rs []Range) bool { return len(rs) == 1 && rs[0] == everywhere }

// PortRange is the ports from First to Last of a protocol.
type PortRange struct {
	Protocol    corev1.Protocol
	First, Last uint16
}

func (p PortRange) String() string {
	switch {
	case p.First == 0 && p.Last == 65535:
		return string(p.Protocol)
	case p.First == p.Last:
		return fmt.Sprintf("%s %d", p.Protocol, p.First)
	}
	return fmt.Sprintf("%s %d-%d", p.Protocol, p.First, p.Last)
}

// IsPolicy reports whether objects of a kind are policies.
func IsPolicy(ref object.Ref) bool { return ref.Group == Group && ref.Kind == "NetworkPolicy" }

// Applied returns the policies in an inventory and the labels of its namespaces, as they were applied. What cannot be read is an
// error, since leaving it out would open what it closes.
func Applied(inventory []plan.Applied) (policies []Policy, namespaces map[string]map[string]string, err error) {
	for i := range inventory {
		a := &inventory[i]
		switch {
		case IsPolicy(a.Ref):
			var v networkingv1.NetworkPolicy
			if err := json.Unmarshal(a.Written, &v); err != nil {
				return nil, nil, fmt.Errorf("read %s as it was applied: %w", a.Ref, err)
			}
			policies = append(policies, Policy{a.Ref, v.Spec})
		case a.Kind == "Namespace" && a.Group == "":
			var v corev1.Namespace
			if err := json.Unmarshal(a.Written, &v); err != nil {
				return nil, nil, fmt.Errorf("read %s as it was applied: %w", a.Ref, err)
			}
			if namespaces == nil {
				namespaces = map[string]map[string]string{}
			}
			namespaces[a.Name] = v.Labels
		}
	}
	return policies, namespaces, nil
}

// types returns the directions that a policy isolates. Without policyTypes that is ingress, and egress where it has a rule for it.
func types(s *networkingv1.NetworkPolicySpec) (ingress, egress bool) {
	if len(s.PolicyTypes) == 0 {
		return true, len(s.Egress) > 0
	}
	return slices.Contains(s.PolicyTypes, networkingv1.PolicyTypeIngress), slices.Contains(s.PolicyTypes, networkingv1.PolicyTypeEgress)
}

// compiler has what is the same for all pods.
type compiler struct {
	world      *World
	namespaces map[string]labels.Set
	egress     map[int][]Grant    // by policy
	peers      map[int][][]member // of each ingress rule, by policy
}

// member is a peer: a pod, or where pod is nil the addresses of a block.
type member struct {
	pod    *Pod
	ranges []Range
}

// Compile makes the model. A selector that is not valid is an error: Kubernetes' validation refuses it before.
func Compile(w World) (Model, error) {
	w.Policies = slices.Clone(w.Policies)
	slices.SortFunc(w.Policies, func(a, b Policy) int { return object.Compare(a.Ref, b.Ref) })
	pods := slices.Clone(w.Pods)
	slices.SortFunc(pods, func(a, b Pod) int {
		return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.String(), b.String()))
	})
	w.Pods = pods
	c := compiler{world: &w, namespaces: map[string]labels.Set{}, egress: map[int][]Grant{}, peers: map[int][][]member{}}
	selected := map[string][]int{} // policies by namespace
	selectors := make([]labels.Selector, len(w.Policies))
	for i := range w.Policies {
		p := &w.Policies[i]
		s, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
		if err != nil {
			return Model{}, fmt.Errorf("%s: podSelector: %w", p.Ref, err)
		}
		selectors[i] = s
		selected[p.Ref.Namespace] = append(selected[p.Ref.Namespace], i)
		if err := c.prepare(i); err != nil {
			return Model{}, fmt.Errorf("%s: %w", p.Ref, err)
		}
	}
	var m Model
	for i := range pods {
		pod := &pods[i]
		if pod.Peer || !pod.Address.Is4() {
			continue
		}
		out := Isolated{Name: pod.String(), Address: pod.Address}
		for _, n := range selected[pod.Namespace] {
			if !selectors[n].Matches(labels.Set(pod.Labels)) {
				continue
			}
			p := &w.Policies[n]
			in, eg := types(&p.Spec)
			if in {
				out.Ingress = out.Ingress.with(p, c.ingressOf(n, pod))
			}
			if eg {
				out.Egress = out.Egress.with(p, c.egress[n])
			}
		}
		if out.Ingress != nil || out.Egress != nil {
			out.Ingress.tidy()
			out.Egress.tidy()
			m.Pods = append(m.Pods, out)
		}
	}
	return m, nil
}

func (s *Side) with(p *Policy, grants []Grant) *Side {
	if s == nil {
		s = &Side{}
	}
	s.Policies = append(s.Policies, p.Ref.Namespace+"/"+p.Ref.Name)
	s.Grants = append(s.Grants, grants...)
	return s
}

// tidy gives grants an order that does not depend on where they come from, each once.
func (s *Side) tidy() {
	if s == nil {
		return
	}
	slices.SortFunc(s.Grants, compareGrants)
	s.Grants = slices.CompactFunc(s.Grants, func(a, b Grant) bool { return compareGrants(a, b) == 0 })
}

func compareGrants(a, b Grant) int {
	return cmp.Or(
		slices.CompareFunc(a.Peers, b.Peers, func(a, b Range) int { return cmp.Or(a.First.Compare(b.First), a.Last.Compare(b.Last)) }),
		slices.CompareFunc(a.Ports, b.Ports, comparePorts))
}

func comparePorts(a, b PortRange) int {
	return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
}

// prepare works out what does not depend on which pod is selected.
func (c *compiler) prepare(n int) error {
	p := &c.world.Policies[n]
	for i := range p.Spec.Ingress {
		members, err := c.members(p, p.Spec.Ingress[i].From)
		if err != nil {
			return fmt.Errorf("ingress[%d]: %w", i, err)
		}
		c.peers[n] = append(c.peers[n], members)
	}
	for i := range p.Spec.Egress {
		rule := &p.Spec.Egress[i]
		members, err := c.members(p, rule.To)
		if err != nil {
			return fmt.Errorf("egress[%d]: %w", i, err)
		}
		c.egress[n] = append(c.egress[n], c.egressRule(members, rule.Ports)...)
	}
	return nil
}

// egressRule is what a rule grants: a port that is given by its name is another number with each peer.
func (c *compiler) egressRule(members []member, ports []networkingv1.NetworkPolicyPort) []Grant {
	fixed, names := fixedPorts(ports)
	var out []Grant
	if len(ports) == 0 || len(fixed) > 0 {
		out = grant(out, rangesOf(members), fixed)
	}
	if len(names) == 0 {
		return out
	}
	by := map[PortRange][]Range{}
	named := func(pod *Pod) {
		for _, p := range portsNamed(pod, names) {
			by[p] = append(by[p], Range{pod.Address, pod.Address})
		}
	}
	for _, m := range members {
		if m.pod != nil {
			named(m.pod)
			continue
		}
		for i := range c.world.Pods { // also a block of addresses means the pods that are in it
			pod := &c.world.Pods[i]
			if slices.ContainsFunc(m.ranges, func(r Range) bool { return r.contains(pod.Address) }) {
				named(pod)
			}
		}
	}
	for p, ranges := range by {
		out = grant(out, merge(ranges), []PortRange{p})
	}
	return out
}

// ingressOf is what the rules of a policy let in to a pod: a port that is given by its name is one of that pod.
func (c *compiler) ingressOf(n int, pod *Pod) []Grant {
	var out []Grant
	for i, rule := range c.world.Policies[n].Spec.Ingress {
		ports, names := fixedPorts(rule.Ports)
		ports = append(ports, portsNamed(pod, names)...)
		if len(rule.Ports) > 0 && len(ports) == 0 {
			continue // the pod has no port of that name
		}
		out = grant(out, rangesOf(c.peers[n][i]), ports)
	}
	return out
}

func grant(to []Grant, peers []Range, ports []PortRange) []Grant {
	if len(peers) == 0 {
		return to
	}
	return append(to, Grant{peers, mergePorts(ports)})
}

// fixedPorts returns the ports that have numbers, and those that have names.
func fixedPorts(ports []networkingv1.NetworkPolicyPort) (fixed []PortRange, names []networkingv1.NetworkPolicyPort) {
	for _, p := range ports {
		protocol := protocolOf(p)
		switch {
		case p.Port == nil:
			fixed = append(fixed, PortRange{protocol, 0, 65535})
		case p.Port.Type == intstr.String:
			names = append(names, p)
		default:
			first, last := uint16(p.Port.IntVal), uint16(p.Port.IntVal)
			if p.EndPort != nil {
				last = uint16(*p.EndPort)
			}
			fixed = append(fixed, PortRange{protocol, first, last})
		}
	}
	return fixed, names
}

func protocolOf(p networkingv1.NetworkPolicyPort) corev1.Protocol {
	if p.Protocol == nil {
		return corev1.ProtocolTCP
	}
	return *p.Protocol
}

func portsNamed(pod *Pod, names []networkingv1.NetworkPolicyPort) []PortRange {
	var out []PortRange
	for _, n := range names {
		for _, p := range pod.Ports {
			if p.Name == n.Port.StrVal && p.Protocol == protocolOf(n) {
				out = append(out, PortRange{p.Protocol, p.Number, p.Number})
			}
		}
	}
	return out
}

// members returns the peers of a rule. A rule that names none means everybody.
func (c *compiler) members(p *Policy, peers []networkingv1.NetworkPolicyPeer) ([]member, error) {
	if len(peers) == 0 {
		return []member{{ranges: []Range{everywhere}}}, nil
	}
	var out []member
	for i := range peers {
		peer := &peers[i]
		if peer.IPBlock != nil {
			ranges, err := block(peer.IPBlock)
			if err != nil {
				return nil, err
			}
			out = append(out, member{ranges: ranges})
			continue
		}
		pods, err := optional(peer.PodSelector, labels.Everything())
		if err != nil {
			return nil, fmt.Errorf("podSelector: %w", err)
		}
		namespaces, err := optional(peer.NamespaceSelector, labels.Nothing())
		if err != nil {
			return nil, fmt.Errorf("namespaceSelector: %w", err)
		}
		for j := range c.world.Pods {
			pod := &c.world.Pods[j]
			in := pod.Namespace == p.Ref.Namespace
			if peer.NamespaceSelector != nil {
				in = namespaces.Matches(c.namespace(pod.Namespace))
			}
			if in && pod.Address.Is4() && pods.Matches(labels.Set(pod.Labels)) {
				out = append(out, member{pod: pod})
			}
		}
	}
	return out, nil
}

func optional(s *metav1.LabelSelector, absent labels.Selector) (labels.Selector, error) {
	if s == nil {
		return absent, nil
	}
	return metav1.LabelSelectorAsSelector(s)
}

// namespace returns the labels of a namespace. Every one has its name as a label, whatever its object says.
func (c *compiler) namespace(name string) labels.Set {
	if have, ok := c.namespaces[name]; ok {
		return have
	}
	all := labels.Set{}
	for k, v := range c.world.Namespaces[name] {
		all[k] = v
	}
	all[NameLabel] = name
	c.namespaces[name] = all
	return all
}

// block returns the addresses of a block without its exceptions. One of IPv6 has none, since pods have IPv4 addresses.
func block(b *networkingv1.IPBlock) ([]Range, error) {
	whole, err := netip.ParsePrefix(b.CIDR)
	if err != nil {
		return nil, fmt.Errorf("ipBlock: %w", err)
	}
	if !whole.Addr().Is4() {
		return nil, nil
	}
	out := []Range{rangeOf(whole)}
	for _, e := range b.Except {
		except, err := netip.ParsePrefix(e)
		if err != nil {
			return nil, fmt.Errorf("ipBlock: except: %w", err)
		}
		if !except.Addr().Is4() {
			continue
		}
		hole := rangeOf(except)
		var rest []Range
		for _, r := range out {
			if hole.Last.Less(r.First) || r.Last.Less(hole.First) {
				rest = append(rest, r)
				continue
			}
			if r.First.Less(hole.First) {
				rest = append(rest, Range{r.First, hole.First.Prev()})
			}
			if hole.Last.Less(r.Last) {
				rest = append(rest, Range{hole.Last.Next(), r.Last})
			}
		}
		out = rest
	}
	return out, nil
}

func rangeOf(p netip.Prefix) Range {
	p = p.Masked()
	last := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		last[i/8] |= 1 << (7 - i%8)
	}
	return Range{p.Addr(), netip.AddrFrom4(last)}
}

func (r Range) contains(a netip.Addr) bool { return !a.Less(r.First) && !r.Last.Less(a) }

func rangesOf(members []member) []Range {
	var out []Range
	for _, m := range members {
		if m.pod != nil {
			out = append(out, Range{m.pod.Address, m.pod.Address})
		}
		out = append(out, m.ranges...)
	}
	return merge(out)
}

// merge sorts ranges and joins those that overlap or touch.
func merge(rs []Range) []Range {
	slices.SortFunc(rs, func(a, b Range) int { return cmp.Or(a.First.Compare(b.First), a.Last.Compare(b.Last)) })
	var out []Range
	for _, r := range rs {
		if n := len(out); n > 0 && (!out[n-1].Last.Less(r.First) || out[n-1].Last.Next() == r.First) {
			if out[n-1].Last.Less(r.Last) {
				out[n-1].Last = r.Last
			}
			continue
		}
		out = append(out, r)
	}
	return out
}

func mergePorts(ps []PortRange) []PortRange {
	ps = slices.Clone(ps)
	slices.SortFunc(ps, comparePorts)
	var out []PortRange
	for _, p := range ps {
		if n := len(out); n > 0 && out[n-1].Protocol == p.Protocol && int(out[n-1].Last)+1 >= int(p.First) {
			out[n-1].Last = max(out[n-1].Last, p.Last)
			continue
		}
		out = append(out, p)
	}
	return out
}

// Packet begins a connection.
type Packet struct {
	From, To netip.Addr
	Protocol corev1.Protocol
	Port     uint16
}

// Allows reports whether a connection may begin. What comes from the node itself is not asked for, since it always may.
func (m *Model) Allows(p Packet) bool {
	if p.From == p.To {
		return true // a pod may always reach itself
	}
	if from := m.find(p.From); from != nil && !from.Egress.allows(p.To, p) {
		return false
	}
	to := m.find(p.To)
	return to == nil || to.Ingress.allows(p.From, p)
}

func (m *Model) find(a netip.Addr) *Isolated {
	i, ok := slices.BinarySearchFunc(m.Pods, a, func(p Isolated, a netip.Addr) int { return p.Address.Compare(a) })
	if !ok {
		return nil
	}
	return &m.Pods[i]
}

func (s *Side) allows(peer netip.Addr, p Packet) bool {
	return s == nil || slices.ContainsFunc(s.Grants, func(g Grant) bool {
		return slices.ContainsFunc(g.Peers, func(r Range) bool { return r.contains(peer) }) &&
			(len(g.Ports) == 0 || slices.ContainsFunc(g.Ports, func(r PortRange) bool {
				return r.Protocol == p.Protocol && r.First <= p.Port && p.Port <= r.Last
			}))
	})
}

// String returns the model as people read it.
func (m Model) String() string {
	var b strings.Builder
	for _, p := range m.Pods {
		fmt.Fprintf(&b, "%s %s\n", p.Address, p.Name)
		p.Ingress.write(&b, "in from")
		p.Egress.write(&b, "out to")
	}
	return b.String()
}

func (s *Side) write(b *strings.Builder, way string) {
	if s == nil {
		return
	}
	fmt.Fprintf(b, "  by %s\n", strings.Join(s.Policies, ", "))
	if len(s.Grants) == 0 {
		fmt.Fprintf(b, "    %s nobody\n", way)
	}
	for _, g := range s.Grants {
		var peers, ports []string
		for _, r := range g.Peers {
			peers = append(peers, r.String())
		}
		for _, p := range g.Ports {
			ports = append(ports, p.String())
		}
		if len(ports) == 0 {
			ports = []string{"everything"}
		}
		fmt.Fprintf(b, "    %s %s: %s\n", way, strings.Join(peers, ", "), strings.Join(ports, ", "))
	}
}

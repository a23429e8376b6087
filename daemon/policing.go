package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/telemetry"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/policies/network"
	"github.com/fairlead-dev/fairlead/runtimes/routing"
)

// enforcer makes a model be enforced. *routing.Policies is one.
type enforcer interface {
	Set(ctx context.Context, m network.Model) error
	Present(ctx context.Context) (bool, error)
	Close() error
	Destroy(ctx context.Context) error
}

// policing joins the network policies of all applications, as they were applied last, to the pods of the node, and has that enforced.
// It implements executor.Policies.
type policing struct {
	enforcer enforcer // nil where nothing is enforced: there is nothing but the recording then
	// server is the node's name server, which is a peer to policies; its address is not valid without one.
	server    network.Pod
	onTrouble func(error)

	// setting is held while a model is made and set, so that none is set after a newer one.
	setting sync.Mutex

	mu         sync.Mutex
	policies   map[string][]network.Policy // by application
	namespaces map[string]map[string]map[string]string
	unread     map[string]error // applications of which it is not known what they had applied
	pods       map[string]network.Pod
	adopted    bool
	recorded   bool
	ready      chan struct{} // closed when both
	wanted     int           // counts changes
	set        int           // the last change that is in force
	trouble    string

	model atomic.Pointer[network.Model]
	bell  chan struct{}
	stop  context.CancelFunc
	done  chan struct{}
}

// nameServer is how policies know the node's name server: as that of every Kubernetes.
func nameServer(gateway netip.Addr) network.Pod {
	return network.Pod{
		Namespace: "kube-system", Name: "kube-dns", Labels: map[string]string{"k8s-app": "kube-dns"}, Address: gateway, Peer: true,
		Ports: []network.Port{{Name: "dns", Protocol: corev1.ProtocolUDP, Number: 53}, {Name: "dns-tcp", Protocol: corev1.ProtocolTCP, Number: 53}},
	}
}

// newPolicing makes one that records; begin makes it enforce.
func newPolicing() *policing {
	return &policing{
		policies: map[string][]network.Policy{}, namespaces: map[string]map[string]map[string]string{}, unread: map[string]error{},
		pods: map[string]network.Pod{}, ready: make(chan struct{}), bell: make(chan struct{}, 1),
	}
}

// begin starts enforcing, until close.
func (p *policing) begin(e enforcer, server network.Pod, onTrouble func(error)) {
	ctx, stop := context.WithCancel(context.Background())
	p.enforcer, p.server, p.onTrouble, p.stop, p.done = e, server, onTrouble, stop, make(chan struct{})
	go func() {
		defer close(p.done)
		p.work(ctx)
	}()
}

// close lets go: what is enforced stays so.
func (p *policing) close() error {
	if p.stop == nil {
		return nil
	}
	p.stop()
	<-p.done
	return p.enforcer.Close()
}

// destroy removes what is enforced, when no pod is left. What comes later is enforced anew.
func (p *policing) destroy(ctx context.Context) error {
	if p.enforcer == nil {
		return nil
	}
	p.setting.Lock()
	defer p.setting.Unlock()
	p.mu.Lock()
	p.wanted++ // the next pod that starts has it made again
	p.mu.Unlock()
	return p.enforcer.Destroy(ctx)
}

// retryPolicies is how long after a failure it is tried again.
const retryPolicies = 2 * time.Second

// work brings what is enforced to what is wanted each time that changes.
func (p *policing) work(ctx context.Context) {
	select {
	case <-p.ready:
	case <-ctx.Done():
		return
	}
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.bell:
		case <-retry.C:
		}
		if err := p.enforce(ctx); err != nil && ctx.Err() == nil {
			p.tell(err)
			retry.Reset(retryPolicies)
		}
	}
}

// tell says what lasts once.
func (p *policing) tell(err error) {
	p.mu.Lock()
	known := p.trouble == err.Error()
	p.trouble = err.Error()
	p.mu.Unlock()
	if !known {
		p.onTrouble(err)
	}
}

// change notes that something changed. p.mu is held.
func (p *policing) change() {
	p.wanted++
	select {
	case p.bell <- struct{}{}:
	default:
	}
}

// enforce makes what is wanted now be in force, unless it is.
func (p *policing) enforce(ctx context.Context) error {
	p.setting.Lock()
	defer p.setting.Unlock()
	p.mu.Lock()
	wanted, done := p.wanted, p.wanted == p.set && p.trouble == ""
	w, unread := p.world(), maps.Clone(p.unread)
	p.mu.Unlock()
	if done && wanted > 0 {
		return nil
	}
	if len(unread) > 0 {
		// Policies may be missing. What an earlier process has put in force is better than that, and after a reboot nothing is open that others
		// have policies for. Where nobody has any, nothing is held up.
		if there, err := p.enforcer.Present(ctx); there || err != nil || len(w.Policies) > 0 {
			return errors.Join(fmt.Errorf("the network policies that are in force stay as they are, because it cannot be read what application %s had applied: reconcile it, or remove what it left in the state directory",
				strings.Join(slices.Sorted(maps.Keys(unread)), ", ")), err)
		}
	}
	m, err := network.Compile(w)
	if err != nil {
		return err
	}
	if err := p.enforcer.Set(ctx, m); err != nil {
		return err
	}
	p.model.Store(&m)
	p.mu.Lock()
	p.set, p.trouble = wanted, ""
	p.mu.Unlock()
	return nil
}

// world is what the model is made from. p.mu is held.
func (p *policing) world() network.World {
	w := network.World{Namespaces: map[string]map[string]string{}}
	seen := map[string]bool{} // while an object moves, two applications may have it
	for _, name := range slices.Sorted(maps.Keys(p.policies)) {
		for _, policy := range p.policies[name] {
			if !seen[policy.Ref.String()] {
				seen[policy.Ref.String()] = true
				w.Policies = append(w.Policies, policy)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.namespaces)) {
		maps.Copy(w.Namespaces, p.namespaces[name])
	}
	for _, pod := range p.pods {
		w.Pods = append(w.Pods, pod)
	}
	if p.server.Address.IsValid() {
		w.Pods = append(w.Pods, p.server)
	}
	return w
}

// record takes over what an application has applied.
func (p *policing) record(application string, inventory []plan.Applied) {
	policies, namespaces, err := network.Applied(inventory)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.unread[application] = err
	} else {
		if p.unread[application] == nil && reflect.DeepEqual(p.policies[application], policies) && reflect.DeepEqual(p.namespaces[application], namespaces) {
			return
		}
		delete(p.unread, application)
		p.policies[application], p.namespaces[application] = policies, namespaces
		if len(policies) == 0 {
			delete(p.policies, application)
		}
		if len(namespaces) == 0 {
			delete(p.namespaces, application)
		}
	}
	p.change()
}

// cannotRead notes an application of which the record is damaged.
func (p *policing) cannotRead(application string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unread[application] = err
	p.change()
}

// allRecorded says that every application's record was looked at.
func (p *policing) allRecorded() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recorded = true
	p.isReady()
}

func (p *policing) isReady() {
	if p.recorded && p.adopted {
		select {
		case <-p.ready:
		default:
			close(p.ready)
		}
	}
}

// Adopted implements executor.Policies.
func (p *policing) Adopted() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.adopted = true
	p.isReady()
}

// PodSeen implements executor.Policies.
func (p *policing) PodSeen(o *plan.ObservedPod) {
	address, err := netip.ParseAddr(o.IP)
	if err != nil || o.Spec == nil || o.Spec.HostNetwork {
		return
	}
	pod := network.Pod{Namespace: o.Namespace, Name: o.Name, Labels: o.Labels, Address: address, Ports: network.NamedPorts(o.Spec)}
	p.mu.Lock()
	defer p.mu.Unlock()
	if was, known := p.pods[o.UID]; known && was.Address == address && maps.Equal(was.Labels, pod.Labels) && slices.Equal(was.Ports, pod.Ports) {
		return
	}
	p.pods[o.UID] = pod
	p.change()
}

// seen returns the pods of the node.
func (p *policing) seen() []network.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.pods))
}

// PodGone implements executor.Policies.
func (p *policing) PodGone(uid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.pods[uid]; known {
		delete(p.pods, uid)
		p.change()
	}
}

// Admit implements executor.Policies.
func (p *policing) Admit(ctx context.Context, uid string) error {
	if p.enforcer == nil {
		return nil
	}
	select {
	case <-p.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	err := p.enforce(ctx)
	if err == nil {
		return nil
	}
	p.mu.Lock()
	w, unread := p.world(), len(p.unread) > 0
	pod, known := p.pods[uid]
	p.mu.Unlock()
	if !known {
		return nil // on the host's network
	}
	// A pod that nothing bounds starts. It may have the address of one that was bound: then it is bound too much for a while.
	m, e := network.Compile(w)
	if e == nil && !unread && !slices.ContainsFunc(m.Pods, func(i network.Isolated) bool { return i.Address == pod.Address }) {
		return nil
	}
	return fmt.Errorf("the network policies that select the pod cannot be enforced, so it does not start: %w", err)
}

// allows reports whether a client of the proxy may reach an endpoint.
func (p *policing) allows(client netip.Addr, endpoint netip.AddrPort) bool {
	m := p.model.Load()
	if m == nil || len(m.Pods) == 0 {
		return true
	}
	packet := network.Packet{From: client, To: endpoint.Addr(), Protocol: corev1.ProtocolTCP, Port: endpoint.Port()}
	return m.Allows(packet) || ownAddress(client)
}

// ownAddress reports whether an address is one of this machine's.
func ownAddress(a netip.Addr) bool {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(addresses, func(have net.Addr) bool {
		n, ok := have.(*net.IPNet)
		if !ok {
			return false
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		return ok && ip.Unmap() == a
	})
}

// openPolicing makes the network policies be enforced on the pods of a bridge.
func (s *System) openPolicing(bridge string, gateway netip.Addr) error {
	e, err := routing.NewPolicies(routing.PolicyOptions{Bridge: bridge, Gateway: gateway, Repaired: s.policiesRepaired})
	if err != nil {
		return err
	}
	var server network.Pod
	if !s.settings.DNS.Disabled {
		server = nameServer(gateway)
	}
	s.policing.begin(e, server, s.nodeTrouble)
	s.closers = append(s.closers, s.policing.close)
	return nil
}

// policiesRepaired keeps what others had changed.
func (s *System) policiesRepaired(what string, err error) {
	if err != nil {
		s.nodeTrouble(fmt.Errorf("put the network policies right: %s: %w", what, err))
		return
	}
	message := "the network policies in the kernel were changed by others, and are right again: " + what
	s.log.Warn().Str(telemetry.KeyNode, string(localNode)).Msg(message)
	s.keep(api.Event{Type: api.Warning, Reason: "NetworkPoliciesRepaired", Node: localNode, Message: message})
}

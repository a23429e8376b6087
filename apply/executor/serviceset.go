package executor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// claim is an address, or an address and port, or a port of the node, that only one Service can have.
type claim struct {
	address  netip.Addr // invalid for a port of the node
	port     int32      // 0 for the address as a whole
	protocol corev1.Protocol
}

// String names it in words.
func (c claim) String() string {
	switch {
	case !c.address.IsValid():
		return fmt.Sprintf("the node port %d (%s)", c.port, c.protocol)
	case c.port == 0:
		return "the cluster address " + c.address.String()
	}
	return fmt.Sprintf("the load balancer address %s port %d (%s)", c.address, c.port, c.protocol)
}

// claimsOf are what a Service needs for itself.
func claimsOf(s *plan.Service) []claim {
	var out []claim
	have := func(c claim) {
		if !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	for _, text := range append([]string{s.Spec.ClusterIP}, s.Spec.ClusterIPs...) {
		if a, err := netip.ParseAddr(text); err == nil { // None, and nothing, are no addresses
			have(claim{address: a})
		}
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		protocol := p.Protocol
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		if p.NodePort != 0 {
			have(claim{port: p.NodePort, protocol: protocol})
		}
		for _, a := range s.LoadBalancerIPs {
			have(claim{address: a, port: p.Port, protocol: protocol})
		}
	}
	if p := s.Spec.HealthCheckNodePort; p != 0 {
		have(claim{port: p, protocol: corev1.ProtocolTCP})
	}
	return out
}

// load makes what is written down be served.
func (s *serving) load(trouble func(error)) {
	services, endpoints := s.files.read(trouble)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range endpoints {
		s.putWritten(w)
	}
	for _, v := range services {
		if err := s.conflict(v); err != nil {
			trouble(fmt.Errorf("%s is written down and not served: %w", v.Ref, err))
			continue
		}
		s.put(v)
		s.claim(v)
	}
}

// conflict says which other Services have what v needs.
func (s *serving) conflict(v *plan.Service) error {
	var errs []error
	for _, c := range claimsOf(v) {
		if owner, ok := s.claims[c]; ok && owner != v.Ref {
			errs = append(errs, fmt.Errorf("%s is that of %s: %w", c, owner, runtimes.ErrConflict))
		}
	}
	return errors.Join(errs...)
}

func (s *serving) claim(v *plan.Service) {
	for _, c := range claimsOf(v) {
		s.claims[c] = v.Ref
	}
}

// unclaim gives back what v needs and what is served under its name does not.
func (s *serving) unclaim(v *plan.Service) {
	var keep []claim
	if e := s.entries[v.Ref]; e != nil {
		keep = claimsOf(e.service)
	}
	for _, c := range claimsOf(v) {
		if s.claims[c] == v.Ref && !slices.Contains(keep, c) {
			delete(s.claims, c)
		}
	}
}

// take waits until nobody else writes the object, and locks mu.
func (s *serving) take(ctx context.Context, ref object.Ref) error {
	for {
		s.mu.Lock()
		busy, ok := s.busy[ref]
		if !ok {
			return nil
		}
		s.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// writing runs f, which changes a file, without the lock. Meanwhile nobody else takes the object.
func (s *serving) writing(ref object.Ref, f func() error) error {
	done := make(chan struct{})
	s.busy[ref] = done
	s.mu.Unlock()
	err := f()
	s.mu.Lock()
	delete(s.busy, ref)
	close(done)
	return err
}

func (n *Node) doSetService(ctx context.Context, v *plan.Service) error {
	s := n.serving
	if err := s.take(ctx, v.Ref); err != nil {
		return err
	}
	defer n.served()
	defer s.mu.Unlock()
	var last *plan.Service
	if e := s.entries[v.Ref]; e != nil {
		last = e.service
	}
	if last != nil && last.Hash == v.Hash && last.Application == v.Application {
		return nil
	}
	if err := s.conflict(v); err != nil {
		return fmt.Errorf("set %s: %w", v.Ref, err)
	}
	s.claim(v)
	if err := s.writing(v.Ref, func() error { return s.files.writeService(v) }); err != nil {
		s.unclaim(v)
		return err
	}
	s.put(v)
	if last != nil {
		s.unclaim(last)
	}
	return nil
}

func (n *Node) doDeleteService(ctx context.Context, a plan.DeleteService) error {
	s := n.serving
	if err := s.take(ctx, a.Service); err != nil {
		return err
	}
	defer n.served()
	defer s.mu.Unlock()
	e := s.entries[a.Service]
	if e == nil || e.service.Application != a.Application {
		return nil
	}
	if err := s.writing(a.Service, func() error { return s.files.remove(a.Service) }); err != nil {
		return err
	}
	s.drop(a.Service)
	s.unclaim(e.service)
	return nil
}

func (n *Node) doSetEndpoints(ctx context.Context, w *plan.EndpointSlice) error {
	s := n.serving
	if err := s.take(ctx, w.Ref); err != nil {
		return err
	}
	defer n.served()
	defer s.mu.Unlock()
	if last := s.written[w.Ref]; last != nil && last.Hash == w.Hash && last.Application == w.Application {
		return nil
	}
	if err := s.writing(w.Ref, func() error { return s.files.writeEndpoints(w) }); err != nil {
		return err
	}
	s.putWritten(w)
	return nil
}

func (n *Node) doDeleteEndpoints(ctx context.Context, a plan.DeleteEndpoints) error {
	s := n.serving
	if err := s.take(ctx, a.Endpoints); err != nil {
		return err
	}
	defer n.served()
	defer s.mu.Unlock()
	w := s.written[a.Endpoints]
	if w == nil || w.Application != a.Application {
		return nil
	}
	if err := s.writing(a.Endpoints, func() error { return s.files.remove(a.Endpoints) }); err != nil {
		return err
	}
	s.dropWritten(a.Endpoints)
	return nil
}

// served makes what is served be observed again.
func (n *Node) served() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state = nil
	n.wakeWatchers()
}

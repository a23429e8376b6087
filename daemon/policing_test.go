package daemon

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/policies/network"
	"github.com/fairlead-dev/fairlead/render/object"
)

// enforced keeps the last model, and has a table from before where there is one.
type enforced struct {
	mu      sync.Mutex
	present bool
	model   *network.Model
	err     error
}

func (e *enforced) Set(_ context.Context, m network.Model) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.model = &m
	}
	return e.err
}

func (e *enforced) Present(context.Context) (bool, error) { return e.present, nil }
func (e *enforced) Close() error                          { return nil }
func (e *enforced) Destroy(context.Context) error         { return nil }

// denying is an inventory with a policy that isolates every pod of a namespace.
func denying(namespace string) []plan.Applied {
	ref := object.Ref{Group: network.Group, Kind: "NetworkPolicy", Namespace: namespace, Name: "deny"}
	return []plan.Applied{{Ref: ref, Written: []byte(`{"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}`)}}
}

func TestAPodStartsOnlyUnderItsPolicies(t *testing.T) {
	damaged := errors.New("the record is damaged")
	for _, c := range []struct {
		name     string
		enforcer *enforced // nil enforces everything
		record   func(p *policing)
		want     string // part of why the pod does not start; empty when it does
		isolated bool
	}{
		{name: "without a policy", record: func(*policing) {}},
		{name: "with one", record: func(p *policing) { p.record("a", denying("shop")) }, isolated: true},
		{name: "with one of another namespace", record: func(p *policing) { p.record("a", denying("other")) }},
		{name: "when it cannot be enforced", enforcer: &enforced{err: errors.New("no nftables")}, record: func(p *policing) { p.record("a", denying("shop")) }, want: "no nftables"},
		{name: "when another pod's cannot be", enforcer: &enforced{err: errors.New("no nftables")}, record: func(p *policing) { p.record("a", denying("other")) }},
		{name: "an unread record, after a restart", enforcer: &enforced{present: true}, record: func(p *policing) { p.cannotRead("b", damaged) }, want: "what application b had applied"},
		{name: "an unread record beside a policy, after a reboot", record: func(p *policing) { p.record("a", denying("other")); p.cannotRead("b", damaged) }, want: "what application b had applied"},
		{name: "an unread record where nobody has policies", record: func(p *policing) { p.cannotRead("b", damaged) }},
		{name: "an unread record that is read again", enforcer: &enforced{present: true}, record: func(p *policing) { p.cannotRead("b", damaged); p.record("b", denying("shop")) }, isolated: true},
		{name: "a policy that has gone", record: func(p *policing) { p.record("a", denying("shop")); p.record("a", nil) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPolicing()
			e := c.enforcer
			if e == nil {
				e = &enforced{}
			}
			p.begin(e, network.Pod{}, func(error) {})
			t.Cleanup(func() { _ = p.close() })
			c.record(p)
			p.PodSeen(&plan.ObservedPod{PodKey: plan.PodKey{Namespace: "shop", Name: "web"}, UID: "1", IP: "10.90.0.2", Spec: &corev1.PodSpec{}})
			p.allRecorded()
			p.Adopted()
			err := p.Admit(t.Context(), "1")
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("admitted with %v, want %q", err, c.want)
			}
			e.mu.Lock()
			defer e.mu.Unlock()
			if isolated := e.model != nil && len(e.model.Pods) > 0; isolated != c.isolated {
				t.Errorf("isolated: %t, want %t", isolated, c.isolated)
			}
		})
	}
}

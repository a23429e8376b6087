package consul

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes/consul/consultest"
)

// svc makes a route of a Service "namespace/name" with one port 80 and ready endpoints at the addresses.
func svc(name string, addresses ...string) *plan.Route {
	ns, n, _ := strings.Cut(name, "/")
	r := &plan.Route{
		Service: &plan.Service{
			Ref: object.Ref{Kind: "Service", Namespace: ns, Name: n}, Application: "app", SourceRevision: "rev1",
			Spec: &corev1.ServiceSpec{ClusterIP: "10.80.0.7"},
		},
		Ports: []plan.RoutePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}},
	}
	for i, a := range addresses {
		r.Endpoints = append(r.Endpoints, endpoint(plan.PodKey{Namespace: ns, Name: fmt.Sprintf("%s-%d", n, i)}, a, 8080))
	}
	return r
}

func endpoint(pod plan.PodKey, address string, ports ...int32) plan.Endpoint {
	return plan.Endpoint{Address: netip.MustParseAddr(address), Pod: pod, UID: "uid-" + pod.Name, Ports: ports, Ready: true, Serving: true, Weight: 1}
}

// with returns a changed copy of a route, as the node makes one.
func with(r *plan.Route, change func(r *plan.Route)) *plan.Route {
	c := *r
	service := *r.Service
	c.Service = &service
	c.Endpoints = slices.Clone(r.Endpoints)
	c.Ports = slices.Clone(r.Ports)
	change(&c)
	return &c
}

// registry returns a Registry of the agent that runs until the test ends.
func registry(t testing.TB, agent *consultest.Agent, change ...func(*Options)) *Registry {
	t.Helper()
	o := Options{Installation: "test", Settings: Settings{Address: agent.HTTP(), TTL: 10 * time.Second, Compare: 2 * time.Second, Timeout: 2 * time.Second}}
	for _, f := range change {
		f(&o)
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	run(t, r)
	return r
}

// run runs the Registry; what it returns ends that.
func run(t testing.TB, r *Registry) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	end = func() {
		if ctx.Err() != nil {
			return
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		r.Close()
	}
	t.Cleanup(end)
	return end
}

func set(t testing.TB, r *Registry, routes ...*plan.Route) {
	t.Helper()
	if err := r.Set(t.Context(), routes); err != nil {
		t.Fatalf("Set: %v", err)
	}
}

// setAgain calls Set until it succeeds, as the node does.
func setAgain(t testing.TB, r *Registry, routes ...*plan.Route) {
	t.Helper()
	eventually(t, func() string {
		if err := r.Set(t.Context(), routes); err != nil {
			return err.Error()
		}
		return ""
	})
}

// eventually waits until check returns "", which else says what is not as it should be. Consul's agents compare what they have with the
// servers once a minute, when nothing else makes them.
func eventually(t testing.TB, check func() string) {
	t.Helper()
	var last string
	for deadline := time.Now().Add(150 * time.Second); time.Now().Before(deadline); time.Sleep(30 * time.Millisecond) {
		if last = check(); last == "" {
			return
		}
	}
	t.Fatal(last)
}

// catalog returns the instances of everything in the catalog but Consul itself, one line each: name, address, status and tags.
func catalog(c *api.Client) ([]string, error) {
	services, _, err := c.Catalog().Services(&api.QueryOptions{RequireConsistent: true})
	if err != nil {
		return nil, err
	}
	var out []string
	for name := range services {
		if name == "consul" {
			continue
		}
		entries, _, err := c.Health().Service(name, "", false, &api.QueryOptions{RequireConsistent: true})
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			out = append(out, fmt.Sprintf("%s %s:%d %s %s", name, e.Service.Address, e.Service.Port, e.Checks.AggregatedStatus(), strings.Join(e.Service.Tags, ",")))
		}
	}
	slices.Sort(out)
	return out, nil
}

// wantCatalog waits until the catalog holds exactly that.
func wantCatalog(t testing.TB, c *api.Client, want ...string) {
	t.Helper()
	want = slices.Sorted(slices.Values(want)) // and the caller's as it was
	eventually(t, func() string {
		got, err := catalog(c)
		if err != nil {
			return err.Error()
		}
		return cmp.Diff(want, got, cmp.Transformer("nil", func(s []string) []string { return append([]string{}, s...) }))
	})
}

// wantCondition waits until the Registry says so.
func wantCondition(t testing.TB, r *Registry, code Code) {
	t.Helper()
	eventually(t, func() string {
		if c := r.Stats().Condition; c.Code != code {
			return fmt.Sprintf("condition is %+v, not %s", c, code)
		}
		return ""
	})
}

// indexes returns the ModifyIndex of every instance of ours: it stays as long as nothing is registered again with other content.
func indexes(t testing.TB, c *api.Client, name string) map[string]uint64 {
	t.Helper()
	out := map[string]uint64{}
	entries, _, err := c.Health().Service(name, "", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out[e.Service.ID] = e.Service.ModifyIndex
		for _, check := range e.Checks {
			if check.ServiceID != "" {
				out[check.CheckID] = check.ModifyIndex
			}
		}
	}
	if len(out) == 0 {
		t.Fatalf("nothing is registered as %s", name)
	}
	return maps.Clone(out)
}

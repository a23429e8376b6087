package consul

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes/consul/consultest"
)

// TestServersFail registers through a client agent of three servers while they go and come.
func TestServersFail(t *testing.T) {
	t.Parallel()
	servers := consultest.Cluster(t, 3)
	// The anti-entropy of an agent has a period of a minute, and it waits for a leader for 7 s in which it answers nothing
	// else; a test does not wait for that.
	client := consultest.Client(t, servers, consultest.With(map[string]any{
		"ae_interval": "5s", "performance": map[string]any{"raft_multiplier": 1, "rpc_hold_timeout": "300ms"},
	}))
	r := registry(t, client, func(o *Options) { o.Timeout = 5 * time.Second })

	// The leader is killed in the middle of changes. While there is none, the agent may not answer for some seconds.
	leader, err := servers[0].API().Status().Leader()
	if err != nil {
		t.Fatal(err)
	}
	host, _, _ := net.SplitHostPort(leader)
	i := slices.IndexFunc(servers, func(s *consultest.Agent) bool { return s.IP == host })
	if i < 0 {
		t.Fatalf("the leader %s is none of the servers", leader)
	}
	dead, alive := servers[i], slices.Delete(slices.Clone(servers), i, i+1)
	for n := range 40 {
		if n == 10 {
			dead.Kill()
		}
		setAgain(t, r, svc("default/web", "10.1.0.1", fmt.Sprintf("10.1.1.%d", n)), svc(fmt.Sprintf("default/s%d", n), "10.1.0.1"))
	}
	wantCatalog(t, alive[0].API(), "web 10.1.0.1:8080 passing tcp", "web 10.1.1.39:8080 passing tcp", "s39 10.1.0.1:8080 passing tcp")

	// Without a majority the agent is on its own: it accepts or does not answer, and all is well when the servers are there again.
	alive[1].Kill()
	eventually(t, func() string {
		if _, _, err := client.API().Catalog().Services(&api.QueryOptions{RequireConsistent: true}); err == nil {
			return "there still is a leader"
		}
		return ""
	})
	if err := r.Set(t.Context(), plan.Routes{svc("default/web", "10.1.0.1", "10.1.2.1")}); err != nil && !errors.Is(err, errUnavailable) {
		t.Errorf("Set without a leader: %v", err)
	}
	alive[1].Start()
	dead.Start()
	for _, s := range servers {
		s.WaitReady()
	}
	wantCatalog(t, dead.API(), "web 10.1.0.1:8080 passing tcp", "web 10.1.2.1:8080 passing tcp")
	wantCondition(t, r, Registered)
	registrations := r.Stats().Registrations

	// The servers lose everything: the agent has it all, and tells them again.
	for _, s := range servers {
		s.Kill()
		s.Wipe()
	}
	for _, s := range servers {
		s.Start()
	}
	for _, s := range servers {
		s.WaitReady()
	}
	if err := client.API().Agent().Join(servers[0].IP, false); err != nil {
		t.Fatal(err)
	}
	wantCatalog(t, servers[1].API(), "web 10.1.0.1:8080 passing tcp", "web 10.1.2.1:8080 passing tcp")
	if n := r.Stats().Registrations - registrations; n != 0 {
		t.Errorf("%d registrations: what the servers lost is the agent's to bring back", n)
	}
}

// TestNames asks Consul's name server and a prepared query.
func TestNames(t *testing.T) {
	t.Parallel()
	agent := consultest.Server(t)
	c := agent.API()
	r := registry(t, agent)
	web := svc("default/web", "10.1.0.1", "10.1.0.2", "10.1.0.3")
	shop := with(svc("shop/web", "10.1.0.4"), func(r *plan.Route) { r.Annotations = map[string]string{TagsAnnotation: "blue"} })
	set(t, r, web, shop)
	wantCatalog(t, c, "web 10.1.0.1:8080 passing tcp", "web 10.1.0.2:8080 passing tcp", "web 10.1.0.3:8080 passing tcp", "web-shop 10.1.0.4:8080 passing blue,tcp")

	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, agent.DNS())
	}}
	lookup := func(name string, want ...string) {
		t.Helper()
		eventually(t, func() string {
			got, err := resolver.LookupHost(t.Context(), name)
			if dns, ok := err.(*net.DNSError); err != nil && (!ok || !dns.IsNotFound) {
				return err.Error()
			}
			slices.Sort(got)
			return cmp.Diff(want, got)
		})
	}
	lookup("web.service.consul.", "10.1.0.1", "10.1.0.2", "10.1.0.3")
	lookup("web-shop.service.consul.", "10.1.0.4")
	lookup("blue.web-shop.service.consul.", "10.1.0.4")
	lookup("green.web-shop.service.consul.")
	_, records, err := resolver.LookupSRV(t.Context(), "", "", "web-shop.service.consul.")
	if err != nil || len(records) != 1 || records[0].Port != 8080 {
		t.Errorf("SRV: %v, %v", records, err)
	}

	// A prepared query finds them by name and tag.
	id, _, err := c.PreparedQuery().Create(&api.PreparedQueryDefinition{Name: "shop", Service: api.ServiceQuery{Service: "web-shop", OnlyPassing: true, Tags: []string{"blue"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	query := func() (out []string) {
		t.Helper()
		answer, _, err := c.PreparedQuery().Execute(id, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range answer.Nodes {
			out = append(out, fmt.Sprintf("%s:%d", n.Service.Address, n.Service.Port))
		}
		return out
	}
	if diff := cmp.Diff([]string{"10.1.0.4:8080"}, query()); diff != "" {
		t.Error(diff)
	}
	lookup("shop.query.consul.", "10.1.0.4")

	set(t, r, with(web, func(r *plan.Route) {
		r.Endpoints[1].Ready, r.Endpoints[1].Serving = false, false
		r.Endpoints[2].Ready, r.Endpoints[2].Terminating = false, true
	}), with(shop, func(r *plan.Route) { r.Endpoints = nil }))
	lookup("web.service.consul.", "10.1.0.1")
	lookup("shop.query.consul.")
}

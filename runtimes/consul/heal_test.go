package consul

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes/consul/consultest"
)

// TestAgentLosesWhatWasRegistered restarts the agent with and without its memory, and changes entries behind its back.
func TestAgentLosesWhatWasRegistered(t *testing.T) {
	t.Parallel()
	agent := consultest.Server(t)
	c := agent.API()
	r := registry(t, agent)
	foreign := &api.AgentServiceRegistration{ID: "mine", Name: "web", Address: "192.0.2.1", Port: 1}
	if err := c.Agent().ServiceRegister(foreign); err != nil {
		t.Fatal(err)
	}
	var many []string
	want := []string{"web 192.0.2.1:1 passing "}
	for i := range 20 {
		a := fmt.Sprintf("10.1.0.%d", i+1)
		many, want = append(many, a), append(want, "web "+a+":8080 passing tcp")
	}
	set(t, r, svc("default/web", many...))
	wantCatalog(t, c, want...)

	t.Run("kept over a restart", func(t *testing.T) {
		before, registered := indexes(t, c, "web"), r.Stats().Registrations
		agent.Kill()
		wantCondition(t, r, Unavailable)
		if err := r.Set(t.Context(), plan.Routes{svc("default/web", many[:19]...)}); !errors.Is(err, errUnavailable) {
			t.Errorf("Set without an agent: %v", err)
		}
		if err := r.Set(t.Context(), plan.Routes{svc("default/web", many...)}); err != nil && !errors.Is(err, errUnavailable) {
			t.Errorf("Set without an agent: %v", err)
		}
		agent.Start()
		agent.WaitReady()
		wantCondition(t, r, Registered)
		wantCatalog(t, c, want...)
		if n := r.Stats().Registrations - registered; n > 1 {
			t.Errorf("%d registrations after a restart that lost nothing", n)
		}
		after := indexes(t, c, "web")
		for id, index := range before {
			if strings.Contains(id, "default-web") && !strings.HasPrefix(id, "service:") && after[id] != index {
				t.Errorf("%s was registered again: index %d, then %d", id, index, after[id])
			}
		}
	})
	t.Run("wiped", func(t *testing.T) {
		agent.Kill()
		agent.Wipe()
		agent.Start()
		agent.WaitReady()
		wantCatalog(t, c, want[1:]...) // what others had registered is theirs to bring back
		wantCondition(t, r, Registered)
		if err := c.Agent().ServiceRegister(foreign); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("changed by others", func(t *testing.T) {
		var ids []string
		services, err := c.Agent().ServicesWithFilter(`ID contains "fairlead-test-"`)
		if err != nil {
			t.Fatal(err)
		}
		for id := range services {
			ids = append(ids, id)
		}
		s := services[ids[0]]
		if err := errors.Join(
			c.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: s.ID, Name: s.Service, Address: "192.0.2.9", Port: 9, Meta: s.Meta}),
			c.Agent().ServiceDeregister(ids[1]),
			c.Agent().CheckDeregister("service:"+ids[2]),
			// Ours by ID and meta, and wanted by nobody.
			c.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "fairlead-test-stray", Name: "stray", Meta: map[string]string{metaSource: source, metaInstallation: "test"}}),
		); err != nil {
			t.Fatal(err)
		}
		wantCatalog(t, c, want...)
		eventually(t, func() string {
			checks, err := c.Agent().Checks()
			if err != nil || len(checks) != len(many) {
				return fmt.Sprintf("%d checks, %v", len(checks), err)
			}
			return ""
		})
		// From the servers' catalog: the agent itself brings it back.
		if _, err := c.Catalog().Deregister(&api.CatalogDeregistration{Node: "server", ServiceID: ids[3]}, nil); err != nil {
			t.Fatal(err)
		}
		set(t, r, svc("default/web", many...))
		if n := r.Stats().Registered; n != len(many) {
			t.Errorf("%d registered", n)
		}
	})
}

// TestAnIDThatOthersHave is not taken from them.
func TestAnIDThatOthersHave(t *testing.T) {
	t.Parallel()
	agent := consultest.Server(t)
	c := agent.API()
	r := registry(t, agent)
	web := svc("default/web", "10.1.0.1", "10.1.0.2")
	ns := r.naming.assign(plan.Routes{web})
	taken := r.naming.instances(web, ns[web.Ref])[0]
	if err := c.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: taken.ID, Name: "vault", Address: "192.0.2.1", Port: 1}); err != nil {
		t.Fatal(err)
	}
	if err := r.Set(t.Context(), plan.Routes{web}); !errors.Is(err, errConflict) {
		t.Errorf("Set: %v, not a conflict", err)
	}
	wantCondition(t, r, Conflict)
	var other string
	for _, e := range web.Endpoints {
		if e.Address.String() != taken.Address {
			other = "web " + e.Address.String() + ":8080 passing tcp"
		}
	}
	wantCatalog(t, c, "vault 192.0.2.1:1 passing ", other)
	if err := r.Set(t.Context(), plan.Routes{}); err != nil {
		t.Error(err)
	}
	wantCatalog(t, c, "vault 192.0.2.1:1 passing ")
	if err := c.Agent().ServiceDeregister(taken.ID); err != nil {
		t.Fatal(err)
	}
	_ = r.Set(t.Context(), plan.Routes{web})
	wantCondition(t, r, Registered)
	wantCatalog(t, c, "web 10.1.0.1:8080 passing tcp", "web 10.1.0.2:8080 passing tcp")
}

// TestFairleadDies holds that checks go critical by themselves, and that who comes after takes over what is there.
func TestFairleadDies(t *testing.T) {
	t.Parallel()
	agent := consultest.Server(t)
	c := agent.API()
	first := registry(t, agent)
	end := run(t, first)
	web := svc("default/web", "10.1.0.1", "10.1.0.2")
	set(t, first, web)
	wantCatalog(t, c, "web 10.1.0.1:8080 passing tcp", "web 10.1.0.2:8080 passing tcp")
	checks, err := c.Agent().Checks()
	if err != nil || len(checks) != 2 {
		t.Fatalf("checks: %v, %v", checks, err)
	}

	// While it lives, nothing expires: the TTL is 10 s, and half of it is the longest pause.
	before := indexes(t, c, "web")
	for start := time.Now(); time.Since(start) < 12*time.Second; time.Sleep(500 * time.Millisecond) {
		if diff := cmp.Diff(before, indexes(t, c, "web")); diff != "" {
			t.Fatalf("something changed without a cause: %s", diff)
		}
	}
	if n := first.Stats().Passes; n < 4 {
		t.Errorf("%d checks passed in 12 s", n)
	}
	end()
	first.Close()
	if err := first.Set(t.Context(), plan.Routes{}); !errors.Is(err, errClosed) {
		t.Errorf("Set after Close: %v", err)
	}
	wantCatalog(t, c, "web 10.1.0.1:8080 critical tcp", "web 10.1.0.2:8080 critical tcp")

	second := registry(t, agent)
	set(t, second, svc("default/web", "10.1.0.2", "10.1.0.3"))
	wantCatalog(t, c, "web 10.1.0.2:8080 passing tcp", "web 10.1.0.3:8080 passing tcp")
	if s := second.Stats(); s.Registrations != 2 && s.Registrations != 3 {
		// svc names pods by their number, so both endpoints are other ones; only their number is the same.
		t.Errorf("%d registrations", s.Registrations)
	}
}

// TestTakesOverWithoutChange holds that a new process registers nothing again.
func TestTakesOverWithoutChange(t *testing.T) {
	t.Parallel()
	agent := consultest.Server(t)
	c := agent.API()
	first := registry(t, agent)
	web := svc("default/web", "10.1.0.1", "10.1.0.2")
	set(t, first, web)
	wantCatalog(t, c, "web 10.1.0.1:8080 passing tcp", "web 10.1.0.2:8080 passing tcp")
	before := indexes(t, c, "web")
	second := registry(t, agent)
	set(t, second, with(web, func(r *plan.Route) { r.SourceRevision = "rev2" }))
	if n := second.Stats().Registrations; n != 0 {
		t.Errorf("%d registrations of what was registered already", n)
	}
	eventually(t, func() string {
		if second.Stats().Passes < 2 {
			return "what was taken over is not passed"
		}
		return ""
	})
	if diff := cmp.Diff(before, indexes(t, c, "web")); diff != "" {
		t.Error(diff)
	}
}

const tokenID = "99999999-2222-3333-4444-555555555555"

// token makes a token that may register names that begin with the prefix.
func token(t testing.TB, c *api.Client, secret, prefix string) (accessor string) {
	t.Helper()
	tok, _, err := c.ACL().TokenCreate(&api.ACLToken{SecretID: secret, ServiceIdentities: nil, Policies: []*api.ACLTokenPolicyLink{{Name: policy(t, c, prefix)}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return tok.AccessorID
}

func policy(t testing.TB, c *api.Client, prefix string) string {
	t.Helper()
	name := "write-" + prefix
	if p, _, _ := c.ACL().PolicyReadByName(name, nil); p != nil {
		return name
	}
	if _, _, err := c.ACL().PolicyCreate(&api.ACLPolicy{Name: name, Rules: fmt.Sprintf(`service_prefix %q { policy = "write" }`, prefix)}, nil); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestToken takes the token's rights away and gives them back.
func TestToken(t *testing.T) {
	t.Parallel()
	agent := consultest.Server(t, consultest.ACL, func(c map[string]any) {
		acl := c["acl"].(map[string]any)
		acl["token_ttl"], acl["policy_ttl"], acl["role_ttl"] = "100ms", "100ms", "100ms"
	})
	c := agent.API()
	var events []Code
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(tokenID)
	codes := make(chan Code, 100)
	r := registry(t, agent, func(o *Options) {
		o.TokenFile = file
		o.Event = func(c Condition) { codes <- c.Code }
	})
	web := svc("default/web", "10.1.0.1")

	// A token that does not exist.
	if err := r.Set(t.Context(), plan.Routes{web}); !errors.Is(err, errDenied) {
		t.Fatalf("Set with an unknown token: %v", err)
	}
	wantCondition(t, r, Denied)
	accessor := token(t, c, tokenID, "web")
	wantCatalog(t, c, "web 10.1.0.1:8080 passing tcp")
	wantCondition(t, r, Registered)

	// Names that the token does not allow do not hold up the others.
	var routes plan.Routes
	for i := range 3 {
		routes = append(routes, svc(fmt.Sprintf("default/a%d", i), "10.1.0.9"))
	}
	web2 := svc("default/web", "10.1.0.1", "10.1.0.2")
	routes = append(routes, web2)
	if err := r.Set(t.Context(), routes); !errors.Is(err, errDenied) {
		t.Fatalf("Set of names that are not allowed: %v", err)
	}
	wantCatalog(t, c, "web 10.1.0.1:8080 passing tcp", "web 10.1.0.2:8080 passing tcp")
	if got := r.Stats(); got.Condition.Code != Denied || !strings.Contains(got.Condition.Message, "service:write") || got.Pending != 3 || got.Registered != 2 {
		t.Errorf("stats %+v", got)
	}
	set(t, r, web2)
	eventually(t, func() string { // the next comparison finds that all is well
		if c := r.Stats().Condition; c.Code != Registered {
			return string(c.Code)
		}
		return ""
	})
	for len(codes) > 0 {
		events = append(events, <-codes)
	}
	if diff := cmp.Diff([]Code{Denied, Registered, Denied, Registered}, events); diff != "" {
		t.Errorf("events: %s", diff)
	}

	// Revoked while everything is registered: what is there stays; the same token again, and nothing is registered anew.
	before, registered := indexes(t, c, "web"), r.Stats().Registrations
	if _, err := c.ACL().TokenDelete(accessor, nil); err != nil {
		t.Fatal(err)
	}
	wantCondition(t, r, Denied)
	accessor = token(t, c, tokenID, "web")
	wantCondition(t, r, Registered)
	if n := r.Stats().Registrations - registered; n != 0 {
		t.Errorf("%d registrations after the token came back", n)
	}
	after := indexes(t, c, "web")
	for id, index := range before {
		if strings.HasPrefix(id, "fairlead-") && after[id] != index {
			t.Errorf("%s was registered again", id)
		}
	}
	// Another token in the file is taken without a restart.
	if _, err := c.ACL().TokenDelete(accessor, nil); err != nil {
		t.Fatal(err)
	}
	wantCondition(t, r, Denied)
	write(consultest.RootToken)
	wantCondition(t, r, Registered)
	set(t, r, append(routes[:3:3], web2)...)
	if got := r.Stats().Registered; got != 5 {
		t.Errorf("%d registered with a token that may do everything", got)
	}
}

// TestStoppedAgent holds that an agent that does not answer holds up nobody for longer than the timeout.
func TestStoppedAgent(t *testing.T) {
	t.Parallel()
	agent := consultest.Server(t)
	c := agent.API()
	r := registry(t, agent, func(o *Options) { o.Timeout = time.Second })
	set(t, r, svc("default/web", "10.1.0.1", "10.1.0.2"))
	wantCatalog(t, c, "web 10.1.0.1:8080 passing tcp", "web 10.1.0.2:8080 passing tcp")
	agent.Stop()
	defer agent.Continue()
	var all plan.Routes
	for i := range 100 {
		all = append(all, svc(fmt.Sprintf("default/s%03d", i), "10.1.0.1", "10.1.0.2"))
	}
	// Two hundred registrations and two removals: were each waited for, this would take minutes.
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := r.Set(ctx, all); !errors.Is(err, errUnavailable) {
		t.Errorf("Set with an agent that does not answer: %v", err)
	}
	wantCondition(t, r, Unavailable)
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := r.Set(short, all); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Set that may wait for 10 ms: %v", err)
	}
	agent.Continue()
	wantCondition(t, r, Registered)
	var want []string
	for i := range 100 {
		for j := range 2 {
			want = append(want, fmt.Sprintf("s%03d 10.1.0.%d:8080 passing tcp", i, j+1))
		}
	}
	wantCatalog(t, c, want...)
}

package consul

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes/consul/consultest"
)

// TestRegistration shows what is registered, and follows it through changes.
func TestRegistration(t *testing.T) {
	t.Parallel()
	agent := consultest.Server(t)
	c := agent.API()
	r := registry(t, agent, func(o *Options) {
		o.Tags, o.Prefix = []string{"prod"}, "x-"
		o.ClusterAddresses, o.NodePorts = true, true
	})
	// Someone else's service under a name of ours, with meta like ours but another installation.
	for _, foreign := range []*api.AgentServiceRegistration{
		{ID: "mine", Name: "x-web", Address: "192.0.2.1", Port: 1},
		{ID: "fairlead-other-1", Name: "x-web", Address: "192.0.2.2", Port: 1, Meta: map[string]string{metaSource: source, metaInstallation: "other"}},
	} {
		if err := c.Agent().ServiceRegister(foreign); err != nil {
			t.Fatal(err)
		}
	}
	others := []string{"x-web 192.0.2.1:1 passing ", "x-web 192.0.2.2:1 passing "}

	web := svc("default/web", "10.1.0.1", "10.1.0.2")
	db := with(svc("shop/db", "10.1.0.3"), func(r *plan.Route) {
		r.Spec = &corev1.ServiceSpec{ClusterIP: "None"}
		r.Annotations = map[string]string{TagsAnnotation: "primary, eu"}
		r.Ports = []plan.RoutePort{{Name: "sql", Protocol: "TCP", Port: 5432}, {Name: "stats", Protocol: "UDP", Port: 99}}
		r.Endpoints[0].Ports = []int32{5432, 0}
		r.Endpoints = append(r.Endpoints, endpoint(plan.PodKey{Namespace: "shop", Name: "db-1"}, "10.1.0.4", 5432, 99))
	})
	out := with(svc("default/out", "10.1.0.9"), func(r *plan.Route) { r.Annotations = map[string]string{RegisterAnnotation: "false"} })
	named := with(svc("default/named", "10.1.0.8"), func(r *plan.Route) {
		r.Annotations = map[string]string{NameAnnotation: "other-name"}
		r.Ports[0].NodePort = 30080
	})
	set(t, r, web, out, named, db)
	base := append(others,
		"x-web 10.1.0.1:8080 passing prod,tcp",
		"x-web 10.1.0.2:8080 passing prod,tcp",
		"x-web-cluster 10.80.0.7:80 passing prod,tcp,cluster",
		"other-name 10.1.0.8:8080 passing prod,tcp",
		"other-name-cluster 10.80.0.7:80 passing prod,tcp,cluster",
		"other-name-nodeport :30080 passing prod,tcp,nodeport")
	wantCatalog(t, c, append([]string{
		"x-db-shop-sql 10.1.0.3:5432 passing prod,primary,eu,tcp",
		"x-db-shop-sql 10.1.0.4:5432 passing prod,primary,eu,tcp",
		"x-db-shop-stats 10.1.0.4:99 passing prod,primary,eu,udp"}, base...)...)

	got, _, err := c.Catalog().Service("x-db-shop-stats", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{
		"external-source": "fairlead", "fairlead-installation": "test", "application": "app", "revision": "rev1",
		"namespace": "shop", "service": "db", "port": "stats", "pod": "shop/db-1",
	}, got[0].ServiceMeta); diff != "" {
		t.Error(diff)
	}

	// A Service goes, an endpoint becomes unready, one terminates, weights change. What did not change is left alone.
	before := indexes(t, c, "x-web-cluster")
	web2 := with(web, func(r *plan.Route) {
		r.SourceRevision = "rev2"
		r.Endpoints[0].Ready, r.Endpoints[0].Terminating = false, true
		r.Endpoints[1].Weight = 7
	})
	calls := r.Stats()
	set(t, r, web2, out, named)
	after := r.Stats()
	if n := after.Registrations - calls.Registrations; n != 1 {
		t.Errorf("%d registrations for one changed weight", n)
	}
	if n := after.Deregistrations - calls.Deregistrations; n != 4 {
		t.Errorf("%d deregistrations for four instances that go", n)
	}
	wantCatalog(t, c, append(others,
		"x-web 10.1.0.2:8080 passing prod,tcp",
		"x-web-cluster 10.80.0.7:80 passing prod,tcp,cluster",
		"other-name 10.1.0.8:8080 passing prod,tcp",
		"other-name-cluster 10.80.0.7:80 passing prod,tcp,cluster",
		"other-name-nodeport :30080 passing prod,tcp,nodeport")...)
	if diff := cmp.Diff(before, indexes(t, c, "x-web-cluster")); diff != "" {
		t.Errorf("what did not change was registered again: %s", diff)
	}

	// Strays of ours go, what others have stays, also at the end.
	set(t, r)
	wantCatalog(t, c, others...)
	set(t, r, web)
	if err := r.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCatalog(t, c, others...)
	// A node that has pods again after all were taken away registers again.
	set(t, r)
	wantCatalog(t, c, others...)
	set(t, r, web)
	eventually(t, func() string {
		if got, err := catalog(c); err != nil || len(got) <= len(others) {
			return fmt.Sprintf("registered are %q, %v", got, err)
		}
		return ""
	})
	if err := r.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCatalog(t, c, others...)
}

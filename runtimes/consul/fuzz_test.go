package consul

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// FuzzList reads arbitrary answers of an agent: nothing panics, and what is no list of services is an error.
func FuzzList(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":{"ID":"a","Service":"x","Port":80,"Tags":["t"],"Meta":{"a":"b"},"Weights":{"Passing":1}}}`, `{"a":null}`, `[]`, `null`, `{"a":{"Port":1e99}}`, "<html>"} {
		f.Add([]byte(s), []byte(`{"service:a":{"ServiceID":"a","Type":"ttl","Status":"critical"}}`))
	}
	var services, checks []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/agent/services") {
			_, _ = w.Write(services)
		} else {
			_, _ = w.Write(checks)
		}
	}))
	f.Cleanup(server.Close)
	o, _, err := Options{Installation: "test", Settings: Settings{Address: server.URL, Timeout: 5 * time.Second}}.complete()
	if err != nil {
		f.Fatal(err)
	}
	a := &agent{opt: o, observe: func(time.Duration, error) {}}
	f.Fuzz(func(t *testing.T, list, states []byte) {
		services, checks = list, states
		found, err := a.list(t.Context())
		if err != nil && len(found) > 0 {
			t.Errorf("%d services and %v", len(found), err)
		}
		for id, s := range found {
			if s == nil || s.ID != id {
				t.Errorf("%q is %+v", id, s)
			}
		}
	})
}

// FuzzNames names Services with arbitrary annotations: nothing panics, and every name is a label of DNS.
func FuzzNames(f *testing.F) {
	f.Add("web", "shop", "billing", "a, b,,c", "http")
	f.Add("web", "shop", "-x-", strings.Repeat("t,", 300), "UPPER")
	f.Add("w.eb", "s_hop", strings.Repeat("n", 64), "\xff\x00", "")
	f.Fuzz(func(t *testing.T, name, namespace, chosen, tags, port string) {
		s := &plan.Service{
			Ref:         object.Ref{Kind: "Service", Namespace: namespace, Name: name},
			Annotations: map[string]string{NameAnnotation: chosen, TagsAnnotation: tags},
			Spec:        &corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: port, Port: 80}, {Name: port + "2", Port: 81}}},
		}
		got, err := Names(Options{Installation: "test"}, []*plan.Service{s})
		if err != nil {
			t.Fatal(err)
		}
		for _, list := range got {
			for _, n := range list {
				if len(n) > maxLabel || label.FindString(n) != n {
					t.Errorf("%q is no label", n)
				}
			}
		}
	})
}

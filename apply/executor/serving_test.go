package executor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/fake"
)

// recorder is a Registry that remembers what it was set to and what the engine had been asked for until then.
type recorder struct {
	name   string
	engine *fake.Engine

	mu    sync.Mutex
	slow  time.Duration
	err   error
	tries int
	sets  []string // of the calls that succeeded: a line each
	last  plan.Routes
	busy  bool
}

func (r *recorder) Name() string { return r.name }

func (r *recorder) Set(ctx context.Context, routes plan.Routes) error {
	r.mu.Lock()
	if r.busy {
		panic("two calls of Set at a time")
	}
	r.busy = true
	r.tries++
	slow := r.slow
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.busy = false
		r.mu.Unlock()
	}()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	r.sets = append(r.sets, shown(routes))
	r.last = routes
	return nil
}

func (r *recorder) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// shown is routes in a line: name[endpoints], a pod's name for a ready one, (name) for another.
func shown(routes plan.Routes) string {
	var b strings.Builder
	for _, r := range routes {
		var of []string
		for _, e := range r.Endpoints {
			name := e.Pod.Name
			if name == "" {
				name = e.Address.String()
			}
			if !e.Ready {
				name = "(" + name + ")"
			}
			of = append(of, name)
		}
		fmt.Fprintf(&b, "%s[%s]", r.Name, strings.Join(of, " "))
	}
	return b.String()
}

// now is what the registry was last set to.
func (r *recorder) now() string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sets) == 0 {
		return ""
	}
	return r.sets[len(r.sets)-1]
}

// since are the sets after a number of them.
func (r *recorder) since(n int) []string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.sets[n:]...)
}

func (r *recorder) count() int { return len(r.since(0)) }

// inServices is inWorld with one recorder for each gate.
func inServices(t *testing.T, gates []time.Duration, test func(w *world, r []*recorder)) {
	t.Helper()
	inWorld(t, func(w *world) {
		w.close()
		var list []*recorder
		for i, gate := range gates {
			r := &recorder{name: fmt.Sprintf("r%d", i), engine: w.engine}
			list = append(list, r)
			w.registries = append(w.registries, Registered{Registry: r, Gate: gate})
		}
		w.open()
		test(w, list)
	})
}

// service selects pods by the label app.
func service(name string, change ...func(*plan.Service)) *plan.Service {
	s := &plan.Service{
		Ref: object.Ref{Kind: "Service", Namespace: "ns", Name: name}, Application: "shop",
		Spec: &corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, Selector: map[string]string{"app": name}, ClusterIP: corev1.ClusterIPNone,
			Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(8080)}},
		},
	}
	for _, f := range change {
		f(s)
	}
	s.Hash = fmt.Sprint(name, s.Spec, s.LoadBalancerIPs)
	return s
}

func at(ip string) func(*plan.Service) {
	return func(s *plan.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = ip, []string{ip} }
}

// labelled is onePod with the label app.
func labelled(name, app string, change ...func(*corev1.PodSpec)) *plan.Pod {
	p := onePod(name, change...)
	p.Labels = map[string]string{"app": app}
	return p
}

func probed() func(*corev1.PodSpec) {
	return web(func(c *corev1.Container) {
		c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{}}, PeriodSeconds: 1, FailureThreshold: 1, SuccessThreshold: 1}
	})
}

var sameAddress = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestServicesFollowPods(t *testing.T) {
	inServices(t, []time.Duration{0}, func(w *world, r []*recorder) {
		if diff := cmp.Diff([]string{""}, r[0].since(0)); diff != "" {
			t.Error(diff) // set once to nothing, when the pods were adopted
		}
		w.must(plan.SetService{Service: service("a")})
		w.must(plan.SetService{Service: service("b")})
		synctest.Wait()
		w.must(plan.CreatePod{Pod: labelled("p", "a", probed())})
		w.must(plan.WaitReady{Pod: key("p")})
		if got := r[0].now(); got != "a[p]b[]" {
			t.Error(got)
		}
		before := w.node.Routes()
		w.prober.set("web", true)
		sleep(2 * time.Second)
		if got := r[0].now(); got != "a[(p)]b[]" {
			t.Error(got)
		}
		after := w.node.Routes()
		if after[0] == before[0] || after[1] != before[1] {
			t.Error("the Route that changed is not the only one with another pointer")
		}
		if got := after[0].Missing; len(got) != 1 || !strings.Contains(got[0].Reason, "sick") {
			t.Errorf("missing: %v", got)
		}
		w.prober.set("web", false)
		sleep(2 * time.Second)
		changed := labelled("p", "b", probed())
		w.must(plan.UpdatePod{Pod: changed})
		if got := r[0].now(); got != "a[]b[p]" {
			t.Error(got)
		}
		n := r[0].count()
		sleep(10 * time.Minute)
		if got := r[0].since(n); len(got) != 0 {
			t.Errorf("nothing happens, and the registry was set to %v", got)
		}
		w.must(plan.DeletePod{Pod: key("p")})
		if got := r[0].now(); got != "a[]b[]" {
			t.Error(got)
		}
		w.must(plan.DeleteService{Service: service("a").Ref, Application: "other"})
		w.must(plan.DeleteService{Service: service("b").Ref, Application: "shop"})
		w.must(plan.DeleteService{Service: service("b").Ref, Application: "shop"})
		if got := r[0].now(); got != "a[]" {
			t.Error(got)
		}
	})
}

// A list of the engine's containers tells of many pods at once: the registries do not get a part of that first.
func TestWhatChangesTogetherIsSetAtOnce(t *testing.T) {
	inServices(t, []time.Duration{0}, func(w *world, r []*recorder) {
		w.close()
		w.gather = Gather
		w.open()
		w.must(plan.SetService{Service: service("a")})
		for _, name := range []string{"p", "q", "s"} {
			w.must(plan.CreatePod{Pod: labelled(name, "a")})
			w.must(plan.WaitReady{Pod: key(name)})
		}
		sleep(time.Second)
		n := r[0].count()
		w.engine.DropEvents(true)
		for _, c := range w.engine.Containers() {
			if c.Container.Container == "web" {
				w.engine.Hand().Pause(c.ID)
			}
		}
		w.engine.DropEvents(false)
		sleep(3 * time.Minute)
		if diff := cmp.Diff([]string{"a[(p) (q) (s)]"}, r[0].since(n)); diff != "" {
			t.Errorf("sets of the registry when three pods are found to be paused (-want +got):\n%s", diff)
		}
	})
}

// TestServicesOutliveTheDaemon restarts the node with Services, hand-written endpoints and pods.
func TestServicesOutliveTheDaemon(t *testing.T) {
	inServices(t, []time.Duration{time.Second}, func(w *world, r []*recorder) {
		written := &plan.EndpointSlice{
			Ref: object.Ref{Group: "discovery.k8s.io", Kind: "EndpointSlice", Namespace: "ns", Name: strings.Repeat("long.", 50) + "x"}, Application: "shop",
			Service: service("db").Ref, Hash: "h",
			Value: []*discoveryv1.EndpointSlice{{AddressType: discoveryv1.AddressTypeIPv4,
				Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.9"}}}, Ports: []discoveryv1.EndpointPort{{Port: new(int32(5432))}}}},
		}
		w.must(plan.SetEndpoints{Endpoints: written})
		w.must(plan.SetService{Service: service("db", at("10.96.0.9"), func(s *plan.Service) {
			s.Spec.Selector, s.LoadBalancerIPs, s.Balancing = nil, []netip.Addr{netip.MustParseAddr("192.0.2.1")}, plan.RoundRobin
			s.Labels, s.Annotations, s.SourceRevision = map[string]string{"l": "1"}, map[string]string{"a": "2"}, "rev"
		})})
		w.must(plan.SetService{Service: service("gone")})
		w.must(plan.SetService{Service: service("web")})
		w.must(plan.DeleteService{Service: service("gone").Ref, Application: "shop"})
		w.must(plan.CreatePod{Pod: labelled("p", "web", probed())})
		w.must(plan.WaitReady{Pod: key("p")})
		before, err := w.node.Observe(w.t.Context())
		if err != nil {
			t.Fatal(err)
		}
		routes := w.node.Routes()
		if got := shown(routes); got != "db[192.0.2.9]web[p]" {
			t.Fatal(got)
		}
		w.close()
		n := r[0].count()
		w.engine.Down() // the engine comes later than the daemon
		w.open()
		sleep(time.Minute)
		if got := r[0].since(n); len(got) != 0 {
			t.Errorf("set to %v before anybody knew which pods there are", got)
		}
		w.engine.Up()
		sleep(time.Minute)
		if diff := cmp.Diff([]string{"db[192.0.2.9]web[p]"}, r[0].since(n)); diff != "" {
			t.Error(diff)
		}
		after, err := w.node.Observe(w.t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before.Services, after.Services, sameAddress); diff != "" || len(after.Services) != 2 {
			t.Error(diff)
		}
		if diff := cmp.Diff(before.Endpoints, after.Endpoints); diff != "" || len(after.Endpoints) != 1 {
			t.Error(diff)
		}
		if diff := cmp.Diff(routes, w.node.Routes(), sameAddress); diff != "" {
			t.Error(diff)
		}
		// A node that only looks shows the same and serves nothing.
		n = r[0].count()
		o := w.options()
		o.ReadOnly = true
		looks, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		state, err := looks.Observe(w.t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before.Services, state.Services, sameAddress); diff != "" {
			t.Error(diff)
		}
		synctest.Wait()
		if got := r[0].since(n); len(got) != 0 {
			t.Errorf("a node that only looks set %v", got)
		}
		if err := looks.Close(); err != nil {
			t.Error(err)
		}
		w.must(plan.DeleteEndpoints{Endpoints: written.Ref, Application: "other"})
		if got := r[0].now(); got != "db[192.0.2.9]web[p]" {
			t.Error(got)
		}
		w.must(plan.DeleteEndpoints{Endpoints: written.Ref, Application: "shop"})
		if got := r[0].now(); got != "db[]web[p]" {
			t.Error(got)
		}
		w.must(plan.DeleteService{Service: service("db").Ref, Application: "shop"})
		w.must(plan.DeleteService{Service: service("web").Ref, Application: "shop"})
		files, err := os.ReadDir(filepath.Join(w.dir, "services"))
		if err != nil || len(files) != 0 {
			t.Errorf("left over: %v, %v", files, err)
		}
	})
}

func TestFilesThatCannotBeReadAreReportedAndLeftAlone(t *testing.T) {
	inServices(t, []time.Duration{0}, func(w *world, r []*recorder) {
		w.must(plan.SetService{Service: service("a")})
		w.must(plan.SetService{Service: service("b")})
		w.close()
		bad := filepath.Join(w.dir, "services", "service_ns_a.json")
		if err := os.WriteFile(bad, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		w.open()
		if got := r[0].now(); got != "b[]" {
			t.Error(got)
		}
		if len(w.trouble) != 1 || !strings.Contains(w.trouble[0].Error(), bad) {
			t.Errorf("trouble: %v", w.trouble)
		}
		if data, err := os.ReadFile(bad); err != nil || string(data) != "{" {
			t.Errorf("%q, %v", data, err)
		}
		w.must(plan.SetService{Service: service("a")})
		if got := r[0].now(); got != "a[]b[]" {
			t.Error(got)
		}
	})
}

func TestServicesWhoseFileCannotBeWrittenAreNotServed(t *testing.T) {
	inServices(t, []time.Duration{0}, func(w *world, r []*recorder) {
		dir := filepath.Join(w.dir, "services")
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		if err := w.do(plan.SetService{Service: service("a", at("10.96.0.1"))}); err == nil || !strings.Contains(err.Error(), "ns/a") {
			t.Error(err)
		}
		if got := r[0].now(); got != "" {
			t.Error(got)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		w.must(plan.SetService{Service: service("b", at("10.96.0.1"))}) // the address is free again
		w.must(plan.SetService{Service: service("a", at("10.96.0.2"))})
		if got := r[0].now(); got != "a[]b[]" {
			t.Error(got)
		}
	})
}

func TestServicesDoNotShareAddresses(t *testing.T) {
	ip := netip.MustParseAddr("192.0.2.7")
	inServices(t, nil, func(w *world, _ []*recorder) {
		first := service("first", at("10.96.0.1"), func(s *plan.Service) {
			s.LoadBalancerIPs = []netip.Addr{ip}
			s.Spec.Ports[0].NodePort, s.Spec.HealthCheckNodePort = 30080, 30081
		})
		w.must(plan.SetService{Service: first})
		for name, c := range map[string]struct {
			change func(*plan.Service)
			want   string
		}{
			"cluster address":       {at("10.96.0.1"), "set Service ns/second: the cluster address 10.96.0.1 is that of Service ns/first: "},
			"node port":             {func(s *plan.Service) { s.Spec.Ports[0].NodePort = 30080 }, "set Service ns/second: the node port 30080 (TCP) is that of Service ns/first: "},
			"health check port":     {func(s *plan.Service) { s.Spec.HealthCheckNodePort = 30080 }, "set Service ns/second: the node port 30080 (TCP) is that of Service ns/first: "},
			"load balancer address": {func(s *plan.Service) { s.LoadBalancerIPs = []netip.Addr{ip} }, "set Service ns/second: the load balancer address 192.0.2.7 port 80 (TCP) is that of Service ns/first: "},
		} {
			err := w.do(plan.SetService{Service: service("second", c.change)})
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || !errors.Is(err, runtimes.ErrConflict) {
				t.Errorf("%s: %v", name, err)
			}
		}
		w.must(plan.SetService{Service: service("second", at("10.96.0.2"), func(s *plan.Service) {
			s.LoadBalancerIPs = []netip.Addr{ip}
			s.Spec.Ports[0].Port, s.Spec.Ports[0].NodePort, s.Spec.Ports[0].Protocol = 81, 30080, corev1.ProtocolUDP
		})})
		w.must(plan.SetService{Service: service("first", at("10.96.0.3"))})
		w.must(plan.SetService{Service: service("third", at("10.96.0.1"))}) // given back
		w.must(plan.DeleteService{Service: service("third").Ref, Application: "shop"})
		w.restart()
		w.must(plan.SetService{Service: service("fourth", at("10.96.0.1"))})
		if err := w.do(plan.SetService{Service: service("fifth", at("10.96.0.3"))}); err == nil {
			t.Error("after a restart the addresses of others are free")
		}
	})
}

// TestContainersKnowTheirServices: variables are those of the moment when a container is made, and a Service that comes
// later restarts nothing.
func TestContainersKnowTheirServices(t *testing.T) {
	inServices(t, nil, func(w *world, _ []*recorder) {
		env := func(pod string) []string {
			var out []string
			for _, c := range w.engine.Calls() {
				if c.Kind == fake.CallCreate && c.Identity.Pod.Name == pod && c.Identity.Container == "web" {
					out = c.Spec.Env
				}
			}
			return out
		}
		w.must(plan.SetService{Service: service("db", at("10.96.0.5"))})
		w.must(plan.CreatePod{Pod: onePod("p", web(func(c *corev1.Container) { c.Env = []corev1.EnvVar{{Name: "URL", Value: "db://$(DB_SERVICE_HOST)"}} }))})
		want := []string{
			"DB_PORT=tcp://10.96.0.5:80", "DB_PORT_80_TCP=tcp://10.96.0.5:80", "DB_PORT_80_TCP_ADDR=10.96.0.5", "DB_PORT_80_TCP_PORT=80",
			"DB_PORT_80_TCP_PROTO=tcp", "DB_SERVICE_HOST=10.96.0.5", "DB_SERVICE_PORT=80", "URL=db://10.96.0.5",
		}
		if diff := cmp.Diff(want, env("p")); diff != "" {
			t.Error(diff)
		}
		w.engine.ForgetCalls()
		w.must(plan.SetService{Service: service("cache", at("10.96.0.6"))})
		sleep(time.Minute)
		if got := w.mutations(); len(got) != 0 {
			t.Errorf("a new Service led to %v", got)
		}
		w.engine.Hand().Remove(w.find("p", "web").ID)
		sleep(time.Second)
		if got := env("p"); len(got) != 15 || got[0] != "CACHE_PORT=tcp://10.96.0.6:80" {
			t.Errorf("made anew it has %v", got)
		}
		w.must(plan.CreatePod{Pod: onePod("none", func(s *corev1.PodSpec) { s.EnableServiceLinks = new(false) })})
		if got := env("none"); len(got) != 0 {
			t.Errorf("enableServiceLinks: false has %v", got)
		}
	})
}

package bench

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-connections/nat"
	consulapi "github.com/hashicorp/consul/api"
	"github.com/miekg/dns"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/runtimes/consul/consultest"
	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// trafficFor is how long requests are sent in one round of BenchmarkServiceTraffic.
const trafficFor = 2 * time.Second

// BenchmarkServiceTraffic is the first part of M10: requests from a pod through a Service's address take turns with
// requests to the other pod's own address; the same from the host, where a port that the engine publishes through its
// proxy takes its turn, too. The load is wrk's.
func BenchmarkServiceTraffic(b *testing.B) {
	wrk, err := exec.LookPath("wrk")
	if err != nil {
		results.skip("M10", "traffic through a Service", "wrk is not installed")
		b.SkipNow()
	}
	image := runtimetest.Image(b)
	e := openEngine(b, "")
	r := newRepo(b)
	r.write(b, "apps/web.yaml", deployment("web", image, 1, []string{"http", ":8080"}, "")+"---\n"+deployment("client", image, 1, []string{"forever"}, "")+`---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`)
	d := newDaemon(b, e, r, "")
	first := r.push(b, "A Service")
	d.start(b, time.Hour)
	d.settled(b, first, 2)
	pods, err := d.api.Pods(b.Context(), api.Query{Selector: "app=web"})
	if err != nil || len(pods) != 1 {
		b.Fatal(pods, err)
	}
	host, inside := []string{wrk}, []string{"nsenter", "--net=" + d.namespace(b, "client"), wrk}
	direct, service := "http://"+net.JoinHostPort(pods[0].IP, "8080")+"/", "http://"+d.service(b, "web").Spec.ClusterIP+"/"
	ways := []*way{
		{name: "pod direct", client: inside, url: direct}, {name: "pod service", client: inside, url: service},
		{name: "host direct", client: host, url: direct}, {name: "host service", client: host, url: service},
		{name: "host proxied", client: host, url: "http://" + publish(b, e, image) + "/"},
	}
	for range max(3, *rounds) {
		for _, w := range ways {
			w.send(b)
		}
		slices.Reverse(ways)
	}
	of := func(name string) *way {
		return ways[slices.IndexFunc(ways, func(w *way) bool { return w.name == name })]
	}
	for _, from := range []string{"pod", "host"} {
		ours, floor := of(from+" service"), of(from+" direct")
		results.compareFine(b, "M10", "request from a "+from+" through a Service", 1.03, ours.each, floor.each, "floor is the pod's own address")
		results.compareFine(b, "M10", "p99 of a request from a "+from, 1.05, ours.tail, floor.tail, "floor is the pod's own address")
	}
	results.compareFine(b, "M10", "Service against the engine's proxied port", 1, of("host service").each, of("host proxied").each, "floor is docker-proxy on loopback")
	if _, err := os.Stat("/proc/net/ip_vs"); err != nil {
		results.skip("M10", "Service against Swarm's service address", "this kernel has no IPVS, which Swarm balances with")
	}
}

// way is one way for requests.
type way struct {
	name, url  string
	client     []string
	each, tail series
}

func (w *way) send(b *testing.B) {
	b.Helper()
	each, p99 := traffic(b, w.client, w.url)
	w.each, w.tail = append(w.each, each), append(w.tail, p99)
}

// namespace returns the file of the network namespace of the one pod of a Deployment.
func (d *daemon) namespace(b *testing.B, name string) string {
	b.Helper()
	all, err := d.engine.named(b.Context(), d.installation)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range all {
		if sandbox(c.Names[0]) && strings.Contains(c.Names[0], "_"+name+"-") {
			seen, err := d.engine.ContainerInspect(b.Context(), c.ID)
			if err != nil {
				b.Fatal(err)
			}
			return fmt.Sprintf("/proc/%d/ns/net", seen.State.Pid)
		}
	}
	b.Fatalf("%s has no sandbox among %d containers", name, len(all))
	return ""
}

// compareFine is compare for what takes microseconds: ours and floor are shown in thousandths of their value.
func (r *report) compareFine(b *testing.B, metric, what string, goal float64, ours, floor series, note string) {
	b.Helper()
	note += fmt.Sprintf(": %v against %v", ours.median().Round(10*time.Nanosecond), floor.median().Round(10*time.Nanosecond))
	r.compare(b, metric, what, goal, ours, floor, note)
}

func (d *daemon) service(b *testing.B, name string) api.Service {
	b.Helper()
	services, err := d.api.Services(b.Context(), api.Query{Names: []string{name}})
	if err != nil {
		b.Fatal(err)
	}
	if len(services) != 1 {
		b.Fatalf("%d Services are called %s", len(services), name)
	}
	return services[0]
}

var (
	wrkTail     = regexp.MustCompile(`99%\s+([0-9.]+[mu]?s)`)
	wrkRequests = regexp.MustCompile(`(\d+) requests in ([0-9.]+[mu]?s)`)
)

// traffic sends requests as fast as they are answered, and returns the time for each and the 99th percentile of how long
// one took.
func traffic(b *testing.B, wrk []string, url string) (each, p99 time.Duration) {
	b.Helper()
	args := append(slices.Clone(wrk[1:]), "-t1", "-c16", "--latency", "-d"+trafficFor.String(), url)
	out, err := exec.CommandContext(b.Context(), wrk[0], args...).CombinedOutput()
	text := string(out)
	tail, requests := wrkTail.FindStringSubmatch(text), wrkRequests.FindStringSubmatch(text)
	if err != nil || tail == nil || requests == nil || strings.Contains(text, "Socket errors") || strings.Contains(text, "Non-2xx") {
		b.Fatalf("wrk %s: %v\n%s", url, err, text)
	}
	var count int64
	if _, err := fmt.Sscan(requests[1], &count); err != nil || count == 0 {
		b.Fatalf("wrk %s: no request\n%s", url, text)
	}
	took, err1 := time.ParseDuration(requests[2])
	p99, err2 := time.ParseDuration(tail[1])
	if err1 != nil || err2 != nil {
		b.Fatalf("wrk %s: %v %v\n%s", url, err1, err2, text)
	}
	return took / time.Duration(count), p99
}

// publish runs the same server with a port published on loopback, which the engine's proxy serves.
func publish(b *testing.B, e engine, image string) string {
	b.Helper()
	name := runtimetest.Name(b) + "_proxied"
	port := nat.Port("8080/tcp")
	c, err := e.ContainerCreate(b.Context(),
		&container.Config{Image: image, Cmd: []string{"http", ":8080"}, ExposedPorts: nat.PortSet{port: {}}},
		&container.HostConfig{PortBindings: nat.PortMap{port: {{HostIP: "127.0.0.1"}}}}, nil, nil, name)
	if err != nil {
		b.Fatal(err)
	}
	undo.later(b, func() error { return e.remove(context.Background(), c.ID) })
	if err := e.ContainerStart(b.Context(), c.ID, container.StartOptions{}); err != nil {
		b.Fatal(err)
	}
	seen, err := e.ContainerInspect(b.Context(), c.ID)
	if err != nil {
		b.Fatal(err)
	}
	address := "127.0.0.1:" + seen.NetworkSettings.Ports[port][0].HostPort
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if resp, err := http.Get("http://" + address + "/"); err == nil {
			resp.Body.Close()
			return address
		} else if time.Since(began) > 10*time.Second {
			b.Fatal(err)
		}
	}
}

// manual are n Services with ten hand-written endpoints each, some of which are registered in Consul.
func manual(n, registered int) string {
	var out bytes.Buffer
	for i := range n {
		fmt.Fprintf(&out, "---\napiVersion: v1\nkind: Service\nmetadata: {name: s%04d, annotations: {fairlead.dev/consul: %q}}\nspec: {ports: [{name: http, port: 80}]}\n", i, fmt.Sprint(i < registered))
		fmt.Fprintf(&out, "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s%04d, labels: {kubernetes.io/service-name: s%04d}}\n", i, i)
		fmt.Fprintf(&out, "addressType: IPv4\nports: [{name: http, port: 8080}]\nendpoints:\n")
		for j := range 10 {
			fmt.Fprintf(&out, "  - addresses: [198.51.%d.%d]\n", 100+i/25%50, i%25*10+j)
		}
	}
	return out.String()
}

// readiness answers the probes of the pod of BenchmarkServiceChange, and knows when an answer changed.
type readiness struct {
	mu      sync.Mutex
	ready   bool
	changed time.Time // when the first answer after turn was given; zero before
}

func (r *readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if r.changed.IsZero() {
		r.changed = time.Now()
	}
}

func (r *readiness) turn(ready bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ready, r.changed = ready, time.Time{}
}

func (r *readiness) at() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// BenchmarkServiceChange is the second part of M10: with 1,000 Services of ten endpoints in place, 100 of which are in Consul
// too (its agent takes many minutes to be given 10,000 instances, whoever does it), the time from when a pod's readiness probe is answered differently until the kernel routes, the name server and a real Consul's catalog have
// changed. The probe is answered by this process, so that moment is known exactly; each of the others is asked without a pause.
func BenchmarkServiceChange(b *testing.B) {
	const services, registered = 1000, 100
	image := runtimetest.Image(b)
	e := openEngine(b, "")
	agent := consultest.Server(b)
	probe := &readiness{ready: true}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: probe, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }()
	b.Cleanup(func() { server.Close() })
	_, port, _ := net.SplitHostPort(listener.Addr().String())

	r := newRepo(b)
	r.write(b, "apps/manual.yaml", manual(services-1, registered))
	r.write(b, "apps/web.yaml", deployment("web", image, 1, []string{"http", ":8080"},
		"          readinessProbe: {httpGet: {host: 127.0.0.1, path: /, port: "+port+"}, periodSeconds: 1, failureThreshold: 1}\n")+`---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: heads}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 8080}]}
`)
	d := newDaemon(b, e, r, "")
	f, err := os.OpenFile(filepath.Join(d.dir, "fairlead.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = fmt.Fprintf(f, "consul: {address: %s, dns: %s}\n", agent.HTTP(), agent.DNS())
	}
	if err != nil || f.Close() != nil {
		b.Fatal(err)
	}
	first := r.push(b, "Many Services")
	d.start(b, time.Hour)
	d.settled(b, first, 1)
	web := d.service(b, "web")
	w := &watched{address: net.JoinHostPort(web.Spec.ClusterIP, "80"), server: d.nameServer(b), name: "heads.default.svc.cluster.local.", consul: agent.API()}
	w.wait(b, "Consul", func() (bool, error) { // until all of it is there
		all, _, err := w.consul.Catalog().Services(nil)
		if len(all) < registered || err != nil {
			return false, err
		}
		status, err := d.api.Status(b.Context())
		if err != nil || len(status.Nodes) != 1 {
			return false, err
		}
		return !slices.ContainsFunc(status.Nodes[0].Registries, func(r api.Registry) bool { return r.Set.IsZero() || r.Error != "" }), nil
	}, 3*time.Minute)

	var routes, names, catalog, all series
	for i := range 2 * max(10, 3**rounds) {
		ready := i%2 == 1
		probe.turn(ready)
		at := [3]time.Time{}
		var group sync.WaitGroup
		for j, ask := range []func() (bool, error){w.routed, w.named, w.registered} {
			group.Go(func() {
				at[j] = w.until(b, func() (bool, error) { is, err := ask(); return is == ready, err })
			})
		}
		group.Wait()
		if b.Failed() {
			b.Fatal(d.logged())
		}
		t0 := probe.at()
		routes, names, catalog = append(routes, at[0].Sub(t0)), append(names, at[1].Sub(t0)), append(catalog, at[2].Sub(t0))
		all = append(all, slices.MaxFunc(at[:], time.Time.Compare).Sub(t0))
	}
	for _, x := range []struct {
		what string
		s    series
		goal float64
	}{{"the routes", routes, 0}, {"names", names, 0}, {"Consul's catalog", catalog, 0}, {"all three", all, 50}} {
		results.add(b, row{Metric: "M10", Case: "readiness to " + x.what + ", p99", Unit: "ms", Goal: x.goal, Samples: len(x.s),
			Value: millis(x.s.quantile(0.99)), Note: fmt.Sprintf("p50 %.1f ms, %d Services of 10 endpoints, %d of them in Consul", millis(x.s.median()), services, registered)})
	}
}

// nameServer is where the daemon serves names: the first address of the pods' subnet.
func (d *daemon) nameServer(b *testing.B) string {
	b.Helper()
	config, err := os.ReadFile(filepath.Join(d.dir, "fairlead.yaml"))
	if err != nil {
		b.Fatal(err)
	}
	m := regexp.MustCompile(`cidr: (\d+\.\d+\.\d+)\.0/`).FindSubmatch(config)
	if m == nil {
		b.Fatal("the settings name no subnet")
	}
	return string(m[1]) + ".1:53"
}

// watched is what is asked whether it has changed.
type watched struct {
	address, server, name string
	consul                *consulapi.Client
}

// routed reports whether a connection to the Service is accepted.
func (w *watched) routed() (bool, error) {
	conn, err := net.DialTimeout("tcp", w.address, time.Second)
	if err != nil {
		return false, nil
	}
	return true, conn.Close()
}

// named reports whether the headless Service has an address.
func (w *watched) named() (bool, error) {
	answer, err := dns.Exchange(new(dns.Msg).SetQuestion(w.name, dns.TypeA), w.server)
	if err != nil {
		return false, err
	}
	return len(answer.Answer) > 0, nil
}

// registered reports whether Consul has a passing instance.
func (w *watched) registered() (bool, error) {
	all, _, err := w.consul.Health().Service("web-default", "", true, nil)
	if err == nil && len(all) == 0 {
		all, _, err = w.consul.Health().Service("web", "", true, nil)
	}
	return len(all) > 0, err
}

// until asks without a pause until it is so, and returns when that was first seen.
func (w *watched) until(b *testing.B, ask func() (bool, error)) time.Time {
	deadline := time.Now().Add(30 * time.Second)
	for {
		is, err := ask()
		now := time.Now()
		if is && err == nil {
			return now
		}
		if now.After(deadline) {
			b.Errorf("nothing changed within 30 s: %v", err)
			return now
		}
		time.Sleep(time.Millisecond)
	}
}

func (w *watched) wait(b *testing.B, what string, is func() (bool, error), limit time.Duration) {
	b.Helper()
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		ok, err := is()
		if ok && err == nil {
			return
		}
		if time.Since(began) > limit {
			b.Fatalf("%s is not there after %s: %v", what, limit, err)
		}
	}
}

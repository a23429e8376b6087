package telemetry

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/fairlead-dev/fairlead/apply/executor"
	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/hooks"
	"github.com/fairlead-dev/fairlead/daemon/notify"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes/consul"
	"github.com/fairlead-dev/fairlead/runtimes/names"
	"github.com/fairlead-dev/fairlead/runtimes/proxy"
	"github.com/fairlead-dev/fairlead/runtimes/routing"
)

var update = flag.Bool("update", false, "rewrite golden files")

// exercised returns a Recorder every metric of which has a value.
func exercised() *Recorder {
	r := NewRecorder("v1.2.3", "abc")
	r.FetchDone("src", Unchanged, 20*time.Millisecond)
	r.RenderDone("shop", Success, time.Millisecond)
	r.PlanDone("shop", time.Millisecond)
	r.StepDone(plan.OpCreatePod, Success, time.Second)
	r.ReconcileDone("shop", Success, time.Second, time.UnixMilli(1500))
	r.SetReady("shop", true)
	r.SetFailed("shop", true, true)
	r.RevisionFailed("shop", "ProgressDeadlineExceeded")
	r.RollbackDone("shop", Success)
	r.ContainerRestarted("shop", 2)
	r.DriftFound("shop", plan.ByPerson, "kill")
	r.EventRecorded("Warning")
	r.SetEngineUp("n1", true)
	r.SetPods(map[PodGroup]int{{"shop", "Running"}: 3})
	r.CountHooks(func() hooks.Stats {
		return hooks.Stats{Deliveries: []hooks.Counted{{Count: hooks.Count{Forge: "github", Result: hooks.Accepted}, Number: 2}}, Looks: 3}
	})
	r.CountNotifications(func() []notify.Stats {
		return []notify.Stats{{Channel: "ops", Queued: 4, Repeated: 3, Excluded: 2, Dropped: 1, Sent: 2, Failed: 1, Retries: 5, LastSent: time.UnixMilli(3500), Error: "x"}}
	})
	r.Serve(func() Serving {
		return Serving{
			Routes:     plan.Routes{{Service: &plan.Service{Application: "shop"}, Endpoints: []plan.Endpoint{{Ready: true}, {Terminating: true}, {}}}},
			Registries: []executor.RegistryStatus{{Name: "routes", Current: true, Sets: 3, Failures: 1, Last: time.UnixMilli(2500), Took: time.Millisecond}},
			Kernel:     &routing.Stats{Elements: 12, Repairs: 1},
			Names: &names.Stats{
				Answers:   []names.Answers{{Kind: names.KindCluster, Rcode: "NOERROR", Count: 5}},
				Listening: []names.Listening{{Address: netip.MustParseAddrPort("10.0.0.1:53")}},
				Upstreams: []names.Upstream{{Domain: ".", Address: netip.MustParseAddrPort("192.0.2.53:53"), Latencies: names.Latencies{
					Buckets: []names.Bucket{{UpTo: time.Millisecond, Count: 1}}, Count: 2, Sum: time.Second,
				}}},
			},
			Proxy:  &proxy.Stats{Open: map[string]int{"shop": 1}, Served: 3, Failed: 1},
			Consul: &consul.Stats{Wanted: 2, Registered: 1, Pending: 1, Condition: consul.Condition{Code: consul.Registered}},
		}
	})
	return r
}

// TestMetricsPage compares docs/metrics.md with the registry.
func TestMetricsPage(t *testing.T) {
	const page = "../../docs/metrics.md"
	r := exercised()
	families, err := r.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	var gathered []string
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "fairlead_") {
			continue
		}
		gathered = append(gathered, f.GetName())
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, "`"+l.GetName()+"`")
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, ", "), f.GetHelp())
	}

	ch := make(chan *prometheus.Desc, 1000)
	r.registry.Describe(ch)
	close(ch)
	var described []string
	for d := range ch {
		name := regexp.MustCompile(`fqName: "([^"]*)"`).FindStringSubmatch(d.String())[1]
		if strings.HasPrefix(name, "fairlead_") {
			described = append(described, name)
		}
	}
	slices.Sort(described)
	if d := cmp.Diff(described, gathered); d != "" {
		t.Errorf("exercised does not touch every metric (-registered +gathered):\n%s", d)
	}

	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := strings.Cut(string(b), "| --- | --- | --- | --- |\n")
	got, tail, ok2 := strings.Cut(rest, "\n\n")
	if !ok1 || !ok2 {
		t.Fatalf("%s has no table of four columns that ends with an empty line", page)
	}
	if *update {
		s := head + "| --- | --- | --- | --- |\n" + table.String() + "\n" + tail
		if err := os.WriteFile(page, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(got+"\n", table.String()); d != "" {
		t.Errorf("%s (run with -update) (-page +registry):\n%s", page, d)
	}
}

func TestMetricNames(t *testing.T) {
	problems, err := testutil.GatherAndLint(exercised().Gatherer())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "fairlead_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestRecorder(t *testing.T) {
	r := exercised()
	r.SetPods(map[PodGroup]int{{"shop", "Pending"}: 1, {"bad\xff", "Running"}: 2})
	r.ReconcileDone("shop", Failure, time.Second, time.UnixMilli(9000))
	want := `
# HELP fairlead_container_restarts_total Containers that were started again after they ended.
# TYPE fairlead_container_restarts_total counter
fairlead_container_restarts_total{application="shop"} 2
# HELP fairlead_pods Pods that were observed.
# TYPE fairlead_pods gauge
fairlead_pods{application="bad` + "\uFFFD" + `",phase="Running"} 2
fairlead_pods{application="shop",phase="Pending"} 1
# HELP fairlead_reconcile_last_success_timestamp_seconds When an application was last reconciled with success, in Unix time.
# TYPE fairlead_reconcile_last_success_timestamp_seconds gauge
fairlead_reconcile_last_success_timestamp_seconds{application="shop"} 1.5
`
	if err := testutil.GatherAndCompare(r.Gatherer(), strings.NewReader(want), "fairlead_container_restarts_total", "fairlead_pods", "fairlead_reconcile_last_success_timestamp_seconds"); err != nil {
		t.Error(err)
	}

	r.Serve(func() Serving { return Serving{} }) // what is served is read anew at each scrape
	r.Forget("shop")
	r.ForgetSource("src")
	families, err := r.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() != "fairlead_pods" && (l.GetValue() == "shop" || l.GetValue() == "src") {
					t.Errorf("%s still has %s=%s", f.GetName(), l.GetName(), l.GetValue())
				}
			}
		}
	}

	var none *Recorder
	none.FetchDone("s", Success, 0)
	none.SetPods(nil)
	none.Forget("a")
}

func TestHandler(t *testing.T) {
	h := NewHealth(CheckReconciled, CheckEngine)
	var dead error
	srv := Handler(exercised(), h, func() error { return dead })
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	check := func(path string, wantCode int, want string) {
		t.Helper()
		if code, body := get(path); code != wantCode || body != want {
			t.Errorf("%s: %d\n%s", path, code, body)
		}
	}
	check("/healthz", 200, "ok\n")
	check("/readyz", 503, "[-]first-reconcile: the first reconciliation is under way\n[-]engine: the Docker engine was not asked yet\nnot ready\n")
	h.Set(CheckReconciled, nil)
	h.Set(CheckEngine, errors.New("no answer from /var/run/docker.sock"))
	check("/readyz", 503, "[+]first-reconcile: every application was reconciled once\n[-]engine: no answer from /var/run/docker.sock\nnot ready\n")
	if ready, why := h.Ready(); ready || len(why) != 1 || why[0] != "engine: no answer from /var/run/docker.sock" {
		t.Errorf("Ready = %v, %q", ready, why)
	}
	h.Set(CheckEngine, nil)
	check("/readyz", 200, "[+]first-reconcile: every application was reconciled once\n[+]engine: the Docker engine answers\nready\n")
	dead = errors.New("the loop hangs")
	check("/healthz", 503, "not alive: the loop hangs\n")
	if code, body := get("/metrics"); code != 200 || !strings.Contains(body, `fairlead_build_info{goversion="go`) || !strings.Contains(body, "go_goroutines") {
		t.Errorf("/metrics: %d\n%s", code, body)
	}
	if code, _ := get("/other"); code != 404 {
		t.Errorf("/other: %d", code)
	}
}

func TestServe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, Handler(exercised(), NewHealth(), nil)) }()
	resp, err := http.Get("http://" + l.Addr().String() + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(b) != "ready\n" {
		t.Errorf("body = %q", b)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve = %v", err)
	}
}

func TestLog(t *testing.T) {
	now := func() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 7e6, time.UTC) }
	events := []api.Event{
		{Type: api.Normal, Reason: "Planned", Message: "2 to add", Application: "shop", Source: "src", Revision: "abc", Node: "n1"},
		{Type: api.Warning, Reason: "BackOff", Message: "restarting", Application: "shop", Ref: object.Ref{Kind: "Pod", Namespace: "shop", Name: "web-1"}, Count: 3},
		{Type: api.Normal, Reason: "StepStarted", Message: "not at info", Step: &api.StepProgress{ID: 1, Op: plan.OpPullImage, State: api.StepStarted}},
		{Type: api.Normal, Reason: "StepDone", Message: "created", Step: &api.StepProgress{ID: 2, Op: plan.OpCreatePod, State: api.StepSucceeded}},
	}
	for _, tt := range []struct {
		name string
		opt  LogOptions
		want string
	}{
		{"json", LogOptions{Format: JSON}, `{"level":"info","application":"shop","source":"src","revision":"abc","node":"n1","reason":"Planned","time":"2026-03-01T12:00:00.007Z","message":"2 to add"}
{"level":"warn","application":"shop","ref":"Pod shop/web-1","reason":"BackOff","count":3,"time":"2026-03-01T12:00:00.007Z","message":"restarting"}
{"level":"info","step":"2 create-pod","reason":"StepDone","time":"2026-03-01T12:00:00.007Z","message":"created"}
`},
		{"console", LogOptions{}, `12:00:00.007 INF 2 to add application=shop source=src revision=abc node=n1 reason=Planned
12:00:00.007 WRN restarting application=shop ref="Pod shop/web-1" reason=BackOff count=3
12:00:00.007 INF created step="2 create-pod" reason=StepDone
`},
		{"only warnings", LogOptions{Level: "warn"}, `12:00:00.007 WRN restarting application=shop ref="Pod shop/web-1" reason=BackOff count=3
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			tt.opt.Now = now
			l, err := NewLogger(&out, tt.opt)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				LogEvent(l, e)
			}
			if d := cmp.Diff(tt.want, out.String()); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
	if _, err := NewLogger(io.Discard, LogOptions{Level: "loud"}); err == nil || !strings.Contains(err.Error(), `"loud"`) {
		t.Errorf("level loud: %v", err)
	}
	if _, err := NewLogger(io.Discard, LogOptions{Format: "xml"}); err == nil || !strings.Contains(err.Error(), `"xml"`) {
		t.Errorf("format xml: %v", err)
	}
}

func TestSystemd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	read := func() string {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1024)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}

	var n Notifier
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	if err := errors.Join(n.Ready("x"), n.Stopping(), n.Watchdog(t.Context(), nil)); err != nil {
		t.Errorf("without systemd: %v", err)
	}

	t.Setenv("NOTIFY_SOCKET", path)
	if err := errors.Join(n.Ready("1 application"), n.Status("2 applications"), n.Stopping()); err != nil {
		t.Fatal(err)
	}
	got := []string{read(), read(), read()}
	if d := cmp.Diff([]string{"READY=1\nSTATUS=1 application", "STATUS=2 applications", "STOPPING=1"}, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}

	t.Setenv("WATCHDOG_USEC", "2000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	asked := make(chan bool)
	go func() {
		i := 0
		done <- n.Watchdog(ctx, func() error {
			i++
			if i == 1 {
				return errors.New("the loop hangs") // and nothing is sent
			}
			select {
			case asked <- true:
			case <-ctx.Done():
			}
			return nil
		})
	}()
	for range 2 {
		<-asked
		if s := read(); s != "WATCHDOG=1" {
			t.Errorf("watchdog sent %q", s)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Watchdog = %v", err)
	}
}

package hooks

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/sources"
)

var torture = flag.Bool("torture", false, "run the long forms")

// slowSource takes a while to look, and counts.
type slowSource struct {
	mu             sync.Mutex
	looks, running int
	together       int // most looks at a time
}

func (s *slowSource) Fetch(ctx context.Context, have sources.Revision) (sources.Snapshot, error) {
	s.mu.Lock()
	s.looks++
	s.running++
	s.together = max(s.together, s.running)
	s.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(200 * time.Millisecond):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	return sources.Snapshot{}, sources.ErrUnchanged
}

func (s *slowSource) Close() error { return nil }

// repositories are real workers of sources, by key.
type repositories struct {
	workers map[string]*reconcile.Source
	sources map[string]*slowSource
}

func newRepositories(ctx context.Context, wait *sync.WaitGroup, n int) *repositories {
	r := &repositories{map[string]*reconcile.Source{}, map[string]*slowSource{}}
	for i := range n {
		key := fmt.Sprintf("git.example.org/team/config-%d", i)
		r.sources[key] = &slowSource{}
		w := reconcile.NewSource(reconcile.SourceConfig{Name: key, Interval: time.Hour}, r.sources[key], nil, nil)
		r.workers[key] = w
		wait.Go(func() { _ = w.Run(ctx) })
	}
	return r
}

func (r *repositories) Look(keys []string) []string {
	var out []string
	for _, k := range keys {
		if w, ok := r.workers[k]; ok {
			w.Poke()
			out = append(out, k)
		}
	}
	return out
}

// flood sends n signed deliveries about as many repositories within a time, on some connections, and returns how long
// each took to be accepted, in order of time.
func flood(tb testing.TB, address string, n, repositories int, within time.Duration, pad string) []time.Duration {
	tb.Helper()
	const connections = 32
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}}
	defer client.CloseIdleConnections()
	took := make([]time.Duration, n)
	start := time.Now()
	var wait sync.WaitGroup
	for c := range connections {
		wait.Go(func() {
			for i := c; i < n; i += connections {
				time.Sleep(time.Until(start.Add(within * time.Duration(i) / time.Duration(n))))
				body := `{"ref":"refs/heads/main","commits":["` + pad + `"],"repository":{"clone_url":"https://git.example.org/team/config-` + fmt.Sprint(i%repositories) + `.git"}}`
				r := request(body, fmt.Sprint(len(pad), " ", i))
				r.RequestURI, r.URL.Scheme, r.URL.Host = "", "http", address
				began := time.Now()
				res, err := client.Do(r)
				if err != nil {
					tb.Errorf("delivery %d: %v", i, err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				took[i] = time.Since(began)
				if res.StatusCode != http.StatusAccepted {
					tb.Errorf("delivery %d: %s", i, res.Status)
				}
			}
		})
	}
	wait.Wait()
	slices.Sort(took)
	return took
}

// resident is the memory of this process in bytes.
func resident(tb testing.TB) int64 {
	tb.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		tb.Skipf("needs /proc: %v", err)
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(b), &size, &pages); err != nil {
		tb.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// storm serves hooks for repositories, floods them, and returns the sorted times and the growth of memory.
func storm(tb testing.TB, n, count int, within time.Duration) (took []time.Duration, grown int64, repos *repositories) {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	repos = newRepositories(ctx, &wait, count)
	s, _ := newServer(tb, func(o *Options) { o.Sources = repos })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	wait.Go(func() { _ = s.Serve(ctx, l, nil) })
	flood(tb, l.Addr().String(), 50, count, 0, "warm")
	debug.FreeOSMemory()
	before, most := resident(tb), int64(0)
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		for watching.Err() == nil {
			most = max(most, resident(tb))
			time.Sleep(20 * time.Millisecond)
		}
	})
	took = flood(tb, l.Addr().String(), n, count, within, strings.Repeat("x", 8<<10))
	stop()
	watch.Wait()
	return took, most - before, repos
}

// T-D7: a flood of deliveries is answered at once, and is one look at a time for each repository.
func TestFlood(t *testing.T) {
	n, within := 2000, time.Duration(0)
	if *torture {
		n, within = 10_000, 10*time.Second
	}
	start := time.Now()
	took, grown, repos := storm(t, n, 100, within)
	// Whoever is asked again while a look is due looks once: in the time that it took, a look of 200 ms fits so often.
	most := int(time.Since(start)/(200*time.Millisecond)) + 3
	for key, s := range repos.sources {
		s.mu.Lock()
		if s.together > 1 || s.looks > most || s.looks < 2 {
			t.Errorf("%s: %d looks, %d at a time; at most %d fit", key, s.looks, s.together, most)
		}
		s.mu.Unlock()
	}
	t.Logf("%d deliveries: p99 %v, longest %v, memory grown by %d KiB (with the sender's)", n, took[len(took)*99/100], took[len(took)-1], grown>>10)
	if grown > 64<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
}

// T-D3: strangers who send endless bodies on a thousand connections cost little, and the others are answered.
func TestStrangersCostLittle(t *testing.T) {
	connections := 60
	if *torture {
		connections = 10_000
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	s, _ := newServer(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	wait.Go(func() { _ = s.Serve(ctx, l, nil) })
	debug.FreeOSMemory()
	before, most := resident(t), int64(0)
	limit := make(chan struct{}, 500)
	head := "POST /hooks/github HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-GitHub-Event: push\r\nX-Hub-Signature-256: sha256=00\r\nTransfer-Encoding: chunked\r\n\r\n"
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 64<<10, strings.Repeat("a", 64<<10))
	var strangers sync.WaitGroup
	for range connections {
		limit <- struct{}{}
		strangers.Go(func() {
			defer func() { <-limit }()
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			_, _ = io.WriteString(c, head)
			for range 1000 { // it is cut off long before
				if _, err := io.WriteString(c, chunk); err != nil {
					return
				}
			}
			t.Error("64 MB were taken from a stranger")
		})
	}
	done := make(chan struct{})
	go func() { strangers.Wait(); close(done) }()
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		case <-time.After(20 * time.Millisecond):
		}
		most = max(most, resident(t))
	}
	runtime.KeepAlive(chunk)
	took := flood(t, l.Addr().String(), 10, 1, 0, "after")
	t.Logf("%d connections: memory grown by %d KiB (with the strangers'); then a delivery took %v", connections, (most-before)>>10, took[5])
	if most-before > 64<<20 {
		t.Errorf("memory grew by %d MiB", (most-before)>>20)
	}
}

// BenchmarkFlood is the flood of the issue: 10,000 deliveries in 10 seconds about 100 repositories.
func BenchmarkFlood(b *testing.B) {
	for b.Loop() {
		took, grown, _ := storm(b, 10_000, 100, 10*time.Second)
		b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		b.ReportMetric(float64(grown)/(1<<20), "grown-MiB")
	}
}

// BenchmarkDelivery is what one delivery costs the daemon, without the network.
func BenchmarkDelivery(b *testing.B) {
	s, _ := newServer(b, nil)
	body := `{"ref":"refs/heads/main","commits":["` + strings.Repeat("x", 8<<10) + `"],"repository":{"clone_url":"https://git.example.org/team/config.git"}}`
	i := 0
	for b.Loop() {
		i++
		s.ServeHTTP(discard{http.Header{}}, request(body, fmt.Sprint(i)))
	}
}

type discard struct{ h http.Header }

func (d discard) Header() http.Header         { return d.h }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

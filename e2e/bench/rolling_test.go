package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
	"golang.org/x/sync/errgroup"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// drain is how long the program of M3 goes on answering after it was told to stop, as a server does that
// wants no request to fail: whoever sends requests learns a moment later that a pod goes.
const drain = 700 * time.Millisecond

// BenchmarkRolling is M3: all pods of a Deployment are replaced, each new one having been found ready before an
// old one goes, while requests come in all the time. The floor makes the same pods and ends the same number of
// others in the same orderly way, waiting for nothing else. It runs under the same load of requests.
func BenchmarkRolling(b *testing.B) {
	n := *rolled
	image := runtimetest.Image(b)
	e := openEngine(b, "")
	r := newRepo(b)
	args := []string{"background", "http", ":8080", "--", "linger", drain.String()}
	version := func(v int) string {
		text := deployment("web", image, n, args, environment(fmt.Sprint(v))+"          readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 5}\n")
		return strings.Replace(text, "  template:", "  strategy: {rollingUpdate: {maxSurge: 25%, maxUnavailable: 25%}}\n  template:", 1)
	}
	r.write(b, "apps/web.yaml", version(0))
	d := newDaemon(b, e, r, "")
	first := r.push(b, "The first version")
	d.start(b, time.Hour)
	d.settled(b, first, n)
	f := newFloor(b, e, d, image, args...)
	w := e.watch(b, d.installation)
	load := newLoad(b, d)

	old, err := f.pods(b.Context(), n, "r0")
	if err != nil {
		b.Fatal(err)
	}
	var ours, floor series
	for round := range max(2, *rounds-2) {
		r.write(b, "apps/web.yaml", version(round+1))
		id := r.commit(b, fmt.Sprint("Version ", round+1))
		w.reset()
		began := r.release(b, id)
		d.poke(b)
		w.until(b, n, events.ActionStart, workload)
		last := w.until(b, n, events.ActionDestroy, sandbox)
		ours = append(ours, last.at.Sub(began))
		d.settled(b, id, n)

		began = time.Now()
		old, err = replace(b.Context(), f, old, fmt.Sprint("r", round+1))
		floor = append(floor, time.Since(began))
		if err != nil {
			b.Fatal(err)
		}
	}
	sent, failed, first1 := load.stop()
	if sent < 100 {
		b.Fatalf("only %d requests were sent", sent)
	}
	if failed > 0 {
		b.Errorf("%d of %d requests failed, the first with: %v", failed, sent, first1)
	}
	results.compare(b, "M3", fmt.Sprintf("rolling update of %d pods", n), 1.25, ours, floor, fmt.Sprintf("%d of %d requests failed", failed, sent))
}

// replace makes as many pods as there are old ones and ends those, one for one.
func replace(ctx context.Context, f *floor, old []raw, name string) ([]raw, error) {
	fresh := make([]raw, len(old))
	group, ctx := errgroup.WithContext(ctx)
	creating := make(chan struct{}, parallel())
	for i := range old {
		group.Go(func() (err error) {
			creating <- struct{}{}
			fresh[i], err = f.pod(ctx, fmt.Sprint(name, "-", i))
			<-creating
			if err != nil {
				return err
			}
			return f.end(ctx, old[i])
		})
	}
	return fresh, group.Wait()
}

// load sends requests to the pods that are ready, as a load balancer that learns of changes from fairlead.
type load struct {
	cancel context.CancelFunc
	work   sync.WaitGroup
	ready  atomic.Pointer[[]string]
	sent   atomic.Int64
	failed atomic.Int64
	first  atomic.Pointer[error]
}

// clients send requests side by side, each one after the other with a pause.
const (
	clients = 4
	pause   = 20 * time.Millisecond
)

func newLoad(b *testing.B, d *daemon) *load {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel}
	if err := l.learn(ctx, d.api); err != nil {
		b.Fatal(err)
	}
	l.work.Go(func() {
		for ctx.Err() == nil {
			sleep(ctx, 100*time.Millisecond)
			if err := l.learn(ctx, d.api); err != nil && ctx.Err() == nil {
				l.fail(fmt.Errorf("ask for the ready pods: %w", err))
			}
		}
	})
	// Every request has a connection of its own, as after a load balancer's choice.
	transport := &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	for range clients {
		l.work.Go(func() {
			for ctx.Err() == nil {
				l.send(ctx, client)
				sleep(ctx, pause)
			}
		})
	}
	b.Cleanup(func() { l.stop() })
	return l
}

func (l *load) learn(ctx context.Context, c *api.Client) error {
	pods, err := c.Pods(ctx, api.Query{})
	if err != nil {
		return err
	}
	var ready []string
	for _, p := range pods {
		if p.IsReady && p.Status != "Terminating" && p.IP != "" {
			ready = append(ready, p.IP)
		}
	}
	if len(ready) == 0 {
		return errors.New("no pod is ready")
	}
	l.ready.Store(&ready)
	return nil
}

func (l *load) send(ctx context.Context, client *http.Client) {
	ready := *l.ready.Load()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+ready[rand.IntN(len(ready))]+":8080/", nil)
	if err != nil {
		l.fail(err)
		return
	}
	resp, err := client.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s", resp.Status)
		}
	}
	if ctx.Err() != nil {
		return // it was cut off
	}
	l.sent.Add(1)
	if err != nil {
		l.fail(err)
	}
}

func (l *load) fail(err error) {
	l.failed.Add(1)
	l.first.CompareAndSwap(nil, &err)
}

// stop ends the load and says how many requests there were, how many failed, and why the first one did.
func (l *load) stop() (sent, failed int64, first error) {
	l.cancel()
	l.work.Wait()
	if e := l.first.Load(); e != nil {
		first = *e
	}
	return l.sent.Load(), l.failed.Load(), first
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

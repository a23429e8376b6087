package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// load is constant traffic on one URL: workers that keep their connections, workers that open one for each request,
// and wrk at full speed where it is installed.
type load struct {
	url    string
	cancel context.CancelFunc
	wg     sync.WaitGroup
	sent   atomic.Int64

	mu     sync.Mutex
	failed []error
	wrk    *exec.Cmd
	out    bytes.Buffer // of wrk
}

// cmdLoad begins traffic, or ends it and fails when a request failed.
func cmdLoad(ts *testscript.TestScript, neg bool, args []string) {
	h := hostOf(ts)
	switch {
	case !neg && len(args) == 2 && args[0] == "start" && h.load == nil:
		h.load = startLoad(args[1])
		ts.Defer(func() {
			if h.load != nil {
				h.load.stop()
			}
		})
	case !neg && (len(args) == 1 || len(args) == 2) && args[0] == "stop" && h.load != nil:
		most := 0
		if len(args) == 2 {
			_, err := fmt.Sscan(args[1], &most)
			ts.Check(err)
		}
		l := h.load
		h.load = nil
		sent, err := l.stop()
		ts.Logf("%d requests to %s: %d failed: %v", sent, l.url, len(l.failed), err)
		if len(l.failed) > most || sent < 1000 {
			ts.Fatalf("at most %d of %d requests may fail: %v", most, sent, err)
		}
	default:
		ts.Fatalf("usage: load start URL, and after it load stop [MOST]")
	}
}

func startLoad(url string) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{url: url, cancel: cancel}
	for i := range 4 {
		t := &http.Transport{DisableKeepAlives: i%2 == 0, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext}
		l.wg.Go(func() { l.send(ctx, &http.Client{Timeout: 10 * time.Second, Transport: t}) })
	}
	if program, err := exec.LookPath("wrk"); err == nil {
		l.wrk = exec.Command(program, "-t1", "-c16", "-d1h", "--timeout", "10s", url)
		l.wrk.Stdout, l.wrk.Stderr = &l.out, &l.out
		if err := l.wrk.Start(); err != nil {
			l.fail(err)
			l.wrk = nil
		}
	}
	return l
}

func (l *load) send(ctx context.Context, c *http.Client) {
	for ctx.Err() == nil {
		resp, err := c.Get(l.url)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				err = errors.Join(err, fmt.Errorf("%s answered %s", l.url, resp.Status))
			}
		}
		l.sent.Add(1)
		if err != nil {
			l.fail(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
	c.CloseIdleConnections()
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = append(l.failed, fmt.Errorf("%s: %w", time.Now().Format("15:04:05.000"), err))
}

var (
	wrkRequests = regexp.MustCompile(`(\d+) requests in`)
	wrkTrouble  = regexp.MustCompile(`(?m)^\s*(Socket errors|Non-2xx or 3xx responses):.*$`)
)

// stop ends the traffic and returns how many requests were sent, and what failed.
func (l *load) stop() (int64, error) {
	l.cancel()
	sent := int64(0)
	if l.wrk != nil {
		_ = l.wrk.Process.Signal(syscall.SIGINT) // it ends with its summary
		_ = l.wrk.Wait()
		text := l.out.String()
		m := wrkRequests.FindStringSubmatch(text)
		if trouble := wrkTrouble.FindAllString(text, -1); trouble != nil || m == nil {
			l.fail(fmt.Errorf("wrk: %q\n%s", trouble, text))
		} else {
			fmt.Sscan(m[1], &sent)
		}
	}
	l.wg.Wait()
	sent += l.sent.Load()
	if sent == 0 {
		l.fail(errors.New("no request was sent"))
	}
	if len(l.failed) > 0 {
		return sent, fmt.Errorf("%d of %d requests failed, the first: %w", len(l.failed), sent, l.failed[0])
	}
	return sent, nil
}

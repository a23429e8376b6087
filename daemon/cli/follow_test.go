package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/api/apitest"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// output is a writer that may be read meanwhile.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

// take returns what was written since the last time.
func (o *output) take() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.buf.Reset()
	return o.buf.String()
}

// following runs a command that follows, in a bubble, and gives the test its output.
func following(t *testing.T, s apitest.State, args []string, test func(b *apitest.Backend, out *output)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := apitest.New(s)
		out := &output{}
		env := Env{
			Args: args, Stdin: strings.NewReader(""), Stdout: out, Stderr: out, Now: time.Now,
			Getenv: func(k string) string { return map[string]string{"FAIRLEAD_STATE_DIR": "/nonexistent"}[k] },
			Local: func(context.Context, Settings, zerolog.Logger) (api.Backend, func() error, error) {
				return b, func() error { return nil }, nil
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		a := &app{Env: env}
		root := a.root()
		root.SetArgs(args)
		root.SetOut(io.Discard)
		done := make(chan error, 1)
		// Not Run, which waits for signals: their goroutine is outside of the bubble.
		go func() { done <- root.ExecuteContext(ctx) }()
		synctest.Wait()
		test(b, out)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%q = %v after it was interrupted", args, err)
		}
	})
}

func want(t *testing.T, what, got string, lines ...string) {
	t.Helper()
	if d := cmp.Diff(strings.Join(lines, "\n"), strings.TrimSuffix(got, "\n")); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func running1(name, id string, restarts int) api.Pod {
	return api.Pod{
		PodKey: plan.PodKey{Namespace: "shop", Name: name}, Owner: web, Status: "Running", Phase: "Running", Ready: 1, Total: 1, IsReady: true, Restarts: restarts,
		Containers: []api.Container{{Name: "web", ID: id, State: plan.Running}},
	}
}

var web = object.Ref{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "web"}

func TestGetWatch(t *testing.T) {
	s := apitest.State{Pods: []api.Pod{running1("web-1", "c1", 0), running1("web-2", "c2", 0)}}
	following(t, s, []string{"get", "pods", "-w", "-n", "shop"}, func(b *apitest.Backend, out *output) {
		want(t, "at first", out.take(),
			"NAME    READY   STATUS    RESTARTS   AGE",
			"web-1   1/1     Running   0          <unknown>",
			"web-2   1/1     Running   0          <unknown>")
		time.Sleep(time.Minute)
		b.Update(func(*apitest.State) {})
		synctest.Wait()
		want(t, "when only time passed", out.take())
		b.Update(func(s *apitest.State) { s.Pods = []api.Pod{running1("web-1", "c1", 0), running1("web-3", "c3", 1)} })
		synctest.Wait()
		want(t, "after a change", out.take(),
			"web-2   (gone)",
			"web-3   1/1      Running   1          <unknown>")
	})
}

func TestEventsWatch(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s := apitest.State{Events: []api.Event{{Seq: 1, Time: at, Type: api.Normal, Reason: "Fetched", Source: "src", Message: "fetched a"}}}
	next := func(s *apitest.State) {
		s.Events = append(s.Events, api.Event{Seq: 2, Time: at.Add(time.Second), Type: api.Warning, Reason: "BackOff", Ref: plan.PodKey{Namespace: "shop", Name: "web-1"}.Ref(), Message: "m"})
	}
	following(t, s, []string{"events", "-w"}, func(b *apitest.Backend, out *output) {
		want(t, "at first", out.take(),
			"NAMESPACE   TIME        TYPE     REASON    OBJECT       MESSAGE",
			"            12:00:00Z   Normal   Fetched   source/src   fetched a")
		b.Update(next)
		synctest.Wait()
		want(t, "after an event", out.take(), "shop        12:00:01Z   Warning   BackOff   pod/web-1    m")
	})
	following(t, s, []string{"events", "-w", "-o", "json", "--types", "Warning"}, func(b *apitest.Backend, out *output) {
		b.Update(next)
		synctest.Wait()
		want(t, "after an event", out.take(), `{"seq":2,"time":"2026-03-01T12:00:01Z","type":"Warning","reason":"BackOff","message":"m","ref":{"kind":"Pod","namespace":"shop","name":"web-1"}}`)
	})
}

func TestLogsFollow(t *testing.T) {
	s := apitest.State{
		Pods:    []api.Pod{running1("web-1", "c1", 0), running1("web-2", "", 0)},
		Objects: []api.Object{{Ref: web}},
		Logs:    map[string]string{"shop/web-1/web": "one\ntwo\n", "shop/web-2/web": "other"},
		Block:   []string{"Logs"},
	}
	following(t, s, []string{"logs", "deploy/web", "-f", "--tail", "1"}, func(b *apitest.Backend, out *output) {
		want(t, "at first, the other container having not begun", out.take(), "[shop/web-1/web] two")
		b.Update(func(s *apitest.State) { s.Pods = []api.Pod{running1("web-1", "c1", 0), running1("web-2", "c2", 0)} })
		synctest.Wait()
		want(t, "when the other one began", out.take(), "[shop/web-2/web] other")
		b.Update(func(s *apitest.State) {
			s.Pods = []api.Pod{running1("web-1", "c9", 1), running1("web-2", "c2", 0)}
			s.Logs = map[string]string{"shop/web-1/web": "again\nand more\n"}
		})
		synctest.Wait()
		want(t, "after a restart", out.take(), "[shop/web-1/web] again", "[shop/web-1/web] and more")
		// Between two pods of a workload there may be none.
		b.Update(func(s *apitest.State) { s.Pods = nil })
		synctest.Wait()
		want(t, "without pods", out.take())
	})
	following(t, s, []string{"logs", "web-1", "-f"}, func(_ *apitest.Backend, out *output) {
		want(t, "one pod", out.take(), "one", "two")
	})
}

func TestPrefixedLinesStayWhole(t *testing.T) {
	var buf bytes.Buffer
	o := &lineOutput{w: &buf}
	a, b := o.stream("[a] "), o.stream("[b] ")
	for _, w := range []struct {
		w *lineWriter
		s string
	}{{a, "one "}, {b, "two\nthr"}, {a, "line\n"}, {b, "ee"}} {
		if n, err := io.WriteString(w.w, w.s); n != len(w.s) || err != nil {
			t.Fatal(n, err)
		}
	}
	b.flush()
	a.flush()
	want(t, "output", buf.String(), "[b] two", "[a] one line", "[b] three")
	buf.Reset()
	fmt.Fprint(a, strings.Repeat("x", maxHeld+1))
	if buf.Len() < maxHeld {
		t.Error("a line without end is held back for ever")
	}
}

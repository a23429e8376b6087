package cli

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/api/apitest"
)

// frames keeps what was drawn.
type frames struct {
	mu  sync.Mutex
	got []string
	err error
}

func (f *frames) draw(frame string, anew bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if anew {
		frame = "anew " + frame
	}
	f.got = append(f.got, frame)
	return f.err
}

func (f *frames) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	got := f.got
	f.got = nil
	return got
}

func TestLiveViewFollowsTheDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := apitest.New(apitest.State{Applications: []api.Application{{Name: "shop", Health: api.Healthy}}})
		f := &frames{}
		v := &liveView{b: b, now: time.Now, title: "repo", size: func() (int, int, error) { return 80, 24, nil }, draw: f.draw}
		ctx, cancel := context.WithCancel(t.Context())
		resized := make(chan os.Signal, 1)
		done := make(chan error, 1)
		go func() { done <- v.run(ctx, resized) }()
		synctest.Wait()
		if got := f.take(); len(got) != 1 || !strings.Contains(got[0], "shop") {
			t.Fatalf("at first it drew %q", got)
		}

		// Many changes at once are few frames, the last of which has everything.
		for i := range 50 {
			b.Update(func(s *apitest.State) {
				s.Applications = []api.Application{{Name: "shop", Health: api.Progressing, Pods: i + 1}}
			})
		}
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		got := f.take()
		if len(got) == 0 || len(got) > 3 || !strings.Contains(got[len(got)-1], "0/50") {
			t.Errorf("after 50 changes it drew %d frames, the last %q", len(got), got[len(got)-1:])
		}

		// Ages go on.
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := f.take(); len(got) < 2 || got[0] == got[1] {
			t.Errorf("in 3 seconds it drew %q", got)
		}

		resized <- syscall.SIGWINCH
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if got := f.take(); len(got) == 0 || !strings.HasPrefix(got[0], "anew ") {
			t.Errorf("after the size changed it drew %q", got)
		}

		// What cannot be read is said, and what was there stays.
		b.Update(func(s *apitest.State) {
			s.Errors = map[string]*api.Error{"Applications": {Code: api.CodeUnavailable, Message: "the engine hangs"}}
		})
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if got := f.take(); len(got) == 0 || !strings.Contains(got[0], "this may be old: the engine hangs") || !strings.Contains(got[0], "0/50") {
			t.Errorf("after an error it drew %q", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run = %v", err)
		}
	})
}

func TestLiveViewEndsWithTheTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &frames{err: errors.New("gone")}
		v := &liveView{b: apitest.New(apitest.State{}), now: time.Now, size: func() (int, int, error) { return 80, 24, nil }, draw: f.draw}
		if err := v.run(t.Context(), nil); !errors.Is(err, f.err) {
			t.Errorf("run = %v", err)
		}
	})
}

func TestConfirm(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want bool
	}{{"yes\n", true}, {"y\n", true}, {" YES \r\n", true}, {"no\n", false}, {"\n", false}, {"", false}, {"yes", true}, {"yesterday\n", false}} {
		var out strings.Builder
		got, err := confirm(t.Context(), strings.NewReader(tt.in), &out)
		if err != nil || got != tt.want {
			t.Errorf("confirm(%q) = %t, %v", tt.in, got, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	cancel()
	if _, err := confirm(ctx, r, &strings.Builder{}); !errors.Is(err, context.Canceled) {
		t.Errorf("confirm = %v after its context ended", err)
	}
}

func TestNearest(t *testing.T) {
	known := []string{"apply", "describe", "events", "get", "logs", "plan", "status"}
	for got, want := range map[string]string{"aply": "apply", "desc": "describe", "gte": "get", "log": "logs", "x": "", "frobnicate": "", "PLAN": "plan", "staus": "status"} {
		if n := nearest(got, known); n != want {
			t.Errorf("nearest(%q) = %q, want %q", got, n, want)
		}
	}
}

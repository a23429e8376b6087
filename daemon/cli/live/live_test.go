package live

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

var update = flag.Bool("update", false, "rewrite golden files")

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

func pod(name, status string, ready, total int) api.Pod {
	p := api.Pod{
		PodKey: plan.PodKey{Namespace: "shop", Name: name}, Phase: "Running", Status: status, Ready: ready, Total: total,
		IsReady: ready == total, Created: ago(5 * time.Minute),
	}
	if status == "CrashLoopBackOff" {
		p.Restarts, p.LastRestart = 3, ago(20*time.Second)
		p.Containers = []api.Container{{Name: "c", State: plan.Waiting, Reason: status}}
	}
	return p
}

func rollout() Model {
	return Model{
		Now: now, Title: "/srv/config overlays/dev",
		Applications: []api.Application{
			{
				Name: "shop", Health: api.Progressing, Phase: "Applying",
				Revision: api.Revision{ID: "bbbb", Short: "bbbb"}, Applied: api.Revision{ID: "aaaa", Short: "aaaa"},
				Pods: 4, PodsReady: 3, Pending: &api.Counts{Add: 3, Destroy: 3}, StepsDone: 7, StepsTotal: 20,
				Workloads: []plan.WorkloadStatus{{Ref: object.Ref{Kind: "Deployment", Namespace: "shop", Name: "web"}, Desired: 3, Updated: 1, Health: "Progressing"}},
			},
			{Name: "blog", Health: api.Healthy, Revision: api.Revision{ID: "cccc", Short: "cccc", Message: "Write more \x1b[31m"}, Applied: api.Revision{ID: "cccc", Short: "cccc"}, Pods: 1, PodsReady: 1},
		},
		Sources: []api.Source{{Name: "shop", Ready: true}},
		Pods:    []api.Pod{pod("blog-1", "Running", 1, 1), pod("web-1", "Running", 1, 1), pod("web-2", "Running", 2, 2), pod("web-3", "ContainerCreating", 0, 1), pod("web-4", "CrashLoopBackOff", 0, 1)},
		Events: []api.Event{
			{Time: ago(time.Minute), Type: api.Normal, Reason: "Fetched", Source: "shop", Message: "fetched bbbb Use web:2"},
			{Time: ago(30 * time.Second), Type: api.Normal, Reason: "PodCreated", Ref: object.Ref{Kind: "Pod", Namespace: "shop", Name: "web-3"}, Message: "created pod web-3"},
			{Time: ago(10 * time.Second), Type: api.Warning, Reason: "BackOff", Count: 3, Ref: object.Ref{Kind: "Pod", Namespace: "shop", Name: "web-4"}, Message: "restarting container c\nof pod web-4"},
		},
	}
}

func many() Model {
	m := rollout()
	for i := range 60 {
		m.Pods = append(m.Pods, pod(fmt.Sprintf("many-%02d", i), "Running", 1, 1))
	}
	m.Pods = append(m.Pods, pod("zzz", "CrashLoopBackOff", 0, 1))
	for i := range 30 {
		m.Applications = append(m.Applications, api.Application{Name: fmt.Sprintf("app-%02d", i), Health: api.Healthy})
		m.Events = append(m.Events, api.Event{Time: ago(time.Second), Type: api.Normal, Reason: "Planned", Application: "shop", Message: fmt.Sprintf("event %d", i)})
	}
	m.Applications = append(m.Applications, api.Application{Name: "broken", Health: api.Failed, Message: "render failed: web.yaml:7"})
	return m
}

func TestGolden(t *testing.T) {
	failing := rollout()
	failing.Sources = []api.Source{{Name: "shop", Message: "fetch https://git.example.org/shop.git: authentication required"}}
	failing.Problem = "this may be old: the engine does not answer"
	failing.Applications[0] = api.Application{Name: "shop", Health: api.Degraded, Message: "rollout of Deployment shop/web stopped", Pods: 1}
	stopping := rollout()
	stopping.Stopping = true
	for _, tt := range []struct {
		name          string
		m             Model
		width, height int
		color         bool
	}{
		{"starting", Model{Now: now, Title: "https://git.example.org/shop.git"}, 80, 24, false},
		{"waiting", Model{Now: now, Title: "repo", Applications: []api.Application{{Name: "shop", Health: api.Failed, Reason: "Waiting", Message: "source shop was not fetched yet"}}}, 80, 24, false},
		{"rollout", rollout(), 100, 30, false},
		{"color", rollout(), 100, 30, true},
		{"narrow", rollout(), 40, 30, false},
		{"low", rollout(), 100, 12, false},
		{"many", many(), 100, 30, false},
		{"failing", failing, 100, 30, false},
		{"stopping", stopping, 100, 8, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Render(tt.m, tt.width, tt.height, tt.color)
			check(t, got, tt.width, tt.height, tt.color)
			text := []byte(strings.ReplaceAll(got, "\x1b", "␛") + "\n")
			b := txtar.Format(&txtar.Archive{
				Comment: fmt.Appendf(nil, "%d columns, %d rows\n", tt.width, tt.height),
				Files:   []txtar.File{{Name: "screen", Data: text}},
			})
			path := filepath.Join("testdata", tt.name+".txtar")
			if *update {
				if err := os.WriteFile(path, b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(b)); d != "" {
				t.Errorf("%s (-want +got, -update rewrites):\n%s", path, d)
			}
		})
	}
}

// check holds what is true of every screen.
func check(t *testing.T, got string, width, height int, color bool) {
	t.Helper()
	lines := strings.Split(got, "\n")
	if len(lines) > height {
		t.Errorf("%d lines on %d rows", len(lines), height)
	}
	for _, l := range lines {
		if color {
			continue
		}
		if n := utf8.RuneCountInString(l); n > width {
			t.Errorf("%d characters on %d columns: %s", n, width, l)
		}
		if strings.ContainsAny(l, "\x1b\r\t") {
			t.Errorf("control characters: %q", l)
		}
	}
}

func TestEverySizeFits(t *testing.T) {
	for _, m := range []Model{{Now: now}, rollout(), many()} {
		for height := range 70 {
			for _, width := range []int{0, 1, 2, 10, 40, 200} {
				got := Render(m, width, height, false)
				if width == 0 || height == 0 {
					if got != "" {
						t.Errorf("something on %d×%d: %q", width, height, got)
					}
					continue
				}
				check(t, got, width, height, false)
			}
		}
	}
}

func TestTroubleIsShownFirst(t *testing.T) {
	got := Render(many(), 100, 24, false)
	for _, want := range []string{"zzz", "broken", "event 29"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not on the screen:\n%s", want, got)
		}
	}
}

func TestScreen(t *testing.T) {
	var buf bytes.Buffer
	s, err := Open(&buf)
	if err != nil {
		t.Fatal(err)
	}
	take := func() string { defer buf.Reset(); return strings.ReplaceAll(buf.String(), "\x1b", "␛") }
	if got := take(); got != "␛[?1049h␛[?25l␛[?7l␛[H␛[J" {
		t.Errorf("Open wrote %q", got)
	}
	draw := func(frame string, anew bool, want string) {
		t.Helper()
		if err := s.Draw(frame, anew); err != nil {
			t.Fatal(err)
		}
		if got := take(); got != want {
			t.Errorf("Draw(%q) wrote %q, want %q", frame, got, want)
		}
	}
	draw("a\nb", false, "␛[?2026h␛[Ha␛[K\r\nb␛[K␛[J␛[?2026l")
	draw("a\nb", false, "")
	draw("a\nb", true, "␛[?2026h␛[Ha␛[K\r\nb␛[K␛[J␛[?2026l")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := take(); got != "␛[0m␛[?7h␛[?25h␛[?1049l" {
		t.Errorf("Close wrote %q", got)
	}
	draw("c", false, "")
	if err := s.Close(); err != nil || buf.Len() > 0 {
		t.Errorf("second Close: %v, %q", err, buf.String())
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("gone") }

func TestScreenReportsATerminalThatIsGone(t *testing.T) {
	if _, err := Open(broken{}); err == nil {
		t.Error("Open succeeded")
	}
	s := &Screen{w: broken{}}
	if s.Draw("x", false) == nil || s.Close() == nil {
		t.Error("Draw or Close succeeded")
	}
}

package daemon

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/settings"
)

// perOverlay is how many objects an overlay of these benchmarks has, overlays how many of them there are.
const (
	perOverlay = 5
	overlays   = 2000
)

// overlay is the kustomization of one of them.
func overlay(i, version int) string {
	text := fmt.Sprintf("namespace: team-%d\nnamePrefix: app-%04d-\ngeneratorOptions: {disableNameSuffixHash: true}\nresources: [../../bases/app]\nconfigMapGenerator:\n", i%50, i)
	for g := range perOverlay - 2 {
		text += fmt.Sprintf("- {name: generated-%d, literals: [version=%d, app=%d]}\n", g, version, i)
	}
	return text
}

const overlayBase = `apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {greeting: hello, address: "http://example.org/"}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: app}
`

// BenchmarkPass is the daemon's part of M4, in this process, so that it can be profiled: what becomes of ten thousand
// objects in many overlays, none of which needs a pod, after one overlay changed, and when nothing did. The time
// is from the word that the source moved until the change is applied and recorded; cpu-ms is this process's part of it, which
// leaves out the workers that render.
func BenchmarkPass(b *testing.B) {
	b.Run("git", func(b *testing.B) { benchmarkPass(b, true) })
	b.Run("directory", func(b *testing.B) { benchmarkPass(b, false) })
}

func benchmarkPass(b *testing.B, inGit bool) {
	h := newHost(b)
	write := func(name, content string) { h.file(filepath.Join("repo", name), content) }
	write("bases/app/kustomization.yaml", "resources: [app.yaml]\n")
	write("bases/app/app.yaml", overlayBase)
	for i := range overlays {
		write(fmt.Sprintf("apps/app-%04d/kustomization.yaml", i), overlay(i, 0))
	}
	dir := filepath.Join(h.dir, "repo")
	git := func(args ...string) {
		cmd := exec.Command("git", append([]string{"-c", "user.name=Jane", "-c", "user.email=jane@example.org", "-c", "gc.auto=0"}, args...)...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null")
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	commit := func(message string) {
		if inGit {
			git("add", "-A")
			git("commit", "-q", "-m", message)
		}
	}
	app := settings.Application{Name: "all", Location: dir, Path: "apps"}
	if inGit {
		git("init", "-q", "-b", "main")
		commit("Everything")
		app.Ref = "main"
	}
	h.set.Applications = []settings.Application{app}
	s := h.open(Run)
	var applied string
	settle := func() {
		h.eventually(s, "the change is applied", func() bool {
			st := s.statuses()[0]
			if st.Health != "Healthy" || st.Walking || st.Applied != string(st.Revision) || st.Applied == applied {
				return false
			}
			if len(st.Desired.Objects) != overlays*perOverlay || len(st.Inventory) != overlays*perOverlay {
				b.Fatalf("%d objects, %d applied", len(st.Desired.Objects), len(st.Inventory))
			}
			applied = st.Applied
			return true
		})
	}
	settle()

	b.Run("changed", func(b *testing.B) {
		n := 0
		var used time.Duration
		for b.Loop() {
			b.StopTimer()
			n++
			at := n * 997 % overlays
			write(fmt.Sprintf("apps/app-%04d/kustomization.yaml", at), overlay(at, int(time.Now().UnixNano())))
			commit("Change")
			before := processTime(b)
			b.StartTimer()
			if err := s.Reconcile(b.Context(), nil); err != nil {
				b.Fatal(err)
			}
			settle()
			b.StopTimer()
			used += processTime(b) - before
			b.StartTimer()
		}
		b.ReportMetric(float64(used.Microseconds())/1000/float64(n), "cpu-ms/op")
	})
	b.Run("unchanged", func(b *testing.B) {
		n := 0
		before := processTime(b)
		for b.Loop() {
			n++
			pass := s.statuses()[0].Pass
			if err := s.Reconcile(b.Context(), nil); err != nil {
				b.Fatal(err)
			}
			h.eventually(s, "another pass", func() bool { return s.statuses()[0].Pass > pass })
		}
		b.ReportMetric(float64((processTime(b)-before).Microseconds())/1000/float64(n), "cpu-ms/op")
	})
}

// BenchmarkPods is the daemon's part of M2: fifty pods from nothing until all are ready, on an engine in memory, so that
// what is measured is what the daemon does beside the engine. cpu-ms is for each pod.
func BenchmarkPods(b *testing.B) {
	const pods = 50
	h := newHost(b)
	h.declare("shop")
	h.file("shop/kept.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\n")
	s := h.open(Run)
	count := func(want int) {
		h.eventually(s, fmt.Sprint(want, " pods run"), func() bool {
			st := s.statuses()[0]
			return st.Health == "Healthy" && !st.Walking && st.Applied == string(st.Revision) && len(h.images()) == want
		})
	}
	count(0)
	n := 0
	var used time.Duration
	for b.Loop() {
		n++
		before := processTime(b)
		for i := range pods {
			h.file(fmt.Sprintf("shop/web-%02d.yaml", i), deployment(fmt.Sprintf("web-%02d", i), "web:1", 1))
		}
		count(pods)
		used += processTime(b) - before
		b.StopTimer()
		for i := range pods {
			h.remove(fmt.Sprintf("shop/web-%02d.yaml", i))
		}
		count(0)
		b.StartTimer()
	}
	b.ReportMetric(float64(used.Microseconds())/1000/float64(n*pods), "cpu-ms/pod")
}

// processTime is the time that processors spent on this process.
func processTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

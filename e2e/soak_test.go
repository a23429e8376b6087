package e2e

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

var soakFlag = flag.Duration("soak", 0, "how long TestSoak commits and kills; 0 is some commits, and a minute with -torture")

// soaked is an installation that is committed to for a long time, while its daemon and what it runs are killed.
type soaked struct {
	*committedHost
	image string
	watch *watch
	r     *rand.Rand

	life    int // of the daemon, from 1
	samples []sample
	kills   map[string]int
	behind  int // the most revisions that the daemon was behind
}

// sample is what the daemon used at a moment.
type sample struct {
	life                          int
	resident, goroutines, handles float64 // descriptors but for those of clones
	packs                         int     // descriptors of clones
	files, size                   int64   // of the state directory but for the clones
}

// soakManifests change in every way from revision to revision: a rollout, limits and files in place, replicas, ports, and a
// Job that comes while another goes.
func soakManifests(image string, n int) string {
	return fmt.Sprintf(`apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {word: w%[2]d}
---
apiVersion: v1
kind: Secret
metadata: {name: token}
stringData: {token: t%[3]d}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      volumes: [{name: token, secret: {secretName: token}}, {name: scratch, emptyDir: {}}]
      containers:
        - name: web
          image: %[1]s
          imagePullPolicy: Never
          args: [http, ':8080']
          env: [{name: WORD, value: w%[3]d}]
          volumeMounts: [{name: token, mountPath: /token}, {name: scratch, mountPath: /scratch}]
          readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reader}
spec:
  replicas: %[4]d
  selector: {matchLabels: {app: reader}}
  template:
    metadata: {labels: {app: reader}}
    spec:
      terminationGracePeriodSeconds: 1
      volumes: [{name: settings, configMap: {name: settings}}]
      containers:
        - name: reader
          image: %[1]s
          imagePullPolicy: Never
          args: [wait]
          resources: {limits: {cpu: %[5]dm}}
          volumeMounts: [{name: settings, mountPath: /settings}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: %[6]d, targetPort: 8080}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: job-w%[2]d}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: job, image: %[1]s, imagePullPolicy: Never, args: [print, done]}]
`, image, n, n/3, 1+n%3, 200+100*(n%2), 80+n%4)
}

// soakPods are how many pods of a revision are to be ready.
func soakPods(n int) int { return 2 + 1 + n%3 }

// TestSoak commits every 10 s, kills the daemon and what it runs at random, and fails when what the daemon uses grows, when
// anything runs twice, and unless everything is as it was committed last in the end.
//
// The daemon is killed in the first half only: the last one must be flat for the other half.
func TestSoak(t *testing.T) {
	length, pause := *soakFlag, 10*time.Second
	switch {
	case length > 0:
	case *torture:
		length = time.Minute
	default:
		length, pause = 12*time.Second, 3*time.Second
	}
	e := startOwnEngine(t, 1<<30, "--storage-driver", "overlay2")
	h := &soaked{image: runtimetest.Image(t), r: chance(t), kills: map[string]int{}}
	h.committedHost = commitTo(t, e, "listen: 127.0.0.1:9464\ndefaults: {interval: 1s, retryInterval: 1s, pruneLimit: {maxShare: 100}}\n")
	h.watch = watchContainers(t, e.engine, h.installation)
	h.next()
	h.begin()
	h.rest("at first")

	begun, ticks := time.Now(), time.NewTicker(pause)
	defer ticks.Stop()
	progress := begun
	for time.Since(begun) < length {
		h.next()
		half := time.Since(begun) < length/2
		if half && (h.life == 1 || h.r.IntN(9) == 0) {
			time.Sleep(time.Duration(h.r.Int64N(int64(pause)))) // at any moment of what was just begun
			h.kill()
		}
		if h.r.IntN(3) == 0 {
			h.breakOne()
		}
		<-ticks.C
		h.sample()
		if time.Since(progress) > time.Minute {
			progress = time.Now()
			t.Logf("after %v: %s", time.Since(begun).Round(time.Second), h.figures())
		}
		if err := h.watch.violations(); err != nil {
			t.Error(err)
		}
		if h.behind > 30 {
			t.Fatalf("the daemon is %d revisions behind; its log:\n%s", h.behind, h.daemonLog(6000))
		}
	}
	h.rest("in the end")
	t.Logf("%d revisions in %v: %s", h.words, time.Since(begun).Round(time.Second), h.figures())
	if err := h.flat(); err != nil {
		t.Error(err)
	}
}

// next commits the next revision.
func (h *soaked) next() {
	h.commit(func(string) string { return soakManifests(h.image, h.words) })
}

// begin starts a daemon.
func (h *soaked) begin() {
	h.life++
	h.upFrom("run", "-o", "json")
}

// kill kills the daemon and starts another.
func (h *soaked) kill() {
	if err := h.endDaemon(syscall.SIGKILL); err != nil {
		h.t.Fatal(err)
	}
	h.kills["daemons"]++
	h.begin()
}

// breakOne does to one container that runs what a person with docker does.
func (h *soaked) breakOne() {
	all, err := h.containers(h.t.Context(), h.installation)
	if err != nil {
		h.t.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(c container.Summary) bool { return c.State != "running" })
	if len(all) == 0 {
		return
	}
	// The container may be gone by now: the daemon works on.
	if c := all[h.r.IntN(len(all))]; h.r.IntN(2) == 0 {
		_ = h.ContainerKill(h.t.Context(), c.ID, "KILL")
	} else {
		_ = h.ContainerRemove(h.t.Context(), c.ID, container.RemoveOptions{Force: true})
	}
	h.kills["containers"]++
}

// sample notes what the daemon uses, and how far it is behind. A daemon that is only just being started has no answer yet.
func (h *soaked) sample() {
	resp, err := clientIn(h.netns).Get("http://127.0.0.1:9464/metrics")
	if err != nil {
		return
	}
	defer resp.Body.Close()
	s := sample{life: h.life}
	fields := map[string]*float64{"process_resident_memory_bytes": &s.resident, "go_goroutines": &s.goroutines}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if to := fields[name]; to != nil {
			if *to, err = strconv.ParseFloat(value, 64); err != nil {
				h.t.Fatal(err)
			}
		}
	}
	open, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", h.daemon.Process.Pid))
	for _, fd := range open {
		if file, err := os.Readlink(fd); err == nil && strings.HasPrefix(file, filepath.Join(h.state(), "sources")+"/") {
			s.packs++
		} else if err == nil {
			s.handles++
		}
	}
	if s.resident == 0 || s.goroutines == 0 || s.handles == 0 {
		return // it was killed
	}
	for _, dir := range []string{h.state(), filepath.Join(h.dir, "run")} {
		err = errors.Join(err, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil // it has been removed meanwhile
			}
			if path == filepath.Join(h.state(), "sources") {
				return fs.SkipDir // clones have what was committed
			}
			if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
				s.files++
				s.size += info.Size()
			}
			return nil
		}))
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.samples = append(h.samples, s)
	if pods, err := h.pods(); err == nil {
		newest := 0
		for _, p := range pods {
			if rest, ok := strings.CutPrefix(p.Metadata.Name, "job-w"); ok {
				number, _, _ := strings.Cut(rest, "-")
				if n, err := strconv.Atoi(number); err == nil {
					newest = max(newest, n)
				}
			}
		}
		h.behind = h.words - newest
	}
}

// figures says what was seen so far.
func (h *soaked) figures() string {
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(h.kills)) {
		fmt.Fprintf(&b, "%d %s killed, ", h.kills[what], what)
	}
	fmt.Fprintf(&b, "%d revisions behind", h.behind)
	for _, part := range h.thirds() {
		fmt.Fprintf(&b, "; %s", part)
	}
	return b.String()
}

// use is the median of what was used in some samples.
type use struct {
	n    int
	of   sample
	what string
}

func (u use) String() string {
	return fmt.Sprintf("%s (%d samples): %.1f MiB resident, %.0f goroutines, %.0f descriptors and %d of clones, %d files of %d KiB in the state directory",
		u.what, u.n, u.of.resident/(1<<20), u.of.goroutines, u.of.handles, u.of.packs, u.of.files, u.of.size>>10)
}

// thirds are what the daemon that runs used in the first and the last third of its life, after a minute in which its
// caches fill; nil for a daemon that is too young.
func (h *soaked) thirds() []use {
	samples := slices.DeleteFunc(slices.Clone(h.samples), func(s sample) bool { return s.life != h.life })
	samples = samples[min(6, len(samples)):]
	n := len(samples) / 3
	if n == 0 {
		return nil
	}
	return []use{
		{n, median(samples[:n]), fmt.Sprintf("daemon %d, first third", h.life)},
		{n, median(samples[len(samples)-n:]), "last third"},
	}
}

// median is that of each quantity of samples.
func median(samples []sample) sample {
	f := func(of func(sample) float64) float64 {
		values := make([]float64, len(samples))
		for i, s := range samples {
			values[i] = of(s)
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return sample{
		packs:    int(f(func(s sample) float64 { return float64(s.packs) })),
		resident: f(func(s sample) float64 { return s.resident }), goroutines: f(func(s sample) float64 { return s.goroutines }),
		handles: f(func(s sample) float64 { return s.handles }),
		files:   int64(f(func(s sample) float64 { return float64(s.files) })), size: int64(f(func(s sample) float64 { return float64(s.size) })),
	}
}

// flat returns an error where the daemon uses more in the end than before, or too much at any time.
func (h *soaked) flat() error {
	var errs []error
	for _, s := range h.samples {
		// A clone is made anew when it has 48 packs; the one before stays for as long as it may be read.
		if s.resident > 512<<20 || s.goroutines > 500 || s.handles > 500 || s.packs > 2*48+20 {
			errs = append(errs, fmt.Errorf("the daemon used too much: %s", use{1, s, fmt.Sprintf("daemon %d", s.life)}))
		}
	}
	if len(h.samples) == 0 {
		errs = append(errs, errors.New("the daemon was never asked what it uses"))
	}
	if u := h.thirds(); len(u) == 2 && u[0].n >= 3 {
		first, last := u[0].of, u[1].of
		if last.resident > first.resident*1.2+16<<20 || last.goroutines > first.goroutines+20 || last.handles > first.handles+20 ||
			last.files > first.files+20 || last.size > first.size*2+256<<10 {
			errs = append(errs, fmt.Errorf("what the daemon uses grows: %s; %s", u[0], u[1]))
		}
	}
	return errors.Join(errs...)
}

// rest waits until the newest revision runs, and fails the test unless nothing else does and nothing is left over.
func (h *soaked) rest(what string) {
	h.t.Helper()
	h.until(what+": the newest revision is at rest", func() error {
		out, err := h.fairlead("get", "pods", "-o", "json")
		if err == nil && !strings.Contains(out, fmt.Sprintf("job-w%d-", h.words)) {
			err = errors.New("the newest revision does not run")
		}
		if err == nil {
			out, err = h.fairlead("plan")
		}
		if err == nil && !strings.Contains(out, "No changes.") {
			err = fmt.Errorf("there is something to do:\n%s", out)
		}
		if err == nil {
			out, err = h.fairlead("get", "applications")
		}
		if err == nil && !strings.Contains(out, "Healthy") {
			err = errors.New(out)
		}
		return cmp.Or(err, h.exactlyOnce(soakPods(h.words)))
	})
	out, err := h.fairlead("get", "pods", "-A", "-o", "json")
	var list struct{ Items []shownPod }
	if err == nil {
		err = json.Unmarshal([]byte(out), &list)
	}
	uids := map[string]bool{}
	for _, p := range list.Items {
		uids[p.Metadata.UID] = true
	}
	if err = errors.Join(err, h.leftovers(uids), h.watch.violations()); err != nil {
		h.t.Errorf("%s: %v", what, err)
	}
}

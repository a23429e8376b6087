package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/e2e/engineproxy"
	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

var partFlag = flag.String("part", "1/1", "which part of a long form is run, for example 2/8: of what it does, every eighth from the second on")

// slice returns which part of the long form is wanted, from 0, and of how many.
func slice(t *testing.T) (part, parts int) {
	t.Helper()
	if _, err := fmt.Sscanf(*partFlag, "%d/%d", &part, &parts); err != nil || part < 1 || part > parts {
		t.Fatalf("-part %s: it is, for example, 2/8", *partFlag)
	}
	return part - 1, parts
}

var seedFlag = flag.Uint64("seed", 0, "seed of what tests choose; 0 chooses one")

// chance is where a test takes its choices from. Its seed is told.
func chance(t *testing.T) *rand.Rand {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano()) % 1e6
	}
	t.Logf("choices are by -seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// longFormOnly skips a test without -torture: with some hundreds of containers it takes minutes.
func longFormOnly(t *testing.T) {
	t.Helper()
	if !*torture && *seedFlag == 0 {
		t.Skip("it takes minutes: run it with -torture, or with -seed N for some of its cases")
	}
}

// crashPasses is how many plans a daemon may carry out, at most, after the last thing that went wrong.
const crashPasses = 3

// fleet is what the tests of crashes run: in each of two states some of everything is there, so that the way from one
// state to the other creates, replaces, updates in place, rolls, scales and deletes.
type fleet struct{ image string }

// manifests are those of a state, 0 or 1.
func (f fleet) manifests(state int) string {
	var b strings.Builder
	word := []string{"here", "there"}[state]
	object := func(format string, args ...any) {
		fmt.Fprintf(&b, format+"\n---\n", args...)
	}
	deployment := func(name string, replicas int, pod string) {
		object(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  strategy: {rollingUpdate: {maxSurge: 2, maxUnavailable: 1}}
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 2
%[3]s`, name, replicas, strings.ReplaceAll(pod, "IMAGE", f.image))
	}
	service := func(name, app string, port int) {
		object(`apiVersion: v1
kind: Service
metadata: {name: %s}
spec: {selector: {app: %s}, ports: [{port: %d, targetPort: 8080}]}`, name, app, port)
	}
	object("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {word: %s}", word)
	object("apiVersion: v1\nkind: Secret\nmetadata: {name: token}\nstringData: {token: %s}", word)
	// It rolls: an init container, a sidecar, volumes, a probe.
	deployment("web", 2, `      volumes: [{name: scratch, emptyDir: {}}, {name: token, secret: {secretName: token}}]
      initContainers:
        - {name: first, image: IMAGE, imagePullPolicy: Never, args: [write, /scratch/first, `+word+`], volumeMounts: [{name: scratch, mountPath: /scratch}]}
        - {name: beside, image: IMAGE, imagePullPolicy: Never, restartPolicy: Always, args: [wait]}
      containers:
        - name: web
          image: IMAGE
          imagePullPolicy: Never
          args: [http, ':8080']
          env: [{name: WORD, value: `+word+`}]
          volumeMounts: [{name: scratch, mountPath: /scratch}, {name: token, mountPath: /token}]
          readinessProbe: {httpGet: {path: /file/scratch/first, port: 8080}, periodSeconds: 1}`)
	// It rolls without anything else.
	deployment("plain", 4, `      containers: [{name: plain, image: IMAGE, imagePullPolicy: Never, args: [wait], env: [{name: WORD, value: `+word+`}]}]`)
	// Its limit changes in place.
	deployment("limited", 2, fmt.Sprintf(`      containers: [{name: limited, image: IMAGE, imagePullPolicy: Never, args: [wait], resources: {limits: {cpu: %dm}}}]`, 200+100*state))
	// What it mounts changes in place.
	deployment("reader", 2, `      volumes: [{name: settings, configMap: {name: settings}}]
      containers: [{name: reader, image: IMAGE, imagePullPolicy: Never, args: [wait], volumeMounts: [{name: settings, mountPath: /settings}]}]`)
	// It is scaled.
	deployment("scaled", 2+2*state, `      containers: [{name: scaled, image: IMAGE, imagePullPolicy: Never, args: [wait]}]`)
	// They are there in one state only.
	deployment("only-"+word, 3, `      containers: [{name: only, image: IMAGE, imagePullPolicy: Never, args: [http, ':8080']}]`)
	// It is replaced, since that is allowed.
	object(`apiVersion: v1
kind: Pod
metadata: {name: tool, labels: {app: tool}, annotations: {kustomize.toolkit.fluxcd.io/force: enabled}}
spec:
  terminationGracePeriodSeconds: 2
  containers: [{name: tool, image: %s, imagePullPolicy: Never, args: [print, %s, --, wait]}]`, f.image, word)
	object(`apiVersion: batch/v1
kind: Job
metadata: {name: job-%s}
spec:
  template:
    metadata: {labels: {app: job-%[1]s}}
    spec:
      restartPolicy: Never
      containers: [{name: job, image: %s, imagePullPolicy: Never, args: [print, done]}]`, word, f.image)
	for i := range 10 {
		service(fmt.Sprintf("web-%d", i), "web", 80+i+100*state)
		service(fmt.Sprintf("%s-%d", word, i), "only-"+word, 80+i)
	}
	return b.String()
}

// wanted is how many pods of each app there are in a state.
func (f fleet) wanted(state int) map[string]int {
	word := []string{"here", "there"}[state]
	return map[string]int{
		"web": 2, "plain": 4, "limited": 2, "reader": 2, "scaled": 2 + 2*state, "only-" + word: 3, "tool": 1, "job-" + word: 1,
	}
}

// fleetActions is how many steps the plan between the states has at least.
const fleetActions = 60

// tortured is an installation whose daemon reaches its engine through a proxy.
type tortured struct {
	*ownHost
	fleet
	proxy *engineproxy.Proxy
	watch *watch

	state   int           // that is wanted
	killed  atomic.Bool   // the proxy ended the daemon
	died    chan struct{} // is closed then
	past    []engineproxy.Call
	foreign map[string]string
	// since is where the part of the log begins that counts passes.
	since atomic.Int64
	// restarts allows that containers were restarted, because they seemed not to have started.
	restarts bool
}

// torturedFlags are those of its engine.
var torturedFlags = []string{"--storage-driver", "overlay2", "--live-restore"}

// newTortured brings the fleet up in state 0, beside containers of others.
func newTortured(t *testing.T) *tortured {
	t.Helper()
	h := torturedOn(t)
	h.write(h.manifests(0))
	h.startDaemon()
	h.settle("at first")
	return h
}

// torturedOn makes an installation beside containers of others. Its daemon is not started.
func torturedOn(t *testing.T) *tortured {
	t.Helper()
	e := startOwnEngine(t, 1<<30, torturedFlags...)
	f := fleet{image: runtimetest.Image(t)}
	h := &tortured{fleet: f, ownHost: hostOn(t, e, `services: {cidr: `+subnet()+`}
defaults: {retryInterval: 1s, pruneLimit: {maxShare: 100}}
`)}
	h.patience = 5 * time.Minute // generous: a busy machine takes long for so many containers
	var err error
	if h.proxy, err = engineproxy.New(filepath.Join(e.dir, "proxy.sock"), strings.TrimPrefix(e.host, "unix://")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := h.endDaemon(syscall.SIGTERM)
		if err := errors.Join(err, h.proxy.Close()); err != nil {
			t.Error(err)
		}
	})
	h.behind = h.proxy.Host()
	h.watch = watchContainers(t, e.engine, h.installation)
	h.strangers()
	h.proxy.Begin(nil, nil)
	return h
}

// startDaemon starts the daemon.
func (h *tortured) startDaemon() { h.up(h.app, "-o", "json") }

// strangerUID is the pod that strangers say they are of.
const strangerUID = "00000000-0000-4000-8000-000000000000"

// strangers makes containers that are not ours, whatever they look like.
func (h *tortured) strangers() {
	h.t.Helper()
	forged := map[string]string{
		"dev.fairlead.installation": h.installation, "dev.fairlead.application": "app", "dev.fairlead.namespace": "default",
		"dev.fairlead.pod": "tool", "dev.fairlead.uid": strangerUID, "dev.fairlead.container": "tool",
		"dev.fairlead.attempt": "0", "dev.fairlead.owner": `{"Kind":"Pod","Namespace":"default","Name":"tool"}`, "dev.fairlead.template": "t",
		"dev.fairlead.made": time.Now().UTC().Format(time.RFC3339), "dev.fairlead.mac": strings.Repeat("0", 64),
	}
	ctx := h.t.Context()
	var ids []string
	for name, labels := range map[string]map[string]string{
		"stranger": nil, "stranger-with-our-labels": forged, h.installation + "_default_tool_tool_0_0123456789": forged,
	} {
		c, err := h.ContainerCreate(ctx, &container.Config{Image: h.image, Cmd: []string{"wait"}, Labels: labels}, &container.HostConfig{NetworkMode: "none"}, nil, nil, name)
		if err == nil {
			err = h.ContainerStart(ctx, c.ID, container.StartOptions{})
		}
		if err != nil {
			h.t.Fatal(err)
		}
		ids = append(ids, c.ID)
	}
	h.t.Cleanup(func() {
		for _, id := range ids {
			if err := h.ContainerRemove(context.Background(), id, container.RemoveOptions{Force: true}); err != nil {
				h.t.Error(err)
			}
		}
	})
	h.foreign = map[string]string{}
	for _, id := range ids {
		h.foreign[id] = h.stranger(id)
	}
}

// stranger is all that must not change of a container.
func (h *tortured) stranger(id string) string {
	c, err := h.ContainerInspect(h.t.Context(), id)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(c.Name, c.State.Status, c.State.Pid, c.State.StartedAt, c.RestartCount)
}

// turn goes from one state to the other, with what the script does to each call of the engine. When the daemon was
// ended it is started again. It returns the calls that changed something, and ends when all is at rest.
func (h *tortured) turn(what string, script func(engineproxy.Call) engineproxy.Fault) []engineproxy.Call {
	h.t.Helper()
	h.begin(script)
	if script != nil && h.diesOr(what) {
		h.revive(nil)
	}
	h.settle(what)
	return slices.DeleteFunc(h.calls(), func(c engineproxy.Call) bool { return c.Number == 0 })
}

// begin writes the other state, with what the script does to calls from now on.
func (h *tortured) begin(script func(engineproxy.Call) engineproxy.Fault) {
	h.past = nil
	h.since.Store(h.logSize())
	h.listen(script) <- h.daemon.Process
	h.state = 1 - h.state
	h.write(h.manifests(h.state))
}

// listen has the script say what becomes of calls. The daemon that it ends is to be sent once.
func (h *tortured) listen(script func(engineproxy.Call) engineproxy.Fault) chan<- *os.Process {
	daemon, died := make(chan *os.Process, 1), make(chan struct{})
	h.killed.Store(false)
	h.died = died
	h.proxy.Begin(script, sync.OnceFunc(func() {
		h.killed.Store(true)
		_ = (<-daemon).Kill() // it may have ended
		close(died)
	}))
	return daemon
}

// diesOr waits until the daemon was ended, or everything is as it is wanted, and returns whether it was ended.
func (h *tortured) diesOr(what string) bool {
	h.t.Helper()
	h.until(what, func() error {
		select {
		case <-h.died:
			return nil
		default:
		}
		if h.said() == "Healthy" {
			return nil
		}
		return errors.New("the daemon was not ended, and the fleet is not healthy")
	})
	return h.killed.Load()
}

// revive starts the daemon again after it was ended, with what the script does to its calls.
func (h *tortured) revive(script func(engineproxy.Call) engineproxy.Fault) {
	h.t.Helper()
	if err := h.endDaemon(syscall.SIGKILL); err != nil {
		h.t.Fatal(err)
	}
	h.past = h.calls()
	h.since.Store(h.logSize())
	daemon := h.listen(script)
	h.startDaemon()
	daemon <- h.daemon.Process
}

// calls are those since the state was changed.
func (h *tortured) calls() []engineproxy.Call { return slices.Concat(h.past, h.proxy.Calls()) }

// lines are those of the daemon's log since the state was changed, or the daemon was started again.
func (h *tortured) lines() []logLine {
	var out []logLine
	for line := range strings.Lines(h.logged(h.since.Load())) {
		var l logLine
		if json.Unmarshal([]byte(line), &l) == nil {
			out = append(out, l)
		}
	}
	return out
}

// logLine is what the tests read of a line.
type logLine struct {
	Level, Message, Reason string
	Steps                  int
}

// said is the health that the daemon told last.
func (h *tortured) said() string {
	health := ""
	for _, l := range h.lines() {
		if l.Reason != "" {
			health, _, _ = strings.Cut(l.Message, ":")
		}
	}
	return health
}

// plans are the numbers of steps of the plans that were carried out.
func (h *tortured) plans() []int {
	var out []int
	for _, l := range h.lines() {
		if strings.HasPrefix(l.Message, "plan: ") {
			out = append(out, l.Steps)
		}
	}
	return out
}

// settle waits until the fleet is as it is wanted, and fails the test unless nothing was lost, doubled or left over.
func (h *tortured) settle(what string) {
	h.t.Helper()
	h.until(what+": the fleet is at rest", func() error {
		if said := h.said(); said != "Healthy" {
			return fmt.Errorf("the daemon says %q", said)
		}
		out, err := h.fairlead("plan")
		if err == nil && !strings.Contains(out, "No changes.") {
			err = fmt.Errorf("there is something to do:\n%s", out)
		}
		return err
	})
	if err := h.check(); err != nil {
		h.t.Errorf("%s: %v", what, err)
	}
}

// check compares everything that there is with what is wanted.
func (h *tortured) check() error {
	out, err := h.ownHost.fairlead("get", "pods", "-A", "-o", "json")
	var list struct{ Items []corev1.Pod }
	if err == nil {
		err = json.Unmarshal([]byte(out), &list)
	}
	if err != nil {
		return err
	}
	got, uids := map[string]int{}, map[string]bool{}
	want := map[string]int{} // containers by pod and name
	var errs []error
	for _, p := range list.Items {
		got[p.Labels["app"]]++
		uids[string(p.UID)] = true
		want[string(p.UID)+" POD"]++
		for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
			want[string(p.UID)+" "+c.Name]++
		}
		ready := slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		})
		if !ready && p.Status.Phase != corev1.PodSucceeded {
			errs = append(errs, fmt.Errorf("pod %s is not ready: %s", p.Name, p.Status.Phase))
		}
	}
	if d := cmp.Diff(h.wanted(h.state), got); d != "" {
		errs = append(errs, fmt.Errorf("pods by app (-want +got):\n%s", d))
	}
	all, err := h.ContainerList(context.Background(), container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", "dev.fairlead.installation="+h.installation))})
	errs = append(errs, err)
	have := map[string]int{}
	for _, c := range all {
		key := c.Labels["dev.fairlead.uid"] + " " + c.Labels["dev.fairlead.container"]
		if _, stranger := h.foreign[c.ID]; stranger || h.restarts && c.State != "running" && have[key] > 0 {
			continue // the list begins with the newest
		}
		have[key]++
	}
	if d := cmp.Diff(want, have); d != "" {
		errs = append(errs, fmt.Errorf("containers by pod and name (-want +got):\n%s", d))
	}
	errs = append(errs, h.leftovers(uids), h.watch.violations())
	for id, before := range h.foreign {
		if now := h.stranger(id); now != before {
			errs = append(errs, fmt.Errorf("a container of others was %s and is %s", before, now))
		}
	}
	for _, c := range h.calls() {
		if c.Archive() {
			errs = append(errs, fmt.Errorf("the archive API was called: %s", c))
		}
	}
	if plans := h.plans(); len(plans) > crashPasses {
		errs = append(errs, fmt.Errorf("%d plans were carried out, of %v steps, not %d at most", len(plans), plans, crashPasses))
	}
	return errors.Join(errs...)
}

// leftovers returns an error where files of pods are there that are gone.
func (h *ownHost) leftovers(uids map[string]bool) error {
	var errs []error
	for _, dir := range []string{"state/pods", "state/volumes/pods", "run/pods"} {
		entries, err := os.ReadDir(filepath.Join(h.dir, dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, e := range entries {
			if uid := strings.TrimSuffix(e.Name(), ".json"); !uids[uid] {
				errs = append(errs, fmt.Errorf("%s/%s was left behind", dir, e.Name()))
			}
		}
	}
	return errors.Join(errs...)
}

// watch follows an engine's events, beside the daemon and its proxy: of each container of a pod one may run at a time.
type watch struct {
	mu      sync.Mutex
	running map[string]string // by pod and container, the id
	doubled []error
	starts  map[string]int
}

// watchContainers watches the containers of an installation until the test ends.
func watchContainers(t *testing.T, e engine, installation string) *watch {
	t.Helper()
	w := &watch{running: map[string]string{}, starts: map[string]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			w.follow(ctx, e, installation)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return w
}

// follow takes events until the engine goes away, and then what runs when it is back.
func (w *watch) follow(ctx context.Context, e engine, installation string) {
	label := filters.Arg("label", "dev.fairlead.installation="+installation)
	messages, errs := e.Events(ctx, events.ListOptions{Filters: filters.NewArgs(
		filters.Arg("type", "container"), filters.Arg("event", "start"), filters.Arg("event", "die"), label)})
	all, err := e.ContainerList(ctx, container.ListOptions{Filters: filters.NewArgs(label)})
	if err != nil {
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
		return
	}
	w.mu.Lock()
	clear(w.running)
	w.mu.Unlock()
	for _, c := range all {
		w.runs(c.Labels, c.Names[0], c.ID)
	}
	for {
		select {
		case m := <-messages:
			w.take(m)
		case <-errs: // the engine went away, or the test ends
			return
		}
	}
}

// runs notes that a container runs.
func (w *watch) runs(labels map[string]string, name, id string) {
	key := labels["dev.fairlead.uid"] + " " + labels["dev.fairlead.container"]
	if strings.HasPrefix(key, strangerUID) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if other := w.running[key]; other != "" && other != id {
		w.doubled = append(w.doubled, fmt.Errorf("%s runs twice: %.12s and %.12s", name, other, id))
	}
	w.running[key] = id
}

func (w *watch) take(m events.Message) {
	key := m.Actor.Attributes["dev.fairlead.uid"] + " " + m.Actor.Attributes["dev.fairlead.container"]
	if strings.HasPrefix(key, strangerUID) {
		return
	}
	if m.Action == events.ActionStart {
		w.runs(m.Actor.Attributes, m.Actor.Attributes["name"], m.Actor.ID)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case m.Action == events.ActionStart:
		w.starts[key]++
	case w.running[key] == m.Actor.ID:
		delete(w.running, key)
	}
}

// violations returns what was wrong since the last call.
func (w *watch) violations() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := errors.Join(w.doubled...)
	w.doubled = nil
	return err
}

// forget begins to count anew how often containers are started.
func (w *watch) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.starts = map[string]int{}
}

// startedOnce returns an error where a container of a pod was started more than once, since the last call.
func (w *watch) startedOnce() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(w.starts)) {
		if n := w.starts[key]; n > 1 {
			errs = append(errs, fmt.Errorf("%s was started %d times", key, n))
		}
	}
	w.starts = map[string]int{}
	return errors.Join(errs...)
}

// TestCrashes is the short form of the tests below, on one installation: a fixed spread of what they do.
func TestCrashes(t *testing.T) {
	if *torture {
		t.Skip("the long form of each of its parts is run")
	}
	h := newTortured(t)
	calls := h.undisturbed()
	h.dies(calls/6, engineproxy.Before)
	h.dies(calls/2, engineproxy.During)
	h.dies(5*calls/6, engineproxy.After)
	h.diesAgain(engineproxy.After, 3)
	h.restarts = true
	r := rand.New(rand.NewPCG(1, 0))
	h.disturbed("disturbed now and then", nowAndThen(r))
	// That the engine is restarted in the middle is in TestEngineGoesAwayDuringAPlan only: Docker 20.10 sometimes has a
	// container afterwards that it can neither start nor let go of, "id already in use".
}

// undisturbed goes to the other state and returns how many calls that takes.
func (h *tortured) undisturbed() int {
	h.t.Helper()
	h.watch.forget()
	n := len(h.turn("undisturbed", nil))
	steps := h.plans()
	h.t.Logf("to state %d: plans of %v steps, %d calls", h.state, steps, n)
	if len(steps) == 0 || steps[0] < fleetActions {
		h.t.Fatalf("the plans have %v steps, not at least %d", steps, fleetActions)
	}
	if err := h.watch.startedOnce(); err != nil {
		h.t.Error(err)
	}
	return n
}

// dies goes to the other state, and ends the daemon at a call that changes something. It returns false when there
// was no such call.
func (h *tortured) dies(number int, moment engineproxy.Moment) (reached bool) {
	h.t.Helper()
	what := fmt.Sprintf("killed %s call %d on the way to state %d", moment, number, 1-h.state)
	var at engineproxy.Call
	h.turn(what, func(c engineproxy.Call) engineproxy.Fault {
		if c.Number != number || at.Number > 0 {
			return engineproxy.Fault{}
		}
		at = c
		return engineproxy.Fault{Kill: moment}
	})
	h.t.Logf("%s (%s): then plans of %v steps", what, at.Kind, h.plans())
	if err := h.watch.startedOnce(); err != nil {
		h.t.Errorf("%s: %v", what, err)
	}
	return at.Number > 0
}

// diesAgain goes to the other state, and ends the daemon at the first call of each of so many lives at most: before the call
// in every other life, and at a moment in those between, so that each second life comes further. The last life finishes what
// is left.
func (h *tortured) diesAgain(moment engineproxy.Moment, lives int) {
	h.t.Helper()
	what := fmt.Sprintf("killed %s the first call of each life", moment)
	var mu sync.Mutex
	kinds := map[string]int{}
	life, died := 0, true
	for ; life < lives && died; life++ {
		kill := moment
		if life%2 == 0 {
			kill = engineproxy.Before
		}
		script := func(c engineproxy.Call) engineproxy.Fault {
			if c.Number != 1 {
				return engineproxy.Fault{}
			}
			mu.Lock()
			defer mu.Unlock()
			kinds[string(kill)+" "+c.Kind]++
			return engineproxy.Fault{Kill: kill}
		}
		if life == 0 {
			h.begin(script)
		} else {
			h.revive(script)
		}
		died = h.diesOr(what)
	}
	if died {
		h.revive(nil)
	}
	h.settle(what)
	if err := h.watch.startedOnce(); err != nil {
		h.t.Errorf("%s: %v", what, err)
	}
	mu.Lock()
	defer mu.Unlock()
	h.t.Logf("%s: %d lives, at %v; then plans of %v steps", what, life, kinds, h.plans())
}

// moments are all at which the daemon is ended.
var moments = []engineproxy.Moment{engineproxy.Before, engineproxy.During, engineproxy.After}

// TestDaemonDiesAtEveryEngineCall ends the daemon by SIGKILL before, while and after the engine does what it is asked
// for, at every call of plans of at least 60 steps. Each time the next daemon finishes what was begun.
func TestDaemonDiesAtEveryEngineCall(t *testing.T) {
	longFormOnly(t)
	h := newTortured(t)
	for range 2 {
		h.undisturbed()
	}
	part, parts := slice(t)
	for point, reached := 0, true; reached; point++ {
		if point%parts == part {
			number := 1 + point/len(moments)
			reached = h.dies(number, moments[(point+number)%len(moments)]) // so that a part has every moment
		}
	}
}

// TestDaemonDiesAgainAndAgain ends the daemon at the first call of each of its lives, until there is nothing left to do.
func TestDaemonDiesAgainAndAgain(t *testing.T) {
	longFormOnly(t)
	h := newTortured(t)
	h.watch.forget()
	for _, moment := range []engineproxy.Moment{engineproxy.During, engineproxy.After} {
		h.diesAgain(moment, 1000)
	}
}

// disturbances are what can become of an answer of the engine, and questions those of an answer to a question.
var (
	disturbances = []engineproxy.Answer{
		engineproxy.Drop, engineproxy.Refuse, engineproxy.Late, engineproxy.Twice, engineproxy.Error, engineproxy.Lie, engineproxy.Conflict, engineproxy.Truncated,
	}
	questions = []engineproxy.Answer{engineproxy.Drop, engineproxy.Late, engineproxy.Error, engineproxy.Truncated}
)

// disturbed goes to the other state while answers of the engine are what choose says. It is called by one at a time.
func (h *tortured) disturbed(what string, choose func(engineproxy.Call) engineproxy.Answer) {
	h.t.Helper()
	var mu sync.Mutex
	told := map[engineproxy.Answer]int{}
	h.turn(what, func(c engineproxy.Call) engineproxy.Fault {
		mu.Lock()
		defer mu.Unlock()
		a := choose(c)
		if a == engineproxy.Pass {
			return engineproxy.Fault{}
		}
		told[a]++
		h.since.Store(h.logSize()) // passes count from the last disturbance
		return engineproxy.Fault{Answer: a, Delay: 300 * time.Millisecond}
	})
	mu.Lock()
	defer mu.Unlock()
	h.t.Logf("%s: %v, then plans of %v steps", what, told, h.plans())
}

// nowAndThen has every tenth answer or so be one of those that there are.
func nowAndThen(r *rand.Rand) func(engineproxy.Call) engineproxy.Answer {
	return func(c engineproxy.Call) engineproxy.Answer {
		switch {
		case c.Number > 0 && r.IntN(10) == 0:
			return disturbances[r.IntN(len(disturbances))]
		case c.Number == 0 && !strings.HasSuffix(c.Kind, "_ping") && r.IntN(10) == 0:
			return questions[r.IntN(len(questions))]
		}
		return engineproxy.Pass
	}
}

// TestEngineAnswersBadly drops, delays, doubles and fails answers of the engine, those to lists and its events among
// them. What was not answered may have been done. In the end every answer had everything.
func TestEngineAnswersBadly(t *testing.T) {
	longFormOnly(t)
	h := newTortured(t)
	h.restarts = true
	r := chance(t)
	h.disturbed("disturbed now and then", nowAndThen(r))
	part, parts := slice(t)
	const stride = 10
	for turn := range len(disturbances) * stride {
		if turn%parts != part {
			continue
		}
		a, offset := disturbances[turn/stride], turn%stride
		h.disturbed(fmt.Sprintf("calls %d, %d, ... %s", 1+offset, 1+offset+stride, a), func(c engineproxy.Call) engineproxy.Answer {
			if c.Number > 0 && (c.Number-1)%stride == offset {
				return a
			}
			return engineproxy.Pass
		})
	}
	for _, a := range questions {
		h.disturbed("questions "+string(a), func(c engineproxy.Call) engineproxy.Answer {
			if c.Number == 0 && r.IntN(3) == 0 {
				return a
			}
			return engineproxy.Pass
		})
	}
}

// TestEngineEventsComeBadly doubles, delays, cuts and loses the engine's events. Where they are lost in silence, what
// happened is found by the next list.
func TestEngineEventsComeBadly(t *testing.T) {
	longFormOnly(t)
	h := newTortured(t)
	for _, a := range []engineproxy.Answer{engineproxy.Twice, engineproxy.Late, engineproxy.Truncated, engineproxy.Drop} {
		bad := func(c engineproxy.Call) engineproxy.Fault {
			if strings.HasSuffix(c.Kind, " events") {
				return engineproxy.Fault{Answer: a, Delay: 300 * time.Millisecond}
			}
			return engineproxy.Fault{}
		}
		if err := h.endDaemon(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		h.proxy.Begin(bad, nil)
		h.startDaemon()
		h.turn("events "+string(a), bad)
	}
}

// ways are those in which an engine goes away and comes back.
func ways(h *tortured) map[string]func() error {
	restart := func(s syscall.Signal) func() error {
		return func() error { return errors.Join(h.stop(s), h.ownEngine.start(torturedFlags...)) }
	}
	return map[string]func() error{
		"restarted": restart(syscall.SIGTERM),
		"killed":    restart(syscall.SIGKILL),
		"stopped for a minute": func() error {
			err := h.signal(syscall.SIGSTOP)
			time.Sleep(time.Minute)
			return errors.Join(err, h.signal(syscall.SIGCONT))
		},
	}
}

// away goes to the other state, and the engine goes away at a call and comes back.
func (h *tortured) away(how string, way func() error, number int) {
	h.t.Helper()
	away := make(chan error, 1)
	begin := sync.OnceFunc(func() {
		go func() {
			err := way()
			h.since.Store(h.logSize()) // passes count from here
			away <- err
		}()
	})
	what := fmt.Sprintf("the engine is %s at call %d", how, number)
	h.turn(what, func(c engineproxy.Call) engineproxy.Fault {
		if c.Number >= number {
			begin()
		}
		return engineproxy.Fault{}
	})
	begin() // where the plan has fewer calls
	if err := <-away; err != nil {
		h.t.Fatal(err)
	}
	h.settle(what)
	h.t.Logf("%s: then plans of %v steps", what, h.plans())
}

// TestEngineGoesAwayDuringAPlan restarts, kills and stops the engine in the middle of a plan, ten times each. What runs
// runs on.
func TestEngineGoesAwayDuringAPlan(t *testing.T) {
	longFormOnly(t)
	h := newTortured(t)
	h.restarts = true
	r := chance(t)
	all := ways(h)
	part, parts := slice(t)
	for i, how := range slices.Repeat(slices.Sorted(maps.Keys(all)), 10) {
		if number := 1 + r.IntN(100); i%parts == part {
			h.away(how, all[how], number)
		}
	}
}

package daemon

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/applications"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/worker"
	"github.com/fairlead-dev/fairlead/sources/git/gittest"
)

var (
	updateHostile = flag.Bool("update-hostile", false, "rewrite the findings in testdata/hostile")
	torture       = flag.Bool("torture", false, "run the forms of tests that take long, too")
)

// hostileCase is one crafted repository. The application is the directory app in it.
type hostileCase struct {
	// name is the row of the catalogue of faults, what is crafted, and where it was a vulnerability.
	name string
	// files are those of the repository, make makes them, or craft makes its objects and references.
	files map[string]string
	make  func() map[string]string
	craft func(r *gittest.Repository)
	// answer is what the server says instead.
	answer gittest.Answer
	// submodules are asked for.
	submodules bool
	// unfetched: nothing of the repository can be used, so its good application fails as well.
	unfetched bool
	// want is a part of what is found; "" when the attack does nothing and the application has a plan.
	want string
	// timeout of the fetch, a minute when 0.
	timeout time.Duration
	// long cases are run with -torture only.
	long bool
}

// What no case may need more than.
const (
	mostMemory = 1 << 30 // of the test, the daemon in it, and the render workers together
	mostTime   = time.Minute
)

// canaryValue is outside of every repository, and must never be seen.
const canaryValue = "CANARY-8f14e45fceea167a"

// arena is a daemon without anything but hostile repositories and two that are good.
type arena struct {
	t       *testing.T
	h       *host
	s       *System
	server  *gittest.Server
	outside string
	canary  net.Listener
	called  atomic.Int64 // connections that the canary got
	cases   int
	base    applications.Declared
}

func newArena(t *testing.T) *arena {
	a := &arena{t: t, h: newHost(t), server: gittest.NewServer()}
	t.Cleanup(a.server.Close)
	a.outside = filepath.Join(a.h.dir, "outside")
	a.h.file("outside/secret.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: stolen}\ndata: {a: "+canaryValue+"}\n")
	a.h.file("outside/secret.env", "STOLEN="+canaryValue+"\n")
	a.h.file("outside/kust/kustomization.yaml", "configMapGenerator: [{name: stolen, literals: [a="+canaryValue+"]}]\n")
	a.h.file("state/secret.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: stolen}\nstringData: {a: "+canaryValue+"}\n")
	t.Setenv("FAIRLEAD_CANARY", canaryValue)
	stolen := gittest.New()
	stolen.Commit(stolen.Files(map[string]string{"secret.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: stolen}\ndata: {a: " + canaryValue + "}\n"}))
	headless := gittest.New()
	headless.Head = "refs/../../../../.." + a.outside + "/secret.env"
	for name, r := range map[string]*gittest.Repository{"repo": stolen, "headless": headless} {
		if err := r.Write(filepath.Join(a.outside, name)); err != nil {
			t.Fatal(err)
		}
	}
	a.traps()
	var err error
	if a.canary, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.canary.Close() })
	go func() {
		for {
			c, err := a.canary.Accept()
			if err != nil {
				return
			}
			a.called.Add(1)
			c.Close()
		}
	}()
	r := gittest.New()
	r.Commit(r.Files(map[string]string{"good/cm.yaml": goodMap("other")}))
	a.base = declared("neighbour", a.server.Put("neighbour", r, gittest.Answer{}), map[string]string{"other": "good"})
	a.s = a.h.open(Read)
	return a
}

// traps puts programs into the search path that say when they are run; nothing else is in it.
func (a *arena) traps() {
	a.t.Helper()
	for _, name := range []string{"sh", "bash", "git", "git-upload-pack", "ssh", "helm", "helmV3", "kustomize", "kubectl", "jsonnet", "sops", "gpg", "age", "age-plugin-x", "touch", "curl", "docker"} {
		a.h.file("traps/"+name, "#!/bin/sh\n: > "+a.outside+"/ran\n")
		if err := os.Chmod(filepath.Join(a.h.dir, "traps", name), 0o755); err != nil {
			a.t.Fatal(err)
		}
	}
	a.t.Setenv("PATH", filepath.Join(a.h.dir, "traps"))
}

func goodMap(name string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\ndata: {a: b}\n"
}

// declared is a repository with applications of its paths.
func declared(name, url string, paths map[string]string) applications.Declared {
	s := applications.Source{Name: name, Kind: applications.Git, Repository: applications.Repository{URL: url, Branch: "main", Timeout: time.Minute}}
	d := applications.Declared{Sources: []applications.Source{s}}
	for app, path := range paths {
		x := applications.Application{DeletionPolicy: applications.Orphan}
		x.Name, x.Source, x.Path, x.Prune = app, name, path, true
		d.Applications = append(d.Applications, x)
	}
	return d
}

// fill puts what is known only now into a text.
func (a *arena) fill(self, s string) string {
	return strings.NewReplacer("$OUTSIDE", a.outside, "$STATE", filepath.Join(a.h.dir, "state"), "$CANARY", a.canary.Addr().String(),
		"$SERVER", a.server.URL, "$SELF", self).Replace(s)
}

// shown is the opposite of fill.
func (a *arena) shown(self, s string) string {
	s = strings.NewReplacer(self, "$SELF", a.outside, "$OUTSIDE", strings.TrimPrefix(a.outside, "/"), "$OUTSIDE", filepath.Join(a.h.dir, "state"), "$STATE", a.canary.Addr().String(), "$CANARY",
		a.server.URL, "$SERVER", a.h.dir, "$DIR").Replace(s)
	return commitIDs.ReplaceAllString(s, "COMMIT")
}

var commitIDs = regexp.MustCompile(`\b[0-9a-f]{40}\b`)

// run plans a case and returns what is found. Everything that must hold of every case is checked.
func (a *arena) run(t *testing.T, c hostileCase) string {
	t.Helper()
	a.cases++
	source, bad := fmt.Sprintf("repo%d", a.cases), fmt.Sprintf("bad%d", a.cases)
	self := a.server.URL + "/" + source
	r := gittest.New()
	if c.craft != nil {
		c.craft(r)
	} else {
		files := map[string]string{"good/cm.yaml": goodMap("same")}
		if c.make != nil {
			c.files = c.make()
		}
		for name, text := range c.files {
			if strings.Contains(text, "name: self}") {
				files["app/self.yaml"] = "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {name: self}\nspec: {url: '" + self + "', interval: 1h, ref: {branch: main}}\n"
			}
			files[a.fill(self, name)] = a.fill(self, text)
		}
		r.Commit(r.Files(files))
	}
	d := declared(source, a.server.Put(source, r, c.answer), map[string]string{bad: "app", "same": "good"})
	d.Sources[0].Repository.Submodules = c.submodules
	if c.timeout > 0 {
		d.Sources[0].Repository.Timeout = c.timeout
	}
	d.Sources, d.Applications = append(d.Sources, a.base.Sources...), append(d.Applications, a.base.Applications...)

	peak := resetPeak(t)
	start := time.Now()
	a.s.declare(bySettings, d)
	p, err := a.s.Plan(t.Context(), api.PlanRequest{}, nil)
	took := time.Since(start)
	if err != nil {
		t.Fatalf("no plan: %v", err)
	}
	memory, cpu := peak()
	t.Logf("%s, %s of processor time, %d MiB", took.Round(time.Millisecond), cpu.Round(time.Millisecond), memory>>20)
	if cpu > mostTime {
		t.Errorf("it took %s of processor time", cpu)
	}
	if memory > mostMemory {
		t.Errorf("it needed %d MiB of memory", memory>>20)
	}
	a.unharmed(t, p)
	a.s.declare(bad, applications.Declared{}) // what it declared goes
	a.server.Put(source, gittest.New(), gittest.Answer{})
	var found strings.Builder
	for _, app := range p.Applications {
		switch app.Name {
		case "other":
			a.good(t, app)
		case "same":
			if !c.unfetched {
				a.good(t, app)
			}
		case bad:
			found.WriteString(findings(app, ""))
		default:
			found.WriteString(findings(app, app.Name+": "))
		}
	}
	return a.shown(self, found.String())
}

// unharmed holds that nothing from outside is in what the daemon shows, and that nothing was called or run.
func (a *arena) unharmed(t *testing.T, p api.PlanResult) {
	t.Helper()
	status, err := a.s.Status(t.Context())
	if err != nil {
		t.Error(err)
	}
	out, err := json.Marshal([]any{p, status, told(t, a.s, "")})
	if err != nil {
		t.Error(err)
	}
	a.h.mu.Lock()
	out = append(out, a.h.log.Bytes()...)
	a.h.log.Reset()
	a.h.mu.Unlock()
	for _, secret := range []string{canaryValue, base64.StdEncoding.EncodeToString([]byte(canaryValue)), "CANARYVALUE"} {
		if i := bytes.Index(out, []byte(secret)); i >= 0 {
			t.Errorf("what is outside is shown: …%s…", out[max(0, i-200):min(len(out), i+100)])
		}
	}
	if n := a.called.Swap(0); n > 0 {
		t.Errorf("%d connections to the canary", n)
	}
	if _, err := os.Stat(filepath.Join(a.outside, "ran")); err == nil {
		t.Error("a program was run")
		a.h.remove("outside/ran")
	}
	if calls := a.h.engine.Mutations(); len(calls) > 0 {
		t.Errorf("the engine was changed: %v", calls)
	}
}

// good holds that a good application is planned right beside a hostile one.
func (a *arena) good(t *testing.T, app api.ApplicationPlan) {
	t.Helper()
	if app.Error != nil || app.Plan.Diags.HasErrors() {
		t.Errorf("the good application %s: %+v %s", app.Name, app.Error, app.Plan.Diags)
		return
	}
	if len(app.Plan.Changes) != 1 || app.Plan.Changes[0].Action != plan.ActionCreate || app.Plan.Changes[0].Ref.String() != "ConfigMap default/"+app.Name {
		t.Errorf("the good application %s has the plan\n%s", app.Name, app.Plan)
	}
}

// findings are what is wrong with an application, or its plan.
func findings(app api.ApplicationPlan, prefix string) string {
	var b strings.Builder
	broken := app.Error != nil
	if app.Error != nil {
		fmt.Fprintf(&b, "%s%s\n", prefix, app.Error.Message)
	}
	for _, d := range app.Plan.Diags.Sorted() {
		if d.Code == "incomplete" {
			continue
		}
		fmt.Fprintf(&b, "%s%s\n", prefix, d)
		broken = broken || d.Severity == diag.Error
	}
	if !broken {
		for _, c := range app.Plan.Changes {
			fmt.Fprintf(&b, "%s%s %s\n", prefix, c.Action, c.Ref)
		}
	}
	return b.String()
}

// resetPeak begins to measure this process and the render workers; what it returns says the most memory that one of
// them had, and how much processor time all of them took. Time on the wall would be that of the machine.
func resetPeak(t *testing.T) func() (memory int64, cpu time.Duration) {
	t.Helper()
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		t.Logf("the peak of the memory cannot be reset: %v", err)
	}
	before, _ := used()
	return func() (int64, time.Duration) {
		after, memory := used()
		return memory, after - before
	}
}

// used is the processor time that this process and its children took so far, and the most memory that one of them had.
func used() (cpu time.Duration, memory int64) {
	memory = highest("self")
	var self, ended syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &self)
	_ = syscall.Getrusage(syscall.RUSAGE_CHILDREN, &ended)
	for _, u := range []syscall.Rusage{self, ended} {
		cpu += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	for _, pid := range renderWorkers() {
		memory = max(memory, highest(pid))
		cpu += ticks(pid)
	}
	// Those that were ended are counted with all that ended before, so this holds for every case.
	return cpu, max(memory, ended.Maxrss<<10)
}

// ticks is the processor time of a process that runs.
func ticks(pid string) time.Duration {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond // a hundred ticks a second
}

var peakLine = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// highest is the most memory that a process had, in bytes.
func highest(pid string) int64 {
	b, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0
	}
	m := peakLine.FindSubmatch(b)
	if m == nil {
		return 0
	}
	n, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return n << 10
}

// renderWorkers are the ids of this process's children, all of which must be render workers.
func renderWorkers() []string {
	files, _ := filepath.Glob("/proc/self/task/*/children")
	var out []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for _, pid := range strings.Fields(string(b)) {
			if line, err := os.ReadFile("/proc/" + pid + "/cmdline"); err == nil && bytes.Contains(line, []byte(worker.Argument)) {
				out = append(out, pid)
			}
		}
	}
	return out
}

// TestHostileRepositories runs every crafted repository through the daemon: it is fetched from a server, read,
// rendered in the render workers, and planned, beside a good application of the same repository and one of another.
// Whatever it does: nothing outside is read, called or run, it is told what, where and what to do, memory and time
// stay bounded, and the good ones are planned.
func TestHostileRepositories(t *testing.T) {
	a := newArena(t)
	total := 0
	files, err := filepath.Glob("testdata/hostile/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		total += a.archive(t, file)
	}
	for _, list := range [][]hostileCase{craftedTrees(), craftedPacks(), bombs()} {
		for _, c := range list {
			total++
			t.Run(c.name, func(t *testing.T) {
				if c.long && !*torture {
					t.Skip("with -torture only")
				}
				found := a.run(t, c)
				if c.want == "" && strings.Contains(found, "error: ") || !strings.Contains(found, c.want) {
					t.Errorf("found\n%.3000s\nwant %q", found, c.want)
				}
				if len(found) > 2<<20 {
					t.Errorf("what is found is %d bytes long", len(found))
				}
			})
		}
	}
	t.Logf("%d crafted repositories", total)
	if total < 150 {
		t.Errorf("only %d cases", total)
	}
}

// archive runs the cases of a file: the first part of a name is that of the case, and its file "want" is exactly
// what is found.
func (a *arena) archive(t *testing.T, file string) int {
	ar, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	cases := map[string]hostileCase{}
	for _, f := range ar.Files {
		name, path, ok := strings.Cut(f.Name, "/")
		if !ok {
			t.Fatalf("%s: %s is of no case", file, f.Name)
		}
		c, have := cases[name]
		if !have {
			names = append(names, name)
			c.files = map[string]string{}
		}
		if path == "want" {
			c.want = string(f.Data)
		} else {
			c.files[path] = string(f.Data)
		}
		cases[name] = c
	}
	row := strings.TrimSuffix(filepath.Base(file), ".txtar")
	got := map[string]string{}
	for _, name := range names {
		t.Run(row+" "+name, func(t *testing.T) {
			c := cases[name]
			got[name] = a.run(t, c)
			if d := cmp.Diff(c.want, got[name]); d != "" && !*updateHostile {
				t.Errorf("findings (-want +got):\n%s", d)
			}
		})
	}
	if *updateHostile {
		out := &txtar.Archive{Comment: ar.Comment}
		for i, f := range ar.Files {
			name, path, _ := strings.Cut(f.Name, "/")
			if path != "want" {
				out.Files = append(out.Files, f)
			}
			if next := i + 1; next == len(ar.Files) || !strings.HasPrefix(ar.Files[next].Name, name+"/") {
				found, ran := got[name]
				if !ran {
					found = cases[name].want
				}
				out.Files = append(out.Files, txtar.File{Name: name + "/want", Data: []byte(found)})
			}
		}
		if err := os.WriteFile(file, txtar.Format(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return len(names)
}

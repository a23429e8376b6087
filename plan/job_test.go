package plan

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/render/object"
)

var updateJob = flag.Bool("update-job", false, "rewrite testdata/job.txtar")

// jobWorld is a node and an inventory that do what plans say, at once.
type jobWorld struct {
	t       testing.TB
	now     time.Time
	app     Application
	job     object.Object
	pods    []ObservedPod
	applied []Applied
	made    int
	stale   bool
	last    Plan
}

func newJobWorld(t testing.TB, manifest []byte) *jobWorld {
	return &jobWorld{t: t, now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), app: Application{Name: "a", Prune: true}, job: typedObject(t, manifest)}
}

// pass computes a plan and carries it out.
func (w *jobWorld) pass() Plan {
	d, found := Expand(w.app, []object.Object{w.job}, true)
	if found.HasErrors() {
		w.t.Fatal(found)
	}
	p := Compute(d, Observed{Now: w.now, Nodes: []NodeState{{Node: "n", Pods: w.pods, Stale: w.stale}}, Applied: w.applied}, Options{Node: "n", DigestKey: testKey})
	for _, c := range p.Changes {
		if c.Ref != w.job.Ref || c.Action == ActionNone {
			continue
		}
		next := RedactApplied(w.job, testKey)
		if len(w.applied) > 0 && c.Action == ActionUpdate {
			next.Finished, next.Succeeded, next.FinishReason = w.applied[0].Finished, w.applied[0].Succeeded, w.applied[0].FinishReason
		}
		w.applied = []Applied{next}
	}
	for _, f := range p.Finished {
		w.applied[0].Finished, w.applied[0].Succeeded, w.applied[0].FinishReason = f.At, f.Succeeded, f.Reason
	}
	for _, s := range p.Steps {
		switch args := s.Args.(type) {
		case CreatePod:
			if slices.ContainsFunc(w.pods, func(p ObservedPod) bool { return p.PodKey == args.Pod.PodKey }) {
				w.t.Fatalf("pod %s is made twice", args.Pod.PodKey)
			}
			w.made++
			o := ObservedPod{
				PodKey: args.Pod.PodKey, UID: strconv.Itoa(w.made), Application: args.Pod.Application, Owner: args.Pod.Owner,
				Template: args.Pod.Template, Index: args.Pod.Index, Labels: args.Pod.Labels, Annotations: args.Pod.Annotations,
				Spec: args.Pod.Spec, Created: w.now, Phase: corev1.PodRunning, Ready: true, ReadySince: w.now,
			}
			for i := range args.Pod.Spec.Containers {
				o.Containers = append(o.Containers, ObservedContainer{Name: args.Pod.Spec.Containers[i].Name, State: Running, Ready: true,
					Resources: ResourcesOf(&args.Pod.Spec.Containers[i])})
			}
			w.pods = append(w.pods, o)
		case DeletePod:
			w.pods = slices.DeleteFunc(w.pods, func(p ObservedPod) bool { return p.UID == args.UID })
		}
	}
	w.last = p
	return p
}

// running returns the pods that run, oldest first.
func (w *jobWorld) running() []*ObservedPod {
	var out []*ObservedPod
	for i := range w.pods {
		if w.pods[i].Phase == corev1.PodRunning {
			out = append(out, &w.pods[i])
		}
	}
	slices.SortStableFunc(out, func(x, y *ObservedPod) int { return x.Created.Compare(y.Created) })
	return out
}

func (w *jobWorld) end(p *ObservedPod, exitCode int) {
	p.Phase, p.Ready, p.Finished = corev1.PodSucceeded, false, w.now
	if exitCode != 0 {
		p.Phase = corev1.PodFailed
	}
	for i := range p.Containers {
		p.Containers[i].State, p.Containers[i].Ready, p.Containers[i].ExitCode = Terminated, false, exitCode
	}
}

// do carries out a line of a script: pass, wait DURATION, end N EXITCODE (of the running pods, oldest first),
// restarts N COUNT, stop N (it is told to stop), stale (the node stops or begins to answer), use FILE [force].
func (w *jobWorld) do(line string, files map[string][]byte) string {
	f := strings.Fields(line)
	number := func(i int) int {
		n, err := strconv.Atoi(f[i])
		if err != nil {
			w.t.Fatalf("%s: %v", line, err)
		}
		return n
	}
	switch f[0] {
	case "pass":
		p := w.pass()
		var b strings.Builder
		for _, s := range p.Steps {
			if s.Op != OpPullImage {
				fmt.Fprintf(&b, "  %s %s: %s\n", s.Op, s.Target.Name, s.Cause)
			}
		}
		for _, s := range p.Status {
			fmt.Fprintf(&b, "  %s %s: %d of %d succeeded, %d failed", s.Health, s.Reason, s.Succeeded, s.Desired, s.Failed)
			if s.Message != "" {
				fmt.Fprintf(&b, "; %s", s.Message)
			}
			b.WriteString("\n")
		}
		for _, e := range p.Finished {
			fmt.Fprintf(&b, "  ended at %s, succeeded %v\n", e.At.Format(time.TimeOnly), e.Succeeded)
		}
		if !p.Wake.IsZero() {
			fmt.Fprintf(&b, "  wake in %s\n", p.Wake.Sub(w.now))
		}
		for _, d := range p.Diags {
			fmt.Fprintf(&b, "  %s\n", d)
		}
		return b.String()
	case "wait":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			w.t.Fatal(err)
		}
		w.now = w.now.Add(d)
	case "end":
		r := w.running()
		if number(1) >= len(r) {
			w.t.Fatalf("%s: %d pods run", line, len(r))
		}
		w.end(r[number(1)], number(2))
	case "restarts":
		w.running()[number(1)].Containers[0].Restarts = number(2)
	case "stop":
		w.running()[number(1)].Terminating = true
	case "stale":
		w.stale = !w.stale
	case "use":
		w.job = typedObject(w.t, files[f[1]])
		w.app.Force = len(f) > 2
	default:
		w.t.Fatalf("unknown command %q", line)
	}
	return ""
}

// TestJob plays scripts: in testdata/job.txtar, NAME.yaml is a job and NAME what happens.
func TestJob(t *testing.T) {
	const file = "testdata/job.txtar"
	ar, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, f := range ar.Files {
		files[f.Name] = f.Data
	}
	for i, f := range ar.Files {
		if strings.HasSuffix(f.Name, ".yaml") {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			w := newJobWorld(t, files[f.Name+".yaml"])
			var b strings.Builder
			for line := range strings.Lines(string(f.Data)) {
				if strings.HasPrefix(line, "  ") || strings.TrimSpace(line) == "" {
					continue
				}
				b.WriteString(line)
				b.WriteString(w.do(strings.TrimSpace(line), files))
			}
			if *updateJob {
				ar.Files[i].Data = []byte(b.String())
			} else if diff := cmp.Diff(string(f.Data), b.String()); diff != "" {
				t.Errorf("(-want +have):\n%s", diff)
			}
		})
	}
	if *updateJob {
		if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestJobProperties holds, whatever pods do: no more run than parallelism allows, no more succeed than
// completions, a plan made again is the same, every job ends, and one that has ended makes no pod again.
func TestJobProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		manifest := drawJob(rt)
		w := newJobWorld(t, []byte(manifest))
		spec := &w.job.Value.(*batchv1.Job).Spec
		parallelism, limit := int(*spec.Parallelism), -1
		if spec.Completions != nil {
			limit = int(*spec.Completions)
		}
		failing := rapid.IntRange(0, 100).Draw(rt, "failing")
		ended := -1
		for step := range 2000 {
			w.pass()
			running := w.running()
			if len(running) > parallelism {
				rt.Fatalf("%d pods run, %d are allowed\n%s", len(running), parallelism, manifest)
			}
			succeeded := map[string]bool{}
			for i := range w.pods {
				if p := &w.pods[i]; p.Phase == corev1.PodSucceeded {
					key := p.UID
					if spec.CompletionMode != nil && *spec.CompletionMode == batchv1.IndexedCompletion {
						key = strconv.Itoa(p.Index)
						if succeeded[key] {
							rt.Fatalf("index %s succeeded twice\n%s", key, manifest)
						}
					}
					succeeded[key] = true
				}
			}
			if limit >= 0 && len(succeeded) > limit {
				rt.Fatalf("%d pods succeeded, %d were wanted\n%s", len(succeeded), limit, manifest)
			}
			if len(w.applied) > 0 && !w.applied[0].Finished.IsZero() {
				if ended < 0 {
					ended = w.made
				}
				if w.made != ended {
					rt.Fatalf("an ended job made a pod\n%s", manifest)
				}
				if len(running) == 0 && rapid.Bool().Draw(rt, "forget") {
					w.pods = nil
					w.now = w.now.Add(time.Hour)
					w.pass()
					if w.made != ended {
						rt.Fatalf("a job without its pods ran again\n%s", manifest)
					}
					return
				}
			} else if len(running) == 0 && w.last.Wake.IsZero() {
				rt.Fatalf("after step %d nothing runs and nothing is waited for\n%s", step, manifest)
			}
			switch {
			case len(running) > 0 && rapid.IntRange(0, 3).Draw(rt, "what") > 0:
				p := running[rapid.IntRange(0, len(running)-1).Draw(rt, "which")]
				code := 0
				if rapid.IntRange(1, 100).Draw(rt, "luck") <= failing {
					code = rapid.IntRange(1, 3).Draw(rt, "code")
				}
				w.end(p, code)
			case !w.last.Wake.IsZero() && w.last.Wake.After(w.now):
				w.now = w.last.Wake
			default:
				w.now = w.now.Add(time.Second)
			}
		}
		if ended < 0 {
			rt.Fatalf("the job never ended\n%s", manifest)
		}
	})
}

func drawJob(rt *rapid.T) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j, namespace: n}\nspec:\n")
	fmt.Fprintf(&b, "  parallelism: %d\n", rapid.IntRange(1, 5).Draw(rt, "parallelism"))
	indexed := rapid.Bool().Draw(rt, "indexed")
	if indexed || rapid.Bool().Draw(rt, "fixed") {
		fmt.Fprintf(&b, "  completions: %d\n", rapid.IntRange(0, 8).Draw(rt, "completions"))
	}
	if indexed {
		b.WriteString("  completionMode: Indexed\n")
		if rapid.Bool().Draw(rt, "perIndex") {
			fmt.Fprintf(&b, "  backoffLimitPerIndex: %d\n", rapid.IntRange(0, 2).Draw(rt, "perIndexLimit"))
		}
	}
	fmt.Fprintf(&b, "  backoffLimit: %d\n", rapid.IntRange(0, 6).Draw(rt, "backoffLimit"))
	if rapid.Bool().Draw(rt, "ttl") {
		fmt.Fprintf(&b, "  ttlSecondsAfterFinished: %d\n", rapid.IntRange(0, 20).Draw(rt, "seconds"))
	}
	if rapid.Bool().Draw(rt, "policy") {
		action := rapid.SampledFrom([]string{"FailJob", "Count"}).Draw(rt, "action")
		fmt.Fprintf(&b, "  podFailurePolicy: {rules: [{action: %s, onExitCodes: {operator: In, values: [3]}}]}\n", action)
	}
	b.WriteString("  template:\n    spec: {restartPolicy: Never, containers: [{name: c, image: i}]}\n")
	return b.String()
}

package plan

import (
	"bytes"
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
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/render/object"
)

var updateStages = flag.Bool("update-stages", false, "rewrite testdata/stages.txtar")

// stagesWorld is a node and a record that do what the open part of plans says, as the daemon does. Pods begin unready.
type stagesWorld struct {
	t        testing.TB
	now      time.Time
	app      Application
	objects  []object.Object
	pods     []ObservedPod
	services []*Service
	applied  []Applied
	sync     *SyncState
	retry    bool
	made     int
}

func (w *stagesWorld) use(manifests []byte, revision string) {
	w.objects, w.app.Revision = nil, revision
	for doc := range bytes.SplitSeq(manifests, []byte("\n---\n")) {
		if len(bytes.TrimSpace(doc)) > 0 {
			w.objects = append(w.objects, typedObject(w.t, doc))
		}
	}
	slices.SortFunc(w.objects, func(a, b object.Object) int { return object.Compare(a.Ref, b.Ref) })
}

func (w *stagesWorld) compute() Plan {
	d, found := Expand(w.app, w.objects, true)
	if found.HasErrors() {
		w.t.Fatal(found)
	}
	return Compute(d, Observed{
		Now: w.now, Nodes: []NodeState{{Node: "n", Pods: w.pods, Services: w.services}}, Applied: w.applied, Sync: w.sync, Retry: w.retry,
	}, Options{Node: "n", DigestKey: testKey})
}

// end records what a plan found to have ended.
func (w *stagesWorld) end(p Plan) bool {
	for _, f := range p.Finished {
		i := slices.IndexFunc(w.applied, func(a Applied) bool { return a.Ref == f.Ref })
		a := &w.applied[i]
		a.Finished, a.Succeeded, a.FinishReason, a.FinishMessage = f.At, f.Succeeded, f.Reason, f.Message
	}
	if p.Sync != nil && !p.Sync.Ended.IsZero() {
		w.sync, w.retry = p.Sync, false
		return true
	}
	return len(p.Finished) > 0
}

// pass computes a plan, and carries out what of it is open.
func (w *stagesWorld) pass() string {
	var b strings.Builder
	p := w.compute()
	for w.end(p) {
		for _, f := range p.Finished {
			fmt.Fprintf(&b, "  %s ended, succeeded %v\n", f.Ref, f.Succeeded)
		}
		if s := p.Sync; s != nil && !s.Ended.IsZero() {
			fmt.Fprintf(&b, "  the sync ended %s\n", strings.ReplaceAll(s.Failed, "\n", " | "))
		}
		p = w.compute()
	}
	open := p.Open()
	done := map[StepID]bool{}
	for _, s := range open.Steps {
		done[s.ID] = true
	}
	for _, s := range p.Steps {
		mark := "."
		if done[s.ID] {
			mark = "+"
		}
		if s.Op != OpPullImage {
			fmt.Fprintf(&b, "  %s %s\n", mark, s)
		}
	}
	for _, c := range p.Changes {
		if c.Wait != 0 {
			fmt.Fprintf(&b, "  %s waits for step %d\n", c.Ref, c.Wait)
		}
	}
	for _, s := range p.Status {
		fmt.Fprintf(&b, "  %s: %s %s", s.Ref, s.Health, s.Reason)
		if s.Message != "" {
			fmt.Fprintf(&b, ": %s", strings.ReplaceAll(s.Message, "\n", " | "))
		}
		b.WriteString("\n")
	}
	for _, d := range p.Diags {
		fmt.Fprintf(&b, "  %s\n", strings.ReplaceAll(d.String(), "\n", " | "))
	}
	if p.Sync != nil && p.Sync.Ended.IsZero() && !open.Empty() {
		w.sync, w.retry = p.Sync, false
		b.WriteString("  a sync begins\n")
	}
	w.do(open)
	return b.String()
}

// do carries out a plan.
func (w *stagesWorld) do(p Plan) {
	for _, c := range p.Changes {
		w.applied = slices.DeleteFunc(slices.Clone(w.applied), func(a Applied) bool {
			return a.Ref == c.Ref && c.Action != ActionNone && c.Action != ActionUpdate
		})
		at := slices.IndexFunc(w.objects, func(o object.Object) bool { return o.Ref == c.Ref })
		if at < 0 || c.Action == ActionNone || c.Action == ActionDelete {
			continue
		}
		next := RedactApplied(w.objects[at], testKey)
		next.Run = c.Hook
		if i := slices.IndexFunc(w.applied, func(a Applied) bool { return a.Ref == c.Ref }); i >= 0 {
			next.Finished, next.Succeeded, next.FinishReason = w.applied[i].Finished, w.applied[i].Succeeded, w.applied[i].FinishReason
			w.applied[i] = next
			continue
		}
		w.applied = append(w.applied, next)
	}
	for _, s := range p.Steps {
		switch args := s.Args.(type) {
		case CreatePod:
			w.made++
			o := ObservedPod{
				PodKey: args.Pod.PodKey, UID: strconv.Itoa(w.made), Application: args.Pod.Application, Owner: args.Pod.Owner,
				Template: args.Pod.Template, Index: args.Pod.Index, Labels: args.Pod.Labels, Annotations: args.Pod.Annotations,
				Spec: args.Pod.Spec, Created: w.now, Phase: corev1.PodRunning,
			}
			for i := range args.Pod.Spec.Containers {
				o.Containers = append(o.Containers, ObservedContainer{Name: args.Pod.Spec.Containers[i].Name, State: Running, Resources: ResourcesOf(&args.Pod.Spec.Containers[i])})
			}
			w.pods = append(w.pods, o)
		case DeletePod:
			w.pods = slices.DeleteFunc(slices.Clone(w.pods), func(p ObservedPod) bool { return p.UID == args.UID })
		case SetService:
			w.services = append(slices.DeleteFunc(slices.Clone(w.services), func(s *Service) bool { return s.Ref == args.Service.Ref }), args.Service)
		case DeleteService:
			w.services = slices.DeleteFunc(slices.Clone(w.services), func(s *Service) bool { return s.Ref == args.Service })
		case WaitHealthy:
			w.t.Fatalf("%s is carried out", s)
		}
	}
}

// each does something to the pods of an owner that have not ended.
func (w *stagesWorld) each(owner string, do func(*ObservedPod)) {
	found := false
	for i := range w.pods {
		if p := &w.pods[i]; p.Owner.Name == owner && p.Phase == corev1.PodRunning {
			found = true
			do(p)
		}
	}
	if !found {
		w.t.Fatalf("nothing of %s runs", owner)
	}
}

// play carries out a line of a script: use FILE REVISION, pass, wait DURATION, ready OWNER, end OWNER EXITCODE [LOG], lose OWNER,
// retry (somebody asks), forget (the record of the sync is from before there were any).
func (w *stagesWorld) play(line string, files map[string][]byte) string {
	f := strings.Fields(line)
	switch f[0] {
	case "use":
		w.use(files[f[1]], f[2])
	case "pass":
		return w.pass()
	case "wait":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			w.t.Fatal(err)
		}
		w.now = w.now.Add(d)
	case "ready":
		w.each(f[1], func(p *ObservedPod) { p.Ready, p.ReadySince = true, w.now })
	case "end":
		w.each(f[1], func(p *ObservedPod) {
			p.Phase, p.Ready, p.Finished, p.LogTail = corev1.PodSucceeded, false, w.now, f[3:]
			if f[2] != "0" {
				p.Phase = corev1.PodFailed
			}
		})
	case "lose":
		w.pods = slices.DeleteFunc(slices.Clone(w.pods), func(p ObservedPod) bool { return p.Owner.Name == f[1] })
	case "retry":
		w.retry = true
	case "forget":
		w.sync = nil
		for i := range w.applied {
			w.applied[i].Run = HookRun{}
		}
	default:
		w.t.Fatalf("unknown command %q", line)
	}
	return ""
}

// TestStages plays scripts: in testdata/stages.txtar, files with a suffix hold objects, and the others say what happens.
// Steps with a plus are carried out, those with a point wait.
func TestStages(t *testing.T) {
	const file = "testdata/stages.txtar"
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
			w := &stagesWorld{t: t, now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), app: Application{Name: "a", Prune: true, AllowEmpty: true}}
			var b strings.Builder
			for line := range strings.Lines(string(f.Data)) {
				if strings.HasPrefix(line, "  ") || strings.TrimSpace(line) == "" {
					continue
				}
				b.WriteString(line)
				if !strings.HasPrefix(line, "#") {
					b.WriteString(w.play(strings.TrimSpace(line), files))
				}
			}
			if *updateStages {
				ar.Files[i].Data = []byte(b.String())
			} else if diff := cmp.Diff(string(f.Data), b.String()); diff != "" {
				t.Errorf("(-want +have):\n%s", diff)
			}
		})
	}
	if *updateStages {
		if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

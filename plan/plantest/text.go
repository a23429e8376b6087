package plantest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Now is when everything in a Case is observed.
var Now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Node is the node of a Case.
const Node plan.NodeID = "n1"

// Case is an input of Compute, read from text.
type Case struct {
	Desired  plan.Desired
	Found    diag.List // of Expand
	Observed plan.Observed
	Options  plan.Options
}

// Decode turns the documents of a YAML file into objects.
type Decode func(name string, data []byte) ([]object.Object, error)

// Parse reads a Case from an archive with these files, all optional:
//
//	application   the plan.Application as YAML; its name is "shop" unless given
//	desired       manifests
//	applied       manifests of the inventory; without the file it is what is desired
//	claims        "Kind namespace/name owner", one a line
//	pods          what runs, one pod a line, see below
//	incomplete    the desired state is not complete
//	stale         the node does not answer
//
// A pod is "namespace/name Kind/owner template words…", where template is "desired", "applied" or any
// other word, which is then the template's hash, and the words are ready, ready=5m (for how long),
// terminating, created=1h (ago), finished=5s (ago), phase=Failed, reason=Word, message=Word, log=Word, app=name,
// cpu=500 (millicores in force), memory=64 (MiB in force), restarts=3, mounted=old (an earlier version of what is mounted).
func Parse(a *txtar.Archive, decode Decode) (Case, error) {
	c := Case{Options: plan.Options{Node: Node, DigestKey: []byte("key")}}
	files := map[string][]byte{}
	for _, f := range a.Files {
		files[f.Name] = f.Data
	}
	app := plan.Application{Name: "shop"}
	if err := yaml.UnmarshalStrict(files["application"], &app); err != nil {
		return c, fmt.Errorf("application: %w", err)
	}
	objs, err := decode("desired", files["desired"])
	if err != nil {
		return c, err
	}
	_, incomplete := files["incomplete"]
	c.Desired, c.Found = plan.Expand(app, objs, !incomplete)
	before, appliedGiven := files["applied"]
	earlier := c.Desired
	if appliedGiven {
		objs, err := decode("applied", before)
		if err != nil {
			return c, err
		}
		earlier, _ = plan.Expand(app, objs, true)
	}
	for _, o := range earlier.Objects {
		c.Observed.Applied = append(c.Observed.Applied, plan.RedactApplied(o, c.Options.DigestKey))
	}
	c.Observed.Now = Now
	c.Observed.Claims = map[object.Ref]string{}
	for line := range lines(files["claims"]) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return c, fmt.Errorf("claims: %q is not three words", line)
		}
		ns, name, _ := strings.Cut(f[1], "/")
		c.Observed.Claims[object.Ref{Group: group(f[0]), Kind: f[0], Namespace: ns, Name: name}] = f[2]
	}
	node := plan.NodeState{Node: Node}
	_, node.Stale = files["stale"]
	for line := range lines(files["pods"]) {
		p, err := parsePod(line, len(node.Pods)+1, app.Name, &c.Desired, &earlier)
		if err != nil {
			return c, fmt.Errorf("pods: %q: %w", line, err)
		}
		node.Pods = append(node.Pods, p)
	}
	c.Observed.Nodes = []plan.NodeState{node}
	return c, nil
}

func lines(b []byte) func(func(string) bool) {
	return func(yield func(string) bool) {
		for l := range strings.Lines(string(b)) {
			if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "#") && !yield(l) {
				return
			}
		}
	}
}

func group(kind string) string {
	switch kind {
	case "Deployment", "ReplicaSet":
		return "apps"
	case "Job":
		return "batch"
	}
	return ""
}

func parsePod(line string, n int, app string, desired, applied *plan.Desired) (plan.ObservedPod, error) {
	f := strings.Fields(line)
	if len(f) < 3 {
		return plan.ObservedPod{}, fmt.Errorf("fewer than three words")
	}
	ns, name, _ := strings.Cut(f[0], "/")
	kind, owner, _ := strings.Cut(f[1], "/")
	pod := &plan.Pod{
		PodKey: plan.PodKey{Namespace: ns, Name: name}, Application: app, Index: -1, Template: f[2],
		Owner: object.Ref{Group: group(kind), Kind: kind, Namespace: ns, Name: owner},
		Spec:  &corev1.PodSpec{},
	}
	from := desired
	if f[2] == "applied" {
		from = applied
	}
	if f[2] == "applied" || f[2] == "desired" {
		i := slices.IndexFunc(from.Workloads, func(w plan.Workload) bool { return w.Ref == pod.Owner })
		if i < 0 {
			return plan.ObservedPod{}, fmt.Errorf("no %s is %s", pod.Owner, f[2])
		}
		key := pod.PodKey
		made := *from.Workloads[i].Pod
		pod = &made
		pod.PodKey = key
	}
	o := Observe(pod, "u"+strconv.Itoa(n))
	o.Created = Now.Add(-time.Hour)
	for _, word := range f[3:] {
		k, v, _ := strings.Cut(word, "=")
		d, _ := time.ParseDuration(v)
		num, _ := strconv.ParseInt(v, 10, 64)
		switch k {
		case "ready":
			o.Ready, o.ReadySince = true, Now.Add(-time.Hour)
			if v != "" {
				o.ReadySince = Now.Add(-d)
			}
		case "terminating":
			o.Terminating = true
		case "created":
			o.Created = Now.Add(-d)
		case "finished":
			o.Finished = Now.Add(-d)
		case "phase":
			o.Phase = corev1.PodPhase(v)
		case "reason":
			o.Reason = v
			for i := range o.Containers {
				o.Containers[i].State, o.Containers[i].Reason = plan.Waiting, v
			}
		case "message":
			o.Message = v
		case "log":
			o.LogTail = append(o.LogTail, v)
		case "app":
			o.Application = v
		case "restarts":
			o.Containers[0].Restarts = int(num)
		case "cpu":
			o.Containers[0].Resources.CPUMillis = num
		case "memory":
			o.Containers[0].Resources.MemoryBytes = num << 20
		case "mounted":
			for r := range o.Mounted {
				o.Mounted[r] = v
			}
		default:
			return o, fmt.Errorf("unknown word %q", word)
		}
	}
	return o, nil
}

// Text returns a plan as golden files have it.
func Text(p plan.Plan, now time.Time) string {
	var b strings.Builder
	for _, c := range p.Changes {
		fmt.Fprintf(&b, "%s %s: %s\n", c.Action, c.Ref, c.Cause)
		for _, f := range c.Fields {
			fmt.Fprintf(&b, "  %s: %s → %s", f.Path, f.Old, f.New)
			if f.Replaces {
				b.WriteString(" (replaces)")
			}
			b.WriteString("\n")
		}
		for _, pc := range c.Pods {
			fmt.Fprintf(&b, "  %s %s", pc.Action, pc.Pod)
			if pc.Replaces.Name != "" {
				fmt.Fprintf(&b, " for %s", pc.Replaces.Name)
			}
			if pc.Downtime {
				b.WriteString(" (downtime)")
			}
			fmt.Fprintf(&b, ": %s\n", pc.Cause)
		}
	}
	for _, d := range p.Drift {
		fmt.Fprintf(&b, "drift %s: %s → %s\n", d.Ref, d.Message, d.Healed)
	}
	add, change, destroy := p.Counts()
	fmt.Fprintf(&b, "%d to add, %d to change, %d to destroy, %d unchanged\n", add, change, destroy, p.Unchanged)
	if len(p.Steps) > 0 {
		b.WriteString("\n" + p.String())
	}
	if len(p.Status) > 0 {
		b.WriteString("\n")
	}
	for _, s := range p.Status {
		fmt.Fprintf(&b, "%s: %s %s, %d wanted, %d current, %d updated, %d ready, %d available", s.Ref, s.Health, s.Reason, s.Desired, s.Current, s.Updated, s.Ready, s.Available)
		if s.Message != "" {
			b.WriteString(": " + strings.ReplaceAll(s.Message, "\n", `\n`))
		}
		b.WriteString("\n")
	}
	if len(p.Diags) > 0 {
		b.WriteString("\n" + p.Diags.String())
	}
	if !p.Wake.IsZero() {
		fmt.Fprintf(&b, "\nagain in %s\n", p.Wake.Sub(now))
	}
	return b.String()
}

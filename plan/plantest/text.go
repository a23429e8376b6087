// Package plantest has what tests of plans need: a text form of what is desired and observed, and generators.
package plantest

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/simulate"
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
//	arrivals      the same, of what others have and do not want: as it is desired, or as in the file "theirs" (manifests)
//	departures    the same, of what others want, with the word "done" behind it when they have taken it over
//	suspended     "Kind namespace/name WHO until [reason…]", one a line; until is a duration from now, or "-"
//	unsettled     why it is not known what others want
//	pods          what runs, one pod a line, see below
//	incomplete    the desired state is not complete
//	stale         the node does not answer
//	served        what is served, one line each: "applied" or "desired" (all Services and endpoints of these), then
//	              "without namespace/name", or another application's "namespace/name application clusterIP nodePort…"
//	kept          what the node keeps of classes, volumes and claims, one line each: "applied" or "desired" (all of these),
//	              "others" (all of the manifests in the file "others", which are of application "others"),
//	              "released namespace/claim" (a claim of these that was deleted and whose data is kept),
//	              "without namespace/claim"
//	ranges        other ServiceRanges than Ranges, one a line: clusterIPs, nodePorts, loadBalancers, hostIPs, pods
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
		r, other, _, err := parseOwner(line)
		if err != nil {
			return c, fmt.Errorf("claims: %w", err)
		}
		c.Observed.Claims[r] = other
	}
	if err := parseMoves(files, app, decode, &c); err != nil {
		return c, err
	}
	node := plan.NodeState{Node: Node}
	if err := parseStorage(files, &c, &earlier, &node, decode); err != nil {
		return c, err
	}
	_, node.Stale = files["stale"]
	for line := range lines(files["pods"]) {
		p, err := parsePod(line, len(node.Pods)+1, app.Name, &c.Desired, &earlier)
		if err != nil {
			return c, fmt.Errorf("pods: %q: %w", line, err)
		}
		node.Pods = append(node.Pods, p)
	}
	if c.Options.Services, err = parseRanges(files["ranges"]); err != nil {
		return c, fmt.Errorf("ranges: %w", err)
	}
	if err := parseServed(files["served"], &c, &earlier, &node); err != nil {
		return c, fmt.Errorf("served: %w", err)
	}
	c.Observed.Nodes = []plan.NodeState{node}
	return c, nil
}

// parseOwner reads "Kind namespace/name application words…".
func parseOwner(line string) (r object.Ref, application string, words []string, err error) {
	f := strings.Fields(line)
	if len(f) < 3 {
		return r, "", nil, fmt.Errorf("%q is not three words", line)
	}
	ns, name, _ := strings.Cut(f[1], "/")
	return object.Ref{Group: group(f[0]), Kind: f[0], Namespace: ns, Name: name}, f[2], f[3:], nil
}

// parseMoves reads what comes from other applications and goes to them.
func parseMoves(files map[string][]byte, app plan.Application, decode Decode, c *Case) error {
	theirs := c.Desired
	if manifests, given := files["theirs"]; given {
		objs, err := decode("theirs", manifests)
		if err != nil {
			return err
		}
		theirs, _ = plan.Expand(app, objs, true)
	}
	c.Observed.Arrivals, c.Observed.Departures = map[object.Ref]plan.Arrival{}, map[object.Ref]plan.Departure{}
	for line := range lines(files["arrivals"]) {
		r, from, _, err := parseOwner(line)
		if err != nil {
			return fmt.Errorf("arrivals: %w", err)
		}
		arrival := plan.Arrival{From: from}
		for i := range theirs.Objects {
			if theirs.Objects[i].Ref == r {
				applied := plan.RedactApplied(theirs.Objects[i], c.Options.DigestKey)
				arrival.Applied = &applied
			}
		}
		c.Observed.Arrivals[r] = arrival
	}
	for line := range lines(files["departures"]) {
		r, to, words, err := parseOwner(line)
		if err != nil {
			return fmt.Errorf("departures: %w", err)
		}
		c.Observed.Departures[r] = plan.Departure{To: to, Done: len(words) > 0}
	}
	c.Observed.Suspended = map[object.Ref]plan.Suspension{}
	for line := range lines(files["suspended"]) {
		r, by, words, err := parseOwner(line)
		if err != nil || len(words) == 0 {
			return fmt.Errorf("suspended: %q: %v", line, err)
		}
		s := plan.Suspension{By: by, Reason: strings.Join(words[1:], " ")}
		if d, err := time.ParseDuration(words[0]); err == nil {
			s.Until = Now.Add(d)
		}
		c.Observed.Suspended[r] = s
	}
	c.Observed.Unsettled = strings.TrimSpace(string(files["unsettled"]))
	return nil
}

// Ranges are the ServiceRanges of a Case that has none.
func Ranges() plan.ServiceRanges {
	return plan.ServiceRanges{
		ClusterIPs: netip.MustParsePrefix("10.80.0.0/16"), NodePorts: [2]int32{30000, 32767},
		HostIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Pods: netip.MustParsePrefix("10.88.0.0/16"),
	}
}

func parseRanges(b []byte) (plan.ServiceRanges, error) {
	r := Ranges()
	for line := range lines(b) {
		f := strings.Fields(line)
		switch key, values := f[0], f[1:]; key {
		case "clusterIPs":
			r.ClusterIPs = netip.MustParsePrefix(values[0])
		case "pods":
			r.Pods = netip.MustParsePrefix(values[0])
		case "nodePorts":
			for i, v := range values {
				n, err := strconv.ParseInt(v, 10, 32)
				if err != nil {
					return r, err
				}
				r.NodePorts[i] = int32(n)
			}
		case "hostIPs":
			r.HostIPs = nil
			for _, v := range values {
				r.HostIPs = append(r.HostIPs, netip.MustParseAddr(v))
			}
		case "loadBalancers":
			for _, v := range values {
				first, last, _ := strings.Cut(v, "-")
				r.LoadBalancers = append(r.LoadBalancers, plan.AddressRange{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last)})
			}
		default:
			return r, fmt.Errorf("unknown word %q", key)
		}
	}
	return r, nil
}

// parseServed adds what the node serves.
func parseServed(b []byte, c *Case, earlier *plan.Desired, node *plan.NodeState) error {
	for line := range lines(b) {
		f := strings.Fields(line)
		switch {
		case line == "applied" || line == "desired":
			d := *earlier
			if line == "desired" {
				d = c.Desired
			}
			d.Complete = true
			w := simulate.NewWorld(plan.Observed{Now: Now, Nodes: []plan.NodeState{{Node: node.Node, Services: node.Services}}})
			for _, s := range plan.Compute(d, w.Observed(), c.Options).Steps {
				if s.Op == plan.OpSetService || s.Op == plan.OpSetEndpoints {
					w.Do(s)
				}
			}
			node.Services, node.Endpoints = w.Observed().Nodes[0].Services, w.Observed().Nodes[0].Endpoints
		case f[0] == "without" && len(f) == 2:
			node.Services = slices.DeleteFunc(node.Services, func(s *plan.Service) bool { return s.Namespace+"/"+s.Name == f[1] })
		case len(f) >= 3:
			ns, name, _ := strings.Cut(f[0], "/")
			s := &plan.Service{Ref: object.Ref{Kind: "Service", Namespace: ns, Name: name}, Application: f[1], Hash: "foreign",
				Spec: &corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, ClusterIP: f[2]}}
			for i, v := range f[3:] {
				n, err := strconv.ParseInt(v, 10, 32)
				if err != nil {
					return err
				}
				s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Port: int32(80 + i), Protocol: corev1.ProtocolTCP, NodePort: int32(n)})
			}
			w := simulate.NewWorld(plan.Observed{Nodes: []plan.NodeState{*node}})
			w.Do(plan.Step{Op: plan.OpSetService, Node: node.Node, Args: plan.SetService{Service: s}})
			node.Services = w.Observed().Nodes[0].Services
		default:
			return fmt.Errorf("%q is not understood", line)
		}
	}
	return nil
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
	case "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet":
		return "apps"
	case "Job":
		return "batch"
	case "StorageClass":
		return "storage.k8s.io"
	case "EndpointSlice":
		return "discovery.k8s.io"
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
		if kind == "StatefulSet" {
			if pod = statefulPod(*from, pod.Owner, key); pod == nil {
				return plan.ObservedPod{}, fmt.Errorf("no pod of %s has that name", kind)
			}
		}
	}
	o := simulate.Observe(pod, "u"+strconv.Itoa(n))
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
	for _, s := range p.Suspended {
		fmt.Fprintf(&b, "suspended %s %s", s.Ref, s.Suspension)
		if s.Held != "" {
			fmt.Fprintf(&b, " (held: %s)", s.Held)
		}
		b.WriteString("\n")
	}
	for _, m := range p.Moves {
		fmt.Fprintf(&b, "%s moves from %s to %s\n", m.Ref, m.From, m.To)
	}
	for _, c := range p.Services {
		fmt.Fprintf(&b, "%s %s\n", c.Type, c.Ref)
		for _, list := range [...]struct {
			word  string
			items []string
		}{
			{"has", c.Addresses}, {"port", portWords(c.Ports)}, {"moves", c.Moves}, {"selects", refs(c.Selects)}, {"gains", refs(c.Gains)}, {"loses", refs(c.Loses)},
		} {
			for _, item := range list.items {
				fmt.Fprintf(&b, "  %s %s\n", list.word, item)
			}
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

func refs(list []object.Ref) []string {
	var out []string
	for _, r := range list {
		out = append(out, r.String())
	}
	return out
}

func portWords(list []plan.ServicePortChange) []string {
	var out []string
	for _, p := range list {
		out = append(out, p.String())
	}
	return out
}

package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
	"github.com/fairlead-dev/fairlead/plan"
)

func (a *app) describeCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "describe KIND NAME | KIND/NAME",
		Short: "Show everything that is known of one thing",
		Long: `Show everything that is known of one thing, with its pods, drift, findings and last events.

Kinds: ` + kindHelp() + `.`,
		Example: `  fairlead describe pod web-5d9f-x2x4k -n shop
  fairlead describe deploy/web
  fairlead describe application shop`,
		ValidArgsFunction: func(c *cobra.Command, got []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(got) > 1 {
				return nil, noFiles
			}
			return a.completeKindName(c, got, word)
		},
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 2 && !strings.Contains(args[0], "/") {
				args = []string{args[0] + "/" + args[1]}
			}
			if len(args) != 1 || !strings.Contains(args[0], "/") {
				return fmt.Errorf("describe needs one thing: KIND NAME or KIND/NAME")
			}
			r, name, err := parseKindName(args[0])
			if err != nil {
				return err
			}
			switch r.kind {
			case "Event", "Node", "EndpointSlice":
				return fmt.Errorf("describe does not know %s; use `fairlead get %s -o yaml`", r.plural, r.plural)
			case "Endpoints": // they are shown with their Service
				if r, err = findResource("service"); err != nil {
					return err
				}
			}
			return a.with(c.Context(), Look, func(b api.Backend) error {
				ref, err := a.find(c.Context(), b, r, name)
				if err != nil {
					return err
				}
				d, err := b.Describe(c.Context(), ref)
				if err != nil {
					return err
				}
				if a.output == "json" || a.output == "yaml" {
					return a.printValue(withoutSecrets(d))
				}
				describer{w: a.Stdout, now: a.Now(), color: a.color(a.Stdout), width: 16}.describe(d)
				return nil
			})
		},
	}
	a.namespaced(c)
	a.formats(c, "text", "json", "yaml")
	return c
}

// withoutSecrets leaves out the manifests of Secrets. The daemon sends no values; this is the second lock.
func withoutSecrets(d api.Description) api.Description {
	hide := func(o api.Object) api.Object {
		if o.Kind == "Secret" && o.Group == "" {
			o.Manifest = nil
		}
		return o
	}
	if d.Object != nil {
		o := hide(*d.Object)
		d.Object = &o
	}
	d.Objects = slices.Clone(d.Objects)
	for i, o := range d.Objects {
		d.Objects[i] = hide(o)
	}
	return d
}

// describer writes keys and values.
type describer struct {
	w      io.Writer
	now    time.Time
	color  bool
	indent string
	width  int // of the keys
}

// raw writes a line whose value is clean already.
func (d describer) raw(key, value string) {
	fmt.Fprintf(d.w, "%s%-*s%s\n", d.indent, d.width-len(d.indent), key+":", value)
}

// field writes a line, nothing for an empty value.
func (d describer) field(key, value string) {
	if value != "" {
		d.raw(key, planview.Clean(value))
	}
}

func (d describer) when(key string, t time.Time) {
	if !t.IsZero() {
		d.field(key, fmt.Sprintf("%s (%s ago)", t.UTC().Format(time.RFC3339), age(d.now, t)))
	}
}

// lines writes several values below each other.
func (d describer) lines(key string, values []string) {
	for i, v := range values {
		if i == 0 {
			d.field(key, v)
			continue
		}
		fmt.Fprintf(d.w, "%s%s\n", strings.Repeat(" ", d.width), planview.Clean(v))
	}
}

func (d describer) title(s string) {
	fmt.Fprintf(d.w, "%s%s\n", d.indent, planview.Paint(d.color, planview.Bold, s+":"))
}

func (d describer) in() describer {
	d.indent += "  "
	return d
}

func (d describer) describe(v api.Description) {
	switch {
	case v.Pod != nil:
		d.pod(*v.Pod)
	case v.Service != nil:
		d.service(*v.Service)
	case v.Application != nil:
		d.application(*v.Application, v.Objects)
	case v.Source != nil:
		d.source(*v.Source)
	case v.Object != nil:
		d.object(*v.Object)
	}
	d.table("Pods", podTable(v.Pods, true, d.now))
	for _, p := range v.Pods {
		if !p.IsReady {
			d.logTail("Last log lines of "+p.Name, p.LogTail)
		}
	}
	if len(v.Drift) > 0 {
		d.title("Changed outside of Git")
		for _, dr := range v.Drift {
			healed := "left as it is"
			if dr.Healed != "" {
				healed = dr.Healed
			}
			fmt.Fprintf(d.w, "  %s: %s → %s\n", planview.Clean(dr.Ref.String()), planview.Clean(dr.Message), planview.Clean(healed))
		}
	}
	if len(v.Events) == 0 {
		d.raw("Events", "none")
		return
	}
	t := eventTable(v.Events, false, d.now)
	d.table("Events", t)
}

// table writes a table under a title, nothing for an empty one.
func (d describer) table(title string, t table) {
	if len(t.rows) == 0 {
		return
	}
	d.title(title)
	var b strings.Builder
	_ = writeTables(&b, []table{t}, layout{}) // a Builder takes everything
	for _, l := range strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n") {
		fmt.Fprintf(d.w, "  %s\n", strings.TrimRight(l, " "))
	}
}

func keyValues(m map[string]string) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return out
}

func (d describer) pod(p api.Pod) {
	d.field("Name", p.Name)
	d.field("Namespace", p.Namespace)
	d.field("Application", p.Application)
	if p.Owner != p.PodKey.Ref() && !p.Owner.IsZero() {
		d.field("Controlled by", p.Owner.Kind+"/"+p.Owner.Name)
	}
	d.field("Node", string(p.Node))
	d.field("IP", p.IP)
	d.field("UID", p.UID)
	d.when("Created", p.Created)
	d.lines("Labels", keyValues(p.Labels))
	d.lines("Annotations", keyValues(p.Annotations))
	d.field("Phase", p.Phase)
	d.field("Status", p.Status)
	d.field("Ready", fmt.Sprintf("%t (%s containers)", p.IsReady, ratio(p.Ready, p.Total)))
	d.field("Reason", p.Reason)
	d.field("Message", p.Message)
	for _, init := range []bool{true, false} {
		title := "Containers"
		if init {
			title = "Init containers"
		}
		for _, c := range p.Containers {
			if c.Init != init {
				continue
			}
			if title != "" {
				d.title(title)
				title = ""
			}
			d.container(c)
		}
	}
	d.logTail("Last log lines", p.LogTail)
}

func (d describer) logTail(title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	d.title(planview.Clean(title))
	for _, l := range lines {
		fmt.Fprintf(d.w, "  | %s\n", planview.Clean(l))
	}
}

func (d describer) container(c api.Container) {
	d.in().title(planview.Clean(c.Name))
	d = d.in().in()
	d.width += 4
	d.field("Image", c.Image)
	d.field("Image ID", c.ImageID)
	d.field("Container ID", c.ID)
	if c.Sidecar {
		d.field("Sidecar", "true")
	}
	state := string(c.State)
	if c.Reason != "" {
		state += ", " + c.Reason
	}
	if c.State == plan.Terminated {
		state += fmt.Sprintf(", exit code %d", c.ExitCode)
	}
	d.field("State", state)
	d.field("Message", c.Message)
	d.when("Started", c.StartedAt)
	d.when("Finished", c.FinishedAt)
	d.field("Ready", strconv.FormatBool(c.Ready))
	d.field("Restarts", strconv.Itoa(c.Restarts))
	var limits []string
	if c.Limits.CPUMillis > 0 {
		limits = append(limits, fmt.Sprintf("cpu %dm", c.Limits.CPUMillis))
	}
	if c.Limits.MemoryBytes > 0 {
		limits = append(limits, "memory "+bytesOf(c.Limits.MemoryBytes))
	}
	d.field("Limits", strings.Join(limits, ", "))
}

func (d describer) object(o api.Object) {
	d.field("Name", o.Name)
	d.field("Namespace", o.Namespace)
	d.field("Kind", o.APIVersion+" "+o.Kind)
	d.field("Application", o.Application)
	d.field("Written in", o.Origin.String())
	d.when("Applied first", o.Created)
	if o.Suspension != nil {
		d.field("Suspended", o.Suspension.String())
	}
	d.lines("Labels", keyValues(o.Labels))
	d.field("Selector", o.Selector)
	if s := o.Status; s != nil {
		d.workload(o, *s)
	}
	d.storage(o)
	d.when("Started", o.Started)
	d.when("Finished", o.Finished)
	for i, image := range o.Images {
		name := ""
		if i < len(o.Containers) {
			name = o.Containers[i] + " "
		}
		d.field("Image", name+image)
	}
	d.field("Type", o.Type)
	if o.Keys != nil {
		var keys []string
		for _, k := range slices.Sorted(maps.Keys(o.Keys)) {
			keys = append(keys, fmt.Sprintf("%s (%s)", k, plural(o.Keys[k], "byte")))
		}
		d.lines("Data", keys)
		if len(keys) == 0 {
			d.field("Data", "none")
		}
	}
}

func (d describer) workload(o api.Object, s plan.WorkloadStatus) {
	switch o.Kind {
	case "PersistentVolumeClaim": // what it is bound to follows
	case "Job":
		d.field("Pods", fmt.Sprintf("%d running, %d succeeded, %d failed; %d wanted", max(0, s.Current-s.Succeeded-s.Failed), s.Succeeded, s.Failed, s.Desired))
	default:
		d.field("Replicas", fmt.Sprintf("%d wanted, %d there, %d up to date, %d ready, %d available", s.Desired, s.Current, s.Updated, s.Ready, s.Available))
	}
	d.raw("Health", d.health(api.Health(s.Health)))
	d.field("Reason", s.Reason)
	d.field("Message", s.Message)
}

func (d describer) health(h api.Health) string {
	return planview.Paint(d.color, healthColor(h), planview.Clean(string(h)))
}

// healthColor is the colour of a state of health.
func healthColor(h api.Health) string {
	switch h {
	case api.Healthy:
		return planview.Green
	case api.Progressing:
		return planview.Cyan
	case api.Degraded, api.Failed:
		return planview.Red
	case api.Suspended:
		return planview.Dim
	}
	return ""
}

// revision writes a revision in a line.
func revision(r api.Revision) string {
	s := r.Short
	if r.Ref != "" {
		s += " (" + r.Ref + ")"
	}
	if r.Message != "" {
		s += fmt.Sprintf(" %q", r.Message)
	}
	if r.Author != "" {
		s += " by " + r.Author
	}
	return s
}

func (d describer) application(a api.Application, objects []api.Object) {
	d.field("Name", a.Name)
	d.field("Source", a.Source)
	d.field("Path", a.Path)
	d.field("Declared by", a.DeclaredBy)
	d.field("Acts as", a.Identity)
	d.field("Revision", revision(a.Revision))
	d.field("Signed", a.Revision.Signed())
	d.field("Applied", revision(a.Applied))
	d.when("Last applied", a.LastApplied)
	d.raw("Health", d.health(a.Health))
	d.field("Reason", a.Reason)
	d.lines("Message", strings.Split(a.Message, "\n"))
	d.failure(a.Failure)
	phase := a.Phase
	if a.Pending != nil {
		phase += fmt.Sprintf(", %s steps; %d to add, %d to change, %d to destroy", ratio(a.StepsDone, a.StepsTotal), a.Pending.Add, a.Pending.Change, a.Pending.Destroy)
	}
	d.field("Phase", phase)
	switch {
	case a.Suspension != nil:
		d.field("Suspended", a.Suspension.String())
	case a.Suspended:
		d.field("Suspended", "true")
	}
	if a.Interval > 0 {
		d.field("Interval", a.Interval.String())
	}
	if !a.NextRun.IsZero() {
		d.field("Next run", "in "+age(a.NextRun, d.now))
	}
	d.field("Pods ready", ratio(a.PodsReady, a.Pods))
	d.conditions(a.Conditions)
	if len(a.Diagnostics) > 0 {
		d.title("Findings")
		for _, f := range a.Diagnostics.Sorted() {
			fmt.Fprintf(d.w, "  %s\n", planview.Clean(f.String()))
		}
	}
	t := table{head: []string{"KIND", "NAMESPACE", "NAME", "HEALTH", "WRITTEN IN"}}
	for _, o := range objects {
		health := ""
		if o.Status != nil {
			health = o.Status.Health
		}
		t.rows = append(t.rows, row{o.Ref, []string{o.Kind, orNone(o.Namespace), o.Name, orNone(health), o.Origin.String()}})
	}
	d.table("Objects", t)
}

// failure writes what is known of a revision that failed.
func (d describer) failure(f *api.Failure) {
	if f == nil {
		return
	}
	d.field("Failed", revision(f.Revision))
	d.when("Failed at", f.At)
	d.field("Failed with", f.Reason)
	d.field("Back at", revision(f.Back))
	d.when("Back since", f.BackAt)
	if f.BackReason != "" {
		d.lines("Not back", strings.Split(f.BackReason+": "+f.BackMessage, "\n"))
	}
}

func (d describer) source(s api.Source) {
	d.field("Name", s.Name)
	d.field("Type", s.Type)
	d.field("Location", s.Location)
	d.field("Ref", s.Ref)
	d.field("Revision", revision(s.Revision))
	d.field("Signed", s.Revision.Signed())
	d.when("Committed", s.Revision.Committed)
	d.when("Fetched", s.Fetched)
	d.when("Changed", s.Changed)
	d.field("Ready", strconv.FormatBool(s.Ready))
	d.field("Message", s.Message)
	if s.Suspended {
		d.field("Suspended", "true")
	}
	if s.Interval > 0 {
		d.field("Interval", s.Interval.String())
	}
	if !s.NextFetch.IsZero() {
		d.field("Next fetch", "in "+age(s.NextFetch, d.now))
	}
	d.conditions(s.Conditions)
}

func (d describer) conditions(cs []api.Condition) {
	t := table{head: []string{"TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"}}
	for _, c := range cs {
		t.rows = append(t.rows, row{cells: []string{c.Type, c.Status, age(d.now, c.Since), c.Reason, c.Message}})
	}
	d.table("Conditions", t)
}

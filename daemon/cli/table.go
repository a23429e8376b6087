package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// row is one line of a table.
type row struct {
	ref   object.Ref
	cells []string
}

// table is what get shows of one kind. The namespace is no column of it.
type table struct {
	resource
	head []string
	rows []row
	// items are what the rows were made from, in Kubernetes' form, for -o json and yaml.
	items []any
}

// layout says how tables are written.
type layout struct {
	namespaces, prefix, noHead bool
}

// writeTables writes the tables, an empty line between them.
func writeTables(w io.Writer, tables []table, l layout) error {
	for i, t := range tables {
		if i > 0 {
			fmt.Fprintln(w)
		}
		var text strings.Builder
		tw := tabwriter.NewWriter(&text, 6, 4, 3, ' ', 0)
		if !l.noHead {
			head := t.head
			if l.namespaces && t.scoped {
				head = append([]string{"NAMESPACE"}, head...)
			}
			fmt.Fprintln(tw, strings.Join(head, "\t"))
		}
		for _, r := range t.rows {
			fmt.Fprintln(tw, t.line(r, l))
		}
		_ = tw.Flush() // a Builder takes everything
		// The last cell may be empty; its padding is of no use.
		for line := range strings.Lines(text.String()) {
			if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
				return err
			}
		}
	}
	return nil
}

// line is one row with tabs between its cells.
func (t table) line(r row, l layout) string {
	cells := slices.Clone(r.cells)
	if l.prefix {
		cells[t.nameColumn()] = t.full(cells[t.nameColumn()])
	}
	if l.namespaces && t.scoped {
		cells = append([]string{r.ref.Namespace}, cells...)
	}
	for i, c := range cells {
		cells[i] = planview.Clean(c)
	}
	return strings.Join(cells, "\t")
}

func (t table) nameColumn() int { return max(0, slices.Index(t.head, "NAME")) }

// age is how long ago t was, in Kubernetes' style.
func age(now, t time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(t))
}

func orNone(s string) string { return cmp.Or(s, "<none>") }

func ratio(n, of int) string { return strconv.Itoa(n) + "/" + strconv.Itoa(of) }

func podTable(pods []api.Pod, wide bool, now time.Time) table {
	t := table{head: []string{"NAME", "READY", "STATUS", "RESTARTS", "AGE"}}
	if wide {
		t.head = append(t.head, "IP", "NODE", "APPLICATION")
	}
	for _, p := range pods {
		restarts := strconv.Itoa(p.Restarts)
		if p.Restarts > 0 && !p.LastRestart.IsZero() {
			restarts += " (" + age(now, p.LastRestart) + " ago)"
		}
		cells := []string{p.Name, ratio(p.Ready, p.Total), p.Status, restarts, age(now, p.Created)}
		if wide {
			cells = append(cells, orNone(p.IP), orNone(string(p.Node)), orNone(p.Application))
		}
		t.rows = append(t.rows, row{p.PodKey.Ref(), cells})
		t.items = append(t.items, kubePod(p))
	}
	return t
}

// objectTable is the table of objects of one kind.
func objectTable(r resource, objs []api.Object, wide bool, now time.Time) table {
	t := table{head: []string{"NAME"}}
	cells := func(api.Object, plan.WorkloadStatus) []string { return nil }
	images := false
	switch r.kind {
	case "Deployment":
		t.head, images = append(t.head, "READY", "UP-TO-DATE", "AVAILABLE"), true
		cells = func(_ api.Object, s plan.WorkloadStatus) []string {
			return []string{ratio(s.Ready, s.Desired), strconv.Itoa(s.Updated), strconv.Itoa(s.Available)}
		}
	case "ReplicaSet":
		t.head, images = append(t.head, "DESIRED", "CURRENT", "READY"), true
		cells = func(_ api.Object, s plan.WorkloadStatus) []string {
			return []string{strconv.Itoa(s.Desired), strconv.Itoa(s.Current), strconv.Itoa(s.Ready)}
		}
	case "Job":
		t.head, images = append(t.head, "STATUS", "COMPLETIONS", "DURATION"), true
		cells = func(o api.Object, s plan.WorkloadStatus) []string { return jobCells(o, s, now) }
	case "DaemonSet":
		t.head, images = append(t.head, "DESIRED", "CURRENT", "READY", "UP-TO-DATE", "AVAILABLE"), true
		cells = func(_ api.Object, s plan.WorkloadStatus) []string {
			return []string{strconv.Itoa(s.Desired), strconv.Itoa(s.Current), strconv.Itoa(s.Ready), strconv.Itoa(s.Updated), strconv.Itoa(s.Available)}
		}
	case "StatefulSet":
		t.head, images = append(t.head, "READY"), true
		cells = func(_ api.Object, s plan.WorkloadStatus) []string { return []string{ratio(s.Ready, s.Desired)} }
	case "PersistentVolumeClaim":
		t.head, cells = append(t.head, "STATUS", "VOLUME", "CAPACITY", "ACCESS MODES", "STORAGECLASS"), claimCells
	case "PersistentVolume":
		t.head, cells = append(t.head, "CAPACITY", "ACCESS MODES", "RECLAIM POLICY", "STATUS", "CLAIM", "STORAGECLASS"), volumeCells
	case "StorageClass":
		t.head, cells = append(t.head, "PROVISIONER", "RECLAIMPOLICY", "ALLOWVOLUMEEXPANSION"), classCells
	case "ConfigMap":
		t.head = append(t.head, "DATA")
		cells = func(o api.Object, _ plan.WorkloadStatus) []string { return []string{strconv.Itoa(len(o.Keys))} }
	case "Secret":
		t.head = append(t.head, "TYPE", "DATA")
		cells = func(o api.Object, _ plan.WorkloadStatus) []string {
			return []string{cmp.Or(o.Type, "Opaque"), strconv.Itoa(len(o.Keys))}
		}
	case "Namespace":
		t.head = append(t.head, "STATUS")
		cells = func(api.Object, plan.WorkloadStatus) []string { return []string{"Active"} }
	}
	t.head = append(t.head, "AGE")
	if wide && images {
		t.head = append(t.head, "CONTAINERS", "IMAGES", "SELECTOR")
	}
	if wide {
		t.head = append(t.head, "APPLICATION")
	}
	for _, o := range objs {
		var s plan.WorkloadStatus
		if o.Status != nil {
			s = *o.Status
		}
		c := append([]string{o.Name}, cells(o, s)...)
		c = append(c, age(now, o.Created))
		if wide && images {
			c = append(c, orNone(strings.Join(o.Containers, ",")), orNone(strings.Join(o.Images, ",")), orNone(o.Selector))
		}
		if wide {
			c = append(c, orNone(o.Application))
		}
		t.rows = append(t.rows, row{o.Ref, c})
		t.items = append(t.items, kubeObject(o))
	}
	return t
}

func jobCells(o api.Object, s plan.WorkloadStatus, now time.Time) []string {
	want := cmp.Or(o.Completions, s.Desired)
	took := ""
	switch {
	case o.Started.IsZero():
	case o.Finished.IsZero():
		took = duration.HumanDuration(now.Sub(o.Started))
	default:
		took = duration.HumanDuration(o.Finished.Sub(o.Started))
	}
	return []string{jobStatus(o, s, want), ratio(s.Succeeded, want), took}
}

// jobStatus is the word for a job as kubectl has it.
func jobStatus(o api.Object, s plan.WorkloadStatus, want int) string {
	switch {
	case s.Health == string(api.Suspended):
		return "Suspended"
	case s.Health == string(api.Degraded) || s.Reason == "Failed":
		return "Failed"
	case !o.Finished.IsZero() || want > 0 && s.Succeeded >= want:
		return "Complete"
	default:
		return "Running"
	}
}

func applicationTable(apps []api.Application, wide bool, now time.Time) table {
	t := table{head: []string{"NAME", "HEALTH", "REVISION", "PODS", "OBJECTS", "APPLIED", "MESSAGE"}}
	if wide {
		t.head = []string{"NAME", "HEALTH", "REVISION", "PODS", "OBJECTS", "APPLIED", "SOURCE", "PATH", "REASON", "MESSAGE"}
	}
	for _, a := range apps {
		rev := orNone(a.Applied.Short)
		if a.Revision.ID != "" && a.Revision.ID != a.Applied.ID && a.Applied.ID != "" {
			rev += "→" + a.Revision.Short
		}
		cells := []string{a.Name, string(a.Health), rev, ratio(a.PodsReady, a.Pods), strconv.Itoa(a.Objects), "never"}
		if !a.LastApplied.IsZero() {
			cells[5] = age(now, a.LastApplied) + " ago"
		}
		if wide {
			cells = append(cells, a.Source, a.Path, a.Reason)
		}
		t.rows = append(t.rows, row{object.Ref{Group: api.Group, Kind: "Application", Name: a.Name}, append(cells, a.Message)})
		t.items = append(t.items, own("Application", a))
	}
	return t
}

func sourceTable(srcs []api.Source, wide bool, now time.Time) table {
	t := table{head: []string{"NAME", "TYPE", "REF", "REVISION", "READY", "FETCHED", "MESSAGE"}}
	if wide {
		t.head = []string{"NAME", "TYPE", "REF", "REVISION", "READY", "FETCHED", "LOCATION", "COMMIT", "MESSAGE"}
	}
	for _, s := range srcs {
		cells := []string{s.Name, s.Type, orNone(s.Ref), orNone(s.Revision.Short), map[bool]string{true: "True", false: "False"}[s.Ready], "never"}
		if !s.Fetched.IsZero() {
			cells[5] = age(now, s.Fetched) + " ago"
		}
		if wide {
			cells = append(cells, s.Location, s.Revision.Message)
		}
		t.rows = append(t.rows, row{object.Ref{Group: api.Group, Kind: "Source", Name: s.Name}, append(cells, s.Message)})
		t.items = append(t.items, own("Source", s))
	}
	return t
}

func eventTable(events []api.Event, wide bool, now time.Time) table {
	t := table{head: []string{"LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"}}
	if wide {
		t.head = []string{"LAST SEEN", "TYPE", "REASON", "OBJECT", "APPLICATION", "REVISION", "COUNT", "MESSAGE"}
	}
	for _, e := range events {
		cells := []string{age(now, e.Time), string(e.Type), e.Reason, eventObject(e)}
		if wide {
			cells = append(cells, e.Application, shortID(e.Revision), strconv.Itoa(max(1, e.Count)))
		}
		t.rows = append(t.rows, row{e.Ref, append(cells, e.Message)})
		t.items = append(t.items, own("Event", e))
	}
	return t
}

// eventObject is what an event is about: kind/name in lower case.
func eventObject(e api.Event) string {
	switch {
	case !e.Ref.IsZero():
		return strings.ToLower(e.Ref.Kind) + "/" + e.Ref.Name
	case e.Application != "":
		return "application/" + e.Application
	case e.Source != "":
		return "source/" + e.Source
	case e.Node != "":
		return "node/" + string(e.Node)
	}
	return ""
}

func shortID(id string) string { return id[:min(len(id), 12)] }

package cli

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
)

func (a *app) statusCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the daemon, its node, sources and applications",
		Long: `Show whether a daemon answers, and the state of the engine, of the sources and of the applications.

Exit codes: 0 when the state could be read, whatever it is, and 1 otherwise.`,
		Args: args(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			b, daemon, done, err := a.backend(ctx)
			if err != nil {
				return err
			}
			defer func() { _ = done() }() // everything was read
			st, err := b.Status(ctx)
			if err != nil {
				return err
			}
			if a.output == "json" || a.output == "yaml" {
				return a.printValue(st)
			}
			apps, err := b.Applications(ctx)
			if err != nil {
				return err
			}
			return a.printStatus(st, apps, daemon)
		},
	}
	a.formats(c, "text", "wide", "json", "yaml")
	return c
}

func (a *app) printStatus(st api.Status, apps []api.Application, daemon bool) error {
	now, color := a.Now(), a.color(a.Stdout)
	d := describer{w: a.Stdout, now: now, color: color, width: 14}
	if daemon {
		state := planview.Paint(color, planview.Green, "ready")
		if !st.Ready {
			state = planview.Paint(color, planview.Yellow, "not ready")
			if len(st.Reasons) > 0 {
				state += ": " + planview.Clean(strings.Join(st.Reasons, "; "))
			}
		}
		d.raw("Daemon", state)
		d.field("Version", st.Version)
		if st.PID != 0 {
			d.field("PID", strconv.Itoa(st.PID))
		}
		if !st.Started.IsZero() {
			d.field("Running for", age(now, st.Started))
		}
		d.field("Socket", a.settings.Socket)
	} else {
		d.raw("Daemon", "none answers at "+planview.Clean(a.settings.Socket)+"; this command looked by itself")
		d.field("Version", st.Version)
	}
	d.field("State", st.StateDir)
	d.field("Installation", st.Installation)
	wide := a.output == "wide"
	for _, t := range []struct {
		title string
		table table
	}{
		{"Nodes", nodeTable(st.Nodes)},
		{"Services are served by", registryTable(st.Nodes, now)},
		{"Sources", sourceTable(st.Sources, wide, now)},
		{"Applications", applicationTable(apps, wide, now)},
		{"Hooks", hookTable(st.Hooks)},
		{"Deliveries", deliveryTable(st.Sources, now)},
		{"Notifications", channelTable(st.Notifications, now)},
	} {
		if st.Hooks == nil && (t.title == "Hooks" || t.title == "Deliveries") || len(st.Notifications) == 0 && t.title == "Notifications" {
			continue
		}
		fmt.Fprintf(a.Stdout, "\n%s\n", planview.Paint(color, planview.Bold, t.title))
		if len(t.table.rows) == 0 {
			fmt.Fprintln(a.Stdout, "none")
			continue
		}
		if err := writeTables(a.Stdout, []table{t.table}, layout{}); err != nil {
			return err
		}
	}
	return nil
}

func nodeTable(nodes []api.Node) table {
	t := table{head: []string{"NAME", "STATUS", "PODS", "SERVICES", "ENGINE", "API", "CPUS", "MEMORY", "MESSAGE"}}
	for _, n := range nodes {
		state := "Ready"
		if !n.Reachable {
			state = "NotReady"
		}
		cells := []string{
			string(n.Name), state, ratio(n.PodsReady, n.Pods), strconv.Itoa(n.Services), orNone(n.EngineVersion), orNone(n.APIVersion),
			number(n.CPUs), bytesOf(n.MemoryBytes), n.Message,
		}
		node, _ := findResource("node")
		t.rows = append(t.rows, row{node.ref("", string(n.Name)), cells})
		t.items = append(t.items, own("Node", n))
	}
	return t
}

// registryTable shows what serves the Services of nodes.
func registryTable(nodes []api.Node, now time.Time) table {
	t := table{head: []string{"NODE", "REGISTRY", "SET", "TOOK", "STATE"}}
	for _, n := range nodes {
		for _, r := range n.Registries {
			t.rows = append(t.rows, row{cells: append([]string{string(n.Name)}, registryCells(r, now)...)})
		}
	}
	return t
}

func registryCells(r api.Registry, now time.Time) []string {
	set, state := "never", "as wanted"
	if !r.Set.IsZero() {
		set = age(now, r.Set) + " ago"
	}
	switch {
	case r.Error != "":
		state = "since " + age(now, r.Since) + ": " + r.Error
	case r.Set.IsZero():
		state = "waits until the node's pods are known"
	}
	return []string{r.Name, set, r.Took.Round(10 * time.Microsecond).String(), state}
}

// hookTable shows where deliveries are taken.
func hookTable(h *api.Hooks) table {
	t := table{head: []string{"URL", "FORGE", "ACCEPTED", "REJECTED"}}
	if h == nil {
		return t
	}
	scheme := "http://"
	if h.TLS {
		scheme = "https://"
	}
	for _, e := range h.Endpoints {
		t.rows = append(t.rows, row{cells: []string{scheme + h.Address + e.Path, e.Forge, strconv.FormatUint(e.Accepted, 10), strconv.FormatUint(e.Rejected, 10)}})
	}
	return t
}

// deliveryTable shows the newest delivery about each source.
func deliveryTable(srcs []api.Source, now time.Time) table {
	t := table{head: []string{"SOURCE", "RECEIVED", "FORGE", "EVENT", "REF"}}
	for _, s := range srcs {
		if d := s.LastDelivery; d != nil {
			t.rows = append(t.rows, row{cells: []string{s.Name, age(now, d.Received) + " ago", d.Forge, d.Event, orNone(d.Ref)}})
		}
	}
	return t
}

func number(n int) string {
	if n == 0 {
		return "<unknown>"
	}
	return strconv.Itoa(n)
}

// bytesOf writes a number of bytes in Kubernetes' binary units, rounded down to one decimal.
func bytesOf(n int64) string {
	if n == 0 {
		return "<unknown>"
	}
	units := []string{"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"}
	i, v := 0, float64(n)
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return strings.TrimSuffix(strconv.FormatFloat(float64(int64(v*10))/10, 'f', 1, 64), ".0") + cmp.Or(units[i], "B")
}

// Package live is the view of a running daemon at a terminal: what is there as a screen of text, and the
// screen that shows it.
package live

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
	"github.com/fairlead-dev/fairlead/plan"
)

// Model is what the view shows, as of Now.
type Model struct {
	Now time.Time
	// Title names what is reconciled.
	Title        string
	Applications []api.Application
	Sources      []api.Source
	Pods         []api.Pod
	// Events are the newest, oldest first.
	Events []api.Event
	// Problem says why the rest may be old; empty when it is not.
	Problem string
	// Stopping is true once the daemon was told to end.
	Stopping bool
}

// Render returns at most height lines of at most width characters, without a newline at the end. Colours
// take no room. It is a pure function of its arguments.
func Render(m Model, width, height int, color bool) string {
	if width < 1 || height < 1 {
		return ""
	}
	v := view{m: m, width: width, color: color}
	var lines []string
	lines = append(lines, v.header()...)
	apps, pods, events := v.applications(), v.pods(), v.events()
	a, p, e := share(height-len(lines), len(apps.rows), len(pods.rows), len(events.rows))
	for _, s := range []struct {
		section
		rows int
	}{{apps, a}, {pods, p}, {events, e}} {
		lines = append(lines, s.lines(v, s.rows)...)
	}
	if len(lines) > height {
		lines = lines[:height]
	}
	return strings.Join(lines, "\n")
}

// share divides the rows of the screen: an empty line and a head for each section that has anything, then
// applications, then the newest events, and pods take what is left.
func share(height, apps, pods, events int) (a, p, e int) {
	room := height
	for _, n := range []int{apps, pods, events} {
		if n > 0 {
			room -= 2
		}
	}
	if room <= 0 {
		return min(apps, max(0, height-2)), 0, 0
	}
	a = min(apps, max(1, room/2))
	e = min(events, max(0, min(4, (room-a)/2)))
	p = min(pods, room-a-e)
	// What is left over goes to those who could not show everything.
	left := room - a - p - e
	more := min(left, apps-a)
	a, left = a+more, left-more
	e += min(left, events-e)
	return a, p, e
}

type view struct {
	m     Model
	width int
	color bool
}

// cell is a piece of a line with a colour.
type cell struct{ text, color string }

func plain(s string) cell { return cell{text: s} }

func (v view) header() []string {
	state, c := "ready", planview.Green
	pods, ready, failed := 0, 0, 0
	for _, a := range v.m.Applications {
		pods, ready = pods+a.Pods, ready+a.PodsReady
		switch health(a) {
		case waiting:
			state, c = "working", planview.Cyan
		case api.Failed, api.Degraded:
			failed++
		case api.Progressing:
			state, c = "working", planview.Cyan
		case api.Healthy, api.Suspended:
		}
	}
	if failed > 0 {
		state, c = strconv.Itoa(failed)+" failing", planview.Red
	}
	if len(v.m.Applications) == 0 {
		state, c = "starting", planview.Cyan
	}
	if v.m.Stopping {
		state, c = "stopping", planview.Yellow
	}
	lines := []string{v.line([]cell{
		{"fairlead", planview.Bold}, plain(" " + v.m.Title + "  "), {state, c},
		plain(fmt.Sprintf("  pods %d/%d ready  ", ready, pods)), {v.m.Now.Format("15:04:05"), planview.Dim},
	})}
	for _, s := range v.m.Sources {
		if s.Message != "" {
			c := planview.Dim
			if !s.Ready {
				c = planview.Red
			}
			lines = append(lines, v.line([]cell{{"source " + s.Name + ": " + s.Message, c}}))
		}
	}
	if v.m.Problem != "" {
		lines = append(lines, v.line([]cell{{v.m.Problem, planview.Red}}))
	}
	return lines
}

// line joins cells and cuts what does not fit.
func (v view) line(cells []cell) string {
	var b strings.Builder
	room := v.width
	for _, c := range cells {
		text := planview.Clean(c.text)
		if n := utf8.RuneCountInString(text); n > room {
			text = cut(text, room)
		}
		room -= utf8.RuneCountInString(text)
		b.WriteString(planview.Paint(v.color, c.color, text))
		if room <= 0 {
			break
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// cut returns the first characters of s, the last of them an ellipsis.
func cut(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	if n < 1 {
		return ""
	}
	return string(r[:n-1]) + "…"
}

// section is a table with a head. Rows come in the order of their importance in rank, and are shown in their own.
type section struct {
	head []string
	rows []sectionRow
	// right is true when the last rows are kept, not the first.
	newest bool
}

type sectionRow struct {
	cells []cell
	// rank orders what is kept when not everything fits; lower is kept first.
	rank int
}

// lines returns an empty line, the head and n rows, or nothing for an empty section or n = 0.
func (s section) lines(v view, n int) []string {
	if len(s.rows) == 0 || n <= 0 {
		return nil
	}
	rows := s.rows
	hidden := 0
	if n < len(rows) {
		// The last row says how many there are besides, where there is room for it.
		keep := n
		if n > 1 && !s.newest {
			keep--
		}
		hidden = len(rows) - keep
		rows = s.kept(keep)
		if n == 1 || s.newest {
			hidden = 0
		}
	}
	widths := make([]int, len(s.head))
	for i, h := range s.head {
		widths[i] = utf8.RuneCountInString(h)
	}
	for _, r := range rows {
		for i, c := range r.cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(planview.Clean(c.text)))
		}
	}
	head := make([]cell, len(s.head))
	for i, h := range s.head {
		head[i] = cell{h, planview.Dim}
	}
	out := []string{"", v.line(padded(head, widths))}
	for _, r := range rows {
		out = append(out, v.line(padded(r.cells, widths)))
	}
	if hidden > 0 {
		out = append(out, v.line([]cell{{fmt.Sprintf("… %d more", hidden), planview.Dim}}))
	}
	return out
}

func (s section) kept(n int) []sectionRow {
	if s.newest {
		return s.rows[len(s.rows)-n:]
	}
	order := make([]int, len(s.rows))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(s.rows[a].rank, s.rows[b].rank) })
	order = order[:n]
	slices.Sort(order)
	out := make([]sectionRow, 0, n)
	for _, i := range order {
		out = append(out, s.rows[i])
	}
	return out
}

// padded puts spaces between cells; the padding has no colour.
func padded(cells []cell, widths []int) []cell {
	var out []cell
	for i, c := range cells {
		out = append(out, c)
		if i < len(cells)-1 {
			out = append(out, plain(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(planview.Clean(c.text))+2)))
		}
	}
	return out
}

func (v view) applications() section {
	s := section{head: []string{"APPLICATION", "REVISION", "HEALTH", "PODS", "PROGRESS"}}
	for _, a := range v.m.Applications {
		rev := cmp.Or(a.Applied.Short, a.Revision.Short, "none")
		if a.Applied.ID != "" && a.Revision.ID != "" && a.Applied.ID != a.Revision.ID {
			rev = a.Applied.Short + "→" + a.Revision.Short
		}
		word := string(health(a))
		if a.Suspended && a.Health != api.Suspended {
			word += " (suspended)"
		}
		s.rows = append(s.rows, sectionRow{rank: healthRank(health(a)), cells: []cell{
			plain(a.Name), plain(rev), {word, healthColor(health(a))}, plain(fmt.Sprintf("%d/%d", a.PodsReady, a.Pods)), progress(a),
		}})
	}
	return s
}

// progress is the last column of an application: the bar of a walk, or what there is to say.
func progress(a api.Application) cell {
	switch {
	case a.StepsTotal > 0 && a.Pending != nil:
		text := bar(a.StepsDone, a.StepsTotal, 20)
		for _, w := range a.Workloads {
			if w.Health == string(api.Progressing) {
				text += fmt.Sprintf("  %s %d/%d", w.Ref.Name, w.Updated, w.Desired)
			}
		}
		return cell{text, planview.Cyan}
	case a.Health != api.Healthy && a.Message != "":
		return cell{a.Message, healthColor(health(a))}
	case a.Phase != "" && a.Phase != "Waiting":
		return cell{a.Phase, planview.Cyan}
	}
	return cell{a.Revision.Message, planview.Dim}
}

// bar draws how far done of total is, with the numbers behind it.
func bar(done, total, width int) string {
	done = min(max(done, 0), total)
	full := done * width / total
	return "[" + strings.Repeat("#", full) + strings.Repeat("-", width-full) + fmt.Sprintf("] %d/%d", done, total)
}

// waiting is an application that cannot be reconciled yet, for which nobody is to blame: its source was not
// fetched for the first time, or what it depends on is not ready.
const waiting api.Health = "Waiting"

// health is the application's, Failed and waiting told apart.
func health(a api.Application) api.Health {
	if a.Health == api.Failed && a.Reason == string(waiting) {
		return waiting
	}
	return a.Health
}

func healthColor(h api.Health) string {
	switch h {
	case api.Healthy:
		return planview.Green
	case api.Progressing, waiting:
		return planview.Cyan
	case api.Degraded, api.Failed:
		return planview.Red
	case api.Suspended:
		return planview.Dim
	}
	return ""
}

func healthRank(h api.Health) int {
	switch h {
	case api.Failed, api.Degraded:
		return 0
	case api.Progressing, waiting:
		return 1
	case api.Healthy, api.Suspended:
	}
	return 2
}

func (v view) pods() section {
	s := section{head: []string{"NAMESPACE", "POD", "READY", "STATUS", "RESTARTS", "AGE"}}
	for _, p := range v.m.Pods {
		c, rank := "", 1
		done := p.Phase == "Succeeded"
		switch {
		case p.IsReady || done:
			c, rank = planview.Green, 2
		case p.Phase == "Failed" || troubled(p):
			c, rank = planview.Red, 0
		default:
			c = planview.Yellow
		}
		if done {
			c = planview.Dim
		}
		restarts := strconv.Itoa(p.Restarts)
		if p.Restarts > 0 && !p.LastRestart.IsZero() {
			restarts += " (" + v.age(p.LastRestart) + " ago)"
		}
		s.rows = append(s.rows, sectionRow{rank: rank, cells: []cell{
			plain(p.Namespace), plain(p.Name), plain(fmt.Sprintf("%d/%d", p.Ready, p.Total)), {p.Status, c}, plain(restarts), plain(v.age(p.Created)),
		}})
	}
	return s
}

// troubled reports a pod that waits for something other than its start.
func troubled(p api.Pod) bool {
	return slices.ContainsFunc(p.Containers, func(c api.Container) bool {
		return c.State == plan.Waiting && c.Reason != "" && c.Reason != "ContainerCreating" && c.Reason != "PodInitializing"
	})
}

func (v view) events() section {
	s := section{head: []string{"AGE", "REASON", "OBJECT", "EVENT"}, newest: true}
	for _, e := range v.m.Events {
		c := ""
		if e.Type == api.Warning {
			c = planview.Yellow
		}
		what := e.Application
		if !e.Ref.IsZero() {
			what = strings.ToLower(e.Ref.Kind) + "/" + e.Ref.Name
		} else if what == "" {
			what = e.Source
		}
		msg := e.Message
		if e.Count > 1 {
			msg += fmt.Sprintf(" (%d times)", e.Count)
		}
		s.rows = append(s.rows, sectionRow{cells: []cell{{v.age(e.Time), planview.Dim}, {e.Reason, c}, plain(what), {msg, c}}})
	}
	return s
}

func (v view) age(t time.Time) string {
	if t.IsZero() {
		return "?"
	}
	return duration.HumanDuration(max(0, v.m.Now.Sub(t)))
}

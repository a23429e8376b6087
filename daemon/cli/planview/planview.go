// Package planview shows plans: as text for people, and as JSON for programs.
package planview

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Sensitive stands for the values of Secrets.
const Sensitive = `"(sensitive)"`

// Options are settings of the text form.
type Options struct {
	// Color uses ANSI colours.
	Color bool
}

// JSON writes the result, indented, with its format version.
func JSON(w io.Writer, r api.PlanResult) error {
	return WriteJSON(w, Redacted(r), "  ")
}

// WriteJSON writes any value so that nothing in it steers a terminal; indent may be empty.
func WriteJSON(w io.Writer, v any, indent string) error {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(EscapeJSON(buf.Bytes()))
	return err
}

// Redacted returns the result without any value of a Secret. The planner leaves none in; this is
// the second lock.
func Redacted(r api.PlanResult) api.PlanResult {
	apps := make([]api.ApplicationPlan, len(r.Applications))
	for i, a := range r.Applications {
		changes := make([]plan.Change, len(a.Plan.Changes))
		for j, c := range a.Plan.Changes {
			fields := make([]plan.FieldChange, len(c.Fields))
			for k, f := range c.Fields {
				fields[k] = redact(c.Ref, f)
			}
			c.Fields = fields
			changes[j] = c
		}
		a.Plan.Changes = changes
		apps[i] = a
	}
	r.Applications = apps
	return r
}

func redact(ref object.Ref, f plan.FieldChange) plan.FieldChange {
	top, _, _ := strings.Cut(strings.ReplaceAll(f.Path, "[", "."), ".")
	if ref.Kind != "Secret" || ref.Group != "" || top != "data" && top != "stringData" {
		return f
	}
	if f.Old != "" {
		f.Old = Sensitive
	}
	if f.New != "" {
		f.New = Sensitive
	}
	return f
}

// Text writes the plans for people. The last line is "Plan: N to add, N to change, N to destroy." or
// begins with "No changes.".
func Text(w io.Writer, r api.PlanResult, o Options) error {
	r = Redacted(r)
	v := newView(w, o)
	v.nodes = nodes(r)
	if r.Compared {
		v.printf("%s\n\n", v.paint(Dim, "Git against Git: what runs was not looked at."))
	}
	v.legend(r)
	failed := 0
	for _, a := range r.Applications {
		if a.Error != nil || a.Plan.Diags.HasErrors() {
			failed++
		}
		v.application(a)
	}
	v.summary(r, failed)
	return v.w.Flush()
}

// Removal writes what will be deleted, for the question that down asks.
func Removal(w io.Writer, apps []api.ApplicationPlan, o Options) error {
	return Text(w, api.PlanResult{Applications: apps}, o)
}

// view is a text that is being written.
type view struct {
	w     *bufio.Writer
	color bool
	nodes int
}

func newView(w io.Writer, o Options) *view { return &view{w: bufio.NewWriter(w), color: o.Color} }

func (v *view) printf(format string, args ...any) { fmt.Fprintf(v.w, format, args...) }

// paint wraps s in a colour.
func (v *view) paint(c color, s string) string { return Paint(v.color, c, s) }

type color = string

// The colours of what happens.
const (
	Green  = "32"
	Red    = "31"
	Cyan   = "36"
	Yellow = "33"
	Bold   = "1"
	Dim    = "2"
)

// Paint wraps s in an ANSI colour when on is true.
func Paint(on bool, c color, s string) string {
	if !on || s == "" || c == "" {
		return s
	}
	return "\x1b[" + c + "m" + s + "\x1b[0m"
}

// nodes counts the nodes that a result speaks of: one is not worth naming.
func nodes(r api.PlanResult) int {
	seen := map[plan.NodeID]bool{}
	for _, a := range r.Applications {
		for _, c := range a.Plan.Changes {
			for _, p := range c.Pods {
				if p.Node != "" {
					seen[p.Node] = true
				}
			}
		}
	}
	return len(seen)
}

// symbol is how an action is shown.
type symbol struct {
	text, color, words, will string
}

func symbolOf(a plan.Action) symbol {
	switch a {
	case plan.ActionCreate:
		return symbol{"+", Green, "create", "will be created"}
	case plan.ActionUpdate:
		return symbol{"~", Cyan, "update in place", "will be updated"}
	case plan.ActionStartFirst, plan.ActionStopFirst:
		return symbol{"-/+", Yellow, "replace", "must be replaced"}
	case plan.ActionDelete:
		return symbol{"-", Red, "destroy", "will be destroyed"}
	case plan.ActionMove:
		return symbol{">", Cyan, "take over, as it runs", "will be taken over"}
	case plan.ActionNone:
	}
	return symbol{"•", "", "leave", "stays as it is"}
}

// legend explains the symbols that are used, and only those.
func (v *view) legend(r api.PlanResult) {
	used := map[string]bool{}
	for _, a := range r.Applications {
		for _, c := range a.Plan.Changes {
			if c.Action != plan.ActionNone {
				used[symbolOf(c.Action).text] = true
			}
			for _, p := range c.Pods {
				used[symbolOf(p.Action).text] = true
			}
		}
	}
	var parts []string
	for _, a := range []plan.Action{plan.ActionCreate, plan.ActionUpdate, plan.ActionStartFirst, plan.ActionDelete, plan.ActionMove} {
		if s := symbolOf(a); used[s.text] {
			parts = append(parts, v.paint(s.color, s.text)+" "+s.words)
		}
	}
	if len(parts) > 0 {
		v.printf("Symbols: %s\n\n", strings.Join(parts, "   "))
	}
}

func (v *view) application(a api.ApplicationPlan) {
	v.printf("%s\n", v.paint(Bold, "Application "+Clean(a.Name)))
	if a.Source != "" {
		v.printf("  source    %s\n", Clean(a.Source))
	}
	if a.Path != "" {
		v.printf("  path      %s\n", Clean(a.Path))
	}
	if s := revisions(a.From, a.To); s != "" {
		v.printf("  revision  %s\n", s)
	}
	if s := a.To.Signed(); s != "" {
		v.printf("  signed    %s\n", Clean(s))
	}
	v.failure(a)
	v.printf("\n")
	if a.Error != nil {
		v.printf("  %s %s\n\n", v.paint(Red, "Error:"), indented(a.Error.Message, "    "))
	}
	v.drift(a)
	v.suspended(a)
	v.leaving(a)
	// What comes first is shown first.
	changes := slices.Clone(a.Plan.Changes)
	slices.SortStableFunc(changes, func(x, y plan.Change) int { return plan.CompareStages(x.Stage, y.Stage) })
	for i, c := range changes {
		if c.Wait != 0 && (i == 0 || changes[i-1].Wait != c.Wait) {
			v.wait(a.Plan, c.Wait)
		} else if i > 0 && c.Wait == 0 && changes[i-1].Stage != c.Stage {
			v.printf("  %s\n\n", v.paint(Bold, Clean(c.Stage.String())))
		}
		v.change(c, a.Plan.Services)
	}
	v.services(a.Plan)
	if len(a.Plan.Diags) > 0 {
		v.diags(a.Plan.Diags)
	}
	switch n := a.Plan.Unchanged; {
	case a.Error != nil || n == 0 && len(a.Plan.Changes) > 0:
	case len(a.Plan.Changes) > 0:
		v.printf("  %s\n\n", v.paint(Dim, fmt.Sprintf("(%s)", plural(n, "unchanged object"))))
	case len(a.Plan.Steps) == 0 && !a.Plan.Diags.HasErrors():
		v.printf("  Up to date (%s).\n\n", plural(n, "object"))
	}
}

// failure says that the newest revision failed, and what is done about it.
func (v *view) failure(a api.ApplicationPlan) {
	f := a.Failure
	if f == nil {
		return
	}
	why := indented(f.Reason+": "+f.Message, "              ")
	switch back, failed := shortOf(f.Back), shortOf(f.Revision); {
	case f.BackReason != "":
		v.printf("  %s revision %s failed, and going back to %s failed too: %s\n", v.paint(Red, "failed   "), failed, back, indented(f.BackReason+": "+f.BackMessage, "              "))
		v.printf("            %s\n", why)
	case f.Back.ID != "":
		v.printf("  %s to %s because revision %s failed: %s\n", v.paint(Yellow, "rolls back"), back, failed, why)
	default:
		v.printf("  %s revision %s failed and is not tried again until Git or its declaration moves: %s\n", v.paint(Red, "failed   "), failed, why)
		v.printf("            what follows is what `fairlead apply %s` would try\n", Clean(a.Name))
	}
}

// shortOf is a revision as people read it.
func shortOf(r api.Revision) string {
	if r.Short != "" {
		return Clean(r.Short)
	}
	return Clean(r.ID)
}

// wait says what everything below waits for.
func (v *view) wait(p plan.Plan, id plan.StepID) {
	if i := slices.IndexFunc(p.Steps, func(s plan.Step) bool { return s.ID == id }); i >= 0 {
		v.printf("  %s\n\n", v.paint(Bold, "… "+Clean(p.Steps[i].Cause)))
	}
}

// revisions says where a plan goes from and to.
func revisions(from, to api.Revision) string {
	name := shortOf
	var s string
	switch {
	case to.ID == "" && from.ID == "":
		return ""
	case to.ID == "":
		return name(from)
	case from.ID == "":
		s = name(to) + " (nothing applied before)"
	case from.ID == to.ID:
		s = name(to)
	default:
		s = name(from) + " → " + name(to)
	}
	if to.Message != "" {
		s += fmt.Sprintf(" %q", to.Message)
	}
	if to.Author != "" {
		s += " by " + Clean(to.Author)
	}
	return s
}

func (v *view) drift(a api.ApplicationPlan) {
	if len(a.Plan.Drift) == 0 {
		return
	}
	v.printf("  %s\n", v.paint(Bold, "Changed outside of Git"))
	for _, d := range a.Plan.Drift {
		v.printf("  %s %s: %s", v.paint(Yellow, "!"), Clean(d.Ref.String()), Clean(d.Message))
		if d.By != "" {
			v.printf(" (%s)", d.By.Words())
		}
		if d.Healed != "" {
			v.printf(" → %s", Clean(d.Healed))
		} else {
			v.printf(" %s", v.paint(Dim, "(left as it is)"))
		}
		v.printf("\n")
		if where, rule := IgnoreRule(a.Declaration, d); rule != "" {
			v.printf("      %s\n        %s\n", v.paint(Dim, "to leave it alone, add to "+Clean(where)+":"), Clean(rule))
		}
	}
	v.printf("\n")
}

// IgnoreRule returns the rule that has a difference left alone, as one line of YAML, and where it is to be added, in the
// form of what declares the application; both are empty when there is none.
func IgnoreRule(declaration object.Ref, d plan.Drift) (where, rule string) {
	if d.Pointer == "" {
		return "", ""
	}
	target := fmt.Sprintf("kind: %s, namespace: %s, name: %s", d.Target.Kind, d.Target.Namespace, d.Target.Name)
	if d.Target.Group != "" {
		target = "group: " + d.Target.Group + ", " + target
	}
	switch declaration.Kind {
	case "Kustomization":
		return "spec.ignore of " + declaration.String(), fmt.Sprintf("- {paths: [%s], target: {%s}}", d.Pointer, target)
	case "Application":
		return "spec.ignoreDifferences of " + declaration.String(), fmt.Sprintf("- {%s, jsonPointers: [%s]}", target, d.Pointer)
	}
	return "", ""
}

// suspended shows what is left as it is, until when, by whom and why.
func (v *view) suspended(a api.ApplicationPlan) {
	if a.Suspension != nil {
		v.printf("  %s\n\n", v.paint(Yellow, "Suspended "+Clean(a.Suspension.String())+". Nothing of this plan is carried out."))
	}
	if len(a.Plan.Suspended) == 0 {
		return
	}
	v.printf("  %s\n", v.paint(Bold, "Suspended, and left as it is"))
	for _, s := range a.Plan.Suspended {
		v.printf("  %s %s %s", v.paint(Yellow, "="), Clean(s.Ref.String()), Clean(s.Suspension.String()))
		if s.Held != "" {
			v.printf(" %s", v.paint(Dim, "(held back: "+Clean(s.Held)+")"))
		}
		v.printf("\n")
	}
	v.printf("\n")
}

// leaving shows what other applications take over.
func (v *view) leaving(a api.ApplicationPlan) {
	began := false
	for _, m := range a.Plan.Moves {
		if m.From != a.Name {
			continue // what comes is among the changes
		}
		if !began {
			v.printf("  %s\n", v.paint(Bold, "Moves to other applications, and runs on"))
			began = true
		}
		v.printf("  %s %s: from %s to %s\n", v.paint(Cyan, ">"), Clean(m.Ref.String()), Clean(m.From), Clean(m.To))
	}
	if began {
		v.printf("\n")
	}
}

func (v *view) change(c plan.Change, services []plan.ServiceChange) {
	s := symbolOf(c.Action)
	will := s.will
	if c.Action == plan.ActionNone && len(c.Pods) > 0 {
		will = "stays as it is, its pods do not"
	}
	v.printf("  %s", v.paint(s.color, s.text+" "+Clean(c.Ref.String())+" "+will))
	if o := c.Origin.String(); o != "" {
		v.printf("  %s", v.paint(Dim, Clean(o)))
	}
	v.printf("\n")
	if c.Cause != "" {
		v.printf("      %s\n", v.paint(Dim, "# "+Clean(c.Cause)))
	}
	for _, f := range c.Fields {
		v.field(f)
	}
	if c.Unchanged > 0 && c.Action != plan.ActionCreate {
		v.printf("      %s\n", v.paint(Dim, fmt.Sprintf("(%s)", plural(c.Unchanged, "unchanged field"))))
	}
	if i := slices.IndexFunc(services, func(s plan.ServiceChange) bool { return s.Ref == c.Ref }); i >= 0 {
		v.service(services[i])
	}
	for _, p := range c.Pods {
		v.pod(p)
	}
	v.printf("\n")
}

func (v *view) pod(p plan.PodChange) {
	s := symbolOf(p.Action)
	name := Clean(p.Pod.Name)
	if p.Replaces.Name != "" && p.Replaces != p.Pod {
		name = Clean(p.Replaces.Name) + " → " + name
	}
	words := s.words
	switch p.Action {
	case plan.ActionStartFirst:
		words = "replace, start-first (no downtime)"
	case plan.ActionStopFirst:
		words = "replace, stop-first (no downtime)"
	case plan.ActionDelete:
		words = "delete"
	case plan.ActionMove:
		words = "runs on"
	case plan.ActionCreate, plan.ActionUpdate, plan.ActionNone:
	}
	if p.Downtime {
		words = strings.TrimSuffix(words, " (no downtime)") + " " + v.paint(Red, "(downtime)")
	}
	v.printf("      %s  %s", v.paint(s.color, s.text+" "+name), words)
	if p.Node != "" && v.nodes > 1 {
		v.printf(" on %s", Clean(string(p.Node)))
	}
	if p.Cause != "" {
		v.printf(": %s", Clean(p.Cause))
	}
	v.printf("\n")
}

func (v *view) diags(l diag.List) {
	v.printf("  %s\n", v.paint(Bold, "Findings"))
	for _, d := range l.Sorted() {
		c := Dim
		switch d.Severity {
		case diag.Error:
			c = Red
		case diag.Warning:
			c = Yellow
		case diag.Info:
		}
		v.printf("  %s\n", v.paint(c, indented(d.String(), "    ")))
	}
	v.printf("\n")
}

func (v *view) summary(r api.PlanResult, failed int) {
	if failed > 0 {
		v.printf("%s\n", v.paint(Red, fmt.Sprintf("%d of %s cannot be applied.", failed, plural(len(r.Applications), "application"))))
	}
	c := r.Counts()
	switch {
	case r.Pending() || failed > 0:
		v.printf("Plan: %d to add, %d to change, %d to destroy.\n", c.Add, c.Change, c.Destroy)
	case r.Compared:
		v.printf("No changes. Both revisions say the same.\n")
	case drifted(r):
		v.printf("No changes. What was changed outside of Git is left as it is.\n")
	case slices.ContainsFunc(r.Applications, func(a api.ApplicationPlan) bool { return a.Failure != nil }):
		v.printf("No changes. What runs is not what Git says: the newest revision failed.\n")
	default:
		v.printf("No changes. What runs is what Git says.\n")
	}
}

func drifted(r api.PlanResult) bool {
	for _, a := range r.Applications {
		if len(a.Plan.Drift) > 0 {
			return true
		}
	}
	return false
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

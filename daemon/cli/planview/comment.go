package planview

import (
	"bytes"
	"fmt"
	"html"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/plan"
)

// CommentOptions say what a forge takes.
type CommentOptions struct {
	// Limit is the size in bytes; 0 is no limit.
	Limit int
	// Folds is false where HTML is shown as text, so that nothing can be folded.
	Folds bool
	// Whole is where all of the plan can be seen; empty for nowhere.
	Whole string
	// Approvals say what of it was approved already.
	Approvals Approvals
}

// Approvals are those of a pull request.
type Approvals struct {
	// Here is true where they are given on the pull request.
	Here bool
	// Given says by application who has approved what waits there.
	Given map[string]string
}

// Comment writes a preview for a pull request, in Markdown: what the change does, application by application, and below
// it what runs otherwise already. Applications that do not fit within the limit are named and counted. Whatever stands in names,
// values and messages comes out as plain text.
func Comment(p api.Preview, o CommentOptions) string {
	head := commentHead(p) + commentApprovals(p, o.Approvals)
	foot := commentFoot(p, o)
	room := o.Limit - len(head) - len(foot)
	if o.Limit <= 0 {
		room = int(^uint(0) >> 1)
	}
	var b strings.Builder
	b.WriteString(head)
	left := 0
	for i, a := range p.Plan.Applications {
		part := applicationPart(a, o)
		// Later ones need room to be named.
		need := len(part)
		if i < len(p.Plan.Applications)-1 {
			need += cutNote
		}
		if need > room {
			part = applicationPart(cutPlan(a), o)
			if len(part)+cutNote > room {
				left++
				continue
			}
		}
		room -= len(part)
		b.WriteString(part)
	}
	if left > 0 {
		fmt.Fprintf(&b, "\nThe plans of %s are too long to be shown here.\n", plural(left, "more application"))
	}
	b.WriteString(foot)
	return b.String()
}

// cutNote is room for the line that says that something was left out.
const cutNote = 100

// commentHead sums up.
func commentHead(p api.Preview) string {
	var b strings.Builder
	c := p.Plan.Counts()
	switch {
	case p.Failed():
		b.WriteString("### Fairlead: this cannot be applied\n\n")
	case p.Plan.Pending():
		fmt.Fprintf(&b, "### Fairlead: %s\n\n", countsOf(c))
	case slices.ContainsFunc(p.Plan.Applications, func(a api.ApplicationPlan) bool { return a.Plan.Blocked != nil }):
		b.WriteString("### Fairlead: deletions wait for an approval\n\n")
	default:
		b.WriteString("### Fairlead: no changes\n\n")
	}
	fmt.Fprintf(&b, "Merging %s into %s (%s)", Code(p.Head.Short), Code(p.Branch), Code(p.Base.Short))
	switch n := len(p.Plan.Applications); {
	case p.Applications == 0:
		b.WriteString(". No application follows this branch.\n")
	case n == 0 && p.Applications == 1:
		b.WriteString(" does not change the application that follows it.\n")
	case n == 0:
		fmt.Fprintf(&b, " changes none of the %s that follow it.\n", plural(p.Applications, "application"))
	case p.Applications == 1:
		b.WriteString(" changes the application that follows it.\n")
	default:
		fmt.Fprintf(&b, " changes %d of the %s that follow it.\n", n, plural(p.Applications, "application"))
	}
	if len(p.Conflicts) > 0 {
		b.WriteString("\n**It cannot be merged as it is.** Both sides changed:\n\n")
		for _, f := range p.Conflicts[:min(len(p.Conflicts), maxFew)] {
			fmt.Fprintf(&b, "- %s\n", Code(f))
		}
		if more := len(p.Conflicts) - maxFew; more > 0 {
			fmt.Fprintf(&b, "- and %d more\n", more)
		}
	}
	if len(p.Plan.Applications) > 0 {
		b.WriteString("\n| Application | Plan | Notice |\n| --- | --- | --- |\n")
		for _, a := range p.Plan.Applications[:min(len(p.Plan.Applications), maxShown)] {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", Code(a.Name), verdict(a), strings.Join(notices(a), ", "))
		}
		if more := len(p.Plan.Applications) - maxShown; more > 0 {
			fmt.Fprintf(&b, "| and %d more | | |\n", more)
		}
	}
	return b.String()
}

// commentApprovals says what waits for an approval, and how it is given.
func commentApprovals(p api.Preview, o Approvals) string {
	var b strings.Builder
	shown := 0
	for _, a := range p.Plan.Applications {
		waits := a.Plan.Blocked
		if waits == nil {
			continue
		}
		if shown++; shown > maxFew {
			continue
		}
		by, given := o.Given[a.Name]
		switch {
		case given:
			fmt.Fprintf(&b, "\n%s is approved by %s.\n", Code(a.Name), Code(by))
		case o.Here:
			fmt.Fprintf(&b, "\n%s waits for an approval: `/fairlead approve %s`\n%s\n", Code(a.Name), waits.Digest, Code(waits.What()))
		default:
			fmt.Fprintf(&b, "\n%s will wait for an approval after the merge: %s\n", Code(a.Name), Code(waits.What()))
		}
	}
	if more := shown - maxFew; more > 0 {
		fmt.Fprintf(&b, "\n%s wait for an approval.\n", plural(more, "more application"))
	}
	return b.String()
}

// maxShown is how many applications are listed, maxFew how many files, and applications that differ; maxInline how many bytes of a
// text are shown in a line. With all of these a comment still fits everywhere.
const (
	maxShown  = 50
	maxFew    = 20
	maxInline = 120
)

func countsOf(c api.Counts) string {
	return fmt.Sprintf("%d to add, %d to change, %d to destroy", c.Add, c.Change, c.Destroy)
}

// verdict is an application's plan in a few words.
func verdict(a api.ApplicationPlan) string {
	one := api.PlanResult{Applications: []api.ApplicationPlan{a}}
	switch {
	case a.Error != nil:
		return "**cannot be planned**"
	case a.Plan.Diags.HasErrors():
		return "**cannot be applied**"
	case !one.Pending():
		return "no changes"
	}
	return countsOf(one.Counts())
}

// notices are what must not be overlooked.
func notices(a api.ApplicationPlan) []string {
	var out []string
	switch {
	case a.From.ID == "" && a.To.ID != "":
		out = append(out, "new")
	case a.To.ID == "" && a.From.ID != "":
		out = append(out, "**is removed**")
	}
	replaced, down := 0, 0
	for _, c := range a.Plan.Changes {
		for _, p := range c.Pods {
			if p.Action == plan.ActionStartFirst || p.Action == plan.ActionStopFirst {
				replaced++
			}
			if p.Downtime {
				down++
			}
		}
	}
	if replaced > 0 {
		out = append(out, "replaces "+plural(replaced, "pod"))
	}
	if down > 0 {
		out = append(out, "**downtime**")
	}
	if a.Plan.Blocked != nil {
		out = append(out, "**needs an approval**")
	}
	return out
}

// applicationPart is the plan of one application, folded where that is possible.
func applicationPart(a api.ApplicationPlan, o CommentOptions) string {
	var text bytes.Buffer
	v := newView(&text, Options{})
	v.application(a)
	_ = v.w.Flush() // a buffer takes everything
	body := strings.TrimSpace(text.String())
	around := fence(body)
	block := around + "diff\n" + diffed(body) + "\n" + around + "\n"
	title := html.EscapeString(strings.Trim(Code(a.Name), "`"))
	if !o.Folds {
		return fmt.Sprintf("\n#### %s\n\n%s", Code(a.Name), block)
	}
	return fmt.Sprintf("\n<details><summary><code>%s</code>: %s</summary>\n\n%s\n</details>\n", strings.ReplaceAll(title, "@", "&#64;"), strings.ReplaceAll(verdict(a), "**", ""), block)
}

// diffed moves the symbols of lines to their beginning, where forges colour them.
func diffed(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		rest := strings.TrimLeft(l, " ")
		indent := l[:len(l)-len(rest)]
		for _, s := range []struct{ is, shown, left string }{{"+ ", "+", "  "}, {"- ", "-", "  "}, {"~ ", "!", "  "}, {"-/+ ", "!", "-/+ "}, {"! ", "!", "  "}} {
			if after, is := strings.CutPrefix(rest, s.is); is && indent != "" {
				lines[i] = s.shown + indent[1:] + s.left + after
				break
			}
		}
	}
	return strings.Join(lines, "\n")
}

// cutPlan leaves out the fields, which are most of a long plan.
func cutPlan(a api.ApplicationPlan) api.ApplicationPlan {
	a.Plan.Changes = slices.Clone(a.Plan.Changes)
	for i := range a.Plan.Changes {
		c := &a.Plan.Changes[i]
		if n := len(c.Fields); n > 0 {
			c.Cause = strings.TrimPrefix(c.Cause+"; "+plural(n, "changed field")+" not shown", "; ")
			c.Fields = nil
		}
	}
	return a
}

// commentFoot is what does not follow from Git, and where there is more.
func commentFoot(p api.Preview, o CommentOptions) string {
	var b strings.Builder
	if len(p.Differs) > 0 {
		var lines strings.Builder
		for _, d := range p.Differs[:min(len(p.Differs), maxFew)] {
			fmt.Fprintf(&lines, "- %s: %s\n", Code(d.Application), differences(d))
		}
		title := "What already runs otherwise than Git says, " + p.Observed.UTC().Format(time.DateTime) + " UTC"
		if o.Folds {
			fmt.Fprintf(&b, "\n<details><summary>%s</summary>\n\n%s\n</details>\n", title, lines.String())
		} else {
			fmt.Fprintf(&b, "\n#### %s\n\n%s", title, lines.String())
		}
	}
	if p.Withheld {
		b.WriteString("\nThis change comes from outside: it was planned without keys and Secrets, and without a look at what runs.\n")
	}
	if n := len(p.Locked); n > 0 {
		fmt.Fprintf(&b, "\n%s not planned, because it is encrypted: ", plural(n, "application"))
		for i, name := range p.Locked[:min(n, maxFew)] {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(Code(name))
		}
		b.WriteString("\n")
	}
	if o.Whole != "" {
		fmt.Fprintf(&b, "\nAll of it: %s\n", o.Whole)
	}
	b.WriteString("\nPlanned from Git against Git; `/fairlead plan` plans again.\n")
	return b.String()
}

func differences(d api.Difference) string {
	var parts []string
	if d.Message != "" {
		parts = append(parts, Code(d.Message))
	}
	if d.Pending != (api.Counts{}) {
		parts = append(parts, countsOf(d.Pending)+" of what Git says already")
	}
	for i, f := range d.Drift {
		if i == 3 {
			parts = append(parts, fmt.Sprintf("and %d more", len(d.Drift)-i))
			break
		}
		parts = append(parts, Code(f.Ref.String()+": "+f.Message))
	}
	return strings.Join(parts, "; ")
}

// Code is text as inline code: nothing in it is markup, and nobody is mentioned by it.
func Code(s string) string {
	s = strings.ReplaceAll(strings.ReplaceAll(Clean(s), "`", "'"), "|", "¦")
	if len(s) > maxInline {
		at := maxInline
		for !utf8.RuneStart(s[at]) {
			at--
		}
		s = s[:at] + "…"
	}
	if strings.TrimSpace(s) == "" {
		return "(none)"
	}
	return "`" + s + "`"
}

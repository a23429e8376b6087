package planview

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// anyPreview generates previews whose texts are hostile.
func anyPreview() *rapid.Generator[api.Preview] {
	text := rapid.SampledFrom([]string{
		"web", "```", "`````diff", "</details>", "<script>alert(1)</script>", "@everyone", "](http://192.0.2.1)", "a|b", "a\nb", "\x1b[31mred", "| x |", "~~~", "\u202eevil",
		strings.Repeat("long ", 200),
	})
	return rapid.Custom(func(t *rapid.T) api.Preview {
		p := api.Preview{
			Branch: text.Draw(t, "branch"), Base: api.Revision{ID: "b", Short: "b"}, Head: api.Revision{ID: "h", Short: text.Draw(t, "head")},
			Plan: api.PlanResult{Compared: true},
		}
		for range rapid.IntRange(0, 6).Draw(t, "applications") {
			a := api.ApplicationPlan{Name: text.Draw(t, "name"), Path: text.Draw(t, "path"), To: p.Head}
			for range rapid.IntRange(0, 4).Draw(t, "changes") {
				c := plan.Change{
					Ref:    object.Ref{Kind: "ConfigMap", Namespace: "default", Name: text.Draw(t, "object")},
					Action: rapid.SampledFrom([]plan.Action{plan.ActionCreate, plan.ActionUpdate, plan.ActionDelete}).Draw(t, "action"), Cause: text.Draw(t, "cause"),
				}
				for range rapid.IntRange(0, 5).Draw(t, "fields") {
					c.Fields = append(c.Fields, plan.FieldChange{Path: "data." + text.Draw(t, "field"), Old: fmt.Sprintf("%q", text.Draw(t, "old")), New: fmt.Sprintf("%q", text.Draw(t, "new"))})
				}
				a.Plan.Changes = append(a.Plan.Changes, c)
				a.Plan.Steps = append(a.Plan.Steps, plan.Step{})
			}
			if rapid.Bool().Draw(t, "waits") {
				a.Plan.Blocked = &plan.Blocked{Digest: "0123", Why: text.Draw(t, "why"), Objects: []object.Ref{{Kind: text.Draw(t, "kind"), Name: text.Draw(t, "gone")}}}
			}
			p.Plan.Applications = append(p.Plan.Applications, a)
		}
		for range rapid.IntRange(0, 3).Draw(t, "conflicts") {
			p.Conflicts = append(p.Conflicts, text.Draw(t, "conflict"))
		}
		for range rapid.IntRange(0, 3).Draw(t, "differs") {
			p.Differs = append(p.Differs, api.Difference{Application: text.Draw(t, "differing"), Message: text.Draw(t, "message")})
		}
		return p
	})
}

// outside returns the lines of a comment that are not in a fenced block, and whether every block ends.
func outside(comment string) (lines []string, balanced bool) {
	fence := ""
	for line := range strings.SplitSeq(comment, "\n") {
		mark := strings.TrimRight(line, "difanlsgxtp")
		isFence := strings.HasPrefix(line, "```") && strings.Trim(mark, "`") == ""
		switch {
		case fence == "" && isFence:
			fence = mark
		case fence != "" && line == fence:
			fence = ""
		case fence == "":
			lines = append(lines, line)
		}
	}
	return lines, fence == ""
}

// TestCommentsAreWhole holds that whatever is in a preview, its comment fits, every fence and fold ends, and nothing but
// what is ours is markup.
func TestCommentsAreWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := anyPreview().Draw(t, "preview")
		o := CommentOptions{Limit: rapid.SampledFrom([]int{0, 32_568, 65_336}).Draw(t, "limit"), Folds: rapid.Bool().Draw(t, "folds")}
		o.Approvals.Here = rapid.Bool().Draw(t, "here")
		if len(p.Plan.Applications) > 0 && rapid.Bool().Draw(t, "given") {
			o.Approvals.Given = map[string]string{p.Plan.Applications[0].Name: "@jane`"}
		}
		comment := Comment(p, o)
		if o.Limit > 0 && len(comment) > o.Limit {
			t.Fatalf("the comment has %d bytes, the limit is %d", len(comment), o.Limit)
		}
		lines, balanced := outside(comment)
		if !balanced {
			t.Fatal("a block does not end:\n", comment)
		}
		text := ""
		for _, l := range lines {
			text += withoutCode(l) + "\n"
		}
		if n, m := strings.Count(text, "<details>"), strings.Count(text, "</details>"); n != m {
			t.Fatalf("%d folds begin, %d end:\n%s", n, m, comment)
		}
		for _, l := range lines {
			l = withoutCode(l)
			for _, bad := range []string{"<script", "](http", "@", "\x1b", "\u202e"} {
				if strings.Contains(l, bad) {
					t.Fatalf("%q is not plain text in %q", bad, l)
				}
			}
		}
	})
}

// withoutCode removes inline code and what stands in code tags.
func withoutCode(line string) string {
	for {
		before, rest, ok := strings.Cut(line, "`")
		if !ok {
			break
		}
		_, after, ok := strings.Cut(rest, "`")
		if !ok {
			break
		}
		line = before + after
	}
	before, rest, ok := strings.Cut(line, "<code>")
	if !ok {
		return line
	}
	inside, after, _ := strings.Cut(rest, "</code>")
	if strings.ContainsAny(inside, "<>@") {
		return inside
	}
	return before + after
}

// TestWhatDoesNotFitIsCounted holds that a comment that is too long says what it leaves out.
func TestWhatDoesNotFitIsCounted(t *testing.T) {
	var p api.Preview
	p.Applications = 20
	for i := range 20 {
		a := api.ApplicationPlan{Name: fmt.Sprintf("app-%02d", i), To: api.Revision{ID: "h", Short: "h"}}
		for j := range 20 {
			c := plan.Change{Ref: object.Ref{Kind: "ConfigMap", Name: fmt.Sprintf("config-%02d", j)}, Action: plan.ActionUpdate}
			for k := range 20 {
				c.Fields = append(c.Fields, plan.FieldChange{Path: fmt.Sprintf("data.key-%02d", k), Old: `"old"`, New: `"new"`})
			}
			a.Plan.Changes = append(a.Plan.Changes, c)
		}
		a.Plan.Steps = []plan.Step{{}}
		p.Plan.Applications = append(p.Plan.Applications, a)
	}
	comment := Comment(p, CommentOptions{Limit: 32_568, Folds: true})
	if len(comment) > 32_568 || !strings.Contains(comment, "more applications are too long to be shown here") || !strings.Contains(comment, "20 changed fields not shown") {
		t.Errorf("%d bytes:\n%s", len(comment), comment)
	}
	if whole := Comment(p, CommentOptions{Folds: true}); !strings.Contains(whole, "app-19</code>") || !strings.Contains(whole, "data.key-19") {
		t.Error("without a limit not all is shown")
	}
}

package previews

import (
	"context"
	"fmt"
	"strings"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
	"github.com/fairlead-dev/fairlead/sources/forge"
)

// command carries out a comment that begins with /fairlead.
func (m *Manager) command(ctx context.Context, r Repository, e forge.Event) error {
	word, rest := "", []string(nil)
	if len(e.Comment.Command) > 0 {
		word, rest = e.Comment.Command[0], e.Comment.Command[1:]
	}
	switch {
	case word == "plan" && len(rest) == 0:
		m.Look(r, e.PullRequest)
		return m.react(ctx, r, e, forge.Eyes)
	case word == "explain" && len(rest) == 1:
		return m.explain(ctx, r, e, rest[0])
	case word == "approve" && len(rest) == 1:
		return m.approve(ctx, r, e, rest[0])
	}
	return m.answer(ctx, r, e.PullRequest, "These are understood: `/fairlead plan`, `/fairlead explain KIND/NAME` or `KIND/NAMESPACE/NAME`, and `/fairlead approve DIGEST`.")
}

// react shows that a comment was seen, where the forge can.
func (m *Manager) react(ctx context.Context, r Repository, e forge.Event, what forge.Reaction) error {
	if f, ok := r.Forge.(forge.Reactor); ok && e.Comment.ID != "" {
		return f.React(ctx, r.Path, e.PullRequest, forge.Comment{ID: e.Comment.ID, Author: e.Comment.Author}, what)
	}
	return nil
}

// answer keeps one comment for answers beside that of the preview.
func (m *Manager) answer(ctx context.Context, r Repository, number int, body string) error {
	_, _, err := forge.PutComment(ctx, r.Forge, r.Path, number, m.options.Name+"/answer", body)
	return err
}

// explain answers with everything that the merge does to one object, and why.
func (m *Manager) explain(ctx context.Context, r Repository, e forge.Event, name string) error {
	pr, err := r.Forge.PullRequest(ctx, r.Path, e.PullRequest)
	if err != nil {
		return err
	}
	if pr.State != forge.Open {
		return m.answer(ctx, r, pr.Number, "The pull request is not open: there is nothing to plan.")
	}
	p, err := m.plan(ctx, r, pr)
	if err != nil {
		return m.answer(ctx, r, pr.Number, "The preview failed: "+planview.Code(firstLine(err.Error())))
	}
	found := 0
	p.Plan.Applications, found = onlyObject(p.Plan.Applications, name)
	if found == 0 {
		return m.answer(ctx, r, pr.Number, fmt.Sprintf("Merging %s does nothing to %s.", planview.Code(p.Head.Short), planview.Code(name)))
	}
	return m.answer(ctx, r, pr.Number, planview.Comment(p, m.commentOptions(r, pr)))
}

// onlyObject leaves in plans what concerns one object, KIND/NAME or KIND/NAMESPACE/NAME, and counts the changes.
func onlyObject(plans []api.ApplicationPlan, name string) ([]api.ApplicationPlan, int) {
	parts := strings.Split(name, "/")
	is := func(kind, namespace, object string) bool {
		switch len(parts) {
		case 2:
			return strings.EqualFold(parts[0], kind) && parts[1] == object
		case 3:
			return strings.EqualFold(parts[0], kind) && parts[1] == namespace && parts[2] == object
		}
		return false
	}
	var out []api.ApplicationPlan
	found := 0
	for _, a := range plans {
		all := a.Plan.Changes
		a.Plan.Changes, a.Plan.Unchanged = nil, 0
		for _, c := range all {
			if is(c.Ref.Kind, c.Ref.Namespace, c.Ref.Name) {
				a.Plan.Changes = append(a.Plan.Changes, c)
			}
		}
		diags := a.Plan.Diags
		a.Plan.Diags = nil
		for _, d := range diags {
			if is(d.Ref.Kind, d.Ref.Namespace, d.Ref.Name) {
				a.Plan.Diags = append(a.Plan.Diags, d)
			}
		}
		if n := len(a.Plan.Changes) + len(a.Plan.Diags); n > 0 {
			found += n
			out = append(out, a)
		}
	}
	return out, found
}

package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/applications"
	"github.com/fairlead-dev/fairlead/daemon/previews"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"

	"github.com/fairlead-dev/fairlead/sources"
	"github.com/fairlead-dev/fairlead/sources/forge"
	"github.com/fairlead-dev/fairlead/sources/git"
)

// Preview plans what merging one branch into another does to the applications that follow it. Nothing is changed.
func (s *System) Preview(ctx context.Context, r api.PreviewRequest) (api.Preview, error) {
	if r.URL != "" {
		var err error
		if r, err = s.askForge(ctx, r.URL); err != nil {
			return api.Preview{}, err
		}
	}
	s.planMu.Lock()
	defer s.planMu.Unlock()
	if !s.isApplying() { // nobody has fetched anything yet
		if err := s.fetchAll(ctx, nil); err != nil {
			return api.Preview{}, err
		}
	}
	out := api.Preview{
		Branch: r.Base, Withheld: r.Stranger,
		Plan: api.PlanResult{Format: api.PlanFormat, Version: s.version, Created: time.Now().UTC(), Compared: true, Applications: []api.ApplicationPlan{}},
	}
	merges := map[string]git.Merge{}
	var failed error
	merge := func(ctx context.Context, decl applications.Source) (git.Merge, bool, error) {
		if !s.follows(decl, r) {
			return git.Merge{}, false, nil
		}
		if m, ok := merges[decl.Name]; ok {
			return m, true, nil
		}
		m, err := s.merge(ctx, decl, r)
		if err == nil {
			merges[decl.Name] = m
			out.Base, out.Head = revisionFrom(m.Base), revisionFrom(m.Head)
			out.Conflicts = append(out.Conflicts, m.Conflicts...)
		} else if failed == nil {
			failed = err
		}
		return m, true, err
	}
	side := func(of func(git.Merge) sources.Snapshot) placing {
		return func(ctx context.Context, decl applications.Source) (reconcile.SourceStatus, bool, error) {
			m, moved, err := merge(ctx, decl)
			return reconcile.SourceStatus{Name: decl.Name, Snapshot: of(m)}, moved, err
		}
	}
	c, err := s.compare(ctx, side(func(m git.Merge) sources.Snapshot { return m.Base }), side(func(m git.Merge) sources.Snapshot { return m.Result }), r.Stranger, nil)
	switch {
	case err != nil:
		return out, err
	case failed != nil: // what is the repository's fault is no finding about an application
		return out, failed
	case len(merges) == 0:
		return out, fmt.Errorf("%w: no source follows branch %s of that repository", api.ErrNotFound, r.Base)
	}
	slices.Sort(out.Conflicts)
	out.Conflicts = slices.Compact(out.Conflicts)
	for name, w := range c.before.wants {
		if _, follows := merges[w.decl.Source]; follows || c.after.wants[name] == nil {
			out.Applications++
		}
	}
	for name, w := range c.after.wants {
		if w.locked {
			out.Locked = append(out.Locked, name)
		}
		if c.before.wants[name] == nil {
			out.Applications++
		}
	}
	for i := range c.plans {
		p := &c.plans[i]
		if r.Stranger {
			p.Source = "" // where it is cloned from may be inside of a network
		}
		if p.To.ID != "" && p.To.ID == string(merges[sourceOf(c, p.Name)].Result.Revision) {
			p.To = out.Head // the merge itself has an id that nobody knows
		}
	}
	slices.Sort(out.Locked)
	out.Plan.Applications = c.plans
	if !r.Stranger {
		out.Observed = time.Now().UTC()
		out.Differs = s.differs(c.plans)
	}
	return out, nil
}

func sourceOf(c *comparison, application string) string {
	if w := c.after.wants[application]; w != nil {
		return w.decl.Source
	}
	return ""
}

// askForge returns what to plan for a pull request that a browser shows at a URL.
func (s *System) askForge(ctx context.Context, url string) (api.PreviewRequest, error) {
	repository, number, ok := forge.ParsePullRequestURL(url)
	if !ok {
		return api.PreviewRequest{}, fmt.Errorf("%w: %q is not the URL of a pull request", api.ErrInvalid, url)
	}
	f, path, ok := s.Forge(repository)
	if !ok {
		return api.PreviewRequest{}, fmt.Errorf("%w: no forge of the settings has %s: name it under forges", api.ErrNotFound, repository)
	}
	pr, err := f.PullRequest(ctx, path, number)
	if err != nil {
		return api.PreviewRequest{}, fmt.Errorf("ask for pull request %d of %s: %w", number, path, err)
	}
	if pr.State != forge.Open {
		return api.PreviewRequest{}, fmt.Errorf("%w: pull request %d of %s is %s: there is nothing to plan", api.ErrInvalid, number, path, pr.State)
	}
	where := forge.Repository{Path: path, URLs: append([]string{repository}, pr.Base.Repository.URLs...)}
	return previews.Request(previews.Repository{Forge: f, Path: path, Keys: where.Keys(s.settings.Hooks.Rules())}, pr), nil
}

// follows reports whether a source follows the branch that is merged into.
func (s *System) follows(decl applications.Source, r api.PreviewRequest) bool {
	if decl.Kind != applications.Git || !forge.Matches(forge.Key(decl.Repository.URL), r.Repository) {
		return false
	}
	if decl.Repository.Branch == r.Base {
		return true
	}
	s.mu.Lock()
	e, ok := s.sources[decl.Name]
	s.mu.Unlock()
	return ok && e.worker != nil && sameSource(e.decl, decl) && e.worker.Status().Snapshot.Ref == "refs/heads/"+r.Base
}

// merge merges in a clone that is kept for previews, so that it is fetched once.
func (s *System) merge(ctx context.Context, decl applications.Source, r api.PreviewRequest) (git.Merge, error) {
	have, ok := s.merging[decl.Name]
	if ok && !sameSource(have.decl, decl) {
		_ = have.source.Close() // it was only read
		ok = false
	}
	if !ok {
		source, err := s.openSource(decl)
		if err != nil {
			return git.Merge{}, err
		}
		have = merging{decl: decl, source: source.(*git.Source)}
		s.merging[decl.Name] = have
	}
	m, err := have.source.Merge(ctx, r.Base, r.Head)
	if err != nil {
		return git.Merge{}, fmt.Errorf("source %s: %w", decl.Name, err)
	}
	return m, nil
}

// PullRequest implements hooks.PullRequests.
func (s *System) PullRequest(ev forge.Event) {
	if s.previews == nil {
		return
	}
	if f, path, ok := s.Forge(ev.Repository.URLs...); ok {
		s.previews.Handle(previews.Repository{Forge: f, Path: path, Keys: ev.Repository.Keys(s.settings.Hooks.Rules()), Approvers: s.approvers[f]}, ev)
	}
}

// lookAtPullRequests brings the previews of a source's open pull requests to what they would be merged into now.
func (s *System) lookAtPullRequests(decl applications.Source, at sources.Snapshot) {
	branch, ok := strings.CutPrefix(at.Ref, "refs/heads/")
	if s.previews == nil || !ok || decl.Kind != applications.Git {
		return
	}
	if f, path, ok := s.Forge(decl.Repository.URL); ok {
		s.previews.LookAtAll(previews.Repository{Forge: f, Path: path, Keys: []string{forge.Key(decl.Repository.URL)}, Approvers: s.approvers[f]}, branch)
	}
}

// Includes reports whether a revision of an application's source has a commit in its history.
func (s *System) Includes(ctx context.Context, application, revision, commit string) bool {
	if revision == commit {
		return commit != ""
	}
	s.planMu.Lock()
	defer s.planMu.Unlock()
	s.mu.Lock()
	e := s.applications[application]
	s.mu.Unlock()
	if e == nil {
		return false
	}
	m, ok := s.merging[e.decl.Source]
	if !ok {
		return false
	}
	in, err := m.source.Contains(ctx, revision, commit)
	return err == nil && in
}

// Wants identifies what an application wants now, as api.ApplicationPlan.Wants does.
func (s *System) Wants(application string) string {
	s.mu.Lock()
	e := s.applications[application]
	s.mu.Unlock()
	if e == nil {
		return ""
	}
	return s.wanted(e.worker.Status().Desired)
}

// merging is a source that previews merge in.
type merging struct {
	decl   applications.Source
	source *git.Source
}

// differs says what runs of applications otherwise than Git says now.
func (s *System) differs(plans []api.ApplicationPlan) []api.Difference {
	var out []api.Difference
	for _, st := range s.statuses() {
		name := st.Config.Name
		if !slices.ContainsFunc(plans, func(p api.ApplicationPlan) bool { return p.Name == name }) {
			continue
		}
		d := api.Difference{Application: name, Drift: st.Plan.Drift}
		d.Pending.Add, d.Pending.Change, d.Pending.Destroy = st.Plan.Counts()
		if st.Health != reconcile.Healthy && st.Health != reconcile.Progressing {
			d.Message = string(st.Health) + ": " + st.Reason + ": " + st.Detail
		}
		if len(d.Drift) > 0 || d.Pending != (api.Counts{}) || d.Message != "" {
			out = append(out, d)
		}
	}
	return out
}

// Package previews shows on pull requests what merging them would do, and after the merge what became of it: one
// comment that is edited in place, a commit status for each application that is touched, and one for all of them.
//
// A preview is computed by the same functions as the plan that is carried out later, from Git against Git, so that it
// does not depend on the moment. Nothing that goes wrong with a forge holds anything else up.
package previews

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
	"github.com/fairlead-dev/fairlead/sources/forge"
)

// Planner plans what merging a branch would do, and knows what became of applications.
type Planner interface {
	// Preview plans a merge; api.ErrNotFound when nothing follows the branch.
	Preview(ctx context.Context, r api.PreviewRequest) (api.Preview, error)
	// Applications returns what is known of all applications now.
	Applications(ctx context.Context) ([]api.Application, error)
	// Wants identifies what an application wants now, as api.ApplicationPlan.Wants does.
	Wants(application string) string
	// Includes reports whether a revision of an application's source has a commit in its history.
	Includes(ctx context.Context, application, revision, commit string) bool
	// ApproveAs approves what waits in an application, when it has the digest; api.ErrMoved when it has another.
	ApproveAs(ctx context.Context, application, digest, by string) error
	// Watch calls changed after every change of what Applications returns, until ctx ends.
	Watch(ctx context.Context, changed func()) error
}

// Options are settings of a Manager.
type Options struct {
	// Name tells the comments and statuses of this installation from those of others.
	Name string
	// Dir is where what was said is remembered until the merge; empty remembers nothing.
	Dir string
	// Link returns where the whole preview can be seen; nil for nowhere.
	Link func(repo string, number int) string
	// Outcome is how long the outcome of a merge is waited for; 0 means 30 minutes.
	Outcome time.Duration
	// Settle is how long a failure has to stand that is not the verdict on the revision, before it is the outcome; 0 means 10 seconds.
	Settle time.Duration
	// Again are the pauses after which a preview that failed is tried again: forges tell of commits before they give them
	// out. nil means two, of 2 and 10 seconds.
	Again []time.Duration
	Log   zerolog.Logger
}

// Manager makes previews. Every pull request has one at most at a time: what is newer ends what is under way.
type Manager struct {
	planner  Planner
	options  Options
	promises promises

	ctx  context.Context
	stop context.CancelFunc
	all  sync.WaitGroup
	turn chan struct{} // bounds how many are made at once

	mu    sync.Mutex
	jobs  map[pull]*job
	talks map[pull]*talk
}

// pull names a pull request.
type pull struct {
	forge  forge.Kind
	repo   string
	number int
}

// job is what is under way for a pull request.
type job struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// Repository is a repository of a forge, as the settings have it.
type Repository struct {
	Forge forge.Forge
	// Path is its name on the forge; Keys are those of the sources that are cloned from it.
	Path string
	Keys []string
	// Approvers may approve on its pull requests; nil is nobody.
	Approvers Approvers
}

// talk are the commands of a pull request: they are answered one after the other.
type talk struct {
	last    chan struct{} // is closed when the newest is answered
	waiting int
}

// mostWaiting is how many commands of a pull request wait at a time; more are not answered.
const mostWaiting = 20

// atOnce is how many previews are made at the same time. Rendering takes turns, so more would only wait elsewhere.
const atOnce = 4

// New returns a Manager that works until Close.
func New(p Planner, o Options) *Manager {
	if o.Outcome <= 0 {
		o.Outcome = 30 * time.Minute
	}
	if o.Settle <= 0 {
		o.Settle = 10 * time.Second
	}
	if o.Again == nil {
		o.Again = []time.Duration{2 * time.Second, 10 * time.Second}
	}
	if o.Name == "" {
		o.Name = "default"
	}
	m := &Manager{planner: p, options: o, promises: promises{dir: o.Dir}, turn: make(chan struct{}, atOnce), jobs: map[pull]*job{}, talks: map[pull]*talk{}}
	m.ctx, m.stop = context.WithCancel(context.Background())
	return m
}

// Close ends everything that is under way and waits for it.
func (m *Manager) Close() error {
	m.stop()
	m.all.Wait()
	return nil
}

// Handle takes a delivery about a pull request: it is a reason to look, and nothing in it is believed. It does not block.
func (m *Manager) Handle(r Repository, e forge.Event) {
	if !e.Kind.IsPullRequest() || e.PullRequest == 0 {
		return
	}
	if e.Kind == forge.Commanded {
		m.talk(r, e)
		return
	}
	m.Look(r, e.PullRequest)
}

// Look brings what is said on a pull request to what is so now. It does not block.
func (m *Manager) Look(r Repository, number int) {
	m.start(r, number, func(ctx context.Context) error { return m.look(ctx, r, number) })
}

// LookAtAll brings what is said on the open pull requests that would be merged into a branch to what is so now, and on
// those that were merged since: the branch has moved, or nobody told of them. It does not block. Those after the newest hundred
// wait until something happens to them.
func (m *Manager) LookAtAll(r Repository, branch string) {
	if m.ctx.Err() != nil {
		return
	}
	m.all.Go(func() {
		open, err := r.Forge.OpenPullRequests(m.ctx, r.Path)
		if err != nil && m.ctx.Err() == nil {
			m.options.Log.Warn().Err(err).Str("repository", r.Path).Msg("open pull requests cannot be listed")
			return
		}
		n := 0
		known := map[int]bool{}
		for _, pr := range open {
			known[pr.Number] = true
			if pr.Base.Name == branch && n < maxLooks {
				n++
				m.Look(r, pr.Number)
			}
		}
		for _, number := range m.promises.untold(r.Path) {
			if !known[number] && n < maxLooks {
				n++
				m.Look(r, number)
			}
		}
	})
}

// maxLooks is how many pull requests are looked at when a branch moves.
const maxLooks = 100

// start runs f for a pull request. What is under way for it is ended before.
func (m *Manager) start(r Repository, number int, f func(ctx context.Context) error) {
	if m.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(m.ctx)
	key := pull{r.Forge.Kind(), r.Path, number}
	next := &job{cancel: cancel, done: make(chan struct{})}
	m.mu.Lock()
	before := m.jobs[key]
	m.jobs[key] = next
	m.mu.Unlock()
	if before != nil {
		before.cancel()
	}
	m.all.Go(func() {
		defer cancel()
		defer close(next.done)
		if before != nil {
			<-before.done
		}
		err := f(ctx)
		m.mu.Lock()
		if m.jobs[key] == next {
			delete(m.jobs, key)
		}
		m.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			m.options.Log.Warn().Err(err).Str("repository", r.Path).Int("pullRequest", number).Msg("the preview is not on the pull request")
		}
	})
}

// talk answers a command, after those that came before it.
func (m *Manager) talk(r Repository, e forge.Event) {
	if m.ctx.Err() != nil {
		return
	}
	key := pull{r.Forge.Kind(), r.Path, e.PullRequest}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.talks[key]
	if t == nil {
		t = &talk{}
		m.talks[key] = t
	}
	if t.waiting == mostWaiting {
		m.options.Log.Warn().Str("repository", r.Path).Int("pullRequest", e.PullRequest).Str("by", e.Comment.Author).Msg("a command is not answered: too many wait already")
		return
	}
	t.waiting++
	before, done := t.last, make(chan struct{})
	t.last = done
	m.all.Go(func() {
		defer close(done)
		if before != nil {
			<-before
		}
		err := m.command(m.ctx, r, e)
		m.mu.Lock()
		if t.waiting--; t.waiting == 0 {
			delete(m.talks, key)
		}
		m.mu.Unlock()
		if err != nil && m.ctx.Err() == nil {
			m.options.Log.Warn().Err(err).Str("repository", r.Path).Int("pullRequest", e.PullRequest).Msg("a command is not answered")
		}
	})
}

// look shows a preview of an open pull request, or the outcome of a merged one.
func (m *Manager) look(ctx context.Context, r Repository, number int) error {
	pr, err := r.Forge.PullRequest(ctx, r.Path, number)
	if err != nil {
		return err
	}
	switch pr.State {
	case forge.Open:
		return m.preview(ctx, r, pr)
	case forge.Merged:
		return m.outcome(ctx, r, pr)
	case forge.Closed:
	}
	return nil
}

// preview plans the merge of a pull request and shows the result.
func (m *Manager) preview(ctx context.Context, r Repository, pr forge.PullRequest) error {
	began := time.Now()
	p, err := m.plan(ctx, r, pr)
	for _, pause := range m.options.Again {
		if err == nil || ctx.Err() != nil || errors.Is(err, api.ErrNotFound) {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
			if again, e := r.Forge.PullRequest(ctx, r.Path, pr.Number); e == nil && again.State == forge.Open {
				pr = again
			}
			p, err = m.plan(ctx, r, pr)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, api.ErrNotFound) {
		return nil // no application follows the branch that it would be merged into
	}
	if err != nil {
		status := forge.Status{Context: m.context(""), State: forge.Error, Description: "the preview failed: " + firstLine(err.Error()), URL: pr.URL}
		_, e := r.Forge.SetStatus(ctx, r.Path, pr.Head.Commit, status)
		return errors.Join(err, e)
	}
	options := m.commentOptions(r, pr)
	var body string
	err = m.promises.change(pull{r.Forge.Kind(), r.Path, pr.Number}, func(said *promise, _ bool) bool {
		*said = promiseOf(p, r.Path, pr.Number, *said)
		options.Approvals = approvals(*said, approvable(r, pr))
		body = planview.Comment(p, options)
		said.Body = body
		return true
	})
	_, _, commentErr := forge.PutComment(ctx, r.Forge, r.Path, pr.Number, m.options.Name, body)
	statusErr := errors.Join(err, m.statuses(ctx, r, pr, p, options.Approvals))
	m.options.Log.Info().Str("repository", r.Path).Int("pullRequest", pr.Number).Str("head", pr.Head.Commit).Int("applications", len(p.Plan.Applications)).
		Dur("took", time.Since(began)).Msg("previewed")
	return errors.Join(commentErr, statusErr)
}

// plan plans the merge of a pull request, in turn.
func (m *Manager) plan(ctx context.Context, r Repository, pr forge.PullRequest) (api.Preview, error) {
	select {
	case m.turn <- struct{}{}:
	case <-ctx.Done():
		return api.Preview{}, ctx.Err()
	}
	defer func() { <-m.turn }()
	p, err := m.planner.Preview(ctx, Request(r, pr))
	// What is said of a commit must be of that commit. Forges change the reference of a pull request some time after they tell.
	if err == nil && !strings.HasPrefix(p.Head.ID, pr.Head.Commit) {
		err = fmt.Errorf("the forge tells of commit %s and gives out %s: /fairlead plan tries again", pr.Head.Commit, p.Head.ID)
	}
	return p, err
}

// Request is what to plan for a pull request. Where the forge keeps the head in the base's repository, it is taken from there.
func Request(r Repository, pr forge.PullRequest) api.PreviewRequest {
	head := pr.Head.Commit
	if pr.HeadRef != "" {
		head = pr.HeadRef
	} else if !pr.Fork && pr.Head.Name != "" {
		head = "refs/heads/" + pr.Head.Name
	}
	return api.PreviewRequest{Repository: r.Keys, Base: pr.Base.Name, Head: head, Stranger: pr.Fork}
}

func (m *Manager) commentOptions(r Repository, pr forge.PullRequest) planview.CommentOptions {
	o := planview.CommentOptions{Limit: r.Forge.Limits().Comment - markerRoom, Folds: true}
	switch r.Forge.Kind() {
	case forge.Bitbucket, forge.BitbucketServer:
		o.Folds = false
	case forge.GitHub, forge.GitLab, forge.Gitea, forge.Forgejo, forge.AzureDevOps, forge.Generic:
	}
	if m.options.Link != nil {
		o.Whole = m.options.Link(r.Path, pr.Number)
	}
	return o
}

// markerRoom is for the line by which an own comment is found again.
const markerRoom = 200

// context names a status: that of an application, or the one for all of them.
func (m *Manager) context(application string) string {
	return strings.TrimSuffix("fairlead/"+m.options.Name+"/"+application, "/")
}

// approvable reports whether what a pull request waits for can be approved before it is merged.
func approvable(r Repository, pr forge.PullRequest) bool {
	return r.Approvers != nil && r.Approvers.Any() && !pr.Fork
}

// approvals is what was approved of what was said.
func approvals(said promise, here bool) planview.Approvals {
	out := planview.Approvals{Here: here, Given: map[string]string{}}
	for _, a := range said.Applications {
		if a.Approval != nil {
			out.Given[a.Name] = a.Approval.By
		}
	}
	return out
}

// statuses sets one status for every application that the change touches, and one for all of them.
func (m *Manager) statuses(ctx context.Context, r Repository, pr forge.PullRequest, p api.Preview, approved planview.Approvals) error {
	var errs []error
	set := func(s forge.Status) {
		s.URL = pr.URL
		_, err := r.Forge.SetStatus(ctx, r.Path, pr.Head.Commit, s)
		errs = append(errs, err)
	}
	for _, a := range p.Plan.Applications {
		state, text := verdict(api.PlanResult{Applications: []api.ApplicationPlan{a}}, approved)
		set(forge.Status{Context: m.context(a.Name), State: state, Description: text})
	}
	state, text := verdict(p.Plan, approved)
	switch {
	case len(p.Conflicts) > 0:
		state, text = forge.Failure, fmt.Sprintf("%d files cannot be merged", len(p.Conflicts))
	case len(p.Plan.Applications) == 0:
		text = "no application is changed"
	}
	set(forge.Status{Context: m.context(""), State: state, Description: text})
	return errors.Join(errs...)
}

// verdict is a plan as a status. What waits for an approval that can be given on the pull request is pending until then.
func verdict(r api.PlanResult, approved planview.Approvals) (forge.State, string) {
	var waits, given bool
	for _, a := range r.Applications {
		if a.Plan.Blocked != nil {
			_, ok := approved.Given[a.Name]
			waits, given = waits || !ok, given || ok
		}
	}
	c := r.Counts()
	text := fmt.Sprintf("%d to add, %d to change, %d to destroy", c.Add, c.Change, c.Destroy)
	switch {
	case r.Failed():
		return forge.Failure, "cannot be applied: see the comment"
	case waits && approved.Here:
		return forge.Pending, "waits for an approval: see the comment"
	case waits:
		return forge.Success, text + "; waits for an approval after the merge"
	case !r.Pending() && !given:
		return forge.Success, "no changes"
	case given:
		text += ", approved"
	}
	return forge.Success, text
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

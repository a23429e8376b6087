package previews

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/sources/forge"
)

// memory is a forge in memory.
type memory struct {
	mu       sync.Mutex
	pulls    map[int]forge.PullRequest
	comments map[int][]forge.Comment
	statuses map[string]forge.Status // by commit and context
	limit    int
	edits    int
}

func newMemory() *memory {
	return &memory{pulls: map[int]forge.PullRequest{}, comments: map[int][]forge.Comment{}, statuses: map[string]forge.Status{}, limit: 65536}
}

func (f *memory) Kind() forge.Kind     { return forge.GitHub }
func (f *memory) Limits() forge.Limits { return forge.Limits{Comment: f.limit, Description: 140} }

func (f *memory) PullRequest(_ context.Context, _ string, n int) (forge.PullRequest, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pr, ok := f.pulls[n]
	if !ok {
		return pr, forge.ErrNotFound
	}
	return pr, nil
}

func (f *memory) OpenPullRequests(context.Context, string) ([]forge.PullRequest, error) {
	return nil, nil
}

func (f *memory) Comments(_ context.Context, _ string, n int) ([]forge.Comment, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.comments[n]), nil
}

func (f *memory) CreateComment(_ context.Context, _ string, n int, body string) (forge.Comment, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := forge.Comment{ID: fmt.Sprint(n, "-", len(f.comments[n])), Author: "fairlead", Body: body}
	f.comments[n] = append(f.comments[n], c)
	return c, nil
}

func (f *memory) EditComment(_ context.Context, _ string, n int, c forge.Comment, body string) (forge.Comment, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.comments[n] {
		if f.comments[n][i].ID == c.ID {
			f.comments[n][i].Body = body
			f.edits++
			return f.comments[n][i], nil
		}
	}
	return c, forge.ErrNotFound
}

func (f *memory) Self(context.Context, string) (string, error) { return "fairlead", nil }

func (f *memory) Status(_ context.Context, _, commit, name string) (forge.Status, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.statuses[commit+" "+name]
	return s, ok, nil
}

func (f *memory) SetStatus(_ context.Context, _, commit string, s forge.Status) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.statuses[commit+" "+s.Context] = s
	return true, nil
}

// said are the bodies of a pull request's comments.
func (f *memory) said(n int) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, c := range f.comments[n] {
		out = append(out, c.Body)
	}
	return out
}

func (f *memory) status(commit, name string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.statuses[commit+" "+name]
	return string(s.State) + ": " + s.Description
}

// planner answers as a test wants.
type planner struct {
	mu       sync.Mutex
	asked    []api.PreviewRequest
	answer   func(ctx context.Context, r api.PreviewRequest) (api.Preview, error)
	apps     []api.Application
	wants    map[string]string
	included bool
	changed  func()
	approved []string // APPLICATION DIGEST BY
	// head is the commit that the forge gives out for pull request 7.
	head func() string
}

func (p *planner) ApproveAs(_ context.Context, application, digest, by string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, a := range p.apps {
		if a.Name == application && a.Blocked != nil && a.Blocked.Digest == digest {
			p.approved = append(p.approved, application+" "+digest+" "+by)
			p.apps[i].Blocked, p.apps[i].Reason, p.apps[i].Health, p.apps[i].Ready = nil, "Applied", api.Healthy, true
			return nil
		}
	}
	return api.ErrMoved
}

func (p *planner) Preview(ctx context.Context, r api.PreviewRequest) (api.Preview, error) {
	p.mu.Lock()
	p.asked = append(p.asked, r)
	answer, head := p.answer, p.head
	p.mu.Unlock()
	out, err := answer(ctx, r)
	if head != nil {
		out.Head.ID = head()
	}
	return out, err
}

func (p *planner) Applications(context.Context) ([]api.Application, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.apps), nil
}

func (p *planner) Wants(name string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wants[name]
}

func (p *planner) Includes(context.Context, string, string, string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.included
}

func (p *planner) Watch(ctx context.Context, changed func()) error {
	p.mu.Lock()
	p.changed = changed
	p.mu.Unlock()
	changed()
	<-ctx.Done()
	return nil
}

// set changes what is known of applications.
func (p *planner) set(change func()) {
	p.mu.Lock()
	change()
	changed := p.changed
	p.mu.Unlock()
	if changed != nil {
		changed()
	}
}

// shop is a preview that changes one Deployment of the application shop.
func shop(context.Context, api.PreviewRequest) (api.Preview, error) {
	ref := object.Ref{Group: "apps", Kind: "Deployment", Namespace: "default", Name: "web"}
	return api.Preview{
		Branch: "main", Base: api.Revision{ID: "b", Short: "b"}, Head: api.Revision{ID: "h", Short: "h"}, Applications: 3,
		Plan: api.PlanResult{Compared: true, Applications: []api.ApplicationPlan{{
			Name: "shop", From: api.Revision{ID: "b", Short: "b"}, To: api.Revision{ID: "h", Short: "h"}, Wants: "wanted",
			Plan: plan.Plan{
				Steps:   []plan.Step{{ID: 1, Op: plan.OpUpdatePod, Target: ref}},
				Changes: []plan.Change{{Ref: ref, Action: plan.ActionUpdate, Cause: "changed in the source", Fields: []plan.FieldChange{{Path: "spec.replicas", Old: "1", New: "2"}}}},
			},
		}}},
	}, nil
}

// bench is a Manager with its surroundings.
type bench struct {
	t       *testing.T
	forge   *memory
	planner *planner
	dir     string
	*Manager
	approvers Approvers
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, forge: newMemory(), planner: &planner{answer: shop, wants: map[string]string{}}, dir: t.TempDir()}
	b.planner.head = func() string {
		b.forge.mu.Lock()
		defer b.forge.mu.Unlock()
		return b.forge.pulls[7].Head.Commit
	}
	b.open()
	return b
}

func (b *bench) open() {
	b.Manager = New(b.planner, Options{Name: "prod", Dir: b.dir, Log: zerolog.Nop(), Outcome: time.Minute, Settle: 100 * time.Millisecond, Again: []time.Duration{time.Millisecond, time.Millisecond}})
	m := b.Manager
	b.t.Cleanup(func() { _ = m.Close() })
}

func (b *bench) repository() Repository {
	return Repository{Forge: b.forge, Path: "team/shop", Keys: []string{"git.example.org/team/shop"}, Approvers: b.approvers}
}

func (b *bench) pull(change func(*forge.PullRequest)) {
	b.forge.mu.Lock()
	defer b.forge.mu.Unlock()
	pr, ok := b.forge.pulls[7]
	if !ok {
		pr = forge.PullRequest{Number: 7, State: forge.Open, URL: "https://git.example.org/7", Head: forge.Branch{Name: "feature", Commit: "h1"}, Base: forge.Branch{Name: "main"}}
	}
	if change != nil {
		change(&pr)
	}
	b.forge.pulls[7] = pr
}

// told sends a delivery and waits until nothing is under way.
func (b *bench) told(e forge.Event) {
	b.t.Helper()
	b.Handle(b.repository(), e)
}

func (b *bench) eventually(what string, holds func() bool) {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("%s does not come; comments:\n%s\nstatuses: %v", what, strings.Join(b.forge.said(7), "\n=====\n"), b.forge.statuses)
		}
	}
}

var opened = forge.Event{Kind: forge.Opened, PullRequest: 7}

func TestAPullRequestGetsOneCommentAndStatuses(t *testing.T) {
	b := newBench(t)
	b.pull(nil)
	b.told(opened)
	b.eventually("the status", func() bool {
		return b.forge.status("h1", "fairlead/prod") == "success: 0 to add, 1 to change, 0 to destroy"
	})
	if got := b.forge.status("h1", "fairlead/prod/shop"); got != "success: 0 to add, 1 to change, 0 to destroy" {
		t.Errorf("the application's status is %s", got)
	}
	said := b.forge.said(7)
	if len(said) != 1 || !strings.Contains(said[0], "spec.replicas: 1 → 2") || !strings.Contains(said[0], "changes 1 of the 3 applications") {
		t.Fatalf("comments:\n%s", strings.Join(said, "\n=====\n"))
	}
	b.pull(func(pr *forge.PullRequest) { pr.Head.Commit = "h2" })
	b.planner.mu.Lock()
	b.planner.answer = func(ctx context.Context, r api.PreviewRequest) (api.Preview, error) {
		p, err := shop(ctx, r)
		p.Plan.Applications[0].Plan.Changes[0].Fields[0].New = "5"
		return p, err
	}
	b.planner.mu.Unlock()
	b.told(forge.Event{Kind: forge.Updated, PullRequest: 7})
	b.eventually("the second status", func() bool { return strings.HasPrefix(b.forge.status("h2", "fairlead/prod"), "success") })
	if said := b.forge.said(7); len(said) != 1 || !strings.Contains(said[0], "spec.replicas: 1 → 5") || b.forge.edits != 1 {
		t.Errorf("after the second push (%d edits):\n%s", b.forge.edits, strings.Join(said, "\n=====\n"))
	}
	if r := b.planner.asked[0]; r.Base != "main" || r.Head != "refs/heads/feature" || r.Stranger || !slices.Equal(r.Repository, b.repository().Keys) {
		t.Errorf("asked %+v", r)
	}
}

func TestANewPushEndsAPreviewThatIsUnderWay(t *testing.T) {
	b := newBench(t)
	b.pull(nil)
	first := make(chan struct{})
	ended := make(chan error, 1)
	b.planner.answer = func(ctx context.Context, r api.PreviewRequest) (api.Preview, error) {
		close(first)
		<-ctx.Done()
		ended <- ctx.Err()
		return api.Preview{}, ctx.Err()
	}
	b.told(opened)
	<-first
	b.planner.mu.Lock()
	b.planner.answer = shop
	b.planner.mu.Unlock()
	b.told(forge.Event{Kind: forge.Updated, PullRequest: 7})
	b.eventually("the status", func() bool { return strings.HasPrefix(b.forge.status("h1", "fairlead/prod"), "success") })
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the first ended with %v", err)
	}
	if said := b.forge.said(7); len(said) != 1 {
		t.Errorf("%d comments", len(said))
	}
}

func TestWhatTheForgeDoesNotGiveOutYetIsNotSaidOfANewCommit(t *testing.T) {
	b := newBench(t)
	b.pull(func(pr *forge.PullRequest) { pr.Head.Commit = "h2" })
	b.planner.answer = func(ctx context.Context, r api.PreviewRequest) (api.Preview, error) {
		p, err := shop(ctx, r)
		p.Plan.Applications[0].Plan.Changes[0].Fields[0].New = "of the commit before"
		return p, err
	}
	given := "h1"
	b.planner.head = func() string {
		b.planner.mu.Lock()
		defer b.planner.mu.Unlock()
		return given
	}
	asked := 0
	before := b.planner.answer
	b.planner.answer = func(ctx context.Context, r api.PreviewRequest) (api.Preview, error) {
		b.planner.mu.Lock()
		defer b.planner.mu.Unlock()
		if asked++; asked == 1 {
			return before(ctx, r)
		}
		given = "h2"
		return shop(ctx, r)
	}
	b.told(forge.Event{Kind: forge.Updated, PullRequest: 7})
	b.eventually("the status", func() bool { return strings.HasPrefix(b.forge.status("h2", "fairlead/prod"), "success") })
	if said := b.forge.said(7); len(said) != 1 || b.forge.edits != 0 || strings.Contains(said[0], "of the commit before") {
		t.Errorf("after %d edits:\n%s", b.forge.edits, strings.Join(said, "\n=====\n"))
	}

	b.planner.mu.Lock()
	b.planner.answer = before
	given = "h1"
	b.planner.mu.Unlock()
	b.told(forge.Event{Kind: forge.Updated, PullRequest: 7})
	b.eventually("the status", func() bool { return strings.HasPrefix(b.forge.status("h2", "fairlead/prod"), "error") })
	if got := b.forge.status("h2", "fairlead/prod"); got != "error: the preview failed: the forge tells of commit h2 and gives out h1: /fairlead plan tries again" {
		t.Errorf("the status is %s", got)
	}
}

func TestAStrangerIsAStranger(t *testing.T) {
	b := newBench(t)
	b.pull(func(pr *forge.PullRequest) { pr.Fork, pr.HeadRef = true, "refs/pull/7/head" })
	b.told(opened)
	b.eventually("the status", func() bool { return strings.HasPrefix(b.forge.status("h1", "fairlead/prod"), "success") })
	if r := b.planner.asked[0]; !r.Stranger || r.Head != "refs/pull/7/head" {
		t.Errorf("asked %+v", r)
	}
}

func TestWhatNobodyFollowsIsNotCommentedOn(t *testing.T) {
	b := newBench(t)
	b.pull(nil)
	done := make(chan struct{})
	b.planner.answer = func(context.Context, api.PreviewRequest) (api.Preview, error) {
		defer close(done)
		return api.Preview{}, fmt.Errorf("%w: no source follows branch main of that repository", api.ErrNotFound)
	}
	b.told(opened)
	<-done
	_ = b.Close()
	if len(b.forge.said(7)) > 0 || len(b.forge.statuses) > 0 {
		t.Errorf("said %q, statuses %v", b.forge.said(7), b.forge.statuses)
	}
}

func TestAFailedPreviewIsAStatus(t *testing.T) {
	b := newBench(t)
	b.pull(nil)
	b.planner.answer = func(context.Context, api.PreviewRequest) (api.Preview, error) {
		return api.Preview{}, errors.New("source repo: the server does not answer\nmore")
	}
	b.told(opened)
	b.eventually("the status", func() bool {
		return b.forge.status("h1", "fairlead/prod") == "error: the preview failed: source repo: the server does not answer"
	})
}

// What fails for a moment is no status.
func TestAPreviewIsTriedAgain(t *testing.T) {
	b := newBench(t)
	b.pull(nil)
	tries := 0
	b.planner.answer = func(ctx context.Context, r api.PreviewRequest) (api.Preview, error) {
		if tries++; tries < 3 {
			return api.Preview{}, errors.New("the repository has no reference refs/pull/7/head")
		}
		return shop(ctx, r)
	}
	b.told(opened)
	b.eventually("the status", func() bool { return strings.HasPrefix(b.forge.status("h1", "fairlead/prod"), "success") })
}

func TestConflictsFail(t *testing.T) {
	b := newBench(t)
	b.pull(nil)
	b.planner.answer = func(ctx context.Context, r api.PreviewRequest) (api.Preview, error) {
		p, err := shop(ctx, r)
		p.Conflicts = []string{"base/web.yaml"}
		return p, err
	}
	b.told(opened)
	b.eventually("the status", func() bool { return b.forge.status("h1", "fairlead/prod") == "failure: 1 files cannot be merged" })
	if said := b.forge.said(7)[0]; !strings.Contains(said, "- `base/web.yaml`") {
		t.Error(said)
	}
}

// merge makes the pull request merged as commit m, after it was previewed.
func (b *bench) merge() {
	b.t.Helper()
	b.pull(nil)
	b.told(opened)
	b.eventually("the preview", func() bool {
		return strings.HasPrefix(b.forge.status("h1", "fairlead/prod"), "success") && len(b.forge.said(7)) == 1
	})
	b.eventually("the promise", func() bool { _, ok := b.promises.load(pull{forge.GitHub, "team/shop", 7}); return ok })
	b.pull(func(pr *forge.PullRequest) { pr.State, pr.MergeCommit = forge.Merged, "m" })
}

func TestTheOutcomeOfAMerge(t *testing.T) {
	for name, c := range map[string]struct {
		app    api.Application
		wants  string
		status string
		said   string
	}{
		"applied":     {api.Application{Name: "shop", Health: api.Healthy, Ready: true}, "wanted", "success: applied as previewed", "| `shop` | `applied` |"},
		"other":       {api.Application{Name: "shop", Health: api.Healthy, Ready: true}, "something else", "success: applied; not all as previewed", "not what the preview said"},
		"failed":      {api.Application{Name: "shop", Health: api.Degraded, Reason: "RolloutFailed", Message: "1 of 2 pods is not ready"}, "wanted", "failure: 1 of 1 applications failed", "failed: RolloutFailed: 1 of 2 pods is not ready"},
		"rolled back": {api.Application{Name: "shop", Health: api.Degraded, Reason: "RolledBack", Message: "it went back", Failure: &api.Failure{Back: api.Revision{Short: "b"}, Reason: "CrashLoopBackOff", Message: "it ended with 3\nlast log line: hush"}}, "what b wants", "failure: 1 of 1 applications failed", "| `shop` | `rolled back to b: CrashLoopBackOff: it ended with 3` |"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.merge()
			b.told(forge.Event{Kind: forge.PullMerged, PullRequest: 7})
			b.eventually("that it is waited for", func() bool { return b.forge.status("m", "fairlead/prod") == "pending: 0 of 1 applications are done" })
			_ = b.Close() // a restart in the middle
			b.open()
			b.told(forge.Event{Kind: forge.PullMerged, PullRequest: 7})
			b.planner.set(func() {
				b.planner.apps, b.planner.included = []api.Application{c.app}, true
				b.planner.wants["shop"] = c.wants
			})
			b.eventually("the outcome", func() bool { return b.forge.status("m", "fairlead/prod") == c.status })
			b.eventually("the comment", func() bool {
				said := b.forge.said(7)
				return len(said) == 1 && strings.Contains(said[0], c.said) && strings.Contains(said[0], "spec.replicas")
			})
		})
	}
}

func TestAFailureThatPassesIsNotTheOutcome(t *testing.T) {
	b := newBench(t)
	b.merge()
	b.planner.set(func() {
		b.planner.included = true
		b.planner.apps = []api.Application{{Name: "shop", Health: api.Degraded, Reason: "ApplyFailed", Message: "it did not become ready in time"}}
	})
	b.told(forge.Event{Kind: forge.PullMerged, PullRequest: 7})
	b.eventually("the failure", func() bool { return strings.Contains(b.forge.said(7)[0], "failed: ApplyFailed") })
	b.planner.set(func() {
		b.planner.apps = []api.Application{{Name: "shop", Health: api.Degraded, Reason: "RolledBack", Failure: &api.Failure{Back: api.Revision{Short: "b"}, Reason: "ProgressDeadlineExceeded"}}}
	})
	b.eventually("what came of it", func() bool { return strings.Contains(b.forge.said(7)[0], "rolled back to b: ProgressDeadlineExceeded") })
}

func TestCommands(t *testing.T) {
	b := newBench(t)
	b.pull(nil)
	command := func(words ...string) {
		b.told(forge.Event{Kind: forge.Commanded, PullRequest: 7, Comment: forge.CommentRef{ID: "1", Author: "jane", Command: words}})
	}
	command("plan")
	b.eventually("the preview", func() bool { return len(b.forge.said(7)) == 1 })
	command("explain", "Deployment/web")
	b.eventually("the answer", func() bool {
		said := b.forge.said(7)
		return len(said) == 2 && strings.Contains(said[1], "spec.replicas: 1 → 2")
	})
	command("explain", "deployment/other/web")
	b.eventually("another answer in the same place", func() bool {
		said := b.forge.said(7)
		return len(said) == 2 && strings.Contains(said[1], "does nothing to `deployment/other/web`")
	})
	command("destroy", "everything")
	b.eventually("help", func() bool { return strings.Contains(b.forge.said(7)[1], "`/fairlead plan`") })
}

package previews

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/sources/forge"
)

// asking is the preview of shop with a deletion that waits for an approval, known by its content.
func asking(content, head string) func(ctx context.Context, r api.PreviewRequest) (api.Preview, error) {
	return func(ctx context.Context, r api.PreviewRequest) (api.Preview, error) {
		p, err := shop(ctx, r)
		p.Head.ID, p.Withheld = head, r.Stranger
		p.Plan.Applications[0].Plan.Blocked = &plan.Blocked{
			Digest: content, Content: content, Why: "what they hold would be lost", Of: 3,
			Objects: []object.Ref{{Kind: "PersistentVolumeClaim", Namespace: "default", Name: "data"}},
		}
		return p, err
	}
}

// wait makes the application wait after the merge.
func (b *bench) wait(digest, content string) {
	b.planner.set(func() {
		b.planner.included = true
		b.planner.wants["shop"] = "wanted"
		b.planner.apps = []api.Application{{
			Name: "shop", Health: api.Degraded, Reason: "Blocked", Message: "it waits", Revision: api.Revision{ID: "m"},
			Blocked: &plan.Blocked{Digest: digest, Content: content, Why: "what they hold would be lost", Of: 3},
		}}
	})
}

// say adds a comment and tells of it.
func (b *bench) say(who, text string) forge.Event {
	b.t.Helper()
	words, ok := forge.ParseCommand(text)
	if !ok {
		b.t.Fatalf("%q is no command", text)
	}
	b.forge.mu.Lock()
	id := fmt.Sprint("comment-", len(b.forge.comments[7]))
	b.forge.comments[7] = append(b.forge.comments[7], forge.Comment{ID: id, Author: who, Body: text})
	b.forge.mu.Unlock()
	e := forge.Event{Kind: forge.Commanded, PullRequest: 7, Comment: forge.CommentRef{ID: id, Author: who, Command: words}}
	b.told(e)
	return e
}

// answers waits until the answer to a command has a text.
func (b *bench) answers(text string) {
	b.t.Helper()
	b.eventually("the answer "+text, func() bool {
		return slices.ContainsFunc(b.forge.said(7), func(s string) bool { return strings.Contains(s, ":prod/answer ") && strings.Contains(s, text) })
	})
}

func (b *bench) given() []string {
	b.planner.mu.Lock()
	defer b.planner.mu.Unlock()
	return slices.Clone(b.planner.approved)
}

// approvable is a bench whose pull request waits for an approval of content one.
func approvableBench(t *testing.T) *bench {
	b := newBench(t)
	b.approvers = Accounts{Names: []string{"Jane", "joe"}, ExcludeAuthor: true}
	b.planner.answer = asking("one", "h1")
	b.pull(func(pr *forge.PullRequest) { pr.Author = "joe" })
	b.told(opened)
	b.eventually("that it waits", func() bool {
		return b.forge.status("h1", "fairlead/prod") == "pending: waits for an approval: see the comment" &&
			b.forge.status("h1", "fairlead/prod/shop") == "pending: waits for an approval: see the comment"
	})
	if said := b.forge.said(7); len(said) != 1 || !strings.Contains(said[0], "`shop` waits for an approval: `/fairlead approve one`") {
		t.Fatalf("comments:\n%s", strings.Join(said, "\n=====\n"))
	}
	return b
}

func (b *bench) merged() {
	b.pull(func(pr *forge.PullRequest) { pr.State, pr.MergeCommit = forge.Merged, "m" })
	b.told(forge.Event{Kind: forge.PullMerged, PullRequest: 7})
}

func TestAnApprovalBeforeTheMergeHoldsForIt(t *testing.T) {
	b := approvableBench(t)
	b.say("jane", "/fairlead approve one")
	b.eventually("that it is approved", func() bool {
		return b.forge.status("h1", "fairlead/prod") == "success: 0 to add, 1 to change, 0 to destroy, approved" && strings.Contains(b.forge.said(7)[0], "`shop` is approved by `jane`")
	})
	_ = b.Close() // it outlives a restart
	b.open()
	b.wait("exact", "one")
	b.merged()
	b.eventually("the end", func() bool { return b.forge.status("m", "fairlead/prod") == "success: applied as previewed" })
	if got := b.given(); !slices.Equal(got, []string{"shop exact jane (GitHub, on https://git.example.org/7)"}) {
		t.Errorf("approved: %q", got)
	}
}

func TestAnApprovalIsForWhatWasSeen(t *testing.T) {
	b := approvableBench(t)
	b.say("jane", "/fairlead approve one")
	b.eventually("that it is approved", func() bool { return strings.HasPrefix(b.forge.status("h1", "fairlead/prod"), "success") })
	// A push that changes something else of the application keeps nothing.
	b.planner.mu.Lock()
	b.planner.answer = asking("two", "h2")
	b.planner.mu.Unlock()
	b.pull(func(pr *forge.PullRequest) { pr.Head.Commit = "h2" })
	b.told(forge.Event{Kind: forge.Updated, PullRequest: 7})
	b.eventually("that it waits again", func() bool { return strings.HasPrefix(b.forge.status("h2", "fairlead/prod"), "pending: waits") })
	b.say("jane", "/fairlead approve one")
	b.answers("Nothing waits here that has the digest `one`")
	// One that changes only other applications keeps it.
	b.say("jane", "/fairlead approve two")
	b.eventually("that it is approved again", func() bool { return strings.HasPrefix(b.forge.status("h2", "fairlead/prod"), "success") })
	b.planner.mu.Lock()
	b.planner.answer = asking("two", "h3")
	b.planner.mu.Unlock()
	b.pull(func(pr *forge.PullRequest) { pr.Head.Commit = "h3" })
	b.told(forge.Event{Kind: forge.Updated, PullRequest: 7})
	b.eventually("that it stays approved", func() bool { return strings.HasPrefix(b.forge.status("h3", "fairlead/prod"), "success") })
	// What waits after the merge is something else: it is asked for again, and given there.
	b.wait("exact", "three")
	b.merged()
	b.eventually("that it is asked for again", func() bool {
		return b.forge.status("m", "fairlead/prod") == "pending: 1 of 1 applications wait for an approval: see the comment" &&
			strings.Contains(b.forge.said(7)[0], "`shop` waits for an approval: `/fairlead approve exact`") &&
			strings.Contains(b.forge.said(7)[0], "What `jane` approved before the merge is something else")
	})
	if got := b.given(); len(got) > 0 {
		t.Fatalf("approved: %q", got)
	}
	b.say("mallory", "/fairlead approve exact")
	b.answers("`mallory` may not approve")
	b.say("jane", "/fairlead approve two")
	b.answers("Nothing waits here that has the digest `two`.")
	b.say("jane", "/fairlead approve exact")
	b.eventually("the end", func() bool { return b.forge.status("m", "fairlead/prod") == "success: applied as previewed" })
	if got := b.given(); len(got) != 1 {
		t.Errorf("approved: %q", got)
	}
}

func TestWhoMayNotApprove(t *testing.T) {
	for name, c := range map[string]struct {
		who, text string
		change    func(b *bench)
		refused   string
	}{
		"a stranger":      {who: "mallory", refused: "`mallory` may not approve: it is not among the approvers"},
		"a similar name":  {who: "jane2", refused: "`jane2` may not approve"},
		"markup":          {who: "jane`@all", refused: "`jane'@all` may not approve"},
		"the author":      {who: "Joe", refused: "`Joe` opened this pull request"},
		"another digest":  {who: "jane", text: "/fairlead approve two", refused: "Nothing waits here that has the digest `two`"},
		"nobody at all":   {who: "jane", change: func(b *bench) { b.approvers = Accounts{} }, refused: "Nobody may approve here"},
		"a closed one":    {who: "jane", change: func(b *bench) { b.pull(func(pr *forge.PullRequest) { pr.State = forge.Closed }) }, refused: "The pull request is closed"},
		"a newer commit":  {who: "jane", change: func(b *bench) { b.pull(func(pr *forge.PullRequest) { pr.Head.Commit = "h9" }) }, refused: "There is a newer commit"},
		"a fork":          {who: "jane", change: func(b *bench) { b.pull(func(pr *forge.PullRequest) { pr.Fork = true }) }, refused: "A change from outside"},
		"words of others": {who: "jane", text: "/fairlead approve one please", refused: "These are understood"},
	} {
		t.Run(name, func(t *testing.T) {
			b := approvableBench(t)
			if c.change != nil {
				c.change(b)
			}
			if c.text == "" {
				c.text = "/fairlead approve one"
			}
			b.say(c.who, c.text)
			b.answers(c.refused)
			_ = b.Close()
			if said, _ := b.promises.load(pull{forge.GitHub, "team/shop", 7}); said.Applications[0].Approval != nil || len(b.given()) > 0 {
				t.Errorf("approved: %+v, %q", said.Applications[0].Approval, b.given())
			}
		})
	}
}

// A comment is believed when it is still there as it was delivered: others may edit it, and a delivery can be made up.
func TestACommandIsAskedForAgain(t *testing.T) {
	for name, change := range map[string]func(c *forge.Comment, e *forge.Event){
		"edited":        func(c *forge.Comment, _ *forge.Event) { c.Body = "/fairlead plan" },
		"edited to it":  func(_ *forge.Comment, e *forge.Event) { e.Comment.Command = []string{"approve", "one"} },
		"of another":    func(c *forge.Comment, _ *forge.Event) { c.Author = "mallory" },
		"not there":     func(_ *forge.Comment, e *forge.Event) { e.Comment.ID = "made-up" },
		"author's name": func(_ *forge.Comment, e *forge.Event) { e.Comment.Author = "joe" },
	} {
		t.Run(name, func(t *testing.T) {
			b := approvableBench(t)
			body := "/fairlead approve one"
			if name == "edited to it" {
				body = "/fairlead plan"
			}
			c := forge.Comment{ID: "comment-1", Author: "jane", Body: body}
			e := forge.Event{Kind: forge.Commanded, PullRequest: 7, Comment: forge.CommentRef{ID: c.ID, Author: c.Author, Command: []string{"approve", "one"}}}
			change(&c, &e)
			b.forge.mu.Lock()
			b.forge.comments[7] = append(b.forge.comments[7], c)
			b.forge.mu.Unlock()
			b.told(e)
			b.answers("The comment is not there any more as it was written")
			_ = b.Close()
			if said, _ := b.promises.load(pull{forge.GitHub, "team/shop", 7}); said.Applications[0].Approval != nil {
				t.Errorf("approved: %+v", said.Applications[0].Approval)
			}
		})
	}
}

// Who is not an approver any more when the merge comes has approved nothing.
func TestAnApproverWhoLeft(t *testing.T) {
	b := approvableBench(t)
	b.say("jane", "/fairlead approve one")
	b.eventually("that it is approved", func() bool { return strings.HasPrefix(b.forge.status("h1", "fairlead/prod"), "success") })
	b.approvers = Accounts{Names: []string{"ann"}}
	b.wait("exact", "one")
	b.merged()
	b.eventually("that it waits", func() bool {
		return strings.HasPrefix(b.forge.status("m", "fairlead/prod"), "pending: 1 of 1 applications wait")
	})
	if got := b.given(); len(got) > 0 {
		t.Errorf("approved: %q", got)
	}
}

// Without approvers of the forge nobody can approve on a pull request, so it does not stand in the way of the merge.
func TestAnApprovalThatCannotBeGivenHere(t *testing.T) {
	b := newBench(t)
	b.planner.answer = asking("one", "h1")
	b.pull(nil)
	b.told(opened)
	b.eventually("the status", func() bool {
		return b.forge.status("h1", "fairlead/prod") == "success: 0 to add, 1 to change, 0 to destroy; waits for an approval after the merge"
	})
	if said := b.forge.said(7)[0]; !strings.Contains(said, "will wait for an approval after the merge") || strings.Contains(said, "/fairlead approve one") {
		t.Error(said)
	}
}

// A person may take longer than the outcome of a merge is waited for.
func TestAnApprovalMayTakeItsTime(t *testing.T) {
	b := newBench(t)
	b.approvers = Accounts{Names: []string{"jane"}}
	b.Manager.options.Outcome = time.Millisecond
	b.planner.answer = asking("one", "h1")
	b.pull(nil)
	b.told(opened)
	b.eventually("the promise", func() bool { _, ok := b.promises.load(pull{forge.GitHub, "team/shop", 7}); return ok })
	b.wait("exact", "one")
	b.merged()
	b.eventually("that it waits", func() bool {
		return strings.HasPrefix(b.forge.status("m", "fairlead/prod"), "pending: 1 of 1 applications wait")
	})
	b.say("jane", "/fairlead approve exact")
	b.eventually("the end", func() bool { return b.forge.status("m", "fairlead/prod") == "success: applied as previewed" })
}

// Commands are answered one after the other, and those of somebody who floods are left out.
func TestAFloodOfCommands(t *testing.T) {
	b := newBench(t)
	b.pull(nil)
	release := make(chan struct{})
	var mu, asked = &b.planner.mu, 0
	b.planner.answer = func(ctx context.Context, r api.PreviewRequest) (api.Preview, error) {
		<-release
		mu.Lock()
		asked++
		mu.Unlock()
		return shop(ctx, r)
	}
	for range 100 {
		b.told(forge.Event{Kind: forge.Commanded, PullRequest: 7, Comment: forge.CommentRef{ID: "1", Author: "mallory", Command: []string{"explain", "Deployment/web"}}})
	}
	close(release)
	b.answers("spec.replicas: 1 → 2")
	b.eventually("that all are answered", func() bool {
		b.Manager.mu.Lock()
		defer b.Manager.mu.Unlock()
		return len(b.talks) == 0
	})
	if asked != mostWaiting {
		t.Errorf("%d commands were answered, want %d", asked, mostWaiting)
	}
	if n := len(b.forge.said(7)); n != 1 {
		t.Errorf("%d comments", n)
	}
}

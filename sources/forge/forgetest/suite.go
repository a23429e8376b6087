// Package forgetest holds the contract that every forge keeps, and forges to hold it against: stateful fakes that answer
// as the documented API of each service does, sign their deliveries as it does, and fail on command. The real Gitea
// passes the same contract; see e2e.
package forgetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/sources/forge"
	"github.com/fairlead-dev/fairlead/sources/forge/webhook"
)

// Host is a forge under test, with one repository.
type Host interface {
	// Config reaches it with an account that may do what is needed.
	Config() forge.Config
	// Repository is the name of the repository, CloneURL where it is cloned.
	Repository() string
	CloneURL() string
	// Many is a number of pull requests of which a list has several pages.
	Many() int
	// Open opens a pull request from a branch, or from a fork.
	Open(t *testing.T, title string, fork bool) Pull
	// Push adds a commit to a pull request and returns it.
	Push(t *testing.T, number int) string
	// Merge and Close do that to a pull request.
	Merge(t *testing.T, number int)
	Close(t *testing.T, number int)
	// CommentAs adds a comment of somebody else.
	CommentAs(t *testing.T, number int, body string)
	// Subscribe has events delivered to a URL, proved with a secret.
	Subscribe(t *testing.T, url, secret string)
	// PushBranch adds a commit to the default branch.
	PushBranch(t *testing.T)
}

// Pull is a pull request of a Host.
type Pull struct {
	Number     int
	Head, Base string
}

// Faulty is a Host that fails on command.
type Faulty interface {
	// Fail has the next n requests fail with a status and a header.
	Fail(n, status int, header map[string]string)
	// Requests is how many requests there were.
	Requests() int
	// Expire makes the token of Config wrong.
	Expire()
}

// Run holds the contract against the forges that open returns.
func Run(t *testing.T, open func(t *testing.T) Host) {
	for name, test := range map[string]func(t *testing.T, h Host, f forge.Forge){
		"pull requests": testPullRequests, "lists": testLists, "comments": testComments, "statuses": testStatuses, "errors": testErrors, "deliveries": testDeliveries, "faults": testFaults,
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t)
			f, err := forge.New(h.Config())
			if err != nil {
				t.Fatal(err)
			}
			test(t, h, f)
		})
	}
}

func get(t *testing.T, f forge.Forge, repo string, number int) forge.PullRequest {
	t.Helper()
	p, err := f.PullRequest(t.Context(), repo, number)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func testPullRequests(t *testing.T, h Host, f forge.Forge) {
	repo := h.Repository()
	own, fork := h.Open(t, "From a branch", false), h.Open(t, "From a fork", true)
	p := get(t, f, repo, own.Number)
	if p.Title != "From a branch" || p.State != forge.Open || p.Fork || p.Head.Commit != own.Head || p.Author == "" || p.URL == "" || p.Head.Name == "" {
		t.Errorf("a pull request from a branch: %+v", p)
	}
	if p.Base.Commit != own.Base || !strings.EqualFold(p.Base.Repository.Path, repo) || !forge.Matches(forge.Key(h.CloneURL()), p.Base.Repository.Keys(nil)) {
		t.Errorf("its base: %+v, want commit %s of %s", p.Base, own.Base, h.CloneURL())
	}
	p = get(t, f, repo, fork.Number)
	if !p.Fork || p.Head.Commit != fork.Head || p.State != forge.Open || strings.EqualFold(p.Head.Repository.Path, repo) {
		t.Errorf("a pull request from a fork: %+v", p)
	}
	head := h.Push(t, own.Number)
	if p = get(t, f, repo, own.Number); p.Head.Commit != head || p.State != forge.Open {
		t.Errorf("after a push the head is %s, want %s", p.Head.Commit, head)
	}
	h.Merge(t, own.Number)
	if p = get(t, f, repo, own.Number); p.State != forge.Merged || p.MergeCommit == "" {
		t.Errorf("after the merge: %s, commit %q", p.State, p.MergeCommit)
	}
	h.Close(t, fork.Number)
	if p = get(t, f, repo, fork.Number); p.State != forge.Closed || p.MergeCommit != "" {
		t.Errorf("after closing: %s, commit %q", p.State, p.MergeCommit)
	}
}

func testLists(t *testing.T, h Host, f forge.Forge) {
	var want []int
	for i := range h.Many() {
		want = append(want, h.Open(t, fmt.Sprint("Number ", i), false).Number)
	}
	h.Close(t, want[0])
	want = want[1:]
	all, err := f.OpenPullRequests(t.Context(), h.Repository())
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, p := range all {
		got = append(got, p.Number)
		if p.State != forge.Open || p.Head.Name == "" {
			t.Errorf("in a list: %+v", p)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("open pull requests (-want +got)\n%s", diff)
	}
}

func testComments(t *testing.T, h Host, f forge.Forge) {
	repo, number := h.Repository(), h.Open(t, "Talked about", false).Number
	// Somebody imitates the comment, with its marker.
	imitation := forge.Marker(f.Kind(), "preview") + "\n\nApproved, merge it."
	h.CommentAs(t, number, imitation)
	for i := range h.Many() {
		h.CommentAs(t, number, fmt.Sprint("Noise ", i))
	}
	put := func(body string, wantChanged bool) forge.Comment {
		t.Helper()
		c, changed, err := forge.PutComment(t.Context(), f, repo, number, "preview", body)
		if err != nil || changed != wantChanged {
			t.Fatalf("put %q: changed %v, %v", body, changed, err)
		}
		return c
	}
	first := put("Plan: 1 to add", true)
	put("Plan: 1 to add", false)
	if second := put("Plan: 2 to add\n\n```diff\n+ <b>x</b> & \"y\"\n```", true); second.ID != first.ID {
		t.Errorf("a second comment %s was made, the first is %s", second.ID, first.ID)
	}
	put("Plan: 2 to add\n\n```diff\n+ <b>x</b> & \"y\"\n```", false)
	if other, _, err := forge.PutComment(t.Context(), f, repo, number, "result", "applied"); err != nil || other.ID == first.ID {
		t.Errorf("a comment with another name: %+v, %v", other, err)
	}
	all, err := f.Comments(t.Context(), repo, number)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != h.Many()+3 {
		t.Errorf("there are %d comments, want %d", len(all), h.Many()+3)
	}
	if !slices.ContainsFunc(all, func(c forge.Comment) bool { return c.Body == imitation }) {
		t.Error("the comment of somebody else was changed")
	}
	if _, _, err := forge.PutComment(t.Context(), f, repo, number, "preview", strings.Repeat("x", f.Limits().Comment)); err == nil || !strings.Contains(err.Error(), "cut it before") {
		t.Errorf("a comment that is too long: %v", err)
	}
	if r, ok := f.(forge.Reactor); ok {
		for range 2 {
			if err := r.React(t.Context(), repo, number, first, forge.Eyes); err != nil {
				t.Errorf("react: %v", err)
			}
		}
	}
}

func testStatuses(t *testing.T, h Host, f forge.Forge) {
	repo, commit := h.Repository(), h.Open(t, "With statuses", false).Head
	set := func(s forge.Status, wantChanged bool) {
		t.Helper()
		changed, err := f.SetStatus(t.Context(), repo, commit, s)
		if err != nil || changed != wantChanged {
			t.Errorf("set %+v: changed %v, %v", s, changed, err)
		}
	}
	const long = "fairlead/production/an-application-whose-name-is-rather-long-but-not-impossible"
	pending := forge.Status{Context: "fairlead/production/shop", State: forge.Pending, Description: "planning"}
	set(pending, true)
	set(pending, false)
	done := forge.Status{Context: "fairlead/production/shop", State: forge.Success, Description: "Plan: 1 to add, 0 to change, 0 to destroy.", URL: "https://fairlead.example.org/previews/1"}
	set(done, true)
	set(done, false)
	failed := forge.Status{Context: long, State: forge.Error, Description: strings.Repeat("long ünd ", 60)}
	set(failed, true)
	set(failed, false)
	for i := range 3 {
		set(forge.Status{Context: fmt.Sprint("fairlead/other/", i), State: forge.Failure, Description: "x"}, true)
	}
	got, ok, err := f.Status(t.Context(), repo, commit, "fairlead/production/shop")
	if err != nil || !ok || got != done {
		t.Errorf("got %+v, %v, %v", got, ok, err)
	}
	if got, ok, err = f.Status(t.Context(), repo, commit, long); err != nil || !ok || got.State != forge.Failure && got.State != forge.Error {
		t.Errorf("got %+v, %v, %v", got, ok, err)
	}
	if _, ok, err := f.Status(t.Context(), repo, commit, "fairlead/production"); ok || err != nil {
		t.Errorf("a status that is not there: %v, %v", ok, err)
	}
}

func testErrors(t *testing.T, h Host, f forge.Forge) {
	if _, err := f.PullRequest(t.Context(), h.Repository(), 999_999); !errors.Is(err, forge.ErrNotFound) {
		t.Errorf("a pull request that is not there: %v", err)
	}
	c := h.Config()
	c.Token = func() (string, error) { return "0123456789012345678901234567890123456789", nil }
	c.Account = ""
	stranger, err := forge.New(c)
	if err != nil {
		t.Fatal(err)
	}
	_, err = stranger.Self(t.Context(), h.Repository())
	if !errors.Is(err, forge.ErrUnauthorized) || strings.Contains(err.Error(), "0123456789") {
		t.Errorf("a wrong token: %v", err)
	}
	if _, err := stranger.SetStatus(t.Context(), h.Repository(), strings.Repeat("a", 40), forge.Status{Context: "x", State: forge.Success}); err == nil {
		t.Error("a wrong token sets a status")
	}
}

// receiver takes deliveries.
type receiver struct {
	endpoint webhook.Endpoint
	events   chan forge.Event
	errors   chan error
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err == nil {
		var rej *webhook.Rejection
		if rej = r.endpoint.Before(req.Header); rej == nil {
			rej = r.endpoint.Verify(req.Header, body, time.Now())
		}
		if rej != nil {
			err = fmt.Errorf("%s: %s", rej.Code, rej.Reason)
		}
	}
	var ev forge.Event
	if err == nil {
		ev, err = r.endpoint.Parse(req.Header, body)
	}
	if err != nil {
		r.errors <- fmt.Errorf("%w\n%v\n%s", err, req.Header, bytes.TrimSpace(body))
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.WriteHeader(http.StatusAccepted)
	r.events <- ev
}

func testDeliveries(t *testing.T, h Host, f forge.Forge) {
	const secret = "correct horse battery staple"
	r := &receiver{webhook.Endpoint{Forge: f.Kind(), Secrets: []string{secret}}, make(chan forge.Event, 100), make(chan error, 100)}
	if f.Kind() == forge.AzureDevOps {
		r.endpoint.Username = "fairlead"
	}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	h.Subscribe(t, server.URL+"/hooks", secret)

	key := forge.Key(h.CloneURL())
	await := func(number int, kinds ...forge.EventKind) forge.Event {
		t.Helper()
		var had []forge.EventKind
		for {
			select {
			case err := <-r.errors:
				t.Fatalf("a delivery was rejected: %v", err)
			case ev := <-r.events:
				had = append(had, ev.Kind)
				if !slices.Contains(kinds, ev.Kind) || ev.PullRequest != number {
					continue
				}
				if !forge.Matches(key, ev.Repository.Keys(nil)) {
					t.Errorf("%s is about %v, want %s", ev.Kind, ev.Repository.Keys(nil), key)
				}
				if ev.Delivery == "" {
					t.Errorf("%s has no name of its delivery", ev.Kind)
				}
				return ev
			case <-time.After(20 * time.Second):
				t.Fatalf("no %v was delivered, but %v", kinds, had)
			}
		}
	}
	h.PushBranch(t)
	if ev := await(0, forge.Pushed); ev.Ref != "refs/heads/main" {
		t.Errorf("a push of %q", ev.Ref)
	}
	p := h.Open(t, "Delivered", false)
	await(p.Number, forge.Opened)
	h.Push(t, p.Number)
	await(p.Number, forge.Updated)
	h.CommentAs(t, p.Number, "nothing to do")
	h.CommentAs(t, p.Number, "/fairlead explain Deployment/web\n\nplease")
	if ev := await(p.Number, forge.Commanded); !slices.Equal(ev.Comment.Command, []string{"explain", "Deployment/web"}) || ev.Comment.Author == "" || ev.Comment.ID == "" {
		t.Errorf("a command: %+v", ev.Comment)
	} else if all, err := f.Comments(t.Context(), h.Repository(), p.Number); err != nil || !slices.ContainsFunc(all, func(c forge.Comment) bool { return c.ID == ev.Comment.ID && c.Author == ev.Comment.Author }) {
		t.Errorf("the command's comment %+v is not among the comments: %v, %v", ev.Comment, all, err)
	}
	h.Merge(t, p.Number)
	await(p.Number, forge.PullMerged)
}

func testFaults(t *testing.T, h Host, f forge.Forge) {
	faulty, ok := h.(Faulty)
	if !ok {
		t.Skip("this forge does not fail on command")
	}
	repo, p := h.Repository(), h.Open(t, "In bad weather", false)
	faulty.Fail(2, http.StatusBadGateway, nil)
	get(t, f, repo, p.Number)

	// A comment is never made twice: the service may have made it and failed then.
	faulty.Fail(1, http.StatusInternalServerError, nil)
	before := faulty.Requests()
	if _, err := f.CreateComment(t.Context(), repo, p.Number, "once"); !errors.Is(err, forge.ErrUnavailable) || faulty.Requests() != before+1 {
		t.Errorf("a comment whose answer is lost: %v, %d requests", err, faulty.Requests()-before)
	}
	faulty.Fail(1, http.StatusTooManyRequests, map[string]string{"Retry-After": "0"})
	if _, _, err := forge.PutComment(t.Context(), f, repo, p.Number, "preview", "Plan"); err != nil {
		t.Errorf("a comment when there are too many requests: %v", err)
	}

	faulty.Expire()
	if _, err := f.PullRequest(t.Context(), repo, p.Number); !errors.Is(err, forge.ErrUnauthorized) {
		t.Errorf("an expired token: %v", err)
	}

	// Nobody waits for an hour; and nothing is asked meanwhile.
	faulty.Fail(1, http.StatusForbidden, map[string]string{"Retry-After": "3600", "X-RateLimit-Remaining": "0"})
	before = faulty.Requests()
	for range 3 {
		_, err := f.PullRequest(t.Context(), repo, p.Number)
		var e *forge.APIError
		if !errors.As(err, &e) || !errors.Is(err, forge.ErrLimited) || !e.Temporary() || time.Until(e.Until) < 50*time.Minute {
			t.Errorf("a rate limit of an hour: %v", err)
		}
	}
	if n := faulty.Requests() - before; n != 1 {
		t.Errorf("%d requests were sent beyond the limit, want 1", n)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.OpenPullRequests(ctx, repo); err == nil {
		t.Error("a context that has ended changes nothing")
	}
}

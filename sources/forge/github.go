package forge

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// gitHub speaks version 3 of GitHub's REST API; see docs.github.com/rest.
type gitHub struct{ *client }

func newGitHub(c *client) *gitHub {
	api := *c.base
	if api.Host == "github.com" || strings.HasSuffix(api.Host, ".ghe.com") {
		api.Host = "api." + api.Host
	} else {
		api.Path += "/api/v3"
	}
	c.api = &api
	return &gitHub{c}
}

// Limits implements Forge.
func (*gitHub) Limits() Limits { return Limits{Comment: 65536, Description: 140} }

// hubPull is a pull request of GitHub and Gitea.
type hubPull struct {
	Number      int       `json:"number"`
	Title       string    `json:"title"`
	User        hubUser   `json:"user"`
	URL         string    `json:"html_url"`
	State       string    `json:"state"`
	Draft       bool      `json:"draft"`
	Merged      bool      `json:"merged"`
	MergedAt    string    `json:"merged_at"`
	MergeCommit string    `json:"merge_commit_sha"`
	Head        hubBranch `json:"head"`
	Base        hubBranch `json:"base"`
	Updated     string    `json:"updated_at"`
}

type hubUser struct {
	Login string `json:"login"`
}

type hubBranch struct {
	Ref  string   `json:"ref"`
	SHA  string   `json:"sha"`
	Repo *hubRepo `json:"repo"`
}

type hubRepo struct {
	FullName string `json:"full_name"`
	CloneURL string `json:"clone_url"`
	SSHURL   string `json:"ssh_url"`
	URL      string `json:"html_url"`
}

func (r *hubRepo) repository() Repository {
	if r == nil {
		return Repository{}
	}
	return Repository{Path: r.FullName, URLs: present(r.CloneURL, r.SSHURL, r.URL)}
}

// present are those of values that are not empty.
func present(values ...string) []string {
	var out []string
	for _, v := range values {
		if v != "" {
			out = append(out, v)
		}
	}
	return out
}

func (b hubBranch) branch() Branch {
	return Branch{Repository: b.Repo.repository(), Name: b.Ref, Commit: b.SHA}
}

func (p hubPull) pullRequest() PullRequest {
	out := PullRequest{
		Number: p.Number, Title: p.Title, Author: p.User.Login, URL: p.URL, State: Open, Draft: p.Draft,
		Head: p.Head.branch(), Base: p.Base.branch(), HeadRef: "refs/pull/" + strconv.Itoa(p.Number) + "/head", Updated: timeOf(p.Updated),
	}
	switch {
	case p.Merged || p.MergedAt != "":
		out.State, out.MergeCommit = Merged, p.MergeCommit
	case p.State != "open":
		out.State = Closed
	}
	out.Fork = out.Head.Repository.Path == "" || out.Head.Repository.Path != out.Base.Repository.Path
	return out
}

// timeOf reads a time of an API; zero where there is none.
func timeOf(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

func (g *gitHub) pull(p hubPull) PullRequest {
	out := p.pullRequest()
	out.MergeRef = "refs/pull/" + strconv.Itoa(p.Number) + "/merge"
	return out
}

// PullRequest implements Forge.
func (g *gitHub) PullRequest(ctx context.Context, repo string, number int) (PullRequest, error) {
	var p hubPull
	_, err := g.get(ctx, repo, fmt.Sprintf("/repos/%s/pulls/%d", escape(repo), number), nil, &p)
	if err != nil {
		return PullRequest{}, err
	}
	return g.pull(p), nil
}

// OpenPullRequests implements Forge.
func (g *gitHub) OpenPullRequests(ctx context.Context, repo string) ([]PullRequest, error) {
	var out []PullRequest
	err := g.pages(ctx, repo, "/repos/"+escape(repo)+"/pulls", url.Values{"state": {"open"}, "sort": {"updated"}, "direction": {"desc"}}, func() (any, func() int) {
		var page []hubPull
		return &page, func() int {
			for _, p := range page {
				out = append(out, g.pull(p))
			}
			return len(page)
		}
	})
	return out, err
}

// pages reads a list page by page until one is not full. next returns what a page is decoded into, and what takes it
// over and says how much was in it.
func (c *client) pages(ctx context.Context, repo, path string, query url.Values, next func() (any, func() int)) error {
	if query == nil {
		query = url.Values{}
	}
	query.Set("per_page", strconv.Itoa(pageSize))
	for n := 1; n <= maxPages; n++ {
		query.Set("page", strconv.Itoa(n))
		page, take := next()
		if _, err := c.get(ctx, repo, path, query, page); err != nil {
			return err
		}
		if take() < pageSize {
			break
		}
	}
	return nil
}

// hubComment is a comment of GitHub and Gitea.
type hubComment struct {
	ID   int64   `json:"id"`
	Body string  `json:"body"`
	User hubUser `json:"user"`
	URL  string  `json:"html_url"`
}

func (c hubComment) comment() Comment {
	return Comment{ID: strconv.FormatInt(c.ID, 10), Author: c.User.Login, Body: c.Body, URL: c.URL}
}

// Comments implements Forge.
func (g *gitHub) Comments(ctx context.Context, repo string, number int) ([]Comment, error) {
	var out []Comment
	err := g.pages(ctx, repo, fmt.Sprintf("/repos/%s/issues/%d/comments", escape(repo), number), nil, func() (any, func() int) {
		var page []hubComment
		return &page, func() int {
			for _, c := range page {
				out = append(out, c.comment())
			}
			return len(page)
		}
	})
	return out, err
}

// CreateComment implements Forge.
func (g *gitHub) CreateComment(ctx context.Context, repo string, number int, body string) (Comment, error) {
	return createHubComment(ctx, g.client, repo, number, body)
}

func createHubComment(ctx context.Context, c *client, repo string, number int, body string) (Comment, error) {
	var made hubComment
	_, err := c.do(ctx, call{
		method: http.MethodPost, path: fmt.Sprintf("/repos/%s/issues/%d/comments", escape(repo), number),
		body: map[string]string{"body": body}, repo: repo, once: true,
	}, &made)
	return made.comment(), err
}

// EditComment implements Forge.
func (g *gitHub) EditComment(ctx context.Context, repo string, _ int, c Comment, body string) (Comment, error) {
	return editHubComment(ctx, g.client, repo, c, body)
}

func editHubComment(ctx context.Context, c *client, repo string, of Comment, body string) (Comment, error) {
	var edited hubComment
	_, err := c.do(ctx, call{
		method: http.MethodPatch, path: "/repos/" + escape(repo) + "/issues/comments/" + url.PathEscape(of.ID),
		body: map[string]string{"body": body}, repo: repo,
	}, &edited)
	return edited.comment(), err
}

// Self implements Forge. What an app writes is by its name with [bot].
func (g *gitHub) Self(ctx context.Context, repo string) (string, error) {
	return g.ownAccount(func() (string, error) {
		app, ok := g.auth.(*appAuth)
		if !ok {
			var user hubUser
			_, err := g.get(ctx, repo, "/user", nil, &user)
			return user.Login, err
		}
		jwt, err := app.jwt(time.Now())
		if err != nil {
			return "", err
		}
		var found struct {
			Slug string `json:"slug"`
		}
		_, err = g.do(ctx, call{method: http.MethodGet, path: "/app", bare: "Bearer " + jwt}, &found)
		return found.Slug + "[bot]", err
	})
}

// hubStatus is a status of GitHub and Gitea, which calls its state status.
type hubStatus struct {
	Context     string `json:"context"`
	State       State  `json:"state,omitempty"`
	GiteaState  State  `json:"status,omitempty"`
	Description string `json:"description"`
	URL         string `json:"target_url"`
}

// Status implements Forge.
func (g *gitHub) Status(ctx context.Context, repo, commit, name string) (found Status, ok bool, err error) {
	err = g.pages(ctx, repo, fmt.Sprintf("/repos/%s/commits/%s/status", escape(repo), url.PathEscape(commit)), nil, func() (any, func() int) {
		var page struct {
			Statuses []hubStatus `json:"statuses"`
		}
		return &page, func() int {
			for _, s := range page.Statuses {
				if s.Context == name {
					found, ok = Status{Context: s.Context, State: s.State, Description: s.Description, URL: s.URL}, true
					return 0
				}
			}
			return len(page.Statuses)
		}
	})
	return found, ok, err
}

// SetStatus implements Forge.
func (g *gitHub) SetStatus(ctx context.Context, repo, commit string, s Status) (bool, error) {
	return change(ctx, g, repo, commit, s, func(s Status) Status { return s }, func(s Status) error {
		return postHubStatus(ctx, g.client, repo, commit, s)
	})
}

func postHubStatus(ctx context.Context, c *client, repo, commit string, s Status) error {
	_, err := c.do(ctx, call{
		method: http.MethodPost, path: fmt.Sprintf("/repos/%s/statuses/%s", escape(repo), url.PathEscape(commit)),
		body: hubStatus{Context: s.Context, State: s.State, Description: s.Description, URL: s.URL}, repo: repo,
	}, nil)
	return err
}

// React implements Reactor.
func (g *gitHub) React(ctx context.Context, repo string, _ int, c Comment, r Reaction) error {
	return reactHub(ctx, g.client, repo, c, r)
}

func reactHub(ctx context.Context, c *client, repo string, of Comment, r Reaction) error {
	_, err := c.do(ctx, call{
		method: http.MethodPost, path: "/repos/" + escape(repo) + "/issues/comments/" + url.PathEscape(of.ID) + "/reactions",
		body: map[string]string{"content": string(r)}, repo: repo,
	}, nil)
	return err
}

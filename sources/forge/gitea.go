package forge

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// gitea speaks the API of Gitea and Forgejo, which is like GitHub's in most of what is needed here.
type gitea struct{ *client }

func newGitea(c *client) *gitea {
	api := *c.base
	api.Path += "/api/v1"
	c.api = &api
	return &gitea{c}
}

// Limits implements Forge. Both keep comments of any size; a megabyte is more than browsers like.
func (*gitea) Limits() Limits { return Limits{Comment: 250_000, Description: 255} }

// PullRequest implements Forge.
func (g *gitea) PullRequest(ctx context.Context, repo string, number int) (PullRequest, error) {
	var p hubPull
	if _, err := g.get(ctx, repo, fmt.Sprintf("/repos/%s/pulls/%d", escape(repo), number), nil, &p); err != nil {
		return PullRequest{}, err
	}
	return p.pullRequest(), nil
}

// OpenPullRequests implements Forge.
func (g *gitea) OpenPullRequests(ctx context.Context, repo string) ([]PullRequest, error) {
	var out []PullRequest
	query := url.Values{"state": {"open"}, "sort": {"recentupdate"}, "limit": {"50"}}
	for n := 1; n <= 2*maxPages; n++ {
		query.Set("page", strconv.Itoa(n))
		var page []hubPull
		h, err := g.get(ctx, repo, "/repos/"+escape(repo)+"/pulls", query, &page)
		if err != nil {
			return nil, err
		}
		for _, p := range page {
			out = append(out, p.pullRequest())
		}
		// The server may give fewer a page than it was asked for.
		if len(page) == 0 || !strings.Contains(h.Get("Link"), `rel="next"`) {
			break
		}
	}
	return out, nil
}

// Comments implements Forge. The list has no pages.
func (g *gitea) Comments(ctx context.Context, repo string, number int) ([]Comment, error) {
	var all []hubComment
	if _, err := g.get(ctx, repo, fmt.Sprintf("/repos/%s/issues/%d/comments", escape(repo), number), nil, &all); err != nil {
		return nil, err
	}
	var out []Comment
	for _, c := range all[:min(len(all), maxPages*pageSize)] {
		out = append(out, c.comment())
	}
	return out, nil
}

// CreateComment implements Forge.
func (g *gitea) CreateComment(ctx context.Context, repo string, number int, body string) (Comment, error) {
	return createHubComment(ctx, g.client, repo, number, body)
}

// EditComment implements Forge.
func (g *gitea) EditComment(ctx context.Context, repo string, _ int, c Comment, body string) (Comment, error) {
	return editHubComment(ctx, g.client, repo, c, body)
}

// Self implements Forge.
func (g *gitea) Self(ctx context.Context, repo string) (string, error) {
	return g.ownAccount(func() (string, error) {
		var user hubUser
		_, err := g.get(ctx, repo, "/user", nil, &user)
		return user.Login, err
	})
}

// Status implements Forge.
func (g *gitea) Status(ctx context.Context, repo, commit, name string) (Status, bool, error) {
	query := url.Values{"limit": {"50"}}
	for n := 1; n <= 2*maxPages; n++ {
		query.Set("page", strconv.Itoa(n))
		var page struct {
			Statuses []hubStatus `json:"statuses"`
		}
		if _, err := g.get(ctx, repo, fmt.Sprintf("/repos/%s/commits/%s/status", escape(repo), url.PathEscape(commit)), query, &page); err != nil {
			return Status{}, false, err
		}
		if len(page.Statuses) == 0 {
			break
		}
		for _, s := range page.Statuses {
			if s.Context == name {
				return Status{Context: s.Context, State: s.GiteaState, Description: s.Description, URL: s.URL}, true, nil
			}
		}
	}
	return Status{}, false, nil
}

// SetStatus implements Forge.
func (g *gitea) SetStatus(ctx context.Context, repo, commit string, s Status) (bool, error) {
	return change(ctx, g, repo, commit, s, func(s Status) Status { return s }, func(s Status) error {
		return postHubStatus(ctx, g.client, repo, commit, s)
	})
}

// React implements Reactor.
func (g *gitea) React(ctx context.Context, repo string, _ int, c Comment, r Reaction) error {
	return reactHub(ctx, g.client, repo, c, r)
}

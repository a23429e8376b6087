package forge

import (
	"context"
	"fmt"
	"net/http"
)

// Proposal is a pull request to be opened, from a branch of the same repository.
type Proposal struct {
	Head, Base  string
	Title, Body string
}

// proposer is a Forge that opens pull requests.
type proposer interface {
	// open opens a pull request and returns what it is then.
	open(ctx context.Context, repo string, p Proposal) (PullRequest, error)
	// revise replaces title and description of one.
	revise(ctx context.Context, repo string, number int, p Proposal) error
}

// Propose opens a pull request, or brings title and description of the open one between the two branches up to date,
// and returns its URL.
func Propose(ctx context.Context, f Forge, repo string, p Proposal) (url string, err error) {
	opens, ok := f.(proposer)
	if !ok {
		return "", fmt.Errorf("%s opens no pull requests", f.Kind())
	}
	all, err := f.OpenPullRequests(ctx, repo)
	if err != nil {
		return "", err
	}
	for _, pr := range all {
		if pr.Head.Name == p.Head && pr.Base.Name == p.Base && !pr.Fork {
			return pr.URL, opens.revise(ctx, repo, pr.Number, p)
		}
	}
	pr, err := opens.open(ctx, repo, p)
	return pr.URL, err
}

func openHub(ctx context.Context, c *client, repo string, p Proposal) (PullRequest, error) {
	var made hubPull
	_, err := c.do(ctx, call{
		method: http.MethodPost, path: "/repos/" + escape(repo) + "/pulls", repo: repo, once: true,
		body: map[string]string{"title": p.Title, "body": p.Body, "head": p.Head, "base": p.Base},
	}, &made)
	return made.pullRequest(), err
}

func reviseHub(ctx context.Context, c *client, repo string, number int, p Proposal) error {
	_, err := c.do(ctx, call{
		method: http.MethodPatch, path: fmt.Sprintf("/repos/%s/pulls/%d", escape(repo), number), repo: repo,
		body: map[string]string{"title": p.Title, "body": p.Body},
	}, nil)
	return err
}

func (g *gitHub) open(ctx context.Context, repo string, p Proposal) (PullRequest, error) {
	return openHub(ctx, g.client, repo, p)
}

func (g *gitHub) revise(ctx context.Context, repo string, number int, p Proposal) error {
	return reviseHub(ctx, g.client, repo, number, p)
}

func (g *gitea) open(ctx context.Context, repo string, p Proposal) (PullRequest, error) {
	return openHub(ctx, g.client, repo, p)
}

func (g *gitea) revise(ctx context.Context, repo string, number int, p Proposal) error {
	return reviseHub(ctx, g.client, repo, number, p)
}

func (g *gitLab) open(ctx context.Context, repo string, p Proposal) (PullRequest, error) {
	var made labMerge
	_, err := g.do(ctx, call{
		method: http.MethodPost, path: g.project(repo) + "/merge_requests", repo: repo, once: true,
		body: map[string]string{"title": p.Title, "description": p.Body, "source_branch": p.Head, "target_branch": p.Base},
	}, &made)
	return g.merge(repo, made), err
}

func (g *gitLab) revise(ctx context.Context, repo string, number int, p Proposal) error {
	_, err := g.do(ctx, call{
		method: http.MethodPut, path: fmt.Sprintf("%s/merge_requests/%d", g.project(repo), number), repo: repo,
		body: map[string]string{"title": p.Title, "description": p.Body},
	}, nil)
	return err
}

func (b *bitbucket) open(ctx context.Context, repo string, p Proposal) (PullRequest, error) {
	branch := func(name string) any { return map[string]any{"branch": map[string]string{"name": name}} }
	var made bucketPull
	_, err := b.do(ctx, call{
		method: http.MethodPost, path: "/repositories/" + escape(repo) + "/pullrequests", repo: repo, once: true,
		body: map[string]any{"title": p.Title, "description": p.Body, "source": branch(p.Head), "destination": branch(p.Base)},
	}, &made)
	return made.pullRequest(), err
}

func (b *bitbucket) revise(ctx context.Context, repo string, number int, p Proposal) error {
	_, err := b.do(ctx, call{
		method: http.MethodPut, path: fmt.Sprintf("/repositories/%s/pullrequests/%d", escape(repo), number), repo: repo,
		body: map[string]string{"title": p.Title, "description": p.Body},
	}, nil)
	return err
}

func (b *bitbucketDC) open(ctx context.Context, repo string, p Proposal) (PullRequest, error) {
	ref := func(name string) any { return map[string]string{"id": "refs/heads/" + name} }
	var made dcPull
	_, err := b.do(ctx, call{
		method: http.MethodPost, path: b.at(repo) + "/pull-requests", repo: repo, once: true,
		body: map[string]any{"title": p.Title, "description": p.Body, "fromRef": ref(p.Head), "toRef": ref(p.Base)},
	}, &made)
	return made.pullRequest(), err
}

// revise leaves reviewers as they are, which the service takes for removed when they are not sent.
func (b *bitbucketDC) revise(ctx context.Context, repo string, number int, p Proposal) error {
	path := fmt.Sprintf("%s/pull-requests/%d", b.at(repo), number)
	var now struct {
		Version   int   `json:"version"`
		Reviewers []any `json:"reviewers"`
	}
	if _, err := b.get(ctx, repo, path, nil, &now); err != nil {
		return err
	}
	_, err := b.do(ctx, call{method: http.MethodPut, path: path, repo: repo, body: map[string]any{
		"version": now.Version, "reviewers": now.Reviewers, "title": p.Title, "description": p.Body,
	}}, nil)
	return err
}

func (a *azureDevOps) open(ctx context.Context, repo string, p Proposal) (PullRequest, error) {
	var made azurePull
	err := a.ask(ctx, call{method: http.MethodPost, repo: repo, once: true, body: map[string]string{
		"title": p.Title, "description": p.Body, "sourceRefName": "refs/heads/" + p.Head, "targetRefName": "refs/heads/" + p.Base,
	}}, "/pullrequests", nil, &made)
	return made.pullRequest(repo), err
}

func (a *azureDevOps) revise(ctx context.Context, repo string, number int, p Proposal) error {
	return a.ask(ctx, call{method: http.MethodPatch, repo: repo, body: map[string]string{"title": p.Title, "description": p.Body}}, fmt.Sprintf("/pullrequests/%d", number), nil, nil)
}

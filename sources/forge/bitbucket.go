package forge

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// bitbucket speaks version 2.0 of Bitbucket Cloud's REST API; see developer.atlassian.com/cloud/bitbucket/rest.
// Accounts are named by their UUIDs: names are chosen by people, and change.
type bitbucket struct{ *client }

func newBitbucket(c *client) *bitbucket {
	api := *c.base
	if api.Host == "bitbucket.org" {
		api.Host = "api.bitbucket.org"
	}
	api.Path += "/2.0"
	c.api = &api
	return &bitbucket{c}
}

// Limits implements Forge.
func (*bitbucket) Limits() Limits { return Limits{Comment: 32768, Description: 255} }

// maxStatusKey is the longest key of a status.
const maxStatusKey = 40

type bucketPull struct {
	ID          int          `json:"id"`
	Title       string       `json:"title"`
	Author      bucketUser   `json:"author"`
	Links       bucketLinks  `json:"links"`
	State       string       `json:"state"`
	Draft       bool         `json:"draft"`
	Source      bucketBranch `json:"source"`
	Destination bucketBranch `json:"destination"`
	MergeCommit struct {
		Hash string `json:"hash"`
	} `json:"merge_commit"`
	Updated string `json:"updated_on"`
}

type bucketUser struct {
	UUID string `json:"uuid"`
}

type bucketLinks struct {
	HTML struct {
		Href string `json:"href"`
	} `json:"html"`
}

type bucketBranch struct {
	Branch struct {
		Name string `json:"name"`
	} `json:"branch"`
	Commit struct {
		Hash string `json:"hash"`
	} `json:"commit"`
	Repository *struct {
		FullName string      `json:"full_name"`
		Links    bucketLinks `json:"links"`
	} `json:"repository"`
}

func (b bucketBranch) branch() Branch {
	out := Branch{Name: b.Branch.Name, Commit: b.Commit.Hash}
	if b.Repository != nil {
		out.Repository = Repository{Path: b.Repository.FullName, URLs: present(b.Repository.Links.HTML.Href)}
	}
	return out
}

func (p bucketPull) pullRequest() PullRequest {
	out := PullRequest{
		Number: p.ID, Title: p.Title, Author: p.Author.UUID, URL: p.Links.HTML.Href, State: Closed, Draft: p.Draft,
		Head: p.Source.branch(), Base: p.Destination.branch(), Updated: timeOf(p.Updated),
	}
	switch p.State {
	case "OPEN":
		out.State = Open
	case "MERGED":
		out.State, out.MergeCommit = Merged, p.MergeCommit.Hash
	}
	out.Fork = out.Head.Repository.Path == "" || out.Head.Repository.Path != out.Base.Repository.Path
	return out
}

// PullRequest implements Forge. Pull requests have abbreviated commits, so the whole ones are asked for.
func (b *bitbucket) PullRequest(ctx context.Context, repo string, number int) (PullRequest, error) {
	var p bucketPull
	if _, err := b.get(ctx, repo, fmt.Sprintf("/repositories/%s/pullrequests/%d", escape(repo), number), nil, &p); err != nil {
		return PullRequest{}, err
	}
	out := p.pullRequest()
	from := out.Head.Repository.Path
	if from == "" {
		from = repo
	}
	for _, c := range []struct {
		repo   string
		commit *string
	}{{from, &out.Head.Commit}, {repo, &out.Base.Commit}, {repo, &out.MergeCommit}} {
		full, err := b.full(ctx, c.repo, *c.commit)
		if err != nil {
			return PullRequest{}, err
		}
		*c.commit = full
	}
	return out, nil
}

// full returns the whole name of a commit. One that cannot be seen stays as it is.
func (b *bitbucket) full(ctx context.Context, repo, commit string) (string, error) {
	if commit == "" || len(commit) >= 40 {
		return commit, nil
	}
	var found struct {
		Hash string `json:"hash"`
	}
	_, err := b.get(ctx, repo, "/repositories/"+escape(repo)+"/commit/"+url.PathEscape(commit), nil, &found)
	if err == nil && found.Hash != "" {
		return found.Hash, nil
	}
	return commit, ignoreNotFound(err)
}

// bucketPages reads a list. The next page is at a URL that the service gives.
func bucketPages[T any](ctx context.Context, b *bitbucket, repo, path string, query url.Values, each func(T) (more bool)) error {
	query.Set("pagelen", strconv.Itoa(pageSize/2)) // the most that pull requests have
	next := ""
	for n := 1; n <= 2*maxPages; n++ {
		var page struct {
			Values []T    `json:"values"`
			Next   string `json:"next"`
		}
		if _, err := b.do(ctx, call{method: http.MethodGet, path: path, query: query, url: next, repo: repo}, &page); err != nil {
			return err
		}
		for _, v := range page.Values {
			if !each(v) {
				return nil
			}
		}
		if next = page.Next; next == "" {
			break
		}
	}
	return nil
}

// OpenPullRequests implements Forge.
func (b *bitbucket) OpenPullRequests(ctx context.Context, repo string) ([]PullRequest, error) {
	var out []PullRequest
	err := bucketPages(ctx, b, repo, "/repositories/"+escape(repo)+"/pullrequests", url.Values{"state": {"OPEN"}, "sort": {"-updated_on"}}, func(p bucketPull) bool {
		out = append(out, p.pullRequest())
		return true
	})
	return out, err
}

type bucketComment struct {
	ID      int64 `json:"id"`
	Content struct {
		Raw string `json:"raw"`
	} `json:"content"`
	User    bucketUser  `json:"user"`
	Links   bucketLinks `json:"links"`
	Deleted bool        `json:"deleted"`
}

func (c bucketComment) comment() Comment {
	return Comment{ID: strconv.FormatInt(c.ID, 10), Author: c.User.UUID, Body: c.Content.Raw, URL: c.Links.HTML.Href}
}

func (b *bitbucket) comments(repo string, number int) string {
	return fmt.Sprintf("/repositories/%s/pullrequests/%d/comments", escape(repo), number)
}

// Comments implements Forge.
func (b *bitbucket) Comments(ctx context.Context, repo string, number int) ([]Comment, error) {
	var out []Comment
	err := bucketPages(ctx, b, repo, b.comments(repo, number), url.Values{"sort": {"created_on"}}, func(c bucketComment) bool {
		if !c.Deleted {
			out = append(out, c.comment())
		}
		return true
	})
	return out, err
}

func (b *bitbucket) sendComment(ctx context.Context, c call, body string) (Comment, error) {
	c.body = map[string]any{"content": map[string]string{"raw": body}}
	var sent bucketComment
	_, err := b.do(ctx, c, &sent)
	return sent.comment(), err
}

// CreateComment implements Forge.
func (b *bitbucket) CreateComment(ctx context.Context, repo string, number int, body string) (Comment, error) {
	return b.sendComment(ctx, call{method: http.MethodPost, path: b.comments(repo, number), repo: repo, once: true}, body)
}

// EditComment implements Forge.
func (b *bitbucket) EditComment(ctx context.Context, repo string, number int, c Comment, body string) (Comment, error) {
	return b.sendComment(ctx, call{method: http.MethodPut, path: b.comments(repo, number) + "/" + url.PathEscape(c.ID), repo: repo}, body)
}

// Self implements Forge. An access token of a repository, project or workspace may not ask: set account then.
func (b *bitbucket) Self(ctx context.Context, repo string) (string, error) {
	return b.ownAccount(func() (string, error) {
		var user bucketUser
		_, err := b.get(ctx, repo, "/user", nil, &user)
		return user.UUID, err
	})
}

// buildStatus is a status of Bitbucket, Cloud and Server.
type buildStatus struct {
	Key         string `json:"key"`
	Name        string `json:"name"`
	State       string `json:"state"`
	Description string `json:"description"`
	URL         string `json:"url"`
}

func (s buildStatus) status(name string) Status {
	out := Status{Context: name, State: Failure, Description: s.Description, URL: s.URL}
	switch s.State {
	case "INPROGRESS":
		out.State = Pending
	case "SUCCESSFUL":
		out.State = Success
	}
	return out
}

func buildStatusOf(s Status, keyLimit int) buildStatus {
	state := map[State]string{Pending: "INPROGRESS", Success: "SUCCESSFUL", Failure: "FAILED", Error: "FAILED"}[s.State]
	return buildStatus{Key: statusKey(s.Context, keyLimit), Name: s.Context, State: state, Description: s.Description, URL: s.URL}
}

func (b *bitbucket) statuses(repo, commit string) string {
	return "/repositories/" + escape(repo) + "/commit/" + url.PathEscape(commit) + "/statuses/build"
}

// Status implements Forge.
func (b *bitbucket) Status(ctx context.Context, repo, commit, name string) (Status, bool, error) {
	var s buildStatus
	_, err := b.get(ctx, repo, b.statuses(repo, commit)+"/"+url.PathEscape(statusKey(name, maxStatusKey)), nil, &s)
	if err != nil {
		return Status{}, false, ignoreNotFound(err)
	}
	return s.status(name), true, nil
}

// SetStatus implements Forge. A status must have a URL; without one it is that of the commit.
func (b *bitbucket) SetStatus(ctx context.Context, repo, commit string, s Status) (bool, error) {
	same := func(s Status) Status {
		if s.URL == "" {
			s.URL = b.base.String() + "/" + escape(repo) + "/commits/" + url.PathEscape(commit)
		}
		return withoutError(s)
	}
	return change(ctx, b, repo, commit, s, same, func(s Status) error {
		_, err := b.do(ctx, call{method: http.MethodPost, path: b.statuses(repo, commit), body: buildStatusOf(s, maxStatusKey), repo: repo}, nil)
		return err
	})
}

// milliseconds is a time of Bitbucket Server.
func milliseconds(n int64) time.Time {
	if n <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(n)
}

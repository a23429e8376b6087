package forge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// bitbucketDC speaks the REST API of Bitbucket Server and Data Center, from 7.4 on; see
// developer.atlassian.com/server/bitbucket/rest.
type bitbucketDC struct{ *client }

func newBitbucketServer(c *client) *bitbucketDC {
	api := *c.base
	api.Path += "/rest/api/1.0"
	c.api = &api
	return &bitbucketDC{c}
}

// Limits implements Forge.
func (*bitbucketDC) Limits() Limits { return Limits{Comment: 32768, Description: 255} }

type dcPull struct {
	ID     int    `json:"id"`
	Title  string `json:"title"`
	Author struct {
		User dcUser `json:"user"`
	} `json:"author"`
	Links      dcLinks `json:"links"`
	State      string  `json:"state"`
	Draft      bool    `json:"draft"`
	From       dcRef   `json:"fromRef"`
	To         dcRef   `json:"toRef"`
	Updated    int64   `json:"updatedDate"`
	Properties struct {
		MergeCommit struct {
			ID string `json:"id"`
		} `json:"mergeCommit"`
	} `json:"properties"`
}

type dcUser struct {
	Name string `json:"name"`
}

type dcLink struct {
	Href string `json:"href"`
}

// dcLinks may hold null where there is no link.
type dcLinks struct {
	Self  []*dcLink `json:"self"`
	Clone []*dcLink `json:"clone"`
}

func (l dcLinks) urls() []string {
	var out []string
	for _, links := range [][]*dcLink{l.Clone, l.Self} {
		for _, link := range links {
			if link != nil && link.Href != "" {
				out = append(out, link.Href)
			}
		}
	}
	return out
}

func (l dcLinks) self() string {
	if len(l.Self) > 0 && l.Self[0] != nil {
		return l.Self[0].Href
	}
	return ""
}

type dcRef struct {
	ID           string `json:"id"`
	DisplayID    string `json:"displayId"`
	LatestCommit string `json:"latestCommit"`
	Repository   dcRepo `json:"repository"`
}

type dcRepo struct {
	Slug    string `json:"slug"`
	Project struct {
		Key string `json:"key"`
	} `json:"project"`
	Links dcLinks `json:"links"`
}

func (r dcRepo) repository() Repository {
	if r.Slug == "" || r.Project.Key == "" {
		return Repository{}
	}
	return Repository{Path: r.Project.Key + "/" + r.Slug, URLs: r.Links.urls()}
}

func (p dcPull) pullRequest() PullRequest {
	branch := func(r dcRef) Branch {
		return Branch{Repository: r.Repository.repository(), Name: strings.TrimPrefix(r.ID, "refs/heads/"), Commit: r.LatestCommit}
	}
	ref := "refs/pull-requests/" + strconv.Itoa(p.ID)
	out := PullRequest{
		Number: p.ID, Title: p.Title, Author: p.Author.User.Name, URL: p.Links.self(), State: Closed, Draft: p.Draft,
		Head: branch(p.From), Base: branch(p.To), HeadRef: ref + "/from", MergeRef: ref + "/merge", Updated: milliseconds(p.Updated),
	}
	switch p.State {
	case "OPEN":
		out.State = Open
	case "MERGED":
		out.State, out.MergeCommit = Merged, p.Properties.MergeCommit.ID
	}
	out.Fork = out.Head.Repository.Path == "" || out.Head.Repository.Path != out.Base.Repository.Path
	return out
}

// at is the path of a repository: projects/KEY/repos/name, and for a person's own ~name in place of the key.
func (b *bitbucketDC) at(repo string) string {
	project, name, _ := strings.Cut(repo, "/")
	return "/projects/" + escape(project) + "/repos/" + escape(name)
}

// PullRequest implements Forge.
func (b *bitbucketDC) PullRequest(ctx context.Context, repo string, number int) (PullRequest, error) {
	var p dcPull
	if _, err := b.get(ctx, repo, fmt.Sprintf("%s/pull-requests/%d", b.at(repo), number), nil, &p); err != nil {
		return PullRequest{}, err
	}
	return p.pullRequest(), nil
}

// dcPages reads a list. A page says where the next one begins.
func dcPages[T any](ctx context.Context, b *bitbucketDC, repo, path string, query url.Values, each func(T)) error {
	query.Set("limit", strconv.Itoa(pageSize))
	for n := 1; n <= maxPages; n++ {
		var page struct {
			Values []T  `json:"values"`
			Last   bool `json:"isLastPage"`
			Next   *int `json:"nextPageStart"`
		}
		if _, err := b.get(ctx, repo, path, query, &page); err != nil {
			return err
		}
		for _, v := range page.Values {
			each(v)
		}
		if page.Last || page.Next == nil {
			break
		}
		query.Set("start", strconv.Itoa(*page.Next))
	}
	return nil
}

// OpenPullRequests implements Forge.
func (b *bitbucketDC) OpenPullRequests(ctx context.Context, repo string) ([]PullRequest, error) {
	var out []PullRequest
	err := dcPages(ctx, b, repo, b.at(repo)+"/pull-requests", url.Values{"state": {"OPEN"}, "order": {"NEWEST"}}, func(p dcPull) {
		out = append(out, p.pullRequest())
	})
	return out, err
}

type dcComment struct {
	ID      int64  `json:"id"`
	Version int    `json:"version"`
	Text    string `json:"text"`
	Author  dcUser `json:"author"`
}

func (c dcComment) comment() Comment {
	return Comment{ID: strconv.FormatInt(c.ID, 10), Author: c.Author.Name, Body: c.Text, version: c.Version}
}

// Comments implements Forge. They are among the activities, newest first.
func (b *bitbucketDC) Comments(ctx context.Context, repo string, number int) ([]Comment, error) {
	var out []Comment
	err := dcPages(ctx, b, repo, fmt.Sprintf("%s/pull-requests/%d/activities", b.at(repo), number), url.Values{}, func(a struct {
		Action  string     `json:"action"`
		Comment *dcComment `json:"comment"`
	}) {
		if a.Action == "COMMENTED" && a.Comment != nil {
			out = append(out, a.Comment.comment())
		}
	})
	// An edited comment may be there twice, each time as it is now.
	seen, first := map[string]bool{}, make([]Comment, 0, len(out))
	for i := len(out) - 1; i >= 0; i-- {
		if !seen[out[i].ID] {
			seen[out[i].ID] = true
			first = append(first, out[i])
		}
	}
	return first, err
}

func (b *bitbucketDC) comments(repo string, number int) string {
	return fmt.Sprintf("%s/pull-requests/%d/comments", b.at(repo), number)
}

// CreateComment implements Forge.
func (b *bitbucketDC) CreateComment(ctx context.Context, repo string, number int, body string) (Comment, error) {
	var made dcComment
	_, err := b.do(ctx, call{method: http.MethodPost, path: b.comments(repo, number), body: map[string]string{"text": body}, repo: repo, once: true}, &made)
	return made.comment(), err
}

// EditComment implements Forge. The service takes a change only with the version that it changes.
func (b *bitbucketDC) EditComment(ctx context.Context, repo string, number int, c Comment, body string) (Comment, error) {
	path := b.comments(repo, number) + "/" + url.PathEscape(c.ID)
	for try := 0; ; try++ {
		var edited dcComment
		_, err := b.do(ctx, call{method: http.MethodPut, path: path, body: map[string]any{"text": body, "version": c.version}, repo: repo}, &edited)
		var e *APIError
		if err == nil || try > 0 || !errors.As(err, &e) || e.Status != http.StatusConflict {
			return edited.comment(), err
		}
		var now dcComment
		if _, err := b.get(ctx, repo, path, nil, &now); err != nil {
			return Comment{}, err
		}
		c.version = now.Version
	}
}

// Self implements Forge. Every answer names the account in a header.
func (b *bitbucketDC) Self(ctx context.Context, repo string) (string, error) {
	return b.ownAccount(func() (string, error) {
		h, err := b.get(ctx, repo, "/application-properties", nil, nil)
		if err != nil {
			return "", err
		}
		name, err := url.QueryUnescape(h.Get("X-Ausername"))
		if err != nil || name == "" {
			return "", &APIError{Forge: BitbucketServer, Method: http.MethodGet, Path: "/rest/api/1.0/application-properties", Class: ErrUnauthorized, Message: "the answer names no account"}
		}
		return name, nil
	})
}

func (b *bitbucketDC) builds(repo, commit string) string {
	return b.at(repo) + "/commits/" + url.PathEscape(commit) + "/builds"
}

// maxBuildKey is the longest key of a status of Bitbucket Server.
const maxBuildKey = 255

// Status implements Forge.
func (b *bitbucketDC) Status(ctx context.Context, repo, commit, name string) (Status, bool, error) {
	var s buildStatus
	_, err := b.get(ctx, repo, b.builds(repo, commit), url.Values{"key": {statusKey(name, maxBuildKey)}}, &s)
	if err != nil {
		return Status{}, false, ignoreNotFound(err)
	}
	return s.status(name), true, nil
}

// SetStatus implements Forge. A status must have a URL; without one it is that of the commit.
func (b *bitbucketDC) SetStatus(ctx context.Context, repo, commit string, s Status) (bool, error) {
	same := func(s Status) Status {
		if s.URL == "" {
			s.URL = b.base.String() + b.at(repo) + "/commits/" + url.PathEscape(commit)
		}
		return withoutError(s)
	}
	return change(ctx, b, repo, commit, s, same, func(s Status) error {
		_, err := b.do(ctx, call{method: http.MethodPost, path: b.builds(repo, commit), body: buildStatusOf(s, maxBuildKey), repo: repo}, nil)
		return err
	})
}

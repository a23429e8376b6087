package forge

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// gitLab speaks version 4 of GitLab's REST API; see docs.gitlab.com/api. Pull requests are merge requests there, and
// comments notes.
type gitLab struct{ *client }

func newGitLab(c *client) *gitLab {
	api := *c.base
	api.Path += "/api/v4"
	c.api = &api
	return &gitLab{c}
}

// Limits implements Forge.
func (*gitLab) Limits() Limits { return Limits{Comment: 1_000_000, Description: 255} }

type labMerge struct {
	IID    int    `json:"iid"`
	Title  string `json:"title"`
	Author struct {
		Username string `json:"username"`
	} `json:"author"`
	URL          string `json:"web_url"`
	State        string `json:"state"`
	Draft        bool   `json:"draft"`
	SourceBranch string `json:"source_branch"`
	TargetBranch string `json:"target_branch"`
	SHA          string `json:"sha"`
	DiffRefs     struct {
		Start string `json:"start_sha"`
	} `json:"diff_refs"`
	SourceProject int64  `json:"source_project_id"` // null when it was deleted
	TargetProject int64  `json:"target_project_id"`
	MergeCommit   string `json:"merge_commit_sha"`
	SquashCommit  string `json:"squash_commit_sha"`
	Updated       string `json:"updated_at"`
}

type labProject struct {
	Path    string `json:"path_with_namespace"`
	HTTPURL string `json:"http_url_to_repo"`
	SSHURL  string `json:"ssh_url_to_repo"`
	URL     string `json:"web_url"`
}

func (p labProject) repository() Repository {
	return Repository{Path: p.Path, URLs: present(p.HTTPURL, p.SSHURL, p.URL)}
}

func (g *gitLab) project(repo string) string { return "/projects/" + url.PathEscape(repo) }

func (g *gitLab) merge(repo string, m labMerge) PullRequest {
	base := Repository{Path: repo, URLs: []string{g.base.String() + "/" + repo + ".git"}}
	ref := "refs/merge-requests/" + strconv.Itoa(m.IID)
	out := PullRequest{
		Number: m.IID, Title: m.Title, Author: m.Author.Username, URL: m.URL, State: Closed, Draft: m.Draft,
		Base: Branch{Repository: base, Name: m.TargetBranch, Commit: m.DiffRefs.Start},
		Head: Branch{Name: m.SourceBranch, Commit: m.SHA},
		Fork: m.SourceProject == 0 || m.SourceProject != m.TargetProject, HeadRef: ref + "/head", MergeRef: ref + "/merge", Updated: timeOf(m.Updated),
	}
	if !out.Fork {
		out.Head.Repository = base
	}
	switch m.State {
	case "opened", "locked": // it is locked while it is merged
		out.State = Open
	case "merged":
		out.State, out.MergeCommit = Merged, m.MergeCommit
		if out.MergeCommit == "" {
			out.MergeCommit = m.SquashCommit // fast-forward
		}
	}
	return out
}

// PullRequest implements Forge.
func (g *gitLab) PullRequest(ctx context.Context, repo string, number int) (PullRequest, error) {
	var m labMerge
	if _, err := g.get(ctx, repo, fmt.Sprintf("%s/merge_requests/%d", g.project(repo), number), nil, &m); err != nil {
		return PullRequest{}, err
	}
	out := g.merge(repo, m)
	if out.Fork && m.SourceProject != 0 {
		var p labProject
		// A fork that we may not see stays without a name.
		if _, err := g.get(ctx, repo, "/projects/"+strconv.FormatInt(m.SourceProject, 10), nil, &p); err == nil {
			out.Head.Repository = p.repository()
		}
	}
	return out, nil
}

// OpenPullRequests implements Forge.
func (g *gitLab) OpenPullRequests(ctx context.Context, repo string) ([]PullRequest, error) {
	var out []PullRequest
	err := g.pages(ctx, repo, g.project(repo)+"/merge_requests", url.Values{"state": {"opened"}, "order_by": {"updated_at"}}, func() (any, func() int) {
		var page []labMerge
		return &page, func() int {
			for _, m := range page {
				out = append(out, g.merge(repo, m))
			}
			return len(page)
		}
	})
	return out, err
}

type labNote struct {
	ID     int64  `json:"id"`
	Body   string `json:"body"`
	System bool   `json:"system"`
	Author struct {
		Username string `json:"username"`
	} `json:"author"`
}

func (n labNote) comment() Comment {
	return Comment{ID: strconv.FormatInt(n.ID, 10), Author: n.Author.Username, Body: n.Body}
}

func (g *gitLab) notes(repo string, number int) string {
	return fmt.Sprintf("%s/merge_requests/%d/notes", g.project(repo), number)
}

// Comments implements Forge.
func (g *gitLab) Comments(ctx context.Context, repo string, number int) ([]Comment, error) {
	var out []Comment
	err := g.pages(ctx, repo, g.notes(repo, number), url.Values{"sort": {"asc"}, "order_by": {"created_at"}}, func() (any, func() int) {
		var page []labNote
		return &page, func() int {
			for _, n := range page {
				if !n.System {
					out = append(out, n.comment())
				}
			}
			return len(page)
		}
	})
	return out, err
}

// CreateComment implements Forge.
func (g *gitLab) CreateComment(ctx context.Context, repo string, number int, body string) (Comment, error) {
	var n labNote
	_, err := g.do(ctx, call{method: http.MethodPost, path: g.notes(repo, number), body: map[string]string{"body": body}, repo: repo, once: true}, &n)
	return n.comment(), err
}

// EditComment implements Forge.
func (g *gitLab) EditComment(ctx context.Context, repo string, number int, c Comment, body string) (Comment, error) {
	var n labNote
	_, err := g.do(ctx, call{method: http.MethodPut, path: g.notes(repo, number) + "/" + url.PathEscape(c.ID), body: map[string]string{"body": body}, repo: repo}, &n)
	return n.comment(), err
}

// Self implements Forge. A token of a project or a group has a user of its own.
func (g *gitLab) Self(ctx context.Context, repo string) (string, error) {
	return g.ownAccount(func() (string, error) {
		var user struct {
			Username string `json:"username"`
		}
		_, err := g.get(ctx, repo, "/user", nil, &user)
		return user.Username, err
	})
}

type labStatus struct {
	Name        string `json:"name"`
	State       string `json:"state,omitempty"`  // sent
	Status      string `json:"status,omitempty"` // received
	Description string `json:"description"`
	URL         string `json:"target_url,omitempty"`
}

// Status implements Forge. It is asked for by its name: a commit may have thousands.
func (g *gitLab) Status(ctx context.Context, repo, commit, name string) (Status, bool, error) {
	var all []labStatus
	path := fmt.Sprintf("%s/repository/commits/%s/statuses", g.project(repo), url.PathEscape(commit))
	if _, err := g.get(ctx, repo, path, url.Values{"name": {name}, "per_page": {strconv.Itoa(pageSize)}}, &all); err != nil {
		return Status{}, false, err
	}
	for _, s := range all {
		if s.Name != name {
			continue
		}
		out := Status{Context: name, State: Failure, Description: s.Description, URL: s.URL}
		switch s.Status {
		case "pending", "running", "created":
			out.State = Pending
		case "success":
			out.State = Success
		}
		return out, true, nil
	}
	return Status{}, false, nil
}

// SetStatus implements Forge. What is pending cannot become pending again with other words: GitLab refuses that.
func (g *gitLab) SetStatus(ctx context.Context, repo, commit string, s Status) (bool, error) {
	if s.State == Pending {
		if have, ok, err := g.Status(ctx, repo, commit, s.Context); err != nil || ok && have.State == Pending {
			return false, err
		}
	}
	return change(ctx, g, repo, commit, s, withoutError, func(s Status) error {
		state := map[State]string{Pending: "pending", Success: "success", Failure: "failed", Error: "failed"}[s.State]
		_, err := g.do(ctx, call{
			method: http.MethodPost, path: fmt.Sprintf("%s/statuses/%s", g.project(repo), url.PathEscape(commit)),
			body: labStatus{Name: s.Context, State: state, Description: s.Description, URL: s.URL}, repo: repo,
		}, nil)
		return err
	})
}

// React implements Reactor. An award that is there already is not found.
func (g *gitLab) React(ctx context.Context, repo string, number int, c Comment, r Reaction) error {
	name := string(r)
	if r == ThumbsUp {
		name = "thumbsup"
	}
	path := g.notes(repo, number) + "/" + url.PathEscape(c.ID) + "/award_emoji"
	_, err := g.do(ctx, call{method: http.MethodPost, path: path, body: map[string]string{"name": name}, repo: repo}, nil)
	return ignoreNotFound(err)
}

package forge

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// azureDevOps speaks version 7.0 of the REST API of Azure DevOps, Services and Server; see
// learn.microsoft.com/rest/api/azure/devops/git. Accounts are named by their ids.
type azureDevOps struct{ *client }

// Limits implements Forge.
func (*azureDevOps) Limits() Limits { return Limits{Comment: 150_000, Description: 256} }

type azurePull struct {
	ID        int       `json:"pullRequestId"`
	Title     string    `json:"title"`
	CreatedBy azureUser `json:"createdBy"`
	Status    string    `json:"status"`
	Draft     bool      `json:"isDraft"`
	Source    string    `json:"sourceRefName"`
	Target    string    `json:"targetRefName"`
	Created   string    `json:"creationDate"`
	Closed    string    `json:"closedDate"`
	Head      azureHash `json:"lastMergeSourceCommit"`
	Base      azureHash `json:"lastMergeTargetCommit"`
	Merge     azureHash `json:"lastMergeCommit"`
	Repo      azureRepo `json:"repository"`
	Fork      *struct {
		Repo *azureRepo `json:"repository"`
	} `json:"forkSource"`
}

type azureUser struct {
	ID string `json:"id"`
}

type azureHash struct {
	ID string `json:"commitId"`
}

type azureRepo struct {
	Name    string `json:"name"`
	Project struct {
		Name string `json:"name"`
	} `json:"project"`
	RemoteURL string `json:"remoteUrl"`
	SSHURL    string `json:"sshUrl"`
	WebURL    string `json:"webUrl"`
}

func (r azureRepo) repository(organization string) Repository {
	if r.Name == "" || r.Project.Name == "" {
		return Repository{}
	}
	return Repository{Path: organization + "/" + r.Project.Name + "/" + r.Name, URLs: present(r.RemoteURL, r.SSHURL, r.WebURL)}
}

func (p azurePull) pullRequest(repo string) PullRequest {
	organization, _, _ := strings.Cut(repo, "/")
	base := p.Repo.repository(organization)
	base.Path = repo
	out := PullRequest{
		Number: p.ID, Title: p.Title, Author: p.CreatedBy.ID, State: Closed, Draft: p.Draft, Fork: p.Fork != nil,
		Head:     Branch{Repository: base, Name: strings.TrimPrefix(p.Source, "refs/heads/"), Commit: p.Head.ID},
		Base:     Branch{Repository: base, Name: strings.TrimPrefix(p.Target, "refs/heads/"), Commit: p.Base.ID},
		MergeRef: "refs/pull/" + strconv.Itoa(p.ID) + "/merge", Updated: timeOf(p.Created),
	}
	if p.Repo.WebURL != "" {
		out.URL = p.Repo.WebURL + "/pullrequest/" + strconv.Itoa(p.ID)
	}
	if p.Fork != nil {
		out.Head.Repository = Repository{}
		if p.Fork.Repo != nil {
			out.Head.Repository = p.Fork.Repo.repository(organization)
		}
	}
	switch p.Status {
	case "active":
		out.State = Open
	case "completed":
		out.State, out.MergeCommit = Merged, p.Merge.ID
	}
	if p.Closed != "" {
		out.Updated = timeOf(p.Closed)
	}
	return out
}

// at returns the path of a repository, whose name is organization/project/name.
func (a *azureDevOps) at(repo string) (string, error) {
	parts := strings.Split(repo, "/")
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" || parts[2] == "" {
		return "", fmt.Errorf("%q is no repository of Azure DevOps: write organization/project/repository", repo)
	}
	return "/" + escape(parts[0]+"/"+parts[1]) + "/_apis/git/repositories/" + escape(parts[2]), nil
}

// ask sends a request below a repository.
func (a *azureDevOps) ask(ctx context.Context, c call, below string, query url.Values, out any) error {
	at, err := a.at(c.repo)
	if err != nil {
		return err
	}
	if query == nil {
		query = url.Values{}
	}
	query.Set("api-version", "7.0")
	c.path, c.query = at+below, query
	_, err = a.do(ctx, c, out)
	return err
}

// PullRequest implements Forge.
func (a *azureDevOps) PullRequest(ctx context.Context, repo string, number int) (PullRequest, error) {
	var p azurePull
	if err := a.ask(ctx, call{method: http.MethodGet, repo: repo}, fmt.Sprintf("/pullrequests/%d", number), nil, &p); err != nil {
		return PullRequest{}, err
	}
	return p.pullRequest(repo), nil
}

// OpenPullRequests implements Forge.
func (a *azureDevOps) OpenPullRequests(ctx context.Context, repo string) ([]PullRequest, error) {
	var out []PullRequest
	for n := range maxPages {
		var page struct {
			Value []azurePull `json:"value"`
		}
		query := url.Values{"searchCriteria.status": {"active"}, "$top": {strconv.Itoa(pageSize)}, "$skip": {strconv.Itoa(n * pageSize)}}
		if err := a.ask(ctx, call{method: http.MethodGet, repo: repo}, "/pullrequests", query, &page); err != nil {
			return nil, err
		}
		for _, p := range page.Value {
			out = append(out, p.pullRequest(repo))
		}
		if len(page.Value) < pageSize {
			break
		}
	}
	return out, nil
}

type azureComment struct {
	ID      int       `json:"id"`
	Author  azureUser `json:"author"`
	Content string    `json:"content"`
	Type    string    `json:"commentType"`
	Deleted bool      `json:"isDeleted"`
}

type azureThread struct {
	ID       int            `json:"id"`
	Deleted  bool           `json:"isDeleted"`
	Comments []azureComment `json:"comments"`
}

func (t azureThread) comment(c azureComment) Comment {
	return Comment{ID: strconv.Itoa(t.ID) + "/" + strconv.Itoa(c.ID), Author: c.Author.ID, Body: c.Content}
}

func threadsOf(number int) string { return fmt.Sprintf("/pullRequests/%d/threads", number) }

// Comments implements Forge. The list of threads has no pages.
func (a *azureDevOps) Comments(ctx context.Context, repo string, number int) ([]Comment, error) {
	var all struct {
		Value []azureThread `json:"value"`
	}
	if err := a.ask(ctx, call{method: http.MethodGet, repo: repo}, threadsOf(number), nil, &all); err != nil {
		return nil, err
	}
	var out []Comment
	for _, t := range all.Value {
		for _, c := range t.Comments {
			if !t.Deleted && !c.Deleted && c.Type != "system" && len(out) < maxPages*pageSize {
				out = append(out, t.comment(c))
			}
		}
	}
	return out, nil
}

// CreateComment implements Forge. Its thread is closed: an open one may keep a pull request from being completed.
func (a *azureDevOps) CreateComment(ctx context.Context, repo string, number int, body string) (Comment, error) {
	var t azureThread
	err := a.ask(ctx, call{method: http.MethodPost, repo: repo, once: true, body: map[string]any{
		"status":   "closed",
		"comments": []map[string]any{{"parentCommentId": 0, "content": body, "commentType": "text"}},
	}}, threadsOf(number), nil, &t)
	if err != nil {
		return Comment{}, err
	}
	if len(t.Comments) == 0 {
		return Comment{}, &APIError{Forge: AzureDevOps, Method: http.MethodPost, Path: threadsOf(number), Class: ErrUnreadable, Message: "the thread has no comment"}
	}
	return t.comment(t.Comments[0]), nil
}

// EditComment implements Forge.
func (a *azureDevOps) EditComment(ctx context.Context, repo string, number int, c Comment, body string) (Comment, error) {
	thread, id, ok := strings.Cut(c.ID, "/")
	if !ok {
		return Comment{}, fmt.Errorf("%q is no comment of Azure DevOps", c.ID)
	}
	var edited azureComment
	path := threadsOf(number) + "/" + url.PathEscape(thread) + "/comments/" + url.PathEscape(id)
	err := a.ask(ctx, call{method: http.MethodPatch, repo: repo, body: map[string]string{"content": body}}, path, nil, &edited)
	c.Body = edited.Content
	return c, err
}

// Self implements Forge.
func (a *azureDevOps) Self(ctx context.Context, repo string) (string, error) {
	return a.ownAccount(func() (string, error) {
		organization, _, _ := strings.Cut(repo, "/")
		var found struct {
			User azureUser `json:"authenticatedUser"`
		}
		_, err := a.get(ctx, repo, "/"+escape(organization)+"/_apis/connectionData", nil, &found)
		if err == nil && found.User.ID == "" {
			err = &APIError{Forge: AzureDevOps, Method: http.MethodGet, Path: "/_apis/connectionData", Class: ErrUnauthorized, Message: "the answer names no account"}
		}
		return found.User.ID, err
	})
}

// azureStatus is a status. Its context has two parts: those of fairlead/production/shop are fairlead and production/shop.
type azureStatus struct {
	State       string       `json:"state"`
	Description string       `json:"description"`
	Context     azureContext `json:"context"`
	URL         string       `json:"targetUrl,omitempty"`
}

type azureContext struct {
	Genre string `json:"genre,omitempty"`
	Name  string `json:"name"`
}

func azureContextOf(name string) azureContext {
	if genre, rest, ok := strings.Cut(name, "/"); ok {
		return azureContext{genre, rest}
	}
	return azureContext{Name: name}
}

func statusesOf(commit string) string { return "/commits/" + url.PathEscape(commit) + "/statuses" }

// Status implements Forge.
func (a *azureDevOps) Status(ctx context.Context, repo, commit, name string) (Status, bool, error) {
	var all struct {
		Value []azureStatus `json:"value"`
	}
	query := url.Values{"latestOnly": {"true"}, "top": {"1000"}}
	if err := a.ask(ctx, call{method: http.MethodGet, repo: repo}, statusesOf(commit), query, &all); err != nil {
		return Status{}, false, err
	}
	for _, s := range all.Value {
		if s.Context != azureContextOf(name) {
			continue
		}
		out := Status{Context: name, State: Error, Description: s.Description, URL: s.URL}
		switch s.State {
		case "pending", "notSet":
			out.State = Pending
		case "succeeded", "notApplicable":
			out.State = Success
		case "failed":
			out.State = Failure
		}
		return out, true, nil
	}
	return Status{}, false, nil
}

// SetStatus implements Forge.
func (a *azureDevOps) SetStatus(ctx context.Context, repo, commit string, s Status) (bool, error) {
	return change(ctx, a, repo, commit, s, func(s Status) Status { return s }, func(s Status) error {
		state := map[State]string{Pending: "pending", Success: "succeeded", Failure: "failed", Error: "error"}[s.State]
		return a.ask(ctx, call{method: http.MethodPost, repo: repo, body: azureStatus{
			State: state, Description: s.Description, Context: azureContextOf(s.Context), URL: s.URL,
		}}, statusesOf(commit), nil, nil)
	})
}

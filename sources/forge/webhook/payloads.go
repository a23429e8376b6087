package webhook

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/fairlead-dev/fairlead/sources/forge"
)

// hubDelivery is what deliveries of GitHub, Gitea and Forgejo have in common.
type hubDelivery struct {
	Action string `json:"action"`
	Ref    string `json:"ref"`
	// RefType is branch or tag, in a delivery about one that was made or removed.
	RefType    string        `json:"ref_type"`
	Before     string        `json:"before"`
	After      string        `json:"after"`
	Number     int           `json:"number"`
	Repository hubRepository `json:"repository"`
	Sender     hubAccount    `json:"sender"`
	Pull       struct {
		Number int  `json:"number"`
		Merged bool `json:"merged"`
	} `json:"pull_request"`
	Changes struct {
		// Base is in deliveries of GitHub, Ref in those of the others, when the base is another branch.
		Base *struct{} `json:"base"`
		Ref  *struct{} `json:"ref"`
	} `json:"changes"`
	Issue struct {
		Number int       `json:"number"`
		Pull   *struct{} `json:"pull_request"`
	} `json:"issue"`
	IsPull  bool `json:"is_pull"`
	Comment struct {
		ID   int64      `json:"id"`
		Body string     `json:"body"`
		User hubAccount `json:"user"`
	} `json:"comment"`
}

type hubRepository struct {
	FullName string `json:"full_name"`
	CloneURL string `json:"clone_url"`
	SSHURL   string `json:"ssh_url"`
	GitURL   string `json:"git_url"`
	HTMLURL  string `json:"html_url"`
}

type hubAccount struct {
	Login string `json:"login"`
}

func hub(event string, body []byte) (forge.Event, error) {
	switch event {
	case "push", "delete", "pull_request", "pull_request_sync", "issue_comment", "pull_request_comment":
	case "ping":
		return forge.Event{Kind: forge.Ping}, nil
	default: // create among them: a push tells of the same
		return forge.Event{Kind: forge.Ignored}, nil
	}
	var d hubDelivery
	if err := decode(body, &d); err != nil {
		return forge.Event{}, err
	}
	r := d.Repository
	ev := forge.Event{
		Repository: forge.Repository{Path: r.FullName, URLs: urls(r.CloneURL, r.SSHURL, r.GitURL, r.HTMLURL)},
		Ref:        d.Ref, Before: d.Before, After: d.After, Sender: d.Sender.Login,
	}
	switch event {
	case "push":
		ev.Kind = moved(d.Ref)
	case "delete":
		ev.Ref = map[string]string{"branch": "refs/heads/", "tag": "refs/tags/"}[d.RefType] + strings.TrimPrefix(strings.TrimPrefix(d.Ref, "refs/heads/"), "refs/tags/")
		ev.Kind = moved(ev.Ref)
	case "issue_comment", "pull_request_comment":
		if d.Action != "created" || d.Issue.Pull == nil && !d.IsPull {
			return forge.Event{Kind: forge.Ignored}, nil
		}
		ev.PullRequest = d.Issue.Number
		ev = commanded(ev, strconv.FormatInt(d.Comment.ID, 10), d.Comment.User.Login, d.Comment.Body)
	default:
		ev.Kind, ev.PullRequest, ev.Ref = d.pullRequest(), max(d.Number, d.Pull.Number), ""
	}
	return ev, nil
}

// pullRequest says what happened to it.
func (d hubDelivery) pullRequest() forge.EventKind {
	switch d.Action {
	case "opened":
		return forge.Opened
	case "synchronize", "synchronized":
		return forge.Updated
	case "reopened":
		return forge.Reopened
	case "closed":
		if d.Pull.Merged {
			return forge.PullMerged
		}
		return forge.PullClosed
	case "edited":
		if d.Changes.Base != nil || d.Changes.Ref != nil {
			return forge.Retargeted
		}
		return forge.Edited
	case "ready_for_review", "converted_to_draft":
		return forge.Edited
	}
	return forge.Ignored
}

// labDelivery is a delivery of GitLab, of a project, a group or the system.
type labDelivery struct {
	Kind   string `json:"object_kind"`
	Event  string `json:"event_name"`
	Ref    string `json:"ref"`
	Before string `json:"before"`
	After  string `json:"after"`
	User   struct {
		Username string `json:"username"`
	} `json:"user"`
	UserName string     `json:"user_username"` // of pushes
	Project  labProject `json:"project"`
	Object   struct {
		ID       int64  `json:"id"`
		IID      int    `json:"iid"`
		Action   string `json:"action"`
		OldRev   string `json:"oldrev"`
		Note     string `json:"note"`
		NoteOn   string `json:"noteable_type"`
		IsSystem bool   `json:"system"`
	} `json:"object_attributes"`
	Merge struct {
		IID int `json:"iid"`
	} `json:"merge_request"`
	// Changes are labChanges of a merge request; other deliveries have a list of that name.
	Changes json.RawMessage `json:"changes"`
}

type labChanges struct {
	Target      *struct{} `json:"target_branch"`
	Title       *struct{} `json:"title"`
	Description *struct{} `json:"description"`
	Draft       *struct{} `json:"draft"`
}

type labProject struct {
	Path    string `json:"path_with_namespace"`
	HTTPURL string `json:"git_http_url"`
	SSHURL  string `json:"git_ssh_url"`
	WebURL  string `json:"web_url"`
}

func gitLab(body []byte) (forge.Event, error) {
	var d labDelivery
	if err := decode(body, &d); err != nil {
		return forge.Event{}, err
	}
	p := d.Project
	ev := forge.Event{
		Repository: forge.Repository{Path: p.Path, URLs: urls(p.HTTPURL, p.SSHURL, p.WebURL)},
		Ref:        d.Ref, Before: d.Before, After: d.After, Sender: d.User.Username,
	}
	if ev.Sender == "" {
		ev.Sender = d.UserName
	}
	kind := d.Kind
	if kind == "" {
		kind = d.Event // of the system's hooks
	}
	switch kind {
	case "push", "tag_push", "repository_update":
		ev.Kind = moved(d.Ref)
	case "merge_request":
		ev.Kind, ev.PullRequest, ev.Ref = d.mergeRequest(), d.Object.IID, ""
	case "note":
		if d.Object.NoteOn != "MergeRequest" || d.Object.IsSystem || d.Object.Action != "" && d.Object.Action != "create" {
			return forge.Event{Kind: forge.Ignored}, nil
		}
		ev.PullRequest = d.Merge.IID
		ev = commanded(ev, strconv.FormatInt(d.Object.ID, 10), d.User.Username, d.Object.Note)
	default:
		return forge.Event{Kind: forge.Ignored}, nil
	}
	return ev, nil
}

func (d labDelivery) mergeRequest() forge.EventKind {
	switch d.Object.Action {
	case "open":
		return forge.Opened
	case "reopen":
		return forge.Reopened
	case "close":
		return forge.PullClosed
	case "merge":
		return forge.PullMerged
	case "update":
		var changes labChanges
		if len(d.Changes) > 0 {
			_ = json.Unmarshal(d.Changes, &changes) // what cannot be read did not change
		}
		switch {
		case changes.Target != nil:
			return forge.Retargeted
		case d.Object.OldRev != "":
			return forge.Updated
		case changes.Title != nil, changes.Description != nil, changes.Draft != nil:
			return forge.Edited
		}
	}
	return forge.Ignored
}

type bucketDelivery struct {
	Actor struct {
		UUID string `json:"uuid"`
	} `json:"actor"`
	Repository struct {
		FullName string `json:"full_name"`
		Links    struct {
			HTML struct {
				Href string `json:"href"`
			} `json:"html"`
		} `json:"links"`
	} `json:"repository"`
	Push struct {
		Changes []struct {
			New *bucketRef `json:"new"`
			Old *bucketRef `json:"old"`
		} `json:"changes"`
	} `json:"push"`
	Pull struct {
		ID int `json:"id"`
	} `json:"pullrequest"`
	Comment struct {
		ID      int64 `json:"id"`
		Content struct {
			Raw string `json:"raw"`
		} `json:"content"`
		User struct {
			UUID string `json:"uuid"`
		} `json:"user"`
	} `json:"comment"`
}

type bucketRef struct {
	Type   string `json:"type"`
	Name   string `json:"name"`
	Target struct {
		Hash string `json:"hash"`
	} `json:"target"`
}

func (r *bucketRef) ref() string {
	if r == nil || r.Name == "" {
		return ""
	}
	if r.Type == "tag" {
		return "refs/tags/" + r.Name
	}
	return "refs/heads/" + r.Name
}

func bitbucket(event string, body []byte) (forge.Event, error) {
	kind, ok := map[string]forge.EventKind{
		"repo:push": forge.Pushed, "pullrequest:created": forge.Opened, "pullrequest:updated": forge.Updated,
		"pullrequest:fulfilled": forge.PullMerged, "pullrequest:rejected": forge.PullClosed, "pullrequest:comment_created": forge.Commanded,
	}[event]
	if !ok {
		return forge.Event{Kind: forge.Ignored}, nil
	}
	var d bucketDelivery
	if err := decode(body, &d); err != nil {
		return forge.Event{}, err
	}
	ev := forge.Event{
		Kind: kind, PullRequest: d.Pull.ID, Sender: d.Actor.UUID,
		Repository: forge.Repository{Path: d.Repository.FullName, URLs: urls(d.Repository.Links.HTML.Href)},
	}
	switch kind {
	case forge.Pushed:
		for _, c := range d.Push.Changes {
			if ev.Ref = c.New.ref(); ev.Ref == "" {
				ev.Ref = c.Old.ref()
			}
			if c.New != nil {
				ev.After = c.New.Target.Hash
			}
			if c.Old != nil {
				ev.Before = c.Old.Target.Hash
			}
			break
		}
		ev.Kind = moved(ev.Ref)
	case forge.Commanded:
		ev = commanded(ev, strconv.FormatInt(d.Comment.ID, 10), d.Comment.User.UUID, d.Comment.Content.Raw)
	}
	return ev, nil
}

type dcDelivery struct {
	Actor struct {
		Name string `json:"name"`
	} `json:"actor"`
	Repository dcRepository `json:"repository"`
	Changes    []struct {
		RefID string `json:"refId"`
		From  string `json:"fromHash"`
		To    string `json:"toHash"`
	} `json:"changes"`
	Pull struct {
		ID int `json:"id"`
		To struct {
			ID         string       `json:"id"`
			Repository dcRepository `json:"repository"`
		} `json:"toRef"`
	} `json:"pullRequest"`
	PreviousTarget struct {
		ID string `json:"id"`
	} `json:"previousTarget"`
	Comment struct {
		ID     int64  `json:"id"`
		Text   string `json:"text"`
		Author struct {
			Name string `json:"name"`
		} `json:"author"`
	} `json:"comment"`
}

type dcRepository struct {
	Slug    string `json:"slug"`
	Project struct {
		Key string `json:"key"`
	} `json:"project"`
	Links struct {
		Clone []*dcLink `json:"clone"`
		Self  []*dcLink `json:"self"`
	} `json:"links"`
}

// dcLink may be null in a list.
type dcLink struct {
	Href string `json:"href"`
}

func (r dcRepository) repository() forge.Repository {
	if r.Slug == "" || r.Project.Key == "" {
		return forge.Repository{}
	}
	out := forge.Repository{Path: r.Project.Key + "/" + r.Slug}
	for _, links := range [][]*dcLink{r.Links.Clone, r.Links.Self} {
		for _, l := range links {
			if l != nil {
				out.URLs = append(out.URLs, urls(l.Href)...)
			}
		}
	}
	return out
}

func bitbucketServer(event string, body []byte) (forge.Event, error) {
	kind, ok := map[string]forge.EventKind{
		"repo:refs_changed": forge.Pushed, "mirror:repo_synchronized": forge.Pushed,
		"pr:opened": forge.Opened, "pr:from_ref_updated": forge.Updated, "pr:to_ref_updated": forge.Updated, "pr:modified": forge.Edited, "pr:reopened": forge.Reopened,
		"pr:merged": forge.PullMerged, "pr:declined": forge.PullClosed, "pr:deleted": forge.PullClosed, "pr:comment:added": forge.Commanded,
		"diagnostics:ping": forge.Ping,
	}[event]
	if !ok || kind == forge.Ping {
		if !ok {
			kind = forge.Ignored
		}
		return forge.Event{Kind: kind}, nil
	}
	var d dcDelivery
	if err := decode(body, &d); err != nil {
		return forge.Event{}, err
	}
	ev := forge.Event{Kind: kind, PullRequest: d.Pull.ID, Sender: d.Actor.Name, Repository: d.Repository.repository()}
	if kind != forge.Pushed {
		ev.Repository = d.Pull.To.Repository.repository()
	}
	switch kind {
	case forge.Pushed:
		if len(d.Changes) > 0 {
			ev.Ref, ev.Before, ev.After = d.Changes[0].RefID, d.Changes[0].From, d.Changes[0].To
		}
		ev.Kind = moved(ev.Ref)
	case forge.Edited:
		if d.PreviousTarget.ID != "" && d.PreviousTarget.ID != d.Pull.To.ID {
			ev.Kind = forge.Retargeted
		}
	case forge.Commanded:
		ev = commanded(ev, strconv.FormatInt(d.Comment.ID, 10), d.Comment.Author.Name, d.Comment.Text)
	}
	return ev, nil
}

type azureDelivery struct {
	ID       string `json:"id"`
	Event    string `json:"eventType"`
	Resource struct {
		azurePull
		RefUpdates []struct {
			Name string `json:"name"`
			Old  string `json:"oldObjectId"`
			New  string `json:"newObjectId"`
		} `json:"refUpdates"`
		PushedBy azureAccount `json:"pushedBy"`
		Pull     azurePull    `json:"pullRequest"`
		Comment  struct {
			ID        int          `json:"id"`
			Content   string       `json:"content"`
			Author    azureAccount `json:"author"`
			Published string       `json:"publishedDate"`
			Changed   string       `json:"lastContentUpdatedDate"`
			Deleted   bool         `json:"isDeleted"`
			Links     struct {
				Threads struct {
					Href string `json:"href"`
				} `json:"threads"`
			} `json:"_links"`
		} `json:"comment"`
	} `json:"resource"`
}

type azurePull struct {
	ID         int             `json:"pullRequestId"`
	Status     string          `json:"status"`
	CreatedBy  azureAccount    `json:"createdBy"`
	Repository azureRepository `json:"repository"`
}

type azureAccount struct {
	ID string `json:"id"`
}

type azureRepository struct {
	RemoteURL string `json:"remoteUrl"`
	SSHURL    string `json:"sshUrl"`
	WebURL    string `json:"webUrl"`
}

func (r azureRepository) repository() forge.Repository {
	out := forge.Repository{URLs: urls(r.RemoteURL, r.SSHURL, r.WebURL)}
	if parts := strings.Split(forge.Key(r.RemoteURL), "/"); len(parts) >= 4 {
		out.Path = strings.Join(parts[len(parts)-3:], "/")
	}
	return out
}

func azure(body []byte) (forge.Event, error) {
	var d azureDelivery
	if err := decode(body, &d); err != nil {
		return forge.Event{}, err
	}
	r := d.Resource
	ev := forge.Event{Delivery: d.ID, Repository: r.Repository.repository(), PullRequest: r.ID, Sender: r.CreatedBy.ID}
	switch d.Event {
	case "git.push":
		ev.PullRequest, ev.Sender = 0, r.PushedBy.ID
		if len(r.RefUpdates) > 0 {
			ev.Ref, ev.Before, ev.After = r.RefUpdates[0].Name, r.RefUpdates[0].Old, r.RefUpdates[0].New
		}
		ev.Kind = moved(ev.Ref)
	case "git.pullrequest.created":
		ev.Kind = forge.Opened
	case "git.pullrequest.updated", "git.pullrequest.merged":
		// What changed is only in words. A merge that was tried for the preview is no merge.
		switch {
		case r.Status == "completed":
			ev.Kind = forge.PullMerged
		case r.Status == "abandoned":
			ev.Kind = forge.PullClosed
		case d.Event == "git.pullrequest.merged":
			return forge.Event{Kind: forge.Ignored, Delivery: d.ID}, nil
		default:
			ev.Kind = forge.Updated
		}
	case "ms.vss-code.git-pullrequest-comment-event":
		c := r.Comment
		if c.Deleted || c.Changed != "" && c.Changed != c.Published {
			return forge.Event{Kind: forge.Ignored, Delivery: d.ID}, nil
		}
		ev.Repository, ev.PullRequest, ev.Sender = r.Pull.Repository.repository(), r.Pull.ID, c.Author.ID
		thread := c.Links.Threads.Href[strings.LastIndexByte(c.Links.Threads.Href, '/')+1:]
		ev = commanded(ev, thread+"/"+strconv.Itoa(c.ID), c.Author.ID, c.Content)
		ev.Delivery = d.ID
	default:
		return forge.Event{Kind: forge.Ignored, Delivery: d.ID}, nil
	}
	return ev, nil
}

// generic is {"repository": URL, "ref": REF}; ref may be left out.
func generic(body []byte) (forge.Event, error) {
	var d struct {
		Repository string `json:"repository"`
		Ref        string `json:"ref"`
	}
	if err := decode(body, &d); err != nil {
		return forge.Event{}, err
	}
	if forge.Key(d.Repository) == "" {
		return forge.Event{}, errors.New(`the body must be {"repository": "https://host/path"}, and may have a "ref"`)
	}
	return forge.Event{Kind: moved(d.Ref), Ref: d.Ref, Repository: forge.Repository{URLs: urls(d.Repository)}}, nil
}

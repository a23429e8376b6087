// Package forge speaks with Git hosting services: GitHub, GitLab, Gitea and Forgejo, Bitbucket Cloud, Bitbucket Server
// and Data Center, and Azure DevOps. It reads pull requests, keeps one comment on each, and sets commit statuses. What
// the services send by themselves is read in sources/forge/webhook.
//
// Whatever a service does, a call ends: requests, answers, lists and repetitions are bounded. No failure here is a
// reason to hold a deployment up.
package forge

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kind is a Git hosting service.
type Kind string

// The services.
const (
	GitHub          Kind = "github"
	GitLab          Kind = "gitlab"
	Gitea           Kind = "gitea"
	Forgejo         Kind = "forgejo"
	Bitbucket       Kind = "bitbucket"        // bitbucket.org
	BitbucketServer Kind = "bitbucket-server" // and Data Center
	AzureDevOps     Kind = "azure-devops"
	// Generic is whatever signs its deliveries: a CI job, a script. It has no API.
	Generic Kind = "generic"
)

// Kinds returns all services, Generic last.
func Kinds() []Kind {
	return []Kind{GitHub, GitLab, Gitea, Forgejo, Bitbucket, BitbucketServer, AzureDevOps, Generic}
}

// ParseKind returns the service of a name. The error lists the names.
func ParseKind(s string) (Kind, error) {
	if k := Kind(s); slices.Contains(Kinds(), k) {
		return k, nil
	}
	var names []string
	for _, k := range Kinds() {
		names = append(names, string(k))
	}
	return "", fmt.Errorf("%q is no forge: use %s", s, strings.Join(names, ", "))
}

// String is the name for people.
func (k Kind) String() string {
	switch k {
	case GitHub:
		return "GitHub"
	case GitLab:
		return "GitLab"
	case Gitea:
		return "Gitea"
	case Forgejo:
		return "Forgejo"
	case Bitbucket:
		return "Bitbucket Cloud"
	case BitbucketServer:
		return "Bitbucket Server"
	case AzureDevOps:
		return "Azure DevOps"
	case Generic:
		return "a generic hook"
	}
	return string(k)
}

// Repository is a repository of a forge.
type Repository struct {
	// Path is its full name below the forge: owner/name, group/subgroup/name, PROJECT/name on Bitbucket Server,
	// organization/project/name on Azure DevOps. Empty when it is not known.
	Path string
	// URLs are those under which it is cloned or viewed, in any form.
	URLs []string
}

// PullRequest is a pull or merge request.
type PullRequest struct {
	Number int
	Title  string
	Author string
	// URL shows it in a browser.
	URL   string
	State PullRequestState
	Draft bool
	Head  Branch
	Base  Branch
	// Fork is true when the head is in another repository than the base, also when that is gone or not known.
	Fork bool
	// HeadRef and MergeRef are references of the base repository at which the forge keeps the head and the result of
	// merging it. Empty where it has none; that of a merge may be late, or missing because of a conflict.
	HeadRef  string
	MergeRef string
	// MergeCommit is the commit of a merged pull request.
	MergeCommit string
	Updated     time.Time
}

// Branch is one side of a pull request.
type Branch struct {
	Repository Repository
	Name       string
	Commit     string
}

// PullRequestState says what became of a pull request.
type PullRequestState string

// The states of a pull request.
const (
	Open   PullRequestState = "open"
	Closed PullRequestState = "closed"
	Merged PullRequestState = "merged"
)

// Comment is a comment on a pull request.
type Comment struct {
	ID string
	// Author is the name by which the forge knows the account; it does not change when people rename what is shown.
	Author string
	Body   string
	URL    string

	version int // Bitbucket Server: which edition of the comment is replaced
}

// State is what a commit status says.
type State string

// The states of a status.
const (
	Pending State = "pending"
	Success State = "success"
	Failure State = "failure" // what was looked at is wrong
	Error   State = "error"   // it could not be looked at
)

// Status is a commit status: one line beside a commit, and what a branch protection may require.
type Status struct {
	// Context names it among the statuses of a commit, for example fairlead/production/shop.
	Context string
	State   State
	// Description is one line. What is too long for the forge is cut.
	Description string
	// URL is where there is more; empty for nowhere.
	URL string
}

// Forge is one Git hosting service with credentials. A repository is named by its Path. Every method may be called
// from any goroutine, ends in bounded time, and fails with an *APIError when the service did not do what it was asked.
type Forge interface {
	Kind() Kind
	// Limits are what the service takes.
	Limits() Limits
	// PullRequest returns a pull request as it is now.
	PullRequest(ctx context.Context, repo string, number int) (PullRequest, error)
	// OpenPullRequests returns the open ones, the newest first where the service sorts; at most 1,000. Commits may be
	// abbreviated or missing where the service leaves them out of lists.
	OpenPullRequests(ctx context.Context, repo string) ([]PullRequest, error)
	// Comments returns the comments of a pull request, oldest first; at most 1,000.
	Comments(ctx context.Context, repo string, number int) ([]Comment, error)
	// CreateComment adds a comment.
	CreateComment(ctx context.Context, repo string, number int, body string) (Comment, error)
	// EditComment replaces the body of a comment that this Forge returned.
	EditComment(ctx context.Context, repo string, number int, c Comment, body string) (Comment, error)
	// Self is the account whose credentials are used, as in Comment.Author.
	Self(ctx context.Context, repo string) (string, error)
	// Status returns the newest status of a commit with a context, and false when it has none.
	Status(ctx context.Context, repo, commit, context string) (Status, bool, error)
	// SetStatus sets a status unless it is as wanted already, and reports whether it did: forges keep every status
	// that was ever set, and GitHub takes no more than 1,000 of one commit and context.
	SetStatus(ctx context.Context, repo, commit string, s Status) (changed bool, err error)
}

// Limits are what a service takes.
type Limits struct {
	// Comment is the size of a comment in bytes.
	Comment int
	// Description is the size of a status's description in characters.
	Description int
}

// Reactor is a Forge that shows by a reaction on a comment that it was seen.
type Reactor interface {
	// React adds a reaction. A second one that is equal changes nothing.
	React(ctx context.Context, repo string, number int, c Comment, r Reaction) error
}

// Reaction is a small picture on a comment.
type Reaction string

// The reactions that all services with reactions have.
const (
	Eyes     Reaction = "eyes"
	ThumbsUp Reaction = "+1"
	Confused Reaction = "confused"
)

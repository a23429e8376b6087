package forge

import "strings"

// Event is what a delivery tells: that it may be worth to look at something. Nothing in it is proof: what is there is
// asked from the forge, or fetched.
type Event struct {
	Forge Kind
	Kind  EventKind
	// Delivery is the forge's name of the delivery; empty where it gives none.
	Delivery   string
	Repository Repository
	// Ref is the full name of what was pushed, refs/heads/main or refs/tags/v1; the first where several were. Empty
	// when it is not known.
	Ref string
	// Before and After are the commits of a push, as the delivery has them.
	Before, After string
	// PullRequest is the number of the pull request; 0 for pushes.
	PullRequest int
	// Comment is the comment of a Commanded event.
	Comment CommentRef
	// Sender is the account that caused it, as in Comment.Author.
	Sender string
	// Images are the repositories of an ImagePushed event, as the registry names them, without tags.
	Images []string
}

// CommentRef is a comment with a command.
type CommentRef struct {
	ID     string
	Author string
	// Command are the words after /fairlead in the comment's first line.
	Command []string
}

// EventKind is what happened.
type EventKind string

// The kinds of events.
const (
	Pushed     EventKind = "push"
	Tagged     EventKind = "tag"
	Opened     EventKind = "pull-request-opened"
	Updated    EventKind = "pull-request-updated" // its head has another commit
	Reopened   EventKind = "pull-request-reopened"
	Retargeted EventKind = "pull-request-retargeted" // its base is another branch
	// Edited: its title, its description, or its being a draft.
	Edited           EventKind = "pull-request-edited"
	PullClosed       EventKind = "pull-request-closed" // without a merge
	PullMerged       EventKind = "pull-request-merged"
	Commanded        EventKind = "comment-command"
	ImagePushed      EventKind = "image" // a registry has another image
	Ping             EventKind = "ping"
	Ignored          EventKind = "ignored" // nothing that anybody here waits for
	commandPrefix              = "/fairlead"
	maxCommandLength           = 1000
)

// IsPullRequest reports whether the event is about a pull request.
func (k EventKind) IsPullRequest() bool {
	switch k {
	case Opened, Updated, Reopened, Retargeted, Edited, PullClosed, PullMerged, Commanded:
		return true
	case Pushed, Tagged, ImagePushed, Ping, Ignored:
	}
	return false
}

// Moves reports whether branches or tags of the repository may have moved.
func (k EventKind) Moves() bool { return k == Pushed || k == Tagged || k == PullMerged }

// ParseCommand returns the words after /fairlead in the first line of a comment, and false when the comment does not
// begin with it. Words are separated by spaces; none has a control character.
func ParseCommand(body string) ([]string, bool) {
	line := strings.TrimLeft(body, " \t\r\n")
	if i := strings.IndexAny(line, "\r\n"); i >= 0 {
		line = line[:i]
	}
	rest, ok := strings.CutPrefix(line, commandPrefix)
	if !ok || len(rest) > maxCommandLength || rest != "" && rest[0] != ' ' && rest[0] != '\t' {
		return nil, false
	}
	words := strings.Fields(rest)
	for _, w := range words {
		if strings.ContainsFunc(w, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, false
		}
	}
	return words, true
}

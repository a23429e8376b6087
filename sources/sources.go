// Package sources says where desired state comes from. Git repositories are in sources/git,
// local directories in sources/local.
package sources

import (
	"context"
	"errors"
	"io/fs"
	"time"
)

// ErrUnchanged is returned by Fetch when the source still is at the revision that the caller has.
var ErrUnchanged = errors.New("source is unchanged")

// Revision identifies one state of a source: a full commit id, or a content digest for a directory.
type Revision string

// Short returns the first 12 characters.
func (r Revision) Short() string {
	if len(r) > 12 {
		return string(r[:12])
	}
	return string(r)
}

// Source is one place that desired state comes from.
type Source interface {
	// Fetch returns the newest snapshot, or ErrUnchanged when it still has the revision have.
	// An empty have always yields a snapshot. It may be called again after any error; a failed
	// fetch leaves the last good state in place. Beside a *Refusal, the answer to an empty have is
	// the last revision that was not refused, where that is known.
	Fetch(ctx context.Context, have Revision) (Snapshot, error)
	// Close releases what the source holds open.
	Close() error
}

// Watcher is a source that notices changes by itself. Watch calls wake, from one goroutine, after
// each settled change until ctx ends.
type Watcher interface {
	Watch(ctx context.Context, wake func()) error
}

// ErrGone is wrapped by the error of an Archive for a revision that is not to be had any more.
var ErrGone = errors.New("the revision is gone")

// Archive is a source that can give earlier revisions too.
type Archive interface {
	// Snapshot returns the tree at a revision that was fetched before, as far as it is still to be had; otherwise its
	// error wraps ErrGone. What Fetch returns next does not depend on it.
	Snapshot(ctx context.Context, rev Revision) (Snapshot, error)
}

// Snapshot is one source's tree at one revision. It is immutable and safe for concurrent use.
type Snapshot struct {
	// Source is the name of the source.
	Source   string
	Revision Revision
	// Ref is what the revision was resolved from, for example refs/heads/main; empty for a directory.
	Ref string
	// Committed, Author and Message describe the commit; zero for a directory.
	Committed time.Time
	Author    string
	Message   string
	// Signatures are those that were asked for and found good; empty when none was asked for.
	Signatures []Signature
	// Files is the tree. Paths that leave the tree, symbolic links among them, are refused.
	Files fs.FS
	// History says how the revision relates to the one that was had before.
	History History
	// Changed lists the paths whose content differs between the snapshot that was had before and
	// this one, and false when that is not known (first fetch, unrelated history).
	Changed func(since Revision) ([]string, bool)
}

// History is how a new revision relates to the previous one of the same source.
type History string

// The relations of a revision to the previous one.
const (
	First       History = "first"        // nothing was had before
	FastForward History = "fast-forward" // the previous revision is an ancestor
	Rewound     History = "rewound"      // the new revision is an ancestor of the previous one
	Rewritten   History = "rewritten"    // force-push: neither is an ancestor of the other
	TagMoved    History = "tag-moved"    // a tag points to another commit than before
	Unrelated   History = "unrelated"    // no common ancestor
	Switched    History = "switched"     // another branch or tag was selected, by semver or by settings
)

// Signature is one that was verified.
type Signature struct {
	// Object is what is signed: "commit" or "tag NAME".
	Object string
	// Format is OpenPGP or SSH, Key the fingerprint of the key.
	Format, Key string
	// Name is who the key says that it belongs to; it may be empty.
	Name string
}

// String is "commit signed by Ada <ada@example.com> (OpenPGP key 0123…)".
func (s Signature) String() string {
	key := s.Format + " key " + s.Key
	if s.Name != "" {
		key = s.Name + " (" + key + ")"
	}
	return s.Object + " signed by " + key
}

// Refusal is the error of Fetch about a revision that is there and may not be used, because nobody who is trusted
// vouches for it.
type Refusal struct {
	Source   string
	Revision Revision
	Ref      string
	// Author and Message (its first line) describe the commit, as far as that can be told.
	Author, Message string
	// Object is what is refused: "commit" or "tag NAME". Reason is one word for it, Key what signed it; empty
	// where nothing did.
	Object, Reason, Key string
	// Text says all of it, and what to do.
	Text string
}

func (r *Refusal) Error() string { return r.Text }

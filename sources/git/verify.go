package git

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/fairlead-dev/fairlead/sources"
	"github.com/fairlead-dev/fairlead/sources/git/signature"
)

// Mode says what has to be signed, in Flux's words.
type Mode string

// The modes.
const (
	VerifyHEAD       Mode = "HEAD"       // the commit
	VerifyTag        Mode = "Tag"        // the tag that is followed
	VerifyTagAndHEAD Mode = "TagAndHEAD" // both
)

// Verify says whose signature a revision has to have.
type Verify struct {
	Mode Mode
	// Keys returns the files with the public keys of who may sign, by name. It is called at every fetch: when they
	// have changed, the revision that is had is judged again.
	Keys func() (map[string][]byte, error)
	// From says in words where the keys are, for example "Secret flux-system/signers".
	From string
}

func (v *Verify) head() bool { return v != nil && (v.Mode == VerifyHEAD || v.Mode == VerifyTagAndHEAD) }
func (v *Verify) tag() bool  { return v != nil && (v.Mode == VerifyTag || v.Mode == VerifyTagAndHEAD) }

// keys reads the keys that are in force now; nil when no signature is asked for.
func (v *Verify) keys() (*signature.Keys, error) {
	if v == nil {
		return nil, nil
	}
	files, err := v.Keys()
	if err != nil {
		return nil, err
	}
	keys, _, err := signature.Parse(files)
	if err != nil {
		return nil, fmt.Errorf("the keys in %s: %w", v.From, err)
	}
	return keys, nil
}

// verdict is that a selection was found good.
type verdict struct {
	keys [sha256.Size]byte
	of   selection
}

// holds reports whether a selection needs no judging: it was found good with the same keys, or nothing is asked.
func (v verdict) holds(keys *signature.Keys, sel selection) bool {
	return keys == nil || v.of.commit == sel.commit && v.of.object == sel.object && v.of.ref == sel.ref && v.keys == keys.Digest()
}

// verify judges the signatures that are asked for. Nothing of the commit has been used when it is called.
func (s *Source) verify(keys *signature.Keys, sel selection) ([]sources.Signature, error) {
	if keys == nil {
		return nil, nil
	}
	objects, now := s.repo.objects(), time.Now()
	kind, raw, err := objects.read(sel.commit)
	if err != nil {
		return nil, err
	}
	if kind != plumbing.CommitObject {
		return nil, fmt.Errorf("%w: object %s is a %s, not a commit", ErrNoCommit, sel.commit, kind)
	}
	var found []sources.Signature
	add := func(object string, by signature.Signer) {
		found = append(found, sources.Signature{Object: object, Format: string(by.Format), Key: by.Key, Name: by.Name})
	}
	if s.opt.Verify.tag() {
		name, isTag := strings.CutPrefix(sel.ref, "refs/tags/")
		if !isTag {
			return nil, s.refusal(sel, raw, "commit", errors.New("only tags have the signature that is asked for, and no tag is followed: follow a tag or a range of versions, or ask for the mode HEAD"))
		}
		if sel.object == sel.commit {
			return nil, s.refusal(sel, raw, "tag "+name, &signature.Refusal{Reason: signature.Unsigned, Text: "it is a lightweight tag, which cannot be signed", Hint: "make it anew with git tag -s"})
		}
		kind, tag, err := objects.read(sel.object)
		if err != nil {
			return nil, err
		}
		if kind != plumbing.TagObject {
			return nil, s.refusal(sel, raw, "tag "+name, fmt.Errorf("object %s is a %s, not a tag", sel.object, kind))
		}
		by, err := keys.Tag(tag, name, sel.commit.String(), now)
		if err != nil {
			return nil, s.refusal(sel, raw, "tag "+name, err)
		}
		add("tag "+name, by)
	}
	if s.opt.Verify.head() {
		by, err := keys.Commit(raw, now)
		if err != nil {
			return nil, s.refusal(sel, raw, "commit", err)
		}
		add("commit", by)
	}
	return found, nil
}

// refusal says that a revision is not used, and why. raw is its commit, nil if that was not read.
func (s *Source) refusal(sel selection, raw []byte, object string, why error) error {
	r := &sources.Refusal{Source: s.opt.Name, Revision: sources.Revision(sel.commit.String()), Ref: sel.ref, Object: object, Reason: "KeysUnreadable"}
	about := ""
	if c, err := parseCommit(raw); err == nil {
		r.Author = c.author
		r.Message, _, _ = strings.Cut(c.message, "\n")
		about = fmt.Sprintf(" (%q by %s)", r.Message, r.Author)
	}
	what := "commit " + r.Revision.Short() + about
	if object != "commit" {
		what = fmt.Sprintf("%s, for commit %s%s,", object, r.Revision.Short(), about)
	}
	r.Text = fmt.Sprintf("%s is not used: %v", what, why)
	var refused *signature.Refusal
	if errors.As(why, &refused) {
		r.Reason, r.Key = string(refused.Reason), refused.Key
		r.Text += fmt.Sprintf(" (the keys of who may sign are in %s)", s.opt.Verify.From)
	} else if raw != nil {
		r.Reason = string(signature.Unsupported)
	}
	return refusedError{r}
}

// refusedError is a refusal of the class ErrNotVerified.
type refusedError struct{ *sources.Refusal }

func (e refusedError) Unwrap() []error { return []error{ErrNotVerified, e.Refusal} }

// goodFile is the note of the last revision that was not refused.
const goodFile = "verified.json"

// good is its content. It is trusted in nothing: what it names is verified again.
type good struct {
	URL, Ref, Object, Commit string
	Kind                     kind
}

// noteGood remembers a revision that was found good, so that it can be used after a restart while a newer one is
// refused. That it cannot be written takes nothing away from the revision.
func (s *Source) noteGood(keys *signature.Keys, sel selection) {
	if keys == nil || s.opt.Dir == "" {
		return
	}
	data, err := json.Marshal(good{s.at.shown(), sel.ref, sel.object.String(), sel.commit.String(), sel.kind})
	if err != nil || os.MkdirAll(s.opt.Dir, 0o700) != nil {
		return
	}
	f, err := os.CreateTemp(s.opt.Dir, "."+goodFile+"-")
	if err != nil {
		return
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.opt.Dir, goodFile))
	}
	if err != nil {
		os.Remove(f.Name())
	}
}

// lastGood is the answer when the newest revision is refused: the refusal, and for who has nothing the last revision
// that was not, if it is still here and its signature still holds.
func (s *Source) lastGood(ctx context.Context, had plumbing.Hash, keys *signature.Keys, refusal error) (sources.Snapshot, error) {
	if !had.IsZero() || keys == nil || s.opt.Dir == "" {
		return sources.Snapshot{}, refusal
	}
	data, err := os.ReadFile(filepath.Join(s.opt.Dir, goodFile))
	if err != nil {
		return sources.Snapshot{}, refusal
	}
	var note good
	if json.Unmarshal(data, &note) != nil || note.URL != s.at.shown() {
		return sources.Snapshot{}, refusal
	}
	sel := selection{kind: note.Kind, ref: note.Ref, object: hashOf(note.Object), commit: hashOf(note.Commit)}
	if sel.commit.IsZero() || !s.repo.has(sel.commit) {
		return sources.Snapshot{}, refusal
	}
	signatures, err := s.verify(keys, sel)
	if err != nil {
		return sources.Snapshot{}, refusal
	}
	snapshot, err := s.selected(ctx, sel, signatures)
	if err != nil {
		return sources.Snapshot{}, refusal
	}
	s.last, s.judged = sel, verdict{keys.Digest(), sel}
	return snapshot, refusal
}

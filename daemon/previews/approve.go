package previews

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
	"github.com/fairlead-dev/fairlead/sources/forge"
)

// Approvers decide who may approve on a pull request what a plan waits for.
type Approvers interface {
	// Any reports whether there is anybody who may.
	Any() bool
	// MayApprove returns why somebody may not; nil when they may. The error is shown to everybody who can read the
	// pull request.
	MayApprove(q ApprovalQuestion) error
}

// ApprovalQuestion is whether an account may approve what waits in an application.
type ApprovalQuestion struct {
	Forge      forge.Kind
	Repository string
	// Account asks, Author opened the pull request; both as in forge.Comment.Author.
	Account, Author string
	Application     string
}

// Accounts are Approvers by the names of their accounts.
type Accounts struct {
	Names []string
	// ExcludeAuthor has nobody approve their own pull request.
	ExcludeAuthor bool
}

// Any implements Approvers.
func (a Accounts) Any() bool { return len(a.Names) > 0 }

// MayApprove implements Approvers.
func (a Accounts) MayApprove(q ApprovalQuestion) error {
	switch {
	case q.Account == "" || !slices.ContainsFunc(a.Names, func(n string) bool { return strings.EqualFold(n, q.Account) }):
		return fmt.Errorf("%s may not approve: it is not among the approvers of this forge in the settings of Fairlead", planview.Code(q.Account))
	case a.ExcludeAuthor && strings.EqualFold(q.Account, q.Author):
		return fmt.Errorf("%s opened this pull request, and the settings of Fairlead want somebody else to approve it", planview.Code(q.Account))
	}
	return nil
}

// approval was given on a pull request, before it was merged.
type approval struct {
	// Content is what was approved, as in plan.Blocked, and Head the commit at which that was said.
	Content string    `json:"content"`
	Head    string    `json:"head"`
	By      string    `json:"by"`
	At      time.Time `json:"at"`
}

// approve answers /fairlead approve DIGEST.
func (m *Manager) approve(ctx context.Context, r Repository, e forge.Event, digest string) error {
	pr, err := r.Forge.PullRequest(ctx, r.Path, e.PullRequest)
	if err != nil {
		return err
	}
	refused := m.mayAtAll(ctx, r, e, pr)
	switch {
	case refused == nil && pr.State == forge.Open:
		refused = m.approveBefore(r, e, pr, digest)
	case refused == nil && pr.State == forge.Merged:
		refused = m.approveAfter(ctx, r, e, pr, digest)
	case refused == nil:
		refused = refusal("The pull request is closed: there is nothing to approve.")
	}
	var why refusal
	switch {
	case errors.As(refused, &why):
		return errors.Join(m.react(ctx, r, e, forge.Confused), m.answer(ctx, r, pr.Number, string(why)))
	case refused != nil:
		return refused
	}
	m.options.Log.Info().Str("repository", r.Path).Int("pullRequest", pr.Number).Str("digest", digest).Str("by", e.Comment.Author).Msg("approved on the pull request")
	m.Look(r, pr.Number)
	return m.react(ctx, r, e, forge.ThumbsUp)
}

// refusal says on a pull request why something is not approved.
type refusal string

// Error implements error.
func (r refusal) Error() string { return string(r) }

// mayAtAll reports whether the comment is there as it was delivered, and whether there is anybody who may approve.
func (m *Manager) mayAtAll(ctx context.Context, r Repository, e forge.Event, pr forge.PullRequest) error {
	if r.Approvers == nil || !r.Approvers.Any() {
		return refusal("Nobody may approve here: the settings of Fairlead name no approvers of this forge. `fairlead approve` does it on the daemon's host.")
	}
	all, err := r.Forge.Comments(ctx, r.Path, pr.Number)
	if err != nil {
		return err
	}
	// A delivery is not believed, and a comment can be edited by others than who wrote it: what is there now and what was
	// delivered when it was new must be one.
	i := slices.IndexFunc(all, func(c forge.Comment) bool { return c.ID == e.Comment.ID })
	if i >= 0 && all[i].Author == e.Comment.Author {
		if words, ok := forge.ParseCommand(all[i].Body); ok && slices.Equal(words, e.Comment.Command) {
			return nil
		}
	}
	return refusal("The comment is not there any more as it was written, so nothing is approved.")
}

// approveBefore remembers an approval of an open pull request until it is merged.
func (m *Manager) approveBefore(r Repository, e forge.Event, pr forge.PullRequest, digest string) error {
	if pr.Fork {
		return refusal("A change from outside is planned without keys and Secrets: what it does is known, and can be approved, when it has been merged.")
	}
	var refused error
	err := m.promises.change(pull{r.Forge.Kind(), r.Path, pr.Number}, func(said *promise, found bool) bool {
		i := slices.IndexFunc(said.Applications, func(p promised) bool { return p.Needs != "" && p.Needs == digest })
		switch {
		case !found || i < 0:
			refused = refusal("Nothing waits here that has the digest " + planview.Code(digest) + ": it may have changed since. The newest preview says what does.")
		case pr.Head.Commit == "" || !strings.HasPrefix(said.Head, pr.Head.Commit):
			refused = refusal("There is a newer commit than the one that the digest is of: wait for its preview.")
		default:
			refused = m.may(r, e, pr, said.Applications[i].Name)
		}
		if refused != nil {
			return false
		}
		said.Applications[i].Approval = &approval{Content: digest, Head: said.Head, By: e.Comment.Author, At: time.Now().UTC()}
		return true
	})
	return errors.Join(refused, err)
}

// approveAfter approves what waits after the merge.
func (m *Manager) approveAfter(ctx context.Context, r Repository, e forge.Event, pr forge.PullRequest, digest string) error {
	key := pull{r.Forge.Kind(), r.Path, pr.Number}
	said, ok := m.promises.load(key)
	apps, err := m.planner.Applications(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(apps, func(a api.Application) bool {
		return a.Blocked != nil && a.Blocked.Digest == digest && slices.ContainsFunc(said.Applications, func(p promised) bool { return p.Name == a.Name })
	})
	if !ok || i < 0 {
		return refusal("Nothing waits here that has the digest " + planview.Code(digest) + ".")
	}
	if err := m.may(r, e, pr, apps[i].Name); err != nil {
		return err
	}
	switch err := m.planner.ApproveAs(ctx, apps[i].Name, digest, approvedBy(e.Comment.Author, r, pr)); {
	case errors.Is(err, api.ErrMoved), errors.Is(err, api.ErrNotFound):
		return refusal("What waits has changed meanwhile: look at its new digest.")
	case err != nil:
		return err
	}
	// What becomes of it now is told, also where the end of it was told already.
	return m.promises.change(key, func(said *promise, found bool) bool {
		said.Told = ""
		return found
	})
}

func (m *Manager) may(r Repository, e forge.Event, pr forge.PullRequest, application string) error {
	err := r.Approvers.MayApprove(ApprovalQuestion{
		Forge: r.Forge.Kind(), Repository: r.Path, Account: e.Comment.Author, Author: pr.Author, Application: application,
	})
	if err != nil {
		return refusal(err.Error() + ".")
	}
	return nil
}

// approvedBy names who approved, for the record.
func approvedBy(account string, r Repository, pr forge.PullRequest) string {
	return fmt.Sprintf("%s (%s, on %s)", account, r.Forge.Kind(), pr.URL)
}

// redeem approves in the name of who approved a pull request before its merge, if what waits now is what was approved then. It
// reports whether it did.
func (m *Manager) redeem(ctx context.Context, r Repository, pr forge.PullRequest, said promised, waits api.Application) bool {
	given := said.Approval
	if given == nil || waits.Blocked == nil || given.Content != waits.Blocked.Content || r.Approvers == nil {
		return false
	}
	// Who might then need not today.
	q := ApprovalQuestion{Forge: r.Forge.Kind(), Repository: r.Path, Account: given.By, Author: pr.Author, Application: waits.Name}
	if r.Approvers.MayApprove(q) != nil {
		return false
	}
	err := m.planner.ApproveAs(ctx, waits.Name, waits.Blocked.Digest, approvedBy(given.By, r, pr))
	if err != nil && !errors.Is(err, api.ErrMoved) {
		m.options.Log.Warn().Err(err).Str("application", waits.Name).Msg("what was approved on the pull request is not")
	}
	return err == nil
}

package reconcile

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/store"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/sources"
)

// aim is what is reconciled towards: the newest revision or, after it has failed, the last good one.
type aim struct {
	rendered
	// failed is the newest revision's failure; nil when it has not failed.
	failed *store.Failure
	// back is true when rendered is the last good revision, in place of the one that failed.
	back bool
	// held is true when nothing is tried any more until Git or the declaration moves, or somebody asks.
	held bool
	// gone says why the application does not go back though it is to; nil when it does.
	gone error
}

// aims says what is to be reconciled towards, from what was rendered last.
func (a *Application) aims(ctx context.Context, c Config) aim {
	to := aim{rendered: a.inForce()}
	f := a.record.Failed
	if c.Removed || !to.ok || f == nil || f.Content != to.content || f.How != howOf(c) {
		return to
	}
	to.failed, to.held = f, true
	if f.Back == "" && !a.goesBack(c) {
		return to
	}
	good, err := a.lastGood(ctx, c)
	if err != nil {
		to.gone = err
		return to
	}
	to.rendered, to.back, to.held = good, true, f.BackReason != ""
	// It ran before: to come back to it nobody is asked about the kinds of what changes.
	to.desired.Application.Approval.Kinds = nil
	return to
}

// chooses returns what is aimed at, after asking for it: what is held is tried again when somebody asks for the plan that
// is shown, and what failed when somebody asks for that.
func (a *Application) chooses(ctx context.Context, c Config, asked, again bool) (aim, error) {
	to := a.aims(ctx, c)
	if f := a.record.Failed; f != nil && to.failed == nil && to.ok && f.Content == to.content {
		a.retrySync = true // the declaration moved
	}
	switch {
	case to.failed == nil:
	case again:
		to.back = false
		fallthrough
	case asked && to.held && !c.Suspend:
		if err := a.forget(to); err != nil {
			return aim{}, err
		}
		to = a.aims(ctx, c)
	}
	a.aim = to
	return to, nil
}

// goesBack reports whether the application goes back by itself when its newest revision fails.
func (a *Application) goesBack(c Config) bool {
	return c.Rollback && !c.Suspend && !c.Manual && !c.Removed && a.record.Revision != ""
}

// onTrial reports whether what is aimed at has yet to prove that it is good.
func (a *Application) onTrial(c Config, to aim) bool {
	switch {
	case c.Removed || !to.ok:
		return false
	case to.back:
		return to.failed.BackAt.IsZero() && to.failed.BackReason == ""
	case a.record.Content == "":
		return a.record.Revision != string(to.revision)
	default:
		return a.record.Content != to.content
	}
}

// begin notes that what is aimed at is on trial from now on, unless it is already. It is recorded with what is done first.
func (a *Application) begin(c Config, to aim) {
	how, have := howOf(c), a.record.Attempt
	if have != nil && have.Content == to.content && have.How == how && have.Back == to.back {
		return
	}
	a.record.Attempt = &store.Attempt{Revision: string(to.revision), Content: to.content, How: how, Back: to.back, Since: time.Now().UTC()}
	a.failures, a.failing = 0, time.Time{}
	if !to.back {
		a.record.Failed = nil // Git or the declaration has moved
		return
	}
	a.world.Declared(c.Name, to.desired.Objects)
	f := *to.failed
	f.Back, f.BackAt, f.BackReason, f.BackMessage = string(to.revision), time.Time{}, "", ""
	a.record.Failed = &f
}

// since is when what is on trial had its first chance: it was begun, this process ran, and the nodes answered.
func (a *Application) since() time.Time {
	if t := a.record.Attempt; t != nil && t.Since.After(a.answering) {
		return t.Since
	}
	return a.answering
}

// forget lets what failed be tried again.
func (a *Application) forget(to aim) error {
	r := a.record
	r.Attempt = nil
	if to.back {
		f := *r.Failed
		f.BackAt, f.BackReason, f.BackMessage = time.Time{}, "", ""
		r.Failed = &f
	} else {
		r.Failed = nil
		if to.failed.Back != "" {
			a.world.Declared(a.Name(), a.inForce().desired.Objects)
		}
	}
	a.failed, a.failures, a.failing, a.notUntil = nil, 0, time.Time{}, time.Time{}
	return a.save(r, store.Change{Durable: true})
}

// lastGood is the last good revision as it was applied. It is rendered again after a restart, and counts only when that
// gives exactly what it gave then. What is gone for good is not asked for again until the source moves.
func (a *Application) lastGood(ctx context.Context, c Config) (rendered, error) {
	rev, content := a.record.Revision, a.record.Content
	if a.proven.ok && string(a.proven.revision) == rev && a.proven.content == content {
		return a.proven, nil
	}
	if a.absent.err != nil && a.absent.good == rev && a.absent.newest == a.rendered.revision && (a.absent.again.IsZero() || time.Now().Before(a.absent.again)) {
		return rendered{}, a.absent.err
	}
	good, err := a.renderGood(ctx, c, sources.Revision(rev))
	if err == nil && content != "" && good.content != content {
		err = fmt.Errorf("%w: %s does not give what it gave when it was applied, since the declaration, or what it refers to, is another now",
			sources.ErrGone, sources.Revision(rev).Short())
	}
	if err != nil {
		failures := a.absent.failures + 1
		if a.absent.good != rev || a.absent.newest != a.rendered.revision {
			failures = 1
		}
		a.absent = lostGood{err: err, good: rev, newest: a.rendered.revision, failures: failures}
		if !errors.Is(err, sources.ErrGone) {
			a.absent.again = time.Now().Add(backoff(failures, c.RetryInterval))
		}
		return rendered{}, err
	}
	a.proven, a.absent = good, lostGood{}
	return good, nil
}

// lostGood says why the last good revision could not be had, and when to try again: never when that is zero.
type lostGood struct {
	err      error
	good     string
	newest   sources.Revision
	failures int
	again    time.Time
}

// renderGood renders an earlier revision.
func (a *Application) renderGood(ctx context.Context, c Config, rev sources.Revision) (rendered, error) {
	snapshot, err := a.world.Snapshot(ctx, c.Source, rev)
	if err != nil {
		return rendered{}, fmt.Errorf("the last good revision cannot be had: %w", err)
	}
	options, found := a.world.Options(c)
	if found.HasErrors() {
		return rendered{}, fmt.Errorf("the last good revision cannot be rendered: %s", summary(found))
	}
	a.cached = rev
	result, err := a.world.Render(ctx, c.Name, render.Request{
		Source: c.Source, Revision: string(rev), Files: snapshot.Files, Path: c.Path, Options: options,
	}, nil)
	if err != nil {
		return rendered{}, fmt.Errorf("the last good revision cannot be rendered: %w", err)
	}
	if result.Diags.HasErrors() {
		return rendered{}, fmt.Errorf("the last good revision cannot be rendered: %s", summary(result.Diags))
	}
	found = append(found, result.Diags...)
	app := c.Application
	app.Revision = string(rev)
	desired, more := plan.Expand(app, result.Objects, true)
	found = append(found, more...)
	if found.HasErrors() {
		return rendered{}, fmt.Errorf("the last good revision cannot be rendered: %s", summary(found))
	}
	good := rendered{
		revision: rev, options: optionsFingerprint(c, options, diag.List{}), desired: desired, diags: found, ok: true,
		content: contentOf(a.options.DigestKey, desired.Objects),
	}
	a.world.Declared(c.Name, result.Objects)
	return good, nil
}

// contentOf identifies what objects say, in whichever commit they are. Secrets are among them, so it is keyed.
func contentOf(key []byte, objects []object.Object) string {
	h := hmac.New(sha256.New, key)
	buf := make([]byte, 0, 4096)
	for i := range objects {
		o := &objects[i]
		for _, s := range [...]string{o.Group, o.Kind, o.Namespace, o.Name, o.APIVersion, o.Hash} {
			buf = append(append(buf, s...), 0)
		}
		if len(buf) > 3072 {
			h.Write(buf)
			buf = buf[:0]
		}
	}
	h.Write(buf)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// howOf identifies what the declaration says about applying a revision, beside what it makes of it. Each of these may be
// changed to have what failed tried again.
func howOf(c Config) string {
	b, err := json.Marshal(struct {
		Prune, AllowEmpty, Force, Wait bool
		Timeout                        time.Duration
		Ignore                         []plan.IgnoreRule
		Requested                      string
	}{c.Prune, c.AllowEmpty, c.Force, c.Wait, c.Timeout, c.Ignore, c.Requested})
	if err != nil {
		panic(fmt.Sprintf("how application %s is applied cannot be encoded: %v", c.Name, err))
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

package reconcile

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/sources"
)

// rendered remembers what the desired state was made from.
type rendered struct {
	revision sources.Revision
	options  []byte
	// content identifies what the objects say; empty when they are not complete.
	content string
	desired plan.Desired
	diags   diag.List
	ok      bool
	// failures counts the tries in a row that were not ok; the next one is due at retry.
	failures int
	retry    time.Time
}

// inForce is what is reconciled towards.
func (a *Application) inForce() rendered {
	if !a.rendered.ok && a.good.revision != "" {
		return a.good
	}
	return a.rendered
}

type problem struct{ reason, detail string }

// render brings a.rendered to the newest snapshot and options. What it returns as problem keeps the
// last good objects in place.
func (a *Application) render(ctx context.Context, c Config) (SourceStatus, problem) {
	if c.Removed {
		defer a.wish(c, "")
		a.rendered = rendered{revision: a.rendered.revision, ok: true, desired: plan.Desired{Application: Removed(c), Complete: true}}
		return SourceStatus{}, problem{}
	}
	source, ok := a.world.Source(c.Source)
	switch {
	case !ok:
		return source, problem{"SourceMissing", fmt.Sprintf("source %s is not declared", c.Source)}
	case source.Snapshot.Revision == "" && source.Err != nil:
		return source, problem{sourceReason(source.Err), fmt.Sprintf("source %s: %v", c.Source, source.Err)}
	case source.Snapshot.Revision == "":
		return source, problem{"Waiting", fmt.Sprintf("source %s was not fetched yet", c.Source)}
	}
	var stale problem
	if source.Err != nil {
		stale = problem{sourceReason(source.Err), fmt.Sprintf("source %s: %v; revision %s stays in force", c.Source, source.Err, source.Snapshot.Revision.Short())}
	}
	options, found := a.world.Options(c)
	fingerprint := optionsFingerprint(c, options, found)
	same := a.rendered.revision == source.Snapshot.Revision && bytes.Equal(a.rendered.options, fingerprint)
	defer a.wish(c, source.Snapshot.Revision)
	if same && (a.rendered.ok || time.Now().Before(a.rendered.retry)) {
		return source, stale
	}
	var changed []string
	if a.rendered.revision != "" && a.cached == a.rendered.revision && bytes.Equal(a.rendered.options, fingerprint) && source.Snapshot.Changed != nil {
		if paths, known := source.Snapshot.Changed(a.rendered.revision); known {
			changed = append([]string{}, paths...)
		}
	}
	var result render.Result
	if !found.HasErrors() {
		var err error
		a.cached = source.Snapshot.Revision
		result, err = a.world.Render(ctx, c.Name, render.Request{
			Source: c.Source, Revision: string(source.Snapshot.Revision),
			Files: source.Snapshot.Files, Path: c.Path, Options: options,
		}, changed)
		if err != nil {
			result.Diags = append(result.Diags, diag.Diagnostic{
				Severity: diag.Error, Code: "render-failed",
				Origin:  object.Origin{Source: c.Source, Revision: string(source.Snapshot.Revision), Path: c.Path},
				Message: err.Error(),
			})
		}
	}
	found = append(found, result.Diags...)
	app := c.Application
	app.Revision = string(source.Snapshot.Revision)
	complete := !found.HasErrors()
	desired, more := a.expander.Expand(app, result.Objects, complete)
	found = append(found, more...)
	content := ""
	if complete {
		content = contentOf(a.options.DigestKey, desired.Objects)
		// What the application has gone back from declares nothing.
		if f := a.record.Failed; f == nil || f.Back == "" || f.Content != content || f.How != howOf(c) {
			found = append(found, a.world.Declared(c.Name, result.Objects)...)
		}
	}
	desired.Complete = !found.HasErrors()
	now := rendered{revision: source.Snapshot.Revision, options: fingerprint, content: content, desired: desired, diags: found, ok: desired.Complete}
	if now.ok {
		a.good = now
	} else {
		// What it refers to may come, and a worker that ended may have been unlucky.
		now.failures = 1
		if same {
			now.failures += a.rendered.failures
		}
		now.retry = time.Now().Add(backoff(now.failures, c.RetryInterval))
	}
	a.rendered = now
	if !same {
		a.failures, a.failing, a.notUntil = 0, time.Time{}, time.Time{} // what is new is tried at once
	}
	return source, stale
}

// sourceReason tells a revision that is refused from a source that failed.
func sourceReason(err error) string {
	var refusal *sources.Refusal
	if errors.As(err, &refusal) {
		return "RevisionRefused"
	}
	return "SourceFailed"
}

// Removed is the application without anything desired.
func Removed(c Config) plan.Application {
	app := c.Application
	app.Prune, app.AllowEmpty = true, true
	app.Removed = cmp.Or(c.Why, "the application is no longer declared")
	return app
}

func optionsFingerprint(c Config, o render.Options, found diag.List) []byte {
	// Substitutions and keys are part of it; the bytes stay in this process.
	b, err := json.Marshal(struct {
		Application plan.Application
		Options     render.Options
		Keys        []string
		Found       diag.List
		// What is suspended may be kept from declaring anything, so it is looked at again when that ends.
		Suspend bool
		// Whoever it acts as may declare more or less.
		Identity string
	}{c.Application, o, o.AgeKeys, found, c.Suspend, c.Identity})
	if err != nil {
		panic(fmt.Sprintf("options of application %s cannot be encoded: %v", c.Name, err))
	}
	return b
}

// compute observes and plans, and returns how long planning took; 0 when nothing is other than before.
func (a *Application) compute(ctx context.Context, c Config, d plan.Desired) (plan.Plan, time.Duration) {
	nodes := a.world.Observe(ctx)
	a.silent = nil
	for _, n := range nodes {
		if n.Stale {
			a.silent = append(a.silent, n.Node)
		}
	}
	if len(a.silent) > 0 {
		a.answering = time.Time{}
	} else if a.answering.IsZero() {
		a.answering = time.Now()
	}
	o := plan.Observed{
		Nodes:   nodes,
		Applied: a.record.Inventory,
		Since:   a.record.AppliedAt,
		Sync:    a.record.Sync,
		Retry:   a.retrySync,
	}
	standing := a.world.Claims().Standing(c.Name, a.last.refsOf(d), !a.looking)
	o.Claims, o.Arrivals = standing.Others, standing.Arrivals
	o.Suspended = a.world.Suspended()
	asked := a.last.leftovers
	a.askOthers(c, &o, asked)
	o.Now = time.Now()
	p, took := a.last.compute(d, o, a.options)
	if !slices.Equal(p.Leftovers, asked) {
		a.askOthers(c, &o, p.Leftovers)
		p, took = a.last.compute(d, o, a.options)
	}
	// Approvals are looked for only where one is needed. What cannot be read approves nothing.
	if p.Blocked != nil {
		if list, err := a.store.Approvals(c.Name); err == nil && len(list) > 0 {
			app := &d.Application
			app.Approved, app.Granted = slices.Clip(app.Approved), slices.Clip(app.Granted)
			for _, given := range list {
				app.Approved, app.Granted = append(app.Approved, given.Digest), append(app.Granted, given.Tokens...)
			}
			p, took = a.last.compute(d, o, a.options)
		}
	}
	return p, took
}

// askOthers finds out whether other applications want what is left over.
func (a *Application) askOthers(c Config, o *plan.Observed, leftovers []object.Ref) {
	o.Departures, o.Unsettled = nil, ""
	if len(leftovers) == 0 {
		return
	}
	// In this order: who is settled after the first answer has said what it wants before.
	o.Unsettled = a.world.Unsettled(c.Name)
	o.Departures = a.world.Claims().Departures(c.Name, leftovers, a.world.IsDeclared)
}

// wish says what the application wants. While it is suspended, and while its newest revision has failed, it keeps
// everything that it has.
func (a *Application) wish(c Config, looked sources.Revision) {
	if a.looking {
		return
	}
	var wanted []object.Ref
	switch d := a.inForce().desired; {
	case c.Removed:
		a.world.Claims().Wants(c.Name, nil)
	case !d.Complete: // it wants what it wanted
	case c.Suspend && !c.Frozen, a.record.Failed != nil: // it may go back to what it has
		wanted = union(d.Objects, a.record.Inventory)
		a.world.Claims().Wants(c.Name, wanted)
	default:
		wanted = a.last.refsOf(d)
		a.world.Claims().Wants(c.Name, wanted)
	}
	a.mu.Lock()
	settled := a.looked != looked
	a.looked = looked
	a.mu.Unlock()
	if settled {
		a.world.Settled(c.Name)
	}
}

// Unsettled says why it is not known yet what the application wants of the newest snapshot of its source; empty when it
// is. What cannot be known, because the source or the rendering fails, is not waited for.
func (a *Application) Unsettled(source SourceStatus, known bool) string {
	a.mu.Lock()
	c, looked := a.config, a.looked
	a.mu.Unlock()
	switch {
	case c.Removed || !known:
		return ""
	case source.Snapshot.Revision == "" && source.Err == nil:
		return fmt.Sprintf("the source of application %s was not fetched yet", c.Name)
	case source.Snapshot.Revision == "" || source.Snapshot.Revision == looked:
		return ""
	}
	return fmt.Sprintf("application %s was not looked at yet", c.Name)
}

// union returns the refs of what is desired and of what was applied, in order; both are.
func union(desired []object.Object, applied []plan.Applied) []object.Ref {
	refs := make([]object.Ref, 0, max(len(desired), len(applied)))
	for len(desired)+len(applied) > 0 {
		switch {
		case len(applied) == 0:
			refs, desired = append(refs, desired[0].Ref), desired[1:]
		case len(desired) == 0:
			refs, applied = append(refs, applied[0].Ref), applied[1:]
		default:
			order := object.Compare(desired[0].Ref, applied[0].Ref)
			if order <= 0 {
				refs, desired = append(refs, desired[0].Ref), desired[1:]
			}
			if order == 0 {
				applied = applied[1:]
			} else if order > 0 {
				refs, applied = append(refs, applied[0].Ref), applied[1:]
			}
		}
	}
	return refs
}

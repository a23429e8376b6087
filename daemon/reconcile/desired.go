package reconcile

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
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
	desired  plan.Desired
	diags    diag.List
	ok       bool
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
		a.rendered = rendered{revision: a.rendered.revision, ok: true, desired: plan.Desired{Application: removed(c), Complete: true}}
		return SourceStatus{}, problem{}
	}
	source, ok := a.world.Source(c.Source)
	switch {
	case !ok:
		return source, problem{"SourceMissing", fmt.Sprintf("source %s is not declared", c.Source)}
	case source.Snapshot.Revision == "" && source.Err != nil:
		return source, problem{"SourceFailed", fmt.Sprintf("source %s: %v", c.Source, source.Err)}
	case source.Snapshot.Revision == "":
		return source, problem{"Waiting", fmt.Sprintf("source %s was not fetched yet", c.Source)}
	}
	var stale problem
	if source.Err != nil {
		stale = problem{"SourceFailed", fmt.Sprintf("source %s: %v; what was fetched before stays in force", c.Source, source.Err)}
	}
	options, found := a.world.Options(c)
	fingerprint := optionsFingerprint(c, options, found)
	same := a.rendered.revision == source.Snapshot.Revision && bytes.Equal(a.rendered.options, fingerprint)
	if same && (a.rendered.ok || time.Now().Before(a.rendered.retry)) {
		return source, stale
	}
	var changed []string
	if a.rendered.revision != "" && bytes.Equal(a.rendered.options, fingerprint) && source.Snapshot.Changed != nil {
		if paths, known := source.Snapshot.Changed(a.rendered.revision); known {
			changed = append([]string{}, paths...)
		}
	}
	var result render.Result
	if !found.HasErrors() {
		var err error
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
	if complete {
		found = append(found, a.world.Declared(c.Name, result.Objects)...)
	}
	desired, more := a.expander.Expand(app, result.Objects, complete)
	found = append(found, more...)
	desired.Complete = !found.HasErrors()
	now := rendered{revision: source.Snapshot.Revision, options: fingerprint, desired: desired, diags: found, ok: desired.Complete}
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
		a.failures, a.notUntil = 0, time.Time{} // what is new is tried at once
	}
	return source, stale
}

// removed is the application without anything desired.
func removed(c Config) plan.Application {
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
	}{c.Application, o, o.AgeKeys, found, c.Suspend})
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
	o := plan.Observed{
		Nodes:   nodes,
		Applied: a.record.Inventory,
		Claims:  a.world.Claims(c.Name, a.last.refsOf(d)),
	}
	o.Now = time.Now()
	return a.last.compute(d, o, a.options)
}

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
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/sources/forge"
)

// result is what became of one application.
type result struct {
	name string
	// done is true when nothing more is expected to happen.
	done, failed bool
	// passing is true for a failure that is not the verdict on the revision: that may follow at once, and then what comes of it.
	passing bool
	text    string
	// other is true when what it wants now is not what the preview said.
	other bool
	// digest is that of what waits for an approval; empty for nothing. another is who approved something else before.
	digest, another string
}

// outcome tells on a merged pull request what became of it: applied, failed with the reason, or rolled back. It follows the
// applications until the last of them is done, or the time is over.
func (m *Manager) outcome(ctx context.Context, r Repository, pr forge.PullRequest) error {
	key := pull{r.Forge.Kind(), r.Path, pr.Number}
	said, ok := m.promises.load(key)
	if !ok || pr.MergeCommit == "" || said.Told == pr.MergeCommit || len(said.Applications) == 0 {
		return nil // nothing was said, or everything was
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	deadline := time.NewTimer(m.options.Outcome)
	defer deadline.Stop()
	changed := make(chan struct{}, 1)
	m.all.Go(func() {
		_ = m.planner.Watch(ctx, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	})
	var shown []result
	var settled <-chan time.Time
	end := func() error {
		return m.promises.change(key, func(said *promise, found bool) bool {
			said.Told = pr.MergeCommit
			return found
		})
	}
	late := false
	for {
		apps, err := m.planner.Applications(ctx)
		if err != nil {
			return err
		}
		now := m.results(ctx, r, pr, said, apps, late)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !slices.Equal(now, shown) {
			shown, settled = now, nil
			if err := m.tell(ctx, r, pr, said, now); err != nil {
				return err
			}
		}
		switch {
		case slices.ContainsFunc(now, func(r result) bool { return !r.done }):
		case !slices.ContainsFunc(now, func(r result) bool { return r.passing }):
			return end()
		case settled == nil:
			settled = time.After(m.options.Settle)
		}
		select {
		case <-settled:
			return end()
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			// People take their time.
			late = !slices.ContainsFunc(now, func(r result) bool { return r.digest != "" })
			deadline.Reset(m.options.Outcome)
		case <-changed:
		}
	}
}

// results says how far each application is that the merge was said to change.
func (m *Manager) results(ctx context.Context, r Repository, pr forge.PullRequest, said promise, apps []api.Application, late bool) []result {
	var out []result
	for _, p := range said.Applications {
		i := slices.IndexFunc(apps, func(a api.Application) bool { return a.Name == p.Name })
		res := result{name: p.Name}
		switch {
		case i < 0 && p.Wants == "":
			res.done, res.text = true, "removed"
		case i < 0:
			res.text = "not declared yet"
		case p.Wants != "" && !m.planner.Includes(ctx, p.Name, apps[i].Revision.ID, pr.MergeCommit):
			res.text = "the merge was not fetched yet"
		case apps[i].Blocked != nil && m.redeem(ctx, r, pr, p, apps[i]):
			res.text = "approved by " + p.Approval.By + " before the merge"
		case apps[i].Reason == "Blocked":
			res = waiting(apps[i], p)
		case p.Wants == "":
			res.text = "is being removed"
		default:
			res = stateOf(apps[i])
			// What it wants is not what it was to want once it went back.
			res.other = res.done && !said.Withheld && apps[i].Failure == nil && p.Wants != m.planner.Wants(p.Name)
		}
		if late && !res.done {
			res.done, res.failed, res.text = true, true, "not done in time: "+res.text
		}
		out = append(out, res)
	}
	return out
}

// waiting is the result of an application that waits for an approval.
func waiting(a api.Application, said promised) result {
	r := result{name: a.Name, text: "waits for an approval", digest: a.Blocked.Digest}
	if said.Approval != nil && said.Approval.Content != a.Blocked.Content {
		r.another = said.Approval.By
	}
	r.text += ": " + a.Blocked.What()
	return r
}

// stateOf is the result of an application that has the merge.
func stateOf(a api.Application) result {
	r := result{name: a.Name}
	switch {
	case a.Reason == reconcile.RollingBack, a.Failure != nil && a.Phase == "Applying": // what follows is told too
		r.text = firstLine(a.Message)
	case a.Reason == reconcile.RolledBack && a.Failure != nil:
		// Not the log lines that follow: what a program writes is not for everybody who reads the pull request.
		r.done, r.failed = true, true
		r.text = fmt.Sprintf("rolled back to %s: %s: %s", a.Failure.Back.Short, a.Failure.Reason, firstLine(a.Failure.Message))
	case a.Suspended:
		r.done, r.text = true, "suspended: nothing was changed"
	case a.Health == api.Failed, a.Health == api.Degraded:
		r.done, r.failed, r.text = true, true, "failed: "+a.Reason+": "+firstLine(a.Message)
		r.passing = a.Failure == nil
	case a.Ready:
		r.done, r.text = true, "applied"
	case a.StepsTotal > 0:
		r.text = fmt.Sprintf("%d of %d steps are done", a.StepsDone, a.StepsTotal)
	default:
		r.text = firstLine(a.Message)
	}
	return r
}

// tell shows results: at the top of the comment, and as statuses of the merge commit.
func (m *Manager) tell(ctx context.Context, r Repository, pr forge.PullRequest, said promise, results []result) error {
	var errs []error
	set := func(s forge.Status) {
		s.URL = pr.URL
		_, err := r.Forge.SetStatus(ctx, r.Path, pr.MergeCommit, s)
		errs = append(errs, err)
	}
	done, failed, other, waits := 0, 0, 0, 0
	var table, below strings.Builder
	for _, res := range results {
		state := forge.Pending
		if res.done {
			done++
			state = forge.Success
		}
		if res.failed {
			failed++
			state = forge.Failure
		}
		text := res.text
		if res.digest != "" {
			waits++
			fmt.Fprintf(&below, "\n%s waits for an approval: `/fairlead approve %s`\n", planview.Code(res.name), res.digest)
			if res.another != "" {
				fmt.Fprintf(&below, "What %s approved before the merge is something else: something was added meanwhile.\n", planview.Code(res.another))
			}
		}
		if res.other {
			other++
			text += "; not what the preview said: the branch had moved"
		}
		set(forge.Status{Context: m.context(res.name), State: state, Description: text})
		fmt.Fprintf(&table, "| %s | %s |\n", planview.Code(res.name), planview.Code(text))
	}
	state, text := forge.Pending, fmt.Sprintf("%d of %d applications are done", done, len(results))
	switch {
	case failed > 0:
		state, text = forge.Failure, fmt.Sprintf("%d of %d applications failed", failed, len(results))
	case waits > 0:
		text = fmt.Sprintf("%d of %d applications wait for an approval: see the comment", waits, len(results))
	case done == len(results) && other == 0 && !said.Withheld:
		state, text = forge.Success, "applied as previewed"
	case done == len(results):
		state, text = forge.Success, "applied"
	}
	if other > 0 {
		text += "; not all as previewed"
	}
	set(forge.Status{Context: m.context(""), State: state, Description: text})
	body := fmt.Sprintf("### Fairlead: merged, %s\n\n| Application | |\n| --- | --- |\n%s%s\n---\n\n%s", text, table.String(), below.String(), said.Body)
	if most := r.Forge.Limits().Comment - markerRoom; len(body) > most {
		body = body[:strings.Index(body, "\n---\n")]
	}
	_, _, err := forge.PutComment(ctx, r.Forge, r.Path, pr.Number, m.options.Name, body)
	return errors.Join(append(errs, err)...)
}

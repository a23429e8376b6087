package daemon

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/daemon/store"
)

// Approve lets what waits for it be carried out, when it is what was seen.
func (s *System) Approve(ctx context.Context, r api.ApproveRequest) (api.ApproveResult, error) {
	return s.approve(ctx, r, asker(ctx))
}

// ApproveAs is Approve by somebody whom previews.Approvers let.
func (s *System) ApproveAs(ctx context.Context, application, digest, by string) error {
	_, err := s.approve(ctx, api.ApproveRequest{Application: application, Digest: digest}, by)
	return err
}

// approve is Approve, by somebody who may.
func (s *System) approve(ctx context.Context, r api.ApproveRequest, by string) (api.ApproveResult, error) {
	if s.readOnly {
		return api.ApproveResult{}, fmt.Errorf("%w: this fairlead only reads", api.ErrUnsupported)
	}
	all, err := s.shown(ctx)
	if err != nil {
		return api.ApproveResult{}, err
	}
	i := slices.IndexFunc(all, func(st reconcile.Status) bool { return st.Config.Name == r.Application })
	if i < 0 {
		return api.ApproveResult{}, fmt.Errorf("%w: application %s", api.ErrNotFound, r.Application)
	}
	waits := all[i].Plan.Blocked
	switch {
	case waits == nil:
		return api.ApproveResult{}, fmt.Errorf("%w: nothing of application %s waits for an approval", api.ErrMoved, r.Application)
	case waits.Digest != r.Digest:
		return api.ApproveResult{}, fmt.Errorf("%w: what waits in application %s has the digest %s and not %s: %s", api.ErrMoved, r.Application, waits.Digest, r.Digest, waits)
	}
	if err := s.store.Approve(r.Application, store.Approval{Digest: waits.Deletions, Tokens: waits.Tokens, By: by, At: time.Now().UTC()}); err != nil {
		return api.ApproveResult{}, err
	}
	reason := "PruneApproved"
	if waits.Whole() {
		reason = "PlanApproved"
	}
	s.keep(api.Event{
		Type: api.Normal, Reason: reason, Application: r.Application, Revision: string(all[i].Revision),
		Message: fmt.Sprintf("%s approved %s: %s", by, r.Digest, waits),
	})
	s.log.Info().Str("application", r.Application).Str("digest", r.Digest).Str("by", by).Msg("approved")
	s.mu.Lock()
	if e := s.applications[r.Application]; e != nil {
		e.worker.Poke()
	}
	s.mu.Unlock()
	return api.ApproveResult{Application: r.Application, Approved: *waits, By: by}, nil
}

// asker names the user who makes a request.
func asker(ctx context.Context) string {
	id := strconv.Itoa(os.Getuid())
	if uid, known := api.Peer(ctx); known {
		id = strconv.FormatUint(uint64(uid), 10)
	}
	u, err := user.LookupId(id)
	if err != nil {
		return "uid " + id
	}
	return fmt.Sprintf("%s (uid %s)", u.Username, id)
}

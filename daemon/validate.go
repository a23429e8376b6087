package daemon

import (
	"context"
	"maps"
	"slices"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
)

// Validate fetches and renders everything that is declared. It needs no engine and changes nothing; the
// System must be running, in mode Validate.
func (s *System) Validate(ctx context.Context) (api.Validation, error) {
	s.planMu.Lock()
	defer s.planMu.Unlock()
	if err := s.fetchAll(ctx, nil); err != nil {
		return api.Validation{}, err
	}
	looked, err := s.lookAll(ctx, nil, nil)
	if err != nil {
		return api.Validation{}, err
	}
	out := api.Validation{Applications: []api.ApplicationValidation{}}
	for _, name := range slices.Sorted(maps.Keys(looked)) {
		st := looked[name]
		src, _ := s.source(st.Config.Source)
		v := api.ApplicationValidation{
			Name: name, Source: st.Config.Source, Path: st.Config.Path,
			Revision: revisionOf(string(st.Revision), src.Snapshot), Diags: st.Diags.Sorted(),
		}
		for _, o := range st.Desired.Objects {
			if v.Kinds == nil {
				v.Kinds = map[string]int{}
			}
			v.Kinds[o.Kind]++
		}
		if st.Health == reconcile.Failed && !st.Diags.HasErrors() {
			v.Error = &api.Error{Code: api.CodeFailed, Message: st.Reason + ": " + st.Detail}
		}
		out.Applications = append(out.Applications, v)
	}
	return out, nil
}

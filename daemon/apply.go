package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/applications"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/plan"
)

// Apply makes one pass and returns when every application is done or failed.
func (s *System) Apply(ctx context.Context, r api.ApplyRequest, on func(api.Event)) (api.ApplyResult, error) {
	if s.readOnly {
		return api.ApplyResult{}, fmt.Errorf("%w: this fairlead only reads", api.ErrUnsupported)
	}
	names := r.Applications
	for _, e := range r.Expect {
		if !slices.Contains(names, e.Application) {
			names = append(names, e.Application)
		}
	}
	planned, err := s.Plan(ctx, api.PlanRequest{Applications: names}, on)
	if err != nil {
		return api.ApplyResult{}, err
	}
	if err := moved(r.Expect, planned.Expect(), s.revisionWord); err != nil {
		return api.ApplyResult{}, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var following sync.WaitGroup
	defer following.Wait()
	defer stop()
	if on != nil {
		_, seq, _ := s.events.list(api.EventQuery{Tail: 1})
		following.Go(func() {
			_ = s.events.follow(ctx, api.EventQuery{After: max(seq, 1), Follow: true}, func(e api.Event) error {
				on(e)
				return nil
			})
		})
	}
	before := map[string]int{}
	for _, st := range s.statuses() {
		before[st.Config.Name] = st.Pass
	}
	s.beginApplying(names)
	s.mu.Lock()
	entries := maps.Clone(s.applications)
	s.mu.Unlock()
	for name, e := range entries {
		if len(names) == 0 || slices.Contains(names, name) {
			e.worker.Apply()
		}
	}
	start := time.Now()
	var result api.ApplyResult
	err = s.until(ctx, func() bool {
		result = api.ApplyResult{}
		for _, st := range s.statuses() {
			if len(names) > 0 && !slices.Contains(names, st.Config.Name) {
				continue
			}
			src, _ := s.source(st.Config.Source)
			done, failed := settled(st, src, before[st.Config.Name])
			if !done || failed && st.Reason == "DependencyFailed" && !s.dependencyFailed(st) {
				return false
			}
			result.Outcomes = append(result.Outcomes, outcome(st, src, planned, failed, time.Since(start)))
		}
		return true
	})
	return result, err
}

// settled reports whether the worker of an application is done with its newest revision, and whether it failed.
func settled(st reconcile.Status, src reconcile.SourceStatus, before int) (done, failed bool) {
	switch {
	case st.Pass <= before || st.Walking:
		return false, false
	case st.Health == reconcile.Failed:
		return st.Reason != "Waiting", true
	case st.Revision != src.Snapshot.Revision:
		return false, false
	case st.Health == reconcile.Healthy:
		return st.Applied == string(st.Revision), false
	case st.Health == reconcile.Degraded:
		return true, true
	case st.Health == reconcile.Suspended:
		return true, false
	default:
		stuck := slices.ContainsFunc(st.Plan.Status, func(w plan.WorkloadStatus) bool { return stuckReasons[w.Reason] })
		return stuck, stuck
	}
}

// dependencyFailed reports whether what an application depends on has failed now, and not only when its worker looked last.
func (s *System) dependencyFailed(st reconcile.Status) bool {
	return slices.ContainsFunc(st.Config.DependsOn, func(name string) bool { return s.dependency(name, nil).Failed })
}

// stuckReasons are those, in Kubernetes' words, for which one pass waits no longer: they pass only when
// something else changes. A daemon goes on trying.
var stuckReasons = map[string]bool{
	"ErrImagePull": true, "ImagePullBackOff": true, "ErrImageNeverPull": true, "InvalidImageName": true,
	"CreateContainerConfigError": true, "CreateContainerError": true, "RunContainerError": true, "CrashLoopBackOff": true,
}

func outcome(st reconcile.Status, src reconcile.SourceStatus, planned api.PlanResult, failed bool, took time.Duration) api.Outcome {
	o := api.Outcome{
		Application: st.Config.Name, Revision: revisionOf(string(st.Revision), src.Snapshot),
		Health: api.Health(st.Health), Message: st.Detail, Duration: took,
	}
	for _, p := range planned.Applications {
		if p.Name == st.Config.Name {
			o.Counts = api.PlanResult{Applications: []api.ApplicationPlan{p}}.Counts()
			o.Total = len(p.Plan.Steps)
		}
	}
	if failed {
		o.Error = &api.Error{Code: api.CodeFailed, Message: st.Reason + ": " + st.Detail}
	} else {
		o.Done = o.Total
	}
	return o
}

// revisionWord is what the revisions of an application's source are.
func (s *System) revisionWord(application string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a, ok := s.applications[application]; ok {
		if e, ok := s.sources[a.decl.Source]; ok && e.decl.Kind == applications.Git {
			return "commit"
		}
	}
	return "contents"
}

// moved compares what a saved plan was made from with what is there. word is what an application's revisions are.
func moved(want, have []api.Expect, word func(application string) string) error {
	var errs []error
	for _, w := range want {
		i := slices.IndexFunc(have, func(h api.Expect) bool { return h.Application == w.Application })
		switch {
		case i < 0:
			errs = append(errs, fmt.Errorf("%w: application %s is no longer declared", api.ErrMoved, w.Application))
			continue
		case have[i].Revision != w.Revision:
			errs = append(errs, fmt.Errorf("%w: application %s: the plan was made from %s %s, the source is at %s now; plan again", api.ErrMoved, w.Application, word(w.Application), short(w.Revision), short(have[i].Revision)))
		}
		if have[i].Basis != w.Basis {
			errs = append(errs, fmt.Errorf("%w: application %s: the plan was made from observed state %s, it is %s now; plan again", api.ErrMoved, w.Application, short(string(w.Basis)), short(string(have[i].Basis))))
		}
	}
	return errors.Join(errs...)
}

// until waits for a condition, which is looked at again after every change.
func (s *System) until(ctx context.Context, condition func() bool) error {
	for {
		_, _, changed := s.events.list(api.EventQuery{Tail: 1})
		if condition() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// Reconcile wakes applications and their sources.
func (s *System) Reconcile(_ context.Context, names []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range names {
		if _, ok := s.applications[n]; !ok {
			return fmt.Errorf("%w: application %s", api.ErrNotFound, n)
		}
	}
	for name, e := range s.applications {
		if len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		if s.down[name] {
			delete(s.down, name)
			e.downed = false
			e.worker.Configure(s.config(*e))
		}
		if src, ok := s.sources[e.decl.Source]; ok && src.worker != nil {
			src.worker.Poke()
		}
		e.worker.Retry()
	}
	return nil
}

// Down deletes everything that applications own.
func (s *System) Down(ctx context.Context, r api.DownRequest, on func(api.Event)) (api.DownResult, error) {
	all := len(r.Applications) == 0
	names := r.Applications
	recorded, err := s.store.Applications()
	if err != nil {
		return api.DownResult{}, err
	}
	for _, p := range s.observe(ctx).Pods {
		if !slices.Contains(recorded, p.Application) {
			recorded = append(recorded, p.Application) // it was orphaned
		}
	}
	s.mu.Lock()
	for _, name := range recorded {
		if _, ok := s.applications[name]; !ok && (all || slices.Contains(names, name)) {
			// Nobody declares it any more, but it owns something.
			e := applicationEntry{removed: true, unstarted: true}
			e.decl.Name = name
			e.decl.DeletionPolicy = applications.Delete
			s.startApplication(e)
		}
	}
	if all {
		names = slices.Collect(maps.Keys(s.applications))
	}
	slices.Sort(names)
	entries := map[string]*applicationEntry{}
	for _, n := range names {
		e, ok := s.applications[n]
		if !ok {
			s.mu.Unlock()
			return api.DownResult{}, fmt.Errorf("%w: application %s", api.ErrNotFound, n)
		}
		entries[n] = e
	}
	s.mu.Unlock()

	var result api.DownResult
	for _, n := range names {
		s.mu.Lock()
		entry := *entries[n]
		entry.downed = true
		c := s.config(entry)
		s.mu.Unlock()
		st := reconcile.NewApplication(c, &onlooker{world: (*world)(s)}, s.store, s.planning).Look(ctx)
		p := api.ApplicationPlan{Name: n, Source: s.locationOf(c.Source), Path: c.Path, From: api.Revision{ID: st.Applied, Short: short(st.Applied)}, Plan: st.Plan}
		if st.Health == reconcile.Failed {
			p.Error = &api.Error{Code: api.CodeFailed, Message: st.Reason + ": " + st.Detail}
		}
		result.Applications = append(result.Applications, p)
	}
	if r.DryRun {
		return result, nil
	}
	if s.readOnly {
		return result, fmt.Errorf("%w: this fairlead only reads", api.ErrUnsupported)
	}
	start := time.Now()
	s.mu.Lock()
	for _, n := range names {
		s.down[n] = true
	}
	s.mu.Unlock()
	s.beginApplying(names)
	for _, n := range names {
		e := entries[n]
		s.mu.Lock()
		e.downed = true
		e.worker.Configure(s.config(*e))
		if e.unstarted {
			e.unstarted = false
			s.runApplication(e)
		}
		s.mu.Unlock()
	}
	err = s.until(ctx, func() bool {
		for _, n := range names {
			if !entries[n].worker.Status().Ended {
				return false
			}
		}
		return true
	})
	for i, n := range names {
		st := entries[n].worker.Status()
		o := api.Outcome{Application: n, Counts: api.PlanResult{Applications: result.Applications[i : i+1]}.Counts(), Total: len(result.Applications[i].Plan.Steps), Duration: time.Since(start)}
		if st.Ended {
			o.Done = o.Total
		} else {
			o.Error = &api.Error{Code: api.CodeFailed, Message: st.Reason + ": " + st.Detail}
		}
		result.Outcomes = append(result.Outcomes, o)
	}
	if state := s.observe(ctx); err == nil && all && !state.Stale && len(state.Pods) == 0 {
		err = s.node.Clear(ctx, s.machine.clear)
	}
	if on != nil && err == nil {
		message := fmt.Sprintf("%d applications are gone", len(names))
		if len(names) == 1 {
			message = "application " + names[0] + " is gone"
		}
		on(api.Event{Time: time.Now(), Type: api.Normal, Reason: "Down", Message: message})
	}
	return result, err
}

package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/applications"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/daemon/settings"
	"github.com/fairlead-dev/fairlead/daemon/telemetry"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/sources"
	"github.com/fairlead-dev/fairlead/sources/forge"
)

// bySettings is the declarer of what the settings file or the command line names.
const bySettings = ""

// sourceEntry is a source that is looked at.
type sourceEntry struct {
	decl    applications.Source
	key     string // of its repository, as hooks name it; empty for none
	worker  *reconcile.Source
	stop    func()
	problem string // why there is no worker, or why it still follows what was declared before
}

// applicationEntry is an application that is reconciled.
type applicationEntry struct {
	decl       applications.Application
	declaredBy string
	identity   string // whom it acts as; empty may do everything
	worker     *reconcile.Application
	cache      *render.Cache
	planCache  *render.Cache // of plans that are only shown; guarded by System.planMu
	stop       func()
	unstarted  bool // its worker waits for a decision
	removed    bool // no longer declared; its worker deletes what it owns, then ends
	downed     bool // whatever is declared, its worker deletes what it owns, then ends
}

// declare replaces what one declarer declares, and starts, changes and removes workers accordingly.
// What is missing from an incomplete declaration stays as it is.
func (s *System) declare(by string, d applications.Declared) diag.List {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, found := s.confine(by, d)
	if d.Incomplete {
		d = merged(s.declared[by], d)
	}
	s.declared[by] = d
	found = append(found, s.sync()...)
	found = append(found, s.configureImages()...)
	if by != bySettings && !d.Incomplete && s.applying && !s.caughtUp[by] {
		s.caughtUp[by] = true
		s.removeUndeclared(by)
	}
	return found
}

// removeUndeclared removes the applications that a declarer declared before this daemon was started and does
// not declare any more. The caller holds s.mu.
func (s *System) removeUndeclared(by string) {
	names, err := s.store.Applications()
	if err != nil {
		s.log.Warn().Err(err).Msg("what is no longer declared cannot be looked for")
		return
	}
	for _, name := range names {
		if _, known := s.applications[name]; known {
			continue
		}
		r, err := s.store.Load(name)
		if err != nil || r.DeclaredBy != by {
			continue // what is damaged is left alone
		}
		e := applicationEntry{removed: true, declaredBy: by}
		e.decl.Name, e.decl.DeletionPolicy = name, applications.Delete
		if r.Orphan {
			e.decl.DeletionPolicy = applications.Orphan
		}
		s.startApplication(e)
	}
}

// merged returns next with what only before had.
func merged(before, next applications.Declared) applications.Declared {
	for _, src := range before.Sources {
		if !slices.ContainsFunc(next.Sources, func(o applications.Source) bool { return o.Name == src.Name }) {
			next.Sources = append(next.Sources, src)
		}
	}
	next.Images.Add(before.Images)
	for _, app := range before.Applications {
		if !slices.ContainsFunc(next.Applications, func(o applications.Application) bool { return o.Name == app.Name }) {
			next.Applications = append(next.Applications, app)
		}
	}
	return next
}

// sync brings the workers to what is declared. The caller holds s.mu.
func (s *System) sync() diag.List {
	var found diag.List
	declarers := make([]string, 0, len(s.declared))
	for by := range s.declared {
		declarers = append(declarers, by)
	}
	slices.Sort(declarers)

	wantSources, sourceBy, fought := map[string]applications.Source{}, map[string]string{}, map[string]bool{}
	wantApplications := map[string]applicationEntry{}
	for _, by := range declarers {
		for _, src := range s.declared[by].Sources {
			first, taken := wantSources[src.Name]
			if !taken {
				wantSources[src.Name], sourceBy[src.Name] = src, by
				continue
			}
			if sameSource(first, src) {
				continue
			}
			x := contested(src.Name, sourceBy[src.Name], by, src)
			found = append(found, x)
			if sourceBy[src.Name] != bySettings {
				first.Findings = append(slices.Clone(first.Findings), x)
				wantSources[src.Name], fought[src.Name] = first, true
			}
		}
		for _, app := range s.declared[by].Applications {
			if first, taken := wantApplications[app.Name]; taken {
				found = append(found, diag.Diagnostic{
					Severity: diag.Error, Code: "application-declared-twice", Ref: app.Ref, Origin: app.Origin,
					Message: fmt.Sprintf("application %s is declared by %s already", app.Name, declarer(first.declaredBy)),
					Hint:    "rename one of them",
				})
				continue
			}
			wantApplications[app.Name] = applicationEntry{decl: app, declaredBy: by}
		}
	}
	for name, e := range wantApplications {
		e.identity = s.identityOf(e.decl, e.declaredBy, func(name string) (applications.Application, string, bool) {
			e, ok := wantApplications[name]
			if have := s.applications[name]; !ok && have != nil {
				return have.decl, have.declaredBy, true // it goes, and what it declares with it
			}
			return e.decl, e.declaredBy, ok
		})
		wantApplications[name] = e
	}
	for name, have := range s.sources {
		want, stays := wantSources[name]
		switch {
		case stays && have.worker != nil && sameSource(have.decl, want):
			have.problem = ""
		case stays && have.worker != nil && want.Broken() && !fought[name]:
			have.problem = strings.TrimSpace(want.Findings.String()) // what was declared before, and fetched, stays in force
			s.pokeApplicationsOf(name)
		case stays && have.worker == nil && sameSource(have.decl, want) && slices.Equal(have.decl.Findings, want.Findings):
		default:
			have.stop()
			delete(s.sources, name)
		}
	}
	for name, want := range wantSources {
		if _, have := s.sources[name]; !have {
			s.sources[name] = s.startSource(want)
			if s.sources[name].problem != "" {
				s.pokeApplicationsOf(name)
			}
		}
	}
	for name, have := range s.applications {
		want, stays := wantApplications[name]
		switch {
		case !stays && s.declared[have.declaredBy].Incomplete:
		case !stays:
			have.removed = true
			have.worker.Configure(s.config(*have))
		case have.removed || !reflect.DeepEqual(have.decl, want.decl) || have.declaredBy != want.declaredBy || have.identity != want.identity:
			have.decl, have.declaredBy, have.identity, have.removed = want.decl, want.declaredBy, want.identity, false
			have.worker.Configure(s.config(*have))
		}
	}
	for name, want := range wantApplications {
		s.labels.Store(name, want.decl.Labels)
		if _, have := s.applications[name]; !have {
			s.startApplication(want)
		}
	}
	return found
}

func declarer(by string) string {
	if by == bySettings {
		return "the settings"
	}
	return "application " + by
}

// sameSource reports whether the source of a can go on serving b.
func sameSource(a, b applications.Source) bool {
	if a.Broken() != b.Broken() {
		return false
	}
	// Where it is declared changes nothing in how it is fetched.
	a.Origin, b.Origin = object.Origin{}, object.Origin{}
	a.Findings, b.Findings = nil, nil
	a.Requested, b.Requested = "", ""
	return reflect.DeepEqual(a, b)
}

// startSource makes the worker of a source and, in a running system, starts it. The caller holds s.mu.
func (s *System) startSource(decl applications.Source) *sourceEntry {
	e := &sourceEntry{decl: decl, key: forge.Key(decl.Repository.URL), stop: func() {}}
	source, err := s.openSource(decl)
	if err != nil {
		e.problem = err.Error()
		return e
	}
	interval := decl.Interval
	if interval <= 0 {
		interval = time.Duration(s.settings.Defaults.Interval)
	}
	e.worker = reconcile.NewSource(reconcile.SourceConfig{
		Name: decl.Name, Interval: interval, Timeout: decl.Repository.Timeout, Suspend: decl.Suspend,
	}, source, s.sourceChanged, s.fetched)
	e.stop = s.start(func(ctx context.Context) error {
		defer e.worker.Close()
		return e.worker.Run(ctx)
	})
	return e
}

// startApplication makes the worker of an application and, in a running system, starts it. The caller holds s.mu.
func (s *System) startApplication(e applicationEntry) {
	entry := &e
	entry.cache = render.NewCache()
	entry.worker = reconcile.NewApplication(s.config(e), (*world)(s), s.store, s.planning)
	entry.stop = func() {}
	s.applications[e.decl.Name] = entry
	if s.applying && !entry.unstarted {
		s.runApplication(entry)
	}
}

// runApplication starts the worker of an application. The caller holds s.mu.
func (s *System) runApplication(entry *applicationEntry) {
	name := entry.decl.Name
	entry.stop = s.start(func(ctx context.Context) error {
		err := entry.worker.Run(ctx)
		if entry.worker.Status().Ended {
			s.ended(name, entry)
		}
		return err
	})
}

// ended forgets an application that is gone.
func (s *System) ended(name string, entry *applicationEntry) {
	s.claims.Forget(name)
	s.mu.Lock()
	if s.applications[name] == entry {
		delete(s.applications, name)
		delete(s.beside, name)
		s.labels.Delete(name)
		if !entry.worker.Status().Config.Orphan {
			delete(s.declared, name) // what it declared goes with it
		}
		s.sync() // it may have been declared again meanwhile
	}
	s.mu.Unlock()
	s.keep(api.Event{Type: api.Normal, Reason: "ApplicationRemoved", Application: name, Message: "everything of application " + name + " is gone"})
}

// config is how an application is reconciled. The caller holds s.mu.
func (s *System) config(e applicationEntry) reconcile.Config {
	d := e.decl
	c := reconcile.Config{
		Application: d.Application, Render: d.Render, RetryInterval: d.RetryInterval, Timeout: d.Timeout, Wait: d.Wait || len(d.HealthChecks) > 0,
		Suspend: d.Suspend || s.down[d.Name] || !s.selected(d.Name), Suspension: d.Suspension, Manual: d.Manual, DependsOn: d.DependsOn,
		Frozen:   s.down[d.Name] || !s.selected(d.Name),
		Rollback: rollback(d, s.settings.Defaults), Requested: d.Requested,
		DeclaredBy: e.declaredBy, Identity: e.identity, Removed: e.removed, Orphan: d.DeletionPolicy == applications.Orphan,
	}
	if c.RetryInterval <= 0 {
		c.RetryInterval = time.Duration(s.settings.Defaults.RetryInterval)
	}
	c.Limit, c.Approval = s.limit(d), s.approval(d)
	c.Render.AllowUnsupported = c.Render.AllowUnsupported || s.settings.AllowUnsupported
	if e.downed {
		c.Rollback = false
		c.Removed, c.Orphan, c.Suspend, c.Manual, c.DependsOn = true, false, false, false, nil
		c.Why = "it was asked for"
		c.Application = plan.Application{Name: c.Name, Source: c.Source, Path: c.Path, Prune: true, AllowEmpty: true}
	}
	return s.suspended(c)
}

// rollback reports whether an application goes back to its last good revision when a newer one fails.
func rollback(d applications.Application, otherwise settings.Defaults) bool {
	if d.RollbackOnFailure != nil {
		return *d.RollbackOnFailure
	}
	return otherwise.RollbackOnFailure
}

// limit is how much one plan of an application may delete without an approval.
func (s *System) limit(d applications.Application) plan.PruneLimit {
	share, count := cmp.Or(d.MaxShare, s.settings.Defaults.PruneLimit.MaxShare), cmp.Or(d.MaxCount, s.settings.Defaults.PruneLimit.MaxCount)
	if share == nil || count == nil {
		return plan.PruneLimit{} // settings without their defaults
	}
	return plan.PruneLimit{MaxShare: *share, MaxCount: *count}
}

// approval says what else of an application waits for an approval. A declaration may ask for more than the settings do, and
// not for less: what changes with it is what it would have approved.
func (s *System) approval(d applications.Application) plan.Approval {
	a := plan.Approval{Volumes: s.settings.Defaults.Approval.Volumes == nil || *s.settings.Defaults.Approval.Volumes}
	for _, k := range slices.Concat(s.settings.Defaults.Approval.Kinds, d.Approval.Kinds) {
		if !slices.Contains(a.Kinds, k) {
			a.Kinds = append(a.Kinds, k)
		}
	}
	return a
}

// selected reports whether a pass that was limited to some applications includes name.
func (s *System) selected(name string) bool {
	return len(s.only) == 0 || slices.Contains(s.only, name)
}

// fetched counts a look at a source.
func (s *System) fetched(name string, took time.Duration, moved bool, err error) {
	result := telemetry.Unchanged
	switch {
	case err != nil:
		result = telemetry.Failure
	case moved:
		result = telemetry.Success
	}
	s.recorder.FetchDone(name, result, took)
}

// sourceChanged wakes the applications of a source.
func (s *System) sourceChanged(st reconcile.SourceStatus) {
	if st.Err == nil && s.images != nil {
		s.images.SourceMoved(st.Name)
	}
	log := s.log.With().Str("source", st.Name).Logger()
	var refusal *sources.Refusal
	switch {
	case errors.As(st.Err, &refusal):
		log.Warn().Str("revision", refusal.Revision.Short()).Str("reason", refusal.Reason).Msg(st.Err.Error())
		s.keep(api.Event{Type: api.Warning, Reason: "RevisionRefused", Source: st.Name, Revision: string(refusal.Revision), Message: st.Err.Error()})
	case st.Err != nil:
		log.Warn().Err(st.Err).Int("failures", st.Failures).Msg("fetch failed; what was fetched before stays in force")
		s.keep(api.Event{Type: api.Warning, Reason: "FetchFailed", Source: st.Name, Message: st.Err.Error()})
	default:
		log.Info().Str("revision", st.Snapshot.Revision.Short()).Str("history", string(st.Snapshot.History)).Msg("new revision: " + firstLine(st.Snapshot.Message))
		e := api.Event{Type: api.Normal, Reason: "Fetched", Source: st.Name, Revision: string(st.Snapshot.Revision), Message: "fetched " + st.Snapshot.Revision.Short() + " " + firstLine(st.Snapshot.Message)}
		if signed := signedBy(st.Snapshot.Signatures); signed != "" {
			e.Message += "; " + signed
		}
		if note := historyNote(st.Snapshot.History); note != "" {
			e.Type, e.Reason, e.Message = api.Warning, "HistoryChanged", st.Snapshot.Revision.Short()+": "+note
		}
		s.keep(e)
	}
	s.mu.Lock()
	s.pokeApplicationsOf(st.Name)
	if e, ok := s.sources[st.Name]; ok && st.Err == nil {
		s.lookAtPullRequests(e.decl, st.Snapshot)
	}
	s.mu.Unlock()
	s.wakeAwaiting()
}

// pokeApplicationsOf has the applications of a source look at it. The caller holds s.mu.
func (s *System) pokeApplicationsOf(source string) {
	for _, e := range s.applications {
		if e.decl.Source == source {
			e.worker.Poke()
		}
	}
}

// signedBy says whose signatures were found good; empty when none was asked for.
func signedBy(list []sources.Signature) string {
	words := make([]string, len(list))
	for i, s := range list {
		words[i] = s.String()
	}
	return strings.Join(words, ", ")
}

// declarations returns what an application's objects declare.
func (s *System) declarations(objects []object.Object) (applications.Declared, diag.List) {
	if !slices.ContainsFunc(objects, func(o object.Object) bool { return applications.IsDeclaration(o.Ref) }) {
		return applications.Declared{}, nil
	}
	s.mu.Lock()
	also := s.declared[bySettings]
	s.mu.Unlock()
	return applications.Read(objects, s.secretsOf(objects), also)
}

// secretsOf looks up Secrets among the objects first, and then among those of every application.
func (s *System) secretsOf(objects []object.Object) applications.Secrets {
	beside := configsBeside(objects)
	return func(namespace, name string) (map[string][]byte, bool) {
		if c, ok := beside.Get(object.Ref{Kind: "Secret", Namespace: namespace, Name: name}); ok {
			return c.Data, true
		}
		return s.lookup(applications.Ref{Kind: "Secret", Namespace: namespace, Name: name})
	}
}

// configsBeside returns the ConfigMaps and Secrets among objects that declare applications, nothing for others.
func configsBeside(objects []object.Object) plan.Configs {
	if !slices.ContainsFunc(objects, func(o object.Object) bool { return applications.IsDeclaration(o.Ref) }) {
		return nil
	}
	desired, _ := plan.Expand(plan.Application{}, objects, true) // the findings are the application's own
	return desired.Configs
}

// start runs f until the returned function is called or the system ends; a system that does not run starts nothing.
func (s *System) start(f func(ctx context.Context) error) (stop func()) {
	if s.running == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(s.running)
	done := make(chan struct{})
	s.group.Go(func() error {
		defer close(done)
		return f(ctx)
	})
	return cancel
}

package daemon

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/fairlead-dev/fairlead/daemon/applications"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/sources"
)

// evaluation is what all applications want while sources are at chosen snapshots, those applications too that
// only these declare. It is worked out beside the workers, and nothing of it takes effect.
type evaluation struct {
	system *System
	// at says where sources are.
	at placing
	// before is another evaluation whose results are taken over for applications that are the same; nil for none.
	before *evaluation
	// stranger withholds everything that is not in the repository itself: keys, Secrets and other sources, with the
	// applications that come from them.
	stranger bool

	declared map[string]applications.Declared
	wants    map[string]*wanted
	beside   map[string]plan.Configs
	placed   map[string]reconcile.SourceStatus
}

// placing says where a source is in an evaluation, and false when it is where it is followed.
type placing func(ctx context.Context, decl applications.Source) (reconcile.SourceStatus, bool, error)

// wanted is one application of an evaluation.
type wanted struct {
	decl       applications.Application
	declaredBy string
	config     reconcile.Config
	snapshot   sources.Snapshot
	desired    plan.Desired
	diags      diag.List
	// problem says why there is nothing to look at: the source or the render failed.
	problem string
	// locked is true for what cannot be rendered without keys, in an evaluation without keys.
	locked bool
	// objects and rendered are what rendering gave.
	objects  []object.Object
	rendered diag.List
	// same is true when nothing of it is other than in the evaluation before.
	same bool
}

// evaluated is what an evaluation rendered last, so that the next one renders only what is other than that.
type evaluated struct {
	cache    *render.Cache
	revision sources.Revision
}

// cacheFor returns the cache of an application. The caller holds s.planMu.
func (s *System) cacheFor(key string) *evaluated {
	c := s.evaluated[key]
	if c == nil {
		c = &evaluated{cache: render.NewCache()}
		s.evaluated[key] = c
	}
	return c
}

// evaluate works out what every application wants. The caller holds s.planMu.
func (s *System) evaluate(ctx context.Context, at placing, stranger bool, before *evaluation) (*evaluation, error) {
	s.mu.Lock()
	declared := map[string]applications.Declared{bySettings: s.declared[bySettings]}
	s.mu.Unlock()
	e := &evaluation{
		system: s, at: at, stranger: stranger, before: before, declared: declared,
		wants: map[string]*wanted{}, beside: map[string]plan.Configs{}, placed: map[string]reconcile.SourceStatus{},
	}
	again := map[string]bool{}
	for {
		next := e.next(again)
		if len(next) == 0 {
			return e, nil
		}
		for _, w := range next {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			name := w.decl.Name
			_, before := e.wants[name]
			e.look(ctx, w)
			e.wants[name] = w
			// What one application refers to in another is there when it is looked at the second time.
			again[name] = !before && slices.ContainsFunc(w.diags, func(d diag.Diagnostic) bool { return d.Code == "unknown-reference" })
		}
	}
}

// next returns the applications that are declared and not looked at, sorted by name.
func (e *evaluation) next(again map[string]bool) []*wanted {
	found := map[string]*wanted{}
	for _, by := range slices.Sorted(maps.Keys(e.declared)) {
		for _, decl := range e.declared[by].Applications {
			_, done := e.wants[decl.Name]
			if _, taken := found[decl.Name]; taken || done && !again[decl.Name] {
				continue
			}
			found[decl.Name] = &wanted{decl: decl, declaredBy: by}
		}
	}
	out := make([]*wanted, 0, len(found))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		out = append(out, found[name])
	}
	return out
}

// look renders and expands one application, and takes up what it declares.
func (e *evaluation) look(ctx context.Context, w *wanted) {
	s := e.system
	s.mu.Lock()
	w.config = s.config(applicationEntry{decl: w.decl, declaredBy: w.declaredBy, identity: s.identityOf(w.decl, w.declaredBy, e.application)})
	s.mu.Unlock()
	if e.stranger && w.decl.Decrypt {
		w.locked, w.problem = true, "it is encrypted, and a change from outside is planned without keys"
		return
	}
	source, err := e.source(ctx, w.decl.Source)
	switch {
	case err != nil:
		w.problem = err.Error()
		return
	case source.Snapshot.Revision == "" && source.Err != nil:
		w.problem = fmt.Sprintf("source %s: %v", w.decl.Source, source.Err)
		return
	case source.Snapshot.Revision == "":
		w.problem = fmt.Sprintf("source %s was not fetched yet", w.decl.Source)
		return
	}
	w.snapshot = source.Snapshot
	options, found := e.options(w)
	app := w.config.Application
	app.Revision = string(source.Snapshot.Revision)
	var result render.Result
	if !found.HasErrors() {
		result, err = e.render(ctx, w, options)
		if err != nil {
			w.problem = err.Error()
			return
		}
	}
	found = slices.Concat(found, result.Diags)
	w.objects = result.Objects
	if was := e.asBefore(w, found); was != nil {
		w.same, w.rendered, w.desired, w.diags = true, was.rendered, was.desired, was.diags
		w.desired.Application = app
		if declared, ok := e.before.declared[w.decl.Name]; ok {
			e.declared[w.decl.Name], e.beside[w.decl.Name] = declared, e.before.beside[w.decl.Name]
		}
		return
	}
	w.rendered = found
	complete := !found.HasErrors()
	if complete && slices.ContainsFunc(result.Objects, func(o object.Object) bool { return applications.IsDeclaration(o.Ref) }) {
		e.beside[w.decl.Name] = configsBeside(result.Objects)
		may, forbidden := s.mayDeclare(w.config.Identity, result.Objects)
		declared, more := applications.Read(may, e.secretsOf(result.Objects), e.declared[bySettings])
		found = slices.Concat(found, forbidden, more)
		e.declared[w.decl.Name] = declared
	}
	desired, more := plan.Expand(app, result.Objects, complete)
	found = append(found, more...)
	desired.Complete = !found.HasErrors()
	w.desired, w.diags = desired, found
}

// asBefore returns what the evaluation before has of an application, if that is the same now.
func (e *evaluation) asBefore(w *wanted, rendered diag.List) *wanted {
	if e.before == nil {
		return nil
	}
	was := e.before.wants[w.decl.Name]
	if was == nil || was.problem != "" || !reflect.DeepEqual(was.config, w.config) || !reflect.DeepEqual(was.rendered, rendered) {
		return nil
	}
	if !slices.EqualFunc(was.objects, w.objects, func(a, b object.Object) bool { return a.Ref == b.Ref && a.Hash == b.Hash }) {
		return nil
	}
	return was
}

// render renders with a cache that looks at applications beside their workers share.
func (e *evaluation) render(ctx context.Context, w *wanted, o render.Options) (render.Result, error) {
	s := e.system
	key := w.decl.Name
	if e.stranger {
		key += "\x00stranger"
	}
	c := s.cacheFor(key)
	var changed []string
	if w.snapshot.Changed != nil && c.revision != "" && c.revision != w.snapshot.Revision {
		if paths, known := w.snapshot.Changed(c.revision); known {
			changed = append([]string{}, paths...)
		}
	}
	result, _, err := c.cache.Render(ctx, s.renderer, render.Request{
		Source: w.decl.Source, Revision: string(w.snapshot.Revision), Files: w.snapshot.Files, Path: w.config.Path, Options: o,
	}, changed)
	if err == nil {
		c.revision = w.snapshot.Revision
	}
	return result, err
}

// source returns where a source is in this evaluation. One that is declared otherwise than what is followed is fetched,
// unless it is a stranger who declares it.
func (e *evaluation) source(ctx context.Context, name string) (reconcile.SourceStatus, error) {
	if st, ok := e.placed[name]; ok {
		return st, nil
	}
	s := e.system
	s.mu.Lock()
	have, followed := s.sources[name]
	s.mu.Unlock()
	decl, declared := e.declaration(name)
	switch {
	case !declared && !followed:
		return reconcile.SourceStatus{}, fmt.Errorf("source %s is not declared", name)
	case !declared:
		decl = have.decl
	}
	st, moved, err := e.at(ctx, decl)
	switch {
	case err != nil:
		return reconcile.SourceStatus{}, err
	case moved:
	case e.stranger:
		// Neither fetched nor looked at: what other sources hold, Secrets among it, is not what a stranger may refer to.
		return reconcile.SourceStatus{}, fmt.Errorf("source %s is not looked at for a change from outside: what it has is seen after the merge", name)
	case followed && sameSource(have.decl, decl):
		st, _ = s.source(name)
	default:
		st = s.fetchOnce(ctx, decl, s.openSource)
	}
	e.placed[name] = st
	return st, nil
}

// fetchOnce fetches a source that nobody follows. It stays open until the System is closed, as what was fetched is read lazily.
func (s *System) fetchOnce(ctx context.Context, decl applications.Source, open func(applications.Source) (sources.Source, error)) reconcile.SourceStatus {
	st := reconcile.SourceStatus{Name: decl.Name}
	source, err := open(decl)
	if err != nil {
		st.Err = err
		return st
	}
	s.closers = append(s.closers, source.Close)
	st.Snapshot, st.Err = source.Fetch(ctx, "")
	return st
}

// declaration returns how a source is declared in this evaluation.
func (e *evaluation) declaration(name string) (applications.Source, bool) {
	for _, by := range slices.Sorted(maps.Keys(e.declared)) {
		for _, src := range e.declared[by].Sources {
			if src.Name == name {
				return src, true
			}
		}
	}
	return applications.Source{}, false
}

// application returns how an application is declared in this evaluation, and by whom.
func (e *evaluation) application(name string) (applications.Application, string, bool) {
	w := e.wants[name]
	if w == nil {
		return applications.Application{}, "", false
	}
	return w.decl, w.declaredBy, true
}

// options completes the render options from what the evaluation has, and then from what runs.
func (e *evaluation) options(w *wanted) (render.Options, diag.List) {
	return e.system.complete(w.decl, w.config.Render, e.lookup)
}

func (e *evaluation) lookup(ref applications.Ref) (map[string][]byte, bool) {
	at := object.Ref{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}
	for _, name := range slices.Sorted(maps.Keys(e.beside)) {
		if c, ok := e.beside[name].Get(at); ok {
			return c.Data, true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.wants)) {
		if c, ok := e.wants[name].desired.Configs.Get(at); ok {
			return c.Data, true
		}
	}
	if e.stranger {
		return nil, false
	}
	return e.system.lookup(ref)
}

func (e *evaluation) secretsOf(objects []object.Object) applications.Secrets {
	beside := configsBeside(objects)
	return func(namespace, name string) (map[string][]byte, bool) {
		if c, ok := beside.Get(object.Ref{Kind: "Secret", Namespace: namespace, Name: name}); ok {
			return c.Data, true
		}
		return e.lookup(applications.Ref{Kind: "Secret", Namespace: namespace, Name: name})
	}
}

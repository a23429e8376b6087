package daemon

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/daemon/reconcile"
)

// Dependency says how an application is that others depend on.
func (w *world) Dependency(name string) reconcile.Dependency { return w.system().dependency(name, nil) }

// dependency is Dependency; above are the applications that depend on it, the first one first.
func (s *System) dependency(name string, above []string) reconcile.Dependency {
	s.mu.Lock()
	e, ok := s.applications[name]
	s.mu.Unlock()
	subject := "application " + name
	if len(above) > 0 {
		subject += ", on which " + strings.Join(above, " and ") + " depends"
	}
	if !ok {
		return reconcile.Dependency{Failed: true, Why: fmt.Sprintf("waits for %s, which is not declared", subject)}
	}
	st := e.worker.Status()
	src, _ := s.source(st.Config.Source)
	if d := reconcile.DependencyOf(st, src.Snapshot.Revision, subject); !d.Ready {
		return d
	}
	out := reconcile.Dependency{Ready: true}
	for _, next := range st.Config.DependsOn {
		if slices.Contains(above, next) || next == name {
			continue // a cycle, which is a finding where it is declared
		}
		if d := s.dependency(next, append(slices.Clone(above), name)); !d.Ready && (out.Ready || d.Failed && !out.Failed) {
			out = d
		}
	}
	return out
}

// dependentsOf returns the applications that depend on one, at any remove. The caller holds s.mu.
func (s *System) dependentsOf(name string) []*applicationEntry {
	found := map[string]*applicationEntry{}
	next := []string{name}
	for len(next) > 0 {
		on := next[0]
		next = next[1:]
		for n, e := range s.applications {
			if _, known := found[n]; !known && slices.Contains(e.decl.DependsOn, on) {
				found[n] = e
				next = append(next, n)
			}
		}
	}
	delete(found, name)
	out := make([]*applicationEntry, 0, len(found))
	for _, e := range found {
		out = append(out, e)
	}
	return out
}

package daemon

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/applications"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/policies/rbac"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// authority has the rules that are in force: the RBAC objects of all applications, as they were applied last. What is only
// wanted gives no rights, so that nobody gets any by an object that they may not write.
type authority struct {
	mu      sync.Mutex
	applied map[string][]object.Object // by application
	rules   *rbac.Rules                // nil when it has to be made again
}

// recorded takes over what an application has applied. It reports whether that changes the rules.
func (a *authority) recorded(application string, inventory []plan.Applied) (changed bool) {
	now := rbac.Applied(inventory)
	a.mu.Lock()
	defer a.mu.Unlock()
	same := func(x, y object.Object) bool { return x.Ref == y.Ref && x.Hash == y.Hash }
	if slices.EqualFunc(a.applied[application], now, same) {
		return false
	}
	if a.applied == nil {
		a.applied = map[string][]object.Object{}
	}
	if a.applied[application] = now; len(now) == 0 {
		delete(a.applied, application)
	}
	a.rules = nil
	return true
}

// current returns the rules in force.
func (a *authority) current() *rbac.Rules {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rules == nil {
		a.rules = rbac.New(a.all())
	}
	return a.rules
}

// all returns the objects of all applications. The caller holds a.mu.
func (a *authority) all() []object.Object {
	var all []object.Object
	for _, name := range slices.Sorted(maps.Keys(a.applied)) {
		all = append(all, a.applied[name]...)
	}
	return all
}

// after returns the rules as they are when what applications want is applied; what is not looked at stays as it is.
func (a *authority) after(wants map[string]plan.Desired) *rbac.Rules {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []object.Object
	for _, name := range slices.Sorted(maps.Keys(wants)) {
		all = append(all, wants[name].Objects...)
	}
	for _, name := range slices.Sorted(maps.Keys(a.applied)) {
		if _, looked := wants[name]; !looked {
			all = append(all, a.applied[name]...)
		}
	}
	return rbac.New(all)
}

// Judge implements reconcile.World.
func (w *world) Judge(c reconcile.Config, p plan.Plan, desired plan.Desired) diag.List {
	if c.Identity == "" {
		return nil
	}
	return w.system().authority.current().Judge(rbac.ParseUser(c.Identity), p, desired)
}

// Access implements api.Backend.
func (s *System) Access(_ context.Context, r api.AccessRequest) (api.AccessAnswer, error) {
	if r.Verb == "" || r.Path == "" && r.Resource == "" {
		return api.AccessAnswer{}, fmt.Errorf("%w: a verb, and a resource or a path, have to be named", api.ErrInvalid)
	}
	q := rbac.Request{Verb: r.Verb, Group: r.Group, Resource: r.Resource, Subresource: r.Subresource, Namespace: r.Namespace, Name: r.Name, Path: r.Path}
	rules := s.authority.current()
	var out api.AccessAnswer
	if r.User != "" {
		var by rbac.Grant
		if by, out.Allowed = rules.Allows(rbac.ParseUser(r.User, r.Groups...), q); out.Allowed {
			out.By = by.String()
		}
	}
	for _, h := range rules.Who(q) {
		out.Holders = append(out.Holders, api.AccessHolder{Kind: h.Subject.Kind, Namespace: h.Subject.Namespace, Name: h.Subject.Name, By: h.By.String()})
	}
	return out, nil
}

// recordedRules takes over what an application has applied, and wakes those whose rights may have changed with it.
func (s *System) recordedRules(application string, inventory []plan.Applied) {
	if !s.authority.recorded(application, inventory) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.applications {
		if e.identity != "" {
			e.worker.Poke()
		}
	}
}

// judgeLooked adds to what was looked at what is forbidden of it, when all that is wanted is applied.
func (s *System) judgeLooked(looked map[string]reconcile.Status) {
	wants := map[string]plan.Desired{}
	for name, st := range looked {
		if st.Desired.Complete {
			wants[name] = st.Desired
		}
	}
	var rules *rbac.Rules
	for name, st := range looked {
		if st.Config.Identity == "" || st.Config.Removed {
			continue
		}
		if rules == nil {
			rules = s.authority.after(wants)
		}
		if found := rules.Judge(rbac.ParseUser(st.Config.Identity), st.Plan, st.Desired); len(found) > 0 {
			st.Diags = append(slices.Clip(st.Diags), found...)
			looked[name] = st
		}
	}
}

// mayDeclare leaves out of the objects of an application the declarations that its identity may not create, with a finding for each.
// Declarations take effect when they are read, before any plan, so they are judged then, and by the rules that are in force.
func (s *System) mayDeclare(identity string, objects []object.Object) ([]object.Object, diag.List) {
	if identity == "" || !slices.ContainsFunc(objects, func(o object.Object) bool { return applications.IsDeclaration(o.Ref) }) {
		return objects, nil
	}
	var found diag.List
	rules, id := s.authority.current(), rbac.ParseUser(identity)
	may := make([]object.Object, 0, len(objects))
	for _, o := range objects {
		if applications.IsDeclaration(o.Ref) {
			if d, ok := rules.JudgeOne(id, o, "create"); !ok {
				found = append(found, d)
				continue
			}
		}
		may = append(may, o)
	}
	return may, found
}

// judge returns what is forbidden of a plan of an application that an evaluation has.
func (e *evaluation) judge(w *wanted, p plan.Plan) diag.List {
	if w.config.Identity == "" || w.config.Removed {
		return nil
	}
	if e.rules == nil {
		var all []object.Object
		for _, name := range slices.Sorted(maps.Keys(e.wants)) {
			all = append(all, e.wants[name].desired.Objects...)
		}
		e.rules = rbac.New(all)
	}
	return e.rules.Judge(rbac.ParseUser(w.config.Identity), p, w.desired)
}

// identityOf returns whom an application acts as: the service account that its declaration names, else the settings' for
// declarations of its namespace, else whom its declarer acts as. Empty may do everything. find returns the application of a name.
func (s *System) identityOf(decl applications.Application, declaredBy string, find func(name string) (applications.Application, string, bool)) string {
	for range maxDeclarers {
		switch {
		case decl.ServiceAccount != "":
			return userOf(decl.ServiceAccount)
		case s.settings.Defaults.ServiceAccount != "" && !decl.Ref.IsZero():
			return userOf(decl.Ref.Namespace + "/" + s.settings.Defaults.ServiceAccount)
		case declaredBy == bySettings:
			return ""
		}
		var ok bool
		if decl, declaredBy, ok = find(declaredBy); !ok {
			break
		}
	}
	return nobody
}

// maxDeclarers is how long a chain of applications may be of which each declares the next.
const maxDeclarers = 100

// nobody is an identity without rights, for an application of whose declarer nothing is known.
const nobody = "system:anonymous"

func userOf(account string) string {
	id, _ := rbac.ParseAccount(account)
	return id.User
}

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
	"github.com/fairlead-dev/fairlead/policies/podsecurity"
	"github.com/fairlead-dev/fairlead/policies/rbac"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// authority has the rules that are in force: the RBAC objects and Namespaces of all applications, as they were applied last. What is only
// wanted gives no rights, so that nobody gets any by an object that they may not write.
type authority struct {
	defaults podsecurity.Defaults // of Namespaces that say nothing

	mu        sync.Mutex
	applied   map[string][]object.Object // by application
	rules     *rbac.Rules                // nil when it has to be made again
	standards *podsecurity.Standards     // so is this
}

// recorded takes over what an application has applied. It reports whether that changes the rules.
func (a *authority) recorded(application string, inventory []plan.Applied) (changed bool) {
	now := slices.Concat(rbac.Applied(inventory), podsecurity.Applied(inventory))
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
	a.rules, a.standards = nil, nil
	return true
}

// current returns the rules in force.
func (a *authority) current() *rbac.Rules {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rules == nil {
		a.rules = rulesAfter(a.applied, nil)
	}
	return a.rules
}

// demands returns what Namespaces ask of pods: those of an application as it wants them, the others as they were applied.
func (a *authority) demands(desired plan.Desired) *podsecurity.Standards {
	own := namespaces(desired.Objects)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(own) > 0 {
		return podsecurity.New(append(own, flat(a.applied)...), a.defaults)
	}
	if a.standards == nil {
		a.standards = podsecurity.New(flat(a.applied), a.defaults)
	}
	return a.standards
}

func namespaces(objects []object.Object) []object.Object {
	var out []object.Object
	for _, o := range objects {
		if podsecurity.IsNamespace(o.Ref) {
			out = append(out, o)
		}
	}
	return out
}

// flat returns the objects of all applications, in the order of their names.
func flat(objects map[string][]object.Object) (out []object.Object) {
	for _, name := range slices.Sorted(maps.Keys(objects)) {
		out = append(out, objects[name]...)
	}
	return out
}

// attempt is what an application that acts as somebody would do.
type attempt struct {
	identity string
	plan     plan.Plan
	desired  plan.Desired
}

// rulesAfter returns the rules that are in force when all is applied that is allowed. inForce are the objects of every application before;
// those of an application that tries something are replaced when it may do all of that, by the rules that hold without it.
func rulesAfter(inForce map[string][]object.Object, attempts map[string]attempt) *rbac.Rules {
	objects := maps.Clone(inForce)
	waiting := slices.Sorted(maps.Keys(attempts))
	for {
		rules, before := rbac.New(flat(objects)), len(waiting)
		waiting = slices.DeleteFunc(waiting, func(name string) bool {
			a := attempts[name]
			if a.identity != "" && len(rules.Judge(rbac.ParseUser(a.identity), a.plan, a.desired)) > 0 {
				return false
			}
			objects[name] = a.desired.Objects
			return true
		})
		if len(waiting) == before {
			return rules
		}
	}
}

// snapshot returns the objects that are applied, by application.
func (a *authority) snapshot() map[string][]object.Object {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.applied == nil {
		return map[string][]object.Object{}
	}
	return maps.Clone(a.applied)
}

// Judge implements reconcile.World.
func (w *world) Judge(c reconcile.Config, p plan.Plan, desired plan.Desired) diag.List {
	a := &w.system().authority
	found := a.demands(desired).Judge(p, desired, false)
	if c.Identity != "" {
		found = append(found, a.current().Judge(rbac.ParseUser(c.Identity), p, desired)...)
	}
	return found
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
		e.worker.Poke() // what it may, or what is asked of its pods, may be another now
	}
}

// judgeLooked adds to what was looked at what is forbidden of it, when all that is allowed is applied.
func (s *System) judgeLooked(looked map[string]reconcile.Status) {
	attempts := map[string]attempt{}
	bounded := false
	for name, st := range looked {
		if st.Desired.Complete && !st.Config.Removed {
			attempts[name] = attempt{identity: st.Config.Identity, plan: st.Plan, desired: st.Desired}
			bounded = bounded || st.Config.Identity != ""
		}
	}
	inForce := s.authority.snapshot()
	var wanted []object.Object
	for _, name := range slices.Sorted(maps.Keys(attempts)) {
		wanted = append(wanted, namespaces(attempts[name].desired.Objects)...)
	}
	demands := podsecurity.New(append(wanted, flat(inForce)...), s.authority.defaults)
	for name, a := range attempts {
		if found := demands.Judge(a.plan, a.desired, true); len(found) > 0 {
			st := looked[name]
			st.Diags = append(slices.Clip(st.Diags), found...)
			looked[name] = st
		}
	}
	if !bounded {
		return
	}
	rules := rulesAfter(inForce, attempts)
	for name, a := range attempts {
		if a.identity == "" {
			continue
		}
		if found := rules.Judge(rbac.ParseUser(a.identity), a.plan, a.desired); len(found) > 0 {
			st := looked[name]
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

// judge adds to the plans what is forbidden of them, when all that is allowed of the change is applied.
func (c *comparison) judge() {
	inForce, attempts := map[string][]object.Object{}, map[string]attempt{}
	bounded := false
	for name, w := range c.before.wants {
		inForce[name] = w.desired.Objects
	}
	for i := range c.plans {
		p := &c.plans[i]
		switch w := c.after.wants[p.Name]; {
		case w == nil:
			delete(inForce, p.Name)
		case w.problem == "" && !w.diags.HasErrors():
			attempts[p.Name] = attempt{identity: w.config.Identity, plan: p.Plan, desired: w.desired}
			bounded = bounded || w.config.Identity != ""
		}
	}
	var wanted []object.Object
	for _, name := range slices.Sorted(maps.Keys(c.after.wants)) {
		wanted = append(wanted, namespaces(c.after.wants[name].desired.Objects)...)
	}
	demands := podsecurity.New(wanted, c.after.system.authority.defaults)
	for i := range c.plans {
		p := &c.plans[i]
		if a, ok := attempts[p.Name]; ok {
			p.Plan.Diags = slices.Concat(p.Plan.Diags, demands.Judge(a.plan, a.desired, false))
		}
	}
	if !bounded {
		return
	}
	rules := rulesAfter(inForce, attempts)
	for i := range c.plans {
		p := &c.plans[i]
		if a, ok := attempts[p.Name]; ok && a.identity != "" {
			p.Plan.Diags = slices.Concat(p.Plan.Diags, rules.Judge(rbac.ParseUser(a.identity), a.plan, a.desired))
		}
	}
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

// userOf is the user of a service account that is written NAMESPACE/NAME. What is not written so is nobody, and bounded all the same.
func userOf(account string) string {
	id, err := rbac.ParseAccount(account)
	if err != nil {
		return nobody
	}
	return id.User
}

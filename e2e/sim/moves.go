package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Objects that move from one application to another: another repository gets them, and then they go from theirs. What is
// held then: their pods live on, and those that ran already are not deleted, by either of the applications, whatever
// happens meanwhile.

// moved is an object that has moved, while nobody has changed it since.
type moved struct {
	ref      object.Ref
	hash     string
	from, to *app
	first    int             // the revision of to that had it first
	pods     map[string]bool // UIDs of its pods at that time
}

// move moves a workload of an application to another one; false when nothing can be moved now.
func (w *world) move(from *app) bool {
	if !w.moves() {
		return false
	}
	to := w.apps[0]
	if to == from {
		to = w.apps[1]
	}
	for tries := w.rnd.IntN(12); ; tries-- {
		w.pause(10 * time.Second)
		w.revive()
		if w.settled(from) && w.settled(to) {
			break
		}
		if tries <= 0 {
			return false
		}
	}
	var names []string
	for _, key := range slices.Sorted(maps.Keys(from.tree)) {
		if o := from.tree[key]; (o.Kind == "Deployment" || o.Kind == "Pod") && !isHook(&o) && from.head.refs[o.Ref] != nil && from.head.refs[o.Ref].Hash == o.Hash {
			names = append(names, key)
		}
	}
	if len(names) == 0 {
		return false
	}
	key := names[w.rnd.IntN(len(names))]
	o := from.tree[key]
	to.put(o)
	r := to.commitTree()
	w.result.Commits++
	w.say("%s moves from %s to %s, which is pushed: %s", o.Ref, from.name, to.name, to.describe(r))
	w.wake(to)
	w.pause(time.Duration(w.rnd.IntN(5)) * time.Second)
	w.revive()
	// Where it is not known that another application wants it, it is deleted as anything else.
	source, worker := w.inc.sources[to.name], w.inc.workers[to.name]
	if source != nil && worker != nil && source.Status().Snapshot.Revision == r.id && worker.Status().Revision == r.id {
		m := moved{ref: o.Ref, hash: o.Hash, from: from, to: to, first: len(to.order) - 1, pods: map[string]bool{}}
		w.mu.Lock()
		for _, c := range w.containers() {
			if _, leaves := w.ledger.leaving[c.UID]; !leaves && ownerOf(&c) == o.Ref && !w.ledger.mayGo[c.UID] {
				m.pods[c.UID] = true
			}
		}
		w.ledger.moved = append(w.ledger.moved, m)
		w.mu.Unlock()
	}
	delete(from.tree, key)
	w.result.Commits++
	w.result.Moves++
	if len(from.tree) == 0 {
		from.put(w.filler(from))
	}
	w.say("%s is pushed: %s", from.name, from.describe(from.commitTree()))
	w.wake(from)
	return true
}

// moves reports whether objects may move in this world. Nothing goes back to an earlier revision then, which may have what another
// application has now.
func (w *world) moves() bool { return w.chance("moves")%3 == 0 }

// settled reports whether an application is as its newest revision says, and may go on.
func (w *world) settled(a *app) bool {
	worker := w.inc.workers[a.name]
	if worker == nil || a.isEnded() {
		return false
	}
	st := worker.Status()
	return a.head.kind == good && !st.Config.Removed && !st.Config.Suspend && st.Failure == nil &&
		st.Health == reconcile.Healthy && !st.Walking && st.Applied == string(a.head.id)
}

// elsewhere reports whether another application has an object: nobody writes it down twice.
func (w *world) elsewhere(a *app, o *object.Object) bool {
	for _, other := range w.apps {
		if other == a || other.isEnded() {
			continue
		}
		if _, has := other.tree[o.Kind+"/"+o.Name]; has || other.head != nil && other.head.refs[o.Ref] != nil {
			return true
		}
	}
	return false
}

// wantedElsewhere reports whether the newest commit of another application has an object.
func (w *world) wantedElsewhere(a *app, ref object.Ref) bool {
	for _, other := range w.apps {
		if other == a {
			continue
		}
		other.mu.Lock()
		has := other.head != nil && other.head.refs[ref] != nil
		other.mu.Unlock()
		if has {
			return true
		}
	}
	return false
}

// stays holds that a plan deletes no pod of an object that has moved and is since what it was. Called with mu held.
func (w *world) stays(p plan.Plan, say func(string)) {
	for _, s := range p.Steps {
		args, deletes := s.Args.(plan.DeletePod)
		if !deletes {
			continue
		}
		for _, m := range w.ledger.moved {
			if m.pods[args.UID] && m.unchanged() {
				say(fmt.Sprintf("deletes pod %s of %s, which has only moved from %s to %s", args.Pod, m.ref, m.from.name, m.to.name))
			}
		}
	}
}

// unchanged reports whether all that Git has said since is what the object was.
func (m *moved) unchanged() bool {
	m.to.mu.Lock()
	defer m.to.mu.Unlock()
	if m.to.config.Removed {
		return false
	}
	for _, r := range m.to.order[m.first:] {
		if r.kind == good && (r.refs[m.ref] == nil || r.refs[m.ref].Hash != m.hash) {
			return false
		}
	}
	return true
}

package sim

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/fake"
	"github.com/fairlead-dev/fairlead/sources"
)

// setUp makes the machine and the repositories.
func (w *world) setUp() {
	w.engine = fake.New()
	w.other = w.engine.Open("somebody")
	w.network = fake.NewNetwork(w.engine)
	w.volumes = &disk{prepared: map[string]map[object.Ref]string{}}
	w.kernel = []*served{{name: "routes"}, {name: "names"}}
	w.ledger, w.order = newLedger(), newOrder()
	w.addHookImages()
	if w.chance("consul")%3 == 0 {
		w.catalog = newCatalog(w)
	}
	for _, ref := range append(slices.Clone(images), "side:1") {
		w.engine.AddImage(ref, fake.Image{
			Present: w.chance("present "+ref)%2 == 0, Image: runtimes.Image{ID: ref},
			Pull:    fake.Pull{Takes: time.Duration(w.chance("pull "+ref)%20) * time.Second},
			Process: fake.Process{StopTakes: time.Duration(w.chance("stop "+ref)%4) * time.Second, IgnoreTERM: w.chance("deaf "+ref)%5 == 0},
		})
	}
	for n, ref := range tasks {
		w.engine.AddImage(ref, fake.Image{Present: true, Image: runtimes.Image{ID: ref}, Process: fake.Process{
			Exits: true, After: time.Duration(1+w.chance("work "+ref)%10) * time.Second, Code: n, StopCode: 143,
		}})
	}
	w.engine.AddImage("bad:nostart", fake.Image{Present: true, Process: fake.Process{StartError: "no such program"}})
	apps := 1 + w.rnd.IntN(2)
	if w.moves() {
		apps = 2
	}
	for n := range apps {
		a := &app{w: w, name: string(rune('a' + n)), revs: map[sources.Revision]*revision{}, tree: map[string]object.Object{}}
		a.config = configOf(a, w)
		if n > 0 && w.ordered() && w.chance("depends")%2 == 0 {
			a.config.DependsOn = []string{w.apps[0].name}
		}
		w.apps = append(w.apps, a)
		for range 2 {
			w.edit(a)
		}
		w.say("%s begins with %s (prune %t, timeout %s)", a.name, a.describe(a.commitTree()), a.config.Prune, a.config.Timeout)
	}
	w.foreign("postgres")
}

func (a *app) describe(r *revision) string {
	s := string(r.id) + ":"
	for _, o := range r.objects {
		s += " " + o.Kind + "/" + o.Name
		if d, ok := o.Value.(*appsv1.Deployment); ok {
			s += fmt.Sprintf("(%d %s)", *d.Spec.Replicas, d.Spec.Template.Spec.Containers[0].Image)
			if d.Spec.Paused {
				s += "(paused)"
			}
		}
	}
	return s
}

// foreign makes a container of somebody else.
func (w *world) foreign(name string) { w.note(w.engine.AddForeign(name)) }

// note remembers a container that is not ours as it is now.
func (w *world) note(id string) {
	for _, c := range w.engine.Containers() {
		if c.ID == id {
			w.mu.Lock()
			w.ledger.foreign[id] = c
			w.mu.Unlock()
		}
	}
}

func (w *world) foreigners() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.ledger.foreign))
}

// wild reports whether somebody does things to containers in this world; in the others the rules of rollouts are held.
func (w *world) wild() bool { return w.chance("wild")%2 == 0 }

// event makes one thing happen.
func (w *world) event(n int) {
	a := w.apps[w.rnd.IntN(len(w.apps))]
	x := w.rnd.IntN(100)
	switch {
	case x < 14 && w.move(a):
	case x < 34:
		w.push(a)
	case x < 50:
		w.crash()
	case x < 56:
		w.misbehave()
	case x < 62:
		w.source(a)
	case x < 66:
		w.hold(a)
	case x < 69:
		if w.catalog != nil && w.rnd.IntN(2) == 0 {
			w.consul()
			break
		}
		w.registries()
	case x < 71 && n > 8 && len(w.apps) > 1:
		w.say("application %s is removed", a.name)
		w.mu.Lock()
		delete(w.ledger.suspended, a.name)
		w.mu.Unlock()
		for _, other := range w.apps {
			w.configure(other, func(c *reconcile.Config) { c.DependsOn = nil })
		}
		w.configure(a, func(c *reconcile.Config) { c.Removed, c.Suspend = true, false })
	case x < 74:
		w.mislead()
	case x < 75:
		w.skew()
	case x < 76:
		w.disk()
	case x < 78:
		d := time.Duration(1+w.rnd.IntN(20)) * time.Minute
		w.say("%s pass", d)
		w.pause(d)
	case w.wild():
		w.meddle()
	default:
		w.push(a)
	}
}

// push makes a commit and tells the daemon, mostly.
func (w *world) push(a *app) {
	w.result.Commits++
	var r *revision
	switch x := w.rnd.IntN(20); {
	case x < 14:
		w.edit(a)
		r = a.commitTree()
	case x < 16: // a part of the objects, and errors
		objects := slices.Collect(maps.Values(a.tree))
		slices.SortFunc(objects, func(x, y object.Object) int { return object.Compare(x.Ref, y.Ref) })
		r = a.commit(broken, objects[:w.rnd.IntN(len(objects))])
	case x < 17:
		r = a.commit(empty, nil)
	default: // a force-push of what was before
		was := a.order[w.rnd.IntN(len(a.order))]
		objects := slices.DeleteFunc(slices.Clone(was.objects), func(o object.Object) bool { return w.elsewhere(a, &o) })
		kind := was.kind
		if kind == good && len(objects) == 0 {
			objects = append(objects, w.filler(a))
		}
		r = a.commit(kind, objects)
		if kind == good {
			a.tree = map[string]object.Object{}
			for _, o := range objects {
				a.put(o)
			}
		}
	}
	w.say("%s is pushed: %s", a.name, a.describe(r))
	if w.rnd.IntN(8) > 0 {
		w.wake(a)
	}
}

func (w *world) wake(a *app) {
	if s := w.inc.sources[a.name]; s != nil {
		s.Poke()
		synctest.Wait() // one thing after the other
	}
}

// crash ends the daemon: by a stop, now, or at one of its next calls.
func (w *world) crash() {
	switch w.rnd.IntN(6) {
	case 0:
		w.say("the daemon is restarted")
		w.restart()
	case 1:
		w.inc.die("now")
	default:
		w.mu.Lock()
		w.arm = &armed{calls: 1 + w.rnd.IntN(12), after: w.rnd.IntN(2) == 0}
		w.sayLocked("the daemon is to die at changing call %d from now, after it: %t", w.arm.calls, w.arm.after)
		w.mu.Unlock()
		a := w.apps[w.rnd.IntN(len(w.apps))]
		w.edit(a)
		w.result.Commits++
		w.say("%s is pushed: %s", a.name, a.describe(a.commitTree()))
		w.wake(a)
	}
}

// misbehave makes calls of the engine fail, or ends that.
func (w *world) misbehave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := &w.faults
	f.episode++
	f.refuse, f.lose, f.hang, f.slow, f.behind = 0, 0, 0, 0, 0
	f.shuffled = w.rnd.IntN(2) == 0
	switch w.rnd.IntN(7) {
	case 0:
		f.refuse = 30
	case 1:
		f.lose = 30
	case 2:
		f.hang = 8
	case 3:
		f.slow = 50
	case 4:
		f.refuse, f.lose, f.hang, f.slow, f.behind = 10, 10, 3, 20, 2*time.Second
	case 5:
		f.behind = 8 * time.Second
	}
	w.sayLocked("of 100 calls %d are refused, %d lose their answer, %d hang, %d are slow; events are up to %s late; lists are shuffled: %t",
		f.refuse, f.lose, f.hang, f.slow, f.behind, f.shuffled)
}

func (w *world) registries() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults.episode++
	kind := w.rnd.IntN(5)
	if w.faults.partition {
		w.faults.registryBroke = time.Now()
	}
	w.faults.registry, w.faults.partition = []int{0, 0, 30, 100, 0}[kind], kind == 4
	w.sayLocked("of 100 sets of a registry %d fail, or none has an answer: %t", w.faults.registry, w.faults.partition)
}

// skew sets the engine's clock: what it writes down from now on is off by that.
func (w *world) skew() {
	ahead := []time.Duration{0, 0, 90 * time.Second, -90 * time.Second, time.Hour, -time.Hour}[w.rnd.IntN(6)]
	w.say("the clock of the engine is %s ahead", ahead)
	w.engine.SetClock(ahead)
}

// disk fills the disk that the state directory is on, or makes room on it.
func (w *world) disk() {
	switch {
	case !w.opt.Small:
	case w.full.Load():
		w.say("the disk has room again")
		w.room()
	default:
		w.say("the disk is full")
		w.fill()
	}
}

// source makes a repository reachable or not.
func (w *world) source(a *app) {
	a.mu.Lock()
	a.asleep, a.away = false, nil
	what := "answers"
	switch w.rnd.IntN(3) {
	case 0:
		a.away, what = errAway, "cannot be reached"
	case 1:
		a.asleep, what = true, "hangs"
	}
	a.mu.Unlock()
	w.say("the repository of %s %s", a.name, what)
	w.wake(a)
}

// hold suspends an application, or lets it go on.
func (w *world) hold(a *app) {
	w.mu.Lock()
	delete(w.ledger.suspended, a.name) // before it may go on
	w.mu.Unlock()
	suspend := false
	w.configure(a, func(c *reconcile.Config) {
		if !c.Removed {
			c.Suspend = !c.Suspend
		}
		suspend = c.Suspend
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if suspend {
		w.ledger.suspended[a.name] = time.Now()
	}
	w.sayLocked("%s is suspended: %t", a.name, suspend)
}

// mislead makes containers that look like ours.
func (w *world) mislead() {
	// What looks like one that ends would end by itself.
	all := slices.DeleteFunc(w.containers(), func(c fake.State) bool { return c.Container.Container == "task" || isHookImage(c.Image) })
	if len(all) == 0 {
		w.foreign("fairlead_web_nothing")
		return
	}
	c := all[w.rnd.IntN(len(all))]
	w.say("a container that is not ours looks like %s", nameOf(&c))
	if w.rnd.IntN(2) == 0 {
		id := w.engine.Hand().Tamper(c.ID)
		w.engine.Hand().Start(id)
		w.note(id)
		return
	}
	spec := c.Spec
	spec.SandboxID = ""
	id, err := w.other.Create(context.Background(), spec)
	if err == nil {
		w.engine.Hand().Start(id)
		w.note(id)
	}
}

func (w *world) disturb() {
	w.mu.Lock()
	w.ledger.disturbed = time.Now()
	w.mu.Unlock()
}

// meddle does something to a container, or to the engine, by hand.
func (w *world) meddle() {
	hand := w.engine.Hand()
	defer w.disturb()
	switch w.rnd.IntN(12) {
	case 0:
		w.say("the engine is away for a while")
		w.engine.Down()
		w.disturb()
		w.pause(time.Duration(w.rnd.IntN(90)) * time.Second)
		w.engine.Up()
		return
	case 1:
		w.say("the engine crashes, and all containers with it")
		w.engine.Crash()
		for _, id := range w.foreigners() {
			w.note(id)
		}
		w.disturb()
		w.pause(time.Duration(w.rnd.IntN(30)) * time.Second)
		w.engine.Up()
		for _, id := range w.foreigners() {
			w.engine.Hand().Start(id)
			w.note(id)
		}
		return
	case 2:
		w.say("the stream of events breaks")
		w.engine.Disconnect()
		return
	}
	all := w.containers()
	if len(all) == 0 {
		return
	}
	c := all[w.rnd.IntN(len(all))]
	silent := w.rnd.IntN(4) == 0
	if isSandbox(&c) {
		w.mu.Lock()
		w.ledger.shaken[c.UID] = true
		w.mu.Unlock()
	}
	mark := func() {
		w.mu.Lock()
		w.ledger.byHand[c.ID] = true
		w.mu.Unlock()
	}
	var do func()
	what := ""
	switch w.rnd.IntN(6) {
	case 0:
		what, do = "removed", func() { hand.Remove(c.ID) }
	case 1:
		what, do = "killed", func() { hand.Kill(c.ID, "SIGKILL") }
	case 2:
		what, do = "ended", func() { hand.Exit(c.ID, w.rnd.IntN(3)) }
	case 3:
		what, do = "started", func() { mark(); hand.Start(c.ID) }
	case 4:
		what, do = "paused", func() { mark(); hand.Pause(c.ID) }
	default:
		what, do = "unpaused", func() { hand.Unpause(c.ID) }
	}
	w.say("%s is %s by hand, without an event: %t", nameOf(&c), what, silent)
	w.engine.DropEvents(silent)
	do()
	w.engine.DropEvents(false)
}

// bound is how long everything may take to come to rest, and passes how many looks at each application.
const (
	bound  = 40 * time.Minute
	passes = 150
)

// converge ends all faults, and holds that everything comes to what the last commit says, and stays so.
func (w *world) converge() {
	w.say("the faults end")
	w.mu.Lock()
	w.faults, w.arm = faults{episode: w.faults.episode + 1, registryBroke: time.Now()}, nil
	clear(w.ledger.suspended)
	w.mu.Unlock()
	close(w.over)
	w.room()
	w.engine.Mend()
	for _, c := range w.containers() {
		w.engine.Hand().Unpause(c.ID)
	}
	for _, a := range w.apps {
		a.mu.Lock()
		a.asleep, a.away = false, nil
		removed := a.config.Removed
		a.mu.Unlock()
		w.configure(a, func(c *reconcile.Config) { c.Suspend = false })
		if removed {
			continue
		}
		w.fix(a)
		a.put(plantest.ConfigMap("cm-"+a.name, fmt.Sprint(len(a.order)))) // what failed is not tried again as it is
		w.say("%s is pushed: %s", a.name, a.describe(a.commitTree()))
		w.wake(a)
	}
	w.revive()
	before := w.looks()
	why := ""
	for end := time.Now().Add(bound); time.Now().Before(end) && !w.violated(); {
		w.pause(20 * time.Second)
		w.revive() // a call that was slow may have been its last
		if why = w.stuck(); why == "" {
			break
		}
	}
	if w.violated() {
		return
	}
	if why != "" {
		w.violate("not at rest %s after the last fault: %s", bound, why)
		return
	}
	w.result.Passes = w.looks() - before
	if w.result.Passes > passes*len(w.apps) {
		w.violate("it took %d looks to come to rest", w.result.Passes)
	}
	w.pause(6 * time.Minute) // what hangs ends, and what it left is found by the node's own looks
	w.check()
	w.mu.Lock()
	calls := w.result.Calls
	w.mu.Unlock()
	w.pause(5 * time.Minute)
	w.mu.Lock()
	more := w.result.Calls - calls
	w.mu.Unlock()
	kept := slices.ContainsFunc(w.apps, func(a *app) bool { return !a.config.Prune }) // what is not pruned may be broken
	if more > 0 && !kept {
		w.violate("%d changing calls are made though everything is at rest", more)
	}
	if why := w.stuck(); why != "" {
		w.violate("it does not stay at rest: %s", why)
	}
	w.atRest()
}

func (w *world) looks() int {
	n := 0
	for _, worker := range w.inc.workers {
		n += worker.Status().Pass
	}
	return n
}

// tearDown ends everything.
func (w *world) tearDown() {
	w.mu.Lock()
	w.stopped = true
	w.faults, w.arm = faults{}, nil
	w.mu.Unlock()
	w.room()
	w.engine.Mend()
	for _, i := range w.all {
		i.bury()
		<-i.ended
	}
	w.engine.Close()
	w.other.Close()
}

package reconcile

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

func configMap(name string) object.Ref {
	return object.Ref{Kind: "ConfigMap", Namespace: "shop", Name: name}
}

func silentClaims() *Claims { return NewClaims(func(string) {}) }

func TestTheFirstClaimHoldsUntilItIsGivenUp(t *testing.T) {
	web, settings := configMap("web"), configMap("settings")
	c := silentClaims()
	both := []object.Ref{settings, web}
	c.Wants("a", both)
	c.Wants("b", []object.Ref{web})
	if got := c.Standing("a", both, true); len(got.Others)+len(got.Arrivals) > 0 {
		t.Errorf("first claim: %v", got)
	}
	for range 2 {
		if d := cmp.Diff(Standing{Others: map[object.Ref]string{web: "a"}}, c.Standing("b", []object.Ref{web}, true)); d != "" {
			t.Error(d)
		}
		if got := c.Standing("a", both, true); len(got.Others)+len(got.Arrivals) > 0 {
			t.Errorf("the owner lost it: %v", got)
		}
	}
	c.Wants("a", []object.Ref{settings})
	if got := c.Standing("b", []object.Ref{web}, true); len(got.Others)+len(got.Arrivals) > 0 {
		t.Errorf("given up, and never applied, but still held: %v", got)
	}
	c.Wants("a", both)
	if d := cmp.Diff(Standing{Others: map[object.Ref]string{web: "b"}}, c.Standing("a", both, true)); d != "" {
		t.Error(d)
	}
}

// TestWhatIsAppliedIsTakenOver follows an object from one application to another.
func TestWhatIsAppliedIsTakenOver(t *testing.T) {
	web := configMap("web")
	var woken []string
	c := NewClaims(func(name string) { woken = append(woken, name) })
	wakes := func(want ...string) {
		t.Helper()
		if d := cmp.Diff(want, woken); d != "" && len(want)+len(woken) > 0 {
			t.Errorf("who is woken (-want +got):\n%s", d)
		}
		woken = nil
	}
	anybody := func(string) bool { return true }
	refs := []object.Ref{web}
	applied := []plan.Applied{{Ref: web, Hash: "1"}}
	c.Recorded("a", applied)
	c.Wants("b", refs)
	wakes("a")
	if d := cmp.Diff(Standing{Others: map[object.Ref]string{web: "a"}}, c.Standing("b", refs, true)); d != "" {
		t.Errorf("nothing is known of the owner yet, so it may want what it has:\n%s", d)
	}
	c.Wants("a", refs)
	if c.Take("b", refs) {
		t.Error("taken from somebody who wants it")
	}
	wakes()
	c.Wants("a", nil)
	wakes("b")
	if d := cmp.Diff(map[object.Ref]plan.Departure{web: {To: "b"}}, c.Departures("a", refs, anybody)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(Standing{Arrivals: map[object.Ref]plan.Arrival{web: {From: "a", Applied: &applied[0]}}}, c.Standing("b", refs, true)); d != "" {
		t.Error(d)
	}
	if !c.Take("b", refs) {
		t.Error("not let go")
	}
	wakes("a")
	c.Recorded("b", []plan.Applied{{Ref: web, Hash: "1", Moved: 1}})
	wakes("a")
	if d := cmp.Diff(map[object.Ref]plan.Departure{web: {To: "b", Done: true}}, c.Departures("a", refs, anybody)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string][]object.Ref{"a": refs}, c.Doubles("b")); d != "" {
		t.Error(d)
	}
	// After a crash at this moment the higher number tells the owner, in whichever order the records are read.
	for _, order := range [][]string{{"a", "b"}, {"b", "a"}} {
		again := silentClaims()
		for _, name := range order {
			again.Recorded(name, c.apps[name].inventory)
		}
		if got := again.Owner(web); got != "b" {
			t.Errorf("read in the order %v, the owner is %q", order, got)
		}
	}
	c.Recorded("a", nil)
	if got := c.Owner(web); got != "b" {
		t.Errorf("the owner is %q when the old one has forgotten it", got)
	}
}

// TestAnAnswerHoldsUntilSomethingMoves asks at random: who is asked again says what somebody without a memory would.
func TestAnAnswerHoldsUntilSomethingMoves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := silentClaims()
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			app := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "application")
			var refs []object.Ref
			var inventory []plan.Applied
			for _, name := range []string{"v", "w", "x", "y"} {
				if rapid.Bool().Draw(t, name) {
					refs = append(refs, configMap(name))
					inventory = append(inventory, plan.Applied{Ref: configMap(name)})
				}
			}
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				c.Wants(app, refs)
			case 1:
				c.Recorded(app, inventory)
			case 2:
				c.Take(app, refs)
			default:
				got := c.Standing(app, refs, true)
				if d := cmp.Diff(c.Snapshot().Standing(app, refs, false), got); d != "" {
					t.Fatal(d)
				}
			}
		}
	})
}

// life is a model of applications that reconcile at random: each has a worker that does what a pass does.
type life struct {
	*rapid.T
	claims  *Claims
	names   []string
	wants   map[string][]object.Ref // what Git has
	looked  map[string]bool         // since the daemon was started
	records map[string][]plan.Applied
	exists  map[object.Ref]int // what runs, with how often it was made
}

func (l *life) record(app string, put []plan.Applied, gone []object.Ref) {
	l.records[app] = object.Edit(l.records[app], appliedName, put, gone)
	l.claims.Recorded(app, l.records[app])
}

// start is what a start of the daemon knows.
func (l *life) start() {
	l.claims, l.looked = silentClaims(), map[string]bool{}
	for _, name := range l.names {
		l.claims.Recorded(name, l.records[name])
	}
}

// pass does a part of what a worker does, up to a number of steps: the daemon may die after each.
func (l *life) pass(app string, steps int) {
	step := func() bool { steps--; return steps >= 0 }
	wants := l.wants[app]
	l.claims.Wants(app, wants)
	l.looked[app] = true
	standing := l.claims.Standing(app, wants, true)
	var put []plan.Applied
	var arriving []object.Ref
	for _, r := range wants {
		_, has := object.Find(l.records[app], appliedName, r)
		arrival, arrives := standing.Arrivals[r]
		switch {
		case standing.Others[r] != "":
		case arrives:
			arriving = append(arriving, r)
			put = append(put, plan.Applied{Ref: r, Moved: arrival.Applied.Moved + 1})
		case !has:
			put = append(put, plan.Applied{Ref: r})
		}
	}
	if !step() || !l.claims.Take(app, arriving) || !step() {
		return
	}
	l.record(app, put, nil)
	for _, a := range put {
		if l.exists[a.Ref] == 0 && step() {
			l.exists[a.Ref] = 1
		}
	}
	if len(l.looked) < len(l.names) {
		return // it is not known what the others want
	}
	var left []object.Ref
	each(refsOf(l.records[app]), wants, func(r object.Ref) { left = append(left, r) })
	departures := l.claims.Departures(app, left, func(string) bool { return true })
	for _, r := range left {
		d, leaves := departures[r]
		if !step() {
			return
		}
		if leaves && !d.Done {
			continue
		}
		if !leaves {
			for other, refs := range l.wants {
				if _, wanted := slices.BinarySearchFunc(refs, r, object.Compare); wanted && l.claims.apps[other].wishes(r) {
					l.Fatalf("%s deletes %s, which %s is known to want", app, r, other)
				}
			}
			delete(l.exists, r)
		}
		l.record(app, nil, []object.Ref{r})
	}
}

func refsOf(inventory []plan.Applied) []object.Ref {
	var out []object.Ref
	for _, a := range inventory {
		out = append(out, a.Ref)
	}
	return out
}

// TestMovesLoseNothing moves objects between applications at random, with deaths of the daemon in between: what somebody
// wants all the time is never deleted, and in the end everything is where it is wanted, once.
func TestMovesLoseNothing(t *testing.T) {
	objects := []object.Ref{configMap("u"), configMap("v"), configMap("w"), configMap("x")}
	rapid.Check(t, func(t *rapid.T) {
		l := &life{T: t, names: []string{"a", "b", "c"}, wants: map[string][]object.Ref{}, records: map[string][]plan.Applied{}, exists: map[object.Ref]int{}}
		l.start()
		// Each object is in exactly one application, from the first commit on.
		at := map[object.Ref]string{}
		commit := func() {
			for _, name := range l.names {
				var refs []object.Ref
				for _, r := range objects {
					if at[r] == name {
						refs = append(refs, r)
					}
				}
				l.wants[name] = refs
			}
			clear(l.looked) // all of them are looked at before anything is deleted
		}
		for _, r := range objects {
			at[r] = "a"
		}
		commit()
		l.pass("a", 100)
		for range rapid.IntRange(1, 40).Draw(t, "events") {
			switch rapid.IntRange(0, 5).Draw(t, "event") {
			case 0:
				at[rapid.SampledFrom(objects).Draw(t, "object")] = rapid.SampledFrom(l.names).Draw(t, "to")
				commit()
			case 1:
				l.start()
			default:
				l.pass(rapid.SampledFrom(l.names).Draw(t, "application"), rapid.IntRange(0, 12).Draw(t, "steps"))
			}
			for _, r := range objects {
				if l.exists[r] != 1 {
					t.Fatalf("%s is gone though it is in Git all the time", r)
				}
			}
		}
		for range 4 {
			for _, name := range l.names {
				l.pass(name, 100)
			}
		}
		got := map[object.Ref]string{}
		for _, name := range l.names {
			for _, a := range l.records[name] {
				if other := got[a.Ref]; other != "" {
					t.Errorf("%s is in the inventories of %s and %s", a.Ref, other, name)
				}
				got[a.Ref] = name
			}
		}
		if d := cmp.Diff(maps.Clone(at), got); d != "" {
			t.Fatalf("where everything is in the end (-want +got):\n%s", d)
		}
		for _, r := range objects {
			if owner := l.claims.Owner(r); owner != at[r] {
				t.Fatal(fmt.Sprintf("%s is said to be %s's, and is %s's", r, owner, at[r]))
			}
		}
	})
}

// TestUnion holds that claims are made of what is desired and what was applied, each once and in order.
func TestUnion(t *testing.T) {
	for _, c := range []struct{ desired, applied, want string }{
		{"", "", ""}, {"abc", "", "abc"}, {"", "abc", "abc"}, {"abc", "abc", "abc"}, {"ace", "bdf", "abcdef"}, {"bc", "abd", "abcd"},
	} {
		var desired []object.Object
		var applied []plan.Applied
		for _, r := range c.desired {
			desired = append(desired, object.Object{Ref: configMap(string(r))})
		}
		for _, r := range c.applied {
			applied = append(applied, plan.Applied{Ref: configMap(string(r))})
		}
		got := ""
		for _, r := range union(desired, applied) {
			got += r.Name
		}
		if got != c.want {
			t.Errorf("union of %q and %q is %q, want %q", c.desired, c.applied, got, c.want)
		}
	}
}

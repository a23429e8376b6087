package images

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/render/object"
)

// Update is what an automation did.
type Update struct {
	// Changes are what is other than in the branch; Revision is the commit that has them, empty when there is nothing to change.
	Changes  []Change
	Problems []Problem
	Revision string
	// Branch is where it was pushed, PullRequest the URL of the one from there.
	Branch, PullRequest string
}

// Event is something worth telling.
type Event struct {
	Ref     object.Ref
	Warning bool
	// Source is the name of the source that an automation changes.
	Source          string
	Reason, Message string
}

// Options are what a Manager works with. Every function may be called from several goroutines.
type Options struct {
	// Tags and Digest ask the registry.
	Tags   func(ctx context.Context, r Repository) ([]string, error)
	Digest func(ctx context.Context, r Repository, tag string) (string, error)
	// Update makes marked fields say what lookup returns.
	Update func(ctx context.Context, a Automation, lookup func(policy string) (Image, bool)) (Update, error)
	// Until is when a registry may be asked again; zero for now.
	Until func(r Repository) time.Time
	Event func(Event)
}

const (
	firstPause    = 10 * time.Second // before a second try; it doubles up to the interval
	updateTimeout = 5 * time.Minute
)

// RepositoryStatus is what is known of a Repository.
type RepositoryStatus struct {
	Repository
	Tags    int
	Scanned time.Time
	Next    time.Time
	Error   string
}

// ChoiceStatus is what is known of a Choice. Latest is zero before anything was chosen.
type ChoiceStatus struct {
	Choice
	Latest   Image
	Since    time.Time
	Previous Image
	Error    string
}

// AutomationStatus is what is known of an Automation.
type AutomationStatus struct {
	Automation
	// Ran is when it last looked, Pushed when it last changed something, and Last that change.
	Ran, Pushed time.Time
	Last        Update
	// Pending are changes that are not in the source's branch yet: they wait for a pull request.
	Pending []Change
	Error   string
	Next    time.Time
}

// Status is what is known of everything, sorted.
type Status struct {
	Repositories []RepositoryStatus
	Policies     []ChoiceStatus
	Automations  []AutomationStatus
}

// Manager looks at repositories and runs automations.
type Manager struct {
	options Options

	mu           sync.Mutex
	running      context.Context // nil before Run
	all          sync.WaitGroup
	repositories map[object.Ref]*worker[RepositoryStatus]
	automations  map[object.Ref]*worker[AutomationStatus]
	policies     map[object.Ref]*ChoiceStatus
}

// worker is one loop and what it knows; its status is guarded by Manager.mu.
type worker[S any] struct {
	status S
	poke   chan struct{}
	cancel context.CancelFunc // nil before it runs
}

func (w *worker[S]) wake() {
	select {
	case w.poke <- struct{}{}:
	default:
	}
}

// New returns a Manager. Nothing is asked before Run.
func New(o Options) *Manager {
	return &Manager{
		options: o, repositories: map[object.Ref]*worker[RepositoryStatus]{}, automations: map[object.Ref]*worker[AutomationStatus]{},
		policies: map[object.Ref]*ChoiceStatus{},
	}
}

// Run works until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	m.mu.Lock()
	m.running = ctx
	for _, w := range m.repositories {
		m.startRepository(w)
	}
	for _, w := range m.automations {
		m.startAutomation(w)
	}
	m.mu.Unlock()
	<-ctx.Done()
	m.all.Wait()
	return nil
}

// Configure replaces what is declared. It does not wait.
func (m *Manager) Configure(set Set) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range set.Repositories {
		w := m.repositories[r.Ref]
		if w != nil && reflect.DeepEqual(w.status.Repository, r) {
			continue
		}
		next := &worker[RepositoryStatus]{status: RepositoryStatus{Repository: r}, poke: make(chan struct{}, 1)}
		stop(w)
		m.repositories[r.Ref] = next
		m.startRepository(next)
	}
	for ref, w := range m.repositories {
		if !slices.ContainsFunc(set.Repositories, func(r Repository) bool { return r.Ref == ref }) {
			stop(w)
			delete(m.repositories, ref)
		}
	}
	for _, c := range set.Policies {
		have := m.policies[c.Ref]
		if have != nil && reflect.DeepEqual(have.Choice, c) {
			continue
		}
		m.policies[c.Ref] = &ChoiceStatus{Choice: c}
		if w := m.repositories[c.Repository]; w != nil {
			w.wake()
		}
	}
	for ref := range m.policies {
		if !slices.ContainsFunc(set.Policies, func(c Choice) bool { return c.Ref == ref }) {
			delete(m.policies, ref)
		}
	}
	for _, a := range set.Automations {
		w := m.automations[a.Ref]
		if w != nil && reflect.DeepEqual(w.status.Automation, a) {
			continue
		}
		next := &worker[AutomationStatus]{status: AutomationStatus{Automation: a}, poke: make(chan struct{}, 1)}
		stop(w)
		m.automations[a.Ref] = next
		m.startAutomation(next)
	}
	for ref, w := range m.automations {
		if !slices.ContainsFunc(set.Automations, func(a Automation) bool { return a.Ref == ref }) {
			stop(w)
			delete(m.automations, ref)
		}
	}
}

func stop[S any](w *worker[S]) {
	if w != nil && w.cancel != nil {
		w.cancel()
	}
}

// startRepository starts a loop, once Run runs; m.mu is held.
func (m *Manager) startRepository(w *worker[RepositoryStatus]) {
	if m.running == nil || m.running.Err() != nil || w.status.Suspend {
		return
	}
	ctx, cancel := context.WithCancel(m.running)
	w.cancel = cancel
	m.all.Go(func() {
		defer cancel()
		m.loop(ctx, w.poke, w.status.Interval, func(ctx context.Context) error { return m.scan(ctx, w) }, func(at time.Time) { w.status.Next = at }, func() time.Time {
			return m.options.Until(w.status.Repository)
		})
	})
}

func (m *Manager) startAutomation(w *worker[AutomationStatus]) {
	if m.running == nil || m.running.Err() != nil || w.status.Suspend {
		return
	}
	ctx, cancel := context.WithCancel(m.running)
	w.cancel = cancel
	m.all.Go(func() {
		defer cancel()
		m.loop(ctx, w.poke, w.status.Interval, func(ctx context.Context) error { return m.update(ctx, w) }, func(at time.Time) { w.status.Next = at }, func() time.Time { return time.Time{} })
	})
}

// loop calls do at once, at every interval give or take a tenth, when it is poked, and sooner after failures.
func (m *Manager) loop(ctx context.Context, poke <-chan struct{}, interval time.Duration, do func(context.Context) error, next func(time.Time), until func() time.Time) {
	pause := firstPause
	for ctx.Err() == nil {
		wait := interval + time.Duration((rand.Float64()-.5)/5*float64(interval))
		if do(ctx) != nil {
			wait, pause = min(wait, pause), min(2*pause, max(interval, firstPause))
		} else {
			pause = firstPause
		}
		if left := time.Until(until()); left > wait {
			wait = left
		}
		m.mu.Lock()
		next(time.Now().Add(wait))
		m.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-poke:
		case <-time.After(wait):
		}
	}
}

// scan looks at the tags of a repository, and chooses.
func (m *Manager) scan(ctx context.Context, w *worker[RepositoryStatus]) error {
	m.mu.Lock()
	r, before := w.status.Repository, w.status.Error
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	tags, err := m.options.Tags(ctx, r)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	m.mu.Lock()
	if w.status.Error = ""; err != nil {
		w.status.Error = err.Error()
	} else {
		w.status.Scanned = time.Now()
	}
	failed := w.status.Error
	m.mu.Unlock()
	if err != nil {
		if failed != before {
			m.options.Event(Event{Ref: r.Ref, Warning: true, Reason: "ImageScanFailed", Message: "the tags of " + failed})
		}
		return err
	}
	var exclude []*regexp.Regexp
	for _, e := range r.Exclude {
		exclude = append(exclude, regexp.MustCompile(e)) // it was checked
	}
	tags = Excluded(tags, exclude)
	m.mu.Lock()
	w.status.Tags = len(tags)
	var choices []ChoiceStatus
	for _, p := range m.policies {
		if p.Repository == r.Ref && !p.Suspend {
			choices = append(choices, *p)
		}
	}
	m.mu.Unlock()
	moved := false
	for _, c := range choices {
		was, now := c, m.choose(ctx, r, c, tags)
		m.mu.Lock()
		if have := m.policies[c.Ref]; have != nil && reflect.DeepEqual(have.Choice, c.Choice) {
			*have = now
		}
		m.mu.Unlock()
		switch {
		case now.Error != "" && now.Error != was.Error:
			m.options.Event(Event{Ref: c.Ref, Warning: true, Reason: "ImagePolicyFailed", Message: now.Error})
		case now.Error == "" && now.Latest != was.Latest:
			moved = true
			m.options.Event(Event{Ref: c.Ref, Reason: "ImageChosen", Message: fmt.Sprintf("%s is the newest of %s", now.Latest, c.Policy)})
		}
	}
	if moved {
		m.mu.Lock()
		for _, a := range m.automations {
			a.wake()
		}
		m.mu.Unlock()
	}
	return nil
}

// choose returns what a policy chooses now. While it fails, what it chose last stays.
func (m *Manager) choose(ctx context.Context, r Repository, c ChoiceStatus, tags []string) ChoiceStatus {
	c.Error = ""
	tag, err := c.Policy.Latest(tags)
	if err != nil {
		c.Error = err.Error()
		return c
	}
	latest := Image{Name: r.Image, Tag: tag}
	switch {
	case c.Digest == IfNotPresent && c.Latest.Name == latest.Name && c.Latest.Tag == tag && c.Latest.Digest != "":
		latest.Digest = c.Latest.Digest
	case c.Digest == IfNotPresent || c.Digest == Always:
		if latest.Digest, err = m.options.Digest(ctx, r, tag); err != nil {
			c.Error = "the digest of " + err.Error()
			return c
		}
	}
	if latest != c.Latest {
		c.Previous, c.Latest, c.Since = c.Latest, latest, time.Now()
	}
	return c
}

// lookup returns what the policies that an automation follows have chosen: those of its namespace that its selector selects.
func (m *Manager) lookup(a Automation) func(policy string) (Image, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	chosen := map[string]Image{}
	for _, p := range m.policies {
		if p.Ref.Namespace == a.Ref.Namespace && p.Latest.Tag != "" && (a.Selector == nil || a.Selector.Matches(labelSet(p.Labels))) {
			chosen[p.key()] = p.Latest
		}
	}
	return func(policy string) (Image, bool) {
		i, ok := chosen[policy]
		return i, ok
	}
}

// update runs an automation.
func (m *Manager) update(ctx context.Context, w *worker[AutomationStatus]) error {
	m.mu.Lock()
	a, before, last := w.status.Automation, w.status.Error, w.status.Last
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, updateTimeout)
	defer cancel()
	u, err := m.options.Update(ctx, a, m.lookup(a))
	if errors.Is(err, context.Canceled) {
		return nil
	}
	text := ""
	if err != nil {
		text = err.Error()
	} else if len(u.Problems) > 0 {
		text = u.Problems[0].String()
		if n := len(u.Problems) - 1; n > 0 {
			text += fmt.Sprintf(" (and %d more)", n)
		}
	}
	fresh := err == nil && u.Revision != "" && u.Revision != last.Revision
	m.mu.Lock()
	w.status.Error, w.status.Ran = text, time.Now()
	if err == nil {
		w.status.Pending = nil
		if a.Push != "" {
			w.status.Pending = u.Changes
		}
	}
	if fresh {
		w.status.Last, w.status.Pushed = u, time.Now()
	}
	m.mu.Unlock()
	if text != "" && text != before {
		m.options.Event(Event{Ref: a.Ref, Source: a.Source, Warning: true, Reason: "ImageUpdateFailed", Message: text})
	}
	if fresh {
		message := fmt.Sprintf("pushed %.12s to %s: %s", u.Revision, u.Branch, summary(u.Changes))
		if u.PullRequest != "" {
			message += "; " + u.PullRequest
		}
		m.options.Event(Event{Ref: a.Ref, Source: a.Source, Reason: "ImagesUpdated", Message: message})
	}
	return err
}

// summary names what has changed.
func summary(changes []Change) string {
	var names []string
	for _, c := range changes {
		if s := c.Image.String(); !slices.Contains(names, s) {
			names = append(names, s)
		}
	}
	const most = 5
	if n := len(names); n > most {
		return fmt.Sprintf("%v and %d more", names[:most], n-most)
	}
	s := ""
	for i, n := range names {
		if i > 0 {
			s += ", "
		}
		s += n
	}
	return s
}

// Look has the tags of images looked at that a registry has told of, all in the forms that match says, and returns how many repositories that are.
func (m *Manager) Look(match func(image string) bool) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, w := range m.repositories {
		if match(w.status.Image) {
			w.wake()
			n++
		}
	}
	return n
}

// SourceMoved runs the automations of a source.
func (m *Manager) SourceMoved(source string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.automations {
		if w.status.Source == source {
			w.wake()
		}
	}
}

// Status returns what is known.
func (m *Manager) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out Status
	for _, w := range m.repositories {
		out.Repositories = append(out.Repositories, w.status)
	}
	for _, p := range m.policies {
		out.Policies = append(out.Policies, *p)
	}
	for _, w := range m.automations {
		out.Automations = append(out.Automations, w.status)
	}
	slices.SortFunc(out.Repositories, func(a, b RepositoryStatus) int { return object.Compare(a.Ref, b.Ref) })
	slices.SortFunc(out.Policies, func(a, b ChoiceStatus) int { return object.Compare(a.Ref, b.Ref) })
	slices.SortFunc(out.Automations, func(a, b AutomationStatus) int { return object.Compare(a.Ref, b.Ref) })
	return out
}

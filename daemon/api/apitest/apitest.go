// Package apitest has a Backend that answers from a script, for the tests of what stands on one.
package apitest

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// State is everything that a Backend answers. Its JSON form is what scripts hold.
type State struct {
	Status       api.Status        `json:"status"`
	Applications []api.Application `json:"applications"`
	Sources      []api.Source      `json:"sources"`
	Objects      []api.Object      `json:"objects"`
	Pods         []api.Pod         `json:"pods"`
	Services     []api.Service     `json:"services"`
	Events       []api.Event       `json:"events"`
	Plan         api.PlanResult    `json:"plan"`
	Apply        api.ApplyResult   `json:"apply"`
	Down         api.DownResult    `json:"down"`
	Preview      api.Preview       `json:"preview"`
	Approve      api.ApproveResult `json:"approve"`
	Images       api.Images        `json:"images"`
	// Progress is reported by Plan, Apply and Down.
	Progress []api.Event `json:"progress"`
	// Logs maps namespace/pod/container to its log; a container ending in "!" is the previous instance.
	Logs map[string]string `json:"logs"`
	// ExitCode and Output are those of Exec, whose output begins with what was asked for.
	ExitCode int    `json:"exitCode"`
	Output   string `json:"output"`
	// Errors maps a method to the error that it returns.
	Errors map[string]*api.Error `json:"errors"`
	// Block are methods that wait until their context ends, after they reported their progress.
	Block []string `json:"block"`
}

// Backend answers from its State, and remembers what it was asked.
type Backend struct {
	mu      sync.Mutex
	state   State
	calls   []string
	changed chan struct{} // closed and replaced by Update
}

var _ api.Backend = (*Backend)(nil)

// New returns a Backend with a state.
func New(s State) *Backend { return &Backend{state: s, changed: make(chan struct{})} }

// Update changes the state and wakes those who watch.
func (b *Backend) Update(f func(*State)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.state)
	close(b.changed)
	b.changed = make(chan struct{})
}

// Calls returns what was asked, a line a call, in order; those that only read are among them.
func (b *Backend) Calls() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.calls)
}

// begin notes a call and returns the state and the channel that the next Update closes.
func (b *Backend) begin(method string, args any) (State, <-chan struct{}, error) {
	b.mu.Lock()
	b.calls = append(b.calls, strings.TrimSpace(fmt.Sprintf("%s %+v", method, args)))
	s, changed := b.state, b.changed
	b.mu.Unlock()
	if e := s.Errors[method]; e != nil {
		return s, changed, e
	}
	return s, changed, nil
}

func (b *Backend) block(ctx context.Context, s State, method string) error {
	if slices.Contains(s.Block, method) {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// Status implements api.Backend.
func (b *Backend) Status(ctx context.Context) (api.Status, error) {
	s, _, err := b.begin("Status", "")
	if err != nil {
		return api.Status{}, err
	}
	return s.Status, b.block(ctx, s, "Status")
}

// Applications implements api.Backend.
func (b *Backend) Applications(ctx context.Context) ([]api.Application, error) {
	s, _, err := b.begin("Applications", "")
	if err != nil {
		return nil, err
	}
	return s.Applications, nil
}

// Sources implements api.Backend.
func (b *Backend) Sources(ctx context.Context) ([]api.Source, error) {
	s, _, err := b.begin("Sources", "")
	if err != nil {
		return nil, err
	}
	return s.Sources, nil
}

// Objects implements api.Backend.
func (b *Backend) Objects(ctx context.Context, q api.Query) ([]api.Object, error) {
	s, _, err := b.begin("Objects", q)
	if err != nil {
		return nil, err
	}
	m, err := q.Matcher()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(s.Objects), func(o api.Object) bool { return !m.Object(o) }), nil
}

// Pods implements api.Backend.
func (b *Backend) Pods(ctx context.Context, q api.Query) ([]api.Pod, error) {
	s, _, err := b.begin("Pods", q)
	if err != nil {
		return nil, err
	}
	m, err := q.Matcher()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(s.Pods), func(p api.Pod) bool { return !m.Pod(p) }), nil
}

// Services implements api.Backend.
func (b *Backend) Services(ctx context.Context, q api.Query) ([]api.Service, error) {
	s, _, err := b.begin("Services", q)
	if err != nil {
		return nil, err
	}
	m, err := q.Matcher()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(s.Services), func(v api.Service) bool { return !m.Service(v) }), nil
}

// Describe implements api.Backend.
func (b *Backend) Describe(ctx context.Context, ref object.Ref) (api.Description, error) {
	s, _, err := b.begin("Describe", ref)
	if err != nil {
		return api.Description{}, err
	}
	d := api.Description{Ref: ref}
	for _, e := range s.Events {
		if e.Ref == ref {
			d.Events = append(d.Events, e)
		}
	}
	for i, p := range s.Pods {
		if p.PodKey.Ref() == ref {
			d.Pod = &s.Pods[i]
			return d, nil
		}
		if p.Owner == ref {
			d.Pods = append(d.Pods, p)
		}
	}
	for i, o := range s.Objects {
		if o.Ref == ref {
			d.Object = &s.Objects[i]
			return d, nil
		}
	}
	for i, v := range s.Services {
		if v.Ref == ref {
			d.Service = &s.Services[i]
			return d, nil
		}
	}
	for i, a := range s.Applications {
		if (object.Ref{Group: api.Group, Kind: "Application", Name: a.Name}) == ref {
			d.Application, d.Drift = &s.Applications[i], a.Drift
			return d, nil
		}
	}
	for i, src := range s.Sources {
		if (object.Ref{Group: api.Group, Kind: "Source", Name: src.Name}) == ref {
			d.Source = &s.Sources[i]
			return d, nil
		}
	}
	return api.Description{}, fmt.Errorf("%s: %w", ref, api.ErrNotFound)
}

// Events implements api.Backend.
func (b *Backend) Events(ctx context.Context, q api.EventQuery, on func(api.Event) error) error {
	s, changed, err := b.begin("Events", q)
	if err != nil {
		return err
	}
	for sent := 0; ; {
		var match []api.Event
		for _, e := range s.Events[sent:] {
			if q.Match(e) {
				match = append(match, e)
			}
		}
		if sent == 0 && q.Tail > 0 && len(match) > q.Tail {
			match = match[len(match)-q.Tail:]
		}
		for _, e := range match {
			if err := on(e); err != nil {
				return err
			}
		}
		sent = len(s.Events)
		if !q.Follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		b.mu.Lock()
		s, changed = b.state, b.changed
		b.mu.Unlock()
	}
}

// Watch implements api.Backend.
func (b *Backend) Watch(ctx context.Context, changed func()) error {
	_, next, err := b.begin("Watch", "")
	if err != nil {
		return err
	}
	for {
		changed()
		select {
		case <-ctx.Done():
			return nil
		case <-next:
		}
		b.mu.Lock()
		next = b.changed
		b.mu.Unlock()
	}
}

// Logs implements api.Backend. Lines that begin with "stderr: " go to stderr.
func (b *Backend) Logs(ctx context.Context, r api.LogRequest, stdout, stderr io.Writer) error {
	s, _, err := b.begin("Logs", r)
	if err != nil {
		return err
	}
	name := r.Pod.String() + "/" + r.Container
	if r.Previous {
		name += "!"
	}
	log, ok := s.Logs[name]
	if !ok {
		return fmt.Errorf("log of %s: %w", name, api.ErrNotFound)
	}
	lines := strings.SplitAfter(strings.TrimSuffix(log, "\n"), "\n")
	if r.Tail >= 0 && len(lines) > r.Tail {
		lines = lines[len(lines)-r.Tail:]
	}
	for _, l := range lines {
		w := stdout
		if t, ok := strings.CutPrefix(l, "stderr: "); ok {
			w, l = stderr, t
		}
		if !strings.HasSuffix(l, "\n") {
			l += "\n"
		}
		if _, err := io.WriteString(w, l); err != nil {
			return err
		}
	}
	if r.Follow {
		return b.block(ctx, s, "Logs")
	}
	return nil
}

// Exec implements api.Backend: it writes Output, then what comes on stdin until its end.
func (b *Backend) Exec(ctx context.Context, r api.ExecRequest, st api.Streams) (int, error) {
	s, _, err := b.begin("Exec", r)
	if err != nil {
		return 0, err
	}
	if _, err := io.WriteString(st.Stdout, s.Output); err != nil {
		return 0, err
	}
	if r.TTY && st.Resize != nil {
		select {
		case size := <-st.Resize:
			fmt.Fprintf(st.Stdout, "%dx%d\n", size[0], size[1])
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	if st.Stdin != nil {
		if _, err := io.Copy(st.Stdout, st.Stdin); err != nil {
			return 0, err
		}
	}
	return s.ExitCode, b.block(ctx, s, "Exec")
}

// Plan implements api.Backend.
func (b *Backend) Plan(ctx context.Context, r api.PlanRequest, on func(api.Event)) (api.PlanResult, error) {
	s, err := b.progress(ctx, "Plan", r, on)
	if err != nil {
		return api.PlanResult{}, err
	}
	return s.Plan, nil
}

// Preview implements api.Backend.
func (b *Backend) Preview(_ context.Context, r api.PreviewRequest) (api.Preview, error) {
	s, _, err := b.begin("Preview", r)
	if err != nil {
		return api.Preview{}, err
	}
	return s.Preview, nil
}

// Apply implements api.Backend. With r.Expect it compares them with the state's plan.
func (b *Backend) Apply(ctx context.Context, r api.ApplyRequest, on func(api.Event)) (api.ApplyResult, error) {
	s, err := b.progress(ctx, "Apply", r, on)
	if err != nil {
		return api.ApplyResult{}, err
	}
	if len(r.Expect) > 0 && !slices.Equal(r.Expect, s.Plan.Expect()) {
		return api.ApplyResult{}, fmt.Errorf("%w: planned %+v, found %+v", api.ErrMoved, r.Expect, s.Plan.Expect())
	}
	return s.Apply, nil
}

// Reconcile implements api.Backend.
func (b *Backend) Reconcile(ctx context.Context, applications []string) error {
	_, _, err := b.begin("Reconcile", applications)
	return err
}

// Access implements api.Backend: members of system:masters may do everything, jane may get everything, and nobody else anything.
func (b *Backend) Access(ctx context.Context, r api.AccessRequest) (api.AccessAnswer, error) {
	if _, _, err := b.begin("Access", r); err != nil {
		return api.AccessAnswer{}, err
	}
	by := "ClusterRoleBinding readers of ClusterRole view"
	out := api.AccessAnswer{}
	if r.Verb == "get" {
		out.Holders = []api.AccessHolder{{Kind: "User", Name: "jane", By: by}, {Kind: "ServiceAccount", Namespace: "shop", Name: "robot", By: by}}
	}
	switch {
	case slices.Contains(r.Groups, "system:masters"):
		out.Allowed, out.By = true, "membership in system:masters"
	case r.User == "jane" && r.Verb == "get":
		out.Allowed, out.By = true, by
	}
	return out, nil
}

// Suspend implements api.Backend: it answers with what it was asked.
func (b *Backend) Suspend(ctx context.Context, r api.SuspendRequest) (api.SuspendResult, error) {
	_, _, err := b.begin("Suspend", r)
	return api.SuspendResult{Application: r.Application, Object: r.Object, Suspension: plan.Suspension{Until: r.Until, Reason: r.Reason, By: "jane"}}, err
}

// Resume implements api.Backend: it answers with what it was asked.
func (b *Backend) Resume(ctx context.Context, r api.ResumeRequest) (api.SuspendResult, error) {
	_, _, err := b.begin("Resume", r)
	return api.SuspendResult{Application: r.Application, Object: r.Object, Suspension: plan.Suspension{By: "jane"}}, err
}

// Images implements api.Backend.
func (b *Backend) Images(context.Context) (api.Images, error) {
	s, _, err := b.begin("Images", nil)
	return s.Images, err
}

// TestNotification implements api.Backend: the state's channels take everything.
func (b *Backend) TestNotification(ctx context.Context, r api.NotificationTest) (api.NotificationTest, error) {
	s, _, err := b.begin("TestNotification", r)
	if err != nil {
		return r, err
	}
	for _, c := range s.Status.Notifications {
		if c.Name == r.Channel {
			return api.NotificationTest{Channel: c.Name, Kind: c.Kind}, nil
		}
	}
	return r, fmt.Errorf("%w: there is no channel %s", api.ErrNotFound, r.Channel)
}

// Approve implements api.Backend: it answers with the state's result, and with ErrMoved for another digest.
func (b *Backend) Approve(ctx context.Context, r api.ApproveRequest) (api.ApproveResult, error) {
	s, _, err := b.begin("Approve", r)
	if err != nil {
		return api.ApproveResult{}, err
	}
	if r.Digest != s.Approve.Approved.Digest {
		return api.ApproveResult{}, fmt.Errorf("%w: %s is not what waits for an approval", api.ErrMoved, r.Digest)
	}
	return s.Approve, nil
}

// Down implements api.Backend.
func (b *Backend) Down(ctx context.Context, r api.DownRequest, on func(api.Event)) (api.DownResult, error) {
	s, err := b.progress(ctx, "Down", r, on)
	if err != nil {
		return api.DownResult{}, err
	}
	if r.DryRun {
		s.Down.Outcomes = nil
	}
	return s.Down, nil
}

func (b *Backend) progress(ctx context.Context, method string, args any, on func(api.Event)) (State, error) {
	s, _, err := b.begin(method, args)
	if err != nil {
		return s, err
	}
	for _, e := range s.Progress {
		if on != nil {
			on(e)
		}
	}
	return s, b.block(ctx, s, method)
}

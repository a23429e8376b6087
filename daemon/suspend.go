package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/daemon/store"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// suspensions is what is suspended: by command, which the store remembers, and by annotations, as plans have found them.
type suspensions struct {
	changed chan struct{} // has an element when list is another one

	mu      sync.Mutex
	list    []store.Suspension
	objects map[object.Ref]plan.Suspension // of list; replaced, never modified
	planned map[string][]plan.SuspendedObject
}

func (s *suspensions) set(list []store.Suspension) {
	objects := map[object.Ref]plan.Suspension{}
	for _, x := range list {
		if x.Application == "" {
			objects[x.Object] = x.Suspension
		}
	}
	s.mu.Lock()
	s.list, s.objects = list, objects
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// application returns how an application is suspended by command; false when it is not.
func (s *suspensions) application(name string, now time.Time) (plan.Suspension, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.list {
		if x.Application == name && !x.Over(now) {
			return x.Suspension, true
		}
	}
	return plan.Suspension{}, false
}

// plans takes over what the plan of an application leaves as it is, and reports whether that changed.
func (s *suspensions) plans(application string, held []plan.SuspendedObject) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Equal(s.planned[application], held) {
		return false
	}
	s.planned[application] = held
	return true
}

// holds reports whether an object is left as it is now.
func (s *suspensions) holds(ref object.Ref) bool {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if x, is := s.objects[ref]; is && !x.Over(now) {
		return true
	}
	for _, list := range s.planned {
		if slices.ContainsFunc(list, func(o plan.SuspendedObject) bool { return o.Ref == ref && o.By == "" && !o.Over(now) }) {
			return true
		}
	}
	return false
}

// Suspended implements reconcile.World.
func (w *world) Suspended() map[object.Ref]plan.Suspension {
	s := &w.system().suspensions
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects
}

// loadSuspensions reads what was suspended before this start. Where that cannot be read nothing may be begun: it could
// be what somebody works on.
func (s *System) loadSuspensions() error {
	list, err := s.store.Suspensions()
	if err != nil {
		return fmt.Errorf("%w: mend the file, or remove it to resume everything", err)
	}
	s.suspensions.set(list)
	return nil
}

// Suspend leaves an application or an object as it is, until a time or until it is resumed.
func (s *System) Suspend(ctx context.Context, r api.SuspendRequest) (api.SuspendResult, error) {
	now := time.Now()
	if err := s.suspendable(ctx, r.Application, r.Object); err != nil {
		return api.SuspendResult{}, err
	}
	if !r.Until.IsZero() && !r.Until.After(now) {
		return api.SuspendResult{}, fmt.Errorf("%w: %s is over already", api.ErrInvalid, r.Until.Format(time.RFC3339))
	}
	x := store.Suspension{
		Application: r.Application, Object: r.Object, At: now.UTC(),
		Suspension: plan.Suspension{Until: r.Until.UTC(), Reason: strings.TrimSpace(r.Reason), By: asker(ctx)},
	}
	if r.Until.IsZero() {
		x.Until = time.Time{}
	}
	list, err := s.store.Suspend(x)
	if err != nil {
		return api.SuspendResult{}, err
	}
	s.suspensions.set(list)
	s.tellSuspension("Suspended", x, fmt.Sprintf("%s is suspended %s", x.Subject(), x.Suspension))
	s.configureAll()
	return api.SuspendResult{Application: x.Application, Object: x.Object, Suspension: x.Suspension}, nil
}

// Resume ends what Suspend has begun.
func (s *System) Resume(ctx context.Context, r api.ResumeRequest) (api.SuspendResult, error) {
	if s.readOnly {
		return api.SuspendResult{}, fmt.Errorf("%w: this fairlead only reads", api.ErrUnsupported)
	}
	wanted := store.Suspension{Application: r.Application, Object: r.Object}
	var ended []store.Suspension
	list, err := s.store.Resume(func(x store.Suspension) bool {
		if x.Same(wanted) {
			ended = append(ended, x)
		}
		return x.Same(wanted)
	})
	if err != nil {
		return api.SuspendResult{}, err
	}
	if len(ended) == 0 {
		return api.SuspendResult{}, s.notSuspended(ctx, wanted)
	}
	s.suspensions.set(list)
	s.tellSuspension("Resumed", wanted, fmt.Sprintf("%s is resumed by %s", wanted.Subject(), asker(ctx)))
	s.configureAll()
	return api.SuspendResult{Application: r.Application, Object: r.Object, Suspension: ended[0].Suspension}, nil
}

// notSuspended says why there is nothing to resume.
func (s *System) notSuspended(ctx context.Context, x store.Suspension) error {
	all, err := s.shown(ctx)
	if err != nil {
		return err
	}
	for _, st := range all {
		byGit := st.Config.Name == x.Application && st.Config.Suspend && !st.Config.Frozen ||
			slices.ContainsFunc(st.Plan.Suspended, func(o plan.SuspendedObject) bool { return x.Application == "" && o.Ref == x.Object })
		if byGit {
			return fmt.Errorf("%w: %s is suspended in the source, not by a command: change it there", api.ErrConflict, x.Subject())
		}
	}
	return fmt.Errorf("%w: %s is not suspended", api.ErrConflict, x.Subject())
}

// suspendable reports what is wrong with suspending an application or an object.
func (s *System) suspendable(ctx context.Context, application string, ref object.Ref) error {
	if s.readOnly {
		return fmt.Errorf("%w: this fairlead only reads", api.ErrUnsupported)
	}
	if (application == "") == ref.IsZero() {
		return fmt.Errorf("%w: name an application, or an object", api.ErrInvalid)
	}
	all, err := s.shown(ctx)
	if err != nil {
		return err
	}
	for _, st := range all {
		switch {
		case application != "" && st.Config.Name == application:
			return nil
		case application != "":
		case slices.ContainsFunc(st.Desired.Objects, func(o object.Object) bool { return o.Ref == ref }),
			slices.ContainsFunc(st.Inventory, func(o plan.Applied) bool { return o.Ref == ref }):
			return nil
		}
	}
	if application != "" {
		return fmt.Errorf("%w: application %s", api.ErrNotFound, application)
	}
	for _, p := range s.observe(ctx).Pods {
		if p.Ref() == ref && p.Owner != ref {
			return fmt.Errorf("%w: pod %s belongs to %s: suspend that", api.ErrInvalid, p.PodKey, p.Owner)
		}
	}
	return fmt.Errorf("%w: %s in any application", api.ErrNotFound, ref)
}

// tellSuspension tells of a suspension that begins or ends.
func (s *System) tellSuspension(reason string, x store.Suspension, message string) {
	application := x.Application
	if application == "" {
		application = s.claims.Owner(x.Object)
	}
	s.keep(api.Event{Type: api.Normal, Reason: reason, Application: application, Ref: x.Object, Message: message})
	s.log.Info().Str("application", application).Str("ref", x.Object.String()).Msg(message)
}

// configureAll brings every worker, and the node, to what is suspended now.
func (s *System) configureAll() {
	s.mu.Lock()
	for _, e := range s.applications {
		if c := s.config(*e); c.Suspend != e.worker.Status().Config.Suspend || c.Suspension != e.worker.Status().Config.Suspension {
			e.worker.Configure(c)
		} else {
			e.worker.Poke()
		}
	}
	s.mu.Unlock()
	if s.node != nil {
		s.node.Recheck()
	}
}

// watchSuspensions ends suspensions at their time.
func (s *System) watchSuspensions(ctx context.Context) error {
	for {
		now := time.Now()
		var ended []store.Suspension
		next := now.Add(time.Minute) // the clock may be set meanwhile
		s.suspensions.mu.Lock()
		for _, x := range s.suspensions.list {
			switch {
			case x.Over(now):
				ended = append(ended, x)
			case !x.Until.IsZero() && x.Until.Before(next):
				next = x.Until
			}
		}
		s.suspensions.mu.Unlock()
		if len(ended) > 0 {
			s.endSuspensions(now, ended)
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(next)):
		case <-s.suspensions.changed:
		}
	}
}

// endSuspensions takes note of suspensions whose time has come. What cannot be written down is over all the same.
func (s *System) endSuspensions(now time.Time, ended []store.Suspension) {
	list, err := s.store.Resume(func(x store.Suspension) bool { return x.Over(now) })
	if err != nil {
		s.log.Warn().Err(err).Msg("what is not suspended any more stays written down")
		s.suspensions.mu.Lock()
		list = slices.DeleteFunc(slices.Clone(s.suspensions.list), func(x store.Suspension) bool { return x.Over(now) })
		s.suspensions.mu.Unlock()
	}
	s.suspensions.set(list)
	for _, x := range ended {
		s.tellSuspension("Resumed", x, fmt.Sprintf("%s is resumed: it was suspended %s", x.Subject(), x.Suspension))
	}
	s.configureAll()
}

// suspended adds to a configuration that its application is suspended by command.
func (s *System) suspended(c reconcile.Config) reconcile.Config {
	if x, is := s.suspensions.application(c.Name, time.Now()); is && !c.Removed {
		c.Suspend, c.Suspension = true, x
	}
	return c
}

package consul

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Condition is how the Registry and the agent get on.
type Condition struct {
	// Code is Registered, or what is the matter.
	Code Code
	// Message says it in words, with what to do. Empty when all is well.
	Message string
	// Since is when the code became this one.
	Since time.Time
}

// Code is one word for a Condition.
type Code string

// The conditions.
const (
	// Registered: the agent has accepted everything, or nothing was asked of it yet.
	Registered Code = "Registered"
	// Unavailable: the agent does not answer, or not in Consul's way.
	Unavailable Code = "Unavailable"
	// Denied: the ACL token is missing, unknown, or does not allow what is needed.
	Denied Code = "Denied"
	// Conflict: something that is not ours has an ID of ours.
	Conflict Code = "Conflict"
	// Refused: the agent does not take something that is registered.
	Refused Code = "Refused"
)

// Stats are figures of a Registry.
type Stats struct {
	Condition Condition
	// Wanted is the number of instances that are to be registered, Registered that of those the agent has, Pending that
	// of changes that it has not accepted yet.
	Wanted, Registered, Pending int
	// LastSync is when the agent was last known to have exactly what is wanted, LastCompare when its list was last read.
	LastSync, LastCompare time.Time
	// SetTook is how long the last Set, or repair, that succeeded took.
	SetTook time.Duration
	// Registrations, Deregistrations and Passes count what the agent accepted, Errors the calls that failed.
	Registrations, Deregistrations, Passes, Errors uint64
	// CallP50 and CallP99 are of the last thousand calls.
	CallP50, CallP99 time.Duration
	// Problems are annotations that are not followed, in words.
	Problems []string
}

type counters struct {
	registrations, deregistrations, passes, errors atomic.Uint64

	mu       sync.Mutex
	cond     Condition
	tasks    [2]Condition
	sync     time.Time
	list     time.Time
	took     time.Duration
	problem  []string
	calls    [1000]time.Duration
	callNext int
	callAll  int
}

// call notes one call to the agent.
func (c *counters) call(took time.Duration, err error) {
	if err != nil {
		c.errors.Add(1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls[c.callNext] = took
	c.callNext = (c.callNext + 1) % len(c.calls)
	c.callAll = min(c.callAll+1, len(c.calls))
}

func (c *counters) synced(start time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sync, c.took = time.Now(), time.Since(start)
}

func (c *counters) compared(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = at
}

func (c *counters) problems(p []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problem = p
}

// task is what the Registry does with the agent; each has its own outcome.
type task int

const (
	// syncing is registering, deregistering and comparing.
	syncing task = iota
	// passing is passing checks.
	passing
)

// failing reports whether the agent did not serve when it was last synced.
func (c *counters) failing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tasks[syncing].Code == Unavailable || c.tasks[passing].Code == Unavailable
}

// condition notes what the outcome of a task says about the agent, tells it if that is news, and returns err.
func (r *Registry) condition(of task, err error) error {
	next := Condition{Code: Registered}
	switch {
	case err == nil:
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, errUnavailable):
		return err // says nothing about the agent
	case errors.Is(err, errDenied):
		next = Condition{Code: Denied, Message: "Consul's agent at " + r.opt.Address + " denies: " + err.Error() +
			"; give the token service:write for the names that are registered, or set another token"}
	case errors.Is(err, errConflict):
		next = Condition{Code: Conflict, Message: err.Error() + "; deregister it, or give this installation another name"}
	case errors.Is(err, errUnavailable):
		next = Condition{Code: Unavailable, Message: "Consul's agent at " + r.opt.Address + " does not serve: " + err.Error() + "; it is tried again until it does"}
	default:
		next = Condition{Code: Refused, Message: "Consul's agent at " + r.opt.Address + " refuses: " + err.Error()}
	}
	c := &r.stats
	c.mu.Lock()
	was := c.cond
	c.tasks[of] = next
	for _, t := range c.tasks {
		if t.Code != "" && t.Code != Registered {
			next = t
			break
		}
	}
	if next.Since = time.Now(); was.Code == next.Code {
		next.Since = was.Since
	}
	c.cond = next
	c.mu.Unlock()
	if was.Code != next.Code && (was.Code != "" || next.Code != Registered) && r.opt.Event != nil {
		r.opt.Event(next)
	}
	return err
}

// Stats returns the figures as they are now.
func (r *Registry) Stats() Stats {
	r.mu.Lock()
	s := Stats{Wanted: len(r.want), Pending: len(r.dirty)}
	for id := range r.have {
		if r.want[id] != nil {
			s.Registered++
		}
	}
	r.mu.Unlock()
	c := &r.stats
	s.Registrations, s.Deregistrations, s.Passes, s.Errors = c.registrations.Load(), c.deregistrations.Load(), c.passes.Load(), c.errors.Load()
	c.mu.Lock()
	s.Condition, s.LastSync, s.LastCompare, s.SetTook, s.Problems = c.cond, c.sync, c.list, c.took, slices.Clone(c.problem)
	calls := slices.Clone(c.calls[:c.callAll])
	c.mu.Unlock()
	if s.Condition.Code == "" {
		s.Condition.Code = Registered
	}
	if slices.Sort(calls); len(calls) > 0 {
		s.CallP50, s.CallP99 = calls[len(calls)/2], calls[len(calls)*99/100]
	}
	return s
}

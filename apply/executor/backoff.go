package executor

import "time"

// Kubernetes' back-off of restarts.
const (
	crashFirst = 10 * time.Second
	crashMax   = 5 * time.Minute
	crashReset = 10 * time.Minute
)

// The back-off of calls that failed.
const (
	retryFirst = 500 * time.Millisecond
	retryMax   = time.Minute
)

// crash is the back-off of a container's restarts. As in Kubernetes the first restart is made at once,
// the following ones wait, and a container that went on for long begins anew.
type crash struct {
	Delay time.Duration `json:"delay,omitempty"`
	// Updated is the end of the run after which Delay was last set.
	Updated time.Time `json:"updated,omitzero"`
}

// until returns when a container that ended at finished may be started again; zero for at once.
func (b crash) until(finished time.Time) time.Time {
	if b.Delay == 0 || finished.Sub(b.Updated) > crashReset {
		return time.Time{}
	}
	return finished.Add(b.Delay)
}

// restarted returns the back-off after a restart of a container that ended at finished.
func (b crash) restarted(finished time.Time) crash {
	if b.Delay == 0 || finished.Sub(b.Updated) > crashReset {
		return crash{Delay: crashFirst, Updated: finished}
	}
	return crash{Delay: min(2*b.Delay, crashMax), Updated: finished}
}

// retry counts the failures of a call.
type retry struct{ failures int }

// failed returns how long to wait before the call is made again.
func (r *retry) failed() time.Duration {
	d := retryFirst << min(r.failures, 10)
	r.failures++
	return min(d, retryMax)
}

func (r *retry) succeeded() { r.failures = 0 }

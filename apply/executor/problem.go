package executor

import (
	"errors"
	"fmt"
	"time"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// The reasons why a container waits, in Kubernetes' words.
const (
	reasonCreating          = "ContainerCreating"
	reasonInitializing      = "PodInitializing"
	reasonCrashLoop         = "CrashLoopBackOff"
	reasonErrImagePull      = "ErrImagePull"
	reasonImagePullBackOff  = "ImagePullBackOff"
	reasonErrImageNeverPull = "ErrImageNeverPull"
	reasonInvalidImageName  = "InvalidImageName"
	reasonConfigError       = "CreateContainerConfigError"
	reasonCreateError       = "CreateContainerError"
	reasonRunError          = "RunContainerError"
)

// The reasons why a container or a pod ended, in Kubernetes' words.
const (
	reasonCompleted        = "Completed"
	reasonError            = "Error"
	reasonOOMKilled        = "OOMKilled"
	reasonStartError       = "StartError"
	reasonStatusUnknown    = "ContainerStatusUnknown"
	reasonDeadlineExceeded = "DeadlineExceeded"
	reasonEvicted          = "Evicted"
	reasonSysctlForbidden  = "SysctlForbidden"
)

// problem is an error that keeps a container from running, with Kubernetes' word for it.
type problem struct {
	Reason string
	Err    error
	// RetryAt is when trying again makes sense; zero leaves it to the caller.
	RetryAt time.Time
}

func (p *problem) Error() string { return p.Err.Error() }
func (p *problem) Unwrap() error { return p.Err }

// problemf returns a problem; %w works.
func problemf(reason, format string, args ...any) error {
	return &problem{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// asProblem returns err as a problem: one that is in its chain, or one that follows from its class,
// with reason for everything that has no other word. An engine that did not answer is no problem of the
// container: then the reason is empty.
func asProblem(err error, reason string) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	switch {
	case errors.Is(err, runtimes.ErrUnavailable):
		reason = ""
	case errors.Is(err, runtimes.ErrMissing):
		reason = reasonConfigError
	}
	return &problem{Reason: reason, Err: err}
}

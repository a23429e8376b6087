package executor

import (
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// state is all that is known of a pod. Only the pod's worker touches it; decide only reads it.
type state struct {
	pod     *plan.Pod
	uid     string
	ip      netip.Addr // invalid on the host's network
	created time.Time  // when the node took the pod over: activeDeadlineSeconds counts from here
	// broken is why the pod's record cannot be understood; such a pod is shown and can be deleted.
	broken string

	volumes    task
	update     task // in-place changes that are not done yet
	sandbox    sandbox
	containers []*container // init containers first, in the spec's order
	old        []*instance  // containers of earlier attempts that are to go

	ending   *ending
	finished *finished
	deletion *deletion
	leaving  *leaving // nil when it does not wait to be out of the routes, or does not any more
	// unsure: a creation had no answer, so there may be a container that is in none of the fields above.
	unsure bool

	readySince time.Time
	mounted    map[object.Ref]string
	held       bool      // the pod's object is suspended
	updatedAt  time.Time // when this node changed limits last
	updates    int       // number of the last in-place update
	updateErr  error     // of the last in-place update
	logTail    []string  // of the container that failed last
	measuring  bool      // the sizes of volumes are being measured
	measureAt  time.Time // no earlier than this they are measured again
}

// task is something that is done once, and again when it failed.
type task struct {
	busy, done bool
	notBefore  time.Time
	retry      retry
	problem    *problem
}

// status is what became of a container on the engine.
type status string

const (
	absent  status = "absent"
	created status = "created"
	running status = "running"
	exited  status = "exited"
)

// instance is one container on the engine.
type instance struct {
	id      string // empty when it is gone
	attempt int
	status  status
	paused  bool
	pid     int
	sandbox string // the id of the sandbox that it joined; empty for a sandbox
	started time.Time
	ended   time.Time
	code    int
	oom     bool
	// touched is when the worker last learned something of it: an older list says nothing new.
	touched time.Time
	busy    bool // it is being removed
	retryAt time.Time
}

// sandbox is the container that holds the pod's namespaces.
type sandbox struct {
	instance
	next      int // number of the next attempt
	busy      bool
	wired     bool // it has its network
	notBefore time.Time
	retry     retry
	problem   *problem
	hand      touch
	cause     cause
}

// up reports whether containers can be started in it.
func (s *sandbox) up() bool { return s.status == running && s.wired }

// kind is the part that a container plays in its pod.
type kind int

const (
	regular kind = iota
	initial
	sidecar
)

// hook is how far a lifecycle hook is.
type hook int

const (
	hookPending hook = iota
	hookRunning
	hookDone
)

// container is one container of the pod over all its attempts.
type container struct {
	spec *corev1.Container
	kind kind

	instance           // the newest attempt
	previous *instance // the attempt before, kept for its log
	next     int       // number of the next attempt
	working  bool      // it is being created or started
	wait     time.Time // no attempt is created or started before
	crash    crash     // of its restarts
	retry    retry     // of calls that failed
	problem  *problem  // why it waits; nil when nothing is wrong
	byHand   bool      // the newest attempt was removed by somebody else: it restarts at once
	hand     touch     // the last signal that the newest attempt got from others
	cause    cause     // of its end, or of what else others did to it

	postStart hook
	begun     bool // started in the sense of startup probes
	ready     bool
	probing   bool
	unready   string // what the probe says
	stop      *stopping

	image, imageID string
	signal         string // to stop it; empty when not known yet
	resources      plan.Resources
	last           termination
}

// termination is how the last attempt that ended did so.
type termination struct {
	Reason   string    `json:"reason,omitempty"`
	Message  string    `json:"message,omitempty"`
	ExitCode int       `json:"exitCode,omitempty"`
	OOM      bool      `json:"oom,omitempty"`
	Finished time.Time `json:"finished,omitzero"`
	LogTail  []string  `json:"-"`
}

// stopping is a container that is being stopped.
type stopping struct {
	deadline time.Time
	preStop  hook
	termed   bool
	killed   time.Time // zero when SIGKILL was not sent
	busy     bool
	retryAt  time.Time
}

// ending is why a pod's containers are all stopped for good while the pod stays.
type ending struct {
	phase           corev1.PodPhase
	reason, message string
	deadline        time.Time
}

// leaving is a pod that is to be stopped and first has to be out of the routes. The deadlines of its deletion and its
// ending are as if it had not to wait; they are moved when it has left.
type leaving struct {
	since time.Time
	// until is until when it waits at most; zero when it is out already.
	until time.Time
}

// finished is a pod that ended: nothing of it is started any more.
type finished struct {
	Phase   corev1.PodPhase `json:"phase"`
	Reason  string          `json:"reason,omitempty"`
	Message string          `json:"message,omitempty"`
	At      time.Time       `json:"at"`
}

// deletion is a pod that is to be deleted.
type deletion struct {
	deadline time.Time
	busy     bool
	retryAt  time.Time
	retry    retry
	gone     bool
}

func newState(pod *plan.Pod, uid string, ip netip.Addr, at time.Time) state {
	s := state{pod: pod, uid: uid, ip: ip, created: at}
	s.sandbox.status = absent
	for i := range pod.Spec.InitContainers {
		c := &container{spec: &pod.Spec.InitContainers[i], kind: initial}
		if p := c.spec.RestartPolicy; p != nil && *p == corev1.ContainerRestartPolicyAlways {
			c.kind = sidecar
		}
		s.containers = append(s.containers, c)
	}
	for i := range pod.Spec.Containers {
		s.containers = append(s.containers, &container{spec: &pod.Spec.Containers[i], kind: regular})
	}
	for _, c := range s.containers {
		c.status = absent
	}
	s.update.done = true
	return s
}

// respec points the containers to a pod with the same containers.
func (s *state) respec(pod *plan.Pod) {
	s.pod = pod
	for i := range pod.Spec.InitContainers {
		s.containers[i].spec = &pod.Spec.InitContainers[i]
	}
	for i := range pod.Spec.Containers {
		s.containers[len(pod.Spec.InitContainers)+i].spec = &pod.Spec.Containers[i]
	}
}

func (s *state) container(name string) *container {
	i := slices.IndexFunc(s.containers, func(c *container) bool { return c.spec.Name == name })
	if i < 0 {
		return nil
	}
	return s.containers[i]
}

// grace is how long the pod's containers may take to stop.
func (s *state) grace() time.Duration {
	if g := s.pod.Spec.TerminationGracePeriodSeconds; g != nil {
		return time.Duration(max(*g, 0)) * time.Second
	}
	return corev1.DefaultTerminationGracePeriodSeconds * time.Second
}

// current reports whether an instance belongs to the present sandbox, and not to one that died.
func (s *state) current(i *instance) bool {
	return i.sandbox == "" || s.sandbox.id == "" || i.sandbox == s.sandbox.id
}

// past is a time that the engine says, and no later than now: its clock may be ahead of this one, and nobody has to wait
// until this one is as far.
func past(at time.Time) time.Time {
	if now := time.Now(); at.After(now) {
		return now
	}
	return at
}

// set takes over what the engine says of a container.
func (i *instance) set(c runtimes.Container) {
	i.id, i.attempt, i.sandbox = c.ID, c.Attempt, c.SandboxID
	i.paused, i.pid, i.started, i.ended = c.Paused, c.PID, past(c.StartedAt), past(c.FinishedAt)
	i.code, i.oom = c.ExitCode, c.OOM
	switch {
	case c.Running:
		i.status, i.ended = running, time.Time{}
	case c.StartedAt.IsZero() && c.Error == "":
		i.status = created
	default:
		i.status = exited
		if i.code == 0 && c.Error != "" {
			i.code = 128
		}
	}
}

// policy is what happens to a container that ended with an exit code: it is restarted or not.
func (s *state) restarts(c *container, code int) bool {
	if c.kind == sidecar {
		return true
	}
	for _, r := range c.spec.RestartPolicyRules {
		if r.Action == corev1.ContainerRestartRuleActionRestart && r.ExitCodes != nil {
			in := slices.Contains(r.ExitCodes.Values, int32(code))
			if in == (r.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn) {
				return true
			}
		}
	}
	policy := s.pod.Spec.RestartPolicy
	if p := c.spec.RestartPolicy; p != nil {
		policy = corev1.RestartPolicy(*p)
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return code != 0
	}
	return c.kind == regular || code != 0
}

// Package runtimes is the vocabulary of a node: containers, images, mounts and networks as the
// packages below it exchange them. It holds no behaviour.
package runtimes

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
)

// The classes of failure that callers act on. Test with errors.Is.
var (
	// ErrNotFound: the container or image does not exist.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the name is taken, or the container is not in a state that allows the call.
	ErrConflict = errors.New("conflict")
	// ErrUnavailable: the engine did not answer; the outcome of a changing call is unknown.
	ErrUnavailable = errors.New("engine unavailable")
	// ErrInvalid: the engine refused the request; trying again unchanged will not help.
	ErrInvalid = errors.New("invalid request")
	// ErrDenied: the registry refused the credentials, or there are none.
	ErrDenied = errors.New("access denied")
	// ErrMissing: a ConfigMap, a Secret or a key of one does not exist and is not optional; it may come.
	ErrMissing = errors.New("missing configuration")
	// ErrDiskFull: no space is left where the engine or fairlead writes.
	ErrDiskFull = errors.New("no space left on device")
)

// SandboxContainer is the container name of a pod's sandbox; no pod's container can have it.
const SandboxContainer = "POD"

// Identity says whose a container is. It is written into labels together with a keyed MAC over all
// of it, and never changes while the container lives.
type Identity struct {
	Application string
	Pod         plan.PodKey
	UID         string // of the pod
	Container   string // name in the pod, or SandboxContainer
	Attempt     int    // 0 for the first; one more for every restart
	Owner       string // JSON of object.Ref
	Template    string
	// Spec, on the sandbox only, is the JSON of the node's record of the pod.
	Spec string
	// IP, on the sandbox only, is the pod's address; empty with host networking.
	IP string
}

// ContainerSpec is what a container is created from. It is the allow-list: nothing that is not
// here can reach the engine.
type ContainerSpec struct {
	Identity
	Image                 string   // image id or reference that is present on the node
	Command               []string // overrides the image's entrypoint; nil keeps it
	Args                  []string // overrides the image's command; nil keeps it unless Command is set
	WorkingDir            string
	Env                   []string // NAME=value
	User                  string   // "uid", "uid:gid" or empty for the image's
	Groups                []int64  // supplemental groups
	Mounts                []Mount
	Stdin, StdinOnce, TTY bool

	// Sandbox only.
	Hostname    string
	Sysctls     map[string]string
	HostNetwork bool
	// NoNetwork makes a new network namespace that the engine leaves alone: fairlead wires it.
	NoNetwork bool
	// Network and Ports put the sandbox on an engine network and publish ports (pods with hostPort).
	Network string
	Ports   []PortBinding

	// HostIPC uses the host's IPC namespace; the sandbox and every container of the pod have it alike.
	HostIPC bool
	// SandboxID is the sandbox whose network and, without HostIPC, IPC the container joins; empty for a sandbox.
	SandboxID string
	// PIDMode is "", "host" or "sandbox" (shareProcessNamespace).
	PIDMode string

	Privileged      bool
	CapAdd, CapDrop []string
	NoNewPrivileges bool
	ReadOnlyRoot    bool
	// Seccomp is "" (the engine's default), "unconfined", or the JSON of a profile.
	Seccomp string
	// AppArmor is "" (the engine's default), "unconfined", or the name of a loaded profile.
	AppArmor     string
	UnmaskedProc bool
	OOMScoreAdj  int
	Resources    plan.Resources
	// ShmBytes is the size of /dev/shm; 0 for the engine's default.
	ShmBytes int64
	// StopSignal overrides the image's, for example SIGQUIT.
	StopSignal string
}

// Mount binds a path of the host into a container, or a volume of the engine.
type Mount struct {
	Source, Target string
	// Volume is the name that a VolumeEngine made the volume with; Source and Propagation are empty then.
	Volume   string
	ReadOnly bool
	// Propagation is "", "rslave" or "rshared".
	Propagation string
}

// PortBinding publishes a port of the pod on the host.
type PortBinding struct {
	HostIP        string
	HostPort      int
	ContainerPort int
	Protocol      string // tcp, udp or sctp
}

// Container is a container as the engine reports it. Only containers whose labels carry a valid
// MAC of this installation are reported as such; others are not ours.
type Container struct {
	Identity
	ID      string
	Image   string // as given at creation
	ImageID string
	// SandboxID is the sandbox that it joined; empty for a sandbox.
	SandboxID string
	Created   time.Time // by the engine's clock, as all times here
	// Running and PID are the engine's; Paused, Dead and OOM too.
	Running, Paused, Dead, OOM bool
	// Never started when StartedAt is zero.
	StartedAt, FinishedAt time.Time
	PID                   int
	ExitCode              int
	Error                 string // the engine's word on why it did not start
	Resources             plan.Resources
}

// Image is an image that is present on the node.
type Image struct {
	ID         string
	Digests    []string // name@sha256:…
	User       string
	Entrypoint []string
	Cmd        []string
	Env        []string
	WorkingDir string
	StopSignal string
	Volumes    []string
}

// Auth are credentials for one registry.
type Auth struct {
	Username, Password, Auth, IdentityToken, ServerAddress string
}

// EventKind is what happened to a container or to the stream of events.
type EventKind string

// The kinds of events.
const (
	EventStart   EventKind = "start"
	EventDie     EventKind = "die"
	EventOOM     EventKind = "oom"
	EventRemove  EventKind = "remove"
	EventUpdate  EventKind = "update"
	EventPause   EventKind = "pause"
	EventUnpause EventKind = "unpause"
	EventRename  EventKind = "rename"
	// EventKill is a signal that was sent to a container through the engine, whoever asked for it.
	EventKill EventKind = "kill"
	// EventGap says that events may have been lost: everything must be listed again.
	EventGap EventKind = "gap"
)

// Event is something that the engine reported about one of our containers.
type Event struct {
	Kind        EventKind
	ContainerID string
	Identity    Identity // Pod, Container, UID and Attempt are set, not Spec
	ExitCode    int
	Signal      string // of EventKill, for example SIGTERM
	Time        time.Time
}

// ExecResult is the outcome of a command in a container.
type ExecResult struct {
	ExitCode int
	Output   []byte // stdout and stderr, cut at the limit that was given
}

// ExecOptions are the streams of an interactive command.
type ExecOptions struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	TTY            bool
	// Resize delivers the size of the terminal, columns and rows.
	Resize <-chan [2]uint
}

// LogOptions select log lines.
type LogOptions struct {
	Follow     bool
	Tail       int // -1 for all
	Since      time.Time
	Timestamps bool
}

// EngineInfo describes the engine and its machine.
type EngineInfo struct {
	Name        string
	Version     string
	APIVersion  string
	CPUs        int
	MemoryBytes int64
	CgroupV2    bool
	AppArmor    bool   // whether the engine confines containers by AppArmor: it needs a kernel that has it
	Root        string // where the engine keeps its data
}

// Engine runs containers. Every method may be called again after a failure, from any goroutine.
// Errors wrap the classes above.
type Engine interface {
	Info(ctx context.Context) (EngineInfo, error)
	// List returns all containers of this installation, running or not.
	List(ctx context.Context) ([]Container, error)
	Inspect(ctx context.Context, id string) (Container, error)
	// Image describes an image that is present, or returns ErrNotFound.
	Image(ctx context.Context, ref string) (Image, error)
	// Pull fetches an image and describes it. progress, if not nil, gets lines for people.
	Pull(ctx context.Context, ref string, auth *Auth, progress func(string)) (Image, error)
	// SandboxImage makes the embedded sandbox image present and returns its id.
	SandboxImage(ctx context.Context) (string, error)
	// Create makes a container with the deterministic name of its identity. When a container of that
	// identity exists already and is ours, its id is returned; a foreign one with the name is ErrConflict.
	Create(ctx context.Context, spec ContainerSpec) (id string, err error)
	// Start starts a created container; starting a running one succeeds.
	Start(ctx context.Context, id string) error
	// Kill sends a signal, for example "SIGTERM"; a container that does not run is not an error.
	Kill(ctx context.Context, id, signal string) error
	// Remove removes a container, killing it if it runs; a missing one is not an error.
	Remove(ctx context.Context, id string) error
	// Update changes the limits of a container without restarting it.
	Update(ctx context.Context, id string, r plan.Resources) error
	// Exec runs a command and waits for it. Output is cut at limit bytes. When ctx ends first the command is given up.
	Exec(ctx context.Context, id string, cmd []string, limit int) (ExecResult, error)
	// Attach runs a command with the caller's streams. A command that cannot be started is ErrInvalid, with the reason
	// in the error and nothing in the streams.
	Attach(ctx context.Context, id string, cmd []string, opt ExecOptions) (exitCode int, err error)
	// Logs copies a container's log.
	Logs(ctx context.Context, id string, opt LogOptions, stdout, stderr io.Writer) error
	// Events calls on for every event of our containers until ctx ends, reconnecting by itself; it
	// delivers an EventGap after every (re)connection. on must not block.
	Events(ctx context.Context, on func(Event)) error
	Close() error
}

// VolumeEngine is an Engine that keeps volumes. Both methods may be called again.
type VolumeEngine interface {
	// EnsureVolume makes a volume of a driver exist; one with the name that is not like that is ErrConflict.
	EnsureVolume(ctx context.Context, name, driver string, options map[string]string) error
	// RemoveVolume removes a volume with all that it holds; one that is missing, or not ours, is not an error.
	RemoveVolume(ctx context.Context, name string) error
}

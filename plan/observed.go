package plan

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/render/object"
)

// Observed is one reading of the world, made at Now.
type Observed struct {
	// Now is the only clock of the planner.
	Now   time.Time
	Nodes []NodeState
	// Applied is the inventory of the application: the objects that were applied and not yet confirmed gone.
	Applied []Applied
	// Since is when everything of the application was done last; zero when it never was. What was applied first
	// after that is no part of what deletions are measured against: it may be there in place of what is gone.
	Since time.Time
	// Sync is the newest sync of an application with hooks, as Plan.Sync said it; nil before the first. Retry begins one
	// that failed anew.
	Sync  *SyncState
	Retry bool
	// Claims are objects and pods that other applications own, with the owner's name.
	Claims map[object.Ref]string
	// Arrivals are desired objects that other applications have and do not want any more: they are taken over.
	// Departures are those of Plan.Leftovers that other applications want, or have taken over: they are left to them.
	Arrivals   map[object.Ref]Arrival
	Departures map[object.Ref]Departure
	// Unsettled says why it is not known yet whether other applications want what is left over: nothing of it is
	// deleted until it is empty.
	Unsettled string
	// Suspended are objects that somebody has suspended; what is over is no suspension any more.
	Suspended map[object.Ref]Suspension
}

// NodeState is what one node was seen to run.
type NodeState struct {
	Node NodeID
	// Stale is true when the node did not answer: Pods then holds what was last known, and nothing
	// of it may be deleted or taken for dead.
	Stale bool
	// CPUMillis and MemoryBytes are what pods may request in all; 0 means unknown.
	CPUMillis   int64
	MemoryBytes int64
	// Pods are all pods of this installation on the node, of every application, sorted by key.
	Pods []ObservedPod
	// Services and Endpoints are what the node serves, of every application, sorted by Ref.
	Services  []*Service
	Endpoints []*EndpointSlice
	// Storage are the classes, volumes and claims that the node keeps, of every application, sorted by Ref.
	Storage []*Storage
}

// ObservedPod is a pod that was found on a node.
type ObservedPod struct {
	PodKey
	UID         string
	Application string
	Owner       object.Ref
	Template    string
	Index       int
	Labels      map[string]string
	Annotations map[string]string
	// Spec is the spec that the pod was created from, with defaults.
	Spec *corev1.PodSpec
	// Created is when the pod's sandbox was created.
	Created time.Time
	Phase   corev1.PodPhase
	// Ready is true when every container is ready; ReadySince is when it last became so.
	Ready      bool
	ReadySince time.Time
	// Terminating is true from the moment when the pod was told to stop.
	Terminating bool
	// Finished is when the last container of a Succeeded or Failed pod ended.
	Finished time.Time
	// Reason and Message say in words why the pod is not ready or failed, for example ImagePullBackOff.
	Reason  string
	Message string
	IP      string
	// Containers are the pod's containers, init containers first, in the spec's order.
	Containers []ObservedContainer
	// Mounted maps each ConfigMap or Secret in the pod's volumes to the digest that is written there now.
	Mounted map[object.Ref]string
	// LogTail are the last log lines of the container that failed last, at most 10.
	LogTail []string
}

// ContainerState is the state of a container in Kubernetes' words.
type ContainerState string

// The states of a container.
const (
	Waiting    ContainerState = "waiting"
	Running    ContainerState = "running"
	Terminated ContainerState = "terminated"
)

// ObservedContainer is one container of an observed pod.
type ObservedContainer struct {
	Name     string
	ID       string
	Image    string
	ImageID  string
	Init     bool
	State    ContainerState
	Ready    bool
	Started  bool
	Restarts int
	ExitCode int
	OOM      bool
	Reason   string
	Message  string
	// StartedAt and FinishedAt are zero when it has not started or not ended.
	StartedAt  time.Time
	FinishedAt time.Time
	// Resources are the limits in force on the engine, which can drift.
	Resources Resources
	// Paused is true while somebody has paused it.
	Paused bool
	// Disturbed is what came about last that was not asked for, an end included; nil when nothing did.
	Disturbed *Disturbance
}

// By is who brought something about.
type By string

// Who brings something about.
const (
	// ByPerson is somebody with docker, or another program that uses the engine.
	ByPerson By = "person"
	// ByEngine is the engine itself: it stopped, or the machine did.
	ByEngine By = "engine"
	// ByKernel is the kernel, because memory ran out.
	ByKernel By = "kernel"
	// ByProcess is the container's own process.
	ByProcess By = "process"
	// ByUnknown: nothing was seen of it, for example because the daemon was away.
	ByUnknown By = "unknown"
)

// Words says it for people.
func (b By) Words() string {
	switch b {
	case ByPerson:
		return "by somebody with docker"
	case ByEngine:
		return "by the engine"
	case ByKernel:
		return "by the kernel"
	case ByProcess:
		return "by its own process"
	case ByUnknown:
	}
	return "nobody knows by whom"
}

// Disturbance is something that came about at a container and that was not asked for.
type Disturbance struct {
	By By `json:"by"`
	// Action is one word for what was done: kill, stop, remove, pause, update, start, oom, exit, signal, restart, unseen.
	Action string `json:"action"`
	// What says it in words, without who: "got SIGKILL through the engine".
	What string    `json:"what"`
	At   time.Time `json:"at"`
}

// String says what came about, by whom and when.
func (d Disturbance) String() string {
	return d.What + " (" + d.By.Words() + ", " + d.At.UTC().Format(time.RFC3339) + ")"
}

// Resources are a container's limits as the engine enforces them; 0 means none.
type Resources struct {
	CPUMillis   int64 `json:"cpuMillis,omitempty"`
	MemoryBytes int64 `json:"memoryBytes,omitempty"`
	// CPUShares is the weight that follows from the request.
	CPUShares int64 `json:"cpuShares,omitempty"`
}

// Applied is one object of an application's inventory.
type Applied struct {
	object.Ref
	APIVersion string `json:"apiVersion"`
	Hash       string `json:"hash"`
	// Written is the canonical JSON that was applied. The values of a Secret are replaced by keyed digests.
	Written []byte `json:"written,omitempty"`
	// Created is when the object was applied first; zero when that is not known.
	Created time.Time `json:"created,omitzero"`
	// Moved is how often the object has moved from one application to another: of two inventories that have it, the
	// one with the higher number is its owner's.
	Moved int `json:"moved,omitempty"`
	// MovesTo is the application that wanted the object when this one did not any more; empty when there was none.
	MovesTo string `json:"movesTo,omitempty"`
	// Finished is when a Job was seen complete or failed, so that it does not run again when its
	// pods are gone; Succeeded tells which.
	Finished  time.Time `json:"finished,omitzero"`
	Succeeded bool      `json:"succeeded,omitempty"`
	// FinishReason is why it ended, as in Finish.Reason.
	FinishReason string `json:"finishReason,omitempty"`
	// FinishMessage says more of a failure, with the last log lines.
	FinishMessage string `json:"finishMessage,omitempty"`
	// Run is the run of a hook that all of this is about, as in Change.Hook.
	Run HookRun `json:"run,omitzero"`
}

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
	// Claims are objects and pods that other applications own, with the owner's name.
	Claims map[object.Ref]string
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
	// Finished is when a Job was seen complete or failed, so that it does not run again when its
	// pods are gone; Succeeded tells which.
	Finished  time.Time `json:"finished,omitzero"`
	Succeeded bool      `json:"succeeded,omitempty"`
	// FinishReason is why it ended, as in Finish.Reason.
	FinishReason string `json:"finishReason,omitempty"`
}

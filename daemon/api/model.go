package api

import (
	"encoding/json"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Health is the state of an application or a workload.
type Health string

// The states of health.
const (
	Healthy     Health = "Healthy"
	Progressing Health = "Progressing"
	Degraded    Health = "Degraded"
	Suspended   Health = "Suspended"
	// Failed: the application cannot be reconciled (source, render or plan); what runs was left alone.
	Failed Health = "Failed"
)

// Counts are what a plan adds, changes and destroys, as plan.Plan.Counts counts.
type Counts struct {
	Add     int `json:"add"`
	Change  int `json:"change"`
	Destroy int `json:"destroy"`
}

// Revision is one state of a source.
type Revision struct {
	// ID is the full commit id, or the content digest of a directory; Short is for people.
	ID    string `json:"id"`
	Short string `json:"short"`
	// Ref is what it was resolved from, for example refs/heads/main.
	Ref string `json:"ref,omitempty"`
	// Committed, Author and Message (its first line) describe the commit.
	Committed time.Time `json:"committed,omitzero"`
	Author    string    `json:"author,omitempty"`
	Message   string    `json:"message,omitempty"`
}

// Status describes the daemon.
type Status struct {
	// Version is fairlead's, Started when the daemon was started; zero when no daemon answers but the command itself.
	Version string    `json:"version"`
	Started time.Time `json:"started,omitzero"`
	PID     int       `json:"pid,omitempty"`
	// Installation separates what this daemon owns from what others own on the same engine.
	Installation string `json:"installation,omitempty"`
	StateDir     string `json:"stateDir,omitempty"`
	// Ready is true after the first reconciliation while the engine answers; Reasons say why not.
	Ready        bool                 `json:"ready"`
	Reasons      []string             `json:"reasons,omitempty"`
	Nodes        []Node               `json:"nodes"`
	Sources      []Source             `json:"sources"`
	Applications []ApplicationSummary `json:"applications"`
}

// Node is a machine with a Docker engine.
type Node struct {
	Name plan.NodeID `json:"name"`
	// Reachable is false while the engine does not answer; Message says why.
	Reachable     bool   `json:"reachable"`
	Message       string `json:"message,omitempty"`
	EngineVersion string `json:"engineVersion,omitempty"`
	APIVersion    string `json:"apiVersion,omitempty"`
	CPUs          int    `json:"cpus,omitempty"`
	MemoryBytes   int64  `json:"memoryBytes,omitempty"`
	CgroupV2      bool   `json:"cgroupV2,omitempty"`
	// Pods and PodsReady count pods of this installation.
	Pods      int `json:"pods"`
	PodsReady int `json:"podsReady"`
}

// ApplicationSummary is one line about an application.
type ApplicationSummary struct {
	Name     string `json:"name"`
	Revision string `json:"revision,omitempty"`
	Health   Health `json:"health"`
	Message  string `json:"message,omitempty"`
}

// Condition is one aspect of a state, as Kubernetes has them.
type Condition struct {
	Type string `json:"type"`
	// Status is True, False or Unknown.
	Status  string    `json:"status"`
	Reason  string    `json:"reason,omitempty"`
	Message string    `json:"message,omitempty"`
	Since   time.Time `json:"since,omitzero"`
}

// Application is one path of one source, rendered and owned as a unit.
type Application struct {
	Name   string `json:"name"`
	Source string `json:"source"`
	Path   string `json:"path"`
	// DeclaredBy is the object that declares it, for example "Kustomization flux-system/shop"; empty for the command line.
	DeclaredBy string `json:"declaredBy,omitempty"`
	// Revision was fetched last, Applied was carried out completely last.
	Revision    Revision  `json:"revision,omitzero"`
	Applied     Revision  `json:"applied,omitzero"`
	LastApplied time.Time `json:"lastApplied,omitzero"`
	// Phase is what the loop does now: Waiting, Fetching, Rendering, Planning or Applying.
	Phase string `json:"phase,omitempty"`
	// Ready is true when the revision is applied and healthy.
	Ready  bool   `json:"ready"`
	Health Health `json:"health"`
	// Reason is one CamelCase word, Message a sentence.
	Reason     string      `json:"reason,omitempty"`
	Message    string      `json:"message,omitempty"`
	Suspended  bool        `json:"suspended,omitempty"`
	Conditions []Condition `json:"conditions,omitempty"`
	// Objects counts the inventory, Pods and PodsReady what runs of it.
	Objects   int `json:"objects"`
	Pods      int `json:"pods"`
	PodsReady int `json:"podsReady"`
	// Workloads are its workloads as they were observed.
	Workloads []plan.WorkloadStatus `json:"workloads,omitempty"`
	// Pending is the plan that is being carried out; nil when there is none. StepsDone of StepsTotal are done.
	Pending    *Counts      `json:"pending,omitempty"`
	StepsDone  int          `json:"stepsDone,omitempty"`
	StepsTotal int          `json:"stepsTotal,omitempty"`
	Drift      []plan.Drift `json:"drift,omitempty"`
	// Diagnostics are those of the last render and plan.
	Diagnostics diag.List     `json:"diagnostics,omitempty"`
	Interval    time.Duration `json:"intervalNanoseconds,omitempty"`
	NextRun     time.Time     `json:"nextRun,omitzero"`
}

// Source is where desired state comes from.
type Source struct {
	Name string `json:"name"`
	// Type is git or local; Location the URL (without credentials) or directory.
	Type     string `json:"type"`
	Location string `json:"location"`
	// Ref is what is followed, for example "branch main" or "semver >=1.0".
	Ref      string   `json:"ref,omitempty"`
	Revision Revision `json:"revision,omitzero"`
	// Fetched is when the source was last asked with success, Changed when it last moved.
	Fetched time.Time `json:"fetched,omitzero"`
	Changed time.Time `json:"changed,omitzero"`
	Ready   bool      `json:"ready"`
	// Message says why it is not ready, or what was noticed (a force-push, a moved tag).
	Message    string        `json:"message,omitempty"`
	Suspended  bool          `json:"suspended,omitempty"`
	Interval   time.Duration `json:"intervalNanoseconds,omitempty"`
	NextFetch  time.Time     `json:"nextFetch,omitzero"`
	Conditions []Condition   `json:"conditions,omitempty"`
}

// Object is one object of an application's inventory.
type Object struct {
	object.Ref
	APIVersion  string        `json:"apiVersion"`
	Application string        `json:"application"`
	Origin      object.Origin `json:"origin,omitzero"`
	// Created is when it was applied first; zero when that is not known.
	Created time.Time         `json:"created,omitzero"`
	Labels  map[string]string `json:"labels,omitempty"`
	// Status is set for workloads.
	Status *plan.WorkloadStatus `json:"status,omitempty"`
	// Images and Containers are those of the pod template.
	Images     []string `json:"images,omitempty"`
	Containers []string `json:"containers,omitempty"`
	// Selector is the workload's label selector.
	Selector string `json:"selector,omitempty"`
	// Type is that of a Secret; Keys are the keys of a ConfigMap or Secret with the size of each value in bytes.
	Type string         `json:"type,omitempty"`
	Keys map[string]int `json:"keys,omitempty"`
	// Started and Finished are those of a Job; Completions is what it wants.
	Started     time.Time `json:"started,omitzero"`
	Finished    time.Time `json:"finished,omitzero"`
	Completions int       `json:"completions,omitempty"`
	// Manifest is what was applied. The values of a Secret are replaced.
	Manifest json.RawMessage `json:"manifest,omitempty"`
}

// Pod is a pod that was found on a node. PodFrom makes one.
type Pod struct {
	plan.PodKey
	UID         string      `json:"uid,omitempty"`
	Application string      `json:"application"`
	Owner       object.Ref  `json:"owner"`
	Node        plan.NodeID `json:"node,omitempty"`
	IP          string      `json:"ip,omitempty"`
	// Phase is Kubernetes' phase; Status the word that kubectl shows, for example CrashLoopBackOff.
	Phase  string `json:"phase"`
	Status string `json:"status"`
	// Ready of Total containers are ready, init containers that end left out.
	Ready int `json:"ready"`
	Total int `json:"total"`
	// IsReady is the pod's own readiness.
	IsReady     bool              `json:"isReady"`
	Restarts    int               `json:"restarts"`
	LastRestart time.Time         `json:"lastRestart,omitzero"`
	Created     time.Time         `json:"created"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Reason      string            `json:"reason,omitempty"`
	Message     string            `json:"message,omitempty"`
	Containers  []Container       `json:"containers"`
	// LogTail are the last log lines of the container that failed last.
	LogTail []string `json:"logTail,omitempty"`
}

// Container is one container of a pod.
type Container struct {
	Name string `json:"name"`
	ID   string `json:"id,omitempty"`
	// Init is true for init containers, Sidecar for those that keep running.
	Init       bool                `json:"init,omitempty"`
	Sidecar    bool                `json:"sidecar,omitempty"`
	Image      string              `json:"image"`
	ImageID    string              `json:"imageID,omitempty"`
	State      plan.ContainerState `json:"state"`
	Ready      bool                `json:"ready"`
	Started    bool                `json:"started"`
	Restarts   int                 `json:"restarts"`
	ExitCode   int                 `json:"exitCode,omitempty"`
	Reason     string              `json:"reason,omitempty"`
	Message    string              `json:"message,omitempty"`
	StartedAt  time.Time           `json:"startedAt,omitzero"`
	FinishedAt time.Time           `json:"finishedAt,omitzero"`
	Limits     plan.Resources      `json:"limits,omitzero"`
}

// EventType tells what needs attention from what does not, in Kubernetes' words.
type EventType string

// The types of events.
const (
	Normal  EventType = "Normal"
	Warning EventType = "Warning"
)

// Event is something that happened.
type Event struct {
	// Seq grows by at least one with every event of a daemon; it is 0 for progress that is not kept.
	Seq  uint64    `json:"seq,omitempty"`
	Time time.Time `json:"time"`
	Type EventType `json:"type"`
	// Reason is one CamelCase word for programs, for example PodCreated; Message a sentence.
	Reason      string      `json:"reason"`
	Message     string      `json:"message"`
	Application string      `json:"application,omitempty"`
	Source      string      `json:"source,omitempty"`
	Revision    string      `json:"revision,omitempty"`
	Node        plan.NodeID `json:"node,omitempty"`
	Ref         object.Ref  `json:"ref,omitzero"`
	// Count is how often it happened when equal events are kept as one; 0 means once.
	Count int `json:"count,omitempty"`
	// Step is set for the progress of a plan, Plan when one was computed.
	Step *StepProgress `json:"step,omitempty"`
	Plan *Counts       `json:"plan,omitempty"`
}

// StepState is how far a step is.
type StepState string

// The states of a step.
const (
	StepStarted   StepState = "started"
	StepSucceeded StepState = "succeeded"
	StepFailed    StepState = "failed"
	StepSkipped   StepState = "skipped"
)

// StepProgress is the progress of one step of a plan.
type StepProgress struct {
	ID    plan.StepID `json:"id"`
	Op    plan.Op     `json:"op"`
	State StepState   `json:"state"`
	// Done of Total steps of the application's plan are done.
	Done     int           `json:"done"`
	Total    int           `json:"total"`
	Duration time.Duration `json:"durationNanoseconds,omitempty"`
}

// Description is everything that is known of one thing: exactly one of Object, Pod, Application and Source is set.
type Description struct {
	Ref         object.Ref   `json:"ref"`
	Object      *Object      `json:"object,omitempty"`
	Pod         *Pod         `json:"pod,omitempty"`
	Application *Application `json:"application,omitempty"`
	Source      *Source      `json:"source,omitempty"`
	// Pods are those of a workload, Objects those of an application.
	Pods    []Pod        `json:"pods,omitempty"`
	Objects []Object     `json:"objects,omitempty"`
	Drift   []plan.Drift `json:"drift,omitempty"`
	// Events are those that concern it, oldest first.
	Events []Event `json:"events,omitempty"`
}

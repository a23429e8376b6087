package api

import (
	"encoding/json"
	"strings"
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
	// Failed: the application cannot be reconciled (source, render or plan), or its newest revision failed and is not tried
	// again; what runs was left alone.
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
	// Signatures are those that were asked for and found good.
	Signatures []Signature `json:"signatures,omitempty"`
}

// Signature is a verified signature of a revision.
type Signature struct {
	// Object is what is signed: "commit" or "tag NAME".
	Object string `json:"object"`
	// Format is OpenPGP or SSH, Key the fingerprint of the key, Name who the key says that it belongs to.
	Format string `json:"format"`
	Key    string `json:"key"`
	Name   string `json:"name,omitempty"`
}

// String is "commit by Ada <ada@example.com> (OpenPGP key 0123…)".
func (s Signature) String() string {
	key := s.Format + " key " + s.Key
	if s.Name != "" {
		key = s.Name + " (" + key + ")"
	}
	return s.Object + " by " + key
}

// Signed is what is signed by whom, in words; empty when no signature was asked for.
func (r Revision) Signed() string {
	words := make([]string, len(r.Signatures))
	for i, s := range r.Signatures {
		words[i] = s.String()
	}
	return strings.Join(words, ", ")
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
	// Hooks is nil when none are served.
	Hooks *Hooks `json:"hooks,omitempty"`
	// Notifications are the channels that are told what happens.
	Notifications []NotificationChannel `json:"notifications,omitempty"`
}

// NotificationChannel is a place that is told what happens.
type NotificationChannel struct {
	Name string `json:"name"`
	// Kind is that of the service, for example slack.
	Kind string `json:"kind"`
	// Sent and Failed count messages since the start, Waiting the events that the next one tells.
	Sent    uint64 `json:"sent"`
	Failed  uint64 `json:"failed"`
	Waiting int    `json:"waiting"`
	// LastSent is when a message was delivered last. Error says why the newest try failed, and Since when that began.
	LastSent time.Time `json:"lastSent,omitzero"`
	Error    string    `json:"error,omitempty"`
	Since    time.Time `json:"since,omitzero"`
}

// Hooks are where Git hosting services deliver what happened.
type Hooks struct {
	Address   string         `json:"address,omitempty"`
	TLS       bool           `json:"tls,omitempty"`
	Endpoints []HookEndpoint `json:"endpoints"`
}

// HookEndpoint is the path of one Git hosting service. Accepted and Rejected count deliveries since the start.
type HookEndpoint struct {
	Path     string `json:"path"`
	Forge    string `json:"forge"`
	Accepted uint64 `json:"accepted"`
	Rejected uint64 `json:"rejected"`
}

// Delivery is what a Git hosting service told.
type Delivery struct {
	Received time.Time `json:"received"`
	Forge    string    `json:"forge"`
	// Event is push, tag or pull-request-merged.
	Event string `json:"event"`
	Ref   string `json:"ref,omitempty"`
}

// Images are the policies for images and the automations that follow them.
type Images struct {
	Policies    []ImagePolicy     `json:"policies"`
	Automations []ImageAutomation `json:"automations"`
}

// ImagePolicy is a policy that chooses a tag of an image.
type ImagePolicy struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Image is without a tag; Policy says in words what is chosen.
	Image  string `json:"image"`
	Policy string `json:"policy"`
	// Latest is what is chosen, with its tag and, where the policy asks for one, its digest, since Since; Previous what was before.
	Latest   string    `json:"latest,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	Previous string    `json:"previous,omitempty"`
	// Tags is how many tags the image has, Scanned when they were looked at last, and NextScan when they will be.
	Tags     int       `json:"tags"`
	Scanned  time.Time `json:"scanned,omitzero"`
	NextScan time.Time `json:"nextScan,omitzero"`
	// Suspended is true when it, or its repository, is.
	Suspended bool   `json:"suspended,omitempty"`
	Message   string `json:"message,omitempty"`
}

// ImageAutomation changes images in a repository.
type ImageAutomation struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Source    string `json:"source"`
	// Ran is when it looked last, Pushed when it changed something last: the commit Revision on Branch, with PullRequest from there.
	Ran         time.Time `json:"ran,omitzero"`
	NextRun     time.Time `json:"nextRun,omitzero"`
	Pushed      time.Time `json:"pushed,omitzero"`
	Revision    string    `json:"revision,omitempty"`
	Branch      string    `json:"branch,omitempty"`
	PullRequest string    `json:"pullRequest,omitempty"`
	// Pending are changes that are on Branch and not in what the source follows.
	Pending   []ImageChange `json:"pending,omitempty"`
	Suspended bool          `json:"suspended,omitempty"`
	Message   string        `json:"message,omitempty"`
}

// ImageChange is a field that an automation changes.
type ImageChange struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Old  string `json:"old"`
	New  string `json:"new"`
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
	// Services counts those that the node serves; Registries are what serves them.
	Services   int        `json:"services"`
	Registries []Registry `json:"registries,omitempty"`
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
	// Identity is the user that it acts as, whose rights follow from the RBAC objects; empty may do everything.
	Identity string `json:"identity,omitempty"`
	// Revision was fetched last, Applied was carried out completely last.
	Revision    Revision  `json:"revision,omitzero"`
	Applied     Revision  `json:"applied,omitzero"`
	LastApplied time.Time `json:"lastApplied,omitzero"`
	// Failure is that of Revision; nil when it has not failed.
	Failure *Failure `json:"failure,omitempty"`
	// Phase is what the loop does now: Waiting, Fetching, Rendering, Planning or Applying.
	Phase string `json:"phase,omitempty"`
	// Ready is true when the revision is applied and healthy.
	Ready  bool   `json:"ready"`
	Health Health `json:"health"`
	// Reason is one CamelCase word, Message a sentence.
	Reason    string `json:"reason,omitempty"`
	Message   string `json:"message,omitempty"`
	Suspended bool   `json:"suspended,omitempty"`
	// Suspension says until when, by whom and why, as far as that is known; nil when it is not suspended.
	Suspension *plan.Suspension `json:"suspension,omitempty"`
	Conditions []Condition      `json:"conditions,omitempty"`
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
	// DependsOn names applications that must be ready before.
	DependsOn []string `json:"dependsOn,omitempty"`
	// Blocked is what waits for an approval; nil when nothing does.
	Blocked *plan.Blocked `json:"blocked,omitempty"`
	// Diagnostics are those of the last render and plan.
	Diagnostics diag.List     `json:"diagnostics,omitempty"`
	Interval    time.Duration `json:"intervalNanoseconds,omitempty"`
	NextRun     time.Time     `json:"nextRun,omitzero"`
}

// Failure is a revision that failed. It is not tried again until Git or its declaration moves, or somebody asks.
type Failure struct {
	Revision Revision  `json:"revision"`
	At       time.Time `json:"at"`
	// Reason is one CamelCase word, Message a sentence with the last log lines.
	Reason  string `json:"reason"`
	Message string `json:"message,omitempty"`
	// Back is the last good revision where the application is back at it, since BackAt, or is going there: then BackAt is zero.
	Back   Revision  `json:"back,omitzero"`
	BackAt time.Time `json:"backAt,omitzero"`
	// BackReason and BackMessage say why going back failed; empty when it did not.
	BackReason  string `json:"backReason,omitempty"`
	BackMessage string `json:"backMessage,omitempty"`
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
	Message   string        `json:"message,omitempty"`
	Suspended bool          `json:"suspended,omitempty"`
	Interval  time.Duration `json:"intervalNanoseconds,omitempty"`
	NextFetch time.Time     `json:"nextFetch,omitzero"`
	// LastDelivery is the newest delivery about it; nil when there was none.
	LastDelivery *Delivery   `json:"lastDelivery,omitempty"`
	Conditions   []Condition `json:"conditions,omitempty"`
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
	// Suspension is set for what is left as it is.
	Suspension *plan.Suspension `json:"suspension,omitempty"`
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
	// Storage is what the node keeps of a StorageClass, PersistentVolume or PersistentVolumeClaim; nil for a claim that is not
	// bound. BoundTo names the claim of a PersistentVolume that is bound, and Reclaim is what becomes of it
	// with its claim.
	Storage *plan.Storage `json:"storage,omitempty"`
	BoundTo string        `json:"boundTo,omitempty"`
	Reclaim plan.Reclaim  `json:"reclaim,omitempty"`
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

// Description is everything that is known of one thing: exactly one of Object, Pod, Service, Application and Source is set.
type Description struct {
	Ref         object.Ref   `json:"ref"`
	Object      *Object      `json:"object,omitempty"`
	Pod         *Pod         `json:"pod,omitempty"`
	Service     *Service     `json:"service,omitempty"`
	Application *Application `json:"application,omitempty"`
	Source      *Source      `json:"source,omitempty"`
	// Pods are those of a workload, Objects those of an application.
	Pods    []Pod        `json:"pods,omitempty"`
	Objects []Object     `json:"objects,omitempty"`
	Drift   []plan.Drift `json:"drift,omitempty"`
	// Events are those that concern it, oldest first.
	Events []Event `json:"events,omitempty"`
}

// Package plan decides. Compute compares what an application wants with what was observed and
// returns every step that is to be taken, each with its cause.
//
// It is pure: equal inputs give equal plans, time is Observed.Now, and every input has a plan.
package plan

import (
	"time"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Fingerprint identifies the observed state that a plan was computed from.
type Fingerprint string

// Op is what a step does.
type Op string

// The operations. Each says its Args.
const (
	// OpPullImage makes an image present on a node (PullImage).
	OpPullImage Op = "pull-image"
	// OpCreatePod creates and starts a pod (CreatePod). It is done when the pod's containers were started
	// or, where init containers or back-off stand before that, when the node has taken the pod over.
	OpCreatePod Op = "create-pod"
	// OpWaitReady waits until a pod is ready (WaitReady).
	OpWaitReady Op = "wait-ready"
	// OpUpdatePod changes a running pod in place (UpdatePod).
	OpUpdatePod Op = "update-pod"
	// OpDeletePod stops a pod as Kubernetes does (readiness off, preStop, SIGTERM, grace, SIGKILL) and
	// removes it with its volumes (DeletePod).
	OpDeletePod Op = "delete-pod"
	// OpMovePod makes a pod one of another application (MovePod). Its containers run on.
	OpMovePod Op = "move-pod"
	// OpSetService makes a node serve a Service as it is given (SetService). It is done when the node has written it down;
	// its routes, names and registrations follow at once and then follow the readiness of pods.
	OpSetService Op = "set-service"
	// OpDeleteService ends a Service (DeleteService).
	OpDeleteService Op = "delete-service"
	// OpSetEndpoints makes a node use hand-written endpoints (SetEndpoints).
	OpSetEndpoints Op = "set-endpoints"
	// OpDeleteEndpoints ends hand-written endpoints (DeleteEndpoints).
	OpDeleteEndpoints Op = "delete-endpoints"
	// OpSetStorage has a node keep a StorageClass, a PersistentVolume or a claim as it is given, and makes what a claim is
	// bound to (SetStorage).
	OpSetStorage Op = "set-storage"
	// OpDeleteStorage ends one (DeleteStorage). What a claim holds goes with it, or is kept as a PersistentVolume.
	OpDeleteStorage Op = "delete-storage"
	// OpWaitHealthy waits until everything before a stage is healthy (WaitHealthy). It is no node's matter: Plan.Open is what
	// can be done before, and the plan that is computed when all of it is healthy goes on behind it.
	OpWaitHealthy Op = "wait-healthy"
)

// Args are the parameters of a step; one type for each Op.
type Args interface{ op() Op }

// PullImage is the Args of OpPullImage.
type PullImage struct {
	Image string
	// Always pulls even when the image is present.
	Always bool
	// Secrets are the pull credentials (kubernetes.io/dockerconfigjson or dockercfg).
	Secrets []Config `json:"-"`
}

// CreatePod is the Args of OpCreatePod.
type CreatePod struct{ Pod *Pod }

// WaitReady is the Args of OpWaitReady.
type WaitReady struct {
	Pod PodKey
	// MinReady is how long the pod must stay ready.
	MinReady time.Duration
	// Deadline is when waiting ends in failure; zero waits for ever.
	Deadline time.Time
}

// UpdatePod is the Args of OpUpdatePod: the node brings resources, labels, annotations and mounted
// configuration of the running pod to what Pod says.
type UpdatePod struct {
	Pod *Pod
	// Changes names what changes, for example "resources of container web".
	Changes []string
}

// DeletePod is the Args of OpDeletePod.
type DeletePod struct {
	Pod PodKey
	// UID is the pod that was observed; a pod of the same name with another UID is left alone.
	UID string
	// Application is whose pod it is; one that has moved to another is left alone.
	Application string
}

// MovePod is the Args of OpMovePod.
type MovePod struct {
	Pod PodKey
	// UID is the pod that was observed; a pod of the same name with another UID is left alone.
	UID      string
	From, To string // applications
}

// SetService is the Args of OpSetService. A node refuses an address or port that another Service has.
type SetService struct{ Service *Service }

// DeleteService is the Args of OpDeleteService. A Service of that name of another application is left alone.
type DeleteService struct {
	Service     object.Ref
	Application string
}

// SetEndpoints is the Args of OpSetEndpoints.
type SetEndpoints struct{ Endpoints *EndpointSlice }

// DeleteEndpoints is the Args of OpDeleteEndpoints. Endpoints of that name of another application are left alone.
type DeleteEndpoints struct {
	Endpoints   object.Ref
	Application string
}

// SetStorage is the Args of OpSetStorage. A node refuses a claim whose volume another claim has.
type SetStorage struct{ Storage *Storage }

// DeleteStorage is the Args of OpDeleteStorage. One of that name of another application is left alone, and so is a claim
// that a pod uses: that is an error.
type DeleteStorage struct {
	Storage     object.Ref
	Application string
	// Keep keeps what a claim holds.
	Keep bool
}

// WaitHealthy is the Args of OpWaitHealthy.
type WaitHealthy struct {
	// Stage is what begins then.
	Stage Stage
	// Objects are what is waited for.
	Objects []object.Ref
}

func (PullImage) op() Op { return OpPullImage }
func (CreatePod) op() Op { return OpCreatePod }
func (WaitReady) op() Op { return OpWaitReady }
func (UpdatePod) op() Op { return OpUpdatePod }
func (DeletePod) op() Op { return OpDeletePod }
func (MovePod) op() Op   { return OpMovePod }

func (SetService) op() Op      { return OpSetService }
func (DeleteService) op() Op   { return OpDeleteService }
func (SetEndpoints) op() Op    { return OpSetEndpoints }
func (DeleteEndpoints) op() Op { return OpDeleteEndpoints }

func (SetStorage) op() Op    { return OpSetStorage }
func (DeleteStorage) op() Op { return OpDeleteStorage }

func (WaitHealthy) op() Op { return OpWaitHealthy }

// StepID numbers the steps of one plan from 1.
type StepID int

// Step is one action on one node.
type Step struct {
	ID     StepID     `json:"id"`
	Op     Op         `json:"op"`
	Node   NodeID     `json:"node,omitempty"`
	Target object.Ref `json:"target"`
	// Cause says in words why the step is taken.
	Cause string `json:"cause"`
	// After are the steps that must have succeeded before; all have lower IDs.
	After []StepID `json:"after,omitempty"`
	Args  Args     `json:"-"`
}

// Action is what happens to an object or a pod.
type Action string

// The actions. Replacing by start-first and by stop-first are different actions.
const (
	ActionNone       Action = "none"
	ActionCreate     Action = "create"
	ActionUpdate     Action = "update"
	ActionStartFirst Action = "replace-start-first"
	ActionStopFirst  Action = "replace-stop-first"
	ActionDelete     Action = "delete"
	// ActionMove changes nothing but which application something belongs to.
	ActionMove Action = "move"
)

// FieldChange is one changed field, addressed by name: spec.template.spec.containers[web].image.
type FieldChange struct {
	Path string `json:"path"`
	// Old and New are JSON; empty means absent. Values of Secrets are replaced by "(sensitive)".
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
	// Replaces is true when the change forces a replacement of the pods (or of the object).
	Replaces bool `json:"replaces,omitempty"`
}

// Change is what happens to one object.
type Change struct {
	Ref    object.Ref `json:"ref"`
	Action Action     `json:"action"`
	Cause  string     `json:"cause"`
	// From is the application that the object is taken over from; empty when it is not.
	From      string        `json:"from,omitempty"`
	Origin    object.Origin `json:"origin,omitzero"`
	Fields    []FieldChange `json:"fields,omitempty"`
	Unchanged int           `json:"unchanged,omitempty"` // number of fields that stay
	Pods      []PodChange   `json:"pods,omitempty"`
	// Owner is the StatefulSet that a claim is made for, or deleted with; zero for what is written in the source itself.
	Owner object.Ref `json:"owner,omitzero"`
	// Stage is when it happens, and Wait the step that has to be over before; 0 when nothing is waited for.
	Stage Stage  `json:"stage,omitzero"`
	Wait  StepID `json:"wait,omitempty"`
	// Hook is the run of a hook that begins. It must be recorded in the inventory (Applied.Run) before a step of the plan is taken.
	Hook HookRun `json:"hook,omitzero"`
}

// PodChange is what happens to one pod of the object.
type PodChange struct {
	Pod    PodKey `json:"pod"`
	Action Action `json:"action"`
	// Replaces is the pod that goes when Action is a replacement.
	Replaces PodKey `json:"replaces,omitzero"`
	Node     NodeID `json:"node,omitempty"`
	Cause    string `json:"cause"`
	// Downtime is true when fewer pods than wanted serve meanwhile.
	Downtime bool `json:"downtime,omitempty"`
}

// Drift is a difference between what runs and what was applied, made by somebody else.
type Drift struct {
	Ref     object.Ref `json:"ref"`
	Message string     `json:"message"`
	// Healed says what the plan does about it; empty when it only reports.
	Healed string `json:"healed,omitempty"`
	// By is who made it, and Action what was done, as in Disturbance; empty and ByUnknown when nothing was seen of it.
	By     By     `json:"by,omitempty"`
	Action string `json:"action,omitempty"`
	// Target and Pointer are what a rule names that leaves the difference alone (as in IgnoreRule); empty when none can.
	Target  object.Ref `json:"target,omitzero"`
	Pointer string     `json:"pointer,omitempty"`
}

// WorkloadStatus sums up one workload as it was observed.
type WorkloadStatus struct {
	Ref     object.Ref `json:"ref"`
	Desired int        `json:"desired"`
	Current int        `json:"current"`
	// Updated, Ready and Available count pods; Succeeded and Failed count those of Jobs.
	Updated   int `json:"updated"`
	Ready     int `json:"ready"`
	Available int `json:"available"`
	Succeeded int `json:"succeeded,omitempty"`
	Failed    int `json:"failed,omitempty"`
	// Health is one of Healthy, Progressing, Degraded, Suspended.
	Health  string `json:"health"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	// WaitsFor are the objects that have to be healthy before what changes in this one is applied.
	WaitsFor []object.Ref `json:"waitsFor,omitempty"`
}

// Finish is a Job that was seen complete or failed. It must be recorded in the inventory
// (Applied.Finished, Succeeded and FinishReason) as soon as the plan is made, whether or not it has steps, and kept there
// until the object is deleted or replaced by force: until it is recorded nothing of the Job is deleted, and
// after its pods are gone it is all that keeps the Job from running again.
type Finish struct {
	Ref       object.Ref `json:"ref"`
	At        time.Time  `json:"at"`
	Succeeded bool       `json:"succeeded,omitempty"`
	// Reason is one CamelCase word, for example CompletionsReached or BackoffLimitExceeded.
	Reason string `json:"reason,omitempty"`
	// Message says more of a failure, with the last log lines.
	Message string `json:"message,omitempty"`
}

// Plan is everything that is to be done for one application.
type Plan struct {
	Application Application `json:"application"`
	Basis       Fingerprint `json:"basis"`
	Changes     []Change    `json:"changes"` // actions other than none, sorted by Ref
	// Moves are objects that come from other applications, or go to them, sorted by Ref.
	Moves []Move `json:"moves,omitempty"`
	// Leftovers are what the application has and does not want, sorted: whether others want it decides what becomes of it.
	Leftovers []object.Ref `json:"-"`
	// Waits says why nothing of the leftovers is deleted yet, as Observed.Unsettled; empty when nothing waits for that.
	Waits string `json:"waits,omitempty"`
	// Suspended are objects that are left as they are because somebody asked for that.
	Suspended []SuspendedObject `json:"suspended,omitempty"`
	// Services are Services that change, or behind which others are than were, sorted by Ref.
	Services  []ServiceChange  `json:"services,omitempty"`
	Unchanged int              `json:"unchanged"`
	Drift     []Drift          `json:"drift,omitempty"`
	Steps     []Step           `json:"steps,omitempty"`
	Status    []WorkloadStatus `json:"status,omitempty"`
	Diags     diag.List        `json:"diagnostics,omitempty"`
	// Blocked is what waits for an approval; nil when nothing does. Deletions that wait are not in the plan. While changes
	// wait, no step of the plan may be taken.
	Blocked *Blocked `json:"blocked,omitempty"`
	// Finished are Jobs that have ended and are not yet recorded as such.
	Finished []Finish `json:"finished,omitempty"`
	// Sync is what is to be recorded of the sync of an application with hooks; nil when there is nothing new. One that has
	// ended must be recorded as soon as the plan is made, one that begins before a step of the plan is taken.
	Sync *SyncState `json:"sync,omitempty"`
	// Failed says why the sync of the application failed; nothing that changes is applied then. It is empty otherwise.
	Failed string `json:"failed,omitempty"`
	// Wake is when the plan should be computed again though nothing happened (back-off, deadlines, TTL); zero for never.
	Wake time.Time `json:"wake,omitzero"`
}

// Counts returns how many things are added, changed and destroyed. Objects and pods count alike;
// a replaced pod counts as one added and one destroyed. An object that moves here counts as changed, its pods do not.
func (p Plan) Counts() (add, change, destroy int) {
	count := func(a Action) {
		switch a {
		case ActionCreate:
			add++
		case ActionUpdate:
			change++
		case ActionDelete:
			destroy++
		case ActionStartFirst, ActionStopFirst:
			add++
			destroy++
		case ActionNone, ActionMove:
		}
	}
	for _, c := range p.Changes {
		if c.Action == ActionMove {
			change++
		}
		count(c.Action)
		for _, pc := range c.Pods {
			count(pc.Action)
		}
	}
	return add, change, destroy
}

// Empty reports whether nothing is to be done.
func (p Plan) Empty() bool { return len(p.Changes) == 0 && len(p.Steps) == 0 }

// Options are settings of the planner.
type Options struct {
	// Node is where pods run while there is only one node.
	Node NodeID
	// DigestKey keys the digests that stand for secret values in plans and inventories.
	DigestKey []byte
	// Services are the ranges that addresses of Services are taken from.
	Services ServiceRanges
}

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
}

func (PullImage) op() Op { return OpPullImage }
func (CreatePod) op() Op { return OpCreatePod }
func (WaitReady) op() Op { return OpWaitReady }
func (UpdatePod) op() Op { return OpUpdatePod }
func (DeletePod) op() Op { return OpDeletePod }

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
	Ref       object.Ref    `json:"ref"`
	Action    Action        `json:"action"`
	Cause     string        `json:"cause"`
	Origin    object.Origin `json:"origin,omitzero"`
	Fields    []FieldChange `json:"fields,omitempty"`
	Unchanged int           `json:"unchanged,omitempty"` // number of fields that stay
	Pods      []PodChange   `json:"pods,omitempty"`
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
}

// Plan is everything that is to be done for one application.
type Plan struct {
	Application Application      `json:"application"`
	Basis       Fingerprint      `json:"basis"`
	Changes     []Change         `json:"changes"` // actions other than none, sorted by Ref
	Unchanged   int              `json:"unchanged"`
	Drift       []Drift          `json:"drift,omitempty"`
	Steps       []Step           `json:"steps,omitempty"`
	Status      []WorkloadStatus `json:"status,omitempty"`
	Diags       diag.List        `json:"diagnostics,omitempty"`
	// Finished are Jobs that have ended and are not yet recorded as such.
	Finished []Finish `json:"finished,omitempty"`
	// Wake is when the plan should be computed again though nothing happened (back-off, deadlines, TTL); zero for never.
	Wake time.Time `json:"wake,omitzero"`
}

// Counts returns how many things are added, changed and destroyed. Objects and pods count alike;
// a replaced pod counts as one added and one destroyed.
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
		case ActionNone:
		}
	}
	for _, c := range p.Changes {
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
}

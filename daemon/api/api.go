// Package api is the read model of fairlead and the way to it: what the commands and the user
// interfaces show, what they may ask for, and the unix socket between them and the daemon.
//
// The types are the wire format (JSON, version 1): fields are added, never renamed or removed.
// Values of Secrets are in none of them.
package api

import (
	"context"
	"io"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Backend answers questions about one installation and carries out requests. The daemon is one,
// Client is another one in front of it. Every method may be called from any goroutine, and every
// method but Apply, Reconcile, Approve, Suspend, Resume, TestNotification, Down and Exec only reads.
//
// Functions passed as on are called from one goroutine at a time, never after the method returned,
// and should return quickly; they may be nil. Errors wrap the classes of this package (ErrNotFound, …).
type Backend interface {
	// Status describes the daemon and its node, and sums up the applications.
	Status(ctx context.Context) (Status, error)
	// Applications returns all applications, sorted by name.
	Applications(ctx context.Context) ([]Application, error)
	// Sources returns all sources, sorted by name.
	Sources(ctx context.Context) ([]Source, error)
	// Objects returns the objects of the inventory that match q, sorted by object.Compare. Pods that
	// a workload made are not among them. q.Kinds empty means every kind.
	Objects(ctx context.Context, q Query) ([]Object, error)
	// Pods returns the pods that match q, sorted by namespace and name; q.Kinds is ignored.
	Pods(ctx context.Context, q Query) ([]Pod, error)
	// Services returns the Services that match q with their endpoints, sorted by namespace and name; q.Kinds is ignored.
	Services(ctx context.Context, q Query) ([]Service, error)
	// Images returns the policies for images and the automations, sorted by namespace and name. Only a daemon that reconciles
	// looks at registries: without one there are none.
	Images(ctx context.Context) (Images, error)
	// Describe returns everything that is known of one thing, or ErrNotFound. The kinds are those of
	// objects, Pod, and Application and Source of the group Group.
	Describe(ctx context.Context, ref object.Ref) (Description, error)
	// Events calls on for every event that is kept and matches q, oldest first, and with q.Follow for
	// every new one until ctx ends, which is not an error. It ends early with the error that on returns.
	Events(ctx context.Context, q EventQuery, on func(Event) error) error
	// Watch calls changed once at first and then after every change of what the other methods return,
	// several changes at once being one, until ctx ends, which is not an error.
	Watch(ctx context.Context, changed func()) error
	// Logs copies the log of one container until its end, or with r.Follow until the container ends
	// or ctx does.
	Logs(ctx context.Context, r LogRequest, stdout, stderr io.Writer) error
	// Exec runs a command in a container and returns its exit code.
	Exec(ctx context.Context, r ExecRequest, s Streams) (exitCode int, err error)

	// Plan fetches, renders, observes and computes, and changes nothing. What is wrong with one application is
	// in its ApplicationPlan.Error; the error is for what concerns all of them.
	Plan(ctx context.Context, r PlanRequest, on func(Event)) (PlanResult, error)
	// Preview plans what merging one branch into another does, or a pull request, from Git against Git, and changes
	// nothing. ErrNotFound when nothing follows the branch, or when no forge of the settings has the pull request.
	Preview(ctx context.Context, r PreviewRequest) (Preview, error)
	// Apply makes one pass: fetches and plans as Plan does, carries the plans out, and returns when every
	// application is done or failed. With r.Expect it refuses with ErrMoved, before anything is changed,
	// when a revision or a basis has moved. Ending ctx stops between steps.
	Apply(ctx context.Context, r ApplyRequest, on func(Event)) (ApplyResult, error)
	// Reconcile wakes the applications (all when none are named) as if their interval had passed, and
	// returns at once. A suspension made by Down ends.
	Reconcile(ctx context.Context, applications []string) error
	// Approve lets go on what waits for an approval, exactly what r.Digest identifies; it records durably who
	// asked. ErrNotFound when there is no such application, ErrMoved when what waits is another set, or nothing.
	Approve(ctx context.Context, r ApproveRequest) (ApproveResult, error)
	// Suspend leaves an application or an object as it is, durably, and tells who asked for that; Resume ends that. Resuming
	// what no command has suspended is ErrMoved.
	Suspend(ctx context.Context, r SuspendRequest) (SuspendResult, error)
	Resume(ctx context.Context, r ResumeRequest) (SuspendResult, error)
	// Access says whether somebody may do something, and who may, by the rules that are in force.
	Access(ctx context.Context, r AccessRequest) (AccessAnswer, error)
	// TestNotification sends a test message to a channel for notifications, once. ErrNotFound when there is none of that
	// name, ErrUnavailable with the reason when the service does not take it.
	TestNotification(ctx context.Context, r NotificationTest) (NotificationTest, error)
	// Down deletes everything that the applications (all when none are named) own and leaves them
	// suspended. With r.DryRun it only says what would go.
	Down(ctx context.Context, r DownRequest, on func(Event)) (DownResult, error)
}

// Group is the API group of the kinds Application and Source in refs.
const Group = "fairlead.dev"

// Query selects objects and pods. Empty fields select everything.
type Query struct {
	// Kinds are kinds as in manifests, for example Deployment.
	Kinds []string `json:"kinds,omitempty"`
	// Namespace selects one namespace; objects without a namespace are always selected.
	Namespace string   `json:"namespace,omitempty"`
	Names     []string `json:"names,omitempty"`
	// Selector is a label selector in Kubernetes' syntax.
	Selector    string `json:"selector,omitempty"`
	Application string `json:"application,omitempty"`
	// Owner selects the pods of one workload, ReplicaSets in between left out.
	Owner object.Ref `json:"owner,omitzero"`
}

// EventQuery selects events. Empty fields select everything.
type EventQuery struct {
	// Since and After select events at or after a time, and those with a higher Seq.
	Since time.Time `json:"since,omitzero"`
	After uint64    `json:"after,omitempty"`
	// Tail keeps only the newest events before following; 0 keeps all.
	Tail        int    `json:"tail,omitempty"`
	Follow      bool   `json:"follow,omitempty"`
	Application string `json:"application,omitempty"`
	Namespace   string `json:"namespace,omitempty"`
	// Ref selects the events of one object or pod.
	Ref object.Ref `json:"ref,omitzero"`
}

// LogRequest selects the log of one container.
type LogRequest struct {
	Pod plan.PodKey `json:"pod"`
	// Container may be empty when the pod has one container besides init containers.
	Container string `json:"container,omitempty"`
	// Previous is the instance before the last restart.
	Previous bool `json:"previous,omitempty"`
	Follow   bool `json:"follow,omitempty"`
	// Tail is the number of lines from the end; -1 for all.
	Tail       int       `json:"tail"`
	Since      time.Time `json:"since,omitzero"`
	Timestamps bool      `json:"timestamps,omitempty"`
}

// ExecRequest is a command to be run in a container.
type ExecRequest struct {
	Pod plan.PodKey `json:"pod"`
	// Container may be empty when the pod has one container besides init containers.
	Container string   `json:"container,omitempty"`
	Command   []string `json:"command"`
	// Stdin connects Streams.Stdin; TTY gives the command a terminal, whose output is all on Stdout.
	Stdin bool `json:"stdin,omitempty"`
	TTY   bool `json:"tty,omitempty"`
}

// Streams are the ends of an interactive command.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Resize delivers the size of the terminal, columns and rows; nil without one.
	Resize <-chan [2]uint
}

// PlanRequest asks for plans.
type PlanRequest struct {
	// Applications are names; empty means all.
	Applications []string `json:"applications,omitempty"`
	// Ref plans another branch, tag, ref or commit of the applications' sources than the one they follow.
	Ref string `json:"ref,omitempty"`
	// Against is a branch, tag, ref or commit that Ref is compared with, instead of with what runs: the plan is then of what would
	// run if Against had been applied.
	Against string `json:"against,omitempty"`
}

// ApplicationPlan is the plan of one application, with where it comes from.
type ApplicationPlan struct {
	Name string `json:"name"`
	// Source is where the source is: a URL without credentials, or a directory.
	Source string `json:"source"`
	Path   string `json:"path"`
	// From was applied last (zero before the first time), To is what is planned.
	From Revision `json:"from,omitzero"`
	To   Revision `json:"to,omitzero"`
	// Wants identifies everything that is wanted after the plan: equal digests, equal objects. It is empty when nothing is.
	Wants string `json:"wants,omitempty"`
	// Failure is that of the newest revision, which is not tried again; nil when it has not failed. The plan goes back to the
	// last good revision, To, where Failure.Back is that; otherwise it is what would be tried.
	Failure *Failure `json:"failure,omitempty"`
	// Declaration is the object that declares the application; zero for the settings.
	Declaration object.Ref `json:"declaration,omitzero"`
	// Suspension is set when the application is suspended: then the plan is not carried out.
	Suspension *plan.Suspension `json:"suspension,omitempty"`
	// Plan is empty when Error is set.
	Plan plan.Plan `json:"plan"`
	// Error says why there is no plan: the source, the render or the engine failed.
	Error *Error `json:"error,omitempty"`
}

// PlanFormat is the version of PlanResult as a file.
const PlanFormat = "fairlead.dev/plan/v1"

// PlanResult is the outcome of Plan, and the content of a saved plan.
type PlanResult struct {
	// Format is PlanFormat.
	Format string `json:"format"`
	// Version is the fairlead that made it, Created when.
	Version string    `json:"version,omitempty"`
	Created time.Time `json:"created"`
	// Compared is true for a plan from one revision of Git to another, whatever runs. It holds only the applications that
	// differ, and cannot be carried out.
	Compared     bool              `json:"compared,omitempty"`
	Applications []ApplicationPlan `json:"applications"`
}

// Failed reports whether any application has no plan or has errors among its diagnostics.
func (r PlanResult) Failed() bool {
	for _, a := range r.Applications {
		if a.Error != nil || a.Plan.Diags.HasErrors() {
			return true
		}
	}
	return false
}

// Pending reports whether anything at all would be done.
func (r PlanResult) Pending() bool {
	for _, a := range r.Applications {
		if !a.Plan.Empty() {
			return true
		}
	}
	return false
}

// Counts sums plan.Plan.Counts over all applications.
func (r PlanResult) Counts() Counts {
	var c Counts
	for _, a := range r.Applications {
		add, change, destroy := a.Plan.Counts()
		c = Counts{c.Add + add, c.Change + change, c.Destroy + destroy}
	}
	return c
}

// Expect returns what must still hold for the plan to be applied.
func (r PlanResult) Expect() []Expect {
	var out []Expect
	for _, a := range r.Applications {
		out = append(out, Expect{Application: a.Name, Revision: a.To.ID, Basis: a.Plan.Basis})
	}
	return out
}

// Expect is what a saved plan was made from.
type Expect struct {
	Application string           `json:"application"`
	Revision    string           `json:"revision"`
	Basis       plan.Fingerprint `json:"basis"`
}

// ApplyRequest asks for one pass.
type ApplyRequest struct {
	// Applications are names; empty means all. With Expect they are those of the saved plan.
	Applications []string `json:"applications,omitempty"`
	// Expect, when not empty, must hold exactly; otherwise nothing is done and the error is ErrMoved and
	// names what was expected and what is there, revision and basis both.
	Expect []Expect `json:"expect,omitempty"`
}

// Outcome is how one application's pass ended.
type Outcome struct {
	Application string   `json:"application"`
	Revision    Revision `json:"revision,omitzero"`
	Counts      Counts   `json:"counts"`
	// Done and Total count steps, over all walks of the pass.
	Done  int `json:"done"`
	Total int `json:"total"`
	// Error is set when it failed, LogTail then holds the last log lines of the pod concerned.
	Error    *Error        `json:"error,omitempty"`
	LogTail  []string      `json:"logTail,omitempty"`
	Health   Health        `json:"health,omitempty"`
	Message  string        `json:"message,omitempty"`
	Duration time.Duration `json:"durationNanoseconds,omitempty"`
}

// ApplyResult is the outcome of Apply, sorted by application.
type ApplyResult struct {
	Outcomes []Outcome `json:"outcomes"`
}

// Failed reports whether any application failed.
func (r ApplyResult) Failed() bool {
	for _, o := range r.Outcomes {
		if o.Error != nil {
			return true
		}
	}
	return false
}

// ApproveRequest approves what waits for it.
type ApproveRequest struct {
	Application string `json:"application"`
	// Digest is that of plan.Blocked.
	Digest string `json:"digest"`
}

// ApproveResult says what was approved, and by whom.
type ApproveResult struct {
	Application string       `json:"application"`
	Approved    plan.Blocked `json:"approved"`
	By          string       `json:"by"`
}

// SuspendRequest leaves something as it is: an application or an object, one of the two.
type SuspendRequest struct {
	Application string     `json:"application,omitempty"`
	Object      object.Ref `json:"object,omitzero"`
	// Until is when it ends by itself; zero for never.
	Until  time.Time `json:"until,omitzero"`
	Reason string    `json:"reason,omitempty"`
}

// ResumeRequest ends what a SuspendRequest began.
type ResumeRequest struct {
	Application string     `json:"application,omitempty"`
	Object      object.Ref `json:"object,omitzero"`
}

// AccessRequest asks whether somebody may do something: with a resource or, with Path, with something else.
type AccessRequest struct {
	// User is a name as RBAC has it, with the groups besides those that follow from it; empty asks only who may.
	User   string   `json:"user,omitempty"`
	Groups []string `json:"groups,omitempty"`
	Verb   string   `json:"verb"`
	// Group, Resource and Subresource are as in a rule, for example apps and deployments.
	Group       string `json:"group,omitempty"`
	Resource    string `json:"resource,omitempty"`
	Subresource string `json:"subresource,omitempty"`
	// Namespace is empty for what has none, and for all namespaces.
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	Path      string `json:"path,omitempty"`
}

// AccessAnswer says whether it is allowed, and by what.
type AccessAnswer struct {
	Allowed bool `json:"allowed"`
	// By is the binding and the role that allow it.
	By string `json:"by,omitempty"`
	// Holders are all who may, in the order of the bindings.
	Holders []AccessHolder `json:"holders,omitempty"`
}

// AccessHolder is somebody who may do something.
type AccessHolder struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	By        string `json:"by"`
}

// NotificationTest is a test message: the channel that it goes to and, in the answer, its kind.
type NotificationTest struct {
	Channel string `json:"channel"`
	Kind    string `json:"kind,omitempty"`
}

// SuspendResult says what is, or was, suspended.
type SuspendResult struct {
	Application string     `json:"application,omitempty"`
	Object      object.Ref `json:"object,omitzero"`
	plan.Suspension
}

// DownRequest asks for the removal of applications.
type DownRequest struct {
	Applications []string `json:"applications,omitempty"`
	// DryRun only plans.
	DryRun bool `json:"dryRun,omitempty"`
}

// DownResult says what goes, and with DryRun false how it went.
type DownResult struct {
	Applications []ApplicationPlan `json:"applications"`
	Outcomes     []Outcome         `json:"outcomes,omitempty"`
}

// Validation is what rendering found, without any engine.
type Validation struct {
	Applications []ApplicationValidation `json:"applications"`
}

// ApplicationValidation is what was found in one application.
type ApplicationValidation struct {
	Name     string   `json:"name"`
	Source   string   `json:"source"`
	Path     string   `json:"path"`
	Revision Revision `json:"revision,omitzero"`
	// Kinds counts the objects by kind.
	Kinds map[string]int `json:"kinds,omitempty"`
	Diags diag.List      `json:"diagnostics,omitempty"`
	// Error says why it could not be rendered at all.
	Error *Error `json:"error,omitempty"`
}

// Failed reports whether anything in it is an error.
func (v Validation) Failed() bool {
	for _, a := range v.Applications {
		if a.Error != nil || a.Diags.HasErrors() {
			return true
		}
	}
	return false
}

package sim

import (
	"github.com/fairlead-dev/fairlead/plan"
)

// Bug is a mistake that is made on purpose, in what stands around the core or between its parts, to see that it is found.
type Bug string

// The bugs. Each says what is wrong while it is on.
const (
	BrokenIsComplete       Bug = "a render that found errors counts as complete"
	FailedFetchIsEmpty     Bug = "a repository that cannot be reached counts as one without files"
	FailedFetchIsPartial   Bug = "a repository that breaks off counts as one with the files that came"
	SourceGoesBack         Bug = "a fetch sometimes returns the commit before the newest"
	ForgetsInventory       Bug = "a start forgets what was applied"
	OldDaemonLives         Bug = "a daemon that was thought dead goes on beside its successor"
	ForeignIsOurs          Bug = "containers of another installation count as ours"
	FailedListIsEmpty      Bug = "an engine that cannot list counts as one without containers"
	ListMissesSome         Bug = "a list of containers lacks some"
	SilenceIsEmpty         Bug = "a node that does not answer counts as one without pods"
	StaleIsFresh           Bug = "what was last known of a node that does not answer counts as its state"
	PodsAreOverlooked      Bug = "some pods are not observed"
	UnreadyIsReady         Bug = "pods count as ready before they are"
	EventsAreLost          Bug = "the engine's events are not heard"
	WakesAreLost           Bug = "a change on the node wakes nobody"
	CreatesTwice           Bug = "containers are created twice"
	CreateIsDoubled        Bug = "pods are created twice"
	WrongImage             Bug = "containers get another image"
	StartIsSkipped         Bug = "some containers are not started, and count as started"
	KillIsSkipped          Bug = "containers are not killed, and count as killed"
	RemoveIsSkipped        Bug = "some containers are not removed, and count as removed"
	NoGrace                Bug = "containers are killed without a grace period"
	DeleteIsSkipped        Bug = "some pods are not deleted, and count as deleted"
	WaitIsSkipped          Bug = "nothing waits for pods to be ready"
	OrderIsIgnored         Bug = "steps do not wait for those before them"
	ExtraDelete            Bug = "a plan is carried out with a step that was not shown"
	RunsOldPlan            Bug = "the plan before the newest is carried out"
	FailuresAreSuccess     Bug = "a plan that failed counts as carried out"
	SetServiceIsSkipped    Bug = "Services are not written down, and count as such"
	DeleteServiceIsSkipped Bug = "Services are not deleted, and count as deleted"
	GateIsSkipped          Bug = "pods that stop do not wait until they are out of the routes"
	RegistryForgets        Bug = "routes are sometimes not taken over, and count as such"
	SuspendIsIgnored       Bug = "suspended applications are reconciled"
	RetriesFailures        Bug = "what failed is tried again with every change on the node"
	ForgetsFailures        Bug = "a start forgets which revision failed"
	GoesBackUnasked        Bug = "an application goes back that does not ask for it"
	GoesBackToNewest       Bug = "a start takes the revision that failed for the last good one"
	EarlierIsOther         Bug = "an earlier revision gives something else than it gave"
	WavesAreIgnored        Bug = "objects lose their waves when they are rendered"
	HooksAreIgnored        Bug = "hooks are rendered as ordinary objects"
	HookFailureIsSuccess   Bug = "a hook that failed counts as one that succeeded"
	SyncIsForgotten        Bug = "a start forgets which sync is under way"
	OthersAreUnknown       Bug = "an application does not know what the others want"
	DependencyIsIgnored    Bug = "an application does not wait for what it depends on"
)

// Tolerated are mistakes that do no harm, because something else stands in their way: a source without any object is not
// taken for one whose objects were removed, and what a plan did not do is in the next one.
func Tolerated() []Bug {
	return []Bug{FailedFetchIsEmpty, FailuresAreSuccess}
}

// Bugs are those that have to be found.
func Bugs() []Bug {
	return []Bug{
		BrokenIsComplete, FailedFetchIsPartial, SourceGoesBack, OldDaemonLives, ForeignIsOurs, FailedListIsEmpty, ListMissesSome,
		SilenceIsEmpty, StaleIsFresh, PodsAreOverlooked, UnreadyIsReady, EventsAreLost, WakesAreLost, CreatesTwice, CreateIsDoubled, WrongImage,
		StartIsSkipped, KillIsSkipped, RemoveIsSkipped, NoGrace, DeleteIsSkipped, WaitIsSkipped, OrderIsIgnored, ExtraDelete, RunsOldPlan,
		SetServiceIsSkipped, DeleteServiceIsSkipped, GateIsSkipped, RegistryForgets, SuspendIsIgnored,
		RetriesFailures, ForgetsFailures, GoesBackUnasked, GoesBackToNewest, EarlierIsOther, ForgetsInventory,
		WavesAreIgnored, HooksAreIgnored, HookFailureIsSuccess, SyncIsForgotten, DependencyIsIgnored, OthersAreUnknown,
	}
}

func (w *world) has(b Bug) bool { return w.opt.Bug == b }

// spoil changes a plan between being shown and being carried out.
func (w *world) spoil(p plan.Plan) plan.Plan {
	switch {
	case w.has(OrderIsIgnored):
		steps := make([]plan.Step, len(p.Steps))
		for n, s := range p.Steps {
			s.After = nil
			steps[n] = s
		}
		p.Steps = steps
	case w.has(ExtraDelete):
		for _, c := range w.containers() {
			if c.Application == p.Application.Name && len(p.Steps) > 0 {
				p.Steps = append(p.Steps[:len(p.Steps):len(p.Steps)], plan.Step{
					ID: p.Steps[len(p.Steps)-1].ID + 1, Op: plan.OpDeletePod, Node: nodeID, Target: c.Pod.Ref(), Args: plan.DeletePod{Pod: c.Pod, UID: c.UID},
				})
				break
			}
		}
	}
	return p
}

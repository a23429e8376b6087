package api

import (
	"time"

	"github.com/fairlead-dev/fairlead/plan"
)

// PreviewRequest asks what merging one branch into another would do.
type PreviewRequest struct {
	// URL is a pull request as a browser shows it. Everything else is then asked from its forge.
	URL string `json:"url,omitempty"`
	// Repository are the keys of the repository, as forge.Key makes them: sources that follow Base of it are looked at.
	Repository []string `json:"repository,omitempty"`
	// Base is the branch that is merged into, without refs/heads/. Head is what is merged into it: a branch, a full
	// reference or a commit.
	Base string `json:"base,omitempty"`
	Head string `json:"head,omitempty"`
	// Stranger withholds keys, Secrets and other repositories from what is rendered, and what runs from the result.
	Stranger bool `json:"stranger,omitempty"`
}

// Preview is what merging one branch into another would do.
type Preview struct {
	// Branch is the one that is merged into, Base its commit, and Head what is merged into it.
	Branch string   `json:"branch"`
	Base   Revision `json:"base"`
	Head   Revision `json:"head"`
	// Conflicts are files that cannot be merged; the plan then has them as in Base.
	Conflicts []string `json:"conflicts,omitempty"`
	// Plan is from Base to the merge, Git against Git; it has only the applications that differ.
	Plan PlanResult `json:"plan"`
	// Applications is how many follow the branch.
	Applications int `json:"applications"`
	// Differs is what already runs otherwise than Base says, in the applications of Plan, as it was seen at Observed.
	Differs  []Difference `json:"differs,omitempty"`
	Observed time.Time    `json:"observed,omitzero"`
	// Withheld is true when the change comes from a stranger, and was planned without keys and Secrets.
	Withheld bool `json:"withheld,omitempty"`
	// Locked are applications that could not be planned without keys.
	Locked []string `json:"locked,omitempty"`
}

// Difference is what runs of one application otherwise than Git says.
type Difference struct {
	Application string `json:"application"`
	// Pending is what is still to be done of what Git says now, and Drift what somebody else changed.
	Pending Counts       `json:"pending,omitzero"`
	Drift   []plan.Drift `json:"drift,omitempty"`
	// Message says why the application is not healthy; empty when it is.
	Message string `json:"message,omitempty"`
}

// Failed reports whether the merge cannot be applied.
func (p Preview) Failed() bool { return len(p.Conflicts) > 0 || p.Plan.Failed() }

package plan

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/render/object"
)

// Annotations by which an object says when it is applied, as Argo CD reads them.
const (
	argoPrefix           = "argocd.argoproj.io/"
	waveAnnotation       = argoPrefix + "sync-wave"
	hookAnnotation       = argoPrefix + "hook"
	hookDeleteAnnotation = argoPrefix + "hook-delete-policy"
	helmHookAnnotation   = "helm.sh/hook"
)

// Phase is a part of a sync. Phases come one after the other, SyncFail only after a sync that failed.
type Phase int

// The phases. What is no hook is applied in Sync.
const (
	PreSync Phase = iota - 1
	Sync
	PostSync
	SyncFail
)

// phases are all, in order.
var phases = [...]Phase{PreSync, Sync, PostSync, SyncFail}

// String returns Argo CD's word for the phase.
func (p Phase) String() string {
	switch p {
	case PreSync:
		return "PreSync"
	case Sync:
		return "Sync"
	case PostSync:
		return "PostSync"
	case SyncFail:
		return "SyncFail"
	}
	return "Phase(" + strconv.Itoa(int(p)) + ")"
}

// MarshalText returns the word.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a word that MarshalText wrote.
func (p *Phase) UnmarshalText(b []byte) error {
	for _, known := range phases {
		if known.String() == string(b) {
			*p = known
			return nil
		}
	}
	return fmt.Errorf("there is no phase %q", b)
}

// Phases is a set of phases.
type Phases uint8

// Has reports whether a phase is in the set.
func (s Phases) Has(p Phase) bool { return s&(1<<(p-PreSync)) != 0 }

func (s *Phases) add(p Phase) { *s |= 1 << (p - PreSync) }

// first is the earliest phase of the set; Sync when it is empty.
func (s Phases) first() Phase {
	for _, p := range phases {
		if s.Has(p) {
			return p
		}
	}
	return Sync
}

// Stage is when in a sync something is applied: by phase, then by wave. The zero value is wave 0 of what is no hook.
type Stage struct {
	Phase Phase `json:"phase,omitzero"`
	Wave  int   `json:"wave,omitzero"`
}

// CompareStages orders stages as they come.
func CompareStages(a, b Stage) int {
	return cmp.Or(cmp.Compare(a.Phase, b.Phase), cmp.Compare(a.Wave, b.Wave))
}

// String returns "wave 1", or with a phase other than Sync "PreSync" and "PreSync wave 1".
func (s Stage) String() string {
	switch {
	case s.Phase == Sync:
		return "wave " + strconv.Itoa(s.Wave)
	case s.Wave == 0:
		return s.Phase.String()
	}
	return s.Phase.String() + " wave " + strconv.Itoa(s.Wave)
}

// Order says when an object is applied. The zero value is what an object has that says nothing.
type Order struct {
	Wave int
	// Hook are the phases in which a Job or Pod runs as a hook. Of other kinds the first of them is the phase that
	// they are applied in.
	Hook Phases
	// Skip leaves the object alone: it is neither applied nor deleted.
	Skip bool
	// DeleteSucceeded and DeleteFailed have the pods of a hook deleted when it has succeeded or failed. Those of an
	// earlier run are always deleted before the next one.
	DeleteSucceeded, DeleteFailed bool
}

// hook reports whether an object with this order runs as a hook.
func (o Order) hook(r object.Ref) bool { return o.Hook != 0 && hookKind(r) }

// stage is when an object that is no hook is applied.
func (o Order) stage() Stage { return Stage{Phase: o.Hook.first(), Wave: o.Wave} }

// hookKind reports whether objects of this kind can run as hooks.
func hookKind(r object.Ref) bool {
	return r.Group == "batch" && r.Kind == "Job" || r.Group == "" && r.Kind == "Pod"
}

// orderOf reads the annotations of a manifest. What is wrong with them was found when it was decoded.
func orderOf(written []byte) Order {
	var o Order
	if !bytes.Contains(written, []byte(argoPrefix)) {
		return o
	}
	notes := annotationsOf(written)
	text := func(name string) string { s, _ := notes[name].(string); return s }
	o.Wave, _ = strconv.Atoi(strings.TrimSpace(text(waveAnnotation)))
	for word := range words(text(hookAnnotation)) {
		var p Phase
		if word == "Skip" {
			o.Skip = true
		} else if p.UnmarshalText([]byte(word)) == nil {
			o.Hook.add(p)
		}
	}
	for word := range words(text(hookDeleteAnnotation)) {
		o.DeleteSucceeded = o.DeleteSucceeded || word == "HookSucceeded"
		o.DeleteFailed = o.DeleteFailed || word == "HookFailed"
	}
	return o
}

// words are the comma-separated words of an annotation.
func words(s string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for w := range strings.SplitSeq(s, ",") {
			if w = strings.TrimSpace(w); w != "" && !yield(w) {
				return
			}
		}
	}
}

// HookRun is one run of a hook: in which phase of which sync. The zero value is what is no hook's.
type HookRun struct {
	Sync  string `json:"sync,omitempty"`
	Phase Phase  `json:"phase,omitzero"`
}

// SyncState is what is remembered of the newest sync of an application that has hooks. A sync brings the application from
// what it wanted before to what it wants now; every hook runs once in it.
type SyncState struct {
	// ID is unique; Applied.Run names it.
	ID string `json:"id"`
	// Desired identifies everything that the application wanted when the sync began, Revision where that came from.
	Desired  string    `json:"desired"`
	Revision string    `json:"revision,omitempty"`
	Begun    time.Time `json:"begun,omitzero"`
	// Ended is zero while the sync goes on. Failed says why it failed; nothing more is applied in a sync that did.
	Ended  time.Time `json:"ended,omitzero"`
	Failed string    `json:"failed,omitempty"`
}

// active reports whether the sync goes on.
func (s *SyncState) active() bool { return s != nil && s.Ended.IsZero() }

// sortedStages returns stages in order, each once.
func sortedStages(list []Stage) []Stage {
	slices.SortFunc(list, CompareStages)
	return slices.Compact(list)
}

package plan

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Annotations by which an object, or what declares an application, asks to be left as it is.
const (
	// SuspendAnnotation is "true" for as long as it is there.
	SuspendAnnotation = "fairlead.dev/suspend"
	// SuspendUntilAnnotation is a time (RFC 3339) until which it lasts.
	SuspendUntilAnnotation = "fairlead.dev/suspend-until"
	// SuspendReasonAnnotation says why, for people.
	SuspendReasonAnnotation = "fairlead.dev/suspend-reason"
)

// Suspension says that something is left as it is: neither changed, nor put right, nor deleted.
type Suspension struct {
	// Until is when it ends; zero for when it is taken back.
	Until  time.Time `json:"until,omitzero"`
	Reason string    `json:"reason,omitempty"`
	// By is who asked for it; empty for an annotation in the source.
	By string `json:"by,omitempty"`
}

// Over reports whether the suspension has ended.
func (s Suspension) Over(now time.Time) bool { return !s.Until.IsZero() && !now.Before(s.Until) }

// String says until when it lasts, who asked for it, and why.
func (s Suspension) String() string {
	out := "until it is resumed"
	if !s.Until.IsZero() {
		out = "until " + s.Until.UTC().Format(time.RFC3339)
	}
	if s.By != "" {
		out += ", by " + s.By
	}
	if s.Reason != "" {
		out += ": " + s.Reason
	}
	return out
}

// SuspendedBy reads the annotations of an object or of a declaration; false when they do not ask for it. One whose end
// cannot be read lasts, and the error says what is wrong with it.
func SuspendedBy(annotations map[string]string) (Suspension, bool, error) {
	until, bounded := annotations[SuspendUntilAnnotation]
	s := Suspension{Reason: annotations[SuspendReasonAnnotation]}
	if !bounded {
		return s, strings.EqualFold(strings.TrimSpace(annotations[SuspendAnnotation]), "true"), nil
	}
	at, err := time.Parse(time.RFC3339, strings.TrimSpace(until))
	if err != nil {
		return s, true, fmt.Errorf("%s: %q is not a time like 2026-11-27T18:00:00Z", SuspendUntilAnnotation, until)
	}
	s.Until = at
	return s, true, nil
}

// SuspendedObject is an object that a plan leaves as it is.
type SuspendedObject struct {
	Ref object.Ref `json:"ref"`
	Suspension
	// Held says what would be done to the object otherwise; empty for nothing.
	Held string `json:"held,omitempty"`
}

// suspension returns how an object is suspended: by somebody, or by an annotation in a manifest of it.
func (b *builder) suspension(r object.Ref, written []byte) (Suspension, bool, error) {
	if s, is := b.suspended[r]; is && !s.Over(b.now) {
		return s, true, nil
	}
	// On a declaration the annotations are about its application.
	if !bytes.Contains(written, []byte(SuspendAnnotation)) || strings.HasSuffix(r.Group, ".fluxcd.io") || r.Group == "argoproj.io" {
		return Suspension{}, false, nil
	}
	notes := map[string]string{}
	for k, v := range annotationsOf(written) {
		if text, ok := v.(string); ok {
			notes[k] = text
		}
	}
	s, is, err := SuspendedBy(notes)
	return s, is && !s.Over(b.now), err
}

// suspend leaves a desired object as it is, when it is suspended.
func (b *builder) suspend(o *object.Object, v verdict) (verdict, bool) {
	s, is, err := b.suspension(o.Ref, o.Written)
	if err != nil {
		b.diag(diag.Diagnostic{
			Severity: diag.Error, Code: "invalid-annotation", Ref: o.Ref, Origin: o.At("metadata.annotations"), Field: "metadata.annotations",
			Message: err.Error(), Hint: "it is left as it is until this is put right",
		})
	}
	if !is {
		return v, false
	}
	held := SuspendedObject{Ref: o.Ref, Suspension: s}
	if c := b.changes[o.Ref]; c != nil {
		held.Held = c.Cause
		delete(b.changes, o.Ref)
	}
	b.holds(held)
	return left, true
}

// holds notes that an object is suspended, and has the plan computed again when that ends.
func (b *builder) holds(s SuspendedObject) {
	if b.holding == nil {
		b.holding = map[object.Ref]SuspendedObject{}
	}
	b.holding[s.Ref] = s
	b.plan.Suspended = append(b.plan.Suspended, s)
	b.wakeAt(s.Until)
}

// suspendGone keeps what is gone from the source and suspended from being deleted.
func (b *builder) suspendGone() {
	if len(b.suspended) == 0 && !b.anyAnnotated() {
		return
	}
	for _, a := range b.gone(b.inventory) {
		if s, is, _ := b.suspension(a.Ref, a.Written); is {
			b.holds(SuspendedObject{Ref: a.Ref, Suspension: s, Held: "gone from the source"})
		}
	}
	for _, owner := range b.orphans() {
		if s, is, _ := b.suspension(owner, nil); is {
			b.holds(SuspendedObject{Ref: owner, Suspension: s, Held: "neither in the source nor in the inventory"})
		}
	}
}

func (b *builder) anyAnnotated() bool {
	for i := range b.inventory {
		if bytes.Contains(b.inventory[i].Written, []byte(SuspendAnnotation)) {
			return true
		}
	}
	return false
}

// isHeld reports whether an object is suspended.
func (b *builder) isHeld(r object.Ref) bool {
	_, is := b.holding[r]
	return is
}

// suspendedStatus sums up a workload that is left as it is, and shows what is missing of it.
func (b *builder) suspendedStatus(w *Workload, pods []*pod) {
	want := replicasOf(w.Value)
	s := WorkloadStatus{Ref: w.Ref, Health: "Suspended", Reason: "Suspended", Message: "it is suspended " + b.holding[w.Ref].Suspension.String(), Desired: int(want)}
	for _, p := range pods {
		if p.Terminating {
			continue
		}
		switch {
		case p.Phase == "Succeeded":
			s.Succeeded++
		case p.Phase == "Failed":
			s.Failed++
		default:
			s.Current++
		}
		if p.Template == w.Pod.Template {
			s.Updated++
		}
		if p.Ready && p.active() {
			s.Ready++
			s.Available++
		}
		if changes, drifted := b.differences(w, w.Pod, p); len(changes) > 0 {
			for _, d := range drifted {
				b.drifted(d)
			}
		}
	}
	lost := s.Desired - s.Current - s.Succeeded - s.Failed
	if lost > 0 && w.Kind != "Job" && b.holding[w.Ref].Held == "" {
		b.drift(w.Ref, fmt.Sprintf("%d of %s missing", lost, podsAre(s.Desired)), "")
	}
	b.status(s)
}

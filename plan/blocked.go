package plan

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// PruneLimit is how much of an application one plan may delete without an approval. A plan is over the limit when it
// is over both. The zero value has no limit.
type PruneLimit struct {
	// MaxShare is in percent of the application's objects and pods, MaxCount a number of them.
	MaxShare int `json:"maxShare"`
	MaxCount int `json:"maxCount"`
}

// Blocked is what waits for an approval.
type Blocked struct {
	// Digest identifies exactly this: the objects with the time at which each was applied first, so that an approval
	// never holds for what is made again later, the pods that belong to no object, and what is changed with all that the
	// application is to become.
	Digest string `json:"digest"`
	// Content identifies what follows from Git alone: the names of what would go or change, and all that the application
	// is to become. Two plans of one change agree in it, whatever was observed besides.
	Content string `json:"content"`
	// Why says in words why an approval is needed.
	Why string `json:"why"`
	// Objects and Pods are what would go, sorted.
	Objects []object.Ref `json:"objects,omitempty"`
	Pods    []PodKey     `json:"pods,omitempty"`
	// Of is the number of objects and pods that the application has, without those that are new since everything of it
	// was done last.
	Of int `json:"of"`
	// Changes are the objects of chosen kinds that would be made or changed, sorted. While there are any, the whole plan
	// waits.
	Changes []object.Ref `json:"changes,omitempty"`

	// Deletions is the digest of what would go; empty for nothing. Tokens stand for Changes, one for each. An approval is
	// for both.
	Deletions string   `json:"-"`
	Tokens    []string `json:"-"`
}

// Whole reports whether no step of the plan may be taken before the approval.
func (b *Blocked) Whole() bool { return b != nil && len(b.Changes) > 0 }

// Count is the number of objects and pods that would go.
func (b *Blocked) Count() int { return len(b.Objects) + len(b.Pods) }

// String says what would go or change, at most a few by name.
func (b *Blocked) String() string {
	var names []string
	for _, r := range b.Changes {
		names = append(names, r.String())
	}
	for _, r := range b.Objects {
		names = append(names, r.String())
	}
	for _, k := range b.Pods {
		names = append(names, k.Ref().String())
	}
	const most = 5
	s := strings.Join(names[:min(most, len(names))], ", ")
	if n := len(names) - most; n > 0 {
		s += fmt.Sprintf(" and %d more", n)
	}
	return s
}

// What says in words what waits, why, and what it is.
func (b *Blocked) What() string {
	if b.Whole() {
		return fmt.Sprintf("nothing is carried out without an approval, since %s: %s", b.Why, b)
	}
	return fmt.Sprintf("%d of %d objects and pods are not deleted without an approval, since %s: %s", b.Count(), b.Of, b.Why, b)
}

// Approval says what waits for an approval, in any number, besides deletions that exceed a PruneLimit.
type Approval struct {
	// Volumes are PersistentVolumeClaims and PersistentVolumes that would be deleted, and what they hold with them.
	Volumes bool `json:"volumes,omitempty"`
	// Kinds are those of which no object may be made, changed or deleted without one, as MatchesKind reads them.
	Kinds []string `json:"kinds,omitempty"`
}

// IsKind reports whether MatchesKind can read a kind.
func IsKind(written string) bool { return kindPattern.MatchString(written) }

var kindPattern = regexp.MustCompile(`^(\*|[A-Z][A-Za-z0-9]*)(\.[a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$`)

// MatchesKind reports whether an object is of a kind that is written Kind, which is of any group, Kind.group or *.group.
func MatchesKind(written string, r object.Ref) bool {
	kind, group, hasGroup := strings.Cut(written, ".")
	return (kind == "*" || kind == r.Kind) && (!hasGroup || group == r.Group)
}

// chosen returns the kind of the application's Approval that an object is of; empty when it is of none.
func (a *Application) chosen(r object.Ref) string {
	for _, k := range a.Approval.Kinds {
		if MatchesKind(k, r) {
			return k
		}
	}
	return ""
}

// isVolume reports whether an object is one with which data goes.
func isVolume(r object.Ref) bool {
	return r.Group == "" && (r.Kind == "PersistentVolumeClaim" || r.Kind == "PersistentVolume")
}

// Annotations by which an object speaks for itself about its deletion.
const (
	pruneOwn     = "fairlead.dev/prune"
	pruneConfirm = "confirm"
)

// confirms says why an object is deleted only with an approval, in any number; empty when it is not so.
func (b *builder) confirms(a *Applied) string {
	app := &b.desired.Application
	if app.Approval.Volumes && isVolume(a.Ref) {
		return "what they hold would be lost"
	}
	if app.Approval.Volumes && isStatefulSet(a.Ref) && deletesClaims(a.Written) && len(b.storage.claimsFor(a.Ref)) > 0 {
		return "what their claims hold would be lost"
	}
	if kind := app.chosen(a.Ref); kind != "" {
		return "the settings ask for it for " + kind
	}
	if note := asksForIt(a); note != "" {
		return "their annotation " + note + " asks for it"
	}
	return ""
}

// asksForIt names the annotation that lets an object be deleted only with an approval; empty when none does.
func asksForIt(a *Applied) string {
	if !bytes.Contains(a.Written, []byte(pruneOwn)) && !bytes.Contains(a.Written, []byte(argoOptions)) {
		return ""
	}
	notes := annotationsOf(a.Written)
	if value, _ := notes[pruneOwn].(string); strings.EqualFold(value, pruneConfirm) {
		return pruneOwn
	}
	if argoOption(notes, "Prune=confirm") {
		return argoOptions
	}
	return ""
}

// block decides which of the deletions to come wait for an approval: all of them when they are over the limit, and
// those that ask for one by an annotation.
func (b *builder) block() {
	if !b.desired.Complete {
		return
	}
	if reason, _ := b.keepsAll(); reason != "" {
		return
	}
	var gone, asking []*Applied
	for _, a := range b.gone(b.inventory) {
		if keptBy(a) != "" || b.isHeld(a.Ref) {
			continue
		}
		gone = append(gone, a)
		if b.confirms(a) != "" {
			asking = append(asking, a)
		}
	}
	orphans := slices.DeleteFunc(b.orphans(), b.isHeld)
	set := b.deletions(gone, orphans)
	app := &b.desired.Application
	if slices.Contains(app.Approved, set.Digest) {
		return
	}
	over, why := b.overLimit(set, gone)
	switch {
	case over:
		set.Why = why
		b.held = func(object.Ref) bool { return true }
	case len(asking) > 0:
		set = b.deletions(asking, nil)
		if slices.Contains(app.Approved, set.Digest) {
			return
		}
		set.Why = b.reasons(asking)
		waiting := make(map[object.Ref]bool, len(asking))
		for _, a := range asking {
			waiting[a.Ref] = true
		}
		b.held = func(r object.Ref) bool { return waiting[r] }
	default:
		return
	}
	b.plan.Blocked = &set
}

// reasons says why objects are deleted only with an approval.
func (b *builder) reasons(asking []*Applied) string {
	var out []string
	for _, a := range asking {
		if why := b.confirms(a); !slices.Contains(out, why) {
			out = append(out, why)
		}
	}
	return strings.Join(out, ", and ")
}

// confirm finds changes of objects of chosen kinds, without an approval for which the whole plan waits, and says what
// waits.
func (b *builder) confirm(p *Plan) {
	app := &b.desired.Application
	var kinds []string
	var changes []object.Ref
	if b.desired.Complete && len(app.Approval.Kinds) > 0 {
		for i := range p.Changes {
			c := &p.Changes[i]
			if c.Action == ActionNone || c.Action == ActionDelete {
				continue
			}
			if kind := app.chosen(c.Ref); kind != "" {
				changes = append(changes, c.Ref)
				if !slices.Contains(kinds, kind) {
					kinds = append(kinds, kind)
				}
			}
		}
	}
	if p.Blocked == nil && len(changes) == 0 {
		return
	}
	content := Wanted(b.desired, b.opt.DigestKey)
	tokens := make([]string, len(changes))
	waits := false
	for i, r := range changes {
		tokens[i] = digestOf("change", content, r.Group, r.Kind, r.Namespace, r.Name)
		waits = waits || !slices.Contains(app.Granted, tokens[i])
	}
	if p.Blocked == nil && !waits {
		return
	}
	set := p.Blocked
	if set == nil {
		set = &Blocked{Of: len(b.inventory)}
		p.Blocked = set
	}
	set.Deletions = set.Digest
	if waits {
		why := "the settings ask for it for " + strings.Join(kinds, " and ")
		if set.Why != "" && set.Why != why {
			why += ", and " + set.Why
		}
		set.Changes, set.Tokens, set.Why = changes, tokens, why
		set.Digest = digestOf(append([]string{"all", set.Deletions}, tokens...)...)
	}
	names := []string{"content", content}
	for _, r := range set.Objects {
		names = append(names, "delete", r.Group, r.Kind, r.Namespace, r.Name)
	}
	for _, r := range set.Changes {
		names = append(names, "change", r.Group, r.Kind, r.Namespace, r.Name)
	}
	set.Content = digestOf(names...)
	hint := fmt.Sprintf("if that is meant: `fairlead approve %s %s`", app.Name, set.Digest)
	if !set.Whole() {
		hint += fmt.Sprintf(", or the annotation %s: %s on what declares the application", ApproveAnnotation, set.Digest)
	}
	p.Diags = append(p.Diags, diag.Diagnostic{Severity: diag.Warning, Code: BlockedCode, Message: set.What(), Hint: hint})
}

// BlockedCode is the code of the diagnostic that says what waits for an approval, and how it is given.
const BlockedCode = "blocked"

// Wanted identifies what an application is to become: its name, and everything of its objects. Values of Secrets cannot
// be guessed from it without digestKey.
func Wanted(d Desired, digestKey []byte) string {
	parts := []string{d.Application.Name}
	for i := range d.Objects {
		o := &d.Objects[i]
		parts = append(parts, o.Group, o.Kind, o.Namespace, o.Name, appliedHash(*o, digestKey))
	}
	return digestOf(parts...)
}

// digestOf identifies a list of texts. It has 16 bytes: with fewer, somebody could find two changes with the same one, and
// have the harmless one approved.
func digestOf(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// ApproveAnnotation is the annotation on what declares an application that approves deletions, by their digests.
const ApproveAnnotation = "fairlead.dev/approve-prune"

// deletions is the set of gone objects with their pods, and of the pods of owners that are nowhere.
func (b *builder) deletions(gone []*Applied, orphans []object.Ref) Blocked {
	h := sha256.New()
	put := func(parts ...string) {
		for _, p := range parts {
			fmt.Fprintf(h, "%d:%s", len(p), p)
		}
	}
	put(b.desired.Application.Name)
	var s Blocked
	pods := func(owner object.Ref, each func(*pod)) {
		for _, p := range b.byOwner[owner] {
			if !p.Terminating {
				s.Pods = append(s.Pods, p.PodKey)
				each(p)
			}
		}
	}
	for _, a := range gone {
		put("object", a.Group, a.Kind, a.Namespace, a.Name, a.Created.UTC().Format(time.RFC3339Nano))
		s.Objects = append(s.Objects, a.Ref)
		pods(a.Ref, func(*pod) {})
	}
	for _, owner := range orphans {
		pods(owner, func(p *pod) { put("pod", p.Namespace, p.Name, p.UID) })
	}
	slices.SortFunc(s.Pods, func(x, y PodKey) int { return object.Compare(x.Ref(), y.Ref()) })
	s.Digest = hex.EncodeToString(h.Sum(nil)[:8])
	recent := map[object.Ref]bool{}
	for i := range b.inventory {
		if a := &b.inventory[i]; !b.since.IsZero() && a.Created.After(b.since) && b.desiredHas(a.Ref) {
			recent[a.Ref] = true
		} else {
			s.Of++
		}
	}
	for owner, list := range b.byOwner {
		if recent[owner] {
			continue
		}
		for _, p := range list {
			if !p.Terminating {
				s.Of++
			}
		}
	}
	return s
}

// overLimit reports whether a set is more than one plan may delete. What only gets another name does not count: a
// ConfigMap or Secret whose name ends in the digest of its content goes whenever that changes.
func (b *builder) overLimit(s Blocked, gone []*Applied) (bool, string) {
	limit := b.desired.Application.Limit
	if limit == (PruneLimit{}) {
		return false, ""
	}
	count := s.Count()
	var generated map[object.Ref]bool
	for _, a := range gone {
		base, ok := generatedName(a.Ref)
		if !ok {
			continue
		}
		if generated == nil {
			generated = map[object.Ref]bool{}
			for i := range b.desired.Objects {
				if base, ok := generatedName(b.desired.Objects[i].Ref); ok {
					generated[base] = true
				}
			}
		}
		if generated[base] {
			count--
		}
	}
	if s.Of == 0 || count <= limit.MaxCount || count*100 <= limit.MaxShare*s.Of {
		return false, ""
	}
	return true, fmt.Sprintf("they are %d %% of what the application has, and more than %d %% and more than %d at once can be an accident",
		count*100/s.Of, limit.MaxShare, limit.MaxCount)
}

// suffixDigits is the length of the digest that kustomize's generators put behind a name, and suffixAlphabet what it is made of.
const (
	suffixDigits   = 10
	suffixAlphabet = "bcdfghkmt2456789"
)

// generatedName returns the name of a generated ConfigMap or Secret without the digest of its content.
func generatedName(r object.Ref) (object.Ref, bool) {
	at := len(r.Name) - suffixDigits - 1
	if r.Group != "" || (r.Kind != "ConfigMap" && r.Kind != "Secret") || at < 1 || r.Name[at] != '-' ||
		strings.Trim(r.Name[at+1:], suffixAlphabet) != "" {
		return r, false
	}
	r.Name = r.Name[:at]
	return r, true
}

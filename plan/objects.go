package plan

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// verdict is what the comparison of an object with the inventory says to the planner of its pods.
type verdict int

const (
	// same: the object was applied as it is now, or it differs only in what is ignored.
	same verdict = iota
	// changed: it is new or was changed.
	changed
	// forced: a field that cannot be changed was changed, and its pods are to be replaced.
	forced
	// left: it is not touched, for a reason that is in the diagnostics.
	left
)

// compareObjects finds what happens to every desired object.
func (b *builder) compareObjects(claims map[object.Ref]string) {
	next := 0
	for i := range b.desired.Objects {
		o := &b.desired.Objects[i]
		for next < len(b.inventory) && object.Compare(b.inventory[next].Ref, o.Ref) < 0 {
			next++
		}
		var have *Applied
		if next < len(b.inventory) && b.inventory[next].Ref == o.Ref {
			have = &b.inventory[next]
		}
		if owner := claims[o.Ref]; owner != "" && owner != b.desired.Application.Name {
			b.verdicts[o.Ref] = left
			b.diag(diag.Diagnostic{
				Severity: diag.Error, Code: "owned-elsewhere", Ref: o.Ref, Origin: o.Origin,
				Message: fmt.Sprintf("application %s owns it already, so application %s leaves it alone", owner, b.desired.Application.Name),
				Hint:    "remove it from one of the two",
			})
			continue
		}
		if order := b.orderOf(o.Ref); order.Skip || order.hook(o.Ref) {
			continue // what happens to a hook follows from the sync
		}
		v := b.compareObject(o, have)
		v, held := b.suspend(o, v)
		if v != same {
			b.verdicts[o.Ref] = v
		}
		if a, arrives := b.arrivals[o.Ref]; arrives && v != left {
			b.arrive(o, a.From)
		} else if v == same || held {
			b.plan.Unchanged++
		}
	}
}

func (b *builder) compareObject(o *object.Object, have *Applied) verdict {
	if have == nil {
		c := b.change(o.Ref)
		c.Action, c.Origin, c.Cause = ActionCreate, o.Origin, "new in the source"
		if len(b.byOwner[o.Ref]) > 0 {
			c.Action, c.Cause = ActionUpdate, "taken over: it is not in the inventory, but its pods run"
		}
		if notRun(o) {
			c.Cause += "; only recorded, because its kind is not run by this version of fairlead"
		}
		return changed
	}
	if have.Hash == appliedHash(*o, b.opt.DigestKey) {
		return same
	}
	d := differ{DigestKey: b.opt.DigestKey, Ignore: b.desired.Application.Ignore, Replaces: func(path string) bool {
		return replaces(o.Ref, path)
	}}
	fields, unchanged := d.diff(*have, *o)
	if len(fields) == 0 {
		return same
	}
	var fixed []string
	if locked := lockedBy(have); locked != "" {
		fixed = append(fixed, locked)
	}
	for _, f := range fields {
		if immutable(o.Ref, f.Path) {
			fixed = append(fixed, f.Path)
		}
	}
	if o.Kind == "Service" && o.Group == "" {
		fixed = append(fixed, b.fixedOfService(have, o, fields)...)
	}
	if what, hint := b.fixedOfStorage(o, fields); what != "" {
		b.diag(diag.Diagnostic{
			Severity: diag.Error, Code: "immutable-field", Ref: o.Ref, Origin: o.Origin, Field: what,
			Message: what + " cannot be changed while the claim is bound; what was applied before stays, with all that it holds", Hint: hint,
		})
		return left
	}
	v, action, cause := changed, ActionUpdate, "changed in the source"
	if len(fixed) > 0 {
		what := strings.Join(fixed[:min(3, len(fixed))], ", ")
		if !b.force(o) {
			b.diag(diag.Diagnostic{
				Severity: diag.Error, Code: "immutable-field", Ref: o.Ref, Origin: o.Origin, Field: fixed[0],
				Message: what + " cannot be changed; what was applied before stays",
				Hint:    "give the object another name, or let it be replaced with the annotation " + forceAnnotation + ": enabled",
			})
			return left
		}
		v, action, cause = forced, ActionStopFirst, what+" cannot be changed, and replacing it is allowed"
	}
	c := b.change(o.Ref)
	c.Action, c.Origin, c.Cause, c.Fields, c.Unchanged = action, o.Origin, cause, fields, unchanged
	return v
}

// notRun reports whether nothing comes of an object: its kind is neither run nor declares an application.
func notRun(o *object.Object) bool {
	_, untyped := o.Value.(*unstructured.Unstructured)
	return untyped && !strings.HasSuffix(o.Group, ".fluxcd.io") && o.Group != "argoproj.io"
}

// Annotations by which an object speaks for itself, as Flux and Argo CD read them.
const (
	forceAnnotation = "kustomize.toolkit.fluxcd.io/force"
	pruneAnnotation = "kustomize.toolkit.fluxcd.io/prune"
	argoOptions     = "argocd.argoproj.io/sync-options"
)

// annotationsOf returns the annotations in a manifest.
func annotationsOf(manifest []byte) map[string]any {
	v, _ := parse(manifest).(map[string]any)
	meta, _ := v["metadata"].(map[string]any)
	a, _ := meta["annotations"].(map[string]any)
	return a
}

func argoOption(a map[string]any, option string) bool {
	list, _ := a[argoOptions].(string)
	for o := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.TrimSpace(o), option) {
			return true
		}
	}
	return false
}

// force reports whether the object may be replaced when a field that cannot be changed was changed.
func (b *builder) force(o *object.Object) bool {
	if _, arrives := b.arrivals[o.Ref]; arrives {
		return true // the application that had it gives it up, so what it cannot become it is made anew as
	}
	if b.desired.Application.Force {
		return true
	}
	a := annotationsOf(o.Written)
	value, _ := a[forceAnnotation].(string)
	return strings.EqualFold(value, "enabled") || argoOption(a, "Replace=true") || argoOption(a, "Force=true")
}

// keptBy names the annotation that keeps an object from being pruned; empty when none does.
func keptBy(a *Applied) string {
	// A whole application can be gone, time after time until its pods are: most manifests are not worth parsing.
	if !bytes.Contains(a.Written, []byte(pruneAnnotation)) && !bytes.Contains(a.Written, []byte(argoOptions)) && !bytes.Contains(a.Written, []byte(pruneOwn)) {
		return ""
	}
	notes := annotationsOf(a.Written)
	if value, _ := notes[pruneOwn].(string); strings.EqualFold(value, "disabled") {
		return pruneOwn
	}
	if value, _ := notes[pruneAnnotation].(string); strings.EqualFold(value, "disabled") {
		return pruneAnnotation
	}
	if argoOption(notes, "Prune=false") {
		return argoOptions
	}
	return ""
}

// lockedBy returns "immutable" for a ConfigMap or Secret that was applied as such.
func lockedBy(a *Applied) string {
	if a.Group != "" || (a.Kind != "ConfigMap" && a.Kind != "Secret") {
		return ""
	}
	v, _ := parse(a.Written).(map[string]any)
	if v["immutable"] == true {
		return "an immutable " + a.Kind
	}
	return ""
}

func below(path string, fields ...string) bool {
	return slices.ContainsFunc(fields, func(f string) bool {
		return path == f || strings.HasPrefix(path, f) && (path[len(f)] == '.' || path[len(f)] == '[')
	})
}

// immutable reports whether a field of an object cannot be changed, as an API server has it. A bare Pod's
// fields are its planner's matter, since it knows what runs.
func immutable(r object.Ref, path string) bool {
	switch r.Group + "/" + r.Kind {
	case "apps/Deployment", "apps/ReplicaSet", "apps/DaemonSet":
		return below(path, "spec.selector")
	case "apps/StatefulSet":
		return below(path, "spec.selector", "spec.serviceName", "spec.podManagementPolicy") ||
			below(path, "spec.volumeClaimTemplates") && !strings.HasSuffix(path, ".resources.requests.storage")
	case "batch/Job":
		return below(path, "spec.selector", "spec.template", "spec.completionMode", "spec.completions", "spec.manualSelector",
			"spec.podFailurePolicy", "spec.successPolicy", "spec.backoffLimitPerIndex", "spec.managedBy", "spec.podReplacementPolicy")
	case "/Secret":
		return below(path, "type")
	}
	return false
}

// replaces reports whether a change of the field replaces pods, or the object.
func replaces(r object.Ref, path string) bool {
	if immutable(r, path) {
		return true
	}
	switch r.Group + "/" + r.Kind {
	case "apps/Deployment", "apps/StatefulSet", "apps/DaemonSet":
		return below(path, "spec.template") && !inPlaceField(path)
	case "/Pod":
		return below(path, "spec") && !inPlaceField(path)
	}
	return false
}

// inPlaceField reports whether a field is changed in a running pod. The path has no names of elements.
func inPlaceField(path string) bool {
	i := strings.LastIndex(path, "ontainers.resources")
	if i < 0 {
		return false
	}
	switch strings.TrimPrefix(path[i:], "ontainers.resources") {
	case "", ".limits", ".requests", ".limits.cpu", ".limits.memory", ".requests.cpu", ".requests.memory":
		return true
	}
	return false
}

// pruneObjects deletes what of the current stage was applied and is no longer desired, where that is allowed.
func (b *builder) pruneObjects() {
	gone := slices.DeleteFunc(b.gone(b.inventory), func(a *Applied) bool { return !b.in(a.Ref) })
	if len(gone) == 0 || !b.desired.Complete { // what was not rendered is not gone
		return
	}
	if reason, hint := b.keepsAll(); reason != "" {
		b.kept(diag.Diagnostic{Message: fmt.Sprintf("%s kept: %s", listed(gone), reason), Hint: hint})
		return
	}
	for _, a := range gone {
		if by := keptBy(a); by != "" {
			b.diag(diag.Diagnostic{
				Severity: diag.Info, Code: "kept", Ref: a.Ref,
				Message: "it is gone from the source and kept, because its annotation " + by + " says so",
			})
			continue
		}
		if b.held != nil && b.held(a.Ref) {
			continue // it waits for an approval, and block said so
		}
		if b.isHeld(a.Ref) {
			continue
		}
		c := b.change(a.Ref)
		c.Action, c.Cause = ActionDelete, "gone from the source"
		why := a.Ref.String() + " is gone from the source"
		if removed := b.desired.Application.Removed; removed != "" {
			c.Cause, why = removed, removed
		}
		b.under(true, func() {
			b.removeAll(a.Ref, why)
			b.dropClaimsOf(a)
		})
	}
}

// kept says that something is not deleted that is left over. Where that only waits for others, it is no warning.
func (b *builder) kept(d diag.Diagnostic) {
	d.Severity, d.Code = diag.Warning, "kept"
	if b.awaits() {
		d.Severity, d.Code, b.plan.Waits = diag.Info, "deletion-waits", b.unsettled
	}
	b.diag(d)
}

// gone returns what of the inventory is no longer desired, and does not move to another application.
func (b *builder) gone(applied []Applied) []*Applied {
	desired := b.desired.Objects
	var gone []*Applied
	next := 0
	for i := range applied {
		for next < len(desired) && object.Compare(desired[next].Ref, applied[i].Ref) < 0 {
			next++
		}
		if next == len(desired) || desired[next].Ref != applied[i].Ref {
			if _, leaves := b.departures[applied[i].Ref]; !leaves {
				gone = append(gone, &applied[i])
			}
		}
	}
	return gone
}

// awaits reports whether all that keeps what is gone from being deleted is that others may want it.
func (b *builder) awaits() bool {
	app := &b.desired.Application
	return b.unsettled != "" && app.Prune && (len(b.desired.Objects) > 0 || app.AllowEmpty) && !b.anyStale
}

// keepsAll says why nothing may be pruned, and what to do; empty when it may.
func (b *builder) keepsAll() (reason, hint string) {
	app := &b.desired.Application
	switch {
	case !app.Prune:
		return "the application does not prune", "allow it to prune, or delete them by hand"
	case len(b.desired.Objects) == 0 && !app.AllowEmpty:
		return "the source has no object at all, which can be an accident", "allow the application to be empty, or delete it"
	case b.anyStale:
		return "a node does not answer, so it is not known what runs", "they are deleted when it answers"
	case b.awaits():
		return "another application may want it: " + b.unsettled, "they are deleted when it is known that none does"
	}
	return "", ""
}

func listed(gone []*Applied) string {
	const most = 3
	var names []string
	for _, a := range gone[:min(most, len(gone))] {
		names = append(names, a.Ref.String())
	}
	s := strings.Join(names, ", ")
	if n := len(gone) - most; n > 0 {
		s += fmt.Sprintf(" and %d more", n)
	}
	if len(gone) == 1 {
		return s + " is gone from the source and"
	}
	return s + " are gone from the source and"
}

// removeAll deletes all pods of an owner.
func (b *builder) removeAll(owner object.Ref, cause string) {
	for _, p := range b.byOwner[owner] {
		// Where others go after it, one that stops is waited for.
		if p.gone || p.Terminating && !b.staging.several {
			continue
		}
		if id := b.remove(p, cause); id != 0 {
			b.services.gone[p.Namespace] = append(b.services.gone[p.Namespace], id)
			b.podChange(owner, PodChange{Pod: p.PodKey, Action: ActionDelete, Node: p.node, Cause: cause})
		}
	}
}

// pruneOrphans deletes pods of the application whose owner is neither desired nor in the inventory.
func (b *builder) pruneOrphans() {
	owners := b.orphans()
	reason, hint := b.keepsAll()
	for _, owner := range owners {
		if reason != "" {
			b.kept(diag.Diagnostic{
				Ref: owner, Hint: hint,
				Message: "it is neither in the source nor in the inventory; its pods are kept: " + reason,
			})
			continue
		}
		if b.held != nil && b.held(owner) || b.isHeld(owner) {
			continue
		}
		b.change(owner).Cause = "neither in the source nor in the inventory"
		b.removeAll(owner, owner.String()+" is neither in the source nor in the inventory")
	}
}

// orphans returns owners of pods of the application that are neither desired nor in the inventory.
func (b *builder) orphans() []object.Ref {
	var owners []object.Ref
	for owner, pods := range b.byOwner {
		if b.appliedOf(owner) != nil || b.desiredHas(owner) {
			continue
		}
		if slices.ContainsFunc(pods, func(p *pod) bool { return !p.Terminating }) {
			owners = append(owners, owner)
		}
	}
	slices.SortFunc(owners, object.Compare)
	return owners
}

func (b *builder) desiredHas(r object.Ref) bool {
	_, ok := slices.BinarySearchFunc(b.desired.Objects, r, func(o object.Object, r object.Ref) int { return object.Compare(o.Ref, r) })
	return ok
}

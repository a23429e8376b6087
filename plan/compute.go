package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Compute returns what is to be done so that what was observed becomes what is desired.
//
// From an incomplete Desired nothing is done: the plan then only reports. Pods of other applications,
// and pods on nodes that do not answer, are never in a step.
func Compute(d Desired, o Observed, opt Options) Plan {
	d.Objects = sortedBy(d.Objects, compareObjects)
	d.Workloads = sortedBy(d.Workloads, func(a, b *Workload) int { return object.Compare(a.Ref, b.Ref) })
	d.Services = sortedBy(d.Services, func(a, b *DesiredService) int { return object.Compare(a.Ref, b.Ref) })
	b := newBuilder(d, o, opt)
	b.plan.Status = make([]WorkloadStatus, 0, len(d.Workloads)+len(d.Services))
	b.compareObjects(o.Claims)
	b.suspendGone()
	b.block()
	b.movePods()
	b.placeServices()
	b.placeStorage()
	b.planStages(o.Sync, o.Retry)
	b.showServices()
	b.showMoves()
	b.stale()
	p := b.finish()
	b.confirm(&p)
	if d.Complete {
		p.Leftovers = b.leftovers(sortedBy(o.Applied, compareApplied))
	}
	p.Basis = b.basis(o.Claims)
	return p
}

func compareObjects(a, b *object.Object) int { return object.Compare(a.Ref, b.Ref) }

// planWorkload calls the planner of the workload's family.
func planWorkload(b *builder, w *Workload, pods []*pod) {
	switch {
	case b.isHeld(w.Ref):
		b.suspendedStatus(w, pods)
		return
	case b.verdicts[w.Ref] == left:
		b.leftStatus(w, pods)
		return
	case b.waitForClaims(w, pods):
		return
	}
	switch v := w.Value.(type) {
	case *corev1.Pod:
		planPod(b, w, pods)
	case *appsv1.Deployment:
		planDeployment(b, w, v, pods)
	case *appsv1.ReplicaSet:
		planReplicaSet(b, w, v, pods)
	case *appsv1.StatefulSet:
		planStatefulSet(b, w, v, pods)
	case *appsv1.DaemonSet:
		planDaemonSet(b, w, v, pods)
	case *batchv1.Job:
		planJob(b, w, v, pods)
	}
}

// stale says which nodes do not answer.
func (b *builder) stale() {
	for _, id := range slices.Sorted(maps.Keys(b.nodes)) {
		if b.nodes[id].Stale {
			b.diag(diag.Diagnostic{
				Severity: diag.Warning, Code: "node-not-responding",
				Message: fmt.Sprintf("node %s does not answer: its pods are left as they are, and nothing is started there until it does", id),
			})
		}
	}
	if _, known := b.nodes[b.opt.Node]; !known && len(b.desired.Workloads) > 0 {
		b.diag(diag.Diagnostic{
			Severity: diag.Warning, Code: "node-not-observed",
			Message: fmt.Sprintf("node %q was not observed: nothing is started there", b.opt.Node),
		})
	}
}

// finish orders everything and returns the plan.
func (b *builder) finish() Plan {
	p := b.plan
	if !b.desired.Complete {
		p.Diags = append(p.Diags, diag.Diagnostic{
			Severity: diag.Info, Code: "incomplete",
			Message: "the source could not be fetched or rendered completely: everything stays as it is",
		})
		p.Unchanged, p.Drift, p.Services, p.Sync, p.Moves, p.Suspended = 0, nil, nil, nil, nil, nil
		return p
	}
	p.Steps = b.steps
	refs := make([]object.Ref, 0, len(b.changes))
	for r, c := range b.changes {
		if c.Action != ActionNone || len(c.Pods) > 0 {
			refs = append(refs, r)
		}
	}
	slices.SortFunc(refs, object.Compare)
	for _, r := range refs {
		c := b.changes[r]
		if c.Action == ActionNone && c.Cause == "" {
			c.Cause = "unchanged in the source"
		}
		p.Changes = append(p.Changes, *c)
	}
	slices.SortStableFunc(p.Drift, func(x, y Drift) int {
		return cmp.Or(object.Compare(x.Ref, y.Ref), cmp.Compare(x.Message, y.Message))
	})
	return p
}

// basis identifies what the plan depends on in what was observed, but for the time.
func (b *builder) basis(claims map[object.Ref]string) Fingerprint {
	h := sha256.New()
	buf := make([]byte, 0, 8192)
	put := func(parts ...string) {
		for _, s := range parts {
			buf = append(strconv.AppendInt(buf, int64(len(s)), 10), ':')
			buf = append(buf, s...)
		}
		if len(buf) > 4096 {
			h.Write(buf)
			buf = buf[:0]
		}
	}
	flags := func(bits ...bool) {
		for _, bit := range bits {
			if bit {
				buf = append(buf, '1')
			} else {
				buf = append(buf, '0')
			}
		}
	}
	app, rest := b.desired.Application.Name, b.all
	for _, id := range slices.Sorted(maps.Keys(b.nodes)) {
		node := b.nodes[id]
		put("node", string(id))
		flags(node.Stale)
		for ; len(rest) > 0 && rest[0].node == id; rest = rest[1:] {
			p := &rest[0]
			if !p.ours {
				continue
			}
			if p.Application != app {
				put("of", p.Application)
			}
			put(p.Namespace, p.Name, p.UID, p.Owner.Group, p.Owner.Kind, p.Owner.Name, p.Template, string(p.Phase))
			flags(p.Ready, p.Terminating)
			for i := range p.Containers {
				r := p.Containers[i].Resources
				buf = strconv.AppendInt(buf, r.CPUMillis, 10)
				buf = strconv.AppendInt(append(buf, ','), r.MemoryBytes, 10)
			}
			if len(p.Mounted) > 0 {
				for _, r := range sortedRefs(p.Mounted) {
					put(r.Kind, r.Namespace, r.Name, p.Mounted[r])
				}
			}
		}
	}
	b.servicesBasis(put)
	b.storageBasis(put)
	if s := b.recordedSync; s != nil {
		put("sync", s.ID, s.Failed, strconv.FormatBool(s.active()))
	}
	for i := range b.inventory {
		a := &b.inventory[i]
		put(a.Group, a.Kind, a.Namespace, a.Name, a.Hash)
	}
	for _, r := range sortedRefs(claims) {
		put("claim", r.Group, r.Kind, r.Namespace, r.Name, claims[r])
	}
	for _, r := range sortedRefs(b.arrivals) {
		put("arrival", r.Group, r.Kind, r.Namespace, r.Name, b.arrivals[r].From)
	}
	for _, r := range sortedRefs(b.holding) {
		put("suspended", r.Group, r.Kind, r.Namespace, r.Name)
	}
	for _, r := range sortedRefs(b.departures) {
		put("departure", r.Group, r.Kind, r.Namespace, r.Name, b.departures[r].To)
	}
	if b.unsettled != "" {
		put("unsettled", b.unsettled)
	}
	h.Write(buf)
	return Fingerprint(hex.EncodeToString(h.Sum(nil)[:16]))
}

func sortedRefs[V any](m map[object.Ref]V) []object.Ref {
	return slices.SortedFunc(maps.Keys(m), object.Compare)
}

// Package simulate takes the steps of plans in a world of values: what would be observed once a plan has been
// carried out. Pods that are created are ready at once, and nothing goes wrong.
package simulate

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// longAgo is since when simulated pods are ready, so that they are available whatever is asked of them.
const longAgo = 24 * time.Hour

// Plan returns what would be observed after all steps of p had succeeded, and its objects were
// recorded. Created pods are ready. Terminating pods are gone.
func Plan(d plan.Desired, o plan.Observed, p plan.Plan, key []byte) plan.Observed {
	w := NewWorld(o)
	for _, s := range p.Steps {
		w.Do(s)
	}
	out := w.Observed()
	for i := range out.Nodes {
		out.Nodes[i].Pods = slices.DeleteFunc(out.Nodes[i].Pods, func(p plan.ObservedPod) bool { return p.Terminating })
	}
	out.Applied, out.Arrivals = Record(d, o.Applied, p, key), nil
	if p.Sync != nil {
		out.Sync = p.Sync
	}
	return out
}

// Record returns the inventory after p.
func Record(d plan.Desired, applied []plan.Applied, p plan.Plan, key []byte) []plan.Applied {
	byRef := map[object.Ref]plan.Applied{}
	for _, a := range applied {
		byRef[a.Ref] = a
	}
	objects := map[object.Ref]object.Object{}
	for _, o := range d.Objects {
		objects[o.Ref] = o
	}
	for _, c := range p.Changes {
		switch c.Action {
		case plan.ActionDelete:
			delete(byRef, c.Ref)
		case plan.ActionNone:
		case plan.ActionCreate, plan.ActionUpdate, plan.ActionStartFirst, plan.ActionStopFirst, plan.ActionMove:
			if o, ok := objects[c.Ref]; ok {
				a := plan.RedactApplied(o, key)
				a.Run = c.Hook
				byRef[c.Ref] = a
			}
		}
	}
	for _, f := range p.Finished {
		if a, ok := byRef[f.Ref]; ok {
			a.Finished, a.Succeeded, a.FinishReason, a.FinishMessage = f.At, f.Succeeded, f.Reason, f.Message
			byRef[f.Ref] = a
		}
	}
	out := make([]plan.Applied, 0, len(byRef))
	for _, a := range byRef {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b plan.Applied) int { return object.Compare(a.Ref, b.Ref) })
	return out
}

// World is a simulated set of nodes that steps are taken on.
type World struct {
	observed plan.Observed
	uids     int
}

// NewWorld returns a world that looks like o, which is not modified.
func NewWorld(o plan.Observed) *World {
	o.Nodes = slices.Clone(o.Nodes)
	for i := range o.Nodes {
		o.Nodes[i].Pods = slices.Clone(o.Nodes[i].Pods)
		o.Nodes[i].Services = slices.Clone(o.Nodes[i].Services)
		o.Nodes[i].Endpoints = slices.Clone(o.Nodes[i].Endpoints)
		o.Nodes[i].Storage = slices.Clone(o.Nodes[i].Storage)
	}
	return &World{observed: o}
}

// Observed returns the state of the world now.
func (w *World) Observed() plan.Observed { return NewWorld(w.observed).observed }

// Do takes a step. A created pod becomes ready at once; use Create to have it otherwise.
func (w *World) Do(s plan.Step) {
	switch args := s.Args.(type) {
	case plan.CreatePod:
		w.Create(s.Node, args.Pod, true)
	case plan.WaitReady:
		w.Ready(args.Pod)
	case plan.UpdatePod:
		w.update(args.Pod)
	case plan.DeletePod:
		for i := range w.observed.Nodes {
			n := &w.observed.Nodes[i]
			n.Pods = slices.DeleteFunc(n.Pods, func(p plan.ObservedPod) bool { return p.PodKey == args.Pod && p.UID == args.UID })
		}
	case plan.MovePod:
		w.each(args.Pod, func(p *plan.ObservedPod) {
			if p.UID == args.UID {
				p.Application = args.To
			}
		})
	case plan.PullImage, plan.WaitHealthy:
	case plan.SetService:
		w.on(s.Node, func(n *plan.NodeState) { n.Services = setByRef(n.Services, args.Service, serviceRef) })
	case plan.DeleteService:
		w.on(s.Node, func(n *plan.NodeState) {
			n.Services = slices.DeleteFunc(n.Services, func(x *plan.Service) bool { return x.Ref == args.Service && x.Application == args.Application })
		})
	case plan.SetStorage:
		w.on(s.Node, func(n *plan.NodeState) { n.Storage = plan.WithStorage(n.Storage, args.Storage) })
	case plan.DeleteStorage:
		w.on(s.Node, func(n *plan.NodeState) { n.Storage = plan.WithoutStorage(n.Storage, args) })
	case plan.SetEndpoints:
		w.on(s.Node, func(n *plan.NodeState) { n.Endpoints = setByRef(n.Endpoints, args.Endpoints, endpointsRef) })
	case plan.DeleteEndpoints:
		w.on(s.Node, func(n *plan.NodeState) {
			n.Endpoints = slices.DeleteFunc(n.Endpoints, func(x *plan.EndpointSlice) bool { return x.Ref == args.Endpoints && x.Application == args.Application })
		})
	}
}

func (w *World) on(node plan.NodeID, do func(*plan.NodeState)) {
	for i := range w.observed.Nodes {
		if w.observed.Nodes[i].Node == node {
			do(&w.observed.Nodes[i])
		}
	}
}

func serviceRef(s *plan.Service) object.Ref         { return s.Ref }
func endpointsRef(e *plan.EndpointSlice) object.Ref { return e.Ref }

// setByRef returns a sorted list with x in the place of what has its name.
func setByRef[T any](list []T, x T, ref func(T) object.Ref) []T {
	list = slices.DeleteFunc(list, func(y T) bool { return ref(y) == ref(x) })
	list = append(list, x)
	slices.SortFunc(list, func(a, b T) int { return object.Compare(ref(a), ref(b)) })
	return list
}

// Ready makes a pod ready.
func (w *World) Ready(key plan.PodKey) {
	w.each(key, func(p *plan.ObservedPod) {
		p.Ready, p.ReadySince, p.Phase = true, w.observed.Now.Add(-longAgo), corev1.PodRunning
		p.Reason, p.Message = "", ""
	})
}

func (w *World) each(key plan.PodKey, do func(*plan.ObservedPod)) {
	for i := range w.observed.Nodes {
		for j := range w.observed.Nodes[i].Pods {
			if p := &w.observed.Nodes[i].Pods[j]; p.PodKey == key {
				do(p)
			}
		}
	}
}

// Create makes a pod on a node.
func (w *World) Create(node plan.NodeID, p *plan.Pod, ready bool) {
	w.uids++
	i := slices.IndexFunc(w.observed.Nodes, func(n plan.NodeState) bool { return n.Node == node })
	if i < 0 {
		return
	}
	o := Observe(p, fmt.Sprintf("sim-%d", w.uids))
	o.Created = w.observed.Now
	if ready {
		o.Ready, o.ReadySince, o.Phase = true, w.observed.Now.Add(-longAgo), corev1.PodRunning
	}
	n := &w.observed.Nodes[i]
	n.Pods = append(n.Pods, o)
	slices.SortFunc(n.Pods, func(a, b plan.ObservedPod) int { return object.Compare(a.Ref(), b.Ref()) })
}

func (w *World) update(p *plan.Pod) {
	w.each(p.PodKey, func(have *plan.ObservedPod) {
		now := Observe(p, have.UID)
		have.Labels, have.Annotations, have.Spec, have.Mounted = now.Labels, now.Annotations, now.Spec, now.Mounted
		have.Containers = slices.Clone(have.Containers)
		for i := range have.Containers {
			for _, c := range now.Containers {
				if c.Name == have.Containers[i].Name {
					have.Containers[i].Resources = c.Resources
				}
			}
		}
	})
}

// Observe returns how a node would report a pod that it has just started and that is not ready yet.
func Observe(p *plan.Pod, uid string) plan.ObservedPod {
	o := plan.ObservedPod{
		PodKey: p.PodKey, UID: uid, Application: p.Application, Owner: p.Owner, Template: p.Template, Index: p.Index,
		Labels: p.Labels, Annotations: p.Annotations, Spec: p.Spec, Phase: corev1.PodRunning,
	}
	for i := range p.Spec.Containers {
		c := &p.Spec.Containers[i]
		o.Containers = append(o.Containers, plan.ObservedContainer{
			Name: c.Name, Image: c.Image, State: plan.Running, Resources: plan.ResourcesOf(c),
		})
	}
	mounted := map[object.Ref]string{}
	mount := func(kind, name string) {
		for _, c := range p.Configs {
			if c.Ref.Kind == kind && c.Ref.Name == name {
				mounted[c.Ref] = c.Digest
			}
		}
	}
	for _, v := range p.Spec.Volumes {
		switch {
		case v.ConfigMap != nil:
			mount("ConfigMap", v.ConfigMap.Name)
		case v.Secret != nil:
			mount("Secret", v.Secret.SecretName)
		}
	}
	if len(mounted) > 0 {
		o.Mounted = mounted
	}
	return o
}

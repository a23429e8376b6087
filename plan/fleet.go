package plan

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// replaceDelay is how long a pod that ended soon after its creation is left before it is replaced, so
// that a pod that can never run is not made anew without pause. Pods that lived longer than longLived are
// replaced at once.
const (
	replaceDelay = 10 * time.Second
	longLived    = time.Minute
)

// fleet are the observed pods of a workload that keeps a number of equal pods running.
type fleet struct {
	fresh []*pod // of the desired template
	old   []*pod // of others
	// ended are pods to be removed because all their containers ended for good.
	ended []*pod
	// held of fresh are ended pods that are not replaced yet.
	held []*pod
}

// sortFleet sorts the workload's pods; terminating ones are gone already.
func (b *builder) sortFleet(w *Workload, pods []*pod) fleet {
	var f fleet
	var same map[string]bool // templates that mean the same as the desired one
	f.fresh = make([]*pod, 0, len(pods))
	for _, p := range pods {
		if p.Terminating {
			continue
		}
		fresh := p.Template == w.Pod.Template
		if !fresh {
			known := false
			if fresh, known = same[p.Template]; !known {
				if same == nil {
					same = map[string]bool{}
				}
				fresh = sameTemplate(w, p)
				same[p.Template] = fresh
			}
		}
		if p.ended() && !p.stale {
			due := b.replaceAt(p)
			if !fresh || !due.After(b.now) {
				f.ended = append(f.ended, p)
				continue
			}
			b.wakeAt(due)
			f.held = append(f.held, p)
		}
		if fresh {
			f.fresh = append(f.fresh, p)
		} else {
			f.old = append(f.old, p)
		}
	}
	return f
}

func (b *builder) replaceAt(p *pod) time.Time {
	if p.Finished.IsZero() || p.Finished.Sub(p.Created) > longLived {
		return b.now
	}
	return p.Finished.Add(replaceDelay)
}

// sameTemplate reports whether a pod of another Template is what the workload would make today: what was
// written differs, and what it means does not.
func sameTemplate(w *Workload, p *pod) bool {
	if p.Spec == nil || w.Pod.Spec == nil {
		return false
	}
	return equality.Semantic.DeepEqual(withoutHash(w.Pod.Labels), withoutHash(p.Labels)) &&
		equality.Semantic.DeepEqual(w.Pod.Annotations, p.Annotations) &&
		equality.Semantic.DeepEqual(identity(w.Pod.Spec, false), identity(p.Spec, false))
}

func withoutHash(labels map[string]string) map[string]string {
	out := make(map[string]string, len(labels))
	for k, v := range labels {
		if k != "pod-template-hash" {
			out[k] = v
		}
	}
	return out
}

// identity returns a copy of a pod spec without what is changed in place, and without images when told so.
func identity(spec *corev1.PodSpec, images bool) *corev1.PodSpec {
	s := spec.DeepCopy()
	for _, list := range [...][]corev1.Container{s.InitContainers, s.Containers} {
		for i := range list {
			c := &list[i]
			if len(c.ResizePolicy) == 0 || !slices.ContainsFunc(c.ResizePolicy, func(p corev1.ContainerResizePolicy) bool {
				return p.RestartPolicy == corev1.RestartContainer
			}) {
				for _, m := range [...]corev1.ResourceList{c.Resources.Limits, c.Resources.Requests} {
					delete(m, corev1.ResourceCPU)
					delete(m, corev1.ResourceMemory)
				}
				if len(c.Resources.Limits) == 0 {
					c.Resources.Limits = nil
				}
				if len(c.Resources.Requests) == 0 {
					c.Resources.Requests = nil
				}
			}
			if images {
				c.Image = ""
			}
		}
	}
	return s
}

// removeEnded deletes the pods that ended for good. Their replacements are created as missing pods are.
func (b *builder) removeEnded(f *fleet) {
	for _, p := range f.ended {
		b.remove(p, endedCause(p))
	}
}

// showEnded shows the pods that removeEnded deleted as such.
func (b *builder) showEnded(w *Workload, f *fleet) {
	for _, p := range f.ended {
		if p.gone {
			b.podChange(w.Ref, PodChange{Pod: p.PodKey, Action: ActionDelete, Node: p.node, Cause: endedCause(p)})
		}
	}
}

func endedCause(p *pod) string {
	s := "the pod " + strings.ToLower(string(p.Phase))
	if p.Reason != "" {
		s += ": " + p.Reason
	}
	return s
}

// victims orders pods by how little is lost with each, as Kubernetes does: those that are not available
// first, then the cheapest by annotation, then those that became ready last, restarted most and are youngest.
func victims(pods []*pod, now time.Time, minReady time.Duration) []*pod {
	out := slices.Clone(pods)
	rank := func(p *pod) int {
		ok, _ := p.available(now, minReady)
		switch {
		case ok:
			return 3
		case p.Ready && p.active():
			return 2
		case p.Phase == corev1.PodRunning:
			return 1
		default:
			return 0
		}
	}
	slices.SortStableFunc(out, func(x, y *pod) int {
		return cmp.Or(
			cmp.Compare(rank(x), rank(y)),
			cmp.Compare(deletionCost(x), deletionCost(y)),
			y.ReadySince.Compare(x.ReadySince),
			cmp.Compare(restarts(y), restarts(x)),
			y.Created.Compare(x.Created),
			comparePods(x.ObservedPod, y.ObservedPod),
		)
	})
	return out
}

func deletionCost(p *pod) int {
	n, err := strconv.Atoi(p.Annotations["controller.kubernetes.io/pod-deletion-cost"])
	if err != nil || n < math.MinInt32 || n > math.MaxInt32 {
		return 0
	}
	return n
}

func restarts(p *pod) int {
	n := 0
	for i := range p.Containers {
		n += p.Containers[i].Restarts
	}
	return n
}

// templateCause says in words what differs between a pod that runs and what is wanted.
func templateCause(old *pod, w *Workload) string {
	if old == nil || old.Spec == nil {
		return "the pod template changed"
	}
	var images []string
	for _, list := range [...][2][]corev1.Container{
		{old.Spec.InitContainers, w.Pod.Spec.InitContainers}, {old.Spec.Containers, w.Pod.Spec.Containers},
	} {
		for i := range list[1] {
			c := &list[1][i]
			j := slices.IndexFunc(list[0], func(o corev1.Container) bool { return o.Name == c.Name })
			if j >= 0 && list[0][j].Image != c.Image {
				images = append(images, fmt.Sprintf("image of container %s: %s → %s", c.Name, list[0][j].Image, c.Image))
			}
		}
	}
	if len(images) > 0 {
		return strings.Join(images[:min(3, len(images))], ", ")
	}
	return "the pod template changed"
}

package plan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/render/object"
)

// ResourcesOf returns the limits that the engine is to enforce for a container. CPU that is only limited
// is requested too, as in Kubernetes, and the kernel takes no limit below 10 millicores.
func ResourcesOf(c *corev1.Container) Resources {
	var r Resources
	if q, ok := c.Resources.Limits[corev1.ResourceCPU]; ok && !q.IsZero() {
		r.CPUMillis = max(10, q.MilliValue())
	}
	if q, ok := c.Resources.Limits[corev1.ResourceMemory]; ok {
		r.MemoryBytes = q.Value()
	}
	request, ok := c.Resources.Requests[corev1.ResourceCPU]
	if !ok {
		request = c.Resources.Limits[corev1.ResourceCPU]
	}
	const most = 262144 // beyond it in any case, and the product below cannot overflow
	r.CPUShares = min(max(min(request.MilliValue(), most)*1024/1000, 2), most)
	return r
}

// inPlace brings a running pod to want without a restart: limits, labels, annotations and mounted
// configuration. A want that is w.Pod stands for a pod of op's name. It returns whether there was a difference.
func (b *builder) inPlace(w *Workload, want *Pod, op *pod) bool {
	if op.Terminating || op.ended() || op.stale || op.gone {
		return false
	}
	changes, drifted := b.differences(w, want, op)
	if len(changes) == 0 {
		return false
	}
	if want == w.Pod {
		want = w.pod(op.PodKey)
	}
	cause := strings.Join(changes, ", ") + " changed"
	healed := "set back"
	if b.update(op, want, changes, cause) == 0 {
		return false
	}
	b.podChange(w.Ref, PodChange{Pod: op.PodKey, Action: ActionUpdate, Node: op.node, Cause: cause})
	for _, d := range drifted {
		d.Healed = healed
		b.drifted(d)
	}
	return true
}

// differences names what differs in place, and which of it was changed by somebody else.
func (b *builder) differences(w *Workload, want *Pod, op *pod) (changes []string, drifted []Drift) {
	fresh := op.Template == want.Template
	unchanged := b.verdicts[w.Ref] == same || b.isHeld(w.Ref) && b.holding[w.Ref].Held == ""
	for l, list := range [...][]corev1.Container{want.Spec.InitContainers, want.Spec.Containers} {
		for i := range list {
			c := &list[i]
			have, from, ok := op.resources(c.Name)
			if !ok {
				continue
			}
			need := ResourcesOf(c)
			if have.CPUShares == 0 {
				need.CPUShares = 0
			}
			if have == need || b.ignoresResources(w.Ref, l == 0, i) {
				continue
			}
			changes = append(changes, "resources of container "+c.Name)
			if unchanged && from == engine {
				d := Drift{Ref: op.Ref(), Message: fmt.Sprintf("%s of container %s, not %s", have, c.Name, need), Target: w.Ref, Pointer: resourcesPointer(w.Ref, l == 0, i)}
				if by := op.disturbed(c.Name, "update"); by != nil {
					d.By, d.Action = by.By, by.Action
				}
				drifted = append(drifted, d)
			}
		}
	}
	if fresh && !maps.Equal(want.Labels, op.Labels) {
		changes = append(changes, "labels")
	}
	if fresh && !maps.Equal(want.Annotations, op.Annotations) {
		changes = append(changes, "annotations")
	}
	for i := range want.Configs {
		c := &want.Configs[i]
		digest, mounted := op.Mounted[c.Ref]
		switch {
		case b.isHeld(c.Ref): // what is mounted stays as it is, too
		case mounted && digest != c.Digest:
			changes = append(changes, "mounted "+c.Ref.String())
		case !mounted && b.verdicts[c.Ref] == changed && op.waitsForConfig():
			changes = append(changes, c.Ref.String())
		}
	}
	return changes, drifted
}

// String returns the limits in words.
func (r Resources) String() string {
	limit := func(n int64, unit string) string {
		if n == 0 {
			return "none"
		}
		return strconv.FormatInt(n, 10) + unit
	}
	memory := limit(r.MemoryBytes, " bytes")
	if r.MemoryBytes > 0 && r.MemoryBytes%(1<<20) == 0 {
		memory = limit(r.MemoryBytes>>20, "Mi")
	}
	s := "limits cpu " + limit(r.CPUMillis, "m") + ", memory " + memory
	if r.CPUShares > 0 {
		s += fmt.Sprintf(", cpu weight %d", r.CPUShares)
	}
	return s
}

// source is where the limits of a container are known from.
type source int

const (
	engine source = iota
	record
)

// resources returns the limits of a container: those in force while it runs, and those that it will be
// started with otherwise. ok is false when that is unknown or does not matter any more.
func (p *pod) resources(container string) (r Resources, from source, ok bool) {
	i := slices.IndexFunc(p.Containers, func(c ObservedContainer) bool { return c.Name == container })
	if i >= 0 && p.Containers[i].State == Running {
		return p.Containers[i].Resources, engine, true
	}
	if p.Spec == nil || i >= 0 && p.Containers[i].Init && p.Containers[i].State == Terminated && p.Containers[i].ExitCode == 0 {
		return r, record, false
	}
	for _, list := range [...][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			if list[i].Name == container {
				return ResourcesOf(&list[i]), record, true
			}
		}
	}
	return r, record, false
}

// waitsForConfig reports whether a container of the pod cannot start for want of a ConfigMap or Secret.
func (p *pod) waitsForConfig() bool {
	return slices.ContainsFunc(p.Containers, func(c ObservedContainer) bool {
		return c.State == Waiting && c.Reason == "CreateContainerConfigError"
	}) || p.Reason == "CreateContainerConfigError"
}

// ignoresResources reports whether the application's rules leave a container's resources alone.
func (b *builder) ignoresResources(r object.Ref, init bool, index int) bool {
	if len(b.desired.Application.Ignore) == 0 {
		return false
	}
	at := pointersFor(b.desired.Application.Ignore, r)
	for t := range strings.SplitSeq(strings.TrimPrefix(resourcesPointer(r, init, index), "/"), "/") {
		if at.here() {
			return true
		}
		at = at.child(t)
	}
	return at.here()
}

// resourcesPointer is the JSON pointer to the resources of a container in a workload.
func resourcesPointer(r object.Ref, init bool, index int) string {
	list := "containers"
	if init {
		list = "initContainers"
	}
	at := "/spec/" + list + "/" + strconv.Itoa(index) + "/resources"
	if r.Kind == "Pod" && r.Group == "" {
		return at
	}
	return "/spec/template" + at
}

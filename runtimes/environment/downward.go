package environment

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// Facts are what a pod can ask about itself and its node beyond what is written in its manifest.
type Facts struct {
	// UID is the pod's.
	UID string
	// PodIPs and HostIPs are the pod's and the node's addresses, the main one first.
	PodIPs, HostIPs []string
	NodeName        string
	// Allocatable is what stands for a limit that a container does not set.
	Allocatable corev1.ResourceList
	// Services are those that containers get variables of, sorted by name; Services of other namespaces are left out.
	Services []*plan.Service
}

// VolumeField answers a fieldRef of a downward API volume.
func (f Facts) VolumeField(pod *plan.Pod, path string) (string, error) {
	switch path {
	case "metadata.labels":
		return formatMap(pod.Labels), nil
	case "metadata.annotations":
		return formatMap(pod.Annotations), nil
	}
	if v, ok := f.metadata(pod, path); ok {
		return v, nil
	}
	return "", fmt.Errorf("a downward API volume cannot show the field %q: %w", path, runtimes.ErrInvalid)
}

// VolumeResource answers a resourceFieldRef of a downward API volume, which names its container.
func (f Facts) VolumeResource(pod *plan.Pod, ref *corev1.ResourceFieldSelector) (string, error) {
	return f.resource(pod, nil, ref)
}

func (f Facts) envField(pod *plan.Pod, path string) (string, error) {
	if v, ok := f.metadata(pod, path); ok {
		return v, nil
	}
	switch path {
	case "spec.nodeName":
		return f.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(f.HostIPs), nil
	case "status.hostIPs":
		return strings.Join(f.HostIPs, ","), nil
	case "status.podIP":
		return first(f.PodIPs), nil
	case "status.podIPs":
		return strings.Join(f.PodIPs, ","), nil
	}
	return "", fmt.Errorf("an environment variable cannot show the field %q: %w", path, runtimes.ErrInvalid)
}

func (f Facts) metadata(pod *plan.Pod, path string) (string, bool) {
	switch path {
	case "metadata.name":
		return pod.Name, true
	case "metadata.namespace":
		return pod.Namespace, true
	case "metadata.uid":
		return f.UID, true
	}
	if field, key, ok := subscript(path); ok {
		switch field {
		case "metadata.labels":
			return pod.Labels[key], true
		case "metadata.annotations":
			return pod.Annotations[key], true
		}
	}
	return "", false
}

// subscript splits "metadata.labels['key']".
func subscript(path string) (field, key string, ok bool) {
	field, rest, ok := strings.Cut(path, "['")
	if !ok {
		return "", "", false
	}
	key, ok = strings.CutSuffix(rest, "']")
	return field, key, ok
}

// formatMap writes one key="value" line for each entry, sorted, with Go's escapes.
func formatMap(m map[string]string) string {
	var b strings.Builder
	for i, k := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(k + "=" + strconv.Quote(m[k]))
	}
	return b.String()
}

// resource answers a resourceFieldRef: of the container that it names, otherwise of c. A limit of
// CPU, memory or ephemeral storage that is not set is what the node has to give.
func (f Facts) resource(pod *plan.Pod, c *corev1.Container, ref *corev1.ResourceFieldSelector) (string, error) {
	if ref.ContainerName != "" {
		if c = container(pod.Spec, ref.ContainerName); c == nil {
			return "", fmt.Errorf("resourceFieldRef names the container %q, which the pod does not have: %w", ref.ContainerName, runtimes.ErrInvalid)
		}
	}
	if c == nil {
		return "", fmt.Errorf("resourceFieldRef %s names no container: %w", ref.Resource, runtimes.ErrInvalid)
	}
	list, name, ok := strings.Cut(ref.Resource, ".")
	if !ok || !shown(name) {
		return "", fmt.Errorf("resourceFieldRef cannot show the resource %q: %w", ref.Resource, runtimes.ErrInvalid)
	}
	var q resource.Quantity
	switch list {
	case "limits":
		q = c.Resources.Limits[corev1.ResourceName(name)]
		if q.IsZero() && !strings.HasPrefix(name, corev1.ResourceHugePagesPrefix) {
			q = f.Allocatable[corev1.ResourceName(name)]
		}
	case "requests":
		q = c.Resources.Requests[corev1.ResourceName(name)]
	default:
		return "", fmt.Errorf("resourceFieldRef cannot show the resource %q: %w", ref.Resource, runtimes.ErrInvalid)
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if name == string(corev1.ResourceCPU) {
		return ceil(q.MilliValue(), divisor.MilliValue()), nil
	}
	return ceil(q.Value(), divisor.Value()), nil
}

func shown(name string) bool {
	switch corev1.ResourceName(name) {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
		return true
	}
	return strings.HasPrefix(name, corev1.ResourceHugePagesPrefix)
}

func container(spec *corev1.PodSpec, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// ceil divides, rounding up; quantities are never negative.
func ceil(value, divisor int64) string {
	if divisor < 1 {
		divisor = 1
	}
	n := value / divisor
	if value%divisor > 0 {
		n++
	}
	return strconv.FormatInt(n, 10)
}

func first(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[0]
}

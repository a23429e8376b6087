package schedule

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"sigs.k8s.io/yaml"
)

// aNode makes a node from words: "cpu=4", "memory=8Gi", "example.com/gpu=2", "label:zone=a", "taint:gpu=true:NoSchedule",
// "image:web=500" (in MiB), "cordoned".
func aNode(id, words string) Node {
	n := Node{ID: plan.NodeID(id), Labels: map[string]string{corev1.LabelHostname: id}, Allocatable: corev1.ResourceList{}, Images: map[string]int64{}}
	for _, w := range strings.Fields(words) {
		key, value, _ := strings.Cut(w, "=")
		switch {
		case w == "cordoned":
			n.Unschedulable = true
		case strings.HasPrefix(w, "label:"):
			n.Labels[strings.TrimPrefix(key, "label:")] = value
		case strings.HasPrefix(w, "taint:"):
			rest, effect := w[len("taint:"):], ""
			at := strings.LastIndexByte(rest, ':')
			rest, effect = rest[:at], rest[at+1:]
			key, value, _ := strings.Cut(rest, "=")
			n.Taints = append(n.Taints, corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)})
		case strings.HasPrefix(w, "image:"):
			q := resource.MustParse(value + "Mi")
			n.Images[strings.TrimPrefix(key, "image:")] = q.Value()
		default:
			n.Allocatable[corev1.ResourceName(key)] = resource.MustParse(value)
		}
	}
	return n
}

// aPod makes a pod of a workload with a spec in YAML; cpu and memory are what its container requests, empty for nothing.
func aPod(t testing.TB, name, owner, cpu, memory, spec string, labels ...string) *plan.Pod {
	t.Helper()
	p := &plan.Pod{
		PodKey: plan.PodKey{Namespace: "shop", Name: name}, Owner: object.Ref{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: owner},
		Labels: map[string]string{"app": owner}, Spec: &corev1.PodSpec{},
	}
	for _, l := range labels {
		key, value, _ := strings.Cut(l, "=")
		p.Labels[key] = value
	}
	if err := yaml.UnmarshalStrict([]byte(spec), p.Spec); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if len(p.Spec.Containers) == 0 {
		p.Spec.Containers = []corev1.Container{{Name: "main", Image: owner}}
	}
	requests := corev1.ResourceList{}
	if cpu != "" {
		requests[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		requests[corev1.ResourceMemory] = resource.MustParse(memory)
	}
	for name, q := range p.Spec.Containers[0].Resources.Requests {
		requests[name] = q
	}
	p.Spec.Containers[0].Resources.Requests = requests
	return p
}

// several are pods of one workload.
func several(t testing.TB, n int, owner, cpu, memory, spec string, labels ...string) []*plan.Pod {
	out := make([]*plan.Pod, n)
	first := aPod(t, "", owner, cpu, memory, spec, labels...)
	for i := range out {
		p := *first
		p.Name = fmt.Sprintf("%s-%d", owner, i)
		out[i] = &p
	}
	return out
}

// where says in a line what became of pods.
func where(list ...Decision) string {
	words := make([]string, len(list))
	for i, d := range list {
		words[i] = d.String()
	}
	return strings.Join(words, "; ")
}

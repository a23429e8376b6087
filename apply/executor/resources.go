package executor

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// minShares is the least weight that a container can have.
const minShares = 2

// The bounds of oom_score_adj.
const (
	oomGuaranteed = -997
	oomBestEffort = 1000
)

// oomScoreAdj says how early the kernel kills a container when the machine has no memory left: last
// those of pods that are sure of all they may use, first those of pods that requested nothing, and between
// them the earlier the less of the machine's memory was requested. A sidecar is not killed before the
// containers that it serves.
func oomScoreAdj(spec *corev1.PodSpec, c *corev1.Container, memory int64) int {
	if spec.PriorityClassName == "system-node-critical" {
		return oomGuaranteed
	}
	switch qos(spec) {
	case corev1.PodQOSGuaranteed:
		return oomGuaranteed
	case corev1.PodQOSBestEffort:
		return oomBestEffort
	}
	if memory <= 0 {
		return oomBestEffort - 1
	}
	score := func(c *corev1.Container) int64 { return 1000 - 1000*c.Resources.Requests.Memory().Value()/memory }
	adj := score(c)
	if isSidecar(c) {
		served := int64(0) // of the container that requests least
		for i := range spec.Containers {
			served = max(served, score(&spec.Containers[i]))
		}
		adj = min(adj, served)
	}
	return int(min(max(adj, 1000+oomGuaranteed), oomBestEffort-1))
}

// qos is the pod's class: Guaranteed when every container has limits for CPU and memory and requests them
// all, BestEffort when no container has either, Burstable otherwise.
func qos(spec *corev1.PodSpec) corev1.PodQOSClass {
	guaranteed, some := true, false
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			r := list[i].Resources
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				limit, request := positive(r.Limits, name), positive(r.Requests, name)
				some = some || limit != nil || request != nil
				if request == nil {
					request = limit
				}
				guaranteed = guaranteed && limit != nil && limit.Cmp(*request) == 0
			}
		}
	}
	switch {
	case !some:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

func positive(list corev1.ResourceList, name corev1.ResourceName) *resource.Quantity {
	if q, ok := list[name]; ok && q.Sign() > 0 {
		return &q
	}
	return nil
}

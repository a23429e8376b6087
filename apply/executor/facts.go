package executor

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes/environment"
)

// facts are what a pod can ask about itself and its node, in variables and in volumes. A pod on the
// host's network has the host's addresses.
func (n *Node) facts(pod *plan.Pod, uid, ip string) environment.Facts {
	f := environment.Facts{
		UID: uid, HostIPs: n.opt.HostIPs, NodeName: string(n.opt.ID), Allocatable: n.allocatable(),
		Services: n.serving.inNamespace(pod.Namespace),
	}
	switch {
	case pod.Spec.HostNetwork:
		f.PodIPs = n.opt.HostIPs
	case ip != "":
		f.PodIPs = []string{ip}
	}
	return f
}

// allocatable is what stands for a limit that a container does not set: all that the machine has.
func (n *Node) allocatable() corev1.ResourceList {
	n.mu.Lock()
	info := n.info
	n.mu.Unlock()
	out := corev1.ResourceList{}
	if info.CPUs > 0 {
		out[corev1.ResourceCPU] = *resource.NewQuantity(int64(info.CPUs), resource.DecimalSI)
	}
	if info.MemoryBytes > 0 {
		out[corev1.ResourceMemory] = *resource.NewQuantity(info.MemoryBytes, resource.BinarySI)
	}
	var disk unix.Statfs_t
	if info.Root != "" && unix.Statfs(info.Root, &disk) == nil {
		out[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(int64(disk.Blocks)*disk.Bsize, resource.BinarySI)
	}
	return out
}

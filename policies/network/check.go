package network

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Check finds what is likely a mistake in policies: those that select no pod, and names of ports that no selected pod has. Pods are
// those that the objects make, and those that are there.
func Check(objects []object.Object, pods []Pod) diag.List {
	var found diag.List
	for i := range objects {
		o := &objects[i]
		policy, ok := o.Value.(*networkingv1.NetworkPolicy)
		if !ok {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
		if err != nil {
			continue // validation has said so
		}
		var selected []Pod
		onHost := 0
		for j := range objects {
			pod, hostNetwork, ok := made(&objects[j])
			if !ok || pod.Namespace != o.Namespace || !selector.Matches(labels.Set(pod.Labels)) {
				continue
			}
			if hostNetwork {
				onHost++
				continue
			}
			selected = append(selected, pod)
		}
		for _, pod := range pods {
			if pod.Namespace == o.Namespace && !pod.Peer && selector.Matches(labels.Set(pod.Labels)) {
				selected = append(selected, pod)
			}
		}
		at := func(sev diag.Severity, code, field, message, hint string) {
			found = append(found, diag.Diagnostic{Severity: sev, Code: code, Ref: o.Ref, Origin: o.At(field), Field: field, Message: message, Hint: hint})
		}
		switch {
		case len(selected) == 0 && onHost > 0:
			at(diag.Warning, "selects-nothing", "spec.podSelector", "it means only pods on the host's network, which no policy bounds, as in Kubernetes", "bound the host's network by the host's firewall")
		case len(selected) == 0:
			at(diag.Info, "selects-nothing", "spec.podSelector", "it selects no pod of namespace "+o.Namespace+" now, so nothing follows from it", "")
		default:
			for r, rule := range policy.Spec.Ingress {
				_, names := fixedPorts(rule.Ports)
				for _, n := range names {
					if !slices.ContainsFunc(selected, func(p Pod) bool { return len(portsNamed(&p, []networkingv1.NetworkPolicyPort{n})) > 0 }) {
						at(diag.Warning, "unknown-port", fmt.Sprintf("spec.ingress[%d].ports", r),
							fmt.Sprintf("no pod that it selects has a %s port of the name %q, so this lets nothing in", protocolOf(n), n.Port.StrVal),
							"name the port in the pods' containers, or write its number")
					}
				}
			}
		}
	}
	return found
}

// made returns the pod that an object makes.
func made(o *object.Object) (pod Pod, hostNetwork, ok bool) {
	var meta *metav1.ObjectMeta
	var spec *corev1.PodSpec
	switch v := o.Value.(type) {
	case *corev1.Pod:
		meta, spec = &v.ObjectMeta, &v.Spec
	case *appsv1.Deployment:
		meta, spec = &v.Spec.Template.ObjectMeta, &v.Spec.Template.Spec
	case *appsv1.ReplicaSet:
		meta, spec = &v.Spec.Template.ObjectMeta, &v.Spec.Template.Spec
	case *appsv1.DaemonSet:
		meta, spec = &v.Spec.Template.ObjectMeta, &v.Spec.Template.Spec
	case *appsv1.StatefulSet:
		meta, spec = &v.Spec.Template.ObjectMeta, &v.Spec.Template.Spec
	case *batchv1.Job:
		meta, spec = &v.Spec.Template.ObjectMeta, &v.Spec.Template.Spec
	default:
		return Pod{}, false, false
	}
	return Pod{Namespace: o.Namespace, Name: o.Name, Labels: meta.Labels, Ports: NamedPorts(spec)}, spec.HostNetwork, true
}

// NamedPorts returns the ports of a pod that have names.
func NamedPorts(spec *corev1.PodSpec) []Port {
	var out []Port
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for _, c := range containers {
			for _, p := range c.Ports {
				if p.Name == "" {
					continue
				}
				protocol := p.Protocol
				if protocol == "" {
					protocol = corev1.ProtocolTCP
				}
				out = append(out, Port{p.Name, protocol, uint16(p.ContainerPort)})
			}
		}
	}
	return out
}

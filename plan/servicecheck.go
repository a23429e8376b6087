package plan

import (
	"fmt"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/fairlead-dev/fairlead/render/diag"
)

// checkNetwork finds what is wrong with an object as a part of Services, beyond the fields of the API.
func checkNetwork(o runtime.Object) []diag.Finding {
	switch v := o.(type) {
	case *corev1.Service:
		return checkService(v)
	case *discoveryv1.EndpointSlice:
		return checkSlice(v)
	case *corev1.Pod:
		return checkWeight("metadata", v.Annotations)
	case *appsv1.Deployment:
		return checkWeight("spec.template.metadata", v.Spec.Template.Annotations)
	case *appsv1.ReplicaSet:
		return checkWeight("spec.template.metadata", v.Spec.Template.Annotations)
	case *appsv1.StatefulSet:
		return checkWeight("spec.template.metadata", v.Spec.Template.Annotations)
	case *appsv1.DaemonSet:
		return checkWeight("spec.template.metadata", v.Spec.Template.Annotations)
	case *batchv1.Job:
		return checkWeight("spec.template.metadata", v.Spec.Template.Annotations)
	}
	return nil
}

func checkWeight(meta string, annotations map[string]string) []diag.Finding {
	text, has := annotations[WeightAnnotation]
	if n, err := strconv.Atoi(text); !has || err == nil && n >= 1 && n <= 100 && strconv.Itoa(n) == text {
		return nil
	}
	return []diag.Finding{{
		Severity: diag.Error, Code: "invalid-annotation", Field: meta + ".annotations[" + WeightAnnotation + "]",
		Message: fmt.Sprintf("%q is not a whole number from 1 to 100", text), Hint: "write one, or remove it: without it a pod has 1",
	}}
}

// oldServiceAnnotations had the effect of a field once, and would be missed in silence.
var oldServiceAnnotations = [...]struct{ name, field string }{
	{corev1.AnnotationLoadBalancerSourceRangesKey, "spec.loadBalancerSourceRanges"},
	{"service.alpha.kubernetes.io/tolerate-unready-endpoints", "spec.publishNotReadyAddresses"},
}

func checkService(s *corev1.Service) []diag.Finding {
	var found []diag.Finding
	at := func(sev diag.Severity, code, annotation, message, hint string) {
		found = append(found, diag.Finding{Severity: sev, Code: code, Field: "metadata.annotations[" + annotation + "]", Message: message, Hint: hint})
	}
	for _, old := range oldServiceAnnotations {
		if _, has := s.Annotations[old.name]; has {
			at(diag.Error, "unsupported-field", old.name, "is not supported: a field replaced it", "write "+old.field)
		}
	}
	text, has := s.Annotations[BalancingAnnotation]
	if !has {
		return found
	}
	switch how := Balancing(text); how {
	case Random, RoundRobin, SourceHash, LeastConnections:
		if !needsClusterIP(&s.Spec) {
			at(diag.Warning, "no-effect", BalancingAnnotation, "has no effect: the Service has no address of its own, so its clients choose", "remove it")
			return found
		}
		if how != LeastConnections {
			return found
		}
		for i := range s.Spec.Ports {
			if p := &s.Spec.Ports[i]; p.Protocol == corev1.ProtocolUDP {
				at(diag.Error, "invalid-annotation", BalancingAnnotation, fmt.Sprintf("%s is for TCP, and port %s is UDP", how, portTitle(p)),
					"write another way, or another Service for the UDP ports")
				break
			}
		}
		if s.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
			at(diag.Error, "invalid-annotation", BalancingAnnotation, fmt.Sprintf("%s cannot keep a client at its endpoint, which sessionAffinity ClientIP asks for", how),
				"remove one of the two")
		}
	default:
		at(diag.Error, "invalid-annotation", BalancingAnnotation, fmt.Sprintf("%q is no way of balancing", text),
			"write one of "+strings.Join([]string{string(Random), string(RoundRobin), string(SourceHash), string(LeastConnections)}, ", "))
	}
	return found
}

func checkSlice(s *discoveryv1.EndpointSlice) []diag.Finding {
	var found []diag.Finding
	if s.Labels[discoveryv1.LabelServiceName] == "" {
		found = append(found, diag.Finding{
			Severity: diag.Error, Code: "no-service-name", Field: "metadata.labels", Message: "the label " + discoveryv1.LabelServiceName + " is missing, so it belongs to no Service",
			Hint: "write the name of its Service there",
		})
	}
	for i := range s.Ports {
		if s.Ports[i].Port == nil {
			found = append(found, diag.Finding{
				Severity: diag.Error, Code: "unsupported-field", Field: fmt.Sprintf("ports[%d]", i), Message: "is not supported: a port without a number stands for all ports",
				Hint: "write port",
			})
		}
	}
	return found
}

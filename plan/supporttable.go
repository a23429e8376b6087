package plan

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fieldTable says of every field what becomes of it. docs/fields.md is made from it.
var fieldTable = slices.Concat(workloadSections, podSections, containerSections, volumeSections, storageSections, statefulSections, daemonSections, serviceSections)

// fieldsOf makes the section of a struct.
func fieldsOf[T any](title string, rows ...[]row) section {
	return section{typ: reflect.TypeFor[T](), title: title, rows: slices.Concat(rows...)}
}

// full makes rows of fields that work, with all of their values.
func full(fields string) []row {
	var rows []row
	for _, f := range strings.Fields(fields) {
		rows = append(rows, row{field: f, support: works})
	}
	return rows
}

// noted makes the row of a field that works and of which there is something to say.
func noted(field, note string) []row { return []row{{field: field, support: works, note: note}} }

// except makes the row of a field some values of which do not work.
func except(field, note string, f func(at path, v any) row) []row {
	return []row{{field: field, support: works, note: note, except: f}}
}

// without makes the row of a field that is accepted and does nothing. The values in allowed ask for nothing.
func without(field, note, hint string, allowed ...any) []row {
	return []row{{field: field, support: noEffect, note: note, hint: hint, allowed: oneOf(allowed)}}
}

// harmless is without for a field that nobody misses.
func harmless(field, note string, allowed ...any) []row {
	return []row{{field: field, support: noEffect, note: note, info: true, allowed: oneOf(allowed)}}
}

// refuse makes the row of a field that stops the application. The values in allowed do not.
func refuse(field, note, hint string, allowed ...any) []row {
	return []row{{field: field, support: refused, note: note, hint: hint, allowed: oneOf(allowed)}}
}

func oneOf(values []any) func(any) bool {
	if len(values) == 0 {
		return nil
	}
	return func(v any) bool { return slices.Contains(values, v) }
}

// serverFields are set by an API server and mean nothing in what is written.
var serverFields = slices.Concat(
	harmless("selfLink", "it is set by an API server"),
	harmless("uid", "it is set by an API server"),
	harmless("resourceVersion", "it is set by an API server"),
	harmless("generation", "it is set by an API server"),
	harmless("creationTimestamp", "it is set by an API server"),
	harmless("deletionTimestamp", "it is set by an API server"),
	harmless("deletionGracePeriodSeconds", "it is set by an API server"),
	harmless("managedFields", "it is set by an API server"),
)

// ipv6Block says that a block of IPv6 means nobody.
func ipv6Block(blocks ...string) row {
	for _, b := range blocks {
		if p, err := netip.ParsePrefix(b); err == nil && !p.Addr().Is4() {
			return row{support: noEffect, note: b + " means nobody: pods have IPv4 addresses", info: true}
		}
	}
	return row{}
}

// workloadSections are the objects and what stands around a pod's spec.
var workloadSections = []section{
	fieldsOf[metav1.ObjectMeta]("Metadata",
		noted("name", "in a pod template it means nothing, as in Kubernetes"),
		full("namespace labels"),
		except("annotations", "", oldAnnotations),
		refuse("generateName", "an object in Git needs a name that stays", "write metadata.name"),
		without("ownerReferences", "what an application owns goes when it is gone from Git", "remove it"),
		without("finalizers", "nothing waits for them when the object is deleted", "remove it"),
		serverFields,
	),
	fieldsOf[corev1.Namespace]("Namespace", full("metadata"), full("spec"), harmless("status", "it is observed, not desired")),
	fieldsOf[corev1.NamespaceSpec]("Namespace: spec", without("finalizers", "nothing waits for them when the namespace is deleted", "remove it")),
	fieldsOf[corev1.ConfigMap]("ConfigMap", full("metadata data binaryData"), harmless("immutable", "Git decides what changes", false)),
	fieldsOf[corev1.Secret]("Secret", full("metadata data stringData type"), harmless("immutable", "Git decides what changes", false)),
	fieldsOf[corev1.ServiceAccount]("ServiceAccount", full("metadata"),
		without("secrets", "there is no API server that takes tokens", "remove it"),
		without("imagePullSecrets", "it is not read from the service account yet", "write imagePullSecrets in the pod's spec"),
		without("automountServiceAccountToken", "tokens are never mounted: there is no API server that takes them", "remove it", false),
	),
	fieldsOf[rbacv1.Role]("Role", full("metadata rules")),
	fieldsOf[rbacv1.ClusterRole]("ClusterRole", full("metadata rules"),
		noted("aggregationRule", "its own rules do not count then, as in Kubernetes")),
	fieldsOf[rbacv1.AggregationRule]("ClusterRole: aggregation", full("clusterRoleSelectors")),
	fieldsOf[rbacv1.PolicyRule]("Role: rule", full("verbs apiGroups resources resourceNames nonResourceURLs")),
	fieldsOf[rbacv1.RoleBinding]("RoleBinding", full("metadata subjects roleRef")),
	fieldsOf[rbacv1.ClusterRoleBinding]("ClusterRoleBinding", full("metadata subjects roleRef")),
	fieldsOf[rbacv1.Subject]("Binding: subject", full("kind apiGroup name namespace")),
	fieldsOf[rbacv1.RoleRef]("Binding: role", full("apiGroup kind name")),
	fieldsOf[networkingv1.NetworkPolicy]("NetworkPolicy", full("metadata spec")),
	fieldsOf[networkingv1.NetworkPolicySpec]("NetworkPolicy: spec",
		noted("podSelector", "pods on the host's network are not selected"),
		full("ingress egress policyTypes"),
	),
	fieldsOf[networkingv1.NetworkPolicyIngressRule]("NetworkPolicy: ingress", noted("ports", "the pod's own: behind a Service, those that it translates to"), full("from")),
	fieldsOf[networkingv1.NetworkPolicyEgressRule]("NetworkPolicy: egress", noted("ports", "those of the pods behind a Service, not the Service's"), full("to")),
	fieldsOf[networkingv1.NetworkPolicyPort]("NetworkPolicy: ports", noted("protocol", "TCP, UDP and SCTP"), noted("port", "a number, or the name of a port of the pods' containers"), full("endPort")),
	fieldsOf[networkingv1.NetworkPolicyPeer]("NetworkPolicy: peers", full("podSelector namespaceSelector ipBlock")),
	fieldsOf[networkingv1.IPBlock]("NetworkPolicy: blocks of addresses",
		except("cidr", "IPv4", func(_ path, v any) row { return ipv6Block(v.(string)) }),
		except("except", "IPv4", func(_ path, v any) row { return ipv6Block(v.([]string)...) }),
	),
	fieldsOf[corev1.Pod]("Pod", full("metadata spec"), harmless("status", "it is observed, not desired")),
	fieldsOf[corev1.PodTemplateSpec]("Pod template", full("metadata spec")),
	fieldsOf[appsv1.Deployment]("Deployment", full("metadata spec"), harmless("status", "it is observed, not desired")),
	fieldsOf[appsv1.DeploymentSpec]("Deployment: spec",
		except("replicas", fmt.Sprintf("an application may have %d pods", maxPods), tooManyReplicas),
		full("selector template strategy minReadySeconds progressDeadlineSeconds"),
		noted("paused", "no rollout begins or goes on while it is true"),
		harmless("revisionHistoryLimit", "Git is the history: roll back with git revert", int32(10)),
	),
	fieldsOf[appsv1.DeploymentStrategy]("Deployment: strategy", full("type rollingUpdate")),
	fieldsOf[appsv1.RollingUpdateDeployment]("Deployment: rolling update", full("maxUnavailable maxSurge")),
	fieldsOf[appsv1.ReplicaSet]("ReplicaSet", full("metadata spec"), harmless("status", "it is observed, not desired")),
	fieldsOf[appsv1.ReplicaSetSpec]("ReplicaSet: spec",
		except("replicas", fmt.Sprintf("an application may have %d pods", maxPods), tooManyReplicas),
		full("minReadySeconds selector template"),
	),
	fieldsOf[batchv1.Job]("Job", full("metadata spec"), harmless("status", "it is observed, not desired")),
	fieldsOf[batchv1.JobSpec]("Job: spec",
		full("parallelism completions completionMode activeDeadlineSeconds backoffLimit backoffLimitPerIndex maxFailedIndexes"),
		full("podFailurePolicy successPolicy suspend podReplacementPolicy"),
		noted("template", "immutable, as in Kubernetes: a change is an error unless the application replaces (Flux spec.force, Argo CD Replace=true)"),
		noted("ttlSecondsAfterFinished", "the pods go, and the job is remembered: it does not run again"),
		without("selector", "a job owns the pods that were made for it", "remove it"),
		without("manualSelector", "a job owns the pods that were made for it", "remove it", false),
		refuse("managedBy", "no other controller runs jobs here", "remove it", "kubernetes.io/job-controller"),
		refuse("scheduling", "pods are not scheduled in groups", "remove it"),
	),
	fieldsOf[batchv1.PodFailurePolicy]("Job: pod failure policy", full("rules")),
	fieldsOf[batchv1.PodFailurePolicyRule]("Job: rule of a pod failure policy", full("action onExitCodes"),
		noted("onPodConditions", "DisruptionTarget is never seen, since nothing evicts pods here")),
	fieldsOf[batchv1.PodFailurePolicyOnExitCodesRequirement]("Job: onExitCodes", full("containerName operator values")),
	fieldsOf[batchv1.PodFailurePolicyOnPodConditionsPattern]("Job: onPodConditions", full("type status")),
	fieldsOf[batchv1.SuccessPolicy]("Job: success policy", full("rules")),
	fieldsOf[batchv1.SuccessPolicyRule]("Job: rule of a success policy", full("succeededIndexes succeededCount")),
}

// oldAnnotations finds annotations that had the effect of a field once, and would be missed in silence.
func oldAnnotations(at path, v any) row {
	notes, _ := v.(map[string]string)
	for _, old := range [...]struct{ prefix, field string }{
		{"container.apparmor.security.beta.kubernetes.io/", "securityContext.appArmorProfile"},
		{"container.seccomp.security.alpha.kubernetes.io/", "securityContext.seccompProfile"},
		{"seccomp.security.alpha.kubernetes.io/pod", "securityContext.seccompProfile"},
	} {
		for k := range notes {
			if strings.HasPrefix(k, old.prefix) {
				return row{support: refused, note: fmt.Sprintf("annotations %s… were replaced by a field", old.prefix), hint: "write " + old.field}
			}
		}
	}
	return row{}
}

package decode

import (
	"reflect"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	appsconv "k8s.io/kubernetes/pkg/apis/apps/v1"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/batch"
	batchconv "k8s.io/kubernetes/pkg/apis/batch/v1"
	batchvalidation "k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	coreconv "k8s.io/kubernetes/pkg/apis/core/v1"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	discoveryconv "k8s.io/kubernetes/pkg/apis/discovery/v1"
	discoveryvalidation "k8s.io/kubernetes/pkg/apis/discovery/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	networkingconv "k8s.io/kubernetes/pkg/apis/networking/v1"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/apis/rbac"
	rbacconv "k8s.io/kubernetes/pkg/apis/rbac/v1"
	rbacvalidation "k8s.io/kubernetes/pkg/apis/rbac/validation"
	storageconv "k8s.io/kubernetes/pkg/apis/storage/v1"
	storagevalidation "k8s.io/kubernetes/pkg/apis/storage/validation"
	"k8s.io/kubernetes/pkg/capabilities"

	"github.com/fairlead-dev/fairlead/render/object"
)

// fieldCache remembers the fields of types. What it holds follows from the program alone.
var fieldCache sync.Map

// kind is how one supported kind is decoded.
type kind struct {
	typ      reflect.Type
	cluster  bool // has no namespace
	new      func() runtime.Object
	defaults func(runtime.Object)
	validate func(runtime.Object) field.ErrorList
}

// kindOf returns the supported kind, all of which are listed here.
func kindOf(apiVersion, name string) (kind, bool) {
	switch apiVersion + "/" + name {
	case "v1/Namespace":
		k := define(coreconv.SetObjectDefaults_Namespace, coreconv.Convert_v1_Namespace_To_core_Namespace, corevalidation.ValidateNamespace)
		k.cluster = true
		return k, true
	case "v1/Pod":
		return define(coreconv.SetObjectDefaults_Pod, coreconv.Convert_v1_Pod_To_core_Pod, func(p *core.Pod) field.ErrorList {
			opts := podutil.GetValidationOptionsFromPodSpecAndMeta(&p.Spec, nil, &p.ObjectMeta, nil)
			opts.ResourceIsPod = true
			return corevalidation.ValidatePodCreate(p, opts)
		}), true
	case "v1/ConfigMap":
		return define(coreconv.SetObjectDefaults_ConfigMap, coreconv.Convert_v1_ConfigMap_To_core_ConfigMap, corevalidation.ValidateConfigMap), true
	case "v1/Secret":
		return define(func(s *corev1.Secret) {
			for k, v := range s.StringData {
				if s.Data == nil {
					s.Data = map[string][]byte{}
				}
				s.Data[k] = []byte(v)
			}
			s.StringData = nil
			coreconv.SetObjectDefaults_Secret(s)
		}, coreconv.Convert_v1_Secret_To_core_Secret, corevalidation.ValidateSecret), true
	case "v1/ServiceAccount":
		return define(func(*corev1.ServiceAccount) {}, coreconv.Convert_v1_ServiceAccount_To_core_ServiceAccount, corevalidation.ValidateServiceAccount), true
	case "v1/Service":
		return define(coreconv.SetObjectDefaults_Service, coreconv.Convert_v1_Service_To_core_Service, func(s *core.Service) field.ErrorList {
			allocateService(s)
			return corevalidation.ValidateServiceCreate(s)
		}), true
	case "v1/PersistentVolumeClaim":
		return define(coreconv.SetObjectDefaults_PersistentVolumeClaim, coreconv.Convert_v1_PersistentVolumeClaim_To_core_PersistentVolumeClaim, func(c *core.PersistentVolumeClaim) field.ErrorList {
			return corevalidation.ValidatePersistentVolumeClaim(c, corevalidation.ValidationOptionsForPersistentVolumeClaimCreate())
		}), true
	case "v1/PersistentVolume":
		k := define(coreconv.SetObjectDefaults_PersistentVolume, coreconv.Convert_v1_PersistentVolume_To_core_PersistentVolume, func(v *core.PersistentVolume) field.ErrorList {
			return corevalidation.ValidatePersistentVolume(v, corevalidation.ValidationOptionsForPersistentVolume(v, nil))
		})
		k.cluster = true
		return k, true
	case "storage.k8s.io/v1/StorageClass":
		k := define(storageconv.SetObjectDefaults_StorageClass, storageconv.Convert_v1_StorageClass_To_storage_StorageClass, storagevalidation.ValidateStorageClass)
		k.cluster = true
		return k, true
	case "v1/Endpoints":
		return define(coreconv.SetObjectDefaults_Endpoints, coreconv.Convert_v1_Endpoints_To_core_Endpoints, corevalidation.ValidateEndpointsCreate), true
	case "discovery.k8s.io/v1/EndpointSlice":
		return define(discoveryconv.SetObjectDefaults_EndpointSlice, discoveryconv.Convert_v1_EndpointSlice_To_discovery_EndpointSlice,
			discoveryvalidation.ValidateEndpointSliceCreate), true
	case "apps/v1/ReplicaSet":
		return define(appsconv.SetObjectDefaults_ReplicaSet, appsconv.Convert_v1_ReplicaSet_To_apps_ReplicaSet, func(rs *apps.ReplicaSet) field.ErrorList {
			return appsvalidation.ValidateReplicaSet(rs, podutil.GetValidationOptionsFromPodTemplate(&rs.Spec.Template, nil))
		}), true
	case "apps/v1/StatefulSet":
		return define(appsconv.SetObjectDefaults_StatefulSet, appsconv.Convert_v1_StatefulSet_To_apps_StatefulSet, func(s *apps.StatefulSet) field.ErrorList {
			return appsvalidation.ValidateStatefulSet(s, appsvalidation.StatefulSetValidationOptions{}, podutil.GetValidationOptionsFromPodTemplate(&s.Spec.Template, nil))
		}), true
	case "apps/v1/DaemonSet":
		return define(appsconv.SetObjectDefaults_DaemonSet, appsconv.Convert_v1_DaemonSet_To_apps_DaemonSet, func(d *apps.DaemonSet) field.ErrorList {
			return appsvalidation.ValidateDaemonSet(d, podutil.GetValidationOptionsFromPodTemplate(&d.Spec.Template, nil))
		}), true
	case "apps/v1/Deployment":
		return define(appsconv.SetObjectDefaults_Deployment, appsconv.Convert_v1_Deployment_To_apps_Deployment, func(d *apps.Deployment) field.ErrorList {
			return appsvalidation.ValidateDeployment(d, podutil.GetValidationOptionsFromPodTemplate(&d.Spec.Template, nil))
		}), true
	case "rbac.authorization.k8s.io/v1/Role":
		return define(func(*rbacv1.Role) {}, rbacconv.Convert_v1_Role_To_rbac_Role, rbacvalidation.ValidateRole), true
	case "rbac.authorization.k8s.io/v1/RoleBinding":
		return define(rbacconv.SetObjectDefaults_RoleBinding, rbacconv.Convert_v1_RoleBinding_To_rbac_RoleBinding, rbacvalidation.ValidateRoleBinding), true
	case "rbac.authorization.k8s.io/v1/ClusterRole":
		k := define(func(*rbacv1.ClusterRole) {}, rbacconv.Convert_v1_ClusterRole_To_rbac_ClusterRole, func(r *rbac.ClusterRole) field.ErrorList {
			return rbacvalidation.ValidateClusterRole(r, rbacvalidation.ClusterRoleValidationOptions{})
		})
		k.cluster = true
		return k, true
	case "rbac.authorization.k8s.io/v1/ClusterRoleBinding":
		k := define(rbacconv.SetObjectDefaults_ClusterRoleBinding, rbacconv.Convert_v1_ClusterRoleBinding_To_rbac_ClusterRoleBinding, rbacvalidation.ValidateClusterRoleBinding)
		k.cluster = true
		return k, true
	case "networking.k8s.io/v1/NetworkPolicy":
		return define(networkingconv.SetObjectDefaults_NetworkPolicy, networkingconv.Convert_v1_NetworkPolicy_To_networking_NetworkPolicy, func(p *networking.NetworkPolicy) field.ErrorList {
			return networkingvalidation.ValidateNetworkPolicy(p, networkingvalidation.NetworkPolicyValidationOptions{})
		}), true
	case "batch/v1/Job":
		return define(batchconv.SetObjectDefaults_Job, batchconv.Convert_v1_Job_To_batch_Job, func(j *batch.Job) field.ErrorList {
			selectJob(j)
			return batchvalidation.ValidateJobCreate(j, batchvalidation.JobValidationOptions{
				PodValidationOptions:  podutil.GetValidationOptionsFromPodTemplate(&j.Spec.Template, nil),
				RequirePrefixedLabels: true,
			})
		}), true
	}
	return kind{}, false
}

// define ties together upstream's defaults, conversion to the internal type, and validation of it.
func define[V, I any](defaults func(*V), convert func(*V, *I, conversion.Scope) error, validate func(*I) field.ErrorList) kind {
	return kind{
		typ:      reflect.TypeFor[V](),
		new:      func() runtime.Object { return any(new(V)).(runtime.Object) },
		defaults: func(o runtime.Object) { defaults(any(o).(*V)) },
		validate: func(o runtime.Object) field.ErrorList {
			// Without this, privileged containers are refused as by an API server started without
			// --allow-privileged. It can be set once in a process and everybody sets the same.
			capabilities.Setup(true, 0)
			var in I
			// Conversion shares memory with the object; validation changes nothing of it but what selectJob sets,
			// which copies.
			if err := convert(any(o).(*V), &in, nil); err != nil {
				return field.ErrorList{field.Invalid(nil, field.OmitValueType{}, err.Error())}
			}
			return validate(&in)
		},
	}
}

// allocateService gives a Service what an API server allocates before it validates.
func allocateService(s *core.Service) {
	if s.Spec.ClusterIP != "" && len(s.Spec.ClusterIPs) == 0 {
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	}
	if s.Spec.Type == core.ServiceTypeLoadBalancer && s.Spec.ExternalTrafficPolicy == core.ServiceExternalTrafficPolicyLocal &&
		s.Spec.HealthCheckNodePort == 0 {
		s.Spec.HealthCheckNodePort = 1 // any
	}
}

// selectJob gives a job the selector and labels that an API server generates, since validation wants them.
func selectJob(j *batch.Job) {
	if j.Spec.ManualSelector != nil && *j.Spec.ManualSelector {
		return
	}
	j.UID = types.UID("00000000-0000-0000-0000-000000000000")
	labels := map[string]string{
		batch.LegacyJobNameLabel: j.Name, batch.JobNameLabel: j.Name,
		batch.LegacyControllerUidLabel: string(j.UID), batch.ControllerUidLabel: string(j.UID),
	}
	for k, v := range j.Spec.Template.Labels {
		labels[k] = v
	}
	j.Spec.Template.Labels = labels
	sel := &metav1.LabelSelector{MatchLabels: map[string]string{batch.ControllerUidLabel: string(j.UID)}}
	if old := j.Spec.Selector; old != nil {
		sel.MatchExpressions = old.MatchExpressions
		for k, v := range old.MatchLabels {
			sel.MatchLabels[k] = v
		}
	}
	j.Spec.Selector = sel
}

// finish sets what is not written but follows: kind, namespace and Kubernetes' defaults.
func finish(o runtime.Object, ref object.Ref, k kind) {
	if m, ok := o.(metav1.Object); ok {
		m.SetNamespace(ref.Namespace)
	}
	k.defaults(o)
}

// declares reports whether objects of a kind declare sources and applications. They are not run; the daemon reads them.
func declares(group, kind string) bool {
	switch group {
	case "source.toolkit.fluxcd.io":
		return kind == "GitRepository"
	case "kustomize.toolkit.fluxcd.io":
		return kind == "Kustomization"
	case "argoproj.io":
		return kind == "Application"
	case "image.toolkit.fluxcd.io":
		return kind == "ImageRepository" || kind == "ImagePolicy" || kind == "ImageUpdateAutomation"
	}
	return false
}

// clusterScoped reports whether objects of a kind that is not run have no namespace.
func clusterScoped(group, kind string) bool {
	switch kind {
	case "Namespace", "Node", "PersistentVolume":
		return group == ""
	case "ClusterRole", "ClusterRoleBinding":
		return group == "rbac.authorization.k8s.io"
	case "CustomResourceDefinition":
		return group == "apiextensions.k8s.io"
	case "StorageClass", "VolumeAttachment", "CSIDriver", "CSINode", "VolumeAttributesClass":
		return group == "storage.k8s.io"
	case "PriorityClass":
		return group == "scheduling.k8s.io"
	case "IngressClass", "IPAddress", "ServiceCIDR":
		return group == "networking.k8s.io"
	case "RuntimeClass":
		return group == "node.k8s.io"
	case "APIService":
		return group == "apiregistration.k8s.io"
	case "FlowSchema", "PriorityLevelConfiguration":
		return group == "flowcontrol.apiserver.k8s.io"
	case "CertificateSigningRequest", "ClusterTrustBundle":
		return group == "certificates.k8s.io"
	case "DeviceClass", "ResourceSlice":
		return group == "resource.k8s.io"
	case "GatewayClass":
		return group == "gateway.networking.k8s.io"
	case "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "ValidatingAdmissionPolicy",
		"ValidatingAdmissionPolicyBinding", "MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding":
		return group == "admissionregistration.k8s.io"
	}
	return strings.HasPrefix(kind, "Cluster") && strings.Contains(group, ".") && !strings.HasSuffix(group, "k8s.io")
}

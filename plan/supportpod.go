package plan

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

const (
	oneNode  = "there is one node, and every pod runs on it"
	anywhere = "remove it"
)

// podSections are a pod's spec and what belongs to the pod as a whole.
var podSections = []section{
	fieldsOf[corev1.PodSpec]("Pod: spec",
		full("volumes containers"),
		noted("initContainers", "those with restartPolicy Always are sidecars"),
		refuse("ephemeralContainers", "they cannot be declared, in Kubernetes neither", "use fairlead exec"),
		full("restartPolicy terminationGracePeriodSeconds activeDeadlineSeconds"),
		noted("dnsPolicy", "ClusterFirst is as Default: no server of a cluster serves names yet"),
		full("dnsConfig hostAliases hostname setHostnameAsFQDN hostnameOverride"),
		noted("subdomain", "part of the pod's own name in /etc/hosts"),
		full("hostNetwork hostPID hostIPC shareProcessNamespace securityContext imagePullSecrets"),
		refuse("hostUsers", "user namespaces are not set up", "remove it", true),
		without("nodeSelector", oneNode, anywhere),
		without("nodeName", oneNode, anywhere),
		without("affinity", oneNode, anywhere),
		without("tolerations", oneNode, anywhere),
		without("topologySpreadConstraints", oneNode, anywhere),
		without("schedulerName", oneNode, anywhere, corev1.DefaultSchedulerName),
		without("priorityClassName", "no pod makes room for another one", "remove it"),
		without("priority", "no pod makes room for another one", "remove it"),
		without("preemptionPolicy", "no pod makes room for another one", "remove it"),
		noted("serviceAccountName", "shown through the downward API; no token is mounted, since there is no API server that takes one"),
		noted("serviceAccount", "the old name of serviceAccountName"),
		without("automountServiceAccountToken", "tokens are never mounted: there is no API server that takes them", "set it to false", false),
		refuse("readinessGates", "nothing would ever set the condition, so that the pod could not become ready", "remove it"),
		refuse("runtimeClassName", "the engine's default runtime runs every container", "remove it"),
		refuse("overhead", "it belongs to a runtime class", "remove it"),
		noted("enableServiceLinks", "variables of the Services that have an address when the container is made; a Service that changes restarts nothing"),
		except("os", "linux", func(_ path, v any) row {
			if os, ok := v.(corev1.PodOS); ok && os.Name != corev1.Linux {
				return row{support: refused, note: "only Linux containers run", hint: "write os.name: linux, or remove it"}
			}
			return row{}
		}),
		refuse("schedulingGates", "nothing would ever remove the gate, so that the pod would never start", "remove it"),
		refuse("resourceClaims", "devices are not allocated", "remove it"),
		refuse("resources", "limits for a pod as a whole are not enforced", "write resources for each container"),
		refuse("schedulingGroup", "pods are not scheduled in groups", "remove it"),
		refuse("evictionResponders", "nothing evicts pods here", "remove it"),
	),
	fieldsOf[corev1.PodOS]("Pod: os", full("name")),
	fieldsOf[corev1.PodSecurityContext]("Pod: security context",
		full("runAsUser runAsGroup runAsNonRoot supplementalGroups supplementalGroupsPolicy fsGroup fsGroupChangePolicy sysctls"),
		full("seccompProfile appArmorProfile"),
		selinux, windows,
		without("seLinuxChangePolicy", "SELinux labels are not set on volumes", "remove it"),
	),
	fieldsOf[corev1.Sysctl]("Pod: sysctls", full("name value")),
	fieldsOf[corev1.HostAlias]("Pod: host aliases", full("ip hostnames")),
	fieldsOf[corev1.PodDNSConfig]("Pod: DNS config", full("nameservers searches options")),
	fieldsOf[corev1.PodDNSConfigOption]("Pod: DNS option", full("name value")),
	fieldsOf[corev1.LocalObjectReference]("Reference by name", full("name")),
	fieldsOf[corev1.SeccompProfile]("Seccomp profile",
		full("type"), noted("localhostProfile", "a file of the node"),
	),
	fieldsOf[corev1.AppArmorProfile]("AppArmor profile", full("type"), noted("localhostProfile", "the name of a profile that is loaded on the node; the container is not made where the engine has no AppArmor")),
}

var (
	selinux = refuse("seLinuxOptions", "SELinux labels are not set", "remove it")
	windows = refuse("windowsOptions", "only Linux containers run", "remove it")
)

// containerSections are a container and its parts.
var containerSections = []section{
	fieldsOf[corev1.Container]("Container",
		full("name image command args workingDir ports envFrom env volumeMounts imagePullPolicy"),
		noted("resources", "requests count for the planner; limits are enforced, and change without a restart"),
		noted("resizePolicy", "NotRequired changes a limit in the running container; RestartContainer replaces the pod"),
		except("restartPolicy", "Always, on init containers: that makes a sidecar", func(at path, v any) row {
			if at.last()[0] == "initContainers" && v == corev1.ContainerRestartPolicyAlways {
				return row{}
			}
			return row{support: refused, note: "only init containers can have their own, and only Always", hint: "write restartPolicy in the pod's spec"}
		}),
		refuse("restartPolicyRules", "restarts follow the pod's restartPolicy alone", "remove it"),
		refuse("volumeDevices", "there are no block volumes", "use volumeMounts"),
		full("livenessProbe readinessProbe startupProbe lifecycle terminationMessagePath terminationMessagePolicy"),
		full("securityContext stdin stdinOnce tty"),
	),
	fieldsOf[corev1.ContainerPort]("Container: ports", full("name containerPort protocol hostPort hostIP")),
	fieldsOf[corev1.EnvVar]("Container: env", noted("name", ""), noted("value", "$(NAME) is replaced"), full("valueFrom")),
	fieldsOf[corev1.EnvVarSource]("Container: env from a source", full("fieldRef resourceFieldRef configMapKeyRef secretKeyRef"),
		refuse("fileKeyRef", "variables are not read from files", "use a ConfigMap or Secret"),
	),
	fieldsOf[corev1.EnvFromSource]("Container: envFrom", full("prefix configMapRef secretRef")),
	fieldsOf[corev1.ConfigMapEnvSource]("Container: envFrom a ConfigMap", full("name optional")),
	fieldsOf[corev1.SecretEnvSource]("Container: envFrom a Secret", full("name optional")),
	fieldsOf[corev1.ConfigMapKeySelector]("Container: key of a ConfigMap", full("name key optional")),
	fieldsOf[corev1.SecretKeySelector]("Container: key of a Secret", full("name key optional")),
	fieldsOf[corev1.ObjectFieldSelector]("Field of the pod", full("apiVersion"), noted("fieldPath", "everything that the downward API knows")),
	fieldsOf[corev1.ResourceFieldSelector]("Resource of a container", full("containerName resource divisor")),
	fieldsOf[corev1.ResourceRequirements]("Container: resources",
		noted("limits", "cpu and memory; others: see below"),
		noted("requests", "cpu and memory; others: see below"),
		refuse("claims", "devices are not allocated", "remove it"),
	),
	fieldsOf[corev1.ContainerResizePolicy]("Container: resize policy", full("resourceName restartPolicy")),
	fieldsOf[corev1.Probe]("Probe",
		full("initialDelaySeconds timeoutSeconds periodSeconds successThreshold failureThreshold terminationGracePeriodSeconds")),
	fieldsOf[corev1.ProbeHandler]("Probe: what is asked", full("exec httpGet tcpSocket grpc")),
	fieldsOf[corev1.ExecAction]("Command", full("command")),
	fieldsOf[corev1.HTTPGetAction]("HTTP request", full("path port host scheme httpHeaders"),
		refuse("protocol", "requests are made with HTTP/1.1", "remove it", corev1.HTTPProtocolHTTP1),
	),
	fieldsOf[corev1.HTTPHeader]("HTTP header", full("name value")),
	fieldsOf[corev1.TCPSocketAction]("TCP connection", full("port host")),
	fieldsOf[corev1.GRPCAction]("gRPC health check", full("port service"),
		refuse("mode", "the check is made without TLS", "remove it", corev1.GRPCProbeModePlaintext),
	),
	fieldsOf[corev1.Lifecycle]("Container: lifecycle", full("postStart preStop stopSignal")),
	fieldsOf[corev1.LifecycleHandler]("Container: lifecycle hook", full("exec httpGet tcpSocket sleep")),
	fieldsOf[corev1.SleepAction]("Sleep", full("seconds")),
	fieldsOf[corev1.SecurityContext]("Container: security context",
		full("capabilities privileged runAsUser runAsGroup"),
		noted("runAsNonRoot", "proved on the user that the container really runs as"),
		full("readOnlyRootFilesystem allowPrivilegeEscalation"),
		except("procMount", "Default; Unmasked needs hostUsers: false, which is refused", func(_ path, v any) row {
			if v == corev1.UnmaskedProcMount {
				return row{support: refused, note: "it is only for pods with user namespaces, which are not set up", hint: "remove it"}
			}
			return row{}
		}),
		full("seccompProfile appArmorProfile"),
		selinux, windows,
	),
	fieldsOf[corev1.Capabilities]("Container: capabilities", full("add drop")),
}

// resourceRow says what becomes of a resource that a container asks for.
func resourceRow(name corev1.ResourceName) row {
	for _, r := range resourceRows {
		if r.field == string(name) {
			return r
		}
	}
	return resourceRows[len(resourceRows)-1]
}

// resourceRows are the resources; the last row is for all that have no row of their own.
var resourceRows = slices.Concat(
	full("cpu memory"),
	without("ephemeral-storage", "the size of a container's own files is not limited", "remove it, or use an emptyDir with sizeLimit"),
	refuse("any other", "only cpu and memory can be asked for: no devices and no huge pages are allocated", "remove it"),
)

package plan

import (
	corev1 "k8s.io/api/core/v1"
)

const (
	noDriver  = "there is no driver for it"
	useHost   = "mount it on the node and use hostPath"
	alphaOnly = "it is an alpha field of Kubernetes"
)

// user refuses the owner of a file in a volume.
var (
	user        = refuse("user", alphaOnly, "use fsGroup")
	defaultUser = refuse("defaultUser", alphaOnly, "use fsGroup")
)

// volumeSections are the volumes of a pod and how containers mount them.
var volumeSections = []section{
	fieldsOf[corev1.VolumeMount]("Container: volume mounts",
		full("name readOnly mountPath subPath subPathExpr mountPropagation"),
		except("recursiveReadOnly", "Disabled and IfPossible; only the mount itself is read-only", func(_ path, v any) row {
			if v == corev1.RecursiveReadOnlyEnabled {
				return row{support: refused, note: "mounts below the volume would stay writable", hint: "write IfPossible, or remove it"}
			}
			return row{}
		}),
		refuse("bindMountOptions", alphaOnly, "remove it"),
	),
	fieldsOf[corev1.Volume]("Volume", full("name")),
	fieldsOf[corev1.VolumeSource]("Volume: kinds",
		full("emptyDir hostPath configMap secret downwardAPI projected persistentVolumeClaim"),
		refuse("ephemeral", "no claims are made for single pods", "use emptyDir, or write a PersistentVolumeClaim"),
		refuse("image", "images are not mounted as volumes yet", "copy the files in an init container"),
		refuse("csi", noDriver, useHost),
		refuse("nfs", noDriver, useHost),
		refuse("iscsi", noDriver, useHost),
		refuse("fc", noDriver, useHost),
		refuse("cephfs", noDriver, useHost),
		refuse("rbd", noDriver, useHost),
		refuse("glusterfs", noDriver, useHost),
		refuse("cinder", noDriver, useHost),
		refuse("flexVolume", noDriver, useHost),
		refuse("flocker", noDriver, useHost),
		refuse("gcePersistentDisk", noDriver, useHost),
		refuse("awsElasticBlockStore", noDriver, useHost),
		refuse("azureDisk", noDriver, useHost),
		refuse("azureFile", noDriver, useHost),
		refuse("vsphereVolume", noDriver, useHost),
		refuse("quobyte", noDriver, useHost),
		refuse("photonPersistentDisk", noDriver, useHost),
		refuse("portworxVolume", noDriver, useHost),
		refuse("scaleIO", noDriver, useHost),
		refuse("storageos", noDriver, useHost),
		refuse("gitRepo", "Kubernetes removed it", "clone in an init container into an emptyDir"),
	),
	fieldsOf[corev1.EmptyDirVolumeSource]("Volume: emptyDir",
		except("medium", "\"\" and Memory", func(_ path, v any) row {
			if m, _ := v.(corev1.StorageMedium); m != corev1.StorageMediumMemory {
				return row{support: refused, note: "huge pages are not allocated", hint: "write Memory, or remove it"}
			}
			return row{}
		}),
		full("sizeLimit"),
		refuse("mode", alphaOnly, "use fsGroup"),
	),
	fieldsOf[corev1.HostPathVolumeSource]("Volume: hostPath", full("path type")),
	fieldsOf[corev1.PersistentVolumeClaimVolumeSource]("Volume: persistentVolumeClaim", full("claimName readOnly")),
	fieldsOf[corev1.ConfigMapVolumeSource]("Volume: configMap", full("name items defaultMode optional"), defaultUser),
	fieldsOf[corev1.SecretVolumeSource]("Volume: secret", full("secretName items defaultMode optional"), defaultUser),
	fieldsOf[corev1.DownwardAPIVolumeSource]("Volume: downwardAPI", full("items defaultMode"), defaultUser),
	fieldsOf[corev1.DownwardAPIVolumeFile]("Volume: file of the downward API", full("path fieldRef resourceFieldRef mode"), user),
	fieldsOf[corev1.KeyToPath]("Volume: items", full("key path mode"), user),
	fieldsOf[corev1.ProjectedVolumeSource]("Volume: projected", full("sources defaultMode"), defaultUser),
	fieldsOf[corev1.VolumeProjection]("Volume: projected sources", full("configMap secret downwardAPI"),
		refuse("serviceAccountToken", "there is no API server that takes tokens", "remove it"),
		refuse("clusterTrustBundle", "there is no API server that keeps trust bundles", "write the certificates into a ConfigMap"),
		refuse("podCertificate", "there is no API server that signs certificates", "write the certificate into a Secret"),
	),
	fieldsOf[corev1.ConfigMapProjection]("Volume: projected ConfigMap", full("name items optional")),
	fieldsOf[corev1.SecretProjection]("Volume: projected Secret", full("name items optional")),
	fieldsOf[corev1.DownwardAPIProjection]("Volume: projected downward API", full("items")),
}

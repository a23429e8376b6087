package plan

import (
	"fmt"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

const (
	noSnapshots = "volumes are made empty: there are no snapshots or clones"
	noVolume    = "there is no driver for it"
	useOther    = "use hostPath, local or nfs, or a StorageClass with the provisioner " + EngineProvisioner
)

// storageSections are classes, volumes and claims.
var storageSections = []section{
	fieldsOf[corev1.PersistentVolumeClaim]("PersistentVolumeClaim", full("metadata spec"), defaultedStatus),
	fieldsOf[corev1.PersistentVolumeClaimSpec]("PersistentVolumeClaim: spec",
		noted("accessModes", "ReadWriteOncePod is enforced; of the others nothing follows on one node"),
		full("selector resources volumeName"),
		noted("storageClassName", "without it the default StorageClass; where none is declared, "+DefaultClass+": a directory on the node"),
		except("volumeMode", "Filesystem", onlyFilesystem),
		refuse("dataSource", noSnapshots, "remove it, and copy the data in an init container"),
		refuse("dataSourceRef", noSnapshots, "remove it, and copy the data in an init container"),
		without("volumeAttributesClassName", "volumes have no attributes that can be changed", "remove it"),
	),
	fieldsOf[corev1.VolumeResourceRequirements]("PersistentVolumeClaim: resources",
		noted("requests", "storage: chooses a PersistentVolume that is large enough; a directory is not limited to it"),
		without("limits", "nothing limits how much is written", "remove it"),
	),
	fieldsOf[corev1.PersistentVolume]("PersistentVolume", full("metadata spec"), defaultedStatus),
	fieldsOf[corev1.PersistentVolumeSpec]("PersistentVolume: spec",
		full("capacity accessModes"),
		noted("claimRef", "only the claim of that namespace and name is bound to it"),
		except("persistentVolumeReclaimPolicy", "Retain: what a PersistentVolume in Git points to is never deleted", func(_ path, v any) row {
			switch v {
			case corev1.PersistentVolumeReclaimDelete:
				return row{support: noEffect, note: "fairlead did not make what it points to, and never deletes it", hint: "write Retain"}
			case corev1.PersistentVolumeReclaimRecycle:
				return row{support: refused, note: "Kubernetes deprecated it, and nothing deletes files in volumes here", hint: "write Retain"}
			}
			return row{}
		}),
		full("storageClassName"),
		noted("mountOptions", "of nfs"),
		except("volumeMode", "Filesystem", onlyFilesystem),
		without("nodeAffinity", "there is one node, and every pod runs on it", "nothing: Kubernetes asks for it with local"),
		without("volumeAttributesClassName", "volumes have no attributes that can be changed", "remove it"),
	),
	fieldsOf[corev1.PersistentVolumeSource]("PersistentVolume: kinds",
		full("hostPath local"), noted("nfs", "mounted by the Docker engine, as a volume of its driver local"),
		refuse("csi", noVolume, useOther),
		refuse("iscsi", noVolume, useOther),
		refuse("fc", noVolume, useOther),
		refuse("cephfs", noVolume, useOther),
		refuse("rbd", noVolume, useOther),
		refuse("glusterfs", noVolume, useOther),
		refuse("cinder", noVolume, useOther),
		refuse("flexVolume", noVolume, useOther),
		refuse("flocker", noVolume, useOther),
		refuse("gcePersistentDisk", noVolume, useOther),
		refuse("awsElasticBlockStore", noVolume, useOther),
		refuse("azureDisk", noVolume, useOther),
		refuse("azureFile", noVolume, useOther),
		refuse("vsphereVolume", noVolume, useOther),
		refuse("quobyte", noVolume, useOther),
		refuse("photonPersistentDisk", noVolume, useOther),
		refuse("portworxVolume", noVolume, useOther),
		refuse("scaleIO", noVolume, useOther),
		refuse("storageos", noVolume, useOther),
	),
	fieldsOf[corev1.LocalVolumeSource]("PersistentVolume: local", noted("path", "a directory that exists"),
		refuse("fsType", "nothing is formatted or mounted", "mount it on the node, and remove fsType"),
	),
	fieldsOf[corev1.NFSVolumeSource]("PersistentVolume: nfs", full("server path readOnly")),
	fieldsOf[corev1.ObjectReference]("PersistentVolume: claimRef", full("namespace name"),
		harmless("kind", "it is a claim"), harmless("apiVersion", "it is a claim"), harmless("uid", "it is set by an API server"),
		harmless("resourceVersion", "it is set by an API server"), harmless("fieldPath", "the claim as a whole is meant"),
	),
	fieldsOf[storagev1.StorageClass]("StorageClass", full("metadata"),
		except("provisioner", fmt.Sprintf("%s, %s and %s", DirectoryProvisioner, EngineProvisioner, NoProvisioner), func(_ path, v any) row {
			switch v {
			case DirectoryProvisioner, EngineProvisioner, NoProvisioner:
				return row{}
			}
			return row{support: noEffect, note: fmt.Sprintf("nobody here makes volumes of provisioner %v, so claims of this class wait for a PersistentVolume", v), hint: fmt.Sprintf("use %s or %s", DirectoryProvisioner, EngineProvisioner)}
		}),
		noted("parameters", "of "+EngineProvisioner+": the options of the volume's driver, which "+DriverParameter+" names"),
		noted("reclaimPolicy", "Retain keeps what a claim holds when it is deleted"),
		noted("mountOptions", "of "+EngineProvisioner+": added to the option o"),
		noted("allowVolumeExpansion", "claims may ask for more; nothing has to be made larger for it"),
		noted("volumeBindingMode", "claims are bound at once in either mode: there is one node"),
		without("allowedTopologies", "there is one node, and every pod runs on it", "remove it"),
	),
}

// onlyFilesystem refuses block volumes.
func onlyFilesystem(_ path, v any) row {
	if v == corev1.PersistentVolumeBlock {
		return row{support: refused, note: "there are no block volumes", hint: "write Filesystem"}
	}
	return row{}
}

// defaultedStatus is a status that Kubernetes' defaults begin.
var defaultedStatus = []row{{field: "status", support: noEffect, note: "it is observed, not desired", info: true, allowed: func(v any) bool {
	switch s := v.(type) {
	case corev1.PersistentVolumeClaimStatus:
		s.Phase = ""
		return reflect.ValueOf(s).IsZero()
	case corev1.PersistentVolumeStatus:
		s.Phase = ""
		return reflect.ValueOf(s).IsZero()
	}
	return false
}}}

package plan

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
)

// statefulSections are a StatefulSet and its parts.
var statefulSections = []section{
	fieldsOf[appsv1.StatefulSet]("StatefulSet", full("metadata spec"), harmless("status", "it is observed, not desired")),
	fieldsOf[appsv1.StatefulSetSpec]("StatefulSet: spec",
		except("replicas", fmt.Sprintf("an application may have %d pods", maxPods), tooManyReplicas),
		full("selector template"),
		noted("volumeClaimTemplates", "claims are kept when their pod goes; the size may grow, and grows the claims too, the rest is immutable"),
		noted("serviceName", "pods have names below the headless Service; immutable"),
		noted("podManagementPolicy", "OrderedReady, and Parallel: of scaling, not of updates; immutable"),
		full("updateStrategy minReadySeconds persistentVolumeClaimRetentionPolicy ordinals"),
		harmless("revisionHistoryLimit", "Git is the history: roll back with git revert", int32(10)),
	),
	fieldsOf[appsv1.StatefulSetUpdateStrategy]("StatefulSet: update strategy", noted("type", "RollingUpdate and OnDelete"), full("rollingUpdate")),
	fieldsOf[appsv1.RollingUpdateStatefulSetStrategy]("StatefulSet: rolling update",
		noted("partition", "a pod below it that is lost is made again like another one below it, or where there is none like the newest template"),
		full("maxUnavailable"),
	),
	fieldsOf[appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy]("StatefulSet: retention of claims",
		noted("whenDeleted", "Retain; with Delete the deletion waits for an approval"),
		noted("whenScaled", "Retain; with Delete the claims of ordinals that are too many go with their pods, without an approval"),
	),
	fieldsOf[appsv1.StatefulSetOrdinals]("StatefulSet: ordinals", full("start")),
}

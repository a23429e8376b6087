package plan

import (
	appsv1 "k8s.io/api/apps/v1"
)

// daemonSections are DaemonSets.
var daemonSections = []section{
	fieldsOf[appsv1.DaemonSet]("DaemonSet", full("metadata spec"), harmless("status", "it is observed, not desired")),
	fieldsOf[appsv1.DaemonSetSpec]("DaemonSet: spec",
		full("selector template updateStrategy minReadySeconds"),
		harmless("revisionHistoryLimit", "Git is the history: roll back with git revert", int32(10)),
	),
	fieldsOf[appsv1.DaemonSetUpdateStrategy]("DaemonSet: update strategy", noted("type", "RollingUpdate and OnDelete"), full("rollingUpdate")),
	fieldsOf[appsv1.RollingUpdateDaemonSet]("DaemonSet: rolling update",
		noted("maxUnavailable", "there is one node: anything but 0 stops the old pod first"),
		noted("maxSurge", "there is one node: anything but 0 starts the new pod first"),
	),
}

package applications

import "strings"

// argoFields are those of argoproj.io/v1alpha1 Application. The fields of spec.source are in
// argoSourceFields.
var argoFields = []field{
	{path: "spec", kind: object_, use: honoured, required: true},
	{path: "spec.project", kind: text, use: ignored, note: "there are no projects"},
	{path: "spec.destination", kind: object_, use: honoured, required: true},
	{path: "spec.destination.server", kind: text, use: honoured, values: []string{"https://kubernetes.default.svc"}, note: noCluster},
	{path: "spec.destination.name", kind: text, use: honoured, values: []string{"in-cluster"}, note: noCluster},
	{path: "spec.destination.namespace", kind: text, use: honoured},
	{path: "spec.syncPolicy", kind: object_, use: honoured},
	{path: "spec.syncPolicy.automated", kind: object_, use: honoured},
	{path: "spec.syncPolicy.automated.enabled", kind: boolean, use: honoured},
	{path: "spec.syncPolicy.automated.prune", kind: boolean, use: honoured},
	{path: "spec.syncPolicy.automated.selfHeal", kind: boolean, use: honoured},
	{path: "spec.syncPolicy.automated.allowEmpty", kind: boolean, use: honoured},
	{path: "spec.syncPolicy.syncOptions", kind: texts, use: honoured},
	{path: "spec.syncPolicy.retry", kind: object_, use: honoured},
	{path: "spec.syncPolicy.retry.limit", kind: integer, use: warned, note: "what failed is tried again until it succeeds or Git moves on"},
	{path: "spec.syncPolicy.retry.refresh", kind: boolean, use: ignored, note: "a newer revision always takes over"},
	{path: "spec.syncPolicy.retry.backoff", kind: object_, use: honoured},
	{path: "spec.syncPolicy.retry.backoff.duration", kind: seconds, use: ignored, note: "the first pause is one second"},
	{path: "spec.syncPolicy.retry.backoff.factor", kind: integer, use: ignored, note: "each pause is twice the last"},
	{path: "spec.syncPolicy.retry.backoff.maxDuration", kind: seconds, use: honoured},
	{path: "spec.syncPolicy.managedNamespaceMetadata", kind: anything, use: warned, note: "write a Namespace object instead"},
	{path: "spec.ignoreDifferences", kind: objects, use: honoured},
	{path: "spec.ignoreDifferences[].group", kind: text, use: honoured},
	{path: "spec.ignoreDifferences[].kind", kind: text, use: honoured, required: true},
	{path: "spec.ignoreDifferences[].name", kind: text, use: honoured},
	{path: "spec.ignoreDifferences[].namespace", kind: text, use: honoured},
	{path: "spec.ignoreDifferences[].jsonPointers", kind: texts, use: honoured},
	{path: "spec.ignoreDifferences[].jqPathExpressions", kind: anything, use: refused, note: "write jsonPointers instead"},
	{path: "spec.ignoreDifferences[].managedFieldsManagers", kind: anything, use: refused, note: "fields have no managers here; write jsonPointers instead"},
	{path: "spec.info", kind: anything, use: ignored},
	{path: "spec.revisionHistoryLimit", kind: integer, use: ignored, note: "Git is the history"},
	{path: "spec.sourceHydrator", kind: anything, use: refused, note: "nothing is pushed to Git; name the hydrated branch as source"},
	{path: "operation", kind: anything, use: ignored},
}

// argoSourceFields are those of one source, below spec.source or spec.sources[].
var argoSourceFields = []field{
	{path: "repoURL", kind: text, use: honoured, required: true},
	{path: "targetRevision", kind: text, use: honoured},
	{path: "path", kind: text, use: honoured},
	{path: "name", kind: text, use: honoured},
	{path: "ref", kind: text, use: honoured},
	{path: "chart", kind: text, use: refused, note: "Helm charts are not rendered; commit the rendered manifests"},
	{path: "helm", kind: anything, use: refused, note: "Helm charts are not rendered; commit the rendered manifests"},
	{path: "plugin", kind: anything, use: refused, note: "nothing of a repository is executed; commit the rendered manifests"},
	{path: "directory", kind: object_, use: honoured},
	{path: "directory.recurse", kind: boolean, use: honoured},
	{path: "directory.include", kind: text, use: honoured},
	{path: "directory.exclude", kind: text, use: honoured},
	{path: "directory.jsonnet", kind: object_, use: honoured},
	{path: "directory.jsonnet.extVars", kind: anything, use: refused, note: "Jsonnet is not rendered; commit the rendered manifests"},
	{path: "directory.jsonnet.tlas", kind: anything, use: refused, note: "Jsonnet is not rendered; commit the rendered manifests"},
	{path: "directory.jsonnet.libs", kind: anything, use: refused, note: "Jsonnet is not rendered; commit the rendered manifests"},
	{path: "kustomize", kind: object_, use: honoured},
	{path: "kustomize.namePrefix", kind: text, use: honoured},
	{path: "kustomize.nameSuffix", kind: text, use: honoured},
	{path: "kustomize.namespace", kind: text, use: honoured},
	{path: "kustomize.images", kind: texts, use: honoured},
	{path: "kustomize.replicas", kind: objects, use: honoured},
	{path: "kustomize.replicas[].name", kind: text, use: honoured, required: true},
	{path: "kustomize.replicas[].count", kind: integerOrText, use: honoured, required: true},
	{path: "kustomize.commonLabels", kind: textMap, use: honoured},
	{path: "kustomize.commonAnnotations", kind: textMap, use: honoured},
	{path: "kustomize.forceCommonLabels", kind: boolean, use: ignored, note: "common labels always replace"},
	{path: "kustomize.forceCommonAnnotations", kind: boolean, use: ignored, note: "common annotations always replace"},
	{path: "kustomize.labelWithoutSelector", kind: boolean, use: honoured},
	{path: "kustomize.labelIncludeTemplates", kind: boolean, use: refused, note: "write a patch, or labels in the kustomization file"},
	{path: "kustomize.commonAnnotationsEnvsubst", kind: boolean, use: refused, note: "write the values out"},
	{path: "kustomize.patches", kind: objects, use: honoured},
	{path: "kustomize.patches[].path", kind: text, use: honoured},
	{path: "kustomize.patches[].patch", kind: text, use: honoured},
	{path: "kustomize.patches[].options", kind: boolMap, use: honoured},
	{path: "kustomize.patches[].target", kind: object_, use: honoured},
	{path: "kustomize.patches[].target.group", kind: text, use: honoured},
	{path: "kustomize.patches[].target.version", kind: text, use: honoured},
	{path: "kustomize.patches[].target.kind", kind: text, use: honoured},
	{path: "kustomize.patches[].target.name", kind: text, use: honoured},
	{path: "kustomize.patches[].target.namespace", kind: text, use: honoured},
	{path: "kustomize.patches[].target.labelSelector", kind: text, use: honoured},
	{path: "kustomize.patches[].target.annotationSelector", kind: text, use: honoured},
	{path: "kustomize.components", kind: texts, use: honoured},
	{path: "kustomize.ignoreMissingComponents", kind: boolean, use: honoured},
	{path: "kustomize.version", kind: text, use: warned, note: "the kustomize that is built in is used"},
	{path: "kustomize.kubeVersion", kind: text, use: ignored, note: "only Helm charts ask for it"},
	{path: "kustomize.apiVersions", kind: texts, use: ignored, note: "only Helm charts ask for it"},
}

// argoTable is the complete table of an Application.
func argoTable() []field {
	out := append([]field{}, argoFields...)
	out = append(out, field{path: "spec.source", kind: object_, use: honoured}, field{path: "spec.sources", kind: objects, use: honoured})
	for _, prefix := range []string{"spec.source.", "spec.sources[]."} {
		for _, f := range argoSourceFields {
			f.path = prefix + f.path
			out = append(out, f)
		}
	}
	return out
}

// syncOption is what becomes of one syncOption.
type syncOption struct {
	// value is "Name=value"; a name alone stands for every other value.
	value string
	use   use
	note  string
}

// syncOptions are the entries of spec.syncPolicy.syncOptions that are known.
var syncOptions = []syncOption{
	{"CreateNamespace=true", honoured, "namespaces need no creation"},
	{"CreateNamespace=false", ignored, ""},
	{"ApplyOutOfSyncOnly=true", honoured, "only what differs is ever touched"},
	{"ApplyOutOfSyncOnly=false", ignored, ""},
	{"FailOnSharedResource=true", honoured, "an object never has two owners"},
	{"FailOnSharedResource=false", warned, "an object never has two owners"},
	{"RespectIgnoreDifferences=true", honoured, "ignored fields are left alone"},
	{"RespectIgnoreDifferences=false", warned, "ignored fields are always left alone"},
	{"Prune=true", ignored, "spec.syncPolicy.automated.prune decides"},
	{"Prune=false", honoured, ""},
	{"Prune=confirm", warned, "nothing is pruned; delete by hand"},
	{"Delete=true", ignored, ""},
	{"Delete=false", honoured, ""},
	{"Delete=confirm", warned, "nothing is deleted with the application; delete by hand"},
	{"Force=true", honoured, ""},
	{"Force=false", ignored, ""},
	{"Replace=true", warned, "objects are always set to what is written; Force=true allows creating them anew"},
	{"Replace=false", ignored, ""},
	{"PruneLast=true", warned, "the planner orders deletions itself"},
	{"PruneLast=false", ignored, ""},
	{"PrunePropagationPolicy=foreground", honoured, "deleting waits for the pods"},
	{"PrunePropagationPolicy=background", warned, "deleting waits for the pods"},
	{"PrunePropagationPolicy=orphan", warned, "a workload's pods go with it"},
	{"Validate=true", ignored, ""},
	{"Validate=false", warned, "manifests are always validated"},
	{"ServerSideApply=true", ignored, ""},
	{"ServerSideApply=false", ignored, ""},
	{"ClientSideApplyMigration=true", ignored, ""},
	{"ClientSideApplyMigration=false", ignored, ""},
	{"SkipDryRunOnMissingResource=true", ignored, ""},
	{"SkipDryRunOnMissingResource=false", ignored, ""},
}

// findSyncOption returns the entry for "Name=value" and whether the name, at least, is known.
func findSyncOption(s string) (o syncOption, known, named bool) {
	name, _, _ := strings.Cut(s, "=")
	for _, o := range syncOptions {
		if o.value == s {
			return o, true, true
		}
		if strings.HasPrefix(o.value, name+"=") {
			named = true
		}
	}
	return syncOption{}, false, named
}

package plan

import (
	"maps"
	"slices"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/render/object"
)

// legacy labels that Kubernetes sets beside those with a prefix.
const (
	legacyJobName = "job-name"
	legacyUID     = "controller-uid"
	indexEnv      = "JOB_COMPLETION_INDEX"
)

// runFields are the fields of a Job that cannot change while it is the same run of it.
var runFields = [...]string{
	"template", "completions", "completionMode", "podFailurePolicy", "successPolicy", "backoffLimitPerIndex", "podReplacementPolicy",
}

// runUID identifies one run of a job, in the form of a UID: it follows from what is immutable in what was
// written, so a job that is replaced by force is another run, as is a hook in another sync.
func runUID(ref object.Ref, written []byte, hook HookRun) string {
	manifest, _ := parse(written).(map[string]any)
	spec, _ := manifest["spec"].(map[string]any)
	fixed := map[string]any{"": ref.String()}
	for _, f := range runFields {
		if v, has := spec[f]; has {
			fixed[f] = v
		}
	}
	if hook != (HookRun{}) {
		fixed["hook"] = hook.Sync + "/" + hook.Phase.String()
	}
	h := object.HashBytes(encode(withoutNulls(fixed)))
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// indexedBase is the name of an index's pods before the suffix. A long name of a job is cut, never the index.
func indexedBase(job string, index int) string {
	i := "-" + strconv.Itoa(index)
	return job[:min(len(job), maxBase-1-len(i))] + i
}

// pod returns a pod of the run; index is -1 when the job has no indexes.
func (k *jobRun) pod(key PodKey, index int) *Pod {
	p := k.w.pod(key)
	p.Labels = merged(p.Labels, map[string]string{
		batchv1.JobNameLabel: k.w.Name, legacyJobName: k.w.Name,
		batchv1.ControllerUidLabel: k.uid, legacyUID: k.uid,
	})
	if !k.indexed || index < 0 {
		return p
	}
	i := strconv.Itoa(index)
	p.Index = index
	p.Labels[batchv1.JobCompletionIndexAnnotation] = i
	p.Annotations = merged(p.Annotations, map[string]string{batchv1.JobCompletionIndexAnnotation: i})
	spec := *p.Spec
	if spec.Hostname == "" {
		spec.Hostname = indexedBase(k.w.Name, index)
	}
	spec.InitContainers, spec.Containers = withIndex(spec.InitContainers), withIndex(spec.Containers)
	p.Spec = &spec
	return p
}

// withIndex returns a copy of containers that have the index in their environment, unless they set it themselves.
func withIndex(containers []corev1.Container) []corev1.Container {
	out := slices.Clone(containers)
	for i := range out {
		c := &out[i]
		if slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == indexEnv }) {
			continue
		}
		c.Env = append(slices.Clone(c.Env), corev1.EnvVar{Name: indexEnv, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{
			APIVersion: "v1", FieldPath: "metadata.annotations['" + batchv1.JobCompletionIndexAnnotation + "']",
		}}})
	}
	return out
}

func merged(m, more map[string]string) map[string]string {
	out := make(map[string]string, len(m)+len(more))
	maps.Copy(out, m)
	maps.Copy(out, more)
	return out
}

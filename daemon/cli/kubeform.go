package cli

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/plan"
)

// kubePod is a pod in Kubernetes' form, so that what reads kubectl's JSON reads ours. The spec holds
// only what the read model knows.
func kubePod(p api.Pod) corev1.Pod {
	out := corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: p.Name, Namespace: p.Namespace, UID: types.UID(p.UID), Labels: p.Labels, Annotations: p.Annotations,
			CreationTimestamp: metav1.NewTime(p.Created),
		},
		Spec: corev1.PodSpec{NodeName: string(p.Node)},
		Status: corev1.PodStatus{
			Phase: corev1.PodPhase(p.Phase), PodIP: p.IP, Reason: p.Reason, Message: p.Message,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: condition(p.IsReady)}},
		},
	}
	if p.IP != "" {
		out.Status.PodIPs = []corev1.PodIP{{IP: p.IP}}
	}
	if p.Owner != p.PodKey.Ref() && !p.Owner.IsZero() {
		version := "v1"
		if p.Owner.Group != "" {
			version = p.Owner.Group + "/v1"
		}
		yes := true
		out.OwnerReferences = []metav1.OwnerReference{{APIVersion: version, Kind: p.Owner.Kind, Name: p.Owner.Name, Controller: &yes}}
	}
	for _, c := range p.Containers {
		spec := corev1.Container{Name: c.Name, Image: c.Image}
		started := c.Started
		st := corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, ImageID: c.ImageID, Ready: c.Ready, Started: &started, RestartCount: int32(c.Restarts),
		}
		if c.ID != "" {
			st.ContainerID = "docker://" + c.ID
		}
		switch c.State {
		case plan.Running:
			st.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(c.StartedAt)}
		case plan.Terminated:
			st.State.Terminated = &corev1.ContainerStateTerminated{
				ExitCode: int32(c.ExitCode), Reason: c.Reason, Message: c.Message, ContainerID: st.ContainerID,
				StartedAt: metav1.NewTime(c.StartedAt), FinishedAt: metav1.NewTime(c.FinishedAt),
			}
		case plan.Waiting:
			st.State.Waiting = &corev1.ContainerStateWaiting{Reason: c.Reason, Message: c.Message}
		}
		if !c.Init {
			out.Spec.Containers = append(out.Spec.Containers, spec)
			out.Status.ContainerStatuses = append(out.Status.ContainerStatuses, st)
			continue
		}
		if c.Sidecar {
			always := corev1.ContainerRestartPolicyAlways
			spec.RestartPolicy = &always
		}
		out.Spec.InitContainers = append(out.Spec.InitContainers, spec)
		out.Status.InitContainerStatuses = append(out.Status.InitContainerStatuses, st)
	}
	return out
}

func condition(b bool) corev1.ConditionStatus {
	if b {
		return corev1.ConditionTrue
	}
	return corev1.ConditionFalse
}

// kubeObject is an object in Kubernetes' form: the manifest as it was applied, with its status.
func kubeObject(o api.Object) map[string]any {
	out := map[string]any{}
	if json.Unmarshal(o.Manifest, &out) != nil || len(out) == 0 {
		meta := map[string]any{"name": o.Name}
		if o.Namespace != "" {
			meta["namespace"] = o.Namespace
		}
		if len(o.Labels) > 0 {
			meta["labels"] = o.Labels
		}
		out = map[string]any{"apiVersion": o.APIVersion, "kind": o.Kind, "metadata": meta}
	}
	if o.Kind == "Secret" && o.Group == "" {
		hideSecret(out)
	}
	if meta, ok := out["metadata"].(map[string]any); ok && !o.Created.IsZero() {
		meta["creationTimestamp"] = metav1.NewTime(o.Created)
	}
	switch o.Kind {
	case "PersistentVolumeClaim":
		out["status"] = map[string]any{"phase": claimPhase(o)}
		if o.Storage != nil && o.Storage.Claim != nil {
			c := o.Storage.Claim
			out["status"] = map[string]any{"phase": "Bound", "accessModes": c.Modes, "capacity": map[string]any{"storage": plan.Quantity(c.Capacity)}}
		}
		return out
	case "PersistentVolume":
		out["status"] = map[string]any{"phase": volumePhase(o)}
		return out
	}
	if s := o.Status; s != nil {
		status := map[string]any{}
		switch o.Kind {
		case "Job":
			status["active"] = max(0, s.Current-s.Succeeded-s.Failed)
			status["succeeded"], status["failed"], status["ready"] = s.Succeeded, s.Failed, s.Ready
			if !o.Started.IsZero() {
				status["startTime"] = metav1.NewTime(o.Started)
			}
			if !o.Finished.IsZero() {
				status["completionTime"] = metav1.NewTime(o.Finished)
			}
		default:
			status["replicas"], status["readyReplicas"], status["availableReplicas"] = s.Current, s.Ready, s.Available
			if o.Kind == "Deployment" {
				status["updatedReplicas"], status["unavailableReplicas"] = s.Updated, max(0, s.Desired-s.Available)
			}
		}
		out["status"] = status
	}
	return out
}

// hideSecret replaces the values of a Secret. The inventory holds none; this is the second lock.
func hideSecret(secret map[string]any) {
	for _, field := range []string{"data", "stringData"} {
		values, ok := secret[field].(map[string]any)
		if !ok {
			continue
		}
		for k := range values {
			values[k] = "(sensitive)"
		}
	}
}

// own gives one of fairlead's own things a kind and an apiVersion.
func own(kind string, v any) map[string]any {
	b, err := json.Marshal(v)
	if err != nil {
		return map[string]any{"apiVersion": api.Group + "/v1", "kind": kind, "error": err.Error()}
	}
	out := map[string]any{}
	_ = json.Unmarshal(b, &out) // what was just marshalled
	out["apiVersion"], out["kind"] = api.Group+"/v1", kind
	return out
}

// list is Kubernetes' List.
func list(items []any) any {
	if items == nil {
		items = []any{}
	}
	return map[string]any{"apiVersion": "v1", "kind": "List", "metadata": map[string]any{}, "items": items}
}

package daemon

import (
	"encoding/json"
	"errors"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/reconcile"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/sources"
)

// revisionFrom returns a snapshot's revision as the read model has it.
func revisionFrom(s sources.Snapshot) api.Revision {
	if s.Revision == "" {
		return api.Revision{}
	}
	r := api.Revision{
		ID: string(s.Revision), Short: s.Revision.Short(), Ref: s.Ref,
		Committed: s.Committed, Author: s.Author, Message: firstLine(s.Message),
	}
	for _, by := range s.Signatures {
		r.Signatures = append(r.Signatures, api.Signature{Object: by.Object, Format: by.Format, Key: by.Key, Name: by.Name})
	}
	return r
}

// verified says whether the newest revision of a source has the signatures that it has to have; false when it needs none.
func verified(st reconcile.SourceStatus) (api.Condition, bool) {
	c := api.Condition{Type: "SourceVerified", Status: "True", Reason: "Verified", Message: signedBy(st.Snapshot.Signatures), Since: st.Fetched}
	var refusal *sources.Refusal
	if errors.As(st.Err, &refusal) {
		c.Status, c.Reason, c.Message = "False", refusal.Reason, refusal.Text
	}
	return c, c.Status == "False" || c.Message != ""
}

// revisionOf returns a revision of which only the id is known, or the snapshot's when it is that one.
func revisionOf(id string, s sources.Snapshot) api.Revision {
	if id == "" || id == string(s.Revision) {
		r := revisionFrom(s)
		if id == "" {
			return api.Revision{}
		}
		return r
	}
	return api.Revision{ID: id, Short: sources.Revision(id).Short()}
}

// failureFrom returns why the newest revision of an application failed as the read model has it.
func failureFrom(st reconcile.Status, s sources.Snapshot) *api.Failure {
	f := st.Failure
	if f == nil {
		return nil
	}
	out := &api.Failure{
		Revision: revisionOf(f.Revision, s), At: f.At, Reason: f.Reason, Message: f.Message,
		Back: revisionOf(f.Back, s), BackAt: f.BackAt, BackReason: f.BackReason, BackMessage: f.BackMessage,
	}
	if st.Back && f.Back == "" { // it is about to
		out.Back = revisionOf(st.Applied, s)
	}
	return out
}

// applicationFrom returns the state of an application as the read model has it.
func applicationFrom(st reconcile.Status, source reconcile.SourceStatus, pods []api.Pod, declaredBy string) api.Application {
	c := st.Config
	a := api.Application{
		Name: c.Name, Source: c.Source, Path: c.Path, DeclaredBy: declaredBy, Identity: c.Identity,
		Revision: revisionOf(string(st.Revision), source.Snapshot),
		Applied:  revisionOf(st.Applied, source.Snapshot), LastApplied: st.AppliedAt,
		Failure: failureFrom(st, source.Snapshot),
		Health:  api.Health(st.Health), Reason: st.Reason, Message: st.Detail,
		Suspended: c.Suspend, DependsOn: c.DependsOn, Objects: len(st.Desired.Objects), Pods: len(pods),
		Workloads: st.Plan.Status, Drift: st.Plan.Drift, Blocked: st.Plan.Blocked, Diagnostics: st.Diags.Sorted(), NextRun: st.Next,
	}
	if c.Suspend && !c.Frozen {
		a.Suspension = &c.Suspension
	}
	for _, p := range pods {
		if p.IsReady {
			a.PodsReady++
		}
	}
	a.Ready = st.Health == reconcile.Healthy && st.Applied == string(st.Revision) && !st.Walking
	a.Phase = "Waiting"
	if st.Walking {
		a.Phase = "Applying"
		open := st.Plan.Open() // the rest comes when this is healthy
		add, change, destroy := open.Counts()
		a.Pending = &api.Counts{Add: add, Change: change, Destroy: destroy}
		a.StepsTotal = len(open.Steps)
	}
	ready := api.Condition{Type: "Ready", Status: "False", Reason: st.Reason, Message: st.Detail, Since: st.AppliedAt}
	if a.Ready {
		ready.Status = "True"
	}
	a.Conditions = []api.Condition{ready}
	if c, ok := verified(source); ok {
		a.Conditions = append(a.Conditions, c)
	}
	return a
}

// objectFrom returns an object of an application as the read model has it.
func objectFrom(o object.Object, application string, status []plan.WorkloadStatus, applied plan.Applied) api.Object {
	out := api.Object{
		Ref: o.Ref, APIVersion: o.APIVersion, Application: application, Origin: o.Origin,
		Manifest: json.RawMessage(o.Written), Created: applied.Created, Finished: applied.Finished,
	}
	if m, err := meta.Accessor(o.Value); err == nil {
		out.Labels = m.GetLabels()
	}
	if len(o.Hidden) > 0 {
		out.Manifest = plan.WithoutHidden(o.Written, o.Hidden)
	}
	if i := slices.IndexFunc(status, func(s plan.WorkloadStatus) bool { return s.Ref == o.Ref }); i >= 0 {
		out.Status = &status[i]
	}
	switch v := o.Value.(type) {
	case *appsv1.Deployment:
		template(&out, v.Spec.Template.Spec, v.Spec.Selector)
	case *appsv1.DaemonSet:
		template(&out, v.Spec.Template.Spec, v.Spec.Selector)
	case *appsv1.StatefulSet:
		template(&out, v.Spec.Template.Spec, v.Spec.Selector)
	case *appsv1.ReplicaSet:
		template(&out, v.Spec.Template.Spec, v.Spec.Selector)
	case *batchv1.Job:
		template(&out, v.Spec.Template.Spec, v.Spec.Selector)
		if v.Spec.Suspend == nil || !*v.Spec.Suspend {
			out.Started = applied.Created // its pods are made at once
		}
		if v.Spec.Completions != nil {
			out.Completions = int(*v.Spec.Completions)
		}
	case *corev1.Pod:
		template(&out, v.Spec, nil)
	case *corev1.ConfigMap:
		out.Keys = map[string]int{}
		for k, s := range v.Data {
			out.Keys[k] = len(s)
		}
		for k, b := range v.BinaryData {
			out.Keys[k] = len(b)
		}
	case *corev1.Secret:
		out.Type, out.Keys = string(v.Type), map[string]int{}
		for k, b := range v.Data {
			out.Keys[k] = len(b)
		}
		for k, s := range v.StringData {
			out.Keys[k] = len(s)
		}
		out.Manifest = withoutValues(o.Written)
	}
	return out
}

// withoutValues returns the manifest of a Secret without its values. A last-applied annotation may hold
// them too, so it goes.
func withoutValues(written []byte) json.RawMessage {
	var m map[string]any
	if json.Unmarshal(written, &m) != nil {
		return nil
	}
	for _, field := range []string{"data", "stringData"} {
		if values, ok := m[field].(map[string]any); ok {
			for k := range values {
				values[k] = "(sensitive)"
			}
		}
	}
	if md, ok := m["metadata"].(map[string]any); ok {
		if an, ok := md["annotations"].(map[string]any); ok {
			delete(an, corev1.LastAppliedConfigAnnotation)
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil
	}
	return b
}

// template adds what a pod template says.
func template(o *api.Object, spec corev1.PodSpec, selector *metav1.LabelSelector) {
	for _, c := range spec.Containers {
		o.Containers = append(o.Containers, c.Name)
		o.Images = append(o.Images, c.Image)
	}
	if selector != nil {
		o.Selector = metav1.FormatLabelSelector(selector)
	}
}

func firstLine(s string) string {
	for i, r := range s {
		if r == '\n' {
			return s[:i]
		}
	}
	return s
}

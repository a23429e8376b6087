package plantest

import (
	"encoding/json"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/simulate"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Object makes an object out of a typed value; what is written is the value itself.
func Object(r object.Ref, apiVersion string, value any) object.Object {
	written, err := json.Marshal(value)
	if err != nil {
		panic("plantest: a typed object is not JSON: " + err.Error())
	}
	var tree any
	if err := json.Unmarshal(written, &tree); err == nil {
		written, _ = json.Marshal(tree) // sorts the keys
	}
	o := object.Object{Ref: r, APIVersion: apiVersion, Written: written, Hash: object.HashBytes(written), Origin: object.Origin{Path: "all.yaml"}}
	switch v := value.(type) {
	case *appsv1.Deployment:
		o.Value = v
	case *appsv1.ReplicaSet:
		o.Value = v
	case *appsv1.StatefulSet:
		o.Value = v
	case *corev1.Pod:
		o.Value = v
	case *corev1.ConfigMap:
		o.Value = v
	case *corev1.PersistentVolume:
		o.Value = v
	case *corev1.PersistentVolumeClaim:
		o.Value = v
	case *batchv1.Job:
		o.Value = v
	case *corev1.Service:
		o.Value = v
	}
	return o
}

// Template returns the pod template of a container with an image.
func Template(image string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{
			{Name: "web", Image: image, ImagePullPolicy: corev1.PullIfNotPresent},
		}},
	}
}

// Deployment returns a Deployment in the namespace shop.
func Deployment(name, image string, replicas int32, change func(*appsv1.Deployment)) object.Object {
	d := &appsv1.Deployment{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, Template: Template(image)},
	}
	if change != nil {
		change(d)
	}
	return Object(object.Ref{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: name}, "apps/v1", d)
}

// ConfigMap returns a ConfigMap in the namespace shop.
func ConfigMap(name, value string) object.Object {
	return Object(object.Ref{Kind: "ConfigMap", Namespace: "shop", Name: name}, "v1", &corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Data: map[string]string{"key": value},
	})
}

// Deployments draws a Deployment with any strategy.
func Deployments(name string) *rapid.Generator[object.Object] {
	return rapid.Custom(func(t *rapid.T) object.Object {
		image := fmt.Sprintf("web:%d", rapid.IntRange(1, 3).Draw(t, "image"))
		replicas := int32(rapid.IntRange(0, 12).Draw(t, "replicas"))
		return Deployment(name, image, replicas, func(d *appsv1.Deployment) {
			bound := func(what string) *intstr.IntOrString {
				v := intstr.FromInt32(int32(rapid.IntRange(0, 4).Draw(t, what)))
				if rapid.Bool().Draw(t, what+" in percent") {
					v = intstr.FromString(fmt.Sprintf("%d%%", rapid.IntRange(0, 100).Draw(t, what+" percent")))
				}
				return &v
			}
			if rapid.IntRange(0, 4).Draw(t, "recreate") == 0 {
				d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType
			} else {
				d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: bound("surge"), MaxUnavailable: bound("unavailable")}
			}
			d.Spec.MinReadySeconds = rapid.SampledFrom([]int32{0, 0, 30}).Draw(t, "min ready")
			d.Spec.Paused = rapid.IntRange(0, 9).Draw(t, "paused") == 0
		})
	})
}

// Pods draws pods of an owner: of the desired template and of others, in any state, also of other applications.
func Pods(w *plan.Workload) *rapid.Generator[[]plan.ObservedPod] {
	return rapid.Custom(func(t *rapid.T) []plan.ObservedPod {
		var pods []plan.ObservedPod
		for i := range rapid.IntRange(0, 16).Draw(t, "pods") {
			p := *w.Pod
			p.Name = fmt.Sprintf("%s-%02d", w.Name, i)
			template := rapid.SampledFrom([]string{"", "", "old-1", "old-1", "old-2"}).Draw(t, "template")
			if template != "" {
				p.Template = template
				spec := p.Spec.DeepCopy()
				spec.Containers[0].Image = template
				p.Spec = spec
			}
			o := simulate.Observe(&p, fmt.Sprintf("uid-%02d", i))
			o.Created = Now.Add(-time.Duration(rapid.IntRange(2, 2000).Draw(t, "age")) * time.Second)
			switch rapid.IntRange(0, 9).Draw(t, "state") {
			case 0, 1, 2, 3, 4:
				o.Ready, o.ReadySince = true, o.Created.Add(time.Second)
			case 5:
				o.Ready, o.ReadySince = true, Now.Add(-5*time.Second)
			case 6:
				o.Phase, o.Reason, o.Finished = corev1.PodFailed, "Evicted", o.Created.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "lived"))*time.Second)
			case 7:
				o.Terminating = true
			case 8:
				o.Application = "other"
			case 9:
				o.Reason = "CrashLoopBackOff"
			}
			pods = append(pods, o)
		}
		return pods
	})
}

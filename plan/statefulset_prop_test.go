package plan_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/plan/simulate"
	"github.com/fairlead-dev/fairlead/render/object"
)

// stateful makes a StatefulSet of the image web:N.
func stateful(t *rapid.T, what string) object.Object {
	replicas := int32(rapid.IntRange(0, 6).Draw(t, what+" replicas"))
	s := &appsv1.StatefulSet{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "StatefulSet"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Template:            plantest.Template(fmt.Sprintf("web:%d", rapid.IntRange(1, 3).Draw(t, what+" image"))),
			PodManagementPolicy: rapid.SampledFrom([]appsv1.PodManagementPolicyType{appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement}).Draw(t, what+" policy"),
			MinReadySeconds:     rapid.SampledFrom([]int32{0, 0, 30}).Draw(t, what+" min ready"),
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{
				ObjectMeta: metav1.ObjectMeta{Name: "data"},
				Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod},
					Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}},
			}},
			UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType},
		},
	}
	if start := int32(rapid.SampledFrom([]int{0, 0, 0, 2}).Draw(t, what+" start")); start > 0 {
		s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: start}
	}
	partition, most := int32(rapid.IntRange(0, 3).Draw(t, what+" partition")), intstr.FromInt32(int32(rapid.IntRange(1, 3).Draw(t, what+" unavailable")))
	s.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: &partition, MaxUnavailable: &most}
	if rapid.IntRange(0, 5).Draw(t, what+" on delete") == 0 {
		s.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType}
	}
	if rapid.IntRange(0, 3).Draw(t, what+" deletes claims") == 0 {
		s.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
			WhenScaled: appsv1.DeletePersistentVolumeClaimRetentionPolicyType, WhenDeleted: appsv1.RetainPersistentVolumeClaimRetentionPolicyType,
		}
	}
	return plantest.Object(object.Ref{Group: "apps", Kind: "StatefulSet", Namespace: "shop", Name: "db"}, "apps/v1", s)
}

// rest is what a set that is applied comes to when nothing goes wrong.
func rest(t *rapid.T, d plan.Desired, o plan.Observed) plan.Observed {
	for range 5 {
		p := plan.Compute(d, o, options)
		if p.Empty() {
			return o
		}
		o = simulate.Plan(d, o, p, options.DigestKey)
	}
	t.Fatalf("it does not come to rest:\n%s", plantest.Text(plan.Compute(d, o, options), plantest.Now))
	return o
}

func ordinal(name string) int {
	n, err := strconv.Atoi(name[strings.LastIndex(name, "-")+1:])
	if err != nil {
		panic(err)
	}
	return n
}

// TestStatefulSets takes the steps of updates of disturbed sets in any order that they allow, and looks at every moment.
func TestStatefulSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before, after := stateful(t, "old"), stateful(t, "new")
		policy := after.Value.(*appsv1.StatefulSet).Spec.PodManagementPolicy
		before.Value.(*appsv1.StatefulSet).Spec.PodManagementPolicy = policy // it is immutable
		before = plantest.Object(before.Ref, before.APIVersion, before.Value)
		spec := after.Value.(*appsv1.StatefulSet).Spec
		old, _ := plan.Expand(shop, []object.Object{before}, true)
		d, _ := plan.Expand(shop, []object.Object{after}, true)
		o := rest(t, old, plan.Observed{Now: plantest.Now, Nodes: []plan.NodeState{{Node: plantest.Node}}})
		o = disturb(t, o)
		first := 0
		if spec.Ordinals != nil {
			first = int(spec.Ordinals.Start)
		}
		last := first + int(*spec.Replicas) - 1
		minReady := time.Duration(spec.MinReadySeconds) * time.Second
		available := func(p *plan.ObservedPod) bool {
			return p.Ready && !p.Terminating && !p.ReadySince.Add(minReady).After(o.Now)
		}
		p := plan.Compute(d, o, options)
		w := simulate.NewWorld(o)
		done := map[plan.StepID]bool{}
		for len(done) < len(p.Steps) {
			var next []plan.Step
			for _, s := range p.Steps {
				if !done[s.ID] && !slices.ContainsFunc(s.After, func(id plan.StepID) bool { return !done[id] }) {
					next = append(next, s)
				}
			}
			if len(next) == 0 {
				t.Fatalf("steps wait for each other:\n%s", p)
			}
			s := rapid.SampledFrom(next).Draw(t, "step")
			now := w.Observed().Nodes[0]
			switch args := s.Args.(type) {
			case plan.CreatePod:
				if slices.ContainsFunc(now.Pods, func(x plan.ObservedPod) bool { return x.Name == args.Pod.Name }) {
					t.Fatalf("%s: there would be two pods of this ordinal\n%s", s, p)
				}
				if n := ordinal(args.Pod.Name); n < first || n > last {
					t.Fatalf("%s: it is not wanted\n%s", s, p)
				}
				claim := plan.ClaimRef("shop", "data-"+args.Pod.Name)
				if !plan.UsesClaim("shop", args.Pod.Spec, claim) || !slices.ContainsFunc(now.Storage, func(x *plan.Storage) bool { return x.Ref == claim }) {
					t.Fatalf("%s: its claim is not there\n%s", s, p)
				}
				several := spec.UpdateStrategy.RollingUpdate != nil && spec.UpdateStrategy.RollingUpdate.MaxUnavailable.IntValue() > 1
				if policy == appsv1.OrderedReadyPodManagement && !several { // otherwise lower ones may be updated at the same time
					for m := first; m < ordinal(args.Pod.Name); m++ {
						i := slices.IndexFunc(now.Pods, func(x plan.ObservedPod) bool { return ordinal(x.Name) == m })
						if i < 0 || !available(&now.Pods[i]) {
							t.Fatalf("%s: ordinal %d is not available before it\n%s", s, m, p)
						}
					}
				}
				w.Create(s.Node, args.Pod, false)
			case plan.DeletePod:
				n := ordinal(args.Pod.Name)
				for i := range now.Pods {
					if m := ordinal(now.Pods[i].Name); policy == appsv1.OrderedReadyPodManagement && n > last && m > n {
						t.Fatalf("%s: ordinal %d goes first\n%s", s, m, p)
					}
				}
				w.Do(s)
			case plan.DeleteStorage:
				if i := slices.IndexFunc(now.Pods, func(x plan.ObservedPod) bool { return plan.UsesClaim("shop", x.Spec, args.Storage) }); i >= 0 {
					t.Fatalf("%s: pod %s uses it\n%s", s, now.Pods[i].Name, p)
				}
				if n := ordinal(args.Storage.Name); n >= first && n <= last || spec.PersistentVolumeClaimRetentionPolicy == nil {
					t.Fatalf("%s: nobody asks for it\n%s", s, p)
				}
				w.Do(s)
			default:
				w.Do(s)
			}
			done[s.ID] = true
		}
		// It ends, unless something is waited for: what stops, and what is looked at later.
		o = simulate.Plan(d, o, p, options.DigestKey)
		for range 6 {
			again := plan.Compute(d, o, options)
			if again.Empty() {
				break
			}
			o = simulate.Plan(d, o, again, options.DigestKey)
		}
		if again := plan.Compute(d, o, options); !again.Empty() && again.Wake.IsZero() {
			t.Fatalf("it does not end:\n%s", plantest.Text(again, plantest.Now))
		}
	})
}

// disturb changes what runs as the world does.
func disturb(t *rapid.T, o plan.Observed) plan.Observed {
	w := simulate.NewWorld(o)
	o = w.Observed()
	pods := o.Nodes[0].Pods
	for i := range pods {
		p := &pods[i]
		switch rapid.IntRange(0, 9).Draw(t, "state") {
		case 0:
			p.Ready, p.Reason = false, "CrashLoopBackOff"
		case 1:
			p.Ready, p.Terminating = false, true
		case 2:
			p.Ready, p.Phase, p.Finished = false, corev1.PodFailed, plantest.Now.Add(-time.Hour)
		case 3:
			p.ReadySince = plantest.Now.Add(-5 * time.Second)
		}
	}
	if len(pods) > 0 && rapid.Bool().Draw(t, "lost") {
		i := rapid.IntRange(0, len(pods)-1).Draw(t, "which")
		o.Nodes[0].Pods = slices.Delete(pods, i, i+1)
	}
	return o
}

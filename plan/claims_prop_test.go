package plan_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/plan/simulate"
	"github.com/fairlead-dev/fairlead/render/object"
)

func modesOf(t *rapid.T, what string) []corev1.PersistentVolumeAccessMode {
	all := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce, corev1.ReadOnlyMany, corev1.ReadWriteMany}
	return all[:rapid.IntRange(1, 3).Draw(t, what+" modes")]
}

// drawStorage draws volumes and claims of few classes and sizes, so that they compete.
func drawStorage(t *rapid.T) []object.Object {
	size := func(what string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(fmt.Sprintf("%dGi", rapid.IntRange(1, 4).Draw(t, what+" size")))}
	}
	var objs []object.Object
	for i := range rapid.IntRange(0, 5).Draw(t, "volumes") {
		name := fmt.Sprintf("v%d", i)
		v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}
		v.Spec.Capacity, v.Spec.AccessModes = size(name), modesOf(t, name)
		v.Spec.StorageClassName = rapid.SampledFrom([]string{"", "", "a"}).Draw(t, name+" class")
		v.Spec.HostPath = &corev1.HostPathVolumeSource{Path: "/srv/" + name}
		if n := rapid.IntRange(0, 9).Draw(t, name+" for"); n < 3 {
			v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "shop", Name: fmt.Sprintf("c%d", n)}
		}
		objs = append(objs, plantest.Object(plan.VolumeRef(name), "v1", v))
	}
	for i := range rapid.IntRange(0, 5).Draw(t, "claims") {
		name := fmt.Sprintf("c%d", i)
		c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
		c.Spec.Resources.Requests, c.Spec.AccessModes = size(name), modesOf(t, name)
		if class := rapid.SampledFrom([]string{"default", "", "", "a", "directory"}).Draw(t, name+" class"); class != "default" {
			c.Spec.StorageClassName = &class
		}
		if n := rapid.IntRange(0, 12).Draw(t, name+" names"); n < 3 {
			c.Spec.VolumeName = fmt.Sprintf("v%d", n)
		}
		objs = append(objs, plantest.Object(plan.ClaimRef("shop", name), "v1", c))
	}
	return objs
}

// TestClaims holds what is bound to what against what was asked for, before and after claims come and go.
func TestClaims(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := plan.Observed{Now: plantest.Now, Nodes: []plan.NodeState{{Node: plantest.Node}}}
		for range 3 {
			objs := drawStorage(t)
			d, _ := plan.Expand(shop, objs, true)
			p := plan.Compute(d, o, options)
			shuffled, _ := plan.Expand(shop, rapid.Permutation(objs).Draw(t, "order"), true)
			if diff := cmp.Diff(p, plan.Compute(shuffled, o, options)); diff != "" {
				t.Fatalf("the plan of shuffled input (-sorted +shuffled):\n%s", diff)
			}
			had := o.Nodes[0].Storage
			o = simulate.Plan(d, o, p, options.DigestKey)
			kept := o.Nodes[0].Storage
			find := func(list []*plan.Storage, r object.Ref) *plan.Storage {
				i := slices.IndexFunc(list, func(x *plan.Storage) bool { return x.Ref == r })
				if i < 0 {
					return nil
				}
				return list[i]
			}
			taken := map[string]object.Ref{}
			for _, x := range kept {
				c := x.Claim
				if c == nil {
					continue
				}
				if other, is := taken[c.Volume]; is {
					t.Fatalf("%s and %s are bound to %s\n%s", other, x.Ref, c.Volume, p)
				}
				taken[c.Volume] = x.Ref
				if before := find(had, x.Ref); before != nil && before.Claim.Volume != c.Volume && find(kept, x.Ref).Created.Equal(before.Created) && !slices.ContainsFunc(p.Steps, func(s plan.Step) bool { return s.Op == plan.OpDeleteStorage && s.Target == x.Ref }) {
					t.Fatalf("%s was bound to %s and is to %s\n%s", x.Ref, before.Claim.Volume, c.Volume, p)
				}
				v := find(kept, plan.VolumeRef(c.Volume))
				switch {
				case find(had, x.Ref) != nil || c.Provisioned:
				case v == nil:
					t.Fatalf("%s is bound to %s, which does not exist\n%s", x.Ref, c.Volume, p)
				case v.Volume.Capacity < c.Request:
					t.Fatalf("%s is bound to %s, which is too small\n%s", x.Ref, c.Volume, p)
				case v.Volume.For != plan.PodKey{} && v.Volume.For.Name != x.Name:
					t.Fatalf("%s is bound to %s, which is for %s\n%s", x.Ref, c.Volume, v.Volume.For, p)
				case slices.ContainsFunc(c.Modes, func(m string) bool { return !slices.Contains(v.Volume.Modes, m) }):
					t.Fatalf("%s is bound to %s, which has not its modes\n%s", x.Ref, c.Volume, p)
				}
			}
			for range 3 { // what keeps a volume goes first
				if p = plan.Compute(d, o, options); p.Empty() {
					break
				}
				o = simulate.Plan(d, o, p, options.DigestKey)
			}
			if !p.Empty() {
				t.Fatalf("it does not end:\n%s", plantest.Text(p, plantest.Now))
			}
		}
	})
}

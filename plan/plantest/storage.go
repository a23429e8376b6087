package plantest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/simulate"
	"github.com/fairlead-dev/fairlead/render/object"
)

// parseStorage adds what the node keeps.
func parseStorage(files map[string][]byte, c *Case, earlier *plan.Desired, node *plan.NodeState, decode Decode) error {
	for line := range lines(files["kept"]) {
		d := *earlier
		word, name, _ := strings.Cut(line, " ")
		switch word {
		case "applied":
		case "desired":
			d = c.Desired
		case "others":
			objs, err := decode("others", files["others"])
			if err != nil {
				return err
			}
			d, _ = plan.Expand(plan.Application{Name: "others"}, objs, true)
		case "released":
			for _, s := range node.Storage {
				if s.Claim != nil && s.Namespace+"/"+s.Name == name {
					node.Storage = plan.WithoutStorage(node.Storage, plan.DeleteStorage{Storage: s.Ref, Application: s.Application, Keep: true})
				}
			}
			continue
		case "without":
			node.Storage = slices.DeleteFunc(node.Storage, func(s *plan.Storage) bool { return s.Namespace+"/"+s.Name == name })
			continue
		default:
			return fmt.Errorf("kept: %q is not understood", line)
		}
		d.Complete = true
		w := simulate.NewWorld(plan.Observed{Now: Now, Nodes: []plan.NodeState{{Node: node.Node, Storage: node.Storage}}})
		for _, s := range plan.Compute(d, w.Observed(), c.Options).Steps {
			if s.Op == plan.OpSetStorage {
				w.Do(s)
			}
		}
		node.Storage = w.Observed().Nodes[0].Storage
	}
	return nil
}

// statefulPod is a pod of a StatefulSet as it would be made; nil for one that would not be.
func statefulPod(d plan.Desired, owner object.Ref, key plan.PodKey) *plan.Pod {
	d.Complete = true
	for i := range d.Objects {
		set, ok := d.Objects[i].Value.(*appsv1.StatefulSet)
		if !ok || d.Objects[i].Ref != owner {
			continue
		}
		n, err := strconv.Atoi(strings.TrimPrefix(key.Name, owner.Name+"-"))
		if err != nil {
			return nil
		}
		// Enough replicas, with no partition: what is wanted of it does not matter here.
		all, replicas := *set, int32(1) //nolint:gosec // ordinals of tests are small
		all.Spec.Replicas, all.Spec.Ordinals, all.Spec.UpdateStrategy.RollingUpdate = &replicas, &appsv1.StatefulSetOrdinals{Start: int32(n)}, nil
		d.Objects = slices.Clone(d.Objects)
		d.Objects[i].Value = &all
	}
	again, _ := plan.Expand(d.Application, d.Objects, true)
	for _, s := range plan.Compute(again, plan.Observed{Now: Now, Nodes: []plan.NodeState{{Node: Node}}}, plan.Options{Node: Node}).Steps {
		if c, ok := s.Args.(plan.CreatePod); ok && c.Pod.PodKey == key && c.Pod.Owner == owner {
			return c.Pod
		}
	}
	return nil
}

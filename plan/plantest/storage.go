package plantest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/simulate"
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

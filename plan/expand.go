package plan

import (
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Workload is an object that runs pods.
type Workload struct {
	object.Object
}

// Expand sorts an application's objects into what the planner works on. It is the only place
// that knows what a workload means.
func Expand(app Application, objs []object.Object, complete bool) (Desired, diag.List) {
	return Desired{Application: app, Objects: objs, Complete: complete}, nil
}

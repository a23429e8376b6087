package daemon

import (
	"cmp"
	"slices"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// kept is what a node keeps of classes, volumes and claims, for the read model.
type kept struct {
	byRef map[object.Ref]*plan.Storage
	// bound says which claim has a PersistentVolume.
	bound   map[string]string
	reclaim map[string]plan.Reclaim
	shown   map[object.Ref]bool
	kinds   []string
}

func keptStorage(list []*plan.Storage, kinds []string) *kept {
	k := &kept{byRef: map[object.Ref]*plan.Storage{}, bound: map[string]string{}, reclaim: map[string]plan.Reclaim{}, shown: map[object.Ref]bool{}, kinds: kinds}
	for _, x := range list {
		k.byRef[x.Ref] = x
		if c := x.Claim; c != nil {
			k.reclaim[c.Volume] = c.Reclaim
			k.bound[c.Volume] = x.Namespace + "/" + x.Name
			if v := provisioned(x); v != nil && k.byRef[v.Ref] == nil {
				k.byRef[v.Ref] = v
			}
		}
	}
	return k
}

// provisioned is the PersistentVolume of a claim that was made for it; nil where it was not.
func provisioned(x *plan.Storage) *plan.Storage {
	v := x.Left(true)
	if v == nil {
		return nil
	}
	volume := *v.Volume
	volume.Released = plan.PodKey{}
	v.Application, v.Volume = x.Application, &volume
	return v
}

// describe adds to an object what the node keeps of it.
func (k *kept) describe(o *api.Object) {
	if x := k.byRef[o.Ref]; x != nil {
		o.Storage, k.shown[o.Ref] = x, true
		if x.Volume != nil {
			o.BoundTo, o.Reclaim = k.bound[x.Name], cmp.Or(k.reclaim[x.Name], plan.Retain)
		}
	}
}

// others are objects that are in no source: claims of StatefulSets, volumes that were made, and those that keep what a
// deleted claim held.
func (k *kept) others() []api.Object {
	var out []api.Object
	for r, x := range k.byRef {
		if k.shown[r] || len(k.kinds) > 0 && !slices.Contains(k.kinds, r.Kind) {
			continue
		}
		o := api.Object{Ref: r, APIVersion: "v1", Application: x.Application, Created: x.Created, Labels: x.Labels}
		if r.Group != "" {
			o.APIVersion = r.Group + "/v1"
		}
		k.describe(&o)
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b api.Object) int { return object.Compare(a.Ref, b.Ref) })
	return out
}

package cli

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/plan"
)

// claimPhase is the word for a claim as kubectl has it.
func claimPhase(o api.Object) string {
	if o.Storage != nil && o.Storage.Claim != nil {
		return "Bound"
	}
	return "Pending"
}

func volumePhase(o api.Object) string {
	switch {
	case o.BoundTo != "":
		return "Bound"
	case o.Storage == nil || o.Storage.Volume == nil:
		return "Pending"
	case o.Storage.Volume.Released != plan.PodKey{}:
		return "Released"
	}
	return "Available"
}

// accessModes are the modes as kubectl shortens them.
func accessModes(modes []string) string {
	short := map[string]string{"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
	out := make([]string, len(modes))
	for i, m := range modes {
		out[i] = cmp.Or(short[m], m)
	}
	return strings.Join(out, ",")
}

func claimCells(o api.Object, _ plan.WorkloadStatus) []string {
	if claimPhase(o) == "Pending" {
		return []string{"Pending", "", "", "", ""}
	}
	c := o.Storage.Claim
	return []string{"Bound", c.Volume, plan.Quantity(c.Capacity), accessModes(c.Modes), c.Class}
}

func volumeCells(o api.Object, _ plan.WorkloadStatus) []string {
	if o.Storage == nil || o.Storage.Volume == nil {
		return []string{"", "", "", "Pending", "", ""}
	}
	v := o.Storage.Volume
	claim := o.BoundTo
	if claim == "" && v.Released != (plan.PodKey{}) {
		claim = v.Released.String()
	}
	return []string{plan.Quantity(v.Capacity), accessModes(v.Modes), string(cmp.Or(o.Reclaim, plan.Retain)), volumePhase(o), claim, v.Class}
}

func classCells(o api.Object, _ plan.WorkloadStatus) []string {
	if o.Storage == nil || o.Storage.Class == nil {
		return []string{"", "", ""}
	}
	c := o.Storage.Class
	return []string{c.Provisioner, string(c.Reclaim), fmt.Sprint(c.Expand)}
}

// storage says what a claim is bound to, and where the data is.
func (d describer) storage(o api.Object) {
	switch o.Kind {
	case "PersistentVolumeClaim":
		d.field("Phase", claimPhase(o))
	case "PersistentVolume":
		d.field("Phase", volumePhase(o))
		d.field("Claim", o.BoundTo)
	}
	x := o.Storage
	if x == nil {
		return
	}
	where := func(s plan.Source) {
		d.field("Data", s.String())
		if s.ReadOnly {
			d.field("Read only", "yes")
		}
	}
	switch {
	case x.Claim != nil:
		c := x.Claim
		if x.Owner.Kind != "" {
			d.field("Made for", x.Owner.String())
		}
		d.field("Volume", c.Volume)
		d.field("Class", c.Class)
		d.field("Capacity", plan.Quantity(c.Capacity))
		d.field("Access modes", strings.Join(c.Modes, ", "))
		d.field("When deleted", map[plan.Reclaim]string{plan.Delete: "what it holds is deleted", plan.Retain: "what it holds is kept"}[c.Reclaim])
		where(c.Source)
	case x.Volume != nil:
		v := x.Volume
		if v.Released != (plan.PodKey{}) {
			d.field("Released by", "claim "+v.Released.String())
		}
		if v.For != (plan.PodKey{}) {
			d.field("Kept for", "claim "+v.For.String())
		}
		d.field("Class", v.Class)
		d.field("Capacity", plan.Quantity(v.Capacity))
		d.field("Access modes", strings.Join(v.Modes, ", "))
		where(v.Source)
	case x.Class != nil:
		d.field("Provisioner", x.Class.Provisioner)
		d.lines("Parameters", keyValues(x.Class.Parameters))
		d.field("Reclaim policy", string(x.Class.Reclaim))
	}
}

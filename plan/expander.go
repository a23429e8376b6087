package plan

import (
	"maps"
	"reflect"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Expander expands the objects of one application time after time, with the results of Expand. It keeps what it
// made of every object and makes it again only for those that are not the very same, so that the cost of a change
// is that of what changed. The zero value is ready for use, by one goroutine at a time.
type Expander struct {
	application string
	kept        []*expanded // sorted, one for each object of the last result
	configs     map[object.Ref]Config
}

// expanded is what one object became.
type expanded struct {
	object object.Object
	// found is what is unsupported of it, missing what its pods refer to in vain.
	found, missing diag.List
	// config is set for a ConfigMap or Secret, workload for what runs pods, and uses is then what the pods refer to.
	config   *Config
	workload *Workload
	uses     []configUse
	resolved bool // missing and the workload's configs were looked up
}

// Expand is the function Expand.
func (e *Expander) Expand(app Application, objs []object.Object, complete bool) (Desired, diag.List) {
	d := Desired{Application: app, Complete: complete}
	var found diag.List
	d.Objects, found = withoutDuplicates(sortedBy(objs, compareObjects))
	if e.application != app.Name {
		*e = Expander{application: app.Name}
	}
	now := make([]*expanded, len(d.Objects))
	configs := changes{}
	next, workloads := 0, 0
	for i := range d.Objects {
		o := &d.Objects[i]
		for next < len(e.kept) && object.Compare(e.kept[next].object.Ref, o.Ref) < 0 {
			configs.gone(e.kept[next].config)
			next++
		}
		var had *expanded
		if next < len(e.kept) && e.kept[next].object.Ref == o.Ref {
			had = e.kept[next]
			next++
		}
		if had != nil && identical(&had.object, o) {
			now[i] = had
		} else {
			now[i] = expand(app, *o)
			if had != nil {
				configs.gone(had.config)
			}
			configs.come(now[i].config)
		}
		if now[i].workload != nil {
			workloads++
		}
		found = append(found, now[i].found...)
	}
	for ; next < len(e.kept); next++ {
		configs.gone(e.kept[next].config)
	}
	d.Configs = configs.apply(e.configs)

	d.Workloads = make([]Workload, 0, workloads)
	for _, x := range now {
		if x.workload == nil {
			continue
		}
		if again := !x.resolved || configs.touch(x.uses); again || x.workload.Pod.SourceRevision != app.Revision {
			w, p := *x.workload, *x.workload.Pod
			w.Pod, p.SourceRevision = &p, app.Revision
			if again {
				p.Configs, x.missing = resolveConfigs(&w, x.uses, d.Configs)
			}
			x.workload, x.resolved = &w, true
		}
		found = append(found, x.missing...)
		d.Workloads = append(d.Workloads, *x.workload)
	}
	if workloads == 0 {
		d.Workloads = nil
	}
	e.kept, e.configs = now, d.Configs
	return d, found
}

// expand makes of an object what follows from it alone.
func expand(app Application, o object.Object) *expanded {
	x := &expanded{object: o, found: unsupported(o)}
	if c, ok := configOf(o); ok {
		x.config = &c
	}
	if w, ok := workloadOf(app, o); ok {
		x.workload, x.uses = &w, configUses(w.Namespace, w.Pod.Spec)
	}
	return x
}

// identical reports whether two objects of the same Ref are one and the same.
func identical(a, b *object.Object) bool {
	if a.Hash != b.Hash || a.APIVersion != b.APIVersion || a.Origin != b.Origin || len(a.Written) != len(b.Written) {
		return false
	}
	if len(a.Written) > 0 && &a.Written[0] != &b.Written[0] {
		return false
	}
	x, y := reflect.ValueOf(a.Value), reflect.ValueOf(b.Value)
	return x.Kind() == reflect.Pointer && y.Kind() == reflect.Pointer && x.Type() == y.Type() && x.Pointer() == y.Pointer()
}

// changes are the configs that are not what they were; nil stands for one that is gone.
type changes map[object.Ref]*Config

func (c changes) gone(old *Config) {
	if old != nil {
		c[old.Ref] = nil
	}
}

func (c changes) come(fresh *Config) {
	if fresh != nil {
		c[fresh.Ref] = fresh
	}
}

// apply returns the configs after the changes, without modifying them.
func (c changes) apply(old map[object.Ref]Config) map[object.Ref]Config {
	if len(c) == 0 && old != nil {
		return old
	}
	now := make(map[object.Ref]Config, max(len(old), len(c)))
	maps.Copy(now, old)
	for r, fresh := range c {
		if fresh == nil {
			delete(now, r)
		} else {
			now[r] = *fresh
		}
	}
	return now
}

// touch reports whether any of the configs is used.
func (c changes) touch(uses []configUse) bool {
	if len(c) == 0 {
		return false
	}
	for i := range uses {
		if _, ok := c[uses[i].ref]; ok {
			return true
		}
	}
	return false
}

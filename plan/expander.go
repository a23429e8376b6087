package plan

import (
	"reflect"
	"slices"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Expander expands the objects of one application time after time, with the results of Expand. It keeps what it
// made of every object and makes it again only for those that are not the very same, so that the cost of a change
// is that of what changed. The zero value is ready for use, by one goroutine at a time.
type Expander struct {
	application string
	kept        []*expanded // sorted, one for each object of the last result
	configs     Configs
	// services and endpoints are those of the last result.
	services  []DesiredService
	endpoints []DesiredEndpoints
	revision  string // of services
}

// expanded is what one object became.
type expanded struct {
	object object.Object
	order  Order
	// missing is what its pods refer to in vain.
	missing diag.List
	// config is set for a ConfigMap or Secret, workload for what runs pods, and uses is then what the pods refer to.
	config   *Config
	workload *Workload
	uses     []configUse
	resolved bool // missing and the workload's configs were looked up
	// service and endpoints are set for objects that mean such.
	service   *Service
	endpoints *EndpointSlice
}

// networked reports whether Services depend on the object: it is one, it has endpoints, or it runs pods.
func (x *expanded) networked() bool {
	return x.service != nil || x.endpoints != nil || x.workload != nil
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
	moved := e.revision != app.Revision // Services are not what they were
	configs := changes{}
	next, workloads := 0, 0
	for i := range d.Objects {
		o := &d.Objects[i]
		for next < len(e.kept) && object.Compare(e.kept[next].object.Ref, o.Ref) < 0 {
			configs.gone(e.kept[next].config)
			moved = moved || e.kept[next].networked()
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
				moved = moved || had.networked()
			}
			moved = moved || now[i].networked()
			configs.come(now[i].config)
		}
		if now[i].workload != nil {
			workloads++
		}
		if order := now[i].order; order != (Order{}) {
			if d.Orders == nil {
				d.Orders = map[object.Ref]Order{}
			}
			d.Orders[o.Ref] = order
		}
	}
	for ; next < len(e.kept); next++ {
		configs.gone(e.kept[next].config)
		moved = moved || e.kept[next].networked()
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
	found = append(found, tooManyPods(d.Workloads)...)
	if moved {
		e.services, e.endpoints = servicesOf(now, app)
	}
	d.Services, d.Endpoints = e.services, e.endpoints
	e.kept, e.configs, e.revision = now, d.Configs, app.Revision
	return d, found
}

// expand makes of an object what follows from it alone.
func expand(app Application, o object.Object) *expanded {
	x := &expanded{object: o, order: orderOf(o.Written)}
	if x.order.Skip {
		return x
	}
	if c, ok := configOf(o); ok {
		x.config = &c
	}
	if w, ok := workloadOf(app, o); ok {
		x.workload, x.uses = &w, configUses(w.Namespace, w.Pod.Spec)
	}
	if s, ok := serviceOf(app, o); ok {
		x.service = s
	}
	if s, ok := endpointsOf(app, o); ok {
		x.endpoints = s
	}
	return x
}

// servicesOf collects Services with what they select, and hand-written endpoints.
func servicesOf(all []*expanded, app Application) (services []DesiredService, endpoints []DesiredEndpoints) {
	var workloads selection
	for _, x := range all {
		if x.workload != nil {
			workloads.add(x.workload.Namespace, x.workload.Pod.Labels, x.workload.Ref)
		}
	}
	for _, x := range all {
		switch {
		case x.service != nil:
			s := *x.service
			s.SourceRevision = app.Revision
			services = append(services, DesiredService{Object: x.object, Service: &s, Selects: workloads.selectedBy(&s)})
		case x.endpoints != nil:
			endpoints = append(endpoints, DesiredEndpoints{Object: x.object, Endpoints: x.endpoints})
		}
	}
	return services, endpoints
}

// identical reports whether two objects of the same Ref are one and the same.
func identical(a, b *object.Object) bool {
	if a.Hash != b.Hash || a.APIVersion != b.APIVersion || a.Origin != b.Origin || !slices.Equal(a.Places, b.Places) || !slices.Equal(a.Hidden, b.Hidden) || len(a.Written) != len(b.Written) {
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
func (c changes) apply(old Configs) Configs {
	if len(c) == 0 {
		return old
	}
	var put []Config
	var gone []object.Ref
	for r, fresh := range c {
		if fresh == nil {
			gone = append(gone, r)
		} else {
			put = append(put, *fresh)
		}
	}
	return object.Edit(old, configName, put, gone)
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

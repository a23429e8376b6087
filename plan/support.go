package plan

import (
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// support is what becomes of a field of the Kubernetes API.
type support string

// The kinds of support. A field that works can still have values that do not: see row.
const (
	works    support = "works"
	noEffect support = "no effect"
	refused  support = "refused"
)

// section holds the rows of one struct of the API. Its fields are looked at wherever the struct stands.
type section struct {
	typ   reflect.Type
	title string
	rows  []row
}

// row says what becomes of a field.
type row struct {
	field   string // its name in JSON
	support support
	// note is for the documentation, and for the finding when the field does not work: then it says why.
	note string
	// hint says what to write instead.
	hint string
	// info makes the finding about a field without effect an Info: nothing is lost.
	info bool
	// allowed says which values of a field that does not work are as good as none.
	allowed func(v any) bool
	// except returns what is wrong with a value of a field that works; the zero row when it is fine.
	except func(at path, v any) row
}

// unsupported returns a finding for every field of the object that is refused or has no effect. Objects
// of kinds that are not run have none: they are refused as a whole elsewhere.
func unsupported(o object.Object) diag.List {
	v := reflect.ValueOf(o.Value)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return nil
	}
	w := supportWalk{object: o, index: supportIndex()}
	if w.index[v.Type().Elem()] == nil {
		return nil
	}
	w.value(path{}, v)
	return w.found
}

// structFields is a struct of the table, prepared so that looking at a value asks reflect for as little as possible.
type structFields struct {
	fields []structField
	// names are the fields that an element of a list can be named by, the first choice first.
	names [][]int
}

// structField is a field that is looked at: one of JSON, or what is inline.
type structField struct {
	index  int
	name   string
	inline bool
	row    row
}

// supportIndex finds the rows of a struct. It follows from the table alone.
var supportIndex = sync.OnceValue(func() map[reflect.Type]*structFields {
	index := make(map[reflect.Type]*structFields, len(fieldTable))
	for typ, rows := range tableRows() {
		known := &structFields{names: nameFields(typ)}
		for i := range typ.NumField() {
			name, inline := jsonName(typ.Field(i))
			if inline || name != "" {
				known.fields = append(known.fields, structField{index: i, name: name, inline: inline, row: rows[name]})
			}
		}
		index[typ] = known
	}
	return index
})

// tableRows is the table by struct and field.
func tableRows() map[reflect.Type]map[string]row {
	table := make(map[reflect.Type]map[string]row, len(fieldTable))
	for _, s := range fieldTable {
		rows := make(map[string]row, len(s.rows))
		for _, r := range s.rows {
			rows[r.field] = r
		}
		table[s.typ] = rows
	}
	return table
}

// supportWalk is the state of one look at an object.
type supportWalk struct {
	object object.Object
	index  map[reflect.Type]*structFields
	found  diag.List
}

func (w *supportWalk) value(p path, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			w.value(p, v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			e := v.Index(i)
			known := w.index[e.Type()]
			if known == nil {
				return // of what is not in the table nothing is reported
			}
			w.fields(p.element(elementName(e, known.names, i)), e, known)
		}
	case reflect.Struct:
		if known := w.index[v.Type()]; known != nil {
			w.fields(p, v, known)
		}
	case reflect.Map:
		if list, ok := v.Interface().(corev1.ResourceList); ok {
			w.resources(p, list)
		}
	}
}

func (w *supportWalk) fields(p path, v reflect.Value, known *structFields) {
	for i := range known.fields {
		field := &known.fields[i]
		f := v.Field(field.index)
		if f.IsZero() {
			continue
		}
		if field.inline {
			w.value(p, f)
			continue
		}
		r, at := &field.row, p.key(field.name)
		switch r.support {
		case works:
			if r.except != nil {
				if bad := r.except(at, plainValue(f)); bad.support != "" {
					w.report(at, bad)
					continue
				}
			}
			w.value(at, f)
		case noEffect, refused:
			if r.allowed == nil || !r.allowed(plainValue(f)) {
				w.report(at, *r)
			}
		}
	}
}

// resources looks at the names of resources, which are keys and not fields.
func (w *supportWalk) resources(p path, list corev1.ResourceList) {
	for _, name := range slices.Sorted(maps.Keys(list)) {
		if r := resourceRow(name); r.support != works {
			w.report(p.key(string(name)), r)
		}
	}
}

func (w *supportWalk) report(at path, r row) {
	d := diag.Diagnostic{Ref: w.object.Ref, Origin: w.object.Origin, Field: at.shown, Hint: r.hint}
	if r.support == refused {
		d.Severity, d.Code, d.Message = diag.Error, "unsupported-field", "is not supported: "+r.note
	} else {
		d.Severity, d.Code, d.Message = diag.Warning, "no-effect", "has no effect: "+r.note
		if r.info {
			d.Severity = diag.Info
		}
	}
	w.found = append(w.found, d)
}

// jsonName returns the name of a field in JSON, or that the fields of what it holds stand in its place.
func jsonName(f reflect.StructField) (name string, inline bool) {
	name, _, _ = strings.Cut(f.Tag.Get("json"), ",")
	return name, f.Anonymous && name == ""
}

// plainValue returns what a field holds, without the pointer.
func plainValue(v reflect.Value) any {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	return v.Interface()
}

// nameFields returns the fields that an element of a list can be named by.
func nameFields(t reflect.Type) [][]int {
	var out [][]int
	for _, name := range [...]string{"Name", "ContainerPort", "MountPath", "DevicePath", "IP", "Path", "ConditionType"} {
		f, ok := t.FieldByName(name)
		if ok && (f.Type.Kind() == reflect.String || f.Type.Kind() == reflect.Int32) {
			out = append(out, f.Index)
		}
	}
	return out
}

// elementName returns the name of an element of a list, or its position.
func elementName(v reflect.Value, names [][]int, i int) string {
	for _, f := range names {
		switch n := v.FieldByIndex(f); n.Kind() {
		case reflect.String:
			if n.Len() > 0 {
				return n.String()
			}
		case reflect.Int32:
			return strconv.FormatInt(n.Int(), 10)
		}
	}
	return strconv.Itoa(i)
}

package plan

import (
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/fairlead-dev/fairlead/render/diag"
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

// Unsupported returns a finding for every field of an object that is refused or has no effect, and for what is
// wrong with Fairlead's own annotations and with objects as parts of Services. Objects
// of kinds that are not run have none: they are refused as a whole elsewhere. It is for when the object is
// decoded, since only then the lines of its fields are known.
func Unsupported(o runtime.Object) []diag.Finding {
	v := reflect.ValueOf(o)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return nil
	}
	w := supportWalk{index: supportIndex()}
	if w.index[v.Type().Elem()] == nil {
		return checkOrder(o)
	}
	w.value(path{}, v)
	return append(append(w.found, checkNetwork(o)...), checkOrder(o)...)
}

// structFields is a struct of the table, prepared so that looking at a value asks reflect for as little as possible.
type structFields struct{ fields []structField }

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
		known := &structFields{}
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
	index map[reflect.Type]*structFields
	found []diag.Finding
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
			w.fields(p.element(strconv.Itoa(i)), e, known)
		}
	case reflect.Struct:
		if known := w.index[v.Type()]; known != nil {
			w.fields(p, v, known)
		}
		if v.Type() == requirements {
			w.resources(p, v.Interface().(corev1.ResourceRequirements))
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

var requirements = reflect.TypeFor[corev1.ResourceRequirements]()

// resources looks at the names of resources, which are keys and not fields. One that has the same request and
// limit is reported once, at the limit: a request that is not written becomes what the limit is.
func (w *supportWalk) resources(p path, of corev1.ResourceRequirements) {
	for _, name := range slices.Sorted(maps.Keys(of.Limits)) {
		if r := resourceRow(name); r.support != works {
			w.report(p.key("limits").key(string(name)), r)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(of.Requests)) {
		if limit, limited := of.Limits[name]; limited && limit.Cmp(of.Requests[name]) == 0 {
			continue
		}
		if r := resourceRow(name); r.support != works {
			w.report(p.key("requests").key(string(name)), r)
		}
	}
}

func (w *supportWalk) report(at path, r row) {
	d := diag.Finding{Field: at.shown, Hint: r.hint}
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

package decode

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-dev/fairlead/render/diag"
)

var (
	quantityType  = reflect.TypeFor[resource.Quantity]()
	intOrStrType  = reflect.TypeFor[intstr.IntOrString]()
	timeType      = reflect.TypeFor[metav1.Time]()
	microTimeType = reflect.TypeFor[metav1.MicroTime]()
	durationType  = reflect.TypeFor[metav1.Duration]()
	unmarshaler   = reflect.TypeFor[json.Unmarshaler]()
)

// maxQuantity is how long the text of a quantity may be.
const maxQuantity = 64

// isQuantity reports whether a text is a quantity. One with many digits, or with a large exponent, takes the parser and
// whoever calculates with it more time than anything else in a manifest.
func isQuantity(text string) bool {
	if len(text) > maxQuantity {
		return false
	}
	if i := strings.IndexAny(text, "eE"); i >= 0 && len(strings.TrimLeft(text[i+1:], "+-0")) > 2 {
		return false
	}
	_, err := resource.ParseQuantity(text)
	return err == nil
}

// strict compares v with the Go type that it is to be decoded into, reports what does not fit, and returns v
// without that, so that the rest can be decoded. Maps are changed in place.
func strict(v any, t reflect.Type, p Path, r *reporter) (any, bool) {
	if v == nil {
		return nil, true
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	wrong := func(want, hint string) (any, bool) {
		r.bad = append(r.bad, p)
		r.at(diag.Error, "wrong-type", p, "must be "+want+", not "+r.describe(v), hint)
		return nil, false
	}
	switch t {
	case quantityType:
		var text string
		switch n := v.(type) {
		case string:
			text = n
		case int64:
			text = strconv.FormatInt(n, 10)
		case float64:
			text = strconv.FormatFloat(n, 'f', -1, 64)
		default:
			return wrong("a quantity", "for example 100m, 0.5 or 64Mi")
		}
		if !isQuantity(text) {
			r.bad = append(r.bad, p)
			r.hopeless = r.hopeless || len(text) > maxQuantity
			r.at(diag.Error, "bad-quantity", p, fmt.Sprintf("%.100q is not a quantity", text), "for example 100m, 0.5 or 64Mi")
			return nil, false
		}
		return v, true
	case intOrStrType:
		switch n := v.(type) {
		case string:
			return v, true
		case int64:
			if n >= math.MinInt32 && n <= math.MaxInt32 {
				return v, true
			}
			return wrong("a whole number of 32 bits or text", "")
		}
		return wrong("a whole number or text", "")
	case timeType, microTimeType:
		s, ok := v.(string)
		if !ok {
			return wrong("a time", "for example 2026-01-31T12:00:00Z")
		}
		if _, err := time.Parse(time.RFC3339, s); err != nil {
			return wrong("a time", "for example 2026-01-31T12:00:00Z")
		}
		return v, true
	case durationType:
		if s, ok := v.(string); ok {
			if _, err := time.ParseDuration(s); err == nil {
				return v, true
			}
		}
		return wrong("a duration", "for example 30s or 1h30m")
	}
	switch t.Kind() {
	case reflect.Interface:
		return v, true
	case reflect.String:
		if _, ok := v.(string); ok {
			return v, true
		}
		hint := ""
		switch v.(type) {
		case bool, int64, float64:
			hint = "write it in quotes"
		}
		return wrong("text", hint)
	case reflect.Bool:
		if _, ok := v.(bool); ok {
			return v, true
		}
		hint := ""
		if s, ok := v.(string); ok {
			switch strings.ToLower(s) {
			case "true", "yes", "on", "y":
				hint = "write true without quotes"
			case "false", "no", "off", "n":
				hint = "write false without quotes"
			}
		}
		return wrong("true or false", hint)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, ok := v.(int64)
		if !ok {
			hint := ""
			if s, isText := v.(string); isText {
				if _, err := strconv.Atoi(s); err == nil {
					hint = "write it without quotes"
				}
			}
			return wrong("a whole number", hint)
		}
		if reflect.Zero(t).OverflowInt(n) {
			return wrong("a whole number of "+strconv.Itoa(t.Bits())+" bits", "")
		}
		return v, true
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, ok := v.(int64)
		if !ok || n < 0 || reflect.Zero(t).OverflowUint(uint64(n)) {
			return wrong("a whole number that is not negative", "")
		}
		return v, true
	case reflect.Float32, reflect.Float64:
		switch v.(type) {
		case int64, float64:
			return v, true
		}
		return wrong("a number", "")
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			s, ok := v.(string)
			if !ok {
				return wrong("base64", "")
			}
			if _, err := base64.StdEncoding.DecodeString(strings.NewReplacer("\n", "", "\r", "").Replace(s)); err != nil {
				r.bad = append(r.bad, p)
				hint := ""
				if r.secret() && len(p) > 0 && p[0].Key == "data" {
					hint = "plain text belongs under stringData"
				}
				r.at(diag.Error, "bad-base64", p, "is not base64", hint)
				return nil, false
			}
			return v, true
		}
		list, ok := v.([]any)
		if !ok {
			return wrong("a list", "")
		}
		out := list[:0:0]
		for i, e := range list {
			if c, ok := strict(e, t.Elem(), p.Item(i, e), r); ok {
				out = append(out, c)
			} else {
				out = append(out, nil)
			}
		}
		return out, true
	case reflect.Map:
		m, ok := v.(map[string]any)
		if !ok {
			return wrong("a mapping", "")
		}
		for _, k := range slices.Sorted(maps.Keys(m)) {
			c, ok := strict(m[k], t.Elem(), p.Child(k), r)
			if !ok {
				delete(m, k)
				continue
			}
			m[k] = c
		}
		return m, true
	case reflect.Struct:
		if reflect.PointerTo(t).Implements(unmarshaler) {
			return v, true // a type with a form of its own (FieldsV1, RawExtension): decoding checks it
		}
		m, ok := v.(map[string]any)
		if !ok {
			return wrong("a mapping", "")
		}
		fields := fieldsOf(t)
		for _, k := range slices.Sorted(maps.Keys(m)) {
			ft, known := fields[k]
			if !known && r.foldCase {
				ft, known = foldField(fields, k)
			}
			if !known {
				fp := p.Child(k)
				r.bad = append(r.bad, fp)
				r.at(diag.Error, "unknown-field", fp, "is not a field of "+r.owner(p), suggest(k, fields))
				delete(m, k)
				continue
			}
			c, ok := strict(m[k], ft, p.Child(k), r)
			if !ok {
				delete(m, k)
				continue
			}
			m[k] = c
		}
		return m, true
	}
	return v, true
}

// owner names what a field belongs to in messages.
func (r *reporter) owner(p Path) string {
	if len(p) == 0 {
		return r.ref.Kind
	}
	return p.String()
}

// describe names a value in messages without showing it for Secrets.
func (r *reporter) describe(v any) string {
	switch n := v.(type) {
	case bool:
		if r.secret() {
			return "a boolean"
		}
		return strconv.FormatBool(n)
	case int64:
		if r.secret() {
			return "a number"
		}
		return "the number " + strconv.FormatInt(n, 10)
	case float64:
		if r.secret() {
			return "a number"
		}
		return "the number " + strconv.FormatFloat(n, 'g', -1, 64)
	case string:
		if r.secret() || len(n) > 40 {
			return "text"
		}
		return "the text " + strconv.Quote(n)
	case []any:
		return "a list"
	case map[string]any:
		return "a mapping"
	}
	return "that"
}

// fieldsOf returns the JSON fields of a struct, those of embedded structs included.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	if f, ok := fieldCache.Load(t); ok {
		return f.(map[string]reflect.Type)
	}
	out := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && (name == "" || strings.Contains(opts, "inline")) {
			ft := f.Type
			for ft.Kind() == reflect.Pointer {
				ft = ft.Elem()
			}
			maps.Copy(out, fieldsOf(ft))
			continue
		}
		if !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		out[name] = f.Type
	}
	fieldCache.Store(t, out)
	return out
}

// foldField finds a field whatever the case of its letters, as encoding/json does.
func foldField(fields map[string]reflect.Type, name string) (reflect.Type, bool) {
	for k, t := range fields {
		if strings.EqualFold(k, name) {
			return t, true
		}
	}
	return nil, false
}

// suggest names the field that was probably meant.
func suggest(got string, fields map[string]reflect.Type) string {
	best, bestAt := "", 3
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		d := distance(strings.ToLower(got), strings.ToLower(k))
		if d < bestAt && d < len(k) {
			best, bestAt = k, d
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean " + best + "?"
}

// distance is the number of edits between two short words.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	prev := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur := make([]int, len(b)+1)
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			sub := prev[j-1]
			if a[i-1] != b[j-1] {
				sub++
			}
			cur[j] = min(sub, prev[j]+1, cur[j-1]+1)
		}
		prev = cur
	}
	return prev[len(b)]
}

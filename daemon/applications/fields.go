package applications

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// use is what becomes of a field.
type use string

const (
	honoured use = "honoured"
	// ignored fields are written by controllers or say nothing about what runs.
	ignored use = "ignored"
	// warned fields have no effect and are reported; what runs is the same without them.
	warned use = "warning"
	// refused fields would change what runs and are errors.
	refused use = "error"
)

// kind is the form of a value.
type kind int

const (
	object_ kind = iota // fields below are in the table
	objects             // a list of such
	text
	texts   // a list of text
	textMap // text by text
	boolean
	boolMap // booleans by text
	integer
	integerOrText
	duration // as Go writes them: 1h30m
	seconds  // a duration, or a number of seconds
	anything
)

func (k kind) String() string {
	switch k {
	case object_:
		return "a mapping"
	case objects:
		return "a list of mappings"
	case text:
		return "a string"
	case texts:
		return "a list of strings"
	case textMap:
		return "a mapping of strings"
	case boolean:
		return "true or false"
	case boolMap:
		return "a mapping of true or false"
	case integer:
		return "a whole number"
	case integerOrText:
		return "a whole number or a string"
	case duration:
		return "a duration such as 30s, 5m or 1h30m"
	case seconds:
		return "a duration such as 30s, or a number of seconds"
	case anything:
		return "anything"
	}
	panic(fmt.Sprintf("kind %d has no name", int(k)))
}

// field is one line of a table.
type field struct {
	// path is written with dots, and [] behind a list: spec.dependsOn[].name.
	path     string
	kind     kind
	use      use
	required bool
	// values are the only ones allowed; empty allows all.
	values []string
	// note says why the field is not honoured, or what to do instead.
	note string
}

// node is a table as a tree.
type node struct {
	field    field
	children map[string]*node
}

// tree makes the tree of a table. Parents stand before their fields.
func tree(tables ...[]field) *node {
	root := &node{field: field{kind: object_, use: honoured}, children: map[string]*node{}}
	for _, table := range tables {
		for _, f := range table {
			parent, name := root, f.path
			for {
				first, rest, more := strings.Cut(name, ".")
				if !more {
					break
				}
				next := parent.children[strings.TrimSuffix(first, "[]")]
				if next == nil {
					panic("table: " + f.path + " stands before its parent")
				}
				parent, name = next, rest
			}
			parent.children[name] = &node{field: f, children: map[string]*node{}}
		}
	}
	return root
}

// check returns a copy of value that holds only honoured fields of the right form; what was left out
// is reported. present is false when nothing is left.
func (n *node) check(r *reporter, at string, value any) (clean any, present bool) {
	if value == nil {
		return nil, false
	}
	f := n.field
	switch f.use {
	case ignored:
		return nil, false
	case warned:
		if !empty(value) {
			r.warn("not-honoured", at, "is not honoured", f.note)
		}
		return nil, false
	case refused:
		if !empty(value) {
			r.error("unsupported-field", at, "is not supported", f.note)
		}
		return nil, false
	case honoured:
	}
	wrong := func() (any, bool) {
		hint := ""
		switch value.(type) {
		case bool, int, int64, float64:
			if f.kind == text {
				hint = "put the value in quotes"
			}
		}
		r.error("wrong-type", at, fmt.Sprintf("is %s and must be %s", describe(value), f.kind), hint)
		return nil, false
	}
	switch f.kind {
	case object_:
		m, ok := value.(map[string]any)
		if !ok {
			return wrong()
		}
		return n.checkObject(r, at, m), true
	case objects:
		list, ok := value.([]any)
		if !ok {
			return wrong()
		}
		out := make([]any, 0, len(list))
		for i, item := range list {
			where := fmt.Sprintf("%s[%d]", at, i)
			m, ok := item.(map[string]any)
			if !ok {
				r.error("wrong-type", where, fmt.Sprintf("is %s and must be %s", describe(item), object_), "")
				continue
			}
			out = append(out, n.checkObject(r, where, m))
		}
		return out, true
	case text:
		s, ok := value.(string)
		if !ok {
			return wrong()
		}
		if len(f.values) > 0 && s != "" && !slices.Contains(f.values, s) {
			r.error("invalid-value", at, fmt.Sprintf("%q is not one of %s", s, strings.Join(f.values, ", ")), f.note)
			return nil, false
		}
		return s, true
	case texts:
		list, ok := value.([]any)
		if !ok {
			return wrong()
		}
		out := make([]any, 0, len(list))
		for i, item := range list {
			if _, ok := item.(string); !ok {
				r.error("wrong-type", fmt.Sprintf("%s[%d]", at, i), fmt.Sprintf("is %s and must be %s", describe(item), text), "put the value in quotes")
				continue
			}
			out = append(out, item)
		}
		return out, true
	case textMap, boolMap:
		m, ok := value.(map[string]any)
		if !ok {
			return wrong()
		}
		out := make(map[string]any, len(m))
		for _, key := range slices.Sorted(maps.Keys(m)) {
			_, isText := m[key].(string)
			_, isBool := m[key].(bool)
			if isText && f.kind == textMap || isBool && f.kind == boolMap {
				out[key] = m[key]
				continue
			}
			want, hint := text, "put the value in quotes"
			if f.kind == boolMap {
				want, hint = boolean, ""
			}
			r.error("wrong-type", at+"."+key, fmt.Sprintf("is %s and must be %s", describe(m[key]), want), hint)
		}
		return out, true
	case boolean:
		if _, ok := value.(bool); !ok {
			return wrong()
		}
		return value, true
	case integer:
		i, ok := whole(value)
		if !ok {
			return wrong()
		}
		return i, true
	case integerOrText:
		if s, ok := value.(string); ok {
			return s, true
		}
		i, ok := whole(value)
		if !ok {
			return wrong()
		}
		return i, true
	case duration:
		s, ok := value.(string)
		if !ok {
			return wrong()
		}
		if !durationForm.MatchString(s) {
			r.error("invalid-value", at, fmt.Sprintf("%q is not %s", s, duration), "")
			return nil, false
		}
		return s, true
	case seconds:
		if i, ok := whole(value); ok && i >= 0 {
			return strconv.FormatInt(i, 10) + "s", true
		}
		s, ok := value.(string)
		if !ok {
			return wrong()
		}
		if _, err := strconv.ParseUint(s, 10, 31); err == nil {
			s += "s"
		}
		if !durationForm.MatchString(s) {
			r.error("invalid-value", at, fmt.Sprintf("%q is not %s", s, seconds), "")
			return nil, false
		}
		return s, true
	case anything:
		return value, true
	}
	panic(fmt.Sprintf("kind %d is not checked", int(f.kind)))
}

func (n *node) checkObject(r *reporter, at string, m map[string]any) map[string]any {
	out := make(map[string]any, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		where := join(at, key)
		child, known := n.children[key]
		if !known {
			hint := "remove it"
			if near, ok := Nearest(key, slices.Collect(maps.Keys(n.children))); ok {
				hint = "did you mean " + near + "?"
			}
			r.error("unknown-field", where, "is not a field that fairlead knows", hint)
			continue
		}
		if v, present := child.check(r, where, m[key]); present {
			out[key] = v
		}
	}
	for _, key := range slices.Sorted(maps.Keys(n.children)) {
		if n.children[key].field.required && m[key] == nil {
			r.error("missing-field", join(at, key), "is required and missing", n.children[key].field.note)
		}
	}
	return out
}

var durationForm = regexp.MustCompile(`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`)

func join(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
}

func whole(value any) (int64, bool) {
	switch v := value.(type) {
	case int:
		return int64(v), true
	case int64:
		return v, true
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int64(v), true
		}
	}
	return 0, false
}

// empty reports whether a value says nothing.
func empty(value any) bool {
	switch v := value.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case bool:
		return !v
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

func describe(value any) string {
	switch v := value.(type) {
	case nil:
		return "empty"
	case string:
		return "a string"
	case bool:
		return "a boolean (" + strconv.FormatBool(v) + ")"
	case int, int64, float64:
		return "a number (" + strings.TrimSuffix(fmt.Sprint(v), ".0") + ")"
	case []any:
		return "a list"
	case map[string]any:
		return "a mapping"
	}
	return fmt.Sprintf("a %T", value)
}

// Nearest returns the candidate that key was most likely meant to be, and false when none is near.
func Nearest(key string, candidates []string) (string, bool) {
	best, distance := "", 3
	if len(key) <= 4 {
		distance = 2
	}
	for _, c := range slices.Sorted(slices.Values(candidates)) {
		if strings.EqualFold(c, key) {
			return c, true
		}
		if d := edits(strings.ToLower(key), strings.ToLower(c)); d < distance {
			best, distance = c, d
		}
	}
	return best, best != ""
}

// edits is the number of insertions, deletions, replacements and swaps of neighbours between a and b.
func edits(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

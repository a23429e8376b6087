package plan

import (
	"encoding/json"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/fairlead-dev/fairlead/render/object"
)

// path is where a value is in a manifest.
type path struct {
	// keys are the names of fields; list elements have none.
	keys []string
	// shown is the path for people: spec.containers[web].image, metadata.annotations[a.b/c].
	shown string
}

// key returns the path of a field of a map.
func (p path) key(k string) path {
	keys := append(p.keys[:len(p.keys):len(p.keys)], k)
	switch {
	case !plain(k):
		return path{keys, p.shown + "[" + quoted(k) + "]"}
	case p.shown == "":
		return path{keys, k}
	}
	return path{keys, p.shown + "." + k}
}

// element returns the path of an element of a list.
func (p path) element(name string) path { return path{p.keys, p.shown + "[" + quoted(name) + "]"} }

// schema returns the path without the names of list elements.
func (p path) schema() string { return strings.Join(p.keys, ".") }

// last returns the last two fields.
func (p path) last() (last [2]string) {
	if n := len(p.keys); n > 1 {
		last = [2]string{p.keys[n-2], p.keys[n-1]}
	} else if n == 1 {
		last[1] = p.keys[0]
	}
	return last
}

// top reports whether p is the field, or in it.
func (p path) top(field string) bool { return len(p.keys) > 0 && p.keys[0] == field }

// plain reports whether a key can stand after a dot.
func plain(s string) bool {
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return s != ""
}

// quoted returns a name as it stands between brackets; one that would make the path ambiguous is quoted.
func quoted(s string) string {
	if s == "" || strings.ContainsAny(s, "[]\"\n") || strconv.Quote(s) != `"`+s+`"` {
		return strconv.Quote(s)
	}
	return s
}

// elements are the names of the elements of two versions of a list.
type elements struct {
	old, new     []string
	oldAt, newAt map[string]int
}

// elementsOf names the elements of both lists, or returns nil when they have no names or share one.
// at are the field of the list and the one around it.
func elementsOf(at [2]string, old, new []any) *elements {
	name := namer(at)
	e := elements{oldAt: make(map[string]int, len(old)), newAt: make(map[string]int, len(new))}
	for i, v := range old {
		n, ok := name(v)
		if _, twice := e.oldAt[n]; !ok || twice {
			return nil
		}
		e.oldAt[n], e.old = i, append(e.old, n)
	}
	for i, v := range new {
		n, ok := name(v)
		if _, twice := e.newAt[n]; !ok || twice {
			return nil
		}
		e.newAt[n], e.new = i, append(e.new, n)
	}
	return &e
}

// namer returns how the elements of a list are told apart: by the merge keys of the Kubernetes API where
// it has any, by what cannot stand there twice elsewhere.
func namer(at [2]string) func(any) (string, bool) {
	switch at[1] {
	case "ports":
		return portName
	case "volumeMounts":
		return by("mountPath")
	case "volumeDevices":
		return by("devicePath")
	case "hostAliases":
		return by("ip")
	case "items":
		return by("path")
	case "topologySpreadConstraints":
		return by("topologyKey", "whenUnsatisfiable")
	case "conditions":
		return by("type")
	case "ownerReferences":
		return by("uid")
	case "readinessGates":
		return by("conditionType")
	case "matchExpressions":
		return by("key", "operator")
	case "sources", "envFrom":
		return sourceName
	case "finalizers", "hostnames", "supplementalGroups", "accessModes", "values":
		return itself
	case "add", "drop":
		if at[0] == "capabilities" {
			return itself
		}
	}
	return by("name")
}

// by names an element by its first field, and by the others as well where it has them.
func by(fields ...string) func(any) (string, bool) {
	return func(v any) (string, bool) {
		m, ok := v.(map[string]any)
		if !ok {
			return "", false
		}
		name, ok := scalar(m[fields[0]])
		for _, f := range fields[1:] {
			if s, has := scalar(m[f]); has {
				name += "/" + s
			}
		}
		return name, ok
	}
}

// portName names the port of a container by number and protocol, that of a service by number.
func portName(v any) (string, bool) {
	m, ok := v.(map[string]any)
	if !ok {
		return "", false
	}
	name, ok := scalar(m["containerPort"])
	if !ok {
		name, ok = scalar(m["port"])
	}
	if proto, has := scalar(m["protocol"]); has && proto != "TCP" {
		name += "/" + proto
	}
	return name, ok
}

// sourceName names a source of a projected volume or of the environment by what it refers to.
func sourceName(v any) (string, bool) {
	m, ok := v.(map[string]any)
	if !ok {
		return "", false
	}
	prefix, _ := scalar(m["prefix"])
	for _, kind := range [...]string{"configMap", "configMapRef", "secret", "secretRef"} {
		if ref, is := m[kind].(map[string]any); is {
			name, ok := scalar(ref["name"])
			name = strings.TrimSuffix(kind, "Ref") + " " + name
			if prefix != "" {
				name += " " + prefix
			}
			return name, ok
		}
	}
	for _, kind := range [...]string{"downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"} {
		if _, is := m[kind]; is {
			return kind, true
		}
	}
	return "", false
}

// itself names a value by itself, where a list is a set.
func itself(v any) (string, bool) { return scalar(v) }

func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, v != ""
	case json.Number:
		return v.String(), true
	}
	return "", false
}

// sameMeaning reports whether two values that are written differently mean the same: quantities where
// the API has quantities, and numbers everywhere.
func sameMeaning(p path, old, new any) bool {
	if isQuantity(p.keys) {
		a, ok := quantity(old)
		b, ok2 := quantity(new)
		return ok && ok2 && a.Cmp(b) == 0
	}
	a, ok := old.(json.Number)
	b, ok2 := new.(json.Number)
	if !ok || !ok2 {
		return false
	}
	if !strings.ContainsAny(a.String()+b.String(), ".eE") {
		return false // whole numbers have one form, and floats would round them
	}
	x, errX := a.Float64()
	y, errY := b.Float64()
	return errX == nil && errY == nil && x == y
}

// isQuantity reports whether the API has a quantity at a path.
func isQuantity(keys []string) bool {
	n := len(keys)
	if n < 3 || keys[0] != "spec" {
		return false
	}
	field, parent := keys[n-1], keys[n-2]
	switch {
	case field == "sizeLimit" && parent == "emptyDir", field == "divisor" && parent == "resourceFieldRef":
		return true
	case parent == "overhead", parent == "hard", parent == "capacity":
		return true
	}
	return keys[n-3] == "resources" && (parent == "limits" || parent == "requests")
}

// quantity parses a quantity of sane length: an exponent of many digits would take all memory.
func quantity(v any) (q resource.Quantity, ok bool) {
	s, ok := scalar(v)
	if !ok || len(s) > 32 {
		return q, false
	}
	if i := strings.IndexAny(s, "eE"); i >= 0 && len(s)-i > 4 {
		return q, false
	}
	q, err := resource.ParseQuantity(s)
	return q, err == nil
}

// pointers is a tree of JSON pointers: what is ignored below a value. nil ignores nothing.
type pointers map[string]pointers

// end marks the end of a pointer; no key of a manifest is the same, since it is not valid UTF-8.
const end = "\xff"

// pointersFor joins the pointers of the rules that match the object.
func pointersFor(rules []IgnoreRule, ref object.Ref) pointers {
	var tree pointers
	for _, r := range rules {
		if !r.matches(ref) {
			continue
		}
		for _, p := range r.Pointers {
			if p != "" && p[0] != '/' {
				continue
			}
			if tree == nil {
				tree = pointers{}
			}
			at := tree
			if p != "" {
				for i, token := range strings.Split(p[1:], "/") {
					if i == 0 && token == "stringData" && isSecret(ref) {
						token = "data" // where redact puts it
					}
					token = strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
					if at[token] == nil {
						at[token] = pointers{}
					}
					at = at[token]
				}
			}
			at[end] = pointers{}
		}
	}
	return tree
}

// child returns what is ignored in a field or in an element.
func (p pointers) child(token string) pointers { return p[token] }

// here reports whether the value itself is ignored.
func (p pointers) here() bool { return p[end] != nil }

// matches reports whether the rule is about the object. An asterisk matches as an empty field does.
func (r IgnoreRule) matches(ref object.Ref) bool {
	is := func(want, have string) bool { return want == "" || want == "*" || want == have }
	return is(r.Group, ref.Group) && is(r.Kind, ref.Kind) && is(r.Namespace, ref.Namespace) && is(r.Name, ref.Name)
}

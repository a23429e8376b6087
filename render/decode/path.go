package decode

import (
	"strconv"
	"strings"
)

// Elem is one step of a path: a key of a mapping or an element of a list.
type Elem struct {
	Key string
	// IsIndex tells an element of a list, whose position is Index and whose name, if it has one, is Name.
	IsIndex bool
	Index   int
	// By is the key that holds the name, Name its value.
	By, Name string
}

// Path is the way from the top of a manifest to a field.
type Path []Elem

// Child returns p with a key added. It never shares memory with another child of p.
func (p Path) Child(key string) Path { return append(p[:len(p):len(p)], Elem{Key: key}) }

// Item returns p with a list element added, addressed by name where v has one.
func (p Path) Item(i int, v any) Path {
	e := Elem{IsIndex: true, Index: i}
	parent := ""
	if len(p) > 0 {
		parent = p[len(p)-1].Key
	}
	e.By, e.Name = itemName(parent, v)
	return append(p[:len(p):len(p)], e)
}

// String returns the path with list elements by name: spec.containers[web].image.
func (p Path) String() string {
	var b strings.Builder
	for _, e := range p {
		switch {
		case e.IsIndex && e.Name != "":
			b.WriteString("[" + e.Name + "]")
		case e.IsIndex:
			b.WriteString("[" + strconv.Itoa(e.Index) + "]")
		case plainKey(e.Key):
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(e.Key)
		default:
			b.WriteString("[" + e.Key + "]")
		}
	}
	return b.String()
}

func plainKey(s string) bool {
	if s == "" {
		return false
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// itemName returns the key by which the elements of the list parent are told apart, and v's value of it.
func itemName(parent string, v any) (by, name string) {
	m, ok := v.(map[string]any)
	if !ok {
		return "", ""
	}
	keys := []string{"name"}
	switch parent {
	case "volumeMounts":
		keys = []string{"mountPath"}
	case "volumeDevices":
		keys = []string{"devicePath"}
	case "ports":
		keys = []string{"name", "containerPort", "port"}
	case "items":
		keys = []string{"key", "path"}
	case "hostAliases":
		keys = []string{"ip"}
	case "topologySpreadConstraints":
		keys = []string{"topologyKey"}
	}
	for _, k := range keys {
		switch n := m[k].(type) {
		case string:
			if n != "" && len(n) <= 128 && !strings.ContainsAny(n, "[]\n") {
				return k, n
			}
		case int64:
			return k, strconv.FormatInt(n, 10)
		}
	}
	return "", ""
}

// ParsePath reads a path as k8s.io/apimachinery's field.Path prints it (spec.containers[0].image) and finds
// the names of the list elements in value.
func ParsePath(s string, value any) Path {
	var p Path
	cur := value
	step := func(key string, bracket bool) {
		if list, ok := cur.([]any); ok && bracket {
			if i, err := strconv.Atoi(key); err == nil {
				cur = nil
				if i >= 0 && i < len(list) {
					cur = list[i]
				}
				p = p.Item(i, cur)
				return
			}
		}
		m, _ := cur.(map[string]any)
		cur = m[key]
		if i, err := strconv.Atoi(key); err == nil && bracket && m == nil {
			p = append(p, Elem{IsIndex: true, Index: i})
			return
		}
		p = append(p, Elem{Key: key})
	}
	for len(s) > 0 {
		if s[0] == '.' {
			s = s[1:]
			continue
		}
		if s[0] == '[' {
			key, rest, _ := strings.Cut(s[1:], "]")
			step(key, true)
			s = rest
			continue
		}
		end := strings.IndexAny(s, ".[")
		if end < 0 {
			end = len(s)
		}
		step(s[:end], false)
		s = s[end:]
	}
	return p
}

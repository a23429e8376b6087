package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Read reads a settings file. Defaults are not filled in. The error names file, line and key of everything
// that is wrong.
func Read(file string) (Settings, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return Settings{}, fmt.Errorf("read settings: %w", err)
	}
	return parse(file, b)
}

func parse(file string, content []byte) (Settings, error) {
	var s Settings
	d := yaml.NewDecoder(bytes.NewReader(content))
	d.KnownFields(true)
	err := d.Decode(&s)
	if errors.Is(err, io.EOF) {
		return s, nil // an empty file leaves everything to the defaults
	}
	if err == nil {
		if err = d.Decode(new(yaml.Node)); errors.Is(err, io.EOF) {
			return s, nil
		} else if err == nil {
			return Settings{}, fmt.Errorf("%s: has several documents: keep one", file)
		}
	}
	var several *yaml.TypeError
	if !errors.As(err, &several) {
		return Settings{}, fmt.Errorf("%s: %s", file, strings.TrimPrefix(located(strings.TrimPrefix(err.Error(), "yaml: ")), ": "))
	}
	var lines []string
	for _, e := range several.Errors {
		lines = append(lines, file+":"+located(e))
	}
	return Settings{}, errors.New(strings.Join(lines, "\n"))
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil || v < 0 {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %q is not a duration: write it like 30s, 5m or 1h", n.Line, n.Value)}}
	}
	*d = Duration(v)
	return nil
}

var (
	lineFirst    = regexp.MustCompile(`^line (\d+): (.*)$`)
	unknownField = regexp.MustCompile(`^field (.+) not found in type settings\.(\w+)$`)
	wrongType    = regexp.MustCompile("^cannot unmarshal (\\S+) (`.*` )?into (\\S+)$")
)

// located turns "line 3: text" into "3: text", in the words of the file instead of those of the program.
func located(e string) string {
	line, text := "", e
	if m := lineFirst.FindStringSubmatch(e); m != nil {
		line, text = m[1]+": ", m[2]
	}
	if m := unknownField.FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("unknown key %q; known here: %s", m[1], strings.Join(keys(m[2]), ", "))
	}
	if m := wrongType.FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("%sis not %s", cmpOr(m[2], "the value "), kindWords(m[3]))
	}
	return line + text
}

func cmpOr(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func kindWords(goType string) string {
	switch {
	case goType == "int":
		return "a number"
	case goType == "bool" || goType == "*bool":
		return "true or false"
	case goType == "string":
		return "a text"
	case strings.HasPrefix(goType, "[]"):
		return "a list"
	default:
		return "a mapping"
	}
}

// keys are the keys of one of the structs, sorted.
func keys(name string) []string {
	var out []string
	for t := range structs(reflect.TypeFor[Settings]()) {
		if t.Name() != name {
			continue
		}
		for i := range t.NumField() {
			if k := t.Field(i).Tag.Get("yaml"); k != "-" {
				out = append(out, k)
			}
		}
	}
	slices.Sort(out)
	return out
}

// structs yields t and the structs in its fields.
func structs(t reflect.Type) func(yield func(reflect.Type) bool) {
	return func(yield func(reflect.Type) bool) { walk(t, yield) }
}

func walk(t reflect.Type, yield func(reflect.Type) bool) bool {
	for t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return true
	}
	if !yield(t) {
		return false
	}
	for i := range t.NumField() {
		if !walk(t.Field(i).Type, yield) {
			return false
		}
	}
	return true
}

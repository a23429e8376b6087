package render

import (
	"encoding/base64"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead-dev/fairlead/render/object"
)

// secrets are values that were decrypted, or come from Secrets, and can turn up in objects that are no Secrets.
type secrets struct{ values []string }

const (
	minWhole = 4 // characters of a value that is the whole of a field
	minPart  = 8 // of one that is a part of it; what is shorter is found in anything
)

// add takes a value, and of one that has several lines these, and the form that a dotenv file gives it.
func (s *secrets) add(v string) {
	for _, text := range append(strings.Split(v, "\n"), v, strings.ReplaceAll(v, "\n", `\n`)) {
		if text = strings.TrimSpace(text); len(text) >= minWhole && !slices.Contains(s.values, text) {
			s.values = append(s.values, text)
		}
	}
}

// in returns the fields of an object that hold one of the values, or a URL with a password. Those of a Secret are hidden anyway, and what an object is
// called is not hidden at all.
func (s *secrets) in(o *object.Object) []string {
	if o.Kind == "Secret" && o.Group == "" || len(s.values) == 0 && !passwordInURL.Match(o.Written) {
		return nil
	}
	var v any
	if json.Unmarshal(o.Written, &v) != nil {
		return nil
	}
	var found []string
	s.walk("", v, &found)
	slices.Sort(found)
	return found
}

func (s *secrets) walk(at string, v any, found *[]string) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			s.walk(at+"/"+pointerEscape.Replace(k), e, found)
		}
	case []any:
		for i, e := range v {
			s.walk(at+"/"+strconv.Itoa(i), e, found)
		}
	case string:
		if s.holds(v) && !names[at] {
			*found = append(*found, at)
		}
	case float64:
		if text := strconv.FormatFloat(v, 'f', -1, 64); len(text) >= minPart && slices.Contains(s.values, text) {
			*found = append(*found, at)
		}
	}
}

var (
	pointerEscape = strings.NewReplacer("~", "~0", "/", "~1")
	names         = map[string]bool{"/apiVersion": true, "/kind": true, "/metadata/name": true, "/metadata/namespace": true}
)

// passwordInURL matches scheme://user:password@.
var passwordInURL = regexp.MustCompile(`[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s"@:]*:[^/\s"@]+@`)

func (s *secrets) holds(text string) bool {
	if passwordInURL.MatchString(text) {
		return true
	}
	var decoded string
	if len(text) >= minPart && len(text)%4 == 0 {
		if b, err := base64.StdEncoding.DecodeString(text); err == nil { // binaryData of a ConfigMap
			decoded = string(b)
		}
	}
	return slices.ContainsFunc(s.values, func(v string) bool {
		return text == v || len(v) >= minPart && (strings.Contains(text, v) || strings.Contains(decoded, v))
	})
}

package applications

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/fairlead-dev/fairlead/render/diag"
)

var variableName = regexp.MustCompile(`^[_[:alpha:]][_[:alpha:][:digit:]]*$`)

const variableRule = "a name has letters, digits and underscores, and does not begin with a digit"

// Lookup returns the content of a ConfigMap or Secret, and false when there is none.
type Lookup func(ref Ref) (map[string][]byte, bool)

// ResolveSubstitutions returns all variables of an application: those of SubstituteFrom, of which later
// ones win, and over them the inline ones. Line breaks in values are left out, as Flux does. Without any
// variable it returns nil, which turns substitution off. secret are the names of those whose values come from Secrets, sorted.
func ResolveSubstitutions(a Application, lookup Lookup) (values map[string]string, secret []string, found diag.List) {
	r := &reporter{ref: a.Ref, origin: a.Origin}
	out, from := map[string]string{}, map[string]string{}
	for i, ref := range a.SubstituteFrom {
		at := fmt.Sprintf("spec.postBuild.substituteFrom[%d]", i)
		data, ok := lookup(ref)
		if !ok {
			if !ref.Optional {
				r.error("unknown-reference", at, "there is no "+ref.String(), "declare it, or set optional: true")
			}
			continue
		}
		for _, name := range sortedKeys(data) {
			switch {
			case !variableName.MatchString(name):
				r.error("invalid-value", at, fmt.Sprintf("the key %q of %s cannot be the name of a variable", name, ref), variableRule)
			case !utf8.Valid(data[name]) || bytes.IndexByte(data[name], 0) >= 0:
				r.error("invalid-value", at, fmt.Sprintf("the value of %s in %s is not text", name, ref), "")
			default:
				out[name], from[name] = strings.ReplaceAll(string(data[name]), "\n", ""), ref.Kind
			}
		}
	}
	for name, value := range a.Render.Substitute {
		out[name], from[name] = strings.ReplaceAll(value, "\n", ""), ""
	}
	for _, name := range sortedKeys(from) {
		if from[name] == "Secret" {
			secret = append(secret, name)
		}
	}
	if len(out) == 0 {
		out = nil
	}
	return out, secret, r.list
}

// ResolveDecryption returns the age keys of an application's decryption Secret: the lines of its keys
// that end in .agekey. It returns nothing for an application that decrypts nothing.
func ResolveDecryption(a Application, lookup Lookup) ([]string, diag.List) {
	if !a.Decrypt || a.DecryptionSecret.Name == "" {
		return nil, nil
	}
	const at = "spec.decryption.secretRef.name"
	r := &reporter{ref: a.Ref, origin: a.Origin}
	data, ok := lookup(a.DecryptionSecret)
	if !ok {
		r.error("unknown-reference", at, "there is no "+a.DecryptionSecret.String(), "declare it beside the application, or put it into configDir of the settings")
		return nil, r.list
	}
	var keys []string
	for _, name := range sortedKeys(data) {
		if !strings.HasSuffix(name, ".agekey") {
			r.warn("not-honoured", at, fmt.Sprintf("the key %s of %s is not read", name, a.DecryptionSecret), "only age keys, named *.agekey, are used")
			continue
		}
		found, ok := AgeKeys(data[name])
		if !ok {
			r.error("invalid-value", at, fmt.Sprintf("the key %s of %s holds no age key", name, a.DecryptionSecret), "it must have a line that begins with AGE-SECRET-KEY-")
		}
		keys = append(keys, found...)
	}
	if len(keys) == 0 && !r.list.HasErrors() {
		r.error("invalid-value", at, fmt.Sprintf("%s holds no age key", a.DecryptionSecret), "add one under a name that ends in .agekey")
	}
	return keys, r.list
}

// AgeKeys returns the keys in the content of an age key file. ok is false when there is none, or
// when a line is neither a key, a comment nor empty.
func AgeKeys(content []byte) (keys []string, ok bool) {
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "AGE-SECRET-KEY-"):
			keys = append(keys, line)
		default:
			return nil, false
		}
	}
	return keys, len(keys) > 0
}

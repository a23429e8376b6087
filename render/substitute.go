package render

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/fluxcd/pkg/envsubst"
	kjson "sigs.k8s.io/json"
	kyaml "sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/render/decode"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/kustomize"
)

// substituteKey is the label or annotation that, when it is "disabled", keeps Flux from substituting in an object.
const substituteKey = "kustomize.toolkit.fluxcd.io/substitute"

var variableName = regexp.MustCompile(`^[_a-zA-Z][_a-zA-Z0-9]*$`)

// maxSubstituted bounds one object after substitution.
const maxSubstituted = 4 << 20

// substitute replaces ${variables} in a manifest as Flux does: in its YAML text, which is then read again, so that
// a value can become a number or a whole structure. It returns false when the manifest cannot be used.
func (r *unitRun) substitute(d kustomize.Manifest) (kustomize.Manifest, bool) {
	vars := r.req.Substitute
	if len(vars) == 0 || substitutionDisabled(d.Value) {
		return d, true
	}
	text := decode.Canonical(d.Value)
	if !bytes.ContainsRune(text, '$') {
		return d, true
	}
	kind, _ := d.Value["kind"].(string)
	fail := func(msg, hint string) (kustomize.Manifest, bool) {
		r.out.Diags = append(r.out.Diags, diag.Diagnostic{Severity: diag.Error, Code: "substitution", Origin: d.Origin, Message: kind + ": " + msg, Hint: hint})
		return d, false
	}
	written, err := kyaml.JSONToYAML(text)
	if err != nil {
		return fail("cannot be written as YAML", "")
	}
	out, err := evaluate(string(written), vars)
	switch {
	case err != nil:
		return fail(fmt.Sprintf("the variables in it cannot be substituted: %v", err), "write $$ for a $ that begins no variable, or opt out with the annotation "+substituteKey+": disabled")
	case len(out) > maxSubstituted:
		return fail(fmt.Sprintf("is larger than %d bytes after substitution", maxSubstituted), "")
	}
	j, err := kyaml.YAMLToJSON([]byte(out))
	if err != nil {
		// The parser's message quotes the text, which holds values.
		return fail("is not valid YAML any more after substitution", "a value with : or # or line ends needs quotes around its variable")
	}
	var v map[string]any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(j, &v); err != nil || v == nil {
		return fail("is not a mapping any more after substitution", "")
	}
	d.Value = v
	return d, true
}

func evaluate(text string, vars map[string]string) (out string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("malformed ${…}")
		}
	}()
	size := len(text)
	return envsubst.Eval(text, func(name string) (string, bool) {
		v := vars[name]
		if size += len(v); size > 4*maxSubstituted {
			return "", true // whatever is made of it is refused for its size
		}
		return v, true
	})
}

func substitutionDisabled(v map[string]any) bool {
	meta, _ := v["metadata"].(map[string]any)
	for _, at := range []string{"labels", "annotations"} {
		m, _ := meta[at].(map[string]any)
		if m[substituteKey] == "disabled" {
			return true
		}
	}
	return false
}

// badVariables reports names that are not those of variables.
func badVariables(vars map[string]string) []string {
	var bad []string
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if !variableName.MatchString(name) {
			bad = append(bad, name)
		}
	}
	return bad
}

// redactor removes from messages what must not be shown: values that were decrypted or substituted, which can come
// from Secrets.
type redactor struct{ values []string }

// The shortest texts that are taken for secrets; shorter text is found in any message. Most variables are names of
// environments and the like.
const (
	minDecrypted   = 4
	minSubstituted = 8
)

func (d *redactor) add(v string, shortest int) {
	for _, s := range append(strings.Split(v, "\n"), v) {
		if s = strings.TrimSpace(s); len(s) < shortest {
			continue
		}
		// Messages shorten what they quote.
		if len(s) > 24 {
			s = strings.ToValidUTF8(s[:24], "")
		}
		d.values = append(d.values, s)
		if q := fmt.Sprintf("%q", s); q[1:len(q)-1] != s {
			d.values = append(d.values, q[1:len(q)-1])
		}
	}
}

func (d *redactor) apply(list diag.List) {
	if len(d.values) == 0 {
		return
	}
	// The longest first, since one value can be a part of another.
	slices.SortFunc(d.values, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	for i := range list {
		for _, v := range d.values {
			list[i].Message = cut(list[i].Message, v)
			list[i].Hint = cut(list[i].Hint, v)
			list[i].Field = cut(list[i].Field, v)
		}
	}
}

// cut replaces a value, and what follows it up to the next space or quotation mark, by dots.
func cut(msg, v string) string {
	for {
		i := strings.Index(msg, v)
		if i < 0 {
			return msg
		}
		rest := msg[i+len(v):]
		if j := strings.IndexAny(rest, " \t\n\""); j >= 0 {
			rest = rest[j:]
		} else {
			rest = ""
		}
		msg = msg[:i] + "…" + rest
	}
}

package render

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/render/decode"
	"github.com/fairlead-dev/fairlead/render/kustomize"
)

// FuzzSubstitute substitutes variables in arbitrary text: nothing panics, what is made stays bounded, and no finding
// shows a value.
func FuzzSubstitute(f *testing.F) {
	for _, text := range []string{"${a}", "$${a}", "${a:=b}", "${a:-${b}}", "${a//x/y}", "${#a}", "${a:0:3}", "${a", "$", "${}", "${a^^}", "${a/#x/y}", "${a##*/}", "${a%%.*}", "${a:+b}", "${a?}"} {
		f.Add(text, "top-secret-value: #")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		if len(value) < minSubstituted || strings.ContainsAny(value, "\n") {
			return
		}
		r := &unitRun{req: Request{Options: Options{Substitute: map[string]string{"a": value, "b": "x"}}}}
		r.hidden.add(value, minSubstituted)
		d := kustomize.Manifest{Value: map[string]any{"kind": "ConfigMap", "data": map[string]any{"k": text}}}
		before := fmt.Sprint(d.Value)
		out, ok := r.substitute(d)
		r.hidden.apply(r.out.Diags)
		if !ok && len(r.out.Diags) == 0 {
			t.Error("refused without a finding")
		}
		if n := len(decode.Canonical(out.Value)); n > 8*maxSubstituted {
			t.Errorf("%d bytes", n)
		}
		known := strings.Contains(before, value) || strings.Contains("the variables in it cannot be substituted write a value", value)
		if found := r.out.Diags.String(); !known && len(value) <= 24 && strings.TrimSpace(value) == value && strings.Contains(found, value) {
			t.Errorf("a finding shows the value %q: %s", value, found)
		}
	})
}

// FuzzGlobs holds paths against arbitrary patterns: nothing panics, and the same answer comes twice.
func FuzzGlobs(f *testing.F) {
	for _, p := range []string{"*.yaml", "{a,b}/**", "**/**/x", "[a-", "{{a,b},c}", "a/**/b/**/c", "../*", "{", "\\"} {
		f.Add(p, "a/b/c.yaml")
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(name) > 200 || len(pattern) > 200 {
			return
		}
		g, err := newGlobs(Directory{Include: pattern, Exclude: "x" + pattern})
		if err != nil {
			return
		}
		if g.match(name) != g.match(name) {
			t.Error("two answers")
		}
	})
}

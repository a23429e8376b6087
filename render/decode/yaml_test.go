package decode

import (
	"strings"
	"testing"
)

// TestMalformedYAMLIsReportedAtItsLine looks for the line of what the parser, the scanner and the reader refuse.
func TestMalformedYAMLIsReportedAtItsLine(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		line int
	}{
		"open list":              {"a: b\nc: [d\n", 2},
		"open list, first line":  {"a: [b\n", 1},
		"open list, then more":   {"a: b\n\n\n\nc: [d\n\n\n\ne: f\n", 5},
		"open mapping":           {"x: 1\na: {b: c\n", 2},
		"open mapping in a list": {"x:\n- y: 1\n- {b: c\n- z: 1\n", 3},
		"list in a mapping":      {"a: b\n- c\n", 2},
		"mapping in a list":      {"x: 1\na:\n  - b\n  c: d\n", 3}, // the list that it stands in
		"indented too little":    {"kind: ConfigMap\nmetadata:\n  name: x\n name: y\n", 4},
		"text ends":              {"a: |\n  x\n y\n", 3},
		"tab":                    {"a: b\n\tc: d\n", 2},
		"two values":             {"a: b\nc: d: e\n", 2},
		"no colon":               {"k: v\nkey\nz: 1\n", 2},
		"bad escape":             {"a: b\nc: \"\\q\"\n", 2},
		"unknown anchor":         {"a: b\nb: *x\nc: d\n", 2},
		"control character":      {"a: 1\nb: 2\nc: \x01\nd: 3\n", 3},
		"not text":               {"a: 1\nb: \xff\xfe\n", 2},
		"second document":        {"a: 1\n---\nb: 1\nc: [d\n", 4},
		"second, no line known":  {"a: 1\n---\nb: 1\nc: *d\ne: f\n", 4},
		"nothing after a tag":    {"a: 1\nb: !x!y z\n", 2},
	} {
		t.Run(name, func(t *testing.T) {
			_, list := ParseFile("f.yaml", []byte(tt.text), DefaultLimits())
			if len(list) != 1 || list[0].Code != "yaml-syntax" || list[0].Origin.Line != tt.line {
				t.Errorf("want one finding at line %d, have %s", tt.line, strings.TrimSpace(list.String()))
			}
		})
	}
}

func TestMalformedKeyIsReportedAtItsLine(t *testing.T) {
	f, list := ParseFile("f.yaml", []byte("a: 1\n---\nb: 1\nc:\n  ? [x]\n  : 1\n"), DefaultLimits())
	if len(list) > 0 || len(f.Docs) != 2 {
		t.Fatal(list)
	}
	_, err := Value(f.Docs[1].Root, DefaultLimits())
	if err == nil || f.Docs[1].ErrorLine(err) != 5 || err.Error() != "a key must be text" {
		t.Errorf("%v at line %d, want 5", err, f.Docs[1].ErrorLine(err))
	}
}

package planview

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/fairlead-dev/fairlead/plan"
)

// Clean returns s on one line and without what could steer a terminal: names and messages come from
// repositories and containers.
func Clean(s string) string {
	if strings.IndexFunc(s, unsafe) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case unsafe(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// unsafe reports control characters, and those of category Cf that turn the direction of text or hide.
func unsafe(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == unicode.ReplacementChar
}

// EscapeJSON returns encoded JSON with escapes for what Clean replaces too: it means the same to a program,
// and nothing to a terminal. Outside of strings JSON has none of it.
func EscapeJSON(b []byte) []byte {
	steers := func(r rune) bool { return r >= 0x7f && r != unicode.ReplacementChar && unsafe(r) }
	if bytes.IndexFunc(b, steers) < 0 {
		return b
	}
	var out []byte
	for _, r := range string(b) {
		if !steers(r) {
			out = utf8.AppendRune(out, r)
			continue
		}
		for _, u := range utf16.AppendRune(nil, r) {
			out = fmt.Appendf(out, `\u%04x`, u)
		}
	}
	return out
}

// indented cleans every line of s and indents those after the first.
func indented(s, indent string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i, l := range lines {
		lines[i] = Clean(l)
	}
	return strings.Join(lines, "\n"+indent)
}

// maxValue is how much of a value is shown on one line, maxLines how many lines of one with several.
const (
	maxValue = 200
	maxLines = 300
)

// field writes one changed field: on one line, or line by line when the value has several.
func (v *view) field(f plan.FieldChange) {
	path, note := Clean(f.Path), ""
	if f.Replaces {
		note = "  " + v.paint(Yellow, "# forces replacement")
	}
	oldLines, oldOK := textLines(f.Old)
	newLines, newOK := textLines(f.New)
	if oldOK || newOK {
		sym, c := fieldSymbol(f)
		v.printf("      %s:%s\n", v.paint(c, sym+" "+path), note)
		lines := lineDiff(oldLines, newLines)
		for i, l := range lines {
			if i == maxLines {
				v.printf("            %s\n", v.paint(Dim, fmt.Sprintf("(%s more)", plural(len(lines)-i, "line"))))
				break
			}
			switch l.kind {
			case '+':
				v.printf("          %s\n", v.paint(Green, "+ "+Clean(l.text)))
			case '-':
				v.printf("          %s\n", v.paint(Red, "- "+Clean(l.text)))
			default:
				v.printf("            %s\n", v.paint(Dim, l.text))
			}
		}
		return
	}
	sym, c := fieldSymbol(f)
	value := shorten(f.Old) + " → " + shorten(f.New)
	switch {
	case f.Old == "":
		value = shorten(f.New)
	case f.New == "":
		value = shorten(f.Old)
	case f.Old == Sensitive && f.New == Sensitive:
		value = Sensitive[1:len(Sensitive)-1] + ", changed"
	}
	v.printf("      %s: %s%s\n", v.paint(c, sym+" "+path), value, note)
}

func fieldSymbol(f plan.FieldChange) (symbol, color string) {
	switch {
	case f.Old == "":
		return "+", Green
	case f.New == "":
		return "-", Red
	default:
		return "~", Cyan
	}
}

func shorten(value string) string {
	if value == Sensitive {
		return strings.Trim(Sensitive, `"`)
	}
	r := []rune(Clean(value))
	if len(r) <= maxValue {
		return string(r)
	}
	return fmt.Sprintf("%s… (%d characters)", string(r[:maxValue]), len(r))
}

// textLines returns the lines of a JSON string that has several.
func textLines(value string) ([]string, bool) {
	var s string
	if !strings.HasPrefix(value, `"`) || json.Unmarshal([]byte(value), &s) != nil {
		return nil, false
	}
	lines := strings.Split(strings.TrimSuffix(s, "\n"), "\n")
	return lines, len(lines) > 1
}

type diffLine struct {
	kind byte // '+', '-', or 0 for a note
	text string
}

// maxCells bounds the table of the line diff; beyond it, everything between the equal beginning and
// the equal end is shown as replaced.
const maxCells = 1 << 20

// lineDiff returns what changes from a to b, equal lines being counted.
func lineDiff(a, b []string) []diffLine {
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	var out []diffLine
	equal := func(n int) {
		if n > 0 {
			out = append(out, diffLine{text: fmt.Sprintf("(%s)", plural(n, "unchanged line"))})
		}
	}
	equal(head)
	a, b = a[head:len(a)-tail], b[head:len(b)-tail]
	if len(a)*len(b) > maxCells {
		for _, l := range a {
			out = append(out, diffLine{'-', l})
		}
		for _, l := range b {
			out = append(out, diffLine{'+', l})
		}
		equal(tail)
		return out
	}
	// common[i][j] is the length of the longest common subsequence of a[i:] and b[j:].
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := range slices.Backward(a) {
		for j := range slices.Backward(b) {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	i, j, same := 0, 0, 0
	for i < len(a) || j < len(b) {
		if i < len(a) && j < len(b) && a[i] == b[j] {
			i, j, same = i+1, j+1, same+1
			continue
		}
		equal(same)
		same = 0
		if j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1] {
			out = append(out, diffLine{'-', a[i]})
			i++
		} else {
			out = append(out, diffLine{'+', b[j]})
			j++
		}
	}
	equal(same + tail)
	return out
}

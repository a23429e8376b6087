package images

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Image is what a policy has chosen.
type Image struct {
	// Name is without a tag; Digest is empty where the policy does not ask for one.
	Name, Tag, Digest string
}

// String is how the image is written in a manifest.
func (i Image) String() string {
	s := i.Name + ":" + i.Tag
	if i.Digest != "" {
		s += "@" + i.Digest
	}
	return s
}

// Change is one field that is another now.
type Change struct {
	File string
	Line int
	// Policy is namespace:name; Setter is that with the part that is set, for example :tag.
	Policy, Setter string
	Old, New       string
	Image          Image
}

// Problem is a mark that cannot be honoured.
type Problem struct {
	File string
	Line int
	Text string
}

// String is "file:line: text".
func (p Problem) String() string { return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text) }

// markText is in every file that has a mark.
const markText = `$imagepolicy`

var mark = regexp.MustCompile(`^#\s*\{\s*"\$imagepolicy"\s*:\s*"([^"]+)"\s*\}\s*$`)

// Edit returns the content of a YAML file with every marked field set to what policies have chosen: lookup returns that,
// and false for a policy that is not to be followed here. Only these scalars differ from content, byte for byte.
func Edit(file string, content []byte, lookup func(policy string) (Image, bool)) (_ []byte, changes []Change, problems []Problem) {
	if !bytes.Contains(content, []byte(markText)) {
		return content, nil, nil
	}
	e := editor{file: file, content: content, lines: lineStarts(content), lookup: lookup}
	d := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var doc yaml.Node
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return content, nil, []Problem{{file, 1, "it has marks, and is not YAML that can be read: " + strings.TrimPrefix(err.Error(), "yaml: ")}}
		}
		e.encrypted = isEncrypted(&doc)
		e.walk(&doc)
	}
	if len(e.edits) == 0 {
		return content, nil, e.problems
	}
	slices.SortFunc(e.edits, func(a, b edit) int { return a.from - b.from })
	var out bytes.Buffer
	at := 0
	for _, x := range e.edits {
		out.Write(content[at:x.from])
		out.WriteString(x.text)
		at = x.to
	}
	out.Write(content[at:])
	return out.Bytes(), e.changes, e.problems
}

type edit struct {
	from, to int
	text     string
}

type editor struct {
	file      string
	content   []byte
	lines     []int
	lookup    func(string) (Image, bool)
	encrypted bool
	edits     []edit
	changes   []Change
	problems  []Problem
}

func (e *editor) problem(n *yaml.Node, format string, args ...any) {
	e.problems = append(e.problems, Problem{e.file, n.Line, fmt.Sprintf(format, args...)})
}

func (e *editor) walk(n *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		return // what it stands for is looked at where it is written
	}
	if m := mark.FindStringSubmatch(n.LineComment); m != nil {
		e.set(n, m[1])
	}
	for _, c := range n.Content {
		e.walk(c)
	}
}

func (e *editor) set(n *yaml.Node, setter string) {
	parts := strings.Split(setter, ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		e.problem(n, "the mark %q names no policy: write namespace:name, and optionally :tag, :name or :digest", setter)
		return
	}
	policy := parts[0] + ":" + parts[1]
	image, ok := e.lookup(policy)
	if !ok {
		return
	}
	want := image.String()
	if len(parts) == 3 {
		switch parts[2] {
		case "tag":
			want = image.Tag
		case "name":
			want = image.Name
		case "digest":
			if want = image.Digest; want == "" {
				e.problem(n, "policy %s has no digest: set digestReflectionPolicy", policy)
				return
			}
		default:
			e.problem(n, "the mark %q sets %q: use tag, name or digest", setter, parts[2])
			return
		}
	}
	switch {
	case n.Kind != yaml.ScalarNode:
		e.problem(n, "the mark %q is not at a scalar", setter)
		return
	case n.Value == want:
		return
	case e.encrypted:
		e.problem(n, "the file is encrypted with SOPS, which would find that it was changed: %s cannot be set", setter)
		return
	}
	from, to, quote, ok := e.find(n)
	if !ok {
		e.problem(n, "the field of the mark %q is written over several lines, or with escapes: write it on one line", setter)
		return
	}
	text := want
	if quote == 0 && !isString(want) {
		text = `"` + want + `"` // 1.20 would be a number
	}
	e.edits = append(e.edits, edit{from, to, text})
	e.changes = append(e.changes, Change{File: e.file, Line: n.Line, Policy: policy, Setter: setter, Old: n.Value, New: want, Image: image})
}

// find returns where the text of a scalar is, without its quotes.
func (e *editor) find(n *yaml.Node) (from, to int, quote byte, ok bool) {
	if n.Line < 1 || n.Line > len(e.lines) {
		return 0, 0, 0, false
	}
	from = e.lines[n.Line-1]
	for range n.Column - 1 { // columns are characters
		if from >= len(e.content) {
			return 0, 0, 0, false
		}
		_, size := utf8.DecodeRune(e.content[from:])
		from += size
	}
	rest := e.content[from:]
	if len(rest) > 0 && (n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle)) != 0 {
		if quote = rest[0]; quote != '"' && quote != '\'' {
			return 0, 0, 0, false // a tag or an anchor stands before it
		}
		from, rest = from+1, rest[1:]
	}
	if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 || !bytes.HasPrefix(rest, []byte(n.Value)) {
		return 0, 0, 0, false
	}
	to = from + len(n.Value)
	if quote != 0 && (to >= len(e.content) || e.content[to] != quote) {
		return 0, 0, 0, false
	}
	return from, to, quote, true
}

// isString reports whether a plain scalar is a string for YAML.
func isString(s string) bool {
	var n yaml.Node
	return yaml.Unmarshal([]byte(s), &n) == nil && len(n.Content) == 1 && n.Content[0].Kind == yaml.ScalarNode && n.Content[0].Tag == "!!str" && n.Content[0].Value == s
}

// isEncrypted reports whether a document is one of SOPS.
func isEncrypted(doc *yaml.Node) bool {
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return false
	}
	c := doc.Content[0].Content
	for i := 0; i+1 < len(c); i += 2 {
		if c[i].Value == "sops" && c[i+1].Kind == yaml.MappingNode {
			return true
		}
	}
	return false
}

// lineStarts are the offsets at which lines begin, for all that YAML takes for the end of one.
func lineStarts(content []byte) []int {
	out := []int{0}
	for i := 0; i < len(content); i++ {
		switch c := content[i]; {
		case c == '\n', c == '\r' && (i+1 == len(content) || content[i+1] != '\n'):
			out = append(out, i+1)
		case c == 0xC2 && i+1 < len(content) && content[i+1] == 0x85: // next line
			out = append(out, i+2)
		case c == 0xE2 && i+2 < len(content) && content[i+1] == 0x80 && (content[i+2] == 0xA8 || content[i+2] == 0xA9): // separators
			out = append(out, i+3)
		}
	}
	return out
}

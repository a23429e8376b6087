package decode

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Limits bound what one file may hold. They keep a hostile file from costing more memory or time than its
// size suggests.
type Limits struct {
	// FileBytes is the size of a manifest file.
	FileBytes int
	// Tokens bounds the number of YAML nodes by what can begin one: line ends, commas and braces.
	Tokens int
	// Documents is the number of documents in one file.
	Documents int
	// Nodes is the number of nodes of one document after aliases are expanded.
	Nodes int
	// Depth is how deep mappings and lists may nest.
	Depth int
}

// DefaultLimits are far above what real manifests need.
func DefaultLimits() Limits {
	return Limits{FileBytes: 16 << 20, Tokens: 1_000_000, Documents: 10_000, Nodes: 500_000, Depth: 100}
}

// File is a parsed manifest file. It is immutable.
type File struct {
	Path string
	Docs []Doc
}

// Doc is one document of a file.
type Doc struct {
	// Root is the document's top node; its lines count from Offset.
	Root *yaml.Node
	// Offset is added to the lines of nodes to get lines of the file.
	Offset int
	// Line is where the document's content starts.
	Line                              int
	APIVersion, Kind, Name, Namespace string
}

// ParseFile parses every document of a file that holds manifests, patches or a kustomization. Documents
// that cannot be parsed, have duplicate keys or break a limit are left out and reported.
func ParseFile(path string, data []byte, lim Limits) (*File, diag.List) {
	f := &File{Path: path}
	var list diag.List
	report := func(line int, code, msg, hint string) {
		list = append(list, diag.Diagnostic{
			Severity: diag.Error, Code: code, Origin: object.Origin{Path: path, Line: line}, Message: msg, Hint: hint,
		})
	}
	if len(data) > lim.FileBytes {
		report(0, "file-too-large", fmt.Sprintf("the file has %d bytes, the limit is %d", len(data), lim.FileBytes), "split it")
		return f, list
	}
	tokens := 0
	for _, c := range data {
		switch c {
		case '\n', ',', '[', '{':
			tokens++
		}
	}
	// Line ends and brackets inside text count too; only a file of mostly structure comes near the limit.
	if tokens > lim.Tokens {
		report(0, "file-too-complex", fmt.Sprintf("the file has about %d values, the limit is %d", tokens, lim.Tokens), "split it")
		return f, list
	}
	chunks := split(data)
	if len(chunks) > lim.Documents {
		report(0, "too-many-documents", fmt.Sprintf("the file has %d documents, the limit is %d", len(chunks), lim.Documents), "split it")
		return f, list
	}
	for _, c := range chunks {
		var top yaml.Node
		if err := decodeChunk(c.data, &top); err != nil {
			if errors.Is(err, io.EOF) {
				continue
			}
			line, msg := yamlError(c.data, err)
			report(line+c.offset, "yaml-syntax", "not valid YAML: "+msg, "")
			continue
		}
		if len(top.Content) == 0 {
			continue
		}
		root := top.Content[0]
		if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
			continue
		}
		if at, why := measure(root, lim); why != "" {
			report(at+c.offset, "yaml-limit", why, "")
			continue
		}
		before := len(list)
		duplicates(root, nil, func(line int, p Path) {
			list = append(list, diag.Diagnostic{
				Severity: diag.Error, Code: "duplicate-field", Origin: object.Origin{Path: path, Line: line + c.offset},
				Field: p.String(), Message: "the field is written twice", Hint: "keep one of the two",
			})
		})
		d := DocOf(root, c.offset)
		for i := before; i < len(list); i++ {
			list[i].Ref = d.Ref()
		}
		f.Docs = append(f.Docs, d)
	}
	return f, list
}

// DocOf returns a mapping as a document of its own; its lines count from offset.
func DocOf(root *yaml.Node, offset int) Doc {
	d := Doc{Root: root, Offset: offset, Line: root.Line + offset}
	d.APIVersion, d.Kind = scalar(root, "apiVersion"), scalar(root, "kind")
	if meta := child(root, "metadata"); meta != nil {
		d.Name, d.Namespace = scalar(meta, "name"), scalar(meta, "namespace")
	}
	return d
}

// Text returns the text of a top-level field, "" when there is none.
func (d Doc) Text(key string) string { return scalar(d.Root, key) }

// Ref is what the document calls itself.
func (d Doc) Ref() object.Ref {
	group, _, ok := strings.Cut(d.APIVersion, "/")
	if !ok {
		group = ""
	}
	return object.Ref{Group: group, Kind: d.Kind, Namespace: d.Namespace, Name: d.Name}
}

func decodeChunk(data []byte, into *yaml.Node) (err error) {
	defer func() {
		// The parser is fed hostile input; a panic in it is a malformed document to us.
		if p := recover(); p != nil {
			err = fmt.Errorf("yaml: %v", p)
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	return dec.Decode(into)
}

type chunk struct {
	data   []byte
	offset int // lines before it
}

// split cuts a stream at its document markers, so that one malformed document does not hide the others.
func split(data []byte) []chunk {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var out []chunk
	start, startLine, line := 0, 0, 0
	directive := false
	for pos := 0; pos < len(data); {
		end := bytes.IndexByte(data[pos:], '\n')
		next := len(data)
		if end >= 0 {
			next = pos + end + 1
		}
		l := data[pos:next]
		switch {
		case bytes.HasPrefix(l, []byte("---")) && (len(l) == 3 || bytes.IndexByte([]byte(" \t\r\n"), l[3]) >= 0):
			if !directive && len(bytes.TrimSpace(data[start:pos])) > 0 {
				out = append(out, chunk{data[start:pos], startLine})
			}
			if !directive {
				start, startLine = pos, line
			}
			directive = false
		case l[0] == '%':
			if len(bytes.TrimSpace(data[start:pos])) > 0 {
				out = append(out, chunk{data[start:pos], startLine})
			}
			start, startLine, directive = pos, line, true
		}
		line++
		pos = next
	}
	if len(bytes.TrimSpace(data[start:])) > 0 {
		out = append(out, chunk{data[start:], startLine})
	}
	return out
}

var yamlLine = regexp.MustCompile(`^line (\d+): (.*)$`)

// parserProblems are what the parser complains of, in whose messages lines count from 0; in those of the scanner,
// which reads words for it, they count from 1.
var parserProblems = []string{
	"did not find expected <stream-start>", "did not find expected <document start>", "did not find expected node content",
	"did not find expected key", "did not find expected '-' indicator", "did not find expected ',' or ']'",
	"did not find expected ',' or '}'", "found undefined tag handle", "found duplicate %YAML directive",
	"found incompatible YAML document", "found duplicate %TAG directive",
}

// yamlError returns the line, from 1, and the words of what kept data from being parsed.
func yamlError(data []byte, err error) (int, string) {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	m := yamlLine.FindStringSubmatch(msg)
	if m == nil {
		return firstLine(data, err), msg
	}
	n, _ := strconv.Atoi(m[1])
	if slices.Contains(parserProblems, m[2]) {
		n++
	}
	// The end of the text is after its last line.
	return min(n, 1+bytes.Count(bytes.TrimRight(data, "\r\n"), []byte("\n"))), m[2]
}

// firstLine finds the line of an error that names none: that up to which data must be read to get it.
func firstLine(data []byte, err error) int {
	const most = 1 << 20 // what is parsed several times is bounded
	if len(data) > most {
		return 1
	}
	var ends []int
	for i, c := range data {
		if c == '\n' || i == len(data)-1 {
			ends = append(ends, i+1)
		}
	}
	return 1 + sort.Search(len(ends)-1, func(i int) bool {
		var n yaml.Node
		again := decodeChunk(data[:ends[i]], &n)
		return again != nil && again.Error() == err.Error()
	})
}

// measure returns where and why a document is too large, or "" when it is not.
func measure(root *yaml.Node, lim Limits) (line int, why string) {
	type size struct{ nodes, depth int }
	const open = -1
	seen := map[*yaml.Node]size{}
	var visit func(n *yaml.Node, depth int) size
	visit = func(n *yaml.Node, depth int) size {
		if why != "" {
			return size{}
		}
		if depth > lim.Depth {
			line, why = n.Line, fmt.Sprintf("nested more than %d levels deep", lim.Depth)
			return size{}
		}
		if s, ok := seen[n]; ok {
			if s.nodes == open {
				line, why = n.Line, "an anchor contains its own alias"
			} else if depth+s.depth > lim.Depth {
				line, why = n.Line, fmt.Sprintf("nested more than %d levels deep", lim.Depth)
			}
			return s
		}
		anchored := n.Anchor != ""
		if anchored {
			seen[n] = size{nodes: open}
		}
		s := size{nodes: 1, depth: 1}
		add := func(c size) {
			s.nodes = min(s.nodes+c.nodes, math.MaxInt32)
			s.depth = max(s.depth, c.depth+1)
		}
		if n.Kind == yaml.AliasNode {
			add(visit(n.Alias, depth))
		}
		for _, c := range n.Content {
			add(visit(c, depth+1))
		}
		if why == "" && s.nodes > lim.Nodes {
			line, why = n.Line, fmt.Sprintf("more than %d values when its aliases are expanded", lim.Nodes)
		}
		if anchored {
			seen[n] = s
		}
		return s
	}
	visit(root, 0)
	return line, why
}

// duplicates reports keys that a mapping has twice.
func duplicates(n *yaml.Node, p Path, report func(int, Path)) {
	switch n.Kind {
	case yaml.MappingNode:
		var seen map[string]bool
		if len(n.Content) > 16 {
			seen = make(map[string]bool, len(n.Content)/2)
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if k.Kind == yaml.ScalarNode && k.Tag != "!!merge" {
				twice := false
				if seen != nil {
					twice = seen[k.Value]
					seen[k.Value] = true
				} else {
					for j := 0; j < i; j += 2 {
						twice = twice || (n.Content[j].Kind == yaml.ScalarNode && n.Content[j].Value == k.Value)
					}
				}
				if twice {
					report(k.Line, p.Child(k.Value))
				}
			}
			duplicates(n.Content[i+1], p.Child(k.Value), report)
		}
	case yaml.SequenceNode:
		for i, c := range n.Content {
			duplicates(c, append(p[:len(p):len(p)], nodeElem(p, i, c)), report)
		}
	}
}

func nodeElem(p Path, i int, n *yaml.Node) Elem {
	e := Elem{IsIndex: true, Index: i}
	if n.Kind != yaml.MappingNode {
		return e
	}
	m := map[string]any{}
	for j := 0; j+1 < len(n.Content); j += 2 {
		if v := n.Content[j+1]; v.Kind == yaml.ScalarNode {
			m[n.Content[j].Value] = v.Value
		}
	}
	parent := ""
	if len(p) > 0 {
		parent = p[len(p)-1].Key
	}
	e.By, e.Name = itemName(parent, m)
	return e
}

// child returns the value of a key of a mapping, or nil.
func child(n *yaml.Node, key string) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			v := n.Content[i+1]
			if v.Kind == yaml.AliasNode {
				v = v.Alias
			}
			return v
		}
	}
	return nil
}

func scalar(n *yaml.Node, key string) string {
	if v := child(n, key); v != nil && v.Kind == yaml.ScalarNode && v.Tag != "!!null" {
		return v.Value
	}
	return ""
}

// Value turns a node into maps, lists, strings, bools, int64, float64 and nil, as JSON would have them.
// Aliases and merge keys are expanded; the node must have passed ParseFile's limits, or lim applies.
func Value(n *yaml.Node, lim Limits) (any, error) {
	left := lim.Nodes
	return value(n, lim.Depth+2, &left)
}

// valueError is what is wrong with a node.
type valueError struct {
	line int // as in the node
	msg  string
}

func (e *valueError) Error() string { return e.msg }

// ErrorLine returns the line of the file that an error of Value is about; the document's when it is about all of it.
func (d Doc) ErrorLine(err error) int {
	if at, ok := errors.AsType[*valueError](err); ok {
		return at.line + d.Offset
	}
	return d.Line
}

var errTooLarge = errors.New("too many values when aliases are expanded")

func value(n *yaml.Node, depth int, left *int) (any, error) {
	*left--
	if depth < 0 || *left < 0 {
		return nil, errTooLarge
	}
	switch n.Kind {
	case yaml.DocumentNode:
		if len(n.Content) == 0 {
			return nil, nil
		}
		return value(n.Content[0], depth-1, left)
	case yaml.AliasNode:
		return value(n.Alias, depth-1, left)
	case yaml.SequenceNode:
		out := make([]any, 0, len(n.Content))
		for _, c := range n.Content {
			v, err := value(c, depth-1, left)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		return out, nil
	case yaml.MappingNode:
		out := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, c := n.Content[i], n.Content[i+1]
			if k.Kind == yaml.AliasNode {
				k = k.Alias
			}
			if k.Tag == "!!merge" || (k.Value == "<<" && k.Style == 0 && k.Kind == yaml.ScalarNode) {
				if err := merge(out, c, depth-1, left); err != nil {
					return nil, err
				}
				continue
			}
			if k.Kind != yaml.ScalarNode {
				return nil, &valueError{k.Line, "a key must be text"}
			}
			v, err := value(c, depth-1, left)
			if err != nil {
				return nil, err
			}
			out[k.Value] = v
		}
		return out, nil
	}
	return scalarValue(n)
}

// merge adds the keys of a merge key's value that are not there; later keys of the mapping overwrite them.
func merge(out map[string]any, n *yaml.Node, depth int, left *int) error {
	v, err := value(n, depth, left)
	if err != nil {
		return err
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	for _, one := range list {
		m, ok := one.(map[string]any)
		if !ok {
			return &valueError{n.Line, "<< needs a mapping"}
		}
		for k, v := range m {
			if _, has := out[k]; !has {
				out[k] = v
			}
		}
	}
	return nil
}

func scalarValue(n *yaml.Node) (any, error) {
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool":
		switch strings.ToLower(n.Value) {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return n.Value, nil
	case "!!int":
		s := strings.ReplaceAll(n.Value, "_", "")
		if i, err := strconv.ParseInt(s, 0, 64); err == nil {
			return i, nil
		}
		var f float64
		if err := n.Decode(&f); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			return f, nil
		}
		return n.Value, nil
	case "!!float":
		var f float64
		if err := n.Decode(&f); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
				return int64(f), nil
			}
			return f, nil
		}
		return n.Value, nil
	case "!!binary":
		raw, err := base64.StdEncoding.DecodeString(strings.Map(func(r rune) rune {
			if r == ' ' || r == '\n' || r == '\t' {
				return -1
			}
			return r
		}, n.Value))
		if err != nil {
			return nil, &valueError{n.Line, "!!binary is not base64"}
		}
		return string(raw), nil
	}
	return n.Value, nil
}

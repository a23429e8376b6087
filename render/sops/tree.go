package sops

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"filippo.io/age"
	"go.yaml.in/yaml/v3"
)

// document is one YAML document, or a JSON file.
type document struct {
	root *yaml.Node // a mapping, or nil
	// sops are the key and the value of the metadata.
	sopsKey, sops *yaml.Node
	meta          metadata
}

// parse reads the documents of a stream. JSON is read as YAML.
func parse(data []byte) (docs []document, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("the parser broke down")
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var n yaml.Node
		if err := dec.Decode(&n); errors.Is(err, io.EOF) {
			return docs, nil
		} else if err != nil {
			return nil, err
		}
		var d document
		if n.Kind == yaml.DocumentNode && len(n.Content) == 1 && n.Content[0].Kind == yaml.MappingNode {
			d.root = n.Content[0]
			for i := 0; i+1 < len(d.root.Content); i += 2 {
				k, v := d.root.Content[i], d.root.Content[i+1]
				if k.Value != "sops" || v.Kind != yaml.MappingNode {
					continue
				}
				if err := v.Decode(&d.meta); err == nil && d.meta.MAC != "" {
					d.sopsKey, d.sops = k, v
				}
			}
		}
		docs = append(docs, d)
	}
}

// edit replaces a range of the text.
type edit struct {
	from, to int
	with     string
}

// rewriter decrypts documents in their text, so that lines stay where they are.
type rewriter struct {
	data   []byte
	starts []int // of lines
	json   bool
	o      *opener
	edits  []edit
	whole  string // the only value, of a binary file
}

func decryptTree(format Format, data []byte, ids []age.Identity) ([]byte, []string, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	docs, err := parse(data)
	if err != nil {
		return nil, nil, malformed("it is not well-formed")
	}
	w := &rewriter{data: data, starts: []int{0}, json: format != YAML}
	for i, c := range data {
		if c == '\n' {
			w.starts = append(w.starts, i+1)
		}
	}
	var values []string
	for i := 0; i < len(docs); {
		if docs[i].sops == nil {
			i++
			continue
		}
		// The documents of a file that was encrypted as a whole share metadata and MAC.
		end := i
		for end < len(docs) && docs[end].sops != nil && docs[end].meta.MAC == docs[i].meta.MAC {
			end++
		}
		if w.o, err = newOpener(docs[i].meta, ids); err != nil {
			return nil, nil, err
		}
		for ; i < end; i++ {
			if err := w.document(docs[i]); err != nil {
				return nil, nil, err
			}
		}
		if err := w.o.check(); err != nil {
			return nil, nil, err
		}
		values = append(values, w.o.values...)
	}
	if format == Binary {
		return []byte(w.whole), values, nil
	}
	return w.apply(), values, nil
}

func (w *rewriter) document(d document) error {
	for i := 0; i+1 < len(d.root.Content); i += 2 {
		if d.root.Content[i] == d.sopsKey {
			continue
		}
		if err := w.walk(d.root.Content[i+1], []string{d.root.Content[i].Value}); err != nil {
			return err
		}
	}
	w.drop(d)
	return nil
}

func (w *rewriter) walk(n *yaml.Node, at []string) error {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if err := w.walk(n.Content[i+1], append(at[:len(at):len(at)], n.Content[i].Value)); err != nil {
				return err
			}
		}
	case yaml.SequenceNode:
		for _, c := range n.Content {
			if err := w.walk(c, at); err != nil {
				return err
			}
		}
	case yaml.AliasNode:
		return malformed("it has an alias, which sops never writes")
	case yaml.ScalarNode:
		return w.scalar(n, at)
	}
	return nil
}

func (w *rewriter) scalar(n *yaml.Node, at []string) error {
	tag := n.ShortTag()
	if tag == "!!null" {
		return nil
	}
	v, opened, err := w.o.leaf(at, n.Value, tag == "!!str", w.plain(n, tag))
	if err != nil {
		return err
	}
	if len(at) == 1 && at[0] == "data" {
		w.whole = n.Value
		if opened {
			w.whole = v.text
		}
	}
	if !opened || n.Value == "" {
		return nil
	}
	from, ok := w.offset(n.Line, n.Column)
	text := n.Value
	if ok && n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
		text = string(w.data[from]) + text + string(w.data[from])
	}
	if !ok || !bytes.HasPrefix(w.data[from:], []byte(text)) {
		return malformed("an encrypted value is not written on one line, as sops writes it")
	}
	w.edits = append(w.edits, edit{from, from + len(text), w.written(v)})
	return nil
}

// plain is a value that is not encrypted as SOPS authenticates it.
func (w *rewriter) plain(n *yaml.Node, tag string) string {
	switch tag {
	case "!!bool":
		var b bool
		if n.Decode(&b) == nil {
			if b {
				return "True"
			}
			return "False"
		}
	case "!!int":
		var i int
		if n.Decode(&i) == nil {
			if w.json {
				return strconv.FormatFloat(float64(i), 'f', -1, 64)
			}
			return strconv.Itoa(i)
		}
	case "!!float":
		var f float64
		if n.Decode(&f) == nil {
			return strconv.FormatFloat(f, 'f', -1, 64)
		}
	case "!!timestamp":
		var t time.Time
		if n.Decode(&t) == nil {
			if b, err := t.MarshalText(); err == nil {
				return string(b)
			}
		}
	}
	return n.Value
}

// written is a decrypted value as it stands in the text: on one line.
func (w *rewriter) written(v value) string {
	switch v.typ {
	case "int", "float":
		return v.text
	case "bool":
		return strings.ToLower(v.text)
	case "time":
		if !w.json {
			return v.text
		}
	}
	if !w.json {
		if b, err := yaml.Marshal(v.text); err == nil && bytes.Count(b, []byte("\n")) == 1 {
			return strings.TrimSuffix(string(b), "\n")
		}
	}
	// What JSON says in quotes, YAML reads as the same.
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v.text) // text always has a form in JSON
	return strings.TrimSuffix(b.String(), "\n")
}

// offset turns a line and a column, which counts characters, into a position in the text.
func (w *rewriter) offset(line, column int) (int, bool) {
	if line < 1 || line > len(w.starts) {
		return 0, false
	}
	at := w.starts[line-1]
	for range column - 1 {
		if at >= len(w.data) {
			return 0, false
		}
		_, n := utf8.DecodeRune(w.data[at:])
		at += n
	}
	return at, at < len(w.data)
}

// drop blanks the metadata, so that lines stay where they are.
func (w *rewriter) drop(d document) {
	if d.root.Style&yaml.FlowStyle != 0 {
		w.dropFlow(d)
		return
	}
	from, _ := w.offset(d.sopsKey.Line, d.sopsKey.Column)
	to := w.lastLine(d)
	w.edits = append(w.edits, edit{from, to, strings.Repeat("\n", bytes.Count(w.data[from:to], []byte("\n")))})
}

// lastLine is where the lines of the metadata end: at the next key, the end of the document or of the text.
func (w *rewriter) lastLine(d document) int {
	for i := 0; i+1 < len(d.root.Content); i += 2 {
		if k := d.root.Content[i]; k.Line > d.sopsKey.Line {
			return w.starts[k.Line-1]
		}
	}
	for _, s := range w.starts {
		if s > w.starts[d.sopsKey.Line-1] {
			if rest := w.data[s:]; bytes.HasPrefix(rest, []byte("---")) || bytes.HasPrefix(rest, []byte("...")) {
				return s
			}
		}
	}
	return len(w.data)
}

// dropFlow blanks the metadata in braces, and one comma beside it.
func (w *rewriter) dropFlow(d document) {
	from, _ := w.offset(d.sopsKey.Line, d.sopsKey.Column)
	to, _ := w.offset(d.sops.Line, d.sops.Column)
	depth, quoted := 0, false
	for ; to < len(w.data); to++ {
		switch c := w.data[to]; {
		case quoted && c == '\\':
			to++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{':
			depth++
		case c == '}':
			depth--
		}
		if depth == 0 && !quoted {
			to++
			break
		}
	}
	before := bytes.TrimRight(w.data[:from], " \t\r\n")
	after := bytes.TrimLeft(w.data[min(to, len(w.data)):], " \t\r\n")
	if bytes.HasSuffix(before, []byte(",")) {
		from = len(before) - 1
	} else if bytes.HasPrefix(after, []byte(",")) {
		to = len(w.data) - len(after) + 1
	}
	to = min(to, len(w.data))
	w.edits = append(w.edits, edit{from, to, strings.Repeat("\n", bytes.Count(w.data[from:to], []byte("\n")))})
}

// apply returns the text with all edits made.
func (w *rewriter) apply() []byte {
	slices.SortFunc(w.edits, func(a, b edit) int { return a.from - b.from })
	var out bytes.Buffer
	at := 0
	for _, e := range w.edits {
		if e.from < at {
			continue // inside a range that was replaced
		}
		out.Write(w.data[at:e.from])
		out.WriteString(e.with)
		at = e.to
	}
	out.Write(w.data[at:])
	if rest := bytes.TrimRight(out.Bytes(), "\n"); len(rest) < out.Len() {
		return append(rest, '\n')
	}
	return out.Bytes()
}

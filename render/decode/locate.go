package decode

import (
	"go.yaml.in/yaml/v3"
)

// Find returns the line of a field in the document, or of the nearest field around it. whole is true when the
// full path was found.
func (d Doc) Find(p Path) (line int, whole bool) {
	n, line := d.Root, d.Line
	if n == nil { // the document is in nobody's file
		return line, false
	}
	for _, e := range p {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		var key, val *yaml.Node
		if e.IsIndex {
			val = item(n, e)
			key = val
		} else {
			key, val = entry(n, e.Key)
		}
		if val == nil {
			return line, false
		}
		line = key.Line + d.Offset
		n = val
	}
	return line, true
}

func entry(n *yaml.Node, key string) (k, v *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		return nil, nil
	}
	// The last one counts: with a duplicate it is the one that was decoded.
	for i := len(n.Content) - 2; i >= 0; i -= 2 {
		if n.Content[i].Value == key {
			return n.Content[i], n.Content[i+1]
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag == "!!merge" {
			from := n.Content[i+1]
			if from.Kind == yaml.AliasNode {
				from = from.Alias
			}
			if k, v := entry(from, key); v != nil {
				return k, v
			}
		}
	}
	return nil, nil
}

func item(n *yaml.Node, e Elem) *yaml.Node {
	if n.Kind != yaml.SequenceNode {
		return nil
	}
	if e.Name != "" {
		for _, c := range n.Content {
			if scalar(c, e.By) == e.Name {
				return c
			}
		}
		return nil
	}
	if e.Index < len(n.Content) {
		return n.Content[e.Index]
	}
	return nil
}

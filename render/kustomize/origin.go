package kustomize

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/resource"

	"github.com/fairlead-dev/fairlead/render/decode"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/render/tree"
)

// locate finds the document that a result was made from.
func (g *graph) locate(dir string, value map[string]any, o *resource.Origin) Manifest {
	m := Manifest{Value: value}
	kind, name := text(value, "kind"), ""
	if meta, ok := value["metadata"].(map[string]any); ok {
		name = text(meta, "name")
	}
	m.Locate = func(p decode.Path) object.Origin { return g.patched(kind, name, p, m.Origin, nil) }
	if o == nil {
		return m
	}
	if o.ConfiguredIn != "" {
		g.generated(dir, &m, kind, name, o)
		return m
	}
	p, ok := tree.Join(dir, o.Path)
	if !ok {
		return m
	}
	m.Origin = object.Origin{Path: p}
	f := g.manifests[p]
	if f == nil {
		return m
	}
	doc := match(f, kind, name)
	if doc == nil {
		return m
	}
	m.Origin.Line = doc.Line
	m.Locate = func(p decode.Path) object.Origin { return g.patched(kind, name, p, m.Origin, doc) }
	return m
}

// generated finds the entry of a generator that made a result.
func (g *graph) generated(dir string, m *Manifest, kind, name string, o *resource.Origin) {
	p, ok := tree.Join(dir, o.ConfiguredIn)
	if !ok {
		return
	}
	m.Origin = object.Origin{Path: p, Generator: o.ConfiguredBy.Kind}
	field := map[string]string{"ConfigMap": "configMapGenerator", "Secret": "secretGenerator"}[kind]
	n := g.dirs[path.Dir(p)]
	if field == "" || n == nil || n.file != p {
		return
	}
	best, bestName := -1, ""
	for i, c := range generatorNames(n, field) {
		if strings.Contains(name, c) && (best < 0 || len(c) > len(bestName)) {
			best, bestName = i, c
		}
	}
	if best < 0 {
		return
	}
	m.Origin.Generator = field + " " + bestName
	at := decode.Path{}.Child(field).Item(best, nil)
	m.Origin.Line, _ = n.doc.Find(at)
}

func generatorNames(n *node, field string) []string {
	var out []string
	if field == "configMapGenerator" {
		for _, c := range n.k.ConfigMapGenerator {
			out = append(out, c.Name)
		}
		return out
	}
	for _, c := range n.k.SecretGenerator {
		out = append(out, c.Name)
	}
	return out
}

// match finds the document of a kind whose name became name: prefixes and suffixes may have been added.
func match(f *decode.File, kind, name string) *decode.Doc {
	var best *decode.Doc
	count := 0
	for i := range f.Docs {
		d := &f.Docs[i]
		if d.Kind != kind {
			continue
		}
		count++
		if d.Name == name {
			return d
		}
		if d.Name != "" && strings.Contains(name, d.Name) && (best == nil || len(d.Name) > len(best.Name)) {
			best = d
		}
	}
	if best == nil && count == 1 {
		for i := range f.Docs {
			if f.Docs[i].Kind == kind {
				return &f.Docs[i]
			}
		}
	}
	if best == nil && len(f.Docs) == 1 {
		return &f.Docs[0]
	}
	return best
}

// patched returns where a field was written last: in a patch for the object that names the whole field,
// otherwise in the document itself.
func (g *graph) patched(kind, name string, p decode.Path, origin object.Origin, doc *decode.Doc) object.Origin {
	if len(p) > 1 {
		for i := len(g.patches) - 1; i >= 0; i-- {
			pt := g.patches[i]
			if !pt.meantFor(kind, name) {
				continue
			}
			var line int
			var wrote bool
			if pt.doc.Root.Kind == yaml.SequenceNode {
				line, wrote = operation(pt.doc, p)
			} else {
				line, wrote = pt.doc.Find(p)
			}
			switch {
			case wrote && pt.application > 0:
				return object.Origin{Path: pt.path, Generator: fmt.Sprintf("patch %d of the application", pt.application)}
			case wrote:
				return object.Origin{Path: pt.path, Line: line}
			}
		}
	}
	if doc != nil {
		origin.Line, _ = doc.Find(p)
	}
	return origin
}

// meantFor reports whether a patch may be meant for an object. Selectors are regular expressions and prefixes may have
// been added to names, so that it is a guess.
func (pt patch) meantFor(kind, name string) bool {
	wantKind, wantName := pt.doc.Kind, pt.doc.Name
	if pt.target != nil {
		wantKind, wantName = pt.target.Kind, pt.target.Name
		if wantName == "" {
			return wantKind == "" || wantKind == kind
		}
	}
	return (wantKind == kind || wantKind == "") && wantName != "" && strings.Contains(name, wantName)
}

// operation finds the operation of a JSON patch that wrote a field, and its line.
func operation(doc decode.Doc, p decode.Path) (int, bool) {
	var want strings.Builder
	for _, e := range p {
		want.WriteByte('/')
		if e.IsIndex {
			want.WriteString(strconv.Itoa(e.Index))
		} else {
			want.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(e.Key))
		}
	}
	for i := len(doc.Root.Content) - 1; i >= 0; i-- {
		op := decode.DocOf(doc.Root.Content[i], doc.Offset)
		at := op.Text("path")
		if at == "" || op.Text("op") == "remove" {
			continue
		}
		if at == want.String() || strings.HasPrefix(want.String(), at+"/") {
			line := op.Line
			if l, whole := op.Find(append(decode.Path{}.Child("value"), p[strings.Count(at, "/"):]...)); whole {
				line = l
			}
			return line, true
		}
	}
	return 0, false
}

func text(m map[string]any, key string) string {
	s, _ := m[key].(string)
	return s
}

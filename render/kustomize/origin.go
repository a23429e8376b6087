package kustomize

import (
	"path"
	"strings"

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
			d := g.patches[i].doc
			if d.Kind != kind || d.Name == "" || !strings.Contains(name, d.Name) {
				continue
			}
			if line, whole := d.Find(p); whole {
				return object.Origin{Path: g.patches[i].path, Line: line}
			}
		}
	}
	if doc != nil {
		origin.Line, _ = doc.Find(p)
	}
	return origin
}

func text(m map[string]any, key string) string {
	s, _ := m[key].(string)
	return s
}

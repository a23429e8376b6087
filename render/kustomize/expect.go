package kustomize

import (
	"regexp"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/fairlead-dev/fairlead/render/decode"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/render/tree"
)

// expectation is a result that a build is going to have, worked out from the graph. kustomize can note origins
// itself, but then also notes every transformation of every object, which costs half as much again as the build.
type expectation struct {
	origin    object.Origin
	doc       *decode.Doc // nil for generated objects
	namespace string
	used      bool
}

// expectations are by kind and final name.
type expectations map[[2]string][]*expectation

// affix is what the kustomizations around an object add to its name.
type affix struct{ prefix, suffix string }

// expect works out the results of n. It returns false when names cannot be foreseen.
func (g *graph) expect(n *node, a affix, into expectations) bool {
	k := n.k
	if len(k.Transformers)+len(k.Generators) > 0 || g.openAPI {
		return false
	}
	a = affix{a.prefix + k.NamePrefix, k.NameSuffix + a.suffix}
	add := func(kind, name, namespace string, doc *decode.Doc, o object.Origin) {
		// Some kinds keep their names.
		names := []string{a.prefix + name + a.suffix, name}
		e := &expectation{origin: o, doc: doc, namespace: namespace}
		for _, nm := range slices.Compact(names) {
			key := [2]string{kind, nm}
			into[key] = append(into[key], e)
		}
	}
	for _, r := range append(slices.Clone(k.Resources), k.Bases...) {
		p, ok := tree.Join(n.dir, r)
		if !ok {
			return false
		}
		if sub := g.dirs[p]; sub != nil {
			if !g.expect(sub, a, into) {
				return false
			}
			continue
		}
		f := g.manifests[p]
		if f == nil {
			return false
		}
		for i := range f.Docs {
			each(&f.Docs[i], func(d *decode.Doc) {
				add(d.Kind, d.Name, d.Namespace, d, object.Origin{Path: p, Line: d.Line})
			})
		}
	}
	for _, c := range k.Components {
		p, ok := tree.Join(n.dir, c)
		sub := g.dirs[p]
		if !ok || sub == nil || sub.k.NamePrefix != "" || sub.k.NameSuffix != "" {
			return false // a component renames what it is put into, too
		}
		if !g.expect(sub, a, into) {
			return false
		}
	}
	for _, field := range []string{"configMapGenerator", "secretGenerator"} {
		kind := "ConfigMap"
		if field == "secretGenerator" {
			kind = "Secret"
		}
		for i, name := range generatorNames(n, field) {
			o := object.Origin{Path: n.file, Generator: field + " " + name}
			o.Line, _ = n.doc.Find(decode.Path{}.Child(field).Item(i, nil))
			add(kind, name, "", nil, o)
		}
	}
	return true
}

// each calls f for a document, or for the items of a List.
func each(d *decode.Doc, f func(*decode.Doc)) {
	if d.Items() == 0 {
		f(d)
		return
	}
	for i := range d.Root.Content {
		if i%2 != 0 || d.Root.Content[i].Value != "items" {
			continue
		}
		for _, item := range d.Root.Content[i+1].Content {
			if item.Kind != yaml.MappingNode {
				continue
			}
			sub := decode.DocOf(item, d.Offset)
			each(&sub, f)
		}
	}
}

// hashed is a name with the hash that kustomize adds to those of generated objects.
var hashed = regexp.MustCompile(`^(.+)-[a-z0-9]{10}$`)

// find returns the expectation that a result fulfils.
func (x expectations) find(kind, name, namespace string) *expectation {
	list := x[[2]string{kind, name}]
	if len(list) == 0 {
		if m := hashed.FindStringSubmatch(name); m != nil {
			list = x[[2]string{kind, m[1]}]
		}
	}
	var best *expectation
	for _, e := range list {
		switch {
		case e.used:
		case e.namespace == namespace && namespace != "":
			best = e
		case best == nil:
			best = e
		}
		if best != nil && best.namespace == namespace && namespace != "" {
			break
		}
	}
	if best == nil && len(list) > 0 && list[0].doc == nil {
		best = list[0] // several generators make one object together
	}
	if best != nil {
		best.used = true
	}
	return best
}

// foreseen turns results into manifests by what was expected. It returns false when a result was not.
func (g *graph) foreseen(x expectations, values []map[string]any) ([]Manifest, bool) {
	out := make([]Manifest, 0, len(values))
	for _, v := range values {
		meta, _ := v["metadata"].(map[string]any)
		kind, name := text(v, "kind"), text(meta, "name")
		e := x.find(kind, name, text(meta, "namespace"))
		if e == nil {
			return nil, false
		}
		m := Manifest{Value: v, Origin: e.origin}
		m.Locate = func(p decode.Path) object.Origin { return g.patched(kind, name, p, e.origin, e.doc) }
		out = append(out, m)
	}
	return out, true
}

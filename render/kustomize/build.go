// Package kustomize builds one kustomization of a snapshot. It is the only package that knows kustomize.
//
// Before kustomize runs, the whole graph of what it is going to read is walked: everything that would run,
// fetch, leave the snapshot, go round in a circle or cost too much is refused by name, with file and line.
package kustomize

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/openapi"
	kyaml "sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/render/decode"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/render/tree"
)

// Input is what is to be built.
type Input struct {
	Tree *tree.Tree
	// Dir is the directory of the kustomization.
	Dir string
	// Resources, if there are any, are built instead: files and directories in Dir, which itself has no
	// kustomization (or one that is not to be used).
	Resources []string
	Overlay   Overlay
	Limits    Limits
	// Files remembers parsed files from one build to the next.
	Files *decode.Cache
}

// Overlay is what is added to the kustomization in Dir.
type Overlay struct {
	Namespace, NamePrefix, NameSuffix string
	// Labels and Annotations go where the commonLabels and commonAnnotations of a kustomization go.
	Labels, Annotations map[string]string
	// Patches, Images and Replicas have the form of the fields of a kustomization.
	Patches, Images, Replicas []json.RawMessage
	// Components are relative to Dir; missing ones are left out if IgnoreMissing is set.
	Components    []string
	IgnoreMissing bool
}

// Empty reports whether the overlay adds nothing.
func (o Overlay) Empty() bool {
	return o.Namespace == "" && o.NamePrefix == "" && o.NameSuffix == "" && len(o.Labels) == 0 && len(o.Annotations) == 0 &&
		len(o.Patches) == 0 && len(o.Images) == 0 && len(o.Replicas) == 0 && len(o.Components) == 0
}

// Manifest is one result of a build.
type Manifest struct {
	Value  map[string]any
	Origin object.Origin
	// Locate returns where a field of the manifest was written.
	Locate func(decode.Path) object.Origin
}

// kustomize keeps its schema in global state, so that builds of one process take turns.
var building sync.Mutex

// Build returns the manifests in the order that kustomize gives them. With errors among the diagnostics
// there are no manifests.
func Build(in Input) ([]Manifest, diag.List) {
	g := &graph{
		tree: in.Tree, lim: in.Limits, files: in.Files,
		dirs: map[string]*node{}, manifests: map[string]*decode.File{},
	}
	root, k := g.root(in)
	if root == nil || g.diags.HasErrors() {
		return nil, g.diags
	}
	// The expectations are those of the kustomization with what is added to it.
	final := *root
	final.k = k
	x := expectations{}
	foreseeable := g.expect(&final, affix{}, x)
	changed := len(in.Resources) > 0 || !in.Overlay.Empty()
	if foreseeable {
		values, ok := g.build(in, root, k, changed)
		if !ok {
			return nil, g.diags
		}
		if out, ok := g.foreseen(x, values); ok {
			return out, g.diags
		}
	}
	// kustomize says itself where the results come from, at a price.
	kept := slices.Contains(k.BuildMetadata, types.OriginAnnotations)
	if !kept {
		k.BuildMetadata = append(slices.Clone(k.BuildMetadata), types.OriginAnnotations)
	}
	m, ok := g.krusty(in, root, k, true)
	if !ok {
		return nil, g.diags
	}
	var out []Manifest
	for _, r := range m.Resources() {
		one, err := g.manifestOf(in.Dir, r, kept)
		if err != nil {
			g.report(root.file, 0, "build", "", clean(err.Error()), "")
			continue
		}
		out = append(out, one)
	}
	if g.diags.HasErrors() {
		return nil, g.diags
	}
	return out, g.diags
}

// krusty runs kustomize over k, which is written in place of the file in in.Dir if it was changed.
func (g *graph) krusty(in Input, root *node, k *types.Kustomization, changed bool) (resmap.ResMap, bool) {
	if changed {
		data, err := kyaml.Marshal(k)
		if err != nil {
			g.report(root.file, root.doc.Line, "bad-kustomization", "", clean(err.Error()), "")
			return nil, false
		}
		in.Tree.Overlay(path.Join(in.Dir, FileNames()[0]), data)
		for _, f := range FileNames()[1:] {
			in.Tree.Hide(path.Join(in.Dir, f))
		}
	}
	m, err := g.run(in.Dir)
	if err != nil {
		g.failed(root, err)
		return nil, false
	}
	return m, true
}

// build returns the results as values.
func (g *graph) build(in Input, root *node, k *types.Kustomization, changed bool) ([]map[string]any, bool) {
	m, ok := g.krusty(in, root, k, changed)
	if !ok {
		return nil, false
	}
	out := make([]map[string]any, 0, m.Size())
	for _, r := range m.Resources() {
		v, err := g.valueOf(r)
		if err != nil {
			g.report(root.file, 0, "build", "", clean(err.Error()), "")
			continue
		}
		out = append(out, v)
	}
	return out, !g.diags.HasErrors()
}

// root checks the kustomization to build and returns it, and what it is with what is to be added to it.
func (g *graph) root(in Input) (*node, *types.Kustomization) {
	var n *node
	if len(in.Resources) > 0 {
		n = &node{dir: in.Dir, file: in.Dir, k: &types.Kustomization{}, doc: decode.Doc{Line: 0}}
		if len(in.Resources) == 1 {
			n.file = path.Join(in.Dir, in.Resources[0])
		}
		n.k.Resources = in.Resources
	} else if n = g.load(in.Dir, nil); n == nil {
		return nil, nil
	}
	if n.k.Kind == types.ComponentKind {
		g.report(n.file, n.doc.Line, "not-a-resource", "kind", "a Component cannot be built by itself", "name it under the components of a Kustomization")
		return nil, nil
	}
	k := *n.k
	k.FixKustomization()
	if !g.overlay(n, &k, in.Overlay) {
		return nil, nil
	}
	g.dirs[in.Dir] = n
	g.stack = []string{in.Dir}
	if len(in.Resources) > 0 {
		for i, r := range in.Resources {
			e := at(n, r, "resources", i)
			if p := path.Join(in.Dir, r); g.tree.Kind(p) == tree.Dir {
				// It may build on files around it, but not on what is being built here.
				g.stack = nil
				g.absorb(n, g.visit(p, &e, false), e)
			} else {
				g.manifest(n, e, true)
			}
		}
		g.bound(n)
	} else {
		g.check(n)
	}
	for _, c := range in.Overlay.Components {
		p, ok := tree.Join(in.Dir, c)
		e := entry{n: &node{dir: in.Dir, file: n.file}, value: c}
		switch {
		case remote(c) != "" || !ok:
			g.report(n.file, 0, "outside", "components", "the application's component "+show(c)+" is not a directory of the source", "")
		case g.tree.Kind(p) == tree.Dir:
			g.visit(p, &e, true)
		case in.Overlay.IgnoreMissing:
		default:
			g.report(p, 0, "missing-file", "components", "the application's component "+show(c)+" does not exist", "")
		}
	}
	g.stack = nil
	return n, &k
}

// overlay adds what the application says to k.
func (g *graph) overlay(n *node, k *types.Kustomization, o Overlay) bool {
	good := true
	bad := func(what string, raw []byte, err error) {
		g.report(n.file, 0, "bad-option", what, fmt.Sprintf("the application's %s %s: %v", what, show(string(raw)), err), "")
		good = false
	}
	if o.Namespace != "" {
		k.Namespace = o.Namespace
	}
	if o.NamePrefix != "" {
		k.NamePrefix = o.NamePrefix
	}
	if o.NameSuffix != "" {
		k.NameSuffix = o.NameSuffix
	}
	if len(o.Labels) > 0 {
		k.CommonLabels = merged(k.CommonLabels, o.Labels)
	}
	if len(o.Annotations) > 0 {
		k.CommonAnnotations = merged(k.CommonAnnotations, o.Annotations)
	}
	k.Patches = slices.Clone(k.Patches)
	for i, raw := range o.Patches {
		var p types.Patch
		if err := strictJSON(raw, &p); err != nil {
			bad("patch", raw, err)
			continue
		}
		k.Patches = append(k.Patches, p)
		before := len(g.patches)
		g.patch(&node{dir: n.dir, file: n.file}, p, "patches", i)
		for j := range g.patches[before:] {
			g.patches[before+j].application = i + 1
		}
	}
	k.Images = slices.Clone(k.Images)
	for _, raw := range o.Images {
		var img types.Image
		if err := strictJSON(raw, &img); err != nil {
			bad("image", raw, err)
			continue
		}
		// An image of the same name is replaced, as Flux does: what the application says counts.
		if i := slices.IndexFunc(k.Images, func(x types.Image) bool { return x.Name == img.Name }); i >= 0 {
			k.Images[i] = img
		} else {
			k.Images = append(k.Images, img)
		}
	}
	k.Replicas = slices.Clone(k.Replicas)
	for _, raw := range o.Replicas {
		var r types.Replica
		if err := strictJSON(raw, &r); err != nil {
			bad("replica count", raw, err)
			continue
		}
		if i := slices.IndexFunc(k.Replicas, func(x types.Replica) bool { return x.Name == r.Name }); i >= 0 {
			k.Replicas[i] = r
		} else {
			k.Replicas = append(k.Replicas, r)
		}
	}
	k.Components = slices.Clone(k.Components)
	for _, c := range o.Components {
		if p, ok := tree.Join(n.dir, c); ok && o.IgnoreMissing && g.tree.Kind(p) == tree.Absent {
			continue
		}
		k.Components = append(k.Components, c)
	}
	return good
}

func merged(a, b map[string]string) map[string]string {
	out := maps.Clone(a)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, b)
	return out
}

func strictJSON(raw []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

// run calls kustomize. A panic in it is an error of this build.
func (g *graph) run(dir string) (m resmap.ResMap, err error) {
	building.Lock()
	defer building.Unlock()
	defer func() {
		if p := recover(); p != nil {
			m, err = nil, fmt.Errorf("kustomize broke down: %v", p)
		}
	}()
	if g.openAPI {
		// A schema that a kustomization sets stays set; the next build must not see it.
		defer openapi.ResetOpenAPI()
	}
	opt := krusty.MakeDefaultOptions()
	opt.LoadRestrictions = types.LoadRestrictionsNone
	opt.PluginConfig = types.DisabledPluginConfig()
	return krusty.MakeKustomizer(opt).Run(jail{g.tree}, path.Join("/", dir))
}

// failed turns an error of kustomize into a diagnostic.
func (g *graph) failed(root *node, err error) {
	g.report(root.file, root.doc.Line, "build", "", clean(err.Error()), "")
}

// What kustomize says of a file that it could read neither as objects nor as a directory, the first of which counts, and
// of an object without a name.
var (
	triedDirectory = regexp.MustCompile(`': must build at directory: '[^']*': file is not directory`)
	fromFile       = regexp.MustCompile(`accumulating resources from '([^']*)': `)
	nameless       = regexp.MustCompile(`missing metadata\.name in object \{\{\S* ?(\S*)\} \{\{[^{}]*\} map\[[^\]]*\] map\[[^\]]*\]\}\}`)
)

// clean shortens the messages of kustomize, which nest the same words many times over.
func clean(msg string) string {
	msg = triedDirectory.ReplaceAllString(msg, "")
	msg = nameless.ReplaceAllString(msg, "an object of kind $1 has no metadata.name")
	msg = fromFile.ReplaceAllString(msg, "$1: ")
	for _, noise := range []string{"accumulating resources: ", "accumulation err='", "invalid Kustomization: json: "} {
		msg = strings.ReplaceAll(msg, noise, "")
	}
	msg = strings.Join(strings.Fields(msg), " ")
	if len(msg) > 500 {
		msg = strings.ToValidUTF8(msg[:500], "") + "…"
	}
	return msg
}

// manifestOf turns a resource into a manifest with its origin.
func (g *graph) manifestOf(dir string, r *resource.Resource, keep bool) (Manifest, error) {
	origin, err := r.GetOrigin()
	if err != nil {
		return Manifest{}, err
	}
	value, err := g.valueOf(r)
	if err != nil {
		return Manifest{}, err
	}
	if !keep {
		dropOrigin(value)
	}
	return g.locate(dir, value, origin), nil
}

func (g *graph) valueOf(r *resource.Resource) (map[string]any, error) {
	v, err := decode.Value(r.YNode(), g.lim.YAML)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.CurId(), err)
	}
	value, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s: is not a mapping", r.CurId())
	}
	return value, nil
}

// dropOrigin removes the annotation that says where a resource came from.
func dropOrigin(value map[string]any) {
	meta, _ := value["metadata"].(map[string]any)
	ann, _ := meta["annotations"].(map[string]any)
	delete(ann, "config.kubernetes.io/origin")
	if len(ann) == 0 && ann != nil {
		delete(meta, "annotations")
	}
}

package kustomize

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/types"

	"github.com/fairlead-dev/fairlead/render/decode"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/render/tree"
)

// FileNames are the names under which kustomize finds a kustomization, in its order.
func FileNames() []string {
	return []string{"kustomization.yaml", "kustomization.yml", "Kustomization"}
}

// Limits bound what one build may be asked to do.
type Limits struct {
	// Visits is how many kustomizations are built, one that is used twice counting twice.
	Visits int
	// Documents is how many manifests go through the build, those of a base that is used twice counting twice.
	Documents int
	// Depth is how deep kustomizations may build on each other.
	Depth int
	// Entries is how many patches, generators, literals, images and the like one kustomization may hold.
	Entries int
	YAML    decode.Limits
}

// DefaultLimits are far above what real overlays need.
func DefaultLimits() Limits {
	return Limits{Visits: 2000, Documents: 20_000, Depth: 50, Entries: 20_000, YAML: decode.DefaultLimits()}
}

// graph is everything that a build is going to read, found out before kustomize runs.
type graph struct {
	tree  *tree.Tree
	lim   Limits
	files *decode.Cache
	diags diag.List
	// dirs are the kustomizations by directory.
	dirs map[string]*node
	// manifests and patches are parsed files by path, in the order in which they were met.
	manifests map[string]*decode.File
	patches   []patch
	// openAPI is true when some kustomization sets a schema, which kustomize keeps in global state.
	openAPI bool
	stack   []string
}

// patch is one document of a patch.
type patch struct {
	path   string
	doc    decode.Doc
	target *types.Selector // nil when the document itself says what it is for
	// application is the number, from 1, of a patch that the application adds; it is in no file.
	application int
}

// node is one kustomization.
type node struct {
	dir, file string
	doc       decode.Doc
	k         *types.Kustomization
	visits    int
	documents int
	done      bool
}

func (g *graph) report(file string, line int, code, field, msg, hint string) {
	g.diags = append(g.diags, diag.Diagnostic{
		Severity: diag.Error, Code: code, Origin: object.Origin{Path: file, Line: line}, Field: field, Message: msg, Hint: hint,
	})
}

// entry is one place in a kustomization that names a path or something else to be judged.
type entry struct {
	n     *node
	field decode.Path
	value string
}

func at(n *node, value string, keys ...any) entry {
	var p decode.Path
	for _, k := range keys {
		switch k := k.(type) {
		case string:
			p = p.Child(k)
		case int:
			p = p.Item(k, nil)
		}
	}
	return entry{n, p, value}
}

func (g *graph) refuse(e entry, code, msg, hint string) {
	line, _ := e.n.doc.Find(e.field)
	g.report(e.n.file, line, code, e.field.String(), msg, hint)
}

// visit checks the kustomization in dir and everything below it. by is the entry that names it, nil for the root.
func (g *graph) visit(dir string, by *entry, component bool) *node {
	if i := slices.Index(g.stack, dir); i >= 0 {
		g.refuse(*by, "cycle", "the kustomizations go round in a circle: "+strings.Join(append(g.stack[i:], dir), " → "), "remove one of them")
		return nil
	}
	if by != nil {
		for _, s := range g.stack {
			if dir == "." || strings.HasPrefix(s, dir+"/") {
				g.refuse(*by, "cycle", fmt.Sprintf("%s contains %s, which builds on it", name(dir), name(s)), "move the base out of the directories above the overlay")
				return nil
			}
		}
	}
	if len(g.stack) >= g.lim.Depth {
		g.refuse(*by, "too-deep", fmt.Sprintf("more than %d kustomizations build on each other", g.lim.Depth), "")
		return nil
	}
	if n, ok := g.dirs[dir]; ok {
		return n
	}
	n := g.load(dir, by)
	g.dirs[dir] = n
	if n == nil {
		return nil
	}
	if by != nil {
		if isComponent := n.k.Kind == types.ComponentKind; isComponent != component {
			if component {
				g.refuse(*by, "not-a-component", name(dir)+" is a Kustomization, not a Component", "name it under resources")
			} else {
				g.refuse(*by, "not-a-resource", name(dir)+" is a Component", "name it under components")
			}
		}
	}
	g.stack = append(g.stack, dir)
	g.check(n)
	g.stack = g.stack[:len(g.stack)-1]
	n.done = true
	return n
}

func name(dir string) string {
	if dir == "." {
		return "the root of the source"
	}
	return dir
}

// load reads and parses the kustomization file of a directory.
func (g *graph) load(dir string, by *entry) *node {
	var found []string
	for _, f := range FileNames() {
		if p := path.Join(dir, f); g.tree.Kind(p) == tree.File {
			found = append(found, p)
		}
	}
	switch {
	case len(found) == 0 && by == nil:
		g.report(dir, 0, "no-kustomization", "", "there is no kustomization file in "+name(dir), "add a kustomization.yaml")
		return nil
	case len(found) == 0:
		g.refuse(*by, "no-kustomization", "there is no kustomization file in "+name(dir), "add one, or name the files in it one by one")
		return nil
	case len(found) > 1:
		g.report(found[1], 0, "two-kustomizations", "", name(dir)+" has two kustomization files: "+strings.Join(found, " and "), "keep one of them")
		return nil
	}
	file := found[0]
	data, err := g.tree.ReadFile(file)
	if err != nil {
		g.unreadable(file, err)
		return nil
	}
	parsed, list := g.files.Parse(file, data, g.lim.YAML)
	g.diags = append(g.diags, list...)
	if list.HasErrors() {
		return nil
	}
	if len(parsed.Docs) != 1 {
		g.report(file, 0, "bad-kustomization", "", fmt.Sprintf("a kustomization file holds one document, this one has %d", len(parsed.Docs)), "")
		return nil
	}
	n := &node{dir: dir, file: file, doc: parsed.Docs[0]}
	v, err := decode.Value(n.doc.Root, g.lim.YAML)
	m, isMap := v.(map[string]any)
	if err != nil || !isMap {
		line, msg := n.doc.Line, "a kustomization is a mapping"
		if err != nil {
			line, msg = n.doc.ErrorLine(err), err.Error()
		}
		g.report(file, line, "bad-kustomization", "", msg, "")
		return nil
	}
	if kind := n.doc.Kind; kind != "" && kind != types.KustomizationKind && kind != types.ComponentKind {
		g.report(file, n.doc.Line, "bad-kustomization", "kind", "kind "+kind+" is not a kustomization", "write kind: Kustomization")
		return nil
	}
	if group, _, _ := strings.Cut(n.doc.APIVersion, "/"); n.doc.APIVersion != "" && group != "kustomize.config.k8s.io" {
		g.report(file, n.doc.Line, "bad-kustomization", "apiVersion", "apiVersion "+n.doc.APIVersion+" is not kustomize's",
			"a Kustomization of Flux needs another file name; kustomize's has apiVersion kustomize.config.k8s.io/v1beta1")
		return nil
	}
	if list := decode.Check[types.Kustomization](m, decode.CheckOptions{Doc: n.doc, File: file, Kind: "a kustomization", FoldCase: true}); list.HasErrors() {
		g.diags = append(g.diags, list...)
		return nil
	}
	var k types.Kustomization
	if err := k.Unmarshal(decode.Canonical(m)); err != nil {
		g.report(file, n.doc.Line, "bad-kustomization", "", clean(err.Error()), "")
		return nil
	}
	n.k = &k
	return n
}

func (g *graph) unreadable(file string, err error) {
	var limit *tree.LimitError
	var locked interface{ Diagnostic() diag.Diagnostic }
	switch {
	case errors.As(err, &locked):
		g.diags = append(g.diags, locked.Diagnostic())
	case errors.As(err, &limit):
		g.report(limit.Path, 0, "too-large", "", limit.Reason, "")
	case errors.Is(err, fs.ErrNotExist):
		g.report(file, 0, "missing-file", "", "the file does not exist", "")
	default:
		g.report(file, 0, "unreadable", "", "cannot be read: "+err.Error(), "")
	}
}

// check judges every entry of a kustomization and goes on to what it names.
func (g *graph) check(n *node) {
	k := n.k
	n.visits = 1
	g.refusals(n)
	g.entries(n)
	for i, r := range k.Resources {
		g.resource(n, at(n, r, "resources", i))
	}
	for i, r := range k.Bases {
		g.resource(n, at(n, r, "bases", i))
	}
	for i, r := range k.Components {
		e := at(n, r, "components", i)
		if dir, ok := g.local(e, tree.Dir); ok {
			g.absorb(n, g.visit(dir, &e, true), e)
		}
	}
	for i, f := range k.Crds {
		g.manifest(n, at(n, f, "crds", i), false)
	}
	for i, f := range k.Configurations {
		g.manifest(n, at(n, f, "configurations", i), false)
	}
	for field, list := range map[string][]string{"generators": k.Generators, "transformers": k.Transformers, "validators": k.Validators} {
		for i, s := range list {
			g.plugin(n, at(n, s, field, i))
		}
	}
	if p, ok := k.OpenAPI["path"]; ok {
		g.openAPI = true
		g.file(at(n, p, "openapi", "path"))
	}
	if _, ok := k.OpenAPI["version"]; ok {
		g.openAPI = true
	}
	for i, p := range k.Patches {
		g.patch(n, p, "patches", i)
	}
	for i, p := range k.PatchesJson6902 {
		g.patch(n, p, "patchesJson6902", i)
	}
	for i, p := range k.PatchesStrategicMerge {
		e := at(n, string(p), "patchesStrategicMerge", i)
		if inlined(string(p)) {
			g.inline(e, nil)
		} else {
			g.patchFile(e, nil)
		}
	}
	for i, r := range k.Replacements {
		if r.Path != "" {
			g.file(at(n, r.Path, "replacements", i, "path"))
		}
	}
	for i, c := range k.ConfigMapGenerator {
		g.sources(n, c.KvPairSources, "configMapGenerator", i)
		n.documents++
	}
	for i, s := range k.SecretGenerator {
		g.sources(n, s.KvPairSources, "secretGenerator", i)
		n.documents++
	}
	g.bound(n)
}

// bound reports a kustomization that is more work than the limits allow.
func (g *graph) bound(n *node) {
	if n.visits > g.lim.Visits {
		g.report(n.file, n.doc.Line, "too-large", "", fmt.Sprintf("it builds more than %d kustomizations", g.lim.Visits), "split it into several")
		n.visits = 0
	}
	if n.documents > g.lim.Documents {
		g.report(n.file, n.doc.Line, "too-large", "", fmt.Sprintf("it takes in more than %d manifests", g.lim.Documents), "split it into several")
		n.documents = 0
	}
}

// absorb adds the work of a kustomization to that of the one that names it.
func (g *graph) absorb(n, sub *node, e entry) {
	if sub == nil {
		return
	}
	n.visits = min(n.visits+sub.visits, math.MaxInt32)
	n.documents = min(n.documents+sub.documents, math.MaxInt32)
}

// entries bounds the lists of a kustomization.
func (g *graph) entries(n *node) {
	count := len(n.k.Patches) + len(n.k.PatchesJson6902) + len(n.k.PatchesStrategicMerge) + len(n.k.Images) + len(n.k.Replicas) +
		len(n.k.Resources) + len(n.k.Vars) + len(n.k.Replacements)
	for _, c := range n.k.ConfigMapGenerator {
		count += 1 + len(c.LiteralSources) + len(c.FileSources) + len(c.EnvSources)
	}
	for _, c := range n.k.SecretGenerator {
		count += 1 + len(c.LiteralSources) + len(c.FileSources) + len(c.EnvSources)
	}
	if count > g.lim.Entries {
		g.report(n.file, n.doc.Line, "too-large", "", fmt.Sprintf("it has %d entries, the limit is %d", count, g.lim.Entries), "split it into several")
	}
}

// refusals names the features that would run or fetch something.
func (g *graph) refusals(n *node) {
	k := n.k
	helm := "render the chart beforehand and commit the manifests"
	if len(k.HelmCharts) > 0 {
		g.refuse(at(n, "", "helmCharts"), "helm", "helmCharts would run Helm, which fairlead does not", helm)
	}
	if k.HelmGlobals != nil {
		g.refuse(at(n, "", "helmGlobals"), "helm", "helmGlobals would run Helm, which fairlead does not", helm)
	}
	if len(k.HelmChartInflationGenerator) > 0 {
		g.refuse(at(n, "", "helmChartInflationGenerator"), "helm", "helmChartInflationGenerator would run Helm, which fairlead does not", helm)
	}
}

// local returns the path in the tree that an entry means. Everything else is refused by name.
func (g *graph) local(e entry, want tree.Kind) (string, bool) {
	if why := remote(e.value); why != "" {
		g.refuse(e, "remote", fmt.Sprintf("%s is %s: nothing is fetched while rendering", show(e.value), why), "vendor it into the repository, or declare it as a source of its own")
		return "", false
	}
	p, ok := tree.Join(e.n.dir, e.value)
	if !ok {
		g.refuse(e, "outside", show(e.value)+" leads out of the source", "name a file inside the repository, relative to this one")
		return "", false
	}
	switch kind := g.tree.Kind(p); {
	case kind == want, want == tree.Absent && kind != tree.Absent:
		return p, true
	case kind == tree.Absent && g.tree.Link(p) != "":
		is := "is"
		if g.tree.Link(p) != p {
			is = "is below"
		}
		g.refuse(e, "symlink", show(e.value)+" "+is+" a symbolic link that leads out of the source, to nothing or in a circle", "put the file itself there")
	case kind == tree.Absent:
		g.refuse(e, "missing-file", show(e.value)+" does not exist", "")
	case want == tree.Dir:
		g.refuse(e, "not-a-directory", show(e.value)+" is a file, a directory is needed", "")
	default:
		g.refuse(e, "not-a-file", show(e.value)+" is a directory, a file is needed", "")
	}
	return "", false
}

// inlined reports whether an entry is a document itself and not the name of a file.
func inlined(s string) bool {
	return strings.Contains(s, "\n") || strings.HasPrefix(strings.TrimSpace(s), "{") || strings.Contains(s, ":") && remote(s) == ""
}

// show quotes a value for a message, shortened and without the credentials of an address.
func show(s string) string {
	s = userinfo.ReplaceAllString(s, "//***@")
	if len(s) > 120 {
		s = strings.ToValidUTF8(s[:120], "") + "…"
	}
	return fmt.Sprintf("%q", s)
}

func (g *graph) resource(n *node, e entry) {
	p, ok := g.local(e, tree.Absent)
	if !ok {
		return
	}
	if g.tree.Kind(p) == tree.Dir {
		g.absorb(n, g.visit(p, &e, false), e)
		return
	}
	g.manifest(n, e, true)
}

// file checks that an entry names a readable file and returns its path and content.
func (g *graph) file(e entry) (string, []byte, bool) {
	p, ok := g.local(e, tree.File)
	if !ok {
		return "", nil, false
	}
	data, err := g.tree.ReadFile(p)
	if err != nil {
		g.unreadable(p, err)
		return "", nil, false
	}
	return p, data, true
}

// manifest checks a file of manifests.
func (g *graph) manifest(n *node, e entry, counts bool) {
	p, data, ok := g.file(e)
	if !ok {
		return
	}
	f := g.manifests[p]
	if f == nil {
		var list diag.List
		f, list = g.files.Parse(p, data, g.lim.YAML)
		g.manifests[p] = f
		g.diags = append(g.diags, list...)
		for _, d := range f.Docs {
			g.function(p, d)
		}
	}
	if counts {
		for _, d := range f.Docs {
			n.documents += 1 + d.Items()
		}
	}
}

// function refuses manifests that kustomize would take for something to run.
func (g *graph) function(file string, d decode.Doc) {
	for _, a := range []string{"config.kubernetes.io/function", "config.k8s.io/function"} {
		p := decode.Path{}.Child("metadata").Child("annotations").Child(a)
		if line, whole := d.Find(p); whole {
			g.report(file, line, "function", p.String(), "the annotation "+a+" would run a function, which fairlead does not", "remove it")
		}
	}
}

func (g *graph) patch(n *node, p types.Patch, field string, i int) {
	if p.Path != "" {
		g.patchFile(at(n, p.Path, field, i, "path"), p.Target)
	}
	if p.Patch != "" {
		g.inline(at(n, p.Patch, field, i, "patch"), p.Target)
	}
}

func (g *graph) patchFile(e entry, target *types.Selector) {
	p, data, ok := g.file(e)
	if !ok {
		return
	}
	f, list := g.files.Parse(p, data, g.lim.YAML)
	g.diags = append(g.diags, list...)
	for _, d := range f.Docs {
		g.patches = append(g.patches, patch{path: p, doc: d, target: target})
	}
}

// inline checks a patch that is written into the kustomization.
func (g *graph) inline(e entry, target *types.Selector) {
	line, _ := e.n.doc.Find(e.field)
	f, list := g.files.Parse(e.n.file, []byte(e.value), g.lim.YAML)
	for i := range list {
		if list[i].Origin.Line > 0 {
			list[i].Origin.Line += line
		}
	}
	g.diags = append(g.diags, list...)
	for _, d := range f.Docs {
		d.Offset += line
		d.Line += line
		g.patches = append(g.patches, patch{path: e.n.file, doc: d, target: target})
	}
}

// sources checks the files of a generator.
func (g *graph) sources(n *node, s types.KvPairSources, field string, i int) {
	for j, f := range s.FileSources {
		v := f
		if key, val, ok := strings.Cut(f, "="); ok && key != "" {
			v = val
		}
		e := at(n, v, field, i, "files", j)
		g.file(e)
	}
	for j, f := range s.EnvSources {
		g.envFile(at(n, f, field, i, "envs", j))
	}
	if s.EnvSource != "" {
		g.envFile(at(n, s.EnvSource, field, i, "env"))
	}
}

// envFile checks a file each line of which becomes an entry.
func (g *graph) envFile(e entry) {
	p, data, ok := g.file(e)
	if n := bytes.Count(data, []byte("\n")); ok && n > g.lim.Entries {
		g.report(p, 0, "too-large", "", fmt.Sprintf("it has %d lines, more than the %d that one kustomization may take in", n, g.lim.Entries), "split it into several")
	}
}

// plugin checks an entry of generators, transformers or validators: a file, a directory or an inline document.
// Only kustomize's own plugins that read no more than files of the snapshot are let through.
func (g *graph) plugin(n *node, e entry) {
	if inlined(e.value) {
		line, _ := n.doc.Find(e.field)
		f, list := g.files.Parse(n.file, []byte(e.value), g.lim.YAML)
		for i := range list {
			list[i].Origin.Line += line
		}
		g.diags = append(g.diags, list...)
		for _, d := range f.Docs {
			d.Offset += line
			d.Line += line
			g.function(n.file, d)
			g.builtin(n, n.file, d)
		}
		return
	}
	p, ok := g.local(e, tree.Absent)
	if !ok {
		return
	}
	if g.tree.Kind(p) == tree.Dir {
		sub := g.visit(p, &e, false)
		if sub == nil {
			return
		}
		// What such a kustomization makes are plugins: all manifests in it are judged as such.
		for _, r := range sub.k.Resources {
			if f, ok := tree.Join(sub.dir, r); ok && g.manifests[f] != nil {
				for _, d := range g.manifests[f].Docs {
					g.builtin(sub, f, d)
				}
			} else {
				g.refuse(e, "plugin", "plugins that come from several kustomizations are not read", "name the files directly")
			}
		}
		if len(sub.k.Generators)+len(sub.k.Transformers)+len(sub.k.Patches)+len(sub.k.PatchesStrategicMerge)+len(sub.k.PatchesJson6902)+len(sub.k.Components) > 0 {
			g.refuse(e, "plugin", "plugins that are themselves generated or patched are not read", "name the files directly")
		}
		return
	}
	g.manifest(n, e, false)
	if f := g.manifests[p]; f != nil {
		for _, d := range f.Docs {
			g.builtin(n, p, d)
		}
	}
}

// builtin checks the configuration of a plugin.
func (g *graph) builtin(n *node, file string, d decode.Doc) {
	if d.APIVersion != "builtin" || d.Kind == "HelmChartInflationGenerator" {
		what := fmt.Sprintf("%s (apiVersion %s) is a plugin that would be run", d.Kind, d.APIVersion)
		if d.APIVersion == "builtin" {
			what = d.Kind + " would run Helm"
		}
		g.report(file, d.Line, "plugin", "", what+", which fairlead does not", "only kustomize's builtin generators and transformers are used")
		return
	}
	sub := &node{dir: n.dir, file: file, doc: d}
	var walk func(v *yaml.Node, p decode.Path, key string)
	walk = func(v *yaml.Node, p decode.Path, key string) {
		switch v.Kind {
		case yaml.AliasNode:
			walk(v.Alias, p, key)
		case yaml.MappingNode:
			for i := 0; i+1 < len(v.Content); i += 2 {
				k := v.Content[i].Value
				walk(v.Content[i+1], p.Child(k), strings.ToLower(k))
			}
		case yaml.SequenceNode:
			for i, c := range v.Content {
				walk(c, p.Item(i, nil), key)
			}
		case yaml.ScalarNode:
			e := entry{sub, p, v.Value}
			switch key {
			case "files":
				if k, val, ok := strings.Cut(v.Value, "="); ok && k != "" {
					e.value = val
				}
				g.file(e)
			case "envs", "env":
				g.envFile(e)
			case "path", "paths":
				// A field path (spec/replicas) has the same key as a file; only what could be fetched is refused.
				if why := remote(v.Value); why != "" || strings.HasPrefix(v.Value, "/") && strings.Contains(v.Value, "..") {
					g.refuse(e, "remote", show(v.Value)+" is "+why+": nothing is fetched while rendering", "")
				} else if strings.HasPrefix(v.Value, "..") || g.exists(n.dir, v.Value) {
					g.file(e)
				}
			}
		}
	}
	walk(d.Root, nil, "")
}

func (g *graph) exists(dir, rel string) bool {
	p, ok := tree.Join(dir, rel)
	return ok && g.tree.Kind(p) == tree.File
}

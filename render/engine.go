package render

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/render/decode"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/kustomize"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/render/sops"
	"github.com/fairlead-dev/fairlead/render/tree"
)

// Run renders units one after the other and calls each, in order, with their results.
func (e *Engine) Run(ctx context.Context, req Request, units []Unit, each func(i int, r UnitResult)) error {
	for i, u := range units {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := e.Unit(req, u)
		if err != nil {
			return err
		}
		each(i, r)
	}
	return nil
}

// Unit renders one unit. An error is a failure of the file system; everything else is a diagnostic.
func (e *Engine) Unit(req Request, u Unit) (UnitResult, error) {
	ur := &unitRun{engine: e, req: req, unit: u}
	t := tree.New(req.Files, tree.DefaultLimits(), ur.decrypt)
	ur.tree = t
	if err := ur.guarded(); err != nil {
		return UnitResult{}, err
	}
	ur.hidden.apply(ur.out.Diags)
	ur.out.Diags = fewer(u.String(), ur.out.Diags)
	if err := t.Err(); err != nil {
		return UnitResult{}, err
	}
	ur.out.Reads = t.Reads()
	if len(ur.reads) > 0 {
		ur.out.Reads = slices.Compact(slices.Sorted(slices.Values(append(ur.reads, ur.out.Reads...))))
	}
	return ur.out, nil
}

// unitRun is the rendering of one unit.
type unitRun struct {
	engine *Engine
	req    Request
	unit   Unit
	tree   *tree.Tree
	out    UnitResult
	reads  []string // that did not go through tree
	// size is how many bytes of objects there are.
	size int
	// hidden is what must not be shown in findings, secrets what must not be shown of objects.
	hidden  redactor
	secrets secrets
}

// maxOutput bounds the objects of one unit.
const maxOutput = 64 << 20

// locked is a file that cannot be decrypted.
type locked struct{ d diag.Diagnostic }

func (l *locked) Error() string               { return l.d.Message }
func (l *locked) Diagnostic() diag.Diagnostic { return l.d }

// decrypt turns a file that SOPS encrypted into its plain text.
func (r *unitRun) decrypt(p string, data []byte) ([]byte, error) {
	if sops.Detect(p, data) == sops.None {
		return data, nil
	}
	ids, err := sops.Identities(r.req.AgeKeys)
	if err == nil {
		var values []string
		data, values, err = sops.Decrypt(p, data, ids)
		for _, v := range values {
			r.hidden.add(v, minDecrypted)
			r.secrets.add(v)
		}
	}
	var why *sops.Error
	if errors.As(err, &why) {
		return nil, &locked{diag.Diagnostic{
			Severity: diag.Error, Code: why.Code, Origin: object.Origin{Path: p}, Message: why.Message, Hint: why.Hint,
		}}
	}
	return data, err
}

// guarded renders; what breaks down on hostile input is a finding about the unit.
func (r *unitRun) guarded() error {
	defer func() {
		if p := recover(); p != nil {
			r.out.Objects = nil
			r.report(r.unit.String(), 0, "broke-down", fmt.Sprintf("rendering it broke down: %.200v", p))
		}
	}()
	return r.render()
}

func (r *unitRun) render() error {
	for _, name := range badVariables(r.req.Substitute) {
		r.report(r.unit.String(), 0, "bad-variable", fmt.Sprintf("%q is not a name of a variable to substitute: letters, digits and _ only", name))
	}
	for _, v := range r.req.Substitute {
		r.hidden.add(v, minSubstituted)
	}
	for _, name := range r.req.FromSecrets {
		r.secrets.add(r.req.Substitute[name])
	}
	var docs []kustomize.Manifest
	over := r.req.overlay()
	if r.unit.Plain && over.Empty() {
		docs = r.plain()
	} else {
		in := kustomize.Input{Tree: r.tree, Dir: r.unit.Dir, Overlay: over, Limits: kustomize.DefaultLimits(), Files: &r.engine.files}
		switch {
		case r.unit.Whole:
			all, err := units(r.req)
			if err != nil {
				return err
			}
			r.reads = all.reads
			for _, u := range all.units {
				in.Resources = append(in.Resources, u.Resource)
			}
		case r.unit.Resource != "" && !r.unit.Plain && over.Empty():
			// Nothing is added, so the directory's own kustomization can be built as it is.
			in.Dir = r.unit.String()
		case r.unit.Resource != "":
			in.Resources = []string{r.unit.Resource}
		}
		var list diag.List
		docs, list = kustomize.Build(in)
		r.out.Diags = append(r.out.Diags, list...)
	}
	for _, d := range docs {
		r.decode(d)
		if r.size > maxOutput {
			r.report(r.unit.String(), 0, "too-large", fmt.Sprintf("it makes more than %d bytes of objects", maxOutput))
			return nil
		}
	}
	return nil
}

// overlay is what kustomize has to add.
func (o Options) overlay() kustomize.Overlay {
	over := kustomize.Overlay{
		Namespace: o.TargetNamespace, NamePrefix: o.NamePrefix, NameSuffix: o.NameSuffix,
		Patches: o.Patches, Images: o.Images, Replicas: o.Replicas,
		Components: o.Components, IgnoreMissing: o.IgnoreMissingComponents,
	}
	if o.MetadataEverywhere {
		over.Labels, over.Annotations = o.CommonLabels, o.CommonAnnotations
	}
	return over
}

// plain reads a file of manifests that nothing is added to.
func (r *unitRun) plain() []kustomize.Manifest {
	p := r.unit.String()
	data, err := r.tree.ReadFile(p)
	var shut *locked
	if errors.As(err, &shut) {
		r.out.Diags = append(r.out.Diags, shut.d)
		return nil
	}
	if err != nil {
		r.report(p, 0, "unreadable", "cannot be read: "+strings.TrimPrefix(err.Error(), p+": "))
		return nil
	}
	lim := decode.DefaultLimits()
	f, list := r.engine.files.Parse(p, data, lim)
	r.out.Diags = append(r.out.Diags, list...)
	var out []kustomize.Manifest
	for _, d := range f.Docs {
		v, err := decode.Value(d.Root, lim)
		m, ok := v.(map[string]any)
		switch {
		case err != nil:
			r.report(p, d.ErrorLine(err), "yaml-syntax", err.Error())
			continue
		case !ok:
			r.report(p, d.Line, "not-a-manifest", "a manifest is a mapping with apiVersion, kind and metadata")
			continue
		}
		out = append(out, flatten(kustomize.Manifest{Value: m, Origin: object.Origin{Path: p, Line: d.Line}, Locate: func(fp decode.Path) object.Origin {
			line, _ := d.Find(fp)
			return object.Origin{Path: p, Line: line}
		}})...)
	}
	return out
}

// flatten turns a List into its items.
func flatten(m kustomize.Manifest) []kustomize.Manifest {
	kind, _ := m.Value["kind"].(string)
	items, ok := m.Value["items"].([]any)
	if !ok || !strings.HasSuffix(kind, "List") {
		return []kustomize.Manifest{m}
	}
	var out []kustomize.Manifest
	at := decode.Path{}.Child("items")
	for i, item := range items {
		v, ok := item.(map[string]any)
		if !ok {
			continue
		}
		here := at.Item(i, nil)
		out = append(out, flatten(kustomize.Manifest{
			Value: v, Origin: m.Locate(here),
			Locate: func(p decode.Path) object.Origin { return m.Locate(append(here[:len(here):len(here)], p...)) },
		})...)
	}
	return out
}

// decode turns a manifest into an object.
func (r *unitRun) decode(d kustomize.Manifest) {
	if local(d.Value) {
		return
	}
	d, usable := r.substitute(d)
	if !usable {
		return
	}
	if o := r.req.Options; !o.MetadataEverywhere {
		addMetadata(d.Value, "labels", o.CommonLabels)
		addMetadata(d.Value, "annotations", o.CommonAnnotations)
	}
	obj, list, ok := decode.Object(d.Value, decode.Options{
		Origin: d.Origin, Locate: d.Locate,
		DefaultNamespace: r.req.DefaultNamespace, AllowUnsupported: r.req.AllowUnsupported, Check: r.engine.Check,
	})
	r.out.Diags = append(r.out.Diags, list...)
	if ok {
		r.size += len(obj.Written)
		r.out.Objects = append(r.out.Objects, Rendered{obj.Ref, obj.APIVersion, obj.Written, obj.Origin, obj.Places, r.secrets.in(&obj)})
	}
}

// addMetadata puts labels or annotations over those that an object has.
func addMetadata(v map[string]any, key string, add map[string]string) {
	if len(add) == 0 {
		return
	}
	meta, ok := v["metadata"].(map[string]any)
	if !ok {
		return // reported as missing
	}
	have, ok := meta[key].(map[string]any)
	if !ok {
		if meta[key] != nil {
			return // reported as the wrong type
		}
		have = make(map[string]any, len(add))
		meta[key] = have
	}
	for k, text := range add {
		have[k] = text
	}
}

// local reports whether a manifest is for tools only, as kustomize has it.
func local(v map[string]any) bool {
	meta, _ := v["metadata"].(map[string]any)
	ann, _ := meta["annotations"].(map[string]any)
	s, ok := ann["config.kubernetes.io/local-config"].(string)
	return ok && s != "false"
}

func (r *unitRun) report(p string, line int, code, msg string) {
	r.out.Diags = append(r.out.Diags, diag.Diagnostic{
		Severity: diag.Error, Code: code, Origin: object.Origin{Path: path.Clean(p), Line: line}, Message: msg,
	})
}

package applications

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render"
	"github.com/fairlead-dev/fairlead/render/object"
)

type nameRef struct {
	Name string `json:"name"`
}

type gitRepository struct {
	Metadata meta `json:"metadata"`
	Spec     struct {
		URL      string `json:"url"`
		Interval string `json:"interval"`
		Timeout  string `json:"timeout"`
		Ref      struct {
			Branch string `json:"branch"`
			Tag    string `json:"tag"`
			SemVer string `json:"semver"`
			Name   string `json:"name"`
			Commit string `json:"commit"`
		} `json:"ref"`
		SecretRef nameRef `json:"secretRef"`
		Verify    *struct {
			Mode      string  `json:"mode"`
			SecretRef nameRef `json:"secretRef"`
		} `json:"verify"`
		Suspend           bool     `json:"suspend"`
		Ignore            *string  `json:"ignore"`
		RecurseSubmodules bool     `json:"recurseSubmodules"`
		SparseCheckout    []string `json:"sparseCheckout"`
	} `json:"spec"`
}

func (rd *reader) readGitRepository(d declaration, table *node) {
	var g gitRepository
	r := d.report
	decode(r, table, d.content, &g)
	s := Source{
		Name: shownName(d.Namespace, d.Name), Kind: Git, Ref: d.Ref, Origin: d.Origin,
		Interval: period(r, "spec.interval", g.Spec.Interval),
		Suspend:  g.Spec.Suspend,
		Repository: Repository{
			URL: g.Spec.URL, Branch: g.Spec.Ref.Branch, Tag: g.Spec.Ref.Tag, SemVer: g.Spec.Ref.SemVer,
			RefName: g.Spec.Ref.Name, Commit: g.Spec.Ref.Commit,
			Submodules: g.Spec.RecurseSubmodules, Ignore: g.Spec.Ignore,
			Timeout: period(r, "spec.timeout", g.Spec.Timeout),
		},
	}
	s.Requested, _ = readAnnotations(r, g.Metadata)
	checkURL(r, "spec.url", g.Spec.URL)
	checkReference(r, "spec.ref", &s.Repository)
	if !s.Repository.referenced() {
		s.Repository.Branch = "master"
	}
	for i, dir := range g.Spec.SparseCheckout {
		at := fmt.Sprintf("spec.sparseCheckout[%d]", i)
		if clean, ok := inside(r, at, dir); ok {
			s.Repository.Sparse = append(s.Repository.Sparse, clean)
		}
	}
	if name := g.Spec.SecretRef.Name; name != "" {
		s.SecretRef = Ref{Kind: "Secret", Namespace: d.Namespace, Name: name}
		if data, ok := rd.secrets(d.Namespace, name); ok {
			s.Repository.Auth = fluxAuth(r, g.Spec.URL, s.SecretRef, data)
		} else {
			r.error("unknown-reference", "spec.secretRef.name", "there is no "+s.SecretRef.String(),
				"declare it beside the GitRepository, or put it into configDir of the settings")
		}
	}
	if v := g.Spec.Verify; v != nil {
		mode := or(v.Mode, "HEAD")
		if mode == "head" {
			mode = "HEAD" // as Flux wrote it at first
		}
		s.Verify = rd.verification(r, "spec.verify", mode, Ref{Kind: "Secret", Namespace: d.Namespace, Name: v.SecretRef.Name})
		checkMode(r, "spec.verify.mode", mode, s.Repository)
	}
	s.Repository.HideCredentials()
	s.Findings = r.list
	rd.out.Sources = append(rd.out.Sources, s)
}

type selector struct {
	Group     string `json:"group"`
	Kind      string `json:"kind"`
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

// kustomizationSpec is what a Kustomization and an application of the settings file have in common.
type kustomizationSpec struct {
	ServiceAccountName string `json:"serviceAccountName"`
	Path               string `json:"path"`
	Interval           string `json:"interval"`
	RetryInterval      string `json:"retryInterval"`
	Timeout            string `json:"timeout"`
	Prune              bool   `json:"prune"`
	DeletionPolicy     string `json:"deletionPolicy"`
	Suspend            bool   `json:"suspend"`
	Force              bool   `json:"force"`
	Wait               bool   `json:"wait"`
	HealthChecks       []struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Name       string `json:"name"`
		Namespace  string `json:"namespace"`
	} `json:"healthChecks"`
	TargetNamespace string `json:"targetNamespace"`
	NamePrefix      string `json:"namePrefix"`
	NameSuffix      string `json:"nameSuffix"`
	CommonMetadata  struct {
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	} `json:"commonMetadata"`
	Patches                 []json.RawMessage `json:"patches"`
	PatchesStrategicMerge   any               `json:"patchesStrategicMerge"`
	PatchesJSON6902         []json6902        `json:"patchesJson6902"`
	Images                  []json.RawMessage `json:"images"`
	Components              []string          `json:"components"`
	IgnoreMissingComponents bool              `json:"ignoreMissingComponents"`
	PostBuild               struct {
		Substitute     map[string]string `json:"substitute"`
		SubstituteFrom []struct {
			Kind     string `json:"kind"`
			Name     string `json:"name"`
			Optional bool   `json:"optional"`
		} `json:"substituteFrom"`
	} `json:"postBuild"`
	Decryption struct {
		Provider  string  `json:"provider"`
		SecretRef nameRef `json:"secretRef"`
	} `json:"decryption"`
	Ignore []struct {
		Paths  []string `json:"paths"`
		Target selector `json:"target"`
	} `json:"ignore"`
}

type json6902 struct {
	Patch  any             `json:"patch"`
	Target json.RawMessage `json:"target"`
}

type kustomization struct {
	Metadata meta `json:"metadata"`
	Spec     struct {
		kustomizationSpec
		SourceRef struct {
			Kind      string `json:"kind"`
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"sourceRef"`
		DependsOn []struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"dependsOn"`
	} `json:"spec"`
}

func (rd *reader) readKustomization(d declaration, table *node) {
	var k kustomization
	r := d.report
	decode(r, table, d.content, &k)
	a := k.Spec.application(r, "spec.", d.Namespace)
	a.Name, a.Ref, a.Origin = shownName(d.Namespace, d.Name), d.Ref, d.Origin
	a.Requested, _ = readAnnotations(r, k.Metadata)
	if name := k.Spec.ServiceAccountName; name != "" {
		a.ServiceAccount = serviceAccount(r, "spec.serviceAccountName", d.Namespace, name)
	}
	readOwn(r, k.Metadata, &a)

	w := waiting{index: len(rd.out.Applications), report: r}
	if ref := k.Spec.SourceRef; ref.Kind != "" && ref.Name != "" {
		w.source = object.Ref{Group: fluxSource, Kind: ref.Kind, Namespace: or(ref.Namespace, d.Namespace), Name: ref.Name}
	}
	for _, dep := range k.Spec.DependsOn {
		if dep.Name == "" {
			continue // reported
		}
		w.dependsOn = append(w.dependsOn, object.Ref{Group: fluxKustomize, Kind: "Kustomization", Namespace: or(dep.Namespace, d.Namespace), Name: dep.Name})
	}
	rd.waiting = append(rd.waiting, w)
	rd.out.Applications = append(rd.out.Applications, a)
}

// application returns what k says. at stands before the names of fields in findings; ConfigMaps and
// Secrets are looked for in namespace.
func (k kustomizationSpec) application(r *reporter, at, namespace string) Application {
	a := Application{
		Application:   plan.Application{Prune: k.Prune, Force: k.Force},
		Interval:      period(r, at+"interval", k.Interval),
		RetryInterval: period(r, at+"retryInterval", k.RetryInterval),
		Timeout:       period(r, at+"timeout", k.Timeout),
		Suspend:       k.Suspend,
		Wait:          k.Wait,
		Render: render.Options{
			TargetNamespace: k.TargetNamespace, NamePrefix: k.NamePrefix, NameSuffix: k.NameSuffix,
			CommonLabels: k.CommonMetadata.Labels, CommonAnnotations: k.CommonMetadata.Annotations,
			Patches: k.Patches, Images: k.Images, Components: k.Components,
			IgnoreMissingComponents: k.IgnoreMissingComponents,
		},
	}
	a.Path, _ = inside(r, at+"path", k.Path)
	switch k.DeletionPolicy {
	case "Delete", "WaitForTermination":
		a.DeletionPolicy = Delete
	case "Orphan":
		a.DeletionPolicy = Orphan
	default:
		a.DeletionPolicy = Orphan
		if k.Prune {
			a.DeletionPolicy = Delete
		}
	}
	for _, h := range k.HealthChecks {
		group, _, grouped := strings.Cut(h.APIVersion, "/")
		if !grouped {
			group = ""
		}
		a.HealthChecks = append(a.HealthChecks, object.Ref{Group: group, Kind: h.Kind, Namespace: or(h.Namespace, namespace), Name: h.Name})
	}
	a.Render.Patches = slices.Concat(strategicMerge(r, at, k.PatchesStrategicMerge), jsonPatches(k.PatchesJSON6902), k.Patches)
	for _, name := range sortedKeys(k.PostBuild.Substitute) {
		if !variableName.MatchString(name) {
			r.error("invalid-value", at+"postBuild.substitute."+name, fmt.Sprintf("%q cannot be the name of a variable", name), variableRule)
		}
	}
	a.Render.Substitute = k.PostBuild.Substitute
	for _, f := range k.PostBuild.SubstituteFrom {
		if f.Kind == "" || f.Name == "" {
			continue // reported
		}
		a.SubstituteFrom = append(a.SubstituteFrom, Ref{Kind: f.Kind, Namespace: namespace, Name: f.Name, Optional: f.Optional})
	}
	if k.Decryption.Provider != "" {
		a.Decrypt = true
		if name := k.Decryption.SecretRef.Name; name != "" {
			a.DecryptionSecret = Ref{Kind: "Secret", Namespace: namespace, Name: name}
		}
	}
	for i, rule := range k.Ignore {
		where := fmt.Sprintf("%signore[%d]", at, i)
		ir := plan.IgnoreRule{
			Group: exact(r, where+".target.group", rule.Target.Group), Kind: exact(r, where+".target.kind", rule.Target.Kind),
			Namespace: exact(r, where+".target.namespace", rule.Target.Namespace), Name: exact(r, where+".target.name", rule.Target.Name),
			Pointers: pointers(r, where+".paths", rule.Paths),
		}
		a.Ignore = append(a.Ignore, ir)
	}
	return a
}

// strategicMerge turns patches of the old form into those of the new one.
func strategicMerge(r *reporter, at string, patches any) []json.RawMessage {
	if patches == nil {
		return nil
	}
	list, ok := patches.([]any)
	if !ok {
		r.error("wrong-type", at+"patchesStrategicMerge", fmt.Sprintf("is %s and must be %s", describe(patches), objects), "")
		return nil
	}
	var out []json.RawMessage
	for _, p := range list {
		out = append(out, encode(map[string]any{"patch": string(encode(p))}))
	}
	return out
}

func jsonPatches(patches []json6902) []json.RawMessage {
	var out []json.RawMessage
	for _, p := range patches {
		out = append(out, encode(map[string]any{"patch": string(encode(p.Patch)), "target": p.Target}))
	}
	return out
}

func encode(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("content that came from JSON cannot be encoded: %v", err))
	}
	return b
}

// inside returns p as a path below the root of its source, "." for the root.
func inside(r *reporter, at, p string) (string, bool) {
	clean := path.Clean(strings.TrimLeft(p, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") || strings.ContainsRune(p, 0) {
		r.error("invalid-value", at, fmt.Sprintf("%q leaves the source", p), "write a path from the root of the source")
		return ".", false
	}
	return clean, true
}

var literal = regexp.MustCompile(`^[A-Za-z0-9._-]*$`)

// exact returns the value of a selector, which is a name here and a pattern elsewhere: a pattern is
// only understood when it matches everything.
func exact(r *reporter, at, s string) string {
	switch {
	case s == "*" || s == ".*":
		return ""
	case literal.MatchString(s):
		return s
	}
	r.error("unsupported-field", at, fmt.Sprintf("%q is a pattern, and only names are understood", s), "write one rule for each name, or leave it out to match all")
	return s
}

// pointers returns the JSON pointers of a rule and reports those that are none.
func pointers(r *reporter, at string, list []string) []string {
	if len(list) == 0 {
		r.error("missing-field", at, "names no field", "write JSON pointers such as /spec/replicas")
	}
	for i, p := range list {
		if !strings.HasPrefix(p, "/") || badEscape.MatchString(p) {
			r.error("invalid-value", fmt.Sprintf("%s[%d]", at, i), fmt.Sprintf("%q is not a JSON pointer", p), "write it like /spec/replicas, with ~1 for a slash and ~0 for a tilde in a name")
		}
	}
	return list
}

var badEscape = regexp.MustCompile(`~([^01]|$)`)

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

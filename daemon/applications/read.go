package applications

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

const (
	fluxSource    = "source.toolkit.fluxcd.io"
	fluxKustomize = "kustomize.toolkit.fluxcd.io"
	argo          = "argoproj.io"
)

// IsDeclaration reports whether Read reads objects of that kind.
func IsDeclaration(ref object.Ref) bool {
	switch {
	case ref.Group == fluxSource && ref.Kind == "GitRepository":
	case ref.Group == fluxKustomize && ref.Kind == "Kustomization":
	case ref.Group == argo && ref.Kind == "Application":
	case ref.Group == fluxImage && (ref.Kind == "ImageRepository" || ref.Kind == "ImagePolicy" || ref.Kind == "ImageUpdateAutomation"):
	default:
		return false
	}
	return true
}

// Secrets returns the content of a Secret, and false when there is none.
type Secrets func(namespace, name string) (map[string][]byte, bool)

// Read reads what objs declare; objects of other kinds are passed over. The credentials of sources are
// taken from secrets, which may be nil. What is declared elsewhere, in the settings file, is given as
// also: it may be referred to, its names are taken, and it is not part of the result.
//
// The same declaration may come twice, from the file that started the daemon and from the repository
// that the file names, as long as both say the same.
func Read(objs []object.Object, secrets Secrets, also ...Declared) (Declared, diag.List) {
	if secrets == nil {
		secrets = func(string, string) (map[string][]byte, bool) { return nil, false }
	}
	rd := &reader{
		secrets:        secrets,
		gitRepository:  tree(metadataFields, gitRepositoryFields),
		gitBeta:        tree(metadataFields, gitRepositoryFields, gitRepositoryBetaFields),
		kustomization:  tree(metadataFields, kustomizationFields),
		kustomizeBeta:  tree(metadataFields, kustomizationFields, kustomizationBetaFields),
		argoApp:        tree(metadataFields, argoTable()),
		argoRepository: argoCredentials(objs),
		derived:        map[string]int{}, images: imageTables(),
	}
	for _, d := range once(objs, rd) {
		rd.read(d)
	}
	rd.checkNames(also)
	rd.checkReferences(also)
	rd.out.sort()
	list := rd.loose
	for _, s := range rd.out.Sources {
		list = append(list, s.Findings...)
	}
	for _, a := range rd.out.Applications {
		list = append(list, a.Findings...)
	}
	// The parts of an Application with several sources share their findings.
	return rd.out, slices.Compact(list.Sorted())
}

// reader collects what is declared.
type reader struct {
	secrets                      Secrets
	gitRepository, gitBeta       *node
	kustomization, kustomizeBeta *node
	argoApp                      *node
	images                       map[string]*node // by kind
	argoRepository               []argoCredential
	out                          Declared
	loose                        diag.List
	derived                      map[string]int // index in out.Sources by name
	waiting                      []waiting
}

// waiting is an application whose references to other objects are still to be looked up.
type waiting struct {
	index     int        // in out.Applications
	source    object.Ref // zero when the source is derived
	dependsOn []object.Ref
	report    *reporter
}

// declaration is one object, and what is wrong with the set that it was found in.
type declaration struct {
	object.Object
	content map[string]any
	report  *reporter
}

// once returns the declarations among objs in a stable order, each Ref once.
func once(objs []object.Object, rd *reader) []declaration {
	var found []object.Object
	for _, o := range objs {
		if IsDeclaration(o.Ref) {
			found = append(found, o)
		}
	}
	slices.SortStableFunc(found, func(a, b object.Object) int {
		return cmp.Or(object.Compare(a.Ref, b.Ref), strings.Compare(a.Origin.Source, b.Origin.Source),
			strings.Compare(a.Origin.Path, b.Origin.Path), cmp.Compare(a.Origin.Line, b.Origin.Line))
	})
	var out []declaration
	for _, o := range found {
		r := &reporter{ref: o.Ref, origin: o.Origin}
		u, ok := o.Value.(*unstructured.Unstructured)
		if !ok || o.Name == "" {
			r.error("missing-field", "metadata.name", "is required and missing", "name the "+o.Kind)
			rd.loose = append(rd.loose, r.list...)
			rd.out.Incomplete = true
			continue
		}
		d := declaration{Object: o, content: u.Object, report: r}
		if n := len(out); n > 0 && out[n-1].Ref == o.Ref {
			if !reflect.DeepEqual(says(out[n-1].content), says(d.content)) {
				out[n-1].report.error("duplicate-declaration", "", fmt.Sprintf("is declared differently at %s and at %s",
					place(out[n-1].Origin), place(o.Origin)), "remove one, or make them say the same")
			}
			continue
		}
		out = append(out, d)
	}
	return out
}

// says is the part of a declaration that has a meaning.
func says(content map[string]any) any {
	u := unstructured.Unstructured{Object: content}
	notes := u.GetAnnotations()
	return []any{content["apiVersion"], content["spec"], u.GetFinalizers(), notes[verifyModeNote], notes[verifySecretNote]}
}

// place names a file and, where there are several, the source.
func place(o object.Origin) string {
	if o.Source == "" {
		return o.String()
	}
	return o.Source + " " + o.String()
}

func (rd *reader) read(d declaration) {
	_, version, _ := strings.Cut(d.APIVersion, "/")
	unknown := func(known ...string) {
		d.report.error("unsupported-version", "apiVersion", fmt.Sprintf("%s %s is not read", d.APIVersion, d.Kind),
			"write "+d.Group+"/"+strings.Join(known, " or "))
	}
	switch {
	case d.Kind == "GitRepository":
		table := rd.gitRepository
		switch version {
		case "v1":
		case "v1beta2":
			table = rd.gitBeta
		default:
			unknown("v1", "v1beta2")
		}
		rd.readGitRepository(d, table)
	case d.Kind == "Kustomization":
		table := rd.kustomization
		switch version {
		case "v1":
		case "v1beta2":
			table = rd.kustomizeBeta
		default:
			unknown("v1", "v1beta2")
		}
		rd.readKustomization(d, table)
	case d.Group == fluxImage:
		switch version {
		case "v1", "v1beta2":
		default:
			unknown("v1", "v1beta2")
		}
		rd.readImage(d)
	default:
		if version != "v1alpha1" {
			unknown("v1alpha1")
		}
		rd.readArgo(d)
	}
}

// decode checks d against a table and fills into with what is right.
func decode(r *reporter, table *node, content map[string]any, into any) {
	clean, _ := table.check(r, "", content)
	b, err := json.Marshal(clean)
	if err != nil {
		panic(fmt.Sprintf("checked content cannot be encoded: %v", err)) // it holds JSON values only
	}
	if err := json.Unmarshal(b, into); err != nil {
		panic(fmt.Sprintf("table and struct of %T do not agree: %v", into, err))
	}
}

// meta is the metadata that is read of a declaration.
type meta struct {
	Annotations map[string]string `json:"annotations"`
	Labels      map[string]string `json:"labels"`
	Finalizers  []string          `json:"finalizers"`
}

// readAnnotations reports annotations that ask for what is not done, and returns the request to
// reconcile and whether reconciling is switched off.
func readAnnotations(r *reporter, m meta) (requested string, suspended bool) {
	names := make([]string, 0, len(m.Annotations))
	for name := range m.Annotations {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		at := "metadata.annotations[" + name + "]"
		switch name {
		case "reconcile.fluxcd.io/requestedAt", "argocd.argoproj.io/refresh":
			requested = m.Annotations[name]
		case "argocd.argoproj.io/skip-reconcile":
			suspended = m.Annotations[name] == "true"
		case "argocd.argoproj.io/manifest-generate-paths":
			// The files that a render reads are known without it.
		case "argocd.argoproj.io/sync-wave":
			if m.Annotations[name] != "0" {
				r.warn("not-honoured", at, "is not honoured", "applications are not ordered by waves")
			}
		case "argocd.argoproj.io/tracking-id", "argocd.argoproj.io/instance":
		default:
			group, _, _ := strings.Cut(name, "/")
			if group == "reconcile.fluxcd.io" || group == "kustomize.toolkit.fluxcd.io" || group == "argocd.argoproj.io" {
				r.warn("not-honoured", at, "is not honoured", "")
			}
		}
	}
	return requested, suspended
}

// period is a duration that was checked against the table; empty is 0.
func period(r *reporter, at, s string) time.Duration {
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		r.error("invalid-value", at, fmt.Sprintf("%q is not a duration: it is too long", s), "")
		return 0
	case d <= 0:
		r.error("invalid-value", at, fmt.Sprintf("%q is not longer than nothing", s), "")
		return 0
	}
	return d
}

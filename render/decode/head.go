package decode

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// header is what every manifest says about itself.
type header struct {
	apiVersion string
	ref        object.Ref
}

// head reads apiVersion, kind, name and namespace. It returns false when one of the first three is missing.
func (r *reporter) head(v map[string]any) (header, bool) {
	var h header
	text := func(m map[string]any, key string, p Path) (string, bool) {
		s, isText := m[key].(string)
		if m[key] != nil && !isText {
			r.at(diag.Error, "wrong-type", p, "must be text, not "+r.describe(m[key]), "write it in quotes")
			return "", false
		}
		return s, true
	}
	var okAPI, okKind, okName, okNS bool
	h.apiVersion, okAPI = text(v, "apiVersion", Path{{Key: "apiVersion"}})
	h.ref.Kind, okKind = text(v, "kind", Path{{Key: "kind"}})
	group, _, grouped := strings.Cut(h.apiVersion, "/")
	if grouped {
		h.ref.Group = group
	}
	meta, isMap := v["metadata"].(map[string]any)
	if v["metadata"] != nil && !isMap {
		r.ref = h.ref
		r.at(diag.Error, "wrong-type", Path{{Key: "metadata"}}, "must be a mapping, not "+r.describe(v["metadata"]), "")
		return h, false
	}
	namePath := Path{{Key: "metadata"}, {Key: "name"}}
	h.ref.Name, okName = text(meta, "name", namePath)
	h.ref.Namespace, okNS = text(meta, "namespace", Path{{Key: "metadata"}, {Key: "namespace"}})
	cluster := clusterScoped(h.ref.Group, h.ref.Kind)
	switch {
	case cluster:
		h.ref.Namespace = ""
	case h.ref.Namespace == "":
		h.ref.Namespace = r.opt.DefaultNamespace
		if h.ref.Namespace == "" {
			h.ref.Namespace = "default"
		}
	}
	r.ref = h.ref
	good := okAPI && okKind && okName && okNS
	missing := func(ok bool, value, field, hint string, p Path) {
		if ok && value == "" {
			r.at(diag.Error, "missing-"+field, p, "is missing", hint)
			good = false
		}
	}
	missing(okAPI, h.apiVersion, "api-version", "every manifest says its apiVersion, for example apps/v1", Path{{Key: "apiVersion"}})
	missing(okKind, h.ref.Kind, "kind", "every manifest says its kind, for example Deployment", Path{{Key: "kind"}})
	if meta["generateName"] != nil {
		r.at(diag.Error, "generate-name", Path{{Key: "metadata"}, {Key: "generateName"}},
			"generateName would make another object on every pass", "give the object a name")
		good = false
	} else {
		missing(okName, h.ref.Name, "name", "give the object a name", namePath)
	}
	return h, good
}

// metadata checks what objects of every kind have: labels and annotations are text.
func (r *reporter) metadata(v map[string]any) {
	meta, _ := v["metadata"].(map[string]any)
	for _, key := range []string{"labels", "annotations"} {
		if meta[key] == nil {
			continue
		}
		p := Path{{Key: "metadata"}, {Key: key}}
		m, ok := meta[key].(map[string]any)
		if !ok {
			r.at(diag.Error, "wrong-type", p, "must be a mapping, not "+r.describe(meta[key]), "")
			delete(meta, key)
			continue
		}
		for k, val := range m {
			if _, isText := val.(string); val != nil && !isText {
				r.at(diag.Error, "wrong-type", p.Child(k), "must be text, not "+r.describe(val), "write it in quotes")
				delete(m, k)
			}
		}
	}
}

// unsupported reports a kind that is not run.
func (r *reporter) unsupported(h header) {
	if declares(h.ref.Group, h.ref.Kind) {
		return
	}
	sev := diag.Error
	hint := "remove it, or go on without it: --allow-unsupported, or allowUnsupported in the settings"
	if r.opt.AllowUnsupported {
		sev, hint = diag.Warning, ""
	}
	msg := fmt.Sprintf("kind %s is not run by this version of fairlead", h.ref.Kind)
	for _, v := range []string{"v1", "apps/v1", "batch/v1", "discovery.k8s.io/v1", "storage.k8s.io/v1"} {
		group, _, grouped := strings.Cut(v, "/")
		if !grouped {
			group = ""
		}
		if _, ok := kindOf(v, h.ref.Kind); ok && group == h.ref.Group {
			msg = fmt.Sprintf("apiVersion %s of kind %s is not run by this version of fairlead", h.apiVersion, h.ref.Kind)
			hint = "write apiVersion: " + v
		}
	}
	r.at(sev, "kind-not-run", nil, msg, hint)
}

// invalid reports a finding of Kubernetes' validation.
func (r *reporter) invalid(e *field.Error) {
	if e.Field == "[]" {
		e.Field = "data" // the size of a ConfigMap or Secret as a whole
	}
	p := ParsePath(e.Field, r.value)
	if e.Field == "<nil>" {
		p = nil
	}
	if r.below(p) {
		return
	}
	msg := e.ErrorBody()
	if r.secret() || strings.Contains(msg, "k8s.io/") && len(msg) > 400 {
		msg = string(e.Type.String())
		if e.Detail != "" {
			msg += ": " + e.Detail
		}
	}
	code := "invalid"
	switch e.Type {
	case field.ErrorTypeRequired:
		code = "required"
	case field.ErrorTypeForbidden:
		code = "forbidden"
	case field.ErrorTypeNotSupported:
		code = "not-supported"
	case field.ErrorTypeDuplicate:
		code = "duplicate"
	case field.ErrorTypeTooLong, field.ErrorTypeTooMany:
		code = "too-long"
	}
	r.at(diag.Error, code, p, trimMessage(lowerFirst(msg)), "")
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

// Package decode turns parsed manifests into typed Kubernetes objects, strictly: unknown and duplicate
// fields, wrong types and everything that Kubernetes' own validation refuses become diagnostics, all of
// them at once, each with the file and line of the field.
//
// Defaults and validation are upstream's own code, so what passes here passes an API server too.
package decode

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	kjson "sigs.k8s.io/json"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Options say how one manifest is decoded.
type Options struct {
	// Origin is where the document starts.
	Origin object.Origin
	// Locate returns where a field was written, or the nearest field around it. When nil, Origin is used.
	Locate func(Path) object.Origin
	// DefaultNamespace is given to namespaced objects that have none; "default" when empty.
	DefaultNamespace string
	// AllowUnsupported makes kinds that are not run a warning.
	AllowUnsupported bool
	// Check finds more in the decoded object; it must not modify it.
	Check func(runtime.Object) []diag.Finding
}

// reporter turns findings into diagnostics with names and lines.
type reporter struct {
	opt   Options
	ref   object.Ref
	value map[string]any
	list  diag.List
	// bad are the paths that were found wrong by the strict check; validation below them is noise.
	bad []Path
	// hopeless is true when something in it must not even be parsed again by whoever gets the object.
	hopeless bool
	// foldCase takes fields for known whatever the case of their letters.
	foldCase bool
}

func (r *reporter) at(sev diag.Severity, code string, p Path, msg, hint string) {
	o := r.opt.Origin
	if r.opt.Locate != nil && len(p) > 0 {
		o = r.opt.Locate(p)
	}
	r.list = append(r.list, diag.Diagnostic{
		Severity: sev, Code: code, Ref: r.ref, Origin: o, Field: p.String(), Message: msg, Hint: hint,
	})
}

// Object decodes one manifest. ok is false when the manifest is so wrong that there is no object to speak of.
// value may be modified; it must not be used afterwards.
func Object(value map[string]any, opt Options) (obj object.Object, list diag.List, ok bool) {
	r := &reporter{opt: opt, value: value}
	head, good := r.head(value)
	r.ref = head.ref
	if !good {
		return object.Object{Ref: head.ref}, r.list, false
	}
	if status, has := value["status"]; has {
		if m, isMap := status.(map[string]any); status != nil && (!isMap || len(m) > 0) {
			r.at(diag.Warning, "status-ignored", Path{{Key: "status"}}, "status is observed, not desired: it is left out", "remove it")
		}
		delete(value, "status")
	}
	if meta, isMap := value["metadata"].(map[string]any); isMap {
		if ts, has := meta["creationTimestamp"]; has && ts == nil {
			delete(meta, "creationTimestamp")
		}
	}
	written := Canonical(value)
	obj = object.Object{
		Ref: head.ref, APIVersion: head.apiVersion, Written: written, Hash: object.HashBytes(written), Origin: opt.Origin,
	}
	k, known := kindOf(head.apiVersion, head.ref.Kind)
	if !known {
		r.metadata(value)
		r.unsupported(head)
		u := &unstructured.Unstructured{Object: value}
		if head.ref.Namespace != "" {
			u.SetNamespace(head.ref.Namespace)
		}
		obj.Value = u
		return obj, r.list, true
	}
	strict(value, k.typ, nil, r)
	if r.hopeless {
		return obj, r.list, false
	}
	typed := k.new()
	src := written
	if len(r.bad) > 0 {
		src = Canonical(value) // strict removed what cannot be decoded
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(src, typed); err != nil {
		r.at(diag.Error, "not-decodable", nil, "cannot be decoded: "+r.hide(err.Error()), "")
		return obj, r.list, false
	}
	finish(typed, head.ref, k)
	for _, e := range k.validate(typed) {
		r.invalid(e)
	}
	if opt.Check != nil {
		for _, f := range opt.Check(typed) {
			p := ParsePath(f.Field, r.value)
			if !r.below(p) {
				r.at(f.Severity, f.Code, p, f.Message, f.Hint)
			}
		}
	}
	obj.Value = typed
	if svc, is := typed.(*corev1.Service); is && opt.Locate != nil {
		obj.Places = r.places(svc)
	}
	return obj, r.list, true
}

// places finds where the fields of a Service were written that can clash with what others have.
func (r *reporter) places(s *corev1.Service) []object.Place {
	var out []object.Place
	add := func(field string) {
		o := r.opt.Locate(ParsePath(field, r.value))
		if o.Line > 0 && (o.Path != r.opt.Origin.Path || o.Line != r.opt.Origin.Line) {
			out = append(out, object.Place{Field: field, Path: o.Path, Line: o.Line})
		}
	}
	for _, f := range [...]struct {
		field   string
		written bool
	}{
		{"spec.clusterIP", s.Spec.ClusterIP != ""}, {"spec.loadBalancerIP", s.Spec.LoadBalancerIP != ""},
		{"spec.healthCheckNodePort", s.Spec.HealthCheckNodePort != 0}, {"spec.selector", len(s.Spec.Selector) > 0},
	} {
		if f.written {
			add(f.field)
		}
	}
	for i := range s.Spec.ExternalIPs {
		add(fmt.Sprintf("spec.externalIPs[%d]", i))
	}
	for i := range s.Spec.Ports {
		for _, f := range [...]string{"port", "targetPort", "nodePort"} {
			add(fmt.Sprintf("spec.ports[%d].%s", i, f))
		}
	}
	return out
}

// Restore makes the object again from what Object returned, without checking anything.
func Restore(apiVersion string, ref object.Ref, written []byte, origin object.Origin) (object.Object, error) {
	obj := object.Object{Ref: ref, APIVersion: apiVersion, Written: written, Hash: object.HashBytes(written), Origin: origin}
	k, known := kindOf(apiVersion, ref.Kind)
	if !known {
		u := &unstructured.Unstructured{}
		if err := kjson.UnmarshalCaseSensitivePreserveInts(written, &u.Object); err != nil {
			return obj, err
		}
		if ref.Namespace != "" {
			u.SetNamespace(ref.Namespace)
		}
		obj.Value = u
		return obj, nil
	}
	typed := k.new()
	if err := kjson.UnmarshalCaseSensitivePreserveInts(written, typed); err != nil {
		return obj, err
	}
	finish(typed, ref, k)
	obj.Value = typed
	return obj, nil
}

// secret reports whether the values of the object must not be shown.
func (r *reporter) secret() bool { return r.ref.Kind == "Secret" && r.ref.Group == "" }

// hide returns the message of a decoder, which can quote values, or less than that for Secrets.
func (r *reporter) hide(msg string) string {
	if r.secret() {
		return "a value has the wrong form"
	}
	return msg
}

// below reports whether p is at or below a path that the strict check has refused.
func (r *reporter) below(p Path) bool {
	for _, b := range r.bad {
		if len(p) >= len(b) && p[:len(b)].String() == b.String() {
			return true
		}
	}
	return false
}

func trimMessage(s string) string {
	const most = 600
	s = strings.TrimSpace(s)
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

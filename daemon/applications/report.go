package applications

import (
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// reporter collects the findings about one declaration.
type reporter struct {
	ref    object.Ref
	origin object.Origin
	// line returns the line of a field; nil when only that of the declaration is known.
	line func(field string) int
	list diag.List
}

func (r *reporter) error(code, field, message, hint string) {
	r.add(diag.Error, code, field, message, hint)
}

func (r *reporter) warn(code, field, message, hint string) {
	r.add(diag.Warning, code, field, message, hint)
}

func (r *reporter) add(s diag.Severity, code, field, message, hint string) {
	at := r.origin
	if r.line != nil {
		if l := r.line(field); l > 0 {
			at.Line = l
		}
	}
	r.list = append(r.list, diag.Diagnostic{Severity: s, Code: code, Ref: r.ref, Origin: at, Field: field, Message: message, Hint: hint})
}

// Package diag holds findings about what was written: each says what, where and what to do.
//
// A mistake in a manifest is a Diagnostic; a failure of the world is an error. Pure: values only.
package diag

import (
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/render/object"
)

// Severity orders diagnostics. Only Error stops an application.
type Severity string

// The severities, gravest first.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
	Info    Severity = "info"
)

// Diagnostic is a finding about an object or a file.
type Diagnostic struct {
	Severity Severity `json:"severity"`
	// Code is a stable kebab-case word for programs, for example "unknown-field".
	Code string `json:"code"`
	// Ref is the object concerned; zero when the finding is about a file.
	Ref object.Ref `json:"ref,omitzero"`
	// Origin is the file and line of the field concerned.
	Origin object.Origin `json:"origin,omitzero"`
	// Field is the path of the field, for example spec.template.spec.containers[web].image.
	Field string `json:"field,omitempty"`
	// Message says what is wrong; Hint what to do about it.
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Finding is a mistake at a field, before it is known where the field was written.
type Finding struct {
	Severity Severity
	Code     string
	// Field is a path with list indices, as k8s.io/apimachinery's field.Path prints it: spec.containers[0].image.
	Field   string
	Message string
	Hint    string
}

// String returns one line: "path:line: error: Kind ns/name: field: message (hint)".
func (d Diagnostic) String() string {
	var b strings.Builder
	if s := d.Origin.String(); s != "" {
		b.WriteString(s + ": ")
	}
	b.WriteString(string(d.Severity) + ": ")
	if !d.Ref.IsZero() {
		b.WriteString(d.Ref.String() + ": ")
	}
	if d.Field != "" {
		b.WriteString(d.Field + ": ")
	}
	b.WriteString(d.Message)
	if d.Hint != "" {
		b.WriteString(" (" + d.Hint + ")")
	}
	return b.String()
}

// List is a collection of findings in the order in which they were made.
type List []Diagnostic

// HasErrors reports whether any finding is an Error.
func (l List) HasErrors() bool {
	return slices.ContainsFunc(l, func(d Diagnostic) bool { return d.Severity == Error })
}

// Sorted returns a copy ordered by file, line, object, field and message.
func (l List) Sorted() List {
	out := slices.Clone(l)
	slices.SortStableFunc(out, func(a, b Diagnostic) int {
		if c := strings.Compare(a.Origin.Path, b.Origin.Path); c != 0 {
			return c
		}
		if c := a.Origin.Line - b.Origin.Line; c != 0 {
			return c
		}
		if c := object.Compare(a.Ref, b.Ref); c != 0 {
			return c
		}
		if c := strings.Compare(a.Field, b.Field); c != 0 {
			return c
		}
		return strings.Compare(a.Message, b.Message)
	})
	return out
}

// String returns the sorted findings, one a line.
func (l List) String() string {
	var b strings.Builder
	for _, d := range l.Sorted() {
		b.WriteString(d.String() + "\n")
	}
	return b.String()
}

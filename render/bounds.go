package render

import (
	"fmt"
	"strings"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// What rendering gives to whoever asked for it is bounded, since a repository is hostile: the objects and findings
// of a path are kept in the memory of the daemon.
const (
	maxBytes        = 24 << 20 // of the objects of one path, as they travel
	maxFindings     = 10_000   // of one path
	maxUnitFindings = 500      // of one unit
	maxText         = 1000     // bytes of one text of a finding
	maxDeep         = 100      // directories in each other, below the path
	maxDirectories  = 20_000   // below the path
)

// fewer keeps the first findings of a unit, the errors before the others, and says how many were left out.
func fewer(unit string, list diag.List) diag.List {
	for i := range list {
		d := &list[i]
		d.Message, d.Hint, d.Field, d.Ref.Name = brief(d.Message), brief(d.Hint), brief(d.Field), brief(d.Ref.Name)
		d.Ref.Kind, d.Ref.Group, d.Ref.Namespace = brief(d.Ref.Kind), brief(d.Ref.Group), brief(d.Ref.Namespace)
		d.Origin.Generator = brief(d.Origin.Generator)
	}
	if len(list) <= maxUnitFindings {
		return list
	}
	kept, rest := make(diag.List, 0, maxUnitFindings+1), diag.List(nil)
	for _, d := range list {
		switch {
		case len(kept) == maxUnitFindings:
		case d.Severity == diag.Error:
			kept = append(kept, d)
		default:
			rest = append(rest, d)
		}
	}
	kept = append(kept, rest[:min(len(rest), maxUnitFindings-len(kept))]...)
	return append(kept, diag.Diagnostic{
		Severity: kept[0].Severity, Code: "more-findings", Origin: object.Origin{Path: unit},
		Message: fmt.Sprintf("there are %d more findings", len(list)-len(kept)), Hint: "mend these first",
	})
}

func brief(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "…"
}

// allowance is how much the units of a path may still make.
type allowance struct {
	bytes, findings int
	over            bool // something was not admitted
}

// rest is the allowance of a path some parts of which are there already.
func rest(parts []part) *allowance {
	a := &allowance{bytes: maxBytes, findings: maxFindings}
	for i := range parts {
		a.bytes -= parts[i].size
		a.findings -= len(parts[i].diags)
	}
	return a
}

// admit takes a unit's result. What is too much is replaced by an error of that unit, so that nothing that is
// missing is ever taken for removed.
func (a *allowance) admit(u Unit, r UnitResult) UnitResult {
	size := 0
	for i := range r.Objects {
		size += len(r.Objects[i].Written)
	}
	a.bytes -= size
	a.findings -= len(r.Diags)
	over := diag.Diagnostic{Severity: diag.Error, Code: "too-large", Origin: object.Origin{Path: u.String()}, Hint: "split it into several applications"}
	switch {
	case a.bytes < 0:
		a.bytes += size
		over.Message = fmt.Sprintf("with it the path makes more than %d MiB of objects", maxBytes>>20)
	case a.findings < 0:
		a.findings += len(r.Diags) - 1
		over.Message, over.Hint = fmt.Sprintf("the path has more than %d findings, those of this file are left out", maxFindings), "mend the others first"
	default:
		return r
	}
	a.over = true
	return UnitResult{Diags: diag.List{over}, Reads: r.Reads}
}

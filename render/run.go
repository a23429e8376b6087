package render

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/fairlead-dev/fairlead/render/decode"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Runner renders units: an Engine does it in this process, worker.Pool in others.
type Runner interface {
	// Run calls each once for every unit, in any order but from one goroutine. An error is a failure of the
	// world; what is wrong with a unit is in its result.
	Run(ctx context.Context, req Request, units []Unit, each func(i int, r UnitResult)) error
}

// Render renders in this process. It is for commands that render what is on the user's own disk and end;
// a daemon uses worker.Pool.
func Render(ctx context.Context, req Request) (Result, error) {
	return With(ctx, req, &Engine{})
}

// With renders with a Runner.
func With(ctx context.Context, req Request, run Runner) (Result, error) {
	l, err := list(req)
	if err != nil {
		return Result{}, fmt.Errorf("read %s: %w", clean(req.Path), err)
	}
	parts := make([]part, len(l.units))
	left := rest(nil)
	err = run.Run(ctx, req, l.units, func(i int, r UnitResult) { parts[i] = restore(req, left.admit(l.units[i], r)) })
	if err != nil {
		return Result{}, fmt.Errorf("render %s: %w", clean(req.Path), err)
	}
	res, _ := join(l, parts)
	return res, nil
}

// part is one unit's share of a result.
type part struct {
	objects []object.Object // sorted
	diags   diag.List
	reads   []string
	size    int // bytes of the objects as they travelled
}

// restore makes typed objects from what travelled.
func restore(req Request, r UnitResult) part {
	p := part{diags: r.Diags, reads: r.Reads}
	for i := range p.diags {
		p.diags[i].Origin.Source, p.diags[i].Origin.Revision = req.Source, req.Revision
	}
	for _, o := range r.Objects {
		p.size += len(o.Written)
		o.Origin.Source, o.Origin.Revision = req.Source, req.Revision
		obj, err := decode.Restore(o.APIVersion, o.Ref, o.Written, o.Origin)
		if err != nil {
			if !p.diags.HasErrors() {
				p.diags = append(p.diags, diag.Diagnostic{
					Severity: diag.Error, Code: "not-decodable", Ref: o.Ref, Origin: o.Origin, Message: "cannot be decoded",
				})
			}
			continue
		}
		obj.Places, obj.Hidden = o.Places, o.Hidden
		p.objects = append(p.objects, obj)
	}
	slices.SortStableFunc(p.objects, compareObjects)
	return p
}

// join puts the parts together. plain is true when no object is written twice.
func join(l listing, parts []part) (res Result, plain bool) {
	res.Diags = append(res.Diags, l.diags...)
	n := 0
	for _, p := range parts {
		n += len(p.objects)
	}
	res.Objects = make([]object.Object, 0, n)
	for _, p := range parts {
		res.Objects = append(res.Objects, p.objects...)
		res.Diags = append(res.Diags, p.diags...)
	}
	slices.SortStableFunc(res.Objects, compareObjects)
	res.Objects, res.Diags = once(res.Objects, res.Diags)
	res.Reads = allReads(l, parts)
	return res, len(res.Objects) == n
}

func compareObjects(a, b object.Object) int { return object.Compare(a.Ref, b.Ref) }

// allReads returns what the listing and the parts have read, sorted.
func allReads(l listing, parts []part) []string {
	reads := map[string]bool{}
	for _, r := range l.reads {
		reads[r] = true
	}
	for _, p := range parts {
		for _, r := range p.reads {
			reads[r] = true
		}
	}
	return slices.Sorted(maps.Keys(reads))
}

// once reports objects that are written twice and keeps the first of them.
func once(objs []object.Object, list diag.List) ([]object.Object, diag.List) {
	out := objs[:0]
	for _, o := range objs {
		if len(out) > 0 && out[len(out)-1].Ref == o.Ref {
			first := out[len(out)-1].Origin
			list = append(list, diag.Diagnostic{
				Severity: diag.Error, Code: "duplicate-object", Ref: o.Ref, Origin: o.Origin,
				Message: "is written twice: here and in " + first.String(), Hint: "remove one of them",
			})
			continue
		}
		out = append(out, o)
	}
	return out, list
}

// Restore makes an object again from what was kept of it, without checking anything.
func Restore(apiVersion string, ref object.Ref, written []byte) (object.Object, error) {
	return decode.Restore(apiVersion, ref, written, object.Origin{})
}

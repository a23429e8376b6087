package decode

import (
	"reflect"

	"go.yaml.in/yaml/v3"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// CheckOptions say where a document that Check compares with a type was written.
type CheckOptions struct {
	Doc  Doc
	File string
	// Kind names the document in messages.
	Kind string
	// FoldCase takes a field for known whatever the case of its letters.
	FoldCase bool
}

// Check reports what in value does not fit the fields of T: unknown fields and wrong types. It may modify value.
func Check[T any](value map[string]any, opt CheckOptions) diag.List {
	r := &reporter{ref: object.Ref{Kind: opt.Kind}, value: value, foldCase: opt.FoldCase}
	r.opt.Origin = object.Origin{Path: opt.File, Line: opt.Doc.Line}
	r.opt.Locate = func(p Path) object.Origin {
		line, _ := opt.Doc.Find(p)
		return object.Origin{Path: opt.File, Line: line}
	}
	strict(value, reflect.TypeFor[T](), nil, r)
	for i := range r.list {
		r.list[i].Ref = object.Ref{}
	}
	return r.list
}

// Items is the number of objects in a document of a List kind, 0 for others.
func (d Doc) Items() int {
	if items := child(d.Root, "items"); items != nil && isList(d.Kind) && items.Kind == yaml.SequenceNode {
		return len(items.Content)
	}
	return 0
}

func isList(kind string) bool { return len(kind) >= 4 && kind[len(kind)-4:] == "List" }

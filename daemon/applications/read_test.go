package applications

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/render/object"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestRead reads the YAML files of each archive and compares what they declare, and what is wrong with
// them, with the sections "declared" and "diagnostics".
func TestRead(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var objs []object.Object
			want := map[string]string{}
			in := txtar.Archive{Comment: ar.Comment}
			for _, f := range ar.Files {
				if strings.HasSuffix(f.Name, ".yaml") {
					objs = append(objs, decodeAll(t, f.Name, string(f.Data))...)
					in.Files = append(in.Files, f)
				} else {
					want[f.Name] = string(f.Data)
				}
			}
			declared, diags := Read(objs, secretsAmong(objs))
			got := map[string]string{"declared": dump(declared), "diagnostics": diags.String()}
			if *update {
				for _, name := range []string{"declared", "diagnostics"} {
					in.Files = append(in.Files, txtar.File{Name: name, Data: []byte(got[name])})
				}
				if err := os.WriteFile(file, txtar.Format(&in), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// decodeAll decodes the documents of a file, each with its first line as origin.
func decodeAll(t testing.TB, name, content string) []object.Object {
	t.Helper()
	var out []object.Object
	line := 1
	for doc := range strings.SplitSeq(content, "---\n") {
		at := line
		line += strings.Count(doc, "\n") + 1
		if strings.TrimSpace(doc) == "" {
			continue
		}
		var m map[string]any
		if err := yaml.Unmarshal([]byte(doc), &m); err != nil {
			t.Fatalf("%s:%d: %v", name, at, err)
		}
		u := &unstructured.Unstructured{Object: m}
		gvk := u.GroupVersionKind()
		out = append(out, object.Object{
			Ref:        object.Ref{Group: gvk.Group, Kind: gvk.Kind, Namespace: u.GetNamespace(), Name: u.GetName()},
			APIVersion: u.GetAPIVersion(), Value: u, Origin: object.Origin{Path: name, Line: at},
		})
	}
	return out
}

func secretsAmong(objs []object.Object) Secrets {
	return func(namespace, name string) (map[string][]byte, bool) {
		for _, o := range objs {
			if o.Ref == (object.Ref{Kind: "Secret", Namespace: namespace, Name: name}) {
				_, data := content(o.Value)
				return data, true
			}
		}
		return nil, false
	}
}

// dump shows everything in d that is not zero, findings apart.
func dump(d Declared) string {
	var b strings.Builder
	for _, s := range d.Sources {
		b.WriteString("source\n")
		show(&b, "  ", reflect.ValueOf(s))
	}
	for _, a := range d.Applications {
		b.WriteString("application\n")
		show(&b, "  ", reflect.ValueOf(a))
	}
	for _, x := range d.Images.Repositories {
		b.WriteString("image repository\n")
		show(&b, "  ", reflect.ValueOf(x))
	}
	for _, x := range d.Images.Policies {
		b.WriteString("image policy\n")
		show(&b, "  ", reflect.ValueOf(x))
	}
	for _, x := range d.Images.Automations {
		b.WriteString("image automation\n")
		show(&b, "  ", reflect.ValueOf(x))
	}
	if d.Incomplete {
		b.WriteString("incomplete\n")
	}
	return b.String()
}

func show(b *strings.Builder, indent string, v reflect.Value) {
	for i := range v.NumField() {
		f, x := v.Type().Field(i), v.Field(i)
		if x.IsZero() {
			continue
		}
		switch value := x.Interface().(type) {
		case time.Duration, Auth, object.Ref, Ref, object.Origin:
			fmt.Fprintf(b, "%s%s: %v\n", indent, f.Name, value)
			continue
		case json.RawMessage:
			fmt.Fprintf(b, "%s%s: %s\n", indent, f.Name, value)
			continue
		}
		switch {
		case f.Name == "Findings":
			errors := ""
			if !x.MethodByName("HasErrors").Call(nil)[0].Bool() {
				errors = ", no errors"
			}
			fmt.Fprintf(b, "%sfindings: %d%s\n", indent, x.Len(), errors)
		case x.Kind() == reflect.Pointer:
			fmt.Fprintf(b, "%s%s: %q\n", indent, f.Name, x.Elem().Interface())
		case f.Anonymous:
			show(b, indent, x)
		case x.Kind() == reflect.Struct:
			fmt.Fprintf(b, "%s%s:\n", indent, f.Name)
			show(b, indent+"  ", x)
		case x.Kind() == reflect.Slice:
			for j := range x.Len() {
				item := x.Index(j)
				switch value := item.Interface().(type) {
				case json.RawMessage:
					fmt.Fprintf(b, "%s%s[%d]: %s\n", indent, f.Name, j, value)
				case Ref:
					fmt.Fprintf(b, "%s%s[%d]: %v optional=%v\n", indent, f.Name, j, value, value.Optional)
				default:
					fmt.Fprintf(b, "%s%s[%d]: %+v\n", indent, f.Name, j, value)
				}
			}
		default:
			fmt.Fprintf(b, "%s%s: %v\n", indent, f.Name, x.Interface())
		}
	}
}

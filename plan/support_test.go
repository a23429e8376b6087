package plan

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

var updateFields = flag.Bool("update-fields", false, "rewrite docs/fields.md")

// TestEveryFieldHasARow walks the API types from the objects that are run: a field in no row would be
// dropped in silence, and a row without a field is about nothing.
func TestEveryFieldHasARow(t *testing.T) {
	index := tableRows()
	seen := map[reflect.Type]bool{}
	var walk func(typ reflect.Type)
	walk = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice:
			walk(typ.Elem())
			return
		case reflect.Struct:
		default:
			return
		}
		if seen[typ] {
			return
		}
		rows, has := index[typ]
		if !has {
			if strings.HasPrefix(typ.PkgPath(), "k8s.io/api/") {
				t.Errorf("%s is in no section", typ)
			}
			return // values of apimachinery, such as selectors, are taken whole
		}
		seen[typ] = true
		fields := map[string]bool{}
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, inline := jsonName(f)
			if inline {
				if f.Name == "TypeMeta" {
					continue
				}
				if f.Type.NumField() == 1 && f.Type == reflect.TypeFor[corev1.LocalObjectReference]() {
					name = "name"
				} else {
					walk(f.Type)
					continue
				}
			}
			fields[name] = true
			r, has := rows[name]
			switch {
			case !has:
				t.Errorf("%s.%s is in no row", typ, name)
			case r.support == works:
				walk(f.Type)
			case r.note == "":
				t.Errorf("%s.%s does not work, and its row does not say why", typ, name)
			case r.support == refused && r.hint == "":
				t.Errorf("%s.%s is refused, and its row does not say what to do", typ, name)
			}
		}
		for name := range rows {
			if !fields[name] {
				t.Errorf("%s has no field %s", typ, name)
			}
		}
	}
	for _, o := range []runtime.Object{
		&corev1.Namespace{}, &corev1.ConfigMap{}, &corev1.Secret{}, &corev1.ServiceAccount{}, &rbacv1.Role{}, &rbacv1.ClusterRole{}, &rbacv1.RoleBinding{}, &rbacv1.ClusterRoleBinding{}, &networkingv1.NetworkPolicy{}, &corev1.Pod{},
		&appsv1.Deployment{}, &appsv1.ReplicaSet{}, &batchv1.Job{},
		&corev1.Namespace{}, &corev1.ConfigMap{}, &corev1.Secret{}, &corev1.ServiceAccount{}, &corev1.Pod{},
		&appsv1.Deployment{}, &appsv1.ReplicaSet{}, &appsv1.StatefulSet{}, &appsv1.DaemonSet{}, &batchv1.Job{},
		&corev1.PersistentVolumeClaim{}, &corev1.PersistentVolume{}, &storagev1.StorageClass{},
		&corev1.Service{}, &corev1.Endpoints{}, &discoveryv1.EndpointSlice{}, //nolint:staticcheck // it is deprecated, and people have it
	} {
		walk(reflect.TypeOf(o))
	}
	for typ := range index {
		if !seen[typ] {
			t.Errorf("the section of %s is reached from no object", typ)
		}
	}
}

// TestFieldsDocument holds that docs/fields.md is the table; run it with -update-fields to rewrite it.
func TestFieldsDocument(t *testing.T) {
	const file = "../docs/fields.md"
	want := fieldsDocument()
	if *updateFields {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(have), want); diff != "" {
		t.Errorf("docs/fields.md is not what the table says; rewrite it with -update-fields (-file +table):\n%s", diff)
	}
}

func fieldsDocument() string {
	var b strings.Builder
	b.WriteString(`# Fields

<!-- Made from the table in plan/support*.go by: go test ./plan -run TestFieldsDocument -update-fields -->

What becomes of every field of the objects that Fairlead runs. Nothing is dropped in silence:

- **works**: it does what Kubernetes documents. Values that do not work are named.
- **no effect**: it is accepted, and a finding says that it does nothing and why.
- **refused**: it is an error, and the application is not applied until it is changed.

A finding names the file and the line of the field.

`)
	line := func(r row) {
		note := r.note
		if r.hint != "" {
			note += ": " + r.hint
		}
		note = strings.ReplaceAll(note, "|", "\\|")
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.field, r.support, note)
	}
	head := func(title string) {
		fmt.Fprintf(&b, "## %s\n\n| Field | State | Notes |\n| --- | --- | --- |\n", title)
	}
	for _, s := range fieldTable {
		head(s.title)
		for _, r := range s.rows {
			line(r)
		}
		b.WriteString("\n")
	}
	head("Resources of a container")
	for _, r := range resourceRows {
		if r.field == "any other" {
			r.field = "*"
			r.note = "any other: " + r.note
		}
		line(r)
	}
	return b.String()
}

// TestUnsupported checks findings of whole manifests: testdata/unsupported.txtar holds pairs of a manifest
// (NAME.yaml) and its findings (NAME).
func TestUnsupported(t *testing.T) {
	const file = "testdata/unsupported.txtar"
	ar, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []txtar.File
	for _, f := range ar.Files {
		name, isManifest := strings.CutSuffix(f.Name, ".yaml")
		if !isManifest {
			continue
		}
		o := typedObject(t, f.Data)
		have := []byte(located(o).String())
		out = append(out, f, txtar.File{Name: name, Data: have})
		i := slices.IndexFunc(ar.Files, func(g txtar.File) bool { return g.Name == name })
		if !*updateFields && (i < 0 || string(ar.Files[i].Data) != string(have)) {
			var want string
			if i >= 0 {
				want = string(ar.Files[i].Data)
			}
			t.Errorf("%s (-want +have):\n%s", name, cmp.Diff(want, string(have)))
		}
	}
	if *updateFields {
		if err := os.WriteFile(file, txtar.Format(&txtar.Archive{Comment: ar.Comment, Files: out}), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// typedObject reads a manifest of a kind that is run, without Kubernetes' defaults.
func typedObject(t testing.TB, manifest []byte) object.Object {
	t.Helper()
	js, err := yaml.YAMLToJSON(manifest)
	if err != nil {
		t.Fatal(err)
	}
	var head struct{ Kind, APIVersion, Name, Namespace string }
	m, _ := parse(js).(map[string]any)
	meta, _ := m["metadata"].(map[string]any)
	head.Kind, _ = m["kind"].(string)
	head.APIVersion, _ = m["apiVersion"].(string)
	head.Name, _ = meta["name"].(string)
	head.Namespace, _ = meta["namespace"].(string)
	values := map[string]runtime.Object{
		"Namespace": &corev1.Namespace{}, "ConfigMap": &corev1.ConfigMap{}, "Secret": &corev1.Secret{},
		"ServiceAccount": &corev1.ServiceAccount{}, "Pod": &corev1.Pod{}, "Deployment": &appsv1.Deployment{},
		"ReplicaSet": &appsv1.ReplicaSet{}, "StatefulSet": &appsv1.StatefulSet{}, "DaemonSet": &appsv1.DaemonSet{}, "Job": &batchv1.Job{},
		"PersistentVolumeClaim": &corev1.PersistentVolumeClaim{}, "PersistentVolume": &corev1.PersistentVolume{}, "StorageClass": &storagev1.StorageClass{},
		"Service": &corev1.Service{}, "Endpoints": &corev1.Endpoints{}, "EndpointSlice": &discoveryv1.EndpointSlice{}, //nolint:staticcheck // as above
	}
	v := values[head.Kind]
	if v == nil {
		t.Fatalf("no type for kind %q", head.Kind)
	}
	if err := yaml.UnmarshalStrict(manifest, v); err != nil {
		t.Fatal(err)
	}
	group, _, has := strings.Cut(head.APIVersion, "/")
	if !has {
		group = ""
	}
	written := encode(m)
	return object.Object{
		Ref:        object.Ref{Group: group, Kind: head.Kind, Namespace: head.Namespace, Name: head.Name},
		APIVersion: head.APIVersion, Value: v, Written: written, Hash: object.HashBytes(written),
		Origin: object.Origin{Path: "app.yaml", Line: 1},
	}
}

// located are the findings of an object, as if every field stood in its first line.
func located(o object.Object) diag.List {
	var list diag.List
	for _, f := range Unsupported(o.Value) {
		list = append(list, diag.Diagnostic{
			Severity: f.Severity, Code: f.Code, Ref: o.Ref, Origin: o.Origin, Field: f.Field, Message: f.Message, Hint: f.Hint,
		})
	}
	return list
}

func BenchmarkUnsupported(b *testing.B) {
	ar, err := txtar.ParseFile("testdata/unsupported.txtar")
	if err != nil {
		b.Fatal(err)
	}
	o := typedObject(b, ar.Files[0].Data)
	b.ReportAllocs()
	for b.Loop() {
		if l := Unsupported(o.Value); len(l) > 0 {
			b.Fatal(l)
		}
	}
}

package applications

import (
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/render/object"
)

// FuzzRead reads arbitrary content under each kind. It must not panic, and what is declared with a
// finding of severity error must say so.
func FuzzRead(f *testing.F) {
	for _, o := range archives(f) {
		b, err := yaml.Marshal(o.Value.(*unstructured.Unstructured).Object)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("spec: 1\nmetadata: []"))
	f.Add([]byte("spec: {source: {kustomize: {images: ['=', '=:', '@', '*']}}}"))
	f.Fuzz(func(t *testing.T, content []byte) {
		var m map[string]any
		if yaml.Unmarshal(content, &m) != nil || m == nil {
			return
		}
		for _, ref := range []object.Ref{
			{Group: fluxSource, Kind: "GitRepository", Namespace: "a", Name: "x"},
			{Group: fluxKustomize, Kind: "Kustomization", Namespace: "a", Name: "x"},
			{Group: argo, Kind: "Application", Namespace: "a", Name: "x"},
		} {
			d, diags := Read([]object.Object{{Ref: ref, APIVersion: ref.Group + "/v1beta2", Value: &unstructured.Unstructured{Object: m}}}, nil)
			broken := d.Incomplete
			for _, s := range d.Sources {
				broken = broken || s.Broken()
			}
			for _, a := range d.Applications {
				broken = broken || a.Broken()
			}
			if broken != diags.HasErrors() {
				t.Errorf("%s: broken is %v with these findings:\n%s", ref, broken, diags)
			}
		}
	})
}

// TestOrder reads the objects in other orders: what is declared stays the same.
func TestOrder(t *testing.T) {
	objs := archives(t)
	want, diags := Read(objs, secretsAmong(objs))
	random := rand.New(rand.NewPCG(1, 2))
	for range 10 {
		random.Shuffle(len(objs), func(i, j int) { objs[i], objs[j] = objs[j], objs[i] })
		got, also := Read(objs, secretsAmong(objs))
		if diff := cmp.Diff(dump(want)+diags.String(), dump(got)+also.String()); diff != "" {
			t.Fatalf("another order, -want +got:\n%s", diff)
		}
	}
}

// archives returns the objects of all test data.
func archives(t testing.TB) []object.Object {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var out []object.Object
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range ar.Files {
			if strings.HasSuffix(f.Name, ".yaml") {
				out = append(out, decodeAll(t, filepath.Base(file)+"/"+f.Name, string(f.Data))...)
			}
		}
	}
	return out
}

package plan

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/render/object"
)

var updateDiff = flag.Bool("update-diff", false, "rewrite testdata/diff.txtar")

var testKey = []byte("a key")

func untypedObject(t testing.TB, manifest []byte) object.Object {
	t.Helper()
	js, err := yaml.YAMLToJSON(manifest)
	if err != nil {
		t.Fatal(err)
	}
	m, _ := parse(js).(map[string]any)
	meta, _ := m["metadata"].(map[string]any)
	text := func(v any) string { s, _ := v.(string); return s }
	group, _, has := strings.Cut(text(m["apiVersion"]), "/")
	if !has {
		group = ""
	}
	w := encode(m)
	return object.Object{
		Ref:     object.Ref{Group: group, Kind: text(m["kind"]), Namespace: text(meta["namespace"]), Name: text(meta["name"])},
		Written: w, Hash: object.HashBytes(w), APIVersion: text(m["apiVersion"]),
	}
}

func TestDiff(t *testing.T) {
	const file = "testdata/diff.txtar"
	ar, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, f := range ar.Files {
		files[f.Name] = f.Data
	}
	d := differ{
		DigestKey: testKey,
		Replaces: func(p string) bool {
			return strings.HasPrefix(p, "spec.template.spec.") && !strings.Contains(p, ".resources")
		},
		Ignore: []IgnoreRule{
			{Kind: "Deployment", Name: "ignored", Pointers: []string{"/spec/replicas", "/metadata/annotations/a~1b", "/spec/template/spec/containers/0/image"}},
			{Kind: "Deployment", Name: "other", Pointers: []string{""}},
		},
	}
	var out []txtar.File
	for _, f := range ar.Files {
		name, is := strings.CutSuffix(f.Name, "/old.yaml")
		if !is {
			continue
		}
		before, after := untypedObject(t, f.Data), untypedObject(t, files[name+"/new.yaml"])
		fields, unchanged := d.diff(RedactApplied(before, testKey), after)
		have := showDiff(fields, unchanged)
		out = append(out, f, txtar.File{Name: name + "/new.yaml", Data: files[name+"/new.yaml"]}, txtar.File{Name: name + "/diff", Data: []byte(have)})
		if want := string(files[name+"/diff"]); !*updateDiff && want != have {
			t.Errorf("%s (-want +have):\n%s", name, cmp.Diff(want, have))
		}
	}
	if *updateDiff {
		if err := os.WriteFile(file, txtar.Format(&txtar.Archive{Comment: ar.Comment, Files: out}), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func showDiff(fields []FieldChange, unchanged int) string {
	var b strings.Builder
	for _, f := range fields {
		fmt.Fprintf(&b, "%s: %s -> %s", f.Path, f.Old, f.New)
		if f.Replaces {
			b.WriteString(" # replaces")
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "(%d unchanged)\n", unchanged)
	return b.String()
}

func TestRedactApplied(t *testing.T) {
	secret := untypedObject(t, []byte(`{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: n}, data: {a: aHVudGVyMg==, d: "hmac-sha256:x"}, stringData: {a: hunter3, c: "hmac-sha256:c"}}`))
	a := RedactApplied(secret, testKey)
	for _, value := range []string{"aHVudGVyMg", "hunter", `"hmac-sha256:c"`} {
		if bytes.Contains(a.Written, []byte(value)) {
			t.Errorf("the inventory holds %q: %s", value, a.Written)
		}
	}
	if a.Hash == secret.Hash {
		t.Error("the inventory holds a hash of a Secret that anybody can make")
	}
	if again := RedactApplied(secret, testKey); !reflect.DeepEqual(a, again) {
		t.Error("two redactions of one object differ")
	}
	if other := RedactApplied(secret, []byte("another key")); bytes.Equal(a.Written, other.Written) {
		t.Error("digests do not depend on the key")
	}
	if twice := redact(secret.Ref, a.Written, nil, testKey); !bytes.Equal(twice, a.Written) {
		t.Errorf("redacted twice:\n%s\n%s", a.Written, twice)
	}
	config := untypedObject(t, []byte(`{apiVersion: v1, kind: ConfigMap, metadata: {name: s, namespace: n}, data: {a: b}}`))
	if a := RedactApplied(config, testKey); !bytes.Equal(a.Written, config.Written) || a.Hash != config.Hash {
		t.Errorf("a ConfigMap was changed: %s", a.Written)
	}
}

// TestHiddenFields holds that what is hidden is kept as keyed digests, and shows as changed without its values.
func TestHiddenFields(t *testing.T) {
	pod := func(env, image string, hidden ...string) object.Object {
		o := untypedObject(t, []byte(`{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: n}, spec: {containers: [{name: main, image: `+image+`, env: [{name: A, value: `+env+`}]}]}}`))
		o.Hidden = hidden
		return o
	}
	const at = "/spec/containers/0/env/0/value"
	d := differ{DigestKey: testKey}
	before := RedactApplied(pod("hunter2", "web", at), testKey)
	if bytes.Contains(before.Written, []byte("hunter2")) || before.Hash == pod("hunter2", "web").Hash {
		t.Errorf("the inventory holds it: %s, or a hash that anybody can make", before.Written)
	}
	for _, tt := range []struct {
		name   string
		before Applied
		after  object.Object
		want   string
	}{
		{"nothing", before, pod("hunter2", "web", at), "(8 unchanged)\n"},
		{"the value", before, pod("hunter3", "web", at), "spec.containers[main].env[A].value: \"(sensitive)\" -> \"(sensitive)\"\n(7 unchanged)\n"},
		{"something else", before, pod("hunter2", "app", at), "spec.containers[main].image: \"web\" -> \"app\"\n(7 unchanged)\n"},
		{"hidden since now", RedactApplied(pod("hunter2", "web"), testKey), pod("hunter2", "web", at), "spec.containers[main].env[A].value: \"(sensitive)\" -> \"(sensitive)\"\n(7 unchanged)\n"},
		{"a field that is not there", before, pod("hunter2", "web", at, "/spec/containers/7/x", "/a/b"), "(8 unchanged)\n"},
	} {
		fields, unchanged := d.diff(tt.before, tt.after)
		if got := showDiff(fields, unchanged); got != tt.want {
			t.Errorf("%s (-want +got):\n%s", tt.name, cmp.Diff(tt.want, got))
		}
	}
	if shown := WithoutHidden(pod("hunter2", "web").Written, []string{at}); bytes.Contains(shown, []byte("hunter2")) || !bytes.Contains(shown, []byte("(sensitive)")) {
		t.Errorf("shown: %s", shown)
	}
}

// FuzzDiff holds that any two documents have a diff, that equal ones have none, that it is deterministic, and
// that no value of a Secret is in it.
func FuzzDiff(f *testing.F) {
	f.Add([]byte(`{"spec":{"containers":[{"name":"a"},{"name":"b"}]}}`), []byte(`{"spec":{"containers":[{"name":"b","env":[{"name":"X"}]}]}}`), "top secret")
	f.Add([]byte(`{"data":{"a":"b"},"stringData":[1]}`), []byte(`{"data":7,"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"x"}}}`), "x")
	f.Add([]byte(`[null,{"resources":{"limits":{"cpu":1e9}}}]`), []byte(`null`), "")
	f.Fuzz(func(t *testing.T, before, after []byte, value string) {
		checkDiff(t, before, after)
		if len(value) < 8 || strings.Contains("sensitive stringData metadata Secret", value) {
			return
		}
		hidden := encode(map[string]any{"stringData": map[string]any{"k": value}})
		ref := object.Ref{Kind: "Secret", Namespace: "n", Name: "x"}
		o := object.Object{Ref: ref, Written: hidden}
		applied := RedactApplied(o, testKey)
		if bytes.Contains(applied.Written, []byte(value)) {
			t.Fatalf("the inventory holds the value %q", value)
		}
		changes, _ := differ{DigestKey: testKey}.diff(Applied{Ref: ref}, o)
		if text := showDiff(changes, 0); strings.Contains(text, value) {
			t.Fatalf("the diff holds the value: %s", text)
		}
	})
}

// checkDiff holds what must hold of the diff of any two documents.
func checkDiff(t interface {
	Fatal(...any)
	Fatalf(string, ...any)
}, before, after []byte) {
	for _, kind := range []string{"Pod", "Secret"} {
		ref := object.Ref{Kind: kind, Namespace: "n", Name: "x"}
		o, n := object.Object{Ref: ref, Written: before}, object.Object{Ref: ref, Written: after}
		d := differ{DigestKey: testKey}
		applied := RedactApplied(o, testKey)
		fields, unchanged := d.diff(applied, n)
		again, same := d.diff(applied, n)
		if !reflect.DeepEqual(fields, again) || unchanged != same {
			t.Fatal("two diffs of the same differ")
		}
		if own, _ := d.diff(applied, o); len(own) > 0 {
			t.Fatalf("an object differs from itself: %v", own)
		}
		seen := map[string]bool{}
		for _, c := range fields {
			if c.Old == c.New && c.Old != sensitive || seen[c.Path+c.Old+c.New] {
				t.Fatalf("no change, or shown twice: %+v", c)
			}
			seen[c.Path+c.Old+c.New] = true
		}
	}
}

// TestDiffProperties is FuzzDiff with documents that look like manifests.
func TestDiffProperties(t *testing.T) {
	keys := rapid.SampledFrom([]string{"spec", "data", "stringData", "metadata", "annotations", "containers", "name", "env", "ports", "containerPort",
		"protocol", "resources", "limits", "cpu", "finalizers", "capabilities", "add", "envFrom", "secretRef", "a.b/c", "x[1]"})
	leaf := rapid.SampledFrom([]any{nil, true, "a", "b", "1", "1000m", json.Number("1"), json.Number("1.0"), json.Number("8080"), ""})
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		if depth == 0 {
			return leaf
		}
		return rapid.OneOf(leaf,
			rapid.Custom(func(t *rapid.T) any {
				return rapid.MapOfN(keys, value(depth-1), 0, 4).Draw(t, "map")
			}),
			rapid.Custom(func(t *rapid.T) any { return rapid.SliceOfN(value(depth-1), 0, 3).Draw(t, "list") }),
		)
	}
	rapid.Check(t, func(rt *rapid.T) {
		doc := rapid.MapOfN(keys, value(4), 0, 5)
		checkDiff(rt, encode(doc.Draw(rt, "before")), encode(doc.Draw(rt, "after")))
	})
}

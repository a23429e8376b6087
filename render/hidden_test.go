package render_test

import (
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/render"
)

// TestHiddenFields (T-W5): a value of a Secret or of an encrypted file that is put into another object is known as one, so
// that nobody is shown it.
func TestHiddenFields(t *testing.T) {
	read := func(name string) []byte {
		t.Helper()
		data, err := os.ReadFile(filepath.Join("sops", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	res, err := render.Render(t.Context(), render.Request{
		Source: "repo", Revision: "r1", Path: ".",
		Files: fstest.MapFS{
			"kustomization.yaml": {Data: []byte("resources: [web.yaml, secret.yaml, url.yaml]\nconfigMapGenerator: [{name: made, envs: [app.env]}]\ngeneratorOptions: {disableNameSuffixHash: true}\n")},
			"app.env":            {Data: read("app.env")},
			"secret.yaml":        {Data: read("secret.yaml")},
			"url.yaml":           {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: url}\ndata: {public: 'https://git@example.com/a', secret: 'postgres://ada:hunter2@db/x'}\n")},
			"web.yaml": {Data: []byte(`apiVersion: v1
kind: ConfigMap
metadata: {name: '${PUBLIC}', annotations: {a/b: 'x ${SECRET} y'}}
data: {secret: '${SECRET}', public: '${PUBLIC}', short: 'x${SHORT}x', whole: '${SHORT}', number: '${NUMBER}'}
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {containers: [{name: main, image: web, args: [a, 'b=${SECRET}'], env: [{name: A, value: '${PUBLIC}'}, {name: B, value: '${SECRET}'}]}]}
`)},
		},
		Options: render.Options{
			Substitute:  map[string]string{"SECRET": "correct horse", "PUBLIC": "production", "SHORT": "abcd", "NUMBER": `"123456789"`},
			FromSecrets: []string{"SECRET", "SHORT", "NUMBER"}, AgeKeys: []string{string(read("age.key"))},
		},
	})
	if err != nil || res.Diags.HasErrors() {
		t.Fatalf("%v, %s", err, res.Diags)
	}
	got := map[string][]string{}
	for _, o := range res.Objects {
		got[o.Ref.String()] = o.Hidden
	}
	want := map[string][]string{
		"ConfigMap default/production": {"/data/secret", "/data/whole", "/metadata/annotations/a~1b"},
		"ConfigMap default/made":       {"/data/PASSWORD"},
		"ConfigMap default/second":     {"/data/a"},
		"ConfigMap default/url":        {"/data/secret"},
		"Pod default/web":              {"/spec/containers/0/args/1", "/spec/containers/0/env/1/value"},
		"Secret shop/creds":            nil,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("hidden fields (-want +got):\n%s", d)
	}
}

package plan_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/plan/plantest"
	"github.com/fairlead-dev/fairlead/plan/simulate"
	"github.com/fairlead-dev/fairlead/render/decode"
	"github.com/fairlead-dev/fairlead/render/object"
)

var updatePlans = flag.Bool("update-plans", false, "rewrite the golden plans")

// manifests decodes YAML documents as rendering does, without the places of fields.
func manifests(name string, data []byte) ([]object.Object, error) {
	var objs []object.Object
	for _, doc := range bytes.Split(data, []byte("\n---\n")) {
		if len(bytes.TrimSpace(doc)) == 0 {
			continue
		}
		j, err := yaml.YAMLToJSON(doc)
		if err != nil {
			return nil, err
		}
		var v map[string]any
		if err := kjson.UnmarshalCaseSensitivePreserveInts(j, &v); err != nil {
			return nil, err
		}
		o, found, ok := decode.Object(v, decode.Options{Origin: object.Origin{Path: name}, DefaultNamespace: "shop"})
		if !ok || found.HasErrors() {
			return nil, fmt.Errorf("%s", found)
		}
		objs = append(objs, o)
	}
	return objs, nil
}

// TestPlans computes the plans of testdata/plans. Each file says what is desired and observed, and the plan.
func TestPlans(t *testing.T) {
	files, err := filepath.Glob("testdata/plans/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, err := plantest.Parse(a, manifests)
			if err != nil {
				t.Fatal(err)
			}
			p := plan.Compute(c.Desired, c.Observed, c.Options)
			got := plantest.Text(p, c.Observed.Now)
			if len(c.Found) > 0 {
				got = c.Found.String() + "\n" + got
			}
			after := plan.Compute(c.Desired, simulate.Plan(c.Desired, c.Observed, p, c.Options.DigestKey), c.Options)
			if !after.Empty() {
				t.Errorf("a second plan after everything was done is not empty:\n%s", plantest.Text(after, c.Observed.Now))
			}
			last := &a.Files[len(a.Files)-1]
			if *updatePlans {
				if last.Name != "plan" {
					a.Files = append(a.Files, txtar.File{Name: "plan"})
					last = &a.Files[len(a.Files)-1]
				}
				last.Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if last.Name != "plan" {
				t.Fatalf("%s has no plan: run with -update-plans", file)
			}
			if d := cmp.Diff(string(last.Data), got); d != "" {
				t.Errorf("plan (-want +got):\n%s", d)
			}
		})
	}
}

package render_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/fairlead-dev/fairlead/render"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden renders the files of every archive in testdata. A file OPTIONS holds the options as JSON and the path
// as "path"; OBJECTS, DIAGNOSTICS and READS hold what is expected.
func TestGolden(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			req, want := request(t, ar)
			res, err := render.Render(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{"OBJECTS": objects(res), "DIAGNOSTICS": res.Diags.String()}
			if _, ok := want["READS"]; ok {
				got["READS"] = strings.Join(res.Reads, "\n") + "\n"
			}
			if *update {
				rewrite(t, file, ar, got)
				return
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

// request takes the input and the expectations out of an archive.
func request(t *testing.T, ar *txtar.Archive) (render.Request, map[string]string) {
	t.Helper()
	files := fstest.MapFS{}
	want := map[string]string{}
	req := render.Request{Source: "repo", Revision: "r1", Path: ".", Files: files}
	for _, f := range ar.Files {
		switch f.Name {
		case "OBJECTS", "DIAGNOSTICS", "READS":
			want[f.Name] = string(f.Data)
		case "OPTIONS":
			var o struct {
				Path    string
				AgeKeys []string
				render.Options
			}
			if err := json.Unmarshal(f.Data, &o); err != nil {
				t.Fatal(err)
			}
			req.Options = o.Options
			req.AgeKeys = o.AgeKeys
			if o.Path != "" {
				req.Path = o.Path
			}
		default:
			files[f.Name] = &fstest.MapFile{Data: f.Data, Mode: fs.FileMode(0o644)}
		}
	}
	return req, want
}

// objects prints what was rendered: for each object its ref, its origin and what was written.
func objects(res render.Result) string {
	var b strings.Builder
	for _, o := range res.Objects {
		fmt.Fprintf(&b, "%s (%s) from %s\n\t%s\n", o.Ref, o.APIVersion, o.Origin, o.Written)
	}
	return b.String()
}

func rewrite(t *testing.T, file string, ar *txtar.Archive, got map[string]string) {
	t.Helper()
	var kept []txtar.File
	for _, f := range ar.Files {
		if _, ok := got[f.Name]; !ok {
			kept = append(kept, f)
		}
	}
	for _, name := range []string{"OBJECTS", "DIAGNOSTICS", "READS"} {
		if s, ok := got[name]; ok {
			kept = append(kept, txtar.File{Name: name, Data: []byte(s)})
		}
	}
	ar.Files = kept
	if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
		t.Fatal(err)
	}
}

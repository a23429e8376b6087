package executor

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/runtimes/fake"
)

// TestStateOfThePreviousVersion begins a node on what the previous version left of pods and Services;
// e2e/testdata/state says how it was made. The engine has lost everything, so what is in the files is all that there is:
// the same pods run again.
func TestStateOfThePreviousVersion(t *testing.T) {
	const old = "../../e2e/testdata/state"
	files, err := filepath.Glob(old + "/pods/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no pods in %s: %v", old, err)
	}
	var want []string
	for _, f := range files {
		want = append(want, strings.TrimSuffix(filepath.Base(f), ".json"))
	}
	inWorld(t, func(w *world) {
		w.close()
		if err := os.CopyFS(w.dir, os.DirFS(old)); err != nil {
			t.Fatal(err)
		}
		w.engine.AddImage("fairlead-test/program:77499eb09bb4-29967", fake.Image{Present: true})
		w.open()
		time.Sleep(time.Minute) // of the bubble
		s, err := w.node.Observe(w.t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range s.Pods {
			got = append(got, p.UID)
			t.Logf("%s: %s", p.Name, line(p))
			if p.Owner.Name == "" || p.Application != "app" || p.Spec == nil {
				t.Errorf("pod %s is of %s, application %q, with the spec %v", p.Name, p.Owner, p.Application, p.Spec)
			}
		}
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("pods (-want +got):\n%s", d)
		}
		if len(s.Services) != 20 {
			t.Errorf("%d services were read, not 20", len(s.Services))
		}
		if len(w.trouble) > 0 {
			t.Errorf("trouble: %v", w.trouble)
		}
	})
}

// TestHalfWrittenFilesGo begins a node whose daemon was killed while it replaced files.
func TestHalfWrittenFilesGo(t *testing.T) {
	inWorld(t, func(w *world) {
		w.close()
		var files []string
		for _, name := range []string{"pods/a1d4844c-54bc-4b85-88a1-fa7b11c0f8b1.json.new", "services/service_ns_web.json.new"} {
			files = append(files, filepath.Join(w.dir, name))
			if err := os.WriteFile(files[len(files)-1], []byte(`{"uid":`), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		w.open()
		for _, f := range files {
			if _, err := os.Stat(f); !os.IsNotExist(err) {
				t.Errorf("%s is still there: %v", f, err)
			}
		}
	})
}

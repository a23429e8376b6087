package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/daemon/store"
)

// TestStateOfThePreviousVersion reads the state directory that the previous version left; e2e/testdata/state says how it
// was made. What it says is read, and what is written next is this version's.
func TestStateOfThePreviousVersion(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../e2e/testdata/state")); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	if key, err := s.Key(); len(key) != 32 || err != nil {
		t.Errorf("the key is %x, %v", key, err)
	}
	names, err := s.Applications()
	if d := cmp.Diff([]string{"app"}, names); d != "" || err != nil {
		t.Error(d, err)
	}
	check := func() store.Record {
		t.Helper()
		r, err := s.Load("app")
		if err != nil {
			t.Fatal(err)
		}
		kinds := map[string]int{}
		var shown []string
		for _, a := range r.Inventory {
			kinds[a.Ref.Kind]++
			if a.Ref.Kind != "Service" {
				shown = append(shown, fmt.Sprintf("%s finished=%t", a.Ref, !a.Finished.IsZero()))
			}
			if a.Hash == "" || len(a.Written) == 0 || a.Created.IsZero() {
				t.Errorf("%s was read as %+v", a.Ref, a)
			}
		}
		if d := cmp.Diff(map[string]int{"ConfigMap": 1, "Secret": 1, "Deployment": 6, "Job": 1, "Pod": 1, "Service": 20}, kinds); d != "" {
			t.Errorf("kinds in the inventory (-want +got):\n%s", d)
		}
		want := strings.Split(`ConfigMap default/settings finished=false
Deployment default/limited finished=false
Deployment default/only-here finished=false
Deployment default/plain finished=false
Deployment default/reader finished=false
Deployment default/scaled finished=false
Deployment default/web finished=false
Job default/job-here finished=true
Pod default/tool finished=false
Secret default/token finished=false`, "\n")
		if d := cmp.Diff(want, shown); d != "" {
			t.Errorf("the inventory (-want +got):\n%s", d)
		}
		if !strings.HasPrefix(r.Revision, "122ddf344a64") || r.AppliedAt.IsZero() {
			t.Errorf("what was applied is %q, at %v", r.Revision, r.AppliedAt)
		}
		return r
	}
	r := check()
	if _, err := s.Update(r, store.Change{Durable: true}); err != nil {
		t.Fatal(err)
	}
	check()
}

// TestHalfWrittenFilesGo opens a directory whose fairlead was killed while it replaced files. What is not ours stays.
func TestHalfWrittenFilesGo(t *testing.T) {
	dir := t.TempDir()
	open(t, dir).Close()
	for _, name := range []string{".key.123", ".format.9", ".suspensions.json.77", "applications/.shop.json.42", "applications/.shop.approved.7", ".bashrc", "applications/.notes"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open(t, dir)
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	more, err2 := filepath.Glob(filepath.Join(dir, "applications", ".*"))
	want := []string{filepath.Join(dir, ".bashrc"), filepath.Join(dir, "applications", ".notes")}
	if d := cmp.Diff(want, append(left, more...)); d != "" || err != nil || err2 != nil {
		t.Errorf("what is left (-want +got):\n%s%v %v", d, err, err2)
	}
}

package store

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzParse reads arbitrary records: nothing panics, and what was read is the same after it was written.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"application":"shop","revision":"r1","inventory":[{"kind":"ConfigMap","namespace":"n","name":"b","written":"e30="},{"kind":"ConfigMap","namespace":"n","name":"a"}]}` + "\n"))
	f.Add([]byte(`{"application":"shop"}` + "\n" + `{"application":"shop","revision":"r2","applied":[{"kind":"X","name":"y"}],"gone":[{"kind":"X","name":"z"}]}` + "\n" + `{"appl`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parse(b)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := r.write(&out); err != nil {
			t.Fatal(err)
		}
		again, err := parse(out.Bytes())
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, out.Bytes())
		}
		var twice bytes.Buffer
		if err := again.write(&twice); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(out.String(), twice.String()); d != "" {
			t.Errorf("-written +written again:\n%s", d)
		}
	})
}

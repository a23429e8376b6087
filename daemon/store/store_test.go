package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fairlead-dev/fairlead/daemon/store"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

func open(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestRecordSurvivesReopening(t *testing.T) {
	dir := t.TempDir()
	want := store.Record{
		Application: "flux-system/shop",
		Revision:    "4f1a5b1c",
		AppliedAt:   time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Inventory:   []plan.Applied{{Ref: object.Ref{Kind: "ConfigMap", Namespace: "a", Name: "b"}, APIVersion: "v1", Hash: "h", Written: []byte(`{}`)}},
	}
	s := open(t, dir)
	if _, err := s.Update(want, store.Change{}); err != nil {
		t.Fatal(err)
	}
	s.Close()

	got, err := open(t, dir).Load("flux-system/shop")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	names, err := store.View(dir).Applications()
	if d := cmp.Diff([]string{"flux-system/shop"}, names); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := store.Open(dir); !errors.Is(err, store.ErrLocked) {
		t.Errorf("second Open: %v, want ErrLocked", err)
	}
}

func TestKeyIsMadeOnceAndNeverByAView(t *testing.T) {
	dir := t.TempDir()
	if key, err := store.View(dir).Key(); key != nil || err != nil {
		t.Fatalf("view made a key: %x, %v", key, err)
	}
	first, err := open(t, dir).Key()
	if err != nil || len(first) != 32 {
		t.Fatalf("Key() = %x, %v", first, err)
	}
	second, err := store.View(dir).Key()
	if d := cmp.Diff(first, second); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestDamagedRecordIsAnErrorNotEmpty(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "applications", "shop.json"), []byte(`{"inven`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load("shop"); err == nil {
		t.Error("a damaged record was read as if it were whole")
	}
}

func applied(name, hash string) plan.Applied {
	return plan.Applied{Ref: object.Ref{Kind: "ConfigMap", Namespace: "a", Name: name}, APIVersion: "v1", Hash: hash, Written: []byte(`{}`)}
}

// update updates the record of shop and holds that what is read afterwards is what was returned.
func update(t *testing.T, s *store.Store, r store.Record, c store.Change) store.Record {
	t.Helper()
	r, err := s.Update(r, c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := store.View(s.Dir()).Load(r.Application)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r, got, cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("what is recorded is not what was returned:\n%s", d)
	}
	return r
}

func recordFile(s *store.Store) string { return filepath.Join(s.Dir(), "applications", "shop.json") }

func TestAChangeCostsWhatItIs(t *testing.T) {
	s := open(t, t.TempDir())
	r := store.Record{Application: "shop"}
	var all store.Change
	for i := range 200 {
		all.Applied = append(all.Applied, applied(fmt.Sprintf("c%03d", i), "1"))
	}
	r = update(t, s, r, all)
	size := func() int64 {
		info, err := os.Stat(recordFile(s))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	first := size()
	for i := range 20 {
		before := size()
		r.Revision = fmt.Sprint(i)
		c := store.Change{Applied: []plan.Applied{applied("c007", fmt.Sprint(i)), applied(fmt.Sprintf("new%d", i), "1")}}
		if i > 0 {
			c.Gone = []object.Ref{applied(fmt.Sprintf("new%d", i-1), "").Ref}
		}
		r = update(t, s, r, c)
		if grown := size() - before; grown > 1000 {
			t.Fatalf("change %d made the file %d bytes longer", i, grown)
		}
	}
	if len(r.Inventory) != 201 || r.Inventory[7].Hash != "19" {
		t.Fatalf("%d objects, %+v", len(r.Inventory), r.Inventory[7])
	}
	// It is written anew before the changes are longer than the record and the least that is worth it.
	shrunk := 0
	for i := range 40 {
		before := size()
		r = update(t, s, r, store.Change{Applied: []plan.Applied{applied("c007", strings.Repeat("x", 4000)+fmt.Sprint(i))}})
		if size() < before {
			shrunk++
		}
		if n := size(); n > first+72<<10 {
			t.Fatalf("after %d changes the file has %d bytes, the record alone %d", i, n, first)
		}
	}
	if shrunk != 2 {
		t.Errorf("it was written anew %d times", shrunk)
	}
}

func TestAChangeThatWasCutShortWasNeverInForce(t *testing.T) {
	s := open(t, t.TempDir())
	before := update(t, s, store.Record{Application: "shop"}, store.Change{Applied: []plan.Applied{applied("a", "1"), applied("b", "1")}})
	info, err := os.Stat(recordFile(s))
	if err != nil {
		t.Fatal(err)
	}
	update(t, s, before, store.Change{Applied: []plan.Applied{applied("a", "2")}, Gone: []object.Ref{applied("b", "").Ref}})
	whole, err := os.ReadFile(recordFile(s))
	if err != nil {
		t.Fatal(err)
	}
	for n := int(info.Size()); n < len(whole); n++ {
		if err := os.WriteFile(recordFile(s), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := store.View(s.Dir()).Load("shop")
		if err != nil {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
		if d := cmp.Diff(before, got); d != "" {
			t.Fatalf("cut after %d bytes:\n%s", n, d)
		}
	}
	// What is written next is found, whatever was left behind.
	next := update(t, s, before, store.Change{Applied: []plan.Applied{applied("c", "1")}})
	// Damage before the last line is damage.
	next = update(t, s, next, store.Change{Applied: []plan.Applied{applied("d", "1")}})
	update(t, s, next, store.Change{Applied: []plan.Applied{applied("e", "1")}})
	b, err := os.ReadFile(recordFile(s))
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, []byte(`"d"`))
	if err := os.WriteFile(recordFile(s), append(b[:at:at], b[at+1:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load("shop"); err == nil || !strings.Contains(err.Error(), "line ") {
		t.Errorf("damage in the middle: %v", err)
	}
}

func TestARecordThatWasReplacedByHandIsWrittenAnew(t *testing.T) {
	s := open(t, t.TempDir())
	r := update(t, s, store.Record{Application: "shop"}, store.Change{Applied: []plan.Applied{applied("a", "1")}})
	for _, spoil := range []func() error{
		func() error { return os.WriteFile(recordFile(s), []byte("{}\n"), 0o600) },
		func() error { return os.Remove(recordFile(s)) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		r = update(t, s, r, store.Change{Applied: []plan.Applied{applied("b", "1")}})
		r = update(t, s, r, store.Change{Gone: []object.Ref{applied("b", "").Ref}})
	}
}

func TestMissingAndDeletedRecordsAreEmpty(t *testing.T) {
	s := open(t, t.TempDir())
	if _, err := s.Update(store.Record{Application: "shop", Revision: "1"}, store.Change{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Delete("shop"); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Load("shop")
	if d := cmp.Diff(store.Record{Application: "shop"}, got); d != "" || err != nil {
		t.Error(d, err)
	}
}

// TestWhatFailedIsRemembered holds that it is durable at once, and that files of before and after this version are told apart.
func TestWhatFailedIsRemembered(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := update(t, s, store.Record{Application: "shop", Revision: "r1", Content: "c1", AppliedAt: at}, store.Change{Applied: []plan.Applied{applied("a", "1")}})
	r.Attempt = &store.Attempt{Revision: "r2", Content: "c2", How: "h", Since: at}
	r = update(t, s, r, store.Change{})
	r.Attempt = nil
	r.Failed = &store.Failure{Revision: "r2", Content: "c2", How: "h", At: at, Reason: "ProgressDeadlineExceeded", Message: "no\nlog", Back: "r1"}
	r = update(t, s, r, store.Change{Durable: true})
	r.Failed = nil
	update(t, s, r, store.Change{})
}

// TestFormats reads a file as it was written before there were versions, and refuses one of a version to come.
func TestFormats(t *testing.T) {
	s := open(t, t.TempDir())
	for _, c := range []struct{ content, want string }{
		{"{\"application\":\"shop\",\"revision\":\"r1\"}\n{\"application\":\"shop\",\"revision\":\"r2\"}\n", ""},
		{"{\"format\":2,\"application\":\"shop\",\"revision\":\"r2\"}\n", ""},
		{"{\"format\":3,\"application\":\"shop\",\"revision\":\"r2\"}\n", "written by a newer fairlead"},
		{"{\"format\":2,\"application\":\"shop\"}\n{\"format\":3,\"application\":\"shop\"}\n", "written by a newer fairlead"},
	} {
		if err := os.WriteFile(recordFile(s), []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := s.Load("shop")
		if c.want == "" && (err != nil || r.Revision != "r2") || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %+v, %v", c.content, r, err)
		}
	}
}

func TestADirectoryOfANewerFairleadIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := store.Readable(filepath.Join(dir, "none")); err != nil {
		t.Fatal(err)
	}
	open(t, dir).Close()
	format := filepath.Join(dir, "format")
	if b, err := os.ReadFile(format); err != nil || string(b) != fmt.Sprintln(store.Format) {
		t.Fatalf("the format is %q, %v", b, err)
	}
	for _, text := range []string{fmt.Sprintln(store.Format + 1), "99"} {
		if err := os.WriteFile(format, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := store.Open(dir)
		for _, err := range []error{err, store.Readable(dir)} {
			if !errors.Is(err, store.ErrNewer) || !strings.Contains(err.Error(), format) || !strings.Contains(err.Error(), "a newer one") {
				t.Errorf("format %q: %v", text, err)
			}
		}
		if b, _ := os.ReadFile(format); string(b) != text {
			t.Errorf("the format became %q", b)
		}
	}
	if err := os.WriteFile(format, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(dir); err == nil || !strings.Contains(err.Error(), format) {
		t.Errorf("a damaged format: %v", err)
	}
	// One from before there was such a file is of the first format.
	if err := os.Remove(format); err != nil {
		t.Fatal(err)
	}
	open(t, dir).Close()
	if err := store.Readable(dir); err != nil {
		t.Error(err)
	}
}

package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
	if err := s.Save(want); err != nil {
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

func TestMissingAndDeletedRecordsAreEmpty(t *testing.T) {
	s := open(t, t.TempDir())
	if err := s.Save(store.Record{Application: "shop", Revision: "1"}); err != nil {
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

package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Notified reads what people were told into a value of SetNotified's; it stays as it is when nothing was kept.
func (s *Store) Notified(into any) error {
	b, err := os.ReadFile(s.notified())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		return fmt.Errorf("read what people were told, %s: %w", s.notified(), err)
	}
	return nil
}

// SetNotified keeps what people were told, durably.
func (s *Store) SetNotified(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode what people were told: %w", err)
	}
	return WriteFile(s.notified(), b)
}

func (s *Store) notified() string { return filepath.Join(s.dir, "notified.json") }

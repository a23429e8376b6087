package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Suspension is what somebody has suspended: an application, or an object of any.
type Suspension struct {
	Application string     `json:"application,omitempty"`
	Object      object.Ref `json:"object,omitzero"`
	plan.Suspension
	// At is when that was asked for.
	At time.Time `json:"at"`
}

// Same reports whether two are about the same thing.
func (s Suspension) Same(other Suspension) bool {
	return s.Application == other.Application && s.Object == other.Object
}

// Subject names what is suspended.
func (s Suspension) Subject() string {
	if s.Application != "" {
		return "application " + s.Application
	}
	return s.Object.String()
}

// Suspensions returns what is suspended, in the order in which that was asked for.
func (s *Store) Suspensions() ([]Suspension, error) {
	b, err := os.ReadFile(s.suspensions())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var list []Suspension
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("read what is suspended, %s: %w", s.suspensions(), err)
	}
	return list, nil
}

// Suspend adds a suspension, durably, in the place of one of the same thing, and returns all.
func (s *Store) Suspend(add Suspension) ([]Suspension, error) {
	return s.editSuspensions(func(list []Suspension) []Suspension {
		return append(slices.DeleteFunc(list, add.Same), add)
	})
}

// Resume drops the suspensions that match, durably, and returns those that are left.
func (s *Store) Resume(match func(Suspension) bool) ([]Suspension, error) {
	return s.editSuspensions(func(list []Suspension) []Suspension { return slices.DeleteFunc(list, match) })
}

func (s *Store) editSuspensions(edit func([]Suspension) []Suspension) ([]Suspension, error) {
	s.suspending.Lock()
	defer s.suspending.Unlock()
	list, err := s.Suspensions()
	if err != nil {
		return nil, err
	}
	list = edit(list)
	b, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode what is suspended: %w", err)
	}
	return list, WriteFile(s.suspensions(), b)
}

func (s *Store) suspensions() string { return filepath.Join(s.dir, "suspended.json") }

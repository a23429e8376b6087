package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Approval lets exactly one set of deletions go, and one set of changes be made.
type Approval struct {
	// Digest identifies the deletions, as plan.Blocked.Deletions; empty for none.
	Digest string `json:"digest,omitempty"`
	// Tokens stand for the changes, as in plan.Blocked.
	Tokens []string `json:"tokens,omitempty"`
	// By says who approved it, and At when.
	By string    `json:"by"`
	At time.Time `json:"at"`
}

// Approvals returns what was approved of an application and not carried out yet.
func (s *Store) Approvals(application string) ([]Approval, error) {
	name := s.approvals(application)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var list []Approval
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("read approvals %s: %w", name, err)
	}
	return list, nil
}

// Approve adds an approval, durably. One that is there already stays as it is.
func (s *Store) Approve(application string, a Approval) error {
	s.approving.Lock()
	defer s.approving.Unlock()
	list, err := s.Approvals(application)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(list, func(have Approval) bool { return have.Digest == a.Digest && slices.Equal(have.Tokens, a.Tokens) }) {
		return nil
	}
	b, err := json.Marshal(append(list, a))
	if err != nil {
		return fmt.Errorf("encode approvals of application %s: %w", application, err)
	}
	return WriteFile(s.approvals(application), b)
}

// ForgetApprovals drops the approvals of an application; that there are none is no error.
func (s *Store) ForgetApprovals(application string) error {
	s.approving.Lock()
	defer s.approving.Unlock()
	if err := os.Remove(s.approvals(application)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove approvals of application %s: %w", application, err)
	}
	return nil
}

func (s *Store) approvals(application string) string {
	return filepath.Join(s.dir, "applications", url.PathEscape(application)+".approved")
}

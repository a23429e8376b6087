// Package store keeps the little that fairlead cannot observe: what was applied for each
// application, the key that proves ownership, and who may use the state directory.
//
// Everything is a file below one directory. Each is replaced atomically, so a crash or a full disk
// leaves the last good content.
package store

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
)

// Record is what is remembered of one application.
type Record struct {
	Application string `json:"application"`
	// Revision is the last revision of which every step succeeded, and Applied when that was.
	Revision  string    `json:"revision,omitempty"`
	AppliedAt time.Time `json:"appliedAt,omitzero"`
	// DeclaredBy is the application whose objects declare this one; empty for the settings. Orphan says
	// that what runs stays when the declaration goes.
	DeclaredBy string `json:"declaredBy,omitempty"`
	Orphan     bool   `json:"orphan,omitempty"`
	// Inventory are the objects that were applied and not yet confirmed gone.
	Inventory []plan.Applied `json:"inventory,omitempty"`
}

// Store is a state directory.
type Store struct {
	dir  string
	lock *os.File
}

// ErrLocked is returned by Open when another fairlead uses the directory.
var ErrLocked = errors.New("state directory is in use by another fairlead")

// Open makes the directory if need be and locks it until Close. Files are readable by their owner alone.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(filepath.Join(dir, "applications"), 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of state directory: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s (stop it, or give this one another --state-dir)", ErrLocked, dir)
		}
		return nil, fmt.Errorf("lock state directory %s: %w", dir, err)
	}
	return &Store{dir: dir, lock: lock}, nil
}

// View opens a state directory for reading only. A directory that does not exist is an empty one.
func View(dir string) *Store { return &Store{dir: dir} }

// Close releases the directory.
func (s *Store) Close() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

// Dir returns the folder.
func (s *Store) Dir() string { return s.dir }

// Key returns the 32 bytes that prove which containers are ours, made at the first call of an opened
// store. A viewed store without a key returns nil: then nothing is ours.
func (s *Store) Key() ([]byte, error) {
	name := filepath.Join(s.dir, "key")
	key, err := os.ReadFile(name)
	switch {
	case err == nil && len(key) == 32:
		return key, nil
	case err == nil:
		return nil, fmt.Errorf("key file %s holds %d bytes instead of 32: restore it from a backup; without it the running pods are not recognised", name, len(key))
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read key: %w", err)
	case s.lock == nil:
		return nil, nil
	}
	key = make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	if err := WriteFile(name, key); err != nil {
		return nil, err
	}
	return key, nil
}

// Load returns the record of an application; a missing one is empty.
func (s *Store) Load(application string) (Record, error) {
	b, err := os.ReadFile(s.path(application))
	if errors.Is(err, fs.ErrNotExist) {
		return Record{Application: application}, nil
	}
	if err != nil {
		return Record{}, fmt.Errorf("read record of application %s: %w", application, err)
	}
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return Record{}, fmt.Errorf("record of application %s (%s) is damaged: %w; nothing of it is changed until the file is mended or removed", application, s.path(application), err)
	}
	return r, nil
}

// Save replaces the record of an application durably.
func (s *Store) Save(r Record) error {
	return writeFile(s.path(r.Application), func(w io.Writer) error {
		if err := r.write(w); err != nil {
			return fmt.Errorf("encode record of application %s: %w", r.Application, err)
		}
		return nil
	})
}

// write writes the record as JSON, object by object: a large inventory is never in memory as a whole, and a
// file that people look into has a line for each.
func (r Record) write(to io.Writer) error {
	w := bufio.NewWriterSize(to, 64<<10)
	objects := r.Inventory
	r.Inventory = nil
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, _ = w.Write(bytes.TrimSuffix(b, []byte("}"))) // Flush returns the error
	for i := range objects {
		start := ",\n"
		if i == 0 {
			start = ",\n\"inventory\":[\n"
		}
		_, _ = w.WriteString(start)
		if b, err = json.Marshal(&objects[i]); err != nil {
			return err
		}
		_, _ = w.Write(b)
	}
	if len(objects) > 0 {
		_ = w.WriteByte(']')
	}
	_, _ = w.WriteString("}\n")
	return w.Flush()
}

// Delete forgets an application. Forgetting an unknown one succeeds.
func (s *Store) Delete(application string) error {
	if err := os.Remove(s.path(application)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove record of application %s: %w", application, err)
	}
	return nil
}

// Applications lists the applications that have a record, sorted.
func (s *Store) Applications() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "applications"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list applications: %w", err)
	}
	var names []string
	for _, e := range entries {
		if base, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			if name, err := url.PathUnescape(base); err == nil {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

func (s *Store) path(application string) string {
	return filepath.Join(s.dir, "applications", url.PathEscape(application)+".json")
}

// WriteFile replaces a file so that after a crash either the old or the new content is there.
func WriteFile(name string, content []byte) error {
	return writeFile(name, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

func writeFile(name string, write func(io.Writer) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer os.Remove(tmp.Name())
	err = write(tmp)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err == nil {
		err = syncDir(filepath.Dir(name))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

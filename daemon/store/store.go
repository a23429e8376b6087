// Package store keeps the little that fairlead cannot observe: what was applied for each
// application, the key that proves ownership, and who may use the state directory.
//
// Everything is a file below one directory. Each is replaced atomically, or a whole line is added to it, so a crash
// or a full disk leaves the last good content.
package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
)

// Store is a state directory.
type Store struct {
	dir  string
	lock *os.File

	approving, suspending sync.Mutex

	mu      sync.Mutex
	records map[string]extent // by application; those that this Store has written
}

// ErrLocked is returned by Open when another fairlead uses the directory.
var ErrLocked = errors.New("state directory is in use by another fairlead")

// Open makes the directory if need be and locks it until Close. Files are readable by their owner alone. A directory of a
// newer fairlead is left as it is: ErrNewer.
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
	if err := errors.Join(removeHalfWritten(dir), removeHalfWritten(filepath.Join(dir, "applications")), claimFormat(dir)); err != nil {
		lock.Close()
		return nil, err
	}
	return &Store{dir: dir, lock: lock, records: map[string]extent{}}, nil
}

// View opens a state directory for reading only. A directory that does not exist is an empty one. Ask Readable first.
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

// halfWritten is what a file is called that is to replace another.
var halfWritten = regexp.MustCompile(`^\.(key|format|.*\.json|.*\.approved)\.[0-9]+$`)

// removeHalfWritten removes what writeFile left when the program died in it.
func removeHalfWritten(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if halfWritten.MatchString(e.Name()) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	if err != nil {
		return fmt.Errorf("remove what was written by half: %w", err)
	}
	return nil
}

// WriteFile replaces a file so that after a crash either the old or the new content is there.
func WriteFile(name string, content []byte) error {
	return writeFile(name, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// writeFile replaces a file by what write writes.
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

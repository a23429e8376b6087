package store

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Record is what is remembered of one application.
type Record struct {
	Application string `json:"application"`
	// Revision is the last revision of which every step succeeded, and Applied when that was.
	Revision  string    `json:"revision,omitempty"`
	AppliedAt time.Time `json:"appliedAt,omitzero"`
	// Content identifies what Revision says of the application; empty in files of format 1.
	Content string `json:"content,omitempty"`
	// Attempt is what is being applied, Failed what failed last and was not followed by a success; nil when nothing is or did.
	Attempt *Attempt `json:"attempt,omitempty"`
	Failed  *Failure `json:"failed,omitempty"`
	// DeclaredBy is the application whose objects declare this one; empty for the settings. Orphan says
	// that what runs stays when the declaration goes.
	DeclaredBy string `json:"declaredBy,omitempty"`
	Orphan     bool   `json:"orphan,omitempty"`
	// Sync is the newest sync of an application that has hooks.
	Sync *plan.SyncState `json:"sync,omitempty"`
	// Inventory are the objects that were applied and not yet confirmed gone, sorted by object.Compare.
	Inventory []plan.Applied `json:"inventory,omitempty"`
}

// Change is what of an inventory is not what it was.
type Change struct {
	// Applied are objects that came into the inventory or are others than they were there, Gone those that left it.
	Applied []plan.Applied `json:"applied,omitempty"`
	Gone    []object.Ref   `json:"gone,omitempty"`
	// Durable makes the rest of the record durable too when nothing of the inventory changed.
	Durable bool `json:"-"`
}

// format is the version of a record's file. Files of this and of all earlier versions are read. The first had none
// written in it; version 2 remembers what was tried and what failed.
const format = 2

// head is the record as it is at the beginning of its file.
type head struct {
	Format int `json:"format,omitempty"`
	Record
}

// line is a change as it is written: all else of the record as it is from then on, and what changed in the inventory.
type line struct {
	head
	Change
}

// errNewer says that a newer fairlead wrote a file: it may mean something that is not known here.
var errNewer = errors.New("it was written by a newer fairlead: start that one")

func (h head) readable() error {
	if h.Format > format {
		return fmt.Errorf("%w (the file has format %d, and up to %d is read)", errNewer, h.Format, format)
	}
	return nil
}

// A record's file is a stream of JSON values: a record, and after it one line for every change since it was written.
// So a change costs what it is, not what the record is. When the lines have become longer than the record, it is
// written anew. extent is how long the file is: of its record alone, and with the lines that were made durable.
type extent struct{ record, end int64 }

// leastLines is how many bytes of lines are never worth writing a record anew for.
const leastLines = 64 << 10

func (e extent) full(more int) bool { return e.end-e.record+int64(more) > max(e.record, leastLines) }

func nameOf(a *plan.Applied) object.Ref { return a.Ref }

func compareApplied(a, b plan.Applied) int { return object.Compare(a.Ref, b.Ref) }

// Load returns the record of an application; a missing one is empty.
func (s *Store) Load(application string) (Record, error) {
	b, err := os.ReadFile(s.path(application))
	if errors.Is(err, fs.ErrNotExist) {
		return Record{Application: application}, nil
	}
	if err != nil {
		return Record{}, fmt.Errorf("read record of application %s: %w", application, err)
	}
	r, err := parse(b)
	if errors.Is(err, errNewer) {
		return Record{}, fmt.Errorf("record of application %s (%s) cannot be read: %w; until then nothing of it is changed", application, s.path(application), err)
	}
	if err != nil {
		return Record{}, fmt.Errorf("record of application %s (%s) is damaged: %w; nothing of it is changed until the file is mended or removed", application, s.path(application), err)
	}
	return r, nil
}

// parse reads a record's file. A last line that is not whole was never in force: whoever wrote it was not told that
// it had been.
func parse(b []byte) (Record, error) {
	var first head
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&first); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Record{}, err
	}
	if err := first.readable(); err != nil {
		return Record{}, err
	}
	r := first.Record
	latest := map[object.Ref]*plan.Applied{} // nil for what is gone
	rest := bytes.TrimLeft(b[d.InputOffset():], "\n")
	for len(rest) > 0 {
		text, after, whole := bytes.Cut(rest, []byte("\n"))
		var l line
		if err := json.Unmarshal(text, &l); err != nil && len(after) > 0 {
			return Record{}, fmt.Errorf("line %d: %w", 1+bytes.Count(b[:len(b)-len(rest)], []byte("\n")), err)
		} else if err != nil || !whole {
			break
		}
		if err := l.readable(); err != nil {
			return Record{}, err
		}
		for _, ref := range l.Gone {
			latest[ref] = nil
		}
		for i := range l.Applied {
			latest[l.Applied[i].Ref] = &l.Applied[i]
		}
		l.Inventory = r.Inventory
		r, rest = l.Record, after
	}
	if !slices.IsSortedFunc(r.Inventory, compareApplied) {
		slices.SortFunc(r.Inventory, compareApplied)
	}
	var c Change
	for ref, applied := range latest {
		if applied == nil {
			c.Gone = append(c.Gone, ref)
		} else {
			c.Applied = append(c.Applied, *applied)
		}
	}
	if len(latest) > 0 {
		r.Inventory = object.Edit(r.Inventory, nameOf, c.Applied, c.Gone)
	}
	return r, nil
}

// Update records that an application's record is r with a change of its inventory, and returns that. The inventory of r is
// the one that is recorded, everything else may be other than it is there. The change is durable when Update returns;
// where there is none, and Change.Durable does not ask for it, the rest becomes durable with the next one, since it follows from what
// runs and is found again.
// After an error the record is what it was. An application is updated by one goroutine at a time.
func (s *Store) Update(r Record, c Change) (Record, error) {
	s.mu.Lock()
	have, known := s.records[r.Application]
	delete(s.records, r.Application) // after an error the file may hold anything behind the record and its lines
	s.mu.Unlock()
	next := r
	if len(c.Applied)+len(c.Gone) > 0 {
		next.Inventory = object.Edit(r.Inventory, nameOf, c.Applied, c.Gone)
	}
	r.Inventory = nil
	added, err := json.Marshal(line{head{format, r}, c})
	if err != nil {
		return Record{}, fmt.Errorf("encode record of application %s: %w", r.Application, err)
	}
	added = append(added, '\n')
	err = errMoved
	if known && !have.full(len(added)) {
		err = appendAt(s.path(r.Application), added, have.end, c.Durable || len(c.Applied)+len(c.Gone) > 0)
		have.end += int64(len(added))
	}
	if errors.Is(err, errMoved) {
		have, err = s.replace(next)
	}
	if err != nil {
		return Record{}, err
	}
	s.mu.Lock()
	s.records[r.Application] = have
	s.mu.Unlock()
	return next, nil
}

// replace writes a record anew.
func (s *Store) replace(r Record) (extent, error) {
	var n counter
	err := writeFile(s.path(r.Application), func(w io.Writer) error {
		if err := r.write(io.MultiWriter(w, &n)); err != nil {
			return fmt.Errorf("encode record of application %s: %w", r.Application, err)
		}
		return nil
	})
	return extent{int64(n), int64(n)}, err
}

// counter counts the bytes that are written to it.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// errMoved says that a file is not one that can be added to: it was not written yet, is full, or somebody else has
// replaced or removed it.
var errMoved = errors.New("the file has to be written anew")

// appendAt adds b to a file of end bytes, durably if asked to. After an error nothing was added, as far as the disk allows that.
func appendAt(name string, b []byte, end int64, durably bool) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return errMoved
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && info.Size() != end {
		return errMoved
	}
	if err == nil {
		_, err = f.WriteAt(b, end)
	}
	if err == nil && durably {
		err = f.Sync()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", name, err), f.Truncate(end))
	}
	return nil
}

// write writes the record as JSON, object by object: a large inventory is never in memory as a whole, and a
// file that people look into has a line for each.
func (r Record) write(to io.Writer) error {
	w := bufio.NewWriterSize(to, 64<<10)
	objects := r.Inventory
	r.Inventory = nil
	b, err := json.Marshal(head{format, r})
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
	s.mu.Lock()
	delete(s.records, application)
	s.mu.Unlock()
	if err := s.ForgetApprovals(application); err != nil {
		return err
	}
	if err := os.Remove(s.path(application)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove record of application %s: %w", application, err)
	}
	return nil
}

func (s *Store) path(application string) string {
	return filepath.Join(s.dir, "applications", url.PathEscape(application)+".json")
}

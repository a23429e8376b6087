package git

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

const (
	cacheBytes  = 2 << 20 // of objects that go-git keeps in memory, for each store
	cacheTrees  = 20_000  // entries of trees kept parsed
	maxObject   = 64 << 20
	maxTagDepth = 8

	maxTree    = 16 << 20 // bytes of one directory's list
	maxCommit  = 1 << 20  // bytes of a commit
	maxMessage = 16 << 10 // bytes of a message that are kept
	maxPerson  = 256      // bytes of a name and address that are kept
)

// store reads objects. It checks every object against its name, so that a damaged file never becomes desired
// state. It is safe for concurrent use.
type store struct {
	dirs []string // Git directories: the repository's and its alternates'
	// under is where objects are that were not made here; nil for a store with directories.
	under *store

	mu       sync.Mutex
	open     []*filesystem.Storage
	trees    map[plumbing.Hash][]entry
	entries  int
	made     map[plumbing.Hash]madeObject
	damage   bool
	isClosed bool
}

// madeObject is an object that is nowhere but in memory.
type madeObject struct {
	kind plumbing.ObjectType
	data []byte
}

// commit is what matters of a commit.
type commit struct {
	tree      plumbing.Hash
	parents   []plumbing.Hash
	author    string
	committed time.Time
	message   string
}

// entry is one line of a tree.
type entry struct {
	name string
	mode uint32
	hash plumbing.Hash
}

const (
	modeTree   = 0o040000
	modeFile   = 0o100000
	modeExec   = 0o100755
	modeLink   = 0o120000
	modeModule = 0o160000
	modeType   = 0o170000
)

// openStore opens the objects of a Git directory and of the ones that it borrows from.
func openStore(gitDir string) *store {
	s := &store{trees: map[plumbing.Hash][]entry{}}
	s.addDir(gitDir, 0)
	return s
}

// newOverlay returns a store that has all that another has, and what is made in it besides.
func newOverlay(under *store) *store {
	return &store{under: under, trees: map[plumbing.Hash][]entry{}, made: map[plumbing.Hash]madeObject{}}
}

// make adds an object to an overlay and returns its id.
func (s *store) make(kind plumbing.ObjectType, data []byte) plumbing.Hash {
	h := plumbing.ComputeHash(kind, data)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made[h] = madeObject{kind, data}
	return h
}

// madeHere returns an object of an overlay.
func (s *store) madeHere(h plumbing.Hash) (madeObject, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.made[h]
	return o, ok
}

func (s *store) addDir(gitDir string, depth int) {
	s.dirs = append(s.dirs, gitDir)
	s.open = append(s.open, newStorage(gitDir))
	data, err := os.ReadFile(filepath.Join(gitDir, "objects", "info", "alternates"))
	if err != nil || depth >= 5 {
		return
	}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if !filepath.IsAbs(line) {
			line = filepath.Join(gitDir, "objects", line)
		}
		if filepath.Base(line) == "objects" {
			s.addDir(filepath.Dir(line), depth+1)
		}
	}
}

func newStorage(gitDir string) *filesystem.Storage {
	return filesystem.NewStorageWithOptions(osfs.New(gitDir), cache.NewObjectLRU(cacheBytes), filesystem.Options{KeepDescriptors: true, LargeObjectThreshold: maxObject})
}

// refresh forgets which packs there are, so that new ones are seen.
func (s *store) refresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.open {
		o.Reindex()
	}
}

func (s *store) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isClosed = true
	var err error
	for _, o := range s.open {
		err = errors.Join(err, o.Close())
	}
	s.open, s.trees = nil, nil
	return err
}

// broken reports whether an object was found damaged.
func (s *store) broken() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.damage
}

var errClosed = errors.New("the snapshot's source is closed")

// raw looks an object up. The caller holds the lock.
func (s *store) raw(h plumbing.Hash) (o plumbing.EncodedObject, err error) {
	// A damaged pack makes go-git panic in places; to whoever reads, it is damage like any other.
	defer func() {
		if r := recover(); r != nil {
			o, err = nil, fmt.Errorf("read object %s: %v", h, r)
		}
	}()
	err = plumbing.ErrObjectNotFound
	for _, storage := range s.open {
		var e error
		if o, e = storage.EncodedObject(plumbing.AnyObject, h); e == nil {
			return o, nil
		}
		if !errors.Is(e, plumbing.ErrObjectNotFound) {
			err = e
		}
	}
	return nil, err
}

// has reports whether there is an object of that name, without reading it.
func (s *store) has(h plumbing.Hash) bool {
	if s.under != nil {
		_, ok := s.madeHere(h)
		return ok || s.under.has(h)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, storage := range s.open {
		if storage.HasEncodedObject(h) == nil {
			return true
		}
	}
	return false
}

// read returns the type and content of an object. Objects that are not where they were, because the repository
// was packed anew by someone else in the meantime, are looked for again.
func (s *store) read(h plumbing.Hash) (plumbing.ObjectType, []byte, error) {
	if s.under != nil {
		if o, ok := s.madeHere(h); ok {
			return o.kind, o.data, nil
		}
		return s.under.read(h)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosed {
		return 0, nil, errClosed
	}
	t, data, err := s.readOnce(h)
	if err != nil && !errors.Is(err, errTooLarge) {
		for i, dir := range s.dirs {
			s.open[i].Close()
			s.open[i] = newStorage(dir)
		}
		t, data, err = s.readOnce(h)
	}
	if err != nil && !errors.Is(err, errTooLarge) {
		s.damage = true
		err = damaged("object "+h.String(), err)
	}
	return t, data, err
}

var errTooLarge = fmt.Errorf("the file has more than %d MiB, which is not read", maxObject>>20)

func (s *store) readOnce(h plumbing.Hash) (_ plumbing.ObjectType, _ []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("read object %s: %v", h, r)
		}
	}()
	o, err := s.raw(h)
	if err != nil {
		return 0, nil, err
	}
	if o.Size() > maxObject {
		return 0, nil, errTooLarge
	}
	r, err := o.Reader()
	if err != nil {
		return 0, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, maxObject+1))
	if err = errors.Join(err, r.Close()); err != nil {
		return 0, nil, err
	}
	if plumbing.ComputeHash(o.Type(), data) != h {
		return 0, nil, errors.New("its content is not what its name says")
	}
	return o.Type(), data, nil
}

func (s *store) sizeOnce(h plumbing.Hash) (n int64, err error) {
	defer func() {
		if r := recover(); r != nil {
			n, err = 0, fmt.Errorf("read object %s: %v", h, r)
		}
	}()
	err = plumbing.ErrObjectNotFound
	for _, storage := range s.open {
		var e error
		if n, e = storage.EncodedObjectSize(h); e == nil {
			return n, nil
		}
		err = e
	}
	return 0, err
}

// size is the number of bytes of an object; 0 if it cannot be read, which reading it then says.
func (s *store) size(h plumbing.Hash) int64 {
	if s.under != nil {
		if o, ok := s.madeHere(h); ok {
			return int64(len(o.data))
		}
		return s.under.size(h)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.sizeOnce(h)
	if err != nil {
		return 0
	}
	return n
}

func (s *store) blob(h plumbing.Hash) ([]byte, error) {
	t, data, err := s.read(h)
	if err == nil && t != plumbing.BlobObject {
		err = fmt.Errorf("object %s is a %s, not a file", h, t)
	}
	return data, err
}

// tree returns the entries of a tree, sorted by name. The result must not be modified.
func (s *store) tree(h plumbing.Hash) ([]entry, error) {
	s.mu.Lock()
	have, ok := s.trees[h]
	s.mu.Unlock()
	if ok {
		return have, nil
	}
	t, data, err := s.read(h)
	if err != nil {
		return nil, err
	}
	switch {
	case t != plumbing.TreeObject:
		return nil, fmt.Errorf("object %s is a %s, not a tree", h, t)
	case len(data) > maxTree:
		return nil, fmt.Errorf("tree %s: the list of one directory has %d MiB, more than %d: spread the files over several", h, len(data)>>20, maxTree>>20)
	}
	list, err := parseTree(data)
	if err != nil {
		return nil, fmt.Errorf("tree %s: %w", h, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries += len(list); s.entries > cacheTrees || s.trees == nil {
		s.trees, s.entries = map[plumbing.Hash][]entry{}, len(list)
	}
	s.trees[h] = list
	return list, nil
}

func parseTree(data []byte) ([]entry, error) {
	var list []entry
	for len(data) > 0 {
		space := bytes.IndexByte(data, ' ')
		end := bytes.IndexByte(data, 0)
		if space <= 0 || end < space || len(data) < end+21 {
			return nil, errors.New("is malformed")
		}
		mode, err := strconv.ParseUint(string(data[:space]), 8, 32)
		if err != nil {
			return nil, errors.New("has a malformed mode")
		}
		e := entry{name: string(data[space+1 : end]), mode: uint32(mode)}
		copy(e.hash[:], data[end+1:])
		data = data[end+21:]
		// Names that would mean another place are not shown to anybody.
		if e.name == "" || e.name == "." || e.name == ".." || strings.EqualFold(e.name, ".git") || strings.ContainsAny(e.name, "/\\") {
			continue
		}
		list = append(list, e)
	}
	// Git sorts directories as if their names ended with a slash; names alone can be searched and merged.
	slices.SortStableFunc(list, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return list, nil
}

// commit returns a commit. Annotated tags are followed.
func (s *store) commit(h plumbing.Hash) (commit, error) {
	for range maxTagDepth {
		t, data, err := s.read(h)
		if err != nil {
			return commit{}, err
		}
		switch t {
		case plumbing.CommitObject:
			return parseCommit(data)
		case plumbing.TagObject:
			rest, ok := bytes.CutPrefix(data, []byte("object "))
			if !ok || len(rest) < 40 {
				return commit{}, fmt.Errorf("tag %s is malformed", h)
			}
			h = plumbing.NewHash(string(rest[:40]))
		default:
			return commit{}, fmt.Errorf("%w: object %s is a %s, not a commit", ErrNoCommit, h, t)
		}
	}
	return commit{}, fmt.Errorf("tag %s points to tags only", h)
}

// peel returns the name of the commit that h is or that the tag h points to.
func (s *store) peel(h plumbing.Hash) (plumbing.Hash, error) {
	for range maxTagDepth {
		t, data, err := s.read(h)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		rest, ok := bytes.CutPrefix(data, []byte("object "))
		if t != plumbing.TagObject || !ok || len(rest) < 40 {
			return h, nil
		}
		h = plumbing.NewHash(string(rest[:40]))
	}
	return plumbing.ZeroHash, fmt.Errorf("tag %s points to tags only", h)
}

// parseCommit reads a commit as Git does: the tree and the parents count only where they belong, and of what is there
// twice the first. Read otherwise, a commit would be something else here than for everybody who looks at it.
func parseCommit(data []byte) (commit, error) {
	var c commit
	if len(data) > maxCommit {
		return c, fmt.Errorf("the commit has %d KiB, more than %d", len(data)>>10, maxCommit>>10)
	}
	head, message, _ := strings.Cut(string(data), "\n\n")
	lines := strings.Split(head, "\n")
	if id, ok := strings.CutPrefix(lines[0], "tree "); ok {
		c.tree = hashOf(id)
	}
	if c.tree.IsZero() {
		return commit{}, errors.New("commit is malformed: it has no tree")
	}
	lines = lines[1:]
	for len(lines) > 0 {
		id, ok := strings.CutPrefix(lines[0], "parent ")
		if !ok {
			break
		}
		c.parents = append(c.parents, hashOf(id))
		lines = lines[1:]
	}
	for _, line := range lines {
		key, value, _ := strings.Cut(line, " ")
		switch {
		case key == "author" && c.author == "":
			c.author, _ = person(value)
		case key == "committer" && c.committed.IsZero():
			_, c.committed = person(value)
		}
	}
	c.message = strings.ToValidUTF8(strings.TrimRight(shortened(message, maxMessage), "\n"), "\uFFFD")
	return c, nil
}

// shortened is the beginning of a text that is longer than most bytes.
func shortened(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// person splits "Name <address> seconds zone".
func person(s string) (string, time.Time) {
	end := strings.LastIndexByte(s, '>')
	if end < 0 {
		return strings.ToValidUTF8(shortened(s, maxPerson), "\uFFFD"), time.Time{}
	}
	who := strings.ToValidUTF8(shortened(s[:end+1], maxPerson), "\uFFFD")
	fields := strings.Fields(s[end+1:])
	if len(fields) == 0 {
		return who, time.Time{}
	}
	seconds, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return who, time.Time{}
	}
	at := time.Unix(seconds, 0).UTC()
	if len(fields) > 1 {
		if zone, err := time.Parse("-0700", fields[1]); err == nil {
			at = at.In(zone.Location())
		}
	}
	return who, at
}

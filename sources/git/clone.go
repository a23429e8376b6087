package git

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/go-git/go-git/v5/plumbing"
)

const (
	maxPacks = 48 // a clone with more is fetched anew
	maxKept  = 64 // commits that are remembered as whole
	maxHaves = 16 // commits that the server is told of

	maxIncrement = 64 << 20 // bytes of what is new; with more than that, one commit is fetched alone
)

// clone is a bare, shallow copy of a remote repository. Below root every process has a directory of its own,
// held by a lock, with packs and a note of which commits in it are whole. References are never stored: the
// remote is asked for them.
type clone struct {
	root string
	at   location
	dial dialer

	dir      string
	lock     *os.File
	state    cloneState
	store    *store
	retired  *store // of the clone before, for snapshots that are still read
	retiring string
}

// cloneState is written after the objects are; what it does not name may be incomplete.
type cloneState struct {
	URL   string   // where from, without credentials
	Whole []string // commits whose files are all here
}

const stateFile = "fairlead.json"

// open takes the directory that an earlier process left, if it is sound, or makes a new one. Others that no
// process holds are removed.
func (c *clone) open() error {
	if c.store != nil {
		return nil
	}
	if err := os.MkdirAll(c.root, 0o700); err != nil {
		return fmt.Errorf("clone directory: %w", err)
	}
	names, err := os.ReadDir(c.root)
	if err != nil {
		return fmt.Errorf("clone directory: %w", err)
	}
	for _, e := range names {
		if !strings.HasPrefix(e.Name(), "clone-") {
			continue
		}
		dir := filepath.Join(c.root, e.Name())
		lock, err := holdDir(dir)
		if err != nil {
			if !errors.Is(err, syscall.EWOULDBLOCK) {
				os.RemoveAll(dir)
			}
			continue // another process reads it
		}
		if c.store == nil && c.adopt(dir) == nil {
			c.dir, c.lock, c.store = dir, lock, openStore(dir)
			continue
		}
		os.RemoveAll(dir)
		lock.Close()
	}
	if c.store != nil {
		return nil
	}
	return c.create()
}

// holdDir locks a clone's directory for as long as the file is open.
func holdDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (c *clone) create() error {
	dir, err := os.MkdirTemp(c.root, "clone-")
	if err != nil {
		return fmt.Errorf("clone directory: %w", err)
	}
	lock, err := holdDir(dir)
	if err != nil {
		return fmt.Errorf("clone directory: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "objects", "pack"), 0o700); err != nil {
		lock.Close()
		return fmt.Errorf("clone directory: %w", err)
	}
	c.dir, c.lock, c.store = dir, lock, openStore(dir)
	c.state = cloneState{URL: c.at.shown()}
	return nil
}

// adopt checks what an earlier process left: every pack and index against its checksum.
func (c *clone) adopt(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return err
	}
	var state cloneState
	if err := json.Unmarshal(data, &state); err != nil {
		return err
	}
	if state.URL != c.at.shown() || len(state.Whole) == 0 {
		return errors.New("the clone is of another repository")
	}
	packDir := filepath.Join(dir, "objects", "pack")
	files, err := os.ReadDir(packDir)
	if err != nil {
		return err
	}
	packs := 0
	for _, f := range files {
		name := f.Name()
		base, isPack := strings.CutSuffix(name, ".pack")
		switch {
		case isPack:
			packs++
			if err := checkSum(filepath.Join(packDir, name), strings.TrimPrefix(base, "pack-")); err != nil {
				return err
			}
			if err := checkSum(filepath.Join(packDir, base+".idx"), ""); err != nil {
				return err
			}
		case strings.HasSuffix(name, ".idx"):
			if _, err := os.Stat(filepath.Join(packDir, strings.TrimSuffix(name, ".idx")+".pack")); err != nil {
				return err
			}
		default:
			os.Remove(filepath.Join(packDir, name)) // a fetch that did not end
		}
	}
	if packs == 0 {
		return errors.New("the clone has no packs")
	}
	c.state = state
	return nil
}

// checkSum holds a file against the SHA-1 that it ends with, and that against the name.
func checkSum(file, want string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h := sha1.New()
	end := make([]byte, h.Size())
	if _, err := io.CopyN(h, f, info.Size()-int64(len(end))); err != nil {
		return err
	}
	if _, err := io.ReadFull(f, end); err != nil {
		return err
	}
	if got := hex.EncodeToString(end); got != hex.EncodeToString(h.Sum(nil)) || want != "" && got != want {
		return errors.New("checksum mismatch")
	}
	return nil
}

func (c *clone) objects() *store { return c.store }

func (c *clone) broken() bool { return c.store != nil && c.store.broken() }

func (c *clone) has(h plumbing.Hash) bool {
	return c.open() == nil && slices.Contains(c.state.Whole, h.String()) && c.store.has(h)
}

// reset removes the clone. It stays readable, as far as it was, for snapshots made of it.
func (c *clone) reset() error {
	if c.store == nil {
		return nil
	}
	// Files that are open stay readable after they are removed.
	err := os.RemoveAll(c.dir)
	c.lock.Close()
	if c.retired != nil && len(c.state.Whole) == 0 {
		_ = c.store.close() // nothing was ever read from it; what was good before is
	} else {
		c.dropRetired()
		c.retired = c.store
	}
	c.store, c.lock, c.dir, c.state = nil, nil, "", cloneState{}
	return err
}

func (c *clone) dropRetired() {
	if c.retired != nil {
		_ = c.retired.close() // it was only read
		c.retired = nil
	}
	if c.retiring != "" {
		os.RemoveAll(c.retiring)
		c.retiring = ""
	}
}

func (c *clone) close() error {
	c.dial.close()
	c.dropRetired()
	if c.store == nil {
		return nil
	}
	err := c.store.close()
	c.lock.Close()
	c.store = nil
	return err
}

func (c *clone) list(ctx context.Context, _ []string) (*listing, error) {
	s, err := c.dial.dial(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, s.close)
	adv, err := s.list(ctx)
	stop()
	if err != nil {
		s.close()
		return nil, err
	}
	return read(adv, s), nil
}

// pull fetches what a asks for. It returns whether the history is cut.
func (c *clone) pull(ctx context.Context, l *listing, a ask) (bool, error) {
	s := l.remote
	l.remote = nil
	if s == nil { // one session fetches once
		again, err := c.list(ctx, nil)
		if err != nil {
			return false, err
		}
		s = again.remote
	}
	defer s.close()
	unlimited := a.limit == 0
	if unlimited {
		a.limit = maxPackBytes
	}
	shallow, err := receive(ctx, s, l.caps, a, func(r io.Reader) error {
		return storePack(ctx, filepath.Join(c.dir, "objects", "pack"), r)
	})
	if unlimited && errors.Is(err, errTooMuch) {
		err = tooLarge("it has more than %d MiB", a.limit>>20)
	}
	if err == nil {
		c.store.refresh()
	}
	return shallow, err
}

// obtain fetches a commit. A server that gives no commits by their ids is asked for everything that it lists.
func (c *clone) obtain(ctx context.Context, sel selection, l *listing) error {
	defer l.done()
	if err := c.open(); err != nil {
		return err
	}
	if slices.Contains(c.state.Whole, sel.commit.String()) && !c.store.has(sel.commit) {
		return damaged("commit "+sel.commit.String(), plumbing.ErrObjectNotFound)
	}
	if err := c.compact(); err != nil {
		return err
	}
	a := ask{wants: []plumbing.Hash{sel.object}, depth: 1}
	if haves := c.haves(); len(haves) > 0 && l.caps.hasDepth && l.lists(sel.object) {
		// Without a depth the server sends what is new since the commits that are here; with one it would send
		// all files again. After a force-push that may be the whole history: then one commit is enough.
		_, err := c.pull(ctx, l, ask{wants: a.wants, haves: haves, limit: maxIncrement})
		switch {
		case err == nil && c.store.has(sel.commit):
			return c.whole(sel.commit)
		case err != nil && !errors.Is(err, errTooMuch):
			return err
		}
	}
	var refused error
	if l.lists(sel.object) || l.caps.anyWant {
		if _, err := c.pull(ctx, l, a); err != nil {
			if l.lists(sel.object) || ctx.Err() != nil || errors.Is(err, errDamaged) {
				return err
			}
			refused = err
		}
	} else {
		_, refused = c.pull(ctx, l, a)
		if ctx.Err() != nil {
			return refused
		}
	}
	if refused == nil && l.lists(sel.object) && !c.store.has(sel.commit) {
		return damaged("commit "+sel.commit.String(), plumbing.ErrObjectNotFound)
	}
	if refused != nil || !c.store.has(sel.commit) {
		if _, err := c.pull(ctx, l, ask{wants: l.tips()}); err != nil {
			return err
		}
		if !c.store.has(sel.commit) {
			return fmt.Errorf("%w: no branch and no tag of the repository contains the commit %s: check it, or push it", ErrNoCommit, sel.commit)
		}
	}
	return c.whole(sel.commit)
}

// haves are the commits that are here, the newest ones.
func (c *clone) haves() []plumbing.Hash {
	var list []plumbing.Hash
	for _, h := range c.state.Whole[max(0, len(c.state.Whole)-maxHaves):] {
		list = append(list, hashOf(h))
	}
	return list
}

// whole notes that all files of a commit are here.
func (c *clone) whole(commit plumbing.Hash) error {
	c.state.Whole = slices.DeleteFunc(c.state.Whole, func(h string) bool { return h == commit.String() })
	c.state.Whole = append(c.state.Whole, commit.String())
	c.state.Whole = c.state.Whole[max(0, len(c.state.Whole)-maxKept):]
	return c.save()
}

func (c *clone) save() error {
	data, err := json.Marshal(c.state)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(c.dir, stateFile+"-")
	if err != nil {
		return damaged("write state", err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(c.dir, stateFile))
	}
	if err != nil {
		os.Remove(f.Name())
		return damaged("write state", err)
	}
	return nil
}

// compact begins a new clone when there are many packs. The old one stays readable until the next time.
func (c *clone) compact() error {
	packs, err := filepath.Glob(filepath.Join(c.dir, "objects", "pack", "*.pack"))
	if err != nil || len(packs) < maxPacks {
		return nil
	}
	c.dropRetired()
	c.lock.Close()
	c.retired, c.retiring = c.store, c.dir
	c.store = nil
	return c.create()
}

// deepen fetches more of the history before from.
func (c *clone) deepen(ctx context.Context, l *listing, from plumbing.Hash, round int) (bool, error) {
	depths := []int{32, 256}
	if l == nil || l.caps.list == nil {
		return false, nil
	}
	if l.caps.filter {
		depths = []int{64, 4096}
	}
	if round >= len(depths) || !l.caps.hasDepth || !(l.lists(from) || l.caps.anyWant) {
		return false, nil
	}
	a := ask{wants: []plumbing.Hash{l.wanting(from)}, depth: depths[round], commits: true}
	shallow, err := c.pull(ctx, l, a)
	return shallow || round == 0, err
}

// find looks for an abbreviated commit id among the listed tips, and then in the history of all of them.
func (c *clone) find(ctx context.Context, l *listing, prefix string) (plumbing.Hash, error) {
	if err := c.open(); err != nil {
		return plumbing.ZeroHash, err
	}
	if h, err := l.tipOf(prefix); err != nil || !h.IsZero() {
		return h, err
	}
	if _, err := c.pull(ctx, l, ask{wants: l.tips(), commits: true}); err != nil {
		return plumbing.ZeroHash, err
	}
	return c.store.abbreviated(prefix)
}

package render

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"unique"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Cache keeps the last result of one application by unit, so that only the units that read something that
// changed are rendered again. It is safe for concurrent use; renderings take turns.
type Cache struct {
	mu sync.Mutex
	// valid is false until a rendering succeeded; unsure is true after one that failed, since its changes are
	// not in the result.
	valid, unsure bool
	revision      string
	files         fs.FS // of that revision
	fingerprint   [sha256.Size]byte
	listing       listing
	parts         []part // one a unit of listing
	result        Result
	plain         bool // no object of result is written twice
	over          bool // some unit was too much: whether it still is depends on the others
	digests       map[string]digest
	known         bool // digests has exactly the paths that result was made from
}

// NewCache returns an empty cache.
func NewCache() *Cache { return &Cache{} }

// Stats say how much work a rendering was.
type Stats struct {
	// Units is how many units the path has, Rendered how many of them were rendered.
	Units, Rendered int
	// Same is true when the result is the very one that was returned before: the same slices.
	Same bool
}

// Render returns what With returns, rendering only what must be. changed are the paths that differ between
// the snapshot of the last call and req.Files, files that appeared and disappeared included; nil means that
// this is not known, and everything that was read is compared by content instead. Objects that were not
// rendered again keep the revision at which they were in their Origin.
//
// After an error the last result stays, and the next call compares by content.
func (c *Cache) Render(ctx context.Context, run Runner, req Request, changed []string) (Result, Stats, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fp := fingerprint(req)
	switch {
	case !c.valid || c.fingerprint != fp:
		return c.all(ctx, run, req, fp)
	case !c.unsure && c.revision == req.Revision && req.Revision != "":
		return c.same(req)
	case c.over:
		return c.all(ctx, run, req, fp)
	case c.unsure || changed == nil:
		changed = c.compare(req)
	}
	hit := c.around(req.Files, changed)
	if !c.touched(hit) {
		return c.same(req)
	}
	rec := newRecorder(req.Files)
	seen := req
	seen.Files = rec
	l := c.listing
	if c.listingChanged(req, hit) {
		var err error
		if l, err = list(seen); err != nil {
			c.unsure = true
			return Result{}, Stats{}, fmt.Errorf("read %s: %w", clean(req.Path), err)
		}
	}
	parts, again := c.keep(l, hit)
	old := make([]part, len(again))
	if len(l.units) == len(c.listing.units) {
		for i, at := range again {
			old[i] = c.parts[at]
		}
	}
	if err := c.render(ctx, run, seen, l.units, again, parts); err != nil {
		return Result{}, Stats{}, err
	}
	stats := Stats{Units: len(l.units), Rendered: len(again)}
	res, plain, ok := Result{}, false, false
	if slices.Equal(l.units, c.listing.units) && c.plain {
		res, ok = c.patch(l, parts, again, old)
		plain = ok
	}
	if !ok {
		res, plain = join(l, parts)
	}
	c.known = ok && sameSlice(res.Reads, c.result.Reads)
	c.listing, c.parts, c.result, c.plain = l, parts, res, plain
	c.remember(req, rec)
	return res, stats, nil
}

// all renders every unit.
func (c *Cache) all(ctx context.Context, run Runner, req Request, fp [sha256.Size]byte) (Result, Stats, error) {
	rec := newRecorder(req.Files)
	seen := req
	seen.Files = rec
	l, err := list(seen)
	if err != nil {
		c.unsure = true
		return Result{}, Stats{}, fmt.Errorf("read %s: %w", clean(req.Path), err)
	}
	parts := make([]part, len(l.units))
	every := make([]int, len(l.units))
	for i := range every {
		every[i] = i
	}
	if err := c.render(ctx, run, seen, l.units, every, parts); err != nil {
		return Result{}, Stats{}, err
	}
	res, plain := join(l, parts)
	c.valid, c.fingerprint = true, fp
	c.listing, c.parts, c.result, c.plain, c.digests, c.known = l, parts, res, plain, nil, false
	c.remember(req, rec)
	return res, Stats{Units: len(l.units), Rendered: len(l.units)}, nil
}

// render renders the units at the positions of again into parts.
func (c *Cache) render(ctx context.Context, run Runner, req Request, units []Unit, again []int, parts []part) error {
	todo := make([]Unit, len(again))
	for i, at := range again {
		todo[i] = units[at]
	}
	left := rest(parts)
	err := run.Run(ctx, req, todo, func(i int, r UnitResult) {
		p := restore(req, left.admit(todo[i], r))
		for j, s := range p.reads {
			p.reads[j] = unique.Make(s).Value() // units read the same bases
		}
		slices.Sort(p.reads)
		parts[again[i]] = p
	})
	c.over = left.over
	if err != nil {
		c.unsure = true
		return fmt.Errorf("render %s: %w", clean(req.Path), err)
	}
	return nil
}

// same returns the last result without any work.
func (c *Cache) same(req Request) (Result, Stats, error) {
	c.revision, c.files, c.unsure = req.Revision, req.Files, false
	return c.result, Stats{Units: len(c.parts), Same: true}, nil
}

// remember keeps what the result was made from.
func (c *Cache) remember(req Request, rec *recorder) {
	c.revision, c.files, c.unsure = req.Revision, req.Files, false
	if c.digests == nil {
		c.digests = make(map[string]digest, len(c.result.Reads))
	}
	for p, d := range rec.seen {
		if _, read := slices.BinarySearch(c.result.Reads, p); !read {
			continue
		}
		was, had := c.digests[p]
		if had && (d == unreadFile || d == unreadDir) && was != below && was != (digest{}) {
			continue // what was read before and did not change since; only its kind was asked now
		}
		c.digests[p] = d
	}
	if c.known {
		return
	}
	c.known = true
	for _, p := range c.result.Reads {
		if _, had := c.digests[p]; !had {
			// Whoever renders may know that a path is absent without asking.
			c.digests[p] = measure(req.Files, p, digest{})
		}
	}
	if len(c.digests) > len(c.result.Reads) {
		maps.DeleteFunc(c.digests, func(p string, _ digest) bool {
			_, read := slices.BinarySearch(c.result.Reads, p)
			return !read
		})
	}
}

// compare returns the paths that were read and are no longer what they were. It is never nil.
func (c *Cache) compare(req Request) []string {
	changed := []string{}
	for _, p := range c.result.Reads {
		if was, ok := c.digests[p]; !ok || measure(req.Files, p, was) != was {
			changed = append(changed, p)
		}
	}
	return changed
}

// around returns the paths, the directories that they are in, and what was read below them: a directory can have
// become a file. Where a file is still a file, neither the list of its directory nor what is below it is another.
func (c *Cache) around(files fs.FS, changed []string) map[string]bool {
	hit := make(map[string]bool, 2*len(changed))
	for _, p := range changed {
		p = clean(p)
		if regular(c.files, p) && regular(files, p) {
			hit[p] = true
			continue
		}
		at, _ := slices.BinarySearch(c.result.Reads, p+"/")
		for _, r := range c.result.Reads[at:] {
			if !strings.HasPrefix(r, p+"/") {
				break
			}
			hit[r] = true
		}
		for ; ; p = path.Dir(p) {
			hit[p] = true
			if p == "." {
				break
			}
		}
	}
	return hit
}

// regular reports whether a path is a file, and known to be no symbolic link.
func regular(files fs.FS, p string) bool {
	links, ok := files.(fs.ReadLinkFS)
	if !ok {
		return false
	}
	info, err := links.Lstat(p)
	return err == nil && info.Mode().IsRegular()
}

// touched reports whether anything that was read is among the paths.
func (c *Cache) touched(hit map[string]bool) bool {
	for p := range hit {
		if _, found := slices.BinarySearch(c.result.Reads, p); found {
			return true
		}
	}
	return false
}

// listingChanged reports whether the path may consist of other units than before.
func (c *Cache) listingChanged(req Request, hit map[string]bool) bool {
	for _, p := range c.listing.reads {
		if hit[p] {
			if was, ok := c.digests[p]; !ok || measure(req.Files, p, was) != was {
				return true
			}
		}
	}
	return false
}

// keep returns the parts of units that need not be rendered again, and the positions of the others.
func (c *Cache) keep(l listing, hit map[string]bool) (parts []part, again []int) {
	at := func(i int, u Unit) (int, bool) {
		if i < len(c.listing.units) && c.listing.units[i] == u {
			return i, true
		}
		return slices.BinarySearchFunc(c.listing.units, u, compareUnits)
	}
	parts = make([]part, len(l.units))
	for i, u := range l.units {
		if was, ok := at(i, u); ok && c.listing.units[was] == u && !c.parts[was].reading(hit) {
			parts[i] = c.parts[was]
		} else {
			again = append(again, i)
		}
	}
	return parts, again
}

// reading reports whether the part was made from any of the paths.
func (p part) reading(hit map[string]bool) bool {
	if len(hit) > len(p.reads)/4 {
		return slices.ContainsFunc(p.reads, func(r string) bool { return hit[r] })
	}
	for r := range hit {
		if _, found := slices.BinarySearch(p.reads, r); found {
			return true
		}
	}
	return false
}

// patch puts rendered parts into the last result, which has no object twice. It returns false when one is now.
func (c *Cache) patch(l listing, parts []part, again []int, old []part) (Result, bool) {
	var gone []object.Ref
	var fresh []object.Object
	sameReads := slices.Equal(l.reads, c.listing.reads)
	for i, at := range again {
		for _, o := range old[i].objects {
			gone = append(gone, o.Ref)
		}
		fresh = append(fresh, parts[at].objects...)
		sameReads = sameReads && slices.Equal(old[i].reads, parts[at].reads)
	}
	res := Result{Objects: object.Edit(c.result.Objects, nameOf, fresh, gone), Reads: c.result.Reads, Diags: append(diag.List(nil), l.diags...)}
	if len(res.Objects) != len(c.result.Objects)-len(gone)+len(fresh) {
		return Result{}, false
	}
	for _, p := range parts {
		res.Diags = append(res.Diags, p.diags...)
	}
	if !sameReads {
		res.Reads = allReads(l, parts)
	}
	return res, true
}

func nameOf(o *object.Object) object.Ref { return o.Ref }

// sameSlice reports whether two slices are the same elements in the same memory.
func sameSlice[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// fingerprint identifies everything but the files that a result follows from. Only its digest is kept, since
// keys and substitutions are secret.
func fingerprint(req Request) [sha256.Size]byte {
	b, err := json.Marshal(struct {
		Source, Path string
		Options      Options
		Keys         []string
	}{req.Source, clean(req.Path), req.Options, req.AgeKeys})
	if err != nil {
		// Only a RawMessage that is not JSON gets here; such options are reported by every rendering.
		b = fmt.Appendf(nil, "%#v", req.Options)
	}
	return sha256.Sum256(b)
}

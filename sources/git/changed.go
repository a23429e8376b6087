package git

import (
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/fairlead-dev/fairlead/sources"
)

// changed lists the paths that differ between the commit since and a tree. It compares the hashes of directories
// and looks into those that differ only. It is not known when the old commit is no longer here, or when what is
// shown of a tree has changed.
func changed(t *tree, since sources.Revision) ([]string, bool) {
	old := hashOf(string(since))
	if old.IsZero() {
		return nil, false
	}
	if old == t.commit {
		return nil, true
	}
	d := differ{t: t}
	if !t.objects.has(old) {
		return nil, false
	}
	c, err := t.objects.commit(old)
	if err != nil || !d.compare(t, "", c.tree, t.root) {
		return nil, false
	}
	paths := t.links.through(d.paths)
	slices.Sort(paths)
	return slices.Compact(paths), true
}

type differ struct {
	t      *tree
	paths  []string
	looked int // entries that were compared
}

// maxCompared bounds how many entries are compared: one tree can be in another many times over.
const maxCompared = 200_000

// compare adds what differs between two trees; prefix ends with a slash or is empty. It returns false when that
// cannot be known.
func (d *differ) compare(in *tree, prefix string, a, b plumbing.Hash) bool {
	if a == b {
		return true
	}
	old, now, ok := d.read(in, a, b)
	if !ok {
		return false
	}
	for len(old) > 0 || len(now) > 0 {
		if d.looked++; d.looked > maxCompared {
			return false
		}
		var was, is entry
		switch {
		case len(now) == 0 || len(old) > 0 && old[0].name < now[0].name:
			was, old = old[0], old[1:]
		case len(old) == 0 || now[0].name < old[0].name:
			is, now = now[0], now[1:]
		default:
			was, old, is, now = old[0], old[1:], now[0], now[1:]
		}
		if was.hash == is.hash && was.mode == is.mode {
			continue
		}
		if !d.entry(in, prefix, was, is) {
			return false
		}
	}
	return true
}

func (d *differ) read(in *tree, a, b plumbing.Hash) (old, now []entry, ok bool) {
	var err error
	if !a.IsZero() {
		if old, err = in.objects.tree(a); err != nil {
			return nil, nil, false
		}
	}
	if !b.IsZero() {
		if now, err = in.objects.tree(b); err != nil {
			return nil, nil, false
		}
	}
	return old, now, true
}

func (d *differ) entry(in *tree, prefix string, was, is entry) bool {
	name := is.name
	if name == "" {
		name = was.name
	}
	p := prefix + name
	if name == ignoreFile || p == ".gitmodules" && d.t.modules != nil {
		return false // what is shown may differ anywhere
	}
	isModule := was.mode&modeType == modeModule || is.mode&modeType == modeModule
	if isModule && d.t.modules != nil {
		return d.module(p, was, is)
	}
	var a, b plumbing.Hash
	if was.mode&modeType == modeTree {
		a = was.hash
	}
	if is.mode&modeType == modeTree {
		b = is.hash
	}
	if a.IsZero() != b.IsZero() || a.IsZero() {
		d.add(in, p, was, is)
	}
	return d.compare(in, p+"/", a, b)
}

// add notes a path unless it is hidden.
func (d *differ) add(in *tree, p string, was, is entry) {
	for _, e := range []entry{was, is} {
		if e.name == "" {
			continue
		}
		// A directory that is gone, or of which nothing is known, counts as shown.
		if shown, err := d.t.visible(p, e, in); err != nil || shown {
			d.paths = append(d.paths, p)
			return
		}
	}
}

// module compares a submodule at two commits.
func (d *differ) module(p string, was, is entry) bool {
	sub := d.t.module(p)
	if sub == nil || was.mode&modeType != modeModule || is.mode&modeType != modeModule || !sub.objects.has(was.hash) {
		return false
	}
	c, err := sub.objects.commit(was.hash)
	return err == nil && d.compare(sub, p+"/", c.tree, sub.root)
}

// through adds, for paths that were read through symbolic links, the paths by which they were read.
func (l *links) through(paths []string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range 8 { // links to links
		before := len(paths)
		have := map[string]bool{}
		for _, p := range paths {
			have[p] = true
		}
		for from, to := range l.to {
			for _, p := range paths[:before] {
				rest, below := strings.CutPrefix(p, to)
				if to == "." {
					rest, below = "/"+p, true
				}
				if below && (rest == "" || rest[0] == '/') && !have[from+rest] {
					have[from+rest] = true
					paths = append(paths, from+rest)
				}
			}
		}
		if len(paths) == before || len(paths) > 100_000 {
			break
		}
	}
	return paths
}

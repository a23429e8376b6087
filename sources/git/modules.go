package git

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/go-git/go-git/v5/config"
)

const (
	maxDepth   = 5   // of submodules in submodules
	maxModules = 100 // of one repository
)

// mount makes the files of a commit, with its submodules if they are read.
func (s *Source) mount(ctx context.Context, objects *store, id plumbing.Hash, c commit) (*tree, error) {
	t := &tree{objects: objects, commit: id, root: c.tree, committed: c.committed, links: s.links}
	for _, dir := range s.opt.Sparse {
		dir = path.Clean(strings.Trim(dir, "/"))
		if dir == "" || dir == "." {
			t.sparse = nil
			break
		}
		t.sparse = append(t.sparse, dir)
	}
	if _, err := objects.tree(c.tree); err != nil {
		return nil, err
	}
	if s.opt.Submodules {
		if err := s.mountModules(ctx, t); err != nil {
			return nil, err
		}
	}
	if s.depth > 0 {
		return t, nil // the repository that it is mounted in decides what is shown
	}
	var err error
	t.ignore, err = newIgnore(s.opt.Ignore, func(dir string) ([]byte, error) {
		return (&tree{objects: objects, root: c.tree, modules: t.modules, links: newLinks()}).ignoreFile(dir)
	})
	return t, err
}

// ignoreFile reads a directory's .sourceignore, nil when it has none.
func (t *tree) ignoreFile(dir string) ([]byte, error) {
	n, err := t.find("open", path.Join(dir, ignoreFile), false)
	if err != nil || n.mode&modeType == modeTree || n.mode&modeType == modeLink {
		if isAbsent(err) {
			err = nil
		}
		return nil, err
	}
	return n.t.objects.blob(n.hash)
}

func isAbsent(err error) bool {
	var e *fs.PathError
	return errors.As(err, &e) && (errors.Is(e.Err, fs.ErrNotExist) || errors.Is(e.Err, fs.ErrInvalid))
}

// mountModules fetches the submodules of a tree and mounts them.
func (s *Source) mountModules(ctx context.Context, t *tree) error {
	t.modules = map[string]*tree{}
	n, err := t.find("open", ".gitmodules", false)
	if err != nil {
		if isAbsent(err) {
			return nil
		}
		return err
	}
	data, err := n.t.objects.blob(n.hash)
	if err != nil {
		return err
	}
	list := config.NewModules()
	if err := list.Unmarshal(data); err != nil {
		return fmt.Errorf("read .gitmodules: %w", err)
	}
	if len(list.Submodules) > maxModules {
		return fmt.Errorf("the repository has %d submodules, more than %d", len(list.Submodules), maxModules)
	}
	if s.depth >= maxDepth && len(list.Submodules) > 0 {
		return fmt.Errorf("submodules are nested more than %d deep", maxDepth)
	}
	for _, m := range list.Submodules {
		p := path.Clean(m.Path)
		at, err := t.gitlink(p)
		if err != nil {
			return err
		}
		if at.IsZero() || !t.inSparse(p, true) {
			continue // recorded in .gitmodules only, or not shown
		}
		sub, err := s.module(ctx, m.URL, p, at)
		if err != nil {
			return fmt.Errorf("submodule %s: %w", p, err)
		}
		t.modules[p] = sub
	}
	return nil
}

// gitlink returns the commit that is recorded at a path; zero when there is none.
func (t *tree) gitlink(p string) (plumbing.Hash, error) {
	if !fs.ValidPath(p) || p == "." {
		return plumbing.ZeroHash, nil
	}
	hash := t.root
	parts := strings.Split(p, "/")
	for i, part := range parts {
		list, err := t.objects.tree(hash)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		e, ok := lookup(list, part)
		switch {
		case ok && i == len(parts)-1 && e.mode&modeType == modeModule:
			return e.hash, nil
		case ok && e.mode&modeType == modeTree:
			hash = e.hash
		default:
			return plumbing.ZeroHash, nil
		}
	}
	return plumbing.ZeroHash, nil
}

// module returns the files of a submodule. Credentials are used again for the same host only.
func (s *Source) module(ctx context.Context, rawURL, p string, at plumbing.Hash) (*tree, error) {
	where, err := s.at.join(rawURL)
	if err != nil {
		return nil, err
	}
	if where.scheme == "file" && s.at.scheme != "file" {
		return nil, fmt.Errorf("its URL %q names a path of this machine, which a remote repository may not", Redact(rawURL))
	}
	m := s.modules[where.shown()]
	if m == nil {
		o := Options{Name: s.opt.Name + "/" + p, URL: where.url(), Commit: at.String(), Submodules: true}
		if s.at.sameHost(where) {
			o.Auth = s.opt.Auth
		} else {
			o.Auth.CA, o.Auth.KnownHosts = s.opt.Auth.CA, s.opt.Auth.KnownHosts
			o.Auth.Username, o.Auth.Password = where.user, where.password
		}
		if s.opt.Dir != "" {
			sum := sha256.Sum256([]byte(where.shown()))
			o.Dir = filepath.Join(s.opt.Dir, "modules", hex.EncodeToString(sum[:8]))
		}
		if m, err = New(o); err != nil {
			return nil, err
		}
		m.depth = s.depth + 1
		s.modules[where.shown()] = m
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-m.turn:
		m.opt.Commit, m.pinned = at.String(), at
		m.turn <- struct{}{}
	}
	snapshot, err := m.Fetch(ctx, "")
	if err != nil {
		return nil, err
	}
	return snapshot.Files.(*tree), nil
}

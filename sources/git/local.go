package git

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// localRepository reads a repository on this machine where it is, without copying or writing anything.
type localRepository struct {
	path string

	gitDir string // of this work tree: HEAD
	common string // of all work trees: references and objects
	store  *store
	peeled map[plumbing.Hash]plumbing.Hash
}

func (r *localRepository) open() error {
	if r.store != nil {
		if _, err := os.Stat(filepath.Join(r.gitDir, "HEAD")); err == nil {
			return nil
		}
		_ = r.reset() // what was opened before was only read
	}
	if _, err := os.Stat(r.path); err != nil && isMissing(r.path+".git") {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: there is no such directory: check the path", ErrNotFound)
		}
		return fmt.Errorf("open repository: %w", err)
	}
	gitDir, err := gitDirOf(r.path)
	if err != nil {
		return err
	}
	common := gitDir
	if data, err := os.ReadFile(filepath.Join(gitDir, "commondir")); err == nil {
		if common = strings.TrimSpace(string(data)); !filepath.IsAbs(common) {
			common = filepath.Join(gitDir, common)
		}
	}
	if err := checkFormat(filepath.Join(common, "config")); err != nil {
		return err
	}
	r.gitDir, r.common, r.store = gitDir, common, openStore(common)
	return nil
}

// gitDirOf finds the Git directory of a bare repository, a work tree, or a linked work tree.
func gitDirOf(path string) (string, error) {
	isGitDir := func(dir string) bool {
		_, head := os.Lstat(filepath.Join(dir, "HEAD"))
		_, objects := os.Stat(filepath.Join(dir, "objects"))
		_, common := os.Stat(filepath.Join(dir, "commondir"))
		return head == nil && (objects == nil || common == nil)
	}
	dot := filepath.Join(path, ".git")
	if data, err := os.ReadFile(dot); err == nil {
		to, ok := strings.CutPrefix(strings.TrimSpace(string(data)), "gitdir: ")
		if !ok {
			return "", fmt.Errorf("%w: %s is not what Git writes", ErrNotFound, dot)
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(path, to)
		}
		if isGitDir(to) {
			return to, nil
		}
		return "", fmt.Errorf("%w: %s points to %s, which is no repository", ErrNotFound, dot, to)
	}
	for _, dir := range []string{dot, path, path + ".git"} {
		if isGitDir(dir) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("%w: the directory holds no Git repository: give the root of one, or make one with git init", ErrNotFound)
}

func isMissing(file string) bool {
	_, err := os.Lstat(file)
	return err != nil
}

// checkFormat refuses forms of repositories that would be read wrongly.
func checkFormat(config string) error {
	data, err := os.ReadFile(config)
	if err != nil {
		return nil // a repository needs none
	}
	section := ""
	lines := bufio.NewScanner(strings.NewReader(string(data)))
	for lines.Scan() {
		line := strings.ToLower(strings.TrimSpace(lines.Text()))
		if strings.HasPrefix(line, "[") {
			section = line
			continue
		}
		key, value, _ := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch {
		case section != "[extensions]":
		case key == "objectformat" && value != "sha1":
			return fmt.Errorf("the repository's object format %s is not read: use one with sha1", value)
		case key == "refstorage" && value != "files":
			return fmt.Errorf("the repository keeps its references as %s, which is not read: convert it with git refs migrate --ref-format=files, or serve it over https or ssh", value)
		}
	}
	return nil
}

func (r *localRepository) list(ctx context.Context, names []string) (*listing, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := r.open(); err != nil {
		return nil, err
	}
	l := &listing{refs: map[string]plumbing.Hash{}, peeled: map[string]plumbing.Hash{}}
	packed, err := packedRefs(filepath.Join(r.common, "packed-refs"))
	if err != nil {
		return nil, err
	}
	// A reference that is being packed is either in its file or, if that is gone, in the packed ones read after.
	lookup := func(name string) (string, plumbing.Hash, error) {
		final, h, err := r.reference(name, packed)
		if err == nil && h.IsZero() {
			if packed, err = packedRefs(filepath.Join(r.common, "packed-refs")); err == nil {
				final, h, err = r.reference(name, packed)
			}
		}
		return final, h, err
	}
	l.partial = names != nil
	if names == nil {
		names = []string{"HEAD"}
		for name := range packed {
			names = append(names, name)
		}
		names = append(names, r.loose()...)
	}
	for _, name := range names {
		final, h, err := lookup(name)
		if err != nil {
			return nil, err
		}
		if name == "HEAD" && final != "HEAD" {
			l.head = final
		}
		if h.IsZero() {
			continue
		}
		l.refs[name] = h
		if name == "HEAD" {
			l.refs[final] = h
		}
		if strings.HasPrefix(name, "refs/tags/") || len(names) == 1 {
			if p := r.peel(h); p != h {
				l.peeled[name] = p
			}
		}
	}
	return l, nil
}

// peel returns what an annotated tag points to. It is kept, so that listing many tags again reads nothing.
func (r *localRepository) peel(h plumbing.Hash) plumbing.Hash {
	p, ok := r.peeled[h]
	if !ok {
		var err error
		if p, err = r.store.peel(h); err != nil {
			return h
		}
		if r.peeled == nil || len(r.peeled) > 10_000 {
			r.peeled = map[plumbing.Hash]plumbing.Hash{}
		}
		r.peeled[h] = p
	}
	return p
}

// reference follows a reference to the last symbolic one and its value; zero when it does not exist.
func (r *localRepository) reference(name string, packed map[string]plumbing.Hash) (string, plumbing.Hash, error) {
	for range 8 {
		dir := r.common
		if !strings.HasPrefix(name, "refs/") || strings.HasPrefix(name, "refs/worktree/") || strings.HasPrefix(name, "refs/bisect/") {
			dir = r.gitDir
		}
		file := filepath.Join(dir, filepath.FromSlash(name))
		data, err := os.ReadFile(file)
		if err != nil {
			return name, packed[name], nil
		}
		value := strings.TrimSpace(string(data))
		to, symbolic := strings.CutPrefix(value, "ref:")
		if !symbolic {
			if h := hashOf(value); !h.IsZero() {
				return name, h, nil
			}
			return name, plumbing.ZeroHash, fmt.Errorf("the file of the reference %s is damaged (%d bytes): repair the repository, for example with git update-ref", name, len(data))
		}
		to = strings.TrimSpace(to)
		if badName.MatchString(to) {
			return name, plumbing.ZeroHash, fmt.Errorf("the reference %s points to %q, which cannot be", name, to)
		}
		name = to
	}
	return name, plumbing.ZeroHash, fmt.Errorf("the reference %s leads in a circle", name)
}

// loose are the names of the references that have files of their own.
func (r *localRepository) loose() []string {
	var names []string
	root := filepath.Join(r.common, "refs")
	_ = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // it may vanish at any time
		}
		if rel, err := filepath.Rel(r.common, p); err == nil && !strings.HasSuffix(p, ".lock") {
			names = append(names, filepath.ToSlash(rel))
		}
		return nil
	})
	return names
}

func packedRefs(file string) (map[string]plumbing.Hash, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, fmt.Errorf("read packed references: %w", err)
	}
	refs := map[string]plumbing.Hash{}
	for line := range strings.Lines(string(data)) {
		if id, name, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			if h := hashOf(id); !h.IsZero() {
				refs[name] = h
			}
		}
	}
	return refs, nil
}

func (r *localRepository) has(h plumbing.Hash) bool { return r.open() == nil && r.store.has(h) }

func (r *localRepository) obtain(_ context.Context, sel selection, _ *listing) error {
	if err := r.open(); err != nil {
		return err
	}
	if _, err := r.store.commit(sel.commit); err != nil {
		return fmt.Errorf("%w: the repository has no commit %s: fetch it there, or check the reference", ErrNoCommit, sel.commit)
	}
	return nil
}

func (r *localRepository) deepen(context.Context, *listing, plumbing.Hash, int) (bool, error) {
	return false, nil
}

func (r *localRepository) find(_ context.Context, l *listing, prefix string) (plumbing.Hash, error) {
	if h, err := l.tipOf(prefix); err != nil || !h.IsZero() {
		return h, err
	}
	return r.store.abbreviated(prefix)
}

func (r *localRepository) objects() *store { return r.store }
func (r *localRepository) broken() bool    { return false }

// reset opens the repository anew; what is damaged in it is its owner's to repair.
// Snapshots go on reading through what was open.
func (r *localRepository) reset() error {
	r.store = nil
	return nil
}

func (r *localRepository) close() error {
	if r.store == nil {
		return nil
	}
	err := r.store.close()
	r.store = nil
	return err
}

package git

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/fairlead-dev/fairlead/sources"
	"github.com/fairlead-dev/fairlead/sources/local"
)

var _ sources.Watcher = (*Source)(nil)

// Watch calls wake when references of a repository on this machine change. For others, which have to be asked,
// it waits for ctx to end.
func (s *Source) Watch(ctx context.Context, wake func()) error {
	if s.at.scheme != "file" {
		<-ctx.Done()
		return ctx.Err()
	}
	r := localRepository{path: s.at.path}
	if err := r.open(); err != nil {
		return s.explain(ctx, err)
	}
	defer func() { _ = r.close() }() // it was only read
	dirs := []string{r.common}
	if r.gitDir != r.common {
		dirs = append(dirs, r.gitDir)
	}
	return local.WatchDirs(ctx, dirs, func(name string) bool {
		for _, dir := range dirs {
			if rel, err := filepath.Rel(dir, name); err == nil && filepath.IsLocal(rel) {
				return !holdsReferences(filepath.ToSlash(rel))
			}
		}
		return true
	}, wake)
}

// holdsReferences reports whether a path in a Git directory says what references point to.
func holdsReferences(rel string) bool {
	if strings.HasSuffix(rel, ".lock") {
		return false
	}
	return rel == "." || rel == "HEAD" || rel == "packed-refs" || rel == "refs" || strings.HasPrefix(rel, "refs/")
}

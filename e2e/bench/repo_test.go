package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// repo is a bare repository, which fairlead reads, and a work tree from which commits come.
type repo struct{ bare, tree string }

func newRepo(b *testing.B) *repo {
	b.Helper()
	dir := b.TempDir()
	r := &repo{bare: filepath.Join(dir, "config.git"), tree: filepath.Join(dir, "tree")}
	git(b, dir, "init", "-q", "--bare", "-b", "main", r.bare)
	git(b, dir, "clone", "-q", r.bare, r.tree)
	r.write(b, "apps/kept.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\ndata: {a: b}\n")
	return r
}

// write writes a file of the work tree.
func (r *repo) write(b *testing.B, name, content string) {
	b.Helper()
	file := filepath.Join(r.tree, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		b.Fatal(err)
	}
}

// remove removes files of the work tree.
func (r *repo) remove(b *testing.B, pattern string) {
	b.Helper()
	files, err := filepath.Glob(filepath.Join(r.tree, pattern))
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range files {
		if err := os.RemoveAll(f); err != nil {
			b.Fatal(err)
		}
	}
}

// commit brings a commit of everything to the bare repository, beside the branch, and returns it.
func (r *repo) commit(b *testing.B, message string) string {
	b.Helper()
	git(b, r.tree, "add", "-A")
	git(b, r.tree, "-c", "user.name=Jane", "-c", "user.email=jane@example.org", "commit", "-q", "-m", message)
	id := git(b, r.tree, "rev-parse", "HEAD")
	git(b, r.tree, "push", "-q", "origin", "+HEAD:refs/staged/next")
	return id
}

// release moves the branch to a commit that is there, the last thing that a push does, and returns when it began.
func (r *repo) release(b *testing.B, commit string) time.Time {
	b.Helper()
	began := time.Now()
	git(b, r.bare, "update-ref", "refs/heads/main", commit)
	return began
}

// push is commit and release.
func (r *repo) push(b *testing.B, message string) string {
	b.Helper()
	id := r.commit(b, message)
	r.release(b, id)
	return id
}

func git(b *testing.B, dir string, args ...string) string {
	b.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatal(fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, out))
	}
	return strings.TrimSpace(string(out))
}

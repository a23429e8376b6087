package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fairlead-dev/fairlead/sources"
)

// write makes files; content "-" removes.
func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		p := filepath.Join(dir, name)
		if files[name] == "-" {
			if err := os.RemoveAll(p); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(files[name]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func open(t testing.TB, dir string) *Source {
	t.Helper()
	s, err := New(Options{Name: "here", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func fetch(t testing.TB, s *Source, have sources.Revision) sources.Snapshot {
	t.Helper()
	snapshot, err := s.Fetch(t.Context(), have)
	if err != nil {
		t.Fatal(err)
	}
	return snapshot
}

func contentsOf(t testing.TB, files fs.FS) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := fs.WalkDir(files, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(files, p)
		all[p] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestFetch(t *testing.T) {
	dir := t.TempDir()
	want := map[string]string{"a.yaml": "1", "dir/b.yaml": "1"}
	write(t, dir, want)
	write(t, dir, map[string]string{".git/HEAD": "x", "dir/.git": "gitdir: x"})
	s := open(t, dir)
	first := fetch(t, s, "")
	if first.Source != "here" || first.History != sources.First || len(first.Revision) != 64 {
		t.Errorf("snapshot %+v", first)
	}
	if d := cmp.Diff(want, contentsOf(t, first.Files)); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
	if err := fstest.TestFS(first.Files, "a.yaml", "dir/b.yaml"); err != nil {
		t.Error(err)
	}
	if _, err := s.Fetch(t.Context(), first.Revision); !errors.Is(err, sources.ErrUnchanged) {
		t.Errorf("unchanged: %v", err)
	}
	write(t, dir, map[string]string{"a.yaml": "2", "dir/c/d.yaml": "1", "dir/b.yaml": "-"})
	second := fetch(t, s, first.Revision)
	paths, known := second.Changed(first.Revision)
	if d := cmp.Diff([]string{"a.yaml", "dir/b.yaml", "dir/c", "dir/c/d.yaml"}, paths); d != "" || !known {
		t.Errorf("changed (%v, -want +got):\n%s", known, d)
	}
	if d := cmp.Diff(want, contentsOf(t, first.Files)); d != "" {
		t.Errorf("the first snapshot is not what it was (-want +got):\n%s", d)
	}
	// Back to what it was is the same revision, in another place too.
	write(t, dir, map[string]string{"a.yaml": "1", "dir/c": "-", "dir/b.yaml": "1"})
	if again := fetch(t, s, second.Revision); again.Revision != first.Revision {
		t.Error("the same content has another revision")
	}
	other := t.TempDir()
	write(t, other, want)
	if got := fetch(t, open(t, other), ""); got.Revision != first.Revision {
		t.Error("the same content in another directory has another revision")
	}
	if _, known := second.Changed("never"); known {
		t.Error("changes since a revision that never was are known")
	}
}

func TestEveryDifferenceIsARevision(t *testing.T) {
	seen := map[sources.Revision]string{}
	for name, change := range map[string]func(dir string){
		"base":      func(string) {},
		"content":   func(dir string) { write(t, dir, map[string]string{"a": "2"}) },
		"name":      func(dir string) { os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")) },
		"mode":      func(dir string) { os.Chmod(filepath.Join(dir, "a"), 0o755) },
		"empty dir": func(dir string) { os.Mkdir(filepath.Join(dir, "d"), 0o755) },
		"link":      func(dir string) { os.Symlink("a", filepath.Join(dir, "l")) },
		"file":      func(dir string) { write(t, dir, map[string]string{"l": "a"}) },
	} {
		dir := t.TempDir()
		write(t, dir, map[string]string{"a": "1"})
		change(dir)
		r := fetch(t, open(t, dir), "").Revision
		if other, ok := seen[r]; ok {
			t.Errorf("%s and %s have one revision", name, other)
		}
		seen[r] = name
	}
}

// A file may change without its size and time telling so.
func TestSameSizeAndTime(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "one"})
	s := open(t, dir)
	first := fetch(t, s, "")
	info, err := os.Stat(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{"a": "two"})
	if err := os.Chtimes(filepath.Join(dir, "a"), info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if got := contentsOf(t, fetch(t, s, first.Revision).Files); got["a"] != "two" {
		t.Errorf("content %q", got["a"])
	}
}

// Files that were left alone are not read again.
func TestCache(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "one"})
	future := time.Now().Add(time.Hour)
	look := func(last *contents, now time.Time) (*contents, *file) {
		t.Helper()
		c, err := scan(t.Context(), dir, last, everything(), now)
		if err != nil {
			t.Fatal(err)
		}
		a, _ := c.root.get("a")
		return c, a.file
	}
	c, first := look(nil, future)
	if _, again := look(c, future); again != first {
		t.Error("a file that did not change was read again")
	}
	c, racy := look(nil, time.Now())
	later, again := look(c, future)
	if again == racy {
		t.Error("a file that was changed a moment before it was read was trusted")
	}
	if _, settled := look(later, future); settled != again {
		t.Error("a file that was left alone since was read again")
	}
}

// TestWhatIsDirtyIsReadAgain edits a directory at random and tells of it as the watch does: what is then taken over from
// before and read again is what a fresh look sees.
func TestWhatIsDirtyIsReadAgain(t *testing.T) {
	paths := []string{"a", "b", "d/a", "d/b", "d/e/a", "f/a", "f/g/h/a", "d/e", "f/g"}
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		s, err := New(Options{Name: "s", Dir: dir})
		if err != nil {
			rt.Fatal(err)
		}
		s.set(everything())
		have := sources.Revision("")
		for step := range rapid.IntRange(1, 6).Draw(rt, "steps") {
			for range rapid.IntRange(0, 3).Draw(rt, "edits") {
				name := rapid.SampledFrom(paths).Draw(rt, "path")
				at := filepath.Join(dir, name)
				if rapid.Bool().Draw(rt, "remove") {
					if os.RemoveAll(at) == nil {
						s.touched(dir, at, true)
					}
					continue
				}
				for made := filepath.Dir(at); made != dir; made = filepath.Dir(made) {
					if info, err := os.Lstat(made); err != nil || !info.IsDir() {
						s.touched(dir, made, true)
					}
				}
				// What is in the way of a directory goes; a directory in the way of a file stays.
				for _, above := range []string{"d", "d/e", "f", "f/g", "f/g/h"} {
					if info, err := os.Lstat(filepath.Join(dir, above)); strings.HasPrefix(name, above+"/") && err == nil && !info.IsDir() {
						_ = os.Remove(filepath.Join(dir, above))
					}
				}
				_, missing := os.Lstat(at)
				if os.MkdirAll(filepath.Dir(at), 0o755) == nil && os.WriteFile(at, fmt.Append(nil, step, rapid.IntRange(0, 1).Draw(rt, "content")), 0o644) == nil {
					s.touched(dir, at, missing != nil)
				}
			}
			fresh, err := scan(t.Context(), dir, nil, everything(), time.Now())
			if err != nil {
				rt.Fatal(err)
			}
			got, err := s.Fetch(t.Context(), have)
			if fresh.revision == have && errors.Is(err, sources.ErrUnchanged) {
				continue
			}
			if err != nil || got.Revision != fresh.revision {
				rt.Fatalf("step %d: revision %s (%v), a fresh look sees %s", step, got.Revision, err, fresh.revision)
			}
			if have != "" {
				// What is said to have changed is what differs.
				changed, known := got.Changed(have)
				old := s.old[len(s.old)-2]
				if want := differing(old, got.Files); !known || !slices.Equal(changed, want) {
					rt.Fatalf("step %d: changed %q (known: %t), want %q", step, changed, known, want)
				}
			}
			have = got.Revision
		}
	})
}

// A link to a directory is set to another one while the first is watched.
func TestALinkToAnotherDirectoryIsReadAsAWhole(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"one/a": "1", "one/d/b": "1", "two/a": "1", "two/d/b": "2"})
	link := filepath.Join(dir, "link")
	if err := os.Symlink("one", link); err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Name: "s", Dir: link})
	if err != nil {
		t.Fatal(err)
	}
	s.set(everything())
	first := fetch(t, s, "")
	if err := errors.Join(os.Remove(link), os.Symlink("two", link)); err != nil {
		t.Fatal(err)
	}
	s.touched(filepath.Join(dir, "one"), filepath.Join(dir, "one", "a"), false)
	want := map[string]string{"a": "1", "d/b": "2"}
	if d := cmp.Diff(want, contentsOf(t, fetch(t, s, first.Revision).Files)); d != "" {
		t.Error(d)
	}
}

// differing compares two file systems path by path.
func differing(a, b fs.FS) []string {
	all := func(files fs.FS) map[string]string {
		out := map[string]string{}
		_ = fs.WalkDir(files, ".", func(at string, d fs.DirEntry, _ error) error {
			out[at] = "directory"
			if !d.IsDir() {
				data, err := fs.ReadFile(files, at)
				out[at] = fmt.Sprint("file ", string(data), err)
			}
			return nil
		})
		return out
	}
	was, is := all(a), all(b)
	var out []string
	for p, s := range was {
		if is[p] != s {
			out = append(out, p)
		}
	}
	for p := range is {
		if _, had := was[p]; !had {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

func TestLinksAndOddFiles(t *testing.T) {
	dir := t.TempDir()
	outside := t.TempDir()
	write(t, outside, map[string]string{"secret": "x"})
	write(t, dir, map[string]string{"dir/a": "1"})
	for name, to := range map[string]string{"link": "dir/a", "sub/link": "../dir", "out": filepath.Join(outside, "secret"), "up": "../" + filepath.Base(outside) + "/secret", "loop": "loop", "none": "missing"} {
		os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755)
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	got := fetch(t, s, "")
	for _, name := range []string{"link", "sub/link/a"} {
		if data, err := fs.ReadFile(got.Files, name); string(data) != "1" {
			t.Errorf("%s: %q %v", name, data, err)
		}
	}
	for name, want := range map[string]error{"out": fs.ErrInvalid, "up": fs.ErrInvalid, "loop": fs.ErrInvalid, "none": fs.ErrNotExist, "pipe": fs.ErrNotExist, "../x": fs.ErrInvalid} {
		if _, err := fs.ReadFile(got.Files, name); !errors.Is(err, want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"file": "x"})
	for name, tt := range map[string]struct{ dir, words string }{
		"missing": {filepath.Join(dir, "missing"), "check the path"},
		"file":    {filepath.Join(dir, "file"), "not a directory"},
	} {
		if _, err := open(t, tt.dir).Fetch(t.Context(), ""); err == nil || !strings.Contains(err.Error(), tt.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
	big, err := os.Create(filepath.Join(dir, "big"))
	if err != nil {
		t.Fatal(err)
	}
	defer big.Close()
	if err := big.Truncate(MaxBytes + 1); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	if _, err := s.Fetch(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "64 MiB") || !strings.Contains(err.Error(), "big") {
		t.Errorf("too large: %v", err)
	}
	if err := os.Remove(big.Name()); err != nil {
		t.Fatal(err)
	}
	fetch(t, s, "") // it may be called again
	if _, err := New(Options{}); err == nil {
		t.Error("no directory is taken")
	}
}

func TestWatch(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "0", ".git/index": "0"})
	s := open(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	woken, ended := make(chan struct{}, 1000), make(chan error, 1)
	go func() { ended <- s.Watch(ctx, func() { woken <- struct{}{} }) }()
	<-woken
	have := fetch(t, s, "").Revision
	for i, change := range []func(){
		func() { write(t, dir, map[string]string{"a": "1"}) },
		func() { write(t, dir, map[string]string{"new/deep/er/f": "1"}) },
		func() { write(t, dir, map[string]string{"new/deep/er/f": "2"}) },
		func() { // as editors save
			write(t, dir, map[string]string{".a.swp": "2"})
			if err := os.Rename(filepath.Join(dir, ".a.swp"), filepath.Join(dir, "a")); err != nil {
				t.Fatal(err)
			}
		},
		func() { write(t, dir, map[string]string{"new": "-"}) },
		func() { os.Chmod(filepath.Join(dir, "a"), 0o755) },
	} {
		change()
		for {
			<-woken
			got, err := s.Fetch(t.Context(), have)
			if errors.Is(err, sources.ErrUnchanged) {
				continue
			}
			if err != nil {
				t.Fatalf("change %d: %v", i, err)
			}
			have = got.Revision
			break
		}
	}
	// Somebody who never stops writing does not put a wake off for ever.
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				os.WriteFile(filepath.Join(dir, "busy"), fmt.Append(nil, i), 0o644)
			}
		}
	}()
	<-woken
	<-woken
	close(stop)
	<-stopped
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch: %v", err)
	}
}

func TestWatchEndsWithTheDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	write(t, dir, map[string]string{"a": "0"})
	s := open(t, dir)
	woken, ended := make(chan struct{}, 1000), make(chan error, 1)
	go func() { ended <- s.Watch(t.Context(), func() { woken <- struct{}{} }) }()
	<-woken
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("Watch: %v", err)
	}
}

func TestPoll(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for real time")
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "0"})
	s := open(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	woken, ended := make(chan struct{}, 10), make(chan error, 1)
	before := fingerprint(dir)
	go func() { ended <- s.poll(ctx, func() { woken <- struct{}{} }) }()
	// The change must come after the first look, which the goroutine takes at some time: go on until it is seen.
	for i := 0; ; i++ {
		write(t, dir, map[string]string{"a": fmt.Sprint(i)})
		if fingerprint(dir) == before {
			t.Fatal("a change has the same fingerprint")
		}
		select {
		case <-woken:
			cancel()
			<-ended
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func TestExhausted(t *testing.T) {
	for err, want := range map[error]bool{
		fmt.Errorf("watch: %w", syscall.ENOSPC): true, syscall.EMFILE: true, errors.New("x"): false, context.Canceled: false,
	} {
		if exhausted(err) != want {
			t.Errorf("exhausted(%v) is %v", err, !want)
		}
	}
}

func BenchmarkFetchUnchanged(b *testing.B) {
	dir := b.TempDir()
	files := map[string]string{}
	for i := range 10_000 {
		files[fmt.Sprintf("d%d/f%d.yaml", i%100, i)] = fmt.Sprintf("kind: ConfigMap\nname: n%d\n", i)
	}
	write(b, dir, files)
	old := time.Now().Add(-time.Hour)
	for name := range files {
		os.Chtimes(filepath.Join(dir, name), old, old)
	}
	s := open(b, dir)
	have := fetch(b, s, "").Revision
	for b.Loop() {
		if _, err := s.Fetch(b.Context(), have); !errors.Is(err, sources.ErrUnchanged) {
			b.Fatal(err)
		}
	}
}

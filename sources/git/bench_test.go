package git

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/fairlead-dev/fairlead/sources"
)

// large is a repository of 10,000 files in 200 directories.
func large(b *testing.B) *repo {
	r := newRepo(b)
	files := map[string]string{}
	for i := range 10_000 {
		files[fmt.Sprintf("team-%d/app-%d/object-%d.yaml", i%10, i%200, i)] = fmt.Sprintf("kind: ConfigMap\nmetadata: {name: n%d}\n", i)
	}
	r.commit("all", files)
	return r
}

func ways(b *testing.B, bench func(b *testing.B, r *repo, o Options)) {
	b.Run("file", func(b *testing.B) { r := large(b); bench(b, r, Options{URL: r.dir}) })
	b.Run("http", func(b *testing.B) { r := large(b); bench(b, r, Options{URL: serveHTTP(b, r, nil).URL}) })
}

func BenchmarkUnchanged(b *testing.B) {
	ways(b, func(b *testing.B, _ *repo, o Options) {
		s := open(b, o)
		have := fetch(b, s, "").Revision
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Fetch(b.Context(), have); !errors.Is(err, sources.ErrUnchanged) {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkOneCommit is a fetch of a commit that changes one of 10,000 files, and the paths that changed.
func BenchmarkOneCommit(b *testing.B) {
	ways(b, func(b *testing.B, r *repo, o Options) {
		s := open(b, o)
		have := fetch(b, s, "")
		n := 0
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			n++
			r.write(map[string]string{"team-1/app-1/object-1.yaml": fmt.Sprint(n)})
			r.git("commit", "-q", "-a", "-m", "one")
			b.StartTimer()
			now := fetch(b, s, have.Revision)
			if paths, ok := now.Changed(have.Revision); len(paths) != 1 || !ok {
				b.Fatalf("changed %v", paths)
			}
			have = now
		}
	})
}

func BenchmarkChanged(b *testing.B) {
	r := large(b)
	s := open(b, Options{URL: r.dir})
	before := fetch(b, s, "")
	r.commit("one", map[string]string{"team-1/app-1/object-1.yaml": "x"})
	now := fetch(b, s, before.Revision)
	for b.Loop() {
		if paths, ok := now.Changed(before.Revision); len(paths) != 1 || !ok {
			b.Fatalf("changed %v", paths)
		}
	}
}

// BenchmarkReadAll lists and reads all of 10,000 files.
func BenchmarkReadAll(b *testing.B) {
	ways(b, func(b *testing.B, _ *repo, o Options) {
		got := fetch(b, open(b, o), "")
		for b.Loop() {
			err := fs.WalkDir(got.Files, ".", func(p string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				_, err = fs.ReadFile(got.Files, p)
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

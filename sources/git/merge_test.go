package git

import (
	"fmt"
	"io/fs"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// merged merges and returns the files of the result.
func merged(t *testing.T, s *Source, base, head string) (Merge, map[string]string) {
	t.Helper()
	m, err := s.Merge(t.Context(), base, head)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	err = fs.WalkDir(m.Result.Files, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(m.Result.Files, p)
		out[p] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m, out
}

func lines(n int, change map[int]string) string {
	var b strings.Builder
	for i := range n {
		if c, ok := change[i]; ok {
			b.WriteString(c)
		} else {
			fmt.Fprintf(&b, "line %d\n", i)
		}
	}
	return b.String()
}

// TestMerge holds merges of branches that parted, over https from a shallow clone and from a directory.
func TestMerge(t *testing.T) {
	r := newRepo(t)
	r.commit("start", map[string]string{
		"both.txt": lines(20, nil), "clash.txt": lines(5, nil), "theirs.txt": "1\n", "ours.txt": "1\n",
		"gone.txt": "x\n", "gone-and-changed.txt": "x\n", "dir/a.txt": "a\n", "dir/b.txt": "b\n",
	})
	for i := range 40 { // more history than is fetched at first
		r.commit(fmt.Sprint("more ", i), map[string]string{"count.txt": fmt.Sprint(i)})
	}
	r.git("checkout", "-q", "-b", "feature")
	r.commit("theirs", map[string]string{
		"both.txt": lines(20, map[int]string{3: "theirs\n"}), "clash.txt": lines(5, map[int]string{2: "theirs\n"}), "theirs.txt": "2\n",
		"gone.txt": "-", "gone-and-changed.txt": "-", "dir/a.txt": "a2\n", "new/theirs.txt": "n\n",
	})
	r.git("checkout", "-q", "main")
	r.commit("ours", map[string]string{
		"both.txt": lines(20, map[int]string{15: "ours\nand more\n"}), "clash.txt": lines(5, map[int]string{2: "ours\n"}), "ours.txt": "2\n",
		"gone-and-changed.txt": "y\n", "dir/b.txt": "b2\n", "new/ours.txt": "n\n",
	})
	server := serveHTTP(t, r, nil)
	for name, url := range map[string]string{"https": server.URL, "file": "file://" + r.dir} {
		t.Run(name, func(t *testing.T) {
			s := open(t, Options{Name: "config", URL: url, Branch: "main", Dir: t.TempDir()})
			m, files := merged(t, s, "main", "feature")
			want := map[string]string{
				"both.txt": lines(20, map[int]string{3: "theirs\n", 15: "ours\nand more\n"}), "clash.txt": lines(5, map[int]string{2: "ours\n"}),
				"theirs.txt": "2\n", "ours.txt": "2\n", "gone-and-changed.txt": "y\n", "dir/a.txt": "a2\n", "dir/b.txt": "b2\n",
				"new/theirs.txt": "n\n", "new/ours.txt": "n\n", "count.txt": "39",
			}
			if diff := cmp.Diff(want, files); diff != "" {
				t.Error("the merged tree is another (-want +got):\n", diff)
			}
			if want := []string{"clash.txt", "gone-and-changed.txt"}; !slices.Equal(m.Conflicts, want) {
				t.Errorf("conflicts are %v, want %v", m.Conflicts, want)
			}
			again, _ := merged(t, s, "main", "feature")
			if again.Result.Revision != m.Result.Revision || m.Result.Revision == m.Head.Revision {
				t.Errorf("the merge is %s and then %s, the head %s", m.Result.Revision, again.Result.Revision, m.Head.Revision)
			}
			paths, known := m.Result.Changed(m.Base.Revision)
			if want := []string{"both.txt", "dir/a.txt", "gone.txt", "new/theirs.txt", "theirs.txt"}; !known || !slices.Equal(paths, want) {
				t.Errorf("changed since the base: %v, %t; want %v", paths, known, want)
			}
			if forward, _ := merged(t, s, r.git("rev-parse", "main~3"), "main"); string(forward.Result.Revision) != r.git("rev-parse", "main") {
				t.Errorf("a branch that is only ahead is merged as %s", forward.Result.Revision)
			}
		})
	}
}

// TestMergeOfStrangers holds that branches without a common commit are refused.
func TestMergeOfStrangers(t *testing.T) {
	r := newRepo(t)
	r.commit("one", map[string]string{"a": "1"})
	r.git("checkout", "-q", "--orphan", "other")
	r.commit("two", map[string]string{"a": "2"})
	s := open(t, Options{Name: "config", URL: "file://" + r.dir, Branch: "main"})
	if _, err := s.Merge(t.Context(), "main", "other"); err == nil || !strings.Contains(err.Error(), "no commit in common") {
		t.Errorf("merging them: %v", err)
	}
	if _, err := s.Merge(t.Context(), "main", "nowhere"); err == nil || !strings.Contains(err.Error(), `"nowhere"`) {
		t.Errorf("merging what is not there: %v", err)
	}
}

// TestMergeLinesAgreesWithGit holds merges of lines against git merge-file: what is merged here is merged there, alike.
func TestMergeLinesAgreesWithGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	r := newRepo(t)
	clean, both := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		text := func(label string, of []string) []string {
			out := slices.Clone(of)
			for range rapid.IntRange(0, 3).Draw(t, label) {
				at := rapid.IntRange(0, len(out)).Draw(t, "at")
				n := rapid.IntRange(0, min(2, len(out)-at)).Draw(t, "removed")
				var added []string
				for range rapid.IntRange(0, 2).Draw(t, "added") {
					added = append(added, rapid.StringMatching(`[a-z]{6}`).Draw(t, "line")+"\n")
				}
				out = slices.Replace(out, at, at+n, added...)
			}
			return out
		}
		var start []string
		for i := range rapid.IntRange(0, 12).Draw(t, "lines") {
			start = append(start, fmt.Sprintf("%c%d\n", 'a'+i%4, i))
		}
		old, ours, theirs := strings.Join(start, ""), strings.Join(text("ours", start), ""), strings.Join(text("theirs", start), "")
		got, ok := mergeLines(old, ours, theirs)
		r.write(map[string]string{"old": old, "ours": ours, "theirs": theirs})
		cmd := exec.Command("git", "merge-file", "-p", "ours", "old", "theirs")
		cmd.Dir = r.dir
		out, err := cmd.Output()
		if ok {
			clean++
		}
		if ok && err == nil {
			both++
			if got != string(out) {
				t.Fatalf("merged\n%q\ngit merges\n%q", got, out)
			}
		}
		if ok && err != nil && got != ours && got != theirs {
			t.Fatalf("merged\n%q\nwhere git finds a conflict:\n%s", got, out)
		}
	})
	if both == 0 || clean > 2*both {
		t.Errorf("%d merges were clean, %d of them for git as well: nothing was compared", clean, both)
	}
}

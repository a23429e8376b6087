package git

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/sources"
)

var torture = flag.Bool("torture", false, "run the long form of the tests that hurt")

// points are how many of the kinds of moments are tried.
func points(quick, long int) int {
	if *torture {
		return long
	}
	return quick
}

// meter counts what a server sends, and calls full once when it is more than a limit.
type meter struct {
	mu    sync.Mutex
	sent  int
	limit int // 0 for none
	full  func()
}

func (m *meter) count(n int) {
	m.mu.Lock()
	m.sent += n
	act := m.limit > 0 && m.sent >= m.limit && m.full != nil
	full := m.full
	if act {
		m.full = nil
	}
	m.mu.Unlock()
	if act {
		full()
	}
}

// set begins to count anew.
func (m *meter) set(limit int, full func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent, m.limit, m.full = 0, limit, full
}

func (m *meter) total() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sent
}

func (m *meter) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(&measured{w, m}, r) })
}

type measured struct {
	http.ResponseWriter
	m *meter
}

// Write passes small pieces on, so that a limit is met within a few bytes.
func (w *measured) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		k, err := w.ResponseWriter.Write(p[n:min(len(p), n+512)])
		n += k
		if f, ok := w.ResponseWriter.(http.Flusher); ok {
			f.Flush()
		}
		w.m.count(k)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// victim is a repository with a clone that children work on, and die.
type victim struct {
	t     *testing.T
	repo  *repo
	meter *meter
	url   string
	ada   *signer
	round int
	good  string            // the newest commit that is signed
	files map[string]string // of it
}

func newVictim(t *testing.T) *victim {
	v := &victim{t: t, repo: newRepo(t), meter: &meter{}, ada: newKey(t, "ada", 1)}
	server := serveHTTP(t, v.repo, func(s *httptest.Server) {
		s.Config.Handler = v.meter.wrap(s.Config.Handler)
		s.Start()
	})
	v.url = server.URL
	v.push(true)
	return v
}

// push makes a commit with new files, signed or not.
func (v *victim) push(signed bool) string {
	v.t.Helper()
	v.round++
	files := map[string]string{"round": strconv.Itoa(v.round)}
	random := rand.New(rand.NewPCG(uint64(v.round), 1))
	for i := range 12 {
		b := make([]byte, 6<<10)
		for j := range b {
			b[j] = byte('a' + random.IntN(26))
		}
		files[fmt.Sprintf("dir%d/file%d.yaml", i%3, i)] = string(b)
	}
	id := v.repo.commit("round "+files["round"], files)
	if signed {
		id = v.ada.commit(v.repo)
		v.good, v.files = id, files
	}
	return id
}

// killed says whether a child that has ended was killed.
func killed(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.ExitCode() == -1
}

// mends checks that a process that starts now finds everything in order, or puts it in order, in one fetch.
func (v *victim) mends(w work, newest string, signed bool) {
	v.t.Helper()
	s, err := New(w.options())
	if err != nil {
		v.t.Fatal(err)
	}
	defer s.Close()
	snapshot, err := s.Fetch(v.t.Context(), "")
	var refusal *sources.Refusal
	switch {
	case signed && err != nil:
		v.t.Fatalf("after the kill: %v", err)
	case !signed && !errors.As(err, &refusal):
		v.t.Fatalf("after the kill an unsigned commit is not refused: %s, %v", snapshot.Revision, err)
	case !signed && string(refusal.Revision) != newest:
		v.t.Fatalf("refused is %s, want %s", refusal.Revision, newest)
	case !signed && snapshot.Revision == "":
		return // the clone with the last good revision is lost; nothing is used
	case string(snapshot.Revision) != v.good:
		v.t.Fatalf("revision %s, want %s", snapshot.Revision, v.good)
	}
	if d := cmp.Diff(v.files, contents(v.t, snapshot.Files)); d != "" {
		v.t.Fatalf("files after the kill (-want +got):\n%s", d)
	}
	entries, err := os.ReadDir(w.Dir)
	if err != nil {
		v.t.Fatal(err)
	}
	clones := 0
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "clone-") {
			clones++
		}
	}
	left, _ := filepath.Glob(filepath.Join(w.Dir, "clone-*", "objects", "pack", "tmp_*"))
	if clones != 1 || len(left) > 0 {
		v.t.Errorf("%d clones and %v are left", clones, left)
	}
}

// TestKilledAtAnyMoment (T-R6): whenever the daemon is killed while it works on a clone, the next one gets the right
// revision in one fetch, and never one that nobody signed.
func TestKilledAtAnyMoment(t *testing.T) {
	v := newVictim(t)
	keep := filepath.Join(t.TempDir(), "sources")
	beside := filepath.Join(keep, "another")
	if err := os.MkdirAll(beside, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(beside, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := work{URL: v.url, Dir: filepath.Join(keep, "one"), Keys: v.ada.line()}
	fresh := func(i int) { // every third time there is no clone yet
		if i%3 == 2 {
			if err := os.RemoveAll(w.Dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	deaths := map[string]int{}
	// round pushes, has a child begin, and checks what is left after its death.
	round := func(kind string, i int, begin func(*exec.Cmd) error) {
		t.Helper()
		fresh(i)
		signed := i%2 == 0
		w.Have = sources.Revision(v.good)
		newest := v.push(signed)
		cmd := exec.Command(os.Args[0])
		cmd.Env = w.env(t)
		if err := begin(cmd); killed(err) {
			deaths[kind]++
		}
		v.meter.set(0, nil)
		v.mends(w, newest, signed)
	}
	count := points(6, 70)

	// What a child needs when nobody kills it.
	var took time.Duration
	round("none", 2, func(cmd *exec.Cmd) error {
		v.meter.set(0, nil)
		start := time.Now()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("the child: %v\n%s", err, out)
		}
		took = time.Since(start)
		return nil
	})
	for i := range count {
		round("time", i, func(cmd *exec.Cmd) error {
			if err := cmd.Start(); err != nil {
				return err
			}
			timer := time.AfterFunc(took*time.Duration(i+1)/time.Duration(count+1), func() { _ = cmd.Process.Kill() })
			defer timer.Stop()
			return cmd.Wait()
		})
	}
	for i := range count {
		round("bytes", i, func(cmd *exec.Cmd) error {
			var once sync.Mutex
			once.Lock()
			// A fetch sends some 60 kB, and the advertisement before it.
			v.meter.set(1+i*60_000/count, func() {
				once.Lock()
				defer once.Unlock()
				_ = cmd.Process.Kill()
			})
			err := cmd.Start()
			once.Unlock()
			if err != nil {
				return err
			}
			return cmd.Wait()
		})
	}
	total := 0
	traced := func(limit int) func(*exec.Cmd) error {
		return func(cmd *exec.Cmd) error {
			cmd.Env = append(cmd.Env, tracerEnv+"="+strconv.Itoa(limit))
			out, err := cmd.Output()
			if err != nil {
				return err
			}
			if total, err = strconv.Atoi(strings.TrimSpace(string(out))); err != nil {
				return err
			}
			if limit > 0 && total >= limit {
				deaths["writes"]++
			}
			return nil
		}
	}
	round("none", 2, traced(0))
	whole := total
	round("none", 0, traced(0))
	if total == 0 {
		t.Log("processes cannot be traced here: nothing is killed at a given write")
	} else {
		for i, part := range slices.Repeat([]int{total, total, whole}, (count+2)/3)[:count] {
			round("writes", i, traced(1+i*part/count))
		}
		t.Logf("%d calls that change files in a clone, %d in a fetch", whole, total)
	}
	t.Logf("killed by time %d, by bytes %d, by writes %d times, of %d each", deaths["time"], deaths["bytes"], deaths["writes"], count)
	if deaths["time"]+deaths["bytes"]+deaths["writes"] < count {
		t.Error("hardly any child was killed while it worked")
	}
	if data, err := os.ReadFile(filepath.Join(beside, "file")); err != nil || string(data) != "x" {
		t.Errorf("what lies beside the clone was touched: %v", err)
	}
}

// TestFlippedBits (T-R6): a bit that flips in any file of a clone is found before it becomes desired state, and one
// fetch mends it; what nobody signed is refused all the same.
func TestFlippedBits(t *testing.T) {
	v := newVictim(t)
	random := rand.New(rand.NewPCG(7, 7))
	for i := range points(24, 400) {
		w := work{URL: v.url, Dir: filepath.Join(t.TempDir(), "one"), Keys: v.ada.line()}
		s, err := New(w.options())
		if err != nil {
			t.Fatal(err)
		}
		good := v.push(true)
		fetch(t, s, "")
		signed := i%2 == 0
		newest := v.push(signed)
		restart := i%4 < 2
		if restart {
			s.Close()
		}
		what := damageOne(t, w.Dir, random)
		if !restart {
			// Who reads what was had gets what it was, or an error; the note is read at a start only.
			got, err := s.Fetch(t.Context(), sources.Revision(good))
			var refusal *sources.Refusal
			if signed && (err != nil || string(got.Revision) != newest) || !signed && !errors.As(err, &refusal) {
				t.Fatalf("%s while running: %s %v", what, got.Revision, err)
			}
			if err == nil {
				if d := cmp.Diff(v.files, contents(t, got.Files)); d != "" {
					t.Fatalf("%s while running (-want +got):\n%s", what, d)
				}
			}
			s.Close()
		}
		t.Run(fmt.Sprintf("%d %s", i, what), func(t *testing.T) {
			u := *v
			u.t = t
			u.mends(w, newest, signed)
		})
	}
}

// damageOne flips a bit of a file below dir, cuts the file, or empties it, and says which.
func damageOne(t *testing.T, dir string, random *rand.Rand) string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil && info.Size() > 0 {
				files = append(files, p)
			}
		}
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("no files to damage: %v", err)
	}
	file := files[random.IntN(len(files))]
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(file)
	at := random.IntN(len(data))
	what := fmt.Sprintf("bit of byte %d of %s", at, filepath.Ext(name))
	switch random.IntN(5) {
	case 0:
		data, what = data[:at], fmt.Sprintf("%s cut at byte %d", filepath.Ext(name), at)
	case 1:
		data, what = nil, filepath.Ext(name)+" emptied"
	default:
		data[at] ^= 1 << random.IntN(8)
	}
	_ = os.Chmod(file, 0o600)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return what
}

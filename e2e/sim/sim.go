// Package sim runs the core of fairlead in a simulated world that follows from one number.
//
// What runs is the real thing: the loop over applications and sources (daemon/reconcile), the planner, the walker
// (apply), a node (apply/executor) and the state directory (daemon/store). What they run on is made here: a repository
// that gets good and bad commits, an engine (runtimes/fake) whose calls fail, hang or lose their answer, registries that
// are slow, somebody who does things to containers by hand, and a daemon that dies at any call. Time is that of a
// synctest bubble. While all of that goes on, check.go holds that nothing is lost, doubled or deleted by accident.
//
// Every choice follows from the seed: those of what happens next from one random number generator, those of which calls go
// wrong from a hash of the call, so that they are the same in whichever order goroutines run.
package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing/synctest"
	"time"

	"github.com/fairlead-dev/fairlead/runtimes/fake"
)

// Options say what is simulated.
type Options struct {
	Seed uint64
	// Events is how many things happen before the faults end; 0 means 24.
	Events int
	// Dir is where state directories are made; every incarnation of the daemon has its own. Small says that it is on a
	// small file system of its own, which may be filled up.
	Dir   string
	Small bool
	// Bug is a mistake that is made on purpose; none when it is empty.
	Bug Bug
	// Fine adds to the trace everything that the daemon asks of the world.
	Fine bool
	// Log is told every line of the trace as it is written; it may be nil.
	Log func(string)
}

// Result is what became of a simulation.
type Result struct {
	// Violations say what should never have happened, in the order in which it did.
	Violations []string
	// Trace is what happened, a line each.
	Trace []string
	// Took is the simulated time, and Calls the engine calls that could change something.
	Took  time.Duration
	Calls int
	// Crashes, Walks and Commits count.
	Crashes, Walks, Commits, Moves int
	// Failures counts revisions that failed, Rollbacks how often an application was seen back at its last good one.
	Failures, Rollbacks int
	// Passes is how many looks the applications took, together, to converge after the faults had ended.
	Passes int
}

// world is everything that the daemon stands on, and what is known of what it was told.
type world struct {
	opt     Options
	rnd     *rand.Rand
	began   time.Time
	engine  *fake.Engine
	other   *fake.Engine // the same machine, as another installation sees it
	network *fake.Network
	volumes *disk
	kernel  []*served
	catalog *catalog // nil in worlds without Consul
	apps    []*app
	inc     *incarnation
	all     []*incarnation

	mu      sync.Mutex
	result  Result
	faults  faults
	ledger  ledger
	order   order
	arm     *armed
	stopped bool          // nothing is checked any more
	full    atomic.Bool   // the disk
	over    chan struct{} // closed when the faults end
}

// Run simulates; it must be called in a synctest bubble, and returns when everything has ended.
func Run(o Options) Result {
	if o.Events == 0 {
		o.Events = 24
	}
	w := &world{opt: o, rnd: rand.New(rand.NewPCG(o.Seed, 0x5eed)), began: time.Now(), over: make(chan struct{})}
	w.setUp()
	w.start()
	w.pause(0)
	for i := range o.Events {
		if w.violated() {
			break
		}
		w.event(i)
		w.pause(w.shortly())
		w.revive()
		w.check()
	}
	if !w.violated() {
		w.converge()
	}
	w.tearDown()
	w.result.Took = time.Since(w.began)
	return w.result
}

// pause lets time pass until nothing moves.
func (w *world) pause(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// shortly is a time between two events: often nothing, sometimes minutes.
func (w *world) shortly() time.Duration {
	switch w.rnd.IntN(10) {
	case 0, 1, 2:
		return time.Duration(w.rnd.IntN(200)) * time.Millisecond
	case 3, 4, 5, 6:
		return time.Duration(w.rnd.IntN(8000)) * time.Millisecond
	case 7, 8:
		return time.Duration(w.rnd.IntN(60)) * time.Second
	default:
		return time.Duration(w.rnd.IntN(6)) * time.Minute
	}
}

// say adds a line to the trace.
func (w *world) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sayLocked(format, args...)
}

func (w *world) sayLocked(format string, args ...any) {
	line := fmt.Sprintf("%13.6fs ", time.Since(w.began).Seconds()) + strings.TrimSpace(fmt.Sprintf(format, args...))
	w.result.Trace = append(w.result.Trace, line)
	if w.opt.Log != nil {
		w.opt.Log(line)
	}
}

// violate notes what should never happen.
func (w *world) violate(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	what := fmt.Sprintf(format, args...)
	w.result.Violations = append(w.result.Violations, what)
	w.sayLocked("VIOLATION: %s", what)
}

func (w *world) violated() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.result.Violations) > 0
}

// chance is a choice that depends on the seed and on what it is about, not on when it is made.
func (w *world) chance(about string, more ...int) uint64 {
	const prime = 1099511628211 // of FNV-1a
	x := 14695981039346656037 ^ w.opt.Seed*prime
	for i := range len(about) {
		x = (x ^ uint64(about[i])) * prime
	}
	for _, n := range more {
		x = (x ^ uint64(n)) * prime
	}
	x ^= x >> 33 // FNV's high bits say little of the last bytes
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return x
}

func (w *world) newDir() string {
	dir, err := os.MkdirTemp(w.opt.Dir, "state-")
	if err != nil {
		panic(err)
	}
	return dir
}

// snapshot copies a state directory as it is now. The copy is no part of the world: a full disk has room for it.
func (w *world) snapshot(dir string) string {
	full := w.full.Load()
	w.room()
	next := w.newDir()
	if err := copyDir(dir, next); err != nil {
		panic(err)
	}
	if full {
		w.fill()
	}
	return next
}

func (w *world) ballast() string { return filepath.Join(w.opt.Dir, "ballast") }

// fill takes all the room that the disk has.
func (w *world) fill() {
	f, err := os.Create(w.ballast())
	if err != nil {
		panic(err)
	}
	defer f.Close()
	var fs syscall.Statfs_t
	if err := syscall.Fstatfs(int(f.Fd()), &fs); err != nil {
		panic(err)
	}
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, int64(fs.Bavail)*fs.Bsize); err != nil && !errors.Is(err, syscall.ENOSPC) {
		panic(err)
	}
	w.full.Store(true)
}

// room gives it back.
func (w *world) room() {
	if w.full.Swap(false) {
		_ = os.Remove(w.ballast()) // it is there
	}
}

// copyDir copies a tree of small files. What goes while it is copied may be in the copy or not, as after a crash.
func copyDir(from, to string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o600)
	})
}

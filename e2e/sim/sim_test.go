package sim

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"
)

var (
	torture = flag.Bool("torture", false, "run the long form: 10,000 seeds, on all processors")
	seeds   = flag.Int("seeds", 0, "how many seeds TestSeeds runs; 0 is the usual number")
	procs   = flag.Int("procs", 1, "how many processes share the seeds that TestSeeds runs")
	first   = flag.Uint64("first", 1, "the first seed")
	seed    = flag.Uint64("seed", 0, "the seed that TestSeed runs")
	fine    = flag.Bool("fine", false, "show with TestSeed everything that the daemon asks of the world")
	bug     = flag.String("bug", "", "the name of a bug that TestSeed makes on purpose")
	threads = flag.Int("processors", 1, "how many processors the second world of TestReplay has: several bring out what depends on the order of goroutines")
)

// place is where state directories are: in memory where that is possible, since every write is synced, and on a small file
// system of its own where the user may mount one. Without that no disk is ever full in the simulation.
func place(t testing.TB) Options {
	o := Options{Dir: t.TempDir()}
	if err := syscall.Mount("tmpfs", o.Dir, "tmpfs", 0, "mode=0700,size=8m"); err == nil {
		o.Small = true
		t.Cleanup(func() {
			if err := syscall.Unmount(o.Dir, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		return o
	}
	if d, err := os.MkdirTemp("/dev/shm", "fairlead-sim-"); err == nil {
		o.Dir = d
		t.Cleanup(func() { os.RemoveAll(d) })
	}
	return o
}

// simulate runs one seed, with a mistake that is made on purpose if b is not empty.
func simulate(t *testing.T, o Options, seed uint64, b Bug) (r Result) {
	o.Seed, o.Bug = seed, b
	var err error
	if o.Dir, err = os.MkdirTemp(o.Dir, "seed-"); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(o.Dir)
	synctest.Test(t, func(t *testing.T) {
		cryptotest.SetGlobalRandom(t, o.Seed)
		r = Run(o)
	})
	return r
}

// processor is the processor time of this process so far.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// one makes runs of one seed as alike as they can be, with one processor, and cheap, with less work for the collector.
func one(t testing.TB) {
	before, percent := runtime.GOMAXPROCS(1), debug.SetGCPercent(800)
	t.Cleanup(func() { runtime.GOMAXPROCS(before); debug.SetGCPercent(percent) })
}

func report(r Result, seed uint64, b Bug) string {
	command := fmt.Sprintf("go test ./e2e/sim -run 'TestSeed$' -seed %d -v", seed)
	if b != "" {
		command += fmt.Sprintf(" -bug %q", b)
	}
	return fmt.Sprintf("seed %d: %s\nreplay: %s", seed, strings.Join(r.Violations, "\n  "), command)
}

// TestSeed runs one seed and shows what happened.
func TestSeed(t *testing.T) {
	if *seed == 0 {
		t.Skip("no -seed was given")
	}
	one(t)
	o := place(t)
	o.Fine, o.Log = *fine, func(line string) { fmt.Println(line) } // at once: a world may never end
	r := simulate(t, o, *seed, Bug(*bug))
	t.Logf("%s simulated, %d commits, %d walks, %d crashes, %d changing calls, %d looks to come to rest", r.Took, r.Commits, r.Walks, r.Crashes, r.Calls, r.Passes)
	if len(r.Violations) > 0 {
		t.Error(report(r, *seed, Bug(*bug)))
	}
}

// TestReplay holds that a seed is nearly always the same world, whatever ran before it: what happened is the same to the line, with
// everything that the daemon asked of the world.
func TestReplay(t *testing.T) {
	one(t)
	base := place(t)
	base.Fine = true
	worlds, differ := uint64(25), uint64(0)
	if *torture {
		worlds = 500
	}
	for s := *first; s < *first+worlds; s++ {
		a := simulate(t, base, s, "")
		runtime.GOMAXPROCS(*threads)
		b := simulate(t, base, s, "")
		runtime.GOMAXPROCS(1)
		if slices.Equal(a.Trace, b.Trace) {
			continue
		}
		at := 0
		for at < len(a.Trace) && at < len(b.Trace) && a.Trace[at] == b.Trace[at] {
			at++
		}
		differ++
		t.Logf("seed %d was not the same world twice: from line %d of %d on\n%s\nand then\n%s", s, at+1, len(a.Trace), part(a.Trace, at), part(b.Trace, at))
	}
	t.Logf("%d of %d seeds were the same world twice", worlds-differ, worlds)
	// What nothing tells apart and happens at the very same instant is still for the scheduler to order.
	if differ*10 > worlds {
		t.Errorf("%d of %d seeds were not the same world twice", differ, worlds)
	}
}

// part is a trace around a line.
func part(trace []string, at int) string {
	return strings.Join(trace[max(0, at-12):min(len(trace), at+6)], "\n")
}

// share runs parts of the seeds in other processes: one world at a time has a process to itself, so that it is the same each time.
func share(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	each := (*seeds + *procs - 1) / *procs
	for n := range *procs {
		from, count := *first+uint64(n*each), min(each, *seeds-n*each)
		running.Go(func() {
			out, err := exec.Command(program, "-test.run", "^TestSeeds$", "-test.v", "-test.timeout", "2h",
				"-seeds", fmt.Sprint(count), "-first", fmt.Sprint(from)).CombinedOutput()
			if err != nil {
				t.Errorf("seeds %d to %d: %v", from, from+uint64(count)-1, err)
			}
			t.Logf("%s", out)
		})
	}
	running.Wait()
}

// usual is how many seeds TestSeeds runs when nothing else is said: the same everywhere, so that a run says the same everywhere.
const usual = 400

// TestSeeds runs many seeds.
func TestSeeds(t *testing.T) {
	switch {
	case *seeds > 0:
	case *torture:
		*seeds, *procs = 10000, runtime.NumCPU()
	case testing.Short():
		*seeds = 50
	default:
		*seeds = usual
	}
	if *procs > 1 {
		share(t)
		return
	}
	one(t)
	base, began := place(t), processor()
	var n, failed, walks, crashes, calls, commits, moves, looks int
	var took time.Duration
	for s := *first; n < *seeds; s++ {
		r := simulate(t, base, s, "")
		n++
		moves += r.Moves
		walks, crashes, calls, commits, took, looks = walks+r.Walks, crashes+r.Crashes, calls+r.Calls, commits+r.Commits, took+r.Took, max(looks, r.Passes)
		if len(r.Violations) > 0 {
			t.Error(report(r, s, ""))
			if failed++; failed == 10 {
				t.Fatal("10 seeds failed: no more are run")
			}
		}
	}
	t.Logf("%d seeds from %d, %d failed, %.1f ms of processor time each: %.0f simulated hours, %d commits, %d moves, %d walks, %d crashes, %d changing calls; at most %d looks to come to rest",
		n, *first, failed, float64((processor()-began).Milliseconds())/float64(max(n, 1)), took.Hours(), commits, moves, walks, crashes, calls, looks)
}

// most is how many seeds a bug may take to be found.
const most = 400

// TestBugsAreFound makes each bug on purpose, and holds that the simulation finds it.
func TestBugsAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	one(t)
	base := place(t)
	t.Logf("%d bugs", len(Bugs()))
	for _, b := range Bugs() {
		t.Run(strings.ReplaceAll(string(b), " ", "-"), func(t *testing.T) {
			for s := uint64(1); s <= most; s++ {
				r := simulate(t, base, s, b)
				if len(r.Violations) > 0 {
					what, _, _ := strings.Cut(r.Violations[0], "\n")
					t.Logf("found with seed %d: %s", s, what)
					return
				}
			}
			t.Errorf("not found with %d seeds", most)
		})
	}
}

// TestTolerated makes mistakes that something else makes up for.
func TestTolerated(t *testing.T) {
	one(t)
	base := place(t)
	for _, b := range Tolerated() {
		for s := uint64(1); s <= 50; s++ {
			if r := simulate(t, base, s, b); len(r.Violations) > 0 {
				t.Error(report(r, s, b))
			}
		}
	}
}

// Package bench measures the whole of fairlead on the real engine, against what that engine can do at
// best. Every result is a ratio: fairlead and its floor take turns in one run, so that what else the machine does
// meets both. The floor is the same containers made with bare calls to the engine, in this package.
//
// What is measured is asserted first: a benchmark fails when fairlead does the wrong thing, never because
// it is slow. A floor that varies too much makes the result void, which is said and is no failure.
package bench

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	jsonFile  = flag.String("json", os.Getenv("FAIRLEAD_BENCH_JSON"), "write the results to this file, too")
	commits   = flag.Int("commits", 20, "commits that M1 measures")
	rounds    = flag.Int("rounds", 5, "rounds of M2; M3 has fewer")
	bulk      = flag.String("bulk", "50,100", "numbers of pods that M2 starts from nothing")
	partPods  = flag.Int("part-pods", 20, "bare pods of which the parts of M2 start each kind")
	rolled    = flag.Int("rolled", 50, "pods that M3 replaces")
	idlePods  = flag.Int("pods", 100, "pods that run in M6 and M7")
	repairs   = flag.Int("repairs", 15, "containers that M7 removes, and as many that it kills")
	settle    = flag.Duration("settle", 30*time.Second, "time before M6 looks, and for which it counts")
	overlays  = flag.Int("overlays", 2000, "overlays, of five objects each, that M4 plans")
	maxSpread = flag.Float64("spread", 0.3, "interquartile range of a floor, in parts of its median, from which a result is void")
)

// large reports whether the sizes that take long are measured too.
func large() bool { return os.Getenv("FAIRLEAD_BENCH_LARGE") != "" }

// binDir is where the program under test is.
var binDir string

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := 0, error(nil)
	if binDir, err = os.MkdirTemp("", "fairlead-bench-"); err == nil {
		undo.onInterrupt()
		code = m.Run()
		err = errors.Join(results.finish(os.Stdout, *jsonFile), os.RemoveAll(binDir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// buildFairlead returns the program under test: this tree's, built once, or the one that FAIRLEAD_BENCH_PROGRAM names.
var buildFairlead = sync.OnceValues(func() (string, error) {
	if other := os.Getenv("FAIRLEAD_BENCH_PROGRAM"); other != "" {
		return other, nil
	}
	file := filepath.Join(binDir, "fairlead")
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "grpcnotrace", "-ldflags=-s -w", "-o", file, "../../daemon/cmd/fairlead")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build fairlead: %w\n%s", err, out)
	}
	return file, nil
})

// results are those of this process. Go has no value per process, so this is the one state of the package.
var results report

// report gathers the rows of all benchmarks.
type report struct {
	mu      sync.Mutex
	machine string
	rows    []row
}

// row is one result.
type row struct {
	Metric string `json:"metric"` // for example M2, as in docs/performance.md
	Case   string `json:"case"`
	// Ours and Floor are medians in milliseconds; Floor is 0 where there is none.
	Ours  float64 `json:"oursMillis,omitempty"`
	Floor float64 `json:"floorMillis,omitempty"`
	// OursSpread and FloorSpread are interquartile ranges in parts of the median.
	OursSpread  float64 `json:"oursSpread,omitempty"`
	FloorSpread float64 `json:"floorSpread,omitempty"`
	Samples     int     `json:"samples,omitempty"`
	// Value is the score: a ratio where there is a floor, and otherwise a number in Unit. Goal is the most that it should be; 0 for none.
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Goal  float64 `json:"goal,omitempty"`
	// Void says why the row proves nothing.
	Void string `json:"void,omitempty"`
	Note string `json:"note,omitempty"`
}

// add keeps a row, shows it at once, and gives it to the benchmark as a metric.
func (r *report) add(b *testing.B, x row) {
	b.Helper()
	r.mu.Lock()
	r.rows = append(r.rows, x)
	r.mu.Unlock()
	fmt.Println("  " + x.String())
	if x.Void == "" {
		b.ReportMetric(x.Value, strings.Map(func(c rune) rune {
			if c == ' ' || c == ',' || c == ':' {
				return '-'
			}
			return c
		}, x.Metric+" "+x.Case+" "+x.Unit))
	}
}

// skip says that something was not measured, and why.
func (r *report) skip(metric, what, why string) {
	fmt.Printf("  %-3s %s: skipped: %s\n", metric, what, why)
}

// compare adds the row of two series that took turns.
func (r *report) compare(b *testing.B, metric, what string, goal float64, ours, floor series, note string) {
	b.Helper()
	x := row{
		Metric: metric, Case: what, Unit: "ratio", Goal: goal, Note: note, Samples: len(ours),
		Ours: millis(ours.median()), Floor: millis(floor.median()), OursSpread: ours.spread(), FloorSpread: floor.spread(),
		Value: float64(ours.median()) / float64(floor.median()),
	}
	if x.FloorSpread > *maxSpread {
		x.Void = fmt.Sprintf("the floor varies by %.0f %%, more than %.0f %%", 100*x.FloorSpread, 100**maxSpread)
	}
	r.add(b, x)
}

// String is the line that people read.
func (x row) String() string {
	s := fmt.Sprintf("%-3s %-42s", x.Metric, x.Case)
	if x.Floor > 0 {
		s += fmt.Sprintf(" ours %8.1f ms ±%2.0f %%  floor %8.1f ms ±%2.0f %%  n=%-3d", x.Ours, 50*x.OursSpread, x.Floor, 50*x.FloorSpread, x.Samples)
	}
	s += fmt.Sprintf(" %8.2f %s", x.Value, x.Unit)
	if x.Goal > 0 {
		word := "met"
		if x.Value > x.Goal {
			word = "missed"
		}
		s += fmt.Sprintf(" (goal ≤ %g: %s)", x.Goal, word)
	}
	if x.Note != "" {
		s += "; " + x.Note
	}
	if x.Void != "" {
		s += "  void: " + x.Void
	}
	return s
}

// finish shows everything again, in one piece, and writes it to file unless that is empty.
func (r *report) finish(w io.Writer, file string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.rows) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\n%s\n", r.machine)
	for _, x := range r.rows {
		fmt.Fprintln(w, x)
	}
	fmt.Fprintln(w)
	if file == "" {
		return nil
	}
	data, err := json.MarshalIndent(struct {
		Machine string `json:"machine"`
		Rows    []row  `json:"rows"`
	}{r.machine, r.rows}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the results: %w", err)
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}

// describe says once what the results were measured on.
func (r *report) describe(engine string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.machine != "" {
		return
	}
	cpu := "unknown processor"
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
				cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel := "unknown kernel"
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		kernel = "kernel " + unix.ByteSliceToString(u.Release[:])
	}
	load := loadAverage()
	r.machine = fmt.Sprintf("%s: %d cores (%s), %s, %s, %s, load at start %.2f", time.Now().UTC().Format("2006-01-02 15:04 MST"),
		runtime.NumCPU(), cpu, kernel, engine, runtime.Version(), load)
	fmt.Println(r.machine)
	if load > 0.5 {
		fmt.Println("The machine has other work to do: ratios are rougher than they could be, and absolute numbers are too high.")
	}
}

// loadAverage is that of the last minute.
func loadAverage() float64 {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(data), " ")
	load, _ := strconv.ParseFloat(first, 64) // 0 where the kernel does not say
	return load
}

package git

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-dev/fairlead/sources"
)

// What the test program is started with to be something else.
const (
	childEnv  = "FAIRLEAD_GIT_CHILD"  // the work of the daemon with one repository
	tracerEnv = "FAIRLEAD_GIT_TRACER" // who kills that at the given write
)

func TestMain(m *testing.M) {
	if text := os.Getenv(tracerEnv); text != "" {
		os.Exit(trace(text))
	}
	if text := os.Getenv(childEnv); text != "" {
		os.Exit(childWork(text))
	}
	os.Exit(m.Run())
}

// work is what a child does: it fetches, reads every file, and fetches again as who has an older revision.
type work struct {
	URL, Dir, Keys string
	Have           sources.Revision
}

func (w work) options() Options {
	o := Options{Name: "config", URL: w.URL, Dir: w.Dir}
	if w.Keys != "" {
		keys := map[string][]byte{"keys": []byte(w.Keys)}
		o.Verify = &Verify{Mode: VerifyHEAD, Keys: func() (map[string][]byte, error) { return keys, nil }, From: "the test"}
	}
	return o
}

func (w work) env(t testing.TB) []string {
	t.Helper()
	text, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	return append(os.Environ(), childEnv+"="+string(text))
}

func childWork(text string) int {
	var w work
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		panic(err)
	}
	s, err := New(w.options())
	if err != nil {
		panic(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, have := range []sources.Revision{"", w.Have} {
		got, err := s.Fetch(ctx, have)
		var refusal *sources.Refusal
		if err != nil && !errors.As(err, &refusal) && !errors.Is(err, sources.ErrUnchanged) {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if got.Files == nil {
			continue
		}
		if err := fs.WalkDir(got.Files, ".", func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			_, err = fs.ReadFile(got.Files, p)
			return err
		}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if w.Have != "" {
			got.Changed(w.Have)
		}
	}
	return 0
}

// changing are the system calls that change files.
var changing = map[uint64]bool{
	unix.SYS_WRITE: true, unix.SYS_PWRITE64: true, unix.SYS_MKDIRAT: true, unix.SYS_RENAMEAT: true, unix.SYS_RENAMEAT2: true,
	unix.SYS_UNLINKAT: true, unix.SYS_LINKAT: true, unix.SYS_FSYNC: true, unix.SYS_FTRUNCATE: true, unix.SYS_FCHMODAT: true, unix.SYS_FLOCK: true,
}

// trace runs a child and kills it when it is about to make its N-th changing call. It prints how many there were. It is a
// process of its own, since it waits for every thread that it traces.
func trace(text string) int {
	limit, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	runtime.LockOSThread()
	os.Unsetenv(tracerEnv)
	cmd := exec.Command(os.Args[0])
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3 // tracing is not allowed here
	}
	pid, calls := cmd.Process.Pid, 0
	inside := map[int]bool{}
	if _, err := unix.Wait4(pid, nil, 0, nil); err != nil {
		panic(err)
	}
	options := unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(pid, options); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	_ = unix.PtraceSyscall(pid, 0)
	for {
		var status unix.WaitStatus
		tid, err := unix.Wait4(-1, &status, unix.WALL, nil)
		if err != nil {
			break // nobody is left
		}
		if status.Exited() || status.Signaled() {
			if tid == pid {
				break
			}
			continue
		}
		deliver := 0
		switch sig := status.StopSignal(); sig {
		case unix.SIGTRAP | 0x80:
			var regs unix.PtraceRegs
			if inside[tid] = !inside[tid]; inside[tid] && unix.PtraceGetRegs(tid, &regs) == nil && changing[syscallOf(&regs)] {
				if calls++; calls == limit {
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			}
		case unix.SIGTRAP, unix.SIGSTOP:
		default:
			deliver = int(sig)
		}
		_ = unix.PtraceSyscall(tid, deliver)
	}
	fmt.Println(calls)
	return 0
}

package worker

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// nobody is the user that a child of root becomes; it owns nothing.
const nobody = 65534

// confine gives up what rendering does not need, for the whole process and for good. Each step that is not
// possible here is reported and does not keep the others from being taken:
//
//  1. memory: no more than so many bytes of data, no core dumps, no files written
//  2. files: an empty directory that does not exist any more becomes the root, if the process may do that
//  3. rights: root becomes nobody, without groups and capabilities
//  4. system calls: none that opens files, makes sockets or processes, or touches other processes (seccomp);
//     this works without any rights, so that 2 and 3 are only a second wall
func confine(memory int64) error {
	var errs []error
	step := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	limit := func(what string, resource int, n uint64) {
		step(what, unix.Setrlimit(resource, &unix.Rlimit{Cur: n, Max: n}))
	}
	if memory > 0 {
		limit("limit memory", unix.RLIMIT_DATA, uint64(memory))
	}
	limit("forbid core dumps", unix.RLIMIT_CORE, 0)
	limit("forbid writing", unix.RLIMIT_FSIZE, 0)
	step("forbid being traced", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
	if os.Geteuid() == 0 {
		step("leave the file system", emptyRoot())
		step("drop groups", syscall.Setgroups(nil))
		step("drop the group", syscall.Setresgid(nobody, nobody, nobody))
		step("drop the user", syscall.Setresuid(nobody, nobody, nobody))
	}
	step("limit system calls", filterCalls())
	return errors.Join(errs...)
}

// emptyRoot makes a directory the root that is empty and has no name any more, so that nothing can be made in it.
func emptyRoot() error {
	dir, err := os.MkdirTemp("", "fairlead-render-")
	if err != nil {
		return err
	}
	if err := os.Chdir(dir); err != nil {
		return errors.Join(err, os.Remove(dir))
	}
	if err := os.Remove(dir); err != nil {
		return err
	}
	if err := syscall.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

// forbidden are the system calls that fail with EPERM.
var forbidden = append([]uint32{
	// files
	unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_MKDIRAT, unix.SYS_MKNODAT,
	unix.SYS_UNLINKAT, unix.SYS_RENAMEAT2, unix.SYS_LINKAT, unix.SYS_SYMLINKAT, unix.SYS_FCHMODAT, unix.SYS_FCHOWNAT, unix.SYS_TRUNCATE,
	unix.SYS_READLINKAT, unix.SYS_SETXATTR, unix.SYS_CHROOT, unix.SYS_PIVOT_ROOT, unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_FSOPEN,
	unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_MEMFD_CREATE, unix.SYS_IO_URING_SETUP, unix.SYS_INOTIFY_INIT1, unix.SYS_FANOTIFY_INIT,
	// network
	unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN,
	// processes
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_KILL,
	unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_GETFD, unix.SYS_PIDFD_SEND_SIGNAL, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_KCMP,
	// the kernel
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_REBOOT, unix.SYS_SWAPON,
	unix.SYS_SETHOSTNAME, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_ACCT, unix.SYS_QUOTACTL,
}, forbiddenHere...)

// Offsets in struct seccomp_data (linux/seccomp.h).
const (
	dataCall = 0
	dataArch = 4
)

// filterCalls installs a seccomp filter in every thread. Whoever is under it can never gain rights by running a
// program, either.
func filterCalls() error {
	if auditArch == 0 {
		return errors.New("not known how on this architecture")
	}
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	give := func(v uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: v} }
	deny := give(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))
	prog := []unix.SockFilter{
		load(dataArch),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: auditArch, Jt: 1},
		give(unix.SECCOMP_RET_KILL_PROCESS),
		load(dataCall),
		// The numbers of the x32 calls begin here; on other architectures there are none so high.
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: 0x40000000, Jf: 1},
		deny,
	}
	for _, nr := range forbidden {
		prog = append(prog, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: 1}, deny)
	}
	prog = append(prog, give(unix.SECCOMP_RET_ALLOW))
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}

	// The thread that installs the filter needs no_new_privs first; with TSYNC the others get both.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	bad, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(prog)
	if errno != 0 {
		return errno
	}
	if bad != 0 {
		return fmt.Errorf("thread %d did not take it", bad)
	}
	return nil
}

package main

import "golang.org/x/sys/unix"

// withoutCore keeps the kernel from writing the memory of this process, which holds decrypted Secrets, to a file when it
// crashes. Where it fails, the process runs on as every other one.
func withoutCore() {
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	// The limit does not count where the kernel hands the dump to a program.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

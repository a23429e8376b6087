package git

import "golang.org/x/sys/unix"

func syscallOf(regs *unix.PtraceRegs) uint64 { return regs.Regs[8] }
